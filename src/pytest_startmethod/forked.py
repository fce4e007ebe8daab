"""What a forked child of a leg reports through, made by its parent before the fork.

After a fork each page that is written to costs a fault, in the child and in the parent at the same time; what is made
before costs a fraction. So the child finds all that it needs with its process object, and `child` takes it over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from . import child

_KEPT_LINES = 8
"""So many lines stay open for children that come later; a process may open a few hundred files in all."""


def watch_launch(
    original: Callable[[Any, Any], None], lines: Lines, package: str, restore: Callable[[], None]
) -> Callable[[Any, Any], None]:
    """Wrap ``popen_fork.Popen._launch``, which forks and has the child call ``BaseProcess._bootstrap``.

    `restore` is called in the child, before anything else runs in it.
    """

    def _launch(popen: Any, process: Any) -> None:
        forked = None
        with suppress(Exception):
            forked = Forked(process, lines, package, restore)
        try:
            original(popen, process)  # does not return in the child
        finally:
            if forked is not None:
                # Little, and without a call: the child has begun.
                own, before, line, pid = forked.own, forked.before, forked.line, getattr(popen, "pid", None)
                own.pop(child.FORKED, None)
                if before is None:
                    own.pop("run", None)
                else:
                    own["run"] = before
                if line.kept and pid is not None:
                    lines.used[pid] = line
                else:
                    lines.part_with(line, pid)

    return _launch


class Forked:
    """What one forked child takes over from its parent (`child._begin_forked`); the parent's process object is lent."""

    __slots__ = ("before", "facts", "line", "own", "restore")

    def __init__(self, process: Any, lines: Lines, package: str, restore: Callable[[], None]) -> None:
        self.own = own = object.__getattribute__(process, "__dict__")
        self.restore = restore
        self.facts: dict[str, Any] = {
            "directory": lines.directory,
            "method": "fork",
            "starter": os.getpid(),
            "package": package,
            "process": str(own.get("_name")),
            "phase": "run",
        }
        self.before = own.get("run")
        self.line = lines.take()
        child.watch_run(process, own)
        own[child.FORKED] = self


class Line:
    """What one child at a time reports through: its life line, and a file for its stacks."""

    __slots__ = ("kept", "life", "path", "stack", "start")

    def __init__(self, path: str, directory: str, *, kept: bool) -> None:
        self.path = path
        self.kept = kept
        """Whether it is to serve other children after this one."""
        self.life: int | None = None
        self.stack: int | None = None
        with suppress(OSError):
            self.life = child.open_life_line(directory)
        if child.room_for(1_000_000):
            with suppress(OSError):
                self.stack = child.open_stack(path, "fork", os.getpid())
                self.start = os.lseek(self.stack, 0, os.SEEK_CUR)

    def is_written(self) -> bool:
        """Say whether the child has written stacks: parent and child have one position in the file."""
        return self.stack is not None and os.lseek(self.stack, 0, os.SEEK_CUR) > self.start

    def close(self) -> None:
        """Close what the parent has of it."""
        for descriptor in (self.life, self.stack):
            if descriptor is not None:
                os.close(descriptor)


_numbers = count()


class Lines:
    """The lines of the children that one process forks; a few serve one child after the other."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.used: dict[int, Line] = {}
        """By the pid of the child, which may be over."""
        self._spare: list[Line] = []
        self._pid = os.getpid()

    def take(self) -> Line:
        """Return a line for a child that is about to be forked."""
        pid = os.getpid()
        if pid == self._pid and self._spare:  # a child has copies of its parent's
            return self._spare.pop()
        kept = pid == self._pid and len(self.used) < _KEPT_LINES
        return Line(f"{self.directory}{os.sep}{pid}-{next(_numbers)}", self.directory, kept=kept)

    def part_with(self, line: Line, pid: int | None) -> None:
        """Leave a line to the child alone, whose pid is the name of the file from now on; without one there is none."""
        with suppress(OSError):
            line.close()
            if line.stack is None:
                return
            if pid is None:
                os.unlink(line.path)
            else:
                os.rename(line.path, f"{self.directory}{os.sep}{pid}.stack")

    def free(self, pid: int) -> None:
        """Let the line of a child that is over serve another one, or forget what was written."""
        line = self.used.pop(pid)
        if line.is_written():
            line.close()
            os.unlink(line.path)
        else:
            self._spare.append(line)

    def close(self) -> None:
        """Close all of them."""
        for line in (*self._spare, *self.used.values()):
            line.close()
        self._spare.clear()
        self.used.clear()
