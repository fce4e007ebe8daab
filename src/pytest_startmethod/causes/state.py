"""SM301 to SM303, and the ranking of all state findings (SM301 to SM309).

A cause may explain a failure: a value that the code only reads differs in a fresh child. A note never does: values that
the code writes itself, caches, random generators, warnings filters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..child.differences import both
from ..child.values import VIRTUAL, module_of
from ..model.evidence import Evidence
from ..model.finding import Fact, Finding, finding_at, source_fact, values
from ..model.observed import Difference, Node, Observed, Seen, Where, Write
from ..model.patched import Patched
from ..source.callers import owner, package_of, user_files
from ..source.index import find_calls, source_of
from ..source.kinds import noun_of
from ..source.setters import Setter, setters, uses_of
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
_DEEP = 4
"""Attributes from a name to the part that differs, from which on the part is not what the user has set."""


def findings(evidence: Evidence) -> list[Finding]:
    """Return the state that differs in the children of a failed leg, causes before notes."""
    context, seen = context_of(evidence), {id(observed): seen for observed, seen in evidence.seen}
    found = [each for one in observed_in(evidence) for each in explain(one, seen.get(id(one), ()), context)]
    return causes_first(found)


def to_ask(evidence: Evidence) -> list[Observed]:
    """Return the code whose values fresh children should be asked for.

    Empty if differing values cannot explain the failure: the fork leg failed in the same way, or spawn, whose children
    have the same values, passed.
    """
    if evidence.failure is not None and evidence.failure.findings:
        return []
    wanted = evidence.patience is not None or evidence.hanging is not None  # the time that its imports take
    return [each for each in observed_in(evidence) if wanted or each.reads_state] if compares(evidence) else []


def unshared_in(evidence: Evidence) -> list[Finding]:
    """Return notes on what the children of a passing leg did not share (SM307)."""
    context = Context(failed=False, initialized=initialized(evidence))
    return [found for each in observed_in(evidence) if each.primitives for found in unshared(each, context)]


def explain(observed: Observed, seen: Sequence[Seen], context: Context | None = None) -> list[Finding]:
    """Return the state that differs in a child of this launch, the most likely cause first."""
    context = context or Context()
    ranked: list[Ranked] = []
    unreadable = {root for each in seen for root in each.broken} & set(observed.roots)
    if seen and not unreadable:
        absent = process.only_the_parents(observed, seen)
        for each in _merged(observing.compare(observed, seen, missed=context.missed)):
            known = (each.binding.module, each.binding.names)
            if each.binding.read.changed and not _is_nothing(each.theirs):
                continue  # what the object holds does not matter
            if known in context.initialized or (not context.failed and _fills(each, observed)) or _is_injected(each):
                continue
            if each.binding.module not in absent:  # a missing module makes all its contents differ
                ranked.append(value(each, observed, context))
        ranked += process.settings(observed, seen, context)
    ranked += process.environment(observed, context)
    ranked += process.hash_seed(observed, context)
    ranked += process.worker_names(observed, context)
    ranked += process.exit_handlers(observed, context)
    ranked += process.fork_hooks(observed, context)
    ranked += sharing.primitives(observed, context, observing.lacked(observed, seen))
    ranked += sharing.lost(observed, context)
    ranked.sort(key=lambda each: each.weight)
    return _unique(_without_guesses(ranked))[:_MAX_FINDINGS]


def _without_guesses(ranked: Sequence[Ranked]) -> Iterable[Finding]:
    """Yield the findings. Doubtful causes become notes if there is a better cause."""
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
    """Return notes on multiprocessing objects that each child of a passing leg made for itself."""
    return [each.finding for each in sharing.primitives(observed, context)]


def unseen_patches(patches: Iterable[Any], touched: Iterable[tuple[str, str]] = ()) -> list[Finding]:
    """Return the patches, latest first, as findings that only an experiment can confirm.

    `touched` holds file and function of each frame of the failing tracebacks: one that a library made is reported at
    the nearest line that uses the library.
    """
    context = Context(touched=frozenset(touched))
    found = {each.path: each for each in tools(patches, context) if len(each.together) > 1}
    known = {target for each in found.values() for target in each.together}
    for each in reversed([each for each in patches if each.target not in known]):
        if each.target.startswith(("<", "os.environ")) or "[" in each.target:
            continue
        place, by = each.place, each.by
        library = None if place is None else _library(place.file)
        if library is not None:
            by = library
            users = _nearest(uses_of(by, user_files()), context)
            place = users[0].place if users else place
        message = (
            f"the patch ({by}) is lost: {each.target} is patched in the parent only; the code does not read it "
            "itself, and something that it calls does"
        )
        evidence = () if place is None else (source_fact("parent", "set", place, by),)
        fix = _patch_fix("the patch", each.target)
        found[each.target] = finding_at("SM303", each.target, place, message, evidence, fix)
    return list(found.values())


def tools(patches: Iterable[Patched], context: Context) -> list[Finding]:
    """Return one finding for each installed tool, such as respx or moto, that has patched other packages."""
    by: dict[str, list[Patched]] = {}
    for each in patches:
        tool = each.by if each.by.isidentifier() and each.by != "monkeypatch" else ""
        if tool and "[" not in each.target and "<" not in each.target and each.target.partition(".")[0] != tool:
            by.setdefault(tool, []).append(each)
    found = []
    for tool, every in by.items():
        place = every[0].place
        if place is None or owner(place.file) == "installed":
            users = _nearest(uses_of(tool, (*context.tests, *user_files())), context)
            place = users[0].place if users else place
        targets = tuple(dict.fromkeys(each.target for each in every))
        message = (
            f"{tool} is not at work in the child: it has patched {', '.join(targets[:4])}"
            f"{f' and {len(targets) - 4} more' if len(targets) > 4 else ''} in the parent only"
        )
        evidence = () if place is None else (source_fact("parent", "set", place, tool),)
        fix = (
            f"use {tool} in the child, too: in a pool's initializer, or first in the target; or let the child talk to "
            "a server that the test starts"
        )
        found.append(replace(finding_at("SM303", tool, place, message, evidence, fix), together=targets))
    return found


def lost_tools(evidence: Evidence) -> list[Finding]:
    """Return the tools whose patched packages the user's code uses, where a child failed inside installed code."""
    if evidence.outcome != "failed" or not compares(evidence):
        return []
    frames = [frame for each in evidence.raised_in_children for frame in each.frames]
    packages = {package_of(each.file) for each in frames if owner(each.file) == "installed"}
    if not packages:
        return []
    used = {name for each in observed_in(evidence) for name in each.libraries} | packages
    context = context_of(evidence)
    return [
        each
        for tool in dict.fromkeys(patch.by for patch in evidence.patches)
        for each in tools([p for p in evidence.patches if p.by == tool and p.target.partition(".")[0] in used], context)
    ]


