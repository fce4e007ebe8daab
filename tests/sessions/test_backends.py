"""multiprocess and billiard have start methods of their own, with legs like those of multiprocessing."""

from __future__ import annotations

import importlib.util
import multiprocessing
import re

import pytest

from pytest_startmethod.model import methods as selection
from pytest_startmethod.model.leg_result import LegResult
from pytest_startmethod.report.verdicts import verdict
from pytest_startmethod.session.settings import Named, SettingsError, parse_marker

METHODS = multiprocessing.get_all_start_methods()
all_methods = pytest.mark.skipif(len(METHODS) < 3, reason="needs all three methods")

pytestmark = pytest.mark.own_interpreter  # billiard cannot be imported twice


@pytest.fixture(params=["multiprocess", "billiard"])
def package(request):
    pytest.importorskip(request.param)
    return request.param


# Apart from the test modules: a child that imports one of these imports pytest.
WORK = """
    import signal
    import time

    def work():
        pass

    def put(queue, number):
        queue.put(number)

    def fail():
        raise OSError("no database")

    def stay(queue):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        queue.put(1)
        while True:
            time.sleep(60)
"""


def names():
    return ("multiprocess", "billiard")


# -- names -------------------------------------------------------------------------------------------------------------


def test_order():
    """First come multiprocessing's, then each package's in the usual order; unknown packages are last."""
    methods = ["x:fork", "billiard:spawn", "multiprocess:forkserver", "multiprocess:fork", "spawn", "fork", "spawn"]
    assert selection.in_order(methods) == [
        "fork",
        "spawn",
        "multiprocess:fork",
        "multiprocess:forkserver",
        "billiard:spawn",
        "x:fork",
    ]


def test_parse():
    """A list may mix packages; `all` means multiprocessing's three methods."""
    assert selection.parse("billiard:spawn, multiprocess:fork,spawn", names) == "spawn,multiprocess:fork,billiard:spawn"
    assert selection.selected("spawn,multiprocess:fork") == ("spawn", "multiprocess:fork")
    assert not any(":" in method for method in selection.selected("all"))


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("dill:spawn", "'dill:spawn': 'dill' is not a backend (there are: multiprocess, billiard)"),
        ("multiprocess:fast", "'multiprocess:fast': 'fast' is not a start method"),
        ("multiprocess", "'multiprocess' is not a start method"),
    ],
)
def test_parse_names_what_is_wrong(word, problem):
    """The message names the word, the problem and the valid words."""
    with pytest.raises(ValueError, match=f"^{re.escape(problem)} "):
        selection.parse(f"spawn,{word}", names)
    with pytest.raises(SettingsError, match=f"^{re.escape(problem)} "):
        parse_marker((word,), {}, names)


def test_marker():
    """The marker accepts methods of packages like others."""
    assert parse_marker(("billiard:spawn",), {}, names).methods == (Named("billiard:spawn"),)


def test_verdict():
    """A test that passes only under the fork methods, of any package, needs fork."""

    def leg(method, outcome):
        return LegResult(f"t[{method}]", "t", method, "t.py", 1, outcome)

    legs = {
        m: leg(m, "passed" if m.endswith("fork") else "failed") for m in ("fork", "multiprocess:fork", "billiard:spawn")
    }
    assert verdict(legs) == "needs-fork"
    assert verdict({**legs, "spawn": leg("spawn", "passed")}) == "fails under billiard:spawn only"


# -- legs --------------------------------------------------------------------------------------------------------------

LEGS = """
import multiprocessing
import PACKAGE
import pytest
from work import put


@pytest.mark.startmethods("PACKAGE:fork", "PACKAGE:spawn", "PACKAGE:forkserver", "spawn")
def test_a(mp_context, start_method):
    package = PACKAGE if type(mp_context).__module__ == "PACKAGE.context" else multiprocessing
    assert package.get_start_method() == start_method == mp_context.get_start_method()
    queue = package.SimpleQueue()
    process = package.Process(target=put, args=(queue, 3))
    process.start()
    assert queue.get() == 3
    process.join()
    assert process.exitcode == 0


def test_afterwards():
    assert type(PACKAGE.context._default_context) is PACKAGE.context.DefaultContext
    assert PACKAGE.process.BaseProcess.start.__qualname__ == "BaseProcess.start"
    assert PACKAGE.context._default_context._actual_context is None
"""


