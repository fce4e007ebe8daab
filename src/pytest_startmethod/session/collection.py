"""Turn marked tests into legs: one item per start method, with the marker's settings in its stash."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from .._compat import pytest as pytest_compat
from ..model import methods
from ..model.leg import Leg
from ..model.warning import StartMethodWarning
from . import backends
from .fixtures import mp_context_value, start_method_value
from .legs import LEG
from .options import MARKER, MISSPELT, header_lines
from .settings import Marker, Settings, SettingsError, from_config, parse_marker

if TYPE_CHECKING:
    from .results import Results
    from .running import Running

NAME: Final = "start_method"

SETTINGS = pytest.StashKey[Settings]()
"""The run's options, in ``config.stash`` after the first `settings_of` call."""

RUNNING = pytest.StashKey["Running"]()
"""The hooks that run legs, in ``config.stash`` once registered."""

_INDICES: Final[dict[object, int]] = {method: index for index, method in enumerate(methods.ORDER)}
"""Index of a method among the session's parameters. Backends' methods are appended when first used."""
_SCOPES: Final = ("function", "class", "module", "package", "session")


_NOTHING_LEFT: Final = object()
"""The parameter of a test without legs. A sentinel, since a test's own parameter may be any value, even None."""

_NO_LEG = pytest.StashKey[bool]()
"""Set on a marked item that is deliberately not a leg, only a skip with a reason."""


def settings_of(config: pytest.Config) -> Settings:
    """Return the run's options.

    Raises:
        pytest.UsageError: an option is invalid; the message is one line.

    """
    if SETTINGS not in config.stash:
        try:
            config.stash[SETTINGS] = from_config(config)
        except SettingsError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[SETTINGS]


def marker_of(node: pytest.Item) -> Marker | None:
    """Return the settings of the closest marker of `node`, or None if it has none.

    Raises:
        pytest.Collector.CollectError: the marker is invalid; the message names the test and the valid values.

    """
    mark = _closest(node)
    if mark is None:
        return None
    try:
        return parse_marker(mark.args, mark.kwargs, lambda: backends.known(node.config))
    except (SettingsError, backends.BackendError) as error:
        raise pytest.Collector.CollectError(f"{node.nodeid}: @pytest.mark.{MARKER}: {error}") from None


def refuse_misspelt(node: pytest.Item | pytest.Collector) -> None:
    """Reject the package's name used as a marker: the test would silently run only once.

    Raises:
        pytest.Collector.CollectError: the test has that marker.

    """
    if node.get_closest_marker(MISSPELT) is not None:
        raise pytest.Collector.CollectError(f"{node.nodeid}: @pytest.mark.{MISSPELT}: did you mean {MARKER}?")


def _closest(node: pytest.Item) -> pytest.Mark | None:
    for owner, mark in node.iter_markers_with_node(MARKER):
        closest: pytest.Mark = mark
        if not isinstance(owner, pytest.Class):
            return closest
        # pytest lists a class's marks from the farthest base on, so the class's own would come last.
        for cls in owner.obj.__mro__:
            marks = cls.__dict__.get("pytestmark", ())
            for own in marks if isinstance(marks, list) else [marks]:
                # `pytestmark` may hold both marks and mark decorators.
                found = getattr(own, "mark", own)
                if isinstance(found, pytest.Mark) and found.name == MARKER:
                    return found
        return closest
    return None


def _opted_in(node: pytest.Item) -> bool:
    """Return whether `node` uses our ``start_method`` fixture, directly or through another fixture."""
    definitions = pytest_compat.names_in_closure(node).get(NAME, ())
    return pytest_compat.resolves_to(definitions, NAME, start_method_value)


def _needs_our_context(node: pytest.Item) -> bool:
    """Return whether `node` uses our ``mp_context``, whichever ``start_method`` it has."""
    definitions = pytest_compat.names_in_closure(node).get("mp_context", ())
    return pytest_compat.resolves_to(definitions, "mp_context", mp_context_value)


def _dependent(node: pytest.Item) -> list[Any]:
    """Return the definitions of the fixtures of `node` that depend on the start method."""
    closure = pytest_compat.names_in_closure(node)
    ours = (start_method_value, mp_context_value)
    dependent: dict[str, bool] = {NAME: True}

    def depends(name: str) -> bool:
        if name not in dependent:
            dependent[name] = False  # preliminary: a fixture may request the one it overrides
            dependent[name] = any(depends(arg) for found in closure.get(name, ()) for arg in found.argnames)
        return dependent[name]

    return [
        found
        for name, definitions in closure.items()
        if depends(name)
        for found in definitions
        if found.func not in ours
    ]


