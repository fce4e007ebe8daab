"""Make locks of the default context follow the leg's method, whenever they were created.

A module-level ``multiprocessing.Lock()`` is created at import, under the interpreter's default method, before any leg.
Where spawn is the default it is a spawn lock, which a process may receive. Where fork is the default it is a fork
lock, and CPython rightly refuses to send it ("A SemLock created in a fork context is being shared with a process in a
spawn context"). The same happens to a lock that an earlier leg created and a cache kept. So a leg under spawn or
forkserver replaces the semaphore of such a lock when it is pickled for a process. A lock requested from a fork context
by name is left alone: that is SM106.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from .._compat import cpython
from .._compat import multiprocessing as mp
from .._compat.signals import OwnCode

_MADE_BY_NAME = "_pytest_startmethod_pinned"


def watch_creation(original: Callable[..., None], package: mp.Package) -> Callable[..., None]:
    """Wrap ``SemLock.__init__`` to record whether the user got the lock from a context requested by name."""

    def __init__(lock: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - it replaces one
        original(lock, *args, **kwargs)
        lock.__dict__[_MADE_BY_NAME] = not package.made_by_default_context(sys._getframe(1))

    return __init__


def adopt(original: Callable[[object], object], native: str, package: mp.Package) -> Callable[[object], object]:
    """Wrap ``SemLock.__getstate__`` to make a lock of the default context picklable under the leg's method.

    `native` is the interpreter's own default. A lock older than the first leg belongs to the default context if it is a
    fork lock and `native` is fork.
    """

    def __getstate__(lock: object) -> object:  # noqa: N807 - it replaces one
        with OwnCode(), suppress(Exception):  # on failure CPython raises its own error
            pinned = lock.__dict__.get(_MADE_BY_NAME, native != "fork")
            # during a leg, the interpreter's default is the leg's method
            spawning = package.is_spawning() and package.interpreter_default() != "fork"
            if spawning and not pinned and cpython.made_by_fork(lock):
                package.make_lock_anew(lock)
        return original(lock)

    return __getstate__
