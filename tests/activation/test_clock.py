"""A call ends at its time limit, whatever it waits for, and leaves no trace of the clock."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from pytest_startmethod.activation import clock as limits
from pytest_startmethod.activation import debugger, timers
from pytest_startmethod.activation.clock import Clock

NUMBER = timers.PosixTimer.number or timers.AlarmTimer.number

pytestmark = pytest.mark.skipif(not NUMBER, reason="no signal to end a call with")


class Expired(BaseException):
    pass


def expire():
    raise Expired


@pytest.fixture(autouse=True)
def rings_once(monkeypatch):
    """Ring again only after a time in which each test has stopped its clock."""
    monkeypatch.setattr(limits, "_AGAIN_SECONDS", 60.0)


@pytest.fixture
def clock():
    made, before = Clock(), signal.getsignal(NUMBER)
    yield made
    made.close()
    assert signal.getsignal(NUMBER) == before


def wait_forever():
    threading.Event().wait()


def limited(clock, seconds, wait=wait_forever):
    """Start the clock and wait: on a busy machine, it may ring before the wait begins."""
    assert clock.start(seconds, expire)
    wait()


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
    "event": wait_forever,
    "connection": wait_for_connection,
    "process": wait_for_process,
    "loop": lambda: [None for _ in iter(int, 1)],
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_whatever_the_call_waits_for_is_interrupted(clock, wait):
    """Waits for locks, queues, pipes and child processes are interrupted, and so are loops."""
    with pytest.raises(Expired):
        limited(clock, 0.2, wait)


def rings_after_the_end(clock):
    """Return how often `clock` expires after `stop`; on a busy machine it may have expired before."""
    rung = []
    assert clock.start(0.05, lambda: rung.append(1))
    clock.stop()
    until_the_end = len(rung)
    assert not threading.Event().wait(0.15)
    return len(rung) - until_the_end


def test_stopped_in_time_is_as_if_never_started(clock, monkeypatch):
    """Nothing expires after the end."""
    monkeypatch.setattr(limits, "_AGAIN_SECONDS", 0.01)
    assert rings_after_the_end(clock) == 0


class RungByHand:
    """A timer whose signal the test sends."""

    number = NUMBER
    shared = False
    late = None
    runs = False

    def start(self, first, every):
        self.runs = True

    def stop(self):
        self.runs = False

    def delete(self):
        assert not self.runs


@pytest.mark.parametrize(("seconds", "runs_on"), [(59.0, False), (60.0, True)], ids=["brief", "long"])
def test_signal_that_comes_after_the_end_is_the_last(clock, monkeypatch, seconds, runs_on):
    """A short timer is stopped with its call. A long one fires once, does nothing, and leaves nothing running."""
    timer = RungByHand()
    monkeypatch.setattr(limits, "TIMERS", (lambda: timer,))
    assert clock.start(seconds, expire)
    clock.stop()
    assert timer.runs == runs_on
    signal.raise_signal(NUMBER)
    assert not timer.runs


def test_one_clock_times_many_calls(clock):
    """Earlier calls do not shorten later ones, and the handler is removed only once."""
    for _ in range(3):
        assert clock.start(0.05, lambda: None)
        clock.stop()
    start = time.monotonic()
    with pytest.raises(Expired):
        limited(clock, 0.3)
    assert time.monotonic() - start >= 0.29


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on this platform")
def test_forked_child_has_a_clock_of_its_own(clock):
    """A fork inherits the handler but not the timer."""
    assert clock.start(600, expire)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            limited(clock, 0.05)
        except Expired:
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    clock.stop()


def test_a_handler_that_came_meanwhile_is_left_alone(clock):
    """A test may install its own handler between two calls."""
    assert clock.start(600, expire)
    clock.stop()

    def theirs(*_):
        raise AssertionError("called")

    signal.signal(NUMBER, theirs)
    try:
        assert not clock.start(60, expire)
        clock.close()
        assert signal.getsignal(NUMBER) is theirs
    finally:
        signal.signal(NUMBER, signal.SIG_DFL)


def test_end_that_hangs_is_ended_again(clock, monkeypatch):
    """A finally that waits forever is interrupted too."""
    monkeypatch.setattr(limits, "_AGAIN_SECONDS", 0.1)
    rung = []

    def expire_twice():
        rung.append(1)
        if len(rung) == 2:
            clock.stop()
        raise Expired

    def wait_twice():
        try:
            assert clock.start(0.1, expire_twice)
            threading.Event().wait()
        finally:
            threading.Event().wait()

    with pytest.raises(Expired):
        wait_twice()
    assert len(rung) == 2


def test_only_the_main_thread_has_a_limit():
    """Other threads cannot be interrupted."""
    started = []
    thread = threading.Thread(target=lambda: started.append(Clock().start(1, expire)))
    thread.start()
    thread.join()
    assert started == [False]


def test_zero_is_no_limit():
    """0 disables the limit."""
    assert not Clock().start(0, expire)


def test_somebody_elses_handler_is_left_alone():
    """A suite that uses the signal itself keeps it."""

    def theirs(*_):
        raise AssertionError("called")

    signal.signal(NUMBER, theirs)
    try:
        assert not Clock().start(1, expire)
        assert signal.getsignal(NUMBER) is theirs
    finally:
        signal.signal(NUMBER, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("chosen", "finished", "seconds"),
    [(None, [], 60.0), (None, [2.0, 0.5], 80.0), (3.0, [100.0], 3.0), (0.0, [1.0], 0.0)],
)
def test_limit_of_a_leg(chosen, finished, seconds):
    """Auto is one minute plus ten times the longest finished leg of the test; an explicit limit is used as is."""
    assert limits.limit_of(chosen, finished) == seconds


def test_tracing_for_coverage_is_no_debugging():
    """Only a debugger disables the limit."""
    assert not debugger.is_debugging()
    before = sys.gettrace()
    import bdb

    tracing = bdb.Bdb()
    tracing.reset()
    sys.settrace(tracing.trace_dispatch)
    try:
        assert debugger.is_debugging()
    finally:
        sys.settrace(before)


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring is new in 3.12")
@pytest.mark.parametrize(("tool", "debugs"), [("pydevd", True), ("a debugger", True), ("coverage", False)])
def test_debugger_that_monitors_is_seen(tool, debugs):
    """Debugpy does not trace from 3.12 on; other monitoring tools are not debuggers."""
    number = next(each for each in range(6) if sys.monitoring.get_tool(each) is None)
    sys.monitoring.use_tool_id(number, tool)
    try:
        assert debugger.is_debugging() == debugs
    finally:
        sys.monitoring.free_tool_id(number)


def fail_to_make(error=None):
    raise error or OSError(11, "timer_create")


@pytest.mark.skipif(len(timers.TIMERS) < 2, reason="there is one timer on this platform")
@pytest.mark.parametrize(
    "error", [OSError(11, "timer_create"), ImportError("_ctypes"), RuntimeError("audited")], ids=repr
)
def test_alarm_serves_where_there_is_no_other_timer(monkeypatch, error):
    """With an old C library, a limit on signals, or no ctypes, setitimer is used, and its signal is restored.

    An audit hook that refuses ctypes raises what it likes.
    """
    monkeypatch.setattr(limits, "TIMERS", (partial(fail_to_make, error), timers.AlarmTimer))
    made = Clock()
    with pytest.raises(Expired):
        limited(made, 0.05)
    made.stop()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.fixture
def thread_clock(monkeypatch):
    """Return a clock with the Windows timer."""
    monkeypatch.setattr(timers.ThreadTimer, "number", signal.SIGTERM if sys.platform == "win32" else signal.SIGUSR2)
    monkeypatch.setattr(timers, "_NOTICED_SECONDS", 0.05)
    monkeypatch.setattr(limits, "TIMERS", (timers.ThreadTimer,))
    made, before = Clock(), signal.getsignal(timers.ThreadTimer.number)
    yield made
    made.close()
    assert signal.getsignal(timers.ThreadTimer.number) == before


def test_thread_interrupts_code_that_runs(thread_clock):
    """Where no timer exists, a thread simulates the signal without being visible as a thread."""
    before = set(threading.enumerate())
    assert thread_clock.start(600, expire)
    assert set(threading.enumerate()) <= before
    thread_clock.stop()
    with pytest.raises(Expired):
        limited(thread_clock, 0.05, WAITS["loop"])


def test_thread_lets_go_what_waits_for_a_child(thread_clock):
    """A simulated signal cannot interrupt a wait in C, so the thread ends what is being waited for."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    thread_clock.unblock = process.kill
    with process, pytest.raises(Expired):
        limited(thread_clock, 0.05, process.wait)


