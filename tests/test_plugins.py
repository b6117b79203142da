"""Names of one's own: found, refused with a message, recorded, and shipped by value."""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import json
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from ffdask import datasets
from ffdask.config import Config, load
from ffdask.errors import BadInput
from ffdask.negatives import Kind
from ffdask.objectives import Paired, Scored
from ffdask.objectives.classifier import classifier
from ffdask.objectives.goodness import goodness
from ffdask.plugins import Own, entry_of, negatives_of, objective_of, resolve_name
from ffdask.resolved import resolve
from ffdask.schedules.all_layers import all_layers
from ffdask.shipping import MOST_BYTES, Shipped, is_local, ship

_numbers = itertools.count()


def my_loss(positive, negative, threshold):
    loss, derivative = goodness(positive, negative, threshold)
    return 2 * loss, 2 * derivative


def my_draw(generator, labels, classes, scores):
    return ((labels + 1) % classes).astype(np.uint8)


def my_schedule(plan):
    yield from all_layers(plan)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the working folder, under a name that no other test took; return the name."""
    monkeypatch.chdir(tmp_path)

    def write(text, folder=tmp_path):
        name = f"own_module_{next(_numbers)}"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        return name

    yield write
    for name in [known for known in sys.modules if known.startswith("own_module_")]:
        del sys.modules[name]


def test_a_name_is_found_in_the_working_folder_and_beside_the_graph_file(module, tmp_path):
    here, there = module("def f(): return 1"), module("class A:\n  def f(): return 2", tmp_path / "graphs")
    before = list(sys.path)
    assert resolve_name(f"{here}:f")() == 1
    assert resolve_name(f"{there}:A.f", tmp_path / "graphs")() == 2
    assert resolve_name("ffdask.objectives.goodness:goodness") is goodness
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "no_such_module_at_all:f", "there is no module no_such_module_at_all installed or in"),
        ("", "{}:f", "has no 'f'"),
        ("def alternate(): pass", "{}:alternating", "has no 'alternating' (did you mean 'alternate'?)"),
        ("import no_such_dependency", "{}:f", "raised ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("1/0", "{}:f", "raised ZeroDivisionError: division by zero (own_module_"),
        ("def f(:", "{}:f", "raised SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "{}:f", "raised SystemExit: 3"),
        ("", "own/file.py:f", "a name of one's own is package.module:function"),
        ("", "{}:", "a name of one's own is package.module:function"),
        ("f = 3", "{}:f", "given a int, which is no function"),
        ("class f: pass", "{}:f", "given a type, which is no function"),
    ],
)
@pytest.mark.parametrize("key", ["network.objective", "network.negatives", "schedule.name"])
def test_what_cannot_be_found_is_one_message(module, key, text, name, says):
    given = name.format(module(text))
    with pytest.raises(BadInput) as caught:
        load(None, {key: given})
    message = str(caught.value)
    assert message.startswith(f"{key}: ")
    assert given in message
    assert says in message
    assert "\n" not in message


def test_a_module_of_the_same_name_elsewhere_is_not_taken_for_it(module, tmp_path):
    name = module("f = len", tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / f"{name}.py").write_text("f = max")
    assert resolve_name(f"{name}:f", tmp_path / "a") is len
    assert resolve_name(f"{name}:f", tmp_path / "a") is len
    with pytest.raises(BadInput, match=r"is in this process already, from .*rename one"):
        resolve_name(f"{name}:f", tmp_path / "b")


def test_the_objects_themselves_go_for_names():
    config = load(None, {"network.objective": my_loss, "network.negatives": my_draw, "schedule.name": my_schedule})
    assert str(config.network.objective).endswith("test_plugins:my_loss")
    assert objective_of(config.network.objective) == Paired(my_loss)
    assert negatives_of(config.network.negatives) == Kind(my_draw, reads="probabilities")
    assert config.network.classifier == "softmax"
    assert not entry_of(config.schedule.name).by_visit
    assert entry_of(config.schedule.name).nodes(3, 2) == 2
    assert config.network.objective.sha256 == hashlib.sha256(inspect.getsource(my_loss).encode()).hexdigest()
    tables = config.tables()
    assert json.loads(json.dumps(tables)) == tables
    assert type(tables["schedule"]["name"]) is str
    assert copy.deepcopy(config) == config
    assert hash(config) == hash(load(None, tables_of(config)))


def tables_of(config: Config) -> dict[str, object]:
    return {
        f"{table}.{key}": value
        for table, part in vars(config).items()
        if not table.startswith("__")
        for key, value in vars(part).items()
        if value is not None and not key.startswith("__")
    }


def test_a_config_made_directly_finds_names_too(module):
    from ffdask.tables import ScheduleTable

    name = f"{module('def steps(plan): yield')}:steps"
    table = ScheduleTable(name=name)
    assert isinstance(table.name, Own)
    assert Config(schedule=table).schedule.name == name


def test_two_definitions_of_one_name_are_not_equal():
    def first():
        def loss(positive, negative, threshold):
            return goodness(positive, negative, threshold)

        return loss

    def second():
        def loss(positive, negative, threshold):
            return goodness(positive, negative, 2 * threshold)

        return loss

    a, b = first(), second()
    a.__qualname__ = b.__qualname__ = "loss"
    assert load(None, {"network.objective": a}) == load(None, {"network.objective": a})
    assert load(None, {"network.objective": a}) != load(None, {"network.objective": b})


def test_what_goes_with_an_objective_of_ones_own_is_by_its_kind():
    scored = load(None, {"network.objective": Scored(lambda logits, labels: classifier(logits, labels))})
    assert (scored.network.negatives, scored.network.classifier) == ("none", "all-heads")
    paired = load(None, {"network.objective": my_loss, "network.negatives": "adaptive"})
    assert (paired.network.negatives, paired.network.classifier) == ("adaptive", "softmax")
    for keys in (
        {"network.objective": Scored(classifier), "network.negatives": my_draw},
        {"network.objective": "classifier", "network.negatives": my_draw},
        {"network.objective": my_loss, "network.negatives": "none"},
        {"network.objective": my_loss, "network.classifier": "all-heads"},
    ):
        with pytest.raises(BadInput, match="do not go together"):
            load(None, keys)


def _raise(*given):
    raise ValueError("not\ntoday")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("network.objective", lambda p, n, t: 3.0, "must return .loss, derivative .12,.. for 6 rows; it returned a fl"),
        ("network.objective", lambda p, n, t: (np.nan, p), "its loss was nan"),
        ("network.objective", lambda p, n, t: (1.0, p), r"its derivative was \(\(6,\), 'float32'\)"),
        ("network.objective", lambda p, n, t: (1.0, np.ones(12)), r"of the inputs' dtype float32; .*'float64'"),
        ("network.objective", lambda p, n: (1.0, p), r"raised TypeError: .* takes 2 positional arguments but 3"),
        ("network.objective", _raise, r"raised ValueError: not today \(test_plugins.py:\d+\)"),
        ("network.objective", Scored(lambda z, y: (1.0, z[0])), r"derivative \(6, 10\)\) for 6 rows"),
        ("network.negatives", lambda g, y, c, s: y, "6 wrong labels, uint8.* for the labels"),
        ("network.negatives", lambda g, y, c, s: (y + 1) % c + 0.5, "it returned .*float"),
        ("network.negatives", Kind(my_draw, reads="tea leaves"), "reads 'tea leaves'; a kind of negatives reads noth"),
    ],
)
def test_a_function_that_returns_what_cannot_be_used_is_refused(key, value, says):
    with pytest.raises(BadInput, match=says):
        load(None, {key: value})


@pytest.mark.parametrize(
    ("attribute", "value", "says"), [("by_visit", "yes", "must be True"), ("nodes", 3, "must be callable")]
)
def test_a_schedules_attributes_are_checked(attribute, value, says):
    def steps(plan):
        yield

    setattr(steps, attribute, value)
    with pytest.raises(BadInput, match=f"{attribute}: given .*{says}"):
        load(None, {"schedule.name": steps})


def test_only_what_is_not_installed_is_local(module, tmp_path):
    name = module("")
    resolve_name(f"{name}:__name__")
    assert is_local(name, sys.modules[name])
    assert not any(is_local(known, sys.modules[known]) for known in ("numpy", "json", "pytest", "ffdask.shipping"))
    assert not any(is_local(known, sys.modules[known]) for known in ("sys", "__main__"))


def test_a_local_function_travels_with_its_helpers_and_an_installed_one_by_name(module, tmp_path, monkeypatch):
    helper = module("FACTOR = 3\ndef times(x): return FACTOR * x")
    name = module(f"import {helper}\ndef f(x): return {helper}.times(x)")
    shipped = ship(resolve_name(f"{name}:f"), "f")
    packages = tmp_path / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed_here.py").write_text("def f(x): return x")
    monkeypatch.syspath_prepend(packages)
    by_name = ship(resolve_name("installed_here:f"), "f")
    assert len(by_name.payload) < 100
    (tmp_path / "shipped").write_bytes(pickle.dumps((shipped, by_name)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import pickle, sys; shipped, by_name = pickle.load(open('../shipped', 'rb')); print(shipped(7), shipped(8))\n"
        "try: by_name(1)\nexcept ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["21 24", "No module named 'installed_here'"]


def test_what_cannot_travel_or_is_too_large_is_refused():
    lock, table = threading.Lock(), np.zeros(MOST_BYTES)
    with pytest.raises(BadInput, match=r"it cannot be sent to workers: TypeError: cannot pickle '_thread\.lock'"):
        ship(lambda: lock, "it")
    with pytest.raises(BadInput, match=r"it takes 8\.0 MiB along to every step"):
        ship(lambda: table, "it")


def test_a_shipped_function_is_as_it_was(module):
    factor = [2]
    shipped = ship(lambda x: factor[0] * x, "it")
    factor[0] = 5
    assert shipped(3) == 6
    assert pickle.loads(pickle.dumps(shipped)) == shipped


def test_a_job_of_ones_own_is_small_and_plain_to_pickle(tiny):
    keys = {"data.dataset": str(tiny), "data.chunk": 100, "training.batch_size": 20}
    config = load(None, keys | {"network.objective": my_loss, "network.negatives": my_draw})
    job = resolve(config, datasets.describe(str(tiny)), 2).job
    assert isinstance(job.objective_of.loss, Shipped)
    assert job.copies == 2
    assert len(pickle.dumps(job)) < 6000
    again = pickle.loads(pickle.dumps(job))
    assert again == job
    positive, negative = np.ones((2, 4), np.float32)
    assert again.objective_of.loss(positive, negative, 2.0)[0] == my_loss(positive, negative, 2.0)[0]
