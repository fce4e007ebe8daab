"""Detect waits for processes that are not children, such as ``os.waitpid`` on a process of the forkserver."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from .._compat import cpython
from .._compat.signals import OwnCode
from ..activation.exchanges import Span
from ..model.server import NotAChild
from ..source.callers import calling_place

_WAITS = {"waitpid": 0, "wait4": 0, "waitid": 1}
"""Functions of `os`, with the index of their pid argument."""
_MOST = 20


class FailedWaits:
    """Records each wait that fails with ECHILD, even if the error is caught."""

    def __init__(self) -> None:
        self.calls: list[NotAChild] = []

    def listen(self, span: Span) -> None:
        """Wrap the functions of `os` that wait for a pid, for a span."""
        for name in _WAITS:
            if hasattr(os, name):
                span.put(os, name, functools.partial(self.watch, name))

    def watch(self, name: str, original: Callable[..., object]) -> Callable[..., object]:
        """Return a wrapper for a function of `os`."""

        @functools.wraps(original)
        def wait(*args: object, **kwargs: object) -> object:
            __tracebackhide__ = True
            with cpython.frameless:
                try:
                    return original(*args, **kwargs)
                except ChildProcessError:
                    with OwnCode(), suppress(Exception):
                        self._note(name, args)
                    raise

        return wait

    def _note(self, name: str, args: tuple[object, ...]) -> None:
        pid = args[_WAITS[name]] if len(args) > _WAITS[name] else 0
        if type(pid) is int and pid > 0 and len(self.calls) < _MOST:
            self.calls.append(NotAChild(name, pid, calling_place(sys._getframe(2))))