def _patch_fix(what: str, path: str) -> str:
    return (
        f"apply {what} in the child: patch {path} in a function that the child calls first (a pool's initializer, the "
        "start of the target), or pass the replacement to the code as an argument"
    )


def _fills(each: Difference, observed: Observed) -> bool:
    """Return whether the code itself fills the container: a cache."""
    mine = [w for w in observed.writes if (w.module, w.names) == (each.binding.module, each.binding.names)]
    return any(not write.rebinds for write in mine) and each.binding.node[0] in "({<o"


def _is_injected(each: Difference) -> bool:
    """Return whether an import hook such as typeguard's added a name that the child's code, as written, never reads."""
    binding, read = each.binding, each.binding.read
    if each.theirs != ["!"] or not replacing(each.ours, binding.module):
        return False
    texts = [source_of(where.file).text for where in (read.where, read.inner, *read.also) if where is not None]
    return all(texts) and not any(re.search(rf"\b{re.escape(binding.names[-1])}\b", text) for text in texts)


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    kept: dict[object, Finding] = {}
    for each in findings:
        kept.setdefault((each.code, each.path), each)
    return list(kept.values())


def _merged(found: Iterable[Difference]) -> list[Difference]:
    """Return one difference per binding: the one read nearest to the target."""
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
"""Names of memoised values: computing them anew gives the same result."""
_GENERATORS = ("random.Random", "numpy.random._generator.Generator", "numpy.random.mtrand.RandomState")
_CODE = ("f", "b", "c", "d", "M", "K", "p")


