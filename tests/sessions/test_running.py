"""A running leg: its method, its warnings, its annotated failure, and no trace of it afterwards."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys

import pytest

METHODS = [m for m in ("fork", "spawn", "forkserver") if m in multiprocessing.get_all_start_methods()]

pytestmark = pytest.mark.skipif(len(METHODS) < 3, reason="the sessions below use all three methods")

LOCAL = """
    import multiprocessing
    import pytest

    @pytest.mark.startmethods
    def test_local():
        def local():
            pass

        process = multiprocessing.Process(target=local)
        process.start()
        process.join()
        assert process.exitcode == 0
"""

SECTION = """\
  test_a.py:6: target
  `local` is defined inside `test_local`, so there is no name that a child could
  import it by.
"""


def test_each_leg_has_its_method_from_first_fixture_to_last(session):
    """Setup, call and teardown of a leg see its method; an unmarked test next to it sees the interpreter's own."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        DEFAULT = multiprocessing.get_start_method()
        multiprocessing.set_start_method(None, force=True)

        @pytest.fixture(autouse=True)
        def around(request):
            leg = "start_method" in request.fixturenames
            expected = request.getfixturevalue("start_method") if leg else DEFAULT
            assert multiprocessing.get_start_method() == expected
            yield
            assert multiprocessing.get_start_method() == expected
            if not leg:
                multiprocessing.set_start_method(None, force=True)

        @pytest.mark.startmethods
        def test_leg(start_method, mp_context):
            assert multiprocessing.get_context().get_start_method() == start_method
            assert mp_context is multiprocessing.get_context(start_method)

        def test_plain():
            assert multiprocessing.get_start_method() == DEFAULT

        @pytest.mark.startmethods("spawn")
        def test_another(start_method):
            assert multiprocessing.get_start_method() == "spawn"
        """
    )
    outcome = session.run("-p", "no:randomly")
    assert outcome.status == 0, outcome.out
    assert outcome.names == dict.fromkeys(
        ["test_leg[fork]", "test_leg[spawn]", "test_leg[forkserver]", "test_plain", "test_another[spawn]"], "passed"
    )


def test_everything_is_restored_for_unmarked_tests(session):
    """After a leg the classes, functions and contexts of multiprocessing are restored."""
    session.file(
        work="def work(): pass",
        test_a="""
        import concurrent.futures.process
        import multiprocessing.forkserver
        import multiprocessing.pool
        import multiprocessing.spawn
        import pytest
        from work import work

        def state():
            from multiprocessing import context, forkserver, pool, process, reduction, spawn
            classes = (process.BaseProcess, pool.Pool, reduction.ForkingPickler, forkserver.ForkServer,
                       concurrent.futures.process.ProcessPoolExecutor, context.DefaultContext)
            names = [dict(vars(each)) for each in classes]
            return (names, spawn.get_preparation_data, dict(vars(context._default_context)),
                    type(context._default_context), dict(vars(forkserver._forkserver)))

        multiprocessing.get_all_start_methods()  # since 3.14 it keeps what it finds
        BEFORE = state()

        @pytest.mark.startmethods
        def test_leg():
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0

        @pytest.mark.startmethods("spawn")
        def test_failing_leg():  # experiments exchange more
            multiprocessing.Process(target=lambda: None).start()

        def test_plain():
            assert state() == BEFORE
        """,
    )
    outcome = session.run()
    assert "(confirmed" in outcome.out
    assert outcome.names["test_plain"] == "passed", outcome.out


def test_what_a_task_or_a_message_cannot_hold_is_placed_where_it_was_handed_in(session):
    """A pool's thread pickles tasks; findings on different lines are separate, and one on two lines has no location."""
    session.file(
        test_a="""
        import concurrent.futures
        import multiprocessing
        import threading
        import pytest

        pytestmark = pytest.mark.startmethods("spawn")
        LOCK = threading.Lock()

        def work(lock): pass
        def test_pool():
            with multiprocessing.Pool(1) as pool:
                pool.apply(work, (LOCK,))
        def test_executor():
            with concurrent.futures.ProcessPoolExecutor(1) as executor:
                list(executor.map(work, [LOCK]))
        def test_send():
            multiprocessing.Pipe()[0].send(LOCK)
        def test_either():
            with multiprocessing.Pool(1) as pool:
                pool.apply_async(work, (1,)).get()
                pool.apply_async(work, (LOCK,)).get()
        """
    )
    outcome = session.run()
    titles = [i for i, line in enumerate(outcome.lines) if "- SM103 unpicklable-object " in line]
    assert [[line.strip() for line in outcome.lines[i + 1 : i + 3]] for i in titles] == [
        ["test_a.py:12: args[0]", "12 | pool.apply(work, (LOCK,))"],
        ["test_a.py:15: args[0]", "15 | list(executor.map(work, [LOCK]))"],
        ["test_a.py:17: object", "17 | multiprocessing.Pipe()[0].send(LOCK)"],
        ["args[0]", "`args[0]` is a lock (_thread.lock), which cannot be shared with another"],
    ]


