"""An item is re-run after the session as if nothing had run before, and is restored afterwards."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from conftest import Session, Where

AGAIN = """
    import json
    import os
    import sys

    import pytest

    from pytest_startmethod._compat import pytest as pytest_compat
    from pytest_startmethod.model.leg import Leg
    from pytest_startmethod.session import again

    SILENT = os.environ["AGAIN"] == "silent"


    class Again:
        def __init__(self):
            self.before = {}
            self.reports = []

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_protocol(self, item):
            self.before.setdefault(item, pytest_compat.item_state(item))
            return (yield)

        def pytest_runtest_logreport(self, report):
            if report.nodeid.endswith(("[again]", "[again-1]")):
                self.reports.append(report)

        @pytest.hookimpl(wrapper=True, trylast=True)
        def pytest_runtestloop(self, session):
            result = yield
            items = list(self.before)
            for number, item in enumerate(items):
                self.run(item, items[number + 1] if number + 1 < len(items) else None)
            return result

        def run(self, item, nextitem):
            end = "[1]" if item.nodeid.endswith("[1]") else ""
            nodeid = item.nodeid.removesuffix(end) + ("[again-1]" if end else "[again]")
            def seen():
                rest = {k: v for k, v in item.__dict__.items() if k not in ("_obj", "_instance")}
                return (item.nodeid, item.location, item.name, rest, len(item.stash))

            before = (item.location, seen())
            leg = Leg(nodeid, item.nodeid, "none", item.location[0], 1, "ignore", None)
            if SILENT:
                reports = again.run_silently(item, leg, self.before[item], {})
            else:
                self.reports.clear()
                again.run(item, leg, self.before[item], nextitem=nextitem)
                reports = self.reports
            after = (item.location, seen())
            with open(os.environ["AGAIN_RECORD"], "a") as file:
                entry = {
                    "nodeid": reports[0].nodeid if reports else None,
                    "outcomes": [f"{each.when} {each.outcome}" for each in reports],
                    "title": reports[0].head_line if reports else None,
                    "sections": [each.sections for each in reports][-1:],
                    "properties": [each.user_properties for each in reports][-1:],
                    "same": before == after,
                }
                print(json.dumps(entry), file=file)


    def pytest_collection_finish(session):
        session.config.pluginmanager.register(Again())
"""


class Runs:
    """A session after which every test runs once more."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch, *, silent: bool) -> None:
        self.session = session.file(again_plugin=AGAIN).plugin("again_plugin")
        self.silent = silent
        self.record = session.path.parent / f"{session.path.name}.again"
        monkeypatch.setenv("AGAIN", "silent" if silent else "aloud")
        monkeypatch.setenv("AGAIN_RECORD", str(self.record))

    def run(self, *args: object, where: Where = "in-process") -> Any:
        self.record.unlink(missing_ok=True)
        sys.modules.pop("again_plugin", None)
        outcome = self.session.run(*args, where=where)
        text = self.record.read_text(encoding="utf-8") if self.record.exists() else ""
        self.entries = [json.loads(line) for line in text.splitlines()]
        return outcome


@pytest.fixture(params=["silent", "aloud"])
def runs(request: pytest.FixtureRequest, session: Session, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(session, monkeypatch, silent=request.param == "silent")


PASSED = ["setup passed", "call passed", "teardown passed"]


FIXTURES = """
    import pytest

    made = []


    def fixture(scope):
        @pytest.fixture(scope=scope, name=scope, autouse=True)
        def make():
            made.append(f"+{scope}")
            yield
            made.append(f"-{scope}")

        return make


    for each in ("session", "package", "module", "class", "function"):
        globals()[f"fixture_{each}"] = fixture(each)


    class TestA:
        def test_a(self):
            made.append("test")

        def test_b(self):
            made.append("test")
"""


def test_wider_fixtures_are_made_as_seldom_as_pytest_would(runs: Runs) -> None:
    """They are built once for all visible runs and once per silent run, after the session has torn down its own."""
    runs.session.file("pkg/__init__.py", "").file("pkg/test_a.py", FIXTURES)
    runs.session.file(
        conftest="""
        import sys

        def pytest_unconfigure():
            print("MADE", sys.modules["pkg.test_a"].made)
        """
    )
    line = next(line for line in runs.run("-s").out.splitlines() if line.startswith("MADE "))
    made = json.loads(line.removeprefix("MADE ").replace("'", '"'))
    around = ["+session", "+package", "+module", "+class"]
    gone = ["-class", "-module", "-package", "-session"]
    test = ["+function", "test", "-function"]
    session = [*around, *test, *test, *gone]
    silent = [*around, *test, *gone]
    assert made == [*session, *(silent + silent if runs.silent else session)]


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): pass",
        "class TestA:\n    def test_a(self): assert not hasattr(self, 'x'); self.x = 1",
        "import unittest\n\nclass TestA(unittest.TestCase):\n"
        "    @classmethod\n    def setUpClass(cls): cls.up = True\n"
        "    @classmethod\n    def tearDownClass(cls): del cls.up\n"
        "    def test_a(self): assert self.up; assert not hasattr(self, 'x'); self.x = 1",
        "import unittest\n\nclass TestA(unittest.IsolatedAsyncioTestCase):\n    async def test_a(self): pass",
        "from hypothesis import given, strategies as st\n\n"
        "class TestA:\n    @given(st.integers())\n    def test_a(self, n): pass",
        "import unittest\nfrom hypothesis import given, strategies as st\n\n"
        "class TestA(unittest.TestCase):\n    @given(st.integers())\n    def test_a(self, n): pass",
        "import pytest\n\n@pytest.fixture(params=[1], scope='module')\ndef one(request): return request.param\n\n"
        "def test_a(one): assert one == 1",
    ],
    ids=["function", "method", "TestCase", "async TestCase", "hypothesis", "hypothesis TestCase", "parametrized"],
)
def test_every_kind_of_test_runs_again(runs: Runs, source: str) -> None:
    runs.session.file("test_it.py", source)
    outcome = runs.run()
    assert outcome.status == 0, outcome.out
    assert [entry["outcomes"] for entry in runs.entries] == [PASSED]
    assert runs.entries[0]["same"]
    assert runs.entries[0]["nodeid"].endswith("again-1]" if "params" in source else "test_a[again]")


