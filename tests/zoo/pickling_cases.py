"""Payloads for child processes, and the known answer for each: whether it pickles, and if not, why.

A case is a function that returns a `Given`; ``#! name`` marks the line that a diagnosis of case `name` points at.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import ctypes
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import itertools
import logging
import mmap
import multiprocessing.pool
import operator
import os
import pathlib
import queue
import random
import re
import sched
import socket
import socketserver
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import types
import typing
import unittest
import uuid
import weakref
import zipfile
from collections.abc import Callable
from typing import Any
from unittest import mock

FILE = os.path.abspath(__file__)


def work(*args: Any, **kwargs: Any) -> str:
    return "done"


@dataclasses.dataclass
class Given:
    """What a test passes to a process or pool."""

    target: Any = work
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    close: Callable[[], object] | None = None
    task: bool = False
    """Whether it is a pool's task rather than a process's arguments."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A case and its expected findings."""

    name: str
    make: Callable[[], Given]
    codes: tuple[str, ...]
    """Expected codes and paths; empty if it pickles."""
    paths: tuple[str, ...]
    says: str
    """A pattern that the text matches."""
    fix: str
    """A pattern that the first fix matches."""
    needs: str

    @property
    def lines(self) -> tuple[int, ...]:
        return MARKS.get(self.name, ())


CASES: dict[str, Case] = {}


def fine(make: Callable[[], Given]) -> Callable[[], Given]:
    """Add a case that pickles."""
    CASES[make.__name__] = Case(make.__name__, make, (), (), "", "", "")
    return make


def bad(code: str, *paths: str, says: str = "", fix: str = "", needs: str = "") -> Callable[..., Callable[[], Given]]:
    """Add a case that does not pickle: the code and the path of each finding, in order."""

    def register(make: Callable[[], Given]) -> Callable[[], Given]:
        codes = tuple(code.split())
        CASES[make.__name__] = Case(make.__name__, make, codes, paths, says, fix, needs)
        return make

    return register


# -- functions -------------------------------------------------------------------------------------------------------


@bad("SM101", "target", says="lambda", fix="module level")
def lambda_that_reads_a_global() -> Given:
    return Given(lambda: LIMIT)  #! lambda_that_reads_a_global


LIMIT = 3


@bad("SM101", "target", says="defined inside `function_in_method`|defined inside `Maker.build`", fix="module level")
def function_in_method() -> Given:
    return Given(Maker().build())


class Maker:
    def build(self) -> Any:
        def inner() -> int:  #! function_in_method
            return 1

        return inner


@bad("SM101", "target", says=r"step = 2 \(pickles\)", fix="pass `step` as an argument")
def closure_over_a_number() -> Given:
    step = 2

    def add(n: int) -> int:  #! closure_over_a_number
        return n + step

    return Given(add, (1,))


@bad("SM101", "target", says=r"stream = <_io.TextIOWrapper object> \(does not pickle\)", fix="re-open the file")
def closure_over_a_file() -> Given:
    stream = open(FILE)  # noqa: SIM115

    def read() -> str:  #! closure_over_a_file
        return stream.read()

    return Given(read, close=stream.close)


@bad("SM101", "target", says=r"does not pickle: its lock is a lock", fix="`holder` does not pickle either")
def closure_over_a_holder_of_a_lock() -> Given:
    holder = Box(lock=threading.Lock())

    def use() -> object:  #! closure_over_a_holder_of_a_lock
        return holder

    return Given(use)


@bad("SM101", "target", says=r"retry = \(the function itself\)", fix="module level")
def closure_over_itself() -> Given:
    def retry(n: int) -> int:  #! closure_over_itself
        return retry(n - 1) if n else 0

    return Given(retry, (1,))


@bad("SM101", "target", says="not set yet")
def closure_over_a_deleted_name() -> Given:
    gone = 1

    def read() -> int:  #! closure_over_a_deleted_name
        return gone  # noqa: F821

    del gone
    return Given(read)


@bad("SM101", "target.func", fix="module level")
def partial_of_a_local_function() -> Given:
    def scale(factor: int, n: int) -> int:  #! partial_of_a_local_function
        return factor * n

    return Given(functools.partial(scale, 2))


@bad("SM101", "target.args[1]")
def partial_with_a_lambda() -> Given:
    return Given(functools.partial(work, 1, lambda x: x))  #! partial_with_a_lambda


class MyPartial(functools.partial):  # type: ignore[type-arg]
    pass


@bad("SM101", "target.func")
def subclass_of_partial() -> Given:
    return Given(MyPartial(lambda: 1))  #! subclass_of_partial


