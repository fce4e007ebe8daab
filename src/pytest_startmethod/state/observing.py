"""Compare the state that code reads in the parent, at the moment of a launch, with that of a fresh child.

`observe` is called when something is handed to a child, and keeps descriptions only. `ask` looks up the same names in
fresh interpreters, prepared like the real child: two of them, to tell which values vary between processes. `compare`
returns the remaining differences.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import sys
import types
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..child import process_state
from ..child.differences import differences
from ..child.values import (
    MISSING,
    class_attribute,
    class_name,
    describe,
    instance_namespace,
    is_mock,
    module_of,
    resolve,
)
from ..model.observed import Binding, Descriptor, Difference, Observed, Read, Reads, Seen, Uses
from ..pickling.dry_run import PLAIN
from ..source.callers import UserCode, frames, owner, package_of, place_of
from . import reads
from .arrays import over_shared_memory
from .held_locks import held_locks
from .import_hooks import import_hooks
from .instructions import ByCode
from .lost import lost_writes
from .unseen import add_unseen, is_code, is_harness, is_ours

if TYPE_CHECKING:
    from .fresh_child import Loader

_MAX_BINDINGS = 5_000
_LAUNCH_FUNCTIONS = 400
"""Functions to analyse per launch. Each costs 0.1 to 0.2 ms, in passing legs too."""
_TARGETS_FUNCTIONS = 100
_NEVER: Final = frozenset(
    {"sys", "_pytest", "pytest", "pluggy", "pytest_startmethod", "_frozen_importlib", "os.environ", "linecache"}
)
"""Modules whose data differs between any two processes, is a cache, or that no child has."""
_OF_IMPORT: Final = frozenset(
    {"__name__", "__package__", "__spec__", "__loader__", "__file__", "__cached__", "__path__", "__builtins__"}
)
"""Module attributes that the import system sets."""


# -- the parent --------------------------------------------------------------------------------------------------------


def observe(
    obj: object,
    args: tuple[object, ...] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    method: str,
    user: UserCode | None = None,
    frame: types.FrameType | None = None,
    limit: int = _LAUNCH_FUNCTIONS,
    unseen: bool = False,
) -> Observed | None:
    """Return what the child's code reads and the parent's values, or None if the code is unknown.

    `obj` is a process that was not started yet, or a callable with `args` and `kwargs`. With `frame`, also search the
    user's running functions for later reads of what the child writes. With `unseen`, record also process-wide settings
    and replaced functions of libraries that no code was seen to read. Keeps no user object and runs no user code.
    """
    user = user or UserCode()
    work = _Work.of(obj, args, kwargs or {})
    if work is None:
        return None
    found = _reads_under_fork(work, user, limit) if method == "fork" else work.reads(user, limit)
    held = held_locks(found.reads) if method == "fork" else []
    if method == "fork" and not (found.writes or held):
        return Observed(method, "", None, packages=user.packages)
    place = next((place_of(each) for each in frames(frame) if user(each.f_code.co_filename)), None)
    is_task = not cpython.is_process(obj)
    observed = Observed(method, _name(work.function), place, held=held, is_task=is_task, packages=user.packages)
    for each in fields(Uses):
        setattr(observed, each.name, getattr(found, each.name))
    if frame is not None and found.writes:
        observed.lost = list(lost_writes(found.writes, work.function, work.args, work.kwargs, frame, user))
    if method != "fork":
        _values(observed, found.reads, user)
        whole = UserCode(user.packages | UserCode.of_target(work.function).packages)
        if whole != user:
            _primitives(observed, work.reads(whole, _TARGETS_FUNCTIONS).reads)
        if unseen and observed.codes:
            add_unseen(observed)
        _process(observed, work, user)
    return observed


@dataclass(frozen=True, slots=True)
class _Work:
    """The code that a child will run, and the objects sent along."""

    function: Any
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    extra: list[object]

    @classmethod
    def of(cls, obj: Any, args: tuple[object, ...], kwargs: Mapping[str, object]) -> _Work | None:
        """Return the work of a process that was not started yet, or of a callable; None if unknown."""
        if not cpython.is_process(obj):
            return None if obj is None else cls(obj, args, kwargs, [])
        target, args, kwargs = mp.process_work(obj)
        extra = [value for name, value in instance_namespace(obj).items() if name not in cpython.PROCESS_FIELDS]
        owner, run = class_attribute(type(obj), "run")
        if type(run) is types.FunctionType and owner is not mp.STDLIB.process_class:
            target = types.MethodType(run, obj)
        return None if target is None else cls(target, args, kwargs or {}, extra)

    def reads(self, user: UserCode, limit: int) -> Reads:
        return reads.of(self.function, self.args, self.kwargs, is_user=user, extra=self.extra, limit=limit)


def _process(observed: Observed, work: _Work, user: UserCode) -> None:
    """Add state outside modules, and the data to prepare a fresh child with."""
    observed.roots += [name for name in _classes_modules(work.extra) if name not in observed.roots]
    observed.blocked = frozenset(n for n in observed.imports if n in sys.modules and sys.modules[n] is None)
    observed.imports = {n: w for n, w in observed.imports.items() if _only_here(n) or n in observed.blocked}
    if observed.loggers and "logging" not in observed.touched:
        observed.touched["logging"] = next(iter(observed.loggers.values()))
    _look(observed)
    given = {"target": work.function, "args": work.args, "kwargs": work.kwargs}
    observed.descriptors = list(_descriptors(observed, given))
    if observed.method != "fork" and not observed.is_task:
        observed.arrays = list(over_shared_memory(given))
    observed.heavy = _heavy(observed.roots, user)


def _look(observed: Observed) -> None:
    """Record the parent's current settings, reducers, environment and search path."""
    looked = [name for name in observed.touched if process_state.looks_at(name)]
    observed.ambient = process_state.observe(describe, looked, observed.loggers, observed.signals)
    observed.environ = dict(os.environ)
    observed.import_hooks = bool(import_hooks())
    observed.misled = mp.misled()
    observed.reducers = {
        ".".join(class_name(cls)): (path, getattr(reduce, "__name__", ""))
        for path, table in cpython.reducer_tables().items()
        for cls, reduce in list(table.items())
    }
    observed.prepare = mp.preparation()


