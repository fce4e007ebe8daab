"""One leg's evidence explains why it failed, and whether it exercised its method at all."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from pytest_startmethod.causes import explain, vacuous
from pytest_startmethod.model.child_report import ChildReport, Raised
from pytest_startmethod.model.evidence import CallEnd, Evidence
from pytest_startmethod.model.finding import Finding
from pytest_startmethod.model.launch import Failure, Fixture, Launch, Task, WatchedPool
from pytest_startmethod.model.leg import SetByUser
from pytest_startmethod.model.place import Place
from pytest_startmethod.model.stack import Hanging

NODE = "test_a.py::test_x[spawn]"


def finding(path="target", code="SM101"):
    return Finding(code, "local-function", "cause", path, "/a.py", 3, "a message", (), "a fix")


def launch(method="spawn", **values):
    given = {"place": Place("/a.py", 5), "fixture": None, "leg": NODE, **values}
    return Launch(method, "mod.work", (), given.pop("place"), None, given.pop("fixture"), given.pop("leg"), **given)


def evidence(outcome="passed", **values):
    return Evidence(leg=NODE, method="spawn", outcome=outcome, **values)


@pytest.fixture
def source(tmp_path):
    """Write a user module, and return the place of a line in it."""

    def write(text):
        file = tmp_path / "test_module.py"
        file.write_text(textwrap.dedent(text))
        return lambda line: Place(str(file), line)

    return write


def codes(findings):
    return [each.code for each in findings]


def test_passed_leg_tells_what_it_swallowed():
    """A passing leg reports why a start failed; a lost message is a note."""
    started = launch(found=(finding(),), error="E")
    assert explain.explain(evidence(failures=[Failure("E", (finding(),))], launches=[started])) == (finding(),)
    (lost,) = explain.explain(evidence(failures=[Failure("E", (finding("object"),))]))
    assert (lost.level, lost.every_method) == ("note", True)
    assert explain.explain(evidence(launches=[launch(exit_code=7, pid=1)])) == ()


def test_pool_without_workers_is_a_crash_loop():
    """``Pool.map`` divides by its number of workers: zero means that they keep dying (SM402)."""
    dying = launch(pool=WatchedPool(exits=[1, 1]), place=Place("/a.py", 7))
    (found,) = explain.explain(evidence("failed", launches=[dying], error="ZeroDivisionError"))
    assert (found.code, found.line) == ("SM402", 7)
    assert found.message == (
        "the workers of this Pool die before running a task, and there was none just then to share the work"
    )


def test_division_by_zero_beside_a_pool_that_works_is_the_users():
    """A ZeroDivisionError is not blamed on a Pool with live workers."""
    assert explain.explain(evidence("failed", launches=[launch(pool=WatchedPool())], error="ZeroDivisionError")) == ()


def test_cause_of_the_exception_comes_first():
    """The failed start that raised comes first, then earlier ones, each once."""
    first, second = replace(finding("args[0]"), line=9), finding("target")
    failures = [Failure("E", (first,)), Failure("E", (second,))]
    launches = [launch(found=(first,)), launch(found=(second,))]
    found = explain.explain(evidence("failed", launches=launches, failures=failures, failure=failures[1]))
    assert found == (second, first)


def test_swallowed_start_explains_a_symptom():
    """A start that failed elsewhere explains a failure that names something else."""
    started = launch(found=(finding(),), error="E")
    given = evidence("failed", failures=[Failure("E", (finding(),))], launches=[started], text="E")
    assert explain.explain(given) == (finding(),)


def test_findings_of_one_place_and_message_are_one():
    """The other paths become evidence; a different message stays a separate finding."""
    every = [finding(f"args[{n}]") for n in range(7)]
    (found,) = explain.explain(evidence("failed", failure=Failure("E", tuple(every))))
    assert (found.path, found.evidence) == ("args[0]", ("the same at args[1], args[2], args[3], args[4] and 2 more",))
    other = replace(finding("args[1]"), message="another")
    assert len(explain.explain(evidence("failed", failure=Failure("E", (finding(), other))))) == 2


def test_consequences_name_their_cause():
    """Dying workers, a hang and a start that failed elsewhere name the cause that they follow from."""
    failed = launch(error="AttributeError: no", found=(finding(),))
    dying = launch(pool=WatchedPool(given_up="the workers die"))
    hanging = Hanging(3, ())
    given = evidence("failed", launches=[failed, dying], failures=[Failure("E", failed.findings)], hanging=hanging)
    found = {each.code: each.because_of for each in explain.explain(given)}
    assert found == {"SM101": "", "SM408": "SM101 target", "SM402": "SM101 target", "SM403": "SM101 target"}
    (alone,) = explain.explain(evidence("failed", hanging=hanging))
    assert (alone.code, alone.because_of) == ("SM403", "")


def test_tasks_and_messages_are_pickled_under_every_method():
    """Findings on tasks do not claim that fork hides them."""
    task = Task("spawn", "Pool", "map", "mod.work", None, (finding(),))
    (found,) = explain.explain(evidence("failed", tasks=[task], failure=Failure("E", (finding(),))))
    assert found.every_method
    text = " ".join(str(found).split())
    assert "tasks of a pool or executor and messages are pickled under every start method, fork included" in text
    assert "under fork:" not in text


def test_start_that_failed_elsewhere_is_sm408():
    """SM408 names the start if the failure shows only a symptom; otherwise it adds nothing."""
    failed = launch(error="AttributeError: Can't pickle local object 'f'")
    failed.thread = "Thread-1"
    (found,) = explain.explain(evidence("failed", launches=[failed], error="Empty", text="_queue.Empty"))
    assert found.code == "SM408"
    assert found.message == (
        "start() of mod.work failed in thread 'Thread-1': AttributeError: Can't pickle local object 'f'. "
        "The test's own error (Empty) is a consequence"
    )
    text = "_StringException: Traceback: AttributeError: Can't pickle local object 'f'"
    assert explain.explain(evidence("failed", launches=[failed], error="Failed", text=text)) == ()


def test_failed_start_of_a_wider_fixture_explains_a_later_leg():
    """A fixture's failed start counts for legs of the same method only."""
    failed = launch(found=(finding(),), fixture=Fixture("server", "module", ""))
    assert explain.explain(evidence("failed", inherited=[failed])) == (finding(),)
    other = launch("forkserver", found=(finding(),), fixture=Fixture("server", "module", ""))
    assert explain.explain(evidence("failed", inherited=[other])) == ()


