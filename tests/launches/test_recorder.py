"""Everything a leg starts is recorded, including starts that fail, without affecting user code."""

from __future__ import annotations

import builtins
import concurrent.futures
import contextlib
import functools
import gc
import io
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import os
import pickle
import signal
import sys
import threading
import traceback
import types
import weakref

import pytest

from pytest_startmethod._compat import multiprocessing as mp
from pytest_startmethod.activation.default_method import Activation
from pytest_startmethod.activation.exchanges import Exchanges
from pytest_startmethod.causes.launch_examiner import LaunchExaminer
from pytest_startmethod.launches import recorder as launches
from pytest_startmethod.launches.recorder import Recorder, failure_of
from pytest_startmethod.model.launch import Fixture
from pytest_startmethod.pickling import dry_run as pickling
from pytest_startmethod.source.callers import UserCode
from pytest_startmethod.source.describing import describe, describe_callable
from pytest_startmethod.state import observing as state

METHODS = [m for m in ("fork", "spawn", "forkserver") if m in multiprocessing.get_all_start_methods()]


def nothing(*args, **kwargs):
    return None


def double(number):
    return 2 * number


def exit_with(code):
    sys.exit(code)


STARTED = []


def count():
    STARTED.append(1)


class Worker(multiprocessing.Process):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def run(self):
        sys.exit(self.number)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


class Leg:
    """A recorder and an active method for a with block."""

    def __init__(self, method, *, precheck=False, recorder=None):
        self.recorder = recorder or Recorder(Exchanges(), LaunchExaminer())
        self.method, self.activation = method, Activation(method)
        self.span = self.recorder.leg(f"test_x[{method}]", method, precheck=precheck)

    def __enter__(self):
        self.activation.enter()
        self.record = self.span.__enter__()
        return self

    def __exit__(self, *error):
        self.span.__exit__(*error)
        self.activation.exit()
        assert self.recorder.troubles == []


def here(back=1):
    return sys._getframe(1).f_lineno - back


def test_process_is_recorded_whole(method):
    """Method, target, args, line, pid and exit code are known at the end of the leg."""
    with Leg(method) as leg:
        process = multiprocessing.Process(target=exit_with, args=(3,))
        process.start()
        line = here()
        process.join()
    (launch,) = leg.record.launches
    assert (launch.method, launch.target, launch.args) == (method, f"{__name__}.exit_with", ("3",))
    assert (launch.place.file, launch.place.line) == (__file__, line)
    assert (launch.pid, launch.exit_code, launch.error, launch.thread) == (process.pid, 3, None, None)


def test_exit_code_of_a_process_that_was_dropped_is_known(method):
    """The record keeps no process object alive, and still learns the exit code."""
    with Leg(method) as leg:
        process = multiprocessing.Process(target=exit_with, args=(4,))
        process.start()
        process.join()
        ghost = weakref.ref(process)
        del process
        gc.collect()
        assert ghost() is None
        assert leg.record.launches[0].exit_code == 4


class Held:
    """An argument whose lifetime can be observed."""


def test_arguments_are_not_kept_alive(method):
    """Arguments are described, not referenced."""
    with Leg(method) as leg:
        held = Held()
        process = multiprocessing.Process(target=nothing, args=(held,), kwargs={"key": [1, 2]})
        process.start()
        process.join()
        ghost = weakref.ref(held)
        del held, process
        gc.collect()
        assert ghost() is None
    assert leg.record.launches[0].args == (f"<{__name__}.Held>", "key=<list of length 2>")


def test_subclass_is_recorded_by_its_run(method):
    """A Process subclass without a target is recorded by its run method."""
    with Leg(method) as leg:
        worker = Worker(5)
        worker.start()
        worker.join()
    assert (leg.record.launches[0].target, leg.record.launches[0].exit_code) == (f"{__name__}.Worker.run", 5)


def test_pinned_context_is_recorded_with_its_own_method():
    """Processes of a fixed context are recorded under the method they use."""
    other = "fork" if "fork" in METHODS else "spawn"
    with Leg("spawn") as leg:
        process = multiprocessing.get_context(other).Process(target=nothing)
        process.start()
        process.join()
    assert [launch.method for launch in leg.record.launches] == [other]


