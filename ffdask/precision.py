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
from ffdask.kernels import without_bfloat16

Say = Callable[[str], None]
Question = Callable[[], str]
Ask = Callable[[Question], Mapping[str, str]]
"""Asks whoever computes why something cannot be; returns who -> why, empty if it can."""


def here(question: Question) -> Mapping[str, str]:
    """Ask this process."""
    return {"this machine": question()}


def settle(config: Config, ask: Ask, say: Say) -> Config:
    """Return the configuration with ``training.device`` and ``training.precision`` settled.

    Parameters
    ----------
    config : Config
    ask : callable
        Asks whoever computes; called only if it matters.
    say : callable
        Told what ``auto`` means, and why.

    Raises
    ------
    BadInput
        If a GPU or a precision is asked for and somebody lacks it.
    """
    config = _device(config, ask, say)
    return _precision(config, ask, say)


def lacking(config: Config) -> Question:
    """Return the question what somebody lacks who is to compute by a settled configuration."""
    return partial(_lacking, config.training.device == "gpu", config.training.precision)


def _lacking(gpu: bool, precision: str) -> str:
    if gpu:
        return unusable() or ("" if precision == "float32" else without_tensor_cores())
    return without_bfloat16() if precision == "bfloat16" else ""


def note_gpus(config: Config, ask: Ask, fingerprints: Mapping[str, dict[str, str]], say: Say) -> None:
    """Add each worker's GPU to what its bits depend on, if GPUs compute; say if they are not alike.

    Raises
    ------
    BadInput
        With `strict_bits`, if they are not.
    """
    if config.training.device != "gpu":
        return
    found = ask(described)
    for worker, gpu in found.items():
        fingerprints[worker]["gpu"] = gpu
    if len(set(found.values())) > 1:
        unlike = "; ".join(f"worker {worker}: {gpu}" for worker, gpu in found.items())
        if config.cluster.strict_bits:
            raise BadInput(f"cluster.strict_bits (--strict-bits): {unlike}; use like GPUs, or leave the flag out")
        say(f"the same bits are not promised: {unlike}")


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


def _precision(config: Config, ask: Ask, say: Say) -> Config:
    asked, gpu = config.training.precision, config.training.device == "gpu"
    if asked == "float32":
        return config
    if asked == "tf32" and not gpu:
        raise BadInput(
            "training.precision (--precision): given 'tf32', which GPUs have; give float32, bfloat16 or auto, or "
            "--device gpu"
        )
    reasons = _reasons(ask(without_tensor_cores if gpu else without_bfloat16))
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
