"""Marked functions become legs: ids, order, marks, and messages where that is impossible."""

from __future__ import annotations

import os

import pytest

MARKED = """
    import pytest

    @pytest.mark.startmethods
    def test_a():
        pass

    def test_plain():
        pass
"""


def test_a_marked_function_is_one_item_per_method(session, where):
    """The order is fork, spawn, forkserver; an unmarked test next to it is unaffected."""
    outcome = session.file(test_a=MARKED).run(where=where)
    assert outcome.status == 0
    legs = ["test_a[fork]", "test_a[spawn]", "test_a[forkserver]"]
    assert outcome.names == dict.fromkeys([*legs, "test_plain"], "passed")
    if where != "xdist":
        assert outcome.collected == [*legs, "test_plain"]


def test_a_leg_knows_its_test_and_place(session):
    """A leg's stash holds what reports need; other items have no entry."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods("spawn", vacuous="fail", timeout=3)
        def test_a():
            pass

        class TestB:
            @pytest.mark.startmethods("fork", pytest.param("spawn", id="slow"))
            @pytest.mark.parametrize("n", [1, "x-y"])
            def test_b(self, n):
                pass

        def test_plain():
            pass
        """
    )
    legs = session.run("--collect-only", "--start-methods-vacuous=ignore").legs
    assert legs == {
        "test_a.py::test_a[spawn]": {
            "nodeid": "test_a.py::test_a[spawn]",
            "test": "test_a.py::test_a",
            "method": "spawn",
            "file": "test_a.py",
            "line": 3,
            "vacuous": "fail",
            "timeout": 3.0,
            "planned": ["spawn"],
        },
        **{
            f"test_a.py::TestB::test_b[{id_}-{n}]": {
                "nodeid": f"test_a.py::TestB::test_b[{id_}-{n}]",
                "test": f"test_a.py::TestB::test_b[{n}]",
                "method": method,
                "file": "test_a.py",
                "line": 8,
                "vacuous": "ignore",
                "timeout": None,
                "planned": ["fork", "spawn"],
            }
            for id_, method in [("fork", "fork"), ("slow", "spawn")]
            for n in ("1", "x-y")
        },
    }


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ("@startmethods\ndef test_a(): pass", ["test_a[fork]", "test_a[spawn]", "test_a[forkserver]"]),
        ("@startmethods()\ndef test_a(): pass", ["test_a[fork]", "test_a[spawn]", "test_a[forkserver]"]),
        ("@startmethods('forkserver', 'fork')\ndef test_a(): pass", ["test_a[fork]", "test_a[forkserver]"]),
        ("@startmethods(pytest.param('spawn', id='slow'))\ndef test_a(): pass", ["test_a[slow]"]),
        ("pytestmark = startmethods('spawn')\ndef test_a(): pass", ["test_a[spawn]"]),
        ("pytestmark = [startmethods('spawn')]\nclass TestB:\n  def test_b(self): pass", ["TestB::test_b[spawn]"]),
        ("@startmethods('spawn')\nclass TestB:\n  def test_b(self): pass", ["TestB::test_b[spawn]"]),
        ("class TestB:\n  pytestmark = startmethods('spawn')\n  def test_b(self): pass", ["TestB::test_b[spawn]"]),
        # The closest marker counts.
        (
            "pytestmark = startmethods('spawn')\n"
            "@startmethods('fork')\nclass TestB:\n"
            "  def test_b(self): pass\n"
            "  @startmethods('forkserver')\n  def test_c(self): pass\n"
            "def test_d(): pass",
            ["TestB::test_b[fork]", "TestB::test_c[forkserver]", "test_d[spawn]"],
        ),
        # A class's own marker is closer than that of a base class.
        (
            "@startmethods('spawn')\nclass Base:\n  def test_b(self): pass\n"
            "class TestA(Base): pass\n"
            "@startmethods('fork')\nclass TestB(Base): pass",
            ["TestA::test_b[spawn]", "TestB::test_b[fork]"],
        ),
        # A method inherited by a marked and an unmarked class is marked only in the former.
        (
            "class Base:\n  def test_b(self): pass\n"
            "@startmethods('spawn')\nclass TestA(Base): pass\n"
            "class TestB(Base): pass",
            ["TestA::test_b[spawn]", "TestB::test_b"],
        ),
        # The method comes first and changes slowest.
        (
            "@pytest.mark.parametrize('x', 'xy')\n@startmethods('fork', 'spawn')\n"
            "@pytest.mark.parametrize('n', [1, 2])\ndef test_a(x, n): pass",
            [f"test_a[{m}-{n}-{x}]" for m in ("fork", "spawn") for n in (1, 2) for x in "xy"],
        ),
        (
            "@pytest.fixture(params=['p', 'q'])\ndef p(request): pass\n"
            "@startmethods('fork', 'spawn')\ndef test_a(p): pass",
            ["test_a[fork-p]", "test_a[fork-q]", "test_a[spawn-p]", "test_a[spawn-q]"],
        ),
        (
            "def pytest_generate_tests(metafunc):\n  metafunc.parametrize('n', [1, 2])\n"
            "@startmethods('fork', 'spawn')\ndef test_a(n): pass",
            ["test_a[fork-1]", "test_a[fork-2]", "test_a[spawn-1]", "test_a[spawn-2]"],
        ),
        (
            "class TestB:\n  def pytest_generate_tests(self, metafunc):\n    metafunc.parametrize('n', [1, 2])\n"
            "  @startmethods('fork', 'spawn')\n  def test_b(self, n): pass",
            ["TestB::test_b[fork-1]", "TestB::test_b[fork-2]", "TestB::test_b[spawn-1]", "TestB::test_b[spawn-2]"],
        ),
    ],
)
def test_every_form_of_the_marker(session, source, ids):
    """The marker works on functions, classes and modules, with parameters of every origin."""
    session.file(test_a="import pytest\nstartmethods = pytest.mark.startmethods\n" + source)
    assert session.run("--collect-only", where="in-process").collected == ids


