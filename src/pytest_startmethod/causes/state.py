"""From what the code reads, and what a fresh child has there, to findings: SM301 to SM308.

A cause may explain a failure: another value of something that the code only reads. A note never does: what the code
writes itself, caches, the state of random generators, warnings filters.
"""

from __future__ import annotations

import ast
import functools
import linecache
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..child import process_state
from ..child.values import differences, module_of, short
from ..model.evidence import Evidence
from ..model.finding import Fact, Finding, finding_at, source_fact, values
from ..model.observed import Difference, Lost, Observed, Read, Seen, Where
from ..model.place import Place
from ..source.callers import _tree, user_files
from ..state import observing
from ..state.attributes import GUESSED
from .ranking import causes_first

_MAX_FINDINGS = 12
_MAX_OBSERVED = 6
"""The code of no more launches and tasks of a leg is compared."""
_MAX_FILES = 400


@dataclass(frozen=True, slots=True)
class Context:
    """What else is known of the leg."""

    patches: Sequence[Any] = ()
    """What was patched while it ran: objects with `target`, a dotted name, `place` and `by`."""
    touched: frozenset[tuple[str, str]] = frozenset()
    """File and function of each frame of the tracebacks of parent and children."""
    lines: frozenset[tuple[str, int]] = frozenset()
    """File and line of each of the parent's frames."""
    raised: frozenset[tuple[str, int]] = frozenset()
    """File and line of each frame of the children's tracebacks."""
    failed: bool = True
    passed_under_fork: bool | None = None
    environ: Mapping[str, str] | None = None
    """What a forkserver child has, where it is not what the parent has."""
    tests: tuple[str, ...] = ()
    """The test's own files: where something was set is looked for there first."""
    initialized: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    """Names that an initializer sets in each worker."""
    compares: bool = True
    """Whether values that differ can be the reason: not where the test passes or fails the same way without that."""
    elsewhere: bool = False
    """Whether the failure was raised in code of others, and is no assertion."""


@dataclass(slots=True)
class _Ranked:
    finding: Finding
    rank: tuple[Any, ...]


def findings(evidence: Evidence) -> list[Finding]:
    """Return what the children of a failed leg have otherwise than the parent; causes before notes."""
    context, seen = _context(evidence), {id(observed): seen for observed, seen in evidence.seen}
    found = [each for one in observed_in(evidence) for each in explain(one, seen.get(id(one), ()), context)]
    return causes_first(found)


def to_ask(evidence: Evidence) -> list[Observed]:
    """Return whose values fresh children should be asked for; none where that cannot be the reason of the failure.

    That is where the leg under fork failed alike, or a child under spawn, which has the same values, passed.
    """
    if evidence.failure is not None and evidence.failure.findings:
        return []
    return [each for each in observed_in(evidence) if each.reads_state] if _compares(evidence) else []


def unshared_in(evidence: Evidence) -> list[Finding]:
    """Return notes on what each child of a leg that passed had of its own (SM307)."""
    context = Context(failed=False, initialized=_initialized(evidence))
    return [found for each in observed_in(evidence) if each.primitives for found in unshared(each, context)]


def observed_in(evidence: Evidence) -> list[Observed]:
    """Return what is known of the code of the leg's children, once for each function and line that started it."""
    every = [each.observed for each in evidence.launches if each.error is None]
    every += [each.observed for each in evidence.tasks if each.how != "initializer"]
    every += [each.observed for each in evidence.tasks if each.how == "initializer"]
    every += [each.observed for each in evidence.inherited if each.error is None]
    kept: dict[object, Observed] = {}
    for each in every:
        if each is not None and each.method == evidence.method:
            kept.setdefault((each.target, each.place, each.print), each)
    return list(kept.values())[:_MAX_OBSERVED]


def _compares(evidence: Evidence) -> bool:
    fork, spawn = evidence.others.get("fork"), evidence.others.get("spawn")
    alike = fork is not None and fork.outcome == "failed" and fork.failed_with == evidence.failed_with
    passed_under_spawn = evidence.method == "forkserver" and spawn is not None and spawn.outcome == "passed"
    return evidence.method != "fork" and not alike and not passed_under_spawn


def _context(evidence: Evidence) -> Context:
    fork = evidence.others.get("fork")
    theirs = [frame for each in evidence.reports for raised in each.raised for frame in raised.frames]
    return Context(
        patches=evidence.patches,
        touched=frozenset((each.file, each.function) for each in (*evidence.frames, *theirs)),
        lines=frozenset((each.file, each.line) for each in evidence.frames),
        raised=frozenset((each.file, each.line) for each in theirs),
        failed=evidence.outcome == "failed",
        passed_under_fork=None if fork is None else fork.outcome == "passed",
        environ=evidence.environ if evidence.method == "forkserver" else None,
        tests=tuple(evidence.tests),
        initialized=_initialized(evidence),
        compares=_compares(evidence),
        elsewhere=evidence.raised_elsewhere,
    )