def test_failure_keeps_its_exception_and_gains_a_section(session):
    """The user's error comes first, without CPython's frames; the section explains it."""
    outcome = session.file(test_a=LOCAL).run()
    assert outcome.names == {
        "test_local[fork]": "passed",
        "test_local[spawn]": "failed",
        "test_local[forkserver]": "failed",
    }
    assert "- SM101 local-function (confirmed under spawn) -" in outcome.out
    assert "  same failure and cause under forkserver" in outcome.lines
    assert outcome.out.count(SECTION.partition("\n")[2]) == 2  # below the failure, and in the summary
    error = next(line for line in outcome.lines if line.startswith("E  "))
    assert "local" in error
    assert "popen_spawn_posix.py" not in outcome.out
    assert "launches.py" not in outcome.out
    assert max(map(len, outcome.out.partition("- SM101")[2].splitlines()[1:12])) <= 80


def test_section_reads_as_promised(session):
    """It says what happened, why fork hid it, and what to do."""
    outcome = session.file(test_a=LOCAL).run("--tb=short", "--start-methods=spawn")
    start = outcome.lines.index("----------------- SM101 local-function (confirmed under spawn) -----------------")
    assert outcome.lines[start + 1 : start + 10] == [
        "  test_a.py:6",
        "  6 | def local():",
        "    |     ^^^^^ target",
        "  `local` is defined inside `test_local`, so there is no name that a child could",
        "  import it by.",
        "  (under fork: the child is a copy of the parent and has the function without",
        "    importing it)",
        "  fix: move `local` out of `test_local` to module level",
        "  more: python -m pytest_startmethod explain SM101",
    ]


def test_full_trace_keeps_every_frame(session):
    """--full-trace shows CPython's frames below start()."""
    outcome = session.file(test_a=LOCAL).run("--full-trace", "--start-methods=spawn")
    assert "popen_spawn_posix.py" in outcome.out


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native"])
def test_section_survives_every_traceback_style(session, style):
    """The section is printed in every style."""
    outcome = session.file(test_a=LOCAL).run(f"--tb={style}", "--show-capture=no", "--start-methods=spawn")
    if style != "line" or pytest.version_tuple >= (9,):  # pytest 8 prints only one line per failure
        assert "SM101 local-function (confirmed" in outcome.out.partition("= start methods =")[0]
    assert "SM101 local-function, 1 test fails (confirmed)" in outcome.lines


def test_summary_counts_and_names(session):
    """The summary has the table, the verdicts, and the cause with its first leg; with -v every test."""
    outcome = session.file(test_a=LOCAL).run()
    start = outcome.lines.index("================================ start methods =================================")
    assert outcome.lines[start + 1 : start + 13] == [
        "             passed   failed",
        "fork              1        -",
        "spawn             -        1",
        "forkserver        -        1",
        "1 test needs fork",
        "",
        "SM101 local-function, 1 test needs fork (confirmed)",
        *SECTION.splitlines(),
        "  fix: move `local` out of `test_local` to module level",
        "  first: test_a.py::test_local[spawn] and 1 more (-v)",
    ]
    verbose = session.run("-v")
    tail = verbose.out[verbose.out.index("= start methods") :]
    assert "  test_a.py::test_local (spawn, forkserver)\n" in tail


def test_markers_for_what_still_fails_can_be_pasted(session):
    """With -v there is one line with methods and cause; when pasted, the suite passes."""
    session.file(test_a=LOCAL)
    line = '@pytest.mark.startmethods(xfail=("spawn", "forkserver"), reason="SM101 local-function", strict=True)'
    out = session.run("-v", "--tb=no").lines
    at = out.index(f"    {line}")
    assert out[at - 1 : at + 2] == ["test_a.py", f"    {line}", "      line 4: test_local"]
    assert f"    {line}" not in session.run("--tb=no").lines
    pasted = session.file(test_a=LOCAL.replace("@pytest.mark.startmethods", line)).run()
    assert pasted.status == 0
    assert "1 test fails as expected (1 still needs fork)" in pasted.lines


def test_quiet_is_quiet(session):
    """There is one line at -q, plus one below a failure; none at -qq; without marked tests no output at all."""
    quiet = session.file(test_a=LOCAL).run("-q")
    assert "start methods: 1 test needs fork [SM101 x1]" in quiet.lines
    at = quiet.lines.index("SM101 local-function (confirmed): test_a.py:6")
    assert quiet.lines[at + 1] == "  same failure and cause under forkserver"
    assert "  fix: " not in quiet.out
    assert "start methods =" not in quiet.out
    assert "start methods" not in session.run("-qq").out
    assert "start method" not in session.file(test_a="def test_a(): pass\n").run("-v").out


