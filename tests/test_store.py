from __future__ import annotations

import dataclasses
import json
import pickle
import resource
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from test_images import Trap

from ffdask import store
from ffdask.datasets import Dataset
from ffdask.errors import BadInput
from ffdask.head import HeadState
from ffdask.layer import Optimizer, initial_state
from ffdask.network import Network
from ffdask.store import RunFolder, check_out, open_network, prepare, recorded_digest

DATASET = Dataset("tiny", "/nowhere", "0" * 64, 300, 50, (6, 6), 10, "made up")
RESOLVED = {"classifier": "goodness", "dataset": asdict(DATASET) | {"shape": [6, 6]}}


def network(widths=(20, 30), head=True, optimizer="momentum") -> Network:
    rng = np.random.default_rng(5)
    states, below = [], 36
    for layer, width in enumerate(widths, start=1):
        states.append(initial_state(7, layer, below, width, Optimizer(name=optimizer)))
        below = width
    read = sum(widths[1:] or widths)
    arrays = (rng.standard_normal((read, 10), dtype=np.float32) for _ in range(2))
    return Network(tuple(states), HeadState(*arrays) if head else None, 10)


def with_own_heads(widths=(20, 30), pixels=36) -> Network:
    """A network as the objective classifier leaves it: a head in each layer's state."""
    rng = np.random.default_rng(6)
    states = []
    for layer, (below, width) in enumerate(zip((pixels, *widths), widths, strict=False), start=1):
        state = initial_state(7, layer, below, width, Optimizer(), classes=10)
        arrays = (rng.standard_normal((width, 10), dtype=np.float32) for _ in range(2))
        states.append(dataclasses.replace(state, head=HeadState(*arrays)))
    return Network(tuple(states), None, 10, "none")


def written(path: Path, made: Network) -> Path:
    folder = prepare(str(path), False)
    folder.write_configuration({}, RESOLVED)
    folder.write_network(made)
    return path


def replace(path: Path, name: str, array: np.ndarray) -> None:
    """Put another array in the place of one in a run's weights."""
    group = zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+")
    del group[name]
    group.create_array(name, data=array)


# --- round trips


@pytest.mark.parametrize("widths", [(20,), (20, 30), (8, 5, 13)])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_network_comes_back_bit_for_bit(tmp_path, widths, head, optimizer):
    made = network(widths, head, optimizer)
    got, resolved = open_network(written(tmp_path / "run", made))
    assert resolved == RESOLVED
    assert got.sha256() == made.sha256()
    assert (got.classes, got.head is None) == (10, not head)
    pairs = [*zip(got.states, made.states, strict=True), *([(got.head, made.head)] if head else [])]
    for one, other in pairs:
        assert list(one.arrays()) == list(other.arrays())
        for name, array in one.arrays().items():
            assert array.dtype == np.float32
            assert not array.flags.writeable
            np.testing.assert_array_equal(array.view(np.uint32), other.arrays()[name].view(np.uint32))
    assert [state.steps for state in got.states] == [state.steps for state in made.states]


@pytest.mark.parametrize("widths", [(20,), (20, 30), (8, 5, 13)])
@pytest.mark.parametrize("pixels", [36, 9])
def test_layers_own_heads_come_back_bit_for_bit(tmp_path, widths, pixels):
    made = with_own_heads(widths, pixels)
    got, _ = open_network(written(tmp_path / "run", made))
    assert got.sha256() == made.sha256()
    assert (got.head, got.overlay, got.pixels) == (None, "none", pixels)
    assert list(got.classifiers()) == ["last-head", "all-heads"]
    for one, other in zip(got.states, made.states, strict=True):
        assert list(one.arrays()) == list(other.arrays())
        for name, array in one.arrays().items():
            assert not array.flags.writeable
            np.testing.assert_array_equal(array.view(np.uint32), other.arrays()[name].view(np.uint32))


def test_labels_of_their_own_inputs_come_back(tmp_path):
    made = dataclasses.replace(network(), overlay="append")
    got, _ = open_network(written(tmp_path / "run", made))
    assert (got.overlay, got.pixels) == ("append", 26)
    assert got.sha256() == made.sha256()


def test_a_finished_run_comes_back(finished):
    got, resolved = open_network(finished.path)
    assert got.sha256() == finished.network.sha256() == finished.summary["weights_sha256"]
    assert recorded_digest(finished.path) == got.sha256()
    assert resolved["layers"] == [20, 30]
    assert [state.steps for state in got.states] == [15, 15], "3 chunks of 100 in minibatches of 20"


