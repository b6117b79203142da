from __future__ import annotations

import pytest

from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.precision import settle


def asked(precision):
    return load(None, {"training.precision": precision})


def nobody_asks():
    raise AssertionError("float32 needs nothing")


def test_float32_asks_nobody():
    config, said = asked("float32"), []
    assert settle(config, nobody_asks, said.append) is config
    assert not said


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_bfloat16_where_all_have_it(precision):
    said = []
    assert settle(asked(precision), lambda: {"a": "", "b": ""}, said.append).training.precision == "bfloat16"
    assert said == (["precision: bfloat16"] if precision == "auto" else [])


def test_auto_is_float32_where_one_lacks_it_and_says_who_and_why():
    said = []
    assert settle(asked("auto"), lambda: {"a": "", "b": "old"}, said.append).training.precision == "float32"
    assert said == ["precision: float32, since b: old"]


def test_bfloat16_is_refused_where_one_lacks_it():
    with pytest.raises(BadInput, match=r"given 'bfloat16', but b: old; give float32, or auto"):
        settle(asked("bfloat16"), lambda: {"a": "", "b": "old"}, print)
