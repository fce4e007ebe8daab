"""SM103, SM105, SM106: objects tied to their process, and reductions that fail."""

from __future__ import annotations

import os
import traceback
import types
from dataclasses import dataclass

from ..model.finding import Finding
from ..model.place import Place
from ..model.walk import path_text
from ..pickling.walk import attributes
from ..source import kinds, places
from ..source.callers import owner
from .naming import bound_to, text_attribute
from .pickling_search import path_of, search
from .pickling_subject import Subject, leaf_text, noun_of, one_line

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def unpicklable(subject: Subject) -> Finding:
    """Report an object that cannot be sent to another process (SM103)."""
    kind = kinds.kind_of(subject.obj)
    error = one_line(subject.leaf.error)
    message = f"`{subject.name()}` is {noun_of(subject.obj)}, which cannot be shared with another process: {error}."
    place, evidence = subject.set_at()
    return subject.make("SM103", place, message, evidence, keep_out(subject, kind, place))


def resource(subject: Subject) -> Finding:
    """Report a resource that contains leaves, or an object that is judged as a whole."""
    kind = kinds.kind_of(subject.obj)
    inner = [(leaf, at) for leaf, at in subject.group if len(leaf.chain) > at + 1]
    place, evidence = subject.set_at()
    if kinds.is_testcase(subject.obj):
        return testcase(subject)
    module = text_attribute(type(subject.obj), "__module__")
    shared = module.startswith("multiprocessing.") and module != "multiprocessing.pool"  # an AsyncResult holds its pool
    if shared and any(is_foreign(leaf.error) for leaf, _ in inner):
        return foreign_primitive(subject)
    fixture = _fixture_name(subject.obj) if kind is kinds.FIXTURE else None
    noun = noun_of(subject.obj) if fixture is None else f"the fixture `{fixture}`, {noun_of(subject.obj)}"
    message = f"`{subject.name()}` is {noun}, which belongs to this process and cannot be pickled."
    because = subject.because(inner) if kind is not kinds.FIXTURE else []
    bound = bound_to(subject.obj) if kind is kinds.MOCK else []  # names the patched attribute
    evidence = [*evidence, *([f"bound to: {', '.join(bound)}"] if bound else [])]
    return subject.make("SM103", place, message, [*evidence, *because], keep_out(subject, kind, place))


def testcase(subject: Subject) -> Finding:
    """Report the running TestCase, or one of its methods."""
    case = subject.obj
    cls = kinds.type_name(type(case))
    kind = kinds.kind_of(case)
    path, name = subject.path, "self"
    place: Place | None = None
    method = subject.chain[-2][1] if len(subject.chain) > 1 else None
    if type(method) is types.MethodType and subject.steps[-1] == ("attribute", "__self__"):
        name = f"self.{method.__name__}"
        path = path_of(subject.root, subject.steps[:-1])
        definition = places.function_definition(method)
        place = definition.place if definition else None
        message = (
            f"`{name}` is a method of the running TestCase `{cls}`: pickling it means pickling `self`, and with "
            f"it the test runner's own objects."
        )
    else:
        message = (
            f"`{subject.name()}` is the running TestCase `{cls}`: pickling it means pickling the test runner's "
            f"own objects."
        )
        definition = places.class_definition(type(case))
        place = definition.place if definition else None
    evidence = []
    hidden = ("_outcome", "_cleanups", "_subtest", "_type_equality_funcs", "_testcase")
    mine = {k: v for k, v in attributes(case) if k not in hidden}
    for leaf in search(mine, subject.mode.task, subject.mode.allow, 100_000).leaves[:4]:
        if leaf.obj is case:  # pytest stores the test's own method in the instance
            continue
        steps = [step for step, _ in leaf.chain]
        where = path_text("", [("attribute", steps[0][1]), *steps[1:]]) if steps else ""
        evidence.append(f"also: self{where} is {leaf_text(leaf)}")
    return subject.make("SM103", place, message, evidence, kind.instead if kind else "", path)


def keep_out(subject: Subject, kind: kinds.Kind | None, place: Place | None) -> str:
    """Return the fix for an object that cannot be sent: by its kind, and through its owner's ``__getstate__``."""
    instead = kind.instead if kind and kind.instead else ""
    if not instead:
        instead = (
            f"re-create the {kinds.type_name(type(subject.obj)).rpartition('.')[2]} in the child from plain values"
        )
    held = subject.holder(place)
    if held is None or kind is kinds.MOCK:
        return instead
    class_, attribute = held
    return (
        f"{instead}; or leave `{attribute}` out of what `{class_}.__getstate__` returns and re-create it in "
        f"`__setstate__`"
    )