def _initialized(evidence: Evidence) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Return the names that initializers of the leg's pools set in each worker."""
    tasks = [each.observed for each in evidence.tasks if each.how == "initializer" and each.observed is not None]
    return frozenset((write.module, write.names) for each in tasks for write in each.writes)


def explain(observed: Observed, seen: Sequence[Seen], context: Context | None = None) -> list[Finding]:
    """Return what a child of this launch has otherwise, the most likely reason of a failure first."""
    context = context or Context()
    ranked: list[_Ranked] = []
    if seen:
        unreadable = {root for each in seen for root in each.broken} & set(observed.roots)
        if not unreadable:
            for each in _merged(observing.compare(observed, seen)):
                known = (each.binding.module, each.binding.names)
                if known in context.initialized or (not context.failed and _fills(each, observed)):
                    continue
                if each.binding.module in _only_the_parents(observed, seen):
                    continue  # so is all that is in it
                ranked.append(_value(each, observed, context))
            ranked += _process(observed, seen)
    ranked += _environment(observed, context)
    ranked += _primitives(observed, context)
    ranked += _lost(observed, context)
    ranked.sort(key=lambda each: each.rank)
    return _unique(_without_guesses(ranked))[:_MAX_FINDINGS]


def _only_the_parents(observed: Observed, seen: Sequence[Seen]) -> set[str]:
    """Return the modules that a fresh child cannot import."""
    return {name for name in observed.imports if not all(each.imports.get(name) for each in seen)}


def _without_guesses(ranked: Sequence[_Ranked]) -> Iterable[Finding]:
    """Yield the findings; a value that the code may only be guessed to read is a note where there is a better cause."""
    better = any(each.finding.level == "cause" and each.rank[1:3] != (True, True) for each in ranked)
    notes = []
    for each in ranked:
        if better and each.rank[1:3] == (True, True) and each.finding.level == "cause":
            notes.append(replace(each.finding, level="note"))
        elif each.finding.level == "cause":
            yield each.finding
        else:
            notes.append(each.finding)
    yield from notes


def unshared(observed: Observed, context: Context) -> list[Finding]:
    """Return notes on multiprocessing's objects that each child of a leg that passed has made for itself."""
    return [each.finding for each in _primitives(observed, context)]


def unseen_patches(patches: Iterable[Any]) -> list[Finding]:
    """Return what was patched as findings that only an experiment can support, the last that was patched first."""
    found = {}
    for each in reversed(list(patches)):
        if each.target.startswith(("<", "os.environ")) or "[" in each.target:
            continue
        place = each.place
        message = (
            f"the patch ({each.by}) is lost: {each.target} is patched in the parent only; the code does not read it "
            "itself, and something that it calls does"
        )
        evidence = () if place is None else (source_fact("parent", "set", place, each.by),)
        fix = _patch_fix("the patch", each.target)
        found[each.target] = finding_at("SM303", each.target, place, message, evidence, fix)
    return list(found.values())


def _patch_fix(what: str, path: str) -> str:
    return (
        f"apply {what} in the child: patch {path} in a function that the child calls first (a pool's initializer, the "
        "start of the target), or hand the replacement to the code as an argument"
    )


def _fills(each: Difference, observed: Observed) -> bool:
    """Say whether it is a container that the code fills by itself: a cache."""
    mine = [w for w in observed.writes if (w.module, w.names) == (each.binding.module, each.binding.names)]
    return any(not write.rebinds for write in mine) and each.binding.node[0] in "({<o"


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    kept: dict[Any, Finding] = {}
    for each in findings:
        kept.setdefault((each.code, each.path), each)
    return list(kept.values())


def _merged(found: Iterable[Difference]) -> list[Difference]:
    """Return one difference for each binding: the one that is read nearest to the target."""
    best: dict[str, Difference] = {}
    for each in found:
        known = best.get(each.binding.path)
        if known is None or (not known.binding.steps, each.binding.read.depth) < (
            not each.binding.steps, known.binding.read.depth if known.binding.steps else 99,
        ):  # fmt: skip
            best.setdefault(each.binding.path, each)
            if known is not None and not known.binding.steps and each.binding.steps:
                best[each.binding.path] = each
    return list(best.values())


# -- values ------------------------------------------------------------------------------------------------------------

_MEMO = re.compile(r"(?i)(?:hash|cache|memo)[a-z]*(?:\[[^.]*)?$")
"""How a value is called that code keeps for itself: what it computes once is no other value."""
_GENERATORS = ("random.Random", "numpy.random._generator.Generator", "numpy.random.mtrand.RandomState")
_CODE = ("f", "b", "c", "d", "M", "K", "p")


