"""What a spawned child would be sent, without side effects: the bytes, to be asked later whether they load.

A dry run that keeps what it pickles. All that a launch needs is here, since most are never asked about; see `loading`.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from .._compat import cpython
from ..model.payload import Form, Payload
from . import dry_run
from .walk import PROTOCOL

_LARGE = 64 * 1024 * 1024
"""No larger payload is kept or sent, large buffers aside."""


def pack(
    obj: object, *, task: bool = False, allow_fork_primitives: bool = False, limit: int = _LARGE
) -> Payload | None:
    """Return the bytes of `obj`, a process, a task as it lies in a queue, or anything; None if it does not pickle.

    As `pickling.dry_run`: no side effects, no copy of large buffers. Also None when there are more than `limit` bytes.
    """
    form, root = _root(obj)
    sink, sizes, used = _Bounded(limit), list[int](), set[str]()

    def note(buffer: pickle.PickleBuffer) -> None:
        sizes.append(memoryview(buffer).nbytes)
        used.add("arrays")

    previous = cpython.spawning_popen()
    cpython.set_spawning_popen(None if task else dry_run._STAND_IN)
    try:
        cls = cpython.forking_pickler()
        if cpython.stock_pickler(cls):
            pickler = pickle.Pickler(sink, PROTOCOL, buffer_callback=note)
            pickler.dispatch_table = _dispatch_table(allow_fork_primitives, used)
            pickler.dump(root)
        else:
            cls(sink).dump(root)
    except Exception:
        return None
    finally:
        cpython.set_spawning_popen(previous)
    return Payload(sink.getvalue(), tuple(sizes), form, tuple(sorted(used)))


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
        form: Form = "map" if call.form == "map" else "starmap" if call.form == "starmap" else "call"
        return form, (call.target, call.args, call.kwargs)
    if cpython.is_process(obj):
        root = dry_run.unstarted(obj)
        return ("process", root) if root is obj else ("state", root)
    return "object", obj


class _Made:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _dispatch_table(allow: bool, used: set[str]) -> dict[type, Callable[[Any], Any]]:
    """Return the dry run's inert reducers, with results that load to something of the same shape.

    Their names are added to `used`: what fails to load with one of them in it may do so because of it.
    """
    table = dry_run.dispatch_table(allow_fork_primitives=allow)

    def stand_in(name: str, reducer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def reduce(obj: Any) -> Any:
            used.add(name)
            return reducer(obj)

        return reduce

    for cls, reducer in list(table.items()):
        if reducer in _STAND_INS:
            table[cls] = stand_in(*_STAND_INS[reducer])
    socket = sys.modules.get("socket")
    if socket is not None and socket.socket in table:
        table[socket.socket] = stand_in("sockets", _socket)
    return table


def _connection(obj: Any) -> tuple[Any, ...]:
    dry_run._descriptor(obj)
    return cpython.newobj_functions()[0], (type(obj),), {"_handle": None, "_readable": True, "_writable": True}


def _socket(obj: Any) -> tuple[Any, ...]:
    dry_run._descriptor(obj)
    return cpython.newobj_functions()[0], (type(obj),)


def _arena(obj: Any) -> tuple[Any, ...]:
    dry_run._arena(obj)
    return types.SimpleNamespace, (), {"size": obj.size, "fd": -1, "buffer": _Made(bytearray, obj.size)}


def _lock(obj: Any) -> Any:
    return _usable(dry_run._lock(obj))


def _allowed_lock(obj: Any) -> Any:
    return _usable(dry_run._allowed_lock(obj))


def _usable(reduced: Any) -> Any:
    """Return something with ``acquire`` for a lock that the dry run only lets through: conditions take its methods."""
    return (threading.RLock, ()) if reduced == (object, ()) else reduced


_STAND_INS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    dry_run._descriptor: ("connections", _connection),
    dry_run._arena: ("shared memory", _arena),
    dry_run._lock: ("locks", _lock),
    dry_run._allowed_lock: ("locks", _allowed_lock),
    dry_run._tensor: ("tensors", dry_run._tensor),
    dry_run._array: ("arrays", dry_run._array),
}
