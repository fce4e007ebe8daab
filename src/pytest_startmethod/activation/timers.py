"""Timers that send a signal to this process, best first.

None uses a thread on platforms with fork: forking would then happen in a multi-threaded process, about which 3.12
warns.
"""

from __future__ import annotations

import _thread
import signal
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

_CLOCK_MONOTONIC: Final = 1
_SIGEV_SIGNAL: Final = 0
_NOTICED_SECONDS: Final = 1.0


class Timer(Protocol):
    """An interval timer. Forks do not inherit it, and the kernel prefers the main thread for its signal."""

    number: int
    """The signal sent."""
    shared: bool
    """Whether tests and other plugins also use the signal."""
    late: Callable[[], object] | None
    """Called on a thread when the signal may not have reached the main thread; used by `ThreadTimer` only."""

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds. Raises OSError."""

    def stop(self) -> None:
        """Stop sending the signal."""

    def delete(self) -> None:
        """Release the timer."""


class PosixTimer:
    """A ``timer_create`` timer (Linux), with a signal that nobody else uses.

    Raises OSError if it cannot be created (a limit on pending signals, seccomp), AttributeError if the C library lacks
    the function, and ImportError if Python lacks ctypes.
    """

    number: int = signal.SIGRTMIN + 7 if sys.platform == "linux" else 0
    shared = False
    late: Callable[[], object] | None = None

    def __init__(self) -> None:
        import ctypes

        self._errno = ctypes.get_errno
        # in glibc's libc.so since 2.34, before in librt
        libraries = (ctypes.CDLL(name, use_errno=True) for name in (None, "librt.so.1"))
        library: Any = next((each for each in libraries if hasattr(each, "timer_create")), None)
        if library is None:
            raise AttributeError("timer_create")
        self._timer = ctypes.c_void_p()
        # struct sigevent: value, signal, notify; 64 bytes
        event = ctypes.create_string_buffer(struct.pack("Pii", 0, self.number, _SIGEV_SIGNAL), 64)
        self._checked(library.timer_create(_CLOCK_MONOTONIC, event, ctypes.byref(self._timer)), "timer_create")
        self._set = library.timer_settime
        self._delete = library.timer_delete
        self._buffer = ctypes.create_string_buffer
        self._seconds: tuple[float, float] | None = None
        self._spec: object = None

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds."""
        if self._seconds != (first, every):  # most calls have the same limit as the previous one
            # struct itimerspec: interval and value, each in seconds and nanoseconds
            self._spec = self._buffer(struct.pack("4l", *_split(every), *_split(first)), 4 * struct.calcsize("l"))
            self._seconds = first, every
        self._checked(self._set(self._timer, 0, self._spec, None), "timer_settime")

    def stop(self) -> None:
        """Stop sending the signal."""
        self._set(self._timer, 0, self._buffer(4 * struct.calcsize("l")), None)

    def delete(self) -> None:
        """Release the timer."""
        self._delete(self._timer)

    def _checked(self, result: int, function: str) -> None:
        if result:
            raise OSError(self._errno(), function)


class AlarmTimer:
    """The process's only ``setitimer`` timer, whose SIGALRM may be in use elsewhere."""

    number: int = signal.SIGALRM if sys.platform != "win32" else 0
    shared = True
    late: Callable[[], object] | None = None

    def __init__(self) -> None:
        if any(signal.getitimer(signal.ITIMER_REAL)):
            raise OSError("the timer of SIGALRM is in use")

    def start(self, first: float, every: float) -> None:
        """Send the signal after `first` seconds, then every `every` seconds."""
        signal.setitimer(signal.ITIMER_REAL, first, every)

    def stop(self) -> None:
        """Stop sending the signal."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def delete(self) -> None:
        """Do nothing: there is nothing to release."""


class ThreadTimer:
    """A thread that simulates a signal (``_thread.interrupt_main``), for Windows, where no timer sends one.

    The main thread notices it when it next runs Python code, but not while it sleeps or waits for a lock in C. So
    `late` is called on the thread after `_NOTICED_SECONDS`. The thread is not listed by `threading`.
    """

    number: int = signal.SIGTERM  # no other process can send it on Windows
    shared = False

    def __init__(self) -> None:
        self.late: Callable[[], object] | None = None
        self._stopped = threading.Event()

    def start(self, first: float, every: float) -> None:
        """Simulate the signal after `first` seconds, then every `every` seconds."""
        self.stop()
        self._stopped = threading.Event()
        _thread.start_new_thread(partial(self._run, self._stopped), (first, every))

    def _run(self, stopped: threading.Event, first: float, every: float) -> None:
        wait = min(first, threading.TIMEOUT_MAX)
        while not stopped.wait(wait):
            _thread.interrupt_main(signal.Signals(self.number))
            if not stopped.wait(_NOTICED_SECONDS) and self.late is not None:
                self.late()
            wait = every

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()

    def delete(self) -> None:
        """Do nothing: the thread ends by itself."""


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000_000)


TIMERS: tuple[Callable[[], Timer], ...] = (AlarmTimer,)
if sys.platform == "linux":
    TIMERS = (PosixTimer, AlarmTimer)
elif sys.platform == "win32":
    TIMERS = (ThreadTimer,)
