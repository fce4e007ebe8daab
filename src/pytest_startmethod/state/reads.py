"""What code reads and writes beyond its own variables, by its bytecode: nothing of it is run.

From the functions, objects and classes that a child is given, through all functions of the user's that they lead to.
Each function's instructions are followed with symbols in the place of values: a symbol knows the live object that a
global or an attribute of a module, class or object leads to at this moment, so that ``pkg.settings.DEBUG`` is known
with all that stands before it, and so is the class of ``self``. What cannot be known that way (``globals()[name]``, an
attribute by a computed name) is not seen. An attribute of an unknown object is taken for one of every class that
the code uses.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .._compat import cpython
from ..child.process_state import READERS, SETTINGS
from ..child.values import (
    MISSING,
    VIRTUAL,
    class_attribute,
    class_name,
    instance_namespace,
    is_mock,
    module_of,
    public_name,
    resolve,
    subclasses,
    virtual_subclasses,
)
from ..model.observed import Read, Reads, Step, Where, Write

MAX_FUNCTIONS: Final = 2_000
GUESSED: Final = 1_000
"""A `Read.depth` from here on: the way to it leads through an object that nothing is known of."""
_MAX_PARTS = 200
_MAX_PLACES = 20
_MUTATORS: Final = frozenset(
    [
        "append",
        "extend",
        "insert",
        "remove",
        "pop",
        "clear",
        "sort",
        "reverse",
        "add",
        "discard",
        "update",
        "setdefault",
        "popitem",
        "appendleft",
        "extendleft",
        "popleft",
        "rotate",
        "difference_update",
        "intersection_update",
        "symmetric_difference_update",
        "subtract",
        "move_to_end",
        "__setitem__",
        "__delitem__",
    ]
)
_CONTAINERS: Final = frozenset({"dict", "list", "set", "OrderedDict", "defaultdict", "deque", "Counter", "bytearray"})


# -- symbols ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Ref:
    """A value that a dotted name leads to."""

    module: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    value: Any
    read: Read
    cls: type | None = None
    """The class that an attribute was looked up on, where that is not the one that has it."""


@dataclass(slots=True, eq=False)
class _Obj:
    """A live object that travels with the target: an argument or what is in one, or in a cell."""

    value: Any
    origin: str


@dataclass(slots=True, eq=False)
class _Made:
    """Some instance of a class."""

    cls: type


@dataclass(slots=True, eq=False)
class _Bound:
    """What an attribute of a symbol is, for a call."""

    owner: Any
    name: str
    symbol: Any


@dataclass(slots=True, eq=False)
class _Const:
    value: Any


@dataclass(slots=True, eq=False)
class _Space:
    """The ``__dict__`` of what a symbol stands for."""

    symbol: Any


@dataclass(slots=True, eq=False)
class _Captured:
    """A variable that a function with a name of its own took from the function around it."""

    module: str
    names: tuple[str, ...]
    variable: str
    value: Any


@dataclass(slots=True, eq=False)
class _Super:
    """``super()`` in a method of `owner`, of an object of `cls`."""

    cls: type
    owner: type
    receiver: Any


_NULL = _Const(None)

# -- instructions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction, reduced to what matters."""

    name: str
    arg: int
    value: Any
    text: str
    line: int
    offset: int
    target: int | None
    effect: int
    ends: bool


_decoded: dict[int, tuple[types.CodeType, list[_Step]]] = {}
"""By identity: code objects are compared and hashed by all that they hold."""
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD",
         "JUMP_BACKWARD_NO_INTERRUPT")  # fmt: skip


def _instructions(code: types.CodeType) -> list[_Step]:
    known = _decoded.get(id(code))
    if known is not None:
        return known[1]
    steps: list[_Step] = []
    line = code.co_firstlineno
    for each in dis.get_instructions(code):
        positions = getattr(each, "positions", None)  # 3.11
        if positions is not None and positions.lineno is not None:
            line = positions.lineno
        elif type(each.starts_line) is int:
            line = each.starts_line
        target = each.argval if each.opcode in _JUMPS and type(each.argval) is int else None
        try:
            effect = dis.stack_effect(each.opcode, each.arg, jump=False)
        except ValueError:
            effect = 0
        text = f"{each.opname} {each.argrepr}".strip()
        steps.append(
            _Step(
                each.opname, each.arg or 0, each.argval, text, line, each.offset, target, effect, each.opname in _ENDS
            )
        )
    _decoded[id(code)] = code, steps
    return steps


# -- the search ------------------------------------------------------------------------------------------------------


def of(
    function: Any,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    is_user: Callable[[str], bool],
    extra: Iterable[Any] = (),
    limit: int = MAX_FUNCTIONS,
) -> Reads:
    """Return what a call ``function(*args, **kwargs)`` would read and write. `is_user` says whose code a file is.

    `extra` are objects that travel along, a process's own attributes for one. No more than `limit` functions are
    looked at, those first that the fewest calls lead to.
    """
    return _Search(is_user, limit).run(function, args, dict(kwargs or {}), extra)


