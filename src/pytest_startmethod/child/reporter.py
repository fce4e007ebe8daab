"""Runs in every child of a leg. It records how the child failed and otherwise leaves no trace.

A spawn or forkserver child loads this file, `events` and `privates` as one code object from the parent's directory
(`launches.reports.compiled`). It does so before ``sys.path`` is set, and pays for the imports: so they import only the
standard library, and most of it only after a failure. Nothing here may raise into the child, write to its standard
streams or appear in its tracebacks. Crashes are recorded by faulthandler in a ``.stack`` file.
"""

# ruff: noqa: SIM105 - a child does not import contextlib for this

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from functools import partial
from itertools import chain
from os import getpid
from types import FunctionType, TracebackType

from .descriptors import Descriptor
from .events import describe, handover, report, report_result, room_for, take_over, type_name, write
from .privates import (
    EXECUTOR_WORKER,
    POOL_WORKER,
    WORKER_NAMES,
    facts,
    loading_phase,
    process_class,
    spawn_module,
    starting_method,
    stdlib_name,
    unsent,
    worker_phase,
)

try:  # not on Windows
    import fcntl
except ImportError:
    pass

TYPE_CHECKING = False  # typing.TYPE_CHECKING: importing typing would take longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from .line import Line

COMPILED = "child.pyc"
"""File name of the compiled code: compiling takes ten times as long as everything it does."""
REPLAYED = "replayed"
"""Suffix of the file in which an experiment's child lists the values it applied."""
KEY = "pytest_startmethod"
"""Key in the preparation data; ``multiprocessing.spawn.prepare`` ignores unknown keys."""
_SOURCE = """
try:
    from importlib.machinery import SourcelessFileLoader
    names = {"__name__": name, "__file__": file}
    code = SourcelessFileLoader(name, compiled).get_code(name)
    if code.co_filename == file:  # nobody has overwritten it
        exec(code, names)
        names["install"](directory, method, process, starter, carried, package)
except FileNotFoundError:
    import os, signal
    if os.path.isdir("/proc/self") and not (os.path.isdir(directory) or os.path.exists(f"/proc/{starter}/exe")):
        os.kill(os.getpid(), signal.SIGKILL)  # the parent has ended, if only as a zombie, and nobody else ends this one
except Exception:
    pass
"""

carried: Callable[[], list[dict[str, object]]] | None = None
"""Returns what an experiment sends along with every start (see `replay`); None outside experiments."""


class Stowaway:
    """Travels in the preparation data. Unpickling it installs this module in the child, or does nothing."""

    __slots__ = ("names",)

    def __init__(self, directory: str, method: str | None, process: str, package: str) -> None:
        self.names = {
            "package": package,
            "name": "_pytest_startmethod_child",
            "file": __file__,
            "compiled": os.path.join(directory, COMPILED),
            "directory": directory,
            "method": method,
            "process": process,
            "starter": getpid(),
        }

    def __reduce__(self) -> tuple[object, ...]:
        # Refers only to builtins: the child's sys.path is not set yet, so it cannot import anything else.
        # The experiment's values are pickled here because locks and queues can be pickled only while a process starts.
        return exec, (_SOURCE, {**self.names, "carried": carried() if carried is not None else None})


def install(
    directory: str,
    method: str | None,
    process: str,
    starter: int,
    sent: list[dict[str, object]] | None = None,
    package: str = "multiprocessing",
) -> None:
    """Watch this spawn or forkserver child, before it unpickles its process object, and its own children.

    `package` is multiprocessing or a package derived from it.
    """
    facts.update(pid=getpid(), directory=directory, method=method, process=process, starter=starter)
    facts["package"] = package
    base, spawn = process_class(), spawn_module()
    base._bootstrap = watch_bootstrap(base._bootstrap, directory, package)
    spawn.get_preparation_data = watch_preparation(spawn.get_preparation_data, directory, package)
    facts["excepthook"] = sys.excepthook
    sys.excepthook = _excepthook
    if sent is not None:
        global carried
        carried = partial(list, sent)  # its own children get the same values
        spawn.prepare = _replay_after(spawn.prepare, sent)
    for step in (_hold_life_line, _catch_crashes):
        try:
            step()
        except Exception:
            pass


