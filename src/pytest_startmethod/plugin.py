"""The plugin's hooks; what they do is in the modules they call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from . import collection, settings, terminal
from .fixtures import mp_context, start_method

if TYPE_CHECKING:
    from collections.abc import Generator

# pytest finds the fixtures in the plugin's own namespace.
__all__ = ["mp_context", "start_method"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    settings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options and register the marker."""
    try:
        config.stash[collection.SETTINGS] = settings.from_config(config)
    except settings.SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    config.addinivalue_line("markers", settings.MARKER_HELP)
    config.pluginmanager.register(terminal.Summary(config), "startmethod-summary")
    if hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        config.pluginmanager.register(_Xdist(config), "startmethod-xdist")


# Last, so that every other parametrization is known.
@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make legs of a marked function, or of one that requests ``start_method``."""
    if "start_method" in metafunc.fixturenames or settings.MARKER in metafunc.definition.keywords:
        collection.parametrize(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make legs of the marked methods of a ``unittest.TestCase``."""
    report = yield
    if isinstance(collector, pytest.Class) and report.passed:
        collection.expand_report(collector, report)
    return report


# First, so that other plugins see the legs and nothing is deselected yet.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note what every leg is."""
    collection.stash_legs(config, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say which marked tests are no legs."""
    collection.report_left_out(session.items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say that an explicit ``--start-methods`` met no marked test."""
    if config.stash[collection.SETTINGS].explicit and config.stash.get(collection.COUNT, None) == 0:
        terminalreporter.write_line(settings.unused_line(config.getoption("start_methods")))


class _Xdist:
    """What needs xdist: its controller collects nothing, and asks its workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_sessionfinish(self) -> None:
        """Tell the controller how many marked tests this worker collected."""
        output: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["startmethod_count"] = self.config.stash.get(collection.COUNT, 0)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take a worker's number; all of them collect the same tests."""
        count = getattr(node, "workeroutput", {}).get("startmethod_count")
        if count is not None:
            self.config.stash[collection.COUNT] = count
