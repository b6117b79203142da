from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask import draws
from ffdask.calendar import Calendar, Visit

quick = settings(deadline=None, max_examples=80)


@st.composite
def calendars(draw, by_visit=None, equal_chunks=False):
    chunk = draw(st.integers(1, 30))
    rows = draw(st.integers(1, 60)) if not equal_chunks else chunk * draw(st.integers(1, 8))
    epochs = draw(st.integers(1, 5))
    return Calendar(
        rows=rows,
        chunk=chunk,
        batch=draw(st.integers(1, 12)),
        epochs=epochs,
        chapters=draw(st.integers(1, epochs * math.ceil(rows / chunk))),
        by_visit=draw(st.booleans()) if by_visit is None else by_visit,
        seed=draw(st.integers(0, 3)),
        cooldown=draw(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])),
    )


def all_visits(calendar: Calendar) -> list[Visit]:
    return [
        Visit(epoch, chunk)
        for epoch in range(calendar.epochs)
        for chunk in range(math.ceil(calendar.rows / calendar.chunk))
    ]


MNIST = Calendar(rows=60_000, chunk=3_000, batch=100, epochs=10, chapters=20, by_visit=False, seed=0)


@quick
@given(calendars())
def test_chunks_partition_the_rows(calendar):
    dealt = calendar.deal()
    sizes = [len(rows) for rows in dealt]
    assert len(dealt) == calendar.chunks == math.ceil(calendar.rows / calendar.chunk)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(calendar.rows))
    assert sizes == [calendar.chunk_rows(number) for number in range(calendar.chunks)]
    assert all(size == calendar.chunk for size in sizes[:-1])
    assert 1 <= sizes[-1] <= calendar.chunk


def test_dealing_is_one_named_draw_of_a_permutation():
    calendar = replace(MNIST, rows=1000, chunk=300, seed=7)
    expected = draws.generator(7, "deal").permutation(1000)
    np.testing.assert_array_equal(np.concatenate(calendar.deal()), expected)
    assert not np.array_equal(np.concatenate(replace(calendar, seed=8).deal()), expected)
    with pytest.raises(ValueError, match="read-only"):
        calendar.deal()[1][0] = 0


def test_dealing_mixes_sorted_data():
    classes = np.repeat(np.arange(10), 200)
    for rows in replace(MNIST, rows=2000, chunk=500).deal():
        assert np.bincount(classes[rows], minlength=10).min() > 20


@quick
@given(calendars(by_visit=False))
def test_chapters_partition_all_visits_in_order(calendar):
    chapters = [calendar.visits_of(chapter) for chapter in range(calendar.chapters)]
    assert calendar.rounds == calendar.chapters
    assert [visit for visits in chapters for visit in visits] == all_visits(calendar)
    sizes = {len(visits) for visits in chapters}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@quick
@given(calendars(by_visit=False))
def test_chapters_are_cut_by_the_floor_rule(calendar):
    visits = all_visits(calendar)
    assert calendar.visits == len(visits)
    for chapter in range(calendar.chapters):
        first = math.floor(Fraction(chapter * len(visits), calendar.chapters))
        last = math.floor(Fraction((chapter + 1) * len(visits), calendar.chapters)) - 1
        assert list(calendar.visits_of(chapter)) == visits[first : last + 1]


@quick
@given(calendars())
def test_rounds_work_through_every_row_once_an_epoch(calendar):
    assert sum(calendar.rows_of(round_) for round_ in range(calendar.rounds)) == calendar.epochs * calendar.rows


@quick
@given(calendars())
def test_round_of_finds_the_round_of_every_visit_also_beyond_the_end(calendar):
    for round_ in range(calendar.rounds + 4):
        for visit in calendar.visits_of(round_):
            assert calendar.round_of(visit.epoch * calendar.chunks + visit.chunk) == round_


@quick
@given(calendars())
def test_rounds_beyond_the_end_take_the_visits_that_follow(calendar):
    beyond = [calendar.visits_of(calendar.rounds + extra) for extra in range(3)]
    flat = [visit.epoch * calendar.chunks + visit.chunk for visits in beyond for visit in visits]
    assert flat == list(range(calendar.visits, calendar.visits + len(flat)))
    assert all(visit.epoch >= calendar.epochs for visits in beyond for visit in visits)
    sizes = {len(calendar.visits_of(round_)) for round_ in range(calendar.rounds)}
    assert all(len(visits) == min(sizes) for visits in beyond)


@quick
@given(calendars(by_visit=True))
def test_streaming_has_a_round_for_each_visit(calendar):
    assert calendar.rounds == calendar.visits
    assert [calendar.visits_of(round_) for round_ in range(calendar.rounds)] == [(v,) for v in all_visits(calendar)]


