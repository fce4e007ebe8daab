"""What the parent does for each process that it forks, if it is one like those before.

After a fork each page that is written to costs a fault, in the parent and in the child, and a reference that is counted
is a write. So all of this stands in one file, whose functions lie side by side; what can be made before is made before,
and what is kept for the next child costs nothing. What is like nothing before goes the long way (`launches`), and a
child finds all that it needs in a `Line`, which `child` takes over.
"""

from __future__ import annotations

import multiprocessing.context
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any

from .._compat.cpython import PROCESS_FIELDS, threads_beside_main
from ..child import reporter
from ..child.reporter import handover
from ..source.callers import owner

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from .recorder import LegRecord, Repeated

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
_FIELDS = len(PROCESS_FIELDS)
_KEPT_LINES = 8
"""So many lines stay open for children that come later; a process may open a few hundred files in all."""


class Work:
    """What a process runs: a function found by its name, which closes over nothing, with values that hold no others.

    The class is multiprocessing's own, and the object has nothing of the user's.
    """

    __slots__ = ("by_default", "called", "caller", "cls", "code", "name", "names")

    def __init__(self, cls: type[BaseProcess], function: FunctionType, called: str) -> None:
        self.cls = cls
        self.by_default: bool = cls._start_method is None  # type: ignore[attr-defined]
        """Whether the default context says how it starts."""
        self.code = function.__code__
        self.names: dict[str, Any] = getattr(sys.modules.get(function.__module__), "__dict__", {})
        """Those of its module, and its own `name` there."""
        self.name = function.__qualname__
        self.called = called
        """How reports call it."""
        self.caller: CodeType | None = None
        """Code of the user's that started it."""


class Starts:
    """The starts of legs under fork: those like one before, of which nothing was to be said, cost little."""

    __slots__ = ("contexts", "failed", "fixtures", "known", "pid", "record", "repeated", "troubled")

    def __init__(
        self,
        fixtures: list[Any],
        repeated: type[Repeated],
        failed: Callable[[LegRecord, Repeated, BaseException], None],
        troubled: Callable[[Exception, Callable[..., Any]], None],
    ) -> None:
        self.contexts: dict[str, Any] = multiprocessing.context._default_context.__dict__
        self.fixtures = fixtures
        """Those that are being set up, whose starts are none of these."""
        self.repeated = repeated
        self.failed = failed
        """Hears of a start that raised, and `troubled` of what our own code raised."""
        self.troubled = troubled
        self.record: LegRecord | None = None
        """Of the leg under fork that runs."""
        self.known: dict[int, Work] = {}
        """By identity of the function."""
        self.pid = os.getpid()

    def know(self, process: BaseProcess, called: str) -> None:
        """Know what `process` runs, a child of multiprocessing's that forks and of which nothing is to be said."""
        cls, target = type(process), process.__dict__.get("_target")
        if cls.__module__ == "multiprocessing.context" and type(target) is FunctionType and target.__closure__ is None:
            self.known[id(target)] = Work(cls, target, called)


def watch_start(
    original: Callable[[BaseProcess], None], starts: Starts, start_anew: Callable[[BaseProcess, FrameType], None]
) -> Callable[[BaseProcess], None]:
    """Wrap ``BaseProcess.start``: what is none of `starts` goes to `start_anew`, with the frame that starts it."""

    def start(process: BaseProcess) -> None:
        __tracebackhide__ = True
        caller = sys._getframe(1)
        repeated = None
        record = starts.record
        if record is not None:
            try:
                own = process.__dict__
                target = own.get("_target")
                work = starts.known.get(id(target))
                if (
                    work is not None
                    and type(target) is FunctionType
                    and target.__code__ is work.code
                    and work.names.get(work.name) is target
                    and type(process) is work.cls
                    and len(own) == _FIELDS
                    and own["_parent_pid"] == starts.pid  # what a forked child makes is none of ours
                    and not starts.fixtures
                ):
                    repeated = _repeat(starts, record, work, process, own, caller)
            except Exception as trouble:
                starts.troubled(trouble, _repeat)
        if repeated is None or record is None:
            return start_anew(process, caller)
        try:
            original(process)
        except BaseException as error:
            try:
                starts.failed(record, repeated, error)
            except Exception as trouble:
                starts.troubled(trouble, starts.failed)
            raise
        repeated.held = own["_popen"]
        return None

    start.__wrapped__ = original  # type: ignore[attr-defined]
    return start


def _repeat(
    starts: Starts, record: LegRecord, work: Work, process: BaseProcess, own: dict[str, Any], caller: FrameType
) -> Repeated | None:
    """Record a process that starts `work` as one before did, from a line of the user's and from the main thread."""
    args, kwargs, code = own["_args"], own["_kwargs"], caller.f_code
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) not in _PLAIN:
            return None
    if work.by_default:
        fixed = starts.contexts["_actual_context"]
        if fixed is not None and fixed is not starts.contexts["_default_context"]:  # a first use fixes the latter
            return None
    if work.caller is not code:
        if owner(code.co_filename) != "user":
            return None
        work.caller = code
    threads = other_threads() if threads_beside_main() else ()
    if threads and threading.current_thread() is not threading.main_thread():
        return None
    repeated = starts.repeated(process, starts.repeated.gone)
    repeated.work, repeated.args, repeated.kwargs, repeated.threads = work, args, kwargs, threads
    repeated.code, repeated.line = code, caller.f_lineno
    repeated.held = repeated.pid = repeated.ended = repeated.launch = None
    record.repeated.append(repeated)
    return repeated


