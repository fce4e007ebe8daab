"""The plugin's promises, one by one; more tests of each are next to the code that keeps it."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
import multiprocessing.reduction
import multiprocessing.spawn
import os
import re
import select
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.skipif(
    len(multiprocessing.get_all_start_methods()) < 3, reason="the sessions below use all three methods"
)

# Events in a nested session, one JSON value per line.
LOG = """
    import json, os

    def log(*event):
        with open(os.environ["EVENTS"], "a") as file:
            file.write(json.dumps(event) + "\\n")
"""


@pytest.fixture
def events(session, monkeypatch):
    """Return a function that returns the session's events in order."""
    path = session.path / "events.jsonl"
    monkeypatch.setenv("EVENTS", str(path))
    session.file(events=LOG)

    def read():
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()]

    return read


# -- 1. Installed and unused: no output, nothing patched, nothing heavy imported ---------------------------------------


@pytest.mark.own_interpreter
def test_installed_and_unused_it_is_not_there(session):
    """The output is unchanged, and neither multiprocessing, cloudpickle nor the modules that run legs are imported."""
    session.file(
        conftest="""
        import sys

        def pytest_unconfigure():
            rooms = ("activation", "launches", "pickling", "state", "causes", "experiments", "report")
            heavy = ["multiprocessing.context", "cloudpickle", *(f"pytest_startmethod.{room}" for room in rooms)]
            print("imported:", [name for name in heavy if name in sys.modules])
        """,
        test_a="def test_a(): pass",
    )
    with_it = session.run("-v")
    session.plugins.remove("pytest_startmethod.plugin")
    without = session.run("-v")
    assert "imported: []" in with_it.lines
    assert [re.sub(r"in \d.*s", "", line) for line in with_it.lines if "plugins" not in line] == [
        re.sub(r"in \d.*s", "", line) for line in without.lines if "plugins" not in line
    ]


# -- 2. A leg's outcome and exception are the user's own ---------------------------------------------------------------


def test_the_exception_is_the_users_own(session, events):
    """The raised object itself reaches every observer, and the outcome is the one pytest determined."""
    session.file(
        conftest="""
        import pytest
        from events import log

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if call.when == "call":
                log(item.name, call.excinfo.value is item.module.RAISED[-1], report.outcome)
            return report
        """,
        test_a="""
        import multiprocessing, pytest
        RAISED = []

        @pytest.mark.startmethods
        def test_a(start_method):
            try:
                multiprocessing.Process(target=print, args=(lambda: 0,)).start()
                raise LookupError("under fork")
            except Exception as error:
                RAISED.append(error)
                raise
        """,
    ).run("--no-start-methods-verify")
    assert events() == [(f"test_a[{method}]", True, "failed") for method in METHODS]


# -- 3. The method is active from before the first fixture until after the last ----------------------------------------

PLACES = [
    (multiprocessing.process.BaseProcess, "start"),
    (multiprocessing.reduction.ForkingPickler, "dump"),
    (multiprocessing.spawn, "get_preparation_data"),
    (multiprocessing, "get_context"),
    (multiprocessing, "set_start_method"),
    (os, "fork"),
    (threading, "excepthook"),
    (sys, "excepthook"),
]


def test_the_method_lasts_as_long_as_the_leg_and_no_longer(session, events):
    """Fixtures of all scopes see it, unmarked tests do not, and afterwards everything is restored."""
    before = [getattr(owner, name) for owner, name in PLACES]
    default = multiprocessing.get_all_start_methods()[0]  # whatever an earlier session in this process set
    session.file(
        test_a="""
        import multiprocessing, pytest
        from events import log

        def see(what):
            log(what, multiprocessing.get_start_method())

        @pytest.fixture(scope="module")
        def wide(start_method):
            see("wide")
            yield
            see("~wide")

        @pytest.fixture
        def narrow(wide):
            see("narrow")
            yield
            see("~narrow")

        @pytest.mark.startmethods("spawn")
        def test_a(narrow):
            see("test")
            multiprocessing.Process(target=print).start()

        def test_plain():
            see("plain")
        """
    ).run()
    names = ["wide", "narrow", "test", "~narrow", "~wide"]
    assert events() == [*((name, "spawn") for name in names), ("plain", default)]
    assert [getattr(owner, name) for owner, name in PLACES] == before


# -- 4. A wider fixture that asks for the method is built once per method ----------------------------------------------


