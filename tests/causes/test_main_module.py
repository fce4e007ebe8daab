"""A fresh child has the script under another name: reports of children in, findings out."""

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
    """A missing global is SM202, with the line that reads it and the guarded line that sets it."""
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
    """A global that only a function called by the parent sets is SM202, too."""
    (finding,) = main_module.findings(
        [report(script, "NameError", "name 'verbose' is not defined", (READ, "f"))], (), script
    )
    assert f"only line {CONFIGURED}, in a function, sets it" in finding.message


def test_name_that_a_task_misses(script):
    """A task's exception arrives in the parent with the worker's frames as text."""
    text = f'\n"""\nTraceback (most recent call last):\n  File "{script}", line {READ}, in extract\n    ...\n"""'
    raised = (
        Raised(*NO_ARGS, (Frame(script, 25, "<module>", ""),)),
        Raised("multiprocessing.pool.RemoteTraceback", text),
    )
    assert found((), script, raised) == [("SM202", "__main__.args", READ)]


def test_line_outside_the_guard(script):
    """A child that fails in a line after the guard is SM401, and the fix moves that line into the guard."""
    (finding,) = main_module.findings([report(script, *NO_ARGS, (BEHIND, "<module>"), phase="start-up")], (), script)
    assert (finding.code, finding.line) == ("SM401", BEHIND)
    assert finding.message == (
        f"a child runs the script again when it imports it, and line {BEHIND}, outside the main guard of line {GUARD}, "
        "fails there: NameError: name 'args' is not defined"
    )
    assert finding.evidence[-1] == f"line {SET}, under the guard, sets 'args': args = argparse.Namespace(out=\"x\")"
    assert finding.fix == f"indent lines 27 to 28 by 4 spaces, into the main guard of line {GUARD}"


def test_any_failure_behind_the_guard(script):
    """Any exception in a line after the guard is SM401: children should not run it."""
    reports = [report(script, "FileNotFoundError", "x.txt", (BEHIND, "<module>"), phase="start-up")]
    assert found(reports, script) == [("SM401", "__main__", BEHIND)]


def test_other_name_of_the_main_module(script):
    """A key made from the main module's name in the parent is missing in the child."""
    reports = [report(script, "KeyError", "'__main__.Widget'", (READ, "extract"))]
    (finding,) = main_module.findings(reports, (), script)
    assert (finding.code, finding.path, finding.line) == ("SM202", "__main__.Widget", 8)
    assert finding.message.startswith(
        "'Widget' is '__main__.Widget' in the parent and '__mp_main__.Widget' in a fresh child"
    )


GONE = ("AttributeError", "Can't get attribute 'extract' on <module '__main__' (built-in)>")


@pytest.mark.parametrize("message", [GONE[1], "module '__main__' has no attribute 'extract'"], ids=["3.13", "3.14"])
def test_main_module_of_a_package(script, message):
    """With `python -m`, a child never loads a package's main module."""
    reports = [report(script, "AttributeError", message, phase="unpickling")]
    assert found(reports, script, module="shop.__main__") == [("SM202", "__main__.extract", 12)]


@pytest.mark.parametrize(
    ("kind", "message", "line", "phase", "method"),
    [
        ("NameError", "name 'arg' is not defined", READ, "run", "spawn"),  # a typo
        ("NameError", "name 'LIMIT' is not defined", READ, "run", "spawn"),  # also bound outside the guard
        ("NameError", "name 'args' is not defined", READ, "run", "fork"),  # not a fresh child
        ("KeyError", "'__main__.Gadget'", READ, "run", "spawn"),  # not a class of the script
        ("KeyError", "'args'", READ, "run", "spawn"),
        ("_pickle.PicklingError", "Can't pickle <class '__main__.Widget'>: it's not the same", READ, "run", "spawn"),
        ("ValueError", "no", 5, "start-up", "spawn"),  # before the guard, where the child needs it
        (*GONE, READ, "unpickling", "spawn"),  # run as a script, which has a different cause
    ],
)
def test_look_alikes(script, kind, message, line, phase, method):
    """Failures with other reasons are left to the other rules."""
    name = "<module>" if phase == "start-up" else "extract"
    assert found([report(script, kind, message, (line, name), phase=phase, method=method)], script) == []


def test_script_without_a_source(tmp_path):
    """A script that no longer parses has no finding and no error."""
    path = tmp_path / "gone.py"
    path.write_text(textwrap.dedent("def ("))
    reports = [report(str(path), *NO_ARGS, (1, "f")), report(str(path), *NO_ARGS, (1, "<module>"), phase="start-up")]
    assert found(reports, str(path)) == []
