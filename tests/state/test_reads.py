"""Reads found in bytecode, where no instruction names the global."""

from __future__ import annotations

import gc
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_startmethod.model.observed import Reads
from pytest_startmethod.state import instructions, reads

SOURCE = """
import functools
import os

import read_settings

DEBUG = False
LIMIT = 3
NAME = "DEBUG"
NAMES = ("DEBUG", "LIMIT")
VALUES = {"DEBUG": 1}


@functools.singledispatch
def dispatched(value):
    return "base"


def call(connection, function, args, keywords):
    function(*args, **keywords)


def call_directly(function, *args):
    function(*args)


def call_with(function, *args, **options):
    read_environment(options.pop("variable"))
    call_by_name(function, **options)
    call_directly(*(function, *args))


def call_by_name(function, **options):
    return function(**{"name": "PWD", **options})


def call_after(function, *args):
    return function(*os.sys.argv, *args)


def read_environment(name):
    return os.environ.get(name)


def fill(into, value=1):
    into.append(value)


def by_globals():
    return globals()["DEBUG"]


def by_globals_get():
    return globals().get("LIMIT")


def by_getattr():
    return getattr(read_settings, "VERBOSE")


def by_named_constant():
    return getattr(read_settings, NAME)


def by_loop():
    return [getattr(read_settings, name) for name in ("VERBOSE", "DEPTH")]


def setting(name):
    return getattr(read_settings, name)


def by_helper():
    return setting("VERBOSE")


def by_argument(name):
    return globals()[name]


class Made:
    def __new__(cls):
        cls.depth = read_settings.DEPTH
        return super().__new__(cls)


def by_new():
    return Made()


class Calls(type):
    def __call__(cls, *args):
        if read_settings.VERBOSE:
            print(cls)
        return super().__call__(*args)


class Called(metaclass=Calls):
    pass


def by_metaclass_call():
    return Called()


class Base:
    def __init_subclass__(cls):
        cls.depth = read_settings.DEPTH


def by_subclass():
    class Sub(Base):
        pass

    return Sub


def holding(module):
    def by_cell():
        return module.VERBOSE

    return by_cell


by_module_in_a_cell = holding(read_settings)


class Lazy:
    def __getattr__(self, name):
        return VALUES[name]


lazy = Lazy()


def by_instance_hook():
    return lazy.DEBUG


class Hooked(type):
    def __getattr__(cls, name):
        return VALUES[name]


class Conf(metaclass=Hooked):
    pass


def by_metaclass_hook():
    return Conf.DEBUG


class Setting:
    def __get__(self, instance, owner):
        return VALUES["DEBUG"]


class Described:
    debug = Setting()


described = Described()


def by_descriptor():
    return described.debug


def by_module_hook():
    return read_settings.DYNAMIC


def no_read():
    text = "DEBUG"
    return text.join(["LIMIT"])


def by_logger():
    import logging

    logging.getLogger("made.only.by.the.child").info("x")
"""
SETTINGS = """
VERBOSE = False
DEPTH = 1
DEBUG = 0
_dynamic = {"DYNAMIC": 1}


def __getattr__(name):
    return _dynamic[name]
"""


@pytest.fixture(scope="module")
def code() -> Iterator[types.ModuleType]:
    for name, text in (("read_settings", SETTINGS), ("read_code", SOURCE)):
        module = types.ModuleType(name)
        module.__file__ = f"/users/{name}.py"
        sys.modules[name] = module
        exec(compile(text, module.__file__, "exec"), module.__dict__)
    yield sys.modules["read_code"]
    del sys.modules["read_code"], sys.modules["read_settings"]


