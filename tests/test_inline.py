"""Whole runs in this thread: the rules of dependency held to plain loops, and to each other, bit for bit."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import plain
import pytest
import standin
from device_host import COMPILER, LACKING
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import Loop

from ffdask import inline, machine
from ffdask.calendar import Calendar
from ffdask.config import ALLOWED, load
from ffdask.datasets import Dataset
from ffdask.head import HeadRecipe
from ffdask.inline import train_inline
from ffdask.job import Data, Job
from ffdask.kernels import BACKENDS, DEVICE, named
from ffdask.layer import LayerRecipe, Optimizer
from ffdask.objectives import OBJECTIVES, Paired
from ffdask.resident import moved
from ffdask.resolved import resolve
from ffdask.schedules import SCHEDULES
from ffdask.schedules.evaluated import evaluated
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.steps import Plan


@pytest.fixture(autouse=True)
def _one_thread():
    machine.hold_one_thread()
    yield
    machine.let_go()


def rows(n, seed=0, side=6, classes=10):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n).astype(np.uint8)
    images = random.integers(0, 60, (n, side, side)).astype(np.uint8)
    images[np.arange(n), 2 + labels // 5, labels % 5] = 255
    return images, labels


def resolved_of(name, widths=(20, 30), n=90, chunk=40, batch=15, epochs=3, chapters=4, nodes=2, staleness=1, **changed):
    """A run on made-up rows: `n` to train on, and those that are held out."""
    keys = {
        "schedule.name": name,
        "network.layers": list(widths),
        "data.chunk": chunk,
        "training.batch_size": batch,
        "training.epochs": epochs,
        "schedule.chapters": chapters,
        "schedule.nodes": nodes,
        "schedule.staleness": staleness,
        "training.seed": 3,
        "training.shift": 0,
        "optimizer.learning_rate": 0.02,
    }
    keys |= {KEYS[key]: value for key, value in changed.items() if value is not None}
    total = n + changed.get("validation", 0)
    return resolve(load(None, keys), Dataset("made", "/nowhere", "0" * 64, total, 10, (6, 6), 10, "made up"), 2)


kernels = named(BACKENDS[0])
KEYS = {
    "seed": "training.seed",
    "shift": "training.shift",
    "optimizer": "optimizer.name",
    "objective": "network.objective",
    "negatives": "network.negatives",
    "classifier": "network.classifier",
    "candidates": "network.candidates",
    "overlay": "data.overlay",
    "validation": "data.validation",
    "dropout": "layer.dropout",
    "exchange": "schedule.exchange",
}
TRIPLES = [(name, *pair) for name, parts in ALLOWED.items() for pair in itertools.product(*parts)]
NAMES = ["-".join(triple) for triple in TRIPLES]


def run(name, widths=(20, 30), n=90, **keys):
    resolved = resolved_of(name, widths, n, **keys)
    calendar = resolved.plan.calendar
    data = Data.of(calendar, rows(n + calendar.validation), lambda: rows(10))
    return train_inline(resolved.job, resolved.plan, resolved.entry.steps, data)


def loop(widths, n=90, chunk=40, batch=15, epochs=3, staleness=1, seed=3, **keys):
    images, labels = rows(n + keys.get("validation", 0))
    return Loop(images, labels, widths, chunk, batch, epochs, staleness, seed, **keys)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("widths", [(20,), (20, 30), (16, 24, 8)])
def test_streaming_is_the_original_loop_bit_for_bit(widths, shift):
    network, _ = run("streaming", widths, nodes=len(widths), staleness=2, shift=shift)
    loop(widths, staleness=2, shift=shift).streaming().same_as(network)


CHANGES = {
    "plain": {},
    "one layer": {"widths": (20,), "staleness": 0},
    "three layers": {"widths": (16, 24, 8), "staleness": 3, "shift": 1},
    "all that changes rows": {"dropout": 0.3, "shift": 1, "overlay": "append", "validation": 20},
}
changes = pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
triples = pytest.mark.parametrize(("objective", "negatives", "classifier"), TRIPLES, ids=NAMES)


@changes
@triples
def test_streaming_is_the_original_loop_whatever_the_objective(objective, negatives, classifier, changed):
    keys = {"widths": (20, 30), "objective": objective, "negatives": negatives, "classifier": classifier} | changed
    network, _ = run("streaming", **keys)
    loop(**keys).streaming().same_as(network)


@changes
@triples
def test_the_chapter_rule_is_a_plain_loop_whatever_the_objective(objective, negatives, classifier, changed):
    keys = {"widths": (20, 30), "objective": objective, "negatives": negatives, "classifier": classifier} | changed
    network, _ = run("all-layers", chapters=5, **keys)
    loop(**keys).chapters(5).same_as(network)


@pytest.mark.parametrize("candidates", [1, 3, 8])
def test_few_candidates_are_the_likeliest_of_layer_one(candidates):
    keys = {"widths": (20, 30, 10), "negatives": "adaptive", "classifier": "goodness", "candidates": candidates}
    loop(**keys).streaming().same_as(run("streaming", **keys)[0])
    loop(**keys).chapters(4).same_as(run("sequential", **keys)[0])


configurations = st.fixed_dictionaries(
    {
        "widths": st.lists(st.integers(3, 24), min_size=1, max_size=4).map(tuple),
        "n": st.integers(30, 90),
        "chunk": st.integers(15, 60),
        "epochs": st.integers(1, 3),
        "staleness": st.integers(0, 4),
        "optimizer": st.sampled_from(["momentum", "adam"]),
        "shift": st.integers(0, 1),
        "seed": st.integers(0, 2**40),
        "overlay": st.sampled_from(["replace", "append"]),
        "dropout": st.sampled_from([0.0, 0.0, 0.4]),
        "validation": st.sampled_from([0, 0, 12]),
    }
)


def with_triple(same, triple, data):
    objective, negatives, classifier = triple
    same = same | {"objective": objective, "negatives": negatives, "classifier": classifier}
    if (negatives, classifier) == ("adaptive", "goodness"):
        same["candidates"] = data.draw(st.sampled_from([None, 2, 20]))
    return same


@settings(max_examples=100, deadline=None)
@given(configurations, st.sampled_from(TRIPLES), st.data())
def test_sequential_single_layer_and_all_layers_give_one_digest(same, triple, data):
    same = with_triple(same, triple, data)
    same["chapters"] = data.draw(st.integers(1, same["epochs"] * -(-same["n"] // same["chunk"])))
    base, _ = run("sequential", nodes=1, **same)
    for name in ("single-layer", "all-layers"):
        other, _ = run(name, nodes=data.draw(st.integers(1, 6)), **same)
        assert other.sha256() == base.sha256()


@settings(max_examples=80, deadline=None)
@given(configurations, st.sampled_from(TRIPLES), st.data())
def test_streaming_by_chunk_and_by_batch_give_one_digest(same, triple, data):
    same = with_triple(same, triple, data) | {"chapters": 1}
    base, _ = run("streaming", nodes=1, **same)
    for exchange in ("chunk", "batch"):
        other, _ = run("streaming", nodes=data.draw(st.integers(1, 6)), exchange=exchange, **same)
        assert other.sha256() == base.sha256()


def test_a_push_from_pixels_has_the_bits_of_one_that_goes_on():
    """Lost activations are pushed again from pixels: placing each layer elsewhere must change no bit."""
    from ffdask.schedules.rules import Newest, chapter_steps

    def by_layer(plan):
        newest = Newest()
        for chapter in range(plan.rounds):
            yield from chapter_steps(plan, lambda layer, chapter: (layer - 1) % plan.nodes, chapter, newest)

    entry = SCHEDULES["sequential"]
    calendar = Calendar(90, 40, 15, 3, 4, False, 3)
    job = Job(36, (20, 30, 25), 10, calendar, LayerRecipe(), Optimizer(), HeadRecipe(), "goodness", "sampled")
    plan = Plan(3, 3, calendar, 1, True, True)
    data = Data.of(calendar, rows(90), lambda: rows(10))
    assert train_inline(job, plan, by_layer, data)[0].sha256() == train_inline(job, plan, entry.steps, data)[0].sha256()


def test_another_seed_differs_and_the_same_one_does_not():
    digests = [run("streaming", seed=seed)[0].sha256() for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_staleness_is_part_of_the_result():
    assert run("sequential", staleness=0)[0].sha256() != run("sequential", staleness=3)[0].sha256()


def test_without_readers_no_head_is_trained():
    network, records = run("streaming", negatives="random", classifier="goodness")
    assert network.head is None
    assert not any(record["rows"] == 0 for record in records.values())
    assert not any(name.startswith("head") for name in records)


LEARNING = {"n": 400, "chunk": 100, "epochs": 12, "chapters": 12, "nodes": 2}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_it_learns(name):
    network, records = run(name, (60, 60), **LEARNING)
    images, labels = rows(200, seed=9)
    for answers in ("softmax", "goodness"):
        assert network.errors(images, labels, answers, kernels) < 0.3 * len(labels)
    losses = [record["loss"] for key, record in records.items() if key.startswith("train_layer2")]
    assert losses[-1] < losses[0]


@triples
def test_every_triple_learns(objective, negatives, classifier):
    keys = {"objective": objective, "negatives": negatives, "classifier": classifier}
    network, records = run("streaming", (60, 60), **LEARNING, **keys)
    images, labels = rows(200, seed=9)
    # Pairs alone, compared sharply, leave goodness less to answer by.
    most = 0.5 if objective == "symba" else 0.35
    assert network.errors(images, labels, classifier, kernels) < most * len(labels)
    for layer in (1, 2):
        losses = [record["loss"] for key, record in records.items() if key.startswith(f"train_layer{layer}")]
        assert losses[-1] < losses[0]


def test_another_objective_is_one_function_and_one_line(monkeypatch):
    """A hinge on the pair's difference, written here."""

    def hinge(positive, negative, threshold):
        missing = np.maximum(threshold - (positive - negative), 0)
        slope = (missing > 0) / len(positive)
        return float(missing.mean()), np.concatenate([-slope, slope]).astype(positive.dtype)

    monkeypatch.setitem(OBJECTIVES, "hinge", Paired(hinge, by_threshold=False))
    monkeypatch.setitem(ALLOWED, "hinge", (("random",), ("softmax",)))
    network, records = run("all-layers", (60, 60), objective="hinge", **LEARNING)
    images, labels = rows(200, seed=9)
    assert network.errors(images, labels, "softmax", kernels) < 0.3 * len(labels)
    losses = [record["loss"] for key, record in records.items() if key.startswith("train_layer1")]
    assert losses[-1] < losses[0]
    assert run("all-layers", (60, 60), negatives="random", **LEARNING)[0].sha256() != network.sha256()


