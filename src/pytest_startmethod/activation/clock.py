"""Interrupt a phase of a leg at its time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import getpid
from types import FrameType
from typing import Final

from .._compat import signals
from .timers import TIMERS, Timer

AUTO_SECONDS: Final = 60.0
AUTO_TIMES: Final = 10.0
_LONGEST: Final = 1e9
"""Seconds that fit any kernel representation."""
_AGAIN_SECONDS: Final = 10.0
"""Interval of repeated interrupts: the test's own cleanup (``finally``, a pool's ``terminate``) may hang in turn."""

_OVER: Final = " was not over after "


def over(leg: str, seconds: float, by: str, phase: str = "call") -> str:
    """Return the failure message of a leg that exceeded its limit; `by` names where the limit was set."""
    what = {"setup": " of set-up", "teardown": " of tear-down"}.get(phase, "")
    return f"the leg {leg}{_OVER}{seconds:g} s{what} ({by})"


def is_over(message: str) -> bool:
    """Return whether a failure's message comes from `over`."""
    return message.removeprefix("Failed: ").startswith("the leg ") and _OVER in message


def limit_of(chosen: float | None, finished: list[float]) -> float:
    """Return the time limit of a leg's call in seconds, 0 for none.

    `chosen` is the marker's or the option's limit. None stands for ``auto``: one minute plus ten times the longest of
    the test's `finished` legs, so that slow tests are not cut off but hangs end.
    """
    if chosen is not None:
        return chosen
    return round(AUTO_SECONDS + AUTO_TIMES * max(finished, default=0.0), 1)


@contextmanager
def alarm_paused() -> Iterator[None]:
    """Pause the SIGALRM timer, if one is running, so that our work does not use up pytest-timeout's limit.

    pytest-timeout's handler raises in the main thread, which would end the session if it were in our hook.
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
    """Interrupts the main thread when a call exceeds its limit. Timed calls do not overlap.

    The handler stays installed until `close`, since a fork pays for each page written before it.
    """

    def __init__(self) -> None:
        self.trouble: str | None = None
        """Why no timer is available, if so."""
        self._handler = self._rung  # bound once, for identity comparisons
        self._previous: object = None
        self._thread: int | None = None
        """Main thread of the process in which the handler was installed."""
        self._pid: int | None = None
        self._timer: Timer | None = None
        self._expire: Callable[[], None] | None = None
        self._runs = self._is_brief = self._was_heard = False
        self.unblock: Callable[[], object] = lambda: None
        """Called on another thread when the main thread waits where no signal reaches it (Windows)."""

    def start(self, seconds: float, expire: Callable[[], None]) -> bool:
        """Call `expire` in the main thread after `seconds`, then repeatedly until `stop`.

        Returns False if that is impossible: no timer is available, or this is not the main thread.
        """
        if seconds <= 0 or threading.current_thread() is not threading.main_thread():
            return False
        timer = self._timer
        ready = timer is not None and signals.getsignal(timer.number) is self._handler
        if not (ready and self._thread == threading.get_ident() and self._pid == getpid()):
            timer = self._get_ready()
        if timer is None:
            return False
        self._expire, self._runs, self._is_brief = expire, True, seconds < AUTO_SECONDS
        try:
            timer.start(min(seconds, _LONGEST), _AGAIN_SECONDS)
        except Exception as trouble:
            self.trouble = f"{type(trouble).__name__}: {trouble}"
            return False
        return True

    def _get_ready(self) -> Timer | None:
        """Create a timer whose signal is not in use, and install our handler."""
        self.close()
        for make in TIMERS:
            try:
                timer = make()
            except Exception as trouble:  # an audit hook may refuse ctypes with any
                self.trouble = self.trouble or f"{type(trouble).__name__}: {trouble}"
                continue
            timer.late = self._late
            handler = signals.getsignal(timer.number)
            if handler is self._handler or handler in (signal.SIG_DFL, signal.SIG_IGN):
                if handler is not self._handler:  # a fork inherits the handler
                    self._previous = signals.setsignal(timer.number, self._handler)
                self._thread, self._pid, self._timer = threading.get_ident(), getpid(), timer
                return timer
            timer.delete()  # the signal is in use
            break
        return None

    def stop(self) -> None:
        """Stop calling `expire`.

        Timers of a minute or more keep running, to be reset by the next call. If they fire before that, nothing
        happens.
        """
        self._runs = False
        if self._timer is not None and self._timer.shared:
            self.close()
        elif self._is_brief and self._timer is not None:
            self._timer.stop()

    def close(self) -> None:
        """Delete the timer and restore the signal handler."""
        self._expire, self._runs = None, False
        timer, self._timer = self._timer, None
        if timer is None:
            return
        if self._pid == getpid():
            timer.stop()
            timer.delete()
        if signals.getsignal(timer.number) is self._handler:
            signals.setsignal(timer.number, self._previous)

    def _rung(self, _signal: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if self._runs and self._expire is not None:
            self._was_heard = True
            self._expire()
        elif self._timer is not None:
            self._timer.stop()

    def _late(self) -> None:
        heard, self._was_heard = self._was_heard, False
        if self._runs and not heard:
            self.unblock()
