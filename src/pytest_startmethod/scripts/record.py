"""In the process of a script: record what it starts, and explain at its end what failed."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.process import BaseProcess, current_process
from types import FrameType
from typing import Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation.default_method import Activation
from ..activation.exchanges import Exchanges
from ..causes.launch_examiner import LaunchExaminer, collect_diagnoses
from ..child import reporter
from ..child.events import chain, exception_as_dict
from ..launches.reaping import FailedWaits
from ..launches.recorder import Recorder, Started, failure_of
from ..launches.reports import ReportDirectory, raised_from
from ..model.backends import Backend
from ..model.child_report import Raised
from ..model.evidence import Evidence
from ..model.finding import Finding, unique
from ..model.launch import Launch
from ..model.leg_record import LegRecord
from ..model.place import Place
from ..model.wire import Fields
from ..source.callers import owner
from ..state.comparing import Comparison
from .process import _write

_SHORT = 64
"""The path of a temporary directory must be shorter, to leave room for a socket's name."""


class Listening:
    """Make `method` the default, and log what the script starts in `directory` until `finish` is called."""

    def __init__(self, directory: str, method: str) -> None:
        self._directory = directory
        self._evidence = Evidence("script", method, "passed")
        self._comparison = Comparison(os.getcwd(), ())
        self._open = ExitStack()
        exchanges = Exchanges()
        examiner = LaunchExaminer(self._comparison.observe if method != "fork" else None, directory)
        self._recorder = ScriptRecorder(directory, exchanges, examiner)
        self._record = self._open.enter_context(self._recorder.leg("script", method, precheck=False))
        self._activation = Activation(method)
        self._activation.in_call = True  # a method that the script sets takes effect, as for its user
        self._activation.enter()
        span = exchanges.span("script")
        self._open.callback(span.undo)
        self._reports = ReportDirectory(directory)
        self._reports.listen_to_starts(span, mp.STDLIB)
        self._waits = FailedWaits()
        self._waits.listen(span)
        if mp.has_forkserver():
            compiled = os.path.join(directory, reporter.COMPILED)
            prefix = _PREFIX % ((directory, reporter.__file__, compiled, os.getpid()),)
            span.put(cpython.process_starter(), "spawnv_passfds", lambda original: _watch_server(original, prefix))
        self._pid = os.getpid()
        atexit.register(self._hold)  # registered after multiprocessing's own, so called before it

    def _hold(self) -> None:
        if os.getpid() == self._pid:
            self._recorder.hold_at_exit(self._record)

    def failed(self, error: BaseException) -> None:
        """Record the exception that ends the script."""
        # `_explain` needs these. At exit it is too late: an import that defines a dataclass executes text as code,
        # which makes CPython forget that a KeyboardInterrupt is to end the process by SIGINT.
        from ..causes import explain, main_module  # noqa: F401
        from ..launches import server

        if isinstance(error, SystemExit) and error.code in (None, 0):
            return
        self._evidence = replace(
            self._evidence,
            outcome="failed",
            failure=failure_of(self._record, error),
            raised=tuple(map(_raised, chain(error))),
            raised_at=_raised_at(error),
            error=type(error).__name__,
            text=" ".join(f"{type(error).__name__}: {error}".split()),
            server=server.observe() if self._evidence.method == "forkserver" else None,
        )
        self._compare()

    def _compare(self) -> None:
        """Ask fresh children for the values of what the processes read."""
        from ..causes import state

        record, main = self._record, str(getattr(sys.modules["__main__"], "__file__", ""))
        self._evidence = replace(
            self._evidence, launches=tuple(record.launches), tasks=tuple(record.tasks), tests=(main,)
        )
        seen = [(each, self._comparison.ask(each, None)) for each in state.to_ask(self._evidence)]
        self._comparison.close()
        self._evidence = replace(self._evidence, seen=seen)

    def finish(self) -> None:
        """Log how everything ended, and why; called at exit, after multiprocessing has joined its children."""
        self._open.close()
        record, recorder = self._record, self._recorder
        recorder.note_held_codes()
        for index, launch in enumerate(record.launches):
            _write(self._directory, {"exit": index, "exit_code": launch.exit_code})
        evidence = replace(
            self._evidence,
            launches=tuple(record.launches),
            tasks=tuple(record.tasks),
            failures=tuple(record.failures),
            reports=self._reports.read(),
            unreturned=tuple(self._reports.unreturned),
            overrides=tuple(self._activation.overrides),
            not_children=tuple(self._waits.calls),
        )
        _write(self._directory, {"findings": [each.as_dict() for each in _explain(evidence)]})
        for override in self._activation.overrides:
            place = override.place
            where = [place.file, place.line] if place is not None else None
            _write(self._directory, {"override": override.method, "place": where})
        for trouble in recorder.troubles:
            _write(self._directory, {"trouble": trouble})


