"""Symbols that stand for values while code is followed, with the live object where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model.observed import Read, Step


@dataclass(slots=True, eq=False)
class Ref:
    """The value of a dotted name, in a module or class."""

    module: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    value: Any
    read: Read


@dataclass(slots=True, eq=False)
class Live:
    """An object sent along with the target: an argument, a part of one, or a cell's contents."""

    value: Any
    origin: str
    """``"args[0]"`` or the variable's name; empty if it has neither."""


@dataclass(slots=True, eq=False)
class Instance:
    """Some instance of a class."""

    cls: type


@dataclass(slots=True, eq=False)
class Bound:
    """An attribute of a symbol, ready to be called with the symbol as its receiver."""

    owner: Symbol
    name: str
    symbol: Symbol


@dataclass(slots=True, eq=False)
class Constant:
    """A constant in the code."""

    value: Any


@dataclass(slots=True, eq=False)
class Each:
    """One of several strings: the loop variable of a loop over them."""

    texts: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Space:
    """The ``__dict__`` of a module."""

    symbol: Symbol


@dataclass(slots=True, eq=False)
class Captured:
    """A variable that an importable function has captured."""

    module: str
    names: tuple[str, ...]
    variable: str
    value: Any


@dataclass(slots=True, eq=False)
class Super:
    """``super()`` in a method of `owner`, for an object of `cls`."""

    cls: type
    owner: type
    receiver: Symbol


@dataclass(slots=True, eq=False)
class Several:
    """The tuple of a call's further positional arguments: ``*args``."""

    parts: tuple[Symbol, ...]


Symbol = Ref | Live | Instance | Bound | Constant | Each | Space | Captured | Super | Several | None
NULL = Constant(None)
"""Pushed by CPython next to a callable that is not a method."""


def unbound(symbol: Symbol) -> Symbol:
    """Return the symbol without its receiver."""
    return symbol.symbol if isinstance(symbol, Bound) else symbol


def texts_of(symbol: Symbol) -> tuple[str, ...]:
    """Return the strings that a symbol may stand for: a constant, a known value, or a loop's strings."""
    symbol = unbound(symbol)
    if isinstance(symbol, Each):
        return symbol.texts
    value = symbol.value if isinstance(symbol, (Constant, Ref, Live)) else None
    return (value,) if type(value) is str else ()
