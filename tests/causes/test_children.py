"""Reports become findings, and the child's traceback becomes text. No process is started."""

from __future__ import annotations

import enum
import importlib
import multiprocessing.context
import multiprocessing.popen_fork
import multiprocessing.synchronize
import os
import signal
import sys
import sysconfig
import textwrap
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.causes import children
from pytest_startmethod.causes.explain import explain
from pytest_startmethod.causes.loading import load_finding
from pytest_startmethod.launches.reports import ReportDirectory
from pytest_startmethod.model.child_report import ChildReport, Frame, Raised, Result, Unreturned, Work
from pytest_startmethod.model.evidence import Evidence, Parent
from pytest_startmethod.model.launch import Launch, Task
from pytest_startmethod.model.place import Place
from pytest_startmethod.model.server import Server
from pytest_startmethod.model.unloaded import Unloaded
from pytest_startmethod.report import tracebacks
from pytest_startmethod.report.tracebacks import traceback_lines


def findings(reports, launches=(), parent=None, predicted=(), **more):
    """Return the findings of a failed leg with these children."""
    unloaded = {each.pid: predicted for each in launches if predicted}
    parent = parent or Parent()
    return explain(
        Evidence("", "spawn", "failed", launches=launches, reports=reports, parent=parent, unloaded=unloaded, **more)
    )


def missing(module: str) -> Raised:
    return Raised("ModuleNotFoundError", f"No module named '{module}'", name=module)


def module_at(name: str, file: Path) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = str(file)
    return module


def launch(**values: Any) -> Launch:
    base: dict[str, Any] = {
        "method": "spawn",
        "target": "work.run",
        "args": (),
        "place": Place("/p/test_work.py", 9),
        "thread": None,
        "fixture": None,
        "leg": "test_work.py::test_it[spawn]",
        "pid": 7,
    }
    return Launch(**{**base, **values})


def report(phase: str, *raised: Raised, **values: Any) -> ChildReport:
    base: dict[str, Any] = {"pid": 7, "method": "spawn", "process": "SpawnProcess-1"}
    return ChildReport(phase=phase, raised=raised, **{**base, **values})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_locks.py").write_text("def hold(): pass\n")
    return tmp_path


# -- SM201 -----------------------------------------------------------------------------------------------------------


def test_importlib_mode_is_named_with_the_setting_that_helps(project: Path) -> None:
    """The exception names only ``tests``; the finding names the target's module."""
    file = project / "tests" / "test_locks.py"
    modules = {"tests": types.ModuleType("tests"), "tests.test_locks": module_at("tests.test_locks", file)}
    parent = Parent(modules, ("/usr/lib",), str(project), "importlib")
    what = Unloaded(missing("tests"), target="tests.test_locks.hold", place=Place("/p/test_work.py", 9))
    finding = load_finding(what, parent)
    assert (finding.code, finding.name, finding.level) == ("SM201", "module-not-importable", "cause")
    assert (finding.file, finding.line) == (str(file), 1)
    assert finding.message == (
        "the spawn child cannot import 'tests.test_locks': --import-mode=importlib gave "
        f"{file} that name, and {project} is not on sys.path"
    )
    assert finding.fix == (
        f"put {project} on sys.path: `pythonpath = .` in the pytest ini file, or run `python -m pytest` there, or use "
        "--import-mode=prepend"
    )
    assert finding.evidence == ("ModuleNotFoundError: No module named 'tests'", "started at /p/test_work.py:9")


def test_a_module_loaded_by_its_path_is_not_importable(project: Path) -> None:
    """A module loaded with `spec_from_file_location` is not on the child's sys.path."""
    file = project / "tests" / "test_locks.py"
    parent = Parent({"test_locks": module_at("test_locks", file)}, (), str(project), "prepend")
    finding = load_finding(Unloaded(missing("test_locks"), task=True), parent)
    assert finding.message == (
        f"a spawn worker cannot import 'test_locks': the parent loaded {file} by its path, and {file.parent} is not on "
        "sys.path"
    )
    assert finding.fix == (
        f"put {file.parent} on sys.path before the processes start: `pythonpath = tests` in the pytest ini file, "
        "PYTHONPATH, or install the package"
    )


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ("no file", "the parent made that module at run time, and there is no file to import"),
        ("absent", "the parent has not imported it, and the child's sys.path does not lead to it"),
        ("other name", "the parent loaded {file} under that name, which its path does not give it"),
        ("late", "{root} is on the parent's sys.path now, and was not when the processes started"),
        ("gone", "the parent loaded it from {gone}, which is gone"),
        ("hook", "the parent loaded it from {file} by other means than sys.path, which holds {root}"),
    ],
)
def test_every_other_reason_has_its_own_words(project: Path, made: str, reason: str) -> None:
    """Each reason has its message: no file, never imported, wrong name, changed sys.path, deleted file, import hook."""
    file, root = project / "tests" / "test_locks.py", project / "tests"
    gone = root / "gone.py"
    name = {"other name": "plugin", "gone": "gone"}.get(made, "test_locks")
    module = types.ModuleType(name) if made == "no file" else module_at(name, gone if made == "gone" else file)
    parent = Parent({} if made == "absent" else {name: module}, (str(root),), str(project))
    child_path = ("/usr/lib",) if made == "late" else (str(root),)
    finding = load_finding(Unloaded(missing(name), sys_path=child_path), parent)
    expected = reason.format(file=file, root=root, gone=gone)
    assert finding.message == f"the spawn child cannot import {name!r}: {expected}"
    assert finding.fix


