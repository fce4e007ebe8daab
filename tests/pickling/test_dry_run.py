"""A dry run gives a real start's verdict, and has no other noticeable effect."""

from __future__ import annotations

import array
import concurrent.futures.process
import contextlib
import dataclasses
import gc
import io
import itertools
import multiprocessing
import multiprocessing.managers
import os
import pickle
import socket
import sys
import threading
import types
import unittest
import warnings
from collections.abc import Iterator
from multiprocessing import context, pool, reduction
from typing import Any
from unittest import mock

import pytest

from pytest_startmethod.causes.pickling import diagnose
from pytest_startmethod.pickling.dry_run import StandIn, UserCodeError, dry_run, is_plain

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")


def work(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


class Holder:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    def run(self) -> None:
        """Do nothing."""


def open_descriptors() -> set[tuple[str, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor used for listing
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Assert that nothing is left behind: no descriptor, no thread, no spawning popen."""
    gc.collect()
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    yield
    assert open_descriptors() <= descriptors
    assert set(threading.enumerate()) <= threads
    assert context.get_spawning_popen() is None


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_the_size_is_that_of_the_real_payload() -> None:
    """The size is what ForkingPickler writes, plus large buffers."""
    payload = {"a": list(range(1000)), "b": "x" * 100_000, "c": b"y" * 300_000}
    outcome = dry_run(payload)
    assert outcome.error is None
    assert outcome.buffers == 0
    assert outcome.size == len(pickle.dumps(payload, 5))


def test_an_array_is_counted_and_not_copied() -> None:
    """An array's data is in `buffers`, and counts in `size`."""
    numpy = pytest.importorskip("numpy")
    outcome = dry_run(numpy.zeros(1_000_000))
    assert outcome.buffers == 8_000_000
    assert 8_000_000 < outcome.size < 8_001_000


def test_an_array_that_is_not_contiguous_is_not_copied_either() -> None:
    """A strided view's own reduction would copy it."""
    import tracemalloc

    numpy = pytest.importorskip("numpy")
    view = numpy.zeros((3000, 3000))[::2, ::2]
    tracemalloc.start()
    try:
        assert dry_run(view).error is None
        assert dry_run(array.array("d", [0.0]) * 1_000_000).error is None
        assert tracemalloc.get_traced_memory()[1] < 9_000_000  # the array.array itself
    finally:
        tracemalloc.stop()


def test_the_error_is_the_interpreters_and_holds_no_frames() -> None:
    """The error has the interpreter's text, and no traceback that would keep the payload alive."""
    error = dry_run(threading.Lock()).error
    assert isinstance(error, TypeError)
    assert str(error) == "cannot pickle '_thread.lock' object"
    assert error.__traceback__ is None


class Alarm(BaseException):
    pass


@pytest.mark.parametrize("abort", [KeyboardInterrupt, SystemExit, Alarm])
def test_what_is_no_exception_gets_out(abort: type[BaseException]) -> None:
    """A BaseException propagates to the user, and the spawning popen is still restored."""

    class Aborts:
        def __reduce__(self) -> Any:
            raise abort

    with pytest.raises(abort):
        dry_run(Aborts())
    assert context.get_spawning_popen() is None


def test_the_previous_spawning_popen_is_restored() -> None:
    """A dry run inside a start leaves that start's Popen in place."""
    mine = object()
    context.set_spawning_popen(mine)
    try:
        dry_run(SPAWN.Lock())
        dry_run(SPAWN.Lock(), task=True)
        diagnose(lambda: 1)
        assert context.get_spawning_popen() is mine
    finally:
        context.set_spawning_popen(None)


# -- what may be sent where ------------------------------------------------------------------------------------------


def primitives(ctx: Any) -> list[Any]:
    return [
        ctx.Lock(), ctx.RLock(), ctx.Semaphore(2), ctx.BoundedSemaphore(2), ctx.Event(), ctx.Condition(),
        ctx.Barrier(2), ctx.Value("i", 1), ctx.Array("d", 3), ctx.RawValue("i"), ctx.RawArray("i", 2),
        ctx.Queue(), ctx.SimpleQueue(), ctx.JoinableQueue(),
    ]  # fmt: skip


def test_primitives_are_legal_inside_a_process() -> None:
    """A process's arguments may contain primitives that plain pickle refuses."""
    made = primitives(SPAWN)
    with quiet():
        for each in made:
            assert dry_run(each).error is None, each
            assert diagnose(each) == ()


def test_primitives_are_not_legal_inside_a_task() -> None:
    """The same objects are refused in a pool's task or a queue's item."""
    made = primitives(SPAWN)
    with quiet():
        for each in made:
            error = dry_run(each, task=True).error
            (finding,) = diagnose(each, task=True)
            assert isinstance(error, RuntimeError), each
            assert "through inheritance" in str(error)
            assert finding.code == "SM106"


def test_primitives_of_a_fork_context_are_refused() -> None:
    """A lock that a fork context made is refused on every version: on 3.10 the child would crash."""
    made = primitives(FORK)
    with quiet():
        for each in made:
            if type(each).__name__ in ("c_int", "c_int_Array_2") or "Raw" in type(each).__name__:
                continue
            error = dry_run(each).error
            (finding,) = diagnose(each)
            assert isinstance(error, RuntimeError), each
            assert "fork context" in str(error)
            assert finding.code == "SM106"


def test_primitives_of_a_fork_context_can_be_let_through() -> None:
    """A fork leg holds fork's primitives; under spawn, another context would have made them."""
    for each in primitives(FORK):
        assert dry_run(each, allow_fork_primitives=True).error is None, each
        assert diagnose(each, allow_fork_primitives=True) == ()
        assert dry_run([each], allow_fork_primitives=True, task=True).error is not None


def test_connections_and_sockets_are_legal_everywhere() -> None:
    """Tasks may contain them; the dry run duplicates no descriptor and starts no thread."""
    ends = SPAWN.Pipe()
    made = socket.socket()
    try:
        with quiet():
            for each in (*ends, made, [made, ends]):
                assert dry_run(each).error is None
                assert dry_run(each, task=True).error is None
                assert diagnose({"connection": each}, task=True) == ()
    finally:
        for each in (*ends, made):
            each.close()


def test_closed_ones_are_refused() -> None:
    """A closed connection or socket has no descriptor to send."""
    ends = SPAWN.Pipe()
    made = socket.socket()
    for each in (*ends, made):
        each.close()
    for each in (ends[0], made):
        assert isinstance(dry_run(each).error, OSError)
        assert isinstance(dry_run(each, task=True).error, OSError)
        (finding,) = diagnose(each)
        assert finding.code == "SM103"


def test_a_proxy_of_a_manager_sends_nothing() -> None:
    """A proxy pickles; the manager is not called."""
    token = multiprocessing.managers.Token("dict", ("127.0.0.1", 1), "0")
    proxy = multiprocessing.managers.DictProxy.__new__(multiprocessing.managers.DictProxy)
    proxy.__dict__.update(_token=token, _serializer="pickle", _authkey=b"secret", _isauto=False)
    proxy._manager = None
    proxy._close = types.SimpleNamespace(cancel=lambda: None)
    assert dry_run(proxy).error is None
    assert diagnose(proxy) == ()


def test_the_users_own_reducers_count() -> None:
    """Reducers from `ForkingPickler.register` decide whether a class pickles."""

    class Local:
        pass

    try:
        reduction.ForkingPickler.register(Local, lambda _: (work, ()))
        assert dry_run(Local()).error is None
        assert diagnose(Local()) == ()
        reduction.ForkingPickler.register(Local, lambda _: (work, (lambda: 1,)))
        (finding,) = diagnose(Local())
        assert finding.code == "SM101"
    finally:
        del reduction.ForkingPickler._extra_reducers[Local]  # type: ignore[attr-defined]


def test_the_users_own_pickler_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With cloudpickle as ForkingPickler, a lambda pickles, and a lock in its cell does not."""
    cloudpickle = pytest.importorskip("cloudpickle")

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        pass

    monkeypatch.setattr(reduction, "ForkingPickler", Pickler)
    Pickler._extra_reducers = {}
    guard = threading.Lock()
    assert dry_run(lambda: 1).error is None
    assert diagnose(lambda: 1) == ()
    findings = diagnose(lambda: guard)
    assert [finding.code for finding in findings] == ["SM103"]


def test_a_tensor_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's reducer, which would move a tensor to shared memory, is not called; its refusals are kept."""

    class Tensor:
        def __init__(self, *, grad: bool) -> None:
            self.requires_grad, self.is_leaf = grad, not grad

    def reduce_tensor(_: Tensor) -> Any:
        raise AssertionError("moved")

    reduce_tensor.__module__ = "torch.multiprocessing.reductions"
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setitem(reduction.ForkingPickler._extra_reducers, Tensor, reduce_tensor)  # type: ignore[attr-defined]
    assert dry_run(Tensor(grad=False)).error is None
    error = dry_run(Tensor(grad=True)).error
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("Cowardly refusing to serialize non-leaf tensor which requires_grad")


@pytest.mark.parametrize("holder", [lambda b: b, lambda b: [1, (b,)], lambda b: Holder(view=b)])
def test_a_bare_pickle_buffer_is_judged_by_the_default_protocol(holder: Any) -> None:
    """Protocol 5 accepts it; protocol 4, the default up to 3.13, does not."""
    payload = holder(pickle.PickleBuffer(b"abc"))
    refused = pickle.DEFAULT_PROTOCOL < 5
    assert (dry_run(payload).error is not None) is refused
    assert bool(diagnose(payload)) is refused


def test_a_reduction_that_warns_fails_where_warnings_are_errors() -> None:
    """As in a real start; to hide the warning, dry-run in a copy of the process."""

    class Warns:
        def __reduce__(self) -> Any:
            warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
            return Warns, ()

    globals()["Warns"] = Warns
    Warns.__qualname__ = "Warns"
    try:
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            with pytest.raises(UserCodeError):
                dry_run(Warns(), user_code=False)
            assert shown == []
            warnings.simplefilter("error")
            assert isinstance(dry_run(Warns()).error, DeprecationWarning)
    finally:
        del globals()["Warns"]


def test_a_class_with_greedy_getattr_is_no_trap() -> None:
    """On 3.10, `__getattr__` is called for `__getstate__` and fails in the parent (SM105); later versions succeed."""
    outcome = dry_run(GREEDY)
    findings = diagnose(GREEDY)
    assert bool(outcome.error) == bool(findings) == (sys.version_info < (3, 11))
    assert all(finding.code == "SM105" and "__getattr__" in finding.fix for finding in findings)


class Greedy:
    def __init__(self) -> None:
        self.inner = {"a": 1}

    def __getattr__(self, name: str) -> Any:
        return self.inner[name]


GREEDY = Greedy()


# -- processes and tasks ---------------------------------------------------------------------------------------------


def paths(obj: object, **how: Any) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in diagnose(obj, **how)]


def test_a_process_is_walked_from_what_the_user_gave_it() -> None:
    """Paths start at target, args and kwargs; a subclass's own attributes start at process."""
    bad = threading.Lock()
    process = SPAWN.Process(target=lambda: 1, args=(1, [bad]), kwargs={"k": {"x": bad}, "z": Holder(s=sys)})
    assert paths(process) == [
        ("SM101", "target"), ("SM103", "args[1][0]"), ("SM103", "kwargs['z'].s"),
    ]  # fmt: skip


class Server(multiprocessing.Process):
    def __init__(self, guard: Any = None) -> None:
        super().__init__()
        self.guard = guard


def test_an_attribute_of_a_process_subclass() -> None:
    """`self.guard = ...` in a Process subclass is `process.guard`, with the line that set it."""
    (finding,) = diagnose(Server(threading.Lock()))
    assert (finding.code, finding.path) == ("SM103", "process.guard")
    assert finding.file == __file__
    assert finding.evidence[0].endswith("self.guard = guard")
    assert finding.message.startswith("`Server.guard` is a lock (_thread.lock)")
    assert diagnose(Server()) == ()


def test_an_argument_is_set_by_the_user_not_by_the_process() -> None:
    """The place is the user's line, not that of Process's constructor."""
    process = SPAWN.Process(target=work, args=(threading.Lock(),))
    (finding,) = diagnose(process)
    assert (finding.path, finding.file) == ("args[0]", None)


def test_a_local_process_subclass() -> None:
    """The class itself must be importable."""

    class Local(multiprocessing.Process):
        pass

    (finding,) = diagnose(Local())
    assert (finding.code, finding.path) == ("SM102", "process.__class__")


def test_a_process_that_has_started_is_judged_as_before() -> None:
    """Attributes set by start() are not a reason."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert dry_run(process).error is None
    assert diagnose(process, error=TypeError("x"))[0].path == ""
    assert diagnose(process) == ()


def test_the_task_of_a_pool() -> None:
    """A pool's task is unwrapped to the user's function and arguments."""
    bad = threading.Lock()
    assert paths((0, 0, lambda: 1, (1, bad), {"k": [bad]}), task=True) == [("SM101", "target"), ("SM103", "args[1]")]
    assert paths((0, 0, pool.mapstar, ((work, (1, bad)),), {}), task=True) == [("SM103", "args[0]")]
    assert paths((0, 0, pool.mapstar, ((lambda x: x, (1, 2)),), {}), task=True) == [("SM101", "target")]
    assert paths((0, 0, pool.starmapstar, ((work, [(1, 2), (3, bad)]),), {}), task=True) == [("SM103", "args[1]")]
    assert paths((0, 0, work, (1,), {}), task=True) == []


def test_an_item_of_a_batch_is_numbered() -> None:
    """If a pool sends several items in one message, the finding says which one."""
    (finding,) = diagnose((0, 0, pool.mapstar, ((work, (1, threading.Lock())),), {}), task=True)
    assert finding.evidence[0] == "in item 1 of the batch"


def test_the_task_of_an_executor() -> None:
    """ProcessPoolExecutor's call items are unwrapped, including the chunks of `map`."""
    item = concurrent.futures.process._CallItem(0, work, ([threading.Lock()],), {})  # type: ignore[attr-defined]
    assert paths(item, task=True) == [("SM103", "args[0][0]")]
    chunk = itertools.islice(zip([1, 2], [lambda: 1, 2], strict=True), 2)
    process_chunk = concurrent.futures.process._process_chunk  # type: ignore[attr-defined]
    from functools import partial

    item = concurrent.futures.process._CallItem(0, partial(process_chunk, work), (tuple(chunk),), {})  # type: ignore[attr-defined]
    assert paths(item, task=True) == [("SM101", "args[1]")]


def test_anything_else_is_an_object() -> None:
    """A queue's item or a connection's message has no target."""
    assert paths({"a": sys}, task=True) == [("SM103", "object['a']")]
    assert paths(sys, task=True) == [("SM103", "object")]


# -- when the search fails -------------------------------------------------------------------------------------------


def test_an_error_without_a_place_is_said_as_it_is() -> None:
    """A failure that the walk does not find is one finding with the interpreter's message."""
    (finding,) = diagnose([1, 2], error=TypeError("cannot pickle 'ghost' object"))
    assert (finding.code, finding.path, finding.file) == ("SM103", "", None)
    assert finding.message == (
        "pickling failed with TypeError: cannot pickle 'ghost' object. The place could not be found."
    )
    assert str(finding).splitlines()[0] == "SM103 unpicklable-object"
    (finding,) = diagnose([1, 2], error=ValueError("odd"))
    assert finding.code == "SM105"


def test_a_walk_that_ends_early_says_so() -> None:
    """When the budget is spent, the finding says how many objects were visited."""
    (finding,) = diagnose([[[[threading.Lock()]]]], budget=2)
    assert finding.evidence[-1] == "only the first 2 objects were looked at"


def test_a_search_that_fails_still_gives_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the search itself fails, the finding carries the interpreter's error."""
    from pytest_startmethod.causes import pickling as causes

    monkeypatch.setattr(causes, "search", mock.Mock(side_effect=RuntimeError("ours")))
    (finding,) = diagnose(threading.Lock())
    assert finding.message.startswith("pickling failed with TypeError: cannot pickle '_thread.lock' object.")
    assert finding.evidence == ("the search itself failed: RuntimeError: ours",)


def test_a_mutation_while_walking_is_survived() -> None:
    """A reduction that modifies the container around it does not break the diagnosis."""
    payload: dict[str, Any] = {}

    class Mutates:
        def __reduce__(self) -> Any:
            payload[str(len(payload))] = 1
            raise ValueError("x")

    payload["m"] = [Mutates()]
    (finding,) = diagnose(payload)
    assert finding.code == "SM105"


def test_the_users_repr_is_never_called() -> None:
    """The payload's `__repr__`, `__str__`, `__eq__`, `__hash__` and `__bool__` never run."""
    calls: list[str] = []

    def note(name: str) -> Any:
        def method(*_: Any) -> Any:
            calls.append(name)
            raise AssertionError(name)

        return method

    names = ("__repr__", "__str__", "__eq__", "__hash__", "__bool__", "__len__", "__iter__", "__getattr__")
    loud = type("Loud", (), {name: note(name) for name in names})
    held = loud()
    object.__setattr__(held, "lock", threading.Lock())
    with mock.patch.dict(globals(), {"Loud": loud}):
        loud.__module__ = __name__
        assert diagnose({"h": held})

        def local() -> Any:
            return held

        str(diagnose(local)[0])
    assert [each for each in calls if each != "__getattr__"] == []  # 3.10's pickle itself looks up __getstate__


# -- the object to name ----------------------------------------------------------------------------------------------


class Case(unittest.TestCase):
    seen: tuple[Any, ...] = ()

    def test_it(self) -> None:
        self.lock = threading.Lock()
        type(self).seen = (
            diagnose(SPAWN.Process(target=self.work)),
            diagnose(SPAWN.Process(target=work, args=(self,))),
            diagnose(SPAWN.Process(target=lambda: self.lock)),
        )

    def work(self) -> None:
        """Do nothing."""


def test_a_method_of_a_running_testcase() -> None:
    """The finding is about `self.work`, not the runner's objects; the test case's own attributes are listed."""
    Case("test_it").run(unittest.TestResult())
    method, instance, closure = Case.seen
    (finding,) = method
    assert (finding.code, finding.path, finding.file) == ("SM103", "target", __file__)
    assert finding.message == (
        "`self.work` is a method of the running TestCase `Case`: pickling it means pickling `self`, and with it the "
        "test runner's own objects."
    )
    assert finding.evidence == ("also: self.lock is a lock (_thread.lock)",)
    assert finding.fix == (
        "move the code to a module-level function (or a @staticmethod of the class) and pass what it needs of self "
        "as arguments"
    )
    (finding,) = instance
    assert (finding.code, finding.path) == ("SM103", "args[0]")
    assert finding.message.startswith("`args[0]` is the running TestCase `Case`")
    (finding,) = closure
    assert finding.code == "SM101"
    assert "closes over: self = <Case object> (does not pickle: the running TestCase)" in finding.evidence
    assert "`self` does not pickle either: pass what the function needs of it as arguments" in finding.fix


def test_a_testcase_in_pytest(pytester: pytest.Pytester) -> None:
    """Under pytest, no object of its session is named either."""
    pytester.makepyfile(
        """
        import multiprocessing, unittest
        from pytest_startmethod.causes.pickling import diagnose

        class TestIt(unittest.TestCase):
            def test_it(self):
                process = multiprocessing.get_context("spawn").Process(target=self.work)
                self.assertRaises(Exception, process.start)
                (finding,) = diagnose(process)
                assert finding.path == "target" and finding.line == 13, finding
                assert "`self.work` is a method of the running TestCase `TestIt`" in finding.message
                assert "_pytest." not in " ".join([finding.message, *finding.evidence])

            def work(self):
                pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:startmethod", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_fixtures_of_pytest(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pytest fixture object has the name that the test uses, and is not searched."""
    (finding,) = diagnose([capsys])
    assert finding.message == (
        "`object[0]` is the fixture `capsys`, an object of pytest's own session (_pytest.capture.CaptureFixture), "
        "which belongs to this process and cannot be pickled."
    )
    assert finding.fix == "use the fixture in the test only, and pass the child plain values that it gave"
    (finding,) = diagnose({"r": request})
    assert "the fixture `request`" in finding.message
    (finding,) = diagnose(Holder(config=request.config))
    assert finding.path == "object.config"
    assert len(finding.evidence) < 4


def test_an_object_of_an_unknown_library(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's object has the user's name for it, and its contents as the reason."""
    folder = tmp_path / "site-packages" / "somelib"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "import threading\n"
        "class Inner:\n    def __init__(self): self.guard = threading.Lock()\n"
        "class Thing:\n    def __init__(self, hook=None): self.inner = Inner(); self.hook = hook\n"
        "class Plain:\n    def __init__(self, hook): self.hook = hook\n"
    )
    monkeypatch.syspath_prepend(folder.parent)
    somelib = __import__("somelib")
    (finding,) = diagnose(Holder(thing=somelib.Thing()))
    assert (finding.code, finding.path) == ("SM103", "object.thing")
    assert "because: its inner.guard is a lock (_thread.lock)" in finding.evidence
    assert "or leave `thing` out of what `Holder.__getstate__` returns" in finding.fix
    (finding,) = diagnose(Holder(thing=somelib.Plain(lambda: 1)))
    assert (finding.code, finding.path) == ("SM101", "object.thing.hook")


class Renamed(multiprocessing.Process):
    """A process of the user's."""


def with_attribute(process: Any) -> Any:
    process.callback = print
    return process


@pytest.mark.parametrize(
    ("process", "plain"),
    [
        (multiprocessing.Process(target=work), True),
        (multiprocessing.Process(target=work, args=(1, "a", None, b""), kwargs={"a": 1.5}), True),
        (multiprocessing.get_context("spawn").Process(target=work, name="mine", daemon=True), True),
        (multiprocessing.Process(target=lambda: None), False),
        (multiprocessing.Process(target=print), False),
        (multiprocessing.Process(target=work, args=([],)), False),
        (multiprocessing.Process(target=work, kwargs={"a": ()}), False),
        (multiprocessing.Process(), False),
        (Renamed(target=work), False),
        (with_attribute(multiprocessing.Process(target=work)), False),
    ],
)
def test_a_plain_process_needs_no_dry_run(process: Any, plain: bool) -> None:
    """A module's function with plain arguments pickles for certain."""
    assert is_plain(process) is plain
    assert not plain or dry_run(process).error is None


def test_a_function_whose_name_leads_elsewhere_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child would look the function up by its name."""
    process = multiprocessing.Process(target=work)
    monkeypatch.setattr(sys.modules[__name__], "work", print)
    assert not is_plain(process)


@dataclasses.dataclass
class Message:
    body: Any


def test_a_value_inside_plain_containers_keeps_its_owner() -> None:
    """The attribute that holds the list is the one with a place."""
    (finding,) = diagnose(Message([1, {"k": threading.Lock()}]))
    assert finding.path == "object.body[1]['k']"
    assert "or leave `body` out of what `Message.__getstate__` returns" in finding.fix


class Guarded:
    def __init__(self) -> None:
        self.guard = threading.Lock()


class Derived(Guarded): ...


def test_an_attribute_that_a_base_class_sets_is_left_out_there() -> None:
    """One `__getstate__` then serves all subclasses; the message names the class of the object."""
    (finding,) = diagnose(Derived())
    assert finding.message.startswith("`Derived.guard` is a lock")
    assert "or leave `guard` out of what `Guarded.__getstate__` returns" in finding.fix


def test_nothing_of_a_launch_is_kept_alive() -> None:
    """Neither the outcome nor the findings hold the payload."""
    import weakref

    holder = Holder(lock=threading.Lock())
    outcome, findings = dry_run(holder), diagnose(holder)
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert outcome.error is not None
    assert findings
    assert gone() is None


def test_a_background_thread_leaves_the_warning_filters_alone() -> None:
    """Warning filters are process-wide, so only the main thread changes them."""
    seen: list[Any] = []

    class Looks:
        def __reduce__(self) -> Any:
            seen.append(warnings.filters)
            return object, ()

    before = warnings.filters
    thread = threading.Thread(target=dry_run, args=(Looks(),))
    thread.start()
    thread.join()
    assert seen[0] is before


def test_the_stand_in_is_no_real_popen() -> None:
    """An open descriptor is passed on unchanged; a closed one fails."""
    assert StandIn.duplicate_for_child(7) == 7
    with pytest.raises(OSError, match="Bad file descriptor"):
        StandIn.DupFd(-1)
    assert pickle.loads(pickle.dumps(io.StringIO("x"))).read() == "x"
