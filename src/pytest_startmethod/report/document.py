"""The report of a session as builtins: the content of the JSON file, from which the other reports are made.

The same suite gives the same report in any distribution over processes, except for times, process ids and such numbers
in the user's own texts: lists are sorted, and paths are relative to the root directory. ``docs/reference/report.md``
is its reference.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ..launches import foreign
from ..model.codes import url
from ..model.finding import MASK, Finding, is_secret, relative
from ..model.launch import UNKNOWN
from ..model.leg_result import LegResult
from ..model.methods import rank
from ..model.wire import Fields, Json
from . import groups, verdicts

SCHEMA: Final = 1
"""Incremented when a key changes its meaning or is removed, not when keys are added."""

_WORKERS: Final = ("multiprocessing.pool.worker", "concurrent.futures.process._process_worker")


@dataclass(frozen=True, slots=True)
class Session:
    """The run as a whole."""

    root: str
    """The root directory, absolute."""
    python: str
    platform: str
    default: str
    """The interpreter's own start method."""
    methods: tuple[str, ...]
    """The selected methods."""
    version: str
    """The plugin's version."""
    exit_status: int = 0
    command: tuple[str, ...] = ()
    """pytest's arguments."""
    started: str | None = None
    """The local time with its offset, in ISO 8601."""
    duration: float | None = None
    """Seconds."""


def build(
    results: Iterable[LegResult],
    session: Session,
    fixed: Iterable[Mapping[str, object]] = (),
    failures: Mapping[str, str] | None = None,
) -> Json:
    """Return the report of `results`, in any order.

    `fixed`: processes that unmarked tests started with a context of their own, as in `LegResult.foreign`, with the
    test's node id. `failures`: pytest's text of each leg's failure by node id, with the tracebacks of parent and
    children.
    """
    legs = verdicts.in_order(results)
    tests = verdicts.by_test(legs)
    root = session.root
    return {
        "schema": SCHEMA,
        "plugin": session.version,
        "python": session.python,
        "platform": session.platform,
        "default": session.default,
        "methods": list(session.methods),
        "rootdir": root,
        "command": list(session.command),
        "started": session.started,
        "duration": session.duration,
        "exit_status": session.exit_status,
        "tests": [_test(test, by_method, root, failures or {}) for test, by_method in tests.items()],
        "groups": _groups(legs, root, tests),
        "unexplained": [_unexplained(each) for each in groups.unexplained(legs)],
        "not_exercised": not_exercised(legs, fixed, root),
        "troubles": sorted({relative(trouble, root) for leg in legs for trouble in leg.troubles}),
        "summary": _summary(legs, tests),
    }


def not_exercised(legs: Iterable[LegResult], fixed: Iterable[Mapping[str, object]], root: str) -> list[Json]:
    """Return the tests that started processes outside their legs' start methods, each with kind, method and place."""
    found = {}
    for test, each in [*((leg.test, each) for leg in legs for each in leg.foreign), *((e["test"], e) for e in fixed)]:
        entry = {"nodeid": test, "kind": each["kind"], "method": each["method"]}
        entry.update(file=_path(each["file"], root), line=each["line"])
        found[tuple(map(str, entry.values()))] = entry
    return [found[key] for key in sorted(found)]


# -- a group in other reports ----------------------------------------------------------------------------------------


def level(entry: Mapping[str, object]) -> str:
    """Return the severity of an entry of ``groups`` or ``unexplained``: ``error``, ``warning`` or ``notice``."""
    if entry.get("level") == "note" or entry.get("vacuous"):
        return "notice"
    return "warning" if entry.get("predicted") else "error"


def place(entry: Fields, model: Fields) -> tuple[str, int | None]:
    """Return the place of an entry of ``groups`` or ``unexplained``, else that of its first test."""
    if entry.get("file"):
        return entry["file"], entry["line"]
    for test in model["tests"]:
        if any(leg["nodeid"] == entry["first"] for leg in test["legs"].values()):
            return test["file"], test["line"]
    return entry["first"].partition("::")[0], None


def who(entry: Fields) -> str:
    """Return the first leg of an entry, the number of others, and their methods."""
    more = f" and {entry['legs'] - 1} more" if entry["legs"] > 1 else ""
    return f"{entry['first']}{more} ({', '.join(entry['methods'])})"


# -- parts -----------------------------------------------------------------------------------------------------------


def _path(path: str | None, root: str) -> str | None:
    """Return a path with slashes, relative to the root if it is below it."""
    return None if path is None else relative(path, root).replace(os.sep, "/")


def _finding(finding: Finding, root: str) -> Json:
    values = finding.masked().as_dict()
    for key in ("message", "fix"):
        values[key] = relative(values[key], root)
    values["evidence"] = [relative(each, root) for each in values["evidence"]]
    values["facts"] = [{**each, "file": _path(each["file"], root)} for each in values["facts"]]
    return {**values, "file": _path(finding.file, root), "url": url(finding.code)}


def _test(test: str, legs: Mapping[str, LegResult], root: str, failures: Mapping[str, str]) -> Json:
    first = next(iter(legs.values()))
    found = [*groups.merged(legs)]
    return {
        "nodeid": test,
        "file": _path(first.file, root),
        "line": first.line,
        "verdict": verdicts.verdict(legs),
        "needs_fork": verdicts.needs_fork(legs),
        "legs": {method: {**_leg(leg, root), "failure": failures.get(leg.nodeid)} for method, leg in legs.items()},
        "findings": [
            {**_finding(each.finding, root), "methods": each.methods, "predicted": each.predicted} for each in found
        ],
    }


