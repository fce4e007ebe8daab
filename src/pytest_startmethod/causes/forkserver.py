"""SM601 to SM603: what is peculiar to the forkserver method. Evidence in, findings out; `observe` gathers it."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from ..model.child_report import Frame, Raised
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at
from ..model.launch import Launch
from ..model.place import Place
from ..source.callers import find_names, owner, user_files

_SOCKET_NAME = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
"""What multiprocessing appends to the temporary directory (``util.get_temp_dir``, ``connection.arbitrary_address``)."""

_PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""The longest path of a socket: ``sun_path`` without its terminator."""

_STEPS = 3
"""How many calls within a file are followed from the failing function to what looks at processes."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What `explain` needs beside a leg's evidence."""

    raised: tuple[Raised, ...] = ()
    """The leg's exception and what it was raised from; or a child's, from its report."""
    server_pid: int | None = None
    socket: str | None = None
    """The path of the server's socket."""
    directory: str | None = None
    """Where multiprocessing puts its sockets, or None if it has put none anywhere."""
    gone: bool = False
    """Whether `socket` or `directory` is no longer there."""
    base: str = ""
    """The temporary directory of the process, as it is now."""
    pids: Mapping[str, int] = field(default_factory=dict)
    """The numbers among what the failing line passes to the functions it calls, by their source text."""


def explain(evidence: Evidence, seen: Seen) -> tuple[Finding, ...]:
    """Return what the failure of a leg owes to the forkserver; nothing if that is not certain."""
    if evidence.outcome != "failed":
        return ()
    found = _socket(evidence, seen) or _process_tree(evidence, seen)
    return () if found is None else (found,)


# -- SM601, SM602 ----------------------------------------------------------------------------------------------------


def _socket(evidence: Evidence, seen: Seen) -> Finding | None:
    """Explain a server that could not be reached, or not be started, by where its socket should be."""
    for error in seen.raised:
        if any(_in_forkserver(frame) for frame in error.frames):
            found = _socket_error(f"{error.type}: {error.message}", evidence.raised_at, seen)
            if found is not None:
                return found
    for launch in evidence.launches:
        if launch.method == "forkserver" and launch.error is not None:
            found = _socket_error(launch.error, launch.place, seen)
            if found is not None:
                return found
    return None


def _in_forkserver(frame: Frame) -> bool:
    return (
        os.path.basename(frame.file) == "forkserver.py"
        and owner(frame.file) == "stdlib"
        and frame.function.rpartition(".")[2] in ("connect_to_new_process", "ensure_running")
    )


def _socket_error(error: str, place: Place | None, seen: Seen) -> Finding | None:
    if error.startswith("FileNotFoundError: [Errno 2]") and seen.gone:
        return _socket_lost(place, seen)
    if error.startswith("OSError: AF_UNIX path too long"):
        return _path_too_long(place, seen)
    return None


_START_EARLIER = (
    "let the server start before a test redirects the temporary directory: call "
    "multiprocessing.forkserver.ensure_running() in a session fixture, or in conftest.py"
)


def _socket_lost(place: Place | None, seen: Seen) -> Finding:
    lost = seen.directory if seen.directory and not os.path.exists(seen.directory) else seen.socket
    message = (
        f"the forkserver's socket was in {lost}, which has been removed since: the server can no longer be reached"
    )
    evidence = [f"the temporary directory is {seen.base} now"] if seen.base else []
    evidence += [f"the temporary directory is redirected at {each.file}:{each.line}" for each in _redirections()]
    return finding_at(
        "SM601",
        "tempfile.tempdir",
        place,
        message,
        evidence,
        _START_EARLIER,
    )


def socket_at_risk(launches: Iterable[Launch], temporary: str | None) -> Finding | None:
    """Return the note on a leg that started the server while the temporary directory was one that is gone now.

    Legs have a directory for sockets that outlives them, and a server of their own. In any other session the first
    such test has the server for all.
    """
    places = [each.place for each in launches if each.method == "forkserver"]
    if not places or temporary is None or os.path.exists(temporary):
        return None
    message = (
        "the test uses the forkserver while the temporary directory is one that it removes: a server that starts then "
        "has its socket there, and no later test can reach it. That of a leg lies elsewhere"
    )
    lines = [f"the temporary directory was {temporary}"]
    lines += [f"the temporary directory is redirected at {each.file}:{each.line}" for each in _redirections()]
    return finding_at("SM601", "tempfile.tempdir", places[0], message, lines, _START_EARLIER, "note")


