"""Packages that are made like multiprocessing and have a default context of their own: multiprocess, billiard, others.

A start method of such a package is written ``multiprocess:spawn``. Nothing here imports a package before a leg of it
is about to run.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from . import methods as selection

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest


@dataclass(frozen=True, slots=True)
class Backend:
    """A package with the layout of multiprocessing: ``context``, ``process``, ``reduction``, ``spawn``, ``pool``..."""

    name: str
    """What stands before the colon in ``name:spawn``."""
    package: str = ""
    """What is imported; empty: `name`."""

    def __post_init__(self) -> None:
        if not self.package:
            object.__setattr__(self, "package", self.name)

    @property
    def installed(self) -> bool:
        """Whether the package can be imported; does not import it, save what it lies in."""
        try:
            return importlib.util.find_spec(self.package) is not None
        except (ImportError, ValueError):
            return False

    def method(self, method: str) -> str:
        """Return what a start method of this package is called: ``spawn`` -> ``multiprocess:spawn``."""
        return method if self.package == STDLIB.package else f"{self.name}:{method}"

    def available(self) -> tuple[str, ...]:
        """Return the names of its start methods on this platform, in order; imports the package."""
        package: Any = importlib.import_module(self.package)
        methods = package.get_all_start_methods()
        return tuple(self.method(method) for method in selection.ORDER if method in methods)


STDLIB: Final = Backend("multiprocessing")
SHIPPED: Final = (Backend("multiprocess"), Backend("billiard"))


class BackendError(ValueError):
    """A hook returned what is no backend; the message is one line for the user."""


def known(config: pytest.Config) -> dict[str, Backend]:
    """Return every backend by its name: those that ``pytest_startmethod_backends`` returns, ours first.

    Raises:
        BackendError: an implementation returned something else.

    """
    found: dict[str, Backend] = {}
    for backends in reversed(config.hook.pytest_startmethod_backends(config=config)):
        for backend in _checked(backends):
            found.setdefault(backend.name, backend)
    return found


def _checked(backends: Any) -> Iterable[Backend]:
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
    """Return the backend of a start method that was found valid."""
    name, _ = selection.split(method)
    return known(config)[name] if name else STDLIB


def unavailable_reason(config: pytest.Config, method: str) -> str | None:
    """Return why a leg under `method` cannot run here, or None if it can."""
    backend = of(config, method)
    if backend is STDLIB:
        methods = selection.available()
    elif not backend.installed:
        return missing_reason(method, backend)
    else:
        try:
            methods = backend.available()
        except ImportError as error:
            return f"start method {method}: importing {backend.package} failed: {error}"
    return None if method in methods else selection.unavailable_reason(method, methods)


def missing_reason(method: str, backend: Backend) -> str:
    """Return why a leg under `method` cannot run where its package is missing."""
    return f"start method {method} needs the package {backend.package}, which is not installed"
