"""`fit` from a program: the run is live while it trains, and what is done to it meanwhile can be done again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from conftest import SMALL
from distributed import Client, LocalCluster

import ffdask
from ffdask import datasets, kept
from ffdask.errors import BadInput, RunFailed
from ffdask.live import ENDS_WITHOUT_THREADS


@pytest.fixture(autouse=True, scope="module")
def _closed():
    yield
    kept.close_kept()


class Gate:
    """A callback that holds a run after some steps, until it is told to go on."""

    def __init__(self, after=1):
        self.after, self.held, self.open = after, threading.Event(), threading.Event()

    def __call__(self, run, record):
        self.after -= 1
        if not self.after:
            self.held.set()
            assert self.open.wait(60)


@pytest.fixture
def begin(tiny, tmp_path):
    """Begin a run on the tiny data; it is stopped at the end of the test, should it still go."""
    begun, count = [], iter(range(100))

    def go(*args, **given):
        keys = {} if args or "resume" in given else SMALL | {"data.dataset": str(tiny)}
        out = {} if {"resume", "out"} & given.keys() else {"out": str(tmp_path / f"run{next(count)}")}
        begun.append(ffdask.fit(*args, quiet=True, **out, **keys | given))
        return begun[-1]

    yield go
    for run in begun:
        for _ in range(2):
            run.stop()
        if run._live is not None:
            run._live.wait(60)


def test_a_run_is_live_and_then_ended(begin):
    gate = Gate(3)
    run = begin(callbacks=[gate], **{"training.epochs": 4})
    assert gate.held.wait(60)
    assert run.status == "training"
    assert run.path.is_dir()
    assert len(run._live.records) == 3
    assert run.history.sizes["layer"] == len(SMALL["network.layers"])
    assert "training" in repr(run)
    with pytest.raises(TimeoutError, match="goes on"):
        run.wait(0.01)
    gate.open.set()
    assert run.wait() is run
    assert (run.status, run.progress) == ("ended", 1.0)
    assert run.summary["test_accuracy"] == run.evaluate()["test_accuracy"]
    assert "<html" in run.report().read_text()
    assert ffdask.compare_runs(run, run.path).same_weights
    again = ffdask.open_run(run.path)
    assert again.network.sha256() == run.network.sha256() == run.summary["weights_sha256"]
    assert again.history.equals(run.history)
    assert again.configuration == run.configuration
    assert [type(one) for one in (run.timeline(), again.timeline())] == [type(run.timeline())] * 2
    with pytest.raises(RunFailed, match="nothing in it can be changed"):
        again.pause()


def test_predictions_are_the_networks(begin, tiny):
    run = begin()
    images, labels = datasets.load(str(tiny), "test")
    np.testing.assert_array_equal(run.predict(images), run.scores(images).argmax(axis=1))
    assert run.evaluate(images, labels) == run.evaluate()
    assert run.evaluate()["test_errors"] == (run.predict(images) != labels).sum()
    np.testing.assert_array_equal(run.predict(images[3]), run.predict(images.astype(np.int64))[3:4])
    for wrong, said in ((images[:, :3], "shape"), (images / 255, "integers"), (images.astype(int) - 1, "0 to 255")):
        with pytest.raises(BadInput, match=said):
            run.predict(wrong)
    with pytest.raises(BadInput, match="one each"):
        run.evaluate(images, labels[1:])
    with pytest.raises(BadInput, match="this run has"):
        run.predict(images, "nearest")


def test_a_change_is_made_at_the_chapter_that_is_told_and_again_by_whoever_does_the_run_again(begin):
    gate = Gate(2)
    run = begin(callbacks=[gate], **{"training.epochs": 8})
    assert gate.held.wait(60)
    asked = []
    asking = threading.Thread(target=lambda: asked.append(run.change(learning_rate=0.5, dropout=0.5)))
    asking.start()
    gate.open.set()
    asking.join(60)
    (chapter,) = asked
    assert 0 < chapter < run.wait().history.sizes["chapter"]
    (change,) = run.configuration.training.changes
    assert (change.chapter, change.values()) == (chapter, {"learning_rate": 0.5, "dropout": 0.5})
    without = begin(**{"training.epochs": 8})
    assert without.network.sha256() != run.network.sha256()
    before = {"chapter": slice(0, chapter)}
    for figure in ("loss", "error"):
        np.testing.assert_array_equal(run.history[figure].isel(before), without.history[figure].isel(before))
        assert (run.history[figure].isel(chapter=chapter) != without.history[figure].isel(chapter=chapter)).any()
    again = begin(ffdask.open_run(run.path).configuration)
    assert again.network.sha256() == run.network.sha256()


def test_a_changed_run_that_is_stopped_goes_on_with_the_change(begin):
    keys = {"training.epochs": 12, "run.checkpoint_every": 1}
    gate = Gate(8)
    run = begin(callbacks=[gate], **keys)
    assert gate.held.wait(60)
    asking = threading.Thread(target=run.change, kwargs={"learning_rate": 0.2})
    asking.start()
    gate.open.set()
    asking.join(60)
    run.stop()
    run.wait()
    assert run.status == "stopped"
    with pytest.raises(RunFailed, match="resume="):
        run.evaluate()
    gone_on = begin(resume=run.path)
    whole = begin(gone_on.configuration)
    assert gone_on.configuration.training.changes[0].values() == {"learning_rate": 0.2}
    assert gone_on.network.sha256() == whole.network.sha256()
    assert len(gone_on._live.records) == len(whole._live.records)


def test_a_paused_run_stands_still_and_has_the_same_bits(begin):
    run = begin(callbacks=[gate := Gate(2)], **{"training.epochs": 8})
    assert gate.held.wait(60)
    run.pause()
    gate.open.set()
    assert run.status == "paused"
    while True:
        # What is in work may end.
        steps = len(run._live.records)
        threading.Event().wait(0.6)
        if steps == len(run._live.records):
            break
    assert 0 < run.progress < 1
    assert run.snapshot().sha256()
    assert [weights.shape for weights in run.weights] == [(36, 20), (20, 30)]
    run.go_on()
    assert run.network.sha256() == begin(**{"training.epochs": 8}).network.sha256()


def test_a_snapshot_is_the_checkpoints_network(begin):
    """At the start the initial one; at the last round's checkpoint the trained one."""
    gate = Gate(1)
    run = begin(callbacks=[gate], **{"run.checkpoint_every": 1})
    assert gate.held.wait(60)
    snapshots = []
    asking = threading.Thread(target=lambda: snapshots.append(run.snapshot()))
    asking.start()
    gate.open.set()
    asking.join(60)
    assert len(snapshots[0].states) == len(run.network.states)
    job = run._live.resolved.job
    first = snapshots[0].states[0].weights
    # So early there is no checkpoint yet, but a slow machine may have come to one.
    if snapshots[0].states[0].steps == 0:
        np.testing.assert_array_equal(first, job.initial_layer(1).weights)
    assert run.snapshot().sha256() == run.network.sha256()


