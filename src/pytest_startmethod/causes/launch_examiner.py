"""Examine launches and tasks inside the user's calls: do they pickle, what does their code read."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TYPE_CHECKING, Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..model import methods
from ..model.finding import Finding, placed
from ..model.launch import Failure, Launch, Task
from ..model.leg_record import LegRecord
from ..model.observed import Observed
from ..model.place import Place
from ..pickling import dry_run
from ..source.callers import calling_place
from ..source.describing import describe_callable, one_line

if TYPE_CHECKING:
    from ..state.fresh_child import Loader

_OBSERVED_ALIKE = 2
_OBSERVING_SECONDS = 0.1
"""So long the code of all launches and tasks of a leg is followed, beyond the first two of a kind."""
_REPEATING_SECONDS = 0.3
"""So long values are looked at again where code was followed before."""


class LaunchExaminer:
    """The examiner of legs and scripts (`model.examiner.Examiner`)."""

    def __init__(
        self, observe: Callable[..., Observed | None] | None = None, loader: Callable[[], Loader] | None = None
    ) -> None:
        self.observe = observe
        """Looks at what the code of a launch or a task reads; None: nothing is looked at."""
        self._loader = loader
        """Gives the fresh child that is asked whether what pickles loads, too; None: nothing is asked."""
        self._local = threading.local()

    def starting(
        self, record: LegRecord, launch: Launch, process: BaseProcess, package: mp.Package, caller: FrameType
    ) -> None:
        """Look at a process that is about to start (`model.examiner.Examiner`)."""
        own = package == mp.STDLIB
        target, _, _ = mp.process_work(process)
        if own and not launch.is_worker and not mp.is_manager_server(target):
            launch.observed = self._observed(record, launch, process, caller)
        if methods.base(launch.method) != "fork":
            if own:
                self._keep_payload(launch, process)
                if sys.version_info < (3, 11):
                    self._look_for_fork_locks(record, process)
        elif record.precheck:
            self._precheck(record, launch, process, package)

    def submitted(
        self, task: Task, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], caller: FrameType
    ) -> None:
        """Look at what a task reads (`model.examiner.Examiner`)."""
        if self.observe is not None and task.method in methods.ORDER:
            task.observed = self.observe(function, args, kwargs, method=task.method, frame=caller)

    def repeated(
        self,
        record: LegRecord,
        task: Task,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        caller: FrameType,
    ) -> None:
        """Look again at what a task like an earlier one reads (`model.examiner.Examiner`)."""
        if task.observed is None or task.method == "fork" or task.how == "initializer":
            return
        start = time.perf_counter()
        if record.observing <= _OBSERVING_SECONDS and self.observe is not None:
            later = self.observe(function, args, kwargs, method=task.method, frame=caller)
        elif record.observing <= _REPEATING_SECONDS:
            later = _again(task.observed)
        else:
            return
        record.observing += time.perf_counter() - start
        task.later = later if later is not None and later.print != task.observed.print else None

    def not_pickled(
        self, record: LegRecord, obj: Any, error: BaseException, package: mp.Package
    ) -> tuple[Finding, ...] | None:
        """Return why `obj` did not pickle (`model.examiner.Examiner`)."""
        if getattr(self._local, "pickling", False):
            return None
        spawning = package.is_spawning()
        with self._pickling(package):
            findings = dry_run.diagnose(obj, error=error, task=not spawning)
        # those of a start are placed where that fails
        return findings if spawning or not findings else placed(findings, _sent_at(record, obj))

    def _observed(self, record: LegRecord, launch: Launch, process: BaseProcess, caller: FrameType) -> Observed | None:
        if self.observe is None:
            return None
        alike = sum(each.observed is not None for each in _alike(record, launch))
        known = next((each.observed for each in _alike(record, launch) if each.observed is not None), None)
        start = time.perf_counter()
        if alike >= _OBSERVED_ALIKE and record.observing > _OBSERVING_SECONDS:  # many processes of one line
            if known is None or launch.method == "fork" or record.observing > _REPEATING_SECONDS:
                return None
            observed: Observed | None = _again(known)
        else:
            observed = self.observe(process, method=launch.method, frame=caller)
        record.observing += time.perf_counter() - start
        return observed

    def _precheck(self, record: LegRecord, launch: Launch, process: BaseProcess, package: mp.Package) -> None:
        known = [each.predicted for each in _alike(record, launch) if each.predicted]
        if known:  # a pool starts many workers alike
            launch.predicted = known[0]
            return
        with self._pickling(package):
            outcome = dry_run.dry_run(process, allow_fork_primitives=True)
            if outcome.error is not None:
                found = dry_run.diagnose(process, error=outcome.error, allow_fork_primitives=True)
                launch.predicted = placed(found, launch.place)
            elif self._loader is not None and package == mp.STDLIB:
                from . import call

                launch.predicted = call.explain_loading(process, allow_fork_primitives=True, loader=self._loader())

    def _keep_payload(self, launch: Launch, process: BaseProcess) -> None:
        from ..pickling import packing

        if not launch.is_worker:  # theirs are multiprocessing's own; what matters is the tasks
            with self._pickling(mp.STDLIB):
                launch.payload = packing.pack(process)

    def _look_for_fork_locks(self, record: LegRecord, process: BaseProcess) -> None:
        """Note what 3.10 pickles, loads and then crashes on: a lock that only a forked child can have."""
        with self._pickling(mp.STDLIB):
            outcome = dry_run.dry_run(process)
            found = dry_run.diagnose(process, error=outcome.error) if outcome.error is not None else ()
        if any(finding.code == "SM106" for finding in found):
            record.failures.append(Failure(0, one_line(outcome.error or RuntimeError()), found))

    @contextmanager
    def _pickling(self, package: mp.Package) -> Iterator[None]:
        """Pickle as `package` does, and pass over what the recorder hears of it: it is ours."""
        self._local.pickling = True
        try:
            with cpython.pickling_as(package.name):
                yield
        finally:
            self._local.pickling = False


def _again(observed: Observed) -> Observed:
    from ..state import observing

    return observing.again(observed)


def _alike(record: LegRecord, launch: Launch) -> Iterator[Launch]:
    """Yield the leg's other launches of the same target at the same line."""
    for each in record.launches:
        if each is not launch and (each.target, each.place) == (launch.target, launch.place):
            yield each


def _sent_at(record: LegRecord, obj: Any) -> Place | None:
    """Return the line that sends `obj`; of a task, which a thread of the pool sends, the line that submitted it."""
    call = dry_run.as_call(obj)
    if not isinstance(call, dry_run.Call):
        return calling_place(sys._getframe(1))
    target = describe_callable(call.target)
    places = {each.place for each in record.tasks if each.target == target}
    return places.pop() if len(places) == 1 else None
