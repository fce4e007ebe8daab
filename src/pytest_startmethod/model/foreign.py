"""Processes started outside the leg's start method."""

from __future__ import annotations

from dataclasses import dataclass

from .place import Place, file_and_line
from .wire import Json


@dataclass(slots=True)
class Foreign:
    """Processes of one kind, started by one line of the user's code."""

    kind: str
    """``context``: a fixed one of the leg's own package. Else who started them: ``os.fork``, ``loky``, ``joblib``,
    ``torch.multiprocessing``, ``multiprocess``, ``billiard``; ``multiprocessing`` in a leg of another package."""
    method: str
    """``fork``, ``loky``, ``multiprocess:spawn``..."""
    place: Place | None
    count: int = 0
    """Processes."""
    tasks: int = 0
    """Tasks given to processes that may have run before; 0 where nobody counts them."""

    def as_dict(self) -> Json:
        """Return it as builtins."""
        place = file_and_line(self.place)
        return {"kind": self.kind, "method": self.method, **place, "count": self.count, "tasks": self.tasks}
