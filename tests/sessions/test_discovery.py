"""Unmarked tests that use the default start method are re-run under the other methods."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import pytest

from conftest import Session, Where
from pytest_startmethod._compat import multiprocessing as mp

DISCOVER = "--start-methods-discover"

OWN = "fork" if sys.version_info < (3, 14) else "forkserver"
OTHERS = [method for method in ("fork", "spawn", "forkserver") if method != OWN]
"""The interpreter's own method, and the methods under which a discovered test is re-run on Linux."""
FEW = f"--start-methods={OWN},{OTHERS[0]}"
"""Limits the reruns to one other method, where the methods do not differ: each forkserver imports pytest."""

START = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import pytest

    # Children import the module of their target: with this one, they would
    # import pytest.
    from does_nothing import work


    def start(context=multiprocessing, target=work):
        process = context.Process(target=target)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


@pytest.fixture(autouse=True)
def _target(session: Session) -> None:
    """Write the module of the target, apart from the test modules: a child that imports one of these imports pytest."""
    session.file(does_nothing="def work(): pass")


def suite(text: str) -> str:
    return START + text


def legs(*names: str, methods: list[str] = OTHERS, outcome: str = "passed", **outcomes: str) -> dict[str, str]:
    """Return the expected `Outcome.names` if the tests `names` were discovered and re-run under `methods`."""
    found = {}
    for name in names:
        found[name] = outcome
        base, bracket, ids = name.partition("[")
        for method in methods:
            found[f"{base}[{method}-{ids}" if bracket else f"{base}[{method}]"] = outcomes.get(method, outcome)
    return found


@pytest.mark.own_interpreter  # else the default forkserver of an earlier session serves it, with that one's streams
def test_a_failure_of_the_own_run_is_shown_once(session):
    """The other legs fail at the same line of the user's, though pytest shows the own run's frames below it, too."""
    session.file(fails="def work(): raise ValueError('always')")
    text = """
    import multiprocessing
    from fails import work


    def test_it():
        with multiprocessing.Pool(1) as pool:
            pool.apply(work)
    """
    outcome = session.file(test_a=text).run(DISCOVER)
    assert outcome.names == legs("test_it", outcome="failed")
    assert f"  same failure under {' and '.join(OTHERS)}" in outcome.lines
    assert sum(line.startswith("E  ") and "always" in line for line in outcome.lines) == 1


PASSED = suite("""
    def test_nothing():
        pass


    def test_start():
        start()


    @pytest.mark.parametrize("n", [1, 2])
    def test_n(n):
        start()


    def test_taken():
        start(multiprocessing.get_context())


    class TestIt:
        def test_pool(self):
            with multiprocessing.Pool(1) as pool:
                assert pool.map(abs, [-1]) == [1]

        def test_executor(self):
            with ProcessPoolExecutor(1) as executor:
                assert executor.submit(abs, -1).result() == 1
""")

FOUND = ("test_start", "test_n[1]", "test_n[2]", "test_taken", "TestIt::test_pool", "TestIt::test_executor")


def test_a_test_that_starts_a_process_runs_again_under_the_other_methods(session: Session, where: Where) -> None:
    outcome = session.file(test_a=PASSED).run(DISCOVER, where=where)
    assert outcome.status == 0, outcome.out
    assert outcome.names == {"test_nothing": "passed", **legs(*FOUND)}
    if where != "xdist":  # after the session's own tests, grouped by method
        names = list(outcome.names)
        assert names[: 1 + len(FOUND)] == ["test_nothing", *FOUND]
        assert [next(m for m in OTHERS if f"[{m}" in name) for name in names[1 + len(FOUND) :]] == [
            method for method in OTHERS for _ in FOUND
        ]
    assert "6 tests pass everywhere" in outcome.lines
    assert "19 passed" in outcome.lines[-1] or "19 passed" in outcome.out


def test_what_fails_under_another_method_fails_the_run(session: Session) -> None:
    source = suite("""
    def test_local():
        start(target=lambda: None)
    """)
    outcome = session.file(test_a=source).run(DISCOVER)
    assert outcome.status == 1
    if OWN == "fork":
        assert outcome.names == {
            "test_local": "passed",
            "test_local[spawn]": "failed",
            "test_local[forkserver]": "failed",
        }
        assert "_ test_local[spawn] _" in outcome.out
        assert "1 test needs fork" in outcome.lines
        assert "SM101 local-function, 1 test needs fork (confirmed)" in outcome.lines
        assert "predicted" not in outcome.out  # it came true


