"""Capture the parent's value of a binding, to set it in every fresh child before the process object is loaded.

The child's side is `child.replayer`.
"""

from __future__ import annotations

import gc
import importlib.machinery
import io
import logging
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from .._compat import multiprocessing as mp
from ..child import process_state, reporter, values
from ..child.replayer import (
    ABSENT,
    add_import_hooks,
    own_value,
    read,
    set_context,
    set_loop_policy,
    set_options,
    set_parent,
    travel,
)
from ..model.wire import Json
from ..source.callers import owner, package_of
from ..state.import_hooks import import_hooks
from .by_value import StatePickler, is_importable, is_mock_class, taken_by_value, user_modules

_NONE = object()
_MOST_BYTES = 200_000_000
"""The largest pickle that an experiment sends."""


class NotSentError(Exception):
    """The value to send does not exist, or cannot be sent."""


class Replaying:
    """A context that gives every child the parent's values of the bindings `paths`, as of its start.

    In a `control`, the child imports the modules and loads the values, but keeps its own.
    """

    def __init__(self, paths: Iterable[str], *, control: bool = False) -> None:
        self.paths = tuple(paths)
        self.control = control

    def __enter__(self) -> Replaying:
        self._before, reporter.carried = reporter.carried, self._carried
        return self

    def __exit__(self, *_: object) -> None:
        reporter.carried = self._before

    def _carried(self) -> list[Json]:
        found = self._before() if self._before is not None else []
        for path in self.paths:
            try:
                each = capture(path)
            except Exception as trouble:
                each = {"kind": "binding", "path": path, "error": f"{type(trouble).__name__}: {trouble}"[:500]}
            found.append({**each, "control": True} if self.control else each)
        return found


_SPECIAL = re.compile(
    r"(?P<kind>os\.environ|logging\.getLogger|sys\.modules|os\.register_at_fork|codecs\.lookup|codecs\.lookup_error)"
    r"[\[(](?P<quote>['\"])(?P<name>.*)(?P=quote)[\])]"
)


def capture(path: str) -> Json:
    """Return the data, made of builtins, from which a child can set the binding `path` to the parent's current value.

    `path` is a dotted name, ``os.environ['NAME']``, ``logging.getLogger('name')``, ``logging.root``,
    ``sys.modules['name']``, an imported module, ``os.register_at_fork('module')``, ``codecs.lookup('name')``,
    ``codecs.lookup_error('name')``, ``random``, ``decimal``, ``locale``, ``warnings.filters`` or ``signal.SIGNAME``.

    Raises:
        NotSentError: There is no such binding, or its value cannot be sent.
        Exception: Whatever pickling the value raised.

    """
    special = _SPECIAL.fullmatch(path)
    if special is not None:
        kind, name = special["kind"], special["name"]
        if kind == "os.environ":
            return {"kind": "environment", "path": path, "name": name, "data": os.environ.get(name, ABSENT)}
        if kind == "logging.getLogger":
            return _logging(path, name)
        if kind.startswith("codecs."):
            return {"path": path, **_calls(_codec(kind, name))}
        if kind == "os.register_at_fork":
            return {"kind": "fork hooks", "path": path, "name": name, "data": ABSENT}
        module = sys.modules.get(name)
        return {"kind": "module", "path": path, "name": name, "data": ABSENT if module is None else dumped(module)}
    if path == "os.environ":
        return {"kind": "whole environment", "path": path, "data": dict(os.environ)}
    if path in ("logging.root", "logging"):
        return _logging(path, "")
    if path.startswith("signal.SIG"):
        number = getattr(signal, path.removeprefix("signal."))
        return {"kind": "signal", "path": path, "name": int(number), "data": dumped(signal.getsignal(number))}
    if path in _PROCESS:
        return {"path": path, **_PROCESS[path]()}
    if path.startswith("limit-Max-"):
        return {"path": path, **_limit(path)}
    if path in process_state.SETTINGS:
        setter = process_state.SETTINGS[path].removesuffix("()")
        return {"kind": "setting", "path": path, "setter": setter, "data": dumped(process_state.setting(path))}
    if process_state.looks_at(path):
        raise NotSentError(f"there is no one value behind {path}")
    return _binding(path)