def _redirections() -> list[Place]:
    """Return where the user's code assigns ``tempfile.tempdir``, a few."""
    files = user_files()
    found = find_names(files, "NestedTempfile")
    for place in find_names(files, "tempdir"):
        # an assignment or a monkeypatch, but not one that takes it back
        if re.search(
            r"\btempfile\b.*\btempdir\b[\"']?\s*[=,](?!=)(?!\s*None\b)", linecache.getline(place.file, place.line)
        ):
            found.append(place)
    return found[:3]


def _path_too_long(place: Place | None, seen: Seen) -> Finding:
    room = _PATH_LIMIT - _SOCKET_NAME
    where = seen.base
    if seen.directory is not None:
        where = os.path.dirname(seen.directory)
    message = (
        f"the temporary directory is {len(where)} characters long, and the forkserver's socket below it cannot have "
        f"a path of more than {_PATH_LIMIT}"
    )
    fix = f"let TMPDIR name a directory of at most {room} characters"
    return finding_at("SM602", "TMPDIR", place, message, [f"it is {where}"], fix)


# -- SM603 -----------------------------------------------------------------------------------------------------------

_WAITS = ("waitpid", "waitid", "wait3", "wait4")


@dataclass(frozen=True, slots=True)
class _View:
    """A way in which code looks at processes."""

    says: str
    instead: str


_VIEWS = {
    "getppid": _View(
        "os.getppid() of the child is the forkserver's pid, not this process's",
        "multiprocessing.parent_process().pid names the process that started the child under every method",
    ),
    "children": _View(
        "the forkserver is one more child of this process, and what it started are its children",
        "count multiprocessing.active_children(), or start the server before the first look at the processes: "
        "multiprocessing.forkserver.ensure_running()",
    ),
    "SIGCHLD": _View(
        "this process gets no SIGCHLD when the child ends: the forkserver does",
        "wait for the process's sentinel: multiprocessing.connection.wait([process.sentinel])",
    ),
    "RUSAGE_CHILDREN": _View(
        "what the child used is counted for the forkserver, not for this process",
        "measure in the child with RUSAGE_SELF and send the figures",
    ),
}


def _process_tree(evidence: Evidence, seen: Seen) -> Finding | None:
    launches = [each for each in (*evidence.launches, *evidence.inherited) if each.method == "forkserver"]
    if evidence.method != "forkserver" or not launches or evidence.raised_at is None or not seen.raised:
        return None
    error = seen.raised[0]
    if error.type == "ChildProcessError":
        return _not_a_child(evidence.raised_at, launches, seen)
    if error.type == "AssertionError" or error.type.endswith(".AssertionError"):
        return _looks_at_processes(evidence.raised_at, error, launches, seen)
    return None


def _not_a_child(place: Place, launches: Sequence[Launch], seen: Seen) -> Finding | None:
    """Explain an ``os.waitpid`` that failed: only for the pid of a process that the forkserver started."""
    started = {launch.pid for launch in launches}
    for name, text in _calls(place):
        pid = seen.pids.get(text)
        if name in _WAITS and pid is not None and pid in started:
            message = (
                f"os.{name}() waits for children of this process, and process {pid} is none: "
                "the forkserver started it and waits for it"
            )
            fix = "wait with process.join() and read process.exitcode, which hold under every method"
            return finding_at("SM603", f"os.{name}", place, message, [], fix)
    return None


def _looks_at_processes(place: Place, error: Raised, launches: Sequence[Launch], seen: Seen) -> Finding | None:
    """Explain a failed assertion of code that looks at the process tree."""
    for look, name in _looks(place, launches):
        view = _VIEWS[name]
        evidence = [f"{look.file}:{look.line}: {linecache.getline(look.file, look.line).strip()}"]
        if name == "children":
            if seen.server_pid is None:
                continue
            named = re.search(rf"(?<!\d){seen.server_pid}(?!\d)", error.message) is not None
            evidence.append(
                f"the forkserver is process {seen.server_pid}" + (", named in the failure" if named else "")
            )
        if name == "getppid" and seen.server_pid is not None:
            evidence.append(f"the forkserver is process {seen.server_pid}")
        return finding_at("SM603", name, place, view.says, evidence, view.instead)
    return None