def imports(file: Path, *frames: Frame) -> tuple[Frame, ...]:
    return (Frame("<frozen importlib._bootstrap>", 1, "_load", ""), *frames)


def test_an_import_that_raises_is_blamed_on_the_line_that_does(tmp_path: Path) -> None:
    """`set_start_method` at module level runs again in the child, whose method is already set."""
    file = tmp_path / "test_pool.py"
    line = Frame(str(file), 4, "<module>", 'mp.set_start_method("spawn")')
    inside = Frame(multiprocessing.context.__file__, 247, "set_start_method", "raise RuntimeError")
    raised = Raised("RuntimeError", "context has already been set", imports(file, line, inside))
    finding = load_finding(Unloaded(raised, task=True), Parent({}))
    assert (finding.code, finding.file, finding.line) == ("SM201", str(file), 4)
    assert finding.message == (
        f"a spawn worker failed while it imported {file}: RuntimeError: context has already been set"
    )
    assert finding.evidence == (f'at {file}:4: mp.set_start_method("spawn")',)
    assert finding.fix == (
        'call set_start_method() under `if __name__ == "__main__":` or in a fixture, not when the module loads'
    )


def test_an_import_that_starts_processes_is_told_so(tmp_path: Path) -> None:
    """The message does not repeat CPython's long text."""
    file = tmp_path / "jobs.py"
    text = "\n        An attempt has been made to start a new process before the\n        current process has finished"
    raised = Raised("RuntimeError", text, imports(file, Frame(str(file), 3, "<module>", "pool = Pool()")))
    finding = load_finding(Unloaded(raised, method="forkserver"), Parent({}))
    assert finding.message == (
        f"the forkserver child failed while it imported {file}, which starts processes of its own"
    )
    assert finding.fix == (
        'start processes in a function or under `if __name__ == "__main__":`, not when the module loads'
    )


def test_import_that_a_library_refuses_points_at_the_users_line(tmp_path: Path) -> None:
    """The fix is to repeat the parent's setup (``django.setup()`` in a conftest.py), not to move a file."""
    file, models = str(tmp_path / "mailer.py"), f"{tmp_path}{os.sep}site-packages{os.sep}lib{os.sep}models.py"
    frames = imports(
        Path(file), Frame(file, 3, "<module>", "import lib.models"), Frame(models, 5, "<module>", "check()")
    )
    raised = Raised("lib.NotReady", "Apps aren't loaded yet.", (*frames, Frame(models, 9, "check", "raise NotReady")))
    finding = load_finding(Unloaded(raised, task=True), Parent({}))
    assert (finding.code, finding.file, finding.line) == ("SM201", file, 3)
    assert finding.fix == (
        "what had made that import possible in the parent (a conftest.py, a fixture, the main module) has not run in "
        f"the child: do the same there first, in a pool's initializer or at the top of {file}, above line 3"
    )


RAISING = (Frame("/p/work.py", 9, "run", "import models"), Frame("/p/models.py", 2, "<module>", "check()"))


@pytest.mark.parametrize("how", ["process", "task"])
def test_import_within_a_function_that_raises_in_the_child(how) -> None:
    """A failed import is SM201, from a process's report or from the traceback that a task sends back."""
    raised = Raised("RuntimeError", "not set up", RAISING)
    parent = Parent({"models": module_at("models", Path("/p/models.py"))})
    reports, remote = ([report("run", raised)], ()) if how == "process" else ([], (raised,))
    (finding,) = findings(reports, [launch()], parent, remote=remote)
    assert (finding.code, finding.path, finding.file, finding.line) == ("SM201", "models", "/p/models.py", 2)
    assert finding.message == "the spawn child failed while it imported /p/models.py: RuntimeError: not set up"
    assert "has not run in the child: do the same there first" in finding.fix


@pytest.mark.parametrize(
    ("frames", "modules", "method"),
    [
        (RAISING[:1], {"models"}, "spawn"),
        (RAISING, set(), "spawn"),
        (RAISING[1:], {"models"}, "spawn"),
        (RAISING, {"models"}, "fork"),
    ],
    ids=["no import", "the parent has not imported it", "the main module", "fork"],
)
def test_other_exceptions_of_a_function_are_no_import(frames, modules, method) -> None:
    """An exception from the user's own function is not an import problem."""
    parent = Parent({name: module_at(name, Path(f"/p/{name}.py")) for name in modules})
    given = Evidence("", method, "failed", remote=(Raised("RuntimeError", "no", frames),), parent=parent)
    assert explain(given) == ()


