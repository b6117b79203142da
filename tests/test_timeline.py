from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ffdask import timeline
from ffdask.colours import look


def record(kind: str, start: float, stop: float, layer: int = 0, node: int = 0):
    return {"kind": kind, "start": start, "stop": stop, "layer": layer, "node": node}


RUN = [
    record("negatives", 8, 9),
    record("train", 10, 14, layer=1, node=0),
    record("push", 14, 15, layer=2, node=1),
    record("train", 14, 18, layer=1, node=0),
    record("train", 15, 19, layer=2, node=1),
    record("push_head", 19, 20, node=1),
    record("head", 20, 22, node=1),
    record("evaluate", 22, 40, node=1),
]


def test_training_goes_from_the_first_training_steps_start_to_the_last_states_end():
    assert timeline.training_seconds(RUN) == 12
    assert timeline.training_seconds(RUN[::-1]) == 12
    assert timeline.training_seconds([RUN[0], RUN[-1]]) == 0


def test_evaluation_is_not_busy():
    # Nor is what came before the first training step: the negatives of 8 to 9.
    assert timeline.busy_seconds(RUN) == 4 + 1 + 4 + 4 + 1 + 2


def test_utilization_is_busy_over_units_and_training_seconds():
    assert timeline.utilization(RUN, 1) == pytest.approx(16 / 12)
    assert timeline.utilization(RUN, 2) == pytest.approx(16 / 24)
    assert timeline.utilization([], 2) == 0
    busy = [record("train", 0, 5, 1, 0), record("train", 0, 5, 1, 1)]
    assert timeline.utilization(busy, 2) == 1


def test_overlap_is_the_time_in_which_both_layers_train():
    assert timeline.overlap(RUN, 1, 2) == 3
    assert timeline.overlap(RUN, 2, 1) == 3
    assert timeline.overlap(RUN, 1, 3) == 0
    assert timeline.overlap([], 1, 2) == 0


def test_overlap_adds_up_over_steps_and_leaves_out_pushes_and_touching_ends():
    records = [
        record("train", 0, 10, layer=1),
        record("train", 2, 3, layer=2),
        record("train", 5, 12, layer=2),
        record("push", 3, 5, layer=2),
        record("train", 12, 20, layer=1),
    ]
    assert timeline.overlap(records, 1, 2) == 1 + 5


@pytest.mark.parametrize("records", [RUN, [], [record("unheard-of", 0, 1)]], ids=["a run", "nothing", "a new kind"])
def test_draw_writes_a_png(tmp_path, records):
    path = tmp_path / "timeline.png"
    timeline.draw(records, path, "title $")
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = image.convert("RGB")
    assert len(pixels.getcolors(1 << 24)) > 2


def test_draw_gives_every_layer_and_kind_a_colour_in_the_legend(tmp_path):
    path = tmp_path / "timeline.svg"
    many = [record("train", layer, layer + 1, layer=layer, node=layer % 2) for layer in range(1, 13)]
    timeline.draw(RUN + many, path, "title")
    assert path.read_text().startswith("<?xml")
    looks = {look(each["kind"], each["layer"]) for each in RUN}
    assert {name for name, _ in looks} == {
        "negatives",
        "layer 1 train",
        "layer 2 train",
        "layer 2 push",
        "head push",
        "head",
        "evaluation",
    }
    assert len({colour for _, colour in looks}) == len(looks)


def test_what_overlaps_shares_a_lane_as_tracks():
    # 0-4 and 2-6 meet, 5-7 meets the second alone and takes the first's track; 7-9 is by itself, 3-3 takes no time.
    spans = [(2.0, 6.0), (0.0, 4.0), (5.0, 7.0), (7.0, 9.0), (3.0, 3.0)]
    assert timeline.tracks(spans) == [(1, 2), (0, 2), (0, 2), (0, 1), (0, 1)]
    assert timeline.tracks([]) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)).map(lambda span: (span[0], span[0] + span[1]))))
def test_no_two_spans_meet_on_one_track(spans):
    placed = list(zip(spans, timeline.tracks(spans), strict=True))
    for i, ((start, stop), (track, count)) in enumerate(placed):
        assert 0 <= track < count
        for (other, end), (theirs, beside) in placed[:i]:
            if start < end and other < stop and start < stop and other < end:
                assert track != theirs
                assert count == beside
