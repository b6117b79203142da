"""The backend of a GPU without one: its kernels compiled for GPUs, and run on the host; whole runs on a stand-in."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import replace
from pathlib import Path

import device_host
import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inline import TRIPLES, resolved_of, rows

from ffdask import machine
from ffdask.augment import drawn, shifted
from ffdask.inline import train_inline
from ffdask.job import Data
from ffdask.kernels import DEVICE, named, reference
from ffdask.layer import LayerState
from ffdask.objectives import Paired
from ffdask.objectives.goodness import goodness
from ffdask.resident import on_device
from ffdask.schedules.evaluated import evaluated
from ffdask.work import perform

LACKING = "CuPy is not installed: pip install '.[test-gpu]'"
pytestmark = pytest.mark.skipif(not device_host.COMPILER, reason=device_host.LACKING)
NAMES = sorted(device_host.parameters("float"))


@pytest.fixture(autouse=True)
def _one_thread():
    machine.hold_one_thread()
    yield
    machine.let_go()


# --- compiled for GPUs


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_every_kernel_compiles_for_the_gpu(architecture, real):
    """By NVIDIA's own compiler, which needs neither a GPU nor its driver."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason=LACKING)
    program = nvrtc.createProgram(device_host.TEXT.read_text(), "device.cu", [], [])
    nvrtc.compileProgram(program, ("--std=c++17", f"-DREAL={real}", f"-arch=sm_{architecture}"))
    assert "warning" not in nvrtc.getProgramLog(program)
    assert nvrtc.getCUBIN(program)[:4] == b"\x7fELF"
    text = nvrtc.getPTX(program).decode()
    assert sorted(re.findall(r"\.entry (\w+)\(", text)) == NAMES
    shared = [int(size) for size in re.findall(r"\.shared .*?\[(\d+)\]", text)]
    assert 0 < sum(shared) <= 48 << 10, "more shared memory than a block may have"


def test_the_compiler_is_told_what_the_tests_tell_it():
    with standin.in_the_place_of_cupy():
        launches = importlib.import_module("ffdask.kernels.launches")
        assert launches.source() == device_host.TEXT.read_text()
        assert launches.options(np.dtype("float32")) == ("--std=c++17", "-DREAL=float")
        assert launches.options(np.dtype("float64")) == ("--std=c++17", "-DREAL=double")


# --- executed on the host


class Wide(standin.OnTheHost):
    """Blocks of as many threads as there are columns side by side, in several lanes."""

    BLOCKS, THREADS = 2, 64


