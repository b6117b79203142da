"""A run that was stopped goes on to the bits of one that was not."""

from __future__ import annotations

import json
import shutil

import fsspec
import pytest

from ffdask import checkpoints
from ffdask.conduct import conduct
from ffdask.errors import BadInput
from ffdask.records import Records
from ffdask.resume import stopped_run

pytestmark = pytest.mark.slow

RUNS = [
    {"schedule__name": "streaming"},
    {"schedule__name": "streaming", "schedule__exchange": "batch"},
    {"schedule__name": "all-layers", "schedule__nodes": 3, "network__negatives": "adaptive"},
    {"schedule__name": "single-layer", "network__negatives": "adaptive", "network__classifier": "goodness"},
    {"schedule__name": "sequential", "network__objective": "classifier", "layer__dropout": 0.2},
    {"schedule__name": "until-still"},
    {"schedule__name": "worst-layer"},
    {"schedule__name": "federated", "network__negatives": "random", "schedule__chapters": 8},
    {"schedule__name": "federated", "network__negatives": "adaptive", "schedule__chapters": 8},
]


class Stopped(Exception):
    """Raised by a watcher's neighbour to stop a run."""


@pytest.fixture
def stop_after(monkeypatch):
    """Make the process stop after so many checkpoints, right behind the last one's manifest; each is waited for."""
    count = [0]

    def install(most):
        count[0] = 0

        def counted(writer, checkpoint):
            checkpoints.write(writer.where, checkpoint)
            count[0] += 1
            if count[0] == most:
                raise Stopped

        monkeypatch.setattr(checkpoints.Writer, "write", counted)

    return install


def halted(train, stop_after, tmp_path, most, **changed):
    """Return the folder of a run that was stopped after `most` checkpoints."""
    out = tmp_path / "halted"
    stop_after(most)
    with pytest.raises(Stopped) as caught:
        train(run__out=str(out), run__checkpoint_every=1, **changed)
    assert any("--resume" in note for note in caught.value.__notes__)
    stop_after(-1)
    return out


def resumed(folder, **keys):
    said = []
    run = conduct(stopped_run(folder, keys), resume=folder, say=said.append)
    return run, said


@pytest.mark.parametrize("changed", RUNS, ids=lambda changed: "-".join(map(str, changed.values())))
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(train, stop_after, tmp_path, changed):
    whole = train(**changed)
    out = halted(train, stop_after, tmp_path, 2, **changed)
    run, said = resumed(out)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert run.summary["test_errors"] == whole.summary["test_errors"]
    assert run.summary["steps"] == whole.summary["steps"]
    assert any("going on after round" in line for line in said), said
    sessions = {json.loads(line)["session"] for line in (out / "records.jsonl").read_text().splitlines()}
    assert sessions == {0, 1}


def test_on_another_number_of_workers_and_twice(train, undisturbed, stop_after, tmp_path):
    whole = undisturbed
    out = halted(train, stop_after, tmp_path, 1)
    stop_after(2)
    with pytest.raises(Stopped):
        resumed(out, **{"cluster.workers": 2})
    stop_after(-1)
    run, _ = resumed(out, **{"cluster.workers": 3, "cluster.units": 3})
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(train, undisturbed, stop_after, tmp_path):
    whole = undisturbed
    out = halted(train, stop_after, tmp_path, 3)
    newest = sorted((out / "checkpoints").glob("*.zarr.zip"))[-1]
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    run, said = resumed(out)
    assert any("damaged" in line for line in said)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_without_a_checkpoint_it_starts_again(train, undisturbed, stop_after, tmp_path):
    whole = undisturbed
    out = halted(train, stop_after, tmp_path, 1)
    shutil.rmtree(out / "checkpoints")
    run, said = resumed(out)
    assert "no checkpoint was written: from the start" in said
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_only_the_last_two_are_kept(train, stop_after, tmp_path):
    out = halted(train, stop_after, tmp_path, 4)
    assert len(list((out / "checkpoints").glob("*.json"))) == 2
    assert len(list((out / "checkpoints").iterdir())) == 6


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"training.epochs": 9}, ""),
        ({"run.out": "elsewhere"}, ""),
        ({"run.evaluate_every": 1}, "; looks at the test set are steps of the schedule"),
    ],
)
def test_another_configuration_is_refused(train, stop_after, tmp_path, keys, why):
    out = halted(train, stop_after, tmp_path, 1)
    with pytest.raises(BadInput, match=f"goes on as it was configured{why}: give flags"):
        stopped_run(out, keys)