def test_a_failing_first_run_is_diagnosed_as_a_leg_is(session: Session) -> None:
    source = suite("""
    def broken():
        raise ValueError("no")


    def test_a():
        start(target=broken)
    """)
    outcome = session.file(test_a=source).run(DISCOVER, FEW)
    assert outcome.names == legs("test_a", methods=OTHERS[:1], outcome="failed")
    assert f"start method {OWN}: in the child" in outcome.out
    assert any(line.startswith("1 test fails") for line in outcome.lines)


RECORD = """
    import json

    noted = []


    def pytest_runtest_logreport(report):
        found = getattr(report, "startmethod_foreign", ())
        noted.extend([report.nodeid, each["method"], each["count"]] for each in found)


    def pytest_sessionfinish(session):
        (session.config.rootpath / "noted.json").write_text(json.dumps(noted))
"""


def test_a_context_that_names_its_method_is_noted_and_the_test_runs_once(session: Session) -> None:
    source = suite("""
    from multiprocessing.context import SpawnProcess

    PINNED = multiprocessing.get_context("spawn")


    def test_process():
        start(PINNED)


    def test_pool():
        with PINNED.Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]


    def test_executor():
        with ProcessPoolExecutor(1, mp_context=PINNED) as executor:
            assert executor.submit(abs, -1).result() == 1


    def test_class():
        process = SpawnProcess(target=work)
        process.start()
        process.join()


    def test_both():
        start(PINNED)
        start()
    """)
    outcome = session.file(test_a=source, conftest=RECORD).run(DISCOVER, FEW)
    assert outcome.names == {
        **dict.fromkeys(["test_process", "test_pool", "test_executor", "test_class"], "passed"),
        **legs("test_both", methods=OTHERS[:1]),
    }
    noted = json.loads((session.path / "noted.json").read_text(encoding="utf-8"))
    names = ["test_process", "test_pool", "test_executor", "test_class"]
    assert noted == [[f"test_a.py::{name}", "spawn", 1] for name in names]


def test_a_task_in_a_pool_of_a_wider_fixture_counts_and_so_does_its_process(session: Session) -> None:
    source = suite("""
    @pytest.fixture(scope="module")
    def pool():
        with multiprocessing.Pool(1) as pool:
            yield pool


    @pytest.fixture(scope="module")
    def server():
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=queue.get)
        process.start()
        yield queue
        queue.put(None)
        process.join()


    def test_a(pool):
        assert pool.map(abs, [-1]) == [1]


    def test_b(pool):
        assert pool.map(abs, [-1]) == [1]


    def test_c(server):
        pass


    def test_d(server):
        pass


    def test_e():
        pass
    """)
    outcome = session.file(test_a=source).run(DISCOVER, FEW)
    assert outcome.status == 0, outcome.out
    assert outcome.names == {**legs("test_a", "test_b", "test_c", "test_d", methods=OTHERS[:1]), "test_e": "passed"}
    assert "vacuous" not in outcome.out


@pytest.mark.own_interpreter  # the pool is there as long as its process
def test_a_pool_that_a_module_holds_makes_its_tests_count(session: Session) -> None:
    """They are re-run although the same processes serve all methods, which the summary mentions."""
    source = suite("""
    POOL = None


    def pool():
        global POOL
        if POOL is None:
            POOL = multiprocessing.Pool(1)
        return POOL


    def test_a():
        assert pool().map(abs, [-1]) == [1]


    def test_b():
        assert pool().map(abs, [-1]) == [1]
    """)
    outcome = session.file(test_a=source).run(DISCOVER)
    assert outcome.names == legs("test_a", "test_b")
    assert "SM501 vacuous: 4 legs passed without a process of their method" in outcome.lines