def _codec(kind: str, name: str) -> Callable[[], object]:
    """Return the call that registers a codec, or an error handler, as it is here."""
    import codecs

    if kind == "codecs.lookup_error":
        return partial(codecs.register_error, name, codecs.lookup_error(name))
    info: Any = _Codec(codecs.lookup(name))
    # Search functions get a lower-case name, up to 3.14 with underscores (``normalizestring`` in Python/codecs.c).
    names = (name.lower().replace(" ", "-"), name.lower().replace(" ", "_").replace("-", "_"))
    return partial(codecs.register, dict.fromkeys(names, info).get)


class _Codec:
    """Stands for a codec: `codecs.CodecInfo` does not survive pickling."""

    def __init__(self, info: Any) -> None:
        self._parts = tuple(info)

    def __reduce__(self) -> tuple[object, ...]:
        import codecs

        return codecs.CodecInfo, self._parts


def _calls(*calls: Callable[[], object]) -> Json:
    """Return what makes a child call `calls`."""
    return {"kind": "calls", "data": dumped(list(calls))}


def _random() -> Json:
    import random

    numpy: Any = sys.modules.get("numpy.random")
    return {"kind": "random", "data": dumped((random.getstate(), numpy.get_state() if numpy is not None else None))}


def _decimal() -> Json:
    import decimal

    return {"kind": "decimal", "data": dumped(decimal.getcontext())}


def _locale() -> Json:
    import locale

    return {"kind": "locale", "data": locale.setlocale(locale.LC_ALL)}


def _warnings() -> Json:
    return {"kind": "warnings", "data": dumped(process_state.filters_here())}


def _dialects() -> Json:
    import csv

    calls = []
    for name in csv.list_dialects():
        dialect = csv.get_dialect(name)
        options = {each: getattr(dialect, each) for each in dir(dialect) if not each.startswith("_")}
        calls.append(partial(csv.register_dialect, name, **options))
    return _calls(*calls)


def _mime_types() -> Json:
    import mimetypes

    return _calls(*(partial(mimetypes.add_type, t, e) for e, t in mimetypes.types_map.items()))


def _import_hooks() -> Json:
    found = import_hooks()
    last = bool(found) and sys.meta_path.index(found[0]) > sys.meta_path.index(importlib.machinery.PathFinder)
    return _calls(partial(add_import_hooks, found, last))


def _collector() -> Json:
    return _calls(gc.enable if gc.isenabled() else gc.disable)


def _loop_policy() -> Json:
    import asyncio

    return _calls(partial(set_loop_policy, type(asyncio.get_event_loop_policy())))


def _options() -> Json:
    return _calls(partial(set_options, process_state.pandas_options()))


def _umask() -> Json:
    mask = os.umask(0o077)
    os.umask(mask)
    return _calls(partial(os.umask, mask))


def _affinity() -> Json:
    return _calls(partial(os.sched_setaffinity, 0, os.sched_getaffinity(0)))


def _blocked() -> Json:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return _calls(partial(signal.pthread_sigmask, signal.SIG_SETMASK, mask))


def _limit(path: str) -> Json:
    """Return what sets a resource limit, given as ``limit-Max-open-files``: the name in ``/proc/self/limits``."""
    import resource

    number = getattr(resource, _LIMITS[path.removeprefix("limit-Max-")])
    soft, hard = resource.getrlimit(number)
    return _calls(partial(resource.setrlimit, number, (soft, hard)))


def _context() -> Json:
    sent = {}
    for name, value in process_state.context_variables().items():
        with suppress(Exception):
            sent[name] = dumped(value)
    return _calls(partial(set_context, sent))


def _clock() -> Json:
    import time

    return _calls(partial(travel, time.time(), time.time_ns() != time.time_ns()))


_LIMITS = {
    "cpu-time": "RLIMIT_CPU", "file-size": "RLIMIT_FSIZE", "data-size": "RLIMIT_DATA", "stack-size": "RLIMIT_STACK",
    "core-file-size": "RLIMIT_CORE", "open-files": "RLIMIT_NOFILE", "processes": "RLIMIT_NPROC",
    "locked-memory": "RLIMIT_MEMLOCK", "address-space": "RLIMIT_AS",
}  # fmt: skip

_PROCESS: dict[str, Callable[[], Json]] = {
    "umask": _umask,
    "CPU-affinity": _affinity,
    "blocked-signals": _blocked,
    "asyncio": _loop_policy,
    "gc.isenabled": _collector,
    "sys.meta_path": _import_hooks,
    "os.getppid": lambda: _calls(partial(set_parent, os.getpid())),
    "pandas": _options,
    "time_machine": _clock,
    "contextvars.copy_context": _context,
    "mimetypes": _mime_types,
    "atexit.register": lambda: {"kind": "exit handlers", "data": ABSENT},
    "csv.list_dialects": _dialects,
    "random": _random,
    "numpy.random": _random,
    "decimal": _decimal,
    "decimal.getcontext()": _decimal,
    "locale": _locale,
    "warnings": _warnings,
    "warnings.filters": _warnings,
}


