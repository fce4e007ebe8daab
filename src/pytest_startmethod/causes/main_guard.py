"""SM401: a script starts processes while a child of it imports it. Reports of children in, a finding out."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterable, Sequence

from ..model import codes
from ..model.child_report import ChildReport, Frame, Raised
from ..model.finding import Finding
from ..source.callers import owner
from ..source.index import source_of

GUARD = 'if __name__ == "__main__":'

# spawn._check_not_importing_main and DefaultContext.set_start_method; the words are those of 3.10 to 3.15
_STARTED = "An attempt has been made to start a new process before the current process has finished"
_SET = "context has already been set"

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def find(reports: Iterable[ChildReport], script: str) -> Finding | None:
    """Return the finding for the first child that could not start because it ran the code below no guard, or None.

    `script` is the absolute path of the main module. Only what ended a child counts: a start that the script's own
    code tried and did without is its own affair.
    """
    for report in reports:
        if report.phase != "start-up" or report.method == "fork":
            continue
        for error in report.raised:
            what = _refused(error)
            modules = [n for n, frame in enumerate(error.frames) if _is_module(frame)] if what else []
            if what and modules:
                return _finding(what, error, error.frames[modules[-1] :], script)
    return None


def _refused(error: Raised) -> str | None:
    """Return what the child tried and may not do while it imports, or None if `error` is about something else."""
    if error.type != "RuntimeError":
        return None
    text = " ".join(error.message.split())
    return "starts a process" if text.startswith(_STARTED) else "sets the start method" if text == _SET else None


def _is_module(frame: Frame) -> bool:
    return frame.function == "<module>" and owner(frame.file) == "user"


def _finding(what: str, error: Raised, frames: Sequence[Frame], script: str) -> Finding:
    """Return the finding for `frames`: the innermost line of a module's own code, and what it called."""
    top = frames[0]
    act = [each for each in frames if owner(each.file) == "user"][-1]
    line = top.line if act.file != top.file else act.line
    where = f"line {act.line}" if act.file == top.file else f"{act.file}:{act.line}"
    message = f"a child runs the script again when it imports it, and {where} {what} there, too"
    if act is not top:
        message += f" (called from line {top.line})"
    source = linecache.getline(act.file, act.line).strip() or act.source.strip()
    refusal = " ".join(error.message.split()).partition(". ")[0].rstrip(".")
    evidence = (f"line {act.line}: {source}", f"the child died of {error.type}: {refusal}")
    fix = _fix(script, top.line) if top.file == script else _fix_elsewhere(top, script)
    return Finding("SM401", codes.CAUSES["SM401"].name, "cause", "__main__", top.file, line, message, evidence, fix=fix)


def _fix_elsewhere(top: Frame, script: str) -> str:
    return (
        f"move line {top.line} of {top.file}, which runs when the module is imported, into a function, "
        f"and call that in {script} below `{GUARD}`"
    )


def _fix(script: str, line: int) -> str:
    """Return the lines to add and to indent, for the statement of the script that `line` is in."""
    source = source_of(script)
    body = source.tree.body
    start = next((n for n, each in enumerate(body) if _first(each) <= line <= _last(each)), None)
    if start is None:
        return f"put `{GUARD}` above line {line} and indent what follows below it"
    runs = _runs(body[start:])
    guard = next((each for each in body[start:] if _is_guard(each)), None)
    if guard is not None:
        return f"move {_lines(runs)} below the `{GUARD}` of line {guard.lineno}"
    above = " and above ".join(f"line {first}" for first, _ in runs)
    return f"put `{GUARD}` above {above}, and indent {_lines(runs)} by {_indentation(source.text.splitlines())}"


def _runs(body: Sequence[ast.stmt]) -> list[tuple[int, int]]:
    """Return first and last line of each stretch of statements that the children have no use for."""
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
    """Return the file's own indentation in words: that of its first indented line."""
    for line in source:
        text = line.lstrip(" \t")
        width = len(line) - len(text)
        if width and text.strip():
            return "one tab" if line[0] == "\t" else f"{width} space{'s' * (width > 1)}" if width <= 8 else "4 spaces"
    return "4 spaces"
