"""A value as builtins, and two such descriptions side by side: nothing of the value's own code is run.

Here and in the fresh child, which loads this file by its path, with the standard library only. A description is a
nested list that JSON can hold. What has no describable content is told by its type; what exceeds the budget is cut,
and a cut is equal to everything.
"""

# ruff: noqa: SIM105

from __future__ import annotations

import hashlib
import os
import sys
import types
from _thread import _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

BUDGET = 4_000
DEPTH = 10
TEXT = 300
SHOWN = 60


class _Missing:
    __slots__ = ()


MISSING: Any = _Missing()
"""In the place of what is not there."""

# -- looking, without running anything ---------------------------------------------------------------------------------

_mro = type.__dict__["__mro__"].__get__
_namespace_of_type = type.__dict__["__dict__"].__get__


def module_of(module: Any) -> dict[str, Any]:
    """Return a module's namespace; an empty one if it is none."""
    return instance_namespace(module) if module is not None else {}


def instance_namespace(obj: Any) -> dict[str, Any]:
    """Return what an instance holds itself: its ``__dict__`` and its slots."""
    found: dict[str, Any] = {}
    try:
        own = object.__getattribute__(obj, "__dict__")
        if type(own) is dict:
            found = own
    except Exception:
        if _local in _mro(type(obj)):  # what this thread has
            found = _local.__getattribute__(obj, "__dict__")
    slots = {}
    for cls in _mro(type(obj)):
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
    """Return the class in the order of resolution that has `name`, and the raw value; (None, MISSING) if none has.

    With `after`, only classes behind that one are asked.
    """
    order = _mro(cls)
    if after is not None and after in order:
        order = order[order.index(after) + 1 :]
    for owner in order:
        own = _namespace_of_type(owner)
        if name in own:
            return owner, own[name]
    return None, MISSING


def class_name(cls: Any) -> tuple[str, str]:
    """Return module and qualified name of a class."""
    module = _namespace_of_type(cls).get("__module__") if issubclass(type(cls), type) else None
    if type(module) is not str:
        module = type.__dict__["__module__"].__get__(cls) if issubclass(type(cls), type) else ""
    name = type.__dict__["__qualname__"].__get__(cls) if issubclass(type(cls), type) else ""
    return (module if type(module) is str else ""), (name if type(name) is str else "")


def public_name(cls: Any) -> tuple[str, str]:
    """Return module and qualified name of a class, by way of the public module that has it where its own is private.

    ``pathlib._local.Path`` is written ``pathlib.Path``.
    """
    module, name = class_name(cls)
    parts = module.split(".")
    hidden = next((i for i, part in enumerate(parts) if part[:1] == "_" and part[:2] != "__"), 0)
    public = ".".join(parts[:hidden])
    if public and resolve(sys.modules.get(public), name.split(".")) is cls:
        return public, name
    return module, name


def subclasses(cls: type) -> list[type]:
    """Return the direct subclasses of a class, by name."""
    return sorted(type.__subclasses__(cls), key=class_name)


def virtual_subclasses(cls: type) -> list[type]:
    """Return the classes that were registered with an ABC, by name; none if it is no ABC."""
    if class_attribute(cls, "_abc_impl")[0] is None:
        return []
    try:
        registry = sys.modules["_abc"]._get_dump(cls)[0]  # weak references; else: keep `ABCMeta.register`'s calls
        return sorted((each for each in (one() for one in registry) if each is not None), key=class_name)
    except Exception:
        return []


VIRTUAL = "_abc_registry"
"""What `resolve` calls the classes that were registered with an ABC, after the attribute of ``_py_abc.ABCMeta``."""


def resolve(module: Any, names: Sequence[str], steps: Iterable[Sequence[Any]] = ()) -> Any:
    """Return what a dotted name and the steps from there lead to, or MISSING."""
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


def _attribute(value: Any, name: str) -> Any:
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
    return found if owner is not None and not hasattr(type(found), "__set__") else MISSING