def _binding(path: str) -> Json:
    module, names = split(path)
    if not names:  # the forkserver imported it under another environment
        return {"kind": "import", "path": path, "name": module.__name__, "data": dict(os.environ)}
    if not all(map(str.isidentifier, names)):
        raise NotSentError(f"{path} is no dotted name")
    target: Any = module
    for each in names[:-1]:
        target = read(target, each)
    name = names[-1]
    value = own_value(target, name, _NONE)
    if value is _NONE and target is not module and type(target) is not type:
        value = getattr(target, name, _NONE)
    held = values.instance_namespace(value) if type not in type.mro(type(value)) else {}
    for each in [each for each, inside in held.items() if type(inside) is ContextVar][:1]:
        target, name, value, names = value, each, held[each], [*names, each]  # a proxy, such as werkzeug's
    node = values.describe(values.resolve(module, names))
    carried: Json = {
        "kind": "binding", "path": path, "module": module.__name__, "names": names, "how": "set", "node": node,
    }  # fmt: skip
    if name == values.VIRTUAL:
        return {**carried, "how": "virtual subclasses", "data": dumped(values.virtual_subclasses(target))}
    if value is _NONE:
        return {**carried, "data": ABSENT}
    if issubclass(type(value), logging.Logger):
        return _logging(path, "" if value is logging.root else value.name)
    if type(value) is types.MappingProxyType and name == "registry" and type(target) is types.FunctionType:
        return {**carried, "how": "implementations", "data": dumped(dict(value))}  # of functools.singledispatch
    if type(value) is types.FunctionType and is_importable(value) and value.__qualname__ == ".".join(names):
        return {**carried, "how": "function", "data": dumped((value.__dict__, value.__code__))}
    if type(value).__name__ == "_lru_cache_wrapper":
        cached = (value.cache_parameters(), _cached(value))
        return {**carried, "how": "cache", "data": dumped(cached), "aliases": _aliases(value, module.__name__, name)}
    if type(value) is ContextVar:
        current = value.get(_NONE)
        if current is _NONE:
            raise NotSentError(f"{path} has no value here")
        return {**carried, "how": "context variable", "data": dumped(current)}
    if threading.local in type.mro(type(value)):
        return {**carried, "how": "thread-local", "data": dumped(dict(vars(value)))}
    return {**carried, "data": dumped(value), "aliases": _aliases(value, module.__name__, name)}


def _cached(cache: Any) -> list[tuple[tuple[object, ...], Json, object]]:
    """Return the calls that a `functools.lru_cache` remembers: arguments, keywords and result, the oldest first.

    Only the cache's own C code knows its entries (``_functoolsmodule.c``, 3.10 to 3.15): the garbage collector shows
    their keys, and a call with the arguments of one is a hit, which runs no user code but ``__hash__`` and ``__eq__``.
    """
    info, found = cache.cache_info(), []
    for entries in gc.get_referents(cache):
        if type(entries) is not dict or entries is vars(cache) or len(entries) != info.currsize:
            continue
        # results may be dicts, too; a bounded cache's own one holds the links of its list, and an unbounded's is first
        if info.maxsize is None or all(type(each).__name__ == "_lru_list_elem" for each in entries.values()):
            for key in list(entries):
                args, keywords = _arguments(key, typed=cache.cache_parameters()["typed"])
                found.append((args, keywords, cache(*args, **keywords)))
            return found
    raise NotSentError("the entries of its cache cannot be found")


