"""Classes for the default context: one that reports what is set and asked, one that marks what is taken from it.

The bound methods in the `multiprocessing` namespace (``multiprocessing.set_start_method``) were made at import, so
replacing a function on the class or in the module misses whoever imported it by name. The object behind them is always
the same one, and its class can be exchanged. When ``_actual_context`` goes: wrap the names of `multiprocessing`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import BaseContext, DefaultContext
from types import FrameType
from typing import Any, Protocol

from .._compat.multiprocessing import STDLIB, Package, method_of, pool_context

_LISTENER, _TWIN = "_pytest_startmethod_listener", "_pytest_startmethod_twin"
_ASKED, _BY_USE = "_pytest_startmethod_asked", "_pytest_startmethod_by_use"


class ContextListener(Protocol):
    """What is told of the default context while a leg runs."""

    def method_set(self, method: str | None, caller: FrameType | None) -> None:
        """Note a call of ``set_start_method``."""

    def method_asked(self, caller: FrameType | None) -> None:
        """Note a call of ``get_start_method``."""


# -- a leg's ---------------------------------------------------------------------------------------------------------


class _Watched:
    """The default context while a leg runs."""


@functools.cache
def _watched_class(package: Package) -> Any:
    """Return a subclass of the package's DefaultContext that reports to the listener in the context's namespace.

    Every start asks it, and so does every forked child.
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
        # What `original` does, without the property: nobody sets or asks for anything here.
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
    """Return whether a default context of this class is a leg's."""
    return issubclass(cls, _Watched)


def context_state(package: Package = STDLIB) -> dict[str, Any]:
    """Return what makes a method the default: `_default_context` (used when nothing was set), `_actual_context`.

    Since 3.14 the former is a cached property, absent until somebody needs it.
    """
    context = package.default_context
    return {"class": type(context), **context.__dict__}


def restore_context_state(state: Mapping[str, Any], actual: BaseContext | None, package: Package = STDLIB) -> None:
    """Put `state` of `context_state` back, with `actual` as the context that user code set."""
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
    """Make `method` the interpreter's default, as if it were built in, and leave the set one unset.

    Pinning it with ``set_start_method`` would make a suite's own ``set_start_method(m)`` raise RuntimeError.
    """
    context = package.default_context
    context.__class__ = _watched_class(package)
    own = context.__dict__
    own.update({"_default_context": package.concrete_context(method), "_actual_context": None, _LISTENER: listener})


# -- discovery's -----------------------------------------------------------------------------------------------------


class TellingContext(DefaultContext):
    """The default context of a session that discovers: marks what is taken from it without naming a method.

    ``get_context()`` returns the same object as ``get_context("fork")``, and a Pool or an executor knows only that
    object. Here the former returns a twin of it, whose processes are of a class of their own.
    """

    def _get_actual(self) -> BaseContext | None:
        caller, own = sys._getframe(1), self.__dict__
        if own.get(_ASKED) is not None and caller.f_code is DefaultContext.get_start_method.__code__:
            own[_ASKED](caller.f_back)
        actual: BaseContext | None = own["_actual_context"]
        return None if actual is None else twin_of(actual)

    def _set_actual(self, value: BaseContext | None) -> None:
        self.__dict__["_actual_context"] = value
        self.__dict__[_BY_USE] = sys._getframe(1).f_code in _LAZY

    _actual_context = property(_get_actual, _set_actual)


_LAZY = (DefaultContext.get_context.__code__, DefaultContext.get_start_method.__code__)
"""The code that makes the default method the one that is set, when it is needed first."""

_twins: dict[BaseContext, BaseContext] = {}
"""Context -> twin. Three at most: they are constants, since a module may hold one from its import on."""


def twin_of(context: BaseContext) -> BaseContext:
    """Return a context that does all that `context` does, and is known as what the default context gave."""
    if _TWIN in context.__dict__:
        return context
    if context in _twins:
        return _twins[context]
    cls: Any = type(context)
    process = cls.Process

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807 - it is put into a class
        # A child knows the real class only.
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
    """Return the class of a twin of a context of `cls`: a child gets one of `cls`."""
    reduced = object.__new__, (cls,)
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__reduce__": lambda _: reduced})


def let_twins_be(method: str | None) -> None:
    """Make what the default context gave start processes with `method`; None: each with its own.

    A module that takes its context when it is imported has another one where another method is the default.
    """
    for own, twin in list(_twins.items()):
        context: Any = own if method is None else STDLIB.concrete_context(method)
        process = twin.__dict__["Process"]
        cls: Any = type(context)
        twin.__class__ = _twin_class(cls)
        process._start_method = context.Process._start_method
        process._Popen = vars(context.Process)["_Popen"]


def tell_apart(asked: Callable[[FrameType | None], None] | None = None) -> Callable[[], None]:
    """Make the default context a `TellingContext`; the function that is returned puts back what was there.

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
    """Return whether the method that is set is known to be nobody's choice."""
    context = STDLIB.default_context
    return type(context) is TellingContext and bool(context.__dict__.get(_BY_USE))


def class_by_default(cls: type[Any]) -> bool:
    """Return whether the default context says how processes of `cls` start, and not a context that names its method."""
    return cls._start_method is None or getattr(cls, _TWIN, False)


def pool_by_default(pool: object) -> bool:
    """Return whether a Pool or executor starts its processes as the default context says."""
    context = pool_context(pool)
    return context is STDLIB.default_context or _TWIN in getattr(context, "__dict__", ())
