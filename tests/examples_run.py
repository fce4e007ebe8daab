"""All examples in one session, once: several tests look at what it printed and found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

KEEP = """
import json, os

class Keep:
    def pytest_runtest_logreport(self, report):
        if hasattr(report, "startmethod"):
            with open(os.environ["FACTS"], "a") as file:
                file.write(json.dumps(report.startmethod) + "\\n")

def pytest_configure(config):
    config.pluginmanager.register(Keep())
"""


@dataclass(frozen=True)
class Examples:
    """What `pytest --start-methods=all examples` came to."""

    out: str
    """What it printed, 80 columns wide, with paths relative to the working directory."""
    files: dict[str, dict[str, dict[str, Any]]]
    """File -> test -> method -> the leg's result."""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command in `folder`, which gets a copy of the examples, as a user would who has only this plugin."""
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    path = [str(ROOT / "src"), str(folder.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "COLUMNS": "80",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS"):
        environment.pop(name, None)
    line = [sys.executable, *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _run(base: Path) -> None:
    folder = base / "examples-session"
    folder.mkdir()
    (base / "keep_facts.py").write_text(KEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTS", str(base / "facts.jsonl"))
        plugins = ["-p", "pytest_startmethod.plugin", "-p", "keep_facts", "-p", "no:cacheprovider"]
        done = command(folder, "-m", "pytest", *plugins, "--start-methods=all", "examples")
    assert done.stderr == ""
    (base / "examples-out.txt").write_text(done.stdout.replace(f"{folder}{os.sep}", ""))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Run the examples once for all tests; workers of xdist share the run of the first."""
    import fcntl  # who has fewer than three start methods does not get here, and may not have this

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    base = base / "examples-run"
    base.mkdir(exist_ok=True)
    with open(base / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "examples-out.txt").exists():
            _run(base)
    files: dict[str, dict[str, dict[str, Any]]] = {}
    for leg in map(json.loads, (base / "facts.jsonl").read_text().splitlines()):
        file, _, test = leg["test"].partition("::")
        files.setdefault(Path(file).name, {}).setdefault(test, {})[leg["method"]] = leg
    return Examples((base / "examples-out.txt").read_text(), files)
