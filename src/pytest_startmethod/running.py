"""Run one leg: its method active, its launches recorded, its report annotated."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Generator, Sequence
from dataclasses import replace
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any

import pytest

from . import (
    _cpython,
    _pytest_private,
    again,
    diagnosis,
    finding,
    leftovers,
    limits,
    primitives,
)
from . import _multiprocessing as mp
from .activation import Activation, ForkServers, Patches, SetByUser, main_is_pytest, unguarded_runner, without_main
from .callers import Place, owner
from .children import ChildReport, ReportDirectory
from .collection import DISCOVERED, LEG, Leg
from .fixtures import Teardown
from .launches import Fixture, Launch, LegRecord, Recorder
from .report import LegResult, relative, wrap
from .warning import StartMethodWarning

# What only a failure needs is imported by it: a fork copies the page tables of all that is loaded.
if TYPE_CHECKING:
    from . import child_causes
    from .discovery import Discovery
    from .finding import Finding
    from .loading import Loader
    from .settings import Settings

_SHOWN_CHILDREN = 3

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
        self.record.closed.clear()
        self.duration, self.message, self.vacuous, self.hang, self.predictions = 0.0, None, None, None, ()


class Running:
    """The hooks around a running leg. Registered when the first leg is collected."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.recorder = Recorder()
        self.servers = ForkServers()
        self.reports = _report_directory(self.recorder)
        self.recorder.dead_workers = self._why_workers_died
        self.recorder.lost_jobs = self._lost_jobs
        self._loader: Loader | None = None
        if settings.precheck == "error":
            self.recorder.loader = self._fresh_child
        self._state: LegState | None = None
        self._native = mp.interpreter_default()
        self._runner = unguarded_runner()
        """The line of the main module that runs pytest outside a main guard."""
        self._runner_told = False
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
        if leg.method not in mp.available():
            return (yield)  # its skip says so
        self._give_temporary_directory()
        activation = Activation(leg.method)
        patches = Patches()
        precheck = self.settings.precheck != "off"
        _pytest_private.hide_frames(item, _below_start)
        again.remember(item)
        with self.recorder.leg(leg.nodeid, leg.method, precheck=precheck) as record:
            discovered = DISCOVERED in item.stash
            self._state = item.stash[STATE] = LegState(leg, activation, record, discovered=discovered)
            try:
                if main_is_pytest() or self._runner is not None:
                    patches.put(mp.spawn_module(), "get_preparation_data", without_main)
                if self.reports is not None:
                    self.reports.clear()
                    for owner_, name, wrap_ in self.reports.patches():
                        patches.put(owner_, name, wrap_)
                if mp.has_forkserver():
                    patches.put(mp.forkserver_class(), "ensure_running", self.servers.watch)
                    self.servers.enter()
                patches.put(mp.lock_class(), "__init__", primitives.watch_creation)
                if leg.method != "fork":
                    patches.put(mp.lock_class(), "__getstate__", primitives.adopting(self._native))
                activation.enter()
                return (yield)
            finally:
                leftovers.end(record.launches)  # those of a leg that was interrupted: a finished one has said so
                activation.exit()
                if mp.has_forkserver():
                    self.servers.exit()
                patches.undo()
                self._state = None
                del item.stash[STATE]

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
        with self.recorder.fixture(Fixture(fixturedef.argname, fixturedef.scope, fixturedef.baseid)):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Put the method back if a fixture changed it, and say who changed it."""
        state = item.stash.get(STATE, None)
        if state is None or state.watched:
            return (yield)
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
        if theirs:  # pytest-timeout's limit rules: only look, shortly before
            state.limit = limits.Limit(theirs - min(0.5, theirs / 10), lambda: self._look(state, theirs))
        else:
            seconds = limits.limit_of(chosen, self._finished.get(state.leg.test, []))
            state.limit = limits.Limit(seconds, lambda: self._expire(state, seconds))
        state.limit.start()

    def _stop_clock(self, state: LegState) -> None:
        if state.limit is not None:
            state.limit.cancel()

    @pytest.hookimpl
    def pytest_enter_pdb(self) -> None:
        """Stop the clock: from here on a person decides how long it takes."""
        if self._state is not None:
            self._stop_clock(self._state)

    def _look(self, state: LegState, seconds: float) -> None:
        """Note where everybody stands; called in the middle of the test, which goes on whatever happens here."""
        if state.hang is not None:
            return
        try:
            from . import hang, stacks

            children = stacks.of_children(state.record.launches, self.reports)
            state.hang = hang.explain(hang.Hanging(seconds, stacks.own(), children), state.leg.method)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._look: {trouble}")

    def _expire(self, state: LegState, seconds: float) -> None:
        self._look(state, seconds)
        try:
            leftovers.end(state.record.launches, grace=0.0)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._expire: {trouble}")
        pytest.fail(f"the leg {state.leg.nodeid} was not over after {seconds:g} s (--start-methods-timeout)")

    def _warn(self, state: LegState) -> None:
        for override in state.activation.overrides[state.warned :]:
            state.warned += 1
            if override in self._warned:
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
        if state.discovered:
            report.startmethod_of = state.leg.test  # type: ignore[attr-defined]
        try:
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
        evidence = self._evidence(item, call, report, state)
        if report.when == "call" and state.leg.method != "fork" and not state.watched:
            self._note_runner(state)
        if report.failed:
            state.message = state.message or _message(report)
            if not self.config.getoption("fulltrace", False):
                _pytest_private.shorten_notes(report)
            self._show_children(report, state)
            self._show(report, state, diagnosis.diagnose(evidence))
        elif report.skipped and not hasattr(report, "wasxfail"):
            state.findings += diagnosis.diagnose(evidence)
        elif report.when == "call":
            state.findings += diagnosis.swallowed(evidence)
            if report.passed and not hasattr(report, "wasxfail"):
                self._examine(report, state, evidence)
        state.count(report)
        if report.when == "call":
            self._finished.setdefault(state.leg.test, []).append(report.duration)
        if report.when == "teardown":
            if not state.watched:
                self._end_leftovers(state)
            report.startmethod = self._result(state).as_dict()  # type: ignore[attr-defined]
            state.start_anew()

    def _note_runner(self, state: LegState) -> None:
        if self._runner is not None and not self._runner_told and state.record.launches:
            self._runner_told = True
            state.findings.append(diagnosis.runner(self._runner))

    def _end_leftovers(self, state: LegState) -> None:
        root = str(self.config.rootpath)
        for launch in leftovers.end(state.record.launches):
            state.notes.append(relative(leftovers.sentence(launch, state.leg.nodeid), root))

    def _examine(self, report: pytest.TestReport, state: LegState, evidence: diagnosis.Evidence) -> None:
        """Look at a leg that passed: did it test its method, would what it started start elsewhere."""
        leg = state.leg
        if leg.vacuous != "ignore":
            state.vacuous = diagnosis.vacuous(evidence)
        state.predictions = diagnosis.predicted(evidence)
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
        """Put the findings below the failure; one that stands below an earlier failure is named only."""
        root = str(self.config.rootpath)
        new = [each for each in findings if each not in state.findings]
        state.findings += new
        for each in new:
            identity = (each.code, each.path, each.file, each.line, state.leg.method)
            first = self._shown.setdefault(identity, report.nodeid)
            lines = (
                each.section_lines(root, titled=False) if first == report.nodeid else wrap(f"the same as in {first}")
            )
            title = f"start method {state.leg.method}: {each.code} {each.name}"
            _pytest_private.add_section(report, title, "\n".join(lines))

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
            children=self._children(record) if report.failed else (),
            hang=state.hang,
        )
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
            self.reports.read(), record.launches, parent, _not_loading, tuple(self.reports.unreturned)
        )

    def _fresh_child(self) -> Loader:
        if self._loader is None:
            from .loading import Loader

            self._loader = Loader()
            self._loader.__enter__()
        return self._loader

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
            discovered=state.discovered or state.watched,
            troubles=(*state.notes, *(f"pytest-startmethod: {each}" for each in self.recorder.troubles)),
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """End what the legs left: processes of wider fixtures, servers, the directory of the reports."""
        self.recorder.forget_fixtures()
        leftovers.end_all(self.recorder.of_fixtures)
        if self._loader is not None:
            self._loader.__exit__(None, None, None)
        if mp.has_forkserver():
            self.servers.close()
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


def _report_directory(recorder: Recorder) -> ReportDirectory | None:
    """Make the directory for what children report; without one, nothing is reported and everything else works."""
    try:
        directory = ReportDirectory.create()
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


def _override_text(override: SetByUser, leg: Leg) -> str:
    call = f"set_start_method({override.method!r})"
    if override.wins:
        return f"{call} replaces the method of {leg.nodeid} from here on: what it starts tests {override.method}"
    return f"{call} is set aside while a leg runs: each leg runs under its own method"


def _below_start(filename: str) -> bool:
    """Say whether a frame below ``Process.start()`` is CPython's or ours."""
    return owner(filename) == "ours" or (owner(filename) == "stdlib" and "multiprocessing" in filename)


def _fail(report: pytest.TestReport, text: str) -> None:
    report.outcome = "failed"
    report.longrepr = text


def _message(report: pytest.TestReport) -> str | None:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return next(iter(text.splitlines()), None)


def _raised_at(tb: Any) -> Place | None:
    place = None
    for frame, line in traceback.walk_tb(tb):
        if owner(frame.f_code.co_filename) == "user":
            place = Place(os.path.abspath(frame.f_code.co_filename), line)
    return place
