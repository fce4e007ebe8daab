"""However a leg, its children and the session end, it is reported, takes limited time and leaves nothing behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_startmethod.launches import stacks
from pytest_startmethod.launches.leftovers import sentences
from pytest_startmethod.model.launch import Launch
from pytest_startmethod.model.place import Place
from pytest_startmethod.source import callers

pytestmark = [
    pytest.mark.own_interpreter,  # leaves cleanup to the end of the process
    pytest.mark.skipif(
        len(multiprocessing.get_all_start_methods()) < 3 or sys.platform != "linux", reason="asks Linux what is left"
    ),
]


def processes_with(*marks):
    """Return the pids of processes with one of `marks` in their environment or on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if any(mark.encode() in text for mark in marks):
                found.append(int(entry.name))
    return found


def wait_for_ends(*marks):
    """Wait up to a minute until no process has one of `marks`; return the pids of those that still do."""
    deadline = time.monotonic() + 60
    while (pids := processes_with(*marks)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError), os.fdopen(os.pidfd_open(pid)) as process:
                select.select([process], [], [], max(deadline - time.monotonic(), 0))
    return pids


@pytest.fixture
def alone(session, monkeypatch, tmp_path_factory):
    """Mark a session in its environment, give it a temporary directory, and check that nothing of either is left."""
    mark = f"PYTEST_STARTMETHOD_MARK={session.path.name}-{os.getpid()}"
    temporary = tmp_path_factory.mktemp("t")
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setenv("TMPDIR", str(temporary))
    session.mark, session.temporary = mark, temporary
    # children import the module of their target: with a test module, they would import pytest
    session.file(targets=TARGETS)
    yield session
    monkeypatch.delenv("PYTEST_STARTMETHOD_MARK")
    left = [described(pid) for pid in wait_for_ends(mark, f"{temporary}{os.sep}")]
    assert not left, "\n".join(map(str, left))
    assert leftovers(temporary) == []


def described(pid):
    """Describe a process by its command line and what it waits for, as far as the kernel tells."""
    texts = []
    for name in ("cmdline", "wchan"):
        try:
            texts.append((Path("/proc") / str(pid) / name).read_text().replace("\0", " ")[:400])
        except OSError:
            continue
    return texts


@pytest.fixture(params=["subprocess", "xdist"])
def where(request):
    """In this process the test could not check anything: cleanup is left to the process."""
    return request.param


def methods_for(where):
    """Return the methods to try: a worker of xdist hands on what a leg is, whatever its method."""
    return ["spawn"] if where == "xdist" else ["fork", "spawn", "forkserver"]


def leftovers(directory):
    return [each.name for each in directory.iterdir() if each.name.startswith("pymp-")]


def lines_of(outcome, start):
    at = next(i for i, line in enumerate(outcome.lines) if line.startswith(start))
    return outcome.lines[at:]


TARGETS = """
    import ctypes
    import os
    import signal

    VALUE = 1

    def wait(event):
        event.wait()

    def send_and_wait(connection):
        connection.send("here")
        connection.recv()

    def fail(number):
        total = number + 1
        assert total == 3

    def crash():
        ctypes.string_at(0)

    def fill(queue):
        queue.put("x" * 10_000_000)

    def number(value):
        return value

    def refuse():
        raise RuntimeError("no worker today")

    def die_twice(path):
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) <= 2:
            os._exit(3)

    def serve(connection):
        while connection.recv():
            connection.send("here")

    def read():
        assert VALUE == 2

    def leave(*_):
        os.write(2, b"LAST WORDS")
        os._exit(0)

    def wait_for_the_end(connection):
        signal.signal(signal.SIGTERM, leave)
        connection.send(1)
        signal.pause()
"""

HANG = """
    import multiprocessing
    import pytest
    from targets import wait

    @pytest.mark.startmethods
    def test_a():
        event = multiprocessing.Event()
        process = multiprocessing.Process(target=wait, args=(event,))
        process.start()
        process.join()

    def test_b():
        pass
"""


