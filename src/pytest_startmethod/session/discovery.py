"""``--start-methods-discover``: watch unmarked tests, and re-run those that start processes under the other methods.

An unmarked test runs once, as always. Recording begins when it starts its first process or submits its first task.
If it used the default context, that run counts as the leg of the method it used, and the test runs again under every
other selected method after the session's last test.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from os import getpid
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from .._compat import cpython, pytest_silent
from .._compat import multiprocessing as mp
from .._compat import pytest as pytest_compat
from .._compat.signals import OwnCode
from ..activation import contexts
from ..model import methods
from ..model.leg import Leg
from . import again, collection, options, second_pass
from .frameless import hook_wrapper
from .legs import DISCOVERED, LEG, STATE, LegState
from .results import FOREIGN

# The rest is imported when the first process starts: most suites start none, and the imports may take 30 ms.
if TYPE_CHECKING:
    from ..activation.exchanges import Span
    from ..launches.recorder import Recorder
    from ..launches.reports import ReportDirectory
    from ..model.launch import Fixture
    from ..model.leg_record import LegRecord
    from ..model.leg_result import LegResult
    from ..model.wire import Json
    from .running import Hooks, Running
    from .settings import Settings

_IN_USE = frozenset(
    [
        *(f"multiprocessing.{name}" for name in ("connection", "managers", "pool", "queues", "synchronize")),
        "concurrent.futures.process",
        "multiprocess.process",
        "billiard.process",
    ]
)
"""Modules whose presence suggests that the suite starts processes."""

_OUTPUT = "startmethod_whole"
"""``workeroutput`` key for the result of `Discovery.whole_files`."""


def start(config: pytest.Config, settings: Settings) -> None:
    """Enable discovery for a session, unless it only collects."""
    if config.getoption("collectonly"):
        return
    manager = config.pluginmanager
    told = None
    if not hasattr(config, "workerinput"):
        told = Told(config, settings)
        manager.register(told, "startmethod-told")
        if config.getoption("dist", "no") != "no":
            manager.register(_Controller(told), "startmethod-told-by-workers")
            return
    config.add_cleanup(contexts.tell_apart())  # before any test module takes a context
    manager.register(_Starter(settings, told))


class _Starter:
    """Registers `Discovery` after the session's own plugins have been loaded."""

    def __init__(self, settings: Settings, told: Told | None) -> None:
        self.settings = settings
        self.told = told
        self.partly: set[str] = set()
        """Files with deselected tests."""
        self.picked: dict[tuple[str, str], set[str]] = {}
        """Ids of legs given on the command line, without the file, by file and function."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Collect the test of a leg whose id was given, such as a copied ``test_a.py::test_x[spawn]``."""
        config = session.config
        given = list(config.args)
        functions = {found["function"] for arg in given if (found := _LEG_ID.fullmatch(arg))} - set(given)
        for index, arg in enumerate(given):
            function, bracket, _ = arg.partition("[")
            if bracket and function in functions:
                config.args[index] = function
                file, _, name = function.partition("::")
                path = os.path.abspath(config.invocation_params.dir / file)
                self.picked.setdefault((path, name), set()).add(_name(arg))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests of the legs asked for, and tests that have such an id themselves."""
        missing = {(file, name) for (file, _), names in self.picked.items() for name in names}
        kept = []
        for item in items:
            asked = self.picked.get((str(item.path), _name(item.nodeid).partition("[")[0]))
            found = set() if asked is None else asked & set(_names(item))
            missing -= {(str(item.path), each) for each in found}
            if asked is None or found:
                kept.append(item)
        if missing:
            raise pytest.UsageError("\n".join(f"not found: {file}::{name}" for file, name in sorted(missing)))
        items[:] = kept

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Record the files with deselected tests."""
        # testmon deselects stand-ins without a node id
        self.partly.update(_file(each.nodeid) for each in items if hasattr(each, "nodeid"))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start watching."""
        config = session.config
        discovery = Discovery(session, self.settings, self.told)
        discovery.partly, discovery.picked = self.partly, self.picked
        config.pluginmanager.register(discovery, "startmethod-discovery")


class Discovery:
    """Watches a session's unmarked tests and re-runs them as legs."""

    running: Running
    recorder: Recorder
    _watched: Span
    _hooks: Hooks
    _of_legs: ReportDirectory | None
    """Where children of legs report."""
    _of_watched: ReportDirectory | None
    """Where children of unmarked tests report."""

    def __init__(self, session: pytest.Session, settings: Settings, told: Told | None) -> None:
        self.session = session
        self.settings = settings
        self.told = told
        """Reports discoveries at the end; None on an xdist worker."""
        available = mp.available()
        self._methods = [method for method in settings.methods if method in available]
        self._temporary = tempfile.gettempdir()
        """The temporary directory before a test redirects it, perhaps to one it removes."""
        self._begun = False
        self._hooked = False
        self._item: pytest.Item | None = None
        """The unmarked test that is running."""
        self._since = 0.0
        """When it began, in `time.time` seconds."""
        self._method: str | None = None
        """Method of its first process started through the default context, or the method its code asked for."""
        self._skipped = False
        self._to_run: list[tuple[pytest.Item, str, pytest_compat.ItemState]] = []
        """Discovered tests, with the method they used and their state before the run."""
        self._files: set[str] = set()
        """Files with discovered tests."""
        self._second_pass = second_pass.of(session.config, settings)
        self.partly: set[str] = set()
        self.picked: dict[tuple[str, str], set[str]] = {}
        """See `_Starter.picked`."""
        if collection.RUNNING in session.config.stash or not _IN_USE.isdisjoint(sys.modules):
            self._begin()
        else:
            self._await_first_start()
        session.config.add_cleanup(contexts.tell_apart(self.method_asked))

    def _begin(self) -> None:
        from .running import Hooks

        self.running = collection.register_running(self.session.config, self.settings, self._temporary)
        self.running.discovery = self
        self.recorder = self.running.recorder
        self.recorder.watcher = self
        self._watched, self._hooks = self.running.exchanges.span("watched test"), Hooks(self.running)
        self._of_legs = self.running.reports
        self._of_watched = self._of_legs.within() if self._of_legs is not None else None
        self.recorder.install()
        self.session.config.add_cleanup(self.recorder.uninstall)
        self._begun = True

    def _await_first_start(self) -> None:
        """Call `_begin` when the first process starts. What it imports is imported now: that start does not wait."""
        from ..causes import launch_examiner  # noqa: F401
        from ..launches import foreign
        from ..state import observing  # noqa: F401
        from . import running, terminal  # noqa: F401

        original, pid = BaseProcess.start, getpid()

        def start(process: BaseProcess) -> None:
            __tracebackhide__ = True
            following: Callable[[BaseProcess], None] = original
            if BaseProcess.start is start and getpid() == pid:
                undo()
                with OwnCode(), suppress(Exception):
                    self._begin()
                following = BaseProcess.start
            with cpython.frameless:
                following(process)

        def undo() -> None:
            if BaseProcess.start is start:
                BaseProcess.start = original  # type: ignore[method-assign]

        BaseProcess.start = start  # type: ignore[method-assign,assignment]
        self.session.config.add_cleanup(undo)
        self.session.config.add_cleanup(foreign.await_fork(self._begin_once))

    def _begin_once(self) -> None:
        if not self._begun:
            self._begin()

    # Registered last, called first: the later runs are outside other plugins' wrappers, such as a time limit.
    @hook_wrapper(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Watch a test that is not a leg, and queue what must run at the end of the session."""
        if LEG in item.stash:
            with self.hooked():
                return (yield from self.running.span_leg(item, nextitem))
        if not isinstance(item, pytest.Function):
            return (yield)
        before = pytest_compat.ItemState(item)
        self._item, self._method, self._skipped, self._since = item, None, False, time.time()
        if self._begun and self.recorder.by_fixture:
            self._look_at_fixtures(item)
        method = state = None
        try:
            result = yield
        finally:
            method, state = self._method, item.stash.get(STATE, None)
            self._stop_watching(item)
        if method is not None and not options.marked([item]):
            if not self._skipped:
                self._files.add(_file(item.nodeid))
                self._to_run.append((item, method, before))
            if state is not None:
                self._second_pass.wait_for(state)
            if state is not None and self._second_pass.may_verify(state.leg):
                self._second_pass.put_off(item, state.leg, state, before)
        return result

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Register the hooks of `Running` in the body."""
        self._hook()
        try:
            yield
        finally:
            self._unhook()

    def _hook(self) -> None:
        """Register the hooks of `Running`; a test that starts nothing does not pay for them."""
        if not self._hooked:
            self.session.config.pluginmanager.register(self._hooks, "startmethod-leg")
            self._hooked = True

    def _unhook(self) -> None:
        if self._hooked:
            self.session.config.pluginmanager.unregister(self._hooks)
            self._hooked = False

    def _stop_watching(self, item: pytest.Item) -> None:
        method = self._method
        self._item = self._method = None
        if not self._begun:
            return
        record = self.recorder.record
        if record is not None:
            self.recorder.close(record)
        self._unhook()
        self._watched.undo()
        if method is not None and self._of_watched is not None:  # the next test's start opens none of our files
            self.recorder.guarded(self._of_watched.clear)
            self.recorder.guarded(self._of_watched.prepare)
        self.running.reports = self._of_legs
        if STATE in item.stash:
            del item.stash[STATE]

    # Innermost: other plugins' work at the end of the loop, such as saving coverage, comes after the legs.
    @hook_wrapper(trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the legs after the session's last test and teardown, but not after ``-x`` or Ctrl-C."""
        result = yield
        if not (session.shouldfail or session.shouldstop):
            self._run_legs()
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        return result

    def _run_legs(self) -> None:
        """Run the discovered tests under the other methods, grouped by method so that they share wider fixtures."""
        legs = [
            (item, before, other)
            for other in self._methods
            for item, method, before in self._to_run
            if other != method and self._is_asked_for(item, other)
        ]
        if self.told is not None:
            self.session.testscollected += len(legs)
        shared = None
        if any(method == "fork" for _, _, method in legs):
            self.recorder.guarded(self.running.end_users_helpers)
        for number, (item, before, method) in enumerate(legs):
            if method != shared:
                self.recorder.forget_fixtures()
                shared = method
            following = legs[number + 1] if number + 1 < len(legs) else None
            nextitem = following[0] if following is not None and following[2] == method else None
            pytest_silent.set_running_for_xdist(item)
            again.run(item, self._leg(item, method), before, nextitem=nextitem, stash={DISCOVERED: True})
            if self.session.shouldfail or self.session.shouldstop:
                break

    def _is_asked_for(self, item: pytest.Item, method: str) -> bool:
        asked = self.picked.get((str(item.path), _name(item.nodeid).partition("[")[0]))
        return asked is None or _name(pytest_compat.nodeid_with(item, method)) in asked

    def _leg(self, item: pytest.Item, method: str, nodeid: str | None = None) -> Leg:
        file, line, _ = item.location
        return Leg(
            nodeid=nodeid or pytest_compat.nodeid_with(item, method),
            test=item.nodeid,
            method=method,
            file=file,
            line=(line or 0) + 1,
            vacuous=self.settings.vacuous if nodeid is None else "ignore",
            timeout=None,
        )

    # -- while an unmarked test runs ---------------------------------------------------------------------------------

    def open(self) -> LegRecord | None:
        """Return a record for the running test if it is watched (`launches.Watcher`)."""
        if self._item is None:
            return None
        from ..model.leg_record import LegRecord

        self._hook()
        return LegRecord(self._item.nodeid, "", self.settings.precheck != "off", watched=True)

    def fixture(self, frame: FrameType) -> Fixture | None:
        """Return the fixture being set up, if any (`launches.Watcher`)."""
        from ..model.launch import Fixture

        found = pytest_compat.fixture_being_set_up(frame)
        return None if found is None else Fixture.of(found)

    def by_default(self, method: str) -> None:
        """Watch the rest of the test, and let its children report (`launches.Watcher`)."""
        if self._method is not None or self._item is None:
            return
        self._method = method
        self._hook()
        reports = self.running.reports = self._of_watched
        if reports is not None:
            reports.clear()
            self._watched = self.running.exchanges.span("watched test")
            reports.listen(self._watched, mp.STDLIB)

    def method_asked(self, caller: FrameType | None) -> None:
        """Treat a test that reaches a start-method check as one that depends on the default method."""
        if self._item is None or self._method is not None or caller is None or mp.in_pool_thread():
            return
        from ..model.place import Place
        from ..source.callers import owner
        from ..source.refusals import refuses_methods

        place = Place(os.path.abspath(caller.f_code.co_filename), caller.f_lineno)
        in_test = place.file == str(self._item.path)
        if owner(place.file) == "user" and refuses_methods(place, in_test=in_test):
            self._begin_once()
            self.by_default(mp.method_of(mp.STDLIB.set_context()) or mp.STDLIB.interpreter_default())

    def _look_at_fixtures(self, item: pytest.Item) -> None:
        """Attribute processes of wider-scoped fixtures that are still running to `item` as well."""
        names = item.fixturenames  # type: ignore[attr-defined]
        for fixture, launches in self.recorder.by_fixture.items():
            if fixture.name in names and item.nodeid.startswith(fixture.base):
                for launch in launches:
                    if not launch.pinned:
                        self.by_default(launch.method)

    def state_of(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> LegState | None:
        """Return the state of an unmarked test that has started something, else None."""
        if item is not self._item:
            return None
        record = self.recorder.record
        if self._method is None:
            if record is not None and report.when == "teardown":
                self._tell_foreign(report, record)
            return None
        from ..activation.default_method import Activation
        from ..model.leg_record import LegRecord

        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped = True
        if STATE in item.stash:
            return item.stash[STATE]
        record = record or LegRecord(item.nodeid, self._method, precheck=False, watched=True)
        leg, reports = self._leg(item, self._method, item.nodeid), self.running.reports
        state = LegState(leg, Activation(self._method), record, reports, watched=True)
        state.duration = max(0.0, call.start - self._since)  # the setup, which was not watched
        item.stash[STATE] = state
        return state

    def _tell_foreign(self, report: pytest.TestReport, record: LegRecord) -> None:
        """Attach what a test that will not become a leg started outside the default context to its report."""
        from ..launches import foreign

        pinned = foreign.pinned((launch for launch in record.launches if launch.pinned), "")
        found = [each.as_dict() for each in (*pinned, *record.foreign)]
        if found:
            setattr(report, FOREIGN, found)

    # -- input of the markers ----------------------------------------------------------------------------------------

    def whole_files(self) -> dict[str, int]:
        """Return the number of test functions of each file with discovered tests.

        Files that were only selected in part are left out.
        """
        functions: dict[str, set[str]] = {file: set() for file in self._files - self.partly}
        for item in self.session.items if functions else ():
            names = functions.get(_file(item.nodeid))
            if names is not None:
                names.add(item.nodeid.partition("[")[0])
        config = self.session.config
        picked = {os.path.abspath(config.invocation_params.dir / _file(arg)) for arg in config.args if "::" in arg}
        return {
            file: len(names)
            for file, names in functions.items()
            if os.path.abspath(config.rootpath / file) not in picked
        }

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Clean up after the legs, and send the worker's data to the xdist controller."""
        if self._begun:
            self.running.pytest_sessionfinish()
        output: Json | None = getattr(self.session.config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = self.whole_files()


_LEG_ID = re.compile(rf"(?P<function>.+::[^\[]+)\[(?:{'|'.join(methods.ORDER)})(?:-.*)?\]", re.DOTALL)


def _name(nodeid: str) -> str:
    return nodeid.partition("::")[2]


def _names(item: pytest.Item) -> list[str]:
    """Return the ids of a test and of its possible legs, without the file."""
    legs = [pytest_compat.nodeid_with(item, method) for method in methods.ORDER]
    return [_name(each) for each in (item.nodeid, *legs)]


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Told:
    """Reports discoveries at the end, in the process with the terminal: the xdist controller or the only one."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.whole: dict[str, int] = {}
        """Result of `Discovery.whole_files`, merged over all workers."""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Make ``--lf`` and ``--sw`` treat a failing leg as a failure of its test."""
        test = getattr(report, "startmethod_of", None)
        if test is not None and report.failed:
            pytest_compat.blame(self.config, report, test)

    def _results(self) -> list[LegResult]:
        results = self.config.pluginmanager.get_plugin("startmethod-results")
        return [each for each in results.legs if each.discovered] if results is not None else []

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Write the markers to paste, unless the user asked for quiet."""
        if terminalreporter.verbosity < -1:
            return
        from . import markers

        results = self._results()
        if not results:
            if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                return
            terminalreporter.write_line(f"{options.flag(options.DISCOVER)}: {_NOTHING}")
            return
        discovery = self.config.pluginmanager.get_plugin("startmethod-discovery")
        text = markers.lines(
            results,
            discovery.whole_files() if discovery is not None else self.whole,
            self.settings.methods,
            every=self.settings.selection == "all",
            verbose=terminalreporter.verbosity > 0,
        )
        if text:
            terminalreporter.section("start methods: what to mark")
        for line in text:
            terminalreporter.write_line(line)


class _Controller:
    """Counts the legs of xdist workers, and passes their data to `Told`."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.session: pytest.Session | None = None
        self._counted: set[str] = set()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session: its test count grows as legs are discovered."""
        self.session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a leg before the terminal reports progress."""
        if hasattr(report, "startmethod_of") and report.nodeid not in self._counted and self.session is not None:
            self._counted.add(report.nodeid)
            self.session.testscollected += 1

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Collect the worker's data."""
        self.told.whole.update(getattr(node, "workeroutput", {}).get(_OUTPUT, {}))


_NOTHING = "no unmarked test uses the default start method"
