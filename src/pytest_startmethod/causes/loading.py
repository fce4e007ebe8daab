"""SM201 to SM203: objects that pickle in the parent and do not load in a child."""

from __future__ import annotations

import ast
import enum
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..model.child_report import ChildReport, Frame, Raised
from ..model.evidence import Evidence, Parent
from ..model.finding import Fact, Finding, finding_at
from ..model.launch import Launch, Task
from ..model.methods import base
from ..model.place import Place
from ..model.unloaded import Unloaded
from ..source import places
from ..source.callers import owner
from ..source.index import source_of


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Yield why children failed during start-up, or could not load what they were sent.

    If a fresh child was asked as well (`Evidence.unloaded`), its answer supplies the object's path.
    """
    by_pid = {each.pid: each for each in evidence.launches if each.pid is not None}
    told: set[object] = set()
    for report in evidence.reports:
        error, launch = report.error, by_pid.get(report.pid)
        if report.phase not in ("start-up", "unpickling") or error is None:
            continue
        key = (error.type, error.message, report.task, launch and launch.target)
        if key not in told:  # a pool keeps starting workers that all fail alike
            told.add(key)
            every = _better(unloaded(report, launch, evidence.tasks), evidence.unloaded.get(report.pid, ()))
            yield from (load_finding(each, evidence.parent) for each in every)
    yield from _imports_that_raised(evidence)
    if evidence.outcome == "asked":
        for predicted in evidence.unloaded.values():
            yield from (load_finding(each, evidence.parent) for each in predicted)


def _imports_that_raised(evidence: Evidence) -> Iterator[Finding]:
    """Yield modules that raise when a child's function imports them, although the parent has imported them."""
    if base(evidence.method) == "fork":
        return
    ran = [(each.raised, each.method) for each in evidence.reports if each.phase == "run" and each.method != "fork"]
    for every, method in [*ran, (evidence.remote, evidence.method)]:
        for raised in every:
            frames = _own_frames(raised)
            modules = [n for n, frame in enumerate(frames) if frame.function == "<module>"]
            # imported inside a function, rather than run as the child's main module
            module = _imported(frames[modules[-1]].file, evidence.parent) if modules and modules[0] > 0 else None
            if module is not None:
                what = Unloaded(raised, method=method or "spawn", path=module)
                yield _import_raised(what, _importing(frames), frames[-1], evidence.parent)


def _imported(file: str, parent: Parent) -> str | None:
    return next((name for name in list(parent.modules) if _module_file(name, parent) == file), None)


def unloaded(report: ChildReport, launch: Launch | None, tasks: Iterable[Task] = ()) -> Unloaded:
    """Return the failed load that `report`, about start-up or unpickling, describes.

    A worker that could not load a task reports nothing about the task. Its target is looked up in `tasks`, by the
    module that was not found.
    """
    if report.error is None:
        raise ValueError("the report has no exception")
    target = None if launch is None else launch.target
    if report.task:
        missed = report.error.name
        target = next((each.target for each in tasks if missed and each.target.startswith(f"{missed}.")), None)
    return Unloaded(
        raised=report.error,
        method=report.method or "spawn",
        start_up=report.phase == "start-up",
        task=report.task,
        target=target,
        place=None if launch is None else launch.place,
        sys_path=report.sys_path or None,
    )


def _better(told: Unloaded, predicted: Sequence[Unloaded]) -> list[Unloaded]:
    """Return `predicted`, which has paths, if it is about the same type of exception."""
    if not any(each.raised.type == told.raised.type for each in predicted):
        return [told]
    return [
        Unloaded(
            raised=each.raised,
            method=told.method,
            path=each.path,
            global_name=each.global_name,
            target=told.target,
            place=told.place,
            sys_path=told.sys_path,
            facts=() if each.raised.message == told.raised.message else each.facts,  # the child's message is certain
        )
        for each in predicted
    ]


_NO_NAME = re.compile(
    r"Can't get (?:local )?attribute '(?P<a>[^']+)' on <module '(?P<b>[^']+)'"
    r"|module '(?P<d>[^']+)' has no attribute '(?P<c>[^']+)'$"  # 3.14
    r"|Can't resolve path '(?P<e>[^']+)' on module '(?P<f>[^']+)'"  # 3.14
)
_NO_ATTRIBUTE = re.compile(r"(?:type object )?'(?P<cls>[^']+)' (?:object )?has no attribute '(?P<name>__\w*[^_\W])'")
_NO_METHOD = re.compile(r"'(?P<cls>[\w.]+)' object has no attribute '(?P<name>\w+)'$")
_NO_ARGUMENT = re.compile(r"(?P<cls>[\w.<>]+)\.(?P<method>__init__|__new__)\(\) ")


