"""SM601 to SM604: problems specific to the forkserver method."""

from __future__ import annotations

import ast
import linecache
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..model.child_report import Frame, Raised
from ..model.evidence import Evidence
from ..model.finding import Fact, Finding, finding_at, source_fact, values
from ..model.launch import Launch
from ..model.methods import base
from ..model.observed import Observed
from ..model.place import Place
from ..model.server import NotAChild, Server, Surroundings
from ..source.callers import owner, user_files
from ..source.index import find_names, source_of
from .context import observed_in

_SOCKET_NAME = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
"""The part that multiprocessing appends to the temporary directory (``util.get_temp_dir``, ``arbitrary_address``)."""

_PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""The longest path of a socket: ``sun_path`` without its terminator."""

_STEPS = 3
"""How many calls deep to search, within the failing function's file, for code that inspects processes."""


def findings(evidence: Evidence) -> list[Finding]:
    """Return how the forkserver or the resource tracker caused the leg's failure."""
    server = evidence.server
    if evidence.outcome != "failed" or server is None:
        return []
    found = _socket(evidence, server) or _helper(evidence, server) or _process_tree(evidence, server)
    return [] if found is None else [found]


# -- SM601, SM602 ----------------------------------------------------------------------------------------------------


def _socket(evidence: Evidence, server: Server) -> Finding | None:
    """Explain a server that could not be started or reached, by the location of its socket."""
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
    """Return the note on a leg that used the forkserver while the temporary directory was one that is gone now.

    Legs themselves are safe: their server's socket is in a directory that outlives them. Without them, the first such
    test would start the server that all later tests use.
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
    """Return up to three places where the user's code redirects ``tempfile.tempdir``."""
    files = user_files()
    found = find_names(files, "NestedTempfile")
    for place in find_names(files, "tempdir"):
        # an assignment or a monkeypatch, but not a reset to None
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
    """Why a way of inspecting processes differs under forkserver, and the portable alternative."""

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


_ABOUT_PROCESSES = re.compile(r"(?i)pid|child|proc|reap|\bps\b")


def _helper(evidence: Evidence, server: Server) -> Finding | None:
    """Explain a failure that mentions the pid of one of multiprocessing's helper processes."""
    if base(evidence.method) == "fork" or evidence.raised_at is None or not evidence.raised:
        return None
    if _ABOUT_PROCESSES.search(evidence.text) is None:  # any number may be a pid by chance
        return None
    numbers = set(re.findall(r"(?<![\w.])\d+(?![\w.])", evidence.raised[0].message))
    helpers = {"the forkserver": server.pid, "the resource tracker": server.tracker}
    named = {name: pid for name, pid in helpers.items() if pid is not None and str(pid) in numbers}
    if not named:
        return None
    who = " and ".join(f"process {pid} is {name}" for name, pid in named.items())
    message = (
        f"{who}: a helper of multiprocessing that this process starts once and keeps. It is no process that the test "
        "started, and does not end with one"
    )
    fix = (
        "wait for the processes that were started (process.join(), multiprocessing.active_children()), or leave out "
        "children that were there before; helpers stay until this process ends"
    )
    return finding_at("SM603", "children", evidence.raised_at, message, (), fix)


def _process_tree(evidence: Evidence, server: Server) -> Finding | None:
    launches = [each for each in (*evidence.launches, *evidence.inherited) if each.method == "forkserver"]
    if evidence.method != "forkserver" or not launches:
        return None
    started = {launch.pid for launch in launches}
    waited = next((each for each in evidence.not_children if each.pid in started), None)
    if waited is not None:
        return _not_a_child(waited)
    error = evidence.raised[0] if evidence.raised else None
    if error is None or evidence.raised_at is None or error.type.rpartition(".")[2] != "AssertionError":
        return None
    return _looks_at_processes(evidence.raised_at, error, launches, server)


def _not_a_child(waited: NotAChild) -> Finding:
    """Explain a failed ``os.waitpid``, even if its exception was swallowed."""
    message = (
        f"os.{waited.function}() waits for children of this process, and process {waited.pid} is none: the forkserver "
        "started it and waits for it"
    )
    fix = "wait with process.join() and read process.exitcode, which hold under every method"
    facts = () if waited.place is None else (source_fact("parent", "waits", waited.place),)
    return finding_at("SM603", f"os.{waited.function}", waited.place, message, facts, fix)


def _looks_at_processes(place: Place, error: Raised, launches: Sequence[Launch], server: Server) -> Finding | None:
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


_LOOKS = re.compile(r"\b(getppid|SIGCHLD|RUSAGE_CHILDREN)\b|\.(children|ppid)\(")


def _looks(place: Place, launches: Sequence[Launch]) -> Iterator[tuple[Place, str]]:
    """Yield the places that inspect processes: in the failing function, its callees in the same file, and children."""
    source = source_of(place.file)
    functions = {name.rpartition(".")[2]: node for node, name, _ in source.index.functions if hasattr(node, "name")}
    inside = [name for name, node in functions.items() if node.lineno <= place.line <= (node.end_lineno or 0)]
    reached = dict.fromkeys(inside)
    for _ in range(_STEPS):
        calls = [call.name for call in source.index.calls if call.place.function.rpartition(".")[2] in reached]
        reached |= dict.fromkeys(name for name in calls if name in functions)
    psutil = re.search(r"^\s*(?:import|from)\b.*\bpsutil\b", source.text, re.MULTILINE) is not None
    lines = source.text.splitlines()
    for name in dict.fromkeys([*reached, *(launch.target.rpartition(".")[2] for launch in launches)]):
        node = functions.get(name)
        for line in range(node.lineno, (node.end_lineno or 0) + 1) if node is not None else ():
            found = _LOOKS.search(lines[line - 1])
            look = None if found is None else found[1] or (psutil and found[2].replace("ppid", "getppid"))
            if look and (look == "getppid" or name in reached):
                yield Place(place.file, line), look
    codes = {code for each in launches if each.observed is not None for code in each.observed.codes}
    for file, _, start in sorted(codes):
        for node, _ in source_of(file).index.functions_at(start):
            for line in range(start, (node.end_lineno or 0) + 1):
                if re.search(r"\bos\.getppid\(", linecache.getline(file, line)):
                    yield Place(file, line), "getppid"