def test_marks_of_a_method_are_those_of_its_leg(session):
    """``pytest.param("spawn", marks=xfail)`` expects only that leg to fail."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods("fork", pytest.param("spawn", marks=pytest.mark.xfail(reason="known")))
        def test_a(start_method):
            assert start_method == "fork"
        """
    )
    outcome = session.run()
    assert outcome.names == {"test_a[fork]": "passed", "test_a[spawn]": "xfailed"}


def test_methods_that_are_expected_to_fail_stand_in_the_marker(session):
    """Expected failures have a reason; with strict, passing is a failure. This applies to TestCase too."""
    session.file(
        test_a="""
        import unittest
        import pytest

        @pytest.mark.startmethods(xfail=("spawn", "forkserver"), reason="SM101 local-function", strict=True)
        def test_a(start_method):
            assert start_method != "spawn"

        class TestB(unittest.TestCase):
            @pytest.mark.startmethods("fork", "spawn", xfail="spawn")
            def test_b(self):
                import multiprocessing
                assert multiprocessing.get_start_method() == "fork"
        """
    )
    outcome = session.run("-rx")
    assert outcome.names == {
        "test_a[fork]": "passed",
        "test_a[spawn]": "xfailed",
        "test_a[forkserver]": "failed",
        "TestB::test_b[fork]": "passed",
        "TestB::test_b[spawn]": "xfailed",
    }
    assert "XPASS(strict)] SM101 local-function" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("xfail=3", "xfail: expects names of start methods, not an object of type int"),
        ("xfail='sporn'", "'sporn' is not a start method (valid: fork, spawn, forkserver)"),
        ("'fork', xfail='spawn'", "xfail: 'spawn' is not one of the marker's methods (fork)"),
        ("reason='x'", "reason and strict go with xfail"),
        ("xfail='spawn', reason=3", "reason is a string, and strict True or False"),
    ],
)
def test_an_expectation_that_cannot_be_meant_is_a_collection_error(session, arguments, message):
    session.file(test_a=f"import pytest\n@pytest.mark.startmethods({arguments})\ndef test_a(): pass")
    assert f"test_a.py::test_a: @pytest.mark.startmethods: {message}" in session.run(where="in-process").lines


def test_the_packages_own_name_is_no_marker(session):
    """Otherwise the test would silently run only once."""
    session.file(test_a="import pytest\n@pytest.mark.startmethod\ndef test_a(): pass")
    outcome = session.run(where="in-process")
    assert outcome.status == pytest.ExitCode.INTERRUPTED
    assert "test_a.py::test_a: @pytest.mark.startmethod: did you mean startmethods?" in outcome.lines


