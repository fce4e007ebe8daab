"""Places in the user's source: definitions of functions and classes, and where attributes and names were set."""

from __future__ import annotations

import ast
import builtins
import os
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from os.path import abspath
from typing import Any

from .._compat import cpython
from ..child.values import instance_namespace, mro
from ..model.place import Place
from .callers import frames, owner, user_files
from .index import FUNCTIONS, Store, last_name, source_of, with_text


@dataclass(frozen=True, slots=True)
class Definition:
    """Where a function or class is defined."""

    place: Place
    """The line of ``def``, ``class`` or ``lambda``."""
    decorators: tuple[Place, ...] = ()
    """The lines of its decorators, outermost first."""


# -- definitions -----------------------------------------------------------------------------------------------------


def function_definition(func: object) -> Definition | None:
    """Return the definition of `func`, or of what it wraps if it has no code of its own."""
    code = code_of(users_function(func))
    return None if code is None else _code_definition(code)


def _code_definition(code: types.CodeType) -> Definition | None:
    if code.co_filename.startswith("<"):
        return None
    file, first = abspath(code.co_filename), code.co_firstlineno
    name = getattr(code, "co_qualname", code.co_name)
    node = _node_of(code)
    if node is None or isinstance(node, ast.Lambda):
        return Definition(Place(file, first, name))
    decorators = tuple(Place(file, each.lineno, name) for each in node.decorator_list)
    return Definition(Place(file, node.lineno, name), decorators)


def users_function(func: object) -> object:
    """Return the user's function behind a library's decorator (``functools.wraps``), else `func` itself."""
    inner = func
    for _ in range(20):
        code = code_of(inner)
        if code is not None and owner(code.co_filename) == "user":
            return inner
        try:
            inner = object.__getattribute__(inner, "__dict__")["__wrapped__"]
        except Exception:
            return func
    return func


def maker_of(obj: object) -> Definition | None:
    """Return the definition of the function of a generator, coroutine, frame or code object."""
    code = obj
    for name in ("gi_code", "cr_code", "ag_code", "f_code"):
        with suppress(Exception):
            code = object.__getattribute__(obj, name)
    return _code_definition(code) if type(code) is types.CodeType else None


def code_of(func: Any) -> types.CodeType | None:
    """Return the code of a function, a method, or a function behind a C wrapper (`lru_cache`)."""
    for _ in range(20):
        if type(func) is types.FunctionType:
            return func.__code__
        if type(func) in (types.MethodType, staticmethod, classmethod):
            func = func.__func__
            continue
        try:
            func = object.__getattribute__(func, "__dict__")["__wrapped__"]
        except Exception:
            return None
    return None


def class_definition(cls: type) -> Definition | None:
    """Return the definition of `cls`, found by its qualified name and methods, or by the call that named it."""
    namespace = type.__getattribute__(cls, "__dict__")
    codes = [code for value in namespace.values() if (code := code_of(value)) is not None]
    codes = [code for code in codes if not code.co_filename.startswith("<")]
    files = [abspath(code.co_filename) for code in codes]
    module = sys.modules.get(_text(cls, "__module__"))
    own = getattr(module, "__dict__", {}).get("__file__")
    for file in dict.fromkeys([*([own] if isinstance(own, str) else []), *files]):
        found = _class_in(file, cls, codes)
        if found is not None:
            return found
    if not (isinstance(own, str) and owner(own) == "user"):  # a library made it: make_dataclass, up to 3.11
        name = _text(cls, "__name__")
        sources = with_text([*running_files(), *user_files()], name)
        made = {Place(s.file, line, name) for s in sources for each, _, line in s.index.named if each == name}
        if len(made) == 1:
            return Definition(made.pop())
    return None


def _class_in(file: str, cls: type, codes: list[types.CodeType]) -> Definition | None:
    index = source_of(file).index
    qualname = _text(cls, "__qualname__")
    matches = [node for node, name in index.classes if name == qualname]
    firsts = {code.co_firstlineno for code in codes if abspath(code.co_filename) == file}
    stated = type.__getattribute__(cls, "__dict__").get("__firstlineno__")  # 3.13
    for node in matches:
        start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        if stated in (start, node.lineno) or any(start <= line <= (node.end_lineno or 0) for line in firsts):
            matches = [node]
            break
    if matches:
        # Of several definitions of one name, the last one is bound to it.
        held = getattr(sys.modules.get(_text(cls, "__module__")), "__dict__", {})
        node = matches[-1 if held.get(qualname) is cls else 0]
        decorators = tuple(Place(file, each.lineno, qualname) for each in node.decorator_list)
        return Definition(Place(file, node.lineno, qualname), decorators)
    name = _text(cls, "__name__")
    lines = [line for made, _, line in index.named if made == name]
    return Definition(Place(file, lines[0], name)) if lines else None


def _text(cls: type, name: str) -> str:
    try:
        value = type.__getattribute__(cls, name)
    except Exception:
        return ""
    return value if isinstance(value, str) else ""