@bad("SM101", "target", fix=r"functools.wraps\(function\)")
def decorator_without_wraps() -> Given:
    return Given(timed_work)


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    def timer(*args: Any) -> Any:  #! decorator_without_wraps
        return function(*args)

    return timer


@timed
def timed_work() -> None:
    """Do nothing."""


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def logger(*args: Any) -> Any:
        return function(*args)

    return logger


@logged
def logged_work() -> None:  #! wrapped_original
    """Do nothing."""


@fine
def decorated_with_wraps() -> Given:
    return Given(logged_work)


@bad("SM104", "target", says="decorated at", fix="logged_work")
def wrapped_original() -> Given:
    return Given(logged_work.__wrapped__)  # type: ignore[attr-defined]


@bad("SM104", "target", says="leads to another object", fix="redefined")
def redefined_function() -> Given:
    return Given(_first)


def redefined() -> int:  #! redefined_function
    return 1


_first = redefined


def redefined() -> int:  # type: ignore[no-redef]
    return 2


@bad("SM101", "target", says="decorated at", fix="`cached`")
def local_lru_cache() -> Given:
    @functools.lru_cache  #! local_lru_cache
    def cached() -> int:  #! local_lru_cache
        return 1

    return Given(cached)


@functools.lru_cache
def module_cache() -> int:
    return 1


@fine
def lru_cache_at_module_level() -> Given:
    return Given(module_cache)


@bad("SM101", "target", says="made at run time")
def function_made_by_exec() -> Given:
    space: dict[str, Any] = {"__name__": __name__}
    exec("def outer():\n    def inner(): pass\n    return inner", space)
    return Given(space["outer"]())


@bad("SM104", "target", says="there is no such name")
def function_with_an_invented_name() -> Given:
    def helper() -> None:  #! function_with_an_invented_name
        """Do nothing."""

    helper.__qualname__ = helper.__name__ = "no_such_helper"
    return Given(helper)


@fine
def method_of_a_plain_object() -> Given:
    return Given(Box(a=1).describe)


@fine
def builtin_functions() -> Given:
    return Given(max, (len, "".join, [].append, dict.fromkeys, str.upper))


@fine
def class_and_static_methods() -> Given:
    return Given(Box.make, (Box.plain,))


@bad("SM101", "kwargs['on_done']")
def lambda_in_keyword_arguments() -> Given:
    return Given(kwargs={"on_done": lambda: None})  #! lambda_in_keyword_arguments


@bad("SM103", "args[0]", says="coroutine", fix="asyncio.run")
def running_coroutine() -> Given:
    made = asyncio.sleep(0)
    return Given(args=(made,), close=made.close)


async def agenerate() -> Any:
    yield 1


@bad("SM103", "args[0]", fix="generator function")
def async_generator() -> Given:
    return Given(args=(agenerate(),))


def count_up() -> Any:  #! generator_of_a_function
    yield 1


@bad("SM103", "args[0]", says="a generator", fix=r"list\(")
def generator_of_a_function() -> Given:
    return Given(args=(count_up(),))


@bad("SM103", "args[0]['self']", says="frame", fix="traceback.format_stack")
def stack_frame() -> Given:
    return Given(args=({"self": sys._getframe()},))


@bad("SM103", "args[0].tb", says="traceback", fix="format_exception")
def traceback_in_an_attribute() -> Given:
    try:
        raise ValueError("x")
    except ValueError as error:
        return Given(args=(Box(tb=error.__traceback__),))  #! traceback_in_an_attribute


@bad("SM103", "args[0]", says="a code object")
def code_object() -> Given:
    return Given(args=(work.__code__,))


@bad("SM103", "args[0]", fix="value")
def closure_cell() -> Given:
    return Given(args=(types.CellType(1),))


@bad("SM103", "args[0]", fix="reached through its class")
def static_method_object() -> Given:
    return Given(args=(Box.__dict__["plain"],))


@bad("SM103", "args[0]", says="a property")
def property_object() -> Given:
    return Given(args=(property(),))


# -- objects that hold something -------------------------------------------------------------------------------------


class Box:
    """Holds its arguments."""

    def __init__(self, **held: Any) -> None:
        for name, value in held.items():
            setattr(self, name, value)

    def describe(self) -> str:
        return "box"

    @classmethod
    def make(cls, *_: Any) -> Box:
        return cls()

    @staticmethod
    def plain(*_: Any) -> None:
        return None


class Store:
    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.Lock()  #! lock_set_in_init

    def get(self) -> str:
        return self.path


@bad("SM103", "target.__self__.lock", says=r"`Store.lock` is a lock \(_thread.lock\)", fix="__getstate__")
def lock_set_in_init() -> Given:
    return Given(Store("x").get)


