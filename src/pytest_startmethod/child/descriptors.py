"""Descriptors of ours among the user's: out of their way, and never taken for one that the user has opened since."""

from __future__ import annotations

import os

try:  # not on Windows
    import fcntl
    import resource
except ImportError:
    pass

_HIGHEST, _ROOM = 4_000, 64
"""The kernel keeps a table as long as the highest number, and a fork copies it."""


class Descriptor:
    """A descriptor that this process opened, with a high number and close-on-exec; `close` leaves alone what it is not.

    Code under test may close it (a double ``os.close``, ``os.closerange``) and get its number for a file of its own.
    """

    __slots__ = ("_identity", "number")

    def __init__(self, number: int, *, move: bool = True) -> None:
        self.number = _moved(number) if move else number
        self._identity = _identity(self.number)

    def is_open(self) -> bool:
        """Return whether the number still stands for what was opened."""
        return self._identity is not None and _identity(self.number) == self._identity

    def close(self) -> None:
        """Close it, if it is still open."""
        if self.is_open():
            os.close(self.number)
        self._identity = None


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _moved(number: int) -> int:
    """Return a copy of a descriptor with a high number, and close the original; that itself where there is none."""
    try:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limit = _HIGHEST if limit == resource.RLIM_INFINITY else min(limit, _HIGHEST)
        high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, max(3, limit - _ROOM))
    except (OSError, NameError, AttributeError, ValueError):
        return number
    os.close(number)
    return high
