"""The forkserver that legs use: never one that holds what an earlier leg had."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from .._compat.cpython import RealTime
from ..child.descriptors import Descriptor

_STOP_SECONDS = 5.0


class ForkServers:
    """The legs' forkserver, restarted whenever it would differ from a freshly started one.

    The user's own server, if there is one, is set aside when a leg needs one, and put back afterwards.
    """

    def __init__(self, package: mp.Package = mp.STDLIB) -> None:
        self.package = package
        self._ours: dict[str, Any] | None = None
        self._theirs: dict[str, Any] | None = None
        """The user's, while ours is in its place: since the leg's first use of one."""
        self._print: Any = None
        self._retired: list[tuple[int, str | None]] = []
        self._pid = os.getpid()
        self._alive: Descriptor | None = None
        """The descriptor whose closing ends our server."""
        self.environment: dict[str, str] | None = None
        """What the server in use was started with."""
        self.temporary: str | None = None
        """The temporary directory at the leg's first use of the server, if the user's code or pytest has set one."""

    def exit(self) -> None:
        """End a leg: put the user's server back, and keep ours for the next leg."""
        self.temporary = None
        if self._theirs is not None:
            self._ours = self.package.server_state()
            self.package.set_server_state(self._theirs)
            self._theirs = None

    def renew(self) -> None:
        """Make the next leg start a server of its own, as the first one did."""
        self._print = None

    def watch(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        """Wrap ``ForkServer.ensure_running``: at a leg's first use, a stale server makes room for a new one."""

        def ensure_running(server: object) -> None:
            if os.getpid() != self._pid:
                return original(server)
            if self._theirs is not None:
                return self._running(original, server)
            self._theirs = self.package.server_state()
            self.package.set_server_state(self._ours)
            self.temporary = tempfile.tempdir
            fingerprint = _surroundings(self.package)
            if fingerprint != self._print:
                self._retire(self.package.server_state())
                self.package.set_server_state(None)
            self._print = fingerprint
            with _preloading("pytest", self.package):
                return self._running(original, server)

        return ensure_running

    def _running(self, original: Callable[[Any], None], server: object) -> None:
        """Start the server if it is not running, and note the environment that a new one keeps."""
        before, environment = _which(self.package.server_state()), cpython.environment()
        original(server)
        state = self.package.server_state()
        if _which(state) != before:
            self.environment, descriptor = environment, mp.server_alive_fd(state)
            self._alive = None if descriptor is None else Descriptor(descriptor, move=False)

    def _retire(self, state: dict[str, Any]) -> None:
        # The server ends when the last holder of its pipe does: children that are still alive hold it, too, and need
        # it to hear of their exit. So the pipe is closed here and the server is reaped when the session ends.
        pid, descriptor = mp.server_pid(state), mp.server_alive_fd(state)
        if self._alive is not None and self._alive.number == descriptor:  # the code under test may have closed it
            self._alive.close()
        if pid is not None:
            self._retired.append((pid, mp.server_socket(state)))
        self._retired = [each for each in self._retired if not _reap(*each)]

    def close(self) -> None:
        """End our servers; one whose children outlive the session is left to end with them."""
        if self._ours is not None:
            self._retire(self._ours)
            self._ours = None
        deadline = RealTime.now() + _STOP_SECONDS
        while self._retired and RealTime.now() < deadline:
            self._retired = [each for each in self._retired if not _reap(*each)]
            RealTime.sleep(0.005)


def _which(state: Mapping[str, object]) -> object:
    """Return what tells a server from another one; billiard keeps no pid."""
    return mp.server_pid(state), mp.server_alive_fd(state)


def _reap(pid: int, socket_path: str | None) -> bool:
    done = cpython.wait_for(pid, os.WNOHANG)
    if done and socket_path is not None:
        with suppress(OSError):
            os.unlink(socket_path)
    return done


def _surroundings(package: mp.Package) -> Any:
    """Return what a server keeps from the moment it starts: equal values mean that a new one would be the same."""
    # pytest changes PYTEST_CURRENT_TEST at every phase: with it no server would ever be reused
    environment = cpython.environment()
    environment.pop("PYTEST_CURRENT_TEST", None)
    streams: list[tuple[int, int] | None] = []
    for descriptor in (0, 1, 2):
        try:
            status = os.fstat(descriptor)
            streams.append((status.st_dev, status.st_ino))
        except OSError:
            streams.append(None)
    try:
        directory = os.getcwd()
    except OSError:  # it was removed
        directory = None
    return environment, directory, list(sys.path), streams, list(package.preload_modules)


@contextmanager
def _preloading(module: str, package: mp.Package) -> Iterator[None]:
    """Add `module` to what a server started now imports; the user's own list is put back."""
    names = package.preload_modules
    package.set_preload_modules([*names, *([] if module in names else [module])])
    try:
        yield
    finally:
        package.set_preload_modules(names)
