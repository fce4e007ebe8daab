"""SM108 and SM204: pickling changed the parent's own object, or the child's copy differs from the original."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from ..child import copied
from ..child.differences import differences, short
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at, source_fact, values
from ..model.launch import Changed
from ..model.methods import base
from ..model.place import Place
from ..model.wire import Fields
from ..pickling import sent
from ..source import places, setters
from ..source.index import source_of
from .context import observed_in


def changed(evidence: Evidence) -> list[Finding]:
    """Return the attributes that pickling changed in the parent (SM108): notes unless the failure mentions them."""
    words = _words(evidence)
    starts = [] if base(evidence.method) == "fork" else [each for work in evidence.launches for each in work.changed]
    return [
        *(_changed(each, words) for each in starts),
        *(_changed(each, words, "task") for work in evidence.tasks for each in work.changed),
    ]


def taken(changes: Iterable[Changed]) -> tuple[Finding, ...]:
    """Return the parent's attributes that pickling deletes."""
    return tuple(_changed(each, frozenset([each.attribute])) for each in changes if each.after is None)


def _changed(each: Changed, words: frozenset[str], kind: str = "process") -> Finding:
    read = each.attribute in words or bool(each.readers & words)
    after = "is gone" if each.after is None else f"is {each.after}"
    by = "start()" if kind == "process" else "the pool, for each task"
    message = (
        f"pickling `{each.path}` changes the parent's own object: `{each.method}` is called by {by}, and afterwards "
        f"`{each.attribute}`, which was {each.before}, {after}."
    )
    fix = (
        f"let `{each.method}` change and return a copy: state = self.__dict__.copy()"
        if "__getstate__" in each.method
        else f"let `{each.method}` describe the object and leave it as it is"
    )
    facts = values(f"{each.path}.{each.attribute}", each.before, each.after or "(gone)")
    lines = _stores(each)
    found = finding_at(
        "SM108",
        f"{each.path}.{each.attribute}",
        lines[0] if lines else each.place,
        message,
        [*facts, *(source_fact("parent", "changed", place) for place in lines[:2])],
        fix,
        "cause" if read else "note",
    )
    return replace(found, every_method=kind == "task")


def _stores(each: Changed) -> list[Place]:
    if each.place is None:
        return []
    file, name = each.place.file, each.place.function
    named = re.compile(rf"""(["']|\.){re.escape(each.attribute)}\b""")
    return [place for line in each.lines if named.search((place := Place(file, line, name)).source)]


def differing(evidence: Evidence) -> list[Finding]:
    """Return how the copies that children received differ from the originals (SM204)."""
    words, read = _words(evidence), _read_by_children(evidence)
    found = []
    for account, arrived in evidence.copied:
        for kind, raw, ours, theirs in copied.lost(account, arrived, differences):
            path, each = sent.path_of(raw), None
            if kind == "identity" and (raw in account["plain"] or _is_compared(ours)):
                each = _other(path, ours)
            elif kind == "identity" and _COMPARES in read:
                each = replace(_other(path, ours), level="note")
            elif kind == "new":
                each = _new(path, *_method(account, raw))
            elif kind == "method":
                each = _another_method(path, ours, str(theirs), account["functions"].get(raw))
            elif (lost := _ATTRIBUTE.fullmatch(path)) is not None and lost["name"] in words | read:
                level: Literal["cause", "note"] = "cause" if lost["name"] in words else "note"
                each = _lacks(lost, ours, theirs, *_method(account, raw), level)
            if each is not None:
                found.append(replace(each, every_method=account["task"]))
    return found


def unshared_arrays(evidence: Evidence) -> list[Finding]:
    """Return notes on arrays in shared memory, of which a child gets the data only (SM204). An experiment decides."""
    found = []
    for observed in observed_in(evidence):
        for path, memory in observed.arrays:
            message = (
                f"`{path}` is an array in {memory}, and its copy is in memory of the child's own: pickling takes the "
                "data only, so that neither process sees what the other writes"
            )
            fix = (
                "send what the memory is found by, and make the array in the child: the name of a SharedMemory, a file "
                "with dtype and shape, or the multiprocessing Array itself"
            )
            found.append(finding_at("SM204", path, observed.place, message, (), fix, "note"))
    return found


def _is_compared(names: Iterable[str]) -> bool:
    """Return whether the module that has one of these names compares something with it by identity."""
    for module, rest in map(sent.split_name, names):
        variable = _variable(rest).rpartition(".")[2]
        file = places.module_file(module)
        compared = rf"\bis (not )?([\w.]+\.)?{variable}\b|\b{variable} is\b"
        if file is not None and re.search(compared, source_of(file).text):
            return True
    return False


def _variable(rest: str) -> str:
    return rest.partition("[")[0]


