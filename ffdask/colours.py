"""The colours of steps, the same in every picture: a layer's own, a paler shade for its pushes."""

from __future__ import annotations

from collections.abc import Iterable

MOST_NAMES = 20
"""Steps of layers that a legend names."""

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#44bb99", "#ffaabb")
"""Of the layers, in turn; the head and the rest have greys of their own."""

OTHERS = {
    "head": ("head", "#222222"),
    "push_head": ("head push", "#888888"),
    "negatives": ("negatives", "#dd8800"),
    "evaluate": ("evaluation", "#bbbbbb"),
}
"""Kinds that are no layer's: name and colour."""


def look(kind: str, layer: int) -> tuple[str, str]:
    """Return a step's name in a legend and its colour; a kind unheard of has its own name, in grey.

    Examples
    --------
    >>> look("train", 1), look("head", 0)
    (('layer 1 train', '#4477aa'), ('head', '#222222'))
    """
    if layer and kind not in OTHERS:
        colour = COLOURS[(layer - 1) % len(COLOURS)]
        return f"layer {layer} {kind}", colour if kind == "train" else _paler(colour)
    return OTHERS.get(kind, (kind.replace("_", " "), "#bbbbbb"))


def in_order(kinds: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Return names and colours of steps' (kind, layer) as a legend lists them: by layer, then what is no layer's."""
    ordered = sorted({(not layer, layer, kind) for kind, layer in kinds})
    if len(ordered) > MOST_NAMES:
        # The colours repeat long before.
        ordered = [*ordered[:MOST_NAMES], *(named for named in ordered[MOST_NAMES:] if not named[1])]
    return dict(look(kind, layer) for _, layer, kind in ordered)


def ink(colour: str) -> str:
    """Return black or white, whichever can be read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def _paler(colour: str, by: float = 0.5) -> str:
    return "#" + "".join(f"{round(255 - by * (255 - int(colour[i : i + 2], 16))):02x}" for i in (1, 3, 5))
