from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import SMALL
from PIL import Image
from test_report import check

import ffdask
from ffdask import load
from ffdask.comparison import compare_runs
from ffdask.conduct import conduct
from ffdask.errors import BadInput


@pytest.fixture(scope="module")
def other(tmp_path_factory, tiny):
    """A run with another objective and one layer, without a head."""
    keys = {"network.objective": "classifier", "network.layers": [16], "data.validation": 50}
    out = tmp_path_factory.mktemp("other") / "classifier [red]<b>"
    return conduct(load(None, SMALL | keys | {"data.dataset": str(tiny), "run.out": str(out)}))


@pytest.fixture(scope="module")
def again(tmp_path_factory, tiny):
    """The finished run once more, on fewer units: the same bits."""
    out = tmp_path_factory.mktemp("again") / "again"
    return conduct(load(None, SMALL | {"data.dataset": str(tiny), "run.out": str(out), "cluster.units": 1}))


def test_runs_are_told_apart_by_configuration_and_figures(finished, other):
    compared = compare_runs(finished.path, other)
    assert compared.names == ("run", "classifier [red]<b>")
    assert compared.differences == {
        "data.validation": (0, 50),
        "network.layers": ([20, 30], [16]),
        "network.objective": ("goodness", "classifier"),
        "network.negatives": ("sampled", "none"),
        "network.classifier": ("softmax", "all-heads"),
    }
    assert not compared.same_weights
    first, second = compared.table
    for row, run in ((first, finished), (second, other)):
        assert row["path"] == str(run.path)
        for key in ("test_accuracy", "train_seconds", "utilization", "weights_sha256"):
            assert row[key] == run.summary[key]
    assert first["validation_accuracy"] is None
    assert second["validation_accuracy"] == other.summary["validation_accuracy"]
    assert list(pd.DataFrame(compared.table)["network.objective"]) == ["goodness", "classifier"]


def test_the_same_weights_are_said_to_be_the_same(finished, again):
    compared = compare_runs(finished.path, again.path)
    assert compared.same_weights
    assert compared.verdict() == "All ended with the same weights, to the bit."
    assert compared.differences == {"cluster.units": (2, 1)}


def test_runs_of_one_name_are_called_by_more_of_their_paths(finished, tmp_path):
    (tmp_path / "a").mkdir()
    path = shutil.copytree(finished.path, tmp_path / "a" / finished.path.name)
    assert compare_runs(finished.path, path).names == (f"{finished.path.parent.name}/run", "a/run")
    assert compare_runs(path, path).names == ("run (1)", "run (2)")


def test_curves_are_on_the_same_axes(finished, other, again):
    error, head = compare_runs(finished.path, other.path, again.path).figure().axes
    assert [line.get_label() for line in error.lines] == ["run", "classifier [red]<b>", "again"]
    assert len(head.lines) == 2, "one has no head"
    wanted = 100 * finished.history["error"].isel(layer=-1).values
    assert list(error.lines[0].get_ydata()) == pytest.approx(list(wanted))
    assert list(error.lines[0].get_xdata())[-1] == 100


@pytest.mark.parametrize("name", ["_hidden", "$x", "a$\\frac$b"])
def test_a_name_is_shown_as_it_is(finished, tmp_path, name):
    path = shutil.copytree(finished.path, tmp_path / name)
    text = compare_runs(finished.path, path).html()
    check(text)
    assert f">{name}<" in re.sub(r">\s+", ">", text[text.index("<svg") :])


def test_it_is_exported_but_imported_late():
    assert ffdask.compare_runs is compare_runs
    code = "import ffdask, sys; print('ffdask.comparison' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'compare'"):
        ffdask.__getattr__("compare")


def test_in_a_notebook_it_shows_itself(finished, other):
    text = compare_runs(finished.path, other.path)._repr_html_()
    check(text)
    assert "<html" not in text
    assert "classifier [red]&lt;b&gt;" in text
    assert "<b>" not in text


def test_one_run_is_no_comparison(finished):
    with pytest.raises(BadInput, match="given 1; a comparison takes the folders of two"):
        compare_runs(finished.path)


# --- the command


def test_the_table_in_a_terminal(command, finished, other, monkeypatch):
    said = command("compare", finished.path, other.path)
    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out, "no colours where nobody looks"
    lines = [[part.strip() for part in re.split("[│┃]", line)[1:-1]] for line in said.out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    assert rows[""] == ["run", "classifier [red]<b>"]
    assert rows["network.layers"] == ["20,30", "16"]
    assert rows["test accuracy"] == [f"{100 * run.summary['test_accuracy']:.2f} %" for run in (finished, other)]
    assert rows["weights"] == [run.summary["weights_sha256"][:12] for run in (finished, other)]
    assert said.out.endswith("They did not end with the same weights.\n")


def test_json_is_the_table(command, finished, other):
    said = command("compare", finished.path, other.path, "--json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    assert json.loads(said.out) == {"same_weights": False, "runs": compare_runs(finished.path, other.path).table}


def test_pages_and_pictures(command, finished, other, tmp_path):
    for suffix in ("html", "svg", "png"):
        said = command("compare", finished.path, other.path, "--out", tmp_path / f"a.{suffix}")
        assert (said.code, said.err) == (0, "")
    text = (tmp_path / "a.html").read_text()
    page = check(text)
    assert [attributes.get("scope") for attributes in page.of("th")].count("col") == 2
    assert "classifier [red]&lt;b&gt;" in text
    assert "last layer's error" in (tmp_path / "a.svg").read_text()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}"], ["given 1", "two finished runs or more"]),
        (["{run}", "none"], ["given none", "no run.zarr"]),
        (["{run}", "{run}", "--out", "a.htm"], ["--out", "'.htm'", "did you mean '.html'?"]),
        (["{run}", "{run}", "--out", "none/a.svg"], ["--out", "none/a.svg", "No such file or directory"]),
        ([], ["the following arguments are required: run"]),
    ],
)
def test_what_cannot_work_is_said_in_a_line(command, finished, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    said = command("compare", *(argument.format(run=finished.path) for argument in arguments))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    for part in says:
        assert part in said.err
    assert not list(tmp_path.iterdir())
