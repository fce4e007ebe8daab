"""Private names of pytest for runs that stay unseen, and for results that other plugins already hold.

As in `pytest` beside this: one function each, with what it uses and what to do when that goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from html import escape
from typing import TYPE_CHECKING, Any

from _pytest import python

from .pytest import names_in_closure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest


_REPORTING = ("pytest_runtest_logreport", "pytest_runtest_makereport", "pytest_runtest_protocol")
_TELLING = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_exception_interact",
    "pytest_warning_recorded",
)
"""Hooks by which pytest tells what happens in a run."""


def _home(plugin: object) -> str:
    """Return the module of a plugin, which is one or an object of a class in one."""
    return str(getattr(plugin, "__name__", None) or type(plugin).__module__)


def _is_pytest(plugin: object) -> bool:
    return _home(plugin).partition(".")[0] == "_pytest"


def recorders(config: pytest.Config) -> set[object]:
    """Return the plugins that may record how tests run: outside pytest and this one, with a hook for reports.

    Conftest files are among them. So is pytest-cov, whose contexts follow the tests.
    """
    manager = config.pluginmanager
    found = {each.plugin for name in _REPORTING for each in getattr(manager.hook, name).get_hookimpls()}
    found |= {each for each in manager.get_plugins() if _home(each).startswith("pytest_cov.")}
    return {each for each in found if not _is_pytest(each) and not _home(each).startswith("pytest_startmethod")}


def recording_fixture(item: pytest.Item) -> str | None:
    """Return a fixture of `item` that records, or None: an extra run would leave a trace in its plugin's results.

    Such a fixture belongs to an installed plugin that writes a summary of its own when the session is over, as those
    of pytest-benchmark and syrupy do, or has ``snapshot`` or ``benchmark`` in its name.
    """
    if not hasattr(item, "_fixtureinfo"):
        return None
    summaries = item.config.hook.pytest_terminal_summary.get_hookimpls()
    conftests = item.config.pluginmanager._conftest_plugins
    writing = {_home(each.plugin).partition(".")[0] for each in summaries if each.plugin not in conftests}
    writing -= {"_pytest", "pytest_startmethod"}
    closure = names_in_closure(item)
    # Not those that are there for every test, such as syrupy's: they record nothing of their own.
    used = [name for mark in item.iter_markers("usefixtures") for name in mark.args]
    names: list[str] = [*item._fixtureinfo.argnames, *used]
    for name in names:  # grows meanwhile
        definitions = closure.get(name, ())
        packages = {each.func.__module__.partition(".")[0] for each in definitions}
        if packages & writing or (("snapshot" in name or "benchmark" in name) and packages - {"_pytest"}):
            return name
        names += [arg for each in definitions for arg in each.argnames if arg not in names]
    return None


def raised(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
    """Return whether a phase raised something, before any hook has made a report of it.

    What a test of a ``TestCase`` raises is in ``TestCaseFunction._excinfo`` until then.
    """
    return call.excinfo is not None or bool(getattr(item, "_excinfo", None))


class _SilentRelay:
    """Stands for a hook relay: some plugins are left out, and what pytest would tell is gathered in place of told."""

    def __init__(self, relay: object, manager: Any, left_out: set[object], reports: list[pytest.TestReport]) -> None:
        self._manager = manager
        self._left_out = left_out | set(getattr(relay, "remove_mods", ()))
        self._reports = reports

    def __getattr__(self, name: str) -> Any:
        if name in _TELLING:
            return _Gathering(self._reports)
        return self._manager.subset_hook_caller(name, self._left_out)


class _Gathering:
    """Stands for a hook: keeps the reports of its calls."""

    def __init__(self, reports: list[pytest.TestReport]) -> None:
        self._reports = reports

    def __call__(self, **arguments: Any) -> list[object]:
        if "report" in arguments and "call" not in arguments:
            self._reports.append(arguments["report"])
        return []

    def call_historic(self, **_: object) -> None:
        """Tell nobody."""


def run_silently(item: pytest.Item) -> list[pytest.TestReport]:
    """Run `item` once more by pytest's own protocol, unnoticed, tear everything down, and return its reports.

    Only pytest's own plugins and those that are not `recorders` take part. For the time of the run the session answers
    ``gethookproxy``, which ``Node.ihook`` asks, with a relay that leaves the others out: no public way reaches the
    hooks around fixtures of a wider scope. Use it after the last test only.
    """
    session: Any = item.session
    manager = item.config.pluginmanager
    left_out = recorders(item.config)
    if manager.has_plugin("setuponly"):
        left_out.add(manager.get_plugin("setuponly"))
    reports: list[pytest.TestReport] = []
    proxy = session.gethookproxy
    session.gethookproxy = lambda path: _SilentRelay(proxy(path), manager, left_out, reports)
    others = [each for each in manager.get_plugins() if not _is_pytest(each)]
    try:
        with _muted(item.config):
            try:
                manager.subset_hook_caller("pytest_runtest_protocol", others)(item=item, nextitem=None)
            finally:
                session._setupstate.teardown_exact(None)
    finally:
        del session.gethookproxy
    return reports


@contextlib.contextmanager
def _muted(config: pytest.Config) -> Iterator[None]:
    """Keep what a run prints from the terminal under every ``--capture``.

    pytest captures within phases only: what a thread writes between two of them, or a test under ``capsys.disabled()``,
    goes to what was there before the capture began. So a capture is begun anew, inside another one
    (``_pytest.capture._get_multicapture`` and ``CaptureManager._global_capturing``).
    """
    from _pytest.capture import _get_multicapture

    streams = sys.stdout, sys.stderr
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    outer = _get_multicapture("fd")
    _flush(streams)
    outer.start_capturing()
    try:
        if manager is None:
            yield
            return
        usual = manager._global_capturing
        manager._global_capturing = inner = _get_multicapture(config.getoption("capture"))
        inner.start_capturing()
        inner.suspend_capturing()
        try:
            yield
        finally:
            inner.stop_capturing()
            manager._global_capturing = usual
    finally:
        _flush(streams)
        outer.stop_capturing()


def _flush(streams: Sequence[Any]) -> None:
    for each in streams:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            each.flush()


def set_running_for_xdist(item: pytest.Item) -> None:
    """Tell a worker of xdist which collected item the reports that follow belong to.

    ``WorkerInteractor.item_index``. When it goes: workers refuse the reports of discovered legs.
    """
    for plugin in item.config.pluginmanager.get_plugins():
        if hasattr(plugin, "item_index") and hasattr(plugin, "torun"):
            plugin.item_index = item.session.items.index(item)


def replace_in_pytest_html(config: pytest.Config, nodeid: str, texts: dict[str, str]) -> None:
    """Replace texts of failures in the rows that pytest-html has so far.

    ``BaseReport._report._data["tests"]``, pytest-html 4. When it goes: its report says what was known first.
    """
    for plugin in config.pluginmanager.get_plugins():
        if _home(plugin).startswith("pytest_html."):
            data = getattr(getattr(plugin, "_report", None), "_data", {})
            for row in data.get("tests", {}).get(nodeid, ()):
                for before, after in texts.items():
                    row["log"] = row["log"].replace(escape(before.strip()), escape(after.strip()))


def replace_in_junit(
    config: pytest.Config, texts: dict[str, str], old: set[tuple[str, str]], new: Sequence[tuple[str, object]]
) -> None:
    """Replace texts of failures in what ``--junitxml`` has so far, and properties of the same test cases.

    ``LogXML.node_reporters_ordered`` and ``_NodeReporter.to_xml``. When they go: the file says what was known first.
    """
    logs = [each for each in config.pluginmanager.get_plugins() if hasattr(each, "node_reporters_ordered")]
    if not logs:
        return
    from _pytest.junitxml import bin_xml_escape

    texts = {str(bin_xml_escape(before)): str(bin_xml_escape(after)) for before, after in texts.items()}
    for log in logs:
        for reporter in log.node_reporters_ordered:
            case = reporter.to_xml()
            changed = [each for each in case if each.text in texts]
            for each in changed:
                each.text = texts[each.text]
            properties = case.find("properties") if changed else None
            if properties is not None:
                for each in list(properties):
                    if (each.get("name"), each.get("value")) in old:
                        properties.remove(each)
                for name, value in new:
                    properties.append(type(case)("property", name=str(name), value=str(value)))


def forget_captured(config: pytest.Config) -> None:
    """Drop what was written to captured descriptors since pytest last read them (``CaptureManager``).

    When it goes: pytest shows the last words of an ended child with the next test, or after its summary.
    """
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    if manager is not None and manager.is_globally_capturing():
        manager.read_global_capture()


def add_parameter(item: Any, name: str, value: str) -> None:
    """Give `item` one more parameter: reporters such as Allure tell the runs of a test apart by these.

    ``_pytest.python.CallSpec`` (8.4: ``CallSpec2``), a dataclass. When it goes: Allure shows legs as retries.
    """
    found = vars(python)
    cls = found.get("CallSpec") or found.get("CallSpec2")
    spec = item.__dict__.get("callspec") or (cls and cls())
    if spec is not None:
        item.callspec = dataclasses.replace(spec, params={**spec.params, name: value})
