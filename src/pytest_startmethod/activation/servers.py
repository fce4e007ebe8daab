"""The forkserver that legs use, free of state from earlier legs, and the resource tracker that legs start."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import getpid

from .._compat import cpython
from .._compat import multiprocessing as mp
from .._compat.cpython import RealTime
from .._compat.signals import OwnCode
from ..child.descriptors import Descriptor
from .exchanges import Span

_STOP_SECONDS = 5.0


class ForkServers:
    """The legs' forkserver, restarted whenever it would differ from a freshly started one.

    A forkserver of the user's own is set aside while a leg needs one, and restored afterwards.
    """

    def __init__(self, package: mp.Package = mp.STDLIB) -> None:
        self.package = package
        self._ours: dict[str, object] | None = None
        self._theirs: dict[str, object] | None = None
        """State of the user's server, from the leg's first use of ours to the end of the leg."""
        self._print: object = None
        self._retired: list[tuple[int, str | None]] = []
        self._pid = getpid()
        self._alive: Descriptor | None = None
        """The descriptor that ends our server when closed."""
        self.environment: dict[str, str] | None = None
        """Environment in which the current server was started."""
        self.temporary: str | None = None
        """The temporary directory at the leg's first use of the server, if user code or pytest has set one."""

    @property
    def in_use(self) -> bool:
        """Whether the running leg has used our server."""
        return self._theirs is not None

    def exit(self) -> None:
        """End a leg: restore the user's server, and keep ours for the next leg."""
        self.temporary = None
        if self._theirs is not None:
            self._ours = self.package.server_state()
            self.package.set_server_state(self._theirs)
            self._theirs = None

    def renew(self) -> None:
        """Make the next leg start a new server, as the first one did."""
        self._print = None

    def watch(self, original: Callable[[object], None]) -> Callable[[object], None]:
        """Wrap ``ForkServer.ensure_running`` to replace a stale server at a leg's first use."""

        def ensure_running(server: object) -> None:
            if getpid() != self._pid:
                return original(server)
            if self._theirs is not None:
                return self._running(original, server)
            with OwnCode():
                self._theirs = self.package.server_state()
                self.package.set_server_state(self._ours)
                self.temporary = tempfile.tempdir
                fingerprint = _surroundings(self.package)
                if fingerprint != self._print or _is_lost(mp.server_socket(self.package.server_state())):
                    self._retire(self.package.server_state())
                    self.package.set_server_state(None)
                self._print = fingerprint
            with _preloading("pytest", self.package):
                return self._running(original, server)

        return ensure_running

    def _running(self, original: Callable[[object], None], server: object) -> None:
        """Start the server if it is not running, and record the environment of a new one."""
        with OwnCode():
            before, environment = _which(self.package.server_state()), cpython.environment()
        original(server)
        state = self.package.server_state()
        if _which(state) != before:
            self.environment, descriptor = environment, mp.server_alive_fd(state)
            self._alive = None if descriptor is None else Descriptor(descriptor, move=False)

    def _retire(self, state: dict[str, object]) -> None:
        # The server ends when the last holder of its pipe closes it. Living children hold it too, and need the server
        # to receive their exit status. So the pipe is closed here, and the server is reaped at the end of the session.
        pid, descriptor = mp.server_pid(state), mp.server_alive_fd(state)
        if self._alive is not None and self._alive.number == descriptor:  # user code may have closed it
            self._alive.close()
        if pid is not None:
            self._retired.append((pid, mp.server_socket(state)))
        self._retired = [each for each in self._retired if not _reap(*each)]

    def end_users(self, seconds: float = _STOP_SECONDS) -> None:
        """End the server that tests which are not legs left running; their next start launches a new one."""
        state = self.package.server_state()
        descriptor = mp.server_alive_fd(state)
        if self._ours is None and descriptor is not None and mp.server_pid(state) is not None:
            self._alive = Descriptor(descriptor, move=False)
            self._retire(state)
            self.package.set_server_state(None)
            self._retired = _await_ends(self._retired, seconds)

    def close(self, seconds: float = _STOP_SECONDS) -> None:
        """End our servers. A server whose children outlive the session ends with them."""
        if self._ours is not None:
            self._retire(self._ours)
            self._ours = None
        self._retired = _await_ends(self._retired, seconds)


