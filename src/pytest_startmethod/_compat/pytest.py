"""Every use of a private name of pytest, one small function each.

All of them were checked on pytest 8.4.0 and 9.2.0.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import dataclasses
import functools
import importlib
import signal
import sys
import types
from typing import TYPE_CHECKING, Any, Protocol

from _pytest.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    import pytest


def names_in_closure(node: pytest.Item) -> dict[str, Sequence[Any]]:
    """Return the fixtures that `node` needs, by name: the definitions of that name, the closest one last.

    ``Function._fixtureinfo.name2fixturedefs``. When it goes: there is no public way to see a closure's definitions.
    """
    defs: dict[str, Sequence[Any]] = node._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return defs


def resolves_to(definitions: Sequence[Any], name: str, function: Callable[..., Any]) -> bool:
    """Return whether a request for `name` reaches the fixture made from `function`.

    An overriding fixture that requests its own name gets the fixture it overrides: ``FixtureRequest``
    (`_get_active_fixturedef`) walks the definitions backwards. ``FixtureDef.func`` and ``argnames`` are public.
    """
    for definition in reversed(definitions):
        if definition.func is function:
            return True
        if name not in definition.argnames:
            return False
    return False


def add_to_closure(node: pytest.Item, name: str, function: Callable[..., object]) -> None:
    """Make `node` need the fixture `name`, and of that name only the one made from `function`.

    A ``usefixtures`` mark would do the same in public, and would have to sit on the user's function or class,
    where other tests inherit it; and the closure of a test is computed before ``pytest_generate_tests`` is called.
    ``FuncFixtureInfo`` keeps the names twice: ``names_closure`` is what runs, and is pruned to what
    ``initialnames`` reaches (`prune_dependency_tree`). When it goes: a mark on the collector.
    """
    info = node._fixtureinfo  # type: ignore[attr-defined]
    make_indirect(node, name, function)
    info.names_closure.insert(0, name)
    object.__setattr__(info, "initialnames", (name, *info.initialnames))


def make_indirect(node: pytest.Item, name: str, function: Callable[..., object]) -> None:
    """Let a request for `name` in `node` reach the fixture made from `function`, and nothing else.

    Where the test parametrizes `name` directly, pytest has put a function-scoped stand-in for the fixture there,
    which a fixture of wider scope may not request (8.4 calls it a pseudo fixture, 9 `DirectParamFixtureDef`).
    """
    definitions = node.session._fixturemanager.getfixturedefs(name, node) or ()
    closure = names_in_closure(node)
    closure[name] = [found for found in definitions if found.func is function]


def is_direct(metafunc: pytest.Metafunc, name: str) -> bool:
    """Return whether a test parametrizes `name` as an argument, not as what a fixture gets.

    The stand-in's function is the same for all, and its module is pytest's.
    """
    definitions = metafunc._arg2fixturedefs.get(name, ())
    return bool(definitions) and definitions[-1].func.__module__ == "_pytest.python"


def metafunc_of(function: Any) -> pytest.Metafunc:
    """Return a ``Metafunc`` for a collected test function, as pytest makes for plain functions only.

    ``Metafunc(..., _ispytest=True)``: the constructor is private, the class is not.
    When it goes: `TestCase` legs need a callspec made by hand.
    """
    from _pytest.python import Metafunc

    return Metafunc(
        definition=function,
        fixtureinfo=function._fixtureinfo,
        config=function.config,
        cls=function.cls,
        module=function.module,
        _ispytest=True,
    )


def callspecs(metafunc: pytest.Metafunc) -> list[Any]:
    """Return the parameter sets of all ``metafunc.parametrize`` calls so far (``Metafunc._calls``)."""
    return metafunc._calls


def put_first(metafunc: pytest.Metafunc, name: str, indices: dict[object, int], ids: Sequence[object]) -> None:
    """Make the parameter that was added last, `name`, the outermost one: first in the ids, slowest to change.

    `ids` are that parameter's, as given to ``parametrize``: those that are not strings are hidden.
    ``CallSpec`` (8.4: ``CallSpec2``): `params`, `indices`, and `_idlist`, one id for each ``parametrize`` call.
    `indices` gives each value the same index in every test: 8.4 groups the tests by it, 9 by the value.
    When it goes: parametrize first, and let a suite that parametrizes the name in ``pytest_generate_tests`` fail.
    """
    calls: list[list[Any]] = [[] for _ in ids]
    for position, call in enumerate(metafunc._calls):
        which = position % len(ids)
        hidden = not isinstance(ids[which], str)
        idlist = call._idlist if hidden else [*call._idlist[-1:], *call._idlist[:-1]]
        index = {**call.indices, name: indices.get(call.params[name], len(indices))}
        calls[which].append(dataclasses.replace(call, _idlist=idlist, indices=index))
    metafunc._calls[:] = [call for group in calls for call in group]


def id_parts(callspec: Any) -> list[str]:
    """Return a callspec's ids, one for each ``parametrize`` call that has one (``CallSpec._idlist``)."""
    return list(callspec._idlist)


