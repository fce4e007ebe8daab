"""Private names of multiprocessing, each in one function.

Checked on CPython 3.10 to 3.15. Each docstring says what to do when its name goes. Derivatives of multiprocessing
(multiprocess 0.70.19, billiard 4.3) have the same names: a `Package` is one of them.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass
from multiprocessing.context import BaseContext, DefaultContext
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Any

_stat = os.stat  # a test may replace it, and count its calls
_FORKSERVER_FIELDS = "_forkserver_"  # address, alive_fd, pid on all versions; authkey since 3.12.9, 3.13.2 and 3.14


def preparation() -> dict[str, object]:
    """Return where a child started now would import from and work, in the form of ``spawn.get_preparation_data``."""
    path, original = list(sys.path), multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    if "" in path and original is not None:
        path[path.index("")] = original
    data = {"sys_path": path, "sys_argv": list(sys.argv), "orig_dir": original}
    with contextlib.suppress(OSError):
        data["dir"] = os.getcwd()
    return data


def main_module() -> dict[str, object]:
    """Return which main module a child started now would run, in the form of ``spawn.get_preparation_data``.

    Raises what that raises, for instance OSError without a working directory. Unlike it, leaves the default method
    open, so that a later ``set_start_method`` does not raise.
    """
    default = vars(_default)
    before = default["_actual_context"]
    try:
        data = multiprocessing.spawn.get_preparation_data("")
    finally:
        default["_actual_context"] = before
    return {key: data[key] for key in ("init_main_from_name", "init_main_from_path") if key in data}


@dataclass(frozen=True, slots=True)
class Package:
    """multiprocessing or a derivative of it, by the names of its modules."""

    name: str

    def module(self, name: str) -> ModuleType:
        """Return a module of the package: ``context``, ``process``, ``pool``..."""
        full = f"{self.name}.{name}"
        return sys.modules.get(full) or importlib.import_module(full)

    def _class(self, module: str, name: str) -> type[object]:
        found: type[object] = getattr(self.module(module), name)
        return found

    # -- the default context -----------------------------------------------------------------------------------------

    @property
    def default_context(self) -> DefaultContext:
        """The object behind ``multiprocessing.Process``, ``Pool``, ``set_start_method`` and the others."""
        return _default if self.name == "multiprocessing" else self.module("context")._default_context

    def concrete_context(self, method: str) -> BaseContext:
        """Return the context of a start method from the private table, which no watched context intercepts."""
        context: BaseContext = self.module("context")._concrete_contexts[method]
        return context

    def interpreter_default(self) -> str:
        """Return the package's own default method, without fixing it for the rest of the process."""
        return str(method_of(vars(self.default_context)["_default_context"]))

    def set_context(self) -> BaseContext | None:
        """Return the context that was set, or fixed by its first use, or None, without notifying a listener."""
        actual: BaseContext | None = self.default_context.__dict__["_actual_context"]
        return actual

    def process_method(self, process: BaseProcess) -> str:
        """Return the method `process` starts with: its class's own, or the default context's."""
        pinned = getattr(process, "_start_method", None)
        return str(pinned or method_of(self.set_context()) or self.interpreter_default())

    # -- what starts processes, and what they pickle with ------------------------------------------------------------

    @property
    def process_class(self) -> type[object]:
        """The base of all process objects."""
        return self._class("process", "BaseProcess")

    @property
    def forking_popen_class(self) -> type[object]:
        """The class whose ``_launch`` forks and has the child call ``_bootstrap``.

        When it goes: forked children do not report.
        """
        return self._class("popen_fork", "Popen")

    @property
    def spawn(self) -> ModuleType:
        """The module whose ``get_preparation_data`` the Popen classes call as an attribute."""
        return self.module("spawn")

    @property
    def pickler_class(self) -> type[Any]:
        """The pickler behind Process, Pool, ProcessPoolExecutor and Connection.send."""
        return self._class("reduction", "ForkingPickler")

    def is_spawning(self) -> bool:
        """Return whether this thread is pickling a process object for its child."""
        return self.module("context").get_spawning_popen() is not None

    @property
    def submitting_modules(self) -> tuple[str, ...]:
        """The names of the modules whose classes are given tasks."""
        pool = f"{self.name}.pool"
        return (pool, "concurrent.futures.process") if self.name == "multiprocessing" else (pool,)

    # -- the forkserver ----------------------------------------------------------------------------------------------

    @property
    def forkserver_class(self) -> type[object]:
        """The class whose ``ensure_running`` every start passes through (POSIX only)."""
        return self._class("forkserver", "ForkServer")

    @property
    def server(self) -> Any:
        """The one ForkServer object. Its bound methods are module attributes, so it is never replaced."""
        return self.module("forkserver")._forkserver

    def server_state(self) -> dict[str, object]:
        """Return the fields that identify the server process in use; all are None if there is none."""
        return {name: value for name, value in self.server.__dict__.items() if name.startswith(_FORKSERVER_FIELDS)}

    def set_server_state(self, state: Mapping[str, object] | None) -> None:
        """Use the server with the given `server_state`; None: the next start launches a new one."""
        self.server.__dict__.update(state if state is not None else dict.fromkeys(self.server_state()))

    @property
    def preload_modules(self) -> list[str]:
        """The modules that a new server will import: the user's list, or ``["__main__"]``."""
        names: list[str] = self.server._preload_modules
        return names

    def set_preload_modules(self, names: list[str]) -> None:
        """Set the modules that a new server will import, without the checks of ``set_forkserver_preload``."""
        self.server._preload_modules = names

    # -- locks -------------------------------------------------------------------------------------------------------

    @property
    def lock_class(self) -> type[Any]:
        """The base of Lock, RLock, Semaphore and BoundedSemaphore; Queue, Event, Value and the others hold these."""
        return self._class("synchronize", "SemLock")

    def made_by_default_context(self, frame: FrameType | None) -> bool:
        """Return whether the factory method that creates a lock was called on the default context.

        ``BaseContext.Lock`` and the like pass on ``self.get_context()``; a Queue, Value or Event creates its locks
        within the same call.
        """
        context = None
        while frame is not None and (frame.f_globals.get("__name__") or "").startswith(f"{self.name}."):
            if frame.f_globals["__name__"] == f"{self.name}.context":
                context = frame.f_locals.get("self", context)
            frame = frame.f_back
        return context is None or context is self.default_context

    def make_lock_anew(self, lock: Any) -> None:
        """Give a SemLock a named semaphore of the same kind and value, by calling ``SemLock.__init__`` again.

        An RLock held by this process keeps its semaphore, which does not know how often it was acquired.
        """
        semaphore = lock._semlock
        recursive = self.module("synchronize").RECURSIVE_MUTEX
        if sys.platform != "win32" and not (semaphore.kind == recursive and semaphore._is_mine()):
            context = self.concrete_context("spawn")
            self.lock_class.__init__(lock, semaphore.kind, semaphore._get_value(), semaphore.maxvalue, ctx=context)


