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
                with suppress(OSError):
                    forked.end(getattr(popen, "pid", None))

    return _launch


class Forked:
    """What one forked child takes over from its parent (`child.begin_forked`)."""

    __slots__ = ("_before", "_lines", "_own", "facts", "line", "restore")

    def __init__(self, process: Any, lines: Lines, package: str, restore: Callable[[], None]) -> None:
        self._own = own = object.__getattribute__(process, "__dict__")
        self.restore = restore
        self.facts: dict[str, Any] = {
            "directory": lines.directory,
            "method": "fork",
            "starter": os.getpid(),
            "package": package,
            "process": str(own.get("_name")),
            "phase": "run",
        }
        self._before = own.get("run")
        self._lines, self.line = lines, lines.take()
        child.watch_run(process, own)
        own[child.FORKED] = self

    def end(self, pid: int | None) -> None:
        """Let the parent be as it was, once there is a child or could not be one."""
        own = self._own
        own.pop(child.FORKED, None)
        if self._before is None:
            own.pop("run", None)
        else:
            own["run"] = self._before
        self._lines.given(self.line, pid)


class Line:
    """What one child at a time reports through: its life line, and a file for its stacks."""

    __slots__ = ("life", "path", "stack", "start")

    def __init__(self, path: str, directory: str) -> None:
        self.path = path
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
        if self._spare and os.getpid() == self._pid:  # a child has copies of its parent's
            return self._spare.pop()
        return Line(f"{self.directory}{os.sep}{os.getpid()}-{next(_numbers)}", self.directory)

    def given(self, line: Line, pid: int | None) -> None:
        """Know the child that has `line`; without a pid there is none."""
        if os.getpid() == self._pid and len(self.used) < _KEPT_LINES:
            if pid is None:
                self._spare.append(line)
            else:
                self.used[pid] = line
            return
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
