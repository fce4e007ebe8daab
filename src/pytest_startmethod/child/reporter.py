"""What runs in every child of a leg: it writes down how the child failed, and is otherwise not there.

A spawn or forkserver child loads this file by its path, before it knows where the parent's modules are, and pays for
its import: it needs the standard library only and imports the rest when something has failed. Nothing here may raise
into the child, write to its standard streams or stand in its tracebacks. The private names of CPython that it touches
are gathered at the end of the file, since it cannot import the module that holds the others.

An event is one JSON file in a directory that belongs to the parent (see `children`), and complete or absent. A crash
leaves a ``.stack`` file, which faulthandler writes.
"""

# ruff: noqa: SIM105 - a child does not import contextlib for this

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from functools import partial
from itertools import chain
from types import FrameType, FunctionType, TracebackType

try:  # not on Windows
    import fcntl
    import resource
except ImportError:
    pass

TYPE_CHECKING = False  # typing.TYPE_CHECKING: importing typing would take longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from ..launches.lines import Line

TEXT = 2_000
"""No text of an event is longer."""
FRAMES = 40
EXCEPTIONS = 4
COMPILED = "child.pyc"
"""The name of this module's code in the directory: compiling it takes ten times as long as all that it does."""
REPLAYED = "replayed"
"""The suffix of the file in which a child says what it took over in an experiment."""
KEY = "pytest_startmethod"
"""The key in the preparation data. ``multiprocessing.spawn.prepare`` passes over keys that it does not know."""
_SOURCE = """
try:
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader
    try:
        code = SourcelessFileLoader(name, compiled).get_code(name)
    except (OSError, ImportError, EOFError, TypeError, ValueError):
        code = SourceFileLoader(name, file).get_code(name)
    names = {"__name__": name, "__file__": file}
    exec(code, names)
    names["install"](directory, method, process, starter, carried, package)
except Exception:
    pass
"""

_facts: dict[str, Any] = {}
"""What is known of this process: pid, directory, method, process (its name), starter (a pid), package, count."""


class Handover:
    """What a process hands to the child that it forks next: one object, since each that is written to costs a fork."""

    __slots__ = ("forks", "line")

    def __init__(self) -> None:
        self.line: Line | None = None
        """What the child reports through, which its parent has made."""
        self.forks = False
        """Whether the next fork is that of a process object."""


handover = Handover()

carried: Callable[[], list[dict[str, Any]]] | None = None
"""Gives what an experiment sends along with every start (see `replay`); None: there is no experiment."""


class Stowaway:
    """Travels in the preparation data; unpickling it installs this module in the child, or does nothing."""

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
            "starter": os.getpid(),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # Names nothing that the child would have to import: its sys.path is not set yet.
        # What an experiment sends is pickled here and not before: a lock or a queue is only while a process starts.
        return exec, (_SOURCE, {**self.names, "carried": carried() if carried is not None else None})


def install(
    directory: str,
    method: str | None,
    process: str,
    starter: int,
    sent: list[dict[str, Any]] | None = None,
    package: str = "multiprocessing",
) -> None:
    """Watch this spawn or forkserver child, which is about to unpickle its process object, and its own children.

    `package` is multiprocessing, or one that is made of its source.
    """
    _facts.update(pid=os.getpid(), directory=directory, method=method, process=process, starter=starter)
    _facts["package"] = package
    base, spawn = _process_class(), _spawn_module()
    base._bootstrap = watch_bootstrap(base._bootstrap, directory, package)
    spawn.get_preparation_data = watch_preparation(spawn.get_preparation_data, directory, package)
    _facts["excepthook"] = sys.excepthook
    sys.excepthook = _excepthook
    if sent is not None:
        global carried
        carried = partial(list, sent)  # its own children get the same
        spawn.prepare = _replay_after(spawn.prepare, sent)
    for step in (_hold_life_line, _catch_crashes):
        try:
            step()
        except Exception:
            pass


def watch_preparation(
    original: Callable[[str], dict[str, Any]], directory: str, package: str = "multiprocessing"
) -> Callable[[str], dict[str, Any]]:
    """Wrap ``spawn.get_preparation_data`` so that the child loads this module before anything else."""

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        try:
            data[KEY] = Stowaway(directory, _starting_method(sys._getframe(1)), str(name), package)
        except Exception:
            pass
        return data

    return get_preparation_data


