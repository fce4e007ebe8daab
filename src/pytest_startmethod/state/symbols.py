"""Symbols that stand for values while code is followed, with the live object where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..model.observed import Read, Step

_MOST_PARTS: Final = 100


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
    """A tuple, list or dictionary of known parts, such as the ``*args`` and ``**keywords`` of a call."""

    parts: dict[int | str, Symbol]
    """The items by index or key."""
    open: bool = False
    """Whether what follows the parts is unknown, as in ``[1, *unknown]``."""

    def extend(self, more: Symbol) -> None:
        """Append the parts of a sequence, or add those of a dictionary."""
        parts, first = parts_of(more), len(self.parts)
        if not self.open:
            self.parts.update({first + key if type(key) is int else key: part for key, part in (parts or {}).items()})
        self.open = self.open or parts is None


Symbol = Ref | Live | Instance | Bound | Constant | Each | Space | Captured | Super | Several | None
NULL = Constant(None)
"""Pushed by CPython next to a callable that is not a method."""


def unbound(symbol: Symbol) -> Symbol:
    """Return the symbol without its receiver."""
    return symbol.symbol if isinstance(symbol, Bound) else symbol


def parts_of(symbol: Symbol) -> dict[int | str, Symbol] | None:
    """Return the items of a tuple, list or dictionary by index or key, or None if they are not known."""
    if isinstance(symbol, Several):
        return None if symbol.open else symbol.parts
    if not isinstance(symbol, Live) or type(symbol.value) not in (tuple, list, dict) or len(symbol.value) > _MOST_PARTS:
        return None
    items = symbol.value.items() if type(symbol.value) is dict else enumerate(symbol.value)
    return {key: Live(each, f"{symbol.origin}[{key!r}]") for key, each in items if type(key) in (int, str)}


def texts_of(symbol: Symbol) -> tuple[str, ...]:
    """Return the strings that a symbol may stand for: a constant, a known value, or a loop's strings."""
    symbol = unbound(symbol)
    if isinstance(symbol, Each):
        return symbol.texts
    value = symbol.value if isinstance(symbol, (Constant, Ref, Live)) else None
    return (value,) if type(value) is str else ()
