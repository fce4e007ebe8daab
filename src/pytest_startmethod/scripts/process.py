"""What runs in the process of a script: ``python script_process.py DIRECTORY LIFE_FD METHOD script.py args...``.

It makes the method the default, writes down what the script starts, and runs the script as ``python script.py`` does.
It is run by its path, for the package may not be on the path of a fresh interpreter; nothing of ours may keep the
script from running.
"""

# ruff: noqa: SIM105 - the script pays for what is imported here

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
"""The file in the directory that what happens is written to, one JSON object a line."""


def main() -> None:
    """Run the script of `sys.argv`; returns or raises as the script does."""
    directory, life, method, script, *args = sys.argv[1:]
    if sys.path and sys.path[0] == os.path.dirname(os.path.realpath(__file__)):  # not under -P and -I
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    sys.argv[:] = [script, *args]
    namespace = _main_module(script)
    failed: Callable[[BaseException], None] = _ignore
    try:
        if int(life) >= 0:
            _watch_life(int(life), directory)
        failed = _prepare(directory, method)
    except Exception as trouble:
        _write(directory, {"trouble": f"{type(trouble).__name__}: {trouble}"})
    _run(namespace, failed)


def _ignore(error: BaseException) -> None:
    """Stand in for what could not be prepared."""


def _main_module(script: str) -> dict[str, Any]:
    """Put the script's module, empty, in the place of ours; return its namespace.

    Done before multiprocessing is imported, which makes ``__mp_main__`` another name of it.
    """
    from importlib.machinery import SourceFileLoader

    own = sys.modules["__main__"]
    path = os.path.abspath(script)
    module = ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    values = {"__file__": path, "__builtins__": sys.modules["builtins"], "__loader__": loader}
    # What a main module has beside that differs from version to version: it is what ours has.
    values |= {name: {} if name == "__annotations__" else None for name in _MAIN_NAMES if name in vars(own)}
    vars(module).update(values)
    sys.modules["__main__"] = module
    return vars(module)


def _run(namespace: dict[str, Any], failed: Callable[[BaseException], None]) -> None:
    """Run the script in its module; its exceptions are printed without our frames."""
    path = namespace["__file__"]
    try:
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), namespace)
    except BaseException as error:
        sys.excepthook = _without_us(sys.excepthook)
        try:
            failed(error)
        except Exception:
            pass
        raise


_MAIN_NAMES = ("__annotations__", "__cached__", "__doc__", "__package__", "__spec__")


def _without_us(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the hook in force, which prints what the script did not catch, so that our frames are not printed."""

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


# -- the end of whoever asked for this -------------------------------------------------------------------------------


def _watch_life(life: int, directory: str) -> None:
    """Leave a process that ends the script's whole group and removes its files if whoever started it is killed.

    It is nobody's child, and in a session of its own: the script sees nothing of it. `life` is the reading end of a
    pipe that ends with that process, or has a byte when all went well.
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


# -- what is written down --------------------------------------------------------------------------------------------


def _prepare(directory: str, method: str) -> Callable[[BaseException], None]:
    """Make `method` the default and listen to what the script starts; return what looks at its exception."""
    owner = os.getpid()
    closing: list[Callable[[], None]] = []

    def finish() -> None:
        if os.getpid() == owner:
            for each in closing:
                try:
                    each()
                except Exception as trouble:
                    _write(directory, {"trouble": f"{type(trouble).__name__}: {trouble}"})

    # Before multiprocessing is imported: what it does at exit, where it joins its children, comes first then.
    atexit.register(finish)
    _find_package()
    from pytest_startmethod.scripts import record

    listening = record.listen(directory, method)
    closing.append(listening.finish)
    return listening.failed


def _find_package() -> None:
    """Make the package importable from where this file is, whatever ``sys.path`` says."""
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
    """Append a line to the log, or do nothing: the script goes on without it."""
    import json

    try:
        descriptor = os.open(os.path.join(directory, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps(entry).encode("ascii") + b"\n")
        finally:
            os.close(descriptor)
    except (OSError, TypeError, ValueError):
        pass


def read_log(directory: str) -> list[dict[str, Any]]:
    """Return what was written; a line that was cut short is passed over."""
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
    """Return multiprocessing's own temporary directory in the script, which a script that is killed leaves behind."""
    named = (entry.get("temporary_directory") for entry in read_log(directory))
    return [path for path in named if isinstance(path, str) and os.path.basename(path).startswith("pymp-")]


if __name__ == "__main__":
    main()
