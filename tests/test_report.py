from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import SMALL, make_store

from ffdask import datasets, load
from ffdask.conduct import conduct
from ffdask.folder import open_folder
from ffdask.pages import report, shown
from ffdask.sections import NO_DATA, NO_IMAGES, PARTS

SECTIONS = [name for _, name, _ in PARTS]

KINDS = {
    "goodness": {"run.evaluate_every": 1},
    "no-head": {
        "network.negatives": "random",
        "network.classifier": "goodness",
        "schedule.name": "until-still",
    },
    "symba": {
        "network.objective": "symba",
        "network.negatives": "random",
        "network.layers": [16],
        "optimizer.name": "adam",
        "optimizer.learning_rate": 0.001,
    },
    "classifier": {"network.objective": "classifier", "network.negatives": "none", "network.classifier": "last-head"},
    "validation": {"data.validation": 60, "run.evaluate_every": 1, "schedule.name": "all-layers", "schedule.nodes": 2},
    "federated": {"schedule.name": "federated", "schedule.nodes": 2, "data.chunk": 50},
}


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check(text: str) -> Page:
    """Check what holds of every page: it holds all it shows, says it in words, and runs nothing."""
    page = Page(text)
    assert len(text.encode()) < 3 << 20
    assert not page.of("script")
    assert not page.of("link")
    assert not page.of("iframe")
    for image in page.of("img"):
        assert image["src"].startswith("data:image/png;base64,")
        assert image["alt"]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), value
    assert "url(http" not in text.replace(" ", "")
    assert "@import" not in text
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers)), "a name in a page is one element's"
    drawn = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    for one in drawn:
        root = ElementTree.fromstring(one)
        assert (root.get("role"), bool(root.get("aria-label"))) == ("img", True)
        assert root.get("viewBox")
        assert root.get("width") is None
    for target in re.findall(r'(?:url\(#|href="#)([^)"]+)', text):
        assert target in identifiers
    return page


def sections_of(text: str) -> dict[str, str]:
    """Return each section's part of a page."""
    parts = re.split(r'<section id="([a-z-]+)"', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def left_out(text: str) -> dict[str, str]:
    found = {name: re.findall(r'<p class="left-out">(.*?)</p>', part) for name, part in sections_of(text).items()}
    return {name: says[0] for name, says in found.items() if says}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, tiny):
    """Return the folder of a small run with these keys, made once."""
    made = {}

    def run(name: str, data=tiny, **keys):
        if name not in made:
            out = tmp_path_factory.mktemp("runs") / name
            made[name] = conduct(load(None, SMALL | {"data.dataset": str(data), "run.out": str(out)} | keys)).path
        return made[name]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_every_kind_of_run_has_all_its_parts(run_of, kind):
    path = run_of(kind, **KINDS[kind])
    text = report(path)
    page = check(text)
    assert list(sections_of(text)) == [*SECTIONS, "configuration"]
    assert left_out(text) == {}
    summary = json.loads((path / "summary.json").read_text())
    assert f"{100 * summary['test_accuracy']:.2f} %" in text
    assert summary["weights_sha256"] in text
    mistakes = [image for image in page.of("img") if image["alt"].startswith("Test row")]
    assert len(mistakes) == min(24, summary["test_errors"]) > 0
    goodness = sections_of(text)["goodness"]
    # Matplotlib writes each text of a figure beside the shapes that it labels.
    assert (">negative<" in goodness) is (kind != "classifier")
    assert (">threshold<" in goodness) is (kind not in ("classifier", "symba"))
    held = "60 rows held out" if kind == "validation" else "50 test rows"
    assert held in goodness
    looks = sections_of(text)["accuracy"]
    assert (">validation, softmax<" in looks) is (kind == "validation")
    assert (">head in training<" in looks) is (kind not in ("classifier", "no-head"))


def test_what_stands_out_is_what_is_not_the_default(run_of):
    text = report(run_of("goodness", **KINDS["goodness"]))
    rows = re.findall(
        r'<th scope="row">(\w+)</th><td( class="changed")?>(.*?)</td>', sections_of(text)["configuration"]
    )
    changed = {key: value for key, is_changed, value in rows if is_changed}
    assert changed.keys() == {"dataset", "chunk", "layers", "epochs", "batch_size", "units", "out", "evaluate_every"}
    assert (changed["layers"], changed["evaluate_every"]) == ("20,30", "1")
    assert {"name", "seed", "threshold", "shift"} <= {key for key, is_changed, _ in rows if not is_changed}


def test_vectors_have_no_pictures_and_all_else(run_of, tmp_path_factory):
    rng = np.random.default_rng(1)
    data = tmp_path_factory.mktemp("vectors") / "vectors.zarr"
    vectors = {f"{split}_images": rng.random((n, 30), np.float32) for split, n in (("train", 300), ("test", 50))}
    make_store(data, **vectors)
    text = report(run_of("vectors", data, **{"training.shift": 0, "data.overlay": "append"}))
    page = check(text)
    assert left_out(text) == {"weights": NO_IMAGES}
    assert not page.of("img")
    assert re.search(r"is \d \(", sections_of(text)["mistakes"])


