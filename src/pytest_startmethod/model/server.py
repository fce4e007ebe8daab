"""The forkserver, as seen from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Server:
    """The forkserver of multiprocessing and its socket."""

    pid: int | None = None
    socket: str | None = None
    """The path of its socket."""
    directory: str | None = None
    """Where multiprocessing puts its sockets, or None if it has put none anywhere."""
    gone: bool = False
    """Whether `socket` or `directory` no longer exists."""
    base: str = ""
    """The temporary directory of this process now."""
    waited_for: Mapping[str, int] = field(default_factory=dict)
    """The pids that the failing line passes to ``os.waitpid`` and its kind, by their source text."""