def test_failure_without_evidence_has_no_finding():
    """No evidence, no finding."""
    assert explain.explain(evidence("failed", launches=[launch()])) == ()


def test_leg_that_started_a_process_with_its_method_is_not_vacuous():
    """One launch with the method suffices, including one by a wider fixture."""
    assert vacuous.vacuous(evidence(launches=[launch("fork"), launch()])) is None
    assert vacuous.vacuous(evidence(inherited=[launch()])) is None


def test_start_that_failed_was_a_start():
    """A leg that expects a failing start has exercised its method."""
    assert vacuous.vacuous(evidence(launches=[launch(error="PicklingError: no")])) is None


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_only_a_leg_that_passed_is_vacuous(outcome):
    """A failed or skipped leg is never vacuous."""
    assert vacuous.vacuous(evidence(outcome)) is None


def test_no_process_is_sm501():
    """A leg that started no process and asked for no method is SM501."""
    found = vacuous.vacuous(evidence())
    assert (found.code, found.message) == ("SM501", "started no process")
    assert found.fix == "take the marker off this test, or start the process in the test"


def test_fixture_without_marker_is_not_told_to_lose_it():
    """SM501's fix mentions the fixtures if the test has no marker."""
    found = vacuous.vacuous(evidence(marked=False))
    assert found.fix == "request neither start_method nor mp_context, or start the process in the test"


def test_tasks_in_somebody_elses_pool_are_told():
    """SM501 names the tasks that the leg submitted to another test's pool."""
    task = Task("fork", "Pool", "map", "mod.work", Place("/a.py", 9))
    found = vacuous.vacuous(evidence(tasks=[task]))
    assert found.message == "started no process; its tasks ran in processes of another test: mod.work, given at /a.py:9"


