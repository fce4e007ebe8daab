"""The parent's side of `child`: the directory where children leave their reports, and the reports themselves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import child

_LARGEST = 1_000_000
"""No event is that large; whatever is was not written by `child`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback."""

    file: str
    line: int
    function: str
    source: str


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception, as far as it can be told without having it."""

    type: str
    """``"ValueError"``, ``"pkg.errors.ApiError"``."""
    message: str
    frames: tuple[Frame, ...] = ()
    """Outermost first."""
    omitted: int = 0
    """How many frames in the middle were left out."""
    name: str | None = None
    """The module, attribute or name that was missed, where the exception says so."""
    statement: str | None = None
    """The source of a bare ``assert`` that failed."""
    values: tuple[tuple[str, str], ...] = ()
    """Names in `statement` and their values, those that are builtins."""


@dataclass(frozen=True, slots=True)
class Work:
    """The user's function that a worker ran."""

    name: str
    file: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """A task's result that could not be sent to the parent."""

    of: str
    """Its type."""
    path: str
    """The path from it to the part that does not pickle: ``"['lock']"``, or empty when it is the whole."""
    type: str
    """The type of that part."""
    raised: bool
    """Whether the result is an exception that the task raised."""
    text: str
    """That exception's message."""
    part: Work | None
    """The part, if it is a function."""


@dataclass(frozen=True, slots=True)
class ChildReport:
    """One thing that went wrong in one child."""

    pid: int
    phase: str
    """``"start-up"``, ``"unpickling"``, ``"run"``, ``"result"``, ``"exit"``, or ``"crash"`` for a native stack."""
    ppid: int | None = None
    starter: int | None = None
    """The pid of the process that started it: another than `ppid` under forkserver."""
    method: str | None = None
    process: str | None = None
    """The process's name: ``"Process-1"``."""
    task: bool = False
    """With phase ``"unpickling"``: a worker that could not load a task, rather than its process object."""
    role: str | None = None
    """``"initializer"``: of an executor's worker."""
    work: Work | None = None
    time: float = 0.0
    """Seconds since the epoch."""
    raised: tuple[Raised, ...] = ()
    """The exception, then what it was raised from."""
    exit_code: int | None = None
    """Where the child itself knows it."""
    sys_path: tuple[str, ...] = ()
    """The child's, where it could not load something."""
    cwd: str | None = None
    main: str | None = None
    """The file of the child's ``__main__``."""
    result: Result | None = None
    stack: tuple[str, ...] = ()
    """What faulthandler wrote."""

    @property
    def error(self) -> Raised | None:
        """The exception itself."""
        return self.raised[0] if self.raised else None


class ReportDirectory:
    """A directory that only this user can read, for the reports of the children of one leg or of a session."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid = os.getpid()

    @classmethod
    def create(cls) -> ReportDirectory:
        """Make the directory. Raises OSError if there is no place for it."""
        directory = cls(tempfile.mkdtemp(prefix="pytest-startmethod-"))
        _compile()
        return directory

    def watch_preparation(self, original: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
        """Wrap ``spawn.get_preparation_data``: spawn and forkserver children report here."""
        return wrap_preparation_data(original, self)

    def watch_bootstrap(self, original: Callable[..., int]) -> Callable[..., int]:
        """Wrap ``BaseProcess._bootstrap``: forked children report here."""
        return child.watch_bootstrap(original, self.path)

    def read(self) -> tuple[ChildReport, ...]:
        """Return all reports, the oldest first; what cannot be read is passed over."""
        try:
            names = sorted(os.listdir(self.path))
        except OSError:
            return ()
        reports = (_read(os.path.join(self.path, name)) for name in names)
        return tuple(sorted((each for each in reports if each is not None), key=lambda each: each.time))

    def clear(self) -> None:
        """Forget the reports so far. Children that still run keep their files for a crash."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path):
                if name.endswith(".json"):
                    os.unlink(os.path.join(self.path, name))

    def remove(self) -> None:
        """Remove the directory; does nothing in a forked child."""
        if os.getpid() == self._pid:
            shutil.rmtree(self.path, ignore_errors=True)


def wrap_preparation_data(
    original: Callable[[str], dict[str, Any]], directory: ReportDirectory
) -> Callable[[str], dict[str, Any]]:
    """Wrap ``spawn.get_preparation_data`` so that spawn and forkserver children report to `directory`."""
    return child.watch_preparation(original, directory.path)


def _compile() -> None:
    """Have `child` compiled where children look for it: pytest compiles the plugin's modules elsewhere."""
    from importlib.machinery import SourceFileLoader

    try:
        SourceFileLoader("_pytest_startmethod_child", child.__file__).get_code("_pytest_startmethod_child")
    except (OSError, SyntaxError):
        return


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(path: str) -> ChildReport | None:
    try:
        if os.path.getsize(path) > _LARGEST:
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        if path.endswith(".json"):
            return report_from(json.loads(text))
        if path.endswith(".stack"):
            return _crash(path, text)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return None


def report_from(values: Mapping[str, Any]) -> ChildReport:
    """Return the report of an event. Raises ValueError, TypeError or KeyError if it is none."""
    work, result = values.get("work"), values.get("result")
    return ChildReport(
        pid=int(values["pid"]),
        phase=str(values["phase"]),
        ppid=_number(values.get("ppid")),
        starter=_number(values.get("starter")),
        method=_string(values.get("method")),
        process=_string(values.get("process")),
        task=bool(values.get("task")),
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


def raised_from(values: Mapping[str, Any]) -> Raised:
    """Return the exception that `child` made `values` of."""
    return Raised(
        type=str(values["type"]),
        message=str(values["message"]),
        frames=tuple(Frame(str(f), int(n), str(fn), str(s)) for f, n, fn, s in values.get("frames", ())),
        omitted=int(values.get("omitted", 0)),
        name=_string(values.get("name")),
        statement=_string(values.get("statement")),
        values=tuple((str(name), str(text)) for name, text in values.get("values", ())),
    )


def work_from(values: Mapping[str, Any] | None) -> Work | None:
    """Return the function that `child` made `values` of."""
    if values is None:
        return None
    return Work(str(values["name"]), _string(values.get("file")), _number(values.get("line")))


def _crash(path: str, text: str) -> ChildReport | None:
    """Return the report of a native stack: the first line says who wrote it, the rest is faulthandler's."""
    header, *stack = text.splitlines()
    if not any(stack):
        return None
    method, starter = header.split()
    return ChildReport(
        pid=int(os.path.basename(path).partition(".")[0]),
        phase="crash",
        starter=int(starter),
        method=method,
        time=os.path.getmtime(path),
        stack=tuple(stack),
    )


def _strings(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


def _string(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