def _value(each: Difference, observed: Observed, context: Context) -> _Ranked:
    binding, read = each.binding, each.binding.read
    patch = next((p for p in context.patches if _patches(p, each)), None)
    setters = _setters(each, context)
    by = patch.by if patch is not None else _patched_in_source(setters, context)
    written = next((w for w in observed.writes if (w.module, w.names) == (binding.module, binding.names)), None)
    is_note = each.ours[0] == "l" or each.theirs[0] == "l"
    if written is not None and patch is None and each.ours[0] != "K" and by is None:
        is_note = True
    if patch is None and by is None and _MEMO.search(f"{binding.path}{each.inner}"):
        is_note = True
    is_note = is_note or binding.kind in (*_GENERATORS, "itertools.count")
    code, fix = _code(each, by)
    path = binding.path
    what = f"{path}{each.inner}"
    where = _best_place(read, context)
    message = (
        f"{_kind(code, by)}{what} is {short(each.ours)} in the parent and {short(each.theirs)} in a fresh child; "
        f"{_reader(where)} reads it"
    )
    if each.ours[0] == "l":
        message = (
            f"the cache of {path} was filled in the parent and is empty in a fresh child; {_reader(where)} calls it"
        )
        fix = f"call {binding.names[-1]}.cache_clear() in the test before the process starts, if that matters"
    if is_note and written is not None:
        fix = "none is needed if it is a cache or a counter; else return what the child finds, or pass the value to it"
    evidence: list[str | Fact] = [*values(what, short(each.ours), short(each.theirs)), _at("read", where)]
    if read.inner is not None and (read.inner.file, read.inner.line) != (where.file, where.line):
        evidence.append(_at("by way of", read.inner))
    if is_note and written is not None:
        evidence.append(_at("written", written.where, "the code itself"))
    if patch is not None and patch.place is not None:
        evidence.append(source_fact("parent", "set", patch.place, patch.by))
    else:
        for setter in setters[:3]:
            evidence.append(source_fact("parent", "set", setter.place, setter.by.removeprefix("assignment")))
    if each.others:
        evidence.append(Fact("child", "also different", ", ".join(path + other for other in each.others[:4])))
    finding = finding_at(code, path, _place(where), message, evidence, fix, "note" if is_note else "cause")
    touched = _is_touched(where, context) or (read.inner is not None and _is_touched(read.inner, context))
    own = any(setter.place.file in context.tests for setter in setters)
    guessed = read.depth >= GUESSED
    rank = (is_note, not touched, guessed, patch is None and by is None and not own, not own, read.depth)
    return _Ranked(finding, rank)


def _best_place(read: Read, context: Context) -> Where:
    """Return the place that a traceback names, if one does: its line, or else its function."""
    places = [read.where, *read.also]
    exact = [each for each in places if (each.file, each.line) in context.raised]
    return next(iter([*exact, *(each for each in places if _is_touched(each, context))]), read.where)


def _is_touched(where: Where, context: Context) -> bool:
    """Say whether a function stands in a traceback. 3.10 has no qualified names there."""
    name = where.function.rpartition(".")[2]
    return any(file == where.file and function.rpartition(".")[2] == name for file, function in context.touched)


def _patches(patch: Any, each: Difference) -> bool:
    """Say whether a recorded patch is of this binding, or of what lies within its value."""
    target = str(patch.target)
    path = each.binding.path
    return target == path or target.startswith((path + ".", path + "["))


def _code(each: Difference, by: str | None) -> tuple[str, str]:
    binding = each.binding
    name = binding.names[-1]
    if each.ours[0] == "v" or each.theirs[0] == "v" or binding.node[0] == "v":
        return "SM306", f"pass the value as an argument and call {name}.set() in the child: no context variable crosses"
    if binding.kind in ("logging.Logger", "logging.RootLogger"):
        return "SM305", _CONFIGURE
    if binding.kind in _GENERATORS:
        return "SM306", f"seed {name} in the child, or pass the generator as an argument: its state travels with it"
    if binding.kind.endswith("._local"):
        return "SM306", f"set {binding.path} in the child: a new process has a new thread"
    own = all(kind == "attr" for kind, _ in binding.steps) and each.inner == "".join(
        f".{key}" for _, key in binding.steps
    )
    # a function set on an object hides its class's method, which a fresh child has
    hides = each.inner.startswith(".") and each.inner[1:] in binding.shadows
    own = own or hides
    swapped = each.ours[0] in _CODE and own and (each.ours[0] == "K" or each.theirs[0] in _CODE or hides)
    mocked = each.ours[0] == "K" or "K" in _kinds(binding.node)
    if swapped or mocked or by is not None:
        what = "the patch" if by is not None or mocked else "the new function"
        return "SM303", _patch_fix(what, f"{binding.path}{each.inner if own else ''}")
    if name in ("__closure__", "__defaults__", "__kwdefaults__"):
        return "SM301", (
            f"pass the value to {binding.names[-2]} as an argument, or do in the child what changes it: in a pool's "
            "initializer, or first in the target"
        )
    if binding.of_class:
        return "SM302", (
            f"set {'.'.join(binding.names[-2:])} in the child too (an initializer, or the module that the child "
            "imports): pickle does not carry a class attribute; or make it an instance attribute, or pass it as an "
            "argument; a registry is filled by importing what registers"
        )
    fix = f"pass {name} to the target as an argument, or set it in the child: in a pool's initializer, or first in the "
    if _registers(each):
        return "SM301", fix + "target; a registry is filled by importing, in the child, the module that registers"
    return "SM301", fix + "target"


