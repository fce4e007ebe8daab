"""The dry run: whether an object would reach a spawned child, without sending it."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import types
import weakref
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from .._compat import cpython
from .._compat.cpython import Reducer
from ..child.values import instance_namespace, module_of
from .user_code import runs_user_code
from .walk import PROTOCOL, Sink


@dataclass
class Call:
    """A target and its arguments, as one object to pickle and walk."""

    target: object
    args: Any = ()
    kwargs: Any = field(default_factory=dict)
    form: Literal["call", "map", "starmap"] = "call"
    """Whether `args` are the arguments, or items of one argument each ("map") or of a tuple of them ("starmap")."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of pickling an object without keeping the bytes."""

    size: int
    """Bytes of the payload as ``Process.start`` would write it, large buffers included. It holds them twice."""
    buffers: int
    """The part of them in large buffers (arrays), which the dry run did not copy."""
    error: Exception | None
    """The exception of pickling, without its traceback; None if it succeeded."""


class UserCodeError(Exception):
    """Pickling the object would run the user's code, or take long (``"large"``): leave it to a copy of this process."""


class StandIn:
    """Stands for the Popen object that is "spawning" while a process is pickled, and starts nothing."""

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        """Return `fd` itself, or raise as for a closed descriptor."""
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return fd

    DupFd = duplicate_for_child


STAND_IN = StandIn()


def as_call(obj: object) -> object:
    """Return the user's call inside a pool's or executor's task; anything else as it is."""
    task = cpython.call_item(obj) or _pool_task(obj)
    if task is None:
        return obj
    fn, args, kwargs = task
    form, inner, items = cpython.inner_task(fn, args)
    return Call(inner, items, kwargs, form)


def _pool_task(obj: object) -> tuple[object, Any, object] | None:
    if type(obj) is not tuple or len(obj) != 5:
        return None
    job, i, func, args, kwargs = obj
    plain = type(job) is int and (i is None or type(i) is int)
    is_task = plain and callable(func) and type(args) is tuple and type(kwargs) is dict
    return (func, args, kwargs) if is_task else None


_MOST_OBJECTS: Final = 500
_MOST_BYTES: Final = 32 * 1024 * 1024
"""Limits of a dry run inside ``start()``, which may take about 1 ms; a copy of the process dry-runs what is larger."""


def dry_run(obj: object, *, task: bool = False, allow_fork_primitives: bool = False, user_code: bool = True) -> DryRun:
    """Pickle `obj` as ``Process.start`` under spawn would, and discard the bytes.

    With `task`, pickle it as part of a pool's task, a queue's item or a connection's message, where locks and queues
    are not allowed. With `allow_fork_primitives`, accept locks and queues of a fork context: under spawn another
    context would make them. No descriptor is duplicated, no thread started, no memory moved, no large buffer copied,
    and no byte of the payload kept (it holds the authentication key).

    Raises:
        UserCodeError: without `user_code`, before any of the user's code runs, or if the object is large.

    """
    run = _Run(user_code)
    error: Exception | None = None
    try:
        with cpython.spawning(None if task else STAND_IN):
            run.dump(obj, allow_fork_primitives)
    except UserCodeError:
        raise
    except Exception as raised:
        error = raised.with_traceback(None)
    return DryRun(run.sink.size + run.buffers, run.buffers, error)


PLAIN: Final = frozenset((int, float, complex, bool, str, bytes, type(None)))
"""Types of objects that hold no code, and pickle for certain."""


def is_plain(process: object) -> bool:
    """Return whether a process pickles for certain: a module's function with plain arguments.

    Most do, and need no dry run: between two forks it takes several times as long, since each page of memory that
    the parent writes to is copied first.
    """
    own, cls = instance_namespace(process), type(process)
    target, args, kwargs = own.get("_target"), own.get("_args"), own.get("_kwargs")
    if type(target) is not types.FunctionType or type(args) is not tuple or type(kwargs) is not dict:
        return False
    return (
        module_of(sys.modules.get(target.__module__)).get(target.__qualname__) is target
        and PLAIN.issuperset(map(type, args))
        and PLAIN.issuperset(map(type, kwargs.values()))
        and cls.__module__ in ("multiprocessing.context", "multiprocessing.process")
        and cpython.PROCESS_FIELDS.issuperset(own)
        and cpython.stock_pickler(cpython.forking_pickler())
    )


class _Run:
    def __init__(self, user_code: bool) -> None:
        self.user_code = user_code
        self.sink = Sink() if user_code else _SmallSink()
        self.buffers = 0
        self.seen: list[weakref.ref[pickle.PickleBuffer]] = []

    def take(self, buffer: pickle.PickleBuffer) -> None:
        self.buffers += memoryview(buffer).nbytes
        if len(self.seen) < 10_000:
            self.seen.append(weakref.ref(buffer))

    def dump(self, obj: object, allow: bool) -> None:
        cls = cpython.forking_pickler()
        if not cpython.stock_pickler(cls):
            if not self.user_code:
                raise UserCodeError
            users: Any = cls(self.sink)
            if cpython.is_backends(cls):
                users.dispatch_table = {**users.dispatch_table, **dispatch_table(allow_fork_primitives=allow)}
            users.dump(unstarted(obj))
            return
        pickler = (pickle.Pickler if self.user_code else _Careful)(self.sink, PROTOCOL, buffer_callback=self.take)
        pickler.dispatch_table = dispatch_table(allow_fork_primitives=allow)
        pickler.dump(unstarted(obj))
        if self.seen:
            # A buffer that an array made for its own reduction dies with the pickler. One that lives on is the
            # user's own PickleBuffer, which the default protocol judges by other rules than protocol 5 does.
            del pickler
            for reference in self.seen:
                buffer = reference()
                if buffer is not None and (pickle.DEFAULT_PROTOCOL < 5 or not memoryview(buffer).contiguous):
                    pickle.dumps(buffer)


