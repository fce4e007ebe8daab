"""Hold reports on real packages' suites against what is known: ``python benchmarks/packages_score.py CASES DIR``.

CASES is a JSON list of objects with ``id``, ``suite``, ``kind`` (positive, negative, trap), ``tests``, ``expect``
(method to outcome) and ``root_cause`` (prose). DIR holds ``SUITE/ID.report.json``, written by
``--start-methods-report``. Per case: how many of the listed tests are there, how many with the outcomes that are
expected, and of the first finding of each its code, and whether what it names stands in the prose: its object, or its
file and line. For a suite without a cause, the findings that there are all the same.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import sys
from pathlib import Path

BAD = {"failed", "hang", "missing"}


def is_listed(nodeid: str, listed: list[str]) -> bool:
    """Return whether a test is one of those that a case names; the root directory may differ."""
    return any(
        nodeid == each  # brackets mean something to fnmatch
        or fnmatch.fnmatch(nodeid, each)
        or nodeid.endswith(f"/{each}")
        or each.endswith(f"/{nodeid}")
        for each in listed
    )


def as_expected(test: dict, expect: dict[str, str]) -> bool:
    """Return whether each leg came to what is expected of it."""
    legs = {method: leg["outcome"] in ("failed", "error") for method, leg in test["legs"].items()}
    return all(legs.get(method) == (word in BAD) for method, word in expect.items() if method in legs)


def names_the_cause(finding: dict, prose: str) -> bool:
    """Return whether the prose has the finding's place, or a name that the finding gives."""
    place = f"{os.path.basename(finding['file'] or '')}:{finding['line']}"
    told = f"{finding['path']} {finding['message']}"
    names = {finding["path"].rpartition(".")[2]}
    names |= {name.rpartition(".")[2] for name in re.findall(r"[`']([\w.]+)[`']", told)}
    return place in prose or any(
        re.search(rf"\b{re.escape(name)}\b", prose) for name in names - {"", "args", "target", "process"}
    )


def main() -> int:
    """Print the table."""
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    print(f"{'case':34} {'tests':>7}  {'as expected':>11}  first findings (cause named)")
    for case in cases:
        file = folder / case["suite"] / f"{case['id']}.report.json"
        if not file.exists():
            print(f"{case['id']:34} {'-':>7}  {'-':>11}  no report")
            continue
        report = json.loads(file.read_text())
        if case["kind"] != "positive":
            causes = [f["code"] for t in report["tests"] for f in t["findings"] if f["level"] == "cause"]
            print(f"{case['id']:34} {len(report['tests']):>7}  {'':>11}  {', '.join(causes) or 'silent'}")
            continue
        found = [test for test in report["tests"] if is_listed(test["nodeid"], case["tests"])]
        right = sum(as_expected(test, case["expect"]) for test in found)
        firsts: dict[str, int] = {}
        for test in found:
            first = test["findings"][0] if test["findings"] else None
            word = "none" if first is None else f"{first['code']} {first['path']}"[:44]
            mark = "" if first is None else " (named)" if names_the_cause(first, case["root_cause"]) else " (not named)"
            firsts[word + mark] = firsts.get(word + mark, 0) + 1
        text = ", ".join(f"{count}x {word}" for word, count in firsts.items())
        print(f"{case['id']:34} {len(found):>3}/{len(case['tests']):<3}  {right:>11}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