def test_directory_that_was_on_sys_path_for_a_while(project: Path) -> None:
    """A module imported from a directory that has since left sys.path was not loaded by its path."""
    (project / "tests" / "for_a_while.py").write_text("")
    root = str(project / "tests")
    sys.path.insert(0, root)
    try:
        module = importlib.import_module("for_a_while")
    finally:
        sys.path.remove(root)
    del sys.modules["for_a_while"]
    finding = load_finding(
        Unloaded(missing("for_a_while"), task=True), Parent({"for_a_while": module}, (), "/elsewhere")
    )
    assert finding.message == (
        f"a spawn worker cannot import 'for_a_while': {root} was on sys.path while the parent imported it, and is not "
        "any more"
    )
    assert finding.fix == f"leave {root} on sys.path until the processes have started"


# -- SM202 -----------------------------------------------------------------------------------------------------------

GUARDED = """
import os

if os.environ.get("PARENT"):
    def work():
        pass
"""


@pytest.mark.parametrize(
    "text",
    [
        "Can't get attribute 'work' on <module 'jobs' from '/p/jobs.py'>",  # up to 3.13
        "module 'jobs' has no attribute 'work'",
        "Can't resolve path 'work' on module 'jobs'",
    ],
)
def test_a_name_under_a_condition_is_found_in_the_source(tmp_path: Path, text: str) -> None:
    """All of CPython's wordings lead to the same finding."""
    file = tmp_path / "jobs.py"
    file.write_text(GUARDED)
    finding = load_finding(Unloaded(Raised("AttributeError", text)), Parent({"jobs": module_at("jobs", file)}))
    assert (finding.code, finding.name, finding.file, finding.line) == ("SM202", "name-missing-in-child", str(file), 4)
    assert finding.message == (
        "the spawn child imports 'jobs', and the name is not there: 'work' is defined under the condition at "
        f"{file}:4, which does not hold in the child"
    )
    assert finding.fix == "define 'work' unconditionally, at the top level of jobs"


def test_a_name_that_the_source_does_not_have_was_added_at_run_time(tmp_path: Path) -> None:
    """The finding points at the function's own definition."""
    file = tmp_path / "jobs.py"
    file.write_text("")
    module = module_at("jobs", file)
    module.work = test_a_name_under_a_condition_is_found_in_the_source  # type: ignore[attr-defined]
    text = "Can't get attribute 'work' on <module 'jobs' from '/p/jobs.py'>"
    finding = load_finding(Unloaded(Raised("AttributeError", text), path="args[0]"), Parent({"jobs": module}))
    assert (finding.path, finding.file) == ("args[0]", __file__)
    assert finding.message == (
        "the spawn child imports 'jobs', and the name is not there: 'work' is not in its source; the parent added it "
        f"at run time by {__file__}:{finding.line}"
    )
    assert finding.fix == "define 'work' at the top level of jobs, or pass it as an argument"


def test_main_of_the_child_is_another_module() -> None:
    """The child knows its main module as ``__mp_main__``."""
    text = "Can't get attribute 'work' on <module '__mp_main__' from '/p/x.py'>"
    finding = load_finding(Unloaded(Raised("AttributeError", text)), Parent({}))
    assert finding.message == (
        "the spawn child imports '__main__', and the name is not there: the child's __main__ is not the parent's, and "
        "'work' is not in it"
    )
    assert finding.fix == "move 'work' into an importable module of its own, so that the child finds it by import"


class Keeper:
    def __secret(self) -> None: ...

    def bound(self) -> object:
        return self.__secret


class Heir(Keeper): ...


@pytest.mark.parametrize("cls", ["Keeper", "Heir"])
def test_a_private_method_is_looked_up_by_the_wrong_name(cls: str) -> None:
    """The finding points at the method's ``def``, and names it as the class that defines it does."""
    raised = Raised("AttributeError", f"'{cls}' object has no attribute '__secret'", name="__secret")
    what = Unloaded(raised, path="target", target=f"{__name__}.{cls}.__secret")
    finding = load_finding(what, Parent({__name__: sys.modules[__name__]}))
    assert (finding.code, finding.path, finding.file) == ("SM202", "target", __file__)
    assert finding.line == Keeper.__dict__["_Keeper__secret"].__code__.co_firstlineno
    assert finding.message == (
        f"the spawn child looks up '__secret' on '{cls}', but name mangling stored it as '_Keeper__secret'"
    )
    assert finding.fix == (
        "rename '__secret' to '_secret', with a single underscore, or pass a method that is not private"
    )


# -- SM203 -----------------------------------------------------------------------------------------------------------

LOADS = """
class Record:
    def __setstate__(self, state):
        self.version = state["version"]

    def __getattr__(self, name):
        return self.inner[name]
"""


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    file = tmp_path / "records.py"
    file.write_text(LOADS)
    return file


@pytest.mark.parametrize("function", ["Record.__setstate__", "__setstate__"])
def test_the_method_that_raises_is_named_by_its_def(loads: Path, function: str) -> None:
    """3.10 reports the name without its class; the source supplies it."""
    raised = Raised("KeyError", "'version'", (Frame(str(loads), 4, function, 'self.version = state["version"]'),))
    finding = load_finding(Unloaded(raised, path="args[0]"), Parent({}))
    assert (finding.code, finding.name, finding.line) == ("SM203", "unpickling-raised", 3)
    assert finding.message == (
        "the spawn child calls Record.__setstate__ to load the object, and that raises KeyError: 'version'"
    )
    assert finding.evidence == (f'raised at {loads}:4: self.version = state["version"]',)
    assert finding.fix == (
        "let Record.__setstate__ accept what the object's __getstate__, or else its __dict__, gives it"
    )


