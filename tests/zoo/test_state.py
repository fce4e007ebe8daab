"""State cases: what code reads, what a fresh child has, and the resulting findings."""

from __future__ import annotations

import functools
import gc
import json
import linecache
import os
import sqlite3
import sys
import threading
import weakref
from typing import Any

import pytest
import state_cases
import state_support

from pytest_startmethod._compat import cpython
from pytest_startmethod.causes import state as state_causes
from pytest_startmethod.causes.pickling_subject import with_article
from pytest_startmethod.child import values
from pytest_startmethod.child.differences import differences, short
from pytest_startmethod.model.place import Place
from pytest_startmethod.source.callers import UserCode
from pytest_startmethod.state import fresh_child, observing, reads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fresh children fork for each question")

HERE = os.path.abspath(__file__)
FILE = os.path.abspath(state_cases.__file__)


@pytest.fixture(scope="module")
def children():
    """Two warm fresh children."""
    with fresh_child.Loader() as one, fresh_child.Loader() as other:
        yield [one, other]


def explain(given: Any, children: Any, method: str = "spawn", **context: Any) -> list[Any]:
    try:
        observed = observing.observe(given.target, given.args, method=method)
        assert observed is not None
        seen = observing.ask(observed, children)
        assert seen is not None
    finally:
        given.undo()
    return state_causes.explain(observed, seen, state_causes.Context(**{"failed": False, **context}))


@pytest.mark.parametrize("name", state_cases.CASES)
def test_cases_with_a_known_answer(name, children):
    """The difference comes first, with its code, level and reading line; controls have no finding."""
    case = state_cases.CASES[name]
    found = explain(case.make(), children)
    if not case.path:
        assert found == []
        return
    first = found[0]
    assert (first.path, first.code, first.level) == (case.path, case.code, case.level)
    assert first.file is not None
    assert case.reader in linecache.getline(first.file, first.line)
    assert first.fix
    assert not first.fix.endswith(".")


def test_message_word_for_word(children):
    """The text has both values, the reading line, the setting lines and a fix."""
    (found,) = explain(state_cases.CASES["rebound_global"].make(), children, tests=(HERE,))
    assert found.message == (
        "state_cases.MODE is 'changed' in the parent and 'as imported' in a fresh child; read_mode reads it"
    )
    assert found.evidence[0] == f"read at {found.file}:{found.line}: return MODE"
    assert found.fix == (
        "pass MODE to the target as an argument, or set it in the child: in a pool's initializer, or first in the "
        "target"
    )


def test_a_class_registered_with_an_abc_is_to_be_registered_in_the_child(children):
    """The registry has no attribute that could be set or passed."""
    (found,) = explain(state_cases.CASES["class_registered_with_an_abc"].make(), children)
    assert found.fix == (
        "call Drawn.register() in the child too: in a module that it imports, in a pool's initializer, or first in the "
        "target"
    )


class Report:
    @functools.cached_property
    def lines(self):
        return ["a"]


REPORT = Report()


def read_lines():
    return REPORT.lines


def test_a_cached_property_that_only_the_parent_has_read_is_not_there_in_a_child(children):
    """What the class has instead, the property itself, is nothing that the code would get."""
    assert REPORT.lines == ["a"]
    (found,) = explain(state_cases.Given(read_lines, (), lambda: vars(REPORT).clear()), children)
    assert "lines is ['a'] in the parent and not there in a fresh child" in found.message


class Keeper:
    """Pickles without its lock."""

    def __init__(self):
        self.lock = threading.Lock()

    def __getstate__(self):
        return {}


CHANGED = None


def read_changed():
    return CHANGED


IN_THE_CHILD = "in the child: in a pool's initializer, or first in the target"


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda: sqlite3.connect(":memory:"), "a database connection"),
        (lambda: [{"lock": threading.Lock()}], "a lock"),
        (lambda: (lambda: 1,), "a local function"),
        (Keeper, ""),
        (lambda: {"plain": 1}, ""),
    ],
    ids=("connection", "lock", "function", "its own state", "plain"),
)
def test_a_value_that_does_not_pickle_is_not_to_be_passed(children, monkeypatch, make, fix):
    """The fix sets it in the child; an object that may leave a lock out of its state can still be an argument."""
    value = make()
    monkeypatch.setattr(sys.modules[__name__], "CHANGED", value)
    (found,) = explain(state_cases.Given(read_changed), children)
    if fix == "a database connection":
        value.close()
    assert found.code == "SM301"
    if fix:
        assert found.fix.startswith(
            f"set CHANGED {IN_THE_CHILD}; as an argument it would not reach the child: {fix} cannot be pickled"
        )
    else:
        assert found.fix.startswith(f"pass CHANGED to the target as an argument, or set it {IN_THE_CHILD}")