def test_pool_workers_tasks_and_initializer_are_recorded(method):
    """A pool's workers are recorded as launches and its work as tasks, each once."""
    with Leg(method) as leg, multiprocessing.Pool(2, initializer=double, initargs=(1,)) as pool:
        pool.map(double, [1, 2])
        pool.apply(double, (1,))
        list(pool.imap(double, [1]))
        list(pool.imap_unordered(double, [1]))
        pool.starmap(nothing, [(1, 2)])
    assert [launch.target for launch in leg.record.launches] == ["multiprocessing.pool.worker"] * 2
    done = [(task.owner, task.method, task.how, task.target) for task in leg.record.tasks]
    name = f"{__name__}.double"
    assert done == [
        ("Pool", method, "initializer", name),
        ("Pool", method, "map", name),
        ("Pool", method, "apply_async", name),
        ("Pool", method, "imap", name),
        ("Pool", method, "imap_unordered", name),
        ("Pool", method, "map", f"{__name__}.nothing"),
    ]
    assert {task.place.file for task in leg.record.tasks} == {__file__}


def test_executor_workers_and_tasks_are_recorded(method):
    """Both submit and map are recorded with the user's function."""
    with Leg(method) as leg, concurrent.futures.ProcessPoolExecutor(1) as executor:
        assert executor.submit(double, 2).result() == 4
        assert list(executor.map(double, [1], chunksize=1)) == [2]
    assert [launch.target for launch in leg.record.launches] == ["concurrent.futures.process._process_worker"]
    assert {(task.owner, task.method, task.target) for task in leg.record.tasks} == {
        ("ProcessPoolExecutor", method, f"{__name__}.double")
    }


def test_manager_is_recorded(method):
    """A manager's server is a launch at the user's line."""
    with Leg(method) as leg, multiprocessing.Manager() as manager:
        line = here()
        assert manager.dict(a=1)["a"] == 1
    (launch,) = leg.record.launches
    assert (launch.target, launch.place.line) == ("multiprocessing.managers.BaseManager._run_server", line)


def test_thread_pool_is_no_launch():
    """Threads are not processes."""
    with Leg("spawn") as leg, multiprocessing.pool.ThreadPool(1) as pool:
        assert pool.map(double, [1]) == [2]
    assert (leg.record.launches, leg.record.tasks) == ([], [])


def start_and_wrap():
    try:
        multiprocessing.Process(target=lambda: None).start()
    except Exception as error:
        raise RuntimeError("wrapped") from error


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fork"])
def test_failed_start_is_the_users_exception_with_a_number(method):
    """The exception is CPython's own; its causes and contexts lead to the recorded failure."""
    with Leg(method) as leg:
        with pytest.raises(RuntimeError) as caught:
            start_and_wrap()
        failure = failure_of(leg.record, caught.value)
    assert failure is leg.record.failures[0]
    assert [finding.code for finding in failure.findings] == ["SM101"]
    (launch,) = leg.record.launches
    assert launch.findings == failure.findings
    assert (launch.pid, launch.exit_code) == (None, None)
    assert "lambda" in launch.error


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fork"])
def test_swallowed_failure_in_a_thread_is_recorded(method):
    """A start that fails in a background thread is recorded although nobody saw the exception."""

    def start():
        with contextlib.suppress(Exception):
            multiprocessing.Process(target=lambda: None).start()

    with Leg(method) as leg:
        thread = threading.Thread(target=start, name="starter")
        thread.start()
        thread.join()
    (launch,) = leg.record.launches
    assert (launch.thread, [f.code for f in launch.findings]) == ("starter", ["SM101"])


def test_a_worker_that_replaces_another_is_placed_where_the_pool_was_made(method):
    """A thread of the pool starts it, and there is no line of the user's on that thread's stack."""
    with Leg(method) as leg, multiprocessing.Pool(1, maxtasksperchild=1) as pool:
        assert [pool.apply(double, (number,)) for number in range(2)] == [0, 2]
    first, second, *_ = leg.record.launches
    assert first.place is not None
    assert second.thread is not None
    assert second.place == first.place


def test_task_that_cannot_be_sent_is_a_failure(method):
    """A task that does not pickle is recorded under every method."""
    with Leg(method) as leg, multiprocessing.Pool(1) as pool:
        with pytest.raises(Exception, match=r"pickle|lambda") as caught:
            pool.apply(lambda: None)
        failure = failure_of(leg.record, caught.value)
    assert [finding.code for finding in failure.findings] == ["SM101"]