def look(function: Callable[..., Any], *args: Any, **keywords: Any) -> Reads:
    return reads.of(function, args, keywords, is_user=lambda file: file.startswith("/users/"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("by_globals", "read_code.DEBUG"),
        ("by_globals_get", "read_code.LIMIT"),
        ("by_getattr", "read_settings.VERBOSE"),
        ("by_named_constant", "read_settings.DEBUG"),
        ("by_loop", "read_settings.DEPTH"),
        ("by_helper", "read_settings.VERBOSE"),
        ("by_new", "read_settings.DEPTH"),
        ("by_metaclass_call", "read_settings.VERBOSE"),
        ("by_subclass", "read_settings.DEPTH"),
        ("by_module_in_a_cell", "read_settings.VERBOSE"),
        ("by_instance_hook", "read_code.VALUES['DEBUG']"),
        ("by_metaclass_hook", "read_code.VALUES['DEBUG']"),
        ("by_descriptor", "read_code.VALUES['DEBUG']"),
        ("by_module_hook", "read_settings._dynamic['DYNAMIC']"),
    ],
)
def test_a_read_is_seen(code, name, expected):
    """Names in strings, hooks and a class's special methods lead to what they read."""
    found = look(getattr(code, name))
    assert expected in {read.path + "".join(f"[{key!r}]" for _, key in read.steps) for read in found.reads}


def test_a_sent_generic_function_reads_its_implementations(code):
    """It is named by nobody else: it is the target itself, or an argument."""
    for found in (look(code.dispatched, 1), look(code.by_globals, code.dispatched)):
        assert "read_code.dispatched.registry" in {read.path for read in found.reads}


def test_arguments_that_a_helper_unpacks_are_known(code):
    """The commonest helper of a test calls a function that it is given with the arguments that it is given."""
    for arguments in (
        (code.call, None, code.read_environment, ("HOME",), {}),
        (code.call_directly, code.read_environment, "HOME"),
    ):
        assert list(look(*arguments).environment) == ["HOME"]
    (write,) = look(code.call, None, code.fill, ([],), {"value": 2}).writes
    assert write.names == ("args[2][0]",)


def test_keywords_that_a_helper_unpacks_are_known(code):
    """A keyword keeps its value through dictionaries that the helper makes of it, takes it from and unpacks."""
    (write,) = look(code.call, None, code.fill, (), {"into": []}).writes
    assert write.names == ("args[3]['into']",)
    assert list(look(code.call_by_name, code.read_environment).environment) == ["PWD"]
    assert list(look(code.call_by_name, code.read_environment, name="HOME").environment) == ["HOME"]
    assert set(look(code.call_with, code.read_environment, "HOME", variable="LANG").environment) == {
        "LANG",
        "PWD",
        "HOME",
    }
    (write,) = look(code.call_by_name, code.fill, into=[]).writes
    assert write.names == ("kwargs['into']",)


def test_what_follows_unknown_arguments_has_no_known_place(code):
    """In ``f(*unknown, *known)`` it is not known which parameter gets the first of the known ones."""
    assert not look(code.call_after, code.read_environment, "HOME").environment


def test_an_argument_names_what_is_read(code):
    """A name passed to the process as an argument is looked up."""
    assert "read_code.LIMIT" in {read.path for read in look(code.by_argument, "LIMIT").reads}


def test_a_string_alone_reads_nothing(code):
    """A string that happens to be a global's name is not a read of it."""
    assert not {read.path for read in look(code.no_read).reads} & {"read_code.DEBUG", "read_code.LIMIT"}


def test_a_logger_is_looked_up_and_not_made(code):
    """A logger that only the child's code requests is not created in the parent."""
    assert list(look(code.by_logger).loggers) == ["made.only.by.the.child"]
    assert "made.only.by.the.child" not in logging.root.manager.loggerDict


def test_code_is_forgotten_with_its_function():
    """Decoded code lives as long as its code object, and the cache is bounded."""
    kept: instructions.ByCode[int] = instructions.ByCode(3)
    codes = [compile(f"x = {number}", "<test>", "exec") for number in range(5)]
    assert [kept.of(each, "key", lambda: 1) for each in codes] == [1] * 5
    assert len(kept) == 3
    assert kept.of(codes[-1], "key", lambda: 2) == 1
    assert kept.of(codes[-1], "other", lambda: 2) == 2
    del codes
    gc.collect()
    assert len(kept) == 0