@pytest.mark.parametrize(
    ("on_class", "on_method"), [("@pytest.mark.startmethod", ""), ("", "@pytest.mark.startmethod")]
)
@pytest.mark.parametrize("base", ["object", "unittest.TestCase"])
def test_nor_is_it_one_on_a_class_or_a_method(session, on_class, on_method, base):
    session.file(
        test_a=f"""
        import unittest
        import pytest
        {on_class}
        class TestIt({base}):
            {on_method}
            def test_a(self): pass
        """
    )
    outcome = session.run(where="in-process")
    assert outcome.status == pytest.ExitCode.INTERRUPTED
    assert "test_a.py::TestIt::test_a: @pytest.mark.startmethod: did you mean startmethods?" in outcome.lines


def test_a_collection_that_an_exit_ends_is_the_users_own(session):
    """Every frame of a ``SystemExit`` at import is printed: none is ours, and nothing is said of the other tests."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods
        def test_a(): pass
        """,
        test_b="raise SystemExit(3)",
    )
    outcome = session.run(where="subprocess")
    assert outcome.status == pytest.ExitCode.INTERNAL_ERROR
    assert "mainloop: caught unexpected SystemExit!" in outcome.lines
    assert f"pytest_startmethod{os.sep}" not in outcome.out
    assert "StartMethodWarning" not in outcome.out
    assert "no tests ran" in outcome.out


@pytest.mark.parametrize("hook", ["pytest_collectstart", "pytest_make_collect_report"])
def test_a_marker_that_another_plugin_puts_on_a_collector_counts(session, hook):
    """Some suites let a plugin mark whole modules."""
    session.file(
        marking=f"""
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def {hook}(collector):
            if isinstance(collector, pytest.Module):
                collector.add_marker(pytest.mark.startmethods)
        """,
        test_a="""
        import unittest

        def test_a(): pass
        class TestB:
            def test_b(self): pass
        class TestC(unittest.TestCase):
            def test_c(self): pass
        """,
    )
    methods = ("fork", "spawn", "forkserver")
    expected = [f"{test}[{m}]" for test in ("test_a", "TestB::test_b", "TestC::test_c") for m in methods]
    assert session.plugin("marking").run("--collect-only").collected == expected


@pytest.mark.parametrize(
    ("decorator", "message"),
    [
        ("startmethods('sporn')", "'sporn' is not a start method (valid: fork, spawn, forkserver)"),
        ("startmethods(timeouts=3)", "unknown keyword 'timeouts' (valid: vacuous, timeout, xfail, reason, strict)"),
    ],
)
@pytest.mark.parametrize("test", ["def test_a(): pass", "class TestA(unittest.TestCase):\n  def test_a(self): pass"])
def test_a_marker_that_cannot_be_meant_is_a_collection_error(session, decorator, message, test):
    """The error names the test and the valid names, for functions and TestCase alike."""
    session.file(test_a=f"import pytest, unittest\n@pytest.mark.{decorator}\n{test}")
    outcome = session.run()
    assert outcome.status == pytest.ExitCode.INTERRUPTED
    nodeid = "test_a.py::TestA::test_a" if "class" in test else "test_a.py::test_a"
    assert f"{nodeid}: @pytest.mark.startmethods: {message}" in outcome.lines
    assert "INTERNALERROR" not in outcome.out


def test_a_method_that_was_not_selected_is_not_generated(session):
    """The command line selects among the marker's methods."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods("fork", "spawn")
        def test_a(): pass
        @pytest.mark.startmethods
        def test_b(): pass
        """
    )
    outcome = session.run("--start-methods=spawn,forkserver")
    assert outcome.names == dict.fromkeys(["test_a[spawn]", "test_b[spawn]", "test_b[forkserver]"], "passed")


def test_where_no_method_is_left_one_skip_says_so(session):
    """The node id is the test's own, with parameters; a TestCase behaves the same, and sets nothing up."""
    session.file(
        test_a="""
        import unittest
        import pytest

        @pytest.mark.startmethods("spawn")
        def test_a(): pass

        @pytest.mark.startmethods("spawn")
        @pytest.mark.parametrize("n", [1])
        def test_b(n): pass

        @pytest.mark.startmethods("spawn", "forkserver")
        class TestC(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise AssertionError
            def test_c(self): pass
        """
    )
    outcome = session.run("--start-methods=fork")
    assert outcome.names == dict.fromkeys(["test_a", "test_b[1]", "TestC::test_c"], "skipped")
    spawn = "no start method left: the marker names spawn, and --start-methods selects fork"
    assert outcome.reasons["test_a.py::test_a"] == spawn
    assert outcome.reasons["test_a.py::test_b[1]"] == spawn
    assert outcome.reasons["test_a.py::TestC::test_c"] == (
        "no start method left: the marker names spawn, forkserver, and --start-methods selects fork"
    )
    assert "Warning" not in outcome.out


