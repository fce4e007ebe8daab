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

    Called once for each failed phase, after the plugin's own diagnosis, which is ``failure.findings``. Causes stand
    above the plugin's symptoms and below what kept a process from being pickled. Codes of your own (``DJ001``) are
    welcome. What the hook raises is named in the summary; the test's outcome is not touched.
    """


def pytest_startmethod_backends(config: pytest.Config) -> Sequence[Backend]:
    """Return the packages, made like multiprocessing, whose start methods may be selected as ``name:spawn``.

    Asked only when a method with a colon is named.
    """
    raise NotImplementedError  # a specification is never called
