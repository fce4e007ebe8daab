"""``unittest.TestCase``: each method has a class of its own, set up once."""

from __future__ import annotations

import pytest

CASE = """
    import unittest
    import pytest

    LOG = []

    @pytest.mark.startmethods("fork", "spawn")
    class TestA(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            LOG.append("setUpClass")
            cls.shared = object()

        @classmethod
        def tearDownClass(cls):
            LOG.append("tearDownClass")

        def setUp(self):
            LOG.append("setUp " + self._testMethodName)

        def test_a(self):
            assert self.id().endswith("TestA.test_a")

        def test_b(self):
            assert self.shared

    def test_log():
        print("log:", LOG)
"""


def test_the_class_is_set_up_once_per_method(session, where):
    """The tests of a method run together, under their names in the class."""
    session.file(test_a=CASE)
    outcome = session.run("-s", *(["--dist=loadfile"] if where == "xdist" else []), where=where)
    assert list(outcome.names) == [
        "TestA::test_a[fork]",
        "TestA::test_b[fork]",
        "TestA::test_a[spawn]",
        "TestA::test_b[spawn]",
        "test_log",
    ]
    assert set(outcome.names.values()) == {"passed"}
    once = ["setUpClass", "setUp test_a", "setUp test_b", "tearDownClass"]
    if where != "xdist":
        assert f"log: {once * 2}" in outcome.out
        assert set(outcome.kinds.values()) == {"TestCaseFunction", "Function"}


@pytest.mark.parametrize(
    ("args", "ran"),
    [
        (["test_a.py::TestA::test_a"], ["test_a[fork]", "test_a[spawn]"]),
        (["test_a.py::TestA::test_a[spawn]"], ["test_a[spawn]"]),
        (["test_a.py::TestA"], ["test_a[fork]", "test_b[fork]", "test_a[spawn]", "test_b[spawn]"]),
        (["-k", "test_b and spawn"], ["test_b[spawn]"]),
        (["-m", "startmethods", "-k", "fork"], ["test_a[fork]", "test_b[fork]"]),
    ],
)
def test_legs_are_selected_as_any_test_is(session, args, ran):
    """Legs can be selected by node id with or without the method, ``-k`` and ``-m``."""
    assert list(session.file(test_a=CASE).run(*args).names) == [f"TestA::{name}" for name in ran]


def test_last_failed_runs_the_failed_leg(session):
    """The cache stores legs by node id."""
    session.file(
        test_a="""
        import multiprocessing, unittest, pytest

        @pytest.mark.startmethods
        class TestA(unittest.TestCase):
            def test_a(self):
                self.assertNotEqual(multiprocessing.get_start_method(), "spawn")
        """
    )
    session.run("--ff")
    assert session.run("--lf").names == {"TestA::test_a[spawn]": "failed"}


def test_single_marked_methods_in_an_unmarked_class(session):
    """The other tests run once as usual, and the tree shows one class per method."""
    session.file(
        test_a="""
        import multiprocessing, unittest, pytest

        class TestA(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.method = multiprocessing.get_start_method()
                print("setUpClass", cls.method)

            def test_a(self):
                self.assertNotIn("[", self.node.name)

            @pytest.fixture(autouse=True)
            def _node(self, request):
                self.node = request.node

            @pytest.mark.startmethods("spawn", pytest.param("fork", id="slow"), timeout=9)
            def test_b(self):
                self.assertIn(self.method, ("fork", "spawn"))

            @pytest.mark.startmethods("spawn")
            def test_c(self):
                self.assertEqual(self.method, "spawn")
        """
    )
    outcome = session.run("-s", "-W", "error")
    assert outcome.names == dict.fromkeys(
        ["TestA::test_a", "TestA::test_b[slow]", "TestA::test_b[spawn]", "TestA::test_c[spawn]"], "passed"
    )
    assert [line.split()[-1] for line in outcome.lines if "setUpClass" in line][1:] == ["fork", "spawn"]
    assert outcome.out.count("setUpClass") == 3
    leg = outcome.legs["test_a.py::TestA::test_b[slow]"]
    assert (leg["test"], leg["method"], leg["timeout"], leg["line"]) == ("test_a.py::TestA::test_b", "fork", 9.0, 16)
    tree = [line.strip() for line in session.run("--collect-only").lines if line.lstrip().startswith("<")]
    assert tree[2:] == [
        "<UnitTestCase TestA>",
        "<TestCaseFunction test_a>",
        "<UnitTestCase TestA>",
        "<TestCaseFunction test_b[slow]>",
        "<UnitTestCase TestA>",
        "<TestCaseFunction test_b[spawn]>",
        "<TestCaseFunction test_c[spawn]>",
    ]


