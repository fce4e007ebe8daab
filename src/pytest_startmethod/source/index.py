"""The source of one file, parsed and indexed once: definitions, what is set and where, calls, imports, names.

A file is read again when its size or modification time changes. None of it is executed.
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ..model.place import Place

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MOST_FILES: Final = 500


@dataclass(frozen=True, slots=True)
class Store:
    """One place that sets an attribute."""

    place: Place
    attribute: str
    receiver: str
    kind: str
    """``self``: in a method of `owner`; ``other``: on a variable; ``call``: by keyword; ``field``: in a class body."""
    owner: str | None
    """The name of its class, as far as the source shows."""
    value: ast.expr | None


@dataclass(frozen=True, slots=True)
class Item:
    """One place that gives a constant key a value: ``x["k"] = ...``, ``{"k": ...}``, ``dict(k=...)``."""

    key: str
    place: Place
    keys: frozenset[str]
    """All keys set there."""
    value: ast.expr | None


@dataclass(frozen=True, slots=True)
class Assigned:
    """One target of an assignment statement, of any form."""

    target: ast.expr
    value: ast.expr | None
    place: Place
    globals: frozenset[str]
    """Names that the function around it declares ``global``."""
    in_function: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One call."""

    node: ast.Call
    place: Place
    in_function: bool

    @property
    def name(self) -> str:
        """The last part of what is called."""
        return last_name(self.node.func) or ""


@dataclass(slots=True)
class Index:
    """The content of a file, in source order."""

    functions: list[tuple[Any, str, tuple[Any, ...]]] = field(default_factory=list)
    """Each function: node, qualified name, enclosing functions, innermost first."""
    classes: list[tuple[ast.ClassDef, str]] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    assigned: list[Assigned] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    imports: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Module, name in it (empty for the module itself), variable, and line; relative modules without their dots."""
    named: list[tuple[str, str, int]] = field(default_factory=list)
    """Types created by a call with their name: the name, the variable, the line."""
    bound: list[tuple[str, int]] = field(default_factory=list)
    """Names bound at the module's own level, with the line."""

    def functions_at(self, line: int) -> Iterator[tuple[Any, str]]:
        """Yield node and qualified name of the functions whose code begins on a line: their own, or a decorator's."""
        for node, name, _ in self.functions:
            if line in (node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))):
                yield node, name


