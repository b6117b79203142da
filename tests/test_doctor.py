from __future__ import annotations

import importlib.metadata
import json
import os
from ctypes import c_char, c_int
from pathlib import Path

import numpy as np
import pytest
import standin
from conftest import make_store
from device_host import COMPILER, LACKING
from distributed import LocalCluster

from ffdask import accelerator, cluster_health, datasets, health, machine
from ffdask import driver as driver_room
from ffdask.accelerator import described, graphics, unusable, without_tensor_cores
from ffdask.cluster_health import compared, examine_cluster
from ffdask.driver import Graphics
from ffdask.kernels import without_bfloat16
from ffdask.speed import FLOPS, measure
from ffdask.tables import ClusterTable

root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


# --- the command


@pytest.fixture
def quick(monkeypatch):
    """Only what takes no time."""
    monkeypatch.setattr(health, "LOOKS", {name: health.LOOKS[name] for name in ("packages", "runs")})


def test_a_whole_examination_of_this_machine(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command("doctor", "--json", "--seconds", "0.1")
    found = json.loads(said.out)
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1), found
    assert found["expected_to_work"] is True
    by_name = {finding["name"]: finding for finding in found["findings"]}
    assert list(by_name) == [*health.LOOKS, "speed"]
    assert by_name["packages"]["values"]["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert 1 <= by_name["processor"]["values"]["cores"] <= os.cpu_count()
    assert by_name["blas"]["values"]["libraries"][0]["num_threads"] >= 1
    assert by_name["bfloat16"]["values"]["there"] is (without_bfloat16() == "")
    assert by_name["cache"]["values"]["folder"] == os.environ["FFDASK_CACHE"]
    assert by_name["runs"]["values"]["folder"] == str(tmp_path / "runs")
    assert by_name["speed"]["values"]["float32, 1 thread"]["gflops"] > 0
    assert not list(tmp_path.iterdir()), "it leaves nothing"


def test_what_is_found_is_printed_a_line_each_and_the_verdict_last(command, quick):
    said = command("doctor", "--seconds", "0.05")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["ok", "packages"], ["ok", "runs"], ["ok", "speed"]]
    assert lines[-1] == "a run can be expected to work"
    assert "\x1b" not in said.out


def test_what_would_stop_a_run_is_exit_code_1_with_what_to_do(command, quick, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy>=99", "nowhere>=1"])
    said = command("doctor", "--seconds", "0.05")
    assert (said.code, said.err) == (1, "")
    assert "stop packages" in said.out
    assert "-> pip install 'numpy>=99' 'nowhere>=1'" in said.out
    assert said.out.endswith("a run would be stopped: see above what to do\n")
    assert json.loads(command("doctor", "--seconds", "0.05", "--json").out)["expected_to_work"] is False


def test_one_thing_that_breaks_leaves_the_others(command, quick, monkeypatch):
    def broken():
        raise OSError("its disk is gone")

    monkeypatch.setitem(health.LOOKS, "packages", broken)
    said = command("doctor", "--seconds", "0.05")
    assert said.code == 1
    assert "stop packages   OSError: its disk is gone" in said.out
    assert "ok   runs" in said.out
    assert "ok   speed" in said.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "0"], "--seconds: given 0; it takes seconds above 0"),
        (["--seconds", "nan"], "--seconds: given nan"),
        (["--scheduler", "tls://host:1", "--tls-ca", "none"], "TLS takes all of --tls-ca, --tls-cert, --tls-key"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(command, arguments, says):
    said = command("doctor", *arguments)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert says in said.err


# --- this machine


def test_optional_packages_are_named_with_their_extra(monkeypatch):
    lines = ["numpy>=2", "numba>=0.1; extra == 'bfloat16'", "nowhere>=1; extra == 'gpu'", "pytest>=8; extra == 'test'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    found = health.optional()
    assert found.values == {"there": {"numba": importlib.metadata.version("numba")}, "lacking": {"nowhere": "gpu"}}
    assert "nowhere absent (ffdask[gpu])" in found.said


def test_the_cache_and_what_is_in_it(cache):
    assert "no data set yet" in health.cache().said
    datasets.obtain(str(make_store(Path(os.environ["FFDASK_CACHE"]) / "data-x.zarr")))
    (cache / "damaged.zarr").mkdir()
    found = health.cache()
    assert "tiny (300 + 50 rows)" in found.said
    assert found.values["datasets"] == ["tiny"]
    assert found.values["bytes"] > 10_000


@root
def test_a_cache_that_cannot_be_written_would_stop_a_run(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    assert (health.cache().state, health.cache().do) == ("stop", "set FFDASK_CACHE to a folder that can be written")


def test_a_file_where_the_cache_should_be_would_stop_a_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "file" / "cache"))
    found = health.cache()
    assert (found.state, found.do) == ("stop", "set FFDASK_CACHE to a folder that can be written")
    assert f"{tmp_path / 'file'} cannot be written" in found.said


def test_a_full_disk_would_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "ROOM", 1 << 60)
    monkeypatch.chdir(tmp_path)
    assert health.runs().state == "stop"
    assert health.runs().do == "make room, or name another folder by --out"