class _Search:
    def __init__(self, is_user: Callable[[str], bool], limit: int) -> None:
        self.is_user = is_user
        self.limit = limit
        self.out = Reads()
        self.queue: deque[Callable[[], None]] = deque()
        self.seen: set[Any] = set()
        self.live: dict[type, Any] = {}
        """Classes of the user's that the code has objects of, each with a symbol for such an object."""
        self.unknown: dict[str, tuple[Where, int]] = {}
        """Attributes of objects that nothing is known of."""
        self.done: set[tuple[type, str]] = set()
        self.written: set[Any] = set()
        self.reads: list[Read] = []
        self.kept: list[Any] = []
        """What ids in `seen` stand for."""
        self.homes: dict[int, tuple[str, tuple[str, ...]]] = {}
        """Where functions are found that have captured something, by their identity."""

    def run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], extra: Iterable[Any]) -> Reads:
        symbols = [_Obj(value, f"args[{index}]") for index, value in enumerate(args)]
        named = {name: _Obj(value, f"kwargs[{name!r}]") for name, value in kwargs.items()}
        self.travels(function, "target")
        for each in (*symbols, *named.values()):
            self.travels(each.value, each.origin)
        for each in extra:
            self.travels(each, "")
        self.call(_Obj(function, "target"), symbols, named, 0)
        while True:
            while self.queue and self.out.functions < self.limit:
                self.queue.popleft()()
            if self.out.functions >= self.limit or not self.match():
                break
        # What is left over refers to this search, and keeps what the code was called with until cycles are collected.
        for each_ in (self.queue, self.kept, self.live, self.unknown):
            each_.clear()
        kept: dict[Any, Read] = {}
        for read in self.reads:
            if (read.whole or not read.refined) and not read.after_write:
                known = kept.setdefault((read.module, read.names, read.steps), read)
                if read.depth < known.depth:
                    kept[read.module, read.names, read.steps] = read
                    read.also = [*known.also, known.where]
                elif read is not known and len(known.also) < _MAX_PLACES:
                    known.also.append(read.where)
        self.out.reads = list(kept.values())
        self.out.all_reads = self.reads
        self.out.roots = list(dict.fromkeys(self.out.roots))
        return self.out

    # what travels

    def travels(self, value: Any, origin: str) -> None:
        """Take the functions and classes in something that is pickled for the child as used by it."""
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
                if each.__closure__ and resolve(sys.modules.get(each.__module__), names) is each:
                    self.homes.setdefault(id(each), (each.__module__, names))
                self.function(each, None, 0)
            elif cls is types.MethodType:
                todo.append((each.__self__, path, depth + 1))
            elif cls is functools.partial:
                todo += [(part, path, depth + 1) for part in (each.func, *each.args, *each.keywords.values())]
            elif issubclass(cls, type):
                self.root(class_name(each)[0])
                self.alive(each, _Made(each))
            elif cls in (list, tuple, set, frozenset, deque):
                todo += [(part, f"{path}[{n}]", depth + 1) for n, part in enumerate(list(each)[:_MAX_PARTS])]
            elif cls is dict:
                todo += [(part, f"{path}[{key!r}]" if type(key) in (str, int) else path, depth + 1)
                         for key, part in list(each.items())[:_MAX_PARTS]]  # fmt: skip
            elif cls.__module__ != "builtins":
                self.root(class_name(cls)[0])
                self.alive(cls, _Obj(each, path))
                todo += [(part, f"{path}.{name}", depth + 1) for name, part in instance_namespace(each).items()]

    def root(self, module: Any) -> None:
        if type(module) is str and module in sys.modules and not module.startswith("multiprocessing"):
            self.out.roots.append(module)

    def alive(self, cls: type, symbol: Any) -> None:
        """Know that the code has objects of `cls`: what runs without being named is looked at now."""
        if cls in self.live or not self.users_class(cls):
            if cls in self.live and type(self.live[cls]) is _Made:
                self.live[cls] = symbol
            return
        self.live[cls] = symbol
        for owner in type.__dict__["__mro__"].__get__(cls):
            for name, value in list(type.__getattribute__(owner, "__dict__").items()):
                if name.startswith("__") and name.endswith("__") and type(value) is types.FunctionType:
                    makes = name in ("__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__")
                    self.function(value, _Made(cls) if makes else symbol, GUESSED)

    def users_class(self, cls: type) -> bool:
        for owner in type.__dict__["__mro__"].__get__(cls):
            module = sys.modules.get(class_name(owner)[0])
            file = module_of(module).get("__file__") if module is not None else None
            if type(file) is str and self.is_user(file):
                return True
        return False

    def match(self) -> bool:
        """Look attributes of unknown objects up in the classes that the code uses; return whether that led on."""
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
        self, func: types.FunctionType, receiver: Any, depth: int, bound: Mapping[str, Any] | None = None
    ) -> None:
        code = func.__code__
        symbols = tuple(sorted((n, self.kind_of(s)) for n, s in (bound or {}).items()))
        # a decorator's functions share their code and differ in what they captured
        key = (id(code), id(func) if func.__closure__ else None, self.kind_of(receiver), symbols)
        if key in self.seen:
            return
        self.seen.add(key)
        self.kept.append((func, receiver, bound))
        if not self.is_user(code.co_filename):
            for inner in _inside(func):  # a library's decorator
                self.function(inner, receiver, depth)
            return
        self.out.functions += 1
        self.queue.append(lambda: self.enter(func, receiver, depth, dict(bound or {})))

    def kind_of(self, symbol: Any) -> Any:
        if type(symbol) is _Ref:
            return symbol.module, symbol.names, str(symbol.steps)
        if type(symbol) is _Obj:
            return id(symbol.value)
        return id(symbol.cls) if type(symbol) is _Made else None

    def enter(self, func: types.FunctionType, receiver: Any, depth: int, bound: dict[str, Any]) -> None:
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
                if home is None or type(value) in _NO_STATE or isinstance_of(value, type):
                    cells[name] = _Obj(value, name)
                    self.uses(value, cells[name], depth)
                else:
                    cells[name] = _Captured(home[0], home[1], name, value)
                    self.uses(value, None, depth)
        self.defaults(func, depth)
        qualified = getattr(code, "co_qualname", None) or func.__qualname__
        builtins = func.__globals__.get("__builtins__")
        _Frame(self, code, func.__globals__, builtins, qualified, bound, cells, depth, receiver).run()

    def defaults(self, func: types.FunctionType, depth: int) -> None:
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(func, name)
            parts = list(value.values()) if type(value) is dict else list(value or ())
            for part in parts:
                self.uses(part, None, depth)
            if parts:
                code = func.__code__
                where = Where(
                    os.path.abspath(code.co_filename),
                    code.co_firstlineno,
                    func.__qualname__,
                    f"default of {func.__name__}",
                )
                names = (*func.__qualname__.split("."), name)
                if "<locals>" not in names:
                    self.note(func.__module__, names, (), where, depth).whole = True

    # reading

    def note(
        self,
        module: str,
        names: tuple[str, ...],
        steps: tuple[Step, ...],
        where: Where,
        depth: int,
        inner: Where | None = None,
    ) -> Read:
        read = Read(module, names, steps, where, inner if inner != where else None, depth=depth)
        self.reads.append(read)
        top = module.partition(".")[0]
        if top in _AMBIENT:
            self.out.touched.setdefault(
                "numpy.random"
                if module.startswith("numpy.random") or (names[:1] == ("random",) and top == "numpy")
                else module,
                where,
            )
        setting = f"{module}.{names[0]}" if names else module
        setting = READERS.get(setting, setting)
        if setting in _LOOKED_AT:
            self.out.touched.setdefault(setting, where)
        elif top == "numpy" and not module.startswith("numpy.random"):
            self.out.touched.setdefault("numpy.geterr", where)
            self.out.touched.setdefault("numpy.get_printoptions", where)
        elif module in ("asyncio", "mimetypes", "pandas", "tempfile"):
            self.out.touched.setdefault(module, where)
        return read

    def ref(self, module: str, names: tuple[str, ...], value: Any, where: Where, depth: int) -> _Ref:
        """Return the symbol of a module's, or a class's, name."""
        read = self.note(module, names, (), where, depth)
        ref = _Ref(module, names, (), value, read)
        self.uses(value, ref, depth)
        return ref

    def uses(self, value: Any, symbol: Any, depth: int) -> None:
        """Follow what a name leads to: functions and classes, also in containers."""
        cls = type(value)
        if cls in (int, float, bool, str, bytes, type(None), types.ModuleType, types.BuiltinFunctionType):
            return
        if cls is types.FunctionType:
            if type(symbol) is _Ref and not symbol.steps:
                self.homes.setdefault(id(value), (symbol.module, symbol.names))
            self.function(value, None, depth + 1)
            registry = value.__dict__.get("registry")  # of functools.singledispatch
            if type(registry) is types.MappingProxyType and type(symbol) is _Ref and not symbol.steps:
                self.note(symbol.module, (*symbol.names, "registry"), (), symbol.read.where, depth).whole = True
                for part in list(registry.values())[:_MAX_PARTS]:
                    self.uses(part, None, depth)
        elif cls is types.MethodType:
            self.call(_Obj(value, ""), [], {}, depth)
        elif issubclass(cls, type):
            self.alive(value, _Made(value))
            if type(symbol) is _Ref:
                self.extended(value, symbol.read.where, depth)
        elif cls is functools.partial:
            for part in (value.func, *value.args, *value.keywords.values()):
                self.uses(part, None, depth)
        elif cls in (staticmethod, classmethod):
            self.uses(value.__func__, None, depth)
        elif cls is property:
            pass
        elif cls in (dict, list, tuple, set, frozenset, deque) or cls.__name__ in ("OrderedDict", "defaultdict"):
            parts = list(value.values()) if issubclass(cls, dict) else list(value)
            for part in parts[:_MAX_PARTS]:
                if type(part) in (types.FunctionType, types.MethodType, functools.partial) or issubclass(
                    type(part), type
                ):
                    self.uses(part, None, depth)
                elif type(part).__module__ != "builtins":
                    self.alive(type(part), _Made(type(part)))
        elif cls.__name__ == "_lru_cache_wrapper":
            wrapped = instance_namespace(value).get("__wrapped__")
            if type(wrapped) is types.FunctionType:
                self.function(wrapped, None, depth + 1)
        elif symbol is not None and cls.__module__ != "builtins":
            self.alive(cls, symbol)

    def extended(self, cls: type, where: Where, depth: int) -> None:
        """Note what is added to a class from outside it: the virtual subclasses of an ABC, members of an Enum."""
        registered = virtual_subclasses(cls)
        if registered and any(map(self.users_class, (cls, *registered))):
            name = VIRTUAL
        elif class_attribute(cls, "_member_map_")[0] is cls and self.users_class(cls):
            name = "_member_map_"
        else:
            return
        module, qualname = public_name(cls)
        if "<locals>" not in qualname:
            self.note(module, (*qualname.split("."), name), (), where, depth).whole = True

    def attr(self, symbol: Any, name: str, where: Where, depth: int) -> Any:
        """Return the symbol of ``symbol.name`` and note what was read."""
        kind = type(symbol)
        if name == "__dict__" and kind is _Ref and isinstance_of(symbol.value, types.ModuleType):
            return _Space(symbol)
        if kind is _Bound:
            symbol, kind = symbol.symbol, type(symbol.symbol)
        if kind is _Super:
            return self.class_attr(symbol.cls, name, symbol.receiver, where, depth, after=symbol.owner)
        if kind is _Made:
            if not self.users_class(symbol.cls) and not self.replaced(symbol.cls, name):
                return _Bound(symbol, name, None)
            return self.class_attr(symbol.cls, name, symbol, where, depth)
        if kind is _Obj or (kind is _Ref and not isinstance_of(symbol.value, (types.ModuleType, type))):
            return self.object_attr(symbol, name, where, depth)
        if kind is _Ref and symbol.value is not MISSING:
            value = symbol.value
            if isinstance_of(value, type):  # which class stands there is read, too: datetime.datetime may be a fake
                return self.class_attr(value, name, symbol, where, depth)
            namespace = module_of(value)
            module = namespace.get("__name__")
            if type(module) is str and sys.modules.get(module) is value:
                symbol.read.refined = True
                getter = namespace.get("__getattr__") if name not in namespace else None
                if type(getter) is types.FunctionType:
                    self.function(getter, None, depth + 1)
                return self.ref(module, (name,), namespace.get(name, MISSING), where, depth)
            return self.object_attr(symbol, name, where, depth)
        self.unknown.setdefault(name, (where, depth))
        return None

    def replaced(self, cls: type, name: str) -> bool:
        """Say whether an attribute of a library's class is a mock, or a function of the user's."""
        value = class_attribute(cls, name)[1]
        raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
        raw = raw.fget if type(raw) is property else raw
        return is_mock(raw) or (type(raw) is types.FunctionType and self.is_user(raw.__code__.co_filename))

    def object_attr(self, symbol: Any, name: str, where: Where, depth: int) -> Any:
        value = symbol.value
        if value is MISSING:
            return None
        if type(value).__name__ in ("Logger", "RootLogger") and type(value).__module__ == "logging":
            self.logger(value, name, where)
        if isinstance_of(value, type):  # a class that travels
            return self.class_attr(value, name, symbol, where, depth)
        namespace = module_of(value) if type(value) is types.ModuleType else instance_namespace(value)
        if type(symbol) is _Ref:
            symbol.read.refined = True
            if name in namespace:
                return self.deeper(symbol, ("attr", name), namespace[name], where, depth)
        elif name in namespace:
            return _Obj(namespace[name], f"{symbol.origin}.{name}")
        owner, found = class_attribute(type(value), name)
        if owner is None:
            getter, _ = class_attribute(type(value), "__getattr__")
            if type(symbol) is _Ref and getter is None:
                return self.deeper(symbol, ("attr", name), MISSING, where, depth)
            if type(symbol) is _Ref and not self.users_class(getter):
                symbol.read.whole = True
            return None
        if not self.users_class(owner) or (type(found) is property and type(found.fget) is not types.FunctionType):
            if type(symbol) is _Ref:
                if type(value).__name__ not in _CONTAINERS:
                    symbol.read.whole = True
                return _Bound(symbol, name, None)
            return _Bound(symbol, name, None)
        if type(value).__name__ in ("function", "partial"):
            return None
        result = self.class_attr(type(value), name, symbol, where, depth)
        if type(symbol) is _Ref and type(found) not in _BINDS:  # a descriptor's answer comes from all that it may read
            symbol.read.whole = True
        return result if type(result) is _Bound else _Bound(symbol, name, result)

    def deeper(self, symbol: _Ref, step: Step, value: Any, where: Where, depth: int) -> _Ref:
        symbol.read.refined = True
        steps = (*symbol.steps, step)
        read = self.note(symbol.module, symbol.names, steps, symbol.read.where, min(depth, symbol.read.depth), where)
        read.after_write = symbol.read.after_write
        ref = _Ref(symbol.module, symbol.names, steps, value, read)
        self.uses(value, ref, depth)
        return ref

    def class_attr(
        self, cls: type, name: str, receiver: Any, where: Where, depth: int, after: type | None = None
    ) -> Any:
        """Return the symbol of an attribute that is looked up on a class; `receiver` is what it binds to."""
        owner, value = class_attribute(cls, name, after)
        if owner is None:
            if type(receiver) in (_Made, _Obj) or (value is MISSING and after is not None):
                return None  # set by the instance itself
            module, qualname = public_name(cls)
            if name == "__subclasses__":
                return self.ref(module, (*qualname.split("."), name), subclasses(cls), where, depth)
            if class_attribute(type(cls), name)[0] is not None:  # of the metaclass
                meta = self.users_class(type(cls))
                return self.class_attr(type(cls), name, _Obj(cls, ""), where, depth) if meta else None
            return self.ref(module, (*qualname.split("."), name), MISSING, where, depth)
        module, qualname = public_name(owner)
        if module == "builtins" or "<locals>" in qualname:
            if "<locals>" in qualname and type(value) is types.FunctionType:
                self.function(value, receiver, depth + 1)
            return _Bound(receiver, name, None)
        read = self.note(module, (*qualname.split("."), name), (), where, depth)
        ref = _Ref(module, read.names, (), value, read)
        bound = _Made(cls) if type(receiver) is _Ref and isinstance_of(receiver.value, type) else receiver
        as_class = _Obj(cls, "") if type(receiver) is not _Ref else receiver
        raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
        if type(raw) is types.FunctionType:
            self.homes.setdefault(id(raw), (module, read.names))
        self.bind(value, bound, as_class, depth)
        if type(value) in _BINDS:
            read.called = True
            return _Bound(bound, name, ref)
        self.uses(value, ref, depth)
        return ref

    def bind(self, value: Any, receiver: Any, as_class: Any, depth: int) -> None:
        kind = type(value)
        if kind is types.FunctionType:
            self.function(value, receiver, depth + 1)
        elif kind is classmethod and type(value.__func__) is types.FunctionType:
            self.function(value.__func__, as_class, depth + 1)
        elif kind is staticmethod and type(value.__func__) is types.FunctionType:
            self.function(value.__func__, None, depth + 1)
        elif kind is property and type(value.fget) is types.FunctionType:
            self.function(value.fget, receiver, depth + 1)
        elif kind.__name__ == "cached_property":
            func = instance_namespace(value).get("func")
            if type(func) is types.FunctionType:
                self.function(func, receiver, depth + 1)

    def item(self, symbol: Any, key: Any, where: Where, depth: int) -> Any:
        if type(symbol) is _Space:
            return self.attr(symbol.symbol, key, where, depth) if type(key) is str else None
        if type(symbol) is _Bound:
            symbol = symbol.symbol
        if type(symbol) not in (_Ref, _Obj) or symbol.value is MISSING:
            return None
        value, found = symbol.value, MISSING
        if type(value).__name__ == "_Environ":
            if type(key) is str:
                self.out.environment.setdefault(key, where)
            return None
        if type(value) not in (list, tuple) and not (
            issubclass(type(value), dict) and type(value).__name__ in _CONTAINERS
        ):
            return None
        if type(key) not in (str, int, bool, type(None)):
            return None
        if issubclass(type(value), dict):
            found = dict.get(value, key, MISSING)
        elif type(key) is int and -len(value) <= key < len(value):
            found = value[key]
        if type(symbol) is _Obj:
            return None if found is MISSING else _Obj(found, f"{symbol.origin}[{key!r}]")
        return self.deeper(symbol, ("item", key), found, where, depth)

    # calls

    def call(
        self, callee: Any, args: list[Any], kwargs: Mapping[str, Any], depth: int, where: Where | None = None
    ) -> Any:
        """Follow a call with symbols for its arguments, and return a symbol for what it returns."""
        if type(callee) is _Bound:
            result = self.method(callee, args, where, depth)
            if result is not None:
                return result
            target = callee.symbol
            if type(target) is _Ref and type(target.value) is types.FunctionType:
                self.bound_call(target.value, [callee.owner, *args], kwargs, depth)
                return None
            callee = target
        if type(callee) is _Made:
            self.special(callee, "__call__", where, depth)
        if type(callee) not in (_Ref, _Obj) or callee.value is MISSING:
            return None
        value = callee.value
        if type(callee) is _Ref:
            callee.read.called = True
            known = self.known(callee, args, where)
            if known is not None:
                return known
        for _ in range(10):
            if type(value) is not functools.partial:
                break
            args = [*(_Obj(part, "") for part in value.args), *args]
            kwargs = {**{name: _Obj(part, "") for name, part in value.keywords.items()}, **kwargs}
            value = value.func
        if type(value) is types.MethodType:
            args = [_Obj(value.__self__, "target.__self__"), *args]
            value = value.__func__
        if type(value) is types.FunctionType:
            self.bound_call(value, args, kwargs, depth)
        elif isinstance_of(value, type):
            if self.users_class(value):
                self.alive(value, _Made(value))
                _, init = class_attribute(value, "__init__")
                if type(init) is types.FunctionType:
                    self.bound_call(init, [_Made(value), *args], kwargs, depth)
            for name in ("__new__", "__init__"):
                owner = class_attribute(value, name)[0]
                if where is not None and owner is not None and (self.users_class(owner) or self.replaced(value, name)):
                    module, qualname = public_name(owner)
                    self.note(module, (*qualname.split("."), name), (), where, depth).called = True
            return _Made(value) if class_name(value)[0] != "builtins" else None
        elif type(value).__module__ != "builtins":
            self.special(callee, "__call__", where, depth)
            _, function = class_attribute(type(value), "__call__")
            if type(function) is types.FunctionType:
                self.bound_call(function, [callee, *args], kwargs, depth)
        return None

    def special(self, symbol: Any, name: str, where: Where | None, depth: int) -> None:
        """Note that an operator or a builtin calls a method of an object whose class is the user's."""
        if type(symbol) is _Bound:
            symbol = symbol.symbol
        if where is None or type(symbol) not in (_Made, _Obj, _Ref):
            return
        cls = symbol.cls if type(symbol) is _Made else type(symbol.value)
        if cls.__module__ == "builtins" or issubclass(cls, type):
            return
        owner = class_attribute(cls, name)[0]
        if owner is not None and self.users_class(owner):
            self.class_attr(cls, name, symbol, where, depth)

    def captured(self, held: _Captured, where: Where, depth: int) -> _Ref:
        """Return the symbol of a variable that a function captured, and note that it is read."""
        names, steps = (*held.names, "__closure__"), (("item", held.variable),)
        ref = _Ref(held.module, names, steps, held.value, self.note(held.module, names, steps, where, depth))
        self.uses(held.value, ref, depth)
        return ref

    def bound_call(self, func: types.FunctionType, args: list[Any], kwargs: Mapping[str, Any], depth: int) -> None:
        for _ in range(10):
            wrapped = func.__dict__.get("__wrapped__")
            if type(wrapped) is not types.FunctionType or self.is_user(func.__code__.co_filename):
                break
            func = wrapped
        code = func.__code__
        names = code.co_varnames[: code.co_argcount]
        symbols = {n: s for n, s in zip(names, args, strict=False) if type(s) in (_Ref, _Obj, _Made)}
        symbols.update({n: s for n, s in kwargs.items() if type(s) in (_Ref, _Obj, _Made) and n in code.co_varnames})
        self.function(func, None, depth + 1, symbols)

    def method(self, callee: _Bound, args: list[Any], where: Where | None, depth: int) -> Any:
        """Follow a call of a builtin's method: what changes its object, and ``get``."""
        owner, value = callee.owner, getattr(callee.owner, "value", MISSING)
        if where is None or value is MISSING:
            return None
        kind = type(value).__name__
        if kind == "_Environ":
            key = args[0].value if args and type(args[0]) is _Const else None
            if type(key) is str:
                self.out.environment.setdefault(key, where)
            return _Const(None)
        if callee.name in _MUTATORS and kind in _CONTAINERS:
            self.writes(owner, where, rebinds=False)
        if kind in _CONTAINERS and type(owner) is _Ref:
            if callee.name == "get" and args and type(args[0]) is _Const:
                return self.item(owner, args[0].value, where, depth) or _Const(None)
            if callee.name not in _MUTATORS or callee.name in ("pop", "popleft", "setdefault", "popitem"):
                owner.read.whole = True
        return None

    def known(self, callee: _Ref, args: list[Any], where: Where | None) -> Any:
        """Follow calls of functions whose meaning is known."""
        name = f"{callee.module}.{'.'.join(callee.names)}"
        first = args[0] if args else None
        text = first.value if type(first) is _Const and type(first.value) is str else None
        if where is None:
            return None
        if name == "logging.getLogger":
            if type(first) is _Ref and type(first.value) is str:
                text = first.value
            self.out.loggers.setdefault(text or "", where)
            logger = sys.modules["logging"].getLogger(text) if text is not None or not args else None
            return _Obj(logger, "") if logger is not None else None
        if name == "os.getenv" and text is not None:
            self.out.environment.setdefault(text, where)
        elif name in ("signal.getsignal", "signal.raise_signal", "os.kill", "signal.alarm", "signal.setitimer"):
            for each in args:
                if type(each) is _Ref and each.module == "signal":
                    self.out.signals.setdefault(each.names[-1], where)
        elif name == "importlib.import_module" and text is not None:
            self.out.imports.setdefault(text, where)
            module = sys.modules.get(text)
            if module is not None and type(module_of(module).get("__name__")) is str:
                return _Ref(text, (), (), module, Read(text, (), (), where, refined=True))
        return None

    def logger(self, value: Any, name: str, where: Where) -> None:
        text = instance_namespace(value).get("name")
        if type(text) is str:
            self.out.loggers.setdefault("" if text == "root" else text, where)
        if name in ("getEffectiveLevel", "isEnabledFor", "level", "handlers", "hasHandlers", "filters", "propagate"):
            self.out.configuration.setdefault(name, where)

    # writing

    def writes(self, symbol: Any, where: Where, *, rebinds: bool) -> None:
        if type(symbol) is _Bound:
            symbol = symbol.symbol
        if type(symbol) is _Ref:
            self.write(Write(symbol.module, symbol.names, where, rebinds))
        elif type(symbol) is _Obj and symbol.origin:
            self.write(Write("", (symbol.origin,), where, rebinds))

    def write(self, write: Write) -> None:
        key = (write.module, write.names)
        if key not in self.written:
            self.written.add(key)
            self.out.writes.append(write)


