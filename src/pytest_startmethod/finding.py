"""One diagnosed cause, and how it reads."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

WIDTH = 80
"""No line of a printed finding is wider, save a path or name that cannot be broken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnosed cause of a start-method difference.

    Every text is plain, so that a finding crosses processes as a dictionary of builtins.
    """

    code: str
    """A code of the catalogue: ``"SM103"``."""
    name: str
    """Its name: ``"unpicklable-object"``."""
    level: Literal["cause", "note"]
    """A cause may explain a failure; a note never does."""
    path: str
    """Where it hangs: ``"args[0].lock"``; for state a dotted name: ``"pkg.settings.DEBUG"``."""
    file: str | None
    """The source file that the finding points at, absolute, or None where none is known."""
    line: int | None
    """The line in `file`, counted from 1."""
    message: str
    """What happened, with the values, in one or two sentences."""
    evidence: tuple[str, ...] = ()
    """Facts that support the message, one a line, indented by the printer."""
    fix: str = ""
    """What to do, in the imperative."""
    confirmed: bool | None = None
    """What an experiment said: True, False, or None where none was made."""

    def __str__(self) -> str:
        """Return the finding as text of at most `WIDTH` columns."""
        raise NotImplementedError
