"""What stands for a value while code is followed: the live object that it is, as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model.observed import Read, Step


@dataclass(slots=True, eq=False)
class Ref:
    """What a dotted name leads to."""

    module: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    value: Any
    read: Read


@dataclass(slots=True, eq=False)
class Live:
    """An object that travels with the target: an argument, a part of one, or what is in a cell."""

    value: Any
    origin: str
    """``"args[0]"``, or the variable's name; empty where it has none."""


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
    """A value that the code itself states."""

    value: Any


@dataclass(slots=True, eq=False)
class Each:
    """One of several strings: what a loop over them binds."""

    texts: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Space:
    """The ``__dict__`` of a module."""

    symbol: Symbol


@dataclass(slots=True, eq=False)
class Captured:
    """A variable that a function with a name of its own took from the function around it."""

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


Symbol = Ref | Live | Instance | Bound | Constant | Each | Space | Captured | Super | None
NULL = Constant(None)
"""What CPython pushes beside a callable that is no method."""


def unbound(symbol: Symbol) -> Symbol:
    """Return what an attribute is, without its receiver."""
    return symbol.symbol if isinstance(symbol, Bound) else symbol


def texts_of(symbol: Symbol) -> tuple[str, ...]:
    """Return the strings that a symbol may be: a constant, a module's or an argument's value, a loop's."""
    symbol = unbound(symbol)
    if isinstance(symbol, Each):
        return symbol.texts
    value = symbol.value if isinstance(symbol, (Constant, Ref, Live)) else None
    return (value,) if type(value) is str else ()
