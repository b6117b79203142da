from __future__ import annotations

from itertools import pairwise

import networkx as nx
import pytest
from conftest import SMALL
from matplotlib.patches import FancyArrowPatch, Rectangle

from ffdask.conduct import foresee
from ffdask.config import load
from ffdask.graph_picture import MOST_STEPS, graph_of, graph_picture, graph_text
from ffdask.schedules import SCHEDULES
from ffdask.tasks import tasks_of


@pytest.fixture(scope="module")
def ahead(tiny):
    def make(**keys: object):
        dotted = {key.replace("__", "."): value for key, value in keys.items()}
        return foresee(load(None, SMALL | {"data.dataset": str(tiny), "training.epochs": 3} | dotted))

    return make


def gids(figure, kind) -> list[str]:
    return [patch.get_gid() for patch in figure.axes[0].patches if isinstance(patch, kind)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("workers", [1, 2])
def test_boxes_are_tasks_and_arrows_are_pieces(ahead, schedule, workers):
    forecast = ahead(schedule__name=schedule, schedule__nodes=2, cluster__workers=workers)
    figure = graph_picture(forecast, 2)
    tasks = tasks_of(forecast, [step for step in forecast.steps if step.round < 2])
    assert sorted(gids(figure, Rectangle)) == sorted({task.key for task in tasks})
    drawn = set()
    for gid in gids(figure, FancyArrowPatch):
        ends, _, pieces = gid.rpartition(":")
        drawn |= {(*ends.split(">"), piece) for piece in pieces.split("+")}
    assert drawn == {(source.key, task.key, piece) for task in tasks for source, piece in task.takes}
    assert f"{len(tasks)} tasks" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_arrows_go_from_left_to_right_and_no_two_boxes_overlap(ahead, schedule):
    figure = graph_picture(ahead(schedule__name=schedule, schedule__nodes=2, cluster__workers=2), 4)
    boxes = {patch.get_gid(): patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)}
    for gid in gids(figure, FancyArrowPatch):
        source, target = gid.rpartition(":")[0].split(">")
        assert boxes[source].get_x() < boxes[target].get_x()
    places = sorted((box.get_x(), box.get_y(), box.get_height()) for box in boxes.values())
    for (x0, y0, height), (x1, y1, _) in pairwise(places):
        assert x0 != x1 or y0 + height < y1


def test_the_graph_is_one_of_networkx(ahead):
    forecast = ahead(schedule__name="streaming")
    graph = graph_of(tasks_of(forecast, [step for step in forecast.steps if step.round < 3]))
    assert nx.is_directed_acyclic_graph(graph)
    assert all(graph.nodes[a]["column"] < graph.nodes[b]["column"] for a, b in graph.edges())
    pieces = {data["piece"] for _, _, data in graph.edges(data=True)}
    assert {"labels", "state", "activities", "neutral"} <= pieces


def test_text_is_a_line_a_task(ahead):
    lines = graph_text(ahead(schedule__name="streaming"), 1).splitlines()
    assert lines[1] == "4 tasks, the first 1 of 9 visits; each key goes on with the run's id"
    assert len(lines) == 3 + 4
    assert "negatives-visit000" in lines
    (line,) = [line for line in lines if line.startswith("train_layer2-visit000")]
    assert line.split(" <- ")[1] == "activities of train_layer1-visit000, neutral of train_layer1-visit000"


def test_a_huge_graph_is_drawn_in_part_and_says_so(ahead):
    forecast = ahead(network__layers=[11] * 100, schedule__name="sequential")
    figure = graph_picture(forecast)
    note = figure.axes[0].texts[0].get_text()
    assert f"the first {MOST_STEPS} of 202 steps" in note
    assert len(gids(figure, Rectangle)) == MOST_STEPS
    many = ahead(schedule__name="all-layers", schedule__nodes=40, training__epochs=10)
    assert "head-chapter009" in graph_text(many, 20), "all nodes are in the graph"
