"""Order findings: causes before notes, best supported first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..model.finding import Finding


@dataclass(frozen=True, slots=True, order=True)
class Weight:
    """How well a state finding is supported. The smallest weight comes first."""

    note: bool = False
    """Whether it cannot explain a failure."""
    untouched: bool = False
    """Whether its place is outside the functions in the tracebacks."""
    guessed: bool = False
    """Whether the code may not actually read it."""
    unset: bool = False
    """Whether neither a patch nor the test is known to have set it."""
    elsewhere: bool = False
    """Whether it was set outside the test's own files."""
    depth: int = 0
    """Number of calls from the target to the function that reads it."""

    @property
    def doubtful(self) -> bool:
        """Whether it becomes a note if there is a better cause."""
        return self.untouched and self.guessed


@dataclass(frozen=True, slots=True)
class Ranked:
    """A finding and its weight."""

    finding: Finding
    weight: Weight


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the causes, then the notes, in their original order."""
    every = list(findings)
    return [each for each in every if each.level == "cause"] + [each for each in every if each.level == "note"]


def keeps_from_running(finding: Finding) -> bool:
    """Return whether it keeps a child from running the user's code, or a result from coming back."""
    return finding.level == "cause" and (finding.code.startswith(("SM1", "SM2")) or finding.code == "SM407")


FOLLOWS = {
    "SM402": ("SM1", "SM2"),
    "SM403": ("SM1", "SM2", "SM307", "SM402", "SM404", "SM405", "SM407"),
    "SM404": ("SM106",),
    "SM408": ("SM1",),
}
"""Code of a consequence, and prefixes of the codes that it can follow from."""


def linked(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return `findings`, each consequence linked to the first cause that explains it."""
    causes = [each for each in findings if each.level == "cause"]

    def link(finding: Finding) -> Finding:
        starts = FOLLOWS.get(finding.code, ())
        first = next((each for each in causes if each is not finding and each.code.startswith(starts)), None)
        return finding if first is None or not starts else replace(finding, because_of=first.reference)

    return tuple(map(link, findings))


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Merge findings that differ only in their path; the other paths become evidence."""
    kept: dict[object, list[Finding]] = {}
    for each in findings:
        kept.setdefault((each.code, each.level, each.file, each.line, each.message, each.fix), []).append(each)
    return tuple(_together(every) for every in kept.values())


def _together(every: Sequence[Finding]) -> Finding:
    first, *others = every
    paths = list(dict.fromkeys(each.path for each in others if each.path != first.path))
    if not paths:
        return first
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return replace(first, evidence=(*first.evidence, f"the same at {', '.join(paths[:_SHOWN])}{more}"))


_SHOWN = 4
