"""The markers that make legs of what was discovered, as text to paste. Plain data in, plain text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..model.finding import WIDTH
from ..model.leg_result import LegResult
from ..model.methods import ORDER
from ..report.verdicts import in_order

_LISTED = 10
_BAD = ("failed", "error")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One test function of the user's, all its parameter sets together."""

    file: str
    name: str
    """``test_a``, ``TestIt::test_a``."""
    line: int
    failing: tuple[tuple[str, str], ...]
    """Methods under which it fails, though not under its own, each with the reason."""


def wanted(results: Iterable[LegResult]) -> tuple[list[Wanted], int]:
    """Return the functions to mark, and how many are left out because they fail under their own method, too.

    A test whose other legs started nothing with their method is left out: a marker would not change that.
    """
    functions: dict[tuple[str, str], dict[str, dict[str, LegResult]]] = {}
    for leg in in_order(results):
        if leg.discovered:
            file, _, rest = leg.test.partition("::")
            functions.setdefault((file, rest.partition("[")[0]), {}).setdefault(leg.test, {})[leg.method] = leg
    found = []
    broken = 0
    for (file, name), tests in functions.items():
        legs = [leg for each in tests.values() for leg in each.values()]
        others = [leg for leg in legs if leg.nodeid != leg.test]
        own = [leg for leg in legs if leg.nodeid == leg.test]
        if any(leg.outcome in _BAD for leg in own):
            broken += 1
        elif any(leg.vacuous is None for leg in others):
            failing = {leg.method: _reason(leg) for leg in reversed(others) if leg.outcome in _BAD}
            ordered = tuple((method, failing[method]) for method in ORDER if method in failing)
            found.append(Wanted(file, name, legs[0].line, ordered))
    return found, broken


def _reason(leg: LegResult) -> str:
    causes = [each for each in leg.findings if each.level == "cause"]
    return f"{causes[0].code} {causes[0].name}" if causes else f"fails under {leg.method}"


def marker(failing: Iterable[tuple[str, str]], methods: tuple[str, ...], *, every: bool) -> list[str]:
    """Return the source of a marker, without the ``@``.

    `methods` are those that were tried, `every` says whether these are all that there are.
    """
    reasons = dict(failing)
    if not reasons:
        names = "" if every else f"({', '.join(repr_of(m) for m in methods)})"
        return [f"pytest.mark.startmethods{names}"]
    lines = ["pytest.mark.startmethods("]
    for method in methods:
        if method not in reasons:
            lines.append(f"    {repr_of(method)},")
            continue
        mark = f"marks=pytest.mark.xfail(reason={repr_of(reasons[method])})"
        one = f"    pytest.param({repr_of(method)}, {mark}),"
        if len(one) + 4 <= WIDTH:
            lines.append(one)
        else:
            lines += ["    pytest.param(", f"        {repr_of(method)},", f"        {mark},", "    ),"]
    return [*lines, ")"]


def repr_of(text: str) -> str:
    """Return a string literal with double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def lines(
    results: Iterable[LegResult], whole: Mapping[str, int], methods: tuple[str, ...], *, every: bool, verbose: bool
) -> list[str]:
    """Return what to paste, file by file.

    `whole`: how many test functions a file has, for files of which all were collected and none deselected.
    """
    found, broken = wanted(results)
    text: list[str] = []
    files: dict[str, list[Wanted]] = {}
    for each in found:
        files.setdefault(each.file, []).append(each)
    for file, functions in files.items():
        text += ["", file] if text else [file]
        groups: dict[tuple[tuple[str, str], ...], list[Wanted]] = {}
        for each in functions:
            groups.setdefault(each.failing, []).append(each)
        plain = groups.get((), [])
        module = bool(plain) and len(functions) == whole.get(file)
        if module:  # what fails has a marker of its own, and the closest one wins
            only = f"  # all {len(functions)} tests start processes" if len(functions) > 1 else ""
            text += _indented(marker((), methods, every=every), "    ", "pytestmark = ")
            text[-1] += only if len(text[-1]) + len(only) <= WIDTH else ""
        for failing, members in sorted(groups.items(), key=lambda group: bool(group[0])):
            if module and not failing:
                continue
            text += _indented(marker(failing, methods, every=every), "    ", "@")
            shown = members if verbose or len(members) <= _LISTED + 1 else members[:_LISTED]
            text += [f"      line {each.line}: {each.name}" for each in shown]
            if len(shown) < len(members):
                text.append(f"      and {len(members) - len(shown)} more (-v)")
    if broken:
        text += [""] * bool(text)
        which = "test fails" if broken == 1 else "tests fail"
        text.append(f"{broken} {which} under the interpreter's own method, too: not listed here")
    return text


def _indented(source: list[str], indent: str, prefix: str) -> list[str]:
    return [f"{indent}{prefix}{source[0]}", *(indent + line for line in source[1:])]
