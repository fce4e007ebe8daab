"""Rerunning a leg without a cause confirms or clears the finding, and nobody notices the extra runs."""

from __future__ import annotations

import json
import os
import re

import pytest

from pytest_startmethod.activation import clock
from pytest_startmethod.causes import explain

# -- sessions --------------------------------------------------------------------------------------------------------

# Findings for each test by name, as another rule would have made them.
CONFTEST = """
    import importlib
    import pathlib
    import pytest
    from pytest_startmethod.causes import explain as diagnosis
    from pytest_startmethod.model.finding import Finding

    original = diagnosis.explain
    runs = {}

    def explain(evidence):
        found = [each for each in original(evidence) if not each.code.startswith("SM30")]
        name = evidence.leg.partition("::")[2].partition("[")[0].replace("::", "_")
        if evidence.outcome == "failed" and evidence.method != "fork":
            for code, path, level in importlib.import_module("candidates").FOUND.get(name, ()):
                found.append(Finding(code, "made-up", level, path, f"{name}.py", 1, f"{path} differs."))
        return tuple(found)

    diagnosis.explain = explain

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(item):
        runs[item.name] = runs.get(item.name, 0) + 1

    def pytest_sessionfinish():
        pathlib.Path("runs.txt").write_text(repr(runs))
"""

STATE = """
    import contextvars, logging, multiprocessing, random, signal, threading, warnings, decimal

    DEBUG = False
    OTHER = False
    NEITHER = False
    VAR = contextvars.ContextVar("VAR", default="unset")
    LOCAL = threading.local()
    LOCK = multiprocessing.Lock()


    class Service:
        registry = {}


    def now():
        return "real"
"""

WORK = """
    import os
    import state


    def value(queue, name):
        queue.put(read(name))


    def read(name):
        if name == "global":
            return state.DEBUG
        if name == "both":
            return state.DEBUG and state.OTHER
        if name == "class":
            return sorted(state.Service.registry)
        if name == "now":
            return state.now()
        if name == "environ":
            return os.environ.get("SM_TEST")
        if name == "logging":
            import logging

            return logging.getLogger("app").isEnabledFor(logging.DEBUG)
        if name == "decimal":
            import decimal

            return str(decimal.Decimal(1) / 3)
        if name == "signal":
            import signal

            return getattr(signal.getsignal(signal.SIGUSR1), "__name__", None)
        if name == "contextvar":
            return state.VAR.get()
        if name == "local":
            return getattr(state.LOCAL, "user", None)
        if name == "lock":
            return state.LOCK.acquire(block=False)
        raise KeyError(name)
"""

TESTS = """
    import decimal, logging, multiprocessing, os, random, signal
    from unittest import mock

    import pytest
    import state, work

    pytestmark = pytest.mark.startmethods


    def ask(name):
        queue = multiprocessing.SimpleQueue()
        process = multiprocessing.Process(target=work.value, args=(queue, name))
        process.start()
        process.join()
        return queue.get()


    def test_global(monkeypatch):
        state.DEBUG = True
        assert ask("global") is True


    def test_class():
        state.Service.registry["a"] = lambda: 1
        assert ask("class") == ["a"]


    def test_monkeypatch(monkeypatch):
        monkeypatch.setattr("state.now", lambda: "fake")
        assert ask("now") == "fake"


    @mock.patch("state.now", return_value="mocked")
    def test_mock(now):
        assert ask("now") == "mocked"


    def test_logging():
        logging.getLogger("app").setLevel("DEBUG")
        assert ask("logging") is True


    def test_decimal():
        with decimal.localcontext() as context:
            context.prec = 3
            assert ask("decimal") == "0.333"


    def handler(number, frame):
        pass


    def test_signal():
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            assert ask("signal") == "handler"
        finally:
            signal.signal(signal.SIGUSR1, before)


    def test_contextvar():
        state.VAR.set("set")
        assert ask("contextvar") == "set"


    def test_local():
        state.LOCAL.user = "ann"
        assert ask("local") == "ann"


    def test_lock():
        with state.LOCK:
            assert ask("lock") is False


    @pytest.mark.startmethods("fork", "forkserver")
    def test_environ(monkeypatch):
        ask("global")
        monkeypatch.setenv("SM_TEST", "here")
        assert ask("environ") == "here"
"""

CANDIDATES = {
    "test_global": [("SM301", "state.NEITHER", "cause"), ("SM301", "state.DEBUG", "cause")],
    "test_class": [("SM302", "state.Service.registry", "cause")],
    "test_monkeypatch": [("SM303", "state.now", "cause")],
    "test_mock": [("SM303", "state.now", "cause")],
    "test_environ": [("SM304", "os.environ['SM_TEST']", "cause")],
    "test_logging": [("SM305", "logging.getLogger('app')", "cause")],
    "test_decimal": [("SM306", "decimal", "cause")],
    "test_signal": [("SM306", "signal.SIGUSR1", "cause")],
    "test_contextvar": [("SM306", "state.VAR", "cause")],
    "test_local": [("SM306", "state.LOCAL", "cause")],
    "test_lock": [("SM307", "state.LOCK", "note")],
}


def made(session, tests, found, **more):
    return session.file(
        conftest=CONFTEST, state=STATE, work=WORK, candidates=f"FOUND = {found!r}", test_a=tests, **more
    )


def sections(outcome):
    """Return leg, code and the experiment's verdict for each finding below each failing leg."""
    found, leg, code, said = [], "", "", ""
    for line in [*outcome.lines, ""]:
        if said and line.startswith("    "):
            said += " " + line.strip()
            continue
        if said:
            found.append((leg, code, said))
            said = ""
        if match := re.fullmatch(r"_+ (\S+\[\w+\]) _+", line):
            leg = match[1]
        elif match := re.fullmatch(r"-+ ([A-Z]+\d+) .* -+", line):
            code = match[1]
        elif line.startswith(("  confirmed", "  cleared: ")) and leg:
            said = line.strip()
        elif line.startswith("==="):
            leg = ""
    return found


