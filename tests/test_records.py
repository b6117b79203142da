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


def test_a_step_done_again_replaces_its_record_and_copies_do_not_change():
    records = Records({"a": {"name": "a", "round": 1, "loss": 1.0}})
    before = records.up_to(1)
    records["a"] = {"name": "a", "round": 1, "loss": 2.0}
    records["a"]["loss"] = 3.0
    assert (records["a"]["loss"], before["a"]["loss"], len(records)) == (2.0, 1.0, 1)
    assert "a" in records
    assert "b" not in records
    with pytest.raises(TypeError, match="never forgotten"):
        del records["a"]
