"""Names of one's own: ``package.module:function`` in place of a table's name, or from Python the function itself."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ffdask.errors import BadInput, nearest, told
from ffdask.negatives import NEGATIVES, Kind
from ffdask.objectives import OBJECTIVES, Objective, Paired, Scored
from ffdask.schedules import SCHEDULES, Entry
from ffdask.schedules.own import guarded
from ffdask.shipping import is_local, ship
from ffdask.trial import try_negatives, try_objective


class Own(str):
    """The name of something of the user's own, with the thing itself: where a key's value is text, it is this name.

    Attributes
    ----------
    meaning : Paired, Scored, Kind or Entry
        What a table's line would hold.
    sha256 : str or None
        Digest of its source; None where there is no source to be had.
    """

    meaning: Any
    sha256: str | None

    def __new__(cls, name: str, meaning: Any, sha256: str | None) -> Own:
        """Return the name, with what it means."""
        made = super().__new__(cls, name)
        made.meaning, made.sha256 = meaning, sha256
        return made

    def __deepcopy__(self, memo: object) -> Own:
        return self

    def __eq__(self, other: object) -> bool:
        # Two cells of a notebook may define the same name differently.
        return str.__eq__(self, other) is True and (not isinstance(other, Own) or self.sha256 == other.sha256)

    def __hash__(self) -> int:
        return str.__hash__(self)


def resolve_name(name: str, folder: Path | None = None) -> Any:
    """Return what ``package.module:function`` names.

    Parameters
    ----------
    name : str
        Imported as Python would, then from the working folder, then from `folder`.
    folder : Path, optional
        The graph file's.

    Raises
    ------
    BadInput
        If there is no such module or function, or the module cannot be imported.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise BadInput(f"given {name!r}; a name of one's own is package.module:function")
    places = [Path.cwd(), *([folder.absolute()] if folder else [])]
    _check_shadow(name, module_name.partition(".")[0], places)
    try:
        with _found_in(places):
            thing: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            listed = " or ".join(str(place) for place in places)
            raise BadInput(f"given {name!r}, but there is no module {error.name} installed or in {listed}") from None
        raise BadInput(f"given {name!r}, but importing {module_name} raised {told(error)}") from None
    # A module that asks the interpreter to exit ends this import, not the command.
    except (Exception, SystemExit) as error:
        raise BadInput(f"given {name!r}, but importing {module_name} raised {told(error)}") from None
    for part in path.split("."):
        if not hasattr(thing, part):
            hint = nearest(part, [known for known in dir(thing) if not known.startswith("_")])
            raise BadInput(f"given {name!r}, but {module_name} has no {part!r}{hint}")
        thing = getattr(thing, part)
    return thing


@contextmanager
def _found_in(places: list[Path]) -> Iterator[None]:
    """Have modules found in `places` too, after those that Python finds by itself."""
    added = [str(place) for place in places if str(place) not in sys.path]
    sys.path.extend(added)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for place in added:
            if place in sys.path:
                sys.path.remove(place)


def _check_shadow(name: str, top: str, places: list[Path]) -> None:
    """Raise BadInput if a local module of that name was imported from elsewhere: Python keeps one of each name."""
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    if loaded is None or file is None or not is_local(top, loaded):
        return
    spec = PathFinder.find_spec(top, [*sys.path, *map(str, places)])
    if spec and spec.origin and spec.has_location and not os.path.samefile(spec.origin, file):
        raise BadInput(
            f"given {name!r}, but module {top} is in this process already, from {os.path.dirname(file)}; rename one"
        )


def _function(key: str, thing: Any) -> Any:
    if not callable(thing) or isinstance(thing, type):
        raise BadInput(f"{key}: given a {type(thing).__name__}, which is no function")
    return thing


def _objective(name: str, thing: Any) -> Objective:
    made: Objective = thing if isinstance(thing, Paired | Scored) else Paired(_function(name, thing))
    try_objective(made, name)
    return made


def _negatives(name: str, thing: Any) -> Kind:
    made = thing if isinstance(thing, Kind) else Kind(_function(name, thing), reads="probabilities")
    if made.reads not in ("nothing", "probabilities", "classifier"):
        raise BadInput(f"{name}: reads {made.reads!r}; a kind of negatives reads nothing, probabilities or classifier")
    try_negatives(made, name)
    return made


