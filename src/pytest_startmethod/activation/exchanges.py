"""Replace attributes of classes, modules and objects that are not ours, keep track of them, and restore them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from .._compat.multiprocessing import Package
from .import_hooks import ImportHooks

_MOST = 300
"""Limit on the functions searched for a wrapper of ours below other wrappers."""


class Exchanges:
    """All current replacements of a session, grouped into `Span` objects. Prints as one line per replacement."""

    def __init__(self) -> None:
        self.hooks = ImportHooks()
        self._spans: list[Span] = []
        self._buried: list[_Exchange] = []
        """Replacements that could not be undone because something has wrapped them since."""

    def span(self, name: str) -> Span:
        """Return a new, empty span; `name` describes its purpose."""
        span = Span(self, name)
        self._spans.append(span)
        return span

    def undo(self) -> None:
        """Restore everything, latest first."""
        while self._spans:
            self._spans[-1].undo()
        for each in reversed(self._buried):
            each.undo()
        self._buried.clear()

    def __repr__(self) -> str:
        return "\n".join(line for span in self._spans for line in span.lines()) or "nothing is exchanged"


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A replaced attribute."""

    owner: object
    name: str
    stored: object
    """The value in the owner's own namespace, or None if inherited."""
    replacement: object
    key: object
    """Equal for equivalent wrappers."""

    def is_on_top(self) -> bool:
        """Return whether the replacement is still in place."""
        return vars(self.owner).get(self.name) is self.replacement

    def undo(self) -> bool:
        """Restore the original. If the attribute has been replaced since, do nothing and return False."""
        if not self.is_on_top():
            return False
        if self.stored is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.stored)
        return True

    def __str__(self) -> str:
        prefix = f"{self.owner.__module__}.{self.owner.__qualname__}" if isinstance(self.owner, type) else ""
        return f"{prefix or getattr(self.owner, '__name__', self.owner)}.{self.name}"


class Span:
    """Replacements and other changes that are undone together."""

    def __init__(self, exchanges: Exchanges, name: str) -> None:
        self.name = name
        self._exchanges = exchanges
        self._done: list[_Exchange] = []
        self._then: list[tuple[str, Callable[[], None]]] = []

    def put(self, owner: object, name: str, wrap: Callable[[Any], object]) -> None:
        """Replace ``owner.name`` by ``wrap(original)``.

        Does nothing if an equivalent wrapper of ours is still in place below somebody else's.
        """
        # Not the result of `getattr`, which binds a classmethod to `owner`; None if inherited.
        stored, original, key = vars(owner).get(name), getattr(owner, name), _key(wrap)
        buried = self._exchanges._buried
        ours = [each for each in buried if each.owner is owner and each.name == name and each.key == key]
        for each in ours:
            if each.is_on_top():  # the wrapper around it has been removed
                buried.remove(each)
                self._done.append(each)
                return
        if ours and any(each is known.replacement for each in chain(original) for known in ours):
            return
        replacement = wrap(original)
        setattr(owner, name, replacement)
        self._done.append(_Exchange(owner, name, stored, replacement, key))

    def when_loaded(self, module: str, function: Callable[[], None]) -> None:
        """Call `function` once `module` is imported, possibly now; never after this span is undone."""
        self._then.append(("", self._exchanges.hooks.when_loaded(module, function)))

    def when_undone(self, function: Callable[[], None], what: str = "") -> None:
        """Call `function` before anything is restored; `what` describes the change that it undoes."""
        self._then.append((what, function))

    def undo(self) -> None:
        """Restore the originals, latest first. Attributes replaced by others since are left to them."""
        exchanges = self._exchanges
        while self._then:
            self._then.pop()[1]()
        while self._done:
            each = self._done.pop()
            if not each.undo():
                exchanges._buried.append(each)
        if self in exchanges._spans:
            exchanges._spans.remove(self)

    def lines(self) -> Iterator[str]:
        """Yield one line per change."""
        for each in (*self._done, *(what for what, _ in self._then if what)):
            yield f"{each} ({self.name})"


def _key(wrap: Any) -> object:
    """Return a key that is equal for equivalent wrappings of an attribute: code and bound values."""
    if type(wrap) is partial:
        return (_key(wrap.func), *map(_held, wrap.args), *((name, _held(each)) for name, each in wrap.keywords.items()))
    if type(wrap) is MethodType:
        return wrap.__func__.__code__, id(wrap.__self__)
    return wrap.__code__, *(_held(cell.cell_contents) for cell in wrap.__closure__ or ()), wrap.__defaults__


def _held(value: object) -> object:
    if type(value) in (MethodType, FunctionType):
        return _key(value)
    return value if type(value) in (str, Package) else id(value)


def chain(function: Any) -> Iterator[object]:
    """Yield `function` and the functions it may call: those it wraps, closes over, or refers to as globals.

    Inspects only plain functions, methods and partials, and runs no code.
    """
    todo, seen = [function], set[int]()
    while todo and len(seen) < _MOST:
        each = todo.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if type(each) in (staticmethod, classmethod, MethodType):
            todo.append(each.__func__)
        elif type(each) is partial:
            todo += [each.func, *each.args]
        elif type(each) is FunctionType:
            todo += (each.__dict__.get("__wrapped__"), *(each.__defaults__ or ()))
            todo += (each.__kwdefaults__ or {}).values()
            todo += [each.__globals__.get(name) for name in each.__code__.co_names]
            for cell in each.__closure__ or ():
                try:
                    todo.append(cell.cell_contents)
                except ValueError:  # empty cell
                    continue
