"""Our file descriptors: kept out of the user's way, and not confused with the user's when a number is reused."""

from __future__ import annotations

import os

try:  # not on Windows
    import fcntl
    import resource
except ImportError:
    pass

_HIGHEST, _ROOM = 4_000, 64
"""Highest descriptor number, and room left above ours: the table that a fork copies grows with the highest number."""


class Descriptor:
    """An open descriptor of ours, with a high number and close-on-exec.

    Code under test may close it (a double ``os.close``, ``os.closerange``) and reuse its number for a file of its own.
    `close` then leaves that file open.
    """

    __slots__ = ("_identity", "number")

    def __init__(self, number: int, *, move: bool = True) -> None:
        self.number = _moved(number) if move else number
        self._identity = _identity(self.number)

    def is_open(self) -> bool:
        """Return whether the number still refers to the file we opened."""
        return self._identity is not None and _identity(self.number) == self._identity

    def close(self) -> None:
        """Close the descriptor if it is still ours."""
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
    """Move a descriptor to a high number and return it; return the original number if that is impossible."""
    try:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limit = _HIGHEST if limit == resource.RLIM_INFINITY else min(limit, _HIGHEST)
        high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, max(3, limit - _ROOM))
    except (OSError, NameError, AttributeError, ValueError):
        return number
    os.close(number)
    return high
