"""What a leg is, and what is known of one while it runs."""

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
    from ..model.leg_record import LegRecord
    from ..model.leg_result import LegResult
    from ..model.observed import Observed
    from ..model.stack import Hanging


LEG = pytest.StashKey[Leg]()
"""An item's `Leg`; only items that are one have it."""

DISCOVERED = pytest.StashKey[bool]()
"""Set on an item while it runs again as a leg that `discovery` made."""

STATE = pytest.StashKey["LegState"]()
"""What is known of a leg while it runs; gone when it is over."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A run of a leg for an experiment."""

    seconds: float
    """The most that its call may take."""
    examine: Callable[[pytest.Item, pytest.CallInfo[None], pytest.TestReport, LegState], None]
    """Called for each phase that fails."""


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
        self.hanging: Hanging | None = None
        """Where everybody stood when the time limit was reached."""
        self.children: set[object] = set()
        """What children raised, as far as it stands below a failure."""
        self.notes: list[str] = []
        """What the summary must say because a warning could not."""
        self.debugged = False
        self.trial: Trial | None = None
        """Set while the leg runs again for an experiment."""
        self.shown: list[tuple[pytest.TestReport, tuple[Finding, ...]]] = []
        """The failures of the last run, and the findings that stand below each."""
        self.touched: set[tuple[str, str]] = set()
        """File and function of each frame of the tracebacks of these failures, those of the children, too."""
        self.observed: list[Observed] = []
        """What the code of their launches and tasks reads."""
        self.not_pickled = False
        """Whether one of them comes from a start that could not pickle."""
        self.failures: list[tuple[str, ...]] = []
        """How each of them failed, in a form that can be compared with another run's."""
        self.reported_only = False
        """Whether one of them is a failure by a hook's word only: the phase itself raised nothing."""
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
        for each in (self.outcomes, self.findings, self.children, self.record):
            each.clear()
        self.duration, self.message, self.vacuous, self.hanging, self.predictions = 0.0, None, None, None, ()