def watch_preparation(
    original: Callable[[str], dict[str, object]], directory: str, package: str = "multiprocessing"
) -> Callable[[str], dict[str, object]]:
    """Wrap ``spawn.get_preparation_data`` so that the child loads this module before anything else."""

    def get_preparation_data(name: str) -> dict[str, object]:
        data = original(name)
        try:
            data[KEY] = Stowaway(directory, starting_method(sys._getframe(1)), str(name), package)
        except Exception:
            pass
        return data

    return get_preparation_data


def watch_bootstrap(
    original: Callable[..., int], directory: str, package: str = "multiprocessing"
) -> Callable[..., int]:
    """Wrap ``BaseProcess._bootstrap``, which every child calls on its process object."""

    def _bootstrap(process: object, *args: object, **kwargs: object) -> int:
        watched: Watched | Line | None = None
        try:
            errand = handover.errand
            if errand is not None and errand[0]() is process:
                handover.errand = None
                errand[1]()
        except Exception:
            pass
        try:
            own: dict[str, object] = object.__getattribute__(process, "__dict__")
            line = handover.line
            if line is not None and line.identity is own.get("_identity"):
                if line.process is None:  # with two wrappers, the outer one starts
                    watched = _begin_forked(line, process, own)
            elif facts.get("pid") == getpid():
                watched = _begin(process, own)
            else:  # forked by a child, or by a parent that could not prepare a line
                watched = _begin_late(process, own, directory, package)
        except Exception:
            pass
        code = original(process, *args, **kwargs)
        if code != 0 and watched is not None and watched.returned:
            report("exit", None, exit_code=code)
        return code

    return _bootstrap


def _begin(process: object, own: dict[str, object]) -> Watched | None:
    if sys.excepthook is _excepthook:
        sys.excepthook = facts["excepthook"]  # from here on `_bootstrap` handles exceptions
    facts["process"] = str(own.get("_name"))
    _watch_worker(own)
    return watch_run(process, own)


def _begin_forked(line: Line, process: object, own: dict[str, object]) -> Line:
    """Take over, in a forked child, what its parent prepared.

    After a fork every page touched costs a page fault. So the steps of `_begin_late` are callables prepared by the
    parent, and the facts about this child are read only when there is something to report (`take_over`).
    """
    line.process = process
    try:
        if line.hold is not None:
            # A fork inherits the writing end: it too is a writer, and gets the signal if it is the last to close it.
            line.hold(getpid())
    finally:
        for step in line.steps:
            step()
    if line.is_worker:
        _watch_worker(own)
    if line.runs:
        own["run"] = line.run
    return line


def _begin_late(process: object, own: dict[str, object], directory: str, package: str) -> Watched | None:
    """Watch a forked child for which the parent prepared nothing."""
    handover.line = None  # it belongs to another process
    starter = own.get("_parent_pid", os.getppid())  # not getppid(): the parent may have died
    facts.clear()
    facts.update(pid=getpid(), directory=directory, method="fork", starter=starter, package=package)
    for step in (_hold_life_line, _let_go, _catch_crashes):
        try:
            step()
        except Exception:
            pass
    return _begin(process, own)


def _replay_after(original: Callable[[dict[str, object]], None], sent: list[dict[str, object]]) -> Callable[..., None]:
    """Wrap ``spawn.prepare`` to apply the experiment's values once ``sys.path`` is set."""

    def prepare(data: dict[str, object]) -> None:
        original(data)
        try:
            from pytest_startmethod.child import replayer

            outcomes = replayer.apply(sent)
        except Exception as trouble:
            outcomes = [{"path": each["path"], "error": type_name(trouble)} for each in sent]
        try:
            write({"outcomes": outcomes}, REPLAYED)
        except Exception:
            pass

    return prepare


# -- raising without a frame of ours in the traceback ------------------------------------------------------------------


def _nothing() -> Generator[None, None, None]:
    return
    yield


_finished = _nothing()
for _ in _finished:
    pass


