"""What computes, and what its large products multiply: ``auto`` is settled once, before the first step, for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

from ffdask.accelerator import described, unusable, without_tensor_cores
from ffdask.config import Config
from ffdask.driver import NO_DRIVER
from ffdask.errors import BadInput
from ffdask.joining import check_gpus
from ffdask.kernels import without_bfloat16

Say = Callable[[str], None]
Question = Callable[[], str]
Ask = Callable[[Question], Mapping[str, str]]
"""Asks whoever computes why something cannot be; returns who -> why, empty if it can."""

ByKind = Callable[[bool], Question]
"""Returns the question for somebody who is to compute, by whether nodes of a GPU are among what it may get."""


def here(question: Question) -> Mapping[str, str]:
    """Ask this process."""
    return {"this machine": question()}


def settle(config: Config, ask: Ask, say: Say, ask_gpus: Ask | None = None) -> Config:
    """Return the configuration with ``training.device`` and ``training.precision`` settled.

    In a mixed run, where some nodes are a GPU's, whoever may get these may get any other node beside.

    Parameters
    ----------
    config : Config
    ask : callable
        Asks whoever computes; called only if it matters.
    say : callable
        Told what ``auto`` means, and why.
    ask_gpus : callable, optional
        Asks those who may get the nodes of a GPU in a mixed run; all, if left out.

    Raises
    ------
    BadInput
        If a GPU or a precision is asked for and somebody lacks it.
    """
    ask_gpus = ask_gpus or ask
    config = _device(config, ask, say)
    _check_gpu_nodes(config, ask_gpus)
    return _precision(config, ask, say, ask_gpus)


def lacking(config: Config) -> ByKind:
    """Return what asks what somebody lacks who is to compute by a settled configuration."""
    training = config.training

    def question(gpu: bool) -> Question:
        return partial(_lacking, training.device == "gpu", gpu and bool(training.gpu_nodes), training.precision)

    return question


def _lacking(only_gpu: bool, gpu_too: bool, precision: str) -> str:
    if only_gpu or gpu_too:
        lacks = unusable() or ("" if precision == "float32" else without_tensor_cores())
        if lacks or only_gpu:
            return lacks
    return without_bfloat16() if precision == "bfloat16" else ""


def _check_gpu_nodes(config: Config, ask: Ask) -> None:
    """Check that whoever says that there is a GPU can use it: a node is not to wait for the first of its steps."""
    gpu_nodes = config.training.gpu_nodes
    reasons = _reasons(ask(unusable)) if gpu_nodes else []
    if reasons:
        raise BadInput(
            f"training.gpu_nodes (--gpu-nodes): given {', '.join(map(str, gpu_nodes))}, but {'; '.join(reasons)}; "
            "start workers with the resource GPU only where they can use one, or leave the key out"
        )


def note_gpus(config: Config, ask: Ask, fingerprints: Mapping[str, dict[str, str]], say: Say) -> None:
    """Add the GPUs of those that are asked to what bits depend on, if GPUs compute; say if they are not alike.

    Raises
    ------
    BadInput
        With `strict_bits`, if they are not.
    """
    if config.training.device != "gpu" and not config.training.gpu_nodes:
        return
    for worker, gpu in ask(described).items():
        fingerprints[worker]["gpu"] = gpu
    check_gpus(fingerprints, config.cluster.strict_bits, say)


def describing(config: Config) -> ByKind:
    """Return what asks a worker for the GPU that its bits depend on, by whether it has one; empty if none computes."""
    training = config.training
    return lambda gpu: described if training.device == "gpu" or (gpu and training.gpu_nodes) else str


def _device(config: Config, ask: Ask, say: Say) -> Config:
    asked = config.training.device
    if asked == "cpu":
        return config
    answers = ask(unusable)
    reasons = _reasons(answers)
    if asked == "gpu" and reasons:
        raise BadInput(
            f"training.device (--device): given 'gpu', but {'; '.join(reasons)}; give cpu, or auto, which takes GPUs "
            "where all workers have one"
        )
    # Who has no GPU at all needs no word about it.
    if asked == "auto" and set(answers.values()) != {NO_DRIVER}:
        say(f"device: {'cpu, since ' + '; '.join(reasons) if reasons else 'gpu'}")
    chosen: Literal["cpu", "gpu"] = "cpu" if reasons else "gpu"
    return replace(config, training=replace(config.training, device=chosen))


def _precision(config: Config, ask: Ask, say: Say, ask_gpus: Ask) -> Config:
    asked, gpu = config.training.precision, config.training.device == "gpu"
    if asked == "float32":
        return config
    if asked == "tf32" and not gpu:
        raise BadInput(
            "training.precision (--precision): given 'tf32', which GPUs have; give float32, bfloat16 or auto, or "
            "--device gpu, by which all nodes are of GPUs"
        )
    reasons = _reasons(ask(without_tensor_cores if gpu else without_bfloat16))
    if config.training.gpu_nodes:
        reasons += _reasons(ask_gpus(without_tensor_cores))
    if asked != "auto" and reasons:
        raise BadInput(
            f"training.precision (--precision): given {asked!r}, but {'; '.join(reasons)}; give float32, or auto, "
            "which takes bfloat16 where all workers have it"
        )
    if asked == "auto":
        say(f"precision: {'float32, since ' + '; '.join(reasons) if reasons else 'bfloat16'}")
    chosen: Literal["float32", "tf32", "bfloat16"] = "float32" if reasons else "tf32" if asked == "tf32" else "bfloat16"
    return replace(config, training=replace(config.training, precision=chosen))


def _reasons(answers: Mapping[str, str]) -> list[str]:
    return [f"{who}: {why}" for who, why in answers.items() if why]
