"""The session's backends, collected from ``pytest_startmethod_backends``."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ..model import methods
from ..model.backends import STDLIB, Backend


class BackendError(ValueError):
    """A hook returned something other than a backend. The message is one line, addressed to the user."""


def known(config: pytest.Config) -> dict[str, Backend]:
    """Return all backends by name. On a duplicate name, the plugin's own come first.

    Raises:
        BackendError: an implementation returned something else.

    """
    found: dict[str, Backend] = {}
    for backends in reversed(config.hook.pytest_startmethod_backends(config=config)):
        for backend in _checked(backends):
            found.setdefault(backend.name, backend)
    return found


def _checked(backends: object) -> Iterable[Backend]:
    backends = [backends] if isinstance(backends, Backend) else backends
    if not isinstance(backends, (list, tuple)) or not all(isinstance(each, Backend) for each in backends):
        raise BackendError(
            "pytest_startmethod_backends returns a list of pytest_startmethod.Backend, "
            f"not an object of type {type(backends).__name__}"
        )
    for each in backends:
        if not each.name.isidentifier() or each.name == STDLIB.name:
            raise BackendError(f"pytest_startmethod_backends: {each.name!r} cannot be the name of a backend")
    return backends


def of(config: pytest.Config, method: str) -> Backend:
    """Return the backend of a valid start method."""
    name, _ = methods.split(method)
    return known(config)[name] if name else STDLIB


def unavailable_reason(config: pytest.Config, method: str) -> str | None:
    """Return why a leg under `method` cannot run here, or None if it can."""
    backend = of(config, method)
    if backend is STDLIB:
        available = methods.available()
    elif not backend.installed:
        return missing_reason(method, backend)
    else:
        try:
            available = backend.available()
        except ImportError as error:
            return f"start method {method}: importing {backend.package} failed: {error}"
    return None if method in available else methods.unavailable_reason(method, available)


def missing_reason(method: str, backend: Backend) -> str:
    """Return the reason why a leg under `method` cannot run when its package is missing."""
    return f"start method {method} needs the package {backend.package}, which is not installed"
