"""Give forked children copies of what they are sent, or workers what is the same as the original.

The first shows whether the copies alone make the fork leg fail. Tasks are copied under every method: of these, what the
copies lose is sent too, to see whether the leg then passes.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import ChainMap
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation.exchanges import Exchanges
from ..child import events, replayer, values
from ..pickling import dry_run, sent
from ..pickling.user_code import hook_of

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
            pickler = _Pickler(process)
            try:
                with cpython.spawning(dry_run.STAND_IN):
                    pickler.dump(_state_of(process))
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
    try:
        state = _Unpickler(io.BytesIO(data), kept).load()
    except Exception as error:
        if events.handover.line is not None:
            events.handover.line.process = process
        events.report("unpickling", error)
        raise
    for name in own.keys() - _KEPT:
        del own[name]
    replayer.set_pickled(process, state)
    code: int = process._bootstrap(**keywords)
    return code


def _state_of(process: object) -> object:
    """Return the state of a process object that its copy is given, without what is the child's own."""
    hooked = values.class_attribute(type(process), "__getstate__")[0] not in (None, object)
    state: Any = process.__getstate__() if hooked else object.__getattribute__(process, "__dict__")  # type: ignore[attr-defined]
    return {name: value for name, value in state.items() if name not in _KEPT} if type(state) is dict else state


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


_CONTAINERS = (list, dict, set)


class SendingOriginals:
    """A context in which tasks arrive as they were sent: the parts at `paths`, of any task.

    A module's global is sent by its name, and an attribute that a pickling method leaves out is sent with its object.
    What such a method changes in the parent's object is changed back.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self.gave_up = False
        """Whether a task could not be pickled this way."""
        self._exchanges = Exchanges()

    def __enter__(self) -> SendingOriginals:
        self._exchanges.span("originals").put(mp.STDLIB.pickler_class, "dumps", self._dumps)
        return self

    def __exit__(self, *_: object) -> None:
        self._exchanges.undo()

    def _dumps(self, original: Callable[..., object]) -> staticmethod[..., object]:
        def dumps(obj: object, protocol: int | None = None) -> Any:
            __tracebackhide__ = True
            data = self._pickled(obj) if isinstance(dry_run.as_call(obj), dry_run.Call) else None
            return original(obj, protocol) if data is None else data

        return staticmethod(dumps)

    def _pickled(self, task: object) -> memoryview | None:
        every = sent.parts(task)
        seen = sent.before(every)
        paths = [(obj, sent.path_of(path)) for obj, path in every]
        held: Any = [(obj, type(obj)(obj)) for obj, path in paths if path in self._paths and type(obj) in _CONTAINERS]  # type: ignore[call-arg]
        pickler = _Originals({id(obj): path for obj, path in paths}, self._paths)
        try:
            pickler.dump(task)
        except Exception:
            self.gave_up = True
            return None
        finally:
            sent.restore(seen)
            for obj, content in held:
                obj.clear()
                (obj.extend if type(obj) is list else obj.update)(content)
        return memoryview(pickler.file.getvalue())  # as in `by_value`


class _Originals(pickle.Pickler):
    def __init__(self, known: dict[int, str], paths: frozenset[str]) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file)
        self.dispatch_table: Any = ChainMap(cpython.extra_reducers(), copyreg.dispatch_table)
        self._known, self._paths = known, paths

    def reducer_override(self, obj: object) -> Any:
        """Return how to make the original again, for an object at one of the paths, or that holds one."""
        path = self._known.get(id(obj))
        if path is None:
            return NotImplemented
        name = sent.global_name(obj) if path in self._paths else None
        if name is not None:
            return replayer.named, tuple(name)
        own = values.instance_namespace(obj)
        more = {each: own[each] for each in own if f"{path}.{each}" in self._paths}
        reduced: Any = obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL) if more and hook_of(type(obj)) is not None else None
        if type(reduced) is not tuple:
            return NotImplemented
        state, items, pairs, setter = (*reduced[2:], *(None,) * 4)[:4]
        return *reduced[:2], (state, setter, more), items, pairs, replayer.set_more
