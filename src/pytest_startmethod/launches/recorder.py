"""Record every process that a leg starts, every task it submits to a pool, and every start that fails."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from multiprocessing.process import BaseProcess
from os import getpid
from types import FrameType
from typing import Any, Protocol, TypeVar

from .._compat import cpython
from .._compat import multiprocessing as mp
from .._compat.signals import OwnCode
from ..activation import contexts
from ..activation.exchanges import Exchanges, Span
from ..model import backends, methods
from ..model.backends import Backend
from ..model.examiner import Examiner
from ..model.finding import placed
from ..model.launch import Failure, Fixture, Launch, Task
from ..model.leg_record import LegRecord
from ..model.payload import Payload
from ..pickling import dry_run, packing
from ..source.callers import calling_place, is_plugins
from ..source.describing import describe_arguments, describe_callable, one_line
from . import foreign, server
from .pools import Pools

_T = TypeVar("_T")
_KEPT_BYTES = 1_000_000
"""Limit on the size of kept payloads."""
_MOST_EXAMINED = 20
"""Tasks of a kind that are examined as they are pickled."""
_MOST_SENT = 3
"""Tasks of a kind whose payloads are kept."""


class Started(weakref.ref[BaseProcess]):
    """A started process. Its exit code is recorded when the process object is collected, or at the end of the leg.

    Holds no reference that would outlive the process object: the Popen object closes its descriptors when collected.
    """

    __slots__ = ("held", "launch")

    launch: Launch
    held: Any
    """The Popen object until the process object is collected or the exit code is known, then None."""

    def popen(self) -> object:
        """Return the Popen object, or None if the process object has been collected."""
        return self.held

    def gone(self) -> None:
        """Record the end of the process when its object is collected."""
        popen, self.held = self.held, None
        if popen is not None and self.launch.exit_code is None:
            self._over(popen, popen.returncode)
            if self.launch.pool is not None:
                self.launch.pool.exited(popen.returncode)

    def note_exit(self) -> None:
        """Record the exit code if the process has ended."""
        popen = self.held
        if popen is not None and (code := popen.poll()) is not None:
            self.held = None
            self._over(popen, code)

    def _over(self, popen: Any, code: int | None) -> None:
        self.launch.pid, self.launch.exit_code = popen.pid, code


class Watcher(Protocol):
    """Watches tests that are not legs."""

    def open(self) -> LegRecord | None:
        """Return the record of the running test, at its first process or task."""

    def fixture(self, frame: FrameType) -> Fixture | None:
        """Return the fixture being set up above `frame` in the stack."""

    def by_default(self, method: str) -> None:
        """Note that the test starts a process or submits a task through the default context, under `method`."""


class Recorder:
    """Records starts and submissions while a leg runs. One per session; never raises into user code."""

    def __init__(self, exchanges: Exchanges, examiner: Examiner | None = None) -> None:
        self._exchanges = exchanges
        self.record: LegRecord | None = None
        self.fixtures: list[object] = []
        """Definitions of the fixtures being set up, innermost last."""
        self.by_fixture: dict[Fixture, list[Launch]] = {}
        """Launches by fixtures wider than a function; they also affect later legs."""
        self.of_fixtures: list[Launch] = []
        """Launches by such fixtures, in legs, after teardown. Those still running are ended with the session."""
        self.examiner = examiner
        """Examines what is started and submitted, if set."""
        self.pools = Pools()
        self.dead_workers: Callable[[], str] = lambda: "nothing is known of why"
        """Returns why the workers of a pool died."""
        self.lost_jobs: Callable[[], set[int]] = set
        """Returns the numbers of the pool jobs whose tasks no worker could unpickle."""
        self.troubles: list[str] = []
        """Errors in our own code."""
        self.watcher: Watcher | None = None
        self.told: Callable[[LegRecord, Launch], None] | None = None
        """Called for each process after its start."""
        self._installed: Span | None = None
        self._pid = getpid()
        self._local = threading.local()

    # -- one leg -----------------------------------------------------------------------------------------------------

    @contextmanager
    def leg(
        self, nodeid: str, method: str, *, precheck: bool, backend: Backend = backends.STDLIB
    ) -> Iterator[LegRecord]:
        """Record during a leg: multiprocessing, and the package of `backend` if `method` belongs to another one."""
        record = self.record = LegRecord(nodeid, method, precheck, package=backend.package)
        installed = self.install()
        own = self._exchanges.span(f"recording {backend.package}")
        try:
            if backend is not backends.STDLIB:
                self._listen(own, backend)
            yield record
        finally:
            own.undo()
            if installed:
                self.uninstall()
            self.close(record)

    def close(self, record: LegRecord) -> None:
        """Stop recording to `record`."""
        self.record = None
        self.note_exits(record)

    def install(self) -> bool:
        """Install the wrappers, also for `watcher`, until `uninstall`. Return False if they already were."""
        if self._installed is not None:
            return False
        self._installed = span = self._exchanges.span("recording")
        self._listen(span, backends.STDLIB)
        watch = foreign.Watch(self._opened, self.guarded, span)
        watch.begin()
        span.when_undone(watch.end, "os.fork is listened to")
        return True

    def uninstall(self) -> None:
        """Restore what `install` replaced."""
        if self._installed is not None:
            self._installed.undo()
            self._installed = None

    def _listen(self, span: Span, backend: Backend) -> None:
        package = mp.Package(backend.package)
        span.put(package.process_class, "start", partial(self._wrap_start, backend=backend))
        span.put(package.pickler_class, "dump", partial(self._wrap_dump, package=package))
        if backend is backends.STDLIB:
            span.put(package.pickler_class, "dumps", self._wrap_dumps)
        watch_dump = partial(packing.watch_dump, before=self._sending, after=self._sent, limit=_KEPT_BYTES)
        span.put(package.module("reduction"), "dump", watch_dump)
        for module in package.submitting_modules:
            span.when_loaded(module, partial(self.guarded, self._listen_to_tasks, span, module))

    def _listen_to_tasks(self, span: Span, module: str) -> None:
        for cls, name, method_of in mp.submissions(module):
            span.put(cls, name, partial(self._wrap_submit, name=name, method_of=method_of))
        for cls in mp.result_classes(module):
            span.put(cls, "_set", self._wrap_result)

    def note_exits(self, record: LegRecord) -> None:
        """Record the exit codes of processes that have ended, including those that nobody joined."""
        for started in record.started:
            if started.held is not None:
                self.guarded(started.note_exit)

    def forget_fixtures(self) -> None:
        """Forget the fixtures after all have been torn down."""
        of_legs = (each for launches in self.by_fixture.values() for each in launches if each.pinned is None)
        self.of_fixtures += of_legs
        self.by_fixture.clear()

    def guarded(self, function: Callable[..., _T], *args: object) -> _T | None:
        """Call our own code from within user code. Record and suppress its errors; the user's signal handlers wait."""
        with cpython.frameless, OwnCode():
            try:
                return function(*args)
            except Exception as trouble:
                self.troubles.append(f"{type(trouble).__name__} in {function.__qualname__}: {trouble}")
        return None

    def _listening(self) -> LegRecord | None:
        """Return the record of the running leg, or None in other processes."""
        return self.record if getpid() == self._pid else None  # a forked child inherits our wrappers

    def follow(self) -> None:
        """Record in this process from now on: a leg that pytest-forked isolates runs in a fork of its own."""
        self._pid = getpid()

    def _opened(self) -> LegRecord | None:
        """Return the record of the running leg or watched test, opening one for the latter if needed."""
        if self.record is None and self.watcher is not None and getpid() == self._pid and not mp.in_pool_thread():
            self.record = self.guarded(self.watcher.open)
        return self._listening()

    # -- starts ------------------------------------------------------------------------------------------------------

    def _wrap_start(self, original: Callable[[BaseProcess], None], backend: Backend) -> Callable[[BaseProcess], None]:
        @wraps(original)
        def start(process: BaseProcess) -> None:
            __tracebackhide__ = True
            record = self._opened()
            if record is None or getattr(self._local, "starting", None) is process:  # already recorded further out
                with cpython.frameless:
                    return original(process)
            with cpython.frameless:
                started = self.guarded(self._open, record, process, backend, sys._getframe(1))
                self._local.starting, self._local.launch = process, started and started.launch
                try:
                    original(process)
                except BaseException as error:
                    if started is not None:
                        self.guarded(self._failed, record, started.launch, error)
                    raise
                finally:
                    self._local.starting = self._local.launch = None
            # Few statements and no calls: the child has started, and both pay for each page that either writes to.
            if started is not None:
                popen = started.held = process.__dict__.get(mp.POPEN)
                started.launch.pid = None if popen is None else popen.pid
                record.started.append(started)
                if self.told is not None:
                    self.guarded(self.told, record, started.launch)
            return None

        return start

    def _open(self, record: LegRecord, process: BaseProcess, backend: Backend, caller: FrameType) -> Started | None:
        launch = self._launch(record, process, backend, caller)
        if launch is None:
            return None
        if launch.pool is not None:
            # On a free-threaded build, a process object goes only when the thread that made it gets around to it.
            for started in record.started:
                if started.launch.pool is launch.pool and getattr(started.held, "returncode", None) is not None:
                    self.guarded(started.gone)
            self.guarded(self.pools.worker_starting, launch.pool, self.dead_workers, self.lost_jobs)
        started = Started(process, Started.gone)
        started.launch, started.held = launch, None
        launch.popen = started.popen
        return started

    def _launch(self, record: LegRecord, process: BaseProcess, backend: Backend, caller: FrameType) -> Launch | None:
        target, args, kwargs = mp.process_work(process)
        thread = threading.current_thread()
        method = mp.Package(backend.package).process_method(process)
        if not self.fixtures and is_plugins(caller):  # a plugin's own process, for measuring or isolating the test
            return None
        if method not in methods.ORDER:  # a loky process, which is multiprocessing's with a method of its own
            foreign.note_process(record, process, method, caller)
            return None
        launch = Launch(
            method=backend.method(method),
            target=describe_callable(target) if target is not None else describe_callable(type(process).run),
            args=describe_arguments(args, kwargs),
            place=calling_place(caller),
            thread=None if thread is threading.main_thread() else thread.name,
            fixture=Fixture.of(self.fixtures[-1]) if self.fixtures else None,
            leg=record.leg,
        )
        record.launches.append(launch)
        launch.own_method = not contexts.class_by_default(type(process))
        if record.watched:
            if self.watcher is not None and launch.fixture is None:
                launch.fixture = self.watcher.fixture(caller)
            launch.pinned = launch.own_method
            if not launch.pinned and self.watcher is not None:
                self.watcher.by_default(launch.method)
        if launch.fixture is not None and launch.fixture.scope != "function":
            self.by_fixture.setdefault(launch.fixture, []).append(launch)
        launch.by_torch = foreign.through_torch(target, caller)
        if method == "fork" and threading.active_count() > 1:
            launch.threads = tuple(each.name for each in threading.enumerate() if each is not thread)
        self._look(record, launch, process, backend, caller)
        return launch

    def _look(
        self, record: LegRecord, launch: Launch, process: BaseProcess, backend: Backend, caller: FrameType
    ) -> None:
        """Record which pool or executor a process works for, and have it examined."""
        target, args, _ = mp.process_work(process)
        worker = mp.worker_initializer(target, args)
        launch.is_worker = worker is not None
        if mp.is_pool_worker(target):
            launch.pool = self.pools.of(args[0])
            launch.place = launch.pool.place = launch.pool.place or launch.place
        if worker is not None and worker[0] is not None:
            executor = getattr(target, "__module__", None) == "concurrent.futures.process"
            owner = "ProcessPoolExecutor" if executor else "Pool"
            task = Task(launch.method, owner, "initializer", describe_callable(worker[0]), launch.place)
            if task not in record.tasks:  # all workers share the initializer
                self._examine_task(record, task, *worker, {}, caller)
        if self.examiner is not None:
            package = mp.Package(backend.package)
            self.guarded(self.examiner.starting, record, launch, process, package, caller)
        if launch.method == "forkserver":
            launch.surroundings = self.guarded(server.surroundings)

    def _examine_task(
        self,
        record: LegRecord,
        task: Task,
        function: object,
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        caller: FrameType,
    ) -> None:
        if self.examiner is not None:
            self.guarded(self.examiner.submitted, task, function, args, kwargs, caller)
        record.tasks.append(task)

    def _wrap_result(self, original: Callable[..., object]) -> Callable[..., Any]:
        def _set(job: object, i: int, outcome: tuple[bool, object]) -> None:
            if self._listening() is not None:
                self.guarded(self.pools.result, job, outcome)
            with cpython.frameless:
                original(job, i, outcome)

        return _set

    def _failed(self, record: LegRecord, launch: Launch, error: BaseException) -> None:
        launch.error = one_line(error)
        failure = failure_of(record, error)
        if failure is not None:
            failure.place = launch.place
            failure.findings = placed(failure.findings, launch.place)
            launch.failure = failure
        else:
            record.failures.append(Failure(launch.error))
            record.noted[id(error)] = launch.error, record.failures[-1]

    # -- pickling ----------------------------------------------------------------------------------------------------

    def _sending(self, process: BaseProcess) -> object:
        """Examine a process before multiprocessing pickles it."""
        launch = getattr(self._local, "launch", None)
        if self.examiner is None or launch is None or self._local.starting is not process or not self._listening():
            return None
        return self.guarded(self.examiner.sending, launch, process)

    def _sent(self, process: BaseProcess, before: object, payload: Payload | None) -> None:
        """Record the bytes sent to a child, and examine the process again."""
        launch = getattr(self._local, "launch", None)
        if launch is None or self._local.starting is not process or not self._listening():
            return
        if not launch.is_worker:  # a worker's payload is multiprocessing's own, its initializer aside
            launch.payload = payload
        if before and self.examiner is not None:
            self.guarded(self.examiner.sent, launch, before, payload)

    def _wrap_dumps(self, original: Any) -> object:
        """Wrap ``ForkingPickler.dumps``, through which tasks go to workers, in a thread of the pool's."""
        bound = getattr(original, "__func__", None)

        def dumps(cls: type, obj: object, protocol: int | None = None) -> Any:
            __tracebackhide__ = True
            sending = self.guarded(self._sending_task, obj) if self.record is not None else None
            with cpython.frameless:
                data = original(obj, protocol) if bound is None else bound(cls, obj, protocol)
            if sending is not None:
                self.guarded(self._sent_task, *sending, data)
            return data

        return classmethod(dumps)

    def _sending_task(self, obj: object) -> tuple[Task, object] | None:
        record = self._listening()
        if record is None or record.watched or self.examiner is None:
            return None
        call = dry_run.as_call(obj)
        if not isinstance(call, dry_run.Call):
            return None
        target = describe_callable(call.target)
        task = next((each for each in record.tasks if each.target == target and each.how != "initializer"), None)
        if task is None or task.examined >= _MOST_EXAMINED or len(task.sent) >= _MOST_SENT:
            return None
        task.examined += 1
        return task, self.examiner.sending(task, obj)

    def _sent_task(self, task: Task, before: object, data: Any) -> None:
        if before and self.examiner is not None:
            payload = Payload(bytes(data), (), "task") if memoryview(data).nbytes <= _KEPT_BYTES else None
            self.examiner.sent(task, before, payload)

    def _wrap_dump(
        self, original: Callable[[object, object], object], package: mp.Package
    ) -> Callable[[object, object], object]:
        def dump(pickler: object, obj: object) -> object:
            __tracebackhide__ = True
            with cpython.frameless:
                try:
                    return original(pickler, obj)
                except Exception as error:
                    record = self._listening()
                    if record is not None:
                        self.guarded(self._not_pickled, record, obj, error, package, sys._getframe())
                    raise

        return dump

    def _not_pickled(
        self, record: LegRecord, obj: object, error: Exception, package: mp.Package, dump: FrameType
    ) -> None:
        inner, self._local.inner = getattr(self._local, "inner", None), None
        if is_within(dump):
            self._local.inner = id(error)
        if inner == id(error):
            return
        failure: Failure | None = Failure(one_line(error))
        if self.examiner is not None:
            failure = self.guarded(self.examiner.not_pickled, record, obj, error, package)
        if failure is not None:
            record.noted[id(error)] = one_line(error), failure
            if not any(each is failure for each in record.failures):
                record.failures.append(failure)

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _wrap_submit(
        self, original: Callable[..., object], name: str, method_of: Callable[[object], str | None]
    ) -> Callable[..., object]:
        @wraps(original)
        def submit(pool: object, /, *args: object, **kwargs: object) -> object:
            __tracebackhide__ = True
            record = self._opened()
            if record is not None:
                self.guarded(self._submitted, record, pool, name, method_of, args, kwargs)
            with cpython.frameless:
                return original(pool, *args, **kwargs)

        return submit

    def _submitted(
        self,
        record: LegRecord,
        pool: object,
        name: str,
        method_of: Callable[[object], str | None],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        function = args[0] if args else kwargs.get("func", kwargs.get("fn"))
        if mp.is_thread_pool(pool):
            return
        if name != "submit":
            self.pools.submitted(pool)
        function = mp.unwrap_chunk(function)
        owner = "ProcessPoolExecutor" if name == "submit" else "Pool"
        how = "map" if name == "_map_async" else name
        task = Task(method_of(pool), owner, how, describe_callable(function), calling_place(sys._getframe(1)))
        given, named = mp.task_arguments(name, args, kwargs)
        known = next((each for each in record.tasks if each == task), None)
        if known is None:
            self._examine_task(record, task, function, given, named, sys._getframe(1))
        elif self.examiner is not None:
            self.guarded(self.examiner.repeated, record, known, function, given, named, sys._getframe(1))
        if record.watched and task.method is not None and self.watcher is not None and contexts.pool_by_default(pool):
            self.watcher.by_default(task.method)


def is_within(frame: FrameType) -> bool:
    """Return whether the function of `frame` is also running further out."""
    outer = frame.f_back
    while outer is not None and outer.f_code is not frame.f_code:
        outer = outer.f_back
    return outer is not None


def failure_of(record: LegRecord, error: BaseException | None) -> Failure | None:
    """Return the recorded failure of a start or send from which `error`, its cause or its context originates."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        text, failure = record.noted.get(id(each), ("", None))
        if failure is not None and text == one_line(each):
            return failure
        todo += [each.__context__, each.__cause__, *getattr(each, "exceptions", ())]
    return None
