"""Where the user's source says it: a function's or class's definition, and where an attribute or name was set."""

from __future__ import annotations

import ast
import builtins
import functools
import linecache
import os
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .._compat import cpython
from ..child.values import instance_namespace
from ..model.place import Place
from .callers import frames, owner, user_files

__all__ = [
    "Definition",
    "Place",
    "attribute_places",
    "class_definition",
    "function_definition",
    "item_places",
    "module_rebindings",
    "name_places",
    "named_place",
    "names_in_callers",
    "names_read",
    "users_function",
]

_Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MAX_FILES = 300


@dataclass(frozen=True, slots=True)
class Definition:
    """Where a function or class is defined."""

    place: Place
    """The line of ``def``, ``class`` or ``lambda``."""
    decorators: tuple[Place, ...] = ()
    """The lines of its decorators, outermost first."""


@dataclass(frozen=True, slots=True)
class _Store:
    """One place where the source sets an attribute."""

    place: Place
    attribute: str
    receiver: str
    kind: str
    """``self`` in a method of `owner`, ``other`` of a variable, ``call`` as a keyword, ``field`` in a class body."""
    owner: str | None
    """The name of the class it is set on, as far as the source tells."""
    value: ast.expr | None


@dataclass(slots=True)
class _Source:
    """One file's syntax, indexed."""

    file: str
    functions: list[tuple[Any, str, tuple[Any, ...]]] = field(default_factory=list)
    """Each function: node, qualified name, functions around it, innermost first."""
    classes: list[tuple[ast.ClassDef, str]] = field(default_factory=list)
    stores: list[_Store] = field(default_factory=list)
    items: list[tuple[str, Place, frozenset[str], ast.expr | None]] = field(default_factory=list)
    """Where ``x["k"] = ...``, ``{"k": ...}`` or ``dict(k=...)`` give a constant key a value: the key, the place, all
    keys given there, the value."""
    named: list[tuple[str, str, int]] = field(default_factory=list)
    """Types made by a call that is given their name: the name, the variable, the line."""
    rebound: list[tuple[str, int]] = field(default_factory=list)
    """Names that the module's own level binds, and where."""


@functools.lru_cache(maxsize=256)
def _parsed(file: str, _stamp: int) -> _Source | None:
    lines = linecache.getlines(file)
    if not lines:
        return None
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    source = _Source(file)
    try:
        _Indexer(source).body(tree.body, (), (), {}, None)
    except RecursionError:
        return None
    return source


def _source(file: str) -> _Source | None:
    try:
        stamp = os.stat(file).st_mtime_ns
        linecache.checkcache(file)
    except OSError:
        stamp = 0
    return _parsed(file, stamp)


