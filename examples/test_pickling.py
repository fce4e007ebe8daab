"""One test for each way in which a process object does not pickle."""

import functools
import multiprocessing
import threading

import pytest

pytestmark = pytest.mark.startmethods


def run(target, *args):
    """Start a process, wait for it, and return whether it succeeded."""
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode == 0


def use(*args):
    """Stand for work in the child."""


def test_local_function():
    """SM101: the function is defined inside the test."""
    limit = 10

    def check(value):
        assert value < limit

    assert run(check, 3)


def test_local_class():
    """SM102: the class of an argument is defined inside the test."""

    class Job:
        number = 1

    assert run(use, Job())


class Cache:
    """Holds a lock, as most caches do."""

    def __init__(self):
        self.entries = {}
        self.lock = threading.Lock()

    def refresh(self):
        with self.lock:
            self.entries.clear()


def test_unpicklable_object():
    """SM103: the target is a method, so its object is pickled, too, with the lock in it."""
    assert run(Cache().refresh)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def work():
    """Stand for work in the child."""


undecorated_work = work
work = logged(work)


def test_shadowed_name():
    """SM104: the function's name leads to its decorated self."""
    assert run(undecorated_work)


class Session:
    """Cannot be pickled before it is opened."""

    def __getstate__(self):
        return {"token": self.token}


def test_pickling_raised():
    """SM105: the class's own pickling code raises."""
    assert run(use, Session())


def hold(lock):
    with lock:
        pass


def test_foreign_primitive():
    """SM106: the lock comes from a fork context, whatever the process's context is."""
    lock = multiprocessing.get_context("fork").Lock()
    assert run(hold, lock)


class Link:
    """One link of a chain."""

    def __init__(self, following):
        self.following = following


def test_too_deep():
    """SM107: pickling follows the chain by recursion."""
    chain = None
    for _ in range(100_000):
        chain = Link(chain)
    assert run(use, chain)
    while chain is not None:  # taken apart by hand: the interpreter would do that by recursion, too
        chain.following, chain = None, chain.following
