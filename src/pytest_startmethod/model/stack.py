"""Stacks of the threads of a process, as `faulthandler` or the interpreter shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .launch import Launch

_LINE = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')
_THREAD = re.compile(r"^(?:Current thread|Thread) (?P<name>0x[0-9a-f]+)(?: \[(?P<label>[^\]]*)\])?")


@dataclass(frozen=True, slots=True)
class Stack:
    """One thread's stack: (file, line, function), innermost first, and the thread's name."""

    frames: tuple[tuple[str, int, str], ...]
    thread: str = ""
    main: bool = True


@dataclass(frozen=True, slots=True)
class Hanging:
    """The stacks of all processes when the time limit was reached."""

    seconds: float
    parent: Sequence[Stack]
    children: Sequence[tuple[Launch, Sequence[Stack]]] = ()
    """Launches that were still running, with the stacks of their processes if these answered."""
    started: bool = True
    """Whether the leg, or a fixture that it uses, started any process."""


def parse(lines: Sequence[str]) -> tuple[Stack, ...]:
    """Return the stacks in what `faulthandler` wrote; the main thread is the last one it writes."""
    stacks: list[tuple[str, list[tuple[str, int, str]]]] = []
    for line in lines:
        thread = _THREAD.match(line)
        if thread is not None:
            stacks.append((thread["label"] or thread["name"], []))
        frame = _LINE.match(line)
        if frame is not None and stacks:
            stacks[-1][1].append((frame["file"], int(frame["line"]), frame["function"]))
    last = len(stacks) - 1
    return tuple(
        Stack(tuple(frames), name, main=index == last) for index, (name, frames) in enumerate(stacks) if frames
    )
