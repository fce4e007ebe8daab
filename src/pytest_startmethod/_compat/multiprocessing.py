"""Every private name of multiprocessing that activation and recording touch.

Read in CPython 3.10, 3.11, 3.12, 3.13, 3.14 and 3.15. Each function says what to do when its name goes.

Packages that are made of multiprocessing's source (multiprocess 0.70.19, billiard 4.3) have the same names: `package`
says which package is meant.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing.context
import multiprocessing.process
import multiprocessing.spawn
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import BaseContext, DefaultContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, ClassVar, Protocol


class ContextListener(Protocol):
    """Who hears of the default context while a leg runs."""

    def method_set(self, method: str | None, caller: FrameType | None) -> None:
        """Code called ``set_start_method``."""

    def method_asked(self, caller: FrameType | None) -> None:
        """Code called ``get_start_method``."""


# The bound methods in the `multiprocessing` namespace (`multiprocessing.set_start_method`) were made at import, so
# replacing the function on the class or in the module misses whoever imported it by name. The instance behind them
# is always the same one: its class can be exchanged. When `_actual_context` goes: wrap the names of `multiprocessing`.
class _Watched:
    """The default context while a leg runs: tells who sets the start method and who asks for it."""

    listener: ClassVar[ContextListener | None] = None


def _watched_names(original: Any) -> dict[str, Any]:
    """Return what a `_Watched` of the class `original` has. Each start asks it, and so does each forked child."""
    asking, setting, lazy = (
        getattr(original, name).__code__ for name in ("get_start_method", "set_start_method", "get_context")
    )

    def get_actual(self: Any) -> BaseContext | None:
        caller = sys._getframe(1)
        if caller.f_code is asking and self.listener is not None:
            self.listener.method_asked(caller.f_back)
        return self.__dict__["_actual_context"]  # type: ignore[no-any-return]

    def set_actual(self: Any, value: BaseContext | None) -> None:
        caller = sys._getframe(1)
        self.__dict__["_actual_context"] = value
        if caller.f_code is not lazy and caller.f_code is not asking and self.listener is not None:
            through = caller.f_code is setting
            self.listener.method_set(method_of(value), caller.f_back if through else caller)

    def get_context(self: Any, method: str | None = None) -> BaseContext:
        # What `original` does, without asking through the property: nobody sets or asks for anything here.
        if method is not None:
            return original.get_context(self, method)  # type: ignore[no-any-return]
        own = self.__dict__
        actual = own["_actual_context"]
        if actual is None:
            actual = own["_actual_context"] = own["_default_context"]
        return actual  # type: ignore[no-any-return]

    return {"listener": None, "_actual_context": property(get_actual, set_actual), "get_context": get_context}


STDLIB = "multiprocessing"


def module(name: str, package: str = STDLIB) -> Any:
    """Return a module of `package`: ``context``, ``process``, ``pool``..."""
    full = f"{package}.{name}"
    return sys.modules.get(full) or importlib.import_module(full)


@functools.lru_cache
def watched_context(package: str = STDLIB) -> Any:
    """Return the class that the default context of `package` has while a leg runs."""
    original = module("context", package).DefaultContext
    return type("WatchedContext", (_Watched, original), _watched_names(original))


def is_watched(cls: type[Any]) -> bool:
    """Say whether a default context of this class is a leg's."""
    return issubclass(cls, _Watched)


class TellingContext(DefaultContext):
    """The default context while a session is watched: what is taken from it without naming a method can be told apart.

    ``get_context()`` returns the same object as ``get_context("fork")``, and a Pool or an executor knows only that
    object. Here the former returns a twin of it, whose processes are of a class of their own.
    """

    by_use: ClassVar[bool] = False
    """Whether the method was fixed by a first use, and not by ``set_start_method``."""
    asked: ClassVar[Callable[[FrameType | None], None] | None] = None
    """Who hears of code that calls ``get_start_method``."""

    def _get_actual(self) -> BaseContext | None:
        caller = sys._getframe(1)
        if TellingContext.asked is not None and caller.f_code is DefaultContext.get_start_method.__code__:
            TellingContext.asked(caller.f_back)
        actual: BaseContext | None = self.__dict__["_actual_context"]
        return None if actual is None else twin_of(actual)

    def _set_actual(self, value: BaseContext | None) -> None:
        self.__dict__["_actual_context"] = value
        TellingContext.by_use = sys._getframe(1).f_code in _LAZY

    _actual_context = property(_get_actual, _set_actual)