def test_wider_fixtures_are_built_once_per_method(session, events):
    """Without such a fixture, the tests keep their order."""
    session.file(
        test_a="""
        import pytest
        from events import log

        @pytest.fixture(scope="module")
        def server(start_method):
            log("server", start_method)

        @pytest.mark.startmethods(vacuous="ignore")
        class TestIt:
            def test_a(self, server): pass
            def test_b(self, server): pass
        """,
        test_b="""
        import pytest

        @pytest.mark.startmethods(vacuous="ignore")
        class TestOther:
            def test_a(self): pass
            def test_b(self): pass
        """,
    )
    outcome = session.run()
    assert events() == [("server", method) for method in METHODS]
    names = [name for name in outcome.names if "TestOther" in name]
    assert names == [f"TestOther::test_{test}[{method}]" for test in "ab" for method in METHODS]


# -- 5. TestCase classes, async tests, plain classes and stacked parametrize work --------------------------------------


def test_every_kind_of_test_has_its_legs(session, events):
    """`setUpClass` runs once per method."""
    outcome = session.file(
        test_a="""
        import multiprocessing, unittest
        import pytest
        from events import log

        pytestmark = pytest.mark.startmethods("fork", "spawn", vacuous="ignore")

        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                log("setUpClass", multiprocessing.get_start_method())
            def test_a(self): pass
            def test_b(self): pass

        class TestAsync(unittest.IsolatedAsyncioTestCase):
            async def test_a(self):
                log("async", multiprocessing.get_start_method())

        class TestPlain:
            @pytest.mark.parametrize("one", [1, 2])
            @pytest.mark.parametrize("two", "x")
            def test_a(self, one, two): pass
        """
    ).run()
    assert set(outcome.names.values()) == {"passed"}
    assert len(outcome.names) == 2 * (2 + 1 + 2)
    assert events() == [(what, method) for what in ("setUpClass", "async") for method in ("fork", "spawn")]


# -- 6. No leg depends on the leg before it ----------------------------------------------------------------------------


def test_a_forkserver_is_as_good_as_new(session):
    """Its children see the environment, directory and path of the test that starts them, whatever ran before."""
    outcome = session.file(
        work="""
        import os, sys

        def see(queue):
            queue.put((os.environ.get("OF_THE_TEST"), os.getcwd(), sys.path[0]))
        """,
        test_a="""
        import multiprocessing, os, sys
        import pytest, work

        @pytest.mark.startmethods("forkserver")
        @pytest.mark.parametrize("name", ["one", "two"])
        def test_a(name, monkeypatch, tmp_path):
            monkeypatch.setenv("OF_THE_TEST", name)
            monkeypatch.chdir(tmp_path)
            monkeypatch.syspath_prepend(str(tmp_path / name))
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=work.see, args=(queue,))
            process.start()
            assert queue.get() == (name, os.getcwd(), sys.path[0])
            process.join()
        """,
    ).run()
    assert set(outcome.names.values()) == {"passed"}, outcome.out


def test_a_forkserver_whose_socket_is_gone_is_replaced(session):
    """After a leg that removed the server's socket, the next leg's processes start."""
    outcome = session.file(
        test_a="""
        import multiprocessing, os
        from multiprocessing import forkserver
        import pytest

        def work():
            pass

        @pytest.mark.startmethods("forkserver")
        @pytest.mark.parametrize("name", ["one", "two"])
        def test_a(name):
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
            os.unlink(forkserver._forkserver._forkserver_address)
        """,
    ).run()
    assert set(outcome.names.values()) == {"passed"}, outcome.out


# -- 7. Nothing is left behind -----------------------------------------------------------------------------------------


def processes_of(directory):
    """Return the processes with `directory` in their environment or arguments: children, servers, trackers, shells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass  # it has ended, or is somebody else's
    return found


def ends_by_itself(pid):
    """Return whether a process ends within a minute."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


ENDS = {"time-out": 1, "crash": 1, "interrupt": 2, "kill": -signal.SIGKILL}
"""How a session ends -> its exit status."""


@pytest.mark.own_interpreter
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="asks Linux which processes there are")
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_behind(session, events, monkeypatch, tmp_path_factory, end):
    """No process and no file is left, however the legs and the session ended."""
    temporary = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(temporary))
    session.file(
        work="""
        import os, time

        def sleep(queue):
            queue.put(os.getpid())
            time.sleep(600)

        def crash():
            os._exit(9)
        """,
        test_a=f"""
        import multiprocessing, os, signal
        import pytest, work
        from events import log

        @pytest.mark.startmethods
        def test_a():
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=work.sleep, args=(queue,))
            process.start()
            log(queue.get())
            if {end!r} == "interrupt":
                signal.raise_signal(signal.SIGINT)
            if {end!r} == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if {end!r} == "crash":
                with multiprocessing.Pool(1) as pool:
                    pool.apply_async(work.crash).get()
            process.join()
        """,
    )
    files = {path.name for path in session.path.iterdir()}
    outcome = session.plugin("session_still").run("--start-methods-timeout=2", "--no-start-methods-verify")
    assert outcome.status == ENDS[end], outcome.out
    assert len(events()) == (3 if ENDS[end] == 1 else 1)
    assert [pid for pid in processes_of(temporary) if not ends_by_itself(pid)] == []
    assert [path.name for path in temporary.iterdir()] == []
    pytesters = {"stdout", "stderr", "runpytest-0", "runpytest-current"}
    assert {path.name for path in session.path.iterdir()} - files - pytesters <= {"events.jsonl", "__pycache__"}


