"""Run an item again after the session's last test: as another leg, or silently for an experiment."""

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
    """Run `item` as `leg`, through ``pytest_runtest_protocol`` as any test, with that leg's node id.

    `before` is what the item was like before its first run: marks, properties and attributes that a run adds are not
    there in the next one. Afterwards the item is as it was. `stash`: what else its stash has meanwhile.
    """
    with _as_leg(item, leg, before, stash or {}):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)


def run_silently(
    item: pytest.Item, leg: Leg, before: pytest_compat.ItemState, stash: Mapping[pytest.StashKey[Any], object]
) -> list[pytest.TestReport]:
    """Run `item` as `leg` and return its reports, of which nobody else learns; everything is torn down afterwards.

    Raises what ends a session: ``KeyboardInterrupt``, ``pytest.exit.Exception``.
    """
    with _as_leg(item, leg, before, stash):
        return pytest_silent.run_silently(item)


@contextmanager
def _as_leg(
    item: pytest.Item, leg: Leg, before: pytest_compat.ItemState, stash: Mapping[pytest.StashKey[Any], object]
) -> Iterator[None]:
    """Make `item` what it was before its first run, with the name of `leg`; then what it was before this one."""
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
    """Return `name`, which ends as `nodeid` does, with the end that `other` has."""
    shared = next((i for i, (a, b) in enumerate(zip(nodeid, other, strict=False)) if a != b), len(nodeid))
    end = nodeid[shared:]
    return name[: len(name) - len(end)] + other[shared:] if name.endswith(end) else name
