"""Captures the parent's value of a binding, to be set in every fresh child before it loads its process object.

The child's side is `child.replayer`.
"""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from .._compat import multiprocessing as mp
from ..child import process_state, reporter, values
from ..child.replayer import ABSENT, own_value, read
from .by_value import StatePickler, is_importable, is_mock_class, taken_by_value, user_modules

_NONE = object()
_MOST_BYTES = 200_000_000
"""No experiment sends more."""


class NotSentError(Exception):
    """What an experiment would send does not exist, or cannot be sent."""


class Replaying:
    """A context in which every child takes over the parent's values of the bindings `paths`, as of its start.

    As a `control`, the child does everything for that but to set them: it imports the modules, loads the values, and
    keeps its own.
    """

    def __init__(self, paths: Iterable[str], *, control: bool = False) -> None:
        self.paths = tuple(paths)
        self.control = control

    def __enter__(self) -> Replaying:
        self._before, reporter.carried = reporter.carried, self._carried
        return self

    def __exit__(self, *_: object) -> None:
        reporter.carried = self._before

    def _carried(self) -> list[dict[str, Any]]:
        found = self._before() if self._before is not None else []
        for path in self.paths:
            try:
                each = capture(path)
            except Exception as trouble:
                each = {"kind": "binding", "path": path, "error": f"{type(trouble).__name__}: {trouble}"[:500]}
            found.append({**each, "control": True} if self.control else each)
        return found


_SPECIAL = re.compile(
    r"(?P<kind>os\.environ|logging\.getLogger|sys\.modules)[\[(](?P<quote>['\"])(?P<name>.*)(?P=quote)[\])]"
)


def capture(path: str) -> dict[str, Any]:
    """Return what a child needs to have the parent's present value of the binding `path`, as builtins.

    `path` is a dotted name, ``os.environ['NAME']``, ``logging.getLogger('name')``, ``logging.root``,
    ``sys.modules['name']``, ``random``, ``decimal``, ``locale``, ``warnings.filters`` or ``signal.SIGNAME``.

    Raises:
        NotSentError: there is no such binding, or its value cannot be sent; whatever pickling it raised, too.

    """
    special = _SPECIAL.fullmatch(path)
    if special is not None:
        kind, name = special["kind"], special["name"]
        if kind == "os.environ":
            return {"kind": "environment", "path": path, "name": name, "data": os.environ.get(name, ABSENT)}
        if kind == "logging.getLogger":
            return _logging(path, name)
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
    if path in process_state.SETTINGS:
        setter = process_state.SETTINGS[path].removesuffix("()")
        return {"kind": "setting", "path": path, "setter": setter, "data": dumped(process_state.setting(path))}
    if process_state.looks_at(path):
        raise NotSentError(f"there is no one value behind {path}")
    return _binding(path)


def _random() -> dict[str, Any]:
    import random

    numpy: Any = sys.modules.get("numpy.random")
    return {"kind": "random", "data": dumped((random.getstate(), numpy.get_state() if numpy is not None else None))}


def _decimal() -> dict[str, Any]:
    import decimal

    return {"kind": "decimal", "data": dumped(decimal.getcontext())}


def _locale() -> dict[str, Any]:
    import locale

    return {"kind": "locale", "data": locale.setlocale(locale.LC_ALL)}


def _warnings() -> dict[str, Any]:
    import warnings

    return {"kind": "warnings", "data": dumped(list(warnings.filters))}


_PROCESS: dict[str, Callable[[], dict[str, Any]]] = {
    "random": _random,
    "numpy.random": _random,
    "decimal": _decimal,
    "decimal.getcontext()": _decimal,
    "locale": _locale,
    "warnings": _warnings,
    "warnings.filters": _warnings,
}


def _binding(path: str) -> dict[str, Any]:
    module, names = split(path)
    if not names:
        raise NotSentError(f"{path} is a module")
    if not all(map(str.isidentifier, names)):
        raise NotSentError(f"{path} is no dotted name")
    target: Any = module
    for each in names[:-1]:
        target = read(target, each)
    name = names[-1]
    value = own_value(target, name, _NONE)
    if value is _NONE and target is not module and type(target) is not type:
        value = getattr(target, name, _NONE)
    node = values.describe(values.resolve(module, names))
    carried: dict[str, Any] = {
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
    if type(value) is types.FunctionType and is_importable(value):
        return {**carried, "how": "function", "data": dumped((value.__dict__, value.__code__))}
    if type(value) is ContextVar:
        missing = object()
        held = value.get(missing)
        if held is missing:
            raise NotSentError(f"{path} has no value here")
        return {**carried, "how": "context variable", "data": dumped(held)}
    if threading.local in type.mro(type(value)):
        return {**carried, "how": "thread-local", "data": dumped(dict(vars(value)))}
    return {**carried, "data": dumped(value), "aliases": _aliases(value, module.__name__, name)}


def split(path: str) -> tuple[types.ModuleType, list[str]]:
    """Return the module in a dotted name, the longest that is imported, and the names that remain.

    What follows a bracket is inside the value of the binding. Raises NotSentError if no module is imported.
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
    """Return where else modules hold `value`: who imported by name what was changed in place.

    What cannot be changed in place, and what stands in for something else, was bound to each name by itself.
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
    """Return `value` pickled for a child; functions of the user's go by value, classes by name where they have one.

    Raises what pickling raises, and NotSentError for what is too large.
    """
    error: Exception | None = None
    injected = [module for module in list(sys.modules.values()) if _made_at_run_time(module)]
    for modules in ([*_test_modules(), *injected], injected):
        buffer = io.BytesIO()
        try:
            with taken_by_value(modules), mp.descriptors_of_start():
                StatePickler(buffer).dump(value)
        except Exception as trouble:
            error = trouble
            continue
        if buffer.tell() > _MOST_BYTES:
            raise NotSentError(f"its value is {buffer.tell()} bytes when pickled")
        return buffer.getvalue()
    assert error is not None
    raise error


def _made_at_run_time(module: object) -> bool:
    return type(module) is types.ModuleType and module.__spec__ is None and module.__name__ != "__main__"


def _test_modules() -> list[types.ModuleType]:
    """Return the modules that pytest imported: a child may not find them, and what they replace things with is here."""
    return [
        module
        for module in user_modules()
        if (name := module.__name__.rpartition(".")[2]) == "conftest"
        or name.startswith("test")
        or name.endswith("test")
    ]


def _logging(path: str, name: str) -> dict[str, Any]:
    """Return the configuration of a logger and of those above it: a record passes through all of them."""
    found = []
    logger: Any = logging.getLogger(name or None)
    while logger is not None:
        state = {each: vars(logger)[each] for each in ("level", "propagate", "disabled", "filters")}
        # those that pytest captures with are not the user's
        own = [each for each in logger.handlers if not type(each).__module__.startswith("_pytest.")]
        state["handlers"] = [_to_be_sent(each) for each in own]
        found.append(("" if logger is logging.root else logger.name, state))
        logger = logger.parent
    return {"kind": "logging", "path": path, "data": dumped(found)}


def _to_be_sent(handler: logging.Handler) -> logging.Handler:
    """Return a handler as it can be sent: one that writes to a file opens it again, and keeps what is in it."""
    if not issubclass(type(handler), logging.FileHandler):
        return handler
    twin: Any = object.__new__(type(handler))
    twin.__dict__.update(vars(handler), stream=None, mode="a")
    return twin  # type: ignore[no-any-return]