def test_subtests_and_skips_and_expected_failures(session):
    """They have their usual meaning in a leg."""
    session.file(
        test_a="""
        import unittest, pytest

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        class TestA(unittest.TestCase):
            def test_subtests(self):
                for i in range(3):
                    with self.subTest(i=i):
                        self.assertNotEqual(i, 1)

            @unittest.skip("decorated")
            def test_skip(self): raise AssertionError

            def test_skip_inside(self): self.skipTest("inside")

            def test_raise(self): raise unittest.SkipTest("raised")

            @unittest.expectedFailure
            def test_expected(self): self.fail()

            @pytest.mark.xfail(reason="known")
            def test_xfail(self): self.fail()

            @pytest.mark.skip(reason="marked")
            def test_mark(self): raise AssertionError

            def test_fails(self): self.fail("plainly")

        @unittest.skip("class")
        class TestB(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise AssertionError
            def test_b(self): raise AssertionError

        class TestC(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise unittest.SkipTest("in setUpClass")
            def test_c(self): raise AssertionError
        """
    )
    outcome = session.run()
    for method in ("fork", "spawn"):
        found = {
            nodeid.partition("::")[2].partition("[")[0]: (outcome.results[nodeid], outcome.reasons[nodeid])
            for nodeid in outcome.results
            if nodeid.endswith(f"[{method}]")
        }
        assert found.pop("TestA::test_fails")[0] == "failed"
        assert found.pop("TestA::test_subtests")[0] in ("failed", "passed")
        assert found.pop("TestA::test_expected")[0] == "xfailed"
        assert found.pop("TestA::test_xfail")[0] == "xfailed"
        assert found == {
            "TestA::test_skip": ("skipped", "decorated"),
            "TestA::test_skip_inside": ("skipped", "inside"),
            "TestA::test_raise": ("skipped", "raised"),
            "TestA::test_mark": ("skipped", "marked"),
            "TestB::test_b": ("skipped", "class"),
            "TestC::test_c": ("skipped", "in setUpClass"),
        }
    assert outcome.out.count("AssertionError: 1 == 1") >= 2


def test_a_subtest_that_passes_says_nothing_of_the_leg(session):
    """A leg is vacuous if it started no process by its end, whatever its subtests had started by theirs."""
    session.file(
        test_a="""
        import multiprocessing, unittest, pytest

        @pytest.mark.startmethods("spawn")
        class TestA(unittest.TestCase):
            def test_starts(self):
                with self.subTest("before"):
                    pass
                process = multiprocessing.Process(target=print)
                process.start()
                process.join()

            def test_never(self):
                with self.subTest("nothing"):
                    pass
        """
    )
    outcome = session.run("--start-methods-vacuous=fail")
    assert outcome.names == {"TestA::test_starts[spawn]": "passed", "TestA::test_never[spawn]": "failed"}
    assert "vacuous: started no process (SM501)" in outcome.out


def test_inheritance(session):
    """A method inherited by a marked and an unmarked class is marked only in the former; the closest marker counts."""
    session.file(
        test_a="""
        import unittest, pytest

        class Base(unittest.TestCase):
            __test__ = False
            def test_a(self): pass

            @pytest.mark.startmethods("forkserver")
            def test_b(self): pass

        class TestPlain(Base):
            __test__ = True

        @pytest.mark.startmethods("spawn")
        class TestMarked(Base):
            __test__ = True

        @pytest.mark.startmethods("fork")
        class TestCloser(TestMarked):
            pass
        """
    )
    assert session.run("-W", "error").names == dict.fromkeys(
        [
            "TestPlain::test_a",
            "TestPlain::test_b[forkserver]",
            "TestMarked::test_a[spawn]",
            "TestMarked::test_b[forkserver]",
            "TestCloser::test_a[fork]",
            "TestCloser::test_b[forkserver]",
        ],
        "passed",
    )