@pytest.mark.parametrize("plugin", ["pytest_asyncio.plugin", "anyio.pytest_plugin"])
def test_async_tests_run_again(runs: Runs, plugin: str) -> None:
    mark = "asyncio" if "asyncio" in plugin else "anyio"
    runs.session.ini(asyncio_default_fixture_loop_scope="session") if mark == "asyncio" else None
    runs.session.plugin(plugin).file(
        test_it=f"""
        import pytest


        @pytest.fixture
        def anyio_backend():
            return "asyncio"


        @pytest.mark.{mark}
        async def test_a():
            pass
        """
    )
    outcome = runs.run(where="subprocess")
    assert outcome.status == 0, outcome.out
    assert [entry["outcomes"] for entry in runs.entries] == [PASSED]


def test_nothing_of_the_first_run_is_left_in_the_item(runs: Runs) -> None:
    runs.session.file(
        test_it="""
        import pytest


        def test_a(request, record_property):
            print("said")
            assert not hasattr(request.node, "mine")
            assert not request.node.get_closest_marker("mine")
            assert "word" not in request.node.keywords
            request.node.mine = 1
            request.node.add_marker("mine")
            request.node.keywords["word"] = True
            record_property("a", 1)
        """
    )
    outcome = runs.run()
    assert runs.entries[0]["outcomes"] == PASSED, outcome.out
    assert runs.entries[0]["sections"] == [[["Captured stdout call", "said\n"]]]
    assert runs.entries[0]["properties"] == [[["a", 1]]]
    assert runs.entries[0]["same"]


FAILING = """
    import pytest

    @pytest.mark.parametrize("n", [1])
    def test_a(n, request):
        assert request.node.nodeid.endswith("test_a[1]")
"""


def test_a_silent_run_is_seen_nowhere_but_in_its_reports(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(session.file(test_it=FAILING), monkeypatch, silent=True)
    outcome = runs.run("-x", "--durations=0", "-vv", "--junitxml=junit.xml")
    assert outcome.status == 0
    assert outcome.results == {"test_it.py::test_a[1]": "passed"}
    assert runs.entries[0]["outcomes"] == ["setup passed", "call failed", "teardown passed"]
    assert runs.entries[0]["nodeid"] == "test_it.py::test_a[again-1]"
    assert "again-1" not in outcome.out
    assert "again" not in (session.path / "junit.xml").read_text(encoding="utf-8")


def test_a_run_aloud_is_a_test_like_any_other(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(session.file(test_it=FAILING), monkeypatch, silent=False)
    outcome = runs.run("--durations=0", "-vv", "--junitxml=junit.xml")
    assert outcome.status == 1
    assert outcome.results == {"test_it.py::test_a[1]": "passed", "test_it.py::test_a[again-1]": "failed"}
    assert "_ test_a[again-1] _" in outcome.out
    assert "call     test_it.py::test_a[again-1]" in outcome.out
    assert 'name="test_a[again-1]"' in (session.path / "junit.xml").read_text(encoding="utf-8")
    assert runs.entries[0]["title"] == "test_a[again-1]"


def test_skips_and_expected_failures_keep_their_meaning(runs: Runs) -> None:
    runs.session.file(
        test_it="""
        import unittest

        import pytest


        def test_skip():
            pytest.skip("so")


        @pytest.mark.xfail
        def test_xfail():
            assert 0


        class TestA(unittest.TestCase):
            @unittest.expectedFailure
            def test_a(self):
                self.fail()

            def test_skip(self):
                self.skipTest("so")
        """
    )
    outcome = runs.run()
    assert outcome.status == 0, outcome.out
    skipped = ["setup passed", "call skipped", "teardown passed"]
    assert [entry["outcomes"] for entry in runs.entries] == [skipped] * 4


def test_an_interrupt_ends_the_session(runs: Runs) -> None:
    runs.session.file(
        test_it="""
        times = []


        def test_a():
            times.append(1)
            if len(times) == 2:
                raise KeyboardInterrupt
        """
    )
    outcome = runs.run(where="subprocess")
    assert outcome.status == 2
    assert runs.entries == []


def test_warnings_are_filtered_as_in_the_first_run(runs: Runs) -> None:
    runs.session.ini(filterwarnings="error::UserWarning").file(
        test_it="""
        import warnings

        import pytest


        def test_error():
            with pytest.raises(UserWarning):
                warnings.warn("no")


        @pytest.mark.filterwarnings("ignore::UserWarning")
        def test_ignored():
            warnings.warn("no")
        """
    )
    outcome = runs.run()
    assert outcome.status == 0, outcome.out
    assert [entry["outcomes"] for entry in runs.entries] == [PASSED, PASSED]


def test_the_current_test_variable_is_the_legs(runs: Runs) -> None:
    runs.session.file(
        test_it="""
        import os

        seen = []


        def test_a():
            seen.append(os.environ["PYTEST_CURRENT_TEST"])
            assert len(seen) == 1 or seen == ["test_it.py::test_a (call)", "test_it.py::test_a[again] (call)"]
        """
    )
    assert runs.run().status == 0
    assert "PYTEST_CURRENT_TEST" not in os.environ or "test_it.py" not in os.environ["PYTEST_CURRENT_TEST"]
