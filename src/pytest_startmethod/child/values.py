"""Describe values as builtins, without running their code.

Used in the parent and in the fresh child, which loads this file by path, with the standard library only. A description
is a nested list that JSON can hold. Its first item is the kind:

``=`` a plain value, ``(`` a sequence, ``<`` a set, ``{`` a mapping, ``o`` an object, ``f`` a function, ``b`` a
built-in, ``c`` a class, ``m`` a module, ``K`` a mock, ``L`` a logger, ``l`` a cache, ``p`` a partial, ``d`` a
descriptor, ``M`` a method, ``a`` an array, ``v`` a context variable, ``?`` a value known only by its type, ``^`` an
object described earlier, ``-`` a value beyond the budget, equal to anything, ``!`` a missing value.
"""

# ruff: noqa: SIM105

from __future__ import annotations

import hashlib
import os
import sys
import types
from _thread import _local
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

BUDGET = 4_000
DEPTH = 10
TEXT = 300
SHOWN = 60
_PART = 1 << 16
"""Bytes read from either end of a large value, so that nothing is copied in proportion to the user's data."""


class _Missing:
    __slots__ = ()


MISSING: object = _Missing()
"""Stands for a missing value."""

# -- lookup without running user code ----------------------------------------------------------------------------------

mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
"""Return the classes in which a class looks up attributes, without asking its metaclass."""
_namespace_of_type = type.__dict__["__dict__"].__get__


def module_of(module: object) -> dict[str, object]:
    """Return a module's namespace, or an empty one if it is not a module."""
    return instance_namespace(module) if module is not None else {}


def instance_namespace(obj: Any) -> dict[str, object]:
    """Return an instance's own attributes: its ``__dict__`` and slots."""
    found: dict[str, object] = {}
    try:
        own = object.__getattribute__(obj, "__dict__")
        if type(own) is dict:
            found = own
    except Exception:
        if _local in mro(type(obj)):  # this thread's attributes
            found = _local.__getattribute__(obj, "__dict__")
    slots = {}
    for cls in mro(type(obj)):
        if cls.__module__ == "builtins":
            continue
        for name, value in list(_namespace_of_type(cls).items()):
            if type(value) is types.MemberDescriptorType and name not in found:
                try:
                    slots[name] = value.__get__(obj, cls)
                except Exception:
                    pass
    return {**found, **slots} if slots else found


def class_attribute(cls: type, name: str, after: type | None = None) -> tuple[Any, Any]:
    """Return the class in the MRO that defines `name`, and the raw value; (None, MISSING) if none does.

    With `after`, search only the classes behind that one.
    """
    order = mro(cls)
    if after is not None and after in order:
        order = order[order.index(after) + 1 :]
    for owner in order:
        own = _namespace_of_type(owner)
        if name in own:
            return owner, own[name]
    return None, MISSING


def class_name(cls: object) -> tuple[str, str]:
    """Return a class's module and qualified name."""
    if type(cls) is type:  # most are, and no metaclass of the user's answers for them
        own: tuple[object, object] = (cls.__module__, cls.__qualname__)
        return (own[0] if type(own[0]) is str else ""), (own[1] if type(own[1]) is str else "")
    module = _namespace_of_type(cls).get("__module__") if issubclass(type(cls), type) else None
    if type(module) is not str:
        module = type.__dict__["__module__"].__get__(cls) if issubclass(type(cls), type) else ""
    name = type.__dict__["__qualname__"].__get__(cls) if issubclass(type(cls), type) else ""
    return (module if type(module) is str else ""), (name if type(name) is str else "")


def public_name(cls: object) -> tuple[str, str]:
    """Return a class's module and qualified name, preferring a public module that re-exports it.

    ``pathlib._local.Path`` becomes ``pathlib.Path``.
    """
    module, name = class_name(cls)
    parts = module.split(".")
    hidden = next((i for i, part in enumerate(parts) if part[:1] == "_" and part[:2] != "__"), 0)
    public = ".".join(parts[:hidden])
    if public and resolve(sys.modules.get(public), name.split(".")) is cls:
        return public, name
    return module, name


def subclasses(cls: type) -> list[type]:
    """Return the direct subclasses of a class, sorted by name."""
    return sorted(type.__subclasses__(cls), key=class_name)


