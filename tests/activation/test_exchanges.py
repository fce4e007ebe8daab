"""Replacements are listed, take effect once, and are restored."""

from __future__ import annotations

import functools
import re

import pytest

from pytest_startmethod.activation.exchanges import Exchanges, chain


class Owner:
    def method(self):
        return "original"


class Heir(Owner):
    pass


def test_exchanges_are_undone_in_reverse():
    """Own and inherited attributes are restored, and an inherited one is not left behind as the class's own."""
    original = Owner.method
    span = Exchanges().span("test")
    span.put(Owner, "method", lambda old: lambda self: "first")
    span.put(Owner, "method", lambda old: lambda self: "second " + old(self))
    span.put(Heir, "method", lambda old: lambda self: "heir")
    assert (Owner().method(), Heir().method()) == ("second first", "heir")
    span.undo()
    assert Owner.method is original
    assert "method" not in vars(Heir)


def test_exchanges_put_class_and_static_methods_back_as_such():
    """Inherited class methods bind to the subclass again, and static methods stay static."""

    class Mine:
        @classmethod
        def name(cls):
            return cls.__name__

        @staticmethod
        def same(value):
            return value

    class Derived(Mine):
        pass

    span = Exchanges().span("test")
    for name in ("name", "same"):
        span.put(Mine, name, lambda old: staticmethod(lambda *args: f"patched {old(*args)}"))
    assert (Derived.name(), Derived().same(1)) == ("patched Mine", "patched 1")
    span.undo()
    assert (Derived.name(), Derived().same(1)) == ("Derived", 1)


def test_exchanges_leave_a_later_patch_alone():
    """A wrapper that somebody else put around ours is left for them to remove."""

    class Mine(Owner):
        def method(self):
            return "mine"

    span = Exchanges().span("test")
    span.put(Mine, "method", lambda old: lambda self: "patched")
    theirs = Mine.method = lambda self: "theirs"
    span.undo()
    assert vars(Mine)["method"] is theirs


class Counted:
    """A class whose calls a wrapper counts."""

    def __init__(self):
        self.calls = 0

    def wrap(self, original):
        def wrapper(*args):
            self.calls += 1
            return original(*args)

        return wrapper


ORIGINAL = None


def by_global(original):
    global ORIGINAL
    ORIGINAL = original

    def theirs(self):
        return ORIGINAL(self)

    return theirs


def by_closure(original):
    return lambda self: original(self)


def by_wraps(original):
    @functools.wraps(original)
    def theirs(*args):
        return args and original(*args)

    return theirs


def by_default(original):
    def theirs(self, call=original):
        return call(self)

    return theirs


@pytest.mark.parametrize("theirs", [by_global, by_closure, by_wraps, by_default])
def test_wrapper_below_somebody_elses_is_known_again(theirs):
    """If a span is undone and redone while somebody wraps the attribute, each call is counted once."""

    class Mine(Owner):
        def method(self):
            return "mine"

    exchanges, counted, original = Exchanges(), Counted(), Mine.method
    first = exchanges.span("first")
    first.put(Mine, "method", counted.wrap)
    ours = Mine.method
    Mine.method = theirs(ours)
    first.undo()
    second = exchanges.span("second")
    second.put(Mine, "method", counted.wrap)
    assert (Mine().method(), counted.calls) == ("mine", 1)
    Mine.method = ours  # the other wrapper is removed, which restores what it replaced
    second.put(Mine, "method", counted.wrap)
    assert (Mine().method(), counted.calls) == ("mine", 2)
    exchanges.undo()
    assert Mine.method is original


def test_other_wrappers_of_one_attribute_are_told_apart():
    """A wrapper bound to a different object is not equivalent."""
    exchanges, one, other = Exchanges(), Counted(), Counted()

    class Mine(Owner):
        def method(self):
            return "mine"

    first = exchanges.span("first")
    first.put(Mine, "method", one.wrap)
    Mine.method = by_closure(Mine.method)
    first.undo()
    exchanges.span("second").put(Mine, "method", other.wrap)
    Mine().method()
    assert (one.calls, other.calls) == (1, 1)


def test_everything_that_is_exchanged_is_listed():
    """The listing names each attribute and its purpose, and is empty afterwards."""
    exchanges = Exchanges()
    span = exchanges.span("recording")
    span.put(Owner, "method", by_closure)
    span.put(re, "compile", by_closure)
    span.when_undone(lambda: None, "a signal handler")
    assert repr(exchanges).splitlines() == [
        f"{__name__}.Owner.method (recording)",
        "re.compile (recording)",
        "a signal handler (recording)",
    ]
    exchanges.undo()
    assert repr(exchanges) == "nothing is exchanged"


def test_chain_of_anything_ends():
    """Cycles are followed once, and no code of an object is called."""

    class Loud:
        def __getattribute__(self, name):
            raise AssertionError(name)

    def function(value=Loud()):  # noqa: B008
        return function

    function.__wrapped__ = function
    assert function in list(chain(function))
