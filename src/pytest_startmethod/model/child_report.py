"""What a child reported about itself: an exception, a result that could not be sent, a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback."""

    file: str
    line: int
    function: str
    source: str


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception of another process, as far as it was reported."""

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

    def __str__(self) -> str:
        """Return type and message in one line."""
        text = " ".join(self.message.split())
        return f"{self.type}: {text}" if text else self.type


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
    """The type of the result."""
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
    """``"start-up"``, ``"unpickling"``, ``"run"``, ``"result"``, ``"exit"``; for a stack ``"crash"`` or ``"stack"``."""
    starter: int | None = None
    """The pid of the process that started it; under forkserver that is not its parent."""
    method: str | None = None
    process: str | None = None
    """The process's name: ``"Process-1"``."""
    task: bool = False
    """With phase ``"unpickling"``: a worker that could not load a task, rather than its process object."""
    job: int | None = None
    """The number of the Pool's job that the task belongs to."""
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


@dataclass(frozen=True, slots=True)
class Unreturned:
    """A message of a child that the parent could not load."""

    raised: Raised
    receiver: Literal["Pool", "ProcessPoolExecutor"] | None
    """Which pool's thread read it; None: the user's code did."""
