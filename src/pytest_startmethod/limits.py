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

from . import _cpython

AUTO_SECONDS: Final = 60.0
AUTO_TIMES: Final = 10.0
_AGAIN_SECONDS: Final = 10.0
"""What a test does about its end (``finally``, a pool's ``terminate``) may hang in turn: it is ended again."""

LIMIT_SIGNAL: Final[int | None] = signal.SIGRTMIN + 7 if sys.platform == "linux" else getattr(signal, "SIGALRM", None)
"""Elsewhere than on Linux there is no timer with a signal of one's choice: SIGALRM, where nobody else has it."""

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
    module = getattr(type(tracer), "__module__", "") if tracer is not None else ""
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


class Limit:
    """Calls `expire` in the main thread when `seconds` are over, unless it is cancelled before."""

    def __init__(self, seconds: float, expire: Callable[[], None]) -> None:
        self.seconds = seconds
        self._expire = expire
        self._previous: Any = None
        self._timer: Timer | None = None

    def start(self) -> bool:
        """Start the clock; return whether there is one: only the main thread can be interrupted."""
        if self.seconds <= 0 or LIMIT_SIGNAL is None or threading.current_thread() is not threading.main_thread():
            return False
        if _cpython.getsignal(LIMIT_SIGNAL) not in (signal.SIG_DFL, signal.SIG_IGN):
            return False  # somebody else's
        self._previous = _cpython.setsignal(LIMIT_SIGNAL, self._expired)
        self._timer = _timer(LIMIT_SIGNAL, os.getpid())
        self._timer.set(self.seconds, _AGAIN_SECONDS)
        return True

    def cancel(self) -> None:
        """Stop the clock and leave the signal as it was."""
        if self._timer is None:
            return
        self._timer.set(0, 0)
        self._timer = None
        if LIMIT_SIGNAL is not None and _cpython.getsignal(LIMIT_SIGNAL) == self._expired:
            _cpython.setsignal(LIMIT_SIGNAL, self._previous)

    def _expired(self, _signal: int, _frame: FrameType | None) -> None:
        if self._timer is not None:
            self._expire()


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
        self._settime: Callable[[], int] | None = None
        self._spec = _Itimerspec()
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            timer = ctypes.c_void_p()
            event = _Sigevent(signo=number, notify=_SIGEV_SIGNAL)
            if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
                raise OSError(ctypes.get_errno(), "timer_create")
            self._settime = functools.partial(libc.timer_settime, timer, 0, ctypes.byref(self._spec), None)

    def set(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds; zeros: send no more."""
        if self._settime is None:
            signal.setitimer(signal.ITIMER_REAL, first, every)
            return
        spec = self._spec
        spec.first_s, spec.first_ns = _split(first)
        spec.every_s, spec.every_ns = _split(every)
        if self._settime():
            raise OSError(ctypes.get_errno(), "timer_settime")


@functools.lru_cache(maxsize=1)
def _timer(number: int, _pid: int) -> Timer:
    """Return this process's timer: making one for each leg takes longer than a fork leg's other work together."""
    return Timer(number)


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000_000)
