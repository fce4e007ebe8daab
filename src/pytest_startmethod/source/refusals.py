"""Find code that refuses start methods: a comparison that guards a ``raise``, a skip or an ``assert``."""

from __future__ import annotations

import ast

from ..model.place import Place
from .index import last_name, source_of

_METHODS = {"fork", "spawn", "forkserver"}
_REFUSALS = {"skip", "fail", "xfail", "exit", "skipTest", "SkipTest"}


def method_check(place: Place, *, refusing: bool = False) -> Place | None:
    """Return the line near `place` that compares a start method with a literal name; None if there is none.

    Without `refusing`, `place` is a call of ``get_start_method`` and the comparison is anywhere in its function.
    With it, `place` is the line that raised or skipped: it must be a ``raise``, a skip or an ``assert`` that the
    comparison guards.
    """
    function = _innermost(source_of(place.file).tree, place.line)
    check = _guard(function, place.line) if refusing else _comparison(function)
    return None if check is None else Place(place.file, check.lineno)


def refuses_methods(place: Place, *, in_test: bool) -> bool:
    """Return whether the function that calls ``get_start_method`` at `place` raises, skips or asserts on the result.

    With `in_test`, an ``assert`` is an expectation and does not count.
    """
    function = _innermost(source_of(place.file).tree, place.line)
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and _refuses(node)]
    statements = [each for each in statements if not (in_test and isinstance(each, ast.Assert))]
    return any(_guard(function, each.lineno) is not None for each in statements)


def _guard(function: ast.AST, line: int) -> ast.expr | None:
    """Return the comparison that leads to the refusal at `line`: around it, in it, or an early return before it."""
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
    """Return the first comparison of something called a method or context with the name of a start method."""
    for node in ast.walk(test):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(_names_methods, sides)) and any(map(_is_called_method, sides)):
                return node
    return None


def _names_methods(side: ast.expr) -> bool:
    each = side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]
    return any(isinstance(e, ast.Constant) and isinstance(e.value, str) and e.value in _METHODS for e in each)


def _is_called_method(side: ast.expr) -> bool:
    name = last_name(side.func if isinstance(side, ast.Call) else side) or ""
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
    return isinstance(call, ast.Call) and last_name(call.func) in _REFUSALS