class Tracker:
    """The resource tracker (`multiprocessing.resource_tracker`) that legs start.

    It ends after the legs if nothing is left registered, so that other tests do not find it among pytest's children.
    """

    def __init__(self) -> None:
        self._alive: Descriptor | None = None
        """The descriptor that ends the tracker when closed; None if no leg started one."""
        self._registered: set[tuple[object, ...]] = set()
        self._retired: list[tuple[int, str | None]] = []

    def listen(self, span: Span) -> None:
        """Record what is registered during `span`, unless a tracker was already running."""

        def listen() -> None:
            module, tracker = cpython.tracker()
            span.put(type(tracker), "_send", self._watch_messages)
            span.put(module, "getfd", self._watch_use)

        self._alive = None
        self._registered.clear()
        if cpython.tracker_pid() is None:
            span.when_loaded("multiprocessing.resource_tracker", listen)

    def _watch_use(self, original: Callable[[], int]) -> Callable[[], int]:
        def getfd() -> int:
            number = original()
            self._note(number)
            return number

        return getfd

    def _watch_messages(self, original: Callable[..., None]) -> Callable[..., None]:
        def _send(tracker: object, command: str, *resource: object) -> None:
            original(tracker, command, *resource)
            self._note(cpython.tracker_descriptor(tracker))
            (self._registered.add if command == "REGISTER" else self._registered.discard)(resource)

        return _send

    def _note(self, number: int | None) -> None:
        if number is not None and (self._alive is None or self._alive.number != number):
            self._alive = Descriptor(number, move=False)

    def end_users(self, seconds: float = _STOP_SECONDS) -> None:
        """End the tracker that tests which are not legs left running, unless something may be registered."""
        number = cpython.tracker_descriptor(cpython.tracker()[1]) if cpython.tracker_pid() is not None else None
        if number is not None and not cpython.may_have_registered():
            self._alive = Descriptor(number, move=False)
            self._registered.clear()
            self.close(seconds)

    def close(self, seconds: float = _STOP_SECONDS) -> None:
        """End the tracker if everything registered is gone."""
        alive, self._alive = self._alive, None
        if alive is not None and alive.is_open() and not self._registered:
            pid = cpython.forget_tracker()
            alive.close()
            if pid is not None:
                self._retired.append((pid, None))
        self._retired = _await_ends(self._retired, seconds)


def _await_ends(processes: list[tuple[int, str | None]], seconds: float) -> list[tuple[int, str | None]]:
    """Reap children of ours that are about to end, and return those still running after `seconds`."""
    deadline = RealTime.now() + seconds
    while left := [each for each in processes if not _reap(*each)]:
        if RealTime.now() >= deadline:
            break
        processes = left
        RealTime.sleep(0.002)
    return left


def _which(state: Mapping[str, object]) -> object:
    """Return an identifier of a server; billiard keeps no pid."""
    return mp.server_pid(state), mp.server_alive_fd(state)


def _is_lost(socket_path: str | None) -> bool:
    """Return whether an earlier test has removed or moved the server's socket."""
    return socket_path is not None and not os.path.lexists(socket_path)


def _reap(pid: int, socket_path: str | None) -> bool:
    done = cpython.wait_for(pid, os.WNOHANG)
    if done and socket_path is not None:
        with suppress(OSError):
            os.unlink(socket_path)
    return done


def _surroundings(package: mp.Package) -> object:
    """Return the state that a server keeps from its start. Equal values mean that a new server would be the same."""
    # without PYTEST_CURRENT_TEST, which pytest changes in every phase, so that servers can be reused
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
    except OSError:  # the directory was removed
        directory = None
    return environment, directory, list(sys.path), streams, list(package.preload_modules)


@contextmanager
def _preloading(module: str, package: mp.Package) -> Iterator[None]:
    """Add `module` to the modules that a new server preloads, then restore the user's list."""
    names = package.preload_modules
    package.set_preload_modules([*names, *([] if module in names else [module])])
    try:
        yield
    finally:
        package.set_preload_modules(names)
