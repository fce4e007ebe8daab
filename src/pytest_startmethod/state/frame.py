"""Follow the operations of one function, with symbols in place of values."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from os.path import abspath
from typing import TYPE_CHECKING, Any, Final

from ..child.values import MISSING, module_of, public_name
from ..model.observed import Where, Write
from .instructions import Operation, operations
from .symbols import (
    NULL,
    Bound,
    Captured,
    Constant,
    Each,
    Instance,
    Live,
    Ref,
    Several,
    Space,
    Super,
    Symbol,
    parts_of,
    texts_of,
    unbound,
)

if TYPE_CHECKING:
    from .reads import Search

_ITERATE: Final = frozenset({
    "iter", "list", "tuple", "set", "frozenset", "dict", "sorted", "sum", "min", "max", "any", "all", "enumerate",
})  # fmt: skip
_OF_BUILTINS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(_ITERATE, ("__iter__",)),
    **{name: (f"__{name}__",) for name in ("len", "next", "repr", "hash", "abs", "reversed", "round", "int", "float")},
    "bool": ("__bool__", "__len__"),
    "str": ("__str__", "__repr__"),
    "print": ("__str__", "__repr__"),
    "format": ("__format__", "__str__"),
}
"""Special methods of the argument that each builtin calls."""
_SHARED: Final = ("mmap", "multiprocessing.sharedctypes")
_MOST_TEXTS: Final = 20
_BUILD_CLASS: Final = Constant("__build_class__")


class Frame:
    """Follows the operations of one code object, and passes reads and writes to its `search`."""

    def __init__(
        self, search: Search, code: types.CodeType, namespace: dict[str, Any], function: str, names: dict[str, Symbol],
        cells: dict[str, Symbol], depth: int, receiver: Symbol,
    ) -> None:  # fmt: skip
        self.search = search
        self.code = code
        self.namespace = namespace
        builtins = namespace.get("__builtins__")
        self.builtins: dict[str, object] = builtins if type(builtins) is dict else module_of(builtins)
        self.function = function
        self.locals = names
        self.cells = cells
        self.depth = depth
        self.receiver = receiver
        self.file = abspath(code.co_filename)
        self.stack: list[Symbol] = []
        self.inner: list[types.CodeType] = []
        self.iterated: dict[int, Symbol] = {}
        """What the function's comprehensions and generator expressions iterate over, by the ``id`` of their code."""
        module = namespace.get("__name__")
        self.module = module if type(module) is str else ""
        self.named = module_of(sys.modules.get(self.module)) is namespace
        self.at: Operation | None = None
        self.generated: tuple[str, int] | None = None
        """File and line to report instead of the code's own, which was generated."""
        self.keywords: tuple[str, ...] = ()
        self.branched = False
        self.bound: set[tuple[str, str]] = set()
        """Module and name of each binding made before the first branch."""

    @property
    def where(self) -> Where:
        """The place of the current instruction."""
        at = self.at
        if self.generated is not None:
            return Where(*self.generated, self.function, at.text if at is not None else "")
        if at is None:
            return Where(self.file, self.code.co_firstlineno, self.function, "")
        return Where(self.file, at.line, self.function, at.text, at.offset)

    def run(self) -> None:
        """Follow each operation once, with the stack of the first path that reaches it."""
        saved: dict[int, list[Symbol]] = {}
        ended = False
        for operation in operations(self.code):
            known = saved.pop(operation.offset, None)
            if known is not None:
                if ended or len(known) > len(self.stack):
                    self.stack = known
                ended = False
            elif ended:
                self.stack, ended = [], False
            self.at = operation
            for depth, method in operation.implied:
                if depth <= len(self.stack):
                    self.search.special(self.stack[-depth], method, self.where, self.depth)
            _FOLLOW[operation.op](self, operation.value)
            if operation.target is not None:
                self.branched = True
                saved.setdefault(operation.target, list(self.stack))
            ended = operation.ends
        for code in self.inner:
            self._enter(code)
        if self.generated is None:
            self.search.out.codes.append((self.file, self.function, self.code.co_firstlineno))

    def _enter(self, code: types.CodeType) -> None:
        key = (id(code), id(self.receiver), "inner")
        if key in self.search.seen:
            return
        self.search.seen.add(key)
        cells = {**self.cells, **{n: s for n, s in self.locals.items() if n in code.co_freevars}}
        name = getattr(code, "co_qualname", f"{self.function}.<locals>.{code.co_name}")
        names = {".0": self.iterated.get(id(code))}
        Frame(self.search, code, self.namespace, name, names, cells, self.depth, self.receiver).run()

    def pop(self, count: int = 1) -> list[Symbol]:
        """Pop values from the stack; the top one comes last."""
        if count <= 0:
            return []
        popped = self.stack[-count:]
        del self.stack[-count:]
        return [None] * (count - len(popped)) + popped

    def push(self, symbol: Symbol) -> None:
        """Push a value on the stack."""
        self.stack.append(symbol)

    def use(self, symbols: Iterable[Symbol]) -> None:
        """Mark the whole of each value as read, not just a part of it."""
        for symbol in map(unbound, symbols):
            if isinstance(symbol, Ref):
                symbol.read.whole = True

    def binds(self, module: str, name: str) -> None:
        """Record that a module's name is bound here."""
        self.search.write(Write(module, (name,), self.where, True))
        if not self.branched:
            self.bound.add((module, name))

    # variables

    def _do_global(self, name: str) -> None:
        search, value = self.search, self.namespace.get(name, MISSING)
        if value is MISSING and name in self.builtins:
            self.push(search.ref("builtins", (name,), self.builtins[name], self.where, self.depth))
        elif self.named:
            ref = search.ref(self.module, (name,), value, self.where, self.depth)
            ref.read.after_write = (self.module, name) in self.bound
            self.push(ref)
        else:
            if value is not MISSING:
                search.uses(value, None, self.depth)
            self.push(Live(value, "") if value is not MISSING else None)

    def _do_cell(self, name: str) -> None:
        symbol = self.cells.get(name, self.locals.get(name))
        if isinstance(symbol, Captured):
            symbol = self.search.captured(symbol, self.where, self.depth)
        self.push(symbol)

    def _do_closure(self, name: str) -> None:
        """Load the cell itself, for a function that is being made."""
        self.push(self.cells.get(name, self.locals.get(name)))

    def _do_store_cell(self, name: str) -> None:
        (symbol,) = self.pop()
        if name not in self.cells or name not in self.code.co_freevars:
            self.locals[name] = symbol
            return
        held = self.cells[name]
        if isinstance(held, Captured):
            self.search.write(Write(held.module, (*held.names, "__closure__"), self.where, True))
        else:
            self.search.write(Write("", (name,), self.where, True))

    def _do_constant(self, value: object) -> None:
        """Load a constant; an inner function's code is followed later."""
        if type(value) is types.CodeType:
            self.inner.append(value)
        self.push(Constant(value))

    def _do_make_function(self, taken: int) -> None:
        """Make a function. Its symbol is the code itself, so that a call of a comprehension is recognised."""
        code = [each for each in self.pop(taken) if isinstance(each, Constant) and type(each.value) is types.CodeType]
        self.push(code[0] if code else None)

    def _do_store_global(self, name: str) -> None:
        self.use(self.pop())
        self.binds(self.module, name)

    def _do_delete_global(self, name: str) -> None:
        self.search.write(Write(self.module, (name,), self.where, True))

    def _do_import_name(self, name: str) -> None:
        self.pop(2)
        package = self.namespace.get("__package__") or self.module.rpartition(".")[0]
        module = sys.modules.get(name)
        if module is None and name not in sys.modules and package:
            module = sys.modules.get(f"{package}.{name}".rstrip("."))
        if module is not None or name in sys.modules:
            self.search.out.imports.setdefault(name, self.where)
        self.push(self.search.module(module, self.where) if module is not None else None)

    def _do_import_from(self, name: str) -> None:
        module = self.stack[-1] if self.stack else None
        package = module_of(module.value) if isinstance(module, Ref) else {}
        path = f"{package.get('__name__')}.{name}"
        submodule = sys.modules.get(path)
        if submodule is not None and submodule is package.get(name):  # the statement imports it in a child, too
            self.search.out.imports.setdefault(path, self.where)
            self.push(self.search.module(submodule, self.where))
        else:
            self.push(self.search.attr(module, name, self.where, self.depth) if module is not None else None)

    # attributes and items

    def _do_attribute(self, name: str) -> None:
        (symbol,) = self.pop()
        found = self.search.attr(symbol, name, self.where, self.depth)
        if isinstance(found, Ref) and found.names == (name,) and (found.module, name) in self.bound:
            found.read.after_write = True
        self.push(found if found is not None else Bound(symbol, name, None))

    def _do_super_attribute(self, name: str) -> None:
        self.pop(3)
        found = self._super()
        self.push(self.search.attr(found, name, self.where, self.depth) if found is not None else None)

    def _do_item(self, _value: object) -> None:
        container, key = self.pop(2)
        found: Symbol = None
        for each in [key.value] if isinstance(key, Constant) else texts_of(key)[:_MOST_TEXTS]:
            found = self.search.item(container, each, self.where, self.depth)
        if found is None:
            self.use([container])
        self.use([key])
        self.push(found)

    def _do_store_attribute(self, name: str) -> None:
        assigned, owner = self.pop(2)
        self.use([assigned])
        self._store(owner, name)

    def _store(self, owner: Symbol, name: str) -> None:
        owner = unbound(owner)
        if not isinstance(owner, (Ref, Live)):
            return
        if isinstance(owner, Ref):
            owner.read.refined = True
        kind = type(owner.value)
        if issubclass(kind, types.ModuleType) and isinstance(owner, Ref):
            module = module_of(owner.value).get("__name__")
            if type(module) is str:
                self.binds(module, name)
        elif issubclass(kind, type):
            module, qualname = public_name(owner.value)
            self.search.write(Write(module, (*qualname.split("."), name), self.where, True))
        else:
            self.search.changes(owner, self.where)

    def _change(self, parts: list[Symbol]) -> None:
        container = parts[-2]
        self.use(each for each in parts if each is not container)
        if isinstance(container, Ref):
            container.read.refined = type(container.value).__module__ not in _SHARED  # those are used
            if type(container.value).__name__ == "_Environ":
                return
        if isinstance(container, Space):  # globals()["X"] = ...
            for text in texts_of(parts[-1])[:_MOST_TEXTS]:
                self._store(container.symbol, text)
            return
        self.search.changes(container, self.where)

    # calls

    def _do_keywords(self, names: tuple[str, ...]) -> None:
        self.keywords = names

    def _do_call(self, value: tuple[int, int, bool]) -> None:
        """Call a function. `value`: number of arguments, stack slots of the callable, whether keyword names follow."""
        count, slots, named = value
        names, self.keywords = self.keywords, ()
        if named:
            (constant,) = self.pop()
            names = constant.value if isinstance(constant, Constant) and type(constant.value) is tuple else ()
        args = self.pop(count)
        callee, *more = [each for each in self.pop(slots) if each is not NULL] or [None]
        positional = args[: len(args) - len(names)]
        keywords = dict(zip(names, args[len(positional) :], strict=False))
        if isinstance(callee, Ref) and callee.module == "builtins":
            name = callee.names[-1]
            for method in _OF_BUILTINS.get(name, ()):
                self.search.special(positional[0] if positional else None, method, self.where, self.depth)
            if name == "print" and "file" not in keywords:
                self.search.printed(self.where, self.depth)
            follow = _BUILTINS.get(name)
            found = follow(self, positional) if follow is not None else None
            if found is not None:
                self.push(found[0])
                return
        self.use(args)
        if isinstance(callee, Constant) and type(callee.value) is types.CodeType:
            self.iterated[id(callee.value)] = next(iter([*more, *positional]), None)  # 3.11: in the second slot
        if callee is _BUILD_CLASS:
            self.search.subclassed(positional[2:], self.depth)
        if isinstance(callee, Bound) and isinstance(callee.symbol, Ref):
            callee.symbol.read.called = True
        self.push(self.search.call(callee, positional, keywords, self.depth, self.where))

    def _do_call_unpacked(self, count: int) -> None:
        popped = self.pop(count)
        callee = next((each for each in popped if each is not NULL), None)
        given = [each for each in popped if each is not callee and each is not NULL]
        self.use(given)
        args: list[Symbol] = []
        keywords: dict[str, Symbol] = {}
        for each in given:
            for key, part in ((each.parts if isinstance(each, Several) else parts_of(each)) or {}).items():
                if isinstance(key, str):
                    keywords[key] = part
                else:
                    args.append(part)
        self.push(self.search.call(callee, args, keywords, self.depth, self.where) if callee is not None else None)

    def _do_sequence(self, count: int) -> None:
        parts = self.pop(count)
        self.use(parts)
        self.push(Several(dict(enumerate(parts))))

    def _do_mapping(self, count: int) -> None:
        """Build a dictionary of keys and values, or with a negative count of values and a tuple of keys."""
        parts = self.pop(2 * count if count >= 0 else 1 - count)
        self.use(parts)
        keys = parts[::2] if count >= 0 else [Constant(each) for each in getattr(parts[-1], "value", ())]
        pairs = zip(keys, parts[1::2] if count >= 0 else parts[:-1], strict=False)
        self.push(Several({key.value: part for key, part in pairs
                           if isinstance(key, Constant) and type(key.value) is str}))  # fmt: skip

    def _do_extend(self, value: tuple[int, bool]) -> None:
        """Extend the container below the top by the top, or if `value` says so append the top to it."""
        index, whole = value
        (more,) = self.pop()
        self.use([more])
        held = self.stack[-index] if 0 < index <= len(self.stack) else None
        if isinstance(held, Several):
            held.extend(more if whole else Several({0: more}))

    def _getattr(self, args: list[Symbol]) -> tuple[Symbol] | None:
        names = texts_of(args[1])[:_MOST_TEXTS] if len(args) > 1 else ()
        self.use(args[1:2])
        found: list[Symbol] = [self.search.attr(args[0], name, self.where, self.depth) for name in names]
        return (found[-1],) if found else None

    def _hasattr(self, args: list[Symbol]) -> tuple[Symbol] | None:
        return None if self._getattr(args) is None else (None,)

    def _setattr(self, args: list[Symbol]) -> tuple[Symbol] | None:
        names = texts_of(args[1]) if len(args) > 2 else ()
        for name in names[:_MOST_TEXTS]:
            self._store(args[0], name)
        return (None,) if names else None

    def _namespace(self, args: list[Symbol]) -> tuple[Symbol] | None:
        """Follow ``globals()`` or ``vars(module)``. With ``globals()``, globals named by a constant count as read."""
        if args:
            symbol = args[0]
            module = isinstance(symbol, Ref) and issubclass(type(symbol.value), types.ModuleType)
            return (Space(symbol),) if module else None
        if not self.named:
            return None
        for text in _constants(self.code):
            if text in self.namespace and type(self.namespace[text]) is not types.ModuleType:  # it may be imported here
                ref = self.search.ref(self.module, (text,), self.namespace[text], self.where, self.depth)
                ref.read.whole = True
        return (Space(self.search.module(sys.modules[self.module], self.where)),)

    def _type(self, args: list[Symbol]) -> tuple[Symbol] | None:
        symbol = args[0] if len(args) == 1 else None
        cls = symbol.cls if isinstance(symbol, Instance) else type(symbol.value) if isinstance(symbol, Live) else None
        return (Live(cls, ""),) if cls is not None else None

    def _super_call(self, _args: list[Symbol]) -> tuple[Symbol] | None:
        return (self._super(),)

    def _super(self) -> Super | None:
        """Return the symbol of ``super()`` here, or None. The code's class is found in the receiver's MRO."""
        receiver = self.receiver
        if isinstance(receiver, Instance):
            cls: Any = receiver.cls
        else:
            value = receiver.value if isinstance(receiver, (Live, Ref)) else None
            cls = value if issubclass(type(value), type) else type(value)
        for owner in type.__dict__["__mro__"].__get__(cls):
            for value in type.__getattribute__(owner, "__dict__").values():
                func = value.__func__ if type(value) in (classmethod, staticmethod) else value
                func = func.fget if type(func) is property else func
                if type(func) is types.FunctionType and func.__code__ is self.code:
                    return Super(cls, owner, receiver)
        return None

    # the stack

    def _do_copy(self, index: int) -> None:
        self.push(self.stack[-index] if 0 < index <= len(self.stack) else None)

    def _do_swap(self, index: int) -> None:
        if 1 < index <= len(self.stack):
            self.stack[-1], self.stack[-index] = self.stack[-index], self.stack[-1]

    def _do_rotate(self, count: int) -> None:
        if 1 < count <= len(self.stack):
            self.stack.insert(len(self.stack) - count, self.stack.pop())

    def _do_iterate(self, pushed: int) -> None:
        """Get an iterator, remembering the strings of a known iterable."""
        (symbol,) = self.pop()
        self.use([symbol])
        value: Any = symbol.value if isinstance(symbol, (Constant, Ref, Live)) else None
        parts = itertools.islice(value, _MOST_TEXTS) if type(value) in (tuple, list, set, frozenset, dict) else ()
        texts = tuple(each for each in parts if type(each) is str)
        self.stack += [Each(texts) if texts else None, *[None] * (pushed - 1)]

    def _do_next(self, _value: object) -> None:
        """Get an iterator's next value. From 3.15 on, the iterator may lie below an index."""
        self.push(next((each for each in reversed(self.stack[-2:]) if isinstance(each, Each)), None))

    def _do_enter(self, value: tuple[int, int]) -> None:
        for each in self.stack[-1:]:
            self.search.attr(each, "__enter__", self.where, self.depth)
        self._do_other(value)

    def _do_other(self, value: tuple[int, int]) -> None:
        """Pop and push the values of an instruction that has no special meaning here."""
        taken, pushed = value
        self.use(self.pop(taken))
        self.stack += [None] * pushed


