"""The facts about the leg that the state rules share, and their wording of places."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..model.child_report import Raised
from ..model.evidence import Evidence
from ..model.finding import Fact, source_fact
from ..model.launch import Launch, Task
from ..model.observed import Observed, Read, Where
from ..model.patched import Patched
from ..model.place import Place
from ..source.callers import user_files
from ..source.index import find_names

_ASKS = ("get_start_method", "_start_method")
_MAX_OBSERVED = 6
"""At most this many launches and tasks of a leg have their code compared."""


@dataclass(frozen=True, slots=True)
class Context:
    """Facts about the leg, apart from what its code reads."""

    patches: Sequence[Patched] = ()
    """Patches applied while it ran."""
    touched: frozenset[tuple[str, str]] = frozenset()
    """File and function of each traceback frame, in the parent and the children."""
    lines: frozenset[tuple[str, int]] = frozenset()
    """File and line of each frame of the parent's tracebacks."""
    raised: frozenset[tuple[str, int]] = frozenset()
    """File and line of each frame of the children's tracebacks."""
    failed: bool = True
    passed_under_fork: bool | None = None
    environ: Mapping[str, str] | None = None
    """A forkserver child's environment; None under other methods."""
    tests: tuple[str, ...] = ()
    """The test's own files, searched first for the line that set something."""
    initialized: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    """Module and names of the globals that an initializer sets in each worker."""
    in_tasks: frozenset[tuple[str, str]] = frozenset()
    """File and function of the code that tasks run in the workers."""
    compares: bool = True
    """Whether differing values can explain the failure; see `compares`."""
    elsewhere: bool = False
    """Whether the failure was raised in third-party code and is not an assertion."""
    errors: frozenset[str] = frozenset()
    """The exception types raised by the leg and its children."""
    missed: tuple[str, ...] = ()
    """The keys and attributes that a child looked for in vain, as steps of a path: ``['name']``, ``.name``."""


def observed_in(evidence: Evidence) -> list[Observed]:
    """Return what the code of the leg's children reads, once for each function and starting line."""
    every = [each.observed for each in evidence.launches if each.error is None]
    every += [each.observed for each in evidence.tasks if each.how != "initializer"]
    every += [each.later for each in evidence.tasks if each.how != "initializer"]
    every += [each.observed for each in evidence.tasks if each.how == "initializer"]
    every += [each.observed for each in evidence.inherited if each.error is None]
    kept: dict[object, Observed] = {}
    for each in every:
        if each is not None and each.method == evidence.method:
            kept.setdefault((each.target, each.place, each.print), each)
    return list(kept.values())[:_MAX_OBSERVED]


def compares(evidence: Evidence) -> bool:
    """Return whether differing values can explain the failure.

    Not if the fork leg failed in the same way, or if spawn, whose children have the same values, passed; unless a file
    that the leg ran through asks for the start method: it may prepare the children of one, and forget the other.
    """
    fork, spawn = evidence.others.get("fork"), evidence.others.get("spawn")
    alike = fork is not None and fork.outcome == "failed" and fork.failed_with == evidence.failed_with
    passed_under_spawn = evidence.method == "forkserver" and spawn is not None and spawn.outcome == "passed"
    if passed_under_spawn and not any(find_names(_files(evidence), name) for name in _ASKS):
        return False
    return evidence.method != "fork" and not alike


def _files(evidence: Evidence) -> set[str]:
    """Return the user's files that the leg ran through, as far as known."""
    work: list[Launch | Task] = [*evidence.launches, *evidence.tasks]
    found = {*evidence.tests, *(each.file for each in evidence.frames)}
    found |= {each.place.file for each in work if each.place is not None}
    found |= {file for each in work if each.observed is not None for file, _, _ in each.observed.codes}
    return found.intersection(user_files())


def context_of(evidence: Evidence) -> Context:
    """Return the leg's context."""
    fork = evidence.others.get("fork")
    raised_there = [*evidence.raised_in_children, *quoted(evidence)]
    theirs = [frame for raised in raised_there for frame in raised.frames]
    return Context(
        patches=evidence.patches,
        touched=frozenset((each.file, each.function) for each in (*evidence.frames, *theirs)),
        lines=frozenset((each.file, each.line) for each in evidence.frames),
        raised=frozenset((each.file, each.line) for each in theirs),
        failed=evidence.outcome == "failed",
        passed_under_fork=None if fork is None else fork.outcome == "passed",
        environ=evidence.environ if evidence.method == "forkserver" else None,
        tests=tuple(evidence.tests),
        initialized=initialized(evidence),
        in_tasks=frozenset(
            (file, function)
            for task in evidence.tasks
            if task.how != "initializer" and task.observed is not None
            for file, function, _ in task.observed.codes
        ),
        compares=compares(evidence),
        elsewhere=evidence.raised_elsewhere,
        errors=frozenset(each.type for each in (*evidence.raised, *raised_there)),
        missed=tuple(
            f"[{each.message}]" if each.type == "KeyError" else f".{each.name}"
            for each in raised_there
            if each.type == "KeyError" or each.name
        ),
    )


_QUOTED = re.compile(r"\b(?P<type>[A-Za-z_][\w.]*(?:Error|Exception))(?:\((?P<args>[^\n]*\))|: (?P<message>[^\n]+))")


def quoted(evidence: Evidence) -> list[Raised]:
    """Return the exceptions whose ``repr()`` or last traceback line is in the failure's message.

    Code that catches what its child raises often sends no more than such a text to the parent.
    """
    found = []
    for match in _QUOTED.finditer(evidence.raised[0].message if evidence.raised else ""):
        kind, message = match["type"], match["message"]
        ends = [each.start() for each in re.finditer(r"\)", match["args"] or "")][:9]
        for end in ends:
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                args = ast.literal_eval(f"({match['args'][:end]},)")
                message = str(args[0]) if len(args) == 1 else str(args)
                if kind == "KeyError" and args:
                    message = repr(args[0])
                elif len(args) > 1 and type(args[0]) is int:
                    message = f"[Errno {args[0]}] {args[1]}"
                break
        if message is not None:
            found.append(Raised(kind, message))
    return found


def initialized(evidence: Evidence) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Return module and names of the globals that the initializers of the leg's pools set."""
    tasks = [each.observed for each in evidence.tasks if each.how == "initializer" and each.observed is not None]
    return frozenset((write.module, write.names) for each in tasks for write in each.writes if write.rebinds)


# -- places --------------------------------------------------------------------------------------------------------


def best_place(read: Read, context: Context) -> Where:
    """Return the read that is in a traceback, by line or else by function; the first read if none is."""
    places = [read.where, *read.also]
    exact = [each for each in places if (each.file, each.line) in context.raised]
    return next(iter([*exact, *(each for each in places if is_touched(each, context))]), read.where)


def is_touched(where: Where, context: Context) -> bool:
    """Return whether the function is in a traceback. Python 3.10's frames have no qualified names."""
    name = where.function.rpartition(".")[2]
    return any(file == where.file and function.rpartition(".")[2] == name for file, function in context.touched)


def reader(where: Where) -> str:
    """Return the function's name without its enclosing functions."""
    return where.function.rpartition("<locals>.")[2]


def place_of(where: Where) -> Place:
    """Return the instruction's place."""
    return Place(where.file, where.line, where.function)


def at(label: str, where: Where, about: str = "") -> Fact:
    """Return a fact about a line of the child's code."""
    return source_fact("child", label, place_of(where), about)
