"""A run as Jupyter shows it: how far it is, its figures, its timeline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any


def shown(title: str, progress: float, figures: Mapping[str, Any], picture: Any) -> str:
    """Return HTML that stands for itself.

    Parameters
    ----------
    title : str
    progress : float
        0 to 1.
    figures : mapping
        Name -> value, a row each.
    picture : matplotlib Figure or None
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in figures.items()
    )
    image = ""
    if picture is not None:
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png", dpi=90)
        data = base64.b64encode(drawn.getvalue()).decode()
        alt = "timeline: one row a node, coloured by layer"
        image = f"<img alt='{alt}' style='max-width:100%' src='data:image/png;base64,{data}'>"
    return (
        f"<div><b>{escape(title)}</b><br><progress value='{progress:.4f}' max='1' style='width:24em'></progress>"
        f"<table>{rows}</table>{image}</div>"
    )