def test_isolated_asyncio_test_case(session):
    """Its coroutines are run by unittest."""
    session.file(
        test_a="""
        import asyncio, multiprocessing, unittest, pytest

        @pytest.mark.startmethods
        class TestA(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.method = multiprocessing.get_start_method()

            async def test_a(self):
                await asyncio.sleep(0)
                self.assertIn(f"[{self.method}]", self.node.name)

            @pytest.fixture(autouse=True)
            def _node(self, request):
                self.node = request.node
        """
    )
    outcome = session.run("-W", "error")
    assert outcome.names == {f"TestA::test_a[{method}]": "passed" for method in ("fork", "spawn", "forkserver")}


def test_fixtures_reach_test_cases(session):
    """They work by autouse and ``usefixtures`` in any scope; a fixture that needs ``mp_context`` opts its tests in."""
    session.file(
        test_a="""
        import unittest, pytest

        BUILT = []

        @pytest.fixture(scope="class")
        def server(request, mp_context):
            BUILT.append(mp_context.get_start_method())
            request.cls.server = mp_context

        @pytest.mark.usefixtures("server")
        class TestA(unittest.TestCase):
            def test_a(self): self.assertEqual(self.server.get_start_method(), BUILT[-1])
            def test_b(self): self.assertEqual(self.server.get_start_method(), BUILT[-1])

        class TestB(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _context(self, mp_context):
                self.context = mp_context

            def test_c(self): self.assertTrue(self.context)

        class TestC(unittest.TestCase):
            def test_d(self): self.assertEqual(BUILT, ["fork", "spawn"])
        """
    )
    outcome = session.run("--start-methods=fork,spawn", "-W", "error")
    assert outcome.names == dict.fromkeys(
        [
            "TestA::test_a[fork]",
            "TestA::test_b[fork]",
            "TestA::test_a[spawn]",
            "TestA::test_b[spawn]",
            "TestB::test_c[fork]",
            "TestB::test_c[spawn]",
            "TestC::test_d",
        ],
        "passed",
    )


def test_run_test_alone(session):
    """A class may have ``runTest`` as its only test."""
    session.file(
        test_a="""
        import unittest, pytest

        @pytest.mark.startmethods("spawn")
        class TestA(unittest.TestCase):
            def runTest(self): pass
        """
    )
    assert session.run().names == {"TestA::runTest[spawn]": "passed"}


def test_what_wraps_the_items_function_is_what_runs(session):
    """Plugins replace ``item.obj``, as pytest does for ``--trace``."""
    session.file(
        conftest="""
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_call(item):
            function = item.obj
            def wrapped():
                print("wrapped", item.name)
                function()
            item.obj = wrapped
        """,
        test_a=CASE,
    )
    outcome = session.run("-s", "-k", "test_a")
    assert outcome.names["TestA::test_a[fork]"] == "passed"
    assert "wrapped test_a[fork]" in outcome.out
    assert "wrapped test_a[spawn]" in outcome.out


def test_trace_stops_in_the_leg(session):
    """``--trace`` opens the debugger at the start of the method."""
    session.file(test_a=CASE)
    child = session.pytester.run(
        *session.pytester._getpytestargs(),
        "-p",
        "pytest_startmethod.plugin",
        "--trace",
        "test_a.py::TestA::test_a[fork]",
        stdin=b"where\nc\n",
    )
    assert "runcall" in str(child.stdout)
    assert "PDB runcall (IO-capturing turned off)" in str(child.stdout)
    child.assert_outcomes(passed=1)


def test_an_unmarked_class_is_left_as_it_is(session):
    """The collected nodes are pytest's own, and the class is set up once."""
    session.file(test_a=CASE.replace('@pytest.mark.startmethods("fork", "spawn")', ""))
    outcome = session.run("-s")
    assert list(outcome.names) == ["TestA::test_a", "TestA::test_b", "test_log"]
    assert f"log: {['setUpClass', 'setUp test_a', 'setUp test_b', 'tearDownClass']}" in outcome.out


def test_fixtures_are_listed(session):
    outcome = session.file(test_a=CASE).run("--fixtures", where="subprocess")
    assert "INTERNALERROR" not in outcome.out
    assert outcome.out.count("start_method [session scope]") == 1
