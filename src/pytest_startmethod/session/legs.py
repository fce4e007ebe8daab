"""The state of a leg while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from ..model.leg import Leg

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..activation.default_method import Activation
    from ..launches.reports import ReportDirectory
    from ..model.finding import Finding
    from ..model.launch import Launch
    from ..model.leg_record import LegRecord, Pending
    from ..model.leg_result import LegResult
    from ..model.observed import Observed
    from ..model.stack import Hanging


LEG = pytest.StashKey[Leg]()
"""The item's `Leg`; absent on items that are not legs."""

DISCOVERED = pytest.StashKey[bool]()
"""Set on an item that is re-run as a leg created by `discovery`."""

STATE = pytest.StashKey["LegState"]()
"""The state of a running leg; removed when it ends."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a leg for an experiment."""

    seconds: float
    """Time limit of the call phase."""
    examine: Callable[[pytest.Item, pytest.CallInfo[None], pytest.TestReport, LegState], None]
    """Called for each failing phase."""


class LegState:
    """The state of a running leg, shared by the hooks around it."""

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
        """Directory where the leg's children report, or None if it could not be created."""
        self.watched = watched
        """Whether this is an unmarked test's first run: only observed, with its own method, no limit, nothing ended."""
        self.discovered = discovered
        self.calling = False
        """Whether the call phase is running: a report that is made then is a subtest's."""
        self.warned = 0
        self.outcomes: list[tuple[str, str]] = []
        """Phase and outcome of each report."""
        self.duration = 0.0
        self.message: str | None = None
        self.vacuous: Finding | None = None
        self.findings: list[Finding] = []
        self.predictions: tuple[Finding, ...] = ()
        self.hanging: Hanging | None = None
        """Stacks of the parent and its children when the time limit was reached."""
        self.children: set[object] = set()
        """Keys of the children's errors already shown below a failure."""
        self.notes: list[str] = []
        """Lines for the summary that could not be issued as warnings."""
        self.debugged = False
        self.trial: Trial | None = None
        """Set during an experiment."""
        self.shown: list[tuple[pytest.TestReport, tuple[Finding, ...]]] = []
        """The failing reports of the last run, each with the findings shown below it."""
        self.touched: set[tuple[str, str]] = set()
        """File and function of each frame in the tracebacks of these failures and of the children."""
        self.failed_with: set[object] = set()
        """Exception type and user line of each, see `Evidence.failed_with`, and types of what children raised."""
        self.observed: list[Observed] = []
        """Reads observed in the launches and tasks of failing phases."""
        self.hangs = False
        """Whether the time limit ended the last run."""
        self.not_pickled = False
        """Whether a failure is due to a payload that did not pickle."""
        self.failures: list[tuple[str, ...]] = []
        """Each failure in a form that can be compared between runs."""
        self.reported_only = False
        """Whether a hook turned a phase that raised nothing into a failure."""
        self.finished: LegResult | None = None
        """Result of the last finished run."""
        self.unanswered: tuple[tuple[Launch, ...], list[Pending]] = (), []
        """Launches of the last finished run, and their pre-checks that had no answer by then."""

    def count(self, report: pytest.TestReport) -> None:
        """Record a report's phase, outcome and duration."""
        outcome: str = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        self.outcomes.append((str(report.when), outcome))
        self.duration += report.duration

    def start_anew(self) -> None:
        """Reset after a finished run: pytest-rerunfailures repeats a leg within one protocol call."""
        for each in (self.outcomes, self.findings, self.children, self.record):
            each.clear()
        self.duration, self.message, self.vacuous, self.hanging, self.predictions = 0.0, None, None, None, ()
