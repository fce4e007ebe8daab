"""Classify objects, and pick the object on the path to a leaf that the user can do something about.

A traceback of pickling names the leaf: ``_thread.lock``. The user knows a thread, a client, an application. Kinds are
recognised by the names in a type's MRO and by what the type defines, never by running the object's own code.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..child.values import class_name, instance_namespace, mro, public_name
from ..model.walk import Step
from .callers import owner
from .places import code_of, module_file


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that cannot be sent to another process."""

    noun: str
    """With its article: ``a lock``."""
    instead: str
    """What to do instead, in the imperative."""
    resource: bool = True
    """Whether a finding names it rather than an object inside it."""


_LOCK = Kind("a lock", "create the lock in the child, or share one made by multiprocessing's own Lock", False)
_FILE = Kind("an open file", "pass the path and re-open the file in the child")
_REQUEST = Kind("a request object", "pass the plain values of the request that the child needs")
_LOOP = Kind("an event loop", "make the loop in the child, with asyncio.run")
_DATABASE = Kind("a database connection", "pass the address or path and connect again in the child")
_APP = Kind(
    "an application object",
    "build the application in the child: pass the module-level app factory (create_app) and its settings, not the app",
)
_SERVER = Kind("a server", "create the server in the child and pass it the address")
_EXECUTOR = Kind("an executor", "make the executor in the child, or submit the work from the parent")
MOCK = Kind(
    "a mock",
    "a mock cannot be handed to a child process: pass a fake or stub of your own, a class at module level, "
    "or make the mock in the child",
)
_ITERATOR = Kind("an iterator", "pass list(...) of it, or what it iterates over", False)
_WEAK = Kind("a weak reference", "pass the object itself, and re-create the reference in the child", False)
_CLIENT = Kind("a connection", "pass the address and connect again in the child")
_ASYNC = Kind(
    "an asyncio object, bound to its event loop", "re-create it in the child, inside the loop that runs there"
)

_OF_THREADS = {
    ("threading", "Event"): Kind("a threading.Event", "pass multiprocessing's Event, made by the child's context"),
    ("threading", "Condition"): Kind("a threading.Condition", "pass multiprocessing's Condition"),
    ("threading", "Semaphore"): Kind("a threading.Semaphore", "pass multiprocessing's Semaphore"),
    ("threading", "Barrier"): Kind("a threading.Barrier", "pass multiprocessing's Barrier"),
    ("queue", "Queue"): Kind("a queue of threads (queue.Queue)", "pass multiprocessing's Queue"),
    ("_queue", "SimpleQueue"): Kind("a queue of threads", "pass multiprocessing's SimpleQueue"),
}
"""Kinds that the user can replace, unless a library created the object for itself."""