@bad("SM103", "args[0].lock", says="r.lock = threading.RLock")
def lock_set_from_outside() -> Given:
    r = Record()
    r.lock = threading.RLock()  # type: ignore[attr-defined]  #! lock_set_from_outside
    return Given(args=(r,))


class Record:
    pass


@bad("SM103", "args[0].lock", says="setattr")
def lock_set_by_setattr() -> Given:
    r = Record()
    setattr(r, "lock", threading.RLock())  # noqa: B010  #! lock_set_by_setattr
    r.also = 1  # type: ignore[attr-defined]
    return Given(args=(r,))


@dataclasses.dataclass
class Job:
    name: str
    guard: Any = dataclasses.field(default_factory=threading.Lock)  #! dataclass_field


@bad("SM103", "args[0].guard", says="default_factory=threading.Lock")
def dataclass_field() -> Given:
    return Given(args=(Job("a"),))


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str
    stream: Any


@bad("SM103", "args[0].stream", fix="re-open")
def dataclass_made_with_a_keyword() -> Given:
    stream = open(FILE)  # noqa: SIM115
    frozen = Frozen(name="a", stream=stream)  #! dataclass_made_with_a_keyword
    return Given(args=(frozen,), close=stream.close)


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("guard", "name")
    name: str
    guard: Any


@bad("SM103", "args[0].guard")
def frozen_slots() -> Given:
    made = Slotted.__new__(Slotted)
    object.__setattr__(made, "name", "a")
    object.__setattr__(made, "guard", threading.Lock())  #! frozen_slots
    return Given(args=(made,))


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedByItself:
    name: str
    guard: Any  #! slots_of_a_frozen_dataclass


@bad("SM103", "args[0].guard")
def slots_of_a_frozen_dataclass() -> Given:
    return Given(args=(SlottedByItself("a", threading.Lock()),))


class Base:
    __slots__ = ("base_lock",)

    def __init__(self) -> None:
        self.base_lock = threading.Lock()  #! slot_of_a_base_class


class Derived(Base):
    __slots__ = ("name",)


@bad("SM103", "args[0].base_lock", says="Derived.base_lock")
def slot_of_a_base_class() -> Given:
    return Given(args=(Derived(),))


class Stateful:
    def __init__(self) -> None:
        self.inner = {"hook": threading.Lock()}  #! custom_state

    def __getstate__(self) -> Any:
        return {"inner": self.inner, "version": 1}


@bad("SM103", "args[0].inner['hook']")
def custom_state() -> Given:
    return Given(args=(Stateful(),))


class Reducing:
    def __init__(self, callback: Any) -> None:
        self.callback = callback

    def __reduce__(self) -> Any:
        return Reducing, (self.callback,)


@bad("SM101", "args[0].callback")
def argument_of_a_reduction() -> Given:
    return Given(args=(Reducing(lambda: 1),))  #! argument_of_a_reduction


class WithoutLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __getstate__(self) -> Any:
        return {}

    def __setstate__(self, state: Any) -> None:
        self.lock = threading.Lock()


@fine
def lock_left_out_of_the_state() -> Given:
    return Given(args=(WithoutLock(),))


def _resource(name: str, make: Callable[[], Any], fix: str, says: str = "", needs: str = "") -> None:
    def case() -> Given:
        thing = make()
        holder = getattr(thing, "connection", thing)
        # Ask the class: on a C library's instance, `close` is the library's own function.
        return Given(Owner(thing).run, close=holder.close if hasattr(type(holder), "close") else None)

    case.__name__ = name
    bad("SM103", "target.__self__.resource", says=says or "Owner.resource", fix=fix, needs=needs)(case)


class Owner:
    def __init__(self, resource: Any) -> None:
        self.resource = resource  #! owner

    def run(self) -> str:
        return "run"


def _context_manager() -> Any:
    @contextlib.contextmanager
    def manager() -> Any:
        yield

    return manager()