def test_the_skip_names_the_ini_key_if_that_selected(session):
    """The reason names the setting to change."""
    session.file(test_a="import pytest\n@pytest.mark.startmethods('spawn')\ndef test_a(): pass").ini(
        start_methods="fork"
    )
    assert session.run().reasons == {
        "test_a.py::test_a": "no start method left: the marker names spawn, and the ini key start_methods selects fork"
    }


FORK_AND_SPAWN = """
    import unittest
    import pytest

    @pytest.mark.startmethods("fork", "spawn")
    def test_a(): pass
    @pytest.mark.startmethods
    def test_b(): pass
    @pytest.mark.startmethods("fork", "spawn")
    class TestC(unittest.TestCase):
        def test_c(self): pass
"""


def test_a_named_method_that_the_platform_lacks_is_skipped(session):
    """As on Windows, ``all`` means all available methods, while a name means that method."""
    session.platform("spawn").file(test_a=FORK_AND_SPAWN)
    outcome = session.run()
    assert outcome.names == {
        "test_a[fork]": "skipped",
        "test_a[spawn]": "passed",
        "test_b[spawn]": "passed",
        "TestC::test_c[fork]": "skipped",
        "TestC::test_c[spawn]": "passed",
    }
    reason = "start method fork is not available on this platform (available: spawn)"
    assert outcome.reasons["test_a.py::test_a[fork]"] == reason
    assert outcome.reasons["test_a.py::TestC::test_c[fork]"] == reason


def test_a_method_named_on_the_command_line_that_the_platform_lacks_is_skipped(session):
    """The leg exists and its skip gives the reason."""
    session.platform("spawn").file(test_a=FORK_AND_SPAWN)
    outcome = session.run("--start-methods=fork,spawn")
    assert outcome.names["test_b[fork]"] == "skipped"
    assert outcome.names["test_b[spawn]"] == "passed"


def test_the_platforms_default_alone(session):
    """As on macOS, ``default`` is spawn although all three methods exist."""
    session.platform("spawn", "fork", "forkserver").file(test_a=MARKED)
    assert session.run("--start-methods=default").collected == ["test_a[spawn]", "test_plain"]
    assert session.run().collected == ["test_a[fork]", "test_a[spawn]", "test_a[forkserver]", "test_plain"]


def test_an_explicit_selection_without_a_marked_test_says_so(session):
    """One line in the summary, only for the command-line option and only if no test is marked."""
    line = (
        "--start-methods=fork,spawn had no effect: no test is marked with @pytest.mark.startmethods "
        "(--start-methods-discover finds the tests that start processes)"
    )
    session.file(test_a="def test_a(): pass").ini(start_methods="spawn")
    assert session.run("--start-methods=fork,spawn").lines.count(line) == 1
    assert "start_methods" not in session.run().out
    session.file(test_b=MARKED)
    assert line not in session.run("--start-methods=fork,spawn").out
    assert line not in session.run("--start-methods=fork,spawn", "-k", "plain").out


def test_requesting_the_fixture_opts_in(session):
    """Any request does: direct, through another fixture, with autouse or usefixtures."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture
        def pool(mp_context): pass

        def test_a(start_method): pass
        def test_b(mp_context): pass
        def test_c(pool): pass
        @pytest.mark.usefixtures("pool")
        def test_d(): pass
        def test_plain(): pass
        """,
        test_b="""
        import pytest

        @pytest.fixture(autouse=True)
        def always(start_method): pass

        def test_e(): pass
        """,
    )
    outcome = session.run("--start-methods=fork,spawn")
    assert outcome.names == dict.fromkeys(
        [*(f"test_{x}[{m}]" for x in "abcde" for m in ("fork", "spawn")), "test_plain"], "passed"
    )
    assert len(outcome.legs) == 10