def test_history_is_read_by_xarray(finished):
    with xr.open_zarr(finished.path / "run.zarr", group="history", consolidated=False) as history:
        xr.testing.assert_identical(history.load(), finished.history)
        assert history.sizes == {"chapter": 2, "layer": 2}
        assert np.isfinite(history["loss"]).all()


def test_the_configuration_is_in_the_attributes(finished):
    attributes = zarr.open_group(str(finished.path / "run.zarr"), mode="r").attrs
    assert attributes["format"] == store.FORMAT
    assert attributes["configuration"]["network"]["layers"] == [20, 30]
    assert attributes["resolved"]["nodes"] == 2


def test_a_run_folder_holds_what_it_should(finished):
    expected = {"run.zarr", "records.jsonl", "summary.json", "timeline.png"}
    assert {path.name for path in finished.path.iterdir()} == expected
    assert json.loads((finished.path / "summary.json").read_text()) == finished.summary


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "no json"])
def test_no_digest_where_the_summary_has_none(tmp_path, content):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert recorded_digest(tmp_path) is None


# --- the folder


def test_a_new_folder_is_made_with_those_above_it(tmp_path):
    folder = prepare(str(tmp_path / "a" / "b"), False)
    assert folder.path == tmp_path / "a" / "b"
    assert list(folder.path.iterdir()) == []


def test_fresh_dated_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [prepare(None, False).path for _ in range(12)]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {Path("runs")}


def test_fresh_dated_names_of_two_processes_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real, others = Path.mkdir, []

    def mkdir(path, *args, **kwargs):
        if not others and path.parent == Path("runs"):
            others.append(path)  # another process is faster
            real(path, parents=True)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert prepare(None, False).path not in others


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "run").mkdir()
    check_out(str(tmp_path / "run"), False)
    assert prepare(str(tmp_path / "run"), False).path == tmp_path / "run"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_runs_is_never_deleted(tmp_path, overwrite):
    kept = tmp_path / "run" / "thesis.tex"
    kept.parent.mkdir()
    kept.write_text("years")
    for refuse in (check_out, prepare):
        with pytest.raises(BadInput, match="exists and is no run folder; give another one"):
            refuse(str(kept.parent), overwrite)
    assert kept.read_text() == "years"


@pytest.mark.parametrize("theirs", ["a group of others", "an empty folder"])
def test_a_folder_with_a_store_of_others_is_never_deleted(tmp_path, theirs):
    kept = tmp_path / "run" / "thesis.tex"
    (tmp_path / "run" / "run.zarr").mkdir(parents=True)
    if theirs == "a group of others":
        zarr.create_group(str(tmp_path / "run" / "run.zarr"), overwrite=True, attributes={"title": "rainfall"})
    kept.write_text("years")
    for refuse in (check_out, prepare):
        with pytest.raises(BadInput, match="exists and is no run folder; give another one"):
            refuse(str(tmp_path / "run"), True)
    assert kept.read_text() == "years"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_deleted(tmp_path, overwrite):
    (tmp_path / "run").write_text("x")
    for refuse in (check_out, prepare):
        with pytest.raises(BadInput, match="exists and is no run folder"):
            refuse(str(tmp_path / "run"), overwrite)
    assert (tmp_path / "run").read_text() == "x"


def test_a_run_is_replaced_only_when_asked(tmp_path):
    path = written(tmp_path / "run", network())
    before = sorted(path.rglob("*"))
    for refuse in (check_out, prepare):
        with pytest.raises(BadInput, match="holds a run; give another folder, or --overwrite"):
            refuse(str(path), False)
    check_out(str(path), True)
    assert sorted(path.rglob("*")) == before, "looking removes nothing"
    assert prepare(str(path), True).path == path
    assert list(path.iterdir()) == [], "nothing of the old run is left"


def test_the_folder_of_a_run_that_did_not_end_can_be_replaced(tmp_path):
    prepare(str(tmp_path / "run"), False).write_configuration({}, RESOLVED)
    assert list(prepare(str(tmp_path / "run"), True).path.iterdir()) == []


def test_a_run_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    path = written(tmp_path / "run", network())
    link = tmp_path / "link"
    link.symlink_to(path)
    assert prepare(str(link), True).path == link
    assert link.is_symlink()
    assert list(path.iterdir()) == []


