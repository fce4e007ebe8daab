"""SM201 to SM203, SM404 and SM407: from what children reported, and how they ended, to findings. Pure."""

from __future__ import annotations

import ast
import itertools
import linecache
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..model.child_report import ChildReport, Frame, Raised, Unreturned
from ..model.finding import WIDTH, Finding, finding_at, relative
from ..model.launch import Launch, Task
from ..model.place import Place
from ..model.unloaded import Unloaded
from ..source import places
from ..source.callers import owner


@dataclass(frozen=True, slots=True)
class Parent:
    """What the parent can import, and how it came to."""

    modules: Mapping[str, Any] = field(default_factory=lambda: sys.modules)
    sys_path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    rootdir: str | None = None
    """pytest's; ``pythonpath`` in its ini file is relative to the directory of that file."""
    import_mode: str | None = None
    """pytest's ``--import-mode``: ``"prepend"``, ``"append"`` or ``"importlib"``."""


def findings(
    reports: Iterable[ChildReport],
    launches: Iterable[Launch] = (),
    parent: Parent | None = None,
    predict: Callable[[Launch], Sequence[Unloaded]] | None = None,
    unreturned: Iterable[Unreturned] = (),
    tasks: Iterable[Task] = (),
) -> tuple[Finding, ...]:
    """Return why children failed, as far as it has to do with the start method, the best supported first.

    An exception that the user's function raised is no finding: `traceback_lines` shows it. `predict` says what of a
    launch does not load, and by which path, if the caller can tell; it is asked only after a child failed to load.
    """
    parent = parent or Parent()
    reports, by_pid = list(reports), {each.pid: each for each in launches if each.pid is not None}
    found: list[Finding] = []
    told: set[object] = set()
    for report in reports:
        error = report.error
        launch = by_pid.get(report.pid)
        if report.phase in ("start-up", "unpickling") and error is not None:
            key = (error.type, error.message, report.task, launch and launch.target)
            if key in told:  # a pool starts one worker after the other, and all fail alike
                continue
            told.add(key)
            every = [unloaded(report, launch, tasks)]
            if predict is not None and launch is not None and report.phase == "unpickling" and not report.task:
                every = _better(every[0], predict(launch))
            found += [load_finding(each, parent) for each in every]
        elif report.phase == "result" and report.result is not None:
            found.append(_result_not_sent(report))
        start = failed_start(report)
        if start is not None:
            found.append(start)
    found += [result_not_loaded(message, parent) for message in unreturned]
    for each in by_pid.values():
        finding = crash(each, [report for report in reports if report.pid == each.pid])
        if finding is not None:
            found.append(finding)
    for report in reports:
        if report.phase == "crash" and report.pid not in by_pid:
            who = f"a {report.method} child of the child {report.starter} (pid {report.pid})"
            found.append(_crashed(who, report.method, report.stack, None))
    return _unique(found)


def unloaded(report: ChildReport, launch: Launch | None, tasks: Iterable[Task] = ()) -> Unloaded:
    """Return what `report`, which is about start-up or unpickling and has an exception, says.

    A worker that could not load a task knows no more than that: of `tasks` one may come from the module it missed.
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
    """Return `predicted`, which has paths, if it is about the same exception."""
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
            facts=() if each.raised.message == told.raised.message else each.facts,  # the child's own word is no guess
        )
        for each in predicted
    ]


# -- what does not load ----------------------------------------------------------------------------------------------

_NO_NAME = re.compile(
    r"Can't get (?:local )?attribute '(?P<a>[^']+)' on <module '(?P<b>[^']+)'"
    r"|module '(?P<d>[^']+)' has no attribute '(?P<c>[^']+)'$"  # 3.14
    r"|Can't resolve path '(?P<e>[^']+)' on module '(?P<f>[^']+)'"  # 3.14
)
_NO_ATTRIBUTE = re.compile(r"(?:type object )?'(?P<cls>[^']+)' (?:object )?has no attribute '(?P<name>__\w*[^_\W])'")
_NO_ARGUMENT = re.compile(r"(?P<cls>[\w.<>]+)\.(?P<method>__init__|__new__)\(\) ")


def load_finding(what: Unloaded, parent: Parent) -> Finding:
    """Return the finding for something that did not load: SM201, SM202 or SM203."""
    raised = what.raised
    frames = _own_frames(raised)
    importing = next((f for f in reversed(frames) if f.function == "<module>"), None)
    if importing is not None:
        return _import_raised(what, importing, frames[-1])
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
    return _loading_raised(what, frames, parent)


def _own_frames(raised: Raised) -> list[Frame]:
    """Return the frames of the user's code and of installed packages."""
    return [each for each in raised.frames if _whose(each.file) in ("user", "installed")]


