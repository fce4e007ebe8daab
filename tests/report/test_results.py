"""What the legs of a session say together, as data and as the lines of the summary."""

from __future__ import annotations

import json

import pytest

from builders import ROOT, finding, leg, legs
from pytest_startmethod.model.leg_result import LegResult
from pytest_startmethod.report import results as report

VERDICTS = {
    "passes": {"fork": "passed", "spawn": "passed", "forkserver": "xfailed"},
    "fails": {"fork": "failed", "spawn": "error"},
    "needs-fork": {"fork": "passed", "spawn": "failed", "forkserver": "failed"},
    "fails under forkserver only": {"fork": "passed", "spawn": "passed", "forkserver": "failed"},
    "fails under fork only": {"fork": "failed", "spawn": "passed", "forkserver": "passed"},
    "fails under fork and spawn only": {"fork": "failed", "spawn": "failed", "forkserver": "passed"},
    "skipped": {"fork": "skipped", "spawn": "skipped"},
}


@pytest.mark.parametrize(("said", "outcomes"), VERDICTS.items(), ids=VERDICTS)
def test_verdicts(said, outcomes):
    """Each combination of outcomes has its word."""
    assert report.verdict(legs(**outcomes)) == said


def test_spawn_alone_beside_a_passing_fork_needs_fork():
    """Every other selected method failed, though it is only one."""
    assert report.verdict(legs(fork="passed", spawn="failed")) == "needs-fork"


def test_skipped_legs_have_no_say():
    """What did not run neither fails nor passes."""
    assert report.verdict(legs(fork="skipped", spawn="failed")) == "fails"


def test_vacuous_unless_one_failed():
    """A vacuous leg makes the test vacuous; a failure counts more."""
    empty = leg("spawn", vacuous=finding("SM501", "vacuous"))
    assert report.verdict({"fork": leg("fork"), "spawn": empty}) == "vacuous"
    assert report.verdict({"fork": leg("fork"), "spawn": empty, "forkserver": leg("forkserver", "failed")}) == (
        "fails under forkserver only"
    )


def test_result_crosses_processes_as_builtins():
    """JSON and back gives an equal result."""
    result = leg(
        outcome="failed",
        duration=1.5,
        message="E",
        launches=({"method": "spawn"},),
        tasks=({"how": "map"},),
        vacuous=finding("SM501", "vacuous"),
        findings=(finding(evidence=("one", "two")),),
        predictions=(finding(line=9),),
        troubles=("a trouble",),
    )
    assert LegResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result


def test_order_is_that_of_the_source():
    """File, line, test, method: whoever ran them, and when."""
    first, second = leg("fork"), leg("spawn")
    later = leg("fork", test="tests/test_a.py::test_y", line=9)
    assert report.in_order([later, second, first]) == [first, second, later]


def test_equal_findings_are_one_group():
    """One start that breaks many tests is one entry; the commonest cause leads, notes come last."""
    note = finding("SM504", "declares-fork-only", level="note")
    results = [
        leg(test="a", outcome="failed", findings=(finding(line=1),)),
        leg(test="b", outcome="failed", findings=(finding(line=2), note)),
        leg(test="c", outcome="failed", findings=(finding(line=2), note)),
        leg(test="d", outcome="failed", findings=(note,)),
    ]
    groups = report.group(results)
    assert [(g.finding.line, g.finding.level, len(g.legs)) for g in groups] == [
        (2, "cause", 2),
        (1, "cause", 1),
        (7, "note", 3),
    ]


def test_prediction_that_came_true_is_no_prediction():
    """It joins the finding of the spawn leg; one that stands alone is marked."""
    came_true = [leg("fork", predictions=(finding(),)), leg(outcome="failed", findings=(finding(),))]
    (only,) = report.group(came_true)
    assert (only.predicted, [each.method for each in only.legs]) == (False, ["spawn"])
    (alone,) = report.group(came_true[:1])
    assert (alone.predicted, [each.method for each in alone.legs]) == (True, ["fork"])


def test_prediction_that_did_not_come_true_is_dropped():
    """A leg that passed refutes it, unless it used the processes of another leg."""
    fork = leg("fork", predictions=(finding(),))
    assert report.group([fork, leg()]) == []
    assert report.group([fork, leg(vacuous=finding("SM502", "pinned-method"))]) == []
    for kept in (
        leg(vacuous=finding("SM503", "fixture-started-earlier")),
        leg(outcome="failed"),
        leg(outcome="skipped"),
        leg(test="another"),
    ):
        assert [group.predicted for group in report.group([fork, kept])] == [True]


