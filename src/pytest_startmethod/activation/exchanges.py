"""What we replace of other people's classes, modules and objects, in one list, and how it is restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from .._compat.multiprocessing import Package
from .import_hooks import ImportHooks

_MOST = 300
"""Objects looked at in search of a wrapper of ours below somebody else's."""


class Exchanges:
    """Everything that is replaced in a session. It prints as one line for each attribute that is replaced now.

    What belongs together is replaced and restored together, as a `Span`.
    """

    def __init__(self) -> None:
        self.hooks = ImportHooks()
        self._spans: list[Span] = []
        self._buried: list[_Exchange] = []
        """Those that somebody has wrapped since, and which could not be undone."""

    def span(self, name: str) -> Span:
        """Return a new span, empty; `name` says what it is for."""
        span = Span(self, name)
        self._spans.append(span)
        return span

    def undo(self) -> None:
        """Restore everything, the latest first."""
        while self._spans:
            self._spans[-1].undo()
        for each in reversed(self._buried):
            each.undo()
        self._buried.clear()

    def __repr__(self) -> str:
        """Return a line for each attribute that is replaced, and for each other change that is to be undone."""
        return "\n".join(line for span in self._spans for line in span.lines()) or "nothing is exchanged"


@dataclass(frozen=True, slots=True)
class _Exchange:
    """An attribute that is replaced."""

    owner: Any
    name: str
    stored: Any
    """What the owner's own namespace held; None: nothing."""
    replacement: Any
    key: object
    """Equal for wrappers that do the same."""

    def is_on_top(self) -> bool:
        """Return whether nobody has replaced it since."""
        return vars(self.owner).get(self.name) is self.replacement

    def undo(self) -> bool:
        """Restore the original; return False, and do nothing, where somebody has replaced the attribute since."""
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
    """Attributes that are replaced, and other changes that are made, for the same length of time."""

    def __init__(self, exchanges: Exchanges, name: str) -> None:
        self.name = name
        self._exchanges = exchanges
        self._done: list[_Exchange] = []
        self._then: list[tuple[str, Callable[[], None]]] = []

    def put(self, owner: object, name: str, wrap: Callable[[Any], object]) -> None:
        """Replace ``owner.name`` by ``wrap(original)``.

        Where somebody has wrapped a wrapper that we made in the same way, that one still does its work.
        """
        # Not what `getattr` returns, which of a classmethod is bound to `owner`; None where it is inherited.
        stored, original, key = vars(owner).get(name), getattr(owner, name), _key(wrap)
        buried = self._exchanges._buried
        ours = [each for each in buried if each.owner is owner and each.name == name and each.key == key]
        for each in ours:
            if each.is_on_top():  # whoever had wrapped it is gone
                buried.remove(each)
                self._done.append(each)
                return
        if ours and any(each is known.replacement for each in chain(original) for known in ours):
            return
        replacement = wrap(original)
        setattr(owner, name, replacement)
        self._done.append(_Exchange(owner, name, stored, replacement, key))

    def when_loaded(self, module: str, function: Callable[[], None]) -> None:
        """Call `function` when `module` has been imported, which may be now; never once this is undone."""
        self._then.append(("", self._exchanges.hooks.when_loaded(module, function)))

    def when_undone(self, function: Callable[[], None], what: str = "") -> None:
        """Call `function` before anything is restored; `what` says which change it takes back."""
        self._then.append((what, function))

    def undo(self) -> None:
        """Restore the originals, the latest first; what somebody else has replaced since is theirs to restore."""
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
        """Yield one line for each change."""
        for each in (*self._done, *(what for what, _ in self._then if what)):
            yield f"{each} ({self.name})"


def _key(wrap: Any) -> object:
    """Return what two wrappings of one attribute have in common if they do the same: code and what it is bound to."""
    if type(wrap) is partial:
        return (_key(wrap.func), *map(_held, wrap.args), *((name, _held(each)) for name, each in wrap.keywords.items()))
    if type(wrap) is MethodType:
        return wrap.__func__.__code__, id(wrap.__self__)
    return wrap.__code__, *(_held(cell.cell_contents) for cell in wrap.__closure__ or ()), wrap.__defaults__


def _held(value: object) -> object:
    if type(value) in (MethodType, FunctionType):
        return _key(value)
    return value if type(value) in (str, Package) else id(value)


def chain(function: Any) -> Iterator[Any]:
    """Yield `function` and the functions that it may call in turn: what it wraps, closes over, or names as a global.

    Looks at plain functions, methods and partials only, and runs nobody's code.
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
                except ValueError:  # it is empty
                    continue
