"""Private names of CPython around pickling, processes, threads and mock, each in one function.

Checked on CPython 3.10, 3.11, 3.12, 3.13, 3.14 and 3.15. Each function says what to do when its name goes.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import gc
import importlib
import inspect
import multiprocessing.process
import os
import pickle
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

Reducer = Callable[[Any], Any]


# -- tracebacks ------------------------------------------------------------------------------------------------------


class _Frameless:
    """Keeps the frame of a ``with`` block out of the traceback of an exception that leaves the block.

    Threads, loggers and pools print tracebacks that pytest does not filter. CPython adds a frame when an exception is
    raised or passes a call in it, and not again when it is raised once more (``RERAISE``, and ``raise`` alone in
    ``except``; 3.11 to 3.15). 3.10 restores the traceback from before, so the frame stays.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, traceback: types.TracebackType | None) -> None:
        if error is not None and traceback is not None:
            error.__traceback__ = traceback.tb_next


frameless = _Frameless()


# -- pickling --------------------------------------------------------------------------------------------------------


_local = threading.local()


@contextlib.contextmanager
def pickling_as(package: str) -> Iterator[None]:
    """Make this thread's questions about pickling refer to `package`, a derivative of multiprocessing."""
    before = getattr(_local, "package", "multiprocessing")
    _local.package = package
    try:
        yield
    finally:
        _local.package = before


def _module(name: str) -> types.ModuleType:
    full = f"{getattr(_local, 'package', 'multiprocessing')}.{name}"
    return sys.modules.get(full) or importlib.import_module(full)


def _loaded(name: str) -> types.ModuleType | None:
    return sys.modules.get(f"{getattr(_local, 'package', 'multiprocessing')}.{name}")


def spawning_popen() -> object:
    """Return what ``get_spawning_popen`` returns, or None: the Popen object whose process is being pickled.

    `context._tls.spawning_popen`; when it goes, the new way to tell "inside a process's arguments" from "elsewhere".
    """
    return _module("context").get_spawning_popen()


@contextlib.contextmanager
def spawning(popen: object) -> Iterator[None]:
    """Pickle as if a process were being pickled for `popen`; None: as outside of a start. See `spawning_popen`."""
    context = _module("context")
    before = context.get_spawning_popen()
    context.set_spawning_popen(popen)
    try:
        yield
    finally:
        context.set_spawning_popen(before)


def forking_pickler() -> type[pickle.Pickler]:
    """Return the pickler class that ``Process.start`` uses; the user may have replaced it."""
    cls: type[pickle.Pickler] = _module("reduction").ForkingPickler
    return cls


def stock_pickler(cls: type[pickle.Pickler]) -> bool:
    """Return whether `cls` pickles as CPython's own ForkingPickler does.

    Decided by module and by the absence of `reducer_override`: our own recorder may have replaced its `dump`.
    billiard's is the C pickler with a table of its own, too; multiprocess's is dill's.
    """
    return cls.__module__ in ("multiprocessing.reduction", "billiard.reduction") and not hasattr(
        cls, "reducer_override"
    )


def is_backends(cls: type[pickle.Pickler]) -> bool:
    """Return whether `cls` is the pickler of the package set by `pickling_as`: dill's, for example."""
    return cls.__module__ == f"{getattr(_local, 'package', 'multiprocessing')}.reduction"


def reducers() -> dict[type, Reducer]:
    """Return the dispatch table of a new ForkingPickler: copyreg's, then those given to `ForkingPickler.register`.

    When `_copyreg_dispatch_table` goes: `ForkingPickler(file).dispatch_table`.
    """
    return {**copyreg.dispatch_table, **extra_reducers()}


def extra_reducers() -> dict[type, Reducer]:
    """Return the live table of `ForkingPickler.register`: `ForkingPickler._extra_reducers`."""
    table: dict[type, Reducer] = _module("reduction").ForkingPickler._extra_reducers
    return table


def reducer_tables() -> dict[str, Mapping[type, Reducer]]:
    """Return the live tables of reducers, by the dotted names under which they are found."""
    return {
        "copyreg.dispatch_table": copyreg.dispatch_table,
        "multiprocessing.reduction.ForkingPickler._extra_reducers": extra_reducers(),
    }