def test_colour_images(run_of, tmp_path_factory):
    rng = np.random.default_rng(1)
    data = tmp_path_factory.mktemp("colour") / "colour.zarr"
    images = {f"{s}_images": rng.integers(0, 256, (n, 5, 7, 3)) for s, n in (("train", 300), ("test", 50))}
    make_store(data, **images)
    text = report(run_of("colour", data, **{"data.overlay": "append"}))
    check(text)
    assert left_out(text) == {}
    assert "colours about grey" in text


def test_without_its_data_a_report_says_what_is_left_out(run_of, tmp_path_factory):
    data = make_store(tmp_path_factory.mktemp("gone") / "gone.zarr")
    path = run_of("gone", data)
    shutil.rmtree(data)
    datasets.forget()
    text = report(path)
    check(text)
    assert left_out(text) == dict.fromkeys(("confusion", "goodness", "mistakes"), NO_DATA)


def test_a_known_data_set_is_not_fetched_for_a_report(cache, finished, tmp_path, monkeypatch):
    path = _with_attributes(finished.path, tmp_path / "copy", lambda known: known | {"path": "/none", "name": "mnist"})
    monkeypatch.setattr(datasets.catalogue, "gather", lambda *_: pytest.fail("a report fetches nothing"))
    assert left_out(report(path)).keys() == {"confusion", "goodness", "mistakes"}


def _with_attributes(run, copy, change):
    shutil.copytree(run, copy)
    file = copy / "run.zarr" / "zarr.json"
    metadata = json.loads(file.read_text())
    resolved = metadata["attributes"]["resolved"]
    resolved["dataset"] = change(resolved["dataset"])
    file.write_text(json.dumps(metadata))
    return copy


def test_whatever_a_run_is_called_is_escaped(finished, tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    path = _with_attributes(finished.path, tmp_path / "<b>run&", lambda known: known | {"name": evil, "source": evil})
    text = report(path)
    check(text)
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;b&gt;run&amp;" in text
    assert "<b>" not in text


def test_a_password_in_a_url_is_not_shown():
    assert shown("s3://key:secret@bucket/run") == "s3://...@bucket/run"
    assert shown("s3://bucket/a@b") == "s3://bucket/a@b"
    assert (shown([20, 30]), shown(True), shown(0.5)) == ("20,30", "true", "0.5")


def test_a_part_that_cannot_be_read_leaves_the_others(finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "copy")
    shutil.rmtree(path / "run.zarr" / "history")
    (path / "records.jsonl").write_text('{"kind": "train"}\n')
    text = report(path)
    check(text)
    said = left_out(text)
    assert said.keys() == {"timeline", "learning", "accuracy"}
    assert all("cannot be read" in says for says in said.values())


def test_a_long_timeline_is_a_picture(finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "copy")
    records = open_folder(path).records
    with (path / "records.jsonl").open("w") as file:
        for number in range(5_000):
            record = records[number % len(records)] | {"start": number / 10, "stop": number / 10 + 0.09}
            file.write(json.dumps(record) + "\n")
    text = report(path)
    check(text)
    assert sections_of(text)["timeline"].count("data:image/png") >= 1


def test_the_command_writes_into_the_run_s_folder_or_where_it_is_told(command, finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "copy")
    said = command("report", path)
    assert (said.code, said.out, said.err) == (0, f"{path / 'report.html'}\n", "")
    other = tmp_path / "other.html"
    said = command("report", path, "--out", other, "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == {"run": str(path), "report": str(other), "bytes": other.stat().st_size}
    assert other.read_text() == (path / "report.html").read_text()
    check(other.read_text())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy", "other.html"], "no draft is left"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: shutil.rmtree(path / "run.zarr"), "has no run.zarr"),
        (lambda path: (path / "summary.json").unlink(), "has not ended"),
        (lambda path: (path / "summary.json").write_text("[]"), "summary.json cannot be read: it has no"),
        (lambda path: (path / "run.zarr" / "zarr.json").write_text("{"), "cannot be read"),
    ],
)
def test_what_is_no_finished_run_is_said_in_a_line(command, finished, tmp_path, spoil, says):
    path = shutil.copytree(finished.path, tmp_path / "copy")
    spoil(path)
    said = command("report", path)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not (path / "report.html").exists()


def test_where_it_cannot_be_written_is_said_in_a_line(command, finished, tmp_path):
    said = command("report", finished.path, "--out", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert "it is a folder" in said.err
    said = command("report", finished.path, "--out", tmp_path / "none" / "a.html")
    assert said.code == 2
    assert "No such file or directory" in said.err