def value(each: Difference, observed: Observed, context: Context) -> Ranked:
    """Return the finding for a value that differs, with its weight."""
    binding, read = each.binding, each.binding.read
    patch = next((p for p in context.patches if _patches(p, each)), None)
    set_at = _setters(each, context)
    by = patch.by if patch is not None else _patched_in_source(set_at, context)
    package = (replacing(each.ours, binding.module) or _planted(each.ours, binding.module)) if by is None else ""
    library = None if patch is None or patch.place is None else _library(patch.place.file)
    if library is not None:  # one such as respx patched it for the test
        package, patch = library, None
    if package:
        by, set_at = package, _nearest(uses_of(package, (*context.tests, *user_files())), context)
    written = next((w for w in observed.writes if (w.module, w.names) == (binding.module, binding.names)), None)
    lacks = written is not None and not written.rebinds and _is_nothing(each.theirs) and not binding.steps
    is_note = _explains_nothing(each, context, patched=patch is not None or by is not None,
                                written=written is not None and not lacks)  # fmt: skip
    code, fix = _code(each, by)
    path = binding.path
    what = f"{path}{each.inner}"
    where = best_place(read, context)
    ours, theirs = both(each.ours, each.theirs)
    message = f"{_kind(code, by)}{what} is {ours} in the parent and {theirs} in a fresh child; {_reads(each, where)}"
    if each.ours[0] == "l":
        name = binding.names[-1]
        message = (
            f"the cache of {path} was filled in the parent and is empty in a fresh child, which computes anew; "
            f"{reader(where)} calls it"
        )
        fix = f"pass what {name}() returned to the target as an argument, or call {name}.cache_clear() where what it "
        fix += "depends on changes"
    setter = _setter_called(set_at) if patch is None and by is None else None
    if setter is not None:
        set_at, fix = setter[0], f"call {setter[1]}() in the child too: in a pool's initializer, or first in the target"
    fix = _FILLED.format(binding.names[-1]) if lacks else fix
    if is_note and written is not None:
        fix = f"if it is more than a cache or a counter, {fix}"
    evidence = _facts(each, what, where, written if is_note else None, [patch] if patch is not None else set_at)
    place = place_of(where)
    if package and set_at and set_at[0].place is not None and owner(place.file) == "installed":
        place = set_at[0].place
    finding = finding_at(code, path, place, message, evidence, fix, "note" if is_note else "cause")
    touched = is_touched(where, context) or (read.inner is not None and is_touched(read.inner, context))
    own = any(setter.place.file in context.tests for setter in set_at)
    guessed = read.depth >= GUESSED
    unset = patch is None and by is None and not own
    return Ranked(finding, Weight(is_note, not touched, guessed, unset, not own, read.depth))


_FILLED = (
    "set {} in the child: in a pool's initializer, or first in the target; a copy that is passed as an argument is "
    "changed in the child alone"
)


def _explains_nothing(each: Difference, context: Context, *, patched: bool, written: bool) -> bool:
    """Return whether a difference is a note: in a cache, a generator, deep in a library, or written by the code."""
    if each.ours[0] == "l" or each.theirs[0] == "l" or each.binding.kind in (*_GENERATORS, "itertools.count"):
        return True
    if patched:
        return False
    if written and each.ours[0] != "K":
        return True
    deep = each.inner.count(".") > _DEEP and not each.inner.endswith(context.missed or ("\0",))
    return deep or _MEMO.search(f"{each.binding.path}{each.inner}") is not None


def _is_nothing(node: Node) -> bool:
    """Return whether a fresh child has no object that could be changed in place."""
    return node in (["!"], ["=", "NoneType", "None"])


