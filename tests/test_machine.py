from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections.abc import Callable

import numpy as np
import pytest
import threadpoolctl

from ffdask import machine


@pytest.fixture
def two_threads(monkeypatch):
    """BLAS at two threads, whatever the machine has, and nobody holding it; as it was afterwards."""
    monkeypatch.setattr(machine, "_holders", 0)
    monkeypatch.setattr(machine, "_held", [])
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("this BLAS has one thread only")
        yield


def elsewhere(function: Callable[[], None]) -> None:
    """Call it on another thread."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def blas_threads() -> set[int]:
    """What threadpoolctl itself says."""
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.usefixtures("two_threads")
def test_one_thread_is_held_until_the_last_holder_lets_go():
    assert machine.blas_threads() == 2
    machine.hold_one_thread()
    try:
        assert blas_threads() == {1}
        assert machine.blas_threads() == 1
        machine.hold_one_thread()
        machine.let_go()
        assert blas_threads() == {1}
    finally:
        machine.let_go()
    assert blas_threads() == {2}
    assert machine.blas_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_holding_again_after_letting_go_remembers_the_new_number():
    machine.hold_one_thread()
    machine.let_go()
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        machine.hold_one_thread()
        machine.let_go()
        assert blas_threads() == {1}
    machine.hold_one_thread()
    machine.let_go()
    assert blas_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_holders_on_many_threads_are_counted():
    def hold_often() -> None:
        for _ in range(50):
            machine.hold_one_thread()
            machine.let_go()
            seen.append(machine.blas_threads())

    seen: list[int] = []
    machine.hold_one_thread()
    holders = [threading.Thread(target=hold_often) for _ in range(4)]
    for holder in holders:
        holder.start()
    for holder in holders:
        holder.join()
    assert seen == [1] * 200
    machine.let_go()
    assert blas_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_another_thread_can_hold():
    # As a worker's event loop does. threadpoolctl leaves the main thread, which set BLAS before, in control.
    elsewhere(machine.hold_one_thread)
    assert blas_threads() == {1}


@pytest.mark.usefixtures("two_threads")
def test_another_thread_can_be_the_last_to_let_go():
    machine.hold_one_thread()
    elsewhere(machine.hold_one_thread)
    machine.let_go()
    assert blas_threads() == {1}
    elsewhere(machine.let_go)
    assert blas_threads() == {2}


def test_versions_are_those_of_python_and_the_packages():
    found = machine.versions()
    assert set(found) == {"python", *machine.VERSIONED}
    assert {"ffdask", "dask", "distributed", "numpy", "numba", "zarr", "xarray"} < set(machine.VERSIONED)
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["zarr"] == importlib.metadata.version("zarr")


def test_a_missing_package_is_absent(monkeypatch):
    monkeypatch.setattr(machine, "VERSIONED", ("numpy", "no-such-package-of-ours"))
    assert machine.versions()["no-such-package-of-ours"] == "absent"


def test_the_fingerprint_names_what_bits_depend_on():
    found = machine.fingerprint()
    assert found == machine.fingerprint()
    assert {"processor", "blas", "system", "numpy", "python"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())
    assert any(api in found["blas"] for api in ("openblas", "mkl", "blis", "accelerate", "flexiblas"))


@pytest.mark.usefixtures("two_threads")
def test_the_fingerprint_does_not_change_with_the_threads():
    before = machine.fingerprint()
    machine.hold_one_thread()
    try:
        assert machine.fingerprint() == before
    finally:
        machine.let_go()


def test_peak_memory_is_in_bytes_and_never_falls():
    room = np.ones(4 << 20)
    peak = machine.peak_memory()
    assert peak >= room.nbytes
    assert peak < 1 << 45
    del room
    assert machine.peak_memory() >= peak


def test_the_fingerprint_does_not_depend_on_the_order_in_which_libraries_are_found(monkeypatch):
    class Library:
        internal_api, version = "some", "1"

        def __init__(self, architecture):
            self.architecture = architecture

    found = []
    for order in ("AB", "BA"):
        monkeypatch.setattr(machine, "_blas", lambda order=order: [Library(name) for name in order])
        found.append(machine.fingerprint())
    assert found[0] == found[1]
    assert found[0]["blas"] == "some 1 A; some 1 B"
