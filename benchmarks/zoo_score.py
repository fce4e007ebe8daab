"""Score the diagnosis against a folder of cases with known answers: ``python benchmarks/zoo_score.py DIR``.

DIR holds a ``zoo.py`` with ``CASES``: name to (make, expect, lines). Per case and in total: verdict, leaf, path,
file and line, remedy, and false alarms. Then the cases whose child sees other values: found by name, controls silent.
"""

from __future__ import annotations

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))


def score(case, file: str) -> dict[str, object] | None:
    """Return the marks of one case, or None if it cannot be made here."""
    from pytest_startmethod import explain

    for package in case.expect.needs:
        try:
            __import__(package)
        except ImportError:
            return None
    payload = case.make()
    try:
        start = time.perf_counter()
        findings = explain(payload.target, payload.args, payload.kwargs, task=payload.how == "pool")
        took = time.perf_counter() - start
    finally:
        if payload.cleanup:
            payload.cleanup()
    expect = case.expect
    text = "\n".join(map(str, findings))
    flat = " ".join(text.split())
    paths = {finding.path for finding in findings}
    lines = {int(n) for n in re.findall(re.escape(file) + r":(\d+)", flat)}
    first = {finding.line for finding in findings if finding.file == file}
    bad = expect.verdict == "pickle"
    return {
        "findings": findings,
        "ms": took * 1000,
        "bad": bad,
        "verdict": bool(findings) == bad,
        "false alarm": bool(findings) and not bad,
        "leaf": not bad or any(name in flat for name in expect.names),
        "path": not bad or set(expect.paths) <= paths,
        "line": not bad or not case.lines or bool(set(case.lines) & lines),
        "first line": not bad or not case.lines or bool(set(case.lines) & first),
        "every line": not bad or set(case.lines) <= lines,
        "remedy": not bad or any(re.search(expect.remedy, finding.fix) for finding in findings),
        "codes": sorted({finding.code for finding in findings}),
    }


def state_score(case) -> dict[str, object] | None:
    """Return the marks of a case whose child sees other values, or the same ones: is it named, is a control silent."""
    from pytest_startmethod import explain

    payload = case.make()
    try:
        start = time.perf_counter()
        findings = explain(payload.target, payload.args, payload.kwargs)
        took = time.perf_counter() - start
    finally:
        if payload.cleanup:
            payload.cleanup()
    differs = case.expect.verdict == "differs"
    named = any(f.path in case.expect.paths or any(n in f.path for n in case.expect.names) for f in findings)
    first = bool(findings) and findings[0].path in case.expect.paths
    right = (named and any(re.search(case.expect.remedy, f.fix) for f in findings)) if differs else not findings
    return {"right": right, "named": named, "path": first, "findings": findings, "ms": took * 1000, "differs": differs}


def state_main(cases, wanted: set[str]) -> bool:
    """Print the score of the cases of state; return whether all are right."""
    totals = {"found": 0, "path": 0, "differs": 0, "silent": 0, "controls": 0}
    for case in cases:
        control = case.group == "control" or case.expect.verdict == "same"
        if not (case.expect.verdict == "differs" or control) or (wanted and case.name not in wanted):
            continue
        marks = state_score(case)
        differs = marks["differs"]
        totals["differs" if differs else "controls"] += 1
        totals["found" if differs else "silent"] += bool(marks["right"])
        totals["path"] += bool(marks["path"]) and bool(differs)
        codes = ",".join(f"{f.code}:{f.path}" for f in marks["findings"]) or "-"
        flag = "  " if marks["right"] and (marks["path"] or not differs) else "!!"
        print(f"{flag} {case.name:28} {marks['ms']:8.1f} ms  {codes}")
        if wanted:
            for finding in marks["findings"]:
                print(finding, end="\n\n")
    print(
        f"state: {totals['found']} of {totals['differs']} differing cases found ({totals['path']} by their path), "
        f"{totals['silent']} of {totals['controls']} controls silent"
    )
    return totals["found"] == totals["differs"] and totals["silent"] == totals["controls"]


def main(argv: list[str]) -> int:
    """Print the score of the folder ``argv[0]``; with more arguments, the findings of the cases so named."""
    folder = os.path.abspath(argv[0])
    sys.path.insert(0, folder)
    import zoo

    wanted = set(argv[1:])
    columns = ("verdict", "leaf", "path", "line", "first line", "every line", "remedy")
    totals = dict.fromkeys(columns, 0)
    cases = bad = alarms = 0
    for case in zoo.CASES.values():
        if case.expect.verdict not in ("ok", "pickle") or (wanted and case.name not in wanted):
            continue
        marks = score(case, os.path.join(folder, "zoo.py"))
        if marks is None:
            print(f"   {case.name:24} not made: needs {', '.join(case.expect.needs)}")
            continue
        cases += 1
        bad += bool(marks["bad"])
        alarms += bool(marks["false alarm"])
        for column in columns:
            totals[column] += bool(marks[column]) and (column == "verdict" or bool(marks["bad"]))
        missed = [column for column in columns if not marks[column]]
        codes = ",".join(marks["codes"]) or "-"
        print(f"{'!!' if missed else '  '} {case.name:24} {codes:14} {marks['ms']:8.1f} ms  {' '.join(missed)}")
        if wanted:
            for finding in marks["findings"]:
                print(finding, end="\n\n")
    print(f"{sys.version.split()[0]}: {cases} cases, {bad} to be found, {alarms} false alarms")
    for column in columns:
        print(f"  {column:12} {totals[column]} of {cases if column == 'verdict' else bad}")
    states = state_main(zoo.CASES.values(), wanted)
    return 0 if totals["verdict"] == cases and not alarms and states else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
