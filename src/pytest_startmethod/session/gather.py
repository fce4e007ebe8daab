"""Collect the evidence of a leg's phase, from which `causes` explains it."""

from __future__ import annotations

import os
import re
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ..causes.launch_examiner import collect_diagnoses
from ..child.events import chain, exception_as_dict
from ..launches.reaping import FailedWaits
from ..launches.recorder import failure_of
from ..launches.reports import raised_from
from ..model.child_report import Frame
from ..model.evidence import CallEnd, Evidence, Parent
from ..model.methods import base
from ..model.place import Place
from ..source.callers import owner

# Imports needed only for a failure are deferred: a fork copies the page tables of everything loaded.
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..activation.servers import ForkServers
    from ..launches.recorder import Recorder
    from ..model.child_report import ChildReport, Raised
    from ..model.launch import Launch
    from ..model.leg import Leg
    from ..model.unloaded import Unloaded
    from ..model.wire import Fields
    from ..state.comparing import Comparison
    from .legs import LegState


_MOST_COPIES = 6


class Gatherer:
    """Collects evidence from all its sources, and remembers how the calls of a test's other legs ended."""

    def __init__(self, config: pytest.Config, recorder: Recorder, comparison: Comparison, servers: ForkServers) -> None:
        self._config = config
        self._recorder = recorder
        self._comparison = comparison
        self._servers = servers
        self.waits = FailedWaits()
        self._calls: dict[str, dict[str, CallEnd]] = {}
        self._ends: dict[CallEnd, CallEnd] = {}
        """One object for all calls that ended alike."""
        """Call outcomes by test, then by method."""

    def evidence(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState
    ) -> Evidence:
        """Return the evidence of a phase. A failure adds the children's reports and what fresh children contain."""
        record, excinfo = state.record, call.excinfo
        if record.failures:
            collect_diagnoses(record)
        evidence = Evidence(
            leg=state.leg.nodeid,
            method=state.leg.method,
            outcome=report.outcome,
            marked=item.get_closest_marker("startmethods") is not None,
            launches=tuple(record.launches),
            tasks=tuple(record.tasks),
            failures=tuple(record.failures),
            failure=failure_of(record, excinfo.value) if excinfo is not None else None,
            inherited=self.inherited(item, state.leg),
            asked=tuple(state.activation.asked),
            overrides=tuple(state.activation.overrides),
            foreign=tuple(record.foreign),
            others=self._calls.get(state.leg.test, {}),
        )
        if excinfo is not None:
            evidence = replace(evidence, raised_at=_raised_at(excinfo.tb), error=excinfo.typename)
        return self._failed(item, call, report, state, evidence) if report.failed else evidence

    def _failed(
        self,
        item: pytest.Item,
        call: pytest.CallInfo[None],
        report: pytest.TestReport,
        state: LegState,
        evidence: Evidence,
    ) -> Evidence:
        from ..source import waits

        error = call.excinfo.value if call.excinfo is not None else None
        self._recorder.note_exits(state.record)
        reports = state.reports.read() if state.reports is not None else ()
        evidence = replace(
            evidence,
            text=" ".join(str(report.longrepr).split()),
            raised=tuple(map(_raised, chain(error))),
            remote=_remote(error),
            raised_elsewhere=_raised_elsewhere(call),
            failed_with=_failed_with(call),
            patience=waits.patience(error.__traceback__) if error is not None else None,
            patches=tuple(state.record.patches),
            tests=(str(item.path), *_conftests()),
            reports=reports,
            not_children=tuple(self.waits.calls),
            unreturned=tuple(state.reports.unreturned) if state.reports is not None else (),
            parent=Parent(rootdir=str(self._config.rootpath), import_mode=self._config.getoption("importmode", None)),
            hanging=state.hanging,
        )
        try:
            return self._asked(evidence)
        except Exception as trouble:
            self._recorder.troubles.append(f"{type(trouble).__name__} in Gatherer._asked: {trouble}")
            return evidence

    def _asked(self, evidence: Evidence) -> Evidence:
        """Add what the forkserver and fresh children report."""
        from ..causes import state as state_causes

        if base(evidence.method) != "fork":
            from ..launches import server

            evidence = replace(evidence, server=server.observe())
        if evidence.method == "forkserver":
            evidence = replace(evidence, environ=self._server_environment())
        environ = evidence.environ
        seen = [(each, self._comparison.ask(each, environ)) for each in state_causes.to_ask(evidence)]
        unloaded = _unloaded(evidence.launches, evidence.reports)
        return replace(evidence, seen=seen, unloaded=unloaded, copied=self._copied(evidence))

    def _server_environment(self) -> Mapping[str, str] | None:
        """Return the environment of the leg's server: ours, or the user's that a discovered test's own run started."""
        from ..state import observing

        return self._servers.environment if self._servers.in_use else observing.server_environment()

    def _copied(self, evidence: Evidence) -> Sequence[tuple[Fields, Fields]]:
        """Return what was sent and what arrives in a fresh child, once per group of similar launches."""
        alike = {(each.target, each.args, each.place): each for each in evidence.launches if each.sent}
        every = [sent for launch in alike.values() for sent in launch.sent]
        every += [sent for task in evidence.tasks for sent in task.sent]
        found = []
        for each in every[:_MOST_COPIES]:
            arrived = self._comparison.fresh_child().account(each.payload, each.account)
            if arrived is not None:
                found.append((each.account, arrived))
        return found

    def note_call(self, call: pytest.CallInfo[None], report: pytest.TestReport, state: LegState) -> None:
        """Record how a leg's call ended, for the test's other legs."""
        events: set[tuple[str, str]] = set()
        if base(state.leg.method) == "fork" and report.passed:
            record = state.record
            events |= {("send", each.error) for each in record.failures}
            events |= {("exit", f"{each.target} {each.exit_code}") for each in record.launches if each.exit_code}
            reports = state.reports.read() if state.reports is not None else ()
            events |= {("raised", str(error)) for each in reports for error in each.raised}
        end = CallEnd(str(report.outcome), _failed_with(call), frozenset(events))
        self._calls.setdefault(state.leg.test, {})[state.leg.method] = self._ends.setdefault(end, end)

    def inherited(self, item: pytest.Item, leg: Leg) -> list[Launch]:
        """Return the launches that the leg's wider-scoped fixtures made during earlier legs."""
        names = set(getattr(item, "fixturenames", ()))
        return [
            launch
            for fixture, launches in self._recorder.by_fixture.items()
            if fixture.name in names and (leg.nodeid.startswith(fixture.base) or not fixture.base)
            for launch in launches
            if launch.leg != leg.nodeid
        ]


