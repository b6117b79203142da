"""Who is told of a run: each step once, and nobody who raises can lose it."""

from __future__ import annotations

from ffdask.watchers import Watchers


class Hears:
    def __init__(self) -> None:
        self.heard = []

    def begin(self, resolved, dashboard):
        self.heard.append("begin")

    def record(self, record):
        self.heard.append(record["name"])

    def end(self):
        self.heard.append("end")


class Raises(Hears):
    def record(self, record):
        super().record(record)
        raise ValueError("no\nmore")


def step(round_, name="train_layer1"):
    return {"name": f"{name}-visit{round_:03d}", "round": round_}


def test_who_raises_is_named_and_told_no_more():
    said, one, other = [], Raises(), Hears()
    told = Watchers([one, other], said.append)
    told.begin(None, "")
    for round_ in range(2):
        told.record(step(round_))
    told.end()
    assert one.heard == ["begin", "train_layer1-visit000"]
    assert other.heard == ["begin", "train_layer1-visit000", "train_layer1-visit001", "end"]
    (line,) = said
    assert line.startswith("watcher Raises raised ")
    assert "no more" in line


def test_of_a_step_that_is_done_again_nobody_is_told_twice():
    one = Hears()
    told = Watchers([one], lambda line: None)
    for round_ in (0, 1, 2, 0, 1, 2, 3):
        told.record(step(round_))
    assert one.heard == [step(round_)["name"] for round_ in range(4)]


def test_what_cannot_come_again_is_forgotten():
    """A run of days has millions of steps; behind its newest checkpoint it does not go back."""
    one = Hears()
    told = Watchers([one], lambda line: None)
    for round_ in range(1000):
        told.record(step(round_))
        told.settled(round_ - 2)
    assert sum(map(len, told._heard.values())) == 2
    told.record(step(999))
    assert len(one.heard) == 1000
