"""Callbacks: what they write is what the run's history says, and none can lose a run."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from test_run import SMALL, begin  # noqa: F401  (a fixture)

from ffdask import callbacks, kept
from ffdask.errors import BadInput
from ffdask.folder import open_folder


@pytest.fixture(autouse=True, scope="module")
def _closed():
    yield
    kept.close_kept()


SCHEDULES = ("streaming", "all-layers", "worst-layer", "until-still")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_csv_holds_the_history(begin, tmp_path, schedule):  # noqa: F811
    run = begin(callbacks=[callbacks.Csv(tmp_path / "run.csv")], schedule=schedule, epochs=2).wait()
    with (tmp_path / "run.csv").open() as file:
        rows = list(csv.DictReader(file))
    chapters, layers = run.history.sizes["chapter"], run.history.sizes["layer"]
    regular = [row for row in rows if int(row["chapter"]) < run.plan.calendar.chapters]
    assert len({(row["chapter"], row["layer"]) for row in regular}) == len(regular) == chapters * (layers + 1)
    if schedule == "worst-layer":
        # Its further turns count into the history, and not here.
        return
    for row in regular:
        chapter, layer = int(row["chapter"]), int(row["layer"])
        of = run.history.isel(chapter=chapter)
        expected = of["error"].sel(layer=layer) if layer else of["train_error"]
        np.testing.assert_allclose(float(row["error"]), expected, rtol=1e-12)
        assert bool(row["goodness_positive"]) == bool(layer)


def test_json_lines_are_the_records_as_they_came(begin, tmp_path):  # noqa: F811
    run = begin(callbacks=[callbacks.JsonLines(tmp_path / "steps.jsonl")]).wait()
    told = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    kept_ = [
        {key: value for key, value in record.items() if key != "session"} for record in open_folder(run.path).records
    ]
    assert sorted(told, key=lambda record: record["name"]) == sorted(kept_, key=lambda record: record["name"])


def test_early_stopping_finishes_the_run_with_its_network(begin):  # noqa: F811
    """No chapter is better by so much than the first: two later the run ends, and a run told so has the same bits."""
    run = begin(epochs=40, callbacks=[callbacks.EarlyStopping(2, least=0.9)]).wait()
    assert run.status == "ended"
    error = run.history["train_error"].values
    assert len(error) < run.plan.calendar.chapters
    (change,) = run.configuration.training.changes
    assert change.ends
    assert 2 < change.chapter == len(error) == run.summary["chapters"]
    # What was in work when it was noticed is finished; it was not noticed later than that.
    assert begin(run.configuration).network.sha256() == run.network.sha256()


def test_a_callback_may_change_the_run(begin):  # noqa: F811
    told = []

    def halve(run, record):
        if not told:
            told.append(run.change(learning_rate=0.001))

    run = begin(callbacks=[halve], epochs=4).wait()
    assert [change.chapter for change in run.configuration.training.changes] == told


def test_tensorboard_reads_what_was_written(begin, tmp_path):  # noqa: F811
    pytest.importorskip("tensorboardX")
    run = begin(callbacks=[callbacks.TensorBoard(tmp_path / "board")]).wait()
    from tensorboardX.proto import event_pb2

    (file,) = (tmp_path / "board").iterdir()
    data, found = file.read_bytes(), {}
    while data:
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        data = data[16 + size :]
    for chapter in run.history["chapter"].values:
        expected = float(run.history["error"].sel(layer=1, chapter=chapter))
        assert found["layer1/error", chapter] == pytest.approx(expected, rel=1e-6)
        assert ("head/error", chapter) in found


def test_mlflow_has_the_figures_and_the_configuration(begin, tmp_path, monkeypatch):  # noqa: F811
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlflow")
    run = begin(callbacks=[callbacks.MLflow()]).wait()
    (logged,) = mlflow.search_runs(output_format="list")
    assert logged.info.status == "FINISHED"
    assert logged.data.params["training.epochs"] == str(SMALL["training.epochs"])
    last = float(run.history["error"].sel(layer=2)[-1])
    assert logged.data.metrics["layer2/error"] == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "modules", "said"),
    [
        (lambda at: callbacks.TensorBoard(at), ("tensorboardX", "torch", "torch.utils.tensorboard"), "tensorboardX"),
        (lambda at: callbacks.MLflow(), ("mlflow",), "mlflow-skinny"),
        (lambda at: callbacks.Csv(at / "no" / "where.csv"), (), "another file"),
        (lambda at: callbacks.EarlyStopping(0), (), "from 1"),
    ],
)
def test_what_cannot_be_is_said_before_the_run(tmp_path, monkeypatch, make, modules, said):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadInput, match=said):
        make(tmp_path)
