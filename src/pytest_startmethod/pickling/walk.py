"""Find every object that keeps a graph from being pickled, and the shortest path to each.

A breadth-first walk over the documented reduce protocol, iterative and linear in the number of objects: it visits each
object of the C pickler once, and asks the C pickler itself whether a function or class is found by name. It never
pickles more than one object at a time, so `[x, x]` nested 24 deep costs 25 visits.
"""

from __future__ import annotations

import collections
import functools
import gc
import pickle
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._compat import cpython
from .._compat.cpython import Reducer
from ..child.values import class_attribute, mro
from ..model.walk import _KEYS, Edge, Leaf, Number, Step, Walk, key_text

PROTOCOL = 5
"""The protocol for ``__reduce_ex__``. With 5, arrays pass on their buffers instead of copying them."""

_NEWOBJ, _NEWOBJ_EX = cpython.newobj_functions()
_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, range, type(Ellipsis), type(NotImplemented)}
)


class Sink:
    """A file that counts what a pickler writes, and keeps nothing."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: Any) -> int:
        """Count `data`."""
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        self.size += size
        return size


def probe(obj: object, table: Mapping[type, Reducer]) -> Exception | None:
    """Return the error that the C pickler raises for `obj`, or None."""
    pickler = pickle.Pickler(Sink(), PROTOCOL, buffer_callback=lambda _buffer: None)
    pickler.dispatch_table = table
    try:
        pickler.dump(obj)
    except Exception as error:
        return error
    return None


def walk(
    root: object,
    table: Mapping[type, Reducer],
    *,
    budget: int = 1_000_000,
    limit: int = 200,
    prune: Callable[[object], bool] | None = None,
    skip: Callable[[object], Iterable[str]] | None = None,
    override: Callable[[object], object] | None = None,
) -> Walk:
    """Return every leaf below `root`, nearest first.

    `table` is the pickler's dispatch table, `budget` the number of objects to visit, `limit` the number of leaves to
    collect. `prune(obj)` decides whether to treat an object as a whole, `skip(obj)` gives its attributes that the
    pickler does not see, and `override` is a user pickler's `reducer_override`.
    """
    # Everything that the walk allocates lives until its end, so collecting garbage is a waste of time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _Walker(table, prune, skip, override).run(root, budget, limit)
    finally:
        if collecting:
            gc.enable()


class _LeafError(Exception):
    """An object turned out to be a leaf."""

    def __init__(self, kind: Any, error: BaseException, name: str | None = None) -> None:
        super().__init__(kind, error)
        self.kind = kind
        self.error = error
        self.name = name


class _Walker:
    def __init__(self, table: Mapping[type, Reducer], prune: Any, skip: Any, override: Any) -> None:
        self.table = table
        self.prune = prune
        self.skip = skip
        self.override = override
        self.plain: dict[type, bool] = {}

    def run(self, root: object, budget: int, limit: int) -> Walk:
        # Each entry keeps its object alive, so that an id stays the id of one object. A walk over 300,000 objects is
        # bound by what each one allocates: containers of plain values are dropped here, before they cost an entry.
        queue: list[_Entry] = [(root, -1, None)]
        seen = {id(root)}
        leaves: list[Leaf] = []
        at = 0
        only_atoms = _ATOMS.issuperset
        while at < len(queue) and at < budget and len(leaves) < limit:
            obj = queue[at][0]
            try:
                children = self.children(obj)
            except _LeafError as bad:
                children = ()
                chain = _chain(queue, at)
                # A buffer that an object reduced itself to is its answer to protocol 5, not the user's own.
                if bad.kind != "buffer" or all(step[0] != "reduce" for step, _ in chain):
                    leaves.append(Leaf(obj, bad.error, bad.kind, chain, root, bad.name))
            for step, child in children:
                key = id(child)
                if key not in seen:
                    t = type(child)
                    if (t is list or t is tuple) and only_atoms(map(type, child)):
                        continue
                    seen.add(key)
                    queue.append((child, at, step))
            at += 1
        deepest = tuple(step for step, _ in _chain(queue, len(queue) - 1))
        return Walk(tuple(leaves), at, at == len(queue), deepest)

    def children(self, obj: Any) -> Iterable[Edge]:
        """Return the objects that the pickler would visit next, in the order of `save` in Modules/_pickle.c."""
        t = type(obj)
        if t in _ATOMS:
            return ()
        if t is dict:
            return _pairs(list(obj.items()))
        if t is list or t is tuple:
            return _sequence(obj)
        if t is set or t is frozenset:
            return [(("element", None), each) for each in obj if type(each) not in _ATOMS]
        if t is pickle.PickleBuffer:
            self._buffer(obj)
            return ()
        if self.override is not None:
            value = self.override(obj)
            if value is not NotImplemented:
                return self._reduced(obj, value)
        if t is type or t is types.FunctionType:
            return self._named(obj)
        if t not in self.table:
            if self.plain.get(t):
                state = object.__getattribute__(obj, "__dict__")
                if "__reduce_ex__" not in state and "__reduce__" not in state and "__getstate__" not in state:
                    return [(("attribute", key), child) for key, child in state.items() if type(child) not in _ATOMS]
            elif type in mro(t):
                return self._named(obj)
        if self.prune is not None and self.prune(obj):
            error = probe(obj, self.table)
            if error is not None:
                raise _LeafError("raised", error)
            return ()
        return self._reduced(obj, self._reduce(obj, t))

    def _named(self, obj: object, name: str | None = None) -> tuple[()]:
        error = probe(obj, self.table)
        if error is not None:
            raise _LeafError("name", error, name)
        return ()

    def _buffer(self, obj: Any) -> None:
        """Test a buffer of the user's: the default protocol accepts it in band, from 3.14 on."""
        try:
            if pickle.DEFAULT_PROTOCOL < 5 or not memoryview(obj).contiguous:
                pickle.dumps(obj)
        except Exception as error:
            raise _LeafError("buffer", error) from None

    def _reduce(self, obj: object, t: type) -> object:
        try:
            reducer = self.table.get(t)
            if reducer is not None:
                return reducer(obj)
            try:
                reduce_ex = obj.__reduce_ex__
            except AttributeError:
                return obj.__reduce__()
            return reduce_ex(PROTOCOL)
        except Exception as error:
            raise _LeafError("raised", error) from None

    def _reduced(self, obj: object, value: Any) -> Iterable[Edge]:
        if isinstance(value, str):
            return self._named(obj, value)
        if not _well_formed(obj, value):
            error = probe(obj, self.table)
            if error is not None:
                raise _LeafError("invalid", error)
            return ()
        func, args, state, listitems, dictitems, setter = (*value, None, None, None, None)[:6]
        t = type(obj)
        if any(each is obj for each in args):  # it has no place in the memo until its arguments are written
            raise _LeafError("invalid", RecursionError("maximum recursion depth exceeded"))
        if func is _NEWOBJ and args == (t,) and value[3:] in ((), (None,), (None, None), (None, None, None)):
            self._learn(obj, t, state)
        held = Held(obj)
        out: list[Edge] = []
        name = getattr(func, "__name__", "")
        if name == "__newobj__":
            out.append((("attribute", "__class__"), args[0]))
            out += held.arguments(args[1:])
        elif name == "__newobj_ex__":
            out.append((("attribute", "__class__"), args[0]))
            out += held.arguments(args[1])
            out += held.arguments(tuple(args[2].values()))
        else:
            out.append((("attribute", "__class__") if func is t else ("reduce", "[0]"), func))
            out += held.arguments(args, constructor=func is t or getattr(func, "__module__", "") == "builtins")
        if listitems is not None:
            out += [(("item", i), child) for i, child in enumerate(listitems) if type(child) not in _ATOMS]
        if dictitems is not None:
            out += _pairs(dictitems)
        if setter is not None:
            out.append((("reduce", "[5]"), setter))
        if state is not None:
            out += held.state(state)
        if self.skip is not None:
            hidden = frozenset(self.skip(obj))
            if hidden:
                out = [each for each in out if not (each[0][0] == "attribute" and each[0][1] in hidden)]
        return [each for each in out if type(each[1]) not in _ATOMS]

    def _learn(self, obj: object, t: type, state: object) -> None:
        """Remember whether objects of `t` reduce to their ``__dict__`` alone, to skip the reduction of the next one."""
        if t in self.plain:
            return
        space = [vars_ for cls in mro(t)[:-1] if (vars_ := type.__getattribute__(cls, "__dict__"))]
        special = ("__reduce_ex__", "__reduce__", "__getstate__", "__getattribute__", "__class__", "__getnewargs__")
        own = any(name in names for names in space for name in (*special, "__getnewargs_ex__", "__getattr__"))
        slots = any(type(v) is types.MemberDescriptorType for names in space for v in names.values())
        same = type(state) is dict and state is own_namespace(obj)
        self.plain[t] = (
            not own and not slots and same and self.override is None and not (self.prune and self.prune(obj))
            and not (self.skip and tuple(self.skip(obj))) and probe(t, self.table) is None
        )  # fmt: skip