def virtual_subclasses(cls: type) -> list[type]:
    """Return the classes registered with an ABC, sorted by name; empty for other classes.

    Where both are installed, importing the class registers it, so that a child that has it has that, too.
    """
    if class_attribute(cls, "_abc_impl")[0] is None:
        return []
    try:
        registry = sys.modules["_abc"]._get_dump(cls)[0]  # weak references; if it goes: wrap `ABCMeta.register`
        found = [each for each in (one() for one in registry) if each is not None]
        if _is_installed(cls):
            found = [each for each in found if not _is_installed(each)]
        return sorted(found, key=class_name)
    except Exception:
        return []


def is_stdlib(cls: type) -> bool:
    """Return whether a class is from the standard library, by the name of its module."""
    return class_name(cls)[0].partition(".")[0] in sys.stdlib_module_names


def _is_installed(cls: type) -> bool:
    file = module_of(sys.modules.get(class_name(cls)[0])).get("__file__")
    return is_stdlib(cls) or (type(file) is str and any(part in file for part in INSTALLED))


INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
"""Parts of the paths of installed modules."""
VIRTUAL = "_abc_registry"
"""Name by which `resolve` finds the classes registered with an ABC, after the attribute of ``_py_abc.ABCMeta``."""


def resolve(module: Any, names: Sequence[str], steps: Iterable[Sequence[Any]] = ()) -> object:
    """Return the value at a dotted name followed by steps, or MISSING."""
    value = module
    for name in names:
        value = _attribute(value, name)
        if value is MISSING:
            return MISSING
    for kind, key in steps:
        if kind == "attr":
            value = _attribute(value, key)
        elif issubclass(type(value), dict):
            value = dict.get(value, key, MISSING)
        elif type(value) in (list, tuple) and type(key) is int and -len(value) <= key < len(value):
            value = value[key]
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def _attribute(value: Any, name: str) -> object:
    if type(value) in (staticmethod, classmethod):
        value = value.__func__
    if issubclass(type(value), type):
        if name == VIRTUAL:
            return virtual_subclasses(value)
        return subclasses(value) if name == "__subclasses__" else class_attribute(value, name)[1]
    if name in ("__defaults__", "__kwdefaults__") and type(value) is types.FunctionType:
        return getattr(value, name)
    if name == "__closure__" and type(value) is types.FunctionType:
        return _captured(value)
    own = instance_namespace(value)
    if name in own:
        return own[name]
    if type(value) is types.FunctionType and name == "__wrapped__":
        return MISSING
    owner, found = class_attribute(type(value), name) if type(value) is not types.ModuleType else (None, MISSING)
    if owner is None or hasattr(type(found), "__set__") or type(found).__name__ == "cached_property":  # not read yet
        return MISSING
    return found


def _captured(function: types.FunctionType) -> dict[str, object]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):  # noqa: B905 - of one length
        try:
            found[name] = cell.cell_contents
        except ValueError:  # empty cell
            pass
    return found


# -- describing --------------------------------------------------------------------------------------------------------

_PLAIN = (int, float, bool, type(None), complex, type(Ellipsis), type(NotImplemented))
_REPR = {
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"),
    "ipaddress": ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"),
    "builtins": ("range", "slice", "bytearray"),
}
_OPAQUE_MODULES = frozenset({
    "_thread", "threading", "multiprocessing", "socket", "_socket", "subprocess", "concurrent", "asyncio", "selectors",
    "ssl", "sqlite3", "weakref", "_weakref", "queue", "_queue", "mmap", "io", "_io", "tempfile", "contextvars",
    "_contextvars", "ctypes", "_ctypes", "random", "_random", "itertools", "multiprocess", "billiard", "_asyncio",
    "_multiprocessing", "select", "_hashlib", "torch", "sched", "signal",
})  # fmt: skip
"""Modules whose values have no comparable content: they are described by type only."""
_MOCKS = ("unittest.mock", "mock.mock", "mock")


def is_mock(value: object) -> bool:
    """Return whether a value's type is that of a mock."""
    return any(
        cls.__module__ in _MOCKS and cls.__name__ in ("NonCallableMock", "CallableMixin", "Base", "_SentinelObject")
        for cls in mro(type(value))
    )


def describe(value: object, budget: int = BUDGET, hanging: bool = False) -> list[object]:
    """Return the description of a value; if `hanging`, with the attributes of strings and other immutable values."""
    return _Describer(budget, hanging).node(value, 0)


