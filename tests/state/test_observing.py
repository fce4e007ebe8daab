"""The parent's values of what a child's code reads: re-read, compared with two fresh children, and behind libraries."""

from __future__ import annotations

import io
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.causes import second_look, state
from pytest_startmethod.causes.context import Context, context_of
from pytest_startmethod.child.values import MISSING, describe
from pytest_startmethod.model.child_report import ChildReport, Frame, Raised
from pytest_startmethod.model.evidence import Evidence
from pytest_startmethod.model.observed import Observed, Seen
from pytest_startmethod.model.patched import Patched
from pytest_startmethod.model.place import Place
from pytest_startmethod.source.callers import UserCode
from pytest_startmethod.state import observing

Load = Callable[..., types.ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Import source text as a user module or as an installed one."""
    names = []

    def load(name: str, text: str, *, installed: bool = False) -> types.ModuleType:
        path = tmp_path / "site-packages" / f"{name}.py" if installed else tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        module = types.ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        names.append(name)
        exec(compile(text, str(path), "exec"), module.__dict__)
        return module

    yield load
    for name in names:
        del sys.modules[name]


def observed(function: Any, *args: Any, user: UserCode | None = None) -> Observed:
    found = observing.observe(function, args, method="spawn", user=user)
    assert found is not None
    return found


def seen(looked: Observed, **values: Any) -> Seen:
    """Return a fresh child's values: the parent's, except `values`, keyed by the last name."""
    nodes = [describe(values[b.names[-1]]) if b.names[-1] in values else b.node for b in looked.bindings]
    return Seen(nodes, {}, {}, {})


def test_values_are_looked_at_again_without_following_the_code(load):
    """A second task of the same kind has the values of its own moment."""
    module = load("again_code", "MODE = 'a'\ndef ask():\n    return MODE\n")
    first = observed(module.ask)
    module.MODE = "b"
    later = observing.again(first)
    assert later.print != first.print
    assert [b.node[2] for b in later.bindings] == ["'b'"]
    assert observing.again(first).print == later.print


def test_the_variable_that_names_the_running_test_is_no_difference(load):
    """The runner changes PYTEST_CURRENT_TEST in every phase: only the user's own variables count."""
    module = load("current_code", "ENVIRON = {}\ndef ask():\n    return ENVIRON\n")
    module.ENVIRON.update(PYTEST_CURRENT_TEST="test_b (call)", MODE="a")
    looked = observed(module.ask)
    assert (
        observing.compare(looked, [seen(looked, ENVIRON={"PYTEST_CURRENT_TEST": "test_a (call)", "MODE": "a"})]) == []
    )
    (found,) = observing.compare(looked, [seen(looked, ENVIRON={"PYTEST_CURRENT_TEST": "test_a (call)", "MODE": "b"})])
    assert found.inner == "['MODE']"


def test_the_key_that_a_child_missed_comes_first(load):
    """Of a registry's entries that differ, the one in the child's KeyError is shown."""
    module = load("keyed_code", "REGISTRY = {}\ndef ask(name):\n    return REGISTRY[name]\n")
    module.REGISTRY.update(a=1, b=2, c=3)
    looked = observed(module.ask)
    raised = Raised("KeyError", "'c'", (Frame(module.__file__, 3, "ask", "return REGISTRY[name]"),))
    told = context_of(evidence(looked, [seen(looked, REGISTRY={})] * 2, raised))
    (found,) = state.explain(looked, [seen(looked, REGISTRY={})] * 2, told)
    assert "REGISTRY['c'] is 3 in the parent and not there in a fresh child" in found.message
    (found,) = state.explain(looked, [seen(looked, REGISTRY={})] * 2, Context())
    assert "REGISTRY['a'] is 1 in the parent" in found.message


def test_what_each_process_makes_anew_is_told_only_when_asked_for(load):
    """A run id differs between two fresh children: it is not a difference, but a last-resort candidate."""
    module = load("anew_code", "RUN = 'x'\nMODE = 'a'\ndef ask():\n    return RUN, MODE\n")
    looked = observed(module.ask)
    children = [seen(looked, RUN="y", MODE="b"), seen(looked, RUN="z", MODE="b")]
    assert [each.binding.path for each in observing.compare(looked, children)] == ["anew_code.MODE"]
    every = observing.compare(looked, children, varying=True)
    assert [(each.binding.path, each.varies) for each in every] == [("anew_code.RUN", True), ("anew_code.MODE", False)]


def test_keys_that_are_addresses_are_no_difference(load):
    """Entries under ``id()`` have other keys in each process: only the other entries are compared."""
    module = load("ids_code", "BY_ID = {}\ndef ask():\n    return BY_ID\n")
    module.BY_ID.update({140001112223334: "a", "mode": 1})
    looked = observed(module.ask)
    children = [seen(looked, BY_ID={number: "a", "mode": 1}) for number in (139001112223334, 141001112223334)]
    assert observing.compare(looked, children) == []
    children = [seen(looked, BY_ID={number: "a", "mode": 2}) for number in (139001112223334, 141001112223334)]
    assert [each.inner for each in observing.compare(looked, children)] == ["['mode']"]
    (found,) = observing.compare(looked, [seen(looked, BY_ID={"mode": 1})] * 2)
    assert found.inner == "[140001112223334]"


def test_what_hangs_on_an_immutable_value_is_no_difference(load):
    """Token types of pygments, which are tuples, gain attributes with every lexer that is imported."""
    module = load("token_code", "class Token(tuple): pass\nROOT = Token('a')\ndef ask():\n    return ROOT\n")
    looked = observed(module.ask)
    grown = module.Token("a")
    grown.Child = module.Token("ab")
    assert observing.compare(looked, [seen(looked, ROOT=grown)] * 2) == []
    (found,) = observing.compare(looked, [seen(looked, ROOT=module.Token("b"))] * 2)
    assert found.inner == "[0]"


def test_a_key_that_was_described_earlier_is_not_compared(load):
    """How many objects come before a shared one differs: its number in a description is not its identity."""
    text = "class Key: pass\nA, B = Key(), Key()\nSTATE = []\ndef ask():\n    return STATE\n"
    module = load("shared_code", text)
    module.STATE[:] = [module.A, module.B, {module.A: 1, module.B: 2}]
    looked = observed(module.ask)
    assert observing.compare(looked, [seen(looked, STATE=[module.B, module.A, {module.A: 1, module.B: 2}])] * 2) == []


FILLED = """
VIEW = None
SEEN = []
CACHE = None
def fill(at): VIEW[at] = at
def note(at): SEEN.append(at)
def lazily(at):
    global CACHE
    if CACHE is None:
        CACHE = {}
    CACHE[at] = at
"""


def test_what_is_only_changed_must_be_there(load):
    """A child without the object cannot change it; what the object holds does not matter to code that adds to it."""
    module = load("filled_code", FILLED)
    module.VIEW = [0, 0]
    looked = observed(module.fill, 1)
    (found,) = state.explain(looked, [seen(looked, VIEW=None)] * 2, Context())
    assert (found.code, found.path, found.level, found.line) == ("SM301", "filled_code.VIEW", "cause", 5)
    assert found.fix == (
        "set VIEW in the child: in a pool's initializer, or first in the target; a copy that is passed as an argument "
        "is changed in the child alone"
    )
    assert state.explain(looked, [seen(looked, VIEW=[7])] * 2, Context()) == []
    module.SEEN.append(1)
    looked = observed(module.note, 1)
    assert state.explain(looked, [seen(looked, SEEN=[])] * 2, Context()) == []
    module.CACHE = {1: 1}
    looked = observed(module.lazily, 1)
    assert [each.level for each in state.explain(looked, [seen(looked, CACHE=None)] * 2, Context())] == ["note"]


def test_generated_code_is_followed(load):
    """A class's generated methods, as those of attrs, read switches of their library; the class's line is told."""
    text = """
        import library_switch
        namespace = {"switch": library_switch}
        exec(compile("def __init__(self, v):\\n self.v = switch.ON and v", "<generated>", "exec"), namespace)
        class Reading:
            __init__ = namespace["__init__"]
        Reading.__init__.__qualname__, Reading.__init__.__module__ = "Reading.__init__", "generated_code"
        def ask():
            return Reading(1).v
    """
    switch = load("library_switch", "ON = True\n", installed=True)
    module = load("generated_code", textwrap.dedent(text))
    switch.ON = False  # type: ignore[attr-defined]
    looked = observed(module.ask)
    (found,) = state.explain(looked, [seen(looked, ON=True)] * 2, Context())
    assert (found.code, found.path, found.line) == ("SM301", "library_switch.ON", 5)
    assert found.file == module.__file__


class Tee:
    def write(self, text: str) -> None:
        pass


@pytest.mark.parametrize(
    ("stream", "body", "paths"),
    [
        (Tee(), "print(1)", {"sys.stdout"}),
        (Tee(), "print(1, file=OUT)", {"printing_code.OUT"}),
        (io.StringIO(), "print(1)", set()),
    ],
)
def test_printing_depends_on_the_users_own_stream(load, monkeypatch, stream, body, paths):
    """A replacement of ``sys.stdout`` is the user's; a stream of Python's own is as good as another."""
    module = load("printing_code", f"OUT = None\ndef work():\n    {body}\n")
    monkeypatch.setattr(sys, "stdout", stream)
    looked = observed(module.work)
    assert {each.path for each in looked.bindings} == paths


def test_what_lies_deep_in_a_librarys_object_is_a_note(load):
    """An effect of other imports, as in a registry of classes, is not what the user has set."""
    text = "class Box: pass\nROOT = Box()\ndef ask():\n    return ROOT\n"
    module = load("deep_code", text)

    def chain(last: int, depth: int) -> Any:
        box = module.Box()
        box.next = chain(last, depth - 1) if depth else last
        return box

    module.ROOT = chain(1, 5)
    looked = observed(module.ask)
    (found,) = state.explain(looked, [seen(looked, ROOT=chain(2, 5))] * 2, Context())
    assert found.level == "note"
    (found,) = state.explain(looked, [seen(looked, ROOT=chain(2, 5))] * 2, Context(missed=(".next",)))
    assert found.level == "cause"
    module.ROOT = chain(1, 2)
    looked = observed(module.ask)
    (found,) = state.explain(looked, [seen(looked, ROOT=chain(2, 2))] * 2, Context())
    assert found.level == "cause"


LIBRARY = """
REGISTRY = {}
def register(name, function): REGISTRY[name] = function
def load(name): return REGISTRY[name]()
"""


def library(load: Load) -> tuple[Observed, Observed, second_look.Look]:
    lib = load("some_lib", LIBRARY, installed=True)
    module = load("uses_lib", "import some_lib\ndef one(): return 1\ndef ask():\n    return some_lib.load('point')\n")
    lib.register("point", module.one)
    looked = observed(module.ask)
    look = second_look.look_at([looked], [], [])
    assert look is not None
    return looked, observed(module.ask, user=UserCode(look.packages)), look


def evidence(looked: Observed, children: list[Seen], *raised: Raised) -> Evidence:
    reports = [ChildReport(1, "f", raised=tuple(raised))] if raised else []
    return Evidence("test", "spawn", "failed", seen=[(looked, children)], reports=reports)


def test_a_librarys_registry_is_a_candidate(load):
    """The first look finds nothing; the second finds the registry and places it at the user's line."""
    first, second, look = library(load)
    assert observing.compare(first, [seen(first)] * 2) == []
    children = [seen(second, REGISTRY={})] * 2
    (found,) = second_look.candidates(evidence(second, children), look)
    assert (found.code, found.path, found.level) == ("SM301", "some_lib.REGISTRY", "note")
    assert found.file is not None
    assert (Path(found.file).name, found.line) == ("uses_lib.py", 4)


def test_what_the_childs_exception_names_is_a_cause(load):
    """The child's exception mentions the missing key."""
    _, second, look = library(load)
    children = [seen(second, REGISTRY={})] * 2
    raised = Raised("KeyError", "'point'")
    (found,) = second_look.candidates(evidence(second, children, raised), look)
    assert found.level == "cause"


def test_what_the_childs_traceback_goes_through_is_a_cause(load):
    """A traceback that contains the library's reading line makes it a cause; one that does not, no."""
    _, second, look = library(load)
    children = [seen(second, REGISTRY={})] * 2
    (where,) = {b.read.where for b in second.bindings if b.names == ("REGISTRY",)}
    levels = []
    for line in (where.line, where.line + 100):
        raised = Raised("TypeError", "no", frames=(Frame(where.file, line, "load", ""),))
        levels += [each.level for each in second_look.candidates(evidence(second, children, raised), look)]
    assert levels == ["cause", "note"]


STANDARD = """
import calendar
import email.charset
import gettext
import shutil
from xml.etree import ElementTree

def week(): return calendar.firstweekday()
def charset(): return email.charset.Charset("later").body_encoding
def text(): return gettext.gettext("x")
def archive(): return shutil.make_archive("archive", "later")
def xml(): return ElementTree.tostring(ElementTree.Element("{urn:later}a"))
"""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("week", "calendar.firstweekday"),
        ("charset", "email.charset.CHARSETS"),
        ("text", "gettext._current_domain"),
        ("archive", "shutil._ARCHIVE_FORMATS"),
        ("xml", "xml.etree.ElementTree._namespace_map"),
    ],
)
def test_state_of_the_standard_library_is_looked_at_again(load, name, path):
    """Internal state of a standard library module is read by code that the user calls."""
    module = load("uses_standard", STANDARD)
    look = second_look.look_at([observed(getattr(module, name))], [], [])
    assert look is not None
    second = observed(getattr(module, name), user=UserCode(look.packages))
    assert path in {binding.path for binding in second.bindings}


