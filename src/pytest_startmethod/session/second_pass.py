"""Experiments on failed legs, after all tests and discovered legs have run and been torn down."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from .._compat import pytest as pytest_compat
from .._compat import pytest_silent
from ..activation import clock
from ..activation.debugger import is_debugging
from ..model import methods
from ..model.finding import COPIED
from . import again
from .frameless import hook_wrapper
from .legs import STATE, LegState, Trial

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..causes.second_look import Look
    from ..experiments import plan
    from ..experiments.verifying import Verified, Verifier
    from ..model.child_report import ChildReport
    from ..model.leg import Leg
    from ..model.leg_result import LegResult
    from ..model.wire import Json
    from .running import Running
    from .settings import Settings

NAME = "startmethod-second-pass"
OUTPUT = "startmethod_verified"
"""``workeroutput`` key under which an xdist worker sends the results of its experiments."""

_TRIAL_SECONDS = 5.0
_WIDE_SECONDS = 20.0
_TRIAL_TIMES = 10.0
"""Time limit of a run: these seconds, more where libraries are examined too, plus so many times the test's longest leg
that ended by itself."""

_PREDICTION_SECONDS = 5.0
"""How long the end of the session waits for pre-checks."""

_now = time.monotonic


def of(config: pytest.Config, settings: Settings) -> SecondPass:
    """Return the session's second pass. The first call registers it, and must precede the tests."""
    found: SecondPass | None = config.pluginmanager.get_plugin(NAME)
    if found is None:
        found = SecondPass(config, settings)
        config.pluginmanager.register(found, NAME)
    return found


@dataclass(slots=True)
class Waiting:
    """A failed leg waiting for experiments."""

    item: pytest.Item
    leg: Leg
    state: LegState
    before: pytest_compat.ItemState
    """The item's state before its first run."""


