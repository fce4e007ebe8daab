"""Other places where legs are reported: terminal header and colours, JUnit, pytest-html, GitHub Actions."""

from __future__ import annotations

import io
import multiprocessing
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from types import SimpleNamespace

import pytest

from builders import finding, leg, model
from pytest_startmethod.report import github, junit, pytest_html
from pytest_startmethod.session import terminal

SUITE = """
    import multiprocessing
    import pytest

    pytestmark = pytest.mark.startmethods("fork", "spawn")

    def run(target):
        process = multiprocessing.Process(target=target)
        process.start()
        process.join()

    def test_lambda(): run(lambda: None)
    def test_nothing(): pass
"""

# -- the header --------------------------------------------------------------------------------------------------------


def header():
    methods = [m for m in ("fork", "spawn", "forkserver") if m in multiprocessing.get_all_start_methods()]
    default = multiprocessing.get_all_start_methods()[0]
    return [
        f"start methods: {', '.join(methods)} (the default here: {default})",
        "  elsewhere: spawn (macOS, Windows), forkserver (Linux, Python 3.14+)",
    ]


PLAIN = "def test_a(): pass"


@pytest.mark.parametrize(
    ("source", "args", "there"),
    [
        (SUITE, [], True),
        (SUITE, ["--start-methods=all"], True),
        (SUITE, ["-v"], True),
        (SUITE, ["-q"], False),
        (SUITE, ["--no-header"], False),
        (SUITE, ["--no-header", "--start-methods=all"], False),
        (PLAIN, [], False),
        (PLAIN, ["--start-methods=all"], True),
    ],
)
def test_header(session, source, args, there):
    """It is printed once, if there is a leg or an option was given, and no wider than the screen."""
    outcome = session.file(test_a=source).run(*args)
    assert [line for line in outcome.lines if line in header()] == (header() if there else [])
    assert max(map(len, header())) <= 80


@pytest.mark.parametrize(
    ("args", "there"),
    [([], True), (["-v"], True), (["--tb=no"], True), (["-q"], False), (["--no-summary"], False)],
)
def test_summary_is_where_the_user_wants_it(session, args, there):
    """It follows pytest's own options."""
    outcome = session.file(test_a=SUITE).run(*args)
    assert ("= start methods =" in outcome.out) is there


def test_other_methods_of_a_failure_are_in_their_order():
    """The order does not depend on which xdist worker was first."""
    tail = terminal._Tail(leg("fork", "failed"), [], SimpleNamespace(width=80, verbosity=0))
    tail.twins += [leg("forkserver", "failed"), leg("spawn", "failed")]
    written = io.StringIO()
    tail(SimpleNamespace(write=lambda text, **markup: written.write(text)))
    assert written.getvalue() == "  same failure under spawn and forkserver\n"


# -- colours -----------------------------------------------------------------------------------------------------------


def test_colours_come_from_pytest(session):
    """They are used only if pytest uses them, and the text is the same."""
    session.file(test_a=SUITE)
    plain = session.run("--color=no", "--tb=no", "--no-start-methods-verify")
    colourful = session.run("--color=yes", "--tb=no", "--no-start-methods-verify")
    assert "\x1b" not in plain.out
    assert "\x1b[31m1 needs fork\x1b[0m, \x1b[33m1 vacuous\x1b[0m" in colourful.out
    assert "\x1b[31m\x1b[1mSM101 local-function\x1b[0m, 1 test needs fork" in colourful.out
    without = re.sub(r"\x1b\[\d+m", "", colourful.out).splitlines()
    start, end = (
        plain.lines.index(f"{' start methods ':=^80}"),
        plain.lines.index(f"{' short test summary info ':=^80}"),
    )
    assert plain.lines[start:end] == without[start:end]
    assert "" not in plain.lines[start : start + 4]


# -- JUnit -------------------------------------------------------------------------------------------------------------


def test_junit_has_properties_of_each_leg(session):
    """They are its method and its findings."""
    session.file(test_a=SUITE).run("--junitxml=r.xml")
    cases = ElementTree.parse(session.path / "r.xml").getroot().iter("testcase")
    found = {case.get("name"): [(p.get("name"), p.get("value")) for p in case.iter("property")] for case in cases}
    vacuous = ("start_method_vacuous", "SM501 vacuous")
    assert found == {
        "test_lambda[fork]": [("start_method", "fork"), ("start_method_predicted", "SM101 local-function: target")],
        "test_lambda[spawn]": [
            ("start_method", "spawn"),
            ("start_method_finding", "SM101 local-function: target at test_a.py:11"),
        ],
        "test_nothing[fork]": [("start_method", "fork"), vacuous],
        "test_nothing[spawn]": [("start_method", "spawn"), vacuous],
    }


def test_flaky_leg_says_so_in_junit():
    """The property is added to the others."""
    assert junit.properties(leg(flaky=True), "/project") == [("start_method_flaky", "true")]


# -- pytest-html -------------------------------------------------------------------------------------------------------


