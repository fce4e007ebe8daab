"""A leg's method is the interpreter's default while the leg runs, and nothing of it remains."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import os
import sys

import pytest

from pytest_startmethod._compat import multiprocessing as mp
from pytest_startmethod.activation import contexts, main_module
from pytest_startmethod.activation.default_method import Activation
from pytest_startmethod.activation.exchanges import Exchanges
from pytest_startmethod.activation.servers import ForkServers

METHODS = multiprocessing.get_all_start_methods()
posix = pytest.mark.skipif(not mp.has_forkserver(), reason="no forkserver on this platform")


PATIENCE = 120.0
"""Seconds for a server that is ended while still importing pytest, on a busy machine."""


@pytest.fixture(autouse=True)
def untouched():
    """Check that every test leaves the default context as it was."""
    multiprocessing.set_start_method(None, force=True)  # may have been fixed by an earlier test's first use
    before = contexts.context_state()
    yield
    assert contexts.context_state() == before


class entered:  # noqa: N801 (reads as a statement)
    """An activation for the length of a with block."""

    def __init__(self, method):
        self.activation = Activation(method)

    def __enter__(self):
        self.activation.enter()
        return self.activation

    def __exit__(self, *_):
        self.activation.exit()


@pytest.mark.parametrize("method", METHODS)
def test_method_is_the_default_and_nothing_is_set(method):
    """The default is the leg's method, and `allow_none` still shows that none was set."""
    with entered(method):
        assert multiprocessing.get_start_method(allow_none=True) is None
        assert multiprocessing.get_start_method() == method
        assert multiprocessing.get_context().get_start_method() == method
        assert mp.STDLIB.process_method(multiprocessing.Process()) == method


def test_names_imported_before_the_leg_see_the_method():
    """Bound methods of the default context created earlier use the leg's method."""
    from multiprocessing import Process, get_context, get_start_method

    other = METHODS[-1]
    with entered(other):
        assert get_start_method() == other
        assert get_context().get_start_method() == other
        assert mp.STDLIB.process_method(Process()) == other


def test_explicit_contexts_are_left_alone():
    """A context requested by name keeps its method."""
    with entered("spawn"):
        for method in METHODS:
            assert multiprocessing.get_context(method).get_start_method() == method


def test_set_start_method_before_the_leg_is_set_aside_and_put_back():
    """A conftest's choice neither wins nor is lost, and its location is reported."""
    code = "import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n"
    exec(compile(code, __file__, "exec"), {})
    try:
        other = next(m for m in METHODS if m != "spawn")
        with entered(other) as leg:
            assert multiprocessing.get_start_method() == other
        assert [(o.method, o.wins) for o in leg.overrides] == [("spawn", False)]
        assert multiprocessing.get_start_method(allow_none=True) == "spawn"
    finally:
        multiprocessing.set_start_method(None, force=True)


def test_set_start_method_in_a_fixture_holds_after_the_leg_only():
    """The choice of a wider-scoped fixture is suspended during the call and applies to later unmarked tests."""
    with entered("fork" if "fork" in METHODS else "spawn") as leg:
        other = next(m for m in METHODS if m != leg.method)
        multiprocessing.set_start_method(other)
        line = sys._getframe().f_lineno - 1
        leg.enter_call()
        assert multiprocessing.get_start_method() == leg.method
        leg.leave_call()
    assert multiprocessing.get_start_method(allow_none=True) == other
    multiprocessing.set_start_method(None, force=True)
    (override,) = leg.overrides
    assert (override.place.file, override.place.line, override.wins) == (__file__, line, False)


def test_set_start_method_in_the_test_wins_and_ends_with_the_leg():
    """A method set by the test applies for the rest of the call."""
    with entered(METHODS[0]) as leg:
        other = METHODS[-1]
        leg.enter_call()
        multiprocessing.set_start_method(other)
        assert multiprocessing.get_start_method() == other
        leg.leave_call()
    assert multiprocessing.get_start_method(allow_none=True) is None
    assert [(o.method, o.wins) for o in leg.overrides] == [(other, True)]


def test_set_start_method_to_the_legs_own_is_no_news():
    """Setting the active method neither raises nor warns, and does not outlive the leg."""
    with entered("spawn") as leg:
        multiprocessing.set_start_method("spawn")
        leg.enter_call()
        assert multiprocessing.get_start_method() == "spawn"
    assert leg.overrides == []
    assert multiprocessing.get_start_method(allow_none=True) is None


def test_a_second_set_start_method_raises_as_ever():
    """CPython's own rule applies inside a leg."""
    with entered("spawn"):
        multiprocessing.set_start_method("spawn")
        with pytest.raises(RuntimeError, match="context has already been set"):
            multiprocessing.set_start_method("spawn")


