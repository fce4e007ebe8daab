"""SM601 to SM603: what is peculiar to the forkserver method."""

from __future__ import annotations

import ast
import linecache
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..model.child_report import Frame, Raised
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at
from ..model.launch import Launch
from ..model.place import Place
from ..model.server import Server
from ..source.callers import owner, user_files
from ..source.index import find_names, source_of, waiting_calls

_SOCKET_NAME = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
"""What multiprocessing appends to the temporary directory (``util.get_temp_dir``, ``connection.arbitrary_address``)."""

_PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""The longest path of a socket: ``sun_path`` without its terminator."""

_STEPS = 3
"""How many calls within a file are followed from the failing function to what looks at processes."""


def findings(evidence: Evidence) -> list[Finding]:
    """Return what the failure of a leg owes to the forkserver; nothing if that is not certain."""
    if evidence.outcome != "failed" or evidence.server is None:
        return []
    found = _socket(evidence, evidence.server) or _process_tree(evidence, evidence.server)
    return [] if found is None else [found]


# -- SM601, SM602 ----------------------------------------------------------------------------------------------------


def _socket(evidence: Evidence, server: Server) -> Finding | None:
    """Explain a server that could not be reached, or not be started, by where its socket should be."""
    for error in evidence.raised:
        if any(_in_forkserver(frame) for frame in error.frames):
            found = _socket_error(f"{error.type}: {error.message}", evidence.raised_at, server)
            if found is not None:
                return found
    for launch in evidence.launches:
        if launch.method == "forkserver" and launch.error is not None:
            found = _socket_error(launch.error, launch.place, server)
            if found is not None:
                return found
    return None


def _in_forkserver(frame: Frame) -> bool:
    return (
        os.path.basename(frame.file) == "forkserver.py"
        and owner(frame.file) == "stdlib"
        and frame.function.rpartition(".")[2] in ("connect_to_new_process", "ensure_running")
    )


def _socket_error(error: str, place: Place | None, server: Server) -> Finding | None:
    if error.startswith("FileNotFoundError: [Errno 2]") and server.gone:
        return _socket_lost(place, server)
    if error.startswith("OSError: AF_UNIX path too long"):
        return _path_too_long(place, server)
    return None


_START_EARLIER = (
    "let the server start before a test redirects the temporary directory: call "
    "multiprocessing.forkserver.ensure_running() in a session fixture, or in conftest.py"
)


def _socket_lost(place: Place | None, server: Server) -> Finding:
    lost = server.directory if server.directory and not os.path.exists(server.directory) else server.socket
    message = (
        f"the forkserver's socket was in {lost}, which has been removed since: the server can no longer be reached"
    )
    evidence = [f"the temporary directory is {server.base} now"] if server.base else []
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


def _path_too_long(place: Place | None, server: Server) -> Finding:
    room = _PATH_LIMIT - _SOCKET_NAME
    where = server.base
    if server.directory is not None:
        where = os.path.dirname(server.directory)
    message = (
        f"the temporary directory is {len(where)} characters long, and the forkserver's socket below it cannot have "
        f"a path of more than {_PATH_LIMIT}"
    )
    fix = f"let TMPDIR name a directory of at most {room} characters"
    return finding_at("SM602", "TMPDIR", place, message, [f"it is {where}"], fix)


# -- SM603 -----------------------------------------------------------------------------------------------------------


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


def _process_tree(evidence: Evidence, server: Server) -> Finding | None:
    launches = [each for each in (*evidence.launches, *evidence.inherited) if each.method == "forkserver"]
    if evidence.method != "forkserver" or not launches or evidence.raised_at is None or not evidence.raised:
        return None
    error = evidence.raised[0]
    if error.type == "ChildProcessError":
        return _not_a_child(evidence.raised_at, launches, server)
    if error.type == "AssertionError" or error.type.endswith(".AssertionError"):
        return _looks_at_processes(evidence.raised_at, error, launches, server)
    return None


def _not_a_child(place: Place, launches: Sequence[Launch], server: Server) -> Finding | None:
    """Explain an ``os.waitpid`` that failed: only for the pid of a process that the forkserver started."""
    started = {launch.pid for launch in launches}
    for name, text in waiting_calls(place):
        pid = server.waited_for.get(text)
        if pid is not None and pid in started:
            message = (
                f"os.{name}() waits for children of this process, and process {pid} is none: "
                "the forkserver started it and waits for it"
            )
            fix = "wait with process.join() and read process.exitcode, which hold under every method"
            return finding_at("SM603", f"os.{name}", place, message, [], fix)
    return None


def _looks_at_processes(place: Place, error: Raised, launches: Sequence[Launch], server: Server) -> Finding | None:
    """Explain a failed assertion of code that looks at the process tree."""
    for look, name in _looks(place, launches):
        view = _VIEWS[name]
        evidence = [f"{look.file}:{look.line}: {linecache.getline(look.file, look.line).strip()}"]
        if name == "children":
            if server.pid is None:
                continue
            named = re.search(rf"(?<!\d){server.pid}(?!\d)", error.message) is not None
            evidence.append(f"the forkserver is process {server.pid}" + (", named in the failure" if named else ""))
        if name == "getppid" and server.pid is not None:
            evidence.append(f"the forkserver is process {server.pid}")
        return finding_at("SM603", name, place, view.says, evidence, view.instead)
    return None


def _looks(place: Place, launches: Sequence[Launch]) -> Iterator[tuple[Place, str]]:
    """Yield where the failing function looks at processes, or what it calls in its file, or what it started."""
    tree = source_of(place.file).tree
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
