"""Resolve attributes and items of symbols, and record what is read on the way."""

from __future__ import annotations

import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..child.process_state import SETTINGS
from ..child.values import (
    MISSING,
    VIRTUAL,
    class_attribute,
    class_name,
    instance_namespace,
    is_mock,
    module_of,
    public_name,
    subclasses,
    virtual_subclasses,
)
from ..model.observed import Read, Reads, Step, Where, Write
from .symbols import Bound, Constant, Each, Instance, Live, Ref, Several, Space, Super, Symbol, unbound

GUESSED: Final = 1_000
"""A `Read.depth` of this or more means that the read goes through an object of unknown class."""
CONTAINERS: Final = frozenset({"dict", "list", "set", "OrderedDict", "defaultdict", "deque", "Counter", "bytearray"})
_BINDS: Final = (types.FunctionType, classmethod, staticmethod, property)
_LOOKED_AT: Final = frozenset({*SETTINGS, "contextvars.copy_context", "logging.getLevelName"})
_AMBIENT: Final = frozenset({"random", "decimal", "locale", "warnings", "signal", "logging", "numpy"})
_LOGGING: Final = ("getEffectiveLevel", "isEnabledFor", "level", "handlers", "hasHandlers", "filters", "propagate")


class Attributes(ABC):
    """Resolves attributes and items, and records the reads in `out`. `Search` follows the functions it finds."""

    def __init__(self, is_user: Callable[[str], bool]) -> None:
        self.is_user = is_user
        self.out = Reads()
        self.reads: list[Read] = []
        self.unknown: dict[str, tuple[Where, int]] = {}
        """Attributes of unknown objects, each with its first place and depth."""
        self.written: set[object] = set()
        self.homes: dict[int, tuple[str, tuple[str, ...]]] = {}
        """Module and names of functions with captured variables, by the function's ``id``."""

    @abstractmethod
    def function(
        self, func: types.FunctionType, receiver: Symbol, depth: int, bound: Mapping[str, Symbol] | None = None
    ) -> None:
        """Follow a function."""

    @abstractmethod
    def bound_call(
        self, func: types.FunctionType, args: list[Symbol], kwargs: Mapping[str, Symbol], depth: int
    ) -> None:
        """Follow a call of a function."""

    @abstractmethod
    def uses(self, value: object, symbol: Symbol, depth: int) -> None:
        """Follow the value of a name."""

    # ownership

    def users_module(self, name: object) -> bool:
        """Return whether a module's file is the user's."""
        file = module_of(sys.modules.get(name)).get("__file__") if type(name) is str else None
        return type(file) is str and self.is_user(file)

    def users_class(self, cls: type) -> bool:
        """Return whether a class, or one of its bases, is the user's."""
        return any(self.users_module(class_name(owner)[0]) for owner in type.__dict__["__mro__"].__get__(cls))

    def library(self, module: object, where: Where | None) -> None:
        """Record that the user's code uses a third-party module."""
        if type(module) is str and where is not None and not self.users_module(module):
            self.out.libraries.setdefault(module.partition(".")[0], where)

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
        """Record a read, and the process-wide settings that its module depends on."""
        read = Read(module, names, steps, where, inner if inner != where else None, depth=depth)
        self.reads.append(read)
        self.library(module, where)
        top = module.partition(".")[0]
        if top in _AMBIENT:
            self.out.touched.setdefault(
                "numpy.random"
                if module.startswith("numpy.random") or (names[:1] == ("random",) and top == "numpy")
                else module,
                where,
            )
        setting = f"{module}.{names[0]}" if names else module
        if setting in _LOOKED_AT:
            self.out.touched.setdefault(setting, where)
        elif top == "numpy" and not module.startswith("numpy.random"):
            self.out.touched.setdefault("numpy.geterr", where)
            self.out.touched.setdefault("numpy.get_printoptions", where)
        elif module in ("asyncio", "mimetypes", "pandas", "tempfile"):
            self.out.touched.setdefault(module, where)
        return read

    def ref(self, module: str, names: tuple[str, ...], value: object, where: Where, depth: int) -> Ref:
        """Return the symbol of a name in a module or class, and record the read."""
        read = self.note(module, names, (), where, depth)
        ref = Ref(module, names, (), value, read)
        self.uses(value, ref, depth)
        return ref

    def attr(self, symbol: Symbol, name: str, where: Where, depth: int) -> Symbol:
        """Return the symbol of ``symbol.name``, and record what is read."""
        symbol = unbound(symbol)
        if isinstance(symbol, Several):
            return Bound(symbol, name, None)
        if isinstance(symbol, Super):
            return self.class_attr(symbol.cls, name, symbol.receiver, where, depth, after=symbol.owner)
        if isinstance(symbol, Instance):
            if not self.users_class(symbol.cls) and not self.replaced(symbol.cls, name):
                return Bound(symbol, name, None)
            return self.class_attr(symbol.cls, name, symbol, where, depth)
        if isinstance(symbol, (Constant, Each)) or (isinstance(symbol, (Ref, Live)) and symbol.value is MISSING):
            return None
        if not isinstance(symbol, (Ref, Live)):
            self.unknown.setdefault(name, (where, depth))
            return None
        value = symbol.value
        if issubclass(type(value), type):  # the class itself may be replaced: datetime.datetime by a fake
            return self.class_attr(value, name, symbol, where, depth)
        if not issubclass(type(value), types.ModuleType):
            return self.object_attr(symbol, name, where, depth)
        if isinstance(symbol, Live):  # held in a cell
            symbol = self.module(value, where)
        return Space(symbol) if name == "__dict__" else self.module_attr(symbol, name, where, depth)

    def module_attr(self, symbol: Ref, name: str, where: Where, depth: int) -> Symbol:
        """Return the symbol of a name in a module, following the module's ``__getattr__`` if the name is missing."""
        namespace = module_of(symbol.value)
        module = namespace.get("__name__")
        if type(module) is not str or sys.modules.get(module) is not symbol.value:
            return self.object_attr(symbol, name, where, depth)
        symbol.read.refined = True
        getter = namespace.get("__getattr__") if name not in namespace else None
        if type(getter) is types.FunctionType:
            self.bound_call(getter, [Constant(name)], {}, depth)
        return self.ref(module, (name,), namespace.get(name, MISSING), where, depth)

    def computed(self, cls: type, receiver: Symbol, name: str, depth: int) -> bool:
        """Follow the user's hooks that compute a missing attribute; return whether there are any."""
        found = False
        for hook in ("__getattribute__", "__getattr__"):
            owner, function = class_attribute(cls, hook)
            if type(function) is types.FunctionType and self.users_class(owner):
                self.bound_call(function, [receiver, Constant(name)], {}, depth)
                found = True
        return found

    def replaced(self, cls: type, name: str) -> bool:
        """Return whether a mock or a user's function has replaced an attribute of a library's class."""
        value = class_attribute(cls, name)[1]
        raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
        raw = raw.fget if type(raw) is property else raw
        return is_mock(raw) or (type(raw) is types.FunctionType and self.is_user(raw.__code__.co_filename))

    def object_attr(self, symbol: Ref | Live, name: str, where: Where, depth: int) -> Symbol:
        """Return the symbol of an instance's attribute: its own, its class's, or one that a hook computes."""
        value, kind = symbol.value, type(symbol.value)
        if kind.__name__ in ("Logger", "RootLogger") and kind.__module__ == "logging":
            self.logger(value, name, where)
        namespace = module_of(value) if kind is types.ModuleType else instance_namespace(value)
        if isinstance(symbol, Ref):
            symbol.read.refined = True
            if name in namespace:
                return self.deeper(symbol, ("attr", name), namespace[name], where, depth)
        elif name in namespace:
            return Live(namespace[name], f"{symbol.origin}.{name}")
        owner, found = class_attribute(kind, name)
        if owner is None:
            hooked = self.computed(kind, symbol, name, depth)
            if isinstance(symbol, Ref) and class_attribute(kind, "__getattr__")[0] is None:
                return self.deeper(symbol, ("attr", name), MISSING, where, depth)
            if isinstance(symbol, Ref) and not hooked:
                symbol.read.whole = True
            return None
        of_library = not self.users_class(owner) and not self.replaced(owner, name)
        if of_library or (type(found) is property and type(found.fget) is not types.FunctionType):
            if isinstance(symbol, Ref) and kind.__name__ not in CONTAINERS:
                symbol.read.whole = True
            return Bound(symbol, name, None)
        if kind.__name__ in ("function", "partial"):
            return None
        result = self.class_attr(kind, name, symbol, where, depth)
        if isinstance(symbol, Ref) and type(found) not in _BINDS:  # a descriptor may read the whole object
            symbol.read.whole = True
        return result if isinstance(result, Bound) else Bound(symbol, name, result)

    def deeper(self, symbol: Ref, step: Step, value: object, where: Where, depth: int) -> Ref:
        """Return the symbol of a part of `symbol`'s value, and record the read."""
        symbol.read.refined = True
        steps = (*symbol.steps, step)
        read = self.note(symbol.module, symbol.names, steps, symbol.read.where, min(depth, symbol.read.depth), where)
        read.after_write = symbol.read.after_write
        ref = Ref(symbol.module, symbol.names, steps, value, read)
        self.uses(value, ref, depth)
        return ref

    def class_attr(
        self, cls: type, name: str, receiver: Symbol, where: Where, depth: int, after: type | None = None
    ) -> Symbol:
        """Return the symbol of an attribute looked up on a class, bound to `receiver`."""
        owner, value = class_attribute(cls, name, after)
        if owner is None:
            return None if after is not None else self.absent(cls, name, receiver, where, depth)
        module, qualname = public_name(owner)
        if module == "builtins" or "<locals>" in qualname:
            if "<locals>" in qualname and type(value) is types.FunctionType:
                self.function(value, receiver, depth + 1)
            return Bound(receiver, name, None)
        read = self.note(module, (*qualname.split("."), name), (), where, depth)
        ref = Ref(module, read.names, (), value, read)
        bound = Instance(cls) if isinstance(receiver, Ref) and issubclass(type(receiver.value), type) else receiver
        as_class = Live(cls, "") if not isinstance(receiver, Ref) else receiver
        raw = value.__func__ if type(value) in (staticmethod, classmethod) else value
        if type(raw) is types.FunctionType:
            self.homes.setdefault(id(raw), (module, read.names))
        self.bind(value, bound, as_class, depth)
        if type(value) in _BINDS:
            read.called = True
            return Bound(bound, name, ref)
        self.uses(value, ref, depth)
        return ref

    def absent(self, cls: type, name: str, receiver: Symbol, where: Where, depth: int) -> Symbol:
        """Follow whatever provides an attribute that a class lacks: the instance, a hook, the metaclass."""
        of_class = isinstance(receiver, (Ref, Live)) and receiver.value is cls
        if isinstance(receiver, Instance) or not of_class:
            self.computed(cls, receiver, name, depth)
            return None  # or the instance has set it
        meta = type(cls)
        module, qualname = public_name(cls)
        if name == "__subclasses__":
            return self.ref(module, (*qualname.split("."), name), subclasses(cls), where, depth)
        if class_attribute(meta, name)[0] is not None:
            return self.class_attr(meta, name, Live(cls, ""), where, depth) if self.users_class(meta) else None
        if self.computed(meta, Live(cls, ""), name, depth) or isinstance(receiver, Live):
            return None
        return self.ref(module, (*qualname.split("."), name), MISSING, where, depth)

    def bind(self, value: Any, receiver: Symbol, as_class: Symbol, depth: int) -> None:
        """Follow the code that runs when a class attribute is looked up or called."""
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
        elif not issubclass(kind, type):
            owner, getter = class_attribute(kind, "__get__")  # a user's descriptor
            if type(getter) is types.FunctionType and self.users_class(owner):
                self.bound_call(getter, [Live(value, ""), receiver, as_class], {}, depth)

    def item(self, symbol: Symbol, key: object, where: Where, depth: int) -> Symbol:
        """Return the symbol of ``symbol[key]``, and record what is read."""
        symbol = unbound(symbol)
        if isinstance(symbol, Several):
            return symbol.parts.get(key) if isinstance(key, (int, str)) else None
        if isinstance(symbol, Space):
            return self.attr(symbol.symbol, key, where, depth) if type(key) is str else None
        if not isinstance(symbol, (Ref, Live)) or symbol.value is MISSING:
            return None
        value, kind, found = symbol.value, type(symbol.value), MISSING
        if kind.__name__ == "_Environ":
            if type(key) is str:
                self.out.environment.setdefault(key, where)
            return None
        mapping = issubclass(kind, dict) and kind.__name__ in CONTAINERS
        if not (mapping or kind in (list, tuple)) or type(key) not in (str, int, bool, type(None)):
            return None
        if mapping:
            found = dict.get(value, key, MISSING)
        elif type(key) is int and -len(value) <= key < len(value):
            found = value[key]
        if isinstance(symbol, Live):
            return None if found is MISSING else Live(found, f"{symbol.origin}[{key!r}]")
        return self.deeper(symbol, ("item", key), found, where, depth)

    def extended(self, cls: type, where: Where, depth: int) -> None:
        """Record additions to a class from outside: virtual subclasses of an ABC, members of an Enum."""
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

    def module(self, module: types.ModuleType, where: Where) -> Ref:
        """Return the symbol of a module. Only reads of its names count, not this one."""
        name = module_of(module).get("__name__")
        name = name if type(name) is str else ""
        return Ref(name, (), (), module, Read(name, (), (), where, refined=True))

    def logger(self, value: object, name: str, where: Where) -> None:
        """Record the use of a logger, and the attribute that reads its configuration."""
        text = instance_namespace(value).get("name")
        if type(text) is str:
            self.out.loggers.setdefault("" if text == "root" else text, where)
        if name in _LOGGING:
            self.out.configuration.setdefault(name, where)

    # writing

    def changes(self, symbol: Symbol, where: Where) -> None:
        """Record that an object is modified in place."""
        symbol = unbound(symbol)
        if isinstance(symbol, Ref):
            symbol.read.changed = symbol.read.refined
            self.write(Write(symbol.module, symbol.names, where, False))
        elif isinstance(symbol, Live) and symbol.origin:
            self.write(Write("", (symbol.origin,), where, False))

    def write(self, write: Write) -> None:
        """Record a write, once per name."""
        key = (write.module, write.names)
        if key not in self.written:
            self.written.add(key)
            self.out.writes.append(write)
