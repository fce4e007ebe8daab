"""Pickle functions and classes by value instead of by name, and objects that pickle refuses."""

from __future__ import annotations

import copyreg
import importlib.machinery
import io
import pickle
import sys
import threading
import types
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Token
from typing import Any, ClassVar, Final, cast

import cloudpickle  # type: ignore[import-untyped]

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation.exchanges import Exchanges
from ..child import reporter, values
from ..child.replayer import Gone, connected, make_class, make_instance, opened, own_global, set_state, weakly
from ..source.callers import owner

_NONE = object()
_PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__", "__getnewargs_ex__", "__getnewargs__")


def is_mock_class(cls: type) -> bool:
    """Return whether `cls` is a mock class, of ``unittest.mock`` or of the package ``mock``."""
    return any(
        base.__name__ == "NonCallableMock" and base.__module__ in ("unittest.mock", "mock.mock", "mock")
        for base in type.mro(cls)[:-1]
    )


def _anew(instance: object) -> tuple[object, ...]:
    return type(instance), ()


def _weak(reference: Any) -> tuple[object, ...]:
    target = reference()
    return weakly, (weakref.ref, Gone() if target is None else target)


def _weak_items(weak: Any) -> tuple[object, ...]:
    return weakly, (type(weak), list(weak) if type(weak) is weakref.WeakSet else dict(weak))


def _file(file: Any) -> tuple[object, ...]:
    """Reduce a file to the same one: opened again if it is only read, otherwise by its descriptor, as under fork."""
    if file.mode.strip("bt") == "r" and type(file.name) is str:
        return opened, (file.name, file.mode, getattr(file, "encoding", None), file.tell())
    if not mp.STDLIB.is_spawning():
        raise pickle.PicklingError("descriptors are sent to a starting process only")
    file.flush()
    duplicate: Any = mp.reduction_module().DupFd(file.fileno())
    return opened, (duplicate, file.mode.replace("x", "w"), getattr(file, "encoding", None))


def _database(connection: Any) -> tuple[object, ...]:
    """Reduce a connection of `sqlite3` to another one, to the same file or a copy of what it holds in memory."""
    path = next(path for _, name, path in connection.execute("pragma database_list") if name == "main")
    return connected, (path, "" if path else "\n".join(connection.iterdump()))


_STAND_INS: dict[type, Callable[[Any], tuple[object, ...]]] = {
    type(threading.Lock()): lambda _: (threading.Lock, ()),
    type(threading.RLock()): lambda _: (threading.RLock, ()),
    threading.local: _anew,
    Token: lambda _: (Gone, ()),  # it resets a variable in the parent's context only
    weakref.ref: _weak,
    **dict.fromkeys((io.TextIOWrapper, io.BufferedWriter, io.BufferedReader, io.BufferedRandom, io.FileIO), _file),
    **dict.fromkeys((weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary), _weak_items),
}
"""How to reduce what pickle refuses: as a new object of its class."""
_BY_FUNCTION: dict[type, Callable[[Any], tuple[object, ...]]] = {
    types.MethodType: lambda method: (types.MethodType, (method.__func__, method.__self__))
}
"""`ForkingPickler` sends a method by its name, under which a private one is not found."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles like cloudpickle, and also whatever multiprocessing itself can send."""

    # A class attribute, because the C pickler ignores the instance's.
    dispatch_table: ClassVar[Any] = ChainMap(
        _BY_FUNCTION, cpython.extra_reducers(), cloudpickle.Pickler.dispatch_table, copyreg.dispatch_table
    )
    classes_by_value: ClassVar[bool] = True
    """Whether classes with an importable name are sent by value, too."""
    package = ""
    """The installed package whose functions and classes are sent by value, with the state that they hold."""

    def is_by_value(self, obj: Any) -> bool:
        """Return whether `obj` is of that package."""
        return bool(self.package) and str(obj.__module__).partition(".")[0] == self.package

    def reducer_override(self, obj: object) -> Any:
        """Reduce functions, classes and mocks; leave the rest to the dispatch table."""
        kind = type(obj)
        if kind is not type and type not in type.mro(kind):
            if is_mock_class(kind):
                items = iter(obj) if issubclass(kind, list) else None  # type: ignore[call-overload]
                return make_instance, (kind,), dict(object.__getattribute__(obj, "__dict__")), items, None, set_state
            if kind is not types.FunctionType:
                return NotImplemented
        elif not self.classes_by_value and is_importable(obj) and not self.is_by_value(obj):
            return NotImplemented
        made = super().reducer_override(obj)
        if _is_made_by("_make_skeleton_class", made):
            made[1][3].setdefault("__qualname__", cast("type", obj).__qualname__)  # which cloudpickle leaves out
        return made


def _is_made_by(name: str, made: Any) -> bool:
    """Return whether a reduction calls the function of that name, one of cloudpickle's."""
    return type(made) is tuple and made[0].__name__ == name