_LAZY = (DefaultContext.get_context.__code__, DefaultContext.get_start_method.__code__)
"""The code that makes the default method the one that is set, when it is needed first."""

_TWIN = "_pytest_startmethod_twin"

_twins: list[tuple[Any, BaseContext]] = []
"""Each twin, and the context that it is one of."""


@functools.cache
def twin_of(context: BaseContext) -> BaseContext:
    """Return a context that does all that `context` does, and is known as what the default context gave."""
    if _TWIN in context.__dict__:
        return context
    cls: Any = type(context)
    process = cls.Process

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807 - it is put into a class
        # A child knows the real class only.
        reduced = process.__reduce_ex__(self, protocol)
        if type(self) is not twin_class:
            return reduced
        return (object.__new__, (process_of(twin_class._start_method),), *reduced[2:])

    names = {"__module__": process.__module__, "__qualname__": process.__qualname__, "__doc__": process.__doc__}
    twin_class = type(process.__name__, (process,), {**names, _TWIN: True, "__reduce_ex__": __reduce_ex__})
    twin: Any = object.__new__(_twin_class(cls))
    twin.__dict__.update(context.__dict__, **{_TWIN: True, "Process": twin_class})
    _twins.append((twin, context))
    return twin  # type: ignore[no-any-return]


@functools.cache
def _twin_class(cls: Any) -> Any:
    """Return the class of a twin of a context of `cls`: a child gets one of `cls`."""
    reduced = object.__new__, (cls,)
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__reduce__": lambda _: reduced})


def process_of(method: str) -> type[Any]:
    """Return the class of the processes that `method` starts."""
    return module("context")._concrete_contexts[method].Process  # type: ignore[no-any-return]


def let_twins_be(method: str | None) -> None:
    """Let what the default context gave start processes with `method`; with None, each with its own.

    A module that takes its context when it is imported has another one where another method is the default.
    """
    for twin, own in _twins:
        context: Any = own if method is None else module("context")._concrete_contexts[method]
        cls: Any = type(context)
        process = twin.__dict__["Process"]
        twin.__class__ = _twin_class(cls)
        process._start_method = context.Process._start_method
        process._Popen = vars(context.Process)["_Popen"]


def tell_apart() -> Callable[[], None]:
    """Let the default context be a `TellingContext`; the function that is returned puts back what was there."""
    context: Any = default_context()
    before = context.__class__
    if before is TellingContext:
        return lambda: None
    context.__class__ = TellingContext
    TellingContext.by_use = False

    def undo() -> None:
        TellingContext.asked = None
        if type(context) is TellingContext:
            context.__class__ = before

    return undo


def fixed_by_use() -> bool:
    """Say whether the method that is set is known to be nobody's choice."""
    return type(default_context()) is TellingContext and TellingContext.by_use


def class_by_default(cls: type[Any]) -> bool:
    """Say whether processes of `cls` start as the default context says, and not by a context that names its method."""
    return cls._start_method is None or getattr(cls, _TWIN, False)


def pool_by_default(pool: Any) -> bool:
    """Say whether a Pool or executor starts its processes as the default context says."""
    context = getattr(pool, "_ctx", None) or getattr(pool, "_mp_context", None)
    return context is default_context() or _TWIN in getattr(context, "__dict__", ())


def in_pool_thread() -> bool:
    """Say whether this is the thread in which a Pool replaces its workers, whatever test is running just now.

    ``threading.Thread`` names a thread after its target: ``Thread-1 (_handle_workers)`` (3.10).
    """
    return "(_handle_workers)" in threading.current_thread().name


