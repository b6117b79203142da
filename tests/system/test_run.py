"""What a run leaves and says: the folder, the summary, the overlap, and nothing else."""

from __future__ import annotations

import gc
import itertools
import json

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from ffdask import timeline
from ffdask.errors import Diverged, RunFailed
from ffdask.layer import LayerState
from ffdask.store import open_network
from ffdask.training import Training
from tests.system.conftest import command, outside_cluster, run_folder


class Recorder:
    """Keeps every record, and how many tasks the scheduler knew."""

    def __init__(self, count=None):
        self.records, self.known, self.count, self.ended = [], [], count, 0

    def begin(self, resolved, dashboard):
        self.dashboard = dashboard

    def record(self, record):
        self.records.append(record)
        if self.count:
            self.known.append(self.count())

    def end(self):
        self.ended += 1


SUMMARY = {
    "test_accuracy", "test_errors", "test_accuracy_goodness", "test_accuracy_softmax", "train_seconds",
    "total_seconds", "workers", "nodes", "threads", "schedule", "epochs", "chapters", "chunk", "staleness",
    "utilization", "steps", "weights_sha256", "peak_memory_bytes", "seed", "device", "precision", "versions",
    "fingerprint",
}  # fmt: skip


def test_run_folder(train):
    run = train()
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary == run.summary
    assert set(summary) >= SUMMARY
    assert summary["weights_sha256"] == run.network.sha256()
    assert 0 < summary["train_seconds"] < summary["total_seconds"]
    assert 0 < summary["utilization"] <= 1.05
    assert summary["peak_memory_bytes"] > 50e6
    # 3 epochs of 6 chunks; negatives, three layers and the head each.
    assert summary["steps"] == 18 * 5
    history = xr.open_zarr(run.path / "run.zarr", group="history", consolidated=False).load()
    xr.testing.assert_identical(history, run.history)
    assert dict(history.sizes) == {"chapter": 6, "layer": 3}
    for name in ("loss", "goodness_positive", "goodness_negative", "error", "seconds", "train_error"):
        assert np.isfinite(history[name]).all()
    assert (history["rows"] == 300).all()
    with Image.open(run.path / "timeline.png") as picture:
        assert picture.width > 500


def test_configuration_is_there_before_the_first_step(train, tmp_path):
    class Looker(Recorder):
        def begin(self, resolved, dashboard):
            self.found = json.loads((tmp_path / "run0" / "run.zarr" / "zarr.json").read_text())["attributes"]

    looker = Looker()
    train(watchers=[looker])
    assert looker.found["configuration"]["network"]["layers"] == [24, 32, 16]
    assert looker.found["resolved"]["nodes"] == 3
    assert looker.ended == 1


@pytest.mark.slow
def test_stages_of_different_layers_overlap(train, tmp_path):
    """On two workers that somebody else started; asserted on recorded times."""
    recorder = Recorder()
    # Steps long enough that their overlap is the schedule's doing, not the clock's.
    with outside_cluster(tmp_path, nthreads=1) as address:
        train(
            watchers=[recorder],
            cluster__scheduler=address,
            cluster__workers=2,
            network__layers=[400, 400],
            data__chunk=300,
            training__batch_size=50,
            training__epochs=20,
            schedule__chapters=20,
        )
    placed = {record["layer"]: record["worker"] for record in recorder.records if record["kind"] == "train"}
    assert placed[1] != placed[2]
    assert timeline.overlap(recorder.records, 1, 2) > 0


@pytest.mark.slow
def test_tasks_known_to_the_scheduler_stay_bounded(train):
    from dask.utils import key_split
    from distributed import Client, LocalCluster

    peaks, keys = {}, {}
    for epochs in (6, 60):
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster) as client,
        ):
            recorder = Recorder(lambda scheduler=cluster.scheduler: len(scheduler.tasks))
            remembered = Recorder(lambda: key_split.cache_info().currsize)
            train(
                client=client,
                watchers=[recorder, remembered],
                schedule__name="all-layers",
                schedule__nodes=2,
                training__epochs=epochs,
                schedule__chapters=epochs,
                network__layers=[8, 8],
            )
            peaks[epochs], keys[epochs] = max(recorder.known), max(remembered.known)
            assert len({record["round"] for record in recorder.records}) == epochs
    # Ten times the chapters; what is known at a time varies with what the client has just heard.
    assert peaks[60] <= 2.5 * peaks[6]
    assert keys[60] <= 2.5 * keys[6]


@pytest.mark.slow
def test_states_that_nobody_reads_any_more_are_gone(train):
    """Whatever Dask remembers of its messages: a state of a long run must not live in there."""

    looks = itertools.count()

    def alive() -> int:
        # Each look takes a tenth of a second.
        return sum(isinstance(one, LayerState) for one in gc.get_objects()) if not next(looks) % 10 else 0

    gc.collect()
    before, recorder = alive(), Recorder(alive)
    keys = {"training__epochs": 30, "schedule__chapters": 30, "run__cut_every": 1, "network__layers": [8, 8]}
    train(watchers=[recorder], schedule__name="all-layers", schedule__nodes=2, run__checkpoint_every=1, **keys)
    # Sixty states are given, and each is handed out again behind a cut.
    assert 0 < max(recorder.known) - before < 50


