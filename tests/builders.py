"""Hand-made findings, legs and report documents for tests of the output."""

from __future__ import annotations

from pytest_startmethod.model.finding import Finding
from pytest_startmethod.model.leg_result import LegResult
from pytest_startmethod.report import document

ROOT = "/project"


def finding(code="SM101", name="local-function", path="target", line=7, **values):
    given = {"level": "cause", "message": "It cannot be imported.", "fix": "move it", **values}
    return Finding(code=code, name=name, path=path, file=f"{ROOT}/tests/test_a.py", line=line, **given)


def leg(method="spawn", outcome="passed", test="tests/test_a.py::test_x", **values):
    given = {"nodeid": f"{test}[{method}]", "test": test, "file": "tests/test_a.py", "line": 3, **values}
    return LegResult(method=method, outcome=outcome, **given)


def legs(**outcomes):
    return {method: leg(method, outcome) for method, outcome in outcomes.items()}


def model(*legs, root="/project", status=0):
    session = document.Session(
        root=str(root),
        python="3.12.1",
        platform="linux",
        default="fork",
        methods=("fork", "spawn"),
        version="1",
        exit_status=status,
    )
    return document.build(legs, session)
