"""Record what tests patch, with pytest's monkeypatch or any form of mock's ``patch``."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial, wraps
from os import getpid
from os.path import abspath
from types import FrameType
from typing import Any

from .._compat import cpython
from .._compat.signals import OwnCode
from ..child.values import public_name
from ..model.patched import Patched
from ..model.place import Place
from ..source.callers import calling_place, owner, package_of, place_of
from .exchanges import Exchanges, Span

_MOST = 2_000
"""Limit on the patches recorded per leg."""


class PatchLog:
    """Records monkeypatch and mock from the first leg to the end of the session. Never raises into them.

    Patches are kept until undone, since a wider-scoped fixture may patch once for many legs.
    """

    def __init__(self, monkeypatch: type, exchanges: Exchanges) -> None:
        self._exchanges = exchanges
        self.of_leg: list[Patched] = []
        """Patches active when the leg began, and those made since."""
        self._monkeypatch = monkeypatch
        self._active: dict[int, list[Patched]] = {}
        """Active patches by id of the MonkeyPatch or patcher."""
        self._wrapped: set[type] = set()
        self._loaded: list[types.ModuleType | None] | None = None
        """The modules present at the last search."""
        self._span: Span | None = None
        self._pid = getpid()

    def begin(self) -> list[Patched]:
        """Begin a leg, and return its list of patches, which grows while the leg runs."""
        self.watch()
        self.of_leg = [each for active in self._active.values() for each in active]
        return self.of_leg

    def watch(self) -> None:
        """Wrap what has been imported by now: most suites import mock late or never."""
        loaded = [sys.modules.get(name) for name in cpython.MOCK_MODULES]
        if loaded == self._loaded:
            return
        self._loaded = loaded
        span = self._span = self._span or self._exchanges.span("noting patches")
        if self._monkeypatch not in self._wrapped:
            self._wrapped.add(self._monkeypatch)
            for name in _TARGETS:
                span.put(self._monkeypatch, name, partial(self._setting, method=name))
            span.put(self._monkeypatch, "undo", self._undoing)
        for patcher, dict_patcher in cpython.mock_patchers():
            if patcher not in self._wrapped:
                self._wrapped.add(patcher)
                span.put(patcher, "__enter__", partial(self._entering, targets=_patched_names, by="mock.patch"))
                span.put(patcher, "__exit__", self._undoing)
                into, out_of = cpython.MOCK_DICT
                span.put(dict_patcher, into, partial(self._entering, targets=_patched_keys, by="mock.patch.dict"))
                span.put(dict_patcher, out_of, self._undoing)

    def close(self) -> None:
        """Stop recording."""
        if self._span is not None:
            self._span.undo()
            self._span = None
        self._wrapped.clear()
        self._loaded = None
        self._active.clear()

    def _note(self, holder: object, targets: Iterator[str], place: Place | None, by: str) -> None:
        if getpid() != self._pid:
            return
        for target in targets:
            patched = Patched(target, place, by)
            if len(self.of_leg) < _MOST and patched not in self.of_leg:
                self.of_leg.append(patched)
            active = self._active.setdefault(id(holder), [])
            if len(active) < _MOST and patched not in active:
                active.append(patched)

    def _setting(self, original: Callable[..., object], method: str) -> Callable[..., Any]:
        targets = _TARGETS[method]

        @wraps(original)
        def wrapper(monkeypatch: object, /, *args: object, **kwargs: object) -> object:
            __tracebackhide__ = True
            with cpython.frameless:
                result = original(monkeypatch, *args, **kwargs)
            with OwnCode(), suppress(Exception):
                self._note(monkeypatch, targets(args, kwargs), calling_place(sys._getframe(1)), "monkeypatch")
            return result

        return wrapper

    def _entering(
        self, original: Callable[[object], object], targets: Callable[[object], Iterator[str]], by: str
    ) -> Callable[[object], object]:
        @wraps(original)
        def wrapper(patcher: object) -> Any:
            __tracebackhide__ = True
            with cpython.frameless:
                result = original(patcher)
            with OwnCode(), suppress(Exception):
                frame = sys._getframe(1)
                self._note(patcher, targets(patcher), _place(frame), _tool(frame) or by)
            return result

        return wrapper

    def _undoing(self, original: Callable[..., object]) -> Callable[..., object]:
        @wraps(original)
        def wrapper(holder: object, *args: object) -> Any:
            __tracebackhide__ = True
            self._active.pop(id(holder), None)
            with cpython.frameless:
                return original(holder, *args)

        return wrapper


# -- what is patched -------------------------------------------------------------------------------------------------


def _set_names(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[str]:
    target, *rest = (*args, *(kwargs[key] for key in ("target", "name") if key in kwargs))
    # setattr("pkg.mod.name", value) and delattr("pkg.mod.name") take the target as one string
    yield target if type(target) is str else f"{dotted(target)}.{rest[0]}"


def _set_keys(args: tuple[object, ...], kwargs: dict[str, Any]) -> Iterator[str]:
    mapping, key = (*args, *(kwargs[key] for key in ("dic", "name") if key in kwargs))[:2]
    yield f"{dotted(mapping)}[{_key(key)}]"


_TARGETS = {"setattr": _set_names, "delattr": _set_names, "setitem": _set_keys, "delitem": _set_keys}


def _patched_names(patcher: Any) -> Iterator[str]:
    yield f"{dotted(patcher.target)}.{patcher.attribute}"


def _patched_keys(patcher: Any) -> Iterator[str]:
    name = dotted(patcher.in_dict)
    if patcher.clear:
        yield name
    for key in list(patcher.values):
        yield f"{name}[{_key(key)}]"


def _key(key: object) -> str:
    return repr(key) if type(key) in (str, int, bytes, bool, float) else "..."


def dotted(value: Any) -> str:
    """Return the dotted name of a module, class or function, or of a global or class attribute bound to `value`.

    Other objects are described by their type, in angle brackets.
    """
    kind = type(value)
    if value is os.environ:
        return "os.environ"
    if types.ModuleType in type.mro(kind):
        return str(object.__getattribute__(value, "__dict__").get("__name__"))
    if type in type.mro(kind) and "<locals>" not in value.__qualname__:
        return ".".join(public_name(value))
    if kind is types.FunctionType and "<locals>" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}"
    for module in _modules(kind.__module__):
        for name, held in list(module.items()):
            if held is value:
                return f"{module.get('__name__')}.{name}"
            if type(held) is type and held.__module__ == module.get("__name__"):
                for attribute, within in list(vars(held).items()):
                    if within is value:
                        return f"{held.__module__}.{held.__qualname__}.{attribute}"
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _modules(first: str) -> Iterator[dict[str, Any]]:
    """Yield the namespace of the module `first`, then those of the user's modules, then of the package of `first`."""
    package = first.partition(".")[0]
    later = []
    for name, module in [(first, sys.modules.get(first)), *sys.modules.items()]:
        names = getattr(module, "__dict__", None)
        if type(names) is not dict:
            continue
        file = names.get("__file__")
        if name == first or (type(file) is str and owner(file) == "user"):
            yield names
        elif name.partition(".")[0] == package and package != "builtins":
            later.append(names)
    yield from later