_BINDS: Final = (types.FunctionType, classmethod, staticmethod, property)
_NO_STATE: Final = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_LOOKED_AT: Final = frozenset({*SETTINGS, *READERS.values(), "logging.getLevelName"})
_AMBIENT: Final = frozenset({"random", "decimal", "locale", "warnings", "signal", "logging", "numpy"})


def isinstance_of(value: Any, cls: Any) -> bool:
    """Say what `isinstance` would without asking the object."""
    return issubclass(type(value), cls)


# -- one function ----------------------------------------------------------------------------------------------------

_FAST = {"LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR"}
_FAST_PAIRS = {"LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_DEREFS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE", "LOAD_FROM_DICT_OR_DEREF"}
_OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow", "@": "matmul",
    "&": "and", "|": "or", "^": "xor", "<<": "lshift", ">>": "rshift", "<": "lt", "<=": "le", "==": "eq", "!=": "ne",
    ">": "gt", ">=": "ge",
}  # fmt: skip
_OPERATORS_3_10 = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//", "MODULO": "%",
    "POWER": "**", "MATRIX_MULTIPLY": "@", "AND": "&", "OR": "|", "XOR": "^", "LSHIFT": "<<", "RSHIFT": ">>",
}  # fmt: skip
_IMPLIED_BY = {
    "GET_ITER": ((1, "__iter__"),),
    "CONTAINS_OP": ((1, "__contains__"), (1, "__iter__")),
    "BINARY_SUBSCR": ((2, "__getitem__"),),
    "STORE_SUBSCR": ((2, "__setitem__"),),
    "DELETE_SUBSCR": ((2, "__delitem__"),),
    "UNARY_NEGATIVE": ((1, "__neg__"),),
    "UNARY_INVERT": ((1, "__invert__"),),
    "UNARY_NOT": ((1, "__bool__"), (1, "__len__")),
    "TO_BOOL": ((1, "__bool__"), (1, "__len__")),
    "FORMAT_VALUE": ((1, "__format__"), (1, "__str__"), (1, "__repr__")),
    "CONVERT_VALUE": ((1, "__str__"), (1, "__repr__")),
    "FORMAT_SIMPLE": ((1, "__format__"), (1, "__str__")),
}
"""Instructions that call a method of an object without naming it: where that lies on the stack, and the method."""
_IMPLIED = {*_IMPLIED_BY, "BINARY_OP", "COMPARE_OP", *(f"{way}_{name}" for way in ("BINARY", "INPLACE")
                                                       for name in _OPERATORS_3_10)}  # fmt: skip