@quick
@given(calendars(by_visit=True))
def test_chapter_of_a_visit_when_streaming_is_the_chapter_that_has_it(calendar):
    by_chapter = replace(calendar, by_visit=False)
    for chapter in range(calendar.chapters):
        for visit in by_chapter.visits_of(chapter):
            assert calendar.chapter_of(visit.epoch * calendar.chunks + visit.chunk) == chapter
    assert calendar.chapter_of(calendar.visits + 2) == calendar.chapters - 1


@quick
@given(calendars(by_visit=False), st.integers(0, 50))
def test_chapter_of_a_chapter_is_itself(calendar, round_):
    assert calendar.chapter_of(round_) == round_


@quick
@given(calendars(), st.integers(0, 200))
def test_minibatches_cover_each_row_once_and_never_cross_a_chunk(calendar, number):
    visit = Visit(*divmod(number % calendar.visits, calendar.chunks))
    batches = list(calendar.minibatches(visit))
    covered = [row for start, stop, _ in batches for row in range(start, stop)]
    assert covered == list(range(len(calendar.deal()[visit.chunk])))
    assert all(stop - start == calendar.batch for start, stop, _ in batches[:-1])
    assert 1 <= batches[-1][1] - batches[-1][0] <= calendar.batch
    assert sorted(calendar.order(visit).tolist()) == covered


@quick
@given(calendars())
def test_factor_is_the_formula_of_the_rows_seen(calendar):
    seen, total, before = 0, calendar.epochs * calendar.rows, 1.0
    for visit in all_visits(calendar):
        for start, stop, factor in calendar.minibatches(visit):
            progress = seen / total
            line = 1.0 if progress < calendar.cooldown else (1 - progress) / (1 - calendar.cooldown)
            assert factor == pytest.approx(line, rel=1e-12)
            assert factor == calendar.factor(visit, start)
            assert 0 < factor <= before
            seen, before = seen + stop - start, factor
    assert seen == total


def test_factor_is_constant_to_half_the_run_then_falls_in_equal_steps_to_zero():
    factors = [factor for visit in all_visits(MNIST) for _, _, factor in MNIST.minibatches(visit)]
    assert len(factors) == 6000
    assert set(factors[:3001]) == {1.0}
    np.testing.assert_allclose(np.diff(factors[3000:]), -1 / 3000, rtol=1e-9)
    assert factors[-1] == pytest.approx(1 / 3000)


def test_a_repetition_goes_at_its_chapters_rates():
    for visit in MNIST.visits_of(15, again=2):
        assert visit.again == 2
        first = Visit(visit.epoch, visit.chunk)
        assert list(MNIST.minibatches(visit)) == list(MNIST.minibatches(first))
    assert [(v.epoch, v.chunk) for v in MNIST.visits_of(15, again=2)] == [
        (v.epoch, v.chunk) for v in MNIST.visits_of(15)
    ]


@quick
@given(calendars())
def test_factor_beyond_the_end_stays_within_the_last_chapter_but_one(calendar):
    chapters = replace(calendar, by_visit=False)
    visits = chapters.visits_of(max(0, calendar.chapters - 2))
    highest = calendar.factor(visits[0], 0)
    lowest = calendar.factor(visits[-1], calendar.chunk_rows(visits[-1].chunk) - 1)
    for round_ in range(calendar.rounds, calendar.rounds + 4):
        for visit in calendar.visits_of(round_):
            for _, _, factor in calendar.minibatches(visit):
                assert lowest <= factor <= highest


@quick
@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4), st.integers(1, 5))
def test_a_chapter_beyond_the_end_repeats_the_rates_of_the_last_but_one(chunks, of_each, chapters, batch):
    # Equal chunks, equal chapters: `of_each` epochs a chapter.
    calendar = Calendar(
        rows=7 * chunks,
        chunk=7,
        batch=batch,
        epochs=of_each * chapters,
        chapters=chapters,
        by_visit=False,
        seed=0,
    )

    def factors(chapter: int) -> list[float]:
        return [factor for visit in calendar.visits_of(chapter) for _, _, factor in calendar.minibatches(visit)]

    for extra in range(3):
        assert factors(chapters + extra) == factors(chapters - 2)


@settings(deadline=None, max_examples=120)
@given(calendars(), st.integers(0, 9))
def test_source_is_the_newest_visit_of_the_rows_that_staleness_allows(calendar, staleness):
    for round_ in range(calendar.rounds + 2):
        allowed = [
            (visit.epoch, earlier, visit)
            for earlier in range(round_ - staleness)
            for visit in calendar.visits_of(earlier)
        ]
        for visit in calendar.visits_of(round_):
            same = [found for found in allowed if found[2].chunk == visit.chunk]
            expected = max(same)[1:] if same else None
            assert calendar.source(visit, round_, staleness) == expected


