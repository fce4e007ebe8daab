"""Processes that no leg's start method has to do with: os.fork, loky, joblib, and packages that are not selected.

They are counted, so that the summary can say what was not exercised, and nothing else is done to them. A package is
looked at only if it is loaded, or while it is being loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from .._compat import multiprocessing as mp
from ..child.events import handover
from ..model.foreign import Foreign
from ..source.callers import calling_place

if TYPE_CHECKING:
    from ..activation.exchanges import Span
    from ..model.launch import Launch
    from ..model.leg_record import LegRecord


def note(record: LegRecord, kind: str, method: str, frame: FrameType | None, *, count: int = 0, tasks: int = 0) -> None:
    """Count processes or tasks that `frame` led to."""
    place = calling_place(frame)
    known = [each for each in record.foreign if (each.kind, each.method) == (kind, method)]
    same = [each for each in known if each.place == place]
    if place is None or (not same and known and not _is_users(frame)):
        same = known[-1:]  # a thread of the package's own goes on with what a line of the user's began
    if not same:
        same = [Foreign(kind, method, place)]
        record.foreign += same
    same[0].count += count
    same[0].tasks += tasks


def _is_users(frame: FrameType | None) -> bool:
    from ..source.callers import frames, owner

    return any(owner(each.f_code.co_filename) == "user" for each in frames(frame))


def note_process(record: LegRecord, process: Any, method: str, frame: FrameType | None) -> None:
    """Count a process of multiprocessing's kind that has a start method of its own: loky's."""
    module = next((cls.__module__ for cls in type(process).__mro__ if cls.__dict__.get("_start_method")), "")
    kind = "joblib" if module.startswith("joblib.") else module.partition(".")[0] or method
    note(record, kind, method.partition("_")[0], frame, count=1)


CONTEXT: Final = "context"
TORCH: Final = "torch.multiprocessing"


def through_torch(target: Any, frame: FrameType | None) -> bool:
    """Say whether torch started a process of multiprocessing's: its function as target, or on the stack."""
    if TORCH not in sys.modules:
        return False
    if (getattr(target, "__module__", None) or "").startswith(TORCH):
        return True
    for _ in range(8):
        if frame is None:
            return False
        if (frame.f_globals.get("__name__") or "").startswith(TORCH):
            return True
        frame = frame.f_back
    return False


def pinned(launches: Iterable[Launch], method: str) -> list[Foreign]:
    """Return the launches under another method than the leg's, gathered by line."""
    found: dict[object, Foreign] = {}
    for launch in launches:
        if launch.method != method:
            package = launch.method.rpartition(":")[0]
            own = package == method.rpartition(":")[0]
            kind = TORCH if launch.by_torch else CONTEXT if own else package or mp.STDLIB.name
            key = (kind, launch.method, launch.place)
            found.setdefault(key, Foreign(kind, launch.method, launch.place)).count += 1
    return list(found.values())


# -- what each kind is called, and what to do about it ---------------------------------------------------------------

_FIXES: Final = {
    "os.fork": "start the process through multiprocessing: os.fork has no other start method",
    "joblib": 'loky knows no start method; joblib.parallel_config(backend="multiprocessing") makes joblib use the '
    "leg's",
    "loky": "loky knows no start method: ProcessPoolExecutor of concurrent.futures takes the leg's",
    CONTEXT: "take the context from the mp_context fixture, or let the code accept one",
    mp.STDLIB.name: "take the context from the mp_context fixture, or let the code accept one",
    TORCH: "pass the leg's method on: torch.multiprocessing.start_processes(..., start_method=start_method)",
}


def fix(kind: str, method: str) -> str:
    """Return what to do so that the start method is exercised."""
    if kind in _FIXES:
        return _FIXES[kind]
    name = method if ":" in method else f"{kind}:{method}"
    return f'select it: @pytest.mark.startmethods("{name}"), or --start-methods={name}'


_REUSED: Final = {"joblib": "joblib's loky", "loky": "loky"}
"""Who keeps its processes from one test to the next: how many a test starts depends on those before it."""


def is_reused(kind: str) -> bool:
    """Say whether numbers of processes and tasks differ from run to run."""
    return kind in _REUSED


def told(kind: str, method: str, count: int) -> str:
    """Return what was used: ``8 processes of os.fork``, ``tasks given to loky``."""
    if kind in _REUSED:
        return f"tasks given to {_REUSED[kind]}"
    number = processes(count)
    if kind == "os.fork":
        return f"{number} of os.fork"
    return f"{number} with {method}" if kind == CONTEXT else f"{number} of {kind} with {method.rpartition(':')[2]}"


