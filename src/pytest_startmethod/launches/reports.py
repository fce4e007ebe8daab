"""The parent's side of `child`: the directory for the children's reports, and reading them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import marshal
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from os import getpid
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from .._compat import cpython
from .._compat.signals import OwnCode
from ..child import descriptors, events, privates, reporter
from ..child.descriptors import Descriptor
from ..child.events import exception_as_dict, handover
from ..model.child_report import ChildReport, Frame, Raised, Result, Unreturned, Work
from ..pickling.copies import processes_are_scarce
from . import lines

if TYPE_CHECKING:
    from .._compat.multiprocessing import Package
    from ..activation.exchanges import Span
    from ..model.wire import Fields, Json

_LARGEST = 1_000_000
"""Maximum size of an event. Larger files were not written by `child`."""
_READING = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
"""Flags that guard against what a child may have put in place of a file, such as a FIFO or a link to a device."""


class _InParent:
    """A class attribute that is `function` in this process and `original` in its forks."""

    __slots__ = ("_function", "_original", "_pid")

    def __init__(self, function: Callable[..., object], original: Callable[..., object]) -> None:
        self._function = function
        self._original = original
        self._pid = getpid()

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., object]:
        return self._function if getpid() == self._pid else self._original


class ReportDirectory:
    """A directory, readable only by this user, for the reports of the children of one leg or of a session."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.unreturned: list[Unreturned] = []
        self._lines = lines.Lines(path)
        self._left: list[str] = []
        """Names left in the directory by the last `clear`, if none of them needs another look."""
        self._pid = getpid()
        self._is_awaited = False
        """Whether a shell waits for this process to end."""

    @classmethod
    def create(cls, parent: str | None = None) -> ReportDirectory:
        """Create the directory, in `parent` if given. Raises OSError if that fails."""
        # named like multiprocessing's own, for which it may serve, so that no path in it is longer than the user's
        directory = cls(tempfile.mkdtemp(prefix="pymp-", dir=parent))
        with contextlib.suppress(OSError, SyntaxError):  # children then compile the code themselves
            _write_code(compiled(reporter.__file__), directory.path)
        return directory

    def hold_life_line(self) -> None:
        """Make every child that reports here end with this process, however it ends, and remove the directory then.

        Where processes are scarce, the directory stays if this process is killed. Raises OSError where there is no FIFO
        or no shell; what was set up before the error stays in effect.
        """
        if sys.platform != "linux":
            return
        paths = [os.path.join(self.path, name) for name in (reporter.LIFE_LINE, _PARENT_LINE)]
        ends: list[Descriptor] = []
        for path in paths:
            if not os.path.exists(path):
                os.mkfifo(path, 0o600)
            # O_RDWR: opening for writing only would wait for a reader
            ends.append(Descriptor(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)))
            handover.writing_ends, handover.parent = tuple(ends), getpid()
        if not self._is_awaited and not processes_are_scarce():
            _end_with_this_process(self.path, *paths)
            self._is_awaited = True

    def prepare(self) -> None:
        """Reopen what forked children need and a test may have closed, before a test can count its descriptors."""
        lost = not all(each.is_open() for each in handover.writing_ends)
        if lost and handover.parent == self._pid == getpid():
            handover.close_ends()
            with contextlib.suppress(OSError):
                self.hold_life_line()
        with contextlib.suppress(OSError):
            self._lines.prepare()

    def within(self) -> ReportDirectory | None:
        """Return a subdirectory for children that must be allowed to outlive this process."""
        try:
            path = tempfile.mkdtemp(dir=self.path)
            with contextlib.suppress(OSError), open(os.path.join(self.path, reporter.COMPILED), "rb") as file:
                _write_code(file.read(), path)
        except OSError:
            return None
        return ReportDirectory(path)

    def watch_preparation(self, original: Callable[[str], Json], package: str) -> Callable[[str], Json]:
        """Wrap ``spawn.get_preparation_data`` so that spawn and forkserver children report here."""
        watched = reporter.watch_preparation(original, self.path, package)

        def get_preparation_data(name: str) -> Json:
            with cpython.frameless, OwnCode():
                return watched(name)

        return get_preparation_data

    def watch_launch(
        self, original: Callable[[object, object], None], package: str
    ) -> Callable[[object, object], None]:
        """Wrap ``popen_fork.Popen._launch`` so that forked children report here."""
        return lines.watch_launch(original, self._lines, package)

    def watch_loads(self, original: Callable[..., object]) -> _InParent:
        """Wrap ``ForkingPickler.loads`` to record what the parent fails to unpickle."""

        def loads(*args: object, **kwargs: object) -> object:
            __tracebackhide__ = True
            with cpython.frameless:
                try:
                    return original(*args, **kwargs)
                except Exception as error:
                    with OwnCode(), contextlib.suppress(Exception):
                        self._not_loaded(error, sys._getframe(1))
                    raise
                finally:
                    # Tracebacks that were sent keep this frame: before 3.12.3, collecting it with the view it was given
                    # crashes (gh-77894), and no caller holds that view.
                    del args, kwargs

        return _InParent(loads, original)  # keeps our frame out of a child's traceback

    def listen(self, span: Span, package: Package) -> None:
        """Wrap the functions through which `package` starts children and receives data, for a span."""
        self.listen_to_starts(span, package)
        receive = functools.partial(self._listen_to_receiving, span, package)
        span.when_loaded(f"{package.name}.connection", receive)

    def _listen_to_receiving(self, span: Span, package: Package) -> None:
        span.put(package.pickler_class, "loads", self.watch_loads)

    def listen_to_starts(self, span: Span, package: Package) -> None:
        """Wrap the functions through which `package` starts children, for a span."""
        watch_bootstrap = functools.partial(reporter.watch_bootstrap, directory=self.path, package=package.name)
        span.put(package.process_class, "_bootstrap", watch_bootstrap)
        if hasattr(os, "fork"):
            span.put(package.forking_popen_class, "_launch", functools.partial(self.watch_launch, package=package.name))
        watch_preparation = functools.partial(self.watch_preparation, package=package.name)
        span.put(package.spawn, "get_preparation_data", watch_preparation)

    def _not_loaded(self, error: Exception, frame: FrameType | None) -> None:
        if getpid() == self._pid and len(self.unreturned) < 100:
            raised = raised_from(exception_as_dict(error))
            frames = tuple(each for each in raised.frames if each.file != __file__)
            self.unreturned.append(Unreturned(replace(raised, frames=frames), cpython.receiver(frame)))

    def _stack_of(self, pid: int) -> str:
        path = os.path.join(self.path, f"{pid}.stack")
        line = self._lines.of(pid)  # not used by the child if two threads forked at the same time
        return path if line is None or os.path.exists(path) else line.path

    def listens(self, pid: int) -> bool:
        """Return whether the stack signal makes the child write its stacks rather than killing it."""
        return os.path.exists(self._stack_of(pid)) and cpython.catches(pid, reporter.STACK_SIGNAL or 0)

    def stack_lines(self, pid: int) -> list[str]:
        """Return faulthandler's output in the child."""
        return (_text(self._stack_of(pid)) or "").splitlines()[1:]

    def read(self) -> tuple[ChildReport, ...]:
        """Return all readable reports, oldest first."""
        try:
            names = sorted(os.listdir(self.path))
        except OSError:
            return ()
        reports = [_read_event(os.path.join(self.path, name)) for name in names if name.endswith(".json")]
        reports += [_read_stack(os.path.join(self.path, name), pid) for name in names if (pid := _pid_in(name))]
        reports += [_read_stack(line.path, line.pid) for line in self._lines.used if line.pid is not None]
        return tuple(sorted((each for each in reports if each is not None), key=lambda each: each.time))

    def replayed(self) -> list[Json]:
        """Return what the children of an experiment applied: path, and the error or None."""
        outcomes: list[Json] = []
        with contextlib.suppress(OSError, ValueError, KeyError):
            for name in sorted(os.listdir(self.path)):
                if name.endswith(f".{reporter.REPLAYED}"):
                    outcomes += json.JSONDecoder().decode(_text(os.path.join(self.path, name)) or "")["outcomes"]
        return outcomes

    def clear(self) -> None:
        """Discard the reports so far. Children still running keep their stack files."""
        for line in tuple(self._lines.used):
            if line.pid is not None and (line.is_written() or not cpython.is_running(line.pid)):
                with contextlib.suppress(OSError):
                    self._lines.free(line)
        self.unreturned.clear()
        try:
            names = os.listdir(self.path)
        except OSError:
            return
        if names == self._left:
            return
        self._left = []
        stays = True
        for name in names:
            path = os.path.join(self.path, name)
            pid = _pid_in(name)
            if name.endswith((".json", reporter.REPLAYED)) or (
                pid and (not cpython.is_running(pid) or _read_stack(path, pid))
            ):
                with contextlib.suppress(OSError):
                    os.unlink(path)
                stays = False
            stays = stays and not pid
        if stays:
            self._left = names

    def remove(self) -> None:
        """Remove the directory. Does nothing in a forked child."""
        if getpid() != self._pid:
            return
        self._lines.close()
        held = os.path.exists(os.path.join(self.path, reporter.LIFE_LINE))
        shutil.rmtree(self.path, ignore_errors=True)
        if held:
            handover.close_ends()
            handover.writing_ends = ()


