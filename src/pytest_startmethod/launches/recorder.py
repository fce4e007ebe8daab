"""Record every process that a leg starts, every task it hands to a pool, and every start that fails."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation import activation
from ..model import backends, methods
from ..model.foreign import Foreign
from ..model.launch import Failure, Fixture, Launch, Task
from ..model.place import Place
from ..source.callers import calling_place
from . import foreign, server
from .pools import Pools

if TYPE_CHECKING:
    from ..model.backends import Backend
    from ..model.finding import Finding
    from ..model.observed import Observed
    from ..model.patched import Patched
    from ..state.fresh_child import Loader

_T = TypeVar("_T")
_MARK = "_pytest_startmethod_failure"
_KEPT_BYTES = 1_000_000
_DESCRIBED_LENGTH = 60
_DESCRIBED_PATH = 240
_OBSERVED_ALIKE = 2
_OBSERVING_SECONDS = 0.1


def describe_callable(function: Any) -> str:
    """Return a callable's dotted name, without calling any code of its own."""
    seen = 0
    while type(function).__name__ == "partial" and seen < 10:
        function, seen = object.__getattribute__(function, "func"), seen + 1
    if function is None:
        return "None"
    receiver = getattr(function, "__self__", None) if type(function).__name__ == "method" else None
    if receiver is not None:
        function = function.__func__
    if type(function).__name__ in ("function", "builtin_function_or_method", "type"):
        return f"{function.__module__}.{function.__qualname__}"
    return describe(function)