def newobj_functions() -> tuple[object, object]:
    """Return `copyreg.__newobj__` and `copyreg.__newobj_ex__`, documented in PEP 307 and PEP 3154 by name only."""
    return vars(copyreg)["__newobj__"], vars(copyreg)["__newobj_ex__"]


# -- multiprocessing's own objects -----------------------------------------------------------------------------------


def made_by_fork(semlock: object) -> bool:
    """Return whether a multiprocessing lock was made by a fork context, so that no spawned child can open it.

    Such a semaphore is unlinked at once and `_semlock.name` is None (3.10 to 3.15). 3.11.7 and later also have
    `_is_fork_ctx` and refuse to pickle it; before, it pickles, loads, and crashes the child that uses it (gh-90549).
    On Windows no lock is like that.
    """
    if sys.platform == "win32":
        return False
    return object.__getattribute__(semlock, "__dict__")["_semlock"].name is None


def lock_classes() -> tuple[type, ...]:
    """Return multiprocessing's lock classes, if imported: without that nobody can hold a lock."""
    module = _loaded("synchronize")
    return () if module is None else (module.Lock, module.RLock, module.Semaphore, module.BoundedSemaphore)


def connection_classes() -> tuple[type, ...]:
    """Return the classes whose reducers pass a descriptor to the resource sharer, if imported."""
    module = _loaded("connection")
    return tuple(getattr(module, name) for name in ("Connection", "PipeConnection") if hasattr(module, name))


def arena_class() -> type | None:
    """Return the class of the shared memory behind Value and Array, if imported; its reducer passes a descriptor."""
    module = _loaded("heap")
    return None if module is None or sys.platform == "win32" else module.Arena


def inherited_forms() -> dict[type, Reducer]:
    """Return, by class, how multiprocessing pickles what a child inherits, without a descriptor or a semaphore.

    `connection.rebuild_connection`, `reduction._rebuild_socket`, `heap.rebuild_arena`, and `SemLock.__setstate__` with
    four fields (3.10 to 3.15). When a name goes: it is left out, and its objects are packed as plain ones.
    """
    forms: dict[type, Reducer] = dict.fromkeys(
        lock_classes(), lambda obj: (newobj_functions()[0], (type(obj),), (0, 0, 1, None))
    )
    connection, heap = _loaded("connection"), _loaded("heap")
    socket = getattr(sys.modules.get("socket"), "socket", None)
    torch = getattr(sys.modules.get("torch.multiprocessing.reductions"), "rebuild_tensor", None)
    for cls in connection_classes():
        name = "rebuild_pipe_connection" if cls.__name__ == "PipeConnection" else "rebuild_connection"
        if hasattr(connection, name):
            forms[cls] = _constant((getattr(connection, name), (None, True, True)))
    if socket is not None and hasattr(_module("reduction"), "_rebuild_socket"):
        forms[socket] = _constant((_module("reduction")._rebuild_socket, (None, 0, 0, 0)))
    arena = arena_class()
    if arena is not None and heap is not None and hasattr(heap, "rebuild_arena"):
        forms[arena] = lambda obj: (heap.rebuild_arena, (obj.size, None))
    if torch is not None:
        for cls, reducer in reducers().items():
            if str(getattr(reducer, "__module__", "")).startswith("torch.multiprocessing"):
                forms[cls] = _constant((torch, ()))
    return forms


def _constant(value: object) -> Reducer:
    return lambda _obj: value


PROCESS_FIELDS = frozenset(
    "_identity _config _parent_pid _parent_name _popen _closed _target _args _kwargs _name".split()  # noqa: SIM905
)
"""Attributes set by `BaseProcess.__init__` (3.10 to 3.15); all others of a process are the user's."""


def is_process(obj: object) -> bool:
    """Return whether `obj` is a process object, by its type alone."""
    if type(obj) is type:
        return False
    bases = set(map(id, type.mro(type(obj))))  # by id: ``in`` would call a metaclass's `__eq__`
    if id(multiprocessing.process.BaseProcess) in bases:
        return True
    package = getattr(_local, "package", "multiprocessing")
    return package != "multiprocessing" and id(_module("process").BaseProcess) in bases


