"""SM101 to SM107: from the leaves of a walk to findings that say what, where, and what to do."""

from __future__ import annotations

import os
import re
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._compat import cpython
from ..model.codes import CAUSES
from ..model.finding import Finding
from ..model.place import Place
from ..model.walk import Leaf, Step, Walk, path_text
from ..pickling import dry_run
from ..pickling.dry_run import Call
from ..pickling.walk import Sink, attributes, walk
from ..source import kinds, places
from ..source.callers import owner
from . import containers

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MAX_LEAVES = 200
_MAX_FINDINGS = 20
_MAX_DEPTH = 5


def diagnose(
    obj: object,
    *,
    error: BaseException | None = None,
    task: bool = False,
    allow_fork_primitives: bool = False,
    method: str = "spawn",
    budget: int = 1_000_000,
) -> tuple[Finding, ...]:
    """Return why `obj` does not pickle: one finding for each cause, nearest first; nothing if it does.

    `obj` is a process about to start, a pool's or executor's task as it lies in the queue, or any payload; `task` and
    `allow_fork_primitives` are as for `dry_run.dry_run`. `error` is what the interpreter raised, if it did. `budget`
    is the number of objects to look at. What is found is the interpreter's error alone where the place is not.
    """
    try:
        return _diagnose(obj, error, _Mode(task, allow_fork_primitives, method), budget)
    except Exception as failure:
        if error is None:
            error = dry_run.dry_run(obj, task=task, allow_fork_primitives=allow_fork_primitives).error
        return () if error is None else (_placeless(error, (f"the search itself failed: {_one_line(failure)}",)),)


@dataclass(frozen=True, slots=True)
class _Mode:
    task: bool
    allow: bool
    method: str

    def error_of(self, obj: object) -> BaseException | None:
        return dry_run.dry_run(obj, task=self.task, allow_fork_primitives=self.allow).error


def _diagnose(obj: object, error: BaseException | None, mode: _Mode, budget: int) -> tuple[Finding, ...]:
    root = dry_run.as_call(obj)
    if error is None:
        error = mode.error_of(root)
        if error is None:
            return ()
    found = search(root, mode.task, mode.allow, budget)
    if not cpython.stock_pickler(cpython.forking_pickler()):
        found = replace(found, leaves=tuple(_by_value(found.leaves, mode, budget)))
    if not found.leaves:
        if isinstance(error, RecursionError) and len(found.deepest) > 50:
            return (_too_deep(root, error, found),)
        facts = [] if found.complete else [f"only the first {found.visited:,} objects were looked at"]
        return (_placeless(error, facts),)
    findings: dict[object, Finding] = {}
    for groups in containers.gathered(_grouped(root, found.leaves)):
        finding = _Writer(root, groups[0], mode).finding()
        if len(groups) > 1:
            finding = containers.counted(finding, path_of(root, containers.container_of(groups[0]) or ()), groups)
        key = (finding.code, finding.path, finding.file, finding.line)
        if key in findings:
            continue
        findings[key] = finding
        if len(findings) >= _MAX_FINDINGS:
            break
    return tuple(sorted(findings.values(), key=_importance))


def _by_value(leaves: Sequence[Leaf], mode: _Mode, budget: int) -> Iterator[Leaf]:
    """Yield the leaves of a pickler that lets functions and classes travel by value, as dill and cloudpickle do.

    The walk asks the C pickler, which finds fault with every function without a name. This one is asked itself: what
    it pickles is no leaf, and a function that it does not is one for what it takes along.
    """
    todo = [(leaf, 0) for leaf in leaves]
    for leaf, depth in todo:  # grows meanwhile
        error = mode.error_of(leaf.obj)
        if error is None:
            continue
        if leaf.kind != "name" or depth > _MAX_DEPTH:
            yield replace(leaf, error=error)
            continue
        for step, part in _taken_along(leaf.obj):
            if len(todo) < _MAX_LEAVES and mode.error_of(part) is not None:
                for below in search(part, mode.task, mode.allow, budget).leaves:
                    chain = (*leaf.chain, (step, part), *below.chain)
                    todo.append((replace(below, chain=chain, root=leaf.root), depth + 1))


