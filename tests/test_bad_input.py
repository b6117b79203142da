"""Bad input: refused before any work, with exit code 2 and one line that says what to do; nothing is written."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import datasets_files as files
import numpy as np
import pytest
from conftest import make_store
from distributed import LocalCluster
from zarr import open_group

from ffdask import datasets, embedded, machine, precision, scheduler
from ffdask.driver import NO_DRIVER
from ffdask.kernels import onednn
from ffdask.store import FORMAT

BASE = ["--chunk", "100", "--batch-size", "20", "--layers", "20,30", "--epochs", "1", "--units", "2", "--out", "out"]
WITHOUT_FFDASK = """
import importlib.metadata as m, sys
real = m.version
def version(name):
    if name == "ffdask":
        raise m.PackageNotFoundError(name)
    return real(name)
m.version = version
sys.modules["ffdask"] = None
"""


class Place:
    """Where a case happens: a working folder, a folder beside it for what is given, and things to undo."""

    def __init__(self, path: Path, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given, self.work, self.stack, self.monkeypatch = path / "given", path / "work", stack, monkeypatch
        self.given.mkdir()
        self.work.mkdir()

    def snapshot(self) -> dict[str, bytes | None]:
        """Return every path below both folders, with its content."""
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for folder in (self.given, self.work)
            for path in folder.rglob("*")
        }

    def scheduler(self, workers: int = 0) -> str:
        """Start a scheduler with `workers` in this process; return its address."""
        local = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )
        return self.stack.enter_context(local).scheduler_address


Arguments = list[object]
Case = Callable[[Place], Arguments]


def case(id_: str, given: Arguments | Case, *says: str):
    return pytest.param(given if callable(given) else lambda place: given, says, id=id_)


def toml(text: str) -> Case:
    def write(place: Place) -> Arguments:
        (place.given / "g.toml").write_text(text)
        return [place.given / "g.toml"]

    return write


def idx(name: str) -> Case:
    return lambda place: ["--dataset", files.bad_folders(name, place.given / "idx")]


def store(**instead: object) -> Case:
    return lambda place: ["--dataset", make_store(place.given / "d.zarr", **instead)]


def changed_store(place: Place) -> Arguments:
    path = make_store(place.given / "d.zarr")
    array = open_group(str(path), mode="r+")["train_labels"]
    array[0] = (int(array[0]) + 1) % 10
    datasets.forget()  # a store's rows are hashed once in a process
    return ["--dataset", path]


def labels_in_a_store(place: Place) -> Arguments:
    path = make_store(place.given / "d.zarr")
    open_group(str(path), mode="r+")["train_labels"][0] = 11
    datasets.forget()
    return ["--dataset", path]


def npz(**instead: np.ndarray | None) -> Case:
    return lambda place: ["--dataset", files.keras_npz(place.given / "m.npz", files.tiny(), **instead)]


def long_header(place: Place) -> Arguments:
    names = np.zeros(100, [(f"field{i}", "u1") for i in range(1000)])
    return npz(x_train=names)(place)


def text_file(place: Place) -> Arguments:
    (place.given / "mnist.txt").write_text("5,0,0")
    return ["--dataset", place.given / "mnist.txt"]


def below_a_file(place: Place) -> Arguments:
    (place.work / "file").write_text("x")
    return ["--out", "file/run"]


def filled_folder(place: Place) -> Arguments:
    (place.work / "out").mkdir()
    (place.work / "out" / "thesis.tex").write_text("years")
    return ["--overwrite"]


def file_in_place(place: Place) -> Arguments:
    (place.work / "out").write_text("x")
    return ["--overwrite"]


def run_there(place: Place) -> Arguments:
    (place.work / "out" / "run.zarr").mkdir(parents=True)
    ours = {"attributes": {"format": FORMAT, "configuration": {}}}
    (place.work / "out" / "run.zarr" / "zarr.json").write_text(json.dumps(ours))
    (place.work / "out" / "summary.json").write_text("{}")
    return []


def report_below_a_file(place: Place) -> Arguments:
    (place.work / "file").write_text("x")
    return ["--report", "file/report.html"]


def closed_port(place: Place) -> Arguments:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A refused connection is tried again until the time is up.
    place.monkeypatch.setattr(scheduler, "CONNECT_SECONDS", 0.5)
    return ["--scheduler", f"tcp://127.0.0.1:{port}"]


def no_workers(place: Place) -> Arguments:
    return ["--scheduler", place.scheduler(), "--set", "cluster.wait=0.5"]


def too_few_workers(place: Place) -> Arguments:
    return ["--scheduler", place.scheduler(1), "--workers", "2", "--set", "cluster.wait=0.5"]


def other_version(place: Place) -> Arguments:
    ours = machine.versions() | {"ffdask": "9.9"}
    place.monkeypatch.setattr(machine, "versions", lambda: ours)
    return ["--scheduler", place.scheduler(1)]


def without_ffdask(place: Place) -> Arguments:
    site = place.given.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT_FFDASK)
    address = place.scheduler()
    options = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--name", "bare", "--death-timeout", "60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", "worker", address, *options, "--local-directory", site],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=site,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def stop() -> None:
        process.kill()
        process.wait(10)

    place.stack.callback(stop)
    return ["--scheduler", address]


def other_bits(place: Place) -> Arguments:
    real, main = machine.fingerprint(), threading.get_ident()
    there = real | {"blas": "another one"}
    place.monkeypatch.setattr(machine, "fingerprint", lambda: real if threading.get_ident() == main else there)
    return ["--scheduler", place.scheduler(1), "--strict-bits"]


def old_processor(place: Place) -> Arguments:
    place.monkeypatch.setattr(precision, "without_bfloat16", lambda: "it is too old")
    return ["--precision", "bfloat16"]


def old_worker(place: Place) -> Arguments:
    main = threading.get_ident()
    monkeypatch = place.monkeypatch
    monkeypatch.setattr(onednn, "unavailable", lambda: "" if threading.get_ident() == main else "it is too old")
    return ["--precision", "bfloat16", "--scheduler", place.scheduler(1)]


def small_memory(place: Place) -> Arguments:
    place.monkeypatch.setattr(embedded, "MEMORY_LIMIT", 2**20)
    return []


def mnist_with_too_many_chapters(place: Place) -> Arguments:
    def fetched(*_: object) -> None:
        raise AssertionError("MNIST was fetched before the configuration was held against its known shape")

    place.monkeypatch.setattr("ffdask.datasets.catalogue.gather", fetched)
    return ["--dataset", "mnist", "--chapters", "1000"]


LONG = "a" * 300

CASES = [
    # --- the graph file
    case("no such file", ["nowhere.toml"], "graph file", "nowhere.toml", "does not exist", "graphs/"),
    case("a folder for a file", lambda place: [place.given], "graph file", "cannot be read"),
    case("not TOML", toml("[data\n"), "graph file", "g.toml", "is not TOML"),
    case("not UTF-8", lambda p: [(p.given / "g.toml").write_bytes(b"\xff\xfe") and p.given / "g.toml"], "cannot be"),
    case("unknown key", toml("[training]\nepoch = 3\n"), "g.toml", "'training.epoch'", "did you mean 'epochs'?"),
    case("unknown table", toml("[trainig]\nepochs = 3\n"), "'trainig'", "did you mean 'training'?", "tables are data"),
    case("key without table", toml("epochs = 3\n"), "'epochs'", "tables are data, network, training"),
    case("table as number", toml("training = 3\n"), "given", "training", "table.key"),
    case("key of another table", toml("[data]\nseed = 3\n"), "'data.seed'", "did you mean 'training.seed'?"),
    case("text for a count", toml('[schedule]\nnodes = "2"\n'), "schedule.nodes", "given '2'", "valid integer"),
    case("truth for a count", toml("[schedule]\nnodes = true\n"), "schedule.nodes", "given True", "valid integer"),
    case("number for a truth", toml("[run]\nquiet = 1\n"), "run.quiet", "given 1", "valid boolean"),
    case("number for a name", toml("[schedule]\nname = 1\n"), "schedule.name", "given 1", "valid string"),
    case("date for a seed", toml("[head]\nrate = 2026-01-01\n"), "head.rate", "2026-01-01", "valid number"),
    # --- counts and rates
    case("zero epochs", ["--epochs", 0], "training.epochs", "given 0", "greater than 0"),
    case("negative epochs", ["--epochs", -1], "training.epochs", "given -1", "greater than 0"),
    case("half an epoch", ["--epochs", 0.5], "training.epochs", "given 0.5", "valid integer"),
    case("epochs as text", ["--epochs", "many"], "training.epochs", "given 'many'", "valid integer"),
    case("countless epochs", ["--epochs", 2**31], "training.epochs", f"given {2**31}", "less than"),
    case("zero chunk", ["--chunk", 0], "data.chunk", "given 0", "greater than 0"),
    case("zero batch", ["--batch-size", 0], "training.batch_size", "given 0", "greater than 0"),
    case("zero nodes", ["--nodes", 0], "schedule.nodes", "given 0", "greater than 0"),
    case("zero workers", ["--workers", 0], "cluster.workers", "given 0", "greater than 0"),
    case("zero units", ["--units", 0], "cluster.units", "given 0", "greater than 0"),
    case("zero chapters", ["--chapters", 0], "schedule.chapters", "given 0", "greater than 0"),
    case("countless nodes", ["--nodes", 4097], "schedule.nodes", "given 4097", "less than or equal to 4096"),
    case("countless workers", ["--workers", 4097], "cluster.workers", "given 4097", "less than or equal to 4096"),
    case("countless units", ["--units", 4097], "cluster.units", "given 4097", "less than or equal to 4096"),
    case("negative staleness", ["--staleness", -1], "schedule.staleness", "given -1", "greater than or equal to 0"),
    case("negative seed", ["--seed", -1], "training.seed", "given -1", "greater than or equal to 0"),
    case("shift", ["--shift", 17], "training.shift", "given 17", "less than or equal to 16"),
    case("NaN rate", ["--learning-rate", "nan"], "optimizer.learning_rate", "given nan", "finite number"),
    case("endless rate", ["--learning-rate", "inf"], "optimizer.learning_rate", "given inf", "finite number"),
    case("zero rate", ["--learning-rate", 0], "optimizer.learning_rate", "given 0", "greater than 0"),
    case("negative rate", ["--learning-rate", -0.1], "optimizer.learning_rate", "given -0.1", "greater than 0"),
    case("NaN by --set", ["--set", "head.decay=nan"], "head.decay", "given nan", "finite number"),
    case("momentum of one", ["--set", "optimizer.momentum=1"], "optimizer.momentum", "given 1", "less than 1"),
    case("memory", ["--memory-limit", "lots"], "cluster.memory_limit", "given 'lots'", "such as '4GiB'"),
    case("no memory", ["--memory-limit", "0GB"], "cluster.memory_limit", "given '0GB'", "such as '4GiB'"),
    # --- the network
    case("layers with zero", ["--layers", "0,10"], "network.layers.0", "given 0", "greater than 0"),
    case("layers of names", ["--layers", "a,b"], "network.layers", "given 'a'", "valid integer"),
    case("layers with an end", ["--layers", "10,"], "network.layers.1", "given ''", "valid integer"),
    case("layers of nothing", ["--layers", ""], "network.layers", "given ''"),
    case("no layers", ["--layers", "[]"], "network.layers", "given []", "at least 1"),
    case("layers of fractions", ["--layers", "10,2.5"], "network.layers.1", "given 2.5", "valid integer"),
    case("batch larger than the chunk", ["--batch-size", 101], "--batch-size", "given 101", "100"),
    case(
        "batch larger than the rows",
        ["--chunk", 400, "--batch-size", 301],
        *("--batch-size", "given 301", "300 rows", "smaller", "larger"),
    ),
    case("too many chapters", ["--chapters", 4], "--chapters", "given 4", "only 3 visits", "at most 3"),
    case("too many chapters of MNIST", mnist_with_too_many_chapters, "--chapters", "given 1000", "at most 600"),
    # --- names
    case("schedule", ["--schedule", "streeming"], "'streeming'", "sequential", "did you mean 'streaming'?"),
    case("objective", ["--objective", "goodnes"], "'goodnes'", "allowed are", "did you mean 'goodness'?"),
    case("negatives", ["--negatives", "sampeld"], "'sampeld'", "random", "did you mean 'sampled'?"),
    case("classifier", ["--classifier", "softmx"], "'softmx'", "goodness", "did you mean 'softmax'?"),
    case("optimizer", ["--optimizer", "adan"], "'adan'", "momentum", "did you mean 'adam'?"),
    case("device", ["--device", "gpus"], "'gpus'", "auto", "cpu", "did you mean 'gpu'?"),
    case("no such GPU", ["--device", "gpu"], "--device", "given 'gpu'", NO_DRIVER, "give cpu, or auto"),
    case(
        "GPU nodes of a GPU", ["--device", "gpu", "--nodes", 2, "--gpu-nodes", 1], "given 1", "'gpu'", "leave out one"
    ),
    case("GPU nodes of any number", ["--gpu-nodes", "0,1"], "--gpu-nodes", "given 0, 1", "cluster", "give --nodes"),
    case("GPU node beyond", ["--nodes", 2, "--gpu-nodes", "0,2"], "--gpu-nodes", "given 0, 2", "nodes are 0 to 1"),
    case(
        "GPU node below", ["--nodes", 2, "--gpu-nodes", -1], "training.gpu_nodes", "given -1", "greater than or equal"
    ),
    case("GPU nodes without a GPU", ["--nodes", 2, "--gpu-nodes", 1], "--gpu-nodes", "given 1", NO_DRIVER, "leave"),
    case("triple", ["--negatives", "none"], "goodness, none, softmax", "do not go together", "goodness with sampled |"),
    case(
        "objective and negatives",
        ["--objective", "classifier", "--negatives", "sampled"],
        *("classifier, sampled, all-heads", "do not go together", "classifier with none and all-heads | last-head"),
    ),
    case("classifier of another objective", ["--classifier", "last-head"], "goodness, sampled, last-head", "do not go"),
    case("candidates of other negatives", ["--candidates", 3], "--candidates", "given 3", "adaptive", "leave it out"),
    case(
        "candidates of the other classifier",
        ["--candidates", 3, "--negatives", "adaptive"],
        *("--candidates", "given 3", "goodness classifier", "leave it out"),
    ),
    case("zero candidates", ["--candidates", 0], "network.candidates", "given 0", "greater than 0"),
    case("exchange", ["--exchange", "rows"], "schedule.exchange", "'rows'", "batch", "chunk"),
    case(
        "exchange of states by batch",
        ["--exchange", "batch", "--schedule", "all-layers"],
        *("--exchange", "given 'batch' with all-layers", "only streaming"),
    ),
    case("overlay", ["--overlay", "apend"], "data.overlay", "'apend'", "did you mean 'append'?"),
    case("overlay of none", ["--overlay", "none"], "data.overlay", "'none'", "replace", "append"),
    case("dropout of everything", ["--dropout", 1], "layer.dropout", "given 1", "less than 1"),
    case("negative dropout", ["--dropout", -0.1], "layer.dropout", "given -0.1", "greater than or equal to 0"),
    case("goodness of squares", ["--set", "layer.goodness=median"], "layer.goodness", "'median'", "sum", "mean"),
    case("zero scale", ["--scale", 0], "training.scale", "given 0", "greater than 0"),
    case("scale beyond bounds", ["--scale", 101], "training.scale", "given 101", "less than or equal to 100"),
    case("endless scale", ["--scale", "nan"], "training.scale", "given nan"),
    case("negative validation", ["--validation", -1], "data.validation", "given -1", "greater than or equal to 0"),
    case("half a row held out", ["--validation", 0.5], "data.validation", "given 0.5", "valid integer"),
    case("every row held out", ["--validation", 300], "--validation", "given 300 of 300", "hold out fewer"),
    case("too few rows left", ["--validation", 281], "--batch-size", "given 20", "19 rows"),
    case("too many chapters of few epochs", ["--epochs", 4, "--scale", 0.25, "--chapters", 4], "1 epochs", "at most 3"),
    # --- the data
    case(
        "misspelt data set",
        ["--dataset", "mnits"],
        "'mnits'",
        "did you mean 'mnist'?",
        "known: cifar-10, fashion-mnist, kmnist, mnist",
        "IDX",
    ),
    case("no such data", ["--dataset", "no/data"], "'no/data'", "neither a known name nor a path that exists"),
    case("no data set", ["--dataset", ""], "data.dataset", "given ''", "at least 1"),
    case(
        "long name of a data set",
        ["--dataset", LONG],
        "data set",
        LONG,
        "known: cifar-10, fashion-mnist, kmnist, mnist",
    ),
    case(
        "home of nobody",
        ["--dataset", "~nobody-of-that-name/mnist"],
        *("data set", "~nobody-of-that-name/mnist", "known: cifar-10, fashion-mnist, kmnist, mnist"),
    ),
    case("text for data", text_file, "mnist.txt", "is not a data set", "allowed are", "IDX"),
    case("an empty folder", lambda place: ["--dataset", place.given], "has no train-images-idx3-ubyte", "put them"),
    case("IDX file missing", idx("missing"), "has no train-labels-idx1-ubyte", "put them there"),
    case("IDX truncated", idx("short"), "train-images-idx3-ubyte", "truncated", "fetch the file again"),
    case("IDX header truncated", idx("short header"), "train-images-idx3-ubyte", "truncated", "fetch the file again"),
    case("IDX gzip cut", idx("gzip cut"), "train-images-idx3-ubyte.gz", "corrupt gzip", "fetch the file again"),
    case("not IDX", idx("magic"), "train-images-idx3-ubyte", "is not an IDX file", "check that it is the right"),
    case("IDX of floats", idx("type"), "0x0d", "only unsigned bytes (0x08)", "convert it"),
    case("IDX swapped", idx("swapped"), "1 dimensions", "have 3", "check that images and labels are not swapped"),
    case("IDX of unlike counts", idx("count"), "12 images", "11 labels"),
    case(
        "IDX of unlike shapes", idx("shapes"), "train-images-idx3-ubyte", "(28, 28)", "(27, 28)", "must have the same"
    ),
    case("IDX empty", idx("empty"), "is empty", "at least one row"),
    case("IDX header of terabytes", idx("huge"), "header", "at most", "smaller data set"),
    case("images without room", store(side=3), "3 x 3", "the 10 inputs of the label", "--overlay append"),
    case("store changed", changed_store, "was changed or damaged", "obtain the data set again"),
    case("store with label outside", labels_in_a_store, "was changed or damaged", "obtain the data set again"),
    case("npz without an array", npz(y_test=None), "m.npz", "has no y_test", "give another file"),
    case(
        "npz pickled", npz(x_train=np.array([{}, {}], object)), "x_train", "pickled objects", "only integers and floats"
    ),
    case("npz of floats", npz(y_test=np.zeros(5)), "y_test", "float64", "only integers", "convert it"),
    case("npz of both types", npz(x_test=np.zeros((5, 28, 28))), "x_test", "float64", "scaled by 1/255", "convert it"),
    case("npz label outside", npz(y_train=np.full(12, 256)), "y_train", "is 256", "0 to 255 are allowed"),
    case("npz with a long header", long_header, "x_train", "not a NumPy array", "fetch the file again"),
    # --- the folder and the report
    case("out below a file", below_a_file, "--out", "file/run", "cannot be written", "give a folder that can"),
    case("out in /proc", ["--out", "/proc/ffdask"], "--out", "/proc/ffdask", "cannot be written", "give a folder"),
    case("out is no run folder", filled_folder, "--out", "given out", "is no run folder", "give another one"),
    case("out is a file", file_in_place, "--out", "given out", "is no run folder", "give another one"),
    case("out holds a run", run_there, "--out", "given out", "holds a run", "--overwrite"),
    case("out of no name", ["--out", ""], "run.out", "given ''", "at least 1"),
    case("out of a long name", ["--out", LONG], "--out", LONG, "cannot be written"),
    case("out with a zero byte", ["--out", "a\0b"], "run.out", "given 'a\\x00b'", "zero byte"),
    case("report in no folder", ["--report", "no/report.html"], "--report", "no/report.html", "is no folder to write"),
    case("report below a file", report_below_a_file, "--report", "file/report.html", "is no folder to write"),
    case("report is a folder", ["--report", "."], "--report", "given ."),
    case(
        "report with a zero byte", toml('[run]\nreport = "a\\u0000b"\n'), "run.report", "given 'a\\x00b'", "zero byte"
    ),
    # --- the cluster
    case("scheduler unreachable", closed_port, "--scheduler", "tcp://127.0.0.1:", "within", "s", "dask scheduler"),
    case("scheduler of no scheme", ["--scheduler", "abc://x"], "--scheduler", "abc://x", "tcp://host:8786"),
    case("scheduler without workers", no_workers, "0 of 1 workers", "0.5 s (cluster.wait)", "dask worker tcp://"),
    case("too few workers", too_few_workers, "1 of 2 workers", "0.5 s (cluster.wait)", "dask worker tcp://"),
    case(
        "another version",
        other_version,
        "worker tcp://",
        f"has ffdask {machine.versions()['ffdask']}",
        "needs ffdask 9.9",
        "install",
    ),
    case("no ffdask", without_ffdask, "worker tcp://", "has no ffdask", "needs ffdask", "install it there"),
    case("an old processor", old_processor, "training.precision", "this machine: it is too old", "give float32"),
    case("an old worker", old_worker, "training.precision", "'bfloat16'", "0: it is too old", "give float32"),
    case("other bits", other_bits, "--strict-bits", "blas 'another one'", "use like workers", "leave the flag out"),
    case(
        "too little memory", small_memory, "memory", "a worker needs about", "GiB and has 0.00 GiB", "give more memory"
    ),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:
        made = Place(tmp_path, stack, monkeypatch)
        monkeypatch.chdir(made.work)
        yield made


@pytest.mark.parametrize(("given", "says"), CASES)
def test_bad_input_is_refused_before_any_work(place, command, tiny, given, says):
    arguments = given(place)
    before = place.snapshot()
    said = command("train", "--dataset", tiny, *BASE, *arguments)
    assert said.code == 2, said
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.out + said.err
    for part in says:
        assert part in lines[0]
    assert place.snapshot() == before, "nothing is written"
    assert not datasets.cache_folder().exists(), "nothing is converted or fetched"


@pytest.mark.parametrize("given_", [no_workers, too_few_workers])
def test_a_wait_for_workers_is_announced(place, command, tiny, given_):
    said = command("train", "--dataset", tiny, *BASE, *given_(place))
    wanted = 2 if given_ is too_few_workers else 1
    assert said.out == f"waiting up to 0.5 s for workers: {wanted - 1} of {wanted} so far\n"


def test_an_unreachable_scheduler_is_given_up_within_15_s():
    assert scheduler.CONNECT_SECONDS <= 15


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--layers", "a,b"], ["network.layers", "given 'a'"]),
        (["--dataset", "mnits"], ["'mnits'", "did you mean 'mnist'?"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
    ],
    ids=["layers", "data set", "usage"],
)
def test_bad_input_in_a_process_of_its_own(tmp_path, tiny, arguments, says):
    call = [sys.executable, "-m", "ffdask.train", "--dataset", tiny, *BASE, *arguments]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    for part in says:
        assert part in line
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_a_run_refuses_for_memory(place, command, tiny):
    small_memory(place)
    said = command("train", "--dry-run", "--dataset", tiny, *BASE)
    assert said.code == 2
    assert "a worker needs about" in said.err