def inner_task(func: object, args: tuple[Any, ...]) -> tuple[Literal["call", "map", "starmap"], object, object]:
    """Unwrap a task of a Pool or executor: ``(form, function, items)``.

    `form` is "call" (`items` is `args`), "map" (one argument each) or "starmap" (a tuple of arguments each).
    `pool.mapstar(((func, batch),))`, `pool.starmapstar(((func, batch),))` and, for ProcessPoolExecutor.map,
    ``partial(_process_chunk, func)(chunk)``. When the names go, the tasks are shown as multiprocessing wraps them.
    """
    pool = _module("pool")
    if func in (pool.mapstar, pool.starmapstar) and len(args) == 1:
        inner, batch = args[0]
        return "map" if func is pool.mapstar else "starmap", inner, batch
    chunk = getattr(sys.modules.get("concurrent.futures.process"), "_process_chunk", None)
    if type(func) is functools.partial and chunk is not None and func.func is chunk and len(args) == 1:
        return "starmap", func.args[0], args[0]
    return "call", func, args


def call_item(obj: object) -> tuple[Any, Any, Any] | None:
    """Return ``(fn, args, kwargs)`` of ProcessPoolExecutor's `_CallItem`; None if `obj` is something else."""
    cls = getattr(sys.modules.get("concurrent.futures.process"), "_CallItem", None)
    if cls is None or type(obj) is not cls:
        return None
    fields = object.__getattribute__(obj, "__dict__")
    return fields["fn"], fields["args"], fields["kwargs"]


def worker_parameter(process: object, index: object) -> str | None:
    """Return the name of argument `index` of a process of a Pool, executor or Manager, if it comes from the user.

    ``multiprocessing.pool.worker(inqueue, outqueue, initializer, initargs, ...)``,
    ``concurrent.futures.process._process_worker(...)``, ``multiprocessing.managers.BaseManager._run_server(...)``.
    When it goes: None, and messages give the argument's number.
    """
    target = object.__getattribute__(process, "__dict__").get("_target")
    bound = type(target) is types.MethodType
    function = target.__func__ if bound else target
    if type(function) is not types.FunctionType or type(index) is not int:
        return None
    if not str(function.__module__).startswith(("multiprocessing.", "multiprocess.", "concurrent.futures.")):
        return None
    name = function.__code__.co_varnames[: function.__code__.co_argcount][index + bound :][:1]
    return name[0] if name and name[0] in ("initializer", "initargs") else None


# -- types without a public name -------------------------------------------------------------------------------------


def cell_value(cell: types.CellType) -> tuple[bool, object]:
    """Return whether `cell` holds a value, and that value."""
    try:
        return True, cell.cell_contents
    except ValueError:
        return False, None


def local_variables(frame: types.FrameType) -> dict[str, object]:
    """Return a running function's variables without leaving references to them in the frame.

    Up to 3.12 the frame keeps ``f_locals`` as a snapshot, including variables that the function deletes later
    (PEP 667). For a class body or module it is the namespace itself.
    """
    names = frame.f_locals
    found = dict(names)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED and sys.gettrace() is None:
        names.clear()
    return found


# -- scripts ---------------------------------------------------------------------------------------------------------


def interpreter_flags() -> list[str]:
    """Return this interpreter's flags as arguments: ``-W``, ``-X``, ``-B`` and the others.

    `subprocess._args_from_interpreter_flags` (3.10 to 3.15), also used by multiprocessing's spawn. When it goes:
    its code over ``sys.flags``, ``sys.warnoptions`` and ``sys._xoptions``.
    """
    return list(importlib.import_module("subprocess")._args_from_interpreter_flags())


def process_starter() -> types.ModuleType:
    """Return the module whose `spawnv_passfds` starts the forkserver (3.10 to 3.15).

    When it goes: whatever ``ForkServer.ensure_running`` then calls with the server's command line.
    """
    return importlib.import_module("multiprocessing.util")


