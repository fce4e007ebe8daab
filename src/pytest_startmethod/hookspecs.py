"""The hooks that other plugins and ``conftest.py`` files may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from .model.backends import Backend
    from .model.failed_leg import FailedLeg
    from .model.finding import Finding


def pytest_startmethod_diagnose(item: pytest.Item, failure: FailedLeg) -> Sequence[Finding] | None:
    """Return findings of your own for a leg that failed under spawn or forkserver, or None.

    Called once for each failed phase, after the plugin's own diagnosis (``failure.findings``). Your causes come after
    what kept a process from being pickled and before the plugin's other causes. Choose codes of your own (``DJ001``).
    An exception in the hook is named in the summary and leaves the test's outcome alone.
    """


def pytest_startmethod_backends(config: pytest.Config) -> Sequence[Backend]:
    """Return packages derived from multiprocessing, whose start methods can then be selected as ``name:spawn``.

    Called only when a method with a colon is named.
    """
    raise NotImplementedError  # a specification is never called
