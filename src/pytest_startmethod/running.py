"""Run one leg: its method active, its launches recorded, its report annotated."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any

import pytest

from . import (
    _cpython,
    _pytest_private,
    again,
    backends,
    diagnosis,
    finding,
    foreign,
    leftovers,
    limits,
    primitives,
    selection,
)
from . import _multiprocessing as mp
from .activation import Activation, ForkServers, Patches, SetByUser, main_is_pytest, unguarded_runner, without_main
from .callers import Place, owner
from .children import ChildReport, ReportDirectory
from .collection import DISCOVERED, LEG, Leg
from .comparing import Comparison, Failed
from .fixtures import Teardown
from .launches import Fixture, Launch, LegRecord, Recorder
from .patches import PatchLog
from .report import LegResult, properties, relative, wrap
from .warning import StartMethodWarning

# What only a failure needs is imported by it: a fork copies the page tables of all that is loaded.
if TYPE_CHECKING:
    from . import child_causes, verifying
    from .discovery import Discovery
    from .finding import Finding
    from .settings import Settings
    from .verifying import Verifier

_SHOWN_CHILDREN = 3
_TRIAL_SECONDS = 10.0
_TRIAL_TIMES = 10.0
"""An experiment takes no longer than these seconds and so many times the longest finished leg of the test."""

STATE = pytest.StashKey["LegState"]()
"""What is known of a leg while it runs; gone when it is over."""


class LegState:
    """One running leg: everything that `Running`'s hooks share."""

    def __init__(
        self, leg: Leg, activation: Activation, record: LegRecord, *, watched: bool = False, discovered: bool = False
    ) -> None:
        self.leg = leg
        self.activation = activation
        self.record = record
        self.watched = watched
        """An unmarked test's first run, in which nothing is changed: not the method, no limit, nothing is ended."""
        self.discovered = discovered
        self.warned = 0
        self.outcomes: list[tuple[str, str]] = []
        """Phase and outcome of each report."""
        self.duration = 0.0
        self.message: str | None = None
        self.vacuous: Finding | None = None
        self.findings: list[Finding] = []
        self.predictions: tuple[Finding, ...] = ()
        self.hang: Finding | None = None
        """What the call waited for when its time was over."""
        self.limit: limits.Limit | None = None
        self.children: set[object] = set()
        """What children raised, as far as it stands below a failure."""
        self.notes: list[str] = []
        """What the summary must say because a warning could not."""
        self.inside: list[str] = []
        """The look inside, for the next failure."""
        self.debugged = False
        self.trial: float | None = None
        """The most seconds of a call if the leg only runs again for an experiment; its own run has None."""
        self.shown: list[tuple[pytest.TestReport, tuple[Finding, ...]]] = []
        """The failures of the last run, and the findings that stand below each."""
        self.touched: set[tuple[str, str]] = set()
        """File and function of each frame of the tracebacks of these failures, those of the children, too."""
        self.not_pickled = False
        """Whether one of them comes from a start that could not pickle."""
        self.finished: LegResult | None = None
        """The last run's result, once it is over."""

    def count(self, report: pytest.TestReport) -> None:
        """Take a report's phase, outcome and duration."""
        outcome: str = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        self.outcomes.append((str(report.when), outcome))
        self.duration += report.duration

    def start_anew(self) -> None:
        """Forget a run that is over: pytest-rerunfailures runs the leg again within the same span."""
        for each in (self.outcomes, self.findings, self.children, self.record.launches, self.record.failures):
            each.clear()
        self.record.tasks.clear()
        self.record.foreign.clear()
        self.record.closed.clear()
        self.duration, self.message, self.vacuous, self.hang, self.predictions = 0.0, None, None, None, ()