_BY_NAME: dict[tuple[str, str], Kind] = {
    **_OF_THREADS,
    ("_thread", "lock"): _LOCK,
    ("_thread", "RLock"): _LOCK,
    ("threading", "_RLock"): _LOCK,
    ("_thread", "_local"): Kind(
        "a thread-local", "pass the value it holds, and make the thread-local at module level or in the child", False
    ),
    ("threading", "Thread"): Kind("a thread", "start the thread in the child, and pass what it works on"),
    ("_thread", "_ThreadHandle"): Kind("a thread's handle", "start the thread in the child", False),
    ("subprocess", "Popen"): Kind("a running subprocess", "start it in the child, or pass its pid or its output"),
    ("socketserver", "BaseServer"): _SERVER,
    ("asyncio.events", "AbstractServer"): _SERVER,
    ("asyncio.events", "AbstractEventLoop"): _LOOP,
    ("_asyncio", "Future"): Kind("a future of an event loop", "await it in the parent and pass its result"),
    ("asyncio.futures", "Future"): Kind("a future of an event loop", "await it in the parent and pass its result"),
    ("asyncio.queues", "Queue"): _ASYNC,
    ("asyncio.mixins", "_LoopBoundMixin"): _ASYNC,
    ("asyncio.streams", "StreamReader"): _ASYNC,
    ("asyncio.streams", "StreamWriter"): _ASYNC,
    ("asyncio.transports", "BaseTransport"): _ASYNC,
    ("concurrent.futures._base", "Executor"): _EXECUTOR,
    ("concurrent.futures._base", "Future"): Kind("a future", "pass its result() once it is there"),
    ("multiprocessing.pool", "Pool"): Kind(
        "a pool", "keep the pool in the parent and submit the work from there, or make a pool in the child"
    ),
    ("multiprocessing.pool", "ApplyResult"): Kind("a pool's result", "pass what its get() returns"),
    ("multiprocessing.managers", "BaseManager"): Kind("a manager", "pass the proxies that it made, not the manager"),
    ("multiprocessing.process", "BaseProcess"): Kind(
        "a process object", "pass its pid or name: only the parent can join or end it"
    ),
    ("multiprocessing.synchronize", "SemLock"): Kind("a multiprocessing lock", ""),
    ("multiprocessing.synchronize", "Condition"): Kind("a multiprocessing Condition", ""),
    ("multiprocessing.synchronize", "Event"): Kind("a multiprocessing Event", ""),
    ("multiprocessing.synchronize", "Barrier"): Kind("a multiprocessing Barrier", ""),
    ("multiprocessing.queues", "Queue"): Kind("a multiprocessing Queue", ""),
    ("multiprocessing.queues", "SimpleQueue"): Kind("a multiprocessing SimpleQueue", ""),
    ("multiprocessing.sharedctypes", "SynchronizedBase"): Kind("a multiprocessing Value or Array", ""),
    ("multiprocessing.connection", "_ConnectionBase"): Kind(
        "a connection", "pass the connection before it is closed", False
    ),
    ("multiprocessing.connection", "Listener"): Kind("a listener", "listen in the child, and pass the address"),
    ("logging", "Handler"): Kind(
        "a logging handler",
        "attach the handler in the child, or send records back through logging.handlers.QueueHandler",
    ),
    ("sqlite3", "Connection"): _DATABASE,
    ("sqlite3", "Cursor"): Kind("a database cursor", "connect again in the child, and pass the rows"),
    ("_io", "_IOBase"): _FILE,
    ("tempfile", "_TemporaryFileWrapper"): _FILE,
    ("tempfile", "SpooledTemporaryFile"): _FILE,
    ("tempfile", "TemporaryDirectory"): Kind("a temporary directory", "pass its name; keep the object in the parent"),
    ("zipfile", "ZipFile"): Kind("an open archive", "pass the path and re-open the archive in the child"),
    ("tarfile", "TarFile"): Kind("an open archive", "pass the path and re-open the archive in the child"),
    ("shelve", "Shelf"): Kind("an open shelf", "pass the path and re-open the shelf in the child"),
    ("mmap", "mmap"): Kind(
        "a memory map", "re-open it in the child from the file's path, or use multiprocessing.shared_memory", False
    ),
    ("builtins", "generator"): Kind(
        "a generator",
        "pass list(...) of it, or pass the generator function and its arguments and call it in the child",
        False,
    ),
    ("builtins", "coroutine"): Kind(
        "a coroutine", "pass the coroutine function and its arguments, and asyncio.run it in the child", False
    ),
    ("builtins", "async_generator"): Kind(
        "an asynchronous generator", "pass the generator function and its arguments, and run it in the child", False
    ),
    ("builtins", "frame"): Kind("a stack frame", "pass what is needed of it as text (traceback.format_stack)", False),
    ("builtins", "traceback"): Kind("a traceback", "pass its text (traceback.format_exception)", False),
    ("builtins", "code"): Kind("a code object", "pass a function at module level, or the source text", False),
    ("builtins", "module"): Kind(
        "a module", "import the module in the child, or inside the function that uses it, or pass its name", False
    ),
    ("builtins", "cell"): Kind("a closure cell", "pass the value it holds", False),
    ("builtins", "dict_keys"): Kind("a view of a dictionary", "pass list(...) of it", False),
    ("builtins", "dict_values"): Kind("a view of a dictionary", "pass list(...) of it", False),
    ("builtins", "dict_items"): Kind("a view of a dictionary", "pass list(...) of it", False),
    ("builtins", "mappingproxy"): Kind("a read-only view of a mapping", "pass dict(...) of it", False),
    ("builtins", "memoryview"): Kind("a view of memory", "pass bytes(...) of it, or shared_memory", False),
    ("pickle", "PickleBuffer"): Kind("a view of memory", "pass bytes(...) of it, or shared_memory", False),
    ("builtins", "property"): Kind("a property object", "pass the value, or the instance that has it", False),
    ("builtins", "staticmethod"): Kind(
        "a staticmethod object", "pass the function, reached through its class (Class.name)", False
    ),
    ("builtins", "classmethod"): Kind(
        "a classmethod object", "pass the method, reached through its class (Class.name)", False
    ),
    ("builtins", "PyCapsule"): Kind(
        "a pointer into a C library", "re-create the object that owns it in the child", False
    ),
    ("weakref", "ReferenceType"): _WEAK,
    ("_weakref", "ReferenceType"): _WEAK,
    ("builtins", "weakref"): _WEAK,
    ("weakref", "ProxyType"): _WEAK,
    ("weakref", "CallableProxyType"): _WEAK,
    ("builtins", "weakproxy"): _WEAK,
    ("builtins", "weakcallableproxy"): _WEAK,
    ("weakref", "finalize"): Kind("a finalizer", "register the finalizer in the child"),
    ("weakref", "WeakSet"): Kind("a set of weak references", "pass set(...) of it"),
    ("_weakrefset", "WeakSet"): Kind("a set of weak references", "pass set(...) of it"),
    ("weakref", "WeakKeyDictionary"): Kind("a weak dictionary", "pass dict(...) of it"),
    ("weakref", "WeakValueDictionary"): Kind("a weak dictionary", "pass dict(...) of it"),
    ("_contextvars", "ContextVar"): Kind(
        "a context variable", "pass its value as an argument and set the variable in the child", False
    ),
    ("_contextvars", "Context"): Kind("a context", "pass the values, and set the variables in the child", False),
    ("_contextvars", "Token"): Kind("a context variable's token", "reset the variable in the parent", False),
    ("_ctypes", "_CData"): Kind(
        "ctypes data with pointers", "pass the values, and re-create the pointer in the child", False
    ),
    ("ctypes", "CDLL"): Kind("a loaded C library", "pass its path and load it in the child"),
    ("_ssl", "_SSLContext"): Kind("a TLS context", "create the context in the child"),
    ("ssl", "SSLContext"): Kind("a TLS context", "create the context in the child"),
    ("ssl", "SSLSocket"): _CLIENT,
    ("http.client", "HTTPConnection"): _CLIENT,
    ("http.client", "HTTPResponse"): Kind("an HTTP response", "read() it in the parent and pass the bytes"),
    ("urllib.request", "OpenerDirector"): Kind("a URL opener", "build the opener in the child"),
    ("smtplib", "SMTP"): _CLIENT,
    ("ftplib", "FTP"): _CLIENT,
    ("selectors", "BaseSelector"): Kind("a selector", "make the selector in the child"),
    ("contextlib", "_GeneratorContextManagerBase"): Kind(
        "a context manager", "enter it in the child: pass the function that makes it", True
    ),
    ("contextlib", "_BaseExitStack"): Kind("an exit stack", "make the stack in the child"),
    ("re", "Match"): Kind("a match object", "pass match.group() or match.groupdict()", False),
    ("unittest.mock", "NonCallableMock"): MOCK,
    ("mock.mock", "NonCallableMock"): MOCK,
    ("argparse", "ArgumentParser"): Kind("an argument parser", "pass what it parsed (the Namespace)"),
    ("numpy", "ufunc"): Kind("a ufunc made at run time", "make it in the child, of a function at module level", False),
    ("random", "SystemRandom"): Kind("a source of random numbers", "make it in the child", False),
    ("xml.parsers.expat", "XMLParserType"): Kind("a parser", "make the parser in the child", False),
    ("tkinter", "Misc"): Kind("a window", "create the window in the child"),
    ("posix", "DirEntry"): Kind("a directory entry", "pass its path", False),
    ("nt", "DirEntry"): Kind("a directory entry", "pass its path", False),
    ("posix", "ScandirIterator"): _ITERATOR,
    ("nt", "ScandirIterator"): _ITERATOR,
}

