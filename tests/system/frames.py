"""What leaves a worker process, byte for byte: recorded there by a preload, taken apart here."""

from __future__ import annotations

import dataclasses
import os
import pickle
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from distributed.protocol import dumps, loads
from distributed.protocol.serialize import Serialized
from distributed.protocol.utils import pack_frames, unpack_frames
from tornado.iostream import IOStream

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
    """Write every byte that this process sends to a file a connection in `folder`; called on a worker.

    Where tornado hands bytes to the socket, below all of Dask: whatever Dask sends, and by whichever way, goes there.
    """
    original = IOStream.write_to_fd

    def recorded(self: IOStream, data: memoryview) -> int:
        if not hasattr(self, "recorded_in"):
            self.recorded_in = Path(folder) / f"{os.getpid()}-{uuid.uuid4().hex}"  # type: ignore[attr-defined]
        copy = bytes(data)
        sent = original(self, data)
        with self.recorded_in.open("ab") as file:  # type: ignore[attr-defined]
            file.write(copy[:sent])
        return sent

    IOStream.write_to_fd = recorded  # type: ignore[method-assign]


def messages(stream: bytes) -> Iterator[list[bytes]]:
    """Yield the frames of each message that one connection carried, as `distributed.comm.tcp` reads them.

    Raises
    ------
    ValueError
        If the bytes are not such messages; a last one that was cut short, by a process that was killed, is left out.
    """
    position = 0
    while position + 8 <= len(stream):
        (length,) = struct.unpack_from("Q", stream, position)
        whole = stream[position + 8 : position + 8 + length]
        if len(whole) < length:
            if length > 1 << 32:
                raise ValueError(f"no message of {length} bytes")
            return
        frames, missing = unpack_frames(whole, partial=True)
        position += 8 + length
        for size in missing:
            frames.append(memoryview(stream)[position : position + size])
            position += size
        if position > len(stream):
            return
        yield [bytes(frame) for frame in frames]


def on_the_wire(message: Any) -> bytes:
    """Return a message's bytes as a connection carries them."""
    packed = pack_frames([bytes(frame) for frame in dumps(message)])
    return struct.pack("Q", len(packed)) + packed


@dataclasses.dataclass
class Sent:
    """What all messages together held.

    Attributes
    ----------
    messages : int
    states : int
        Layer states and heads.
    records : int
    undeclared : list of str
        Whatever is neither of these nor a short text or a number.
    raw : list of bytes
        Every array and every text, decompressed, to search in.
    """

    messages: int = 0
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
        stream = file.read_bytes()
        # As it went, too: what a message hides from those who take it apart may still be searched for.
        sent.raw.append(stream)
        try:
            for frames in messages(stream):
                sent.messages += 1
                _take(loads(frames), sent, shapes, "message")
        except (ValueError, struct.error) as error:
            sent.undeclared.append(f"a connection that does not speak Dask's protocol: {error}")
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
