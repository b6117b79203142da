"""Known data sets from their public mirrors: one short probe each, then the files."""

from __future__ import annotations

import logging
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch

from ffdask.datasets.arrays import Arrays
from ffdask.datasets.files import IDX_NAMES, read_known
from ffdask.errors import BadInput

PROBE_SECONDS = 3.0
STALL_SECONDS = 30.0


@dataclass(frozen=True)
class Mirror:
    """Where files can be downloaded.

    Attributes
    ----------
    url
        Of the folder that holds them.
    files
        Each with the digest that is published of it, as pooch takes it; None where the unpacked arrays' digests are
        known, since mirrors pack them differently.
    """

    url: str
    files: Mapping[str, str | None]

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.url + next(iter(self.files)) if len(self.files) == 1 else self.url


_IDX = dict.fromkeys(f"{stem}.gz" for stem in IDX_NAMES.values())
_KRIZ = "https://www.cs.toronto.edu/~kriz/"

MIRRORS: dict[str, tuple[Mirror, ...]] = {
    "mnist": (
        Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/", _IDX),
        Mirror("https://storage.googleapis.com/cvdf-datasets/mnist/", _IDX),
    ),
    "fashion-mnist": (Mirror("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _IDX),),
    "kmnist": (
        Mirror(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            {
                "train-images-idx3-ubyte.gz": "md5:bdb82020997e1d708af4cf47b453dcf7",
                "train-labels-idx1-ubyte.gz": "md5:e144d726b3acfaa3e44228e80efcd344",
                "t10k-images-idx3-ubyte.gz": "md5:5c965bf0a639b31b8f53240b1b52f4d7",
                "t10k-labels-idx1-ubyte.gz": "md5:7320c461ea6c1c855c0b718fb2a4b134",
            },
        ),
    ),
    "cifar-10": (
        Mirror(_KRIZ, {"cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a"}),
        Mirror(_KRIZ, {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}),
    ),
}
"""By known name, in the order in which they are tried."""


def fetch(mirror: Mirror, say: Callable[[str], None]) -> tuple[Arrays, str]:
    """Return the arrays from one mirror and a phrase that names it.

    Raises
    ------
    BadInput
        The probe was not answered, or what came is not the data set's files.
    OSError, ValueError
        A download broke off, or has another digest.
    """
    say(f"asking {mirror.name} (at most {PROBE_SECONDS:g} s)")
    trouble = probe(mirror.url + next(iter(mirror.files)))
    if trouble is not None:
        raise BadInput(trouble)
    with tempfile.TemporaryDirectory(prefix="ffdask-mirror-") as folder:
        for name, known_hash in mirror.files.items():
            say(f"downloading {mirror.url}{name}")
            download(f"{mirror.url}{name}", Path(folder), known_hash)
        return read_known(Path(folder)), f"mirror {mirror.name}"


def probe(url: str) -> str | None:
    """Ask once whether `url` is there; return what is wrong, or None when it is."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answer.append(None)
        except urllib.error.HTTPError as exc:
            exc.close()
            answer.append(f"it answered {exc.code} {exc.reason}")
        except urllib.error.URLError as exc:
            answer.append(f"no connection ({exc.reason})")
        except Exception as exc:
            # A proxy or a gateway can answer with anything; all of it means "not from here".
            answer.append(f"no connection ({exc})")

    # A socket's timeout does not bound the name look-up, which may hang for a minute where
    # there is no network; leaving the thread behind does.
    thread = threading.Thread(target=ask, name="ffdask-probe", daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0] if answer else f"no answer within {PROBE_SECONDS:g} s"


def download(url: str, folder: Path, known_hash: str | None = None) -> None:
    """Download one file into `folder`, in silence; its digest is checked where one is known."""
    downloader = pooch.HTTPDownloader(progressbar=False, timeout=STALL_SECONDS)
    with _silent_pooch():
        pooch.retrieve(url, known_hash=known_hash, fname=url.rsplit("/", 1)[1], path=folder, downloader=downloader)


@contextmanager
def _silent_pooch() -> Iterator[None]:
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