def test_little_memory_is_worth_a_note(monkeypatch):
    monkeypatch.setattr(health, "machine_memory", lambda: 1 << 30)
    found = health.memory()
    assert (found.state, found.values["limit_bytes"]) == ("note", 1 << 30)
    assert "1.0 GiB may be used" in found.said


def test_a_busy_machine_is_worth_a_note(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert health.processor().state == "note"
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert health.processor().state == "ok"


def test_the_speed_is_that_of_steps_that_were_done():
    found = measure(0.05, 2, "numpy")
    assert found.threads == 2
    assert found.steps >= 2, "each thread does one at least"
    assert found.seconds > 0
    assert found.gflops == pytest.approx(found.steps * FLOPS / found.seconds / 1e9)
    assert machine.blas_threads() >= 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_kernels_that_compute_nonsense_would_stop_a_run(monkeypatch):
    from ffdask.kernels import reference

    monkeypatch.setattr(reference, "matmul", lambda a, b, out=None: a @ b * float("nan"))
    with pytest.raises(ArithmeticError, match="not finite"):
        measure(0.01, 1, "numpy")


# --- a GPU


class Driver:
    """CUDA's driver, as `ctypes` has it, of so many devices."""

    def __init__(self, devices: int = 1, version: int = 12040, status: int = 0) -> None:
        self.devices, self.version, self.status = devices, version, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, to) -> int:
        to._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, to) -> int:
        to._obj.value = self.devices
        return 0

    def cuDeviceGet(self, to, number: int) -> int:
        to._obj.value = number
        return 0

    def cuDeviceGetName(self, text, length: int, device: c_int) -> int:
        assert isinstance(text[0], bytes | c_char)
        text.value = f"Card {device.value}".encode()
        return 0

    def cuDeviceGetAttribute(self, to, attribute: int, device: c_int) -> int:
        to._obj.value = {75: 9, 76: 0}[attribute]
        return 0


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def none(name):
        raise OSError(name)

    monkeypatch.setattr(driver_room.ctypes, "CDLL", none)
    monkeypatch.setattr(accelerator, "_installed", lambda package: False)
    assert graphics() == (
        "none: no NVIDIA driver is installed",
        {"devices": [], "cuda": None, "cupy": []},
    )


@pytest.mark.parametrize(
    ("driver", "says"),
    [
        (Driver(status=100), "none: the NVIDIA driver does not start (cuInit returns 100)"),
        (Driver(devices=0), "none: the NVIDIA driver finds no device"),
    ],
)
def test_why_there_is_no_gpu(monkeypatch, driver, says):
    monkeypatch.setattr(driver_room.ctypes, "CDLL", lambda name: driver)
    assert graphics()[0].startswith(says)


@pytest.mark.parametrize(
    ("version", "wheel"),
    [(12040, "cupy-cuda12x"), (13000, "cupy-cuda13x"), (14010, "cupy-cuda13x"), (11080, "too old")],
)
def test_which_wheel_fits_the_driver(monkeypatch, version, wheel):
    monkeypatch.setattr(driver_room.ctypes, "CDLL", lambda name: Driver(2, version))
    monkeypatch.setattr(accelerator, "_installed", lambda package: False)
    said, values = graphics()
    assert said.startswith(f"Card 0, Card 1, CUDA {version // 1000}.{version % 1000 // 10} by its driver")
    assert "not used: " in said
    assert ("CuPy is not installed" in said) == (version >= 12000)
    assert wheel in said
    assert values["devices"] == ["Card 0", "Card 1"]