def _explain(evidence: Evidence) -> tuple[Finding, ...]:
    """Return why the script or its children failed; first the findings about the main module."""
    from ..causes import main_module
    from ..causes.explain import explain

    if evidence.outcome == "passed":
        if not any(each.error for each in evidence.reports) and not any(each.exit_code for each in evidence.launches):
            return explain(evidence) if evidence.failures else ()
        evidence = replace(evidence, outcome="failed")
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    ours = main_module.findings(evidence.reports, evidence.raised, str(getattr(main, "__file__", "")), name)
    known = {(each.code, each.line) for each in ours}
    named = {each.path for each in ours}
    # what else is reported of a child that dies while importing the script
    symptoms = ("SM201", "SM402", "SM404", "SM408") if any(each.code == "SM401" for each in ours) else ()
    theirs = [
        each
        for each in explain(evidence)
        if (each.code, each.line) not in known and each.path not in named and each.code not in symptoms
    ]
    return unique([*ours, *theirs])


def _raised(error: BaseException) -> Raised:
    """Return an exception; a remote traceback keeps its whole text."""
    raised = raised_from(exception_as_dict(error))
    return replace(raised, message=str(error)) if raised.type.endswith("RemoteTraceback") else raised


def _raised_at(error: BaseException) -> Place | None:
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if owner(frame.f_code.co_filename) == "user":
            place = Place(os.path.abspath(frame.f_code.co_filename), line)
    return place


class ScriptRecorder(Recorder):
    """Log each launch at once, since the script may be killed."""

    def __init__(self, directory: str, exchanges: Exchanges, examiner: LaunchExaminer) -> None:
        super().__init__(exchanges, examiner)
        self.told = self._note
        self._directory = directory
        self._temporary: set[str] = set()
        self._held_at_exit: list[tuple[Launch, Any]] = []

    def hold_at_exit(self, record: LegRecord) -> None:
        """Keep the Popen objects of processes that are alive at the end of the script, for their exit codes.

        multiprocessing joins them at exit and drops them.
        """
        self._held_at_exit = [(each.launch, each.held) for each in record.started if each.held is not None]

    def note_held_codes(self) -> None:
        """Record the exit codes of the processes that `hold_at_exit` kept."""
        for launch, popen in self._held_at_exit:
            if launch.exit_code is None:
                launch.exit_code = popen.returncode

    def _open(self, record: LegRecord, process: BaseProcess, backend: Backend, caller: FrameType) -> Started | None:
        self.guarded(self._settle_directory, process)
        return super()._open(record, process, backend, caller)

    def _settle_directory(self, process: BaseProcess) -> None:
        """Create the temporary directory of a manager's server, which leaves it behind if killed."""
        target, _, _ = mp.process_work(process)
        base = tempfile.gettempdir()
        if mp.is_manager_server(target) and len(base) < _SHORT and cpython.temporary_directory_of(process) is None:
            directory = tempfile.mkdtemp(prefix="pymp-", dir=base)
            self._temporary.add(directory)
            _write(self._directory, {"temporary_directory": directory})
            cpython.set_temporary_directory(process, directory)

    def _failed(self, record: LegRecord, launch: Launch, error: BaseException) -> None:
        super()._failed(record, launch, error)
        collect_diagnoses(record)  # the script may be killed before its end
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

# Since 3.14 (and late patches of 3.13) the server itself imports the main module, before the first child could get us
# from its preparation data. Only the reporting of exceptions is used here: the server's children are forks of it and
# get the rest from their preparation data.
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


def _watch_server(original: Callable[..., int], prefix: str) -> Callable[..., int]:
    """Wrap ``util.spawnv_passfds`` to make the forkserver run `prefix` first."""

    def spawnv_passfds(path: object, args: object, passfds: object) -> int:
        return original(path, cpython.with_server_prefix(args, prefix), passfds)

    return spawnv_passfds


def launch_from(entry: Fields, leg: str) -> Launch:
    """Return the launch of an `entry` by `ScriptRecorder`. Raises KeyError or TypeError for another entry."""
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
        found=tuple(map(Finding.from_dict, entry.get("findings", ()))),
        in_script=True,
    )