def test_one_start_that_fails_many_tests_is_explained_once(session):
    """A module fixture's failing start is repeated for every test: one cause, one count."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        pytestmark = pytest.mark.startmethods("spawn")

        @pytest.fixture(scope="module")
        def server(start_method):
            process = multiprocessing.Process(target=lambda: None)
            process.start()

        @pytest.mark.parametrize("n", range(4))
        def test_a(server, n):
            pass
        """
    )
    outcome = session.run()
    assert set(outcome.names.values()) == {"error"}
    assert "SM101 local-function, 4 tests fail (confirmed)" in outcome.lines
    assert outcome.lines.count("  as explained below test_a.py::test_a[spawn-0]") == 3
    section, summary = outcome.out.split("= start methods =")
    assert section.count("fix: replace the lambda") == summary.count("fix: replace the lambda") == 1


def test_swallowed_start_is_the_cause_of_the_symptom(session):
    """A start fails in a thread and the test fails on an empty queue: the finding is about the start."""
    session.file(
        test_a="""
        import multiprocessing
        import queue
        import threading
        import pytest

        @pytest.mark.startmethods("spawn")
        @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
        def test_a():
            answers = queue.Queue()

            def serve():
                multiprocessing.Process(target=lambda: None).start()
                answers.put(1)

            thread = threading.Thread(target=serve)
            thread.start()
            thread.join()
            answers.get_nowait()
        """
    )
    outcome = session.run()
    assert outcome.names == {"test_a[spawn]": "failed"}
    assert "_queue.Empty" in outcome.out
    assert "- SM101 local-function (confirmed under spawn) -" in outcome.out
    assert "  and so: SM408 start-failed-elsewhere: start() of" in outcome.out


def test_swallowed_start_of_a_leg_that_passed_is_told(session):
    """The outcome stays; the summary has the cause."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        @pytest.mark.startmethods("spawn")
        def test_a():
            with pytest.raises(Exception, match="lambda"):
                multiprocessing.Process(target=lambda: None).start()
        """
    )
    outcome = session.run()
    assert outcome.names == {"test_a[spawn]": "passed"}
    assert "SM101 local-function, 1 test passes" in outcome.lines


def test_prediction_under_fork_alone(session):
    """If spawn was not selected, the fork leg predicts its failure."""
    outcome = session.file(test_a=LOCAL).run("--start-methods=fork")
    assert outcome.status == 0
    assert "SM101 local-function, predicted for spawn and forkserver: 1 test" in outcome.lines
    assert "  fix: move `local` out of `test_local` to module level" in outcome.lines


EMPTIES = """
import multiprocessing
import os
import threading

import pytest

pytestmark = pytest.mark.startmethods("fork")
CALLS = []


class Job:
    def __init__(self):
        self.lock, self.data = threading.Lock(), [1]

    def __getstate__(self):
        CALLS.append(os.getpid())
        print("pickling")
        state = self.__dict__
        del state["data"]
        return state


def work(job, answers):
    answers.send((job.data, CALLS, len(multiprocessing.active_children())))


@pytest.fixture
def forks():
    seen = []
    os.register_at_fork(before=lambda: seen.append(os.getpid()) if os.getpid() == me else None)
    me = os.getpid()
    return seen


def test_a(forks, capfd):
    others = multiprocessing.active_children()
    job = Job()
    answer, answers = multiprocessing.Pipe()
    process = multiprocessing.Process(target=work, args=(job, answers))
    process.start()
    answers.close()
    assert answer.recv() == ([1], [], 0)
    with pytest.raises(EOFError):
        answer.recv()
    process.join()
    assert len(forks) == 1
    assert (job.data, CALLS, set(multiprocessing.active_children()) <= set(others)) == ([1], [], True)
    assert capfd.readouterr().out == ""
"""


def test_a_pre_check_that_runs_the_users_code_is_seen_by_nobody(session):
    """User code runs in a copy of the child: parent and child see no state, output, fork, process or pipe of it."""
    outcome = session.file(test_a=EMPTIES).run("--start-methods-precheck=error")
    reason = outcome.reasons["test_a.py::test_a[fork]"]
    assert "pre-check: what this test starts under fork would not start under spawn" in reason
    assert "SM103 unpicklable-object: args[0].lock" in outcome.out


SLOW = """
    import multiprocessing, os, pytest

    class Slow:
        def __reduce__(self):
            while not os.path.exists(__file__ + ".go"):
                os.sched_yield()
            raise TypeError("no")

    @pytest.mark.startmethods
    def test_slow():
        process = multiprocessing.Process(target=id, args=(Slow(),))
        process.start()
        process.join()

    def test_later():
        open(__file__ + ".go", "w").close()
"""


@pytest.mark.parametrize("where", ["in-process", "xdist"])
def test_pickling_that_takes_long_delays_no_leg(session, where):
    """A pre-check that has no answer at the end of its leg has one at the end of the session."""
    outcome = session.file(test_a=SLOW).run("--start-methods=fork", where=where)
    assert outcome.names == {"test_slow[fork]": "passed", "test_later": "passed"}, outcome.out
    assert "SM105 pickling-raised, predicted for spawn and forkserver: 1 test" in outcome.lines