def test_a_program_may_change_its_folder_meanwhile(begin, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = begin(callbacks=[gate := Gate(1)], out="run")
    assert gate.held.wait(60)
    monkeypatch.chdir(tmp_path / "there")
    gate.open.set()
    assert run.wait().path == tmp_path / "here" / "run"
    assert ffdask.open_run(run.path).network.sha256() == run.network.sha256()
    assert list((tmp_path / "there").iterdir()) == []


def test_await(begin):
    async def waited():
        return await begin()

    assert asyncio.run(waited()).status == "ended"


def test_the_process_keeps_its_cluster_and_starts_another_if_it_was_closed(begin):
    first, second = begin(), begin()
    first.wait(), second.wait()
    client = kept.kept_client(first.configuration.cluster)
    assert kept.is_kept(client)
    client.close()
    assert begin().wait().status == "ended"
    assert kept.kept_client(first.configuration.cluster) is not client


def test_the_current_client_is_taken(begin):
    kept.close_kept()
    two = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    with two as cluster, Client(cluster):
        run = begin().wait()
        assert run.summary["workers"] == 2
    assert not kept._kept


def test_two_runs_at_once_have_the_bits_of_each_alone(begin):
    seeds = (1, 2)
    both = [begin(seed=seed) for seed in seeds]
    digests = [run.network.sha256() for run in both]
    assert digests == [begin(seed=seed).network.sha256() for seed in seeds]


def test_a_callback_that_raises_does_not_lose_the_run(begin, tmp_path, capsys):
    said = []

    def broken(run, record):
        raise ValueError("no")

    run = begin(callbacks=[broken], say=said.append).wait()
    assert run.status == "ended"
    assert any("ValueError: no" in line for line in said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"peer": 0.1}, "layer.peer"),
        ({"epochs": 0}, "training.epochs"),
        ({"data": 3}, "give a known name"),
        ({"data": (np.zeros((9, 3, 3)), np.zeros(8))}, "9 images and 8 labels"),
        ({"data": "no-such-set"}, "no-such-set"),
        ({"data": "mnist", "resume": "somewhere"}, "as it was configured"),
        ({"chunk": 10_000_000, "batch_size": 20_000_000}, "never cross a chunk"),
    ],
)
def test_bad_input_is_raised_by_fit_before_any_work(tmp_path, given, said):
    out = {} if "resume" in given else {"out": str(tmp_path / "run")}
    with pytest.raises(BadInput, match=said):
        ffdask.fit(**given, **out, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [({"learning_rate": -1}, "learning_rate=-1"), ({"layers": 3}, "layers"), ({}, "nothing changes")],
)
def test_a_change_that_cannot_be_is_refused_and_the_run_goes_on(begin, values, said):
    run = begin(callbacks=[gate := Gate(1)], **{"training.epochs": 6})
    assert gate.held.wait(60)
    gate.open.set()
    with pytest.raises(BadInput, match=said):
        run.change(**values)
    assert run.wait().status == "ended"
    assert not run.configuration.training.changes


def test_jupyter_sees_figures_and_a_picture(begin):
    page = begin().wait()._repr_html_()
    assert "data:image/png;base64," in page
    assert "test accuracy" in page
    assert "http" not in page.replace("https://", "http").split("data:image")[0]


def test_a_script_needs_no_guard_and_its_end_waits_for_the_run(tiny, tmp_path):
    script = tmp_path / "script.py"
    given = SMALL | {"data.dataset": str(tiny), "run.out": str(tmp_path / "run")}
    script.write_text(
        textwrap.dedent(
            f"""
            import ffdask

            ffdask.fit(**{given!r})
            print("the script ends")
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "the script ends" in done.stdout
    if ENDS_WITHOUT_THREADS:
        assert "a script under it ends with run.wait()" in done.stderr
        return
    assert done.stderr == ""
    assert ffdask.open_run(tmp_path / "run").status == "ended"


@pytest.mark.timeout(60)
def test_arrays_are_kept_without_a_word_if_it_is_to_be_quiet(begin, capsys):
    rng = np.random.default_rng(0)
    keys = {key.partition(".")[2]: value for key, value in SMALL.items()}
    begin((rng.integers(0, 256, (240, 6, 6)), np.arange(240) % 10), **keys).wait()
    assert capsys.readouterr().out == ""