class _Describer:
    def __init__(self, budget: int, hanging: bool) -> None:
        self.left = budget
        self.hanging = hanging
        self.seen: dict[int, int] = {}
        self.kept: list[object] = []

    def node(self, value: Any, depth: int) -> list[Any]:
        kind = type(value)
        if value is MISSING:
            return ["!"]
        if kind in _PLAIN:
            long = kind is int and value.bit_length() > 1_000  # repr() refuses some of these and is slow for others
            return ["=", kind.__name__, f"an int of {value.bit_length()} bits" if long else repr(value)]
        if kind in (str, bytes):
            return _text(value)
        self.left -= 1
        if self.left < 0 or depth > DEPTH:
            return ["-"]
        special = _named(value, kind)
        if special is not None:
            return special
        if id(value) in self.seen:
            return ["^", self.seen[id(value)]]
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        try:
            return self.composed(value, kind, depth)
        except Exception:
            return ["?", _type(kind)]

    def composed(self, value: object, kind: type, depth: int) -> list[object]:
        builtin = _BUILTIN.get(kind)
        if builtin is not None:
            return builtin(self, value, kind, depth)
        for special in (self.library, _generator_state, self.held, _array, self.opaque):
            node = special(value, kind, depth)
            if node is not None:
                return node
        content = self.content(value, kind, depth)
        if content is not None:  # one that cannot change is what it holds, whatever else is kept with it
            whole = self.hanging or issubclass(kind, (dict, list, set))
            return ["o", _type(kind), self.attributes(value, depth) if whole else [], content]
        return self.object(value, kind, depth)

    def sequence(self, value: Any, kind: type, depth: int) -> list[object]:
        return ["(", kind.__name__, self.parts(value, depth)]

    def unordered(self, value: Any, kind: type, depth: int) -> list[Any]:
        return ["<", kind.__name__, sorted(self.parts(value, depth), key=repr)]

    def wrapper(self, value: Any, kind: type, depth: int) -> list[Any]:
        return ["d", kind.__name__, self.node(value.fget if kind is property else value.__func__, depth + 1)]

    def method(self, value: Any, _kind: type, depth: int) -> list[object]:
        return ["M", self.node(value.__func__, depth + 1), self.node(value.__self__, depth + 1)]

    def library(self, value: Any, kind: type, depth: int) -> list[object] | None:
        """Return the description of a standard library wrapper around other values."""
        module, name = class_name(kind)
        if name == "_lru_cache_wrapper":
            wrapped = object.__getattribute__(value, "__dict__").get("__wrapped__")
            return ["l", self.node(wrapped, depth + 1), bool(kind.cache_info(value).currsize)]  # type: ignore[attr-defined]
        if (module, name) == ("functools", "partial"):
            return ["p", self.node(value.func, depth + 1), self.parts(value.args, depth),
                    self.mapping(value.keywords, dict, depth)]  # fmt: skip
        if name in _DESCRIPTORS:
            return ["b", str(getattr(value, "__qualname__", name))]
        if (module, name) == ("itertools", "count"):
            return ["=", "itertools.count", repr(value)]
        if (module, name) == ("collections", "deque"):
            return self.sequence(value, kind, depth)
        return None

    def held(self, value: object, kind: type, depth: int) -> list[object] | None:
        held = _held(value, *class_name(kind))
        return None if held is MISSING else ["(", _type(kind), self.parts(held, depth)]

    def opaque(self, value: object, kind: type, depth: int) -> list[object] | None:
        """Return the description of a value whose content cannot be compared, or only this thread's part of it."""
        module, name = class_name(kind)
        if name == "ContextVar" and module in ("_contextvars", "contextvars", "builtins"):
            return ["v", self.node(_context_value(value), depth + 1)]
        if name == "_local" and module in ("_thread", "_threading_local"):
            return self.object(value, kind, depth)
        hidden = module.partition(".")[0] in _OPAQUE_MODULES or name in ("generator", "coroutine", "frame", "cell")
        return ["?", ("closed " if _is_closed(value) else "") + _type(kind)] if hidden else None

    def content(self, value: Any, kind: type, depth: int) -> list[object] | None:
        """Return the content of an instance whose class extends a container or plain type."""
        if issubclass(kind, dict):
            return self.mapping(value, dict, depth)
        base = next((each for each in (list, tuple, set, frozenset) if issubclass(kind, each)), None)
        if base is not None:
            parts = self.parts(base.__iter__(value), depth)
            unordered = base in (set, frozenset)
            return ["<" if unordered else "(", base.__name__, sorted(parts, key=repr) if unordered else parts]
        plain = next((each for each in (str, int, float, bytes) if issubclass(kind, each)), None)
        if plain is None or any(cls.__module__ == "enum" for cls in mro(kind)):
            return None
        return ["=", plain.__name__, plain.__repr__(value)[:TEXT]]

    def object(self, value: object, kind: type, depth: int) -> list[object]:
        if any(cls.__module__ == "enum" and cls.__name__ == "Enum" for cls in mro(kind)):
            name = instance_namespace(value).get("_name_")
            return ["=", _type(kind), f"{kind.__name__}.{name}"]
        return ["o", _type(kind), self.attributes(value, depth), None]

    def attributes(self, value: Any, depth: int) -> list[Any]:
        own = instance_namespace(value)
        return [[str(name), self.node(own[name], depth + 1)] for name in list(own)[:BUDGET] if type(name) is str]

    def parts(self, values: Iterable[Any], depth: int) -> list[Any]:
        out = []
        for each in values:
            if self.left < 0:
                out.append(["-"])
                break
            out.append(self.node(each, depth + 1))
        return out

    def mapping(self, mapping: Any, kind: type, depth: int) -> list[Any]:
        out = []
        items = dict.items(mapping) if issubclass(type(mapping), dict) else mapping.items()
        for key, value in list(islice(items, max(0, self.left) + 1)):
            if self.left < 0:
                out.append([["-"], ["-"]])
                break
            out.append([self.node(key, depth + 1), self.node(value, depth + 1)])
        return ["{", kind.__name__, out]


