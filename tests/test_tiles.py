from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ffdask.tiles import LARGEST_SIDE, data_uri, drawable, receptive_fields, sample


def test_a_picture_comes_back_out_of_its_address():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    kind, text = data_uri(picture).split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))), picture)


@pytest.mark.parametrize(
    ("shape", "yes"), [((28, 28), True), ((5, 7, 3), True), ((5, 7, 1), True), ((5, 7, 2), False), ((30,), False)]
)
def test_what_is_an_image(shape, yes):
    assert drawable(shape) is yes


def test_samples():
    grey = np.arange(42, dtype=np.uint8).reshape(6, 7)
    np.testing.assert_array_equal(sample(grey), grey)
    np.testing.assert_array_equal(sample(grey[..., None]), grey)
    np.testing.assert_array_equal(sample(np.array([[-1.0, 0.0, 1.0]], np.float32)), [[0, 127, 255]])
    np.testing.assert_array_equal(sample(np.ones((2, 2), np.float32)), np.zeros((2, 2)))
    assert max(sample(np.zeros((500, 300, 3), np.uint8)).shape[:2]) <= LARGEST_SIDE


def test_receptive_fields_are_the_most_active_units_in_order(finished):
    network = finished.network
    state = network.states[0]
    mean = np.zeros_like(state.running_mean)
    mean[[7, 3]] = 2, 1
    weights = np.zeros_like(state.weights)
    weights[20, 7], weights[30, 3], weights[0, 3] = 1, -5, 100
    changed = replace(network, states=(replace(state, weights=weights, running_mean=mean), *network.states[1:]))
    sheet, count = receptive_fields(changed, (6, 6), most=2, across=2)
    assert (sheet.shape, count) == ((6, 6 + 2 + 6, 4), 2)
    assert (sheet[:, 6:8, 3] == 0).all(), "nothing between them"
    first, second = sheet[:, :6, :3].astype(int), sheet[:, 8:, :3].astype(int)
    white = first[0, 0]
    red, blue = first[20 // 6, 20 % 6], second[30 // 6, 30 % 6]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert (second[0, 0] == white).all(), "the label's place is left out, and does not set the scale"
    assert ((first != white).any(axis=2).sum(), (second != white).any(axis=2).sum()) == (1, 1)
