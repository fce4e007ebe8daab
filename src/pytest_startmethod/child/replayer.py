"""Apply, in the child of an experiment, values sent by the parent before the process object is loaded.

`reporter` calls `apply` in a spawn or forkserver child after ``spawn.prepare`` has set the parent's ``sys.path``. What
cannot be loaded or set is left unchanged in the child and reported to the parent.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pickle
import re
import sys
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any

from . import process_state, values
from .differences import differences

Carried = dict[str, Any]
"""One value from the parent: kind, path, and what it takes to set it."""

ABSENT = "absent"
"""Marks, in place of the bytes, a binding that the parent does not have."""


def apply(carried: Iterable[Carried]) -> list[dict[str, object]]:
    """Set every value sent. Return for each its path, the error or None, and the result of `_load`."""
    outcomes = []
    for each in carried:
        error, said = each.get("error"), {}
        if error is None:
            try:
                if each.get("control"):
                    said = {"imported": _load(each)}
                else:
                    _APPLY[each["kind"]](each)
            except KeyboardInterrupt:
                raise
            except BaseException as trouble:  # importing the user's module may raise anything
                error = f"{type(trouble).__name__}: {_text(trouble)}"
        outcomes.append({"path": each["path"], "error": error, **said})
    return outcomes


def _load(carried: Carried) -> bool:
    """Do the imports and loading that setting the value needs, without setting it: the control of an experiment.

    Return whether the imports alone produced the parent's value, as in a registry whose entries register themselves.
    """
    if "module" not in carried:
        if type(carried["data"]) is bytes:
            pickle.loads(carried["data"])
        return False
    module = importlib.import_module(carried["module"])
    target: Any = module
    for each in carried["names"][:-1]:
        target = read(target, each)
    before = values.describe(values.resolve(module, carried["names"]))
    if type(carried["data"]) is bytes:
        pickle.loads(carried["data"])
    after = values.describe(values.resolve(module, carried["names"]))
    return bool(differences(before, after)) and not differences(carried["node"], after)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:
        return "<its __str__ raised>"


# -- bindings --------------------------------------------------------------------------------------------------------


def _binding(carried: Carried) -> None:
    module = importlib.import_module(carried["module"])
    *owners, name = carried["names"]
    target: Any = module
    for each in owners:
        target = read(target, each)
    before = values.describe(values.resolve(module, carried["names"]))
    _take(carried, target, name)
    after = values.describe(values.resolve(module, carried["names"]))
    if differences(carried["node"], after) and not differences(before, after):
        raise RuntimeError("it keeps the value that it has")  # such as a class pickled by name


def _take(carried: Carried, target: Any, name: str) -> None:
    old = own_value(target, name, _NONE)
    if carried["data"] == ABSENT:
        if old is not _NONE:
            delattr(target, name)
        return
    new = pickle.loads(carried["data"])
    if carried["how"] == "cache":
        new = _with_results(old, *new)
    if name == "__closure__":
        for cell, other in zip(target.__closure__, new, strict=True):
            cell.cell_contents = other.cell_contents
    elif carried["how"] in _WAYS:
        _WAYS[carried["how"]](target, name, new)
    elif type(old) is type(new) is dict and carried["module"] in sys.stdlib_module_names:
        old.clear()  # sqlite3 and pickle hold references to these tables
        old.update(new)
    else:
        set_value(target, name, new)
        if old is not _NONE:
            _set_aliases(carried, old, new)


def _set_aliases(carried: Carried, old: object, new: object) -> None:
    """Replace the old object in modules that imported it by name."""
    for module_name, alias in carried.get("aliases", ()):
        names = getattr(sys.modules.get(module_name), "__dict__", {})
        if names.get(alias, _NONE) is old:
            names[alias] = new


def _exchange_function(target: object, name: str, new: Any) -> None:
    function = read(target, name)
    function.__dict__.update(new[0])
    function.__code__ = new[1]


def _with_results(old: Any, parameters: dict[str, Any], calls: list[tuple[Any, Any, object]]) -> object:
    """Return a `functools.lru_cache` like `old` that remembers the results of `calls`."""
    known: list[object] = []
    wrapped = old.__wrapped__

    def call(*args: object, **keywords: object) -> object:
        return known.pop() if known else wrapped(*args, **keywords)

    new = functools.lru_cache(**parameters)(call)
    for args, keywords, result in calls:
        known.append(result)
        new(*args, **keywords)
        known.clear()
    return functools.update_wrapper(new, wrapped)


def _register(target: Any, _name: str, new: Any) -> None:
    for entry in new.items() if isinstance(new, dict) else ((each,) for each in new):
        target.register(*entry)


_WAYS: dict[str, Callable[[object, str, object], object]] = {
    "context variable": lambda target, name, new: read(target, name).set(new),
    "thread-local": lambda target, name, new: vars(read(target, name)).update(new),
    "virtual subclasses": _register,
    "implementations": _register,
    "function": _exchange_function,
}
"""Special ways of putting a value in place, where a plain assignment is not enough."""

_NONE = object()


def own_value(owner: Any, name: str, default: object = None) -> Any:
    """Return what `owner` itself holds under `name`, without invoking descriptors or other code of its own."""
    kind = type(owner)
    try:
        names = type.__getattribute__(owner, "__dict__") if _is_class(owner) else _names(owner)
        if name in names:
            return names[name]
    except (AttributeError, TypeError):
        pass
    for cls in type.mro(owner)[1:] if _is_class(owner) else type.mro(kind):
        found = vars(cls).get(name, _NONE)
        if found is not _NONE:
            if type(found).__name__ in ("member_descriptor", "getset_descriptor") and not _is_class(owner):
                try:
                    return found.__get__(owner, kind)
                except AttributeError:
                    return default
            return found if _is_class(owner) else default
    return default


def _names(owner: object) -> Any:
    return object.__getattribute__(owner, "__dict__")


def _is_class(value: object) -> bool:
    return type in type.mro(type(value)) if type(value) is not type else True


def read(owner: object, name: str) -> Any:
    """Return ``owner.name``, if possible without running the owner's code."""
    found = own_value(owner, name, _NONE)
    if found is _NONE or (_is_class(owner) and hasattr(type(found), "__get__")):
        return getattr(owner, name)
    return found