def load_finding(what: Unloaded, parent: Parent) -> Finding:
    """Return the finding for a failed load: SM201, SM202 or SM203."""
    raised = what.raised
    frames = _own_frames(raised)
    if any(each.function == "<module>" for each in frames):
        return _import_raised(what, _importing(frames), frames[-1], parent)
    if raised.type in ("ModuleNotFoundError", "ImportError") and not frames and raised.name:
        return _missing_module(what, raised.name, parent)
    missing = _NO_NAME.search(raised.message) if raised.type == "AttributeError" and not frames else None
    if missing is not None:
        name = missing["a"] or missing["c"] or missing["e"]
        return _missing_name(what, missing["b"] or missing["d"] or missing["f"], name, parent)
    if _primitive_gone(raised):
        return _lost_primitive(what)
    private = _NO_ATTRIBUTE.match(raised.message) if raised.type == "AttributeError" else None
    if private is not None and not frames:
        return _private_name(what, private["cls"], private["name"], parent)
    added = _NO_METHOD.match(raised.message) if what.global_name == ("builtins", "getattr") and not frames else None
    found = None if added is None else _added_method(what, added["cls"], added["name"], parent)
    return found or _loading_raised(what, frames, parent)


def _own_frames(raised: Raised) -> list[Frame]:
    return [each for each in raised.frames if owner(each.file) in ("user", "installed")]


def _evidence(what: Unloaded, *facts: str | Fact) -> tuple[str | Fact, ...]:
    started = () if what.place is None else (Fact("parent", "started", "", what.place),)
    return (*facts, *what.facts, *started)


# -- SM201 -----------------------------------------------------------------------------------------------------------


def _missing_module(what: Unloaded, missing: str, parent: Parent) -> Finding:
    name, file = _module_wanted(what, missing, parent)
    reason, fix = _why_not_importable(name, file, what, parent)
    place = what.place if file is None else Place(file, 1)
    evidence = _evidence(what, f"{what.raised.type}: {what.raised.message}")
    return finding_at("SM201", what.path, place, f"{what.child} cannot import {name!r}: {reason}", evidence, fix)


