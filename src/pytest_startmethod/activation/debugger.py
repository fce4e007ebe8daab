"""Detect debuggers, under which time limits make no sense."""

from __future__ import annotations

import sys

_DEBUGGERS = ("bdb", "pdb", "pydevd", "_pydevd_bundle", "pydevd_tracing", "debugpy")


def is_debugging() -> bool:
    """Return whether a debugger traces this process through ``sys.settrace`` or ``sys.monitoring`` (PEP 669).

    debugpy uses the latter from Python 3.12 on, bdb from 3.14 on. Tool ids are named; id 0 is reserved for debuggers.
    """
    tracer = sys.gettrace()
    if tracer is not None:
        name = getattr(tracer, "__module__", None) or getattr(type(tracer), "__module__", "")
        if str(name).partition(".")[0] in _DEBUGGERS:
            return True
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        return False
    names = [monitoring.get_tool(number) for number in range(6)]
    return any(each is not None and (each in _DEBUGGERS or "debug" in each.lower()) for each in names)
