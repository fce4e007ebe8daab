"""What the legs of a session say: verdicts, groups and the lines of the summary. Plain data in, plain text out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..model.finding import WIDTH, Finding, relative
from ..model.leg_result import OUTCOMES, LegResult
from ..model.methods import base, rank, split


def in_order(results: Iterable[LegResult]) -> list[LegResult]:
    """Return `results` by file, line, test and method: the same whoever ran them, and when."""
    return sorted(results, key=lambda leg: (leg.file, leg.line, _natural(leg.test), method_order(leg.method)))


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key by which ``test_x[9]`` comes before ``test_x[10]``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def method_order(method: str) -> tuple[int, str, int]:
    """Return a sort key: fork, spawn, forkserver, then other packages' methods by package."""
    return rank(method)


def verdict(legs: Mapping[str, LegResult]) -> str:
    """Say what one test's legs (by method) say together."""
    order = sorted(legs, key=method_order)
    flaky = [m for m in order if legs[m].flaky]
    bad = [m for m in order if legs[m].outcome in ("failed", "error") and m not in flaky]
    ran = [m for m in order if legs[m].outcome != "skipped"]
    if not ran:
        return "skipped"
    if not bad and flaky:
        return "flaky"
    if not bad:
        return "vacuous" if any(leg.vacuous for leg in legs.values()) else "passes"
    if bad == ran:
        return "fails"
    if any(base(m) == "fork" for m in ran) and bad == [m for m in ran if base(m) != "fork"]:
        return "needs-fork"
    return f"fails under {' and '.join(bad)} only"


def verdict_order(verdicts: Iterable[str]) -> list[str]:
    """Return the different ones of `verdicts` in the order in which they are told."""
    said = set(verdicts)
    first = [each for each in ("passes", "needs-fork", "fails") if each in said]
    last = [each for each in ("flaky", "vacuous", "skipped") if each in said]
    return [*first, *sorted(said - {*first, *last}), *last]


@dataclass(slots=True)
class Group:
    """One cause and the legs it has."""

    finding: Finding
    legs: list[LegResult] = field(default_factory=list)
    predicted: bool = False


def group(results: Iterable[LegResult]) -> list[Group]:
    """Gather equal findings of all legs: causes first, the most frequent first.

    What an experiment cleared in a leg that another finding explains is that leg's no more. A prediction joins the
    finding that came true, and stands alone if none did. One that a leg of the same test has proved wrong is dropped.
    """
    groups: dict[object, Group] = {}
    legs = list(results)
    for leg in legs:
        explained = any(each.confirmed for each in leg.findings)
        for finding in leg.findings:
            if explained and finding.confirmed is False:
                continue
            found = groups.setdefault(_identity(finding, leg), Group(finding))
            found.legs.append(leg)
            if finding.confirmed and not found.finding.confirmed:
                found.finding = finding
    refuted = {(leg.test, split(leg.method)[0]) for leg in legs if refutes(leg)}
    for leg in legs:
        for finding in leg.predictions if (leg.test, split(leg.method)[0]) not in refuted else ():
            key = _identity(finding, leg)
            if key not in groups or groups[key].predicted:
                groups.setdefault(key, Group(finding, predicted=True)).legs.append(leg)
    return sorted(
        groups.values(),
        key=lambda g: (g.finding.level != "cause", g.predicted, g.finding.confirmed is False, -len(g.legs)),
    )


def refutes(leg: LegResult) -> bool:
    """Return whether a leg shows that the test does without what fork alone allows."""
    if base(leg.method) == "fork" or leg.outcome not in ("passed", "xpassed"):
        return False
    # the processes that it did not start itself are those of another leg, which may have been the fork leg's
    return leg.vacuous is None or leg.vacuous.code not in ("SM501", "SM503")


def group_vacuous(results: Iterable[LegResult]) -> list[Group]:
    """Gather the legs that passed and tested nothing by what they did instead, the most frequent first."""
    groups: dict[object, Group] = {}
    for leg in results:
        if leg.vacuous is not None:
            groups.setdefault(identity(leg.vacuous), Group(leg.vacuous)).legs.append(leg)
    return sorted(groups.values(), key=lambda g: -len(g.legs))


