from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ffdask import images
from ffdask.errors import BadInput
from ffdask.images import read_images

SIDE = 6
ROWS = np.random.default_rng(3).integers(0, 256, (4, SIDE, SIDE), dtype=np.uint8)


def write(path: Path, array: np.ndarray) -> Path:
    """Write an array as the kind of file that the name says."""
    match "".join(path.suffixes):
        case ".png":
            Image.fromarray(array[0]).save(path)
        case ".npy":
            np.save(path, array)
        case ".one.npz":
            np.savez(path, anything=array)
        case ".keras.npz":
            np.savez_compressed(path, x_train=array[:1], x_test=array, y_test=np.zeros(3))
        case ".zarr":
            zarr.save_array(str(path), array)
        case ".v2.zarr":
            zarr.create_array(str(path), data=array, zarr_format=2)
        case ".images.zarr" | ".test_images.zarr":
            zarr.open_group(str(path), mode="w").create_array(path.suffixes[0][1:], data=array)
        case _:
            raise AssertionError(path)
    return path


KINDS = ["a.png", "a.npy", "a.one.npz", "a.keras.npz", "a.zarr", "a.v2.zarr", "a.images.zarr", "a.test_images.zarr"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_is_read(tmp_path, kind):
    expected = ROWS[:1] if kind == "a.png" else ROWS
    got = read_images(str(write(tmp_path / kind, ROWS)), (SIDE, SIDE))
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.uint8


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a.png"])
@settings(deadline=None, max_examples=8)
@given(
    array=hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))),
    flat=st.booleans(),
)
def test_round_trips(tmp_path_factory, kind, array, flat):
    array = array.reshape(len(array), -1) if flat else array
    got = read_images(str(write(tmp_path_factory.mktemp("i") / kind, array)), array.shape[1:])
    # Rows and one image look alike where there are as many rows as pixels; the rows win.
    np.testing.assert_array_equal(got, array)


def test_test_images_win_over_images(tmp_path):
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    group.create_array("images", data=ROWS[:1])
    group.create_array("test_images", data=ROWS)
    assert len(read_images(str(tmp_path / "g.zarr"), (SIDE, SIDE))) == len(ROWS)


def test_one_image_without_an_axis_of_rows(tmp_path):
    got = read_images(str(write(tmp_path / "a.npy", ROWS[0])), (SIDE, SIDE))
    np.testing.assert_array_equal(got, ROWS[:1])


def test_a_data_set_is_a_file_of_images(tiny):
    assert read_images(str(tiny), (6, 6)).shape == (50, 6, 6)


@pytest.mark.parametrize("mode", ["RGB", "P", "1"])
def test_a_png_of_another_mode_is_made_grey(tmp_path, mode):
    grey = np.where(ROWS[0] > 127, 255, 0).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_images(str(tmp_path / "a.png"), (SIDE, SIDE))[0], grey)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a.png"])
@pytest.mark.parametrize(
    "array",
    [ROWS[:, 1:], ROWS[None], ROWS.reshape(-1), ROWS[:0], ROWS.reshape(4, -1)[:0]],
    ids=["smaller", "four axes", "one axis", "no rows", "no flat rows"],
)
def test_images_of_another_shape_are_refused(tmp_path, kind, array):
    with pytest.raises(BadInput, match=r"given .* of shape \(.*; the network takes images of 36 pixels"):
        read_images(str(write(tmp_path / kind, array)), (SIDE, SIDE))


