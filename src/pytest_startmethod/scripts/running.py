"""Run a script or module under a start method, as ``python`` would, and explain why its processes failed."""

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
from ..causes import main_module
from ..launches.reports import ReportDirectory
from ..model import methods
from ..model.child_report import ChildReport
from ..model.finding import Finding, unique
from ..model.launch import Launch
from ..model.wire import Fields, Json
from . import process as script_process
from . import record

_POLL_SECONDS = 0.02
_GUARD_SECONDS = 1.0
"""How long a script may continue after a child failed without a main guard: most end by themselves."""
_SETTLE_SECONDS = 1.0
"""How long processes of the script may outlive it: a forkserver and a resource tracker take a moment to end."""
_TERM_SECONDS = 0.5
_KILL_SECONDS = 2.0
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """A finished or ended script."""

    script: str
    """Its absolute path; with ``-m`` the module's name."""
    args: tuple[str, ...]
    method: str
    returncode: int
    """Its exit status; if negative, the signal that ended it."""
    stdout: str
    """Empty unless captured."""
    stderr: str
    launches: tuple[Launch, ...] = ()
    """The processes that it started itself, in order, without those of its children."""
    findings: tuple[Finding, ...] = ()
    """Why processes did not start or failed."""
    ended: Literal["", "main guard", "time limit"] = ""
    """Why the plugin ended it, if so."""
    notes: tuple[str, ...] = ()
    """Start methods that the script set, and failures of the plugin."""
    reports: tuple[ChildReport, ...] = ()
    """What its children reported of their failures."""

    def check(self) -> ScriptRun:
        """Return the run itself; raise AssertionError with the end of its standard error if its status is not 0."""
        __tracebackhide__ = True
        if self.returncode != 0:
            raise AssertionError("\n".join([f"{self.outcome} under {self.method}", *self._tail()]))
        return self

    @property
    def outcome(self) -> str:
        """How it ended: ``"build.py exited with 1"``."""
        name = os.path.basename(self.script)
        if self.ended:
            return f"{name} was ended ({self.ended})"
        if self.returncode < 0:
            return f"{name} was ended by {_signal_name(-self.returncode)}"
        return f"{name} exited with {self.returncode}"

    def _tail(self) -> list[str]:
        lines = self.stderr.rstrip().splitlines()
        return [*(["..."] if len(lines) > _TAIL_LINES else []), *lines[-_TAIL_LINES:]]

    def as_dict(self) -> Json:
        """Return the run as builtins for JSON."""
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
    input: str | None = None,  # noqa: A002 - as in subprocess.run
    capture: bool = True,
    leg: str = "script",
) -> ScriptRun:
    """Run `script` with `args` in a process of its own, with `method` as the default start method.

    ``run("-m", "package.module", ...)`` runs a module as ``python -m`` does. `timeout` is in seconds, for the whole
    script. `cwd`, `env` and `input` are those of `subprocess.run`; without `input` standard input is empty. Without
    `capture` the script uses the caller's three streams and receives Ctrl-C. None of its processes outlives the call.

    Raises FileNotFoundError if there is no such script, ValueError if this platform lacks the method.
    """
    name = os.fspath(script)
    if name != "-m" and not os.path.isfile(os.path.join(os.path.abspath(cwd or os.curdir), name)):
        raise FileNotFoundError(f"no such script: {name}")
    if method not in methods.available():
        raise ValueError(f"unknown start method {method!r} (choose from {', '.join(sorted(methods.available()))})")
    directory = ReportDirectory.create()
    words = [sys.executable, *cpython.interpreter_flags(), script_process.__file__, directory.path]
    try:
        with _streams(input, capture) as streams, _life_line() as life, _Interrupts(noted=not capture) as interrupts:
            keywords: dict[str, Any] = {"start_new_session": True, "pass_fds": (life,)} if life >= 0 else {}
            words += [str(life), method, name, *map(str, args)]
            process = subprocess.Popen(words, **keywords, **streams, cwd=cwd, env=env)
            try:
                ended = _watch(process, directory, timeout, interrupts)
                size = _size(streams["stderr"])  # leave out what its processes print while being ended
                if not ended and os.name == "posix":
                    _gone(process, _SETTLE_SECONDS)
            finally:
                end(process)
            out, err = _text(streams["stdout"]), _text(streams["stderr"], size if ended else None)
        reports, log = directory.read(), script_process.read_log(directory.path)
    finally:
        for each in script_process.temporary_directories(directory.path):
            shutil.rmtree(each, ignore_errors=True)
        directory.remove()
    path = args[0] if name == "-m" else os.path.join(os.path.abspath(cwd or os.curdir), name)
    rest = tuple(map(str, args[1:] if name == "-m" else args))
    launches, findings, notes = _launches(log, leg), _findings(log, reports), _notes(log)
    return ScriptRun(path, rest, method, process.returncode, out, err, launches, findings, ended, notes, reports)


