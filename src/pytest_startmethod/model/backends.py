"""Packages derived from multiprocessing, with a default context of their own: multiprocess, billiard, others.

A start method of such a package is written ``multiprocess:spawn``. Nothing here imports a package before a leg of it
is about to run.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Final

from . import methods as selection


@dataclass(frozen=True, slots=True)
class Backend:
    """A package with the layout of multiprocessing: ``context``, ``process``, ``reduction``, ``spawn``, ``pool``..."""

    name: str
    """The part before the colon in ``name:spawn``."""
    package: str = ""
    """The package to import; empty: `name`."""

    def __post_init__(self) -> None:
        if not self.package:
            object.__setattr__(self, "package", self.name)

    @property
    def installed(self) -> bool:
        """Whether the package can be imported; imports at most its parent packages."""
        try:
            return importlib.util.find_spec(self.package) is not None
        except (ImportError, ValueError):
            return False

    def method(self, method: str) -> str:
        """Return the name of a start method of this package: ``spawn`` -> ``multiprocess:spawn``."""
        return method if self.package == STDLIB.package else f"{self.name}:{method}"

    def available(self) -> tuple[str, ...]:
        """Return the names of its start methods on this platform, in order; imports the package."""
        package: Any = importlib.import_module(self.package)
        methods = package.get_all_start_methods()
        return tuple(self.method(method) for method in selection.ORDER if method in methods)


STDLIB: Final = Backend("multiprocessing")
SHIPPED: Final = (Backend("multiprocess"), Backend("billiard"))
