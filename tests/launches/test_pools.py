"""Pools are watched from several threads at once."""

from __future__ import annotations

import sys
import threading
from typing import ClassVar

from pytest_startmethod.launches.pools import Pools


class Queue:
    """Supports weak references, like a pool's queue."""


class Job:
    _cache: ClassVar[dict[object, object]] = {}


def test_results_arrive_while_pools_are_made():
    """One thread may add pools while another iterates over them."""
    pools, errors, kept = Pools(), [], []
    ready = threading.Barrier(4)

    def guarded(function):
        def run():
            ready.wait()
            try:
                for _ in range(2_000):
                    function()
            except Exception as error:
                errors.append(error)

        return run

    def add():
        kept.append(Queue())
        pools.of(kept[-1])
        del kept[:-500]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        each = (add, add, lambda: pools.result(Job(), (True, None)), lambda: pools.result(Job(), (True, None)))
        threads = [threading.Thread(target=guarded(function)) for function in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
