"""xdist: every worker collects the same legs, whatever the distribution."""

from __future__ import annotations

import pytest

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