def _registers(each: Difference) -> bool:
    """Say whether a container holds functions or classes that a fresh child has not."""
    if each.binding.node[0] not in "({<o":
        return False
    parts = [each.ours]
    if each.ours[0] in "(<":
        parts = each.ours[2]
    elif each.ours[0] == "{":
        parts = [value for _, value in each.ours[2]]
    return each.ours != ["!"] and any(part[0] in ("f", "c", "M", "p") for part in parts)


def _kinds(node: Any, depth: int = 4) -> set[str]:
    if not isinstance(node, list) or not node or depth < 0:
        return set()
    own = {node[0]} if isinstance(node[0], str) and len(node) == 2 else set()
    return own.union(*(_kinds(part, depth - 1) for part in node if isinstance(part, list)))


def _kind(code: str, by: str | None) -> str:
    if code == "SM303" and by is not None:
        return f"the patch ({by}) is lost: "
    return "the patch is lost: " if code == "SM303" else ""


def _reader(where: Where) -> str:
    return where.function.rpartition("<locals>.")[2]


def _place(where: Where) -> Place:
    return Place(where.file, where.line, where.function)


def _at(label: str, where: Where, about: str = "") -> Fact:
    """Return what the child's code does at a line."""
    return source_fact("child", label, _place(where), about)


# -- where it was set --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setter:
    """A place whose code sets a name, or changes what is behind it."""

    place: Place
    by: str
    """``assignment``, ``monkeypatch``, ``mock.patch``."""
    exact: bool = False
    """Whether it names all of the dotted name."""


_MUTATING = frozenset("append extend insert remove pop clear add discard update setdefault register appendleft".split())  # noqa: SIM905


def _patched_in_source(setters: list[Setter], context: Context) -> str | None:
    """Return what patches the binding by the source alone: a like-named attribute in some other file is no sign."""
    if not setters or setters[0].by == "assignment":
        return None
    first = setters[0]
    return first.by if first.exact or first.place.file in context.tests else None


def _setters(each: Difference, context: Context) -> list[Setter]:
    """Return where the source sets it, other than at the import of its module: the test's own files first."""
    binding = each.binding
    home = module_of(sys.modules.get(binding.module)).get("__file__")
    inner = re.findall(r"[.']([A-Za-z_]\w*)(?=[.'\[]|$)", each.inner)
    files = list(dict.fromkeys([*context.tests, *([home] if isinstance(home, str) else []), *user_files()]))
    found: list[Setter] = []
    for file in files[:_MAX_FILES]:
        found += _setters_of(file, binding.module, binding.names, tuple(inner), file == home)
        if len(found) > 12:
            break
    running = {(file, function.rpartition(".")[2]) for file, function in context.touched}
    here = [s for s in found if (s.place.file, s.place.function.rpartition(".")[2]) in running]
    first = here or [s for s in found if s.place.file in context.tests]
    return sorted(first, key=lambda s: (not s.exact, s.by == "assignment")) or found


@functools.lru_cache(maxsize=8192)
def _setters_of(file: str, module: str, names: tuple[str, ...], inner: tuple[str, ...], own: bool) -> list[Setter]:
    text = _content(file)
    if not any(name in text for name in (names[-1], *inner[-1:])):
        return []
    tree = _tree(file)
    return [] if tree is None else _setters_in(tree, file, module, names, inner, own=own)


@functools.lru_cache(maxsize=_MAX_FILES)
def _content(file: str) -> str:
    return "".join(linecache.getlines(file))


