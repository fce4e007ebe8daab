"""What the children of this suite's tests import as `pytest`: marks and fixtures only, at 1 % of the time.

conftest.py puts this folder on `sys.path`, which children take over. The process that runs the tests has the real one
by then, and so has whatever is started as a program. A child that needs more gets the real package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class _Decorator:
    """A mark, a fixture or a hook: it leaves what it decorates as it is."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the only argument if it is what is decorated, else the decorator."""
        return args[0] if len(args) == 1 and not kwargs and isinstance(args[0], (type, Callable)) else self


class _Marks:
    def __getattr__(self, name: str) -> _Decorator:
        return _Decorator()


mark = _Marks()
fixture = hookimpl = _Decorator()


def param(*values: object, **_: object) -> tuple[object, ...]:
    return values


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)  # the import system asks for those
    here, stand_in = str(Path(__file__).parent), sys.modules.pop("pytest")
    path = sys.path[:]
    sys.path[:] = [entry for entry in path if entry != here]
    try:
        real = importlib.import_module("pytest")
    finally:
        sys.path[:] = path
    vars(stand_in).update(vars(real))
    return getattr(real, name)