def raised_by(subject: Subject, method: _Method) -> Finding:
    """Report a pickling method that raised (SM105)."""
    error = subject.leaf.error
    cls = kinds.type_name(type(subject.obj))
    name = method.name if "." in method.name else f"{cls}.{method.name}"
    name = name.rpartition("<locals>.")[2]
    message = f"`{name}` raised {one_line(error)} while `{subject.name()}` was being pickled."
    evidence = [f"raised at {method.raised.file}:{method.raised.line}: {method.raised.source}"]
    place, _ = subject.set_at()
    if place is not None:
        evidence.append(f"`{subject.name()}` is set at {place.file}:{place.line}")
    return subject.make("SM105", method.place, message, evidence, raised_fix(subject, name))


def raised_fix(subject: Subject, name: str) -> str:
    """Return the fix for a pickling method that raised."""
    error = subject.leaf.error
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


def invalid_reduction(subject: Subject) -> Finding:
    """Report a pickling method with an invalid return value."""
    t = type(subject.obj)
    name, func = reduction_method(t)
    definition = places.function_definition(func) if func is not None else None
    cls = kinds.type_name(t)
    message = f"`{cls}.{name}` returned something that is no reduction: {one_line(subject.leaf.error)}."
    place = definition.place if definition else None
    if isinstance(subject.leaf.error, RecursionError):
        message = (
            f"`{cls}.{name}` returns arguments with the object itself in them: to make them, a child would need "
            f"the object first. {one_line(subject.leaf.error)}."
        )
        fix = (
            f"return the object's own parts from `{cls}.{name}`; what leads back to the object belongs into the "
            f"state, the third element, which ends the recursion"
        )
        return subject.make("SM107", place, message, [], fix)
    if "__getnewargs" in name:
        fix = f"return what `{cls}.__new__` takes from `{cls}.{name}`: {_NEWARGS[name]}"
        return subject.make("SM105", place, message, [], fix)
    fix = (
        f"return a string or a tuple of two to six elements from `{cls}.{name}`: a callable, the tuple of its "
        f"arguments, then the state"
    )
    return subject.make("SM105", place, message, [], fix)


def foreign_primitive(subject: Subject) -> Finding:
    """Report a primitive that a fork context made, or that was not sent by starting a process (SM106)."""
    leaf = next((each for each, _ in subject.group if is_foreign(each.error)), subject.leaf)
    kind = kinds.kind_of(subject.obj)
    noun = kind.noun if kind else "shared memory"
    what = _FACTORIES.get(type(subject.obj).__name__, type(subject.obj).__name__)
    place, evidence = subject.set_at()
    inner = [(each, at) for each, at in subject.group if len(each.chain) > at + 1]
    if inner:
        evidence += subject.because(inner)
    made_by_fork = "fork context" in str(leaf.error)
    if made_by_fork:
        message = (
            f"`{subject.name()}` is {noun} ({what}) that a fork context made, and only a forked child can have "
            f"it, not one started with {subject.mode.method}."
        )
        fix = (
            f"make it with the same context as the process: ctx = multiprocessing.get_context"
            f"({subject.mode.method!r}), then ctx.{what}() and ctx.Process(...)"
        )
    else:
        message = f"`{subject.name()}` is {noun} ({what}) inside a task or message: {one_line(leaf.error)}."
        fix = (
            f"let the workers inherit the {what}: pass it in the args of the Process, or to the pool as "
            f"initializer=..., initargs=(...,); or use Manager().{what}(), whose proxies can be sent"
        )
    return subject.make("SM106", place, message, evidence, fix)


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
"""The public factories of multiprocessing classes with a different name."""


def raising_method(error: BaseException) -> _Method | None:
    """Return the method of the user's or a library's code that raised during reduction, or None."""
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


def reduction_method(t: type) -> tuple[str, object]:
    """Return name and function of the pickling method that a class defines."""
    for cls in type.__dict__["__mro__"].__get__(t)[:-1]:
        for name in ("__reduce_ex__", "__reduce__", "__getnewargs_ex__", "__getnewargs__", "__getstate__"):
            func = type.__getattribute__(cls, "__dict__").get(name)
            if func is not None:
                return name, func
    return "__reduce_ex__", None


def class_attribute(cls: type, *names: str) -> object:
    """Return the first of the named attributes that a user's class or its bases define, or None."""
    for each in type.__dict__["__mro__"].__get__(cls)[:-1]:
        for name in names:
            if name in type.__getattribute__(each, "__dict__"):
                return type.__getattribute__(each, "__dict__")[name]
    return None


def is_foreign(error: BaseException) -> bool:
    """Return whether multiprocessing refused an object: made by a fork context, or not shared by inheritance."""
    if not isinstance(error, (RuntimeError, ValueError)):
        return False
    text = str(error)
    return "fork context" in text or "through inheritance" in text or "forking was enabled" in text


def _fixture_name(obj: object) -> str | None:
    """Return the fixture name by which a test requests one of pytest's objects, or None."""
    held = dict(attributes(obj))
    request = held.get("request", obj)
    fixture = dict(attributes(request)).get("_fixturedef")
    name = dict(attributes(fixture)).get("argname") if fixture is not None else None
    if type(name) is str and name != "request" and request is not obj:
        return name
    return "request" if type(obj).__name__.endswith("Request") else None
