"""Files of every kind that ffdask reads, damaged at random: each is read, or refused with a message.

A reader that raises anything else, takes longer than ten seconds or a gibibyte of memory more than it began with,
writes or removes a file, or executes what a pickle in it asks for, is a defect: the mutation is printed by its number.

python benchmarks/mutate.py --mutations 100000
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import zarr
from PIL import Image
from side_by_side import arguments, show, where

from ffdask import checkpoints, machine
from ffdask.checkpoints import Checkpoint
from ffdask.config import Config, load
from ffdask.datasets import idx, write_store
from ffdask.datasets.cifar import TEST, TRAIN
from ffdask.datasets.files import IDX_NAMES, read_path
from ffdask.datasets.zarr_store import verified
from ffdask.errors import BadInput
from ffdask.head import HeadState
from ffdask.images import read_images
from ffdask.layer import Optimizer, initial_state
from ffdask.network import Network
from ffdask.records import Records
from ffdask.schedules.steps import Need
from ffdask.store import RunFolder, open_network, open_unfinished

MIB = 1 << 20
ROWS, SIDE = 20, 12
SECONDS = 10
WORDS = (b"-1", b"1e999", b"null", b"[[[[", b'"', b"9" * 30, b"../../x", b"\xff", b"NaN", b"{}")
BATCH = 500
"""Mutations to a child process."""


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


def mutate(content: bytes, random: Random, canary: Path) -> bytes:
    """Return a file's bytes, damaged in one to four places."""
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(damaged)) if damaged else 0
        kind = random.randrange(8)
        if kind == 0 and damaged:
            damaged[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            damaged[at : at + 1] = random.randbytes(random.choice((1, 4, 8)))
        elif kind == 2:
            del damaged[at:]
        elif kind == 3:
            del damaged[at : at + random.choice((1, 2, 8, 64))]
        elif kind == 4:
            damaged[at:at] = damaged[: random.choice((1, 8, 64))]
        elif kind == 5:
            # A size, as these formats write them: as large as can be, negative, or nothing.
            size = random.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**6))
            order = random.choice(("little", "big"))
            width = 8 if size >= 1 << 32 else random.choice((4, 8))
            damaged[at : at + width] = size.to_bytes(width, order)
        elif kind == 6:
            word = random.choice(WORDS)
            damaged[at : at + random.choice((0, 1, len(word)))] = word
        else:
            damaged[at:at] = pickle.dumps(_Called(canary), protocol=random.choice((0, 2, 4)))
    return bytes(damaged)


class _Called:
    """Unpickled, it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _listed(place: Path) -> dict[str, int]:
    return {str(each): each.stat().st_size for each in place.rglob("*") if each.is_file()}


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError if it takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def trial(kind: str, number: int, seed: int, clean: Path, place: Path) -> str:
    """Damage one file of a kind, have it read; return what became of it."""
    random, canary = Random(f"{seed}/{kind}/{number}"), place / "canary"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(clean, place)
    read, path = KINDS[kind][1], place / (clean / "path").read_text()
    (place / "path").unlink()
    file = random.choice(_files(path))
    file.write_bytes(mutate(file.read_bytes(), random, canary))
    before = _listed(place)
    try:
        with within(SECONDS):
            read(path)
        outcome = "read"
    except BadInput as error:
        outcome = "refused" if str(error) else "refused without a word"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    if canary.exists():
        outcome = "executed"
    if _listed(place) != before:
        outcome = f"wrote or removed files, and {outcome}"
    return outcome


def batch(kind: str, numbers: range, seed: int, folder: Path) -> Counter[str]:
    """Return the outcomes of some mutations, done in a child with limited memory; those that matter are printed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        found = Counter[str]()
        try:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.setrlimit(resource.RLIMIT_AS, (size + 1024 * MIB,) * 2)
            for number in numbers:
                outcome = trial(kind, number, seed, folder / kind, folder / "work")
                found[outcome if outcome in ("read", "refused") else "otherwise"] += 1
                if outcome not in ("read", "refused"):
                    print(f"{kind}, mutation {number}: {outcome[:300]}", flush=True)
        except BaseException as error:
            print(f"{kind}, mutation {number}: {error!r}", flush=True)
            found["otherwise"] += 1
        finally:
            os.write(writing, repr(dict(found)).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if status or not said:
        print(f"{kind}, mutations {numbers}: the process died ({status})", flush=True)
        return Counter(otherwise=1)
    return Counter(dict(eval(said)))


def outcomes(kind: str, numbers: range, seed: int, folder: Path) -> Counter[str]:
    """Return what became of a kind's mutations."""
    clean, found = folder / kind, Counter[str]()
    clean.mkdir()
    path = KINDS[kind][0](clean)
    # Undamaged it is read: what is refused for another reason would show nothing.
    KINDS[kind][1](path)
    (clean / "path").write_text(str(path.relative_to(clean)))
    for start in range(numbers.start, numbers.stop, BATCH):
        found += batch(kind, range(start, min(start + BATCH, numbers.stop)), seed, folder)
    return found


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--only", type=int, help="the number of one mutation, to do it again")
    given = parser.parse_args()
    # What Zarr leaves to the event loop's log is not what a command prints.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    each = -(-given.mutations // len(given.kinds))
    numbers = range(given.only, given.only + 1) if given.only is not None else range(each)
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for kind in given.kinds:
            begun = time.monotonic()
            found = outcomes(kind, numbers, given.seed, Path(name))
            rows.append([kind, len(numbers), found["read"], found["refused"], found["otherwise"]])
            print(f"{kind}: {dict(found)} in {time.monotonic() - begun:.0f} s", flush=True)
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, 5))])
    note = where({"fingerprint": machine.fingerprint()})
    show("files damaged at random", ["file", "mutations", "read", "refused", "otherwise"], rows, note, given.json)
    sys.exit(bool(rows[-1][-1]))


if __name__ == "__main__":
    main()
