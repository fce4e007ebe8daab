"""What the plugin costs the collection of tests that do not use it.

    python benchmarks/collection.py [--tests 10000] [--repeat 7]

Runs in an environment where the plugin is installed. Collects the same unmarked tests, in 100 files, with the plugin
and without it (`-p no:startmethod`), in turn; the least CPU time of the whole command is compared,
on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET_PERCENT = 2.0
FILES = 100


def collect(folder: Path, tests: int, *args: str) -> float:
    """Collect, and return the seconds of CPU that it took."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qq", "--collect-only", "-p", "no:cacheprovider", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = sum(int(line.rpartition(": ")[2]) for line in done.stdout.splitlines() if ".py: " in line)
    assert found == tests, done.stdout[-500:]
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Collect in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tests", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    variants = {"without": ["-p", "no:startmethod"], "with": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\n")
        each = options.tests // FILES
        for number in range(FILES):
            # Half plain functions, half methods, a few with parameters: as suites are.
            functions = "".join(f"def test_{i}():\n    pass\n\n" for i in range(each // 2))
            methods = "".join(f"    def test_{i}(self):\n        pass\n\n" for i in range(each - each // 2))
            (folder / f"test_{number}.py").write_text(f"{functions}class TestIt:\n{methods}")
        for args in variants.values():  # fills the caches of bytecode
            collect(folder, each * FILES, *args)
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.repeat):
            for name, args in variants.items():
                times[name].append(collect(folder, each * FILES, *args))
    without, with_ = (min(times[name]) for name in variants)
    added = (with_ - without) / without * 100
    verdict = "" if added <= TARGET_PERCENT else "  MISSED"
    print(f"Python {sys.version.split()[0]}, {each * FILES} unmarked tests collected, {options.repeat} times each")
    print(
        f"CPU     without {without:6.2f} s   with {with_:6.2f} s   "
        f"added {added:+5.1f} % (target {TARGET_PERCENT:.0f} %){verdict}"
    )


if __name__ == "__main__":
    main()