def test_a_registry_says_more_than_the_module_that_fills_it(load):
    """Where the exception names an entry that a module's import makes, the registry comes first, then the module."""
    lib = load("some_lib", LIBRARY, installed=True)
    module = load("uses_lib", "import some_lib\ndef ask():\n    return some_lib.load('OnlyInShapesLib')\n")
    shapes = load("shapes_lib", "class OnlyInShapesLib: pass\n")
    lib.register("OnlyInShapesLib", shapes.OnlyInShapesLib)
    looked = observed(module.ask)
    look = second_look.look_at([looked], [], [])
    assert look is not None
    second = observed(module.ask, user=UserCode(look.packages))
    raised = Raised("KeyError", "'OnlyInShapesLib'", ())
    found = second_look.candidates(evidence(second, [seen(second, REGISTRY={})] * 2, raised), look)
    assert [(each.path, each.level) for each in found][:2] == [
        ("some_lib.REGISTRY", "cause"),
        ("shapes_lib", "cause"),
    ]


def test_a_leg_with_a_cause_is_not_looked_at_again(load):
    """Only failing legs without a cause get a second look."""
    first, second, _ = library(load)
    children = [seen(second, REGISTRY={})] * 2
    causes = state.explain(second, children, Context())
    assert second_look.look_at([first], [], causes) is None


