"""Waits for children that are none: ``os.waitpid`` on what the forkserver started, whether or not that is caught."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from ..activation.exchanges import Span
from ..model.server import NotAChild
from ..source.callers import calling_place

_WAITS = {"waitpid": 0, "wait4": 0, "waitid": 1}
"""Functions of `os`, and which of their arguments is the pid."""
_MOST = 20


class FailedWaits:
    """Notes each wait that fails since the process is no child of this one (ECHILD)."""

    def __init__(self) -> None:
        self.calls: list[NotAChild] = []

    def listen(self, span: Span) -> None:
        """Wrap the functions of `os` that wait for a pid, for a span."""
        for name in _WAITS:
            if hasattr(os, name):
                span.put(os, name, functools.partial(self.watch, name))

    def watch(self, name: str, original: Callable[..., object]) -> Callable[..., Any]:
        """Return what stands for a function of `os`."""

        @functools.wraps(original)
        def wait(*args: object, **kwargs: object) -> Any:
            __tracebackhide__ = True
            try:
                return original(*args, **kwargs)
            except ChildProcessError:
                self._note(name, args)
                raise

        return wait

    def _note(self, name: str, args: tuple[object, ...]) -> None:
        pid = args[_WAITS[name]] if len(args) > _WAITS[name] else 0
        if type(pid) is int and pid > 0 and len(self.calls) < _MOST:
            self.calls.append(NotAChild(name, pid, calling_place(sys._getframe(2))))
