"""The parent's side of an experiment: what a fresh child lacks is sent along with every start.

`Replaying` ships the parent's present value of some bindings, which the child takes over before it loads its process
object (`replay_child`). `SendingByValue` pickles functions and classes themselves in place of their names. Both are
context managers, hold for all starts within, and leave nothing behind.
"""

from __future__ import annotations

import copyreg
import io
import logging
import re
import sys
import threading
import types
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar

import cloudpickle  # type: ignore[import-untyped]

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..activation.exchanges import Exchanges
from ..child import process_state, reporter, values
from ..child.replayer import ABSENT, Gone, make_instance, own_value, read, set_state
from ..source.callers import owner

_NONE = object()
_MOST_BYTES = 200_000_000
"""No experiment sends more."""


class NotSentError(Exception):
    """What an experiment would send does not exist, or cannot be sent."""


# -- pickling what pickle will not -----------------------------------------------------------------------------------


def _mock_class(cls: type) -> bool:
    """Say whether `cls` is the class of a mock, of ``unittest.mock`` or of the package ``mock``."""
    return any(
        base.__name__ == "NonCallableMock" and base.__module__ in ("unittest.mock", "mock.mock", "mock")
        for base in type.mro(cls)[:-1]
    )


def _fresh_lock(_lock: object) -> tuple[Any, ...]:
    return threading.Lock, ()


def _fresh_rlock(_lock: object) -> tuple[Any, ...]:
    return threading.RLock, ()


def _fresh_local(local: Any) -> tuple[Any, ...]:
    return type(local), ()


def _weak(reference: Any) -> tuple[Any, ...]:
    target = reference()
    return weakref.ref, (Gone() if target is None else target,)


_LENIENT: dict[type, Callable[[Any], Any]] = {
    type(threading.Lock()): _fresh_lock,
    type(threading.RLock()): _fresh_rlock,
    threading.local: _fresh_local,
    weakref.ref: _weak,
}
"""What a child would have made anew: sent as a fresh one."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles as cloudpickle does, and what multiprocessing can send besides."""

    # the C pickler asks the class for it and not the instance
    dispatch_table: ClassVar[Any] = ChainMap(
        cpython.extra_reducers(), cloudpickle.Pickler.dispatch_table, copyreg.dispatch_table
    )

    def __init__(
        self,
        file: Any,
        protocol: int | None = None,
        *,
        by_value: bool = False,
        needs: dict[Any, list[str]] | None = None,
    ) -> None:
        super().__init__(file, protocol)
        self._by_value = by_value
        self._needs = needs

    def reducer_override(self, obj: Any) -> Any:
        """Say how functions, classes and mocks are sent; the rest is left to the dispatch table."""
        kind = type(obj)
        if kind is not type and type not in type.mro(kind):
            if _mock_class(kind):
                return make_instance, (kind,), dict(object.__getattribute__(obj, "__dict__")), None, None, set_state
            if kind is not types.FunctionType:
                return NotImplemented
        elif not self._by_value and _importable(obj):
            return NotImplemented
        reduced = super().reducer_override(obj)
        if reduced is not NotImplemented and kind is types.FunctionType and self._needs is not None:
            code = obj.__code__
            self._needs[code.co_filename, code.co_firstlineno] = names_read(obj)
        return reduced


class LenientPickler(Pickler):
    """Pickles locks, too, as fresh ones: for state, which a child would have made for itself."""

    dispatch_table: ClassVar[Any] = ChainMap(_LENIENT, Pickler.dispatch_table)


def _importable(cls: Any) -> bool:
    """Say whether the class is what its module holds under its name."""
    found: Any = sys.modules.get(getattr(cls, "__module__", None) or "")
    if found is None or cls.__module__ == "__main__":
        return False
    for part in cls.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(part, _NONE)
    return found is cls


def names_read(function: types.FunctionType) -> list[str]:
    """Return the names that a function takes from around it: its free variables, then the globals it reads.

    Modules, and functions and classes that a child can import, are no concern.
    """
    names = list(function.__code__.co_freevars)
    todo, seen = [function.__code__], 0
    while todo and seen < 100:
        code, seen = todo.pop(), seen + 1
        todo += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        for name in code.co_names:
            value = function.__globals__.get(name, _NONE)
            if value is not _NONE and name not in names and not _is_import(value):
                names.append(name)
    return names