def _unseen(function: Callable[[Any], Any], arg: object) -> Callable[[], None]:
    """Return a callable that runs ``function(arg)`` once and raises the exception in the tuple it returns.

    A Python function through which an exception passes appears in the traceback that the child prints. So the call goes
    through C only: `max` calls `key` with the exception, and a finished generator throws it.
    """
    return partial(max, chain.from_iterable(map(function, (arg,))), key=_finished.throw, default=None)


class Watched:
    """A process object whose `run` is watched."""

    __slots__ = ("before", "process", "returned")

    process: Any
    before: object
    """The process object's own ``run`` attribute, if it has one."""
    returned: bool

    def __init__(self, process: object, before: object) -> None:
        self.process = process
        self.before = before
        self.returned = False


def can_be_watched(process: object) -> bool:
    """Return whether ``process.run`` is a plain method."""
    return type(getattr(type(process), "run", None)) is FunctionType


def watch_run(process: object, own: dict[str, object]) -> Watched | None:
    """Report what ``process.run`` raises. The instance attribute is removed before user code runs."""
    if not can_be_watched(process):
        return None
    watched = Watched(process, own.get("run"))
    own["run"] = unseen_run(watched)
    return watched


def unseen_run(watched: Watched | Line) -> Callable[[], None]:
    """Return a replacement for the ``run`` of a process object, good for one call."""
    return _unseen(_run, watched)


def _run(watched: Watched | Line) -> tuple[BaseException, ...]:
    process, before = watched.process, watched.before
    own = object.__getattribute__(process, "__dict__")
    if before is None:
        own.pop("run", None)
    else:
        own["run"] = before
    try:
        process.run()
    except BaseException as error:
        return _raised(error, "run")
    watched.returned = True
    return ()


def _raised(error: BaseException, phase: str, **more: Any) -> tuple[BaseException, ...]:
    """Report what a watched call raised, and return it without our frame, for `_unseen`."""
    take_over()
    tb = error.__traceback__
    if tb is not None:
        error.__traceback__ = tb.tb_next
    if isinstance(error, SystemExit):
        if error.code not in (None, 0):
            report(phase, error, exit_code=error.code if type(error.code) is int else 1, **more)
    elif not isinstance(error, KeyboardInterrupt):
        report(*worker_phase(phase, error.__traceback__), error, **more)
    return (error,)


