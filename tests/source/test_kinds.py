"""An object's kind, determined without running its code."""

from __future__ import annotations

import sys
import threading
import types
from typing import Any
from unittest import mock

import pytest

from pytest_startmethod.source import kinds


class Loud:
    """Raises from every special method."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)

    def __repr__(self) -> str:
        raise AssertionError


def function() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (1, "1"),
        (10**500, "<int of 1661 bits>"),
        (None, "None"),
        ("a" * 100, repr("a" * 56) + "..."),
        (b"ab", "b'ab'"),
        (function, "<function function>"),
        (types, "<module 'types'>"),
        (int, "<class 'int'>"),
        (threading.Thread, "<class 'threading.Thread'>"),
        ([1, 2], "<list of 2>"),
        ({}, "<dict of 0>"),
        (threading.Lock(), "<_thread.lock object>"),
    ],
)
def test_a_value_in_a_few_words(obj: Any, text: str) -> None:
    """Plain values are shown, everything else by its type; the value's code never runs."""
    assert kinds.describe(obj) == text


def test_a_value_is_not_asked() -> None:
    """An object whose every method raises is described all the same."""
    assert kinds.describe(Loud()) == "<Loud object>"
    assert kinds.kind_of(Loud()) is None


def test_mocks_of_every_kind_are_judged_whole() -> None:
    """Mocks with a spec, whose `__class__` lies, and autospecced functions are mocks, too."""
    for made in (mock.Mock(), mock.MagicMock(spec=dict), mock.AsyncMock(), mock.create_autospec(function)):
        assert kinds.judged_whole(made)
        kind = kinds.kind_of(made)
        assert kind is not None
        assert kind.noun == "a mock"
    assert not kinds.judged_whole(mock.Mock)
    assert not kinds.judged_whole(function)


def test_a_users_class_has_no_kind_by_its_shape() -> None:
    """A user's class with `acquire` and `release` is not a library's lock."""

    class Mine:
        def acquire(self) -> None: ...
        def release(self) -> None: ...

    assert kinds.kind_of(Mine()) is None


def test_a_librarys_class_has_one(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's connection is recognised by the methods it defines."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "somedriver.py").write_text(
        "class C:\n    def cursor(self): pass\n    def commit(self): pass\n    def __getattr__(self, name): 1/0\n"
    )
    monkeypatch.syspath_prepend(folder)
    kind = kinds.kind_of(__import__("somedriver").C())
    assert kind is not None
    assert kind.noun == "a database connection"


def test_whose_code_it_is() -> None:
    """Functions, classes and instances of this file are the user's; the standard library's and builtins are not."""
    for mine in (function, Loud, object.__new__(Loud), Loud.__repr__):
        assert kinds.is_users(mine)
    for other in (len, int, threading.Thread, threading.Lock(), threading.Event(), mock.Mock.assert_called):
        assert not kinds.is_users(other)


def test_a_standard_stream_is_told_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A standard stream is named, even pytest's replacement: the child has its own."""
    kind = kinds.kind_of(sys.stdout)
    assert kind is not None
    assert (kind.noun, kind.instead) == (
        "sys.stdout",
        "look sys.stdout up in the child, where it is used, instead of passing it",
    )
