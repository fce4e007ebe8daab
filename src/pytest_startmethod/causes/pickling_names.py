"""SM101, SM102, SM104: functions and classes that a child cannot import by name."""

from __future__ import annotations

import sys
import types

from ..model.finding import Finding
from ..source import kinds, places
from .closures import Cell, cells_of, cells_text, innermost, wrapped_variable
from .naming import (
    bound_to,
    decorators,
    enclosing,
    joined,
    listed,
    look_up,
    other_file,
    qualname,
    short,
    text_attribute,
    where_defined,
)
from .pickling_objects import class_attribute, unpicklable
from .pickling_subject import Subject


def by_name(subject: Subject) -> Finding:
    """Report a function (or look-alike) that pickle cannot find under its own name."""
    obj = subject.obj
    name, module = subject.leaf.name or qualname(obj), text_attribute(obj, "__module__")
    definition = places.function_definition(obj)
    if definition is None and subject.leaf.name is not None and kinds.is_users(type(obj)):
        # the name came from its own __reduce__
        definition = places.function_definition(class_attribute(type(obj), "__reduce_ex__", "__reduce__"))
    bound = bound_to(obj)
    code = places.code_of(places.users_function(obj))
    lambda_ = code is not None and code.co_name == "<lambda>"
    evidence = decorators(definition)
    if "<locals>" not in name and not lambda_ and not all(map(str.isidentifier, name.split("."))):
        return unpicklable(subject)  # a ufunc, whose name is not an identifier
    if "<locals>" not in name and not lambda_:
        return shadowed(subject, obj, name, module, definition, bound, evidence)
    func = innermost(places.users_function(obj))
    cells = cells_of(func, subject.mode, obj) if func is not None else []
    maker = enclosing(name)
    if lambda_:
        message = f"`{subject.name()}` is a lambda, which has no importable name, so a child cannot find it."
    else:
        message = f"`{short(name)}` is defined inside `{maker}`, so there is no name that a child could import it by."
    evidence += cells_text(cells)
    wrapped = wrapped_variable(obj, cells)
    if bound:
        evidence.append(f"bound to: {', '.join(bound)}")
    if func is not None and lambda_:
        reads = [n for n in places.names_read(func) if type(func.__globals__[n]) is not types.ModuleType]
        if reads:
            evidence.append(f"reads globals: {', '.join(reads[:12])}")
    fix = hoist(subject, name, maker, lambda_, cells, wrapped, bound)
    if definition is not None and definition.decorators and wrapped is None:
        fix = (
            f"define `{short(name)}` at module level without its decorator, under a name of its own, and decorate that "
            f"one: where the decorator returns another function, the decorated name does not lead back to this one"
        )
    if code is not None and code.co_filename.startswith("<"):
        evidence.append(f"made at run time, in {code.co_filename}: it has no source file")
    return subject.make("SM101", definition.place if definition else None, message, evidence, fix)


def hoist(
    subject: Subject, name: str, maker: str, lambda_: bool, cells: list[Cell], wrapped: str | None, bound: list[str]
) -> str:
    """Return how to give a local function a name that a child can import."""
    own = short(name)
    if subject.path.startswith("process.") and len(subject.steps) == 1:
        attribute = subject.path.removeprefix("process.")
        return (
            f"do not set `{attribute}` on the process object, whose attributes are pickled with it: define it in a "
            f"subclass of Process at module level, or wrap the call"
        )
    if wrapped is not None:
        return (
            f"put @functools.wraps({wrapped}) on `{own}` in `{maker}`: it then carries the name of the "
            f"function that it wraps, and a child finds it by that"
        )
    if lambda_:
        text = "replace the lambda by a function defined with `def` at module level"
    else:
        text = f"move `{own}` out of `{maker}` to module level"
    good = [c.name for c in cells if c.error is None and not c.itself and not subject.passes(c.value)]
    bad = [c for c in cells if c.error is not None and not c.itself]
    if good:
        text += f", and pass {listed(good)} as {'arguments' if len(good) > 1 else 'an argument'}"
    for cell in bad:
        text += f"; `{cell.name}` does not pickle either: {cell.advice()}"
    if bound:
        text += (
            f"; if `{bound[0]}` was patched for the test, patch it in the child instead: a patch does not reach a child"
        )
    return text