def runs(session):
    return eval((session.path / "runs.txt").read_text())


@pytest.mark.slow
def test_each_kind_of_state_is_confirmed(session):
    """The test passes under fork, fails under spawn or forkserver, and its finding is confirmed."""
    outcome = made(session, TESTS, CANDIDATES).run(
        "--start-methods=fork,spawn,forkserver", "--tb=short", "-vv", "--start-methods-verify=600"
    )
    assert {name: result for name, result in outcome.names.items() if "[fork]" in name and result != "passed"} == {}
    confirmed = [each for each in sections(outcome) if each[2].startswith("confirmed")]
    expected = []
    for name, found in CANDIDATES.items():
        code, path, _ = found[-1]
        for method in ["forkserver"] if name == "test_environ" else ["spawn", "forkserver"]:
            said = f"confirmed: the test passes under {method} when {path} reaches the child"
            expected.append((f"{name}[{method}]", code, said))
    assert sorted(confirmed) == sorted(expected)


def test_an_innocent_candidate_is_cleared_and_ranked_last(session):
    """The summary does not mention it, because the leg is explained."""
    found = {"test_global": CANDIDATES["test_global"]}
    outcome = made(session, TESTS, found).run("--start-methods=spawn", "-k", "test_global", "--tb=short", "-vv")
    assert [said for _, _, said in sections(outcome)] == [
        "confirmed: the test passes under spawn when state.DEBUG reaches the child",
        "cleared: the test fails the same way under spawn when state.NEITHER reaches the child",
    ]
    assert "state.NEITHER" not in outcome.out.partition("= start methods =")[2]
    # the original, the repeat, both candidates, the first alone, the second alone, and the control
    assert runs(session) == {"test_global[spawn]": 6}


def test_two_causes_that_are_needed_together(session):
    tests = """
        import pytest, state
        from test_b import ask

        @pytest.mark.startmethods("fork", "spawn")
        def test_both():
            state.DEBUG = state.OTHER = True
            assert ask("both") is True
    """
    found = {"test_both": [("SM301", "state.DEBUG", "cause"), ("SM301", "state.OTHER", "cause")]}
    outcome = made(session, tests, found, test_b=TESTS).run("test_a.py", "--tb=short", "-vv")
    assert outcome.names == {"test_both[fork]": "passed", "test_both[spawn]": "failed"}
    assert [said for _, _, said in sections(outcome)] == [
        "confirmed together: the test passes under spawn when state.DEBUG and state.OTHER reach the child",
    ]
    assert "SM301 made-up, 1 test needs fork (confirmed together)" in outcome.lines


PATCHES = """
    import json, multiprocessing, pathlib, time
    import pytest
    from encode import encode

    def run():
        process = multiprocessing.Process(target=encode, args=(pathlib.PurePosixPath("a"),))
        process.start()
        process.join()
        assert process.exitcode == 0

    @pytest.mark.startmethods("fork", "spawn")
    @pytest.mark.parametrize("number", range(5))
    def test_read_by_the_library(monkeypatch, number):
        monkeypatch.setattr(json.JSONEncoder, "default", lambda self, value: str(value))
        monkeypatch.setattr(time, "monotonic", time.monotonic)
        run()

    @pytest.mark.startmethods("spawn")
    def test_innocent(monkeypatch):
        for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
            monkeypatch.setattr(time, name, getattr(time, name))
        run()
"""


def test_a_patch_that_no_code_was_seen_to_read_is_told_only_if_it_is_confirmed(session):
    """Only a library reads it. Legs that fail alike are not rerun, and get the same verdict."""
    session.file(test_a=PATCHES, encode="import json\n\ndef encode(value):\n    return json.dumps(value)\n")
    outcome = session.run("--tb=short", "-v")
    path = "json.encoder.JSONEncoder.default"
    said = f"confirmed: the test passes under spawn when {path} reaches the child"
    below, _, summary = outcome.out.partition("= start methods =")
    assert said in " ".join(below.split())
    assert below.count("- SM303 patch-lost (confirmed under spawn) -") == 5
    assert "SM303 patch-lost, 5 tests need fork (confirmed)" in summary
    assert f"  test_a.py:14: {path}" in summary
    assert summary.count("SM303 patch-lost, ") == 1
    assert "time." not in summary


# Apart from the test module: a child that imports this one imports pytest.
SCALING = """
    FACTOR = 2
    OFFSET = 0

    def scale(number):
        return number * FACTOR + OFFSET

    def call(sender, job):
        sender.send(job())

    def factor():
        return FACTOR

    def set_factor(value):
        global FACTOR
        FACTOR = value
"""

CLOSURES = """
    import multiprocessing
    import pytest
    import scaling

    @pytest.mark.startmethods("fork", "spawn")
    def test_function():
        scaling.OFFSET = 5
        word = "ab"

        def local(sender):
            sender.send((word, scaling.scale(3)))

        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=local, args=(sender,))
        process.start()
        process.join()
        assert receiver.recv() == ("ab", 11)

    @pytest.mark.startmethods("fork", "spawn")
    def test_class():
        class Job:
            def __init__(self, number):
                self.number = number

            def __call__(self):
                return self.number

        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=scaling.call, args=(sender, Job(4)))
        process.start()
        process.join()
        assert receiver.recv() == 4

    @pytest.mark.startmethods("fork", "spawn")
    def test_lambda():
        offset = 3
        with multiprocessing.Pool(1, initializer=lambda: scaling.set_factor(offset + 7)) as pool:
            assert pool.apply(scaling.factor) == 10

    @pytest.mark.startmethods("fork", "spawn")
    def test_file(tmp_path):
        with open(tmp_path / "file", "w") as file:
            process = multiprocessing.Process(target=lambda: file.fileno())
            process.start()
            process.join()
            assert process.exitcode == 0
"""