def _scope(node: pytest.Item) -> str:
    """Return the widest scope of the fixtures of `node` that depend on the start method.

    For ``function``, pytest keeps the order of the tests; for wider scopes it groups the tests by method.
    """
    return _SCOPES[max((_SCOPES.index(found.scope) for found in _dependent(node)), default=0)]


def _share_scopes(legs: Iterable[pytest.Item]) -> None:
    """Give legs that share a fixture the widest scope among them: grouped apart, each group would build it anew."""
    scopes = {leg: pytest_compat.parameter_scopes(leg) for leg in legs}
    if len({each[NAME] for each in scopes.values()}) < 2:
        return
    sharing: dict[object, list[dict[str, Any]]] = {}
    for leg, own in scopes.items():
        places = {"class": (leg.path, getattr(leg, "cls", None)), "module": leg.path, "package": leg.path.parent}
        for found in _dependent(leg):
            if found.scope in places:
                sharing.setdefault((found, places[found.scope]), []).append(own)
    changed = True
    while changed:  # a widened leg may share another fixture
        changed = False
        for group in sharing.values():
            widest = max(own[NAME] for own in group)
            for own in group:
                changed |= own[NAME] != widest
                own[NAME] = widest


def _params(marker: Marker | None, settings: Settings) -> list[Any]:
    """Return the ``pytest.param`` values of a test's start methods; if none is left, a single skip."""
    marker = marker or Marker()
    names = [named.method for named in marker.methods]
    params = []
    for method in methods.choose(names, settings.selection):
        named = marker.named(method)
        params.append(pytest.param(method, marks=named.marks, id=named.node_id))
    if not params:
        reason = methods.nothing_left_reason(names, settings.selection, settings.source)
        params.append(pytest.param(_NOTHING_LEFT, marks=pytest.mark.skip(reason=reason), id=pytest.HIDDEN_PARAM))
    return params


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Make legs of a marked test function, or of one that requests ``start_method``.

    Runs after every other ``pytest_generate_tests``, so that a test that parametrizes ``start_method`` itself keeps
    its own values.

    Raises:
        pytest.Collector.CollectError: the marker is invalid.

    """
    node = metafunc.definition
    marker = marker_of(node)
    opted_in = _opted_in(node)
    if marker is None and not opted_in and not _needs_our_context(node):
        return
    if any(NAME in call.params for call in pytest_compat.callspecs(metafunc)):
        if pytest_compat.is_direct(metafunc, NAME):
            # Same values, but fixtures of any scope may now depend on them.
            pytest_compat.make_indirect(node, NAME, start_method_value)
        return
    if not opted_in and (marker is None or NAME in metafunc.fixturenames):
        return  # a user-defined fixture; `report_left_out` warns about it
    if not opted_in:
        pytest_compat.add_to_closure(node, NAME, start_method_value)
    _add_parameter(metafunc, node, _params(marker, settings_of(metafunc.config)))


def _add_parameter(metafunc: pytest.Metafunc, node: pytest.Item, params: list[Any]) -> None:
    metafunc.parametrize(NAME, params, indirect=True, scope=_scope(node))  # type: ignore[arg-type]
    for param in params:
        _INDICES.setdefault(param.values[0], len(_INDICES))
    pytest_compat.put_first(metafunc, NAME, _INDICES, [param.id for param in params])


def expand_report(collector: pytest.Collector, report: pytest.CollectReport) -> None:
    """Replace the marked tests of a ``unittest.TestCase`` class by their legs, unless only fixtures are listed.

    pytest 9 sorts the definitions for that list, and cannot compare those of two collectors of one class.
    """
    if not pytest_compat.is_testcase(collector) or collector.config.getoption("showfixtures"):
        return
    try:
        report.result = _expand_testcase(collector, report.result or [])
    except pytest.Collector.CollectError as error:
        report.outcome, report.longrepr, report.result = "failed", str(error), []


def _expand_testcase(collector: pytest.Collector, collected: Sequence[pytest.Item | pytest.Collector]) -> list[Any]:
    """Return what a ``unittest.TestCase`` class collects: unmarked tests unchanged, and legs of the others.

    The legs of each method have a class collector of their own, so that class-scoped setup such as ``setUpClass`` runs
    once per method.

    Raises:
        pytest.Collector.CollectError: a marker is invalid.

    """
    settings = settings_of(collector.config)
    unchanged: list[object] = []
    params: dict[str, list[Any]] = {}
    for function in collected:
        if isinstance(function, pytest.Item):
            refuse_misspelt(function)
        marker = marker_of(function) if isinstance(function, pytest.Function) else None
        if not isinstance(function, pytest.Function) or (marker is None and not _opted_in(function)):
            unchanged.append(function)
            continue
        found = _params(marker, settings)
        if found[0].values == (_NOTHING_LEFT,):
            for mark in found[0].marks:
                function.add_marker(mark)
            function.stash[_NO_LEG] = True
            unchanged.append(function)
        elif not _opted_in(function) and NAME in function.fixturenames:
            unchanged.append(function)
        else:
            params[function.name] = found
    legs = [
        leg
        for method in methods.in_order(param.values[0] for found in params.values() for param in found)
        for leg in _testcase_legs(collector, method, params)
    ]
    return [*unchanged, *legs]


def _testcase_legs(collector: pytest.Collector, method: str, params: dict[str, list[Any]]) -> Iterator[Any]:
    for function in pytest_compat.twin(collector).collect():
        chosen = [param for param in params.get(function.name, ()) if param.values == (method,)]
        if not chosen:
            continue
        if not _opted_in(function):
            pytest_compat.add_to_closure(function, NAME, start_method_value)
        metafunc = pytest_compat.metafunc_of(function)
        _add_parameter(metafunc, function, chosen)
        yield from pytest_compat.testcase_legs(function, metafunc)


def stash_legs(config: pytest.Config, items: Sequence[pytest.Item]) -> int:
    """Stash the `Leg` of every item that is one, prepare to run them, and return the number of items that concern us.

    `items` are those that are marked or request a fixture named ``start_method``.

    Raises:
        pytest.UsageError: a marker added after collection is invalid.

    """
    settings = settings_of(config)
    legs = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        try:
            if callspec is not None and NAME in callspec.params and _make_leg(item, callspec, settings):
                legs.append(item)
        except pytest.Collector.CollectError as error:
            raise pytest.UsageError(str(error)) from None
    _share_scopes(legs)
    _plan(items)
    if legs and not config.getoption("collectonly"):
        register_running(config, settings)
    return sum(LEG in item.stash or _NO_LEG in item.stash or _closest(item) is not None for item in items)


def _plan(items: Sequence[pytest.Item]) -> None:
    """Record in each leg the methods of all legs of its test."""
    planned: dict[str, list[str]] = {}
    for item in items:
        if LEG in item.stash:
            planned.setdefault(item.stash[LEG].test, []).append(item.stash[LEG].method)
    for item in items:
        if LEG in item.stash:
            leg = item.stash[LEG]
            item.stash[LEG] = replace(leg, planned=tuple(planned[leg.test]))


def register_running(config: pytest.Config, settings: Settings, temporary: str | None = None) -> Running:
    """Register the hooks that run legs, once per session and only when there is a leg.

    `temporary` is the temporary directory to use if a test may have redirected it by now.
    """
    if RUNNING in config.stash:
        return config.stash[RUNNING]
    from . import running

    manager = config.pluginmanager
    hooks = config.stash[RUNNING] = running.Running(config, settings, temporary)
    if not settings.discover:  # with discovery few tests are legs, and `discovery` registers the hooks for each
        manager.register(hooks, "startmethod-running")
    register_summary(config)
    return hooks


def register_summary(config: pytest.Config) -> Results | None:
    """Register what collects the legs' results, and return it; None on an xdist worker."""
    if hasattr(config, "workerinput"):
        return None
    manager = config.pluginmanager
    found: Results | None = manager.get_plugin("startmethod-results")
    if found is None:
        from . import results, terminal

        found = results.Results(config, settings_of(config))
        shown = terminal.Terminal(config, found)
        manager.register(found, "startmethod-results")
        manager.register(shown, "startmethod-terminal")
        manager.register(terminal.Inner(shown), "startmethod-summary")
    return found


