"""Samples and weights as small pictures: arrays of colours, and PNG files inside a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.network import Network

Colours = NDArray[np.uint8]

LARGEST_SIDE = 64
"""Pixels of a picture's longer side: of larger samples only every so many are shown."""


def data_uri(picture: Colours) -> str:
    """Return a picture (height, width), or with 3 or 4 channels, as the address of a PNG that holds itself."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def drawable(shape: tuple[int, ...]) -> bool:
    """Return whether samples of this shape are images: grey, or of three colours."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def sample(image: NDArray[Any]) -> Colours:
    """Return a sample (height, width) or with channels as a picture; floats by their own lowest and highest."""
    image = _smaller(image)
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (255 * (image - low) / ((high - low) or 1.0)).astype(np.uint8)
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def receptive_fields(network: Network, shape: tuple[int, ...], most: int = 60, across: int = 12) -> tuple[Colours, int]:
    """Return the weights of the first layer's units as one picture, and of how many units.

    The units of the largest running mean activity, in that order; each on a scale of its own, symmetric about zero.
    Grey samples are drawn from blue (negative) through white to red; colours as they are, about grey. Inputs that hold
    labels are left white.
    """
    state, labelled = network.states[0], network.classes if network.overlay == "replace" else 0
    weights = state.weights[-network.pixels :].copy()
    weights[:labelled] = 0
    units = np.argsort(-state.running_mean, kind="stable")[:most]
    fields = [_field(weights[:, unit].reshape(shape)) for unit in units]
    height, width, rows = *fields[0].shape[:2], -(-len(fields) // across)
    # Between them nothing: whatever the page's own colour is.
    sheet = np.zeros((rows * (height + 2) - 2, min(across, len(fields)) * (width + 2) - 2, 4), np.uint8)
    for number, field in enumerate(fields):
        top, left = number // across * (height + 2), number % across * (width + 2)
        sheet[top : top + height, left : left + width, :3] = field
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet, len(fields)


def _field(weights: NDArray[Any]) -> Colours:
    from matplotlib import colormaps

    weights = _smaller(weights)
    scaled = 0.5 + weights / (2 * (np.abs(weights).max() or 1.0))
    if weights.ndim == 3 and weights.shape[2] == 3:
        return (255 * scaled).astype(np.uint8)
    coloured: Colours = colormaps["RdBu_r"](scaled.reshape(weights.shape[:2]), bytes=True)[..., :3]
    return coloured


def _smaller(image: NDArray[Any]) -> NDArray[Any]:
    step = -(-max(image.shape[:2]) // LARGEST_SIDE)
    return image[::step, ::step]