def test_precheck_error_fails_the_fork_leg(session):
    """Command line beats ini: an unpicklable launch fails its fork leg, with the finding as the message."""
    outcome = session.file(test_a=LOCAL).run("--start-methods=fork", "--start-methods-precheck=error")
    assert outcome.names == {"test_local[fork]": "failed"}
    assert (
        "pre-check: what this test starts under fork would not start under spawn"
        in outcome.reasons["test_a.py::test_local[fork]"]
    )
    assert all(len(line) <= 80 for line in outcome.reasons["test_a.py::test_local[fork]"].splitlines())
    assert "SM101 local-function: target" in outcome.out


def test_precheck_off_is_silent(session):
    """Nothing is pickled and nothing is printed."""
    outcome = session.file(test_a=LOCAL).ini(start_methods_precheck="off").run("--start-methods=fork")
    assert outcome.status == 0
    assert "SM101" not in outcome.out


VACUOUS = """
    import pytest

    @pytest.mark.startmethods("spawn")
    def test_a():
        pass
"""


def test_vacuous_leg_is_named(session):
    """By default no outcome changes."""
    outcome = session.file(test_a=VACUOUS).run()
    assert outcome.names == {"test_a[spawn]": "passed"}
    start = outcome.lines.index("SM501 vacuous: 1 leg passed without a process of its method")
    assert outcome.lines[start : start + 4] == [
        "SM501 vacuous: 1 leg passed without a process of its method",
        "  started no process",
        "  fix: take the marker off this test, or start the process in the test",
        "  test_a.py::test_a (spawn)",
    ]


def test_vacuous_leg_can_fail(session):
    """With `fail` the finding becomes the leg's failure."""
    outcome = session.file(test_a=VACUOUS).run("--start-methods-vacuous=fail")
    assert outcome.names == {"test_a[spawn]": "failed"}
    assert outcome.reasons["test_a.py::test_a[spawn]"] == (
        "vacuous: started no process (SM501)\nfix: take the marker off this test, or start the process in the test"
    )


def test_vacuous_leg_that_fails_keeps_the_width(session):
    """The text is wrapped at 80 columns; the report's message is the whole sentence."""
    session.file(
        test_a_name_that_is_long_enough="""
        import multiprocessing
        import pytest

        @pytest.mark.startmethods("spawn", vacuous="fail")
        def test_a():
            process = multiprocessing.get_context("fork").Process(target=print)
            process.start()
            process.join()
        """
    )
    outcome = session.run("--start-methods-report=report.json")
    (reason,) = outcome.reasons.values()
    assert reason.splitlines()[:2] == [
        "vacuous: started 1 process with fork: get_context('fork') at",
        "  test_a_name_that_is_long_enough.py:6 (SM502)",
    ]
    (test,) = json.loads((session.path / "report.json").read_text())["tests"]
    assert test["legs"]["spawn"]["message"] == (
        "vacuous: started 1 process with fork: get_context('fork') at test_a_name_that_is_long_enough.py:6 (SM502)"
    )


def test_vacuous_leg_can_be_left_alone(session):
    """With `ignore` nothing is printed, and the marker beats the option."""
    assert "SM501" not in session.file(test_a=VACUOUS).run("--start-methods-vacuous=ignore").out
    session.file(test_a=VACUOUS.replace('"spawn"', '"spawn", vacuous="ignore"'))
    assert session.run("--start-methods-vacuous=fail").status == 0


def test_fixture_that_started_earlier_is_named(session):
    """A module-scoped pool created under fork serves the spawn leg: SM503 names the fixture."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        @pytest.fixture(scope="module")
        def pool():
            with multiprocessing.Pool(1) as pool:
                yield pool

        @pytest.mark.startmethods("fork", "spawn")
        def test_a(pool):
            assert pool.apply(abs, (-1,)) == 1
        """
    )
    outcome = session.run()
    assert outcome.status == 0
    assert "SM503 fixture-started-earlier: 1 leg passed without a process of its method" in outcome.lines
    assert "  test_a.py::test_a (spawn)" in outcome.lines


def test_fixture_that_is_rebuilt_is_not_vacuous(session):
    """A module-scoped pool that requests the method serves the tests of its method."""
    session.file(
        test_a="""
        import pytest

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        @pytest.fixture(scope="module")
        def pool(mp_context):
            with mp_context.Pool(1) as pool:
                yield pool

        def test_a(pool):
            assert pool.apply(abs, (-1,)) == 1

        def test_b(pool):
            assert pool.apply(abs, (-1,)) == 1
        """
    )
    outcome = session.run()
    assert outcome.status == 0
    assert "SM50" not in outcome.out