def header(config: pytest.Config) -> list[str]:
    """Return the header lines."""
    return header_lines(methods.default(), settings_of(config).methods)


def register_files(config: pytest.Config) -> None:
    """Register the writer of the report files, except on xdist workers."""
    from . import report_files

    results = register_summary(config)
    if results is not None and not config.pluginmanager.has_plugin("startmethod-files"):
        config.pluginmanager.register(report_files.Files(config, settings_of(config), results), "startmethod-files")


def _make_leg(item: pytest.Item, callspec: Any, settings: Settings) -> bool:
    """Stash the leg of an item with a ``start_method`` parameter; return whether it is one."""
    marker = marker_of(item)
    ours = _opted_in(item)
    if marker is None and not ours:
        return False
    method = callspec.params[NAME]
    if method is _NOTHING_LEFT:
        item.stash[_NO_LEG] = True
        return False
    if type(method) is not str or methods.problem(method, lambda: backends.known(item.config)) is not None:
        return False
    marker = marker or Marker()
    named = marker.named(method)
    # Our own legs already carry their marks; those parametrized by the user do not.
    for mark in named.marks:
        if getattr(mark, "mark", mark) not in callspec.marks:
            item.add_marker(mark)
    _skip_unless_selected(item, method, settings)
    file, line, _ = item.location
    item.stash[LEG] = Leg(
        nodeid=item.nodeid,
        test=_without_method(item.nodeid, pytest_compat.id_parts(callspec), (named.node_id, method)),
        method=method,
        file=file,
        line=(line or 0) + 1,
        vacuous=marker.vacuous or settings.vacuous,
        timeout=marker.timeout,
    )
    return True