def _setters_in(
    tree: ast.Module, file: str, module: str, names: tuple[str, ...], inner: Sequence[str], *, own: bool
) -> list[Setter]:
    last, found = names[-1], list[Setter]()
    owner_name = names[-2] if len(names) > 1 else module.rpartition(".")[2]
    dotted = f"{module}.{'.'.join(names)}"
    aliases = _aliases(tree, module, names)

    def leads(node: ast.AST) -> bool:
        """Say whether an expression is likely the binding itself."""
        if isinstance(node, ast.Attribute):
            return node.attr == last and (_is_owner(node.value) or len(names) > 1)
        return isinstance(node, ast.Name) and (node.id in aliases or (node.id == last and own and len(names) == 1))

    def _is_owner(node: ast.AST) -> bool:
        text = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        return text in (owner_name, *aliases) or text in _module_aliases

    _module_aliases = _names_of_module(tree, module, names[:-1])

    def visit(node: ast.AST, function: str, global_names: frozenset[str]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            declared = frozenset(n for s in ast.walk(node) if isinstance(s, ast.Global) for n in s.names)
            for child in ast.iter_child_nodes(node):
                visit(child, f"{function}.{node.name}".lstrip("."), declared)
            return
        if isinstance(node, ast.Call):
            by = _patching_call(node, dotted, last, inner)
            if by is not None:
                found.append(Setter(Place(file, node.lineno, function), by, _says(node, dotted)))
            elif (inner and not own and function and _gives(node, inner)) or (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in _MUTATING
                and (function or not own)
                and leads(node.func.value)
            ):
                found.append(Setter(Place(file, node.lineno, function), "assignment"))
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and (function or not own):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for each in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                    if _assigns(each, global_names):
                        found.append(Setter(Place(file, node.lineno, function), "assignment"))
        for child in ast.iter_child_nodes(node):
            visit(child, function, global_names)

    def _assigns(target: ast.AST, global_names: frozenset[str]) -> bool:
        if isinstance(target, ast.Name):
            return own and len(names) == 1 and target.id == last and last in global_names
        if isinstance(target, ast.Attribute):
            if target.attr == last and _is_owner(target.value):
                return True
            return bool(inner) and target.attr == inner[-1] and _root_leads(target.value)
        if isinstance(target, ast.Subscript):
            if isinstance(target.value, ast.Call) and getattr(target.value.func, "id", "") == "globals":
                return isinstance(target.slice, ast.Constant) and target.slice.value == last
            return _root_leads(target.value)
        return False

    def _root_leads(node: ast.AST) -> bool:
        while True:
            if leads(node):
                return True
            if not isinstance(node, (ast.Attribute, ast.Subscript)):
                return False
            node = node.value

    visit(tree, "", frozenset())
    return found


def _aliases(tree: ast.Module, module: str, names: tuple[str, ...]) -> frozenset[str]:
    """Return the variables of a file that were imported from the binding."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and len(names) == 1:
            for alias in node.names:
                if alias.name == names[0] and (node.module or "").rpartition(".")[2] in (module.rpartition(".")[2], ""):
                    found.add(alias.asname or alias.name)
    return frozenset(found)


def _names_of_module(tree: ast.Module, module: str, rest: tuple[str, ...]) -> frozenset[str]:
    """Return the variables of a file that lead to what has the attribute: the module, or the class."""
    found = {rest[-1]} if rest else {module.rpartition(".")[2]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == module and alias.asname and not rest:
                    found.add(alias.asname)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == (rest[-1] if rest else module.rpartition(".")[2]):
                    found.add(alias.asname or alias.name)
    return frozenset(found)


def _patching_call(node: ast.Call, dotted: str, last: str, inner: Sequence[str]) -> str | None:
    """Return who patches the name with this call: monkeypatch, mock.patch in its forms, setattr."""
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    receiver = _text(func.value) if isinstance(func, ast.Attribute) else ""
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    hit = any(
        t == last or (inner and t == inner[-1]) or (t.endswith("." + last) and _ends_alike(t, dotted))
        for t in texts[:2]
    )
    if name in ("setattr", "setitem", "delattr", "delitem") and receiver:
        return (
            ("monkeypatch" if "monkey" in receiver or receiver in ("mp", "m", "patch") else receiver) if hit else None
        )
    if name == "setattr":
        return "assignment" if hit and len(node.args) > 1 else None
    is_patch = name == "patch" or receiver.rpartition(".")[2] in ("patch", "mocker")
    if is_patch and (hit or any(_ends_alike(t, dotted) for t in texts[:1])):
        return "mocker" if "mocker" in receiver else "mock.patch"
    if name in ("dict", "multiple") and is_patch and node.args:
        first = _text(node.args[0])
        if first.rpartition(".")[2] == last or (texts and texts[0].endswith(last)):
            return "mock.patch"
        if name == "multiple" and any(k.arg == last for k in node.keywords):
            return "mock.patch"
    return None


def _says(node: ast.Call, dotted: str) -> bool:
    return any(isinstance(each, ast.Constant) and each.value == dotted for each in node.args)


def _gives(node: ast.Call, inner: Sequence[str]) -> bool:
    """Say whether a call sets an option by its name: ``conf.set_override("name", ...)``, ``config(name=...)``."""
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    words = ("set", "config", "override", "update", "register", "add", "enable", "disable", "patch")
    if not any(word in name.lower() for word in words):
        return False
    texts = {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    named = {keyword.arg for keyword in node.keywords}
    return any(each in texts or each in named for each in inner)


def _ends_alike(text: str, dotted: str) -> bool:
    return (
        text == dotted
        or dotted.endswith("." + text)
        or text.endswith("." + dotted)
        or (
            text.rpartition(".")[2] == dotted.rpartition(".")[2]
            and text.rpartition(".")[0].rpartition(".")[2] == dotted.rpartition(".")[0].rpartition(".")[2]
        )
    )


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_text(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


# -- the process -------------------------------------------------------------------------------------------------------


def _found(
    code: str,
    level: Any,
    path: str,
    where: Where,
    message: str,
    evidence: Iterable[str | Fact],
    fix: str,
    rank: tuple[Any, ...],
) -> _Ranked:
    facts = (*evidence, _at("read", where))
    return _Ranked(finding_at(code, path, _place(where), message, facts, fix, level), rank)


def _process(observed: Observed, seen: Sequence[Seen]) -> list[_Ranked]:
    found: list[_Ranked] = []
    for name, where in observed.loggers.items():
        pair = observing.around_differs(observed, seen, f"logger {name}")
        if pair is not None:
            found.append(_logging(name, where, pair, observed))
    for name, where in observed.signals.items():
        pair = observing.around_differs(observed, seen, f"signal {name}")
        if pair is not None:
            message = f"the handler of {name} is {short(pair[0])} in the parent and {short(pair[1])} in a fresh child"
            fix = f"install the signal handler in the child: call signal.signal(signal.{name}, ...) first in the target"
            said = values(f"the handler of {name}", short(pair[0]), short(pair[1]))
            found.append(
                _found("SM306", "cause", f"signal.{name}", where, message, said, fix, (False, True, True, True, 1))
            )
    for name, text, fix in _LOOKS:
        pair = observing.around_differs(observed, seen, name)
        if pair is not None and name in observed.touched:
            where = observed.touched[name]
            paths = differences(*pair)
            inner, ours, theirs = paths[0]
            message = f"{text}{inner} is {short(ours)} in the parent and {short(theirs)} in a fresh child"
            said = values(f"{text}{inner}", short(ours), short(theirs))
            found.append(_found("SM306", "cause", name, where, message, said, fix, (False, True, True, True, 1)))
    for name, setter in process_state.SETTINGS.items():
        pair = observing.around_differs(observed, seen, name)
        if pair is not None:
            where = observed.touched[name]
            inner, ours, theirs = differences(*pair)[0]
            message = f"{name}(){inner} is {short(ours)} in the parent and {short(theirs)} in a fresh child"
            fix = f"call {setter} in the child too: in a pool's initializer, or first in the target"
            level = "note" if name == "numpy.get_printoptions" else "cause"
            said = values(f"{name}(){inner}", short(ours), short(theirs))
            found.append(
                _found("SM306", level, name, where, message, said, fix, (level == "note", True, True, True, 1))
            )
    pair = observing.around_differs(observed, seen, "warnings")
    if pair is not None:
        where = observed.touched["warnings"]
        message = "the warnings filters of the parent are not those of a fresh child, which has the interpreter's own"
        fix = "set the filters in the child, or give them to every process: python -W, or PYTHONWARNINGS"
        found.append(_found("SM306", "note", "warnings.filters", where, message, (), fix, (True, True, True, True, 9)))
    for name in ("random", "numpy.random"):
        where_ = observed.touched.get(name)
        if where_ is not None:
            call = "random.seed()" if name == "random" else "numpy.random.seed()"
            message = f"the generator of {name} is seeded anew in a fresh child; under fork it has the parent's state"
            fix = f"call {call} in the child, or pass a generator: random.Random(seed)"
            found.append(_found("SM306", "note", name, where_, message, (), fix, (True, True, True, True, 8)))
    for name, where in observed.imports.items():
        if name in observed.blocked:
            if all(each.imports.get(name) for each in seen):
                message = (
                    f"sys.modules[{name!r}] is None in the parent, so that the import fails; a fresh child has {name}"
                )
                fix = (
                    f"set sys.modules[{name!r}] to None in the child as well: in an initializer, or first in the target"
                )
                found.append(_found("SM306", "cause", f"sys.modules[{name!r}]", where, message, (), fix, _FIRST))
        elif name in _only_the_parents(observed, seen):
            message = f"sys.modules[{name!r}] is a module that only the parent has: a fresh child cannot import {name}"
            fix = f"make {name} importable for the child (a file on sys.path), or inject it in the child as well"
            found.append(_found("SM306", "cause", f"sys.modules[{name!r}]", where, message, (), fix, _FIRST))
    return found


_CONFIGURE = (
    "configure logging in the child: logging.basicConfig() or dictConfig() in an initializer or first in the target"
)
_FIRST = (False, False, False, False, 0)
_LOOKS = (
    ("decimal", "the decimal context's ", "set the decimal context in the child: decimal.getcontext() is a thread's; "
     "or use decimal.localcontext() in the code itself"),
    ("locale", "the locale's ", "call locale.setlocale() in the child"),
    ("logging.getLevelName", "the table of logging's levels, at ", "call logging.addLevelName() in the child too: in a "
     "pool's initializer, or in the module that the child imports"),
    ("pandas", "the option pandas.options", "set the option in the child too: call pandas.set_option() in a pool's "
     "initializer, or first in the target"),
    ("asyncio", "the event loop policy ", "call asyncio.set_event_loop_policy() in the child too"),
    ("email.charset", "the table of email.charset, at ", "call email.charset.add_charset() in the child too: in a "
     "pool's initializer, or first in the target"),
    ("xml.etree.ElementTree", "the table of XML namespaces, at ", "call xml.etree.ElementTree.register_namespace() in "
     "the child too: in a pool's initializer, or first in the target"),
    ("mimetypes", "the table of mimetypes, at ", "call mimetypes.add_type() in the child too: in a pool's initializer, "
     "or in the module that the child imports"),
    ("tempfile", "the directory of tempfile", "set tempfile.tempdir in the child too, set TMPDIR for both, or pass "
     "dir=... where the file is made"),
)  # fmt: skip


def _logging(name: str, where: Where, pair: tuple[Any, Any], observed: Observed) -> _Ranked:
    ours, theirs = pair
    paths = differences(ours, theirs)
    inner, mine, other = next((p for p in paths if "handlers" in p[0]), paths[0])
    shown = f"logging.getLogger({name!r})" if name else "logging.root"
    what = inner.split("'")[1] if "'" in inner else "configuration"
    message = f"the {what} of {shown} is {short(mine)} in the parent and {short(other)} in a fresh child"
    asks = bool(observed.configuration)
    handlers = any("handlers" in path for path, _, _ in paths)
    level = "cause" if asks or handlers or what == "level" else "note"
    said = values(f"the {what} of {shown}", short(mine), short(other))
    return _found("SM305", level, shown, where, message, said, _CONFIGURE, (level == "note", True, not asks, True, 7))


def _environment(observed: Observed, context: Context) -> list[_Ranked]:
    """Return what the forkserver's environment has otherwise (SM304)."""
    if observed.method != "forkserver" or context.environ is None:
        return []
    found = []
    for name, where in observed.environment.items():
        ours, theirs = observed.environ.get(name), context.environ.get(name)
        if ours == theirs:
            continue
        mine = "not set" if ours is None else repr(ours)
        other = "not set" if theirs is None else repr(theirs)
        message = (
            f"os.environ[{name!r}] is {mine[:60]} in the parent and {other[:60]} in a forkserver child: the server "
            f"keeps the environment that it was started with; {_reader(where)} reads it"
        )
        fix = (
            f"set {name} before the first process is started with forkserver, or pass the value to the target as an "
            "argument"
        )
        path = f"os.environ[{name!r}]"
        said = values(path, mine[:60], other[:60])
        found.append(_found("SM304", "cause", path, where, message, said, fix, (False, False, False, False, 0)))
    return found


# -- primitives and writes ---------------------------------------------------------------------------------------------


def _primitives(observed: Observed, context: Context) -> list[_Ranked]:
    """Return multiprocessing's objects that each fresh child makes anew at import (SM307)."""
    found = []
    if observed.method == "fork":
        return []
    for binding in observed.primitives:
        if any((w.module, w.names) == (binding.module, binding.names) for w in observed.writes):
            continue  # an initializer gives it to each worker
        if (binding.module, binding.names) in context.initialized or not context.compares:
            continue
        place = _made_at_import(binding)
        if place is None:
            continue
        kind = str(binding.node[1]).rpartition(".")[2]
        message = (
            f"{binding.path} is a {kind} that is made when the module is imported: each fresh child has one of its "
            f"own, shared with nobody; {_reader(binding.read.where)} uses it"
        )
        fix = (
            f"make the {kind} where the processes are started and pass it on: as an argument of Process, or through a "
            "pool's initializer and initargs"
        )
        evidence = [source_fact("parent", "made", place)]
        level: Any = "cause" if context.failed and context.passed_under_fork is not False else "note"
        where = _best_place(binding.read, context)
        touched = _is_touched(where, context)
        found.append(
            _found(
                "SM307",
                level,
                binding.path,
                where,
                message,
                evidence,
                fix,
                (level == "note", not touched, False, False, 2),
            )
        )
    return found


def _made_at_import(binding: Any) -> Place | None:
    """Return the line of the module's own level, or of a class's body, that makes it."""
    file = module_of(sys.modules.get(binding.module)).get("__file__")
    tree = _tree(file) if isinstance(file, str) else None
    body: list[ast.stmt] = list(tree.body) if tree is not None else []
    for name in binding.names[:-1]:
        cls = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == name), None)
        body = cls.body if cls is not None else []
    for statement in body:
        for node in ast.walk(statement) if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) else ():
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    each = target.elts if isinstance(target, ast.Tuple) else [target]
                    if any(isinstance(t, ast.Name) and t.id == binding.names[-1] for t in each):
                        empty = isinstance(node.value, ast.Constant) and node.value.value is None
                        if not empty:
                            return Place(str(file), node.lineno)
    return None


