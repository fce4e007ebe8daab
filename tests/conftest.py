"""The fixture for nested pytest sessions: source in, outcome out."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import textwrap
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import pytest

import pytest_startmethod

if TYPE_CHECKING:
    import hypothesis

pytest_plugins = ["pytester"]

Where = Literal["in-process", "subprocess", "xdist"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell sets it for background jobs: children would ignore interrupts too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def inputs(few: int) -> hypothesis.settings:
    """Limit a property test that starts processes to `few` inputs in a normal run."""
    import hypothesis

    return hypothesis.settings(
        max_examples=int(os.environ.get("PROPERTY_INPUTS", few)), suppress_health_check=list(hypothesis.HealthCheck)
    )


HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"


def pytest_sessionstart() -> None:
    """Import what tests need; `pytest --help` reads this file, too, also in a clone without the test extra."""
    import hypothesis

    # Property tests try a few fixed inputs; PROPERTY_INPUTS=5000 makes them try that many new ones each. None fails
    # because the machine is slow.
    patient = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
    hypothesis.settings.register_profile("few", max_examples=30, derandomize=True, database=None, **patient)
    hypothesis.settings.register_profile("many", print_blob=True, **patient)
    hypothesis.settings.load_profile("many" if "PROPERTY_INPUTS" in os.environ else "few")
    # A session in this process must not be the first to import these modules: pytester would remove them from
    # `sys.modules` afterwards but leave them in the package, where `from . import` finds them.
    for module in pkgutil.walk_packages(pytest_startmethod.__path__, "pytest_startmethod."):
        importlib.import_module(module.name)
    # The same goes for standard library modules that a session imports late. Some platforms lack some of them.
    for name in [
        "concurrent.futures.process",
        *(m.name for m in pkgutil.iter_modules(multiprocessing.__path__, "multiprocessing.")),
    ]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start three workers for two cores: a third of a run is spent waiting for what the tests start."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


ONE_RUN = {
    "child/test_reporter.py", "docs/test_causes.py", "docs/test_examples.py", "experiments/test_replay.py",
    "zoo/test_session.py",
}  # fmt: skip
"""The files whose tests read the results of one long run, a fixture of their module."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of such a file to one worker, and any other test to the next that is free."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.removeprefix("tests/") in ONE_RUN else nodeid

    return Scheduling(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_finish() -> None:
    """Keep what exists before the first test out of every later garbage collection."""
    import hypothesis

    # The first property registers a generator, whose owner hypothesis must find among what can be collected.
    hypothesis.given(hypothesis.strategies.none())(lambda _: None)()
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a nested session."""

    status: int
    """pytest's exit status."""
    out: str
    """Standard output followed by standard error."""
    results: dict[str, str] = field(default_factory=dict)
    """Node id -> passed, failed, error, skipped, xfailed or xpassed, in the order of execution."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Node id -> reason of a skip, or text of a failure."""
    items: list[str] = field(default_factory=list)
    """Node ids collected, in order, before any deselection. Empty under xdist."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Node id -> class of the item. Empty under xdist."""
    legs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Node id -> fields of the item's `Leg`, for items that are legs. Empty under xdist."""

    @property
    def lines(self) -> list[str]:
        """The output, split into lines."""
        return self.out.splitlines()

    @property
    def names(self) -> dict[str, str]:
        """`results` without the file names in the node ids."""
        return {nodeid.partition("::")[2]: outcome for nodeid, outcome in self.results.items()}

    @property
    def collected(self) -> list[str]:
        """`items` without the file names."""
        return [nodeid.partition("::")[2] for nodeid in self.items]


# Variables of CI services that change pytest's output or ours.
HOST_SETTINGS = ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER", "GITHUB_", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "COLUMNS")


@contextlib.contextmanager
def _undone_afterwards(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo global changes made by a session in this process, which a process of its own would have taken with it."""
    patch.setattr(multiprocessing.get_context.__self__, "_actual_context", None)
    patch.setattr(multiprocessing, "get_all_start_methods", multiprocessing.get_all_start_methods)
    patch.setattr(multiprocessing.process, "_process_counter", itertools.count(1))
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] == "pytest_startmethod"]
    before = [vars(module).copy() for module in ours]
    with mock.patch.dict(os.environ), mock.patch.dict(sys.modules):
        for name, module in list(sys.modules.items()):
            if name.startswith("test_") and Path(getattr(module, "__file__", None) or "/").is_relative_to(HERE):
                del sys.modules[name]  # the session may have a file of that name
        yield
    for module, names in zip(ours, before, strict=True):
        for name, value in names.items():
            if vars(module).get(name) is not value and isinstance(value, types.FunctionType):
                setattr(module, name, value)  # replaced by a conftest of the session


@functools.cache
def _entry_points() -> frozenset[str]:
    """Return the names of all installed plugins."""
    return frozenset(each.name for each in importlib.metadata.entry_points(group="pytest11"))


def _save_time(patch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    """Leave out of a session in this process what it would do in vain: a fifth of what a small one takes."""
    from _pytest.fixtures import FixtureManager

    manager = pytest.PytestPluginManager
    load, find = manager.load_setuptools_entrypoints, FixtureManager.pytest_plugin_registered

    def load_entry_points(self: pytest.PytestPluginManager, group: str, name: str | None = None) -> int:
        """Do not read the metadata of all that is installed for a plugin that is named by its module."""
        return 0 if name is not None and name not in _entry_points() else load(self, group, name)

    def find_fixtures(self: FixtureManager, plugin: object, plugin_name: str) -> None:
        """Do not try each name of those of pytest's own modules that have no fixture."""
        is_own = isinstance(plugin, types.ModuleType) and plugin.__name__.startswith("_pytest.")
        if not is_own or any(type(each).__name__ == "FixtureFunctionDefinition" for each in vars(plugin).values()):
            find(self, plugin, plugin_name)

    patch.setattr(manager, "load_setuptools_entrypoints", load_entry_points)
    patch.setattr(FixtureManager, "pytest_plugin_registered", find_fixtures)
    patch.setattr(pytester, "make_hook_recorder", lambda _: types.SimpleNamespace())
    # pytest 8.4.0 collects garbage five times at a session's end; later versions of pytester switch it off.
    patch.setattr("_pytest.unraisableexception.gc_collect_harder", lambda *_: None)


class Session:
    """A nested pytest session: `session.file(test_a="...").run("-v")`."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: Where = "in-process") -> None:
        self.where = where
        self.pytester = pytester
        self.path = pytester.path
        self.record = pytester.path.parent / f"{pytester.path.name}.record"
        self.plugins = ["pytest_startmethod.plugin", "session_record"]
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("SESSION_RECORD", str(self.record))
        for name in list(os.environ):
            if name.startswith(HOST_SETTINGS):
                monkeypatch.delenv(name)
        monkeypatch.setenv("COLUMNS", "80")  # whatever the terminal is
        path = [str(SOURCE), str(HERE), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        for entry in path[:2]:
            monkeypatch.syspath_prepend(entry)

    def file(self, name: str | None = None, text: str | None = None, /, **modules: str) -> Session:
        """Write a file, or modules by name; the text is dedented."""
        texts = {f"{module}.py": source for module, source in modules.items()}
        if name is not None and text is not None:
            texts[name] = text
        for relative, source in texts.items():
            path = self.path / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")
        return self

    def ini(self, **keys: str) -> Session:
        """Write a pytest.ini."""
        lines = [f"{key} = {value}\n" for key, value in keys.items()]
        return self.file("pytest.ini", "[pytest]\n" + "".join(lines))

    def platform(self, *methods: str) -> Session:
        """Make the session believe that the platform has only these start methods, the first being the default."""
        return self.file(
            "fewer_methods.py",
            f"""
            import multiprocessing

            multiprocessing.get_all_start_methods = lambda: {list(methods)!r}
            """,
        ).plugin("fewer_methods")

    def plugin(self, *names: str) -> Session:
        """Load more plugins by module name."""
        self.plugins.extend(names)
        return self

    def run(self, *args: object, where: Where | None = None) -> Outcome:
        """Run pytest in the session's directory.

        In this process, each report passes through the serialization of pytest and execnet first, as under xdist.
        """
        where = where or self.where
        self.record.unlink(missing_ok=True)
        # The session's files come first on the path in both kinds of process.
        command = ["-p", "no:cacheprovider"] if {"--lf", "--ff", "--sw"}.isdisjoint(args) else []
        more = {"xdist": ["xdist.plugin"], "in-process": ["session_wire"], "subprocess": []}[where]
        for plugin in [*self.plugins, *more]:
            command += ["-p", plugin]
        if where == "xdist":
            command += [] if "-n" in args else ["-n", "1"]  # so that reports cross processes
        command += [str(arg) for arg in args]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join([str(self.path), os.environ["PYTHONPATH"]]))
            if where == "in-process":
                patch.syspath_prepend(str(self.path))
                _save_time(patch, self.pytester)
                with _undone_afterwards(patch), warnings.catch_warnings():
                    # Drop the outer run's warning filters, which turn warnings into errors.
                    warnings.resetwarnings()
                    result = self.pytester.runpytest_inprocess(*command, no_reraise_ctrlc=True)
            else:
                result = self.pytester.runpytest_subprocess(*command)
        return self._outcome(int(result.ret), f"{result.stdout}\n{result.stderr}")

    def _outcome(self, status: int, out: str) -> Outcome:
        outcome = Outcome(status, out)
        text = self.record.read_text(encoding="utf-8") if self.record.exists() else ""
        for entry in map(json.loads, text.splitlines()):
            if "item" in entry:
                outcome.items.append(entry["item"])
                outcome.kinds[entry["item"]] = entry["kind"]
                if "leg" in entry:
                    outcome.legs[entry["item"]] = entry["leg"]
            else:
                # A test that passed but failed in teardown counts as an error.
                outcome.results[entry["nodeid"]] = entry["outcome"]
                outcome.reasons[entry["nodeid"]] = entry["reason"]
        return outcome


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Session:
    alone = request.node.get_closest_marker("own_interpreter")
    return Session(pytester, monkeypatch, "subprocess" if alone else "in-process")


@pytest.fixture(params=["in-process", "xdist"])
def where(request: pytest.FixtureRequest) -> Where:
    """In this process and with `-n 1`: for the few tests of what an xdist controller and its workers each do."""
    return request.param
