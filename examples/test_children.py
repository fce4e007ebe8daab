"""One test for each way in which a child that has started goes wrong."""

import importlib.util
import multiprocessing
import os
import sys
import threading

import pytest

pytestmark = pytest.mark.startmethods


def run(target, *args):
    """Start a process, wait for it, and return its exit code."""
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def use(*args):
    """Stand for work in the child."""


def test_module_not_importable(tmp_path):
    """SM201: the target's module was loaded from a file that no import would find."""
    file = tmp_path / "loaded_by_path.py"
    file.write_text("def work():\n    pass\n")
    spec = importlib.util.spec_from_file_location("loaded_by_path", file)
    module = sys.modules["loaded_by_path"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert run(module.work) == 0


class Counter:
    """Counts, in a method whose name is mangled."""

    def __count(self):
        pass

    def start(self):
        return run(self.__count)


def test_name_missing_in_child():
    """SM202: pickle looks up a private method by a name that the class does not have."""
    assert Counter().start() == 0


class Connection:
    """Refuses to be restored without a token."""

    def __init__(self):
        self.address = "localhost"

    def __setstate__(self, state):
        self.token = state["token"]


def test_unpickling_raised():
    """SM203: the object pickles and does not load."""
    assert run(use, Connection()) == 0


READY = False


def check():
    if not READY:
        raise RuntimeError("not ready")


def test_pool_crash_loop(monkeypatch):
    """SM402: every worker of the pool dies in its initializer, and the pool keeps replacing them."""
    monkeypatch.setitem(globals(), "READY", True)
    with multiprocessing.Pool(2, initializer=check) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]


ANSWERS = None


def answer():
    if ANSWERS is not None:
        ANSWERS.put("here")


@pytest.mark.startmethods(timeout=2)
def test_hang(monkeypatch):
    """SM403: a fresh child lacks the queue that the test put into a global, and the test waits for an answer."""
    monkeypatch.setitem(globals(), "ANSWERS", multiprocessing.Queue())
    process = multiprocessing.Process(target=answer)
    process.start()
    assert ANSWERS.get() == "here"
    process.join()


CONFIGURED = False


def leave():
    if not CONFIGURED:
        os._exit(7)


def test_child_crashed(monkeypatch):
    """SM404: the child ends without an exception."""
    monkeypatch.setitem(globals(), "CONFIGURED", True)
    assert run(leave) == 0


LOCK = threading.Lock()


def take():
    with LOCK:
        pass


@pytest.mark.startmethods(timeout=4)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_with_threads():
    """SM405: fork alone hangs, since it copies a lock that another thread holds."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with LOCK:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold, name="holder")
    thread.start()
    try:
        held.wait()
        assert run(take) == 0
    finally:
        done.set()
        thread.join()


def make_lock():
    return threading.Lock()


def test_unpicklable_result():
    """SM407: the task's result cannot be sent back, whatever the method."""
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(make_lock) is not None


def test_start_failed_elsewhere():
    """SM408: the start fails in a thread, and the test only sees that no answer came."""
    answers = multiprocessing.SimpleQueue()

    def serve():
        try:
            process = multiprocessing.Process(target=lambda: answers.put("here"))
            process.start()
            process.join()
        except Exception as error:
            print("the server did not start:", error)

    thread = threading.Thread(target=serve, name="server")
    thread.start()
    thread.join()
    assert not answers.empty()
