"""Listening in the process of a script: its start method, its launches, the failures of its children."""

from __future__ import annotations

import atexit
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess, current_process
from types import FrameType
from typing import Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation.default_method import Activation
from ..activation.exchanges import Exchanges
from ..causes.launch_examiner import LaunchExaminer
from ..child import reporter
from ..child.events import chain, exception_as_dict
from ..launches.reaping import FailedWaits
from ..launches.recorder import Recorder, Started
from ..launches.reports import ReportDirectory, raised_from
from ..model.backends import Backend
from ..model.evidence import Evidence
from ..model.finding import Finding
from ..model.launch import Launch
from ..model.leg_record import LegRecord
from ..model.place import Place
from ..model.server import NotAChild
from ..source.callers import owner
from .process import _write

_SHORT = 64
"""A temporary directory with a shorter path leaves room for a socket's."""


@dataclass(frozen=True, slots=True)
class Listening:
    """What `script_process` calls at the script's end."""

    failed: Callable[[BaseException], None]
    """The script did not catch an exception."""
    finish: Callable[[], None]
    """All is over: multiprocessing has joined its children."""


def listen(directory: str, method: str) -> Listening:
    """Make `method` the default and write what is started to `directory`, until `Listening.finish`."""
    open_ones = ExitStack()
    exchanges = Exchanges()
    recorder = ScriptRecorder(directory, exchanges)
    record = open_ones.enter_context(recorder.leg("script", method, precheck=False))
    activation = Activation(method)
    activation.in_call = True  # what the script sets holds: it would for its user
    activation.enter()
    span = exchanges.span("script")
    open_ones.callback(span.undo)
    reports = ReportDirectory(directory)
    reports.listen_to_starts(span, mp.STDLIB)
    waits = FailedWaits()
    waits.listen(span)
    if mp.has_forkserver():
        prefix = _server_prefix(directory)
        span.put(cpython.process_starter(), "spawnv_passfds", lambda original: _watch_server(original, prefix))

    def failed(error: BaseException) -> None:
        found = _explain(method, record.launches, error, _raised_at(error), waits.calls)
        if found:
            _write(directory, {"failure": type(error).__name__, "findings": [each.as_dict() for each in found]})

    def finish() -> None:
        open_ones.close()
        recorder.note_held_codes()
        for index, launch in enumerate(record.launches):
            _write(directory, {"exit": index, "exit_code": launch.exit_code})
        for failure in record.failures:
            findings = [each.as_dict() for each in failure.findings]
            _write(directory, {"failure": failure.error, "findings": findings})
        for override in activation.overrides:
            place = override.place
            where = [place.file, place.line] if place is not None else None
            _write(directory, {"override": override.method, "place": where})
        for trouble in recorder.troubles:
            _write(directory, {"trouble": trouble})

    def hold() -> None:
        if os.getpid() == owner_pid:
            recorder.hold_at_exit(record)

    owner_pid = os.getpid()
    atexit.register(hold)  # after multiprocessing's own, and so called before it
    return Listening(failed, finish)


def _explain(
    method: str,
    launches: Sequence[Launch],
    error: BaseException,
    place: Place | None,
    waits: Sequence[NotAChild] = (),
) -> tuple[Finding, ...]:
    """Return what an exception in the script owes to its start method."""
    from ..causes import forkserver
    from ..launches import server

    raised = tuple(raised_from(exception_as_dict(each)) for each in chain(error))
    evidence = Evidence("script", method, "failed", launches=tuple(launches), raised_at=place, raised=raised)
    return tuple(forkserver.findings(replace(evidence, server=server.observe(), not_children=waits)))


def _raised_at(error: BaseException) -> Place | None:
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if owner(frame.f_code.co_filename) == "user":
            place = Place(os.path.abspath(frame.f_code.co_filename), line)
    return place