class _Indexer:
    """Fills a `_Source` in one pass that knows the scope it is in."""

    def __init__(self, source: _Source) -> None:
        self.source = source

    def place(self, node: ast.AST, names: tuple[str, ...]) -> Place:
        return Place(self.source.file, node.lineno, ".".join(names))  # type: ignore[attr-defined]

    def body(
        self, nodes: Iterable[ast.AST], names: tuple[str, ...], around: tuple[Any, ...],
        known: dict[str, str], cls: tuple[str, str] | None,
    ) -> None:  # fmt: skip
        for node in nodes:
            self.node(node, names, around, known, cls)

    def node(
        self, node: ast.AST, names: tuple[str, ...], around: tuple[Any, ...],
        known: dict[str, str], cls: tuple[str, str] | None,
    ) -> None:  # fmt: skip
        """Index `node`. `known` maps a variable to the class it was made of; `cls` is (class, name of self)."""
        source = self.source
        if isinstance(node, ast.ClassDef):
            inner = (*names, node.name)
            source.classes.append((node, ".".join(inner)))
            if not names:
                source.rebound.append((node.name, node.lineno))
            self.body(node.decorator_list, names, around, known, cls)
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    self.store(each, each.target.id, "", "field", node.name, each.value, inner)
                elif isinstance(each, ast.Assign):
                    for target in each.targets:
                        if isinstance(target, ast.Name):
                            self.store(each, target.id, "", "field", node.name, each.value, inner)
                self.node(each, inner, around, {}, (node.name, ""))
            return
        if isinstance(node, _Function):
            name = getattr(node, "name", "<lambda>")
            inner = (*names, name)
            source.functions.append((node, ".".join(inner), around))
            if not names and name != "<lambda>":
                source.rebound.append((name, node.lineno))
            arguments = [*node.args.posonlyargs, *node.args.args]
            first = arguments[0].arg if arguments else ""
            method = (cls[0], first) if cls is not None and cls[1] == "" else cls
            mine = dict(known)
            for argument in arguments:
                made = _class_named(argument.annotation)
                if made:
                    mine[argument.arg] = made
                else:
                    mine.pop(argument.arg, None)
            if not isinstance(node, ast.Lambda):
                self.body(node.decorator_list, names, around, known, cls)
                _learn(node.body, mine)
                self.body(node.body, (*inner, "<locals>"), (node, *around), mine, method)
            else:
                self.node(node.body, (*inner, "<locals>"), (node, *around), mine, method)
            self.body([*node.args.defaults, *(d for d in node.args.kw_defaults if d)], names, around, known, cls)
            return
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                self.target(target, node.value, names, known, cls)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if item.optional_vars is not None:
                    self.target(item.optional_vars, item.context_expr, names, known, cls)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self.target(node.target, None, names, known, cls)
        elif isinstance(node, ast.Call):
            self.call(node, names, known, cls)
            made = _type_name(node)
            if made and len(node.args) > 1 and isinstance(node.args[1], (ast.Tuple, ast.List)):
                source.named.append((made, "", node.lineno))
        elif isinstance(node, ast.Dict):
            keys = frozenset(repr(key.value) for key in node.keys if isinstance(key, ast.Constant))
            for key, each_value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant):
                    source.items.append((repr(key.value), self.place(key, names), keys, each_value))
        elif isinstance(node, (ast.Import, ast.ImportFrom)) and not names:
            for alias in node.names:
                source.rebound.append(((alias.asname or alias.name).partition(".")[0], node.lineno))
        self.body(ast.iter_child_nodes(node), names, around, known, cls)

    def target(
        self, target: ast.AST, value: ast.expr | None, names: tuple[str, ...],
        known: dict[str, str], cls: tuple[str, str] | None,
    ) -> None:  # fmt: skip
        if isinstance(target, (ast.Tuple, ast.List)):
            values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
            for i, each in enumerate(target.elts):
                self.target(each, values[i] if i < len(values) else None, names, known, cls)
        elif isinstance(target, ast.Starred):
            self.target(target.value, None, names, known, cls)
        elif isinstance(target, ast.Attribute):
            self.attribute(target, target.attr, target.value, value, names, known, cls)
        elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            key = repr(target.slice.value)
            self.source.items.append((key, self.place(target, names), frozenset({key}), value))
        elif isinstance(target, ast.Name):
            if not names:
                self.source.rebound.append((target.id, target.lineno))
            made = _type_name(value)
            if made:
                self.source.named.append((made, target.id, target.lineno))

    def attribute(
        self, node: ast.AST, attribute: str, receiver: ast.expr, value: ast.expr | None, names: tuple[str, ...],
        known: dict[str, str], cls: tuple[str, str] | None,
    ) -> None:  # fmt: skip
        text = _dotted(receiver)
        if cls is not None and text and text == cls[1]:
            self.store(node, attribute, text, "self", cls[0], value, names)
        else:
            self.store(node, attribute, text, "other", known.get(text), value, names)

    def call(self, node: ast.Call, names: tuple[str, ...], known: dict[str, str], cls: tuple[str, str] | None) -> None:
        name = _last_name(node.func)
        if len(node.args) >= 2 and name in ("setattr", "__setattr__", "object") and name is not None:
            key = node.args[1]
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                value = node.args[2] if len(node.args) > 2 else None
                self.attribute(node, key.value, node.args[0], value, names, known, cls)
        for keyword in node.keywords:
            if keyword.arg is not None and name is not None:
                self.store(keyword.value, keyword.arg, "", "call", name, keyword.value, names)
                if name == "dict":
                    keys = frozenset(repr(each.arg) for each in node.keywords)
                    place = self.place(keyword.value, names)
                    self.source.items.append((repr(keyword.arg), place, keys, keyword.value))

    def store(
        self, node: ast.AST, attribute: str, receiver: str, kind: str, owned: str | None,
        value: ast.expr | None, names: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.source.stores.append(_Store(self.place(node, names), attribute, receiver, kind, owned, value))


def _learn(body: Iterable[ast.AST], known: dict[str, str]) -> None:
    """Note which variables a function's own statements make of which class."""
    todo = list(body)
    aliases: list[tuple[str, str]] = []
    while todo:
        node = todo.pop(0)
        if isinstance(node, (*_Function, ast.ClassDef)):
            continue
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if isinstance(node.value, ast.Name):
                aliases.append((name, node.value.id))
            made = _made_by(node.value)
            if made:
                known.setdefault(name, made)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            made = _class_named(node.annotation)
            if made:
                known.setdefault(node.target.id, made)
        todo.extend(ast.iter_child_nodes(node))
    for name, other in aliases:
        if other in known:
            known.setdefault(name, known[other])


def _made_by(value: ast.expr) -> str | None:
    """Return the class that ``Class(...)``, ``Class.__new__(...)`` or ``Class.make(...)`` makes an object of."""
    if not isinstance(value, ast.Call):
        return None
    if isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Name):
        base = value.func.value.id
        if value.func.attr == "__new__" or (base[:1].isupper() and not value.func.attr[:1].isupper()):
            return base
    name = _last_name(value.func)
    return name if name and name.lstrip("_")[:1].isupper() else None


