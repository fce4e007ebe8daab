"""The verdict on a test, derived from its legs."""

from __future__ import annotations

import pytest

from builders import finding, leg, legs
from pytest_startmethod.report import verdicts

VERDICTS = {
    "passes": {"fork": "passed", "spawn": "passed", "forkserver": "xpassed"},
    "fails": {"fork": "failed", "spawn": "error"},
    "needs-fork": {"fork": "passed", "spawn": "failed", "forkserver": "failed"},
    "xfails": {"fork": "passed", "spawn": "xfailed", "forkserver": "xfailed"},
    "fails under forkserver only": {"fork": "passed", "spawn": "passed", "forkserver": "failed"},
    "fails under fork only": {"fork": "failed", "spawn": "passed", "forkserver": "passed"},
    "fails under fork and spawn only": {"fork": "failed", "spawn": "failed", "forkserver": "passed"},
    "skipped": {"fork": "skipped", "spawn": "skipped"},
    "skipped under spawn and forkserver": {"fork": "passed", "spawn": "skipped", "forkserver": "skipped"},
}


@pytest.mark.parametrize(("said", "outcomes"), VERDICTS.items(), ids=VERDICTS)
def test_each_combination_of_outcomes_has_its_word(said, outcomes):
    assert verdicts.verdict(legs(**outcomes)) == said


def test_spawn_alone_next_to_a_passing_fork_needs_fork():
    """Every other selected method failed, even if there is only one."""
    assert verdicts.verdict(legs(fork="passed", spawn="failed")) == "needs-fork"


def test_an_xfailed_leg_counts_as_failing():
    """A test with one method marked xfail and another failing still needs fork."""
    assert verdicts.verdict(legs(fork="passed", spawn="failed", forkserver="xfailed")) == "needs-fork"


def test_skipped_legs_have_no_say():
    """Skipped legs count neither as failing nor as passing."""
    assert verdicts.verdict(legs(fork="skipped", spawn="failed")) == "fails"


def test_a_test_of_which_a_leg_did_not_run_is_incomplete():
    """If ``-x``, ``-k`` or Ctrl-C left a leg out, the verdict is incomplete whatever the others did."""
    for outcome in ("passed", "failed", "skipped", "xfailed"):
        cut = {"fork": leg("fork", outcome, planned=("fork", "spawn"))}
        assert verdicts.verdict(cut) == "incomplete"
        assert not verdicts.needs_fork(cut)
    whole = {method: leg(method, planned=("fork", "spawn")) for method in ("fork", "spawn")}
    assert verdicts.verdict(whole) == "passes"


def test_a_vacuous_leg_makes_the_test_vacuous_unless_one_failed():
    empty = leg("spawn", vacuous=finding("SM501", "vacuous"))
    assert verdicts.verdict({"fork": leg("fork"), "spawn": empty}) == "vacuous"
    assert verdicts.verdict({"fork": leg("fork"), "spawn": empty, "forkserver": leg("forkserver", "failed")}) == (
        "fails under forkserver only"
    )


def test_tests_that_still_need_fork_are_counted_whether_or_not_they_are_marked():
    assert verdicts.needs_fork(legs(fork="passed", spawn="failed", forkserver="failed"))
    assert verdicts.needs_fork(legs(fork="passed", spawn="xfailed", forkserver="failed"))
    assert verdicts.needs_fork(legs(fork="passed", spawn="xfailed", forkserver="skipped"))
    assert not verdicts.needs_fork(legs(fork="passed", spawn="xfailed", forkserver="passed"))
    assert not verdicts.needs_fork(legs(fork="passed", spawn="skipped"))
    assert not verdicts.needs_fork(legs(fork="failed", spawn="failed"))
    assert not verdicts.needs_fork(legs(spawn="failed"))


def test_order_is_that_of_the_source():
    """The order is file, line, test, method, regardless of workers and timing."""
    first, second = leg("fork"), leg("spawn")
    later = leg("fork", test="tests/test_a.py::test_y", line=9)
    assert verdicts.in_order([later, second, first]) == [first, second, later]


@pytest.mark.parametrize(
    ("verdict", "one", "two"),
    [
        ("passes", "1 passes everywhere", "2 pass everywhere"),
        ("fails", "1 fails everywhere", "2 fail everywhere"),
        ("needs-fork", "1 needs fork", "2 need fork"),
        ("xfails", "1 fails as expected", "2 fail as expected"),
        ("fails under spawn only", "1 fails under spawn only", "2 fail under spawn only"),
        ("vacuous", "1 vacuous", "2 vacuous"),
    ],
)
def test_verdicts_are_grammatical(verdict, one, two):
    assert verdicts.in_words(verdict, 1, everywhere=True) == one
    assert verdicts.in_words(verdict, 2, everywhere=True) == two


def test_nothing_passes_everywhere_where_one_method_ran():
    assert verdicts.in_words("passes", 1) == "1 passes"
