"""Which classes count as registered with an ABC."""

from __future__ import annotations

import collections.abc

from pytest_startmethod.child.values import virtual_subclasses


def test_classes_that_the_standard_library_registers_with_its_own_abcs_are_left_out():
    """Importing a module registers its class: ``collections`` does so for deque, and a child may need neither."""

    class Mine:
        pass

    collections.abc.MutableSequence.register(Mine)  # a weak reference
    found = virtual_subclasses(collections.abc.MutableSequence)
    assert issubclass(collections.deque, collections.abc.MutableSequence)
    assert Mine in found
    assert collections.deque not in found
