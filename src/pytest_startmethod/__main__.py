"""The command line: ``python -m pytest_startmethod (run | explain | codes)``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from .model import codes, methods
from .model.finding import Finding, unique, wrapped
from .scripts import running

_PROGRAM = "python -m pytest_startmethod"
_TIMED_OUT = 124
"""The exit status of coreutils' ``timeout``."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


class _Version(argparse.Action):
    """Print the version, which is looked up only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from . import __version__

        print(f"pytest-startmethod {__version__}")
        parser.exit(0)


def _method(text: str) -> str:
    every = [*methods.in_order(methods.available()), "all"]
    if text not in every:
        raise argparse.ArgumentTypeError(f"unknown start method {text!r} (choose from {', '.join(every)})")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"not a positive number of seconds: {text!r}")
    return seconds


def _code(text: str) -> str:
    """Return the code with the given code or name, in upper or lower case."""
    for code, cause in codes.CAUSES.items():
        if text.upper() == code or text.lower() == cause.name:
            return code
    raise argparse.ArgumentTypeError(f"unknown code {text!r} (`{_PROGRAM} codes` lists them)")


def _report(text: str) -> Path:
    """Return a path after checking that it is writable, without changing the file."""
    path = Path(text)
    new = not path.exists()
    try:
        path.open("a").close()
        if new:
            path.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text}: {error.strerror}") from None
    return path


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = _Parser(
        prog=_PROGRAM,
        description="Find out why a program works under one multiprocessing start method and not under another.",
    )
    main.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = main.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a script under a start method",
        usage=f"{_PROGRAM} run [OPTIONS] (SCRIPT | -m MODULE) ...",
        description="Run a script as `python script.py` does, or a module as `python -m module` does, under a start "
        "method. Its output and exit status are its own; why its processes failed is explained on standard error when "
        "it has ended.",
    )
    run.add_argument(
        "--method",
        type=_method,
        default="spawn",
        metavar="METHOD",
        help="fork, spawn or forkserver (default: spawn), or all: one run under each, and a line on each at the end",
    )
    run.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="end the script after SECONDS, with exit status 124"
    )
    run.add_argument("--report", type=_report, metavar="FILE", help="write launches and findings to FILE, as JSON")
    run.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="...", help="a module, and its arguments")
    run.add_argument("script", nargs="?", metavar="SCRIPT", help="the script's path")
    run.add_argument("args", nargs=argparse.REMAINDER, metavar="...", help="the script's arguments")
    explain = commands.add_parser("explain", help="print the documentation of a cause")
    explain.add_argument("codes", nargs="+", type=_code, metavar="CODE", help="SM301, or its name: global-state")
    commands.add_parser("codes", help="list the codes of all causes")
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(argv)
    if options.command == "explain":
        print("\n".join(map(page, options.codes)), end="")
    elif options.command == "codes":
        for cause in codes.CAUSES.values():
            print("\n".join(wrapped(f"{cause.code}  {cause.name:<26}{cause.what}", "", " " * 33)))
    elif options.command == "run":
        return _run(options)
    else:
        parser().print_help(sys.stderr)
        return 2
    return 0


def page(code: str) -> str:
    """Return the documentation of a cause, as Markdown. Raises FileNotFoundError if it is not installed."""
    here = Path(__file__).parent
    folders = (here / "pages", here.parents[1] / "docs" / "causes")  # of the wheel; of a checkout
    page = next((folder for folder in folders if folder.is_dir()), folders[0]) / f"{code}.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    return "\n".join([*(line for line in lines if not line.startswith("<!--")), "", f"<{codes.url(code)}>", ""])


# -- run ---------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    """Run the script under the selected methods; return the exit status of the first failed run."""
    if options.module:
        words = ["-m", *options.module]
    elif options.script and options.module is None:
        words = [options.script, *options.args]
        if not os.path.isfile(options.script):
            print(f"{_PROGRAM} run: no such script: {options.script}", file=sys.stderr)
            return 2
    else:
        print(f"{_PROGRAM} run: a script, or -m and a module, is required", file=sys.stderr)
        return 2
    every = methods.in_order(methods.available()) if options.method == "all" else [options.method]
    results: list[tuple[running.ScriptRun, float]] = []
    rewind = _rewinds_input()
    for method in every:
        rewind()
        start = time.monotonic()
        try:
            result = running.run(*words, method=method, timeout=options.timeout, capture=False)
        except KeyboardInterrupt:
            return _die(signal.SIGINT)
        results.append((result, time.monotonic() - start))
    results = [(_without_state(each, results[0][0]), seconds) for each, seconds in results]
    runs = [result for result, _ in results]
    for line in [*_told(runs), *(_table(results) if options.method == "all" else ())]:
        print(line, file=sys.stderr)
    if options.report:
        _write(options.report, [each.as_dict() for each in runs], several=options.method == "all")
    failed = next((each for each in runs if each.ended or each.returncode), runs[0])
    if failed.ended:
        return _TIMED_OUT if failed.ended == "time limit" else 1
    return failed.returncode if failed.returncode >= 0 else _die(-failed.returncode)


def _rewinds_input() -> Callable[[], object]:
    """Return what makes each run read a file on standard input from where it stands now; a pipe is read only once."""
    try:
        return partial(os.lseek, 0, os.lseek(0, 0, os.SEEK_CUR), os.SEEK_SET)
    except OSError:
        return lambda: None


def _without_state(result: running.ScriptRun, first: running.ScriptRun) -> running.ScriptRun:
    """Return a run without differences of state if the script fails under fork, too: they cannot be the reason."""
    if first.method != "fork" or first.returncode == 0:
        return result
    return replace(result, findings=tuple(each for each in result.findings if not each.code.startswith("SM3")))


def _write(path: Path, runs: Sequence[dict[str, object]], *, several: bool) -> None:
    """Write the report; on failure print one line and keep the script's exit status."""
    document = {"schema": 1, "runs": runs} if several else runs[0]
    try:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"{_PROGRAM} run: --report: {error}", file=sys.stderr)


def _told(runs: Sequence[running.ScriptRun]) -> Iterable[str]:
    """Yield why the script was ended, the notes, and the findings, each once for all methods."""
    for result in runs:
        if result.ended == "time limit":
            yield from wrapped(f"pytest-startmethod: {result.outcome}", "", "  ")
    for note in dict.fromkeys(note for result in runs for note in result.notes):
        yield from wrapped(note if note.startswith("pytest-startmethod") else f"note: {note}", "", "  ")
    findings = unique(each for result in runs for each in result.findings)
    for number, each in enumerate(findings):
        if number:
            yield ""
        yield from each.section_lines(os.getcwd())
        yield f"  more: {_PROGRAM} explain {each.code}"


def _table(results: Sequence[tuple[running.ScriptRun, float]]) -> Iterable[str]:
    """Yield a line for each method: how the script ended, after how many seconds, and why."""
    yield ""
    for result, seconds in results:
        why = "".join(f"; {_short(each)}" for each in result.findings[:1])
        yield f"{result.method:<12}{result.outcome} after {seconds:.1f} s{why}"


def _short(finding: Finding) -> str:
    place = f" at {os.path.relpath(finding.file)}:{finding.line}" if finding.file else ""
    return f"{finding.code} {finding.name}{place}"


def _die(number: int) -> int:
    """End by the signal that ended the script, so that a shell sees the same status."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())
