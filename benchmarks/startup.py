"""What the plug-in costs a session that does not use it.

    python benchmarks/startup.py [--repeat 40]

Runs in an environment where the plug-in is installed. A session of one unmarked test is started with the plug-in and
without it (`-p no:startmethod`), in turn. CPU time of the process is less noisy than the clock on a busy
machine, and the least of many runs less than their median: the difference between
the least of each is held against the target, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET_MS = 3.0
HEAVY = ("multiprocessing", "cloudpickle", "concurrent.futures", "pickle", "ast", "inspect")

MODULES = """
import sys

def pytest_unconfigure():
    print("MODULES", *sys.modules)
"""

IMPORT = """
import sys, time
import _pytest.assertion.rewrite, _pytest.fixtures, _pytest.python, _pytest.terminal, _pytest.unittest, pytest
known = set(sys.modules)
start = time.perf_counter()
import pytest_startmethod.plugin
print((time.perf_counter() - start) * 1000)
"""


def environment() -> dict[str, str]:
    """Return the environment without what is special about the machine that measures."""
    special = ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in special}


def session(folder: Path, *args: str) -> tuple[float, float, str]:
    """Start a session; return its milliseconds by the clock and of CPU, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    clock = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return clock * 1000, cpu * 1000, done.stdout


def modules(output: str) -> set[str]:
    """Return the modules that a session said it had imported."""
    return set(output.partition("MODULES")[2].split("\n")[0].split())


def main() -> None:
    """Start sessions in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=40)
    options = parser.parse_args()
    variants = {"without": ["-p", "no:startmethod"], "with": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        (folder / "conftest.py").write_text(MODULES)
        imported = {}
        for name, args in variants.items():  # fills the caches of bytecode
            imported[name] = modules(session(folder, *args)[2])
        assert "pytest_startmethod.plugin" in imported["with"], "the plug-in is not installed here"
        clock: dict[str, list[float]] = {name: [] for name in variants}
        cpu: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.repeat):
            for name, args in variants.items():
                seconds, busy, _ = session(folder, *args)
                clock[name].append(seconds)
                cpu[name].append(busy)
        command = [sys.executable, "-c", IMPORT]
        run = [
            float(subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout)
            for _ in range(options.repeat)
        ]
    print(f"Python {sys.version.split()[0]}, {options.repeat} sessions each")
    for title, values in (("clock", clock), ("CPU", cpu)):
        without, with_ = (statistics.median(values[name]) for name in variants)
        added, least = with_ - without, min(values["with"]) - min(values["without"])
        verdict = "" if least <= TARGET_MS else "  MISSED"
        print(
            f"{title:7} without {without:6.1f} ms   with {with_:6.1f} ms   added {added:+5.1f} ms, "
            f"between the least of each {least:+5.1f} ms (target {TARGET_MS:.0f} ms){verdict}"
        )
    print(f"import  pytest_startmethod.plugin after pytest: {statistics.median(run):.2f} ms (least {min(run):.2f} ms)")
    ours = sorted(name for name in imported["with"] - imported["without"])
    foreign = [name for name in ours if not name.startswith("pytest_startmethod")]
    print(f"modules {len(ours) - len(foreign)} of the plug-in, others because of it: {', '.join(foreign) or 'none'}")
    heavy = [name for name in foreign if name.partition(".")[0] in HEAVY]
    print(f"heavy   {', '.join(heavy) or 'none'} (target: none)")


if __name__ == "__main__":
    main()