def watch_bootstrap(
    original: Callable[..., int], directory: str, package: str = "multiprocessing"
) -> Callable[..., int]:
    """Wrap ``BaseProcess._bootstrap``, through which every child goes once it has its process object."""

    def _bootstrap(process: Any, *args: Any, **kwargs: Any) -> int:
        watched: Watched | Line | None = None
        try:
            own: dict[str, Any] = object.__getattribute__(process, "__dict__")
            line = handover.line
            if line is not None and line.identity is own.get("_identity"):
                if line.process is None:  # where two listen, the first one begins
                    watched = _begin_forked(line, process, own)
            elif _facts.get("pid") == os.getpid():
                watched = _begin(process, own)
            else:  # forked by a child, or by a parent that could make nothing before
                watched = _begin_late(process, own, directory, package)
        except Exception:
            pass
        code = original(process, *args, **kwargs)
        if code != 0 and watched is not None and watched.returned:
            _report("exit", None, exit_code=code)
        return code

    return _bootstrap


def _begin(process: Any, own: dict[str, Any]) -> Watched | None:
    """Watch what this child is about to run."""
    if sys.excepthook is _excepthook:
        sys.excepthook = _facts["excepthook"]  # from here on `_bootstrap` itself handles what is raised
    _facts["process"] = str(own.get("_name"))
    _watch_worker(own)
    return watch_run(process, own)


def _begin_forked(line: Line, process: Any, own: dict[str, Any]) -> Line:
    """Take over, in a forked child, what its parent made for it.

    After a fork each object that is touched costs a fault, unless it lies beside another one: so the steps of
    `_begin_late` are calls that the parent has made ready, and what is known of this child is read when there is
    something to report (`take_over`).
    """
    line.process = process
    try:
        if line.hold is not None:
            # A fork has inherited the writing end: it is a writer, too, and is told when it lets go as the last one.
            line.hold(os.getpid())
    finally:
        for step in line.steps:
            step()
    if line.is_worker:
        _watch_worker(own)
    if line.runs:
        own["run"] = line.run
    return line


def take_over() -> None:
    """Know of this process what its parent has noted in the line that it lent, if this is a forked child."""
    global _facts
    line = handover.line
    if line is not None and line.process is not None:
        _facts, handover.line = line.facts, None


def _begin_late(process: Any, own: dict[str, Any], directory: str, package: str) -> Watched | None:
    """Watch a forked child for which nothing was made before."""
    global _facts
    handover.line = None  # it was for another one
    starter = own.get("_parent_pid", os.getppid())  # not getppid(): the parent may be gone by now
    _facts = {"pid": os.getpid(), "directory": directory, "method": "fork", "starter": starter, "package": package}
    for step in (_hold_life_line, _let_go, _catch_crashes):
        try:
            step()
        except Exception:
            pass
    return _begin(process, own)


def _replay_after(original: Callable[[dict[str, Any]], None], sent: list[dict[str, Any]]) -> Callable[..., None]:
    """Wrap ``spawn.prepare``: once the child has the parent's ``sys.path``, it takes over what was sent along."""

    def prepare(data: dict[str, Any]) -> None:
        original(data)
        try:
            from pytest_startmethod.child import replayer

            outcomes = replayer.apply(sent)
        except Exception as trouble:
            outcomes = [{"path": each["path"], "error": _type_name(trouble)} for each in sent]
        try:
            _write({"outcomes": outcomes}, REPLAYED)
        except Exception:
            pass

    return prepare


# -- what is raised, without standing in its traceback ----------------------------------------------------------------


def _nothing() -> Generator[None, None, None]:
    return
    yield


_finished = _nothing()
for _ in _finished:
    pass


def _unseen(function: Callable[[Any], Any], arg: Any) -> Callable[[], None]:
    """Return what calls ``function(arg)``, once, and raises the exception in the tuple that it returns.

    A Python function that lets an exception through stands in its traceback, which the child prints. So the call goes
    through C alone: `max` calls `key` with the exception, and a finished generator throws what it is given.
    """
    return partial(max, chain.from_iterable(map(function, (arg,))), key=_finished.throw, default=None)