def _lost(observed: Observed, context: Context) -> list[_Ranked]:
    """Return what the child changes and the parent goes on to read (SM308)."""
    if not context.failed or context.passed_under_fork:
        return []
    found = []
    for each in observed.lost:
        read = _read_before_failing(each, context)
        if read is None:
            continue
        write, where = each.write, each.write.where
        path = write.path if write.module else write.names[0]
        what = path if write.module or each.name == path else f"{path} ({each.name})"
        message = (
            f"{_reader(where)} changes {what} in the child, in a copy that is the child's own; the parent reads its "
            f"own at {read.file}:{read.line}"
        )
        fix = (
            "let the child send its result: return it through a pool or a Queue or Pipe, or share it with "
            "multiprocessing.Value, Array or a Manager"
        )
        facts = (_at("written", where), source_fact("parent", "read", _place(read)))
        finding = finding_at("SM308", path, _place(where), message, facts, fix)
        exact = (read.file, read.line) in context.lines
        found.append(_Ranked(finding, (False, not exact, False, False, 0)))
    return found


def _read_before_failing(each: Lost, context: Context) -> Where | None:
    """Return the read that the failure may come from: on a failing line if there is one, else not after it.

    What only the writer itself reads (``if _cache is None: _cache = ...``) is made anew where it is missing.
    """
    exact = [r for r in each.reads if (r.file, r.line) in context.lines]
    if exact:
        return exact[0]
    writer = (each.write.where.file, each.write.where.function)
    reads = [r for r in each.reads if (r.file, r.function) != writer]
    if not context.lines:
        return reads[0] if reads else None
    if context.elsewhere:  # a time-out or a refused connection does not come of a value that was read in passing
        return None
    last: dict[str, int] = {}
    for file, line in context.lines:
        last[file] = max(line, last.get(file, 0))
    files = [r for r in reads if r.file not in last or r.line <= last[r.file]]
    return files[0] if files else None


