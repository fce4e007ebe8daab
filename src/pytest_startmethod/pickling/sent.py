"""What a process object takes along, looked at before and after it is pickled without running any of its code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..child import copied, values
from ..child.differences import differences, short
from ..model.launch import Changed
from ..model.place import Place
from .user_code import hook_of

_BUDGET: Final = 200
_PICKLING: Final = ("__getstate__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")
_PARTS: Final = ("target", "args", "kwargs")


def parts(process: object) -> Iterator[tuple[Any, str]]:
    """Yield what a process takes along, each object with its path: ``args[0].lock``."""
    for obj, path in copied.parts(_parts(process), values.instance_namespace):
        yield obj, path_of(path)


def _parts(process: object) -> dict[str, Any]:
    """Return target, arguments and keyword arguments of a process object, by these names."""
    own = values.instance_namespace(process)
    return {name: own.get(f"_{name}") for name in _PARTS}


def account(process: object) -> dict[str, Any]:
    """Return an account of what a process takes along, to be compared with one of the copy (`copied.lost`)."""
    taken, look = _parts(process), vars(values)
    every = list(copied.parts(taken, values.instance_namespace))
    modules = sorted({values.class_name(type(obj))[0] for obj, _ in every} - {"builtins"})
    methods = {path: found for obj, path in every if (found := _method(obj))}
    return {**copied.account(taken, look, modules), "modules": modules, "methods": methods}


def _method(obj: object) -> tuple[str, str, Place | None] | None:
    """Return class, pickling method and its place for an object that is not pickled by object's own method."""
    cls = type(obj)
    for name in _PICKLING:
        owner, function = values.class_attribute(cls, name)
        if owner not in (None, object):
            place = _place(cls.__dict__.get("__init__", function))
            return ".".join(values.class_name(cls)), f"{values.class_name(owner)[1]}.{name}", place
    return None


@dataclass(frozen=True, slots=True)
class _Before:
    """An object with a pickling method of the user's, and what it held."""

    obj: Any
    path: str
    method: str
    held: dict[str, tuple[Any, list[Any]]]


def before(process: object) -> list[_Before]:
    """Return what each object with a pickling method of the user's holds, to be given to `changes`."""
    found = []
    for obj, path in parts(process):
        hook = hook_of(type(obj))
        if hook is not None and hook[0] in _PICKLING:
            held = {
                name: (value, values.describe(value, _BUDGET)) for name, value in values.instance_namespace(obj).items()
            }
            found.append(_Before(obj, path, hook[0], held))
    return found


def changes(seen: list[_Before]) -> Iterator[Changed]:
    """Yield what objects no longer hold, or hold otherwise; what they hold in addition is theirs to keep."""
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
    """Give objects back what they held; only in a copy of the user's process."""
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
    """Return the first line of a function, whose source is not read while a process starts."""
    code = getattr(function, "__code__", None)
    return None if code is None else Place(os.path.abspath(code.co_filename), code.co_firstlineno, code.co_name)


def path_of(path: str) -> str:
    """Return a path of an account as the user would write it: ``args[0].lock``."""
    for name in _PARTS:
        path = path.replace(f"[{name!r}]", name, 1) if path.startswith(f"[{name!r}]") else path
    return path