PARAMETRIZED = """
    import pytest

    @pytest.mark.parametrize("start_method", ["spawn", "thread", "fork"])
    def test_plain(start_method): pass

    @pytest.mark.startmethods("fork", pytest.param("spawn", marks=pytest.mark.xfail(reason="known")))
    @pytest.mark.parametrize("start_method", ["spawn", "thread", "fork"])
    def test_marked(start_method): assert start_method != "spawn"

    @pytest.mark.parametrize("x,start_method", [(1, "spawn"), (2, "fork")])
    def test_context(mp_context, start_method, x): assert mp_context.get_start_method() == start_method

    @pytest.mark.parametrize("start_method", ["spawn"], indirect=True)
    def test_indirect(start_method): assert start_method == "spawn"
"""


def test_a_direct_parametrize_wins(session):
    """An unmarked test keeps its parameter; with the marker or our ``mp_context``, the values become legs."""
    outcome = session.file(test_a=PARAMETRIZED).run("-W", "ignore")
    tests = {
        nodeid.partition("::")[2]: (leg["test"].partition("::")[2], leg["method"])
        for nodeid, leg in outcome.legs.items()
    }
    assert tests == {
        "test_marked[spawn]": ("test_marked", "spawn"),
        "test_marked[fork]": ("test_marked", "fork"),
        "test_context[1-spawn]": ("test_context[1]", "spawn"),
        "test_context[2-fork]": ("test_context[2]", "fork"),
        "test_indirect[spawn]": ("test_indirect", "spawn"),
    }
    assert outcome.collected == [
        "test_plain[spawn]",
        "test_plain[thread]",
        "test_plain[fork]",
        "test_marked[spawn]",
        "test_marked[thread]",
        "test_marked[fork]",
        "test_context[1-spawn]",
        "test_context[2-fork]",
        "test_indirect[spawn]",
    ]
    assert outcome.names["test_marked[spawn]"] == "xfailed"
    assert set(outcome.names.values()) == {"passed", "xfailed"}


def test_a_users_parameter_is_skipped_if_not_selected(session):
    """The command line still selects among the legs."""
    outcome = session.file(test_a=PARAMETRIZED).run("--start-methods=fork", "-W", "ignore")
    assert outcome.names == {
        "test_plain[spawn]": "passed",
        "test_plain[thread]": "passed",
        "test_plain[fork]": "passed",
        "test_marked[spawn]": "skipped",
        "test_marked[thread]": "passed",
        "test_marked[fork]": "passed",
        "test_context[1-spawn]": "skipped",
        "test_context[2-fork]": "passed",
        "test_indirect[spawn]": "skipped",
    }
    assert outcome.reasons["test_a.py::test_marked[spawn]"] == (
        "start method spawn is not selected: --start-methods selects fork"
    )


@pytest.mark.parametrize("level", ["module", "class", "conftest"])
def test_a_suite_that_parametrizes_the_name_itself_works_as_before(session, level):
    """``metafunc.parametrize("start_method", ...)`` does not collide with ours."""
    hook = "def pytest_generate_tests({0}metafunc):\n{1}  if 'start_method' in metafunc.fixturenames:\n" + (
        "{1}    metafunc.parametrize('start_method', ['one', 'two'])\n"
    )
    if level == "class":
        session.file(test_a="class TestA:\n  " + hook.format("self, ", "  ") + "  def test_a(self, start_method): pass")
    else:
        session.file(test_a="def test_a(start_method): pass")
        module = "test_a" if level == "module" else "conftest"
        with (session.path / f"{module}.py").open("a") as file:
            file.write("\n\n" + hook.format("", ""))
    outcome = session.run()
    prefix = "TestA::" if level == "class" else ""
    assert outcome.names == {f"{prefix}test_a[one]": "passed", f"{prefix}test_a[two]": "passed"}
    assert outcome.legs == {}


def test_a_users_own_fixture_of_the_name(session):
    """Unmarked tests use it as if we were absent; if it is parametrized, its values are the legs of a marked test."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture(params=["fork", "spawn"])
        def start_method(request): return "own " + request.param

        def test_plain(start_method): assert start_method.startswith("own")

        @pytest.mark.startmethods
        def test_marked(start_method): assert start_method.startswith("own")
        """,
        test_b="""
        import pytest

        @pytest.fixture
        def start_method(start_method): return start_method.upper()

        def test_override(start_method): assert start_method in ("FORK", "SPAWN", "FORKSERVER")
        """,
        test_c="""
        import pytest

        @pytest.fixture
        def start_method(): raise AssertionError("not requested")

        @pytest.mark.startmethods("spawn")
        def test_unrequested(): pass
        """,
    )
    outcome = session.run()
    assert set(outcome.names.values()) == {"passed"}
    assert "Warning" not in outcome.out
    assert sorted(leg["nodeid"].partition("::")[2] for leg in outcome.legs.values()) == [
        "test_marked[fork]",
        "test_marked[spawn]",
        "test_override[fork]",
        "test_override[forkserver]",
        "test_override[spawn]",
        "test_unrequested[spawn]",
    ]


