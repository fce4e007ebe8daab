"""Extensions by other plugins: their own findings and backends, and what happens when they are broken."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from pytest_startmethod import Backend, FailedLeg, Finding
from pytest_startmethod.session import diagnose_hook

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "hooks.md"


def hook(body: str, parameters: str = "item, failure") -> str:
    lines = [
        "import pytest",
        "from pytest_startmethod import Finding",
        "",
        "def finding(code='XY001', level='cause', **more):",
        "    values = dict(name='own', path='thing', file=None, line=None, message='It is so.', fix='do it')",
        "    return Finding(code=code, level=level, **{**values, **more})",
        "",
        f"def pytest_startmethod_diagnose({parameters}):",
        *(f"    {line}" for line in body.splitlines()),
    ]
    return "\n".join(lines) + "\n"


FAILING = """
import multiprocessing

import pytest


def work():
    raise OSError("no database")


@pytest.mark.startmethods("spawn")
def test_a():
    process = multiprocessing.Process(target=work, args=())
    process.start()
    process.join()
    assert process.exitcode == 0
"""


def test_finding_with_a_code_of_its_own_is_shown_and_grouped(session):
    """It is shown below the failure and in the summary like ours, also under xdist."""
    out = session.file(conftest=hook("return [finding(evidence=('a fact',))]"), test_a=FAILING).run()
    assert out.names == {"test_a[spawn]": "failed"}
    at = out.lines.index("---------------------------------- XY001 own -----------------------------------")
    assert out.lines[at + 1 : at + 5] == ["  thing", "  It is so.", "  a fact", "  fix: do it"]
    at = out.lines.index("XY001 own, 1 test fails")
    assert out.lines[at + 1 : at + 5] == ["  thing", "  It is so.", "  fix: do it", "  first: test_a.py::test_a[spawn]"]


def test_hook_is_told_all_that_is_known(session):
    """The view consists of plain values: what the leg started, what its children raised, what was found."""
    body = """
import json, dataclasses
assert dataclasses.fields(failure)
failure.__class__.__hash__
with open("told.json", "w") as file:
    json.dump(dataclasses.asdict(failure), file)
"""
    import json

    session.file(conftest=hook(body.strip(), "failure"), test_a=FAILING).run()
    told = json.loads((session.path / "told.json").read_text())
    (launch,) = told.pop("launches")
    (child,) = told.pop("children")
    assert {**told, "findings": len(told["findings"])} == {
        "nodeid": "test_a.py::test_a[spawn]",
        "method": "spawn",
        "when": "call",
        "outcome": "failed",
        "exception": "AssertionError",
        "message": "assert 1 == 0\n +  where 1 = "
        f"<Process name='Process-1' pid={launch['pid']} parent={child['starter']} stopped exitcode=1>.exitcode",
        "file": str(session.path / "test_a.py"),
        "line": 15,
        "tasks": [],
        "findings": len(told["findings"]),
    }
    assert (launch["method"], launch["target"], launch["line"], launch["exit_code"]) == ("spawn", "test_a.work", 13, 1)
    assert (child["phase"], child["raised"][0]["type"], child["raised"][0]["message"]) == (
        "run",
        "OSError",
        "no database",
    )


def test_hook_is_not_asked_under_fork_nor_of_a_leg_that_passed(session):
    """The hook is about what fork hides, so failures under fork do not call it."""
    out = session.file(
        conftest=hook("print('ASKED', failure.nodeid, failure.when)"),
        test_a="""
        import pytest

        @pytest.mark.startmethods("fork", "spawn", "forkserver")
        def test_a(start_method):
            assert start_method == "forkserver"

        @pytest.fixture
        def broken(start_method):
            raise LookupError

        @pytest.mark.startmethods("spawn")
        def test_b(broken):
            pass
        """,
    ).run("-s")
    assert re.findall(r"ASKED .*", out.out) == [
        "ASKED test_a.py::test_a[spawn] call",
        "ASKED test_a.py::test_b[spawn] setup",
    ]


BROKEN = {
    "raise ValueError('a\\nb')": "ValueError: a b",
    "pytest.skip('no')": "Skipped: no",
    "return 3": "TypeError: it returns a list of Finding, not an object of type int",
    "return ['x']": "TypeError: it returned a list with an object of type str, which is no Finding",
    "return [finding(level='loud')]": "ValueError: the level of XY001 is 'loud' (valid: cause, note)",
    "return [finding(message=object())]": "TypeError: message of XY001 is not plain text or a number",
}


@pytest.mark.parametrize("body", BROKEN)
def test_broken_hook_is_one_line_and_no_error_of_the_test(session, body):
    """It is reported with its line, the test's own failure stays, and other implementations are still called."""
    out = (
        session.file(
            conftest=hook(body),
            other=hook("return finding('OK001')", "failure"),
            test_a=FAILING,
        )
        .plugin("other")
        .run(where="in-process")
    )
    assert out.names == {"test_a[spawn]": "failed"}
    assert "OK001 own, 1 test fails" in out.lines
    text = " ".join(" ".join(out.lines).split())
    line = 9 if body.startswith(("raise", "pytest.skip")) else 8
    assert f"pytest-startmethod: pytest_startmethod_diagnose (conftest.py:{line}): {BROKEN[body]}" in text
    assert text.count("pytest_startmethod_diagnose (") == 1


