from __future__ import annotations

import pytest

from ffdask import precision as room
from ffdask.accelerator import described, unusable, without_tensor_cores
from ffdask.config import load
from ffdask.driver import NO_DRIVER
from ffdask.errors import BadInput
from ffdask.kernels import without_bfloat16
from ffdask.precision import describing, lacking, note_gpus, settle


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
@pytest.mark.parametrize("has_gpu", [True, False])
def test_what_a_worker_lacks_that_joins_later(monkeypatch, device, precision, lacks, has_gpu):
    """Whether it has a GPU matters where nodes are of both kinds only: else all compute alike."""
    monkeypatch.setattr(room, "without_bfloat16", lambda: "no instructions")
    monkeypatch.setattr(room, "unusable", lambda: "no gpu")
    monkeypatch.setattr(room, "without_tensor_cores", lambda: "no cores")
    assert lacking(asked(precision, device))(has_gpu)() == lacks
    monkeypatch.setattr(room, "unusable", lambda: "")
    if device == "gpu":
        assert lacking(asked(precision, device))(has_gpu)() == ("" if precision == "float32" else "no cores")


def mixed(precision="float32"):
    return load(None, {"training.precision": precision, "training.gpu_nodes": [1], "schedule.nodes": 2})


def test_in_a_mixed_run_those_with_a_gpu_are_asked_whether_they_can_use_it():
    config = mixed()
    assert settle(config, nobody_asks, print, lambda question: {"b": {unusable: ""}[question]}) == config
    with pytest.raises(BadInput, match=rf"--gpu-nodes\): given 1, but b: {NO_DRIVER}; start workers with the resource"):
        settle(config, nobody_asks, print, lambda question: {"b": {unusable: NO_DRIVER}[question]})


@pytest.mark.parametrize(
    ("processors", "gpus", "reason"), [("", "", ""), ("old", "", "a: old; b: old"), ("", "small", "b: small")]
)
def test_in_a_mixed_run_bfloat16_is_of_both_kinds_or_of_none(processors, gpus, reason):
    ask, said = workers({without_bfloat16: (processors,) * 2}), []

    def ask_gpus(question):
        return {"b": {unusable: "", without_tensor_cores: gpus}[question]}

    assert settle(mixed("auto"), ask, said.append, ask_gpus).training.precision == ("float32" if reason else "bfloat16")
    assert said == [f"precision: float32, since {reason}" if reason else "precision: bfloat16"]
    if reason:
        with pytest.raises(BadInput, match=f"given 'bfloat16', but {reason}"):
            settle(mixed("bfloat16"), ask, said.append, ask_gpus)


def test_in_a_mixed_run_there_is_no_tf32_which_processors_lack():
    with pytest.raises(BadInput, match=r"given 'tf32', which GPUs have; .* by which all nodes are of GPUs"):
        settle(mixed("tf32"), workers(GPUS), print)


@pytest.mark.parametrize(
    ("has_gpu", "gone", "lacks"),
    [
        (True, ("unusable", "without_tensor_cores", "without_bfloat16"), "no unusable"),
        (True, ("without_tensor_cores", "without_bfloat16"), "no without_tensor_cores"),
        (True, ("without_bfloat16",), "no without_bfloat16"),
        (False, ("unusable", "without_tensor_cores", "without_bfloat16"), "no without_bfloat16"),
        (False, ("unusable", "without_tensor_cores"), ""),
    ],
)
def test_what_a_worker_lacks_that_joins_a_mixed_run(monkeypatch, has_gpu, gone, lacks):
    """Whoever has no GPU gets nodes of processors only, whoever has one any node."""
    for name in ("unusable", "without_tensor_cores", "without_bfloat16"):
        monkeypatch.setattr(room, name, lambda name=name: f"no {name}" if name in gone else "")
    assert lacking(mixed("bfloat16"))(has_gpu)() == lacks


def test_a_worker_that_joins_says_which_gpu_its_bits_depend_on_where_one_computes():
    def asks(config):
        return [describing(config)(has_gpu) is described for has_gpu in (True, False)]

    assert (asks(mixed()), asks(asked(device="gpu")), asks(asked())) == ([True, False], [True] * 2, [False] * 2)
    assert describing(asked())(True)() == ""


def test_gpus_are_part_of_what_bits_depend_on():
    said, prints = [], {"a": {}, "b": {}}
    note_gpus(asked(), nobody_asks, prints, said.append)
    assert prints == {"a": {}, "b": {}}
    config = asked(device="gpu")
    note_gpus(config, lambda question: {"a": "H100", "b": "H100"}, prints, said.append)
    assert (prints, said) == ({"a": {"gpu": "H100"}, "b": {"gpu": "H100"}}, [])
    note_gpus(config, lambda question: {"a": "H100", "b": "A100"}, prints, said.append)
    assert said == ["the same bits are not promised: worker a: H100; worker b: A100"]
    ours = {"a": {}, "b": {}}
    note_gpus(mixed(), lambda question: {"b": "H100"}, ours, said.append)
    assert (ours, len(said)) == ({"a": {}, "b": {"gpu": "H100"}}, 1)
    strict = load(None, {"training.device": "gpu", "cluster.strict_bits": True})
    with pytest.raises(BadInput, match="worker b: A100; use like GPUs"):
        note_gpus(strict, lambda question: {"a": "H100", "b": "A100"}, prints, said.append)
