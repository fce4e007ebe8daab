"""Comparing an object with its unpickled copy."""

from __future__ import annotations

import copy
import multiprocessing
import sys
from typing import Any

from pytest_startmethod.child import copied, values
from pytest_startmethod.child.differences import differences

UNSET = object()
LOOK = vars(values)


class Default:
    """A sentinel whose own class preserves its identity."""

    def __reduce__(self) -> str:
        return "DEFAULT"


DEFAULT = Default()


class Job:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "dropped"}


def lost(sent: Any, arrived: Any) -> list[tuple[str, str]]:
    accounts = [copied.account(each, LOOK, [__name__]) for each in (sent, arrived)]
    return [(kind, path) for kind, path, _, _ in copied.lost(*accounts, differences)]


def test_an_attribute_that_the_copy_lacks():
    """An attribute that __getstate__ drops is reported, with its path; a dictionary key is part of the path."""
    job = Job(dropped=1, kept={"inner": Job(dropped=2)})
    assert lost(job, copy.deepcopy(job)) == [("lacks", ".dropped"), ("lacks", ".kept['inner'].dropped")]


def test_a_sentinel_that_is_compared_by_identity():
    """object() arrives as another object; sentinels that reduce to a name, enum members and constants do not."""
    job = Job(value=UNSET, default=DEFAULT, none=None, text="UNSET")
    assert lost(job, job) == []
    assert lost(job, Job(value=object(), default=DEFAULT, none=None, text="UNSET")) == [("identity", ".value")]


def test_a_pipe_that_is_made_anew():
    """A connection or lock that refers to another kernel object is reported; one that refers to the same is not."""
    context = multiprocessing.get_context("spawn")
    one, other = context.Pipe()
    lock, second = context.Lock(), context.Lock()
    try:
        assert lost(Job(pipe=one, lock=lock), Job(pipe=one, lock=lock)) == []
        found = lost(Job(pipe=one, lock=lock), Job(pipe=other, lock=second))
        expected = [("new", ".pipe"), ("new", ".lock")]
        assert found == (expected if sys.platform != "win32" else expected[1:])
    finally:
        one.close()
        other.close()


def test_equal_copies_say_nothing():
    """Nothing is reported for a faithful copy of a graph with cycles and shared parts."""
    job = Job(parts=[1, {"a": (2, 3)}], text="x")
    job.__dict__["me"] = job
    assert lost(job, copy.deepcopy(job)) == []