def _skip_unless_selected(item: pytest.Item, method: str, settings: Settings) -> None:
    reason = backends.unavailable_reason(item.config, method)
    if reason is not None:
        item.add_marker(pytest.mark.skip(reason=reason))
    elif settings.selection != methods.ALL and method not in methods.selected(settings.selection):
        # Only for tests with their own parameters: ours are chosen from the selected methods.
        reason = methods.unselected_reason(method, settings.selection, settings.source)
        item.add_marker(pytest.mark.skip(reason=reason))


def _without_method(nodeid: str, parts: Sequence[str], ids: Sequence[object]) -> str:
    """Return a leg's node id without the method's part.

    `parts` are the ids of its ``parametrize`` calls, `ids` the possible ids of the method.
    A user's own ``parametrize("start_method,x", ...)`` has both in one part: ``spawn-1``.
    """
    suffix = f"[{'-'.join(parts)}]"
    if not nodeid.endswith(suffix):
        return nodeid
    for pieces in (list(parts), "-".join(parts).split("-")):
        for id_ in ids:
            if id_ in pieces:
                pieces.remove(str(id_))
                base = nodeid.removesuffix(suffix)
                return f"{base}[{'-'.join(pieces)}]" if pieces else base
    return nodeid


def report_left_out(items: Sequence[pytest.Item]) -> None:
    """Warn about marked items that are not legs and so run only once; one warning per reason and file.

    Raises:
        pytest.UsageError: the warning is an error in this run.

    """
    found: dict[tuple[str, object], list[pytest.Item]] = {}
    for item in items:
        if LEG not in item.stash and _NO_LEG not in item.stash:
            found.setdefault((_why_left_out(item), item.path), []).append(item)
    for (why, _), left_out in found.items():
        more = f" (and {len(left_out) - 1} more in this file)" if len(left_out) > 1 else ""
        first = left_out[0]
        text = f"{first.nodeid}{more} is marked {MARKER} and runs only once: {why}"
        file, line, _ = first.location
        try:
            # not `Item.warn`, which requires every item to have a line
            warnings.warn_explicit(StartMethodWarning(text), None, file, (line or 0) + 1)
        except StartMethodWarning as warning:
            raise pytest.UsageError(str(warning)) from None


def _why_left_out(item: pytest.Item) -> str:
    if not isinstance(item, pytest.Function):
        return f"legs are made of test functions, and this is of type {type(item).__name__}"
    callspec = getattr(item, "callspec", None)
    if callspec is not None and NAME in callspec.params:
        return f"its own parameter start_method is not one of {', '.join(methods.ORDER)}"
    definitions = pytest_compat.names_in_closure(item).get(NAME, ())
    if definitions and not _opted_in(item):
        code = getattr(definitions[-1].func, "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        return f"another fixture named start_method{where} hides the plugin's; rename it"
    return "the marker was added too late, when the test had been collected"
