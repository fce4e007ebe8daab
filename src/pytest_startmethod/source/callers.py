"""Which line of whose code is calling: from a frame to a place in the user's source."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from ..child.values import class_name, module_of
from ..model.place import Place

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = tuple(
    {path + os.sep for path in (os.path.dirname(os.__file__), os.path.realpath(os.path.dirname(os.__file__)))}
)
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
_RUNNERS = tuple(
    f"{os.sep}{name}{os.sep}" for name in ("_pytest", "pluggy", "xdist", "execnet", "pytest_asyncio", "anyio")
)


@functools.cache
def owner(filename: str) -> str:
    """Return whose code a file is: ``ours``, ``stdlib``, ``runner`` (pytest and its kind), ``installed`` or ``user``.

    Code without a file (``"<string>"``: a dataclass's methods) counts as the standard library's: who made it is known
    by its caller.
    """
    path = os.path.abspath(filename)
    if path.startswith(_HERE):
        return "ours"
    if filename.startswith("<"):
        return "stdlib"
    if any(part in path for part in _INSTALLED):
        return "runner" if any(part in path for part in _RUNNERS) else "installed"
    if path.startswith(_STDLIB) or os.path.realpath(path).startswith(_STDLIB):
        return "stdlib"
    return "user"


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield `frame` and its callers, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_of(frame: FrameType) -> Place:
    """Return where `frame` stands."""
    return place_in(frame.f_code, frame.f_lineno)


def place_in(code: CodeType, line: int) -> Place:
    """Return the place of a line of some code."""
    return _place(code.co_filename, line, getattr(code, "co_qualname", code.co_name))  # co_qualname: 3.11


@functools.lru_cache(maxsize=1024)
def _place(file: str, line: int, function: str) -> Place:
    return Place(absolute(file), line, function)


absolute = functools.cache(os.path.abspath)
"""A relative name is relative to where pytest was started; a test that changes the directory does not change that."""


def calling_place(frame: FrameType | None) -> Place | None:
    """Return the user's line that led to `frame`; failing that, the nearest line of an installed package.

    None where neither is on the stack: a thread whose target is a function of the standard library.
    """
    nearest = None
    while frame is not None:
        whose = owner(frame.f_code.co_filename)
        if whose == "user":
            return place_of(frame)
        if whose == "installed" and nearest is None:
            nearest = place_of(frame)
        frame = frame.f_back
    return nearest


@functools.lru_cache(maxsize=256)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported as something else than ``__main__``."""
    for statement in tree.body:
        guard = isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)
        if not guard and not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from ast.walk(statement)


def find_calls(files: Iterable[str], name: str, argument: str | None = None, *, outermost: bool = False) -> list[Place]:
    """Return where `files` call something named `name` (with the string `argument`, if given), in source order.

    `outermost`: only calls that an import of the file makes.
    """
    found = []
    for file in files:
        tree = _tree(file) if name in "".join(linecache.getlines(file)) else None
        for node in (_top_level(tree) if outermost else ast.walk(tree)) if tree else ():
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            values = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            if called == name and (argument is None or argument in values):
                found.append(Place(file, node.lineno))
    return found


_WAITS = ("waitpid", "waitid", "wait3", "wait4")


def waiting_calls(place: Place) -> Iterator[tuple[str, str]]:
    """Yield name and first argument's source of each ``os.waitpid`` and its kind in the statement at `place`."""
    tree = _tree(place.file)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Call) and node.lineno <= place.line <= (node.end_lineno or 0):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            arguments = node.args[1:] if name == "waitid" else node.args
            if name in _WAITS and arguments:
                yield name, ast.unparse(arguments[0])


def find_names(files: Iterable[str], name: str) -> list[Place]:
    """Return where `files` use the name or attribute `name`, in source order."""
    found = []
    for file in files:
        tree = _tree(file) if name in "".join(linecache.getlines(file)) else None
        for node in ast.walk(tree) if tree else ():
            if name in (getattr(node, "attr", None), getattr(node, "id", None)):
                found.append(Place(file, node.lineno))  # type: ignore[attr-defined]
    return found


def user_files() -> list[str]:
    """Return the source files of all imported modules that are the user's."""
    files = (getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values()))
    return sorted({f for f in files if isinstance(f, str) and f.endswith(".py") and owner(f) == "user"})


_METHODS = {"fork", "spawn", "forkserver"}
_REFUSALS = {"skip", "fail", "xfail", "exit", "skipTest", "SkipTest"}


def method_check(place: Place, *, refusing: bool = False) -> Place | None:
    """Return the line near `place` that compares a start method with a literal name; None if there is none.

    Without `refusing`, `place` is a call of ``get_start_method`` and the comparison is anywhere in its function.
    With it, `place` is the line that raised or skipped: it must be a ``raise``, a skip or an ``assert`` that the
    comparison guards.
    """
    tree = _tree(place.file)
    if tree is None:
        return None
    function = _innermost(tree, place.line)
    check = _guard(function, place.line) if refusing else _comparison(function)
    return None if check is None else Place(place.file, check.lineno)