def test_inner_path_and_both_values_are_shortened(children):
    """Only the difference is shown, on at most one line."""
    (found,) = explain(state_cases.CASES["end_of_a_long_text"].make(), children)
    assert found.message.startswith("state_cases.TEXT is 'xxxx")
    assert "(10001 long, sha1 " in found.message
    (found,) = explain(state_cases.CASES["item_of_an_item"].make(), children)
    assert found.message.startswith(
        "state_support.OPTIONS['nested']['depth'] is 2 in the parent and 1 in a fresh child; read_nested_option"
    )


class Patched:
    """A patch as recorded."""

    def __init__(self, target: str, by: str) -> None:
        self.target, self.by, self.place = target, by, Place(HERE, 1)


def test_recorded_patch_is_named(children):
    """A value set by monkeypatch is a patch with a place."""
    patch = Patched("state_cases.MODE", "monkeypatch")
    (found,) = explain(state_cases.CASES["rebound_global"].make(), children, patches=[patch])
    assert (found.code, found.level) == ("SM303", "cause")
    assert found.message.startswith("the patch (monkeypatch) is lost: state_cases.MODE is 'changed' in the parent")
    assert found.evidence[1].startswith(f"set by monkeypatch at {HERE}:1: ")


def test_what_the_traceback_touched_comes_first(children):
    """Of several names, the one that a failing function reads comes first."""

    def given():
        undo = [state_cases.set_to(state_cases.ME, "MODE", "x"), state_cases.set_to(state_support, "LIMIT", 50)]
        return state_cases.Given(state_cases.call, (both,), lambda: [each() for each in undo])

    first = [f.path for f in explain(given(), children)]
    touched = frozenset({(os.path.abspath(state_support.__file__), "read_limit")})
    then = [f.path for f in explain(given(), children, touched=touched)]
    assert first == ["state_cases.MODE", "state_support.LIMIT"]
    assert then == ["state_support.LIMIT", "state_cases.MODE"]


def both():
    return state_cases.read_mode(), state_support.read_limit()


both.__module__ = __name__


def test_no_finding_where_the_module_does_not_import(children, tmp_path, monkeypatch):
    """There are no state findings if the child cannot import the target's module: another finding says so."""
    (tmp_path / "state_gone.py").write_text("X = 1\ndef f():\n    return X\n")
    monkeypatch.syspath_prepend(tmp_path)
    import state_gone  # type: ignore[import-not-found]

    state_gone.X = 2
    (tmp_path / "state_gone.py").write_text("raise ImportError\n")
    assert explain(state_cases.Given(state_gone.f), children) == []


def test_stale_environment_compares_with_the_server(children, monkeypatch):
    """A forkserver child has the environment with which the server was started."""
    monkeypatch.setenv("STATE_CASES", "new")
    given = state_cases.Given(state_cases.read_environment)
    found = explain(given, children, "forkserver", environ={"STATE_CASES": "old"})
    assert [(f.code, f.path) for f in found] == [("SM304", "os.environ['STATE_CASES']")]
    assert found[0].message == (
        "os.environ['STATE_CASES'] is 'new' in the parent and 'old' in a forkserver child: the server keeps the "
        "environment that it was started with; read_environment reads it"
    )
    assert explain(state_cases.Given(state_cases.read_environment), children, "forkserver", environ=os.environ) == []


def test_primitive_is_a_cause_of_a_failure_and_a_note_else(children):
    """A lock that each child makes for itself may explain a failure; without a failure it is a note."""
    make = state_cases.CASES["lock_made_at_import"].make
    (found,) = explain(make(), children, failed=True, passed_under_fork=True)
    assert (found.code, found.level) == ("SM307", "cause")
    assert found.message == (
        "state_support.LOCK is a Lock that is made when the module is imported: each fresh child has one of its own, "
        "shared with nobody; take_lock uses it"
    )
    (found,) = explain(make(), children)
    assert found.level == "note"


@pytest.mark.parametrize("noun", ["a Lock", "an Event", "an RLock", "a Semaphore", "an SSLContext", "a TLSContext"])
def test_article_of_a_noun(noun):
    assert with_article(noun.partition(" ")[2]) == noun


