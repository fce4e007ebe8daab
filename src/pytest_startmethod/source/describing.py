"""Short texts for the user's objects and exceptions, running none of their code where possible."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

from ..child.values import class_name

_LENGTH = 60
_PATH_LENGTH = 240
_SHOWN: Final = frozenset(map(id, (int, float, bool, type(None), complex)))
_COUNTED: Final = frozenset(map(id, (list, tuple, dict, set, frozenset)))
"""By id: ``in`` would call the `__eq__` and `__hash__` of a metaclass."""


def describe_callable(function: Any) -> str:
    """Return a callable's dotted name, without running its code."""
    seen = 0
    while type(function) is functools.partial and seen < 10:
        function, seen = function.func, seen + 1
    if function is None:
        return "None"
    if type(function) is MethodType:
        function = function.__func__
    if type(function) is FunctionType or type(function) is BuiltinFunctionType:
        return f"{function.__module__}.{function.__qualname__}"
    if issubclass(type(function), type):
        return ".".join(class_name(function))
    return describe(function)


def describe(value: Any) -> str:
    """Return a short text for an argument: the value of builtins, the type of everything else."""
    kind = type(value)
    if id(kind) in _SHOWN:
        return repr(value)
    if kind is str or kind is bytes:
        # A path is not cut: where that would happen depends on the temporary directory.
        limit = _PATH_LENGTH if kind is str and os.path.isabs(value) else _LENGTH
        return repr(value) if len(value) <= limit else f"<{kind.__name__} of length {len(value)}>"
    if id(kind) in _COUNTED:
        return f"<{kind.__name__} of length {len(value)}>"
    if kind is FunctionType or kind is MethodType or kind is functools.partial:
        return describe_callable(value)
    return f"<{'.'.join(class_name(kind))}>"


def describe_arguments(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[str, ...]:
    """Return a text for each argument of a call: ``1``, ``key=<list of length 2>``."""
    return (*map(describe, args), *(f"{name}={describe(value)}" for name, value in kwargs.items()))


def one_line(error: BaseException) -> str:
    """Return an exception's type and message as one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's own __str__
        text = "<its __str__ raised>"
    return f"{type(error).__name__}: {text}"