def parameter_scopes(item: pytest.Item) -> dict[str, Any]:
    """Return the scope of each parameter, by which pytest groups the tests (``CallSpec._arg2scope``)."""
    scopes: dict[str, Any] = item.callspec._arg2scope  # type: ignore[attr-defined]
    return scopes


def is_testcase(collector: pytest.Collector) -> bool:
    """Return whether `collector` stands for a ``unittest.TestCase`` class (``_pytest.unittest.UnitTestCase``)."""
    # Absent with `-p no:unittest`.
    module = sys.modules.get("_pytest.unittest")
    return module is not None and isinstance(collector, module.UnitTestCase)


class _TestCaseLeg:
    """What makes a ``TestCaseFunction`` a leg: its name is not the name of the method.

    ``TestCaseFunction._getinstance`` and ``runtest`` use `name` where they mean `originalname`.
    """

    name: str
    originalname: str
    parent: Any
    config: pytest.Config
    obj: Any
    instance: object

    def _getinstance(self) -> object:
        return self.parent.obj(self.originalname)

    def runtest(self) -> None:
        from _pytest.compat import is_async_function

        if is_async_function(self.obj):
            super().runtest()  # type: ignore[misc]
            return
        # pytest puts the function under the item's name, so that what wraps `item.obj` is what runs.
        function = self.obj
        if self.config.getoption("trace", False):
            # pytest wraps `obj` only later, inside `runtest`.
            function = functools.wraps(function)(lambda *args, **kwargs: self.obj(*args, **kwargs))
        setattr(self.instance, self.originalname, function)
        try:
            super().runtest()  # type: ignore[misc]
        finally:
            delattr(self.instance, self.originalname)


@functools.cache
def _leg_class(function_class: Any) -> Any:
    # Of the same name, so that `--collect-only` shows what it always showed.
    return type(function_class.__name__, (_TestCaseLeg, function_class), {})


def testcase_legs(function: Any, metafunc: pytest.Metafunc) -> Iterator[Any]:
    """Yield one item for each parameter set of `metafunc` in place of a ``TestCaseFunction``."""
    function_class: Any = type(function)
    for call in metafunc._calls:
        yield _leg_class(function_class).from_parent(
            function.parent,
            name=f"{function.name}[{call.id}]" if call._idlist else function.name,
            originalname=function.name,
            callspec=call,
            fixtureinfo=function._fixtureinfo,
            keywords={call.id: True},
        )


def twin(collector: Any) -> Any:
    """Return a second collector of the same class, name and parent, with the same marks.

    Also those that another plugin put on the node, which are not on its object.
    """
    node = type(collector).from_parent(collector.parent, name=collector.name, obj=collector.obj)
    node.obj  # noqa: B018 - reading it collects the object's marks, which must not happen after the next line
    node.own_markers[:] = collector.own_markers
    node.keywords.update((mark.name, mark) for mark in collector.own_markers)
    node.extra_keyword_matches.update(collector.extra_keyword_matches)
    return node


