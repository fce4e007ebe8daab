"""The objects that a process is sent with, examined before and after pickling without running their code."""

from __future__ import annotations

import copyreg
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os.path import abspath
from typing import Any, Final, TypeGuard

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..child import copied, values
from ..child.differences import differences, short
from ..model.launch import Changed
from ..model.place import Place
from ..model.wire import Json
from ..source.callers import owner
from . import dry_run
from .user_code import hook_of

_BUDGET: Final = 200
_MOST: Final = 20
"""So many objects are looked at before and after."""
_NAMED: Final = re.compile(r"\['(?P<name>[^']+?)(\*'\]\[\d+\]|'\])")
_PICKLING: Final = ("__getstate__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")
_FORMS: Final = {"call": "args", "map": "args[0]*", "starmap": "args*"}
"""The name of a task's arguments. With a star they are many tasks' own, one after the other."""


def where(obj: object) -> dict[str, tuple[int | str, ...]]:
    """Return where the user's parts of a process or task are, by name, for `copied.picked`.

    Of a worker these are ``initializer`` and ``initargs``; an instance of a subclass of Process has attributes.
    """
    if cpython.is_process(obj):
        own: dict[str, Any] = values.instance_namespace(obj)
        if mp.worker_initializer(own.get("_target"), own.get("_args", ())) is not None:
            return {"initializer": ("_args", 2), "initargs": ("_args", 3)}
        users = [name for name in own if name not in cpython.PROCESS_FIELDS][: copied.MOST]
        return {
            **{name: (f"_{name}",) for name in ("target", "args", "kwargs")},
            **{f"process.{n}": (n,) for n in users},
        }
    call = dry_run.as_call(obj)
    if not isinstance(call, dry_run.Call):
        return {}
    fields: tuple[tuple[int | str, ...], ...] = ((2,), (3,), (4,))
    if cpython.call_item(obj) is not None:
        fields = ("fn",), ("args",), ("kwargs",)
    function, args, kwargs = fields
    if call.form == "call":
        return {"target": function, "args": args, "kwargs": kwargs}
    if args == ("args",):  # of ProcessPoolExecutor.map: see `cpython.inner_task`
        return {"target": ("fn", "args", 0), _FORMS[call.form]: ("args", 0)}
    return {"target": (3, 0, 0), _FORMS[call.form]: (3, 0, 1)}


def parts(obj: object) -> list[tuple[object, str]]:
    """Return what a process or task takes along, each object with its path as `copied.account` has it."""
    picked = copied.picked(obj, where(obj), vars(values))
    found = list(copied.parts(picked, values.instance_namespace))
    return [(obj, _PROCESS), *found] if cpython.is_process(obj) and hook_of(type(obj)) is not None else found


_PROCESS: Final = "['process."
"""What the paths to attributes of a process object begin with."""


def account(obj: object, every: list[tuple[object, str]]) -> Json | None:
    """Return an account of what a process or task takes along, to be compared with one of the copy (`copied.lost`).

    `every` is what `parts` returned. None where a copy cannot differ: pickle calls no method of the user's, no object
    is the global of a module, and no method is another than its name says.
    """
    by_class = {kind: _method(kind) for kind in {type(obj) for obj, _ in every}}
    users = {kind for kind in by_class if not values.is_stdlib(kind)}
    functions = {path: _place(part.__func__) for part, path in every if _is_another(part)}
    changing = functions or any(by_class[kind] is not None or kind in copyreg.dispatch_table for kind in users)
    if not changing and not users and object not in by_class:
        return None
    steps = where(obj)
    picked = copied.picked(obj, steps, vars(values))
    own = copied.named_parts(every, _loaded(), _homes(users, picked), vars(values))
    if not changing and not own:
        return None
    own.pop(_PROCESS, None)
    inside = [(part, path) for part, path in every if path != _PROCESS]
    return {
        **copied.account(picked, vars(values), (), inside, own),
        "where": steps,
        "modules": sorted({split_name(name)[0] for names in own.values() for name in names}),
        "functions": functions,
        "methods": {path: method for obj, path in every if (method := by_class[type(obj)])},
        "task": not cpython.is_process(obj),
    }


def _is_another(method: Any) -> TypeGuard[types.MethodType]:
    """Return whether it is a bound method that its object does not have under its name, by which pickle sends it.

    ``super().run`` is one, and so is a decorated method without `functools.wraps`. `method___reduce__` in CPython's
    Objects/classobject.c.
    """
    if copied.function_of(method) is None:
        return False
    obj, function = method.__self__, method.__func__
    found = values.class_attribute(obj if issubclass(type(obj), type) else type(obj), function.__name__)[1]
    return getattr(found, "__func__", found) is not function


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
    return None if code is None else Place(abspath(code.co_filename), code.co_firstlineno, code.co_name)


def _homes(users: Iterable[type], picked: Mapping[str, object]) -> list[str]:
    """Return the user's modules of classes and functions that are sent: what these hold may be told by identity."""
    names = {values.class_name(kind)[0] for kind in users}
    for value in picked.values():
        for each in value if type(value) is tuple else (value,):
            function = each.__func__ if type(each) is types.MethodType else each
            if type(function) is types.FunctionType and type(function.__module__) is str:
                names.add(function.__module__)
    files = {name: values.module_of(sys.modules.get(name)).get("__file__") for name in names}
    return [name for name, file in files.items() if type(file) is str and owner(file) == "user"]


def global_name(obj: object) -> tuple[str, str] | None:
    """Return module and name of a user's global that is `obj`, or that holds it."""
    names = copied.names_by_id({id(obj)}, _loaded(), _homes([type(obj)], {}), vars(values))
    return split_name(names[id(obj)][0]) if names else None


def split_name(name: str) -> tuple[str, str]:
    """Return the module of a dotted name, and the rest: ``("pkg", "Unit._units['kg']")``."""
    parts = name.partition("[")[0].split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (module := ".".join(parts[:end])) in sys.modules:
            return module, name[len(module) + 1 :]
    return "", name


_NOT_USERS: Final = sys.stdlib_module_names | {"_pytest", "pluggy", "pytest", "pytest_startmethod"}
"""Modules whose globals nobody sends to a process; each start would search their thousands of names."""


def _loaded() -> list[str]:
    return [name for name in list(sys.modules) if name.partition(".")[0] not in _NOT_USERS]


def path_of(path: str) -> str:
    """Return a path of an account in the user's notation: ``args[0].lock``."""
    if path == _PROCESS:
        return "process"
    found = _NAMED.match(path)
    return found["name"] + path[found.end() :] if found is not None else path