SETS = """
    import multiprocessing
    import pytest

    @pytest.fixture(scope="session", autouse=True)
    def choose():
        multiprocessing.set_start_method("spawn")

    @pytest.mark.startmethods("fork", "spawn")
    def test_leg(start_method):
        assert multiprocessing.get_start_method() == start_method

    def test_plain():
        assert multiprocessing.get_start_method(allow_none=True) == "spawn"
"""


def test_set_start_method_in_a_session_fixture_is_set_aside_and_named(session, where):
    """It neither crashes nor wins, and applies to the unmarked test."""
    options = ["--dist=loadfile"] if where == "xdist" else []
    outcome = session.file(test_a=SETS).run(*options, where=where)
    assert set(outcome.names.values()) == {"passed"}, outcome.out
    assert (
        "/test_a.py:6: StartMethodWarning: set_start_method('spawn') is set aside while a leg runs: "
        "each leg runs under its own method" in outcome.out
    )


def test_set_start_method_in_conftest_is_set_aside_and_named(session):
    """A call before the first leg is found in the source."""
    session.file(
        conftest="""
        import multiprocessing

        multiprocessing.set_start_method("spawn")
        """,
        test_a=SETS.replace("set_start_method(", "get_start_method() or ("),
    )
    outcome = session.run()
    assert set(outcome.names.values()) == {"passed"}, outcome.out
    assert "/conftest.py:3: StartMethodWarning: set_start_method('spawn') is set aside while a leg runs" in outcome.out


def test_first_use_of_the_default_context_is_no_call_of_set_start_method(session):
    """A lock created at import fixes the default, without a warning about set_start_method."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        LOCK = multiprocessing.RLock()

        @pytest.mark.startmethods
        def test_a(start_method):
            assert multiprocessing.get_start_method() == start_method
        """
    )
    outcome = session.run("-W", "error")
    assert set(outcome.names.values()) == {"passed"}, outcome.out
    assert "StartMethodWarning" not in outcome.out


def test_set_start_method_in_the_test_wins_and_is_named(session):
    """The test keeps its outcome; the leg is vacuous."""
    session.file(
        work="def work(): pass",
        test_a="""
        import multiprocessing
        import pytest
        from work import work

        @pytest.mark.startmethods("fork", "spawn")
        def test_a():
            multiprocessing.set_start_method("spawn", force=True)
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
            assert multiprocessing.get_start_method() == "spawn"

        def test_plain():
            assert multiprocessing.get_start_method(allow_none=True) is None
        """,
    )
    outcome = session.run()
    assert set(outcome.names.values()) == {"passed"}
    assert (
        "/test_a.py:7: StartMethodWarning: set_start_method('spawn') replaces the method of test_a.py::test_a[fork] "
        "from here on: what it starts tests spawn" in outcome.out
    )
    assert "  test_a.py::test_a (fork)" in outcome.lines
    assert "set_start_method('spawn') at test_a.py:7" in outcome.out


def test_warnings_as_errors_change_no_outcome(session):
    """Under -W error the warning is in the summary, and the test still passes."""
    outcome = session.file(test_a=SETS).run("-W", "error")
    assert set(outcome.names.values()) == {"passed"}, outcome.out
    assert "StartMethodWarning: test_a.py:6: set_start_method('spawn') is set aside while a" in outcome.out


def test_xfail_and_skip_keep_their_meaning(session):
    """A leg's xfail and skip are pytest's own."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        @pytest.mark.startmethods("fork", pytest.param("spawn", marks=pytest.mark.xfail(reason="closure", strict=True)))
        def test_a():
            process = multiprocessing.Process(target=lambda: None)
            process.start()
            process.join()
            assert process.exitcode == 0

        @pytest.mark.startmethods("spawn")
        def test_b():
            pytest.skip("not today")
        """
    )
    outcome = session.run()
    assert outcome.names == {"test_a[fork]": "passed", "test_a[spawn]": "xfailed", "test_b[spawn]": "skipped"}
    assert outcome.status == 0


def test_check_of_the_method_is_sm504(session):
    """Code that rejects the method is reported as such, with its line."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        def start():
            if multiprocessing.get_start_method() != "fork":
                raise RuntimeError("only fork is supported")

        @pytest.mark.startmethods("spawn")
        def test_a():
            start()
        """
    )
    outcome = session.run()
    assert "- SM504 declares-fork-only -" in outcome.out
    assert "the code checks the start method at test_a.py:5 and raises under spawn" in outcome.out


def test_children_do_not_import_pytests_main(session):
    """A child's main module is not pytest's, and the forkserver has already imported pytest."""
    session.file(
        work="""
        import sys

        def modules(connection):
            main = getattr(sys.modules["__main__"], "__file__", "none")
            connection.send((main, "_pytest" in sys.modules))
        """,
        test_a="""
        import multiprocessing
        import pytest
        from work import modules

        @pytest.mark.startmethods("spawn", "forkserver")
        def test_a(start_method):
            parent, child = multiprocessing.Pipe()
            process = multiprocessing.Process(target=modules, args=(child,))
            process.start()
            assert parent.recv() == ("none", start_method == "forkserver")
            process.join()
        """,
    )
    assert session.run().names == {"test_a[spawn]": "passed", "test_a[forkserver]": "passed"}