def unexplained(results: Iterable[LegResult]) -> list[list[LegResult]]:
    """Gather the failed legs without a cause of tests that passed under another method, by what they died of."""
    legs = list(results)
    passed = {leg.test for leg in legs if leg.outcome in ("passed", "xfailed", "xpassed")}
    groups: dict[str, list[LegResult]] = {}
    for leg in legs:
        failed = leg.outcome in ("failed", "error") and not leg.flaky
        if failed and leg.test in passed and not any(each.level == "cause" for each in leg.findings):
            groups.setdefault(re.sub(r"\d+", "0", leg.message or ""), []).append(leg)
    return sorted(groups.values(), key=lambda each: -len(each))


def identity(finding: Finding) -> object:
    """Return what makes two findings one: code, place, and path whatever its indices are.

    Without a place, the message tells them apart.
    """
    path = re.sub(r"\[\d+\]", "[]", finding.path)
    message = re.sub(r"\d+|\b(fork|spawn|forkserver)\b", "", finding.message) if finding.file is None else ""
    return finding.code, path, finding.file, finding.line, message


def _identity(finding: Finding, leg: LegResult) -> object:
    return identity(finding), leg.file if finding.file is None else None


def properties(leg: LegResult, root: str) -> list[tuple[str, object]]:
    """Return what ``--junitxml`` says of a finished leg, beside its method."""
    found: list[tuple[str, object]] = []
    for finding in leg.findings:
        place = "" if finding.file is None else f" at {relative(f'{finding.file}:{finding.line}', root)}"
        path = f": {finding.path}" if finding.path else ""
        found.append(("start_method_finding", f"{finding.code} {finding.name}{path}{place}"))
    for finding in leg.predictions:
        found.append(("start_method_predicted", f"{finding.code} {finding.name}: {finding.path}"))
    if leg.vacuous is not None:
        found.append(("start_method_vacuous", f"{leg.vacuous.code} {leg.vacuous.name}"))
    return [*found, *(("start_method_flaky", "true") for _ in range(leg.flaky))]


# -- text ------------------------------------------------------------------------------------------------------------


_CAUSES, _NOTES = 40, 10
_LISTED = 6


def summary_lines(
    results: Sequence[LegResult], *, root: str, verbose: bool, foreign: Iterable[Mapping[str, Any]] = ()
) -> list[str]:
    """Return the summary: a table of legs by outcome, the verdicts, the causes, the vacuous legs.

    `foreign`: what tests that are no legs started past the default context, as in `LegResult.foreign`.
    """
    lines = _table(results) if results else []
    groups = group(results)
    for word, limit in (("cause", _CAUSES), ("note", _NOTES)):
        found = [each for each in groups if each.finding.level == word]
        shown = found if verbose else found[:limit]
        for each in shown:
            lines += ["", *_cause_lines(each, root=root, verbose=verbose)]
        if len(shown) < len(found):
            legs = sum(len(each.legs) for each in found[len(shown) :])
            lines += ["", f"and {_count(len(found) - len(shown), f'more {word}')} of {_count(legs, 'leg')} (-v)"]
    for legs_ in unexplained(results):
        lines += ["", *_unexplained_lines(legs_, root=root, verbose=verbose)]
    flaky = [leg for leg in results if leg.flaky]
    if flaky:
        lines += ["", f"flaky: {_count(len(flaky), 'leg')} failed and passed when run again, so no cause is named"]
        lines += _listed("flaky", flaky, verbose=verbose)
    for each in group_vacuous(results):
        lines += ["", *_vacuous_lines(each, root=root, verbose=verbose)]
    lines += _foreign_lines([*(each for leg in results for each in leg.foreign), *foreign], root=root, verbose=verbose)
    if not results:
        del lines[:1]
    troubles = list(dict.fromkeys(trouble for leg in results for trouble in leg.troubles))
    if troubles:
        lines.append("")
    for trouble in troubles:
        lines += wrap(relative(trouble, root), indent="  ", first="")
    return lines


def _table(results: Sequence[LegResult]) -> list[str]:
    counts: dict[str, dict[str, int]] = {}
    for leg in results:
        row = counts.setdefault(leg.method, {})
        row[leg.outcome] = row.get(leg.outcome, 0) + 1
        if leg.vacuous is not None:
            row["vacuous"] = row.get("vacuous", 0) + 1
        if leg.flaky:
            row["flaky"] = row.get("flaky", 0) + 1
    columns = [o for o in (*OUTCOMES, "vacuous", "flaky") if o == "passed" or any(o in row for row in counts.values())]
    methods = sorted(counts, key=method_order)
    width = max([10, *map(len, methods)])
    lines = [f"{'':{width}}" + "".join(f"{c:>9}" for c in columns)]
    for method in methods:
        lines.append(f"{method:{width}}" + "".join(f"{counts[method].get(c, 0) or '-':>9}" for c in columns))
    tests: dict[str, dict[str, LegResult]] = {}
    for leg in results:
        tests.setdefault(leg.test, {})[leg.method] = leg
    said = [verdict(legs) for legs in tests.values()]
    text = f"{_count(len(tests), 'test')}: " + ", ".join(f"{said.count(w)} {w}" for w in verdict_order(said))
    return [*lines, *wrap(text, first="")]


