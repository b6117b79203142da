from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from conftest import SMALL
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from ffdask.colours import MOST_NAMES, look
from ffdask.conduct import foresee
from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.picture import (
    FLOWS,
    MOST_BOXES,
    MOST_LANES,
    check_file,
    flow,
    shown,
    timeline_picture,
    timeline_text,
    titles,
    write,
)
from ffdask.plan import Forecast
from ffdask.schedules import SCHEDULES
from ffdask.schedules.ideal import Timed, makespan
from ffdask.schedules.steps import Need, Step


@pytest.fixture(scope="module")
def ahead(tiny):
    def make(**keys: object) -> Forecast:
        dotted = {key.replace("__", "."): value for key, value in keys.items()}
        return foresee(load(None, SMALL | {"data.dataset": str(tiny), "training.epochs": 3} | dotted))

    return make


def boxes(figure: Figure) -> dict[str, Rectangle]:
    """The drawn steps, by name."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_gid()]
    assert len({patch.get_gid() for patch in found}) == len(found), "each step once"
    return {patch.get_gid(): patch for patch in found}


def arrows(figure: Figure) -> dict[str, FancyArrowPatch]:
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert len({patch.get_gid() for patch in found}) == len(found), "each arrow once"
    return {patch.get_gid(): patch for patch in found}


def said(figure: Figure) -> str:
    axes = figure.axes[0]
    texts = [axes.get_title(loc="left"), axes.get_xlabel(), *(text.get_text() for text in axes.texts)]
    return "\n".join(texts)


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


LAYOUTS = [{"schedule__nodes": 1}, {"schedule__nodes": 2}, {"schedule__nodes": 3, "cluster__workers": 2}]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_box_is_a_step_at_its_time_in_its_lane_in_its_colour(ahead, schedule, layout):
    forecast = ahead(schedule__name=schedule, run__evaluate_every=1, **layout)
    found = boxes(timeline_picture(forecast, 3))
    timed = {one.step.name: one for one in forecast.timed if one.step.round < 3}
    assert set(found) == set(timed)
    for name, box in found.items():
        one = timed[name]
        assert box.get_x() == one.start
        assert box.get_x() + box.get_width() == pytest.approx(one.stop)
        assert one.step.node - 0.5 < box.get_y() < box.get_y() + box.get_height() < one.step.node + 0.5
        assert to_hex(box.get_facecolor()) == look(one.step.kind, one.step.layer)[1]
    # Steps of one node at the same time lie one below the other: no box hides another.
    drawn = [box for box in found.values() if box.get_width()]
    for a, b in combinations([box.get_bbox().padded(-1e-9, -0.01) for box in drawn], 2):
        assert not a.overlaps(b)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_whatever_flows_between_nodes_has_an_arrow_from_box_to_box(ahead, schedule, layout):
    forecast = ahead(schedule__name=schedule, **layout)
    found = arrows(timeline_picture(forecast, 5))
    at = {one.step.name: one for one in forecast.timed if one.step.round < 5}
    across = {
        f"{need.step}>{one.step.name}:{flow(need.piece)}"
        for one in at.values()
        for need in one.step.needs.values()
        if at[need.step].step.node != one.step.node
    }
    if layout["schedule__nodes"] > 1:
        assert set(found) == across
        # A dynamic schedule is known until its first decision, one that is in chapter one.
        assert across or schedule in ("sequential", "worst-layer")
    else:
        assert not across
    for name, arrow in found.items():
        source, target = (at[part] for part in name.rpartition(":")[0].split(">"))
        (x0, y0), (x1, y1) = arrow._posA_posB
        assert source.start <= x0 <= source.stop
        assert target.start <= x1 <= target.stop
        assert (round(y0), round(y1)) == (source.step.node, target.step.node)
        assert x0 <= x1 + 0.02 * makespan(list(at.values()))


def test_what_flows_has_a_line_of_its_own(ahead):
    # Three nodes: what is drawn from an epoch before, two chapters back, was recorded on another.
    forecast = ahead(schedule__name="all-layers", schedule__nodes=3, schedule__staleness=0, training__epochs=4)
    figure = timeline_picture(forecast, 8)
    kinds = {name.rpartition(":")[2]: arrow.get_linestyle() for name, arrow in arrows(figure).items()}
    assert set(kinds) == {"state", "probabilities"}
    assert {FLOWS[kind][0] for kind in kinds} <= set(names(figure))
    assert len({style for _, style, _ in FLOWS.values()}) == len({name for name, _, _ in FLOWS.values()}) == len(FLOWS)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_lanes_are_nodes_with_their_worker(ahead, schedule, nodes):
    forecast = ahead(schedule__name=schedule, schedule__nodes=nodes, cluster__workers=2)
    axes = timeline_picture(forecast).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"node {node}\nworker {forecast.worker_of[node]}" for node in range(nodes)
    ]
    bottom, top = axes.get_ylim()
    assert bottom > nodes - 1 > -1 > top - 1, "the first node is at the top"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_title_says_what_the_forecast_says_of_the_whole_run(ahead, schedule):
    forecast = ahead(schedule__name=schedule, schedule__nodes=2, schedule__staleness=0)
    for text in (said(timeline_picture(forecast, 1)), timeline_text(forecast, 1)):
        assert f"{schedule}: 36-20-30, 2 nodes on 1 worker with 2 units" in text
        assert f"ideal makespan {1000 * makespan(forecast.timed):.3g} ms" in text
        assert f"speed-up {forecast.speed_up:.2f}, never above {forecast.bound:.2f}" in text
        assert ("until the schedule's first decision" in text) is (schedule in ("until-still", "worst-layer"))
        assert f"the first 1 of {forecast.resolved.plan.rounds} {forecast.resolved.plan.word}s" in text


def test_a_box_says_what_it_is_where_there_is_room(ahead):
    few = said(timeline_picture(ahead(schedule__name="sequential"), 1))
    assert "layer 2\nchapter 0" in few
    many = said(timeline_picture(ahead(schedule__name="sequential"), 6))
    assert "layer 2\nchapter 0" not in many
    assert "T2" in many


def test_the_legend_names_every_colour_layer_by_layer(ahead):
    figure = timeline_picture(ahead(schedule__name="all-layers", schedule__nodes=3, schedule__staleness=0), 3)
    assert names(figure) == [
        *("layer 1 train", "layer 2 push", "layer 2 train", "head", "negatives", "head push"),
        *("later chapters", "layer state", "probabilities"),
    ]


def test_rounds_are_enough_to_see_the_steady_state_and_at_most_what_there_is(ahead):
    forecast = ahead(schedule__name="streaming", schedule__nodes=3, training__epochs=5)
    assert forecast.resolved.plan.rounds == 15
    assert (shown(forecast).rounds, shown(forecast).note) == (7, "the first 7 of 15 visits")
    assert (shown(forecast, 2).rounds, shown(forecast, 2).note) == (2, "the first 2 of 15 visits")
    assert (shown(forecast, 99).rounds, shown(forecast, 99).note) == (15, "all visits")
    assert {one.step.round for one in shown(forecast, 2).timed} == {0, 1}


def test_what_runs_beside_is_shown_as_later(ahead):
    forecast = ahead(schedule__name="streaming", schedule__nodes=2)
    chosen = shown(forecast, 2)
    end = makespan(chosen.timed)
    assert {one.step.name for one in chosen.later} == {
        one.step.name for one in forecast.timed if one.step.round >= 2 and one.start < end
    }
    assert chosen.later
    assert "later visits" in names(timeline_picture(forecast, 2))
    assert "later visits" not in names(timeline_picture(forecast, 99))


def test_a_huge_run_is_drawn_in_part_and_says_so(ahead):
    wide = ahead(schedule__name="all-layers", schedule__nodes=40, training__epochs=30)
    figure = timeline_picture(wide, 10_000)
    assert len(boxes(figure)) <= MOST_BOXES
    assert len(figure.axes[0].get_yticks()) == MOST_LANES
    assert f"nodes 0 to {MOST_LANES - 1} of 40" in said(figure)
    deep = ahead(network__layers=[11] * 300, schedule__name="sequential")
    figure = timeline_picture(deep)
    assert len(boxes(figure)) == MOST_BOXES
    assert f"the first 1 of 6 chapters; the first {MOST_BOXES} of 602 steps" in said(figure)
    assert "36-11-11-11-...-11, 1 node on" in said(figure)
    assert len(names(figure)) <= MOST_NAMES + 6


def test_a_kind_unheard_of_is_drawn_too(ahead):
    forecast = ahead(schedule__name="streaming", schedule__nodes=2)
    first = forecast.timed[1]
    new = Step("candidates", 0, 1, needs={"x": Need(first.step.name, "unheard-of")}, gives=("more",), word="visit")
    timed = (*forecast.timed, Timed(new, first.stop, 2 * first.stop))
    forecast = replace(forecast, timed=timed, steps=(*forecast.steps, new))
    figure = timeline_picture(forecast, 1)
    assert new.name in boxes(figure)
    assert "candidates" in names(figure)
    assert f"{first.step.name}>{new.name}:activities" in arrows(figure)
    assert "c" in timeline_text(forecast, 1).splitlines()[-2].split()[2]


def test_text_has_a_line_a_node_with_its_worker(ahead):
    forecast = ahead(schedule__name="streaming", schedule__nodes=3, cluster__workers=2)
    lines = timeline_text(forecast, width=60).splitlines()
    assert tuple(lines[:2]) == titles(forecast)
    drawn = lines[4:-1]
    assert [line.split()[:2] + line.split()[-2:] for line in drawn] == [
        ["node", str(node), "worker", str(forecast.worker_of[node])] for node in range(3)
    ]
    assert {len(line.split()[2]) for line in drawn} == {60}
    assert lines[-1].split() == ["0", *f"{1000 * makespan(shown(forecast).timed):.3g} ms".split()]


# --- files


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_same_picture_is_the_same_bytes(ahead, tmp_path, suffix):
    files = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for file in files:
        write(timeline_picture(ahead()), str(file))
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.jpg", "allowed are .svg, .png, .pdf, .txt"),
        ("a.pgn", "did you mean '.png'?"),
        ("a", "allowed are .svg"),
        ("none/a.svg", "there is no folder"),
        ("folder.svg", "is a folder"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before(tmp_path, name, says):
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(BadInput, match="--out: given") as caught:
        check_file(str(tmp_path / name))
    assert name in str(caught.value)
    assert says in str(caught.value)
    check_file(str(tmp_path / "a.SVG"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]


def test_a_file_that_stops_being_writable_is_one_message(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        write("text", str(tmp_path / "gone" / "a.txt"))