def test_what_cannot_be_written_is_refused_without_a_trace(tmp_path):
    (tmp_path / "file").write_text("x")
    for refuse in (check_out, prepare):
        with pytest.raises(BadInput, match=r"cannot be written.*; give a folder that can"):
            refuse(str(tmp_path / "file" / "run"), False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_configuration_for_which_there_is_no_room_is_refused_and_leaves_a_folder_for_the_next_try(tmp_path):
    """A limit of the system's on the size of files stands for the full disk."""
    folder, limits = prepare(str(tmp_path / "run"), False), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(BadInput, match=r"run, which cannot be written \(File too large\); make room, or give"):
            folder.write_configuration({}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    prepare(str(tmp_path / "run"), False).write_configuration({}, {})


def test_check_out_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_out(None, False)
    check_out("a/b/c", False)
    assert list(tmp_path.iterdir()) == []


# --- damaged stores


def test_what_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match=r"has no run\.zarr; give the folder that a run left"):
            open_network(path)


def test_a_run_that_did_not_end(tmp_path):
    prepare(str(tmp_path), False).write_configuration({}, RESOLVED)
    with pytest.raises(BadInput, match="whose run has not ended"):
        open_network(tmp_path)


@pytest.mark.parametrize(
    "name", ["layer1/weights", "layer2/bias", "layer1/running_mean", "head/weights", "head/moment"]
)
def test_a_missing_array(tmp_path, name):
    path = written(tmp_path / "run", network())
    shutil.rmtree(path / "run.zarr" / "weights" / name)
    with pytest.raises(BadInput, match=f"cannot be read: KeyError.*{name.partition('/')[2]}"):
        open_network(path)


def test_a_missing_layer(tmp_path):
    path = written(tmp_path / "run", network())
    shutil.rmtree(path / "run.zarr" / "weights" / "layer2")
    with pytest.raises(BadInput, match=r"cannot be read: KeyError.*layer2"):
        open_network(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layer1/weights", (36, 21)),
        ("layer1/weights", ()),
        ("layer1/weights", (36,)),
        ("layer2/weights", ()),
        ("layer2/weights", (21, 30)),
        ("layer2/weights", (20,)),
        ("layer1/bias", (19,)),
        ("layer1/bias", (20, 1)),
        ("head/weights", (29, 10)),
        ("head/weights", (30, 9)),
        ("head/weights", (30,)),
        ("layer1/running_mean", (19,)),
        ("layer1/moment0", (36, 21)),
        ("head/moment", (29, 10)),
    ],
)
def test_an_array_of_another_shape(tmp_path, name, shape):
    path = written(tmp_path / "run", network())
    replace(path, name, np.zeros(shape, np.float32))
    with pytest.raises(BadInput, match=r"(do|does) not fit"):
        open_network(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layer1/head", (20, 9)),
        ("layer1/head", (19, 10)),
        ("layer2/head", (30,)),
        ("layer2/head", ()),
        ("layer2/head", (20, 10)),
        ("layer1/head_moment", (20, 9)),
        ("layer2/head_moment", (10, 30)),
    ],
)
def test_an_own_head_of_another_shape(tmp_path, name, shape):
    path = written(tmp_path / "run", with_own_heads())
    replace(path, name, np.zeros(shape, np.float32))
    with pytest.raises(BadInput, match=f"layer {name[5]}'s own head does not fit"):
        open_network(path)


@pytest.mark.parametrize("layer", [1, 2])
def test_an_own_head_that_is_missing(tmp_path, layer):
    path = written(tmp_path / "run", with_own_heads())
    shutil.rmtree(path / "run.zarr" / "weights" / f"layer{layer}" / "head")
    with pytest.raises(BadInput, match=r"(some layers have heads of their own|does not fit its heads)"):
        open_network(path)


def test_an_own_head_without_its_moment(tmp_path):
    path = written(tmp_path / "run", with_own_heads())
    shutil.rmtree(path / "run.zarr" / "weights" / "layer2" / "head_moment")
    with pytest.raises(BadInput, match=r"cannot be read: KeyError.*head_moment"):
        open_network(path)


@pytest.mark.parametrize("overlay", ["replace", "append", "beside", None, 3])
def test_an_overlay_that_does_not_fit_the_heads(tmp_path, overlay):
    path = written(tmp_path / "run", with_own_heads())
    zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+").attrs["overlay"] = overlay
    with pytest.raises(BadInput):
        open_network(path)


@pytest.mark.parametrize("classes", [0, 1, 9, 11, 10**12])
def test_classes_that_do_not_fit_own_heads(tmp_path, classes):
    path = written(tmp_path / "run", with_own_heads())
    zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+").attrs["classes"] = classes
    with pytest.raises(BadInput):
        open_network(path)