def closures(session):
    return session.file(scaling=SCALING, test_a=CLOSURES)


def test_what_a_stand_in_can_replace_is_confirmed_and_what_the_child_needs_itself_is_not(session):
    """Files and databases are the parent's own, private methods are found, and what is not used may be missing."""
    session.file(
        app="""
        import multiprocessing
        import sqlite3


        class Counter:
            def start(self):
                return run(self.__count)

            def __count(self):
                pass


        def run(target, *args):
            process = multiprocessing.Process(target=target, args=args)
            process.start()
            process.join()
            return process.exitcode


        def write(file):
            file.write("child")
            file.close()


        def read(file):
            assert file.read() == "ent"


        def insert(connection):
            assert connection.execute("select count(*) from item").fetchone() == (1,)


        def nothing(value):
            pass
        """,
        test_a="""
        import sqlite3

        import pytest
        from app import Counter, insert, nothing, read, run, write

        pytestmark = pytest.mark.startmethods("spawn")

        def test_private():
            assert Counter().start() == 0

        def test_written(tmp_path):
            with open(tmp_path / "file", "x") as file:
                assert run(write, file) == 0
            assert (tmp_path / "file").read_text() == "child"

        def test_read(tmp_path):
            (tmp_path / "file").write_text("parent")
            with open(tmp_path / "file") as file:
                file.seek(3)
                assert run(read, file) == 0

        @pytest.mark.parametrize("kind", ["file", "memory"])
        def test_database(kind, tmp_path):
            with sqlite3.connect(":memory:" if kind == "memory" else tmp_path / "db") as connection:
                connection.execute("create table item (id)")
                connection.execute("insert into item values (1)")
            assert run(insert, connection) == 0
            connection.close()

        def test_unused():
            assert run(nothing, (each for each in ())) == 0

        def test_used():
            assert run(list, (each for each in "ab")) == 0

        def test_fixture(request):
            assert run(nothing, request) == 0
        """,
    )
    session.run("--start-methods-report=report.json", "--start-methods-verify=600")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    found = {
        each["nodeid"].partition("::test_")[2]: [(f["code"], f["confirmed"]) for f in each["findings"]]
        for each in tests
    }
    assert found == {
        "private": [("SM202", True)],
        "written": [("SM103", True)],
        "read": [("SM103", True)],
        "database[file]": [("SM103", True)],
        "database[memory]": [("SM103", True)],
        "unused": [("SM103", True)],
        "used": [("SM103", None)],
        "fixture": [("SM103", True)],
    }


