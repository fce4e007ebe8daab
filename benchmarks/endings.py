"""How soon a Pool whose workers all die is told: ``python benchmarks/endings.py``.

Per start method: seconds from the first worker's death to the end of the wait, for workers that cannot import their
task's module and for an initializer that raises. Without the plugin the wait does not end: the baseline is the same
test under a time limit, which is reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 2.0
LIMIT = 10.0
"""Seconds that the baseline is given; a user has the 60 of a common time limit."""

SUITE = """
import multiprocessing
import time
import pytest

def task(number):
    return number

def refuse():
    with open("deaths", "a") as file:
        file.write(f"{{time.time()}}\\n")
    raise RuntimeError("no worker today")

def test_a({argument}):
    context = multiprocessing.get_context({context})
    with context.Pool(2, initializer=refuse) as pool:
        pool.map(task, [1, 2, 3])
"""

RECORD = """
import time

def pytest_runtest_logreport(report):
    if report.when == "call" and report.failed:
        with open("told", "w") as file:
            file.write(str(time.time()))
"""


def run(method: str, folder: Path) -> float:
    """Run one leg and return the seconds from the first death to its report."""
    for name in ("deaths", "told"):
        (folder / name).unlink(missing_ok=True)
    (folder / "test_pool.py").write_text(SUITE.format(argument="start_method", context=""))
    (folder / "record.py").write_text(RECORD)
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent / "src"), str(folder)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_startmethod.plugin", "-p", "record"]
    subprocess.run(
        [*command, f"--start-methods={method}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return float((folder / "told").read_text()) - float((folder / "deaths").read_text().splitlines()[0])


def baseline(method: str, folder: Path) -> str:
    """Run the same test without the plugin and say whether it ended within the limit."""
    (folder / "test_pool.py").write_text(SUITE.format(argument="", context=json.dumps(method)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:startmethod", "test_pool.py"]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(LIMIT)
        return f"{time.perf_counter() - start:.1f} s"
    except subprocess.TimeoutExpired:
        return f"> {LIMIT:.0f} s"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def main() -> int:
    """Print the table."""
    print(f"{'method':12}{'with':>10}{'without':>12}   target: <= {TARGET:.0f} s")
    with tempfile.TemporaryDirectory() as name:
        for method in ("fork", "spawn", "forkserver"):
            seconds = sorted(run(method, Path(name)) for _ in range(3))[1]
            print(f"{method:12}{seconds:>8.2f} s{baseline(method, Path(name)):>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