def _cause_lines(each: Group, *, root: str, verbose: bool) -> list[str]:
    finding = each.finding
    tests = list(dict.fromkeys(leg.test for leg in each.legs))
    methods = sorted({leg.method for leg in each.legs}, key=method_order)
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
    if finding.confirmed is not None:
        lines += wrap(finding.experiment(" and ".join(methods)), indent="    ", first="  ")
    if finding.fix:
        lines += wrap(f"fix: {relative(finding.fix, root)}", indent="       ", first="  ")
    return lines + _first(each.legs, verbose=verbose)


def _unexplained_lines(legs: Sequence[LegResult], *, root: str, verbose: bool) -> list[str]:
    methods = sorted({leg.method for leg in legs}, key=method_order)
    tests = _count(len({leg.test for leg in legs}), "test")
    lines = wrap(f"no cause found: {_count(len(legs), 'leg')} of {tests} ({', '.join(methods)})", first="")
    if legs[0].message:
        lines += wrap(relative(legs[0].message, root))
    return lines + _first(legs, verbose=verbose)


def _first(legs: Sequence[LegResult], *, verbose: bool) -> list[str]:
    if verbose:
        return [f"  {leg.nodeid}" for leg in legs]
    more = f" and {len(legs) - 1} more (-v)" if len(legs) > 1 else ""
    line = f"  first: {legs[0].nodeid}{more}"
    return [line] if len(line) <= WIDTH or not more else [f"  first: {legs[0].nodeid}", f"   {more}"]


def _vacuous_lines(each: Group, *, root: str, verbose: bool) -> list[str]:
    finding = each.finding
    one = len(each.legs) == 1
    passed = f"{_count(len(each.legs), 'leg')} passed and started nothing with {'its' if one else 'their'} method"
    lines = wrap(f"{finding.code} {finding.name}: {passed}", first="")
    lines += wrap(relative(finding.message, root))
    for fact in finding.evidence:
        lines += wrap(relative(fact, root), indent="      ", first="    ")
    lines += wrap(f"fix: {relative(finding.fix, root)}", indent="       ", first="  ")
    return lines + _listed("vacuous", each.legs, verbose=verbose)


def _foreign_lines(every: Iterable[Mapping[str, Any]], *, root: str, verbose: bool) -> list[str]:
    """Return the block on processes that no start method of a leg reached: by kind, each place once."""
    from ..launches import foreign

    kinds: dict[tuple[str, str], dict[str, int]] = {}
    for each in every:
        place = f"{each['file']}:{each['line']}" if each["file"] else "a place that could not be found"
        places = kinds.setdefault((each["kind"], each["method"]), {})
        places[place] = places.get(place, 0) + (0 if foreign.is_reused(each["kind"]) else each["count"])
    if not kinds:
        return []
    total = sum(count for places in kinds.values() for count in places.values())
    parts = [f"{foreign.processes(total)} with a context of their own"] if total else []
    parts += ["tasks given to loky"] if any(foreign.is_reused(kind) for kind, _ in kinds) else []
    lines = ["", *wrap(f"not exercised: {', and '.join(parts)}", first="")]
    for (kind, method), places in sorted(kinds.items()):
        listed = sorted(places.items(), key=lambda item: (-item[1], item[0]))
        shown = listed if verbose or len(listed) <= _LISTED else listed[:_LISTED]
        for place, count in shown:
            text = f"{foreign.told(kind, method, count)} at {place}"
            lines += wrap(relative(text, root), indent="    ", first="  ")
        if len(shown) < len(listed):
            lines.append(f"  and {len(listed) - len(shown)} more places (-v)")
        lines += wrap(f"fix: {foreign.fix(kind, method)}", indent="       ", first="  ")
    return lines


def _listed(word: str, legs: Sequence[LegResult], *, verbose: bool) -> list[str]:
    listed = legs if verbose or len(legs) <= _LISTED else legs[:_LISTED]
    lines = [f"  {word}: {leg.nodeid}" for leg in listed]
    return lines if len(listed) == len(legs) else [*lines, f"  and {len(legs) - len(listed)} more (-v)"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


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
