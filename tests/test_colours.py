from __future__ import annotations

import pytest

from ffdask.colours import COLOURS, MOST_NAMES, OTHERS, in_order, ink, look


def test_layers_have_their_colours_in_turn():
    assert [look("train", layer)[1] for layer in range(1, 2 * len(COLOURS) + 1)] == [*COLOURS, *COLOURS]
    assert look("train", 2)[0] == "layer 2 train"


def test_a_push_is_paler_than_its_layer():
    for layer in range(1, len(COLOURS) + 1):
        train, push = (int(look(kind, layer)[1][1:], 16).to_bytes(3) for kind in ("train", "push"))
        assert train != push
        assert all(pale >= full for full, pale in zip(train, push, strict=True))


def test_no_two_kinds_look_alike():
    looks = [look(kind, layer) for layer in range(1, 6) for kind in ("train", "push")] + [*OTHERS.values()]
    assert len({name for name, _ in looks}) == len({colour for _, colour in looks}) == len(looks)


def test_a_kind_unheard_of_has_a_name_and_a_grey():
    assert look("some_thing", 0) == ("some thing", "#bbbbbb")
    assert look("some_thing", 2)[0] == "layer 2 some_thing"


@pytest.mark.parametrize(
    ("colour", "readable"), [("#222222", "#ffffff"), ("#66ccee", "#000000"), ("#ffffff", "#000000")]
)
def test_ink_can_be_read(colour, readable):
    assert ink(colour) == readable


def test_a_legend_goes_layer_by_layer_and_ends_with_what_is_no_layer_s():
    kinds = [("head", 0), ("train", 10), ("train", 2), ("push", 10), ("negatives", 0), ("train", 2)]
    names = ["layer 2 train", "layer 10 push", "layer 10 train", "head", "negatives"]
    assert list(in_order(kinds)) == names
    many = [*kinds, *(("train", layer) for layer in range(1, 1000))]
    assert list(in_order(many))[MOST_NAMES:] == ["head", "negatives"]
