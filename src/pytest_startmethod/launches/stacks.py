"""Capture the Python stacks of this process and of a leg's children."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence

from .._compat.cpython import RealTime
from ..child import reporter
from ..model.launch import Launch
from ..model.stack import Stack, parse
from ..source.callers import frames, owner
from .reports import ReportDirectory

_ANSWER_SECONDS = 1.0


def own() -> tuple[Stack, ...]:
    """Return the stacks of all threads of this process, without our own frames."""
    names = {thread.ident: thread for thread in threading.enumerate()}
    stacks: list[Stack] = []
    for ident, frame in sys._current_frames().items():
        found: list[tuple[str, int, str]] = []
        for each in frames(frame):
            found.append((each.f_code.co_filename, each.f_lineno, each.f_code.co_name))
        ours = os.path.dirname(os.path.abspath(__file__)) + os.sep
        while found and found[0][0].startswith(ours):
            del found[0]
        # Drop the frames that started pytest, although the script among them may be the user's.
        runners = [index for index, (file, _, _) in enumerate(found) if owner(file) == "runner"]
        if runners:
            del found[runners[-1] + 1 :]
        thread = names.get(ident)
        stacks.append(Stack(tuple(found), thread.name if thread else "", main=thread is threading.main_thread()))
    return tuple(stacks)


def of_children(
    launches: Sequence[Launch], directory: ReportDirectory | None
) -> list[tuple[Launch, tuple[Stack, ...]]]:
    """Signal each living child and return the stacks received within a second."""
    alive = [launch for launch in launches if launch.pid is not None and launch.alive]
    if directory is None or reporter.STACK_SIGNAL is None:
        return [(launch, ()) for launch in alive]
    # The signal would kill a child without a handler.
    asked = [launch for launch in alive if launch.pid is not None and directory.listens(launch.pid)]
    for launch in asked:
        with contextlib.suppress(OSError):
            os.kill(launch.pid or 0, reporter.STACK_SIGNAL)
    answers: dict[int | None, tuple[Stack, ...]] = {}
    end = RealTime.now() + _ANSWER_SECONDS
    while len(answers) < len(asked) and RealTime.now() < end:
        for launch in asked:
            lines = directory.stack_lines(launch.pid or 0)
            # faulthandler writes the main thread last, ending with the interpreter's entry frame.
            if launch.pid not in answers and lines and any(line.endswith(" in <module>") for line in lines):
                answers[launch.pid] = parse(lines)
        RealTime.sleep(0.005)
    for launch in asked:
        answers.setdefault(launch.pid, parse(directory.stack_lines(launch.pid or 0)))
    return [(launch, answers.get(launch.pid, ())) for launch in alive]
