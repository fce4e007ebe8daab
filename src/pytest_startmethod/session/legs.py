"""What a leg is, and what is known of one while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..model.leg import Leg

if TYPE_CHECKING:
    from ..activation.activation import Activation
    from ..launches.recorder import LegRecord
    from ..launches.reports import ReportDirectory
    from ..model.finding import Finding
    from ..model.leg_result import LegResult


LEG = pytest.StashKey[Leg]()
"""An item's `Leg`; only items that are one have it."""

DISCOVERED = pytest.StashKey[bool]()
"""Set on an item while it runs again as a leg that `discovery` made."""

STATE = pytest.StashKey["LegState"]()
"""What is known of a leg while it runs; gone when it is over."""


_PASSED = [("setup", "passed"), ("call", "passed")]


class LegState:
    """One running leg: everything that the hooks around it share."""

    def __init__(
        self,
        leg: Leg,
        activation: Activation,
        record: LegRecord,
        reports: ReportDirectory | None,
        *,
        watched: bool = False,
        discovered: bool = False,
    ) -> None:
        self.leg = leg
        self.activation = activation
        self.record = record
        self.reports = reports
        """Where its children report, if there is a place for it."""
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

    def only_started(self) -> bool:
        """Say whether all that the leg did was to start processes with its method of which nothing is to be said."""
        record = self.record
        if record.failures or record.tasks or self.watched:
            return False
        if not record.described:
            return bool(record.repeated)
        return all(
            each.method == self.leg.method
            and not each.predicted
            and (each.observed is None or not each.observed.primitives)
            for each in record.described
        )

    def passed(self, report: pytest.TestReport, troubles: list[str]) -> bool:
        """Take the report of a phase that passed, if there is nothing to tell of it; return whether there is not.

        Most phases are like that, and a fork pays for each page that was written to since the one before. The report
        of the last phase gets the leg's result, in the form that `report.LegResult.of` knows, with `troubles` none.
        """
        if not report.passed or self.watched or hasattr(report, "wasxfail"):
            return False
        if report.when == "setup":
            if self.shown:
                return False
        elif not self.only_started():
            return False
        elif report.when == "teardown":
            if self.outcomes != _PASSED or troubles or self.findings or self.notes or self.discovered:
                return False
            record, leg = self.record, self.leg
            if record.foreign or not record.is_over():
                return False
            launches: list[Any] = [each.as_dict() for each in record.described]
            for each in record.repeated:
                launches.append(each.as_tuple())
                if each.pid is not None and self.reports is not None:
                    self.reports.over(each.pid)
            duration = self.duration + report.duration
            report.startmethod = (leg.nodeid, leg.test, leg.method, leg.file, leg.line, duration, launches)  # type: ignore[attr-defined]
            self.finished = None
            self.start_anew()
            return True
        self.count(report)
        return True

    def start_anew(self) -> None:
        """Forget a run that is over: pytest-rerunfailures runs the leg again within the same span."""
        for each in (self.outcomes, self.findings, self.children, self.record):
            each.clear()
        self.duration, self.message, self.vacuous, self.hang, self.predictions = 0.0, None, None, None, ()
