"""Examine launches and tasks as the user makes them: whether they pickle, and what their code reads.

In the user's process this runs none of the user's code that multiprocessing would not run itself. Whatever must call
the user's pickling methods, or could take long, runs in a forked copy: of the child under fork, made before the child
does anything else, or of this process after a failure. Copies write their answers to files, which are read at the end
of a phase.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from os import getpid
from types import FrameType
from typing import Any, Final

from .._compat import cpython
from .._compat import multiprocessing as mp
from .._compat.signals import OwnCode
from ..child.events import handover
from ..model import methods
from ..model.finding import Finding, placed
from ..model.launch import Failure, Launch, Sent, Task
from ..model.leg_record import LegRecord, Pending
from ..model.observed import Observed
from ..model.payload import Payload
from ..model.place import Place
from ..pickling import copies, dry_run, sent
from ..source.callers import calling_place
from ..source.describing import describe_callable, one_line

_OBSERVED_ALIKE = 2
_OBSERVING_SECONDS = 0.1
"""CPU time per leg for analysing code, beyond the first two launches or tasks of a kind."""
_REPEATING_SECONDS = 0.3
"""CPU time per leg for re-reading values whose code has been analysed before."""
_MOST_COPIES: Final = 20
"""Launches per leg that are examined in a copy. Identical launches count once."""
_COPY_SECONDS: Final = 20.0
_DIAGNOSIS_SECONDS: Final = 10.0
_RAN_AGAIN = "its pickling methods were called once more, to find this"
_clock = time.monotonic
_spent = time.thread_time  # what is examined does not depend on the machine's load


class LaunchExaminer:
    """Examines the launches and tasks of legs and scripts; implements `model.examiner.Examiner`."""

    def __init__(
        self,
        observe: Callable[..., Observed | None] | None = None,
        directory: str | None = None,
        *,
        loads: bool = False,
    ) -> None:
        self.observe = observe
        """Finds out what the code of a launch or task reads; None turns this off."""
        self._directory = directory
        """Directory for the answers of copies; None means that no copies are made."""
        self._loads = loads
        """Whether the pre-check also tests that a payload loads."""
        self._numbers = itertools.count()
        self._local = threading.local()

    # -- the examiner ------------------------------------------------------------------------------------------------

    def starting(
        self, record: LegRecord, launch: Launch, process: BaseProcess, package: mp.Package, caller: FrameType
    ) -> None:
        """Examine a process that is about to start."""
        own = package == mp.STDLIB
        target, _, _ = mp.process_work(process)
        if own and not launch.is_worker and not mp.is_manager_server(target):
            launch.observed = self._observed(record, launch, process, caller)
        if methods.base(launch.method) != "fork":
            if own and sys.version_info < (3, 11):
                self._look_for_fork_locks(record, launch, process)
        elif record.precheck:
            self._precheck(record, launch, process, package)

    def submitted(
        self, task: Task, function: object, args: tuple[object, ...], kwargs: dict[str, Any], caller: FrameType
    ) -> None:
        """Examine what a task reads."""
        if self.observe is not None and task.method in methods.ORDER:
            task.observed = self.observe(function, args, kwargs, method=task.method, frame=caller)
            if task.observed is not None and task.how == "initializer":
                task.observed.is_task = False

    def repeated(
        self,
        record: LegRecord,
        task: Task,
        function: object,
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        caller: FrameType,
    ) -> None:
        """Examine a repeated task again: its values may differ from the first one's."""
        if task.observed is None or task.method == "fork" or task.how == "initializer":
            return
        start = _spent()
        if record.observing <= _OBSERVING_SECONDS and self.observe is not None:
            later = self.observe(function, args, kwargs, method=task.method, frame=caller)
        elif record.observing <= _REPEATING_SECONDS:
            later = _again(task.observed)
        else:
            return
        record.observing += _spent() - start
        task.later = later if later is not None and later.print != task.observed.print else None

    def sending(self, work: Launch | Task, obj: object) -> object:
        """Return the state of a process or task before it is pickled."""
        if work.method not in methods.ORDER:
            return None
        every = sent.parts(obj)
        return sent.account(obj, every), sent.before(every)

    def sent(self, work: Launch | Task, before: Any, payload: Payload | None) -> None:
        """Record what was sent, and what pickling changed in the parent's objects."""
        account, seen = before
        work.changed = work.changed or tuple(sent.changes(seen))
        if account is not None and payload is not None:
            work.sent.append(Sent(account, payload))

    def not_pickled(self, record: LegRecord, obj: object, error: Exception, package: mp.Package) -> Failure | None:
        """Diagnose a failed start or send."""
        if getattr(self._local, "pickling", False):
            return None
        spawning = package.is_spawning()
        # a failed start gets its place from the launch
        place = None if spawning else _sent_at(record, obj)
        key = _likeness(obj, error, place or calling_place(sys._getframe(1)))
        if key in record.alike:
            known: Failure = record.alike[key]
            return known
        failure = record.alike[key] = Failure(one_line(error), place=place)
        self._diagnose(record, failure, obj, error, task=not spawning, package=package)
        return failure

    # -- what a launch reads -----------------------------------------------------------------------------------------

    def _observed(self, record: LegRecord, launch: Launch, process: BaseProcess, caller: FrameType) -> Observed | None:
        if self.observe is None:
            return None
        alike = sum(each.observed is not None for each in _alike(record, launch))
        known = next((each.observed for each in _alike(record, launch) if each.observed is not None), None)
        start = _spent()
        if alike >= _OBSERVED_ALIKE and record.observing > _OBSERVING_SECONDS:  # many processes from one line
            if known is None or launch.method == "fork" or record.observing > _REPEATING_SECONDS:
                return None
            observed: Observed | None = _again(known)
        else:
            observed = self.observe(process, method=launch.method, frame=caller)
        record.observing += _spent() - start
        return observed

    # -- the pre-check under fork ------------------------------------------------------------------------------------

    def _precheck(self, record: LegRecord, launch: Launch, process: BaseProcess, package: mp.Package) -> None:
        key = ("pre-check", launch.target, launch.args, launch.place)
        alike: list[Launch] | None = record.alike.get(key)
        if alike is not None:
            launch.predicted = alike[0].predicted
            alike.append(launch)
            return
        loads = self._loads and package == mp.STDLIB
        if not loads and package == mp.STDLIB and dry_run.is_plain(process):
            return
        with self._pickling(package):
            try:
                error = dry_run.dry_run(process, allow_fork_primitives=True, user_code=False).error
            except dry_run.UserCodeError as stopped:
                error = stopped
            if error is None and not loads:
                return
            if self._directory is None:
                if error is not None and not isinstance(error, dry_run.UserCodeError):
                    launch.predicted = placed(_why_not(process, error, allow=True), launch.place)
                return
        asked = sum(each.launch is not None for each in record.pending)
        if asked >= _MOST_COPIES or copies.processes_are_scarce():
            return
        launches = record.alike[key] = [launch]

        def take(found: tuple[Finding, ...]) -> None:
            for each in launches:
                each.predicted = placed(found, each.place)

        path = self._path()
        record.pending.append(Pending(path, take, launch))
        reference = weakref.ref(process)
        work = partial(_predict, reference, package.name, loads)
        handover.errand = reference, partial(copies.in_copy, work, path, _COPY_SECONDS)

    # -- after a failure ---------------------------------------------------------------------------------------------

    def _diagnose(
        self,
        record: LegRecord,
        failure: Failure,
        obj: object,
        error: Exception | None,
        *,
        task: bool,
        package: mp.Package,
    ) -> None:
        """Diagnose why `obj` did not pickle: at once if that runs no user code, otherwise in a copy."""
        with self._pickling(package):
            try:
                dry_run.dry_run(obj, task=task, user_code=False)
                in_copy = runs_user_code = False
            except dry_run.UserCodeError as stopped:
                in_copy, runs_user_code = True, stopped.args != ("large",)
            if in_copy and self._directory is not None and copies.can_copy():
                path = self._path()
                with suppress(OSError):
                    copies.in_copy(partial(_as_dicts, _why_not, obj, error, task=task), path, _COPY_SECONDS)

                    def take(found: tuple[Finding, ...]) -> None:
                        failure.findings = placed(found, failure.place)

                    record.pending.append(Pending(path, take))
                    return
            if runs_user_code:
                OwnCode.call_handlers()
            found = _why_not(obj, error, task=task)
        if runs_user_code:
            found = tuple(replace(each, evidence=(*each.evidence, _RAN_AGAIN)) for each in found)
        failure.findings = placed(found, failure.place)

    def _look_for_fork_locks(self, record: LegRecord, launch: Launch, process: BaseProcess) -> None:
        """Report locks made by a fork context, which Python 3.10 pickles and loads, and then crashes on."""
        classes = cpython.lock_classes()
        if any(type(each) in classes and cpython.made_by_fork(each) for each, _ in sent.parts(process)):
            failure = Failure(dry_run.FORK_LOCK, place=launch.place)
            record.failures.append(failure)
            self._diagnose(record, failure, process, None, task=False, package=mp.STDLIB)

    def _path(self) -> str:
        return f"{self._directory}{os.sep}{getpid()}-{next(self._numbers)}.answer"

    @contextmanager
    def _pickling(self, package: mp.Package) -> Iterator[None]:
        """Pickle as `package` does, and make our wrappers ignore it."""
        self._local.pickling = True
        try:
            with cpython.pickling_as(package.name):
                yield
        finally:
            self._local.pickling = False


