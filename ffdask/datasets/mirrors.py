"""MNIST from the well-known mirrors: one short probe each, then four files."""

from __future__ import annotations

import logging
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch

from ffdask.datasets.arrays import Arrays
from ffdask.datasets.files import IDX_NAMES, read_folder
from ffdask.errors import BadInput

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
PROBE_SECONDS = 3.0
STALL_SECONDS = 30.0


def fetch(mirror: str, say: Callable[[str], None]) -> tuple[Arrays, str]:
    """Return the arrays from one mirror and a phrase that names it.

    Raises
    ------
    BadInput
        The probe was not answered, or what came is not four IDX files.
    OSError
        A download broke off.
    """
    say(f"asking {mirror} (at most {PROBE_SECONDS:g} s)")
    trouble = probe(mirror + IDX_NAMES["train_images"] + ".gz")
    if trouble is not None:
        raise BadInput(trouble)
    with tempfile.TemporaryDirectory(prefix="ffdask-mirror-") as folder:
        for stem in IDX_NAMES.values():
            say(f"downloading {mirror}{stem}.gz")
            download(f"{mirror}{stem}.gz", Path(folder))
        return read_folder(Path(folder)), f"mirror {mirror}"


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


def download(url: str, folder: Path) -> None:
    """Download one file into `folder`, in silence."""
    downloader = pooch.HTTPDownloader(progressbar=False, timeout=STALL_SECONDS)
    with _silent_pooch():
        # No hash here: mirrors pack the files differently. The unpacked arrays are checked.
        pooch.retrieve(url, known_hash=None, fname=url.rsplit("/", 1)[1], path=folder, downloader=downloader)


@contextmanager
def _silent_pooch() -> Iterator[None]:
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