def test_save_and_restore_around_a_test_works():
    """The usual fixture that saves, sets and restores the method leaves the previous state."""
    with entered(METHODS[0]) as leg:
        old = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method(METHODS[-1], force=True)
        leg.enter_call()
        leg.leave_call()
        multiprocessing.set_start_method(old, force=True)
    assert multiprocessing.get_start_method(allow_none=True) is None


def test_who_asks_for_the_method_is_known():
    """A call of get_start_method in user code is recorded once, with its line."""
    with entered("spawn") as leg:
        for _ in range(2):
            multiprocessing.get_start_method()
    assert [(p.file, p.line) for p in leg.asked] == [(__file__, sys._getframe().f_lineno - 1)]


def test_legs_nest():
    """A leg that runs a pytest session with legs of its own gets its method back."""
    with entered("spawn"):
        with entered(METHODS[0]):
            assert multiprocessing.get_start_method() == METHODS[0]
        assert multiprocessing.get_start_method() == "spawn"


def test_preparation_data_loses_pytests_main_only():
    """The child receives everything except the parent's main module."""
    data = {"init_main_from_name": "pytest.__main__", "init_main_from_path": "/bin/pytest", "dir": "/"}
    assert main_module.without_main(lambda name: dict(data))("x") == {"dir": "/"}


def _pid_of_server():
    from multiprocessing import forkserver

    forkserver.ensure_running()
    return mp.server_pid(mp.STDLIB.server_state())


class served:  # noqa: N801
    """Activates the forkserver for one leg."""

    def __init__(self, servers):
        self.servers, self.exchanges, self.activation = servers, Exchanges(), Activation("forkserver")

    def __enter__(self):
        from multiprocessing import forkserver

        span = self.exchanges.span("server")
        span.put(mp.STDLIB.forkserver_class, "ensure_running", self.servers.watch)
        span.put(forkserver, "ensure_running", lambda _: mp.STDLIB.server.ensure_running)
        self.activation.enter()

    def __exit__(self, *_):
        self.activation.exit()
        self.servers.exit()
        self.exchanges.undo()


@pytest.fixture
def servers():
    servers = ForkServers()
    yield servers
    servers.close(PATIENCE)
    assert servers._retired == []


@posix
def test_server_is_reused_while_nothing_changed(servers):
    """Two legs in the same environment share a server."""
    with served(servers):
        first = _pid_of_server()
    with served(servers):
        assert _pid_of_server() == first


@posix
@pytest.mark.parametrize("change", ["environment", "directory", "path", "preload"])
def test_server_is_started_anew_when_the_surroundings_changed(servers, change, monkeypatch, tmp_path):
    """A leg never gets a server with state from an earlier leg."""
    with served(servers):
        first = _pid_of_server()
    if change == "environment":
        monkeypatch.setenv("PYTEST_STARTMETHOD_TEST", "1")
    elif change == "directory":
        monkeypatch.chdir(tmp_path)
    elif change == "path":
        monkeypatch.syspath_prepend(tmp_path)
    else:
        names = list(mp.STDLIB.preload_modules)
        monkeypatch.setattr(mp.STDLIB.server, "_preload_modules", [*names, "json"])
    with served(servers):
        assert _pid_of_server() != first


@posix
def test_server_is_kept_when_only_pytests_own_variable_changed(servers, monkeypatch):
    """PYTEST_CURRENT_TEST changes in every phase but does not end the server."""
    with served(servers):
        first = _pid_of_server()
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "another")
    with served(servers):
        assert _pid_of_server() == first


@posix
@pytest.mark.parametrize("name", [b"BAD", 5])
def test_environment_that_is_no_text_keeps_no_server_from_starting(servers, name):
    """A leg accepts what CPython itself accepts."""
    os.environ._data[name] = 5
    try:
        with served(servers):
            first = _pid_of_server()
        with served(servers):
            assert _pid_of_server() == first
    finally:
        del os.environ._data[name]


@posix
def test_change_within_a_leg_leaves_the_server(servers, monkeypatch):
    """Changes made after the test's first start do not reach the server, just as without us."""
    with served(servers):
        first = _pid_of_server()
        monkeypatch.setenv("PYTEST_STARTMETHOD_TEST", "1")
        assert _pid_of_server() == first


@posix
def test_users_server_is_there_again_after_the_leg(servers):
    """Unmarked tests keep their own server and its preload list."""
    with entered("forkserver"):
        mp.STDLIB.server.ensure_running()
    state, names = mp.STDLIB.server_state(), list(mp.STDLIB.preload_modules)
    try:
        with served(servers):
            assert _pid_of_server() != mp.server_pid(state)
        assert (mp.STDLIB.server_state(), mp.STDLIB.preload_modules) == (state, names)
    finally:
        mp.STDLIB.server._stop()


@posix
def test_servers_are_gone_when_the_session_ends():
    """Neither server processes nor sockets are left."""
    servers = ForkServers()
    with served(servers):
        pid = _pid_of_server()
        path = mp.server_socket(mp.STDLIB.server_state())
    servers.close(PATIENCE)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert path is None or not os.path.exists(path)