def test_wider_fixtures_are_made_once_for_each_method_after_the_session(session: Session) -> None:
    source = suite("""
    import unittest

    done = []


    def setup_module():
        done.append("+module")


    def teardown_module():
        done.append("-module")


    class TestIt(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            done.append("+class")

        @classmethod
        def tearDownClass(cls):
            done.append("-class")

        def setUp(self):
            done.append(multiprocessing.get_start_method())

        def test_a(self):
            start()

        def test_b(self):
            start()

        def test_c(self):
            pass
    """)
    session.file(
        conftest="""
        import sys

        def pytest_unconfigure():
            print("DONE", *sys.modules["test_a"].done)
    """
    )
    outcome = session.file(test_a=source).run(DISCOVER, FEW, "-s")
    assert outcome.names == {**legs("TestIt::test_a", "TestIt::test_b", methods=OTHERS[:1]), "TestIt::test_c": "passed"}
    line = next(line for line in outcome.lines if line.startswith("DONE "))
    around = [["+module", "+class", *[method] * 2, "-class", "-module"] for method in (OWN, OTHERS[0])]
    around[0].insert(4, OWN)
    assert line.split()[1:] == [word for words in around for word in words]


@pytest.mark.parametrize("plugin", ["pytest_asyncio.plugin", "anyio.pytest_plugin"])
def test_async_tests_are_discovered(session: Session, plugin: str) -> None:
    mark = "asyncio" if "asyncio" in plugin else "anyio"
    if mark == "asyncio":
        session.ini(asyncio_default_fixture_loop_scope="session")
    source = suite(f"""
    @pytest.fixture
    def anyio_backend():
        return "asyncio"


    @pytest.mark.{mark}
    async def test_a():
        start()
    """)
    outcome = session.plugin(plugin).file(test_a=source).run(DISCOVER, FEW)
    assert outcome.status == 0, outcome.out
    assert len(outcome.names) == 2


def test_skipped_tests_are_not_run_again_and_expected_failures_are(session: Session) -> None:
    source = suite("""
    def test_skip():
        start()
        pytest.skip("so")


    @pytest.mark.xfail
    def test_xfail():
        start()
        assert 0


    @pytest.mark.skip
    def test_never():
        start()
    """)
    outcome = session.file(test_a=source).run(DISCOVER, FEW)
    assert outcome.status == 0, outcome.out
    assert outcome.names == {
        "test_skip": "skipped",
        **legs("test_xfail", methods=OTHERS[:1], outcome="xfailed"),
        "test_never": "skipped",
    }


def test_marked_tests_run_as_they_do_without_the_option(session: Session) -> None:
    source = suite("""
    @pytest.mark.startmethods("spawn")
    def test_marked():
        start()


    def test_asking(start_method):
        start()


    def test_plain():
        start()
    """)
    outcome = session.file(test_a=source).run(DISCOVER)
    assert outcome.names == {
        "test_marked[spawn]": "passed",
        **{f"test_asking[{method}]": "passed" for method in ("fork", "spawn", "forkserver")},
        **legs("test_plain"),
    }
    assert "3 tests pass everywhere" in outcome.lines


def test_the_methods_are_those_that_are_selected(session: Session) -> None:
    source = suite("""
    def test_a():
        start()
    """)
    outcome = session.file(test_a=source).run(DISCOVER, f"--start-methods={OWN},spawn")
    assert outcome.names == {"test_a": "passed", "test_a[spawn]": "passed"}
    assert (
        f'    @pytest.mark.startmethods("{OWN}", "spawn")'
        in [line.replace("pytestmark = ", "@") for line in outcome.lines]
        or "startmethods(" in outcome.out
    )


def test_a_method_that_the_suite_sets_itself_is_the_first_run_s(session: Session) -> None:
    conftest = """
    import multiprocessing

    multiprocessing.set_start_method("spawn")
    """
    source = suite("""
    def test_a():
        start()


    def test_b():
        assert multiprocessing.get_start_method() == "spawn"
    """)
    outcome = session.file(test_a=source, conftest=conftest).run(DISCOVER, where="subprocess")
    assert outcome.status == 0, outcome.out
    assert outcome.names == {
        "test_a": "passed",
        "test_a[fork]": "passed",
        "test_a[forkserver]": "passed",
        "test_b": "passed",
    }