def test_what_an_initializer_sets_is_not_told(children):
    """A global that an initializer sets in each worker differs on purpose."""
    known = frozenset({("state_cases", ("MODE",))})
    assert explain(state_cases.CASES["rebound_global"].make(), children, initialized=known) == []


# -- no user code runs -------------------------------------------------------------------------------------------------


class Hostile:
    """Raises from everything that careless inspection would call."""

    def _no(self, *_args: object) -> Any:
        raise AssertionError("the user's code ran")

    __eq__ = __hash__ = __repr__ = __str__ = __len__ = __iter__ = __bool__ = __getattr__ = _no  # type: ignore[assignment]

    @property
    def attribute(self):
        raise AssertionError("the user's code ran")

    def __init__(self) -> None:
        object.__setattr__(self, "value", 1)

    __class__ = property(_no)  # type: ignore[assignment]


HOSTILE = Hostile()


def use_hostile():
    return HOSTILE


def test_hostile_objects_are_described_by_what_they_hold():
    """No method of an object is called, not even to find its class."""
    observed = observing.observe(use_hostile, (Hostile(), {"x": HOSTILE}), method="spawn")
    assert observed is not None
    (node,) = [each.node for each in observed.bindings if each.path.endswith("HOSTILE")]
    assert node == ["o", f"{__name__}.Hostile", [["value", ["=", "int", "1"]]], None]
    assert short(node) == f"<{__name__}.Hostile object>"


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None),
        ({3, 1, 2}, {2, 3, 1}, None),
        ([1, [2, 3]], [1, [2, 4]], "[1][1]"),
        ({"a": {"b": (1,)}}, {"a": {"b": (2,)}}, "['a']['b'][0]"),
        ({"a": 1}, {}, "['a']"),
        ([1, 2], [1], ""),
        (1, True, ""),
        (1, 1.0, ""),
        (float("nan"), float("nan"), None),
        ("x" * 5000 + "a", "x" * 5000 + "b", ""),
        (state_cases.read_mode, state_cases.read_mode, None),
        (state_cases.read_mode, state_cases.read_table, ""),
        (state_support.Settings(), state_support.Settings(), None),
        (object(), object(), None),
        (bytearray(b"x"), bytearray(b"y"), ""),
    ],
)
def test_comparison_by_structure(one, other, path):
    """Key order and identity do not count; the path leads to the first difference."""
    found = differences(values.describe(one), values.describe(other))
    assert [each[0] for each in found] == ([] if path is None else [path])


def test_cycles_and_depth_end():
    """Recursive, deep and large values are described within the budget."""
    loop: list[Any] = [1]
    loop.append(loop)
    assert values.describe(loop) == ["(", "list", [["=", "int", "1"], ["^", 0]]]
    deep: Any = None
    for _ in range(10_000):
        deep = [deep]
    assert differences(values.describe(deep), values.describe([deep])) == []
    large = [[n] for n in range(100_000)]
    assert len(repr(values.describe(large))) < 400_000


def test_arrays_by_type_shape_and_content():
    """An array is described by its type, shape and a digest of part of its bytes."""
    numpy = pytest.importorskip("numpy")
    one = values.describe(numpy.zeros(1_000_000))
    other = numpy.zeros(1_000_000)
    other[-1] = 1
    assert one[:3] == ["a", "numpy.ndarray", "float64 (1000000,)"]
    assert differences(one, values.describe(other)) != []


# -- user code ---------------------------------------------------------------------------------------------------------


def test_users_code_is_what_is_not_installed(tmp_path):
    """Standard library and installed packages are not user code, unless named or also a folder of the project."""
    site = os.path.join(os.sep, "x", "lib", "site-packages")
    (tmp_path / "src" / "mine").mkdir(parents=True)
    rule = UserCode.of_project(str(tmp_path), ["named"])
    assert rule(str(tmp_path / "test_a.py"))
    assert rule(os.path.join(site, "mine", "a.py"))
    assert rule(os.path.join(site, "named", "a.py"))
    assert not rule(os.path.join(site, "other", "a.py"))
    assert not rule(os.__file__)
    assert not rule("<string>")


# -- in a session ------------------------------------------------------------------------------------------------------


