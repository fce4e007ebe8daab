"""Terminal output at the end: failures with their causes, each explained once, and the summary."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from .._compat import pytest as pytest_compat
from ..model.finding import WIDTH, relative
from ..model.methods import rank
from .results import BELOW

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from ..model.leg_result import LegResult
    from ..report.groups import Told
    from ..report.text import Line
    from .results import Results

_MARKUP: Final = {
    "cause": {"red": True, "bold": True},
    "note": {"yellow": True, "bold": True},
    "fix": {"green": True, "bold": True},
    "good": {"green": True},
    "bad": {"red": True},
    "warn": {"yellow": True},
    "strong": {"bold": True},
    "mark": {"red": True, "bold": True},
    "quiet": {"light": True},
}
"""Markup of pytest's terminal writer by `Line` style."""

_FAILURES: Final = ("failed", "error")


def write(writer: Any, lines: Iterable[Line]) -> None:
    """Write lines with their styles to a terminal writer or reporter."""
    for each in lines:
        for text, style in each.spans:
            writer.write(text, **_MARKUP.get(style, {}))
        writer.write("\n")


class Terminal:
    """Prints failures of legs as prepared by `Shown`, then the section ``start methods``.

    The reports are not modified. The terminal's lists hold copies while it prints failures, and omit duplicates while
    it prints the short summary. In between, `Inner` restores the originals for other plugins.
    """

    def __init__(self, config: pytest.Config, results: Results) -> None:
        self.config = config
        self.results = results
        self._kept: dict[str, list[Any]] = {}
        """The terminal's original lists."""
        self._shown: Shown | None = None

    # Outermost: wraps the terminal's own implementation.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, object, object]:
        """Give the terminal copies to print."""
        stats = terminalreporter.stats
        self._kept = {word: stats[word] for word in _FAILURES if stats.get(word)}
        if self.results and self._kept:
            try:
                self._shown = Shown(self.results, terminalreporter, self._kept)
                stats.update(self._shown.copies)
            except Exception as trouble:  # the unmodified reports say the same
                terminalreporter.write_line(f"pytest-startmethod: {type(trouble).__name__} in Shown: {trouble}")
        try:
            return (yield)
        finally:
            stats.update(self._kept)
            chars = terminalreporter.reportchars
            if self._shown is not None and self._shown.folded and not {"f", "E"}.isdisjoint(chars):
                number = len(self._shown.folded)
                terminalreporter.write_line(
                    f"and {number} more {'leg' if number == 1 else 'legs'} of these tests, failing the same way (-v)"
                )

    def between(self, reporter: pytest.TerminalReporter, status: int) -> None:
        """Restore the terminal's reports, and write the section, or one line at ``-q``."""
        reporter.stats.update(self._kept)
        if not self.results:
            return
        if reporter.verbosity >= -1 and not self.config.getoption("no_summary"):
            self._write_section(reporter)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from ..report import github

            document = self.results.document(status)
            for line in github.lines(document, os.environ.get("GITHUB_WORKSPACE")):
                reporter.write_line(line)

    def fold(self, reporter: pytest.TerminalReporter) -> None:
        """Omit duplicate failures from the short summary."""
        if self._shown is not None and self._shown.folded:
            for word, reports in self._kept.items():
                reporter.stats[word] = [each for each in reports if id(each) not in self._shown.folded]

    def _write_section(self, reporter: pytest.TerminalReporter) -> None:
        from ..report import summary

        legs = self.results.legs
        reporter.ensure_newline()
        if reporter.verbosity < 0:
            if legs:
                write(reporter, [summary.quiet_line(legs)])
            return
        reporter.section("start methods")
        told = summary.Summary(legs, str(self.config.rootpath), self.results.fixed, width_of(reporter))
        write(reporter, told.lines(verbose=reporter.verbosity > 0))
        verified = self.results.verified_line
        if verified is not None:
            reporter.write_line(verified)
        self._write_markers(reporter, legs)

    def _write_markers(self, reporter: pytest.TerminalReporter, legs: list[LegResult]) -> None:
        """Write, at ``-v``, the xfail markers that make a marked suite pass until it is fixed."""
        from . import markers

        settings = self.results.settings
        lines = markers.xfail_lines(legs, settings.methods, every=settings.selection == "all")
        if lines and reporter.verbosity > 0:
            reporter.section("start methods: markers until these are fixed")
            for line in lines:
                reporter.write_line(line)