def _whose(file: str) -> str:
    return "stdlib" if file.startswith("<") else owner(file)  # "<string>" of ``python -c``


def _evidence(what: Unloaded, *facts: str) -> tuple[str, ...]:
    started = () if what.place is None else (f"started at {what.place.file}:{what.place.line}",)
    return (*facts, *what.facts, *started)


# -- SM201 -----------------------------------------------------------------------------------------------------------


def _missing_module(what: Unloaded, missing: str, parent: Parent) -> Finding:
    name, file = _module_wanted(what, missing, parent)
    reason, fix = _why_not_importable(name, file, what, parent)
    place = what.place if file is None else Place(file, 1)
    evidence = _evidence(what, f"{what.raised.type}: {what.raised.message}")
    return finding_at("SM201", what.path, place, f"{what.child} cannot import {name!r}: {reason}", evidence, fix)


def _module_wanted(what: Unloaded, missing: str, parent: Parent) -> tuple[str, str | None]:
    """Return the module whose import failed for want of `missing`, and its file in the parent.

    Only the first package that is not found is named in the exception: ``tests`` of ``tests.test_locks``.
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


def _import_root(name: str, file: str) -> str | None:
    """Return the directory from which `file` would be imported as `name`; None if none would."""
    path = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else os.path.splitext(file)[0]
    for part in reversed(name.split(".")):
        path, tail = os.path.split(path)
        if tail.partition(".")[0] != part:  # an extension module has its ABI in its name
            return None
    return path


def _relative_entry(root: str, parent: Parent) -> str | None:
    """Return the relative entry of the parent's ``sys.path`` that may have led to `root`."""
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


def _import_raised(what: Unloaded, importing: Frame, last: Frame) -> Finding:
    """Return the finding for a module of the user's that raises while the child imports it."""
    raised = what.raised
    doing = "while it ran the main module again" if what.start_up else f"while it imported {importing.file}"
    message = f"{what.child} failed {doing}: {_said(raised)}"
    if raised.type == "RuntimeError" and _CONTEXT_SET in raised.message:
        fix = 'call set_start_method() under `if __name__ == "__main__":` or in a fixture, not when the module loads'
    elif raised.type == "RuntimeError" and "before the" in " ".join(raised.message.split()):
        message = f"{what.child} failed {doing}, which starts processes of its own"
        fix = 'start processes in a function or under `if __name__ == "__main__":`, not when the module loads'
    elif raised.type == "ModuleNotFoundError" and raised.name:
        fix = f"let the child find {raised.name!r} on its sys.path, or import it inside the function that needs it"
    else:
        fix = 'move the line into a function or under `if __name__ == "__main__":`, or let it work in a second process'
    facts = [f"at {importing.file}:{importing.line}: {importing.source}"]
    if (last.file, last.line) != (importing.file, importing.line):
        facts.append(f"raised at {last.file}:{last.line}: {last.source}")
    place = Place(importing.file, importing.line)
    return finding_at("SM201", what.path, place, message, _evidence(what, *facts), fix)


def _said(raised: Raised) -> str:
    text = " ".join(raised.message.split())
    return f"{raised.type}: {text}" if text else raised.type


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
    evidence = _evidence(what, _said(what.raised))
    return finding_at("SM202", what.path, place or what.place, message, evidence, fix)


