"""Selection is pure: words in, start methods out."""

from __future__ import annotations

import multiprocessing
import sys

import pytest

from pytest_startmethod.model import methods as selection


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch):
    """Set the platform's start methods, its default first."""

    def set_methods(*methods: str) -> None:
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: list(methods))

    return set_methods


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("all", "all"),
        ("default", "default"),
        ("spawn", "spawn"),
        ("forkserver,spawn,fork", "fork,spawn,forkserver"),
        (" spawn , fork ", "fork,spawn"),
        ("spawn,spawn", "spawn"),
    ],
)
def test_a_selection_is_one_word_or_names_in_order(text: str, parsed: str):
    """Names are deduplicated and put into a fixed order; blanks around them are ignored."""
    assert selection.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("thread", "'thread' is not a start method"),
        ("spawn,thread", "'thread' is not a start method"),
        ("Spawn", "'Spawn' is not a start method"),
        ("", "'' is not a start method"),
        ("spawn,", "'' is not a start method"),
        ("all,spawn", "'all' stands alone"),
        ("spawn,default", "'default' stands alone"),
    ],
)
def test_a_wrong_word_is_named_with_the_valid_ones(text: str, problem: str):
    """The message has the invalid word and the valid ones."""
    with pytest.raises(ValueError, match="valid") as raised:
        selection.parse(text)
    assert str(raised.value) == f"{problem} (valid: all, default, or a list of fork, spawn, forkserver)"


def test_the_order_is_ours_whatever_the_interpreters_is(platform):
    """The order is fixed, although Python 3.14 lists forkserver first, and macOS spawn."""
    platform("forkserver", "spawn", "fork")
    assert selection.available() == ("fork", "spawn", "forkserver")
    assert selection.default() == "forkserver"
    platform("spawn")
    assert selection.available() == ("spawn",)


def test_default_is_the_documented_one_of_this_platform():
    """The first of `get_all_start_methods` is the default, on every version and platform."""
    if sys.platform in ("win32", "darwin"):
        documented = "spawn"
    else:
        documented = "forkserver" if sys.version_info >= (3, 14) else "fork"
    assert selection.default() == documented


@pytest.mark.parametrize(
    ("named", "selected", "chosen"),
    [
        ((), "all", ("fork", "spawn")),
        ((), "default", ("spawn",)),
        ((), "fork", ("fork",)),
        # Given by name, so that the leg can report it as unavailable.
        ((), "spawn,forkserver", ("spawn", "forkserver")),
        (("forkserver", "fork"), "all", ("fork", "forkserver")),
        (("spawn", "fork"), "spawn", ("spawn",)),
        (("forkserver",), "default", ()),
        (("spawn",), "fork", ()),
    ],
)
def test_a_test_runs_the_selected_methods_that_its_marker_names(platform, named, selected, chosen):
    """The marker keeps a method that the platform lacks, even with ``all``; a selection by name removes it."""
    platform("spawn", "fork")
    assert selection.choose(named, selected) == chosen


def test_the_reasons_name_both_sides(platform):
    """Every skip reason names what was requested and what is available."""
    platform("spawn", "fork")
    assert selection.unavailable_reason("forkserver", selection.available()) == (
        "start method forkserver is not available on this platform (available: fork, spawn)"
    )
    assert selection.nothing_left_reason(["spawn"], "fork", "--start-methods") == (
        "no start method left: the marker names spawn, and --start-methods selects fork"
    )
    assert selection.unselected_reason("fork", "default", "the ini key start_methods") == (
        "start method fork is not selected: the ini key start_methods selects spawn"
    )
