"""Run a script as ``python script.py`` would, under a start method, and say what it started and why that failed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, Literal

from .._compat import cpython
from ..causes import main_guard
from ..launches.reports import ReportDirectory
from ..model.child_report import ChildReport
from ..model.finding import Finding
from ..model.launch import Launch
from . import process as script_process
from . import record

_POLL_SECONDS = 0.02
_GUARD_SECONDS = 1.0
"""How long a script may go on after a child failed for want of a main guard: most end by themselves."""
_SETTLE_SECONDS = 1.0
"""How long what the script started may live on after it: a forkserver and a resource tracker end at their own pace."""
_TERM_SECONDS = 0.5
_KILL_SECONDS = 2.0
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """A script that was run to its end, or ended."""

    script: str
    """Its path, absolute."""
    args: tuple[str, ...]
    method: str
    returncode: int
    """Its exit status; negative: the number of the signal that ended it."""
    stdout: str
    """Empty if it was not captured."""
    stderr: str
    launches: tuple[Launch, ...] = ()
    """The processes that it started itself, in order; not those of its children."""
    findings: tuple[Finding, ...] = ()
    ended: Literal["", "main guard", "time limit"] = ""
    """Why it was ended before its time."""
    notes: tuple[str, ...] = ()
    """What else should be known: a start method that the script set, a failure of our own."""
    reports: tuple[ChildReport, ...] = ()
    """What its children said of their failures."""

    def check(self) -> ScriptRun:
        """Return the run itself. Raises AssertionError with the end of its errors if its status is not 0."""
        __tracebackhide__ = True
        if self.returncode != 0:
            raise AssertionError("\n".join([f"{self.outcome} under {self.method}", *self._tail()]))
        return self

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        name = os.path.basename(self.script)
        if self.ended:
            return f"{name} was ended ({self.ended})"
        if self.returncode < 0:
            return f"{name} was ended by {_signal_name(-self.returncode)}"
        return f"{name} exited with {self.returncode}"

    def _tail(self) -> list[str]:
        lines = self.stderr.rstrip().splitlines()
        return [*(["..."] if len(lines) > _TAIL_LINES else []), *lines[-_TAIL_LINES:]]

    def as_dict(self) -> dict[str, Any]:
        """Return the run as builtins that JSON can hold."""
        return {
            "schema": 1,
            "script": self.script,
            "args": list(self.args),
            "method": self.method,
            "returncode": self.returncode,
            "ended": self.ended or None,
            "launches": [each.as_dict() for each in self.launches],
            "findings": [each.as_dict() for each in self.findings],
            "notes": list(self.notes),
        }


def run(
    script: str | os.PathLike[str],
    *args: str,
    method: str,
    timeout: float | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,  # noqa: A002 - as subprocess.run calls it
    capture: bool = True,
    leg: str = "script",
) -> ScriptRun:
    """Run `script` with `args` in a process of its own, with `method` as the default start method.

    `timeout` is in seconds, for the whole script. `cwd`, `env` and `input` are those of `subprocess.run`; without
    `input` there is nothing to read. Without `capture` the three streams are the caller's own, and so is Ctrl-C.
    Whatever way it ends, nothing that it started is left. Raises FileNotFoundError if there is no such script,
    ValueError for a method that this platform lacks.
    """
    path = os.path.join(os.path.abspath(cwd or os.curdir), script)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such script: {os.fspath(script)}")
    import multiprocessing

    methods = multiprocessing.get_all_start_methods()
    if method not in methods:
        raise ValueError(f"unknown start method {method!r} (choose from {', '.join(sorted(methods))})")
    directory = ReportDirectory.create()
    try:
        return _run(
            directory, path, os.fspath(script), [*map(str, args)], method, timeout, cwd, env, input, capture, leg
        )
    finally:
        for each in script_process.temporary_directories(directory.path):
            shutil.rmtree(each, ignore_errors=True)
        directory.remove()


def _run(
    directory: ReportDirectory,
    path: str,
    script: str,
    args: Sequence[str],
    method: str,
    timeout: float | None,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    text: str | None,
    capture: bool,
    leg: str,
) -> ScriptRun:
    flags = cpython.interpreter_flags()
    command = [sys.executable, *flags, script_process.__file__, directory.path]
    with (
        _streams(text, capture) as (stdin, stdout, stderr),
        _life_line() as life,
        _Interrupts(noted=not capture) as interrupts,
    ):
        keywords: dict[str, Any] = {"start_new_session": True, "pass_fds": (life,)} if life >= 0 else {}
        process = subprocess.Popen(
            [*command, str(life), method, script, *args],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            **keywords,
        )
        try:
            ended = _watch(process, directory, path, timeout, interrupts)
            size = _size(stderr)  # what is ended now complains of it, which is none of the script's words
            if not ended:
                _settle(process)
        finally:
            end(process)
        out, err = _text(stdout), _text(stderr, size if ended else None)
    reports = directory.read()
    log = script_process.read_log(directory.path)
    return ScriptRun(
        script=path,
        args=tuple(args),
        method=method,
        returncode=process.returncode,
        stdout=out,
        stderr=err,
        launches=_launches(log, leg),
        findings=_findings(log, reports, path),
        ended=ended,
        notes=_notes(log),
        reports=reports,
    )


class _Interrupts:
    """Counts Ctrl-C in the place of raising KeyboardInterrupt, which could come where the script is not known yet.

    The second one raises. Without `noted`, and where the handler is somebody else's, each is as it was.
    """

    def __init__(self, *, noted: bool) -> None:
        self.count = 0
        self._noted = noted

    def __enter__(self) -> _Interrupts:
        main = threading.current_thread() is threading.main_thread()
        self._noted = self._noted and main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._noted:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._noted:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            signal.default_int_handler(number, frame)


def _watch(
    process: subprocess.Popen[bytes],
    directory: ReportDirectory,
    script: str,
    timeout: float | None,
    interrupts: _Interrupts,
) -> Literal["", "main guard", "time limit"]:
    """Wait for the script; say why it must be ended, if it must."""
    start = time.monotonic()
    unguarded: float | None = None
    known, interrupted = 0, False
    while True:
        try:
            process.wait(_POLL_SECONDS)
            return ""
        except subprocess.TimeoutExpired:
            pass
        if interrupts.count and not interrupted:
            # A terminal sends it to every process of its foreground; the script is in a session of its own.
            interrupted = True
            _signal_group(process, signal.SIGINT)
        now = time.monotonic()
        if timeout is not None and now - start > timeout:
            return "time limit"
        files = _count(directory)
        if unguarded is None and files != known:
            known = files
            if main_guard.find(directory.read(), script) is not None:
                unguarded = now
        if unguarded is not None and now - unguarded > _GUARD_SECONDS:
            return "main guard"


def _count(directory: ReportDirectory) -> int:
    try:
        return sum(name.endswith(".json") for name in os.listdir(directory.path))
    except OSError:
        return 0


# -- what came of it -------------------------------------------------------------------------------------------------


def _launches(log: Sequence[Mapping[str, Any]], leg: str) -> tuple[Launch, ...]:
    launches: dict[int, Launch] = {}
    for entry in log:
        with suppress(KeyError, TypeError, ValueError):
            if "launch" in entry:
                launches[entry["launch"]] = record.launch_from(entry, leg)
            elif "exit" in entry:
                launches[entry["exit"]].exit_code = entry["exit_code"]
    return tuple(launches.values())


def _findings(log: Sequence[Mapping[str, Any]], reports: Sequence[ChildReport], script: str) -> tuple[Finding, ...]:
    guard = main_guard.find(reports, script)
    found = [] if guard is None else [guard]
    for entry in log:
        found += [Finding.from_dict(each) for each in entry.get("findings", ())]
    kept: dict[object, Finding] = {}
    for each in found:
        kept.setdefault((each.code, each.path, each.file, each.line), each)
    return tuple(kept.values())


def _notes(log: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    notes = []
    for entry in log:
        if "override" in entry:
            where = "{}:{}: ".format(*entry["place"]) if entry.get("place") else ""
            notes.append(f"{where}set_start_method({entry['override']!r}) holds from there on")
        elif "trouble" in entry:
            notes.append(f"pytest-startmethod: {entry['trouble']}")
    return tuple(dict.fromkeys(notes))


# -- streams ---------------------------------------------------------------------------------------------------------


@contextmanager
def _streams(text: str | None, capture: bool) -> Iterator[tuple[Any, Any, Any]]:
    """Yield standard input, output and error for the script. Files: nobody has to read them for it to go on."""
    if not capture:
        yield None, None, None
        return
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write((text or "").encode())
        stdin.seek(0)
        yield stdin, stdout, stderr


def _size(stream: IO[bytes] | None) -> int:
    return 0 if stream is None else os.fstat(stream.fileno()).st_size


def _text(stream: IO[bytes] | None, size: int | None = None) -> str:
    if stream is None:
        return ""
    stream.seek(0)
    return stream.read(-1 if size is None else size).decode(errors="backslashreplace").replace(os.linesep, "\n")


@contextmanager
def _life_line() -> Iterator[int]:
    """Yield the end of a pipe for `script_process`: it ends without a byte if this process is killed."""
    if os.name != "posix":
        yield -1
        return
    reading, writing = map(_above_the_streams, os.pipe())
    try:
        yield reading
    finally:
        with suppress(OSError):
            os.write(writing, b".")
        os.close(writing)
        os.close(reading)


def _above_the_streams(descriptor: int) -> int:
    """Return a descriptor that is none of the standard streams, which a process may have been started without."""
    if descriptor > 2:
        return descriptor
    import fcntl

    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


# -- the end ---------------------------------------------------------------------------------------------------------


def end(process: subprocess.Popen[bytes]) -> None:
    """End the script and all that is left of what it started, first by SIGTERM; returns when they are gone.

    A resource tracker passes over SIGTERM and removes what the others leave in shared memory.
    """
    if os.name != "posix":
        process.kill()
        process.wait()
        return
    if process.poll() is None or _members(process.pid):
        _signal_group(process, signal.SIGTERM)
        if not _gone(process, _TERM_SECONDS):
            _signal_group(process, signal.SIGKILL)
            _gone(process, _KILL_SECONDS)
    process.wait()


def _settle(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        _gone(process, _SETTLE_SECONDS)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if os.name != "posix":
        process.send_signal(number)
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until the script and its group have ended; say whether they have within `seconds`."""
    deadline = time.monotonic() + seconds
    while process.poll() is None or _members(process.pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _members(group: int) -> bool:
    """Say whether a process of the group is alive. One that has ended and was not waited for yet is not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group that has only ended processes
        return sys.platform != "darwin"
    if not os.path.isdir("/proc/self"):
        return True
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, _, number = file.read().rpartition(b") ")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(number) == group and state not in (b"Z", b"X"):
                return True
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
