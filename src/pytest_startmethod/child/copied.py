"""Compare an object with its unpickled copy, to find what pickling lost or replaced.

`account` describes the object on either side, in the parent or in a fresh child, as builtins; `lost` compares two
accounts. The child loads this file by path, with the standard library only. No code of the objects is run.
"""

from __future__ import annotations

import os
import sys
import types
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

MOST = 300
"""Limit on the objects inspected; it costs about 1 ms per process start."""
_BUDGET = 300
_ATOMS = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), types.ModuleType,
          types.FunctionType, types.BuiltinFunctionType, range, slice)  # fmt: skip


def account(obj: object, look: Mapping[str, Any], modules: Iterable[str] | None = None) -> dict[str, Any]:
    """Return an object's description, its sentinels, and the kernel objects behind its shared parts.

    `look` is the namespace of `values`. Paths are those of `values.differences`. A sentinel is a module global without
    content, known only by its identity; it is searched for in `modules`, or in all modules if None.
    """
    own: dict[str, str] = {}
    shared: dict[str, str] = {}
    known = _sentinels(look, sys.modules if modules is None else modules)
    for part, path in parts(obj, look["instance_namespace"]):
        if id(part) in known:
            own[path] = known[id(part)]
        token = _token(part)
        if token is not None:
            shared[path] = token
    return {"node": look["describe"](obj, _BUDGET), "own": own, "shared": shared}


def lost(
    sent: Mapping[str, Any],
    arrived: Mapping[str, Any],
    differences: Callable[[object, object], Iterable[tuple[str, object, object]]],
) -> list[tuple[str, str, Any, object]]:
    """Return the differences of the copy: kind, path, and the descriptions or texts of both sides.

    The kind is ``"lacks"`` (a missing attribute or key), ``"differs"``, ``"identity"`` (a sentinel that became another
    object) or ``"new"`` (a lock, pipe or queue that is no longer connected to the original).
    """
    found: list[tuple[str, str, object, object]] = []
    for path, name in sent["own"].items():
        if arrived["own"].get(path) != name:
            found.append(("identity", path, name, arrived["own"].get(path, "")))
    for path, token in sent["shared"].items():
        theirs = arrived["shared"].get(path)
        if theirs is not None and theirs != token:
            found.append(("new", path, token, theirs))
    inside = tuple(path for _, path, _, _ in found)
    for path, ours, theirs in differences(sent["node"], arrived["node"]):
        if not path.startswith(inside) or not inside:
            found.append(("lacks" if theirs == ["!"] else "differs", path, ours, theirs))
    return found


def parts(obj: Any, namespace_of: Callable[[object], dict[str, object]]) -> Iterator[tuple[object, str]]:
    """Yield an object and its parts with their paths, breadth first and each once."""
    todo, seen, known = deque([(obj, "")]), set[int](), dict[type, bool]()
    while todo and len(seen) < MOST:
        part, path = todo.popleft()
        kind = type(part)
        if kind in _ATOMS or issubclass(kind, type) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part, path
        if kind in (list, tuple):
            todo += [(each, f"{path}[{index}]") for index, each in enumerate(part[:MOST])]
        elif kind is dict:
            todo += [(value, f"{path}[{key!r}]") for key, value in list(part.items())[:MOST] if type(key) in (str, int)]
        elif kind is types.MethodType:
            todo.append((part.__self__, f"{path}.__self__"))
        else:
            shared = known.get(kind)
            if shared is None:
                shared = known[kind] = _is_shared(kind)
            if shared and _token(part) is not None:
                continue
            todo += [(value, f"{path}.{name}") for name, value in list(namespace_of(part).items())[:MOST]]


def _sentinels(look: Mapping[str, Any], modules: Iterable[str]) -> dict[int, str]:
    """Return the dotted names of module globals without content, such as ``UNSET = object()``, by id."""
    found: dict[int, str] = {}
    for name, module in [(each, sys.modules.get(each)) for each in list(modules)]:
        for variable, value in list(look["module_of"](module).items()):
            kind = type(value)
            if kind in _ATOMS or issubclass(kind, (type, dict, list, tuple, set, frozenset)):
                continue
            plain = kind is object or look["class_name"](kind)[0] == name
            if plain and not look["instance_namespace"](value) and _token(value) is None:
                found.setdefault(id(value), f"{name}.{variable}")
    return found


def _is_shared(kind: type) -> bool:
    """Return whether a class is one of multiprocessing's."""
    tops = {str(cls.__module__).partition(".")[0] for cls in type.mro(kind)} if kind is not type else set()
    return "multiprocessing" in tops or "_multiprocessing" in tops


def _token(part: object) -> str | None:
    """Return an identifier, the same in every process, of the semaphore or descriptor in a multiprocessing object."""
    if not _is_shared(type(part)):
        return None
    own = getattr(part, "__dict__", {})
    lock = own.get("_semlock", part)
    if type(lock).__name__ == "SemLock":
        return f"semaphore {lock.name}"
    reader = own.get("_reader", part)
    try:
        status = os.fstat(reader.fileno())
    except Exception:
        return None
    return f"descriptor {status.st_dev}:{status.st_ino}"
