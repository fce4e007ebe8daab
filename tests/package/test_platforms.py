"""The plugin on simulated other platforms: names that only POSIX has are never used unguarded."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.own_interpreter,
    pytest.mark.skipif(
        sys.platform == "win32" or len(multiprocessing.get_all_start_methods()) < 3,
        reason="another platform is put on top of one that has everything",
    ),
]

SUITE = """
    import multiprocessing, threading
    import pytest, work

    pytestmark = pytest.mark.startmethods

    def run(target, *args):
        queue = multiprocessing.SimpleQueue()
        process = multiprocessing.Process(target=target, args=(queue, *args))
        process.start()
        value = queue.get()
        process.join()
        assert process.exitcode == 0
        return value

    def test_passes(): assert run(work.value) == 1

    def test_lambda(): run(lambda queue: queue.put(1))

    def test_lock(): run(work.value, threading.Lock())

    def test_patched(monkeypatch):
        monkeypatch.setattr(work, "VALUE", 2)
        assert run(work.value) == 2

    def test_raises():
        process = multiprocessing.Process(target=work.fail)
        process.start()
        process.join()
        assert process.exitcode == 0

    def test_exits():
        process = multiprocessing.Process(target=work.leave)
        process.start()
        process.join()
        assert process.exitcode == 0

    def test_pool():
        with multiprocessing.Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
            pool.apply(lambda: 1)

    def test_daemon(request):
        process = multiprocessing.Process(target=work.sleep, daemon=True)
        process.start()
        request.config.kept = process
"""

WORK = """
    import os, threading, time
    VALUE = 1
    def value(queue, *args): queue.put(VALUE)
    def fail(): raise LookupError("here")
    def leave(): os._exit(3)
    def sleep(): time.sleep(600)
    def wait(): threading.Event().wait()
"""


CODES = {
    "test_lambda": "SM101",
    "test_lock": "SM103",
    "test_patched": "SM303",
    "test_exits": "SM404",
    "test_pool": "SM101",
}


@pytest.mark.parametrize(("platform", "methods"), [("win32", ["spawn"]), ("darwin", ["fork", "spawn", "forkserver"])])
def test_legs_are_run_and_explained(session, monkeypatch, platform, methods):
    """Legs run under the platform's start methods, causes are found, and no error of ours is printed."""
    monkeypatch.setenv("OTHER_PLATFORM", platform)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    session.plugins.insert(0, "other_platform")
    outcome = session.file(work=WORK, test_a=SUITE).run(
        "--start-methods-report=r.json", "--start-methods-report=r.html", "-p", "no:faulthandler"
    )
    troubles = [line for line in outcome.lines if "pytest-startmethod: " in line]
    assert not troubles, outcome.out
    assert "INTERNALERROR" not in outcome.out
    report = json.loads((session.path / "r.json").read_text())
    assert (report["platform"], report["default"], report["methods"]) == (platform, "spawn", methods)
    for test in report["tests"]:
        name = test["nodeid"].partition("::")[2]
        spawn = test["legs"]["spawn"]["outcome"]
        if name in ("test_passes", "test_daemon"):
            assert spawn == "passed", outcome.out
        else:
            assert spawn == "failed", outcome.out
        if name in CODES:
            assert CODES[name] in [each["code"] for each in test["findings"]], (name, outcome.out)
    assert (session.path / "r.html").stat().st_size > 0


HANGS = """
    import multiprocessing, time
    import pytest, work

    @pytest.mark.startmethods
    def test_waits():
        process = multiprocessing.Process(target=work.wait)
        process.start()
        process.join()

    @pytest.mark.startmethods
    def test_computes():
        while True: time.sleep(0.001)
"""


def test_a_limit_is_kept_without_signals(session, monkeypatch):
    """Windows has no timer signals: a thread ends the child for which a leg waits, and the leg fails."""
    monkeypatch.setenv("OTHER_PLATFORM", "win32")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    session.plugins.insert(0, "other_platform")
    outcome = session.file(work=WORK, test_a=HANGS).run("--start-methods-timeout=1", "--no-start-methods-verify")
    assert outcome.names == {"test_waits[spawn]": "failed", "test_computes[spawn]": "failed"}, outcome.out
    for name in ("waits", "computes"):
        leg = f"test_a.py::test_{name}[spawn]"
        assert f"Failed: the leg {leg} was not over after 1 s (--start-methods-timeout)" in outcome.out, outcome.out
    assert "pytest-startmethod: " not in outcome.out.partition("short test summary")[0], outcome.out


UNREACHABLE = """
    import threading
    import conftest, pytest

    @pytest.mark.startmethods
    def test_waits():
        lock = threading.Lock()
        lock.acquire()
        threading.Thread(target=lambda: (conftest.shown.wait(60), lock.release())).start()
        lock.acquire()
"""

SHOWN = """
    import threading
    from pytest_startmethod._compat import pytest as compat

    shown = threading.Event()
    write = compat.write_past_capture

    def write_past_capture(*args):
        write(*args)
        shown.set()

    compat.write_past_capture = write_past_capture
"""


def test_a_wait_that_no_thread_can_end_is_shown(session, monkeypatch):
    """If the main thread waits for a lock, the terminal says so meanwhile."""
    monkeypatch.setenv("OTHER_PLATFORM", "win32")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    session.plugins.insert(0, "other_platform")
    session.file(test_a=UNREACHABLE, conftest=SHOWN)
    outcome = session.run("--start-methods-timeout=1", "--no-start-methods-verify")
    text = "test_a.py::test_waits[spawn] was not over after 1 s, and waits where it cannot be interrupted:"
    at = outcome.lines.index(text)
    assert outcome.lines[at + 1].endswith("test_a.py:9 in test_waits"), outcome.out
    assert outcome.names == {"test_waits[spawn]": "failed"}, outcome.out
