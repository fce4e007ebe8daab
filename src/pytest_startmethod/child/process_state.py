"""Process-wide state apart from module globals: logging, signal handlers, locale, decimal context, warnings filters.

Used in the parent and in the fresh child, which loads this file by path, with the standard library only. State is
described as in `values`; `describe` is passed in, since the child cannot import it. State that a library keeps in its
own modules is found by `causes.second_look`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


SETTINGS = {
    "csv.field_size_limit": "csv.field_size_limit()",
    "csv.list_dialects": "csv.register_dialect()",
    "faulthandler.is_enabled": "faulthandler.enable()",
    "gc.get_threshold": "gc.set_threshold()",
    "gc.isenabled": "gc.disable()",
    "logging.getLogRecordFactory": "logging.setLogRecordFactory()",
    "logging.getLoggerClass": "logging.setLoggerClass()",
    "numpy.get_printoptions": "numpy.set_printoptions()",
    "numpy.geterr": "numpy.seterr()",
    "socket.getdefaulttimeout": "socket.setdefaulttimeout()",
    "sys.get_int_max_str_digits": "sys.set_int_max_str_digits()",
    "sys.getrecursionlimit": "sys.setrecursionlimit()",
    "sys.getswitchinterval": "sys.setswitchinterval()",
    "threading.stack_size": "threading.stack_size()",
    "tracemalloc.is_tracing": "tracemalloc.start()",
}
"""Functions without arguments that return a process-wide setting, with the function that sets it."""


UNSEEN = (
    "csv.field_size_limit", "csv.list_dialects", "decimal", "gc.isenabled", "locale", "logging.getLevelName",
    "logging.getLoggerClass", "mimetypes", "numpy.geterr", "pandas", "socket.getdefaulttimeout",
    "sys.get_int_max_str_digits", "sys.getrecursionlimit", "tempfile", "threading.stack_size", "time_machine",
)  # fmt: skip
"""State on which much depends that never reads it by name. Warnings filters and faulthandler are the test runner's."""


def observe(
    describe: Callable[[object], list[object]], modules: Iterable[str], loggers: Iterable[str], signals: Iterable[str]
) -> dict[str, object]:
    """Return descriptions by name: the state used by `modules`, the named loggers and the named signal handlers."""
    found: dict[str, object] = {}
    for name in modules:
        try:
            if name in _LOOKS:
                found[name] = describe(_LOOKS[name]())
            elif name in SETTINGS:
                found[name] = describe(setting(name))
        except Exception:
            continue
    for name in loggers:
        try:
            found[f"logger {name}"] = describe(logger(name))
        except Exception:
            continue
    import signal

    for name in signals:
        try:
            handler = signal.getsignal(getattr(signal, name))
            found[f"signal {name}"] = describe(handler.name if isinstance(handler, signal.Handlers) else handler)
        except Exception:
            continue
    return found


def context_variables() -> dict[str, object]:
    """Return the values of all context variables that are set, by name, without those of the interpreter."""
    import contextvars

    return {each.name: value for each, value in contextvars.copy_context().items() if each.name != "decimal_context"}


def decimal_context() -> dict[str, object]:
    """Return this thread's decimal context without its flags."""
    import decimal

    context = decimal.getcontext()
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    traps = sorted(cls.__name__ for cls, on in context.traps.items() if on)
    return {**{name: getattr(context, name) for name in names}, "traps": traps}


def locales() -> dict[str, str]:
    """Return the locale of each category."""
    import locale

    names = ("LC_CTYPE", "LC_COLLATE", "LC_TIME", "LC_MONETARY", "LC_NUMERIC", "LC_MESSAGES")
    return {name: locale.setlocale(getattr(locale, name)) for name in names if hasattr(locale, name)}


def filters_here() -> list[Any]:
    """Return the warnings filters in force.

    From 3.14 on they may belong to the context, as on a free-threaded build (``-X context_aware_warnings``).
    """
    import warnings

    return list(getattr(warnings, "_get_filters", lambda: warnings.filters)())


