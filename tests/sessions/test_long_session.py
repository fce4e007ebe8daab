"""What a passed leg leaves in memory until the session ends."""

from __future__ import annotations

import json
import multiprocessing

import pytest

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="counts legs under fork")

SAMPLE = """
    import collections, gc, json
    import pytest

    count = collections.Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(nodeid):
        gc.collect()
        test = nodeid.partition("::")[2].partition("[")[0]
        count[test] += 1
        with open(f"{test}-{count[test]}.json", "w") as file:
            json.dump(collections.Counter(type(each).__name__ for each in gc.get_objects()), file)
"""

SUITE = """
    import multiprocessing
    import pytest

    def work(): pass

    def start(context):
        process = context.Process(target=work)
        process.start()
        process.join()

    @pytest.mark.parametrize("n", range(30))
    def test_by_hand(n): start(multiprocessing.get_context("fork"))

    @pytest.mark.startmethods("fork")
    @pytest.mark.parametrize("n", range(30))
    def test_leg(n): start(multiprocessing)
"""


def test_a_passed_leg_keeps_its_result_and_nothing_else(session):
    """A passed leg keeps at most six objects more than a test that starts the same process by hand."""
    outcome = session.file(conftest=SAMPLE, test_a=SUITE).run("-q", where="subprocess")
    assert set(outcome.results.values()) == {"passed"}, outcome.out

    def kept(test):
        first, last = (json.loads((session.path / f"{test}-{n}.json").read_text()) for n in (10, 30))
        return {name: (number - first.get(name, 0)) / 20 for name, number in last.items()}

    by_hand, leg = kept("test_by_hand"), kept("test_leg")
    more = {name: number - by_hand.get(name, 0) for name, number in leg.items() if number > by_hand.get(name, 0)}
    assert sum(more.values()) <= 6, more