def test_what_a_child_cannot_start_is_neither_confirmed_nor_cleared(session):
    """No experiment reaches a grandchild, so failing again clears nothing."""
    session.file(
        nesting="""
        import multiprocessing

        def nested():
            process = multiprocessing.Process(target=lambda: None)
            process.start()
            process.join()
        """,
        test_a="""
        import multiprocessing
        import pytest
        from nesting import nested

        @pytest.mark.startmethods("spawn")
        def test_nested():
            process = multiprocessing.Process(target=nested)
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
    )
    outcome = session.run()
    assert "SM101 local-function, 1 test fails" in outcome.lines
    assert outcome.lines.count("  nesting.py:5") == 2  # below the failure and in the summary
    assert "cleared: " not in outcome.out
    assert "confirmed: " not in outcome.out


def test_closures_are_confirmed_by_value(session):
    """A function is sent with its cells, even with a file in one, and with the globals that it reads."""
    outcome = closures(session).run("--tb=short", "-vv")
    assert {name for name, result in outcome.names.items() if result == "passed"} == {
        "test_function[fork]",
        "test_class[fork]",
        "test_lambda[fork]",
        "test_file[fork]",
    }
    assert sections(outcome) == [
        (
            "test_function[spawn]",
            "SM101",
            "confirmed together: the test passes under spawn when target and scaling.OFFSET reach the child",
        ),
        (
            "test_class[spawn]",
            "SM102",
            "confirmed: the test passes under spawn when args[1].__class__ reaches the child",
        ),
        ("test_lambda[spawn]", "SM101", "confirmed: the test passes under spawn when initializer reaches the child"),
        ("test_file[spawn]", "SM101", "confirmed: the test passes under spawn when target reaches the child"),
    ]


FIXTURES = """
    import multiprocessing
    import pytest

    built = []

    @pytest.fixture(scope="session")
    def wide():
        built.append("wide")
        yield len(built)
        built.append("gone")

    @pytest.fixture
    def narrow():
        built.append("narrow")

    @pytest.mark.startmethods("spawn")
    def test_local(wide, narrow, record_property, request):
        record_property("runs", len(built))
        process = multiprocessing.Process(target=lambda: None)
        process.start()
        process.join()

    def test_after(wide):
        assert built == ["wide", "narrow"]
"""


def test_nobody_notices_the_extra_runs(session):
    """No fixture is torn down or set up for them before the last test; terminal, durations and junit show one run."""
    outcome = session.file(test_a=FIXTURES).run(
        "-v", "--durations=0", "-vv", "--junitxml=out.xml", "-o", "junit_family=xunit1"
    )
    assert outcome.names == {"test_local[spawn]": "failed", "test_after": "passed"}
    assert len([line for line in outcome.lines if line.startswith("test_a.py::test_local[spawn]")]) == 1
    assert len([line for line in outcome.lines if re.match(r"\d.*s call +test_a.py::test_local", line)]) == 1
    junit = (session.path / "out.xml").read_text()
    assert 'tests="2"' in junit
    assert junit.count('name="runs" value="2"') == junit.count('name="runs"') == 1
    assert junit.count('name="start_method_finding"') == 1
    assert "confirmed: the test passes under spawn when target reaches the child" in junit


def test_the_same_below_xdist(session):
    outcome = closures(session).run("--tb=short", "-vv", where="xdist")
    assert len(sections(outcome)) == 4
    assert list(outcome.names.values()).count("failed") == 4


def test_last_failed_remembers_the_first_run(session):
    session.file(test_a=FIXTURES)
    assert session.run("--lf").names == {"test_local[spawn]": "failed", "test_after": "passed"}
    assert session.run("--lf").names == {"test_local[spawn]": "failed"}


def test_the_session_stops_at_the_first_failure_and_tells_what_was_confirmed(session):
    outcome = closures(session).run("--tb=short", "-vv", "-x", "--start-methods=spawn")
    assert outcome.names == {"test_function[spawn]": "failed"}
    assert [each[0] for each in sections(outcome)] == ["test_function[spawn]"]
    assert any("stopping after 1 failures" in line for line in outcome.lines)


TEARDOWN = """
    import multiprocessing
    import pytest

    @pytest.fixture(scope="module")
    def wide():
        yield
        raise RuntimeError("wide teardown")

    @pytest.mark.startmethods("spawn")
    def test_local(wide):
        process = multiprocessing.Process(target=lambda: None)
        process.start()

    def test_after(wide):
        pass
"""


def test_with_x_the_failing_test_tears_everything_down_itself(session):
    """As in pytest, a wider fixture's error belongs to that test."""
    outcome = session.file(test_a=TEARDOWN).run("--tb=short", "-x")
    assert "E   RuntimeError: wide teardown" in outcome.lines
    assert "ERROR at teardown of test_local[spawn]" in outcome.out


LOCAL = """
    import multiprocessing
    import pytest

    @pytest.mark.startmethods("spawn")
    def test_local():
        multiprocessing.Process(target=lambda: None).start()
"""


@pytest.mark.parametrize(
    ("ini", "args", "expected"),
    [
        ({}, [], 2),
        ({}, ["--no-start-methods-verify"], 1),
        ({}, ["--start-methods-verify"], 2),
        ({"start_methods_verify": "off"}, [], 1),
        ({"start_methods_verify": "no"}, ["--start-methods-verify"], 2),
        ({"start_methods_verify": "true"}, ["--no-start-methods-verify"], 1),
        ({}, ["--no-start-methods-verify", "--start-methods-verify"], 2),
        ({}, ["--start-methods-verify", "test_a.py"], 2),
        ({}, ["--start-methods-verify=3000"], 2),
        ({}, ["--start-methods-verify=0"], 1),
        ({"start_methods_verify": "0"}, [], 1),
    ],
)
def test_the_option_beats_the_ini_key_beats_the_default(session, ini, args, expected):
    made(session, LOCAL, {}).ini(**ini).run(*args)
    assert runs(session) == {"test_local[spawn]": expected}


def test_an_ini_value_that_is_neither_a_boolean_nor_a_number(session):
    outcome = session.file(test_a=LOCAL).ini(start_methods_verify="maybe").run()
    said = "ERROR: ini key start_methods_verify: 'maybe' is not valid (valid: true, false, or a number of seconds)"
    assert said in outcome.lines
    assert outcome.status == 4


BROKEN = """
    import multiprocessing
    import pytest

    @pytest.mark.startmethods
    def test_broken():
        process = multiprocessing.Process(target=print)
        process.start()
        process.join()
        assert False
"""


def test_a_test_that_fails_under_fork_too_is_not_run_again(session):
    made(session, BROKEN, {"test_broken": CANDIDATES["test_global"]}).run()
    assert runs(session) == {f"test_broken[{method}]": 1 for method in ("fork", "spawn", "forkserver")}


FLAKY = """
    import multiprocessing, pathlib
    import pytest

    @pytest.mark.startmethods("spawn", "forkserver")
    @pytest.mark.parametrize("starts", [True, False])
    def test_flaky(starts, start_method):
        if starts:
            process = multiprocessing.Process(target=print)
            process.start()
            process.join()
        marker = pathlib.Path(f"{start_method}{starts}")
        first = not marker.exists()
        marker.touch()
        assert not first
"""


def test_a_flaky_leg_is_called_flaky_and_not_diagnosed(session, monkeypatch):
    monkeypatch.setattr(explain, "explain", explain.explain)  # the session's conftest replaces it permanently
    found = {"test_flaky": CANDIDATES["test_global"]}
    outcome = made(session, FLAKY, found).run("--tb=short")
    assert set(outcome.names.values()) == {"failed"}
    assert outcome.out.count("- start method spawn: flaky -") == 2
    assert outcome.lines.count("  failed once and passed when it was run again; not diagnosed") == 2
    assert "differs." not in outcome.out
    assert "2 tests: 2 flaky" in outcome.lines
    start = outcome.lines.index("flaky: 4 legs failed and passed when run again, so no cause is named")
    assert outcome.lines[start + 1 : start + 3] == [
        "  test_a.py::test_flaky[False] (spawn, forkserver)",
        "  test_a.py::test_flaky[True] (spawn, forkserver)",
    ]


MANY = """
    import multiprocessing
    import pytest
    import state
    from test_b import ask

    @pytest.mark.startmethods("spawn")
    @pytest.mark.parametrize("number", range(6))
    def test_many(number):
        state.DEBUG = True
        assert ask("global") is True

    @pytest.mark.startmethods("spawn")
    def test_other():
        state.DEBUG = True
        ask("global")
        assert not "a reason of its own"
"""


def test_a_cause_that_many_legs_share_is_tried_once(session):
    """A leg with the cause that fails in another place is not one of them."""
    found = {name: [("SM301", "state.DEBUG", "cause")] for name in ("test_many", "test_other")}
    outcome = made(session, MANY, found, test_b=TESTS).run("test_a.py", "--tb=short")
    assert sorted(runs(session).values()) == [1, 1, 1, 1, 1, 3, 4]
    assert "SM301 made-up, 6 tests fail (confirmed)" in outcome.lines
    assert "SM301 made-up, 1 test fails (cleared by an experiment)" in outcome.lines
    assert outcome.out.count("- SM301 made-up (confirmed under spawn) -") == 6


INTERRUPTED = """
    import multiprocessing, pathlib
    import pytest

    @pytest.mark.startmethods("spawn")
    def test_local():
        marker = pathlib.Path("marker")
        if marker.exists():
            raise KeyboardInterrupt
        marker.touch()
        process = multiprocessing.Process(target=lambda: None)
        process.start()

    def test_after():
        pass
"""


def test_an_interrupt_ends_the_experiments_and_keeps_what_is_known(session):
    outcome = session.file(test_a=INTERRUPTED).run("--tb=short")
    assert outcome.status == 1
    assert outcome.names == {"test_local[spawn]": "failed", "test_after": "passed"}
    assert any(re.fullmatch(r"-+ SM101 local-function -+", line) for line in outcome.lines)
    assert re.search(r"^1 failed leg verified in 1 run, \d+\.\d s; interrupted$", outcome.out, re.MULTILINE)


UNITTEST = """
    import multiprocessing, unittest
    import pytest

    built = []

    @pytest.mark.startmethods("spawn")
    class TestIt(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            built.append(cls)

        def test_local(self):
            process = multiprocessing.Process(target=lambda: None)
            process.start()
            process.join()

        def test_other(self):
            assert len(built) == 1
"""


def test_test_cases_are_confirmed_too(session):
    """The session's tests share one setUpClass."""
    outcome = session.file(test_a=UNITTEST).run("--tb=short")
    assert outcome.names == {"TestIt::test_local[spawn]": "failed", "TestIt::test_other[spawn]": "passed"}
    assert "----------------- SM101 local-function (confirmed under spawn) -----------------" in outcome.lines


WAIT = """
    import state

    def wait(event, sender):
        if not state.DEBUG:
            event.wait()
        sender.send(1)
"""

HANGING = """
    import multiprocessing
    import pytest
    import state, waiting

    @pytest.mark.startmethods("fork", "spawn", timeout=1)
    def test_hang():
        state.DEBUG = True
        receiver, sender = multiprocessing.Pipe(duplex=False)
        event = multiprocessing.Event()
        process = multiprocessing.Process(target=waiting.wait, args=(event, sender))
        process.start()
        assert receiver.recv() == 1
"""


def test_a_hang_is_confirmed_within_the_legs_limit(session):
    """A run that times out confirms nothing and clears nothing."""
    found = {"test_hang": [("SM301", "state.NEITHER", "cause"), ("SM301", "state.DEBUG", "cause")]}
    made(session, HANGING, found, waiting=WAIT).plugin("session_still")
    outcome = session.run("--tb=short", "-vv", "--durations=1", "--durations-min=0")
    assert outcome.names == {"test_hang[fork]": "passed", "test_hang[spawn]": "failed"}
    assert [said for _, _, said in sections(outcome)] == [
        "confirmed: the test passes under spawn when state.DEBUG reaches the child",
    ]


def test_a_hang_prolongs_neither_the_next_legs_limit_nor_an_experiment(session, monkeypatch):
    """Only calls that end by themselves show how long the test takes."""
    known, limit_of = [], clock.limit_of

    def recorded(chosen, finished):
        known.append(len(finished))
        return limit_of(chosen, finished)

    monkeypatch.setattr(clock, "limit_of", recorded)
    methods = '"fork", "spawn", "forkserver"'
    made(session, HANGING.replace('"fork", "spawn"', methods), {}, waiting=WAIT).plugin("session_still")
    outcome = session.run("--no-start-methods-verify")
    assert list(outcome.names.values()) == ["passed", "failed", "failed"]
    assert known == [0, 0, 1, *[1] * 6]  # set-up, call and tear-down of each leg


# -- with the plugin's own findings ----------------------------------------------------------------------------------

REAL = {
    "test_global": ("SM301", "state.DEBUG"),
    "test_class": ("SM302", "state.Service.registry"),
    "test_monkeypatch": ("SM303", "state.now"),
    "test_mock": ("SM303", "state.now"),
    "test_logging": ("SM305", "logging.getLogger('app')"),
    "test_decimal": ("SM306", "decimal"),
    "test_signal": ("SM306", "signal.SIGUSR1"),
    "test_contextvar": ("SM306", "state.VAR"),
    "test_local": ("SM306", "state.LOCAL"),
}


@pytest.mark.parametrize("name", REAL)
def test_what_is_found_is_confirmed(session, name):
    """The findings are real: the test passes under fork, fails under spawn, and its first finding is the cause."""
    code, path = REAL[name]
    session.file(state=STATE, work=WORK, test_a=TESTS)
    outcome = session.run("--start-methods=fork,spawn", "--tb=short", "-vv", "-k", name)
    assert outcome.names == {f"{name}[fork]": "passed", f"{name}[spawn]": "failed"}
    said = f"confirmed: the test passes under spawn when {path} reaches the child"
    assert sections(outcome)[:1] == [(f"{name}[spawn]", code, said)]
    assert "StartMethodWarning" not in outcome.out  # for the lock that the module makes at import


def test_handler_is_sent_or_nothing_is_said(session):
    """A file handler reopens its file in the child; one that cannot be sent leaves the finding untested."""
    session.file(
        app="""
        import logging

        class Held(logging.FileHandler):
            def __init__(self, *args):
                super().__init__(*args)
                self.held = (each for each in ())

        def log():
            logging.getLogger("app").warning("told by the child")
        """,
        test_a="""
        import logging
        import multiprocessing

        import pytest
        from app import Held, log

        @pytest.mark.startmethods("fork", "spawn")
        @pytest.mark.parametrize("kind", [logging.FileHandler, Held])
        def test_a(tmp_path, kind):
            handler = kind(tmp_path / "log")
            logging.getLogger("app").addHandler(handler)
            process = multiprocessing.Process(target=log)
            process.start()
            process.join()
            logging.getLogger("app").removeHandler(handler)
            handler.close()
            assert "told by the child" in (tmp_path / "log").read_text()
        """,
    )
    outcome = session.run("--start-methods-report=report.json", "--start-methods-verify=600")
    tests = json.loads((session.path / "report.json").read_text())["tests"]
    found = [[(each["code"], each["path"], each["confirmed"]) for each in test["findings"]] for test in tests]
    path = "logging.getLogger('app')"
    assert found == [[("SM305", path, True)], [("SM305", path, None)]], outcome.out


def test_what_a_function_captured_is_confirmed(session):
    """A captured variable of an importable function, changed since the import, is sent to the child."""
    session.file(
        app="""
        def counter():
            level = 0

            def set_level(value):
                nonlocal level
                level = value

            def get_level():
                return level

            return set_level, get_level


        set_level, get_level = counter()


        def send(queue):
            queue.put(get_level())
        """,
        test_a="""
        import multiprocessing

        import app
        import pytest


        @pytest.mark.startmethods
        def test_level():
            app.set_level(5)
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=app.send, args=(queue,))
            process.start()
            assert queue.get() == 5
            process.join()
        """,
    )
    text = " ".join(session.run("--start-methods=spawn").out.split())
    assert "app.get_level.__closure__['level'] is 5 in the parent and 0 in a fresh child; get_level reads it" in text
    assert "(confirmed under spawn)" in text


def test_what_the_copies_of_arguments_lack_is_confirmed_under_fork(session):
    """Identity, an attribute, and what pickling does to the original; the environment is what fails the last test."""
    session.file(
        app="""
        import multiprocessing
        import os

        MISSING = object()
        LIMIT = None


        class Box:
            def __init__(self):
                self.cache = [1]
                self.lock = multiprocessing.Lock()

            def __getstate__(self):
                self.cache.clear()
                return {"lock": self.lock}


        class Half:
            def __init__(self):
                self.extra = 7

            def __reduce__(self):
                return Half.__new__, (Half,)


        def is_missing(value, queue):
            queue.put(value is MISSING)


        def extra(half, queue):
            queue.put(getattr(half, "extra", None))


        def locks(box, queue):
            with box.lock:
                queue.put(None)


        def limit(half, queue):
            queue.put((LIMIT, "extra"))
        """,
        test_a="""
        import multiprocessing

        import app
        import pytest

        pytestmark = pytest.mark.startmethods("spawn")


        def ask(function, value):
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=function, args=(value, queue))
            process.start()
            process.join()
            return queue.get()


        def test_identity():
            assert ask(app.is_missing, app.MISSING)

        def test_lacks():
            assert ask(app.extra, app.Half()) == 7

        def test_original():
            box = app.Box()
            ask(app.locks, box)
            assert box.cache == [1]

        def test_innocent(monkeypatch):
            monkeypatch.setattr(app, "LIMIT", 3)
            assert ask(app.limit, app.Half()) == (3, "extra")
        """,
    )
    session.run("--start-methods-report=report.json", "--start-methods-verify=600")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    found = {
        each["nodeid"].partition("::")[2]: [(f["code"], f["confirmed"]) for f in each["findings"]] for each in tests
    }
    assert found == {
        "test_identity": [("SM204", True)],
        "test_lacks": [("SM204", True)],
        "test_original": [("SM108", True)],
        "test_innocent": [("SM303", True)],
    }


def test_what_does_not_pickle_or_load_is_confirmed_and_what_a_child_lacks_is_no_unshared_lock(session):
    """A new lock stands in for one that does not pickle; under fork, too, a copy of the error does not load."""
    session.file(
        app="""
        import threading

        LOCKS = {}


        class Lost(RuntimeError):
            def __init__(self, inner, number):
                super().__init__(inner)


        class Realm:
            def __init__(self):
                self.lock = threading.Lock()


        def use(thing, queue):
            queue.put("used")


        def locked(number):
            with LOCKS["machine"]:
                return number
        """,
        test_a="""
        import multiprocessing

        import app
        import pytest

        pytestmark = pytest.mark.startmethods("spawn")


        @pytest.mark.parametrize("thing", [app.Realm(), app.Lost("away", 1)], ids=["lock", "error"])
        def test_use(thing):
            queue = multiprocessing.Queue()
            process = multiprocessing.Process(target=app.use, args=(thing, queue))
            process.start()
            process.join()
            assert process.exitcode == 0


        def test_locked():
            app.LOCKS["machine"] = multiprocessing.Lock()
            with multiprocessing.Pool(1) as pool:
                assert pool.map(app.locked, [1]) == [1]
        """,
    )
    out = session.run().out
    for each in ("SM103 unpicklable-object", "SM203 unpickling-raised", "SM301 global-state"):
        assert f"- {each} (confirmed under spawn) -" in out
    assert "SM307" not in out


def test_a_discovered_tests_own_server_has_its_own_environment(session):
    """The run of an unmarked test under forkserver uses the user's server, and is compared with that."""
    session.file(
        test_a="""
        import multiprocessing
        import os

        multiprocessing.set_start_method("forkserver", force=True)


        def nothing():
            pass


        def key(queue):
            queue.put(os.environ.get("APP_MODE"))


        def test_key(monkeypatch):
            first = multiprocessing.Process(target=nothing)
            first.start()
            first.join()
            monkeypatch.setenv("APP_MODE", "yes")
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=key, args=(queue,))
            process.start()
            assert queue.get() == "yes"
            process.join()
        """
    )
    out = session.run("--start-methods-discover", "--start-methods=forkserver").out
    assert "os.environ['APP_MODE'] is 'yes' in the parent and not set in a forkserver child" in " ".join(out.split())


def test_import_hooks_and_modules_preloaded_under_another_environment_are_confirmed(session):
    """A hook that does not find what is missing explains nothing."""
    session.file(
        sized="""
        import os

        SIZE = os.environ.get("SIZED")


        def size():
            return SIZE
        """,
        made_by_hook="""
        import importlib.machinery


        class Finder:
            def __init__(self, name):
                self.name = name

            def find_spec(self, name, path, target=None):
                return importlib.machinery.ModuleSpec(name, self) if name == self.name else None

            def create_module(self, spec):
                pass

            def exec_module(self, module):
                exec("def double(n): return 2 * n", vars(module))


        def later():
            import made_later

            return made_later.double(2)


        def missing():
            import made_beside

            return made_beside.double(2)
        """,
        test_a="""
        import multiprocessing
        import sys
        import types

        import pytest
        from made_by_hook import Finder, later, missing


        def nothing():
            pass


        def call(function, queue):
            queue.put(function(2))


        def run(target, *args):
            process = multiprocessing.Process(target=target, args=args)
            process.start()
            process.join()
            return process.exitcode


        @pytest.fixture
        def hook(monkeypatch):
            monkeypatch.setattr(sys, "meta_path", [Finder("made_later"), *sys.meta_path])
            yield
            sys.modules.pop("made_later", None)


        @pytest.mark.startmethods("spawn")
        def test_looked_up_later(hook):
            assert run(later) == 0


        @pytest.mark.startmethods("spawn")
        def test_sent(hook):
            from made_later import double

            queue = multiprocessing.SimpleQueue()
            assert run(call, double, queue) == 0
            assert queue.get() == 4


        @pytest.mark.startmethods("spawn")
        def test_made_beside(hook, monkeypatch):
            monkeypatch.setitem(sys.modules, "made_beside", types.ModuleType("made_beside"))
            assert run(missing) == 0


        @pytest.mark.startmethods("fork", "spawn", "forkserver")
        def test_preloaded(monkeypatch):
            multiprocessing.set_forkserver_preload(["sized"])
            run(nothing)
            monkeypatch.setenv("SIZED", "4")
            import sized

            with multiprocessing.Pool(1) as pool:
                assert pool.apply(sized.size) == "4"
        """,
    )
    session.run("--start-methods-report=report.json", "--start-methods-verify=600", where="subprocess")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    found = {
        each["nodeid"].partition("::test_")[2]: [
            (f["code"], f["path"], f["confirmed"]) for f in each["findings"] if f["level"] == "cause"
        ]
        for each in tests
    }
    assert found.pop("made_beside")[0][1] != "sys.meta_path"
    assert found == {
        "looked_up_later": [("SM306", "sys.meta_path", True)],
        "sent": [("SM201", "args[0]", True)],
        "preloaded": [("SM604", "sized", True)],
    }


def test_what_runs_in_forked_children_only_is_confirmed(session):
    """Without a part in the failure, a hook is a note."""
    session.file(
        roles="""
        import os

        ROLE = "parent"
        MODE = "a"


        def in_child():
            global ROLE
            ROLE = "child"


        os.register_at_fork(after_in_child=in_child)


        def role():
            return ROLE


        def mode():
            return MODE
        """,
        test_a="""
        import multiprocessing

        import pytest
        import roles

        pytestmark = pytest.mark.startmethods("fork", "spawn")


        def run(function):
            with multiprocessing.Pool(1) as pool:
                return pool.apply(function)


        def test_role():
            assert run(roles.role) == "child"


        def test_mode(monkeypatch):
            monkeypatch.setattr(roles, "MODE", "b")
            assert run(roles.mode) == "b"
        """,
    )
    session.run("--start-methods-report=report.json", "--start-methods-verify=600")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    found = [[(f["path"], f["confirmed"]) for f in each["findings"] if f["level"] == "cause"] for each in tests]
    assert found == [[("os.register_at_fork('roles')", True)], [("roles.MODE", True)]]


def test_a_local_class_that_registers_itself_and_a_flyweight_are_confirmed(session):
    """Loading a local class does not register it, nor does loading a flyweight ask its ``__new__``."""
    session.file(
        kinds="""
        class Base:
            known = []

            def __init_subclass__(cls, first=False):
                Base.known.insert(0 if first else len(Base.known), cls)


        class Unit:
            known = {}

            def __new__(cls, name):
                return cls.known.setdefault(name, super().__new__(cls))

            def __getnewargs__(self):
                return ("inch",)

            def __getstate__(self):
                return None


        def names():
            return [each.__qualname__ for each in Base.known if issubclass(each, Base)]


        def factor(name):
            return getattr(Unit(name), "factor", None)
        """,
        test_a="""
        import multiprocessing

        import kinds
        import pytest


        def run(function, *args):
            with multiprocessing.Pool(1) as pool:
                return pool.apply(function, args)


        @pytest.mark.startmethods("spawn")
        def test_local():
            class Mine(kinds.Base, first=True):
                pass

            assert "test_local.<locals>.Mine" in run(kinds.names)


        @pytest.mark.startmethods("spawn")
        def test_flyweight():
            kinds.Unit("inch").factor = 25.4
            assert run(kinds.factor, "inch") == 25.4


        @pytest.mark.startmethods("fork", "spawn")
        def test_other_flyweight():
            kinds.Unit("inch").factor = 25.4
            assert run(kinds.factor, "mile") == 25.4
        """,
    )
    session.run("--start-methods-report=report.json", "--start-methods-verify=600")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    found = {
        each["nodeid"].partition("::test_")[2]: [
            (f["code"], f["path"], f["confirmed"]) for f in each["findings"] if f["level"] == "cause"
        ]
        for each in tests
    }
    assert found == {
        "local": [("SM302", "kinds.Base.known", True)],
        "flyweight": [("SM302", "kinds.Unit.known", True)],
        "other_flyweight": [],
    }


@pytest.mark.own_interpreter  # other threads of a worker write and connect, too
@pytest.mark.skipif(os.name == "nt", reason="there is no forkserver")
def test_a_patch_that_breaks_the_start_itself_is_confirmed_with_the_original(session):
    """Multiprocessing has the original while it starts a process, and the test its replacement."""
    session.file(
        test_a="""
        import multiprocessing
        import os
        import socket
        from unittest import mock

        import pytest

        pytestmark = pytest.mark.startmethods("fork", "forkserver")


        def ask():
            with multiprocessing.Pool(1) as pool:
                return pool.apply(abs, (-1,))


        def no_network(*args):
            raise RuntimeError("no network in tests")


        def test_connect(monkeypatch):
            monkeypatch.setattr(socket.socket, "connect", no_network)
            assert ask() == 1
            assert socket.socket.connect is no_network


        def test_lock():
            with mock.patch("os.write"):
                multiprocessing.Lock()
                assert isinstance(os.write, mock.Mock)
        """
    )
    outcome = session.run("--tb=short", "-vv", "--start-methods-vacuous=ignore")
    passes = "confirmed: the test passes under forkserver when multiprocessing starts processes with the original"
    assert sections(outcome) == [
        ("test_connect[forkserver]", "SM303", f"{passes} socket.socket.connect"),
        ("test_lock[forkserver]", "SM303", f"{passes} os.write"),
    ]
    assert {name for name, result in outcome.names.items() if result == "passed"} == {
        "test_connect[fork]",
        "test_lock[fork]",
    }


def test_what_only_a_second_look_sees_is_confirmed(session):
    """Each with a twin that sets the same state and fails for a reason of its own."""
    session.file(
        failures="FAILURES = []\n",
        records="NAMES = {}\n",
        orders="import records\n\nrecords.NAMES['Order'] = 'ordered'\n\nclass Order:\n    pass\n",
        behind="""
        import contextvars
        import logging
        import threading

        import failures
        import records


        class Collect(logging.Handler):
            def emit(self, record):
                self.seen = record.getMessage()


        def log():
            handler, logger = Collect(), logging.getLogger("behind")
            handler.seen = None
            logger.addHandler(handler)
            logger.error("said")
            logger.removeHandler(handler)
            return handler.seen


        def fail():
            raise ValueError


        def count():
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
            return len(failures.FAILURES)


        def tenant():
            return {v.name: x for v, x in contextvars.copy_context().items() if v.name.startswith("my_")}


        def order():
            return records.NAMES.get("Order")


        def plain():
            return "child"
        """,
        test_a="""
        import contextvars
        import logging
        import multiprocessing
        import threading

        import failures
        import pytest
        from behind import count, log, order, plain, tenant

        pytestmark = pytest.mark.startmethods("fork", "spawn")


        def ask(function):
            with multiprocessing.Pool(1) as pool:
                return pool.apply(function)


        @pytest.fixture
        def quiet():
            logging.disable(logging.CRITICAL)
            yield
            logging.disable(logging.NOTSET)


        @pytest.fixture
        def hook(monkeypatch):
            monkeypatch.setattr(threading, "excepthook", failures.FAILURES.append)


        @pytest.fixture
        def variable():
            name = contextvars.ContextVar("my_tenant")
            token = name.set("acme")
            yield
            name.reset(token)


        def test_disable(quiet):
            assert ask(log) is None


        def test_disable_of_no_account(quiet):
            assert ask(plain) == "parent"


        def test_hook(hook):
            assert ask(count) > 0


        def test_hook_of_no_account(hook):
            assert ask(plain) == "parent"


        def test_context(variable):
            assert ask(tenant) == {"my_tenant": "acme"}


        def test_import():
            import orders

            assert ask(order) == "ordered"


        def test_import_of_no_account():
            import orders

            assert ask(plain) == "parent"
        """,
    )
    session.run("--start-methods-report=report.json", "--start-methods-verify=600", where="subprocess")
    tests = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    found = {
        each["nodeid"].partition("::test_")[2]: [
            (f["code"], f["path"]) for f in each["findings"] if f["level"] == "cause" and f["confirmed"]
        ]
        for each in tests
    }
    assert {name for name, each in found.items() if not each} == {
        "disable_of_no_account",
        "hook_of_no_account",
        "import_of_no_account",
    }
    assert found["disable"] == [("SM305", "logging.getLogger('behind')")]
    assert found["hook"] == [("SM303", "threading.excepthook")]
    assert found["context"] == [("SM306", "contextvars.copy_context")]
    assert found["import"][0][0] == "SM301"
    causes = {each["nodeid"].partition("::test_")[2]: each["findings"] for each in tests}
    for name in ("disable_of_no_account", "hook_of_no_account", "import_of_no_account"):
        assert [each for each in causes[name] if each["level"] == "cause"] == []
