"""End what a leg leaves running, and report what it was."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from .._compat import cpython
from .._compat.cpython import RealTime
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


class _Hurry:
    """Whether Ctrl-C was pressed while children are being ended."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """Note a SIGINT."""
        self.asked = True


@contextlib.contextmanager
def hurried_by_interrupts() -> Iterator[_Hurry]:
    """Let Ctrl-C shorten the waits within, and raise it afterwards, unless an earlier one already ends the session."""
    hurry = _Hurry()
    before = cpython.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield hurry
        return
    interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
    cpython.setsignal(signal.SIGINT, hurry.ask)
    try:
        yield hurry
    finally:
        cpython.setsignal(signal.SIGINT, before)
    if hurry.asked and not interrupted:
        raise KeyboardInterrupt


def end_all(candidates: list[Launch], grace: float = GRACE_SECONDS) -> list[Launch]:
    """End the processes of `candidates`, whoever they belong to, and return the launches of those that still ran."""
    with hurried_by_interrupts() as hurry:
        _wait(candidates, grace, hurry)
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
            _wait(remaining, seconds, hurry if signal_name == "terminate" else _Hurry())
    return left


def _terminate(pools: Iterable[Any]) -> None:
    for pool in {id(each): each for each in pools if each is not None}.values():
        with contextlib.suppress(Exception):
            pool.terminate()


_STEP_SECONDS = 0.2


def _wait(launches: list[Launch], seconds: float, hurry: _Hurry) -> None:
    """Wait until all of the processes are gone, but no longer than `seconds`, and not once somebody is in a hurry.

    ``multiprocessing.connection.wait`` never returns while a test has frozen ``time.monotonic``.
    """
    end = RealTime.now() + seconds
    while not hurry.asked:
        popens = [each.popen() for each in launches if each.alive]
        remaining = end - RealTime.now()
        if not popens or remaining <= 0:
            return
        _wait_for_one(popens, min(remaining, _STEP_SECONDS))


def _wait_for_one(popens: Sequence[Any], seconds: float) -> None:
    """Wait until one of the processes has ended, but no longer than `seconds`."""
    if not hasattr(select, "poll"):  # Windows, whose sentinels are no descriptors
        popens[0].wait(seconds / len(popens))
        return
    poll = select.poll()
    for popen in popens:
        poll.register(popen.sentinel, select.POLLIN)
    if any(event & select.POLLNVAL for _, event in poll.poll(seconds * 1000)):  # somebody closed it
        RealTime.sleep(0.005)


def sentences(left: Iterable[Launch], leg: str) -> list[str]:
    """Return which children outlived their leg, one sentence for those of one line."""
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
