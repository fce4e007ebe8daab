"""Reusable `Line` objects for the forked children of one process, prepared before the fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from os import getpid
from types import FunctionType
from typing import Any

from .._compat import cpython
from .._compat.signals import OwnCode
from ..child import reporter
from ..child.events import handover, take_over
from ..child.line import Line

_KEPT_LINES = 8
"""Lines kept open for later children, out of the few hundred files that a process may open."""


def watch_launch(
    original: Callable[[object, object], None], lines: Lines, package: str
) -> Callable[[object, object], None]:
    """Wrap ``popen_fork.Popen._launch``, which forks and makes the child call ``BaseProcess._bootstrap``."""

    def _launch(popen: Any, process: Any) -> None:
        line: Line | None = None
        with OwnCode():
            try:
                own = process.__dict__
                line = lines.take()
                facts, target = line.facts, own["_target"]
                facts["package"], facts["process"] = package, own["_name"]
                line.identity, line.before = own["_identity"], own.get("run")
                cls, code = type(process), target.__code__ if type(target) is FunctionType else None
                if line.cls is not cls or line.code is not code:
                    line.cls, line.code = cls, code
                    line.is_worker, line.runs = reporter.is_worker(target), reporter.can_be_watched(process)
                handover.line, handover.forks = line, True
            except Exception:  # the child then creates its own
                handover.line = None
        try:
            with cpython.frameless:
                original(popen, process)  # does not return in the child
            if line is not None:
                line.pid = popen.pid
        finally:
            handover.line = handover.errand = None  # they are for the child only
            if line is not None and (line.pid is None or not line.kept):
                with OwnCode():
                    lines.part_with(line)

    return _launch


_numbers = count()


class Lines:
    """The lines for the children that one process forks. Some serve several children in turn."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.used: list[Line] = []
        """Kept lines taken by a child, which may have exited."""
        self._spare: list[Line] = []
        self._pid = getpid()

    def take(self) -> Line:
        """Return a line for the child about to be forked."""
        pid = getpid()
        line: Line | None = None
        while line is None and pid == self._pid and self._spare:  # a forked child's are its parent's
            line = self._whole(self._spare.pop())
        if line is None:
            take_over()
            kept = pid == self._pid and len(self.used) < _KEPT_LINES
            line = Line(f"{self.directory}{os.sep}{pid}-{next(_numbers)}", self.directory, kept=kept)
        line.pid = None
        if line.kept:
            self.used.append(line)
        return line

    def prepare(self) -> None:
        """Open all kept lines in advance, so that none is opened while a test counts its descriptors."""
        if self._pid == getpid():
            self._spare[:] = [each for each in self._spare if self._whole(each) is not None]
            while len(self._spare) + len(self.used) < _KEPT_LINES:
                self._spare.append(
                    Line(f"{self.directory}{os.sep}{self._pid}-{next(_numbers)}", self.directory, kept=True)
                )

    @staticmethod
    def _whole(line: Line) -> Line | None:
        """Return `line` if its descriptors are open; otherwise close the rest and return None."""
        if line.is_whole():
            return line
        line.close()
        with suppress(OSError):
            os.unlink(line.path)
        return None

    def part_with(self, line: Line) -> None:
        """Hand a line over to its child and rename its file after the child's pid; without a child, remove the file."""
        if line.kept:
            self.used.remove(line)
        with suppress(OSError):
            line.close()
            if line.stack is None:
                return
            if line.pid is None:
                os.unlink(line.path)
            else:
                os.rename(line.path, f"{self.directory}{os.sep}{line.pid}.stack")

    def of(self, pid: int) -> Line | None:
        """Return the line still assigned to a child, or None."""
        for line in self.used:
            if line.pid == pid:
                return line
        return None

    def free(self, line: Line) -> None:
        """Reuse the line of a child that has exited, or discard it if stacks were written to it."""
        self.used.remove(line)
        if line.is_written():
            line.close()
            with suppress(OSError):
                os.unlink(line.path)
        else:
            self._spare.append(line)

    def close(self) -> None:
        """Close all lines."""
        for line in (*self._spare, *self.used):
            line.close()
        self._spare.clear()
        self.used.clear()
