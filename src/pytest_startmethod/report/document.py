"""The report of a session as builtins: what the JSON file holds, and what the other reports are made of.

The same suite gives the same report whatever processes ran it, save durations and pids: lists are sorted, paths are
relative to the root directory, and what differs from run to run (addresses, numbered names, temporary directories)
is replaced where it stands in a text. ``docs/reference/report.md`` describes it for its readers.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..launches import foreign
from ..model.finding import Finding, relative
from ..model.leg_result import LegResult
from ..model.methods import split
from . import results as report

SCHEMA: Final = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

PREDICTED_FOR: Final = ("spawn", "forkserver")
"""The methods that a prediction of the pre-check is about."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the report says of the run as a whole."""

    root: str
    """The root directory, absolute."""
    python: str
    platform: str
    default: str
    """The interpreter's own start method."""
    methods: tuple[str, ...]
    """The selected ones."""
    version: str
    """Of the plugin."""
    exit_status: int = 0
    basetemp: str | None = None
    """``--basetemp``, absolute."""


def build(results: Iterable[LegResult], session: Session) -> dict[str, Any]:
    """Return the report of `results`, whatever their order."""
    legs = report.in_order(results)
    stable = Stable(session.root, session.basetemp)
    tests: dict[str, dict[str, LegResult]] = {}
    for leg in legs:
        tests.setdefault(leg.test, {})[leg.method] = leg
    return {
        "schema": SCHEMA,
        "plugin": session.version,
        "python": session.python,
        "platform": session.platform,
        "default": session.default,
        "methods": list(session.methods),
        "rootdir": session.root,
        "exit_status": session.exit_status,
        "tests": [_test(test, by_method, stable) for test, by_method in tests.items()],
        "groups": [_group(each, stable) for each in report.group(legs)]
        + [_group(each, stable, vacuous=True) for each in report.group_vacuous(legs)],
        "unexplained": [_unexplained(each, stable) for each in report.unexplained(legs)],
        "troubles": sorted({stable.text(trouble) for leg in legs for trouble in leg.troubles}),
        "summary": _summary(legs, tests),
    }


# -- parts -----------------------------------------------------------------------------------------------------------


def _test(test: str, legs: Mapping[str, LegResult], stable: Stable) -> dict[str, Any]:
    first = next(iter(legs.values()))
    return {
        "nodeid": test,
        "file": stable.path(first.file),
        "line": first.line,
        "verdict": report.verdict(legs),
        "legs": {method: _leg(leg, stable) for method, leg in legs.items()},
        "findings": [
            {**stable.finding(each.finding), "methods": each.methods, "predicted": each.predicted}
            for each in merged(legs)
        ],
    }


def _leg(leg: LegResult, stable: Stable) -> dict[str, Any]:
    return {
        "nodeid": leg.nodeid,
        "outcome": leg.outcome,
        "duration": round(leg.duration, 6),
        "launches": _launches(leg.launches, stable),
        "tasks": _unrepeated(leg.tasks, stable),
        "vacuous": leg.vacuous is not None,
        "flaky": leg.flaky,
        "discovered": leg.discovered,
        "foreign": _unrepeated([_countable(each) for each in leg.foreign], stable),
        "message": None if leg.message is None else stable.text(leg.message),
    }


def _launches(launches: Sequence[Mapping[str, Any]], stable: Stable) -> list[dict[str, Any]]:
    """Return the processes that were started; the workers of one pool or executor are one entry.

    How many workers an executor starts, and how those of a pool end, depends on who is faster.
    """
    found: dict[object, dict[str, Any]] = {}
    for number, launch in enumerate(launches):
        worker = bool(launch.get("worker")) or launch.get("target") in _WORKERS
        entry = {**stable.builtins(launch), "worker": worker}
        entry.update(pid=launch.get("pid"), exit_code=launch.get("exit_code"))
        if entry["worker"]:
            if entry["exit_code"] in (0, -15):  # ended by the pool, or by its own end: whichever came first
                entry["exit_code"] = None
            key: object = tuple(str(entry[k]) for k in sorted(entry) if k not in ("pid", "exit_code", "args"))
            first = found.setdefault(key, entry)
            first["exit_code"] = first["exit_code"] or entry["exit_code"]
        else:
            found[number] = entry
    entries = list(found.values())
    # Those of the main thread as they came, then those of others: their order is a race.
    rest = [each for each in entries if each.get("thread") is not None]
    rest.sort(key=lambda each: str({**each, "pid": None}))
    return [each for each in entries if each.get("thread") is None] + rest