def again(observed: Observed) -> Observed:
    """Return `observed` with the parent's current values, without analysing the code again."""
    bindings = []
    for each in observed.bindings:
        module = sys.modules.get(each.module)
        value = resolve(module, each.names) if module is not None else MISSING
        part = resolve(module, each.names, each.steps) if each.steps and module is not None else value
        kind = ".".join(class_name(type(value)))
        bindings.append(replace(each, node=describe(part), kind=kind, shadows=tuple(_shadows(value))))
    later = replace(observed, bindings=bindings)
    _look(later)
    return later


_plain: ByCode[Reads] = ByCode(1_000)
"""Cached reads of functions without cells that were called with plain values."""


def _reads_under_fork(work: _Work, user: UserCode, limit: int) -> Reads:
    """Return what the work reads, cached where possible: under fork, a whole start takes only a millisecond."""
    function, given = work.function, [type(each) for each in (*work.args, *work.kwargs.values())]
    plain = type(function) is types.FunctionType and not function.__closure__ and not work.extra
    # objects that cannot hold user code
    if not plain or not all(cls in PLAIN or cls.__module__.startswith("multiprocessing.") for cls in given):
        return work.reads(user, limit)
    key = (id(function.__globals__), len(work.args), tuple(work.kwargs), tuple(map(id, given)), user.packages)
    return _plain.of(function.__code__, key, lambda: work.reads(user, limit))


