"""Run a test again, under a start method of its own, as if nothing had run before it: every fixture is made anew."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

from .._compat import pytest as pytest_compat
from ..model.warning import StartMethodWarning
from .legs import LEG

if TYPE_CHECKING:
    from ..model.leg import Leg

_BEFORE = pytest.StashKey["pytest_compat.ItemState"]()
"""What an item was like before its first run."""


def remember(item: pytest.Item) -> None:
    """Keep what `item` is like before its first run, so that `run` can start from there.

    Without it, marks, properties and attributes that the first run added are there in the next one, too.
    """
    state = pytest_compat.item_state(item)
    item.stash[_BEFORE] = state


def run(
    item: pytest.Item,
    leg: Leg,
    *,
    nextitem: pytest.Item | None = None,
    silent: bool,
    stash: Mapping[pytest.StashKey[Any], object] | None = None,
    before: pytest_compat.ItemState | None = None,
) -> list[pytest.TestReport]:
    """Run `item` once more as `leg`, with fixtures of every scope made anew, and return its reports.

    Everything that is set up is torn down first, also what the next test would have shared; what fails there becomes a
    warning. With `nextitem` None everything is torn down after the run as well, within its own teardown.

    `silent`: only the reports tell of the run; the terminal, ``--durations``, ``--junitxml``, ``--lf``, ``-x`` and
    other plugins are not told, and the caller makes the leg's method the active one. Else the run goes through
    ``pytest_runtest_protocol``, and everybody sees an ordinary test with the leg's node id.

    `stash`: what else is in the item's stash during the run; what an earlier run put there is not. `before`: what the
    item was like before its first run, if not `remember` but the caller has kept that.

    The item is afterwards as it was. Raises what ends a session: ``KeyboardInterrupt``, ``pytest.exit.Exception``.
    """
    _tear_down(item)
    with _as_leg(item, leg, stash or {}, before):
        return _run_silently(item, nextitem) if silent else _run(item, nextitem)


def _tear_down(item: pytest.Item) -> None:
    """Tear down what is set up, as if `item` had been the session's last; a failure becomes a warning."""
    try:
        with pytest_compat.captured(item.config):
            pytest_compat.tear_down_all(item.session)
    except pytest.exit.Exception:
        raise
    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
        _warn(item, f"{item.nodeid} runs again with new fixtures, and tearing down the old ones failed: {_told(error)}")


def _told(error: BaseException) -> str:
    errors = getattr(error, "exceptions", ())
    if errors:
        return "; ".join(map(_told, errors))
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's own __str__
        text = "<its __str__ raised>"
    return f"{type(error).__name__}: {text}"


def _warn(item: pytest.Item, text: str) -> None:
    """Put a warning into pytest's summary, also where warnings are errors: no test is running that it could fail."""
    file, line, _ = item.location
    message: Any = warnings.WarningMessage(
        StartMethodWarning(text), StartMethodWarning, os.fspath(item.config.rootpath / file), (line or 0) + 1
    )
    item.ihook.pytest_warning_recorded.call_historic(
        kwargs={"warning_message": message, "nodeid": item.nodeid, "when": "runtest", "location": None}
    )


@contextmanager
def _as_leg(
    item: pytest.Item,
    leg: Leg,
    stash: Mapping[pytest.StashKey[Any], object],
    before: pytest_compat.ItemState | None,
) -> Iterator[None]:
    """Let `item` be what it was before its first run, with the name of `leg`; then as it was before this one."""
    nodeid, location = item.nodeid, item.location
    after = pytest_compat.item_state(item)
    pytest_compat.restore_item(item, before or item.stash.get(_BEFORE, after))
    pytest_compat.renew_instance(item)
    try:
        pytest_compat.rename(item, leg.nodeid, (*location[:2], _renamed(location[2], nodeid, leg.nodeid)))
        item.stash[LEG] = leg
        for key, value in stash.items():
            item.stash[key] = value
        with pytest_compat.hypothesis_may_run_again(item):
            yield
    finally:
        pytest_compat.restore_item(item, after)


def _renamed(name: str, nodeid: str, other: str) -> str:
    """Return `name`, which ends as `nodeid` does, with the end that `other` has."""
    shared = next((i for i, (a, b) in enumerate(zip(nodeid, other, strict=False)) if a != b), len(nodeid))
    end = nodeid[shared:]
    return name[: len(name) - len(end)] + other[shared:] if name.endswith(end) else name


class _Reports:
    """Gathers the reports of one node id."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a report."""
        if report.nodeid == self.nodeid:
            self.reports.append(report)


def _run(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    gathered = _Reports(item.nodeid)
    manager = item.config.pluginmanager
    manager.register(gathered)
    try:
        # As `Session.runtestloop` and xdist's workers do.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
    finally:
        manager.unregister(gathered)
    return gathered.reports


def _run_silently(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    with pytest_compat.warnings_of(item), pytest_compat.request_anew(item):
        reports = [_phase(item, "setup")]
        try:
            if reports[0].passed:
                reports.append(_phase(item, "call"))
        finally:
            reports.append(_phase(item, "teardown", nextitem=nextitem))
    return reports


def _phase(item: pytest.Item, when: Literal["setup", "call", "teardown"], **arguments: Any) -> pytest.TestReport:
    hook = getattr(item.ihook, f"pytest_runtest_{when}")
    call = pytest.CallInfo.from_call(
        lambda: hook(item=item, **arguments), when=when, reraise=(pytest.exit.Exception, KeyboardInterrupt)
    )
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    return report
