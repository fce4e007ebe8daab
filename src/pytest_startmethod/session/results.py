"""Results of the session's legs, read from the test reports: the same with and without xdist."""

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
    from ..model.leg_result import LegResult
    from ..model.wire import Fields, Json
    from .settings import Settings

ATTRIBUTE = "startmethod"
"""Report attribute with the leg's result as builtins; an xdist controller receives nothing else."""

BELOW = "startmethod_below"
"""Report attribute with the findings shown below the failure, as lists of their `Finding.key`."""

FOREIGN = "startmethod_foreign"
"""Report attribute of a watched test that is not a leg: what it started outside the default context."""

_LONGEST: Final = 20_000
"""Number of characters of a failure kept for the reports, counted from the end, which says most."""

_UNLIKE: Final = ("nodeid", "args", "message", "text")
"""Keys of texts that differ from leg to leg."""

_clock = time.monotonic


class Results:
    """Collects the results of legs from reports. One per session; with xdist, on the controller."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        # Read now: from Python 3.14 on, a leg's method would be mistaken for the interpreter's default.
        self.default = methods.default()
        self.began = _clock()
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._data: dict[str, Json] = {}
        """Leg results by node id, as in the reports. A re-run replaces the earlier result."""
        self.fixed: list[Json] = []
        """What tests that are not legs started outside the default context, with their node id as ``test``."""
        self._failed: dict[str, list[pytest.TestReport]] = {}
        """Failing reports of the last run by node id, in order."""
        self._last: dict[str, pytest.TestReport] = {}
        """The report that carries the leg's result, by node id."""
        self._verified: dict[str, float] = {}
        self._failures: dict[str, str] = {}
        """pytest's text of each failure by node id, without our findings."""
        self._texts: dict[str, str] = {}
        """Texts that many legs share, on the controller of xdist."""
        self._html_header: list[str] | None = None
        """Header cells of pytest-html's table, including ours."""

    def __bool__(self) -> bool:
        return bool(self._data or self.fixed)

    @property
    def legs(self) -> list[LegResult]:
        """Results of the legs, in order."""
        from ..model.leg_result import LegResult
        from ..report.verdicts import in_order

        return in_order(map(LegResult.from_dict, self._data.values()))

    def result(self, nodeid: str) -> LegResult | None:
        """Return a leg's result, or None."""
        from ..model.leg_result import LegResult

        return LegResult.from_dict(self._data[nodeid]) if nodeid in self._data else None

    # -- experiments -------------------------------------------------------------------------------------------------

    def amend(self, said: Fields) -> None:
        """Update the legs' reports with the experiments of one process, everywhere pytest and its plugins keep them."""
        for name in ("verified", "runs", "seconds", "left_out", "interrupted"):
            self._verified[name] = self._verified.get(name, 0) + said.get(name, 0)
        for leg in said["legs"]:
            self._amend(leg)

    def _amend(self, leg: Fields) -> None:
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
            self._data[nodeid] = result
            setattr(last, ATTRIBUTE, result)
            last.user_properties[:] = [*(each for each in last.user_properties if tuple(each) not in old), *new]
        pytest_silent.replace_in_junit(self.config, texts, old, new)
        pytest_silent.replace_in_pytest_html(self.config, nodeid, texts)

    @property
    def verified_line(self) -> str | None:
        """The cost of the experiments in one line, or None if none was needed."""
        from ..report.text import count

        said = {name: round(number) for name, number in self._verified.items() if name != "seconds"}
        if not any(said.get(name) for name in ("runs", "left_out", "interrupted")):
            return None
        legs, runs = count(said["verified"], "failed leg"), count(said["runs"], "run")
        line = f"{legs} verified in {runs}, {self._verified['seconds']:.1f} s"
        if said["left_out"]:
            line += f"; {said['left_out']} left out or cut short for lack of time (--start-methods-verify=SECONDS)"
        return f"{line}; interrupted" if said["interrupted"] else line

    # -- reports -----------------------------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result of a finished leg."""
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
        if hasattr(report, "node"):  # of xdist's controller, which received a copy of each text with each report
            data = self._shared(data)
            setattr(report, ATTRIBUTE, data)
        if not self._data:
            self._html_header = pytest_compat.html_table_header(self.config)
            if self._html_header is not None:
                from ..report import pytest_html

                self._html_header.append(pytest_html.HEADER)
        self._data[data["nodeid"]] = data
        self._last[report.nodeid] = report
        if self._html_header is not None:
            self._add_to_pytest_html(report)

    def _shared(self, data: Json) -> Json:
        """Return an equal dictionary whose keys, and texts that are the same for many legs, exist once."""
        return {self._texts.setdefault(key, key): self._share(key, value) for key, value in data.items()}

    def _share(self, key: str, value: Any) -> Any:
        if type(value) is dict:
            return self._shared(value)
        if type(value) is list:
            return [self._share(key, each) for each in value]
        return self._texts.setdefault(value, value) if type(value) is str and key not in _UNLIKE else value

    def document(self, status: int) -> Json:
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
        """Attach findings not shown below a failure to the leg's row as an extra."""
        from ..report import pytest_html

        leg = self.result(report.nodeid)
        extra = None if leg is None else pytest_html.extra(leg, str(self.config.rootpath))
        if extra is not None:
            report.extras = [*getattr(report, "extras", ()), extra]  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Fill the leg's cell in our column."""
        leg = self.result(report.nodeid)
        if self._html_header is not None and leg is not None and cells:
            from ..report import pytest_html

            cells.append(pytest_html.cell(leg))