def _excepthook(cls: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    try:
        if facts.get("pid") == getpid() and not isinstance(error, KeyboardInterrupt):
            report(loading_phase(tb), error, surroundings=True)
    finally:
        facts["excepthook"](cls, error, tb)


# -- workers of pools and executors ----------------------------------------------------------------------------------


def is_worker(target: object) -> bool:
    """Return whether a process's target looks like the worker of a pool or executor."""
    return type(target) is FunctionType and target.__name__ in WORKER_NAMES


def _watch_worker(own: dict[str, Any]) -> None:
    """Report results that cannot be pickled, and exceptions of an executor's initializer, which are only logged."""
    target: Any = own.get("_target")
    if not is_worker(target):
        return
    take_over()
    name = (stdlib_name(target.__module__), target.__qualname__)
    if name == POOL_WORKER:
        error_class = sys.modules[target.__module__].MaybeEncodingError
        error_class.__init__ = _watch_encoding_error(error_class.__init__)
    elif name == EXECUTOR_WORKER:
        wrapper_class = sys.modules["concurrent.futures.process"]._ExceptionWithTraceback
        wrapper_class.__init__ = _watch_exception(wrapper_class.__init__)
        call_queue, result_queue, initializer, initargs, *rest = own["_args"]
        if initializer is not None:

            def watched(initializer: Any) -> tuple[BaseException, ...]:
                try:
                    initializer(*initargs)
                except BaseException as error:
                    return _raised(error, "run", role="initializer", work=describe(initializer))
                return ()

            own["_args"] = (call_queue, result_queue, _unseen(watched, initializer), (), *rest)


def _watch_encoding_error(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``MaybeEncodingError.__init__``, called by a Pool's worker when a result does not pickle."""

    def __init__(self: object, exc: BaseException, value: object) -> None:  # noqa: N807 - it replaces one
        report_result(exc, value)
        original(self, exc, value)

    return __init__


def _watch_exception(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``_ExceptionWithTraceback.__init__``, called by an executor's worker for every exception."""

    def __init__(self: object, exc: BaseException, tb: TracebackType | None) -> None:  # noqa: N807 - it replaces one
        for value in unsent(tb):
            report_result(exc, value)
        original(self, exc, tb)

    return __init__


# -- crashes ---------------------------------------------------------------------------------------------------------


def _catch_crashes() -> None:
    """Direct faulthandler to our file, unless it was enabled by the user in a fresh interpreter.

    In a fork, the inherited handler is pytest's, which would write into pytest's own output.
    """
    fresh = facts["method"] != "fork"
    if not (fresh and faulthandler.is_enabled()) and room_for(1_000_000):
        path = f"{facts['directory']}{os.sep}{facts['pid']}.stack"
        new = f"{path}.new"  # a reader of the file may send the signal at once, so install the handler first
        for step in writes_of(open_stack(new, facts["method"], facts["starter"]).number):
            step()
        os.rename(new, path)


HEADER = 32
"""Length of the first line of a stack file."""


def open_stack(path: str, method: str, starter: int) -> Descriptor:
    """Open a stack file. Its first line holds the start method and the starter's pid."""
    descriptor = Descriptor(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    os.write(descriptor.number, f"{method} {starter}".ljust(HEADER - 1).encode() + b"\n")
    return descriptor


def writes_of(descriptor: int) -> tuple[Callable[[], object], ...]:
    """Return the calls that make a process write its stacks into a file from `open_stack`."""
    enable = partial(faulthandler.enable, descriptor)
    if STACK_SIGNAL is None:
        return (enable,)
    return enable, partial(faulthandler.register, STACK_SIGNAL, descriptor, True)


# -- the life line -----------------------------------------------------------------------------------------------------

LIFE_LINE = "alive"
"""Name of a FIFO in the directory. Its writers are the parent, and the shell that waits for the parent's end."""
STACK_SIGNAL: int | None = signal.SIGRTMIN + 8 if sys.platform == "linux" else getattr(signal, "SIGINFO", None)
"""Signal on which a child dumps its stacks to its ``.stack`` file. Without a handler it may kill the child."""


def _let_go() -> None:
    if handover.parent == facts["starter"]:
        handover.close_ends()


def open_life_line(directory: str) -> Descriptor | None:
    """Return a reading end that makes the kernel kill its owner when the parent is gone, without threads or polling.

    When the last writer of a FIFO closes it, the kernel sends the owner of a reading end a signal of its choice
    (fcntl(2), F_SETSIG; Linux only). Ownership is not inherited, neither by forks nor by executed programs.
    """
    if sys.platform != "linux":
        return None
    descriptor = Descriptor(os.open(f"{directory}{os.sep}{LIFE_LINE}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    fcntl.fcntl(descriptor.number, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor.number, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    return descriptor


def hold_of(descriptor: Descriptor) -> Callable[[int], object]:
    """Return the call that makes a process, given its pid, the owner of a life line."""
    return partial(fcntl.fcntl, descriptor.number, fcntl.F_SETOWN)


def _hold_life_line() -> None:
    """Make the kernel kill this process when its parent is gone."""
    pid = facts["pid"]
    try:
        descriptor = open_life_line(facts["directory"])
    except FileNotFoundError:
        if _is_gone(facts["starter"]):  # it ended while this process was starting
            os.kill(pid, signal.SIGKILL)
        raise
    if descriptor is None:
        return
    hold_of(descriptor)(pid)
    try:
        if os.read(descriptor.number, 1) == b"":  # no writer: it ended before the line above
            os.kill(pid, signal.SIGKILL)
    except BlockingIOError:
        pass


_EXITING = 0x4
"""Linux's ``PF_EXITING``: set before a process closes its files, while it becomes a zombie only later."""


def _is_gone(pid: int) -> bool:
    """Return whether a process has ended or is ending, even if nobody has waited for it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, _, _, _, _, _, flags, *_ = file.read().rpartition(")")[2].split()
        return state in "ZX" or bool(int(flags) & _EXITING)
    except (FileNotFoundError, ProcessLookupError):  # the latter: somebody has waited for it since the file was opened
        return os.path.exists("/proc/self/stat")
