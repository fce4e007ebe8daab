"""Run tests under every multiprocessing start method, and learn why one fails under spawn or forkserver.

The plugin needs no import. For programs and scripts:

- `explain(target, args, kwargs, method=...)` returns what would go wrong if a process started with them.
- `Finding` is one cause: its code, place, message, evidence and fix. It prints as text.
- `ScriptRun` is what the fixture `start_method_script` returns.

For plugins and conftest files:

- `FailedLeg` is what the hook `pytest_startmethod_diagnose` gets.
- `Backend` is what the hook `pytest_startmethod_backends` returns.
- `StartMethodWarning` is the category of the plugin's warnings.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._compat import rewriting as _rewriting

if TYPE_CHECKING:
    from .causes.call import explain
    from .model.backends import Backend
    from .model.failed_leg import FailedLeg
    from .model.finding import Finding
    from .model.warning import StartMethodWarning
    from .scripts.running import ScriptRun

    __version__: str

_rewriting.keep_out(__name__)

__all__ = ["Backend", "FailedLeg", "Finding", "ScriptRun", "StartMethodWarning", "__version__", "explain"]

_HOMES = {
    "Backend": "model.backends",
    "FailedLeg": "model.failed_leg",
    "Finding": "model.finding",
    "ScriptRun": "scripts.running",
    "StartMethodWarning": "model.warning",
    "explain": "causes.call",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use: pytest imports this package at every start."""
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
