"""Private names of CPython used in child processes, checked against 3.10 to 3.15."""

from __future__ import annotations

import sys
from functools import partial
from types import FrameType, TracebackType

TYPE_CHECKING = False  # typing.TYPE_CHECKING: importing typing would take longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

facts: dict[str, Any] = {}
"""Facts about this process: pid, directory, method, process (its name), starter (a pid), package, count."""

POOL_WORKER = ("multiprocessing.pool", "worker")
EXECUTOR_WORKER = ("concurrent.futures.process", "_process_worker")
_WORKERS = {POOL_WORKER, EXECUTOR_WORKER}
WORKER_NAMES = tuple(name for _, name in _WORKERS)
_STARTERS = {
    "multiprocessing.popen_spawn_posix": "spawn",
    "multiprocessing.popen_spawn_win32": "spawn",
    "multiprocessing.popen_forkserver": "forkserver",
}


_path = [each for each in sys.path if each]
"""Before ``multiprocessing.spawn.prepare`` sets the parent's, which a test may have replaced."""


def standard(name: str) -> Any:
    """Import a module of the standard library from where the interpreter has it."""
    if name not in sys.modules:
        theirs, sys.path = sys.path, _path
        try:
            __import__(name)
        finally:
            sys.path = theirs
    return sys.modules[name]


def _module(name: str) -> Any:
    full = f"{facts.get('package', 'multiprocessing')}.{name}"
    __import__(full)
    return sys.modules[full]


def stdlib_name(name: object) -> Any:
    """Map a module name of this child's package to multiprocessing's name for it."""
    package = facts.get("package", "multiprocessing")
    if package == "multiprocessing" or type(name) is not str or not name.startswith(f"{package}."):
        return name
    return "multiprocessing" + name[len(package) :]


def process_class() -> Any:
    """Return the class whose `_bootstrap` runs every process object. If it goes: look for whatever calls `run`."""
    return _module("process").BaseProcess


def spawn_module() -> Any:
    """Return the module whose `get_preparation_data` the Popen classes look up at each call."""
    return _module("spawn")


def dumps() -> Callable[[object], object]:
    """Return the function that pickles results."""
    dumps: Callable[[object], object] = _module("reduction").ForkingPickler.dumps
    return dumps


def starting_method(frame: FrameType | None) -> str | None:
    """Return the start method that is asking for preparation data, from the Popen module on the stack."""
    for _ in range(10):
        if frame is None:
            return None
        # only the last part of the name, which packages derived from multiprocessing share
        method = _STARTERS.get("multiprocessing." + frame.f_globals.get("__name__", "").rpartition(".")[2])
        if method is not None:
            return method
        frame = frame.f_back
    return None


def _frames(tb: TracebackType | None) -> Iterator[tuple[str, str]]:
    while tb is not None:
        yield stdlib_name(tb.tb_frame.f_globals.get("__name__", "")), tb.tb_frame.f_code.co_name
        tb = tb.tb_next


def loading_phase(tb: TracebackType | None) -> str:
    """Return the phase in which a child failed before running: ``spawn._main`` calls ``prepare``, then unpickles."""
    frames = list(_frames(tb))
    if ("multiprocessing.spawn", "prepare") in frames or ("multiprocessing.spawn", "_main") not in frames:
        return "start-up"
    return "unpickling"


def worker_phase(phase: str, tb: TracebackType | None) -> tuple[str]:
    """Return the phase. A worker whose queue's `get` raised was unpickling a task."""
    frames = list(_frames(tb))
    for index, frame in enumerate(frames[:-1]):
        if frame in _WORKERS and frames[index + 1] in (("multiprocessing.queues", "get"),):
            return ("unpickling of a task",)
    return (phase,)


def job(tb: TracebackType | None) -> int | None:
    """Return the Pool job of a task that did not load, read from the bytes in ``SimpleQueue.get``.

    A Pool sends ``(job, i, function, args, kwargs)``.
    """
    while tb is not None:
        frame = tb.tb_frame
        if (stdlib_name(frame.f_globals.get("__name__")), frame.f_code.co_name) == ("multiprocessing.queues", "get"):
            operations = standard("pickletools").genops(bytes(frame.f_locals["res"]))
            found: int = next(arg for op, arg, _ in operations if op.name.startswith(("BININT", "LONG")))
            return found
        tb = tb.tb_next
    return None


def current_task() -> object:
    """Return the user function that the worker is running, read from the worker frame's locals."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = (stdlib_name(frame.f_globals.get("__name__")), frame.f_code.co_name)
        if name == POOL_WORKER:
            function = frame.f_locals.get("func")
            if getattr(function, "__name__", "") in ("mapstar", "starmapstar"):
                return frame.f_locals["args"][0][0]
            return function
        if name == EXECUTOR_WORKER:
            function = getattr(frame.f_locals.get("call_item"), "fn", None)
            if type(function) is partial and getattr(function.func, "__name__", "") == "_process_chunk":
                return function.args[0]
            return function
        frame = frame.f_back
    return None


def unsent(tb: TracebackType | None) -> tuple[object, ...]:
    """Return the value that ``concurrent.futures.process._sendback_result`` failed to send, if it is what raised."""
    if tb is None or tb.tb_frame.f_code.co_name != "_sendback_result":
        return ()
    names = tb.tb_frame.f_locals
    exception = names.get("exception")
    return (names.get("result") if exception is None else exception,)