def test_look_inside_at_vv(session):
    """With -vv, the reading instructions and the differing values of both namespaces are shown."""
    session.file(
        app="""
        A, B = 1, 2

        def send(connection):
            connection.send((A, B))
        """,
        test_a="""
        import app, multiprocessing, pytest

        @pytest.mark.startmethods("fork", "spawn")
        def test_x():
            app.A = 5
            parent, child = multiprocessing.Pipe()
            process = multiprocessing.Process(target=app.send, args=(child,))
            process.start()
            process.join()
            assert parent.recv() == (5, 2)
        """,
    )
    lines = [line.strip() for line in session.run("-vv").lines]
    assert "what app.send reads:" in lines
    assert any(line.startswith("app.py:4 in send: LOAD_GLOBAL") and "A" in line for line in lines)
    start = lines.index("parent and fresh child, where they differ:")
    assert lines[start + 1 : start + 3] == ["- parent  app.A = 5", "+ child   app.A = 1"]
    assert "the look inside" not in session.run().out


def test_installed_package_named_in_the_ini_file_is_looked_into(session):
    """The ini key start_methods_user_code makes an installed package user code."""
    session.file(
        "lib/site-packages/thelib/__init__.py",
        """
        VALUE = 1

        def send(connection):
            connection.send(VALUE)
        """,
    ).file(
        conftest="import sys, os; sys.path.insert(0, os.path.abspath('lib/site-packages'))",
        test_a="""
        import multiprocessing, pytest, thelib

        @pytest.mark.startmethods("spawn")
        def test_x():
            thelib.VALUE = 5
            parent, child = multiprocessing.Pipe()
            process = multiprocessing.Process(target=thelib.send, args=(child,))
            process.start()
            process.join()
            assert parent.recv() == 5
        """,
    )
    assert "SM301" not in session.run().out
    session.ini(start_methods_user_code="thelib")
    assert "SM301 global-state" in session.run().out
    session.ini(start_methods_user_code="not-a-name")
    outcome = session.run()
    assert outcome.status == 4
    assert (
        "ERROR: ini key start_methods_user_code: 'not-a-name' is not the name of a top-level package" in outcome.lines
    )


def test_same_failure_under_fork_is_not_explained_by_state(session):
    """A failure that also occurs under fork is not caused by a child's state."""
    session.file(
        test_a="""
        import multiprocessing, pytest
        A = 1

        def send(connection):
            connection.send(A)

        @pytest.mark.startmethods("fork", "spawn")
        def test_x():
            global A
            A = 5
            parent, child = multiprocessing.Pipe()
            process = multiprocessing.Process(target=send, args=(child,))
            process.start()
            process.join()
            assert parent.recv() and 1 == 2
        """
    )
    outcome = session.run()
    assert outcome.names == {"test_x[fork]": "failed", "test_x[spawn]": "failed"}
    assert "SM301" not in outcome.out


def test_state_of_a_pools_tasks_and_initializer(session):
    """Tasks are examined like targets; what an initializer sets exists in every worker."""
    session.file(
        test_a="""
        import multiprocessing, pytest
        A, GIVEN = 1, None

        def initialize(value):
            global GIVEN
            GIVEN = value

        def task(n):
            return A, GIVEN

        @pytest.mark.startmethods("spawn")
        def test_x():
            global A, GIVEN
            A, GIVEN = 5, "mine"
            with multiprocessing.Pool(1, initialize, ("theirs",)) as pool:
                assert pool.map(task, [1]) == [(5, "theirs")]
        """
    )
    out = session.run().out
    assert "test_a.A is 5 in the parent and 1 in a fresh child; task reads it" in " ".join(out.split())
    assert "GIVEN is" not in out


if sys.platform == "win32":
    del test_look_inside_at_vv


class Held:
    """Has no references once it is out of use."""


def use(held, other=None):
    return many(held), json.dumps([])


def many(held):
    return linecache.getline(str(held), 1)


@pytest.mark.parametrize("limit", [1, pytest.param(2_000, marks=pytest.mark.slow)])
def test_looking_at_what_is_read_keeps_nothing_alive(limit):
    """No reference or cycle keeps an object alive: the user may wait for its finalizer."""
    held = Held()
    gone = weakref.ref(held)
    gc.disable()
    try:
        reads.of(use, (held,), {"other": [held]}, is_user=lambda file: file == HERE, limit=limit)
        del held
        assert gone() is None
    finally:
        gc.enable()


def test_looking_at_variables_keeps_nothing_alive():
    """Up to Python 3.12, a frame keeps the dictionary that ``f_locals`` returned."""

    def function():
        held = Held()
        gone = weakref.ref(held)
        assert cpython.local_variables(sys._getframe())["held"] is held
        del held
        return gone()

    assert function() is None