@pytest.mark.skipif("fork" not in METHODS, reason="no fork on this platform")
def test_precheck_predicts_under_fork_and_changes_nothing():
    """The fork leg starts what spawn could not, and predicts it; all workers of a pool are examined once."""
    lock = threading.Lock()
    with Leg("fork", precheck=True) as leg:
        process = multiprocessing.Process(target=nothing, args=(lock,))
        process.start()
        process.join()
        with multiprocessing.Pool(2, initializer=lambda: None) as pool:
            pool.map(double, [1])
    first, *workers = leg.record.launches
    assert (first.exit_code, [f.code for f in first.predicted]) == (0, ["SM103"])
    assert [[f.code for f in worker.predicted] for worker in workers] == [["SM101"], ["SM101"]]
    assert leg.record.failures == []


@pytest.mark.skipif("spawn" not in METHODS, reason="no spawn on this platform")
def test_what_an_initializer_is_given_has_the_users_names():
    """Arguments are named as the user wrote them, ``initializer`` and ``initargs``, not as the worker's arguments."""
    lock = threading.Lock()
    with Leg("spawn") as leg:
        for start in (
            lambda: multiprocessing.Pool(1, double, (1, {"lock": lock})),
            lambda: multiprocessing.Pool(1, initializer=lambda: None),
            lambda: concurrent.futures.ProcessPoolExecutor(1, initializer=double, initargs=(lock,)).submit(double, 1),
            lambda: multiprocessing.managers.BaseManager().start(double, (lock,)),
            lambda: multiprocessing.Process(target=double, args=(1, lock)).start(),
        ):
            with pytest.raises(Exception, match=r"pickle|lambda"):
                start()
    paths = [launch.findings[0].path for launch in leg.record.launches]
    assert paths == ["initargs[1]['lock']", "initializer", "initargs[0]", "initargs[0]", "args[1]"]


def test_launch_in_a_fixture_is_kept_for_later_legs():
    """A module-scoped fixture's launches are found by name and scope."""
    recorder, fixture = Recorder(Exchanges()), Fixture("server", "module", "test_a.py")
    with Leg("spawn", recorder=recorder):
        recorder.fixtures.append(types.SimpleNamespace(argname="server", scope="module", baseid="test_a.py"))
        process = multiprocessing.Process(target=nothing)
        process.start()
        process.join()
        recorder.fixtures.pop()
    with Leg(METHODS[0], recorder=recorder) as leg:
        pass
    assert leg.record.launches == []
    assert [launch.method for launch in recorder.by_fixture[fixture]] == ["spawn"]


def test_nothing_is_patched_when_the_leg_is_over(method):
    """Every class attribute is the original object."""
    tasks = [each for module in mp.STDLIB.submitting_modules for each in mp.submissions(module)]
    owners = [(multiprocessing.process.BaseProcess, "start"), *((c, n) for c, n, _ in tasks)]
    before = [vars(owner).get(name) for owner, name in owners]
    with Leg(method):
        assert [vars(owner).get(name) for owner, name in owners] != before
    assert [vars(owner).get(name) for owner, name in owners] == before
    assert "dump" not in vars(mp.STDLIB.pickler_class)


def test_our_own_failure_is_noted_and_harmless(monkeypatch):
    """If recording fails, the user's process starts as usual."""

    def broken(value):
        raise ZeroDivisionError("ours")

    recorder = Recorder(Exchanges())
    monkeypatch.setattr(launches, "describe_callable", broken)
    with recorder.leg("test_x[spawn]", "spawn", precheck=False):
        process = multiprocessing.get_context("spawn").Process(target=nothing)
        process.start()
        process.join()
    assert process.exitcode == 0
    assert recorder.troubles == ["ZeroDivisionError in Recorder._open: ours"]


class Loud:
    def __repr__(self):
        raise AssertionError("a user's __repr__ was called")

    def __getattr__(self, name):
        raise AssertionError("a user's __getattr__ was called")

    def __call__(self):
        pass

    def method(self):
        pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (None, "None"),
        ("short", "'short'"),
        ("x" * 61, "<str of length 61>"),
        ([1, 2], "<list of length 2>"),
        (double, f"{__name__}.double"),
        (functools.partial(functools.partial(double, 1), 2), f"{__name__}.double"),
    ],
)
def test_values_are_described_without_running_their_code(value, text):
    """Builtin values are shown, everything else by its type or name."""
    assert describe(value) == text


