"""The order of findings: causes before notes, the best supported first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.finding import Finding


@dataclass(frozen=True, slots=True, order=True)
class Weight:
    """How well a finding on state is supported; the smallest first."""

    note: bool = False
    """Whether it can explain no failure."""
    untouched: bool = False
    """Whether the place is in no function of a traceback."""
    guessed: bool = False
    """Whether the code is only guessed to read it."""
    unset: bool = False
    """Whether nothing is known to have set it, in a test or by patching."""
    elsewhere: bool = False
    """Whether it was set outside the test's own files."""
    depth: int = 0
    """How many functions lie between the target and the one that reads it."""

    @property
    def doubtful(self) -> bool:
        """Whether any better cause makes it a note."""
        return self.untouched and self.guessed


@dataclass(frozen=True, slots=True)
class Ranked:
    """A finding with its weight."""

    finding: Finding
    weight: Weight


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the causes, then the notes, each kept in order."""
    every = list(findings)
    return [each for each in every if each.level == "cause"] + [each for each in every if each.level == "note"]


def keeps_from_running(finding: Finding) -> bool:
    """Return whether it keeps a child from reaching the user's code, or its result from coming back."""
    return finding.level == "cause" and (finding.code.startswith(("SM1", "SM2")) or finding.code == "SM407")
