"""Call back when a module has been imported, without changing the import.

Lets us wrap modules without importing them ourselves: each loaded library makes forks slower.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .._compat.signals import OwnCode


class ImportHooks:
    """A finder at the head of ``sys.meta_path`` while modules are awaited.

    It delegates to the other finders, in order, and wraps the loader of an awaited module.
    """

    def __init__(self) -> None:
        self.awaited: list[tuple[str, Callable[[], None]]] = []

    def when_loaded(self, name: str, function: Callable[[], None]) -> Callable[[], None]:
        """Call `function` now if the module `name` is loaded, and after each import of it; return a way to cancel.

        A module is imported again after ``mock.patch.dict(sys.modules)``, which removes what was imported meanwhile.
        Exceptions are suppressed, since the import is the user's.
        """
        if name in sys.modules:
            function()
        entry = (name, function)
        self.awaited.append(entry)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

        def cancel() -> None:
            with suppress(ValueError):  # called twice
                self.awaited.remove(entry)
            if not self.awaited:
                with suppress(ValueError):  # a test may have replaced the list
                    sys.meta_path.remove(self)

        return cancel

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find an awaited module by means of the finders after this one."""
        if not any(name == each for each, _ in self.awaited):
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None

    def loaded(self, name: str) -> None:
        """Run the callbacks waiting for `name`."""
        for entry in [each for each in self.awaited if each[0] == name]:
            with OwnCode(), suppress(Exception):
                entry[1]()


class _Loader:
    """Wraps a module's loader until the module is loaded."""

    def __init__(self, loader: Any, hooks: ImportHooks) -> None:
        self._loader = loader
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> object:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hooks.loaded(module.__name__)
