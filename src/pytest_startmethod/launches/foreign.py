"""Processes started outside the leg's start method: os.fork, loky, joblib, unselected backends.

They are only counted, so that the summary can say what was not exercised. Wrappers are installed only in packages that
are loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial, wraps
from os import getpid
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from .._compat import cpython
from .._compat import multiprocessing as mp
from .._compat.signals import OwnCode
from ..child.events import handover
from ..model.foreign import Foreign
from ..source.callers import calling_place

if TYPE_CHECKING:
    from ..activation.exchanges import Span
    from ..model.launch import Launch
    from ..model.leg_record import LegRecord


def note(record: LegRecord, kind: str, method: str, frame: FrameType | None, *, count: int = 0, tasks: int = 0) -> None:
    """Count processes or tasks started by `frame`."""
    place = calling_place(frame)
    known = [each for each in record.foreign if (each.kind, each.method) == (kind, method)]
    same = [each for each in known if each.place == place]
    if place is None or (not same and known and not _is_users(frame)):
        same = known[-1:]  # a thread of the package carries on work begun on a user's line
    if not same:
        same = [Foreign(kind, method, place)]
        record.foreign += same
    same[0].count += count
    same[0].tasks += tasks


def _is_users(frame: FrameType | None) -> bool:
    from ..source.callers import frames, owner

    return any(owner(each.f_code.co_filename) == "user" for each in frames(frame))


def note_process(record: LegRecord, process: object, method: str, frame: FrameType | None) -> None:
    """Count a multiprocessing process whose class has its own start method, such as loky's."""
    module = next((cls.__module__ for cls in type(process).__mro__ if cls.__dict__.get("_start_method")), "")
    kind = "joblib" if module.startswith("joblib.") else module.partition(".")[0] or method
    note(record, kind, method.partition("_")[0], frame, count=1)


CONTEXT: Final = "context"
TORCH: Final = "torch.multiprocessing"


def through_torch(target: object, frame: FrameType | None) -> bool:
    """Return whether torch started a multiprocessing process: its function is the target or on the stack."""
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
    """Return the launches under a method other than the leg's, grouped by line."""
    found: dict[object, Foreign] = {}
    for launch in launches:
        if launch.method != method:
            package = launch.method.rpartition(":")[0]
            own = package == method.rpartition(":")[0]
            kind = TORCH if launch.by_torch else CONTEXT if own else package or mp.STDLIB.name
            key = (kind, launch.method, launch.place)
            found.setdefault(key, Foreign(kind, launch.method, launch.place)).count += 1
    return list(found.values())


# -- names and fixes -------------------------------------------------------------------------------------------------

_FIXES: Final = {
    "os.fork": "start the process through multiprocessing: os.fork has no other start method",
    "joblib": 'loky knows no start method; joblib.parallel_config(backend="multiprocessing") makes joblib use the '
    "leg's",
    "loky": "loky knows no start method: ProcessPoolExecutor of concurrent.futures takes the leg's",
    CONTEXT: "take the context from the mp_context fixture, or let the code accept one",
    mp.STDLIB.name: "take the context from the mp_context fixture, or let the code accept one",
    TORCH: "pass the leg's method on: torch.multiprocessing.start_processes(..., start_method=start_method)",
}


def fix(kind: str) -> str:
    """Return how to make these processes use the start method."""
    names = f'"{kind}:fork", "{kind}:spawn"'
    return _FIXES.get(kind, f"{kind} has start methods of its own: @pytest.mark.startmethods({names})")


_REUSED: Final = {"joblib": "joblib's loky", "loky": "loky"}
"""Packages that reuse processes between tests, so that the number a test starts depends on earlier tests."""


def is_reused(kind: str) -> bool:
    """Return whether the numbers of processes and tasks vary between runs."""
    return kind in _REUSED


def told(kind: str, method: str, count: int) -> str:
    """Describe what was used: ``8 processes of os.fork``, ``tasks given to loky``."""
    if kind in _REUSED:
        return f"tasks given to {_REUSED[kind]}"
    number = processes(count)
    if kind == "os.fork":
        return f"{number} of os.fork"
    return f"{number} with {method}" if kind == CONTEXT else f"{number} of {kind} with {method.rpartition(':')[2]}"


