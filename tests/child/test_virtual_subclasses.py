"""Which classes count as registered with an ABC."""

from __future__ import annotations

import decimal
import numbers

from pytest_startmethod.child.values import virtual_subclasses


def test_classes_that_the_standard_library_registers_with_its_own_abcs_are_left_out():
    """Importing ``decimal`` registers its class with ``numbers.Number``: a child that has not done so needs neither."""

    class Mine:
        pass

    numbers.Number.register(Mine)  # a weak reference
    found = virtual_subclasses(numbers.Number)
    assert issubclass(decimal.Decimal, numbers.Number)
    assert Mine in found
    assert decimal.Decimal not in found