def _arguments(key: Any, *, typed: bool) -> tuple[tuple[object, ...], Json]:
    """Return the arguments behind a key: one str or int as it is, or a tuple.

    The tuple holds the arguments; a bare object, the names and values of the keywords; and if `typed`, their types.
    """
    if type(key) is not tuple:
        return (key,), {}
    mark = next((at for at, each in enumerate(key) if type(each) is object), None)
    if mark is None:
        return key[: len(key) // 2] if typed else key, {}
    args, rest = key[:mark], key[mark + 1 :]
    if typed:
        rest = rest[: 2 * (len(rest) - len(args)) // 3]
    return args, dict(zip(rest[::2], rest[1::2], strict=True))


def split(path: str) -> tuple[types.ModuleType, list[str]]:
    """Return the longest imported module in a dotted name, and the remaining names.

    Ignores brackets, which refer to parts of the value. Raises NotSentError if no module is imported.
    """
    parts = path.partition("[")[0].split(".")
    for end in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None and (end < len(parts) or len(parts) == 1):
            return module, parts[end:]
    raise NotSentError(f"no module of {path} is imported")


_BOUND = (int, str, bytes, bool, float, tuple, types.NoneType, frozenset, types.FunctionType, types.MethodType,
          types.BuiltinFunctionType, types.ModuleType)  # fmt: skip


def _aliases(value: object, module: str, name: str) -> list[tuple[str, str]]:
    """Return the module-level aliases of `value`, which see changes made to it in place.

    Immutable values and stand-ins (mocks, classes) have none: each of their names was bound separately.
    """
    kind = type(value)
    if kind in _BOUND or type in type.mro(kind) or is_mock_class(kind):
        return []
    found = []
    for other, each in list(sys.modules.items()):
        names = getattr(each, "__dict__", None)
        if type(names) is dict:
            found += [
                (other, alias)
                for alias, held in list(names.items())
                if held is value and (other, alias) != (module, name)
            ]
    return found[:50]


def dumped(value: object) -> bytes:
    """Return `value` pickled for a child: the user's functions by value, importable classes by name.

    Raises whatever pickling raised, and NotSentError if the pickle is too large.
    """
    error: Exception | None = None
    injected = [module for module in list(sys.modules.values()) if _made_at_run_time(module)]
    package = _behind(value)
    theirs = [each for name, each in list(sys.modules.items()) if package and name.partition(".")[0] == package]
    for modules in ([*_test_modules(), *injected, *theirs], [*injected, *theirs]):
        buffer = io.BytesIO()
        pickler = StatePickler(buffer)
        pickler.package = package
        try:
            with taken_by_value(modules), mp.descriptors_of_start():
                pickler.dump(value)
        except Exception as trouble:
            error = trouble
            continue
        if buffer.tell() > _MOST_BYTES:
            raise NotSentError(f"its value is {buffer.tell()} bytes when pickled")
        return buffer.getvalue()
    assert error is not None
    raise error


def _behind(value: object) -> str:
    """Return the installed package whose local function `value` is, if it works on a class of its own, such as respx's.

    That class then has the state of the mock; by its name, the child would get its own.
    """
    if type(value) is not types.FunctionType or is_importable(value):
        return ""
    file, empty = value.__code__.co_filename, types.CellType()
    package = package_of(file) if owner(file) == "installed" else ""
    cells = [cell.cell_contents for cell in value.__closure__ or () if cell != empty]
    classes = [each for each in cells if issubclass(type(each), type)]
    return package if any(each.__module__.partition(".")[0] == package for each in classes) else ""


def _made_at_run_time(module: object) -> bool:
    return type(module) is types.ModuleType and module.__spec__ is None and module.__name__ != "__main__"


def _test_modules() -> list[types.ModuleType]:
    """Return the modules that pytest imported: a child may not find them, and patches take replacements from them."""
    return [
        module
        for module in user_modules()
        if (name := module.__name__.rpartition(".")[2]) == "conftest"
        or name.startswith("test")
        or name.endswith("test")
    ]


def _logging(path: str, name: str) -> Json:
    """Return the configuration of a logger and its ancestors, all of which handle its records."""
    found = []
    logger: Any = logging.getLogger(name or None)
    while logger is not None:
        state = {each: vars(logger)[each] for each in ("level", "propagate", "disabled", "filters")}
        # pytest's capturing handlers are not the user's
        own = [each for each in logger.handlers if not type(each).__module__.startswith("_pytest.")]
        state["handlers"] = [_to_be_sent(each) for each in own]
        found.append(("" if logger is logging.root else logger.name, state))
        logger = logger.parent
    found[0][1]["disable"] = logging.root.manager.disable
    return {"kind": "logging", "path": path, "data": dumped(found)}


def _to_be_sent(handler: logging.Handler) -> logging.Handler:
    """Return a handler that can be sent. A file handler's copy reopens the file and appends."""
    if not issubclass(type(handler), logging.FileHandler):
        return handler
    twin: Any = object.__new__(type(handler))
    twin.__dict__.update(vars(handler), stream=None, mode="a")
    return twin  # type: ignore[no-any-return]
