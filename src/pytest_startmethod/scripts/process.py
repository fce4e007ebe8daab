"""The process of a script: ``python process.py DIRECTORY LIFE_FD METHOD (SCRIPT | -m MODULE) ARGS...``.

Makes the method the default, records what the script starts, and runs it as ``python SCRIPT`` or ``python -m MODULE``
would. Run by path, since a fresh interpreter may not find the package. No failure of the plugin keeps the script from
running.
"""

# ruff: noqa: SIM105 - each import here delays the script

from __future__ import annotations

import atexit
import os
import sys
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOG = "launches.jsonl"
"""The log in the directory: one JSON object a line for each event."""

# These vary with the version: a script's main module gets the ones that ours has.
_MAIN_NAMES = ("__annotations__", "__cached__", "__doc__", "__package__", "__spec__")


def main() -> None:
    """Run the script named in `sys.argv`; return or raise like it."""
    directory, life, method, script, *args = sys.argv[1:]
    module = args.pop(0) if script == "-m" else None
    if sys.path and sys.path[0] == os.path.dirname(os.path.realpath(__file__)):  # not under -P and -I
        sys.path[0] = os.path.dirname(os.path.realpath(script)) if module is None else os.getcwd()
    sys.argv[:] = [script, *args]
    namespace = _main_module(None if module else os.path.abspath(script))
    failed: Callable[[BaseException], None] = _ignore
    try:
        if int(life) >= 0:
            _watch_life(int(life), directory)
        failed = _prepare(directory, method)
    except Exception as trouble:
        _write(directory, {"trouble": f"{type(trouble).__name__}: {trouble}"})
    try:
        code = _module_code(module, namespace) if module else _script_code(namespace["__file__"])
        spec = namespace.get("__spec__")
        _write(directory, {"main": namespace["__file__"], "module": spec and spec.name})
        exec(code, namespace)
    except BaseException as error:
        sys.excepthook = _without_us(sys.excepthook)
        try:
            failed(error)
        except Exception:
            pass
        raise


def _ignore(error: BaseException) -> None:
    """Stand for a recorder that could not be prepared."""


def _main_module(path: str | None) -> dict[str, Any]:
    """Replace our ``__main__`` with an empty one for the script, and return its namespace.

    Call this before importing multiprocessing, which makes ``__mp_main__`` another name for it.
    """
    from importlib.machinery import SourceFileLoader

    own = sys.modules["__main__"]
    module = ModuleType("__main__")
    values: dict[str, Any] = {"__builtins__": sys.modules["builtins"]}
    values |= {name: {} if name == "__annotations__" else None for name in _MAIN_NAMES if name in vars(own)}
    if path is not None:
        values |= {"__file__": path, "__loader__": SourceFileLoader("__main__", path)}
    vars(module).update(values)
    sys.modules["__main__"] = module
    return vars(module)


def _script_code(path: str) -> Any:
    with open(path, "rb") as file:
        source = file.read()
    return compile(source, path, "exec", dont_inherit=True)


def _module_code(name: str, namespace: dict[str, Any]) -> Any:
    """Return the code that ``python -m name`` runs, and fill its namespace. Raises SystemExit if not found."""
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = find_spec(name)
    except (ModuleNotFoundError, ValueError) as error:  # a parent package that is not there, or has no spec
        sys.exit(f"{sys.executable}: Error while finding module specification for {name!r} ({error})")
    code: Any = spec and spec.loader and spec.loader.get_code(name)  # type: ignore[attr-defined]
    if spec is None or code is None:
        sys.exit(f"{sys.executable}: No module named {name}")
    values = {"__file__": spec.origin, "__loader__": spec.loader, "__spec__": spec, "__package__": spec.parent}
    namespace.update(values | ({"__cached__": spec.cached} if "__cached__" in namespace else {}))
    sys.argv[0] = str(spec.origin)
    return code


def _without_us(hook: Callable[..., object]) -> Callable[..., object]:
    """Wrap the current excepthook to leave out the plugin's frames."""

    def excepthook(cls: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        sys.excepthook = hook
        try:
            todo: list[BaseException | None] = [error]
            seen: set[int] = set()
            while todo:
                each = todo.pop()
                if each is not None and id(each) not in seen:
                    seen.add(id(each))
                    each.__traceback__ = _user_part(each.__traceback__)
                    todo += [each.__cause__, each.__context__]
            tb = error.__traceback__
        finally:
            hook(cls, error, tb)

    return excepthook


def _user_part(tb: TracebackType | None) -> TracebackType | None:
    kept = []
    while tb is not None:
        if not tb.tb_frame.f_code.co_filename.startswith(HERE + os.sep):
            kept.append(tb)
        tb = tb.tb_next
    result = None
    for each in reversed(kept):
        result = TracebackType(result, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return result


# -- if the caller is killed -------------------------------------------------------------------------------------------


def _watch_life(life: int, directory: str) -> None:
    """Start a process that ends the script's group and removes its files if the caller is killed.

    It is detached and in a session of its own, so the script does not see it. `life` is the reading end of a pipe:
    a byte means a normal end, end of file without one that the writer was killed.
    """
    script = os.getpid()
    between = os.fork()
    if between:
        os.close(life)
        os.waitpid(between, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        if os.read(life, 1) == b"":
            import shutil
            import signal

            try:
                os.killpg(script, signal.SIGKILL)
            except ProcessLookupError:
                pass
            for path in (*temporary_directories(directory), directory):
                shutil.rmtree(path, ignore_errors=True)
    finally:
        os._exit(0)


# -- the log -----------------------------------------------------------------------------------------------------------


def _prepare(directory: str, method: str) -> Callable[[BaseException], None]:
    """Make `method` the default, record what the script starts, and return the function that records its exception."""
    owner = os.getpid()
    closing: list[Callable[[], None]] = []

    def finish() -> None:
        if os.getpid() == owner:
            for each in closing:
                try:
                    each()
                except Exception as trouble:
                    _write(directory, {"trouble": f"{type(trouble).__name__}: {trouble}"})

    # Registered before multiprocessing is imported, so it runs after multiprocessing has joined its children.
    atexit.register(finish)
    _find_package()
    from pytest_startmethod.scripts import record

    listening = record.Listening(directory, method)
    closing.append(listening.finish)
    return listening.failed


def _find_package() -> None:
    """Import the package from this file's location, regardless of ``sys.path``."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(
        "pytest_startmethod", os.path.join(HERE, "__init__.py"), submodule_search_locations=[HERE]
    )
    if spec is None or spec.loader is None:
        raise ImportError("pytest_startmethod")
    module = module_from_spec(spec)
    sys.modules["pytest_startmethod"] = module
    spec.loader.exec_module(module)


def _write(directory: str, entry: dict[str, Any]) -> None:
    """Append a line to the log; errors are ignored."""
    import json

    try:
        descriptor = os.open(os.path.join(directory, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps(entry).encode("ascii") + b"\n")
        finally:
            os.close(descriptor)
    except (OSError, TypeError, ValueError):
        pass


def read_log(directory: str) -> list[dict[str, object]]:
    """Return the entries of the log, without an incomplete line."""
    import json

    entries = []
    try:
        with open(os.path.join(directory, LOG), encoding="ascii") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    entries.append(entry)
    except OSError:
        pass
    return entries


def temporary_directories(directory: str) -> list[str]:
    """Return the script's temporary directories of multiprocessing, which remain if it is killed."""
    named = (entry.get("temporary_directory") for entry in read_log(directory))
    return [path for path in named if isinstance(path, str) and os.path.basename(path).startswith("pymp-")]


if __name__ == "__main__":
    main()