STDLIB = Package("multiprocessing")
_default: DefaultContext = multiprocessing.context._default_context


# -- contexts --------------------------------------------------------------------------------------------------------


def method_of(context: BaseContext | None) -> str | None:
    """Return the start method of a concrete context."""
    return getattr(context, "_name", None)


def qualified_method(context: Any) -> str | None:
    """Return the method of a context with its package: ``multiprocess.context`` -> ``multiprocess:spawn``."""
    method, package = method_of(context), type(context).__module__.rpartition(".")[0]
    return method if method is None or package == STDLIB.name else f"{package}:{method}"


def pool_method(pool: object) -> str | None:
    """Return the start method of a Pool or executor."""
    return qualified_method(pool_context(pool))


def pool_context(pool: object) -> object:
    """Return the context of a Pool or executor."""
    return getattr(pool, "_ctx", None) or getattr(pool, "_mp_context", None)


def available() -> list[str]:
    """Return the start methods of this platform (`multiprocessing.get_all_start_methods`)."""
    return multiprocessing.get_all_start_methods()


def has_forkserver() -> bool:
    """Return whether this platform has a forkserver at all."""
    return sys.platform != "win32"


# -- processes -------------------------------------------------------------------------------------------------------

POPEN = "_popen"
"""The attribute with a started process's Popen object, whose pid and returncode are read without side effects."""