# -- where it was patched --------------------------------------------------------------------------------------------


def _place(frame: FrameType | None) -> Place | None:
    """Return the user's line that started a patcher, or the function it decorates."""
    each = frame
    while each is not None and owner(each.f_code.co_filename) != "user":
        function = cpython.decorated_by_mock(each) or _test_below(each)
        if function is not None:
            return _place_of_function(function)
        each = each.f_back
    return calling_place(frame) if each is None else place_of(each)


_MOCKS = frozenset(("mock", "pytest_mock"))
"""Packages that patch what the user's code says."""


def _tool(frame: FrameType | None) -> str:
    """Return the installed package that patches on its own account, the one that the test uses; else ""."""
    tool = ""
    while frame is not None and (whose := owner(frame.f_code.co_filename)) not in ("user", "runner"):
        package = package_of(frame.f_code.co_filename) if whose == "installed" else ""
        tool = package if package and package not in _MOCKS else tool  # moto patches by way of responses
        frame = frame.f_back
    return tool


def _test_below(frame: FrameType) -> object:
    """Return the test that a frame of pytest or unittest calls, else None: a tool's decorator has patched for it."""
    code = frame.f_code
    if code.co_name == "pytest_pyfunc_call" and owner(code.co_filename) == "runner":
        return getattr(frame.f_locals.get("pyfuncitem"), "obj", None)
    if code.co_name == "_callTestMethod" and owner(code.co_filename) == "stdlib":  # unittest/case.py
        return frame.f_locals.get("method")
    return None


def _place_of_function(function: Any) -> Place | None:
    for _ in range(50):  # stacked decorators
        names = getattr(function, "__dict__", {})
        if "__wrapped__" not in names:
            break
        function = names["__wrapped__"]
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    return Place(abspath(code.co_filename), code.co_firstlineno, function.__qualname__)
