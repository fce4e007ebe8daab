"""Faults and loads at random for some minutes, and how often anything went wrong. Not part of CI.

    python benchmarks/soak.py [--minutes 10] [--seed N]

Each round runs a small suite under all three methods, does something to it (a signal to the session or to a child,
closed descriptors, a removed temporary directory, a full environment, a test that exits), and looks afterwards: a
traceback with frames of ours, a process or a temporary file left, or a session that did not end in three minutes is a
fault. The command that repeats the round is printed with it. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUITE = """
import multiprocessing, os, signal, sys, tempfile, threading, time, shutil
from concurrent.futures import ProcessPoolExecutor
import pytest

def work(n=0): return n
def fail(): raise LookupError("here")
def sleep(seconds=0.2): time.sleep(seconds)
def die(): os.kill(os.getpid(), signal.SIGKILL)

def started(target, *args, **options):
    process = multiprocessing.Process(target=target, args=args, **options)
    process.start()
    return process

pytestmark = pytest.mark.startmethods(vacuous="ignore")

@pytest.mark.parametrize("n", range(LOAD))
def test_load(n): started(work, n).join()
def test_fails(): started(fail).join()
def test_lambda(): started(lambda: 0)
def test_dies(): started(die).join()
def test_daemon(): started(sleep, 60, daemon=True)
def test_sleeps(): started(sleep, 1).join()
def test_pool():
    with multiprocessing.Pool(2) as pool: assert pool.map(work, range(9)) == list(range(9))
def test_executor():
    with ProcessPoolExecutor(2) as executor: assert list(executor.map(work, range(9))) == list(range(9))
def test_threads():
    threads = [threading.Thread(target=lambda: started(work).join()) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
def test_fault(monkeypatch, tmp_path):
    FAULT
"""

FAULTS = {
    "none": "pass",
    "descriptors": "os.closerange(20, 60); started(work)",
    "temporary directory": "monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path)); started(work).join(); "
    "shutil.rmtree(tmp_path)",
    "environment": "[monkeypatch.setenv(f'N{n}', 'x' * 99) for n in range(999)]; started(work).join()",
    "exit": "os._exit(3)",
    "clock": "monkeypatch.setattr(time, 'monotonic', lambda: 0.0); started(work).join()",
    "warnings": "import warnings; warnings.simplefilter('error'); started(work).join()",
    "signal ignored": "signal.signal(signal.SIGINT, signal.SIG_IGN); started(work).join()",
    "children killed": "p = started(sleep, 60); os.kill(p.pid, signal.SIGKILL); p.join()",
}
SIGNALS = [None, None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


def processes_with(mark: str) -> list[int]:
    """Return the processes that have `mark` in their environment or arguments: shells that clean up are among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def play(seed: int) -> tuple[str, list[str]]:
    """Play one round; return what it was and what was wrong."""
    chance = random.Random(seed)
    fault, number = chance.choice(list(FAULTS)), chance.choice(SIGNALS)
    wrong = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "tmp").mkdir()
        (folder / "pytest.ini").write_text("[pytest]\n")
        text = SUITE.replace("LOAD", str(chance.randint(1, 20))).replace("FAULT", FAULTS[fault])
        (folder / "test_soak.py").write_text(text)
        mark = str(folder / "tmp")
        arguments = ["--start-methods-timeout=5", *chance.choice([[], ["-n", "2"], ["--no-start-methods-verify"]])]
        with open(folder / "out", "w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
                cwd=folder, env={**os.environ, "TMPDIR": mark},
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            if number is not None:
                try:
                    process.wait(chance.uniform(0.5, 6))
                except subprocess.TimeoutExpired:
                    process.send_signal(number)
            process.wait(180)
        except subprocess.TimeoutExpired:
            wrong.append("did not end in three minutes")
            process.kill()
            process.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and processes_with(mark):
            time.sleep(0.1)
        if left := processes_with(mark):
            wrong.append(f"{len(left)} processes left")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        said = (folder / "out").read_text(errors="replace")
        if "INTERNALERROR" in said:
            wrong.append("INTERNALERROR")
        if "pytest_startmethod/" in said.replace("pytest_startmethod/child/", ""):
            wrong.append("frames of ours")
        if fault not in ("temporary directory", "exit") and any((folder / "tmp").glob("pymp-*")):
            wrong.append("temporary files left")
    return f"{fault}, {number.name if number else 'no signal'}, {' '.join(arguments)}", wrong


def main() -> None:
    """Play rounds until the time is over, and count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="play this round only")
    options = parser.parse_args()
    if options.seed is not None:
        print(*play(options.seed))
        return
    counts: collections.Counter[str] = collections.Counter()
    end, seed = time.monotonic() + options.minutes * 60, random.randrange(10**6)
    while time.monotonic() < end:
        seed += 1
        what, wrong = play(seed)
        counts["rounds"] += 1
        counts.update(wrong)
        if wrong:
            print(f"--seed {seed}: {what}: {', '.join(wrong)}", flush=True)
    print(", ".join(f"{name}: {number}" for name, number in counts.items()))


if __name__ == "__main__":
    main()