def _why_not_there(module: str, name: str, file: str | None, place: Place | None) -> tuple[str, str, Place | None]:
    """Return why the child's module lacks what the parent's has, the fix, and the line to look at."""
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
    """Return the line of the condition under which `file` binds `name` at its top level, and where else it does."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None, []
    guards, lines = [], []
    for statement in tree.body:
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
    found = _class_named(cls, what, parent)
    method = None if found is None else _mangled(found, name)
    place = _defined_at(method)
    message = (
        f"{what.child} looks {name!r} up on {cls!r} by that name, and Python keeps a private name as "
        f"{'_' + cls.rpartition('.')[2].lstrip('_') + name!r}"
    )
    fix = f"rename {name!r} to {name[1:]!r}, with a single underscore, or pass a method that is not private"
    return finding_at("SM202", what.path, place or what.place, message, _evidence(what, _said(what.raised)), fix)


def _mangled(cls: type, name: str) -> Any:
    for each in type.mro(cls):
        value = vars(each).get(f"_{each.__name__.lstrip('_')}{name}")
        if value is not None:
            return value
    return None


def _look_up(module: Any, name: str) -> Any:
    """Return what `name` leads to, through instance and class dictionaries only."""
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
    """Return the one class of that qualified name: of the module that is known, of the target's, or of the user's."""
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
    said = _said(raised)
    facts = [f"raised at {frames[-1].file}:{frames[-1].line}: {frames[-1].source}"] if frames else []
    qualname = frames[-1].function if frames else ""
    method = _loading_method(frames)
    place = _function_at(*method) if method is not None else None
    if raised.type == "RecursionError" and qualname.rpartition(".")[2] in ("__getattr__", "__getattribute__"):
        cls = qualname.rpartition(".")[0] or "its class"
        message = (
            f"{what.child} asks the new, still empty object for an attribute, and {qualname}, which reads an "
            "attribute that is not set yet, calls itself without end"
        )
        fix = f"let __getattr__ of {cls} raise AttributeError for names it does not know, those with __ first"
        return finding_at("SM203", what.path, _function_at(frames[-1], qualname), message, _evidence(what, *facts), fix)
    arguments = _NO_ARGUMENT.match(raised.message) if raised.type == "TypeError" and not frames else None
    if arguments is not None:
        return _missing_arguments(what, arguments["cls"], arguments["method"], parent)
    if method is not None and place is not None:
        name = method[1]
        message = f"{what.child} calls {name} to load the object, and that raises {said}"
        return finding_at("SM203", what.path, place, message, _evidence(what, *facts), _fix_of(name))
    called = "" if what.global_name is None else f" {what.global_name[0]}.{what.global_name[1]}"
    message = f"{what.child} could not load{called or ' what it was sent'}: {said}"
    called_object = None
    if what.global_name is not None:
        called_object = _look_up(parent.modules.get(what.global_name[0]), what.global_name[1])
    fix = "make what __reduce__ or __getstate__ returns enough to build the object again"
    if what.global_name == ("builtins", "getattr") and raised.type == "AttributeError":
        message = f"{what.child} looks a bound method up by its name, on the object that it belongs to: {said}"
        fix = (
            "define the method in the class, under its own name: a bound method travels as its object and its "
            "__name__; or pass the object and a function at module level"
        )
    elif raised.message.endswith("has no attribute '__dict__'") and _state_without_setter(called_object):
        fix = (
            f"define __setstate__ in {what.global_name[1] if what.global_name else 'the class'}, which takes what "
            "__getstate__ returns: with __slots__ there is no __dict__ that it could go to"
        )
    return finding_at(
        "SM203", what.path, _defined_at(called_object) or what.place, message, _evidence(what, *facts), fix
    )


def _state_without_setter(cls: Any) -> bool:
    """Say whether a class makes its state itself and leaves it to pickle to set."""
    if not issubclass(type(cls), type):
        return False
    names = [type.__getattribute__(each, "__dict__") for each in type.__dict__["__mro__"].__get__(cls)[:-1]]
    return any("__getstate__" in each for each in names) and not any("__setstate__" in each for each in names)


def _loading_method(frames: list[Frame]) -> tuple[Frame, str] | None:
    """Return the user's function that the unpickler called: the outermost frame of it, and its name."""
    for frame in frames:
        if frame.function != "<module>":
            return frame, _qualified(frame)
    return None


