"""Look up, in a fresh child, the names that the parent's code reads.

Run by `loader`. Like it, this file is loaded by path, with the standard library only.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import time
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_RARELY = 100_000_000
_kept: dict[str, float] = {}
"""Import time in seconds of each module kept between questions."""


def answer(
    question: Mapping[str, object], look: Mapping[str, object], ambient: Mapping[str, object]
) -> dict[str, object]:
    """Return the descriptions that the question asks for, or ``{"trouble": ...}`` on failure.

    Runs in a fork, so nothing here outlives it.
    """
    try:
        return _answer(question, look, ambient)
    except BaseException as error:
        import traceback

        return {"trouble": "".join(traceback.format_exception(type(error), error, error.__traceback__))[-1000:]}


def _answer(question: Mapping[str, Any], look: Mapping[str, Any], ambient: Mapping[str, Any]) -> dict[str, Any]:
    import multiprocessing.process
    import multiprocessing.spawn

    multiprocessing.process.current_process()._inheriting = True  # type: ignore[attr-defined]
    if question["task"]:  # a worker loads its tasks after its own start
        multiprocessing.process._parent_process = multiprocessing.process._ParentProcess(  # type: ignore[attr-defined]
            "MainProcess", os.getppid(), None
        )
    threshold = gc.get_threshold()
    gc.set_threshold(_RARELY)  # a collection would copy every page shared with the fork
    before = set(sys.modules)
    os.environ.clear()
    os.environ.update(question["environ"])
    multiprocessing.spawn.prepare(question["prepare"])
    broken: dict[str, str] = {}
    took = {name: _kept[name] for name in question["keep"] if name in _kept}
    for name in question["roots"]:
        begin = time.perf_counter()
        _import(name, broken)
        took[name] = time.perf_counter() - begin
    values: dict[int, list[object]] = {}
    ordered = sorted(range(len(question["bindings"])), key=lambda n: question["bindings"][n][0] not in sys.modules)
    for number in ordered:  # modules that the target itself imports come first: another import may change them
        module, names, every, held = question["bindings"][number]
        found = sys.modules.get(module) or _import(module, broken)
        if held:
            found = _computed(found, names[0])
        nodes = []
        for steps in every:
            value = look["MISSING"] if found is None else look["resolve"](found, names, steps)
            nodes.append(look["describe"](value))
        values[number] = nodes
    if gc.get_threshold()[0] == _RARELY:
        gc.set_threshold(*threshold)
    imports = {name: _importable(name) for name in question["imports"]}
    around = ambient["observe"](look["describe"], question["modules"], question["loggers"], question["signals"])
    users, parts = tuple(question["user"]), look["INSTALLED"]
    new = [name for name in list(sys.modules) if name not in before and _is_installed(name, users, parts)]
    return {
        "values": [values[number] for number in range(len(values))],
        "imports": imports,
        "ambient": around,
        "broken": broken,
        "took": took,
        "new": new,
    }


def keep(names: list[str]) -> None:
    """Import installed modules in advance, to save the import in later questions."""
    for name in names:
        begin = time.perf_counter()
        try:
            importlib.import_module(name)
        except BaseException:
            continue
        _kept.setdefault(name, time.perf_counter() - begin)
    gc.freeze()


def _import(name: str, broken: dict[str, str]) -> object:
    if name in broken:
        return None
    try:
        return importlib.import_module(name)
    except BaseException as error:
        broken[name] = f"{type(error).__name__}: {error}"[:300]
        return None


def _computed(module: object, name: str) -> object:
    """Return `module`, or what answers for it where its ``__getattr__`` (PEP 562) or its class provides the name."""
    namespace = getattr(module, "__dict__", {})
    if name in namespace or (type(module) is types.ModuleType and "__getattr__" not in namespace):
        return module
    try:
        return types.SimpleNamespace(**{name: getattr(module, name)})
    except Exception:
        return module


def _importable(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except Exception:
        return False


def _is_installed(name: str, users: tuple[str, ...], parts: Any) -> bool:
    if name.partition(".")[0] in users or name in ("__main__", "__mp_main__"):
        return False
    spec = getattr(sys.modules[name], "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    if not isinstance(origin, str):
        return False
    return any(part in origin for part in parts) or origin.startswith(os.path.dirname(os.__file__) + os.sep)