def other_threads() -> tuple[str, ...]:
    """Return the names of the threads that run beside this one."""
    return tuple(each.name for each in threading.enumerate() if each is not threading.current_thread())


def watch_launch(original: Callable[[Any, Any], None], lines: Lines, package: str) -> Callable[[Any, Any], None]:
    """Wrap ``popen_fork.Popen._launch``, which forks and has the child call ``BaseProcess._bootstrap``."""

    def _launch(popen: Any, process: Any) -> None:
        line: Line | None = None
        try:
            own = process.__dict__
            line = lines.take()
            facts, target = line.facts, own["_target"]
            facts["package"], facts["process"] = package, own["_name"]
            line.identity, line.before = own["_identity"], own.get("run")
            cls, code = type(process), target.__code__ if type(target) is FunctionType else None
            if line.cls is not cls or line.code is not code:
                line.cls, line.code = cls, code
                line.is_worker, line.runs = reporter.is_worker(target), reporter.can_be_watched(process)
            handover.line, handover.forks = line, True
        except Exception:  # then the child makes its own
            handover.line = None
        try:
            original(popen, process)  # does not return in the child
            if line is not None:
                line.pid = popen.pid
        finally:
            if line is not None and (line.pid is None or not line.kept):
                lines.part_with(line)

    return _launch


class Line:
    """What one child at a time takes over (`child._begin_forked`): its life line, a file for its stacks, and facts."""

    __slots__ = (
        "before",
        "cls",
        "code",
        "facts",
        "hold",
        "identity",
        "is_worker",
        "kept",
        "life",
        "path",
        "pid",
        "process",
        "returned",
        "run",
        "runs",
        "stack",
        "steps",
    )

    identity: tuple[int, ...]
    """That of the process object, by which the child knows that the line is its own; no other one has this tuple."""
    before: Any
    """What the process object has as ``run`` of its own."""
    runs: bool
    """Whether what it runs can be watched."""
    is_worker: bool
    """Whether the child is a worker of a pool or an executor."""
    pid: int | None
    """The child's, which may be over."""

    def __init__(self, path: str, directory: str, *, kept: bool) -> None:
        self.path = path
        self.kept = kept
        """Whether it is to serve other children after this one."""
        self.facts: dict[str, Any] = {
            "directory": directory,
            "method": "fork",
            "starter": os.getpid(),
            "package": None,
            "process": None,
        }
        self.run = reporter.unseen_run(self)
        self.returned = False
        """Whether `run` has, in the child."""
        self.process: Any = None
        """The process object, in the child."""
        self.cls: type[Any] | None = None
        """The class of the child's process object and the code of its target: what `is_worker` and `runs` hold for."""
        self.code: CodeType | None = None
        self.life: int | None = None
        self.hold: Callable[[int], object] | None = None
        self.stack: int | None = None
        steps: list[Callable[[], object]] = []
        with suppress(OSError):
            self.life = reporter.open_life_line(directory)
            self.hold = None if self.life is None else reporter.hold_of(self.life)
        if reporter.writing_end is not None and reporter.writing_end[1] == os.getpid():
            steps.append(partial(os.close, reporter.writing_end[0]))
        if reporter.room_for(1_000_000):
            with suppress(OSError):
                self.stack = reporter.open_stack(path, "fork", os.getpid())
                steps += reporter.writes_of(self.stack)
        self.steps = tuple(steps)

    def is_written(self) -> bool:
        """Say whether the child has written stacks: parent and child have one position in the file."""
        return self.stack is not None and os.lseek(self.stack, 0, os.SEEK_CUR) > reporter.HEADER

    def close(self) -> None:
        """Close what the parent has of it."""
        for descriptor in (self.life, self.stack):
            if descriptor is not None:
                os.close(descriptor)


_numbers = count()


class Lines:
    """The lines of the children that one process forks; a few serve one child after the other."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.used: list[Line] = []
        """Those that are kept and that a child has, which may be over."""
        self._spare: list[Line] = []
        self._pid = os.getpid()

    def take(self) -> Line:
        """Return a line for the child that is about to be forked."""
        pid = os.getpid()
        if pid == self._pid and self._spare:  # a child has copies of its parent's
            line = self._spare.pop()
        else:
            reporter.take_over()
            kept = pid == self._pid and len(self.used) < _KEPT_LINES
            line = Line(f"{self.directory}{os.sep}{pid}-{next(_numbers)}", self.directory, kept=kept)
        line.pid = None
        if line.kept:
            self.used.append(line)
        return line

    def part_with(self, line: Line) -> None:
        """Leave a line to the child alone, whose pid is the name of the file from now on; without one there is none."""
        if line.kept:
            self.used.remove(line)
        with suppress(OSError):
            line.close()
            if line.stack is None:
                return
            if line.pid is None:
                os.unlink(line.path)
            else:
                os.rename(line.path, f"{self.directory}{os.sep}{line.pid}.stack")

    def of(self, pid: int) -> Line | None:
        """Return the line of a child that still has one, or None."""
        for line in self.used:
            if line.pid == pid:
                return line
        return None

    def free(self, line: Line) -> None:
        """Let the line of a child that is over serve another one, or forget what was written."""
        self.used.remove(line)
        if line.is_written():
            line.close()
            os.unlink(line.path)
        else:
            self._spare.append(line)

    def close(self) -> None:
        """Close all of them."""
        for line in (*self._spare, *self.used):
            line.close()
        self._spare.clear()
        self.used.clear()
