"""Hear of the import of a module, and leave the import itself as it is.

What nobody has imported need not be imported to be listened to: each library that a process has loaded makes its forks
slower.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def when_loaded(name: str, function: Callable[[], None]) -> Callable[[], None]:
    """Call `function` now if the module `name` is there, else once it has been imported.

    What it raises goes no further than here, since the import is the user's. The function that is returned calls it
    off.
    """
    if name in sys.modules:
        function()
        return lambda: None
    entry = (name, function)
    _finder.awaited.append(entry)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)

    def call_off() -> None:
        with suppress(ValueError):  # it was called
            _finder.awaited.remove(entry)
        if not _finder.awaited:
            with suppress(ValueError):  # a test may have exchanged the list
                sys.meta_path.remove(_finder)

    return call_off


class _Finder:
    """Finds what is awaited as Python's own finder does, with a loader that tells."""

    def __init__(self) -> None:
        self.awaited: list[tuple[str, Callable[[], None]]] = []

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not any(name == each for each, _ in self.awaited):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec

    def loaded(self, name: str) -> None:
        """Call who awaited `name`."""
        for entry in [each for each in self.awaited if each[0] == name]:
            self.awaited.remove(entry)
            with suppress(Exception):
                entry[1]()


_finder = _Finder()


class _Loader:
    """Stands in for a module's loader until the module is loaded."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _finder.loaded(module.__name__)
