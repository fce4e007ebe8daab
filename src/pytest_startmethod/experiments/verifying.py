"""Rerun failed legs, within a time budget, to confirm or clear their findings."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..launches.reports import ReportDirectory
from ..model.finding import Finding
from ..model.methods import available
from . import plan
from .plan import Attempt, ByValue, Conclusion, Copies, Failures, Originals, Outcome, Replay, Unpatched

if TYPE_CHECKING:
    from .by_value import SendingByValue
    from .copies import Copying, SendingOriginals
    from .unpatched import StartingUnpatched

LEGS_OF_ONE_CAUSE, LEGS_OF_A_CONFIRMED_CAUSE = 3, 10
"""The most legs to rerun for one cause, before and after it is confirmed. Those that fail like a settled one are not
rerun at all."""
FEWEST_SECONDS = 60.0
"""The least time budget, in seconds. A session that took longer has its own duration as budget."""
_RUNS_OF_A_SEARCH = 2 * plan.MOST_RUNS
"""How many times a leg's duration a whole search may take: its children run for longer when they no longer fail.
Nothing runs for longer than a hang."""
RACE = "failed once and passed when it was run again: a race, for which the unshared object is reason enough"
FLAKY = "failed once and passed when it was run again; not diagnosed"

_WITH_FORK = [method for method in available() if method != "fork"] if "fork" in available() else []
"""The methods whose failures a run under fork may have with copies."""

_now = time.monotonic


@dataclass(slots=True)
class LegToVerify:
    """The facts about a failed leg that experiments need."""

    method: str
    findings: tuple[Finding, ...]
    failures: tuple[tuple[str, ...], ...]
    """Failures in the form of `plan.failure`, including the children's."""
    touched: frozenset[tuple[str, str]] = frozenset()
    """File and function of each frame of the failing tracebacks, including the children's."""
    failed_with: frozenset[object] = frozenset()
    """Exception type and user line of each failure, and the types of the children's exceptions."""
    not_pickled: bool = False
    """Whether a start failed in pickling, which is never flaky."""
    hidden: tuple[Finding, ...] = ()
    """Findings without a known read, reported only if an experiment confirms them."""
    seconds: float = 0.0
    """The leg's duration, and at most a run's time limit if it hangs."""
    hangs: bool = False
    """Whether its time limit ended it."""

    @property
    def causes(self) -> tuple[object, ...]:
        """A key shared by legs that fail for the same reasons, the first reason first.

        Without findings, failures must match in their tracebacks' functions as well as in their words.
        """
        return tuple(each.key for each in self.findings) or (*self.failures, self.touched)

    @property
    def messages(self) -> tuple[str, ...]:
        """What the findings say, without the numbers."""
        return tuple(_without_numbers(each.message) for each in self.findings)

    @property
    def alike(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Keys shared by legs that fail alike for the same causes, and by those that also fail with the same words.

        Legs fail alike with exceptions of the same types, from the same line and through the same functions: a test
        with the causes of another may still fail for a reason of its own, as may one that no longer fails to pickle.
        """
        key = (self.method, self.causes, self.messages, self.failed_with, self.touched)
        return key, (*key, _without_numbers(" ".join(word for each in self.failures for word in each)))


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "#", text)


@dataclass(frozen=True, slots=True)
class Verified:
    """A leg's findings after its reruns."""

    findings: tuple[Finding, ...]
    flaky: bool = False


Run = Callable[[Attempt, float, Callable[[Sequence[str]], bool]], Outcome]
"""Reruns the leg. Arguments: the attempt, a time limit in seconds, and a test for usual failures."""


@dataclass(slots=True)
class Verifier:
    """Decides which legs to rerun and how often. One per session, since one cause can break hundreds of legs."""

    seconds: float = FEWEST_SECONDS
    """The time budget."""
    runs: int = 0
    spent: float = 0.0
    """Time spent, in seconds."""
    legs: int = 0
    """Number of legs that were rerun."""
    left_out: int = 0
    """Number of legs that were not, or not to the end, because the budget was spent."""
    _tried: dict[object, int] = field(default_factory=dict)
    """Number of legs that were rerun, by method and first cause."""
    _confirmed: set[object] = field(default_factory=set)
    """Method and first cause of the legs with a confirmed cause."""
    _settled: dict[object, tuple[Finding, ...]] = field(default_factory=dict)
    """Settled findings, by method and causes."""
    _sufficient: dict[object, list[plan.Experiment]] = field(default_factory=dict)
    """The smallest sufficient experiments, by causes: other methods try these first."""

    def verify(self, leg: LegToVerify, run: Run) -> Verified:
        """Return the leg's findings, confirmed or cleared where the runs allow it."""
        first = (leg.method, *leg.causes[:1])
        by_cause, by_failure = leg.alike
        for alike in (by_cause, by_failure):
            if alike in self._settled:
                return Verified(_same(leg, self._settled[alike]))
        most = LEGS_OF_A_CONFIRMED_CAUSE if first in self._confirmed else LEGS_OF_ONE_CAUSE
        if self._tried.get(first, 0) >= most:
            return Verified(leg.findings)
        if self.spent + leg.seconds > self.seconds:
            self.left_out += 1
            return Verified(leg.findings)
        self._tried[first] = self._tried.get(first, 0) + 1
        self.legs += 1
        usual = Failures()
        for failure in leg.failures:
            usual.add(failure)
        under_any_method = leg.causes, leg.messages
        conclusion = self._search(leg, usual, run, self._sufficient.get(under_any_method, ()))
        hidden = {each.key for each in leg.hidden} - {each.key for each in leg.findings}
        found = (*leg.findings, *(each for each in leg.hidden if each.key in hidden))
        hidden -= {each.key for each in conclusion.more}  # a second look saw it read
        settled = tuple(e for e in plan.settle(found, conclusion) if e.confirmed or e.key not in hidden)
        if conclusion.confirmed:
            self._sufficient[under_any_method] = [each.experiment for each in conclusion.confirmed]
        if any(each.confirmed for each in settled):
            self._settled[by_cause] = settled
            self._confirmed.add(first)
        elif any(each.confirmed is False for each in settled):  # valid for this failure only
            self._settled[by_failure] = settled
        return Verified(settled, conclusion.flaky)

    def _search(self, leg: LegToVerify, usual: Failures, run: Run, sufficient: Sequence[plan.Experiment]) -> Conclusion:
        found = plan.candidates(leg.findings, leg.hidden, leg.touched)
        copied = [each for each in leg.findings if each.by_copies]
        copied = copied if leg.method in _WITH_FORK else []
        causes = any(each.level == "cause" for each in leg.findings)
        runs = plan.MOST_RUNS if leg.hangs else _RUNS_OF_A_SEARCH
        search = plan.search(
            found,
            usual,
            not_pickled=leg.not_pickled,
            hangs=leg.hangs,
            hurried=bool(found) and causes and self.spent + runs * leg.seconds > self.seconds,
            sufficient=sufficient,
            copied=copied,
        )
        is_cut = False
        try:
            attempt = next(search)
            while True:
                left = self.seconds - self.spent
                if left < leg.seconds:
                    self.left_out += not is_cut
                    is_cut = True
                    attempt = search.throw(plan.SpentError())
                    continue
                began = _now()
                try:
                    outcome = run(attempt, left, usual.__contains__)
                finally:
                    self.runs += 1
                    self.spent += _now() - began
                attempt = search.send(outcome)
        except StopIteration as end:
            conclusion: Conclusion = end.value
            return conclusion


def _same(leg: LegToVerify, settled: Sequence[Finding]) -> tuple[Finding, ...]:
    """Apply settled findings to a leg that fails alike for the same reasons."""
    own = {each.key: each for each in (*leg.hidden, *leg.findings)}
    return tuple(
        each
        if each.together or each.key not in own
        else replace(own[each.key], confirmed=each.confirmed, level=each.level, because_of=each.because_of)
        for each in settled
        if each.key in own or each.confirmed
    )


@dataclass(slots=True)
class Changes:
    """How an attempt's changes worked, according to the children's reports. Query it before those are cleared."""

    _attempt: Attempt
    _reports: ReportDirectory
    _sending: SendingByValue | None = None
    _copying: Copying | None = None
    _originals: SendingOriginals | None = None
    _starting: StartingUnpatched | None = None

    def unsent(self) -> frozenset[plan.Experiment]:
        """Return the changes that did not reach every child."""
        taken = [each for each in self._reports.replayed() if each["path"]]
        wrong = {each["path"] for each in taken if each["error"]}
        missed = [
            e for e in self._attempt.experiments if type(e) is Replay and (wrong.issuperset(e.paths) or not taken)
        ]
        # A child that still cannot load its payload shows that the cause was not removed.
        gave_up = self._sending is not None and (
            self._sending.gave_up or any(each.phase == "unpickling" for each in self._reports.read())
        )
        by_value = [each for each in self._attempt.experiments if type(each) is ByValue]
        copies = [Copies()] if self._copying is not None and self._copying.gave_up else []
        lost = self._originals is not None and self._originals.gave_up
        originals = [each for each in self._attempt.experiments if lost and type(each) is Originals]
        absent = self._starting.absent if self._starting is not None else ()
        unpatched = [e for e in self._attempt.experiments if type(e) is Unpatched and e.path in absent]
        return frozenset([*missed, *(by_value if gave_up else ()), *copies, *originals, *unpatched])

    def imported(self) -> frozenset[plan.Experiment]:
        """Return the replays whose value every child of a control got by an import."""
        by: dict[str, list[bool]] = {}
        for each in self._reports.replayed():
            by.setdefault(each["path"], []).append(each.get("imported", False))
        return frozenset(
            e
            for e in self._attempt.experiments
            if type(e) is Replay and all(all(by.get(path, [False])) for path in e.paths)
        )


@contextmanager
def changed(attempt: Attempt, reports: ReportDirectory) -> Iterator[Changes]:
    """Apply an attempt's changes to all starts within the context."""
    from .by_value import SendingByValue
    from .copies import Copying, SendingOriginals
    from .replay import Replaying
    from .unpatched import StartingUnpatched

    by_value = [each for each in attempt.experiments if type(each) is ByValue]
    replays = [each for each in attempt.experiments if type(each) is Replay]
    originals = [each.path for each in attempt.experiments if type(each) is Originals]
    with ExitStack() as stack:
        changes = Changes(attempt, reports)
        if by_value:
            sending = SendingByValue(whole=any(each.whole for each in by_value))
            changes._sending = stack.enter_context(sending)
        if Copies() in attempt.experiments and not attempt.control:
            changes._copying = stack.enter_context(Copying())
        if originals:
            changes._originals = stack.enter_context(SendingOriginals(originals))
        unpatched = [each.path for each in attempt.experiments if type(each) is Unpatched]
        if unpatched:
            changes._starting = stack.enter_context(StartingUnpatched(unpatched))
        if replays:
            stack.enter_context(Replaying([path for each in replays for path in each.paths], control=attempt.control))
        yield changes
