"""A name that a test replaced temporarily."""

from __future__ import annotations

from dataclasses import dataclass

from .place import Place


@dataclass(frozen=True, slots=True)
class Patched:
    """One name that a test, fixture or decorator replaced temporarily."""

    target: str
    """The dotted name: ``"pkg.mod.Class.attr"``, ``"os.environ['HOME']"``, ``"pkg.mod.TABLE['key']"``."""
    place: Place | None
    """The user's line that did it; for a decorator, the line of the decorated function."""
    by: str
    """``"monkeypatch"``, ``"mock.patch"``, ``"mock.patch.dict"`` or the installed package that did it: ``"respx"``."""
