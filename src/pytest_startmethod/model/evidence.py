"""All that is known of one phase of a leg when it ends: facts of both processes, from which `causes` explains it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .child_report import ChildReport, Frame, Raised, Unreturned
from .foreign import Foreign
from .launch import Failure, Launch, Task
from .leg import SetByUser
from .observed import Observed, Seen
from .patched import Patched
from .place import Place
from .server import NotAChild, Server
from .stack import Hanging
from .unloaded import Unloaded


@dataclass(frozen=True, slots=True)
class Parent:
    """What the parent can import, and how it came to."""

    modules: Mapping[str, Any] = field(default_factory=lambda: sys.modules)
    sys_path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    rootdir: str | None = None
    """pytest's; ``pythonpath`` in its ini file is relative to the directory of that file."""
    import_mode: str | None = None
    """pytest's ``--import-mode``: ``"prepend"``, ``"append"`` or ``"importlib"``."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a test waited for its children before it gave up."""

    seconds: float
    place: Place
    """The line that waits."""
    raised: bool = False
    """Whether the wait itself raised when its time was over, rather than a later line."""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How the call of another leg of the test ended."""

    outcome: str
    """``"passed"``, ``"failed"`` or ``"skipped"``."""
    failed_with: object = None
    """The exception's type and the user's line; equal for failures that are alike."""
    events: frozenset[tuple[str, str]] = frozenset()
    """What went wrong on the way: kind (``"send"``, ``"exit"``, ``"raised"``) and text."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a phase of a leg, or of a call that is only asked about."""

    leg: str
    """Its node id."""
    method: str
    outcome: Literal["passed", "failed", "skipped", "asked"]
    """``"asked"``: nothing has run, somebody asks what would happen."""
    marked: bool = True
    """Whether the test has the marker, rather than one of the fixtures only."""
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
    foreign: Sequence[Foreign] = ()
    """Processes that the leg's start method has nothing to do with."""
    patches: Sequence[Patched] = ()
    """What tests and fixtures replaced while the leg ran."""
    tests: Sequence[str] = ()
    """The test's own file, then the conftest files: where something was set is looked for there first."""

    raised: Sequence[Raised] = ()
    """The leg's exception, then what it was raised from, each with all its frames."""
    raised_at: Place | None = None
    """The user's line that raised, or skipped."""
    raised_elsewhere: bool = False
    """Whether it is no assertion and no line of the user's raised it: a time-out, a refused connection."""
    failed_with: object = None
    """As `CallEnd.failed_with`."""
    patience: Patience | None = None
    """How long the test waited before it gave up, where that is known."""
    error: str = ""
    """The exception's type: ``"Empty"``."""
    text: str = ""
    """The failure as the user reads it, with single spaces."""
    others: Mapping[str, CallEnd] = field(default_factory=dict)
    """By method: how the calls of the test's other legs ended."""

    reports: Sequence[ChildReport] = ()
    """What children reported, the oldest first."""
    remote: Sequence[Raised] = ()
    """What tasks raised in a worker, as far as the leg's exception carries that: type, message and frames."""
    unreturned: Sequence[Unreturned] = ()
    """Messages of children that the parent could not load."""
    unloaded: Mapping[int, Sequence[Unloaded]] = field(default_factory=dict)
    """By pid: what of a launch's payload a fresh child could not load, and by which path."""
    copied: Sequence[tuple[Launch, Mapping[str, Any]]] = ()
    """What arrived of the arguments of launches, as `Launch.account` has what was sent."""
    parent: Parent = field(default_factory=Parent)
    seen: Sequence[tuple[Observed, Sequence[Seen]]] = ()
    """What fresh children have where the code of launches and tasks reads."""
    environ: Mapping[str, str] | None = None
    """The environment of the leg's forkserver, if it has one."""
    server: Server | None = None
    """The forkserver, as it stood after a failure."""
    not_children: Sequence[NotAChild] = ()
    """Calls of ``os.waitpid`` and its kind for processes that the forkserver started."""
    hanging: Hanging | None = None
    """Where everybody stood when the time limit was reached."""

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames of the leg's exception, outermost first."""
        return self.raised[0].frames if self.raised else ()
