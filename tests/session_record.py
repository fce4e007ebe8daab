"""A plugin for nested sessions that records each test's outcome for the outer test."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest


def _write(entry: dict[str, object]) -> None:
    with open(os.environ["SESSION_RECORD"], "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr or "")


class Recorder:
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome: str = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = {"skipped": "xfailed", "passed": "xpassed"}[outcome]
        elif outcome == "failed" and report.when != "call":
            outcome = "error"
        if report.when == "call" or outcome != "passed":
            _write({"nodeid": report.nodeid, "outcome": outcome, "reason": _reason(report)})

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        from pytest_startmethod.session.legs import LEG

        yield
        for item in items:
            leg = item.stash.get(LEG, None)
            entry = {"item": item.nodeid, "kind": type(item).__name__}
            if leg is not None:
                entry["leg"] = {name: getattr(leg, name) for name in type(leg).__slots__}
            _write(entry)


def pytest_configure(config: pytest.Config) -> None:
    # Under xdist only the controller's reports count; all workers collect the same items.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())