def test_what_another_package_put_in_a_librarys_place_is_a_patch(load):
    """A fake clock of an installed package is a patch, placed at the decorator; the library's own function is not."""
    load("real_lib", "def now(): return 1\ndef other(): return 1\n", installed=True)
    fake = load("fake_lib", "def now(): return 2\ndef freeze(f): return f\n", installed=True)
    sys.modules["real_lib"].now = fake.now  # type: ignore[attr-defined]
    module = load(
        "clock_code",
        "import real_lib\nimport fake_lib\n\n@fake_lib.freeze\ndef test_it(): pass\n\n"
        "def ask():\n    return real_lib.now(), real_lib.other()\n",
    )
    looked = observed(module.ask)
    assert [b.path for b in looked.bindings if b.rebound] == ["real_lib.now"]
    child = seen(looked, now=sys.modules["real_lib"].other)  # type: ignore[attr-defined]
    file = str(module.__file__)
    context = Context(tests=(file,), touched=frozenset({(file, "test_it")}))
    (found,) = [each for each in state.explain(looked, [child, child], context) if each.path == "real_lib.now"]
    assert (found.code, found.level) == ("SM303", "cause")
    assert found.message.startswith("the patch (fake_lib) is lost")
    assert any(line.endswith("clock_code.py:4: @fake_lib.freeze") for line in found.evidence)


