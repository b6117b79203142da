from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest
from distributed import LocalCluster
from PIL import Image

from ffdask.schedules import SCHEDULES

SMALL = ["--chunk", "100", "--batch-size", "20", "--layers", "20,30", "--epochs", "2", "--units", "2"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("graph", [[], ["--graph"]], ids=["timeline", "graph"])
def test_every_schedule_in_every_form(command, tiny, tmp_path, schedule, graph):
    arguments = ["--dataset", tiny, "--schedule", schedule, *SMALL, *graph]
    for suffix in ("svg", "png", "pdf", "txt"):
        said = command("draw", *arguments, "--out", tmp_path / f"x.{suffix}")
        assert (said.code, said.out, said.err) == (0, "", "")
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    assert root.tag.endswith("svg")
    assert "train_layer1-" in "".join(element.get("id", "") for element in root.iter())
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 24)) > 4
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    said = command("draw", *arguments)
    assert (said.code, said.err) == (0, "")
    assert said.out == (tmp_path / "x.txt").read_text()
    assert said.out.startswith(f"{schedule}: 36-20-30, ")


def test_a_graph_file_and_flags_as_in_training(command, tiny, tmp_path):
    (tmp_path / "g.toml").write_text('[schedule]\nname = "all-layers"\nnodes = 3\n[cluster]\nunits = 4\n')
    said = command("draw", tmp_path / "g.toml", "--dataset", tiny, *SMALL[:-2], "--set", "cluster.workers=2")
    assert said.out.startswith("all-layers: 36-20-30, 3 nodes on 2 workers with 4 units\n")


def test_rounds(command, tiny):
    arguments = ["--dataset", tiny, "--schedule", "streaming", *SMALL]
    assert "the first 2 of 6 visits" in command("draw", *arguments, "--rounds", "2").out
    assert "all visits" in command("draw", *arguments, "--rounds", "99").out


def test_a_runs_own_folder_is_none_of_its_business(command, tiny, tmp_path):
    (tmp_path / "there").mkdir()
    said = command("draw", "--dataset", tiny, *SMALL, "--set", f"run.out={tmp_path / 'there'}")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "x.jpg"], ["--out", "'x.jpg'", ".svg, .png, .pdf, .txt"]),
        (["--out", "x"], ["--out", "'x'", ".svg"]),
        (["--out", "none/x.svg"], ["--out", "none/x.svg", "no folder"]),
        (["--out", "/proc/x.svg"], ["--out", "/proc/x.svg"]),
        (["--rounds", "0"], ["--rounds", "'0'", "from 1"]),
        (["--rounds", "-1"], ["--rounds", "from 1"]),
        (["--rounds", "two"], ["--rounds", "'two'"]),
        (["--out", "x.svg", "--schedule", "stream"], ["schedule.name", "'stream'", "streaming"]),
        (["--out", "x.svg", "--chapters", "999"], ["--chapters", "999"]),
        (["--out", "x.svg", "--report", "r.html"], ["--report", "--help"]),
        (["none.toml"], ["none.toml"]),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_2_and_no_file(command, tiny, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    said = command("draw", "--dataset", tiny, *SMALL, *arguments)
    assert (said.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    for part in says:
        assert part in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_given_schedulers_workers_are_the_layout(command, tiny):
    local = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )
    with local as cluster:
        said = command("draw", "--dataset", tiny, *SMALL, "--scheduler", cluster.scheduler_address)
    assert (said.code, said.err) == (0, "")
    assert "2 nodes on 2 workers with 2 units" in said.out


ALONE = """
import runpy, sys

def heard(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(heard)
sys.argv = ["draw", "--out", sys.argv[1], *sys.argv[2:]]
runpy.run_module("ffdask.draw", run_name="__main__")
"""


@pytest.mark.parametrize("graph", [[], ["--graph"]], ids=["timeline", "graph"])
def test_a_fresh_process_draws_mnist_with_no_mnist_no_cluster_and_no_socket(tmp_path, graph):
    run = subprocess.run(
        [sys.executable, "-c", ALONE, "x.svg", *graph], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
    assert "784-1000-1000-1000" in (tmp_path / "x.svg").read_text()