def refuses_methods(place: Place, *, in_test: bool) -> bool:
    """Return whether the function that calls ``get_start_method`` at `place` raises, skips or asserts by the answer.

    What a test asserts is what it expects, and refuses nothing.
    """
    tree = _tree(place.file)
    if tree is None:
        return False
    function = _innermost(tree, place.line)
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and _refuses(node)]
    statements = [each for each in statements if not (in_test and isinstance(each, ast.Assert))]
    return any(_guard(function, each.lineno) is not None for each in statements)


def _guard(function: ast.AST, line: int) -> ast.expr | None:
    """Return the comparison that lets the refusal at `line` happen: around it, in it, or an early return before it."""
    above: list[ast.AST] = []
    block: ast.AST | None = function
    while block is not None:  # down to the statement at `line`
        above.append(block)
        inner = (
            n
            for n in ast.iter_child_nodes(block)
            if getattr(n, "lineno", line + 1) <= line <= (getattr(n, "end_lineno", 0) or 0)
        )
        block = next((n for n in inner if isinstance(n, (ast.stmt, ast.excepthandler))), None)
    statement = above[-1]
    if not _refuses(statement):
        return None
    if isinstance(statement, ast.Assert):
        return _comparison(statement.test)
    around = [each.test for each in above if isinstance(each, ast.If)]
    for each in above:
        for sibling in getattr(each, "body", []):
            if isinstance(sibling, ast.If) and sibling.lineno < line and isinstance(sibling.body[-1], ast.Return):
                around.append(sibling.test)
    return next((found for test in reversed(around) if (found := _comparison(test)) is not None), None)


def _comparison(test: ast.AST) -> ast.expr | None:
    return next((node for node in ast.walk(test) if _compares_method(node)), None)  # type: ignore[return-value]


def _compares_method(node: ast.AST) -> bool:
    """Say whether `node` compares something that is called a method or context with the name of a start method."""
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    return any(map(_names_methods, sides)) and any(map(_is_called_method, sides))


def _names_methods(side: ast.expr) -> bool:
    each = side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]
    return any(isinstance(e, ast.Constant) and isinstance(e.value, str) and e.value in _METHODS for e in each)


def _is_called_method(side: ast.expr) -> bool:
    named = side.func if isinstance(side, ast.Call) else side
    name = named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")
    return any(word in name.lower() for word in ("method", "context", "ctx"))


def _innermost(tree: ast.Module, line: int) -> ast.AST:
    found: ast.AST = tree
    for node in ast.walk(tree):  # breadth first: the last one that matches is the innermost
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.lineno <= line <= (node.end_lineno or 0):
            found = node
    return found


def _refuses(statement: ast.AST) -> bool:
    if isinstance(statement, (ast.Raise, ast.Assert)):
        return True
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    return name in _REFUSALS


@dataclass(frozen=True)
class UserCode:
    """Says whose code a file is: the user's is what is neither the standard library's nor installed.

    And installed packages whose top-level name is in `packages`: those that the ini key ``start_methods_user_code``
    names, and the project's own, which also lie in the root directory or its ``src``.
    """

    packages: frozenset[str] = frozenset()

    def __call__(self, file: str) -> bool:
        """Say whether `file` is the user's."""
        return _is_users(file, self.packages)

    @classmethod
    def of_project(cls, root: str, named: Iterable[str] = ()) -> UserCode:
        """Return the rule for a project in the directory `root`."""
        return cls(frozenset(named) | _own_packages(root))

    @classmethod
    def of_target(cls, target: Any) -> UserCode:
        """Return the rule for one callable: its own top-level package is the user's."""
        for _ in range(10):
            if type(target) is functools.partial:
                target = target.func
            elif type(target) is types.MethodType:
                target = target.__func__
        holder = target if type(target) is types.FunctionType or issubclass(type(target), type) else type(target)
        module = holder.__module__ if type(holder) is types.FunctionType else class_name(holder)[0]
        top = module.partition(".")[0] if type(module) is str else ""
        file = module_of(sys.modules.get(top)).get("__file__")
        whose = owner(file) if type(file) is str else ""
        return cls(frozenset({top}) if whose == "installed" else frozenset())


@functools.lru_cache(maxsize=8192)
def _is_users(file: str, packages: frozenset[str]) -> bool:
    whose = owner(file)
    if whose == "user":
        return not file.startswith("<")
    if whose != "installed" or not packages:
        return False
    for part in _INSTALLED:
        _, found, rest = os.path.abspath(file).rpartition(part)
        if found:
            return rest.split(os.sep)[0].removesuffix(".py") in packages
    return False


@functools.lru_cache(maxsize=8)
def _own_packages(root: str) -> frozenset[str]:
    """Return the top-level modules and packages that lie in a directory or its ``src``."""
    names = set()
    for directory in (root, os.path.join(root, "src"), os.path.join(root, "lib")):
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(".py"):
                names.add(entry.name.removesuffix(".py"))
            elif entry.name.isidentifier() and entry.is_dir():
                names.add(entry.name)
    return frozenset(names - {"setup", "conftest", "src", "lib"})
