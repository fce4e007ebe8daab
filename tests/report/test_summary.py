"""The terminal section at the end of a session."""

from __future__ import annotations

from builders import ROOT, finding, leg
from pytest_startmethod.report.summary import Summary, quiet_line


def lines(*results, verbose=False, fixed=(), width=80):
    return [each.text for each in Summary(results, ROOT, fixed, width).lines(verbose=verbose)]


def styles(*results, verbose=False):
    every = Summary(results, ROOT).lines(verbose=verbose)
    return [(text, style) for each in every for text, style in each.spans if style]


def test_summary_reads():
    """The table has the outcomes that occurred, counting each leg once; paths are relative to the root."""
    cause = finding(message=f"`work` of {ROOT}/tests/test_a.py cannot " + "x" * 20)
    assert lines(
        leg("fork", predictions=(finding(),)),
        leg("spawn", "failed", findings=(cause,)),
        leg("forkserver", "failed", findings=(cause,)),
        leg("fork", test="tests/test_a.py::test_y", vacuous=finding("SM501", "vacuous", message="started no process")),
        leg("spawn", "skipped", test="tests/test_a.py::test_y"),
        leg("spawn", "xfailed", test="tests/test_a.py::test_z"),
    ) == [
        "             passed   failed  skipped  xfailed  vacuous",
        "fork              1        -        -        -        1",
        "spawn             -        1        1        1        -",
        "forkserver        -        1        -        -        -",
        "3 tests: 1 needs fork, 1 fails as expected, 1 vacuous",
        "",
        "SM101 local-function, 1 test needs fork",
        "  tests/test_a.py:7: target",
        "  `work` of tests/test_a.py cannot xxxxxxxxxxxxxxxxxxxx",
        "  fix: move it",
        "  first: tests/test_a.py::test_x[spawn] and 1 more (-v)",
        "",
        "SM501 vacuous: 1 leg passed without a process of its method",
        "  started no process",
        "  fix: move it",
        "  tests/test_a.py::test_y (fork)",
    ]


def test_verbose_summary_names_every_test():
    """Each test is listed with the methods under which it fails."""
    results = [leg("spawn", "failed", findings=(finding(),)), leg("forkserver", "failed", findings=(finding(),))]
    assert lines(*results, verbose=True)[3:] == [
        "1 test fails everywhere",
        "",
        "SM101 local-function, 1 test fails everywhere",
        "  tests/test_a.py:7: target",
        "  It cannot be imported.",
        "  fix: move it",
        "  tests/test_a.py::test_x (spawn, forkserver)",
    ]


def test_prediction_is_told_with_its_fix():
    """Nothing has failed yet, so only the summary shows it."""
    assert lines(leg("fork", predictions=(finding(),)))[3:] == [
        "",
        "SM101 local-function, predicted for spawn and forkserver: 1 test",
        "  tests/test_a.py:7: target",
        "  It cannot be imported.",
        "  fix: move it",
        "  first: tests/test_a.py::test_x[fork]",
    ]


def test_leaves_of_one_object_and_consequences_are_one_block():
    lock = finding("SM103", "unpicklable-object", "target._lock", 3, message="It is a lock.", fix="leave it out")
    log = finding("SM103", "unpicklable-object", "target._log", 4, message="It is a file.", fix="leave it out")
    hang = finding("SM403", "hang", "", 9, message="It had not finished.", because_of="SM103 target._lock")
    legs = [leg(m, "failed", findings=(lock, log, hang)) for m in ("spawn", "forkserver")]
    assert lines(leg("fork"), *legs)[6:] == [
        "SM103 unpicklable-object, 1 test needs fork",
        "  tests/test_a.py:3, 4: target._lock, ._log",
        "  It is a lock.",
        "  It is a file.",
        "  fix: leave it out",
        "  and so: SM403 hang: It had not finished.",
        "  first: tests/test_a.py::test_x[spawn] and 1 more (-v)",
    ]