LEFT_OUT = {
    "fixture": (
        """
        import pytest

        @pytest.fixture
        def start_method(): return "own"
        @pytest.mark.startmethods
        def test_a(start_method): pass
        @pytest.mark.startmethods
        def test_b(start_method): pass
        """,
        "test_a.py::test_a (and 1 more in this file) is marked startmethods and runs only once: another fixture "
        "named start_method ({path}:3) hides the plugin's; rename it",
    ),
    "value": (
        """
        import pytest

        @pytest.mark.startmethods
        @pytest.mark.parametrize("start_method", ["thread"])
        def test_a(start_method): pass
        """,
        "test_a.py::test_a[thread] is marked startmethods and runs only once: its own parameter start_method is not "
        "one of fork, spawn, forkserver",
    ),
    "no value": (
        """
        import pytest

        @pytest.mark.startmethods
        @pytest.mark.parametrize("start_method", [None, "spawn"])
        def test_a(start_method): pass
        """,
        "test_a.py::test_a[None] is marked startmethods and runs only once: its own parameter start_method is not one "
        "of fork, spawn, forkserver",
    ),
    "doctest": (
        '''
        import pytest

        pytestmark = pytest.mark.startmethods

        def function():
            """
            >>> 1
            1
            """
        ''',
        "test_a.py::test_a.function is marked startmethods and runs only once: legs are made of test functions, and "
        "this is of type DoctestItem",
    ),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_marked_thing_that_cannot_be_legs_is_said_aloud(session, kind):
    """There is one warning per reason and file, and the test runs as before."""
    source, message = LEFT_OUT[kind]
    session.file(test_a=source)
    outcome = session.run("--doctest-modules")
    message = message.format(path=session.path / "test_a.py")
    assert sum(f"StartMethodWarning: {message}" in line for line in outcome.lines) == 1
    assert set(outcome.results.values()) == {"passed"}
    assert outcome.status == 0


def test_a_marked_item_without_a_line_is_said_aloud(session):
    """Items of other plugins may have no line number."""
    session.file(
        conftest="""
        import pytest

        class Item(pytest.Item):
            def runtest(self): pass

        class File(pytest.File):
            def collect(self):
                item = Item.from_parent(self, name="query")
                item.add_marker(pytest.mark.startmethods)
                return [item]

        def pytest_collect_file(file_path, parent):
            return File.from_parent(parent, path=file_path) if file_path.suffix == ".sql" else None
        """
    ).file("test_a.sql", "")
    outcome = session.run()
    assert (
        "test_a.sql:1: StartMethodWarning: test_a.sql::query is marked startmethods and runs only once: legs are made "
        "of test functions, and this is of type Item"
    ) in outcome.out
    assert outcome.results == {"test_a.sql::query": "passed"}
    assert outcome.status == 0


def test_a_marker_that_comes_after_collection_is_said_aloud(session):
    """In ``pytest_collection_modifyitems`` it is too late to turn one item into three."""
    session.file(
        conftest="""
        import pytest

        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.startmethods)
        """,
        test_a="def test_a(): pass",
    )
    assert (
        "StartMethodWarning: test_a.py::test_a is marked startmethods and runs only once: the marker was added too "
        "late, when the test had been collected"
    ) in session.run().out


def test_a_late_marker_that_cannot_be_meant_is_a_usage_error(session):
    """Collection is over, so the error cannot be attributed to a file."""
    session.file(
        conftest="""
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.startmethods("sporn"))
        """,
        test_a="def test_a(start_method): pass",
    )
    outcome = session.run()
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert (
        "ERROR: test_a.py::test_a[fork]: @pytest.mark.startmethods: 'sporn' is not a start method "
        "(valid: fork, spawn, forkserver)"
    ) in outcome.lines


def test_a_doctest_with_an_autouse_fixture_that_requests_us(session):
    """A doctest cannot become legs: it runs once, and a warning names it."""
    session.file(
        conftest="""
        import pytest

        @pytest.fixture(autouse=True)
        def always(start_method): pass
        """,
    ).file("module.txt", ">>> 1\n1\n")
    outcome = session.platform("fork", "spawn").run("module.txt")
    assert outcome.results == {"module.txt::module.txt": "passed"}
    assert "StartMethodWarning: module.txt::module.txt asks for start_method at run time" in outcome.out


def test_what_is_left_out_is_a_usage_error_where_warnings_are_errors(session):
    """It is one line and exit status 4, without a traceback."""
    outcome = session.file(test_a=LEFT_OUT["value"][0]).run("-W", "error")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: " + LEFT_OUT["value"][1] in outcome.lines
    assert "INTERNALERROR" not in outcome.out


@pytest.mark.parametrize(
    ("args", "ran"),
    [
        (["test_a.py::test_a"], ["test_a[fork]", "test_a[spawn]", "test_a[forkserver]"]),
        (["test_a.py::test_a[spawn]"], ["test_a[spawn]"]),
        (["-k", "spawn"], ["test_a[spawn]"]),
        (["-m", "startmethods", "-k", "not spawn"], ["test_a[fork]", "test_a[forkserver]"]),
        (["-m", "not startmethods"], ["test_plain"]),
    ],
)
def test_legs_are_selected_as_any_test_is(session, args, ran):
    """Legs can be selected by node id, ``-k`` and ``-m``."""
    outcome = session.file(test_a=MARKED).run(*args)
    assert list(outcome.names) == ran


def test_last_failed_runs_the_failed_leg(session):
    """The cache stores legs by node id."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods
        def test_a(start_method): assert start_method != "spawn"
        """
    )
    session.run("--ff")
    assert list(session.run("--lf").names) == ["test_a[spawn]"]