_PARENT_LINE = "parent"
"""Name of a FIFO in the directory. Its only writer is the parent, so the shell reads its end when the parent ends."""
# The shell opens the FIFOs before the parent carries on: opening one after its last writer is gone would block forever.
# User code may close every descriptor while the parent lives. So the shell also writes to the life line, which ends the
# children when its last writer closes it, and waits for the parent itself, whose memory (`exe`) goes before its files.
# The directory is renamed first: a child that is still starting finds all of it or, like its parent, none.
_WAIT_AND_REMOVE = """exec 3<> "$2" 4< "$3"; (
read -r line <&4
while [ -d "$1" ] && if [ -e /proc/self ]; then [ -e "/proc/$4/exe" ]; else kill -0 "$4"; fi; do sleep 1; done
exec 3>&-
mv "$1" "$1-"
rm -rf "$1-" "$1"
) </dev/null >/dev/null 2>&1 &"""


def _end_with_this_process(directory: str, life_line: str, parent_line: str) -> None:
    """Start a detached shell that closes `life_line` and removes `directory` once this process has ended.

    Raises OSError if the shell or its process cannot be started.
    """
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    command = ["sh", "-c", _WAIT_AND_REMOVE, "sh", directory, life_line, parent_line, str(getpid())]
    cpython.wait_for(os.posix_spawn("/bin/sh", command, {}, file_actions=null, setsid=True))