def test_summary_reads():
    """The table has the outcomes that occurred; paths are relative to the root; no line is wider than 80."""
    results = [
        leg("fork", predictions=(finding(),)),
        leg("spawn", "failed", findings=(finding(message=f"`work` of {ROOT}/tests/test_a.py cannot " + "x" * 20),)),
        leg("forkserver", "failed", findings=(finding(),)),
        leg("fork", test="tests/test_a.py::test_y", vacuous=finding("SM501", "vacuous", message="started no process")),
        leg("spawn", "skipped", test="tests/test_a.py::test_y"),
        leg("spawn", "xfailed", test="tests/test_a.py::test_z"),
    ]
    assert report.summary_lines(results, root=ROOT, verbose=False) == [
        "             passed   failed  skipped  xfailed  vacuous",
        "fork              2        -        -        -        1",
        "spawn             -        1        1        1        -",
        "forkserver        -        1        -        -        -",
        "3 tests: 1 passes, 1 needs-fork, 1 vacuous",
        "",
        "SM101 local-function: 2 legs of 1 test (spawn, forkserver)",
        "  tests/test_a.py:7: target",
        "  `work` of tests/test_a.py cannot xxxxxxxxxxxxxxxxxxxx",
        "  fix: move it",
        "  first: tests/test_a.py::test_x[spawn] and 1 more (-v)",
        "",
        "SM501 vacuous: 1 leg passed and started nothing with its method",
        "  started no process",
        "  fix: move it",
        "  vacuous: tests/test_a.py::test_y[fork]",
    ]


def test_verbose_summary_names_every_leg_and_the_fix():
    """At -v nothing is left out."""
    results = [leg("spawn", "failed", findings=(finding(),)), leg("forkserver", "failed", findings=(finding(),))]
    assert report.summary_lines(results, root=ROOT, verbose=True)[4:] == [
        "",
        "SM101 local-function: 2 legs of 1 test (spawn, forkserver)",
        "  tests/test_a.py:7: target",
        "  It cannot be imported.",
        "  fix: move it",
        "  tests/test_a.py::test_x[spawn]",
        "  tests/test_a.py::test_x[forkserver]",
    ]


def test_prediction_is_told_with_its_fix():
    """Nothing failed yet, so the summary is the only place to read it."""
    lines = report.summary_lines([leg("fork", predictions=(finding(),))], root=ROOT, verbose=False)
    assert lines[3:] == [
        "",
        "SM101 local-function: predicted for spawn and forkserver, 1 test",
        "  tests/test_a.py:7: target",
        "  It cannot be imported.",
        "  fix: move it",
        "  first: tests/test_a.py::test_x[fork]",
    ]


def test_many_vacuous_legs_are_cut():
    """Six are named, the rest counted; at -v all are named."""
    results = [leg(test=f"t{n}", vacuous=finding("SM501", "vacuous")) for n in range(9)]
    lines = report.summary_lines(results, root=ROOT, verbose=False)
    assert sum("vacuous: t" in line for line in lines) == 6
    assert lines[-1] == "  and 3 more (-v)"
    verbose = report.summary_lines(results, root=ROOT, verbose=True)
    assert sum("vacuous: t" in line for line in verbose) == 9


def test_troubles_are_said_once():
    """What broke in the plugin is in the summary."""
    results = [
        leg("fork", troubles=("pytest-startmethod: X in Y: z",)),
        leg(troubles=("pytest-startmethod: X in Y: z",)),
    ]
    assert report.summary_lines(results, root=ROOT, verbose=False)[-2:] == ["", "pytest-startmethod: X in Y: z"]


def test_long_paths_are_not_broken():
    """A path is for copying: it may be wider than the screen."""
    path = "x" * 100
    assert report.wrap(f"at {path} it is", indent="  ") == ["  at", f"  {path}", "  it is"]


def test_failures_without_a_cause_and_flaky_legs_are_told():
    """Nobody is left to wonder; what failed under every method is an ordinary failure."""
    results = [
        leg("fork"),
        leg("spawn", "failed", message=f"assert 3 == 4 in {ROOT}/a.py"),
        leg("fork", test="b"),
        leg("spawn", "failed", test="b", flaky=True),
        leg("fork", "failed", test="c"),
    ]
    assert report.summary_lines(results, root=ROOT, verbose=False) == [
        "             passed   failed    flaky",
        "fork              2        1        -",
        "spawn             -        2        1",
        "3 tests: 1 needs-fork, 1 fails, 1 flaky",
        "",
        "no cause found: 1 leg of 1 test (spawn)",
        "  assert 3 == 4 in a.py",
        "  first: tests/test_a.py::test_x[spawn]",
        "",
        "flaky: 1 leg failed and passed when run again, so no cause is named",
        "  flaky: b[spawn]",
    ]


def test_many_causes_are_cut():
    """Forty are told, the commonest first; at -v all are."""
    results = [leg(test=f"t{n}", outcome="failed", findings=(finding(line=n + 1),)) for n in range(45)]
    lines = report.summary_lines(results, root=ROOT, verbose=False)
    assert sum(line.startswith("SM101") for line in lines) == 40
    assert lines[-1] == "and 5 more causes of 5 legs (-v)"
    assert sum(line.startswith("SM101") for line in report.summary_lines(results, root=ROOT, verbose=True)) == 45


def test_a_long_first_leg_has_its_count_below():
    """Nothing wraps that need not."""
    results = [leg(m, "failed", test="tests/" + "x" * 65, findings=(finding(),)) for m in ("spawn", "forkserver")]
    assert report.summary_lines(results, root=ROOT, verbose=False)[-2:] == [
        f"  first: tests/{'x' * 65}[spawn]",
        "    and 1 more (-v)",
    ]


def test_confirmed_findings_say_so():
    """In the summary too."""
    lines = report.summary_lines([leg(outcome="failed", findings=(finding(confirmed=True),))], root=ROOT, verbose=False)
    assert any("confirmed: the test passes under spawn when" in line for line in lines)