def test_source_by_hand():
    # Two chunks, three epochs, visits 00 01 10 11 20 21 in chapters of two: a chapter is an epoch.
    calendar = Calendar(rows=20, chunk=10, batch=5, epochs=3, chapters=3, by_visit=False, seed=0)
    assert calendar.source(Visit(0, 1), 0, 0) is None
    assert calendar.source(Visit(1, 1), 1, 0) == (0, Visit(0, 1))
    assert calendar.source(Visit(2, 0), 2, 0) == (1, Visit(1, 0))
    assert calendar.source(Visit(2, 0), 2, 1) == (0, Visit(0, 0))
    assert calendar.source(Visit(2, 0), 2, 2) is None
    streaming = replace(calendar, by_visit=True)
    assert streaming.source(Visit(2, 0), 4, 1) == (2, Visit(1, 0))
    assert streaming.source(Visit(2, 0), 4, 2) == (0, Visit(0, 0))


def test_orders_differ_by_seed_epoch_chunk_and_repetition():
    calendar = replace(MNIST, rows=200, chunk=50)
    visits = [Visit(e, k, a) for e in range(3) for k in range(4) for a in range(3)]
    orders = [tuple(replace(calendar, seed=seed).order(visit)) for seed in range(2) for visit in visits]
    assert len(set(orders)) == len(orders)
    again = replace(calendar, epochs=5, chapters=2, by_visit=True, batch=7)
    assert [tuple(again.order(visit)) for visit in visits] == orders[: len(visits)]


def test_an_order_is_one_named_draw_of_a_permutation():
    calendar = replace(MNIST, rows=200, chunk=60, seed=7)
    np.testing.assert_array_equal(calendar.order(Visit(2, 1)), draws.generator(7, "order", 2, 1).permutation(60))
    np.testing.assert_array_equal(calendar.order(Visit(2, 3)), draws.generator(7, "order", 2, 3).permutation(20))


def test_a_visits_draw_is_named_by_purpose_epoch_chunk_and_repetition():
    def words(generator: np.random.Generator) -> list[int]:
        return generator.integers(0, 2**63, 4).tolist()

    assert words(Visit(2, 3).draw(5, "shift")) == words(draws.generator(5, "shift", 2, 3))
    assert words(Visit(2, 3, 1).draw(5, "shift")) == words(draws.generator(5, "shift-again-1", 2, 3))
    assert words(Visit(2, 3).draw(5, "shift")) != words(Visit(2, 3).draw(5, "order"))


# --- rows that are held out


@quick
@given(calendars(), st.integers(0, 40))
def test_rows_held_out_and_rows_dealt_are_all_rows(calendar, validation):
    calendar = replace(calendar, validation=validation)
    held, dealt = calendar.held_out().tolist(), np.concatenate(calendar.deal()).tolist()
    assert len(held) == validation
    assert held == sorted(set(held))
    assert sorted(held + dealt) == list(range(calendar.rows + validation))
    assert [len(rows) for rows in calendar.deal()] == [calendar.chunk_rows(number) for number in range(calendar.chunks)]


def test_held_out_rows_are_one_named_draw_and_know_of_no_chunks():
    calendar = replace(MNIST, rows=900, chunk=300, validation=100, seed=7)
    expected = sorted(draws.generator(7, "validation").permutation(1000)[:100])
    assert calendar.held_out().tolist() == expected
    for other in ({"chunk": 17}, {"batch": 3}, {"epochs": 2}, {"by_visit": True}, {"chapters": 1}):
        assert replace(calendar, **other).held_out().tolist() == expected
    assert replace(calendar, seed=8).held_out().tolist() != expected
    with pytest.raises(ValueError, match="read-only"):
        calendar.held_out()[0] = 0


def test_dealing_is_blind_to_the_number_of_chunks():
    calendar = replace(MNIST, rows=900, chunk=300, validation=100, seed=7)
    dealt = np.concatenate(calendar.deal())
    np.testing.assert_array_equal(np.concatenate(replace(calendar, chunk=70).deal()), dealt)
    assert not np.array_equal(np.concatenate(replace(calendar, seed=8).deal()), dealt)


@quick
@given(calendars())
def test_the_number_of_minibatches_is_that_of_the_minibatches(calendar):
    for chunk in range(calendar.chunks):
        assert calendar.minibatches_in(chunk) == len(list(calendar.minibatches(Visit(0, chunk))))
