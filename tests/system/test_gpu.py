"""Whole runs with ``--device gpu`` on this machine's processors: Dask's part of it, with a stand-in for CuPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import standin
from device_host import COMPILER, LACKING

import ffdask
from ffdask import accelerator, on_worker
from ffdask.carried import Resident
from ffdask.conduct import conduct
from ffdask.config import Config, dotted
from ffdask.driver import Graphics
from ffdask.errors import BadInput, RunFailed
from ffdask.resume import stopped_run

pytestmark = pytest.mark.skipif(not COMPILER, reason=LACKING)

SMALL = {"data.chunk": 100, "network.layers": [20, 30], "training.epochs": 1, "training.batch_size": 50}
CARD = Graphics(["Card 0"], (9, 0), 12040)


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose GPU is the stand-in."""
    monkeypatch.setattr(accelerator, "devices", lambda: CARD)
    monkeypatch.setattr(accelerator, "_wheels", lambda: ["numpy"])
    with standin.in_the_place_of_cupy():
        yield standin


def trained(tiny, out, device, **more):
    said = []
    keys = SMALL | {"data.dataset": tiny.path, "run.out": str(out), "training.device": device} | more
    return conduct(ffdask.load(None, keys), say=said.append), said


def alike(one, other):
    for a, b in zip(one.states, other.states, strict=True):
        for name, array in a.arrays().items():
            assert type(b.arrays()[name]) is np.ndarray
            np.testing.assert_allclose(b.arrays()[name], array, rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(other.head.weights, one.head.weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("schedule", ["streaming", "all-layers"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_gpus_is_the_processors_to_rounding(tiny, tmp_path, gpu, schedule, workers):
    more = {"schedule.name": schedule, "cluster.workers": workers, "run.evaluate_every": 1}
    expected, _ = trained(tiny, tmp_path / "cpu", "cpu", **more)
    found, said = trained(tiny, tmp_path / "gpu", "auto", **more)
    alike(expected.network, found.network)
    assert said.count("device: gpu") == 1
    assert found.summary["device"] == found.recorded["device"] == "gpu"
    assert (found.recorded["kernels"], expected.recorded["kernels"]) == ("cupy", "numba")
    prints = [worker["gpu"] for worker in found.recorded["workers"].values()]
    assert prints == [f"Card 0, CUDA 12.4, numpy {np.__version__}"] * workers
    assert found.summary["test_errors"] == pytest.approx(expected.summary["test_errors"], abs=1)
    # Every launch was of a thread's own stream.
    assert not [what for what in gpu.waits if "outside" in what]


def test_a_federated_run_on_gpus(tiny, tmp_path, gpu):
    more = {"schedule.name": "federated", "schedule.nodes": 2, "network.negatives": "sampled"}
    expected, _ = trained(tiny, tmp_path / "cpu", "cpu", **more)
    found, _ = trained(tiny, tmp_path / "gpu", "gpu", **more)
    alike(expected.network, found.network)


def test_a_run_of_gpus_opens_predicts_and_evaluates_without_one(tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch, standin.in_the_place_of_cupy():
        patch.setattr(accelerator, "devices", lambda: CARD)
        patch.setattr(accelerator, "_wheels", lambda: ["numpy"])
        found, _ = trained(tiny, out, "gpu")
    run = ffdask.open_run(out)
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8)).astype(np.uint8)
    assert run.predict(images).shape == (7,)
    assert run.network.sha256() == found.summary["weights_sha256"]
    # To go on training as it was configured takes a GPU again.
    with pytest.raises(BadInput, match=r"training\.device .* no NVIDIA driver"):
        conduct(ffdask.load(None, dotted(run.configuration.tables()) | {"run.out": str(tmp_path / "again")}))


def test_a_stopped_run_goes_on_to_the_same_bits(tiny, tmp_path, gpu, monkeypatch):
    more = {"training.epochs": 3, "run.checkpoint_every": 1, "schedule.name": "all-layers"}
    whole, _ = trained(tiny, tmp_path / "whole", "gpu", **more)
    perform = on_worker.perform

    def fails(job, step, inputs, data):
        if step.round >= 4:
            raise RuntimeError("a step fails")
        return perform(job, step, inputs, data)

    monkeypatch.setattr(on_worker, "perform", fails)
    with pytest.raises(RunFailed):
        trained(tiny, tmp_path / "run", "gpu", **more)
    monkeypatch.setattr(on_worker, "perform", perform)
    resumed = conduct(stopped_run(tmp_path / "run", {}), resume=tmp_path / "run")
    assert resumed.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_a_run_that_was_stopped_before_goes_on_as_it_was(tiny, tmp_path, monkeypatch):
    """Its configuration has the device elsewhere, as auto; what that meant is in its record."""
    monkeypatch.setattr(Config, "tables", lambda self, now=Config.tables: _of_before(now(self)))
    monkeypatch.setattr(on_worker, "perform", None)
    with pytest.raises(RunFailed):
        trained(tiny, tmp_path / "run", "auto")
    monkeypatch.undo()
    monkeypatch.setattr(accelerator, "devices", lambda: CARD)
    assert stopped_run(tmp_path / "run", {}).training.device == "cpu"


def _of_before(tables):
    del tables["training"]["device"]
    tables["cluster"]["device"] = "auto"
    return tables


def test_outcomes_stay_on_the_device_and_leave_it_as_the_hosts(tiny, tmp_path, gpu, monkeypatch):
    seen, run_step = [], on_worker.perform

    def watched(job, step, inputs, data):
        outcome = run_step(job, step, inputs, data)
        seen.append((step.kind, outcome, inputs))
        return outcome

    monkeypatch.setattr(on_worker, "perform", watched)
    trained(
        tiny, tmp_path / "run", "gpu", **{"schedule.name": "all-layers", "cluster.workers": 1, "training.epochs": 2}
    )
    states = [inputs["state"] for kind, _, inputs in seen if kind == "train" and "state" in inputs]
    assert states
    assert all(type(state.weights) is standin.ndarray for state in states), "a state went by way of the host"
    for kind, outcome, _ in seen:
        for piece, value in outcome.items():
            if piece != "record":
                assert "standin" not in str(pickle.dumps(Resident(value))), (kind, piece)