def default_context(package: str = STDLIB) -> DefaultContext:
    """Return the one object behind ``multiprocessing.Process``, ``Pool``, ``set_start_method`` and the others."""
    return _default if package == STDLIB else module("context", package)._default_context


_default: DefaultContext = multiprocessing.context._default_context


def context_state(package: str = STDLIB) -> dict[str, Any]:
    """Return what makes a method the default: `_default_context` (used when nothing was set), `_actual_context`.

    Since 3.14 the former is a cached property, absent until somebody needs it.
    """
    context = default_context(package)
    return {"class": type(context), "listener": watched_context(package).listener, **context.__dict__}


def restore_context_state(state: Mapping[str, Any], actual: BaseContext | None, package: str = STDLIB) -> None:
    """Put `state` of `context_state` back, with `actual` as the context that user code set."""
    context = default_context(package)
    context.__class__ = state["class"]
    watched_context(package).listener = state["listener"]
    context.__dict__["_actual_context"] = actual
    if "_default_context" in state:
        context.__dict__["_default_context"] = state["_default_context"]
    else:
        context.__dict__.pop("_default_context", None)


def interpreter_default(package: str = STDLIB) -> str:
    """Return the package's own default method, without fixing it for the rest of the process."""
    return str(method_of(default_context(package)._default_context))  # type: ignore[attr-defined]


def make_default(method: str, listener: ContextListener, package: str = STDLIB) -> None:
    """Make `method` the interpreter's default, as if it were built in, and leave the set one unset.

    Pinning it with ``set_start_method`` would make a suite's own ``set_start_method(m)`` raise RuntimeError.
    """
    context = default_context(package)
    context.__class__ = watched_context(package)
    watched_context(package).listener = listener
    concrete = module("context", package)._concrete_contexts[method]
    context.__dict__.update(_default_context=concrete, _actual_context=None)


def set_context(package: str = STDLIB) -> BaseContext | None:
    """Return the context that code set (or that a first use fixed), or None; asks without being heard."""
    actual: BaseContext | None = default_context(package).__dict__["_actual_context"]
    return actual


def method_of(context: BaseContext | None) -> str | None:
    """Return the start method of a concrete context."""
    return None if context is None else context._name  # type: ignore[attr-defined]


def package_of(context: Any) -> str:
    """Return the package of a context by the module of its class: ``multiprocess.context`` -> ``multiprocess``."""
    return type(context).__module__.rpartition(".")[0]


def process_class(package: str = STDLIB) -> type[Any]:
    """Return the base of all process objects of `package`."""
    return module("process", package).BaseProcess  # type: ignore[no-any-return]


def process_method(process: BaseProcess, package: str = STDLIB) -> str:
    """Return the method `process` starts with: its class's own, or the default context's."""
    pinned: str | None = process._start_method  # type: ignore[attr-defined]
    if pinned is not None:
        return pinned
    context: Any = default_context(package)
    return str((context.__dict__["_actual_context"] or context._default_context)._name)


