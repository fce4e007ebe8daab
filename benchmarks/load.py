"""Whether a long session stays as small as it began.

    python benchmarks/load.py [--tests 2000] [--workers N]          # all pass: memory, descriptors, threads, files
    python benchmarks/load.py --by-hand [--tests 2000]              # the same number of tests without the plugin
    python benchmarks/load.py --failing [--tests 300]               # three causes: time with and without experiments

Runs in an environment where the plugin is installed. The suite is generated; each test starts one process under each of
the three methods. A conftest samples the pytest process (with --workers, each worker) after every hundredth test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMORY_GROWS = 1.10

REPORT_SECONDS = 2.0
REPORTS = ("report.json", "report.html", "report.md")

EXPERIMENTS = 1.5

TIMED = """
import time
from pytest_startmethod.session import report_files

write = report_files.Files._write

def timed(self, status):
    start = time.process_time()
    write(self, status)
    if self.lines and not os.path.exists("written"):
        with open("written", "w") as file:
            file.write(str(time.process_time() - start))

report_files.Files._write = timed
"""

SAMPLE = """
import json, os, threading
import pytest

count = 0

@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid):
    global count
    count += 1
    if count % 100 == 0:
        status = open("/proc/self/status").read()
        sample = {
            "legs": count,
            "memory": int(status.partition("VmRSS:")[2].split()[0]) / 1024,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "files": len(os.listdir(os.environ["TMPDIR"])),
            "children": len(open(f"/proc/self/task/{os.getpid()}/children").read().split()),
        }
        with open(f"samples-{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps(sample) + "\\n")
"""

WORK = """
LIMIT = 1

def work(*args):
    return None

def read():
    raise SystemExit(LIMIT != 2)
"""

PASSING = """
import multiprocessing
import pytest, work

@pytest.mark.startmethods
@pytest.mark.parametrize("n", range({tests}))
def test_passes(n):
    process = multiprocessing.Process(target=work.work, args=(n,))
    process.start()
    process.join()
    assert process.exitcode == 0
"""

BY_HAND = """
import multiprocessing
import pytest, work

@pytest.mark.parametrize("n", range({tests}))
@pytest.mark.parametrize("method", ["a", "b", "c"])
def test_passes(method, n):
    process = multiprocessing.get_context("fork").Process(target=work.work, args=(n,))
    process.start()
    process.join()
    assert process.exitcode == 0
"""

FAILING = """
import multiprocessing, threading
import pytest, work

def run(*args, target=work.work):
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0

@pytest.mark.startmethods
@pytest.mark.parametrize("n", range({tests} // 3))
class TestAll:
    def test_lambda(self, n): run(target=lambda: n)
    def test_lock(self, n): run(threading.Lock())
    def test_patched(self, n, monkeypatch):
        monkeypatch.setattr(work, "LIMIT", 2)
        run(target=work.read)
"""


def session(folder: Path, *arguments: str) -> tuple[float, float, str]:
    """Run the suite; return its seconds, the processor seconds of all its processes, and what it printed.

    A forkserver is nobody's child once the session is over: its processor time is not among them.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        environment.pop(name, None)
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, spent, done.stdout + done.stderr


def passing(folder: Path, tests: int, workers: int, by_hand: bool) -> None:
    """Print the samples of a session in which everything passes."""
    (folder / "test_load.py").write_text((BY_HAND if by_hand else PASSING).format(tests=tests))
    arguments = ["-p", "no:startmethod"] if by_hand else [f"--start-methods-report={name}" for name in REPORTS]
    seconds, spent, out = session(folder, *arguments, *(["-n", str(workers)] if workers else []))
    print(out.splitlines()[-1])
    leg = spent / tests / 3 * 1000
    print(f"{tests} tests under three methods: {seconds:.0f} s, {spent:.0f} s of processor, {leg:.0f} ms a leg")
    for path in sorted(folder.glob("samples-*.jsonl")):
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        if len(samples) < 2:
            continue
        first = next((each for each in samples if each["legs"] >= samples[-1]["legs"] // 10), samples[0])
        last = samples[-1]
        verdict = "" if by_hand or last["memory"] <= first["memory"] * MEMORY_GROWS else "  MISSED"
        for name in ("memory", "descriptors", "threads", "files", "children"):
            print(f"  {name:12} {first[name]:.0f} at leg {first['legs']}, {last[name]:.0f} at leg {last['legs']}")
        each = (last["memory"] - first["memory"]) / (last["legs"] - first["legs"]) * 1024
        ratio = last["memory"] / first["memory"]
        print(f"  memory x {ratio:.2f} (target {MEMORY_GROWS}){verdict}, {each:.1f} KB a leg")
    left = [path.name for path in (folder / "tmp").iterdir() if not path.name.startswith("pytest-of-")]
    print(f"temporary files left: {left or 'none'}")
    if by_hand:
        return
    sizes = ", ".join(f"{name} {(folder / name).stat().st_size / 1e6:.1f} MB" for name in REPORTS)
    took = float((folder / "written").read_text())
    print(
        f"reports: {took:.2f} s of processor (target {REPORT_SECONDS}){'  MISSED' * (took > REPORT_SECONDS)}; {sizes}"
    )


def failing(folder: Path, tests: int) -> None:
    """Print what experiments add to a session in which three causes fail all tests."""
    (folder / "test_load.py").write_text(FAILING.format(tests=tests))
    plain, plain_spent, out = session(folder, "--no-start-methods-verify", "--tb=no")
    verified, verified_spent, out = session(folder, "--tb=no")
    at = out.find("= start methods =")
    verdict = "" if verified_spent <= EXPERIMENTS * plain_spent else "  MISSED"
    print(f"{tests} failing tests: {plain:.0f} s without experiments, {verified:.0f} s with them")
    print(f"of processor: {plain_spent:.0f} s without, {verified_spent:.0f} s with them: ", end="")
    print(f"x {verified_spent / plain_spent:.2f} (target {EXPERIMENTS}){verdict}")
    summary = out[at:].partition("= short test summary info =")[0]
    print(f"summary of start methods: {summary.count(chr(10))} lines")


def main() -> None:
    """Generate the suite, run it, and print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tests", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--by-hand", action="store_true")
    parser.add_argument("--failing", action="store_true")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "conftest.py").write_text(SAMPLE if options.by_hand else SAMPLE + TIMED)
        (folder / "work.py").write_text(WORK)
        if options.failing:
            failing(folder, options.tests or 300)
        else:
            passing(folder, options.tests or 2000, options.workers, options.by_hand)


if __name__ == "__main__":
    main()