def test_other_data_are_refused(train, stop_after, tmp_path):
    out = halted(train, stop_after, tmp_path, 1)
    attributes = out / "run.zarr" / "zarr.json"
    recorded = json.loads(attributes.read_text())
    recorded["attributes"]["resolved"]["dataset"]["sha256"] = "0" * 64
    attributes.write_text(json.dumps(recorded))
    with pytest.raises(BadInput, match="data are not what the run began with"):
        resumed(out)


def test_checkpoints_at_a_url(train, undisturbed, stop_after, tmp_path):
    whole = undisturbed
    out = halted(train, stop_after, tmp_path, 3, run__checkpoints="memory://of-a-test/run")
    assert not (out / "checkpoints").exists()
    files = fsspec.filesystem("memory").ls("of-a-test/run", detail=False)
    assert len(files) == 6
    run, said = resumed(out)
    assert any("going on after round" in line for line in said)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def recorded(folder):
    """What a run's store records of it, nothing left open."""
    return json.loads((folder / "run.zarr" / "zarr.json").read_text())["attributes"]["resolved"]


def test_a_place_of_another_runs_is_refused_before_any_work(train, stop_after, tmp_path):
    url = "memory://of-a-test/refused"
    out = halted(train, stop_after, tmp_path, 2, run__checkpoints=url)
    with pytest.raises(BadInput, match=rf"{url}, which holds the checkpoints of run {recorded(out)['run']}; give each"):
        train(run__out=str(tmp_path / "another"), run__checkpoints=url)
    assert not (tmp_path / "another").exists()


def test_runs_that_were_given_one_place_at_a_time_go_on_each_to_its_own_bits(train, stop_after, tmp_path, monkeypatch):
    """Both began before either wrote."""
    monkeypatch.setattr(checkpoints, "check_free", lambda where: None)
    url, seeds = "memory://of-a-test/shared", (1, 2)
    whole = [train(training__seed=seed).summary["weights_sha256"] for seed in seeds]
    outs = [
        halted(train, stop_after, tmp_path / str(seed), seed + 1, training__seed=seed, run__checkpoints=url)
        for seed in seeds
    ]
    for out, digest in zip(outs, whole, strict=True):
        run, said = resumed(out)
        assert any("going on after round" in line for line in said), said
        assert any("holds checkpoints of run" in line for line in said), said
        assert run.summary["weights_sha256"] == digest


def test_a_runs_id_is_its_own_however_often_it_is_resumed(train, stop_after, tmp_path):
    out = halted(train, stop_after, tmp_path, 1)
    stop_after(1)
    with pytest.raises(Stopped):
        resumed(out)
    run = recorded(out)["run"]
    assert len(run) == 8
    assert checkpoints.runs_among([path.name for path in (out / "checkpoints").iterdir()]) == {run}


def test_a_run_from_before_runs_had_an_id_goes_on(train, undisturbed, stop_after, tmp_path):
    whole = undisturbed
    out = halted(train, stop_after, tmp_path, 2)
    store, run = out / "run.zarr" / "zarr.json", recorded(out)["run"]
    attributes = json.loads(store.read_text())
    del attributes["attributes"]["resolved"]["run"]
    store.write_text(json.dumps(attributes))
    for path in list((out / "checkpoints").iterdir()):
        if path.suffix == ".json":
            manifest = json.loads(path.read_text().replace(f"-{run}", ""))
            del manifest["run"]
            path.write_text(json.dumps(manifest))
        path.rename(out / "checkpoints" / path.name.replace(f"-{run}", ""))
    stop_after(1)
    with pytest.raises(Stopped):
        resumed(out)
    stop_after(-1)
    run, said = resumed(out)
    assert any("going on after round" in line for line in said)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_checkpoints_move_to_another_place_and_back(train, undisturbed, stop_after, tmp_path, monkeypatch):
    """Also where the run is stopped again before it has written one of its own there."""
    whole = undisturbed
    out = halted(train, stop_after, tmp_path, 2)
    url, memory = "memory://of-a-test/moved", fsspec.filesystem("memory")
    newest = checkpoints.read(out / "checkpoints", print, recorded(out)["run"])

    def stopped(writer, checkpoint):
        raise Stopped

    monkeypatch.setattr(checkpoints.Writer, "write", stopped)
    with pytest.raises(Stopped):
        resumed(out, **{"run.checkpoints": url})
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(Stopped):
        resumed(out, **{"run.checkpoints": "none"})
    assert len(memory.ls("of-a-test/moved", detail=False)) == len(list((out / "checkpoints").iterdir())) == 3
    memory.rm("of-a-test/moved", recursive=True)
    stop_after(-1)
    run, said = resumed(out)
    assert f"going on after round {newest.round}" in said
    assert not any("from now on" in line for line in said)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


