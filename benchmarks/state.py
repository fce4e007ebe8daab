"""What it costs to compare parent and child: ``python benchmarks/state.py``.

Judged by one run. By medians: a diagnosis, with two fresh children started for it, against a spawn start of the same
module (1.5 times at most). By the best of many, since other load doubles it: a further one in a warm session, for a
module that imports numpy and pandas, in milliseconds (20 at most). numpy and pandas are left out where they are not
installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import statistics
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "src"))

LIGHT = "import json, logging, threading, collections\n"
HEAVY = "import numpy, pandas\n"
BODY = """
LIMIT = 1
OPTIONS = {"a": 1}
REGISTRY = []


class Service:
    size = 3

    def run(self):
        return self.size, helper(OPTIONS["a"])


def helper(value):
    return value + LIMIT + len(REGISTRY)


def work():
    return Service().run()
"""
RUNS = 7
COLD, WARM = 1.5, 20.0


def timed(function) -> float:
    """Return how many milliseconds a call takes."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1000


def main() -> int:
    """Print the figures and say whether they are good enough."""
    from pytest_startmethod.causes import state as state_causes
    from pytest_startmethod.state import fresh_child, observing

    folder = tempfile.mkdtemp()
    sys.path.insert(0, folder)
    names = {"light": LIGHT}
    if all(importlib.util.find_spec(name) for name in ("numpy", "pandas")):
        names["heavy"] = HEAVY
    good = True
    for name, imports in names.items():
        with open(os.path.join(folder, f"bench_{name}.py"), "w") as file:
            file.write(imports + BODY)
        module = importlib.import_module(f"bench_{name}")
        module.LIMIT = 2
        context = multiprocessing.get_context("spawn")

        def start(module=module, context=context) -> None:
            process = context.Process(target=module.work)
            process.start()
            process.join()

        def diagnose(children, module=module) -> None:
            observed = observing.observe(module.work, method="spawn")
            seen = observing.ask(observed, children)
            found = state_causes.explain(observed, seen)
            assert [each.path for each in found] == [f"{module.__name__}.LIMIT"], found

        def cold(diagnose=diagnose) -> None:
            with fresh_child.Loader() as one, fresh_child.Loader() as other:
                diagnose([one, other])

        timed(start), timed(cold)
        starts, colds = [], []
        for _ in range(RUNS):  # side by side, since the machine's load changes
            starts.append(timed(start))
            colds.append(timed(cold))
        with fresh_child.Loader() as one, fresh_child.Loader() as other:
            diagnose([one, other])
            time.sleep(1.0)  # the children import what they keep
            warm = min(timed(lambda: diagnose([one, other])) for _ in range(5 * RUNS))
        looks = statistics.median(timed(lambda: observing.observe(module.work, method="spawn")) for _ in range(20))  # noqa: B023
        base, all_ = statistics.median(starts), statistics.median(colds)
        print(
            f"{name:6} spawn start {base:7.1f} ms   diagnosis {all_:7.1f} ms = {all_ / base:.2f} starts   "
            f"warm {warm:6.1f} ms   at each launch {looks:5.1f} ms"
        )
        good = good and all_ <= COLD * base and warm <= WARM
    print(f"judged: diagnosis <= {COLD} spawn starts, warm <= {WARM} ms: {'good' if good else 'NOT GOOD'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
