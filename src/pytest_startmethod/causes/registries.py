"""What a fresh child lacks, from exceptions: codecs, sqlite3 adapters, reducers, open descriptors, imported submodules.

The interpreter looks these up internally, so reading the code cannot find them: only the exception names what was
missing. Pure, apart from querying the parent's registries.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..child.values import module_of
from ..model.child_report import ChildReport, Frame, Raised
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at
from ..model.methods import base
from ..model.observed import Binding, Descriptor, Observed
from ..model.place import Place
from ..source.callers import owner
from ..source.index import dotted, source_of
from ..state.import_hooks import import_hooks
from .context import quoted

_NO_TABLE = re.compile(r"no such table: (\S+)")
_NOT_IMPORTED = re.compile(r"^module '([\w.]+)' has no attribute '(\w+)'")
_BAD_DESCRIPTOR = f"[Errno {errno.EBADF}]"


@dataclass(frozen=True, slots=True)
class _Registry:
    errors: tuple[str, ...]
    """Exception types, without their modules."""
    message: re.Pattern[str]
    """The exception's message; its group is the missing name."""
    knows: Callable[[str], bool]
    """Return whether the parent has the name. May raise anything."""
    path: str
    what: str
    setter: str


def _adapts(name: str) -> bool:
    adapters: dict[Any, Any] = getattr(sys.modules.get("sqlite3"), "adapters", {})
    return any(cls.__name__ == name for cls, _ in list(adapters))


def _finds(name: str) -> bool:
    """Return whether one of the user's import hooks finds a module."""
    path = module_of(sys.modules.get(name.rpartition(".")[0])).get("__path__")
    for hook in import_hooks():
        with suppress(Exception):  # it is the user's code
            if hook.find_spec(name, path) is not None:
                return True
    return False


_REGISTRIES = (
    _Registry(
        ("ModuleNotFoundError", "ImportError"), re.compile(r"No module named '([^']+)'"), _finds,
        "sys.meta_path", "the import hook that finds {name}", "sys.meta_path.append()",
    ),
    _Registry(
        ("LookupError",), re.compile(r"unknown encoding: (\S+)$"), lambda name: bool(codecs.lookup(name)),
        "codecs.lookup({name!r})", "the codec {name!r}", "codecs.register()",
    ),
    _Registry(
        ("LookupError",), re.compile(r"unknown error handler name '([^']+)'"),
        lambda name: bool(codecs.lookup_error(name)),
        "codecs.lookup_error({name!r})", "the codecs' error handler {name!r}", "codecs.register_error()",
    ),
    _Registry(  # 3.10's message lacks the type's name
        ("ProgrammingError", "InterfaceError"),
        re.compile(r"Error binding parameter .*: type '([^']+)' is not supported"), _adapts,
        "sqlite3.adapters", "an adapter for {name}", "sqlite3.register_adapter()",
    ),
)  # fmt: skip


def findings(evidence: Evidence) -> list[Finding]:
    """Return what a leg's children lack and the parent has, judging by the exceptions raised."""
    if base(evidence.method) == "fork":  # a forked child has everything
        return []
    errors = [*evidence.raised_in_children, *evidence.raised[:1], *quoted(evidence)]
    every = [each.observed for each in evidence.launches] + [each.observed for each in evidence.tasks]
    return missing(errors, [each for each in every if each is not None])


def missing(errors: Iterable[Raised], observed: Iterable[Observed] = ()) -> list[Finding]:
    """Return what `errors` report as missing and the parent has."""
    found: dict[str, Finding] = {}
    observed = list(observed)
    descriptors = {each.path: each for one in observed for each in one.descriptors}
    databases = {each.path: each for one in observed for each in one.databases}
    for error in errors:
        if error.type == "OSError" and error.message.startswith(_BAD_DESCRIPTOR):
            # Any number may equal a descriptor by chance, most likely that of a log file.
            likely = sorted(descriptors.values(), key=lambda each: each.kind not in ("a pipe", "a socket"))
            if likely:
                found.setdefault(likely[0].path, _not_inherited(likely, error))
        table = _NO_TABLE.search(error.message) if error.type.endswith("OperationalError") else None
        if table is not None:
            for binding in databases.values():
                found.setdefault(binding.path, _another_database(binding, table[1], error))
        submodule = _NOT_IMPORTED.search(error.message) if error.type == "AttributeError" else None
        if submodule is not None and (path := f"{submodule[1]}.{submodule[2]}") in sys.modules:
            found.setdefault(path, _not_imported(path, error))
        for registry in _REGISTRIES:
            match = registry.message.search(error.message)
            if match is None or error.type.rpartition(".")[2] not in registry.errors:
                continue
            hooks = [each for each in observed if each.import_hooks and match[1] not in each.imports]
            hooked = registry.path == "sys.meta_path" and bool(hooks)
            finding = _finding(registry, match[1], error, hooked)
            if finding is not None:
                found.setdefault(finding.path + finding.message, finding)
    started = next((each.place for each in observed if each.place is not None), None)
    if started is None:
        return list(found.values())
    return [each if each.file else replace(each, file=started.file, line=started.line) for each in found.values()]