def finish_fixture(item: pytest.Item, name: str) -> None:
    """Tear down the fixture `name`, as far as `item` knows it, and all that was made with it.

    ``FixtureDef.finish``, which pytest itself calls when a parameter changes.
    When it goes: fixtures of the last leg are torn down while the next one is set up.
    """
    for definition in reversed(names_in_closure(item).get(name, ())):
        if definition.cached_result is not None:
            definition.finish(item._request)  # type: ignore[attr-defined]


def requesting_item(request: pytest.FixtureRequest) -> pytest.Item:
    """Return the item that a fixture is made for (``FixtureRequest._pyfuncitem``; public only in function scope)."""
    return request._pyfuncitem


def exception_group(message: str, errors: list[BaseException]) -> BaseException:
    """Return a ``BaseExceptionGroup``, on 3.10 that of the backport which pytest requires there."""
    group = getattr(builtins, "BaseExceptionGroup", None)
    if group is None:
        group = importlib.import_module("exceptiongroup").BaseExceptionGroup
    grouped: BaseException = group(message, errors)
    return grouped


def hide_frames(item: pytest.Item, hidden: Callable[[str], bool]) -> None:
    """Leave frames out of a failing item's tracebacks where `hidden` returns True for their file.

    ``Node._traceback_filter`` is called for each cause and context, but not with ``--full-trace``. Setting it costs an
    item 1 kB. When it goes: filter ``excinfo.traceback`` in ``pytest_runtest_makereport``.
    """
    original = getattr(item, "_traceback_filter", None)
    if original is None or "_traceback_filter" in vars(item):
        return

    def filtered(excinfo: object) -> Any:
        traceback = original(excinfo)
        kept = traceback.filter(lambda entry: not hidden(str(entry.path)))
        return kept if kept else traceback

    item._traceback_filter = filtered  # type: ignore[method-assign]


def add_section(report: pytest.TestReport, title: str, text: str) -> None:
    """Put a section below a failure: it survives ``--show-capture=no``, xdist and every ``--tb`` but ``no``.

    ``longrepr.addsection`` of ``ExceptionRepr``; a failure that is plain text, or of another kind, gets a captured
    section instead (``TestReport.sections``).
    """
    add = getattr(report.longrepr, "addsection", None)
    if add is not None:
        add(title, text, "-")
    else:
        report.sections.append((title, text))


def drop_sections(report: pytest.TestReport, titles: Callable[[str], bool]) -> None:
    """Take sections away that `add_section` put below a failure (``ExceptionRepr.sections``)."""
    sections = getattr(report.longrepr, "sections", None)
    if isinstance(sections, list):
        sections[:] = [each for each in sections if not titles(str(each[0]))]
    report.sections[:] = [each for each in report.sections if not titles(str(each[0]))]


def entries(report: Any) -> Sequence[Any]:
    """Return the entries of a failed report's traceback (``ReprTraceback.reprentries``); none of a plain text."""
    return getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", ())


def raised_at(report: object, hidden: Callable[[str], bool]) -> tuple[str, int] | None:
    """Return the ``reprfileloc`` of the last entry of a failed report's traceback that `hidden` does not leave out."""
    places = [getattr(entry, "reprfileloc", None) for entry in entries(report)]
    return next(((each.path, each.lineno) for each in reversed(places) if each and not hidden(each.path)), None)


def failure_text(report: Any, dropped: str) -> str:
    """Return what the terminal prints of a failed report, without sections that have `dropped` in their titles."""
    shown = copy.copy(report.longrepr)
    if hasattr(shown, "sections"):
        shown.sections = [each for each in shown.sections if dropped not in str(each[0])]
    return str(shown).strip("\n")


class Tail(Protocol):
    """What follows a failure in the terminal."""

    @property
    def line_only(self) -> bool:
        """Whether ``--tb=line`` was given."""

    @property
    def short(self) -> bool:
        """Whether the traceback is left out."""

    @property
    def codes(self) -> str:
        """What stands behind the line of ``--tb=line``."""

    def replaces(self, title: str) -> bool:
        """Return whether it takes the place of the section `title`."""

    def __call__(self, writer: object) -> None:
        """Write it to a terminal writer."""