def test_a_method_that_a_test_sets_is_its_own_affair(session: Session) -> None:
    source = suite("""
    def test_a():
        start()


    def test_b():
        multiprocessing.set_start_method("spawn", force=True)
        start()


    def test_c():
        assert multiprocessing.get_start_method() == "spawn"
        multiprocessing.set_start_method(None, force=True)
    """)
    outcome = session.file(test_a=source).run(DISCOVER)
    assert outcome.status == 0, outcome.out
    assert outcome.names["test_c"] == "passed"
    assert set(outcome.names) > {"test_a[spawn]", "test_b", "test_b[fork]", "test_b[forkserver]"}
    assert "set_start_method('fork') is set aside" not in outcome.out  # it was fixed by first use, not by a call


FAILING = suite("""
    import os


    def test_a():
        start()
        if multiprocessing.get_start_method() == "spawn":
            assert os.path.exists("fixed")


    def test_b():
        start()
""")


WITH_SPAWN = f"--start-methods={OWN},spawn"


def test_the_first_failure_ends_the_session_if_that_is_asked(session: Session) -> None:
    outcome = session.file(test_a=FAILING).run(DISCOVER, "-x")
    before = [f"{test}[{m}]" for m in OTHERS[: OTHERS.index("spawn")] for test in ("test_a", "test_b")]
    assert list(outcome.names) == ["test_a", "test_b", *before, "test_a[spawn]"]
    outcome = session.run(DISCOVER, "--maxfail=2")
    assert len(outcome.names) == 6


def test_a_first_run_that_fails_is_not_run_again_if_the_session_ends_there(session: Session) -> None:
    source = suite("""
    def test_a():
        start()
        assert 0
    """)
    outcome = session.file(test_a=source).run(DISCOVER, "-x")
    assert outcome.names == {"test_a": "failed"}


@pytest.mark.parametrize("option", ["--lf", "--sw"])
def test_a_failing_leg_leads_the_next_run_to_its_test(session: Session, option: str) -> None:
    session.file(test_a=FAILING, test_0="def test_0(): pass")
    session.run(DISCOVER, WITH_SPAWN, option)
    outcome = session.run(DISCOVER, WITH_SPAWN, option, "--co", "-q")
    assert "test_a.py::test_a" in outcome.lines
    assert "test_0.py::test_0" not in outcome.lines
    outcome = session.run(DISCOVER, WITH_SPAWN, option)
    assert outcome.names["test_a[spawn]"] == "failed"
    session.file("fixed", "")
    outcome = session.run(DISCOVER, WITH_SPAWN, option)
    assert outcome.status == 0, outcome.out
    assert outcome.names["test_a[spawn]"] == "passed"
    cache = session.path / ".pytest_cache/v/cache"
    if option == "--lf":
        text = (cache / "lastfailed").read_text() if (cache / "lastfailed").exists() else "{}"
        assert json.loads(text) == {}
    else:
        assert json.loads((cache / "stepwise").read_text())["last_failed"] is None


def test_progress_durations_and_junit_have_the_legs(session: Session) -> None:
    """The progress ends at a hundred percent, and not before the last leg."""
    outcome = session.file(test_a=PASSED).run(DISCOVER, FEW, "--durations=0", "-vv", "--junitxml=x.xml")
    percents = [int(each) for each in re.findall(r"\[ *(\d+)%\]", outcome.out)]
    assert max(percents) == percents[-1] == 100
    assert f"call     test_a.py::test_start[{OTHERS[0]}]" in outcome.out
    text = (session.path / "x.xml").read_text(encoding="utf-8")
    assert text.count("<testcase") == 13
    assert f'name="test_n[{OTHERS[0]}-1]"' in text


def test_a_selection_by_keyword_holds_for_the_legs(session: Session) -> None:
    outcome = session.file(test_a=PASSED).run(DISCOVER, FEW, "-k", "test_start")
    assert outcome.names == legs("test_start", methods=OTHERS[:1])


def test_collecting_starts_nothing(session: Session) -> None:
    outcome = session.file(test_a=PASSED).run(DISCOVER, "--collect-only", "-q")
    assert outcome.status == 0
    assert "7 tests collected" in outcome.out
    assert DISCOVER not in outcome.out


