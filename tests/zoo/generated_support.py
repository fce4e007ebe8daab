"""Building blocks of random calls and the answering child, in a separate module because children import it."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pickle
import sys
from typing import Any, NamedTuple


def serve(connection: Any) -> None:
    """Answer whether bytes load, or what a module's `read` returns, until the other end is closed."""
    while True:
        try:
            what, given = connection.recv()
        except EOFError:
            return
        try:
            if what == "load":
                pickle.loads(given)
                connection.send(True)
            else:
                folder, name = given
                sys.path.insert(0, folder)
                connection.send(repr(importlib.import_module(name).read()))
        except Exception:
            connection.send(False)


def nothing(*_: object) -> None:
    """Accept any arguments."""


class Node:
    def __init__(self, *held: Any) -> None:
        self.held = held

    def method(self) -> None:
        """Be a bound method."""


class Slotted:
    __slots__ = ("one",)

    def __init__(self, one: Any) -> None:
        self.one = one


class Reduced(Node):
    def __reduce__(self) -> Any:
        return Reduced, self.held


class Rebuilt(Node):
    def __reduce__(self) -> Any:
        return Node, (), {"held": self.held}, iter(()), iter(())


class Raises(Node):
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class Refuses(Node):
    def __setstate__(self, state: Any) -> None:
        raise ValueError("not here")


class NeedsTwoError(Exception):
    def __init__(self, one: Any, two: Any) -> None:
        super().__init__(one)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    one: Any


class Pair(NamedTuple):
    one: Any
    two: Any


class Shadowed:
    """A class whose name now belongs to another one."""


first_shadowed = Shadowed


class Shadowed:  # type: ignore[no-redef]
    """The class that has the name."""


def local() -> tuple[Any, ...]:
    class Local:
        pass

    class LocalColour(enum.Enum):
        RED = 1

    def nested() -> None:
        """Have no importable name."""

    return Local, Local(), LocalColour.RED, nested


def cyclic(child: Any) -> list[Any]:
    made = [child]
    made.append(made)
    return made
