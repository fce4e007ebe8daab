"""The exception of a child, as text below a failing leg."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from ..model.child_report import ChildReport, Frame, Raised
from ..model.finding import WIDTH, relative
from ..source.callers import owner

_STACK_LINE = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)')


def has_user_frames(report: ChildReport) -> bool:
    """Return whether a child's traceback adds anything to its finding."""
    return any(owner(each.file) in ("user", "installed") for raised in report.raised for each in raised.frames)


def traceback_lines(report: ChildReport, root: str | None = None, full: bool = False) -> list[str]:
    """Return the child's own traceback as text: the user's frames, or with `full` all of them."""
    name = report.process or "a child"
    doing = {
        "start-up": "while starting up",
        "unpickling": "while loading a task" if report.task else "while loading its process object",
        "result": "while sending a result",
        "exit": "while exiting",
    }.get(report.phase, "in its initializer" if report.role == "initializer" else "")
    if report.phase in ("crash", "stack"):
        did = "crashed" if report.phase == "crash" else "stood here"
        stack = report.stack if full else _stack_worth_showing(report.stack, root)
        return [f"{name} (pid {report.pid}, {report.method}) {did}:", *(f"  {line}" for line in stack)]
    if not report.raised:
        return [f"{name} (pid {report.pid}, {report.method}) ended with exit code {report.exit_code} {doing}".rstrip()]
    lines = [f"{name} (pid {report.pid}, {report.method}) raised{' ' + doing if doing else ''}:"]
    for index, raised in enumerate(report.raised):
        if index:
            lines.append("  which came from:")
        lines += _raised_lines(raised, report, root, full)
    return lines


def _raised_lines(raised: Raised, report: ChildReport, root: str | None, full: bool) -> list[str]:
    shown = list(raised.frames) if full else _worth_showing(raised.frames)
    if not shown and report.phase == "run":
        shown = list(raised.frames[-1:])
    lines = []
    for frame in shown:
        file = relative(frame.file, root)
        lines.append(f"  {file}:{frame.line} in {frame.function}")
        if frame.source:
            lines.append(f"    {frame.source}")
    if full and raised.omitted:
        lines.append(f"  ({raised.omitted} frames left out)")
    message = raised.message.strip()
    for line in (f"{raised.type}: {message}" if message else raised.type).splitlines():
        lines += [f"  {line}"] if full or not line.strip() else _wrapped(line)
    if raised.statement is not None:
        lines += [f"    {name} = {text}" for name, text in raised.values]
        how = "forked" if report.method == "fork" else report.method
        text = f"pytest does not rewrite asserts in this {how} child: it says no more than this"
        lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _wrapped(line: str) -> list[str]:
    """Wrap a line of a message to the width of a section, never breaking a path or name."""
    wrapper = textwrap.TextWrapper(WIDTH, "  ", "    ", break_long_words=False, break_on_hyphens=False)
    wrapper.replace_whitespace = False
    return wrapper.wrap(line)


def _stack_worth_showing(stack: Sequence[str], root: str | None) -> list[str]:
    """Return faulthandler's text with the user's frames only, and without the parent's below a fork."""
    lines: list[str] = []
    inherited = False
    for line in stack:
        frame = _STACK_LINE.match(line)
        if frame is None:
            inherited = False
            if line.strip():
                lines.append(line)
        elif frame["function"] == "_bootstrap":
            inherited = True
        elif not inherited and owner(frame["file"]) == "user":
            file = relative(frame["file"], root)
            lines.append(f"  {file}:{frame['line']} in {frame['function']}")
    return lines


def _worth_showing(frames: Sequence[Frame]) -> list[Frame]:
    """Return the user's frames, and the innermost one if it is an installed package's."""
    own = [each for each in frames if owner(each.file) == "user"]
    installed = [each for each in frames if owner(each.file) == "installed"]
    chosen = own + ([installed[-1]] if installed and frames[-1] is installed[-1] else [])
    return chosen if len(chosen) <= 12 else chosen[:3] + chosen[-9:]