def _module_wanted(what: Unloaded, missing: str, parent: Parent) -> tuple[str, str | None]:
    """Return the module whose import failed because `missing` was not found, and its file in the parent.

    The exception names only the first missing package: ``tests`` for ``tests.test_locks``.
    """
    wanted = []
    if what.global_name is not None:
        wanted.append(what.global_name[0])
    if what.target is not None:
        parts = what.target.split(".")
        wanted += [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    wanted.append(missing)
    wanted += sorted(name for name in list(parent.modules) if name.startswith(f"{missing}."))
    for name in wanted:
        file = _module_file(name, parent)
        if file is not None and (name == missing or name.startswith(f"{missing}.")):
            return name, file
    return missing, None


def _module_file(name: str, parent: Parent) -> str | None:
    try:
        file = object.__getattribute__(parent.modules[name], "__dict__").get("__file__")
    except (KeyError, AttributeError):
        return None
    return os.path.abspath(file) if type(file) is str else None


def _why_not_importable(name: str, file: str | None, what: Unloaded, parent: Parent) -> tuple[str, str]:
    """Return the reason, without a full stop, and the fix."""
    if file is None:
        if name in parent.modules:
            return (
                "the parent made that module at run time, and there is no file to import",
                "write the module to a file that can be imported, and import it by name",
            )
        return (
            "the parent has not imported it, and the child's sys.path does not lead to it",
            f"install {name!r}, or put its directory on sys.path before the processes start",
        )
    root = _import_root(name, file)
    if root is None:
        return (
            f"the parent loaded {file} under that name, which its path does not give it",
            "import the file under the name that its path and sys.path give it",
        )
    entries = [os.path.realpath(entry or os.curdir) for entry in (what.sys_path or parent.sys_path)]
    now = [os.path.realpath(entry or os.curdir) for entry in parent.sys_path]
    real = os.path.realpath(root)
    ini = f"`pythonpath = {_relative(root, parent.rootdir)}` in the pytest ini file"
    if real in entries:
        if not os.path.exists(file):
            return f"the parent loaded it from {file}, which is gone", "keep the file until the processes have ended"
        return (
            f"the parent loaded it from {file} by other means than sys.path, which holds {root}",
            "import the module by name, without an import hook that only the parent has",
        )
    if real in now:
        return (
            f"{root} is on the parent's sys.path now, and was not when the processes started",
            f"put {root} on sys.path before the processes start: {ini}",
        )
    return _why_not_on_path(name, file, root, ini, parent)


def _why_not_on_path(name: str, file: str, root: str, ini: str, parent: Parent) -> tuple[str, str]:
    """Return reason and fix for a module whose directory is not on ``sys.path``. `ini` is the setting that adds it."""
    relative = _relative_entry(root, parent)
    if relative is not None:
        return (
            f"sys.path has the relative entry {relative!r}, which was {root} when the parent imported it, and the "
            "working directory is another one now",
            f"put the absolute path on sys.path: os.path.abspath({relative!r})",
        )
    if parent.import_mode == "importlib":
        runs = " or run `python -m pytest` there," if _same(root, parent.rootdir) or _same(root, os.getcwd()) else ""
        return (
            f"--import-mode=importlib gave {file} that name, and {root} is not on sys.path",
            f"put {root} on sys.path: {ini},{runs} or use --import-mode=prepend",
        )
    if root in sys.path_importer_cache and _found_by_path(name, parent):
        return (
            f"{root} was on sys.path while the parent imported it, and is not any more",
            f"leave {root} on sys.path until the processes have started",
        )
    if parent.rootdir is not None and os.path.relpath(root, parent.rootdir).startswith(os.pardir):
        return (
            f"the parent loaded {file} by its path, and {root} is not on sys.path",
            "put that directory on sys.path before the processes start (monkeypatch.syspath_prepend), or pass the path "
            "and load the file in the child",
        )
    return (
        f"the parent loaded {file} by its path, and {root} is not on sys.path",
        f"put {root} on sys.path before the processes start: {ini}, PYTHONPATH, or install the package",
    )


def _found_by_path(name: str, parent: Parent) -> bool:
    """Return whether a search of ``sys.path`` found the module: a module loaded by path has no cache file."""
    spec = getattr(parent.modules.get(name), "__spec__", None)
    return getattr(spec, "cached", None) is not None and getattr(spec, "origin", None) is not None


def _import_root(name: str, file: str) -> str | None:
    """Return the ``sys.path`` entry under which `file` is importable as `name`, or None."""
    path = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else os.path.splitext(file)[0]
    for part in reversed(name.split(".")):
        path, tail = os.path.split(path)
        if tail.partition(".")[0] != part:  # an extension module's file name includes its ABI
            return None
    return path


def _relative_entry(root: str, parent: Parent) -> str | None:
    """Return the relative entry of the parent's ``sys.path`` that may have led to `root`, or None."""
    for entry in parent.sys_path:
        if (
            entry
            and not os.path.isabs(entry)
            and f"{root}{os.sep}".endswith(f"{os.sep}{os.path.normpath(entry)}{os.sep}")
        ):
            return entry
    return None


def _same(one: str, other: str | None) -> bool:
    return other is not None and os.path.realpath(one) == os.path.realpath(other)


def _relative(path: str, root: str | None) -> str:
    return path if root is None else os.path.relpath(path, root)


_CONTEXT_SET = "context has already been set"


def _importing(frames: Sequence[Frame]) -> Frame:
    """Return the innermost frame of module-level code: the user's if there is one."""
    modules = [each for each in frames if each.function == "<module>"]
    return next((each for each in reversed(modules) if owner(each.file) == "user"), modules[-1])


def _import_raised(what: Unloaded, importing: Frame, last: Frame, parent: Parent) -> Finding:
    raised, theirs = what.raised, owner(last.file) != "user"
    imported = not what.start_up and _imported(importing.file, parent) is not None
    doing = "while it ran the main module again" if what.start_up else f"while it imported {importing.file}"
    message = f"{what.child} failed {doing}: {raised}"
    if raised.type == "RuntimeError" and _CONTEXT_SET in raised.message:
        fix = 'call set_start_method() under `if __name__ == "__main__":` or in a fixture, not when the module loads'
    elif raised.type == "RuntimeError" and "before the" in " ".join(raised.message.split()):
        message = f"{what.child} failed {doing}, which starts processes of its own"
        fix = 'start processes in a function or under `if __name__ == "__main__":`, not when the module loads'
    elif raised.type == "ModuleNotFoundError" and raised.name:
        fix = f"let the child find {raised.name!r} on its sys.path, or import it inside the function that needs it"
    elif theirs or imported:
        fix = (
            f"what had made that import possible in the parent (a conftest.py, a fixture, the main module) has not run "
            f"in the child: do the same there first, in a pool's initializer or at the top of {importing.file}, above "
            f"line {importing.line}"
        )
    else:
        fix = 'move the line into a function or under `if __name__ == "__main__":`, or let it work in a second process'
    place = Place(importing.file, importing.line)
    facts = [Fact("child", "", importing.source or place.source, place)]
    if (last.file, last.line) != (importing.file, importing.line):
        facts.append(Fact("child", "raised", last.source, Place(last.file, last.line)))
    return finding_at("SM201", what.path, place, message, _evidence(what, *facts), fix)


# -- SM202 -----------------------------------------------------------------------------------------------------------


def _missing_name(what: Unloaded, module: str, name: str, parent: Parent) -> Finding:
    shown = "__main__" if module == "__mp_main__" else module
    obj = _look_up(parent.modules.get(shown), name)
    place = _defined_at(obj)
    file = _module_file(shown, parent)
    if shown == "__main__":
        why = f"the child's __main__ is not the parent's, and {name!r} is not in it"
        fix = f"move {name!r} into an importable module of its own, so that the child finds it by import"
    else:
        why, fix, place = _why_not_there(shown, name, file, place)
    message = f"{what.child} imports {shown!r}, and the name is not there: {why}"
    evidence = _evidence(what, str(what.raised))
    return finding_at("SM202", what.path, place or what.place, message, evidence, fix)


def _why_not_there(module: str, name: str, file: str | None, place: Place | None) -> tuple[str, str, Place | None]:
    """Return why a name is missing from the child's module, the fix, and the line to look at."""
    first = name.partition(".")[0]
    guard, bindings = _bindings(file, first) if file is not None else (None, [])
    if guard is not None:
        why = f"{first!r} is defined under the condition at {file}:{guard}, which does not hold in the child"
        return why, f"define {first!r} unconditionally, at the top level of {module}", place or Place(str(file), guard)
    if bindings:
        why = f"{first!r} is bound at {file}:{bindings[0]} in the parent, and the child's module has no such name"
        fix = f"make sure that importing {module} defines {first!r} whenever and wherever it is imported"
        return why, fix, place or Place(str(file), bindings[0])
    where = "" if place is None else f" by {place.file}:{place.line}"
    why = f"{first!r} is not in its source; the parent added it at run time{where}"
    return why, f"define {first!r} at the top level of {module}, or pass it as an argument", place


def _bindings(file: str, name: str) -> tuple[int | None, list[int]]:
    """Return the line of the condition under which `file`'s top level binds `name`, and its unconditional lines."""
    guards, lines = [], []
    for statement in source_of(file).tree.body:
        bound = [node for node in ast.walk(statement) if _binds(node, name)]
        if not bound:
            continue
        if isinstance(statement, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            guards.append(statement.lineno)
        else:
            lines.append(getattr(bound[0], "lineno", statement.lineno))
    return (guards[0] if guards and not lines else None), lines


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name == name
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name


def _private_name(what: Unloaded, cls: str, name: str, parent: Parent) -> Finding:
    mangled, method = _mangled(cls, name, _class_named(cls, what, parent))
    place = _defined_at(method)
    message = f"{what.child} looks up {name!r} on {cls!r}, but name mangling stored it as {mangled!r}"
    fix = f"rename {name!r} to {name[1:]!r}, with a single underscore, or pass a method that is not private"
    return finding_at("SM202", what.path, place or what.place, message, _evidence(what, str(what.raised)), fix)


def _added_method(what: Unloaded, cls: str, name: str, parent: Parent) -> Finding | None:
    """Return that a bound method's class has it in the parent only; None if it has it in neither."""
    method = _look_up(_class_named(cls, what, parent), name)
    if method is None:
        return None
    place = _defined_at(method)
    where = "" if place is None else f" by {place.file}:{place.line}"
    message = f"{what.child} looks up {name!r} on {cls!r}, and it is not there: the parent added it at run time{where}"
    fix = f"define {name!r} in the class {cls!r}, or pass the object and a function at module level"
    return finding_at("SM202", what.path, place or what.place, message, _evidence(what, str(what.raised)), fix)


def _mangled(qualname: str, name: str, cls: type | None) -> tuple[str, object]:
    """Return the name that a private method has in its class, which may be a base of `cls`, and the method."""
    for each in () if cls is None else type.mro(cls):
        stored = f"_{each.__name__.lstrip('_')}{name}"
        if stored in vars(each):
            return stored, vars(each)[stored]
    return f"_{qualname.rpartition('.')[2].lstrip('_')}{name}", None


def _look_up(module: object, name: str) -> Any:
    """Return the object that a dotted name leads to, or None. Reads instance and class dictionaries only."""
    value = module
    for part in name.split("."):
        try:
            value = object.__getattribute__(value, "__dict__")[part]
        except (AttributeError, KeyError, TypeError):
            try:
                value = type.__getattribute__(value, "__dict__")[part]
            except (AttributeError, KeyError, TypeError):
                return None
    return value


def _defined_at(obj: Any) -> Place | None:
    if obj is None:
        return None
    is_class = isinstance(type(obj), type) and issubclass(type(obj), type)
    found = places.class_definition(obj) if is_class else places.function_definition(obj)
    return None if found is None else found.place


def _class_named(qualname: str, what: Unloaded, parent: Parent) -> type | None:
    """Return the class of that qualified name: from the known module, the target's, or the only one anywhere."""
    modules = [] if what.global_name is None else [what.global_name[0]]
    if what.target is not None:
        modules += [what.target[: at.start()] for at in re.finditer(r"\.", what.target)][::-1]
    for module in modules:
        found = _look_up(parent.modules.get(module), qualname)
        if issubclass(type(found), type):
            return found  # type: ignore[no-any-return]
    every = {}
    for name, module_object in list(parent.modules.items()):
        file = _module_file(name, parent)
        if file is not None and owner(file) in ("user", "installed"):
            found = _look_up(module_object, qualname)
            if issubclass(type(found), type):
                every[id(found)] = found
    return next(iter(every.values())) if len(every) == 1 else None


# -- SM203 -----------------------------------------------------------------------------------------------------------


def _loading_raised(what: Unloaded, frames: list[Frame], parent: Parent) -> Finding:
    raised = what.raised
    text = str(raised)
    last = frames[-1] if frames else None
    facts = [Fact("child", "raised", last.source, Place(last.file, last.line))] if last is not None else []
    qualname = frames[-1].function if frames else ""
    method = _loading_method(frames)
    place = _function_at(method[0]) if method is not None else None
    if raised.type == "RecursionError" and qualname.rpartition(".")[2] in ("__getattr__", "__getattribute__"):
        cls = qualname.rpartition(".")[0] or "its class"
        message = (
            f"{what.child} asks the new, still empty object for an attribute, and {qualname}, which reads an "
            "attribute that is not set yet, calls itself without end"
        )
        fix = f"let __getattr__ of {cls} raise AttributeError for names it does not know, those with __ first"
        return finding_at("SM203", what.path, _function_at(frames[-1]), message, _evidence(what, *facts), fix)
    arguments = _NO_ARGUMENT.match(raised.message) if raised.type == "TypeError" and not frames else None
    if arguments is not None:
        return _missing_arguments(what, arguments["cls"], arguments["method"], parent)
    if method is not None and place is not None:
        name = method[1]
        message = f"{what.child} calls {name} to load the object, and that raises {text}"
        return finding_at("SM203", what.path, place, message, _evidence(what, *facts), _fix_of(name))
    called = "" if what.global_name is None else f" {what.global_name[0]}.{what.global_name[1]}"
    message = f"{what.child} could not load{called or ' what it was sent'}: {text}"
    called_object = None
    if what.global_name is not None:
        called_object = _look_up(parent.modules.get(what.global_name[0]), what.global_name[1])
    fix = "make what __reduce__ or __getstate__ returns enough to build the object again"
    if what.global_name == ("builtins", "getattr") and raised.type == "AttributeError":
        message = f"{what.child} looks a bound method up by its name, on the object that it belongs to: {text}"
        fix = (
            "define the method in the class, under its own name: a bound method travels as its object and its "
            "__name__; or pass the object and a function at module level"
        )
    elif raised.type == "ValueError" and issubclass(type(called_object), enum.EnumMeta) and what.global_name:
        fix = (
            f"give the members of {what.global_name[1]} values that are equal once pickled (enum.auto(), text, "
            "numbers): a member travels as its class and value, and an object() arrives as another one"
        )
    elif raised.message.endswith("has no attribute '__dict__'") and _state_without_setter(called_object):
        fix = (
            f"define __setstate__ in {what.global_name[1] if what.global_name else 'the class'}, which takes what "
            "__getstate__ returns: with __slots__ there is no __dict__ that it could go to"
        )
    return finding_at(
        "SM203", what.path, _defined_at(called_object) or what.place, message, _evidence(what, *facts), fix
    )


def _state_without_setter(cls: object) -> bool:
    """Return whether a class defines ``__getstate__`` but no ``__setstate__``."""
    if not issubclass(type(cls), type):
        return False
    names = [type.__getattribute__(each, "__dict__") for each in type.__dict__["__mro__"].__get__(cls)[:-1]]
    return any("__getstate__" in each for each in names) and not any("__setstate__" in each for each in names)


def _loading_method(frames: list[Frame]) -> tuple[Frame, str] | None:
    """Return the frame and name of the user's function that the unpickler called, or None."""
    for frame in frames:
        if frame.function != "<module>":
            return frame, _qualified(frame)
    return None


def _qualified(frame: Frame) -> str:
    """Return a function's name with its class. Python 3.10's frames have no qualified names."""
    if "." in frame.function:
        return frame.function.removeprefix("<locals>.")
    owner_class = ""
    for node in ast.walk(source_of(frame.file).tree):
        if isinstance(node, ast.ClassDef) and node.lineno <= frame.line <= (node.end_lineno or 0):
            owner_class = node.name
    return f"{owner_class}.{frame.function}" if owner_class else frame.function


def _function_at(frame: Frame) -> Place:
    """Return the line of the ``def`` around `frame`, or the frame's own line."""
    found = frame.line
    for node in ast.walk(source_of(frame.file).tree):  # breadth first: the last match is the innermost
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
            node.lineno <= frame.line <= (node.end_lineno or 0)
        ):
            found = node.lineno
    return Place(frame.file, found)


def _fix_of(name: str) -> str:
    cls, _, method = name.rpartition(".")
    if method == "__setstate__":
        return f"let {name} accept what the object's __getstate__, or else its __dict__, gives it"
    if method == "__init__":
        return f"let {name} work with the arguments that __reduce__ of the parent's object passes, or define __reduce__"
    if method == "__new__":
        return f"define __getnewargs__ in {cls} so that {name} gets its arguments, or define __reduce__"
    if method in ("__getattr__", "__getattribute__"):
        return f"let {name} raise AttributeError for what it does not know: the object is empty while it loads"
    return f"let {name} work in a new process, or let __reduce__ name a function that does"


def _missing_arguments(what: Unloaded, cls: str, method: str, parent: Parent) -> Finding:
    raised = what.raised
    found = _class_named(cls, what, parent)
    function = None if found is None else _look_up(found, method)
    place = _defined_at(function) or _defined_at(found) or what.place
    message = f"{what.child} calls {cls} to load the object, with other arguments than it takes: {raised!s}"
    if method == "__init__" and (found is None or issubclass(found, BaseException)):
        fix = (
            f"pass all arguments on, super().__init__(...), so that {cls}.args holds what the constructor takes, "
            "or define __reduce__"
        )
    elif method == "__new__":
        fix = f"define __getnewargs__ in {cls}, which returns the arguments of __new__, or define __reduce__"
    else:
        fix = f"let __reduce__ of {cls} return the arguments that its constructor takes"
    return finding_at("SM203", what.path, place, message, _evidence(what), fix)


def _primitive_gone(raised: Raised) -> bool:
    """Return whether a semaphore could not be opened by its name."""
    return raised.type == "FileNotFoundError" and any(
        os.path.basename(each.file) == "synchronize.py" and owner(each.file) == "stdlib" for each in raised.frames
    )


def _lost_primitive(what: Unloaded) -> Finding:
    message = (
        f"{what.child} found nothing behind a lock, queue, event or other primitive that it was sent: the parent had "
        "dropped its last reference to it by then, and that removes it"
    )
    fix = "keep a reference to it in the parent, in a variable, until the child has ended"
    return finding_at("SM203", what.path, what.place, message, _evidence(what, str(what.raised)), fix)