def _is_import(value: Any) -> bool:
    kind = type(value)
    if kind in (types.ModuleType, types.BuiltinFunctionType):
        return True
    return (kind is types.FunctionType or isinstance(value, type)) and _importable(value)


def user_modules() -> list[types.ModuleType]:
    """Return the imported modules that are the user's, and not pytest's main module."""
    found = []
    for name, module in list(sys.modules.items()):
        if type(module) is types.ModuleType and module.__name__ == name and name not in ("__main__", "__mp_main__"):
            file = vars(module).get("__file__")
            if isinstance(file, str) and file.endswith(".py") and owner(file) == "user":
                found.append(module)
    return found


_registry = threading.RLock()


@contextmanager
def by_value(modules: Iterable[types.ModuleType]) -> Iterator[None]:
    """Let cloudpickle take the functions and classes of `modules` by value."""
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


# -- by value --------------------------------------------------------------------------------------------------------


class SendingByValue:
    """While it holds, functions and classes cross themselves: with their cells and the globals that they read.

    Those that a child can import only with `whole`, or where nothing else will do.
    """

    def __init__(self, *, whole: bool = False) -> None:
        modules = user_modules()
        self.by_value = (modules, []) if whole else ([], modules)
        self.needs: dict[tuple[str, int], list[str]] = {}
        """By file and first line of each function that crossed: the names that it takes from around it."""
        self.gave_up = False
        """Whether something could not be sent this way: it was left to multiprocessing."""
        self._exchanges = Exchanges()

    def __enter__(self) -> SendingByValue:
        span = self._exchanges.span("sending by value")
        span.put(mp.reduction_module(), "dump", self._dump)
        span.put(mp.STDLIB.pickler_class, "dumps", self._dumps)
        self._before, reporter.carried = reporter.carried, lambda: [{"kind": "by value", "path": ""}]
        return self

    def __exit__(self, *_: object) -> None:
        reporter.carried = self._before
        self._exchanges.undo()

    def _dump(self, original: Callable[..., None]) -> Callable[..., None]:
        def dump(obj: Any, file: Any, protocol: int | None = None) -> None:
            __tracebackhide__ = True
            data = self._pickled(obj, protocol)
            if data is None:
                original(obj, file, protocol)
            else:
                file.write(data)

        return dump

    def _dumps(self, original: Callable[..., Any]) -> staticmethod[..., Any]:
        def dumps(obj: Any, protocol: int | None = None) -> Any:
            __tracebackhide__ = True
            data = self._pickled(obj, protocol)
            return original(obj, protocol) if data is None else data

        return staticmethod(dumps)

    def _pickled(self, obj: Any, protocol: int | None) -> memoryview | None:
        """Return `obj` pickled, or None."""
        for modules in self.by_value:
            buffer = io.BytesIO()
            try:
                with by_value(modules), mp.descriptors_of_start():
                    Pickler(buffer, protocol, by_value=True, needs=self.needs).dump(obj)
            except Exception:
                continue
            return buffer.getbuffer()
        self.gave_up = True
        return None


def send_results_by_value() -> None:
    """Let this child's results go by value where they have no name: called in the child."""
    original = mp.STDLIB.pickler_class.dumps

    def dumps(obj: Any, protocol: int | None = None) -> Any:
        try:
            return original(obj, protocol)
        except Exception:
            buffer = io.BytesIO()
            try:
                Pickler(buffer, protocol, by_value=True).dump(obj)
            except Exception:
                buffer = None  # type: ignore[assignment]
            if buffer is None:
                raise
            return buffer.getbuffer()

    mp.STDLIB.pickler_class.dumps = staticmethod(dumps)


# -- replay ----------------------------------------------------------------------------------------------------------