def _taken_along(obj: Any) -> Iterator[tuple[Step, Any]]:
    """Yield what a function or class that travels by value takes along, as far as it is its own."""
    function = places.users_function(obj)
    if isinstance(function, types.FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            filled, value = cpython.cell_value(cell)
            if filled:
                yield ("attribute", name), value
        for index, value in enumerate(function.__defaults__ or ()):
            yield ("reduce", f".__defaults__[{index}]"), value
        for name, value in (function.__kwdefaults__ or {}).items():
            yield ("reduce", f".__kwdefaults__[{name!r}]"), value
        for name in places.names_read(function):
            yield ("reduce", f".__globals__[{name!r}]"), function.__globals__[name]
    elif isinstance(obj, type):
        for name, value in vars(obj).items():
            if not name.startswith("__"):
                yield ("attribute", name), value


def _importance(finding: Finding) -> bool:
    return not (finding.path == "target" or finding.path.startswith("target."))


def _class_attribute(cls: type, *names: str) -> Any:
    """Return the first of the attributes that a class of the user's defines."""
    for each in type.__dict__["__mro__"].__get__(cls)[:-1]:
        for name in names:
            if name in type.__getattribute__(each, "__dict__"):
                return type.__getattribute__(each, "__dict__")[name]
    return None


def search(root: object, task: bool, allow: bool, budget: int) -> Walk:
    """Walk `root` with the reducers and under the conditions of a dry run."""
    table: Any = dry_run.dispatch_table(allow_fork_primitives=allow)
    cls = cpython.forking_pickler()
    override = None
    if not cpython.stock_pickler(cls):  # the user put another in its place: cloudpickle's, dill's
        users = cls(Sink())
        table = getattr(users, "dispatch_table", table)
        override = getattr(users, "reducer_override", None)
    previous = cpython.spawning_popen()
    cpython.set_spawning_popen(None if task else dry_run.STAND_IN)
    try:
        return walk(
            root,
            table,
            budget=budget,
            limit=_MAX_LEAVES,
            prune=kinds.judged_whole,
            skip=lambda obj: ("_popen",) if obj is root and cpython.is_process(obj) else (),
            override=override,
        )
    finally:
        cpython.set_spawning_popen(previous)


# -- paths -----------------------------------------------------------------------------------------------------------


def path_of(root: object, steps: Sequence[Step]) -> str:
    """Return the path from what the user passed: ``target``, ``args[0].lock``, ``initargs[0]``, ``object``."""
    texts = list(steps)
    if isinstance(root, Call) and texts:
        (_, name), rest = texts[0], texts[1:]
        if name == "target":
            return path_text("target", rest)
        if name == "args" and root.form == "map" and rest:
            return path_text("args[0]", rest[1:])
        if name == "args" and root.form == "starmap" and rest:
            return path_text("args", rest[1:])
        return path_text(str(name), rest)
    if cpython.is_process(root):
        if texts and texts[0][0] == "attribute" and texts[0][1] in ("_target", "_args", "_kwargs"):
            if texts[0][1] == "_args" and len(texts) > 1:
                name = cpython.worker_parameter(root, texts[1][1])
                if name is not None:
                    return path_text(name, texts[2:])
            return path_text(texts[0][1][1:], texts[1:])
        return path_text("process", texts)
    return path_text("object", texts)


def _grouped(root: object, leaves: Sequence[Leaf]) -> list[list[tuple[Leaf, int]]]:
    """Gather the leaves by the object to name; each with its entry's number in the leaf's chain."""
    groups: dict[int, list[tuple[Leaf, int]]] = {}
    for leaf in leaves:
        top = None if isinstance(root, Call) or cpython.is_process(root) else root
        at = kinds.actionable(top, leaf.chain, leaf.obj)
        obj = leaf.chain[at][1] if at >= 0 else leaf.root
        groups.setdefault(id(obj), []).append((leaf, at))
    # What lies inside an object that cannot be pickled in any case is part of why, and nothing to mend by itself.
    whole = {key for key, ((leaf, at), *_) in groups.items() if 0 <= at < len(leaf.chain) - 1}
    for key in list(groups):
        leaf, at = groups[key][0]
        outside = enumerate(leaf.chain[: max(at, 0)])
        around = next((i for i, (_, obj) in outside if id(obj) in whole and id(obj) in groups), None)
        if around is not None:
            groups[id(leaf.chain[around][1])] += [(each, around) for each, _ in groups.pop(key)]
    return list(groups.values())


# -- one finding -----------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the finding about one object: a leaf, or a resource with the leaves inside it."""

    def __init__(self, root: object, group: list[tuple[Leaf, int]], mode: _Mode) -> None:
        self.root = root
        self.mode = mode
        self.group = group
        self.leaf, self.at = group[0]
        self.chain = self.leaf.chain[: self.at + 1]
        self.obj = self.chain[-1][1] if self.chain else self.leaf.root
        self.steps = [step for step, _ in self.chain]
        self.path = path_of(root, self.steps)
        self.is_leaf = self.at == len(self.leaf.chain) - 1

    def finding(self) -> Finding:
        obj, leaf = self.obj, self.leaf
        if not self.is_leaf or kinds.judged_whole(obj):
            return self.resource()
        if leaf.kind == "name":
            if isinstance(obj, type):
                return self.local_class()
            return self.by_name()
        if leaf.kind == "invalid":
            return self.invalid_reduction()
        if _foreign(leaf.error):
            return self.foreign()
        method = _raising_method(leaf.error)
        if method is not None:
            return self.raised(method)
        if kinds.is_users(type(obj)) and f"{_reduction_method(type(obj))[0]} should return" in str(leaf.error):
            return self.invalid_reduction()
        return self.unpicklable()

    def make(
        self, code: str, place: Place | None, message: str, evidence: Sequence[str], fix: str, path: str | None = None
    ) -> Finding:
        file, line = (place.file, place.line) if place else (None, None)
        facts = tuple(dict.fromkeys(each for each in evidence if each))
        if isinstance(self.root, Call) and self.root.form != "call" and self.steps[:1] == [("attribute", "args")]:
            facts = (f"in item {self.steps[1][1]} of the batch", *facts) if len(self.steps) > 1 else facts
        return Finding(
            code, CAUSES[code].name, "cause", self.path if path is None else path, file, line, message, facts, fix
        )

    # -- SM101, SM104: functions -------------------------------------------------------------------------------------

    def by_name(self) -> Finding:
        """Write about what pickles by name and cannot be found by it: a function, or what poses as one."""
        obj = self.obj
        name, module = self.leaf.name or _qualname(obj), _text_attribute(obj, "__module__")
        definition = places.function_definition(obj)
        if definition is None and self.leaf.name is not None and kinds.is_users(type(obj)):
            # which its own reduction returned
            definition = places.function_definition(_class_attribute(type(obj), "__reduce_ex__", "__reduce__"))
        bound = bound_to(obj)
        code = places.code_of(places.users_function(obj))
        lambda_ = code is not None and code.co_name == "<lambda>"
        evidence = _decorators(definition)
        if "<locals>" not in name and not lambda_ and not all(map(str.isidentifier, name.split("."))):
            return self.unpicklable()  # a ufunc: it says a name that nothing can have
        if "<locals>" not in name and not lambda_:
            return self.shadowed(obj, name, module, definition, bound, evidence)
        func = _innermost(places.users_function(obj))
        cells = _cells(func, self.mode, obj) if func is not None else []
        maker = _enclosing(name)
        if lambda_:
            message = f"`{self.subject()}` is a lambda: its name is `<lambda>`, and a child can import nothing by that."
        else:
            message = (
                f"`{_short(name)}` is defined inside `{maker}`, so there is no name that a child could import it by."
            )
        evidence += _cells_text(cells)
        wrapped = _wraps_module_function(obj, cells)
        if bound:
            evidence.append(f"bound to: {', '.join(bound)}")
        if func is not None and lambda_:
            reads = [n for n in places.names_read(func) if type(func.__globals__[n]) is not types.ModuleType]
            if reads:
                evidence.append(f"reads globals: {', '.join(reads[:12])}")
        fix = self.hoist(name, maker, lambda_, cells, wrapped, bound)
        if code is not None and code.co_filename.startswith("<"):
            evidence.append(f"made at run time, in {code.co_filename}: it has no source file")
        return self.make("SM101", definition.place if definition else None, message, evidence, fix)

    def hoist(
        self, name: str, maker: str, lambda_: bool, cells: list[_Cell], wrapped: str | None, bound: list[str]
    ) -> str:
        short = _short(name)
        if wrapped is not None:
            return (
                f"put @functools.wraps({wrapped}) on `{short}` in `{maker}`: it then carries the name of the "
                f"function that it wraps, and a child finds it by that"
            )
        if lambda_:
            text = "replace the lambda by a function defined with `def` at module level"
        else:
            text = f"move `{short}` out of `{maker}` to module level"
        good = [c.name for c in cells if c.error is None and not c.itself]
        bad = [c for c in cells if c.error is not None and not c.itself]
        if good:
            text += f", and pass {_and(good)} as argument{'s' * (len(good) > 1)}"
        for cell in bad:
            text += f"; `{cell.name}` does not pickle either: {cell.advice()}"
        if bound:
            text += (
                f"; if `{bound[0]}` was patched for the test, patch it in the child instead: "
                f"a patch does not reach a child"
            )
        return text

    def shadowed(
        self, obj: Any, name: str, module: str, definition: places.Definition | None,
        bound: list[str], evidence: list[str],
    ) -> Finding:  # fmt: skip
        """SM104: the name is no local one, and yet it does not lead back to the object."""
        place = definition.place if definition else places.named_place(module, name)
        there, other = _look_up(module, name)
        evidence = list(evidence)
        full = f"{module}.{name}" if module else name
        now = _other_file(obj, module, name)
        if now is not None and place is not None:
            message = (
                f"it comes from a module `{module}`, and that name now belongs to another file, {now}, which is "
                f"where a child would look for `{name}`."
            )
            fix = (
                f"give the two files names of their own: rename one, or put __init__.py into their folders; what "
                f"several tests use belongs in a module that only one folder has (not in {module}.py)"
            )
        elif there and places.code_of(obj) is not None:
            message = f"the name `{full}` leads to another object, {kinds.describe(other)}, not to this function."
            after = place.line if place else 0
            rebound = places.module_rebindings(place.file, name, after) if place and "." not in name else []
            evidence += [f"rebound at {each.file}:{each.line}: {_source_line(each)}" for each in rebound[-3:]]
            evidence += [f"`{full}` is now {_where(other)}"] if not rebound else []
            decorated = bool(evidence) and any("decorated" in e or "rebound" in e for e in evidence)
            how = "is replaced by a decorator or a later assignment" if decorated else "is bound to something else"
            fix = (
                f"pass the object that the name leads to (`{_short(name)}`), or keep this function under a name of "
                f"its own: `{_short(name)}` {how}, and pickle wants the same object there"
            )
            if any(held is other for _, held in self.chain):  # the wrapper object that was passed
                cls = type(other).__name__
                fix = (
                    f"`{_short(name)}` is itself what holds the function: give `{cls}` a __reduce__ that returns its "
                    f"name, {name!r}, or keep the function under a name of its own and wrap that one"
                )
        elif there:
            message = f"the name `{full}` leads to another object, {kinds.describe(other)}."
            fix = f"pass the same object that `{full}` is bound to, or give this one a name of its own in its module"
        elif other is not None:
            message = f"it says that it comes from module `{module}`, which cannot be imported here."
            fix = f"define `{_short(name)}` in a module that can be imported, and set __module__ to that"
        else:
            message = f"it says that its name is `{full}`, and there is no such name."
            if bound:
                message = f"it says that its name is `{full}`, but it is bound to {_and_plain(bound)}."
                fix = (
                    f"give it the same name that it is bound to, `{bound[0].rpartition('.')[2]}` "
                    f"(__name__ and __qualname__, or the name in its definition)"
                )
            else:
                fix = (
                    f"move `{_short(name)}` to module level and keep it bound to that name: "
                    f"a child looks it up as `{full}`"
                )
        if bound and (now is not None or not (not there and other is None)):
            evidence.append(f"bound to: {', '.join(bound)}")
        return self.make("SM104", place, message, evidence, fix)

    # -- SM102, SM104: classes ---------------------------------------------------------------------------------------

    def local_class(self) -> Finding:
        cls: type = self.obj
        name, module = _qualname(cls), _text_attribute(cls, "__module__")
        definition = places.class_definition(cls)
        evidence = _decorators(definition)
        bound = bound_to(cls)
        instance = len(self.chain) > 1 and self.steps[-1] == ("attribute", "__class__")
        what = "this object's class" if instance or not self.steps else "this class"
        if "<locals>" in name:
            return self.class_in_function(cls, name, definition, evidence, what)
        there, other = _look_up(module, name)
        if not there and not bound:
            if other is not None:
                return self.shadowed(cls, name, module, definition, bound, evidence)
            message = f"{what}, `{_short(name)}`, was made at run time and no name in module `{module}` leads to it."
            fix = (
                f"move the definition of `{_short(name)}` to module level, bound to that same name, "
                f"so that a child can import it"
            )
            return self.make("SM102", definition.place if definition else None, message, evidence, fix)
        if not there:
            message = (
                f"{what} says that its name is `{_short(name)}`, but it is bound to {_and_plain(bound)}: a child "
                f"looks for `{module}.{name}`, which does not exist."
            )
            mine = bound[0].rpartition(".")[2]
            fix = (
                f"give the type the same name that it is bound to (rename one of them): "
                f"the typename in its definition must be {mine!r}"
            )
        else:
            message = f"{what} is not the one that `{module}.{name}` leads to: {kinds.describe(other)} took its place."
            evidence += [f"`{module}.{name}` is now {_where(other)}"]
            fix = (
                "make the object from the class that its name leads to now: this one was replaced, by a decorator "
                "that returns a new class, a reload, or a later definition of the same name"
            )
        return self.make("SM104", definition.place if definition else None, message, evidence, fix)

    def class_in_function(
        self, cls: type, name: str, definition: places.Definition | None, evidence: list[str], what: str
    ) -> Finding:
        maker = _enclosing(name)
        message = f"{what}, `{_short(name)}`, is defined inside `{maker}`, so a child cannot import it."
        cells: dict[str, _Cell] = {}
        for value in list(type.__getattribute__(cls, "__dict__").values()):
            func = _innermost(value)
            if func is None or not func.__qualname__.startswith(f"{name}."):
                continue  # put there by somebody else
            for cell in _cells(func, self.mode, value):
                if cell.name != "__class__" and cell.value is not cls:
                    cells.setdefault(cell.name, cell)
        evidence = [*evidence, *_cells_text(list(cells.values()), "its methods close over")]
        fix = f"move the class `{_short(name)}` out of `{maker}` to module level"
        good = [c.name for c in cells.values() if c.error is None]
        if good:
            fix += f", and give it {_and(good)} as argument{'s' * (len(good) > 1)}"
        for cell in cells.values():
            if cell.error is not None:
                fix += f"; `{cell.name}` does not pickle either: {cell.advice()}"
        return self.make("SM102", definition.place if definition else None, message, evidence, fix)

    # -- SM103: objects ----------------------------------------------------------------------------------------------

    def unpicklable(self) -> Finding:
        kind = kinds.kind_of(self.obj)
        message = (
            f"`{self.subject()}` is {_noun(self.obj)}, which no other process can have: {_one_line(self.leaf.error)}."
        )
        place, evidence = self.set_at()
        return self.make("SM103", place, message, evidence, self.keep_out(kind))

    def resource(self) -> Finding:
        """Write about a resource around one or more leaves, or an object that is judged as a whole."""
        kind = kinds.kind_of(self.obj)
        inner = [(leaf, at) for leaf, at in self.group if len(leaf.chain) > at + 1]
        place, evidence = self.set_at()
        if kinds.is_testcase(self.obj):
            return self.testcase()
        module = _text_attribute(type(self.obj), "__module__")
        shared = module.startswith("multiprocessing.") and module != "multiprocessing.pool"  # a result holds its pool
        if shared and any(_foreign(leaf.error) for leaf, _ in inner):
            return self.foreign()
        fixture = _fixture_name(self.obj) if kind is kinds._FIXTURE else None
        noun = _noun(self.obj) if fixture is None else f"the fixture `{fixture}`, {_noun(self.obj)}"
        message = f"`{self.subject()}` is {noun}, which belongs to this process and cannot be pickled."
        because = self.because(inner) if kind is not kinds._FIXTURE else []
        bound = bound_to(self.obj) if kind is kinds._MOCK else []  # a patch: it says which
        evidence = [*evidence, *([f"bound to: {', '.join(bound)}"] if bound else [])]
        return self.make("SM103", place, message, [*evidence, *because], self.keep_out(kind))

    def because(self, inner: list[tuple[Leaf, int]]) -> list[str]:
        if not inner:
            return [f"because: {_one_line(self.leaf.error)}"]
        lines = []
        for leaf, at in inner[:4]:
            steps = [step for step, _ in leaf.chain[at + 1 :]]
            if steps[-1] == ("attribute", "__class__") and len(steps) > 1:
                steps.pop()
            lines.append(f"because: its {path_text('', steps).lstrip('.')} is {_leaf_text(leaf)}")
        if len(inner) > 4:
            lines.append(f"because: {len(inner) - 4} more parts of it do not pickle")
        return lines

    def testcase(self) -> Finding:
        case = self.obj
        cls = kinds.type_name(type(case))
        kind = kinds.kind_of(case)
        path, name = self.path, "self"
        place: Place | None = None
        method = self.chain[-2][1] if len(self.chain) > 1 else None
        if type(method) is types.MethodType and self.steps[-1] == ("attribute", "__self__"):
            name = f"self.{method.__name__}"
            path = path_of(self.root, self.steps[:-1])
            definition = places.function_definition(method)
            place = definition.place if definition else None
            message = (
                f"`{name}` is a method of the running TestCase `{cls}`: pickling it means pickling `self`, and with "
                f"it the test runner's own objects."
            )
        else:
            message = (
                f"`{self.subject()}` is the running TestCase `{cls}`: pickling it means pickling the test runner's "
                f"own objects."
            )
            definition = places.class_definition(type(case))
            place = definition.place if definition else None
        evidence = []
        hidden = ("_outcome", "_cleanups", "_subtest", "_type_equality_funcs", "_testcase")
        mine = {k: v for k, v in attributes(case) if k not in hidden}
        for leaf in search(mine, self.mode.task, self.mode.allow, 100_000).leaves[:4]:
            if leaf.obj is case:  # pytest puts the test's own method into the instance
                continue
            steps = [step for step, _ in leaf.chain]
            where = path_text("", [("attribute", steps[0][1]), *steps[1:]]) if steps else ""
            evidence.append(f"also: self{where} is {_leaf_text(leaf)}")
        return self.make("SM103", place, message, evidence, kind.instead if kind else "", path)

    def keep_out(self, kind: kinds.Kind | None) -> str:
        """Return what to do about an object that cannot cross: what fits its kind, and its owner's `__getstate__`."""
        instead = kind.instead if kind and kind.instead else ""
        if not instead:
            instead = (
                f"re-create the {kinds.type_name(type(self.obj)).rpartition('.')[2]} in the child from plain values"
            )
        held = self.holder()
        if held is None or kind is kinds._MOCK:
            return instead
        class_, attribute = held
        return (
            f"{instead}; or leave `{attribute}` out of what `{class_}.__getstate__` returns and re-create it in "
            f"`__setstate__`"
        )

    def holder(self) -> tuple[str, str] | None:
        """Return the user's class and attribute that hold the object, directly or in plain containers."""
        for i in range(len(self.chain) - 1, -1, -1):
            step = self.steps[i]
            parent = self.chain[i - 1][1] if i else self.leaf.root
            if step[0] == "attribute" and not isinstance(parent, Call) and not str(step[1]).startswith("__"):
                if kinds.is_users(type(parent)) and not isinstance(parent, BaseException):
                    return kinds.type_name(type(parent)), str(step[1])
                return None
            if step[0] not in ("item", "element", "key"):
                return None
        return None

    def subject(self) -> str:
        """Return how to call the object in a sentence: ``Holder.resource``, or its path."""
        if self.steps and self.steps[-1][0] == "attribute" and not str(self.steps[-1][1]).startswith("__"):
            parent = self.chain[-2][1] if len(self.chain) > 1 else self.leaf.root
            if not isinstance(parent, (Call, types.MethodType)) and kinds.is_users(type(parent)):
                return f"{kinds.type_name(type(parent))}.{self.steps[-1][1]}"
        return self.path

    # -- SM105, SM106, SM107 -----------------------------------------------------------------------------------------

    def raised(self, method: _Method) -> Finding:
        error = self.leaf.error
        cls = kinds.type_name(type(self.obj))
        name = method.name if "." in method.name else f"{cls}.{method.name}"
        name = name.rpartition("<locals>.")[2]
        message = f"`{name}` raised {_one_line(error)} while `{self.subject()}` was being pickled."
        evidence = [f"raised at {method.raised.file}:{method.raised.line}: {_source_line(method.raised)}"]
        place, _ = self.set_at()
        if place is not None:
            evidence.append(f"`{self.subject()}` is set at {place.file}:{place.line}")
        return self.make("SM105", method.place, message, evidence, self.raised_fix(name))

    def raised_fix(self, name: str) -> str:
        error = self.leaf.error
        short = name.rpartition(".")[2]
        if short in ("__getattr__", "__getattribute__"):
            return (
                f"let `{name}` raise AttributeError for names that start with two underscores, and read its own "
                f"attributes through self.__dict__: pickle asks for __getstate__ and __reduce_ex__"
            )
        if isinstance(error, AttributeError):
            missing = getattr(error, "name", None)
            what = f"`{missing}`, which the object does not have" if missing else "an attribute that is not there"
            return f"`{name}` reads {what}: set it before pickling, or leave it out of what `{short}` returns"
        if isinstance(error, (TypeError, NotImplementedError)):
            return (
                f"the class refuses to be pickled in `{name}`: pass what it is made of and make it in the child, or "
                f"let `{short}` return something that pickles"
            )
        return f"let `{name}` return what the child needs to make the object again (see __reduce__), and not raise"

    def invalid_reduction(self) -> Finding:
        t = type(self.obj)
        name, func = _reduction_method(t)
        definition = places.function_definition(func) if func is not None else None
        cls = kinds.type_name(t)
        message = f"`{cls}.{name}` returned something that is no reduction: {_one_line(self.leaf.error)}."
        place = definition.place if definition else None
        if isinstance(self.leaf.error, RecursionError):
            message = (
                f"`{cls}.{name}` returns arguments with the object itself in them: to make them, a child would need "
                f"the object first. {_one_line(self.leaf.error)}."
            )
            fix = (
                f"return the object's own parts from `{cls}.{name}`; what leads back to the object belongs into the "
                f"state, the third element, which ends the recursion"
            )
            return self.make("SM107", place, message, [], fix)
        if "__getnewargs" in name:
            fix = f"return what `{cls}.__new__` takes from `{cls}.{name}`: {_NEWARGS[name]}"
            return self.make("SM105", place, message, [], fix)
        fix = (
            f"return a string or a tuple of two to six elements from `{cls}.{name}`: a callable, the tuple of its "
            f"arguments, then the state"
        )
        return self.make("SM105", place, message, [], fix)

    def foreign(self) -> Finding:
        leaf = next((each for each, _ in self.group if _foreign(each.error)), self.leaf)
        kind = kinds.kind_of(self.obj)
        noun = kind.noun if kind else "shared memory"
        what = _FACTORIES.get(type(self.obj).__name__, type(self.obj).__name__)
        place, evidence = self.set_at()
        inner = [(each, at) for each, at in self.group if len(each.chain) > at + 1]
        if inner:
            evidence += self.because(inner)
        made_by_fork = "fork context" in str(leaf.error)
        if made_by_fork:
            message = (
                f"`{self.subject()}` is {noun} ({what}) that a fork context made, and only a forked child can have "
                f"it, not one started with {self.mode.method}."
            )
            fix = (
                f"make it with the same context as the process: ctx = multiprocessing.get_context"
                f"({self.mode.method!r}), then ctx.{what}() and ctx.Process(...)"
            )
        else:
            message = f"`{self.subject()}` is {noun} ({what}) inside a task or message: {_one_line(leaf.error)}."
            fix = (
                f"let the workers inherit the {what}: pass it in the args of the Process, or to the pool as "
                f"initializer=..., initargs=(...,); or use Manager().{what}(), whose proxies can be sent"
            )
        return self.make("SM106", place, message, evidence, fix)

    # -- where it was set --------------------------------------------------------------------------------------------

    def set_at(self) -> tuple[Place | None, list[str]]:
        """Return where the source put the object where it is, with the other candidates as evidence."""
        extra = self.files()
        found: list[Place] = []
        said = "set at"
        for i in range(len(self.chain) - 1, -1, -1):
            step, obj = self.chain[i]
            parent = self.chain[i - 1][1] if i else self.leaf.root
            ours = isinstance(parent, Call) or (cpython.is_process(parent) and step[1] in cpython.PROCESS_FIELDS)
            if step[0] == "attribute" and not ours and type(parent) is not types.MethodType:
                found = places.attribute_places(parent, str(step[1]), obj, extra)
                if found:
                    break
            held = places.names_in_callers(obj) if not isinstance(obj, (tuple, types.MethodType)) else []
            if held:
                found = [place for _, place in held]
                said = f"`{held[0][0]}`, set at"
                break
            if step[0] == "item" and type(step[1]) is str:
                found = places.item_places(parent, step[1], obj, extra)
                if found:
                    break
            if step[0] == "attribute" and not str(step[1]).startswith("__") and kinds.is_users(type(parent)):
                break
        maker = places.maker_of(self.obj)
        if not found and maker is not None:
            return maker.place, [f"made by `{maker.place.function.rpartition('<locals>.')[2]}` at "
                                 f"{maker.place.file}:{maker.place.line}: {_source_line(maker.place)}"]  # fmt: skip
        evidence = []
        if len(found) > 1:
            evidence = [
                f"{'or ' if n else ''}{said} {p.file}:{p.line}: {_source_line(p)}" for n, p in enumerate(found[:6])
            ]
        elif found:
            evidence = [f"{said} {found[0].file}:{found[0].line}: {_source_line(found[0])}"]
        held_by = self.holder_class()
        if held_by is not None:
            definition = places.class_definition(held_by)
            if definition is not None:
                where = f"{definition.place.file}:{definition.place.line}"
                evidence.append(f"`{kinds.type_name(held_by)}` is defined at {where}")
                if not found:
                    return definition.place, evidence
        return (found[0] if found else None), evidence

    def holder_class(self) -> type | None:
        for i in range(len(self.chain) - 1, -1, -1):
            parent = self.chain[i - 1][1] if i else self.leaf.root
            t = type(parent)
            if not isinstance(parent, (Call, types.MethodType)) and kinds.is_users(t):
                return t
        return None

    def files(self) -> list[str]:
        """Return the files that may say where something was set: those of the target and of the user's classes."""
        root = self.root
        target = root.target if isinstance(root, Call) else None
        if cpython.is_process(root):
            target = object.__getattribute__(root, "__dict__").get("_target")
        out = []
        code = places.code_of(getattr(target, "func", target) if type(target).__name__ == "partial" else target)
        if code is not None and owner(code.co_filename) == "user":
            out.append(os.path.abspath(code.co_filename))
        for _, obj in self.chain:
            file = places.module_file(_text_attribute(type(obj), "__module__"))
            if file is not None and owner(file) == "user":
                out.append(file)
        return list(dict.fromkeys(out))


# -- without a place -------------------------------------------------------------------------------------------------


def _placeless(error: BaseException, facts: Sequence[str]) -> Finding:
    """Return the honest finding: pickling fails, and the walk cannot say where."""
    code = "SM103" if isinstance(error, (TypeError, AttributeError)) or "ickl" in type(error).__name__ else "SM105"
    notes = [str(note) for note in getattr(error, "__notes__", ())][:8]
    message = f"pickling failed with {_one_line(error)}. The place could not be found."
    fix = "pass plain values, and make what cannot be pickled inside the child"
    return Finding(code, CAUSES[code].name, "cause", "", None, None, message, (*notes, *facts), fix)


def _too_deep(root: object, error: BaseException, found: Walk) -> Finding:
    steps = found.deepest
    path = path_of(root, steps)
    trimmed = _repeating(root, steps)
    message = (
        f"the objects nest {len(steps):,} deep, and pickle recurses once or more for each level: {_one_line(error)}."
    )
    fix = (
        "flatten the chain: pass a list and link the objects again in the child (`__getstate__` can do that), so that "
        "the depth no longer grows with the number of objects; a higher recursion limit only moves the limit"
    )
    facts = (f"sys.getrecursionlimit() is {sys.getrecursionlimit()}",)
    return Finding("SM107", CAUSES["SM107"].name, "cause", trimmed or path, None, None, message, facts, fix)


def _repeating(root: object, steps: Sequence[Step]) -> str | None:
    """Return the path down to where it starts to repeat itself, written twice: ``args[0].nxt.nxt...``."""
    for start in range(min(len(steps), 12)):
        for period in range(1, 5):
            group = list(steps[start : start + period])
            if len(group) == period and all(
                [_shape(s) for s in steps[start + k * period : start + (k + 1) * period]] == [_shape(s) for s in group]
                for k in range(1, 6)
            ):
                end = start + 2 * period
                return path_of(root, steps[:end]) + "..."
    return None


def _shape(step: Step) -> Any:
    return step


# -- closures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cell:
    """A captured variable, and whether it would itself pickle."""

    name: str
    value: Any
    error: BaseException | None
    set: bool
    itself: bool
    detail: str

    def text(self) -> str:
        if not self.set:
            return f"{self.name} = (not set yet)"
        if self.itself:
            return f"{self.name} = (the function itself)"
        verdict = "(pickles)" if self.error is None else f"(does not pickle{self.detail})"
        return f"{self.name} = {kinds.describe(self.value)} {verdict}"

    def advice(self) -> str:
        if kinds.is_testcase(self.value):
            return "pass what the function needs of it as arguments"
        if type(self.value) is types.FunctionType:
            return "move it to module level, too"
        if isinstance(self.value, type):
            return "move the class to module level, too"
        kind = kinds.kind_of(self.value)
        if kind is not None and kind.instead:
            return kind.instead
        return "make it in the child from plain values"


def _cells(func: types.FunctionType, mode: _Mode, obj: object) -> list[_Cell]:
    out = []
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False):
        filled, value = cpython.cell_value(cell)
        if not filled or value is func or value is obj:
            out.append(_Cell(name, value, None, filled, filled, ""))
            continue
        error: BaseException | None
        detail = ""
        if kinds.is_testcase(value):
            error, detail = TypeError("a running TestCase"), ": the running TestCase"
        else:
            error = mode.error_of(value)
            if error is not None:
                detail = _first_leaf(value, mode)
        out.append(_Cell(name, value, error, True, False, detail))
    return out