def test_pytest_html_has_a_column(session):
    """It shows method and codes of each leg, and the row has the findings."""
    pytest.importorskip("pytest_html", reason="pytest-html is not installed")
    session.file(test_a=SUITE, test_b=PLAIN).plugin(
        "pytest_metadata.plugin", "pytest_html.plugin", "pytest_html.fixtures"
    )
    outcome = session.run("--html=r.html", "--self-contained-html")
    assert "INTERNALERROR" not in outcome.out
    text = (session.path / "r.html").read_text(encoding="utf-8")
    assert text.count(pytest_html.HEADER) == 1
    for cell in ("fork SM101", "spawn SM101", "fork SM501", "spawn SM501"):
        assert f"&gt;{cell}&lt;/td&gt;" in text
    assert "move it to module level" in text or "replace the lambda by a function" in text


def test_pytest_html_is_left_alone_without_legs(session):
    """There is no empty column."""
    pytest.importorskip("pytest_html", reason="pytest-html is not installed")
    session.file(test_b=PLAIN).plugin("pytest_metadata.plugin", "pytest_html.plugin", "pytest_html.fixtures")
    session.run("--html=r.html", "--self-contained-html")
    assert "Start method" not in (session.path / "r.html").read_text(encoding="utf-8")


def test_extra_of_a_leg_is_escaped():
    """Text of the user's stays text."""
    shown = leg(findings=(finding(message="<b>"),), predictions=(finding(line=9),))
    extra = pytest_html.extra(shown, "/project")
    assert "&lt;b&gt;" in extra["content"]
    assert "predicted for spawn and forkserver: SM101 local-function: target" in extra["content"]
    assert pytest_html.extra(leg(), "/project") is None


def test_extra_does_not_repeat_what_stands_below_the_failure():
    assert pytest_html.extra(leg("spawn", "failed", findings=(finding(),)), "/project") is None


# -- GitHub Actions ----------------------------------------------------------------------------------------------------


def annotations(*legs, workspace=None):
    return list(github.lines(model(*legs), workspace))


def test_each_cause_is_one_annotation():
    """It is at the cause's location, or else at the first test; it is an error, warning or notice."""
    broken = finding(message="50% of a:b, c", evidence=("one", "two"))
    nowhere = finding("SM501", "vacuous", level="note", path="")
    legs = [
        leg("spawn", "failed", findings=(broken,)),
        leg("forkserver", "failed", findings=(broken,)),
        leg("fork", predictions=(finding(line=9),), test="b"),
        leg("spawn", vacuous=replace(nowhere, file=None), test="b"),
    ]
    assert annotations(*legs) == [
        "::error file=tests/test_a.py,line=7,title=SM101 local-function (start methods)::50%25 of a:b, c%0Aone%0Atwo"
        "%0Afix: move it%0Atests/test_a.py::test_x[spawn] and 1 more (spawn, forkserver)",
        "::warning file=tests/test_a.py,line=9,title=SM101 local-function (start methods)::It cannot be imported."
        "%0Afix: move it%0Ab[fork] (spawn, forkserver)",
        "::notice file=tests/test_a.py,line=3,title=SM501 vacuous (start methods)::It cannot be imported."
        "%0Afix: move it%0Ab[spawn] (spawn)",
    ]


def test_annotation_without_a_cause():
    """It is an error at the first test."""
    assert annotations(leg("fork"), leg("spawn", "failed", message="assert 3 == 4\r\n::x")) == [
        "::error file=tests/test_a.py,line=3,title=no cause found (start methods)::assert 3 == 4%0D%0A::x"
        "%0Atests/test_a.py::test_x[spawn] (spawn)"
    ]


def test_annotations_are_as_many_as_github_shows():
    """There are ten of each level, and a line says how many GitHub would have dropped."""
    legs = [leg("spawn", "failed", test=f"t{n}", findings=(finding(line=n),)) for n in range(1, 14)]
    legs += [leg("fork", test=f"p{n}", predictions=(finding(line=n + 20),)) for n in range(11)]
    found = annotations(*legs)
    assert [sum(line.startswith(f"::{kind}") for line in found) for kind in ("error", "warning")] == [10, 10]
    assert found[-1] == (
        "start methods: 3 errors, 1 warning more: GitHub shows 10 of a kind (see --start-methods-report)"
    )


def test_files_are_relative_to_the_workspace():
    """A project may be in a subdirectory of its repository."""
    (line,) = annotations(leg("spawn", "failed", findings=(finding(),)), workspace="/")
    assert line.startswith("::error file=project/tests/test_a.py,line=7,")
    (line,) = annotations(leg("spawn", "failed", findings=(finding(),)), workspace="/elsewhere")
    assert line.startswith("::error file=tests/test_a.py,line=7,")


@pytest.mark.parametrize("args", [[], ["-q"]])
def test_annotations_are_printed_once_and_only_there(session, monkeypatch, args):
    """The controller prints them, each at the beginning of a line."""
    session.file(test_a=SUITE)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert "::error" not in session.run().out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(session.path))
    outcome = session.run(*args)
    found = [line.partition(" (start methods)")[0] for line in outcome.lines if line.startswith("::")]
    assert found == [
        "::error file=test_a.py,line=11,title=SM101 local-function",
        "::notice file=test_a.py,line=12,title=SM501 vacuous",
    ]
