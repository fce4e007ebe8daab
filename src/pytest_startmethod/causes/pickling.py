"""SM101 to SM107: turn unpicklable leaves into findings with place, evidence and fix."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from .._compat import cpython
from ..model.codes import CAUSES
from ..model.finding import Finding
from ..model.walk import Leaf, Step, Walk
from ..pickling import dry_run
from ..pickling.dry_run import Call
from ..source import kinds
from . import containers
from .pickling_names import by_name, local_class
from .pickling_objects import (
    foreign_primitive,
    invalid_reduction,
    is_foreign,
    raised_by,
    raising_method,
    reduction_method,
    resource,
    unpicklable,
)
from .pickling_search import Mode, by_value, path_of, search
from .pickling_subject import Subject, one_line

_MAX_FINDINGS = 20


def diagnose(
    obj: object,
    *,
    error: BaseException | None = None,
    task: bool = False,
    allow_fork_primitives: bool = False,
    method: str = "spawn",
    budget: int = 1_000_000,
) -> tuple[Finding, ...]:
    """Return why `obj` does not pickle, one finding per cause, nearest first; empty if it does.

    `obj` is a process about to start, a task as a pool or executor queues it, or any payload. `error` is the
    interpreter's exception, if known; `budget` limits the number of objects visited. `task` and `allow_fork_primitives`
    are as for `dry_run.dry_run`. If the place cannot be found, the finding is the interpreter's error alone.
    """
    try:
        return _diagnose(obj, error, Mode(task, allow_fork_primitives, method), budget)
    except Exception as failure:
        if error is None:
            error = dry_run.dry_run(obj, task=task, allow_fork_primitives=allow_fork_primitives).error
        return () if error is None else (_placeless(error, (f"the search itself failed: {one_line(failure)}",)),)


def _diagnose(obj: object, error: BaseException | None, mode: Mode, budget: int) -> tuple[Finding, ...]:
    root = dry_run.as_call(obj)
    if error is None:
        error = mode.error_of(root)
        if error is None:
            return ()
    found = search(root, mode.task, mode.allow, budget)
    if not cpython.stock_pickler(cpython.forking_pickler()):
        found = replace(found, leaves=tuple(by_value(found.leaves, mode, budget)))
    if not found.leaves:
        if isinstance(error, RecursionError) and len(found.deepest) > 50:
            return (_too_deep(root, error, found),)
        facts = [] if found.complete else [f"only the first {found.visited:,} objects were looked at"]
        return (_placeless(error, facts),)
    findings: dict[object, Finding] = {}
    for groups in containers.gathered(_grouped(root, found.leaves)):
        finding = finding_of(Subject(root, groups[0], mode))
        if len(groups) > 1:
            finding = containers.counted(finding, path_of(root, containers.container_of(groups[0]) or ()), groups)
        findings.setdefault(finding.key, finding)
        if len(findings) >= _MAX_FINDINGS:
            break
    return tuple(sorted(findings.values(), key=_importance))


def _importance(finding: Finding) -> bool:
    return not (finding.path == "target" or finding.path.startswith("target."))


def _grouped(root: object, leaves: Sequence[Leaf]) -> list[list[tuple[Leaf, int]]]:
    """Group the leaves by the object to report; each with that object's index in its chain."""
    groups: dict[int, list[tuple[Leaf, int]]] = {}
    for leaf in leaves:
        top = None if isinstance(root, Call) or cpython.is_process(root) else root
        at = kinds.actionable(top, leaf.chain, leaf.obj)
        obj = leaf.chain[at][1] if at >= 0 else leaf.root
        groups.setdefault(id(obj), []).append((leaf, at))
    # Leaves inside an object that is unpicklable anyway belong to its explanation, and need no fix of their own.
    whole = {key for key, ((leaf, at), *_) in groups.items() if 0 <= at < len(leaf.chain) - 1}
    for key in list(groups):
        leaf, at = groups[key][0]
        outside = enumerate(leaf.chain[: max(at, 0)])
        around = next((i for i, (_, obj) in outside if id(obj) in whole and id(obj) in groups), None)
        if around is not None:
            groups[id(leaf.chain[around][1])] += [(each, around) for each, _ in groups.pop(key)]
    return list(groups.values())


def finding_of(subject: Subject) -> Finding:
    """Return the finding for a subject."""
    obj, leaf = subject.obj, subject.leaf
    if not subject.is_leaf or kinds.judged_whole(obj):
        return resource(subject)
    if leaf.kind == "name":
        if isinstance(obj, type):
            return local_class(subject)
        return by_name(subject)
    if leaf.kind == "invalid":
        return invalid_reduction(subject)
    if is_foreign(leaf.error):
        return foreign_primitive(subject)
    method = raising_method(leaf.error)
    if method is not None:
        return raised_by(subject, method)
    if kinds.is_users(type(obj)) and f"{reduction_method(type(obj))[0]} should return" in str(leaf.error):
        return invalid_reduction(subject)
    return unpicklable(subject)


def _placeless(error: BaseException, facts: Sequence[str]) -> Finding:
    """Return a finding without a place: pickling fails, but the walk did not find where."""
    code = "SM103" if isinstance(error, (TypeError, AttributeError)) or "ickl" in type(error).__name__ else "SM105"
    notes = [str(note) for note in getattr(error, "__notes__", ())][:8]
    message = f"pickling failed with {one_line(error)}. The place could not be found."
    fix = "pass plain values, and make what cannot be pickled inside the child"
    return Finding(code, CAUSES[code].name, "cause", "", None, None, message, (*notes, *facts), fix)


def _too_deep(root: object, error: BaseException, found: Walk) -> Finding:
    steps = found.deepest
    path = path_of(root, steps)
    trimmed = _repeating(root, steps)
    message = (
        f"the objects nest {len(steps):,} deep, and pickle recurses once or more for each level: {one_line(error)}."
    )
    fix = (
        "flatten the chain: pass a list and link the objects again in the child (`__getstate__` can do that), so that "
        "the depth no longer grows with the number of objects; a higher recursion limit only moves the limit"
    )
    facts = (f"sys.getrecursionlimit() is {sys.getrecursionlimit()}",)
    return Finding("SM107", CAUSES["SM107"].name, "cause", trimmed or path, None, None, message, facts, fix)


def _repeating(root: object, steps: Sequence[Step]) -> str | None:
    """Return the path as far as its first repetition, written twice: ``args[0].nxt.nxt...``; None if it has none."""
    for start in range(min(len(steps), 12)):
        for period in range(1, 5):
            group = list(steps[start : start + period])
            if len(group) == period and all(
                list(steps[start + k * period : start + (k + 1) * period]) == group for k in range(1, 6)
            ):
                end = start + 2 * period
                return path_of(root, steps[:end]) + "..."
    return None
