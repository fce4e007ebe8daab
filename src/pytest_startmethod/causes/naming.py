"""Names of functions and classes: what an object claims, and what the name really leads to."""

from __future__ import annotations

import itertools
import os
import sys
import types
from collections.abc import Sequence

from ..source import kinds, places
from ..source.callers import owner


def qualname(obj: object) -> str:
    """Return the object's qualified name, or that of its type."""
    for name in ("__qualname__", "__name__"):
        text = text_attribute(obj, name)
        if text:
            return text
    return type(obj).__name__


def text_attribute(obj: object, name: str) -> str:
    """Return a str attribute without running the object's code, or "" if there is none."""
    try:
        value = (type if isinstance(obj, type) else object).__getattribute__(obj, name)
    except Exception:
        return ""
    return value if type(value) is str else ""


def short(name: str) -> str:
    """Return a qualified name without its enclosing functions."""
    return name.rpartition("<locals>.")[2] or name


def enclosing(name: str) -> str:
    """Return the enclosing function of a local name, without any ``<locals>``."""
    return name.rpartition(".<locals>.")[0].replace(".<locals>", "") or "a function"


def look_up(module: str, name: str) -> tuple[bool, object]:
    """Return whether the dotted `name` exists in `module`, and its value."""
    if module not in sys.modules:
        return False, None
    value: object = sys.modules[module]
    for part in name.split("."):
        try:
            namespace = (
                type.__getattribute__(value, "__dict__")
                if isinstance(value, type)
                else object.__getattribute__(value, "__dict__")
            )
        except Exception:
            return False, None
        if part not in namespace:
            return False, None
        value = namespace[part]
    return True, value


def bound_to(obj: object) -> list[str]:
    """Return at most three module-level names bound to `obj`, in user code if possible, otherwise anywhere."""
    every = {name: namespace for name, module in list(sys.modules.items()) if (namespace := _namespace(module))}
    users = {
        name: namespace
        for name, namespace in every.items()
        if owner(str(namespace.get("__file__"))) == "user" or name == text_attribute(obj, "__module__")
    }
    for modules in (users, every):
        found = (
            f"{name}.{key}"
            for name, namespace in modules.items()
            for key, value in list(namespace.items())
            if value is obj and type(key) is str
        )
        if names := list(itertools.islice(found, 3)):
            return names
    return []


def _namespace(module: object) -> dict[object, object]:
    try:
        namespace = object.__getattribute__(module, "__dict__")
    except Exception:
        return {}
    return namespace if type(namespace) is dict else {}


def decorators(definition: places.Definition | None) -> list[str]:
    """Return one evidence line for each decorator."""
    if definition is None:
        return []
    return [f"decorated at {each.file}:{each.line}: {each.source}" for each in definition.decorators]


def where_defined(obj: object) -> str:
    """Describe an object and where it is defined."""
    definition = places.class_definition(obj) if isinstance(obj, type) else places.function_definition(obj)
    where = f", defined at {definition.place.file}:{definition.place.line}" if definition else ""
    return kinds.describe(obj) + where


def other_file(obj: object, module: str, name: str) -> str | None:
    """Return the file that now has the name `module`, if `obj` was defined in a different file of that name.

    Happens with two ``conftest.py``, or same-named test files in folders without ``__init__.py``.
    """
    code = obj.__code__ if type(obj) is types.FunctionType else None
    if code is None or code.co_name != name.rpartition(".")[2]:  # a wrapper that copied the name
        return None
    file = places.module_file(module)
    if file is None or not os.path.isfile(file) or not os.path.isfile(code.co_filename):
        return None
    return None if os.path.samefile(file, code.co_filename) else file


def listed(names: Sequence[str]) -> str:
    """Return the names in backticks, joined as in a sentence."""
    return joined([f"`{name}`" for name in names])


def joined(names: Sequence[str]) -> str:
    """Return the names joined as in a sentence: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
