from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from PIL import Image

import ffdask
from ffdask import datasets
from ffdask.conduct import conduct
from ffdask.kernels import named
from ffdask.store import open_network


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to change."""
    return shutil.copytree(finished.path, tmp_path / "copy")


@pytest.fixture(scope="session")
def test_set(tiny):
    return datasets.load(str(tiny), "test")


def _rows(text: str) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(io.StringIO(text))
    return header, rows


# --- predict


@pytest.mark.parametrize("classifier", [None, "softmax", "goodness"])
def test_csv_says_what_the_network_says(command, finished, tiny, test_set, classifier):
    said = command("predict", finished.path, tiny, *(["--classifier", classifier] if classifier else []))
    assert (said.code, said.err) == (0, "")
    header, rows = _rows(said.out)
    assert header == ["index", "label", *(f"score{label}" for label in range(10))]
    scores = finished.network.scores(test_set[0], classifier or "softmax", named("numpy"))
    assert [int(row[0]) for row in rows] == list(range(50))
    np.testing.assert_array_equal([int(row[1]) for row in rows], scores.argmax(axis=1))
    np.testing.assert_allclose([[float(score) for score in row[2:]] for row in rows], scores, atol=6e-7)


def test_json_lines_say_the_same(command, finished, tiny):
    _, rows = _rows(command("predict", finished.path, tiny).out)
    said = command("predict", finished.path, tiny, "--format", "jsonl")
    assert (said.code, said.err) == (0, "")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [set(line) for line in lines] == [{"index", "label", "scores"}] * 50
    assert [[line["index"], line["label"]] for line in lines] == [[int(row[0]), int(row[1])] for row in rows]
    assert [[f"{score:.6f}" for score in line["scores"]] for line in lines] == [row[2:] for row in rows]


def test_every_kind_of_file_gives_the_same_answers(command, finished, tiny, test_set, tmp_path):
    images = test_set[0]
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "flat.npy", images.reshape(50, -1))
    np.savez(tmp_path / "a.npz", images)
    np.savez(tmp_path / "keras.npz", x_train=images[:1], x_test=images)
    zarr.save_array(str(tmp_path / "a.zarr"), images)
    wanted = command("predict", finished.path, tiny).out
    for name in ("a.npy", "flat.npy", "a.npz", "keras.npz", "a.zarr"):
        said = command("predict", finished.path, tmp_path / name)
        assert (said.code, said.out) == (0, wanted), name
    _, rows = _rows(wanted)
    for index in (0, 17):
        Image.fromarray(images[index]).save(tmp_path / "a.png")
        _, (one,) = _rows(command("predict", finished.path, tmp_path / "a.png").out)
        assert one[1] == rows[index][1]
        # One row is another shape for BLAS: near, not equal.
        np.testing.assert_allclose(np.float64(one[2:]), np.float64(rows[index][2:]), atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}", "{data}", "--classifier", "softmx"], ["--classifier", "given 'softmx'", "goodness, softmax"]),
        (["{run}", "{data}", "--format", "xml"], ["--format", "'xml'", "csv", "jsonl"]),
        (["{run}", "none.png"], ["given none.png", "does not exist", ".png, .npy, .npz or Zarr"]),
        (["none", "{data}"], ["given none", "has no run.zarr", "the folder that a run left"]),
        (["{run}", "small.npy"], ["small.npy", "(2, 5, 5)", "images of 36 pixels"]),
        (["{run}", "float.npy"], ["float.npy", "float64", "give uint8"]),
    ],
)
def test_predict_refuses(command, finished, tiny, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    np.save("small.npy", np.zeros((2, 5, 5), np.uint8))
    np.save("float.npy", np.zeros((2, 6, 6)))
    said = command("predict", *(text.format(run=finished.path, data=tiny) for text in arguments))
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    for part in says:
        assert part in line


@pytest.mark.parametrize("rows", [1, 200])
def test_a_closed_pipe_is_silent(finished, tmp_path, rows):
    np.save(tmp_path / "a.npy", np.zeros((rows, 6, 6), np.uint8))
    read, write = os.pipe()
    os.close(read)
    call = [sys.executable, "-m", "ffdask.predict", finished.path, tmp_path / "a.npy"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(call, env=buffered, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


# --- evaluate


def _figures(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines())


@pytest.mark.parametrize("classifier", [None, "softmax", "goodness"])
def test_evaluate_agrees_with_the_run(command, finished, test_set, classifier):
    said = command("evaluate", finished.path, *(["--classifier", classifier] if classifier else []))
    assert (said.code, said.err) == (0, "")
    figures = _figures(said.out)
    wrong = finished.network.errors(*test_set, classifier or "softmax", named("numpy"))
    assert figures["test_errors"] == str(wrong)
    assert figures["test_accuracy"] == f"{1 - wrong / 50:.4f}"
    for name in ("softmax", "goodness"):
        assert figures[f"test_accuracy_{name}"] == f"{finished.summary[f'test_accuracy_{name}']:.4f}"
    assert figures["weights_sha256"] == f"{finished.summary['weights_sha256']} as recorded"


def test_a_changed_weight_is_noticed(command, copied, finished):
    array = zarr.open_group(str(copied / "run.zarr"), mode="r+")["weights/layer2/weights"]
    array[3, 4] = float(array[3, 4]) + 1
    said = command("evaluate", copied)
    assert said.code == 0
    recorded = finished.summary["weights_sha256"]
    digest = _figures(said.out)["weights_sha256"]
    assert digest.endswith(f" NOT as recorded ({recorded}): the store was changed")
    assert not digest.startswith(recorded)


def test_a_moved_run_is_evaluated_alike(command, copied, finished):
    assert command("evaluate", copied).out == command("evaluate", finished.path).out


def test_another_data_set(command, finished, tmp_path):
    from conftest import make_store

    said = command(
        "evaluate", finished.path, "--dataset", make_store(tmp_path / "d.zarr", test_labels=np.zeros(50, int))
    )
    assert said.code == 0
    images, _ = datasets.load(str(tmp_path / "d.zarr"), "test")
    labels = finished.network.scores(images, "softmax", named("numpy")).argmax(axis=1)
    assert _figures(said.out)["test_errors"] == str(int((labels != 0).sum()))


def test_a_run_on_colour_and_one_on_floats_predict_and_evaluate(command, tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (60, 4, 3, 3), dtype=np.uint8)
    labels = np.arange(60) % 5
    for name, images, shift in (("colour", colour, 1), ("floats", colour.reshape(60, -1) / 255, 0)):
        data, run = tmp_path / f"{name}.npz", tmp_path / name
        np.savez(data, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
        small = ["--chunk", 20, "--batch-size", 10, "--layers", 8, "--epochs", 1, "--units", 1]
        said = command("train", "--dataset", data, "--out", run, "--shift", shift, *small)
        assert said.code == 0, said.err
        said = command("evaluate", run)
        assert said.code == 0, said.err
        said = command("predict", run, data)
        assert (said.code, len(said.out.splitlines())) == (0, 21), said.err
        assert said.out.splitlines()[0] == "index,label,score0,score1,score2,score3,score4"


def test_vectors_are_not_shifted(command, tmp_path):
    images, labels = np.zeros((60, 36)), np.arange(60) % 3
    np.savez(tmp_path / "v.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    small = ["--chunk", 20, "--batch-size", 10]
    said = command("train", "--dataset", tmp_path / "v.npz", "--out", tmp_path / "run", *small)
    assert said.code == 2
    for part in ("--shift", "given 1", "vectors of 36 features", "only 0 is allowed", "give --shift 0"):
        assert part in said.err


def test_images_of_another_size_are_refused(command, finished, tmp_path):
    from conftest import make_store

    said = command("evaluate", finished.path, "--dataset", make_store(tmp_path / "d.zarr", side=7))
    assert (said.code, said.out) == (2, "")
    assert "7 x 7 values; the run learned from 36" in said.err


def test_labels_that_the_network_does_not_know_are_refused(command, finished, tmp_path):
    from conftest import make_store

    store = make_store(tmp_path / "d.zarr", test_labels=np.full(50, 11), classes=12)
    said = command("evaluate", finished.path, "--dataset", store)
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert f"--dataset: given {store} of 12 classes; the run learned 10" in said.err


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_an_unknown_classifier_is_refused(command, finished, tiny, name):
    said = command(name, finished.path, *([tiny] if name == "predict" else []), "--classifier", "softmx")
    assert (said.code, said.out) == (2, "")
    assert "given 'softmx'; this run has goodness, softmax" in said.err


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_an_unknown_classifier_gets_a_hint(command, finished, tiny, name):
    said = command(name, finished.path, *([tiny] if name == "predict" else []), "--classifier", "softmx")
    assert "did you mean 'softmax'?" in said.err


def test_a_run_is_evaluated_from_any_folder(command, tiny, tmp_path, monkeypatch):
    from conftest import SMALL

    shutil.copytree(tiny, tmp_path / "a" / "tiny.zarr")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    conduct(ffdask.load(None, SMALL | {"data.dataset": "tiny.zarr", "run.out": "run"}))
    monkeypatch.chdir(tmp_path / "b")
    assert command("evaluate", "../a/run").code == 0


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_a_damaged_record_is_bad_input(command, copied, tiny, name):
    zarr.open_group(str(copied / "run.zarr"), mode="r+").attrs["resolved"] = {}
    said = command(name, copied, *([tiny] if name == "predict" else []))
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert f"run folder: given {copied}, which cannot be read" in said.err


def test_a_run_without_a_head_has_one_classifier(command, tiny, tmp_path):
    from conftest import SMALL

    keys = {"network.negatives": "random", "network.classifier": "goodness", "data.dataset": str(tiny)}
    run = conduct(ffdask.load(None, SMALL | keys | {"run.out": str(tmp_path / "run")}))
    assert run.network.head is None
    said = command("predict", run.path, tiny, "--classifier", "softmax")
    assert (said.code, said.err.endswith("given 'softmax'; this run has goodness\n")) == (2, True)
    figures = _figures(command("evaluate", run.path).out)
    assert set(figures) == {"test_accuracy", "test_errors", "test_accuracy_goodness", "weights_sha256"}


# --- runs of other kinds


@pytest.fixture(scope="module")
def of_kind(tmp_path_factory, tiny):
    """A finished run by single keys; read only."""
    from conftest import SMALL

    def make(**keys):
        dotted = {key.replace("__", "."): value for key, value in keys.items()}
        out = tmp_path_factory.mktemp("kinds") / "run"
        return conduct(ffdask.load(None, SMALL | {"data.dataset": str(tiny), "run.out": str(out)} | dotted))

    return make


@pytest.fixture(scope="module")
def own_heads(of_kind):
    return of_kind(network__objective="classifier", data__validation=40, training__scale=0.8, head__rate=30.0)


def plain_own_heads(network, images):
    """Each layer's probabilities by its own head, row by row, without a label."""
    import plain

    each = []
    for image in images:
        passed = plain.climb(plain.row(image, None, 10, "none"), network.states)
        pairs = zip(passed, network.states, strict=True)
        each.append([plain.softmax(activities @ state.head.weights) for (activities, _), state in pairs])
    return np.array(each)


