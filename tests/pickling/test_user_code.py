"""Which objects pickle without running user code."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import functools
import itertools
import logging
import multiprocessing
import pathlib
import typing

import pytest

from pytest_startmethod.pickling.dry_run import UserCodeError, dry_run

CALLS: list[str] = []


class Plain:
    def __init__(self) -> None:
        self.value = [1, {"a": (2,)}]


class Slotted:
    __slots__ = ("value",)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: int = 1


class Point(typing.NamedTuple):
    x: int = 0


Pair = collections.namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = 1


class Listed(list):
    pass


class CustomError(Exception):
    pass


class GetState:
    def __getstate__(self):
        CALLS.append("__getstate__")
        return {}


class Reduce:
    def __reduce__(self):
        CALLS.append("__reduce__")
        return Reduce, ()


class NewArgs:
    def __getnewargs__(self):
        CALLS.append("__getnewargs__")
        return ()


class Proxy:
    def __getattr__(self, name):
        CALLS.append(name)
        raise AttributeError(name)


class Meta(type):
    def __getattribute__(cls, name):
        CALLS.append(name)
        return super().__getattribute__(name)


class OfMeta(metaclass=Meta):
    pass


class Key(type):
    """Its classes are the keys of pickle's dispatch table."""

    def __eq__(cls, other):
        CALLS.append("__eq__")
        return cls is other

    def __hash__(cls):
        CALLS.append("__hash__")
        return 5


class OfKey(metaclass=Key):
    pass


class Items(dict):
    def items(self):
        CALLS.append("items")
        return super().items()


class Zone(datetime.tzinfo):
    def __getinitargs__(self):
        CALLS.append("__getinitargs__")
        return ()


def own_reduce():
    obj = Plain()
    obj.__reduce_ex__ = lambda protocol: CALLS.append("own") or (Plain, ())
    return obj


def function():
    pass


PLAIN = [
    Plain(), [Plain()] * 3, Frozen(), Point(), Pair(1, 2), Colour.RED, Listed([1]), CustomError("text"), function,
    Plain, functools.partial(function, 1), collections.OrderedDict(a=1), pathlib.Path("a"),
    datetime.datetime(2020, 1, 1), multiprocessing.get_context("spawn").Process(target=function, args=(Plain(),)),
    Plain().__init__,
]  # fmt: skip
CALLING = [
    GetState(), Reduce(), NewArgs(), Proxy(), OfMeta, OfMeta(), OfKey(), Items(a=1), datetime.datetime(2020, 1,
    1, tzinfo=Zone()), own_reduce(), logging.getLogger("a.logger.of.this.file"), itertools.count(), {"a": [GetState()]},
    GetState().__init__,
]  # fmt: skip


@pytest.mark.parametrize("obj", PLAIN, ids=lambda obj: type(obj).__name__)
def test_what_leaves_pickling_to_the_standard_library_is_pickled_here(obj):
    assert dry_run(obj, user_code=False).error is None


@pytest.mark.parametrize("obj", CALLING, ids=lambda obj: type(obj).__name__)
def test_nothing_of_the_users_runs_and_the_dry_run_stops(obj):
    CALLS.clear()
    with pytest.raises(UserCodeError):
        dry_run(obj, user_code=False)
    assert CALLS == []


def test_a_large_graph_is_not_walked_in_passing():
    with pytest.raises(UserCodeError):
        dry_run([Plain() for _ in range(30_000)], user_code=False)
    with pytest.raises(UserCodeError):
        dry_run([bytes([i]) * 1_000_000 for i in range(64)], user_code=False)


def test_an_error_of_the_standard_librarys_own_is_told():
    assert isinstance(dry_run([function, iter([]), (x for x in [])], user_code=False).error, TypeError)
