"""The results of a session's legs, taken from the reports: the same with xdist and without."""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from .._compat import pytest as pytest_compat
from .._compat import pytest_silent
from ..model import methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model.leg_result import LegResult
    from .settings import Settings

ATTRIBUTE = "startmethod"
"""Where a test report carries its leg's result, as builtins: the controller of xdist sees nothing else."""

BELOW = "startmethod_below"
"""Where the report of a failed phase names the findings below it, as lists of their `Finding.key`."""

FOREIGN = "startmethod_foreign"
"""Where the report of a watched test that is no leg carries what it started past the default context."""

_LONGEST: Final = 20_000
"""Characters of a failure that are kept for the reports; the last ones say most."""

_clock = time.monotonic


class Results:
    """Keeps what the reports say of legs. One for a session; with xdist, on the controller."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        # Asked now: from Python 3.14 on a leg would be taken for the interpreter.
        self.default = methods.default()
        self.began = _clock()
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._data: dict[str, dict[str, Any]] = {}
        """Leg results by node id, as the reports had them: the last run of a leg that was run again counts."""
        self.fixed: list[dict[str, Any]] = []
        """Of tests that are no legs: what they started past the default context, and their node id as ``test``."""
        self._failed: dict[str, list[pytest.TestReport]] = {}
        """Failures by node id, in order, of the last run."""
        self._last: dict[str, pytest.TestReport] = {}
        """By node id the report that carries a leg's result."""
        self._verified: dict[str, float] = {}
        """What experiments cost."""
        self._failures: dict[str, str] = {}
        """By node id: what pytest prints of a failure, without our findings."""
        self._html_header: list[str] | None = None
        """The cells of the header of pytest-html's table, with one for the legs."""

    def __bool__(self) -> bool:
        return bool(self._data or self.fixed)

    @property
    def legs(self) -> list[LegResult]:
        """The legs' results, in order."""
        from ..model.leg_result import LegResult
        from ..report.verdicts import in_order

        return in_order(map(LegResult.from_dict, self._data.values()))

    def result(self, nodeid: str) -> LegResult | None:
        """Return one leg's result, if there is one."""
        from ..model.leg_result import LegResult

        return LegResult.from_dict(self._data[nodeid]) if nodeid in self._data else None

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
        for report, sections, keys in zip(self._failed.get(nodeid, ()), leg["sections"], leg["keys"], strict=False):
            before = str(report.longrepr)
            pytest_compat.drop_sections(report, leg["titles"].__contains__)
            for title, text in sections:
                pytest_compat.add_section(report, title, text)
            setattr(report, BELOW, keys)
            texts[before] = str(report.longrepr)
        last = self._last.get(nodeid)
        if last is not None:
            self._data[nodeid] = last.startmethod = result  # type: ignore[attr-defined]
            last.user_properties[:] = [*(each for each in last.user_properties if tuple(each) not in old), *new]
        pytest_silent.replace_in_junit(self.config, texts, old, new)
        pytest_silent.replace_in_pytest_html(self.config, nodeid, texts)

    @property
    def verified_line(self) -> str | None:
        """What the experiments cost, or None if there were none."""
        from ..report.text import count

        said = {name: round(number) for name, number in self._verified.items() if name != "seconds"}
        if not said.get("verified"):
            return None
        legs, runs = count(said["verified"], "failed leg"), count(said["runs"], "run")
        line = f"verified {legs} by {runs} in {self._verified['seconds']:.1f} s"
        if said["left_out"]:
            line += f"; {said['left_out']} more not, for lack of time (--start-methods-verify=SECONDS)"
        return f"{line}; interrupted" if said["interrupted"] else line

    # -- reports -----------------------------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a finished leg's result."""
        self.fixed += ({**each, "test": report.nodeid} for each in getattr(report, FOREIGN, ()))
        if report.when == "setup":
            self._failures.pop(report.nodeid, None)
            self._failed.pop(report.nodeid, None)
        if report.failed:
            self._failed.setdefault(report.nodeid, []).append(report)
        if report.failed and hasattr(report, BELOW):
            before = self._failures.get(report.nodeid, "")
            self._failures[report.nodeid] = f"{before}\n{pytest_compat.failure_text(report, ' SM')}"[-_LONGEST:].strip()
        data = getattr(report, ATTRIBUTE, None)
        if data is None:
            return
        if not self._data:
            self._html_header = pytest_compat.html_table_header(self.config)
            if self._html_header is not None:
                from ..report import pytest_html

                self._html_header.append(pytest_html.HEADER)
        self._data[data["nodeid"]] = data
        self._last[report.nodeid] = report
        if self._html_header is not None:
            self._add_to_pytest_html(report)

    def document(self, status: int) -> dict[str, Any]:
        """Return the session's report as builtins; `status` is pytest's exit status."""
        from importlib.metadata import version

        from ..report import document

        session = document.Session(
            root=str(self.config.rootpath),
            python=platform.python_version(),
            platform=sys.platform,
            default=self.default,
            methods=self.settings.methods,
            version=version("pytest-startmethod"),
            exit_status=status,
            command=("pytest", *map(os.fspath, self.config.invocation_params.args)),
            started=self.started,
            duration=round(_clock() - self.began, 3),
        )
        return document.build(self.legs, session, self.fixed, self._failures)

    # -- pytest-html -------------------------------------------------------------------------------------------------

    def _add_to_pytest_html(self, report: pytest.TestReport) -> None:
        """Show what does not stand below a failure as an extra of the leg's row."""
        from ..report import pytest_html

        leg = self.result(report.nodeid)
        extra = None if leg is None else pytest_html.extra(leg, str(self.config.rootpath))
        if extra is not None:
            report.extras = [*getattr(report, "extras", ()), extra]  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Fill a leg's cell of the column."""
        leg = self.result(report.nodeid)
        if self._html_header is not None and leg is not None and cells:
            from ..report import pytest_html

            cells.append(pytest_html.cell(leg))
