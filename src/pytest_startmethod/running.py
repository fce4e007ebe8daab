"""Run one leg: its method active, its launches recorded, its report annotated."""

from __future__ import annotations

import os
import sys
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
from .collection import LEG, Leg
from .launches import Fixture, Launch, LegRecord, Recorder
from .report import LegResult, relative, wrap
from .warning import StartMethodWarning

# What only a failure needs is imported by it: a fork copies the page tables of all that is loaded.
if TYPE_CHECKING:
    from . import child_causes
    from .finding import Finding
    from .loading import Loader
    from .settings import Settings
    from .state import Observed, UserCode

_SHOWN_CHILDREN = 3
_OBSERVED = 6

STATE = pytest.StashKey["LegState"]()
"""What is known of a leg while it runs; gone when it is over."""


class LegState:
    """One running leg: everything that `Running`'s hooks share."""

    def __init__(self, leg: Leg, activation: Activation, record: LegRecord) -> None:
        self.leg = leg
        self.activation = activation
        self.record = record
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
        self._other_loader: Loader | None = None
        """A second fresh child, to know which values are other ones in every process."""
        self.recorder.observe = self._observe
        self._user: UserCode | None = None
        self._calls: dict[str, dict[str, tuple[str, object]]] = {}
        """By test and method: outcome of the call, and what it failed with, where."""
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
        with self.recorder.leg(leg.nodeid, leg.method, precheck=precheck) as record:
            self._state = item.stash[STATE] = LegState(leg, activation, record)
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
        if state is None:
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
        if state is None:
            return report
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
        state.duration += report.duration
        evidence = self._evidence(item, call, report, state)
        if report.when == "call" and state.leg.method != "fork":
            self._note_runner(state)
        if report.failed:
            state.message = state.message or _message(report)
            if not self.config.getoption("fulltrace", False):
                _pytest_private.shorten_notes(report)
            self._show_children(report, state)
            self._show(report, state, diagnosis.diagnose(evidence))
            self._show_inside(report, state)
        elif report.skipped and not hasattr(report, "wasxfail"):
            state.findings += diagnosis.diagnose(evidence)
        elif report.when == "call":
            state.findings += diagnosis.swallowed(evidence)
            if report.passed and not hasattr(report, "wasxfail"):
                self._examine(report, state, evidence)
        outcome = "xfailed" if report.skipped else "xpassed"
        state.outcomes.append((str(report.when), outcome if hasattr(report, "wasxfail") else report.outcome))
        if report.when == "call":
            calls = self._calls.setdefault(state.leg.test, {})
            calls[state.leg.method] = (str(report.outcome), _failed_with(call))
            self._finished.setdefault(state.leg.test, []).append(report.duration)
        if report.when == "teardown":
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
        state.findings += self._unshared(state, evidence)
        root = str(self.config.rootpath)
        if state.vacuous is not None and leg.vacuous == "fail":
            text = f"vacuous: {state.vacuous.message} ({state.vacuous.code})\nfix: {state.vacuous.fix}"
            _fail(report, relative(text, root))
        elif state.predictions and self.settings.precheck == "error":
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
        if report.failed:
            evidence = replace(evidence, state=self._state_findings(item, call, state, evidence))
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

    # -- what the children see -----------------------------------------------------------------------------------------

    def _user_code(self) -> UserCode:
        if self._user is None:
            from .state import UserCode

            self._user = UserCode.of_project(str(self.config.rootpath), self.settings.user_code)
        return self._user

    def _observe(self, *args: Any, **kwargs: Any) -> Observed | None:
        from . import state

        return state.observe(*args, user=self._user_code(), **kwargs)

    def _observed(self, state: LegState, evidence: diagnosis.Evidence) -> list[Observed]:
        """Return what is known of the code of the leg's children, once for each function and line that started it."""
        every = [each.observed for each in state.record.launches if each.error is None]
        every += [each.observed for each in state.record.tasks if each.how != "initializer"]
        every += [each.observed for each in state.record.tasks if each.how == "initializer"]
        every += [each.observed for each in evidence.inherited if each.error is None]
        kept: dict[object, Observed] = {}
        for each in every:
            if each is not None and each.method == state.leg.method:
                kept.setdefault((each.target, each.place, each.print), each)
        return list(kept.values())[:_OBSERVED]

    def _state_findings(
        self, item: pytest.Item, call: pytest.CallInfo[None], state: LegState, evidence: diagnosis.Evidence
    ) -> tuple[Finding, ...]:
        """Return what the children saw otherwise than the parent; nothing where that cannot have been the reason."""
        observed = self._observed(state, evidence)
        if not observed or (evidence.failure is not None and evidence.failure.findings):
            return ()
        try:
            return self._compared(item, call, state, observed)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._compared: {trouble}")
            return ()

    def _compared(
        self, item: pytest.Item, call: pytest.CallInfo[None], state: LegState, observed: list[Observed]
    ) -> tuple[Finding, ...]:
        from . import state as state_
        from . import state_causes

        leg, calls = state.leg, self._calls.get(state.leg.test, {})
        frames = _frames(call.excinfo.tb if call.excinfo is not None else None)
        children = [frame for each in self._reports() for raised in each.raised for frame in raised.frames]
        fork = calls.get("fork")
        alike = fork is not None and fork[0] == "failed" and fork[1] == _failed_with(call)
        context = state_causes.Context(
            patches=tuple(getattr(state.record, "patches", ())),
            touched=frozenset({(f, n) for f, _, n in frames} | {(f.file, f.function) for f in children}),
            lines=frozenset((f, n) for f, n, _ in frames),
            raised=frozenset((f.file, f.line) for f in children),
            passed_under_fork=None if fork is None else fork[0] == "passed",
            environ=self.servers.environment if leg.method == "forkserver" else None,
            tests=self._test_files(item),
            initialized=self._initialized(state),
        )
        compares = leg.method != "fork" and not alike
        if leg.method == "forkserver" and calls.get("spawn", ("",))[0] == "passed":
            compares = False  # a child under spawn has the same values, and the test passed
        found: list[Finding] = []
        for each in observed:
            seen = None
            if compares and each.reads_state:
                seen = state_.ask(each, [self._fresh_child(), self._second_child()], context.environ)
            if compares or leg.method == "fork" or leg.method == "forkserver" or alike:
                found += state_causes.explain(each, seen or [], replace(context, compares=compares))
            if self.config.get_verbosity() >= 2 and each.bindings:
                state.inside += ["", *state_causes.look_inside(each, seen or [])] if state.inside else (
                    state_causes.look_inside(each, seen or [])
                )  # fmt: skip
        return diagnosis.unique(state_causes.ordered(found))

    def _unshared(self, state: LegState, evidence: diagnosis.Evidence) -> list[Finding]:
        """Return notes on what each child of a leg that passed had of its own (SM307)."""
        if not any(each.primitives for each in self._observed(state, evidence)):
            return []
        from . import state_causes

        context = state_causes.Context(failed=False, initialized=self._initialized(state))
        return [f for each in self._observed(state, evidence) for f in state_causes.unshared(each, context)]

    def _initialized(self, state: LegState) -> frozenset[tuple[str, tuple[str, ...]]]:
        """Return the names that initializers of the leg's pools set in each worker."""
        return frozenset(
            (write.module, write.names)
            for task in state.record.tasks
            if task.how == "initializer" and task.observed is not None
            for write in task.observed.writes
        )

    def _test_files(self, item: pytest.Item) -> tuple[str, ...]:
        """Return the files of the test and of what it uses: its module, the classes above it, the conftests."""
        files = [str(item.path)]
        files += [str(m.__file__) for m in self._conftests() if getattr(m, "__file__", None)]
        return tuple(dict.fromkeys(files))

    def _conftests(self) -> list[Any]:
        return [m for n, m in list(sys.modules.items()) if n.rpartition(".")[2] == "conftest" and m is not None]

    def _show_inside(self, report: pytest.TestReport, state: LegState) -> None:
        """Show at ``-vv`` what the code reads, as one would look it up by hand."""
        if state.inside:
            root = str(self.config.rootpath)
            text = "\n".join(relative(line, root) for line in state.inside)
            _pytest_private.add_section(report, f"start method {state.leg.method}: the look inside", text)
            state.inside = []

    def _second_child(self) -> Loader:
        if self._other_loader is None:
            from .loading import Loader

            self._other_loader = Loader()
        return self._other_loader

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
            troubles=(*state.notes, *(f"pytest-startmethod: {each}" for each in self.recorder.troubles)),
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """End what the legs left: processes of wider fixtures, servers, the directory of the reports."""
        wider = [launch for launches in self.recorder.by_fixture.values() for launch in launches]
        leftovers.end_all(wider)
        if self._loader is not None:
            self._loader.__exit__(None, None, None)
        if self._other_loader is not None:
            self._other_loader.close()
        if mp.has_forkserver():
            self.servers.close()
        if self.reports is not None:
            if _cpython.temporary_directory_of(current_process()) == self.reports.path:
                _cpython.set_temporary_directory(current_process(), None)
            self.reports.remove()


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