def test_hang_ends_at_its_limit_and_is_told(alone, where):
    """The leg fails, the session carries on, the stacks of parent and child are shown, and the child is gone."""
    methods = methods_for(where)
    alone.plugin("session_still").file(test_a=HANG)
    outcome = alone.run("--start-methods-timeout=1", "-v", f"--start-methods={','.join(methods)}", where=where)
    assert outcome.names == {**{f"test_a[{method}]": "failed" for method in methods}, "test_b": "passed"}
    for method in methods:
        assert f"the leg test_a.py::test_a[{method}] was not over after 1 s (--start-methods-timeout)" in outcome.out
        assert "- SM403 hang -" in outcome.out
    text = " ".join(outcome.out.split())
    assert "it is at test_a.py:10 in test_a, waiting for a process to end" in text
    assert "at targets.py:8 in wait, waiting for a multiprocessing event, condition or barrier" in text


def test_hang_without_any_process_is_a_note(alone):
    """A hang without processes has nothing to do with the start method."""
    alone.file(
        test_a="""
        import pytest
        import threading

        @pytest.mark.startmethods("spawn", timeout=0.5)
        def test_a():
            threading.Event().wait()
        """
    )
    outcome = alone.run(where="in-process")
    text = " ".join(outcome.out.split())
    assert "the leg started no process: whatever it waits for has nothing to do with the start method" in text
    assert "fix: give the wait a time limit, so that it fails with a reason" in text


def test_marker_and_ini_and_option_set_the_limit(alone):
    """The marker beats the option, the option beats the ini key; 0 means no limit."""
    alone.file(test_a=HANG.replace("startmethods", 'startmethods("fork", timeout=0.5)'))
    out = alone.ini(start_methods_timeout="40").run("--start-methods-timeout=30", where="in-process").out
    limit = r"the leg test_a.py::test_a\[fork\] was not over after 0.5 s( of set-up)? \(timeout= of its marker\)"
    assert re.search(limit, out)
    alone.file(test_a=HANG.replace("startmethods", 'startmethods("fork")'))
    assert "after 0.7 s" in alone.ini(start_methods_timeout="0.7").run(where="in-process").out


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_limit_that_cannot_be_meant_is_one_line(session, text):
    """The line has the value, where it was set, and the valid values."""
    outcome = session.file(test_a=HANG).run(f"--start-methods-timeout={text}", where="in-process")
    assert outcome.status == 4
    expected = f"--start-methods-timeout: '{text}' is not valid (valid: auto, a number of seconds, or 0 for no limit)"
    assert f"ERROR: {expected}" in outcome.lines


@pytest.mark.parametrize("phase", ["set-up", "tear-down"])
def test_hang_in_a_fixture_is_ended(alone, phase):
    """The limit applies to fixtures too: a server started there may never answer."""
    alone.file(
        test_a=f"""
        import multiprocessing, queue
        import pytest

        def work():
            pass

        @pytest.fixture
        def server(start_method):
            process = multiprocessing.Process(target=work)
            process.start()
            if "{phase}" == "set-up":
                queue.Queue().get()
            yield
            process.join()
            if "{phase}" == "tear-down":
                queue.Queue().get()

        @pytest.mark.startmethods("fork", timeout=0.5)
        def test_a(server):
            pass
        """
    )
    outcome = alone.plugin("session_still").run(where="in-process")
    assert outcome.names == {"test_a[fork]": "error"}
    assert (
        f"the leg test_a.py::test_a[fork] was not over after 0.5 s of {phase} (timeout= of its marker)" in outcome.out
    )
    assert "SM403" in outcome.out


def test_interrupt_is_not_swallowed_by_the_limit(alone):
    """Ctrl-C ends the session even if the limit is exceeded meanwhile: an executor waits for its workers."""
    alone.file(
        test_a="""
        import queue
        import pytest

        @pytest.mark.startmethods("fork", timeout=0.5)
        def test_a():
            try:
                raise KeyboardInterrupt
            finally:
                queue.Queue().get()

        def test_b():
            pass
        """
    )
    outcome = alone.plugin("session_still").run()
    assert (outcome.status, outcome.names) == (2, {})
    assert "KeyboardInterrupt" in outcome.out