def _qualified(frame: Frame) -> str:
    """Return a function's name with its class: 3.10 has no qualified names in its frames."""
    if "." in frame.function:
        return frame.function.removeprefix("<locals>.")
    owner_class = ""
    for node in ast.walk(_tree(frame.file)):
        if isinstance(node, ast.ClassDef) and node.lineno <= frame.line <= (node.end_lineno or 0):
            owner_class = node.name
    return f"{owner_class}.{frame.function}" if owner_class else frame.function


def _tree(file: str) -> ast.AST:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _function_at(frame: Frame, _name: str = "") -> Place:
    """Return the line of the ``def`` that `frame` is in, or the frame's own."""
    found = frame.line
    for node in ast.walk(_tree(frame.file)):  # breadth first: the last one that matches is the innermost
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
    message = f"{what.child} calls {cls} to load the object, with other arguments than it takes: {_said(raised)}"
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
    return finding_at("SM203", what.path, what.place, message, _evidence(what, _said(what.raised)), fix)


# -- starts that fail in a child -------------------------------------------------------------------------------------

_LOCAL = re.compile(r"Can't (?:pickle|get) local object (?:'(?P<a>[^']+)'|<(?P<kind>function|class) '?(?P<b>[^ ']+))")


def failed_start(report: ChildReport) -> Finding | None:
    """Return the finding for a process that a child of the leg could not start; None if it is about something else.

    What the child's arguments were is not known here, only what pickle said of them.
    """
    error = report.error
    if error is None or report.phase != "run" or report.method is None:
        return None
    dumped = [each for each in error.frames if owner(each.file) == "stdlib" and each.function.endswith("_launch")]
    own = [each for each in error.frames if _whose(each.file) == "user"]
    if not dumped or not own:
        return None
    place = Place(own[-1].file, own[-1].line)
    text = f"the {report.method} child {report.process} (pid {report.pid}) could not start a process of its own"
    local = _LOCAL.search(error.message)
    if local is not None:
        name = (local["a"] or local["b"]).rpartition(".")[2]
        code = "SM102" if local["kind"] == "class" else "SM101"
        fix = f"move `{name}` to module level, and pass what it uses from around it as arguments"
        if name == "<lambda>":
            fix = "replace the lambda by a function defined with `def` at module level"
        return finding_at(code, "", place, f"{text}: {_said(error)}", (), fix)
    if error.type not in ("TypeError", "PicklingError", "_pickle.PicklingError", "pickle.PicklingError"):
        return None
    fix = "make in the new process what cannot be pickled; pytest_startmethod.explain(target, args) finds it"
    return finding_at("SM103", "", place, f"{text}: {_said(error)}", (), fix)


# -- SM404 -----------------------------------------------------------------------------------------------------------

_ENDED_ON_PURPOSE = {"SIGTERM", "SIGINT", "SIGHUP"}
"""What ``terminate()``, a Pool at its end, and Ctrl-C send."""
_STACK_LINE = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)')


def crash(launch: Launch, reports: Sequence[ChildReport]) -> Finding | None:
    """Return the finding for a child that ended without Python's doing; None if it ended in an ordinary way."""
    code = launch.exit_code
    if code == 0 or any(report.phase not in ("crash", "stack") for report in reports):
        return None
    stack = next((report.stack for report in reports if report.phase == "crash"), ())
    who = f"the {launch.method} child {launch.target} (pid {launch.pid})"
    if code is None:
        return _crashed(who, launch.method, stack, launch.place) if stack else None
    place, lines = _user_line(stack)
    started = () if launch.place is None else (f"started at {launch.place.file}:{launch.place.line}",)
    if code < 0:
        name = _signal_name(-code)
        if name in _ENDED_ON_PURPOSE:
            return None
        message = f"{who} was killed by {name}, exit code {code}"
        if name == "SIGKILL":
            fix = "look for who kills it: Process.kill(), a supervisor, or the kernel when memory runs out"
            return finding_at("SM404", "", launch.place, message, started, fix, "note")
        return finding_at(
            "SM404", "", place or launch.place, message, (*lines, *started), _crash_fix(launch.method, place)
        )
    if code == 255 and launch.method == "forkserver":
        message = f"{who} has no exit code: the forkserver process that it came from has ended"
        fix = "look for who ends the forkserver: a signal to the process group, or a loop over all child processes"
        return finding_at("SM404", "", launch.place, message, started, fix)
    message = f"{who} ended with exit code {code} and no exception: os._exit({code}) or native code ended it"
    fix = "look for os._exit() in the child; it skips finally blocks, buffered output and exit handlers"
    return finding_at("SM404", "", launch.place, message, (*lines, *started), fix)


