"""A child whose imports outlast the test's wait has lost nothing (SM409)."""

from __future__ import annotations

import pytest

from pytest_startmethod.causes.explain import explain
from pytest_startmethod.model.child_report import ChildReport, Raised
from pytest_startmethod.model.evidence import CallEnd, Evidence, Patience
from pytest_startmethod.model.launch import Launch
from pytest_startmethod.model.observed import Observed, Seen
from pytest_startmethod.model.place import Place
from pytest_startmethod.model.stack import Hanging

OBSERVED = Observed("spawn", "heavy.work", Place("/p/test_a.py", 3))
LAUNCH = Launch("spawn", "heavy.work", (), None, None, None, "", pid=1, observed=OBSERVED)


def evidence(took: float, waits: float | None = 0.8, raised: bool = True, **more) -> Evidence:
    given = {
        "launches": [LAUNCH],
        "seen": [(OBSERVED, [Seen([], {}, {}, {}, {"heavy": took + 1}), Seen([], {}, {}, {}, {"heavy": took})])],
        "patience": None if waits is None else Patience(waits, Place("/p/test_a.py", 9), raised),
        **more,
    }
    return Evidence("", given.pop("method", "spawn"), given.pop("outcome", "failed"), **given)


def test_imports_that_take_longer_than_the_test_waits():
    """The finding names the module and both times; the faster of two fresh children counts."""
    (found,) = explain(evidence(1.5))
    assert (found.code, found.path, found.level) == ("SM409", "heavy", "cause")
    assert (found.file, found.line) == ("/p/test_a.py", 9)
    assert found.message == (
        "nothing is lost, the child is late: before it can run heavy.work, a fresh child needs 1.5 s to import heavy "
        "(1.5 s); the test waits 0.8 s"
    )
    assert found.fix == (
        "wait longer than 1.5 s, or let the child say that it is ready before the clock starts; or defer what makes "
        "heavy slow to import, if the child does not need it"
    )


def test_arguments_that_take_longer_to_load_than_the_test_waits():
    """What loading takes beyond the imports is the arguments' own time."""
    account = {"node": ["!"], "own": {}, "shared": {}, "plain": [], "methods": {}, "task": False}
    found = explain(evidence(0.1, copied=[(account, {**account, "seconds": 2.0})]))
    assert [(each.code, each.path) for each in found] == [("SM409", "args")]
    assert found[0].message.endswith("a fresh child needs 2.0 s to load its arguments; the test waits 0.8 s")
    (found,) = explain(evidence(1.5, copied=[(account, {**account, "seconds": 1.6})]))
    assert found.path == "heavy"


def test_the_time_limit_of_a_leg_that_ended_while_a_child_was_importing():
    """A leg that was cut did not wait for anything in particular: the line is that of the start."""
    launch = Launch("spawn", "heavy.work", (), Place("/p/test_a.py", 3), None, None, "", pid=1, observed=OBSERVED)
    cut = {"launches": [launch], "hanging": Hanging(0.8, [], [(launch, [])])}
    found = explain(evidence(1.5, None, **cut))
    assert [each.code for each in found][:1] == ["SM409"]
    assert found[0].message.endswith("the test allows 0.8 s")
    assert (found[0].file, found[0].line) == ("/p/test_a.py", 3)
    assert [each.code for each in explain(evidence(0.2, None, **cut))] == ["SM403"]


@pytest.mark.parametrize(
    "silent",
    [
        evidence(0.3),
        evidence(0.05, 0.06),
        evidence(1.5, None),
        evidence(1.5, outcome="passed"),
        evidence(1.5, others={"fork": CallEnd("failed")}),
        evidence(1.5, reports=[ChildReport(1, "run", raised=(Raised("ValueError", "no"),))]),
        evidence(1.5, seen=[]),
        evidence(1.5, method="fork"),
        evidence(1.5, raised=False),
    ],
    ids=[
        "quick",
        "both brief",
        "no wait",
        "passed",
        "fork fails",
        "child raised",
        "not asked",
        "fork",
        "waited before the start",
    ],
)
def test_look_alikes_are_silent(silent):
    """A child that was in time or failed by itself, and a failure under fork, have no finding."""
    assert explain(silent) == ()


GUARDED = """
    import multiprocessing
    import time

    if multiprocessing.parent_process() is not None:
        time.sleep(1)


    def work():
        return 1
    """

TESTS = """
    import multiprocessing

    import app
    import pytest


    @pytest.mark.startmethods("spawn")
    def test_pool():
        with multiprocessing.Pool(1) as pool:
            assert pool.apply_async(app.work).get(timeout=0.4) == 1


    @pytest.mark.startmethods("spawn")
    def test_process():
        process = multiprocessing.Process(target=app.work)
        process.start()
        process.join()
    """


def test_a_worker_is_a_child_when_it_imports_the_module_of_its_task(session):
    """Code that asks for its parent at import is slow in a worker, and quick in a process that is still starting."""
    session.file(app=GUARDED, test_a=TESTS)
    text = session.run("--no-start-methods-verify").out
    assert "child-late, 1 test fails" in text
    assert "first: test_a.py::test_pool[spawn]" in text
