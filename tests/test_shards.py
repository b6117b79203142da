"""Shards: who has which rows, and when each node visits its own."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.shards import ShardedCalendar, Shards

LABELS = np.random.default_rng(0).integers(0, 10, 500)


@st.composite
def calendars(draw):
    shards = tuple(draw(st.lists(st.integers(1, 60), min_size=1, max_size=4)))
    chunk, epochs = draw(st.integers(1, 25)), draw(st.integers(1, 5))
    runs = draw(st.integers(1, epochs * min(-(-rows // chunk) for rows in shards)))
    batch, chapters = draw(st.integers(1, chunk)), runs * len(shards)
    return ShardedCalendar(sum(shards), chunk, batch, epochs, chapters, False, 3, shards=shards)


@settings(max_examples=60)
@given(calendars())
def test_each_node_visits_its_own_chunks_once_an_epoch_and_in_order(calendar):
    nodes, seen = len(calendar.shards), Counter()
    for node in range(nodes):
        visits = [visit for chapter in range(node, calendar.chapters, nodes) for visit in calendar.visits_of(chapter)]
        assert all(calendar.shard_of(visit.chunk) == node for visit in visits)
        assert visits == sorted(visits)
        seen.update(visits)
    assert set(seen.values()) == {1}
    assert {(v.epoch, v.chunk) for v in seen} == {
        (e, c) for e in range(calendar.epochs) for c in range(calendar.chunks)
    }


@settings(max_examples=60)
@given(calendars())
def test_chunks_deal_every_row_of_every_shard(calendar):
    dealt = calendar.deal()
    assert [len(rows) for rows in dealt] == [calendar.chunk_rows(chunk) for chunk in range(calendar.chunks)]
    for node, rows in enumerate(calendar.shards):
        own = [part for chunk, part in enumerate(dealt) if calendar.shard_of(chunk) == node]
        assert sorted(np.concatenate(own)) == list(range(rows))


@settings(max_examples=60)
@given(calendars(), st.integers(0, 6))
def test_negatives_read_their_own_shard_and_never_too_new(calendar, staleness):
    for chapter in range(calendar.chapters):
        for visit in calendar.visits_of(chapter):
            source = calendar.source(visit, chapter, staleness)
            if source is None:
                continue
            before, earlier = source
            assert before <= chapter - 1 - staleness
            assert earlier in calendar.visits_of(before)
            assert (earlier.chunk, earlier.epoch < visit.epoch) == (visit.chunk, True)


@settings(max_examples=60)
@given(calendars())
def test_progress_counts_all_shards_rows_in_chapter_order(calendar):
    factors = [
        calendar.factor(visit, start)
        for chapter in range(calendar.chapters)
        for visit in calendar.visits_of(chapter)
        for start, _, _ in calendar.minibatches(visit)
    ]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1
    assert factors[-1] > 0


def test_a_calendar_travels_small_and_whole():
    calendar = ShardedCalendar(40, 5, 5, 2, 4, False, 0, shards=(20, 20), origin=Shards("iid", 2, 1.0, 0))
    calendar.deal(), calendar.factor(calendar.visits_of(0)[0], 0)
    again = pickle.loads(pickle.dumps(calendar))
    assert again == calendar
    assert len(pickle.dumps(calendar)) < 1000
    assert all((a == b).all() for a, b in zip(again.deal(), calendar.deal(), strict=True))


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
@pytest.mark.parametrize("nodes", [1, 3, 7])
def test_shards_are_a_partition_drawn_by_the_seed(kind, nodes):
    rows = np.arange(0, 500, 2)
    shards = Shards(kind, nodes, 0.5, 4)
    parts = shards.deal(rows, LABELS[rows])
    assert len(parts) == nodes
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    assert all((a == b).all() for a, b in zip(parts, shards.deal(rows, LABELS[rows]), strict=True))
    if nodes > 1:
        other = Shards(kind, nodes, 0.5, 5).deal(rows, LABELS[rows])
        assert any(len(a) != len(b) or (a != b).any() for a, b in zip(parts, other, strict=True))


def test_iid_shards_are_even():
    sizes = [len(part) for part in Shards("iid", 7, 1.0, 0).deal(np.arange(500), LABELS)]
    assert max(sizes) - min(sizes) <= 1


def test_the_smaller_alpha_the_more_skewed():
    def skew(alpha):
        parts = Shards("dirichlet", 4, alpha, 1).deal(np.arange(500), LABELS)
        shares = np.array([[(LABELS[part] == label).sum() for label in range(10)] for part in parts]) / 500
        return shares.std()

    assert skew(0.05) > skew(0.5) > skew(50) * 2
    assert skew(1e6) < 0.005