def test_user_objects_are_described_by_type():
    """None of the object's own methods is called."""
    assert describe(Loud()) == f"<{__name__}.Loud>"


def test_callables_are_described_by_name():
    """Bound methods, partials, classes and callable objects each have a name."""
    assert describe_callable(Loud().method) == f"{__name__}.Loud.method"
    assert describe_callable(Loud) == f"{__name__}.Loud"
    assert describe_callable(Loud()) == f"<{__name__}.Loud>"
    assert describe_callable(os.getpid) == f"{os.getpid.__module__}.getpid"


@pytest.fixture
def looked_at(monkeypatch):
    """Return what the pre-check looks at: target and arguments, in order."""
    seen = []
    is_plain = pickling.is_plain

    def listen(process):
        seen.append(mp.process_work(process)[:2])
        return is_plain(process)

    monkeypatch.setattr(pickling, "is_plain", listen)
    return seen


def observing():
    """Return a recorder that observes what the code reads, as in a session."""
    return Recorder(Exchanges(), LaunchExaminer(functools.partial(state.observe, user=UserCode())))


def run(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()


@pytest.mark.skipif("fork" not in METHODS, reason="there is no fork here")
class TestRepeatedLaunches:
    """Under fork, a launch like an earlier one is recorded and examined like the first."""

    def test_is_recorded_like_the_first(self, looked_at):
        """Each launch has its own method, target, arguments, line and exit code."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(*(multiprocessing.Process(target=exit_with, args=(n,)) for n in (0, 3)))
        first, second = leg.record.launches
        assert [args for _, args in looked_at] == [(0,), (3,)]
        assert (first.target, first.args, first.exit_code) == (f"{__name__}.exit_with", ("0",), 0)
        assert (second.target, second.args, second.exit_code) == (f"{__name__}.exit_with", ("3",), 3)
        assert second.place == first.place

    @pytest.mark.parametrize(
        ("value", "codes"), [([1], []), (nothing, []), (threading.Lock(), ["SM103"])], ids=["list", "function", "lock"]
    )
    def test_other_values_are_looked_at(self, looked_at, value, codes):
        """Values that might not pickle are looked at each time."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(*(multiprocessing.Process(target=nothing, args=(each,)) for each in (1, value)))
        assert [args for _, args in looked_at][:2] == [(1,), (value,)]
        assert [each.code for each in leg.record.launches[1].predicted] == codes

    def test_rebound_name_is_looked_at(self, looked_at, monkeypatch):
        """A function whose name has been rebound is predicted not to pickle."""
        target = nothing
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(multiprocessing.Process(target=target))
            monkeypatch.setattr(sys.modules[__name__], "nothing", double)
            run(multiprocessing.Process(target=target))
        first, second = leg.record.launches
        assert first.predicted == ()
        assert [each.code for each in second.predicted] == ["SM104"]

    def test_process_class_of_the_users_is_looked_at(self, looked_at):
        """A subclass may send more than its target and arguments."""

        class Local(multiprocessing.Process):
            pass

        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(multiprocessing.Process(target=nothing), Local(target=nothing))
        assert [each.code for each in leg.record.launches[1].predicted] == ["SM102"]

    def test_attribute_of_the_users_is_looked_at(self, looked_at):
        """Attributes set on the process object are sent too."""
        process = multiprocessing.Process(target=nothing)
        process.lock = threading.Lock()
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(multiprocessing.Process(target=nothing), process)
        assert [each.path for each in leg.record.launches[1].predicted] == ["process.lock"]

    def test_context_that_names_its_method_is_told(self):
        """Processes of a pinned context are told apart from those of the default one."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            for context in (multiprocessing, multiprocessing.get_context("fork")):
                run(*(context.Process(target=nothing) for _ in range(2)))
        assert [each.own_method for each in leg.record.launches] == [False, False, True, True]

    def test_method_that_the_test_sets_is_looked_at(self):
        """In a fork leg, the default may have become another method."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(multiprocessing.Process(target=nothing))
            multiprocessing.set_start_method("spawn", force=True)
            run(multiprocessing.Process(target=nothing))
        assert [each.method for each in leg.record.launches] == ["fork", "spawn"]

    @pytest.mark.parametrize("dropped", [False, True], ids=["closed", "dropped"])
    def test_end_of_a_process_that_nobody_holds_is_known(self, dropped):
        """The process object may have been closed or collected."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(multiprocessing.Process(target=exit_with, args=(0,)))
            process = multiprocessing.Process(target=exit_with, args=(4,))
            run(process)
            pid = process.pid
            if dropped:
                del process
                gc.collect()
            else:
                process.close()
        assert leg.record.is_over()
        assert [(each.pid, each.exit_code) for each in leg.record.launches[1:]] == [(pid, 4)]

    def test_failing_start_is_recorded_and_compares_no_processes(self, monkeypatch):
        """A start may fail for lack of processes, and the user's process class may define its own comparison."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(
                PickyFork(target=nothing),
                multiprocessing.Process(target=nothing),
                multiprocessing.Process(target=nothing),
            )
            with monkeypatch.context() as patch:
                patch.setattr(os, "fork", fail_to_fork)
                with pytest.raises(BlockingIOError, match="no more processes"):
                    multiprocessing.Process(target=nothing).start()
            run(multiprocessing.Process(target=nothing))
        errors = [each.error for each in leg.record.launches]
        assert errors == [None, None, None, "BlockingIOError: [Errno 11] no more processes", None]
        assert [each.exit_code for each in leg.record.launches] == [0, 0, 0, None, 0]

    def test_function_that_writes_is_looked_at(self):
        """What the child changes and the parent reads is found at every launch (SM308)."""
        with Leg("fork", precheck=True, recorder=observing()) as leg:
            run(multiprocessing.Process(target=count), multiprocessing.Process(target=count))
        assert all(each.observed.writes for each in leg.record.launches)


