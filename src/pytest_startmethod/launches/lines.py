"""What a forked child takes over from its parent: its life line, a file for its stacks, and facts.

After a fork each page that is written to costs a fault, in parent and child, and counting a reference is a write. So
the parent prepares everything before the fork, in one object that the child finds as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from types import CodeType, FunctionType
from typing import Any

from ..child import reporter
from ..child.reporter import handover

_KEPT_LINES = 8
"""So many lines stay open for children that come later; a process may open a few hundred files in all."""


def watch_launch(original: Callable[[Any, Any], None], lines: Lines, package: str) -> Callable[[Any, Any], None]:
    """Wrap ``popen_fork.Popen._launch``, which forks and has the child call ``BaseProcess._bootstrap``."""

    def _launch(popen: Any, process: Any) -> None:
        line: Line | None = None
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
        except Exception:  # then the child makes its own
            handover.line = None
        try:
            original(popen, process)  # does not return in the child
            if line is not None:
                line.pid = popen.pid
        finally:
            if line is not None and (line.pid is None or not line.kept):
                lines.part_with(line)

    return _launch


class Line:
    """What one child at a time takes over (`child._begin_forked`): its life line, a file for its stacks, and facts."""

    __slots__ = (
        "before",
        "cls",
        "code",
        "facts",
        "hold",
        "identity",
        "is_worker",
        "kept",
        "life",
        "path",
        "pid",
        "process",
        "returned",
        "run",
        "runs",
        "stack",
        "steps",
    )

    identity: tuple[int, ...]
    """That of the process object, by which the child knows that the line is its own; no other one has this tuple."""
    before: Any
    """What the process object has as ``run`` of its own."""
    runs: bool
    """Whether what it runs can be watched."""
    is_worker: bool
    """Whether the child is a worker of a pool or an executor."""
    pid: int | None
    """The child's, which may be over."""

    def __init__(self, path: str, directory: str, *, kept: bool) -> None:
        self.path = path
        self.kept = kept
        """Whether it is to serve other children after this one."""
        self.facts: dict[str, Any] = {
            "directory": directory,
            "method": "fork",
            "starter": os.getpid(),
            "package": None,
            "process": None,
        }
        self.run = reporter.unseen_run(self)
        self.returned = False
        """Whether `run` has, in the child."""
        self.process: Any = None
        """The process object, in the child."""
        self.cls: type[Any] | None = None
        """The class of the child's process object and the code of its target: what `is_worker` and `runs` hold for."""
        self.code: CodeType | None = None
        self.life: int | None = None
        self.hold: Callable[[int], object] | None = None
        self.stack: int | None = None
        steps: list[Callable[[], object]] = []
        with suppress(OSError):
            self.life = reporter.open_life_line(directory)
            self.hold = None if self.life is None else reporter.hold_of(self.life)
        if reporter.writing_end is not None and reporter.writing_end[1] == os.getpid():
            steps.append(partial(os.close, reporter.writing_end[0]))
        if reporter.room_for(1_000_000):
            with suppress(OSError):
                self.stack = reporter.open_stack(path, "fork", os.getpid())
                steps += reporter.writes_of(self.stack)
        self.steps = tuple(steps)

    def is_written(self) -> bool:
        """Say whether the child has written stacks: parent and child have one position in the file."""
        return self.stack is not None and os.lseek(self.stack, 0, os.SEEK_CUR) > reporter.HEADER

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
        self.used: list[Line] = []
        """Those that are kept and that a child has, which may be over."""
        self._spare: list[Line] = []
        self._pid = os.getpid()

    def take(self) -> Line:
        """Return a line for the child that is about to be forked."""
        pid = os.getpid()
        if pid == self._pid and self._spare:  # a child has copies of its parent's
            line = self._spare.pop()
        else:
            reporter.take_over()
            kept = pid == self._pid and len(self.used) < _KEPT_LINES
            line = Line(f"{self.directory}{os.sep}{pid}-{next(_numbers)}", self.directory, kept=kept)
        line.pid = None
        if line.kept:
            self.used.append(line)
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
