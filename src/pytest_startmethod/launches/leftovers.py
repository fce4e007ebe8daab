"""End what a leg leaves running, and say what it was."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from ..model.launch import Launch

GRACE_SECONDS = 0.5
"""A child that is about to end is no leftover."""
TERMINATE_SECONDS = 1.0


def alive(launches: Iterable[Launch]) -> list[Launch]:
    """Return the launches whose process runs and belongs to no fixture wider than the test."""
    return [each for each in launches if (each.fixture is None or each.fixture.scope == "function") and each.alive]


def end(launches: Iterable[Launch], grace: float = GRACE_SECONDS) -> list[Launch]:
    """End the processes that still run when their leg is over, and return their launches."""
    launches = list(launches)
    # a pool that was given up goes on replacing its workers, and none may be alive just now
    _terminate(each.pool.pool() for each in launches if each.pool is not None and each.pool.given_up)
    left = alive(launches)
    return end_all(left, grace) if left else []


def end_all(candidates: list[Launch], grace: float = GRACE_SECONDS) -> list[Launch]:
    """End the processes of `candidates`, whoever they belong to, and return the launches of those that still ran."""
    _wait(candidates, grace)
    left = [launch for launch in candidates if launch.alive]
    _terminate(each.pool.pool() for each in left if each.pool is not None)  # or it would replace what is ended here
    for signal_name, seconds in (("terminate", TERMINATE_SECONDS), ("kill", TERMINATE_SECONDS)):
        remaining = [launch for launch in left if launch.alive]
        for launch in remaining:
            with contextlib.suppress(OSError, AttributeError):
                popen = launch.popen()
                if signal_name == "kill" and not hasattr(popen, "kill"):  # billiard's
                    os.kill(popen.pid, signal.SIGKILL)
                else:
                    getattr(popen, signal_name)()
        _wait(remaining, seconds)
    return left


def _terminate(pools: Iterable[Any]) -> None:
    for pool in {id(each): each for each in pools if each is not None}.values():
        with contextlib.suppress(Exception):
            pool.terminate()


def _wait(launches: list[Launch], seconds: float) -> None:
    """Wait until all of the processes are gone, but no longer than `seconds`."""
    from multiprocessing.connection import wait

    end_time = time.monotonic() + seconds
    while True:
        sentinels: list[Any] = [each.popen().sentinel for each in launches if each.alive]
        remaining = end_time - time.monotonic()
        if not sentinels or remaining <= 0:
            return
        wait(sentinels, remaining)


def sentences(left: Iterable[Launch], leg: str) -> list[str]:
    """Say which children outlived their leg, those of one line together."""
    groups: dict[object, list[Launch]] = {}
    for launch in left:
        groups.setdefault((launch.target, launch.place), []).append(launch)
    return [_sentence(each, leg) for each in groups.values()]


def _sentence(launches: list[Launch], leg: str) -> str:
    launch, count = launches[0], len(launches)
    where = f", started at {launch.place.file}:{launch.place.line}" if launch.place is not None else ""
    what = f"({launch.target}{where}) outlived {leg}"
    if count == 1:
        return f"child {launch.pid} {what} and was ended"
    return f"{count} children {what} and were ended"