def _crashed(who: str, method: str | None, stack: Sequence[str], started: Place | None) -> Finding:
    """Return the finding for a crash whose exit code nobody knows: faulthandler tells."""
    place, lines = _user_line(stack)
    title, facts = (lines[0], lines[1:]) if lines else ("a fatal error", ())
    message = f"{who} crashed: {title.removeprefix('Fatal Python error: ')}"
    if started is not None:
        facts = (*facts, f"started at {started.file}:{started.line}")
    return finding_at("SM404", "", place or started, message, facts, _crash_fix(method, place))


def _crash_fix(method: str | None, place: Place | None) -> str:
    where = "the line above" if place is not None else "the native code that the child runs"
    fix = f"look at {where}: native code that holds threads, handles or memory of its parent is the usual cause"
    return fix + (", and spawn gives it a clean start" if method == "fork" else "")


def _in_child(frame: re.Match[str]) -> bool:
    """Say whether a line is the child's own: below ``_bootstrap`` a fork shows what its parent was doing."""
    return frame["function"] != "_bootstrap"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _user_line(stack: Sequence[str]) -> tuple[Place | None, tuple[str, ...]]:
    """Return the innermost line of the user's in faulthandler's text, and the lines that are worth showing."""
    found = list(itertools.takewhile(_in_child, filter(None, map(_STACK_LINE.match, stack))))
    shown = [f"{m['file']}:{m['line']} in {m['function']}" for m in found if owner(m["file"]) in ("user", "installed")]
    place = next((Place(m["file"], int(m["line"])) for m in found if owner(m["file"]) == "user"), None)
    title = [line for line in stack if line.startswith(("Fatal Python error", "Windows fatal"))][:1]
    return place, (*title, *shown[:5])


# -- SM407 -----------------------------------------------------------------------------------------------------------


def _result_not_sent(report: ChildReport) -> Finding:
    result, work, raised = report.result, report.work, report.error
    assert result is not None
    task = "a task" if work is None else work.name
    what = f"the {result.of} that {task} raised" if result.raised else f"the result of {task}"
    part = result.part.name if result.part is not None else f"a {result.type}"
    if result.path:
        holds = f"{'its ' if result.raised else ''}{('result' + result.path) if not result.raised else result.path[1:]}"
        message = f"{what} did not come back: {holds} is {part}, which cannot be pickled"
    else:
        message = f"{what} did not come back: {part} cannot be pickled"
    facts = [] if raised is None else [_said(raised)]
    if result.raised:
        facts.append(f"the exception said: {result.text}")
        fix = "raise an exception whose args and attributes are plain data"
    elif result.part is not None:
        fix = "return what the function computes, or a function at the top level of a module"
    else:
        fix = "return plain data: take what the parent needs out of the object before returning it"
    place = None if work is None or work.file is None else Place(work.file, work.line or 1)
    path = ("exception" if result.raised else "result") + result.path
    return finding_at("SM407", path, place, message, tuple(facts), fix)


_AFTER = {
    "Pool": "the Pool's result thread ended with it: whoever waits for a result waits for ever",
    "ProcessPoolExecutor": "the executor is broken by it: all its futures fail with BrokenProcessPool",
}


def result_not_loaded(message: Unreturned, parent: Parent | None = None) -> Finding:
    """Return the finding for what a child sent and the parent could not load."""
    inner = load_finding(Unloaded(message.raised), parent or Parent())
    what = "a message of a child" if message.receiver is None else f"what a task gave its {message.receiver}"
    after = () if message.receiver is None else (_AFTER[message.receiver],)
    text = f"{what} was sent and does not load in the parent: {_said(message.raised)}"
    place = None if inner.file is None else Place(inner.file, inner.line or 1)
    return finding_at("SM407", "result", place, text, (*after, *inner.evidence), inner.fix)


