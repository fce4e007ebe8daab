"""A call ends when its time is over, whatever it waits for, and nothing remains of the clock."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

from pytest_startmethod import limits
from pytest_startmethod.limits import Limit

pytestmark = pytest.mark.skipif(limits.LIMIT_SIGNAL is None, reason="no signal to end a call with")


class Expired(BaseException):
    pass


def expire():
    raise Expired


@pytest.fixture
def limit():
    limits_made = []

    def make(seconds, function=expire):
        limits_made.append(Limit(seconds, function))
        assert limits_made[-1].start()
        return limits_made[-1]

    yield make
    for each in limits_made:
        each.cancel()
    assert signal.getsignal(limits.LIMIT_SIGNAL) == signal.SIG_DFL


def wait_for_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def wait_for_connection():
    receiver, sender = multiprocessing.Pipe()
    try:
        receiver.recv()
    finally:
        sender.close()


def wait_for_process():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        process.wait()
    finally:
        process.communicate()


WAITS = {
    "lock": wait_for_lock,
    "queue": lambda: queue.Queue().get(),
    "event": lambda: threading.Event().wait(),
    "connection": wait_for_connection,
    "process": wait_for_process,
    "loop": lambda: [None for _ in iter(int, 1)],
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_whatever_the_call_waits_for_is_interrupted(limit, wait):
    """Locks, queues, pipes, child processes and loops all end."""
    limit(0.2)
    with pytest.raises(Expired):
        wait()


def test_cancelled_in_time_is_as_if_never_started(limit):
    """No signal comes after the end."""
    clock = limit(0.05)
    clock.cancel()
    assert not threading.Event().wait(0.15)


def wait_twice():
    try:
        threading.Event().wait()
    finally:
        threading.Event().wait()


def test_end_that_hangs_is_ended_again(limit, monkeypatch):
    """A finally that waits for ever is interrupted, too."""
    monkeypatch.setattr(limits, "_AGAIN_SECONDS", 0.1)
    limit(0.1)
    with pytest.raises(Expired):
        wait_twice()


def test_only_the_main_thread_has_a_limit():
    """Elsewhere nothing could be interrupted."""
    started = []
    thread = threading.Thread(target=lambda: started.append(Limit(1, expire).start()))
    thread.start()
    thread.join()
    assert started == [False]


def test_zero_is_no_limit():
    """0 switches it off."""
    assert not Limit(0, expire).start()


def test_somebody_elses_handler_is_left_alone():
    """A suite that uses the signal itself keeps it."""

    def theirs(*_):
        raise AssertionError("called")

    signal.signal(limits.LIMIT_SIGNAL, theirs)
    try:
        assert not Limit(1, expire).start()
        assert signal.getsignal(limits.LIMIT_SIGNAL) is theirs
    finally:
        signal.signal(limits.LIMIT_SIGNAL, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("chosen", "finished", "seconds"),
    [(None, [], 60.0), (None, [2.0, 0.5], 80.0), (3.0, [100.0], 3.0), (0.0, [1.0], 0.0)],
)
def test_limit_of_a_leg(chosen, finished, seconds):
    """Auto is a minute and ten times the longest finished leg of the test; a chosen limit is as chosen."""
    assert limits.limit_of(chosen, finished) == seconds


def test_tracing_for_coverage_is_no_debugging():
    """Only a debugger switches the limit off."""
    assert not limits.is_debugging()
    before = sys.gettrace()
    import bdb

    debugger = bdb.Bdb()
    debugger.reset()
    sys.settrace(debugger.trace_dispatch)
    try:
        assert limits.is_debugging()
    finally:
        sys.settrace(before)


def test_clock_is_monotonic(limit):
    """It takes the time that was asked for."""
    start = time.monotonic()
    limit(0.2)
    with pytest.raises(Expired):
        threading.Event().wait()
    assert time.monotonic() - start >= 0.19


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such clock on this platform")
def test_the_clock_behind_an_alarm_stands_while_we_work():
    """What was left of it is left afterwards; where none ran, none runs."""
    with limits.alarm_paused():
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.setitimer(signal.ITIMER_REAL, 1000, 500)
    try:
        with limits.alarm_paused():
            assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
        left, every = signal.getitimer(signal.ITIMER_REAL)
        assert 900 < left <= 1000
        assert every == 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_failure_for_want_of_time_is_known_by_its_message():
    """A run that was cut off says nothing about a cause, whoever set its limit."""
    for by in ("--start-methods-timeout", "timeout= of its marker"):
        text = limits.over("test_a.py::test[spawn]", 1.5, by)
        assert text == f"the leg test_a.py::test[spawn] was not over after 1.5 s ({by})"
        assert limits.is_over(text)
        assert limits.is_over(f"Failed: {text}")
    assert not limits.is_over("AssertionError: the game was not over after 3 s")