def _first_leaf(value: object, mode: _Mode) -> str:
    leaves = search(value, mode.task, mode.allow, 20_000).leaves
    if not leaves or not leaves[0].chain:
        return ""
    steps = [step for step, _ in leaves[0].chain]
    return f": its {path_text('', steps).lstrip('.')} is {_leaf_text(leaves[0])}"


def _cells_text(cells: list[_Cell], title: str = "closes over") -> list[str]:
    return [f"{title}: {', '.join(cell.text() for cell in cells)}"] if cells else []


def _wraps_module_function(obj: object, cells: list[_Cell]) -> str | None:
    """Return the variable that holds the function whose name in its module leads to `obj`: a decorator's argument."""
    for cell in cells:
        if callable(cell.value) and cell.set:
            there, other = _look_up(_text_attribute(cell.value, "__module__"), _qualname(cell.value))
            if there and other is obj:
                return cell.name
    return None


def _innermost(obj: Any) -> types.FunctionType | None:
    """Return the Python function behind a wrapper object (`lru_cache`, a method, a staticmethod)."""
    for _ in range(20):
        if type(obj) is types.FunctionType:
            return obj
        if type(obj) in (types.MethodType, staticmethod, classmethod):
            obj = obj.__func__
            continue
        if type(obj) is property:
            obj = obj.fget
            continue
        try:
            obj = object.__getattribute__(obj, "__dict__")["__wrapped__"]
        except Exception:
            return None
    return None


