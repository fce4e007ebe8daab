"""What a forked child takes over from its parent: its life line, a file for its stacks, and facts.

After a fork each page that is written to costs a fault, in parent and child, and counting a reference is a write. So
the parent prepares everything before the fork, in one object that the child finds as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import CodeType
from typing import Any

from . import events, reporter
from .descriptors import Descriptor


class Line:
    """What one child at a time takes over (`child._begin_forked`): its life line, a file for its stacks, and facts."""

    __slots__ = (
        "_held",
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
        self.life: Descriptor | None = None
        self.hold: Callable[[int], object] | None = None
        self.stack: Descriptor | None = None
        steps: list[Callable[[], object]] = []
        with suppress(OSError):
            self.life = reporter.open_life_line(directory)
            self.hold = None if self.life is None else reporter.hold_of(self.life)
        self._held = events.handover.writing_end if events.handover.parent == os.getpid() else None
        if self._held is not None:
            steps.append(partial(os.close, self._held.number))
        if events.room_for(1_000_000):
            with suppress(OSError):
                self.stack = reporter.open_stack(path, "fork", os.getpid())
                steps += reporter.writes_of(self.stack.number)
        self.steps = tuple(steps)

    def is_whole(self) -> bool:
        """Return whether nobody has closed a descriptor of it, so that a child may use the numbers."""
        return all(each is None or each.is_open() for each in (self.life, self.stack, self._held))

    def is_written(self) -> bool:
        """Return whether the child has written stacks: parent and child have one position in the file."""
        stack = self.stack
        return stack is not None and stack.is_open() and os.lseek(stack.number, 0, os.SEEK_CUR) > reporter.HEADER

    def close(self) -> None:
        """Close what the parent has of it."""
        for descriptor in (self.life, self.stack):
            if descriptor is not None:
                descriptor.close()