def test_pinned_context_is_sm502_at_the_line_that_pins(source):
    """The finding points at the line that chooses the context, not at the start."""
    place = source(
        """
        import multiprocessing
        CONTEXT = multiprocessing.get_context("fork")
        def test_x():
            CONTEXT.Process().start()
        """
    )
    found = vacuous.vacuous(evidence(launches=[launch("fork", place=place(5))]))
    assert (found.code, found.line) == ("SM502", 3)
    assert found.message == f"started 1 process with fork: get_context('fork') at {place(3).file}:3"
    assert found.fix == (
        "take the context from the mp_context fixture, or let the code accept one, instead of get_context('fork')"
    )


def test_pin_in_another_file_is_evidence_only(source):
    """The finding stays at the launch if another file chooses the context."""
    found = vacuous.vacuous(evidence(launches=[launch("fork", place=Place("/no/such/file.py", 8))]))
    assert (found.code, found.file, found.line) == ("SM502", "/no/such/file.py", 8)
    assert found.message == "started 1 process with fork at /no/such/file.py:8"


@pytest.mark.parametrize("line", ["from multiprocessing.context import ForkProcess", "context.ForkContext()"])
def test_pinned_classes_are_found(source, line):
    """A context's classes pin the method as its name does."""
    place = source(f"{line}\nx = ForkProcess\n" if "import" in line else f"x = {line}\n")
    found = vacuous.vacuous(evidence(launches=[launch("fork", place=place(9))]))
    assert found.code == "SM502"
    assert found.file == place(1).file


def test_executor_that_pins_spawn_by_itself_is_found(source):
    """ProcessPoolExecutor(max_tasks_per_child=...) uses a spawn context (CPython 3.11)."""
    place = source("pool = ProcessPoolExecutor(max_tasks_per_child=1)\n")
    fork = Evidence("t[fork]", "fork", "passed", launches=[launch("spawn", place=place(7))])
    assert vacuous.vacuous(fork).line == 1


def test_set_start_method_in_the_test_is_sm502():
    """The test's own set_start_method explains the different method."""
    override = SetByUser("fork", Place("/a.py", 4), wins=True)
    found = vacuous.vacuous(evidence(launches=[launch("fork"), launch("fork")], overrides=[override]))
    assert found.message == "started 2 processes with fork: set_start_method('fork') at /a.py:4"
    assert found.fix == "leave the start method to the leg; the test can read it from the start_method fixture"


def test_wider_fixture_under_another_method_is_sm503():
    """The message names the fixture, its scope, its method and its line."""
    earlier = launch("fork", fixture=Fixture("pool", "session", ""), leg="test_a.py::test_x[fork]")
    found = vacuous.vacuous(evidence(inherited=[earlier]))
    assert found.message == (
        "used processes that the session-scoped fixture 'pool' started with fork in test_a.py::test_x[fork], at /a.py:5"
    )
    assert found.fix == "let the fixture 'pool' request start_method or mp_context: it is then built once per method"


def test_method_check_that_starts_nothing_is_sm504(source):
    """Code that compares the method and starts nothing is SM504."""
    place = source(
        """
        def run():
            method = get_start_method()
            if method == "fork":
                start()
        """
    )
    found = vacuous.vacuous(evidence(asked=[place(3)]))
    assert (found.code, found.line) == ("SM504", 4)
    assert found.message == (
        f"started no process: the code checks the start method at {place(4).file}:4 and starts nothing"
    )


def test_asking_without_comparing_declares_nothing(source):
    """Printing the method is not a check."""
    place = source("def run():\n    print(get_start_method())\n")
    assert vacuous.vacuous(evidence(asked=[place(2)])).code == "SM501"


REFUSALS = {
    "guarded raise": ('if get_start_method() != "fork":\n        raise RuntimeError("fork only")', 3, 2),
    "guarded skip": ('if method in ("spawn", "forkserver"):\n        pytest.skip("no")', 3, 2),
    "skipTest": ('if method == "spawn":\n        self.skipTest("no")', 3, 2),
    "assert": ('assert get_start_method() == "fork"', 2, 2),
    "early return": ('if method == "fork":\n        return 1\n    raise RuntimeError', 4, 2),
    "else": ('if method == "fork":\n        go()\n    else:\n        raise RuntimeError', 5, 2),
}


