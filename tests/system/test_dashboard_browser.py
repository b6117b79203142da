"""The page opened in Chromium, on an embedded cluster and on another's scheduler: it fills while a run goes."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import opened
from outside import outside_cluster
from PIL import Image
from proxy import proxied

import ffdask
from ffdask.colours import COLOURS

pytestmark = pytest.mark.slow

LAYERS, CHAPTERS, EPOCHS = (24, 32, 16), 100, 300
PATIENCE = 180
"""Seconds; on a busy machine nothing of this is fast."""


def asked(seen, name, what):
    """Ask a model of the page's, by its name."""
    return seen.page.evaluate(f"name => Bokeh.documents[0]?.get_model_by_name(name)?.{what}", name)


def wait_for_more(seen, run, name, than):
    """Wait until more boxes are drawn than so many, while the run trains; return how many."""
    deadline = time.monotonic() + PATIENCE
    while (now := asked(seen, name, "get_length()") or 0) <= than:
        assert run.status == "training"
        assert time.monotonic() < deadline, f"{name}: no more than {than} boxes after {PATIENCE} s"
        seen.page.wait_for_timeout(100)
    return now


def check_fills(tiny, tmp_path, picture, prefix="", through=contextlib.nullcontext, **keys):
    """Look at the page while a run goes that would not end soon; stop it, and look at what stays."""
    lines, out = [], {"evaluate_every": 1, "out": str(tmp_path / "run")}
    keys |= {"layers": LAYERS, "epochs": EPOCHS, "chapters": CHAPTERS, "chunk": 100, "batch_size": 20}
    run = ffdask.fit(tiny.path, say=lines.append, **out, **keys)
    try:
        (line,) = [line for line in lines if line.startswith("dashboard")]
        server = urlsplit(line.split()[1]).netloc + prefix
        with through(server) as base, opened(f"http://{base}/forward-forward") as seen:
            drawn = 0
            for _ in range(4):
                drawn = wait_for_more(seen, run, "steps", drawn)
            # Four chapters of each layer, and of the head, beside all that are to come.
            wait_for_more(seen, run, "schedule", (CHAPTERS + 4) * (len(LAYERS) + 1))
            assert asked(seen, "goodness", "get_length()") == 2 * len(LAYERS)
            assert asked(seen, "utilisation", "get_length()") == len(LAYERS)
            assert "training" in asked(seen, "title", "text")
            check_picture(seen.keep(tmp_path, picture))
            run.stop()
            run.wait()
            seen.page.wait_for_function(
                "Bokeh.documents[0].get_model_by_name('title').text.includes('stopped')", timeout=1000 * PATIENCE
            )
            assert asked(seen, "steps", "get_length()") >= drawn
            assert seen.errors == []
            within = re.compile(rf"(http|ws)://{re.escape(base)}/")
            assert [request for request in seen.requests if not within.match(request)] == []
    finally:
        run.stop()
        run.wait()


def check_picture(path):
    """Check that the layers' colours are in a picture, of each more than the curves have."""
    with Image.open(path) as image:
        pixels = Counter(map(bytes, np.asarray(image.convert("RGB")).reshape(-1, 3)))
    for colour in COLOURS[: len(LAYERS)]:
        assert pixels[bytes.fromhex(colour[1:])] > 500


def test_an_embedded_cluster_s_page_fills(tiny, tmp_path):
    check_fills(tiny, tmp_path, "dashboard-embedded.png")


def test_behind_jupyter_s_proxy_the_page_fills(tiny, tmp_path):
    check_fills(tiny, tmp_path, "dashboard-proxy.png", through=proxied)


@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
def test_another_scheduler_s_page_fills(tiny, tmp_path, prefix):
    flags = ["--preload", "ffdask.dashboard", *(["--dashboard-prefix", prefix] if prefix else [])]
    with outside_cluster(tmp_path, scheduler=flags) as scheduler:
        name = f"dashboard-external{'-prefix' * bool(prefix)}.png"
        check_fills(tiny, tmp_path, name, prefix, scheduler=scheduler)