def test_findings_that_are_enough_only_together_say_so():
    """They are not shown as confirmed one by one."""
    values = {"code": "SM303", "name": "patch-lost", "confirmed": True}
    both = finding(path="test_t.A", together=("test_t.A", "test_t.B"), **values)
    text = lines(leg("fork"), leg("spawn", "failed", findings=(both,)))
    assert text[5:7] == [
        "SM303 patch-lost, 1 test needs fork (confirmed together)",
        "  tests/test_a.py:7: test_t.A, test_t.B",
    ]


def test_a_cause_says_for_how_many_of_its_legs_it_is_confirmed():
    """Nothing is said where that is all of them; fork legs, which no experiment reaches, do not count."""
    task = finding(confirmed=True, every_method=True)
    legs = [leg(method, "failed", findings=(task,)) for method in ("fork", "spawn")]
    assert "SM101 local-function, 1 test fails everywhere (confirmed)" in lines(*legs)
    more = leg("spawn", "failed", test="b", findings=(finding(),))
    assert "SM101 local-function, 2 tests fail (confirmed in 1 of 2 legs)" in lines(legs[1], more)


def test_many_vacuous_tests_are_cut():
    """Six are named and the rest counted; with -v all are named."""
    results = [leg(test=f"t{n}", vacuous=finding("SM501", "vacuous")) for n in range(9)]
    assert lines(*results)[-7:] == [*(f"  t{n} (spawn)" for n in range(6)), "  and 3 more (-v)"]
    assert lines(*results, verbose=True)[-1] == "  t8 (spawn)"


def test_troubles_are_said_once():
    """Errors of the plugin itself are in the summary, once each."""
    results = [leg(method, troubles=("pytest-startmethod: X in Y: z",)) for method in ("fork", "spawn")]
    assert lines(*results)[-2:] == ["", "pytest-startmethod: X in Y: z"]


def test_failures_without_a_cause_and_flaky_legs_are_told():
    """Both are listed; a failure under every method is an ordinary failure and is not."""
    assert lines(
        leg("fork"),
        leg("spawn", "failed", message=f"assert 3 == 4 in {ROOT}/a.py"),
        leg("fork", test="b"),
        leg("spawn", "failed", test="b", flaky=True),
        leg("fork", "failed", test="c"),
    ) == [
        "             passed   failed    flaky",
        "fork              2        1        -",
        "spawn             -        1        1",
        "3 tests: 1 needs fork, 1 fails everywhere, 1 flaky",
        "",
        "no cause found: 1 leg of 1 test (spawn)",
        "  assert 3 == 4 in a.py",
        "  first: tests/test_a.py::test_x[spawn]",
        "",
        "flaky: 1 leg failed and passed when run again, so no cause is named",
        "  b (spawn)",
    ]


def test_notes_of_legs_without_a_cause_stand_with_them():
    """A note or cleared finding of an unexplained leg has no block that reads like a cause."""
    note = finding("SM303", "patch-lost", level="note", path="pkg.A", message="pkg.A is lost.")
    cleared = finding("SM301", "global-state", level="note", confirmed=False, path="pkg.B", message="pkg.B differs.")
    legs = [leg("fork"), leg("spawn", "failed", findings=(note, cleared), message="assert 0")]
    assert lines(*legs)[5:] == [
        "no cause found: 1 leg of 1 test (spawn)",
        "  assert 0",
        "  first: tests/test_a.py::test_x[spawn]",
        "  noted, not known to matter: SM303 patch-lost, tests/test_a.py:7: pkg.A: pkg.A",
        "    is lost.",
        "  cleared by an experiment: SM301 global-state, tests/test_a.py:7: pkg.B: pkg.B",
        "    differs.",
    ]
    explained = leg("spawn", "failed", findings=(finding(), note), test="tests/test_a.py::test_y")
    text = "\n".join(lines(*legs, leg("fork", test="tests/test_a.py::test_y"), explained))
    assert "\nSM303 patch-lost, 1 test needs fork\n" in text