# -- 8. A pre-check has no side effect ---------------------------------------------------------------------------------


def test_a_pre_check_is_not_seen(session, events):
    """It runs no user code in this process, and the child receives what it would have received."""
    outcome = session.file(
        work="""
        import os
        from events import log

        class Counted:
            def __init__(self):
                self.pickled = 0
            def __getstate__(self):
                self.pickled += 1
                return dict(self.__dict__)

        def see(counted):
            assert counted.pickled == 0
        """,
        test_a="""
        import multiprocessing
        import pytest, work

        @pytest.mark.startmethods("fork")
        def test_a():
            counted = work.Counted()
            process = multiprocessing.Process(target=work.see, args=(counted,))
            process.start()
            process.join()
            assert (process.exitcode, counted.pickled) == (0, 0)
        """,
    ).run()
    assert outcome.names == {"test_a[fork]": "passed"}, outcome.out


# -- 9. With xdist the report is the same ------------------------------------------------------------------------------

SUITE = """
    import multiprocessing
    import pytest

    pytestmark = pytest.mark.startmethods("fork", "spawn")

    def test_local():
        multiprocessing.Process(target=lambda: 0).start()

    def test_nothing(): pass
"""


def test_xdist_changes_nothing_in_the_report(session):
    """Only times, process ids, addresses and the command differ."""
    session.file(test_a=SUITE)
    texts = []
    for where in ("in-process", "xdist"):
        session.run("--start-methods-report=r.json", "--no-start-methods-verify", where=where)
        text = (session.path / "r.json").read_text()
        text = re.sub(r" at 0x[0-9a-f]+", " at 0x0", text)
        texts.append(re.sub(r'("(duration|pid|seconds|parent)": )[\d.e-]+', r"\g<1>0", text))
    reports = [json.loads(text) for text in texts]
    for report in reports:
        assert report.pop("command") and report.pop("started")  # noqa: PT018 - of the run, not of its tests
    assert reports[0] == reports[1]


# -- 10. A child never receives anything that can break it -------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_runs_where_our_part_of_it_cannot(session, method, tmp_path_factory, monkeypatch):
    """It runs even if the files to load us from are gone by then."""
    # of this session alone: those of other sessions on this machine lie in the usual directory
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("t")))
    outcome = session.file(
        conftest="""
        import glob, os, tempfile
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(item):
            from pytest_startmethod.child import reporter
            file, reporter.__file__ = reporter.__file__, "/nonexistent/reporter.py"
            (path,) = glob.glob(os.path.join(tempfile.gettempdir(), "pymp-*", "child.pyc"))
            os.unlink(path)
            try:
                return (yield)
            finally:
                reporter.__file__ = file
        """,
        work="def work(queue): queue.put(42)",
        test_a=f"""
        import multiprocessing
        import pytest, work

        @pytest.mark.startmethods({method!r})
        def test_a():
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=work.work, args=(queue,))
            process.start()
            assert queue.get() == 42
            process.join()
            assert process.exitcode == 0
        """,
    ).run()
    assert outcome.names == {f"test_a[{method}]": "passed"}, outcome.out


# -- 11. Nobody notices ------------------------------------------------------------------------------------------------

