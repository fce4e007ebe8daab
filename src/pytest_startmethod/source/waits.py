"""How long a test waited: the time limit of the call that failed, or of the last wait before the failing line."""

from __future__ import annotations

import ast
import os
import traceback
from types import CodeType, FrameType, TracebackType
from typing import Any

from ..model.evidence import Patience
from ..model.place import Place
from .callers import owner
from .index import last_name, source_of

_WAITING = frozenset(("get", "poll", "wait", "result", "join", "acquire", "wait_for", "map", "recv", "sleep", "next"))
"""Functions with a timeout."""
_CLOCKS = frozenset(("time", "monotonic", "perf_counter"))


def patience(tb: TracebackType | None) -> Patience | None:
    """Return how long the user's code waited before it gave up; None if unknown.

    Reads values from frames and runs none of the user's code.
    """
    every = list(traceback.walk_tb(tb))
    limit: float | None = None
    seen = set[tuple[CodeType, int]]()
    for frame, line in reversed(every):
        if (frame.f_code, line) in seen:  # a recursion
            continue
        seen.add((frame.f_code, line))
        file = frame.f_code.co_filename
        if owner(file) == "user":
            place = Place(os.path.abspath(file), line, frame.f_code.co_name)
            if limit is not None:
                return Patience(limit, place, True)
            allowed = _allowed(frame, line)
            if allowed is not None:
                return Patience(allowed, place, measured=True)
            found = _before(frame, line)
            if found is not None:
                return found
        elif owner(file) == "stdlib":
            limit = _seconds(frame.f_locals.get("timeout")) or limit
    return None


def _before(frame: FrameType, line: int) -> Patience | None:
    """Return the last wait with a time limit in the function that `frame` runs, up to `line`."""
    file = os.path.abspath(frame.f_code.co_filename)
    found: Patience | None = None
    inside = _function(frame, line)
    for node in ast.walk(inside) if inside is not None else ():
        if isinstance(node, (ast.Call, ast.BinOp)) and node.lineno <= line:
            seconds = _limit(node, frame)
            if seconds is not None and (found is None or node.lineno >= found.place.line):
                found = Patience(seconds, Place(file, node.lineno, frame.f_code.co_name))
    return found


def _function(frame: FrameType, line: int) -> ast.AST | None:
    """Return the function that `frame` runs."""
    functions = source_of(os.path.abspath(frame.f_code.co_filename)).index.functions
    inside = [
        node
        for node, name, _ in functions
        if name.rpartition(".")[2] == frame.f_code.co_name and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return inside[-1] if inside else None


def _allowed(frame: FrameType, line: int) -> float | None:
    """Return the seconds in ``assert time.monotonic() - start < 3``, or in one of a variable with that difference."""
    inside = _function(frame, line)
    nodes = list(ast.walk(inside)) if inside is not None else []
    passed = {
        node.targets[0].id
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_passed(node.value)
    }
    for node in nodes:
        if isinstance(node, ast.Assert) and node.lineno == line and isinstance(node.test, ast.Compare):
            left, shorter = node.test.left, isinstance(node.test.ops[0], (ast.Lt, ast.LtE))
            if shorter and (_is_passed(left) or (isinstance(left, ast.Name) and left.id in passed)):
                return _value(node.test.comparators[0], frame)
    return None


def _is_passed(node: ast.expr) -> bool:
    """Return whether an expression is the time that has passed: ``time.monotonic() - start``."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Call)):
        return False
    return last_name(node.left.func) in _CLOCKS


def _limit(node: ast.Call | ast.BinOp, frame: FrameType) -> float | None:
    """Return the seconds in ``x.join(0.5)``, ``q.get(timeout=LIMIT)``, ``time.monotonic() + 3``."""
    if isinstance(node, ast.BinOp):
        is_clock = isinstance(node.left, ast.Call) and last_name(node.left.func) in _CLOCKS
        return _value(node.right, frame) if is_clock and isinstance(node.op, ast.Add) else None
    if last_name(node.func) not in _WAITING:
        return None
    given = [keyword.value for keyword in node.keywords if keyword.arg == "timeout"]
    if not given and last_name(node.func) not in ("get", "map"):
        given = node.args[-1:]
    return _value(given[0], frame) if given else None


def _value(node: ast.expr, frame: FrameType) -> float | None:
    if isinstance(node, ast.Constant):
        return _seconds(node.value)
    return _seconds({**frame.f_globals, **frame.f_locals}.get(node.id)) if isinstance(node, ast.Name) else None


def _seconds(value: Any) -> float | None:
    # multiprocessing reduces its own `timeout` meanwhile: 0.79998
    return float(f"{value:.2g}") if type(value) in (int, float) and 0 < value < 3600 else None
