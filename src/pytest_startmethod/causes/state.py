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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..child.values import module_of, short
from ..model.evidence import Evidence
from ..model.finding import Fact, Finding, finding_at, source_fact, values
from ..model.observed import Difference, Observed, Seen
from ..model.place import Place
from ..source.callers import _tree, user_files
from ..state import observing
from ..state.attributes import GUESSED
from . import process, sharing
from .context import (
    Context,
    at,
    best_place,
    compares,
    context_of,
    initialized,
    is_touched,
    observed_in,
    place_of,
    reader,
)
from .ranking import Ranked, Weight, causes_first

_MAX_FINDINGS = 12
_MAX_FILES = 400


def findings(evidence: Evidence) -> list[Finding]:
    """Return what the children of a failed leg have otherwise than the parent; causes before notes."""
    context, seen = context_of(evidence), {id(observed): seen for observed, seen in evidence.seen}
    found = [each for one in observed_in(evidence) for each in explain(one, seen.get(id(one), ()), context)]
    return causes_first(found)


def to_ask(evidence: Evidence) -> list[Observed]:
    """Return whose values fresh children should be asked for; none where that cannot be the reason of the failure.

    That is where the leg under fork failed alike, or a child under spawn, which has the same values, passed.
    """
    if evidence.failure is not None and evidence.failure.findings:
        return []
    wanted = evidence.patience is not None  # how long it takes to import
    return [each for each in observed_in(evidence) if wanted or each.reads_state] if compares(evidence) else []


def unshared_in(evidence: Evidence) -> list[Finding]:
    """Return notes on what each child of a leg that passed had of its own (SM307)."""
    context = Context(failed=False, initialized=initialized(evidence))
    return [found for each in observed_in(evidence) if each.primitives for found in unshared(each, context)]


def explain(observed: Observed, seen: Sequence[Seen], context: Context | None = None) -> list[Finding]:
    """Return what a child of this launch has otherwise, the most likely reason of a failure first."""
    context = context or Context()
    ranked: list[Ranked] = []
    unreadable = {root for each in seen for root in each.broken} & set(observed.roots)
    if seen and not unreadable:
        absent = process.only_the_parents(observed, seen)
        for each in _merged(observing.compare(observed, seen)):
            known = (each.binding.module, each.binding.names)
            if known in context.initialized or (not context.failed and _fills(each, observed)):
                continue
            if each.binding.module not in absent:  # else so is all that is in it
                ranked.append(_value(each, observed, context))
        ranked += process.settings(observed, seen, context)
    ranked += process.environment(observed, context)
    ranked += sharing.primitives(observed, context)
    ranked += sharing.lost(observed, context)
    ranked.sort(key=lambda each: each.weight)
    return _unique(_without_guesses(ranked))[:_MAX_FINDINGS]


def _without_guesses(ranked: Sequence[Ranked]) -> Iterable[Finding]:
    """Yield the findings; a value that the code may only be guessed to read is a note where there is a better cause."""
    better = any(each.finding.level == "cause" and not each.weight.doubtful for each in ranked)
    notes = []
    for each in ranked:
        if better and each.weight.doubtful and each.finding.level == "cause":
            notes.append(replace(each.finding, level="note"))
        elif each.finding.level == "cause":
            yield each.finding
        else:
            notes.append(each.finding)
    yield from notes


def unshared(observed: Observed, context: Context) -> list[Finding]:
    """Return notes on multiprocessing's objects that each child of a leg that passed has made for itself."""
    return [each.finding for each in sharing.primitives(observed, context)]


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


def _value(each: Difference, observed: Observed, context: Context) -> Ranked:
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
    where = best_place(read, context)
    message = (
        f"{_kind(code, by)}{what} is {short(each.ours)} in the parent and {short(each.theirs)} in a fresh child; "
        f"{reader(where)} reads it"
    )
    if each.ours[0] == "l":
        message = (
            f"the cache of {path} was filled in the parent and is empty in a fresh child; {reader(where)} calls it"
        )
        fix = f"call {binding.names[-1]}.cache_clear() in the test before the process starts, if that matters"
    if is_note and written is not None:
        fix = "none is needed if it is a cache or a counter; else return what the child finds, or pass the value to it"
    evidence: list[str | Fact] = [*values(what, short(each.ours), short(each.theirs)), at("read", where)]
    if read.inner is not None and (read.inner.file, read.inner.line) != (where.file, where.line):
        evidence.append(at("by way of", read.inner))
    if is_note and written is not None:
        evidence.append(at("written", written.where, "the code itself"))
    if patch is not None and patch.place is not None:
        evidence.append(source_fact("parent", "set", patch.place, patch.by))
    else:
        for setter in setters[:3]:
            evidence.append(source_fact("parent", "set", setter.place, setter.by.removeprefix("assignment")))
    if each.others:
        evidence.append(Fact("child", "also different", ", ".join(path + other for other in each.others[:4])))
    finding = finding_at(code, path, place_of(where), message, evidence, fix, "note" if is_note else "cause")
    touched = is_touched(where, context) or (read.inner is not None and is_touched(read.inner, context))
    own = any(setter.place.file in context.tests for setter in setters)
    guessed = read.depth >= GUESSED
    unset = patch is None and by is None and not own
    return Ranked(finding, Weight(is_note, not touched, guessed, unset, not own, read.depth))


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
        return "SM305", process.CONFIGURE
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
        lines.append(f"  {where.file}:{where.line} in {reader(where)}: {where.instruction}")
        lines.append(f"    {place_of(where).source}")
    if len(observed.bindings) > 30:
        lines.append(f"  (and {len(observed.bindings) - 30} more)")
    if seen:
        every = observing.compare(observed, seen)
        lines.append("parent and fresh child, where they differ:" if every else "parent and fresh child: no difference")
        for each in every[:20]:
            lines.append(f"  - parent  {each.binding.path}{each.inner} = {short(each.ours)}")
            lines.append(f"  + child   {each.binding.path}{each.inner} = {short(each.theirs)}")
    return lines
