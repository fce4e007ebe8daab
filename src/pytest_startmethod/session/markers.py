"""Markers, as text to paste, that turn discovered tests into legs. Plain data in, plain text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..model.leg_result import LegResult
from ..model.methods import ORDER
from ..report.verdicts import in_order

_LISTED = 10
_BAD = ("failed", "error")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One test function to mark, with all its parameter sets."""

    file: str
    name: str
    """``test_a`` or ``TestIt::test_a``."""
    line: int
    failing: tuple[str, ...] = ()
    """Methods under which it fails, excluding its own."""
    reason: str = ""
    strict: bool = True
    """Whether every parameter set fails under each of these methods, every time."""

    @property
    def what(self) -> tuple[object, ...]:
        """The content of the marker."""
        return self.failing, self.reason, self.strict


def wanted(results: Iterable[LegResult], *, discovered: bool = True) -> tuple[list[Wanted], int]:
    """Return the functions to mark, and the number left out because they also fail under their own method.

    With `discovered`, unmarked functions; otherwise marked ones that fail under a method other than fork. Tests whose
    other legs started no process under their method are left out: a marker would not change that.
    """
    functions: dict[tuple[str, str], list[LegResult]] = {}
    for leg in in_order(results):
        if leg.discovered is discovered:
            file, _, rest = leg.test.partition("::")
            functions.setdefault((file, rest.partition("[")[0]), []).append(leg)
    found = []
    broken = 0
    for (file, name), legs in functions.items():
        own = [leg for leg in legs if (leg.nodeid == leg.test if discovered else leg.method == "fork")]
        others = [leg for leg in legs if leg not in own]
        failing = [leg for leg in others if leg.outcome in _BAD]
        if any(leg.outcome in _BAD for leg in own):
            broken += 1
        elif failing or (discovered and any(leg.vacuous is None for leg in others)):
            methods = tuple(method for method in ORDER if any(leg.method == method for leg in failing))
            strict = all(leg in failing and not leg.flaky for leg in others if leg.method in methods)
            reason = "; ".join(dict.fromkeys(_reason(leg) for leg in failing))
            found.append(Wanted(file, name, legs[0].line, methods, reason, strict))
    return found, broken


def _reason(leg: LegResult) -> str:
    causes = [each for each in leg.findings if each.level == "cause"]
    if causes:
        return f"{causes[0].code} {causes[0].name}"
    return f"{'flaky' if leg.flaky else 'fails'} under {leg.method}"


def marker(test: Wanted, methods: tuple[str, ...], *, every: bool) -> str:
    """Return the source of a test's marker, without the ``@``.

    `methods` are the methods tried; `every` means that these are all the platform has.
    """
    given = [] if every else [repr_of(method) for method in methods]
    if test.failing:
        listed = ", ".join(map(repr_of, test.failing)) + "," * (len(test.failing) == 1)
        given += [f"xfail=({listed})", f"reason={repr_of(test.reason)}", *(["strict=True"] if test.strict else [])]
    return f"pytest.mark.startmethods({', '.join(given)})" if given else "pytest.mark.startmethods"


def repr_of(text: str) -> str:
    """Return a double-quoted string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def lines(
    results: Iterable[LegResult], whole: Mapping[str, int], methods: tuple[str, ...], *, every: bool, verbose: bool
) -> list[str]:
    """Return what to paste, grouped by file.

    `whole` maps a file to its number of test functions if all were collected and none was deselected.
    """
    found, broken = wanted(results)
    files: dict[str, list[Wanted]] = {}
    for each in found:
        files.setdefault(each.file, []).append(each)
    text: list[str] = []
    for file, functions in files.items():
        text += ["", file] if text else [file]
        plain = [each for each in functions if not each.failing]
        module = bool(plain) and len(functions) == whole.get(file)
        if module:  # failing tests get a marker of their own, and the closest one wins
            only = f"  # all {len(functions)} tests start processes" if len(functions) > 1 else ""
            text.append(f"    pytestmark = {marker(plain[0], methods, every=every)}{only}")
        listed = [each for each in functions if each.failing or not module]
        text += _marked(listed, methods, every=every, verbose=verbose)
    if broken:
        text += [""] * bool(text)
        which = "test fails" if broken == 1 else "tests fail"
        text.append(f"{broken} {which} under the interpreter's own method, too: not listed here")
    return text


def xfail_lines(results: Iterable[LegResult], methods: tuple[str, ...], *, every: bool) -> list[str]:
    """Return the xfail markers for the failures of a marked suite, grouped by file."""
    files: dict[str, list[Wanted]] = {}
    for each in wanted(results, discovered=False)[0]:
        files.setdefault(each.file, []).append(each)
    return [
        line
        for file, functions in files.items()
        for line in (file, *_marked(functions, methods, every=every, verbose=True))
    ]


def _marked(tests: Iterable[Wanted], methods: tuple[str, ...], *, every: bool, verbose: bool) -> list[str]:
    """Return each distinct marker once, with the tests it belongs to."""
    groups: dict[tuple[object, ...], list[Wanted]] = {}
    for each in tests:
        groups.setdefault(each.what, []).append(each)
    text = []
    for members in sorted(groups.values(), key=lambda each: bool(each[0].failing)):
        text.append(f"    @{marker(members[0], methods, every=every)}")
        shown = members if verbose or len(members) <= _LISTED + 1 else members[:_LISTED]
        text += [f"      line {each.line}: {each.name}" for each in shown]
        text += [f"      and {len(members) - len(shown)} more (-v)"] if len(shown) < len(members) else []
    return text