@pytest.mark.parametrize("width", [1, 31, 33, 70])
def test_blocks_of_many_threads_add_up_right(width):
    rng, n = np.random.default_rng(width), 5
    z, dh = (rng.standard_normal((2 * n, width), dtype=np.float32) for _ in range(2))
    row, each = rng.standard_normal(width, dtype=np.float32), rng.random(2 * n, dtype=np.float32)
    objective, labels = Paired(goodness, device="pairs_goodness"), rng.integers(0, 4, 2 * n).astype(np.uint8)
    images, values = rng.integers(0, 256, (n, width)).astype(np.uint8), np.empty((n, width), np.float32)
    found = []
    for kernels in (reference, Wide()):
        y, squares = kernels.activate(z.copy(), row)
        each_of = [y.copy(), squares, kernels.scale(images, values, 0), kernels.pull(row, 0.5)]
        each_of += [kernels.running(row, y, 0.9), *kernels.pairs(objective, squares, width, 1.0, False)]
        each_of += [*kernels.fold(z, 1 + each, labels, 4)]
        each_of += [array.copy() for array in kernels.derivative_below(dh.copy(), y, squares, row)]
        found.append([*each_of, *kernels.derivative(y, each, row)])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(
    n=st.integers(1, 5), height=st.integers(1, 6), width=st.integers(1, 6), channels=st.integers(0, 3),
    pixels=st.integers(0, 2), floats=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_rows_are_gathered_and_shifted_as_on_the_host(n, height, width, channels, pixels, floats, seed):
    rng = np.random.default_rng(seed)
    shape = (7, height, width, *([channels] if channels else []))
    images = rng.integers(0, 256, shape).astype(np.float32 if floats else np.uint8)
    which = rng.integers(0, 7, n)
    shifts = drawn(n, pixels, np.random.default_rng(seed + 1))
    with standin.in_the_place_of_cupy(), standin.launches(3, 4):
        found = named(DEVICE).gatherer(images)(which, shifts).get()
    np.testing.assert_array_equal(found, shifted(images[which], pixels, np.random.default_rng(seed + 1)))


def test_vectors_are_gathered_too():
    vectors, which = np.random.default_rng(0).random((6, 5), np.float32), np.array([5, 0, 0])
    with standin.in_the_place_of_cupy():
        found = named(DEVICE).gatherer(vectors)(which, drawn(3, 0, np.random.default_rng(0)))
    np.testing.assert_array_equal(found.get(), vectors[which])


def test_a_data_set_is_brought_to_the_device_once_and_only_if_there_is_room(monkeypatch):
    images = [np.full((9, 2, 2), number, np.uint8) for number in range(3)]
    which, shifts = np.array([1, 2]), np.zeros((2, 2), np.int64)
    with standin.in_the_place_of_cupy():
        sets, gather = importlib.import_module("ffdask.kernels.uploaded"), named(DEVICE).gatherer
        uploads = []
        monkeypatch.setattr(sets.cupy, "asarray", lambda a: uploads.append(a.shape) or standin.asarray(a))
        for _ in range(3):
            assert gather(images[0])(which, shifts).get().tolist() == images[0][:2].tolist()
        assert uploads.count((9, 2, 2)) == 1
        assert gather(images[1])(which, shifts).get().tolist() == images[1][:2].tolist()
        assert gather(images[2])(which, shifts).get().tolist() == images[2][:2].tolist()
        assert len(sets._sets) == sets.MOST_SETS
        monkeypatch.setitem(vars(standin.module.cuda.runtime), "memGetInfo", lambda: (71, 1 << 34))
        assert gather(images[0]) is None
        assert gather(images[2]) is not None, "what is there needs no room"
        assert gather(np.zeros((9, 2, 2), np.int16)) is None


def test_without_room_rows_come_by_way_of_the_host(monkeypatch):
    expected, found, _ = on_both("streaming", shift=1)
    monkeypatch.setitem(vars(standin.module.cuda.runtime), "memGetInfo", lambda: (0, 1 << 34))
    _, by_host, _ = on_both("streaming", shift=1)
    assert by_host[0].sha256() == found[0].sha256()
    assert_alike(expected, found)


EXTREME = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-30, -1e-30, 1e18, np.inf, -np.inf, np.nan])


@settings(max_examples=60)
@given(st.lists(EXTREME, min_size=12, max_size=12), st.lists(EXTREME, min_size=3, max_size=3))
def test_float32_kernels_keep_nan_infinity_and_extremes(values, more):
    found = []
    for kernels in (reference, standin.OnTheHost()):
        with np.errstate(all="ignore"):
            z, row = np.array(values, np.float32).reshape(4, 3), np.array(more, np.float32)
            y, squares = kernels.activate(z.copy(), row)
            each = [y.copy(), squares, kernels.normalise(y, squares), kernels.running(row, z, 0.9)]
            each += kernels.derivative(y.copy(), squares, row)
            weights, first, second = z.copy(), np.ones_like(z), np.ones_like(z)
            kernels.adam(weights, (first, second), y.copy(), 0.1, 2, 0.01)
            found.append([*each, weights, first, second])
    for one, other in zip(*found, strict=True):
        finite = np.isfinite(one)
        np.testing.assert_array_equal(finite, np.isfinite(other))
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        np.testing.assert_allclose(one[finite], other[finite], rtol=1e-5, atol=1e-6)


# --- whole runs on the stand-in


def trained(kernels, rule, precision="float32", own=None, watch=lambda step, record: None, **keys):
    resolved = resolved_of(rule, **keys)
    calendar = resolved.plan.calendar
    data = Data.of(calendar, rows(90 + calendar.validation), lambda: rows(10))
    job = replace(resolved.job, kernels=kernels, precision=precision)
    if own is not None:
        job = replace(job, objective=own)
    schedule = evaluated(resolved.entry.steps, 2)
    return train_inline(job, resolved.plan, schedule, data, watch)


def on_both(rule, **keys):
    """A run by NumPy and one on the stand-in: networks, and records by the step's name."""
    expected = trained("numpy", rule, **keys)
    with standin.in_the_place_of_cupy():
        found = trained(DEVICE, rule, **keys)
        waits = dict(standin.waits)
    return expected, found, waits


