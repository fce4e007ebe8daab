"""Re-run an item after the session's last test: as another leg, or silently for an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .._compat import pytest as pytest_compat
from .._compat import pytest_silent
from .legs import LEG

if TYPE_CHECKING:
    from ..model.leg import Leg


def run(
    item: pytest.Item,
    leg: Leg,
    before: pytest_compat.ItemState,
    *,
    nextitem: pytest.Item | None = None,
    stash: Mapping[pytest.StashKey[Any], object] | None = None,
) -> None:
    """Run `item` as `leg`, with the leg's node id, through ``pytest_runtest_protocol`` like any test.

    `before` is the item's state before its first run, so that marks, properties and attributes added by one run are
    absent from the next. `stash` holds extra entries for the item's stash. The item is restored afterwards.
    """
    with _as_leg(item, leg, before, stash or {}):
        pytest_silent.add_parameter(item, "start_method", leg.method)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)


def run_silently(
    item: pytest.Item, leg: Leg, before: pytest_compat.ItemState, stash: Mapping[pytest.StashKey[Any], object]
) -> list[pytest.TestReport]:
    """Run `item` as `leg`, tear everything down, and return its reports without publishing them.

    Exceptions that end a session propagate: ``KeyboardInterrupt``, ``pytest.exit.Exception``.
    """
    with _as_leg(item, leg, before, stash):
        return pytest_silent.run_silently(item)


@contextmanager
def _as_leg(
    item: pytest.Item, leg: Leg, before: pytest_compat.ItemState, stash: Mapping[pytest.StashKey[object], object]
) -> Iterator[None]:
    """Reset `item` to its state before the first run and rename it to `leg`; restore it on exit."""
    nodeid, location = item.nodeid, item.location
    after = pytest_compat.item_state(item)
    pytest_compat.restore_item(item, before)
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
    """Return `name`, which ends like `nodeid`, with the ending of `other` instead."""
    shared = next((i for i, (a, b) in enumerate(zip(nodeid, other, strict=False)) if a != b), len(nodeid))
    end = nodeid[shared:]
    return name[: len(name) - len(end)] + other[shared:] if name.endswith(end) else name