def shown_otherwise(report: Any, tail: Tail) -> Any:
    """Return a copy of a failed report that is printed with `tail` in place of the sections that it replaces.

    ``TestReport.toterminal`` calls that of ``longrepr``, and the short summary and ``--tb=line`` read
    ``longrepr.reprcrash`` (``ReprFileLocation``). When it goes: the report's own sections are shown.
    """
    shown = copy.copy(report)
    shown.sections = [each for each in report.sections if not tail.replaces(str(each[0]))]
    if tail.short:
        shown.sections = []
    shown.longrepr = _ShownOtherwise(report, tail)
    return shown


class _ShownOtherwise:
    """Stands for a ``longrepr`` (``ExceptionRepr``, or a string)."""

    def __init__(self, report: Any, tail: Tail) -> None:
        self._report = report
        self._tail = tail
        self.reprcrash = getattr(report.longrepr, "reprcrash", None)
        if tail.line_only and tail.codes and self.reprcrash is not None:
            first = next(iter(self.reprcrash.message.splitlines()), "")
            self.reprcrash = dataclasses.replace(self.reprcrash, message=f"{first} [{tail.codes}]")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._report.longrepr, name)

    def __str__(self) -> str:
        return str(self._report.longrepr)

    def toterminal(self, writer: Any) -> None:
        """Write the failure and the tail."""
        original = self._report.longrepr
        if self._tail.line_only:
            return
        if self._tail.short:
            self._write_shortly(writer)
        elif hasattr(original, "toterminal"):
            shown = copy.copy(original)
            sections = getattr(original, "sections", ())  # FixtureLookupErrorRepr has none
            shown.sections = [each for each in sections if not self._tail.replaces(str(each[0]))]
            shown.toterminal(writer)
        else:
            writer.line(str(original))
        self._tail(writer)

    def _write_shortly(self, writer: Any) -> None:
        """Write the test's own line, and what the failure says."""
        entry = entries(self._report)[0]
        source = next((line[1:].strip() for line in entry.lines if line.startswith(">")), "")
        place = getattr(entry, "reprfileloc", None)
        if place is not None:
            writer.line(f"{place.path}:{place.lineno}: {source}")
        message = next(iter(self.reprcrash.message.splitlines()), "") if self.reprcrash is not None else ""
        writer.line(f"E   {message}", red=True, bold=True)


def _pytest_timeout(config: pytest.Config) -> Any:
    manager = config.pluginmanager
    return manager.get_plugin("timeout") or manager.get_plugin("pytest_timeout")  # as an entry point, or with -p


def has_pytest_timeout(config: pytest.Config) -> bool:
    """Say whether pytest-timeout is there."""
    return _pytest_timeout(config) is not None


def pytest_timeout_of(item: pytest.Item) -> float:
    """Return the limit in seconds that pytest-timeout has for an item; 0 without one, or without the plugin.

    ``pytest_timeout._get_item_settings`` (2.2 to 2.4). When it goes: both limits count, and the shorter one rules.
    """
    settings = getattr(_pytest_timeout(item.config), "_get_item_settings", None)
    if settings is None:
        return 0.0
    try:
        return float(settings(item).timeout or 0.0)
    except Exception:
        return 0.0


def pytest_timeout_left() -> float | None:
    """Return the seconds until pytest-timeout's alarm; None where its clock does not run, or is a thread.

    The handler of SIGALRM that ``pytest_timeout`` (2.2 to 2.4) sets. When it goes: a slow fixture lets its alarm come
    before we have looked.
    """
    if not hasattr(signal, "setitimer"):
        return None
    theirs = getattr(signal.getsignal(signal.SIGALRM), "__module__", None) == "pytest_timeout"
    return (signal.getitimer(signal.ITIMER_REAL)[0] or None) if theirs else None


_SHOWN_NOTES = 8


