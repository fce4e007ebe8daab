"""Processes that a leg started, tasks that it submitted, and starts and sends that failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .._compat import multiprocessing as mp
from .finding import Finding
from .observed import Observed
from .payload import Payload
from .place import Place, file_and_line
from .server import Surroundings
from .wire import Json

UNKNOWN: Final = dict.fromkeys(
    ("method", "target", "args", "file", "line", "thread", "fixture", "pid", "exit_code", "error", "worker")
)
"""The keys of `Launch.as_dict`, for what `Launch.known` leaves out."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """The fixture that was being set up: its name, its scope, and the node that defines it."""

    name: str
    scope: str
    base: str

    @classmethod
    def of(cls, definition: Any) -> Fixture:
        """Return the facts of a ``pytest.FixtureDef``."""
        return cls(definition.argname, definition.scope, definition.baseid)


@dataclass(slots=True)
class WatchedPool:
    """One pool: how its workers ended, in order, and how many results have arrived."""

    exits: list[int] = field(default_factory=list)
    """Exit codes of workers that failed since the last result."""
    results: int = 0
    pool: Callable[[], Any] = lambda: None
    """A weak reference, set when the pool is given its first task."""
    place: Place | None = None
    """The user's line that made the pool: later workers replace earlier ones in a thread of the pool."""
    given_up: str | None = None
    """The message with which its jobs were ended."""

    def exited(self, code: int | None) -> None:
        """Record the exit code of a worker."""
        if code:
            self.exits.append(code)


@dataclass(frozen=True, slots=True)
class Changed:
    """An attribute of a parent's object that pickling removed or replaced."""

    path: str
    """``"args[0]"``"""
    method: str
    """The pickling method: ``"Registry.__getstate__"``."""
    place: Place | None
    """The method's first line."""
    lines: tuple[int, ...]
    """All lines of the method that have code."""
    attribute: str
    before: str
    after: str | None
    """None: it was removed."""
    readers: frozenset[str]
    """The names of the methods of its class that read the attribute."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a child is sent, to be compared with what arrives."""

    account: Json
    """`pickling.sent.account`"""
    payload: Payload


@dataclass(slots=True)
class Launch:
    """One process that started, or failed to, while a leg ran."""

    method: str
    target: str
    args: tuple[str, ...]
    """The arguments, described by type; the values themselves are not kept."""
    place: Place | None
    """The user's line that started it."""
    thread: str | None
    """The name of the thread that started it; None for the main thread."""
    fixture: Fixture | None
    leg: str
    pid: int | None = None
    exit_code: int | None = None
    error: str | None = None
    """``"PicklingError: ..."`` when ``start()`` raised."""
    failure: Failure | None = None
    """What the exception of ``start()`` comes from, if something did not pickle."""
    found: tuple[Finding, ...] = ()
    """Why ``start()`` raised, if all pickled."""
    predicted: tuple[Finding, ...] = ()
    """Under fork: why ``start()`` would raise under spawn."""
    payload: Payload | None = None
    """Under spawn and forkserver: what was pickled, if it is not large, to see which part of it does not load."""
    pool: WatchedPool | None = None
    """The Pool whose worker it is."""
    popen: Callable[[], Any] = lambda: None
    """Return the Popen object while the process object lives, else None."""
    is_worker: bool = False
    """Whether a Pool or an executor started it."""
    by_torch: bool = False
    """Whether ``torch.multiprocessing`` started it."""
    own_method: bool = False
    """Whether its class, rather than the default context, determines its start method."""
    threads: tuple[str, ...] = ()
    """Under fork: the parent's other threads when it started."""
    pinned: bool | None = None
    """For an unmarked test that is only watched: whether its context names a method. For a leg: None."""
    observed: Observed | None = None
    """What its code reads and writes, and what the parent had there."""
    changed: tuple[Changed, ...] = ()
    """What pickling it changed in the parent's own objects."""
    sent: list[Sent] = field(default_factory=list)
    """What was sent, at most once, if the copy may differ."""
    surroundings: Surroundings | None = None
    """Under forkserver: what a process started by the parent itself would have inherited."""
    in_script: bool = False
    """Whether a script that the test ran started it; its end is then explained with the script."""
    killed: bool = False
    """Whether SIGKILL was sent to it from here, since it did not end otherwise."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Why ``start()`` raised."""
        return self.found if self.failure is None else (*self.failure.findings, *self.found)

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        popen = self.popen()
        return popen is not None and mp.is_running(popen)

    def as_dict(self) -> Json:
        """Return the launch as builtins."""
        return {
            "method": self.method,
            "target": self.target,
            "args": list(self.args),
            **file_and_line(self.place),
            "thread": self.thread,
            "fixture": self.fixture and self.fixture.name,
            "pid": self.pid,
            "exit_code": self.exit_code,
            "error": self.error,
            "worker": self.is_worker,
        }

    def known(self) -> Json:
        """Return `as_dict` without what is null or false: results of thousands of legs are kept."""
        return {name: value for name, value in self.as_dict().items() if value is not None and value is not False}


@dataclass(slots=True)
class Task:
    """One callable given to a pool or executor, or run by its workers as they start."""

    method: str | None
    owner: str
    """``"Pool"`` or ``"ProcessPoolExecutor"``."""
    how: str
    """``"apply_async"``, ``"map"``, ``"imap"``, ``"imap_unordered"``, ``"submit"``, ``"initializer"``."""
    target: str
    place: Place | None
    findings: tuple[Finding, ...] = ()
    """Why it could not be sent."""
    observed: Observed | None = field(default=None, compare=False)
    """What its code reads and writes, and what the parent had there."""
    later: Observed | None = field(default=None, compare=False)
    """The same at the last such task, if the parent's values had changed by then."""
    changed: tuple[Changed, ...] = field(default=(), compare=False)
    """What pickling it changed in the parent's own objects."""
    sent: list[Sent] = field(default_factory=list, compare=False)
    """What was sent for the first such tasks, if the copy may differ."""
    examined: int = field(default=0, compare=False)
    """How many such tasks were examined as they were pickled."""

    def as_dict(self) -> Json:
        """Return the task as builtins."""
        what = {"method": self.method, "owner": self.owner, "how": self.how, "target": self.target}
        return {**what, **file_and_line(self.place)}


@dataclass(slots=True)
class Failure:
    """A failed start or send, and what is known of it."""

    error: str
    """``"PicklingError: ..."``"""
    findings: tuple[Finding, ...] = ()
    """Why; filled once a copy of the process has answered (`LegRecord.pending`)."""
    place: Place | None = None
    """The user's line that started or sent."""
    in_script: bool = False
    """Whether it happened in a script that the test ran."""