def _known_arguments(t: type, args: tuple[object, ...]) -> list[Edge] | None:
    """Return the steps to the arguments that rebuild a method, partial, exception or container; None for others."""
    bases = mro(t)
    if t is types.MethodType or t is types.BuiltinMethodType or t.__name__ == "method-wrapper":
        return [(("attribute", "__self__"), args[0])]
    if t is functools.partial:
        return _partial(args)
    if BaseException in bases:
        if BaseExceptionGroup_ in bases and len(args) == 2:
            return [(("attribute", "exceptions"), args[1])]
        return [(_under("args", i), each) for i, each in enumerate(args)]
    if tuple in bases and len(args) == 1 and type(args[0]) is tuple:
        args = args[0]
    if tuple in bases:
        fields = class_attribute(t, "_fields")[1]
        if type(fields) is tuple and len(fields) == len(args) and all(type(f) is str for f in fields):
            return [(("attribute", f), each) for f, each in zip(fields, args, strict=True)]
        return [(("item", i), each) for i, each in enumerate(args)]
    if len(args) == 1 and type(args[0]) is list and (set in bases or frozenset in bases):
        return [(("element", None), each) for each in args[0]]
    if len(args) == 1 and type(args[0]) is dict and dict in bases:
        return _pairs(list(args[0].items()))
    if collections.defaultdict in bases and len(args) == 1:
        return [(("attribute", "default_factory"), args[0])]
    return None