_TESTCASE = Kind(
    "the running TestCase",
    "move the code to a module-level function (or a @staticmethod of the class) and pass what it needs of self as "
    "arguments",
)
FIXTURE = Kind(
    "an object of pytest's own session",
    "use the fixture in the test only, and pass the child plain values that it gave",
)

_BY_SHAPE: tuple[tuple[frozenset[str], Kind], ...] = tuple(
    (frozenset(names.split()), kind)
    for names, kind in (
        ("wsgi_app", _APP),
        ("add_url_rule", _APP),
        ("add_api_route", _APP),
        ("add_route __call__", _APP),
        ("router __call__", _APP),
        ("conf task send_task", _APP),
        ("serve_forever", _SERVER),
        ("run_until_complete", _LOOP),
        ("cursor commit", _DATABASE),
        ("cursor execute", _DATABASE),
        ("fetchone execute", _DATABASE),
        ("connect dispose", _DATABASE),
        ("query commit rollback", _DATABASE),
        ("submit shutdown", _EXECUTOR),
        ("send_signal poll", _BY_NAME["subprocess", "Popen"]),
        ("acquire release", Kind("a lock", _LOCK.instead, True)),
        ("fileno read close", _FILE),
        ("readline close", _FILE),
        ("write close flush", _FILE),
        ("connect close", _CLIENT),
        ("request close", _CLIENT),
        ("execute_command", _CLIENT),
        ("send recv close", _CLIENT),
        ("update digest hexdigest", Kind("a running hash", "pass the bytes, or the digest", False)),
        ("__iter__ __next__", _ITERATOR),
    )
)
"""Kinds recognised by what a library's class defines, whatever its name."""