_FOLLOW: Final[dict[str, Callable[[Frame, Any], object]]] = {
    "nothing": lambda _frame, _value: None,
    "local": lambda frame, name: frame.push(frame.locals.get(name)),
    "store_local": lambda frame, name: frame.locals.update({name: frame.pop()[0]}),
    "build_class": lambda frame, _: frame.push(_BUILD_CLASS),
    "null": lambda frame, _: frame.push(NULL),
    "delete_attribute": lambda frame, name: frame._store(frame.pop()[0], name),
    "store_item": lambda frame, _: frame._change(frame.pop(3)),
    "delete_item": lambda frame, _: frame._change(frame.pop(2)),
    "pop": lambda frame, count: frame.pop(count),  # an import, or a result that is not used
    **{name.removeprefix("_do_"): method for name, method in vars(Frame).items() if name.startswith("_do_")},
}
_BUILTINS: Final[dict[str, Callable[[Frame, list[Symbol]], tuple[Symbol] | None]]] = {
    "getattr": Frame._getattr, "hasattr": Frame._hasattr, "setattr": Frame._setattr, "globals": Frame._namespace,
    "vars": Frame._namespace, "type": Frame._type, "super": Frame._super_call,
}  # fmt: skip
"""Builtins that access an attribute or a class."""


def _constants(code: types.CodeType, depth: int = 3) -> Iterator[str]:
    todo: list[Any] = list(code.co_consts)
    while todo:
        each = todo.pop()
        if type(each) is str:
            yield each
        elif type(each) in (tuple, frozenset):
            todo += each
        elif type(each) is types.CodeType and depth:
            yield from _constants(each, depth - 1)
