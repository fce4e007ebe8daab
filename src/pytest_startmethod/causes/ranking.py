"""The order of findings: causes before notes, the best supported first."""

from __future__ import annotations

from collections.abc import Iterable

from ..model.finding import Finding


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the causes, then the notes, each kept in order."""
    every = list(findings)
    return [each for each in every if each.level == "cause"] + [each for each in every if each.level == "note"]


def keeps_from_running(finding: Finding) -> bool:
    """Return whether it keeps a child from reaching the user's code, or its result from coming back."""
    return finding.level == "cause" and (finding.code.startswith(("SM1", "SM2")) or finding.code == "SM407")