@all_methods
def test_legs(session, package):
    """The package's default context has the leg's method, `mp_context` is the package's, launches are recorded."""
    out = session.file(work=WORK, test_a=LEGS.replace("PACKAGE", package)).run()
    assert out.names == {
        "test_a[spawn]": "passed",
        f"test_a[{package}:fork]": "passed",
        f"test_a[{package}:spawn]": "passed",
        f"test_a[{package}:forkserver]": "passed",
        "test_afterwards": "passed",
    }
    lines = out.lines
    at = next(n for n, line in enumerate(lines) if line.startswith("spawn  "))
    width = len(f"{package}:forkserver")
    assert lines[at - 1 : at + 5] == [
        f"{'':{width}}   passed",
        f"{'spawn':{width}}        1",
        f"{package + ':fork':{width}}        1",
        f"{package + ':spawn':{width}}        1",
        f"{package + ':forkserver':{width}}        1",
        "1 test passes everywhere",
    ]


@all_methods
def test_selection(session, package):
    """`all` neither removes nor adds methods of a marker; a list selects among them."""
    session.file(
        test_a=f"""
        import pytest

        @pytest.mark.startmethods(vacuous="ignore")
        def test_a(): pass

        @pytest.mark.startmethods("fork", "{package}:spawn", vacuous="ignore")
        def test_b(): pass
        """
    )
    assert list(session.run("--start-methods=all").names) == [
        "test_a[fork]",
        "test_a[spawn]",
        "test_a[forkserver]",
        "test_b[fork]",
        f"test_b[{package}:spawn]",
    ]
    assert list(session.run(f"--start-methods={package}:spawn").names) == [
        f"test_a[{package}:spawn]",
        f"test_b[{package}:spawn]",
    ]
    assert session.ini(start_methods=f"{package}:fork").run("-k", "not test_b").names == {
        f"test_a[{package}:fork]": "passed"
    }


@all_methods
def test_testcase_and_fixture_of_wider_scope(session, package):
    """A TestCase has one class per method; a module's fixture is built once per method, with the right package."""
    out = session.file(
        work=WORK,
        test_a=f"""
        import unittest

        import {package}
        import pytest
        from work import work


        @pytest.fixture(scope="module")
        def built(mp_context):
            print("BUILT", type(mp_context).__module__, mp_context.get_start_method())
            return mp_context


        @pytest.mark.startmethods("spawn", "{package}:spawn", vacuous="ignore")
        def test_a(built):
            pass


        @pytest.mark.startmethods("spawn", "{package}:spawn", vacuous="ignore")
        def test_b(built):
            pass


        @pytest.mark.startmethods("{package}:fork", "{package}:spawn")
        class TestC(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                print("CLASS", {package}.get_start_method())

            def test_c(self):
                process = {package}.Process(target=work)
                process.start()
                process.join()
        """,
    ).run("-s")
    assert set(out.names.values()) == {"passed"}
    assert list(out.names)[-2:] == [f"TestC::test_c[{package}:fork]", f"TestC::test_c[{package}:spawn]"]
    assert re.findall(r"(?:BUILT|CLASS) .*", out.out) == [
        "BUILT multiprocessing.context spawn",
        f"BUILT {package}.context spawn",
        "CLASS fork",
        "CLASS spawn",
    ]


# -- pickling ----------------------------------------------------------------------------------------------------------

CLOSURE = """
import PACKAGE
import pytest


@pytest.mark.startmethods("PACKAGE:fork", "PACKAGE:spawn", "PACKAGE:forkserver")
def test_closure():
    factor = 3
    lock = PACKAGE.Lock()

    def work(queue):
        with lock:
            queue.put(factor * 2)

    queue = PACKAGE.SimpleQueue()
    process = PACKAGE.Process(target=work, args=(queue,))
    process.start()
    process.join()
    assert (process.exitcode, queue.get()) == (0, 6)
"""


