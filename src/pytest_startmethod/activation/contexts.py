"""Classes for the default context: one reports reads and writes of the method, one marks contexts taken from it.

The functions in the `multiprocessing` namespace (``multiprocessing.set_start_method``) are methods bound at import, so
replacing them on the class or the module misses code that imported them by name. They are all bound to the same object,
whose class can be replaced. If ``_actual_context`` goes: wrap the names in `multiprocessing`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.context import BaseContext, DefaultContext
from types import FrameType
from typing import Any, Protocol

from .._compat.multiprocessing import STDLIB, Package, method_of, pool_context
from .._compat.signals import OwnCode

_LISTENER, _TWIN = "_pytest_startmethod_listener", "_pytest_startmethod_twin"
_ASKED, _BY_USE = "_pytest_startmethod_asked", "_pytest_startmethod_by_use"


class ContextListener(Protocol):
    """Receives the calls on the default context while a leg runs."""

    def method_set(self, method: str | None, caller: FrameType | None) -> None:
        """Handle a call of ``set_start_method``."""

    def method_asked(self, caller: FrameType | None) -> None:
        """Handle a call of ``get_start_method``."""


# -- for legs --------------------------------------------------------------------------------------------------------


class _Watched:
    """Marks the class of the default context while a leg runs."""


@functools.cache
def _watched_class(package: Package) -> Any:
    """Return a subclass of the package's DefaultContext that reports to the listener in the context's namespace.

    Performance matters: every start uses the context, and so does every forked child.
    """
    original = package.module("context").DefaultContext
    asking, setting, lazy = (
        getattr(original, name).__code__ for name in ("get_start_method", "set_start_method", "get_context")
    )

    def get_actual(self: object) -> BaseContext | None:
        caller, own = sys._getframe(1), self.__dict__
        if caller.f_code is asking and own.get(_LISTENER) is not None:
            own[_LISTENER].method_asked(caller.f_back)
        return own["_actual_context"]  # type: ignore[no-any-return]

    def set_actual(self: object, value: BaseContext | None) -> None:
        caller, own = sys._getframe(1), self.__dict__
        own["_actual_context"] = value
        if caller.f_code is not lazy and caller.f_code is not asking and own.get(_LISTENER) is not None:
            through = caller.f_code is setting
            own[_LISTENER].method_set(method_of(value), caller.f_back if through else caller)

    def get_context(self: object, method: str | None = None) -> BaseContext:
        # What `original` does, without the property: this neither sets nor asks for the method.
        if method is not None:
            return original.get_context(self, method)  # type: ignore[no-any-return]
        own = self.__dict__
        actual = own["_actual_context"]
        if actual is None:
            actual = own["_actual_context"] = own["_default_context"]
        return actual  # type: ignore[no-any-return]

    names = {"_actual_context": property(get_actual, set_actual), "get_context": get_context}
    return type("WatchedContext", (_Watched, original), names)


def is_watched(cls: type[Any]) -> bool:
    """Return whether `cls` is the class of a leg's default context."""
    return issubclass(cls, _Watched)


def context_state(package: Package = STDLIB) -> dict[str, Any]:
    """Return the state that determines the default method: `_default_context` (the fallback) and `_actual_context`.

    Since 3.14 `_default_context` is a cached property, absent until first used.
    """
    context = package.default_context
    return {"class": type(context), **context.__dict__}


def restore_context_state(state: Mapping[str, Any], actual: BaseContext | None, package: Package = STDLIB) -> None:
    """Restore a state from `context_state`, with `actual` as the context set by user code."""
    context = package.default_context
    context.__class__ = state["class"]
    own = context.__dict__
    own["_actual_context"] = actual
    for name in ("_default_context", _LISTENER):
        if name in state:
            own[name] = state[name]
        else:
            own.pop(name, None)


def make_default(method: str, listener: ContextListener, package: Package = STDLIB) -> None:
    """Make `method` the interpreter's default, as if built in, with no method set.

    Setting it with ``set_start_method`` would make a suite's own ``set_start_method(m)`` raise RuntimeError.
    """
    context = package.default_context
    context.__class__ = _watched_class(package)
    own = context.__dict__
    own.update({"_default_context": package.concrete_context(method), "_actual_context": None, _LISTENER: listener})


# -- for discovery ---------------------------------------------------------------------------------------------------