def test_a_gpu_that_cannot_be_used_is_said_to_be_unused(monkeypatch):
    monkeypatch.setattr(driver_room.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(accelerator, "_installed", lambda package: True)
    monkeypatch.setattr(accelerator, "unusable", lambda: "something is missing")
    assert graphics()[0].endswith("by its driver; not used: something is missing")


@pytest.mark.skipif(not COMPILER, reason=LACKING)
def test_a_gpu_is_tried(monkeypatch):
    monkeypatch.setattr(accelerator, "devices", lambda: Graphics(["Card 0"], (9, 0), 12040))
    monkeypatch.setattr(accelerator, "_wheels", lambda: ["numpy"])
    with standin.in_the_place_of_cupy():
        assert unusable() == ""
        assert standin.products
        assert described() == f"Card 0, CUDA 12.4, numpy {np.__version__}"
        monkeypatch.setattr(standin.module.cuda.cublas, "gemmEx", fails)
        assert unusable().startswith("CuPy cannot use Card 0 (RuntimeError: no library")
        assert described() == ""


def fails(*given):
    raise RuntimeError("no library")


@pytest.mark.parametrize(("capability", "why"), [(8, ""), (7, "Card 0 has compute capability 7.0, and it takes 8.0")])
def test_which_gpus_multiply_fewer_bits(monkeypatch, capability, why):
    monkeypatch.setattr(
        Driver, "cuDeviceGetAttribute", lambda self, to, attribute, device: _set(to, attribute, capability)
    )
    monkeypatch.setattr(driver_room.ctypes, "CDLL", lambda name: Driver())
    assert without_tensor_cores() == why


def _set(to, attribute, capability):
    to._obj.value = {75: capability, 76: 0}[attribute]
    return 0


# --- a given cluster


@pytest.fixture(scope="module")
def given():
    """A cluster of two workers in this process, as somebody else would have started it."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def test_a_cluster_of_like_workers_is_well_and_left_as_it_was(given, command, quick):
    address = given.scheduler_address
    before = {name: dict(worker.state.total_resources) for name, worker in given.workers.items()}
    said = command("doctor", "--scheduler", address, "--json", "--seconds", "0.05")
    found = {finding["name"]: finding for finding in json.loads(said.out)["findings"]}
    assert said.code == 0
    assert found["scheduler"]["values"] == {"workers": 2, "threads": 2}
    assert found["workers"]["said"] == "all have the same versions as this machine"
    assert {name: dict(worker.state.total_resources) for name, worker in given.workers.items()} == before
    assert not any("ffdask" in name for worker in given.workers.values() for name in worker.plugins)


def test_differences_are_named(given, monkeypatch):
    here = machine.versions() | {"zarr": "0.0.1"}
    monkeypatch.setattr(cluster_health.machine, "versions", lambda: here)
    _, workers = examine_cluster(ClusterTable(scheduler=given.scheduler_address))
    zarr = importlib.metadata.version("zarr")
    assert workers.state == "note"
    assert workers.said == f"worker 0 has zarr {zarr} (here 0.0.1); worker 1 has zarr {zarr} (here 0.0.1)"
    assert workers.do.startswith("a run works")


def test_workers_without_ffdask_would_stop_a_run():
    ours = machine.versions()
    without = {name: version for name, version in ours.items() if name != "ffdask"}
    older = ours | {"ffdask": "0.0.1"}
    found = compared({"a": ours, "b": without, "c": older, "d": OSError("gone")})
    assert found.state == "stop"
    assert found.values["differences"] == [
        f"worker b has ffdask absent (here {ours['ffdask']})",
        f"worker c has ffdask 0.0.1 (here {ours['ffdask']})",
        "worker d does not answer (OSError: gone)",
    ]
    assert found.do == f"install ffdask {ours['ffdask']} on every worker, and start it again"
    assert compared({"a": ours}).state == "ok"


def test_a_scheduler_that_does_not_answer_would_stop_a_run(monkeypatch):
    from ffdask import scheduler

    monkeypatch.setattr(scheduler, "CONNECT_SECONDS", 1)
    (found,) = examine_cluster(ClusterTable(scheduler="tcp://127.0.0.1:9"))
    assert (found.name, found.state) == ("scheduler", "stop")
    assert "does not answer within 1 s" in found.said


def test_a_scheduler_without_workers_would_stop_a_run():
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        (found,) = examine_cluster(ClusterTable(scheduler=cluster.scheduler_address))
    assert (found.state, found.do) == ("stop", f"start workers: dask worker {cluster.scheduler_address}")
