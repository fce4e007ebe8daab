"""The user's import hooks: what only they find, a fresh child cannot import."""

from __future__ import annotations

import sys
from typing import Any

from ..child.values import module_of
from ..source.callers import owner


def import_hooks() -> list[Any]:
    """Return the user's finders among the import hooks of this process."""
    kinds = [(each, each if isinstance(each, type) else type(each)) for each in sys.meta_path]
    files = [(each, module_of(sys.modules.get(kind.__module__)).get("__file__")) for each, kind in kinds]
    return [each for each, file in files if type(file) is str and owner(file) == "user"]
