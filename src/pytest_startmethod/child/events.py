"""Record what went wrong in this process, as JSON files written atomically."""

# ruff: noqa: SIM105 - a child does not import contextlib for this

from __future__ import annotations

import os
import sys
import time
from functools import partial
from os import getpid
from types import FrameType, FunctionType

from .privates import current_task, dumps, facts, job, standard

try:  # not on Windows
    import resource
except ImportError:
    pass

TYPE_CHECKING = False  # typing.TYPE_CHECKING: importing typing would take longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .descriptors import Descriptor
    from .line import Line

TEXT = 2_000
"""Maximum length of a text in an event."""
FRAMES = 40
EXCEPTIONS = 4


class Handover:
    """What a process hands to its next forked child. A single object, since every page written costs the fork time."""

    __slots__ = ("errand", "forks", "line", "parent", "writing_ends")

    def __init__(self) -> None:
        self.line: Line | None = None
        """What the child reports through, prepared by the parent."""
        self.writing_ends: tuple[Descriptor, ...] = ()
        """The parent's writing ends of its FIFOs. A fork inherits them and must close them."""
        self.parent = 0
        """Pid of the process that opened the writing ends."""
        self.errand: tuple[Callable[[], object], Callable[[], None]] | None = None
        """Reference to a process object, and what its child must do before any user code."""
        self.forks = False
        """Whether the next fork starts a process object."""

    def open_ends(self) -> tuple[Descriptor, ...]:
        """Return this process's writing ends, without those that user code has closed."""
        return tuple(each for each in self.writing_ends if each.is_open()) if self.parent == getpid() else ()

    def close_ends(self) -> None:
        """Close the writing ends that are still open."""
        for each in self.writing_ends:
            each.close()


handover = Handover()


def take_over() -> None:
    """In a forked child, adopt the facts that the parent left in its `Line`."""
    line = handover.line
    if line is not None and line.process is not None:
        facts.clear()
        facts.update(line.facts)
        handover.line = None


# -- events ----------------------------------------------------------------------------------------------------------


def report(phase: str, error: BaseException | None, **more: object) -> None:
    """Write an event about `error` in `phase`. Never raises an Exception."""
    try:
        take_over()
        event = {
            "pid": getpid(),
            "starter": facts.get("starter"),
            "method": facts.get("method"),
            "process": _clip(facts.get("process")),
            "phase": phase.removesuffix(" of a task"),
            "task": phase.endswith(" of a task"),
            "time": time.time(),
            "raised": [exception_as_dict(each) for each in chain(error)],
            **more,
        }
        if more.pop("surroundings", False) or phase == "unpickling of a task":
            event["sys_path"] = [_clip(entry) for entry in sys.path[:200]]
            event["cwd"] = _cwd()
            main = sys.modules.get("__main__")
            event["main"] = _clip(getattr(main, "__file__", None))
        event.pop("surroundings", None)
        if event["task"] and error is not None:
            event["job"] = job(error.__traceback__)
        write(event)
    except Exception:
        pass


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def write(event: dict[str, object], suffix: str = "json") -> None:
    """Write one event to the report directory."""
    encoder = standard("json").JSONEncoder(separators=(",", ":"))  # the test may have patched json.dumps
    data = encoder.encode(event).encode("ascii")
    if not room_for(len(data)):
        return
    facts["count"] = number = facts.get("count", 0) + 1
    path = os.path.join(facts["directory"], f"{time.time_ns()}-{getpid()}-{number}")
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
    """Return whether a file of `size` bytes is allowed. Exceeding the limit may raise SIGXFSZ, killing the process."""
    if sys.platform == "win32":
        return True
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return soft == resource.RLIM_INFINITY or size <= soft


