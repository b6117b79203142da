"""What leaves a worker process, byte for byte: recorded there by a preload, taken apart here."""

from __future__ import annotations

import dataclasses
import os
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from distributed.protocol import loads
from distributed.protocol.serialize import Serialized

from ffdask.head import HeadState
from ffdask.layer import LayerState

FIGURES = {
    *("name", "kind", "round", "layer", "again", "last", "node", "worker", "start", "stop", "rows", "loss", "error"),
    *("goodness_positive", "goodness_negative"),
}
"""What a step's record may hold."""

LARGEST_TEXT = 2000
"""Characters or bytes of a message that is not an array: names, addresses, types, monitoring."""


def record_frames(folder: str) -> None:
    """Write every message that this process sends by TCP to a file of its own in `folder`; called on a worker."""
    from distributed.comm import tcp

    original = tcp.to_frames

    async def recorded(message: Any, *args: Any, **kwargs: Any) -> Any:
        frames = await original(message, *args, **kwargs)
        (Path(folder) / f"{os.getpid()}-{uuid.uuid4().hex}").write_bytes(pickle.dumps([bytes(f) for f in frames]))
        return frames

    tcp.to_frames = recorded


@dataclasses.dataclass
class Sent:
    """What all messages together held.

    Attributes
    ----------
    states : int
        Layer states and heads.
    records : int
    undeclared : list of str
        Whatever is neither of these nor a short text or a number.
    raw : list of bytes
        Every array and every text, decompressed, to search in.
    """

    states: int = 0
    records: int = 0
    undeclared: list[str] = dataclasses.field(default_factory=list)
    raw: list[bytes] = dataclasses.field(default_factory=list)

    def found(self, needles: dict[str, bytes]) -> list[str]:
        """Return which of the needles lie in anything that was sent."""
        return [name for name, needle in needles.items() if any(needle in hay for hay in self.raw)]


def read_frames(folder: Path, shapes: set[tuple[int, ...]]) -> Sent:
    """Take apart what workers recorded; `shapes` are those that a state's arrays may have, all of them float32."""
    sent = Sent()
    for file in folder.iterdir():
        frames = pickle.loads(file.read_bytes())
        _take(loads(frames), sent, shapes, "message")
    return sent


def _take(value: Any, sent: Sent, shapes: set[tuple[int, ...]], where: str) -> None:
    if isinstance(value, Serialized):
        value = pickle.loads(value.frames[0]) if value.header["serializer"] == "pickle" else value
    if isinstance(value, LayerState | HeadState):
        sent.states += 1
        for name, array in value.arrays().items():
            _array(array, sent, shapes, f"{where}.{name}", declared=True)
    elif isinstance(value, np.ndarray | np.generic):
        _array(np.asarray(value), sent, shapes, where, declared=False)
    elif isinstance(value, bytes | bytearray | memoryview | str):
        text = value.encode() if isinstance(value, str) else bytes(value)
        sent.raw.append(text)
        if len(text) > LARGEST_TEXT:
            sent.undeclared.append(f"{where}: {len(text)} bytes")
    elif isinstance(value, dict):
        if "goodness_positive" in value or {"kind", "round", "node"} <= value.keys():
            _record(value, sent, where)
        for key, one in value.items():
            _take(key, sent, shapes, f"{where} key")
            _take(one, sent, shapes, f"{where}.{key if isinstance(key, str) else type(key).__name__}"[:200])
    elif isinstance(value, list | tuple | set | frozenset):
        numbers = [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if len(numbers) > 100:
            sent.undeclared.append(f"{where}: a list of {len(numbers)} numbers")
        for one in value:
            _take(one, sent, shapes, where)
    elif isinstance(value, BaseException):
        for one in (*value.args, value.__dict__):
            _take(one, sent, shapes, f"{where} exception")
    elif not isinstance(value, int | float | complex | type(None) | type) and not callable(value):
        for one in _parts(value):
            _take(one, sent, shapes, f"{where} {type(value).__name__}"[:200])


def _parts(value: Any) -> Iterator[Any]:
    yield from vars(value).values() if hasattr(value, "__dict__") else ()
    for name in getattr(type(value), "__slots__", ()):
        if isinstance(name, str) and hasattr(value, name):
            yield getattr(value, name)


def _array(array: np.ndarray, sent: Sent, shapes: set[tuple[int, ...]], where: str, declared: bool) -> None:
    sent.raw.append(np.ascontiguousarray(array).tobytes())
    if not declared or array.shape not in shapes or array.dtype != np.float32:
        sent.undeclared.append(f"{where}: {array.dtype} {array.shape}")


def _record(record: dict[str, Any], sent: Sent, where: str) -> None:
    sent.records += 1
    more = record.keys() - FIGURES
    if more or not all(isinstance(one, int | float | str) for one in record.values()):
        sent.undeclared.append(f"{where}: a record with {sorted(more)}")


def canaries(images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    """Return what a few rows would look like on the wire, in every encoding that training uses.

    Of an image a part of one line, so that it is found however the image was shifted, padded or cut.
    """
    needles = {}
    for number, image in enumerate(images):
        line = image[len(image) // 2, 2:-2]
        scaled = line.astype(np.float32) / np.float32(255)
        pixels = image.reshape(-1).astype(np.float32) / np.float32(255)
        needles[f"image {number} bytes"] = line.tobytes()
        needles[f"image {number} scaled"] = scaled.tobytes()
        needles[f"image {number} float64"] = (line / 255).tobytes()
        for label in (0.0, 1.0, 0.1):
            length = np.float32(np.sqrt(((pixels[10:] ** 2).sum() + label) / pixels.size) + 1e-8)
            needles[f"image {number} normalised, label {label}"] = (scaled / length).tobytes()
    for kind in (np.uint8, np.int64, np.int32, np.float32):
        needles[f"labels {np.dtype(kind).name}"] = labels.astype(kind).tobytes()
    needles["labels one-hot"] = np.eye(10, dtype=np.float32)[labels].tobytes()
    return needles