def _reads(each: Difference, where: Where) -> str:
    """Return which function reads the value, and through which computed attribute: ``settings.FEATURE``."""
    if not where.instruction:
        return "no code was seen to read it by its name"
    name = each.binding.names[-1]
    found = re.search(rf"\b{re.escape(name)}\.([A-Za-z_]\w*)(?!\w*\()", place_of(where).source)
    if found is None or found[1] in each.inner or each.inner == "" or found[1] in vars(type):
        return f"{reader(where)} reads it"
    return f"{reader(where)} reads {name}.{found[1]}, which comes from there"


def _facts(
    each: Difference, what: str, where: Where, written: Write | None, set_by: Sequence[Setter | Patched]
) -> list[str | Fact]:
    """Return facts: both values, where it is read and written, and what set it."""
    binding, read = each.binding, each.binding.read
    found: list[str | Fact] = [*values(what, *both(each.ours, each.theirs))]
    if where.instruction:
        found.append(at("read", where))
    if read.inner is not None and (read.inner.file, read.inner.line) != (where.file, where.line):
        found.append(at("by way of", read.inner))
    if written is not None:
        found.append(at("written", written.where, "the code itself"))
    for setter in set_by[:3]:
        if setter.place is not None:
            found.append(source_fact("parent", "set", setter.place, setter.by.removeprefix("assignment")))
    if each.others:
        found.append(Fact("child", "also different", ", ".join(binding.path + other for other in each.others[:4])))
    return found


def _library(file: str) -> str | None:
    """Return the installed package of a file; None for the user's, the standard library's and our own."""
    return package_of(file) if owner(file) == "installed" else None


def replacing(node: list[Any], module: str) -> str:
    """Return the installed package that owns the described function or class, if not `module`'s own; else ""."""
    file = ""
    if node[0] == "f":
        file = str(node[2])
    elif node[0] == "c":
        parts = str(node[1]).split(".")
        homes = [name for end in range(1, len(parts)) if (name := ".".join(parts[:end])) in sys.modules]
        home = module_of(sys.modules[homes[-1]]).get("__file__") if homes else None
        file = home if type(home) is str else ""
    package = (_library(file) if file else None) or ""
    return "" if package == module.partition(".")[0] else package


def _planted(node: list[Any], module: str) -> str:
    """Return the installed package whose object is among what a container of another library's holds; else ""."""
    home = module_of(sys.modules.get(module)).get("__file__")
    if type(home) is not str or _library(home) is None:
        return ""
    parts = node[2] if node[0] == "(" else [value for _, value in node[2]] if node[0] == "{" else [node]
    found = (replacing(["c", part[1]] if part[0] == "o" else part, module) for part in parts)
    return next(filter(None, found), "")


def _patches(patch: Any, each: Difference) -> bool:
    """Return whether a recorded patch is for this binding, or for a part of its value."""
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
    # a function set on an instance hides the method of its class, which a fresh child has
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
    if name == VIRTUAL:
        return "SM302", (
            f"call {binding.names[-2]}.register() in the child too: in a module that it imports, in a pool's "
            "initializer, or first in the target"
        )
    if binding.of_class:
        return "SM302", (
            f"set {'.'.join(binding.names[-2:])} in the child too (an initializer, or the module that the child "
            "imports): pickle does not carry a class attribute; or make it an instance attribute, or pass it as an "
            "argument; a registry is filled by importing what registers"
        )
    child = "in the child: in a pool's initializer, or first in the target"
    what = _unpicklable(binding.node)
    fix = f"pass {name} to the target as an argument, or set it {child}"
    if what:
        fix = f"set {name} {child}; as an argument it would not reach the child: {what} cannot be pickled"
    if _registers(each):
        fix += "; a registry is filled by importing, in the child, the module that registers"
    return "SM301", fix


def _unpicklable(node: Node) -> str:
    """Return what in a value, or in the plain containers that it consists of, no pickle carries, or ``""``.

    Instances of other classes may leave out what they hold, so nothing is said of their attributes.
    """
    if node[0] in ("f", "c") and any(part in str(node[1]) for part in ("<locals>", "<lambda>")):
        return "a local function" if node[0] == "f" else "a local class"
    if node[0] in ("?", "o") and len(node) > 1:
        return noun_of(str(node[1]))
    parts = [value for _, value in node[2]] if node[0] == "{" else node[2] if node[0] in ("(", "<") else ()
    return next(filter(None, map(_unpicklable, parts)), "")


