"""TODO."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source: absolute file, line from 1, and the function it is in."""

    file: str
    line: int
    function: str = ""
