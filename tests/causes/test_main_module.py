"""A fresh child has the script under another name: what its children report in, findings out."""

from __future__ import annotations

import textwrap

import pytest

from pytest_startmethod.causes import main_module
from pytest_startmethod.model.child_report import ChildReport, Frame, Raised

SCRIPT = """
import argparse
from multiprocessing import Pool

LIMIT = 3


class Widget:
    pass


def extract(video):
    return f"{args.out}/{video}"


def configure():
    global verbose
    verbose = True


if __name__ == "__main__":
    args = argparse.Namespace(out="x")
    LIMIT = 4
    with Pool(2) as pool:
        pool.map(extract, ["a"])

if not args.out:
    print("nothing")
"""
READ, CONFIGURED, GUARD, SET, BEHIND = 13, 18, 21, 22, 27


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "frames.py"
    path.write_text(SCRIPT)
    return str(path)


def report(script, kind, message, *frames, phase="run", method="spawn"):
    error = Raised(kind, message, tuple(Frame(script, line, name, "") for line, name in frames))
    return ChildReport(pid=1, phase=phase, method=method, raised=(error,))


def found(reports, script, raised=(), module=None):
    findings = main_module.findings(reports, raised, script, module)
    return [(each.code, each.path, each.line) for each in findings]


NO_ARGS = ("NameError", "name 'args' is not defined")


def test_name_that_only_the_guard_sets(script):
    """A process that misses a global is SM202, with the line that reads it and the line under the guard."""
    (finding,) = main_module.findings([report(script, *NO_ARGS, (READ, "extract"))], (), script)
    assert (finding.code, finding.path, finding.line) == ("SM202", "__main__.args", READ)
    assert finding.message == (
        f"extract reads 'args' at line {READ}, and only line {SET}, under the main guard, sets it: a fresh child "
        "imports the script and does not run that line"
    )
    assert finding.evidence == (
        f'line {SET}: args = argparse.Namespace(out="x")',
        "the child raised NameError: name 'args' is not defined",
    )


def test_name_that_a_function_of_the_parent_sets(script):
    """So is a global that only a function sets which the parent has called."""
    (finding,) = main_module.findings(
        [report(script, "NameError", "name 'verbose' is not defined", (READ, "f"))], (), script
    )
    assert f"only line {CONFIGURED}, in a function, sets it" in finding.message


def test_name_that_a_task_misses(script):
    """The exception of a task arrives in the parent; its frames in the worker are in the text that comes with it."""
    text = f'\n"""\nTraceback (most recent call last):\n  File "{script}", line {READ}, in extract\n    ...\n"""'
    raised = (
        Raised(*NO_ARGS, (Frame(script, 25, "<module>", ""),)),
        Raised("multiprocessing.pool.RemoteTraceback", text),
    )
    assert found((), script, raised) == [("SM202", "__main__.args", READ)]


def test_line_outside_the_guard(script):
    """A child that fails in a line below the guard is SM401, and the fix moves that line into the guard."""
    (finding,) = main_module.findings([report(script, *NO_ARGS, (BEHIND, "<module>"), phase="start-up")], (), script)
    assert (finding.code, finding.line) == ("SM401", BEHIND)
    assert finding.message == (
        f"a child runs the script again when it imports it, and line {BEHIND}, outside the main guard of line {GUARD}, "
        "fails there: NameError: name 'args' is not defined"
    )
    assert finding.evidence[-1] == f"line {SET}, under the guard, sets 'args': args = argparse.Namespace(out=\"x\")"
    assert finding.fix == f"indent lines 27 to 28 by 4 spaces, into the main guard of line {GUARD}"


def test_any_failure_behind_the_guard(script):
    """What a line below the guard dies of makes no difference; the line is not meant for children."""
    reports = [report(script, "FileNotFoundError", "x.txt", (BEHIND, "<module>"), phase="start-up")]
    assert found(reports, script) == [("SM401", "__main__", BEHIND)]


def test_other_name_of_the_main_module(script):
    """A key made of the main module's name in the parent is not found under the child's."""
    reports = [report(script, "KeyError", "'__main__.Widget'", (READ, "extract"))]
    (finding,) = main_module.findings(reports, (), script)
    assert (finding.code, finding.path, finding.line) == ("SM202", "__main__.Widget", 8)
    assert finding.message.startswith(
        "'Widget' is '__main__.Widget' in the parent and '__mp_main__.Widget' in a fresh child"
    )


GONE = ("AttributeError", "Can't get attribute 'extract' on <module '__main__' (built-in)>")


def test_main_module_of_a_package(script):
    """Run by `python -m`, a package's main module is never loaded in a child."""
    reports = [report(script, *GONE, phase="unpickling")]
    assert found(reports, script, module="shop.__main__") == [("SM202", "__main__.extract", 12)]


@pytest.mark.parametrize(
    ("kind", "message", "line", "phase", "method"),
    [
        ("NameError", "name 'arg' is not defined", READ, "run", "spawn"),  # a slip of the pen
        ("NameError", "name 'LIMIT' is not defined", READ, "run", "spawn"),  # bound outside the guard, too
        ("NameError", "name 'args' is not defined", READ, "run", "fork"),  # no fresh child
        ("KeyError", "'__main__.Gadget'", READ, "run", "spawn"),  # no class of the script
        ("KeyError", "'args'", READ, "run", "spawn"),
        ("_pickle.PicklingError", "Can't pickle <class '__main__.Widget'>: it's not the same", READ, "run", "spawn"),
        ("ValueError", "no", 5, "start-up", "spawn"),  # above the guard: the child needs that line
        (*GONE, READ, "unpickling", "spawn"),  # run as a script: another cause
    ],
)
def test_look_alikes(script, kind, message, line, phase, method):
    """What has another reason is left to the other causes."""
    name = "<module>" if phase == "start-up" else "extract"
    assert found([report(script, kind, message, (line, name), phase=phase, method=method)], script) == []


def test_script_without_a_source(tmp_path):
    """A script that cannot be parsed any more has no finding, and no error."""
    path = tmp_path / "gone.py"
    path.write_text(textwrap.dedent("def ("))
    reports = [report(str(path), *NO_ARGS, (1, "f")), report(str(path), *NO_ARGS, (1, "<module>"), phase="start-up")]
    assert found(reports, str(path)) == []
