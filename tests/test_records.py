"""Records as lines: what goes in comes out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffdask.records import Records

FIGURES = st.dictionaries(
    st.sampled_from(["loss", "rows", "last", "worker"]),
    st.one_of(st.floats(allow_nan=False), st.integers(), st.booleans(), st.text()),
)


@given(st.lists(st.tuples(st.integers(0, 9), FIGURES)))
def test_what_goes_in_comes_out(given_):
    plain = {f"step{i}": {"name": f"step{i}", "round": each, **more} for i, (each, more) in enumerate(given_)}
    records = Records(plain)
    assert dict(records) == plain
    assert list(records) == list(plain)
    for limit in (-1, 4, 9):
        some, rest = records.up_to(limit), list(records.lines(limit))
        assert dict(some) == {name: one for name, one in plain.items() if one["round"] <= limit}
        assert sorted(rest) == sorted((json.dumps(o) + "\n").encode() for o in plain.values() if o["round"] > limit)


def test_records_are_kept_packed():
    """As those of training are: a third of their lines; what is like none of them takes little more than its line."""
    figures = {"kind": "train", "layer": 2, "again": 0, "last": True, "node": 1, "worker": "worker0", "rows": 500}
    figures |= {f"goodness_{side}": 1 / 3 for side in ("positive", "negative")} | {"loss": 1 / 7, "error": 1 / 9}
    plain = {f"train_layer2-visit{i:03d}": figures | {"round": i, "start": 1e9 + i / 7} for i in range(100)}
    records = Records({name: {"name": name, **one} for name, one in plain.items()})
    lines = sum(map(len, records.lines()))
    assert sum(map(len, records._lines.values())) < lines / 2
    text = "".join(map(chr, range(0x4E00, 0x4F00)))
    odd = Records({text: {"name": text, "round": 0}})
    assert len(odd._lines[text]) < 1.1 * len(next(iter(odd.lines()))) + 20


def test_a_record_may_be_replaced_until_it_is_in_a_checkpoint():
    records = Records({"a": {"name": "a", "round": 1, "loss": 1.0}, "b": {"name": "b", "round": 2, "loss": 1.0}})
    records["a"] = {"name": "a", "round": 1, "loss": 2.0}
    records["a"]["loss"] = 3.0
    before = records.up_to(1)
    records["b"] = {"name": "b", "round": 2, "loss": 2.0}
    records["c"] = {"name": "c", "round": 3, "loss": 2.0}
    assert (records["a"]["loss"], records["b"]["loss"], len(records)) == (2.0, 2.0, 3)
    assert (list(before), len(before), "a" in before, "b" in before, "c" in before) == (["a"], 1, True, False, False)
    with pytest.raises(KeyError):
        before["b"]
    for changed, record in ((records, {"name": "a", "round": 1}), (before, {"name": "d", "round": 4})):
        with pytest.raises(TypeError, match="is in a checkpoint"):
            changed[record["name"]] = record
    with pytest.raises(TypeError, match="never forgotten"):
        del records["a"]


def test_a_run_that_goes_on_has_records_of_its_own():
    first = Records({f"step{i}": {"name": f"step{i}", "round": i} for i in range(5)})
    checkpoint = first.up_to(2)
    second, third = checkpoint.copy(), checkpoint.copy()
    second["step3"] = {"name": "step3", "round": 3, "session": 1}
    second["step2b"] = {"name": "step2b", "round": 2, "session": 1}
    assert list(checkpoint) == list(third) == ["step0", "step1", "step2"]
    assert list(second) == ["step0", "step1", "step2", "step3", "step2b"]
    assert list(second.up_to(2)) == ["step0", "step1", "step2", "step2b"]
    assert "session" not in first["step3"]


def test_neither_checkpoints_nor_recoveries_decode(monkeypatch):
    """Of a run of hours there are hundreds of thousands; and at a checkpoint none is even looked at."""
    records = Records({f"step{i}": {"name": f"step{i}", "round": i} for i in range(100)})
    monkeypatch.setattr("ffdask.records.json.loads", None)
    view = records.up_to(60)
    assert view._lines is records._lines
    again = view.copy()
    assert (len(again), "step60" in again, "step61" in again) == (61, True, False)
    assert len(list(view.lines(50))) == 10


def test_records_are_looked_at_while_others_come():
    """A notebook asks for the history of a run that goes on, on another thread."""
    records = Records({f"step{i}": {"name": f"step{i}", "round": i} for i in range(3)})
    looks = iter(records.values())
    seen = [next(looks)]
    records["step3"] = {"name": "step3", "round": 3}
    assert [record["name"] for record in (*seen, *looks)] == ["step0", "step1", "step2"]
    assert len(records) == 4


def test_a_view_is_written_while_records_come():
    records = Records({f"step{i}": {"name": f"step{i}", "round": i} for i in range(10)})
    lines = iter(records.up_to(5).lines())
    written = [next(lines)]
    for i in range(10, 20):
        records[f"step{i}"] = {"name": f"step{i}", "round": i}
    assert dict(Records.of_lines([*written, *lines])) == {f"step{i}": records[f"step{i}"] for i in range(6)}
