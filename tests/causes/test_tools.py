"""An installed tool that has patched a library in the parent only is named; confirmed where its patches suffice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_startmethod.causes import state
from pytest_startmethod.causes.context import Context
from pytest_startmethod.child.differences import differences, short
from pytest_startmethod.child.values import describe
from pytest_startmethod.experiments import plan
from pytest_startmethod.model.patched import Patched
from pytest_startmethod.model.place import Place

HERE = Place("/p/test_a.py", 7, "test_x")


def patched(target: str, by: str = "netmock") -> Patched:
    return Patched(target, HERE, by)


def test_what_a_tool_has_patched_is_one_finding() -> None:
    patches = [patched("fakenet.Pool.send"), patched("fakenet.Pool.asend"), patched("othernet.send", "other")]
    first, second = state.tools(patches, Context())
    assert (first.code, first.path, first.file, first.line) == ("SM303", "netmock", "/p/test_a.py", 7)
    assert first.message == (
        "netmock is not at work in the child: it has patched fakenet.Pool.send, fakenet.Pool.asend in the parent only"
    )
    assert plan.experiment_of(first) == plan.Replay("fakenet.Pool.send", ("fakenet.Pool.asend",))
    assert (second.path, second.together) == ("other", ("othernet.send",))
    cleared = plan.Conclusion(cleared=tuple(plan.candidates([first])))
    (settled,) = plan.settle([first], cleared)
    assert settled.confirmed is None, "the tool may have done more than it patched"


@pytest.mark.parametrize(
    "patch",
    [
        patched("fakenet.send", "mock.patch"),
        patched("fakenet.send", "monkeypatch"),
        patched("os.environ['HOME']"),
        patched("<fakenet.Pool>.send"),
        patched("netmock.state.ACTIVE"),
    ],
    ids=lambda patch: patch.target,
)
def test_other_patches_are_no_tools(patch: Patched) -> None:
    """A tool's own state, the user's own patches, and keys of dictionaries."""
    assert state.tools([patch], Context()) == []


FAKENET = """
    class NoNetworkError(Exception):
        pass

    class Pool:
        def send(self, name):
            raise NoNetworkError(name)

        def receive(self, name):
            raise NoNetworkError(name)

    SESSION = None

    def get(name):
        return SESSION or Pool().send(name)

    def own(name):
        return None

    HOOKS = [own] * 8

    def get_hooked(name):
        for hook in HOOKS:
            answer = hook(name)
            if answer is not None:
                return answer
        raise NoNetworkError(name)

    def broken(name):
        raise NoNetworkError("always")
"""
NETMOCK = """
    import functools
    from unittest import mock

    import fakenet

    class Answer:
        def __init__(self, body):
            self.body = body

        def __getstate__(self):
            return {}

        def text(self):
            return self.body

    class Mocker:
        answers = {}

        @classmethod
        def replacement(cls, original):
            def send(self, name):
                return cls.answers[name].text()

            return send

    def active(**answers):
        def decorate(function):
            @functools.wraps(function)
            def wrapper(*args, **keywords):
                Mocker.answers = {name: Answer(body) for name, body in answers.items()}
                patches = [mock.patch(f"fakenet.Pool.{name}", new_callable=lambda: Mocker.replacement(None))
                           for name in ("send", "receive")]
                for each in patches:
                    each.start()
                try:
                    return function(*args, **keywords)
                finally:
                    for each in patches:
                        each.stop()

            return wrapper

        return decorate

    class Hook:
        def __call__(self, name):
            return "mocked"

    class hooked:
        def __enter__(self):
            fakenet.HOOKS.append(Hook())

        def __exit__(self, *info):
            fakenet.HOOKS.pop()

    class session:
        def __enter__(self):
            self.patch = mock.patch("fakenet.SESSION", "session of " + __name__)
            self.patch.start()

        def __exit__(self, *info):
            self.patch.stop()
"""
CLIENT = """
    import fakenet

    LIMIT = 1

    def ask(connection, name):
        connection.send(fakenet.get(name))

    def ask_hooked(connection, name):
        connection.send(fakenet.get_hooked(name))

    def ask_broken(connection, name):
        connection.send(fakenet.broken(name))

    def ask_carefully(connection, name):
        try:
            connection.send(fakenet.get(name))
        except fakenet.NoNetworkError as error:
            connection.send(repr(error))

    def ask_below(connection, limit):
        connection.send(fakenet.get("b") if limit > LIMIT else "few")
"""
TESTS = """
    import multiprocessing
    import fakenet, netmock, pytest
    import client

    pytestmark = pytest.mark.startmethods("fork", "spawn")

    def run(target, argument):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=target, args=(theirs, argument))
        process.start()
        theirs.close()
        try:
            return ours.recv()
        finally:
            process.join()

    @netmock.active(a="mocked")
    def test_named_and_confirmed():
        assert run(client.ask, "a") == "mocked"

    @netmock.active(a="mocked")
    def test_confirmed():
        assert run(client.ask_carefully, "a") == "mocked"

    def test_planted():
        with netmock.hooked():
            assert run(client.ask_hooked, "a") == "mocked"

    @netmock.active(a="mocked")
    def test_wrong_under_every_method():
        assert run(client.ask_broken, "a") == "other"

    @netmock.active(a="mocked")
    def test_another_cause(monkeypatch):
        monkeypatch.setattr(client, "LIMIT", 5)
        assert run(client.ask_below, 3) == "few"
"""


def test_a_tool_is_named_and_confirmed(session: Any) -> None:
    """Its classes travel with the state that they hold, and its objects with what pickling would drop."""
    session.file("lib/site-packages/fakenet.py", FAKENET).file("lib/site-packages/netmock.py", NETMOCK)
    session.file(
        conftest="import os, sys; sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib', 'site-packages'))",
        client=CLIENT,
        test_a=TESTS,
    )
    session.run("--start-methods-report=r.json", "--start-methods-verify=600")
    report = json.loads((session.path / "r.json").read_text())
    found = {
        each["nodeid"].rpartition("::")[2]: [
            (f["code"], f["path"], f["confirmed"]) for f in each["findings"] if f["level"] == "cause"
        ]
        for each in report["tests"]
    }
    assert found["test_named_and_confirmed"] == [("SM303", "netmock", True)]
    (first, *_) = report["tests"][0]["findings"]
    assert (first["file"], first["line"]) == ("test_a.py", 17)
    assert found["test_confirmed"] == [("SM303", "netmock", True)]
    assert found["test_planted"] == [("SM303", "fakenet.HOOKS", True)]
    planted = next(each for each in report["tests"] if each["nodeid"].endswith("test_planted"))["findings"][0]
    assert planted["message"].startswith(
        "the patch (netmock) is lost: fakenet.HOOKS[8] is <netmock.Hook object> in the parent and not there in a fresh "
    )
    assert found["test_wrong_under_every_method"] == []
    assert found["test_another_cause"][0] == ("SM303", "client.LIMIT", True)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (range(10), range(8), ("[8]", "8", "not there")),
        (range(8), range(9), ("[8]", "not there", "8")),
        (range(3), range(2), ("", "[0, 1, 2]", "[0, 1]")),  # short enough to be shown
        ([1, *range(9)], range(8), ("", "[1, 0, 1, 2, 3, 4, 5, 6, ...]", "[0, 1, 2, 3, 4, 5, 6, 7]")),
    ],
)
def test_what_a_long_list_has_more_is_shown(ours: Any, theirs: Any, said: tuple[str, str, str]) -> None:
    ((path, mine, others),) = differences(describe(list(ours)), describe(list(theirs)))
    assert (path, short(mine), short(others)) == said
