"""SM303: a patch in the parent that replaces what multiprocessing itself needs to start a process."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath

from ..model.child_report import Frame
from ..model.evidence import Evidence
from ..model.finding import NEEDED, Finding, finding_at, source_fact
from ..model.methods import base
from ..model.patched import Patched
from ..model.place import Place
from ..source.callers import owner, package_of
from ..source.index import find_calls, source_of

_ENTRIES = (("process.py", "start"), ("synchronize.py", "__init__"))
"""Files and functions of multiprocessing through which the user's code starts processes and makes locks."""


def broken(evidence: Evidence) -> list[Finding]:
    """Return why multiprocessing cannot start a process while a patch is active.

    Its functions stand in the exception's traceback, or the child was started and waits for what it is to run.
    """
    fork = evidence.others.get("fork")
    if base(evidence.method) == "fork" or (fork is not None and fork.outcome == "failed"):
        return []
    found = next(_in_traceback(evidence), None) or next(_unsent(evidence), None) or next(_misled(evidence), None)
    return [] if found is None else [found]


def _in_traceback(evidence: Evidence) -> Iterator[Finding]:
    """Yield the replacement that raised, or that returned what multiprocessing cannot use."""
    frames = evidence.frames
    own = [at for at, frame in enumerate(frames) if _is_multiprocessing(frame.file)]
    entries = [(PurePath(frames[at].file).name, frames[at].function.rpartition(".")[2]) for at in own]
    if not set(_ENTRIES).intersection(entries):
        return
    last = own[-1]
    frame, above = frames[last], frames[last + 1 :]
    result = f"it raised {evidence.raised[0]}"
    whose = owner(above[0].file) if above else "stdlib"
    text = _line(frame) if above else _until(frame)
    if whose != "stdlib" or not above or PurePath(above[0].file).name == "mock.py":
        for patch in reversed(evidence.patches):
            if _uses(text, patch.target, evidence):
                yield _finding(evidence, patch, frame, result)
    tool = package_of(above[0].file) if whose == "installed" else ""
    if tool:
        call = re.search(r"[A-Za-z_]\w*(?:\.\w+)+(?=\()", text)
        if call is not None:
            yield _finding(evidence, Patched(call[0], evidence.raised_at, tool), frame, result)


def _unsent(evidence: Evidence) -> Iterator[Finding]:
    """Yield the replacement that kept the payload from a child, which then waits for it and never begins."""
    children = evidence.hanging.children if evidence.hanging is not None else ()
    if not any(launch.method == evidence.method and not stacks for launch, stacks in children):
        return
    kinds = ("popen_forkserver",) if evidence.method == "forkserver" else ("popen_spawn_posix", "popen_spawn_win32")
    for module in (evidence.parent.modules.get(f"multiprocessing.{kind}") for kind in kinds):
        file = getattr(module, "__file__", None)
        lines = linecache.getlines(file) if file else []
        for patch in reversed(evidence.patches):
            line = next((n for n, text in enumerate(lines, 1) if _uses(text, patch.target, evidence)), None)
            if file and line is not None:
                frame = Frame(file, line, "_launch", "")
                yield _finding(evidence, patch, frame, "the child waits for what it is to run")


def _misled(evidence: Evidence) -> Iterator[Finding]:
    """Yield the setting with which a child's interpreter ends before it begins."""
    reported = {each.pid for each in evidence.reports}
    for launch in evidence.launches:
        name = launch.observed.misled if launch.observed is not None else ""
        if not name or launch.exit_code in (0, None) or launch.pid in reported:
            continue
        module = evidence.parent.modules.get("multiprocessing.spawn")
        file, text = getattr(module, "__file__", None) or "", "frozen" if name == "sys.frozen" else "_python_exe"
        lines = linecache.getlines(file)
        frame = Frame(file, next((n for n, each in enumerate(lines, 1) if text in each), 1), "get_command_line", "")
        patch = next((each for each in reversed(evidence.patches) if each.target == name), None)
        if name == "sys.frozen":
            result = f"a child gets the command line of a frozen program and ends with exit code {launch.exit_code}"
            found = _finding(evidence, patch or Patched(name, launch.place, "assignment"), frame, result)
            fix = "set sys.frozen around the code that reads it only, and start processes outside of that"
            yield replace(found, fix=fix)
        else:
            place = next(iter(find_calls(evidence.tests, "set_executable")), launch.place)
            result = f"there is no such file, and the child ends with exit code {launch.exit_code}"
            found = _finding(evidence, Patched(name, place, "set_executable()"), frame, result)
            yield replace(found, fix="call multiprocessing.set_executable() with a Python interpreter that exists")


def _finding(evidence: Evidence, patch: Patched, frame: Frame, result: str) -> Finding:
    name = patch.target.rpartition(".")[2]
    message = (
        f"{patch.target} is replaced ({patch.by}) in the parent, and multiprocessing itself needs it to start a "
        f"process under {evidence.method}: {result}"
    )
    place = Place(frame.file, frame.line, frame.function)
    facts = [source_fact("parent", NEEDED, place)]
    if patch.place is not None:
        facts.insert(0, source_fact("parent", "set", patch.place, patch.by))
    fix = (
        f"replace {name} in the namespace of your own module that uses it, or let the replacement call the original "
        "for others; or start the process before it is replaced"
    )
    return finding_at("SM303", patch.target, patch.place or evidence.raised_at, message, facts, fix)


def _is_multiprocessing(file: str) -> bool:
    return "multiprocessing" in PurePath(file).parts and owner(file) == "stdlib"


def _line(frame: Frame) -> str:
    return linecache.getline(frame.file, frame.line)


def _until(frame: Frame) -> str:
    """Return the source of the frame's function down to its current line."""
    source = source_of(frame.file)
    around = (node.lineno for node, *_ in source.index.functions if node.lineno <= frame.line <= node.end_lineno)
    return "\n".join(source.text.splitlines()[max(around, default=1) - 1 : frame.line])


def _uses(text: str, target: str, evidence: Evidence) -> bool:
    """Return whether code calls what has the dotted name `target`: a builtin, a module's function, or a method."""
    holder, _, name = target.rpartition(".")
    if not name.isidentifier():
        return False
    if holder == "builtins":
        return re.search(rf"(?<![\w.]){name}\(", text) is not None
    if holder in evidence.parent.modules:
        return re.search(rf"(?<![\w.]){re.escape(holder)}\.{name}\b", text) is not None
    return re.search(rf"\.{name}\(", text) is not None
