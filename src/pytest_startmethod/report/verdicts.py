"""The verdict on one test from all its legs, and how to count verdicts. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..model.leg_result import LegResult
from ..model.methods import base, rank
from .text import listed

FAILED = ("failed", "error")
_FIRST = ("passes", "needs-fork", "xfails", "fails")
_LAST = ("flaky", "vacuous", "skipped", "incomplete")
_PLURAL = {
    "passes": ("passes", "pass"),
    "fails": ("fails", "fail"),
    "needs-fork": ("needs fork", "need fork"),
    "xfails": ("fails as expected", "fail as expected"),
}


def in_order(results: Iterable[LegResult]) -> list[LegResult]:
    """Sort `results` by file, line, test and method."""
    return sorted(results, key=lambda leg: (leg.file, leg.line, _natural(leg.test), rank(leg.method)))


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key by which ``test_x[9]`` comes before ``test_x[10]``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def by_test(results: Iterable[LegResult]) -> dict[str, dict[str, LegResult]]:
    """Return the legs by test and method."""
    tests: dict[str, dict[str, LegResult]] = {}
    for leg in results:
        tests.setdefault(leg.test, {})[leg.method] = leg
    return tests


def failed(leg: LegResult) -> bool:
    """Return whether a leg failed and is not flaky."""
    return leg.outcome in FAILED and not leg.flaky


def verdict(legs: Mapping[str, LegResult]) -> str:
    """Return the verdict on one test from its legs by method.

    ``incomplete`` if a planned leg did not run. An xfailed leg counts as failing; ``xfails`` means that no other leg
    failed. A skipped leg does not count, but the verdict then names the methods skipped.
    """
    order = sorted(legs, key=rank)
    ran = [m for m in order if legs[m].outcome != "skipped"]
    if any(method not in legs for leg in legs.values() for method in leg.planned):
        return "incomplete"
    if not ran:
        return "skipped"
    bad = [m for m in order if failed(legs[m])]
    expected = [m for m in order if legs[m].outcome == "xfailed"]
    if not bad:
        return _without_failure(legs, order, ran, expected)
    bad = [m for m in order if m in bad or m in expected]
    if bad == ran:
        return "fails"
    if any(base(m) == "fork" for m in ran) and bad == [m for m in ran if base(m) != "fork"]:
        return "needs-fork"
    return f"fails under {listed(bad)} only"


def _without_failure(legs: Mapping[str, LegResult], order: list[str], ran: list[str], expected: list[str]) -> str:
    if any(leg.flaky for leg in legs.values()):
        return "flaky"
    if any(leg.vacuous for leg in legs.values()):
        return "vacuous"
    if expected:
        return "xfails"
    return "passes" if ran == order else f"skipped under {listed(m for m in order if m not in ran)}"


def needs_fork(legs: Mapping[str, LegResult]) -> bool:
    """Return whether a test passes under fork and fails, expectedly or not, under every other method that ran."""
    if verdict(legs) == "incomplete":
        return False
    others = [leg for m, leg in legs.items() if base(m) != "fork" and leg.outcome != "skipped"]
    forks = [leg for m, leg in legs.items() if base(m) == "fork"]
    passed = bool(forks) and all(leg.outcome in ("passed", "xpassed") for leg in forks)
    return passed and bool(others) and all(failed(leg) or leg.outcome == "xfailed" for leg in others)


def verdict_order(verdicts: Iterable[str]) -> list[str]:
    """Return the distinct `verdicts` in the order of output."""
    every = set(verdicts)
    first, last = [v for v in _FIRST if v in every], [v for v in _LAST if v in every]
    return [*first, *sorted(every - {*first, *last}), *last]


def in_words(verdict: str, number: int, *, everywhere: bool = False) -> str:
    """Return ``1 needs fork``, ``2 need fork``; `everywhere`: more than one method ran."""
    singular, plural = _PLURAL.get(verdict, (verdict, verdict))
    if verdict.startswith("fails under"):
        plural = f"fail{verdict.removeprefix('fails')}"
    whole = " everywhere" if everywhere and verdict in ("passes", "fails") else ""
    return f"{number} {singular if number == 1 else plural}{whole}"


def style(verdict: str) -> str:
    """Return the style of a verdict in the terminal: ``"good"``, ``"bad"`` or ``"warn"``."""
    return "good" if verdict == "passes" else "bad" if verdict.startswith(("needs-fork", "fails")) else "warn"