def set_value(owner: object, name: str, value: object) -> None:
    """Set ``owner.name``, even if the class or instance refuses assignments."""
    try:
        setattr(owner, name, value)
    except Exception:
        (type if _is_class(owner) else object).__setattr__(owner, name, value)


def make_instance(cls: type) -> object:
    """Create an instance without calling the class: a mock's would refuse."""
    base: Any = next(each for each in type.mro(cls) if not each.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE; list, object
    return base.__new__(cls)


class _Base:
    """The base of a class while it is made."""


def make_class(make: Callable[..., Any], args: tuple[Any, ...]) -> object:
    """Create a class as cloudpickle does, but where its bases' ``__init_subclass__`` does not hear of it.

    The registry to which that would add the class is sent, too, and the class's keywords are not known.
    """
    meta, name, bases, *others = args
    hooked = any(type(each.__init_subclass__) is types.MethodType for each in bases)
    if not hooked or any(type(each) is not type for each in bases):
        return make(*args)
    cls: Any = make(meta, name, (_Base,), *others)
    if cls.__bases__ == (_Base,):
        cls.__bases__ = bases
    return cls


def set_state(instance: object, state: dict[str, object]) -> None:
    """Set the state of an instance created by `make_instance`, without running code of its class."""
    for name, value in state.items():
        if any(type(vars(cls).get(name)).__name__ == "member_descriptor" for cls in type.mro(type(instance))):
            object.__setattr__(instance, name, value)
        else:
            _names(instance)[name] = value


def add_import_hooks(finders: list[Any], last: bool) -> None:
    """Add finders to the import hooks, before or after those of the interpreter."""
    at = len(sys.meta_path) if last else 0
    sys.meta_path[at:at] = finders


def set_loop_policy(cls: Callable[[], Any]) -> None:
    """Set a new event loop policy of the class. Up to Python 3.13."""
    importlib.import_module("asyncio").set_event_loop_policy(cls())


def set_options(options: dict[str, Any]) -> None:
    """Set all pandas options."""
    _update(process_state.pandas_options(), options)


def _update(old: dict[str, Any], new: dict[str, Any]) -> None:
    for name, value in new.items():
        if type(value) is dict and type(old.get(name)) is dict:
            _update(old[name], value)
        else:
            old[name] = value


def set_context(variables: dict[str, bytes]) -> None:
    """Set context variables of these names, for code that looks through the whole context."""
    from contextvars import ContextVar

    for name, data in variables.items():
        ContextVar(name).set(pickle.loads(data))


def travel(to: float, tick: bool) -> None:
    """Let time-machine move the clock."""
    importlib.import_module("time_machine").travel(to, tick=tick).start()


def set_parent(pid: int) -> None:
    """Let ``os.getppid`` return the pid of the process that asked for this one, not of the server that started it."""
    module: Any = importlib.import_module("os")
    module.getppid = lambda: pid


def set_pickled(instance: Any, state: Any) -> None:
    """Set the state that pickling returned, as unpickling does."""
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return
    own, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
    _names(instance).update(own or {})
    for name, value in (slots or {}).items():
        set_value(instance, name, value)


def set_more(instance: Any, state: tuple[Any, Any, dict[str, object]]) -> None:
    """Set the state that pickling returned by its setter, if there is one, and the attributes that it left out."""
    pickled, setter, more = state
    if setter is not None:
        setter(instance, pickled)
    elif pickled is not None:
        set_pickled(instance, pickled)
    for name, value in more.items():
        set_value(instance, name, value)


def own_global(module: str, name: str, copy: object) -> object:
    """Return the child's own global, to which a method is bound; the copy if that is of another type."""
    own = getattr(importlib.import_module(module), name, None)
    return own if type(own) is type(copy) else copy


def named(module: str, path: str) -> object:
    """Return what a module has at a path such as ``Unit._units['kg']``."""
    found: Any = importlib.import_module(module)
    for name, key in re.findall(r"(\w+)(?![^\[]*\])|\[([^\]]+)\]", path):
        found = found[ast.literal_eval(key)] if key else getattr(found, name)
    return found


class Gone:
    """Replaces what cannot be sent, such as the dead referent of a weak reference."""


_alive: list[object] = []
"""What only weak references lead to: what holds it in the parent is not sent."""


def weakly(kind: Callable[[object], object], held: object) -> object:
    """Return a weak reference or collection of `held`, which stays alive as it does in the parent."""
    _alive.append(held)
    return kind(held)


def opened(file: Any, mode: str, encoding: str | None, position: int | None = None) -> object:
    """Return a file by its path, at a position, or by the parent's descriptor."""
    held = open(file if position is not None else file.detach(), mode, encoding=encoding)  # noqa: SIM115
    if position is not None:
        held.seek(position)
    return held


def connected(path: str, script: str) -> object:
    """Return a connection to an `sqlite3` database: the file, or one in memory that a script fills."""
    connection = importlib.import_module("sqlite3").connect(path or ":memory:")
    connection.executescript(script)
    return connection


# -- process-wide state ------------------------------------------------------------------------------------------------


def _setting(carried: Carried) -> None:
    value = pickle.loads(carried["data"])
    home, _, name = carried["setter"].rpartition(".")
    setter = getattr(importlib.import_module(home), name)
    if type(value) is tuple:
        setter(*value)
    elif type(value) is dict:
        setter(**value)
    else:
        setter(value)
    if process_state.setting(carried["path"]) != value:
        raise RuntimeError("it keeps the value that it has")


def _environment(carried: Carried) -> None:
    import os

    if carried["data"] == ABSENT:
        os.environ.pop(carried["name"], None)
    else:
        os.environ[carried["name"]] = carried["data"]
    _set_time_zone()


def _whole_environment(carried: Carried) -> None:
    import os

    for name in set(os.environ) - set(carried["data"]):
        del os.environ[name]
    os.environ.update(carried["data"])
    _set_time_zone()


def _set_time_zone() -> None:
    import time

    if hasattr(time, "tzset"):  # the C library reads TZ once
        time.tzset()


def _module(carried: Carried) -> None:
    if carried["data"] == ABSENT:
        sys.modules.pop(carried["name"], None)
        return
    module = pickle.loads(carried["data"])
    sys.modules[carried["name"]] = module
    parent, _, name = carried["name"].rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), name, module)