# -- SM604 -----------------------------------------------------------------------------------------------------------

_STREAMS = ("stdin", "stdout", "stderr")


def stale(evidence: Evidence) -> list[Finding]:
    """Return what children have from the forkserver, not the parent: streams, signals, umask, modules (SM604)."""
    server, spawn = evidence.server, evidence.others.get("spawn")
    if server is None or evidence.method != "forkserver" or (spawn is not None and spawn.outcome == "failed"):
        return []
    found: dict[str, Finding] = {}
    first: Surroundings | None = None
    for observed in observed_in(evidence):
        found.update(_preloaded(observed, server, evidence.environ or {}))
    for launch in evidence.launches:
        mine = launch.surroundings
        if mine is None:
            continue
        if mine.server is None:
            first = mine  # this launch starts the server
            continue
        pairs = enumerate(zip(mine.streams, server.surroundings.streams, strict=False))
        differing = [(number, ours[1], theirs[1]) for number, (ours, theirs) in pairs if ours[0] != theirs[0]]
        if differing:
            found.setdefault("streams", _stale_streams(launch, differing))
        for name in sorted(mine.ignored - (first.ignored if first is not None else frozenset())):
            found.setdefault(name, _stale_signal(launch, name))
        for name, text in mine.inherited.items():
            old = server.surroundings.inherited.get(name, text)
            if old != text:
                found.setdefault(name, _stale_attribute(launch, name, text, old))
    return list(found.values())


def _preloaded(observed: Observed, server: Server, environ: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """Yield modules that the server imported under another environment than the parent has at the launch."""
    from ..source.places import module_source  # not needed by a leg that passes

    now = observed.environ if environ else {}
    names = {name for name in {*now, *environ} if now and now.get(name) != environ.get(name)}
    files = {name: module_source(name) for name in server.preloaded} if names else {}
    for module, file in files.items():
        for place, name in _read_at_import(file, names) if file is not None else ():
            mine, other = (repr(each.get(name)) for each in (now, environ))
            message = (
                f"{module} was preloaded into the forkserver, and reads {name} when it is imported: it was {other} "
                f"there, and is {mine} in the parent; each child has the module as the server imported it"
            )
            fix = (
                f"read {name} where it is needed and not when {module} is imported, set it before the first process is "
                f"started with forkserver, or leave {module} out of set_forkserver_preload()"
            )
            facts = (*values(f"os.environ[{name!r}]", mine, other), source_fact("child", "read", place))
            yield module, finding_at("SM604", module, place, message, facts, fix)


def _read_at_import(file: str, names: set[str]) -> Iterator[tuple[Place, str]]:
    """Yield the lines outside functions that mention one of the environment variables."""
    todo: list[ast.AST] = [source_of(file).tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Constant) and node.value in names:
            yield Place(file, node.lineno), str(node.value)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def _stale_streams(launch: Launch, differing: Sequence[tuple[int, str, str]]) -> Finding:
    number, ours, theirs = next((each for each in differing if each[0]), differing[0])
    name, mine, other = _STREAMS[number], _file(ours), _file(theirs)
    subject = f"descriptor {number} ({name})"
    message = (
        f"{subject} led to {mine} when the process was started, and leads to "
        f"{'another one' if mine == other else other} "
        "in a forkserver child: the server keeps the streams that it was started with"
    )
    fix = (
        f"send what the child has to say through a pipe or queue, or pass the file's path and redirect {name} in the "
        "child; a server that starts after the redirection has it, too"
    )
    more = [f"so does descriptor {each} ({_STREAMS[each]})" for each, _, _ in differing if each != number]
    facts: tuple[Fact | str, ...] = (*values(subject, ours, theirs), *more, *_started_at(launch))
    return finding_at("SM604", f"sys.{name}", launch.place, message, facts, fix)


def _file(name: str) -> str:
    """Return what a descriptor refers to, in words. Capture's temporary files have no name any more."""
    return "a temporary file" if name.endswith(" (deleted)") else name


def _stale_signal(launch: Launch, name: str) -> Finding:
    message = (
        f"{name} was ignored when the process was started, which a child inherits; the forkserver was started before "
        "and its children do not ignore it"
    )
    fix = f"call signal.signal(signal.{name}, signal.SIG_IGN) in the child: first in the target, or in an initializer"
    facts = (*values(name, "ignored", "not ignored"), *_started_at(launch))
    return finding_at("SM604", f"signal.{name}", launch.place, message, facts, fix)


def _stale_attribute(launch: Launch, name: str, ours: str, theirs: str) -> Finding:
    message = (
        f"{name} was {ours} when the process was started, which a child inherits; the forkserver was started before, "
        f"and its children have {theirs}"
    )
    fix = "set it in the child: first in the target, or in an initializer"
    facts = (*values(name, ours, theirs), *_started_at(launch))
    return finding_at(
        "SM604", name.removeprefix("the ").replace("'", "").replace(" ", "-"), launch.place, message, facts, fix
    )


def _started_at(launch: Launch) -> list[Fact]:
    return [] if launch.place is None else [source_fact("parent", "started", launch.place)]
