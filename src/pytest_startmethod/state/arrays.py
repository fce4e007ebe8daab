"""Find arrays of numpy over memory that processes share: pickling copies their data, and a fork does not."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from ..child.values import instance_namespace

_MOST = 100
"""How many objects are looked at."""
_DEEPEST = 20
"""How many views of views are followed."""


def over_shared_memory(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield path and kind of memory of the arrays in `given`, in its containers, and in the attributes of objects."""
    if "numpy" not in sys.modules:
        return
    todo, seen = list(given.items()), 0
    while todo and seen < _MOST:
        path, value = todo.pop(0)
        kind, seen = type(value), seen + 1
        if kind in (tuple, list):
            todo += [(f"{path}[{number}]", each) for number, each in enumerate(value[:_MOST])]
        elif kind is dict:
            todo += [(f"{path}[{key!r}]", each) for key, each in list(value.items())[:_MOST] if type(key) is str]
        elif _is_array(kind):
            memory = _memory(value)
            if memory:
                yield path, memory
        elif kind is types.MethodType:
            todo.append((f"{path}.__self__", value.__self__))
        elif kind.__module__.partition(".")[0] not in ("builtins", "multiprocessing", "threading"):
            todo += [(f"{path}.{name}", each) for name, each in list(instance_namespace(value).items())]


def _is_array(kind: type) -> bool:
    return any(each.__module__ == "numpy" and each.__name__ == "ndarray" for each in type.mro(kind))


def _memory(array: Any) -> str:
    """Return what kind of shared memory an array lies in, or ``""`` if in none. Runs no code of a subclass."""
    base_of = sys.modules["numpy"].ndarray.base.__get__
    each: Any = array
    for _ in range(_DEEPEST):
        kind = type(each)
        if kind.__module__ == "mmap":
            return "a mapped file or mapped memory"
        if "_wrapper" in instance_namespace(each):  # multiprocessing/sharedctypes.py
            return "a multiprocessing Array"
        if kind is memoryview:
            each = each.obj
        elif _is_array(kind):
            each = base_of(each)
        else:
            return ""
    return ""