def test_a_suite_that_starts_nothing_hears_of_it_in_one_line(session: Session) -> None:
    session.file(test_a="def test_a(): pass")
    line = "--start-methods-discover: no unmarked test uses the default start method"
    assert line in session.run(DISCOVER).lines
    assert line in session.run(DISCOVER, "-q").lines
    assert "start method" not in session.run(DISCOVER, "-qq").out
    assert "had no effect" not in session.run(DISCOVER, "--start-methods=all").out


@pytest.mark.parametrize(
    ("ini", "args", "runs"),
    [
        ({}, [], 1),
        ({"start_methods_discover": "true"}, [], 3),
        ({"start_methods_discover": "false"}, [], 1),
        ({"start_methods_discover": "false"}, [DISCOVER], 3),
        ({"start_methods_discover": "true"}, ["-o", "start_methods_discover=false"], 1),
    ],
)
def test_the_command_line_beats_the_ini_file_beats_the_default(
    session: Session, ini: dict[str, str], args: list[str], runs: int
) -> None:
    source = suite("""
    def test_a():
        start()
    """)
    assert len(session.ini(**ini).file(test_a=source).run(*args).names) == runs


def test_a_bad_ini_value_is_one_line(session: Session) -> None:
    outcome = session.ini(start_methods_discover="perhaps").file(test_a="def test_a(): pass").run()
    assert outcome.status == 4
    line = "ERROR: ini key start_methods_discover: invalid truth value 'perhaps' (valid: true, false)"
    assert line in outcome.lines


# -- what to mark ----------------------------------------------------------------------------------------------------


def marks(outcome: Any) -> list[str]:
    """Return the lines below the section's title."""
    lines = outcome.lines
    first = next(i for i, line in enumerate(lines) if "= start methods: what to mark =" in line) + 1
    last = next(i for i, line in enumerate(lines[first:], first) if line.startswith("="))
    return lines[first:last]


@pytest.mark.skipif(OWN != "fork", reason="what fails is what fork hides")
def test_the_markers_are_printed_file_by_file(session: Session) -> None:
    session.file(
        test_all=suite("""
    def test_a():
        start()


    class TestIt:
        def test_b(self):
            start()
    """),
        test_some=suite("""
    def test_nothing():
        pass


    @pytest.mark.parametrize("n", [1, 2])
    def test_a(n):
        start()


    def test_local():
        start(target=lambda: None)


    def test_broken():
        start()
        assert 0


    def test_spawn():
        start()
        assert type(multiprocessing.get_context()).__name__ != "SpawnContext"
    """),
    )
    outcome = session.run(DISCOVER)
    assert marks(outcome) == [
        "test_all.py",
        "    pytestmark = pytest.mark.startmethods  # all 2 tests start processes",
        "",
        "test_some.py",
        "    @pytest.mark.startmethods",
        "      line 21: test_a",
        '    @pytest.mark.startmethods(xfail=("spawn", "forkserver"), reason="SM101 local-function", strict=True)',
        "      line 26: test_local",
        '    @pytest.mark.startmethods(xfail=("spawn",), reason="fails under spawn", strict=True)',
        "      line 35: test_spawn",
        "",
        "1 test fails under the interpreter's own method, too: not listed here",
    ]


@pytest.mark.skipif(OWN != "fork", reason="a prediction is made under fork")
def test_a_prediction_fails_an_unmarked_test_that_is_asked_for_it(session: Session) -> None:
    """A fork-only run can serve as a gate for a suite without markers."""
    source = suite("""
    def test_local():
        start(target=lambda: None)

    def test_fine():
        start()
    """)
    outcome = session.file(test_a=source).run(DISCOVER, "--start-methods=fork", "--start-methods-precheck=error")
    assert outcome.names == {"test_local": "failed", "test_fine": "passed"}
    assert "pre-check: what this test starts under fork would not start under spawn" in outcome.out