def _countable(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return processes past the leg's method without the numbers that depend on which tests ran before."""
    return {**entry, "count": None, "tasks": None} if foreign.is_reused(entry["kind"]) else dict(entry)


def _unrepeated(facts: Sequence[Mapping[str, Any]], stable: Stable) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for each in facts:
        entry = stable.builtins(each)
        if entry not in found:
            found.append(entry)
    return found


@dataclass(slots=True)
class Merged:
    """Equal findings of a test's legs."""

    finding: Finding
    methods: list[str] = field(default_factory=list)
    predicted: bool = False


def merged(legs: Mapping[str, LegResult]) -> list[Merged]:
    """Return the findings of one test, equal ones of several legs as one: the leading cause of its failures first.

    Then what a passing leg swallowed, what is predicted and did not come true, and notes.
    """
    found: dict[object, Merged] = {}
    rank: dict[object, tuple[object, ...]] = {}
    order = sorted(legs, key=report.method_order)

    def add(finding: Finding, methods: Sequence[str], place: tuple[object, ...], *, predicted: bool = False) -> None:
        key = report.identity(finding)
        each = found.setdefault(key, Merged(finding, predicted=predicted))
        if each.predicted and not predicted:
            return
        each.methods += [method for method in methods if method not in each.methods]
        rank[key] = min(rank.get(key, place), place)

    for number, method in enumerate(order):
        leg = legs[method]
        failed = leg.outcome in ("failed", "error")
        for index, finding in enumerate(leg.findings):
            add(finding, [method], (0 if failed else 1, finding.level != "cause", index, number))
    refuted = {split(leg.method)[0] for leg in legs.values() if report.refutes(leg)}
    for number, method in enumerate(order):
        for index, finding in enumerate(legs[method].predictions if split(method)[0] not in refuted else ()):
            if report.identity(finding) not in found or found[report.identity(finding)].predicted:
                add(finding, PREDICTED_FOR, (2, False, index, number), predicted=True)
    for number, method in enumerate(order):
        vacuous = legs[method].vacuous
        if vacuous is not None:
            add(vacuous, [method], (3, True, 0, number))
    return [found[key] for key in sorted(found, key=lambda key: rank[key])]


def _group(each: report.Group, stable: Stable, *, vacuous: bool = False) -> dict[str, Any]:
    methods = PREDICTED_FOR if each.predicted else sorted({leg.method for leg in each.legs}, key=report.method_order)
    tests = list(dict.fromkeys(leg.test for leg in each.legs))
    return {
        **stable.finding(each.finding),
        "methods": list(methods),
        "predicted": each.predicted,
        "vacuous": vacuous,
        "tests": len(tests),
        "legs": len(each.legs),
        "first": each.legs[0].nodeid,
        "nodeids": [leg.nodeid for leg in each.legs],
    }


def _unexplained(legs: Sequence[LegResult], stable: Stable) -> dict[str, Any]:
    return {
        "message": None if legs[0].message is None else stable.text(legs[0].message),
        "methods": sorted({leg.method for leg in legs}, key=report.method_order),
        "tests": len({leg.test for leg in legs}),
        "legs": len(legs),
        "first": legs[0].nodeid,
        "nodeids": [leg.nodeid for leg in legs],
    }


def _summary(legs: Sequence[LegResult], tests: Mapping[str, Mapping[str, LegResult]]) -> dict[str, Any]:
    verdicts = [report.verdict(by_method) for by_method in tests.values()]
    outcomes: dict[str, dict[str, int]] = {}
    for leg in legs:
        row = outcomes.setdefault(leg.method, {})
        row[leg.outcome] = row.get(leg.outcome, 0) + 1
        for word in ("vacuous", "flaky"):
            if getattr(leg, word):
                row[word] = row.get(word, 0) + 1
    codes: dict[str, int] = {}
    for by_method in tests.values():
        for code in {each.finding.code for each in merged(by_method)}:
            codes[code] = codes.get(code, 0) + 1
    return {
        "tests": len(tests),
        "legs": len(legs),
        "verdicts": {word: verdicts.count(word) for word in report.verdict_order(verdicts)},
        "outcomes": outcomes,
        "codes": dict(sorted(codes.items())),
    }


# -- texts -----------------------------------------------------------------------------------------------------------

_WORKERS: Final = ("multiprocessing.pool.worker", "concurrent.futures.process._process_worker")
_ADDRESS: Final = re.compile(r"\b0x[0-9a-fA-F]{5,16}\b")
_NUMBERED: Final = re.compile(
    r"\b((?:Dummy|[A-Za-z]*)Process|[A-Za-z]*PoolWorker|[A-Za-z]*PoolProcess|Thread|Dummy|ThreadPoolExecutor"
    r"|[A-Za-z]*Manager|QueueFeederThread|asyncio)-\d+(?:[:_]\d+)*\b"
)
_TEMPORARY: Final = re.compile(r"(?<=[/\\])(tmp|pymp-|listener-|pytest-startmethod-)[a-z0-9_]{8}(?![A-Za-z0-9_])")
_TMP_PATH: Final = re.compile(r"(<tmp>[/\\][^/\\'\":\s]*?)\d+(?=[/\\'\":,;.)\s]|$)")
"""What ``tmp_path`` made: numbered by how many tests of that name ran in the same process before."""
_PID: Final = re.compile(r"\b(pid |pid=|process |child |PID )\d+\b")


class Stable:
    """Makes a session's texts and paths the same in every run of it."""

    def __init__(self, root: str, basetemp: str | None = None) -> None:
        self.root = root
        self.basetemp = re.compile(rf"{re.escape(basetemp)}(?:[/\\]popen-gw\d+)?(?![^/\\'])") if basetemp else None
        temp = "|".join(
            sorted({re.escape(each) for each in (tempfile.gettempdir(), os.path.realpath(tempfile.gettempdir()))})
        )
        self._pytest = re.compile(rf"(?:(?:{temp})[/\\])?\bpytest-of-[^/\\]+[/\\]pytest-\d+(?:[/\\]popen-gw\d+)?")
        self._tempfile = re.compile(rf"((?:{temp})[/\\][A-Za-z.-]*)[a-z0-9_]{{8}}(?![A-Za-z0-9_])")
        self._worker = re.compile(r"[/\\]popen-gw\d+(?=[/\\]|\b)")

    def text(self, text: str) -> str:
        """Return a text without what differs between runs, and with paths relative to the root."""
        if self.basetemp is not None:
            text = self.basetemp.sub("<tmp>", text)
        text = relative(text, self.root)  # first: the root may lie in a temporary directory itself
        text = self._pytest.sub("<tmp>", text)
        text = _TMP_PATH.sub(r"\1N", text)
        text = self._tempfile.sub(r"\1********", text)
        text = _TEMPORARY.sub(r"\1********", text)
        text = self._worker.sub("", text)
        text = _ADDRESS.sub("0x...", text)
        text = _NUMBERED.sub(r"\1-N", text)
        return _PID.sub(r"\1N", text)

    def path(self, path: str | None) -> str | None:
        """Return a path with slashes, relative to the root where it is below."""
        return None if path is None else self.text(path).replace(os.sep, "/")

    def finding(self, finding: Finding) -> dict[str, Any]:
        """Return a finding's fields."""
        return self.builtins({**finding.as_dict(), "file": finding.file})

    def builtins(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a dictionary of builtins with every text in it made stable."""
        return {key: self.path(value) if key == "file" else self._value(value) for key, value in values.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple)):
            return [self._value(each) for each in value]
        if isinstance(value, Mapping):
            return self.builtins(value)
        return value