def _values(observed: Observed, found: Iterable[Read], user: UserCode) -> None:
    seen: set[object] = set()
    for read in found:
        key = (read.module, read.names, read.steps)
        if key in seen or not read.names or len(seen) > _MAX_BINDINGS:
            continue
        seen.add(key)
        module = sys.modules.get(read.module)
        if module is None:
            continue
        users = _is_users_module(module, user)
        value = resolve(module, read.names)
        rebound = _is_rebound(value, read.module, users, user)
        hook = read.module == "sys" and (rebound or _is_constant_of_sys(read.names[0], value))
        never = read.module.partition(".")[0] in _NEVER or read.module in _NEVER
        if (never and not hook) or read.names[0] in _OF_IMPORT:
            continue
        if is_ours(value) or (not users and not rebound and is_code(value)):
            continue
        if class_name(type(value)) == ("os", "_Environ") and not [*_shadows(value)]:
            continue  # `process.environment` compares what is read of it
        part = resolve(module, read.names, read.steps) if read.steps else value
        if value is MISSING or is_harness(part):
            if value is MISSING and read.called:
                continue  # an attribute that a library creates on demand
            if value is not MISSING:
                continue
        of_class = _of_class(module, read.names)
        kind = ".".join(class_name(type(value)))
        node, shadows = describe(part), tuple(_shadows(value))
        binding = Binding(read.module, read.names, read.steps, node, read, rebound, of_class, kind, shadows)
        if is_primitive(part):
            observed.primitives.append(binding)
        elif any(class_name(cls) == ("sqlite3", "Connection") for cls in type.mro(type(part))):
            observed.databases.append(binding)
        observed.bindings.append(binding)


def _primitives(observed: Observed, found: Iterable[Read]) -> None:
    """Add multiprocessing objects that the target's own installed package reads. Its other state is not compared."""
    for read in found:
        part = resolve(sys.modules.get(read.module), read.names, read.steps) if read.names else MISSING
        if is_primitive(part):
            kind = ".".join(class_name(type(part)))
            node, of_class = describe(part), _of_class(sys.modules[read.module], read.names)
            observed.primitives.append(Binding(read.module, read.names, read.steps, node, read, False, of_class, kind))


def _shadows(value: object) -> Iterable[str]:
    kind = type(value)
    if value is MISSING or kind.__module__ == "builtins" or issubclass(kind, type):
        return
    for name, own in list(instance_namespace(value).items()):
        if (type(own) in (types.FunctionType, types.MethodType) or is_mock(own)) and (
            class_attribute(kind, name)[0] is not None
        ):
            yield name


def _is_constant_of_sys(name: str, value: object) -> bool:
    """Return whether an attribute of `sys` is comparable. Most differ between any two processes."""
    if name in ("stdin", "stdout", "stderr"):  # the test runner's are left out elsewhere
        return True
    if name in ("executable", "_base_executable", "dont_write_bytecode", "ps1", "ps2"):
        return False
    return type(value) in (bool, int, str) or name == "version_info"


def _name(function: object) -> str:
    from ..source.describing import describe_callable

    return describe_callable(function)


_KINDS: Final = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISREG, "a file"),
)  # fmt: skip
_MOST_NUMBERS: Final = 200


def _descriptors(observed: Observed, given: Mapping[str, Any]) -> Iterable[Descriptor]:
    """Yield open descriptors whose numbers are among the `given` arguments or the state that the child reads."""
    todo, seen = deque((value, path, 0) for path, value in given.items()), 0
    for binding in observed.bindings:
        if binding.node[:2] == ["=", "int"]:
            todo.append((int(binding.node[2]), binding.path, 0))
    for name in observed.environment:
        if observed.environ.get(name, "").isdecimal():
            todo.append((int(observed.environ[name]), f"os.environ[{name!r}]", 0))
    while todo and seen < _MOST_NUMBERS:
        value, path, depth = todo.popleft()
        kind, seen = type(value), seen + 1
        if kind is int:
            what = _open_descriptor(value)
            if what is not None:
                yield Descriptor(path, value, what)
        elif depth > 3:
            continue
        elif kind in (list, tuple):
            todo += [(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value[:_MOST_NUMBERS])]
        elif kind is dict:
            todo += [(part, f"{path}[{key!r}]", depth + 1) for key, part in list(value.items())[:_MOST_NUMBERS]
                     if type(key) in (str, int)]  # fmt: skip
        elif kind is types.MethodType:
            todo.append((value.__self__, f"{path}.__self__", depth + 1))
        elif kind is functools.partial:
            todo += [(value.args, f"{path}.args", depth + 1), (value.keywords, f"{path}.keywords", depth + 1)]
        elif not issubclass(kind, (type, types.ModuleType, types.FunctionType)) and not is_primitive(value):
            todo += [(part, f"{path}.{name}", depth + 1) for name, part in instance_namespace(value).items()]


