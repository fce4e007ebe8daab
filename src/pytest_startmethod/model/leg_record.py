"""What one leg did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .finding import Finding
from .foreign import Foreign
from .launch import Failure, Launch, Task
from .patched import Patched


@dataclass(frozen=True, slots=True)
class Pending:
    """A question that a copy of a process is working on."""

    path: str
    """The file that will hold the answer."""
    take: Callable[[tuple[Finding, ...]], None]
    """Called with the answer, if it comes in time."""
    launch: Launch | None = None
    """The child that is to make the copy; None: it has been made."""


@dataclass(slots=True)
class LegRecord:
    """What one leg did: filled in while it runs, read when a phase ends."""

    leg: str
    method: str
    precheck: bool
    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    noted: dict[int, tuple[str, Failure]] = field(default_factory=dict)
    """The failure and the text of the exception that each comes from, by its id: nothing of ours keeps it alive."""
    started: list[Any] = field(default_factory=list)
    """The processes of `launches` that did start: `launches.recorder.Started`."""
    launches: list[Launch] = field(default_factory=list)
    """Every process that started, or failed to, in order."""
    foreign: list[Foreign] = field(default_factory=list)
    """Processes started outside the leg's start method."""
    package: str = "multiprocessing"
    """The package that `method` belongs to."""
    watched: bool = False
    """Whether this is an unmarked test watched by `Recorder.watcher`, not a leg."""
    patches: list[Patched] = field(default_factory=list)
    """What monkeypatch and mock set while the leg ran, and what was in force when it began."""
    pending: list[Pending] = field(default_factory=list)
    """Questions to copies of processes that have not been answered yet."""
    alike: dict[object, Any] = field(default_factory=dict)
    """Results by what makes examinations alike: launches of a pre-check, the failure of a start or send."""
    observing: float = 0.0
    """Seconds spent analysing what launches read."""

    def is_over(self) -> bool:
        """Return whether every process is known to have ended, and none is a Pool's."""
        return all(each.exit_code is not None and each.pool is None for each in self.launches)

    def clear(self) -> None:
        """Forget a finished run."""
        for each in (self.tasks, self.failures, self.started, self.launches, self.foreign, self.pending):
            each.clear()
        self.noted.clear()
        self.alike.clear()