def test_a_run_with_own_heads_comes_back_and_answers(command, own_heads, tiny, test_set):
    network, recorded = open_network(own_heads.path)
    assert network.sha256() == own_heads.summary["weights_sha256"] == own_heads.network.sha256()
    assert (recorded["objective"], recorded["negatives"], recorded["classifier"]) == ("classifier", "none", "all-heads")
    expected = plain_own_heads(network, test_set[0])
    answers = {None: expected.mean(axis=1), "all-heads": expected.mean(axis=1), "last-head": expected[:, -1]}
    for classifier, scores in answers.items():
        said = command("predict", own_heads.path, tiny, *(["--classifier", classifier] if classifier else []))
        assert (said.code, said.err) == (0, "")
        _, rows = _rows(said.out)
        np.testing.assert_allclose([[float(score) for score in row[2:]] for row in rows], scores, atol=2e-5)
    assert np.abs(answers["all-heads"] - answers["last-head"]).max() > 1e-3


def test_a_run_with_own_heads_is_evaluated_with_its_digest(command, own_heads, test_set):
    for classifier in ("all-heads", "last-head"):
        said = command("evaluate", own_heads.path, "--classifier", classifier)
        assert (said.code, said.err) == (0, "")
        figures = _figures(said.out)
        wrong = own_heads.network.errors(*test_set, classifier, named("numpy"))
        assert figures["test_errors"] == str(wrong)
        assert figures["weights_sha256"] == f"{own_heads.summary['weights_sha256']} as recorded"
    said = command("evaluate", own_heads.path, "--classifier", "softmax")
    assert (said.code, said.err.endswith("given 'softmax'; this run has last-head, all-heads\n")) == (2, True)


