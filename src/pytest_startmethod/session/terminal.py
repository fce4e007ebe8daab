"""The summary at the end of the session."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from .._compat import pytest as pytest_compat
from ..model import methods

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..model.leg_result import LegResult
    from .settings import Settings

ATTRIBUTE = "startmethod"
"""Where a test report carries its leg's result, as builtins: the controller of xdist sees nothing else."""


FOREIGN = "startmethod_foreign"
"""Where the report of a watched test that is no leg carries what it started past the default context."""


class Summary:
    """Gathers the legs' results from the reports; the same with xdist and without."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        # Asked now: from Python 3.14 on a leg would be taken for the interpreter.
        self.default = methods.default()
        self._failed: dict[str, list[pytest.TestReport]] = {}
        """Failures by node id, in order, of the last run."""
        self._last: dict[str, pytest.TestReport] = {}
        """The report that carries a leg's result, by node id."""
        self._verified: dict[str, float] = {}
        """What experiments cost."""
        self._gathered: dict[str, Any] = {}
        """By node id, as the reports had them: the last run of a leg that was run again counts."""
        self.foreign: list[dict[str, Any]] = []
        """Of tests that are no legs: what they started past the default context."""
        self._html_header: list[str] | None = None
        """The cells of the header of pytest-html's table, with one for the legs."""

    @property
    def results(self) -> dict[str, LegResult]:
        """The legs' results by node id."""
        from ..model.leg_result import LegResult

        return {nodeid: LegResult.from_dict(data) for nodeid, data in self._gathered.items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a finished leg's result."""
        self.foreign += getattr(report, FOREIGN, ())
        if report.when == "setup":
            self._failed.pop(report.nodeid, None)
        if report.failed:
            self._failed.setdefault(report.nodeid, []).append(report)
        data = getattr(report, ATTRIBUTE, None)
        if data is not None:
            self._last[report.nodeid] = report
            if not self._gathered:
                self._html_header = pytest_compat.html_table_header(self.config)
                if self._html_header is not None:
                    from ..report import pytest_html

                    self._html_header.append(pytest_html.HEADER)
            self._gathered[data["nodeid"]] = data
            if self._html_header is not None:
                self._add_to_pytest_html(report, data)

    # -- experiments -------------------------------------------------------------------------------------------------

    def amend(self, said: Mapping[str, Any]) -> None:
        """Put what the experiments of one process said into the reports of its legs, wherever these are held."""
        for name in ("verified", "runs", "seconds", "left_out", "interrupted"):
            self._verified[name] = self._verified.get(name, 0) + said[name]
        for leg in said["legs"]:
            self._amend(leg)

    def _amend(self, leg: Mapping[str, Any]) -> None:
        nodeid, result = leg["nodeid"], leg["result"]
        new = [(name, value) for name, value in leg["properties"]]
        old = {(name, value) for name, value in leg["before"]}
        texts = {}
        for report, sections in zip(self._failed.get(nodeid, ()), leg["sections"], strict=False):
            before = str(report.longrepr)
            pytest_compat.drop_sections(report, leg["titles"].__contains__)
            for title, text in sections:
                pytest_compat.add_section(report, title, text)
            texts[before] = str(report.longrepr)
        last = self._last.get(nodeid)
        if last is not None:
            self._gathered[nodeid] = last.startmethod = result  # type: ignore[attr-defined]
            last.user_properties[:] = [*(each for each in last.user_properties if tuple(each) not in old), *new]
        pytest_compat.replace_in_junit(self.config, texts, old, new)

    def _verified_line(self) -> str | None:
        """Return what the experiments cost, or None if there were none."""
        said = self._verified
        if not said.get("verified"):
            return None
        legs, runs = (_count(said["verified"], "failed leg"), _count(said["runs"], "run"))
        line = f"verified {legs} by {runs} in {said['seconds']:.1f} s"
        if said["left_out"]:
            line += f"; {_count(said['left_out'], 'more')} not, for lack of time (--start-methods-verify=SECONDS)"
        return f"{line}; interrupted" if said["interrupted"] else line

    # -- pytest-html -------------------------------------------------------------------------------------------------

    def _add_to_pytest_html(self, report: pytest.TestReport, data: Any) -> None:
        """Show what was found as an extra of the leg's row."""
        from ..model.leg_result import LegResult
        from ..report import pytest_html

        extra = pytest_html.extra(LegResult.from_dict(data), str(self.config.rootpath))
        if extra is not None:
            report.extras = [*getattr(report, "extras", ()), extra]  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Fill a leg's cell of the column."""
        data = self._gathered.get(report.nodeid)
        if self._html_header is not None and data is not None and cells:
            from ..model.leg_result import LegResult
            from ..report import pytest_html

            cells.append(pytest_html.cell(LegResult.from_dict(data)))

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int | pytest.ExitCode
    ) -> None:
        """Write the section, if any leg ran and the user did not ask for quiet."""
        if not self._gathered and not self.foreign:
            return
        if terminalreporter.verbosity >= 0 and not self.config.getoption("no_summary"):
            self._write_section(terminalreporter)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self._write_annotations(terminalreporter, int(exitstatus))

    def _write_section(self, terminalreporter: pytest.TerminalReporter) -> None:
        from ..report.results import in_order, summary_lines

        results = in_order(self.results.values())
        terminalreporter.ensure_newline()
        terminalreporter.section("start methods")
        root = str(self.config.rootpath)
        verbose = terminalreporter.verbosity > 0
        for line in summary_lines(results, root=root, verbose=verbose, foreign=self.foreign):
            for text, markup in painted(line):
                terminalreporter.write(text, **dict.fromkeys(markup, True))
            terminalreporter.write_line("")
        said = self._verified_line()
        if said is not None:
            terminalreporter.write_line(said)

    def _write_annotations(self, terminalreporter: pytest.TerminalReporter, status: int) -> None:
        from ..report import github
        from .report_files import model_of

        model = model_of(
            self.config,
            self.results.values(),
            default=self.default,
            methods=self.settings.methods,
            status=status,
        )
        for line in github.lines(model, os.environ.get("GITHUB_WORKSPACE")):
            terminalreporter.write_line(line)