def test_a_greedy_getattr_calls_itself(loads: Path) -> None:
    """``__getattr__`` recurses on an object that has no attributes yet."""
    raised = Raised(
        "RecursionError", "maximum recursion depth exceeded", (Frame(str(loads), 7, "Record.__getattr__", ""),)
    )
    finding = load_finding(Unloaded(raised), Parent({}))
    assert finding.line == 6
    assert finding.message == (
        "the spawn child asks the new, still empty object for an attribute, and Record.__getattr__, which reads an "
        "attribute that is not set yet, calls itself without end"
    )
    assert finding.fix == (
        "let __getattr__ of Record raise AttributeError for names it does not know, those with __ first"
    )


class NeedsError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


class Made:
    def __new__(cls, name: str) -> Made:
        return super().__new__(cls)


MINE = Parent({__name__: sys.modules[__name__]})


def test_an_exception_that_needs_more_arguments_than_its_args_hold() -> None:
    """The finding points at the constructor; the class is found by name."""
    raised = Raised("TypeError", "NeedsError.__init__() missing 1 required positional argument: 'text'")
    finding = load_finding(Unloaded(raised, global_name=(__name__, "NeedsError")), MINE)
    assert (finding.code, finding.file, finding.line) == (
        "SM203",
        __file__,
        NeedsError.__init__.__code__.co_firstlineno,
    )
    assert finding.message == (
        "the spawn child calls NeedsError to load the object, with other arguments than it takes: TypeError: "
        "NeedsError.__init__() missing 1 required positional argument: 'text'"
    )
    assert finding.fix == (
        "pass all arguments on, super().__init__(...), so that NeedsError.args holds what the constructor takes, or "
        "define __reduce__"
    )


def test_new_with_arguments_wants_getnewargs() -> None:
    """The default reduction calls ``__new__`` with the class only."""
    raised = Raised("TypeError", "Made.__new__() missing 1 required positional argument: 'name'")
    finding = load_finding(Unloaded(raised, global_name=(__name__, "Made")), MINE)
    assert finding.line == Made.__new__.__code__.co_firstlineno
    assert finding.fix == "define __getnewargs__ in Made, which returns the arguments of __new__, or define __reduce__"


def test_a_method_that_only_the_parents_class_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound method is looked up by name on the child's object, whose class is as its module defines it."""
    raised = Raised("AttributeError", "'Made' object has no attribute 'later'")
    what = Unloaded(raised, global_name=("builtins", "getattr"), target=f"{__name__}.Made.later")
    assert load_finding(what, MINE).code == "SM203"
    monkeypatch.setattr(Made, "later", test_new_with_arguments_wants_getnewargs, raising=False)
    finding = load_finding(what, MINE)
    assert (finding.code, finding.file) == ("SM202", __file__)
    assert finding.message.startswith(
        "the spawn child looks up 'later' on 'Made', and it is not there: the parent added it at run time by "
    )


class Sentinel(enum.Enum):
    UNSET = object()


def test_a_member_whose_value_does_not_survive_pickling() -> None:
    """A member travels as its class and value."""
    raised = Raised("ValueError", "<object object at 0x1> is not a valid Sentinel")
    finding = load_finding(Unloaded(raised, global_name=(__name__, "Sentinel")), MINE)
    assert finding.fix.startswith("give the members of Sentinel values that are equal once pickled (enum.auto(), text")


def test_what_is_not_understood_is_said_in_the_interpreters_words() -> None:
    """Without a user frame or a known message, the finding quotes the interpreter."""
    finding = load_finding(Unloaded(Raised("ValueError", "truncated"), global_name=("x.y", "Z")), Parent({}))
    assert finding.message == "the spawn child could not load x.y.Z: ValueError: truncated"


# -- SM404 -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_reported_nothing_where_another_did_not_load_is_no_crash():
    """A pool starts a worker after the other: that one ended for the same reason, whether or not it could say so."""
    launches = [launch(pid=7, exit_code=1), launch(pid=8, exit_code=1)]
    found = findings([report("unpickling", missing("work"))], launches)
    assert {each.code for each in found} == {"SM201"}
    assert "SM404" in {each.code for each in findings([report("run", missing("work"))], launches)}


def test_a_signal_is_named_with_the_line_it_struck() -> None:
    """The user's line comes from the native stack."""
    context = multiprocessing.context.__file__
    stack = ("Fatal Python error: Segmentation fault", "", 'Current thread 0x1 (most recent call first):',
             f'  File "{context}", line 3 in string_at', '  File "/p/work.py", line 12 in read')  # fmt: skip
    (finding,) = findings([report("crash", stack=stack)], [launch(exit_code=-11)])
    assert (finding.code, finding.name, finding.level) == ("SM404", "child-crashed", "cause")
    assert (finding.file, finding.line) == ("/p/work.py", 12)
    assert finding.message == "the spawn child work.run (pid 7) was killed by SIGSEGV, exit code -11"
    assert finding.evidence[0] == "Fatal Python error: Segmentation fault"
    assert finding.evidence[-1] == "started at /p/test_work.py:9"
    assert finding.fix == (
        "look at the line above: native code that holds threads, handles or memory of its parent is the usual cause"
    )


