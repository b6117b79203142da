from __future__ import annotations

import signal
import threading

import pytest

from ffdask.interrupts import remembered


@pytest.fixture(autouse=True)
def heeded():
    """SIGINT as a command has it, even where whoever runs the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_destructor_lost_is_raised_when_asked_for():
    with remembered() as check:
        check()
        Interrupted()
        with pytest.raises(KeyboardInterrupt):
            check()


def test_an_interrupt_is_raised_at_once_as_ever():
    with remembered(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_interrupts_goes_on_ignoring_them():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with remembered() as check:
        signal.raise_signal(signal.SIGINT)
        check()


def test_another_thread_leaves_the_handler_alone():
    found = []

    def inside() -> None:
        with remembered() as check:
            check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