def test_a_png_of_another_size_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"of shape \(1, 6, 6\); the network takes images of 49 pixels"):
        read_images(str(write(tmp_path / "a.png", ROWS)), (7, 7))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_png_of_another_size_is_not_even_decoded(tmp_path, monkeypatch, channels):
    """A few bytes can say that they are gigabytes."""

    def decoded(*given, **named):
        raise AssertionError("it was decoded")

    Image.new("L", (3000, 2000)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", decoded)
    monkeypatch.setattr(Image.Image, "convert", decoded)
    with pytest.raises(BadInput, match=r"of shape \(1, 2000, 3000.*\); the network takes images of "):
        read_images(str(tmp_path / "a.png"), (SIDE, SIDE, *channels))


@pytest.mark.parametrize("kind", ["a.npy", "a.one.npz", "a.zarr", "a.images.zarr"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "bool", "uint16"])
def test_other_types_are_refused(tmp_path, kind, dtype):
    says = f"given .*{kind} of {dtype}; give uint8, 0 for background to 255"
    if kind.endswith(".npz") and dtype == "bool":
        # Refused by its header, before it is read.
        says = f"given .*{kind}, where anything holds values of type {dtype}; only integers and floats"
    with pytest.raises(BadInput, match=says):
        read_images(str(write(tmp_path / kind, ROWS.astype(dtype))), (SIDE, SIDE))


def test_a_png_of_16_bits_is_refused(tmp_path):
    Image.fromarray(ROWS[0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match="give uint8"):
        read_images(str(tmp_path / "a.png"), (SIDE, SIDE))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.npy", None),
        ("a.txt", b"5,0,0"),
        ("empty.npy", b""),
        ("empty.npz", b""),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"not a header    "),
        ("a.npz", b"PK\x05\x06" + bytes(18)),
    ],
)
def test_what_is_no_file_of_images_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"images: given .*{name}"):
        read_images(str(tmp_path / name), (SIDE, SIDE))


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "TIFF"])
def test_another_kind_of_picture_is_no_png(tmp_path, kind):
    Image.fromarray(ROWS[0]).save(tmp_path / "a.png", kind)
    with pytest.raises(BadInput, match=r"images: given .*a\.png, which cannot be read as a \.png, "):
        read_images(str(tmp_path / "a.png"), (SIDE, SIDE))


def test_an_empty_folder_and_a_group_without_images_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    zarr.open_group(str(tmp_path / "g.zarr"), mode="w").create_array("pixels", data=ROWS)
    with pytest.raises(BadInput, match="cannot be read as"):
        read_images(str(tmp_path / "folder"), (SIDE, SIDE))
    with pytest.raises(BadInput, match="without test_images or images"):
        read_images(str(tmp_path / "g.zarr"), (SIDE, SIDE))


def test_an_npz_of_several_arrays_without_x_test_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", one=ROWS, two=ROWS)
    with pytest.raises(BadInput, match="with one, two; one array, or x_test, is wanted"):
        read_images(str(tmp_path / "a.npz"), (SIDE, SIDE))


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["npy", "npz", "keras"])
def test_nothing_is_unpickled_from_numpys_files(tmp_path, kind):
    sprung = tmp_path / "sprung"
    array = np.array([Trap(sprung)], object)
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    if kind == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, **{"x_test" if kind == "keras" else "a": array})
    says = {
        "npy": "cannot be read as a .png, .npy, .npz or Zarr of images",
        "npz": "where a holds pickled objects; only integers and floats are taken",
        "keras": "where x_test holds pickled objects; only integers and floats are taken",
    }
    with pytest.raises(BadInput, match=f"images: given .*{path.name}.*{says[kind]}"):
        read_images(str(path), (SIDE, SIDE))
    assert not sprung.exists()