class _Interrupts:
    """Count Ctrl-C instead of raising KeyboardInterrupt, which could come before the script has started.

    The second one raises. Does nothing without `noted`, or if the handler is not Python's own.
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
    process: subprocess.Popen[bytes], directory: ReportDirectory, timeout: float | None, interrupts: _Interrupts
) -> Literal["", "main guard", "time limit"]:
    """Wait for the script; return why it must be ended, if it must."""
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
            # A terminal sends it to the processes of its foreground group; the script is in a session of its own.
            interrupted = True
            _signal_group(process, signal.SIGINT)
        now = time.monotonic()
        if timeout is not None and now - start > timeout:
            return "time limit"
        files = known
        with suppress(OSError):
            files = sum(name.endswith(".json") for name in os.listdir(directory.path))
        if unguarded is None and files != known:
            known = files
            if main_module.find(directory.read(), "") is not None:
                unguarded = now
        if unguarded is not None and now - unguarded > _GUARD_SECONDS:
            return "main guard"


# -- the result --------------------------------------------------------------------------------------------------------


def _launches(log: Sequence[Fields], leg: str) -> tuple[Launch, ...]:
    launches: dict[int, Launch] = {}
    for entry in log:
        with suppress(KeyError, TypeError, ValueError):
            if "launch" in entry:
                launches[entry["launch"]] = record.launch_from(entry, leg)
            elif "exit" in entry:
                launches[entry["exit"]].exit_code = entry["exit_code"]
    return tuple(launches.values())


def _findings(log: Sequence[Fields], reports: Sequence[ChildReport]) -> tuple[Finding, ...]:
    """Return the findings of the script's process; if it was killed, those from its children's reports."""
    found = [Finding.from_dict(each) for entry in log if "launch" not in entry for each in entry.get("findings", ())]
    if not any("findings" in entry and "launch" not in entry for entry in log):
        for entry in log:
            if "main" in entry:
                found += main_module.findings(reports, (), entry["main"], entry["module"])
        found += [Finding.from_dict(each) for entry in log for each in entry.get("findings", ())]
    return unique(found)


def _notes(log: Sequence[Fields]) -> tuple[str, ...]:
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
def _streams(text: str | None, capture: bool) -> Iterator[dict[str, Any]]:
    """Yield the script's standard streams: files, so that it never blocks on a full pipe."""
    if not capture:
        yield dict.fromkeys(("stdin", "stdout", "stderr"))
        return
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write((text or "").encode())
        stdin.seek(0)
        yield {"stdin": stdin, "stdout": stdout, "stderr": stderr}


def _size(stream: IO[bytes] | None) -> int:
    return 0 if stream is None else os.fstat(stream.fileno()).st_size


def _text(stream: IO[bytes] | None, size: int | None = None) -> str:
    if stream is None:
        return ""
    stream.seek(0)
    return stream.read(-1 if size is None else size).decode(errors="backslashreplace").replace(os.linesep, "\n")


@contextmanager
def _life_line() -> Iterator[int]:
    """Yield the reading end of a pipe for the script's process; end of file without a byte: this process was killed."""
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
    """Return a descriptor above those of the standard streams, which may be closed in this process."""
    if descriptor > 2:
        return descriptor
    import fcntl

    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


# -- the end ---------------------------------------------------------------------------------------------------------


def end(process: subprocess.Popen[bytes]) -> None:
    """End the script and all its processes, first by SIGTERM, and wait for them.

    The resource tracker ignores SIGTERM, and removes shared memory that the others leave behind.
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


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if os.name != "posix":
        process.send_signal(number)
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return whether the script and its group end within `seconds`."""
    deadline = time.monotonic() + seconds
    while process.poll() is None or _members(process.pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _members(group: int) -> bool:
    """Return whether a process of the group is alive and no zombie."""
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
