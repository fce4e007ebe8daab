"""Modules that only the parent has imported: their import may register what the child looks for in vain."""

from __future__ import annotations

import ast
import os
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Sequence

from ..child.values import class_name, module_of
from ..model.finding import Finding, finding_at
from ..model.observed import Observed
from ..model.place import Place
from ..source.callers import owner, user_files
from ..source.index import source_of

_MOST = 4


def modules(observed: Sequence[Observed], said: str, tests: Sequence[str]) -> list[Finding]:
    """Return the user's modules that the children's code does not lead to, those that an exception speaks of first.

    `said` is the text of the children's exceptions. A module of which it names nothing must be imported by `tests`,
    and is a note.
    """
    if not observed:
        return []
    theirs = _imported(name for each in observed for name in (*each.roots, *each.imports))
    missing = [(name, file) for name, file in _users() if name not in theirs and file not in tests]
    words = set(re.findall(r"\w{3,}", said))
    imported = [(bool(words & _defined(name)), _import_of(name, tests), name, file) for name, file in missing]
    known = [each for each in imported if each[0] or each[1]]
    found = []
    for is_named, at, name, file in sorted(known, key=lambda each: not each[0])[:_MOST]:
        about = f"; the child's exception speaks of what it defines: {said.strip()[:200]}" if is_named else ""
        message = (
            f"{name} is imported in the parent and not in a fresh child, where nothing registers what it does{about}"
        )
        fix = (
            f"import {name} where the child's code needs what it registers, in the module that the child imports or in "
            "a pool's initializer"
        )
        place = at or _import_of(name, user_files()) or Place(file, 1)
        found.append(finding_at("SM301", name, place, message, (), fix, "cause" if is_named else "note"))
    return found


def _users() -> list[tuple[str, str]]:
    """Return name and file of the user's modules, without packages, the main module and those of the test runner."""
    found = []
    for name, module in list(sys.modules.items()):
        file = module_of(module).get("__file__") if type(module) is types.ModuleType else None
        if type(file) is str and name not in ("__main__", "__mp_main__") and owner(file) == "user":
            base = os.path.basename(file)
            if not base.startswith(("test_", "conftest", "__init__")) and not base.endswith("_test.py"):
                found.append((name, file))
    return found


def _imported(roots: Iterable[str]) -> set[str]:
    """Return the modules that importing `roots` leads to, as far as their names and sources show."""
    todo, seen = deque(roots), set[str]()
    while todo:
        name = todo.popleft()
        if name in seen:
            continue
        seen.add(name)
        todo += [name[:at] for at in range(len(name)) if name[at] == "."]
        namespace = module_of(sys.modules.get(name))
        file = namespace.get("__file__")
        if type(file) is not str or owner(file) != "user":
            continue
        for value in list(namespace.values()):
            if type(value) is types.ModuleType:
                todo.append(value.__name__)
            elif type(value) is types.FunctionType:
                todo.append(str(value.__module__))
            elif issubclass(type(value), type):
                todo.append(class_name(value)[0])
    return seen


def _defined(name: str) -> set[str]:
    """Return the names that a module defines, the strings that it hands to calls and decorators included."""
    module = sys.modules.get(name)
    index = source_of(str(module_of(module).get("__file__"))).index
    own = {each for _, each in index.classes} | {each for _, each, around in index.functions if not around}
    given = [arg for call in index.calls for arg in call.node.args if isinstance(arg, ast.Constant)]
    texts = {each.value for each in given if isinstance(each.value, str)}
    return {each for each in own | texts if len(each) > 2}


def _import_of(name: str, files: Iterable[str]) -> Place | None:
    """Return the first line of `files` that imports a module."""
    for file in files:
        for module, part, _, line in source_of(file).index.imports:
            if name in (module, f"{module}.{part}"):
                return Place(file, line)
    return None
