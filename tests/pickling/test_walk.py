"""The walk finds every leaf by its shortest path, at linear cost, with readable paths."""

from __future__ import annotations

import collections
import copyreg
import gc
import sys
import threading
from typing import Any

import pytest

from pytest_startmethod.model.walk import Walk, path_text
from pytest_startmethod.pickling.walk import Sink, attributes, probe, walk


class Thing:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


def found(root: object, **how: Any) -> Walk:
    return walk(root, copyreg.dispatch_table, **how)


def paths(root: object, **how: Any) -> list[str]:
    return [path_text("x", [step for step, _ in leaf.chain]) for leaf in found(root, **how).leaves]


def lock() -> Any:
    return threading.Lock()


def test_all_leaves_are_found_nearest_first() -> None:
    """One leaf does not hide another; each is reported once, by its shortest path."""
    shared = lock()
    root = {"a": [[[shared]]], "b": shared, "c": [lock(), lock()]}
    assert paths(root) == ["x['b']", "x['c'][0]", "x['c'][1]"]


def test_the_root_may_be_the_leaf() -> None:
    """The path of an unpicklable root is empty."""
    assert paths(lock()) == ["x"]


def test_shared_and_circular_parts_are_visited_once() -> None:
    """`[x, x]` nested 200 deep has 2**200 paths and 201 lists."""
    made: Any = lock()
    for _ in range(200):
        made = [made, made]
    assert found(made).visited == 201
    circle: dict[str, Any] = {}
    circle["me"] = [circle]
    assert paths(circle) == []


def test_containers_of_plain_values_cost_nothing() -> None:
    """Only possible leaves are visited."""
    assert found([list(range(10_000)), tuple("abc"), lock()]).visited == 2


def test_the_budget_ends_a_walk_and_says_so() -> None:
    """A walk that did not visit everything is not complete."""
    walked = found([[Thing(n=n)] for n in range(100)], budget=10)
    assert (walked.visited, walked.complete) == (10, False)
    assert found([Thing()]).complete


def test_the_limit_ends_a_walk_with_many_leaves() -> None:
    """A walk stops after two hundred leaves."""
    assert len(found([lock() for _ in range(50)], limit=5).leaves) == 5


def test_deep_nesting_needs_no_stack() -> None:
    """100,000 levels do not recurse; the deepest steps are kept."""
    made: Any = []
    for _ in range(100_000):
        made = [made]
    walked = found(made)
    assert walked.leaves == ()
    assert len(walked.deepest) > 99_000
    while made:
        made = made.pop()


def test_collecting_garbage_is_resumed() -> None:
    """The garbage collector is off during a walk only."""

    class Raises:
        def __reduce__(self) -> Any:
            seen.append(gc.isenabled())
            raise ValueError

    seen: list[bool] = []
    gc.enable()
    found([Raises()])
    assert seen == [False]
    assert gc.isenabled()
    gc.disable()
    try:
        found([1])
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_instance_that_overrides_its_reduction_is_asked() -> None:
    """The shortcut for plain objects does not miss `__reduce_ex__` on an instance."""
    plain, special = Thing(a=1), Thing()
    special.__reduce_ex__ = lambda _: (Thing, (), {"l": bad})  # type: ignore[method-assign, assignment]
    bad = lock()
    assert paths([plain, plain, special]) == ["x[1].__reduce__()[2]['l']"] or paths([plain, special]) == ["x[1].l"]


def test_a_base_exception_of_a_reduction_ends_the_walk() -> None:
    """A BaseException belongs to the user: KeyboardInterrupt, or a time limit's alarm."""

    class Stop(BaseException):
        pass

    class Raises:
        def __reduce__(self) -> Any:
            raise Stop

    with pytest.raises(Stop):
        found([Raises()])


def test_what_an_object_holds_is_read_without_its_code() -> None:
    """`attributes` runs no property, no `__getattr__`, no `__dict__` override."""

    class Loud:
        __slots__ = ("__dict__", "empty", "full")

        @property
        def boom(self) -> Any:
            raise AssertionError

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    loud = Loud()
    object.__setattr__(loud, "full", 1)
    object.__setattr__(loud, "free", 2)
    assert dict(attributes(loud)) | {"__dict__": None} == {"full": 1, "free": 2, "__dict__": None}


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], "x"),
        ([("attribute", "a"), ("item", 0), ("item", "k")], "x.a[0]['k']"),
        ([("key", 2)], "x{key 2}"),
        ([("element", None)], "x{element}"),
        ([("item", (1, 0))], "x[1, 0]"),
        ([("item", "k" * 60)], "x['" + "k" * 29 + "...kkkk']"),
        ([("reduce", "[1][0]")], "x.__reduce__()[1][0]"),
        ([("reduce", "{argument 0}")], "x{argument 0}"),
        ([("reduce", ".args[0]")], "x.args[0]"),
        ([("attribute", "nxt")] * 24, "x" + ".nxt" * 24),
        ([("attribute", "nxt")] * 150 + [("attribute", "lock")], "x.nxt...lock"),
        ([("attribute", "children"), ("item", 0)] * 60, "x.children[0]..."),
    ],
)
def test_paths_read_like_code(steps: Any, text: str) -> None:
    """A path reads like code; long repetitions are left out."""
    assert path_text("x", steps) == text


def test_a_sink_counts() -> None:
    """Bytes, byte arrays and views are counted by size."""
    sink = Sink()
    for data in (b"abc", bytearray(b"de"), memoryview(b"fghi")):
        sink.write(data)
    assert sink.size == 9


def test_a_probe_returns_the_error() -> None:
    """The error is the C pickler's, or None for what pickles."""
    assert probe(len, copyreg.dispatch_table) is None
    assert "lambda" in str(probe(lambda: 1, copyreg.dispatch_table))


def test_the_cost_is_linear() -> None:
    """Four times the objects take four times the calls, not sixteen."""

    def calls(count: int) -> int:
        root = [Thing(a=[Thing()]) for _ in range(count)]
        seen = collections.Counter[str]()
        before = sys.getprofile()
        sys.setprofile(lambda _frame, event, _argument: seen.update((event,)))
        try:
            found(root)
        finally:
            sys.setprofile(before)
        return seen["call"] + seen["c_call"]

    assert calls(1_000) > 1_000
    assert calls(4_000) < 5 * calls(1_000)