class SecondPass:
    """Verifies failed legs after the tests. One per process that runs tests."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.running: Running | None = None
        """Runs the legs. With discovery, None until the first process starts."""
        self._waiting: list[Waiting] = []
        self._unanswered: list[LegState] = []
        """Legs that ended before their pre-checks had an answer."""
        self._began = _now()
        self._debugger = bool(config.getoption("usepdb", False))

    def may_verify(self, leg: Leg) -> bool:
        """Return whether experiments could tell anything about `leg` if it fails."""
        if not self.settings.verify or methods.base(leg.method) == "fork":
            return False
        if ":" in leg.method:  # experiments use multiprocessing's own pickler
            return False
        return not (self._debugger or self.config.getoption("setuponly", False) or is_debugging())

    def put_off(self, item: pytest.Item, leg: Leg, state: LegState, before: pytest_compat.ItemState) -> None:
        """Queue a leg for verification if it failed."""
        if state.shown and state.finished is not None and not state.debugged and state.reports is not None:
            self._waiting.append(Waiting(item, leg, state, before))

    def wait_for(self, state: LegState) -> None:
        """Queue a leg whose pre-checks have no answer yet for the end of the session."""
        if state.unanswered[1] and state.finished is not None:
            self._unanswered.append(state)

    # Outermost: the terminal has written its last progress line, and pytest-cov has saved its data.
    @hook_wrapper(tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Verify failed legs after the tests, also after ``-x`` but not after Ctrl-C."""
        stopped: BaseException | None = None
        result: object = True
        try:
            result = yield
        except (pytest.Session.Failed, pytest.Session.Interrupted) as stop:
            stopped = stop
        try:
            self._verify_all()
        except Exception as trouble:  # the user's session carries on as if there had been no experiments
            terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
            if terminal is not None:
                terminal.write_line(f"pytest-startmethod: {type(trouble).__name__} in an experiment: {trouble}")
        if stopped is not None:
            raise stopped
        return result

    # -- experiments -------------------------------------------------------------------------------------------------

    def _verify_all(self) -> None:
        running = self.running
        if running is None:
            return
        predicted = self._predicted()
        failed_under_fork = running.annotator.fork_failed if self._waiting else ()
        waiting = [e for e in self._waiting if e.leg.test not in failed_under_fork or _is_of_a_task(e.state)]
        _cheapest_first(waiting)
        if not waiting:
            if predicted:
                self._tell({"legs": predicted})
            return
        from ..experiments import coverage, verifying

        chosen = self.settings.verify_seconds
        verifier = verifying.Verifier(max(verifying.FEWEST_SECONDS, _now() - self._began) if chosen is None else chosen)
        self._announce(len(waiting), verifier.seconds)
        amended: list[Json] = []
        interrupted = False
        try:
            with coverage.suspended(), running.experimenting():
                for each in waiting:
                    amendment = self._verify(running, verifier, each)
                    amended += [] if amendment is None else [amendment]
        except (KeyboardInterrupt, pytest.exit.Exception):
            interrupted = True
        cost = {"verified": verifier.legs, "runs": verifier.runs, "seconds": verifier.spent}
        left = {"left_out": verifier.left_out, "interrupted": int(interrupted)}
        self._tell({"legs": predicted + amended, **cost, **left})

    def _predicted(self) -> list[Json]:
        """Return the changes from pre-checks that were answered after their leg; waits at most 5 s."""
        if not self._unanswered:
            return []
        from ..causes import explain
        from ..causes.launch_examiner import collect_predictions

        amended, until = [], _now() + _PREDICTION_SECONDS
        for state in self._unanswered:
            launches, pending = state.unanswered
            collect_predictions(pending, max(0.0, until - _now()))
            predictions = explain.predicted(launches)
            if state.finished is not None and predictions != state.finished.predictions:
                result = replace(state.finished, predictions=predictions)
                amended.append(self._changes(state.finished, result))
        self._unanswered.clear()
        return amended

    def _announce(self, legs: int, seconds: float) -> None:
        """Print why the session is not over yet."""
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None or terminal.verbosity < 0 or hasattr(self.config, "workerinput"):
            return
        terminal.ensure_newline()
        if self.config.get_terminal_writer().width_of_current_line:  # a progress bar, such as pytest-sugar's
            terminal.line("")
        what = "1 failed leg" if legs == 1 else f"{legs} failed legs"
        terminal.write_line(
            f"start methods: verifying {what} (at most {seconds:.0f} s; --no-start-methods-verify skips this)"
        )
        terminal.flush()

    def _tell(self, said: Json) -> None:
        """Amend the reports held by this process, or send the results to the xdist controller."""
        output: Json | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[OUTPUT] = said
            return
        results: Any = self.config.pluginmanager.get_plugin("startmethod-results")
        if results is not None:
            results.amend(said)

    def _verify(self, running: Running, verifier: Verifier, waiting: Waiting) -> Json | None:
        """Verify one leg and return the amendment to its reports, or None."""
        from ..causes import second_look
        from ..causes import state as state_causes
        from ..experiments import verifying
        from ..model.finding import unique

        state = waiting.state
        assert state.finished is not None
        findings = unique(each for _, found in state.shown for each in found)
        why_not = _why_not(waiting)
        if why_not is not None:
            said = tuple(replace(each, evidence=(*each.evidence, f"not verified: {why_not}")) for each in findings)
            return self._amendment(running, waiting, verifying.Verified(said), None)
        look = second_look.look_at(state.observed, {file for file, _ in state.touched}, findings)
        duration = state.finished.duration
        leg = verifying.LegToVerify(
            method=waiting.leg.method,
            findings=findings,
            failures=tuple(state.failures),
            touched=frozenset(state.touched),
            failed_with=frozenset(state.failed_with),
            not_pickled=state.not_pickled,
            hidden=tuple(state_causes.unseen_patches(state.record.patches, state.touched)),
            seconds=min(duration, _seconds_of_a_run(running, waiting.leg, look)) if state.hangs else duration,
            hangs=state.hangs,
        )
        try:
            verified = verifier.verify(leg, partial(self._run, running, waiting, look))
            text = verifying.RACE if verified.findings else verifying.FLAKY
            note = ("flaky", f"  {text}") if verified.flaky else None
            return self._amendment(running, waiting, verified, note)
        except Exception:
            running.recorder.troubles.append(traceback.format_exc(limit=-1).strip().splitlines()[-1])
            return None

    def _run(
        self,
        running: Running,
        waiting: Waiting,
        look: Look | None,
        attempt: plan.Attempt,
        left: float,
        is_usual: Callable[[Sequence[str]], bool],
    ) -> plan.Outcome:
        """Re-run a leg as `attempt` says. An unchanged run of an unexplained leg also collects candidate causes."""
        from ..causes import second_look
        from ..experiments.plan import Copies
        from ..experiments.verifying import changed

        met: list[Any] = []
        more: list[Any] = []
        wide = look if look is not None and not attempt.experiments else None

        def examine(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState) -> None:
            failed = failure_of(report, running.children_reports())
            if attempt.experiments and not attempt.control and not met and not is_usual(failed):
                met.extend(running.annotator.diagnose(item, call, report, state))
            if wide is not None and not more:
                more.extend(second_look.candidates(running.gatherer.evidence(item, call, report, state), wide))

        leg, reports = waiting.leg, running.reports
        assert reports is not None
        if Copies() in attempt.experiments:
            leg = replace(leg, method="fork")
        trial = Trial(min(left, _seconds_of_a_run(running, leg, wide)), examine)
        with (
            running.run_for_experiment(waiting.item, leg, trial) as state,
            changed(attempt, reports) as said,
            running.comparison.widened(wide.packages if wide is not None else frozenset()),
        ):
            ran = again.run_silently(waiting.item, leg, waiting.before, {STATE: state})
            phases = {str(report.when) for report, _ in waiting.state.shown}
            outcome = _outcome(ran, phases, running.children_reports())
            return replace(outcome, unsent=said.unsent(), imported=said.imported(), met=tuple(met), more=tuple(more))

    def _amendment(self, running: Running, waiting: Waiting, verified: Verified, note: tuple[str, str] | None) -> Json:
        """Return the changes to a leg's reports, as builtins that cross processes."""
        state = waiting.state
        before = state.finished
        assert before is not None
        known = [each.key for _, findings in state.shown for each in findings]
        sections, shown = [], []
        for number, (_, findings) in enumerate(state.shown):
            keys = {each.key for each in findings}
            mine = [each for each in verified.findings if each.key in keys or (number == 0 and each.key not in known)]
            sections.append([list(each) for each in running.annotator.sections(state, mine)])
            shown.append([list(each.key) for each in mine])
        if note is not None:
            sections[0].append([f"start method {state.leg.method}: {note[0]}", note[1]])
        rest = [each for each in before.findings if each.key not in known]
        result = replace(before, findings=(*verified.findings, *rest), flaky=verified.flaky)
        return {
            **self._changes(before, result),
            "titles": [title for title, _ in running.annotator.sections(state, _shown(state))],
            "sections": sections,
            "keys": shown,
        }

    def _changes(self, before: LegResult, result: LegResult) -> Json:
        """Return the changes to the reports of a leg with a new result, as builtins."""
        from ..report.junit import properties

        root = str(self.config.rootpath)
        return {
            "nodeid": before.nodeid,
            "titles": [],
            "sections": [],
            "keys": [],
            "result": result.as_dict(),
            "before": [list(each) for each in properties(before, root)],
            "properties": [list(each) for each in properties(result, root)],
        }


