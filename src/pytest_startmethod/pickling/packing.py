"""The bytes that are sent to a child: taken from multiprocessing's own dump, or packed where no process starts."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

from .._compat import cpython
from .._compat.cpython import Reducer
from ..model.payload import Form, Payload
from . import dry_run
from .walk import PROTOCOL

_LARGE = 64 * 1024 * 1024
"""No larger payload is packed, large buffers aside."""


def watch_dump(
    original: Callable[..., None],
    *,
    before: Reducer,
    after: Callable[[Any, object, Payload | None], None],
    limit: int,
) -> Callable[..., None]:
    """Wrap ``multiprocessing.reduction.dump``, through which a process object goes to a child.

    `after` is given the process, what `before` returned, and the bytes, if there are no more than `limit`:
    ``Popen._launch`` writes to a buffer in memory and sends it afterwards (popen_spawn_posix.py, popen_forkserver.py).
    On Windows it writes to the child's pipe, where nobody can read the bytes.
    """

    def dump(obj: object, file: Any, protocol: int | None = None) -> None:
        __tracebackhide__ = True
        if not cpython.is_process(obj):
            with cpython.frameless:
                return original(obj, file, protocol)
        seen = before(obj)
        start = file.tell() if type(file) is io.BytesIO else None
        with cpython.frameless:
            original(obj, file, protocol)
        kept = start is not None and file.tell() - start <= limit
        after(obj, seen, Payload(bytes(file.getbuffer()[start:]), (), "process") if kept else None)
        return None

    return dump


def pack(obj: object, *, task: bool = False, allow_fork_primitives: bool = False) -> Payload | None:
    """Return the bytes of `obj`: a process, a queued task, or anything else; None if it does not pickle.

    As `dry_run.dry_run`: no descriptor is duplicated, and no large buffer copied. Also None above 64 MiB.
    """
    form, root = _root(obj)
    sink, sizes = _Bounded(_LARGE), list[int]()
    cls = cpython.forking_pickler()
    try:
        with cpython.spawning(None if task else dry_run.STAND_IN):
            if cpython.stock_pickler(cls):
                pickler = pickle.Pickler(sink, PROTOCOL, buffer_callback=lambda b: sizes.append(memoryview(b).nbytes))
                pickler.dispatch_table = _dispatch_table(allow_fork_primitives)
                pickler.dump(root)
            else:
                cls(sink).dump(root)
    except Exception:
        return None
    return Payload(sink.getvalue(), tuple(sizes), form)


class _Bounded(io.BytesIO):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.limit:
            raise OverflowError
        return super().write(data)


def _root(obj: object) -> tuple[Form, object]:
    call = dry_run.as_call(obj)
    if isinstance(call, dry_run.Call):
        return call.form, (call.target, call.args, call.kwargs)
    if cpython.is_process(obj):
        root = dry_run.unstarted(obj)
        return ("process", root) if root is obj else ("state", root)
    return "object", obj


def _dispatch_table(allow: bool) -> dict[type, Reducer]:
    """Return the dry run's inert reducers, with results in multiprocessing's own form: see `child.loader`."""
    table = dry_run.dispatch_table(allow_fork_primitives=allow)
    for cls, form in cpython.inherited_forms().items():
        if cls in table:
            table[cls] = partial(_in_form, table[cls], form)
    return table


def _in_form(inert: Reducer, form: Reducer, obj: object) -> object:
    inert(obj)  # which refuses what multiprocessing refuses
    return form(obj)
