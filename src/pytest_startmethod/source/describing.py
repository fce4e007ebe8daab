"""Short texts for the user's objects and exceptions, running none of their code where possible."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

_LENGTH = 60
_PATH_LENGTH = 240


def describe_callable(function: Any) -> str:
    """Return a callable's dotted name, without running its code."""
    seen = 0
    while type(function).__name__ == "partial" and seen < 10:
        function, seen = object.__getattribute__(function, "func"), seen + 1
    if function is None:
        return "None"
    receiver = getattr(function, "__self__", None) if type(function).__name__ == "method" else None
    if receiver is not None:
        function = function.__func__
    if type(function).__name__ in ("function", "builtin_function_or_method", "type"):
        return f"{function.__module__}.{function.__qualname__}"
    return describe(function)


def describe(value: Any) -> str:
    """Return a short text for an argument: the value of builtins, the type of everything else."""
    kind = type(value)
    if kind in (int, float, bool, type(None), complex):
        return repr(value)
    if kind in (str, bytes):
        # A path is not cut: where that would happen depends on the temporary directory.
        limit = _PATH_LENGTH if kind is str and os.path.isabs(value) else _LENGTH
        return repr(value) if len(value) <= limit else f"<{kind.__name__} of length {len(value)}>"
    if kind in (list, tuple, dict, set, frozenset):
        return f"<{kind.__name__} of length {len(value)}>"
    if kind.__name__ in ("function", "method", "partial"):
        return describe_callable(value)
    return f"<{kind.__module__}.{kind.__qualname__}>"


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
