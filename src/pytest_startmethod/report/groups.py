"""Findings of many legs, gathered by cause. Pure."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..model.finding import Finding
from ..model.leg_result import LegResult
from ..model.methods import base, rank, split
from .verdicts import failed

PREDICTED_FOR: Final = ("spawn", "forkserver")
"""The methods for which the pre-check predicts."""

_VARYING: Final = re.compile(r"\b0x[0-9a-fA-F]{5,16}\b|\d+|\b(?:fork|spawn|forkserver)\b")

_OF_OBJECTS: Final = ("SM1", "SM2")
"""The codes about an object that is pickled or loaded, which the message names."""


def _same(text: str) -> str:
    """Return a text without numbers, addresses, methods and temporary paths, which differ from leg to leg."""
    temp = "|".join(re.escape(each) for each in {tempfile.gettempdir(), os.path.realpath(tempfile.gettempdir())})
    return _VARYING.sub("", re.sub(rf"(?:{temp})[/\\][^\s'\",;:)]*?([^/\\\s'\",;:)]*)(?=[\s'\",;:)]|$)", r"\1", text))


def identity(finding: Finding) -> tuple[object, ...]:
    """Return the identity of a finding across legs: code, place, and path without its indices.

    The message counts where there is no place, and for what is pickled: the place may be a line of a helper that many
    tests call with objects of their own. A leg's own ``tmp_path`` does not count.
    """
    path = re.sub(r"\[\d+\]", "[]", finding.path)
    message = _same(finding.message) if finding.file is None or finding.code.startswith(_OF_OBJECTS) else ""
    if finding.file is None:
        return finding.code, path, None, None, message
    temporary = r"([/\\]pytest-of-[^/\\]+[/\\]pytest-)\d+(?:[/\\]popen-gw\d+)?[/\\][^/\\]+"
    return finding.code, path, re.sub(temporary, r"\1", finding.file), finding.line, message


def _key(finding: Finding, leg: LegResult) -> tuple[object, ...]:
    return (*identity(finding), leg.file if finding.file is None else None, finding.confirmed is False)


def parent_path(finding: Finding) -> str:
    """Return a finding's path without its last step."""
    return re.sub(r"(?<=[\w\])])(?:\.\w+|\[[^\[\]]*\])$", "", finding.path)


# -- one leg ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Told:
    """Findings reported as one: leaves of one object, or values that are sufficient only together."""

    findings: list[Finding]
    consequences: list[Finding] = field(default_factory=list)

    @property
    def finding(self) -> Finding:
        """The first of them."""
        return self.findings[0]

    @property
    def paths(self) -> str:
        """The paths; those after the first without their common beginning: ``a._lock, ._log``."""
        if self.finding.path in self.finding.together:
            return ", ".join(self.finding.together)
        start = parent_path(self.finding)
        rest = (each.path.removeprefix(start) if start != each.path else each.path for each in self.findings[1:])
        return ", ".join(dict.fromkeys([self.finding.path, *rest]))

    def places(self) -> list[tuple[str, list[int]]]:
        """Return each file with the lines in it."""
        files: dict[str, list[int]] = {}
        for each in self.findings:
            if each.file is not None:
                lines = files.setdefault(each.file, [])
                lines += [each.line] if each.line is not None and each.line not in lines else []
        return list(files.items())


def _belongs(finding: Finding, to: Finding) -> bool:
    """Return whether two findings are about one object, with the same result of experiments."""
    if (finding.code, finding.level, finding.confirmed) != (to.code, to.level, to.confirmed) or not to.path:
        return False
    return parent_path(finding) == parent_path(to) != to.path


def told(findings: Iterable[Finding]) -> list[Told]:
    """Group a leg's findings for output: one object once, consequences with their cause."""
    found: list[Told] = []
    after: list[Finding] = []
    for each in findings:
        first = next((t for t in found if _belongs(each, t.finding)), None)
        if each.because_of:
            after.append(each)
        elif first is None:
            found.append(Told([each]))
        else:
            first.findings.append(each)
    for each in (*after, *after):  # twice: a consequence may have one of its own that comes first
        cause = next((t for t in found if _follows(each, (*t.findings, *t.consequences))), None)
        if cause is not None and each not in cause.consequences:
            cause.consequences.append(each)
    alone = [each for each in after if not any(each in t.consequences for t in found)]
    return [*(Told([each]) for each in alone), *found]


def _follows(finding: Finding, causes: Iterable[Finding]) -> bool:
    """Return whether `finding` is a consequence of one of `causes` that no experiment cleared."""
    return any(c.reference == finding.because_of and c.confirmed is not False for c in causes)


# -- many legs -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Group:
    """One cause and its legs."""

    finding: Finding
    legs: list[LegResult] = field(default_factory=list)
    predicted: bool = False
    others: list[Group] = field(default_factory=list)
    """Findings of the same object, in the same legs."""
    consequences: list[Group] = field(default_factory=list)
    """Its consequences in some of its legs."""

    @property
    def tests(self) -> list[str]:
        """The tests of its legs, each once."""
        return list(dict.fromkeys(leg.test for leg in self.legs))

    @property
    def nodeids(self) -> set[str]:
        """The node ids of its legs."""
        return {leg.nodeid for leg in self.legs}

    @property
    def confirmed(self) -> tuple[int, int]:
        """The number of its legs for which an experiment confirmed its finding, and of all but fork legs."""
        same = identity(self.finding)
        legs = [leg for leg in self.legs if base(leg.method) != "fork"]
        return sum(any(each.confirmed and identity(each) == same for each in leg.findings) for leg in legs), len(legs)

    @property
    def methods(self) -> list[str]:
        """The methods concerned."""
        return list(PREDICTED_FOR) if self.predicted else sorted({leg.method for leg in self.legs}, key=rank)

    @property
    def told(self) -> Told:
        """Its findings as one."""
        return Told([self.finding, *(each.finding for each in self.others)])