@pytest.mark.parametrize("name", ["all-layers", "streaming"])
def test_the_last_rounds_activities_are_held_by_their_readers_alone(train, monkeypatch, name):
    """Once every step is submitted, nothing but the newest states is kept for steps to come."""
    ended, kept = [], []
    finish, pump = Training._finish, Training._pump

    def pumped(self, finished):
        pump(self, finished)
        ended.append(self._exhausted and not self._parked)

    def watched(self, step, future):
        if ended[-1]:
            kept.append({need.piece for need in self.graph.ledger.kept()})
        return finish(self, step, future)

    monkeypatch.setattr(Training, "_pump", pumped)
    monkeypatch.setattr(Training, "_finish", watched)
    train(schedule__name=name, network__negatives="random")
    # Steps of several rounds were still at work then.
    assert len(kept) > 4
    assert set().union(*kept) == {"state"}


def test_two_runs_on_one_cluster_share_it_and_are_not_mixed(train):
    from concurrent.futures import ThreadPoolExecutor

    from distributed import Client, LocalCluster

    alone = [train(training__seed=seed).summary["weights_sha256"] for seed in (1, 2)]
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster:

        def go(seed):
            with Client(cluster, set_as_default=False) as client:
                return train(client=client, training__seed=seed).summary["weights_sha256"]

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(go, (1, 2))) == alone


@pytest.mark.slow
def test_workers_resources_are_used_where_given(train, tmp_path):
    with outside_cluster(tmp_path, workers=1, nthreads=4, extra=["--resources", "ffdask=2"]) as address:
        assert train(cluster__scheduler=address).summary["threads"] == 2


@pytest.mark.slow
def test_rows_that_no_worker_can_read_are_sent(train, undisturbed, tmp_path, tiny, monkeypatch):
    """Workers in other folders, with other caches, and data that only the client sees."""
    from ffdask import cluster as cluster_module

    expected = undisturbed.summary["weights_sha256"]
    monkeypatch.setattr(cluster_module.Cluster, "on_each_worker", lambda self, *_: {s.name: None for s in self.slots})
    said = []
    with outside_cluster(tmp_path) as address:
        run = train(cluster__scheduler=address, say=said.append, run__evaluate_every=3)
    assert run.summary["weights_sha256"] == expected
    assert any("rows are sent from here" in line for line in said)


def test_looks_at_the_test_set_change_nothing_and_are_timed_apart(train, undisturbed):
    plain, looked = undisturbed, train(run__evaluate_every=2)
    assert looked.summary["weights_sha256"] == plain.summary["weights_sha256"]
    assert looked.summary["evaluate_seconds"] > 0
    assert "evaluate_seconds" not in plain.summary
    assert np.isfinite(looked.history["test_errors_softmax"].values[[1, 3, 5]]).all()
    assert np.isnan(looked.history["test_errors_softmax"].values[[0, 2, 4]]).all()


def test_divergence_names_the_layer(train):
    with pytest.raises(Diverged, match=r"layer \d in visit \d+: the loss is (nan|inf)"):
        train(optimizer__learning_rate=1e30)


def test_a_failing_step_is_named(train, monkeypatch):
    from ffdask import work

    monkeypatch.setitem(work._KINDS, "head", lambda *_: 1 / 0)
    with pytest.raises(RunFailed, match=r"step head-visit000 failed on worker \w+: ZeroDivisionError"):
        train()


def test_threads_of_blas_are_restored(train):
    from ffdask import machine

    before = machine.blas_threads()
    train()
    assert machine.blas_threads() == before


def test_command_line_prints_two_lines_and_no_warning(tiny, tmp_path):
    small = ["--layers", "16,16", "--epochs", "1", "--chunk", "100", "--batch-size", "20", "--dataset", tiny.path]
    for extra in ([], ["--processes", "--workers", "2"]):
        done = command("ffdask.train", *small, *extra, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("dashboard  http://127.0.0.1:")
        assert (tmp_path / run_folder(done.stdout) / "summary.json").exists()
    quiet = command("ffdask.train", *small, "--quiet", "--kernels", "numpy", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_performance_report(train, tmp_path):
    file = tmp_path / "report.html"
    train(run__report=str(file))
    assert "train_layer2" in file.read_text()


def test_a_report_that_cannot_be_written_loses_no_network(train, undisturbed, tmp_path):
    expected, folder, said = undisturbed.summary["weights_sha256"], tmp_path / "reports", []
    folder.mkdir()

    class Gone(Recorder):
        def record(self, record):
            if folder.is_dir():
                folder.rmdir()
                folder.touch()
            super().record(record)

    run = train(run__report=str(folder / "report.html"), watchers=[Gone()], say=said.append)
    assert run.summary["weights_sha256"] == expected
    assert open_network(run.path)[0].sha256() == expected
    assert said[-1].startswith(f"the report {folder / 'report.html'} could not be written (")
