"""Runs work in a forked copy of this process, where it can change, print, log, hang or leak nothing of the user's.

The copy is nobody's child: the process between the two ends at once. It writes one JSON document and leaves by
``_exit``, and a timer ends it if it does not.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

if sys.platform != "win32":
    import fcntl
    from posix import _exit  # coverage.py replaces the one of os, and saves its data in it

_POLL: Final = 0.002
_clock = time.monotonic
_sleep = time.sleep


def can_copy() -> bool:
    """Return whether this process can be forked without anybody noticing.

    From 3.12 on ``os.fork`` warns where more than one thread runs, threads of C libraries included (gh-100228). A copy
    of a process that uses Apple's frameworks may crash.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":
        return False
    return sys.version_info < (3, 12) or _threads() == 1


def _threads() -> int:
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return threading.active_count()


def in_copy(work: Callable[[], Any], path: str, seconds: float) -> None:
    """Run `work` in a copy for at most `seconds`, and write what it returns to `path` as JSON, whole or not at all.

    Returns at once. Raises OSError if there is no process to be had.
    """
    between = os.fork()
    if between == 0:
        try:
            if os.fork() == 0:
                _run(work, path, seconds)
        finally:
            _exit(0)
    with contextlib.suppress(ChildProcessError):  # somebody ignores SIGCHLD, or has waited for it
        os.waitpid(between, 0)


def _run(work: Callable[[], Any], path: str, seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # a finalizer may act on the world
    sys.settrace(None)
    sys.setprofile(None)
    _silence()
    text = json.dumps(work())
    part = f"{path}.part"
    with open(part, "x", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)


def _silence() -> None:
    """Let what is written to inherited files, pipes and terminals go nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in _descriptors():
        try:
            kind = os.fstat(number).st_mode
            writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if writable and number != null and (stat.S_ISREG(kind) or stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)):
                os.dup2(null, number)
        except OSError:
            continue


def _descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError, ValueError):
            return [int(name) for name in os.listdir(folder)]
    return list(range(256))


def answer_of(path: str, until: float) -> Any:
    """Return what a copy wrote to `path` and remove it; None if it has not by `until`, on the monotonic clock."""
    while True:
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            os.unlink(path)
            return found
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            return None
        if _clock() >= until:
            return None
        _sleep(_POLL)