class Inner:
    """Runs between the terminal's failures and its short summary."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    # Innermost: wraps every implementation except the terminal's own.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, object, object]:
        """Write the section before those of other plugins."""
        self.terminal.between(terminalreporter, int(exitstatus))
        result = yield
        self.terminal.fold(terminalreporter)
        return result


def width_of(reporter: Any) -> int:
    """Return the line width: that of the terminal, within readable limits."""
    from ..report.text import WIDEST

    wide: int = reporter._tw.fullwidth
    return max(WIDTH, min(WIDEST, wide))


class Shown:
    """Copies of failing reports for the terminal, with the results of experiments.

    Each cause is explained once. The same failure of a test under several methods is shown once. The traceback is left
    out if another test failed at the same line with the same error and causes. ``-v`` shows everything, and ``-q``
    a line for each cause.
    """

    def __init__(self, results: Results, reporter: pytest.TerminalReporter, failures: Mapping[str, list[Any]]) -> None:
        self.results = results
        self.root = str(reporter.config.rootpath)
        self.style: str = reporter.config.getoption("tbstyle", "auto")
        self.verbosity = reporter.verbosity
        self.width = width_of(reporter)
        self.folded: set[int] = set()
        """Ids of the duplicate reports."""
        self._tails: dict[object, _Tail] = {}
        """What is shown below the first report, by test, phase, failure and findings."""
        self._explained: dict[object, str] = {}
        """Node id of the failure below which a finding is explained, by finding."""
        self.copies = {word: [*self._copied(reports)] for word, reports in failures.items()}

    def _copied(self, reports: list[Any]) -> Iterator[Any]:
        for report in reports:
            leg = self.results.result(report.nodeid) if hasattr(report, BELOW) else None
            if leg is None:
                yield report
                continue
            tail = self._tail(report, leg)
            if tail.leg is not leg:
                tail.twins.append(leg)
                self.folded.add(id(report))
            else:
                yield pytest_compat.shown_otherwise(report, tail)

    def _tail(self, report: Any, leg: LegResult) -> _Tail:
        """Return what to show below a report, or below the one it duplicates."""
        from ..report import groups

        keys = {tuple(each) for each in getattr(report, BELOW)}
        told = groups.told(each for each in leg.findings if each.key in keys)
        new = _Tail(leg, told, self)
        if self.verbosity > 0 or self.style == "line":
            return new
        died = (_failure(report), tuple(groups.identity(each.finding) for each in told))
        tail = self._tails.setdefault((leg.test, report.when, died), new)
        if tail is new and told and _is_deep(report):
            new.like = self._tails.setdefault(died, new).leg.nodeid
        return tail

    def explained(self, told: Told, nodeid: str) -> str:
        """Return the node id of the failure below which a finding is explained."""
        from ..report import groups

        return nodeid if self.verbosity > 1 else self._explained.setdefault(groups.identity(told.finding), nodeid)


def _failure(report: Any) -> object:
    """Return where and why a phase failed, without details that differ between runs.

    The place is the user's: pytest shows what lies below it in a test's own run, and not in a leg.
    """
    from .running import below_start

    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else str(report.longrepr)
    return pytest_compat.raised_at(report, below_start), re.sub(
        r"\b0x[0-9a-fA-F]+\b|\d{3,}|\b(fork|spawn|forkserver)\b", "", message
    )


def _is_deep(report: object) -> bool:
    """Return whether a failure was raised in a function that the test called."""
    return len(pytest_compat.entries(report)) > 1


class _Tail:
    """Text shown below a failure in place of the report's sections."""

    def __init__(self, leg: LegResult, told: list[Told], shown: Shown) -> None:
        self.leg = leg
        self.told = told
        self.shown = shown
        self.like = leg.nodeid
        """Node id of the failure with the same traceback and causes."""
        self.twins: list[LegResult] = []
        """Legs of the same test that failed in the same way."""

    @property
    def line_only(self) -> bool:
        """Whether the terminal prints failures as single lines."""
        return self.shown.style == "line"

    @property
    def short(self) -> bool:
        """Whether the traceback is left out."""
        return self.like != self.leg.nodeid

    def replaces(self, title: str) -> bool:
        """Return whether a section of the report is replaced by this text."""
        before, _, rest = title.partition(f"start method {self.leg.method}: ")
        known = {f"{each.code} {each.name}" for each in self.leg.findings}
        return not before and (rest in known or re.match(r"SM\d{3} ", rest) is not None)

    @property
    def codes(self) -> str:
        """Codes and names of the findings."""
        from ..report import section

        return section.named(self.told)

    def __call__(self, writer: Any) -> None:
        from ..report import section
        from ..report.text import line, listed, styled, wrap

        width = self.shown.width
        quiet = self.shown.verbosity < 0
        for each in self.told if quiet and not self.short else ():
            place = f": {relative(each.finding.place, self.shown.root)}" if each.finding.place else ""
            name = section.named([each])
            write(writer, styled([f"{name}{place}"], name, "cause"))
        for each in self.told if not quiet and not self.short else ():
            first = self.shown.explained(each, self.leg.nodeid)
            writer.sep("-", section.title(each, self.leg.method), **_MARKUP["cause"])
            if first == self.leg.nodeid:
                write(writer, self._section(each))
            else:
                write(writer, map(line, wrap(f"as explained below {first}", width=width)))
        if self.short:
            text = f"{self.codes}: same failure and cause as {self.like}"
            write(writer, styled(wrap(text, width=width), self.codes, "cause"))
        if self.twins:
            cause = " and cause" if self.told else ""
            methods = listed(sorted((leg.method for leg in self.twins), key=rank))
            write(writer, [line(f"  same failure{cause} under {methods}", "strong")])

    def _section(self, told: Told) -> list[Line]:
        from ..report import section

        shown = self.shown
        return section.lines(
            told, root=shown.root, method=self.leg.method, verbose=shown.verbosity > 0, width=shown.width
        )
