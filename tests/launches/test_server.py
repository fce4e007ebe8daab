"""What the kernel says of a forkserver."""

from __future__ import annotations

import os
import signal

import pytest

from pytest_startmethod.launches.server import _inherited, surroundings


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None])
def test_signals_that_are_ignored(handler):
    """A process started now ignores what this one does."""
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        assert ("SIGUSR2" in surroundings().ignored) == (handler == signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs proc(5)")
def test_a_server_that_has_ended_passes_on_nothing():
    """Of a process that nobody has waited for, the kernel still has a status, and no umask in it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert _inherited(str(pid)) == {}
        assert "the umask" in _inherited("self")
    finally:
        os.waitpid(pid, 0)