class _StandInPickler(Pickler):
    """Pickles everything: a lock, file or database as another one, and what the child can only do without as `Gone`."""

    dispatch_table: ClassVar[Any] = ChainMap(_STAND_INS, Pickler.dispatch_table)

    def reducer_override(self, obj: object) -> Any:
        """Reduce a standard stream, which may be a capture's, to the child's own, and what pickle refuses to `Gone`."""
        for name in ("stdin", "stdout", "stderr"):
            if obj is getattr(sys, name) and obj is not None:
                return getattr, (sys, name)
        kind = type(obj)
        if kind.__module__.partition(".")[0] in _RUNNERS and not issubclass(kind, type):
            return Gone, ()
        made = _held_elsewhere(obj) or super().reducer_override(obj)
        if made is not NotImplemented or issubclass(kind, (type, types.FunctionType)):
            return made
        try:
            reduce = self.dispatch_table.get(kind)
            return obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL) if reduce is None else reduce(obj)
        except Exception:
            return Gone, ()


_RUNNERS: Final = ("_pytest", "pytest", "pluggy", "xdist", "execnet")


def _held_elsewhere(obj: object) -> Any:
    """Return how to reduce an object of a module that may not be imported, or None."""
    module, name = values.class_name(type(obj))
    if (module, name) == ("ssl", "SSLContext"):
        return type(obj), (obj.protocol,)  # type: ignore[attr-defined]
    with suppress(Exception):
        return _database(obj) if (module, name) == ("sqlite3", "Connection") else None
    return None


class StatePickler(Pickler):
    """Pickles state: classes by name, and locks, thread-locals, TLS contexts and weak references as new objects."""

    dispatch_table: ClassVar[Any] = ChainMap(_STAND_INS, Pickler.dispatch_table)
    classes_by_value: ClassVar[bool] = False

    def reducer_override(self, obj: object) -> Any:
        """Reduce as the base class does, but let functions without an importable name keep their module's globals.

        A local function that was set as a hook may write there.
        """
        # loading asks the empty instance for __setstate__; and a tool needs what pickling drops, as a response's body
        cls = type(obj)
        if _computes_attributes(cls) or _is_looked_up(cls) or (self.package and _drops_state(cls)):
            return make_instance, (cls,), dict(values.instance_namespace(obj)), None, None, set_state
        if isinstance(obj, (types.BuiltinFunctionType, types.MethodType)) and (home := _home_of(obj.__self__)):
            return getattr, (_Own(home, obj.__self__), obj.__name__)
        made = _held_elsewhere(obj) or super().reducer_override(obj)
        if _is_made_by("_make_skeleton_class", made):
            return (make_class, made[:2], *made[2:])
        if type(obj) is types.FunctionType and _is_made_by("_make_function", made):
            name = obj.__module__
            if name not in cloudpickle.list_registry_pickle_by_value() and _is_modules(obj) and _is_found(name):
                code, _, *others = made[1]
                state, slots = made[2]
                return (made[0], (code, _Globals(name), *others), (state, {**slots, "__globals__": {}}), *made[3:])
        return made


def _is_looked_up(cls: type) -> bool:
    """Return whether the class has a ``__new__`` in Python, which for a copy may return what the child has already."""
    new = values.class_attribute(cls, "__new__")[1]
    reduced = any(values.class_attribute(cls, name)[0] is not object for name in ("__reduce_ex__", "__reduce__"))
    if type(getattr(new, "__func__", None)) is not types.FunctionType or reduced or issubclass(cls, type):
        return False
    with suppress(TypeError):  # it is more than its attributes, as a named tuple is
        return object.__new__(cls) is not None
    return False


def _drops_state(cls: type) -> bool:
    """Return whether instances are pickled by a ``__getstate__`` in Python, and otherwise like any object."""
    own = {name: values.class_attribute(cls, name) for name in _PICKLING}
    default = all(own[name][0] in (None, object) for name in ("__reduce_ex__", "__reduce__"))
    return default and type in type.mro(type(cls)) and type(own["__getstate__"][1]) is types.FunctionType


def _computes_attributes(cls: type) -> bool:
    """Return whether instances have a ``__getattr__`` in Python and no pickling of their own."""
    if issubclass(cls, type):  # a metaclass, such as that of Enum in 3.11
        return False
    home, getter = values.class_attribute(cls, "__getattr__")
    own = any(values.class_attribute(cls, name)[0] not in (None, object) for name in _PICKLING)
    return home is not None and type(getter) is types.FunctionType and not own and not is_mock_class(cls)


def _home_of(obj: object) -> tuple[str, str] | None:
    """Return the user's module, and the name in it, whose own mutable object this is; None if there is none."""
    if type(obj) in (int, float, str, bytes, tuple, types.NoneType, types.ModuleType) or issubclass(type(obj), type):
        return None
    for module in user_modules():
        for name, value in list(vars(module).items()):
            if value is obj:
                return module.__name__, name
    return None


class _Own:
    """Stands for a module's global; unpickled, it is the child's own, or a copy if that is of another type."""

    def __init__(self, home: tuple[str, str], obj: object) -> None:
        self._state = *home, obj

    def __reduce__(self) -> tuple[object, ...]:
        return own_global, self._state