_resource("a_thread", lambda: threading.Thread(target=work), "in the child", "a thread")
_resource("a_timer", lambda: threading.Timer(1, work), "in the child", "a thread")
_resource("a_threading_event", threading.Event, "multiprocessing's Event", r"its _cond\._lock is a lock")
_resource("a_condition", threading.Condition, "multiprocessing's Condition")
_resource("a_semaphore", threading.Semaphore, "multiprocessing's Semaphore")
_resource("a_thread_local", threading.local, "module level|in the child")
_resource("a_thread_queue", queue.Queue, "multiprocessing's Queue")
_resource("a_simple_queue", queue.SimpleQueue, "multiprocessing's SimpleQueue")
_resource("a_database", lambda: sqlite3.connect(":memory:"), "connect again in the child")
_resource("a_cursor", lambda: sqlite3.connect(":memory:").cursor(), "connect again in the child")
_resource("a_binary_file", lambda: open(FILE, "rb"), "re-open")  # noqa: SIM115
_resource("a_raw_file", lambda: open(FILE, "rb", buffering=0), "re-open")  # noqa: SIM115
_resource("a_temporary_file", tempfile.NamedTemporaryFile, "re-open", "an open file")
_resource("a_zip_file", lambda: zipfile.ZipFile(io.BytesIO(), "w"), "re-open the archive")
_resource("a_memory_map", lambda: mmap.mmap(-1, 4096), "shared_memory")
_resource("a_weak_reference", lambda: weakref.ref(work), "pass the object itself")
_resource("a_weak_dictionary", weakref.WeakValueDictionary, r"pass dict\(")
_resource("a_module", lambda: re, "import the module in the child")
_resource("a_pointer", lambda: ctypes.pointer(ctypes.c_int(1)), "re-create the pointer")
_resource("a_library", lambda: ctypes.CDLL(None), "load it in the child")
_resource("an_event_loop", asyncio.new_event_loop, "asyncio.run", "an event loop")
_resource("a_context_variable", lambda: VARIABLE, "set the variable in the child")
_resource("a_context", contextvars.copy_context, "set the variables in the child")
_resource("a_logging_handler", logging.StreamHandler, "QueueHandler", "a logging handler")
_resource("a_thread_pool", lambda: concurrent.futures.ThreadPoolExecutor(1), "in the child", "an executor")
_resource("a_future", concurrent.futures.Future, "result")
_resource("a_tls_context", ssl.create_default_context, "create the context in the child")
_resource("a_mock", mock.Mock, "fake or stub")
_resource("a_magic_mock", mock.MagicMock, "fake or stub")
_resource("a_mock_with_a_spec", lambda: mock.Mock(spec=dict), "fake or stub")
_resource("an_async_mock", mock.AsyncMock, "fake or stub")
if sys.version_info < (3, 14):  # where it pickles
    _resource("an_argument_parser", argparse.ArgumentParser, "Namespace", "an argument parser")
_resource("a_match", lambda: re.match("a", "a"), r"match\.group")
_resource("a_mapping_proxy", lambda: types.MappingProxyType({}), r"dict\(")
_resource("a_memory_view", lambda: memoryview(b"x"), "bytes")
_resource("a_context_manager", _context_manager, "in the child", "a context manager")
_resource("a_system_random", random.SystemRandom, "in the child")
_resource("a_directory_entry", lambda: next(os.scandir(".")), "pass its path")
_resource("a_hash", lambda: __import__("hashlib").sha256(), "digest")


class _Kept:
    pass


KEPT = _Kept()
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=0)