@dataclass(frozen=True)
class Source:
    """One file's text and its index; both empty if it cannot be read or is not Python of this version."""

    file: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        try:
            return ast.parse(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.Module([], [])

    @functools.cached_property
    def index(self) -> Index:
        """Its index."""
        indexer = _Indexer(self.file)
        try:
            indexer.visit(self.tree)
        except RecursionError:
            return Index()
        return indexer.index


_sources: dict[str, tuple[object, Source]] = {}


def source_of(file: str) -> Source:
    """Return the source of a file as it is now, from the cache if it is unchanged."""
    try:
        status = os.stat(file)
        stamp: object = (status.st_mtime_ns, status.st_size)
    except (OSError, ValueError):
        stamp = None
    known = _sources.get(file)
    if known is not None and known[0] == stamp:
        return known[1]
    linecache.checkcache(file)
    source = Source(file, "".join(linecache.getlines(file)))
    while len(_sources) >= _MOST_FILES:
        _sources.pop(next(iter(_sources)), None)
    _sources[file] = stamp, source
    return source


def with_text(files: Iterable[str], *texts: str) -> Iterator[Source]:
    """Yield the source of each file that contains one of `texts`."""
    for file in list(dict.fromkeys(files))[:_MOST_FILES]:
        source = source_of(file)
        if any(text in source.text for text in texts):
            yield source


@dataclass(frozen=True, slots=True)
class _Scope:
    names: tuple[str, ...] = ()
    """The qualified name, with ``<locals>``."""
    around: tuple[object, ...] = ()
    known: dict[str, str] = field(default_factory=dict)
    """Variables, with the class of which each is an instance."""
    cls: tuple[str, str] | None = None
    """The class whose body or method this is, and the method's name for ``self``."""
    globals: frozenset[str] = frozenset()


class _Indexer:
    """Fill an `Index` in one pass, keeping track of the scope."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.index = Index()
        self.scope = _Scope()

    def visit(self, node: ast.AST) -> None:
        _VISIT.get(type(node), _Indexer.children)(self, node)

    def children(self, node: ast.AST) -> None:
        for each in ast.iter_child_nodes(node):
            self.visit(each)

    def place(self, node: ast.expr | ast.stmt) -> Place:
        names = self.scope.names[:-1] if self.scope.names[-1:] == ("<locals>",) else self.scope.names
        return Place(self.file, node.lineno, ".".join(names))

    def inside(self, scope: _Scope, nodes: Iterable[ast.AST]) -> None:
        before, self.scope = self.scope, scope
        for node in nodes:
            self.visit(node)
        self.scope = before

    def bind(self, name: str, line: int) -> None:
        if not self.scope.names:
            self.index.bound.append((name, line))

    # definitions

    def of_class(self, node: ast.ClassDef) -> None:
        scope = self.scope
        inner = (*scope.names, node.name)
        self.index.classes.append((node, ".".join(inner)))
        self.bind(node.name, node.lineno)
        self.inside(scope, [*node.decorator_list, *node.bases, *node.keywords])
        body = _Scope(inner, scope.around, {}, (node.name, ""), scope.globals)
        before, self.scope = scope, body
        for each in node.body:
            if isinstance(each, (ast.Assign, ast.AnnAssign)):
                for target in each.targets if isinstance(each, ast.Assign) else [each.target]:
                    if isinstance(target, ast.Name):
                        self.store(each, target.id, "", "field", node.name, each.value)
        self.scope = before
        self.inside(body, node.body)

    def of_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        scope, name = self.scope, getattr(node, "name", "<lambda>")
        inner = (*scope.names, name)
        self.index.functions.append((node, ".".join(inner), scope.around))
        body: list[Any] = [node.body] if isinstance(node, ast.Lambda) else node.body
        if not isinstance(node, ast.Lambda):
            self.bind(name, node.lineno)
        arguments = [*node.args.posonlyargs, *node.args.args]
        first = arguments[0].arg if arguments else ""
        known = dict(scope.known)
        for argument in arguments:
            made = _class_named(argument.annotation)
            known.pop(argument.arg, None)
            if made:
                known[argument.arg] = made
        declared = scope.globals
        if not isinstance(node, ast.Lambda):
            _learn(body, known)
            declared = frozenset(n for s in ast.walk(node) if isinstance(s, ast.Global) for n in s.names)
            self.inside(scope, node.decorator_list)
        method = (scope.cls[0], first) if scope.cls is not None and scope.cls[1] == "" else scope.cls
        self.inside(_Scope((*inner, "<locals>"), (node, *scope.around), known, method, declared), body)
        self.inside(scope, [*node.args.defaults, *(each for each in node.args.kw_defaults if each)])

    def of_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            variable = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.Import):
                self.index.imports.append((alias.name, "", variable, node.lineno))
            else:
                self.index.imports.append((node.module or "", alias.name, alias.asname or alias.name, node.lineno))
            self.bind(variable, node.lineno)

    # what is set

    def of_assignment(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            self.target(target, node.value)
            for each in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                found = Assigned(each, node.value, self.place(node), self.scope.globals, bool(self.scope.around))
                self.index.assigned.append(found)
        self.children(node)

    def of_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            if item.optional_vars is not None:
                self.target(item.optional_vars, item.context_expr)
        self.children(node)

    def of_for(self, node: ast.For | ast.AsyncFor) -> None:
        self.target(node.target, None)
        self.children(node)

    def target(self, target: ast.AST, value: ast.expr | None) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
            for i, each in enumerate(target.elts):
                self.target(each, values[i] if i < len(values) else None)
        elif isinstance(target, ast.Starred):
            self.target(target.value, None)
        elif isinstance(target, ast.Attribute):
            self.attribute(target, target.attr, target.value, value)
        elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            key = repr(target.slice.value)
            self.index.items.append(Item(key, self.place(target), frozenset({key}), value))
        elif isinstance(target, ast.Name):
            self.bind(target.id, target.lineno)
            made = _type_name(value)
            if made:
                self.index.named.append((made, target.id, target.lineno))

    def attribute(self, node: ast.expr, attribute: str, receiver: ast.expr, value: ast.expr | None) -> None:
        text, cls = dotted(receiver), self.scope.cls
        if cls is not None and text and text == cls[1]:
            self.store(node, attribute, text, "self", cls[0], value)
        else:
            self.store(node, attribute, text, "other", self.scope.known.get(text), value)

    def store(
        self,
        node: ast.expr | ast.stmt,
        attribute: str,
        receiver: str,
        kind: str,
        owned: str | None,
        value: ast.expr | None,
    ) -> None:
        self.index.stores.append(Store(self.place(node), attribute, receiver, kind, owned, value))

    def of_call(self, node: ast.Call) -> None:
        self.index.calls.append(Call(node, self.place(node), bool(self.scope.around)))
        name = last_name(node.func)
        if len(node.args) >= 2 and name in ("setattr", "__setattr__", "object"):
            key = node.args[1]
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                self.attribute(node, key.value, node.args[0], node.args[2] if len(node.args) > 2 else None)
        keys = frozenset(repr(each.arg) for each in node.keywords)
        for keyword in node.keywords:
            if keyword.arg is not None and name is not None:
                self.store(keyword.value, keyword.arg, "", "call", name, keyword.value)
                if name == "dict":
                    self.index.items.append(Item(repr(keyword.arg), self.place(keyword.value), keys, keyword.value))
        made = _type_name(node)
        if made and len(node.args) > 1 and isinstance(node.args[1], (ast.Tuple, ast.List)):
            self.index.named.append((made, "", node.lineno))
        self.children(node)

    def of_dict(self, node: ast.Dict) -> None:
        keys = frozenset(repr(key.value) for key in node.keys if isinstance(key, ast.Constant))
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                self.index.items.append(Item(repr(key.value), self.place(key), keys, value))
        self.children(node)


_VISIT: Final[dict[type, Callable[[_Indexer, Any], None]]] = {
    ast.ClassDef: _Indexer.of_class,
    **dict.fromkeys(FUNCTIONS, _Indexer.of_function),
    **dict.fromkeys((ast.Import, ast.ImportFrom), _Indexer.of_import),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr), _Indexer.of_assignment),
    **dict.fromkeys((ast.With, ast.AsyncWith), _Indexer.of_with),
    **dict.fromkeys((ast.For, ast.AsyncFor), _Indexer.of_for),
    ast.Call: _Indexer.of_call,
    ast.Dict: _Indexer.of_dict,
}


def _learn(body: Iterable[ast.AST], known: dict[str, str]) -> None:
    """Record the classes of variables that a function's own statements assign."""
    todo = list(body)
    aliases: list[tuple[str, str]] = []
    while todo:
        node = todo.pop(0)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
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
    """Return the class instantiated by ``Class(...)``, ``Class.__new__(...)`` or ``Class.make(...)``."""
    if not isinstance(value, ast.Call):
        return None
    if isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Name):
        base = value.func.value.id
        if value.func.attr == "__new__" or (base[:1].isupper() and not value.func.attr[:1].isupper()):
            return base
    name = last_name(value.func)
    return name if name and name.lstrip("_")[:1].isupper() else None


