"""``--start-methods-discover``: watch what is not marked, and run again what leaves the start method to others.

An unmarked test runs once, as always. Only when it starts its first process or hands out its first task is anything
written down of it; if that was through the default context, the run counts as the leg of the method that it used, and
the test is run again under every other selected method, with all fixtures made anew.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from . import _multiprocessing as mp
from . import _pytest_private, again, collection, foreign, options
from .activation import Activation, Patches
from .collection import LEG, Leg
from .launches import LegRecord
from .running import DISCOVERED, STATE, LegState, Running
from .terminal import ATTRIBUTE, FOREIGN

if TYPE_CHECKING:
    from .report import LegResult
    from .settings import Settings

_OUTPUT = "startmethod_whole"
"""Where a worker of xdist tells its controller what `Discovery.whole_files` returns."""


def start(config: pytest.Config, settings: Settings) -> None:
    """Make a session discover; does nothing in one that only collects."""
    if config.getoption("collectonly"):
        return
    worker = hasattr(config, "workerinput")
    if not worker:
        config.pluginmanager.register(Told(config, settings), "startmethod-told")
    if worker or config.getoption("dist", "no") == "no":
        # Before any test module takes a context.
        config.add_cleanup(mp.tell_apart())
        config.pluginmanager.register(_Starter(settings))


class _Starter:
    """Registers what watches the tests, once the plugins that the session brings with it are there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.partly: set[str] = set()
        """Files of which a test was deselected."""

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Know the files of which not all tests run."""
        self.partly.update(_file(item.nodeid) for item in items)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Begin to watch."""
        config = session.config
        collection.register_running(config, self.settings)
        running: Any = config.pluginmanager.get_plugin("startmethod-running")
        discovery = Discovery(session, self.settings, running)
        discovery.partly = self.partly
        config.pluginmanager.register(discovery, "startmethod-discovery")


