"""Make a leg's start method the interpreter's default, and take it back without a trace."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from .._compat import multiprocessing as mp
from ..model.leg import SetByUser
from ..model.place import Place
from ..source.callers import calling_place, owner, user_files
from ..source.index import find_calls
from . import import_hooks

active_package = mp.STDLIB
"""The package whose start method the running leg is about."""


class Activation:
    """The state of one leg's method: what was there before, what the user's code did to it since.

    `method` is what `package` calls it.
    """

    def __init__(self, method: str, package: str = mp.STDLIB) -> None:
        self.method = method
        self.package = package
        self.in_call = False
        self.overrides: list[SetByUser] = []
        self.asked: list[Place] = []
        self._before = mp.context_state(package)
        self._actual = self._before["_actual_context"]
        """What user code set, to be put back at the end."""

    def enter(self) -> None:
        """Make the method the default."""
        global active_package
        active_package = self.package
        by_use = self.package == mp.STDLIB and mp.fixed_by_use()
        set_before = mp.method_of(self._actual) if not by_use else None
        if (
            set_before not in (None, self.method)
            and not mp.is_watched(self._before["class"])
            and not _fixed_by_use(str(set_before), self.package)
        ):
            self.overrides.append(SetByUser(str(set_before), _where_set(str(set_before)), wins=False))
        mp.make_default(self.method, self, self.package)
        if self.package == mp.STDLIB:
            mp.let_twins_be(self.method)

    def enter_call(self) -> None:
        """Put the method back if a fixture or a hook changed it, and mark what the test itself sets from here on."""
        if mp.method_of(mp.set_context(self.package)) not in (None, self.method):
            mp.make_default(self.method, self, self.package)
        self.in_call = True

    def leave_call(self) -> None:
        """Take what is set from here on as a fixture's again."""
        self.in_call = False

    def exit(self) -> None:
        """Put back what was there: the user's own choice, if a fixture made one meanwhile."""
        global active_package
        active_package = mp.STDLIB
        mp.let_twins_be(None)
        mp.restore_context_state(self._before, self._actual, self.package)

    def method_set(self, method: str | None, caller: FrameType | None) -> None:
        """Hear of a ``set_start_method`` (`mp.ContextListener`)."""
        if not self.in_call:
            self._actual = (
                self._before["_actual_context"] if method in (None, self.method) else mp.set_context(self.package)
            )
        if method not in (None, self.method):
            self.overrides.append(SetByUser(str(method), calling_place(caller), wins=self.in_call))

    def method_asked(self, caller: FrameType | None) -> None:
        """Hear of a ``get_start_method`` (`mp.ContextListener`)."""
        place = calling_place(caller) if caller is not None and owner(caller.f_code.co_filename) == "user" else None
        if place is not None and place not in self.asked:
            self.asked.append(place)


@functools.lru_cache(maxsize=8)
def _where_set(method: str) -> Place | None:
    """Find the call that set `method` before the first leg, which nobody watched; None when it could be several."""
    files = user_files()
    places = find_calls(files, "set_start_method", method) or find_calls(files, "set_start_method")
    return places[0] if len(places) == 1 else None


@functools.lru_cache(maxsize=8)
def _fixed_by_use(method: str, package: str) -> bool:
    """Say whether nobody chose `method`: a Lock at import makes the interpreter's own method the one that is set."""
    return method == mp.interpreter_default(package) and not find_calls(user_files(), "set_start_method")


class Patches:
    """Attributes of classes and modules exchanged for the length of a leg."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []
        self._then: list[Callable[[], None]] = []

    def when_undone(self, function: Callable[[], None]) -> None:
        """Call `function` before anything is put back."""
        self._then.append(function)

    def when_loaded(self, module: str, function: Callable[[], None]) -> None:
        """Call `function` when `module` has been imported, which may be now; never once this is undone."""
        self._then.append(import_hooks.when_loaded(module, function))

    def put(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Exchange ``owner.name`` for ``wrap(original)``."""
        # Not what `getattr` returns, which of a classmethod is bound to `owner`; None where it is inherited.
        stored = vars(owner).get(name)
        replacement = wrap(getattr(owner, name))
        setattr(owner, name, replacement)
        self._done.append((owner, name, stored, replacement))

    def undo(self) -> None:
        """Put the originals back, in reverse; what somebody else exchanged since is left as it is."""
        while self._then:
            self._then.pop()()
        while self._done:
            owner, name, original, replacement = self._done.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


# -- preparation data ------------------------------------------------------------------------------------------------


def main_is_pytest() -> bool:
    """Say whether ``__main__`` is pytest's own entry point: the ``pytest`` script or ``python -m pytest``."""
    main = sys.modules.get("__main__")
    spec_name = getattr(getattr(main, "__spec__", None), "name", None) or ""
    file = os.path.basename(getattr(main, "__file__", None) or "")
    return spec_name.partition(".")[0] == "pytest" or file in ("pytest", "py.test", "pytest.exe", "pytest-script.py")


