"""SM401 and SM202 in scripts: a fresh child has the main module under another name, or not at all. Pure."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..model.child_report import ChildReport, Frame, Raised
from ..model.finding import Finding, finding_at
from ..model.place import Place
from ..source.callers import owner
from ..source.index import source_of

GUARD = 'if __name__ == "__main__":'

# From spawn._check_not_importing_main and DefaultContext.set_start_method; unchanged from 3.10 to 3.15.
_STARTED = "An attempt has been made to start a new process before the current process has finished"
_SET = "context has already been set"

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

_NO_NAME = re.compile(r"name '(\w+)' is not defined")
_NO_ATTRIBUTE = re.compile(
    r"Can't (?:get attribute|resolve path) '(?P<path>[\w.]+)' on <?module '__main__'"
    r"|module '__main__' has no attribute '(?P<name>\w+)'"  # 3.14
)
_OTHER_NAME = re.compile(r"\b(?:__main__|__mp_main__)\.(\w+)")
_REMOTE_FRAME = re.compile(r'  File "(.+)", line (\d+), in (.+)\n')


def find(reports: Iterable[ChildReport], script: str) -> Finding | None:
    """Return SM401 for the first child that died because importing the script starts processes or sets the method.

    `script` is the absolute path of the main module. Only exceptions that ended a child count: a script may handle the
    refusal itself.
    """
    for report in reports:
        if report.phase != "start-up" or report.method == "fork":
            continue
        for error in report.raised:
            what = _refused(error)
            modules = [n for n, frame in enumerate(error.frames) if _is_module(frame)] if what else []
            if what and modules:
                return _refusal(what, error, error.frames[modules[-1] :], script)
    return None


def findings(
    reports: Sequence[ChildReport], raised: Sequence[Raised], script: str, module: str | None = None
) -> list[Finding]:
    """Return the failures caused by a child's main module differing from the parent's.

    `raised` is the script's own exception and its causes, including the text of a remote traceback; `module` is the
    name given to ``python -m``.
    """
    source = _Script(script)
    found: list[Finding | None] = [find(reports, script)]
    for report in reports:
        if report.method == "fork":
            continue
        for error in report.raised:
            if report.phase == "start-up":
                found.append(_behind_the_guard(error, source))
            else:
                found += [_never_loaded(error, source, module), *_in_a_function(error, error.frames, source)]
    for error in raised:
        frames = [*_remote_frames(raised), *error.frames]
        found += _in_a_function(error, frames, source)
    return [each for each in found if each is not None]


class _Script:
    """The source of a main module and its main guard."""

    def __init__(self, path: str) -> None:
        source = source_of(path)
        self.path = path
        self.lines = source.text.splitlines()
        self.body = source.tree.body
        self._bound = source.index.bound

    @property
    def guard(self) -> ast.If | None:
        return next((each for each in self.body if isinstance(each, ast.If) and _is_guard(each)), None)

    def statement(self, line: int) -> int | None:
        """Return the index of the top-level statement at `line`."""
        return next((n for n, each in enumerate(self.body) if _first(each) <= line <= _last(each)), None)

    def line(self, number: int) -> str:
        return self.lines[number - 1].strip() if 0 < number <= len(self.lines) else ""

    def defines(self, name: str) -> int | None:
        """Return the first line that binds `name` at the module's top level, guarded or not."""
        return next((line for each, line in self._bound if each == name), None)

    def only_guarded(self, name: str) -> int | None:
        """Return the line that binds a global under the main guard or in a function, if no unguarded line does."""
        lines = [line for each, line in self._bound if each == name]
        if all(_is_guard(self.body[self.statement(line) or 0]) for line in lines):
            return min([*lines, *self._in_functions(name)], default=None)
        return None

    def _in_functions(self, name: str) -> list[int]:
        functions = [node for each in self.body for node in ast.walk(each) if isinstance(node, _FUNCTIONS)]
        return [
            each.lineno
            for function in functions
            if any(isinstance(each, ast.Global) and name in each.names for each in function.body)
            for each in ast.walk(function)
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store) and each.id == name
        ]


# -- SM401 -------------------------------------------------------------------------------------------------------------


