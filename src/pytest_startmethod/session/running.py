"""Run one leg: activate its method, record its launches, annotate its reports."""

from __future__ import annotations

import functools
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing import spawn
from multiprocessing.process import current_process
from typing import TYPE_CHECKING

import pytest

from .._compat import cpython, pytest_silent
from .._compat import multiprocessing as mp
from .._compat import pytest as pytest_compat
from ..activation import clock
from ..activation.debugger import is_debugging
from ..activation.default_method import Activation
from ..activation.exchanges import Exchanges, Span
from ..activation.main_module import main_is_pytest, unguarded_runner, without_main
from ..activation.patch_log import PatchLog
from ..activation.servers import ForkServers, Tracker
from ..causes.launch_examiner import LaunchExaminer
from ..launches import adopted_locks, leftovers
from ..launches.recorder import Recorder
from ..launches.reports import ReportDirectory
from ..model import methods
from ..model.backends import STDLIB
from ..model.child_report import ChildReport
from ..model.leg import Leg, SetByUser
from ..model.warning import StartMethodWarning
from ..pickling.copies import processes_are_scarce
from ..source.callers import owner
from ..state.comparing import Comparison
from . import backends, second_pass
from .frameless import hook_wrapper
from .gather import Gatherer
from .legs import DISCOVERED, LEG, STATE, LegState, Trial
from .show import Annotator

# Imports needed only for a failure are deferred: a fork copies the page tables of everything loaded.
if TYPE_CHECKING:
    from .discovery import Discovery
    from .settings import Settings

_HELPERS_SECONDS = 0.5
"""How long the next test waits for a forkserver or resource tracker to end, since it may still be in use."""


