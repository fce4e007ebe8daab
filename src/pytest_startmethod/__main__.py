"""``python -m pytest_startmethod run --method spawn script.py args...``: a script under a start method."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from .model import methods as selection
from .report.results import wrap
from .scripts import running

_TIMED_OUT = 124
"""As coreutils' ``timeout`` exits."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _method(text: str) -> str:
    methods = [each for each in selection.ORDER if each in selection.available()]
    if text not in methods:
        raise argparse.ArgumentTypeError(f"unknown start method {text!r} (choose from {', '.join(methods)})")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"not a positive number of seconds: {text!r}")
    return seconds


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = _Parser(
        prog="python -m pytest_startmethod",
        description="Find out why a program works under one multiprocessing start method and not under another.",
    )
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run a script under a start method",
        description="Run a script as `python script.py` does, under a start method. Its output and exit status are "
        "its own; what kept its processes from starting is explained on standard error when it has ended.",
    )
    run.add_argument(
        "--method",
        type=_method,
        default="spawn",
        metavar="METHOD",
        help="fork, spawn or forkserver (default: spawn)",
    )
    run.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="end the script after that long, with 124")
    run.add_argument("--report", metavar="FILE", help="write launches and findings to FILE, as JSON")
    run.add_argument("script", help="the script's path")
    run.add_argument("args", nargs=argparse.REMAINDER, metavar="...", help="what the script gets as its arguments")
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(argv)
    if not os.path.isfile(options.script):
        print(f"python -m pytest_startmethod run: no such script: {options.script}", file=sys.stderr)
        return 2
    try:
        result = running.run(
            options.script, *options.args, method=options.method, timeout=options.timeout, capture=False
        )
    except KeyboardInterrupt:
        return _die(signal.SIGINT)
    _print(result)
    if options.report:
        try:
            with open(options.report, "w", encoding="utf-8") as file:
                json.dump(result.as_dict(), file, indent=2)
                file.write("\n")
        except OSError as error:
            print(f"python -m pytest_startmethod run: --report: {error}", file=sys.stderr)
            return 2
    if result.ended:
        return _TIMED_OUT if result.ended == "time limit" else 1
    return result.returncode if result.returncode >= 0 else _die(-result.returncode)


def _print(result: running.ScriptRun) -> None:
    """Print the findings, the notes, and why the script was ended."""
    lines: list[str] = []
    if result.ended == "time limit":
        lines += wrap(f"pytest-startmethod: {result.outcome}", first="")
    for note in result.notes:
        lines += wrap(note if note.startswith("pytest-startmethod") else f"note: {note}", first="")
    for each in result.findings:
        lines += [*([""] if lines else []), *each.section_lines(os.getcwd())]
    if lines:
        print("\n".join(lines), file=sys.stderr)


def _die(number: int) -> int:
    """End as the script did: by the same signal, so that a shell sees what it would have seen."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())
