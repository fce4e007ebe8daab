"""The experiment that gives multiprocessing, and nobody else, the originals of what a test has replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .._compat import multiprocessing as mp
from ..activation.exchanges import Exchanges
from ..child.values import MISSING
from .replay import NotSentError, split


class StartingUnpatched:
    """A context in which processes start, and locks are made, with the values that some names had when it began."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.absent: set[str] = set(paths)
        """Names that were not replaced whenever a process was started."""
        holders = {path: _holder(path) for path in self.absent}
        self._originals = {path: (*found, _own(*found)) for path, found in holders.items()}
        self._exchanges = Exchanges()

    def __enter__(self) -> StartingUnpatched:
        span = self._exchanges.span("originals")
        span.put(mp.STDLIB.process_class, "start", self._wrapped)
        span.put(mp.STDLIB.lock_class, "__init__", self._wrapped)
        return self

    def __exit__(self, *_: object) -> None:
        self._exchanges.undo()

    def _wrapped(self, original: Callable[..., object]) -> Callable[..., Any]:
        def wrapper(*args: object, **keywords: object) -> object:
            __tracebackhide__ = True
            with self._restored():
                return original(*args, **keywords)

        return wrapper

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Put the originals back while a process starts."""
        replaced = []
        for path, (holder, name, value) in self._originals.items():
            theirs = _own(holder, name)
            if holder is not None and theirs is not value:
                self.absent.discard(path)
                replaced.append((holder, name, theirs))
                _put(holder, name, value)
        try:
            yield
        finally:
            for holder, name, theirs in replaced:
                _put(holder, name, theirs)


def _holder(path: str) -> tuple[object, str]:
    """Return the module or class that has the last name of `path`, or None, and that name."""
    try:
        module, names = split(path)
    except NotSentError:
        return None, path
    holder: object = module
    for name in names[:-1]:
        holder = _own(holder, name)
    return (None if holder is MISSING else holder), names[-1]


def _own(holder: object, name: str) -> object:
    return getattr(holder, "__dict__", {}).get(name, MISSING)


def _put(holder: object, name: str, value: object) -> None:
    if value is MISSING:
        delattr(holder, name)
    else:
        setattr(holder, name, value)
