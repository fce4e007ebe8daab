"""SM304 to SM306, SM309: process-wide state that a fresh child lacks."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from ..child import process_state
from ..child.differences import both, differences
from ..child.values import module_of
from ..model.finding import Fact, Finding, finding_at, source_fact, values
from ..model.methods import base
from ..model.observed import Node, Observed, Seen, Where
from ..model.place import Place
from ..source.callers import owner
from ..source.index import dotted, source_of, with_text
from ..source.set_order import ordered_sets
from ..state import observing
from ..state.attributes import GUESSED
from .context import Context, at, is_touched, place_of, reader
from .ranking import Ranked, Weight

CONFIGURE: Final = (
    "configure logging in the child: logging.basicConfig() or dictConfig() in an initializer or first in the target"
)
_LOOKS = (
    ("decimal", "the decimal context's ", "set the decimal context in the child: decimal.getcontext() is a thread's; "
     "or use decimal.localcontext() in the code itself"),
    ("locale", "the locale's ", "call locale.setlocale() in the child"),
    ("logging.getLevelName", "the table of logging's levels, at ", "call logging.addLevelName() in the child too: in a "
     "pool's initializer, or in the module that the child imports"),
    ("pandas", "the option pandas.options", "set the option in the child too: call pandas.set_option() in a pool's "
     "initializer, or first in the target"),
    ("contextvars.copy_context", "the context's variable ", "pass the value as an argument and set the variable in the "
     "child: no context variable crosses"),
    ("asyncio", "the event loop policy ", "call asyncio.set_event_loop_policy() in the child too"),
    ("mimetypes", "the table of mimetypes, at ", "call mimetypes.add_type() in the child too: in a pool's initializer, "
     "or in the module that the child imports"),
    ("tempfile", "the directory of tempfile", "set tempfile.tempdir in the child too, set TMPDIR for both, or pass "
     "dir=... where the file is made"),
    ("time_machine", "the patch (time_machine) is lost: the clock", "call time_machine.travel() in the child too, "
     "first in the target; or let the code take its time from an argument"),
)  # fmt: skip


def settings(observed: Observed, seen: Sequence[Seen], context: Context) -> list[Ranked]:
    """Return the process-wide settings that the code reads and that differ in a fresh child."""
    found = [*_loggers(observed, seen), *_handlers(observed, seen), *_read(observed, seen), *_imports(observed, seen)]
    return [_weighed(each, context) for each in (*found, *_generators(observed))]


def unseen(observed: Observed, seen: Sequence[Seen], context: Context) -> list[Finding]:
    """Return the settings that differ and that no code of the user's was seen to read: notes until confirmed."""
    differing = _read(observed, seen)
    unread = [each for each in differing if not each[3].instruction or owner(each[3].file) != "user"]
    found = [_weighed(each, context).finding for each in unread]
    return [replace(each, level="note") for each in found]


_Found = tuple[str, Literal["cause", "note"], str, Where, str, Sequence[Fact], str, int]
"""Code, level, path, place, message, facts, fix, and rank among causes of its kind (0 first)."""


def _weighed(found: _Found, context: Context) -> Ranked:
    code, level, path, where, message, facts, fix, depth = found
    read = (at("read", where),) if where.instruction else ()
    finding = finding_at(code, path, place_of(where), message, (*facts, *read), fix, level)
    return Ranked(finding, Weight(level == "note", not is_touched(where, context), False, True, True, depth))


def _differs(subject: str, ours: object, theirs: object) -> tuple[str, Sequence[Fact]]:
    mine, other = both(ours, theirs)
    verb = "are" if subject.startswith(("the handlers of", "the filters of")) else "is"
    return f"{subject} {verb} {mine} in the parent and {other} in a fresh child", values(subject, mine, other)


def _loggers(observed: Observed, seen: Sequence[Seen]) -> Iterator[_Found]:
    for name, where in observed.loggers.items():
        pair = observing.around_differs(observed, seen, f"logger {name}")
        if pair is None:
            continue
        paths = differences(*pair)
        inner, ours, theirs = next((each for each in paths if "handlers" in each[0]), paths[0])
        logger = f"logging.getLogger({name!r})" if name else "logging.root"
        what = inner.split("'")[1] if "'" in inner else "configuration"
        decides = bool(observed.configuration) or what in ("level", "disable")
        decides = decides or any("handlers" in each[0] for each in paths)
        level: Literal["cause", "note"] = "cause" if decides else "note"
        yield ("SM305", level, logger, where, *_differs(f"the {what} of {logger}", ours, theirs), CONFIGURE, 7)