def test_runner_without_a_guard_is_named_by_every_leg_that_has_children(session):
    """Each leg says what its children would do, below the cause if it failed; the summary says it once."""
    session.file(
        runner="""
        import sys
        import pytest

        sys.exit(pytest.main(sys.argv[1:]))
        """,
        test_a="""
        import multiprocessing
        import pytest

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        def start(target):
            process = multiprocessing.Process(target=target)
            process.start()
            process.join()

        def test_a():
            start(print)

        def test_b():
            start(lambda: None)

        def test_c():
            pass
        """,
    )
    plugins = [word for name in session.plugins for word in ("-p", name)]
    result = session.pytester.run(sys.executable, "runner.py", *plugins, "--start-methods-report=report.json")
    tests = json.loads((session.path / "report.json").read_text())["tests"]
    told = [[(each["code"], each["level"], each["methods"]) for each in test["findings"]] for test in tests]
    runner = ("SM401", "note", ["spawn"])
    assert told[:2] == [[runner], [("SM101", "cause", ["spawn"]), runner]]
    assert [code for code, *_ in told[2]] == ["SM501"]
    result.stdout.fnmatch_lines(["SM401 main-guard, 2 tests: *", "  runner.py:4: __main__"])
    assert str(result.stdout).count("outside a main guard") == 1


def test_leg_gets_a_forkserver_as_good_as_new(session):
    """Its children see the environment and directory of each leg."""
    session.file(
        work="""
        import os

        def look(connection):
            connection.send((os.environ.get("LEG"), os.getcwd()))
        """,
        test_a="""
        import multiprocessing
        import os
        import pytest
        from work import look

        @pytest.mark.startmethods("forkserver")
        @pytest.mark.parametrize("n", ["1", "2", "2"])
        def test_a(n, monkeypatch, tmp_path):
            monkeypatch.setenv("LEG", n)
            monkeypatch.chdir(tmp_path)
            parent, child = multiprocessing.Pipe()
            process = multiprocessing.Process(target=look, args=(child,))
            process.start()
            assert parent.recv() == (n, str(tmp_path))
            process.join()
        """,
    )
    assert set(session.run().names.values()) == {"passed"}


def test_capfd_sees_what_a_child_writes(session):
    """The server's standard streams are the leg's."""
    session.file(
        work="""
        def say(text):
            print(text, flush=True)
        """,
        test_a="""
        import multiprocessing
        import pytest
        from work import say

        @pytest.mark.startmethods
        @pytest.mark.parametrize("n", ["one", "two"])
        def test_a(n, capfd):
            process = multiprocessing.Process(target=say, args=(n,))
            process.start()
            process.join()
            assert capfd.readouterr().out == n + "\\n"
        """,
    )
    assert set(session.run().names.values()) == {"passed"}


def test_subtests_and_testcases_are_annotated(session):
    """A TestCase's failure has its section, which mentions none of pytest's objects."""
    session.file(
        test_a="""
        import multiprocessing
        import unittest
        import pytest

        @pytest.mark.startmethods("fork", "spawn")
        class TestA(unittest.TestCase):
            def work(self):
                pass

            def test_a(self):
                process = multiprocessing.Process(target=self.work)
                process.start()
                process.join()
                self.assertEqual(process.exitcode, 0)
        """
    )
    outcome = session.run()
    assert outcome.names == {"TestA::test_a[fork]": "passed", "TestA::test_a[spawn]": "failed"}
    assert "- SM103 unpicklable-object (confirmed under spawn) -" in outcome.out
    assert "`self.work` is a method of the running TestCase `TestA`" in outcome.out


def test_report_is_the_same_with_xdist(session):
    """The summary of -n 2 is the same as without."""
    methods = "--start-methods=fork,spawn"
    session.file(test_a=LOCAL, test_b=VACUOUS, test_c=LOCAL.replace("local", "other"))

    def summary(outcome):
        start = outcome.lines.index("================================ start methods =================================")
        end = outcome.lines.index("=========================== short test summary info ============================")
        assert outcome.lines[end - 1].startswith("2 failed legs verified in 2 runs, ")
        return outcome.lines[start : end - 1]

    assert summary(session.run(methods, "-n", 2, where="xdist")) == summary(session.run(methods))


def test_our_own_failure_leaves_the_outcome_alone(session):
    """If the annotation raises, the test fails as before, and the summary shows our error."""
    session.file(
        test_a=LOCAL,
        breaks="""
        from pytest_startmethod.causes import explain

        def broken(evidence):
            raise ZeroDivisionError("ours")

        explain.explain = broken
        """,
    )
    outcome = session.plugin("breaks").run("--start-methods=spawn", where="subprocess")
    assert outcome.names == {"test_local[spawn]": "failed"}
    assert "pytest-startmethod: ZeroDivisionError: ours" in outcome.lines


