"""Tell whether pickling an object would run code outside the standard library, without running any.

`object.__reduce_ex__` (``object_reduce_ex`` in Objects/typeobject.c) and ``save`` in Modules/_pickle.c look up a few
special methods. A class that leaves all of them to the standard library pickles by C code alone.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Final

from .._compat.cpython import Reducer
from ..child.values import class_attribute, mro
from ..source.callers import owner
from .walk import own_namespace

HOOKS: Final = (
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__getnewargs_ex__",
    "__getnewargs__",
    "__getinitargs__",  # datetime.tzinfo.__reduce__
    "__getattribute__",
    "__getattr__",  # 3.10: object has no __getstate__, so the lookup falls through to it
    "__class__",
    "__dict__",
    "items",  # of a subclass of dict
    "__iter__",  # of a subclass of list
)
"""What pickle looks up on an object or its class."""
_HOOKS: Final = frozenset(HOOKS)
_OF_A_KEY: Final = ("__hash__", "__eq__")
"""What a class needs to be looked up in a dispatch table."""
_ACTING: Final = frozenset({"logging", "itertools"})
"""Modules of the standard library whose reductions act: a logger's may make one, an iterator's warns on 3.12."""
_CONTAINERS: Final = {"items": dict, "__iter__": list}


def runs_user_code(obj: object, table: Mapping[type, Reducer], known: dict[int, bool | None]) -> bool:
    """Return whether pickling `obj` itself, without what it holds, may call code outside the standard library.

    `table` is the pickler's dispatch table; its entries are trusted if their function is the standard library's or
    this package's. `known` keeps what was found out about classes, by id: a metaclass may define `__hash__`.
    """
    cls = type(obj)
    try:
        runs = known[id(cls)]
    except KeyError:
        runs = known[id(cls)] = _class_runs_user_code(cls, table)
    if runs is not None:
        return runs
    namespace = own_namespace(obj)
    return namespace is not None and not _HOOKS.isdisjoint(namespace)


def _class_runs_user_code(cls: type, table: Mapping[type, Reducer]) -> bool | None:
    """Return that for all objects of a class; None: what an object has of its own decides."""
    if type(cls) is not type and any(class_attribute(type(cls), name)[0] is not object for name in _OF_A_KEY):
        return True
    reducer = table.get(cls)
    if reducer is not None:
        return not _trusted(reducer)
    if cls is types.FunctionType or cls is type or cls is types.BuiltinFunctionType:
        return False
    hooked = hook_of(cls) is not None or (type(cls) is not type and hook_of(type(cls)) is not None)
    return True if hooked else None


def hook_of(cls: type) -> tuple[str, object] | None:
    """Return the first special method of `cls` that is not the standard library's: its name and what is bound to it."""
    order = mro(cls)
    for each in order:
        if _is_stdlib(each):
            if each.__module__ in _ACTING:
                return "__reduce__", None
            continue
        names: Mapping[str, object] = type.__getattribute__(each, "__dict__")
        for name in HOOKS:
            value = names.get(name)
            if value is None or _trusted(value):
                continue
            if name in ("__dict__", "__class__") and type(value) is types.GetSetDescriptorType:  # a class statement's
                continue
            if name in _CONTAINERS and _CONTAINERS[name] not in order:
                continue
            return name, value
    return None


def _trusted(value: object) -> bool:
    """Return whether calling `value` runs the standard library's or this package's code only."""
    if type(value) is types.FunctionType:
        return owner(value.__code__.co_filename) in ("stdlib", "ours")
    if type(value) in (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType):
        module = getattr(getattr(value, "__objclass__", None), "__module__", None) or getattr(value, "__module__", None)
        return type(module) is str and module.partition(".")[0] in sys.stdlib_module_names
    return value is object or (isinstance(value, type) and _is_stdlib(value))


def _is_stdlib(cls: type) -> bool:
    try:
        module = type.__getattribute__(cls, "__module__")
    except AttributeError:
        return False
    if type(module) is not str or module.partition(".")[0] not in sys.stdlib_module_names:
        return False
    return module == "builtins" or sys.modules.get(module) is not None