def _open_descriptor(number: int) -> str | None:
    """Return the kind of descriptor that is open under a number, or None. Standard streams do not count."""
    if not 2 < number < 65_536 or os.name == "nt":
        return None
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return None
    return next((text for test, text in _KINDS if test(mode)), "a descriptor")


def _classes_modules(values: Iterable[object]) -> list[str]:
    names = [class_name(type(value))[0] for value in values]
    return [
        name for name in names if name in sys.modules and name != "builtins" and not name.startswith("multiprocessing")
    ]


def _is_users_module(module: object, user: UserCode) -> bool:
    file = module_of(module).get("__file__")
    return type(file) is str and user(file)


def _is_rebound(value: Any, module: str, users: bool, user: UserCode) -> bool:
    """Return whether a mock, or a function or class from elsewhere, has replaced the module's own value."""
    if is_mock(value):
        return True
    raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
    raw = raw.fget if type(raw) is property else raw
    if type(raw) is types.MethodType:
        raw = raw.__func__
    if type(raw) is types.FunctionType:
        file = raw.__code__.co_filename
    elif issubclass(type(raw), type):
        home = module_of(sys.modules.get(class_name(raw)[0])).get("__file__")
        file = home if type(home) is str else ""
    else:
        return False
    if not file:
        return False
    if not users and user(file):
        return True
    return owner(file) == "installed" and package_of(file) != module.partition(".")[0] and not _is_package(module, file)


def _is_package(module: str, file: str) -> bool:
    """Return whether a module and a file belong to the same installed package, whatever the module's name."""
    home = module_of(sys.modules.get(module)).get("__file__")
    return type(home) is str and package_of(home) == package_of(file)


def _of_class(module: object, names: Sequence[str]) -> bool:
    return len(names) > 1 and issubclass(type(resolve(module, names[:-1])), type)


def is_primitive(value: object) -> bool:
    """Return whether a value is made for sharing: multiprocessing's own or a similar package's, or mapped memory."""
    module, name = class_name(type(value))
    if (module, name) == ("mmap", "mmap"):
        return True
    top, _, rest = module.partition(".")
    if top not in ("multiprocessing", "multiprocess", "billiard"):
        return False
    if rest in ("synchronize", "queues", "sharedctypes", "connection"):
        return name not in ("Listener", "Client")
    return False


def _only_here(name: str) -> bool:
    """Return whether a module may exist in this process only: it was not loaded from a file, or has another name."""
    module = sys.modules.get(name)
    if module is None:
        return False
    namespace = module_of(module)
    spec = namespace.get("__spec__")
    if namespace.get("__name__") != name:
        return True
    return type(namespace.get("__file__")) is not str and (spec is None or type(module) is not types.ModuleType)


def _heavy(roots: Iterable[str], user: UserCode) -> list[str]:
    """Return the installed modules imported by the roots, directly or through other user modules."""
    todo, seen, found = list(roots), set[str](), dict[str, None]()
    while todo and len(seen) < 200:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for value in list(module_of(sys.modules.get(name)).values()):
            module: Any = None
            if type(value) is types.ModuleType:
                module = module_of(value).get("__name__")
            elif type(value) is types.FunctionType:
                module = value.__module__
            elif issubclass(type(value), type):
                module = class_name(value)[0]
            if type(module) is not str or module in found or module in seen:
                continue
            file = module_of(sys.modules.get(module)).get("__file__")
            if type(file) is not str:
                continue
            if user(file):
                todo.append(module)
            elif owner(file) == "installed":
                found[module] = None
    return [name for name in found if name.partition(".")[0] not in _NEVER]


# -- the child ---------------------------------------------------------------------------------------------------------


def server_environment() -> dict[str, str] | None:
    """Return the environment with which the running forkserver was started, from ``/proc``; None if unknown."""
    pid = mp.server_pid(mp.STDLIB.server_state()) if mp.has_forkserver() else None
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            parts = file.read().split(b"\0")
    except OSError:
        return None
    pairs = (os.fsdecode(part).partition("=") for part in parts if b"=" in part)
    return {name: value for name, _, value in pairs}