@pytest.mark.skipif(OWN != "fork", reason="what fails is what fork hides")
def test_the_printed_markers_are_right(session: Session) -> None:
    """When pasted, they create legs that pass or fail as expected."""
    source = suite("""
    def test_local():
        start(target=lambda: None)
    """)
    lines = marks(session.file(test_a=source).run(DISCOVER))
    assert lines[-1] == "      line 17: test_local"
    pasted = source.replace("    def test_local", "\n".join([*lines[1:-1], "    def test_local"]))
    outcome = session.file(test_a=pasted).run()
    assert outcome.names == {
        "test_local[fork]": "passed",
        "test_local[spawn]": "xfailed",
        "test_local[forkserver]": "xfailed",
    }


@pytest.mark.parametrize("args", [["-k", "test_a"], ["test_a.py::test_a"]], ids=["-k", "node id"])
def test_a_part_of_a_file_is_no_reason_to_mark_the_module(session: Session, args: list[str]) -> None:
    source = suite("""
    def test_a():
        start()


    def test_b():
        pass
    """)
    outcome = session.file(test_a=source).run(DISCOVER, *args)
    assert marks(outcome) == ["test_a.py", "    @pytest.mark.startmethods", "      line 17: test_a"]


# -- other plugins ---------------------------------------------------------------------------------------------------


def test_a_flaky_leg_is_rerun_as_any_test_is(session: Session) -> None:
    pytest.importorskip("pytest_rerunfailures")
    source = suite("""
    times = []


    def test_a():
        start()
        if multiprocessing.get_start_method() == "spawn":
            times.append(1)
            assert len(times) == 2
    """)
    outcome = session.plugin("pytest_rerunfailures").file(test_a=source).run(DISCOVER, WITH_SPAWN, "--reruns=2")
    assert outcome.status == 0, outcome.out
    assert "2 passed, 1 rerun" in outcome.out


def test_a_random_order_changes_nothing(session: Session) -> None:
    pytest.importorskip("pytest_randomly")
    outcome = session.plugin("pytest_randomly").file(test_a=PASSED).run(DISCOVER, FEW)
    assert outcome.names == {"test_nothing": "passed", **legs(*FOUND, methods=OTHERS[:1])}


def test_each_leg_has_the_time_of_a_test(session: Session) -> None:
    pytest.importorskip("pytest_timeout")
    source = suite("""
    import time


    def test_a():
        start()
        if multiprocessing.get_start_method() == "spawn":
            time.sleep(60)
    """)
    limited = """
    import pytest


    @pytest.hookimpl(tryfirst=True)
    def pytest_timeout_set_timer(item):
        return "[spawn]" not in item.nodeid or None  # the own run has all the time that it needs
    """
    outcome = (
        session.plugin("pytest_timeout")
        .file(test_a=source, conftest=limited)
        .ini(timeout="1", timeout_func_only="true")
        .run(DISCOVER, WITH_SPAWN, "--no-start-methods-verify")
    )
    assert outcome.names == legs("test_a", methods=["spawn"], spawn="failed")
    assert "Timeout" in outcome.out


def test_a_test_that_redirects_temporary_files_takes_nothing_of_ours_with_it(session: Session) -> None:
    """What the session needs is not created where the first test with a process happens to redirect its files."""
    outcome = session.file(
        conftest="import multiprocessing; multiprocessing.set_start_method('fork')",
        test_a="""
        import multiprocessing
        import tempfile

        import pytest


        @pytest.fixture(autouse=True)
        def own_temporary_files(monkeypatch):
            with tempfile.TemporaryDirectory() as directory:
                monkeypatch.setattr(tempfile, "tempdir", directory)
                yield


        def start_method_of(process):
            return process._popen.method


        def fail():
            raise ValueError("told by the child")


        @pytest.mark.parametrize("number", [1, 2])
        def test_child(number):
            process = multiprocessing.Process(target=fail)
            process.start()
            process.join()
            assert process.exitcode == 1
            assert start_method_of(process) == "fork" or number == 1, "look at the child"
        """,
    ).run("--start-methods-discover", where="subprocess")
    failed = {name for name, result in outcome.names.items() if result == "failed"}
    assert failed == {"test_child[spawn-2]", "test_child[forkserver-2]"}
    assert outcome.out.count("ValueError: told by the child") >= 2
    assert "start method forkserver: SM601" not in outcome.out
    # without legs, the first test's forkserver would be the last one
    assert any(line.startswith("SM601 forkserver-socket-lost, 2 tests") for line in outcome.lines)