def _seconds_of_a_run(running: Running, leg: Leg, wide: Look | None) -> float:
    """Return the time limit of a run, in seconds."""
    finished = max(running.finished.get(leg.test, []), default=0.0)
    return (_TRIAL_SECONDS if wide is None else _WIDE_SECONDS) + _TRIAL_TIMES * finished


def _cheapest_first(waiting: list[Waiting]) -> None:
    """Put a test's fastest leg first, in steps of 10 s: what it confirms also counts for the slower ones."""
    order = {test: at for at, test in reversed(list(enumerate(each.leg.test for each in waiting)))}

    def rank(each: Waiting) -> tuple[int, float]:
        assert each.state.finished is not None
        return order[each.leg.test], round(each.state.finished.duration, -1)

    waiting.sort(key=rank)


def _why_not(waiting: Waiting) -> str | None:
    """Return why a leg cannot be re-run, or None."""
    if waiting.state.reported_only:  # a silent run leaves out the hooks that made it a failure
        return "the test raised nothing; a hook made its report a failure"
    if "start_method_script" in getattr(waiting.item, "fixturenames", ()):
        return "no experiment reaches the processes of a script"
    recording = pytest_silent.recording_fixture(waiting.item)
    return None if recording is None else f"the fixture {recording} would record the extra runs"


def _is_of_a_task(state: LegState) -> bool:
    """Return whether a copy may be the cause under every method, so that an experiment can tell although fork fails."""
    return any(each.code in COPIED and each.every_method for each in _shown(state))


def _shown(state: LegState) -> list[Any]:
    return [each for _, findings in state.shown for each in findings]


def message_of(report: Any) -> str:
    """Return a failure's message."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)


def failure_of(report: pytest.TestReport, children: Iterable[ChildReport]) -> tuple[str, ...]:
    """Return how a phase failed and what its children raised, in a comparable form."""
    from ..experiments import plan

    raised = {
        plan.failure(each.phase, f"{each.error.type}: {each.error.message}")
        for each in children
        if each.error is not None
    }
    return (plan.failure(str(report.when), message_of(report)), *sorted(raised))


def _outcome(reports: Sequence[pytest.TestReport], phases: set[str], children: tuple[ChildReport, ...]) -> plan.Outcome:
    """Return how a run ended. It passed if its call passed and no phase failed that fails in the original leg.

    A fixture's teardown may fail only because a conftest's report hooks are left out.
    """
    from ..experiments import plan

    counting = [each for each in reports if each.when != "teardown" or "teardown" in phases]
    failed = next((each for each in counting if each.failed), None)
    if failed is None:
        return plan.Outcome(any(each.when == "call" and each.passed for each in counting))
    if clock.is_over(message_of(failed)):  # with more time it might have passed
        return plan.Outcome(False, in_time=False)
    return plan.Outcome(False, failure_of(failed, children))
