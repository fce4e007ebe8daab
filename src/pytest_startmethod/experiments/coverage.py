"""Keep coverage.py from measuring experiments, in this process and in its children."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .._compat import multiprocessing as mp
from ..activation.exchanges import Exchanges

_OF_CHILDREN = ("COVERAGE_PROCESS_", "COV_CORE_")
"""Environment variables that make child processes of coverage.py and pytest-cov measure themselves."""


@contextmanager
def suspended() -> Iterator[None]:
    """Pause coverage measurement within the context, if there is any."""
    module: object = sys.modules.get("coverage")
    current = getattr(getattr(module, "Coverage", None), "current", None)
    measuring = current() if current is not None else None
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_OF_CHILDREN)}
    exchanges = Exchanges()
    if measuring is not None:
        measuring.stop()
        exchanges.span("no coverage").put(mp.STDLIB.spawn, "get_preparation_data", _without_stowaway)
    try:
        yield
    finally:
        exchanges.undo()
        os.environ.update(kept)
        if measuring is not None:
            measuring.start()


def _without_stowaway(original: Callable[..., dict[str, object]]) -> Callable[..., dict[str, object]]:
    """Drop the entry that ``concurrency = multiprocessing`` adds to a spawn child's preparation data."""

    def get_preparation_data(name: str) -> dict[str, object]:
        data = original(name)
        data.pop("stowaway", None)
        return data

    return get_preparation_data