# The first leg imports what the second one needs, whose few seconds are for the hang alone.
HANG_AFTER_A_LEG = """
    import multiprocessing
    import signal
    import time

    import pytest
    from targets import number, wait

    pytestmark = pytest.mark.startmethods("fork")

    @pytest.mark.timeout(0)
    def test_0():
        process = multiprocessing.Process(target=number, args=(1,))
        process.start()
        process.join()

    @pytest.fixture
    def slow():
        while signal.getitimer(signal.ITIMER_REAL)[0] > {left}:
            time.sleep(0.01)

    @pytest.mark.timeout(3)
    def test_a(slow):
        process = multiprocessing.Process(target=wait, args=(multiprocessing.Event(),))
        process.start()
        process.join()
"""


@pytest.mark.parametrize("left", [3.0, 2.4], ids=["quick fixture", "slow fixture"])
def test_pytest_timeouts_limit_rules(alone, left):
    """If pytest-timeout limits the item, its failure is kept, and the diagnosis is added.

    Its clock includes fixtures: the stacks are captured before it expires.
    """
    pytest.importorskip("pytest_timeout")
    outcome = alone.file(test_a=HANG_AFTER_A_LEG.format(left=left)).plugin("pytest_timeout").run()
    assert outcome.names == {"test_0[fork]": "passed", "test_a[fork]": "failed"}
    assert "Timeout (>3.0s) from pytest-timeout." in outcome.out
    assert "- SM403 hang -" in outcome.out


def test_stacks_end_where_pytest_begins():
    """The script that started pytest is the user's file, but is not part of the test's stack."""
    main = next(stack for stack in stacks.own() if stack.main)
    assert callers.owner(main.frames[-1][0]) == "runner"
    assert main.frames[0][2] == "test_stacks_end_where_pytest_begins"


def test_full_queue_joined_too_early_is_told(alone):
    """A child waits for its queue's feeder thread: read the queue before join()."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest
        from targets import fill

        @pytest.mark.startmethods("fork", timeout=1)
        def test_a():
            queue = multiprocessing.Queue()
            process = multiprocessing.Process(target=fill, args=(queue,))
            process.start()
            process.join()
        """
    )
    outcome = alone.plugin("session_still").run("-v")
    text = " ".join(outcome.out.split())
    assert text.count("its queue's feeder thread to end: nobody reads what it has put") >= 1
    assert "fix: read the queue until it is empty before join()" in text


def test_lock_held_at_fork_by_another_thread_is_told(alone):
    """SM405: only fork hangs, and the finding names the thread."""
    alone.file(
        test_a="""
        import multiprocessing
        import threading
        import pytest

        LOCK = threading.Lock()

        def take():
            with LOCK:
                pass

        @pytest.mark.startmethods("fork", "spawn", timeout=1)
        @pytest.mark.filterwarnings("ignore::DeprecationWarning")
        def test_a():
            held, done = threading.Event(), threading.Event()

            def hold():
                with LOCK:
                    held.set()
                    done.wait()

            thread = threading.Thread(target=hold, name="holder")
            thread.start()
            try:
                held.wait()
                process = multiprocessing.Process(target=take)
                process.start()
                process.join()
                assert process.exitcode == 0
            finally:
                done.set()
                thread.join()
        """
    )
    outcome = alone.plugin("session_still").run()
    assert outcome.names == {"test_a[fork]": "failed", "test_a[spawn]": "passed"}
    assert "- SM405 fork-with-threads -" in outcome.out
    assert "forked while other threads ran (holder) and waits for a lock" in " ".join(outcome.out.split())


def test_lock_that_a_forked_child_cannot_acquire_in_time(alone):
    """SM405: the child gives up; a lock that is free at the fork, or that nobody acquires, is no cause."""
    alone.file(
        locks="""
        import threading

        HELD = threading.Lock()
        FREE = threading.RLock()


        def take(connection):
            connection.send(HELD.acquire(timeout=0.1))


        def take_other(connection):
            connection.send(FREE.acquire(timeout=0.1) and 1)


        def look(connection):
            connection.send(HELD.locked())
        """,
        test_a="""
        import multiprocessing
        import threading
        import locks
        import pytest


        def run(target):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=target, args=(theirs,))
            process.start()
            process.join()
            return ours.recv()


        @pytest.fixture
        def thread():
            held, done = threading.Event(), threading.Event()

            def hold():
                with locks.HELD:
                    held.set()
                    done.wait()

            thread = threading.Thread(target=hold, name="holder")
            thread.start()
            held.wait()
            yield
            done.set()
            thread.join()


        pytestmark = [pytest.mark.startmethods("fork"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


        def test_held(thread):
            assert run(locks.take) is True


        def test_free(thread):
            assert run(locks.take_other) is True


        def test_looked_at(thread):
            assert run(locks.look) is False
        """,
    )
    text = " ".join(alone.run().out.split())
    assert text.count("- SM405 fork-with-threads -") == 1
    assert "locks.HELD was held when the child was forked, while other threads ran (holder)" in text