def with_server_prefix(args: Any, prefix: str) -> object:
    """Return a command line with `prefix` before the forkserver's own code; any other command line unchanged.

    The code is the argument after ``-c`` and imports ``main`` from ``multiprocessing.forkserver`` (3.10 to 3.15).
    When that changes: no prefix, and a server that dies while importing the main module stays unexplained.
    """
    try:
        at = list(args).index("-c") + 1
        if "from multiprocessing.forkserver import main" in args[at]:
            return [*args[:at], prefix + args[at], *args[at + 1 :]]
    except (ValueError, IndexError, TypeError):
        pass
    return args


def tracker_pid() -> int | None:
    """Return the pid of the resource tracker, if started (`_pid`). When it goes: the tracker is not recognised."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    return getattr(getattr(module, "_resource_tracker", None), "_pid", None)


def tracker() -> tuple[types.ModuleType, Any]:
    """Return the loaded module of the resource tracker, and the tracker, whose `_send` registers and unregisters.

    `_resource_tracker` and `_send` (3.10 to 3.15); when the latter goes: `register` and `unregister`, which modules
    bind when they are imported.
    """
    module: Any = sys.modules["multiprocessing.resource_tracker"]
    return module, module._resource_tracker


def tracker_descriptor(tracker: object) -> int | None:
    """Return the descriptor whose closing ends a resource tracker: `_fd` (3.10 to 3.15). When it goes: None."""
    number: int | None = getattr(tracker, "_fd", None)
    return number


def forget_tracker() -> int | None:
    """Let multiprocessing start a new resource tracker at the next use, and return the pid of the old one.

    `_lock`, `_pid` and `_fd` (3.10 to 3.15); when they go: None, and the tracker runs until the session ends.
    """
    _, found = tracker()
    with found._lock:
        pid: int | None = found._pid
        found._pid = found._fd = None
    return pid


def may_have_registered() -> bool:
    """Return whether this process may still have something registered with the resource tracker.

    Semaphores have a finalizer, ``SemLock._cleanup`` in `util._finalizer_registry` (3.10 to 3.15). Segments of shared
    memory have none, so they count once their module is loaded.
    """
    finalizers = list(getattr(_module("util"), "_finalizer_registry", {}).values())
    names = {getattr(getattr(each, "_callback", None), "__qualname__", "") for each in finalizers}
    return "SemLock._cleanup" in names or "multiprocessing.shared_memory" in sys.modules


def temporary_directory_of(process: multiprocessing.process.BaseProcess) -> str | None:
    """Return multiprocessing's own temporary directory in `process` if it has made one, without making it.

    `_config["tempdir"]` (3.10 to 3.15), set by `util.get_temp_dir` and inherited by children. When it goes: None, and
    only the server's socket shows that a directory was lost.
    """
    path = getattr(process, "_config", {}).get("tempdir")
    return path if isinstance(path, str) else None


def set_temporary_directory(process: multiprocessing.process.BaseProcess, path: str | None) -> None:
    """Make `process`, which has not started yet, use `path` instead of making a directory. See the getter."""
    vars(process)["_config"]["tempdir"] = path


# -- children --------------------------------------------------------------------------------------------------------


def receiver(frame: types.FrameType | None) -> Literal["Pool", "ProcessPoolExecutor"] | None:
    """Return whose result thread `frame` belongs to, or None: `Pool._handle_results`, `_ExecutorManagerThread`.

    3.10 to 3.15. When the names go: a result that does not load is reported as a message that does not.
    """
    while frame is not None:
        module, function = frame.f_globals.get("__name__"), frame.f_code.co_name
        if (module, function) == ("multiprocessing.pool", "_handle_results"):
            return "Pool"
        if (module, function) == ("concurrent.futures.process", "wait_result_broken_or_wakeup"):
            return "ProcessPoolExecutor"
        frame = frame.f_back
    return None


# -- threads and signals ---------------------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    """Return whether a process `pid` exists; one that has ended but was not waited for counts.

    On Windows ``os.kill(pid, 0)`` sends Ctrl-C; there the process is opened by `_winapi`, as `multiprocessing` does.
    """
    if sys.platform == "win32":
        try:
            import _winapi

            handle = _winapi.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        except ImportError:
            return True
        except OSError:
            return False
        try:
            return bool(_winapi.WaitForSingleObject(handle, 0) == _winapi.WAIT_TIMEOUT)
        finally:
            _winapi.CloseHandle(handle)
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal: ``SigCgt`` in ``/proc/<pid>/status`` of Linux (proc(5)).

    A process that is just starting, or has executed another program, has none. On other systems than Linux the
    signals we send do nothing by default, so the answer is True.
    """
    if sys.platform != "linux":
        return True
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            caught = next(line for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def wait_for(pid: int, options: int = 0) -> bool:
    """Wait for a child with the system call itself, and return whether it has ended.

    gevent replaces ``os.waitpid`` with a function that waits forever for a child that gevent did not fork.
    """
    import posix

    try:
        return bool(posix.waitpid(pid, options)[0])
    except ChildProcessError:  # somebody's waitpid(-1) was faster
        return True


# -- time ------------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Return the text in ``os.environ``: a test may have put anything into its `_data` (3.10 to 3.15)."""
    try:
        return dict(os.environ)
    except Exception:
        raw = getattr(os.environ, "_data", {})
        text = (str, bytes)
        return {os.fsdecode(k): os.fsdecode(v) for k, v in raw.items() if type(k) in text and type(v) in text}


@contextlib.contextmanager
def parsing() -> Iterator[None]:
    """Collect no garbage while source is parsed to describe a failure, on versions where a finalizer breaks that.

    Before 3.11.9 and 3.12.3, an exception in a ``__del__`` during ``ast.parse`` makes it raise SystemError
    (gh-106905), which ends the session.
    """
    broken = (sys.version_info < (3, 11, 9) or (3, 12) <= sys.version_info < (3, 12, 3)) and gc.isenabled()
    if broken:
        gc.disable()
    try:
        yield
    finally:
        if broken:
            gc.enable()


class RealTime:
    """Clock and sleep that no test can freeze.

    freezegun replaces functions of `time` wherever a module has them as a global, time-machine replaces
    ``time.monotonic`` itself; neither reaches an attribute of a class that holds ``time.perf_counter``.
    """

    now = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)


