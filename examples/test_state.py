"""One example for each code of the SM3xx family: nothing raises in the child, which only sees other values."""

import decimal
import logging
import multiprocessing
import os
import sys
from unittest import mock

import pytest

pytestmark = pytest.mark.startmethods

LIMIT = 10
FOUND = []


class Shape:
    corners = 0


def price():
    return 100


LOCK = multiprocessing.Lock()
ANSWERS = multiprocessing.Queue()


def ask(function):
    """Return what `function` returns in a child."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.Process(target=send, args=(child, function))
    process.start()
    process.join()
    return parent.recv()


def send(connection, function):
    connection.send(function())


def limit():
    return LIMIT


def test_global_state():
    """SM301: the test rebinds a global."""
    global LIMIT
    LIMIT = 99
    assert ask(limit) == 99


def corners():
    return Shape.corners


def test_class_state():
    """SM302: the test sets a class attribute."""
    Shape.corners = 4
    assert ask(corners) == 4


def total():
    return price() * 2


def test_patch_lost(monkeypatch):
    """SM303: a function is patched."""
    monkeypatch.setattr(sys.modules[__name__], "price", lambda: 1)
    assert ask(total) == 2


def test_mock_lost():
    """SM303: the same with a mock."""
    with mock.patch.object(sys.modules[__name__], "price", return_value=1):
        assert ask(total) == 2


def home():
    return os.environ.get("EXAMPLE_HOME")


def test_stale_environment(monkeypatch):
    """SM304: the first process starts the forkserver, which keeps its environment."""
    ask(home)
    monkeypatch.setenv("EXAMPLE_HOME", "/home/example")
    assert ask(home) == "/home/example"


def level():
    return logging.getLogger("example").getEffectiveLevel()


def test_logging_lost():
    """SM305: a level is set in the parent."""
    logging.getLogger("example").setLevel(logging.ERROR)
    assert ask(level) == logging.ERROR


def third():
    return str(decimal.Decimal(1) / 3)


def test_process_state_lost():
    """SM306: a thread's decimal context."""
    with decimal.localcontext() as context:
        context.prec = 3
        assert ask(third) == "0.333"


def answer():
    ANSWERS.put("an answer")


def test_unshared_primitive():
    """SM307: each child puts its answer into a queue of its own."""
    process = multiprocessing.Process(target=answer)
    process.start()
    process.join()
    assert ANSWERS.get(timeout=0.5) == "an answer"


def locked():
    with LOCK:
        return "locked"


def test_unshared_lock():
    """SM307: nothing fails, and the lock locks nobody out."""
    assert ask(locked) == "locked"


def find(thing):
    FOUND.append(thing)


def test_write_lost():
    """SM308: the child changes its own copy of a list."""
    process = multiprocessing.Process(target=find, args=("a thing",))
    process.start()
    process.join()
    assert FOUND == ["a thing"]
