"""xdist: every worker collects the same legs, whatever the distribution."""

from __future__ import annotations

import json

import pytest

from pytest_startmethod.model.leg_result import LegResult
from pytest_startmethod.session.results import Results

SUITE = """
    import multiprocessing
    import unittest
    import pytest

    @pytest.fixture(scope="module")
    def server(mp_context):
        return mp_context.get_start_method()

    def test_a(server, start_method): assert server == start_method == multiprocessing.get_start_method()

    @pytest.mark.startmethods
    class TestB(unittest.TestCase):
        @classmethod
        def setUpClass(cls): cls.method = multiprocessing.get_start_method()
        def test_b(self): self.assertEqual(self.method, multiprocessing.get_start_method())
        def test_c(self): self.assertEqual(self.method, multiprocessing.get_start_method())

    @pytest.mark.startmethods("spawn", "fork")
    @pytest.mark.parametrize("n", range(3))
    def test_d(n): pass

    def test_plain(): pass
"""


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "worksteal", "each"])
def test_every_distribution(session, dist):
    """Every leg runs once (with ``each``, once per worker), under its method."""
    alone = session.file(test_a=SUITE).run()
    outcome = session.run("-n", 2, f"--dist={dist}", where="xdist")
    assert outcome.results == alone.results
    assert set(outcome.results.values()) == {"passed"}
    assert outcome.status == 0


def test_a_worker_that_is_named_with_tx(session):
    """Workers may be given without ``-n``."""
    session.plugin("xdist.plugin").file(test_a="def test_a(): pass")
    outcome = session.run("--tx", "popen", "--dist=load", "--start-methods=fork", where="subprocess")
    line = (
        "--start-methods=fork had no effect: no test is marked with @pytest.mark.startmethods "
        "(--start-methods-discover finds the tests that start processes)"
    )
    assert outcome.lines.count(line) == 1


def test_the_controller_keeps_texts_that_legs_share_once(pytestconfig):
    """Each report from a worker brings its own copy of every key and text; the results are equal to what came."""
    results = Results(pytestconfig, settings=None)
    for method in ("fork", "spawn"):
        launch = {"method": method, "target": "work.work", "args": [method]}
        leg = LegResult(
            f"test_a.py::test_a[{method}]", "test_a.py::test_a", method, "test_a.py", 3, "passed", launches=(launch,)
        )
        report = pytest.TestReport(leg.nodeid, ("test_a.py", 3, "test_a"), {}, "passed", None, "teardown")
        report.node = "a worker"
        report.startmethod = json.loads(json.dumps(leg.as_dict()))
        results.pytest_runtest_logreport(report)
        assert report.startmethod == leg.as_dict()
        assert results.result(leg.nodeid) == leg
    one, other = results._data.values()
    assert [id(key) for key in one] == [id(key) for key in other]
    assert one["launches"][0]["target"] is other["launches"][0]["target"]
