"""Plugin of nested sessions: each report is what would arrive from a worker of xdist."""

from __future__ import annotations

from collections.abc import Generator

import execnet
import pytest


class Wire:
    """Sends reports there and back."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None]:
        """Put the values that arrive in the place of those that were sent; the object stays the same."""
        hook = self.config.hook
        sent = hook.pytest_report_to_serializable(config=self.config, report=report)
        arrived = hook.pytest_report_from_serializable(config=self.config, data=execnet.loads(execnet.dumps(sent)))
        report.__dict__ = arrived.__dict__
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Wire(config))