class _SmallSink(Sink):
    """A sink with the limit of a dry run inside ``start()``."""

    __slots__ = ()

    def write(self, data: object) -> int:
        if self.size > _MOST_BYTES:
            raise UserCodeError("large")
        return super().write(data)


class _Careful(pickle.Pickler):
    """A pickler that raises where it would call code outside the standard library."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.visited = 0
        self.known: dict[int, bool | None] = {}

    def reducer_override(self, obj: object) -> Any:
        """Stop at an object that would run code outside the standard library."""
        self.visited += 1
        if self.visited > _MOST_OBJECTS:
            raise UserCodeError("large")
        # a call less for each of many objects: most are of a class that is known by now
        if self.known.get(id(type(obj)), True) is not False and runs_user_code(obj, self.dispatch_table, self.known):
            raise UserCodeError
        return NotImplemented


def unstarted(obj: object) -> object:
    """Return `obj`; for a started process, the class and state that ``start`` pickles before starting it.

    Only what start() itself sets is left out, and only if the process pickles in the default way.
    """
    if not cpython.is_process(obj) or type(obj).__reduce_ex__ is not object.__reduce_ex__:
        return obj
    state = object.__getattribute__(obj, "__dict__")
    if state.get("_popen") is None:
        return obj
    return (type(obj), {key: value for key, value in state.items() if key != "_popen"})


# -- inert reducers --------------------------------------------------------------------------------------------------


def dispatch_table(*, allow_fork_primitives: bool) -> dict[type, Reducer]:
    """Return the reducers of a ForkingPickler; those with side effects are replaced by ones that only refuse.

    Those of connections and sockets duplicate a descriptor and start the resource sharer's thread, a tensor's moves
    it to shared memory, an array's copies it.
    """
    table = cpython.reducers()
    inert: list[tuple[type, Reducer]] = [(cls, _descriptor) for cls in cpython.connection_classes()]
    socket = sys.modules.get("socket")
    if socket is not None:
        inert.append((socket.socket, _descriptor))
    arena = cpython.arena_class()
    if arena is not None:
        inert.append((arena, _arena))
    for cls, reducer in inert:
        if cls in table and _own(table[cls]):
            table[cls] = reducer
    array = sys.modules.get("array")
    if array is not None and (array.array not in table or _own(table[array.array])):
        table[array.array] = _array
    numpy = sys.modules.get("numpy")
    ndarray = getattr(numpy, "ndarray", None)
    if type(ndarray) is type and ndarray not in table:
        table[ndarray] = _ndarray
    lock = _allowed_lock if allow_fork_primitives else _lock
    for cls in cpython.lock_classes():
        table.setdefault(cls, lock)
    if "torch" in sys.modules:
        for cls, reducer in list(table.items()):
            if f"{_module_of(reducer)}.".startswith("torch.multiprocessing."):
                table[cls] = _tensor if getattr(reducer, "__name__", "") == "reduce_tensor" else _nothing
    return table


def _own(reducer: object) -> bool:
    return _module_of(reducer).partition(".")[0] in ("multiprocessing", "multiprocess", "billiard")


def _module_of(reducer: object) -> str:
    module = getattr(reducer, "__module__", None)
    return module if isinstance(module, str) else ""


def _nothing(_obj: object) -> tuple[object, ...]:
    return object, ()


def _descriptor(obj: Any) -> tuple[Any, ...]:
    StandIn.duplicate_for_child(obj.fileno())  # a closed connection raises, a closed socket says -1
    return object, ()


def _arena(obj: Any) -> tuple[Any, ...]:
    if obj.fd == -1:
        raise ValueError("Arena is unpicklable because forking was enabled when it was created")
    return object, ()


def _array(obj: Any) -> tuple[object, ...]:
    return type(obj), (obj.typecode,)


def _ndarray(obj: Any) -> object:
    """Let an array reduce itself, unless that would copy its numbers."""
    if obj.dtype.hasobject or obj.flags.c_contiguous or obj.flags.f_contiguous:
        return obj.__reduce_ex__(PROTOCOL)
    return object, ()


FORK_LOCK = (
    "A SemLock created in a fork context is being shared with a process in a spawn context. This is not supported. "
    "Please use the same context to create multiprocessing objects and Process."
)


def _lock(obj: object) -> object:
    """Refuse what 3.10 accepts, though the child crashes on it. Otherwise a lock is a few numbers and a name."""
    if cpython.spawning_popen() is None:
        return obj.__reduce_ex__(PROTOCOL)  # which refuses: it is not being inherited
    if cpython.made_by_fork(obj):
        raise RuntimeError(FORK_LOCK)
    return object, ()


def _allowed_lock(obj: object) -> object:
    return obj.__reduce_ex__(PROTOCOL) if cpython.spawning_popen() is None else (object, ())


def _tensor(obj: Any) -> tuple[Any, ...]:
    """Refuse what torch refuses, without moving the tensor."""
    if obj.requires_grad and not obj.is_leaf:
        raise RuntimeError(
            "Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd does not support "
            "crossing process boundaries.  If you just want to transfer the data, call detach() on the tensor before "
            "serializing (e.g., putting it on the queue)."
        )
    return object, ()
