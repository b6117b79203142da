"""How a drawing becomes a part of a page: readable on light and on dark, by eye and by ear, with nothing to load."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SHAPES = 4000
"""Bars that a page's drawing holds one by one; more are a picture."""

THEME = {"#000000": "currentColor", "#222222": "var(--dark)"}
"""Colours that would vanish on a dark page, and what a page has in their place."""


def svg(figure: Figure, name: str, described: str) -> str:
    """Return a figure as an SVG element for a page: its text is text in the page's own colour, on no ground.

    Parameters
    ----------
    figure : Figure
    name : str
        Of the element, of which there must be one in a page.
    described : str
        What it shows, for those who do not see it.
    """
    from matplotlib import rc_context

    for axes in figure.axes:
        many = sum(len(bars.get_paths()) for bars in axes.collections)
        if many > MOST_SHAPES:
            axes.patch.set_facecolor("#ffffff")
            for bars in axes.collections:
                bars.set_rasterized(True)
        else:
            axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    buffer = io.StringIO()
    # Names inside it are made of the salt: those of two figures in one page must differ.
    with rc_context({"svg.hashsalt": f"ffdask-{name}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, instead in THEME.items():
        text = text.replace(f": {colour}", f": {instead}")
    # As wide as the page lets it be.
    text = re.sub(r"^<svg [^>]*>", lambda found: re.sub(r' (width|height)="[^"]*"', "", found[0]), text)
    # Element names that are no reference's target: the same in every figure, and of no use here.
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    return text.replace("<svg ", f'<svg role="img" id="{escape(name)}" aria-label="{escape(described)}" ', 1)