@pytest.mark.parametrize("started", [True, False])
def test_a_test_of_code_that_refuses_a_method_runs_again(session: Session, started: bool) -> None:
    """Code that asks for the method and rejects it depends on it, even if it starts no process."""
    outcome = session.file(
        conftest="import multiprocessing; multiprocessing.set_start_method('fork')",
        work="""
        import multiprocessing

        def install():
            if multiprocessing.get_start_method() != "fork":
                raise AssertionError("this works with fork only")

        def method():
            return multiprocessing.get_start_method()
        """,
        test_a=f"""
        import multiprocessing
        import work

        def test_started():
            if {started}:
                process = multiprocessing.Process(target=print)
                process.start()
                process.join()

        def test_install():
            work.install()

        def test_asks_only():
            assert work.method() == "fork"
        """,
    ).run(DISCOVER, "--start-methods=fork,spawn")
    again = {"test_install[spawn]": "failed"}
    names = {name: result for name, result in outcome.names.items() if not name.startswith("test_started")}
    assert names == {"test_install": "passed", **again, "test_asks_only": "passed"}
    assert "SM504 declares-fork-only, 1 test needs fork" in outcome.lines
    assert "  work.py:4: start method check" in outcome.lines


TAKEN_AT_IMPORT = """
    import multiprocessing

    import taken

    def tell(queue):
        queue.put(type(multiprocessing.current_process()).__name__)

    class Holder:
        def __init__(self):
            self.context = taken.CONTEXT

        def name(self, queue):
            queue.put(type(self.context).__name__)

    def test_taken(request):
        process = taken.CONTEXT.Process(target=print)
        process.start()
        process.join()
        method = taken.CONTEXT.get_start_method()
        assert type(process._popen).method == method == multiprocessing.get_start_method()
        with taken.CONTEXT.Pool(1) as pool:
            assert pool.apply(len, [[1, 2]]) == 2
        queue = taken.CONTEXT.SimpleQueue()
        worker = taken.Worker(target=Holder().name, args=(queue,))
        worker.start()
        assert queue.get() == type(taken.CONTEXT).__name__
        worker.join()
        assert type(worker._popen).method == method

    def test_named():
        process = taken.NAMED.Process(target=print)
        process.start()
        process.join()
        assert type(process._popen).method == "spawn"
"""


@pytest.mark.parametrize("importer", ["conftest", "test_a"])
def test_context_taken_at_import_is_the_legs(session: Session, importer: str) -> None:
    """A context that a module took from the default context at import also starts processes with the leg's method."""
    session.file(
        taken="""
        import multiprocessing

        CONTEXT = multiprocessing.get_context()
        NAMED = multiprocessing.get_context("spawn")

        class Worker(CONTEXT.Process):
            pass
        """,
        conftest="import taken" if importer == "conftest" else "",
        test_a=TAKEN_AT_IMPORT,
    )
    default = mp.STDLIB.interpreter_default()
    others = [each for each in ("fork", "spawn", "forkserver") if each != default]
    expected = {"test_taken": "passed", **{f"test_taken[{each}]": "passed" for each in others}, "test_named": "passed"}
    outcome = session.run("--start-methods-discover")
    assert outcome.names == expected, outcome.out
    assert "vacuous" not in outcome.out


PICKED = suite("""
    @pytest.mark.parametrize("n", [1, 2])
    def test_n(n):
        start()


    class TestIt:
        def test_a(self):
            start()


    @pytest.mark.startmethods
    def test_marked():
        start()
""")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["test_n[{}-1]"], ["test_n[1]", "test_n[{}-1]"]),
        (["TestIt::test_a[{}]"], ["TestIt::test_a", "TestIt::test_a[{}]"]),
        (["test_marked[{}]"], ["test_marked[{}]"]),
        (["test_n[{}-2]", "test_n[1]"], ["test_n[2]", "test_n[1]", "test_n[{}-2]"]),
    ],
)
def test_a_leg_can_be_run_by_the_id_that_is_reported(session: Session, ids: list[str], expected: list[str]) -> None:
    """The test itself runs first, since that is how the leg is discovered."""
    method = OTHERS[0]
    outcome = session.file(test_a=PICKED).run(DISCOVER, *(f"test_a.py::{each.format(method)}" for each in ids))
    assert outcome.status == 0, outcome.out
    assert sorted(outcome.names) == sorted(each.format(method) for each in expected)