@pytest.mark.parametrize(
    ("method", "more"),
    [("fork", ""), ("spawn", ", and for a handler that the parent has: a child of this method does not inherit it")],
)
def test_a_signal_that_is_sent_is_no_crash_of_native_code(method: str, more: str) -> None:
    (finding,) = findings([], [launch(method=method, exit_code=-signal.SIGUSR1)])
    assert (finding.code, finding.fix) == ("SM404", f"look for who sends SIGUSR1{more}")


CRASH = (
    "Fatal Python error: Aborted",
    "",
    "Current thread 0x1 (most recent call first):",
    f'  File "{multiprocessing.context.__file__}", line 3 in string_at',
    '  File "/p/work.py", line 12 in read',
    f'  File "{multiprocessing.context.__file__}", line 8 in _bootstrap',
    '  File "/p/test_work.py", line 9 in test_it',
)


def test_a_crash_without_an_exit_code_is_told_by_its_stack() -> None:
    """No exit code: the parent did not wait, or it is a grandchild. Frames of a fork's parent do not count."""
    (finding,) = findings([report("crash", stack=CRASH, method="fork")], [launch(method="fork")])
    assert finding.message == "the fork child work.run (pid 7) crashed: Aborted"
    assert (finding.file, finding.line) == ("/p/work.py", 12)
    assert finding.evidence == ("/p/work.py:12 in read", "started at /p/test_work.py:9")
    assert finding.fix.endswith(", and spawn gives it a clean start")
    (finding,) = findings([report("crash", stack=CRASH, pid=8, starter=7)], [launch()])
    assert finding.message == "a spawn child of the child 7 (pid 8) crashed: Aborted"


def test_a_crash_is_shown_by_the_users_frames_of_the_child() -> None:
    """With `full`, faulthandler's text is shown unchanged."""
    crashed = report("crash", stack=CRASH, process=None)
    assert traceback_lines(crashed, "/p") == [
        "a child (pid 7, spawn) crashed:",
        "  Fatal Python error: Aborted",
        "  Current thread 0x1 (most recent call first):",
        "    work.py:12 in read",
    ]
    assert traceback_lines(crashed, full=True)[1:] == [f"  {line}" for line in CRASH]


def test_an_exit_code_without_an_exception_is_os_exit() -> None:
    """A non-zero exit code without a report means that Python did not end the child."""
    (finding,) = findings([], [launch(exit_code=7)])
    assert finding.message == (
        "the spawn child work.run (pid 7) ended with exit code 7 and no exception: os._exit(7) or native code ended it"
    )
    assert finding.fix == "look for os._exit() in the child; it skips finally blocks, buffered output and exit handlers"


def test_exit_code_of_an_interrupt() -> None:
    """An interrupted child exits with Python's own code 1 and reports no exception."""
    (finding,) = findings([], [launch(exit_code=1)])
    assert finding.message == (
        "the spawn child work.run (pid 7) ended with exit code 1 and reported nothing: an interrupt, os._exit(1) or "
        "native code ended it"
    )


def test_255_of_a_child_whose_server_lives_is_its_own() -> None:
    """The child called ``os._exit(255)``."""
    (finding,) = findings([], [launch(method="forkserver", exit_code=255)], server=Server(1, running=True))
    assert "ended with exit code 255 and no exception: os._exit(255)" in finding.message


def test_a_lost_forkserver_leaves_255() -> None:
    """Exit code 255 is multiprocessing's, not the child's."""
    (finding,) = findings([], [launch(method="forkserver", exit_code=255)], server=Server(1))
    assert finding.message == (
        "the forkserver child work.run (pid 7) has no exit code: the forkserver process that it came from has ended"
    )


def test_sigkill_is_a_note() -> None:
    """Tests kill children on purpose, so SIGKILL is not a cause."""
    (finding,) = findings([], [launch(exit_code=-9)])
    assert finding.level == "note"
    assert finding.fix == ("look for who kills it: Process.kill(), a supervisor, or the kernel when memory runs out")


def test_a_child_that_we_killed_has_not_crashed() -> None:
    """At a time limit, a child that ignores SIGTERM is killed from here; one that crashed before that crashed."""
    assert findings([], [replace(launch(exit_code=-9), killed=True)]) == ()
    (finding,) = findings([], [replace(launch(exit_code=-11), killed=True)])
    assert "was killed by SIGSEGV" in finding.message


@pytest.mark.parametrize("code", [None, 0, -15, -2])
def test_an_ordinary_end_is_no_finding(code: int | None) -> None:
    """A child that is alive, exited with 0 or was terminated has no finding."""
    assert findings([], [launch(exit_code=code)]) == ()