def parts(network):
    return [*network.states, *([network.head] if network.head else [])]


def assert_alike(expected, found, atol=5e-6):
    (network, records), (other, others) = expected, found
    for one, two in zip(parts(network), parts(other), strict=True):
        assert one.arrays().keys() == two.arrays().keys()
        for name, array in one.arrays().items():
            assert isinstance(two.arrays()[name], np.ndarray), "a trained network is on the host"
            assert not two.arrays()[name].flags.writeable
            np.testing.assert_allclose(two.arrays()[name], array, rtol=1e-3, atol=atol, err_msg=name)
    assert [getattr(state, "steps", 0) for state in network.states] == [state.steps for state in other.states]
    assert records.keys() == others.keys()
    for name, record in records.items():
        assert others[name] == pytest.approx(record, rel=1e-3, abs=1e-5), name


CASES = {
    "plain": {},
    "adam": {"optimizer": "adam"},
    "one layer": {"widths": (20,), "staleness": 0},
    "all that changes rows": {"dropout": 0.3, "shift": 1, "overlay": "append", "validation": 20},
    "few candidates": {"negatives": "adaptive", "classifier": "goodness", "candidates": 3},
}


@pytest.mark.parametrize("rule", ["streaming", "all-layers"])
@pytest.mark.parametrize("keys", CASES.values(), ids=CASES)
def test_a_run_on_the_device_is_the_hosts_to_rounding(rule, keys):
    expected, found, waits = on_both(rule, **keys)
    assert_alike(expected, found)
    assert not [what for what in waits if what not in ("get", "synchronize")], waits


@pytest.mark.parametrize(("objective", "negatives", "classifier"), TRIPLES)
def test_whatever_the_objective(objective, negatives, classifier):
    expected, found, _ = on_both(
        "all-layers", objective=objective, negatives=negatives, classifier=classifier, dropout=0.2, shift=1
    )
    assert_alike(expected, found)


def test_an_objective_of_ones_own_is_asked_on_the_host():
    seen = []

    def own(positive, negative, threshold):
        seen.append(type(positive))
        return goodness(positive, negative, threshold)

    objective = Paired(own)
    expected = trained("numpy", "streaming", own=objective)
    with standin.in_the_place_of_cupy():
        found = trained(DEVICE, "streaming", own=objective)
    assert_alike(expected, found)
    assert set(seen) == {np.ndarray}


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_products_are_as_precise_as_was_asked(precision):
    expected = trained("numpy", "streaming", widths=(40, 48), n=90, chunk=45, batch=45)
    with standin.in_the_place_of_cupy():
        standin.products.clear()
        found = trained(DEVICE, "streaming", precision, widths=(40, 48), n=90, chunk=45, batch=45)
        kinds = dict(standin.products)
    if precision == "tf32":
        assert kinds.keys() >= {(0, 77)}
        assert_alike(expected, found)
    else:
        assert kinds.keys() >= {(14, 68), (0, 68)}, "large products of bfloat16 numbers, those of the head of float32"
        assert_alike((expected[0], {}), (found[0], {}), atol=5e-3)
        assert not np.array_equal(expected[0].states[0].weights, found[0].states[0].weights)


@pytest.mark.parametrize("rule", ["streaming", "all-layers"])
def test_a_step_waits_for_the_device_at_its_end_only(rule):
    """Once for its figures, and once for all that it has launched; whatever the number of its minibatches."""
    with standin.in_the_place_of_cupy():
        counts = {}

        def watch(step, record):
            counts.setdefault(step.kind, []).append((standin.waits["get"], standin.waits["synchronize"]))
            standin.waits.clear()

        trained(DEVICE, rule, watch=watch)
    # The first step waits once more: it has brought the data set, which others read.
    assert counts["train"].pop(0) == (1, 2)
    assert set(counts["train"]) == {(1, 1)}
    if rule == "all-layers":
        assert set(counts["push"]) == set(counts["push_head"]) == {(0, 1)}


