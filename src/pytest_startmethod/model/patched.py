"""A name that a test replaced for a while."""

from __future__ import annotations

from dataclasses import dataclass

from .place import Place


@dataclass(frozen=True, slots=True)
class Patched:
    """One name that a test, a fixture or a decorator rebound for a while."""

    target: str
    """The dotted name: ``"pkg.mod.Class.attr"``, ``"os.environ['HOME']"``, ``"pkg.mod.TABLE['key']"``."""
    place: Place | None
    """The user's line that did it; of a decorator, the line of what is decorated."""
    by: str
    """``"monkeypatch"``, ``"mock.patch"`` or ``"mock.patch.dict"``."""