def test_what_the_users_function_raised_is_no_finding() -> None:
    """The traceback explains the failure, and the exit code follows from it."""
    assert findings([report("run", Raised("ValueError", "bad"))], [launch(exit_code=1)]) == ()
    assert findings([report("run", Raised("SystemExit", "3"), exit_code=3)], [launch(exit_code=3)]) == ()


def test_workers_that_fail_alike_are_one_finding() -> None:
    """A pool replaces failing workers forever; all share one finding."""
    reports = [report("unpickling", missing("gone"), pid=pid, task=True) for pid in range(5)]
    assert len(findings(reports, [launch(pid=pid, exit_code=1) for pid in range(5)], Parent({}))) == 1


def test_a_prediction_adds_the_path() -> None:
    """A fresh child's answer adds the path if its exception has the same type."""
    told = report("unpickling", Raised("KeyError", "'version'"))
    same = Unloaded(Raised("KeyError", "'version'"), path="args[0].x")
    other = Unloaded(Raised("ValueError", "?"), path="args[1]")
    (finding,) = findings([told], [launch()], Parent({}), [same])
    assert finding.path == "args[0].x"
    (finding,) = findings([told], [launch()], Parent({}), [other])
    assert finding.path == ""


# -- SM407 -----------------------------------------------------------------------------------------------------------


def test_a_result_that_does_not_pickle_is_shown_by_its_part() -> None:
    """The unpicklable part is a function, and so is the fix about functions."""
    part = Work("work.give.<locals>.<lambda>", "/p/work.py", 4)
    result = Result("dict", "['a'][1]", "function", False, "", part)
    raised = Raised("AttributeError", "Can't pickle local object")
    (finding,) = findings([report("result", raised, result=result, work=Work("work.give", "/p/work.py", 3))])
    assert (finding.code, finding.name, finding.path) == ("SM407", "unpicklable-result", "result['a'][1]")
    assert (finding.file, finding.line) == ("/p/work.py", 3)
    assert finding.message == (
        "the result of work.give did not come back: result['a'][1] is work.give.<locals>.<lambda>, which cannot be "
        "pickled"
    )
    assert finding.fix == "return what the function computes, or a function at the top level of a module"


def test_an_exception_that_does_not_pickle_is_a_result_too() -> None:
    """The finding quotes the message of an exception that does not pickle."""
    result = Result("ValueError", ".args[1]", "_thread.lock", True, "bad", None)
    (finding,) = findings([report("result", result=result, work=Work("work.give", "/p/work.py", 3))])
    assert finding.path == "exception.args[1]"
    assert finding.message == (
        "the ValueError that work.give raised did not come back: its args[1] is a _thread.lock, which cannot be pickled"
    )
    assert finding.evidence == ("the exception said: bad",)
    assert finding.fix == "raise an exception whose args and attributes are plain data"


@pytest.mark.parametrize(
    ("receiver", "what", "after"),
    [
        ("Pool", "what a task gave its Pool",
         ("the Pool's result thread ended with it: whoever waits for a result waits forever",)),
        ("ProcessPoolExecutor", "what a task gave its ProcessPoolExecutor",
         ("the executor is broken by it: all its futures fail with BrokenProcessPool",)),
        (None, "a message of a child", ()),
    ],
)  # fmt: skip
def test_what_the_parent_cannot_load_is_said_with_what_becomes_of_it(
    receiver: Any, what: str, after: tuple[str, ...]
) -> None:
    """An exception with required arguments pickles in the child and fails in the parent."""
    raised = Raised("TypeError", "NeedsError.__init__() missing 1 required positional argument: 'text'")
    (finding,) = findings([], [], MINE, unreturned=[Unreturned(raised, receiver)])
    assert (finding.code, finding.path, finding.file) == ("SM407", "result", __file__)
    assert finding.message == (
        f"{what} was sent and does not load in the parent: TypeError: NeedsError.__init__() missing 1 required "
        "positional argument: 'text'"
    )
    assert finding.evidence == after
    assert "super().__init__" in finding.fix


# -- text ------------------------------------------------------------------------------------------------------------

FRAMES = (
    Frame("/usr/lib/python3.12/multiprocessing/process.py", 108, "run", "self._target()"),
    Frame("/p/pkg/work.py", 3, "outer", "inner(1)"),
    Frame("/p/pkg/work.py", 7, "inner", "assert count == len(data)"),
)


