"""TODO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .finding import Finding
from .foreign import Foreign
from .launch import Failure, Launch, Task
from .leg import SetByUser
from .place import Place


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one leg when its outcome is."""

    leg: str
    """Its node id."""
    method: str
    outcome: Literal["passed", "failed", "skipped"]
    launches: Sequence[Launch] = ()
    tasks: Sequence[Task] = ()
    failures: Sequence[Failure] = ()
    """Starts and sends that failed while the leg ran, in order."""
    failure: Failure | None = None
    """The one that the leg's exception comes from."""
    inherited: Sequence[Launch] = ()
    """Launches that the leg's wider fixtures made in earlier legs."""
    asked: Sequence[Place] = ()
    """Where the user's code called ``get_start_method``."""
    overrides: Sequence[SetByUser] = ()
    raised_at: Place | None = None
    """The user's line that raised, or skipped."""
    error: str = ""
    """The exception's type: ``"Empty"``."""
    text: str = ""
    """The failure as the user reads it, with single spaces."""
    children: Sequence[Finding] = ()
    """What the children reported, and how they ended."""
    peculiar: Sequence[Finding] = ()
    """What is peculiar to the forkserver."""
    state: Sequence[Finding] = ()
    """What the children saw otherwise than the parent, the most likely reason first."""
    hang: Finding | None = None
    """What the call waited for when its time was over."""
    foreign: Sequence[Foreign] = ()
    """Processes that no start method of a leg has to do with."""
