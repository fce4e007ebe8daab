"""Interrupt a phase of a leg when its time is over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from .._compat import cpython
from .timers import TIMERS, Timer

AUTO_SECONDS: Final = 60.0
AUTO_TIMES: Final = 10.0
_LONGEST: Final = 1e9
"""Seconds that fit into whatever the kernel counts them in."""
_AGAIN_SECONDS: Final = 10.0
"""What a test does about its end (``finally``, a pool's ``terminate``) may hang in turn: it is ended again."""

_OVER: Final = " was not over after "


def over(leg: str, seconds: float, by: str, phase: str = "call") -> str:
    """Return what a leg fails with whose time is over; `by` is what set the limit."""
    what = {"setup": " of set-up", "teardown": " of tear-down"}.get(phase, "")
    return f"the leg {leg}{_OVER}{seconds:g} s{what} ({by})"


def is_over(message: str) -> bool:
    """Return whether a failure's message is one that `over` returned."""
    return message.removeprefix("Failed: ").startswith("the leg ") and _OVER in message


def limit_of(chosen: float | None, finished: list[float]) -> float:
    """Return the limit of a leg's call in seconds, 0 for none.

    `chosen` is the marker's or the option's, None for ``auto``: a minute, and ten times the longest of the test's
    `finished` legs, so that a slow test is never cut and a hang never lasts.
    """
    if chosen is not None:
        return chosen
    return AUTO_SECONDS + AUTO_TIMES * max(finished, default=0.0)


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
        self.trouble: str | None = None
        """Why there is no timer here, once that is known."""
        self._handler = self._rung  # one object, to be known again
        self._previous: Any = None
        self._thread: int | None = None
        """The main thread of the process that has the handler."""
        self._pid: int | None = None
        self._timer: Timer | None = None
        self._expire: Callable[[], None] | None = None
        self._runs = self._is_brief = self._was_heard = False
        self.unblock: Callable[[], object] = lambda: None
        """Called in another thread when the main thread waits where no signal reaches it (Windows)."""

    def start(self, seconds: float, expire: Callable[[], None]) -> bool:
        """Call `expire` in the main thread after `seconds`, and again while `stop` is not called.

        Returns whether there is such a clock: only the main thread can be interrupted, and there may be no timer.
        """
        if seconds <= 0 or threading.current_thread() is not threading.main_thread():
            return False
        timer = self._timer
        ready = timer is not None and cpython.getsignal(timer.number) is self._handler
        if not (ready and self._thread == threading.get_ident() and self._pid == os.getpid()):
            timer = self._get_ready()
        if timer is None:
            return False
        self._expire, self._runs, self._is_brief = expire, True, seconds < AUTO_SECONDS
        try:
            timer.start(min(seconds, _LONGEST), _AGAIN_SECONDS)
        except OSError as trouble:
            self.trouble = f"{type(trouble).__name__}: {trouble}"
            return False
        return True

    def _get_ready(self) -> Timer | None:
        """Make a timer whose signal is free, with our handler, and return it."""
        self.close()
        for make in TIMERS:
            try:
                timer = make()
            except (OSError, AttributeError, ImportError) as trouble:
                self.trouble = self.trouble or f"{type(trouble).__name__}: {trouble}"
                continue
            timer.late = self._late
            handler = cpython.getsignal(timer.number)
            if handler is self._handler or handler in (signal.SIG_DFL, signal.SIG_IGN):
                if handler is not self._handler:  # a fork has it, too
                    self._previous = cpython.setsignal(timer.number, self._handler)
                self._thread, self._pid, self._timer = threading.get_ident(), os.getpid(), timer
                return timer
            timer.delete()  # the signal is somebody else's
            break
        return None

    def stop(self) -> None:
        """Call nothing any more.

        A timer of a minute or more goes on: the next call has it started anew. Where that comes later, the signal does
        nothing.
        """
        self._runs = False
        if self._timer is not None and self._timer.shared:
            self.close()
        elif self._is_brief and self._timer is not None:
            self._timer.stop()

    def close(self) -> None:
        """Delete the timer, and leave the signal as it was."""
        self._expire, self._runs = None, False
        timer, self._timer = self._timer, None
        if timer is None:
            return
        if self._pid == os.getpid():
            timer.stop()
            timer.delete()
        if cpython.getsignal(timer.number) is self._handler:
            cpython.setsignal(timer.number, self._previous)

    def _rung(self, _signal: int, _frame: FrameType | None) -> None:
        if self._runs and self._expire is not None:
            self._was_heard = True
            self._expire()
        elif self._timer is not None:
            self._timer.stop()

    def _late(self) -> None:
        heard, self._was_heard = self._was_heard, False
        if self._runs and not heard:
            self.unblock()