def test_the_childs_traceback_is_the_users_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `full`, all frames are shown; files are relative to the root."""
    monkeypatch.setattr(tracebacks, "owner", lambda file: "stdlib" if "/usr/lib/" in file else "user")
    raised = Raised("ValueError", "bad\nworse", FRAMES, omitted=2)
    lines = traceback_lines(report("run", raised, Raised("KeyError", "'k'")), "/p")
    assert (
        lines
        == textwrap.dedent("""\
        SpawnProcess-1 (pid 7, spawn) raised:
          pkg/work.py:3 in outer
            inner(1)
          pkg/work.py:7 in inner
            assert count == len(data)
          ValueError: bad
          worse
          which came from:
          KeyError: 'k'""").splitlines()
    )
    full = traceback_lines(report("run", raised), "/p", full=True)
    assert full[1:3] == ["  /usr/lib/python3.12/multiprocessing/process.py:108 in run", "    self._target()"]
    assert "  (2 frames left out)" in full


def test_a_bare_assertion_says_that_it_is_not_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values that are available follow the bare assertion."""
    monkeypatch.setattr(tracebacks, "owner", lambda file: "stdlib" if "/usr/lib/" in file else "user")
    raised = Raised(
        "AssertionError", "", FRAMES, statement="assert count == len(data)", values=(("count", "3"), ("data", "[1]"))
    )
    assert traceback_lines(report("run", raised))[-5:] == [
        "  AssertionError",
        "    count = 3",
        "    data = [1]",
        "    pytest does not rewrite asserts in this spawn child: it says no more than",
        "    this",
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"phase": "start-up"}, "SpawnProcess-1 (pid 7, spawn) raised while starting up:"),
        ({"phase": "unpickling"}, "SpawnProcess-1 (pid 7, spawn) raised while loading its process object:"),
        ({"phase": "unpickling", "task": True}, "SpawnProcess-1 (pid 7, spawn) raised while loading a task:"),
        ({"phase": "result"}, "SpawnProcess-1 (pid 7, spawn) raised while sending a result:"),
        ({"phase": "run", "role": "initializer"}, "SpawnProcess-1 (pid 7, spawn) raised in its initializer:"),
    ],
)
def test_the_first_line_says_when_it_was(values: dict[str, Any], line: str) -> None:
    """Each phase has its own wording."""
    phase = values.pop("phase")
    assert traceback_lines(report(phase, missing("x"), **values))[0] == line


def test_what_did_not_load_needs_no_frame_of_multiprocessing() -> None:
    """A function's traceback shows the last standard library frame if there is no user frame."""
    raised = Raised("KeyError", "'k'", (Frame(multiprocessing.context.__file__, 3, "_main", "load()"),))
    assert traceback_lines(report("unpickling", raised))[1:] == ["  KeyError: 'k'"]
    assert traceback_lines(report("run", raised))[1:] == [
        f"  {multiprocessing.context.__file__}:3 in _main",
        "    load()",
        "  KeyError: 'k'",
    ]


def test_a_long_message_is_wrapped_unless_all_is_wanted() -> None:
    """A section is 80 columns wide."""
    raised = Raised("TypeError", "Record.__init__() missing 1 required positional argument: 'description'")
    assert traceback_lines(report("unpickling", raised))[1:] == [
        "  TypeError: Record.__init__() missing 1 required positional argument:",
        "    'description'",
    ]
    assert len(traceback_lines(report("unpickling", raised), full=True)) == 2


def test_an_exit_without_exception_is_one_line() -> None:
    """A finalizer's exception is not reported, so one line is all there is."""
    assert traceback_lines(report("exit", exit_code=1)) == [
        "SpawnProcess-1 (pid 7, spawn) ended with exit code 1 while exiting"
    ]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_passed_over() -> None:
    """Corrupt, truncated, foreign, half-written and empty files are skipped, and the directory is removed."""
    directory = ReportDirectory.create()
    path = Path(directory.path)
    assert path.stat().st_mode & 0o777 == 0o700
    good = '{"pid": 1, "phase": "run", "time": 5}'
    texts = {
        "1.json": good, "2.json": good[:-4], "3.json": "", "4.json": "[]", "5.json": '{"pid": "x", "phase": 1}',
        "6.json": '{"pid": 1, "phase": "run", "raised": [{"type": "X"}]}', "7-1": good, "8.json": "[" * 100_000,
        "9.stack": "", f"{os.getpid()}.stack": "fork 1\n", "x.stack": "fork 1\nFatal Python error: Aborted\n",
        "11.stack": "nonsense\nFatal\n", "12.json": '{"pid": 1, "phase": "run", "result": 5}', "13.json": "\ud800",
        "14.stack": "fork 3\nThread 0x1:\n", "15.stack": "fork 3\nFatal Python error: Aborted\n",
    }  # fmt: skip
    for name, text in texts.items():
        (path / name).write_text(text, errors="surrogatepass")
    (path / "16.json").mkdir()
    found = {(each.pid, each.phase, each.starter) for each in directory.read()}
    assert found == {(1, "run", None), (14, "stack", 3), (15, "crash", 3)}
    directory.clear()
    assert directory.read() == ()
    assert (path / f"{os.getpid()}.stack").exists()  # written by a running child
    directory.remove()
    assert not path.exists()
    assert directory.read() == ()


# -- tasks -----------------------------------------------------------------------------------------------------------


def test_task_of_a_missing_package_is_told_by_its_module(project: Path) -> None:
    """The exception names only the package; the submitted task names the module."""
    names = {"tests": "__init__.py", "tests.test_locks": "test_locks.py", "tests.test_a": "test_a.py"}
    modules = {name: module_at(name, project / "tests" / file) for name, file in names.items()}
    parent = Parent(modules=modules, sys_path=(), rootdir=str(project), import_mode="importlib")
    task = Task("spawn", "Pool", "map", "tests.test_locks.hold", None)
    (found,) = findings([report("unpickling", missing("tests"), task=True)], [launch()], parent, tasks=[task])
    assert (found.code, found.file) == ("SM201", str(project / "tests" / "test_locks.py"))
    assert found.message.startswith("a spawn worker cannot import 'tests.test_locks': --import-mode=importlib gave ")


