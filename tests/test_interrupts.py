from __future__ import annotations

import signal
import threading

import pytest

from ffdask.interrupts import heeded

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers():
    """Signals as a command has them, even where whoever runs the tests ignores them."""
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    terminate = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)


class Interrupted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_a_destructor_lost_is_raised_when_asked_for(capsys):
    with heeded() as interrupts:
        interrupts.check()
        Interrupted()
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_else_a_destructor_raises_is_told_as_ever(monkeypatch):
    class Wrong:
        def __del__(self) -> None:
            raise ZeroDivisionError

    heard = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: heard.append(what.exc_type))
    with heeded():
        Wrong()
    assert heard == [ZeroDivisionError]


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_is_raised_at_once_as_ever(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with heeded(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_may_wait_and_the_second_does_not(number):
    with heeded() as interrupts:
        with interrupts.gently():
            signal.raise_signal(number)
            interrupts.check()
            assert interrupts.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_what_is_ending_is_broken_off_by_a_third_only():
    """Closing a cluster takes a second or so: who presses twice means the run."""
    with heeded() as interrupts:
        with interrupts.gently():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_when_all_is_done_a_request_is_late():
    with heeded() as interrupts:
        interrupts.ending()
        signal.raise_signal(signal.SIGINT)


def test_without_anything_to_wait_for_the_first_is_raised():
    with heeded() as interrupts, interrupts.gently(False), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_who_ignores_interrupts_goes_on_ignoring_them():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with heeded() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert not interrupts.asked


def test_a_handler_of_the_callers_own_stays():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with heeded() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert not interrupts.asked
    assert heard == [signal.SIGTERM]


def test_another_thread_leaves_the_handler_alone():
    found = []

    def inside() -> None:
        with heeded() as interrupts:
            interrupts.check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