def test_collect_only_starts_nothing(session):
    """Nothing runs, and there is no summary."""
    outcome = session.file(test_a=LOCAL).run("--collect-only")
    assert outcome.collected == ["test_local[fork]", "test_local[spawn]", "test_local[forkserver]"]
    assert "start methods =" not in outcome.out


def test_no_process_is_left(session):
    """The forkservers end with the session."""
    session.file(
        test_a="""
        import multiprocessing
        import os
        from pathlib import Path
        import pytest

        def work(connection):
            connection.send(os.getppid())

        @pytest.mark.startmethods("forkserver")
        def test_a():
            parent, child = multiprocessing.Pipe()
            process = multiprocessing.Process(target=work, args=(child,))
            process.start()
            Path("server").write_text(str(parent.recv()))
            process.join()
        """
    )
    assert session.run().status == 0
    pid = int((session.path / "server").read_text())
    with pytest.raises(ChildProcessError):  # another process may have its pid by now
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.14 adds the notes")
def test_notes_of_a_deep_object_are_cut(session):
    """One note per level would fill the screen many times over; --full-trace keeps them."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        @pytest.mark.startmethods("spawn")
        def test_a():
            deep = lambda: None
            for _ in range(40):
                deep = {"key": deep}
            multiprocessing.Process(target=print, args=(deep,)).start()
        """
    )
    cut = session.run().out
    assert cut.count("when serializing dict item 'key'") < 20
    assert "more levels (--full-trace shows them)" in cut
    assert session.run("--full-trace").out.count("when serializing dict item 'key'") >= 40


