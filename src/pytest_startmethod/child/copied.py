"""Compare an object with its unpickled copy, to find what pickling lost or replaced.

`account` describes the object on either side, in the parent or in a fresh child, as builtins; `lost` compares two
accounts. The child loads this file by path, with the standard library only. No code of the objects is run.
"""

from __future__ import annotations

import functools
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
_CONTAINERS = (type, dict, list, tuple, set, frozenset, str, int)
_ATOMS = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), types.ModuleType,
          types.FunctionType, types.BuiltinFunctionType, range, slice)  # fmt: skip


def picked(root: object, where: Mapping[str, Iterable[int | str]], look: Mapping[str, Any]) -> dict[str, object]:
    """Return the parts of what is sent, by name; `where` leads to each by attributes and indexes.

    `look` is the namespace of `values`. An attribute that is not there is left out.
    """
    found: dict[str, object] = {}
    for name, steps in where.items():
        value: Any = root
        for step in steps:
            if type(step) is int:
                value = value[step]
            elif type(value) is functools.partial:
                value = getattr(value, str(step))
            else:
                value = look["instance_namespace"](value).get(step, look["MISSING"])
        if value is not look["MISSING"]:
            found[name] = value
    return found


def account(
    obj: object,
    look: Mapping[str, Any],
    modules: Iterable[str],
    every: list[tuple[object, str]] | None = None,
    own: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Return an object's description, its parts with a name, and the kernel objects behind its shared parts.

    `look` is the namespace of `values`. Paths are those of `values.differences`. What `modules` hold is known by its
    identity. Parts without content, such as ``UNSET = object()``, are also listed as `plain`. `every` and `own` are
    what `parts` and `named_parts` returned, if they have been called.
    """
    every = list(parts(obj, look["instance_namespace"])) if every is None else every
    own = named_parts(every, modules, modules, look) if own is None else own
    return {
        "node": look["describe"](obj, _BUDGET, True),
        "own": own,
        "plain": [path for part, path in every if path in own and not look["instance_namespace"](part)],
        "bound": {path: name for part, path in every if (name := function_of(part)) is not None},
        "shared": {path: token for part, path in every if (token := _token(part)) is not None},
    }


def lost(
    sent: Mapping[str, Any],
    arrived: Mapping[str, Any],
    differences: Callable[[object, object], Iterable[tuple[str, object, object]]],
) -> list[tuple[str, str, Any, object]]:
    """Return the differences of the copy: kind, path, and the descriptions or texts of both sides.

    The kind is ``"lacks"`` (a missing attribute or key), ``"differs"``, ``"identity"`` (a module global that became
    another object, with its names), ``"new"`` (a lock, pipe or queue that is no longer connected to the original) or
    ``"method"`` (a bound method that became another one of the same name, with the dotted names of both functions).
    """
    found: list[tuple[str, str, Any, object]] = []
    for path, function in sent["bound"].items():
        if (theirs := arrived["bound"].get(path, function)) != function:
            found.append(("method", path, function, theirs))
    for path, names in sent["own"].items():
        theirs = arrived["own"].get(path, [])
        if not set(names) & set(theirs):
            found.append(("identity", path, names, theirs))
    for path, token in sent["shared"].items():
        theirs = arrived["shared"].get(path)
        if theirs is not None and theirs != token:
            found.append(("new", path, token, theirs))
    inside = tuple(path for kind, path, _, _ in found if kind == "new" or path in sent["plain"])
    for path, ours, theirs in differences(sent["node"], arrived["node"]):
        if not path.startswith(inside) or not inside:
            found.append(("lacks" if theirs == ["!"] else "differs", path, ours, theirs))
    return found


def function_of(part: object) -> str | None:
    """Return the dotted name of the function of a bound method in Python, None for anything else."""
    if type(part) is not types.MethodType or type(part.__func__) is not types.FunctionType:
        return None
    return f"{part.__func__.__module__}.{part.__func__.__qualname__}"


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
        elif kind is functools.partial:
            todo += [(getattr(part, name), f"{path}.{name}") for name in ("func", "args", "keywords")]
        else:
            shared = known.get(kind)
            if shared is None:
                shared = known[kind] = _is_shared(kind)
            if shared and _token(part) is not None:
                continue
            todo += [(value, f"{path}.{name}") for name, value in list(namespace_of(part).items())[:MOST]]


def named_parts(
    every: Iterable[tuple[object, str]], modules: Iterable[str], homes: Iterable[str], look: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the dotted names of those of `parts` that are globals of `modules`, or held by those of `homes`."""
    told = [(id(part), path) for part, path in every if _is_instance(type(part))]
    known = names_by_id({each for each, _ in told}, modules, homes, look)
    return {path: known[each] for each, path in told if each in known}


def names_by_id(
    wanted: set[int], modules: Iterable[str], homes: Iterable[str], look: Mapping[str, Any]
) -> dict[int, list[str]]:
    """Return the dotted names of the objects that are one of `wanted`, by id.

    Known are the globals of `modules`, and what the classes, objects and containers in `homes` hold: a singleton in
    ``pkg.Pool._instance``, a flyweight in ``pkg.Unit._units['kg']``.
    """
    found: dict[int, list[str]] = {}
    for name in modules if wanted else ():
        content = look["module_of"](sys.modules.get(name))
        if wanted.isdisjoint(map(id, list(content.values()))):
            continue
        for variable, value in list(content.items()):
            if id(value) in wanted:
                found.setdefault(id(value), []).append(f"{name}.{variable}")
    for name in homes if wanted else ():
        for variable, value in list(look["module_of"](sys.modules.get(name)).items()):
            for part, path in _held(value, f"{name}.{variable}", look, 1):
                if id(part) in wanted:
                    found.setdefault(id(part), []).append(path)
    return found


def _held(value: Any, path: str, look: Mapping[str, Any], depth: int) -> Iterator[tuple[object, str]]:
    """Yield what a class, an object or a container holds, and what is in the objects and containers among that."""
    kind = type(value)
    if kind is dict:
        held = [(each, f"{path}[{key!r}]") for key, each in list(value.items())[:MOST] if type(key) in (str, int)]
    elif kind in (list, tuple):
        held = [(each, f"{path}[{index}]") for index, each in enumerate(value[:MOST])]
    elif issubclass(kind, type):
        own = {} if look["is_stdlib"](value) else type.__getattribute__(value, "__dict__")
        held = [(each, f"{path}.{name}") for name, each in list(own.items()) if not name.startswith("__")]
    else:
        own = look["instance_namespace"](value) if _is_instance(kind) else {}
        held = [(each, f"{path}.{name}") for name, each in list(own.items())[:MOST]]
    for each, name in held:
        yield each, name
        if depth and not issubclass(type(each), type):
            yield from _held(each, name, look, depth - 1)


def _is_instance(kind: type) -> bool:
    """Return whether objects of a class may be told by their identity: plain ones, and those of users' classes."""
    if kind is object:
        return True
    top = str(kind.__module__).partition(".")[0]
    return top not in sys.stdlib_module_names and not (issubclass(kind, _CONTAINERS) or _is_shared(kind))


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