def process_work(process: BaseProcess) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return target, args and kwargs of a process that was not started yet (a subclass may have dropped them)."""
    state = process.__dict__
    return state.get("_target"), tuple(state.get("_args", ())), dict(state.get("_kwargs", {}))


POPEN = "_popen"
"""Where a started process has its Popen object, whose pid and returncode can be read without side effect."""


def executor_method(executor: Any) -> str | None:
    """Return the start method of a ProcessPoolExecutor."""
    return _qualified(getattr(executor, "_mp_context", None))


def pool_method(pool: Any) -> str | None:
    """Return the start method of a Pool."""
    return _qualified(getattr(pool, "_ctx", None))


def _qualified(context: Any) -> str | None:
    method = method_of(context)
    package = package_of(context)
    return method if method is None or package == STDLIB else f"{package}:{method}"


def worker_initializer(target: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]] | None:
    """Return initializer and initargs if `target` is the worker of a Pool or ProcessPoolExecutor, else None.

    ``multiprocessing.pool.worker(inqueue, outqueue, initializer, initargs, ...)`` and
    ``concurrent.futures.process._process_worker(call_queue, result_queue, initializer, initargs, ...)``.
    Of billiard it is an object of the class ``billiard.pool.Worker``.
    """
    if (type(target).__module__, type(target).__qualname__) == ("billiard.pool", "Worker"):
        return target.initializer, tuple(target.initargs or ())
    if is_pool_worker(target) or _name(target) == ("concurrent.futures.process", "_process_worker"):
        return (args[2], tuple(args[3])) if len(args) > 3 else (None, ())
    return None


def is_pool_worker(target: Any) -> bool:
    """Say whether `target` is what a Pool hands to its processes."""
    return _name(target) in (("multiprocessing.pool", "worker"), ("multiprocess.pool", "worker"))


def _name(target: Any) -> tuple[str | None, str | None]:
    return getattr(target, "__module__", None), getattr(target, "__qualname__", None)


def is_manager_server(target: Any) -> bool:
    """Say whether `target` is what ``BaseManager.start`` hands to its process."""
    return getattr(target, "__qualname__", None) == "BaseManager._run_server"


# -- forkserver ------------------------------------------------------------------------------------------------------

_SERVER_FIELDS = "_forkserver_"  # address, alive_fd, pid on all versions; authkey since 3.12.9, 3.13.2 and 3.14


def forkserver_class(package: str = STDLIB) -> type[Any]:
    """Return the class whose ``ensure_running`` every start passes through (POSIX only)."""
    return module("forkserver", package).ForkServer  # type: ignore[no-any-return]


def server(package: str = STDLIB) -> Any:
    """Return the one ForkServer object; its bound methods are module attributes, so it is never exchanged."""
    return module("forkserver", package)._forkserver


def server_state(package: str = STDLIB) -> dict[str, Any]:
    """Return the fields that say which server process is in use; all None: none is."""
    return {name: value for name, value in server(package).__dict__.items() if name.startswith(_SERVER_FIELDS)}


def set_server_state(state: Mapping[str, Any] | None, package: str = STDLIB) -> None:
    """Use the server that `state` of `server_state` describes; None: none, the next start makes one."""
    instance = server(package)
    instance.__dict__.update(state if state is not None else dict.fromkeys(server_state(package)))


def server_pid(state: Mapping[str, Any]) -> int | None:
    """Return the pid of the server in `state`; billiard does not keep it."""
    return state.get("_forkserver_pid")


def server_alive_fd(state: Mapping[str, Any]) -> int | None:
    """Return the descriptor whose closing, here and in every child, ends the server in `state`."""
    return state["_forkserver_alive_fd"]  # type: ignore[no-any-return]


def server_socket(state: Mapping[str, Any]) -> str | None:
    """Return the path of the server's socket, or None where it lies in the abstract namespace."""
    address = state["_forkserver_address"]
    return address if isinstance(address, str) and not address.startswith("\0") else None


def preload_modules(package: str = STDLIB) -> list[str]:
    """Return the names that a new server will import: the user's list, or ``["__main__"]``."""
    return server(package)._preload_modules  # type: ignore[no-any-return]


def set_preload_modules(names: list[str], package: str = STDLIB) -> None:
    """Set the names that a new server will import, past the checks of ``set_forkserver_preload``."""
    server(package)._preload_modules = names


# -- places to listen at ---------------------------------------------------------------------------------------------


def pickler_class(package: str = STDLIB) -> type[Any]:
    """Return the pickler behind Process, Pool, ProcessPoolExecutor and Connection.send."""
    return module("reduction", package).ForkingPickler  # type: ignore[no-any-return]


def is_spawning(package: str = STDLIB) -> bool:
    """Say whether a process object is being pickled for its child in this thread."""
    return module("context", package).get_spawning_popen() is not None


def submitting_modules(package: str = STDLIB) -> tuple[str, ...]:
    """Return the names of the modules whose classes are given tasks."""
    return (f"{package}.pool", "concurrent.futures.process") if package == STDLIB else (f"{package}.pool",)


