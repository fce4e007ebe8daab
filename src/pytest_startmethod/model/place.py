"""A line of the user's source."""

from __future__ import annotations

import linecache
from dataclasses import dataclass

_SHOWN = 90
"""Characters of a source line that are shown."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source: absolute file, line from 1, and the function it is in."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        """Return ``file:line``."""
        return f"{self.file}:{self.line}"

    @property
    def source(self) -> str:
        """The text of the line, cut to a readable length; empty if the file is not there."""
        text = linecache.getline(self.file, self.line).strip()
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def file_and_line(place: Place | None) -> dict[str, str | int | None]:
    """Return `place` as the keys ``file`` and ``line`` of a document; null where it is not known."""
    file, line = (None, None) if place is None else (place.file, place.line)
    return {"file": file, "line": line}


def where(place: Place | None) -> str:
    """Return `place` as part of a sentence, also if it is not known."""
    return str(place) if place is not None else "a place that could not be found"