def filters() -> list[str]:
    """Return the warnings filters as text."""
    out = []
    for action, message, category, module, line in filters_here():
        parts = (
            getattr(message, "pattern", message),
            getattr(category, "__name__", ""),
            getattr(module, "pattern", module),
            line,
        )
        out.append(f"{action}::" + ":".join("" if not part else str(part) for part in parts))
    return out


def logger(name: str) -> dict[str, object]:
    """Return what decides the fate of a logger's records: level, disabled flags, and handlers up to the root.

    A logger that does not exist is not created. It would inherit from its nearest ancestor.
    """
    import logging

    each: Any = existing_logger(name)
    own = each is not None
    while each is None:
        name = name.rpartition(".")[0]
        each = existing_logger(name)
    handlers: list[str] = []
    found: dict[str, Any] = {
        "level": logging.getLevelName(each.getEffectiveLevel()),
        "disabled": own and each.disabled,
        "disable": logging.root.manager.disable,
        "filters": [type(one).__qualname__ for one in each.filters] if own else [],
        "handlers": handlers,
    }
    while each is not None:
        for handler in each.handlers:
            cls = type(handler)
            if not cls.__module__.startswith(("_pytest", "pytest", "xdist")):
                handlers.append(f"{cls.__qualname__} at {logging.getLevelName(handler.level)}")
        each = each.parent if each.propagate else None
    return found


def existing_logger(name: str) -> object:
    """Return the logger of this name if it exists; the root for an empty name."""
    import logging

    known = logging.root.manager.loggerDict.get(name) if name and name != "root" else logging.root
    return known if isinstance(known, logging.Logger) else None


def level_names() -> dict[int, str]:
    """Return the names of the named levels below 100."""
    import logging

    names = {level: logging.getLevelName(level) for level in range(100)}
    return {level: name for level, name in names.items() if name != f"Level {level}"}


def loop_policy() -> str:
    """Return the class name of the event loop policy."""
    import asyncio

    return type(asyncio.get_event_loop_policy()).__name__


def mime_types() -> dict[str, str]:
    """Return the MIME types by file suffix."""
    import mimetypes

    if not mimetypes.inited:
        mimetypes.init()
    return mimetypes.types_map


def pandas_options() -> dict[str, Any]:
    """Return all pandas options as nested dictionaries."""
    import importlib

    return object.__getattribute__(importlib.import_module("pandas").options, "d")  # type: ignore[no-any-return]


def setting(name: str) -> object:
    """Return the result of a function in `SETTINGS`. Raises LookupError if the function has been replaced."""
    import importlib

    home, _, function = name.rpartition(".")
    ask = getattr(importlib.import_module(home), function)
    if type(ask).__name__ not in ("builtin_function_or_method", "function", "method") or (
        ask.__module__.partition(".")[0].lstrip("_") != home
    ):
        raise LookupError(name)
    return ask()


def temporary_directory() -> str:
    """Return the directory for temporary files."""
    import tempfile

    return tempfile.gettempdir()


def clock() -> str:
    """Return the time to which time-machine has moved the clock, or that it has not."""
    machine = sys.modules.get("time_machine")
    if machine is None or not machine.escape_hatch.is_travelling():
        return "the real time"
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.gmtime())


_LOOKS: dict[str, Callable[[], object]] = {
    "asyncio": loop_policy,
    "contextvars.copy_context": context_variables,
    "decimal": decimal_context,
    "locale": locales,
    "logging.getLevelName": level_names,
    "mimetypes": mime_types,
    "pandas": pandas_options,
    "tempfile": temporary_directory,
    "time_machine": clock,
    "warnings": filters,
}


def looks_at(name: str) -> bool:
    """Return whether reading a module's state, or calling a function that reads a setting, is possible and harmless.

    The temporary directory is read only once it has been chosen, since choosing it writes files; MIME types only once
    loaded; event loop policies only up to 3.13, since reading one warns from 3.14 on.
    """
    if name == "tempfile":
        return getattr(sys.modules.get(name), "tempdir", None) is not None
    if name == "mimetypes":
        return getattr(sys.modules.get(name), "inited", False) is True
    if name == "asyncio":
        return sys.version_info < (3, 14)
    return name in _LOOKS or name in SETTINGS