def _looks(place: Place, launches: Sequence[Launch]) -> Iterator[tuple[Place, str]]:
    """Yield where the failing function looks at processes, or what it calls in its file, or what it started."""
    tree = _tree(place.file)
    if tree is None:
        return
    functions = {
        node.name: node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    psutil = any(_imports_psutil(node) for node in ast.walk(tree))
    inside = [node for node in functions.values() if node.lineno <= place.line <= (node.end_lineno or 0)]
    todo = [max(inside, key=lambda node: node.lineno).name] if inside else []
    reached: list[str] = []
    for _ in range(_STEPS):
        reached += [name for name in todo if name not in reached]
        called = [name for each in todo for name in _called(functions[each])]
        todo = [name for name in dict.fromkeys(called) if name in functions and name not in reached]
    targets = [launch.target.rpartition(".")[2] for launch in launches]
    for name in dict.fromkeys([*reached, *(each for each in targets if each in functions)]):
        in_child = name not in reached
        for node in ast.walk(functions[name]):
            look = _look(node, psutil)
            if look is not None and (look == "getppid" or not in_child):
                yield Place(place.file, node.lineno), look  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=16)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _look(node: ast.AST, psutil: bool) -> str | None:
    if isinstance(node, ast.Attribute) and node.attr in ("getppid", "SIGCHLD", "RUSAGE_CHILDREN"):
        return node.attr
    if isinstance(node, ast.Name) and node.id in ("getppid", "SIGCHLD", "RUSAGE_CHILDREN"):
        return node.id
    if psutil and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return {"children": "children", "ppid": "getppid"}.get(node.func.attr)
    return None


def _imports_psutil(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] == "psutil" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "psutil"


def _called(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if name is not None:
                yield name


def _calls(place: Place) -> Iterator[tuple[str, str]]:
    """Yield name and first argument's source, for each ``os`` call of the statement that `place` is in."""
    tree = _tree(place.file)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Call) and node.lineno <= place.line <= (node.end_lineno or 0):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            arguments = node.args[1:] if name == "waitid" else node.args
            if name in _WAITS and arguments:
                yield name, ast.unparse(arguments[0])


# -- gathering -------------------------------------------------------------------------------------------------------


def observe(error: BaseException | None) -> Seen:
    """Return what is to be seen of `error` and of the server that is in use now; runs no code of the user's."""
    import tempfile
    from multiprocessing.process import current_process

    from .._compat import cpython
    from .._compat import multiprocessing as mp

    if "multiprocessing.forkserver" not in sys.modules or not mp.has_forkserver():
        return Seen()
    state = mp.server_state()
    socket, directory = mp.server_socket(state), cpython.temporary_directory_of(current_process())
    return Seen(
        raised=tuple(_raised(each) for each in _chain(error)),
        server_pid=mp.server_pid(state),
        socket=socket,
        directory=directory,
        gone=any(path is not None and not os.path.exists(path) for path in (socket, directory)),
        base=tempfile.tempdir or "",
        pids=_pids(error),
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 4 and not any(error is each for each in found):
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _raised(error: BaseException) -> Raised:
    frames = [
        Frame(os.path.abspath(frame.f_code.co_filename), line, frame.f_code.co_name, "")
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    try:
        message = str(error)
    except Exception:
        message = ""
    return Raised(name, message[:2_000], tuple(frames))


def _pids(error: BaseException | None) -> dict[str, int]:
    """Return what the user's failing line passes to ``os.waitpid`` and its kind, where that can be read."""
    if not isinstance(error, ChildProcessError):
        return {}
    found: dict[str, int] = {}
    for frame, line in traceback.walk_tb(error.__traceback__):
        if owner(frame.f_code.co_filename) == "user":
            for _, text in _calls(Place(os.path.abspath(frame.f_code.co_filename), line)):
                value = _value(ast.parse(text, mode="eval").body, frame)
                if type(value) is int:
                    found[text] = value
    return found


def _value(node: ast.expr, frame: FrameType) -> Any:
    """Return the value of a name or of attributes of one, without calling any code of the user's; None if unknown."""
    from multiprocessing.process import BaseProcess

    from .._compat import multiprocessing as mp

    if isinstance(node, ast.Name):
        names = frame.f_locals if node.id in frame.f_locals else frame.f_globals
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    holder = _value(node.value, frame)
    if issubclass(type(holder), BaseProcess) and node.attr in ("pid", "ident"):
        popen = holder.__dict__.get(mp.POPEN)
        return getattr(popen, "pid", None)
    try:
        return object.__getattribute__(holder, "__dict__").get(node.attr)
    except AttributeError:
        return None
