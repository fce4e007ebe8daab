"""An object that pickles in the parent but does not load in a child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .child_report import Raised
from .place import Place


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Something that pickles in the parent and that a child could not load."""

    raised: Raised
    method: str = "spawn"
    start_up: bool = False
    """True: the child failed before unpickling anything."""
    task: bool = False
    """True: a worker was loading a task; False: a child was loading its process object."""
    path: str = ""
    """From the argument on: ``"args[0].error"``; empty if unknown."""
    global_name: tuple[str, str] | None = None
    """Module and qualified name of the class or function that was called or looked up, if known."""
    target: str | None = None
    """The dotted name of the process's target or of the task."""
    place: Place | None = None
    """The user's line that started the process."""
    sys_path: Sequence[str] | None = None
    """The child's; None: the same as the parent's."""
    facts: tuple[str, ...] = ()

    @property
    def child(self) -> str:
        """How to name it in a sentence."""
        return f"a {self.method} worker" if self.task else f"the {self.method} child"