def named_place(module: str, name: str) -> Place | None:
    """Return where a module creates an object by a call with its `name`: ``NewType("name", int)``."""
    file = module_file(module)
    named = source_of(file).index.named if file is not None else []
    lines = [line for made, variable, line in named if made == name and variable]
    return Place(str(file), lines[0]) if len(lines) == 1 else None


def module_rebindings(file: str, name: str, after: int) -> list[Place]:
    """Return where the module in `file` rebinds `name` below line `after`."""
    return [Place(file, line) for bound, line in source_of(file).index.bound if bound == name and line > after]


# -- where something was set -----------------------------------------------------------------------------------------


def attribute_places(obj: object, attribute: str, value: object, extra: Iterable[str] = ()) -> list[Place]:
    """Return where `obj`'s `attribute` was set to `value`; several places if the source is not conclusive.

    Searches the files of its classes, of running functions, and `extra`. An assignment to ``self`` in one of its
    classes comes first, then one to a variable that holds an instance. Code that also sets attributes which the
    object does not have is about another object.
    """
    classes_of = mro(type(obj))
    classes = {_text(cls, "__name__"): cls for cls in classes_of[:-1]}
    own = set(instance_namespace(obj))
    ranked: dict[int, list[Store]] = {}
    everything: list[Store] = []
    files = [f for cls in classes_of[:-1] if (f := module_file(_text(cls, "__module__")))]
    for source in with_text([*files, *extra, *running_files(), *user_files()], attribute):
        everything += source.index.stores
        for store in source.index.stores:
            if store.attribute != attribute or _plainly_other(store.value, value):
                continue
            rank = _rank(store, set(classes), source.file in files)
            if rank is not None and not (store.kind in ("other", "call") and _means_another(store, classes)):
                ranked.setdefault(rank, []).append(store)
    for rank in sorted(ranked):
        stores = [
            store
            for store in ranked[rank]
            if store.kind != "other" or all(each.attribute in own for each in _with(store, everything))
        ]
        if stores:
            kept = _best(stores, everything, own, value)
            return list(dict.fromkeys(store.place for store in kept))
    for cls in classes_of[:-1]:  # a cached_property sets the result of its function
        maker = type.__getattribute__(cls, "__dict__").get(attribute)
        definition = function_definition(getattr(maker, "func", None)) if maker is not None else None
        if definition is not None:
            return [definition.place]
    return []


def _rank(store: Store, classes: set[str], own_file: bool) -> int | None:
    if store.kind == "self":
        return 0 if store.owner in classes and own_file else None
    if store.kind == "call":
        return 1 if store.owner in classes else None
    if store.kind == "field":
        if store.owner not in classes or not own_file:
            return None
        return 0 if store.value is not None else 3
    if store.owner in classes:
        return 1
    return 2 if store.owner is None and store.receiver else None


def _means_another(store: Store, classes: dict[str, type]) -> bool:
    """Return whether the class's name refers to another class in the module of the source."""
    cls = classes.get(store.owner or "")
    if cls is None:
        return False
    for module in list(sys.modules.values()):
        namespace = getattr(module, "__dict__", None)
        if type(namespace) is dict and namespace.get("__file__") == store.place.file:
            meant = namespace.get(store.owner, vars(builtins).get(store.owner or ""))
            if meant is cls or namespace.get("__name__") == _text(cls, "__module__"):
                return False
            held = [each.__dict__ for each in list(namespace.values()) if type(each) is types.ModuleType]
            return not any(each.get(store.owner or "") is cls for each in held)  # types.SimpleNamespace(...)
    return False


def _plainly_other(node: ast.expr | None, value: object) -> bool:
    """Return whether the source sets a constant or literal that cannot be `value`."""
    if isinstance(node, ast.Constant):
        return type(node.value) is not type(value)
    for kind, t in ((ast.List, list), (ast.Dict, dict), (ast.Set, set), (ast.Tuple, tuple)):
        if isinstance(node, kind):
            return not isinstance(value, t)
    if isinstance(node, ast.Lambda):
        return type(value) is not types.FunctionType
    return False


def _with(store: Store, everything: list[Store]) -> list[Store]:
    """Return all that the same function sets on the same variable."""
    here = (store.place.file, store.place.function, store.receiver, store.kind)
    return [s for s in everything if (s.place.file, s.place.function, s.receiver, s.kind) == here]


def _best(stores: list[Store], everything: list[Store], own: set[str], value: object) -> list[Store]:
    """Order by likelihood: running code, a call of the value's type, code that sets more of the object's attributes."""
    running = running_functions()

    def key(store: Store) -> tuple[bool, bool, int]:
        function = (store.place.file, store.place.function)
        called = (last_name(store.value.func) or "") if isinstance(store.value, ast.Call) else ""
        fits = called.strip("_").lower() == type(value).__name__.strip("_").lower()
        also = len({s.attribute for s in _with(store, everything)} & own) if store.kind == "other" else 0
        return function not in running, not fits, -also

    ordered = sorted(stores, key=key)
    if ordered[0].kind == "other" and key(ordered[0]) < key(ordered[-1]):
        best = key(ordered[0])
        ordered = [store for store in ordered if key(store) == best]
    return ordered


