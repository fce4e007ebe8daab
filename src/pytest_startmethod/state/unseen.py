"""State that no code was seen to read by its name, and what kind of value is worth a comparison."""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from ..child import process_state
from ..child.values import class_name, describe, module_of
from ..model.observed import Binding, Observed, Read, Where
from ..source.callers import owner
from .attributes import GUESSED

_MOST_UNSEEN: Final = 200


def add_unseen(observed: Observed) -> None:
    """Add what no code was seen to read by name: settings of loaded modules, the user's functions in other modules.

    Also the data of the modules that the code is from: it may be read by ``globals()[name]`` or ``getattr``.
    """
    file, function, line = observed.codes[0]
    where = Where(file, line, function, "")
    for name in process_state.UNSEEN:
        if name.partition(".")[0] in sys.modules:
            observed.touched.setdefault(name, where)
    known, files = {(each.module, each.names) for each in observed.bindings}, {each for each, _, _ in observed.codes}
    found: list[tuple[str, tuple[str, ...], object]] = []
    for name, module in list(sys.modules.items()):
        home = module_of(module).get("__file__")
        if name in ("__main__", "__mp_main__"):
            continue
        if type(home) is not str or owner(home) in ("stdlib", "installed"):
            found += [(name, names, value) for names, value in _users_functions(name, module)]
        elif home in files:
            found += [(name, (variable,), value) for variable, value in _data(module)]
    for name, names, value in found[:_MOST_UNSEEN]:
        if (name, names) not in known:
            read, rebound = Read(name, names, (), where, depth=GUESSED), _is_users_function(value) or _stores(value)
            kind = ".".join(class_name(type(value)))
            observed.bindings.append(Binding(name, names, (), describe(value), read, rebound, len(names) > 1, kind))


def _users_functions(name: str, module: object) -> Iterable[tuple[tuple[str, ...], object]]:
    """Yield the user's functions that were put into a module, or into a class that it defines."""
    for variable, value in list(module_of(module).items()):
        if _is_users_function(value) or (_stores(value) and not variable.startswith("_")):  # warnings records by one
            yield (variable,), value
        elif issubclass(type(value), type) and class_name(value) == (name, variable):
            for attribute, each in list(type.__getattribute__(value, "__dict__").items()):
                if _is_users_function(each):
                    yield (variable, attribute), each


def _is_users_function(value: object) -> bool:
    """Return whether a value is a function of the user's, or a method of an object of theirs."""
    raw = value.__func__ if type(value) is types.MethodType else value
    return type(raw) is types.FunctionType and owner(raw.__code__.co_filename) == "user"


def _stores(value: Any) -> bool:
    """Return whether a value is a method that stores what it is called with, such as a list's ``append``."""
    if type(value) not in (types.BuiltinFunctionType, types.MethodType):
        return False
    kind = type(value.__self__)
    return kind in (list, dict, set, deque) or class_name(kind)[0] in ("queue", "_queue", "multiprocessing.queues")


def _data(module: object) -> Iterable[tuple[str, object]]:
    """Yield a module's globals that are neither code nor set by the import system."""
    for variable, value in list(module_of(module).items()):
        if not variable.startswith("__") and not is_code(value) and not is_harness(value):
            yield variable, value


def is_code(value: object) -> bool:
    """Return whether a value is code, and no state."""
    return type(value) in (
        types.FunctionType, types.BuiltinFunctionType, types.ModuleType, classmethod, staticmethod, property,
        types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
        types.MethodType,
    ) or issubclass(type(value), type) or callable_kind(value)  # fmt: skip


def callable_kind(value: object) -> bool:
    """Return whether a library's value is a callable other than a function, such as a ufunc or a Cython function."""
    return type(value).__name__ in ("ufunc", "cython_function_or_method", "fused_cython_function", "_lru_cache_wrapper",
                                    "functools.partial", "_ArrayFunctionDispatcher", "method-wrapper")  # fmt: skip


def is_ours(value: Any) -> bool:
    """Return whether a value is a function of this package."""
    raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
    return type(raw) is types.FunctionType and owner(raw.__code__.co_filename) == "ours"


def is_harness(value: object) -> bool:
    """Return whether a value belongs to the test runner and exists only because tests run in this process."""
    if type(value) is types.FunctionType:
        return owner(value.__code__.co_filename) in ("runner", "ours")
    kind = value if issubclass(type(value), type) else type(value)
    module = class_name(kind)[0]
    return module.partition(".")[0] in ("_pytest", "pytest", "xdist", "execnet", "pytest_startmethod")