def _count(number: float, what: str) -> str:
    return f"{number:.0f} {what}" if number == 1 or what == "more" else f"{number:.0f} {what}s"


_COLOURS = {
    "passed": "green",
    "failed": "red",
    "error": "red",
    "skipped": "yellow",
    "xfailed": "yellow",
    "xpassed": "yellow",
    "vacuous": "yellow",
    "flaky": "yellow",
    "passes": "green",
}
_PARTS = (
    (re.compile(r"^SM5\d\d [\w-]+|^SM\d{3} [\w-]+(?=: predicted )|^flaky(?=:)"), ("bold", "yellow")),
    (re.compile(r"^SM\d{3} [\w-]+|^no cause found(?=:)"), ("bold", "red")),
    (re.compile(r"^  fix:"), ("bold",)),
)


def painted(line: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Split a line of the summary into texts and the markup of each, in the words of pytest's terminal writer."""
    for pattern, markup in _PARTS:
        found = pattern.match(line)
        if found is not None:
            yield found[0], markup
            yield line[found.end() :], ()
            return
    if re.match(r"\d+ tests?: ", line) or re.match(r" {10,}passed\b", line):
        for part in re.split(r"(\d+ [a-z-]+(?: under [\w ]+ only)?(?=,|$)|\b[a-z]+\b)", line):
            yield part, _markup_of(part)
        return
    yield line, ()


def _markup_of(part: str) -> tuple[str, ...]:
    word = part.strip("0123456789 ")
    if word in _COLOURS:
        return (_COLOURS[word],)
    return ("red",) if word.startswith(("needs-fork", "fails")) else ()
