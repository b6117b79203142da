"""What the large products multiply: ``auto`` is settled once, before the first step, for all workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from ffdask.config import Config
from ffdask.errors import BadInput

Say = Callable[[str], None]


def settle(config: Config, lacking: Callable[[], Mapping[str, str]], say: Say) -> Config:
    """Return the configuration with ``training.precision`` float32 or bfloat16.

    Parameters
    ----------
    config : Config
    lacking : callable
        Returns who computes -> why there are no bfloat16 products there, empty if there are; asked only if it matters.
    say : callable
        Told what ``auto`` means, and why.

    Raises
    ------
    BadInput
        If bfloat16 is asked for and somebody lacks it.
    """
    asked = config.training.precision
    if asked == "float32":
        return config
    reasons = [f"{who}: {why}" for who, why in lacking().items() if why]
    if asked == "bfloat16" and reasons:
        raise BadInput(
            f"training.precision (--precision): given 'bfloat16', but {'; '.join(reasons)}; give float32, or auto, "
            "which takes bfloat16 where all workers have it"
        )
    if asked == "auto":
        say(f"precision: {'float32, since ' + '; '.join(reasons) if reasons else 'bfloat16'}")
    chosen: Literal["float32", "bfloat16"] = "float32" if reasons else "bfloat16"
    return replace(config, training=replace(config.training, precision=chosen))
