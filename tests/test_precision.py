from __future__ import annotations

import pytest

from ffdask import precision as room
from ffdask.accelerator import unusable, without_tensor_cores
from ffdask.config import load
from ffdask.driver import NO_DRIVER
from ffdask.errors import BadInput
from ffdask.kernels import without_bfloat16
from ffdask.precision import lacking, note_gpus, settle


def asked(precision="float32", device="cpu"):
    return load(None, {"training.precision": precision, "training.device": device})


def nobody_asks(question):
    raise AssertionError("float32 on processors needs nothing")


def workers(answers):
    """Two workers, `a` and `b`, and what each answers to a question."""

    def ask(question):
        return dict(zip("ab", answers[question], strict=True))

    return ask


ALL = ("", "")
GPUS = {unusable: ALL, without_tensor_cores: ALL}
NONE = {unusable: (NO_DRIVER, NO_DRIVER), without_bfloat16: ALL}


def test_float32_on_processors_asks_nobody():
    config, said = asked(), []
    assert settle(config, nobody_asks, said.append) is config
    assert not said


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_bfloat16_where_all_have_it(precision, device):
    said, answers = [], GPUS if device == "gpu" else {without_bfloat16: ALL}
    settled = settle(asked(precision, device), workers(answers), said.append)
    assert (settled.training.precision, settled.training.device) == ("bfloat16", device)
    assert said == (["precision: bfloat16"] if precision == "auto" else [])


def test_auto_is_float32_where_one_lacks_it_and_says_who_and_why():
    said = []
    settled = settle(asked("auto"), workers({without_bfloat16: ("", "old")}), said.append)
    assert settled.training.precision == "float32"
    assert said == ["precision: float32, since b: old"]


def test_bfloat16_is_refused_where_one_lacks_it():
    with pytest.raises(BadInput, match=r"given 'bfloat16', but b: old; give float32, or auto"):
        settle(asked("bfloat16"), workers({without_bfloat16: ("", "old")}), print)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_tf32_is_refused_where_processors_compute(device):
    with pytest.raises(BadInput, match=r"given 'tf32', which GPUs have; .* --device gpu"):
        settle(asked("tf32", device), workers(NONE), print)


def test_tf32_on_gpus_that_have_it():
    assert settle(asked("tf32", "gpu"), workers(GPUS), print).training.precision == "tf32"
    with pytest.raises(BadInput, match="given 'tf32', but b: old"):
        settle(asked("tf32", "gpu"), workers(GPUS | {without_tensor_cores: ("", "old")}), print)


def test_auto_takes_gpus_where_all_have_one_and_says_so():
    said = []
    settled = settle(asked(device="auto"), workers(GPUS), said.append)
    assert settled.training.device == "gpu"
    assert said == ["device: gpu"]
    # What is settled stays so, and is not said again.
    assert settle(settled, workers(GPUS), said.append) == settled
    assert len(said) == 1


@pytest.mark.parametrize(
    ("answers", "words"), [((NO_DRIVER, NO_DRIVER), []), (("", "old"), ["device: cpu, since b: old"])]
)
def test_auto_is_the_processor_elsewhere_and_says_so_where_there_is_a_gpu(answers, words):
    said = []
    assert settle(asked(device="auto"), workers({unusable: answers}), said.append).training.device == "cpu"
    assert said == words


def test_a_gpu_is_refused_where_one_lacks_it():
    with pytest.raises(BadInput, match=rf"given 'gpu', but a: {NO_DRIVER}; b: {NO_DRIVER}; give cpu, or auto"):
        settle(asked(device="gpu"), workers(NONE), print)


@pytest.mark.parametrize(
    ("device", "precision", "lacks"),
    [
        ("cpu", "float32", ""),
        ("cpu", "bfloat16", "no instructions"),
        ("gpu", "float32", "no gpu"),
        ("gpu", "tf32", "no gpu"),
    ],
)
def test_what_a_worker_lacks_that_joins_later(monkeypatch, device, precision, lacks):
    monkeypatch.setattr(room, "without_bfloat16", lambda: "no instructions")
    monkeypatch.setattr(room, "unusable", lambda: "no gpu")
    monkeypatch.setattr(room, "without_tensor_cores", lambda: "no cores")
    assert lacking(asked(precision, device))() == lacks
    monkeypatch.setattr(room, "unusable", lambda: "")
    if device == "gpu":
        assert lacking(asked(precision, device))() == ("" if precision == "float32" else "no cores")


def test_gpus_are_part_of_what_bits_depend_on():
    said, prints = [], {"a": {}, "b": {}}
    note_gpus(asked(), nobody_asks, prints, said.append)
    assert prints == {"a": {}, "b": {}}
    config = asked(device="gpu")
    note_gpus(config, lambda question: {"a": "H100", "b": "H100"}, prints, said.append)
    assert (prints, said) == ({"a": {"gpu": "H100"}, "b": {"gpu": "H100"}}, [])
    note_gpus(config, lambda question: {"a": "H100", "b": "A100"}, prints, said.append)
    assert said == ["the same bits are not promised: worker a: H100; worker b: A100"]
    strict = load(None, {"training.device": "gpu", "cluster.strict_bits": True})
    with pytest.raises(BadInput, match="worker b: A100; use like GPUs"):
        note_gpus(strict, lambda question: {"a": "H100", "b": "A100"}, prints, said.append)