class Client:
    """A typical user class around a server."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  #! running_subprocess

    def call(self) -> None:
        return None

    def stop(self) -> None:
        self.process.communicate(b"\n")


@bad("SM103", "target.__self__.process", says="a running subprocess", fix="pid")
def running_subprocess() -> Given:
    client = Client()
    return Given(client.call, close=client.stop)


@bad("SM103", "args[0]", says="a server", fix="address")
def tcp_server() -> Given:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)
    server.guard = threading.Lock()  # type: ignore[attr-defined]
    return Given(args=(server,), close=server.server_close)


class Sampler(threading.Thread):
    def sample(self) -> int:
        return 1


@bad("SM103", "target.__self__", says="a thread", fix="start the thread in the child")
def method_of_a_thread() -> Given:
    return Given(Sampler().sample)


# -- containers ------------------------------------------------------------------------------------------------------


@bad("SM103", "args[0][2][1]")
def nested_lists() -> Given:
    return Given(args=([0, 1, [2, threading.Lock()]],))


@bad("SM103", "args[0]{element}")
def member_of_a_set() -> Given:
    return Given(args=({threading.Lock()},))


@bad("SM103", "args[0]{element}")
def member_of_a_frozenset_subclass() -> Given:
    return Given(args=(Tags([threading.Lock()]),))


class Tags(frozenset):  # type: ignore[type-arg]
    pass


@bad("SM103", "args[0]{key 1}")
def key_of_a_dictionary() -> Given:
    return Given(args=({"a": 1, threading.Lock(): 2},))


@bad("SM103", "args[0]{value 0}")
def value_under_a_tuple() -> Given:
    return Given(args=({(1, 2): threading.Lock()},))


@bad("SM103", "args[0]['a']")
def ordered_dictionary() -> Given:
    return Given(args=(collections.OrderedDict(a=threading.Lock()),))


@bad("SM103", "args[0]['a']")
def counter_values() -> Given:
    return Given(args=(collections.Counter({"a": threading.Lock()}),))  # type: ignore[dict-item]


@bad("SM101", "args[0].default_factory", fix="module level")
def nested_default_dictionaries() -> Given:
    return Given(args=(collections.defaultdict(lambda: collections.defaultdict(list)),))  #! nested_default_dictionaries


@bad("SM103", "args[0][0]")
def deque_item() -> Given:
    return Given(args=(collections.deque([threading.Lock()]),))


@bad("SM103", "args[0].maps[0]['a']")
def chain_map() -> Given:
    return Given(args=(collections.ChainMap({"a": threading.Lock()}),))


@bad("SM103", "args[0].lock")
def simple_namespace() -> Given:
    return Given(args=(types.SimpleNamespace(lock=threading.Lock()),))


class Pair(typing.NamedTuple):
    left: Any
    right: Any


@bad("SM103", "args[0].right")
def field_of_a_named_tuple() -> Given:
    return Given(args=(Pair(1, threading.Lock()),))


@bad("SM103", "args[0].args[1]")
def argument_of_an_exception() -> Given:
    return Given(args=(ValueError("x", threading.Lock()),))


@bad("SM103", "args[0].request")
def attribute_of_an_exception() -> Given:
    error = ValueError("x")
    error.request = threading.Lock()  # type: ignore[attr-defined]  #! attribute_of_an_exception
    return Given(args=(error,))


class Registry(dict):  # type: ignore[type-arg]
    pass


@bad("SM103 SM103", "args[0]['a']", "args[0].guard")
def subclass_of_dict() -> Given:
    registry = Registry(a=threading.Lock())
    registry.guard = threading.Lock()  # type: ignore[attr-defined]  #! subclass_of_dict
    return Given(args=(registry,))


@bad("SM103", "args[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]")
def the_same_list_twice_twenty_times() -> Given:
    made: Any = threading.Lock()
    for _ in range(20):
        made = [made, made]
    return Given(args=(made,))


@bad("SM103", "args[0].lock")
def object_in_a_circle() -> Given:
    box = Box()
    box.me = box  # type: ignore[attr-defined]
    box.lock = threading.Lock()  # type: ignore[attr-defined]  #! object_in_a_circle
    return Given(args=(box,))


@bad("SM103", "args[0]")
def itertools_of_a_generator() -> Given:
    return Given(args=((n for n in "ab"),))


@bad("SM101 SM103 SM101", "target", "args[0].lock", "args[1][0]")
def several_at_once() -> Given:
    def inner() -> None:  #! several_at_once
        """Do nothing."""

    r = Record()
    r.lock = threading.Lock()  # type: ignore[attr-defined]  #! several_at_once
    return Given(inner, (r, [lambda: 1]))  #! several_at_once


@bad("SM107", "args[0].rest.rest...", says="nest", fix="flatten")
def linked_list() -> Given:
    head = None
    for _ in range(60_000):
        head = Box(rest=head)

    def unlink() -> None:
        nonlocal head
        while head is not None:
            head.rest, head = None, head.rest  # type: ignore[attr-defined]

    return Given(args=(head,), close=unlink)


# -- classes ---------------------------------------------------------------------------------------------------------


@bad("SM102", "args[0].__class__", fix="move the class `Local`")
def instance_of_a_local_class() -> Given:
    class Local:  #! instance_of_a_local_class
        pass

    return Given(args=(Local(),))


@bad("SM102", "target", says="this object's class|this class")
def local_class_itself() -> Given:
    class Local:  #! local_class_itself
        pass

    return Given(Local)


@bad("SM102", "target.__self__.__class__")
def method_of_a_local_class() -> Given:
    class Local:  #! method_of_a_local_class
        def run(self) -> int:
            return 1

    return Given(Local().run)


@bad("SM102", "args[0].__class__", says=r"guard = <_thread.lock object> \(does not pickle\)")
def local_class_that_closes_over_a_lock() -> Given:
    guard = threading.Lock()

    class Guarded:  #! local_class_that_closes_over_a_lock
        def use(self) -> Any:
            return guard

    return Given(args=(Guarded(),))


@bad("SM102", "args[0].__class__", says="decorated at")
def local_dataclass() -> Given:
    @dataclasses.dataclass  #! local_dataclass
    class Point:  #! local_dataclass
        x: int

    return Given(args=(Point(1),))


@bad("SM102", "args[0].__class__")
def local_enum() -> Given:
    class Color(enum.Enum):  #! local_enum
        RED = 1

    return Given(args=(Color.RED,))


@bad("SM102", "args[0].__class__")
def local_exception() -> Given:
    class Failure(Exception):  # noqa: N818  #! local_exception
        pass

    return Given(args=(Failure("x"),))


@bad("SM102", "args[0].__class__", says="made at run time", fix="module level")
def local_named_tuple() -> Given:
    Point = collections.namedtuple("Point", "x y")  #! local_named_tuple
    return Given(args=(Point(1, 2),))


Misnamed = collections.namedtuple("Wrong", "x")  # type: ignore[name-match]  #! misnamed_type


@bad("SM104", "args[0].__class__", says="Wrong", fix="'Misnamed'")
def misnamed_type() -> Given:
    return Given(args=(Misnamed(1),))


class Replaced:  #! replaced_class
    pass


_old = Replaced()


class Replaced:  # type: ignore[no-redef]  #! replaced_class
    pass


@bad("SM104", "args[0].__class__", says="took its place", fix="replaced")
def replaced_class() -> Given:
    return Given(args=(_old,))


@bad("SM102", "args[0].__class__")
def local_class_with_a_metaclass() -> Given:
    class Meta(type):
        pass

    class Local(metaclass=Meta):  #! local_class_with_a_metaclass
        pass

    return Given(args=(Local(),))


@fine
def classes_and_generics() -> Given:
    return Given(args=(list[int], dict[str, int], int | None, typing.Any, Box, type, types.GenericAlias))


# -- objects with their own pickling code ----------------------------------------------------------------------------


class Raises:
    def __reduce__(self) -> Any:  #! reduce_that_raises
        raise ValueError("not today")


@bad("SM105", "args[0]['x']", says="`Raises.__reduce__` raised ValueError: not today", fix="Raises.__reduce__")
def reduce_that_raises() -> Given:
    return Given(args=({"x": Raises()},))


class Refuses:
    def __getstate__(self) -> Any:  #! getstate_that_refuses
        raise TypeError("connections cannot be pickled")


@bad("SM105", "args[0]", says="cannot be pickled", fix="refuses")
def getstate_that_refuses() -> Given:
    return Given(args=(Refuses(),))


class ReadsMissing:
    def __getstate__(self) -> Any:  #! getstate_that_reads_what_is_missing
        return self.__helper()

    def __helper(self) -> Any:
        return self.never_set  # type: ignore[attr-defined]


@bad("SM105", "args[0]", says="never_set", fix="__getstate__` reads `never_set`")
def getstate_that_reads_what_is_missing() -> Given:
    return Given(args=(ReadsMissing(),))


class ReturnsNothing:
    def __reduce__(self) -> Any:  #! reduce_that_returns_none
        return None


@bad("SM105", "args[0]", fix="two to six elements")
def reduce_that_returns_none() -> Given:
    return Given(args=(ReturnsNothing(),))


class ReturnsTooMuch:
    def __reduce_ex__(self, protocol: Any) -> Any:  #! reduce_that_returns_seven
        return (1, 2, 3, 4, 5, 6, 7)


@bad("SM105", "args[0]", fix="two to six elements")
def reduce_that_returns_seven() -> Given:
    return Given(args=(ReturnsTooMuch(),))


class Circular:
    def __reduce__(self) -> Any:  #! reduce_that_returns_the_object_itself
        return Circular, (self,)


@bad("SM107", "args[0][0]", says="arguments with the object itself", fix="the state, the third element")
def reduce_that_returns_the_object_itself() -> Given:
    return Given(args=([Circular()],))


class NewargsInAList:
    def __getnewargs__(self) -> Any:  #! newargs_that_are_no_tuple
        return [1]


@bad("SM105", "args[0]", says="should return a tuple", fix="a tuple of its arguments")
def newargs_that_are_no_tuple() -> Given:
    return Given(args=(NewargsInAList(),))


@bad("SM102", "args[0].__class__", says="`MadeByACall`", fix="module level")
def dataclass_made_by_a_call() -> Given:
    made = dataclasses.make_dataclass("MadeByACall", [("x", int)])  #! dataclass_made_by_a_call
    return Given(args=(made(1),))


TypeOtherwise = typing.NewType("NamedOtherwise", int)  #! new_type_with_a_wrong_name


@bad("SM104", "args[0]", says="bound to pickling_cases.TypeOtherwise", fix="give it the same name")
def new_type_with_a_wrong_name() -> Given:
    return Given(args=(TypeOtherwise,))


@bad("SM103", "args[0]['asked']", says="a pool's result", fix=r"what its get\(\) returns")
def result_of_a_pool() -> Given:
    pool = multiprocessing.pool.ThreadPool(1)
    asked = pool.apply_async(work)
    return Given(args=({"asked": asked},), close=pool.terminate)  #! result_of_a_pool


@bad("SM103", "args[0]", says="its _event._cond._lock is a lock", fix="re-create the scheduler")
def event_that_a_library_made_for_itself() -> Given:
    keeper = sched.scheduler()
    keeper._event = threading.Event()  # type: ignore[attr-defined]
    return Given(args=(keeper,))


@bad("SM103", "args[0]", says="a ufunc made at run time", fix="of a function at module level", needs="numpy")
def ufunc_made_of_a_lambda() -> Given:
    import numpy as np

    return Given(args=(np.frompyfunc(lambda x: x, 1, 1),))


class Kept:
    """Replaces the function that it runs, like a task queue's tasks."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self) -> Any:
        return self.function()


