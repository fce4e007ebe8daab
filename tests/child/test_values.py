"""Arrays of any layout are described without copying all of them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from pytest_startmethod.child.differences import both, differences
from pytest_startmethod.child.values import describe

np = pytest.importorskip("numpy")


def layouts() -> list[Any]:
    table = np.arange(24).reshape(4, 6)
    return [
        table, table.T, table[::2, ::-1], np.asfortranarray(table), np.broadcast_to(np.arange(3), (5, 3)),
        np.array(3.5), np.array([], dtype=int), np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.array((1, 2.0), dtype=[("a", int), ("b", float)]), np.ma.masked_array([1, 2], [True, False]),
        np.array(["a", "bc"]), np.array(["2020-01-01"], dtype="datetime64[D]"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(layouts())))
def test_an_array_of_any_layout_is_told_by_its_content(number):
    """Equal arrays have equal descriptions; a different last element changes the description."""
    array = layouts()[number]
    node = describe(array)
    assert node[3]
    assert differences(node, describe(array.copy(order="K"))) == []
    if array.size and array.dtype.kind in "if":
        other = np.array(array)
        other[(-1,) * other.ndim] += 1
        assert differences(node, describe(other))


def test_objects_in_an_array_are_not_looked_at():
    """An array of objects is described by its shape: its bytes are addresses."""
    assert describe(np.array([object()]))[3] == ""


@pytest.mark.parametrize("turned", [False, True])
def test_a_large_array_is_not_copied(turned):
    """Memory use does not grow with the array, whatever its layout."""
    array = np.zeros((4_000, 2_000))
    array = array.T if turned else array
    describe(array[:1])  # imports what it needs
    tracemalloc.start()
    try:
        describe(array)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < array.nbytes / 10


@pytest.mark.parametrize(
    ("ours", "theirs", "texts"),
    [
        ([1, 2], [1], ("[1, 2]", "[1]")),
        (["x" * 50, "y" * 50, 1], ["x" * 50, "y" * 50], ("...yyyyyyyyyyyyyyyyyyy', 1]", "...yyyyyyyyyyyyyyyyyyy']")),
        ("a" * 80 + "b" * 40, "a" * 80, ("...aaaaaaaaaaaaaaaaaaaa" + "b" * 34 + "...", "...aaaaaaaaaaaaaaaaaaaa'")),
    ],
    ids=["short", "items", "text"],
)
def test_both_texts_show_where_they_differ(ours, theirs, texts):
    assert both(describe(ours), describe(theirs)) == texts


def test_items_of_sets_that_were_described_before_are_not_told_apart():
    """A set's order varies from process to process, and with it which of two equal objects comes first."""
    earlier, later = ["^", 2], ["(", "tuple", [["=", "int", "1"]]]
    one, other = ["<", "set", [earlier, ["=", "int", "3"]]], ["<", "set", [later, ["=", "int", "3"]]]
    assert differences(one, other) == []
    assert differences(["(", "list", [one, earlier]], ["(", "list", [one, later]]) == []
    assert differences(["(", "list", [earlier]], ["(", "list", [later]]) == [("[0]", earlier, later)]
    assert len(differences(["<", "set", [earlier]], other)) == 1
    assert len(differences(describe({1, 2}), describe({1, 3}))) == 1