# -- mock ------------------------------------------------------------------------------------------------------------

MOCK_MODULES = ("unittest.mock", "mock.mock")
MOCK_DICT = ("_patch_dict", "_unpatch_dict")
"""The methods of `_patch_dict` behind every form of ``patch.dict`` (3.10 to 3.15, mock 5)."""


def mock_patchers() -> list[tuple[Any, Any]]:
    """Return the classes behind ``patch`` and ``patch.dict``, of ``unittest.mock`` and of the package ``mock``.

    `_patch` and `_patch_dict`, as far as imported (3.10 to 3.15, mock 5). Decorators, ``with`` and ``start()`` all go
    through ``_patch.__enter__``. When they go: such patches are reported as assignments of unknown origin.
    """
    found = []
    for name in MOCK_MODULES:
        module = sys.modules.get(name)
        if module is None:
            continue
        patchers = getattr(module, "_patch", None), getattr(module, "_patch_dict", None)
        needed = ("__enter__", "__exit__"), MOCK_DICT
        each = zip(patchers, needed, strict=True)
        if all(type(cls) is type and all(hasattr(cls, name) for name in names) for cls, names in each):
            found.append(patchers)
    return found


def decorated_by_mock(frame: types.FrameType) -> object:
    """Return the user's function if mock is calling the function it decorates in `frame`, else None.

    `patched` in ``_patch.decorate_callable`` and `_inner` in ``_patch_dict.decorate_callable``, whose free variables
    are `func` and `f` (3.10 to 3.15, mock 5).
    """
    code = frame.f_code
    if code.co_name not in ("patched", "_inner") or not code.co_filename.endswith("mock.py"):
        return None
    return frame.f_locals.get("func", frame.f_locals.get("f"))