def chain(error: BaseException | None) -> list[BaseException]:
    """Return `error` and the exceptions it was raised from or during, as in a traceback; newest first."""
    found: list[BaseException] = []
    while error is not None and len(found) < EXCEPTIONS and not any(error is each for each in found):
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def exception_as_dict(error: BaseException) -> dict[str, object]:
    """Return an exception as builtins."""
    tb, frames = error.__traceback__, []
    while tb is not None:
        frames.append((tb.tb_frame, tb.tb_lineno))
        tb = tb.tb_next
    values: dict[str, object] = {
        "type": type_name(error),
        "message": message(error),
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


def _frame(frame: FrameType, line: int) -> list[object]:
    code = frame.f_code
    try:
        source = standard("linecache").getline(code.co_filename, line, frame.f_globals).strip()
    except Exception:
        source = ""
    file = code.co_filename if code.co_filename.startswith("<") else os.path.abspath(code.co_filename)
    return [file, line, getattr(code, "co_qualname", code.co_name), source[:200]]


def _asserted(frame: FrameType, line: int) -> tuple[str, list[list[str]]]:
    """Return the source of the failed ``assert``, and the values of its names that can be shown safely."""
    ast, linecache, textwrap = map(standard, ("ast", "linecache", "textwrap"))
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
            text = short_text(_value(each, frame))
            if text is not None and len(values) < 10:
                values.setdefault(name, text)
    statement = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).strip()
    return statement[:500], [list(each) for each in values.items()]


def _value(node: Any, frame: FrameType) -> object:
    """Return the value of a name, or of an attribute in an instance's ``__dict__``. Runs no user code."""
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


def short_text(value: Any, depth: int = 0) -> str | None:
    """Return a short text for a value made of builtins, or None: any other repr would be user code."""
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
            parts = [": ".join(short_text(part, depth + 1) or "..." for part in item) for item in items]
            left, right = "[]" if cls is list else "()" if cls is tuple else "{}"
            text = left + ", ".join(parts) + ("," if cls is tuple and len(value) == 1 else "") + right
            if len(text) <= 120:
                return f"frozenset({text})" if cls is frozenset else text
        return f"<{cls.__name__} of length {len(value)}>"
    return None


def message(error: BaseException) -> str:
    """Return an exception's text, truncated."""
    try:
        return str(error)[:TEXT]
    except Exception:
        return "<its __str__ raised>"


def type_name(value: object) -> str:
    """Return the dotted name of an object's type, unqualified for builtins."""
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")[:200]


def _clip(value: object) -> str | None:
    return None if value is None else str(value)[:TEXT]


def describe(function: object) -> dict[str, object] | None:
    """Return a callable's name, file and line."""
    while type(function) is partial:
        function = function.func
    function = getattr(function, "__func__", function) if type(function).__name__ == "method" else function
    if type(function) is not FunctionType:
        return None if function is None else {"name": type_name(function), "file": None, "line": None}
    code = function.__code__
    return {
        "name": f"{function.__module__}.{function.__qualname__}",
        "file": os.path.abspath(code.co_filename),
        "line": code.co_firstlineno,
    }


# -- results that cannot be pickled ------------------------------------------------------------------------------------


def report_result(error: BaseException, value: Any) -> None:
    """Report that pickling `value`, a task's result or exception, failed with `error`."""
    try:
        value = getattr(value, "exc", value) if type(value).__name__.endswith("ExceptionWithTraceback") else value
        raised = isinstance(value, BaseException)
        path, part = _bad_part(value)
        result = {
            "path": path,
            "type": type_name(part),
            "of": type_name(value),
            "raised": raised,
            "text": message(value) if raised else "",
            "part": describe(part) if type(part) is FunctionType else None,
        }
        report("result", error, result=result, work=describe(current_task()))
    except Exception:
        pass


def _bad_part(value: object) -> tuple[str, object]:
    """Return the path to the deepest part of `value` that cannot be pickled, and the part."""
    dump, path = dumps(), ""
    end, budget = time.monotonic() + 0.5, 300
    while True:
        for step, part in _parts(value):
            budget -= 1
            if budget < 0 or time.monotonic() > end:
                return path, value
            try:
                dump(part)
            except Exception:
                path, value = path + step, part
                break
        else:
            return path, value


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    cls = type(value)
    if cls in (list, tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif cls is dict:
        for index, (key, part) in enumerate(value.items()):
            yield f"[{short_text(key) or f'<key {index}>'}]", part
    elif cls not in (FunctionType, type):
        if isinstance(value, BaseException):
            yield from ((f".args[{index}]", part) for index, part in enumerate(value.args))
        try:
            names = object.__getattribute__(value, "__dict__")
        except (AttributeError, TypeError):
            return
        if type(names) is dict:
            yield from ((f".{name}", part) for name, part in list(names.items()) if type(name) is str)
