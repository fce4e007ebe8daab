"""Run tests under every multiprocessing start method, and learn why one fails under spawn or forkserver.

Nothing here asserts for a test, so pytest need not rewrite it: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .causes.call import explain
    from .model.backends import Backend
    from .model.failed_leg import FailedLeg
    from .model.finding import Finding
    from .model.warning import StartMethodWarning

    __version__: str

__all__ = ["Backend", "FailedLeg", "Finding", "StartMethodWarning", "__version__", "explain"]

_HOMES = {
    "Backend": "model.backends",
    "FailedLeg": "model.failed_leg",
    "Finding": "model.finding",
    "StartMethodWarning": "model.warning",
    "explain": "causes.call",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: pytest imports this package at every start."""
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("pytest-startmethod")
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
