"""What every step of a run takes beside its inputs: the job, small and the same for all, and the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.calendar import Calendar, Rows, kept_rows
from ffdask.changes import Change, changed
from ffdask.errors import RunFailed
from ffdask.head import HeadRecipe, HeadState, initial_head
from ffdask.kernels import BACKENDS, DEVICE, Precision
from ffdask.labels import Overlay
from ffdask.layer import LayerRecipe, LayerState, Optimizer, initial_state
from ffdask.negatives import NEGATIVES, Kind
from ffdask.objectives import OBJECTIVES, Objective, Paired, Scored
from ffdask.shards import ShardedCalendar

Images = NDArray[Any]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Job:
    """What is computed, in a few numbers and names.

    Attributes
    ----------
    fan_in : int
        Inputs of layer one, a label's own places among them.
    widths : tuple of int
        Of the layers.
    classes : int
    calendar : Calendar
    layer, optimizer, head : LayerRecipe, Optimizer, HeadRecipe
    objective, negatives : str or Objective, str or Kind
        By name, or one of the user's own.
    overlay : str
        Where labels go.
    candidates : int
        Labels that adaptive negatives by goodness try.
    shift : int
        Pixels by which images are shifted at random.
    kernels : str
        The backend's name; see `on`.
    gpu_nodes : tuple of int
        Nodes whose steps a GPU computes, whatever `kernels` is.
    precision : str
        Of the large products.
    changes : tuple of Change
        By chapter; see `at`.
    """

    fan_in: int
    widths: tuple[int, ...]
    classes: int
    calendar: Calendar
    layer: LayerRecipe
    optimizer: Optimizer
    head: HeadRecipe
    objective: str | Objective = "goodness"
    negatives: str | Kind = "sampled"
    overlay: Overlay = "replace"
    candidates: int = 0
    shift: int = 0
    kernels: str = BACKENDS[0]
    precision: Precision = "float32"
    changes: tuple[Change, ...] = ()
    gpu_nodes: tuple[int, ...] = ()

    def on(self, node: int) -> Job:
        """Return the job as a node does it: by a GPU's kernels, if it is one of `gpu_nodes`."""
        return replace(self, kernels=DEVICE) if node in self.gpu_nodes else self

    def at(self, round_: int) -> Job:
        """Return the job as it is in a round: with every change made that is for its chapter, or for one before."""
        chapter = self.calendar.chapter_of(round_)
        values: dict[str, Any] = {}
        for change in self.changes:
            if change.chapter <= chapter:
                values |= change.values()
        made: Job = changed(self, values) if values else self
        return made

    @property
    def ends(self) -> float:
        """Return the chapter before which the run ends by a change; infinite where none says so."""
        return min((change.chapter for change in self.changes if change.ends), default=math.inf)

    @property
    def objective_of(self) -> Objective:
        """Return the objective itself."""
        return OBJECTIVES[self.objective] if isinstance(self.objective, str) else self.objective

    @property
    def kind_of_negatives(self) -> Kind:
        """Return the kind of negatives itself."""
        return NEGATIVES[self.negatives] if isinstance(self.negatives, str) else self.negatives

    @property
    def copies(self) -> int:
        """Return how many rows a sample has in training: a positive and a negative one, or one."""
        return 2 if isinstance(self.objective_of, Paired) else 1

    @property
    def tried(self) -> int:
        """Return how many wrong labels adaptive negatives by goodness try."""
        return min(self.candidates or self.classes - 1, self.classes - 1)

    def initial_layer(self, layer: int) -> LayerState:
        """Return layer number `layer`'s state before any step."""
        fan_in, width = (self.fan_in, *self.widths)[layer - 1], self.widths[layer - 1]
        classes = self.classes if isinstance(self.objective_of, Scored) else 0
        return initial_state(self.calendar.seed, layer, fan_in, width, self.optimizer, classes=classes)

    def initial_head(self) -> HeadState:
        """Return the head before any step."""
        return initial_head(self.widths, self.classes)


class Data:
    """The data as a step reads it: the training rows of a chunk, in dealt order, and those that are looked at.

    Parameters
    ----------
    images, labels : callable
        ``images(number) -> (n, ...)`` of a chunk, and ``labels(number) -> (n,) uint8``, for which no image is read.
    held_out : callable
        ``held_out() -> (images, labels)``: the validation rows, or the test set where there are none.
    origin : callable, optional
        ``origin(number) -> (all images, all labels, the chunk's rows among them)``, where all are at hand.
    """

    def __init__(
        self,
        images: Callable[[int], Images],
        labels: Callable[[int], Labels],
        held_out: Callable[[], tuple[Images, Labels]],
        origin: Callable[[int], tuple[Images, Labels, Rows]] | None = None,
    ) -> None:
        self.images, self.labels, self.held_out, self.origin = images, labels, held_out, origin

    @classmethod
    def of(cls, calendar: Calendar, train: tuple[Images, Labels], test: Callable[[], tuple[Images, Labels]]) -> Data:
        """Return the data of a training set in memory, dealt by `calendar`."""
        images, labels = train

        def rows_of(number: int) -> Rows:
            rows = calendar.deal()[number]
            if isinstance(calendar, ShardedCalendar):
                return _members(calendar, labels)[calendar.shard_of(number)][rows]
            return rows

        def held_out() -> tuple[Images, Labels]:
            rows = calendar.held_out()
            return (images[rows], labels[rows]) if len(rows) else test()

        return cls(*_parts(train, rows_of), held_out, lambda number: (images, labels, rows_of(number)))

    @classmethod
    def of_node(cls, calendar: ShardedCalendar, node: int, data: Data) -> Data:
        """Return `data` as a federated node may read it: its own shard's chunks only.

        Raises
        ------
        RunFailed
            From reading another node's chunk.
        """

        def own(number: int) -> int:
            if calendar.shard_of(number) != node:
                raise RunFailed(f"node {node} was to read a chunk of node {calendar.shard_of(number)}'s shard")
            return number

        return cls(lambda number: data.images(own(number)), lambda number: data.labels(own(number)), data.held_out)

    @classmethod
    def held(
        cls, calendar: ShardedCalendar, train: tuple[Images, Labels], test: Callable[[], tuple[Images, Labels]]
    ) -> Data:
        """Return the data of a node that has a store of its own, with `train` in it."""
        return cls(*_parts(train, lambda number: calendar.deal()[number]), test)


def _parts(
    train: tuple[Images, Labels], rows_of: Callable[[int], Rows]
) -> tuple[Callable[[int], Images], Callable[[int], Labels]]:
    images, labels = train
    return lambda number: images[rows_of(number)], lambda number: labels[rows_of(number)]


def _members(calendar: ShardedCalendar, labels: Labels) -> list[Rows]:
    """Return each node's rows of the data set from which the shards are dealt; worked out once in a process."""
    key = (calendar.origin, calendar.rows, calendar.validation, id(labels))
    if key not in _known_members:
        _known_members.clear()
        rows = kept_rows(len(labels), calendar.held_out())
        # The labels too: as long as they are kept, nothing else has their id.
        _known_members[key] = (labels, calendar.origin.deal(rows, labels[rows]))
    return _known_members[key][1]


_known_members: dict[tuple[Any, ...], tuple[Labels, list[Rows]]] = {}
