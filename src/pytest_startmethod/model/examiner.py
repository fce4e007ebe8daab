"""The interface between the recorder and the code that examines launches for pickling and state."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Protocol

from .._compat.multiprocessing import Package
from .launch import Failure, Launch, Task
from .leg_record import LegRecord
from .payload import Payload


class Examiner(Protocol):
    """Called inside the user's ``start()``, ``submit()`` and ``send()``. Its exceptions are recorded, not raised."""

    def starting(
        self, record: LegRecord, launch: Launch, process: BaseProcess, package: Package, caller: FrameType
    ) -> None:
        """Examine a process of `package` that `caller` is about to start, and complete `launch`."""

    def submitted(
        self, task: Task, function: object, args: tuple[object, ...], kwargs: dict[str, object], caller: FrameType
    ) -> None:
        """Examine a task or initializer given to a pool or executor, and complete `task`."""

    def repeated(
        self,
        record: LegRecord,
        task: Task,
        function: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        caller: FrameType,
    ) -> None:
        """Examine another task like `task`: the parent's values may have changed."""

    def sending(self, work: Launch | Task, obj: object) -> object:
        """Examine a process or task, `obj`, that is about to be pickled; the result is passed on to `sent`."""

    def sent(self, work: Launch | Task, before: object, payload: Payload | None) -> None:
        """Examine a process or task that has been pickled; the payload is None if it is large."""

    def not_pickled(self, record: LegRecord, obj: object, error: Exception, package: Package) -> Failure | None:
        """Return the failure of a start or send; None if this thread pickles for the examiner itself.

        A failure like an earlier one of the leg returns that one.
        """