def test_states_come_and_go_between_host_and_device():
    """A state that was trained on a processor goes on on a device, and back again."""
    states = {}
    resolved = resolved_of("sequential")
    data = Data.of(resolved.plan.calendar, rows(90), lambda: rows(10))
    step = next(step for step in resolved.entry.steps(resolved.plan) if step.kind == "train" and step.layer == 1)
    labels = [rows(90)[1][:40]] * len(step.visits)
    for kernels in ("numpy", DEVICE):
        with standin.in_the_place_of_cupy():
            outcome = perform(replace(resolved.job, kernels=kernels), step, {"labels": labels}, data)
            states[kernels] = outcome["state"]
    assert isinstance(states["numpy"], LayerState)
    assert on_device(states[DEVICE].weights)
    for kernels, start in (("numpy", states["numpy"]), (DEVICE, states["numpy"]), (DEVICE, states[DEVICE])):
        with standin.in_the_place_of_cupy():
            outcome = perform(replace(resolved.job, kernels=kernels), step, {"labels": labels, "state": start}, data)
        states[kernels, start is states["numpy"]] = outcome["state"]
    expected = states["numpy", True].weights
    np.testing.assert_allclose(states[DEVICE, True].weights.get(), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(states[DEVICE, False].weights.get(), expected, rtol=1e-3, atol=1e-6)


# --- the stand-in beside CuPy


def names_of_cupy(module) -> set[str]:
    """Every ``cupy.a.b`` that a module's text names, without ``cupy.``."""
    names = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        chain = []
        while isinstance(node, ast.Attribute):
            chain.append(node.attr)
            node = node.value
        if chain and isinstance(node, ast.Name) and node.id == "cupy":
            names.add(".".join(reversed(chain)))
    return names


def test_all_that_the_backend_names_is_in_cupy():
    cupy = pytest.importorskip("cupy", reason=LACKING)
    with standin.in_the_place_of_cupy():
        modules = [importlib.import_module(name) for name in standin.OURS]
    names = set().union(*map(names_of_cupy, modules))
    assert {"RawModule", "cuda.cublas.gemmEx", "empty"} <= names
    assert {name for name in names if "cublas" in name} <= {"cuda.cublas", "cuda.cublas.gemmEx"}
    for name in names:
        found = cupy
        for part in name.split("."):
            if part == "cublas":
                # The library itself is NVIDIA's, and not here: the binding's text has to do.
                break
            found = getattr(found, part)
    for name in vars(standin.ndarray):
        if not name.startswith("_"):
            assert hasattr(cupy.ndarray, name), name


def test_cublas_takes_what_the_backend_gives_it():
    backends = pytest.importorskip("cupy_backends", reason=LACKING)
    (binding,) = Path(backends.__file__).parent.glob("cuda/libs/cublas.*.so")
    (signature,) = set(re.findall(rb"\x00gemmEx\(([^)]*)\)", binding.read_bytes()))
    names = [part.split()[-1].lower() for part in signature.decode().split(",")]
    ours = {"of_a": "atype", "of_b": "btype", "of_c": "ctype", "compute": "computetype"}
    assert names == [ours.get(name, name) for name in inspect.signature(standin.gemm_ex).parameters]


def test_numpys_functions_are_called_as_cupy_has_them():
    cupy = pytest.importorskip("cupy", reason=LACKING)
    standin.calls.clear()
    for rule, keys in (("streaming", CASES["all that changes rows"]), ("all-layers", CASES["few candidates"])):
        on_both(rule, **keys)
    on_both("all-layers", objective="classifier", negatives="none", classifier="all-heads")
    assert len(standin.calls) > 15
    for name, (args, kwargs) in standin.calls.items():
        function = getattr(cupy, name)
        if isinstance(function, cupy.ufunc):
            assert not kwargs
            assert len(args) == function.nin
        else:
            inspect.signature(function).bind(*args, **kwargs)


def test_the_stand_in_is_as_strict_as_cupy():
    array = standin.ndarray(np.ones(3))
    for wrong in (
        lambda: np.asarray(array),
        lambda: array + np.ones(3),
        lambda: np.concatenate([array, np.ones(3)]),
        lambda: np.add.reduce(array),
        lambda: np.median(array),
        lambda: array[np.array([0, 1])],
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        array.setflags(write=False)


def test_a_kernel_is_not_given_what_it_does_not_take():
    with standin.in_the_place_of_cupy():
        kernels, array = named(DEVICE), standin.ndarray
        z = array(np.ones((4, 6), np.float32))
        with pytest.raises(AssertionError, match="an array of float64"):
            kernels.activate(z, array(np.ones(6)))
        with pytest.raises(ValueError, match="does not lie row by row"):
            kernels.activate(z[:, ::2], array(np.ones(3, np.float32)))
