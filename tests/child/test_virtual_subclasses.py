"""Which classes count as registered with an ABC."""

from __future__ import annotations

import collections.abc
import os
import sys
import types

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


def test_classes_that_an_installed_package_registers_are_left_out(monkeypatch):
    """As numpy registers its numbers with those of ``numbers``. The user's are not."""
    package = types.ModuleType("registering_package")
    package.__file__ = os.path.join(os.sep, "venv", "site-packages", "registering_package.py")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    theirs = type("Theirs", (), {"__module__": package.__name__})
    mine = type("Mine", (), {"__module__": __name__})
    for each in (theirs, mine):
        collections.abc.MutableSet.register(each)
    found = virtual_subclasses(collections.abc.MutableSet)
    assert mine in found
    assert theirs not in found