class Watched:
    """A process object whose `run` is watched."""

    __slots__ = ("before", "process", "returned")

    process: Any
    before: Any
    """What it had as ``run`` of its own."""
    returned: bool

    def __init__(self, process: Any, before: Any) -> None:
        self.process = process
        self.before = before
        self.returned = False


def can_be_watched(process: Any) -> bool:
    """Say whether ``process.run`` is a plain method."""
    return type(getattr(type(process), "run", None)) is FunctionType


def watch_run(process: Any, own: dict[str, Any]) -> Watched | None:
    """Note what ``process.run`` raises. The instance's attribute is gone before the user's code runs."""
    if not can_be_watched(process):
        return None
    watched = Watched(process, own.get("run"))
    own["run"] = unseen_run(watched)
    return watched


def unseen_run(watched: Watched | Line) -> Callable[[], None]:
    """Return what stands for ``run`` of a process object; good for one call."""
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
    """Report what a watched call raised and return it without our frame, for `_unseen`."""
    take_over()
    tb = error.__traceback__
    if tb is not None:
        error.__traceback__ = tb.tb_next
    if isinstance(error, SystemExit):
        if error.code not in (None, 0):
            _report(phase, error, exit_code=error.code if type(error.code) is int else 1, **more)
    elif not isinstance(error, KeyboardInterrupt):
        _report(*_worker_phase(phase, error.__traceback__), error, **more)
    return (error,)


