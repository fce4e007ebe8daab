"""Unpickle payloads in a fresh child, each in a fork of its own that leaves no trace.

Like `reporter`, this file is loaded by path, with the standard library only; `state.fresh_child` is the parent's side.
A request is two blocks on standard input, JSON and the pickled bytes. The answer is one block of JSON on the original
standard output. Output of the user's modules is discarded.
"""

# ruff: noqa: SIM105

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

LIMIT = 20
"""Limit on the failures to find."""


def main(
    exception: Callable[[BaseException], dict[str, object]], modules: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Answer requests until standard input ends. `exception` converts an exception to builtins.

    `modules` maps names to the other modules sent along, for questions about values: see `observer`.
    """
    if sys.platform == "win32":
        import msvcrt

        for stream in (0, 1):
            msvcrt.setmode(stream, os.O_BINARY)
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    import multiprocessing.spawn

    header = read_block(requests)
    if header is None:
        return
    multiprocessing.spawn.prepare(json.loads(header))
    write_block(answers, b"{}")
    while (header := read_block(requests)) is not None:
        payload = read_block(requests)
        if payload is None:
            return
        question = json.loads(header)
        if "bindings" in question and modules is not None:
            child = modules["observer"]
            child["keep"](question["keep"])
            answer = _in_fork(lambda: child["answer"](question, modules["values"], modules["process_state"]),  # noqa: B023
                              question["seconds"])  # fmt: skip
            new = answer.pop("new", [])
            write_block(answers, json.dumps(answer).encode())
            child["keep"](new)
            continue
        answer = _in_fork(lambda: _load(question, payload, exception, modules or {}), question["seconds"])  # noqa: B023
        if answer.get("error") is not None:
            traced = _in_fork(lambda: _trace(question, payload, exception), question["seconds"])  # noqa: B023
            answer["broken"] = traced.get("broken", [])
        write_block(answers, json.dumps(answer).encode())


def _in_fork(work: Callable[[], dict[str, object]], seconds: float) -> dict[str, object]:
    """Return the result of `work`, run in a fork or, on platforms without fork, in this process."""
    if not hasattr(os, "fork"):
        return work()
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            import signal

            os.close(receive)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(seconds) + 1)  # a hung fork must not outlive the session
            write_block(send, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(send)
    try:
        data = read_block(receive)
    finally:
        os.close(receive)
        _, status = os.waitpid(pid, 0)
    return {"crashed": os.waitstatus_to_exitcode(status)} if data is None else json.loads(data)


# -- loading ---------------------------------------------------------------------------------------------------------


def _prepare(question: Mapping[str, Any]) -> list[object]:
    """Do what ``spawn._main`` does before unpickling. Return zeroed memory in place of large buffers."""
    import mmap
    import multiprocessing.process
    import multiprocessing.spawn

    # While this is set, proxies do not call their manager and no process can be started.
    multiprocessing.process.current_process()._inheriting = True  # type: ignore[attr-defined]
    multiprocessing.spawn.prepare(question["prepare"])
    return [mmap.mmap(-1, size) if size else bytearray() for size in question["buffers"]]


def _load(
    question: Mapping[str, object],
    payload: bytes,
    exception: Callable[[BaseException], dict[str, object]],
    modules: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    try:
        buffers = _prepare(question)
    except Exception as error:
        return {"error": exception(error), "start_up": True}
    loading = _Loading(io.BytesIO(payload), buffers=buffers)
    began = time.perf_counter()
    try:
        loaded = loading.load()
    except BaseException as error:
        return {"error": exception(error), "stand_ins": sorted(loading.used)}
    if "account" not in question:
        return {"error": None}
    seconds, copied, look = time.perf_counter() - began, modules["copied"], modules["values"]
    parts = copied["picked"](loaded, question["where"], look)
    return {"error": None, "account": {**copied["account"](parts, look, question["account"]), "seconds": seconds}}


def _trace(
    question: Mapping[str, object], payload: bytes, exception: Callable[[BaseException], dict[str, object]]
) -> dict[str, object]:
    tracing = _Tracing(io.BytesIO(payload), buffers=_prepare(question))
    tracing.exception = exception
    try:
        tracing.load()
    except BaseException:
        pass  # unlike a plain load, it has continued after the first failure
    return {"broken": tracing.broken}


class _StandIn:
    """Stands in for a lock, connection, socket or shared memory that this process did not inherit."""

    buffer = bytearray()

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: object, **_kwargs: object) -> object:
        return self

    def __enter__(self) -> _StandIn:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass


def _arena(size: int, *_descriptor: object) -> object:
    """Replace ``heap.rebuild_arena``: private memory of the same size."""
    arena = _StandIn()
    arena.size, arena.buffer = size, bytearray(size)  # type: ignore[attr-defined]
    return arena


_INHERITED = {
    "synchronize": (("Lock", "RLock", "Semaphore", "BoundedSemaphore"), "locks"),
    "connection": (("rebuild_connection", "rebuild_pipe_connection"), "connections"),
    "reduction": (("_rebuild_socket", "rebuild_socket"), "sockets"),
    "heap": (("rebuild_arena",), "shared memory"),
}
"""Reduce functions, by multiprocessing module, whose descriptors or semaphores only a real child inherits."""
_PACKAGES = ("multiprocessing", "multiprocess", "billiard")


def _stand_in(module: str, name: str) -> str | None:
    """Return what a pickled global creates that only a real child inherits, in a word or two; else None."""
    package, _, rest = module.partition(".")
    if package in _PACKAGES and rest in _INHERITED and name in _INHERITED[rest][0]:
        return _INHERITED[rest][1]
    return "tensors" if module.startswith("torch.multiprocessing.") else None


class _Loading(pickle.Unpickler):
    """Loads a process's payload, with stand-ins for what only a real child inherits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.used: set[str] = set()

    def find_class(self, module: str, name: str, /) -> Any:
        found = _stand_in(module, name)
        if found is None:
            return super().find_class(module, name)
        self.used.add(found)
        return _arena if name == "rebuild_arena" else _StandIn


class _Broken:
    """Replaces an object that did not load, so that loading can continue."""

    def __call__(self, *_args: object, **_kwargs: object) -> _Broken:
        return self

    def __setstate__(self, _state: object) -> None:
        pass


class _Tracing(pickle._Unpickler):
    """Python's own unpickler, unchanged in structure since 3.0, that records a failing operation and carries on."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {}
    stack: list[Any]
    metastack: list[list[object]]
    append: Callable[[object], None]
    exception: Callable[[BaseException], dict[str, object]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.broken: list[dict[str, object]] = []
        self.number = -1

    def find_class(self, module: str, name: str, /) -> Any:
        if name == "rebuild_arena":
            return _arena
        return _StandIn if _stand_in(module, name) else super().find_class(module, name)

    def note(self, error: BaseException, operands: list[object], names: tuple[str, str] | None) -> None:
        """Record a failure unless it is the consequence of an earlier one."""
        if len(self.broken) >= LIMIT or any(map(_holds_broken, operands)):
            return
        self.broken.append({"number": self.number, "error": self.exception(error), "global": names})


def _holds_broken(value: Any, depth: int = 5) -> bool:
    if type(value) is _Broken:
        return True
    if depth and type(value) in (list, tuple, set, frozenset):
        return any(_holds_broken(each, depth - 1) for each in value)
    if depth and type(value) is dict:
        return any(_holds_broken(each, depth - 1) for each in value.values())
    try:
        state = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return False
    return bool(depth) and type(state) is dict and any(_holds_broken(each, depth - 1) for each in state.values())


def _names(obj: object) -> tuple[str, str] | None:
    if not isinstance(type(obj), type) or type(obj) is _Broken:
        return None
    if not issubclass(type(obj), type) and type(obj).__name__ not in ("function", "builtin_function_or_method"):
        obj = type(obj)
    names = (getattr(obj, "__module__", None), getattr(obj, "__qualname__", None))
    return names if all(type(name) is str for name in names) else None  # type: ignore[return-value]


_OPERANDS = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "STACK_GLOBAL": 2, "GLOBAL": 0, "BUILD": 2}
_LEAVES_NOTHING = {"NEWOBJ", "NEWOBJ_EX", "STACK_GLOBAL", "GLOBAL"}
"""Opcodes that have already popped their operands when they fail."""
_COLLECTIONS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS")


def _traced(name: str, original: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap an operation of the unpickler: record what it raises and leave the stack as if it had succeeded."""

    def operation(self: _Tracing) -> None:
        self.number += 1
        if name in _COLLECTIONS:
            one = name in ("APPEND", "SETITEM")
            holder = self.stack[-2 if name == "APPEND" else -3] if one else self.metastack[-1][-1]
            items = [] if one else list(self.stack)
            try:
                original(self)
            except Exception as error:
                self.note(error, [holder, items], _names(holder))
            return
        count = _OPERANDS.get(name)
        if count is None:
            original(self)
            return
        operands = self.stack[len(self.stack) - count :]
        try:
            original(self)
        except Exception as error:
            names = tuple(operands) if name == "STACK_GLOBAL" else _names(operands[0]) if operands else None
            self.note(error, operands, names)
            if name == "REDUCE":
                self.stack[-1] = _Broken()
            elif name in _LEAVES_NOTHING:
                self.append(_Broken())

    return operation


def _counted(original: Callable[[Any], None]) -> Callable[[Any], None]:
    def operation(self: _Tracing) -> None:
        self.number += 1
        original(self)

    return operation


def _fill() -> None:
    import pickletools

    names = {ord(each.code): each.name for each in pickletools.opcodes}
    for code, original in pickle._Unpickler.dispatch.items():
        name = names.get(code, "")
        watched = name in _OPERANDS or name in _COLLECTIONS
        _Tracing.dispatch[code] = _traced(name, original) if watched else _counted(original)


_fill()

# -- blocks ----------------------------------------------------------------------------------------------------------


def read_block(descriptor: int) -> bytes | None:
    """Return one block, or None at the end of the file."""
    header = _read(descriptor, 8)
    return None if header is None else _read(descriptor, struct.unpack("!Q", header)[0])


def _read(descriptor: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_block(descriptor: int, data: bytes) -> None:
    """Write one block: its length in eight bytes, then `data`."""
    view = memoryview(struct.pack("!Q", len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]
