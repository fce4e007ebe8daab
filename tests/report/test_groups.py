"""Findings of many legs, grouped by cause."""

from __future__ import annotations

import json
from dataclasses import replace

from builders import ROOT, finding, leg
from pytest_startmethod.model.leg_result import LegResult
from pytest_startmethod.report import groups


def test_result_crosses_processes_as_builtins():
    """A round trip through JSON gives an equal result."""
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
        planned=("fork", "spawn"),
    )
    assert LegResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result


def test_equal_findings_are_one_group():
    """One start that breaks many tests is one entry; the most common cause comes first, notes last."""
    note = finding("SM504", "declares-fork-only", level="note")
    results = [
        leg(test="a", outcome="failed", findings=(finding(line=1),)),
        leg(test="b", outcome="failed", findings=(finding(line=2), note)),
        leg(test="c", outcome="failed", findings=(finding(line=2), note)),
        leg(test="d", outcome="failed", findings=(note,)),
    ]
    found = groups.group(results)
    assert [(g.finding.line, g.finding.level, len(g.legs)) for g in found] == [
        (2, "cause", 2),
        (1, "cause", 1),
        (7, "note", 3),
    ]


def test_what_is_cleared_for_one_leg_is_not_confirmed_with_the_other():
    """Legs are grouped, and a test's legs merged, by what experiments showed: the cause of one clears the other."""
    found, other = replace(finding(), confirmed=True), replace(finding(), confirmed=False, level="note")
    confirmed = leg("spawn", "failed", findings=(found,))
    cleared = leg("forkserver", "failed", findings=(other,))
    unknown = leg("spawn", "failed", test="b", findings=(finding(),))
    assert [(each.finding, each.confirmed, each.legs) for each in groups.group([confirmed, cleared, unknown])] == [
        (found, (1, 2), [confirmed, unknown]),
        (other, (0, 1), [cleared]),
    ]
    merged = groups.merged({"spawn": confirmed, "forkserver": cleared})
    assert [(each.finding, each.methods) for each in merged] == [(found, ["spawn"]), (other, ["forkserver"])]


def test_objects_that_one_helper_pickles_are_groups_of_their_own():
    """A helper that starts a process with the arguments of many tests has one line for a lock and for a thread."""
    lock, thread = (finding("SM103", message=f"`args[0]` is a {each}") for each in ("lock", "thread"))
    found = groups.group(
        [
            leg(test=test, outcome="failed", findings=(each,))
            for test, each in zip("abc", (lock, thread, lock), strict=True)
        ]
    )
    assert [(each.finding.message, each.tests) for each in found] == [
        ("`args[0]` is a lock", ["a", "c"]),
        ("`args[0]` is a thread", ["b"]),
    ]


def test_prediction_that_came_true_is_no_prediction():
    """It is merged into the finding of the spawn leg; a prediction without such a finding is marked."""
    came_true = [leg("fork", predictions=(finding(),)), leg(outcome="failed", findings=(finding(),))]
    (only,) = groups.group(came_true)
    assert (only.predicted, [each.method for each in only.legs]) == (False, ["spawn"])
    (alone,) = groups.group(came_true[:1])
    assert (alone.predicted, [each.method for each in alone.legs]) == (True, ["fork"])


def test_prediction_stays_where_another_test_fails_of_the_same_object():
    """A test predicted to fail does not count as passing because another test already fails."""
    other = leg("fork", "failed", test="b", findings=(finding(),))
    found = groups.group([leg("fork", predictions=(finding(),)), other])
    assert [(each.predicted, each.tests) for each in found] == [(False, ["b"]), (True, ["tests/test_a.py::test_x"])]


def test_prediction_that_did_not_come_true_is_dropped():
    """A leg that passed refutes it, unless it used another leg's processes."""
    fork = leg("fork", predictions=(finding(),))
    assert groups.group([fork, leg()]) == []
    assert groups.group([fork, leg(vacuous=finding("SM502", "pinned-method"))]) == []
    for kept in (
        leg(vacuous=finding("SM503", "fixture-started-earlier")),
        leg(outcome="failed"),
        leg(outcome="skipped"),
        leg(test="another"),
    ):
        assert [group.predicted for group in groups.group([fork, kept])] == [True]


def test_groups_do_not_split_on_process_ids_and_temporary_paths(tmp_path):
    """Details that vary between legs are not part of the key, but stay in the text."""
    messages = [f"process {pid} wrote {tmp_path}/{method}0/out.txt" for pid, method in [(12, "spawn"), (13, "fork")]]
    crashed = [replace(finding("SM404", path=""), file=None, line=None, message=each) for each in messages]
    (only,) = groups.group([leg("spawn", "failed", findings=crashed[:1]), leg("fork", "failed", findings=crashed[1:])])
    assert only.finding.message == messages[0]
    files = [f"/tmp/pytest-of-me/pytest-{n}/test_m_{name}0/m.py" for n, name in [(1, "spa"), (1, "for")]]
    missing = [replace(finding("SM201"), file=each) for each in files]
    assert len(groups.group([leg("spawn", findings=missing[:1]), leg("forkserver", findings=missing[1:])])) == 1


def test_findings_of_one_object_are_told_as_one():
    """Attributes of one object share its path; other objects, codes or experiment results stay separate."""
    lock, log = finding(path="target.__self__._lock", line=3), finding(path="target.__self__._log", line=4)
    (told,) = groups.told([lock, log])
    assert told.paths == "target.__self__._lock, ._log"
    assert told.places() == [(f"{ROOT}/tests/test_a.py", [3, 4])]
    assert len(groups.told([lock, finding(path="args[0]._log")])) == 2
    assert len(groups.told([lock, finding("SM105", path="target.__self__._log")])) == 2
    assert len(groups.told([lock, finding(path="target.__self__._log", confirmed=True)])) == 2
    assert len(groups.told([finding(path="target"), finding(path="target", line=9)])) == 2


def test_consequences_stand_with_their_cause():
    """Consequences are nested below their cause, unless an experiment cleared it or the finding is another one."""
    cause = finding()
    crash = finding("SM402", "pool-crash-loop", path="", because_of="SM101 target")
    hang = finding("SM403", "hang", path="", because_of="SM402")
    (told,) = groups.told([hang, crash, cause])
    assert (told.finding, told.consequences) == (cause, [crash, hang])
    assert [each.finding for each in groups.told([hang])] == [hang]
    cleared = replace(cause, confirmed=False)
    assert [each.finding for each in groups.told([crash, cleared])] == [crash, cleared]


def test_groups_nest_as_the_findings_of_a_leg_do():
    """Each object appears once, and a consequence below the cause shared by all its legs."""
    lock, log = finding(path="target.__self__._lock", line=3), finding(path="target.__self__._log", line=4)
    hang = finding("SM403", "hang", path="", line=9, because_of="SM101 target.__self__._lock")
    both = [leg(method, "failed", findings=(lock, log, hang)) for method in ("spawn", "forkserver")]
    (only,) = groups.nested(groups.group(both))
    assert [only.finding, only.others[0].finding, only.consequences[0].finding] == [lock, log, hang]
    elsewhere = leg("spawn", "failed", test="b", findings=(hang,))
    assert len(groups.nested(groups.group([*both, elsewhere]))) == 2
