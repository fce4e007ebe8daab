"""A wait for a process that is not a child is recorded, and raises what it always raises."""

from __future__ import annotations

import os

import pytest

from pytest_startmethod.launches.reaping import FailedWaits

pytestmark = pytest.mark.skipif(not hasattr(os, "waitpid") or not hasattr(os, "fork"), reason="waits for children")


class Replacing:
    def __init__(self):
        self.originals = {}

    def put(self, owner, name, wrap):
        self.originals[name] = getattr(owner, name)
        setattr(owner, name, wrap(self.originals[name]))

    def undo(self):
        for name, original in self.originals.items():
            setattr(os, name, original)


@pytest.fixture
def waits():
    noted, replacing = FailedWaits(), Replacing()
    noted.listen(replacing)
    yield noted
    replacing.undo()


@pytest.mark.parametrize("how", ["waitpid", "wait4", "waitid"])
def test_failed_wait_is_noted(waits, how):
    """Function, pid and the user's line are recorded; the caller gets the exception."""
    arguments = (os.P_PID, os.getpid(), os.WEXITED) if how == "waitid" else (os.getpid(), 0)
    with pytest.raises(ChildProcessError):
        getattr(os, how)(*arguments)
    (found,) = waits.calls
    assert (found.function, found.pid) == (how, os.getpid())
    assert found.place.file == __file__


def test_other_waits_are_not(waits):
    """Successful waits and waits for any child are not recorded."""
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(-os.getpid(), 0)
    assert waits.calls == []
