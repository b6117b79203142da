"""benchmarks/cores.py: whose processor time is whose."""

from __future__ import annotations

import threading
import time

import cores
from interpreter import kind_of


def work(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_threads_of_a_kind_are_added_up_between_the_first_record_and_the_last():
    go = threading.Event()

    def busy():
        go.wait()
        work(0.2)
        ended.release()
        leave.wait()

    ended, leave = threading.Semaphore(0), threading.Event()
    threads = [threading.Thread(target=busy, name=f"worker{n}-Dask-Default-Threads-{n}") for n in range(2)]
    for thread in threads:
        thread.start()
    clock = cores.Clock()
    try:
        work(0.2)
        clock.record({"start": 0.0, "stop": 9.0})
        go.set()
        for _ in threads:
            ended.acquire()
        clock.record({"start": 1.0, "stop": 1.5})
        clock.record({"start": 2.0, "stop": 2.5})
    finally:
        leave.set()
    shares = clock.shares()
    assert shares["steps, by the clock"] == 1.0
    assert shares["the run"] > 0.2
    # The system counts in hundredths of a second.
    assert 0.3 < shares["worker"] < 0.6
    # What this thread did before the first record is not in it.
    assert shares.get(kind_of(threading.current_thread().name), 0.0) < 0.15