def _again(observed: Observed) -> Observed:
    from ..state import observing

    return observing.again(observed)


def collect_predictions(pending: list[Pending], seconds: float, *, give_up: bool = True) -> None:
    """Collect predictions from the copies of forked children, waiting at most `seconds`.

    What is taken goes from `pending`, and so does the rest with `give_up`. A child that ended before it could make its
    copy is not waited for.
    """
    until = _clock() + seconds
    for each in [each for each in pending if each.launch is not None]:
        over = each.launch is not None and each.launch.exit_code is not None
        if over and not copies.is_asked(each.path):
            pending.remove(each)
        elif give_up or copies.is_answered(each.path, until):
            _take(pending, each, until)


def collect_diagnoses(record: LegRecord) -> None:
    """Collect diagnoses from copies of this process, waiting at most 10 s."""
    until = _clock() + _DIAGNOSIS_SECONDS
    for each in [each for each in record.pending if each.launch is None]:
        _take(record.pending, each, until)


def _take(pending: list[Pending], question: Pending, until: float) -> None:
    pending.remove(question)
    answer = copies.answer_of(question.path, until)
    if answer is not None:
        question.take(tuple(map(Finding.from_dict, answer)))


def _predict(reference: Callable[[], BaseProcess | None], package: str, loads: bool) -> list[dict[str, object]]:
    """Return why a process would not start under spawn. Runs in a copy of the child."""
    process = reference()
    assert process is not None
    with cpython.pickling_as(package):
        seen = sent.before(sent.parts(process))
        error = dry_run.dry_run(process, allow_fork_primitives=True).error
        changes = tuple(sent.changes(seen))
        sent.restore(seen)  # the search for the place calls the same methods again
        if error is not None:
            return _as_dicts(_why_not, process, error, allow=True)
        from . import copying

        found = copying.taken(changes)
        if not found and loads:
            from . import call

            found = call.explain_loading(process, allow_fork_primitives=True)
    return [each.as_dict() for each in found]


