"""The forkserver as seen from outside, and what a process inherits from its parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .place import Place


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process started now inherits, but a child of an already running server does not."""

    streams: tuple[tuple[object, str], ...] = ()
    """The targets of descriptors 0, 1 and 2: a value that is equal for the same file, and its name."""
    ignored: frozenset[str] = frozenset()
    """Names of ignored signals."""
    inherited: Mapping[str, str] = field(default_factory=dict)
    """The rest that the kernel passes on, by name: umask, limits, CPU affinity, blocked signals. Linux only."""
    server: int | None = None
    """The pid of an already running forkserver."""


@dataclass(frozen=True, slots=True)
class Server:
    """The forkserver of multiprocessing, its socket, and the other helper process."""

    pid: int | None = None
    running: bool = False
    tracker: int | None = None
    """The pid of the resource tracker."""
    socket: str | None = None
    """The path of the server's socket."""
    directory: str | None = None
    """The directory of multiprocessing's sockets; None if there are none."""
    gone: bool = False
    """Whether `socket` or `directory` no longer exists."""
    base: str = ""
    """The temporary directory of this process now."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    """What the server itself was started with."""
    preloaded: tuple[str, ...] = ()
    """The modules that it imported for its children, as far as the user named them."""


@dataclass(frozen=True, slots=True)
class NotAChild:
    """A call that waits for a child, with the pid of a process that is not a child."""

    function: str
    """``"waitpid"``, ``"waitid"``, ``"wait4"``."""
    pid: int
    place: Place | None
    """The user's line."""
