"""What `--start-methods-discover` costs tests that start nothing.

    python benchmarks/discovery.py [--tests 2000] [--repeat 9]

Runs in an environment where the plugin is installed. Runs the same trivial tests, in 20 files, with the option and
without it, in turn, each in a session of its own; the least CPU time of the run (collection and start-up apart, which
`collection.py` and `startup.py` measure) is compared, and that of the whole command, on a machine that does nothing
else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET_PERCENT = 3.0
FILES = 20

CLOCK = """
import time

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session):
    before = time.process_time()
    try:
        return (yield)
    finally:
        print(f"loop={time.process_time() - before} all={time.process_time()}")
"""


def run(folder: Path, *args: str) -> tuple[float, float]:
    """Run the tests, and return the seconds of CPU that the loop and the whole session took."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-s",
            "-p",
            "no:cacheprovider",
            "-p",
            "pytest_startmethod.plugin",
            *args,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if "loop=" in line)
    words = line[line.index("loop=") :].split()
    return float(words[0].partition("=")[2]), float(words[1].partition("=")[2])


def main() -> None:
    """Run in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    variants = {"without": [], "with": ["--start-methods-discover"]}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "conftest.py").write_text(CLOCK)
        each = options.tests // FILES
        for number in range(FILES):
            functions = "".join(f"def test_{i}():\n    pass\n\n" for i in range(each // 2))
            methods = "".join(f"    def test_{i}(self):\n        pass\n\n" for i in range(each - each // 2))
            (folder / f"test_{number}.py").write_text(f"{functions}class TestIt:\n{methods}")
        for args in variants.values():  # fills the caches of bytecode
            run(folder, *args)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        for _ in range(options.repeat):
            for name, args in variants.items():
                times[name].append(run(folder, *args))
    print(f"Python {sys.version.split()[0]}, {each * FILES} tests that start nothing, {options.repeat} times each")
    for index, what in enumerate(("run", "session")):
        without, with_ = (min(each[index] for each in times[name]) for name in variants)
        added = (with_ - without) / without * 100
        verdict = "  MISSED" if added > TARGET_PERCENT else ""
        print(
            f"CPU  {what:8} without {without:6.3f} s   with {with_:6.3f} s   "
            f"added {added:+5.1f} % (target {TARGET_PERCENT:.0f} %){verdict}"
        )


if __name__ == "__main__":
    main()
