"""A run goes on when workers go, come or fail: from its last checkpoint, on those that are there, to the same bits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from ffdask.checkpoints import Checkpoint
from ffdask.errors import Lost, RunFailed, StepFailed, told
from ffdask.interrupts import Interrupts
from ffdask.network import Network
from ffdask.slots import Placement
from ffdask.training import Misplaced, Training

DEATHS = 4
"""Of workers during one step, however many others were done beside it, until it counts as their cause."""

STANDSTILLS = 10
"""Times that a run is begun again from the same checkpoint."""

AGAIN_SECONDS = 0.5
"""Until nodes are placed again, when a worker went while they were."""

Begin = Callable[[Placement, Checkpoint | None], Training]


class Faults:
    """What went wrong so far, and whether a run goes on after it."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._alone: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._standstills: Counter[int] = Counter()

    def weigh(self, error: Lost | StepFailed, checkpoint: Checkpoint | None) -> None:
        """Return if a run is to be tried again from a checkpoint.

        Raises
        ------
        RunFailed
            If a step fails for the second time, or is what workers die of, or the run comes no further.
        """
        round_ = checkpoint.round if checkpoint else -1
        self._standstills[round_] += 1
        if self._standstills[round_] > STANDSTILLS:
            raise RunFailed(f"begun again {STANDSTILLS} times, and no checkpoint further: {error}") from error
        if isinstance(error, StepFailed):
            what = error.step or str(error)
            if what in self._failed:
                raise error
            self._failed.add(what)
            return
        for worker, steps in error.at_work.items():
            self._deaths.update(steps)
            killer = next((step for step in steps if self._deaths[step] >= DEATHS), None)
            if len(steps) == 1 and steps[0] in self._alone:
                killer = steps[0]
            if killer:
                raise RunFailed(
                    f"worker {worker} was lost while it did step {killer}, as another was before: if its process ran "
                    "out of memory, give it more, or smaller chapters (--chapters); if it crashed, see its log"
                ) from error
            self._alone.update(steps if len(steps) == 1 else ())


def see_through(
    begin: Begin,
    placement: Placement,
    place_anew: Callable[[Checkpoint | None], Placement],
    checkpoint: Checkpoint | None,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> tuple[Network, Training]:
    """Train to the end, whoever goes or comes.

    Parameters
    ----------
    begin : callable
        Returns a training on placed nodes, from a checkpoint or from the start.
    placement : Placement
        To begin with.
    place_anew : callable
        Returns one on the workers that are there, from which a checkpoint can be gone on from.
    checkpoint : Checkpoint or None
    interrupts : Interrupts
        The first lets the training come to a checkpoint; what is lost then is not computed again.
    say : callable

    Returns
    -------
    network : Network
    training : Training
        The one that came to the end.

    Raises
    ------
    Diverged, RunFailed, KeyboardInterrupt
        As `Training.run`, and as `Faults.weigh`.
    """
    faults = Faults()
    while True:
        training = begin(placement, checkpoint)
        try:
            with interrupts.gently(training.checkpoint_every > 0):
                return training.run(), training
        except Misplaced:
            why = "workers have joined"
        except (Lost, StepFailed) as error:
            if interrupts.asked:
                raise KeyboardInterrupt from error
            faults.weigh(error, training.newest)
            why = str(error)
        checkpoint = training.newest
        where = f"after round {checkpoint.round}" if checkpoint else "from the start"
        say(f"{why}; going on {where} on the workers that are there")
        placement = _placed(partial(place_anew, checkpoint))


def _placed(place_anew: Callable[[], Placement]) -> Placement:
    reason = ""
    for _ in range(STANDSTILLS):
        try:
            return place_anew()
        except (Lost, OSError) as error:
            # Another one went while nodes were placed; when none is left, that is said.
            reason = told(error)
            time.sleep(AGAIN_SECONDS)
    raise RunFailed(f"nodes could not be placed, {STANDSTILLS} times: {reason}")