@all_methods
def test_dill_takes_closures_along(session):
    """With a closure, the multiprocess:spawn leg passes and the fork leg predicts no failure."""
    pytest.importorskip("multiprocess")
    try:
        pytest.importorskip("dill").dumps(lambda: None)
    except AttributeError as error:  # dill 0.4.1 on Python 3.15: no `co_lnotab`
        pytest.skip(f"dill itself pickles no lambda here: {error}")
    out = session.file(test_a=CLOSURE.replace("PACKAGE", "multiprocess")).run()
    assert set(out.names.values()) == {"passed"}
    assert "SM" not in out.out.partition("= start methods =")[2]


@all_methods
def test_billiard_does_not(session):
    """Its pickler is CPython's: SM101 under spawn and forkserver, as predicted."""
    pytest.importorskip("billiard")
    out = session.file(test_a=CLOSURE.replace("PACKAGE", "billiard")).run()
    assert out.names == {
        "test_closure[billiard:fork]": "passed",
        "test_closure[billiard:spawn]": "failed",
        "test_closure[billiard:forkserver]": "failed",
    }
    at = out.lines.index("SM101 local-function, 1 test needs fork")
    assert out.lines[at - 3 : at - 1] == ["billiard:forkserver        -        1", "1 test needs fork"]
    assert out.lines[at + 1] == "  test_a.py:10: target"
    assert "predicted" not in out.out


def test_what_dill_cannot_pickle_is_found_in_the_closure(session):
    """The finding, or prediction, is about the captured object, not the lambda, which is sent by value."""
    pytest.importorskip("multiprocess")
    session.file(
        test_a="""
        import multiprocess
        import pytest


        @pytest.mark.startmethods("multiprocess:fork", "multiprocess:spawn")
        def test_a():
            numbers = (n for n in range(3))
            process = multiprocess.Process(target=lambda: list(numbers))
            process.start()
            process.join()
        """
    )
    out = session.run("-k", "spawn")
    at = out.lines.index("--------------------------- SM103 unpicklable-object ---------------------------")
    assert out.lines[at + 1 : at + 6] == [
        "  test_a.py:7",
        "  7 | numbers = (n for n in range(3))",
        "    | ^^^^^^^ target.numbers",
        "  `target.numbers` is a generator, which cannot be shared with another process:",
        "  TypeError: cannot pickle 'generator' object.",
    ]
    assert "SM101" not in out.out
    assert "dill" not in "".join(line for line in out.lines if line.startswith("test_a.py") or ".py:" in line)
    if "fork" in METHODS:
        out = session.run("-k", "fork")
        assert "SM103 unpicklable-object, predicted for spawn and forkserver: 1 test" in out.lines
        assert "  test_a.py:7: target.numbers" in out.lines


# -- what is recorded --------------------------------------------------------------------------------------------------


