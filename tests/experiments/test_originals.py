"""Experiments confirm what the copies of tasks, initializers and process objects lose."""

from __future__ import annotations

import json

APP = """
import multiprocessing

MISSING = object()


class Named:
    def __init__(self, name):
        self.name = name


UNSET = Named("UNSET")
CONFIG = Named("config")


class ByName:
    def __reduce__(self):
        return "BYNAME"


BYNAME = ByName()


class Half:
    def __init__(self):
        self.extra = 7

    def __reduce__(self):
        return Half.__new__, (Half,)


class Whole(Half):
    def __reduce__(self):
        return restored, (self.extra,)


def restored(extra):
    new = Whole.__new__(Whole)
    new.extra = extra
    return new


class Empties:
    def __init__(self):
        self.cache = [1]

    def __getstate__(self):
        self.cache.clear()
        return {}


def is_missing(value):
    return value is MISSING


def is_unset(value):
    return value is UNSET


def name(value):
    return value.name


def is_byname(value):
    return value is BYNAME


def extra(half):
    return getattr(half, "extra", None)


def two(number, value):
    return value is MISSING


def nothing(value):
    return 0


given = None


def initialize(value):
    global given
    given = value


def given_is_missing(_=None):
    return given is MISSING


def given_extra(_=None):
    return getattr(given, "extra", None)


class Worker(multiprocessing.Process):
    def __init__(self, value, queue):
        super().__init__()
        self.value = value
        self.queue = queue


class Asks(Worker):
    def run(self):
        self.queue.put(self.value is MISSING)


class AsksExtra(Worker):
    def run(self):
        self.queue.put(self.value.extra if hasattr(self.value, "extra") else None)


class Loses(Worker):
    def __init__(self, value, queue):
        super().__init__(None, queue)
        self.level = value

    def __getstate__(self):
        state = self.__dict__.copy()
        state.pop("level")
        return state

    def run(self):
        self.queue.put(getattr(self, "level", None))


class Keeps(Loses):
    def __getstate__(self):
        return self.__dict__.copy()
"""

HEAD = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import app
import pytest
from app import MISSING

pytestmark = pytest.mark.startmethods("fork", "spawn")

"""

STARTED = f"""{HEAD}
def started(cls, value):
    queue = multiprocessing.SimpleQueue()
    process = cls(value, queue)
    process.start()
    process.join()
    return queue.get()

"""

TASKS = f"""{HEAD}
def test_apply():
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(app.is_missing, (app.MISSING,))

def test_map():
    with multiprocessing.Pool(1) as pool:
        assert pool.map(app.extra, [app.Half(), app.Half()]) == [7, 7]

def test_starmap():
    with multiprocessing.Pool(1) as pool:
        assert pool.starmap(app.two, [(1, MISSING)]) == [True]

def test_imap():
    with multiprocessing.Pool(1) as pool:
        assert list(pool.imap(app.is_unset, [app.UNSET])) == [True]

def test_submit():
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(app.is_missing, app.MISSING).result()

def test_executor_map():
    with ProcessPoolExecutor(1) as pool:
        assert list(pool.map(app.extra, [app.Half()])) == [7]

def test_task_changes():
    half = app.Empties()
    with multiprocessing.Pool(1) as pool:
        pool.apply(app.nothing, (half,))
    assert half.cache == [1]
"""

STARTS = f"""{STARTED}
def test_initargs():
    with multiprocessing.Pool(1, app.initialize, (app.MISSING,)) as pool:
        assert pool.apply(app.given_is_missing)

def test_executor_initargs():
    with ProcessPoolExecutor(1, initializer=app.initialize, initargs=(app.Half(),)) as pool:
        assert pool.submit(app.given_extra).result() == 7

def test_process_attribute():
    assert started(app.Asks, app.MISSING)

def test_process_attribute_lacks():
    assert started(app.AsksExtra, app.Half()) == 7

def test_process_loses():
    level = started(app.Loses, 3)
    assert level == 3
"""

ALIKE = f"""{STARTED}
def test_named():
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(app.name, (app.CONFIG,)) == None

def test_byname():
    with multiprocessing.Pool(1) as pool:
        assert not pool.apply(app.is_byname, (app.BYNAME,))

def test_whole():
    with multiprocessing.Pool(1, app.initialize, (app.Whole(),)) as pool:
        assert pool.map(app.extra, [app.Whole()]) == [8]

def test_unmentioned():
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(app.nothing, (app.Half(),)) == 1

def test_keeps():
    level = started(app.Keeps, 3)
    assert level == 4
"""


def found(session, test):
    """Return code, level, path and experiment of each finding, by test."""
    session.file(app=APP, test_a=test)
    session.run("--start-methods-report=report.json", "--start-methods-verify=600")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    return {
        each["nodeid"].partition("::")[2]: [
            (f["code"], f["level"], f["path"], f["confirmed"]) for f in each["findings"]
        ]
        for each in tests
    }


def test_what_copies_of_tasks_lose_is_confirmed_though_fork_fails_too(session):
    """Tasks are pickled under every method; the test passes when the originals arrive."""
    copied = found(session, TASKS)
    assert copied == {
        "test_apply": [("SM204", "cause", "args[0]", True)],
        "test_map": [("SM204", "cause", "args[0].extra", True)],
        "test_starmap": [("SM204", "cause", "args[1]", True)],
        "test_imap": [("SM204", "cause", "args[0]", True)],
        "test_submit": [("SM204", "cause", "args[0]", True)],
        "test_executor_map": [("SM204", "cause", "args[0].extra", True)],
        "test_task_changes": [("SM108", "cause", "args[0].cache", True)],
    }


def test_what_copies_of_initargs_and_process_objects_lose_is_confirmed_under_fork(session):
    """The arguments of an initializer and the attributes of a process object are inherited under fork."""
    assert found(session, STARTS) == {
        "test_initargs": [("SM204", "cause", "initargs[0]", True)],
        "test_executor_initargs": [("SM204", "cause", "initargs[0].extra", True)],
        "test_process_attribute": [("SM204", "cause", "process.value", True)],
        "test_process_attribute_lacks": [("SM204", "cause", "process.value.extra", True)],
        "test_process_loses": [("SM204", "cause", "process.level", True)],
    }


def test_copies_that_differ_in_nothing_that_the_code_uses_are_silent(session):
    """A global that is never told by its identity, one that pickles by name, and state that is restored or unread."""
    assert found(session, ALIKE) == {
        "test_named": [],
        "test_byname": [],
        "test_whole": [],
        "test_unmentioned": [],
        "test_keeps": [],
    }