def _schedule(name: str, thing: Any) -> Entry:
    function = _function(name, thing)
    by_visit, nodes = getattr(function, "by_visit", False), getattr(function, "nodes", None)
    if not isinstance(by_visit, bool):
        raise BadInput(f"{name}.by_visit: given {by_visit!r}; must be True (rounds are visits) or False (chapters)")
    if nodes is not None and not callable(nodes):
        raise BadInput(f"{name}.nodes: given {nodes!r}; must be callable: nodes(layers, units) -> int")

    def preferred(layers: int, units: int) -> int:
        wanted = (layers if by_visit else units) if nodes is None else nodes(layers, units)
        if not isinstance(wanted, int) or not 1 <= wanted <= 4096:
            raise BadInput(f"{name}.nodes({layers}, {units}): it returned {wanted!r}; must be a number from 1 to 4096")
        return wanted

    return Entry(guarded(function, name), by_visit, preferred)


KEYS: dict[str, Callable[[str, Any], Any]] = {
    "network.objective": _objective,
    "network.negatives": _negatives,
    "schedule.name": _schedule,
}
"""Keys whose value may be of one's own, and what makes of it what a table's line would hold."""


def own(key: str, value: Any, folder: Path | None = None) -> Own:
    """Return a key's value of one's own.

    Parameters
    ----------
    key : str
        One of `KEYS`.
    value : str or object
        ``package.module:function``, or the function (or Paired, Scored, Kind) itself.
    folder : Path, optional
        As for `resolve_name`.

    Raises
    ------
    BadInput
        With the key's name.
    """
    try:
        thing = resolve_name(value, folder) if isinstance(value, str) else value
        inner = getattr(thing, "loss", None) if isinstance(thing, Paired | Scored) else thing
        inner = thing.draw if isinstance(thing, Kind) else inner
        name = value if isinstance(value, str) else _name_of(inner)
        return Own(name, KEYS[key](name, thing), _source(inner))
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from None


def _name_of(thing: Any) -> str:
    kind = type(thing)
    module = getattr(thing, "__module__", None) or kind.__module__
    return f"{module}:{getattr(thing, '__qualname__', None) or kind.__qualname__}"


def _source(thing: Any) -> str | None:
    try:
        return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def take(tables: dict[str, Any], folder: Path | None) -> dict[str, Own]:
    """Put names of one's own in the place of what stands for them in `tables`; return them by key."""
    found: dict[str, Own] = {}
    for key in KEYS:
        table, _, name = key.partition(".")
        value = tables[table].get(name) if isinstance(tables.get(table), dict) else None
        if isinstance(value, Own):
            found[key] = value
        elif (isinstance(value, str) and ":" in value) or callable(value) or isinstance(value, Paired | Scored | Kind):
            found[key] = own(key, value, folder)
        if key in found:
            tables[table][name] = found[key]
    return found


def objective_of(name: str) -> Objective:
    """Return the objective of a name, a table's or one's own."""
    return name.meaning if isinstance(name, Own) else OBJECTIVES[name]


def negatives_of(name: str) -> Kind | None:
    """Return the kind of negatives of a name, a table's or one's own; None for ``none``."""
    return name.meaning if isinstance(name, Own) else NEGATIVES.get(name)


def entry_of(name: str) -> Entry:
    """Return the schedule of a name, a table's or one's own."""
    return name.meaning if isinstance(name, Own) else SCHEDULES[name]


def carried_objective(name: str) -> str | Objective:
    """Return an objective as a job carries it: by a table's name, or with a function that workers can load."""
    if not isinstance(name, Own):
        return name
    loss = ship(name.meaning.loss, f"network.objective: {name}")
    return Paired(loss, name.meaning.by_threshold) if isinstance(name.meaning, Paired) else Scored(loss)


def carried_negatives(name: str) -> str | Kind:
    """Return a kind of negatives as a job carries it."""
    if not isinstance(name, Own):
        return name
    return Kind(ship(name.meaning.draw, f"network.negatives: {name}"), name.meaning.reads, name.meaning.once)


def sources(values: Mapping[str, str]) -> dict[str, dict[str, str | None]]:
    """Return what a run records of the values (by key) that are of one's own: their names, their sources' digests."""
    own = {key: value for key, value in values.items() if isinstance(value, Own)}
    return {key: {"name": str(value), "source_sha256": value.sha256} for key, value in own.items()}