# --- rows that are held out


def test_rows_held_out_are_looked_at_and_never_trained_on():
    """Spoilt images in the rows that are held out: training does not see them, the look at them does."""
    keys = {"chunk": 30, "validation": 25, "nodes": 1}
    resolved = resolved_of("sequential", **keys)
    calendar, (images, labels) = resolved.plan.calendar, rows(115)
    spoilt = images.copy()
    spoilt[calendar.held_out()] = 255 - spoilt[calendar.held_out()]
    looks, digests = [], []
    for each in (images, spoilt):
        data = Data.of(calendar, (each, labels), lambda: pytest.fail("the test set was looked at"))
        network, records = train_inline(resolved.job, resolved.plan, evaluated(resolved.entry.steps, 4), data)
        digests.append(network.sha256())
        (look,) = [record for name, record in records.items() if name.startswith("evaluate")]
        assert look["rows"] == 25
        held = calendar.held_out()
        for name in ("softmax", "goodness"):
            assert look[f"validation_errors_{name}"] == network.errors(each[held], labels[held], name, kernels)
        looks.append(look)
    assert digests[0] == digests[1]
    assert looks[0] != looks[1]
    trained = sum(record["rows"] for name, record in records.items() if name.startswith("train_layer1"))
    assert trained == 3 * 90