def test_a_long_summary_is_dense_and_whole_at_v():
    """Each cause takes three lines, most common first, at most forty in all; with -v nothing is left out."""
    fix = "do this and " + "that and " * 20
    results = [leg(test=f"t{n}", outcome="failed", findings=(finding(line=n + 1, fix=fix),)) for n in range(45)]
    text = lines(*results)
    assert text[:5] == [
        "45 tests fail",
        "failing legs: 45 under spawn",
        "SM101 local-function, 1 test fails",
        "  tests/test_a.py:1: target",
        "  fix: do this and that and that and that and that and that and that and that...",
    ]
    assert sum(line.startswith("SM101") for line in text) == 40
    assert text[-2:] == ["and 5 more causes of 5 legs (-v)", "-v: every test of a cause, and the whole of its fix"]
    assert max(map(len, text)) <= 80
    assert sum(line.startswith("SM101") for line in lines(*results, verbose=True)) == 45


def test_a_long_first_leg_has_its_count_below():
    """The count moves to the next line rather than wrapping."""
    results = [leg(m, "failed", test="tests/" + "x" * 65, findings=(finding(),)) for m in ("spawn", "forkserver")]
    assert lines(*results)[-2:] == [f"  first: tests/{'x' * 65}[spawn]", "    and 1 more (-v)"]


def test_text_is_as_wide_as_the_terminal():
    long = finding(message="word " * 40)
    text = lines(leg("spawn", "failed", findings=(long,)), width=120)
    assert 110 < max(map(len, text)) <= 120


def test_tests_that_still_need_fork_are_counted():
    """Tests marked xfail count too."""
    xfails = [leg("fork", test="b"), leg("spawn", "xfailed", test="b")]
    assert lines(leg("fork"), leg("spawn", "failed"), *xfails)[3] == (
        "2 tests: 1 needs fork, 1 fails as expected (2 still need fork)"
    )


def test_tests_that_never_leave_fork_are_listed():
    """Legs whose code pins fork and unmarked tests that fork by hand are listed if they start nothing else.

    Those that use another package's default are not: on macOS that is spawn.
    """
    pinned = {"kind": "context", "method": "fork", "file": f"{ROOT}/a.py", "line": 4, "count": 2, "tasks": 0}
    forked = {**pinned, "kind": "os.fork", "count": 1, "line": 9, "test": "tests/test_b.py::test_fork"}
    spawned = {**pinned, "method": "spawn", "test": "tests/test_b.py::test_spawn"}
    package = {**pinned, "kind": "billiard", "method": "billiard:fork", "test": "tests/test_b.py::test_package"}
    launch = {"method": "spawn"}
    legs = [
        leg("fork", foreign=(pinned,)),
        leg("spawn", foreign=(pinned,)),
        leg("spawn", test="tests/test_a.py::test_both", foreign=(pinned,), launches=(launch,)),
        leg("fork", test="tests/test_a.py::test_under_fork_alone", foreign=(pinned,)),
        leg("billiard:spawn", test="tests/test_c.py::test_y", foreign=({**pinned, "method": "billiard:fork"},)),
    ]
    text = lines(*legs, fixed=[forked, spawned, package])
    start = text.index("not affected by the start method: 15 processes of 7 tests")
    assert "  1 process of os.fork at a.py:9" in text[start:]
    end = text.index("  never leave fork: tests/test_a.py::test_x, tests/test_b.py::test_fork,")
    assert text[end + 1 :] == ["    tests/test_c.py::test_y"]


def test_one_line_at_q():
    """The line has the verdicts, and the number of tests for each code."""
    results = [
        leg("fork"),
        leg("spawn", "failed", findings=(finding(), finding("SM504", level="note"))),
        leg("fork", test="b", predictions=(finding(),)),
    ]
    assert quiet_line(results).text == "start methods: 2 tests: 1 passes everywhere, 1 needs fork [SM101 x2]"


def test_words_have_pytests_colours():
    """Failures are red, flaws yellow, passes green."""
    found = styles(
        leg("fork"),
        leg("spawn", "failed", findings=(finding(),)),
        leg("fork", test="b"),
        leg("fork", test="c", predictions=(finding(line=9),)),
    )
    assert ("1 needs fork", "bad") in found
    assert ("2 pass everywhere", "good") in found
    assert ("SM101 local-function", "cause") in found
    assert ("SM101 local-function", "note") in found
    assert ("fix:", "fix") in found