_BESIDE = {reporter.__file__: (privates, descriptors, events), events.__file__: (privates,)}
"""The modules of `child` that a module imports from its own package, in import order."""
_BUNDLE = """
import sys
names, made, package = globals(), [], "_pytest_startmethod_child"
def load(name, file, code, names):
    names.update(__package__=package, __spec__=type(sys.__spec__)(f"{package}.{name}", None), __file__=file)
    exec(code, names)
try:
    for name, file, code in "beside":
        module = type(sys)(f"{package}.{name}")
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        load(name, file, code, module.__dict__)
    load(*"itself", names)
finally:
    for each in made:
        sys.modules.pop(each, None)
"""


def _write_code(code: bytes, directory: str) -> None:
    """Write the code that children run. Raises OSError, and then leaves no part of it on a full disk."""
    path = os.path.join(directory, reporter.COMPILED)
    try:
        with open(path, "wb") as file:
            file.write(code)
    except OSError:
        os.unlink(path)
        raise


@functools.lru_cache
def compiled(file: str) -> bytes:
    """Return the code of a module of `child` and of those it imports, in the format of a ``.pyc`` file (PEP 552).

    Children may not find a cached one: pytest writes the plugin's modules elsewhere, and test environments often set
    ``PYTHONDONTWRITEBYTECODE``. Raises OSError or SyntaxError.
    """
    code = _code(file)[2]
    beside = _BESIDE.get(file)
    if beside is not None:
        parts = {"beside": tuple(_code(each.__file__ or "") for each in beside), "itself": _code(file)}
        bundle = compile(_BUNDLE, file, "exec", dont_inherit=True)
        code = bundle.replace(
            co_consts=tuple(parts.get(each, each) if type(each) is str else each for each in bundle.co_consts)
        )
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def _code(file: str) -> tuple[str, str, CodeType]:
    name = os.path.basename(file).partition(".")[0]
    code: CodeType = SourceFileLoader(name, file).get_code(name)  # type: ignore[assignment]
    return name, file, code