def group(results: Iterable[LegResult]) -> list[Group]:
    """Group equal findings of all legs: causes first, the most frequent first.

    A finding that an experiment cleared does not count in a leg that another finding explains. A prediction is left
    out if a leg of its test has the finding or refutes it.
    """
    groups: dict[object, Group] = {}
    legs = list(results)
    for leg in legs:
        explained = any(each.confirmed for each in leg.findings)
        for finding in leg.findings:
            if explained and finding.confirmed is False:
                continue
            found = groups.setdefault(_key(finding, leg), Group(finding))
            found.legs.append(leg)
            if finding.confirmed and not found.finding.confirmed:
                found.finding = finding
    for leg, finding in predictions(legs):
        groups.setdefault(("predicted", *_key(finding, leg)), Group(finding, predicted=True)).legs.append(leg)
    return sorted(
        groups.values(),
        key=lambda g: (g.finding.level != "cause", g.predicted, g.finding.confirmed is False, -len(g.legs)),
    )


def predictions(legs: Sequence[LegResult]) -> Iterator[tuple[LegResult, Finding]]:
    """Yield the predictions that no leg of the same test and package has fulfilled or refuted."""
    refuted = {(leg.test, split(leg.method)[0]) for leg in legs if refutes(leg)}
    true = {(leg.test, identity(each)[:-1]) for leg in legs for each in leg.findings}
    for leg in legs:
        if (leg.test, split(leg.method)[0]) not in refuted:
            yield from ((leg, each) for each in leg.predictions if (leg.test, identity(each)[:-1]) not in true)


def refutes(leg: LegResult) -> bool:
    """Return whether a leg shows that the test works without fork."""
    if base(leg.method) == "fork" or leg.outcome not in ("passed", "xpassed"):
        return False
    # processes that it did not start itself may be those of the fork leg
    return leg.vacuous is None or leg.vacuous.code not in ("SM501", "SM503")


def nested(groups: Sequence[Group]) -> list[Group]:
    """Nest `groups` for output: those of one object as one, consequences within their cause."""
    found: list[Group] = []
    for each in groups:
        first = next((g for g in found if _shares(each, g)), None)
        if first is not None:
            first.others.append(each)
        else:
            found.append(Group(each.finding, each.legs, each.predicted))
    after = [each for each in found if each.finding.because_of]
    kept = [each for each in found if not each.finding.because_of]
    for each in (*after, *after):
        cause = next((g for g in kept if each.nodeids <= g.nodeids and _follows(each.finding, _told_in(g))), None)
        if cause is not None and each not in cause.consequences:
            cause.consequences.append(each)
    alone = [each for each in after if not any(each in g.consequences for g in kept)]
    return [*kept, *alone]


def _told_in(group: Group) -> list[Finding]:
    return [*group.told.findings, *(each.finding for each in group.consequences)]


def _shares(each: Group, other: Group) -> bool:
    same = each.predicted == other.predicted and each.nodeids == other.nodeids
    return same and _belongs(each.finding, other.finding)


def group_vacuous(results: Iterable[LegResult]) -> list[Group]:
    """Group the legs that passed without testing their method, the most frequent kind first."""
    groups: dict[object, Group] = {}
    for leg in results:
        if leg.vacuous is not None:
            groups.setdefault(identity(leg.vacuous), Group(leg.vacuous)).legs.append(leg)
    return sorted(groups.values(), key=lambda g: -len(g.legs))


def unexplained(results: Iterable[LegResult]) -> list[list[LegResult]]:
    """Group the failed legs without a cause, of tests that passed under another method, by message."""
    legs = list(results)
    passed = {leg.test for leg in legs if leg.outcome in ("passed", "xfailed", "xpassed")}
    groups: dict[str, list[LegResult]] = {}
    for leg in legs:
        if failed(leg) and leg.test in passed and not any(each.level == "cause" for each in leg.findings):
            groups.setdefault(_same(leg.message or ""), []).append(leg)
    return sorted(groups.values(), key=lambda each: -len(each))


# -- one test --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Merged:
    """Equal findings of a test's legs."""

    finding: Finding
    methods: list[str] = field(default_factory=list)
    predicted: bool = False


def merged(legs: Mapping[str, LegResult]) -> list[Merged]:
    """Merge equal findings of one test's legs: the leading cause of its failures first.

    Then come the findings of passing legs, unfulfilled predictions, and notes.
    """
    found: dict[object, Merged] = {}
    place: dict[object, tuple[object, ...]] = {}

    def add(finding: Finding, methods: Sequence[str], rank_: tuple[object, ...], *, predicted: bool = False) -> None:
        key = (*identity(finding), finding.confirmed is False)
        each = found.setdefault(key, Merged(finding, predicted=predicted))
        each.methods += [method for method in methods if method not in each.methods]
        if finding.confirmed and finding.every_method:  # under fork nothing is verified
            each.finding = finding
        place[key] = min(place.get(key, rank_), rank_)

    for number, method in enumerate(sorted(legs, key=rank)):
        leg = legs[method]
        for index, finding in enumerate(leg.findings):
            wrong = leg.outcome not in ("failed", "error")
            add(finding, [method], (int(wrong), finding.level != "cause", index, number))
        if leg.vacuous is not None:
            add(leg.vacuous, [method], (3, True, 0, number))
    for index, (_, finding) in enumerate(predictions(list(legs.values()))):
        add(finding, PREDICTED_FOR, (2, False, index, 0), predicted=True)
    return [found[key] for key in sorted(found, key=lambda key: place[key])]
