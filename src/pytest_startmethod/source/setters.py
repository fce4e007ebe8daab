"""Where the source sets a name of a module or class, or changes its value: assignments, patches, options."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..child.values import module_of
from ..model.place import Place
from .callers import user_files
from .index import Assigned, Call, Source, dotted, last_name, source_of, with_text

_CHANGES: Final = frozenset(
    ("append", "extend", "insert", "remove", "pop", "clear", "add", "discard", "update", "setdefault", "register",
     "appendleft")
)  # fmt: skip
_OPTIONS: Final = ("set", "config", "override", "update", "register", "add", "enable", "disable", "patch")
"""Words in the name of a function that sets an option by its name."""
_ENOUGH: Final = 12


@dataclass(frozen=True, slots=True)
class Setter:
    """A place that sets a name, or changes its value."""

    place: Place
    by: str
    """``assignment``, ``monkeypatch``, ``mock.patch``."""
    exact: bool = False
    """Whether it contains the whole dotted name."""


def setters(module: str, names: tuple[str, ...], inner: Sequence[str] = (), first: Iterable[str] = ()) -> list[Setter]:
    """Return where the source sets ``module.names``, except at import of the module, in source order.

    `inner` are the names from there to the part in question. The files in `first` are searched before the module's
    own file and the user's other files.
    """
    home = module_of(sys.modules.get(module)).get("__file__")
    own = home if type(home) is str else ""
    found: list[Setter] = []
    for source in with_text([*first, *([own] if own else ()), *user_files()], names[-1], *inner[-1:]):
        found += _Search(source, module, names, inner, source.file == own).run()
        if len(found) > _ENOUGH:
            break
    return found


def uses_of(package: str, files: Iterable[str]) -> list[Setter]:
    """Return where `files` use an installed package for patching: decorators first, then fixtures and calls."""
    decorators: list[Setter] = []
    others: list[Setter] = []
    for source in with_text(files, package):
        index = source.index
        variables = {var for home, _, var, _ in index.imports if home.partition(".")[0] == package}
        for node, name, _ in index.functions:
            for each in getattr(node, "decorator_list", ()):
                if _root(each) in variables:
                    decorators.append(Setter(Place(source.file, each.lineno, name), package))
            if any(package in argument.arg for argument in node.args.args):
                others.append(Setter(Place(source.file, node.lineno, name), package))
        others += [Setter(call.place, package) for call in index.calls if _root(call.node.func) in variables]
    return [*decorators, *others]


def _root(node: ast.AST) -> str:
    """Return the name that ``name.a.b(...)`` begins with."""
    while isinstance(node, (ast.Attribute, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def made_at_import(module: str, names: tuple[str, ...]) -> Place | None:
    """Return the line at module level, or in a class body, that gives a name a value other than None."""
    for each in _assigned(module):
        named = isinstance(each.target, ast.Name) and each.target.id == names[-1]
        if named and not each.in_function and each.place.function == ".".join(names[:-1]):
            return each.place
    return None


def made_later(module: str, attribute: str) -> Place | None:
    """Return the first line of a module that gives an attribute a value other than None: ``cls._instance = cls()``."""
    places = (e.place for e in _assigned(module) if isinstance(e.target, ast.Attribute) and e.target.attr == attribute)
    return next(places, None)


def _assigned(module: str) -> Iterator[Assigned]:
    file = module_of(sys.modules.get(module)).get("__file__")
    for each in source_of(file).index.assigned if type(file) is str else ():
        if each.value is not None and not (isinstance(each.value, ast.Constant) and each.value.value is None):
            yield each


class _Search:
    """The search for one name in one file."""

    def __init__(self, source: Source, module: str, names: tuple[str, ...], inner: Sequence[str], own: bool) -> None:
        self.index = source.index
        self.names, self.inner, self.own = names, inner, own
        self.last = names[-1]
        self.dotted = f"{module}.{'.'.join(names)}"
        parent = names[-2] if len(names) > 1 else module.rpartition(".")[2]
        self.aliases: set[str] = set()
        """Variables imported from the name itself."""
        self.owners = {parent}
        """Variables for the module or class that has the name."""
        for home, name, variable, _ in self.index.imports:
            if len(names) == 1 and name == self.last and home.rpartition(".")[2] in (module.rpartition(".")[2], ""):
                self.aliases.add(variable)
            if name == parent or (
                not name and home == module and len(names) == 1 and variable != home.partition(".")[0]
            ):
                self.owners.add(variable)
        self.owners |= self.aliases
        self.imported = {variable for _, _, variable, _ in self.index.imports}

    def run(self) -> list[Setter]:
        assignments = (
            Setter(each.place, "assignment")
            for each in self.index.assigned
            if (each.in_function or not self.own) and self.assigns(each)
        )
        return sorted([*self.by_calls(), *assignments], key=lambda each: each.place.line)

    def by_calls(self) -> Iterator[Setter]:
        for call in self.index.calls:
            by = self.patches(call)
            if by is not None:
                exact = any(isinstance(a, ast.Constant) and a.value == self.dotted for a in call.node.args)
                yield Setter(call.place, by, exact)
            elif (self.inner and not self.own and call.in_function and self.gives(call)) or (
                isinstance(call.node.func, ast.Attribute)
                and call.name in _CHANGES
                and (call.in_function or not self.own)
                and self.leads(call.node.func.value)
            ):
                yield Setter(call.place, "assignment")

    def leads(self, node: ast.AST) -> bool:
        """Return whether an expression probably is the name itself."""
        if isinstance(node, ast.Attribute):
            return node.attr == self.last and (last_name(node.value) in self.owners or len(self.names) > 1)
        own = self.own and len(self.names) == 1
        return isinstance(node, ast.Name) and (node.id in self.aliases or (own and node.id == self.last))

    def root_leads(self, node: ast.AST) -> bool:
        while not self.leads(node):
            if not isinstance(node, (ast.Attribute, ast.Subscript)):
                return False
            node = node.value
        return True

    def assigns(self, each: Assigned) -> bool:
        target = each.target
        if isinstance(target, ast.Name):
            return self.own and len(self.names) == 1 and target.id == self.last and target.id in each.globals
        if isinstance(target, ast.Attribute):
            if target.attr == self.last and last_name(target.value) in self.owners:
                return True
            return bool(self.inner) and target.attr == self.inner[-1] and self.root_leads(target.value)
        if not isinstance(target, ast.Subscript):
            return False
        if isinstance(target.value, ast.Call) and last_name(target.value.func) == "globals":
            return isinstance(target.slice, ast.Constant) and target.slice.value == self.last
        return self.root_leads(target.value)

    def patches(self, call: Call) -> str | None:
        """Return who patches the name with this call: monkeypatch, mock.patch in its forms, setattr."""
        node, name = call.node, call.name
        receiver = dotted(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        hit = any(text.endswith("." + self.last) and self.ends_alike(text) for text in texts[:2])
        hit = hit or any(self.names_part(text, node.args[0]) for text in texts[:2])
        if name in ("setattr", "setitem", "delattr", "delitem") and receiver:
            by = "monkeypatch" if "monkey" in receiver or receiver in ("mp", "m", "patch") else receiver
            return by if hit else None
        if name == "setattr":
            return "assignment" if hit and len(node.args) > 1 else None
        if name != "patch" and receiver.rpartition(".")[2] not in ("patch", "mocker"):
            return None
        if hit or any(self.ends_alike(text) for text in texts[:1]):
            return "mocker" if "mocker" in receiver else "mock.patch"
        if name in ("dict", "multiple") and node.args:
            what = (last_name(node.args[0]), texts[0].rpartition(".")[2] if texts else None)
            if self.last in what or (name == "multiple" and any(each.arg == self.last for each in node.keywords)):
                return "mock.patch"
        return None

    def names_part(self, text: str, holder: ast.expr) -> bool:
        """Return whether a string is the last part of the path, for the object passed with it."""
        if text == self.last:
            return not isinstance(holder, ast.Name) or holder.id in self.owners or holder.id not in self.imported
        return text in self.inner[-1:] and (isinstance(holder, ast.Constant) or self.root_leads(holder))

    def ends_alike(self, text: str) -> bool:
        if text == self.dotted or self.dotted.endswith("." + text) or text.endswith("." + self.dotted):
            return True
        return text.split(".")[-2:] == self.dotted.split(".")[-2:]

    def gives(self, call: Call) -> bool:
        """Return whether a call sets an option by name: ``conf.set_override("name", ...)``, ``config(name=...)``."""
        if not any(word in call.name.lower() for word in _OPTIONS):
            return False
        given = {a.value for a in call.node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
        return bool((given | {keyword.arg for keyword in call.node.keywords}) & set(self.inner))