_SHAPES = tuple(kind for _, kind in _BY_SHAPE)

_TRANSPARENT_MODULES = frozenset({"collections", "functools", "operator", "itertools", "types", "copyreg", "abc"})
_TRANSPARENT_PACKAGES = frozenset({"builtins", "numpy", "pandas", "polars", "xarray", "pyarrow", "scipy", "dask"})


def type_name(t: type) -> str:
    """Return the name of a type in messages: ``_thread.lock``, ``Holder`` (of the user), ``generator``."""
    module, name = class_name(t)
    if not module or module in ("builtins", "__main__"):
        return name
    module, name = public_name(t)
    return name if owner(module_file(module) or "") == "user" and module_file(module) else f"{module}.{name}"


def noun_of(name: str) -> str:
    """Return the noun for a type given by name (``sqlite3.Connection``) that cannot be sent, or ``""``."""
    module, _, name = name.rpartition(".")
    kind = _BY_NAME.get((module or "builtins", name))
    return "" if kind is None else kind.noun


def kind_of(obj: object) -> Kind | None:
    """Return the kind of `obj`, if known."""
    t = type(obj)
    stream = next((name for name in ("stdin", "stdout", "stderr") if obj is getattr(sys, name)), None)
    if stream is not None:
        return Kind(f"sys.{stream}", f"look sys.{stream} up in the child, where it is used, instead of passing it")
    if judged_whole(obj):
        return MOCK if _is_mock(obj) else _TESTCASE if is_testcase(obj) else FIXTURE
    for cls in mro(t)[:-1]:
        kind = _BY_NAME.get(class_name(cls))
        if kind is not None:
            return kind
        if class_name(cls)[1].endswith("Request") and not is_users(cls):
            return _REQUEST  # it reads like a file
    if t is types.FunctionType or type in mro(t) or is_users(t) or _transparent(t):
        return None
    names = frozenset(name for cls in mro(t)[:-1] for name in type.__getattribute__(cls, "__dict__"))
    return next((kind for shape, kind in _BY_SHAPE if shape <= names), None)