# -- names -----------------------------------------------------------------------------------------------------------


def _qualname(obj: object) -> str:
    for name in ("__qualname__", "__name__"):
        text = _text_attribute(obj, name)
        if text:
            return text
    return type(obj).__name__


def _text_attribute(obj: object, name: str) -> str:
    try:
        value = (type if isinstance(obj, type) else object).__getattribute__(obj, name)
    except Exception:
        return ""
    return value if type(value) is str else ""


def _short(name: str) -> str:
    return name.rpartition("<locals>.")[2] or name


def _enclosing(name: str) -> str:
    """Return the function around a local name, without the ``<locals>`` on the way."""
    return name.rpartition(".<locals>.")[0].replace(".<locals>", "") or "a function"


def _look_up(module: str, name: str) -> tuple[bool, Any]:
    """Return whether `name` exists in `module`, and what it leads to; ``(False, True)`` if the module is not there."""
    if not module:
        return False, None
    if module not in sys.modules:
        return False, True
    value: Any = sys.modules[module]
    for part in name.split("."):
        try:
            namespace = (
                type.__getattribute__(value, "__dict__")
                if isinstance(value, type)
                else object.__getattribute__(value, "__dict__")
            )
        except Exception:
            return False, None
        if part not in namespace:
            return False, None
        value = namespace[part]
    return True, value


