"""Every graph file: it loads, it is forecast and drawn at its own size, and it trains two chapters at a tenth of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ffdask import datasets, machine
from ffdask.conduct import conduct, foresee
from ffdask.config import Config, load
from ffdask.datasets import Dataset
from ffdask.errors import BadInput
from ffdask.inline import train_inline
from ffdask.job import Data
from ffdask.picture import timeline_text
from ffdask.resolved import resolve

GRAPHS = Path(__file__).parents[1] / "graphs"
FILES = {str(file.relative_to(GRAPHS).with_suffix("")): file for file in sorted(GRAPHS.rglob("*.toml"))}
MNIST = [name.removeprefix("paper/mnist/") for name in FILES if name.startswith("paper/mnist/")]
SCHEDULES = ("sequential", "single-layer", "all-layers")
ROWS = ("adaptive-goodness", "random-goodness", "fixed-goodness", "adaptive-softmax", "random-softmax")
FITTED = ("paper/mnist/adaptive-goodness-all-layers", "paper/cifar-10/performance-optimised-all-heads")

# At a tenth of the width: one epoch of two chunks, in two chapters.
TENTH = {"training.scale": 0.1, "training.epochs": 10, "schedule.chapters": 2, "data.chunk": 1000, "cluster.units": 2}


def made(path: Path, side: int) -> Dataset:
    """Write 2,000 + 200 images of noise, each with its class's own patch lit."""
    random = np.random.default_rng(0)

    def rows(n):
        labels = random.integers(0, 10, n).astype(np.uint8)
        images = random.integers(0, 90, (n, side, side)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[10 + 5 * (label // 5) :, 2 + 5 * (label % 5) :][:5, :5] = 255
        return images, labels

    return datasets.write_store(path, f"made{side}", "made by the tests", *rows(2000), *rows(200))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Return the store that stands in for a data set: of its side, in shades of grey."""
    folder = tmp_path_factory.mktemp("data")
    stores = {name: made(folder / f"{name}.zarr", side) for name, side in (("mnist", 28), ("cifar-10", 32))}
    return lambda config: stores[config.data.dataset]


def trained(config: Config, dataset: Dataset):
    resolved = resolve(config, dataset, 2)
    calendar = resolved.plan.calendar
    data = Data.of(calendar, datasets.load(dataset.path, "train"), lambda: datasets.load(dataset.path, "test"))
    with machine.one_thread():
        network, records = train_inline(resolved.job, resolved.plan, resolved.entry.steps, data)
    return resolved, network, records


def test_the_papers_tables_are_all_there():
    cells = {f"{row}-{schedule}" for row in ROWS for schedule in SCHEDULES}
    heads = {"performance-optimised-last-head", "performance-optimised-all-heads"}
    own = {f"random-softmax-own-settings-{reading}" for reading in ("sum", "mean")}
    assert set(MNIST) == cells | heads | own
    others = {name.removeprefix("paper/cifar-10/") for name in FILES if name.startswith("paper/cifar-10/")}
    assert others == heads | {"random-softmax", "fixed-softmax", "adaptive-goodness"}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("paper/")])
def test_a_row_of_the_paper_has_the_papers_size_and_says_its_name(name):
    config, text = load(FILES[name]), FILES[name].read_text()
    assert config.network.layers == (2000, 2000, 2000, 2000)
    assert (config.training.epochs, config.schedule.chapters) == (100, 100)
    assert (config.training.shift, config.training.scale) == (0, 1.0)
    assert config.schedule.nodes == (None if config.schedule.name == "sequential" else 4)
    assert config.data.dataset in name
    assert (config.data.overlay == "append") == ("cifar-10" in name and config.network.objective == "goodness")
    words = name.rpartition("/")[2].split("-")
    if config.network.objective == "goodness":
        assert words[:2] == [config.network.negatives, config.network.classifier]
    else:
        assert "-".join(words[-2:]) == config.network.classifier
    assert config.training.batch_size in (64, 100)
    assert ("batches of 100 in place of 64" in " ".join(text.replace("#", " ").split())) == (
        config.training.batch_size == 100
    )
    assert re.search(r"\d\d\.\d\d %", text)
    assert "Not as in the paper" in " ".join(text.replace("#", " ").split())


@pytest.mark.parametrize("row", ROWS)
def test_a_rows_three_files_differ_in_their_schedule_alone(row):
    tables = {name: load(FILES[f"paper/mnist/{row}-{name}"]).tables() for name in SCHEDULES}
    assert [table["schedule"].pop("name") for table in tables.values()] == list(SCHEDULES)
    for table in tables.values():
        table["schedule"].pop("nodes", None)
    assert tables["sequential"] == tables["single-layer"] == tables["all-layers"]


@pytest.mark.parametrize("folder", ["mnist", "cifar-10"])
def test_last_head_and_all_heads_differ_in_the_classifier_alone(folder):
    files = [FILES[f"paper/{folder}/performance-optimised-{name}"] for name in ("last-head", "all-heads")]
    tables = [load(file).tables() for file in files]
    assert [table["network"].pop("classifier") for table in tables] == ["last-head", "all-heads"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("reading", ["sum", "mean"])
def test_the_papers_own_settings(reading):
    config = load(FILES[f"paper/mnist/random-softmax-own-settings-{reading}"])
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.weight_decay) == ("adam", 0.01, 0)
    assert (config.layer.goodness, config.layer.peer) == (reading, 0)
    theta = config.layer.threshold * (2000 if reading == "sum" else 1)
    assert theta == pytest.approx(0.01)


@pytest.mark.parametrize("name", FILES)
def test_a_graph_loads_and_is_drawn_at_its_own_size(name, stand_in):
    config = load(FILES[name])
    if config.data.dataset not in datasets.KNOWN:
        config = load(FILES[name], {"data.dataset": stand_in(config).path})
    ahead = foresee(config)
    drawn = timeline_text(ahead, 4)
    assert drawn.startswith(f"{config.schedule.name}: {ahead.resolved.job.fan_in}-{config.network.layers[0]}-")
    assert drawn.count("\nnode ") == ahead.resolved.plan.nodes
    if name.startswith("paper/"):
        assert {step.round for step in ahead.steps} == set(range(100))
        # Four nodes, or the costliest layer's chain where one layer costs more than a quarter.
        assert ahead.bound == pytest.approx(1) if config.schedule.name == "sequential" else 3.5 < ahead.bound <= 4


@pytest.fixture(scope="module")
def digests():
    """Each graph's digest, as its test of training found it."""
    return {}


@pytest.mark.parametrize("name", FILES)
def test_a_graph_trains_two_chapters_at_a_tenth_of_its_width(name, stand_in, digests):
    config = load(FILES[name], TENTH)
    resolved, network, records = trained(config, stand_in(config))
    calendar = resolved.plan.calendar
    assert (calendar.epochs, calendar.chapters, calendar.visits) == (1, 2, 2)
    widths = load(FILES[name]).network.layers
    assert resolved.job.widths == tuple(8 * round(width / 80) for width in widths)
    trained_in = {key.rpartition("-")[2] for key in records if key.startswith("train_layer")}
    assert len(trained_in) == resolved.plan.rounds == 2
    assert config.network.classifier in network.classifiers()
    for layer, state in enumerate(network.states, start=1):
        assert all(np.isfinite(array).all() for array in state.arrays().values())
        # A theta of 0.01 on the sum of the squares lets every unit of layer one die: nothing is left to learn by.
        alive = layer == 1 or not name.endswith("own-settings-sum")
        assert (state.weights != resolved.job.initial_layer(layer).weights).any() == alive
    digests[name] = network.sha256()


@pytest.mark.parametrize("row", ROWS)
def test_a_rows_three_schedules_have_one_digest(row, digests, stand_in):
    names = [f"paper/mnist/{row}-{schedule}" for schedule in SCHEDULES]
    for name in names:
        if name not in digests:
            config = load(FILES[name], TENTH)
            digests[name] = trained(config, stand_in(config))[1].sha256()
    assert len({digests[name] for name in names}) == 1


@pytest.mark.parametrize("name", FITTED)
def test_on_a_cluster_as_in_one_thread(name, stand_in, tmp_path):
    dataset = stand_in(load(FILES[name]))
    config = load(FILES[name], TENTH | {"data.dataset": dataset.path, "run.out": str(tmp_path / "run")})
    run = conduct(config)
    assert run.summary["weights_sha256"] == trained(config, dataset)[1].sha256()
    assert (run.summary["chapters"], run.summary["nodes"], run.summary["scale"]) == (2, 4, 0.1)
    if config.network.objective == "classifier":
        assert run.summary["test_accuracy"] == run.summary["test_accuracy_all-heads"]
        assert "test_accuracy_last-head" in run.summary


@pytest.mark.parametrize("scale", [0.25, 2.0])
def test_scale_changes_epochs_and_widths_and_nothing_else(scale, stand_in):
    name = "paper/mnist/random-goodness-all-layers"
    config = load(FILES[name], {"training.scale": scale, "data.chunk": 100})
    resolved = resolve(config, stand_in(config), 2)
    assert resolved.plan.calendar.epochs == 100 * scale
    assert resolved.plan.calendar.chapters == 100
    assert set(resolved.job.widths) == {8 * round(2000 * scale / 8)}


def test_a_scale_that_leaves_fewer_visits_than_chapters_is_refused(stand_in):
    config = load(FILES["paper/mnist/random-goodness-all-layers"], {"training.scale": 0.01})
    with pytest.raises(BadInput, match="at most 1 chapters"):
        resolve(config, stand_in(config), 2)
