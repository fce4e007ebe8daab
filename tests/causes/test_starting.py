"""A patch in the parent that breaks multiprocessing's own start of a process (SM303). No process is started."""

from __future__ import annotations

import inspect
import multiprocessing.popen_forkserver
import multiprocessing.process
import multiprocessing.reduction
import multiprocessing.spawn
import os
import sys
import unittest.mock
from typing import Any

import pytest

from pytest_startmethod._compat import multiprocessing as mp
from pytest_startmethod.causes import starting
from pytest_startmethod.model.child_report import Frame, Raised
from pytest_startmethod.model.evidence import CallEnd, Evidence, Parent
from pytest_startmethod.model.launch import Launch
from pytest_startmethod.model.observed import Observed
from pytest_startmethod.model.patched import Patched
from pytest_startmethod.model.place import Place
from pytest_startmethod.model.stack import Hanging, Stack

TEST = "/home/me/project/test_x.py"
PLACE = Place(TEST, 4)
MODULES = {**sys.modules, "socket": sys}


def line_of(module: Any, text: str) -> int:
    return 1 + next(at for at, line in enumerate(inspect.getsource(module).splitlines()) if text in line)


def frame(module: Any, text: str, function: str) -> Frame:
    return Frame(module.__file__, line_of(module, text), function, "")


STARTING = (
    Frame(TEST, 9, "test_x", ""),
    frame(multiprocessing.process, "self._popen = self._Popen(self)", "BaseProcess.start"),
)
OPENING = frame(multiprocessing.popen_forkserver, "with open(w, 'wb'", "Popen._launch")
PICKLING = frame(multiprocessing.reduction, "ForkingPickler(file, protocol).dump(obj)", "dump")
GUARD = Frame(TEST, 5, "guard", "")
MOCK = Frame(unittest.mock.__file__, 9, "CallableMixin.__call__", "")


def evidence(*frames: Frame, patches: tuple[str, ...] = ("builtins.open",), **more: Any) -> Evidence:
    return Evidence(
        "",
        "forkserver",
        "failed",
        raised=(Raised("RuntimeError", "no files", frames),),
        raised_at=Place(TEST, 9),
        patches=[Patched(each, PLACE, "monkeypatch") for each in patches],
        parent=Parent(modules=MODULES),
        **more,
    )


@pytest.mark.parametrize(
    ("frames", "patches", "found"),
    [
        ((*STARTING, OPENING, GUARD), ("builtins.open",), ["builtins.open"]),
        ((*STARTING, OPENING, MOCK), ("os.getpid", "builtins.open"), ["builtins.open"]),
        ((*STARTING, OPENING), ("os.pipe", "builtins.open"), ["builtins.open"]),
        ((*STARTING, OPENING, GUARD), ("os.open", "shop.open", "builtins.print"), []),
        ((*STARTING, PICKLING, GUARD), ("builtins.open", "shop.Basket.total"), []),
        ((Frame(TEST, 9, "test_x", ""), GUARD), ("builtins.open",), []),
        ((OPENING, GUARD), ("builtins.open",), []),
    ],
    ids=["raises", "mock-raises", "returned-nonsense", "another", "user's-pickling", "no-start", "not-the-user's"],
)
def test_a_patch_is_named_where_multiprocessing_calls_what_it_replaces(frames, patches, found):
    """Its call stands in the traceback, or before the line that raised in the same function."""
    assert [each.path for each in starting.broken(evidence(*frames, patches=patches))] == found


def test_the_finding_tells_who_replaced_what_multiprocessing_needs():
    (found,) = starting.broken(evidence(*STARTING, OPENING, GUARD))
    assert (found.code, found.file, found.line) == ("SM303", TEST, 4)
    assert found.message == (
        "builtins.open is replaced (monkeypatch) in the parent, and multiprocessing itself needs it to start a process "
        "under forkserver: it raised RuntimeError: no files"
    )
    assert f"set by monkeypatch at {TEST}:4" in found.evidence
    assert any(
        each.startswith(f"needed at {OPENING.file}:{OPENING.line}: with open(w, 'wb'") for each in found.evidence
    )
    assert "under fork: the child starts without it" in str(found).replace("\n", " ")
    assert found.experiment("spawn") == ""


