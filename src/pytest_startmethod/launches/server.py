"""Inspect multiprocessing's current forkserver, and what a new process would inherit."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from contextlib import suppress
from multiprocessing.process import current_process

from .._compat import cpython, signals
from .._compat import multiprocessing as mp
from ..model.server import Server, Surroundings

_open = open  # a test may replace it
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGTSTP", "SIGALRM")
"""Signals that programs ignore on behalf of their children. Python itself ignores SIGPIPE and SIGXFSZ."""


def observe() -> Server:
    """Return the state of the server. Runs no user code and imports nothing from multiprocessing."""
    tracker = cpython.tracker_pid()
    if "multiprocessing.forkserver" not in sys.modules or not mp.has_forkserver():
        return Server(tracker=tracker)
    state = mp.STDLIB.server_state()
    pid, socket = mp.server_pid(state), mp.server_socket(state)
    directory = cpython.temporary_directory_of(current_process())
    return Server(
        pid=pid,
        running=pid is not None and _is_running(pid),
        tracker=tracker,
        socket=socket,
        directory=directory,
        gone=any(path is not None and not os.path.exists(path) for path in (socket, directory)),
        base=tempfile.tempdir or "",
        surroundings=Surroundings(_streams(str(pid)), frozenset(), _inherited(str(pid)), pid),
        preloaded=tuple(name for name in mp.STDLIB.preload_modules if name not in ("__main__", "pytest")),
    )


def surroundings() -> Surroundings:
    """Return what a process started now inherits."""
    loaded = "multiprocessing.forkserver" in sys.modules and mp.has_forkserver()
    ignored = [name for name in _SIGNALS if hasattr(signal, name) and signals.is_ignored(getattr(signal, name))]
    server = mp.server_pid(mp.STDLIB.server_state()) if loaded else None
    return Surroundings(_streams("self"), frozenset(ignored), _inherited("self"), server)


def _streams(pid: str) -> tuple[tuple[object, str], ...]:
    """Return the targets of a process's descriptors 0 to 2 from the kernel, or nothing if unavailable."""
    found: list[tuple[object, str]] = []
    for number in range(3):
        path = f"/proc/{pid}/fd/{number}"
        try:
            status = os.stat(path)
            found.append(((status.st_dev, status.st_ino), os.readlink(path)))
        except OSError:
            return ()
    return tuple(found)


def _inherited(pid: str) -> dict[str, str]:
    """Return what a process passes on to its children, from the kernel (proc(5)): names and texts."""
    found = {}
    with suppress(OSError):
        with _open(f"/proc/{pid}/status", encoding="utf-8") as file:
            status = dict(
                line.rstrip().split(":\t", 1)
                for line in file
                if line.startswith(("Umask:", "Cpus_allowed_", "SigBlk:"))
            )
        if "Umask" not in status:  # it has ended
            return {}
        found = {"the umask": status["Umask"], "the CPU affinity": f"CPUs {status['Cpus_allowed_list']}"}
        found["the blocked signals"] = _signals(int(status["SigBlk"], 16))
        with _open(f"/proc/{pid}/limits", encoding="utf-8") as file:
            for line in list(file)[1:]:
                name, soft, *_ = re.split(r" {2,}", line)
                found[f"the limit {name!r}"] = soft
    return found


def _signals(mask: int) -> str:
    names = [each.name for each in signal.Signals if mask >> (each - 1) & 1]
    return ", ".join(names) or "none"


def _is_running(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (OSError, AttributeError):  # AttributeError: macOS before 3.13
        return os.path.exists(f"/proc/{pid}")