def test_without_rows_held_out_the_test_set_is_looked_at():
    resolved = resolved_of("streaming")
    test = rows(10, seed=4)
    data = Data.of(resolved.plan.calendar, rows(90), lambda: test)
    network, records = train_inline(resolved.job, resolved.plan, evaluated(resolved.entry.steps, 2), data)
    looks = [record for name, record in records.items() if name.startswith("evaluate")]
    assert [set(look) for look in looks] == [{"rows", "test_errors_softmax", "test_errors_goodness"}] * 2
    assert looks[-1]["test_errors_softmax"] == network.errors(*test, "softmax", kernels)


# --- dropout


def test_dropout_changes_training_and_nothing_is_dropped_afterwards():
    network, _ = run("streaming", dropout=0.5)
    assert network.sha256() != run("streaming")[0].sha256()
    images = rows(5, seed=2)[0]
    for image, found in zip(images, network.scores(images, "softmax", kernels), strict=True):
        *_, (activities, _) = plain.climb(plain.row(image, None, 10), network.states)
        np.testing.assert_allclose(found, plain.softmax(activities @ network.head.weights), rtol=1e-3)


def test_neutral_rows_are_not_dropped():
    """What streaming hands to the head is of full length: each row's RMS is 1."""
    resolved = resolved_of("streaming", dropout=0.5, n=40, chapters=1)
    seen = {"activities": [], "neutral": []}

    class Spy(Ledger):
        def put(self, step, outcome):
            super().put(step, outcome)
            for piece in seen.keys() & set(step.gives):
                seen[piece] += outcome[piece]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffdask.inline.Ledger", Spy)
        data = Data.of(resolved.plan.calendar, rows(40), lambda: rows(10))
        train_inline(resolved.job, resolved.plan, resolved.entry.steps, data)
    rms = {piece: np.sqrt((np.concatenate(arrays[:1]) ** 2).mean(axis=1)) for piece, arrays in seen.items()}
    np.testing.assert_allclose(rms["neutral"], 1, rtol=1e-4)
    assert np.abs(rms["activities"] - 1).max() > 0.1
    dropped = [(array == 0).mean() for array in seen["activities"]]
    kept = [(array == 0).mean() for array in seen["neutral"]]
    assert min(dropped) > max(kept) + 0.1


