"""A leg that failed, as hooks of other plugins see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .child_report import ChildReport
from .finding import Finding
from .wire import Fields


@dataclass(frozen=True, slots=True)
class FailedLeg:
    """A leg that failed, as plain data: strings, numbers, and tuples and frozen dataclasses of these."""

    nodeid: str
    """``tests/test_x.py::test_x[spawn]``"""
    method: str
    """``spawn`` or ``forkserver``; for another package than multiprocessing: ``multiprocess:spawn``."""
    when: Literal["setup", "call", "teardown"]
    outcome: str
    """``failed``."""
    exception: str
    """The type of the test's exception, with its module unless it is a builtin: ``queue.Empty``."""
    message: str
    """The exception's text."""
    file: str | None = None
    """The user's line that raised, absolute."""
    line: int | None = None
    launches: tuple[Fields, ...] = ()
    """Processes that the leg started: method, target, args, file, line, thread, fixture, pid, exit_code, error."""
    tasks: tuple[Fields, ...] = ()
    """What it gave to pools and executors: method, owner, how, target, file, line."""
    children: tuple[ChildReport, ...] = ()
    """What went wrong in its children, the oldest first: phase, ``error.type``, ``error.message``, ``error.frames``."""
    findings: tuple[Finding, ...] = ()
    """What the plugin found, the best supported cause first."""