def _refused(error: Raised) -> str | None:
    """Return what the child is not allowed to do during import, or None for any other error."""
    if error.type != "RuntimeError":
        return None
    text = " ".join(error.message.split())
    return "starts a process" if text.startswith(_STARTED) else "sets the start method" if text == _SET else None


def _is_module(frame: Frame) -> bool:
    return frame.function == "<module>" and owner(frame.file) == "user"


def _refusal(what: str, error: Raised, frames: Sequence[Frame], script: str) -> Finding:
    """Return SM401 for `frames`: the innermost frame of module-level code, and the frames it called."""
    top = frames[0]
    act = [each for each in frames if owner(each.file) == "user"][-1]
    line = top.line if act.file != top.file else act.line
    where = f"line {act.line}" if act.file == top.file else f"{act.file}:{act.line}"
    message = f"a child runs the script again when it imports it, and {where} {what} there, too"
    if act is not top:
        message += f" (called from line {top.line})"
    source = linecache.getline(act.file, act.line).strip() or act.source.strip()
    evidence = (f"line {act.line}: {source}", f"the child died of {error.type}: {_refusal_text(error)}")
    fix = _fix(_Script(script), top.line) if top.file == script else _fix_elsewhere(top, script)
    return finding_at("SM401", "__main__", Place(top.file, line), message, evidence, fix)


def _refusal_text(error: Raised) -> str:
    return " ".join(error.message.split()).partition(". ")[0].rstrip(".")


def _behind_the_guard(error: Raised, script: _Script) -> Finding | None:
    """Return SM401 for an exception at start-up in a line of the script that only the parent should run."""
    frame = next((each for each in error.frames if _is_module(each) and each.file == script.path), None)
    at = script.statement(frame.line) if frame is not None else None
    if frame is None or at is None or script.guard is None or _refused(error):
        return None
    missing = _NO_NAME.search(error.message) if error.type == "NameError" else None
    bound = script.only_guarded(missing[1]) if missing else None
    if bound is None and script.body.index(script.guard) > at:
        return None
    message = (
        f"a child runs the script again when it imports it, and line {frame.line}, outside the main guard of line "
        f"{script.guard.lineno}, fails there: {error.type}: {error.message}"
    )
    evidence = [f"line {frame.line}: {script.line(frame.line)}"]
    if missing and bound is not None:
        evidence.append(f"line {bound}, under the guard, sets {missing[1]!r}: {script.line(bound)}")
    place = Place(script.path, frame.line)
    return finding_at("SM401", "__main__", place, message, evidence, _fix(script, frame.line))


def _fix_elsewhere(top: Frame, script: str) -> str:
    return (
        f"move line {top.line} of {top.file}, which runs when the module is imported, into a function, "
        f"and call that in {script} below `{GUARD}`"
    )


def _fix(script: _Script, line: int) -> str:
    """Return which lines to guard and indent, for the script's statement at `line`."""
    start = script.statement(line)
    if start is None:
        return f"put `{GUARD}` above line {line} and indent what follows below it"
    runs = _runs(script.body[start:])
    guards = [each for each in script.body if _is_guard(each)]
    if guards and script.body.index(guards[-1]) < start:
        return f"indent {_lines(runs)} by {_indentation(script.lines)}, into the main guard of line {guards[-1].lineno}"
    after = next((each for each in guards if script.body.index(each) >= start), None)
    if after is not None:
        return f"move {_lines(runs)} below the `{GUARD}` of line {after.lineno}"
    above = " and above ".join(f"line {first}" for first, _ in runs)
    return f"put `{GUARD}` above {above}, and indent {_lines(runs)} by {_indentation(script.lines)}"


def _runs(body: Sequence[ast.stmt]) -> list[tuple[int, int]]:
    """Return first and last line of each run of statements that children do not need."""
    runs: list[tuple[int, int]] = []
    together = False
    for each in body:
        stays = isinstance(each, _DEFINITIONS) or _is_guard(each)
        if not stays:
            runs.append((runs.pop()[0] if together else _first(each), _last(each)))
        together = not stays
    return runs


def _lines(runs: Sequence[tuple[int, int]]) -> str:
    one = len(runs) == 1 and runs[0][0] == runs[0][1]
    texts = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs]
    return f"line{'' if one else 's'} {', '.join(texts[:-1])}{' and ' if len(texts) > 1 else ''}{texts[-1]}"


