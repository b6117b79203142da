"""Figures that say that training leads nowhere."""

from __future__ import annotations

import math

import pytest

from ffdask.divergence import LARGEST_GOODNESS, check
from ffdask.errors import Diverged
from ffdask.schedules.steps import Step

GOOD = {"loss": 0.7, "goodness_positive": 1.4, "goodness_negative": 0.6, "error": 0.1}


def look(kind="train", layer=2, **changed):
    check(Step(kind, 5, 0, layer), GOOD | changed, 0.01)


def test_what_is_well_is_let_pass():
    look()
    look(goodness_positive=0.0)
    look("head", 0)
    check(Step("push", 5, 0, 2), {"rows": 3}, 0.01)
    check(Step("head", 5, 0), {"loss": 0.0, "error": 0.0}, 0.01)


@pytest.mark.parametrize("figure", ["loss", "goodness_positive", "goodness_negative"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(figure, value):
    with pytest.raises(Diverged, match=rf"layer 2 in chapter 5: the .* is {value}; .*--learning-rate, now 0.01"):
        look(**{figure: value})


def test_the_head_is_named():
    with pytest.raises(Diverged, match="the head in chapter 5: the loss is nan"):
        look("head", 0, loss=math.nan)


def test_goodness_that_explodes_is_named():
    look(goodness_negative=LARGEST_GOODNESS)
    with pytest.raises(Diverged, match=r"goodness of negative data is 2e\+06, in units of its width; .*weight_decay"):
        look(goodness_negative=2 * LARGEST_GOODNESS)


def test_a_dead_layer_is_named():
    with pytest.raises(Diverged, match=r"layer 2 in chapter 5: no unit is active on any row, .*another --seed"):
        look(goodness_positive=0.0, goodness_negative=0.0)