def _leg(leg: LegResult, root: str) -> Json:
    passed = leg.outcome == "passed"
    return {
        "nodeid": leg.nodeid,
        "outcome": leg.outcome,
        "duration": round(leg.duration, 6),
        "launches": _launches([_launch(each, root, passed=passed) for each in leg.launches]),
        "tasks": _unrepeated({**each, "file": _path(each["file"], root)} for each in leg.tasks),
        "vacuous": leg.vacuous is not None,
        "flaky": leg.flaky,
        "discovered": leg.discovered,
        "foreign": _unrepeated(_foreign(each, root) for each in leg.foreign),
        "message": leg.message,
    }


def _launch(launch: Fields, root: str, *, passed: bool) -> Json:
    worker = bool(launch.get("worker")) or launch.get("target") in _WORKERS
    args = [argument(each, passed=passed) for each in launch["args"]]
    return {**UNKNOWN, **launch, "args": args, "file": _path(launch.get("file"), root), "worker": worker}


def argument(described: str, *, passed: bool) -> str:
    """Return an argument for a report: only the type if the leg passed, and no value of a name like ``password``."""
    name, equals, value = described.partition("=")
    if not equals or not name.isidentifier():
        name, equals, value = "", "", described
    if equals and is_secret(name):
        value = MASK
    elif passed:
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):  # then it is described by type or name
            value = type(ast.literal_eval(value)).__name__
    return f"{name}{equals}{value}"


def _launches(launches: Sequence[Json]) -> list[Json]:
    """Return the processes that were started, with the workers of one pool or executor as one entry.

    How many workers an executor starts, and how those of a pool end, is a race.
    """
    found: dict[object, Json] = {}
    for number, entry in enumerate(launches):
        if entry["worker"]:
            if entry["exit_code"] in (0, -15):  # by itself or by the pool: a race
                entry["exit_code"] = None
            key: object = tuple(str(entry[k]) for k in sorted(entry) if k not in ("pid", "exit_code", "args"))
            first = found.setdefault(key, entry)
            first["exit_code"] = first["exit_code"] or entry["exit_code"]
        else:
            found[number] = entry
    entries = list(found.values())
    # Those of the main thread in order, then those of other threads, whose order is a race.
    rest = [each for each in entries if each.get("thread") is not None]
    rest.sort(key=lambda each: str({**each, "pid": None}))
    return [each for each in entries if each.get("thread") is None] + rest


def _foreign(entry: Fields, root: str) -> Json:
    # the numbers of processes that are used again depend on the tests that ran before
    unknown = dict.fromkeys(("count", "tasks") if foreign.is_reused(entry["kind"]) else ())
    return {**entry, **unknown, "file": _path(entry["file"], root)}


def _unrepeated(facts: Iterable[Json]) -> list[Json]:
    found: list[Json] = []
    for each in facts:
        if each not in found:
            found.append(each)
    return found


def _groups(legs: Sequence[LegResult], root: str, tests: Mapping[str, Mapping[str, LegResult]]) -> list[Json]:
    every = groups.group(legs)
    number = {id(each.finding): index for index, each in enumerate(every)}
    entries = [_group(each, root, tests) for each in every]
    for each in groups.nested(every):
        for follower in (*each.others, *each.consequences, *(o for c in each.consequences for o in c.others)):
            entries[number[id(follower.finding)]]["part_of"] = number[id(each.finding)]
    return [*entries, *(_group(each, root, tests, vacuous=True) for each in groups.group_vacuous(legs))]


def _group(
    each: groups.Group, root: str, tests: Mapping[str, Mapping[str, LegResult]], *, vacuous: bool = False
) -> Json:
    return {
        **_finding(each.finding, root),
        "methods": each.methods,
        "predicted": each.predicted,
        "vacuous": vacuous,
        "tests": len(each.tests),
        "legs": len(each.legs),
        "part_of": None,
        "need_fork": sum(verdicts.needs_fork(tests[test]) for test in each.tests),
        "first": each.legs[0].nodeid,
        "nodeids": [leg.nodeid for leg in each.legs],
    }


def _unexplained(legs: Sequence[LegResult]) -> Json:
    return {
        "message": legs[0].message,
        "methods": sorted({leg.method for leg in legs}, key=rank),
        "tests": len({leg.test for leg in legs}),
        "legs": len(legs),
        "first": legs[0].nodeid,
        "nodeids": [leg.nodeid for leg in legs],
    }


def _summary(legs: Sequence[LegResult], tests: Mapping[str, Mapping[str, LegResult]]) -> Json:
    said = [verdicts.verdict(by_method) for by_method in tests.values()]
    outcomes: dict[str, dict[str, int]] = {}
    for leg in legs:
        row = outcomes.setdefault(leg.method, {})
        for word in (leg.outcome, *(word for word in ("vacuous", "flaky") if getattr(leg, word))):
            row[word] = row.get(word, 0) + 1
    codes: dict[str, int] = {}
    for by_method in tests.values():
        for code in {each.finding.code for each in groups.merged(by_method)}:
            codes[code] = codes.get(code, 0) + 1
    return {
        "tests": len(tests),
        "legs": len(legs),
        "needs_fork": sum(map(verdicts.needs_fork, tests.values())),
        "verdicts": {word: said.count(word) for word in verdicts.verdict_order(said)},
        "outcomes": outcomes,
        "codes": dict(sorted(codes.items())),
    }
