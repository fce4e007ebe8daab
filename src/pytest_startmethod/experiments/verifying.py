"""Repeat a failed leg to see whether it is flaky, then run the experiments that confirm or clear its findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..activation import clock
from . import plan
from .plan import ByValue, Experiment, Outcome, Replay, Trial

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pytest

    from ..launches.reports import ReportDirectory
    from ..model.finding import Finding

LEGS_ALIKE = 3
"""So many legs with the same findings are run again; what these say holds for the others."""
MOST_CANDIDATES = 3
"""So many patches are tried where no cause is known."""
LEGS_OF_ONE_CAUSE = 12
"""So many legs are run again that have the first finding in common: of the others, nothing is said."""
FLAKY = "failed once and passed when it was run again; not diagnosed"


@dataclass(slots=True)
class Failed:
    """A leg that failed, as far as this module wants to know."""

    method: str
    findings: tuple[Finding, ...]
    failures: tuple[tuple[str, str], ...]
    """Phase and message of each failure."""
    touched: frozenset[tuple[str, str]] = frozenset()
    """File and function of each frame of the failing tracebacks, the children's, too."""
    not_pickled: bool = False
    """Whether it failed since a start could not pickle: that is no flake."""
    candidates: tuple[Finding, ...] = ()
    """What the test patches without any code that was seen to read it: a cause only if an experiment says so."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the runs said."""

    findings: tuple[Finding, ...]
    flaky: bool = False


@dataclass(slots=True)
class Verifier:
    """Decides which legs are run again and how often; one a session, since one cause can break hundreds."""

    reports: ReportDirectory
    legs: dict[object, int] = field(default_factory=dict)
    """How many legs were run again, by what failed."""
    known: dict[object, bool] = field(default_factory=dict)
    """What experiments said of a finding under a method."""
    unseen: dict[object, Finding] = field(default_factory=dict)
    """The candidate that was the cause of legs that fail alike."""
    _in_time: bool = True
    """Whether the last run was over in time."""

    def verify(
        self, leg: Failed, run: Callable[[AbstractContextManager[object]], Sequence[pytest.TestReport]]
    ) -> Verified:
        """Return the leg's findings, confirmed or cleared where that could be told.

        `run` runs the leg again, silently and with fixtures anew, within the context that it is given.
        """
        alike, first = _alike(leg)
        for each in (alike, first):
            self.legs[each] = self.legs.get(each, 0) + 1
        if self.legs[alike] > LEGS_ALIKE or self.legs[first] > LEGS_OF_ONE_CAUSE:
            return Verified(self._reused(leg))
        usual = {plan.failure(*each) for each in leg.failures}
        hangs = False
        if not leg.not_pickled:
            again = self._outcome(run(ExitStack()))
            hangs = not again.in_time
            if again.passed:
                return Verified((), flaky=True)
            usual.add(again.failure)
        trials = plan.plan(leg.findings, leg.touched)
        verdicts: list[tuple[Trial, bool | None]] = []
        for trial in trials:
            confirmed = any(verdict for _, verdict in verdicts)
            if confirmed and all(each.level != "cause" for each in trial.findings):
                break
            verdict, needs = self._try(trial.experiments, run, usual)
            wider = plan.wider(trial.experiments[0])
            if verdict is None and wider is not None and (hangs or self._in_time):
                verdict, needs = self._try([wider], run, usual)
            verdicts.append((_with_needs(trial, needs) if verdict else trial, verdict))
            if not (hangs or self._in_time):  # what was cut off may have left threads and locks to the runs after it
                break
        jointly = None
        if trials and (hangs or self._in_time) and not any(verdict for _, verdict in verdicts):
            jointly = plan.together(trials)
            if jointly is not None and not self._try(jointly.experiments, run, usual)[0]:
                jointly = None
        findings = _merged(leg.findings, verdicts)
        settled = plan.settle(findings, verdicts, jointly)
        if hangs or self._in_time:
            unseen = self._unseen(leg, settled, run, usual)
            if unseen is not None:
                self.unseen[alike] = unseen
                settled = (unseen, *settled)
        for each in settled:
            if each.confirmed is not None:
                self.known[_identity(each), alike] = each.confirmed
        return Verified(settled)

    def _unseen(
        self,
        leg: Failed,
        settled: Sequence[Finding],
        run: Callable[[AbstractContextManager[object]], Sequence[pytest.TestReport]],
        usual: Collection[str],
    ) -> Finding | None:
        """Return the one of the candidates without which the test passes, where nothing else may be the cause."""
        if any(each.level == "cause" and each.confirmed is not False for each in settled):
            return None
        for each in leg.candidates[:MOST_CANDIDATES]:
            if self._try((Replay(each.path),), run, usual)[0]:
                return replace(each, confirmed=True)
            if not self._in_time:
                break
        return None

    def _try(
        self,
        removed: Sequence[Experiment],
        run: Callable[[AbstractContextManager[object]], Sequence[pytest.TestReport]],
        usual: Collection[str],
    ) -> tuple[bool | None, dict[tuple[str, int], list[str]]]:
        """Run the leg without what is `removed`; return what that says, and what functions took along."""
        from . import replay

        by_value = [each for each in removed if type(each) is ByValue]
        sending = replay.SendingByValue(whole=any(each.whole for each in by_value)) if by_value else None
        replaying = replay.Replaying(each.path for each in removed if type(each) is Replay)

        @contextmanager
        def holding() -> Iterator[None]:
            with ExitStack() as stack:
                if sending is not None:
                    stack.enter_context(sending)
                if replaying.paths:
                    stack.enter_context(replaying)
                yield

        reports = run(holding())
        taken = [each for each in self.reports.replayed() if each["path"]]
        tried = not any(each["error"] for each in taken) and bool(taken or not replaying.paths)
        if sending is not None:
            tried = tried and not sending.gave_up
        outcome = self._outcome(reports, tried)
        self._in_time = outcome.in_time
        if sending is not None and not outcome.passed:
            # A child that still cannot load what it is sent shows that the cause was not removed.
            loaded = not any(each.phase == "unpickling" for each in self.reports.read())
            outcome = replace(outcome, tried=outcome.tried and loaded)
        return plan.judge(outcome, usual), sending.needs if sending is not None else {}

    def _outcome(self, reports: Sequence[pytest.TestReport], tried: bool = True) -> Outcome:
        """Return what the reports of a run say: it passed if its call was reached and nothing failed or was skipped.

        What its children raised belongs to the way in which it failed.
        """
        failed = next((each for each in reports if each.failed), None)
        if failed is None:
            return Outcome(any(each.when == "call" and each.passed for each in reports), "", tried)
        message = message_of(failed)
        if clock.is_over(message):  # what was not over in time might have been: that says nothing
            return Outcome(False, "", tried, in_time=False)
        raised = {
            plan.failure(each.phase, f"{each.error.type}: {each.error.message}")
            for each in self.reports.read()
            if each.error is not None
        }
        return Outcome(False, "; ".join([plan.failure(str(failed.when), message), *sorted(raised)]), tried)

    def _reused(self, leg: Failed) -> tuple[Finding, ...]:
        """Return the findings with what experiments on legs with the same ones said."""
        alike, _ = _alike(leg)
        unseen = self.unseen.get(alike)
        found = [unseen] if unseen is not None and unseen.path in {each.path for each in leg.candidates} else []
        found += leg.findings
        return plan.ranked(
            replace(each, confirmed=self.known.get((_identity(each), alike), each.confirmed)) for each in found
        )