# -- reading ---------------------------------------------------------------------------------------------------------


def _pid_in(name: str) -> int:
    """Return the pid in the name of a stack file, or 0 for other files."""
    pid, _, kind = name.partition(".")
    return int(pid) if kind == "stack" and pid.isdecimal() else 0


def _text(path: str) -> str | None:
    """Return the content of a regular file of reasonable size, else None. Avoids `open`, which the test may patch."""
    try:
        descriptor = os.open(path, _READING)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            return None
        parts = []
        while part := os.read(descriptor, _LARGEST):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _read_event(path: str) -> ChildReport | None:
    try:
        return report_from(json.JSONDecoder().decode(_text(path) or ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _read_stack(path: str, pid: int) -> ChildReport | None:
    """Return the report of a stack file: the first line identifies the child, the rest is faulthandler's output."""
    try:
        header, *stack = (_text(path) or "").splitlines()
        if not any(stack):
            return None
        method, starter = header.split()
        fatal = any(line.startswith(("Fatal Python error", "Windows fatal exception")) for line in stack)
        return ChildReport(
            pid=pid,
            phase="crash" if fatal else "stack",
            starter=int(starter),
            method=method,
            time=os.path.getmtime(path),
            stack=tuple(stack),
        )
    except (OSError, ValueError):
        return None


def report_from(values: Fields) -> ChildReport:
    """Return the report of an event. Raises ValueError, TypeError or KeyError if it is not one."""
    work, result = values.get("work"), values.get("result")
    return ChildReport(
        pid=int(values["pid"]),
        phase=str(values["phase"]),
        starter=_number(values.get("starter")),
        method=_string(values.get("method")),
        process=_string(values.get("process")),
        task=bool(values.get("task")),
        job=_number(values.get("job")),
        role=_string(values.get("role")),
        work=work_from(work),
        time=float(values.get("time", 0.0)),
        raised=tuple(map(raised_from, values.get("raised", ()))),
        exit_code=_number(values.get("exit_code")),
        sys_path=_strings(values.get("sys_path", ())),
        cwd=_string(values.get("cwd")),
        main=_string(values.get("main")),
        result=None
        if result is None
        else Result(
            of=str(result["of"]),
            path=str(result["path"]),
            type=str(result["type"]),
            raised=bool(result["raised"]),
            text=str(result.get("text", "")),
            part=work_from(result.get("part")),
        ),
    )


def raised_from(values: Fields) -> Raised:
    """Rebuild an exception from the dictionary made by `child`."""
    return Raised(
        type=str(values["type"]),
        message=str(values["message"]),
        frames=tuple(Frame(str(f), int(n), str(fn), str(s)) for f, n, fn, s in values.get("frames", ())),
        omitted=int(values.get("omitted", 0)),
        name=_string(values.get("name")),
        statement=_string(values.get("statement")),
        values=tuple((str(name), str(text)) for name, text in values.get("values", ())),
    )


def work_from(values: Mapping[str, object] | None) -> Work | None:
    """Rebuild a function's description from the dictionary made by `child`."""
    if values is None:
        return None
    return Work(str(values["name"]), _string(values.get("file")), _number(values.get("line")))


def _strings(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


def _string(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