def _import(carried: Carried) -> None:
    """Import a module again, with the parent's environment."""
    import os

    own = dict(os.environ)
    _whole_environment(carried)
    try:
        sys.modules.pop(carried["name"], None)
        importlib.import_module(carried["name"])
    finally:
        _whole_environment({"data": own})


def _logging(carried: Carried) -> None:
    import logging

    for name, state in pickle.loads(carried["data"]):
        logger = logging.getLogger(name or None)
        if "disable" in state:
            logging.disable(state.pop("disable"))
        logger.handlers[:] = state.pop("handlers")
        logger.filters[:] = state.pop("filters")
        vars(logger).update(state)
        logger.setLevel(state["level"])  # clears the cache of enabled levels


def _no_exit_handlers(_carried: Carried) -> None:
    """Let modules that are imported from now on register nothing, as if the child ended like a forked one."""
    import atexit

    atexit.register = lambda function, *_args, **_keywords: function  # type: ignore[assignment]


def _fork_hooks(carried: Carried) -> None:
    """Import a module, and run what it lets run in forked children."""
    import os

    hooks: list[Callable[[], object]] = []
    register = os.register_at_fork

    def collect(**given: Callable[[], object]) -> None:
        register(**given)
        if "after_in_child" in given:
            hooks.append(given["after_in_child"])

    vars(os)["register_at_fork"] = collect
    try:
        importlib.import_module(carried["name"])
    finally:
        vars(os)["register_at_fork"] = register
    for hook in hooks:
        hook()