class Held:
    """The attributes of an object, by which the parts of its reduction get names known to the user."""

    def __init__(self, obj: object) -> None:
        self.obj = obj
        self._by_id: dict[int, str] | None = None

    def name_of(self, part: object) -> str | None:
        """Return the name of the attribute that is `part`, by identity."""
        if self._by_id is None:
            self._by_id = {}
            enum = any(cls.__name__ == "Enum" and cls.__module__ == "enum" for cls in mro(type(self.obj)))
            for name, value in attributes(self.obj):
                if type(value) not in _ATOMS:
                    self._by_id.setdefault(id(value), "value" if name == "_value_" and enum else name)
        return self._by_id.get(id(part))

    def step_to(self, part: object, otherwise: Step) -> Step:
        """Return the step to a part of the reduction, if it is an attribute of the object or an item of one."""
        name = self.name_of(part)
        if name is not None:
            return "attribute", name
        for name, value in attributes(self.obj):
            if type(value) is tuple or type(value) is list:
                for i, each in enumerate(value[:100]):
                    if each is part:
                        return "reduce", f".{name}[{i}]"
        return otherwise

    def arguments(self, args: tuple[object, ...], *, constructor: bool = True) -> list[Edge]:
        """Return the arguments that rebuild the object, with the step that leads to each.

        With `constructor` they are those of the object's own class, or of a builtin like ``iter``.
        """
        if not args or all(type(each) in _ATOMS for each in args):
            return []
        known = _known_arguments(type(self.obj), args)
        return self._unknown_arguments(args, constructor) if known is None else known

    def _unknown_arguments(self, args: tuple[object, ...], constructor: bool) -> list[Edge]:
        """Return the steps to the arguments of a class that is not a builtin, by the attributes that hold them."""
        t = type(self.obj)
        out: list[Edge] = []
        for i, each in enumerate(args):
            if each is t:
                out.append((("attribute", "__class__"), each))
                continue
            step = self.step_to(each, ("element", None))
            if step[0] != "element":
                out.append((step, each))
            elif type(each) is tuple and any(names := [self.name_of(part) for part in each]):
                out += [
                    (("attribute", name) if name else ("reduce", f"[1][{i}][{j}]"), part)
                    for j, (name, part) in enumerate(zip(names, each, strict=True))
                ]
            else:
                out.append((("reduce", f"{{argument {i}}}" if constructor else f"[1][{i}]"), each))
        return out

    def state(self, state: object) -> list[Edge]:
        """Return the objects in the state, each with its step."""
        t = type(self.obj)
        default = _default_state(t)
        if type(state) is tuple and len(state) == 2 and default:
            out: list[Edge] = []
            for part in state:
                if type(part) is dict:
                    out += _attributes(part)
            return out
        if type(state) is dict:
            if default:
                return _attributes(state)
            return [*self._custom(state)]
        if type(state) is tuple or (type(state) is list and self.name_of(state) is None):  # a dataclass with slots
            return self._numbered(tuple(state), "")
        name = self.name_of(state)
        return [(("attribute", name) if name else ("reduce", "[2]"), state)]

    def _custom(self, state: dict[object, object]) -> Iterable[Edge]:
        namespace = own_namespace(self.obj) or {}
        for i, (key, value) in enumerate(state.items()):
            if type(key) not in _ATOMS:
                yield ("key", i), key
            if type(value) in _ATOMS:
                continue
            if key == "_mgr" and type(self.obj).__module__.partition(".")[0] == "pandas":
                yield from _columns(self.obj)
            if type(key) is str and key.isidentifier() and (
                namespace.get(key) is value or class_attribute(type(self.obj), key)[0] is not None
            ):  # fmt: skip
                yield ("attribute", key), value
            else:
                name = self.name_of(value)
                yield (("attribute", name) if name else ("reduce", f"[2][{key_text(key, i)}]")), value

    def _numbered(self, state: tuple[object, ...], where: str) -> list[Edge]:
        out: list[Edge] = []
        shape = _shape(self.obj)
        for i, each in enumerate(state):
            if type(each) in _ATOMS:
                continue
            name = self.name_of(each)
            if name is not None:
                out.append((("attribute", name), each))
            elif type(each) is dict and each is own_namespace(self.obj):
                out += _attributes(each)
            elif shape is not None and type(each) is list:
                out += [(("item", _unravel(j, shape)), part) for j, part in enumerate(each)]
            elif type(each) is tuple and any(self.name_of(part) for part in each):
                out += self._numbered(each, f"{where}[{i}]")
            elif type(each) is dict:
                for j, (key, value) in enumerate(each.items()):
                    name = self.name_of(value)
                    text = f"[2]{where}[{i}][{key_text(key, j)}]"
                    out.append((("attribute", name) if name else ("reduce", text), value))
                    out.append((("key", j), key))
            else:
                out.append((("reduce", f"[2]{where}[{i}]"), each))
        return out


