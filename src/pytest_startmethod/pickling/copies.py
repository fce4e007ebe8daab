"""Run work in a forked copy of this process, where it cannot change, print, log, block or leak anything of the user's.

The copy is nobody's child: an intermediate process ends at once. The copy writes one JSON document and leaves by
``_exit``. Otherwise it is ended by a timer, by the kernel once pytest has ended, or when nobody waits any more.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from os import getpid
from typing import Any, Final

from .._compat.signals import getsignal
from ..child import reporter

if sys.platform != "win32":
    import fcntl
    import resource
    from posix import _exit, fork, waitpid  # those of os may be replaced: by coverage.py, gevent, a test

_POLL: Final = 0.002
_PART: Final = ".part"
"""The suffix of the file that exists from the start of a copy until its answer."""
_FEW: Final = 64
"""A limit of processes below this has no room for ours: the user's tests may need all of them."""
_PIDS_MAX: Final = ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max")
_clock = time.monotonic
_open = open
_sleep = time.sleep
_written = json.JSONEncoder().encode
_parsed = json.JSONDecoder().decode


def can_copy() -> bool:
    """Return whether this process can be forked unnoticed.

    From 3.12 on ``os.fork`` warns if there are several threads, including those of C libraries (gh-100228). On macOS
    a copy of a process that uses Apple's frameworks may crash.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin" or processes_are_scarce():
        return False
    return sys.version_info < (3, 12) or _threads() == 1


def processes_are_scarce() -> bool:
    """Return whether the user, or this container, may have so few processes that each of ours may be one too many."""
    if sys.platform == "win32":
        return False
    return 0 <= resource.getrlimit(resource.RLIMIT_NPROC)[0] < _FEW or _most_in_container() < _FEW


@functools.lru_cache
def _most_in_container() -> float:
    for path in _PIDS_MAX:
        with contextlib.suppress(OSError, ValueError), _open(path, "rb") as file:
            return int(file.read())  # "max": there is no limit
    return float("inf")


def _threads() -> int:
    try:
        with _open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return threading.active_count()


def in_copy(work: Callable[[], object], path: str, seconds: float) -> None:
    """Run `work` in a copy for at most `seconds`, and write its result to `path` atomically, as JSON.

    Return at once. If `work` raises, the answer is null. Raises OSError if no process can be created.
    """
    os.close(os.open(path + _PART, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with _unheard_exit():
        between = fork()
        if between == 0:
            try:
                if fork() == 0:
                    _run(work, path, seconds)
            finally:
                _exit(0)
        with contextlib.suppress(ChildProcessError):  # somebody ignores SIGCHLD, or has waited for it
            waitpid(between, 0)


@contextlib.contextmanager
def _unheard_exit() -> Iterator[None]:
    """Hide the end of our own child from the user's SIGCHLD handler."""
    if not callable(getsignal(signal.SIGCHLD)):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        yield
        others = False
        with contextlib.suppress(ChildProcessError):
            others = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if signal.SIGCHLD in signal.sigpending() and not others:
            signal.sigwait([signal.SIGCHLD])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(work: Callable[[], object], path: str, seconds: float) -> None:
    os.setsid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, seconds)
    gc.disable()  # a finalizer may have side effects
    sys.settrace(None)
    sys.setprofile(None)
    _let_go()
    with contextlib.suppress(OSError):
        life = reporter.open_life_line(os.path.dirname(path))
        if life is not None:
            reporter.hold_of(life)(getpid())
    _write(path + _PART, str(getpid()))
    text = "null"
    try:
        text = _written(work())
    finally:
        _write(path + _PART, text)
        os.replace(path + _PART, path)


def _write(path: str, text: str) -> None:
    with _open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _let_go() -> None:
    """Share no open file with other processes: output goes nowhere, and no end of a pipe stays open because of us.

    Read-only files are reopened at their position, since a read moves a shared position.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number in _descriptors():
        try:
            kind = os.fstat(number).st_mode
            if number == null or stat.S_ISDIR(kind):
                continue
            other = null
            if stat.S_ISREG(kind) and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                with contextlib.suppress(OSError):
                    position = os.lseek(number, 0, os.SEEK_CUR)
                    other = os.open(f"/dev/fd/{number}", os.O_RDONLY)
                    os.lseek(other, position, os.SEEK_SET)
            os.dup2(other, number)
            if other != null:
                os.close(other)
        except OSError:
            continue


def _descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError, ValueError):
            return [int(name) for name in os.listdir(folder)]
    return list(range(256))


def is_answered(path: str, until: float) -> bool:
    """Return whether a copy has answered in `path` by `until`, on the monotonic clock."""
    while not (found := os.path.exists(path)) and _clock() < until:
        _sleep(_POLL)
    return found


def is_asked(path: str) -> bool:
    """Return whether a copy was started that answers in `path`."""
    return os.path.exists(path) or os.path.exists(path + _PART)


def answer_of(path: str, until: float) -> Any:
    """Return the answer in `path`; if there is none by `until` on the monotonic clock, end the copy and return None."""
    while True:
        try:
            with _open(path, encoding="utf-8") as file:
                found = _parsed(file.read())
            os.unlink(path)
            return found
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            return None
        if _clock() >= until:
            _end(path + _PART)
            return None
        _sleep(_POLL)


def _end(part: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        with _open(part, encoding="utf-8") as file:
            pid = int(file.read(20))
        os.unlink(part)
        if os.getsid(pid) == pid != getpid():  # a copy leads a session of its own
            os.kill(pid, signal.SIGKILL)