# --- what is kept alive


def bytes_of(value, seen):
    """The bytes of every array that can be reached from a value, each counted once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return bytes_of(value.base, seen) if isinstance(value.base, np.ndarray) else value.nbytes
    if isinstance(value, dict):
        return sum(bytes_of(part, seen) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(bytes_of(part, seen) for part in value)
    return sum(bytes_of(array, seen) for array in value.arrays().values()) if hasattr(value, "arrays") else 0


@pytest.mark.parametrize("negatives", ["sampled", "random", "adaptive"])
def test_what_is_kept_does_not_grow_with_the_number_of_minibatches(monkeypatch, negatives):
    peaks = {}

    class Spy(Ledger):
        def open(self, *args):
            super().open(*args)
            seen = set()
            kept = sum(bytes_of(value, seen) for _, value in self._kept.values())
            peaks[batch] = max(peaks.get(batch, 0), kept + sum(bytes_of(value, seen) for value in self.newest.values()))

    monkeypatch.setattr("ffdask.inline.Ledger", Spy)
    for batch in (40, 8, 2):
        run("streaming", n=120, batch=batch, exchange="batch", negatives=negatives)
    assert peaks[2] <= peaks[8] <= peaks[40]


def test_the_ledger_forgets_activities_with_their_minibatch():
    resolved = resolved_of("streaming", exchange="batch")
    ledger, plan, held = Ledger(resolved.plan), resolved.plan, []
    for step in resolved.entry.steps(plan):
        ledger.open(step.round, step.part or 0)
        for need in step.needs.values():
            assert ledger.get(need) is not None
        held.append(sum(need.piece in ("activities", "neutral") for need in ledger._kept))
        ledger.put(step, object())
    assert plan.parts(0) == (0, 1, 2)
    # Of one minibatch: layer one's activities, and what both layers give the head.
    assert max(held) == 3


def test_a_layer_may_rest_for_as_many_chapters_as_a_schedule_likes():
    """Its newest state is kept, however old: greedy and frozen layers can be written as schedules."""
    from ffdask.schedules.rules import Newest, negatives, push, train

    def greedy(plan):
        newest = Newest()
        for chapter in range(plan.rounds):
            layer = 1 if chapter < plan.rounds - 1 and chapter != 1 else 2
            newest.begin(chapter, plan)
            labels = negatives(plan, chapter, 0, newest)
            yield labels
            below = push(plan, chapter, layer, 0, newest, labels, None) if layer == 2 else None
            if below:
                yield below
            step = train(plan, chapter, layer, 0, newest, labels, below)
            newest[layer] = step.name
            yield step

    calendar = Calendar(90, 40, 15, 3, 9, False, 3)
    job = Job(36, (20, 30), 10, calendar, LayerRecipe(), Optimizer(), HeadRecipe(), "goodness", "random")
    plan = Plan(2, 1, calendar, 0, False, False)
    network, records = train_inline(job, plan, greedy, Data.of(calendar, rows(90), lambda: rows(10)))
    assert [name for name in records if name.startswith("train_layer2")] == [
        "train_layer2-chapter001",
        "train_layer2-chapter008",
    ]
    batches = [sum(-(-r["rows"] // 15) for n, r in records.items() if n.startswith(f"train_layer{i}")) for i in (1, 2)]
    assert [state.steps for state in network.states] == batches


# --- some nodes a GPU's: the stand-in's


def mixed(rule, gpu_nodes, watch=lambda step, record: None, **keys):
    resolved = resolved_of(rule, **keys)
    data = Data.of(resolved.plan.calendar, rows(90), lambda: rows(10))
    job = replace(resolved.job, gpu_nodes=gpu_nodes)
    return train_inline(job, resolved.plan, evaluated(resolved.entry.steps, 2), data, watch)


@pytest.mark.skipif(not COMPILER, reason=LACKING)
@pytest.mark.parametrize("rule", ["streaming", "all-layers"])
@pytest.mark.parametrize("negatives", [("sampled", "softmax"), ("adaptive", "goodness")])
def test_each_node_computes_where_the_configuration_says(monkeypatch, rule, negatives):
    seen, perform = [], inline.perform

    def watched(job, step, inputs, data):
        outcome = perform(job, step, inputs, data)
        arrays = []
        moved([value for piece, value in outcome.items() if piece in ("state", "activities")], arrays.append)
        seen.extend((step.node, type(array) is np.ndarray) for array in arrays)
        return outcome

    monkeypatch.setattr(inline, "perform", watched)
    keys = {"nodes": 3, "widths": (20, 30, 16), "negatives": negatives[0], "classifier": negatives[1], "dropout": 0.2}
    here, records = mixed(rule, (), **keys)
    assert {on_host for _, on_host in seen} == {True}
    with standin.in_the_place_of_cupy():
        seen.clear()
        found, others = mixed(rule, (0, 2), **keys)
        assert set(seen) == {(0, False), (1, True), (2, False)}
        digests = {mixed(rule, nodes, **keys)[0].sha256() for nodes in [(0, 2), (0, 2), (1,), (0, 1, 2)]}
    # The same nodes, the same bits; others have others.
    assert (len(digests), found.sha256() in digests, here.sha256() in digests) == (3, True, False)
    assert records.keys() == others.keys()
    for one, two in zip(here.states, found.states, strict=True):
        for name, array in one.arrays().items():
            assert type(two.arrays()[name]) is np.ndarray
            np.testing.assert_allclose(two.arrays()[name], array, rtol=1e-3, atol=5e-6, err_msg=name)


@pytest.mark.skipif(not COMPILER, reason=LACKING)
def test_all_nodes_a_gpus_are_a_run_on_gpus():
    with standin.in_the_place_of_cupy():
        resolved = resolved_of("all-layers", nodes=2)
        data = Data.of(resolved.plan.calendar, rows(90), lambda: rows(10))
        job = replace(resolved.job, kernels=DEVICE)
        expected, _ = train_inline(job, resolved.plan, evaluated(resolved.entry.steps, 2), data)
        assert mixed("all-layers", (0, 1), nodes=2)[0].sha256() == expected.sha256()
