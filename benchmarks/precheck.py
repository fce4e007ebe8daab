"""What the pre-check costs: ``python benchmarks/precheck.py``.

A dry run of small launches, of a 500 MB array, and the search for one bad leaf among 100,000 objects, each beside
``pickle.dumps`` or a real start of the same thing, measured in the same run.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import resource
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import context, reduction
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))

from pytest_startmethod.causes.pickling import diagnose
from pytest_startmethod.pickling import dry_run

SPAWN = multiprocessing.get_context("spawn")


def work(*args: Any) -> None:
    """Do nothing."""


class Node:
    """One of many objects."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.meta = {"number": number, "tags": ["a", "b"]}


def timed(call: Callable[[], object], repeat: int = 5, number: int = 1) -> float:
    """Return the seconds of one call: the best of several, since others share the machine."""
    out = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(number):
            call()
        out.append((time.perf_counter() - start) / number)
    return min(out)


def as_start_does(obj: object) -> int:
    """Pickle `obj` into memory, as ``Process.start`` does under spawn; return the size."""
    file = io.BytesIO()
    context.set_spawning_popen(dry_run.StandIn())
    try:
        reduction.ForkingPickler(file).dump(obj)
    finally:
        context.set_spawning_popen(None)
    return file.tell()


def peak_of(call: Callable[[], object]) -> float:
    """Return by how many MB a call raises the peak of this process's memory, measured in a forked child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        kilobytes = int(file.read())
    os.waitpid(pid, 0)
    return kilobytes / 1024


def report(what: str, value: float, limit: float, unit: str, beside: str = "") -> bool:
    """Print one line; return whether the value is within its limit."""
    good = value <= limit
    mark = "  " if good else "!!"
    print(f"{mark} {what:44} {value:9.3f} {unit} (limit {limit:g} {unit})  {beside}")
    return good


def main() -> int:
    """Measure everything; return 1 if a limit is passed."""
    good = True
    small = {
        "no arguments": SPAWN.Process(target=work),
        "a few plain arguments": SPAWN.Process(target=work, args=(1, "x", {"a": [1, 2]})),
        "a queue, a lock and an event": SPAWN.Process(target=work, args=(SPAWN.Queue(), SPAWN.Lock(), SPAWN.Event())),
        "a pipe": SPAWN.Process(target=work, args=SPAWN.Pipe()),
    }
    print(f"Python {sys.version.split()[0]}")
    for name, process in small.items():
        real = timed(lambda p=process: as_start_does(p), 7, 300) * 1e3  # type: ignore[misc]
        mine = timed(lambda p=process: dry_run.dry_run(p, user_code=False), 7, 300) * 1e3  # type: ignore[misc]
        good &= report(f"dry run: {name}", mine, 0.1, "ms", f"pickling it for real {real:.3f} ms")

    nodes = [Node(i) for i in range(100_000)]
    start = timed(lambda: as_start_does(nodes), 3)
    dry = timed(lambda: dry_run.dry_run(nodes), 3)
    print(f"   dry run: 100,000 objects {dry:24.3f} s   pickling them for real {start:.3f} s")
    nodes[57_000].meta["hook"] = threading.Lock()  # type: ignore[assignment]
    findings = diagnose(nodes)
    assert [f.path for f in findings] == ["object[57000].meta['hook']"], findings
    found = timed(lambda: diagnose(nodes), 3)
    good &= report("diagnosis: one bad leaf among 100,000", found, 1.0, "s", f"pickling them for real {start:.3f} s")

    try:
        import numpy
    except ImportError:
        print("   numpy is not here: no array measured")
        return not good
    array = numpy.ones(62_500_000)
    process = SPAWN.Process(target=work, args=(array,))
    good &= report("dry run: a 500 MB array, time", timed(lambda: dry_run.dry_run(process)) * 1e3, 50, "ms")
    real_peak = peak_of(lambda: as_start_does(process))
    mine_peak = peak_of(lambda: dry_run.dry_run(process))
    beside = f"pickling it for real {real_peak:.0f} MB"
    good &= report("dry run: a 500 MB array, memory", mine_peak, 20, "MB", beside)
    real_time = timed(lambda: len(pickle.dumps(array)), 1)
    print(f"   pickle.dumps of the same array {real_time * 1e3:15.0f} ms")
    return not good


if __name__ == "__main__":
    sys.exit(main())