def shorten_notes(report: pytest.TestReport) -> None:
    """Cut the notes that 3.14 adds to a pickling error, one for each level: a deep object has a hundred thousand.

    ``ReprEntry.lines`` and ``ReprFileLocation.message`` of the ``ExceptionRepr``. When they go: the notes are shown.
    """
    longrepr: Any = report.longrepr
    for chained in getattr(longrepr, "chain", ()):
        for entry in getattr(chained[0], "reprentries", ()):
            lines = getattr(entry, "lines", None)
            if isinstance(lines, list):
                lines[:] = _without_most_notes(lines)
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None and crash.message.count("\n") > _SHOWN_NOTES:
        crash.message = "\n".join(_without_most_notes(crash.message.split("\n")))


def _without_most_notes(lines: list[str]) -> list[str]:
    notes = [index for index, line in enumerate(lines) if line.lstrip("E ").startswith("when serializing ")]
    hidden = notes[_SHOWN_NOTES:-1]
    if not hidden:
        return lines
    prefix = lines[hidden[0]][: len(lines[hidden[0]]) - len(lines[hidden[0]].lstrip("E "))]
    more = f"{prefix}... {len(hidden)} more levels (--full-trace shows them)"
    return [*lines[: hidden[0]], more, *lines[hidden[-1] + 1 :]]


def html_table_header(config: pytest.Config) -> list[str] | None:
    """Return the cells of the header of pytest-html's table, or None if it writes no report here.

    ``BaseReport._report.table_header``, pytest-html 4. Its hook is called when the session starts, and whether there
    are legs is known after collection only. When it goes: that hook, and a column in every report.
    """
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__module__.startswith("pytest_html."):
            header = getattr(getattr(plugin, "_report", None), "table_header", None)
            if isinstance(header, list):
                return header
    return None


# -- running an item again -------------------------------------------------------------------------------------------

_MADE_ANEW = frozenset({"_request", "funcargs", "_obj", "_instance", "_report_sections"})
"""Attributes of an item that `renew_instance` or pytest's own ``runtestprotocol`` makes anew."""


_ID = "_id" if hasattr(Node, "_id") else "_nodeid"
"""Where a node keeps its id: a ``NodeId`` since 9.2, a string before."""


class ItemState:
    """What a run may change in an item: node id, attributes, stash, marks, keywords, ``record_property``."""

    __slots__ = ("attributes", "id", "keywords", "marks", "properties", "stash")

    def __init__(self, item: Any) -> None:
        self.id = getattr(item, _ID)
        self.attributes = item.__dict__.copy()
        self.stash = item.stash._storage.copy()
        self.marks = item.own_markers.copy()
        self.keywords = item.keywords._markers.copy()
        self.properties = item.user_properties.copy()


def item_state(item: pytest.Item) -> ItemState:
    """Return what a run may change in `item`, to be given to `restore_item`.

    ``Stash._storage`` and ``NodeKeywords._markers`` are the dicts behind them.
    When they go: a run sees the marks and stash of the one before.
    """
    return ItemState(item)


def restore_item(item: Any, state: ItemState) -> None:
    """Put `state` back, and forget captured output (``Item._report_sections``)."""
    attributes = item.__dict__
    for name in [each for each in attributes if each not in state.attributes and each not in _MADE_ANEW]:
        del attributes[name]
    attributes.update((name, value) for name, value in state.attributes.items() if name not in _MADE_ANEW)
    for target, values in ((item.stash._storage, state.stash), (item.keywords._markers, state.keywords)):
        target.clear()
        target.update(values)
    setattr(item, _ID, state.id)
    item.own_markers[:] = state.marks
    item.user_properties[:] = state.properties
    item._report_sections.clear()


def rename(item: object, nodeid: str, location: tuple[str, int | None, str]) -> None:
    """Give `item` another node id, and the location that failures are titled by; its name stays.

    ``Node._id`` or ``_nodeid``, and the cached property ``Item.location``. When they go: nothing tells legs apart.
    """
    before = getattr(item, _ID)
    setattr(item, _ID, nodeid if isinstance(before, str) else type(before).parse(nodeid))
    item.__dict__["location"] = location