def processes(number: int) -> str:
    """Return ``1 process`` or ``2 processes``."""
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
"""Packages whose ``os.fork`` calls are not the user's."""

_watch: Watch | None = None
_registered = False
_waiting: Callable[[], None] | None = None
"""Called at the first user fork, to start listening."""


class Watch:
    """Wrappers and the fork hook installed while a leg runs."""

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
        """Start watching modules already loaded and those loaded later."""
        global _watch
        for name in _SUBJECTS:
            self.span.when_loaded(name, partial(self.guarded, self._loaded, name))
        _register()
        _watch = self

    def end(self) -> None:
        """Stop watching."""
        global _watch
        _watch = None

    def _loaded(self, name: str) -> None:
        package, attribute, method, wrapper = _SUBJECTS[name]
        cls = getattr(sys.modules[name], attribute, None)
        if isinstance(cls, type):
            self.span.put(cls, method, partial(wrapper, self, package))

    def forked(self, frame: FrameType) -> None:
        """Count an ``os.fork`` of user code."""
        name = frame.f_globals.get("__name__") or ""
        record = self.listening() if _is_users_fork(frame) else None
        if record is not None and not name.startswith(f"{record.package}."):
            note(record, "os.fork", "fork", frame, count=1)

    def process(self, package: str, process: Any, frame: FrameType) -> None:
        """Count a process of an unselected package."""
        record = self.listening()
        if record is not None and record.package != package:
            note(record, package, f"{package}:{mp.Package(package).process_method(process)}", frame, count=1)

    def task(self, package: str, frame: FrameType) -> None:
        """Count a task submitted to a loky executor."""
        record = self.listening()
        if record is not None:
            note(record, package, "loky", frame, tasks=1)


def await_fork(begin: Callable[[], None]) -> Callable[[], None]:
    """Call `begin` when user code forks and nothing is watching yet. Return a function that cancels this."""
    global _waiting
    pid = getpid()
    _waiting = lambda: begin() if getpid() == pid else None  # noqa: E731
    _register()

    def undo() -> None:
        global _waiting
        _waiting = None

    return undo


def _register() -> None:
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork)  # permanent: there is no way to unregister
        _registered = True


def _before_fork() -> None:
    global _waiting
    if handover.forks:  # of multiprocessing, as most forks are; return early, since it costs time
        handover.forks = False
        return
    frame = sys._getframe(1)
    if _waiting is not None and _watch is None and _is_users_fork(frame):
        waiting, _waiting = _waiting, None
        with OwnCode(), suppress(Exception):
            waiting()
    if _watch is not None:
        _watch.guarded(_watch.forked, frame)


def _is_users_fork(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__") or ""
    return name.partition(".")[0] not in _OWN_FORKS


def _start_wrapper(watch: Watch, package: str, original: Callable[..., object]) -> Callable[..., object]:
    @wraps(original)
    def start(process: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        watch.guarded(watch.process, package, process, sys._getframe(1))
        with cpython.frameless:
            return original(process, *args, **kwargs)

    return start


def _submit_wrapper(watch: Watch, package: str, original: Callable[..., object]) -> Callable[..., object]:
    @wraps(original)
    def submit(executor: Any, /, *args: object, **kwargs: object) -> object:
        __tracebackhide__ = True
        watch.guarded(watch.task, package, sys._getframe(1))
        with cpython.frameless:
            return original(executor, *args, **kwargs)

    return submit


_SUBJECTS: Final[
    dict[str, tuple[str, str, str, Callable[[Watch, str, Callable[..., object]], Callable[..., object]]]]
] = {
    "multiprocess.process": ("multiprocess", "BaseProcess", "start", _start_wrapper),
    "billiard.process": ("billiard", "BaseProcess", "start", _start_wrapper),
    "loky.process_executor": ("loky", "ProcessPoolExecutor", "submit", _submit_wrapper),
    "joblib.externals.loky.process_executor": ("joblib", "ProcessPoolExecutor", "submit", _submit_wrapper),
}
"""Module -> package, class, method, wrapper. loky's processes go through multiprocessing, where they are recorded."""