def processes(number: int) -> str:
    """Return ``1 process``, ``2 processes``."""
    return f"{number} process{'es' * (number != 1)}"


# -- watching --------------------------------------------------------------------------------------------------------

_OWN_FORKS: Final = (
    "multiprocessing",
    "multiprocess",
    "billiard",
    "subprocess",
    "loky",
    "joblib",
    "_pytest",
    "pytest_forked",
    "py",
    "xdist",
    "execnet",
    "pytest_startmethod",
)
"""Whose ``os.fork`` is not the user's: it is counted as what it is for, or a runner's."""

_watch: Watch | None = None
_registered = False
_waiting: Callable[[], None] | None = None
"""Begins to listen, at the first fork."""


class Watch:
    """What is exchanged and listened to while one leg runs."""

    def __init__(
        self,
        listening: Callable[[], LegRecord | None],
        guarded: Callable[..., Any],
        span: Span,
    ) -> None:
        self.listening = listening
        self.guarded = guarded
        self.span = span

    def begin(self) -> None:
        """Listen to what is loaded, and to what will be."""
        global _watch
        for name in _SUBJECTS:
            self.span.when_loaded(name, partial(self.guarded, self._loaded, name))
        _register()
        _watch = self

    def end(self) -> None:
        """Listen no more."""
        global _watch
        _watch = None

    def _loaded(self, name: str) -> None:
        """Listen to a module that is there now."""
        package, attribute, method, wrapper = _SUBJECTS[name]
        cls = getattr(sys.modules[name], attribute, None)
        if isinstance(cls, type):
            self.span.put(cls, method, partial(wrapper, self, package))

    def forked(self, frame: FrameType) -> None:
        """Count an ``os.fork`` of the user's."""
        name = frame.f_globals.get("__name__") or ""
        record = self.listening() if _is_users_fork(frame) else None
        if record is not None and not name.startswith(f"{record.package}."):
            note(record, "os.fork", "fork", frame, count=1)

    def process(self, package: str, process: Any, frame: FrameType) -> None:
        """Count a process of a package that is not selected."""
        record = self.listening()
        if record is not None and record.package != package:
            note(record, package, f"{package}:{mp.Package(package).process_method(process)}", frame, count=1)

    def task(self, package: str, frame: FrameType) -> None:
        """Count a task that an executor of loky's was given."""
        record = self.listening()
        if record is not None:
            note(record, package, "loky", frame, tasks=1)


def await_fork(begin: Callable[[], None]) -> Callable[[], None]:
    """Call `begin` when the user's code forks and nobody listens yet; the function returned calls that off."""
    global _waiting
    pid = os.getpid()
    _waiting = lambda: begin() if os.getpid() == pid else None  # noqa: E731
    _register()

    def undo() -> None:
        global _waiting
        _waiting = None

    return undo


def _register() -> None:
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork)  # for good: there is no way back, and it does nothing unasked
        _registered = True


def _before_fork() -> None:
    global _waiting
    if handover.forks:  # multiprocessing's: most are, and each costs it time
        handover.forks = False
        return
    frame = sys._getframe(1)
    if _waiting is not None and _watch is None and _is_users_fork(frame):
        waiting, _waiting = _waiting, None
        with suppress(Exception):
            waiting()
    if _watch is not None:
        _watch.guarded(_watch.forked, frame)


def _is_users_fork(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__") or ""
    return name.partition(".")[0] not in _OWN_FORKS


def _start_wrapper(watch: Watch, package: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def start(process: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        watch.guarded(watch.process, package, process, sys._getframe(1))
        return original(process, *args, **kwargs)

    start.__wrapped__ = original  # type: ignore[attr-defined]
    return start


def _submit_wrapper(watch: Watch, package: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(executor: Any, /, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        watch.guarded(watch.task, package, sys._getframe(1))
        return original(executor, *args, **kwargs)

    submit.__wrapped__ = original  # type: ignore[attr-defined]
    return submit


_SUBJECTS: Final[dict[str, tuple[str, str, str, Callable[[Watch, str, Callable[..., Any]], Callable[..., Any]]]]] = {
    "multiprocess.process": ("multiprocess", "BaseProcess", "start", _start_wrapper),
    "billiard.process": ("billiard", "BaseProcess", "start", _start_wrapper),
    "loky.process_executor": ("loky", "ProcessPoolExecutor", "submit", _submit_wrapper),
    "joblib.externals.loky.process_executor": ("joblib", "ProcessPoolExecutor", "submit", _submit_wrapper),
}
"""Module -> package, class, method and wrapper. loky's processes are multiprocessing's and are heard there."""
