"""A plugin for nested sessions that makes each report what an xdist controller would receive."""

from __future__ import annotations

from collections.abc import Generator

import execnet
import pytest


class Wire:
    """Serializes and deserializes reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None]:
        """Replace the report's values by the deserialized ones, keeping the report object."""
        hook = self.config.hook
        sent = hook.pytest_report_to_serializable(config=self.config, report=report)
        arrived = hook.pytest_report_from_serializable(config=self.config, data=execnet.loads(execnet.dumps(sent)))
        report.__dict__ = arrived.__dict__
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Wire(config))