def _alike(leg: Failed) -> tuple[object, object]:
    """Return what legs have in common that fail for the same reasons, and those that fail for the same first one."""
    causes: list[object] = [_identity(each) for each in leg.findings]
    causes = causes or [plan.failure(*each) for each in leg.failures]
    return (leg.method, "all", *causes), (leg.method, "first", *causes[:1])


def _identity(finding: Finding) -> object:
    return finding.code, finding.path, finding.file, finding.line


def message_of(report: Any) -> str:
    """Return the message of a failure."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)


def _with_needs(trial: Trial, needs: dict[tuple[str, int], list[str]]) -> Trial:
    """Return `trial` with findings that name what the functions which crossed took along, where they do not yet."""
    found = []
    for each in trial.findings:
        told = set(re.findall(r"\w+", " ".join(each.evidence)))
        names = needs.get((each.file or "", each.line or 0), [])
        more = (f"needs from around it: {', '.join(names)}",) if set(names) - told else ()
        found.append(replace(each, evidence=(*each.evidence, *more)))
    return replace(trial, findings=tuple(found))


def _merged(findings: Sequence[Finding], verdicts: Sequence[tuple[Trial, bool | None]]) -> tuple[Finding, ...]:
    """Return `findings`, those of the trials as the trials have them."""
    by_identity = {_identity(each): each for trial, _ in verdicts for each in trial.findings}
    return tuple(by_identity.get(_identity(each), each) for each in findings)