POOLS = """
    import multiprocessing
    import pytest
    from targets import number, refuse

    def ask(pool, how):
        if how == "apply":
            return pool.apply(number, (1,))
        # a chunk size: without it these divide by the number of workers, which is 0 while all are being replaced
        if how in ("map_async", "starmap_async"):
            return getattr(pool, how)(number, [(1,)], 1).get()
        return list(getattr(pool, how)(number, [(1,), (2,)], 1))

    @pytest.mark.startmethods({methods}timeout=50)
    @pytest.mark.parametrize("how", {ways!r})
    def test_a(how):
        with multiprocessing.Pool(2, initializer={initializer}) as pool:
            # held: on a free-threaded build, too, process objects stay for a while after their processes
            workers = list(pool._pool) if how in ("map", "imap") else None
            ask(pool, how)
"""
WAYS = ["apply", "map", "starmap", "imap", "imap_unordered", "map_async", "starmap_async"]


def test_initializer_that_raises_ends_the_wait(alone):
    """Every call on a Pool without living workers ends within seconds, and reports the cause.

    The calls differ in what the parent waits for, the methods in the workers.
    """
    calls = POOLS.format(methods='"fork", ', ways=WAYS, initializer="refuse")
    methods = POOLS.format(methods='"spawn", "forkserver", ', ways=["apply"], initializer="refuse")
    outcome = alone.file(test_a=calls, test_b=methods).run()
    assert set(outcome.names.values()) == {"failed"}
    assert len(outcome.names) == len(WAYS) + 2
    assert "SM403" not in outcome.out
    assert "SM402 pool-crash-loop, 7 tests fail" in outcome.lines
    assert "SM402 pool-crash-loop, 1 test fails everywhere" in outcome.lines
    assert "RuntimeError: no worker today" in outcome.out


def test_task_that_no_worker_can_import_ends_the_wait(alone):
    """In importlib mode, functions of the test module cannot be imported: SM201 comes first, SM402 follows."""
    ways = ["apply", "map", "imap", "imap_unordered"]  # the classes of what they wait for
    source = POOLS.format(methods='"fork", "spawn", ', ways=ways, initializer=None)
    own = "def number(value):\n        return value"
    alone.file("project/tests/test_a.py", source.replace("from targets import number, refuse", own))
    (alone.path / "project" / "tests" / "__init__.py").touch()
    outcome = alone.run("-v", "--import-mode=importlib", "--rootdir", alone.path / "project", "project/tests")
    for how in ways:
        legs = {method: outcome.names[f"test_a[{method}-{how}]"] for method in ("fork", "spawn")}
        assert legs == {"fork": "passed", "spawn": "failed"}, how
    assert "SM403" not in outcome.out
    failures, _, summary = outcome.out.partition("= start methods =")
    for told in (failures, summary):
        assert told.index("SM201 module-not-importable") < told.index("and so: SM402 pool-crash-loop")
    assert any(line.startswith("SM201 module-not-importable, 4 tests need fork") for line in outcome.lines)


def test_pool_that_recovers_is_left_alone(alone):
    """Workers that die at first and then live deliver their results."""
    alone.file(
        test_a="""
    import multiprocessing
    import pytest
    from targets import die_twice, number

    @pytest.mark.startmethods
    def test_a(tmp_path):
        with multiprocessing.Pool(2, initializer=die_twice, initargs=(str(tmp_path / "starts"),)) as pool:
            assert pool.map(number, [1, 2, 3], chunksize=1) == [1, 2, 3]
        """
    )
    assert set(alone.run().names.values()) == {"passed"}