def bound_to(obj: object) -> list[str]:
    """Return the module-level names that lead to `obj`, at most three."""
    out: list[str] = []
    for name, module in list(sys.modules.items()):
        try:
            namespace = object.__getattribute__(module, "__dict__")
            for key, value in list(namespace.items()):
                if value is obj and type(key) is str:
                    out.append(f"{name}.{key}")
        except Exception:
            continue
        if len(out) >= 3:
            break
    return out[:3]


def _decorators(definition: places.Definition | None) -> list[str]:
    if definition is None:
        return []
    return [f"decorated at {each.file}:{each.line}: {_source_line(each)}" for each in definition.decorators]


def _where(obj: object) -> str:
    definition = places.class_definition(obj) if isinstance(obj, type) else places.function_definition(obj)
    where = f", defined at {definition.place.file}:{definition.place.line}" if definition else ""
    return kinds.describe(obj) + where


# -- what raised -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Method:
    """The user's code that raised while an object was reduced."""

    name: str
    place: Place
    raised: Place


_NEWARGS = {
    "__getnewargs__": "a tuple of its arguments",
    "__getnewargs_ex__": "a pair, the tuple of its arguments and the dictionary of its keyword arguments",
}
_FACTORIES = {"Synchronized": "Value", "SynchronizedArray": "Array", "SynchronizedString": "Array"}
"""What the user calls to make an object of multiprocessing's classes of other names."""