def _handlers(observed: Observed, seen: Sequence[Seen]) -> Iterator[_Found]:
    for name, where in observed.signals.items():
        pair = observing.around_differs(observed, seen, f"signal {name}")
        if pair is not None:
            fix = f"install the signal handler in the child: call signal.signal(signal.{name}, ...) first in the target"
            yield ("SM306", "cause", f"signal.{name}", where, *_differs(f"the handler of {name}", *pair), fix, 1)


def _read(observed: Observed, seen: Sequence[Seen]) -> Iterator[_Found]:
    """Yield differing settings that functions of the standard library, numpy and pandas depend on."""
    looks = {name: (text, fix) for name, text, fix in _LOOKS}
    for name, setter in process_state.SETTINGS.items():
        looks[name] = f"{name}()", f"call {setter} in the child too: in a pool's initializer, or first in the target"
    for name, (text, fix) in looks.items():
        pair = observing.around_differs(observed, seen, name) if name in observed.touched else None
        if pair is not None:
            inner, ours, theirs = differences(*pair)[0]
            level: Literal["cause", "note"] = "note" if name == "numpy.get_printoptions" else "cause"
            code = "SM303" if name == "time_machine" else "SM306"
            yield (code, level, name, observed.touched[name], *_differs(text + inner, ours, theirs), fix, 1)
    if observing.around_differs(observed, seen, "warnings") is not None:
        message = "the warnings filters of the parent are not those of a fresh child, which has the interpreter's own"
        fix = "set the filters in the child, or give them to every process: python -W, or PYTHONWARNINGS"
        yield "SM306", "note", "warnings.filters", observed.touched["warnings"], message, (), fix, 9


def _generators(observed: Observed) -> Iterator[_Found]:
    for name in ("random", "numpy.random"):
        where = observed.touched.get(name)
        if where is not None:
            message = f"the generator of {name} is seeded anew in a fresh child; under fork it has the parent's state"
            fix = f"call {name}.seed() in the child, or pass a generator: random.Random(seed)"
            yield "SM306", "note", name, where, message, (), fix, 8


def only_the_parents(observed: Observed, seen: Sequence[Seen]) -> set[str]:
    """Return the modules that a fresh child cannot import."""
    return {name for name in observed.imports if not all(each.imports.get(name) for each in seen)}


def _imports(observed: Observed, seen: Sequence[Seen]) -> Iterator[_Found]:
    """Yield modules that the code imports and only one of the two processes has."""
    absent = only_the_parents(observed, seen)
    for name, where in observed.imports.items():
        path = f"sys.modules[{name!r}]"
        if name in observed.blocked and name not in absent:
            message = f"{path} is None in the parent, so that the import fails; a fresh child has {name}"
            fix = f"set {path} to None in the child as well: in an initializer, or first in the target"
            yield "SM306", "cause", path, where, message, (), fix, 0
        elif name not in observed.blocked and name in absent:
            message = f"{path} is a module that only the parent has: a fresh child cannot import {name}"
            fix = f"make {name} importable for the child (a file on sys.path), or inject it in the child as well"
            yield "SM306", "cause", path, where, message, (), fix, 0


def environment(observed: Observed, context: Context) -> list[Ranked]:
    """Return the environment variables that differ in the forkserver (SM304).

    If no variable that the code reads by name differs, return those that the test itself set: the code may copy the
    whole environment, or run a program that reads it.
    """
    if observed.method != "forkserver" or context.environ is None:
        return []
    every = [(name, place_of(where), where) for name, where in observed.environment.items()]
    read = [each for each in every if observed.environ.get(each[0]) != context.environ.get(each[0])]
    if read:
        return [_stale(observed, context, *each) for each in read]
    if not context.failed or context.passed_under_fork is False:
        return []
    names = sorted({*observed.environ, *context.environ})
    differing = [name for name in names if observed.environ.get(name) != context.environ.get(name)]
    patched = {each.target: each.place for each in context.patches}
    found = [(name, patched.get(f"os.environ[{name!r}]") or _setter(name, context.tests)) for name in differing]
    return [_stale(observed, context, name, place, None) for name, place in found
            if place is not None or f"os.environ[{name!r}]" in patched]  # fmt: skip


def _setter(name: str, files: Sequence[str]) -> Place | None:
    """Return the line that sets or deletes an environment variable: patches of unmarked tests are not recorded."""
    for source in with_text(files, name):
        for item in source.index.items:
            if item.key == repr(name) and "environ" in item.place.source:
                return item.place
        for call in source.index.calls:
            first = call.node.args[0] if call.node.args and call.name in ("setenv", "delenv") else None
            if isinstance(first, ast.Constant) and first.value == name:
                return call.place
    return None