def test_segmentation_fault_shows_its_stack(alone):
    """SM404 names the signal, and shows the child's stack."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest
        from targets import crash

        @pytest.mark.startmethods
        def test_a():
            process = multiprocessing.Process(target=crash)
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    outcome = alone.run(where="in-process")
    assert outcome.out.count("- SM404 child-crashed -") == 3
    assert "SIGSEGV" in outcome.out
    assert " in crash" in outcome.out


def test_failure_of_the_child_is_shown(alone, where):
    """The failure no longer shows only `assert 1 == 0` for an exit code."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest
        from targets import fail

        @pytest.mark.startmethods
        def test_a():
            process = multiprocessing.Process(target=fail, args=(1,))
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    methods = methods_for(where)
    outcome = alone.run(f"--start-methods={','.join(methods)}", where=where)
    assert set(outcome.names.values()) == {"failed"}
    for method in methods:
        assert f" start method {method}: in the child -" in outcome.out
    assert "assert total == 3" in outcome.out
    assert "total = 2" in outcome.out


def test_leftover_is_named_and_ended(alone, where):
    """A daemon that outlives its leg is ended; the line that started it is reported, and the outcome is unchanged."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest
        from targets import send_and_wait

        @pytest.mark.startmethods
        def test_a(request):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=send_and_wait, args=(theirs,), daemon=True)
            process.start()
            assert ours.recv() == "here"
            request.config.kept = ours  # or its end would end the child
        """
    )
    methods = methods_for(where)
    outcome = alone.run(f"--start-methods={','.join(methods)}", where=where)
    assert set(outcome.names.values()) == {"passed"}
    text = " ".join(outcome.out.split())
    for method in methods:
        assert (
            f"(targets.send_and_wait, started at test_a.py:9) outlived test_a.py::test_a[{method}] and was ended"
            in text
        )


def test_child_that_the_test_has_waited_for_is_no_leftover(alone):
    """After ``os.waitpid``, multiprocessing believes that the child still runs; its pid may have been reused."""
    alone.file(
        test_a="""
        import multiprocessing
        import os
        import pytest

        @pytest.mark.startmethods("fork", "spawn")
        def test_a():
            process = multiprocessing.Process(target=print)
            process.start()
            assert os.waitpid(process.pid, 0)[1] == 0
            assert process.is_alive()
        """
    )
    outcome = alone.run()
    assert set(outcome.names.values()) == {"passed"}
    assert "outlived" not in outcome.out


def test_leftovers_of_one_line_are_told_together():
    """A pool of fifty workers is one sentence."""
    place = Place("/a.py", 5)
    one, *many = [
        Launch("spawn", target, (), place, None, None, "leg", pid=pid)
        for target, pid in (("mod.serve", 7), ("mod.work", 8), ("mod.work", 9))
    ]
    assert sentences([one, *many], "test_a.py::test_a[spawn]") == [
        "child 7 (mod.serve, started at /a.py:5) outlived test_a.py::test_a[spawn] and was ended",
        "2 children (mod.work, started at /a.py:5) outlived test_a.py::test_a[spawn] and were ended",
    ]


def test_process_of_a_wider_fixture_lives_on(alone):
    """Only processes that belong to the leg are ended with it."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest
        from targets import serve

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        @pytest.fixture(scope="module")
        def server(mp_context):
            ours, theirs = mp_context.Pipe()
            process = mp_context.Process(target=serve, args=(theirs,))
            process.start()
            yield ours
            ours.send(None)
            process.join()
            assert process.exitcode == 0

        @pytest.mark.parametrize("n", [1, 2])
        def test_a(server, n):
            server.send(n)
            assert server.recv() == "here"
        """
    )
    outcome = alone.run()
    assert set(outcome.names.values()) == {"passed"}
    assert "outlived" not in outcome.out


ENDLESS = """
    import multiprocessing
    import os
    import pytest
    from targets import wait

    @pytest.mark.startmethods
    def test_a(start_method):
        event = multiprocessing.Event()
        process = multiprocessing.Process(target=wait, args=(event,), daemon=False)
        process.start()
        with open("started", "a") as file:
            file.write(start_method)
        {then}
"""