def judged_whole(obj: object) -> bool:
    """Return whether findings treat `obj` as a whole: a mock, a running TestCase, an object of pytest's session."""
    t = type(obj)
    if type in mro(t):
        return False
    if _is_mock(obj) or is_testcase(obj):
        return True
    of_pytest = class_name(t)[0].split(".")[0] in ("_pytest", "pytest")
    return of_pytest and tuple not in mro(t) and BaseException not in mro(t)


def _is_mock(obj: object) -> bool:
    t = type(obj)
    if t is types.FunctionType:  # create_autospec of a function makes a function, with the mock as an attribute
        held = obj.__dict__.get("mock")
        return held is not None and type(held) is not types.FunctionType and _is_mock(held)
    return any(class_name(cls)[1] == "NonCallableMock" and class_name(cls)[0].endswith("mock") for cls in mro(t))


def is_testcase(obj: object) -> bool:
    """Return whether `obj` is a TestCase whose test is running: it then holds the runner."""
    unittest = sys.modules.get("unittest.case")
    if unittest is None or unittest.TestCase not in mro(type(obj)):
        return False
    return instance_namespace(obj).get("_outcome") is not None


def is_users(obj: object) -> bool:
    """Return whether a function, a class or an instance's class is user code."""
    code = code_of(obj)
    if code is not None:
        return owner(code.co_filename) == "user"
    cls = obj if isinstance(type(obj), type) and type in mro(type(obj)) else type(obj)
    module = class_name(cls)[0]
    if module in ("builtins", "", "_thread", "_io"):
        return False
    file = module_file(module)
    return module == "__main__" if file is None else owner(file) == "user"


def _transparent(t: type) -> bool:
    """Return whether objects of `t` only contain what the user put into them."""
    if any(cls in mro(t) for cls in (dict, list, tuple, set, frozenset, BaseException)):
        return True
    module = class_name(t)[0]
    return module in _TRANSPARENT_MODULES or module.split(".")[0] in _TRANSPARENT_PACKAGES


def actionable(root: object, chain: Sequence[tuple[Step, object]], leaf: object) -> int:
    """Return the index in `chain` of the object to name; -1 for `root`.

    That is the leaf if it is the user's function or class, or if only the user's objects and plain containers lead to
    it. Otherwise the outermost known resource, else the outermost library object behind the user's last object.
    """
    if not chain:
        return -1
    last = len(chain) - 1
    after = 0
    for i, (_, obj) in enumerate(chain[:-1]):
        if type(obj) is not types.MethodType and is_users(type(obj)):
            after = i + 1
    opaque = next((i for i in range(after, last) if _is_opaque(chain[i][1])), last)
    named = type(leaf) is types.FunctionType or type in mro(type(leaf)) or code_of(leaf) is not None
    users = named and is_users(leaf)
    for i, obj in enumerate([root, *(obj for _, obj in chain)], -1):
        kind = kind_of(obj)
        # Moving its function does not help a thread; an application may pickle except for the user's callback.
        if kind is not None and kind.resource and not (users and kind in _SHAPES):
            return min(i, opaque) if kind in _OF_THREADS.values() and not users else i
    return last if users else opaque


def _is_opaque(obj: object) -> bool:
    """Return whether an object may contain what the user did not put there."""
    t = type(obj)
    return not (t is types.FunctionType or type in mro(t) or t is types.MethodType or _transparent(t))


def describe(obj: Any) -> str:
    """Return a short text for a value, without running its code."""
    t = type(obj)
    if t is int and obj.bit_length() > 200:
        return f"<int of {obj.bit_length()} bits>"
    if t in (str, bytes) and len(obj) > 60:
        return f"{obj[:56]!r}..."
    if obj is None or t in (bool, int, float, complex, str, bytes):
        return repr(obj)
    if t is types.FunctionType:
        return f"<function {obj.__qualname__}>"
    if t is types.ModuleType:
        return f"<module {obj.__name__!r}>"
    if type in mro(t):
        module, name = class_name(obj)
        return f"<class {name!r}>" if module == "builtins" else f"<class '{module}.{name}'>"
    if t in (list, tuple, dict, set, frozenset):
        return f"<{t.__name__} of {len(obj)}>"
    return f"<{type_name(t)} object>"