def describe(value: Any) -> str:
    """Return a short text for an argument: builtin values as they are, everything else by its type."""
    kind = type(value)
    if kind in (int, float, bool, type(None), complex):
        return repr(value)
    if kind in (str, bytes):
        # A path is told whole: how long that of a temporary directory is says nothing, and xdist makes it longer.
        limit = _DESCRIBED_PATH if kind is str and os.path.isabs(value) else _DESCRIBED_LENGTH
        return repr(value) if len(value) <= limit else f"<{kind.__name__} of length {len(value)}>"
    if kind in (list, tuple, dict, set, frozenset):
        return f"<{kind.__name__} of length {len(value)}>"
    if kind.__name__ in ("function", "method", "partial"):
        return describe_callable(value)
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _described(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    return [*map(describe, args), *(f"{name}={describe(value)}" for name, value in kwargs.items())]


class Started(weakref.ref[BaseProcess]):
    """A process that runs or has run; its exit code is noted when its object goes, or at the end of the leg.

    The Popen object closes its descriptors when it goes, so it must not outlive its process object by us.
    """

    __slots__ = ("held", "launch")

    launch: Launch
    held: Any
    """The Popen object while the process object lives, then None."""

    def popen(self) -> Any:
        """Return the Popen object as long as the process object lives, else None."""
        return self.held

    def gone(self) -> None:
        """Know that the process object is no more."""
        popen, self.held = self.held, None
        if popen is not None and self.launch.exit_code is None:
            self._over(popen, popen.returncode)
            if self.launch.pool is not None:
                self.launch.pool.exited(popen.returncode)

    def note_exit(self) -> None:
        """Know how the process ended, if it has."""
        popen = self.held
        if popen is not None and (code := popen.poll()) is not None:
            self.held = None
            self._over(popen, code)

    def _over(self, popen: Any, code: int | None) -> None:
        self.launch.pid, self.launch.exit_code = popen.pid, code


@dataclass(slots=True)
class LegRecord:
    """What one leg did: filled while it runs, read when it ends."""

    leg: str
    method: str
    precheck: bool
    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    """The processes behind `launches`, if they did start."""
    launches: list[Launch] = field(default_factory=list)
    """Every process that started, or failed to, in order."""
    foreign: list[Foreign] = field(default_factory=list)
    """What ran in processes that no start method of a leg has to do with."""
    package: str = mp.STDLIB
    """Whose start method `method` is."""
    watched: bool = False
    """Whether the test is no leg, but one that `Recorder.watcher` watches."""
    patches: list[Patched] = field(default_factory=list)
    """What monkeypatch and mock set while the leg ran, and what was in force when it began."""
    observing: float = 0.0
    """Seconds spent on looking at what launches read."""

    def is_over(self) -> bool:
        """Return whether every process is known to have ended, and none is a Pool's."""
        return all(each.exit_code is not None and each.pool is None for each in self.launches)

    def clear(self) -> None:
        """Forget what a run that is over did."""
        for each in (self.tasks, self.failures, self.started, self.launches, self.foreign):
            each.clear()


class Watcher(Protocol):
    """Watches the tests that are no legs."""

    def open(self) -> LegRecord | None:
        """Return the record of the test that runs, which starts its first process or hands out its first task."""

    def fixture(self, frame: FrameType) -> Fixture | None:
        """Return the fixture that is being set up where `frame` is called from."""

    def by_default(self, method: str) -> None:
        """Hear that the test starts a process or hands out a task through the default context, under `method`."""


class Recorder:
    """Listens to starts and submissions while a leg runs. One a session; never raises into the user's code."""

    def __init__(self) -> None:
        self.record: LegRecord | None = None
        self.fixtures: list[Any] = []
        """The definitions of the fixtures that are being set up, the innermost last."""
        self.by_fixture: dict[Fixture, list[Launch]] = {}
        """Launches of fixtures wider than a function: later legs live with them."""
        self.of_fixtures: list[Launch] = []
        """Launches of such fixtures that are gone, in legs: what of them still runs is ended with the session."""
        self.loader: Callable[[], Loader] | None = None
        """Gives the fresh child that is asked whether what pickles loads, too; None: nothing is asked."""
        self.observe: Callable[..., Observed | None] | None = None
        """Looks at what the code of a launch or a task reads; None: nothing is looked at."""
        self.pools = Pools()
        self.dead_workers: Callable[[], str] = lambda: "nothing is known of why"
        """Says why the workers of a pool died."""
        self.lost_jobs: Callable[[], set[int]] = set
        """Returns the numbers of the pool jobs whose tasks no worker could load."""
        self.troubles: list[str] = []
        """What went wrong in our own code."""
        self._known: dict[int, Failure] = {}
        self.watcher: Watcher | None = None
        self.told: Callable[[LegRecord, Launch], None] | None = None
        """Hears of each process that has started."""
        self._installed: activation.Patches | None = None
        self._pid = os.getpid()
        self._local = threading.local()

    # -- one leg -----------------------------------------------------------------------------------------------------

    @contextmanager
    def leg(
        self, nodeid: str, method: str, *, precheck: bool, backend: Backend = backends.STDLIB
    ) -> Iterator[LegRecord]:
        """Listen for the length of a leg: to multiprocessing, and to `backend` if `method` is another package's."""
        record = self.record = LegRecord(nodeid, method, precheck, package=backend.package)
        patches = self._patches() if self._installed is None else None
        own = activation.Patches()
        try:
            if backend is not backends.STDLIB:
                self._listen(own, backend)
            yield record
        finally:
            own.undo()
            if patches is not None:
                patches.undo()
            self.close(record)

    def close(self, record: LegRecord) -> None:
        """Listen to `record` no longer."""
        self.record = None
        self.note_exits(record)

    def install(self) -> bool:
        """Listen from now on, for `watcher` also to what is no leg, until `uninstall`; return whether that is new."""
        if self._installed is not None:
            return False
        self._installed = self._patches()
        return True

    def uninstall(self) -> None:
        """Put back what `install` exchanged."""
        if self._installed is not None:
            self._installed.undo()
            self._installed = None

    def _patches(self) -> activation.Patches:
        patches = activation.Patches()
        self._listen(patches, backends.STDLIB)
        watch = foreign.Watch(self._opened, self._guarded, patches)
        watch.begin()
        patches.when_undone(watch.end)
        return patches

    def _listen(self, patches: activation.Patches, backend: Backend) -> None:
        package = backend.package
        patches.put(mp.process_class(package), "start", lambda original: self._wrap_start(original, backend))
        patches.put(mp.pickler_class(package), "dump", lambda original: self._wrap_dump(original, package))
        for module in mp.submitting_modules(package):
            patches.when_loaded(module, partial(self._guarded, self._listen_to_tasks, patches, module))

    def _listen_to_tasks(self, patches: activation.Patches, module: str) -> None:
        for cls, name, method_of in mp.submissions(module):
            patches.put(cls, name, lambda original, n=name, m=method_of: self._wrap_submit(original, n, m))  # type: ignore[misc]
        for cls in mp.result_classes(module):
            patches.put(cls, "_set", self._wrap_result)

    def note_exits(self, record: LegRecord) -> None:
        """Know how the processes that are over ended, also those that nobody joined."""
        for started in record.started:
            if started.held is not None:
                self._guarded(started.note_exit)

    def forget_fixtures(self) -> None:
        """Know that all fixtures have been torn down."""
        of_legs = (each for launches in self.by_fixture.values() for each in launches if each.pinned is None)
        self.of_fixtures += of_legs
        self.by_fixture.clear()

    def _guarded(self, function: Callable[..., _T], *args: Any) -> _T | None:
        """Call a function of ours inside the user's code: its failure is noted and goes no further."""
        try:
            return function(*args)
        except Exception as trouble:
            self.troubles.append(f"{type(trouble).__name__} in {function.__qualname__}: {trouble}")
            return None

    def _listening(self) -> LegRecord | None:
        """Return the record of the leg that runs in this process, if one does."""
        return self.record if os.getpid() == self._pid else None  # a forked child has our wrappers, too

    def _opened(self) -> LegRecord | None:
        """Return the record of the leg or watched test that starts something now."""
        if self.record is None and self.watcher is not None and os.getpid() == self._pid and not mp.in_pool_thread():
            self.record = self._guarded(self.watcher.open)
        return self._listening()

    # -- starts ------------------------------------------------------------------------------------------------------

    def _wrap_start(self, original: Callable[[BaseProcess], None], backend: Backend) -> Callable[[BaseProcess], None]:
        def start(process: BaseProcess) -> None:
            __tracebackhide__ = True
            record = self._opened()
            if record is None:
                return original(process)
            started = self._guarded(self._open, record, process, backend, sys._getframe(1))
            try:
                original(process)
            except BaseException as error:
                if started is not None:
                    self._guarded(self._failed, record, started.launch, error)
                raise
            # Little and without a call: the child has begun, and both pay for each page that either writes to.
            if started is not None:
                popen = started.held = process.__dict__.get(mp.POPEN)
                started.launch.pid = None if popen is None else popen.pid
                record.started.append(started)
                if self.told is not None:
                    self._guarded(self.told, record, started.launch)
            return None

        start.__wrapped__ = original  # type: ignore[attr-defined]
        return start

    def _open(self, record: LegRecord, process: BaseProcess, backend: Backend, caller: FrameType) -> Started | None:
        """Record a process that `caller` is about to start."""
        launch = self._launch(record, process, backend, caller)
        if launch is None:
            return None
        if launch.pool is not None:
            self._guarded(self.pools.worker_starting, launch.pool, self.dead_workers, self.lost_jobs)
        started = Started(process, Started.gone)
        started.launch, started.held = launch, None
        launch.popen = started.popen
        return started

    def _launch(self, record: LegRecord, process: BaseProcess, backend: Backend, caller: FrameType) -> Launch | None:
        target, args, kwargs = mp.process_work(process)
        thread = threading.current_thread()
        method = mp.process_method(process, backend.package)
        if method not in methods.ORDER:  # loky's processes are multiprocessing's, with a method of their own
            foreign.note_process(record, process, method, caller)
            return None
        launch = Launch(
            method=backend.method(method),
            target=describe_callable(target) if target is not None else describe_callable(type(process).run),
            args=tuple(_described(args, kwargs)),
            place=calling_place(caller),
            thread=None if thread is threading.main_thread() else thread.name,
            fixture=Fixture.of(self.fixtures[-1]) if self.fixtures else None,
            leg=record.leg,
        )
        record.launches.append(launch)
        launch.own_method = not mp.class_by_default(type(process))
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
        self._look(record, launch, process, backend)
        return launch

    def _look(self, record: LegRecord, launch: Launch, process: BaseProcess, backend: Backend) -> None:
        """Look at what a process is about to take along, and what its code reads."""
        target, args, _ = mp.process_work(process)
        worker = mp.worker_initializer(target, args)
        launch.is_worker = worker is not None
        if mp.is_pool_worker(target):
            launch.pool = self.pools.of(args[0])
        if worker is not None and worker[0] is not None:
            self._initializer(record, launch, target, *worker)
        own = backend is backends.STDLIB
        if own and self.observe is not None and not launch.is_worker and not mp.is_manager_server(target):
            launch.observed = self._guarded(self._observe_launch, record, launch, process)
        forks = methods.base(launch.method) == "fork"
        if forks and record.precheck:
            self._guarded(self._precheck, record, launch, process, backend)
        elif not forks and own:
            self._guarded(self._keep_payload, launch, process)
            if sys.version_info < (3, 11):
                self._guarded(self._look_for_fork_locks, record, process)
            if launch.method == "forkserver":
                launch.surroundings = self._guarded(server.surroundings)

    def _wrap_result(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _set(job: Any, i: int, outcome: tuple[bool, Any]) -> None:
            self._guarded(self.pools.result, job, outcome)
            original(job, i, outcome)

        return _set

    def _initializer(
        self, record: LegRecord, launch: Launch, target: Any, initializer: Any, initargs: tuple[Any, ...] = ()
    ) -> None:
        executor = getattr(target, "__module__", None) == "concurrent.futures.process"
        owner = "ProcessPoolExecutor" if executor else "Pool"
        task = Task(launch.method, owner, "initializer", describe_callable(initializer), launch.place)
        if task not in record.tasks:  # each worker has the same
            self._observe_task(task, initializer, initargs, {})
            record.tasks.append(task)

    def _observe_launch(self, record: LegRecord, launch: Launch, process: BaseProcess) -> Observed | None:
        assert self.observe is not None
        alike = [
            each.observed
            for each in record.launches
            if each.observed is not None and (each.target, each.place) == (launch.target, launch.place)
        ]
        if len(alike) >= _OBSERVED_ALIKE and record.observing > _OBSERVING_SECONDS:  # many processes of one line
            return None
        start = time.perf_counter()
        observed = self.observe(process, method=launch.method, frame=sys._getframe(1))
        record.observing += time.perf_counter() - start
        return observed

    def _observe_task(self, task: Task, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.observe is not None and task.method in methods.ORDER:
            frame = sys._getframe(1)
            task.observed = self._guarded(
                lambda: self.observe and self.observe(function, args, kwargs, method=task.method, frame=frame)
            )

    def _precheck(self, record: LegRecord, launch: Launch, process: BaseProcess, backend: Backend) -> None:
        from ..pickling import dry_run

        known = [
            each
            for each in record.launches
            if each is not launch and each.predicted and (each.target, each.place) == (launch.target, launch.place)
        ]
        if known:  # a pool starts many workers alike
            launch.predicted = known[0].predicted
            return
        with self._pickling(backend.package):
            outcome = dry_run.dry_run(process, allow_fork_primitives=True)
            if outcome.error is not None:
                found = dry_run.diagnose(process, error=outcome.error, allow_fork_primitives=True)
                launch.predicted = _placed(found, launch.place)
            elif self.loader is not None and backend is backends.STDLIB:
                from ..causes import call

                launch.predicted = call.explain_loading(process, allow_fork_primitives=True, loader=self.loader())

    def _keep_payload(self, launch: Launch, process: BaseProcess) -> None:
        from ..pickling import packing

        if not launch.is_worker:  # theirs are multiprocessing's own; what matters is the tasks
            with self._pickling():
                launch.payload = packing.pack(process)

    def _look_for_fork_locks(self, record: LegRecord, process: BaseProcess) -> None:
        """Note what 3.10 pickles, loads and then crashes on: a lock that only a forked child can have."""
        from ..pickling import dry_run

        with self._pickling():
            outcome = dry_run.dry_run(process)
            found = dry_run.diagnose(process, error=outcome.error) if outcome.error is not None else ()
        if any(finding.code == "SM106" for finding in found):
            record.failures.append(Failure(0, one_line(outcome.error or RuntimeError()), found))

    def _failed(self, record: LegRecord, launch: Launch, error: BaseException) -> None:
        launch.error = one_line(error)
        failure = self.failure_of(error)
        if failure is not None:
            launch.findings = failure.findings = _placed(failure.findings, launch.place)
        else:
            self._remember(record, error, ())

    # -- pickling ----------------------------------------------------------------------------------------------------

    def _wrap_dump(self, original: Callable[[Any, Any], Any], package: str) -> Callable[[Any, Any], Any]:
        def dump(pickler: Any, obj: Any) -> Any:
            __tracebackhide__ = True
            try:
                return original(pickler, obj)
            except Exception as error:
                record = self._listening()
                if record is not None:
                    self._guarded(self._not_pickled, record, obj, error, package)
                raise

        return dump

    def _not_pickled(self, record: LegRecord, obj: Any, error: BaseException, package: str) -> None:
        if self.failure_of(error) is not None or getattr(self._local, "pickling", False):
            return
        findings = self._guarded(self._diagnose, obj, error, package) or ()
        if findings and not mp.is_spawning(package):  # those of a start are placed where that fails
            findings = _placed(findings, self._guarded(self._sent_at, record, obj))
        self._remember(record, error, findings)

    def _sent_at(self, record: LegRecord, obj: Any) -> Place | None:
        """Return the line that sends `obj`; of a task, which a thread of the pool sends, the line that submitted it."""
        from ..pickling import dry_run

        call = dry_run.as_call(obj)
        if not isinstance(call, dry_run.Call):
            return calling_place(sys._getframe(1))
        target = describe_callable(call.target)
        places = {each.place for each in record.tasks if each.target == target}
        return places.pop() if len(places) == 1 else None

    def _diagnose(self, obj: Any, error: BaseException, package: str) -> tuple[Finding, ...]:
        from ..pickling import dry_run

        with self._pickling(package):
            return dry_run.diagnose(obj, error=error, task=not mp.is_spawning(package))

    @contextmanager
    def _pickling(self, package: str = mp.STDLIB) -> Iterator[None]:
        """Do not listen to what is pickled in this thread: it is ours, as `package` would do it."""
        self._local.pickling = True
        try:
            with cpython.pickling_as(package):
                yield
        finally:
            self._local.pickling = False

    def _remember(self, record: LegRecord, error: BaseException, findings: tuple[Finding, ...]) -> None:
        failure = Failure(len(self._known) + 1, one_line(error), findings)
        self._known[failure.number] = failure
        record.failures.append(failure)
        # An exception cannot be referenced weakly, and a reference would keep the arguments alive: it is numbered.
        error.__dict__[_MARK] = failure.number

    def failure_of(self, error: BaseException | None) -> Failure | None:
        """Return the failed start or send that `error`, its cause or its context comes from."""
        seen: set[int] = set()
        todo = [error]
        while todo:
            each = todo.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            number = getattr(each, "__dict__", {}).get(_MARK)
            if number in self._known:
                return self._known[number]
            todo += [each.__context__, each.__cause__, *getattr(each, "exceptions", ())]
        return None

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _wrap_submit(
        self, original: Callable[..., Any], name: str, method_of: Callable[[Any], str | None]
    ) -> Callable[..., Any]:
        def submit(pool: Any, /, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            record = self._opened()
            if record is not None:
                self._guarded(self._submitted, record, pool, name, method_of, args, kwargs)
            return original(pool, *args, **kwargs)

        submit.__name__ = name
        submit.__qualname__ = original.__qualname__
        submit.__wrapped__ = original  # type: ignore[attr-defined]
        return submit

    def _submitted(
        self,
        record: LegRecord,
        pool: Any,
        name: str,
        method_of: Callable[[Any], str | None],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
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
        if task not in record.tasks:
            self._observe_task(task, function, *mp.task_arguments(name, args, kwargs))
            record.tasks.append(task)
        if record.watched and task.method is not None and self.watcher is not None and mp.pool_by_default(pool):
            self.watcher.by_default(task.method)


def _placed(findings: tuple[Finding, ...], place: Place | None) -> tuple[Finding, ...]:
    """Return `findings`, those without a place at the line that starts the process."""
    if place is None:
        return findings
    return tuple(f if f.file is not None else replace(f, file=place.file, line=place.line) for f in findings)


def one_line(error: BaseException) -> str:
    """Return an exception's type and message as one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's own __str__
        text = "<its __str__ raised>"
    return f"{type(error).__name__}: {text}"
