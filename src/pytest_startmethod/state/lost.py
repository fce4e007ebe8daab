"""Find writes in the child that the parent reads afterwards, in its own copy."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from os.path import abspath
from typing import Any, Final

from .._compat import cpython
from ..child.values import MISSING, class_name, resolve
from ..model.observed import Lost, Read, Where, Write
from ..source.callers import UserCode, frames
from . import reads
from .instructions import operations

_MOST_FUNCTIONS: Final = 100


def lost_writes(
    writes: Iterable[Write], function: object, args: tuple[object, ...], kwargs: Mapping[str, object],
    frame: types.FrameType, user: UserCode,
) -> Iterable[Lost]:  # fmt: skip
    """Yield those of the child's `writes` whose targets the user's running functions read afterwards."""
    around = [each for each in frames(frame) if user(each.f_code.co_filename)][:8]
    reads_of: dict[int, list[Read]] = {}
    travelling = dict(_travelling(function, args, kwargs))
    captured = _captured(function)
    for write in writes:
        if write.module:
            if _shares(resolve(sys.modules.get(write.module), write.names)) and not write.rebinds:
                continue
            found = [w for each in around for w in _global_reads(each, write, user, reads_of)]
            if found:
                yield Lost(write, tuple(found[:4]), write.names[-1])
            continue
        root = write.names[0]
        value = travelling.get(root, captured.get(root, MISSING))
        if value is MISSING or (_shares(value) and not cpython.is_process(value)):
            continue
        for each in around:
            for name in [n for n, v in cpython.local_variables(each).items() if v is value]:
                # of a method's object, or a process, much is read: only what was written counts
                places = _local_reads(each, name, write.where.instruction if root == _RECEIVER else "")
                if places:
                    yield Lost(write, tuple(places[:4]), name)


def _travelling(
    function: object, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    """Yield what the child is given, and the items of tuples, lists and dictionaries among it, by path."""
    given: list[tuple[str, Any]] = [(f"args[{n}]", value) for n, value in enumerate(args)]
    given += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    for path, value in given:
        yield path, value
        held = enumerate(value) if type(value) in (tuple, list) else value.items() if type(value) is dict else ()
        yield from ((f"{path}[{key!r}]", each) for key, each in held)
    methods = [function, *(value for _, value in given)]
    objects = [each.__self__ for each in methods if type(each) is types.MethodType]
    if len(objects) == 1:  # the search does not tell whose method it follows
        yield _RECEIVER, objects[0]


_RECEIVER: Final = "target.__self__"


def _captured(function: object) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(10):
        if type(function) is functools.partial:
            function = function.func
        elif type(function) is types.MethodType:
            function = function.__func__
    if type(function) is types.FunctionType:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            filled, value = cpython.cell_value(cell)
            if filled:
                found[name] = value
    return found


def _shares(value: object) -> bool:
    """Return whether a change in the child may reach the parent: files, sockets, shared memory."""
    for cls in type.__dict__["__mro__"].__get__(type(value)):
        top = class_name(cls)[0].partition(".")[0]
        if top in ("multiprocessing", "multiprocess", "billiard", "mmap", "ctypes", "_ctypes", "io", "_io", "socket",
                   "logging", "threading", "_thread", "sqlite3", "queue", "numpy"):  # fmt: skip
            return True
    return False


def _global_reads(frame: types.FrameType, write: Write, user: UserCode, known: dict[int, list[Read]]) -> list[Where]:
    """Return where a running function, or a function it calls, reads the target of `write` afterwards.

    `known` caches the reads of each frame.
    """
    if id(frame) not in known:
        function = types.FunctionType(
            frame.f_code, frame.f_globals, closure=tuple(types.CellType() for _ in frame.f_code.co_freevars) or None
        )
        known[id(frame)] = reads.of(function, (), {}, is_user=user, limit=_MOST_FUNCTIONS).all_reads
    file, name = abspath(frame.f_code.co_filename), getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    out = []
    for read in known[id(frame)]:
        if (read.module, read.names[: len(write.names)]) == (write.module, write.names):
            own = read.where.file == file and read.where.function == name
            if not own or _follows(frame, read.where.line, read.where.offset):
                out.append(read.where)
    return [where for where in out if where != write.where]


def _local_reads(frame: types.FrameType, name: str, stored: str) -> list[Where]:
    """Return where a variable is read afterwards; with `stored`, an instruction, only reads of that attribute."""
    code, attribute = frame.f_code, stored.removeprefix("STORE_ATTR ") if stored.startswith("STORE_ATTR ") else None
    function = getattr(code, "co_qualname", code.co_name)
    file = abspath(code.co_filename)
    found = []
    every = list(operations(code))
    for each, following in zip(every, [*every[1:], every[-1]], strict=True):
        if attribute is not None and (following.op, following.value) != ("attribute", attribute):
            continue
        if each.value == name and each.op in ("local", "cell", "closure") and _follows(frame, each.line, each.offset):
            found.append(Where(file, each.line, function, each.text, each.offset))
    return found


def _follows(frame: types.FrameType, line: int, offset: int) -> bool:
    """Return whether an instruction comes after the one that the frame is executing."""
    return line > frame.f_lineno or (line == frame.f_lineno and offset > frame.f_lasti)