@pytest.mark.own_interpreter
def test_collect_only_starts_and_loads_nothing(session):
    """It neither starts a process nor imports the modules that run legs."""
    session.file(
        conftest="""
        import sys

        def pytest_unconfigure(config):
            rooms = ("activation", "launches", "pickling", "state", "causes", "experiments", "session.running")
            print("loaded:", [room for room in rooms if f"pytest_startmethod.{room}" in sys.modules])
            print("forkserver:", "multiprocessing.forkserver" in sys.modules, "cloudpickle" in sys.modules)
        """,
        test_a=MARKED,
    )
    outcome = session.run("--collect-only", "-q")
    assert outcome.lines[:4] == [
        "test_a.py::test_a[fork]",
        "test_a.py::test_a[spawn]",
        "test_a.py::test_a[forkserver]",
        "test_a.py::test_plain",
    ]
    assert "loaded: []" in outcome.lines
    assert "forkserver: False False" in outcome.lines


def test_strict_settings_accept_us(session):
    """``--strict-markers`` and ``--strict-config`` accept the marker and the ini keys."""
    session.file(test_a=MARKED).ini(start_methods="fork", start_methods_precheck="off", start_methods_vacuous="ignore")
    outcome = session.run("--strict-markers", "--strict-config", "-W", "error")
    assert outcome.names == {"test_a[fork]": "passed", "test_plain": "passed"}


@pytest.mark.own_interpreter
def test_installed_and_unused_is_silent(session):
    """The output does not mention us, and we import neither multiprocessing nor cloudpickle."""
    session.file(
        test_a="""
        import sys

        def test_a():
            print("imported:", "multiprocessing.context" in sys.modules, "cloudpickle" in sys.modules)
        """
    )
    outcome = session.run("-rA", "-v")
    assert outcome.status == 0
    for word in ("startmethod", "start method", "start_method"):
        assert word not in "\n".join(line for line in outcome.lines if "pytest_startmethod.plugin" not in line).lower()
    assert "imported: False False" in outcome.lines


def test_the_plugin_can_be_left_out(session):
    """``-p no:startmethod`` disables the plugin by the name of its entry point."""
    session.plugins = []
    session.file(test_a="def test_a(): pass")
    metadata = "pytest_startmethod-0.1.0.dist-info"
    session.file(f"{metadata}/METADATA", "Name: pytest-startmethod\nVersion: 0.1.0\n")
    session.file(f"{metadata}/entry_points.txt", "[pytest11]\nstartmethod = pytest_startmethod.plugin\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
        assert session.run("--start-methods=spawn").status == 0
        outcome = session.run("--start-methods=spawn", "-p", "no:startmethod")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "unrecognized arguments: --start-methods=spawn" in outcome.out