def test_leg_that_passes_when_it_is_run_again_passed(session):
    """The last run of a rerun leg counts, and the failure of the first is discarded."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        RUNS = []

        def work():
            pass

        @pytest.mark.startmethods("spawn")
        def test_a():
            RUNS.append(1)
            process = multiprocessing.Process(target=work if len(RUNS) == 2 else lambda: None)
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
        again="""
        import pytest
        from _pytest.runner import runtestprotocol

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for attempt in range(2):
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
                if attempt == 0:
                    item._initrequest()
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """,
    )
    outcome = session.plugin("again").run()
    assert outcome.names == {"test_a[spawn]": "passed"}
    assert "1 test passes" in outcome.lines
    assert "SM101" not in outcome.out


def test_two_files_of_one_module_name(session):
    """The second conftest takes the name of the first: SM104 says so, and does not blame the name."""
    session.file("a/conftest.py", "def helper():\n    pass\n").file("b/conftest.py", "").file("b/test_b.py", "")
    session.file(
        "a/test_a.py",
        """
        import multiprocessing
        import pytest
        from conftest import helper

        @pytest.mark.startmethods("spawn")
        def test_a():
            multiprocessing.Process(target=helper).start()
        """,
    )
    text = " ".join(session.run().out.split())
    assert (
        "a/conftest.py:1: target it comes from a module `conftest`, and that name now belongs to another file, "
        "b/conftest.py, which is where a child would look for `helper`." in text
    )


def test_patched_target_is_told_at_the_line_that_starts_it(session):
    """A mock has no location of its own; the finding names what it replaces."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest
        from unittest import mock
        import work

        @pytest.mark.startmethods("spawn")
        def test_a():
            with mock.patch("work.run"):
                multiprocessing.Process(target=work.run).start()
        """,
        work="""
        def run():
            pass
        """,
    )
    outcome = session.run()
    assert "  test_a.py:9: target" in outcome.lines
    assert "  bound to: work.run" in outcome.lines


def test_multiprocessing_is_itself_again_when_a_session_stops_between_legs(session):
    """With -x no further leg runs, and replacements shared by legs are still undone."""
    start, data = multiprocessing.process.BaseProcess.start, multiprocessing.spawn.get_preparation_data
    out = session.file(test_a=LOCAL).run("-x", "--start-methods=spawn,forkserver", where="in-process")
    assert out.names == {"test_local[spawn]": "failed"}
    assert (multiprocessing.process.BaseProcess.start, multiprocessing.spawn.get_preparation_data) == (start, data)


def test_unmarked_test_between_legs_sees_multiprocessing_itself(session):
    """Consecutive legs share their replacements, which any other test ends."""
    session.file(
        test_a="""
        import multiprocessing.process
        import multiprocessing.spawn

        import pytest

        def now():
            process = multiprocessing.process.BaseProcess
            return process.start, process._bootstrap, multiprocessing.spawn.get_preparation_data

        ORIGINAL = now()

        @pytest.mark.startmethods
        def test_one():
            assert not any(a is b for a, b in zip(now(), ORIGINAL))

        def test_unmarked():
            assert all(a is b for a, b in zip(now(), ORIGINAL))

        @pytest.mark.startmethods
        def test_two():
            assert not any(a is b for a, b in zip(now(), ORIGINAL))

        def test_last():
            assert all(a is b for a, b in zip(now(), ORIGINAL))
        """
    )
    out = session.run("--start-methods-vacuous=ignore")
    assert set(out.results.values()) == {"passed"}
    assert len(out.results) == 8


@pytest.mark.own_interpreter
def test_library_that_nobody_imports_is_not_imported_for_us(session):
    """A leg with a plain process imports neither pools nor locks, and later imports of them are still watched."""
    session.file(
        test_a="""
        import multiprocessing
        import sys

        import pytest

        LATE = {"concurrent.futures.process", "multiprocessing.pool", "multiprocessing.synchronize"}

        @pytest.mark.startmethods("fork")
        def test_process():
            process = multiprocessing.Process(target=abs, args=(1,))
            process.start()
            process.join()
            assert LATE.isdisjoint(sys.modules)

        @pytest.mark.startmethods("spawn")
        def test_pool():
            with multiprocessing.Pool(1) as pool:
                pool.apply(lambda: 1)
        """
    )
    out = session.run("--start-methods-report=report.json")
    assert out.names == {"test_process[fork]": "passed", "test_pool[spawn]": "failed"}
    tests = json.loads((session.path / "report.json").read_text())["tests"]
    found = tests[1]["findings"][0]
    assert (found["code"], found["path"]) == ("SM101", "target")


NEEDED_BY_FAILURES = {"causes.children", "causes.state", "experiments.plan", "source.places", "state.fresh_child"}


@pytest.mark.own_interpreter
@pytest.mark.parametrize("fails", [False, True], ids=["passes", "fails"])
def test_only_a_failure_loads_what_explains_it(session, fails):
    """Forks cost in proportion to the parent's memory, so passing tests do not import it."""
    session.file(
        work="def work(): pass",
        test_a=f"""
        import multiprocessing
        import pytest
        from work import work

        @pytest.mark.startmethods
        @pytest.mark.parametrize("n", range(3))
        def test_a(n):
            process = multiprocessing.Process(target=(lambda: 1) if {fails} and n == 2 else work)
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
        look="""
        import sys
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish():
            print("loaded:", *sorted(name for name in sys.modules if name.startswith("pytest_startmethod.")))
        """,
    ).plugin("look")
    outcome = session.run("-s")
    (line,) = (line for line in outcome.lines if "loaded:" in line)
    loaded = {name.removeprefix("pytest_startmethod.") for name in line.split("loaded:")[1].split()}
    assert sorted(outcome.results.values()) == (["failed"] * 2 + ["passed"] * 7 if fails else ["passed"] * 9)
    assert {"launches.recorder", "activation.clock"} <= loaded
    assert bool(NEEDED_BY_FAILURES & loaded) == fails


ISOLATES = """
    import os
    import pickle

    import pytest
    from _pytest import runner

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(item, nextitem):
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            reports = runner.runtestprotocol(item, nextitem=nextitem, log=False)
            to_send = [item.config.hook.pytest_report_to_serializable(config=item.config, report=r) for r in reports]
            os.write(send, pickle.dumps(to_send))
            os._exit(0)
        os.close(send)
        with open(receive, "rb") as file:
            reports = pickle.load(file)
        os.waitpid(pid, 0)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in reports:
            report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
            item.ihook.pytest_runtest_logreport(report=report)
        return True
"""


@pytest.mark.own_interpreter
def test_a_leg_in_a_process_of_its_own_has_its_launches(session):
    """pytest-forked runs each test in a fork: what that starts is recorded there, and no leg is called vacuous."""
    outcome = session.file(conftest=ISOLATES, test_a=LOCAL).run()
    assert outcome.names == {
        "test_local[fork]": "passed",
        "test_local[spawn]": "failed",
        "test_local[forkserver]": "failed",
    }, outcome.out
    assert "SM101 local-function, 1 test needs fork" in outcome.lines
    assert "vacuous" not in outcome.out


def test_no_frame_of_ours_is_in_an_exception_group(session):
    """Groups that pytest raises after a test, of warnings or errors, are printed with every frame, none of ours."""
    outcome = session.file(
        test_a="""
        import gc
        import pytest

        def leak():
            for name in ("a", "b"):
                open(__file__)
            gc.collect()

        @pytest.fixture
        def leaking():
            leak()
            yield
            leak()

        @pytest.mark.startmethods
        def test_leg(leaking):
            leak()

        def test_plain(leaking):
            leak()

        def test_stop():
            raise StopIteration
        """
    ).run("-W", "error", "--full-trace")
    assert set(outcome.names.values()) == {"error", "failed"}
    assert f"pytest_startmethod{os.sep}session" not in outcome.out
    assert "StopIteration" in outcome.out