NOTICED = """
    import gc, logging, multiprocessing, os, sys, threading, time, warnings
    import pytest, work
    from events import log

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_plain(method):
        run(multiprocessing.get_context(method), method)

    @pytest.mark.startmethods
    def test_leg(mp_context, start_method):
        run(mp_context, start_method)

    def run(context, method):
        threads, loggers = threading.active_count(), set(logging.root.manager.loggerDict)
        files = set(os.listdir("/proc/self/fd"))
        filters, children = list(warnings.filters), len(multiprocessing.active_children())
        given = work.Given()
        with warnings.catch_warnings(record=True) as caught:
            for _ in range(2):
                warnings.simplefilter("default")
                process = context.Process(target=work.run, args=(given,))
                process.start()
                process.join()
                process.close()
                warnings.warn("once")
        log(method, given.calls, len(caught), threading.active_count() - threads,
            len(multiprocessing.active_children()) - children, warnings.filters == filters,
            sorted(set(logging.root.manager.loggerDict) - loggers))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what is open")
def test_nobody_notices(session, events):
    """User code runs equally often, warns equally, and leaves the same threads, children and loggers as without us."""
    outcome = session.file(
        work="""
        import logging

        class Given:
            def __init__(self):
                self.calls = 0
            def __reduce__(self):
                self.calls += 1
                return Given, ()

        def run(given):
            logging.getLogger("of.the.child").debug("here")
        """,
        test_a=NOTICED,
    ).run("-p", "no:warnings")
    assert set(outcome.names.values()) == {"passed"}, outcome.out
    seen = events()
    assert len(seen) == 6
    assert seen[:3] == seen[3:]


SEEN_BY_OTHERS = """
    import multiprocessing, os, warnings
    import pytest, work

    def run(target, *args):
        process = multiprocessing.Process(target=target, args=args)
        process.start()
        process.join()
        return process.exitcode

    def test_passes():
        assert run(work.leave, 0) == 0

    def test_fails():
        assert run(work.leave, 3) == 0

    def test_warns():
        warnings.warn("of the test", RuntimeWarning)
        assert run(work.write, "written.txt") == 0

    @pytest.mark.xfail(reason="expected")
    def test_xfails():
        assert run(work.leave, 4) == 0

    def test_skips():
        pytest.skip("not here")

    @pytest.fixture
    def broken():
        raise LookupError("no fixture")

    def test_has_no_fixture(broken): pass

    def test_prints(capfd):
        print("of the parent")
        assert run(work.say, "of the child") == 0
        assert sorted(capfd.readouterr().out.split()) == sorted("of the parent of the child".split())
"""


@pytest.mark.own_interpreter
@pytest.mark.parametrize(
    "options", [[], ["--start-methods-discover", "--start-methods=default"]], ids=["unused", "watched"]
)
def test_unmarked_tests_come_out_the_same(session, options):
    """Outcomes, exceptions, warnings, what is printed and the files are those of a session without the plugin."""
    session.file(
        work="""
        import os, sys

        def leave(status): sys.exit(status)
        def say(text): os.write(1, text.encode())
        def write(name): open(name, "w").close()
        """,
        test_a=SEEN_BY_OTHERS,
    )
    seen = []
    for plugins, chosen in (["session_record"], []), (session.plugins, options):
        session.plugins = plugins
        outcome = session.run(*chosen)
        lines = [re.sub(r"\d+\.\d+s|=", "", line) for line in outcome.lines]
        warned = lines[next(n for n, line in enumerate(lines) if " warnings summary " in line) :]
        end = next(n for n, line in enumerate(warned) if line.startswith("-- Docs: "))
        # A watched failure is followed by the child's error.
        reasons = [re.sub(r"0x\w+|\n-+ start method (?s:.*)", "", reason) for reason in outcome.reasons.values()]
        files = {path.name for path in session.path.iterdir() if not path.name.startswith("runpytest-")}
        seen.append((outcome.status, outcome.results, reasons, warned[:end], lines[-3], files))
    assert len(seen[0][1]) == 7
    assert seen[0] == seen[1]


# -- 12. Experiments and discovery come after the session --------------------------------------------------------------


def test_experiments_come_when_everything_is_torn_down(session, events):
    """No fixture is rebuilt before the last test, and plugins that record tests do not see the extra runs."""
    session.file(
        conftest="""
        import pytest
        from events import log

        @pytest.fixture(scope="session")
        def database():
            log("database")
            yield
            log("~database")

        def pytest_runtest_logreport(report):
            if report.when == "call":
                log(report.nodeid.partition("::")[2], report.outcome)
        """,
        work="""
        VALUE = 1

        def read(queue):
            queue.put(VALUE)
        """,
        test_a="""
        import multiprocessing
        import pytest, work

        @pytest.mark.startmethods("fork", "spawn")
        def test_a(database, monkeypatch):
            monkeypatch.setattr(work, "VALUE", 2)
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=work.read, args=(queue,))
            process.start()
            value = queue.get()
            process.join()
            assert value == 2

        def test_later(database): pass
        """,
    )
    outcome = session.run()
    seen = events()
    last = seen.index(("test_later", "passed"))
    assert seen[: last + 2] == [
        ("database",),
        ("test_a[fork]", "passed"),
        ("test_a[spawn]", "failed"),
        ("test_later", "passed"),
        ("~database",),
    ]
    assert set(seen[last + 2 :]) <= {("database",), ("~database",)}
    assert "SM303 patch-lost (confirmed under spawn)" in outcome.out