def test_stopped_thread_interrupts_nobody(thread_clock):
    """Nothing happens after the end."""
    assert rings_after_the_end(thread_clock) == 0


def test_no_timer_is_no_limit_and_says_why(monkeypatch):
    """If no timer can be created, the call runs without a limit."""
    monkeypatch.setattr(limits, "TIMERS", (fail_to_make,))
    made = Clock()
    assert not made.start(0.05, expire)
    assert made.trouble == "BlockingIOError: [Errno 11] timer_create"
    made.close()


@pytest.mark.skipif(sys.platform != "linux", reason="timers with a signal of one's own are Linux's")
@pytest.mark.parametrize("library", [None, "librt.so.1"])
def test_timer_is_found_in_either_library(monkeypatch, library):
    """Before glibc 2.34 the function is in librt, which Python does not load."""
    import ctypes

    real = ctypes.CDLL

    class Library:
        def __init__(self, name, **options):
            if name == library:
                found = real(None, **options)
                self.timer_create, self.timer_settime = found.timer_create, found.timer_settime
                self.timer_delete = found.timer_delete

    monkeypatch.setattr(ctypes, "CDLL", Library)
    timer = timers.PosixTimer()
    timer.start(600, 600)
    timer.stop()
    timer.delete()
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: object())
    with pytest.raises(AttributeError, match="timer_create"):
        timers.PosixTimer()


def test_clock_is_monotonic(clock):
    """The measured time is the time requested."""
    start = time.monotonic()
    with pytest.raises(Expired):
        limited(clock, 0.2)
    assert time.monotonic() - start >= 0.19


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such clock on this platform")
def test_the_clock_behind_an_alarm_stands_while_we_work():
    """The remaining time is restored afterwards; if no timer was running, none is started."""
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
    """A run that was cut off proves nothing about a cause, whoever set its limit."""
    for by in ("--start-methods-timeout", "timeout= of its marker"):
        text = limits.over("test_a.py::test[spawn]", 1.5, by)
        assert text == f"the leg test_a.py::test[spawn] was not over after 1.5 s ({by})"
        assert limits.is_over(text)
        assert limits.is_over(f"Failed: {text}")
        assert limits.over("test_a.py::test[spawn]", 1.5, by, "setup") == text.replace("1.5 s", "1.5 s of set-up")
    assert not limits.is_over("AssertionError: the game was not over after 3 s")
