"""SM108 and SM204: pickling changed the parent's own object, or the child's copy differs from the original."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..child import copied
from ..child.differences import differences, short
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at, source_fact, values
from ..model.launch import Changed, Launch
from ..model.methods import base
from ..model.place import Place
from ..pickling import sent
from ..source import places


def changed(evidence: Evidence) -> list[Finding]:
    """Return the attributes that pickling changed in the parent (SM108): notes unless the failure mentions them."""
    if base(evidence.method) == "fork":
        return []
    words = _words(evidence)
    return [_changed(each, words) for launch in evidence.launches for each in launch.changed]


def taken(changes: Iterable[Changed]) -> tuple[Finding, ...]:
    """Return the parent's attributes that pickling deletes."""
    return tuple(_changed(each, frozenset([each.attribute])) for each in changes if each.after is None)


def _changed(each: Changed, words: frozenset[str]) -> Finding:
    read = each.attribute in words or bool(each.readers & words)
    after = "is gone" if each.after is None else f"is {each.after}"
    message = (
        f"pickling `{each.path}` changes the parent's own object: `{each.method}` is called by start(), and afterwards "
        f"`{each.attribute}`, which was {each.before}, {after}."
    )
    fix = (
        f"let `{each.method}` change and return a copy: state = self.__dict__.copy()"
        if "__getstate__" in each.method
        else f"let `{each.method}` describe the object and leave it as it is"
    )
    facts = values(f"{each.path}.{each.attribute}", each.before, each.after or "(gone)")
    lines = _stores(each)
    return finding_at(
        "SM108",
        f"{each.path}.{each.attribute}",
        lines[0] if lines else each.place,
        message,
        [*facts, *(source_fact("parent", "changed", place) for place in lines[:2])],
        fix,
        "cause" if read else "note",
    )


def _stores(each: Changed) -> list[Place]:
    if each.place is None:
        return []
    file, name = each.place.file, each.place.function
    named = re.compile(rf"""(["']|\.){re.escape(each.attribute)}\b""")
    return [place for line in each.lines if named.search((place := Place(file, line, name)).source)]


def differing(evidence: Evidence) -> list[Finding]:
    """Return how the copies that children received differ from the originals (SM204)."""
    words = _words(evidence)
    found = []
    for launch, arrived in evidence.copied:
        assert launch.account is not None
        for kind, path, ours, _ in copied.lost(launch.account, arrived, differences):
            if kind == "identity":
                found.append(_other(sent.path_of(path), ours))
            elif kind == "new":
                found.append(_new(sent.path_of(path), *_method(launch, path)))
            elif kind == "lacks" and path.rpartition(".")[2] in words:
                found.append(_lacks(path, ours, *_method(launch, path)))
    return found


def _lacks(path: str, ours: object, cls: str, method: str, place: Place | None) -> Finding:
    holder, _, name = sent.path_of(path).rpartition(".")
    message = (
        f"`{holder}` arrives without its attribute `{name}` ({short(ours)} in the parent): {cls} is pickled by "
        f"`{method}`, which does not return it."
    )
    fix = (
        f"define __getstate__ and __setstate__ in {cls.rpartition('.')[2]}: return the state of `{method}` together "
        f"with `{name}`, and set both again"
    )
    facts = values(f"{holder}.{name}", short(ours), "(missing)")
    return finding_at("SM204", f"{holder}.{name}", place, message, facts, fix)


def _new(path: str, cls: str, method: str, place: Place | None) -> Finding:
    message = (
        f"`{path}` of the copy is not the one that was sent: unpickling {cls or 'its holder'} makes a new one, which "
        f"nobody else has."
    )
    fix = "send the lock, pipe or queue itself in the state, and do not make another one in __setstate__ or __init__"
    return finding_at("SM204", path, place, message, [f"pickled by `{method}`"] if method else [], fix)


def _other(path: str, name: str) -> Finding:
    module, _, variable = name.rpartition(".")
    place = places.named_place(module, variable)
    message = (
        f"`{path}` is `{name}`, an object that is told by its identity: the child gets a copy of it, which is another "
        f"object than the child's own `{name}`, so `is {variable}` is False there."
    )
    fix = (
        f"make `{variable}` a member of an Enum, None, or an object whose class has a __reduce__ that returns its "
        f"name, {variable!r}"
    )
    return finding_at("SM204", path, place, message, values(path, name, f"a copy of {name}"), fix)


def _method(launch: Launch, path: str) -> tuple[str, str, Place | None]:
    """Return the class, pickling method and its place for the object that holds the part at `path`."""
    assert launch.account is not None
    methods: Mapping[str, tuple[str, str, Place | None]] = launch.account["methods"]
    holders = [each for each in methods if path.startswith(each)]
    return methods[max(holders, key=len)] if holders else ("", "", None)


def _words(evidence: Evidence) -> frozenset[str]:
    """Return the words in the leg's failure, its children's errors, and the source lines of their tracebacks."""
    return frozenset(re.findall(r"\w+", " ".join(_texts(evidence))))


def _texts(evidence: Evidence) -> Iterator[str]:
    yield evidence.text
    for raised in (*evidence.raised, *(each for report in evidence.reports for each in report.raised)):
        yield raised.message
        yield from (frame.source for frame in raised.frames)
