"""Annotate the report of a leg's phase: what failed and why stands below the failure; the outcome stays the user's."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from .._compat import pytest as pytest_compat
from ..causes import ranking
from ..child import reporter
from ..launches import foreign, leftovers
from ..launches.reports import raised_from
from ..model import finding, methods
from ..model.child_report import ChildReport
from ..model.evidence import Evidence
from ..model.failed_leg import FailedLeg
from ..model.finding import relative
from ..model.leg_result import LegResult
from ..model.place import Place
from ..model.unloaded import Unloaded
from ..report.results import properties, wrap
from ..source.callers import owner
from ..state.comparing import Comparison, Failed

# What only a failure needs is imported by it: a fork copies the page tables of all that is loaded.
if TYPE_CHECKING:
    from ..activation.activation import ForkServers
    from ..experiments import verifying
    from ..launches.recorder import Recorder
    from ..model.finding import Finding
    from ..model.launch import Launch
    from ..model.leg import Leg
    from .legs import LegState
    from .settings import Settings

_SHOWN_CHILDREN = 3


class Annotator:
    """Turns what was recorded of a phase into evidence, has it diagnosed, and puts what is found into the report."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        recorder: Recorder,
        comparison: Comparison,
        servers: ForkServers,
        runner: Place | None,
        finished: dict[str, list[float]],
    ) -> None:
        self._config = config
        self._settings = settings
        self._recorder = recorder
        self._comparison = comparison
        self._servers = servers
        self._runner = runner
        """The line of the main module that runs pytest outside a main guard."""
        self._shown: dict[object, str] = {}
        """Findings that already stand below a failure, with its node id."""
        self.fork_failed: set[str] = set()
        """The tests whose leg under fork failed."""
        self._finished = finished
        """By test: how long the calls of its finished legs took."""

    def annotate(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> None:
        """Annotate the report of one phase; that of the last one gets what is known of the leg."""
        if report.when == "setup":
            state.shown.clear()
            state.touched.clear()
            state.not_pickled = False
        if not report.passed or report.when == "call":
            self._examine(item, call, report, state)
        state.count(report)
        if report.when == "call":
            if self._runner is not None:
                self._note_runner(state, self._runner)
            failed_with = None if call.excinfo is None else _failed_with(call.excinfo)
            self._comparison.note_call(state.leg.test, state.leg.method, str(report.outcome), failed_with)
            self._finished.setdefault(state.leg.test, []).append(report.duration)
        if report.when == "teardown":
            self._finish(report, state)

    def _examine(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> None:
        """Say why a phase failed or skipped, or what is to be said of a call that passed."""
        evidence = self._evidence(item, call, report, state)
        if report.failed:
            state.message = state.message or _message(report)
            if not self._config.getoption("fulltrace", False):
                pytest_compat.shorten_notes(report)
            self._show_children(report, state)
            findings = self._ask_hooks(item, call, state, evidence)
            self._show(report, state, findings)
            self._show_inside(report, state)
            state.shown.append((report, findings))
            state.not_pickled |= evidence.failure is not None
            state.touched |= _touched(call.excinfo) | _touched_by_children(state)
            if methods.base(state.leg.method) == "fork":
                self.fork_failed.add(state.leg.test)
        elif report.skipped and not hasattr(report, "wasxfail"):
            state.findings += ranking.diagnose(evidence)
        elif report.when == "call":
            state.findings += ranking.swallowed(evidence)
            if report.passed and not hasattr(report, "wasxfail"):
                self._examine_passed(report, state, evidence)

    def _finish(self, report: pytest.TestReport, state: LegState) -> None:
        """Put what is known of a leg that is over into its last report."""
        record = state.record
        if not state.watched:
            if not record.is_over():
                self._end_leftovers(state)
                self._recorder.note_exits(record)
            if self._servers.temporary is not None:
                self._note_socket(state, self._servers.temporary)
        state.finished = self.result(state)
        report.startmethod = state.finished.as_dict()  # type: ignore[attr-defined]
        report.user_properties += properties(state.finished, str(self._config.rootpath))
        state.start_anew()

    def tell(
        self,
        state: LegState,
        shown: list[tuple[pytest.TestReport, tuple[Finding, ...]]],
        verified: verifying.Verified,
        held: pytest_compat.HeldReports,
    ) -> None:
        """Say below the failures, and in the leg's result, what the runs said."""
        from ..experiments.verifying import FLAKY

        titles = {_title(each, state.leg.method) for _, findings in shown for each in findings}
        by_identity = {_identity(each): each for each in verified.findings}
        for report, findings in shown:
            pytest_compat.drop_sections(report, titles.__contains__)
            mine = {_identity(each) for each in findings}
            if report is shown[0][0]:
                mine |= by_identity.keys() - {_identity(each) for _, others in shown for each in others}
            self.show_findings(report, state, [each for key, each in by_identity.items() if key in mine])
        if verified.flaky:
            pytest_compat.add_section(shown[0][0], f"start method {state.leg.method}: flaky", f"  {FLAKY}")
        assert state.finished is not None
        rest = [each for each in state.finished.findings if not any(each in findings for _, findings in shown)]
        result = replace(state.finished, findings=(*verified.findings, *rest), flaky=verified.flaky)
        for report in held.reports:
            if hasattr(report, "startmethod"):
                root = str(self._config.rootpath)
                before = properties(state.finished, root)
                others = [each for each in report.user_properties if each not in before]
                report.user_properties[:] = [*others, *properties(result, root)]
                report.startmethod = result.as_dict()

    def _ask_hooks(
        self, item: pytest.Item, call: pytest.CallInfo[None], state: LegState, evidence: Evidence
    ) -> tuple[Finding, ...]:
        """Diagnose a failure, and under spawn and forkserver let other plugins say what they know of it."""
        findings = ranking.diagnose(evidence)
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
            children=_reports(state),
            findings=findings,
        )
        theirs, troubles = diagnose_hook.ask(item, failure)
        self._recorder.troubles += [each for each in troubles if each not in self._recorder.troubles]
        return ranking.unique(diagnose_hook.ranked(findings, theirs))

    def _note_runner(self, state: LegState, runner: Place) -> None:
        """Say of a leg with children what they would do without us; below what it failed of with us."""
        fork = methods.base(state.leg.method) == "fork"
        if not fork and not state.watched and state.record.launches:
            place = len(state.findings) if state.outcomes[-1][1] == "failed" else 0
            state.findings.insert(place, ranking.runner(runner))

    def _note_socket(self, state: LegState, temporary: str) -> None:
        """Say if the forkserver of a session without legs would be lost after this test."""
        if state.leg.method == "forkserver":
            from ..causes import forkserver

            note = forkserver.socket_at_risk(state.record.launches, temporary)
            state.findings += [] if note is None else [note]

    def _end_leftovers(self, state: LegState) -> None:
        root = str(self._config.rootpath)
        left = leftovers.end(state.record.launches)
        if left:  # their last words are no words of the next test
            pytest_compat.forget_captured(self._config)
        state.notes += [relative(each, root) for each in leftovers.sentences(left, state.leg.nodeid)]

    def _examine_passed(self, report: pytest.TestReport, state: LegState, evidence: Evidence) -> None:
        """Look at a leg that passed: did it test its method, would what it started start elsewhere."""
        leg = state.leg
        if leg.vacuous != "ignore":
            state.vacuous = ranking.vacuous(evidence)
        state.predictions = ranking.predicted(evidence)
        state.findings += self._comparison.unshared(evidence)
        root = str(self._config.rootpath)
        if state.vacuous is not None and leg.vacuous == "fail":
            vacuous = state.vacuous
            said = [f"vacuous: {vacuous.message} ({vacuous.code})", f"fix: {vacuous.fix}"]
            self._fail(report, state, said)
        elif state.predictions and self._settings.precheck == "error" and not state.watched:
            said = [f"pre-check: what this test starts under fork would not start under spawn ({leg.nodeid})"]
            below = [line for each in state.predictions for line in ("", *finding.section_lines(each, root))]
            self._fail(report, state, said, below)

    def _fail(self, report: pytest.TestReport, state: LegState, said: Sequence[str], below: Sequence[str] = ()) -> None:
        """Let a leg that passed fail for what is `said`; the first text of that is its message."""
        root = str(self._config.rootpath)
        texts = [relative(each, root) for each in said]
        lines = [line for text in texts for line in wrap(text, first="")]
        report.outcome = "failed"
        report.longrepr = "\n".join([*lines, *below])
        state.message = texts[0]

    def _show_children(self, report: pytest.TestReport, state: LegState) -> None:
        """Put what children raised below the failure, each kind once."""
        from ..causes import children

        full, root = self._config.getoption("fulltrace", False), str(self._config.rootpath)
        texts: dict[object, str] = {}
        for each in _reports(state):
            key: object = (each.phase, each.task, each.error and (each.error.type, each.error.message))
            told = each.phase in ("start-up", "unpickling") and not children.has_user_frames(each)
            if each.phase != "stack" and not told and key not in state.children:
                texts.setdefault(key, "\n".join(children.traceback_lines(each, root, full)))
        for key, text in list(texts.items())[:_SHOWN_CHILDREN]:
            state.children.add(key)
            pytest_compat.add_section(report, f"start method {state.leg.method}: in the child", text)

    def _show(self, report: pytest.TestReport, state: LegState, findings: tuple[Finding, ...]) -> None:
        """Put the findings below the failure that do not stand below an earlier one of this leg."""
        new = [each for each in findings if each not in state.findings]
        state.findings += new
        self.show_findings(report, state, new)

    def show_findings(self, report: pytest.TestReport, state: LegState, findings: Sequence[Finding]) -> None:
        """Put findings below a failure; one that stands below an earlier leg's is named only."""
        root, method = str(self._config.rootpath), state.leg.method
        for each in findings:
            first = self._shown.setdefault((_identity(each), method), report.nodeid)
            lines = (
                each.section_lines(root, titled=False, method=method)
                if first == report.nodeid
                else wrap(f"the same as in {first}")
            )
            pytest_compat.add_section(report, _title(each, method), "\n".join(lines))

    def _evidence(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> Evidence:
        record, activation = state.record, state.activation
        excinfo = call.excinfo
        evidence = Evidence(
            leg=state.leg.nodeid,
            method=state.leg.method,
            outcome=report.outcome,
            launches=tuple(record.launches),
            tasks=tuple(record.tasks),
            failures=tuple(record.failures),
            failure=self._recorder.failure_of(excinfo.value) if excinfo is not None else None,
            inherited=self.inherited(item, state.leg),
            asked=tuple(activation.asked),
            overrides=tuple(activation.overrides),
            raised_at=_raised_at(excinfo.tb) if excinfo is not None else None,
            error=excinfo.typename if excinfo is not None else "",
            text=" ".join(str(report.longrepr).split()) if report.failed else "",
            children=self._children(state) if report.failed else (),
            hang=state.hang,
            foreign=tuple(record.foreign),
        )
        if report.failed:
            evidence = replace(evidence, state=self._compared(item, call, state, evidence))
        if not report.failed or state.leg.method != "forkserver":
            return evidence
        from ..causes import forkserver

        seen = forkserver.observe(excinfo.value if excinfo is not None else None)
        return replace(evidence, peculiar=forkserver.explain(evidence, seen))

    def _children(self, state: LegState) -> tuple[Finding, ...]:
        """Return why children of the leg failed, by what they reported and how they ended."""
        if state.reports is None:
            return ()
        from ..causes import children

        record = state.record
        self._recorder.note_exits(record)
        parent = children.Parent(
            rootdir=str(self._config.rootpath), import_mode=self._config.getoption("importmode", None)
        )
        unreturned = tuple(state.reports.unreturned)
        return children.findings(_reports(state), record.launches, parent, _not_loading, unreturned, record.tasks)

    def _compared(
        self, item: pytest.Item, call: pytest.CallInfo[None], state: LegState, evidence: Evidence
    ) -> tuple[Finding, ...]:
        """Return what the children saw otherwise than the parent; nothing where that cannot have been the reason."""
        if evidence.failure is not None and evidence.failure.findings:
            return ()
        failed = Failed(
            test=state.leg.test,
            frames=_frames(call.excinfo.tb if call.excinfo is not None else None),
            what=None if call.excinfo is None else _failed_with(call.excinfo),
            children=[frame for each in _reports(state) for raised in each.raised for frame in raised.frames],
            patches=tuple(state.record.patches),
            environ=self._servers.environment,
            file=str(item.path),
            look_inside=self._config.get_verbosity() >= 2,
            elsewhere=_raised_elsewhere(call),
        )
        try:
            found, state.inside = self._comparison.findings(evidence, failed)
            return (*self._missing(call, state), *found)
        except Exception as trouble:
            self._recorder.troubles.append(f"{type(trouble).__name__} in Comparison.findings: {trouble}")
            return ()

    def _missing(self, call: pytest.CallInfo[None], state: LegState) -> list[Finding]:
        """Return what a child missed that the parent has, by what it raised; under fork it has all."""
        if methods.base(state.leg.method) == "fork":
            return []
        from ..causes import registries

        errors = [raised for each in _reports(state) for raised in each.raised]
        if call.excinfo is not None:
            errors.append(raised_from(reporter._exception(call.excinfo.value)))
        observed = [each.observed for each in state.record.launches] + [each.observed for each in state.record.tasks]
        return registries.findings(errors, [each for each in observed if each is not None])

    def _show_inside(self, report: pytest.TestReport, state: LegState) -> None:
        """Show at ``-vv`` what the code reads, as one would look it up by hand."""
        if state.inside:
            root = str(self._config.rootpath)
            text = "\n".join(relative(line, root) for line in state.inside)
            pytest_compat.add_section(report, f"start method {state.leg.method}: the look inside", text)
            state.inside = []

    def inherited(self, item: pytest.Item, leg: Leg) -> list[Launch]:
        """Return what the leg's wider fixtures launched in earlier legs."""
        names = set(getattr(item, "fixturenames", ()))
        return [
            launch
            for fixture, launches in self._recorder.by_fixture.items()
            if fixture.name in names and (leg.nodeid.startswith(fixture.base) or not fixture.base)
            for launch in launches
            if launch.leg != leg.nodeid
        ]

    def result(self, state: LegState) -> LegResult:
        """Return what is known of a leg that is over."""
        phases = dict(reversed(state.outcomes))  # the first word of each phase
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
            launches=tuple(each.as_dict() for each in state.record.launches),
            tasks=tuple(each.as_dict() for each in state.record.tasks),
            vacuous=state.vacuous,
            findings=ranking.unique(state.findings),
            predictions=state.predictions,
            foreign=tuple(
                each.as_dict() for each in (*foreign.pinned(state.record.launches, leg.method), *state.record.foreign)
            ),
            discovered=state.discovered or state.watched,
            troubles=(*state.notes, *(f"pytest-startmethod: {each}" for each in self._recorder.troubles)),
        )


def _reports(state: LegState) -> tuple[ChildReport, ...]:
    """Return what the children of a leg reported."""
    return state.reports.read() if state.reports is not None else ()


def _touched_by_children(state: LegState) -> set[tuple[str, str]]:
    return {
        (frame.file, frame.function.rpartition(".")[2])
        for each in _reports(state)
        for raised in each.raised
        for frame in raised.frames
    }


def _not_loading(launch: Launch) -> Sequence[Unloaded]:
    """Ask a fresh child which objects of `launch` do not load, and by which paths."""
    if launch.payload is None:
        return ()
    from ..causes import loading

    return loading.predict(launch.payload, method=launch.method)


def _identity(each: Finding) -> object:
    return each.code, each.path, each.file, each.line


def _title(each: Finding, method: str) -> str:
    return f"start method {method}: {each.code} {each.name}"


def _touched(excinfo: pytest.ExceptionInfo[BaseException] | None) -> set[tuple[str, str]]:
    """Return file and function of each frame of a traceback and of those that it was raised from."""
    found: set[tuple[str, str]] = set()
    error = excinfo.value if excinfo is not None else None
    for _ in range(10):
        if error is None:
            break
        for frame, _line in traceback.walk_tb(error.__traceback__):
            found.add((os.path.abspath(frame.f_code.co_filename), frame.f_code.co_name))
        error = error.__cause__ or error.__context__
    return found


def _message(report: pytest.TestReport) -> str | None:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return next(iter(text.splitlines()), None)


def _frames(tb: Any) -> list[tuple[str, int, str]]:
    """Return file, line and function of each frame of a traceback."""
    return [
        (os.path.abspath(f.f_code.co_filename), n, getattr(f.f_code, "co_qualname", f.f_code.co_name))
        for f, n in traceback.walk_tb(tb)
    ]


def _failed_with(excinfo: pytest.ExceptionInfo[BaseException]) -> object:
    """Return the type of what a phase failed with, and the user's line: two failures that have it equal are alike."""
    return excinfo.typename, _raised_at(excinfo.tb)


def _raised_elsewhere(call: pytest.CallInfo[None]) -> bool:
    """Return whether a failure is no assertion, and no line of the user's raised it: ``pytest.fail()`` is one."""
    if call.excinfo is None or isinstance(call.excinfo.value, AssertionError):
        return False
    owners = [owner(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(call.excinfo.tb)]
    return next((each for each in reversed(owners) if each != "runner"), "user") != "user"


def _raised_at(tb: Any) -> Place | None:
    place = None
    for frame, line in traceback.walk_tb(tb):
        if owner(frame.f_code.co_filename) == "user":
            place = Place(os.path.abspath(frame.f_code.co_filename), line)
    return place