@all_methods
def test_what_a_child_raised(session, package):
    """Children of the package report like multiprocessing's, under each method."""
    out = session.file(
        work=WORK,
        test_a=f"""
        import {package}
        import pytest
        from work import fail


        @pytest.mark.startmethods("{package}:fork", "{package}:spawn", "{package}:forkserver")
        def test_a():
            process = {package}.Process(target=fail)
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
    ).run()
    for method in ("fork", "spawn", "forkserver"):
        title = f" start method {package}:{method}: in the child "
        at = next(n for n, line in enumerate(out.lines) if title in line)
        assert re.fullmatch(rf"Process-\S+ \(pid \d+, {method}\) raised:", out.lines[at + 1])
        assert out.lines[at + 2 : at + 5] == [
            "  work.py:11 in fail",
            '    raise OSError("no database")',
            "  OSError: no database",
        ]


@all_methods
def test_vacuous(session, package):
    """A leg of the package is vacuous if it started only multiprocessing processes or none."""
    out = session.file(
        work=WORK,
        test_a=f"""
        import multiprocessing

        import {package}
        import pytest
        from work import work


        @pytest.mark.startmethods("{package}:spawn")
        @pytest.mark.parametrize("module", [multiprocessing, {package}.get_context("fork"), {package}, None])
        def test_a(module):
            if module is not None:
                process = module.Process(target=work)
                process.start()
                process.join()
        """,
    ).run("--start-methods-vacuous=fail")
    assert list(out.names.values()) == ["failed", "failed", "passed", "failed"]
    texts = [" ".join(text.split()) for text in out.reasons.values()]
    default = multiprocessing.get_all_start_methods()[0]
    assert texts[0] == (
        f"vacuous: started 1 process of multiprocessing with {default} at test_a.py:13 (SM502) "
        "fix: take the context from the mp_context fixture, or let the code accept one"
    )
    assert texts[1] == (
        f"vacuous: started 1 process with {package}:fork at test_a.py:13 (SM502) "
        "fix: take the context from the mp_context fixture, or let the code accept one"
    )
    assert texts[3].startswith("vacuous: started no process (SM501)")


@all_methods
def test_pool(session, package):
    """A pool's workers and tasks are recorded, and nothing remains afterwards."""
    out = session.file(
        test_a=f"""
        import {package}
        import pytest


        @pytest.mark.startmethods("{package}:fork", "{package}:spawn", "{package}:forkserver")
        def test_a():
            with {package}.Pool(2) as pool:
                assert pool.map(abs, [-1, 2]) == [1, 2]
                assert pool.apply(abs, (-3,)) == 3
                assert list(pool.imap(abs, [-1])) == [1]
        """
    ).run("-s")
    assert set(out.names.values()) == {"passed"}
    assert any(line.startswith("1 test passes") for line in out.lines)
    assert "pytest-startmethod:" not in out.out


def test_leftover_is_ended(session, package):
    """A process that outlives its leg is named and ended, although billiard has no `kill`."""
    out = session.file(
        work=WORK,
        test_a=f"""
        import {package}
        import pytest
        from work import stay


        @pytest.mark.startmethods("{package}:spawn")
        def test_a():
            queue = {package}.SimpleQueue()
            {package}.Process(target=stay, args=(queue,)).start()
            queue.get()
        """,
    ).run()
    assert out.names == {f"test_a[{package}:spawn]": "passed"}
    text = " ".join(" ".join(out.lines).split())
    assert re.search(
        rf"child \d+ \(work.stay, started at test_a.py:9\) outlived test_a.py::test_a\[{package}:spawn\] and was",
        text,
    )


# -- missing packages --------------------------------------------------------------------------------------------------

MISSING = """
import importlib.util

original = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "billiard" else original(name, package)
"""


def test_package_that_is_not_installed(session):
    """On the command line or in the ini file it is one line and exit status 4; in a marker it skips the leg."""
    session.file(
        missing=MISSING,
        test_a="""
        import pytest

        @pytest.mark.startmethods("spawn", "billiard:spawn", vacuous="ignore")
        def test_a(): pass
        """,
    ).plugin("missing")
    reason = "start method billiard:spawn needs the package billiard, which is not installed"
    out = session.run("--start-methods=billiard:spawn")
    assert out.status == 4
    assert [line for line in out.lines if "billiard" in line] == [f"ERROR: --start-methods: {reason}"]
    out = session.run()
    assert out.names == {"test_a[spawn]": "passed", "test_a[billiard:spawn]": "skipped"}
    assert reason in out.reasons["test_a.py::test_a[billiard:spawn]"]
    out = session.ini(start_methods="billiard:spawn").run()
    assert (out.status, f"ERROR: ini key start_methods: {reason}" in out.lines) == (4, True)


def test_unknown_backend(session):
    """It is one line on the command line, and for a marker a collection error that names the test."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods("dill:spawn")
        def test_a(): pass
        """
    )
    problem = "'dill:spawn': 'dill' is not a backend (there are: multiprocess, billiard)"
    out = session.run("--start-methods=fork,dill:spawn", where="in-process")
    assert out.status == 4
    assert f"ERROR: --start-methods: {problem} (valid: all, default, or a list of fork, spawn, forkserver)" in out.lines
    out = session.run(where="in-process")
    assert out.status == 2
    assert f"test_a.py::test_a: @pytest.mark.startmethods: {problem} (valid: fork, spawn, forkserver)" in out.out


def test_the_packages_are_here():
    """The tests above do run: both packages can be installed on every supported interpreter."""
    assert importlib.util.find_spec("multiprocess") is not None
    assert importlib.util.find_spec("billiard") is not None