class TellingContext(DefaultContext):
    """The default context of a session with discovery. It marks the contexts obtained without naming a method.

    ``get_context()`` returns the same object as ``get_context("fork")``, and that object is all a Pool or executor
    knows. Here ``get_context()`` returns a twin of it instead, whose processes have a class of their own.
    """

    def _get_actual(self) -> BaseContext | None:
        caller, own = sys._getframe(1), self.__dict__
        if own.get(_ASKED) is not None and caller.f_code is DefaultContext.get_start_method.__code__:
            with OwnCode(), suppress(Exception):
                own[_ASKED](caller.f_back)
        actual: BaseContext | None = own["_actual_context"]
        return None if actual is None else twin_of(actual)

    def _set_actual(self, value: BaseContext | None) -> None:
        self.__dict__["_actual_context"] = value
        self.__dict__[_BY_USE] = sys._getframe(1).f_code in _LAZY

    _actual_context = property(_get_actual, _set_actual)


_LAZY = (DefaultContext.get_context.__code__, DefaultContext.get_start_method.__code__)
"""Code that sets the default method when it is first needed."""

_twins: dict[BaseContext, BaseContext] = {}
"""Context -> twin. At most three; kept forever, since a module may hold one from its import on."""


def twin_of(context: BaseContext) -> BaseContext:
    """Return a context that behaves like `context` and is marked as obtained from the default context."""
    if _TWIN in context.__dict__:
        return context
    if context in _twins:
        return _twins[context]
    cls: Any = type(context)
    process = cls.Process

    def __reduce_ex__(self: Any, protocol: object) -> object:  # noqa: N807 - it is put into a class
        # A child can import only the real class.
        reduced = process.__reduce_ex__(self, protocol)
        if type(self) is not twin_class:
            return reduced
        concrete: Any = STDLIB.concrete_context(twin_class._start_method)
        return (object.__new__, (concrete.Process,), *reduced[2:])

    names = {"__module__": process.__module__, "__qualname__": process.__qualname__, "__doc__": process.__doc__}
    twin_class = type(process.__name__, (process,), {**names, _TWIN: True, "__reduce_ex__": __reduce_ex__})
    twin: Any = object.__new__(_twin_class(cls))
    twin.__dict__.update(context.__dict__, **{_TWIN: True, "Process": twin_class})
    return _twins.setdefault(context, twin)


@functools.cache
def _twin_class(cls: Any) -> Any:
    """Return the class for twins of contexts of class `cls`; pickling a twin yields a plain `cls`."""
    reduced = object.__new__, (cls,)
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__reduce__": lambda _: reduced})


def let_twins_be(method: str | None) -> None:
    """Make twins start processes with `method`, or each with its own if None.

    Stands in for what a module that takes its context at import would get if another method were the default.
    """
    for own, twin in list(_twins.items()):
        context: Any = own if method is None else STDLIB.concrete_context(method)
        process = twin.__dict__["Process"]
        cls: Any = type(context)
        twin.__class__ = _twin_class(cls)
        process._start_method = context.Process._start_method
        process._Popen = vars(context.Process)["_Popen"]


def tell_apart(asked: Callable[[FrameType | None], None] | None = None) -> Callable[[], None]:
    """Make the default context a `TellingContext`, and return a function that restores it.

    `asked` is called with the frame that calls ``get_start_method``.
    """
    context: Any = STDLIB.default_context
    before = context.__class__
    if asked is not None:
        context.__dict__[_ASKED] = asked
    if before is not TellingContext:
        context.__class__ = TellingContext
        context.__dict__[_BY_USE] = False

    def undo() -> None:
        if asked is not None and context.__dict__.get(_ASKED) is asked:
            del context.__dict__[_ASKED]
        if before is not TellingContext and type(context) is TellingContext:
            context.__class__ = before
            context.__dict__.pop(_BY_USE, None)

    return undo


def fixed_by_use() -> bool:
    """Return whether the current method was set by first use, not by a call."""
    context = STDLIB.default_context
    return type(context) is TellingContext and bool(context.__dict__.get(_BY_USE))


def class_by_default(cls: type[Any]) -> bool:
    """Return whether processes of `cls` use the default method rather than naming one."""
    return cls._start_method is None or getattr(cls, _TWIN, False)


def pool_by_default(pool: object) -> bool:
    """Return whether a Pool or executor starts its processes with the default method."""
    context = pool_context(pool)
    return context is STDLIB.default_context or _TWIN in getattr(context, "__dict__", ())
