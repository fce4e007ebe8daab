"""What a process has beside the values of its modules: logging, signal handlers, locale, decimal context, filters.

Here and in the fresh child, which loads this file by its path, with the standard library only. Each is described as
`structure` describes values; `describe` is given, since the child cannot import it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def observe(
    describe: Callable[[Any], list[Any]], modules: Iterable[str], loggers: Iterable[str], signals: Iterable[str]
) -> dict[str, Any]:
    """Return descriptions by name: of what belongs to `modules`, of loggers and of signal handlers by their names."""
    found: dict[str, Any] = {}
    for name in modules:
        look = _LOOKS.get(name)
        try:
            if look is not None:
                found[name] = describe(look())
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
            found[f"signal {name}"] = describe(signal.getsignal(getattr(signal, name)))
        except Exception:
            continue
    return found


def decimal_context() -> dict[str, Any]:
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


def filters() -> list[str]:
    """Return the warnings filters as texts."""
    import warnings

    out = []
    for action, message, category, module, line in warnings.filters:
        parts = (
            getattr(message, "pattern", message),
            getattr(category, "__name__", ""),
            getattr(module, "pattern", module),
            line,
        )
        out.append(f"{action}::" + ":".join("" if not part else str(part) for part in parts))
    return out


def logger(name: str) -> dict[str, Any]:
    """Return what decides about a record of the logger: level, what is disabled, and the handlers up to the root."""
    import logging

    each: Any = logging.getLogger(name or None)
    handlers: list[str] = []
    found: dict[str, Any] = {
        "level": logging.getLevelName(each.getEffectiveLevel()),
        "disabled": each.disabled,
        "disable": logging.root.manager.disable,
        "filters": [type(one).__qualname__ for one in each.filters],
        "handlers": handlers,
    }
    while each is not None:
        for handler in each.handlers:
            cls = type(handler)
            if not cls.__module__.startswith(("_pytest", "pytest", "xdist")):
                handlers.append(f"{cls.__qualname__} at {logging.getLevelName(handler.level)}")
        each = each.parent if each.propagate else None
    return found


def numpy_random() -> str:
    """Return nothing that can be compared: the state of a generator is another one in each process."""
    return "numpy.random" if "numpy" in sys.modules else ""


_LOOKS = {"decimal": decimal_context, "locale": locales, "warnings": filters}