def submissions(module: str) -> Iterator[tuple[type[Any], str, Callable[[Any], str | None]]]:
    """Yield class, method name and start-method getter of each place of a module that is given a task.

    ``Pool.apply`` goes through ``apply_async``; ``map``, ``starmap`` and their async forms through ``_map_async``
    (3.10 to 3.15); ``Executor.map`` through ``submit``.
    """
    names: Any = sys.modules[module]
    if module == "concurrent.futures.process":
        yield names.ProcessPoolExecutor, "submit", executor_method
        return
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        yield names.Pool, name, pool_method


def is_thread_pool(pool: Any) -> bool:
    """Say whether `pool` runs its tasks in threads: ThreadPool is a subclass of Pool."""
    return any(cls.__name__ == "ThreadPool" and cls.__module__.endswith(".pool") for cls in type(pool).__mro__)


def unwrap_chunk(function: Any) -> Any:
    """Return the user's function behind the partial that ``ProcessPoolExecutor.map`` submits."""
    import functools

    if type(function) is functools.partial and getattr(function.func, "__name__", "") == "_process_chunk":
        return function.args[0] if function.args else function
    return function


def task_arguments(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments of a task, or of the first of many, from those of the method `name` that was given it.

    ``Pool.apply_async(func, args, kwds)``, ``Pool._map_async(func, iterable, mapper)``, ``Pool.imap(func, iterable)``,
    ``Executor.submit(fn, *args, **kwargs)``, which ``Executor.map`` calls with chunks of argument tuples. Of an
    iterable that is no list or tuple, nothing is taken.
    """
    if name == "apply_async":
        given = args[1] if len(args) > 1 else kwargs.get("args", ())
        named = args[2] if len(args) > 2 else kwargs.get("kwds", {})
        return tuple(given), dict(named)
    if name == "submit":
        if unwrap_chunk(args[0] if args else None) is not (args[0] if args else None):
            chunk = args[1] if len(args) > 1 else ()
            return (tuple(chunk[0]) if type(chunk) in (list, tuple) and chunk else ()), {}
        return args[1:], {n: v for n, v in kwargs.items() if n != "fn"}
    values = args[1] if len(args) > 1 else kwargs.get("iterable")
    if type(values) not in (list, tuple) or not values:
        return (), {}
    starred = len(args) > 2 and getattr(args[2], "__name__", "") == "starmapstar"
    return (tuple(values[0]) if starred and type(values[0]) in (list, tuple) else (values[0],)), {}


def available() -> list[str]:
    """Return the start methods of this platform (`multiprocessing.get_all_start_methods`)."""
    return multiprocessing.get_all_start_methods()


def has_forkserver() -> bool:
    """Say whether this platform has a forkserver at all."""
    return sys.platform != "win32"


def forking_popen_class(package: str = STDLIB) -> Any:
    """Return the class whose ``_launch`` forks, and has the child call ``_bootstrap`` (3.10 to 3.15).

    When it goes: forked children do not report.
    """
    return module("popen_fork", package).Popen


def spawn_module(package: str = STDLIB) -> Any:
    """Return the module whose ``get_preparation_data`` the Popen classes call as an attribute."""
    return module("spawn", package)


# -- jobs of a Pool --------------------------------------------------------------------------------------------------


def pool_queue(pool: Any) -> Any:
    """Return the queue from which the pool's workers take tasks: their first argument."""
    return pool._inqueue


def pool_size(pool: Any) -> int:
    """Return how many workers the pool keeps."""
    return int(pool._processes)


def pool_jobs(pool: Any) -> Any:
    """Return the pool's unfinished jobs by number."""
    return pool._cache


def job_cache(job: Any) -> Any:
    """Return the unfinished jobs among which `job` is counted."""
    return job._cache


def result_classes(module: str) -> tuple[type[Any], ...]:
    """Return the classes of a module of pools whose ``_set`` the result thread calls for each result that arrives.

    None of billiard: its pools know themselves when a worker is lost.
    """
    if module in ("billiard.pool", "concurrent.futures.process"):
        return ()
    pool: Any = sys.modules[module]
    return pool.ApplyResult, pool.MapResult, pool.IMapIterator, pool.IMapUnorderedIterator


def fail_job(job: Any, error: BaseException) -> None:
    """Give an unfinished job `error` for all the results that it waits for, as the result thread would."""
    names = {cls.__name__ for cls in type(job).__mro__}
    if "IMapIterator" in names:
        with job._cond:
            index = job._index
        job._set(index, (False, error))
    elif "MapResult" in names:
        # a job is counted before it is whole: one that is not has to wait for the next death
        for _ in range(vars(job).get("_number_left", 0)):
            job._set(0, (False, error))
    elif job is not None:
        job._set(0, (False, error))


# -- locks -----------------------------------------------------------------------------------------------------------


def lock_class(package: str = STDLIB) -> type[Any]:
    """Return the base of Lock, RLock, Semaphore and BoundedSemaphore; Queue, Event, Value and the others hold these."""
    return module("synchronize", package).SemLock  # type: ignore[no-any-return]


def made_by_default_context(frame: FrameType | None, package: str = STDLIB) -> bool:
    """Say whether the factory method that makes a lock was called on the default context.

    ``BaseContext.Lock`` and its kind pass ``self.get_context()`` on; a Queue, Value or Event makes its locks within
    the same call.
    """
    context = None
    while frame is not None and (frame.f_globals.get("__name__") or "").startswith(f"{package}."):
        if frame.f_globals["__name__"] == f"{package}.context":
            context = frame.f_locals.get("self", context)
        frame = frame.f_back
    return context is None or context is default_context(package)


def is_fork_lock(lock: Any) -> bool:
    """Say whether a SemLock was made for forked children only: its semaphore has no name (3.10 has no other mark)."""
    return lock._semlock.name is None


def make_lock_anew(lock: Any, package: str = STDLIB) -> None:
    """Give a SemLock a semaphore with a name, of the same kind and value: ``SemLock.__init__`` once more.

    An RLock that this process holds keeps the one it has: a semaphore does not know how often it was acquired.
    """
    semaphore = lock._semlock
    recursive = module("synchronize", package).RECURSIVE_MUTEX
    if sys.platform != "win32" and not (semaphore.kind == recursive and semaphore._is_mine()):
        context = module("context", package)._concrete_contexts["spawn"]
        lock_class(package).__init__(lock, semaphore.kind, semaphore._get_value(), semaphore.maxvalue, ctx=context)


# -- pickling in an experiment ---------------------------------------------------------------------------------------


def reduction_module() -> Any:
    """Return the module whose ``dump`` the Popen classes call as an attribute."""
    from multiprocessing import reduction

    return reduction


class _Distinct(list[int]):
    """The descriptors that a spawn child inherits: one that two payloads hold is passed once, or exec refuses."""

    def append(self, fd: int) -> None:
        if fd not in self:
            super().append(fd)

    def extend(self, fds: Any) -> None:
        for fd in fds:
            self.append(fd)


@contextmanager
def descriptors_of_start() -> Iterator[None]:
    """Forget the descriptors that an attempt to pickle has handed to the starting process, if the attempt fails.

    ``Popen._fds`` of spawn and forkserver on POSIX. When it goes: they are inherited and not used.
    """
    popen: Any = multiprocessing.context.get_spawning_popen()
    fds = getattr(popen, "_fds", None)
    if type(fds) is list and method_of_popen(popen) == "spawn":
        fds = popen._fds = _Distinct(fds)
    before = list(fds) if isinstance(fds, list) else []
    try:
        yield
    except BaseException:
        if isinstance(fds, list):
            fds[:] = before
        raise


def is_running(popen: Any) -> bool:
    """Say whether the process of a Popen object runs still.

    ``popen_fork.Popen.poll`` takes a child whose exit status somebody else's ``waitpid`` has collected for one that
    was not created yet: it runs for ever (3.10 to 3.15). Its pid may belong to another process by now.
    """
    if popen.poll() is not None:
        return False
    if method_of_popen(popen) == "forkserver" or not hasattr(os, "waitid"):  # macOS has it since 3.13, Windows has not
        return True
    try:
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def method_of_popen(popen: Any) -> str | None:
    """Return the method of a Popen object (``Popen.method``)."""
    return getattr(popen, "method", None)