_BUILTIN: dict[type, Callable[[_Describer, object, type, int], list[object]]] = {
    **dict.fromkeys((list, tuple), _Describer.sequence),
    **dict.fromkeys((set, frozenset), _Describer.unordered),
    **dict.fromkeys((dict, types.MappingProxyType), _Describer.mapping),
    **dict.fromkeys((staticmethod, classmethod, property), _Describer.wrapper),
    types.MethodType: _Describer.method,
}
_DESCRIPTORS = frozenset(
    ("method_descriptor", "wrapper_descriptor", "getset_descriptor", "member_descriptor", "builtin_function_or_method",
     "method-wrapper", "classmethod_descriptor")
)  # fmt: skip


def _text(value: Any) -> list[object]:
    kind = type(value)
    if len(value) <= TEXT:
        return ["=", kind.__name__, repr(value)]
    ends = value if len(value) <= 2 * _PART else value[:_PART] + value[-_PART:]
    data = ends.encode("utf-8", "surrogatepass") if kind is str else ends
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return ["=", kind.__name__, f"{value[: SHOWN // 2]!r}... ({len(value)} long, sha1 {digest[:8]})"]


def _named(value: Any, kind: type) -> list[object] | None:
    if kind is types.FunctionType:
        code = value.__code__
        inner = value.__dict__.get("__wrapped__")
        wraps = inner.__code__ if type(inner) is types.FunctionType else None
        more = [] if wraps is None else [os.path.abspath(wraps.co_filename), wraps.co_firstlineno]
        return ["f", value.__qualname__, os.path.abspath(code.co_filename), code.co_firstlineno, *more]
    if kind is types.BuiltinFunctionType:
        module = value.__module__
        return ["b", f"{module}.{value.__qualname__}" if type(module) is str else value.__qualname__]
    if kind is types.ModuleType or issubclass(kind, types.ModuleType):
        name = module_of(value).get("__name__")
        return ["m", _main(name) if type(name) is str else "?", type(module_of(value).get("__file__")) is str]
    if issubclass(kind, type):
        module, name = class_name(value)
        return ["c", f"{_main(module)}.{name}"]
    if is_mock(value):
        return ["K", _type(kind)]
    module, name = class_name(kind)
    if name in _REPR.get(module, ()):
        text = kind.__repr__(value)
        return ["=", _type(kind), text if len(text) <= TEXT else text[:TEXT] + f"... ({len(text)})"]
    if name == "Pattern" and module == "re":
        return ["=", "re.Pattern", repr((value.pattern, value.flags))[:TEXT]]
    if name in ("Logger", "RootLogger") and module == "logging":
        return ["L", str(instance_namespace(value).get("name"))]
    return None


def _main(module: str) -> str:
    return "__main__" if module == "__mp_main__" else module