def own(code: str, level: str = "cause") -> Finding:
    return Finding(code, "x", level, "", None, None, "m")


def test_ranks():
    """Pickling comes first, then theirs, then our other causes, then notes, in the given order."""
    ours = [own("SM103"), own("SM404"), own("SM501", "note"), own("SM101")]
    theirs = [own("AA1", "note"), own("AA2"), own("SM203")]
    assert [each.code for each in diagnose_hook.ranked(ours, theirs)] == [
        "SM103",
        "SM101",
        "AA2",
        "SM203",
        "SM404",
        "SM501",
        "AA1",
    ]


def test_view_is_frozen():
    """An implementation cannot change what the next one receives."""
    view = FailedLeg("n", "spawn", "call", "failed", "X", "m")
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.method = "fork"


# -- the worked example ------------------------------------------------------------------------------------------------


def blocks(language):
    text = DOCS.read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


@pytest.mark.slow
def test_worked_example_says_what_is_printed(session):
    """In the documentation's Django project the hook's finding comes first, and its fix works."""
    pytest.importorskip("django")
    session.file("shop/__init__.py", "")
    for lines in blocks("python"):
        name = lines[0].removeprefix("# ")
        if name.endswith(".py"):
            session.file(name, "\n".join(lines) + "\n")
    ((command, *shown),) = blocks("console")
    assert command == "$ pytest test_shop.py"
    out = session.run("test_shop.py")
    at, chunk = 0, []
    for line in [*shown, "..."]:
        if line == "...":
            starts = [n for n in range(at, len(out.lines)) if out.lines[n : n + len(chunk)] == chunk]
            assert starts, chunk
            at, chunk = starts[0] + len(chunk), []
        else:
            chunk.append(line)
    assert set(session.run("test_jobs.py").names.values()) == {"passed"}


def test_documentation_names_every_field():
    """The table of the view's fields is complete."""
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`[^|]*) \|", DOCS.read_text(), re.MULTILINE)))
    assert named == [field.name for field in dataclasses.fields(FailedLeg)]


# -- other backends ----------------------------------------------------------------------------------------------------


def test_backend_of_a_conftest(session):
    """A package under another name has legs with that name in their ids."""
    pytest.importorskip("multiprocess")
    out = session.file(
        conftest="from pytest_startmethod import Backend\n"
        "def pytest_startmethod_backends(config):\n"
        "    return [Backend('dilled', package='multiprocess')]\n",
        test_a="""
        import multiprocess
        import pytest


        def work():
            pass


        @pytest.mark.startmethods("fork", "dilled:spawn")
        def test_a(mp_context):
            process = mp_context.Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
            assert mp_context in (multiprocess.get_context("spawn"), __import__("multiprocessing").get_context("fork"))
        """,
    ).run("--start-methods=dilled:spawn,fork")
    assert out.names == {"test_a[fork]": "passed", "test_a[dilled:spawn]": "passed"}


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("3", "a list of pytest_startmethod.Backend, not an object of type int"),
        ("[Backend('a:b')]", "'a:b' cannot be the name of a backend"),
        ("[Backend('multiprocessing')]", "'multiprocessing' cannot be the name of a backend"),
    ],
)
def test_hook_that_returns_no_backends(session, returned, text):
    """It is one line and exit status 4, and only if a backend is requested."""
    session.file(
        conftest="from pytest_startmethod import Backend\n"
        f"def pytest_startmethod_backends(config):\n    return {returned}\n",
        test_a="def test_a(): pass\n",
    )
    out = session.run("--start-methods=multiprocess:spawn")
    assert out.status == 4
    (line,) = [line for line in out.lines if line.startswith("ERROR:")]
    assert text in line
    assert session.run("--start-methods=spawn").status == 0


def test_backend_has_its_package_from_its_name():
    """The package defaults to the backend's name."""
    assert Backend("billiard") == Backend("billiard", package="billiard")
    assert Backend("billiard").method("spawn") == "billiard:spawn"


CHECKS = """
    import sys
    from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
    from importlib.machinery import ExtensionFileLoader, FileFinder, SourceFileLoader

    class Checks(SourceFileLoader):
        def exec_module(self, module):
            assert not module.__name__.startswith("pytest_startmethod."), module.__name__
            super().exec_module(module)

    sys.path_hooks.insert(0, FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (Checks, SOURCE_SUFFIXES)))
    sys.path_importer_cache.clear()
"""


@pytest.mark.own_interpreter
def test_import_hooks_leave_our_modules_alone(session):
    """A suite whose conftest checks every package's annotations, as with beartype, checks none of ours."""
    source = """
        import multiprocessing
        import pytest

        @pytest.mark.startmethods("fork", "spawn")
        def test_it():
            process = multiprocessing.Process(target=lambda: None)
            process.start()
            process.join()
    """
    outcome = session.file(conftest=CHECKS, test_a=source).run()
    assert outcome.names == {"test_it[fork]": "passed", "test_it[spawn]": "failed"}, outcome.out
    assert "SM101 local-function, 1 test needs fork (confirmed)" in outcome.lines
    assert "pytest-startmethod: " not in outcome.out