class Running:
    """The hooks around a running leg. Registered when the first leg is collected."""

    def __init__(self, config: pytest.Config, settings: Settings, temporary: str | None = None) -> None:
        self.config = config
        self.settings = settings
        self.recorder = Recorder()
        self.servers = ForkServers()
        self._others: dict[str, ForkServers] = {}
        """By package: those of other backends that legs ran under."""
        self.reports = _report_directory(self.recorder, temporary)
        self.recorder.dead_workers = self._why_workers_died
        self.recorder.lost_jobs = self._lost_jobs
        self.comparison = Comparison(str(config.rootpath), settings.user_code)
        self.recorder.observe = self.comparison.observe
        if settings.precheck == "error":
            self.recorder.loader = self.comparison.fresh_child
        self.patched = PatchLog(pytest.MonkeyPatch)
        self._verifier: Verifier | None = None
        self._fork_failed: set[str] = set()
        """The tests whose leg under fork failed."""
        self._state: LegState | None = None
        self._native = mp.interpreter_default()
        self._runner = unguarded_runner()
        """The line of the main module that runs pytest outside a main guard."""
        self._finished: dict[str, list[float]] = {}
        """By test: how long the calls of its finished legs took."""
        self._warned: set[SetByUser] = set()
        self._shown: dict[object, str] = {}
        """Findings that already stand below a failure, with its node id."""
        self.discovery: Discovery | None = None

    # -- the leg's span ----------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Make the leg's method the default from before its first fixture until after its last."""
        leg = item.stash.get(LEG, None)
        if leg is None:
            return (yield)
        if backends.unavailable_reason(self.config, leg.method) is not None:
            return (yield)  # its skip says so
        held = self._hold(item, leg)
        try:
            with self._running(item, leg) as state:
                result = yield
            if held is not None:
                self._verify(item, state, held)
            return result
        finally:
            if held is not None:
                held.release()

    @contextmanager
    def _running(self, item: pytest.Item, leg: Leg, trial: float | None = None) -> Iterator[LegState]:
        """Make the leg's method the default and listen; `trial` as in `LegState`."""
        backend = backends.of(self.config, leg.method)
        self._give_temporary_directory()
        activation = Activation(selection.base(leg.method), backend.package)
        patches = Patches()
        servers: list[ForkServers | None] = []
        precheck = self.settings.precheck != "off"
        _pytest_private.hide_frames(item, _below_start)
        around = self._state
        if trial is None:
            again.remember(item)
            if ("start_method", leg.method) not in item.user_properties:
                item.user_properties.append(("start_method", leg.method))
        with self.recorder.leg(leg.nodeid, leg.method, precheck=precheck, backend=backend) as record:
            record.patches = self.patched.begin()
            discovered = DISCOVERED in item.stash
            state = self._state = item.stash[STATE] = LegState(leg, activation, record, discovered=discovered)
            state.trial = trial
            try:
                if self.reports is not None:
                    self.reports.clear()
                for package in dict.fromkeys((mp.STDLIB, backend.package)):
                    self._patch(patches, package, activation.method)
                    servers.append(self._servers_of(package))
                activation.enter()
                yield state
            finally:
                leftovers.end(record.launches)  # those of a leg that was interrupted: a finished one has said so
                activation.exit()
                for each in servers:
                    if each is not None:
                        each.exit()
                patches.undo()
                self._state = around
                del item.stash[STATE]

    def _patch(self, patches: Patches, package: str, method: str) -> None:
        """Exchange for a leg what `package` starts processes with; `method` is without the backend."""
        stdlib = package == mp.STDLIB
        if main_is_pytest() or self._runner is not None:
            patches.put(mp.spawn_module(package), "get_preparation_data", without_main)
        if self.reports is not None:
            for owner_, name, wrap_ in self.reports.patches(package):
                patches.put(owner_, name, wrap_)
        native = self._native if stdlib else mp.interpreter_default(package)
        patches.put(mp.lock_class(package), "__init__", partial(primitives.watch_creation, package=package))
        if method != "fork":
            patches.put(mp.lock_class(package), "__getstate__", primitives.adopting(native, package))

        if mp.has_forkserver():
            servers = self.servers if stdlib else self._others.setdefault(package, ForkServers(package))
            patches.put(mp.forkserver_class(package), "ensure_running", servers.watch)

    def _servers_of(self, package: str) -> ForkServers | None:
        """Put our forkserver of `package` in the place of the user's."""
        if not mp.has_forkserver():
            return None
        servers = self.servers if package == mp.STDLIB else self._others[package]
        servers.enter()
        return servers

    # -- experiments -------------------------------------------------------------------------------------------------

    def _hold(self, item: pytest.Item, leg: Leg) -> _pytest_private.HeldReports | None:
        """Keep the leg's reports back from its first failure on, if experiments may have something to add."""
        if not self.settings.verify or selection.base(leg.method) == "fork" or self.reports is None:
            return None
        if ":" in leg.method:  # what an experiment sends goes through multiprocessing's own pickler
            return None
        if self.config.getoption("usepdb", False) or self.config.getoption("setuponly", False) or limits.is_debugging():
            return None
        return _pytest_private.HeldReports(item.session)

    def _verify(self, item: pytest.Item, state: LegState, held: _pytest_private.HeldReports) -> None:
        """Run a failed leg again, and put what that said into the reports that were held back."""
        shown = [each for each in state.shown if any(each[0] is report for report in held.reports)]
        if not shown or state.finished is None or state.debugged or state.leg.test in self._fork_failed:
            return
        from . import verifying

        if self._verifier is None:
            assert self.reports is not None
            self._verifier = verifying.Verifier(self.reports)
        failed = verifying.Failed(
            state.leg.method,
            diagnosis.unique(each for _, findings in shown for each in findings),
            tuple((str(report.when), verifying.message_of(report)) for report, _ in shown),
            frozenset(state.touched),
            state.not_pickled,
        )
        try:
            verified = self._verifier.verify(failed, lambda around: self._run_again(item, state, around))
            self._tell(state, shown, verified, held)
        except Exception:
            self.recorder.troubles.append(traceback.format_exc(limit=-1).strip().splitlines()[-1])

    def _run_again(
        self, item: pytest.Item, state: LegState, around: AbstractContextManager[object]
    ) -> list[pytest.TestReport]:
        """Run the leg once more, silently; nothing of it stays."""
        troubles = len(self.recorder.troubles)
        self.servers.renew()  # whether a server ran already is something that a test can see
        self.recorder.forget_fixtures()
        observe, self.recorder.observe = self.recorder.observe, None
        seconds = _TRIAL_SECONDS + _TRIAL_TIMES * max(self._finished.get(state.leg.test, []), default=0.0)
        try:
            with self._running(item, state.leg, seconds) as trial, around:
                return again.run(item, state.leg, silent=True, stash={STATE: trial})
        finally:
            self.recorder.observe = observe
            self.recorder.forget_fixtures()
            del self.recorder.troubles[troubles:]

    def _tell(
        self,
        state: LegState,
        shown: list[tuple[pytest.TestReport, tuple[Finding, ...]]],
        verified: verifying.Verified,
        held: _pytest_private.HeldReports,
    ) -> None:
        """Say below the failures, and in the leg's result, what the runs said."""
        from .verifying import FLAKY

        titles = {_title(each, state.leg.method) for _, findings in shown for each in findings}
        by_identity = {_identity(each): each for each in verified.findings}
        for report, findings in shown:
            _pytest_private.drop_sections(report, titles.__contains__)
            mine = {_identity(each) for each in findings}
            self._show_findings(report, state, [each for key, each in by_identity.items() if key in mine])
        if verified.flaky:
            _pytest_private.add_section(shown[0][0], f"start method {state.leg.method}: flaky", f"  {FLAKY}")
        assert state.finished is not None
        rest = [each for each in state.finished.findings if not any(each in findings for _, findings in shown)]
        result = replace(state.finished, findings=(*verified.findings, *rest), flaky=verified.flaky)
        for report in held.reports:
            if hasattr(report, "startmethod"):
                root = str(self.config.rootpath)
                before = properties(state.finished, root)
                others = [each for each in report.user_properties if each not in before]
                report.user_properties[:] = [*others, *properties(result, root)]
                report.startmethod = result.as_dict()

    def _give_temporary_directory(self) -> None:
        """Have a place for multiprocessing's sockets that no test removes, and that goes with the session.

        It is made at first use, and a test may have redirected ``tempfile.tempdir`` to a directory that it removes.
        """
        theirs = _cpython.temporary_directory_of(current_process())
        if self.reports is not None and (theirs is None or not os.path.isdir(theirs)):
            _cpython.set_temporary_directory(current_process(), self.reports.path)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Know whose start it is."""
        if self._state is not None:
            self.patched.watch()
        with self.recorder.fixture(Fixture(fixturedef.argname, fixturedef.scope, fixturedef.baseid)):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Put the method back if a fixture changed it, and say who changed it."""
        state = item.stash.get(STATE, None)
        if state is None or state.watched:
            return (yield)
        self.patched.watch()
        state.activation.enter_call()
        self._warn(state)
        self._start_clock(item, state)
        try:
            return (yield)
        finally:
            self._stop_clock(state)
            state.activation.leave_call()
            self._warn(state)

    # -- the time limit ----------------------------------------------------------------------------------------------

    def _start_clock(self, item: pytest.Item, state: LegState) -> None:
        if self.config.getoption("usepdb", False) or limits.is_debugging():
            return
        chosen = state.leg.timeout if state.leg.timeout is not None else self.settings.timeout
        theirs = _pytest_private.pytest_timeout_of(item)
        if state.trial is not None:
            seconds = min(theirs or state.trial, chosen or state.trial, state.trial)
            state.limit = limits.Limit(seconds, lambda: self._expire(item, state, seconds))
        elif theirs:  # pytest-timeout's limit rules: only look, shortly before
            state.limit = limits.Limit(theirs - min(0.5, theirs / 10), lambda: self._look(item, state, theirs))
        else:
            seconds = limits.limit_of(chosen, self._finished.get(state.leg.test, []))
            state.limit = limits.Limit(seconds, lambda: self._expire(item, state, seconds))
        state.limit.start()

    def _stop_clock(self, state: LegState) -> None:
        if state.limit is not None:
            state.limit.cancel()

    @pytest.hookimpl
    def pytest_enter_pdb(self) -> None:
        """Stop the clock: from here on a person decides how long it takes."""
        if self._state is not None:
            self._state.debugged = True
            self._stop_clock(self._state)

    def _look(self, item: pytest.Item, state: LegState, seconds: float) -> None:
        """Note where everybody stands; called in the middle of the test, which goes on whatever happens here."""
        if state.hang is not None:
            return
        try:
            from . import hang, stacks

            children = stacks.of_children(state.record.launches, self.reports)
            started = bool(state.record.launches or self._inherited(item, state.leg))
            state.hang = hang.explain(hang.Hanging(seconds, stacks.own(), children, started), state.leg.method)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._look: {trouble}")

    def _expire(self, item: pytest.Item, state: LegState, seconds: float) -> None:
        self._look(item, state, seconds)
        try:
            leftovers.end(state.record.launches, grace=0.0)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._expire: {trouble}")
        pytest.fail(f"the leg {state.leg.nodeid} was not over after {seconds:g} s (--start-methods-timeout)")

    def _warn(self, state: LegState) -> None:
        for override in state.activation.overrides[state.warned :]:
            state.warned += 1
            if override in self._warned or state.trial is not None:
                continue
            self._warned.add(override)
            text = _override_text(override, state.leg)
            file, line = (
                (override.place.file, override.place.line) if override.place else (state.leg.file, state.leg.line)
            )
            try:
                warnings.warn_explicit(StartMethodWarning(text), None, file, line)
            except StartMethodWarning:  # warnings are errors here, and the outcome is the user's own
                state.notes.append(
                    f"StartMethodWarning: {relative(f'{file}:{line}', str(self.config.rootpath))}: {text}"
                )

    # -- reports -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Annotate what failed; at the end of the leg, attach what is known of it."""
        report = yield
        state = item.stash.get(STATE, None)
        if self.discovery is not None and (state is None or state.watched):
            state = self.discovery.state_of(item, call, report)
        if state is None:
            return report
        if state.trial is not None:
            return report
        if state.discovered:
            report.startmethod_of = state.leg.test  # type: ignore[attr-defined]
        try:
            with limits.alarm_paused():
                self._annotate(item, call, report, state)
        except Exception:
            self.recorder.troubles.append(traceback.format_exc(limit=-1).strip().splitlines()[-1])
            state.outcomes.append((str(report.when), report.outcome))
            if report.when == "teardown":
                report.startmethod = self._result(state).as_dict()  # type: ignore[attr-defined]
        return report

    def _annotate(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> None:
        if report.when == "setup":
            state.shown.clear()
            state.touched.clear()
            state.not_pickled = False
        evidence = self._evidence(item, call, report, state)
        if report.failed:
            state.message = state.message or _message(report)
            if not self.config.getoption("fulltrace", False):
                _pytest_private.shorten_notes(report)
            self._show_children(report, state)
            findings = self._ask_hooks(item, call, evidence, diagnosis.diagnose(evidence))
            self._show(report, state, findings)
            self._show_inside(report, state)
            state.shown.append((report, findings))
            state.not_pickled |= evidence.failure is not None
            state.touched |= _touched(call.excinfo) | self._touched_by_children()
            if selection.base(state.leg.method) == "fork":
                self._fork_failed.add(state.leg.test)
        elif report.skipped and not hasattr(report, "wasxfail"):
            state.findings += diagnosis.diagnose(evidence)
        elif report.when == "call":
            state.findings += diagnosis.swallowed(evidence)
            if report.passed and not hasattr(report, "wasxfail"):
                self._examine(report, state, evidence)
        state.count(report)
        if report.when == "call":
            self._note_runner(state)
            self.comparison.note_call(state.leg.test, state.leg.method, str(report.outcome), _failed_with(call))
            self._finished.setdefault(state.leg.test, []).append(report.duration)
        if report.when == "teardown":
            if not state.watched:
                self._end_leftovers(state)
                self._note_socket(state)
            self.recorder.note_exits(state.record)  # else it depends on the garbage collector whether they are known
            state.finished = self._result(state)
            report.startmethod = state.finished.as_dict()  # type: ignore[attr-defined]
            report.user_properties += properties(state.finished, str(self.config.rootpath))
            state.start_anew()

    def _ask_hooks(
        self,
        item: pytest.Item,
        call: pytest.CallInfo[None],
        evidence: diagnosis.Evidence,
        findings: tuple[Finding, ...],
    ) -> tuple[Finding, ...]:
        """Let other plugins say what they know of a failure under spawn or forkserver."""
        if selection.base(evidence.method) == "fork" or not item.ihook.pytest_startmethod_diagnose.get_hookimpls():
            return findings
        from . import failed

        error = call.excinfo.value if call.excinfo is not None else None
        place = evidence.raised_at
        failure = failed.FailedLeg(
            nodeid=evidence.leg,
            method=evidence.method,
            when=call.when,  # type: ignore[arg-type]
            outcome=evidence.outcome,
            exception=failed.exception_name(error) if error is not None else "",
            message=failed.exception_text(error) if error is not None else "",
            file=place.file if place is not None else None,
            line=place.line if place is not None else None,
            launches=tuple(each.as_dict() for each in evidence.launches),
            tasks=tuple(each.as_dict() for each in evidence.tasks),
            children=self._reports(),
            findings=findings,
        )
        theirs, troubles = failed.ask(item, failure)
        self.recorder.troubles += [each for each in troubles if each not in self.recorder.troubles]
        return diagnosis.unique(failed.ranked(findings, theirs))

    def _note_runner(self, state: LegState) -> None:
        """Say of a leg with children what they would do without us; below what it failed of with us."""
        fork = selection.base(state.leg.method) == "fork"
        if self._runner is not None and not fork and not state.watched and state.record.launches:
            place = len(state.findings) if state.outcomes[-1][1] == "failed" else 0
            state.findings.insert(place, diagnosis.runner(self._runner))

    def _note_socket(self, state: LegState) -> None:
        """Say if the forkserver of a session without legs would be lost after this test."""
        if state.leg.method == "forkserver" and self.servers.temporary is not None:
            from . import forkserver_causes

            note = forkserver_causes.socket_at_risk(state.record.launches, self.servers.temporary)
            state.findings += [] if note is None else [note]

    def _end_leftovers(self, state: LegState) -> None:
        root = str(self.config.rootpath)
        left = leftovers.end(state.record.launches)
        state.notes += [relative(each, root) for each in leftovers.sentences(left, state.leg.nodeid)]

    def _examine(self, report: pytest.TestReport, state: LegState, evidence: diagnosis.Evidence) -> None:
        """Look at a leg that passed: did it test its method, would what it started start elsewhere."""
        leg = state.leg
        if leg.vacuous != "ignore":
            state.vacuous = diagnosis.vacuous(evidence)
        state.predictions = diagnosis.predicted(evidence)
        state.findings += self.comparison.unshared(evidence)
        root = str(self.config.rootpath)
        if state.vacuous is not None and leg.vacuous == "fail":
            text = f"vacuous: {state.vacuous.message} ({state.vacuous.code})\nfix: {state.vacuous.fix}"
            _fail(report, relative(text, root))
        elif state.predictions and self.settings.precheck == "error" and not state.watched:
            lines = [f"pre-check: what this test starts under fork would not start under spawn ({leg.nodeid})"]
            for each in state.predictions:
                lines += ["", *finding.section_lines(each, root)]
            _fail(report, "\n".join(lines))
        if report.failed:
            state.message = _message(report)

    def _show_children(self, report: pytest.TestReport, state: LegState) -> None:
        """Put what children raised below the failure, each kind once."""
        from . import child_causes

        full, root = self.config.getoption("fulltrace", False), str(self.config.rootpath)
        texts: dict[object, str] = {}
        for each in self._reports():
            key: object = (each.phase, each.task, each.error and (each.error.type, each.error.message))
            told = each.phase in ("start-up", "unpickling") and not child_causes.has_user_frames(each)
            if each.phase != "stack" and not told and key not in state.children:
                texts.setdefault(key, "\n".join(child_causes.traceback_lines(each, root, full)))
        for key, text in list(texts.items())[:_SHOWN_CHILDREN]:
            state.children.add(key)
            _pytest_private.add_section(report, f"start method {state.leg.method}: in the child", text)

    def _show(self, report: pytest.TestReport, state: LegState, findings: tuple[Finding, ...]) -> None:
        """Put the findings below the failure that do not stand below an earlier one of this leg."""
        new = [each for each in findings if each not in state.findings]
        state.findings += new
        self._show_findings(report, state, new)

    def _show_findings(self, report: pytest.TestReport, state: LegState, findings: Sequence[Finding]) -> None:
        """Put findings below a failure; one that stands below an earlier leg's is named only."""
        root, method = str(self.config.rootpath), state.leg.method
        for each in findings:
            first = self._shown.setdefault((_identity(each), method), report.nodeid)
            lines = (
                each.section_lines(root, titled=False, method=method)
                if first == report.nodeid
                else wrap(f"the same as in {first}")
            )
            _pytest_private.add_section(report, _title(each, method), "\n".join(lines))

    def _evidence(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> diagnosis.Evidence:
        record, activation = state.record, state.activation
        excinfo = call.excinfo
        evidence = diagnosis.Evidence(
            leg=state.leg.nodeid,
            method=state.leg.method,
            outcome=report.outcome,
            launches=tuple(record.launches),
            tasks=tuple(record.tasks),
            failures=tuple(record.failures),
            failure=self.recorder.failure_of(excinfo.value) if excinfo is not None else None,
            inherited=self._inherited(item, state.leg),
            asked=tuple(activation.asked),
            overrides=tuple(activation.overrides),
            raised_at=_raised_at(excinfo.tb) if excinfo is not None else None,
            error=excinfo.typename if excinfo is not None else "",
            text=" ".join(str(report.longrepr).split()) if report.failed else "",
            children=self._children(record) if report.failed else (),
            hang=state.hang,
            foreign=tuple(record.foreign),
        )
        if report.failed:
            evidence = replace(evidence, state=self._compared(item, call, state, evidence))
        if not report.failed or state.leg.method != "forkserver":
            return evidence
        from . import forkserver_causes

        seen = forkserver_causes.observe(excinfo.value if excinfo is not None else None)
        return replace(evidence, peculiar=forkserver_causes.explain(evidence, seen))

    def _children(self, record: LegRecord) -> tuple[Finding, ...]:
        """Return why children of the leg failed, by what they reported and how they ended."""
        if self.reports is None:
            return ()
        from . import child_causes

        self.recorder.note_exits(record)
        parent = child_causes.Parent(
            rootdir=str(self.config.rootpath), import_mode=self.config.getoption("importmode", None)
        )
        return child_causes.findings(
            self.reports.read(), record.launches, parent, _not_loading, tuple(self.reports.unreturned), record.tasks
        )

    def _touched_by_children(self) -> set[tuple[str, str]]:
        return {
            (frame.file, frame.function.rpartition(".")[2])
            for each in self._reports()
            for raised in each.raised
            for frame in raised.frames
        }

    def _compared(
        self, item: pytest.Item, call: pytest.CallInfo[None], state: LegState, evidence: diagnosis.Evidence
    ) -> tuple[Finding, ...]:
        """Return what the children saw otherwise than the parent; nothing where that cannot have been the reason."""
        if evidence.failure is not None and evidence.failure.findings:
            return ()
        failed = Failed(
            test=state.leg.test,
            frames=_frames(call.excinfo.tb if call.excinfo is not None else None),
            what=_failed_with(call),
            children=[frame for each in self._reports() for raised in each.raised for frame in raised.frames],
            patches=tuple(state.record.patches),
            environ=self.servers.environment,
            file=str(item.path),
            look_inside=self.config.get_verbosity() >= 2,
        )
        try:
            found, state.inside = self.comparison.findings(evidence, failed)
            return found
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Comparison.findings: {trouble}")
            return ()

    def _show_inside(self, report: pytest.TestReport, state: LegState) -> None:
        """Show at ``-vv`` what the code reads, as one would look it up by hand."""
        if state.inside:
            root = str(self.config.rootpath)
            text = "\n".join(relative(line, root) for line in state.inside)
            _pytest_private.add_section(report, f"start method {state.leg.method}: the look inside", text)
            state.inside = []

    def _why_workers_died(self) -> str:
        errors = [each.error for each in self._reports() if each.error is not None]
        return f"{errors[-1].type}: {errors[-1].message}" if errors else "they left no word of why"

    def _lost_jobs(self) -> set[int]:
        return {each.job for each in self._reports() if each.job is not None}

    def _reports(self) -> tuple[ChildReport, ...]:
        return self.reports.read() if self.reports is not None else ()

    def _inherited(self, item: pytest.Item, leg: Leg) -> list[Launch]:
        """Return what the leg's wider fixtures launched in earlier legs."""
        names = set(getattr(item, "fixturenames", ()))
        return [
            launch
            for fixture, launches in self.recorder.by_fixture.items()
            if fixture.name in names and (leg.nodeid.startswith(fixture.base) or not fixture.base)
            for launch in launches
            if launch.leg != leg.nodeid
        ]

    def _result(self, state: LegState) -> LegResult:
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
            findings=diagnosis.unique(state.findings),
            predictions=state.predictions,
            foreign=tuple(
                each.as_dict() for each in (*foreign.pinned(state.record.launches, leg.method), *state.record.foreign)
            ),
            discovered=state.discovered or state.watched,
            troubles=(*state.notes, *(f"pytest-startmethod: {each}" for each in self.recorder.troubles)),
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """End what the legs left: processes of wider fixtures, servers, the directory of the reports."""
        self.patched.close()
        self.recorder.forget_fixtures()
        leftovers.end_all(self.recorder.of_fixtures)
        self.comparison.close()
        if mp.has_forkserver():
            for servers in (self.servers, *self._others.values()):
                servers.close()
        if self.reports is not None:
            if _cpython.temporary_directory_of(current_process()) == self.reports.path:
                _cpython.set_temporary_directory(current_process(), None)
            self.reports.remove()


class Hooks:
    """`Running` without the hook that spans a leg, which `discovery` calls: to be registered while a leg runs only."""

    def __init__(self, running: Running) -> None:
        for name in dir(running):
            if name.startswith("pytest_") and name not in ("pytest_runtest_protocol", "pytest_sessionfinish"):
                setattr(self, name, getattr(running, name))
        self.pytest_runtest_teardown = Teardown().pytest_runtest_teardown


def _report_directory(recorder: Recorder, temporary: str | None) -> ReportDirectory | None:
    """Make the directory for what children report; without one, nothing is reported and everything else works."""
    try:
        directory = ReportDirectory.create(temporary)
        directory.hold_life_line()
        return directory
    except OSError as trouble:
        recorder.troubles.append(f"children cannot report: {trouble}")
        return None


def _not_loading(launch: Launch) -> Sequence[child_causes.Unloaded]:
    """Ask a fresh child which objects of `launch` do not load, and by which paths."""
    if launch.payload is None:
        return ()
    from . import loading

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


def _override_text(override: SetByUser, leg: Leg) -> str:
    call = f"set_start_method({override.method!r})"
    if override.wins:
        return f"{call} replaces the method of {leg.nodeid} from here on: what it starts tests {override.method}"
    return f"{call} is set aside while a leg runs: each leg runs under its own method"


_MADE_ALIKE = ("multiprocess", "billiard", "dill")


def _below_start(filename: str) -> bool:
    """Say whether a frame below ``Process.start()`` is ours, CPython's, or that of a package made like it."""
    whose = owner(filename)
    if whose == "stdlib":
        return "multiprocessing" in filename or os.path.basename(filename) == "pickle.py"  # dill's runs in Python
    parts = filename.split(os.sep)
    return whose == "ours" or (whose == "installed" and any(each in parts for each in _MADE_ALIKE))


def _fail(report: pytest.TestReport, text: str) -> None:
    report.outcome = "failed"
    report.longrepr = text


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


def _failed_with(call: pytest.CallInfo[None]) -> object:
    """Return the type of what a phase failed with, and the user's line: two failures that have it equal are alike."""
    return None if call.excinfo is None else (call.excinfo.typename, _raised_at(call.excinfo.tb))


def _raised_at(tb: Any) -> Place | None:
    place = None
    for frame, line in traceback.walk_tb(tb):
        if owner(frame.f_code.co_filename) == "user":
            place = Place(os.path.abspath(frame.f_code.co_filename), line)
    return place