def _type(kind: type) -> str:
    module, name = class_name(kind)
    return name if module == "builtins" else f"{_main(module)}.{name}"


def _context_value(variable: Any) -> Any:
    return variable.get(MISSING) if _has_no_default(variable) else variable.get()


def _has_no_default(variable: Any) -> bool:
    try:
        variable.get()
    except LookupError:
        return True
    return False


def _held(value: Any, module: str, name: str) -> Any:
    """Return the items of a thread queue or weak collection, or whether an event is set; MISSING for anything else."""
    if module == "queue" and name in ("Queue", "LifoQueue", "PriorityQueue"):
        return list(value.queue)
    if (module, name) == ("threading", "Event"):
        return ["set"] if value.is_set() else []
    if module == "weakref" and name in ("WeakValueDictionary", "WeakKeyDictionary"):
        return list(value.values())
    if (module, name) == ("_weakrefset", "WeakSet"):
        return sorted((class_name(type(each)) for each in value), key=str)
    return MISSING


def _is_closed(value: Any) -> bool:
    """Return whether a file is closed; False for one that would run a user's code to tell."""
    for name in ("buffer", "raw"):
        if type(value).__module__ == "_io" and hasattr(type(value), name):
            value = getattr(value, name)
    return (
        type(value).__module__ == "_io" and type(value).__name__ in ("FileIO", "StringIO", "BytesIO") and value.closed
    )


def _generator_state(value: Any, kind: type, _depth: int) -> list[object] | None:
    """Return the description of a random number generator: a digest of its state."""
    module, name = class_name(kind)
    if (module, name) == ("random", "Random"):
        state = repr(class_attribute(kind.__mro__[1], "getstate")[1](value))
    elif module.startswith("numpy.random") and name == "Generator":
        state = str(value.bit_generator.state)
    elif module.startswith("numpy.random") and name == "RandomState":
        state = repr([each.tobytes() if hasattr(each, "tobytes") else each for each in value.get_state()])
    else:
        return None
    return [
        "=",
        _type(kind),
        f"<{_type(kind)} in state {hashlib.sha1(state.encode(), usedforsecurity=False).hexdigest()[:8]}>",
    ]


def _array(value: Any, kind: type, _depth: int) -> list[Any] | None:
    """Return the description of an array or data frame: type, shape, and a digest of part of its bytes."""
    top = kind.__module__.partition(".")[0] if type(kind.__module__) is str else ""
    if top == "numpy":
        numpy = sys.modules["numpy"]
        if kind.__name__ in ("RandomState", "Generator", "SeedSequence", "PCG64", "MT19937"):
            return ["?", _type(kind)]
        if issubclass(kind, numpy.ndarray):
            array = numpy.ndarray.view(value, numpy.ndarray)
            return ["a", _type(kind), f"{array.dtype} {array.shape}", _digest(array)]
        if issubclass(kind, numpy.generic):
            return ["=", _type(kind), str(value)]
        if issubclass(kind, numpy.dtype):
            return ["=", "dtype", str(value)]
    elif top == "pandas":
        manager = instance_namespace(value).get("_mgr")
        if manager is None:
            data = instance_namespace(value).get("_data")
            return ["a", _type(kind), "", _digest(data) if data is not None else ""]
        blocks = getattr(manager, "blocks", ())
        digests = [_digest(block.values) for block in blocks[:20]]
        return ["a", _type(kind), str(getattr(manager, "shape", "")), " ".join(digests)]
    elif kind.__name__ == "array" and top == "array":
        return ["a", "array", f"{value.typecode} {len(value)}", _digest(value)]
    elif kind is memoryview:
        return ["?", "memoryview"]
    return None


def _digest(array: Any) -> str:
    """Return a digest of the first and last 64 KiB of an array, without copying all of it."""
    try:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(array, numpy.ndarray):
            if array.dtype.hasobject:
                return ""
            if array.flags.c_contiguous:
                view = memoryview(array.reshape(-1).view(numpy.uint8))
            else:  # any layout: elements in order, as many as fit the part
                count = _PART // max(1, array.dtype.itemsize)
                ends = [array.flat[:count]] if array.size <= count else [array.flat[:count], array.flat[-count:]]
                view = memoryview(b"".join(each.tobytes() for each in ends))
        else:
            view = memoryview(array).cast("B")
        data = bytes(view) if len(view) <= 2 * _PART else bytes(view[:_PART]) + bytes(view[-_PART:])
        return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]
    except Exception:
        return ""
