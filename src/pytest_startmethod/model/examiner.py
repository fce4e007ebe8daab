"""What the recorder asks of whoever examines launches: it knows neither pickling nor state itself."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Protocol

from .._compat.multiprocessing import Package
from .launch import Failure, Launch, Task
from .leg_record import LegRecord


class Examiner(Protocol):
    """Called inside the user's ``start()``, ``submit()`` and ``send()``. What it raises is noted only."""

    def starting(
        self, record: LegRecord, launch: Launch, process: BaseProcess, package: Package, caller: FrameType
    ) -> None:
        """Look at a process of `package` that `caller` is about to start, and complete `launch`."""

    def submitted(
        self, task: Task, function: object, args: tuple[object, ...], kwargs: dict[str, Any], caller: FrameType
    ) -> None:
        """Look at a task, or an initializer, that a pool or executor was given, and complete `task`."""

    def repeated(
        self,
        record: LegRecord,
        task: Task,
        function: object,
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        caller: FrameType,
    ) -> None:
        """Look at a task like `task`, which the leg submitted before: the parent's values may have changed."""

    def sending(self, launch: Launch, process: BaseProcess) -> object:
        """Look at a process that multiprocessing is about to pickle; what is returned comes back to `sent`."""

    def sent(self, launch: Launch, before: object) -> None:
        """Look at a process that multiprocessing has pickled."""

    def not_pickled(self, record: LegRecord, obj: object, error: Exception, package: Package) -> Failure | None:
        """Return the failure of a start or send; None where this thread pickles for the examiner itself.

        A failure like one that the leg has met before is that one again.
        """