@Kept
def kept() -> int:  #! wrapper_object_under_the_name_of_its_function
    return 1


@bad(
    "SM104",
    "target.function",
    fix=r"`kept` is itself what holds .* give `Kept` a __reduce__ that returns its name, 'kept'",
)
def wrapper_object_under_the_name_of_its_function() -> Given:
    return Given(target=kept)


class Operation(enum.Enum):
    ADD = ("+", lambda a, b: a + b)  #! value_of_an_enum_member


@bad("SM101", "args[0].value[1]")
def value_of_an_enum_member() -> Given:
    return Given(args=(Operation.ADD,))


def _generated(registry: dict[str, type]) -> Any:
    registry["Generated"] = type("Generated", (object,), {})  #! class_made_by_a_call
    return registry["Generated"]()


@bad("SM102", "args[0].__class__")
def class_made_by_a_call() -> Given:
    return Given(args=(_generated({}),))


Item = typing.TypeVar("Item")


class Typed(typing.Generic[Item]):
    pass


@bad("SM102", "args[0].__orig_class__.__args__[0]")
def argument_of_a_generic_class() -> Given:
    class Inner:  #! argument_of_a_generic_class
        pass

    return Given(args=(Typed[Inner](),))


class ReturnsName:
    def __reduce__(self) -> str:  #! reduce_to_a_name_that_is_not_there
        return "no_such_singleton"