@pytest.mark.parametrize(("body", "raised", "check"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_are_sm504(source, body, raised, check):
    """A raise, skip or assert guarded by a comparison with a method's name is SM504."""
    place = source(f"def run(method):\n    {body}\n")
    (found,) = explain.explain(evidence("failed", raised_at=place(raised)))
    assert (found.code, found.level, found.line) == ("SM504", "cause", check)
    assert found.message == f"the code checks the start method at {place(check).file}:{check} and raises under spawn"
    assert found.fix == "make the code work without the check, or name the supported methods in the marker"


def test_skip_by_name_is_a_note(source):
    """A skip is only a note."""
    place = source('def test(method):\n    if method == "spawn":\n        pytest.skip("no")\n')
    (found,) = explain.explain(evidence("skipped", raised_at=place(3)))
    assert (found.code, found.level) == ("SM504", "note")


OTHERS = {
    "unguarded raise": ('if method == "fork":\n        prepare()\n    raise ValueError("unrelated")', 4),
    "call that raised": ('if method == "spawn":\n        work()', 3),
    "other comparison": ('if mode == "fast":\n        raise ValueError', 3),
    "methods as keys": ('assert seen == {"spawn": 1, "fork": 2}[method]', 2),
    "another name": ('assert answer == "spawn"', 2),
    "other assert": ('if method == "fork":\n        prepare()\n    assert value == 3', 4),
}


@pytest.mark.parametrize(("body", "raised"), OTHERS.values(), ids=OTHERS)
def test_other_failures_near_a_check_are_not_blamed_on_it(source, body, raised):
    """A failure that the comparison does not guard is not blamed on it."""
    place = source(f"def run(method, mode, value, seen, answer):\n    {body}\n")
    assert explain.explain(evidence("failed", raised_at=place(raised))) == ()


def test_predictions_are_told_once():
    """The workers of one pool share a prediction."""
    launches = [launch("fork", predicted=(finding(),)), launch("fork", predicted=(finding(),))]
    assert explain.predicted(launches) == (finding(),)


def test_code_that_asks_for_fork_predicts_nothing(source):
    """Code that asks for fork uses it under every method, so nothing is predicted."""
    at = source("""
        from multiprocessing import get_context

        def test_a():
            get_context("fork").Process(target=lambda: None).start()
    """)
    pinned = launch("fork", place=at(5), own_method=True, predicted=(finding(),))
    assert explain.predicted([pinned]) == ()


def test_mp_context_is_no_pinned_context(source, monkeypatch):
    """mp_context's processes carry an explicit method, but it is the leg's."""
    at = source("""
        def test_a(mp_context):
            mp_context.Process(target=lambda: None).start()
    """)
    monkeypatch.setattr(vacuous, "user_files", lambda: [at(3).file])
    leg = launch("fork", place=at(3), own_method=True, predicted=(finding(),))
    assert explain.predicted([leg]) == (finding(),)


def test_what_the_passing_fork_leg_met_too_explains_nothing():
    """Failed sends, exceptions and exit codes that also occurred in a passing fork leg are left out."""
    events = frozenset({("send", "TypeError: no"), ("exit", "mod.work 7"), ("raised", "ImportError: no x")})
    sent = Failure("TypeError: no", (finding("object"),))
    report = ChildReport(1, "unpickling", method="spawn", raised=(Raised("ImportError", "no x", name="x"),))
    given = evidence("failed", failures=[sent], launches=[launch(pid=1, exit_code=7)], reports=[report])
    assert codes(explain.explain(given)) == ["SM201", "SM101"]
    assert explain.explain(replace(given, others={"fork": CallEnd("passed", None, events)})) == ()
    assert codes(explain.explain(replace(given, failure=sent, others={"fork": CallEnd("passed", None, events)}))) == [
        "SM101"
    ]


def test_message_that_does_not_pickle_suppresses_nothing():
    """A message that a queue's thread could not send keeps nothing from running: other findings remain."""
    sent = Failure("TypeError: no", (finding("object"),))
    given = evidence("failed", failures=[sent], launches=[launch(pid=1, exit_code=7)])
    assert codes(explain.explain(given)) == ["SM101", "SM404"]
    started = launch(failure=sent, error="TypeError: no")
    assert codes(explain.explain(evidence("failed", failures=[sent], launches=[started], text="TypeError: no"))) == [
        "SM101"
    ]
