"""What only a GPU can show; without one, each says why it is skipped. So far they have been skipped everywhere."""

from __future__ import annotations

import numpy as np
import pytest

import ffdask
from ffdask import datasets
from ffdask.accelerator import unusable
from ffdask.conduct import conduct
from ffdask.errors import RunFailed
from ffdask.kernels import DEVICE, named
from ffdask.layer import Activities, LayerRecipe, LayerState, Optimizer, Trainee, initial_state
from ffdask.objectives import OBJECTIVES
from ffdask.resident import home
from ffdask.resume import stopped_run

WHY = unusable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY), reason=f"no GPU to train on: {WHY}")]
KEYS = {"network.layers": [200, 300], "training.epochs": 4, "data.chunk": 100, "training.batch_size": 50}


def learned(kernels: str, precision: str, optimizer: str, objective: str, width: int) -> LayerState:
    """A layer's state after three minibatches."""
    how, rng = Optimizer(name=optimizer), np.random.default_rng(width)
    classes = 10 if objective == "classifier" else 0
    state = initial_state(1, 2, 130, width, how, classes=classes)
    x, labels = rng.random((60, 130), np.float32), rng.integers(0, 10, 60).astype(np.uint8)
    one = named(kernels, precision)
    with one.working():
        trainee = Trainee(state, LayerRecipe(), how, OBJECTIVES[objective], one)
        batch, truth = Activities(one.here(x)), one.here(labels)
        for rate in one.rates([1.0, 0.5, 0.25], 0):
            y, goodness, _ = trainee.forward(batch)
            trainee.learn(batch, y, goodness, rate, truth)
        found: LayerState = home(trainee.state())
    return found


@pytest.mark.parametrize("width", [7, 64, 500])
@pytest.mark.parametrize("objective", ["goodness", "symba", "classifier"])
@pytest.mark.parametrize(
    ("optimizer", "precision", "tolerance"),
    # Adam's first steps go by a gradient's sign, which fewer bits may turn where it is small.
    [
        ("momentum", "float32", 1e-4),
        ("momentum", "tf32", 1e-2),
        ("momentum", "bfloat16", 5e-2),
        ("adam", "float32", 1e-3),
    ],
)
def test_a_layer_learns_what_numpy_says(optimizer, objective, width, precision, tolerance):
    expected = learned("numpy", "float32", optimizer, objective, width).arrays()
    found = learned(DEVICE, precision, optimizer, objective, width).arrays()
    for name, array in expected.items():
        scale = np.abs(array).max() + 1e-6
        np.testing.assert_allclose(found[name] / scale, array / scale, rtol=0, atol=tolerance, err_msg=name)


def trained(tiny, out, device, **more):
    keys = KEYS | {"data.dataset": tiny.path, "run.out": str(out), "training.device": device} | more
    return conduct(ffdask.load(None, keys))


def test_a_small_run_is_as_accurate_as_the_processors(tmp_path):
    dataset = datasets.obtain("mnist")
    keys = {"network.layers": [500, 500], "training.epochs": 2}
    accuracy = [
        trained(dataset, tmp_path / device, device, **keys).summary["test_accuracy"] for device in ("cpu", "gpu")
    ]
    assert accuracy[1] == pytest.approx(accuracy[0], abs=0.002)


@pytest.mark.parametrize("schedule", ["streaming", "all-layers"])
def test_one_gpu_gives_the_same_bits_again(tiny, tmp_path, schedule):
    digests = {
        trained(tiny, tmp_path / str(turn), "gpu", **{"schedule.name": schedule}).summary["weights_sha256"]
        for turn in range(3)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("schedule", ["streaming", "all-layers"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_recorded_minibatches_give_the_bits_of_launched_ones(tiny, tmp_path, monkeypatch, schedule, precision):
    from ffdask.kernels import device, recorded

    replays = []

    class Counted(recorded.Repeated):
        def __call__(self, given, out):
            super().__call__(given, out)
            replays.append(self._graph is not None)

    digests = []
    for repeated in (Counted, lambda turn: turn):
        monkeypatch.setattr(device, "Repeated", repeated)
        more = {"schedule.name": schedule, "training.precision": precision, "training.batch_size": 20}
        digests.append(trained(tiny, tmp_path / str(len(digests)), "gpu", **more).summary["weights_sha256"])
    assert sum(replays) > len(replays) / 2, "minibatches were not replayed"
    assert digests[0] == digests[1]


def test_memory_is_returned(tiny, tmp_path):
    import cupy

    used = []
    for turn in range(3):
        trained(tiny, tmp_path / str(turn), "gpu")
        used.append(cupy.get_default_memory_pool().used_bytes())
    # The data set stays; nothing else grows from run to run.
    assert used[2] <= used[0] + (1 << 20)


def test_out_of_memory_says_so_and_the_last_checkpoint_stays(tiny, tmp_path):
    import cupy

    from ffdask import on_worker

    pool, perform = cupy.get_default_memory_pool(), on_worker.perform

    def short(job, step, inputs, data):
        if step.round >= 4:
            pool.set_limit(size=max(1, pool.used_bytes()))
            pool.free_all_blocks()
        return perform(job, step, inputs, data)

    more = {"schedule.name": "all-layers", "run.checkpoint_every": 1, "cluster.units": 1}
    whole = trained(tiny, tmp_path / "whole", "gpu", **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_worker, "perform", short)
        with pytest.raises(RunFailed, match=r"[Oo]ut of memory"):
            trained(tiny, tmp_path / "run", "gpu", **more)
    pool.set_limit(size=0)
    resumed = conduct(stopped_run(tmp_path / "run", {}), resume=tmp_path / "run")
    assert resumed.summary["weights_sha256"] == whole.summary["weights_sha256"]