_ITERATES = dict.fromkeys(
    "iter list tuple set frozenset dict sorted sum min max any all enumerate".split(), ("__iter__",)  # noqa: SIM905
)  # fmt: skip
_OF_BUILTINS: dict[str, tuple[str, ...]] = {
    **_ITERATES,
    **{name: (f"__{name}__",) for name in ("len", "next", "repr", "hash", "abs", "reversed", "round", "int", "float")},
    "bool": ("__bool__", "__len__"),
    "str": ("__str__", "__repr__"),
    "print": ("__str__", "__repr__"),
    "format": ("__format__", "__str__"),
}
"""Builtins that call a method of their argument."""


def _implied(step: _Step) -> Iterable[tuple[int, str]]:
    """Return the methods that an instruction calls without naming them."""
    known = _IMPLIED_BY.get(step.name)
    if known is not None:
        return known
    sign = step.text.partition(" ")[2]
    if "[" in sign:  # 3.14
        return _IMPLIED_BY["BINARY_SUBSCR"]
    way, _, old = step.name.partition("_")
    sign = _OPERATORS_3_10.get(old, sign.removeprefix("bool(").removesuffix(")"))
    plain = sign if sign in _OPERATORS else sign.removesuffix("=")
    name = _OPERATORS.get(plain)
    if name is None:
        return ()
    found = [(2, f"__{name}__"), (1, f"__r{name}__")]
    if name == "ne":
        found.append((2, "__eq__"))
    if plain != sign or way == "INPLACE":
        found.append((2, f"__i{name}__"))
    return found