@pytest.mark.parametrize(
    "codecs",
    [
        {"filters": [{"id": "pickle"}]},
        {"filters": None, "compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}], "dtype": "|O"},
        {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "dtype": "|O", "fill_value": ""},
    ],
    ids=["filter", "compressor", "objects", "behind another codec"],
)
def test_nothing_is_unpickled_from_a_zarr(tmp_path, monkeypatch, codecs):
    # As with every numcodecs before the one that switched the codec off.
    import numcodecs.pickles

    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path, sprung = tmp_path / "a.zarr", tmp_path / "sprung"
    path.mkdir()
    form = {"zarr_format": 2, "shape": [1, 6, 6], "chunks": [1, 6, 6], "dtype": "|u1", "compressor": None}
    (path / ".zarray").write_text(json.dumps(form | {"fill_value": 0, "order": "C"} | codecs))
    (path / "0.0.0").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BadInput):
        read_images(str(path), (SIDE, SIDE))
    assert not sprung.exists()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _huge(kind: str, path: Path) -> Path:
    shape = (2**24, SIDE, SIDE * 8)
    match kind:
        case "npy":
            path = path / "a.npy"
            path.write_bytes(_npy_header(shape) + bytes(100))
        case "sparse npy":
            path = path / "a.npy"
            header = _npy_header(shape)
            with path.open("wb") as file:
                file.write(header)
                file.truncate(len(header) + 2**24 * SIDE * SIDE * 8)
        case "npz":
            path = path / "a.npz"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.npy", _npy_header(shape) + bytes(100))
        case "zarr":
            path = path / "a.zarr"
            zarr.create_array(str(path), shape=shape, chunks=(1, SIDE, SIDE * 8), dtype="u1")
        case "png":
            path = path / "a.png"
            Image.fromarray(ROWS[0]).save(path)
            content = bytearray(path.read_bytes())
            content[16:24] = struct.pack(">II", 2**20, 2**20)
            content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
            path.write_bytes(bytes(content))
        case "png part":
            path = path / "a.png"
            Image.new("L", (SIDE * 8, SIDE)).save(path)
            content = bytearray(path.read_bytes())
            # Behind the header: the pixels' part, as long as one can be, and then no pixels.
            content[33:37] = struct.pack(">I", 2**31 - 1)
            path.write_bytes(bytes(content[:41]) + bytes(100))
    return path


@pytest.mark.parametrize("kind", ["npy", "sparse npy", "npz", "zarr", "png", "png part"])
def test_a_huge_header_is_refused_before_memory_is_taken(tmp_path, kind):
    path = _huge(kind, tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="images: given"):
            read_images(str(path), (SIDE, SIDE * 8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**26


def test_the_message_of_too_large_a_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST", ROWS.nbytes - 1)
    for kind in ("a.npy", "a.one.npz", "a.zarr"):
        with pytest.raises(BadInput, match=f"at most {ROWS.nbytes - 1} are read at once: split it"):
            read_images(str(write(tmp_path / kind, ROWS)), (SIDE, SIDE))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_for_colour_has_as_many_channels(tmp_path, mode, channels):
    Image.fromarray(ROWS[0]).convert(mode).save(tmp_path / "a.png")
    got = read_images(str(tmp_path / "a.png"), (SIDE, SIDE, channels))
    assert got.shape == (1, SIDE, SIDE, channels)
    np.testing.assert_array_equal(got[0, ..., 0], ROWS[0])


def test_colour_and_vectors_come_in_rows_or_alone(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (4, 3, 2, 3), dtype=np.uint8)
    for shape, array in (((3, 2, 3), colour), ((18,), colour.reshape(4, -1))):
        for given_ in (array, array.reshape(4, -1)):
            np.save(tmp_path / "a.npy", given_)
            np.testing.assert_array_equal(read_images(str(tmp_path / "a.npy"), shape), given_)
        np.save(tmp_path / "a.npy", array[1])
        np.testing.assert_array_equal(read_images(str(tmp_path / "a.npy"), shape), array[1:2])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a.png"])
def test_floats_for_a_run_that_learned_from_floats(tmp_path, kind):
    floats = ROWS / 7.0
    got = read_images(str(write(tmp_path / kind, floats)), (SIDE, SIDE), "float32")
    np.testing.assert_array_equal(got, floats.astype(np.float32))
    assert got.dtype == np.float32
    with pytest.raises(BadInput, match=r"of uint8; the run learned from floats: give floats"):
        read_images(str(write(tmp_path / f"b{kind[1:]}", ROWS)), (SIDE, SIDE), "float32")
    floats[2, 1, 1] = np.nan
    with pytest.raises(BadInput, match="not finite"):
        read_images(str(write(tmp_path / f"c{kind[1:]}", floats)), (SIDE, SIDE), "float32")
