"""Which sets of text have their order used by a function."""

from __future__ import annotations

import ast

import pytest

from pytest_startmethod.source.set_order import ordered_sets


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("return [x for x in NAMES]", "NAMES"),
        ("return ','.join(NAMES)", "NAMES"),
        ("return list(module.NAMES)", "module.NAMES"),
        ("return next(iter(NAMES - {'a'}))", None),  # the kind of a difference is not known
        ("return list({'a', 'b'})", "{'a', 'b'}"),
        ("mine = NAMES.union(more)\n return tuple(mine)", "mine"),
        ("return list(set(NAMES))", "set(NAMES)"),
        ("return sorted(NAMES)", None),
        ("return sum(len(x) for x in NAMES)", None),
        ("return len(NAMES)", None),
        ("return 'a' in NAMES", None),
        ("return list({1, 2})", None),
        ("return list(set(words))", None),
        ("return list(OTHER)", None),
    ],
)
def test_sets_whose_order_is_used(code, found):
    tree = ast.parse(f"def f():\n {code}")
    assert next((text for _, text in ordered_sets(tree, ["NAMES"])), None) == found
