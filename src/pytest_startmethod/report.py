"""What the legs of a session say: verdicts, groups and the lines of the summary. Plain data in, plain text out."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .finding import WIDTH, Finding
from .selection import ORDER

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


@dataclass(frozen=True, slots=True)
class LegResult:
    """One leg, finished."""

    nodeid: str
    test: str
    """The node id without the method."""
    method: str
    file: str
    line: int
    outcome: str
    """One of `OUTCOMES`."""
    duration: float = 0.0
    """Seconds of set-up, call and tear-down together."""
    message: str | None = None
    """The first line of what failed."""
    launches: tuple[dict[str, Any], ...] = ()
    tasks: tuple[dict[str, Any], ...] = ()
    vacuous: Finding | None = None
    findings: tuple[Finding, ...] = ()
    """Why the leg failed, or what it swallowed."""
    predictions: tuple[Finding, ...] = ()
    """Under fork: what spawn would say."""
    troubles: tuple[str, ...] = ()
    """What went wrong in the plugin itself, or could not be said as a warning."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as builtins, for a report that crosses processes."""
        data = {name: getattr(self, name) for name in self.__slots__}
        data["launches"], data["tasks"], data["troubles"] = list(self.launches), list(self.tasks), list(self.troubles)
        data["vacuous"] = None if self.vacuous is None else self.vacuous.as_dict()
        data["findings"] = [each.as_dict() for each in self.findings]
        data["predictions"] = [each.as_dict() for each in self.predictions]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LegResult:
        """Return the result that `as_dict` was made from."""
        values = dict(data)
        for name in ("launches", "tasks", "troubles"):
            values[name] = tuple(data[name])
        values["vacuous"] = None if data["vacuous"] is None else Finding.from_dict(data["vacuous"])
        values["findings"] = tuple(map(Finding.from_dict, data["findings"]))
        values["predictions"] = tuple(map(Finding.from_dict, data["predictions"]))
        return cls(**values)


def in_order(results: Iterable[LegResult]) -> list[LegResult]:
    """Return `results` by file, line, test and method: the same whoever ran them, and when."""
    return sorted(results, key=lambda leg: (leg.file, leg.line, leg.test, ORDER.index(leg.method)))


def verdict(legs: Mapping[str, LegResult]) -> str:
    """Say what one test's legs (by method) say together."""
    bad = [m for m in ORDER if m in legs and legs[m].outcome in ("failed", "error")]
    ran = [m for m in ORDER if m in legs and legs[m].outcome != "skipped"]
    if not ran:
        return "skipped"
    if not bad:
        return "vacuous" if any(leg.vacuous for leg in legs.values()) else "passes"
    if bad == ran:
        return "fails"
    if "fork" in ran and bad == [m for m in ran if m != "fork"]:
        return "needs-fork"
    return f"fails under {' and '.join(bad)} only"


@dataclass(slots=True)
class Group:
    """One cause and the legs it has."""

    finding: Finding
    legs: list[LegResult] = field(default_factory=list)
    predicted: bool = False


def group(results: Iterable[LegResult]) -> list[Group]:
    """Gather equal findings of all legs: causes first, the most frequent first.

    A prediction joins the finding that came true, and stands alone if none did. One that a leg of the same test has
    proved wrong is dropped.
    """
    groups: dict[object, Group] = {}
    legs = list(results)
    for leg in legs:
        for finding in leg.findings:
            groups.setdefault(_identity(finding), Group(finding)).legs.append(leg)
    refuted = {leg.test for leg in legs if _refutes(leg)}
    for leg in legs:
        for finding in leg.predictions if leg.test not in refuted else ():
            key = _identity(finding)
            if key not in groups or groups[key].predicted:
                groups.setdefault(key, Group(finding, predicted=True)).legs.append(leg)
    return sorted(groups.values(), key=lambda g: (g.finding.level != "cause", g.predicted, -len(g.legs)))


def _refutes(leg: LegResult) -> bool:
    """Return whether a leg shows that the test does without what fork alone allows."""
    if leg.method == "fork" or leg.outcome not in ("passed", "xpassed"):
        return False
    # the processes that it did not start itself are those of another leg, which may have been the fork leg's
    return leg.vacuous is None or leg.vacuous.code not in ("SM501", "SM503")


def group_vacuous(results: Iterable[LegResult]) -> list[Group]:
    """Gather the legs that passed and tested nothing by what they did instead, the most frequent first."""
    groups: dict[object, Group] = {}
    for leg in results:
        if leg.vacuous is not None:
            groups.setdefault(_identity(leg.vacuous), Group(leg.vacuous)).legs.append(leg)
    return sorted(groups.values(), key=lambda g: -len(g.legs))


def _identity(finding: Finding) -> object:
    return finding.code, finding.path, finding.file, finding.line


