"""A test's time-out is read from the call that failed, or from the lines before it."""

from __future__ import annotations

import multiprocessing
import queue
import time
import traceback

import pytest

from pytest_startmethod.source import waits
from pytest_startmethod.source.index import source_of
from pytest_startmethod.source.waits import patience

LIMIT = 0.02


def by_queue():
    multiprocessing.Queue().get(timeout=0.02)


def by_name():
    queue.Queue().get(True, LIMIT)


def by_poll():
    here, _there = multiprocessing.Pipe()
    assert here.poll(0.02)


def by_event():
    event = multiprocessing.Event()
    if not event.wait(timeout=0.02):
        raise RuntimeError


def by_deadline():
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        pass
    raise AssertionError


def by_measuring():
    start = time.monotonic()
    time.sleep(0.03)
    assert time.monotonic() - start <= 0.02


def by_a_measured_variable():
    start = time.perf_counter()
    time.sleep(0.03)
    elapsed = time.perf_counter() - start
    assert elapsed < LIMIT


def without():
    values = {"a": 1}
    assert values.get("a", 5) == 2


def after():
    assert not LIMIT
    time.sleep(0.02)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (by_queue, 1),
        (by_name, 1),
        (by_poll, 2),
        (by_event, 2),
        (by_deadline, 1),
        (by_measuring, 3),
        (by_a_measured_variable, 4),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_seconds_and_line(function, line):
    """The time-out may be a literal, a name, a positional argument or a deadline."""
    with pytest.raises(BaseException) as info:  # noqa: PT011
        function()
    found = patience(info.tb)
    assert found.seconds == LIMIT
    assert found.place.line == function.__code__.co_firstlineno + line
    assert found.raised == (info.typename == "Empty")


@pytest.mark.parametrize("function", [without, after])
def test_no_wait(function):
    """``dict.get`` with a default is not a wait, nor is anything after the failing line."""
    with pytest.raises(AssertionError) as info:
        function()
    assert patience(info.tb) is None


def test_a_recursion_is_read_once(monkeypatch):
    """A deep recursion that fails costs one look at its function, not one for each of its frames."""
    read = []
    monkeypatch.setattr(waits, "source_of", lambda file: read.append(file) or source_of(file))
    with pytest.raises(RecursionError) as info:
        endless()
    assert len(list(traceback.walk_tb(info.tb))) > 100
    assert patience(info.tb) is None
    assert len(read) <= 6  # twice for each line: here, and in `endless`


def endless():
    """Call itself."""
    endless()