def test_an_own_head_that_was_changed_is_noticed(command, own_heads, tmp_path):
    copy = shutil.copytree(own_heads.path, tmp_path / "copy")
    array = zarr.open_group(str(copy / "run.zarr"), mode="r+")["weights/layer1/head"]
    array[3, 4] = float(array[3, 4]) + 1
    said = command("evaluate", copy)
    assert said.code == 0
    assert "NOT as recorded" in _figures(said.out)["weights_sha256"]


def test_the_summary_has_scale_and_what_was_held_out(own_heads, tiny):
    summary = json.loads((own_heads.path / "summary.json").read_text())
    assert (summary["scale"], summary["layers"], summary["epochs"]) == (0.8, [16, 24], 1)
    calendar_rows = own_heads.history["rows"].values.sum()
    assert calendar_rows == 260
    for name in ("validation_accuracy", "validation_accuracy_last-head", "validation_accuracy_all-heads"):
        assert 0 <= summary[name] <= 1
    assert summary["validation_accuracy"] == summary["validation_accuracy_all-heads"]
    assert summary["validation_errors"] == round(40 * (1 - summary["validation_accuracy"]))
    assert "test_accuracy_last-head" in summary


def test_nothing_is_said_of_validation_where_nothing_is_held_out(finished):
    assert not [name for name in finished.summary if name.startswith("validation")]
    assert finished.summary["scale"] == 1.0


@pytest.mark.parametrize("classifier", ["softmax", "goodness"])
def test_a_run_whose_labels_have_inputs_of_their_own_answers(command, of_kind, tiny, test_set, classifier):
    run = of_kind(data__overlay="append")
    assert run.network.states[0].weights.shape == (46, 20)
    figures = _figures(command("evaluate", run.path, "--classifier", classifier).out)
    wrong = run.network.errors(*test_set, classifier, named("numpy"))
    assert figures["test_errors"] == str(wrong)
    assert figures["weights_sha256"].endswith("as recorded")
    said = command("predict", run.path, tiny, "--classifier", classifier)
    _, rows = _rows(said.out)
    scores = run.network.scores(test_set[0], classifier, named("numpy"))
    np.testing.assert_array_equal([int(row[1]) for row in rows], scores.argmax(axis=1))