def item_places(held: object, key: object, value: object, extra: Iterable[str] = ()) -> list[Place]:
    """Return where running code, or `extra`, stores `value` under the constant `key` of the dictionary `held`.

    Code that also sets keys which the dictionary does not have is about another one; the most keys win.
    """
    text = repr(key)
    keys = {repr(each) for each in held if type(each) in (str, int, bytes)} if isinstance(held, dict) else {text}
    running = running_functions()
    found: list[tuple[bool, int, Place]] = []
    for file in dict.fromkeys([*running_files(), *extra]):
        for item in source_of(file).index.items:
            if item.key == text and item.keys <= keys and not _plainly_other(item.value, value):
                place = item.place
                found.append(((file, place.function) in running, len(item.keys), place))
    best = max((each[:2] for each in found), default=None)
    return [place for *rank, place in found if tuple(rank) == best]


def names_in_callers(value: object) -> list[tuple[str, Place]]:
    """Return the local variables of running user functions that hold `value`, with the places that bound them."""
    found: list[tuple[str, Place]] = []
    for frame in _user_frames():
        if len(found) > 3:
            break
        for name, held in cpython.local_variables(frame).items():
            if held is value and name.isidentifier():
                place = _binding(frame.f_code, name, frame.f_lineno)
                if place is not None:
                    found.append((name, place))
    return found


def _binding(code: types.CodeType, name: str, before: int) -> Place | None:
    if code.co_name == "<module>":
        file = abspath(code.co_filename)
        lines = [line for each, line in source_of(file).index.bound if each == name and line <= before]
        return Place(file, lines[-1]) if lines else None
    node = _node_of(code)
    if node is None:
        return None
    lines = _stores_in(node, name)
    lines = [line for line in lines if line <= before] or lines
    return Place(abspath(code.co_filename), lines[-1], code.co_name) if lines else None


def _node_of(code: types.CodeType) -> Any:
    return next((node for node, _ in _functions_of(code)), None)


def _functions_of(code: types.CodeType) -> Iterator[tuple[Any, str]]:
    """Yield node and qualified name of the functions in the source that may be those of `code`."""
    for node, qualname in source_of(abspath(code.co_filename)).index.functions_at(code.co_firstlineno):
        if getattr(node, "name", "<lambda>") == code.co_name:
            yield node, qualname


def _stores_in(function: Any, name: str) -> list[int]:
    """Return the lines on which a function's own statements bind `name`."""
    lines: list[int] = []
    body = function.body if isinstance(function.body, list) else [function.body]
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            if getattr(node, "name", None) == name:
                lines.append(node.lineno)
            continue
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            lines.append(node.lineno)
        todo.extend(ast.iter_child_nodes(node))
    return sorted(lines)


def names_read(func: types.FunctionType) -> list[str]:
    """Return the module globals read by `func` and the functions inside it, in order."""
    import dis

    names: dict[str, None] = {}
    todo = [func.__code__]
    while todo:
        code = todo.pop(0)
        for each in dis.get_instructions(code):
            if each.opname in ("LOAD_GLOBAL", "LOAD_NAME") and isinstance(each.argval, str):
                names[each.argval] = None
        todo += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [name for name in names if name in func.__globals__]


# -- files -----------------------------------------------------------------------------------------------------------


def module_file(name: str) -> str | None:
    """Return the source file of an imported module."""
    module = sys.modules.get(name)
    try:
        file = object.__getattribute__(module, "__dict__").get("__file__")
    except Exception:
        return None
    return file if isinstance(file, str) and file.endswith(".py") else None


def module_source(name: str) -> str | None:
    """Return the source file of a module, imported or to be found on ``sys.path``; imports nothing."""
    parts = name.split(".")
    for folder in sys.path:
        for tail in (f"{parts[-1]}.py", os.path.join(parts[-1], "__init__.py")):
            path = os.path.join(folder, *parts[:-1], tail)
            if os.path.isfile(path):
                return abspath(path)
    return module_file(name)


def _user_frames() -> Iterator[types.FrameType]:
    count = 0
    for frame in frames(sys._getframe(1)):
        if owner(frame.f_code.co_filename) == "user":
            yield frame
            count += 1
            if count >= 20:
                return


def running_files() -> list[str]:
    """Return the user's files whose functions are running."""
    return list(dict.fromkeys(abspath(frame.f_code.co_filename) for frame in _user_frames()))


def running_functions() -> set[tuple[str, str]]:
    """Return the user's functions that are running: file and qualified name."""
    return {
        (abspath(frame.f_code.co_filename), next((name for _, name in _functions_of(frame.f_code)), ""))
        for frame in _user_frames()
    }
