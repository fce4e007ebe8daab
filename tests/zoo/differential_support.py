"""Building blocks of random object graphs, in a separate module because children that receive a graph import it."""

from __future__ import annotations

import pickle
from typing import Any


class Node:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


class Slots:
    __slots__ = ("one", "two")


class Custom(Node):
    def __getstate__(self) -> Any:
        return {"kept": self.__dict__.get("kept")}

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)


class Reduced(Node):
    def __reduce__(self) -> Any:
        return Reduced, (), dict(self.__dict__)


class Raising(Node):
    def __reduce__(self) -> Any:
        raise ValueError("no")


class Items(list):  # type: ignore[type-arg]
    pass


def module_level(*_: Any) -> None:
    """Do nothing."""


def receive(connection: Any, obj: Any) -> None:
    connection.send(len(pickle.dumps(obj)) > 0)