class Running:
    """The hooks around a running leg. Registered when the first leg is collected."""

    def __init__(self, config: pytest.Config, settings: Settings, temporary: str | None = None) -> None:
        self.config = config
        self.settings = settings
        self.exchanges = Exchanges()
        self.comparison = Comparison(str(config.rootpath), settings.user_code)
        self.recorder = Recorder(self.exchanges)
        self.servers = ForkServers()
        self._tracker = Tracker()
        self._others: dict[mp.Package, ForkServers] = {}
        """Forkservers of other backends that legs ran under, by package."""
        self._available: dict[str, bool] = {}
        """Whether legs can run under a method here, by method."""
        self._exchanged: Span | None = None
        """Replacements in multiprocessing that last until the next item that is not a leg."""
        self.reports = _report_directory(self.recorder, temporary)
        directory = self.reports.path if self.reports is not None else None
        loads = settings.precheck == "error"
        self.examiner = LaunchExaminer(self.comparison.observe, directory, loads=loads)
        self.recorder.examiner = self.examiner
        self.recorder.dead_workers = self._why_workers_died
        self.recorder.lost_jobs = self._lost_jobs
        self.gatherer = Gatherer(config, self.recorder, self.comparison, self.servers)
        self.patched = PatchLog(pytest.MonkeyPatch, self.exchanges)
        self._state: LegState | None = None
        self._native = mp.STDLIB.interpreter_default()
        self._debugger = bool(config.getoption("usepdb", False))
        self._second_pass = second_pass.of(config, settings)
        self._second_pass.running = self
        self._has_pytest_timeout = pytest_compat.has_pytest_timeout(config)
        self._clock = clock.Clock()
        self._runner = unguarded_runner()
        """The line of the main module that runs pytest outside a main guard."""
        self.finished: dict[str, list[float]] = {}
        """Durations of the calls that ended before their time limit, by test."""
        self._warned: set[SetByUser] = set()
        self.discovery: Discovery | None = None
        _import_for_legs()

    @functools.cached_property
    def annotator(self) -> Annotator:
        """The annotator of failing and other noteworthy reports."""
        return Annotator(
            self.config, self.settings, self.recorder, self.gatherer, self.servers, self._runner, self.finished
        )

    @property
    def package(self) -> str:
        """Name of the package whose start method the running leg tests."""
        return mp.STDLIB.name if self._state is None else self._state.activation.package.name

    # -- the leg's span ----------------------------------------------------------------------------------------------

    @hook_wrapper(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Make the leg's method the default from before its first fixture until after its last."""
        return (yield from self.span_leg(item, nextitem))

    def span_leg(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
        """Run as `pytest_runtest_protocol`, for a hook that calls it itself."""
        leg = item.stash.get(LEG, None)
        if leg is None:
            return (yield)
        try:
            if leg.method not in self._available:
                self._available[leg.method] = backends.unavailable_reason(self.config, leg.method) is None
            if not self._available[leg.method]:
                return (yield)  # already marked as skipped
            return (yield from self._run_leg(item, leg))
        finally:
            if nextitem is None or LEG not in nextitem.stash:
                self._put_back()

    def _run_leg(self, item: pytest.Item, leg: Leg) -> Generator[None, object, object]:
        before = pytest_compat.item_state(item) if self._second_pass.may_verify(leg) else None
        with self._running(item, leg) as state:
            result = yield
        if processes_are_scarce():
            self.comparison.close()
        self._second_pass.wait_for(state)
        if before is not None:
            self._second_pass.put_off(item, leg, state, before)
        return result

    @contextmanager
    def _running(self, item: pytest.Item, leg: Leg, trial: Trial | None = None) -> Iterator[LegState]:
        """Make the leg's method the default and record its launches; `trial` as in `LegState`."""
        backend = backends.of(self.config, leg.method)
        self.recorder.guarded(self._give_temporary_directory)
        package = mp.Package(backend.package)
        activation = Activation(methods.base(leg.method), package)
        span = self.exchanges.span(leg.nodeid)
        executable = spawn.get_executable()
        precheck = self.settings.precheck != "off"
        self._exchange()
        around = self._state
        if trial is None and ("start_method", leg.method) not in item.user_properties:
            item.user_properties.append(("start_method", leg.method))
        with self.recorder.leg(leg.nodeid, leg.method, precheck=precheck, backend=backend) as record:
            record.patches = self.patched.begin()
            discovered = DISCOVERED in item.stash
            state = self._state = item.stash[STATE] = LegState(
                leg, activation, record, self.reports, discovered=discovered
            )
            state.trial = trial
            try:
                if self.reports is not None:
                    self.recorder.guarded(self.reports.clear)
                    self.recorder.guarded(self.reports.prepare)
                if backend is not STDLIB:
                    self._replace(span, package)
                if methods.base(leg.method) == "forkserver":
                    self.gatherer.waits.listen(span)
                self.gatherer.waits.calls.clear()
                activation.enter()
                yield state
            finally:
                if record.launches:  # interrupted: a finished leg has ended and cleared its launches
                    left = leftovers.end(record.launches)
                    if left or trial is not None:
                        pytest_silent.forget_captured(self.config)
                activation.exit()
                spawn.set_executable(executable)  # no leg depends on the leg before it
                for servers in (self.servers, *self._others.values()):
                    servers.exit()
                span.undo()
                self._state = around
                del item.stash[STATE]

    def _exchange(self) -> None:
        """Install our wrappers around multiprocessing; `_put_back` removes them.

        Done once for consecutive legs: changing a class invalidates the interpreter's method caches, and a later fork
        pays for every page written.
        """
        if self._exchanged is None:
            self._exchanged = self.exchanges.span("legs")
            if self.recorder.install():
                self._exchanged.when_undone(self.recorder.uninstall)
            self._tracker.listen(self._exchanged)
            self._replace(self._exchanged, mp.STDLIB)

    def _put_back(self) -> None:
        self._clock.close()
        if self._exchanged is not None:
            self._exchanged.undo()
            self._exchanged = None
            if not any(each.alive for launches in self.recorder.by_fixture.values() for each in launches):
                self.recorder.guarded(self._end_helpers, _HELPERS_SECONDS)

    def _end_helpers(self, seconds: float) -> None:
        """End multiprocessing's own helper processes, which tests that are not legs would otherwise see."""
        if mp.has_forkserver():
            with leftovers.hurried_by_interrupts():
                for servers in (self.servers, *self._others.values()):
                    servers.close(seconds)
                self._tracker.close(seconds)

    def end_users_helpers(self) -> None:
        """End the helper processes of tests that were not legs: a fork leg would find them among pytest's children.

        What the last failure's traceback still holds goes first, as it would with the next test's call.
        """
        if not mp.has_forkserver() or any(e.alive for launches in self.recorder.by_fixture.values() for e in launches):
            return
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            vars(sys).pop(name, None)
        gc.collect()
        with leftovers.hurried_by_interrupts():
            self.servers.end_users(_HELPERS_SECONDS)
            self._tracker.end_users(_HELPERS_SECONDS)

    def _replace(self, span: Span, package: mp.Package) -> None:
        """Wrap what `package` uses to start processes, for a span."""
        stdlib = package == mp.STDLIB
        if main_is_pytest() or self._runner is not None:
            span.put(package.spawn, "get_preparation_data", without_main)
        if self.reports is not None:
            self.reports.listen(span, package)
        native = self._native if stdlib else package.interpreter_default()
        servers = self.servers if stdlib else self._others.setdefault(package, ForkServers(package))

        def synchronize() -> None:
            span.put(package.lock_class, "__init__", partial(adopted_locks.watch_creation, package=package))
            span.put(package.lock_class, "__getstate__", partial(adopted_locks.adopt, native=native, package=package))

        def forkserver() -> None:
            span.put(package.forkserver_class, "ensure_running", servers.watch)

        span.when_loaded(f"{package.name}.synchronize", synchronize)
        if mp.has_forkserver():
            span.when_loaded(f"{package.name}.forkserver", forkserver)

    @contextmanager
    def experimenting(self) -> Iterator[None]:
        """Prepare for runs by `run_for_experiment`, outside ``pytest_runtest_protocol``."""
        try:
            with self.discovery.hooked() if self.discovery is not None else nullcontext():
                yield
        finally:
            self._put_back()

    @contextmanager
    def run_for_experiment(self, item: pytest.Item, leg: Leg, trial: Trial) -> Iterator[LegState]:
        """Run `item` as `leg` in the body, as if in a session of its own, and leave no trace."""
        troubles = len(self.recorder.troubles)
        self.servers.renew()  # a test can tell whether a server was already running
        self.recorder.forget_fixtures()
        try:
            with self._running(item, leg, trial) as state:
                yield state
        finally:
            self.recorder.forget_fixtures()
            del self.recorder.troubles[troubles:]

    def _give_temporary_directory(self) -> None:
        """Keep multiprocessing's sockets in a directory that no test removes and that goes with the session.

        multiprocessing creates it on first use, when a test may have redirected ``tempfile.tempdir`` to a directory
        that it removes.
        """
        theirs = cpython.temporary_directory_of(current_process())
        if self.reports is None or theirs == self.reports.path:
            return
        if theirs is None or not os.path.isdir(theirs):
            cpython.set_temporary_directory(current_process(), self.reports.path)

    @hook_wrapper()
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        """Remember which fixture is being set up, to attribute launches to it."""
        if self._state is not None:
            self.patched.watch()
        self.recorder.fixtures.append(fixturedef)
        try:
            return (yield)
        finally:
            self.recorder.fixtures.pop()

    @hook_wrapper()
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Restore the method if a fixture changed it, and warn about the change."""
        state = item.stash.get(STATE, None)
        if state is None or state.watched:
            return (yield)
        self.patched.watch()
        activation = state.activation
        activation.enter_call()
        if len(activation.overrides) > state.warned:
            self._warn(state)
        self._start_clock(item, state, "call")
        state.calling = True
        try:
            return (yield)
        finally:
            state.calling = False
            self._clock.stop()
            activation.leave_call()
            if len(activation.overrides) > state.warned:
                self._warn(state)

    # -- the time limit ----------------------------------------------------------------------------------------------

    @hook_wrapper(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the duration of a leg's fixtures, which may start servers."""
        if STATE in item.stash:
            self.recorder.follow()
        self._limit(item, "setup")
        try:
            return (yield)
        finally:
            self._clock.stop()

    @hook_wrapper(tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Limit the duration of a leg's teardown, and finish fixtures of its method while the method is active."""
        errors: list[BaseException] = []
        result: object = None
        self._limit(item, "teardown")
        try:
            try:
                result = yield
            except BaseException as error:
                errors.append(error)
            try:
                _tear_down(item, nextitem)
            except BaseException as error:
                errors.append(error)
        finally:
            self._clock.stop()
        if len(errors) == 2:
            raise pytest_compat.exception_group("errors during test teardown", errors)
        if errors:
            raise errors[0]
        return result

    def _limit(self, item: pytest.Item, phase: str) -> None:
        state = item.stash.get(STATE, None)
        if state is not None and not state.watched:
            self._start_clock(item, state, phase)

    def _start_clock(self, item: pytest.Item, state: LegState, phase: str) -> None:
        if self._debugger or is_debugging():
            return
        chosen = state.leg.timeout if state.leg.timeout is not None else self.settings.timeout
        theirs = pytest_compat.pytest_timeout_of(item) if self._has_pytest_timeout else 0.0
        if state.trial is not None:
            most = state.trial.seconds
            seconds = min(theirs or most, chosen or most, most)
            self._clock.start(seconds, partial(self._expire, item, state, seconds, phase))
        elif theirs:  # pytest-timeout's own limit applies: only capture the stacks shortly before
            left = pytest_compat.pytest_timeout_left() or theirs  # its clock may have started before the fixtures
            self._clock.start(left - min(0.5, left / 10), partial(self._look, item, state, theirs))
        else:
            seconds = clock.limit_of(chosen, self.finished.get(state.leg.test, []))
            self._clock.unblock = partial(self._unblock, item, state, seconds)
            begun = self._clock.start(seconds, partial(self._expire, item, state, seconds, phase))
            trouble = self._clock.trouble
            if chosen and not begun and trouble is not None:
                self._note_once(f"legs run without a time limit: {trouble}")

    @pytest.hookimpl
    def pytest_enter_pdb(self) -> None:
        """Stop the clock: a person is debugging."""
        if self._state is not None:
            self._state.debugged = True
            self._clock.stop()

    def _look(self, item: pytest.Item, state: LegState, seconds: float) -> None:
        """Capture the stacks of the parent and its children. Runs inside the test, so it must not raise."""
        if state.hanging is not None:
            return
        try:
            from ..launches import stacks
            from ..model.stack import Hanging

            with clock.alarm_paused():
                children = stacks.of_children(state.record.launches, self.reports)
            started = bool(state.record.launches or self.gatherer.inherited(item, state.leg))
            state.hanging = Hanging(seconds, stacks.own(), children, started)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._look: {trouble}")

    def _unblock(self, item: pytest.Item, state: LegState, seconds: float) -> None:
        """End the children that the main thread may be waiting for; without any, print once where it waits."""
        known = state.hanging is not None
        self._look(item, state, seconds)
        if leftovers.end(state.record.launches, grace=0.0) or known or state.hanging is None:
            return
        lines = [f"{state.leg.nodeid} was not over after {seconds:g} s, and waits where it cannot be interrupted:"]
        for file, line, function in next(each.frames for each in state.hanging.parent if each.main):
            if owner(file) != "installed":
                lines.append(f"  {file}:{line} in {function}")
        pytest_compat.write_past_capture(self.config, lines)

    def _note_once(self, trouble: str) -> None:
        if trouble not in self.recorder.troubles:
            self.recorder.troubles.append(trouble)

    def _expire(self, item: pytest.Item, state: LegState, seconds: float, phase: str) -> None:
        __tracebackhide__ = True
        chosen = self.settings.timeout if state.leg.timeout is None else state.leg.timeout
        if phase != "call" and chosen is None and not state.record.launches:
            return  # a fixture may take long unless the user set a limit or it started a process
        self._look(item, state, seconds)
        try:
            leftovers.end(state.record.launches, grace=0.0)
        except Exception as trouble:
            self.recorder.troubles.append(f"{type(trouble).__name__} in Running._expire: {trouble}")
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):  # the session is ending: an executor waits on its way out
            raise KeyboardInterrupt
        by = "--start-methods-timeout" if state.leg.timeout is None else "timeout= of its marker"
        pytest.fail(clock.over(state.leg.nodeid, seconds, by, phase))

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
            except StartMethodWarning:  # warnings are errors here, but the outcome is the user's
                from ..model.finding import relative

                state.notes.append(
                    f"StartMethodWarning: {relative(f'{file}:{line}', str(self.config.rootpath))}: {text}"
                )

    # -- reports -----------------------------------------------------------------------------------------------------

    @hook_wrapper(tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Annotate failures; at the end of the leg, attach its result."""
        state = item.stash.get(STATE, None)
        failed = state is not None and call.excinfo is not None
        if failed:
            pytest_compat.hide_frames(item, below_start)
        raised = pytest_silent.raised(item, call)
        with cpython.parsing() if failed else nullcontext():
            report = yield
        if self.discovery is not None and (state is None or state.watched):
            state = self.discovery.state_of(item, call, report)
        if state is None:
            return report
        if state.trial is not None:
            if report.failed:
                with suppress(Exception):
                    state.trial.examine(item, call, report, state)
            return report
        if state.discovered:
            report.startmethod_of = state.leg.test  # type: ignore[attr-defined]
        try:
            if report.when == "teardown":
                # Otherwise it depends on the garbage collector whether exit codes are known.
                self.recorder.note_exits(state.record)
            with nullcontext() if report.passed else clock.alarm_paused(), cpython.parsing():
                self.annotator.annotate(item, call, report, state)
                self._note_failure(report, state, raised=raised)
        except Exception:
            self.recorder.troubles.append(traceback.format_exc(limit=-1).strip().splitlines()[-1])
            state.outcomes.append((str(report.when), report.outcome))
            if report.when == "teardown":
                report.startmethod = self.annotator.result(state).as_dict()  # type: ignore[attr-defined]
        return report

    def _why_workers_died(self) -> str:
        errors = [each.error for each in self.children_reports() if each.error is not None]
        return f"{errors[-1].type}: {errors[-1].message}" if errors else "no worker reported a reason"

    def _lost_jobs(self) -> set[int]:
        return {each.job for each in self.children_reports() if each.job is not None}

    def _note_failure(self, report: pytest.TestReport, state: LegState, *, raised: bool) -> None:
        if report.when == "setup":
            state.failures.clear()
            state.reported_only = False
        if report.failed:
            state.reported_only |= not raised
            state.failures.append(second_pass.failure_of(report, self.children_reports()))

    def children_reports(self) -> tuple[ChildReport, ...]:
        """Return the reports of the running leg's children."""
        return self.reports.read() if self.reports is not None else ()

    # -- the end -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Clean up after the legs: processes of wider-scoped fixtures, servers, the report directory."""
        self._put_back()
        self.patched.close()
        self.recorder.forget_fixtures()
        leftovers.end_all(self.recorder.of_fixtures)
        self.comparison.close()
        self._end_helpers(5.0)
        if self.reports is not None:
            if cpython.temporary_directory_of(current_process()) == self.reports.path:
                cpython.set_temporary_directory(current_process(), None)
            self.reports.remove()
        self.exchanges.undo()


def _tear_down(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Finish ``start_method`` and its dependents if the next item runs under another method.

    pytest would tear a wider-scoped fixture down during the next leg's setup, under the wrong method.
    """
    leg = item.stash.get(LEG, None)
    following = nextitem.stash.get(LEG, None) if nextitem is not None else None
    if leg is not None and (following is None or following.method != leg.method):
        pytest_compat.finish_fixture(item, "start_method")


class Hooks:
    """`Running` without the hook that spans a leg, which `discovery` calls. Registered only while a leg runs."""

    def __init__(self, running: Running) -> None:
        for name in dir(running):
            if name.startswith("pytest_") and name not in ("pytest_runtest_protocol", "pytest_sessionfinish"):
                setattr(self, name, getattr(running, name))


def _report_directory(recorder: Recorder, temporary: str | None) -> ReportDirectory | None:
    """Create the directory for the children's reports. On failure, record the problem and carry on without."""
    try:
        directory = ReportDirectory.create(temporary)
    except OSError as trouble:
        recorder.troubles.append(f"children cannot report: {trouble}")
        return None
    try:
        directory.hold_life_line()
    except OSError as trouble:
        recorder.troubles.append(f"if pytest is killed, children or its temporary directory may stay: {trouble}")
    return directory


def _import_for_legs() -> None:
    """Import what every leg needs: not in the first test's time, nor where tests have left no free descriptor."""
    from ..state import observing  # noqa: F401

    if hasattr(os, "fork"):
        _ = mp.STDLIB.forking_popen_class


def _override_text(override: SetByUser, leg: Leg) -> str:
    call = f"set_start_method({override.method!r})"
    if override.wins:
        return f"{call} replaces the method of {leg.nodeid} from here on: what it starts tests {override.method}"
    return f"{call} is set aside while a leg runs: each leg runs under its own method"


_MADE_ALIKE = ("multiprocess", "billiard", "dill")


def below_start(filename: str) -> bool:
    """Return whether a frame below ``Process.start()`` belongs to us, CPython, or a similar package."""
    whose = owner(filename)
    if whose == "stdlib":
        return "multiprocessing" in filename or os.path.basename(filename) == "pickle.py"  # dill's is pure Python
    parts = filename.split(os.sep)
    return whose == "ours" or (whose == "installed" and any(each in parts for each in _MADE_ALIKE))