def _captured(function: types.FunctionType) -> dict[str, Any]:
    """Return the variables that a function took from the function around it."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):  # noqa: B905 - of one length
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
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
_SEQUENCES = (list, tuple)
_OPAQUE_MODULES = frozenset({
    "_thread", "threading", "multiprocessing", "socket", "_socket", "subprocess", "concurrent", "asyncio", "selectors",
    "ssl", "sqlite3", "weakref", "_weakref", "queue", "_queue", "mmap", "io", "_io", "tempfile", "contextvars",
    "_contextvars", "ctypes", "_ctypes", "random", "_random", "itertools", "multiprocess", "billiard", "_asyncio",
    "_multiprocessing", "select", "_hashlib", "torch", "sched", "signal",
})  # fmt: skip
"""What has no content that could be compared: it is told by its type."""
_MOCKS = ("unittest.mock", "mock.mock", "mock")


def is_mock(value: Any) -> bool:
    """Say whether a value is a mock object, by its type."""
    return any(
        cls.__module__ in _MOCKS and cls.__name__ in ("NonCallableMock", "CallableMixin", "Base", "_SentinelObject")
        for cls in _mro(type(value))
    )


def describe(value: Any, budget: int = BUDGET) -> list[Any]:
    """Return the description of a value."""
    return _Describer(budget).node(value, 0)


class _Describer:
    def __init__(self, budget: int) -> None:
        self.left = budget
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []

    def node(self, value: Any, depth: int) -> list[Any]:
        kind = type(value)
        if value is MISSING:
            return ["!"]
        if kind in _PLAIN:
            return ["=", kind.__name__, repr(value)]
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

    def composed(self, value: Any, kind: type, depth: int) -> list[Any]:
        if kind in _SEQUENCES:
            return ["(", kind.__name__, self.parts(value, depth)]
        if kind in (set, frozenset):
            return ["<", kind.__name__, sorted(self.parts(value, depth), key=repr)]
        if kind is dict:
            return self.mapping(kind, list(value.items()), depth)
        module, name = class_name(kind)
        if kind is types.MappingProxyType:
            return self.mapping(kind, list(value.items()), depth)
        if name == "_lru_cache_wrapper":
            wrapped = object.__getattribute__(value, "__dict__").get("__wrapped__")
            return ["l", self.node(wrapped, depth + 1), bool(kind.cache_info(value).currsize)]  # type: ignore[attr-defined]
        if name == "partial" and module == "functools":
            return ["p", self.node(value.func, depth + 1), self.parts(value.args, depth),
                    self.mapping(dict, list(value.keywords.items()), depth)]  # fmt: skip
        if kind in (staticmethod, classmethod):
            return ["d", kind.__name__, self.node(value.__func__, depth + 1)]
        if kind is property:
            return ["d", "property", self.node(value.fget, depth + 1)]
        if kind is types.MethodType:
            return ["M", self.node(value.__func__, depth + 1), self.node(value.__self__, depth + 1)]
        if name in ("method_descriptor", "wrapper_descriptor", "getset_descriptor", "member_descriptor",
                    "builtin_function_or_method", "method-wrapper", "classmethod_descriptor"):  # fmt: skip
            return ["b", str(getattr(value, "__qualname__", name))]
        if (module, name) == ("itertools", "count"):
            return ["=", "itertools.count", repr(value)]
        generator = _generator_state(value, kind)
        if generator is not None:
            return generator
        held = _held(value, module, name)
        if held is not MISSING:
            return ["(", _type(kind), self.parts(held, depth)]
        array = _array(value, kind)
        if array is not None:
            return array
        if kind.__name__ == "ContextVar" and module in ("_contextvars", "contextvars", "builtins"):
            return ["v", self.node(_context_value(value), depth + 1)]
        if kind.__name__ == "_local" and module in ("_thread", "_threading_local"):
            return self.object(value, kind, depth)
        if module.partition(".")[0] in _OPAQUE_MODULES or kind.__name__ in ("generator", "coroutine", "frame", "cell"):
            return ["?", _type(kind)]
        if issubclass(kind, dict):
            return ["o", _type(kind), self.attributes(value, depth), self.mapping(dict, list(dict.items(value)), depth)]
        base = next((each for each in (list, tuple, set, frozenset) if issubclass(kind, each)), None)
        if base is not None:
            parts = self.parts(base.__iter__(value), depth)
            parts = sorted(parts, key=repr) if base in (set, frozenset) else parts
            content = ["<" if base in (set, frozenset) else "(", base.__name__, parts]
            return ["o", _type(kind), self.attributes(value, depth), content]
        plain = next((each for each in (str, int, float, bytes) if issubclass(kind, each)), None)
        if plain is not None and not any(cls.__module__ == "enum" for cls in _mro(kind)):
            return [
                "o",
                _type(kind),
                self.attributes(value, depth),
                ["=", plain.__name__, plain.__repr__(value)[:TEXT]],
            ]
        if name == "deque" and module == "collections":
            return ["(", "deque", self.parts(value, depth)]
        return self.object(value, kind, depth)

    def object(self, value: Any, kind: type, depth: int) -> list[Any]:
        if any(cls.__module__ == "enum" and cls.__name__ == "Enum" for cls in _mro(kind)):
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

    def mapping(self, kind: type, items: Sequence[tuple[Any, Any]], depth: int) -> list[Any]:
        out = []
        for key, value in items:
            if self.left < 0:
                out.append([["-"], ["-"]])
                break
            out.append([self.node(key, depth + 1), self.node(value, depth + 1)])
        return ["{", kind.__name__, out]


def _text(value: Any) -> list[Any]:
    kind = type(value)
    if len(value) <= TEXT:
        return ["=", kind.__name__, repr(value)]
    data = value.encode("utf-8", "surrogatepass") if kind is str else value
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return ["=", kind.__name__, f"{value[: SHOWN // 2]!r}... ({len(value)} long, sha1 {digest[:8]})"]


def _named(value: Any, kind: type) -> list[Any] | None:
    """Return the description of what is told by its name."""
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
    """Return what is in a queue of threads or a weak collection, and whether an event is set; MISSING for the rest."""
    if module == "queue" and name in ("Queue", "LifoQueue", "PriorityQueue"):
        return list(value.queue)
    if (module, name) == ("threading", "Event"):
        return ["set"] if value.is_set() else []
    if module == "weakref" and name in ("WeakValueDictionary", "WeakKeyDictionary"):
        return list(value.values())
    if (module, name) == ("_weakrefset", "WeakSet"):
        return sorted((class_name(type(each)) for each in value), key=str)
    return MISSING


def _generator_state(value: Any, kind: type) -> list[Any] | None:
    """Return the description of a generator of random numbers: a digest of its state."""
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


def _array(value: Any, kind: type) -> list[Any] | None:
    """Return the description of an array or a table of numbers: type, shape, and a digest of a part of its bytes."""
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
    """Return a digest of the first and the last 64 KiB of an array, which is never copied as a whole."""
    part = 1 << 16
    try:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(array, numpy.ndarray):
            if array.dtype.hasobject:
                return ""
            if array.flags.c_contiguous:
                view = memoryview(array.reshape(-1).view(numpy.uint8))
            else:  # whatever the layout: elements in order, as many as the part has room for
                count = part // max(1, array.dtype.itemsize)
                ends = [array.flat[:count]] if array.size <= count else [array.flat[:count], array.flat[-count:]]
                view = memoryview(b"".join(each.tobytes() for each in ends))
        else:
            view = memoryview(array).cast("B")
        data = bytes(view) if len(view) <= 2 * part else bytes(view[:part]) + bytes(view[-part:])
        return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]
    except Exception:
        return ""


# -- comparing ---------------------------------------------------------------------------------------------------------


def differences(ours: Any, theirs: Any, path: str = "", limit: int = 20) -> list[tuple[str, Any, Any]]:
    """Return where two descriptions differ: the path within the value, and both parts."""
    found: list[tuple[str, Any, Any]] = []
    for each in _differ(ours, theirs, path, 0):
        found.append(each)
        if len(found) >= limit:
            break
    return found


def _differ(a: Any, b: Any, path: str, depth: int) -> Iterator[tuple[str, Any, Any]]:
    if a == b or a == ["-"] or b == ["-"] or depth > 50:
        return
    if a[0] != b[0] or (a[0] in "({<o" and a[1] != b[1]):
        yield path, a, b
        return
    kind = a[0]
    if kind == "(":
        if len(a[2]) != len(b[2]) and ["-"] not in (*a[2][-1:], *b[2][-1:]):
            yield path, a, b
            return
        for index, (x, y) in enumerate(zip(a[2], b[2], strict=False)):
            yield from _differ(x, y, f"{path}[{index}]", depth + 1)
    elif kind == "{":
        yield from _mapping(a, b, path, depth)
    elif kind == "<":
        if [["-"]] not in (a[2][:1], b[2][:1]) and ["-"] not in a[2] and ["-"] not in b[2]:
            yield path, a, b
    elif kind == "o":
        ours, theirs = dict(map(tuple, a[2])), dict(map(tuple, b[2]))
        for name in [*ours, *(n for n in theirs if n not in ours)]:
            yield from _differ(ours.get(name, ["!"]), theirs.get(name, ["!"]), f"{path}.{name}", depth + 1)
        if a[3] is not None and b[3] is not None:
            yield from _differ(a[3], b[3], path, depth + 1)
    elif kind == "p":
        yield from _differ(a[1], b[1], f"{path}.func", depth + 1)
        yield from _differ(["(", "tuple", a[2]], ["(", "tuple", b[2]], f"{path}.args", depth + 1)
        yield from _differ(a[3], b[3], f"{path}.keywords", depth + 1)
    elif kind == "d":
        if a[1] != b[1]:
            yield path, a, b
        else:
            yield from _differ(a[2], b[2], path, depth + 1)
    elif kind == "M":
        yield from _differ(a[1], b[1], path, depth + 1)
        yield from _differ(a[2], b[2], f"{path}.__self__", depth + 1)
    elif kind == "v":
        yield from _differ(a[1], b[1], path, depth + 1)
    elif kind == "^":
        return  # what it refers to is compared where it stands
    else:
        yield path, a, b


def _mapping(a: Any, b: Any, path: str, depth: int) -> Iterator[tuple[str, Any, Any]]:
    ours = {repr(key): (key, value) for key, value in a[2]}
    theirs = {repr(key): (key, value) for key, value in b[2]}
    if "['-']" in ours or "['-']" in theirs:
        ours = {k: v for k, v in ours.items() if k in theirs and k != "['-']"}
        theirs = {k: v for k, v in theirs.items() if k in ours}
    for key in [*ours, *(k for k in theirs if k not in ours)]:
        shown = short((ours.get(key) or theirs[key])[0])
        x = ours[key][1] if key in ours else ["!"]
        y = theirs[key][1] if key in theirs else ["!"]
        yield from _differ(x, y, f"{path}[{shown}]", depth + 1)


# -- texts -------------------------------------------------------------------------------------------------------------


def short(node: Any, limit: int = SHOWN) -> str:
    """Return a description as a short text."""
    text = _short(node, 0)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _short(node: Any, depth: int) -> str:
    kind = node[0]
    if kind == "=":
        return str(node[2])
    if kind == "!":
        return "not there"
    if kind == "-" or kind == "^" or depth > 3:
        return "..."
    if kind == "(":
        inner = ", ".join(_short(each, depth + 1) for each in node[2][:8]) + (", ..." if len(node[2]) > 8 else "")
        if node[1] == "tuple":
            return f"({inner},)" if len(node[2]) == 1 else f"({inner})"
        return f"[{inner}]" if node[1] == "list" else f"{node[1]}([{inner}])"
    if kind == "<":
        inner = ", ".join(_short(each, depth + 1) for each in node[2][:8]) + (", ..." if len(node[2]) > 8 else "")
        return f"{{{inner}}}" if node[2] else f"{node[1]}()"
    if kind == "{":
        inner = ", ".join(f"{_short(k, depth + 1)}: {_short(v, depth + 1)}" for k, v in node[2][:6])
        return f"{{{inner}{', ...' if len(node[2]) > 6 else ''}}}"
    if kind == "o":
        return f"{_short(node[3], depth + 1)}" if node[3] is not None else f"<{node[1]} object>"
    if kind == "f":
        return f"function {node[1]} ({os.path.basename(node[2])}:{node[3]})"
    if kind == "b":
        return f"built-in {node[1]}"
    if kind == "c":
        return f"class {node[1]}"
    if kind == "m":
        return f"module {node[1]}"
    if kind == "K":
        return f"<{node[1]}>"
    if kind == "L":
        return f"logger {node[1]!r}"
    if kind == "l":
        return f"{'filled' if node[2] else 'empty'} cache of {_short(node[1], depth)}"
    if kind == "p":
        return f"partial of {_short(node[1], depth)}"
    if kind == "d":
        return f"{node[1]} {_short(node[2], depth)}"
    if kind == "M":
        return f"method {_short(node[1], depth).removeprefix('function ')}"
    if kind == "a":
        return f"<{node[1]} {node[2]}, content {node[3][:12] or 'unknown'}>"
    if kind == "v":
        return _short(node[1], depth)
    return f"<{node[1]} object>" if len(node) > 1 else "?"
