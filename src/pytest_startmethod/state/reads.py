"""Find what code reads and writes beyond its own variables, from its bytecode and without running it.

Starts from the functions, objects and classes that a child is given, and visits every user function that they lead to.
Each is followed with symbols in place of values (`frame`): a symbol knows the live object that a global or an attribute
of a module, class or object currently refers to, so that ``pkg.settings.DEBUG`` resolves completely, and so does the
class of ``self``. A computed name (``globals()[prefix + key]``) is not found. An attribute of an unknown object counts
as one of every class that the code uses.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from os.path import abspath
from typing import Any, Final

from .._compat import cpython
from ..child.process_state import existing_logger
from ..child.values import (
    MISSING,
    class_attribute,
    class_name,
    instance_namespace,
    module_of,
    public_name,
    resolve,
)
from ..model.observed import Read, Reads, Step, Where
from ..source.index import source_of
from .attributes import CONTAINERS, GUESSED, Attributes
from .frame import Frame
from .symbols import Bound, Captured, Constant, Each, Instance, Live, Ref, Several, Space, Symbol, texts_of, unbound

MAX_FUNCTIONS: Final = 2_000
_MAX_PARTS = 200
_MAX_PLACES = 20
_MAX_VARIANTS = 8
"""How many variants of a function, by its constant arguments, are followed."""
_CHANGES: Final = frozenset({
    "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "add", "discard", "update",
    "setdefault", "popitem", "appendleft", "extendleft", "popleft", "rotate", "difference_update",
    "intersection_update", "symmetric_difference_update", "subtract", "move_to_end", "__setitem__", "__delitem__",
})  # fmt: skip
_NO_STATE: Final = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_ATOMS: Final = (int, float, bool, str, bytes, type(None), types.ModuleType, types.BuiltinFunctionType)
_MAKES: Final = ("__init__", "__new__", "__post_init__")
_WRITES: Final = ("__setattr__", "__delattr__", "__setitem__", "__delitem__")
"""Special methods that are followed only where the code assigns or deletes."""
_SUBCLASSES: Final = ("__init_subclass__", "__set_name__", "__prepare__")
_STREAMS: Final = ("_io", "io", "_pytest", "pytest", "xdist", "execnet", "codecs", "encodings")
"""Modules of the classes that ``sys.stdout`` usually has."""
_SIGNALS: Final = ("signal.getsignal", "signal.raise_signal", "os.kill", "signal.alarm", "signal.setitimer")


def of(
    function: object,
    args: tuple[object, ...] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    is_user: Callable[[str], bool],
    extra: Iterable[object] = (),
    limit: int = MAX_FUNCTIONS,
) -> Reads:
    """Return what a call ``function(*args, **kwargs)`` would read and write.

    `is_user` tells whether a file is user code. `extra` are objects pickled along, such as a process's own attributes.
    At most `limit` functions are analysed, in order of distance from the call.
    """
    return Search(is_user, limit).run(function, args, dict(kwargs or {}), extra)


class Search(Attributes):
    """Follows code starting from one call; `frame.Frame` follows each function."""

    def __init__(self, is_user: Callable[[str], bool], limit: int) -> None:
        super().__init__(is_user)
        self.limit = limit
        self.queue: deque[Callable[[], None]] = deque()
        self.seen: set[Any] = set()
        self.live: dict[type, Any] = {}
        """The user's classes that the code has instances of, each with a symbol for such an instance."""
        self.done: set[tuple[type, str]] = set()
        self.variants: dict[int, int] = {}
        """How many sets of constant arguments each function was followed with, by the ``id`` of its code."""
        self.kept: list[object] = []
        """Keeps alive the objects whose ids are in `seen` and `variants`."""

    def run(self, function: object, args: tuple[object, ...], kwargs: dict[str, Any], extra: Iterable[object]) -> Reads:
        """Follow the call, and everything it leads to, until nothing new is found."""
        symbols: list[Symbol] = [Live(value, f"args[{index}]") for index, value in enumerate(args)]
        named: dict[str, Symbol] = {name: Live(value, f"kwargs[{name!r}]") for name, value in kwargs.items()}
        self.travels(function, "target")
        for index, value in enumerate(args):
            self.travels(value, f"args[{index}]")
        for name, value in kwargs.items():
            self.travels(value, f"kwargs[{name!r}]")
        for each in extra:
            self.travels(each, "")
        self.call(Live(function, "target"), symbols, named, 0)
        while True:
            while self.queue and self.out.functions < self.limit:
                self.queue.popleft()()
            if self.out.functions >= self.limit or not self.match():
                break
        # The rest refers back to this search, and would keep the call's arguments alive until cycles are collected.
        for each_ in (self.queue, self.kept, self.live, self.unknown):
            each_.clear()
        kept: dict[object, Read] = {}
        for read in self.reads:
            if (read.whole or not read.refined or read.changed) and not read.after_write:
                read.changed = read.changed and not read.whole
                known = kept.setdefault((read.module, read.names, read.steps), read)
                known.changed = read.changed = known.changed and read.changed
                if read.depth < known.depth:
                    kept[read.module, read.names, read.steps] = read
                    read.also = [*known.also, known.where]
                elif read is not known and len(known.also) < _MAX_PLACES:
                    known.also.append(read.where)
        self.out.reads = list(kept.values())
        self.out.all_reads = self.reads
        self.out.roots = list(dict.fromkeys(self.out.roots))
        return self.out

    # the payload

    def travels(self, value: Any, origin: str) -> None:
        """Follow the functions and classes that travel with the payload."""
        todo, seen = deque([(value, origin, 0)]), set[int]()
        while todo and len(seen) < _MAX_PARTS:
            each, path, depth = todo.popleft()
            if id(each) in seen or depth > 5:
                continue
            seen.add(id(each))
            cls = type(each)
            if cls is types.FunctionType:
                self.root(each.__module__)
                names = tuple(each.__qualname__.split("."))
                found = resolve(sys.modules.get(each.__module__), names) is each
                if found and each.__closure__:
                    self.homes.setdefault(id(each), (each.__module__, names))
                    code = getattr(each.__dict__.get("__wrapped__"), "__code__", each.__code__)
                    where = Where(abspath(code.co_filename), code.co_firstlineno, each.__qualname__, path)
                    self.dispatches(each, each.__module__, names, where, 0)
                self.function(each, None, 0)
            elif cls is types.MethodType:
                todo.append((each.__self__, path, depth + 1))
            elif cls is functools.partial:
                todo += [(part, path, depth + 1) for part in (each.func, *each.args, *each.keywords.values())]
            elif issubclass(cls, type):
                self.root(class_name(each)[0])
                self.alive(each, Instance(each))
            elif cls in (list, tuple, set, frozenset, deque):
                todo += [(part, f"{path}[{n}]", depth + 1) for n, part in enumerate(list(each)[:_MAX_PARTS])]
            elif cls is dict:
                todo += [(part, f"{path}[{key!r}]" if type(key) in (str, int) else path, depth + 1)
                         for key, part in list(each.items())[:_MAX_PARTS]]  # fmt: skip
            elif cls.__module__ != "builtins":
                self.root(class_name(cls)[0])
                self.alive(cls, Live(each, path))
                todo += [(part, f"{path}.{name}", depth + 1) for name, part in instance_namespace(each).items()]

    def root(self, module: object) -> None:
        """Record a module that a child imports to load its payload."""
        if type(module) is str and module in sys.modules and not module.startswith("multiprocessing"):
            self.out.roots.append(module)

    def alive(self, cls: type, symbol: object) -> None:
        """Record that the code has instances of `cls`, and follow its special methods, which run implicitly."""
        if cls in self.live or not self.users_class(cls):
            if cls in self.live and isinstance(self.live[cls], Instance):
                self.live[cls] = symbol
            return
        self.live[cls] = symbol
        if type(cls) is not type:
            self.alive(type(cls), Live(cls, ""))
        for owner in type.__dict__["__mro__"].__get__(cls):
            for name, value in list(type.__getattribute__(owner, "__dict__").items()):
                raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
                if not (name.startswith("__") and name.endswith("__") and type(raw) is types.FunctionType):
                    continue
                if name in _WRITES or name in _SUBCLASSES or (issubclass(cls, type) and name in _MAKES):
                    continue  # the latter run when a class is created, at import
                makes = name in _MAKES
                self.function(raw, Live(cls, "") if raw is not value else Instance(cls) if makes else symbol, GUESSED)

    def subclassed(self, bases: Iterable[Symbol], depth: int) -> None:
        """Follow the code that runs when a subclass is created: ``__init_subclass__`` and the metaclass's methods."""
        for symbol in map(unbound, bases):
            base: Any = symbol.value if isinstance(symbol, (Ref, Live)) else None
            if not issubclass(type(base), type) or not self.users_class(base):
                continue
            hook = class_attribute(base, "__init_subclass__")[1]
            for value in (hook, *(class_attribute(type(base), name)[1] for name in ("__new__", "__init__"))):
                raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
                if type(raw) is types.FunctionType:
                    self.bound_call(raw, [Live(base if value is hook else type(base), "")], {}, depth)

    def match(self) -> bool:
        """Look up attributes of unknown objects in the classes in use; return whether that queued new functions."""
        before = len(self.done)
        for cls, symbol in list(self.live.items()):
            for name, (where, depth) in list(self.unknown.items()):
                if (cls, name) not in self.done:
                    self.done.add((cls, name))
                    if class_attribute(cls, name)[0] is not None:
                        self.class_attr(cls, name, symbol, where, depth % GUESSED + GUESSED)
        return len(self.done) > before and bool(self.queue)

    # functions

    def function(
        self, func: types.FunctionType, receiver: object, depth: int, bound: Mapping[str, object] | None = None
    ) -> None:
        """Queue a function to be followed, unless it was followed with equivalent arguments."""
        code = func.__code__
        constants = [n for n, s in (bound or {}).items() if isinstance(s, (Constant, Each, Several))]
        if constants:
            self.variants[id(code)] = self.variants.get(id(code), 0) + 1
            if self.variants[id(code)] > _MAX_VARIANTS:
                bound = {n: s for n, s in (bound or {}).items() if n not in constants}
        symbols = tuple(sorted((n, self.kind_of(s)) for n, s in (bound or {}).items()))
        # functions made by a decorator share their code, but not their captured variables
        key = (id(code), id(func) if func.__closure__ else None, self.kind_of(receiver), symbols)
        if key in self.seen:
            return
        self.seen.add(key)
        self.kept.append((func, receiver, bound))
        if not self.is_user(code.co_filename):
            if code.co_filename.startswith("<") and self.users_module(func.__module__):  # a dataclass's __init__
                self.out.functions += 1
                self.queue.append(lambda: self.enter(func, receiver, depth, dict(bound or {})))
            for inner in _inside(func):  # wrapped by a library's decorator
                self.function(inner, receiver, depth)
            return
        self.out.functions += 1
        self.queue.append(lambda: self.enter(func, receiver, depth, dict(bound or {})))

    def kind_of(self, symbol: object) -> Any:
        """Return a key under which two symbols are equivalent for following a function."""
        if isinstance(symbol, Ref):
            return symbol.module, symbol.names, str(symbol.steps)
        if isinstance(symbol, (Constant, Each)):
            return texts_of(symbol)
        if isinstance(symbol, Live):
            return id(symbol.value)
        if isinstance(symbol, Several):
            return tuple((key, self.kind_of(each)) for key, each in symbol.parts.items())
        return id(symbol.cls) if isinstance(symbol, Instance) else None

    def enter(self, func: types.FunctionType, receiver: Any, depth: int, bound: dict[str, Any]) -> None:
        """Follow a function's operations, with symbols for its parameters and cells."""
        code = func.__code__
        if receiver is not None and code.co_argcount:
            bound.setdefault(code.co_varnames[0], receiver)
        elif receiver is None and code.co_argcount:
            receiver = bound.get(code.co_varnames[0])
        cells: dict[str, Any] = {}
        home = self.homes.get(id(func))
        for name, cell in zip(code.co_freevars, func.__closure__ or (), strict=False):
            filled, value = cpython.cell_value(cell)
            if filled:
                if home is None or type(value) in _NO_STATE or issubclass(type(value), type):
                    cells[name] = Live(value, name)
                    self.uses(value, cells[name], depth)
                else:
                    cells[name] = Captured(home[0], home[1], name, value)
                    self.uses(value, None, depth)
        self.defaults(func, depth)
        qualified = getattr(code, "co_qualname", None) or func.__qualname__
        frame = Frame(self, code, func.__globals__, qualified, bound, cells, depth, receiver)
        if code.co_filename.startswith("<"):
            frame.generated = _class_of(func)
        frame.run()

    def defaults(self, func: types.FunctionType, depth: int) -> None:
        """Record that a function's default values are read."""
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(func, name)
            parts = list(value.values()) if type(value) is dict else list(value or ())
            for part in parts:
                self.uses(part, None, depth)
            if parts:
                code = func.__code__
                where = Where(
                    abspath(code.co_filename),
                    code.co_firstlineno,
                    func.__qualname__,
                    f"default of {func.__name__}",
                )
                names = (*func.__qualname__.split("."), name)
                if "<locals>" not in names:
                    self.note(func.__module__, names, (), where, depth).whole = True

    def uses(self, value: Any, symbol: Symbol, depth: int) -> None:
        """Follow the functions and classes that a name's value is or contains."""
        cls = type(value)
        if cls in _ATOMS or cls is property:
            return
        named = symbol if isinstance(symbol, Ref) and not symbol.steps else None
        if cls is types.FunctionType:
            if named is not None:
                self.homes.setdefault(id(value), (named.module, named.names))
            self.function(value, None, depth + 1)
            if named is not None:
                self.dispatches(value, named.module, named.names, named.read.where, depth)
        elif cls is types.MethodType:
            self.call(Live(value, ""), [], {}, depth)
        elif issubclass(cls, type):
            self.alive(value, Instance(value))
            if isinstance(symbol, Ref):
                self.extended(value, symbol.read.where, depth)
        elif cls in (dict, list, tuple, set, frozenset, deque) or cls.__name__ in ("OrderedDict", "defaultdict"):
            self.holds(value, depth)
        elif symbol is not None and cls.__module__ != "builtins" and cls is not functools.partial:
            self.alive(cls, symbol)
        for part in _wrapped(value):
            self.uses(part, None, depth)

    def dispatches(
        self, function: types.FunctionType, module: str, names: tuple[str, ...], where: Where, depth: int
    ) -> None:
        """Record that the implementations of a `functools.singledispatch` function are read."""
        registry = function.__dict__.get("registry")
        if type(registry) is types.MappingProxyType:
            self.note(module, (*names, "registry"), (), where, depth).whole = True
            for part in list(registry.values())[:_MAX_PARTS]:
                self.uses(part, None, depth)

    def holds(self, container: Any, depth: int) -> None:
        """Follow the functions and classes in a container, and the classes of its other items."""
        parts = list(container.values()) if issubclass(type(container), dict) else list(container)
        for part in parts[:_MAX_PARTS]:
            kind = type(part)
            if kind in (types.FunctionType, types.MethodType, functools.partial) or issubclass(kind, type):
                self.uses(part, None, depth)
            elif kind.__module__ != "builtins":
                self.alive(kind, Instance(kind))

    # calls

    def call(
        self, callee: Symbol, args: list[Symbol], kwargs: Mapping[str, Symbol], depth: int, where: Where | None = None
    ) -> Symbol:
        """Follow a call with symbols for its arguments, and return the symbol of its result."""
        if isinstance(callee, Bound):
            result = self.method(callee, args, where, depth)
            if result is not None:
                return result
            target = callee.symbol
            if isinstance(target, Ref) and type(target.value) is types.FunctionType:
                self.bound_call(target.value, [callee.owner, *args], kwargs, depth)
                return None
            callee = target
        if isinstance(callee, Instance):
            self.special(callee, "__call__", where, depth)
        if not isinstance(callee, (Ref, Live)) or callee.value is MISSING:
            return None
        if isinstance(callee, Ref):
            callee.read.called = True
            known = self.known(callee, args, where)
            if known is not None:
                return known
        value = callee.value
        for _ in range(10):
            if type(value) is not functools.partial:
                break
            args = [*(Live(part, "") for part in value.args), *args]
            kwargs = {**{name: Live(part, "") for name, part in value.keywords.items()}, **kwargs}
            value = value.func
        if type(value) is types.MethodType:
            args = [Live(value.__self__, "target.__self__"), *args]
            value = value.__func__
        if type(value) is types.FunctionType:
            self.library(value.__module__, where)
            self.bound_call(value, args, kwargs, depth)
        elif issubclass(type(value), type):
            self.library(class_name(value)[0], where)
            return self.construct(value, args, kwargs, depth, where)
        elif type(value).__module__ != "builtins":
            self.special(callee, "__call__", where, depth)
            _, function = class_attribute(type(value), "__call__")
            if type(function) is types.FunctionType:
                self.bound_call(function, [callee, *args], kwargs, depth)
        return None

    def construct(
        self, cls: type, args: list[Symbol], kwargs: Mapping[str, Symbol], depth: int, where: Where | None
    ) -> Instance | None:
        """Follow the creation of an instance: the metaclass's ``__call__``, ``__new__`` and ``__init__``."""
        users = self.users_class(cls)
        if users:
            self.alive(cls, Instance(cls))
        for kind, name, receiver in (
            (type(cls), "__call__", Live(cls, "")), (cls, "__new__", Live(cls, "")), (cls, "__init__", Instance(cls)),
        ):  # fmt: skip
            owner, value = class_attribute(kind, name)
            if owner is None or owner is type:
                continue
            raw = value.__func__ if type(value) is staticmethod else value
            if type(raw) is types.FunctionType and (users or self.users_class(owner)):
                self.bound_call(raw, [receiver, *args], kwargs, depth)
            if where is not None and (self.users_class(owner) or self.replaced(kind, name)):
                module, qualname = public_name(owner)
                self.note(module, (*qualname.split("."), name), (), where, depth).called = True
        return Instance(cls) if class_name(cls)[0] != "builtins" else None

    def special(self, symbol: Symbol, name: str, where: Where | None, depth: int) -> None:
        """Record that an operator or builtin calls a special method, if the object's class is the user's."""
        symbol = unbound(symbol)
        if where is None or not isinstance(symbol, (Instance, Live, Ref)):
            if where is not None and symbol is None and name in _WRITES:
                self.unknown.setdefault(name, (where, depth))
            return
        cls = symbol.cls if isinstance(symbol, Instance) else type(symbol.value)
        if cls.__module__ == "builtins":
            return
        owner = class_attribute(cls, name)[0]
        if owner is not None and self.users_class(owner):
            self.class_attr(cls, name, symbol, where, depth)

    def captured(self, held: Captured, where: Where, depth: int) -> Ref:
        """Return the symbol of a captured variable, and record that it is read."""
        names: tuple[str, ...] = (*held.names, "__closure__")
        steps: tuple[Step, ...] = (("item", held.variable),)
        ref = Ref(held.module, names, steps, held.value, self.note(held.module, names, steps, where, depth))
        self.uses(held.value, ref, depth)
        return ref

    def bound_call(
        self, func: types.FunctionType, args: list[Symbol], kwargs: Mapping[str, Symbol], depth: int
    ) -> None:
        """Follow a call of a function, with symbols for its known arguments."""
        for _ in range(10):
            wrapped = func.__dict__.get("__wrapped__")
            if type(wrapped) is not types.FunctionType or self.is_user(func.__code__.co_filename):
                break
            func = wrapped
        code = func.__code__
        count = code.co_argcount + code.co_kwonlyargcount
        given = dict(zip(code.co_varnames[: code.co_argcount], args, strict=False))
        given.update({name: symbol for name, symbol in kwargs.items() if name in code.co_varnames[:count]})
        further: list[dict[int | str, Symbol]] = []
        if code.co_flags & inspect.CO_VARARGS:
            further.append(dict(enumerate(args[code.co_argcount :])))
        if code.co_flags & inspect.CO_VARKEYWORDS:
            further.append({name: symbol for name, symbol in kwargs.items() if name not in given})
        given.update(zip(code.co_varnames[count:], map(Several, further), strict=False))
        known = (Ref, Live, Instance, Each, Several)
        kept = {name: symbol for name, symbol in given.items() if isinstance(symbol, known)
                or (isinstance(symbol, Constant) and type(symbol.value) is str)}  # fmt: skip
        self.function(func, None, depth + 1, kept)

    def method(self, callee: Bound, args: list[Symbol], where: Where | None, depth: int) -> Symbol:
        """Follow a call of a builtin type's method: mutators and ``get``."""
        owner, texts = callee.owner, texts_of(args[0]) if args else ()
        if where is None:
            return None
        if isinstance(owner, (Several, Space)):
            return self.item(owner, texts[0], where, depth) if callee.name in ("get", "pop") and texts else None
        if not isinstance(owner, (Ref, Live)) or owner.value is MISSING:
            return None
        kind = type(owner.value).__name__
        if kind == "_Environ":
            for text in texts:
                self.out.environment.setdefault(text, where)
            return Constant(None)
        if callee.name in _CHANGES and kind in CONTAINERS:
            self.changes(owner, where)
        if kind in CONTAINERS and isinstance(owner, Ref):
            key = args[0].value if args and isinstance(args[0], Constant) else texts[0] if len(texts) == 1 else MISSING
            if callee.name == "get" and key is not MISSING:
                return self.item(owner, key, where, depth) or Constant(None)
            if callee.name not in _CHANGES or callee.name in ("pop", "popleft", "setdefault", "popitem"):
                owner.read.whole = True
        return None

    def printed(self, where: Where, depth: int) -> None:
        """Record that ``sys.stdout`` is written to, if it is not one of Python's or the test runner's own."""
        if type(sys.stdout).__module__.partition(".")[0] not in _STREAMS:
            self.note("sys", ("stdout",), (), where, depth).whole = True

    def known(self, callee: Ref, args: list[Symbol], where: Where | None) -> Symbol:
        """Follow calls of functions with a known meaning."""
        name = f"{callee.module}.{'.'.join(callee.names)}"
        texts = texts_of(args[0]) if args else ()
        if where is None:
            return None
        if name == "logging.getLogger":
            text = texts[0] if texts else ""
            self.out.loggers.setdefault(text, where)
            logger = existing_logger(text) if texts or not args else None
            return Live(logger, "") if logger is not None else None
        if name == "os.getenv":
            for text in texts:
                self.out.environment.setdefault(text, where)
        elif name in _SIGNALS:
            for each in args:
                if isinstance(each, Ref) and each.module == "signal":
                    self.out.signals.setdefault(each.names[-1], where)
        elif name == "importlib.import_module" and texts:
            self.out.imports.setdefault(texts[0], where)
            module = sys.modules.get(texts[0])
            if module is not None and type(module_of(module).get("__name__")) is str:
                return self.module(module, where)
        return None


