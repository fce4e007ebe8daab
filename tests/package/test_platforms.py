"""The plugin where no test of this suite may ever run: no name that only POSIX has is used unguarded."""

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
    import os, time
    VALUE = 1
    def value(queue, *args): queue.put(VALUE)
    def fail(): raise LookupError("here")
    def leave(): os._exit(3)
    def sleep(): time.sleep(600)
"""

NO_LIMIT = "pytest-startmethod: legs run without a time limit: "

CODES = {
    "test_lambda": "SM101",
    "test_lock": "SM103",
    "test_patched": "SM303",
    "test_exits": "SM404",
    "test_pool": "SM101",
}


@pytest.mark.parametrize(("platform", "methods"), [("win32", ["spawn"]), ("darwin", ["fork", "spawn", "forkserver"])])
def test_legs_are_run_and_explained(session, monkeypatch, platform, methods):
    """With the platform's start methods; the causes are found and no trouble of ours is printed."""
    monkeypatch.setenv("OTHER_PLATFORM", platform)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    session.plugins.insert(0, "other_platform")
    outcome = session.file(work=WORK, test_a=SUITE).run(
        "--start-methods-report=r.json", "--start-methods-report=r.html", "-p", "no:faulthandler"
    )
    troubles = [line for line in outcome.lines if "pytest-startmethod: " in line and NO_LIMIT not in line]
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


def test_a_limit_that_cannot_be_kept_is_no_error(session, monkeypatch):
    """Windows has no timers that interrupt: a leg with a limit runs as if it had none, and the summary says so."""
    monkeypatch.setenv("OTHER_PLATFORM", "win32")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    session.plugins.insert(0, "other_platform")
    outcome = session.file(work=WORK, test_a=SUITE).run("--start-methods-timeout=60", "-k", "test_passes")
    assert outcome.names == {"test_passes[spawn]": "passed"}, outcome.out
    assert sum(NO_LIMIT in line for line in outcome.lines) == 1, outcome.out