def _registers(each: Difference) -> bool:
    """Return whether a container holds functions or classes that a fresh child lacks."""
    if each.binding.node[0] not in "({<o":
        return False
    parts = [each.ours]
    if each.ours[0] in "(<":
        parts = each.ours[2]
    elif each.ours[0] == "{":
        parts = [value for _, value in each.ours[2]]
    return each.ours != ["!"] and any(part[0] in ("f", "c", "M", "p") for part in parts)


def _kinds(node: object, depth: int = 4) -> set[str]:
    if not isinstance(node, list) or not node or depth < 0:
        return set()
    own = {node[0]} if isinstance(node[0], str) and len(node) == 2 else set()
    return own.union(*(_kinds(part, depth - 1) for part in node if isinstance(part, list)))


def _kind(code: str, by: str | None) -> str:
    if code == "SM303" and by is not None:
        return f"the patch ({by}) is lost: "
    return "the patch is lost: " if code == "SM303" else ""


# -- where it was set --------------------------------------------------------------------------------------------------


def _patched_in_source(found: list[Setter], context: Context) -> str | None:
    """Return how the source patches the binding, or None. Same-named attributes in unrelated files do not count."""
    if not found or found[0].by == "assignment":
        return None
    first = found[0]
    return first.by if first.exact or first.place.file in context.tests else None


def _setters(each: Difference, context: Context) -> list[Setter]:
    """Return the lines that set it after the import of its module, the test's own files first."""
    binding = each.binding
    inner = re.findall(r"[.']([A-Za-z_]\w*)(?=[.'\[]|$)", each.inner)
    return _nearest(setters(binding.module, binding.names, inner, context.tests), context)


def _setter_called(found: list[Setter]) -> tuple[list[Setter], str] | None:
    """Return the user's calls of the library's function that sets it, and that function's name."""
    if not found or owner(found[0].place.file) not in ("stdlib", "installed"):
        return None
    name = found[0].place.function.rpartition(".")[2]
    calls = find_calls(user_files(), name) if name else []
    return ([replace(found[0], place=each) for each in calls], name) if calls else None


def _nearest(found: list[Setter], context: Context) -> list[Setter]:
    """Return the setters in functions of the traceback, else those in the test's own files, else all.

    Patches by other tests are left out: they have been undone.
    """
    running = {(file, function.rpartition(".")[2]) for file, function in context.touched}
    found = [s for s in found if s.by == "assignment" or not s.place.function.rpartition(".")[2].startswith("test")
             or (s.place.file, s.place.function.rpartition(".")[2]) in running]  # fmt: skip
    here = [s for s in found if (s.place.file, s.place.function.rpartition(".")[2]) in running]
    first = here or [s for s in found if s.place.file in context.tests]
    return sorted(first, key=lambda s: (not s.exact, s.by == "assignment")) or found


# -- what a child reads ------------------------------------------------------------------------------------------------


def look_inside(evidence: Evidence) -> list[str]:
    """Return the lines on what a leg's children read, and where parent and fresh child differ."""
    lines: list[str] = []
    seen = {id(observed): seen for observed, seen in evidence.seen}
    for each in observed_in(evidence):
        if each.bindings:
            lines += [*([""] if lines else []), *_inside(each, seen.get(id(each), ()))]
    return lines


def _inside(observed: Observed, seen: Sequence[Seen]) -> list[str]:
    """Return the lines for one launch: what its code reads, and the values that differ."""
    lines = [f"what {observed.target} reads:"]
    differing = {id(each.binding) for each in observing.compare(observed, seen)} if seen else set()
    known: set[object] = set()
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
            for who, text in zip(("- parent ", "+ child  "), both(each.ours, each.theirs), strict=True):
                lines.append(f"  {who} {each.binding.path}{each.inner} = {text}")
    return lines
