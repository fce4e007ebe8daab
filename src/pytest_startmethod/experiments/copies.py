"""Give forked children copies of what they are sent, to see whether the copies alone make the fork leg fail."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import ChainMap
from collections.abc import Callable
from functools import partial
from typing import Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation.exchanges import Exchanges

_KEPT = cpython.PROCESS_FIELDS - {"_target", "_args", "_kwargs"}
"""Attributes of a process object that are the child's own."""


class Copying:
    """A context in which each forked process runs with copies of its target and arguments, pickled as for a child.

    Objects of multiprocessing itself, such as locks and queues, stay what they are: a real child shares them as well.
    """

    def __init__(self) -> None:
        self.gave_up = False
        """Whether a process could not be given copies, and ran with the originals."""
        self._exchanges = Exchanges()

    def __enter__(self) -> Copying:
        self._exchanges.span("copies").put(mp.STDLIB.forking_popen_class, "_launch", self._launch)
        return self

    def __exit__(self, *_: object) -> None:
        self._exchanges.undo()

    def _launch(self, original: Callable[[object, object], None]) -> Callable[[object, object], None]:
        def _launch(popen: object, process: object) -> None:
            __tracebackhide__ = True
            own: dict[str, Any] = object.__getattribute__(process, "__dict__")
            sent = {name: value for name, value in own.items() if name not in _KEPT}
            pickler = _Pickler(process)
            try:
                pickler.dump(sent)
            except Exception:
                self.gave_up = True
                return original(popen, process)
            # ``Popen._launch`` calls it in the child (popen_fork.py, 3.10 to 3.15)
            own["_bootstrap"] = partial(_run_with_copies, process, pickler.file.getvalue(), pickler.kept)
            try:
                return original(popen, process)
            finally:
                own.pop("_bootstrap", None)

        return _launch


def _run_with_copies(process: Any, data: bytes, kept: list[object], **keywords: object) -> int:
    own: dict[str, object] = object.__getattribute__(process, "__dict__")
    own.pop("_bootstrap", None)
    own.update(_Unpickler(io.BytesIO(data), kept).load())
    code: int = process._bootstrap(**keywords)
    return code


class _Pickler(pickle.Pickler):
    def __init__(self, process: object) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file)
        self.dispatch_table: Any = ChainMap(cpython.extra_reducers(), copyreg.dispatch_table)
        self.kept: list[object] = []
        """What the child has as it is, in the order of its persistent ids."""
        self._process = process

    def persistent_id(self, obj: object) -> int | None:
        """Return the id of an object of multiprocessing's, or of the process itself."""
        own = type(obj).__module__.partition(".")[0] in ("multiprocessing", "_multiprocessing")
        if not own and obj is not self._process:
            return None
        self.kept.append(obj)
        return len(self.kept) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, kept: list[object]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_load(self, pid: Any) -> object:
        """Return the object of a persistent id."""
        return self._kept[pid]
