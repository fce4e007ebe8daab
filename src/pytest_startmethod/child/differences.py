"""Compare two descriptions of `values`, and render a description as short text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from .values import SHOWN

_EARLIER = "['^', "
"""In the description of a key or of a set's item: an object described earlier. Sets have no order, so that its number
says nothing about the other side, where another object may have come first."""
_SET = "['<', "
Parts = Iterator[tuple[object, object, "str | None"]]
"""Both sides of each part and the step to it. A step of None means: report the whole."""


def differences(ours: object, theirs: object, path: str = "", limit: int = 20) -> list[tuple[str, Any, object]]:
    """Return the differences between two descriptions: the path within the value, and both parts."""
    if ours == theirs:
        return []
    found: list[tuple[str, object, object]] = []
    ordered = _SET not in repr(ours) and _SET not in repr(theirs)
    for each in _differ(ours, theirs, path, 0, ordered):
        found.append(each)
        if len(found) >= limit:
            break
    return found


def _differ(a: Any, b: Any, path: str, depth: int, ordered: bool) -> Iterator[tuple[str, object, object]]:
    if a == b or a == ["-"] or b == ["-"] or depth > 50:
        return
    kind = a[0]
    if not ordered and "^" in (kind, b[0]):
        return
    within = _WITHIN.get(kind)
    if kind != b[0] or within is None or (kind in "({<od" and a[1] != b[1]):
        yield path, a, b
        return
    for x, y, step in within(a, b):
        if step is None:  # its parts say no more than the whole
            yield path, a, b
        else:
            yield from _differ(x, y, path + step, depth + 1, ordered)


_SEVERAL = 8
"""How many items of a container are shown."""


def _in_sequence(a: Any, b: Any) -> Parts:
    common = min(len(a[2]), len(b[2]))
    if common >= _SEVERAL and len(a[2]) != len(b[2]) and a[2][:common] == b[2][:common]:
        ours, theirs = (each[2][common] if len(each[2]) > common else ["!"] for each in (a, b))
        yield ours, theirs, f"[{common}]"
        return
    if len(a[2]) != len(b[2]) and ["-"] not in (*a[2][-1:], *b[2][-1:]):
        yield None, None, None
        return
    for index, (x, y) in enumerate(zip(a[2], b[2])):  # noqa: B905 - one may be cut
        yield x, y, f"[{index}]"


def _in_mapping(a: Any, b: Any) -> Parts:
    ours, theirs = ({text: (key, value) for key, value in each[2] if _EARLIER not in (text := repr(key))}
                    for each in (a, b))  # fmt: skip
    if "['-']" in ours or "['-']" in theirs:
        ours = {k: v for k, v in ours.items() if k in theirs and k != "['-']"}
        theirs = {k: v for k, v in theirs.items() if k in ours}
    for key in [*ours, *(k for k in theirs if k not in ours)]:
        shown = short((ours.get(key) or theirs[key])[0])
        yield ours[key][1] if key in ours else ["!"], theirs[key][1] if key in theirs else ["!"], f"[{shown}]"


def _in_set(a: Any, b: Any) -> Parts:
    known = _EARLIER not in repr(a[2]) and _EARLIER not in repr(b[2])
    if ["-"] not in a[2] and ["-"] not in b[2] and (known or len(a[2]) != len(b[2])):
        yield None, None, None


def _in_object(a: Any, b: Any) -> Parts:
    ours, theirs = dict(map(tuple, a[2])), dict(map(tuple, b[2]))
    for name in [*ours, *(n for n in theirs if n not in ours)]:
        yield ours.get(name, ["!"]), theirs.get(name, ["!"]), f".{name}"
    if a[3] is not None and b[3] is not None:
        yield a[3], b[3], ""


def _in_partial(a: Any, b: Any) -> Parts:
    yield a[1], b[1], ".func"
    yield ["(", "tuple", a[2]], ["(", "tuple", b[2]], ".args"
    yield a[3], b[3], ".keywords"


def _in_method(a: Any, b: Any) -> Parts:
    yield a[1], b[1], ""
    yield a[2], b[2], ".__self__"


_WITHIN: dict[str, Callable[[Any, Any], Parts]] = {
    "(": _in_sequence, "{": _in_mapping, "<": _in_set, "o": _in_object, "p": _in_partial, "M": _in_method,
    "d": lambda a, b: iter([(a[2], b[2], "")]),
    "v": lambda a, b: iter([(a[1], b[1], "")]),
    "^": lambda _a, _b: iter(()),  # its target is compared where it was described
}  # fmt: skip


def short(node: object, limit: int = SHOWN) -> str:
    """Return a description as a short text."""
    return _cut(_short(node, 0), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def both(ours: object, theirs: object, limit: int = SHOWN) -> tuple[str, str]:
    """Return two descriptions as short texts. Those that begin alike are shown from shortly before they differ."""
    mine, other = _short(ours, 0), _short(theirs, 0)
    alike = next((n for n, (a, b) in enumerate(zip(mine, other)) if a != b), min(len(mine), len(other)))  # noqa: B905
    if mine != other and alike >= limit - 3:
        mine, other = (f"...{text[alike - limit // 3 :]}" for text in (mine, other))
    return _cut(mine, limit), _cut(other, limit)


def _short(node: Any, depth: int) -> str:
    kind = node[0]
    if kind in ("-", "^") or (depth > 3 and kind not in ("=", "!")):
        return "..."
    text = _TEXTS.get(kind)
    if text is not None:
        return text(node, depth)
    return f"<{node[1]} object>" if len(node) > 1 else "?"


def _several(parts: list[object], depth: int, most: int = _SEVERAL) -> str:
    return ", ".join(_short(each, depth + 1) for each in parts[:most]) + (", ..." if len(parts) > most else "")


def _sequence_text(node: Any, depth: int) -> str:
    inner = _several(node[2], depth)
    if node[1] == "tuple":
        return f"({inner},)" if len(node[2]) == 1 else f"({inner})"
    return f"[{inner}]" if node[1] == "list" else f"{node[1]}([{inner}])"


def _mapping_text(node: Any, depth: int) -> str:
    inner = ", ".join(f"{_short(k, depth + 1)}: {_short(v, depth + 1)}" for k, v in node[2][:6])
    return f"{{{inner}{', ...' if len(node[2]) > 6 else ''}}}"


_TEXTS: dict[str, Callable[[Any, int], str]] = {
    "=": lambda node, _: str(node[2]),
    "!": lambda _node, _: "not there",
    "(": _sequence_text,
    "<": lambda node, depth: f"{{{_several(node[2], depth)}}}" if node[2] else f"{node[1]}()",
    "{": _mapping_text,
    "o": lambda node, depth: _short(node[3], depth + 1) if node[3] is not None else f"<{node[1]} object>",
    "f": lambda node, _: f"function {node[1]} ({os.path.basename(node[2])}:{node[3]})",
    "b": lambda node, _: f"built-in {node[1]}",
    "c": lambda node, _: f"class {node[1]}",
    "m": lambda node, _: f"module {node[1]}",
    "K": lambda node, _: f"<{node[1]}>",
    "L": lambda node, _: f"logger {node[1]!r}",
    "l": lambda node, depth: f"{'filled' if node[2] else 'empty'} cache of {_short(node[1], depth)}",
    "p": lambda node, depth: f"partial of {_short(node[1], depth)}",
    "d": lambda node, depth: f"{node[1]} {_short(node[2], depth)}",
    "M": lambda node, depth: f"method {_short(node[1], depth).removeprefix('function ')}",
    "a": lambda node, _: f"<{node[1]} {node[2]}, content {node[3][:12] or 'unknown'}>",
    "v": lambda node, depth: _short(node[1], depth),
}