def _class_named(annotation: ast.expr | None) -> str | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value.rpartition(".")[2] or None
    return last_name(annotation) if annotation is not None else None


def _type_name(value: ast.expr | None) -> str | None:
    """Return the name given to ``namedtuple("Name", ...)``, ``type("Name", ...)``, ``Enum("Name", ...)``."""
    if isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Constant):
        name = value.args[0].value
        return name if isinstance(name, str) and name.isidentifier() else None
    return None


def dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` as written; empty for any other expression."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def last_name(node: ast.AST | None) -> str | None:
    """Return the last name of ``a.b.c``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


# -- searches ----------------------------------------------------------------------------------------------------------


def find_calls(files: Iterable[str], name: str, argument: str | None = None, *, outermost: bool = False) -> list[Place]:
    """Return where `files` call something named `name` (with the string `argument`, if given), in source order.

    `outermost`: only calls that run when the file is imported.
    """
    found = []
    for source in with_text(files, name):
        guarded = [(each.lineno, each.end_lineno or 0) for each in source.tree.body
                   if isinstance(each, ast.If) and "__name__" in ast.dump(each.test)] if outermost else []  # fmt: skip
        for call in source.index.calls:
            node, line = call.node, call.node.lineno
            if call.name != name or (outermost and (call.place.function or call.in_function)):
                continue
            values = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            if (argument is None or argument in values) and not any(a <= line <= b for a, b in guarded):
                found.append(Place(source.file, line))
    return found


def find_names(files: Iterable[str], name: str) -> list[Place]:
    """Return where `files` use the name or attribute `name`, in source order."""
    return [
        Place(source.file, node.lineno)
        for source in with_text(files, name)
        for node in ast.walk(source.tree)
        if isinstance(node, (ast.Attribute, ast.Name)) and last_name(node) == name
    ]
