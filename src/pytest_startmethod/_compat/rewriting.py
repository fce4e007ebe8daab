"""Keep hooks that rewrite modules out of this package. Imported by the package itself: it imports nothing else."""

from __future__ import annotations

import os
import sys
from importlib import machinery


def keep_out(package: str) -> None:
    """Make pytest import the modules of `package` as Python does, from the bytecode that pip has compiled.

    pytest rewrites all modules of a distribution with a plugin: where bytecode may not be written, it parses each of
    them anew in every session. `AssertionRewritingHook._must_rewrite` and `_marked_for_rewrite_cache` (pytest 8.4 to
    9.2); when they go, the modules are rewritten, which costs time only.
    """
    for finder in sys.meta_path:
        if type(finder).__module__ != "_pytest.assertion.rewrite":
            continue
        marked, cache = getattr(finder, "_must_rewrite", None), getattr(finder, "_marked_for_rewrite_cache", None)
        if isinstance(marked, set) and isinstance(cache, dict):
            marked.difference_update([each for each in marked if each.partition(".")[0] == package])
            cache.clear()


def import_plainly(folder: str) -> None:
    """Import the modules of the package in `folder` as Python does, whatever stands in ``sys.path_hooks``.

    beartype's hook evaluates the annotations of every package, also names that only type checkers import.
    """
    loaders = (
        (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )
    with os.scandir(folder) as entries:
        rooms = [each.path for each in entries if each.is_dir()]
    for path in (folder, *rooms):
        sys.path_importer_cache[path] = machinery.FileFinder(path, *loaders)