def ask(observed: Observed, loaders: Sequence[Loader], environ: Mapping[str, str] | None = None) -> list[Seen] | None:
    """Return the values of each fresh child, or None if one did not answer.

    `environ` is the real child's environment, if it differs from the parent's at the launch.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Any]] = {}
    for binding in observed.bindings:
        groups.setdefault((binding.module, binding.names), []).append(binding)
    main = "__main__" in observed.roots or any(b.module in ("__main__", "__mp_main__") for b in observed.bindings)
    question = {
        "bindings": [
            [m, n, [b.steps for b in each], each[0].node != describe(MISSING)] for (m, n), each in groups.items()
        ],
        "roots": [name for name in observed.roots if name not in ("__main__", "__mp_main__")],
        "imports": list(observed.imports),
        "modules": [name for name in observed.touched if name in observed.ambient],
        "loggers": list(observed.loggers),
        "signals": list(observed.signals),
        "environ": dict(environ if environ is not None else observed.environ),
        "prepare": observed.prepare,
        "keep": observed.heavy,
        "user": sorted({name.partition(".")[0] for name in observed.roots} | observed.packages),
        "main": main,
        "task": observed.is_task,
    }
    for loader in loaders:
        loader.open()
    for loader in loaders:
        loader.begin(question)
    found: list[Seen] = []
    for answer in [loader.finish() for loader in loaders]:  # read every answer, so that none is left in a pipe
        if answer is None or "values" not in answer:
            return None
        nodes = {id(b): node for each, row in zip(groups.values(), answer["values"], strict=True)
                 for b, node in zip(each, row, strict=True)}  # fmt: skip
        values = [nodes[id(b)] for b in observed.bindings]
        found.append(Seen(values, answer["imports"], answer["ambient"], answer["broken"], answer.get("took", {})))
    return found


def compare(
    observed: Observed, seen: Sequence[Seen], *, varying: bool = False, missed: tuple[str, ...] = ()
) -> list[Difference]:
    """Return the parent's values that differ from those of every fresh child.

    With `varying`, also include values that vary between fresh children: run ids, ports, start times. Of several
    differences in one value, one at a step of `missed` (see `Context.missed`) comes first.
    """
    found = []
    first, *rest = seen
    for index, binding in enumerate(observed.bindings):
        theirs = first.values[index]
        # pytest changes this variable in every phase
        every = [each for each in differences(binding.node, theirs) if "PYTEST_CURRENT_TEST" not in each[0]]
        if not every:
            continue
        unstable = [_masked(path) for other in rest for path, _, _ in differences(theirs, other.values[index])]
        kept = [each for each in every if not any(_masked(each[0]).startswith(path) for path in unstable)]
        varies = varying and not kept
        kept = every if varies else kept
        if kept:
            # a plain value is clearer than the object that holds it
            kept.sort(key=lambda each: (not each[0].endswith(missed), each[1][0] != "="))
            path, ours, other = kept[0]
            start = binding.inner
            others = tuple(start + each[0] for each in kept[1:])
            found.append(Difference(binding, start + path, ours, other, others, varies))
    return found


def lacked(observed: Observed, seen: Sequence[Seen]) -> set[str]:
    """Return the paths that exist in the parent and in no fresh child, such as an item that the parent has added."""
    nothing = describe(MISSING)
    every = enumerate(observed.bindings) if seen else ()
    return {
        f"{binding.path}{binding.inner}"
        for index, binding in every
        if all(each.values[index] == nothing for each in seen)
    }


def _masked(path: str) -> str:
    """Return the path without large numbers among its keys: those that vary are addresses, pids, or times."""
    return re.sub(r"\[\d{7,}\]", "[...]", path)


def around_differs(observed: Observed, seen: Sequence[Seen], name: str) -> tuple[object, object] | None:
    """Return the parent's and the child's description of a setting that differs, if all fresh children agree."""
    if name not in observed.ambient or name not in seen[0].ambient:
        return None
    ours, theirs = observed.ambient[name], seen[0].ambient[name]
    if not differences(ours, theirs) or any(differences(theirs, each.ambient.get(name)) for each in seen[1:]):
        return None
    return ours, theirs