def start(alone, *args):
    """Start a session to be ended from outside, and wait until its leg has a child."""
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "pytest_startmethod.plugin", "-p", "no:cacheprovider", *args]
    os.mkfifo(alone.path / "started")
    started = os.open(alone.path / "started", os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        command,
        cwd=alone.path,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with os.fdopen(started) as fifo, os.fdopen(os.pidfd_open(process.pid)) as end:
        ready, _, _ = select.select([fifo, end], [], [])
        assert fifo in ready, process.communicate()[0]
    return process


@pytest.mark.parametrize(
    ("how", "method"),
    # pytest has no handler for SIGTERM: it ends at once, as from SIGKILL
    [("SIGTERM", "spawn"), *((how, method) for how in ("SIGINT", "SIGKILL") for method in methods_for("subprocess"))],
)
def test_nothing_is_left_when_the_session_is_ended(alone, how, method):
    """Ctrl-C, terminate and kill leave no child, server or directory (checked by the fixture)."""
    # CPython runs handlers between two instructions: a signal just before a blocking call has no effect until the call
    # returns, so this one does.
    alone.file(test_a=ENDLESS.format(then="while process.is_alive(): process.join(0.1)"))
    process = start(alone, f"--start-methods={method}", "--start-methods-timeout=0")
    os.kill(process.pid, getattr(signal, how))
    process.communicate(timeout=120)
    assert process.returncode != 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nothing_is_left_when_a_session_without_its_descriptors_is_killed(alone, method):
    """A test may close all descriptors, ours too: children end with pytest all the same (checked by the fixture)."""
    then = "os.closerange(3, 10_000); os.kill(os.getpid(), 9)"
    alone.file(test_a=ENDLESS.format(then=then))
    process = start(alone, f"--start-methods={method}", "--start-methods-timeout=0")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL


def test_nobody_waits_for_a_session_that_is_over_at_once(alone):
    """The process that would remove the directory also ends, however soon after it started."""
    script = """
from pytest_startmethod.launches import reports
for _ in range(20):
    directory = reports.ReportDirectory.create()
    directory.hold_life_line()
    directory.remove()
"""
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=True)
    assert wait_for_ends(f"{alone.temporary}{os.sep}") == []


def test_no_process_of_ours_takes_one_of_few(alone):
    """Where the user may have few processes, none of ours runs beside a test that is no leg."""
    alone.file(conftest="import resource; resource.getrlimit = lambda _, old=resource.getrlimit: (32, old(_)[1])")
    alone.file(
        test_a="""
        import multiprocessing, os, pathlib, select
        import pytest, targets

        def read(queue):
            queue.put(targets.VALUE)

        @pytest.mark.startmethods("fork", "spawn")
        def test_marked(monkeypatch):
            monkeypatch.setattr(targets, "VALUE", 2)
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=read, args=(queue,))
            process.start()
            assert queue.get() == 2
            process.join()

        def test_unmarked():
            mark = os.environ["PYTEST_STARTMETHOD_MARK"].encode()
            for entry in pathlib.Path("/proc").iterdir():
                try:
                    line = (entry / "cmdline").read_bytes()
                    assert not line.startswith(b"sh\\0-c") or not line.endswith(b"\\0%d\\0" % os.getpid())
                    if b"marshal" in line and mark in (entry / "environ").read_bytes():  # it was ended, but not reaped
                        pidfd = os.pidfd_open(int(entry.name))
                        assert select.select([pidfd], [], [], 60)[0], line
                except OSError:
                    continue
        """
    )
    outcome = alone.run("--no-start-methods-verify")
    assert outcome.names == {"test_marked[fork]": "passed", "test_marked[spawn]": "failed", "test_unmarked": "passed"}
    assert "SM303 patch-lost" in outcome.out


def test_nothing_is_left_after_exit_first(alone):
    """-x ends the session, and the leg's child, at the first failure."""
    outcome = alone.file(test_a=ENDLESS.format(then="assert False")).run("-x")
    assert list(outcome.names.values()) == ["failed"]


def test_nothing_is_left_when_an_xdist_worker_dies(alone):
    """The children of a worker's legs end with the worker."""
    pytest.importorskip("xdist")
    alone.file(test_a=ENDLESS.format(then="os._exit(9)"))
    outcome = alone.run("--start-methods=spawn", where="xdist")
    assert "crashed while running" in outcome.out


