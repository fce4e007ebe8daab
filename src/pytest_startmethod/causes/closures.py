"""The variables that a function closes over, and whether they pickle."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

from .._compat import cpython
from ..model.walk import path_text
from ..source import kinds
from .naming import look_up, qualname, text_attribute
from .pickling_search import Mode, search
from .pickling_subject import leaf_text


@dataclass(frozen=True, slots=True)
class Cell:
    """A captured variable, and whether it pickles."""

    name: str
    value: Any
    error: BaseException | None
    set: bool
    itself: bool
    detail: str

    def text(self) -> str:
        """Return the variable, its value and whether it pickles, as text."""
        if not self.set:
            return f"{self.name} = (not set yet)"
        if self.itself:
            return f"{self.name} = (the function itself)"
        verdict = "(pickles)" if self.error is None else f"(does not pickle{self.detail})"
        return f"{self.name} = {kinds.describe(self.value)} {verdict}"

    def advice(self) -> str:
        """Return how to replace a value that does not pickle."""
        if kinds.is_testcase(self.value):
            return "pass what the function needs of it as arguments"
        if type(self.value) is types.FunctionType:
            return "move it to module level, too"
        if isinstance(self.value, type):
            return "move the class to module level, too"
        kind = kinds.kind_of(self.value)
        if kind is not None and kind.instead:
            return kind.instead
        return "make it in the child from plain values"


def cells_of(func: types.FunctionType, mode: Mode, obj: object) -> list[Cell]:
    """Return the variables that `func` closes over. `func` itself and `obj` are not examined."""
    out = []
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False):
        filled, value = cpython.cell_value(cell)
        if not filled or value is func or value is obj:
            out.append(Cell(name, value, None, filled, filled, ""))
            continue
        error: BaseException | None
        detail = ""
        if kinds.is_testcase(value):
            error, detail = TypeError("a running TestCase"), ": the running TestCase"
        else:
            error = mode.error_of(value)
            if error is not None:
                detail = _first_leaf(value, mode)
        out.append(Cell(name, value, error, True, False, detail))
    return out


def _first_leaf(value: object, mode: Mode) -> str:
    leaves = search(value, mode.task, mode.allow, 20_000).leaves
    if not leaves or not leaves[0].chain:
        return ""
    steps = [step for step, _ in leaves[0].chain]
    return f": its {path_text('', steps).lstrip('.')} is {leaf_text(leaves[0])}"


def cells_text(cells: list[Cell], title: str = "closes over") -> list[str]:
    """Return the evidence line that lists captured variables."""
    return [f"{title}: {', '.join(cell.text() for cell in cells)}"] if cells else []


def wrapped_variable(obj: object, cells: list[Cell]) -> str | None:
    """Return the captured variable that holds the function which `obj` decorates, and whose name now leads to `obj`."""
    for cell in cells:
        if callable(cell.value) and cell.set:
            there, other = look_up(text_attribute(cell.value, "__module__"), qualname(cell.value))
            if there and other is obj:
                return cell.name
    return None


def innermost(obj: Any) -> types.FunctionType | None:
    """Return the Python function behind a wrapper (`lru_cache`, method, staticmethod), or None."""
    for _ in range(20):
        if type(obj) is types.FunctionType:
            return obj
        if type(obj) in (types.MethodType, staticmethod, classmethod):
            obj = obj.__func__
            continue
        if type(obj) is property:
            obj = obj.fget
            continue
        try:
            obj = object.__getattribute__(obj, "__dict__")["__wrapped__"]
        except Exception:
            return None
    return None