class Picks:
    def __eq__(self, other):
        raise AssertionError("a user's __eq__ was called")

    __hash__ = object.__hash__  # multiprocessing keeps its children in a set


class Picky(Picks, multiprocessing.get_context("spawn").Process):
    pass


class PickyFork(Picks, multiprocessing.get_context(METHODS[0]).Process):
    pass


def fail_to_fork():
    raise BlockingIOError(11, "no more processes")


def test_processes_are_not_compared():
    """A failing start raises its own error, however the user's processes compare."""
    with Leg("spawn") as leg:
        process = Picky(target=nothing)
        process.start()
        process.join()
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            Picky(target=lambda: None).start()
    assert [(launch.exit_code, launch.error is None) for launch in leg.record.launches] == [(0, True), (None, False)]


@pytest.mark.parametrize(("name", "recorded"), [("pytest_pyfunc_call", 0), ("helper", 1)])
def test_process_of_a_plugins_hook_is_not_the_tests(name, recorded, tmp_path):
    """A process that measures or isolates the test is not a launch; a process of an installed package's test is one."""
    hook = compile(f"def {name}(start): start()", str(tmp_path / "site-packages" / "plugin" / "hooks.py"), "exec")
    runner = compile("def call(hook, start): hook(start)", str(tmp_path / "site-packages" / "_pytest" / "x.py"), "exec")
    start = compile("def start(process): process.start()", str(tmp_path / "site-packages" / "lib.py"), "exec")
    names = {}
    for code in (hook, runner, start):
        exec(code, names)
    process = multiprocessing.Process(target=nothing)
    with Leg(METHODS[0]) as leg:
        process = multiprocessing.Process(target=nothing)
        names["call"](names[name], functools.partial(names["start"], process))
        process.join()
    assert len(leg.record.launches) == recorded


@pytest.mark.skipif("spawn" not in METHODS, reason="no spawn on this platform")
def test_a_failure_that_repeats_itself_is_diagnosed_once(monkeypatch):
    """Failures repeated as by hypothesis have the same line, code and error."""
    from pytest_startmethod.causes import pickling

    calls = []
    diagnose = pickling.diagnose
    monkeypatch.setattr(pickling, "diagnose", lambda *args, **more: calls.append(1) or diagnose(*args, **more))
    with Leg("spawn") as leg:
        for _ in range(3):
            with pytest.raises(Exception, match=r"pickle|lambda") as caught:
                multiprocessing.Process(target=lambda: None).start()
            assert failure_of(leg.record, caught.value) is leg.record.failures[0]
            assert vars(caught.value).keys() <= {"__notes__"}  # added by the interpreter, from 3.14 on
    assert calls == [1]
    assert [launch.findings[0].code for launch in leg.record.launches] == ["SM101"] * 3