def _class_named(annotation: ast.expr | None) -> str | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value.rpartition(".")[2] or None
    return _last_name(annotation) if annotation is not None else None


def _dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` as it is written, or nothing for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    before = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before and isinstance(node, ast.Attribute) else ""


def _last_name(node: ast.AST | None) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _type_name(value: ast.expr | None) -> str | None:
    """Return the name given to ``namedtuple("Name", ...)``, ``type("Name", ...)``, ``Enum("Name", ...)``."""
    if isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Constant):
        name = value.args[0].value
        return name if isinstance(name, str) and name.isidentifier() else None
    return None


# -- definitions -----------------------------------------------------------------------------------------------------


def function_definition(func: Any) -> Definition | None:
    """Return where `func` is defined: what it wraps, if it is a wrapper object without code of its own."""
    code = code_of(users_function(func))
    return None if code is None else _code_definition(code)


def _code_definition(code: types.CodeType) -> Definition | None:
    if code.co_filename.startswith("<"):
        return None
    file, first = os.path.abspath(code.co_filename), code.co_firstlineno
    name = getattr(code, "co_qualname", code.co_name)
    source = _source(file)
    for node, _, _ in source.functions if source else ():
        if isinstance(node, ast.Lambda):
            continue
        lines = [each.lineno for each in node.decorator_list]
        if node.name == code.co_name and first in (node.lineno, *lines[:1]):
            decorators = tuple(Place(file, line, name) for line in lines)
            return Definition(Place(file, node.lineno, name), decorators)
    return Definition(Place(file, first, name))


def users_function(func: Any) -> Any:
    """Return the user's function that a library's decorator wraps (``functools.wraps``), or `func` itself."""
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


def maker_of(obj: Any) -> Definition | None:
    """Return where the function is defined that a generator, coroutine, frame or code object belongs to."""
    code = None
    for name in ("gi_code", "cr_code", "ag_code", "f_code"):
        try:
            code = object.__getattribute__(obj, name)
            break
        except Exception:
            continue
    if type(obj) is types.CodeType:
        code = obj
    return None if type(code) is not types.CodeType else _code_definition(code)


def code_of(func: Any) -> types.CodeType | None:
    """Return the code of a function, of a method's function, or of what a C wrapper (`lru_cache`) wraps."""
    for _ in range(20):
        if type(func) is types.FunctionType:
            return func.__code__
        if type(func) is types.MethodType:
            func = func.__func__
            continue
        if type(func) in (staticmethod, classmethod):
            func = func.__func__
            continue
        try:
            func = object.__getattribute__(func, "__dict__")["__wrapped__"]
        except Exception:
            return None
    return None


def class_definition(cls: type) -> Definition | None:
    """Return where `cls` is defined, by its qualified name and its methods, or by the call that named it."""
    namespace = type.__getattribute__(cls, "__dict__")
    codes = [code for value in namespace.values() if (code := code_of(value)) is not None]
    codes = [code for code in codes if not code.co_filename.startswith("<")]
    files = [os.path.abspath(code.co_filename) for code in codes if code.co_name == code.co_name]
    module = sys.modules.get(_text(cls, "__module__"))
    own = getattr(module, "__dict__", {}).get("__file__")
    for file in dict.fromkeys([*([own] if isinstance(own, str) else []), *files]):
        found = _class_in(file, cls, codes)
        if found is not None:
            return found
    if not (isinstance(own, str) and owner(own) == "user"):  # a library made it: make_dataclass, up to 3.11
        name = _text(cls, "__name__")
        sources = [source for file in _with_text([*running_files(), *user_files()], name) if (source := _source(file))]
        made = {Place(source.file, line, name) for source in sources for each, _, line in source.named if each == name}
        if len(made) == 1:
            return Definition(made.pop())
    return None


def _class_in(file: str, cls: type, codes: list[types.CodeType]) -> Definition | None:
    source = _source(file)
    if source is None:
        return None
    qualname = _text(cls, "__qualname__")
    matches = [node for node, name in source.classes if name == qualname]
    firsts = {code.co_firstlineno for code in codes if os.path.abspath(code.co_filename) == file}
    stated = type.__getattribute__(cls, "__dict__").get("__firstlineno__")  # 3.13
    for node in matches:
        start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        if stated in (start, node.lineno) or any(start <= line <= (node.end_lineno or 0) for line in firsts):
            matches = [node]
            break
    if matches:
        # Of several definitions of one name, the last is the one that the name leads to.
        held = getattr(sys.modules.get(_text(cls, "__module__")), "__dict__", {})
        node = matches[-1 if held.get(qualname) is cls else 0]
        decorators = tuple(Place(file, each.lineno, qualname) for each in node.decorator_list)
        return Definition(Place(file, node.lineno, qualname), decorators)
    name = _text(cls, "__name__")
    lines = [line for made, _, line in source.named if made == name]
    return Definition(Place(file, lines[0], name)) if lines else None


def _text(cls: type, name: str) -> str:
    try:
        value = type.__getattribute__(cls, name)
    except Exception:
        return ""
    return value if isinstance(value, str) else ""


def named_place(module: str, name: str) -> Place | None:
    """Return where a module makes something by a call that is given `name`: ``NewType("name", int)``."""
    file = module_file(module)
    source = _source(file) if file is not None else None
    lines = [line for made, variable, line in source.named if made == name and variable] if source else []
    return Place(str(file), lines[0]) if len(lines) == 1 else None


def module_rebindings(file: str, name: str, after: int) -> list[Place]:
    """Return where the module in `file` binds `name` again, below line `after`."""
    source = _source(file)
    lines = [line for bound, line in source.rebound if bound == name and line > after] if source else []
    return [Place(file, line) for line in lines]


# -- where something was set -----------------------------------------------------------------------------------------


def attribute_places(obj: Any, attribute: str, value: Any, extra: Iterable[str] = ()) -> list[Place]:
    """Return where `obj`'s `attribute` was set to `value`, as far as the source can tell; several when it cannot.

    Looked for in the files of its classes, in those of the functions that are running, and in `extra`. An assignment
    to ``self`` in one of its classes comes first; then one to a variable that was made of its class. Code that also
    sets attributes which the object does not have made another object.
    """
    mro = type.__dict__["__mro__"].__get__(type(obj))
    classes = {_text(cls, "__name__"): cls for cls in mro[:-1]}
    own = set(instance_namespace(obj))
    ranked: dict[int, list[_Store]] = {}
    everything: list[_Store] = []
    files = [f for cls in mro[:-1] if (f := module_file(_text(cls, "__module__")))]
    for file in _with_text([*files, *extra, *running_files(), *user_files()], attribute):
        source = _source(file)
        if source is not None:
            everything += source.stores
            for store in source.stores:
                if store.attribute == attribute and not _plainly_other(store.value, value):
                    if store.kind in ("other", "call") and _means_another(store, classes):
                        continue
                    rank = _rank(store, set(classes), file in files)
                    if rank is not None:
                        ranked.setdefault(rank, []).append(store)
    for rank in sorted(ranked):
        stores = [s for s in ranked[rank] if s.kind != "other" or _same_maker(s, everything, own)]
        if stores:
            kept = _best(stores, everything, own, value)
            return list(dict.fromkeys(store.place for store in kept))
    for cls in mro[:-1]:  # a cached_property sets what its function returns
        maker = type.__getattribute__(cls, "__dict__").get(attribute)
        definition = function_definition(getattr(maker, "func", None)) if maker is not None else None
        if definition is not None:
            return [definition.place]
    return []


def _rank(store: _Store, classes: set[str], own_file: bool) -> int | None:
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


def _means_another(store: _Store, classes: dict[str, type]) -> bool:
    """Return whether the class's name means some other class in the module that the source is of."""
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


def _plainly_other(node: ast.expr | None, value: Any) -> bool:
    """Return whether the source sets something that is certainly not `value`: a constant, a literal of another type."""
    if isinstance(node, ast.Constant):
        return type(node.value) is not type(value)
    for kind, t in ((ast.List, list), (ast.Dict, dict), (ast.Set, set), (ast.Tuple, tuple)):
        if isinstance(node, kind):
            return not isinstance(value, t)
    if isinstance(node, ast.Lambda):
        return type(value) is not types.FunctionType
    return False


def _same_maker(store: _Store, everything: list[_Store], own: set[str]) -> bool:
    return all(each.attribute in own for each in _with(store, everything))


def _with(store: _Store, everything: list[_Store]) -> list[_Store]:
    """Return what the same function sets on the same variable."""
    here = (store.place.file, store.place.function, store.receiver, store.kind)
    return [s for s in everything if (s.place.file, s.place.function, s.receiver, s.kind) == here]


def _best(stores: list[_Store], everything: list[_Store], own: set[str], value: Any) -> list[_Store]:
    """Put first what fits best: running code, a call of the value's type, code that sets more of the object."""
    running = running_functions()

    def key(store: _Store) -> tuple[bool, bool, int]:
        function = (store.place.file, store.place.function.removesuffix(".<locals>"))
        called = (_last_name(store.value.func) or "") if isinstance(store.value, ast.Call) else ""
        fits = called.strip("_").lower() == type(value).__name__.strip("_").lower()
        also = len({s.attribute for s in _with(store, everything)} & own) if store.kind == "other" else 0
        return function not in running, not fits, -also

    ordered = sorted(stores, key=key)
    if ordered[0].kind == "other" and key(ordered[0]) < key(ordered[-1]):
        best = key(ordered[0])
        ordered = [store for store in ordered if key(store) == best]
    return ordered


def item_places(held: Any, key: Any, value: Any, extra: Iterable[str] = ()) -> list[Place]:
    """Return where the running code, or `extra`, puts `value` under the constant `key` of the dictionary `held`.

    Code that also gives keys which the dictionary does not have made another one; what gives most of its keys is best.
    """
    text = repr(key)
    keys = {repr(each) for each in held if type(each) in (str, int, bytes)} if isinstance(held, dict) else {text}
    running = running_functions()
    found: list[tuple[bool, int, Place]] = []
    for file in dict.fromkeys([*running_files(), *extra]):
        source = _source(file)
        for each, place, given, node in source.items if source else ():
            if each == text and given <= keys and not _plainly_other(node, value):
                found.append(((file, place.function.removesuffix(".<locals>")) in running, len(given), place))
    best = max((each[:2] for each in found), default=None)
    return [place for *rank, place in found if tuple(rank) == best]


def names_in_callers(value: Any) -> list[tuple[str, Place]]:
    """Return the local variables of running user functions that hold `value`, each with where it was bound."""
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
        source = _source(os.path.abspath(code.co_filename))
        lines = [line for each, line in source.rebound if each == name and line <= before] if source else []
        return Place(os.path.abspath(code.co_filename), lines[-1]) if lines else None
    node = _node_of(code)
    if node is None:
        return None
    lines = _stores_in(node, name, parameters=False)
    lines = [line for line in lines if line <= before] or lines
    return Place(os.path.abspath(code.co_filename), lines[-1], code.co_name) if lines else None


def name_places(func: types.FunctionType, name: str) -> list[Place]:
    """Return where the free variable `name` of `func` is bound in the functions around it."""
    code = func.__code__
    file = os.path.abspath(code.co_filename)
    node = _node_of(code)
    source = _source(file)
    if node is None or source is None:
        return []
    around = next((outer for each, _, outer in source.functions if each is node), ())
    for outer in around:
        lines = _stores_in(outer, name, parameters=True)
        if lines:
            return [Place(file, line) for line in lines]
    return []


def _node_of(code: types.CodeType) -> Any:
    source = _source(os.path.abspath(code.co_filename))
    if source is None:
        return None
    for node, _, _ in source.functions:
        name = getattr(node, "name", "<lambda>")
        if name != code.co_name:
            continue
        lines = [node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))]
        if code.co_firstlineno in lines:
            return node
    return None


def _stores_in(function: Any, name: str, *, parameters: bool) -> list[int]:
    """Return the lines on which a function's own statements bind `name`."""
    lines: list[int] = []
    body = function.body if isinstance(function.body, list) else [function.body]
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, (*_Function, ast.ClassDef)):
            if getattr(node, "name", None) == name:
                lines.append(node.lineno)
            continue
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            lines.append(node.lineno)
        todo.extend(ast.iter_child_nodes(node))
    if not lines and parameters:
        a = function.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x)]
        lines = [each.lineno for each in every if each.arg == name]
    return sorted(lines)


def names_read(func: types.FunctionType) -> list[str]:
    """Return the module globals that `func` and the functions inside it read, in order."""
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


def _user_frames() -> Iterator[types.FrameType]:
    count = 0
    for frame in frames(sys._getframe(1)):
        if owner(frame.f_code.co_filename) == "user" and not frame.f_code.co_filename.startswith("<"):
            yield frame
            count += 1
            if count >= 20:
                return


def running_files() -> list[str]:
    """Return the user's files whose functions are running."""
    return list(dict.fromkeys(os.path.abspath(frame.f_code.co_filename) for frame in _user_frames()))


def running_functions() -> set[tuple[str, str]]:
    """Return the user's functions that are running: file and qualified name."""
    out = set()
    for frame in _user_frames():
        node = _node_of(frame.f_code)
        file = os.path.abspath(frame.f_code.co_filename)
        source = _source(file)
        name = next((n for each, n, _ in source.functions if each is node), "") if source and node else ""
        out.add((file, name))
    return out


def _with_text(files: Iterable[str], text: str) -> Iterator[str]:
    for file in list(dict.fromkeys(files))[:_MAX_FILES]:
        if any(text in line for line in linecache.getlines(file)):
            yield file
