"""Walk a payload under the conditions of a start or of a task, and format the paths in it."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._compat import cpython
from ..model.walk import Leaf, Step, Walk, path_text
from ..pickling import dry_run
from ..pickling.dry_run import Call
from ..pickling.walk import Sink, walk
from ..source import kinds, places

MAX_LEAVES = 200
_MAX_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Mode:
    """How a payload is pickled: as a task or not, with fork primitives allowed or not, for which method."""

    task: bool
    allow: bool
    method: str

    def error_of(self, obj: object) -> BaseException | None:
        """Return the exception that pickling `obj` raises, or None."""
        return dry_run.dry_run(obj, task=self.task, allow_fork_primitives=self.allow).error


def search(root: object, task: bool, allow: bool, budget: int) -> Walk:
    """Walk `root` with the reducers and conditions of a dry run."""
    table: Any = dry_run.dispatch_table(allow_fork_primitives=allow)
    cls = cpython.forking_pickler()
    override = None
    if not cpython.stock_pickler(cls):  # replaced by the user, with cloudpickle's or dill's
        users = cls(Sink())
        table = getattr(users, "dispatch_table", table)
        override = getattr(users, "reducer_override", None)
    with cpython.spawning(None if task else dry_run.STAND_IN):
        return walk(
            root,
            table,
            budget=budget,
            limit=MAX_LEAVES,
            prune=kinds.judged_whole,
            skip=lambda obj: ("_popen",) if obj is root and cpython.is_process(obj) else (),
            override=override,
        )


def by_value(leaves: Sequence[Leaf], mode: Mode, budget: int) -> Iterator[Leaf]:
    """Yield the leaves for a pickler that sends functions and classes by value, as dill and cloudpickle do.

    The walk uses the C pickler, which rejects every function without an importable name. Here the replacement itself is
    asked: whatever it pickles is not a leaf, and a function that it rejects is searched for the reason.
    """
    todo = [(leaf, 0) for leaf in leaves]
    for leaf, depth in todo:  # grows during the loop
        error = mode.error_of(leaf.obj)
        if error is None:
            continue
        if leaf.kind != "name" or depth > _MAX_DEPTH:
            yield replace(leaf, error=error)
            continue
        for step, part in _taken_along(leaf.obj):
            if len(todo) < MAX_LEAVES and mode.error_of(part) is not None:
                for below in search(part, mode.task, mode.allow, budget).leaves:
                    chain = (*leaf.chain, (step, part), *below.chain)
                    todo.append((replace(below, chain=chain, root=leaf.root), depth + 1))


def _taken_along(obj: object) -> Iterator[tuple[Step, object]]:
    """Yield the parts that are pickled along with a function or class sent by value."""
    function = places.users_function(obj)
    if isinstance(function, types.FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            filled, value = cpython.cell_value(cell)
            if filled:
                yield ("attribute", name), value
        for index, value in enumerate(function.__defaults__ or ()):
            yield ("reduce", f".__defaults__[{index}]"), value
        for name, value in (function.__kwdefaults__ or {}).items():
            yield ("reduce", f".__kwdefaults__[{name!r}]"), value
        for name in places.names_read(function):
            yield ("reduce", f".__globals__[{name!r}]"), function.__globals__[name]
    elif isinstance(obj, type):
        for name, value in vars(obj).items():
            if not name.startswith("__"):
                yield ("attribute", name), value


def path_of(root: object, steps: Sequence[Step]) -> str:
    """Return the path starting from what the user passed: ``target``, ``args[0].lock``, ``initargs[0]``, ``object``."""
    texts = list(steps)
    if isinstance(root, Call) and texts:
        (_, name), rest = texts[0], texts[1:]
        if name == "target":
            return path_text("target", rest)
        if name == "args" and root.form == "map" and rest:
            return path_text("args[0]", rest[1:])
        if name == "args" and root.form == "starmap" and rest:
            return path_text("args", rest[1:])
        return path_text(str(name), rest)
    if cpython.is_process(root):
        if texts and texts[0][0] == "attribute" and texts[0][1] in ("_target", "_args", "_kwargs"):
            if texts[0][1] == "_args" and len(texts) > 1:
                name = cpython.worker_parameter(root, texts[1][1])
                if name is not None:
                    return path_text(name, texts[2:])
            return path_text(texts[0][1][1:], texts[1:])
        return path_text("process", texts)
    return path_text("object", texts)