def test_an_id_of_no_test_is_not_found(session: Session) -> None:
    outcome = session.file(test_a=PICKED).run(DISCOVER, "test_a.py::test_n[spawn-7]")
    assert outcome.status == 4
    assert f"ERROR: not found: {session.path / 'test_a.py'}::test_n[spawn-7]" in outcome.lines


PARAMETERS = """
    import pytest

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(report):
        if report.when == "call":
            print(report.nodeid, dict(report.user_properties)["parameters"])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(item):
        item.user_properties.append(("parameters", getattr(item, "callspec", None) and item.callspec.params))
"""


def test_reporters_can_tell_a_discovered_leg_from_the_test(session: Session) -> None:
    """Allure takes runs with the same parameters for retries; the test's own run has those that it always had."""
    source = """
        import multiprocessing
        import pytest

        def start(target):
            process = multiprocessing.Process(target=target)
            process.start()
            process.join()

        def test_plain():
            start(repr)

        @pytest.mark.parametrize("n", [1])
        def test_parametrized(n):
            start(repr)
    """
    outcome = session.file(conftest=PARAMETERS, test_a=source).run(DISCOVER, FEW, "-s")
    assert "test_a.py::test_plain None" in outcome.out
    assert "test_a.py::test_parametrized[1] {'n': 1}" in outcome.out
    for method in OTHERS[:1]:
        assert f"test_a.py::test_plain[{method}] {{'start_method': '{method}'}}" in outcome.out
        assert f"test_a.py::test_parametrized[{method}-1] {{'n': 1, 'start_method': '{method}'}}" in outcome.out


@pytest.mark.own_interpreter
@pytest.mark.skipif(not os.path.exists("/proc/thread-self/children"), reason="children are listed by Linux")
@pytest.mark.parametrize("held", [False, True], ids=["nothing is registered", "a lock is registered"])
def test_a_fork_leg_does_not_find_the_helpers_of_the_ordinary_session(session, held):
    """The forkserver and the resource tracker end before the other methods, unless the tracker has something to do."""
    session.file(
        conftest="""
        import multiprocessing

        from pytest_startmethod.session import running

        multiprocessing.set_start_method("forkserver")
        running._HELPERS_SECONDS = 60.0  # however slow the machine is, the fork leg finds none that is about to end
        """,
        test_a=f"""
        import multiprocessing
        import pathlib

        LOCK = multiprocessing.Lock() if {held} else None


        def work(event):
            pass


        def test_children():
            process = multiprocessing.Process(target=work, args=(multiprocessing.Event(),))
            process.start()
            process.join()
            assert not pathlib.Path("/proc/thread-self/children").read_text().split()
        """,
    )
    session.run("--start-methods-discover", "--start-methods-report=report.json", "--start-methods=fork,forkserver")
    (test,) = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    outcomes = {method: leg["outcome"] for method, leg in test["legs"].items()}
    assert outcomes == {"fork": "failed" if held else "passed", "forkserver": "failed"}


@pytest.mark.own_interpreter  # an audit hook stays for ever
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_no_file_of_ours_is_opened_as_a_watched_test_starts_a_process(session):
    """An audit hook of the user's hears of no file that we open, except in the first test that starts a process."""
    outcome = session.file(
        test_a="""
        import multiprocessing
        import sys

        def noop():
            pass

        def start():
            process = multiprocessing.get_context().Process(target=noop)
            process.start()
            process.join()

        def test_first():
            start()

        def test_audited():
            start()
            listening, opened = [True], []
            sys.addaudithook(lambda event, args: listening[0] and event == "open" and opened.append(args))
            try:
                start()
            finally:
                listening[0] = False
            assert opened == []
        """,
        conftest="import multiprocessing; multiprocessing.set_start_method('fork')",
    ).run("--start-methods-discover", "--start-methods=fork")
    assert outcome.names == {"test_first": "passed", "test_audited": "passed"}