try:
    BaseExceptionGroup_: object = BaseExceptionGroup  # type: ignore[name-defined]  # 3.11
except NameError:
    BaseExceptionGroup_ = None


def attributes(obj: object) -> list[tuple[str, Any]]:
    """Return the attributes of `obj` in ``__dict__`` and slots, running none of its code."""
    out: list[tuple[str, object]] = []
    namespace = own_namespace(obj)
    if namespace is not None:
        out += [(key, value) for key, value in list(namespace.items()) if type(key) is str]
    for cls in mro(type(obj)):
        for name, descriptor in type.__getattribute__(cls, "__dict__").items():
            if type(descriptor) is types.MemberDescriptorType or (
                type(descriptor) is types.GetSetDescriptorType and cls.__module__ in _C_MODULES
            ):
                try:
                    out.append((name, descriptor.__get__(obj)))
                except Exception:  # an empty slot, or a getter that refuses: not held
                    continue
    return out


_C_MODULES = frozenset({"functools", "itertools", "collections", "_io", "io", "operator", "re", "slice"})
"""Modules whose getters written in C are plain reads."""


def own_namespace(obj: object) -> dict[object, object] | None:
    """Return the ``__dict__`` of `obj`, or None, running none of its code."""
    try:
        namespace = object.__getattribute__(obj, "__dict__")
    except Exception:
        return None
    return namespace if type(namespace) is dict else None