@bad("SM104", "args[0]", says="its name is `pickling_cases.no_such_singleton`")
def reduce_to_a_name_that_is_not_there() -> Given:
    return Given(args=(ReturnsName(),))


class Singleton:
    def __reduce__(self) -> str:
        return "SINGLETON"


SINGLETON = Singleton()


@fine
def reduce_to_a_name() -> Given:
    return Given(args=(SINGLETON,))


class Delegates:
    def __init__(self) -> None:
        self.inner = {"a": 1}

    def __getattribute__(self, name: str) -> Any:  #! greedy_getattribute
        if name.startswith("__reduce"):
            raise LookupError(name)
        return object.__getattribute__(self, name)


@bad("SM105", "args[0]", says="LookupError", fix="AttributeError for names that start with two underscores")
def greedy_getattribute() -> Given:
    return Given(args=(Delegates(),))


# -- multiprocessing's objects ---------------------------------------------------------------------------------------

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else SPAWN


@fine
def locks_and_values() -> Given:
    return Given(args=(SPAWN.Lock(), SPAWN.RLock(), SPAWN.Event(), SPAWN.Value("i", 1), SPAWN.Barrier(2)))


@fine
def queues() -> Given:
    made = SPAWN.Queue(), SPAWN.SimpleQueue(), SPAWN.JoinableQueue()
    return Given(args=made, close=lambda: [each.close() for each in made])


@fine
def pipe_ends() -> Given:
    ends = SPAWN.Pipe()
    return Given(args=ends, close=lambda: [each.close() for each in ends])


@fine
def a_socket() -> Given:
    made = socket.socket()
    return Given(args=(made,), close=made.close)


@fine
def pipe_end_in_a_task() -> Given:
    ends = SPAWN.Pipe()
    return Given(args=ends, close=lambda: [each.close() for each in ends], task=True)


@bad("SM106", "args[0]", says="a multiprocessing lock", fix="get_context")
def lock_of_a_fork_context() -> Given:
    return Given(args=(FORK.Lock(),))


@bad("SM106", "args[0]['q']", says="a multiprocessing Queue", fix="same context")
def queue_of_a_fork_context() -> Given:
    made = FORK.Queue()
    return Given(args=({"q": made},), close=made.close)


@bad("SM106", "args[0]", says="a multiprocessing Event")
def event_of_a_fork_context() -> Given:
    return Given(args=(FORK.Event(),))


@bad("SM106", "args[0]", says="a multiprocessing Value", fix="Value")
def value_of_a_fork_context() -> Given:
    return Given(args=(FORK.Value("i", 1),))