# -- the look inside ---------------------------------------------------------------------------------------------------


def look_inside(evidence: Evidence) -> list[str]:
    """Return what the code of a leg's children reads, and where parent and fresh child differ."""
    lines: list[str] = []
    seen = {id(observed): seen for observed, seen in evidence.seen}
    for each in observed_in(evidence):
        if each.bindings:
            lines += [*([""] if lines else []), *_inside(each, seen.get(id(each), ()))]
    return lines


def _inside(observed: Observed, seen: Sequence[Seen]) -> list[str]:
    """Return what the code reads as one would look it up by hand, and the two namespaces where they differ."""
    lines = [f"what {observed.target} reads:"]
    differing = {id(each.binding) for each in observing.compare(observed, seen)} if seen else set()
    known: set[Any] = set()
    ordered = sorted(observed.bindings, key=lambda b: (id(b) not in differing, b.read.depth))
    for binding in ordered[:30]:
        where = binding.read.where
        key = (binding.path, where.file, where.line)
        if key in known:
            continue
        known.add(key)
        lines.append(f"  {where.file}:{where.line} in {_reader(where)}: {where.instruction}")
        lines.append(f"    {_place(where).source}")
    if len(observed.bindings) > 30:
        lines.append(f"  (and {len(observed.bindings) - 30} more)")
    if seen:
        every = observing.compare(observed, seen)
        lines.append("parent and fresh child, where they differ:" if every else "parent and fresh child: no difference")
        for each in every[:20]:
            lines.append(f"  - parent  {each.binding.path}{each.inner} = {short(each.ours)}")
            lines.append(f"  + child   {each.binding.path}{each.inner} = {short(each.theirs)}")
    return lines
