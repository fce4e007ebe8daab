"""Find the locks of `threading` that code reads and that are held at a fork: the child's copy stays held for ever."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable

from ..child.values import resolve
from ..model.observed import Read, Where

_LOCKS = (type(threading.Lock()), type(threading.RLock()))


def held_locks(found: Iterable[Read]) -> list[tuple[str, Where]]:
    """Return path and place of each read of a lock that is held now, while other threads run."""
    if threading.active_count() < 2:
        return []
    every = [(resolve(sys.modules.get(read.module), read.names, read.steps), read) for read in found if read.names]
    # 3.14 is the first version with RLock.locked()
    return [(read.path, read.where) for lock, read in every if type(lock) in _LOCKS and repr(lock)[:7] == "<locked"]
