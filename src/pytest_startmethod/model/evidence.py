"""The facts about one phase of a leg when it ends, from both processes; `causes` explains them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

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
from .wire import Fields


@dataclass(frozen=True, slots=True)
class Parent:
    """What the parent can import, and why."""

    modules: Mapping[str, object] = field(default_factory=lambda: sys.modules)
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
    """Whether the wait itself raised on expiry, rather than a later line."""
    measured: bool = False
    """Whether the test did not wait, but measured the time that had passed."""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How the call of another leg of the test ended."""

    outcome: str
    """``"passed"``, ``"failed"`` or ``"skipped"``."""
    failed_with: object = None
    """The exception's type and the user's line; equal for similar failures."""
    events: frozenset[tuple[str, str]] = frozenset()
    """Everything that went wrong: kind (``"send"``, ``"exit"``, ``"raised"``) and text."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts about a phase of a leg, or about a call that never runs."""

    leg: str
    """Its node id."""
    method: str
    outcome: Literal["passed", "failed", "skipped", "asked"]
    """``"asked"``: nothing has run; the question is what would happen."""
    marked: bool = True
    """Whether the test has the marker, rather than only one of the fixtures."""
    launches: Sequence[Launch] = ()
    tasks: Sequence[Task] = ()
    failures: Sequence[Failure] = ()
    """Starts and sends that failed while the leg ran, in order."""
    failure: Failure | None = None
    """The one that raised the leg's exception."""
    inherited: Sequence[Launch] = ()
    """Launches that the leg's wider fixtures made in earlier legs."""
    asked: Sequence[Place] = ()
    """Where the user's code called ``get_start_method``."""
    overrides: Sequence[SetByUser] = ()
    foreign: Sequence[Foreign] = ()
    """Processes started outside the leg's start method."""
    patches: Sequence[Patched] = ()
    """What tests and fixtures replaced while the leg ran."""
    tests: Sequence[str] = ()
    """The test's own file, then the conftest files: searched first for where something was set."""

    raised: Sequence[Raised] = ()
    """The leg's exception, then what it was raised from, each with all its frames."""
    raised_at: Place | None = None
    """The user's line that raised, or skipped."""
    raised_elsewhere: bool = False
    """Whether library code raised it, and it is no assertion: a timeout, a refused connection."""
    failed_with: object = None
    """As `CallEnd.failed_with`."""
    patience: Patience | None = None
    """How long the test waited before it gave up, if known."""
    error: str = ""
    """The exception's type: ``"Empty"``."""
    text: str = ""
    """The failure as the user reads it, with single spaces."""
    others: Mapping[str, CallEnd] = field(default_factory=dict)
    """By method: how the calls of the test's other legs ended."""

    reports: Sequence[ChildReport] = ()
    """What children reported, the oldest first."""
    remote: Sequence[Raised] = ()
    """What tasks raised in a worker, as far as the leg's exception carries it: type, message and frames."""
    unreturned: Sequence[Unreturned] = ()
    """Messages of children that the parent could not load."""
    unloaded: Mapping[int, Sequence[Unloaded]] = field(default_factory=dict)
    """By pid: the parts of a launch's payload that a fresh child could not load, with their paths."""
    copied: Sequence[tuple[Fields, Fields]] = ()
    """Accounts (`pickling.sent.account`) of what was sent with launches and tasks, and of what arrives."""
    parent: Parent = field(default_factory=Parent)
    seen: Sequence[tuple[Observed, Sequence[Seen]]] = ()
    """The values in fresh children of what the code of launches and tasks reads."""
    environ: Mapping[str, str] | None = None
    """The environment of the leg's forkserver, if there is one."""
    server: Server | None = None
    """The forkserver, as it stood after a failure."""
    not_children: Sequence[NotAChild] = ()
    """Calls of ``os.waitpid`` and the like for processes that the forkserver started."""
    hanging: Hanging | None = None
    """The stacks of all processes when the time limit was reached."""

    @property
    def raised_in_children(self) -> Sequence[Raised]:
        """What the leg's children raised, as far as they reported it or a pool passed it on."""
        return [*self.remote, *(raised for report in self.reports for raised in report.raised)]

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames of the leg's exception, outermost first."""
        return self.raised[0].frames if self.raised else ()
