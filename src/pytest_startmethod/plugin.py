"""pytest hooks. Each delegates to a module that is imported only when needed.

There is no test assertion here for pytest to rewrite: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ._compat import rewriting
from .session import options
from .session.fixtures import mp_context, start_method, start_method_script
from .session.frameless import hook_wrapper

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from .model.backends import Backend

# pytest finds the fixtures in the plugin's own namespace.
__all__ = ["mp_context", "start_method", "start_method_script"]

COUNT = pytest.StashKey[int]()
"""The number of collected tests that are marked or legs, in ``config.stash``; absent before collection."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that other plugins may implement."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_startmethod_backends() -> Sequence[Backend]:
    """Provide the backends that are tested with this plugin."""
    from .model import backends

    return backends.SHIPPED


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


# First, and so before a conftest.py imports a module that gets its context at import.
@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """With discovery, track from here on what is taken from the default context."""
    given = early_config.known_args_namespace
    if getattr(given, options.DISCOVER, None) or options.is_on(early_config, options.DISCOVER):
        from .activation import contexts

        early_config.add_cleanup(contexts.tell_apart())


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and check the options if any are given."""
    config.addinivalue_line("markers", options.MARKER_HELP)
    rewriting.import_plainly(os.path.dirname(__file__))
    if options.any_given(config):
        from .session import collection

        settings = collection.settings_of(config)
        if settings.reports:
            collection.register_files(config)
        if settings.discover:
            from .session import discovery

            discovery.start(config, settings)
    if hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        config.pluginmanager.register(_Xdist(config), "startmethod-xdist")


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    """Show the selected methods, if an option was given."""
    if not options.any_given(config) or config.getoption("no_header"):
        return None
    from .session import collection

    return collection.header(config)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str] | None:
    """Show the methods, if no option was given and there are legs."""
    if not config.stash.get(COUNT, 0) or options.any_given(config):
        return None
    if config.getoption("no_header") or config.get_verbosity() < 0:  # pytest calls this hook all the same
        return None
    from .session import collection

    return collection.header(config)


# Last, so that all other parametrizations are known.
@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make legs of a marked function, or of one that requests ``start_method``."""
    if options.MISSPELT in metafunc.definition.keywords:
        from .session import collection

        collection.refuse_misspelt(metafunc.definition)
    if "start_method" in metafunc.fixturenames or options.MARKER in metafunc.definition.keywords:
        from .session import collection

        collection.parametrize(metafunc)


@hook_wrapper()
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make legs of the marked methods of a ``unittest.TestCase``."""
    report = yield
    nodes: list[Any] = report.result or []
    if isinstance(collector, pytest.Class) and (
        options.requesting(nodes) or options.marked(nodes) or options.marked(nodes, options.MISSPELT)
    ):
        from .session import collection

        collection.expand_report(collector, report)
    return report


# First, so that other plugins see the legs and nothing is deselected yet.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Store the leg of each item."""
    found = list(dict.fromkeys([*options.requesting(items), *options.marked(items)]))
    count = 0
    if found:
        from .session import collection

        count = collection.stash_legs(config, found)
    config.stash[COUNT] = count


def pytest_collection_finish(session: pytest.Session) -> None:
    """Report marked tests that are not legs, unless an exception ended the collection before there were any."""
    found = options.marked(session.items)
    if found and COUNT in session.config.stash:
        from .session import collection

        collection.report_left_out(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report an explicit ``--start-methods`` without a marked test."""
    line = options.unused_line(config)
    if line is not None and config.stash.get(COUNT, None) == 0:
        terminalreporter.write_line(line)


class _Xdist:
    """Hooks under xdist, whose controller collects nothing itself."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_sessionstart(self) -> None:
        """Receive the reports of legs on the controller."""
        if not hasattr(self.config, "workerinput"):
            from .session import collection

            collection.register_summary(self.config)

    def pytest_sessionfinish(self) -> None:
        """Send the controller the number of marked tests that this worker collected."""
        output: dict[str, object] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["startmethod_count"] = self.config.stash.get(COUNT, 0)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Receive a worker's number, which is the same for all, and the results of its experiments."""
        output = getattr(node, "workeroutput", {})
        self.config.stash[COUNT] = output.get("startmethod_count", self.config.stash.get(COUNT, 0))
        results: Any = self.config.pluginmanager.get_plugin("startmethod-results")
        if "startmethod_verified" in output and results is not None:
            results.amend(output["startmethod_verified"])