class Unpicklable:
    def __reduce__(self):
        raise TypeError("does not pickle")


class PicklesTooMuch:
    """Pickles something else on the way, which fails."""

    def __reduce__(self):
        multiprocessing.reduction.ForkingPickler.dumps(Unpicklable())
        return nothing, ()


class Unloadable:
    def __reduce__(self):
        return exit_after, ("does not load",)


def exit_after(text):
    raise ValueError(text)


def unloadable():
    return Unloadable()


def callback(_result):
    raise ValueError("in the callback")


def put_into_queue():
    queue = multiprocessing.Queue()
    queue.put(Unpicklable())
    queue.close()
    queue.join_thread()


def end_result_handler(pool, _job):
    pool._result_handler.join()
    pool._cache.clear()  # `Pool.terminate` refuses to end the workers while a job without handler waits


def receive_from_pool():
    with multiprocessing.Pool(1) as pool:
        end_result_handler(pool, pool.apply_async(unloadable))


def call_back():
    with multiprocessing.Pool(1) as pool:
        end_result_handler(pool, pool.apply_async(nothing, callback=callback))


def receive():
    one, other = multiprocessing.Pipe()
    one.send(Unloadable())
    other.recv()


def submit_to_executor():
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        executor.submit(nothing, Unpicklable()).result()


def start_unpicklable():
    multiprocessing.get_context("spawn").Process(target=nothing, args=(Unpicklable(),)).start()


def start_twice():
    process = multiprocessing.Process(target=nothing)
    process.start()
    process.join()
    process.start()


def submit_to_a_closed_pool():
    with multiprocessing.Pool(1) as pool:
        pass
    pool.apply(nothing)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 puts the frame back when an exception is raised once more")
@pytest.mark.parametrize(
    "act",
    [
        put_into_queue,
        receive_from_pool,
        call_back,
        receive,
        submit_to_executor,
        start_unpicklable,
        start_twice,
        submit_to_a_closed_pool,
    ],
)
def test_no_frame_of_ours_is_in_a_traceback_that_a_thread_prints(act, method, monkeypatch, capsys):
    """Nor in pytest's warnings about threads, or in what an executor sends to the user."""

    def hook(args):
        sys.stderr.write("".join(traceback.format_exception(args.exc_value)))

    monkeypatch.setattr(threading, "excepthook", hook)
    with Leg(method):
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert os.path.dirname(launches.__file__) not in printed


def test_an_exception_that_passes_two_picklings_is_one_failure():
    """It belongs to the inner one, and a later one alike at another line is a failure of its own."""
    with Leg("spawn") as leg:
        with pytest.raises(TypeError, match="does not pickle") as caught:
            multiprocessing.reduction.ForkingPickler.dumps(PicklesTooMuch())
        assert failure_of(leg.record, caught.value) is leg.record.failures[0]
        with pytest.raises(TypeError, match="does not pickle"):
            multiprocessing.reduction.ForkingPickler.dumps(Unpicklable())
    assert len(leg.record.failures) == 2


REPLACED = [(os, "getpid"), (os.path, "abspath"), (signal, "getsignal"), (io, "open"), (builtins, "open")]


@pytest.mark.parametrize("method", METHODS)
def test_what_a_test_replaces_is_not_called_by_us(method, monkeypatch):
    """A mock that counts its calls, or has a list of results, serves the test alone; recording goes on."""
    callers = []

    def replace(where, name):
        original = getattr(where, name)

        def replacement(*args, **kwargs):
            callers.append((name, sys._getframe(1).f_globals["__name__"]))
            return original(*args, **kwargs)

        monkeypatch.setattr(where, name, replacement)

    recorder = Recorder(Exchanges(), LaunchExaminer(functools.partial(state.observe, user=UserCode())))
    for where, name in REPLACED:
        replace(where, name)
    with recorder.leg(f"test_x[{method}]", method, precheck=True) as record:
        process = multiprocessing.get_context(method).Process(target=nothing, args=(callers,))
        process.start()
        process.join()
    assert process.exitcode == 0
    assert len(record.launches) == 1
    assert [each for each in callers if each[1].startswith("pytest_startmethod")] == []
    assert ("getpid", "multiprocessing.process") in callers