WRITES = """
    import multiprocessing
    import queue
    import pytest

    SEEN = []

    def note():
        SEEN.append(1)

    def seen():
        return len(SEEN)

    @pytest.mark.startmethods("fork")
    def test_a():
        process = multiprocessing.Process(target=note)
        process.start()
        process.join()
        ENDING
"""


def test_write_that_a_wrong_result_may_come_from_is_told(alone):
    """An assertion about what a function of the parent reads is typical of a lost write."""
    outcome = alone.file(test_a=WRITES.replace("ENDING", "assert seen() == 1")).run(where="in-process")
    assert "- SM308 write-lost -" in outcome.out


def test_time_out_does_not_come_from_a_write(alone):
    """An exception that other code raised while waiting is not a wrong value, so a lost write is not the cause."""
    outcome = alone.file(test_a=WRITES.replace("ENDING", "seen() or queue.Queue().get(timeout=0.01)")).run(
        where="in-process"
    )
    assert "queue.Empty" in outcome.out
    assert "SM308" not in outcome.out


def test_last_words_of_a_leftover_are_nobodys(alone):
    """What a child writes while it is being ended appears neither in the next test nor after the summary."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest
        from targets import wait_for_the_end

        @pytest.mark.startmethods("fork", "spawn")
        def test_a():
            ours, theirs = multiprocessing.Pipe()
            multiprocessing.Process(target=wait_for_the_end, args=(theirs,)).start()
            ours.recv()

        def test_b():
            assert not "this one fails"
        """
    )
    outcome = alone.run()
    assert outcome.out.count("outlived") >= 1
    assert "LAST WORDS" not in outcome.out


def test_cache_that_is_made_at_first_use_is_no_lost_write(alone):
    """Each process fills its own cache on first use, which is the intention."""
    alone.file(
        test_a="""
        import multiprocessing
        import pytest

        CACHE = None

        def cache():
            global CACHE
            if CACHE is None:
                CACHE = {}
            return CACHE

        @pytest.mark.startmethods("fork")
        def test_a():
            cache()
            process = multiprocessing.Process(target=cache)
            process.start()
            process.join()
            assert process.exitcode == 1
        """
    )
    outcome = alone.run(where="in-process")
    assert "assert 0 == 1" in outcome.out
    assert "SM308" not in outcome.out


def test_what_an_initializer_sets_for_the_tasks_is_no_lost_write(session):
    """A task is named in the parent and reads the value in the worker."""
    session.file(
        app="""
        BASE = None

        def initialize(base):
            global BASE
            BASE = base

        def add(number):
            return BASE + number
        """,
        test_a="""
        import multiprocessing
        import app
        import pytest

        @pytest.mark.startmethods("spawn")
        def test_a():
            with multiprocessing.Pool(1, app.initialize, (2,)) as pool:
                assert pool.apply(app.add, (1,)) == 4
        """,
    )
    outcome = session.run()
    assert "assert 3 == 4" in outcome.out
    assert "SM308" not in outcome.out


# However slow the machine is, the next test finds no helper that is about to end.
HELPERS_END = "from pytest_startmethod.session import running; running._HELPERS_SECONDS = 60.0"

KIDS = """
    import multiprocessing, os
    import pytest
    from targets import read

    def kids():
        me, found = str(os.getpid()), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as status, open(f"/proc/{pid}/cmdline") as command:
                    if status.read().rpartition(")")[2].split()[1] == me:
                        found.append(command.read())
            except OSError:
                continue
        return found

    @pytest.mark.startmethods
    def test_reads(monkeypatch):
        monkeypatch.setattr("targets.VALUE", 2)
        process = multiprocessing.Process(target=read)
        process.start()
        process.join()
        assert process.exitcode == 0

    def test_unmarked(): assert kids() == []

    @pytest.mark.startmethods("fork")
    def test_fork():
        process = multiprocessing.Process(target=os.getpid)
        process.start()
        process.join()
        assert kids() == []

    @pytest.fixture(scope="session")
    def lock(mp_context): return mp_context.Lock()

    @pytest.mark.startmethods("spawn")
    def test_lock(lock): assert lock.acquire()

    held = []

    @pytest.mark.startmethods("spawn")
    def test_keeps(mp_context): held.append(mp_context.Lock())

    def test_tracked():
        assert len(kids()) == 1
        assert held[0].acquire()
"""