def process_work(process: BaseProcess) -> tuple[object, tuple[object, ...], dict[str, object]]:
    """Return target, args and kwargs of a process that has not started (a subclass may have dropped them)."""
    state = process.__dict__
    return state.get("_target"), tuple(state.get("_args", ())), dict(state.get("_kwargs", {}))


def worker_initializer(target: Any, args: tuple[Any, ...]) -> tuple[object, tuple[object, ...]] | None:
    """Return initializer and initargs if `target` is the worker of a Pool or ProcessPoolExecutor, else None.

    ``multiprocessing.pool.worker(inqueue, outqueue, initializer, initargs, ...)`` and
    ``concurrent.futures.process._process_worker(call_queue, result_queue, initializer, initargs, ...)``.
    billiard's is an object of the class ``billiard.pool.Worker``.
    """
    if (type(target).__module__, type(target).__qualname__) == ("billiard.pool", "Worker"):
        return target.initializer, tuple(target.initargs or ())
    if is_pool_worker(target) or _name(target) == ("concurrent.futures.process", "_process_worker"):
        return (args[2], tuple(args[3])) if len(args) > 3 else (None, ())
    return None


def is_pool_worker(target: object) -> bool:
    """Return whether `target` is the function that a Pool's processes run."""
    return _name(target) in (("multiprocessing.pool", "worker"), ("multiprocess.pool", "worker"))


def _name(target: object) -> tuple[str | None, str | None]:
    return getattr(target, "__module__", None), getattr(target, "__qualname__", None)


def is_manager_server(target: object) -> bool:
    """Return whether `target` is the function that a manager's process runs."""
    return getattr(target, "__qualname__", None) == "BaseManager._run_server"


def is_running(popen: Any) -> bool:
    """Return whether the process of a Popen object is still running.

    ``popen_fork.Popen.poll`` reports a child as running forever once another ``waitpid`` has collected its exit
    status (3.10 to 3.15). By then its pid may belong to another process.
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


def method_of_popen(popen: object) -> str | None:
    """Return the method of a Popen object (``Popen.method``)."""
    return getattr(popen, "method", None)


# -- fields of a forkserver's state ----------------------------------------------------------------------------------


def server_pid(state: Mapping[str, Any]) -> int | None:
    """Return the pid of the server in `state`; billiard does not keep it."""
    return state.get("_forkserver_pid")


def server_alive_fd(state: Mapping[str, Any]) -> int | None:
    """Return the descriptor that ends the server in `state` once it is closed here and in every child."""
    descriptor: int | None = state["_forkserver_alive_fd"]
    return descriptor


def server_socket(state: Mapping[str, object]) -> str | None:
    """Return the path of the server's socket, or None if it is in the abstract namespace."""
    address = state["_forkserver_address"]
    return address if isinstance(address, str) and not address.startswith("\0") else None


def misled() -> str:
    """Return the name of a setting with which no child begins: its command line is wrong, or its interpreter missing.

    ``spawn.get_command_line`` and ``spawn.get_executable`` (3.10 to 3.15).
    """
    if getattr(sys, "frozen", False) and multiprocessing.get_start_method(allow_none=True) != "forkserver":
        return "sys.frozen"
    try:
        _stat(multiprocessing.spawn.get_executable() or "")
    except (OSError, ValueError):
        return "multiprocessing.set_executable"
    return ""


# -- tasks -----------------------------------------------------------------------------------------------------------


