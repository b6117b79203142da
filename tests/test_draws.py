from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ffdask import draws

quick = settings(deadline=None, max_examples=100)
names = st.tuples(
    st.integers(0, 2**63),
    st.text("abcdeh-0123", min_size=1, max_size=8),
    st.lists(st.integers(-2, 1000), max_size=3).map(tuple),
)


def first_words(seed: int, purpose: str, where: tuple[int, ...]) -> list[int]:
    return draws.generator(seed, purpose, *where).integers(0, 2**63, 4).tolist()


@quick
@given(names, names)
def test_different_names_give_different_draws(one, other):
    assume(one != other)
    assert first_words(*one) != first_words(*other)


@quick
@given(names)
def test_equal_names_give_equal_draws_whatever_ran_before(name):
    expected = first_words(*name)
    draws.generator(name[0], name[1] + "other", *name[2]).random(100)
    draws.generator(*name[:2], *name[2]).random(7)
    assert first_words(*name) == expected


def test_neighbouring_names_differ():
    seen = {
        tuple(first_words(seed, purpose, (epoch, chunk)))
        for seed in range(3)
        for purpose in ("deal", "order", "negatives", "shift", "order-again-1")
        for epoch in range(4)
        for chunk in range(4)
    }
    assert len(seen) == 3 * 5 * 4 * 4


def test_digits_do_not_run_together():
    assert first_words(1, "order", (2, 3)) != first_words(1, "order", (23,))
    assert first_words(1, "order", (1, 23)) != first_words(1, "order", (12, 3))
    assert first_words(1, "1order", ()) != first_words(11, "order", ())


def test_numpy_integers_name_the_same_draw_as_ints():
    assert first_words(np.int64(5), "order", (np.uint8(2), np.intp(3))) == first_words(5, "order", (2, 3))


def test_generators_are_counter_based_and_apart():
    one, other = draws.generator(0, "order", 1, 2), draws.generator(0, "order", 1, 2)
    assert isinstance(one.bit_generator, np.random.Philox)
    one.random(50)
    assert other.random() == draws.generator(0, "order", 1, 2).random()


def test_draws_of_neighbours_are_not_correlated():
    one, other = (draws.generator(0, "order", 0, chunk).standard_normal(4000) for chunk in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(4000)
