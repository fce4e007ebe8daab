"""What a walk over an object graph finds, and its paths as text: ``args[0].items['lock']``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["attribute", "item", "key", "element", "reduce"]


Step = tuple[Kind, Any]
"""One edge of a path: its kind, and an attribute's name, an index or dictionary key, the number of a key, nothing, or
the text of a step into a reduction. A plain tuple, since a walk makes hundreds of thousands."""

Edge = tuple[Step, Any]
"""A step, and the object that it leads to."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An object that cannot be pickled, for a reason of its own."""

    obj: object
    error: BaseException
    kind: Literal["name", "raised", "invalid", "buffer"]
    """Not found by name; its reduction raised; its reduction is none; a buffer that the protocol does not allow."""
    chain: tuple[Edge, ...]
    """From the root's child to `obj`: each step and what it leads to. Empty when the root itself is the leaf."""
    root: Any
    name: str | None = None
    """The name that its own reduction returned, where it did."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk found."""

    leaves: tuple[Leaf, ...]
    visited: int
    complete: bool
    """False when the budget ran out before the graph did."""
    deepest: tuple[Step, ...]
    """The steps to the object that lies deepest."""


_KEYS = frozenset({str, int, bool, float, bytes, type(None)})


@dataclass(frozen=True, slots=True)
class Number:
    """The position of a dictionary's value whose key has no short text."""

    index: int


def key_text(key: object, index: int) -> str:
    """Return a dictionary's key as it is written in a path."""
    if type(key) in _KEYS:
        text = repr(key)
        return text if len(text) <= 40 else text[:30] + "..." + text[-5:]
    return f"value {index}"


def path_text(root: str, steps: Iterable[Step]) -> str:
    """Return a path as the user would write it, with long runs of the same steps left out."""
    texts = [step_text(step) for step in steps]
    if sum(map(len, texts)) > 160:
        texts = shorten(texts)
    return root + "".join(texts)


def step_text(step: Step) -> str:
    """Return one step: ``.name``, ``[key]``, ``{key 0}``, ``{element}``, ``{argument 0}``, ``.__reduce__()[1][0]``."""
    if step[0] == "attribute":
        return f".{step[1]}"
    if step[0] == "item":
        if type(step[1]) is tuple:
            return f"[{', '.join(map(str, step[1]))}]"
        if type(step[1]) is Number:
            return f"{{value {step[1].index}}}"
        return f"[{key_text(step[1], 0)}]"
    if step[0] == "key":
        return f"{{key {step[1]}}}"
    if step[0] == "element":
        return "{element}"
    return step[1] if step[1].startswith((".", "{")) else f".__reduce__(){step[1]}"


def shorten(texts: list[str]) -> list[str]:
    """Return `texts` with each run of a repeated group of one to four replaced by the group and three dots."""
    out: list[str] = []
    at = 0
    while at < len(texts):
        for period in range(1, 5):
            group = texts[at : at + period]
            count = 1
            while texts[at + count * period : at + (count + 1) * period] == group:
                count += 1
            if count * period >= 6 and count > 2:
                out += [*group, "..."]
                at += count * period
                break
        else:
            out.append(texts[at])
            at += 1
    if sum(map(len, out)) > 240 and len(out) > 12:
        out = [*out[:6], "...", *out[-5:]]
    return [text.lstrip(".") if i and out[i - 1] == "..." else text for i, text in enumerate(out)]
