"""SM307 and SM308: primitives that each child makes for itself, and writes that never reach the parent."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from ..model.finding import finding_at, source_fact
from ..model.observed import Lost, Observed, Where
from ..source.setters import made_at_import
from .context import Context, at, best_place, is_touched, place_of, reader
from .pickling_subject import with_article
from .ranking import Ranked, Weight

# -- primitives and writes ---------------------------------------------------------------------------------------------


_ANONYMOUS = re.compile(r"\bmmap\(\s*(?:fileno\s*=\s*)?-1\b")
_LOADING = ("__setstate__", "__init__", "__new__", "__setattr__", "__post_init__")
"""Methods that a child calls to rebuild an object sent by the parent."""


def primitives(observed: Observed, context: Context, lacked: Collection[str] = ()) -> list[Ranked]:
    """Return multiprocessing objects that each fresh child makes anew at import (SM307), except those at `lacked`."""
    found = []
    if observed.method == "fork":
        return []
    for binding in observed.primitives:
        if f"{binding.path}{binding.inner}" in lacked or any(
            w.rebinds and (w.module, w.names) == (binding.module, binding.names) for w in observed.writes
        ):
            continue  # an initializer passes it to each worker
        if (binding.module, binding.names) in context.initialized or not context.compares:
            continue
        place = made_at_import(binding.module, binding.names)
        if place is None:
            continue
        kind = str(binding.node[1]).rpartition(".")[2]
        mapped = kind == "mmap"
        if mapped and not _ANONYMOUS.search(source_fact("parent", "made", place).text):  # it has the file's content
            continue
        message = (
            f"{binding.path} is {with_article(kind)} that is made when the module is imported: each fresh child has "
            f"one of its own, shared with nobody; {reader(binding.read.where)} uses it"
        )
        fix = (
            f"make the {kind} where the processes are started and pass it on: as an argument of Process, or through a "
            "pool's initializer and initargs"
        )
        if mapped:
            fix = (
                "make a multiprocessing.shared_memory.SharedMemory or a RawArray where the processes are started and "
                "pass that on: memory without a file is shared by forking only"
            )
        where = best_place(binding.read, context)
        evidence = (at("read", where), source_fact("parent", "made", place))
        level: Literal["cause", "note"] = (
            "cause" if context.failed and context.passed_under_fork is not False else "note"
        )
        touched = is_touched(where, context)
        finding = finding_at("SM307", binding.path, place_of(where), message, evidence, fix, level)
        found.append(Ranked(finding, Weight(level == "note", not touched, elsewhere=False, depth=2)))
    return found


def lost(observed: Observed, context: Context) -> list[Ranked]:
    """Return what the child changes and the parent reads afterwards (SM308)."""
    if not context.failed or context.passed_under_fork:
        return []
    found = []
    for each in observed.lost:
        if not each.write.module and each.write.where.function.rpartition(".")[2] in _LOADING:
            continue  # unpickling an argument changes nothing
        read = _read_before_failing(each, context)
        if read is None:
            continue
        write, where = each.write, each.write.where
        path = write.path if write.module else write.names[0]
        what = path if write.module or each.name == path else f"{path} ({each.name})"
        message = (
            f"{reader(where)} changes {what} in the child, in a copy that is the child's own; the parent reads its "
            f"own at {read.file}:{read.line}"
        )
        fix = (
            "let the child send its result: return it through a pool or a Queue or Pipe, or share it with "
            "multiprocessing.Value, Array or a Manager"
        )
        facts = (at("written", where), source_fact("parent", "read", place_of(read)))
        finding = finding_at("SM308", path, place_of(where), message, facts, fix)
        exact = (read.file, read.line) in context.lines
        found.append(Ranked(finding, Weight(untouched=not exact)))
    return found


def _read_before_failing(each: Lost, context: Context) -> Where | None:
    """Return the read that may have caused the failure: one on a failing line if possible, otherwise one before it.

    Ignores reads by the writer itself (``if _cache is None: _cache = ...``): it recreates the value where that is
    missing. Ignores those in the code of tasks, too, which the parent names and a worker runs.
    """
    exact = [r for r in each.reads if (r.file, r.line) in context.lines]
    if exact:
        return exact[0]
    writer = (each.write.where.file, each.write.where.function)
    reads = [r for r in each.reads if (r.file, r.function) not in {writer, *context.in_tasks}]
    if not context.lines:
        return reads[0] if reads else None
    if context.elsewhere:  # a time-out or a refused connection is not caused by a value read on the way
        return None
    last: dict[str, int] = {}
    for file, line in context.lines:
        last[file] = max(line, last.get(file, 0))
    files = [r for r in reads if r.file not in last or r.line <= last[r.file]]
    return files[0] if files else None