_CONSTS = {"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL", "LOAD_CONST_MORTAL"}
_NOTHING = {"RESUME", "NOP", "CACHE", "PRECALL", "KW_NAMES", "MAKE_CELL", "COPY_FREE_VARS", "EXTENDED_ARG",
            "NOT_TAKEN", "SETUP_ANNOTATIONS", "GEN_START", "TO_BOOL"}  # fmt: skip


class _Frame:
    """Follows the instructions of one code object."""

    def __init__(
        self, search: _Search, code: types.CodeType, namespace: dict[str, Any], builtins: Any, function: str,
        names: dict[str, Any], cells: dict[str, Any], depth: int, receiver: Any,
    ) -> None:  # fmt: skip
        self.search = search
        self.code = code
        self.namespace = namespace
        self.builtins = builtins if type(builtins) is dict else module_of(builtins)
        self.function = function
        self.locals = names
        self.cells = cells
        self.depth = depth
        self.receiver = receiver
        self.file = os.path.abspath(code.co_filename)
        self.stack: list[Any] = []
        self.inner: list[types.CodeType] = []
        module = namespace.get("__name__")
        self.module = module if type(module) is str else ""
        self.named = module_of(sys.modules.get(self.module)) is namespace
        self.line, self.text = code.co_firstlineno, ""
        self.keywords: tuple[str, ...] = ()
        self.branched = False
        self.bound: set[tuple[str, str]] = set()
        """Module and name of what is bound before the first branch."""

    @property
    def where(self) -> Where:
        """The instruction that is looked at."""
        return Where(self.file, self.line, self.function, self.text)

    def run(self) -> None:
        saved: dict[int, list[Any]] = {}
        ended = False
        for step in _instructions(self.code):
            if step.offset in saved:
                if ended or len(saved[step.offset]) > len(self.stack):
                    self.stack = list(saved[step.offset])
                ended = False
            elif ended:
                self.stack, ended = [], False
            self.line, self.text = step.line, step.text
            self.step(step)
            self.branched = self.branched or step.target is not None
            if step.target is not None:
                saved.setdefault(step.target, list(self.stack))
            ended = step.ends
        for code in self.inner:
            key = (id(code), id(self.receiver), "inner")
            if key in self.search.seen:
                continue
            self.search.seen.add(key)
            cells = {**self.cells, **{n: s for n, s in self.locals.items() if n in code.co_freevars}}
            name = getattr(code, "co_qualname", f"{self.function}.<locals>.{code.co_name}")
            _Frame(self.search, code, self.namespace, self.builtins, name, {}, cells, self.depth, self.receiver).run()
        self.search.out.codes.append((self.file, self.function, self.code.co_firstlineno))

    def pop(self, count: int = 1) -> list[Any]:
        if count <= 0:
            return []
        popped = self.stack[-count:]
        del self.stack[-count:]
        return [None] * (count - len(popped)) + popped

    def push(self, symbol: Any) -> None:
        self.stack.append(symbol)

    def use(self, symbols: Iterable[Any]) -> None:
        """Know that all of a value is read: it was not only looked into."""
        for symbol in symbols:
            each = symbol.symbol if type(symbol) is _Bound else symbol
            if type(each) is _Ref:
                each.read.whole = True

    def global_(self, name: str) -> Any:
        if name in self.namespace:
            value = self.namespace[name]
        elif name in self.builtins:
            value = self.builtins[name]
            return self.search.ref("builtins", (name,), value, self.where, self.depth)
        else:
            value = MISSING
        if not self.named:
            if value is not MISSING:
                self.search.uses(value, None, self.depth)
            return _Obj(value, "") if value is not MISSING else None
        ref = self.search.ref(self.module, (name,), value, self.where, self.depth)
        ref.read.after_write = (self.module, name) in self.bound
        return ref

    def binds(self, module: str, name: str) -> None:
        """Note that a module's name is bound here."""
        self.search.write(Write(module, (name,), self.where, True))
        if not self.branched:
            self.bound.add((module, name))

    def step(self, step: _Step) -> None:
        name, value = step.name, step.value
        search, depth = self.search, self.depth
        if name in _IMPLIED:
            for at, method in _implied(step):
                if at <= len(self.stack):
                    search.special(self.stack[-at], method, self.where, depth)
        if name in _NOTHING:
            if name == "KW_NAMES":
                self.keywords = self._names(value, step.arg)
        elif name in _GLOBALS:
            if name == "LOAD_GLOBAL" and sys.version_info >= (3, 11) and step.arg & 1:
                pair = [_NULL, None] if sys.version_info < (3, 13) else [None, _NULL]
                at = 1 if sys.version_info < (3, 13) else 0
                pair[at] = self.global_(value)
                self.stack += pair
            else:
                if name == "LOAD_FROM_DICT_OR_GLOBALS":
                    self.pop()
                self.push(self.global_(value))
        elif name in _FAST:
            self.push(self.locals.get(value))
        elif name in _FAST_PAIRS:
            self.stack += [self.locals.get(each) for each in self._pair(value)]
        elif name == "STORE_FAST_LOAD_FAST":
            store, load = self._pair(value)
            self.locals[store] = self.pop()[0]
            self.push(self.locals.get(load))
        elif name == "STORE_FAST_STORE_FAST":
            first, second = self._pair(value)
            self.locals[first] = self.pop()[0]
            self.locals[second] = self.pop()[0]
        elif name in ("STORE_FAST", "STORE_FAST_MAYBE_NULL"):
            self.locals[value] = self.pop()[0]
        elif name in _DEREFS:
            if name == "LOAD_FROM_DICT_OR_DEREF":
                self.pop()
            symbol = self.cells.get(value, self.locals.get(value))
            if type(symbol) is _Captured and name != "LOAD_CLOSURE":
                symbol = search.captured(symbol, self.where, depth)
            self.push(symbol)
        elif name == "STORE_DEREF":
            symbol = self.pop()[0]
            if value in self.cells and value in self.code.co_freevars:
                held = self.cells[value]
                if type(held) is _Captured:
                    search.write(Write(held.module, (*held.names, "__closure__"), self.where, True))
                else:
                    search.write(Write("", (value,), self.where, True))
            else:
                self.locals[value] = symbol
        elif name in _CONSTS:
            if type(value) is types.CodeType:
                self.inner.append(value)
            self.push(_Const(value))
        elif name == "PUSH_NULL":
            self.push(_NULL)
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            symbol = self.pop()[0]
            found = search.attr(symbol, value, self.where, depth)
            if type(found) is _Ref and found.names == (value,) and (found.module, value) in self.bound:
                found.read.after_write = True
            self.push(found if found is not None else _Bound(symbol, value, None))
            if name == "LOAD_METHOD" or (sys.version_info >= (3, 12) and step.arg & 1):
                self.push(_NULL)
        elif name == "LOAD_SUPER_ATTR":
            self.pop(3)
            cls = getattr(self.receiver, "cls", None) or type(getattr(self.receiver, "value", None))
            if isinstance_of(getattr(self.receiver, "value", None), type):
                cls = self.receiver.value
            owner = self._class_of_code(cls)
            found = search.class_attr(cls, value, self.receiver, self.where, depth, after=owner) if owner else None
            self.push(found)
            if step.arg & 1:
                self.push(_NULL)
        elif name in ("BINARY_SUBSCR", "BINARY_OP") and (name == "BINARY_SUBSCR" or "[" in step.text):
            container, key = self.pop(2)
            found = search.item(container, key.value, self.where, depth) if type(key) is _Const else None
            if found is None:
                self.use([container])
            self.use([key])
            self.push(found)
        elif name == "STORE_GLOBAL":
            self.use(self.pop())
            self.binds(self.module, value)
        elif name == "DELETE_GLOBAL":
            search.write(Write(self.module, (value,), self.where, True))
        elif name == "STORE_ATTR":
            assigned, owner = self.pop(2)
            self.use([assigned])
            self._store_attr(owner, value)
        elif name in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            parts = self.pop(3 if name == "STORE_SUBSCR" else 2)
            container = parts[-2]
            self.use([each for each in parts if each is not container])
            if type(container) is _Ref:
                container.read.refined = True
            if type(container) is _Ref and type(container.value).__name__ == "_Environ":
                return
            search.writes(container, self.where, rebinds=False)
        elif name == "IMPORT_NAME":
            self.pop(2)
            self.push(self._import(value))
        elif name == "IMPORT_FROM":
            module = self.stack[-1] if self.stack else None
            found = search.attr(module, value, self.where, depth) if module is not None else None
            self.push(found)
        elif name in ("CALL", "CALL_METHOD"):
            args = self.pop(step.arg)
            first, second = self.pop(2)
            self._call(first if first is not _NULL else second, args)
        elif name in ("CALL_FUNCTION", "CALL_FUNCTION_KW", "CALL_KW"):
            names: tuple[str, ...] = ()
            if name != "CALL_FUNCTION":
                (constant,) = self.pop()
                names = constant.value if type(constant) is _Const and type(constant.value) is tuple else ()
            args = self.pop(step.arg)
            if name == "CALL_KW":
                first, second = self.pop(2)
                callee = first if first is not _NULL else second
            else:
                (callee,) = self.pop()
            self.keywords = names
            self._call(callee, args)
        elif name == "CALL_FUNCTION_EX":
            popped = self.pop(1 - step.effect)
            callee = next((each for each in popped if each is not _NULL), None)
            self.use(each for each in popped if each is not callee)
            self.push(search.call(callee, [], {}, depth, self.where) if callee is not None else None)
        elif name in ("COPY", "DUP_TOP"):
            index = step.arg if name == "COPY" else 1
            self.push(self.stack[-index] if 0 < index <= len(self.stack) else None)
        elif name == "DUP_TOP_TWO":
            self.stack += self.stack[-2:]
        elif name == "SWAP":
            if 1 < step.arg <= len(self.stack):
                self.stack[-1], self.stack[-step.arg] = self.stack[-step.arg], self.stack[-1]
        elif name in ("ROT_TWO", "ROT_THREE", "ROT_FOUR", "ROT_N"):
            count = {"ROT_TWO": 2, "ROT_THREE": 3, "ROT_FOUR": 4}.get(name, step.arg)
            if 1 < count <= len(self.stack):
                self.stack.insert(len(self.stack) - count, self.stack.pop())
        elif name == "POP_TOP":
            self.pop()  # an import, or a result nobody wants
        elif name in ("GET_ITER", "GET_YIELD_FROM_ITER", "GET_AWAITABLE"):
            self.use(self.pop())
            self.push(None)
        elif name == "FOR_ITER":
            self.push(None)
        elif name in ("MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"):
            self.pop(1 - step.effect)
            self.push(None)
        else:
            self._other(step)

    def _other(self, step: _Step) -> None:
        """Let an instruction without a meaning here take what it may have taken, and push what comes out."""
        try:
            taken = {"LOAD_BUILD_CLASS": 0, "BEFORE_WITH": 1, "LOAD_SPECIAL": 1, "SETUP_WITH": 1}.get(step.name)
            if taken is None:
                taken = 0 if step.effect > 0 else 1 - step.effect
                if step.effect < 0 and step.name.startswith(
                    (
                        "POP_",
                        "STORE_",
                        "RETURN",
                        "RAISE",
                        "DELETE",
                        "END_",
                        "LIST_",
                        "SET_",
                        "DICT_",
                        "MAP_",
                        "YIELD",
                        "JUMP",
                        "RERAISE",
                        "SEND",
                    )
                ):
                    taken = -step.effect
            popped = self.pop(taken)
            self.use(popped)
            for each in popped:
                if step.name in ("BEFORE_WITH", "LOAD_SPECIAL", "SETUP_WITH"):
                    self.search.attr(each, "__enter__", self.where, self.depth)
            for _ in range(max(0, taken + step.effect)):
                self.push(None)
        except Exception:
            self.stack = []

    def _names(self, value: Any, arg: int) -> tuple[str, ...]:
        if type(value) is tuple:
            return value
        constant = self.code.co_consts[arg] if arg < len(self.code.co_consts) else ()
        return constant if type(constant) is tuple else ()

    def _pair(self, value: Any) -> tuple[str, str]:
        if type(value) is tuple and len(value) == 2:
            return value
        return "", ""

    def _call(self, callee: Any, args: list[Any]) -> None:
        names, self.keywords = self.keywords, ()
        positional = args[: len(args) - len(names)] if names else args
        keywords = dict(zip(names, args[len(args) - len(names) :], strict=False)) if names else {}
        if type(callee) is _Ref and callee.module == "builtins":
            for method in _OF_BUILTINS.get(callee.names[-1], ()):
                self.search.special(positional[0] if positional else None, method, self.where, self.depth)
            found = self._builtin(callee.names[-1], positional)
            if found is not None:
                self.push(found[0])
                return
        self.use(args)
        if type(callee) is _Bound and type(callee.symbol) is _Ref:
            callee.symbol.read.called = True
        self.push(self.search.call(callee, positional, keywords, self.depth, self.where))

    def _builtin(self, name: str, args: list[Any]) -> tuple[Any] | None:
        """Follow the builtins that lead to an attribute or a class."""
        if name == "super":
            cls = getattr(self.receiver, "cls", None) or type(getattr(self.receiver, "value", None))
            if isinstance_of(getattr(self.receiver, "value", None), type):
                cls = self.receiver.value
            owner = self._class_of_code(cls)
            return (_Super(cls, owner, self.receiver),) if owner else (None,)
        if name in ("getattr", "hasattr") and len(args) > 1 and type(args[1]) is _Const and type(args[1].value) is str:
            found = self.search.attr(args[0], args[1].value, self.where, self.depth)
            return (found if name == "getattr" else None,)
        if name == "setattr" and len(args) > 2 and type(args[1]) is _Const and type(args[1].value) is str:
            self._store_attr(args[0], args[1].value)
            return (None,)
        if name in ("globals", "vars") and not args and self.named:
            for text in _constants(self.code):
                if text in self.namespace:
                    self.search.ref(
                        self.module, (text,), self.namespace[text], self.where, self.depth
                    ).read.whole = True
            return (None,)
        if name == "vars" and args and type(args[0]) is _Ref and isinstance_of(args[0].value, types.ModuleType):
            return (_Space(args[0]),)
        if name == "type" and len(args) == 1:
            each = args[0]
            cls = each.cls if type(each) is _Made else type(each.value) if type(each) is _Obj else None
            return (_Obj(cls, ""),) if cls is not None else None
        return None

    def _class_of_code(self, cls: Any) -> type | None:
        """Return the class among `cls` and its bases whose body has this code."""
        if not isinstance_of(cls, type):
            return None
        for owner in type.__dict__["__mro__"].__get__(cls):
            for value in type.__getattribute__(owner, "__dict__").values():
                func = value.__func__ if type(value) in (classmethod, staticmethod) else value
                func = func.fget if type(func) is property else func
                if type(func) is types.FunctionType and func.__code__ is self.code:
                    return owner  # type: ignore[no-any-return]
        return None

    def _store_attr(self, owner: Any, name: str) -> None:
        search = self.search
        if type(owner) is _Bound:
            owner = owner.symbol
        if type(owner) is _Ref:
            value = owner.value
            owner.read.refined = True
            if isinstance_of(value, types.ModuleType):
                module = module_of(value).get("__name__")
                if type(module) is str:
                    self.binds(module, name)
            elif isinstance_of(value, type):
                module, qualname = public_name(value)
                search.write(Write(module, (*qualname.split("."), name), self.where, True))
            else:
                search.writes(owner, self.where, rebinds=False)
        elif type(owner) is _Obj:
            if isinstance_of(owner.value, type):
                module, qualname = public_name(owner.value)
                search.write(Write(module, (*qualname.split("."), name), self.where, True))
            else:
                search.writes(owner, self.where, rebinds=False)

    def _import(self, name: str) -> Any:
        package = self.namespace.get("__package__") or self.module.rpartition(".")[0]
        module = sys.modules.get(name)
        if module is None and name in sys.modules:
            self.search.out.imports.setdefault(name, self.where)
        elif module is None and package:
            module = sys.modules.get(f"{package}.{name}".rstrip("."))
        if module is None:
            return None
        full = module_of(module).get("__name__")
        if type(full) is not str:
            full = name
        self.search.out.imports.setdefault(name, self.where)
        read = Read(full, (), (), self.where, refined=True)
        return _Ref(full, (), (), module, read)


def _constants(code: types.CodeType, depth: int = 3) -> Iterator[str]:
    """Yield the strings in code and in the functions inside it."""
    todo: list[Any] = list(code.co_consts)
    while todo:
        each = todo.pop()
        if type(each) is str:
            yield each
        elif type(each) in (tuple, frozenset):
            todo += each
        elif type(each) is types.CodeType and depth:
            yield from _constants(each, depth - 1)


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