def _stale(observed: Observed, context: Context, name: str, place: Place | None, where: Where | None) -> Ranked:
    assert context.environ is not None
    path = f"os.environ[{name!r}]"
    pair = (environ.get(name) for environ in (observed.environ, context.environ))
    mine, other = ("not set" if each is None else repr(each)[:60] for each in pair)
    message = (
        f"{path} is {mine} in the parent and {other} in a forkserver child: the server "
        "keeps the environment that it was started with; "
    )
    message += (
        "the code does not read it by name, and what it starts or copies has it from there"
        if where is None
        else f"{reader(where)} reads it"
    )
    fix = (
        f"set {name} before the first process is started with forkserver, or pass the value to the target as an "
        "argument"
    )
    facts = list(values(path, mine, other))
    if where is not None:
        facts.append(at("read", where))
    elif place is not None:
        facts.append(source_fact("parent", "set", place))
    return Ranked(finding_at("SM304", path, place, message, facts, fix), Weight(depth=0 if where is not None else 9))


def hash_seed(observed: Observed, context: Context) -> list[Ranked]:
    """Return the first call of ``hash()`` by the child's code: text hashes differ between interpreters (SM306).

    See ``PYTHONHASHSEED`` in Python's documentation. Calls inside a ``__hash__`` do not count: its result is meant for
    one process.
    """
    fixed = observed.environ.get("PYTHONHASHSEED", "random").isdecimal() or not sys.flags.hash_randomization
    if fixed or not (context.failed and context.compares) or context.passed_under_fork is False:
        return []
    for file, name, _ in observed.codes:
        if name.endswith("__hash__"):
            continue
        calls = [each.place for each in source_of(file).index.calls if each.name == "hash" and each.node.args]
        for place in calls:
            if place.function.rpartition(".")[2] == name.rpartition(".")[2]:
                function = name.rpartition("<locals>.")[2]
                message = (
                    f"hash() of a str or bytes is another number in each fresh interpreter (PYTHONHASHSEED is random); "
                    f"{function} calls it, and what was keyed by it in the parent is not found in the child"
                )
                fix = (
                    "use a hash that does not depend on the interpreter (hashlib, zlib.crc32) or the text itself as "
                    "the key; or run everything with PYTHONHASHSEED set to a number"
                )
                facts = (source_fact("child", "read", place),)
                finding = finding_at("SM306", "PYTHONHASHSEED", place, message, facts, fix, _level(context))
                return [Ranked(finding, Weight(finding.level == "note", True, True, True, True, 5))]
    return _order_of_sets(observed, context)


def _order_of_sets(observed: Observed, context: Context) -> list[Ranked]:
    """Return the first set of text whose order the child's code uses; a note unless values were compared."""
    read = {each.names[-1] for each in observed.bindings if _is_set_of_text(each.node) and not each.steps}
    for file, name, line in observed.codes:
        for at_line, text in (each for node in _nodes(file, name, line) for each in ordered_sets(node, read)):
            message = (
                f"the order of a set of text is another one in each fresh interpreter (PYTHONHASHSEED is random); "
                f"{name.rpartition('<locals>.')[2]} uses the order of {text}"
            )
            fix = "sort it: sorted(...), or use a list or a dict, which keep their order"
            place = Place(file, at_line, name)
            facts = (source_fact("child", "read", place),)
            level: Literal["cause", "note"] = "cause" if "AssertionError" in context.errors else "note"
            finding = finding_at("SM306", "PYTHONHASHSEED", place, message, facts, fix, level)
            return [Ranked(finding, Weight(level == "note", True, True, True, True, 6))]
    return []


def _nodes(file: str, name: str, line: int) -> list[ast.AST]:
    """Return the nodes of a function that the child's code enters."""
    return [node for node, qualified in source_of(file).index.functions_at(line) if qualified == name]


def _is_set_of_text(node: Node) -> bool:
    return node[0] == "<" and sum(part[:2] in (["=", "str"], ["=", "bytes"]) for part in node[2]) > 1


_WORKERS = re.compile(r"(Fork|Spawn|ForkServer)(?:PoolWorker|Process)")
_PREFIXES: Final = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}