def test_relative_entry_of_sys_path_is_named(project: Path) -> None:
    """A relative entry found the module from a different working directory."""
    root = project / "lib"
    parent = Parent(modules={"rel": module_at("rel", root / "rel.py")}, sys_path=("lib",), rootdir="/elsewhere")
    (found,) = findings([report("unpickling", missing("rel"))], [launch(target="rel.go")], parent)
    assert found.message == (
        f"the spawn child cannot import 'rel': sys.path has the relative entry 'lib', which was {root} when the parent "
        "imported it, and the working directory is another one now"
    )
    assert found.fix == "put the absolute path on sys.path: os.path.abspath('lib')"


def test_module_outside_of_the_project_gets_no_ini_setting(project: Path) -> None:
    """A module that a test generated and loaded by path is outside the project."""
    parent = Parent(modules={"x": module_at("x", project / "x.py")}, sys_path=(), rootdir="/elsewhere")
    (found,) = findings([report("unpickling", missing("x"))], [launch(target="x.go")], parent)
    assert found.fix == (
        "put that directory on sys.path before the processes start (monkeypatch.syspath_prepend), or pass the path and "
        "load the file in the child"
    )


# -- SM203 of primitives, starts in children -------------------------------------------------------------------------


def test_primitive_that_is_gone_is_told() -> None:
    """The parent dropped the Queue before the child opened its semaphores."""
    frame = Frame(multiprocessing.synchronize.__file__, 115, "SemLock.__setstate__", "")
    raised = Raised("FileNotFoundError", "[Errno 2] No such file or directory", (frame,))
    (found,) = findings([report("unpickling", raised)], [launch()], Parent(modules={}))
    assert (found.code, found.file, found.line) == ("SM203", "/p/test_work.py", 9)
    assert found.message == (
        "the spawn child found nothing behind a lock, queue, event or other primitive that it was sent: the parent had "
        "dropped its last reference to it by then, and that removes it"
    )
    assert found.fix == "keep a reference to it in the parent, in a variable, until the child has ended"


@pytest.mark.parametrize(
    ("type_", "said", "code", "fix"),
    [
        (
            "AttributeError",
            "Can't pickle local object 'nested.<locals>.work'",
            "SM101",
            "move `work` to module level, and pass what it uses from around it as arguments",
        ),
        (
            "_pickle.PicklingError",
            "Can't pickle local object <class 'm.nested.<locals>.Job'>",
            "SM102",
            "move `Job` to module level, and pass what it uses from around it as arguments",
        ),
        (
            "AttributeError",
            "Can't get local object 'nested.<locals>.<lambda>'",
            "SM101",
            "replace the lambda by a function defined with `def` at module level",
        ),
        (
            "TypeError",
            "cannot pickle '_thread.lock' object",
            "SM103",
            "make in the new process what cannot be pickled; pytest_startmethod.explain(target, args) finds it",
        ),
        ("ValueError", "of the user", None, ""),
    ],
)
def test_start_that_fails_in_a_child_is_told(type_: str, said: str, code: str | None, fix: str) -> None:
    """A child's own failing start has the same codes as a parent's."""
    frames = (
        Frame("/p/work.py", 3, "nested", "process.start()"),
        Frame(multiprocessing.popen_fork.__file__, 19, "Popen._launch", ""),
    )
    found = findings([report("run", Raised(type_, said, frames))], [launch()], Parent(modules={}))
    assert [(each.code, each.file, each.line, each.fix) for each in found] == (
        [(code, "/p/work.py", 3, fix)] if code else []
    )
    for each in found:
        text = f"the spawn child SpawnProcess-1 (pid 7) could not start a process of its own: {type_}: {said}"
        assert each.message == text
        assert each.path == ""  # pickle does not say which argument it is


# -- a working directory that is gone ----------------------------------------------------------------------------------

SPAWN = sysconfig.get_path("stdlib") + "/multiprocessing/spawn.py"


@pytest.mark.parametrize(
    ("file", "function", "codes"),
    [
        (SPAWN, "get_preparation_data", ["SM306"]),
        (SPAWN, "spawn_main", []),
        ("/p/user.py", "get_preparation_data", []),
    ],
)
def test_no_process_starts_in_a_directory_that_is_gone(file: str, function: str, codes: list[str]) -> None:
    frames = (Frame("/p/test_a.py", 3, "test_a", "process.start()"), Frame(file, 190, function, "dir=os.getcwd(),"))
    raised = Raised("FileNotFoundError", "[Errno 2] No such file or directory", frames)
    given = Evidence("", "spawn", "failed", raised=(raised,), raised_at=Place("/p/test_a.py", 3))
    found = children.without_directory(given)
    assert [each.code for each in found] == codes
    for each in found:
        assert (each.path, each.file, each.line) == ("os.getcwd()", "/p/test_a.py", 3)
        assert each.message.startswith("the working directory has been removed: start() asks for it")
