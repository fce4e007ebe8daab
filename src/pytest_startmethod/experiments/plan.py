"""Which experiment would confirm a finding, in which order they are made, and what they say. Pure.

An experiment runs a failed leg again with one cause removed. If the test passes, that was the cause; if it fails the
same way, it was not; anything else says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..model.finding import Finding

MOST_RUNS: Final = 8
"""No leg is run more often for its candidates."""


@dataclass(frozen=True, slots=True)
class ByValue:
    """Functions and classes themselves cross, with what they read, where a child could not import them by name."""

    whole: bool = False
    """All of the user's cross themselves, also those that have a name: each start then has its own copy of globals."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The child takes over the parent's value of one binding."""

    path: str
    """``"pkg.settings.DEBUG"``, ``"os.environ['HOME']"``, ``"logging.root"``."""


Experiment = ByValue | Replay

_NAMELESS: Final = ("SM101", "SM102")
_NOT_FOUND: Final = ("SM104", "SM201", "SM202")
_STAYING: Final = ("SM103", "SM105", "SM106", "SM107")
"""What crosses by no means: a start that has one of these fails whatever else crosses."""
_REPLAYED: Final = ("SM301", "SM302", "SM303", "SM304", "SM305", "SM306", "SM307")


def of(finding: Finding) -> Experiment | None:
    """Return the experiment that removes the cause which `finding` names, or None where there is none."""
    if finding.code in _NAMELESS and not finding.path:
        return None  # a child's own start: nothing that the parent sends is in it
    if finding.code in (*_NAMELESS, *_NOT_FOUND):
        return ByValue(whole=finding.code in _NOT_FOUND)
    if finding.code in _REPLAYED and finding.path:
        return Replay(finding.path)
    return None


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the leg, and the findings that it confirms or clears."""

    experiments: tuple[Experiment, ...]
    findings: tuple[Finding, ...]


def plan(findings: Iterable[Finding], touched: Collection[tuple[str, str]] = ()) -> list[Trial]:
    """Return the trials in the order in which they are made: what the failing tracebacks touched first.

    `touched` are file and function of each frame of these. Notes come after all causes. Findings that one experiment
    serves share its run, so there are never more runs than candidates. Nothing crosses by value beside what cannot.
    """
    files = {file for file, _ in touched}
    findings = list(findings)
    staying = any(each.code in _STAYING and each.level == "cause" for each in findings)
    found: dict[Experiment, list[Finding]] = {}
    for finding in findings:
        experiment = of(finding)
        if experiment == ByValue() and staying:
            continue
        if experiment is not None and finding.confirmed is None:
            found.setdefault(experiment, []).append(finding)
    trials = [Trial((experiment,), tuple(served)) for experiment, served in found.items()]

    def order(trial: Trial) -> tuple[bool, bool]:
        served = trial.findings
        return all(each.level != "cause" for each in served), not any(each.file in files for each in served)

    return sorted(trials, key=order)[:MOST_RUNS]


def wider(experiment: Experiment) -> Experiment | None:
    """Return what to try if `experiment` said nothing: functions that have a name may read what they lack."""
    return ByValue(whole=True) if experiment == ByValue() else None


def together(trials: Sequence[Trial]) -> Trial | None:
    """Return all of `trials`' causes in one run, for when none of them alone was enough."""
    if len(trials) < 2:
        return None
    return Trial(
        tuple(experiment for trial in trials for experiment in trial.experiments),
        tuple(finding for trial in trials for finding in trial.findings),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the leg came to."""

    passed: bool
    failure: str = ""
    """What failed, as `failure` says; empty if nothing did, or if the test was skipped."""
    tried: bool = True
    """Whether what the experiment is about reached every child."""
    in_time: bool = True
    """Whether the call was over when its time was."""


def judge(outcome: Outcome, usual: Collection[str]) -> bool | None:
    """Return True if the cause is confirmed, False if it is cleared; `usual` is how the leg fails otherwise."""
    if not outcome.tried:
        return None
    if outcome.passed:
        return True
    return False if outcome.failure and outcome.failure in usual else None


def failure(phase: str, message: str) -> str:
    """Return what failed in a form that is the same in every run: without addresses, pids and temporary paths."""
    line = next((line for line in message.splitlines() if line.strip()), "")
    for pattern, stands_for in _VARYING:
        line = pattern.sub(stands_for, line)
    return f"{phase}: {line[:300]}"


_VARYING: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x"),
    (re.compile(r"\b(pid|parent|id|fd)(=| )'?\d+'?"), r"\1\2#"),
    (re.compile(r"\b(\w*(?:Process|PoolWorker))-[\d:]+"), r"\1-#"),
    (re.compile(r"pytest-of-[^/\s]+/pytest-\d+"), "pytest"),
    (re.compile(r"/tmp[\w-]{6,}"), "/tmp"),
)


def settle(
    findings: Iterable[Finding], verdicts: Iterable[tuple[Trial, bool | None]], jointly: Trial | None = None
) -> tuple[Finding, ...]:
    """Return `findings` with what the trials said: confirmed ones first, cleared ones last, otherwise in order.

    A note that is confirmed is a cause. `jointly`: none was enough alone, and all of this trial's together were.
    """
    said = {finding: verdict for trial, verdict in verdicts for finding in trial.findings}
    settled = []
    for each in findings:
        if jointly is not None and each in jointly.findings:
            others = tuple(dict.fromkeys(other.path or other.name for other in jointly.findings if other != each))
            each = replace(
                each,
                confirmed=True,
                level="cause",
                evidence=(*each.evidence, f"only together with {', '.join(others)}"),
            )
        elif said.get(each) is not None:
            each = replace(each, confirmed=said[each], level="cause" if said[each] else each.level)
        settled.append(each)
    return ranked(settled)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings` with the confirmed ones first and the cleared ones last."""
    return tuple(sorted(findings, key=lambda each: 1 if each.confirmed is None else 0 if each.confirmed else 2))
