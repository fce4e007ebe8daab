"""Processes that no start method of a leg governs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .place import Place


@dataclass(slots=True)
class Foreign:
    """Processes of one kind that one line of the user's started."""

    kind: str
    """``context``: a fixed one of the leg's own package. Else who started them: ``os.fork``, ``loky``, ``joblib``,
    ``torch.multiprocessing``, ``multiprocess``, ``billiard``; ``multiprocessing`` in a leg of another package."""
    method: str
    """``fork``, ``loky``, ``multiprocess:spawn``..."""
    place: Place | None
    count: int = 0
    """Processes."""
    tasks: int = 0
    """What was given to processes that may have been running before; 0 where that is not told."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as builtins."""
        return {
            "kind": self.kind,
            "method": self.method,
            "file": self.place and self.place.file,
            "line": self.place and self.place.line,
            "count": self.count,
            "tasks": self.tasks,
        }