class _Globals:
    """Stands for the globals of a module; unpickled, it is the child's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[object, ...]:
        return vars, (sys.modules[self._name],)


def _is_modules(function: types.FunctionType) -> bool:
    module = sys.modules.get(function.__module__)
    return module is not None and function.__globals__ is getattr(module, "__dict__", None)


def _is_found(name: str) -> bool:
    """Return whether a child finds a module by its name, as far as the search path tells."""
    with suppress(Exception):
        return importlib.machinery.PathFinder.find_spec(name.partition(".")[0]) is not None
    return False


def is_importable(cls: Any) -> bool:
    """Return whether a class or function can be imported under its name."""
    found: object = sys.modules.get(getattr(cls, "__module__", None) or "")
    if found is None or cls.__module__ == "__main__":
        return False
    for part in cls.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(part, _NONE)
    return found is cls


def user_modules() -> list[types.ModuleType]:
    """Return the user's imported modules, except the main module."""
    found = []
    for name, module in list(sys.modules.items()):
        if type(module) is types.ModuleType and module.__name__ == name and name not in ("__main__", "__mp_main__"):
            file = vars(module).get("__file__")
            users = file.endswith(".py") and owner(file) == "user" if isinstance(file, str) else _is_made_here(module)
            if users:
                found.append(module)
    return found


def _is_made_here(module: types.ModuleType) -> bool:
    """Return whether a module without a file was made at run time, by hand or by an import hook of the user's."""
    spec = module.__spec__
    home = sys.modules.get(type(spec.loader).__module__) if spec is not None else None
    file = getattr(home, "__file__", None)
    return spec is None or (type(file) is str and owner(file) == "user")


_registry = threading.RLock()


@contextmanager
def taken_by_value(modules: Iterable[types.ModuleType]) -> Iterator[None]:
    """Within the context, let cloudpickle pickle the functions and classes of `modules` by value."""
    with _registry:
        known = cloudpickle.list_registry_pickle_by_value()
        mine = [module for module in modules if module.__name__ not in known and module.__name__ in sys.modules]
        for module in mine:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in mine:
                with suppress(ValueError):
                    cloudpickle.unregister_pickle_by_value(module)


class SendingByValue:
    """A context that sends functions and classes by value, with their cells and the globals that they read.

    Those with an importable name are sent by name, unless `whole` is set or the payload cannot be pickled otherwise.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self.gave_up = False
        """Whether an object could not be pickled this way, and was left to multiprocessing."""
        self._exchanges = Exchanges()

    def __enter__(self) -> SendingByValue:
        span = self._exchanges.span("sending by value")
        span.put(mp.reduction_module(), "dump", self._dump)
        span.put(mp.STDLIB.pickler_class, "dumps", self._dumps)
        call = {"kind": "calls", "path": "", "data": pickle.dumps([send_results_by_value])}
        before = self._before = reporter.carried
        reporter.carried = lambda: [call, *(before() if before is not None else ())]
        return self

    def __exit__(self, *_: object) -> None:
        reporter.carried = self._before
        self._exchanges.undo()

    def _dump(self, original: Callable[..., None]) -> Callable[..., None]:
        def dump(obj: object, file: Any, protocol: int | None = None) -> None:
            __tracebackhide__ = True
            data = self._pickled(obj, protocol)
            if data is None:
                original(obj, file, protocol)
            else:
                file.write(data)

        return dump

    def _dumps(self, original: Callable[..., object]) -> staticmethod[..., object]:
        def dumps(obj: object, protocol: int | None = None) -> Any:
            __tracebackhide__ = True
            data = self._pickled(obj, protocol)
            return original(obj, protocol) if data is None else data

        return staticmethod(dumps)

    def _pickled(self, obj: object, protocol: int | None) -> memoryview | None:
        users = user_modules()  # a test may have made one
        for kind in (Pickler, _StandInPickler):
            for modules in (users, []) if self._whole else ([], users):
                with suppress(Exception), taken_by_value(modules), mp.descriptors_of_start():
                    return _dumped(obj, protocol, kind)
        self.gave_up = True
        return None


def _dumped(obj: object, protocol: int | None, kind: type[Pickler] = Pickler) -> memoryview:
    buffer = io.BytesIO()
    kind(buffer, protocol).dump(obj)
    return memoryview(buffer.getvalue())  # a view of the buffer itself, collected with it, warns on 3.15


def send_results_by_value() -> None:
    """Let this child send results without an importable name by value. Called in the child.

    The parent recognises the classes that it sent.
    """
    original = mp.STDLIB.pickler_class.dumps

    def dumps(obj: object, protocol: int | None = None) -> object:
        try:
            return original(obj, protocol)
        except Exception:
            data = None
            with suppress(Exception):
                data = _dumped(obj, protocol)
            if data is None:
                raise
            return data

    mp.STDLIB.pickler_class.dumps = staticmethod(dumps)
