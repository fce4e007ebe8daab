"""Find code that depends on the order of a set: which comes first differs between interpreters for a set of text."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from .index import last_name

_ORDERED = {"list", "tuple", "enumerate", "iter", "map", "zip", "join", "dict"}
"""Functions whose result has the order of their argument."""
_UNORDERED = {"sorted", "set", "frozenset", "sum", "len", "min", "max", "any", "all", "Counter", "fsum"}
_MAKES = {"set", "frozenset", "union", "intersection", "difference", "symmetric_difference"}
_LISTS = (ast.ListComp, ast.GeneratorExp, ast.DictComp)


def ordered_sets(function: ast.AST, names: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield line and text of each set of text whose order a function uses: one of `names`, or one written there."""
    known = set(names)
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_set(node.value, known):
            known.update(each.id for each in node.targets if isinstance(each, ast.Name))
    ignored: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and last_name(node.func) in _UNORDERED:
            ignored.update(id(each) for each in node.args)
    for node in ast.walk(function):
        for each in _iterated(node) if id(node) not in ignored else ():
            if _is_set(each, known):
                yield each.lineno, ast.unparse(each)[:40]


def _iterated(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call) and last_name(node.func) in _ORDERED:
        return list(node.args)
    if isinstance(node, _LISTS):
        return [each.iter for each in node.generators]
    return []


def _is_set(node: ast.expr, known: Collection[str]) -> bool:
    if isinstance(node, ast.Call) and last_name(node.func) in _MAKES:  # made of others
        parts = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        return any(_is_set(each, known) for each in parts)
    if isinstance(node, ast.Set):
        texts = [each for each in node.elts if isinstance(each, ast.Constant) and isinstance(each.value, (str, bytes))]
        return len(texts) > 1
    return last_name(node) in known