def shadowed(
    subject: Subject,
    obj: object,
    name: str,
    module: str,
    definition: places.Definition | None,
    bound: list[str],
    evidence: list[str],
) -> Finding:
    """Report a module-level name that does not lead back to the object (SM104)."""
    place = definition.place if definition else places.named_place(module, name)
    there, other = look_up(module, name)
    evidence = list(evidence)
    full = f"{module}.{name}" if module else name
    now = other_file(obj, module, name)
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
        rebound = places.module_rebindings(place.file, name, place.line) if place and "." not in name else []
        evidence += [f"rebound at {each}: {each.source}" for each in rebound[-3:]]
        evidence += [f"`{full}` is now {where_defined(other)}"] if not rebound else []
        fix = _of_its_own(subject, name, other, evidence)
    elif there:
        message = f"the name `{full}` leads to another object, {kinds.describe(other)}."
        fix = f"pass the same object that `{full}` is bound to, or give this one a name of its own in its module"
    elif module and module not in sys.modules:
        message = f"it says that it comes from module `{module}`, which cannot be imported here."
        fix = f"define `{short(name)}` in a module that can be imported, and set __module__ to that"
    elif bound:
        message = f"it says that its name is `{full}`, but it is bound to {joined(bound)}."
        fix = (
            f"give it the same name that it is bound to, `{bound[0].rpartition('.')[2]}` "
            f"(__name__ and __qualname__, or the name in its definition)"
        )
    else:
        message = f"it says that its name is `{full}`, and there is no such name."
        fix = f"move `{short(name)}` to module level and keep it bound to that name: a child looks it up as `{full}`"
    if bound and (now is not None or there or (module and module not in sys.modules)):
        evidence.append(f"bound to: {', '.join(bound)}")
    return subject.make("SM104", place, message, evidence, fix)


def _of_its_own(subject: Subject, name: str, other: object, evidence: list[str]) -> str:
    """Return the fix for a function whose name leads to `other`."""
    if any(held is other for _, held in subject.chain):  # `other` is the wrapper that was passed
        return (
            f"`{short(name)}` is itself what holds the function: give `{type(other).__name__}` a __reduce__ that "
            f"returns its name, {name!r}, or keep the function under a name of its own and wrap that one"
        )
    decorated = any("decorated" in each or "rebound" in each for each in evidence)
    how = "is replaced by a decorator or a later assignment" if decorated else "is bound to something else"
    return (
        f"pass the object that the name leads to (`{short(name)}`), or keep this function under a name of "
        f"its own: `{short(name)}` {how}, and pickle wants the same object there"
    )


def local_class(subject: Subject) -> Finding:
    """Report a class, or an instance of one, that a child cannot import."""
    cls: type = subject.obj
    name, module = qualname(cls), text_attribute(cls, "__module__")
    definition = places.class_definition(cls)
    evidence = decorators(definition)
    bound = bound_to(cls)
    instance = len(subject.chain) > 1 and subject.steps[-1] == ("attribute", "__class__")
    what = "this object's class" if instance or not subject.steps else "this class"
    if "<locals>" in name:
        return class_in_function(subject, cls, name, definition, evidence, what)
    there, other = look_up(module, name)
    if not there and not bound:
        if other is not None:
            return shadowed(subject, cls, name, module, definition, bound, evidence)
        message = f"{what}, `{short(name)}`, was made at run time and no name in module `{module}` leads to it."
        fix = (
            f"move the definition of `{short(name)}` to module level, bound to that same name, "
            f"so that a child can import it"
        )
        return subject.make("SM102", definition.place if definition else None, message, evidence, fix)
    if not there:
        message = (
            f"{what} says that its name is `{short(name)}`, but it is bound to {joined(bound)}: a child "
            f"looks for `{module}.{name}`, which does not exist."
        )
        mine = bound[0].rpartition(".")[2]
        fix = (
            f"give the type the same name that it is bound to (rename one of them): "
            f"the typename in its definition must be {mine!r}"
        )
    else:
        message = f"{what} is not the one that `{module}.{name}` leads to: {kinds.describe(other)} took its place."
        evidence += [f"`{module}.{name}` is now {where_defined(other)}"]
        fix = (
            "make the object from the class that its name leads to now: this one was replaced, by a decorator "
            "that returns a new class, a reload, or a later definition of the same name"
        )
    return subject.make("SM104", definition.place if definition else None, message, evidence, fix)


def class_in_function(
    subject: Subject, cls: type, name: str, definition: places.Definition | None, evidence: list[str], what: str
) -> Finding:
    """Report a class that is defined inside a function (SM102)."""
    maker = enclosing(name)
    message = f"{what}, `{short(name)}`, is defined inside `{maker}`, so a child cannot import it."
    cells: dict[str, Cell] = {}
    for value in list(type.__getattribute__(cls, "__dict__").values()):
        func = innermost(value)
        if func is None or not func.__qualname__.startswith(f"{name}.") or func.__code__.co_name != func.__name__:
            continue  # assigned from outside, or wrapped by a decorator
        for cell in cells_of(func, subject.mode, value):
            if cell.name != "__class__" and cell.value is not cls:
                cells.setdefault(cell.name, cell)
    evidence = [*evidence, *cells_text(list(cells.values()), "its methods close over")]
    fix = f"move the class `{short(name)}` out of `{maker}` to module level"
    good = [c.name for c in cells.values() if c.error is None]
    if good:
        fix += f", and give it {listed(good)} as {'arguments' if len(good) > 1 else 'an argument'}"
    for cell in cells.values():
        if cell.error is not None:
            fix += f"; `{cell.name}` does not pickle either: {cell.advice()}"
    return subject.make("SM102", definition.place if definition else None, message, evidence, fix)