# -- text ------------------------------------------------------------------------------------------------------------


def summary_lines(results: Sequence[LegResult], *, root: str, verbose: bool) -> list[str]:
    """Return the summary: a table of legs by outcome, the verdicts, the causes, the vacuous legs."""
    lines = _table(results)
    for each in group(results):
        lines += ["", *_cause_lines(each, root=root, verbose=verbose)]
    for each in group_vacuous(results):
        lines += ["", *_vacuous_lines(each, root=root, verbose=verbose)]
    troubles = list(dict.fromkeys(trouble for leg in results for trouble in leg.troubles))
    if troubles:
        lines.append("")
    for trouble in troubles:
        lines += wrap(trouble, indent="  ", first="")
    return lines


def _table(results: Sequence[LegResult]) -> list[str]:
    counts: dict[str, dict[str, int]] = {}
    for leg in results:
        row = counts.setdefault(leg.method, {})
        row[leg.outcome] = row.get(leg.outcome, 0) + 1
        if leg.vacuous is not None:
            row["vacuous"] = row.get("vacuous", 0) + 1
    columns = [o for o in (*OUTCOMES, "vacuous") if o == "passed" or any(o in row for row in counts.values())]
    lines = [f"{'':10}" + "".join(f"{c:>9}" for c in columns)]
    for method in ORDER:
        if method in counts:
            lines.append(f"{method:10}" + "".join(f"{counts[method].get(c, 0) or '-':>9}" for c in columns))
    tests: dict[str, dict[str, LegResult]] = {}
    for leg in results:
        tests.setdefault(leg.test, {})[leg.method] = leg
    said = [verdict(legs) for legs in tests.values()]
    first = [each for each in ("passes", "needs-fork", "fails") if each in said]
    words = [
        *first,
        *sorted(set(said) - {*first, "vacuous", "skipped"}),
        *(w for w in ("vacuous", "skipped") if w in said),
    ]
    text = f"{_count(len(tests), 'test')}: " + ", ".join(f"{said.count(word)} {word}" for word in words)
    return [*lines, *wrap(text, first="")]


def _cause_lines(each: Group, *, root: str, verbose: bool) -> list[str]:
    finding = each.finding
    tests = list(dict.fromkeys(leg.test for leg in each.legs))
    methods = [m for m in ORDER if any(leg.method == m for leg in each.legs)]
    head = f"{finding.code} {finding.name}"
    if each.predicted:
        head += f": predicted for spawn and forkserver, {_count(len(tests), 'test')}"
    else:
        head += f": {_count(len(each.legs), 'leg')} of {_count(len(tests), 'test')} ({', '.join(methods)})"
    lines = wrap(head, first="")
    if finding.file is not None:
        place = relative(f"{finding.file}:{finding.line}", root)
        lines += wrap(f"{place}: {finding.path}" if finding.path else place)
    lines += wrap(relative(finding.message, root))
    # Below a failure the fix has been read already; what did not fail is told here only.
    if finding.fix and (verbose or each.predicted or finding.level == "note"):
        lines += wrap(f"fix: {relative(finding.fix, root)}", indent="       ", first="  ")
    if verbose:
        return lines + [f"  {leg.nodeid}" for leg in each.legs]
    more = f" and {len(each.legs) - 1} more (-v)" if len(each.legs) > 1 else ""
    return [*lines, f"  first: {each.legs[0].nodeid}{more}"]


def _vacuous_lines(each: Group, *, root: str, verbose: bool) -> list[str]:
    finding = each.finding
    one = len(each.legs) == 1
    passed = f"{_count(len(each.legs), 'leg')} passed and started nothing with {'its' if one else 'their'} method"
    lines = wrap(f"{finding.code} {finding.name}: {passed}", first="")
    lines += wrap(relative(finding.message, root))
    for fact in finding.evidence:
        lines += wrap(relative(fact, root), indent="      ", first="    ")
    lines += wrap(f"fix: {relative(finding.fix, root)}", indent="       ", first="  ")
    return lines + _vacuous_legs(each.legs, verbose=verbose)


_LISTED = 6


def _vacuous_legs(legs: Sequence[LegResult], *, verbose: bool) -> list[str]:
    listed = legs if verbose or len(legs) <= _LISTED else legs[:_LISTED]
    lines = [f"  vacuous: {leg.nodeid}" for leg in listed]
    return lines if len(listed) == len(legs) else [*lines, f"  and {len(legs) - len(listed)} more (-v)"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def relative(text: str, root: str) -> str:
    """Return `text` with paths below `root` made relative to it."""
    return text.replace(root.rstrip(os.sep) + os.sep, "")


def wrap(text: str, *, indent: str = "  ", first: str | None = None) -> list[str]:
    """Return `text` as lines of at most `WIDTH` columns; a path or name is never broken."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
