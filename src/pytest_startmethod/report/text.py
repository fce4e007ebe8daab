"""Lines of text for the terminal: wrapping, counting, and styles of parts of a line. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ..model.finding import WIDTH, wrapped

WIDEST: Final = 120
"""The most columns of wrapped text, however wide the terminal is."""


class Line(NamedTuple):
    """One line, as spans of a text and its style: ``"cause"``, ``"note"``, ``"good"``, ``"bad"``, ``"strong"``..."""

    spans: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """The line without its styles."""
        return "".join(text for text, _ in self.spans)


def line(text: str = "", style: str = "") -> Line:
    """Return a line of one style."""
    return Line(((text, style),))


def wrap(text: str, *, indent: str = "  ", first: str | None = None, width: int = WIDTH) -> list[str]:
    """Wrap `text` to `width` columns, with `indent` before each line and `first`, if given, before the first."""
    return wrapped(text, indent if first is None else first, indent, width) if text else []


def styled(lines: Iterable[str], head: str, style: str) -> list[Line]:
    """Return `lines`, with `head` in `style` if it occurs in the first one."""
    found = [line(each) for each in lines]
    before, there, after = found[0].text.partition(head) if found else ("", "", "")
    if there:
        found[0] = Line(((before, ""), (head, style), (after, "")))
    return found


def cut(text: str, width: int) -> str:
    """Cut `text` to `width` characters, with an ellipsis if it is longer."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)].rstrip()}..."


def count(number: int, noun: str) -> str:
    """Return ``1 leg``, ``2 legs``, ``2 processes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def listed(words: Iterable[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    every = list(words)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}" if every else ""