def _first(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", ())
    return min(int(each.lineno) for each in (statement, *decorators))


def _last(statement: ast.stmt) -> int:
    return statement.end_lineno or statement.lineno


def _is_guard(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If):
        return False
    names = [each.id for each in ast.walk(statement.test) if isinstance(each, ast.Name)]
    values = [each.value for each in ast.walk(statement.test) if isinstance(each, ast.Constant)]
    return "__name__" in names and "__main__" in values


def _indentation(source: Iterable[str]) -> str:
    """Return the file's indentation in words, from its first indented line."""
    for line in source:
        text = line.lstrip(" \t")
        width = len(line) - len(text)
        if width and text.strip():
            return "one tab" if line[0] == "\t" else f"{width} space{'s' * (width > 1)}" if width <= 8 else "4 spaces"
    return "4 spaces"


# -- SM202 -------------------------------------------------------------------------------------------------------------


def _never_loaded(error: Raised, script: _Script, module: str | None) -> Finding | None:
    """Return SM202 for a name in a package's ``__main__.py``, which spawn._fixup_main_from_name does not load."""
    missing = _NO_ATTRIBUTE.search(error.message) if error.type == "AttributeError" else None
    if missing is None or module is None or not module.endswith(".__main__"):
        return None
    name, package = missing["path"] or missing["name"], module.removesuffix(".__main__")
    line = script.defines(name.partition(".")[0])
    place = Place(script.path, line) if line else None
    message = (
        f"with `python -m {package}` a child never loads {module}, so its __main__ has no {name!r}: "
        "multiprocessing leaves out main modules of that name"
    )
    evidence = [f"the child died of {error.type}: {error.message}"]
    fix = f"move {name!r} into a module of the package, and import it in {script.path}"
    return finding_at("SM202", f"__main__.{name}", place, message, evidence, fix)


def _in_a_function(error: Raised, frames: Sequence[Frame], script: _Script) -> Iterator[Finding]:
    """Yield SM202 for a name that a child's function cannot find, or expects under the parent's module name."""
    frame = next((each for each in reversed(frames) if each.file == script.path and each.function != "<module>"), None)
    missing = _NO_NAME.search(error.message) if error.type == "NameError" else None
    bound = script.only_guarded(missing[1]) if missing else None
    if missing and bound is not None and frame is not None:
        name, guard = missing[1], script.guard
        under = "under the main guard" if guard and guard.lineno <= bound <= _last(guard) else "in a function"
        message = (
            f"{frame.function} reads {name!r} at line {frame.line}, and only line {bound}, {under}, sets it: "
            "a fresh child imports the script and does not run that line"
        )
        evidence = [
            f"line {bound}: {script.line(bound)}",
            f"the child raised {error.type}: {error.message}",
        ]
        fix = f"pass {name!r} as an argument, or set it in the child: in a pool's initializer, or first in the target"
        yield finding_at("SM202", f"__main__.{name}", Place(script.path, frame.line), message, evidence, fix)
    for name in dict.fromkeys(_OTHER_NAME.findall(error.message)):
        line = script.defines(name)
        if line is None or "pickle" in error.type.lower() or _NO_ATTRIBUTE.search(error.message):
            continue
        message = (
            f"{name!r} is '__main__.{name}' in the parent and '__mp_main__.{name}' in a fresh child, which imports the "
            f"script under that name: {error.type}: {error.message}"
        )
        evidence = [] if frame is None else [f"raised below line {frame.line}: {frame.source or _line(frame)}"]
        fix = f"move {name!r} to a module of its own, which has one name in every process, and import it"
        yield finding_at("SM202", f"__main__.{name}", Place(script.path, line), message, evidence, fix)


def _line(frame: Frame) -> str:
    return linecache.getline(frame.file, frame.line).strip()


def _remote_frames(raised: Sequence[Raised]) -> list[Frame]:
    """Return the worker's frames of a task's exception, parsed from the traceback text that pools send."""
    texts: Mapping[str, str] = {each.type.rpartition(".")[2].lstrip("_"): each.message for each in raised}
    return [Frame(f, int(n), name, "") for f, n, name in _REMOTE_FRAME.findall(texts.get("RemoteTraceback", ""))]
