"""Locks of the default context belong to the leg's method, whenever they were made.

A module-level ``multiprocessing.Lock()`` is made when the module is imported: under the interpreter's default, before
any leg. Where spawn is the default it is a spawn lock and may be handed to a process; here it would be a fork lock,
and CPython rightly refuses it ("A SemLock created in a fork context is being shared with a process in a spawn
context"). The same goes for one that an earlier leg made and a cache kept. So a leg under spawn or forkserver gives
such a lock, at the moment when it is handed to a process, the semaphore that it would have had. A lock that the code
asked of a fork context by name is left alone: that is SM106.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._compat import multiprocessing as mp

_MADE_BY_NAME = "_pytest_startmethod_pinned"


def watch_creation(original: Callable[..., None], package: mp.Package) -> Callable[..., None]:
    """Wrap ``SemLock.__init__``: note whether the user asked a context for the lock by its name."""

    def __init__(lock: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - it replaces one
        original(lock, *args, **kwargs)
        lock.__dict__[_MADE_BY_NAME] = not package.made_by_default_context(sys._getframe(1))

    return __init__


def adopt(original: Callable[[Any], object], native: str, package: mp.Package) -> Callable[[Any], Any]:
    """Wrap ``SemLock.__getstate__``: a lock of the default context becomes one that a child can have.

    `native` is the interpreter's own default: a lock from before the first leg is one of the default context's if it
    is a fork lock and fork is the default.
    """

    def __getstate__(lock: object) -> Any:  # noqa: N807 - it replaces one
        with suppress(Exception):  # CPython's own error says what is wrong
            pinned = lock.__dict__.get(_MADE_BY_NAME, native != "fork")
            # while a leg runs, its method is the default
            spawning = package.is_spawning() and package.interpreter_default() != "fork"
            if spawning and not pinned and mp.is_fork_lock(lock):
                package.make_lock_anew(lock)
        return original(lock)

    return __getstate__