def test_what_an_import_hook_adds_is_no_cause(load):
    """Code that typeguard or beartype rewrote reads names that its source does not have; the child's code may not."""
    hook = load("check_lib", "def check(value): return value\n", installed=True)
    module = load("hooked_code", "LIMIT = 1\ndef ask(n):\n    return LIMIT\n")
    file = str(module.__file__)
    module.check_types, module.LIMIT = hook.check, 2  # type: ignore[attr-defined]
    exec(compile("def ask(n):\n    return check_types(n) and LIMIT\n", file, "exec"), module.__dict__)
    looked = observed(module.ask, 1)
    assert {b.path for b in looked.bindings} == {"hooked_code.check_types", "hooked_code.LIMIT"}
    child = seen(looked, check_types=MISSING, LIMIT=1)
    assert [each.path for each in state.explain(looked, [child, child], Context())] == ["hooked_code.LIMIT"]


def test_a_lock_of_the_targets_own_package_counts(load):
    """Of an installed package, only locks that each fresh child makes anew are compared."""
    lib = load(
        "lock_lib",
        "import multiprocessing\nLOCK = multiprocessing.Lock()\nSIZE = 1\n"
        "def add():\n    with LOCK:\n        return SIZE\n",
        installed=True,
    )
    looked = observed(lib.add)
    assert [b.path for b in looked.primitives] == ["lock_lib.LOCK"]
    assert looked.bindings == []