def _columns(frame: Any) -> Iterable[Edge]:
    """Yield the objects in a pandas table by column, or by position in a series."""
    name = type(frame).__name__
    if name == "Series" and str(frame.dtype) == "object":
        yield from ((("item", i), each) for i, each in enumerate(frame.to_numpy()) if type(each) not in _ATOMS)
    elif name == "DataFrame":
        for i, dtype in enumerate(frame.dtypes):
            if str(dtype) == "object":
                yield ("item", frame.columns[i]), frame.iloc[:, i].to_numpy()


def _default_state(t: type) -> bool:
    """Return whether ``__dict__`` and slots are the state of an object of class `t`."""
    pickling = ("__getstate__", "__reduce_ex__", "__reduce__")
    return all(class_attribute(t, name)[0] in (None, object) for name in pickling)


def _well_formed(obj: object, value: object) -> bool:
    """Return whether `save_reduce` in Modules/_pickle.c accepts `value`."""
    if not isinstance(value, tuple) or not 2 <= len(value) <= 6:
        return False
    func, args = value[0], value[1]
    if not callable(func) or not isinstance(args, tuple):
        return False
    if any(each is not None and not hasattr(type(each), "__next__") for each in value[3:5]):
        return False
    if len(value) == 6 and value[5] is not None and not callable(value[5]):
        return False
    name = getattr(func, "__name__", "")
    if name == "__newobj__":
        return bool(args) and hasattr(args[0], "__new__") and obj.__class__ is args[0]
    if name == "__newobj_ex__":
        good = len(args) == 3 and isinstance(args[1], tuple) and isinstance(args[2], dict)
        return good and hasattr(args[0], "__new__") and obj.__class__ is args[0]
    return True


def _sequence(obj: Any) -> Iterable[Edge]:
    if len(obj) > 64 and set(map(type, obj)) <= _ATOMS:
        return ()
    return [(("item", i), child) for i, child in enumerate(obj) if type(child) not in _ATOMS]


def _item_step(key: object, index: int) -> Step:
    return "item", key if type(key) in _KEYS else Number(index)


def _pairs(pairs: Iterable[Any], step: Callable[[Any, int], Step] = _item_step) -> list[Edge]:
    out: list[Edge] = []
    for i, (key, value) in enumerate(pairs):
        if type(value) not in _ATOMS:
            out.append((step(key, i), value))
        if type(key) not in _ATOMS:
            out.append((("key", i), key))
    return out


def _attributes(namespace: dict[object, object]) -> list[Edge]:
    return _pairs(namespace.items(), lambda key, i: ("attribute", key) if type(key) is str else ("reduce", f"[2][{i}]"))


def _partial(args: tuple[Any, ...]) -> list[Edge]:
    out: list[Edge] = [(("attribute", "func"), args[0])]
    if len(args) == 3:
        out += [(_under("args", i), each) for i, each in enumerate(args[1])]
        out += [(_under("keywords", key), each) for key, each in args[2].items()]
    return out


def _under(name: str, key: object) -> Step:
    return ("reduce", f".{name}[{key!r}]")


def _shape(obj: Any) -> tuple[int, ...] | None:
    t = type(obj)
    if t.__module__ != "numpy" or t.__name__ not in ("ndarray", "MaskedArray"):
        return None
    shape: tuple[int, ...] = obj.shape
    return shape


def _unravel(index: int, shape: tuple[int, ...]) -> object:
    if len(shape) == 1:
        return index
    out = []
    for size in reversed(shape):
        index, rest = divmod(index, size or 1)
        out.append(rest)
    return tuple(reversed(out))


_Entry = tuple[object, int, Step | None]
"""A visited object, the number of the entry that led there, and the step."""


def _chain(queue: list[_Entry], at: int) -> tuple[Edge, ...]:
    out: list[Edge] = []
    while True:
        obj, parent, step = queue[at]
        if step is None:
            return tuple(reversed(out))
        out.append((step, obj))
        at = parent
