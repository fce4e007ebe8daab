"""The fixtures ``start_method``, ``mp_context`` and ``start_method_script``.

The fixtures only return values: the method becomes the default through the leg, not through a fixture. pytest imports
this module at every start, so the functions import what only a leg needs.
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


def start_method_value(request: pytest.FixtureRequest) -> object:
    """Return the start method under which the test runs: fork, spawn or forkserver.

    A test that requests this fixture, directly or not, runs once under each start method, as if it were marked with
    @pytest.mark.startmethods.
    """
    # A test's own `parametrize("start_method", ...)` may contain other values.
    if hasattr(request, "param"):
        return _without_backend(request.param)
    return _outside_a_leg(request)


def _without_backend(value: object) -> object:
    """Return the name that the package's own ``get_context`` takes: ``spawn`` for ``multiprocess:spawn``."""
    if type(value) is str and ":" in value:
        from ..model import methods

        return methods.base(value) if methods.base(value) in methods.ORDER else value
    return value


def mp_context_value(request: pytest.FixtureRequest, start_method: str) -> BaseContext:
    """Return the context of the start method under which the test runs; it runs once under each.

    For code that takes a context: ``ProcessPoolExecutor(mp_context=mp_context)``, ``mp_context.Process(...)``.
    """
    import importlib

    from .collection import RUNNING

    running = request.config.stash.get(RUNNING, None)
    package: Any = importlib.import_module(running.package if running is not None else "multiprocessing")
    context: BaseContext = package.get_context(start_method)
    return context


def start_method_script_value(request: pytest.FixtureRequest, start_method: str) -> Callable[..., ScriptRun]:
    """Return a function that runs a script under the test's start method; the test runs once under each.

    ``start_method_script("tools/build.py", "--fast", timeout=20, cwd=..., env=..., input=...)`` runs it as
    ``python tools/build.py --fast`` does, ``start_method_script("-m", "package")`` a module. Returns a `ScriptRun`:
    returncode, stdout, stderr, launches, findings; ``.check()`` raises unless the return code is 0. The path is
    relative to `cwd`, or to the test's file. Raises `subprocess.TimeoutExpired` after `timeout` seconds.
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
    """Return `script` if it exists relative to `cwd`, else its path relative to the directory of the test's file."""
    beside: Path = request.node.path.parent / script
    if not os.path.isfile(os.path.join(os.path.abspath(cwd or os.curdir), script)) and beside.is_file():
        return os.fspath(beside)
    return script


def _note_script(item: pytest.Item, result: ScriptRun) -> None:
    """Count the script's processes as started by the leg, and turn its findings into a failure of the leg."""
    from ..model.launch import Failure
    from .legs import STATE

    state = item.stash.get(STATE, None)
    if state is None:
        return
    state.record.launches.extend(result.launches)
    if result.findings:
        state.record.failures.append(Failure(result.outcome, result.findings, in_script=True))


def _outside_a_leg(request: pytest.FixtureRequest) -> str:
    # requested at run time (`request.getfixturevalue`), or by an item that cannot run more than once
    import multiprocessing

    from .._compat import pytest as pytest_compat
    from ..model import methods
    from ..model.warning import StartMethodWarning

    nodeid = pytest_compat.requesting_item(request).nodeid
    # allow_none: the call must not fix the method for the rest of the run
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
