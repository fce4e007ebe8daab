"""The fixtures ``start_method``, ``mp_context`` and ``start_method_script``.

The first two are values only: what makes a method the active one is the leg, not a fixture.
Imported at every start of pytest: what only a leg needs is imported by it.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from pathlib import Path

    from ..scripts.running import ScriptRun


def start_method_value(request: pytest.FixtureRequest) -> Any:
    """Return the name of the start method that the test runs under: fork, spawn or forkserver, of any backend.

    Requesting it, or a fixture that does, runs the test once under each of them.
    """
    # A test's own `parametrize("start_method", ...)` may have other values too.
    if hasattr(request, "param"):
        return _without_backend(request.param)
    return _outside_a_leg(request)


def _without_backend(value: Any) -> Any:
    """Return what a package's own ``get_context`` takes: ``spawn`` of ``multiprocess:spawn``."""
    if type(value) is str and ":" in value:
        from ..model import methods

        return methods.base(value) if methods.base(value) in methods.ORDER else value
    return value


def mp_context_value(request: pytest.FixtureRequest, start_method: str) -> BaseContext:
    """Return the multiprocessing context of the start method that the test runs under.

    For what takes a context: ``ProcessPoolExecutor(mp_context=mp_context)``, ``mp_context.Process(...)``.
    """
    import importlib

    from .collection import RUNNING

    running = request.config.stash.get(RUNNING, None)
    package: Any = importlib.import_module(running.package if running is not None else "multiprocessing")
    context: BaseContext = package.get_context(start_method)
    return context


def start_method_script_value(request: pytest.FixtureRequest, start_method: str) -> Callable[..., ScriptRun]:
    """Return a function that runs a script as ``python script.py`` does, under the test's start method.

    ``start_method_script("tools/build.py", "--fast", timeout=20, cwd=..., env=..., input=...)`` returns a `ScriptRun`:
    returncode, stdout, stderr, launches, findings; ``.check()`` raises unless the return code is 0. The path is
    relative to `cwd`, or to the test's file. Raises `subprocess.TimeoutExpired` when `timeout` seconds have passed.
    """

    def run(script: str | os.PathLike[str], *args: str, **options: Any) -> ScriptRun:
        __tracebackhide__ = True
        from ..scripts import running

        result = running.run(
            _script_path(request, script, options.get("cwd")),
            *args,
            method=start_method,
            leg=request.node.nodeid,
            **options,
        )
        _note_script(request.node, result)
        if result.ended == "time limit":
            import subprocess

            limit = options["timeout"]
            raise subprocess.TimeoutExpired([result.script, *args], limit, result.stdout, result.stderr)
        return result

    return run


def _script_path(
    request: pytest.FixtureRequest, script: str | os.PathLike[str], cwd: str | os.PathLike[str] | None
) -> str | os.PathLike[str]:
    """Return `script` as it is if it is there, seen from `cwd`; else as seen from the directory of the test's file."""
    beside: Path = request.node.path.parent / script
    if not os.path.isfile(os.path.join(os.path.abspath(cwd or os.curdir), script)) and beside.is_file():
        return os.fspath(beside)
    return script


def _note_script(item: pytest.Item, result: ScriptRun) -> None:
    """Let what the script started count as started by the leg, and what kept it from starting as the leg's failure."""
    from ..model.launch import Failure
    from .legs import STATE

    state = item.stash.get(STATE, None)
    if state is None:
        return
    state.record.launches.extend(result.launches)
    if result.findings:
        state.record.failures.append(Failure(result.outcome, result.findings))


def _outside_a_leg(request: pytest.FixtureRequest) -> str:
    # Asked for by name at run time (`request.getfixturevalue`), or by an item that cannot be run more than once.
    import multiprocessing

    from .._compat import pytest as pytest_compat
    from ..model import methods
    from ..model.warning import StartMethodWarning

    nodeid = pytest_compat.requesting_item(request).nodeid
    # allow_none: asking must not fix the method for the rest of the run.
    method = multiprocessing.get_start_method(allow_none=True) or methods.default()
    warnings.warn(
        StartMethodWarning(
            f"{nodeid} asks for start_method at run time, when it is too late to make it one test per method: "
            f"it runs once, under {method}. Mark it with @pytest.mark.startmethods"
        ),
        stacklevel=1,
    )
    return method


start_method = pytest.fixture(scope="session", name="start_method")(start_method_value)
mp_context = pytest.fixture(scope="session", name="mp_context")(mp_context_value)
start_method_script = pytest.fixture(name="start_method_script")(start_method_script_value)
