"""Listening in the process of a script: its start method, its launches, the failures of its children."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from typing import Any

from . import _cpython, child
from . import _multiprocessing as mp
from .activation import Activation, Patches
from .children import ReportDirectory
from .launches import Launch, LegRecord, Recorder
from .script_process import _write


def listen(directory: str, method: str) -> Callable[[], None]:
    """Make `method` the default and write what is started to `directory`; return what ends it, once all is over."""
    open_ones = ExitStack()
    recorder = ScriptRecorder(directory)
    record = open_ones.enter_context(recorder.leg("script", method, precheck=False))
    activation = Activation(method)
    activation.in_call = True  # what the script sets holds: it would for its user
    activation.enter()
    patches = Patches()
    open_ones.callback(patches.undo)
    reports = ReportDirectory(directory)
    patches.put(mp.spawn_module(), "get_preparation_data", lambda original: _with_method(original, method))
    patches.put(mp.spawn_module(), "get_preparation_data", reports.watch_preparation)
    patches.put(BaseProcess, "_bootstrap", reports.watch_bootstrap)
    if mp.has_forkserver():
        prefix = _server_prefix(directory)
        patches.put(_cpython.process_starter(), "spawnv_passfds", lambda original: _watch_server(original, prefix))
        if method != "fork":
            _write(directory, {"temporary_directory": mp.temporary_directory()})

    def finish() -> None:
        open_ones.close()
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

    return finish


class ScriptRecorder(Recorder):
    """Writes each launch down at once: the script may be killed."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def _started(self, record: LegRecord, launch: Launch, process: BaseProcess) -> None:
        super()._started(record, launch, process)
        self._note(record, launch)

    def _failed(self, record: LegRecord, launch: Launch, error: BaseException) -> None:
        super()._failed(record, launch, error)
        self._note(record, launch)

    def _note(self, record: LegRecord, launch: Launch) -> None:
        findings = [each.as_dict() for each in launch.findings]
        function = launch.place and launch.place.function
        entry = {**launch.as_dict(), "function": function, "findings": findings}
        index = next(n for n, each in enumerate(record.launches) if each is launch)
        _write(self._directory, {"launch": index, **entry})


def _with_method(original: Callable[[str], dict[str, Any]], method: str) -> Callable[[str], dict[str, Any]]:
    """Wrap ``spawn.get_preparation_data``: the default of the children is `method`, too.

    As long as the script has not used the default context the data says None: the interpreter's own.
    """

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        if data.get("start_method", method) is None:
            data["start_method"] = method
        return data

    return get_preparation_data


# -- the forkserver's own failure ------------------------------------------------------------------------------------

# Since 3.14 (and late patches of 3.13) the server itself imports the main module, before any child is there that the
# preparation data could tell of us. What `child` makes of an exception is used here without its other parts: the
# server's children are forks of it and get those from their preparation data.
_PREFIX = """
def watch(directory, file, starter):
    import os, sys
    before, pid = sys.excepthook, os.getpid()
    def excepthook(cls, error, tb):
        try:
            if os.getpid() == pid:
                from importlib.machinery import SourceFileLoader
                name = "_pytest_startmethod_child"
                names = {"__name__": name, "__file__": file}
                exec(SourceFileLoader(name, file).get_code(name), names)
                names["_facts"].update(
                    pid=pid, directory=directory, method="forkserver", process="forkserver", starter=starter
                )
                names["_report"]("start-up", error)
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
    return _PREFIX % ((directory, child.__file__, os.getpid()),)


def _watch_server(original: Callable[..., int], prefix: str) -> Callable[..., int]:
    """Wrap ``util.spawnv_passfds``: the forkserver runs `prefix` first."""

    def spawnv_passfds(path: Any, args: Any, passfds: Any) -> int:
        return original(path, _cpython.with_server_prefix(args, prefix), passfds)

    return spawnv_passfds


def launch_from(entry: Mapping[str, Any], leg: str) -> Launch:
    """Return the launch that `ScriptRecorder` made `entry` of. Raises KeyError or TypeError if it is none."""
    from .callers import Place
    from .finding import Finding

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