def renew_instance(item: Any) -> None:
    """Give a method of a plain class a new instance, as every test has: a ``TestCase`` gets one by itself.

    ``Function._instance`` and ``_obj``; where a plugin has put something else into `_obj`, both stay.
    """
    instance, function = item.__dict__.get("_instance"), item.__dict__.get("_obj")
    if instance is not None and type(function) is types.MethodType and function.__self__ is instance:
        item._instance = item._getinstance()
        item._obj = types.MethodType(function.__func__, item._instance)


def write_past_capture(config: pytest.Config, lines: list[str]) -> None:
    """Write to the terminal in the middle of a test (``CaptureManager``). When it goes: only with ``-s``."""
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            terminal.write_line("\n".join(["", *lines]))
            terminal.flush()


@contextlib.contextmanager
def hypothesis_may_run_again(item: object) -> Iterator[None]:
    """Let Hypothesis accept that a method of a class is called with another instance than the first.

    It does so itself for parametrized tests, by the same attribute, ``_hypothesis_internal_use_settings``: see
    https://github.com/HypothesisWorks/hypothesis/issues/3733. When it goes: such a method fails its health check.
    """
    hypothesis: Any = sys.modules.get("hypothesis")
    function = getattr(getattr(item, "obj", None), "__func__", None)
    if hypothesis is None or not getattr(function, "is_hypothesis_test", False):
        yield
        return
    name = "_hypothesis_internal_use_settings"
    theirs = getattr(function, name, None)
    parent = theirs or hypothesis.settings.default
    suppressed = {hypothesis.HealthCheck.differing_executors, *parent.suppress_health_check}
    setattr(function, name, hypothesis.settings(parent, suppress_health_check=suppressed))
    try:
        yield
    finally:
        if theirs is None:
            delattr(function, name)
        else:
            setattr(function, name, theirs)


def nodeid_with(item: Any, method: str) -> str:
    """Return the node id of `item` with `method` as its first parameter: ``test_x[1]`` becomes ``test_x[spawn-1]``.

    ``CallSpec._idlist``, see `id_parts`. xdist's ``--dist=loadgroup`` appends ``@group`` to node ids.
    """
    callspec = getattr(item, "callspec", None)
    parts = id_parts(callspec) if callspec is not None else []
    ids = "-".join(parts)
    name = item.name
    has_ids = bool(parts) and name.endswith(f"[{ids}]")
    renamed = f"{name.removesuffix(f'[{ids}]')}[{method}-{ids}]" if has_ids else f"{name}[{method}]"
    before, found, after = item.nodeid.rpartition(name)
    return f"{before}{renamed}{after}" if found else f"{item.nodeid}[{method}]"


def blame(config: pytest.Config, report: pytest.TestReport, nodeid: str) -> None:
    """Let ``--lf`` and ``--sw`` take the test `nodeid` for what failed in `report`, which is of no collected test.

    ``LFPlugin.lastfailed`` and ``StepwisePlugin.cached_info.last_failed``; both hold a ``NodeId`` since 9.2.
    When they go: the next run with these options says that it does not know the test, and runs all.
    """
    theirs: Any = getattr(report, "id", report.nodeid)
    key = nodeid if isinstance(theirs, str) else type(theirs).parse(nodeid)
    last_failed = getattr(config.pluginmanager.get_plugin("lfplugin"), "lastfailed", None)
    if last_failed is not None and last_failed.pop(theirs, None):
        last_failed[key] = True
    stepwise = getattr(config.pluginmanager.get_plugin("stepwiseplugin"), "cached_info", None)
    if stepwise is not None and stepwise.last_failed == theirs:
        stepwise.last_failed = key


def fixture_being_set_up(frame: FrameType | None) -> object:
    """Return the ``FixtureDef`` that is being set up where `frame` is called from, the innermost; or None.

    ``_pytest.fixtures.pytest_fixture_setup`` has it in a local variable. When it goes: it is not said whose process
    it is that a fixture of an unmarked test started.
    """
    from _pytest.fixtures import pytest_fixture_setup

    while frame is not None:
        if frame.f_code is pytest_fixture_setup.__code__:
            return frame.f_locals.get("fixturedef")
        frame = frame.f_back
    return None
