"""Files of every kind that ffdask reads, damaged at random: each is read, or refused with a message.

A reader that raises anything else, takes longer than ten seconds or a gibibyte of memory more than it began with,
writes or removes a file, or executes what a pickle in it asks for, is a defect: the mutation is printed by its number.
Time and memory are measured behind each mutation: a reader that catches what the limits raise is found out.

python benchmarks/mutate.py --mutations 100000
python benchmarks/mutate.py --atheris 60        # guided by coverage, seconds a kind; pip install atheris
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from limits import Watch
from readable import KINDS
from side_by_side import arguments, show, where

from ffdask import machine

WORDS = (b"-1", b"1e999", b"null", b"[[[[", b'"', b"9" * 30, b"../../x", b"\xff", b"NaN", b"{}")
BATCH = 500
"""Mutations to a child process."""

FINE = ("read", "refused")
MEMORY_DISK = Path("/dev/shm")


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


def files_of(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def trial(kind: str, number: int, seed: int, clean: Path, place: Path, watch: Watch) -> str:
    """Damage one file of a kind, have it read; return what became of it."""
    random, canary = Random(f"{seed}/{kind}/{number}"), place / "canary"
    path = fresh(clean, place)
    file = random.choice(files_of(path))
    file.write_bytes(mutate(file.read_bytes(), random, canary))
    return watch.outcome(KINDS[kind][1], path, place, canary)


def fresh(clean: Path, place: Path) -> Path:
    """Return the path of a copy of the undamaged files."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(clean, place)
    path = place / (place / "path").read_text()
    (place / "path").unlink()
    return path


def made(kind: str, folder: Path) -> Path:
    """Make the undamaged files of a kind; return their folder, in which ``path`` says what is to be read."""
    clean = folder / kind
    clean.mkdir()
    path = KINDS[kind][0](clean)
    # Undamaged it is read: what is refused for another reason would show nothing.
    KINDS[kind][1](path)
    (clean / "path").write_text(str(path.relative_to(clean)))
    return clean


def batch(kind: str, numbers: range, seed: int, clean: Path, place: Path) -> Iterator[tuple[int, str]]:
    """Yield the outcomes of mutations by number, done in a child: up to one after which it cannot go on."""
    reading, writing = os.pipe()
    child, last = os.fork(), numbers.start - 1
    if child == 0:
        os.close(reading)
        code = 1
        try:
            # What readers begin at their first use, threads and their memory, is no file's fault.
            KINDS[kind][1](fresh(clean, place))
            watch = Watch()
            for number in numbers:
                outcome = trial(kind, number, seed, clean, place, watch)
                os.write(writing, f"{json.dumps([number, outcome])}\n".encode())
                if watch.over:
                    break
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        for line in pipe:
            last, outcome = json.loads(line)
            yield last, outcome
    if status := os.waitpid(child, 0)[1]:
        yield last + 1, f"the process died ({status})"


def outcomes(kind: str, numbers: range, seed: int, folder: Path) -> Counter[str]:
    """Return what became of a kind's mutations; those that matter are printed."""
    clean, found, following = made(kind, folder), Counter[str](), numbers.start
    while following < numbers.stop:
        some = range(following, min(following + BATCH, numbers.stop))
        for number, outcome in batch(kind, some, seed, clean, folder / "work"):
            following = number + 1
            if outcome not in FINE:
                print(f"{kind}, mutation {number}: {outcome[:300]}", flush=True)
            found[outcome if outcome in FINE else "otherwise"] += 1
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
    # Some formats are dozens of small files: in memory they are copied sooner.
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as name:
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
