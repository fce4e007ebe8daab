"""Merge findings about many objects in one container that fail to pickle for the same reason."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from ..model.finding import Finding
from ..model.walk import Leaf, Step, path_text

Group = list[tuple[Leaf, int]]
"""The leaves inside one reported object, each with the object's index in the leaf's chain."""

_MANY = 4
"""Fewer objects than this are reported one by one."""
_SHOWN = 4
_INSIDE = ("item", "element", "key")
_ARGUMENTS = tuple((("attribute", name),) for name in ("args", "kwargs", "_args", "_kwargs"))
"""Containers of separate arguments, which are never merged."""


def gathered(groups: Sequence[Group]) -> list[list[Group]]:
    """Return the groups in order, merging those at the same position in the entries of one container."""
    found: dict[object, list[Group]] = {}
    for group in groups:
        found.setdefault(_alike(group), []).append(group)
    return [
        part for every in found.values() for part in ([every] if len(every) >= _MANY else [[each] for each in every])
    ]


def container_of(group: Group) -> tuple[Step, ...] | None:
    """Return the steps to the innermost container around the object, or None if there is none."""
    leaf, at = group[0]
    steps = [step for step, _ in leaf.chain[: at + 1]]
    last = next((n for n in reversed(range(len(steps))) if steps[n][0] in _INSIDE), None)
    return None if last is None else tuple(steps[:last])


def counted(finding: Finding, path: str, groups: Sequence[Group]) -> Finding:
    """Return the first group's finding, reworded to cover all `groups`, at the container's `path`."""
    depth = len(container_of(groups[0]) or ())
    names = [path_text("", [step for step, _ in leaf.chain[depth : depth + 1]]) for leaf, _ in (g[0] for g in groups)]
    shown, more = ", ".join(names[:_SHOWN]), len(names) - _SHOWN
    text = f"{len(names)} entries of `{path}` do not pickle for this reason: {shown}" + (
        f" and {more} more" if more > 0 else ""
    )
    return replace(finding, path=path, evidence=(text, *finding.evidence))


def _alike(group: Group) -> Hashable:
    """Return a key shared by groups at the same position in the entries of one container."""
    leaf, at = group[0]
    inside = container_of(group)
    if inside is None or inside in _ARGUMENTS:
        return id(group)
    depth = len(inside)
    container = leaf.chain[depth - 1][1] if depth else leaf.root
    below = tuple(str(step) for step, _ in leaf.chain[depth + 1 : at + 1])
    return id(container), below, leaf.kind, type(leaf.chain[at][1])