def worker_names(observed: Observed, context: Context) -> list[Ranked]:
    """Return the child's function that looks for the name of a forked worker or process (SM504)."""
    if not context.failed or not context.compares or context.passed_under_fork is False:
        return []
    own = _PREFIXES.get(base(observed.method), "")
    for file, name, line in observed.codes:
        texts = [(each.value, each.lineno) for node in _nodes(file, name, line) for each in ast.walk(node)
                 if isinstance(each, ast.Constant) and isinstance(each.value, str)]  # fmt: skip
        named = {found[1]: (text, at) for text, at in texts if (found := _WORKERS.match(text))}
        if "Fork" in named and own not in named:
            text, at = named["Fork"]
            place, common = Place(file, at, name), text.removeprefix("Fork")
            message = (
                f"{name.rpartition('<locals>.')[2]} looks for the name {text!r}, which only a forked process has: "
                f"under {observed.method} it is {own}{common}"
            )
            fix = (
                "ask multiprocessing.parent_process() whether this is a child, or look for what the names have in "
                f"common: {common!r}"
            )
            facts = (source_fact("child", "read", place),)
            return [Ranked(finding_at("SM504", text, place, message, facts, fix), Weight())]
    return []


def _level(context: Context) -> Literal["cause", "note"]:
    """Return "cause" if the failure looks like a missing key or differing values."""
    return "cause" if context.errors & {"KeyError", "AssertionError"} else "note"


def exit_handlers(observed: Observed, context: Context) -> list[Ranked]:
    """Return handlers that the child's modules register with `atexit` when imported (SM309).

    Only a spawned child exits like an interpreter; children of fork and forkserver exit through ``os._exit``.
    """
    if observed.method != "spawn" or not context.passed_under_fork or not (context.failed and context.compares):
        return []
    found = []
    for file in _imported(observed):
        for place, handler in _registered(file):
            message = (
                f"{handler} is registered with atexit when the module is imported: a spawned child imports it, too, "
                "and runs the handler when it ends"
            )
            fix = (
                "register it where the program starts, and not when the module is imported; or let the handler do "
                "nothing in another process than the one that registered it: compare os.getpid()"
            )
            facts = (source_fact("child", "registered", place),)
            finding = finding_at("SM309", handler, place, message, facts, fix)
            found.append(Ranked(finding, Weight(False, True, True, True, True, 2 * GUESSED)))
    return found


def fork_hooks(observed: Observed, context: Context) -> list[Ranked]:
    """Return what the child's modules let `os.register_at_fork` run in children, which are forked no more."""
    if base(observed.method) == "fork" or not context.passed_under_fork or not (context.failed and context.compares):
        return []
    calls = [
        (file, call)
        for file in _imported(observed)
        for call in source_of(file).index.calls
        if call.name == "register_at_fork" and not call.in_function
    ]
    names = {module_of(module).get("__file__"): name for name, module in list(sys.modules.items())} if calls else {}
    found = []
    for file, call in calls:
        hook = next((each.value for each in call.node.keywords if each.arg == "after_in_child"), None)
        if hook is not None and file in names:
            what = dotted(hook) or "a function"
            message = (
                f"{what} is registered with os.register_at_fork() when {names[file]} is imported, and runs in forked "
                "children only: a fresh child imports the module, and does not run it"
            )
            fix = f"call {what} in the child: first in the target, in an initializer, or in the module that it imports"
            facts = (source_fact("child", "registered", call.place),)
            path = f"os.register_at_fork({names[file]!r})"
            finding = finding_at("SM306", path, call.place, message, facts, fix, "note")
            found.append(Ranked(finding, Weight(True, True, True, True, True, 2 * GUESSED)))
    return found


def _imported(observed: Observed) -> list[str]:
    """Return the user's files that a child imports to run its code."""
    modules = (module_of(sys.modules.get(name)).get("__file__") for name in observed.roots)
    files = (*(file for file, _, _ in observed.codes), *(each for each in modules if isinstance(each, str)))
    return [file for file in dict.fromkeys(files) if owner(file) == "user"]


def _registered(file: str) -> Iterator[tuple[Place, str]]:
    """Yield the `atexit` handlers that a file registers when imported, by call or decorator."""
    index = source_of(file).index
    at_import = {dotted(call.node.func) for call in index.calls if not call.in_function}
    for call in index.calls:
        runs = not call.in_function or not at_import.isdisjoint(call.place.function.split("."))
        if runs and dotted(call.node.func) == "atexit.register" and call.node.args:
            yield call.place, dotted(call.node.args[0]) or "a function"
    for node, name, around in index.functions:
        for decorator in getattr(node, "decorator_list", ()):
            if not around and dotted(decorator) == "atexit.register":
                yield Place(file, decorator.lineno), name
