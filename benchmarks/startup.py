"""What the plugin costs a session that does not use it.

    python benchmarks/startup.py [--pairs 60]

Runs in an environment where the plugin is installed. Sessions of one unmarked test are started in pairs, one with
the plugin and one without it (`-p no:startmethod`), in turns. What a busy machine does to one it does to both, so the
figure is the median over the pairs of CPU time with / CPU time without, with its quartiles; sessions without the
plugin, paired with each other in the same way, show how far that figure strays by itself.
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

TARGET_IMPORT_MS = 1.0
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


def ratios(folder: Path, one: list[str], other: list[str], pairs: int) -> tuple[list[float], list[float]]:
    """Return for each pair of sessions CPU time of `other` by `one`, and how many milliseconds it took more."""
    quotients, added = [], []
    for number in range(pairs):
        order = [one, other] if number % 2 else [other, one]
        cpu = {id(args): session(folder, *args)[1] for args in order}
        quotients.append(cpu[id(other)] / cpu[id(one)])
        added.append(cpu[id(other)] - cpu[id(one)])
    return quotients, added


def line(title: str, quotients: list[float], added: list[float]) -> str:
    """Return medians and quartiles."""
    low, middle, high = statistics.quantiles(quotients, n=4)
    first, half, third = statistics.quantiles(added, n=4)
    return (
        f"{title:22} x {middle:.3f} (quartiles {low:.3f} to {high:.3f}), "
        f"{half:+.1f} ms of CPU time ({first:+.1f} to {third:+.1f})"
    )


def main() -> None:
    """Start sessions in pairs and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=60)
    pairs = parser.parse_args().pairs
    without, again, with_ = ["-p", "no:startmethod"], ["-p", "no:startmethod"], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        (folder / "conftest.py").write_text(MODULES)
        imported = {name: modules(session(folder, *args)[2]) for name, args in (("without", without), ("with", with_))}
        assert "pytest_startmethod.plugin" in imported["with"], "the plugin is not installed here"
        noise = ratios(folder, without, again, pairs)
        cost = ratios(folder, without, with_, pairs)
        command = [sys.executable, "-c", IMPORT]
        run = [
            float(subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout)
            for _ in range(pairs)
        ]
    print(f"Python {sys.version.split()[0]}, {pairs} pairs of sessions, load {os.getloadavg()[0]:.1f}")
    print(line("without by without", *noise))
    print(line("with by without", *cost))
    verdict = "" if min(run) <= TARGET_IMPORT_MS else "  MISSED"
    print(
        f"import of the plugin after pytest: median {statistics.median(run):.2f} ms, least {min(run):.2f} ms "
        f"(target {TARGET_IMPORT_MS:.0f} ms){verdict}"
    )
    ours = sorted(name for name in imported["with"] - imported["without"])
    foreign = [name for name in ours if not name.startswith("pytest_startmethod")]
    print(f"modules {len(ours) - len(foreign)} of the plugin, others because of it: {', '.join(foreign) or 'none'}")
    heavy = [name for name in foreign if name.partition(".")[0] in HEAVY]
    print(f"heavy   {', '.join(heavy) or 'none'} (target: none)")


if __name__ == "__main__":
    main()