# -- text ------------------------------------------------------------------------------------------------------------


def has_user_frames(report: ChildReport) -> bool:
    """Say whether a child's traceback shows more than its finding says."""
    return any(_own_frames(raised) for raised in report.raised)


def traceback_lines(report: ChildReport, root: str | None = None, full: bool = False) -> list[str]:
    """Return the child's own traceback as text: the user's frames, or with `full` all of them."""
    name = report.process or "a child"
    doing = {
        "start-up": "while starting up",
        "unpickling": "while loading a task" if report.task else "while loading its process object",
        "result": "while sending a result",
        "exit": "while exiting",
    }.get(report.phase, "in its initializer" if report.role == "initializer" else "")
    if report.phase in ("crash", "stack"):
        did = "crashed" if report.phase == "crash" else "stood here"
        stack = report.stack if full else _stack_worth_showing(report.stack, root)
        return [f"{name} (pid {report.pid}, {report.method}) {did}:", *(f"  {line}" for line in stack)]
    if not report.raised:
        return [f"{name} (pid {report.pid}, {report.method}) ended with exit code {report.exit_code} {doing}".rstrip()]
    lines = [f"{name} (pid {report.pid}, {report.method}) raised{' ' + doing if doing else ''}:"]
    for index, raised in enumerate(report.raised):
        if index:
            lines.append("  which came from:")
        lines += _raised_lines(raised, report, root, full)
    return lines


def _raised_lines(raised: Raised, report: ChildReport, root: str | None, full: bool) -> list[str]:
    shown = list(raised.frames) if full else _worth_showing(raised.frames)
    if not shown and report.phase == "run":
        shown = list(raised.frames[-1:])
    lines = []
    for frame in shown:
        file = relative(frame.file, root)
        lines.append(f"  {file}:{frame.line} in {frame.function}")
        if frame.source:
            lines.append(f"    {frame.source}")
    if full and raised.omitted:
        lines.append(f"  ({raised.omitted} frames left out)")
    message = raised.message.strip()
    for line in (f"{raised.type}: {message}" if message else raised.type).splitlines():
        lines += [f"  {line}"] if full or not line.strip() else _wrapped(line)
    if raised.statement is not None:
        lines += [f"    {name} = {text}" for name, text in raised.values]
        how = "forked" if report.method == "fork" else f"{report.method} "
        text = f"pytest does not rewrite asserts in this {how.strip()} child: it says no more than this"
        lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _wrapped(line: str) -> list[str]:
    """Return a line of a message in the width of a section; a path or name is never broken."""
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def _stack_worth_showing(stack: Sequence[str], root: str | None) -> list[str]:
    """Return faulthandler's text without the parent's frames below a fork, and of frames only the user's."""
    lines: list[str] = []
    inherited = False
    for line in stack:
        frame = _STACK_LINE.match(line)
        if frame is None:
            inherited = False
            if line.strip():
                lines.append(line)
        elif frame["function"] == "_bootstrap":
            inherited = True
        elif not inherited and _whose(frame["file"]) == "user":
            file = relative(frame["file"], root)
            lines.append(f"  {file}:{frame['line']} in {frame['function']}")
    return lines


def _worth_showing(frames: Sequence[Frame]) -> list[Frame]:
    """Return the user's frames, and where an installed package raised."""
    own = [each for each in frames if _whose(each.file) == "user"]
    installed = [each for each in frames if _whose(each.file) == "installed"]
    chosen = own + ([installed[-1]] if installed and frames[-1] is installed[-1] else [])
    return chosen if len(chosen) <= 12 else chosen[:3] + chosen[-9:]


def _unique(found: Iterable[Finding]) -> tuple[Finding, ...]:
    kept: dict[object, Finding] = {}
    for each in found:
        kept.setdefault((each.code, each.path, each.file, each.line), each)
    return tuple(kept.values())