def _class_of(func: types.FunctionType) -> tuple[str, int]:
    """Return file and line of the class for which a method's code was generated."""
    home = module_of(sys.modules.get(func.__module__)).get("__file__")
    file = abspath(home) if type(home) is str else func.__code__.co_filename
    cls = func.__qualname__.rpartition(".")[0]
    return file, next((node.lineno for node, name in source_of(file).index.classes if name == cls), 1)


def _wrapped(value: Any) -> Iterable[Any]:
    """Return what a partial, a static or class method or an `lru_cache` wraps."""
    kind = type(value)
    if kind is functools.partial:
        return (value.func, *value.args, *value.keywords.values())
    if kind in (staticmethod, classmethod):
        return (value.__func__,)
    wrapped = instance_namespace(value).get("__wrapped__") if kind.__name__ == "_lru_cache_wrapper" else None
    return (wrapped,) if type(wrapped) is types.FunctionType else ()


def _inside(func: types.FunctionType) -> Iterator[types.FunctionType]:
    """Yield the functions that a library's function wraps, or holds in its cells."""
    wrapped = func.__dict__.get("__wrapped__")
    if type(wrapped) is types.FunctionType:
        yield wrapped
    for cell in (func.__closure__ or ())[:20]:
        filled, value = cpython.cell_value(cell)
        if filled and type(value) is functools.partial:
            value = value.func
        if filled and type(value) is types.FunctionType:
            yield value
