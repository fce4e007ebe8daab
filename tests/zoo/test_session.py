"""Whole tests of a project, run once under fork and spawn: the right cause first, and none for look-alikes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import session_cases

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="compares with fork")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the report's tests by name; no experiment is run."""
    folder = tmp_path_factory.mktemp("session")
    shutil.copy(HERE / "session_cases.py", folder / "test_cases.py")
    shutil.copy(HERE / "session_code.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-start-methods-verify"]
    command += ["--start-methods-report=report.json", f"--basetemp={folder / 'tmp'}", "-p", "session_still"]
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text())
    return {each["nodeid"].rpartition("::")[2]: each for each in report["tests"]}


def causes(test: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["code"], each["path"]) for each in test["findings"] if each["level"] == "cause"]


@pytest.mark.parametrize("name", session_cases.EXPECTED)
def test_the_right_cause_comes_first(tests: dict[str, Any], name: str) -> None:
    code, path = session_cases.EXPECTED[name]
    found = [(each["code"], each["path"]) for each in tests[name]["findings"]]
    assert found
    assert found[0][0] == code
    assert path in found[0][1]


@pytest.mark.parametrize("name", session_cases.ALIKE)
def test_a_look_alike_has_no_cause(tests: dict[str, Any], name: str) -> None:
    """`session_cases.alike` has the reason; under fork and spawn, such a test ends in the same way."""
    assert causes(tests[name]) == [], session_cases.ALIKE[name]
    assert len({each["outcome"] for each in tests[name]["legs"].values()}) == 1
