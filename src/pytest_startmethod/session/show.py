"""Show below a failure what failed and why, without changing the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pytest

from .._compat import pytest as pytest_compat
from .._compat import pytest_silent
from .._compat.cpython import RealTime
from ..causes.launch_examiner import collect_predictions
from ..launches import foreign, leftovers
from ..model import methods
from ..model.failed_leg import FailedLeg
from ..model.finding import relative, unique
from ..model.leg_result import LegResult
from ..report.junit import properties
from ..report.text import wrap
from .gather import Gatherer, touched
from .results import BELOW

# Imports needed only for a failure are deferred: a fork copies the page tables of everything loaded.
if TYPE_CHECKING:
    from ..activation.servers import ForkServers
    from ..launches.recorder import Recorder
    from ..model.evidence import Evidence
    from ..model.finding import Finding
    from ..model.launch import Launch, Task
    from ..model.place import Place
    from .legs import LegState
    from .settings import Settings

_SHOWN_CHILDREN = 3
_ERROR_SECONDS = 5.0
"""How long a leg that pre-checks can fail waits for them."""
_PATIENCE_SECONDS = 2.0
"""How long all other legs of a session wait together; later answers are collected at its end."""


class Annotator:
    """Explains the evidence of a phase and adds the findings to its report."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        recorder: Recorder,
        gatherer: Gatherer,
        servers: ForkServers,
        runner: Place | None,
        finished: dict[str, list[float]],
    ) -> None:
        self._config = config
        self._settings = settings
        self._recorder = recorder
        self._gatherer = gatherer
        self._servers = servers
        self._runner = runner
        """The line of the main module that runs pytest outside a main guard."""
        self.fork_failed: set[str] = set()
        """Tests whose fork leg failed."""
        self._patience = _PATIENCE_SECONDS
        self._finished = finished
        """Durations of the calls that ended before their time limit, by test."""

    def annotate(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> None:
        """Annotate the report of one phase. The last phase's report also gets the leg's result."""
        if state.calling and report.passed:
            return
        if report.when == "setup":
            state.shown.clear()
            state.touched.clear()
            state.failed_with.clear()
            state.observed.clear()
            state.not_pickled = state.hangs = False
        if not report.passed or report.when == "call":
            self._examine(item, call, report, state)
        state.count(report)
        if report.when == "call":
            if self._runner is not None:
                self._note_runner(state, self._runner)
            self._gatherer.note_call(call, report, state)
            if state.hanging is None:
                self._finished.setdefault(state.leg.test, []).append(report.duration)
        if report.when == "teardown":
            self._finish(report, state)

    def _examine(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> None:
        """Explain why a phase failed or was skipped, or check a call that passed."""
        evidence = self._gatherer.evidence(item, call, report, state)
        if report.failed:
            state.message = state.message or _message(report)
            if not self._config.getoption("fulltrace", False):
                pytest_compat.shorten_notes(report)
            self._show_children(report, state, evidence)
            findings = self._ask_hooks(item, call, evidence)
            self._show(report, state, findings)
            self._show_inside(report, state, evidence)
            state.shown.append((report, findings))
            state.not_pickled |= evidence.failure is not None
            state.hangs |= evidence.hanging is not None
            state.touched |= touched(evidence)
            state.failed_with |= {evidence.failed_with, *(each.type for each in evidence.raised_in_children)}
            state.observed += [each.observed for each in _work(evidence) if each.observed is not None]
            if methods.base(state.leg.method) == "fork":
                self.fork_failed.add(state.leg.test)
        elif report.skipped and not hasattr(report, "wasxfail"):
            state.findings += _explain(evidence)
        elif report.when == "call":
            self._examine_passed(report, state, evidence)

    def _finish(self, report: pytest.TestReport, state: LegState) -> None:
        """Attach the result of a finished leg to its last report."""
        record = state.record
        if not state.watched:
            if not record.is_over():
                self._end_leftovers(state)
                self._recorder.note_exits(record)
            if self._servers.temporary is not None:
                self._note_socket(state, self._servers.temporary)
        if record.pending and ("call", "passed") in state.outcomes:
            began = RealTime.now()
            self._predict(state, max(0.0, self._patience), give_up=False)
            self._patience -= RealTime.now() - began
            state.unanswered = tuple(record.launches), list(record.pending)
        state.finished = self.result(state)
        report.startmethod = state.finished.as_dict()  # type: ignore[attr-defined]
        report.user_properties += properties(state.finished, str(self._config.rootpath))
        state.start_anew()

    def diagnose(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> tuple[Finding, ...]:
        """Return why a phase failed, without touching the report."""
        return self._ask_hooks(item, call, self._gatherer.evidence(item, call, report, state))

    def _ask_hooks(self, item: pytest.Item, call: pytest.CallInfo[None], evidence: Evidence) -> tuple[Finding, ...]:
        """Explain a failure. Under spawn and forkserver, add the findings of other plugins' hooks."""
        findings = _explain(evidence)
        if methods.base(evidence.method) == "fork" or not item.ihook.pytest_startmethod_diagnose.get_hookimpls():
            return findings
        from . import diagnose_hook

        error = call.excinfo.value if call.excinfo is not None else None
        place = evidence.raised_at
        failure = FailedLeg(
            nodeid=evidence.leg,
            method=evidence.method,
            when=call.when,  # type: ignore[arg-type]
            outcome=evidence.outcome,
            exception=diagnose_hook.exception_name(error) if error is not None else "",
            message=diagnose_hook.exception_text(error) if error is not None else "",
            file=place.file if place is not None else None,
            line=place.line if place is not None else None,
            launches=tuple(each.as_dict() for each in evidence.launches),
            tasks=tuple(each.as_dict() for each in evidence.tasks),
            children=tuple(evidence.reports),
            findings=findings,
        )
        theirs, troubles = diagnose_hook.ask(item, failure)
        self._recorder.troubles += [each for each in troubles if each not in self._recorder.troubles]
        return unique(diagnose_hook.ranked(findings, theirs))

    def _note_runner(self, state: LegState, runner: Place) -> None:
        """Add a finding that the leg's children would re-run pytest without us; it follows the causes of a failure."""
        fork = methods.base(state.leg.method) == "fork"
        if not fork and not state.watched and state.record.launches:
            from ..causes import vacuous

            place = len(state.findings) if state.outcomes[-1][1] == "failed" else 0
            state.findings.insert(place, vacuous.runner(runner))

    def _note_socket(self, state: LegState, temporary: str) -> None:
        """Add a finding if, in a session without legs, this test would break the forkserver for later ones."""
        if state.leg.method == "forkserver":
            from ..causes import forkserver

            note = forkserver.socket_at_risk(state.record.launches, temporary)
            state.findings += [] if note is None else [note]

    def _end_leftovers(self, state: LegState) -> None:
        root = str(self._config.rootpath)
        left = leftovers.end(state.record.launches)
        if left:  # their last output must not appear in the next test's report
            pytest_silent.forget_captured(self._config)
        state.notes += [relative(each, root) for each in leftovers.sentences(left, state.leg.nodeid)]

    def _examine_passed(self, report: pytest.TestReport, state: LegState, evidence: Evidence) -> None:
        """Check a leg that passed: whether it exercised its method, and whether its launches would work elsewhere."""
        leg = state.leg
        if evidence.failures or any(each.observed and each.observed.primitives for each in _work(evidence)):
            state.findings += _explain(evidence)
        if hasattr(report, "wasxfail") or not report.passed:
            return
        started = any(each.method == evidence.method for each in (*evidence.launches, *evidence.inherited))
        if leg.vacuous != "ignore" and not started:
            from ..causes import vacuous as vacuous_causes

            state.vacuous = vacuous_causes.vacuous(evidence)
        if self._settings.precheck == "error":
            self._predict(state, _ERROR_SECONDS)
        root = str(self._config.rootpath)
        if state.vacuous is not None and leg.vacuous == "fail":
            vacuous = state.vacuous
            said = [f"vacuous: {vacuous.message} ({vacuous.code})", f"fix: {vacuous.fix}"]
            self._fail(report, state, said)
        elif state.predictions and self._settings.precheck == "error":
            said = [f"pre-check: what this test starts under fork would not start under spawn ({leg.nodeid})"]
            below = [line for each in state.predictions for line in ("", *each.section_lines(root))]
            self._fail(report, state, said, below)

    def _predict(self, state: LegState, seconds: float, *, give_up: bool = True) -> None:
        """Record what would keep a fork leg's processes from starting under other methods."""
        from ..causes import explain

        collect_predictions(state.record.pending, seconds, give_up=give_up)
        state.predictions = explain.predicted(state.record.launches)

    def _fail(self, report: pytest.TestReport, state: LegState, said: Sequence[str], below: Sequence[str] = ()) -> None:
        """Turn a passing leg into a failure whose text is `said`, then `below`. The first of `said` is its message."""
        root = str(self._config.rootpath)
        texts = [relative(each, root) for each in said]
        lines = [line for text in texts for line in wrap(text, first="")]
        report.outcome = "failed"
        report.longrepr = "\n".join([*lines, *below])
        state.message = texts[0]

    def _show_children(self, report: pytest.TestReport, state: LegState, evidence: Evidence) -> None:
        """Add the children's errors below the failure, each kind once."""
        from ..report import tracebacks

        full, root = self._config.getoption("fulltrace", False), str(self._config.rootpath)
        texts: dict[object, str] = {}
        for each in evidence.reports:
            key: object = (each.phase, each.task, each.error and (each.error.type, each.error.message))
            told = each.phase in ("start-up", "unpickling") and not tracebacks.has_user_frames(each)
            if each.phase != "stack" and not told and key not in state.children:
                texts.setdefault(key, "\n".join(tracebacks.traceback_lines(each, root, full)))
        for key, text in list(texts.items())[:_SHOWN_CHILDREN]:
            state.children.add(key)
            pytest_compat.add_section(report, f"start method {state.leg.method}: in the child", text)

    def _show(self, report: pytest.TestReport, state: LegState, findings: tuple[Finding, ...]) -> None:
        """Add findings below the failure, except those already below an earlier failure of this leg."""
        new = [each for each in findings if each not in state.findings]
        state.findings += new
        setattr(report, BELOW, [list(each.key) for each in new])
        for title, text in self.sections(state, new):
            pytest_compat.add_section(report, title, text)

    def sections(self, state: LegState, findings: Iterable[Finding]) -> list[tuple[str, str]]:
        """Return title and text of each finding for other reporters; the terminal renders its own from the results."""
        root, method = str(self._config.rootpath), state.leg.method
        return [
            (_title(each, method), "\n".join(each.section_lines(root, titled=False, method=method)))
            for each in findings
        ]

    def _show_inside(self, report: pytest.TestReport, state: LegState, evidence: Evidence) -> None:
        """Add at ``-vv`` what the child's code reads."""
        if self._config.get_verbosity() < 2:
            return
        from ..causes import state as state_causes

        root = str(self._config.rootpath)
        text = "\n".join(relative(line, root) for line in state_causes.look_inside(evidence))
        if text:
            pytest_compat.add_section(report, f"start method {state.leg.method}: what the child reads", text)

    def result(self, state: LegState) -> LegResult:
        """Return the result of a finished leg."""
        phases = dict(reversed(state.outcomes))  # the first outcome of each phase
        words = [outcome for _, outcome in state.outcomes]
        if any(when != "call" and outcome == "failed" for when, outcome in state.outcomes):
            outcome = "error" if phases.get("call") != "failed" else "failed"
        else:
            outcome = next((w for w in ("failed", "skipped", "xfailed", "xpassed") if w in words), "passed")
        leg = state.leg
        return LegResult(
            nodeid=leg.nodeid,
            test=leg.test,
            method=leg.method,
            file=leg.file,
            line=leg.line,
            outcome=outcome,
            duration=state.duration,
            message=state.message,
            launches=tuple(each.known() for each in state.record.launches),
            tasks=tuple(each.as_dict() for each in state.record.tasks),
            vacuous=state.vacuous,
            findings=unique(state.findings),
            predictions=state.predictions,
            foreign=tuple(
                each.as_dict() for each in (*foreign.pinned(state.record.launches, leg.method), *state.record.foreign)
            ),
            discovered=state.discovered or state.watched,
            planned=leg.planned,
            troubles=(*state.notes, *(f"pytest-startmethod: {each}" for each in self._recorder.troubles)),
        )


def _explain(evidence: Evidence) -> tuple[Finding, ...]:
    from ..causes import explain

    return explain.explain(evidence)


def _work(evidence: Evidence) -> Sequence[Launch | Task]:
    return (*evidence.launches, *evidence.tasks, *evidence.inherited)


def _title(each: Finding, method: str) -> str:
    return f"start method {method}: {each.code} {each.name}"


def _message(report: pytest.TestReport) -> str | None:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return next(iter(text.splitlines()), None)