def test_nothing_is_found_where_fork_fails_too():
    failed = {"fork": CallEnd("failed")}
    assert starting.broken(evidence(*STARTING, OPENING, GUARD, others=failed)) == []


def test_an_installed_package_that_replaces_a_name_by_assignment_is_named():
    """As pytest-socket does, whose guard raises."""
    connecting = frame(multiprocessing.popen_forkserver, "with open(w, 'wb'", "Popen._launch")
    tool = Frame("/usr/lib/python3/site-packages/no_files/guard.py", 3, "guard", "")
    assert starting.broken(evidence(*STARTING, connecting, tool, patches=())) == []  # a builtin has no dotted name
    from multiprocessing import forkserver

    connecting = frame(forkserver, "with socket.socket(socket.AF_UNIX) as client", "ForkServer.connect_to_new_process")
    (found,) = starting.broken(evidence(*STARTING, connecting, tool, patches=()))
    assert (found.path, found.file, found.line) == ("socket.socket", TEST, 9)
    assert "socket.socket is replaced (no_files) in the parent" in found.message


def launch(**values: Any) -> Launch:
    return Launch("forkserver", "work.run", (), Place(TEST, 9), None, None, "", **values)


@pytest.mark.parametrize(
    ("patch", "stacks", "found"),
    [
        ("builtins.open", (), ["builtins.open"]),
        ("builtins.open", (Stack((("/usr/lib/python3/queue.py", 3, "get"),)),), []),
        ("builtins.print", (), []),
    ],
    ids=["never-began", "runs", "another"],
)
def test_a_child_that_waits_for_its_payload_is_explained_by_the_patch_that_took_it(patch, stacks, found):
    """`mock_open` swallows what multiprocessing writes into the child's pipe."""
    hanging = Hanging(5.0, (), [(launch(pid=7), stacks)])
    given = evidence(Frame(TEST, 10, "test_x", ""), patches=(patch,), hanging=hanging, launches=[launch(pid=7)])
    assert [each.path for each in starting.broken(given)] == found


@pytest.mark.parametrize(
    ("misled", "code", "found"),
    [
        ("sys.frozen", 2, "a child gets the command line of a frozen program and ends with exit code 2"),
        ("multiprocessing.set_executable", 255, "there is no such file, and the child ends with exit code 255"),
        ("sys.frozen", 0, None),
        ("", 2, None),
    ],
)
def test_a_setting_with_which_no_child_begins_is_named(misled, code, found):
    """A frozen program's command line, or an interpreter that does not exist, ends the child before it reports."""
    observed = Observed("spawn", "work", None, misled=misled)
    launch = Launch("spawn", "work", (), PLACE, None, None, "leg", pid=7, exit_code=code, observed=observed)
    given = Evidence("leg", "spawn", "failed", launches=[launch], parent=Parent(modules=MODULES))
    findings = starting.broken(given)
    assert [(each.code, each.path, each.line) for each in findings] == ([("SM303", misled, 4)] if found else [])
    if found:
        assert findings[0].message.endswith(f"multiprocessing itself needs it to start a process under spawn: {found}")
        assert findings[0].breaks_start


def test_what_looks_for_the_interpreter_is_not_what_a_test_has_replaced(monkeypatch):
    """It runs when the user's code starts a process, whose own calls a test may count."""
    for name in ("os.stat", "os.path.exists"):
        monkeypatch.setattr(name, unittest.mock.Mock(side_effect=FileNotFoundError))
    assert mp.misled() == ""
    calls = os.stat.mock_calls, os.path.exists.mock_calls
    monkeypatch.undo()
    assert calls == ([], [])
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: "/no/such/python")
    assert mp.misled() == "multiprocessing.set_executable"