@pytest.mark.parametrize(
    "name", ["layer1/weights", "layer2/bias", "layer1/running_mean", "layer1/moment1", "head/weights"]
)
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_an_array_of_another_type(tmp_path, name, dtype):
    path = written(tmp_path / "run", network())
    shape = zarr.open_group(str(path / "run.zarr" / "weights"), mode="r")[name].shape
    replace(path, name, np.zeros(shape, dtype))
    with pytest.raises(BadInput, match=f"cannot be read: ValueError: {name.partition('/')[2]} is "):
        open_network(path)


def test_an_array_of_terabytes_is_refused_before_memory_is_taken(tmp_path):
    path = written(tmp_path / "run", network())
    group = zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+")
    del group["layer1/weights"]
    group.create_array("layer1/weights", shape=(2**20, 2**20), chunks=(1000, 1000), dtype="f4")
    with pytest.raises(BadInput, match=f"of {2**42} bytes"):
        open_network(path)


@pytest.mark.parametrize(
    "codecs",
    [
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "fill_value": ""},
    ],
)
def test_nothing_is_unpickled(tmp_path, monkeypatch, codecs):
    # As with every numcodecs before the one that switched the codec off.
    import numcodecs.pickles

    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    groups = {"": {"resolved": RESOLVED}, "weights": {"layers": 1, "classes": 10}, "weights/layer1": {"steps": 1}}
    for name, attributes in groups.items():
        folder = tmp_path / "run.zarr" / name
        folder.mkdir(parents=True)
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(attributes))
    for name in ("weights", "bias", "running_mean", "moment0"):
        array = tmp_path / "run.zarr" / "weights" / "layer1" / name
        array.mkdir()
        form = {"zarr_format": 2, "shape": [36], "chunks": [36], "dtype": "<f4", "compressor": None, "filters": None}
        (array / ".zarray").write_text(json.dumps(form | {"fill_value": 0, "order": "C"} | codecs))
        (array / "0").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(BadInput):
        open_network(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_damaged_bytes(tmp_path):
    path = written(tmp_path / "run", network())
    (chunk,) = (path / "run.zarr" / "weights" / "layer1" / "weights" / "c").rglob("0/0")
    chunk.write_bytes(b"\0" * 40)
    with pytest.raises(BadInput, match="cannot be read"):
        open_network(path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"zarr_format": 3, "node_type": "group"}', b"\xff\xfe"])
def test_a_damaged_description(tmp_path, content):
    path = written(tmp_path / "run", network())
    (path / "run.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        open_network(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", 3),
        ("layers", "two"),
        ("classes", None),
        ("classes", 11),
        ("layers", 1),
        ("layers", 0),
    ],
)
def test_attributes_that_do_not_fit(tmp_path, name, value):
    path = written(tmp_path / "run", network())
    zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+").attrs[name] = value
    with pytest.raises(BadInput):
        open_network(path)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        # A word: files are named after it.
        *(("run", "a1b2", run) for run in ("../elsewhere", "a/b", 3, None, "x" * 65)),
        *(("device", "gpu", device) for device in ("tpu", 3, None, ["cpu"])),
    ],
)
def test_a_runs_id_is_a_word_and_its_device_one_of_ours(tmp_path, name, good, bad):
    path = written(tmp_path / "run", network())
    attributes = zarr.open_group(str(path / "run.zarr"), mode="r+").attrs
    attributes["resolved"] = attributes["resolved"] | {name: good}
    open_network(path)
    attributes["resolved"] = attributes["resolved"] | {name: bad}
    with pytest.raises(BadInput, match="cannot be read"):
        open_network(path)


def test_a_network_without_layers(tmp_path):
    path = written(tmp_path / "run", network(head=False))
    zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+").attrs["layers"] = 0
    with pytest.raises(BadInput):
        open_network(path)


@pytest.mark.parametrize("classes", [0, -1, 37, 10**9])
def test_classes_that_do_not_fit_a_network_without_a_head(tmp_path, classes):
    path = written(tmp_path / "run", network(head=False))
    zarr.open_group(str(path / "run.zarr" / "weights"), mode="r+").attrs["classes"] = classes
    with pytest.raises(BadInput):
        open_network(path)


def test_another_format_is_refused(tmp_path):
    path = written(tmp_path / "run", network())
    zarr.open_group(str(path / "run.zarr"), mode="r+").attrs["format"] = store.FORMAT + 1
    with pytest.raises(BadInput, match=f"its format is {store.FORMAT + 1}, this ffdask reads {store.FORMAT}"):
        open_network(path)


def test_a_run_folder_knows_its_store(tmp_path):
    assert RunFolder(tmp_path).zarr == tmp_path / "run.zarr"