def _as_dicts(function: Callable[..., tuple[Finding, ...]], *args: object, **kwargs: object) -> list[dict[str, object]]:
    return [each.as_dict() for each in function(*args, **kwargs)]


def _why_not(obj: object, error: Exception | None, *, task: bool = False, allow: bool = False) -> tuple[Finding, ...]:
    from . import pickling

    return pickling.diagnose(obj, error=error, task=task, allow_fork_primitives=allow)


def _likeness(obj: Any, error: Exception, place: Place | None) -> object:
    """Return a key shared by failures that look the same to the user: code, line, and the error without addresses."""
    call = dry_run.as_call(obj)
    target = call.target if isinstance(call, dry_run.Call) else None
    if cpython.is_process(obj):
        target, _, _ = mp.process_work(obj)
    return describe_callable(target), place, re.sub(r"0x[0-9a-fA-F]+", "", one_line(error))


def _alike(record: LegRecord, launch: Launch) -> Iterator[Launch]:
    """Yield the leg's other launches of the same target at the same line."""
    for each in record.launches:
        if each is not launch and (each.target, each.place) == (launch.target, launch.place):
            yield each


def _sent_at(record: LegRecord, obj: object) -> Place | None:
    """Return the line that sends `obj`. For a task, which a pool's thread sends, that is where it was submitted."""
    call = dry_run.as_call(obj)
    if not isinstance(call, dry_run.Call):
        return calling_place(sys._getframe(1))
    target = describe_callable(call.target)
    places = {each.place for each in record.tasks if each.target == target}
    return places.pop() if len(places) == 1 else None
