"""Short texts for the user's objects run none of their code."""

from __future__ import annotations

import functools

import pytest

from pytest_startmethod.source.describing import describe, describe_arguments, describe_callable


class Hostile(type):
    """A metaclass none of whose methods may be called."""

    def __eq__(cls, other):
        raise RuntimeError("eq")

    def __hash__(cls):
        raise RuntimeError("hash")

    def __getattribute__(cls, name):
        raise RuntimeError(name)

    def __repr__(cls):
        raise RuntimeError("repr")


class Thing(metaclass=Hostile):
    """A class whose metaclass raises, and so do its instances."""

    __hash__ = None

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __len__(self):
        raise RuntimeError("len")

    def __call__(self):
        """Do nothing."""


class Text(str):
    """A text that shows nothing of itself."""

    __slots__ = ()

    def __repr__(self):
        raise RuntimeError("repr")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (object.__new__(Thing), f"<{__name__}.Thing>"),
        (Text("x"), f"<{__name__}.Text>"),
        (Thing, f"<{__name__}.Hostile>"),
        ([Thing], "<list of length 1>"),
        (len, "<builtins.builtin_function_or_method>"),
        (functools.partial(describe, 1), "pytest_startmethod.source.describing.describe"),
        (3, "3"),
    ],
    ids=lambda value: value if type(value) is str else "",
)
def test_a_text_runs_no_code_of_the_object(value, expected):
    """Neither the object's methods nor its metaclass's are called, so a start is always recorded."""
    assert describe_arguments((value,), {"k": value}) == (expected, f"k={expected}")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Thing, f"{__name__}.Thing"),
        (object.__new__(Thing), f"<{__name__}.Thing>"),
        (Hostile.__repr__, f"{__name__}.Hostile.__repr__"),
        (len, "builtins.len"),
        ([].append, "None.list.append"),
        (int, "builtins.int"),
        (None, "None"),
    ],
    ids=lambda value: value if type(value) is str else "",
)
def test_a_callable_has_its_dotted_name(function, expected):
    """A class is named by itself, whatever its metaclass."""
    assert describe_callable(function) == expected