def test_tests_do_not_see_our_children(alone):
    """After the legs, pytest has only its earlier children: forkserver, fresh children and an idle tracker are gone.

    A tracker with something left to remove stays.
    """
    outcome = alone.file(conftest=HELPERS_END, test_a=KIDS).run()
    failed = {"test_reads[spawn]", "test_reads[forkserver]"}
    assert {name for name, outcome in outcome.names.items() if outcome == "failed"} == failed, outcome.out
    assert outcome.out.count("(confirmed under ") == 2, outcome.out
    assert len(outcome.names) == 8


def test_a_full_disk_changes_no_outcome(session):
    """No file can grow while a process starts and runs, on either side: children cannot report, and that is all."""
    session.file(
        test_a="""
        import multiprocessing
        import resource

        import pytest

        def run(target):
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            try:
                process = multiprocessing.Process(target=target)
                process.start()
                process.join()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return process.exitcode

        def work():
            pass

        def fail():
            raise ValueError("own")

        @pytest.mark.startmethods
        def test_passes():
            assert run(work) == 0

        @pytest.mark.startmethods
        def test_fails():
            assert run(fail) == 0

        @pytest.mark.startmethods
        def test_lambda():
            assert run(lambda: None) == 0
        """
    )
    outcome = session.run()
    passed = {name for name, result in outcome.names.items() if result == "passed"}
    assert passed == {"test_passes[fork]", "test_passes[spawn]", "test_passes[forkserver]", "test_lambda[fork]"}
    assert set(outcome.names.values()) == {"passed", "failed"}
    assert f"pytest_startmethod{os.sep}" not in outcome.out
    assert "SM101 local-function" in outcome.out


def test_a_session_without_a_free_descriptor_loses_no_outcome(alone):
    """Tests have opened all that the process may open before the first leg runs, and keep it."""
    alone.file(
        conftest="""
        import os

        import pytest

        kept = []

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_logreport():  # one is needed to record this session
            if not kept:
                return (yield)
            kept.pop().close()
            yield
            kept.append(open(os.devnull))
        """,
        test_a="""
        import os
        import resource

        import pytest
        from conftest import kept

        def test_opens_all():
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
            with pytest.raises(OSError):
                while True:
                    kept.append(open(os.devnull))

        @pytest.mark.startmethods
        def test_passes():
            pass

        @pytest.mark.startmethods
        def test_fails():
            assert len(kept) == 0

        def test_closes_all():
            while kept:
                kept.pop().close()
        """,
    )
    outcome = alone.run()
    methods = ("fork", "spawn", "forkserver")
    assert outcome.names == {
        "test_opens_all": "passed",
        **{f"test_passes[{method}]": "passed" for method in methods},
        **{f"test_fails[{method}]": "failed" for method in methods},
        "test_closes_all": "passed",
    }, outcome.out
    assert "pytest-startmethod: OSError: [Errno 24] Too many open files" in outcome.out


def test_a_child_reports_though_the_test_has_replaced_the_search_path(session):
    """The child cannot import its target, nor by that path the modules of the standard library that it reports with."""
    session.file(
        test_a="""
        import multiprocessing
        import sys

        import pytest

        def work():
            pass

        @pytest.mark.startmethods("spawn")
        def test_path(monkeypatch, tmp_path):
            first = multiprocessing.Process(target=work)  # has all imported that the second one's start needs
            first.start()
            first.join()
            with monkeypatch.context() as patch:
                patch.setattr(sys, "path", [str(tmp_path)])
                process = multiprocessing.Process(target=work)
                process.start()
                process.join()
            assert process.exitcode == 0
        """
    )
    outcome = session.run("--no-start-methods-verify")
    assert outcome.names == {"test_path[spawn]": "failed"}
    assert any(line.startswith("SM201 module-not-importable, 1 test") for line in outcome.lines)
    assert "SM404" not in outcome.out