class Discovery:
    """Watches the unmarked tests of a session, and runs them again."""

    def __init__(self, session: pytest.Session, settings: Settings, running: Running) -> None:
        self.session = session
        self.settings = settings
        self.running = running
        self.recorder = running.recorder
        available = mp.available()
        self._methods = [method for method in settings.methods if method in available]
        self._patches = Patches()
        self._item: pytest.Item | None = None
        """The unmarked test that runs."""
        self._method: str | None = None
        """The method of the first process that it started through the default context."""
        self._reports: list[pytest.TestReport] = []
        """Its reports so far, as long as it started none."""
        self._skipped = False
        self._files: set[str] = set()
        """Where something was discovered."""
        self.partly: set[str] = set()
        """Files of which a test was deselected."""
        running.discovery = self
        self.recorder.watcher = self
        self.recorder.install()
        session.config.add_cleanup(self.recorder.uninstall)

    # Registered last and first in turn: the runs that follow are within nobody else's wrapper, such as a time limit.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Watch a test that is no leg, and run it again if it left the start method to the interpreter."""
        if LEG in item.stash or not isinstance(item, pytest.Function):
            return (yield)
        again.remember(item)
        self._item, self._method, self._skipped = item, None, False
        self._reports.clear()
        try:
            result = yield
        finally:
            method = self._method
            self._stop_watching(item)
        if method is not None and not self._skipped and not options.marked([item]):
            self._run_again(item, method)
        return result

    def _stop_watching(self, item: pytest.Item) -> None:
        self._item = self._method = None
        if self.recorder.record is not None:
            self.recorder.close(self.recorder.record)
        self._patches.undo()
        if STATE in item.stash:
            del item.stash[STATE]

    def _run_again(self, item: pytest.Item, method: str) -> None:
        self._files.add(_file(item.nodeid))
        for other in self._methods:
            if other != method and not (self.session.shouldfail or self.session.shouldstop):
                self.recorder.forget_fixtures()
                again.run(item, self._leg(item, other), silent=False, stash={DISCOVERED: True})
        self.recorder.forget_fixtures()

    def _leg(self, item: pytest.Item, method: str, nodeid: str | None = None) -> Leg:
        file, line, _ = item.location
        return Leg(
            nodeid=nodeid or _pytest_private.nodeid_with(item, method),
            test=item.nodeid,
            method=method,
            file=file,
            line=(line or 0) + 1,
            vacuous=self.settings.vacuous if nodeid is None else "ignore",
            timeout=None,
        )

    # -- while an unmarked test runs ---------------------------------------------------------------------------------

    def open(self) -> LegRecord | None:
        """Return a record for the test that runs, if it is one that is watched (`launches.Watcher`)."""
        if self._item is None:
            return None
        return LegRecord(self._item.nodeid, "", self.settings.precheck != "off", watched=True)

    def by_default(self, method: str) -> None:
        """Let the children report from now on (`launches.Watcher`)."""
        if self._method is not None or self._item is None:
            return
        self._method = method
        if self.running.reports is not None:
            self.running.reports.clear()
            for owner, name, wrap in self.running.reports.patches():
                self._patches.put(owner, name, wrap)

    def state_of(self, item: pytest.Item, report: pytest.TestReport) -> LegState | None:
        """Return what is known of an unmarked test that has come to `report`; None if there is nothing to know."""
        if item is not self._item:
            return None
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped = True
        record = self.recorder.record
        if report.when == "teardown":
            if record is not None:
                self._tell_foreign(report, record)
            if self._method is None and self.recorder.by_fixture:
                self._method = self._of_a_fixture(item)
        if STATE in item.stash:
            return item.stash[STATE]
        if self._method is None:
            self._reports.append(report)
            return None
        record = record or LegRecord(item.nodeid, self._method, precheck=False, watched=True)
        state = LegState(self._leg(item, self._method, item.nodeid), Activation(self._method), record, watched=True)
        for earlier in self._reports:
            state.count(earlier)
        item.stash[STATE] = state
        return state

    def _tell_foreign(self, report: pytest.TestReport, record: LegRecord) -> None:
        """Let the report of a test that becomes no leg say what it started past the default context."""
        if self._method is None:
            pinned = foreign.pinned((launch for launch in record.launches if launch.pinned), "")
            found = [each.as_dict() for each in (*pinned, *record.foreign)]
            if found:
                setattr(report, FOREIGN, found)

    def _of_a_fixture(self, item: pytest.Item) -> str | None:
        """Return the method of a process that a wider fixture of `item` started for an earlier test."""
        names = item.fixturenames  # type: ignore[attr-defined]
        for fixture, launches in self.recorder.by_fixture.items():
            if fixture.name in names and item.nodeid.startswith(fixture.base):
                for launch in launches:
                    if not launch.pinned:
                        return launch.method
        return None

    # -- what the markers need to know -------------------------------------------------------------------------------

    def whole_files(self) -> dict[str, int]:
        """Return how many test functions the files have in which something was discovered.

        Those of which a part was selected are left out.
        """
        functions: dict[str, set[str]] = {file: set() for file in self._files - self.partly}
        for item in self.session.items if functions else ():
            names = functions.get(_file(item.nodeid))
            if names is not None:
                names.add(item.nodeid.partition("[")[0])
        picked = {_file(arg) for arg in self.session.config.args if "::" in arg}
        return {file: len(names) for file, names in functions.items() if not any(p.endswith(file) for p in picked)}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Tell the controller of xdist what only a worker knows."""
        output: dict[str, Any] | None = getattr(self.session.config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = self.whole_files()


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Told:
    """What is made of the reports, where the terminal is: on the controller of xdist, or in the only process."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.session: pytest.Session | None = None
        self.results: dict[str, LegResult] = {}
        self.whole: dict[str, int] = {}
        self._counted: set[str] = set()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Know the session, whose tests become more."""
        self.session = session

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, object, object]:
        """Count the legs for the progress, and let ``--lf`` and ``--sw`` know a leg by the test that it is one of."""
        test = getattr(report, "startmethod_of", None)
        if test is not None and report.nodeid not in self._counted and self.session is not None:
            self._counted.add(report.nodeid)
            self.session.testscollected += 1
        result = yield
        if test is not None and report.failed:
            _pytest_private.blame(self.config, report, test)
        data = getattr(report, ATTRIBUTE, None)
        if data is not None and data["discovered"]:
            from .report import LegResult

            self.results[report.nodeid] = LegResult.from_dict(data)
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of xdist knows."""
        self.whole.update(getattr(node, "workeroutput", {}).get(_OUTPUT, {}))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write what to paste where, unless the user asked for quiet."""
        if terminalreporter.verbosity < 0:
            return
        from . import markers

        if not self.results:
            terminalreporter.write_line(f"{options.flag(options.DISCOVER)}: {_NOTHING}")
            return
        discovery = self.config.pluginmanager.get_plugin("startmethod-discovery")
        text = markers.lines(
            self.results.values(),
            discovery.whole_files() if discovery is not None else self.whole,
            self.settings.methods,
            every=self.settings.selection == "all",
            verbose=terminalreporter.verbosity > 0,
        )
        if text:
            terminalreporter.section("start methods: what to mark")
        for line in text:
            terminalreporter.write_line(line)


_NOTHING = "no unmarked test started a process by the default start method"
