"""What a forked child of a leg reports through, made by its parent before the fork.

After a fork each page that is written to costs a fault, in the child and in the parent at the same time; what is made
before costs a fraction, and what is kept for the next child nothing. So the child finds all that it needs in a `Line`,
which `child` takes over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from . import child

_KEPT_LINES = 8
"""So many lines stay open for children that come later; a process may open a few hundred files in all."""


def watch_launch(original: Callable[[Any, Any], None], lines: Lines, package: str) -> Callable[[Any, Any], None]:
    """Wrap ``popen_fork.Popen._launch``, which forks and has the child call ``BaseProcess._bootstrap``."""

    def _launch(popen: Any, process: Any) -> None:
        line = None
        try:  # noqa: SIM105 - a context manager costs more faults
            line = lines.lend(process, package)
        except Exception:  # then the child makes its own
            pass
        try:
            original(popen, process)  # does not return in the child
        finally:
            if line is not None:
                # Little, and nothing is freed: the child has begun.
                line.own, line.pid = None, getattr(popen, "pid", None)
                if not line.kept or line.pid is None:
                    lines.part_with(line)

    return _launch


class Line:
    """What one child at a time takes over (`child._begin_forked`): its life line, a file for its stacks, and facts."""

    __slots__ = (
        "before",
        "facts",
        "hold",
        "is_worker",
        "kept",
        "let_go",
        "life",
        "loads",
        "own",
        "path",
        "pid",
        "process",
        "run",
        "runs",
        "stack",
        "write",
    )

    before: Any
    """What the process object had as ``run`` of its own; this and `process` in the child only."""
    process: Any

    own: dict[str, Any] | None
    """The attributes of the process object that is being forked, in the parent for that moment only."""
    is_worker: bool
    """Whether the child is a worker of a pool or an executor."""
    pid: int | None
    """The child's, which may be over."""
    runs: bool
    """Whether what it runs can be watched."""

    def __init__(self, path: str, directory: str, loads: dict[Any, Callable[..., Any]], *, kept: bool) -> None:
        self.path = path
        self.kept = kept
        """Whether it is to serve other children after this one."""
        self.loads = loads
        """By pickler: what the child is to load with."""
        self.facts: dict[str, Any] = {
            "pid": None,
            "directory": directory,
            "method": "fork",
            "starter": os.getpid(),
            "package": None,
            "process": None,
            "phase": "run",
        }
        self.run = child.unseen_run(self)
        self.life: int | None = None
        self.stack: int | None = None
        self.hold: Callable[[int], object] | None = None
        self.let_go: Callable[[], None] | None = None
        self.write: tuple[Callable[[], object], ...] = ()
        with suppress(OSError):
            self.life = child.open_life_line(directory)
            self.hold = None if self.life is None else child.hold_of(self.life)
        if child.writing_end is not None and child.writing_end[1] == os.getpid():
            self.let_go = partial(os.close, child.writing_end[0])
        if child.room_for(1_000_000):
            with suppress(OSError):
                self.stack = child.open_stack(path, "fork", os.getpid())
                self.write = child.writes_of(self.stack)

    def is_written(self) -> bool:
        """Say whether the child has written stacks: parent and child have one position in the file."""
        return self.stack is not None and os.lseek(self.stack, 0, os.SEEK_CUR) > child.HEADER

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
        self.loads: dict[Any, Callable[..., Any]] = {}
        """By pickler: what it loads with, apart from us."""
        self.used: list[Line] = []
        """Those that are kept and that a child has, which may be over."""
        self._spare: list[Line] = []
        self._pid = os.getpid()

    def lend(self, process: Any, package: str) -> Line:
        """Return a line for the child that is about to be forked, where it finds it, too (`child.lent`)."""
        pid = os.getpid()
        if pid == self._pid and self._spare:  # a child has copies of its parent's
            line = self._spare.pop()
        else:
            kept = pid == self._pid and len(self.used) < _KEPT_LINES
            line = Line(f"{self.directory}{os.sep}{pid}-{next(_numbers)}", self.directory, self.loads, kept=kept)
        line.own = own = process.__dict__
        facts, target = line.facts, own.get("_target")
        facts["package"], facts["process"] = package, own.get("_name")
        line.pid, line.is_worker, line.runs = None, child.is_worker(target), child.can_be_watched(process)
        if line.kept:
            self.used.append(line)
        child.lent = line
        return line

    def part_with(self, line: Line) -> None:
        """Leave a line to the child alone, whose pid is the name of the file from now on; without one there is none."""
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
        """Return the line of a child that still has one, or None."""
        for line in self.used:
            if line.pid == pid:
                return line
        return None

    def free(self, line: Line) -> None:
        """Let the line of a child that is over serve another one, or forget what was written."""
        self.used.remove(line)
        if line.is_written():
            line.close()
            os.unlink(line.path)
        else:
            self._spare.append(line)

    def close(self) -> None:
        """Close all of them."""
        for line in (*self._spare, *self.used):
            line.close()
        self._spare.clear()
        self.used.clear()