def _random(carried: Carried) -> None:
    import random

    state, numpy_state = pickle.loads(carried["data"])
    random.setstate(state)
    if numpy_state is not None:
        importlib.import_module("numpy.random").set_state(numpy_state)


def _decimal(carried: Carried) -> None:
    import decimal

    decimal.setcontext(pickle.loads(carried["data"]))


def _locale(carried: Carried) -> None:
    import locale

    locale.setlocale(locale.LC_ALL, carried["data"])


def _warnings(carried: Carried) -> None:
    import warnings

    filters: Any = warnings.filters
    warnings.resetwarnings()  # also tells the module that the filters have changed
    filters[:] = pickle.loads(carried["data"])


def _signal(carried: Carried) -> None:
    import signal

    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signal handlers can be set in the main thread only")
    signal.signal(carried["name"], pickle.loads(carried["data"]))


def _calls(carried: Carried) -> None:
    for call in pickle.loads(carried["data"]):
        call()


_APPLY: dict[str, Callable[[Carried], None]] = {
    "binding": _binding,
    "environment": _environment,
    "whole environment": _whole_environment,
    "module": _module,
    "import": _import,
    "setting": _setting,
    "logging": _logging,
    "random": _random,
    "decimal": _decimal,
    "locale": _locale,
    "warnings": _warnings,
    "signal": _signal,
    "calls": _calls,
    "fork hooks": _fork_hooks,
    "exit handlers": _no_exit_handlers,
}