@pytest.mark.parametrize(
    ("where", "said"),
    [("memory://of-a-test/anothers", "holds the checkpoints of run abcd"), ("file:///dev/null/x", "cannot be")],
)
def test_a_place_that_checkpoints_cannot_move_to_is_refused_and_nothing_is_moved(
    train, stop_after, tmp_path, where, said
):
    out = halted(train, stop_after, tmp_path, 2)
    checkpoints.write("memory://of-a-test/anothers", checkpoints.Checkpoint(1, {}, Records(), "abcd"))
    with pytest.raises(BadInput, match=said):
        resumed(out, **{"run.checkpoints": where})
    _, lines = resumed(out)
    assert any("going on after round" in line for line in lines)


@pytest.mark.slow
def test_checkpoints_in_an_object_store(train, undisturbed, stop_after, tmp_path, monkeypatch):
    """An S3 server of this machine's."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("bucket")
        url = "s3://bucket/runs/one"
        whole = undisturbed
        out = halted(train, stop_after, tmp_path, 3, run__checkpoints=url)
        assert len(fsspec.filesystem("s3").ls(url, refresh=True)) == 6
        run, said = resumed(out)
    finally:
        server.stop()
    assert any("going on after round" in line for line in said)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_an_unknown_kind_of_url_is_refused(train):
    with pytest.raises(BadInput, match=r"given nowhere://x, for which there is no file system .*fsspec"):
        train(run__checkpoints="nowhere://x")


def test_by_seconds_too(train, monkeypatch):
    """Every interval has passed when a round ends, so that each one has a checkpoint."""
    written = []
    monkeypatch.setattr(checkpoints.Writer, "write", lambda writer, checkpoint: written.append(checkpoint.round))
    run = train(run__checkpoint_every=1000, run__checkpoint_seconds=1e-6)
    rounds = json.loads((run.path / "records.jsonl").read_text().splitlines()[-1])["round"]
    assert written == list(range(rounds))


@pytest.mark.parametrize(
    ("every", "takes", "expected"), [(None, 0.0, None), (None, 1e6, [3]), (4, 1e6, [3, 7, 11, 15])], ids=str
)
def test_nobody_having_said_how_often_they_take_little_of_the_time(train, monkeypatch, every, takes, expected):
    written = []
    monkeypatch.setattr(checkpoints.Writer, "write", lambda writer, checkpoint: written.append(checkpoint.round))
    monkeypatch.setattr(checkpoints.Writer, "seconds", property(lambda writer: takes if written else 0.0))
    # So that the milliseconds in which this one is gathered do not count.
    monkeypatch.setattr("ffdask.conduct.CHECKPOINT_REST", 0.01)
    keys = {} if every is None else {"run__checkpoint_every": every}
    train(training__epochs=10, schedule__chapters=20, schedule__name="all-layers", schedule__nodes=1, **keys)
    if expected is None:
        # One is not marked while the one before is awaited, and that is as it happens.
        assert written[0] == 3
        assert len(written) > 1
    else:
        assert written == expected


def test_a_run_that_has_ended_is_refused(train):
    run = train()
    with pytest.raises(BadInput, match="has ended"):
        stopped_run(run.path, {})


def test_a_full_disk_ends_nothing(train, undisturbed, monkeypatch):
    whole = undisturbed

    def full(folder, checkpoint, before):
        raise OSError(28, "No space left on device")

    said = []
    monkeypatch.setattr(checkpoints, "write", full)
    run = train(say=said.append, run__checkpoint_every=1)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert any("No space left" in line for line in said)
