"""What a forked child takes over from its parent: life line, stack file and facts.

After a fork every page written costs a page fault, in parent and child, and even counting a reference writes. So the
parent prepares everything before the fork, in one object that the child adopts as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from os import getpid
from types import CodeType
from typing import Any

from . import events, reporter
from .descriptors import Descriptor


class Line:
    """What the next child takes over (`child._begin_forked`): life line, stack file and facts."""

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
    """The process object's ``_identity``, a unique tuple by which the child recognizes its line."""
    before: object
    """The process object's own ``run`` attribute, if it has one."""
    runs: bool
    """Whether the child's ``run`` can be watched."""
    is_worker: bool
    """Whether the child is a worker of a pool or executor."""
    pid: int | None
    """Pid of the child, which may have ended."""

    def __init__(self, path: str, directory: str, *, kept: bool) -> None:
        self.path = path
        self.kept = kept
        """Whether to reuse the line for later children."""
        self.facts: dict[str, object] = {
            "directory": directory,
            "method": "fork",
            "starter": getpid(),
            "package": None,
            "process": None,
        }
        self.run = reporter.unseen_run(self)
        self.returned = False
        """Whether `run` has returned, in the child."""
        self.process: Any = None
        """The process object, in the child."""
        self.cls: type[object] | None = None
        """Class of the process object and code of its target, to which `is_worker` and `runs` apply."""
        self.code: CodeType | None = None
        self.life: Descriptor | None = None
        self.hold: Callable[[int], object] | None = None
        self.stack: Descriptor | None = None
        steps: list[Callable[[], object]] = []
        with suppress(OSError):
            self.life = reporter.open_life_line(directory)
            self.hold = None if self.life is None else reporter.hold_of(self.life)
        self._held = events.handover.open_ends()
        steps += [partial(os.close, each.number) for each in self._held]
        if events.room_for(1_000_000):
            with suppress(OSError):
                self.stack = reporter.open_stack(path, "fork", getpid())
                steps += reporter.writes_of(self.stack.number)
        self.steps = tuple(steps)

    def is_whole(self) -> bool:
        """Return whether all descriptors are still open, so that a child may use them."""
        opened = all(each is None or each.is_open() for each in (self.life, self.stack))
        return opened and self._held == events.handover.open_ends()

    def is_written(self) -> bool:
        """Return whether the child has written stacks. Parent and child share the file position."""
        stack = self.stack
        return stack is not None and stack.is_open() and os.lseek(stack.number, 0, os.SEEK_CUR) > reporter.HEADER

    def close(self) -> None:
        """Close the parent's descriptors."""
        for descriptor in (self.life, self.stack):
            if descriptor is not None:
                descriptor.close()