def unguarded_runner() -> Place | None:
    """Return the line at which the main module, a script of the user's, runs pytest outside a main guard, or None.

    pytest is run by something called `main` or `console_main`: ``sys.exit(pytest.main(sys.argv[1:]))``.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if main_is_pytest() or not isinstance(file, str):
        return None
    for name in ("main", "console_main"):
        for place in find_calls([os.path.abspath(file)], name, outermost=True):
            return place
    return None


def without_main(original: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """Wrap ``spawn.get_preparation_data`` so that a child does not run the parent's main module.

    Under pytest that module is pytest's entry point, or a script that calls ``pytest.main()``: running it imports all
    of pytest into every child, or, unguarded, starts the whole session anew.
    """

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
        return data

    return get_preparation_data


# -- forkserver ------------------------------------------------------------------------------------------------------

_STOP_SECONDS = 5.0


class ForkServers:
    """The server of the legs: as good as started fresh at a leg's first use, kept when it already is.

    The user's own server, if there is one, is set aside when a leg needs one and is there again afterwards.
    """

    def __init__(self, package: str = mp.STDLIB) -> None:
        self.package = package
        self._ours: dict[str, Any] | None = None
        self._theirs: dict[str, Any] | None = None
        """The user's, while ours is in its place: since the leg's first use of one."""
        self._print: Any = None
        self._retired: list[tuple[int, str | None]] = []
        self._pid = os.getpid()
        self.environment: dict[str, str] | None = None
        """What the server in use was started with."""
        self.temporary: str | None = None
        """The temporary directory at the leg's first use of the server, if the user's code or pytest has set one."""

    def exit(self) -> None:
        """End a leg: put the user's server back, and keep ours for the next leg."""
        self.temporary = None
        if self._theirs is not None:
            self._ours = mp.server_state(self.package)
            mp.set_server_state(self._theirs, self.package)
            self._theirs = None

    def renew(self) -> None:
        """Let the next leg start a server of its own, as the first one did."""
        self._print = None

    def watch(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        """Wrap ``ForkServer.ensure_running``: at a leg's first use, a stale server makes room for a new one."""

        def ensure_running(server: Any) -> None:
            if os.getpid() != self._pid:
                return original(server)
            if self._theirs is not None:
                return self._running(original, server)
            self._theirs = mp.server_state(self.package)
            mp.set_server_state(self._ours, self.package)
            self.temporary = tempfile.tempdir
            fingerprint = _surroundings(self.package)
            if fingerprint != self._print:
                self._retire(mp.server_state(self.package))
                mp.set_server_state(None, self.package)
            self._print = fingerprint
            with _preloading("pytest", self.package):
                return self._running(original, server)

        return ensure_running

    def _running(self, original: Callable[[Any], None], server: Any) -> None:
        """Let the server run, and know the environment that a new one keeps."""
        before, environment = mp.server_pid(mp.server_state()), dict(os.environ)
        original(server)
        if mp.server_pid(mp.server_state()) != before:
            self.environment = environment

    def _retire(self, state: dict[str, Any]) -> None:
        # The server ends when the last holder of its pipe does: children that are still alive hold it, too, and need
        # it to hear of their exit. So the pipe is closed here and the server is reaped when the session ends.
        pid, descriptor = mp.server_pid(state), mp.server_alive_fd(state)
        if descriptor is not None:
            os.close(descriptor)
        if pid is not None:
            self._retired.append((pid, mp.server_socket(state)))
        self._retired = [each for each in self._retired if not _reap(*each)]

    def close(self) -> None:
        """End our servers; one whose children outlive the session is left to end with them."""
        if self._ours is not None:
            self._retire(self._ours)
            self._ours = None
        deadline = time.monotonic() + _STOP_SECONDS
        while self._retired and time.monotonic() < deadline:
            self._retired = [each for each in self._retired if not _reap(*each)]
            time.sleep(0.005)


def _reap(pid: int, socket_path: str | None) -> bool:
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody's waitpid(-1) was faster
        done = pid
    if done and socket_path is not None:
        with suppress(OSError):
            os.unlink(socket_path)
    return bool(done)


def _surroundings(package: str) -> Any:
    """Return what a server keeps from the moment it starts: equal values mean that a new one would be the same."""
    # pytest changes PYTEST_CURRENT_TEST at every phase: with it no server would ever be reused
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
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
    return environment, directory, list(sys.path), streams, list(mp.preload_modules(package))


@contextmanager
def _preloading(module: str, package: str) -> Iterator[None]:
    """Add `module` to what a server started now imports; the user's own list is put back."""
    names = mp.preload_modules(package)
    mp.set_preload_modules([*names, *([] if module in names else [module])], package)
    try:
        yield
    finally:
        mp.set_preload_modules(names, package)
