"""What a leg costs, against the same tests with a hand-written `parametrize` over `multiprocessing.get_context`.

    python benchmarks/launches.py [--tests 20] [--repeat 5]

Runs in an environment where the plugin is installed. Both suites are generated, do the same work, and are run in turn
(A B A B) through the `pytest` script; the hand-written one without the plugin. Each test starts one to three
processes at once and joins them. Two places of the target: a module of a package that imports nothing, and the test
module itself, which imports pytest. A leg's time is set-up, call and tear-down; its median is over all tests and
repetitions, so that starting the forkserver once is not in it, but is in the time of all legs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("fork", "spawn", "forkserver")
TARGETS = {
    ("package", "fork"): 1.15,
    ("package", "spawn"): 0.45,
    ("package", "forkserver"): 0.2,
    ("test module", "fork"): 1.15,
    ("test module", "spawn"): 1.05,
    ("test module", "forkserver"): 0.15,
}

WORK = '''
def work(number):
    """Stand for work."""
    return sum(range(number))
'''

RECORDER = """
import json, os

times = {}

def pytest_runtest_logreport(report):
    times[report.nodeid] = times.get(report.nodeid, 0) + report.duration
    assert report.passed, report.longreprtext

def pytest_unconfigure():
    with open(os.environ["LEG_TIMES"], "w") as file:
        json.dump(times, file)
"""

MARKED = """
@pytest.mark.startmethods
def test_{number}():
    processes = [multiprocessing.Process(target=work, args=(n,)) for n in range({processes})]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""

BY_HAND = """
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_{number}(method):
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=work, args=(n,)) for n in range({processes})]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""


def generate(folder: Path, test: str, *, in_package: bool, tests: int) -> Path:
    """Write a suite of `tests` tests and return its folder."""
    folder.mkdir(parents=True)
    head = "import multiprocessing\n\nimport pytest\n"
    if in_package:
        (folder / "package").mkdir()
        (folder / "package" / "__init__.py").touch()
        (folder / "package" / "working.py").write_text(WORK)
        head += "from package.working import work\n"
    else:
        head += WORK
    body = "".join(test.format(number=i, processes=1 + i % 3) for i in range(tests))
    (folder / "test_suite.py").write_text(head + body)
    (folder / "conftest.py").write_text(RECORDER)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def run(folder: Path, *args: str) -> tuple[dict[str, list[float]], float]:
    """Run a suite; return the milliseconds of its legs by method, and of the whole command."""
    record = folder / "times.json"
    script = shutil.which("pytest", path=os.path.dirname(sys.executable))
    assert script is not None, "pytest is not installed beside this interpreter"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")}
    start = time.perf_counter()
    done = subprocess.run(
        [script, "-q", "-p", "no:cacheprovider", *args],
        cwd=folder,
        env={**environment, "LEG_TIMES": str(record)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stdout + done.stderr
    legs: dict[str, list[float]] = {method: [] for method in METHODS}
    for nodeid, duration in json.loads(record.read_text()).items():
        legs[nodeid.rpartition("[")[2].rstrip("]")].append(duration * 1000)
    return legs, seconds * 1000


def main() -> None:
    """Run both suites in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tests", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {options.tests} tests of 1 to 3 processes, {options.repeat} repetitions")
    print(f"{'target in':12} {'method':11}{'by hand':>12}{'plugin':>12}{'ratio':>8}{'target':>9}{'all legs':>11}")
    with tempfile.TemporaryDirectory() as temporary:
        for place in ("package", "test module"):
            folder = Path(temporary, place.replace(" ", "_"))
            suites = {
                "by hand": (generate(folder / "by_hand", BY_HAND, in_package=place == "package", tests=options.tests)),
                "plugin": (generate(folder / "plugin", MARKED, in_package=place == "package", tests=options.tests)),
            }
            extra = {"by hand": ["-p", "no:startmethod"], "plugin": []}
            for name, suite in suites.items():  # fills the caches of bytecode
                run(suite, *extra[name], "-k", "test_0")
            legs = {(name, method): [] for name in suites for method in METHODS}
            totals: dict[tuple[str, str], list[float]] = {key: [] for key in legs}
            sessions: dict[str, list[float]] = {name: [] for name in suites}
            for _ in range(options.repeat):
                for name, suite in suites.items():
                    times, whole = run(suite, *extra[name])
                    sessions[name].append(whole)
                    for method in METHODS:
                        legs[name, method] += times[method]
                        totals[name, method].append(sum(times[method]))
            for method in METHODS:
                hand, ours = (statistics.median(legs[name, method]) for name in suites)
                all_hand, all_ours = (statistics.median(totals[name, method]) for name in suites)
                target = TARGETS[place, method]
                verdict = "" if ours / hand <= target else "  MISSED"
                print(
                    f"{place:12} {method:11}{hand:9.1f} ms{ours:9.1f} ms{ours / hand:7.2f}x{target:8.2f}x"
                    f"{all_ours / all_hand:10.2f}x{verdict}"
                )
            hand, ours = (statistics.median(sessions[name]) for name in suites)
            print(f"{place:12} {'session':11}{hand:9.0f} ms{ours:9.0f} ms{ours / hand:7.2f}x")


if __name__ == "__main__":
    main()