@bad("SM106", "args[0]", fix="initializer|inherit")
def lock_in_a_task() -> Given:
    return Given(args=(SPAWN.Lock(),), task=True)


@bad("SM106", "args[0]", fix="Manager")
def queue_in_a_task() -> Given:
    made = SPAWN.Queue()
    return Given(args=(made,), task=True, close=made.close)


@bad("SM106", "args[0]", fix="initializer|inherit")
def value_in_a_task() -> Given:
    return Given(args=(SPAWN.Value("i", 0),), task=True)


@bad("SM103", "args[0]", says="a connection", fix="before it is closed")
def closed_pipe_end() -> Given:
    ends = SPAWN.Pipe()
    for each in ends:
        each.close()
    return Given(args=(ends[0],))


@bad("SM103", "target.__self__.pool", says="a pool", fix="pool")
def pool_in_an_attribute() -> Given:
    made = multiprocessing.pool.ThreadPool(1)
    box = PoolOwner(made)
    return Given(box.map, close=made.terminate)


class PoolOwner:
    def __init__(self, pool: Any) -> None:
        self.pool = pool  #! pool_in_an_attribute

    def map(self) -> None:
        return None


# -- payloads that pickle --------------------------------------------------------------------------------------------


@fine
def plain_values() -> Given:
    return Given(args=(1, 1.5, 1j, "a", b"b", bytearray(b"c"), None, True, ..., NotImplemented, range(3), slice(1, 2)))


@fine
def values_of_the_standard_library() -> Given:
    when = datetime.datetime.now(datetime.timezone.utc)
    return Given(
        args=(when, decimal.Decimal("1.5"), uuid.uuid4(), pathlib.Path("/tmp"), re.compile("a"), random.Random(1)),
        kwargs={"a": array.array("i", [1]), "b": collections.Counter("aab"), "c": io.BytesIO(b"x"), "d": io.StringIO()},
    )


@fine
def operators_and_partials() -> Given:
    return Given(functools.partial(work, 1, key=operator.itemgetter(0)), (operator.attrgetter("a"), itertools.repeat))


@fine
def a_logger() -> Given:
    return Given(args=(logging.getLogger("cases"),))


@fine
def exceptions_and_groups() -> Given:
    return Given(args=(ValueError("x"), OSError(2, "no"), KeyError("k")))


@fine
def a_proxy_pickles_as_what_it_stands_for() -> Given:
    return Given(args=(weakref.proxy(KEPT),))


@fine
def a_circle() -> Given:
    made: list[Any] = []
    made.append(made)
    return Given(args=(made, {"me": made}))


@fine
def an_unused_testcase() -> Given:
    return Given(args=(SomeTest("test_it"),))


class SomeTest(unittest.TestCase):
    def test_it(self) -> None:
        """Pass."""


# -- other packages --------------------------------------------------------------------------------------------------


@bad("SM103", "args[0][1]", needs="numpy")
def item_of_an_object_array() -> Given:
    import numpy

    return Given(args=(numpy.array([1, threading.Lock()], dtype=object),))


@bad("SM103", "args[0][1, 0]", needs="numpy")
def item_of_a_two_dimensional_array() -> Given:
    import numpy

    made = numpy.empty((2, 2), dtype=object)
    made[1, 0] = threading.Lock()
    return Given(args=(made,))


@bad("SM101", "args[0].attrs['fmt']", needs="pandas")
def attribute_of_a_data_frame() -> Given:
    import pandas

    frame = pandas.DataFrame({"a": [1]})
    frame.attrs["fmt"] = lambda v: v  #! attribute_of_a_data_frame
    return Given(args=(frame,))


@bad("SM101", "args[0]['f'][1]", needs="pandas")
def object_in_a_column() -> Given:
    import pandas

    return Given(args=(pandas.DataFrame({"a": [1, 2], "f": [None, lambda: 0]}),))  #! object_in_a_column


@bad("SM101", "args[0][0]", needs="pandas")
def object_in_a_series() -> Given:
    import pandas

    return Given(args=(pandas.Series([lambda: 0]),))  #! object_in_a_series


@bad("SM103", "args[0]", says="an application object", fix="app factory", needs="flask")
def application() -> Given:
    import flask

    return Given(args=(flask.Flask("cases"),))


def _marks() -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for number, line in enumerate(pathlib.Path(FILE).read_text().splitlines(), 1):
        for name in re.findall(r"#! (\w+)", line):
            found.setdefault(name, []).append(number)
    return {name: tuple(lines) for name, lines in found.items()}


MARKS = _marks()
for _case in list(CASES):
    if CASES[_case].paths == ("target.__self__.resource",):
        MARKS[_case] = MARKS["owner"]