def submissions(module: str) -> Iterator[tuple[type[object], str, Callable[[object], str | None]]]:
    """Yield class, method name and start-method getter for each method of a module that accepts tasks.

    ``Pool.apply`` goes through ``apply_async``; ``map``, ``starmap`` and their async forms through ``_map_async``
    (3.10 to 3.15); ``Executor.map`` through ``submit``.
    """
    names: Any = sys.modules[module]
    if module == "concurrent.futures.process":
        yield names.ProcessPoolExecutor, "submit", pool_method
        return
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        yield names.Pool, name, pool_method


def is_thread_pool(pool: object) -> bool:
    """Return whether `pool` is a ThreadPool, which is a subclass of Pool."""
    return any(cls.__name__ == "ThreadPool" and cls.__module__.endswith(".pool") for cls in type(pool).__mro__)


def in_pool_thread() -> bool:
    """Return whether this is the thread in which a Pool replaces its workers.

    ``threading.Thread`` names a thread after its target: ``Thread-1 (_handle_workers)`` (3.10).
    """
    return "(_handle_workers)" in threading.current_thread().name


def unwrap_chunk(function: object) -> object:
    """Return the user's function behind the partial that ``ProcessPoolExecutor.map`` submits."""
    if type(function) is functools.partial and getattr(function.func, "__name__", "") == "_process_chunk":
        return function.args[0] if function.args else function
    return function


def task_arguments(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the arguments of a task, or of the first of many, from those of the method `name` that accepted it.

    ``Pool.apply_async(func, args, kwds)``, ``Pool._map_async(func, iterable, mapper)``, ``Pool.imap(func, iterable)``,
    ``Executor.submit(fn, *args, **kwargs)``, which ``Executor.map`` calls with chunks of argument tuples. An
    iterable other than a list or tuple is not consumed.
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


# -- jobs of a Pool --------------------------------------------------------------------------------------------------


def pool_queue(pool: Any) -> Any:
    """Return the queue from which the pool's workers take tasks: the first argument of each."""
    return pool._inqueue


def pool_size(pool: Any) -> int:
    """Return the number of workers that the pool maintains."""
    return int(pool._processes)


def pool_jobs(pool: Any) -> Any:
    """Return the pool's unfinished jobs by number."""
    return pool._cache


def job_cache(job: Any) -> Any:
    """Return the table of unfinished jobs that contains `job`."""
    return job._cache


def result_classes(module: str) -> tuple[type[object], ...]:
    """Return the classes of a pool module whose ``_set`` the result thread calls for each arriving result.

    None for billiard, whose pools detect lost workers themselves.
    """
    if module in ("billiard.pool", "concurrent.futures.process"):
        return ()
    pool: Any = sys.modules[module]
    return pool.ApplyResult, pool.MapResult, pool.IMapIterator, pool.IMapUnorderedIterator


def fail_job(job: Any, error: BaseException) -> None:
    """Make an unfinished job fail with `error` for all missing results, as the result thread would."""
    names = {cls.__name__ for cls in type(job).__mro__}
    if "IMapIterator" in names:
        with job._cond:
            index = job._index
        job._set(index, (False, error))
    elif "MapResult" in names:
        # a job is in the table before it is complete: then it waits for the next death
        for _ in range(vars(job).get("_number_left", 0)):
            job._set(0, (False, error))
    elif job is not None:
        job._set(0, (False, error))


# -- pickling in an experiment ---------------------------------------------------------------------------------------


def reduction_module() -> ModuleType:
    """Return the module whose ``dump`` the Popen classes call as an attribute."""
    return STDLIB.module("reduction")


class _Distinct(list[int]):
    """The descriptors that a spawn child inherits, each once: exec refuses repeated ones."""

    def append(self, fd: int) -> None:
        if fd not in self:
            super().append(fd)

    def extend(self, fds: Any) -> None:
        for fd in fds:
            self.append(fd)


@contextmanager
def descriptors_of_start() -> Iterator[None]:
    """Discard the descriptors that a failed attempt to pickle has added to the starting process.

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
