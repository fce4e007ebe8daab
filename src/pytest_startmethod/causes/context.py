"""What the rules on state know of the leg, and how they name places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..model.evidence import Evidence
from ..model.finding import Fact, source_fact
from ..model.observed import Observed, Read, Where
from ..model.patched import Patched
from ..model.place import Place

_MAX_OBSERVED = 6
"""The code of no more launches and tasks of a leg is compared."""


@dataclass(frozen=True, slots=True)
class Context:
    """What else is known of the leg."""

    patches: Sequence[Patched] = ()
    """What was patched while it ran."""
    touched: frozenset[tuple[str, str]] = frozenset()
    """File and function of each frame of the tracebacks of parent and children."""
    lines: frozenset[tuple[str, int]] = frozenset()
    """File and line of each of the parent's frames."""
    raised: frozenset[tuple[str, int]] = frozenset()
    """File and line of each frame of the children's tracebacks."""
    failed: bool = True
    passed_under_fork: bool | None = None
    environ: Mapping[str, str] | None = None
    """What a forkserver child has, where it is not what the parent has."""
    tests: tuple[str, ...] = ()
    """The test's own files: where something was set is looked for there first."""
    initialized: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    """Names that an initializer sets in each worker."""
    compares: bool = True
    """Whether values that differ can be the reason: not where the test passes or fails the same way without that."""
    elsewhere: bool = False
    """Whether the failure was raised in code of others, and is no assertion."""
    errors: frozenset[str] = frozenset()
    """The types of what the leg and its children raised."""


def observed_in(evidence: Evidence) -> list[Observed]:
    """Return what is known of the code of the leg's children, once for each function and line that started it."""
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
    """Return whether values that differ can be the reason of the failure.

    Not where the leg under fork failed alike, or a child under spawn, which has the same values, passed.
    """
    fork, spawn = evidence.others.get("fork"), evidence.others.get("spawn")
    alike = fork is not None and fork.outcome == "failed" and fork.failed_with == evidence.failed_with
    passed_under_spawn = evidence.method == "forkserver" and spawn is not None and spawn.outcome == "passed"
    return evidence.method != "fork" and not alike and not passed_under_spawn


def context_of(evidence: Evidence) -> Context:
    """Return what the evidence says of the leg."""
    fork = evidence.others.get("fork")
    raised_there = [*evidence.remote, *(raised for each in evidence.reports for raised in each.raised)]
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
        compares=compares(evidence),
        elsewhere=evidence.raised_elsewhere,
        errors=frozenset(each.type for each in (*evidence.raised, *raised_there)),
    )


def initialized(evidence: Evidence) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Return the names that initializers of the leg's pools set in each worker."""
    tasks = [each.observed for each in evidence.tasks if each.how == "initializer" and each.observed is not None]
    return frozenset((write.module, write.names) for each in tasks for write in each.writes if write.rebinds)


# -- places --------------------------------------------------------------------------------------------------------


def best_place(read: Read, context: Context) -> Where:
    """Return the place that a traceback names, if one does: its line, or else its function."""
    places = [read.where, *read.also]
    exact = [each for each in places if (each.file, each.line) in context.raised]
    return next(iter([*exact, *(each for each in places if is_touched(each, context))]), read.where)


def is_touched(where: Where, context: Context) -> bool:
    """Return whether a function stands in a traceback. 3.10 has no qualified names there."""
    name = where.function.rpartition(".")[2]
    return any(file == where.file and function.rpartition(".")[2] == name for file, function in context.touched)


def reader(where: Where) -> str:
    """Return the name of the function, without those that it is nested in."""
    return where.function.rpartition("<locals>.")[2]


def place_of(where: Where) -> Place:
    """Return the line of an instruction."""
    return Place(where.file, where.line, where.function)


def at(label: str, where: Where, about: str = "") -> Fact:
    """Return what the child's code does at a line."""
    return source_fact("child", label, place_of(where), about)