def _other_file(obj: Any, module: str, name: str) -> str | None:
    """Return the file of the module that has `module`'s name now, if `obj` was defined in another file under it.

    Two ``conftest.py``, or two test files of one name in folders without ``__init__.py``.
    """
    code = obj.__code__ if type(obj) is types.FunctionType else None
    if code is None or code.co_name != name.rpartition(".")[2]:  # a wrapper has only borrowed the name
        return None
    file = places.module_file(module)
    if file is None or not os.path.isfile(file) or not os.path.isfile(code.co_filename):
        return None
    return None if os.path.samefile(file, code.co_filename) else file


def _raising_method(error: BaseException) -> _Method | None:
    """Return the method of the user's (or a library's) that a reduction's exception came out of, if any."""
    entries = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(_HERE) and owner(frame.f_code.co_filename) != "stdlib"
    ]
    if not entries:
        return None
    frame, _ = entries[0]
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    first = types.FunctionType(code, {}, closure=tuple(types.CellType() for _ in code.co_freevars) or None)
    definition = places.function_definition(first)
    file = os.path.abspath(code.co_filename)
    place = definition.place if definition else Place(file, code.co_firstlineno)
    last, last_line = entries[-1]
    return _Method(name, place, Place(os.path.abspath(last.f_code.co_filename), last_line))