def test_a_replaced_stream_is_compared(load, monkeypatch):
    """A stream with which the test replaced sys.stdout is compared; the test runner's own is not."""
    import io

    module = load("stream_code", "import sys\ndef ask():\n    return sys.stdout\n")
    assert observed(module.ask).bindings == []
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert [b.path for b in observed(module.ask).bindings] == ["sys.stdout"]


def test_patch_by_a_library_is_told_at_the_users_decorator(load):
    """Only an experiment can confirm a patch inside a library; its place is the line that uses the library."""
    library = load("fake_service", "def activate(function):\n    return function\n", installed=True)
    text = "import fake_service\n\n@fake_service.activate\ndef test_it():\n    pass\n"
    user = load("test_of_service", text)
    patch = Patched("json.dumps", Place(library.__file__, 2, "start"), "mock.patch")
    (found,) = state.unseen_patches([patch], [(user.__file__, "test_it")])
    assert (found.code, found.file, found.line) == ("SM303", user.__file__, 3)
    assert found.evidence == (f"set by fake_service at {user.__file__}:3: @fake_service.activate",)
    own = Patched("json.dumps", Place(user.__file__, 5, "test_it"), "mock.patch")
    (found,) = state.unseen_patches([own])
    assert (found.file, found.line) == (user.__file__, 5)
