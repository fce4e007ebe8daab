"""End a call when its time is over: a timer and a signal of our own, and no thread.

A helper thread would make every fork of the leg a fork with threads, which Python 3.12 warns of, and SIGALRM belongs
to pytest-timeout and to the tests themselves.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from .._compat import cpython

AUTO_SECONDS: Final = 60.0
AUTO_TIMES: Final = 10.0
_AGAIN_SECONDS: Final = 10.0
"""What a test does about its end (``finally``, a pool's ``terminate``) may hang in turn: it is ended again."""

LIMIT_SIGNAL: Final[int | None] = signal.SIGRTMIN + 7 if sys.platform == "linux" else getattr(signal, "SIGALRM", None)
"""Elsewhere than on Linux there is no timer with a signal of one's choice: SIGALRM, where nobody else has it."""

_OWN_SIGNAL: Final = sys.platform == "linux"
"""Whether the signal is nobody else's, so that its handler can stay."""

_CLOCK_MONOTONIC: Final = 1
_SIGEV_SIGNAL: Final = 0


_OVER: Final = " was not over after "


def over(leg: str, seconds: float, by: str) -> str:
    """Return what a leg fails with whose time is over; `by` is what set the limit."""
    return f"the leg {leg}{_OVER}{seconds:g} s ({by})"


def is_over(message: str) -> bool:
    """Say whether a failure's message is one that `over` returned."""
    return message.removeprefix("Failed: ").startswith("the leg ") and _OVER in message


def limit_of(chosen: float | None, finished: list[float]) -> float:
    """Return the limit of a leg's call in seconds, 0 for none.

    `chosen` is the marker's or the option's, None for ``auto``: a minute, and ten times the longest of the test's
    `finished` legs, so that a slow test is never cut and a hang never lasts.
    """
    if chosen is not None:
        return chosen
    return AUTO_SECONDS + AUTO_TIMES * max(finished, default=0.0)


def is_debugging() -> bool:
    """Say whether a debugger traces this process: its user decides how long a test takes."""
    tracer = sys.gettrace()
    if tracer is None:
        return False
    module = getattr(type(tracer), "__module__", "")
    name = getattr(tracer, "__module__", None) or module
    return str(name).partition(".")[0] in ("bdb", "pdb", "pydevd", "_pydevd_bundle", "pydevd_tracing", "debugpy")


@contextmanager
def alarm_paused() -> Iterator[None]:
    """Stop the clock behind SIGALRM, if one runs: what pytest-timeout gives a test is not for our work after it.

    Its handler raises wherever the main thread is; in a hook of ours that would end the session.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    left, every = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, every)


class Clock:
    """Interrupts the main thread when the time of a call is over; calls that are timed come one after the other.

    The handler stays until `close`, since a fork pays for each page that is written to before the next one.
    """

    def __init__(self) -> None:
        self._handler = self._rung  # one object, to be known again
        self._previous: Any = None
        self._thread: int | None = None
        """The main thread of the process that has the handler."""
        self._pid: int | None = None
        self._timer: Timer | None = None
        self._expire: Callable[[], None] | None = None
        self._runs = self._is_brief = False

    def start(self, seconds: float, expire: Callable[[], None]) -> bool:
        """Call `expire` in the main thread after `seconds`, and again while `stop` is not called.

        Returns whether there is such a clock: only the main thread can be interrupted, and the signal may be somebody
        else's.
        """
        if seconds <= 0 or LIMIT_SIGNAL is None:
            return False
        ready = self._thread == threading.get_ident() and cpython.getsignal(LIMIT_SIGNAL) is self._handler
        if not (ready and self._pid == os.getpid()) and not self._get_ready(LIMIT_SIGNAL):
            return False
        assert self._timer is not None
        self._expire, self._runs, self._is_brief = expire, True, seconds < AUTO_SECONDS
        self._timer.start(seconds, _AGAIN_SECONDS)
        return True

    def _get_ready(self, number: int) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False
        handler = cpython.getsignal(number)
        if handler is not self._handler:  # a fork has it, too
            if handler not in (signal.SIG_DFL, signal.SIG_IGN):
                return False  # somebody else's
            self._previous = cpython.setsignal(number, self._handler)
        self._thread, self._pid = threading.get_ident(), os.getpid()
        self._timer = _timer(number, self._pid)
        return True

    def stop(self) -> None:
        """Call nothing any more.

        A timer of a minute or more goes on: the next call has it started anew. Where that comes later, the signal does
        nothing.
        """
        self._runs = False
        if self._is_brief and self._timer is not None:
            self._timer.stop()
        if not _OWN_SIGNAL:
            self.close()

    def close(self) -> None:
        """Stop the timer, and leave the signal as it was."""
        self._expire, self._runs = None, False
        if self._timer is not None and self._pid == os.getpid():
            self._timer.stop()
        if LIMIT_SIGNAL is not None and cpython.getsignal(LIMIT_SIGNAL) is self._handler:
            cpython.setsignal(LIMIT_SIGNAL, self._previous)

    def _rung(self, _signal: int, _frame: FrameType | None) -> None:
        if self._runs and self._expire is not None:
            self._expire()
        elif self._timer is not None:
            self._timer.stop()


class _Sigevent(ctypes.Structure):
    """``struct sigevent`` of Linux: 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Itimerspec(ctypes.Structure):
    """``struct itimerspec``: interval and value, each seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


class Timer:
    """One interval timer that sends a signal to this process: ``timer_create`` on Linux, ``setitimer`` elsewhere.

    A fork does not inherit it. The kernel prefers the main thread for a signal to the process.
    """

    def __init__(self, number: int) -> None:
        self._start: Callable[[], int] | None = None
        self._stop: Callable[[], int] | None = None
        self._spec = _Itimerspec()
        self._seconds: tuple[float, float] | None = None
        """What `_spec` says."""
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            timer = ctypes.c_void_p()
            event = _Sigevent(signo=number, notify=_SIGEV_SIGNAL)
            if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
                raise OSError(ctypes.get_errno(), "timer_create")
            settime, spec = libc.timer_settime, ctypes.byref(self._spec)
            self._start = functools.partial(settime, timer, 0, spec, None)
            self._stop = functools.partial(settime, timer, 0, ctypes.byref(_Itimerspec()), None)

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds."""
        if self._start is None:
            signal.setitimer(signal.ITIMER_REAL, first, every)
            return
        if self._seconds != (first, every):  # most calls have the same limit as the one before
            spec = self._spec
            spec.first_s, spec.first_ns = _split(first)
            spec.every_s, spec.every_ns = _split(every)
            self._seconds = first, every
        if self._start():
            raise OSError(ctypes.get_errno(), "timer_settime")

    def stop(self) -> None:
        """Send the signal no more."""
        if self._stop is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif self._stop():
            raise OSError(ctypes.get_errno(), "timer_settime")


@functools.lru_cache(maxsize=1)
def _timer(number: int, _pid: int) -> Timer:
    """Return this process's timer, which all clocks share."""
    return Timer(number)


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000_000)
