"""A file or a folder of every kind that ffdask reads: how a small one is made, and what reads it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

from ffdask import checkpoints
from ffdask.checkpoints import Checkpoint
from ffdask.config import Config, load
from ffdask.datasets import idx, write_store
from ffdask.datasets.cifar import TEST, TRAIN
from ffdask.datasets.files import IDX_NAMES, read_path
from ffdask.datasets.zarr_store import verified
from ffdask.head import HeadState
from ffdask.images import read_images
from ffdask.layer import Optimizer, initial_state
from ffdask.network import Network
from ffdask.records import Records
from ffdask.schedules.steps import Need
from ffdask.store import RunFolder, open_network, open_unfinished

ROWS, SIDE = 20, 12


def _rows(count: int, shape: tuple[int, ...] = (SIDE, SIDE)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, *shape)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)


def _split() -> dict[str, np.ndarray]:
    (train, labels), (test, others) = _rows(ROWS), _rows(ROWS // 2)
    return {"train_images": train, "train_labels": labels, "test_images": test, "test_labels": others}


def make_idx(place: Path) -> Path:
    for name, array in _split().items():
        idx.write(place / (IDX_NAMES[name] + (".gz" if "test" in name else "")), array)
    return place


def make_npz(place: Path) -> Path:
    arrays = {name.replace("images", "x").replace("labels", "y"): array for name, array in _split().items()}
    named = {"_".join(reversed(name.split("_"))): array for name, array in arrays.items()}
    np.savez_compressed(place / "rows.npz", **named)
    return place / "rows.npz"


def make_group(place: Path) -> Path:
    group = zarr.create_group(place / "rows.zarr")
    for name, array in _split().items():
        group.create_array(name, data=array)
    return place / "rows.zarr"


def make_store(place: Path) -> Path:
    arrays = _split()
    write_store(place / "rows.zarr", "tiny", "made here", *arrays.values())
    return place / "rows.zarr"


def make_cifar(place: Path) -> Path:
    for name in (*TRAIN, TEST):
        images, labels = _rows(4, (3 * 32 * 32,))
        (place / name).write_bytes(pickle.dumps({b"data": images, b"labels": labels.tolist()}, protocol=2))
    return place


def _network() -> Network:
    states = [initial_state(0, 1, SIDE * SIDE, 8, Optimizer()), initial_state(0, 2, 8, 8, Optimizer())]
    return Network(tuple(states), HeadState(*(np.zeros((8, 10), np.float32) for _ in range(2))), 10, "replace")


def make_run(place: Path) -> Path:
    folder = RunFolder(place / "run")
    folder.path.mkdir()
    dataset = {"name": "tiny", "path": "", "sha256": "0", "train_rows": ROWS, "test_rows": 1}
    dataset |= {"shape": [SIDE, SIDE], "classes": 10, "source": "made here"}
    folder.write_configuration(Config().tables(), {"dataset": dataset, "classifier": "softmax"})
    folder.write_network(_network())
    return folder.path


def make_checkpoints(place: Path) -> Path:
    network = _network()
    pieces = {Need(f"train{i}", "state"): state for i, state in enumerate(network.states)}
    for round_ in (3, 7):
        record = {"name": "train0", "round": round_, "loss": 0.5}
        checkpoints.write(place / "checkpoints", Checkpoint(round_, dict(pieces), Records({"train0": record})))
    return place / "checkpoints"


def make_graph(place: Path) -> Path:
    source = Path(__file__).parents[1] / "graphs" / "mnist.toml"
    return Path(shutil.copy(source, place / "graph.toml"))


def make_png(place: Path) -> Path:
    Image.fromarray(_rows(1)[0][0]).save(place / "digit.png")
    return place / "digit.png"


def make_npy(place: Path) -> Path:
    np.save(place / "digits.npy", _rows(5)[0])
    return place / "digits.npy"


def make_images(place: Path) -> Path:
    zarr.save(place / "digits.zarr", _rows(5)[0])
    return place / "digits.zarr"


def _read_rows(path: Path) -> None:
    read_path(path)


def _read_checkpoints(path: Path) -> None:
    checkpoints.read(path, lambda line: None)


def _read_images(path: Path) -> None:
    read_images(str(path), (SIDE, SIDE))


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "IDX folder": (make_idx, _read_rows),
    "npz of rows": (make_npz, _read_rows),
    "Zarr group of rows": (make_group, _read_rows),
    "store of rows": (make_store, verified),
    "CIFAR-10 batches": (make_cifar, _read_rows),
    "run folder": (make_run, open_network),
    "run to resume": (make_run, open_unfinished),
    "checkpoints": (make_checkpoints, _read_checkpoints),
    "graph file": (make_graph, lambda path: load(path, {})),
    "png": (make_png, _read_images),
    "npy": (make_npy, _read_images),
    "Zarr of images": (make_images, _read_images),
}