def touched(evidence: Evidence) -> set[tuple[str, str]]:
    """Return file and function of each frame in the tracebacks of the leg and its children."""
    every = [*evidence.raised, *evidence.raised_in_children]
    return {(frame.file, frame.function.rpartition(".")[2]) for raised in every for frame in raised.frames}


def _unloaded(launches: Sequence[Launch], reports: Sequence[ChildReport]) -> dict[int, Sequence[Unloaded]]:
    """Return, by pid, what a fresh child cannot load of each payload that a child failed to unpickle."""
    from ..state import fresh_child

    failed = {each.pid for each in reports if each.phase == "unpickling" and not each.task and each.error is not None}
    return {
        each.pid: fresh_child.predict(each.payload, method=each.method)
        for each in launches
        if each.pid is not None and each.pid in failed and each.payload is not None
    }


def _raised(error: BaseException) -> Raised:
    return replace(
        raised_from(exception_as_dict(error)),
        frames=tuple(
            Frame(os.path.abspath(f.f_code.co_filename), n, getattr(f.f_code, "co_qualname", f.f_code.co_name), "")
            for f, n in traceback.walk_tb(error.__traceback__)
        ),
    )


_REMOTE_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)


def _remote(error: BaseException | None) -> tuple[Raised, ...]:
    """Return what a task raised, parsed from the traceback text that pools and executors send (``RemoteTraceback``)."""
    cause = error.__cause__ if error is not None else None
    if error is None or type(cause).__name__ not in ("RemoteTraceback", "_RemoteTraceback"):
        return ()
    frames = [Frame(m["file"], int(m["line"]), m["function"], "") for m in _REMOTE_FRAME.finditer(str(cause))]
    return (replace(_raised(error), frames=tuple(frames)),)


def _failed_with(call: pytest.CallInfo[None]) -> object:
    """Return a failure's exception type and user line, as a value that is equal for similar failures."""
    return None if call.excinfo is None else (call.excinfo.typename, _raised_at(call.excinfo.tb))


def _raised_elsewhere(call: pytest.CallInfo[None]) -> bool:
    """Return whether a failure is neither an assertion nor raised by user code, such as ``pytest.fail()``."""
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


def _conftests() -> list[str]:
    modules = [m for n, m in list(sys.modules.items()) if n.rpartition(".")[2] == "conftest" and m is not None]
    return list(dict.fromkeys(str(m.__file__) for m in modules if getattr(m, "__file__", None)))
