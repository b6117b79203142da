"""Minibatches as layers take them: dropout's masks, and rows in the shape and order that every schedule sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.batches import Source, masks_of, places, spans
from ffdask.calendar import Calendar, Visit
from ffdask.head import HeadRecipe
from ffdask.job import Data, Job
from ffdask.labels import Bare, Overlaid
from ffdask.layer import Activities, LayerRecipe, Optimizer
from ffdask.schedules.steps import Step
from ffdask.work import perform

quick = settings(deadline=None, max_examples=40)


def job_of(dropout=0.25, objective="goodness", seed=5, rows=50, chunk=20, batch=6, widths=(8, 12)) -> Job:
    calendar = Calendar(rows, chunk, batch, 2, 2, False, seed)
    recipe = LayerRecipe(dropout=dropout)
    overlay = "none" if objective == "classifier" else "replace"
    return Job(16, widths, 10, calendar, recipe, Optimizer(), HeadRecipe(), objective, "random", overlay)


def step_of(*visits: Visit, part: int | None = None) -> Step:
    return Step("train", 0, 0, 1, visits=visits, part=part)


def data_of(job: Job) -> Data:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 4, 4)).astype(np.uint8)
    return Data.of(job.calendar, (images, rng.integers(0, 10, 50).astype(np.uint8)), lambda: (images, images))


@quick
@given(st.sampled_from([0.1, 0.3, 0.75]), st.sampled_from(["goodness", "classifier"]), st.integers(0, 9))
def test_a_mask_keeps_its_share_of_units_and_makes_up_for_the_rest(dropout, objective, seed):
    job = job_of(dropout, objective, seed, rows=400, chunk=200, widths=(50, 40))
    mask = masks_of(job, 2, step_of(Visit(1, 1)), Visit(1, 1))
    assert mask.shape == (job.copies * 200, 40)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / (1 - dropout))}
    # Five standard deviations of the mean of 8,000 units or more.
    assert (mask > 0).mean() == pytest.approx(1 - dropout, abs=5 * np.sqrt(dropout * (1 - dropout) / mask.size))
    # Positive and negative rows are dropped apart, and so are units.
    assert len(np.unique(mask, axis=0)) > 0.9 * len(mask)
    assert len(np.unique(mask, axis=1).T) == 40


def test_a_mask_belongs_to_the_layer_the_visit_and_the_seed():
    job = job_of(widths=(8, 8))
    named = [(layer, Visit(*visit)) for layer in (1, 2) for visit in ((0, 0), (0, 1), (1, 0), (0, 0, 1))]
    masks = [masks_of(one, layer, step_of(v), v) for one in (job, job_of(seed=6, widths=(8, 8))) for layer, v in named]
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    # Whichever step asks: one that trains, one that pushes, with other visits beside it.
    again = masks_of(job, 1, Step("push", 3, 2, 2, visits=(Visit(1, 1), Visit(0, 0))), Visit(0, 0))
    np.testing.assert_array_equal(again, masks[0])


def inputs_of(job, layer, step, visit, index, inputs, data):
    """A visit's minibatches: where their rows lie, the layer's input, true labels."""
    source = Source.of(job, layer, visit, index, inputs, data)
    for where, rows in places(job, step, visit):
        yield where, *source.batch(source.take(where, rows))


@pytest.mark.parametrize("objective", ["goodness", "classifier"])
def test_the_masks_of_the_parts_are_the_visits_mask(objective):
    job, visit = job_of(objective=objective), Visit(0, 2)
    whole = masks_of(job, 1, step_of(visit), visit)
    parts = [masks_of(job, 1, step_of(visit, part=part), visit) for part in range(job.calendar.minibatches_in(2))]
    assert [len(part) // job.copies for part in parts] == [6, 4]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_without_dropout_there_is_no_mask():
    assert masks_of(job_of(dropout=0.0), 1, step_of(Visit(0, 0)), Visit(0, 0)) is None


def test_spans_are_the_visits_minibatches_or_the_parts():
    job, visit = job_of(), Visit(1, 0)
    every = list(job.calendar.minibatches(visit))
    assert spans(job, step_of(visit), visit) == every
    assert [spans(job, step_of(visit, part=part), visit) for part in range(len(every))] == [[one] for one in every]


def test_who_asks_for_labels_reads_no_image():
    """Negatives and the head do, at every visit; and images may be on the disk."""
    job = job_of()

    class Unread:
        def __getitem__(self, rows):
            raise AssertionError("an image was read")

    labels = np.arange(50, dtype=np.uint8) % 10
    data = Data.of(job.calendar, (Unread(), labels), lambda: (labels, labels))
    drawn = perform(job, Step("negatives", 0, 0, visits=(Visit(0, 1),)), {}, data)["labels"][0]
    assert len(drawn) == 20
    assert (drawn != labels[job.calendar.deal()[1]]).all()


@pytest.mark.parametrize("part", [None, 1])
def test_layer_one_takes_pixels_under_both_labels_in_the_visits_order(part):
    job, visit = job_of(), Visit(1, 1)
    data, order = data_of(job), job.calendar.order(visit)
    images, labels = data.images(1), data.labels(1)
    wrong = ((labels + 3) % 10).astype(np.uint8)
    found = list(inputs_of(job, 1, step_of(visit, part=part), visit, 0, {"labels": [wrong]}, data))
    starts = [0, 6, 12, 18] if part is None else [6]
    assert len(found) == len(starts)
    factors = [factor for _, _, factor in spans(job, step_of(visit, part=part), visit)]
    assert factors == [job.calendar.factor(visit, start) for start in starts]
    for start, (where, batch, truth) in zip(starts, found, strict=True):
        rows = order[start : start + 6]
        first = 2 * (start - starts[0])
        assert where == slice(first, first + 2 * len(rows))
        assert isinstance(batch, Overlaid)
        assert truth is None
        np.testing.assert_array_equal(batch.labels, np.concatenate([labels[rows], wrong[rows]]))
        np.testing.assert_allclose(batch.pixels.values[:, 10:], images[rows].reshape(-1, 16)[:, 10:] / 255, rtol=1e-6)


def test_rows_without_negatives_come_with_their_true_labels_to_every_layer():
    job, visit = job_of(objective="classifier"), Visit(0, 1)
    data, order = data_of(job), job.calendar.order(visit)
    images, labels = data.images(1), data.labels(1)
    passed = np.random.default_rng(1).random((20, 8), np.float32)
    first = list(inputs_of(job, 1, step_of(visit), visit, 0, {}, data))
    second = list(inputs_of(job, 2, step_of(visit), visit, 0, {"activities": [passed]}, data))
    assert len(first) == len(second) == 4
    for start, one, other in zip(range(0, 20, 6), first, second, strict=True):
        rows = order[start : start + 6]
        assert isinstance(one[1], Bare)
        assert isinstance(other[1], Activities)
        np.testing.assert_allclose(one[1].pixels.values, images[rows].reshape(-1, 16) / 255, rtol=1e-6)
        np.testing.assert_array_equal(other[1].values, passed[start : start + 6])
        for where, _, truth in (one, other):
            assert where == slice(start, start + len(rows))
            np.testing.assert_array_equal(truth, labels[rows])


def test_every_layer_sees_a_visits_rows_shifted_alike():
    job = replace(job_of(objective="classifier"), shift=1)
    data, visit = data_of(job), Visit(0, 0)
    one, other, plain = (
        np.concatenate([batch.pixels.values for _, batch, _ in inputs_of(each, 1, step_of(visit), visit, 0, {}, data)])
        for each in (job, job, replace(job, shift=0))
    )
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, plain)
