"""The objects that a process is sent with, examined before and after pickling without running their code."""

from __future__ import annotations

import copyreg
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..child import copied, values
from ..child.differences import differences, short
from ..model.launch import Changed
from ..model.place import Place
from ..model.wire import Json
from .user_code import hook_of

_BUDGET: Final = 200
_MOST: Final = 20
"""So many objects are looked at before and after."""
_PICKLING: Final = ("__getstate__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")
_PARTS: Final = ("target", "args", "kwargs")


def parts(process: object) -> list[tuple[object, str]]:
    """Return what a process takes along, each object with its path as `copied.account` has it."""
    return list(copied.parts(_parts(process), values.instance_namespace))


def _parts(process: object) -> dict[str, object]:
    """Return the ``target``, ``args`` and ``kwargs`` of a process object."""
    own = values.instance_namespace(process)
    return {name: own.get(f"_{name}") for name in _PARTS}


def account(process: object, every: list[tuple[object, str]]) -> Json | None:
    """Return an account of what a process takes along, to be compared with one of the copy (`copied.lost`).

    `every` is what `parts` returned. None where a copy cannot differ: pickle calls no method of the user's, and there
    is no object that may be a sentinel.
    """
    by_class = {kind: _method(kind) for kind in {type(obj) for obj, _ in every}}
    users = {kind for kind in by_class if values.class_name(kind)[0].partition(".")[0] not in sys.stdlib_module_names}
    changing = {kind for kind in users if by_class[kind] is not None or kind in copyreg.dispatch_table}
    if not changing and not any(_may_be_sentinel(obj, users) for obj, _ in every):
        return None
    homes = {values.class_name(kind)[0] for kind in by_class} | _modules_of(_parts(process)["target"])
    modules = sorted(homes - {"builtins"})
    methods = {path: found for obj, path in every if (found := by_class[type(obj)])}
    return {**copied.account(_parts(process), vars(values), modules), "modules": modules, "methods": methods}


def _modules_of(target: object) -> set[str]:
    """Return the module of a target function, and those that its code names: it may compare with their sentinels."""
    function = target.__func__ if type(target) is types.MethodType else target
    if type(function) is not types.FunctionType:
        return set()
    named = (function.__globals__.get(name) for name in function.__code__.co_names)
    return {function.__module__, *(each.__name__ for each in named if type(each) is types.ModuleType)}


def _may_be_sentinel(obj: object, users: set[type]) -> bool:
    return type(obj) is object or (type(obj) in users and not values.instance_namespace(obj))


def _method(cls: type) -> tuple[str, str, Place | None] | None:
    """Return class, pickling method and its place for a class that is not pickled by object's own method."""
    for name in _PICKLING:
        owner, function = values.class_attribute(cls, name)
        if owner not in (None, object):
            place = _place(cls.__dict__.get("__init__", function))
            return ".".join(values.class_name(cls)), f"{values.class_name(owner)[1]}.{name}", place
    return None


@dataclass(frozen=True, slots=True)
class _Before:
    """An object with a user's pickling method, and its attributes."""

    obj: object
    path: str
    method: str
    held: dict[str, tuple[object, list[object]]]


def before(every: list[tuple[object, str]]) -> list[_Before]:
    """Return what each object with a pickling method of the user's holds, to be given to `changes`."""
    found: list[_Before] = []
    known: dict[type, tuple[str, object] | None] = {}
    for obj, path in every:
        kind = type(obj)
        if kind not in known:
            known[kind] = hook_of(kind)
        hook = known[kind]
        if hook is not None and hook[0] in _PICKLING and len(found) < _MOST:
            held = {
                name: (value, values.describe(value, _BUDGET)) for name, value in values.instance_namespace(obj).items()
            }
            found.append(_Before(obj, path_of(path), hook[0], held))
    return found


def changes(seen: list[_Before]) -> Iterator[Changed]:
    """Yield attributes that were removed or changed since `before`; added ones do not count."""
    for each in seen:
        now = values.instance_namespace(each.obj)
        for name, (value, described) in each.held.items():
            if name not in now:
                after = None
            else:
                after = values.describe(now[name], _BUDGET)
                if (now[name] is value and after == described) or not differences(described, after):
                    continue
            yield _changed(each, name, short(described), None if after is None else short(after))


def restore(seen: list[_Before]) -> None:
    """Restore the attributes of objects; only in a copy of the user's process."""
    for each in seen:
        held = {name: value for name, (value, _) in each.held.items()}
        if type(getattr(each.obj, "__dict__", None)) is dict:
            vars(each.obj).clear()
        for name, value in held.items():
            object.__setattr__(each.obj, name, value)


def _changed(each: _Before, name: str, ours: str, after: str | None) -> Changed:
    cls = type(each.obj)
    owner, function = values.class_attribute(cls, each.method)
    code = getattr(function, "__code__", None)
    readers = {
        reader
        for base in type.mro(cls)
        for reader, value in vars(base).items()
        if name in getattr(getattr(value, "__code__", None), "co_names", ())
    }
    return Changed(
        each.path,
        f"{values.class_name(owner)[1]}.{each.method}",
        _place(function),
        tuple(sorted({line for _, _, line in code.co_lines() if line})) if code is not None else (),
        name,
        ours,
        after,
        frozenset(readers - {each.method}),
    )


def _place(function: object) -> Place | None:
    """Return the first line of a function; the source is not read while a process starts."""
    code = getattr(function, "__code__", None)
    return None if code is None else Place(os.path.abspath(code.co_filename), code.co_firstlineno, code.co_name)


def path_of(path: str) -> str:
    """Return a path of an account in the user's notation: ``args[0].lock``."""
    for name in _PARTS:
        path = path.replace(f"[{name!r}]", name, 1) if path.startswith(f"[{name!r}]") else path
    return path
