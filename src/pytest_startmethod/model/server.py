"""The forkserver as seen from outside, and what a process inherits from whoever starts it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .place import Place


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process that is started now inherits, and a child of a server that runs already does not."""

    streams: tuple[tuple[object, str], ...] = ()
    """What the descriptors 0, 1 and 2 lead to: something that is equal for the same file, and its name."""
    ignored: frozenset[str] = frozenset()
    """Names of ignored signals."""
    server: int | None = None
    """The pid of the forkserver that runs already."""


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
    """Where multiprocessing puts its sockets, or None if it has put none anywhere."""
    gone: bool = False
    """Whether `socket` or `directory` no longer exists."""
    base: str = ""
    """The temporary directory of this process now."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    """What the server itself was started with."""


@dataclass(frozen=True, slots=True)
class NotAChild:
    """A call that waits for a child of this process, and was given the pid of a process that is none."""

    function: str
    """``"waitpid"``, ``"waitid"``, ``"wait4"``."""
    pid: int
    place: Place | None
    """The user's line."""
