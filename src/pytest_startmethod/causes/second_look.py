"""Second look at a leg without a cause: state that only libraries read, and values made anew in each process.

Reruns the leg while analysing installed packages like user code: those that the user's functions use, and those in a
child's traceback. Each difference is a candidate, reported only if an experiment confirms it or the child's exception
names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ..model.child_report import ChildReport
from ..model.evidence import Evidence
from ..model.finding import Finding, unique
from ..model.observed import Difference, Observed, Where
from ..source.callers import package_of
from ..state import observing
from . import process, registering, state
from .context import Context, context_of, place_of
from .ranking import causes_first

_NEVER: Final = frozenset(
    ("", "builtins", "sys", "os", "posixpath", "ntpath", "multiprocessing", "concurrent", "threading", "subprocess",
     "importlib", "pytest", "_pytest", "pluggy", "unittest", "pytest_startmethod", "runpy", "contextlib", "functools",
     "abc", "typing", "dataclasses", "enum", "types", "traceback", "linecache", "gc", "signal")
)  # fmt: skip
"""Packages whose state is per process by nature, or is already examined elsewhere."""
_MOST: Final = 8
_SYMPTOMS: Final = frozenset(("SM203", "SM309", "SM402", "SM403", "SM404", "SM405", "SM407", "SM408", "SM409"))
"""Causes that may have a deeper cause: a library may have raised because its state is missing."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a second look treats as user code."""

    packages: frozenset[str] = frozenset()
    lines: Mapping[str, Where] = field(default_factory=dict)
    """The user's line that leads to each package."""


def look_at(observed: Iterable[Observed], files: Iterable[str], findings: Iterable[Finding]) -> Look | None:
    """Return what to examine again, given what the leg's code reads and the files of its tracebacks.

    None if the leg already has a cause. Exception: if an installed package has replaced a function (a fake clock), that
    package's state is examined anyway.
    """
    every = list(observed)
    lines: dict[str, Where] = {}
    if any(each.level == "cause" and each.code not in _SYMPTOMS and not _is_tool(each) for each in findings):
        for each in every:
            for binding in each.bindings:
                package = state.replacing(binding.node, binding.module) if binding.rebound else ""
                if package:
                    lines.setdefault(package, binding.read.where)
        return Look(frozenset(lines), lines) if lines else None
    for each in every:
        lines = {**each.libraries, **lines}
    named = {*lines, *map(package_of, files)} - _NEVER
    return Look(frozenset(named), lines)


def _is_tool(finding: Finding) -> bool:
    """Return whether it names a tool that patches, and not yet what the child misses, or is no more than a guess."""
    return (finding.code == "SM303" and finding.path.isidentifier()) or finding.path == "PYTHONHASHSEED"


def candidates(evidence: Evidence, look: Look) -> list[Finding]:
    """Return the differences between parent and fresh child, likeliest first.

    They are notes, because the user's code was not seen to read them, unless the child's exception or traceback points
    at one.
    """
    context, found = context_of(evidence), dict[str, tuple[tuple[object, ...], Finding]]()
    said = _said(evidence.reports)
    for observed, seen in evidence.seen:
        for each in observing.compare(observed, seen, varying=True) if seen else ():
            if _of_c(each):
                continue
            rank, finding = _candidate(each, observed, context, look, said)
            known = found.get(finding.path)
            if known is None or rank < known[0]:
                found[finding.path] = rank, finding
    ordered = [finding for _, finding in sorted(found.values(), key=lambda each: each[0])[:_MOST]]
    for observed, seen in evidence.seen:
        if seen:
            ordered += [_at_the_users_line(each, look) for each in process.unseen(observed, seen, context)]
    texts = (str(each) for each in (*evidence.raised, *evidence.raised_in_children) if each.type != "AssertionError")
    asked = [observed for observed, seen in evidence.seen if seen]
    imports = registering.modules(asked, " ".join((said, *texts)), evidence.tests)
    ordered = causes_first([*ordered, *imports])  # what an import registers says more than that it registers
    return list(unique(ordered))


def _candidate(
    each: Difference, observed: Observed, context: Context, look: Look, said: str
) -> tuple[tuple[object, ...], Finding]:
    ranked = state.value(each, observed, context)
    finding = ranked.finding
    named = _names(each, said) or _on_the_way(each, context)
    finding = _at_the_users_line(finding, look)
    unread = not each.binding.read.where.instruction
    rank = (not named, unread, each.varies, finding.code != "SM303", ranked.weight)
    return rank, replace(finding, level="cause" if named else "note")


def _at_the_users_line(finding: Finding, look: Look) -> Finding:
    """Return the finding at the line that leads to the library in whose file it was."""
    line = look.lines.get(package_of(finding.file or ""))
    if line is None:
        return finding
    evidence = (f"used at {line.file}:{line.line}: {place_of(line).source}", *finding.evidence)
    return replace(finding, file=line.file, line=line.line, evidence=evidence)


def _of_c(each: Difference) -> bool:
    """Return whether the child's value is a method of a C class: it cannot be set, so the class itself differs."""
    read_by_name = bool(each.binding.read.where.instruction)
    return (
        each.binding.of_class
        and read_by_name
        and "b" in (each.theirs[0], each.theirs[-1][0] if each.theirs[0] == "d" else "")
    )


def _on_the_way(each: Difference, context: Context) -> bool:
    """Return whether a child's traceback contains a line that reads it. Caches do not count."""
    places = (each.binding.read.where, *each.binding.read.also)
    cache = each.ours[0] == "l" or "cache" in each.binding.path.lower() or each.varies
    return not cache and any((where.file, where.line) in context.raised for where in places)


def _said(reports: Iterable[ChildReport]) -> str:
    return " ".join(f"{error.type}: {error.message}" for each in reports for error in each.raised)


def _names(each: Difference, said: str) -> bool:
    """Return whether a child's exception mentions what differs: the missing key, or the name itself."""
    words = [each.binding.names[-1], *re.findall(r"\['([^']+)'\]", each.inner)]
    return any(len(word) > 3 and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", said) for word in words)
