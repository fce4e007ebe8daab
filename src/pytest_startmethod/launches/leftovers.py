"""End and report the processes that a leg leaves running."""

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

from .._compat import signals
from .._compat.cpython import RealTime
from ..model.launch import Launch

GRACE_SECONDS = 0.5
"""Time for a child that is about to exit, so that it does not count as a leftover."""
TERMINATE_SECONDS = 1.0


def alive(launches: Iterable[Launch]) -> list[Launch]:
    """Return the launches whose process is alive and does not belong to a wider-scoped fixture."""
    return [each for each in launches if (each.fixture is None or each.fixture.scope == "function") and each.alive]


def end(launches: Iterable[Launch], grace: float = GRACE_SECONDS) -> list[Launch]:
    """End the processes that outlive their leg, and return their launches."""
    launches = list(launches)
    # a pool given up keeps replacing its workers, even if none is alive right now
    _terminate(each.pool.pool() for each in launches if each.pool is not None and each.pool.given_up)
    left = alive(launches)
    return end_all(left, grace) if left else []


class _Hurry:
    """Records whether Ctrl-C was pressed while children are being ended."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle a SIGINT."""
        self.asked = True


@contextlib.contextmanager
def hurried_by_interrupts() -> Iterator[_Hurry]:
    """Let Ctrl-C cut the waits in the body short, then raise it unless KeyboardInterrupt is already propagating."""
    hurry = _Hurry()
    before = signals.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield hurry
        return
    interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
    signals.setsignal(signal.SIGINT, hurry.ask)
    try:
        yield hurry
    finally:
        signals.setsignal(signal.SIGINT, before)
    if hurry.asked and not interrupted:
        raise KeyboardInterrupt


def end_all(candidates: list[Launch], grace: float = GRACE_SECONDS) -> list[Launch]:
    """End the processes of `candidates` regardless of their owner, and return the launches that were still running."""
    with hurried_by_interrupts() as hurry:
        _wait(candidates, grace, hurry)
        left = [launch for launch in candidates if launch.alive]
        _terminate(each.pool.pool() for each in left if each.pool is not None)  # or it would replace its workers
        for signal_name, seconds in (("terminate", TERMINATE_SECONDS), ("kill", TERMINATE_SECONDS)):
            remaining = [launch for launch in left if launch.alive]
            for launch in remaining:
                launch.killed = signal_name == "kill"
                with contextlib.suppress(OSError, AttributeError):
                    popen = launch.popen()
                    if signal_name == "kill" and not hasattr(popen, "kill"):  # billiard
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
    """Wait until all processes have exited, `seconds` have passed or Ctrl-C was pressed.

    ``multiprocessing.connection.wait`` would never return while a test has frozen ``time.monotonic``.
    """
    end = RealTime.now() + seconds
    while not hurry.asked:
        popens = [each.popen() for each in launches if each.alive]
        remaining = end - RealTime.now()
        if not popens or remaining <= 0:
            return
        _wait_for_one(popens, min(remaining, _STEP_SECONDS))


def _wait_for_one(popens: Sequence[Any], seconds: float) -> None:
    if not hasattr(select, "poll"):  # Windows: sentinels are not descriptors
        popens[0].wait(seconds / len(popens))
        return
    poll = select.poll()
    for popen in popens:
        poll.register(popen.sentinel, select.POLLIN)
    if any(event & select.POLLNVAL for _, event in poll.poll(seconds * 1000)):  # the sentinel was closed
        RealTime.sleep(0.005)


def sentences(left: Iterable[Launch], leg: str) -> list[str]:
    """Describe the children that outlived their leg, one sentence per target and line."""
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