def _excepthook(cls: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    try:
        if _facts.get("pid") == os.getpid() and not isinstance(error, KeyboardInterrupt):
            _report(_loading_phase(tb), error, surroundings=True)
    finally:
        _facts["excepthook"](cls, error, tb)


# -- workers of pools and executors ----------------------------------------------------------------------------------


def is_worker(target: Any) -> bool:
    """Say whether a process's target may be that of a pool's or an executor's worker."""
    return type(target) is FunctionType and target.__name__ in _WORKER_NAMES


def _watch_worker(own: dict[str, Any]) -> None:
    """Note results that cannot be sent, and an executor's initializer, whose exception goes to a log only."""
    target: Any = own.get("_target")
    if not is_worker(target):
        return
    take_over()
    name = (_stdlib_name(target.__module__), target.__qualname__)
    if name == _POOL_WORKER:
        error_class = sys.modules[target.__module__].MaybeEncodingError
        error_class.__init__ = _watch_encoding_error(error_class.__init__)
    elif name == _EXECUTOR_WORKER:
        wrapper_class = sys.modules["concurrent.futures.process"]._ExceptionWithTraceback
        wrapper_class.__init__ = _watch_exception(wrapper_class.__init__)
        call_queue, result_queue, initializer, initargs, *rest = own["_args"]
        if initializer is not None:

            def watched(initializer: Any) -> tuple[BaseException, ...]:
                try:
                    initializer(*initargs)
                except BaseException as error:
                    return _raised(error, "run", role="initializer", work=_describe(initializer))
                return ()

            own["_args"] = (call_queue, result_queue, _unseen(watched, initializer), (), *rest)


def _watch_encoding_error(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``MaybeEncodingError.__init__``, which a Pool's worker calls when a result does not pickle."""

    def __init__(self: Any, exc: BaseException, value: Any) -> None:  # noqa: N807 - it replaces one
        _report_result(exc, value)
        original(self, exc, value)

    return __init__


def _watch_exception(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``_ExceptionWithTraceback.__init__``, which an executor's worker calls for every exception."""

    def __init__(self: Any, exc: BaseException, tb: TracebackType | None) -> None:  # noqa: N807 - it replaces one
        for value in _unsent(tb):
            _report_result(exc, value)
        original(self, exc, tb)

    return __init__


def _report_result(error: BaseException, value: Any) -> None:
    """Report that `value`, a task's result or exception, could not be pickled: `error` says why."""
    try:
        value = getattr(value, "exc", value) if type(value).__name__.endswith("ExceptionWithTraceback") else value
        raised = isinstance(value, BaseException)
        path, part = _bad_part(value)
        result = {
            "path": path,
            "type": _type_name(part),
            "of": _type_name(value),
            "raised": raised,
            "text": _message(value) if raised else "",
            "part": _describe(part) if type(part) is FunctionType else None,
        }
        _report("result", error, result=result, work=_describe(_current_task()))
    except Exception:
        pass


def _bad_part(value: Any) -> tuple[str, Any]:
    """Return the deepest part of `value` that cannot be pickled, and its path: by pickling the parts alone."""
    dumps, path = _dumps(), ""
    end, budget = time.monotonic() + 0.5, 300
    while True:
        for step, part in _parts(value):
            budget -= 1
            if budget < 0 or time.monotonic() > end:
                return path, value
            try:
                dumps(part)
            except Exception:
                path, value = path + step, part
                break
        else:
            return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    cls = type(value)
    if cls in (list, tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif cls is dict:
        for index, (key, part) in enumerate(value.items()):
            yield f"[{_text(key) or f'<key {index}>'}]", part
    elif cls not in (FunctionType, type):
        if isinstance(value, BaseException):
            yield from ((f".args[{index}]", part) for index, part in enumerate(value.args))
        try:
            names = object.__getattribute__(value, "__dict__")
        except (AttributeError, TypeError):
            return
        if type(names) is dict:
            yield from ((f".{name}", part) for name, part in list(names.items()) if type(name) is str)


# -- events ----------------------------------------------------------------------------------------------------------


def _report(phase: str, error: BaseException | None, **more: Any) -> None:
    try:
        take_over()
        event = {
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "starter": _facts.get("starter"),
            "method": _facts.get("method"),
            "process": _clip(_facts.get("process")),
            "phase": phase.removesuffix(" of a task"),
            "task": phase.endswith(" of a task"),
            "time": time.time(),
            "raised": [_exception(each) for each in _chain(error)],
            **more,
        }
        if more.pop("surroundings", False) or phase == "unpickling of a task":
            event["sys_path"] = [_clip(entry) for entry in sys.path[:200]]
            event["cwd"] = _cwd()
            main = sys.modules.get("__main__")
            event["main"] = _clip(getattr(main, "__file__", None))
        event.pop("surroundings", None)
        if event["task"] and error is not None:
            event["job"] = _job(error.__traceback__)
        _write(event)
    except Exception:
        pass


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _write(event: dict[str, Any], suffix: str = "json") -> None:
    import json

    data = json.JSONEncoder(separators=(",", ":")).encode(event).encode("ascii")  # the test may have patched json.dumps
    if not room_for(len(data)):
        return
    _facts["count"] = number = _facts.get("count", 0) + 1
    path = os.path.join(_facts["directory"], f"{time.time_ns()}-{os.getpid()}-{number}")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        os.rename(path, f"{path}.{suffix}")
    except OSError:
        try:
            os.unlink(path)
        except OSError:
            pass


def room_for(size: int) -> bool:
    """Say whether a file of `size` bytes is allowed. A larger one may raise SIGXFSZ, which ends the process."""
    if sys.platform == "win32":
        return True
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return soft == resource.RLIM_INFINITY or size <= soft


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return `error` and what it was raised from or while handling, as a traceback shows them; newest first."""
    found: list[BaseException] = []
    while error is not None and len(found) < EXCEPTIONS and not any(error is each for each in found):
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _exception(error: BaseException) -> dict[str, Any]:
    """Return an exception as builtins."""
    tb, frames = error.__traceback__, []
    while tb is not None:
        frames.append((tb.tb_frame, tb.tb_lineno))
        tb = tb.tb_next
    values: dict[str, Any] = {
        "type": _type_name(error),
        "message": _message(error),
        "frames": [_frame(*each) for each in _ends(frames) if each[0].f_code.co_filename != __file__],
        "omitted": max(0, len(frames) - FRAMES),
    }
    if isinstance(error, (ImportError, AttributeError, NameError)):
        values["name"] = _clip(getattr(error, "name", None))
    if type(error) is AssertionError and not error.args and frames:
        try:
            values["statement"], values["values"] = _asserted(*frames[-1])
        except Exception:
            pass
    return values


def _ends(frames: list[Any]) -> list[Any]:
    return frames if len(frames) <= FRAMES else frames[:8] + frames[8 - FRAMES :]


def _frame(frame: FrameType, line: int) -> list[Any]:
    code = frame.f_code
    try:
        import linecache

        source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    except Exception:
        source = ""
    file = code.co_filename if code.co_filename.startswith("<") else os.path.abspath(code.co_filename)
    return [file, line, getattr(code, "co_qualname", code.co_name), source[:200]]


def _asserted(frame: FrameType, line: int) -> tuple[str, list[list[str]]]:
    """Return the source of the failed ``assert`` and the values of the names in it that can be shown safely."""
    import ast
    import linecache
    import textwrap

    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    around = [
        node
        for node in ast.walk(ast.parse("".join(lines)))
        if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or line)
    ]
    node = around[-1]
    values: dict[str, str] = {}
    for each in ast.walk(node.test):
        if isinstance(each, (ast.Name, ast.Attribute)):
            name = ast.unparse(each)
            text = _text(_value(each, frame))
            if text is not None and len(values) < 10:
                values.setdefault(name, text)
    statement = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).strip()
    return statement[:500], [list(each) for each in values.items()]


def _value(node: Any, frame: FrameType) -> Any:
    """Return the value of a name or of an attribute that lies in an instance's own dictionary; runs no code."""
    if type(node).__name__ == "Name":
        for scope in (frame.f_locals, frame.f_globals):
            if node.id in scope:
                return scope[node.id]
        return _MISSING
    if type(node).__name__ == "Attribute":
        try:
            names = object.__getattribute__(_value(node.value, frame), "__dict__")
        except (AttributeError, TypeError):
            return _MISSING
        return names.get(node.attr, _MISSING) if type(names) is dict else _MISSING
    return _MISSING


_MISSING = object()


def _text(value: Any, depth: int = 0) -> str | None:
    """Return a short text for a value made of builtins; None for anything else, since its repr is the user's."""
    cls = type(value)
    if cls is int and value.bit_length() > 200:
        return f"<int of {value.bit_length()} bits>"
    if cls in (int, float, complex, bool, type(None)):
        return repr(value)
    if cls in (str, bytes):
        return repr(value) if len(value) <= 60 else repr(value[:57]) + "..."
    if cls in (list, tuple, dict, set, frozenset):
        if not value:
            return repr(value)
        if depth < 2 and len(value) <= 8:
            items = value.items() if cls is dict else ((each,) for each in value)
            parts = [": ".join(_text(part, depth + 1) or "..." for part in item) for item in items]
            left, right = "[]" if cls is list else "()" if cls is tuple else "{}"
            text = left + ", ".join(parts) + ("," if cls is tuple and len(value) == 1 else "") + right
            if len(text) <= 120:
                return f"frozenset({text})" if cls is frozenset else text
        return f"<{cls.__name__} of length {len(value)}>"
    return None


def _message(error: BaseException) -> str:
    try:
        return str(error)[:TEXT]
    except Exception:
        return "<its __str__ raised>"


def _type_name(value: Any) -> str:
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")[:200]


def _clip(value: Any) -> str | None:
    return None if value is None else str(value)[:TEXT]


def _describe(function: Any) -> dict[str, Any] | None:
    """Return name, file and line of a callable."""
    while type(function) is partial:
        function = function.func
    function = getattr(function, "__func__", function) if type(function).__name__ == "method" else function
    if type(function) is not FunctionType:
        return None if function is None else {"name": _type_name(function), "file": None, "line": None}
    code = function.__code__
    return {
        "name": f"{function.__module__}.{function.__qualname__}",
        "file": os.path.abspath(code.co_filename),
        "line": code.co_firstlineno,
    }


# -- crashes ---------------------------------------------------------------------------------------------------------


def _catch_crashes() -> None:
    """Let faulthandler write into a file of ours, unless this fresh interpreter was told to use it elsewhere.

    A fork inherits pytest's, which writes among pytest's own output.
    """
    fresh = _facts["method"] != "fork"
    if not (fresh and faulthandler.is_enabled()) and room_for(1_000_000):
        path = f"{_facts['directory']}{os.sep}{_facts['pid']}.stack"
        _write_stacks(open_stack(path, _facts["method"], _facts["starter"]))


HEADER = 32
"""The length of the first line of a file for stacks."""


def open_stack(path: str, method: str, starter: int) -> int:
    """Open a file for stacks; its first line says whose they are."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, f"{method} {starter}".ljust(HEADER - 1).encode() + b"\n")
    return descriptor


def writes_of(descriptor: int) -> tuple[Callable[[], object], ...]:
    """Return the calls by which a process writes its stacks into a file of `open_stack`."""
    enable = partial(faulthandler.enable, descriptor)
    if STACK_SIGNAL is None:
        return (enable,)
    return enable, partial(faulthandler.register, STACK_SIGNAL, descriptor, True)


def _write_stacks(descriptor: int) -> None:
    for write in writes_of(descriptor):
        write()


# -- the parent's end ------------------------------------------------------------------------------------------------

LIFE_LINE = "alive"
"""The name of a FIFO in the directory whose writing end only the parent has."""
STACK_SIGNAL: int | None = signal.SIGRTMIN + 8 if sys.platform == "linux" else getattr(signal, "SIGINFO", None)
"""On this signal a child writes its stacks into its ``.stack`` file; where nothing is registered, it may end it."""


writing_end: tuple[int, int] | None = None
"""The parent's descriptor, which a fork inherits and must not keep, and the parent's pid."""


def _let_go() -> None:
    if writing_end is not None and writing_end[1] == _facts["starter"]:
        os.close(writing_end[0])


def open_life_line(directory: str) -> int | None:
    """Return a reading end whose owner the kernel ends when the parent is gone, however it went: no thread, no polling.

    A FIFO whose last writer closes it sends the owner of a reading end the signal of its choice (fcntl(2), F_SETSIG;
    Linux only). Nothing inherits that: not a fork, whose pid is another, nor what is executed.
    """
    if sys.platform != "linux":
        return None
    descriptor = os.open(f"{directory}{os.sep}{LIFE_LINE}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    return descriptor


def hold_of(descriptor: int) -> Callable[[int], object]:
    """Return the call by which a process, given its pid, becomes the owner of a life line."""
    return partial(fcntl.fcntl, descriptor, fcntl.F_SETOWN)


def _hold_life_line() -> None:
    """Let the kernel end this process when its parent is gone."""
    pid = _facts["pid"]
    try:
        descriptor = open_life_line(_facts["directory"])
    except FileNotFoundError:
        if _is_gone(_facts["starter"]):  # it ended while this process was starting
            os.kill(pid, signal.SIGKILL)
        raise
    if descriptor is None:
        return
    hold_of(descriptor)(pid)
    try:
        if os.read(descriptor, 1) == b"":  # no writer: it ended before the line above
            os.kill(pid, signal.SIGKILL)
    except BlockingIOError:
        pass


_EXITING = 0x4
"""``PF_EXITING`` of Linux: set before a process closes its files; only later does it become a zombie."""


def _is_gone(pid: int) -> bool:
    """Say whether a process has ended or is about to, though it may not have been waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, _, _, _, _, _, flags, *_ = file.read().rpartition(")")[2].split()
        return state in "ZX" or bool(int(flags) & _EXITING)
    except FileNotFoundError:
        return os.path.exists("/proc/self/stat")


# -- private names of CPython, read in 3.10 to 3.15 ------------------------------------------------------------------

_POOL_WORKER = ("multiprocessing.pool", "worker")
_EXECUTOR_WORKER = ("concurrent.futures.process", "_process_worker")
_WORKERS = {_POOL_WORKER, _EXECUTOR_WORKER}
_WORKER_NAMES = tuple(name for _, name in _WORKERS)
_STARTERS = {
    "multiprocessing.popen_spawn_posix": "spawn",
    "multiprocessing.popen_spawn_win32": "spawn",
    "multiprocessing.popen_forkserver": "forkserver",
}


def _module(name: str) -> Any:
    full = f"{_facts.get('package', 'multiprocessing')}.{name}"
    __import__(full)
    return sys.modules[full]


def _stdlib_name(name: Any) -> Any:
    """Return what multiprocessing calls a module of the package that this child belongs to."""
    package = _facts.get("package", "multiprocessing")
    if package == "multiprocessing" or type(name) is not str or not name.startswith(f"{package}."):
        return name
    return "multiprocessing" + name[len(package) :]


def _process_class() -> Any:
    """Return the class whose `_bootstrap` runs every process object. When it goes: what then calls `run`."""
    return _module("process").BaseProcess


def _spawn_module() -> Any:
    """Return the module whose `get_preparation_data` the Popen classes call as an attribute."""
    return _module("spawn")


def _dumps() -> Callable[[Any], Any]:
    """Return how results are pickled."""
    dumps: Callable[[Any], Any] = _module("reduction").ForkingPickler.dumps
    return dumps


def _starting_method(frame: FrameType | None) -> str | None:
    """Return the method of the Popen class that asks for preparation data: the module on the stack tells."""
    for _ in range(10):
        if frame is None:
            return None
        # the last part of the name: a package other than multiprocessing has the same
        method = _STARTERS.get("multiprocessing." + frame.f_globals.get("__name__", "").rpartition(".")[2])
        if method is not None:
            return method
        frame = frame.f_back
    return None


def _frames(tb: TracebackType | None) -> Iterator[tuple[str, str]]:
    while tb is not None:
        yield _stdlib_name(tb.tb_frame.f_globals.get("__name__", "")), tb.tb_frame.f_code.co_name
        tb = tb.tb_next


def _loading_phase(tb: TracebackType | None) -> str:
    """Return where a child failed before it ran: ``spawn._main`` calls ``prepare`` and unpickles the process."""
    frames = list(_frames(tb))
    if ("multiprocessing.spawn", "prepare") in frames or ("multiprocessing.spawn", "_main") not in frames:
        return "start-up"
    return "unpickling"


def _worker_phase(phase: str, tb: TracebackType | None) -> tuple[str]:
    """Return the phase, told apart from a worker that could not load its task: `get` of its queue raised."""
    frames = list(_frames(tb))
    for index, frame in enumerate(frames[:-1]):
        if frame in _WORKERS and frames[index + 1] in (("multiprocessing.queues", "get"),):
            return ("unpickling of a task",)
    return (phase,)


def _job(tb: TracebackType | None) -> int | None:
    """Return the number of the Pool's job whose task could not be loaded: what ``SimpleQueue.get`` had received.

    A Pool sends ``(job, i, function, args, kwargs)``.
    """
    while tb is not None:
        frame = tb.tb_frame
        if (_stdlib_name(frame.f_globals.get("__name__")), frame.f_code.co_name) == ("multiprocessing.queues", "get"):
            import pickletools

            operations = pickletools.genops(bytes(frame.f_locals["res"]))
            return next(arg for op, arg, _ in operations if op.name.startswith(("BININT", "LONG")))
        tb = tb.tb_next
    return None


def _current_task() -> Any:
    """Return the user's function that the worker runs now: locals of the worker's frame tell."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = (_stdlib_name(frame.f_globals.get("__name__")), frame.f_code.co_name)
        if name == _POOL_WORKER:
            function = frame.f_locals.get("func")
            if getattr(function, "__name__", "") in ("mapstar", "starmapstar"):
                return frame.f_locals["args"][0][0]
            return function
        if name == _EXECUTOR_WORKER:
            function = getattr(frame.f_locals.get("call_item"), "fn", None)
            if type(function) is partial and getattr(function.func, "__name__", "") == "_process_chunk":
                return function.args[0]
            return function
        frame = frame.f_back
    return None


def _unsent(tb: TracebackType | None) -> tuple[Any, ...]:
    """Return the value that ``concurrent.futures.process._sendback_result`` could not send, if that raised."""
    if tb is None or tb.tb_frame.f_code.co_name != "_sendback_result":
        return ()
    names = tb.tb_frame.f_locals
    exception = names.get("exception")
    return (names.get("result") if exception is None else exception,)
