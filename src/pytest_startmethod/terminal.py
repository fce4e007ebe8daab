"""The summary at the end of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from .report import LegResult

ATTRIBUTE = "startmethod"
"""Where a test report carries its leg's result, as builtins: the controller of xdist sees nothing else."""


class Summary:
    """Gathers the legs' results from the reports; the same with xdist and without."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results: dict[str, LegResult] = {}
        """By node id: the last run of a leg that was run again counts."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a finished leg's result."""
        data = getattr(report, ATTRIBUTE, None)
        if data is not None:
            from .report import LegResult

            result = LegResult.from_dict(data)
            self.results[result.nodeid] = result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the section, if any leg ran and the user did not ask for quiet."""
        if not self.results or terminalreporter.verbosity < 0:
            return
        from .report import in_order, summary_lines

        results = in_order(self.results.values())
        terminalreporter.section("start methods")
        root = str(self.config.rootpath)
        for line in summary_lines(results, root=root, verbose=terminalreporter.verbosity > 0):
            terminalreporter.write_line(line)
