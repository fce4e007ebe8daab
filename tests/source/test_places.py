"""Where the source defines, decorates and sets things."""

from __future__ import annotations

import functools
import importlib
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.source import places

Load = Callable[[str], types.ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Load:
    """Import a module with this source."""

    def load(source: str) -> types.ModuleType:
        name = f"places_{abs(hash(request.node.name))}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return load


def line(module: types.ModuleType, text: str) -> int:
    assert module.__file__
    lines = Path(module.__file__).read_text().splitlines()
    return next(number for number, each in enumerate(lines, 1) if text in each)


def test_a_function_and_its_decorators(load: Load) -> None:
    """The line of the `def`, and those of its decorators."""
    module = load(
        """
        import functools
        def wrap(f): return f
        @wrap
        @functools.lru_cache(
            maxsize=1)
        def cached(): pass
        shown = lambda: 1
        """
    )
    found = places.function_definition(module.cached)
    assert found is not None
    assert found.place.line == line(module, "def cached")
    assert [each.line for each in found.decorators] == [line(module, "@wrap"), line(module, "@functools")]
    found = places.function_definition(module.shown)
    assert found is not None
    assert found.place.line == line(module, "shown = ")


def test_a_function_without_source() -> None:
    """Neither an exec'd function nor a builtin has a place."""
    space: dict[str, Any] = {}
    exec("def f(): pass", space)
    assert places.function_definition(space["f"]) is None
    assert places.function_definition(len) is None


def test_classes_are_told_apart_by_their_methods(load: Load) -> None:
    """Two local classes in one function may share a name."""
    module = load(
        """
        def make(first):
            if first:
                class Local:
                    def one(self): pass
            else:
                class Local:
                    def two(self): pass
            return Local
        """
    )
    found = places.class_definition(module.make(False))
    assert found is not None
    assert found.place.line == line(module, "else") + 1


def test_a_class_made_by_a_call(load: Load) -> None:
    """A named tuple is defined where it was given its name."""
    module = load("import collections\n\nPoint = collections.namedtuple('Point', 'x')\n")
    found = places.class_definition(module.Point)
    assert found is not None
    assert found.place.line == 3


SETTERS = """
    import threading
    class Base:
        def __init__(self, lock=None):
            self.lock = lock  # base
    class Thing(Base):
        def reset(self):
            self.lock = None
            other.lock = 1
        def again(self):
            (self.lock, self.b) = threading.Lock(), 2  # again
    class Other:
        def __init__(self):
            self.lock = threading.Lock()  # not this class
    def fill():
        t = Thing()
        t.lock = threading.Lock()  # fill
        return t
    def unlike():
        t = Thing()
        t.lock = threading.Lock()  # unlike
        t.never = 1
    def foreign():
        o = Other()
        o.lock = threading.Lock()  # foreign
"""


def test_an_attribute_is_set_in_the_classes_own_methods(load: Load) -> None:
    """All assignments count if the source is ambiguous: calls of the value's type first, constants never."""
    module = load(SETTERS)
    thing = module.Thing()
    thing.again()
    found = places.attribute_places(thing, "lock", thing.lock)
    assert [each.line for each in found] == [line(module, "# again"), line(module, "# base")]


def test_code_that_sets_other_attributes_made_another_object(load: Load) -> None:
    """Outside the class, only code that sets the object's attributes counts."""
    source = SETTERS.replace("self.lock = lock  # base", "pass").replace("(self.lock, self.b) = ", "x = ")
    module = load(source)
    thing = module.fill()
    (found,) = places.attribute_places(thing, "lock", thing.lock)
    assert found.line == line(module, "# fill")


def test_class_that_is_written_with_its_module(load: Load) -> None:
    """``types.SimpleNamespace(lock=...)`` sets an attribute like ``SimpleNamespace(lock=...)``."""
    module = load(
        """
        import threading, types
        def fill():
            return types.SimpleNamespace(kept_here=threading.Lock())  # fill
        """
    )
    thing = module.fill()
    (found,) = places.attribute_places(thing, "kept_here", thing.kept_here)
    assert found.line == line(module, "# fill")


def test_object_made_by_a_call_of_a_method_may_be_of_any_class(load: Load) -> None:
    """The result of ``super().__call__()`` is not an object of a class ``__call__``."""
    module = load(
        """
        import threading
        class Meta(type):
            def __call__(cls):
                obj = super().__call__()
                obj.given = threading.Lock()  # call
                return obj
        class Thing(metaclass=Meta):
            pass
        """
    )
    thing = module.Thing()
    (found,) = places.attribute_places(thing, "given", thing.given)
    assert found.line == line(module, "# call")


@pytest.mark.parametrize(
    "statement",
    [
        "setattr(t, 'x', make())",
        "object.__setattr__(t, 'x', make())",
        "t.x: object = make()",
        "a, (t.x, b) = 1, (make(), 2)",
        "with manage() as t.x: pass",
        "for t.x in [make()]: pass",
        "t = Thing(x=make())",
        "t.me = t; t.me.x = make()",
    ],
)
def test_the_ways_to_set_an_attribute(load: Load, statement: str) -> None:
    """All forms of assignment, setattr, and constructor keywords set an attribute."""
    module = load(
        f"""
        import contextlib
        class Thing:
            def __init__(self, **held): self.__dict__.update(held)
        def make(): return object()
        @contextlib.contextmanager
        def manage(): yield make()
        def build():
            t = Thing()
            {statement}
            return t
        """
    )
    thing = module.build()
    (found,) = places.attribute_places(thing, "x", thing.x)
    assert found.line == line(module, statement)


def test_a_field_of_a_dataclass(load: Load) -> None:
    """A default factory is placed at its field."""
    module = load(
        """
        import dataclasses, threading
        @dataclasses.dataclass
        class Job:
            name: str
            lock: object = dataclasses.field(default_factory=threading.Lock)
        """
    )
    job = module.Job("a")
    (found,) = places.attribute_places(job, "lock", job.lock)
    assert found.line == line(module, "default_factory")


def test_a_dictionary_literal_with_other_keys_is_another(load: Load) -> None:
    """The literal with most of the dictionary's keys is chosen, and none with keys that it lacks."""
    module = load(
        """
        def one(): return {"a": make(), "z": 1}
        def two(): return {"a": make()}
        def three(): return {"a": make(), "b": 1}
        def make(): return object()
        """
    )
    held = module.three()
    (found,) = places.item_places(held, "a", held["a"], [module.__file__ or ""])
    assert found.line == line(module, "def three")


def test_a_local_variable_of_a_running_function() -> None:
    """The last binding before the running line counts."""
    guard = None
    guard = threading.Lock()
    ((name, place),) = places.names_in_callers(guard)
    assert name == "guard"
    assert place.file == __file__


def test_what_a_function_reads() -> None:
    """A function reads module globals, also in inner functions; builtins and attributes do not count."""
    assert places.names_read(reads) == ["LIMIT", "functools"]


LIMIT = 1


def reads(n: int) -> Any:
    def inner() -> Any:
        return functools.partial(len, [n])

    return LIMIT + n, inner


def test_the_users_function_below_a_librarys_wrapper() -> None:
    """`functools.wraps` leads from a library's wrapper to the user's function."""

    @functools.singledispatch
    def mine(x: int) -> int:
        return x

    found = places.function_definition(mine)
    assert found is not None
    assert found.place.file == __file__


def test_source_that_does_not_parse(load: Load, tmp_path: Path) -> None:
    """Source that does not parse gives no place, and raises nothing."""
    module = load("class Thing:\n    def __init__(self): self.x = 1\n")
    assert module.__file__
    Path(module.__file__).write_text("class Thing(:\n")
    thing = module.Thing()
    assert places.attribute_places(thing, "x", thing.x) == []
    assert places.class_definition(module.Thing) is None


def test_another_class_of_the_same_name(load: Load) -> None:
    """Code in a module where the name means another class is not about this object."""
    module = load(SETTERS.replace("self.lock = lock  # base", "pass").replace("(self.lock, self.b) = ", "x = "))

    class Thing:
        pass

    Thing.__qualname__ = "Thing"
    thing = Thing()
    thing.lock = threading.Lock()  # type: ignore[attr-defined]  # mine
    found = places.attribute_places(thing, "lock", thing.lock)  # type: ignore[attr-defined]
    assert __file__ in {each.file for each in found}
    assert module.__file__ not in {each.file for each in found}