class ScriptRecorder(Recorder):
    """Writes each launch down at once: the script may be killed."""

    def __init__(self, directory: str, exchanges: Exchanges) -> None:
        super().__init__(exchanges, LaunchExaminer())
        self.told = self._note
        self._directory = directory
        self._temporary: set[str] = set()
        self._held_at_exit: list[tuple[Launch, Any]] = []

    def hold_at_exit(self, record: LegRecord) -> None:
        """Keep what tells the exit codes of the processes that are alive at the end of the script.

        multiprocessing joins them at exit and lets go of them.
        """
        self._held_at_exit = [(each.launch, each.held) for each in record.started if each.held is not None]

    def note_held_codes(self) -> None:
        """Note the exit codes of the processes that `hold_at_exit` found."""
        for launch, popen in self._held_at_exit:
            if launch.exit_code is None:
                launch.exit_code = popen.returncode

    def _open(self, record: LegRecord, process: BaseProcess, backend: Backend, caller: FrameType) -> Started | None:
        self._guarded(self._settle_directory, process)
        return super()._open(record, process, backend, caller)

    def _settle_directory(self, process: BaseProcess) -> None:
        """Give a manager's server its temporary directory, which it leaves behind if it is killed."""
        target, _, _ = mp.process_work(process)
        base = tempfile.gettempdir()
        if mp.is_manager_server(target) and len(base) < _SHORT and cpython.temporary_directory_of(process) is None:
            directory = tempfile.mkdtemp(prefix="pymp-", dir=base)
            self._temporary.add(directory)
            _write(self._directory, {"temporary_directory": directory})
            cpython.set_temporary_directory(process, directory)

    def _failed(self, record: LegRecord, launch: Launch, error: BaseException) -> None:
        super()._failed(record, launch, error)
        launch.findings += self._guarded(_explain, launch.method, [launch], error, launch.place) or ()
        self._note(record, launch)

    def _note(self, record: LegRecord, launch: Launch) -> None:
        directory = cpython.temporary_directory_of(current_process())
        if directory is not None and directory not in self._temporary:
            self._temporary.add(directory)
            _write(self._directory, {"temporary_directory": directory})
        findings = [each.as_dict() for each in launch.findings]
        function = launch.place and launch.place.function
        entry = {**launch.as_dict(), "function": function, "findings": findings}
        index = next(n for n, each in enumerate(record.launches) if each is launch)
        _write(self._directory, {"launch": index, **entry})


# -- the forkserver's own failure ------------------------------------------------------------------------------------

# Since 3.14 (and late patches of 3.13) the server itself imports the main module, before any child is there that the
# preparation data could tell of us. What `child` makes of an exception is used here without its other parts: the
# server's children are forks of it and get those from their preparation data.
_PREFIX = """
def watch(directory, file, compiled, starter):
    import os, sys
    before, pid = sys.excepthook, os.getpid()
    def excepthook(cls, error, tb):
        try:
            if os.getpid() == pid:
                from importlib.machinery import SourcelessFileLoader
                name = "_pytest_startmethod_child"
                names = {"__name__": name, "__file__": file}
                exec(SourcelessFileLoader(name, compiled).get_code(name), names)
                names["facts"].update(
                    pid=pid, directory=directory, method="forkserver", process="forkserver", starter=starter
                )
                names["report"]("start-up", error)
        except Exception:
            pass
        finally:
            before(cls, error, tb)
    sys.excepthook = excepthook
try:
    watch(*%r)
except Exception:
    pass
del watch
"""


def _server_prefix(directory: str) -> str:
    return _PREFIX % ((directory, reporter.__file__, os.path.join(directory, reporter.COMPILED), os.getpid()),)


def _watch_server(original: Callable[..., int], prefix: str) -> Callable[..., int]:
    """Wrap ``util.spawnv_passfds``: the forkserver runs `prefix` first."""

    def spawnv_passfds(path: Any, args: Any, passfds: Any) -> int:
        return original(path, cpython.with_server_prefix(args, prefix), passfds)

    return spawnv_passfds


def launch_from(entry: Mapping[str, Any], leg: str) -> Launch:
    """Return the launch that `ScriptRecorder` made `entry` of. Raises KeyError or TypeError if it is none."""
    file, line = entry["file"], entry["line"]
    return Launch(
        method=str(entry["method"]),
        target=str(entry["target"]),
        args=tuple(map(str, entry["args"])),
        place=None if file is None else Place(str(file), int(line), str(entry.get("function") or "")),
        thread=entry["thread"],
        fixture=None,
        leg=leg,
        pid=entry["pid"],
        exit_code=entry["exit_code"],
        error=entry["error"],
        findings=tuple(map(Finding.from_dict, entry.get("findings", ()))),
    )
