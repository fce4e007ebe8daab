"""Which reruns a failed leg gets, and what their outcomes mean. No test is run here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_startmethod.experiments import plan
from pytest_startmethod.experiments.plan import Attempt, ByValue, Failures, Outcome, Replay
from pytest_startmethod.experiments.verifying import LEGS_OF_A_CONFIRMED_CAUSE, LEGS_OF_ONE_CAUSE, LegToVerify, Verifier
from pytest_startmethod.model import codes
from pytest_startmethod.model.finding import Finding

FAILED = ("call: assert 1",)


def finding(code="SM301", path="pkg.mod.X", **values):
    defaults = {"level": "cause", "file": "/src/a.py", "line": 1, "message": f"{path} differs."}
    return Finding(code=code, name=codes.CAUSES[code].name, path=path, **{**defaults, **values})


def play(found, outcome_of, *, not_pickled=False, hidden=()):
    """Answer each attempt with `outcome_of`; return the attempts, as paths, and the conclusion."""
    usual = Failures()
    usual.add(FAILED)
    search = plan.search(plan.candidates(found, hidden), usual, not_pickled=not_pickled)
    made = []
    try:
        attempt = next(search)
        while True:
            paths = [getattr(each, "path", "by value") for each in attempt.experiments]
            made.append("control" if attempt.control else " ".join(paths))
            attempt = search.send(outcome_of(attempt))
    except StopIteration as end:
        return made, end.value


def needing(*paths, failure=FAILED):
    """Return a world in which the test passes once all `paths` reach the child."""

    def outcome_of(attempt):
        sent = {getattr(each, "path", "by value") for each in attempt.experiments}
        if not attempt.control and sent.issuperset(paths):
            return Outcome(True)
        return Outcome(False, FAILED if not sent or attempt.control else failure)

    return outcome_of


def paths(candidates):
    return [getattr(each.experiment, "path", "by value") for each in candidates]


# -- candidates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "path", "expected"),
    [
        ("SM101", "target", ByValue()),
        ("SM102", "args[0]", ByValue()),
        ("SM101", "", None),
        ("SM104", "target", ByValue(whole=True)),
        ("SM201", "target", ByValue(whole=True)),
        ("SM202", "target", ByValue(whole=True)),
        ("SM103", "target.__self__.lock", ByValue()),
        ("SM105", "args[0]", None),
        ("SM604", "umask", Replay("umask")),
        ("SM604", "sys.stdout", None),
        ("SM301", "pkg.mod.X", Replay("pkg.mod.X")),
        ("SM302", "pkg.mod.C.x", Replay("pkg.mod.C.x")),
        ("SM303", "pkg.mod.now", Replay("pkg.mod.now")),
        ("SM304", "os.environ['X']", Replay("os.environ['X']")),
        ("SM305", "logging.root", Replay("logging.root")),
        ("SM306", "random", Replay("random")),
        ("SM307", "pkg.mod.LOCK", Replay("pkg.mod.LOCK")),
        ("SM308", "pkg.mod.X", None),
        ("SM301", "", None),
        ("SM404", "target", None),
    ],
)
def test_the_experiment_follows_from_the_finding(code, path, expected):
    assert plan.experiment_of(finding(code, path)) == expected


def test_nothing_crosses_by_value_beside_what_cannot_cross():
    """Nothing is sent by value if another cause stays: the run would fail differently, or hang."""
    lock = finding("SM105", "args[0].lock")
    assert plan.candidates([finding("SM101", "target"), lock]) == []
    assert len(plan.candidates([finding("SM301", "pkg.NAME"), lock])) == 1
    assert len(plan.candidates([finding("SM101", "target"), replace(lock, level="note")])) == 1


def test_what_the_failing_traceback_touched_comes_first_then_causes_notes_and_hidden_ones():
    note = finding(path="a", level="note", file="/src/touched.py")
    far, near, hidden = finding(path="b"), finding(path="c", file="/src/touched.py"), finding(path="d")
    found = plan.candidates([note, far, near], [hidden, far], {("/src/touched.py", "f")})
    assert paths(found) == ["c", "b", "a", "d"]
    assert [each.hidden for each in found] == [False, False, False, True]


def test_findings_with_one_experiment_share_a_run():
    one, other, third = finding("SM101", "target"), finding("SM102", "args[0]"), finding("SM404", "args[1]")
    (candidate,) = plan.candidates([one, other, third])
    assert candidate.findings == (one, other)


# -- the search ------------------------------------------------------------------------------------------------------


def test_eight_innocent_candidates_cost_two_runs():
    found = [finding(path=f"m.x{number}") for number in range(8)]
    made, said = play(found, needing("something else"))
    assert made == ["", " ".join(each.path for each in found)]
    assert paths(said.cleared) == [each.path for each in found]


def test_the_first_candidate_is_tried_alone_before_the_others():
    made, said = play([finding(path="a"), finding(path="b"), finding(path="c")], needing("a"))
    assert made == ["", "a b c", "a", "control"]
    assert paths(said.confirmed) == ["a"]


@pytest.mark.parametrize("cause", range(8))
def test_one_cause_among_many_is_found_within_the_budget(cause):
    found = [finding(path=f"m.x{number}") for number in range(8)]
    made, said = play(found, needing(f"m.x{cause}"))
    assert len(made) <= plan.MOST_RUNS
    assert f"m.x{cause}" in paths(said.confirmed)


def test_two_causes_that_are_needed_together_are_one_finding():
    found = [finding(path="a", fix="do this"), finding(path="b", fix="do that")]
    made, said = play(found, needing("a", "b"))
    assert made == ["", "a b", "a", "b", "control"]
    (settled,) = plan.settle(found, said)
    assert settled.together == ("a", "b")
    assert settled.confirmed
    assert settled.fix == "do this; do that"
    said_of_it = "confirmed together: the test passes under spawn when a and b reach the child"
    assert settled.experiment("spawn") == said_of_it


def test_nothing_is_confirmed_if_the_control_passes_too():
    made, said = play([finding(path="a")], lambda attempt: Outcome(bool(attempt.experiments), FAILED))
    assert made == ["", "a", "control"]
    assert said.confirmed == ()
    (settled,) = plan.settle([finding(path="a")], said)
    assert settled.confirmed is None
    assert settled.level == "note"
    assert settled.evidence == ("the test also passes if the child imports the module early and keeps its own value",)


def test_the_run_as_it_is_is_the_control_of_what_crosses_by_value():
    made, said = play([finding("SM101", "target")], needing("by value"))
    assert made == ["", "by value"]
    assert paths(said.confirmed) == ["by value"]


def test_a_start_that_could_not_pickle_is_no_flake():
    made, said = play([finding("SM101", "target")], needing("by value"), not_pickled=True)
    assert made == ["by value"]
    assert paths(said.confirmed) == ["by value"]


def test_a_flaky_leg_keeps_what_makes_races():
    made, said = play([finding(path="a")], lambda attempt: Outcome(True))
    assert made == [""]
    for level in ("cause", "note"):
        lock = finding("SM307", "m.LOCK", level=level)
        assert plan.settle([finding(path="a"), lock], said) == (lock,)


def test_a_cause_behind_the_first_is_met_and_tried_with_it():
    first, second = finding("SM101", "target"), finding("SM305", "logging.root")

    def outcome_of(attempt):
        if len(attempt.experiments) == 2 and not attempt.control:
            return Outcome(True)
        return Outcome(False, ("call: other",) if attempt.experiments else FAILED, met=(second,))

    made, said = play([first], outcome_of)
    assert made == ["", "by value", "by value logging.root", "by value", "logging.root", "control"]
    (settled,) = plan.settle([first], said)
    assert settled.together == ("target", "logging.root")
    assert settled.message == "target differs; SM305 logging-lost: logging.root differs"


def test_a_cause_that_is_necessary_says_what_was_met_behind_it():
    first, second = finding("SM101", "target"), finding("SM404", "target", message="it died.")
    made, said = play([first], lambda attempt: Outcome(False, (str(bool(attempt.experiments)),), met=(second,)))
    assert made == ["", "by value"]
    one, other = plan.settle([first], said)
    assert one.evidence == ("with that out of the way: SM404 child-crashed: it died.",)
    assert (one.confirmed, other) == (None, second)


def test_hidden_candidates_are_left_out_if_they_make_it_fail_in_another_way():
    def outcome_of(attempt):
        paths = {each.path for each in attempt.experiments}
        return Outcome(False, ("call: broken",)) if "h" in paths else needing("a")(attempt)

    made, said = play([finding(path="a")], outcome_of, hidden=[finding("SM303", "h")])
    assert made == ["", "a h", "a", "control"]
    assert paths(said.confirmed) == ["a"]


def test_what_did_not_reach_the_child_is_neither_confirmed_nor_cleared():
    found = [finding(path="a"), finding(path="b")]
    unsent = frozenset([Replay("a")])
    _, said = play(found, lambda attempt: Outcome(False, FAILED, unsent if attempt.experiments else frozenset()))
    assert paths(said.cleared) == ["b"]
    _, said = play(found[:1], lambda attempt: Outcome(bool(attempt.experiments), FAILED, unsent))
    assert (said.cleared, said.confirmed) == ((), ())


def test_what_did_not_reach_the_child_does_not_hide_what_did():
    def outcome_of(attempt):
        unsent = frozenset([Replay("h")]) & frozenset(attempt.experiments)
        return replace(needing("a")(attempt), unsent=unsent)

    made, said = play([finding(path="a")], outcome_of, hidden=[finding("SM303", "h")])
    assert made == ["", "a h", "a", "control"]
    assert paths(said.confirmed) == ["a"]


def test_a_candidate_that_breaks_the_test_does_not_hide_the_one_behind_it():
    def outcome_of(attempt):
        sent = {each.path for each in attempt.experiments}
        return Outcome(False, ("call: broken",)) if "b" in sent else needing("c")(attempt)

    for order, runs in (
        ("bc", ["", "b c", "b", "c", "control"]),
        ("abc", ["", "a b c", "a", "b c", "b"]),
        ("acb", ["", "a c b", "a", "c b", "c", "control"]),
    ):
        made, said = play([], outcome_of, hidden=[finding("SM303", each) for each in order])
        assert made[: len(runs)] == runs
        assert paths(said.confirmed) == (["c"] if made[-1] == "control" else [])


def test_what_is_not_over_in_time_says_nothing_and_ends_the_runs():
    found = [finding(path="a"), finding(path="b")]
    made, said = play(found, lambda attempt: Outcome(False, () if attempt.experiments else FAILED, in_time=False))
    assert made[:2] == ["", "a b"]
    assert (said.cleared, said.confirmed) == ((), ())


# -- failures --------------------------------------------------------------------------------------------------------


def test_tokens_that_vary_between_two_plain_runs_are_no_difference():
    usual = Failures()
    usual.add(["call: AssertionError: 101 has not"])
    assert ["call: AssertionError: 102 has not"] not in usual
    usual.add(["call: AssertionError: 102 has not"])
    assert ["call: AssertionError: 103 has not"] in usual
    assert ["call: AssertionError: 103 has"] not in usual
    assert ["call: OSError: 103 has not"] not in usual
    assert [] not in usual


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("<X object at 0x7f01>", "<X object at 0x7e02>", True),
        ("<Process name='SpawnProcess-3' pid=12 parent=7>", "<Process name='SpawnProcess-14:2' pid=13 parent=7>", True),
        ("no /tmp/pytest-of-me/pytest-3/a", "no /tmp/pytest-of-me/pytest-4/a", True),
        ("no /tmp/tmpab12cd34/a", "no /tmp/tmpzz99yy88/a", True),
        ("assert 1 == 2", "assert 1 == 3", False),
        ("\nassert 1\nmore", "assert 1\nother", True),
    ],
)
def test_failures_are_the_same_without_addresses_and_pids(one, other, same):
    assert (plan.failure("call", one) == plan.failure("call", other)) is same


def test_confirmed_findings_come_first_and_cleared_ones_last():
    first, second, third = finding(path="a"), finding(path="b", level="note"), finding(path="c")
    cleared, confirmed = plan.candidates([first]), plan.candidates([second])
    said = plan.Conclusion(confirmed=tuple(confirmed), cleared=tuple(cleared))
    settled = plan.settle([first, second, third], said)
    assert [(each.path, each.confirmed, each.level) for each in settled] == [
        ("b", True, "cause"), ("c", None, "cause"), ("a", False, "note"),
    ]  # fmt: skip


def test_a_stand_in_clears_nothing_and_uncovers_nothing():
    """A child with a stand-in may fail for want of the original: the start has failed all the same."""
    lock = finding("SM103", "args[0].lock")
    usual = Failures()
    usual.add(FAILED)
    for outcome in (Outcome(False, FAILED), Outcome(False, ("call: other",), met=(finding("SM404", "x"),))):
        search = plan.search(plan.candidates([lock]), usual, not_pickled=True)
        next(search)
        with pytest.raises(StopIteration) as end:
            search.send(outcome)
        assert plan.settle([lock], end.value.value) == (lock,)


# -- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("with_copies", "without", "confirmed", "runs"),
    [
        (Outcome(False, FAILED), Outcome(True), [True, None], 3),
        (Outcome(False, FAILED), Outcome(False, FAILED), [None, None], 3),  # so the copies explain nothing
        (Outcome(False, ("call: other",)), Outcome(True), [None, None], 2),
        (Outcome(True), Outcome(True), [False, None], 2),
        (Outcome(False, FAILED, unsent=frozenset([plan.Copies()])), Outcome(True), [None, None], 2),
    ],
)
def test_copies_must_fail_under_fork_where_the_originals_pass(with_copies, without, confirmed, runs):
    usual = Failures()
    usual.add(FAILED)
    differs, other = finding(code="SM204", path="args[0]"), finding(code="SM404", path="b")
    search = plan.search(plan.candidates([differs, other]), usual, copied=[differs])
    attempt, made = next(search), 1
    try:
        while True:
            outcome = (without if attempt.control else with_copies) if attempt.experiments else Outcome(False, FAILED)
            attempt, made = search.send(outcome), made + 1
    except StopIteration as end:
        said = {each.path: each.confirmed for each in plan.settle([differs, other], end.value)}
    assert ([said["args[0]"], said["b"]], made) == (confirmed, runs)


def test_two_differences_of_copies_are_confirmed_together():
    """No run tells them apart."""
    both = (finding(code="SM204", path="args[0].a"), finding(code="SM204", path="args[0].b"))
    (settled,) = plan.settle(both, plan.Conclusion(confirmed=(plan.Candidate(plan.Copies(), both),)))
    assert (settled.confirmed, settled.together) == (True, ("args[0].a", "args[0].b"))
    assert settled.experiment("spawn") == (
        "confirmed: the test fails this way under fork, too, when its children are sent copies"
    )


# -- one cause, many legs --------------------------------------------------------------------------------------------


def leg(*findings, message="assert 1", **values):
    return LegToVerify("spawn", findings, ((f"call: {message}",),), **values)


class World:
    """Runs nothing; answers like `needing`."""

    def __init__(self, *paths):
        self.answer = needing(*paths)
        self.attempts: list[Attempt] = []

    def __call__(self, attempt, seconds, is_usual):
        self.attempts.append(attempt)
        return self.answer(attempt)


def test_a_cause_that_many_legs_share_is_tried_once():
    verifier, run = Verifier(), World("a")
    for number in range(10):
        verified = verifier.verify(leg(finding(path="a"), message=f"assert {number}"), run)
        assert [each.confirmed for each in verified.findings] == [True]
    assert len(run.attempts) == 3
    assert (verifier.legs, verifier.runs) == (1, 3)


def test_a_settled_cause_says_nothing_of_a_leg_that_fails_otherwise():
    """Neither for another exception, another line or function, nor for what a child raised."""
    at = {"failed_with": frozenset({("AssertionError", 5)}), "touched": frozenset({("test_a.py", "test")})}
    others = [
        at | {"failed_with": frozenset({("AssertionError", 6)})},
        at | {"failed_with": frozenset({("KeyError", 5)})},
        at | {"touched": frozenset({("test_a.py", "test_other")})},
    ]
    verifier, run = Verifier(), World("a")
    verifier.verify(leg(finding(path="a"), **at), run)
    assert len(run.attempts) == 3
    for other in others[: LEGS_OF_ONE_CAUSE - 1]:
        verified = verifier.verify(leg(finding(path="a"), **other), lambda *_: Outcome(False, ("call: assert 1",)))
        assert [each.confirmed for each in verified.findings] == [False]
    raised = at | {"failed_with": at["failed_with"] | {"OSError"}}
    for other in (leg(finding(path="a"), **others[-1]), leg(finding(path="a"), **raised)):
        assert [each.confirmed for each in verifier.verify(other, run).findings] == [True]
    assert len(run.attempts) > 3  # by runs of its own
    before = len(run.attempts)
    assert [each.confirmed for each in verifier.verify(leg(finding(path="a"), **at), run).findings] == [True]
    assert len(run.attempts) == before


def test_a_set_that_is_sufficient_under_one_method_is_tried_first_under_the_next():
    verifier, run = Verifier(), World("a", "b")
    found = [finding(path=each) for each in "cab"]
    verifier.verify(leg(*found), run)
    before = len(run.attempts)
    verified = verifier.verify(replace(leg(*found), method="forkserver"), run)
    tried = [([each.path for each in attempt.experiments], attempt.control) for attempt in run.attempts[before:]]
    assert tried == [([], False), (["a", "b"], False), (["a", "b"], True)]
    assert [each.together for each in verified.findings if each.confirmed] == [("a", "b")]


def test_what_is_cleared_for_one_failure_is_not_for_another():
    verifier, run = Verifier(), World("b")
    for message in ("assert 1", "assert 2", "KeyError"):
        verifier.verify(leg(finding(path="a"), message=message), run)
    assert verifier.legs == 2


@pytest.mark.parametrize(
    ("needs", "most"), [("b", LEGS_OF_ONE_CAUSE), ("a", LEGS_OF_A_CONFIRMED_CAUSE)], ids=["not", "confirmed"]
)
def test_so_many_legs_of_one_cause_are_run_again_at_most(needs, most):
    """More of them once the cause is confirmed: the next leg is more likely to have it, and needs fewer runs."""
    verifier, run = Verifier(), World(needs)
    for number in range(20):
        at = frozenset({("AssertionError", number)})
        verifier.verify(leg(finding(path="a"), message="abcdefghijklmnopqrst"[number], failed_with=at), run)
    assert verifier.legs == most


def test_no_leg_is_run_again_that_would_take_longer_than_what_is_left():
    verifier, run = Verifier(seconds=5.0), World("a")
    verified = verifier.verify(leg(finding(path="a"), seconds=6.0), run)
    assert [each.confirmed for each in verified.findings] == [None]
    assert (run.attempts, verifier.left_out) == ([], 1)


def test_a_long_leg_is_confirmed_without_an_unchanged_run_if_there_is_no_time_for_one():
    """The control then stands for it: it must fail in the usual way."""
    verifier, run = Verifier(seconds=60.0), World("a")
    verified = verifier.verify(leg(finding(path="a"), seconds=25.0), run)
    assert [each.confirmed for each in verified.findings] == [True]
    assert [attempt.control for attempt in run.attempts] == [False, True]


@pytest.mark.parametrize("seconds", [1.0, 12.0], ids=["unchanged first", "no time for that"])
def test_a_hang_is_confirmed_if_it_hangs_in_the_control(seconds):
    def run(attempt, left, is_usual):
        attempts.append((len(attempt.experiments), attempt.control))
        return Outcome(False, in_time=False) if attempt.control or not attempt.experiments else Outcome(True)

    attempts = []
    verified = Verifier(seconds=60.0).verify(leg(finding(path="a"), seconds=seconds, hangs=True), run)
    assert [each.confirmed for each in verified.findings] == [True]
    assert attempts[-2:] == [(1, False), (1, True)]
    assert len(attempts) == (3 if seconds == 1.0 else 2)


def test_a_hang_follows_from_the_confirmed_cause():
    """Also in a leg that was not run again."""
    verifier, run = Verifier(), World("a")
    found = finding(path="a"), finding("SM403", ""), finding("SM405", "")
    for _ in range(2):
        verified = verifier.verify(leg(*found), run)
        told = [(each.code, each.because_of, each.confirmed) for each in verified.findings]
        assert told == [("SM301", "", True), ("SM403", "SM301 a", None), ("SM405", "", None)]
    assert verifier.legs == 1
    verified = Verifier().verify(leg(*found), World("b"))
    assert [each.because_of for each in verified.findings] == ["", "", ""]


@pytest.mark.parametrize("control", [Outcome(True), Outcome(False, ("call: assert 2",)), Outcome(False, in_time=False)])
def test_a_long_leg_is_not_confirmed_if_its_control_does_not_fail_in_the_usual_way(control):
    def run(attempt, seconds, is_usual):
        return control if attempt.control else Outcome(True)

    verified = Verifier(seconds=60.0).verify(leg(finding(path="a"), seconds=25.0), run)
    assert [each.confirmed for each in verified.findings] == [None]


def test_what_a_long_legs_control_passes_without_is_a_note():
    """The child imports the module early in both runs: that is what makes the test pass."""
    verified = Verifier(seconds=60.0).verify(leg(finding(path="a"), seconds=25.0), lambda *_: Outcome(True))
    assert [(each.level, each.confirmed) for each in verified.findings] == [("note", None)]


def test_a_long_leg_is_run_unchanged_if_loading_the_value_sets_it():
    replay = Replay("a")

    def run(attempt, seconds, is_usual):
        attempts.append((len(attempt.experiments), attempt.control))
        return Outcome(True, imported=frozenset([replay])) if attempt.experiments else Outcome(False, FAILED)

    attempts = []
    verified = Verifier(seconds=90.0).verify(leg(finding(path="a"), seconds=25.0), run)
    assert [each.confirmed for each in verified.findings] == [True]
    assert attempts == [(1, False), (1, True), (0, True)]


def test_a_long_leg_that_fails_in_another_way_without_the_cause_is_not_interpreted():
    """Without an unchanged run nobody knows which words vary from run to run."""
    run = World("a")
    run.answer = needing("a", failure=("call: assert 2",))
    verified = Verifier(seconds=60.0).verify(leg(finding(path="b"), finding(path="c"), seconds=25.0), run)
    assert [each.confirmed for each in verified.findings] == [None, None]
    assert [len(attempt.experiments) for attempt in run.attempts] == [1, 2]


@pytest.fixture
def _two_seconds_a_run(monkeypatch):
    seconds = iter(range(0, 100, 2))
    monkeypatch.setattr("pytest_startmethod.experiments.verifying._now", lambda: next(seconds))


@pytest.mark.usefixtures("_two_seconds_a_run")
def test_a_leg_whose_search_the_budget_cut_short_is_counted():
    verifier, run = Verifier(seconds=3.0), World("b")
    verified = verifier.verify(leg(finding(path="a"), finding(path="b"), seconds=1.0), run)
    assert [(each.path, each.confirmed) for each in verified.findings] == [("b", None), ("a", False)]
    assert (len(run.attempts), verifier.legs, verifier.left_out) == (2, 1, 1)


@pytest.mark.usefixtures("_two_seconds_a_run")
def test_when_the_time_is_spent_what_is_known_is_kept():
    verifier, run = Verifier(seconds=5.0), World("something else")
    verified = verifier.verify(leg(finding(path="a"), finding(path="b"), seconds=1.0), run)
    assert [each.confirmed for each in verified.findings] == [False, False]
    verified = verifier.verify(leg(finding(path="c"), seconds=2.0), run)
    assert [each.confirmed for each in verified.findings] == [None]


def test_a_hidden_finding_is_reported_only_if_it_is_confirmed():
    hidden = finding("SM303", "json.default")
    verified = Verifier().verify(leg(hidden=(hidden,)), World("json.default"))
    assert [(each.path, each.confirmed) for each in verified.findings] == [("json.default", True)]
    assert Verifier().verify(leg(hidden=(hidden,)), World("else")).findings == ()


def test_a_hidden_patch_that_a_second_look_finds_at_fault_is_reported():
    """It need not be confirmed: its replacement may be an object that no experiment can send."""
    hidden = finding("SM303", "httpcore.ConnectionPool.handle_request")

    def unsendable(attempt, _seconds, _is_usual):
        if not attempt.experiments:
            return Outcome(False, FAILED, more=(hidden,))
        return Outcome(False, ("call: other",), unsent=frozenset(attempt.experiments))

    verified = Verifier().verify(leg(hidden=(hidden,)), unsendable)
    assert [(each.path, each.confirmed) for each in verified.findings] == [(hidden.path, None)]


def test_legs_without_a_finding_are_alike_only_if_the_same_functions_fail():
    hidden = finding("SM303", "json.default")
    verifier, run = Verifier(), World("json.default")
    one = leg(hidden=(hidden,), touched=frozenset([("test_a.py", "test_one")]))
    assert [each.confirmed for each in verifier.verify(one, run).findings] == [True]
    assert [each.confirmed for each in verifier.verify(one, run).findings] == [True]
    other = leg(touched=frozenset([("test_a.py", "test_other")]))
    assert verifier.verify(other, run).findings == ()
    assert verifier.legs == 2