def _lacks(
    lost: re.Match[str],
    ours: object,
    theirs: object,
    cls: str,
    method: str,
    place: Place | None,
    level: Literal["cause", "note"],
) -> Finding | None:
    """Return how the attribute at a path arrives; None if its holder is pickled as any object is."""
    if not method:
        return None
    holder, name, inner = lost["holder"], lost["name"], lost["inner"]
    parts = f"`{holder}` arrives without its attribute `{name}` ({short(ours)} in the parent)"
    lacking = theirs == ["!"] and not inner
    if not lacking:
        both = f"{short(ours)} in the parent, {short(theirs)} in the child"
        parts = f"`{holder}` arrives with another `{name}{inner}` ({both})"
    message = f"{parts}: {cls} is pickled by `{method}`, which does not return it."
    own = cls.rpartition(".")[2]
    fix = (
        f"define __getstate__ and __setstate__ in {own}: return the state of `{method}` together with `{name}`, and "
        "set both again"
    )
    if method.startswith(f"{own}.__reduce"):
        fix = f"let `{method}` return `{name}`, too: in the state, which is the third item of the tuple"
    facts = values(f"{holder}.{name}{inner}", short(ours), "(missing)" if lacking else short(theirs))
    return finding_at("SM204", f"{holder}.{name}", place, message, facts, fix, level)


def _new(path: str, cls: str, method: str, place: Place | None) -> Finding:
    message = (
        f"`{path}` of the copy is not the one that was sent: unpickling {cls or 'its holder'} makes a new one, which "
        f"nobody else has."
    )
    fix = "send the lock, pipe or queue itself in the state, and do not make another one in __setstate__ or __init__"
    return finding_at("SM204", path, place, message, [f"pickled by `{method}`"] if method else [], fix)


def _another_method(path: str, ours: str, theirs: str, place: Place | None) -> Finding:
    holder, _, name = ours.rpartition(".")
    message = (
        f"`{path}` is the bound method `{ours}`, and the child gets `{theirs}`: pickle sends a method as its object "
        f"and its name, `{name}`, and the object has another function of that name"
    )
    fix = f"send a method of another name that calls `{holder.rpartition('.')[2]}.{name}`, or a function of a module"
    if holder.endswith(".<locals>"):
        fix = f"let `{name}` have the name under which the class has it: @functools.wraps in the decorator"
    return finding_at("SM204", path, place, message, values(path, ours, theirs), fix)


def _other(path: str, names: Sequence[str]) -> Finding:
    made = {}
    for each in names:
        module, rest = sent.split_name(each)
        made[each] = setters.made_at_import(module, tuple(_variable(rest).split(".")))
    name = next((each for each, place in made.items() if place is not None), names[0])
    place, variable = made[name], sent.split_name(name)[1]
    told = f"`is {variable}`" if place is not None and "[" not in variable else "a comparison with it by `is`"
    message = (
        f"`{path}` is `{name}`, an object that is told by its identity: the child gets a copy of it, which is another "
        f"object than the child's own `{name}`, so {told} is False there."
    )
    fix = (
        f"make `{variable}` a member of an Enum, None, or an object whose class has a __reduce__ that returns its "
        f"name, {variable!r}"
    )
    if told.startswith("a"):
        fix = (
            "give its class a __reduce__ that returns the function which finds or makes the one object of a process, "
            "with its arguments; or compare by value, with an __eq__ of the class"
        )
    place = place or setters.made_later(sent.split_name(name)[0], _variable(variable).rpartition(".")[2])
    return finding_at("SM204", path, place, message, values(path, name, f"a copy of {name}"), fix)


def _method(account: Fields, path: str) -> tuple[str, str, Place | None]:
    """Return the class, pickling method and its place for the object that holds the part at `path`."""
    methods: Mapping[str, tuple[str, str, Place | None]] = account["methods"]
    holders = [each for each in methods if path.startswith(each)]
    return methods[max(holders, key=lambda each: (each != path, len(each)))] if holders else ("", "", None)


def _words(evidence: Evidence) -> frozenset[str]:
    """Return the words in the leg's failure, its children's errors, and the source lines of their tracebacks."""
    return frozenset(_WORD.findall(" ".join(_texts(evidence))))


def _read_by_children(evidence: Evidence) -> frozenset[str]:
    """Return the attributes and short texts, such as the argument of ``getattr``, that the children's code reads.

    `_COMPARES` is among them if it compares variables, which for most objects is by identity.
    """
    found: set[str] = set()
    for file, _, first in {code for observed in observed_in(evidence) for code in observed.codes}:
        for each in (part for node, _ in source_of(file).index.functions_at(first) for part in ast.walk(node)):
            if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Load):
                found.add(each.attr)
            elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                found.add(each.value)
            elif isinstance(each, ast.Compare) and not any(
                isinstance(side, ast.Constant) for side in (each.left, *each.comparators)
            ):
                found.add(_COMPARES)
    return frozenset(found)


_COMPARES: Final = "is"
"""Stands for a comparison of two variables among what the children's code reads."""
_ATTRIBUTE: Final = re.compile(r"(?P<holder>.*)\.(?P<name>\w+)(?P<inner>(\[[^\]]*\])*)")
_WORD: Final = re.compile(r"\w+")


def _texts(evidence: Evidence) -> Iterator[str]:
    yield evidence.text
    for raised in (*evidence.raised, *(each for report in evidence.reports for each in report.raised)):
        yield raised.message
        yield from (frame.source for frame in raised.frames)
