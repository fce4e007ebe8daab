"""Timers that send a signal to this process, from the best to the least, and without a thread.

A helper thread would make every fork of the leg a fork with threads, which Python 3.12 warns of.
"""

from __future__ import annotations

import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

_CLOCK_MONOTONIC: Final = 1
_SIGEV_SIGNAL: Final = 0


class Timer(Protocol):
    """An interval timer. A fork does not inherit it; the kernel prefers the main thread for its signal."""

    number: int
    """The signal that it sends."""
    shared: bool
    """Whether tests and other plugins use the signal, too."""

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds. Raises OSError."""

    def stop(self) -> None:
        """Stop sending the signal."""

    def delete(self) -> None:
        """Give the timer back to the kernel."""


class PosixTimer:
    """A timer of ``timer_create`` (Linux), with a signal that nobody else uses.

    Raises OSError where none can be made (a limit on pending signals, seccomp), AttributeError where no library of C
    has the function, and ImportError where Python has no ctypes.
    """

    number: int = signal.SIGRTMIN + 7 if sys.platform == "linux" else 0
    shared = False

    def __init__(self) -> None:
        import ctypes

        self._errno = ctypes.get_errno
        # glibc has it in libc.so since 2.34, and before in librt
        libraries = (ctypes.CDLL(name, use_errno=True) for name in (None, "librt.so.1"))
        library: Any = next((each for each in libraries if hasattr(each, "timer_create")), None)
        if library is None:
            raise AttributeError("timer_create")
        self._timer = ctypes.c_void_p()
        # struct sigevent: value, signal, how; 64 bytes
        event = ctypes.create_string_buffer(struct.pack("Pii", 0, self.number, _SIGEV_SIGNAL), 64)
        self._checked(library.timer_create(_CLOCK_MONOTONIC, event, ctypes.byref(self._timer)), "timer_create")
        self._set = library.timer_settime
        self._delete = library.timer_delete
        self._buffer = ctypes.create_string_buffer
        self._seconds: tuple[float, float] | None = None
        self._spec: Any = None

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds."""
        if self._seconds != (first, every):  # most calls have the same limit as the one before
            # struct itimerspec: interval and value, each seconds and nanoseconds
            self._spec = self._buffer(struct.pack("4l", *_split(every), *_split(first)), 4 * struct.calcsize("l"))
            self._seconds = first, every
        self._checked(self._set(self._timer, 0, self._spec, None), "timer_settime")

    def stop(self) -> None:
        """Stop sending the signal."""
        self._set(self._timer, 0, self._buffer(4 * struct.calcsize("l")), None)

    def delete(self) -> None:
        """Give the timer back to the kernel."""
        self._delete(self._timer)

    def _checked(self, result: int, function: str) -> None:
        if result:
            raise OSError(self._errno(), function)


class AlarmTimer:
    """The process's one ``setitimer``, whose SIGALRM belongs to whoever has a handler for it."""

    number: int = getattr(signal, "SIGALRM", 0)
    shared = True

    def __init__(self) -> None:
        if not self.number:
            raise AttributeError("signals cannot interrupt a call on this platform")
        if any(signal.getitimer(signal.ITIMER_REAL)):
            raise OSError("the timer of SIGALRM is in use")

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds."""
        signal.setitimer(signal.ITIMER_REAL, first, every)

    def stop(self) -> None:
        """Stop sending the signal."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def delete(self) -> None:
        """Do nothing: it is nobody's to give back."""


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000_000)


TIMERS: tuple[Callable[[], Timer], ...] = (PosixTimer, AlarmTimer) if sys.platform == "linux" else (AlarmTimer,)