def _not_inherited(likely: Sequence[Descriptor], error: Raised) -> Finding:
    """Report a descriptor that the child does not have: since PEP 446, executed programs inherit none by default."""
    descriptor, *others = likely
    place, evidence = _reading(error)
    evidence += tuple(f"or {each.path}: {each.number}, the number of {each.kind}" for each in others[:3])
    message = (
        f"{descriptor.path} is {descriptor.number}, the number of {descriptor.kind} that is open in the parent; a "
        "child that is not forked inherits no open descriptors"
    )
    if error.message:
        message += f": {error.type}: {error.message}"
    fix = (
        "pass an object that multiprocessing sends with its descriptor (a Connection, a socket), or pass the path and "
        "open it in the child"
    )
    travels = descriptor.path.startswith(("args", "kwargs", "target"))
    path = descriptor.path if travels else f"descriptor {descriptor.number}"  # the value is the same in each child
    return finding_at("SM306", path, place, message, evidence, fix)


_WITH_NUMBERS = ("os.write", "os.read", "os.close", "os.fdopen", "os.dup", "os.dup2", "os.sendfile", "socket.fromfd")


def unsaid(evidence: Evidence) -> list[Finding]:
    """Return the pipe or socket whose number a child was given and uses, where its error was swallowed."""
    fork = evidence.others.get("fork")
    if evidence.outcome != "failed" or base(evidence.method) == "fork" or fork is None or fork.outcome != "passed":
        return []
    every = [*(each.observed for each in evidence.launches), *(each.observed for each in evidence.tasks)]
    for observed in filter(None, every):
        given = [each for each in observed.descriptors if each.kind in ("a pipe", "a socket")]
        given = [each for each in given if each.path.startswith(("args", "kwargs", "target"))]
        functions = {(file, name.rpartition(".")[2]) for file, name, _ in observed.codes}
        calls = [call for file in {file for file, _ in functions} for call in source_of(file).index.calls
                 if dotted(call.node.func) in _WITH_NUMBERS
                 and (file, call.place.function.rpartition(".")[2]) in functions]  # fmt: skip
        if given and calls:
            place = calls[0].place
            error = Raised("OSError", "", (Frame(place.file, place.line, place.function, ""),))
            return [_not_inherited(given, error)]
    return []


def _another_database(binding: Binding, table: str, error: Raised) -> Finding:
    where = binding.read.where
    message = (
        f"{binding.path}{binding.inner} is a connection of sqlite3 that a fresh child opens for itself: a database in "
        f"memory is another one, without the table {table}: {error.type}: {error.message}"
    )
    fix = "use a file and open it in the child, or fill the database in the child: in an initializer, or in the target"
    code = "SM302" if binding.of_class else "SM301"
    evidence = (f"read at {where.file}:{where.line}",)
    return finding_at(code, binding.path, Place(where.file, where.line), message, evidence, fix)


def _not_imported(path: str, error: Raised) -> Finding:
    """Report a submodule that is an attribute of its package only because some other code has imported it."""
    place, evidence = _reading(error)
    message = (
        f"{path} is a module that the code uses without importing it: other code has imported it in the parent, and "
        f"none has in a fresh child: {error.type}: {error.message}"
    )
    user = "the code that uses it" if place is None else os.path.basename(place.file)
    return finding_at("SM202", path, place, message, evidence, f"import {path} in {user}, which then has it everywhere")


def reducer(report: ChildReport, observed: Iterable[Observed | None]) -> Finding | None:
    """Return the finding for a result that a child cannot send, and whose class the parent knows how to pickle."""
    result, work = report.result, report.work
    if result is None or result.part is not None or result.raised:
        return None
    classes = (result.type, result.of)  # the part may lie in an object that the parent pickles as a whole
    cls, (table, name) = next(
        ((cls, e.reducers[cls]) for e in observed if e for cls in classes if cls in e.reducers), ("", ("", ""))
    )
    raising = {frame.function.rpartition(".")[2] for raised in report.raised for frame in raised.frames}
    if not table or name in raising:  # the child has it, too
        return None
    setter = _SETTERS[table]
    message = (
        f"{setter} has told the parent how to pickle {cls}, and not the child, which cannot send one back: "
        f"{report.error!s}"
    )
    fix = (
        f"call {setter} in the module that defines {cls.rpartition('.')[2]}, which the child imports, or in a "
        "pool's initializer"
    )
    place = None if work is None or work.file is None else Place(work.file, work.line or 1)
    return finding_at("SM407", table, place, message, (), fix)


_SETTERS = {
    "copyreg.dispatch_table": "copyreg.pickle()",
    "multiprocessing.reduction.ForkingPickler._extra_reducers": "ForkingPickler.register()",
}


def _reading(error: Raised) -> tuple[Place | None, tuple[str, ...]]:
    own = [each for each in error.frames if owner(each.file) == "user"]
    if not own:
        return None, ()
    place = Place(own[-1].file, own[-1].line)
    return place, (f"read at {place}: {own[-1].source or place.source}",)


def _finding(registry: _Registry, name: str, error: Raised, known: bool) -> Finding | None:
    """Return the finding for a name that the parent knows, or is `known` to have known when it started the child."""
    with suppress(Exception):  # codecs calls the user's search functions
        known = known or registry.knows(name)
    if not known:
        return None
    place, evidence = _reading(error)
    what = registry.what.format(name=name)
    message = f"{what} is registered in the parent and not in a fresh child: {error.type}: {error.message}"
    fix = (
        f"call {registry.setter} in the child too: in a pool's initializer, first in the target, or in the module that "
        "the child imports"
    )
    return finding_at("SM306", registry.path.format(name=name), place, message, evidence, fix)