def _reduction_method(t: type) -> tuple[str, Any]:
    for cls in type.__dict__["__mro__"].__get__(t)[:-1]:
        for name in ("__reduce_ex__", "__reduce__", "__getnewargs_ex__", "__getnewargs__", "__getstate__"):
            func = type.__getattribute__(cls, "__dict__").get(name)
            if func is not None:
                return name, func
    return "__reduce_ex__", None


def _foreign(error: BaseException) -> bool:
    """Return whether multiprocessing itself refused an object: made by a fork context, or not shared by inheritance."""
    if not isinstance(error, (RuntimeError, ValueError)):
        return False
    text = str(error)
    return "fork context" in text or "through inheritance" in text or "forking was enabled" in text


def _fixture_name(obj: object) -> str | None:
    """Return the name that a test knows one of pytest's objects by."""
    held = dict(attributes(obj))
    request = held.get("request", obj)
    fixture = dict(attributes(request)).get("_fixturedef")
    name = dict(attributes(fixture)).get("argname") if fixture is not None else None
    if type(name) is str and name != "request" and request is not obj:
        return name
    return "request" if type(obj).__name__.endswith("Request") else None


# -- text ------------------------------------------------------------------------------------------------------------


def _leaf_text(leaf: Leaf) -> str:
    """Return what a leaf is, in a few words."""
    obj = leaf.obj
    if leaf.kind == "name":
        what = "a class" if isinstance(obj, type) else "a function"
        name = _qualname(obj)
        return f"{what} that cannot be imported, {name}"
    return _noun(obj)


def _noun(obj: object) -> str:
    """Return what an object is: its kind, and its type unless the kind says it."""
    kind, name = kinds.kind_of(obj), _type_text(obj)
    if kind is None:
        return f"{_a(name)} object"
    return kind.noun if name in kind.noun else f"{kind.noun} ({name})"


def _type_text(obj: object) -> str:
    return kinds.type_name(type(obj))


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _one_line(error: BaseException) -> str:
    try:
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    except Exception:
        text = ""
    name = type(error).__name__
    text = text if len(text) <= 200 else text[:190] + "..."
    return (f"{name}: {text}" if text else name).rstrip(".")


def _source_line(place: Place) -> str:
    import linecache

    text = linecache.getline(place.file, place.line).strip()
    return text if len(text) <= 100 else text[:97] + "..."


def _and(names: Sequence[str]) -> str:
    return _and_plain([f"`{name}`" for name in names])


def _and_plain(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