class Replaying:
    """While it holds, every child takes over the parent's values of the bindings `paths`, as of its start."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)

    def __enter__(self) -> Replaying:
        self._before, reporter.carried = reporter.carried, self._carried
        return self

    def __exit__(self, *_: object) -> None:
        reporter.carried = self._before

    def _carried(self) -> list[dict[str, Any]]:
        found = []
        for path in self.paths:
            try:
                found.append(capture(path))
            except Exception as trouble:
                found.append({"kind": "binding", "path": path, "error": f"{type(trouble).__name__}: {trouble}"[:500]})
        return found


_SPECIAL = re.compile(
    r"(?P<kind>os\.environ|logging\.getLogger|sys\.modules)[\[(](?P<quote>['\"])(?P<name>.*)(?P=quote)[\])]"
)


def capture(path: str) -> dict[str, Any]:
    """Return what a child needs to have the parent's present value of the binding `path`, as builtins.

    `path` is a dotted name, ``os.environ['NAME']``, ``logging.getLogger('name')``, ``logging.root``,
    ``sys.modules['name']``, ``random``, ``decimal``, ``locale``, ``warnings.filters`` or ``signal.SIGNAME``.

    Raises:
        NotSentError: there is no such binding, or its value cannot be sent; whatever pickling it raised, too.

    """
    special = _SPECIAL.fullmatch(path)
    if special is not None:
        kind, name = special["kind"], special["name"]
        if kind == "os.environ":
            import os

            return {"kind": "environment", "path": path, "name": name, "data": os.environ.get(name, ABSENT)}
        if kind == "logging.getLogger":
            return _logging(path, name)
        module = sys.modules.get(name)
        return {"kind": "module", "path": path, "name": name, "data": ABSENT if module is None else dumped(module)}
    if path == "os.environ":
        import os

        return {"kind": "whole environment", "path": path, "data": dict(os.environ)}
    if path in ("logging.root", "logging"):
        return _logging(path, "")
    if path.startswith("signal.SIG"):
        import signal

        number = getattr(signal, path.removeprefix("signal."))
        return {"kind": "signal", "path": path, "name": int(number), "data": dumped(signal.getsignal(number))}
    if path in _PROCESS:
        return {"path": path, **_PROCESS[path]()}
    if path in process_state.SETTINGS:
        setter = process_state.SETTINGS[path].removesuffix("()")
        return {"kind": "setting", "path": path, "setter": setter, "data": dumped(process_state.setting(path))}
    if process_state.looks_at(path):
        raise NotSentError(f"there is no one value behind {path}")
    return _binding(path)


def _random() -> dict[str, Any]:
    import random

    numpy: Any = sys.modules.get("numpy.random")
    return {"kind": "random", "data": dumped((random.getstate(), numpy.get_state() if numpy is not None else None))}


def _decimal() -> dict[str, Any]:
    import decimal

    return {"kind": "decimal", "data": dumped(decimal.getcontext())}


def _locale() -> dict[str, Any]:
    import locale

    return {"kind": "locale", "data": locale.setlocale(locale.LC_ALL)}


def _warnings() -> dict[str, Any]:
    import warnings

    return {"kind": "warnings", "data": dumped(list(warnings.filters))}


_PROCESS: dict[str, Callable[[], dict[str, Any]]] = {
    "random": _random,
    "numpy.random": _random,
    "decimal": _decimal,
    "decimal.getcontext()": _decimal,
    "locale": _locale,
    "warnings": _warnings,
    "warnings.filters": _warnings,
}


def _binding(path: str) -> dict[str, Any]:
    module, names = split(path)
    if not names:
        raise NotSentError(f"{path} is a module")
    if not all(map(str.isidentifier, names)):
        raise NotSentError(f"{path} is no dotted name")
    target: Any = module
    for each in names[:-1]:
        target = read(target, each)
    name = names[-1]
    value = own_value(target, name, _NONE)
    if value is _NONE and target is not module and type(target) is not type:
        value = getattr(target, name, _NONE)
    node = values.describe(values.resolve(module, names))
    carried: dict[str, Any] = {
        "kind": "binding", "path": path, "module": module.__name__, "names": names, "how": "set", "node": node,
    }  # fmt: skip
    if name == values.VIRTUAL:
        return {**carried, "how": "virtual subclasses", "data": dumped(values.virtual_subclasses(target))}
    if value is _NONE:
        return {**carried, "data": ABSENT}
    if issubclass(type(value), logging.Logger):
        return _logging(path, "" if value is logging.root else value.name)
    if type(value) is types.MappingProxyType and name == "registry" and type(target) is types.FunctionType:
        return {**carried, "how": "implementations", "data": dumped(dict(value))}  # of functools.singledispatch
    if type(value) is types.FunctionType and _importable(value):
        return {**carried, "how": "function", "data": dumped((value.__dict__, value.__code__))}
    if type(value) is ContextVar:
        missing = object()
        held = value.get(missing)
        if held is missing:
            raise NotSentError(f"{path} has no value here")
        return {**carried, "how": "context variable", "data": dumped(held)}
    if threading.local in type.mro(type(value)):
        return {**carried, "how": "thread-local", "data": dumped(dict(vars(value)))}
    return {**carried, "data": dumped(value), "aliases": _aliases(value, module.__name__, name)}


def split(path: str) -> tuple[types.ModuleType, list[str]]:
    """Return the module in a dotted name, the longest that is imported, and the names that remain.

    What follows a bracket is inside the value of the binding. Raises NotSentError if no module is imported.
    """
    parts = path.partition("[")[0].split(".")
    for end in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None and (end < len(parts) or len(parts) == 1):
            return module, parts[end:]
    raise NotSentError(f"no module of {path} is imported")


_BOUND = (int, str, bytes, bool, float, tuple, types.NoneType, frozenset, types.FunctionType, types.MethodType,
          types.BuiltinFunctionType, types.ModuleType)  # fmt: skip


def _aliases(value: Any, module: str, name: str) -> list[tuple[str, str]]:
    """Return where else modules hold `value`: who imported by name what was changed in place.

    What cannot be changed in place, and what stands in for something else, was bound to each name by itself.
    """
    kind = type(value)
    if kind in _BOUND or type in type.mro(kind) or _mock_class(kind):
        return []
    found = []
    for other, each in list(sys.modules.items()):
        names = getattr(each, "__dict__", None)
        if type(names) is dict:
            found += [
                (other, alias)
                for alias, held in list(names.items())
                if held is value and (other, alias) != (module, name)
            ]
    return found[:50]


def dumped(value: Any) -> bytes:
    """Return `value` pickled for a child; functions of the user's go by value, classes by name where they have one.

    Raises what pickling raises, and NotSentError for what is too large.
    """
    error: Exception | None = None
    injected = [module for module in list(sys.modules.values()) if _made_at_run_time(module)]
    for modules in ([*_test_modules(), *injected], injected):
        buffer = io.BytesIO()
        try:
            with by_value(modules), mp.descriptors_of_start():
                LenientPickler(buffer).dump(value)
        except Exception as trouble:
            error = trouble
            continue
        if buffer.tell() > _MOST_BYTES:
            raise NotSentError(f"its value is {buffer.tell()} bytes when pickled")
        return buffer.getvalue()
    assert error is not None
    raise error


def _made_at_run_time(module: Any) -> bool:
    return type(module) is types.ModuleType and module.__spec__ is None and module.__name__ != "__main__"


def _test_modules() -> list[types.ModuleType]:
    """Return the modules that pytest imported: a child may not find them, and what they replace things with is here."""
    return [
        module
        for module in user_modules()
        if (name := module.__name__.rpartition(".")[2]) == "conftest"
        or name.startswith("test")
        or name.endswith("test")
    ]


def _logging(path: str, name: str) -> dict[str, Any]:
    """Return the configuration of a logger and of those above it: a record passes through all of them."""
    found = []
    logger: Any = logging.getLogger(name or None)
    while logger is not None:
        state = {each: vars(logger)[each] for each in ("level", "propagate", "disabled", "filters")}
        # those that pytest captures with are not the user's
        own = [each for each in logger.handlers if not type(each).__module__.startswith("_pytest.")]
        state["handlers"] = [_to_be_sent(each) for each in own]
        found.append(("" if logger is logging.root else logger.name, state))
        logger = logger.parent
    return {"kind": "logging", "path": path, "data": dumped(found)}


def _to_be_sent(handler: logging.Handler) -> logging.Handler:
    """Return a handler as it can be sent: one that writes to a file opens it again, and keeps what is in it."""
    if not issubclass(type(handler), logging.FileHandler):
        return handler
    twin: Any = object.__new__(type(handler))
    twin.__dict__.update(vars(handler), stream=None, mode="a")
    return twin  # type: ignore[no-any-return]
