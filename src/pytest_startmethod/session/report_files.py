"""``--start-methods-report``: choose the report files and write them."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from ..model.wire import Json
    from .results import Results
    from .settings import Settings

SUFFIXES: Final = (".json", ".html", ".md", ".sarif")


def checked(text: str, base: Path) -> str:
    """Return the absolute path of a report file.

    Raises:
        ValueError: the file cannot be written; the message names the path and the problem.

    """
    path = Path(os.path.normpath(base / os.path.expanduser(os.path.expandvars(text))))
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{text!r} has no known suffix (valid: {', '.join(SUFFIXES)})")
    if needs_jinja(text):
        raise ValueError(f"{text!r} needs Jinja2, which is not installed: pip install 'pytest-startmethod[html]'")
    if path.is_dir():
        raise ValueError(f"{text!r} is a directory")
    if not path.parent.is_dir():
        raise ValueError(f"{text!r} cannot be written: there is no directory {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{text!r} cannot be written: no permission to write in {str(path.parent)!r}")
    return str(path)


def write(path: str, text: str) -> None:
    """Write a file atomically.

    Raises:
        OSError: the file could not be written; any previous content is intact.

    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def render(path: str, model: Json) -> str:
    """Return the report in the format given by the suffix of `path`."""
    suffix = Path(path).suffix.lower()
    if suffix in (".md", ".html"):
        from ..report.links import Links

        links = Links.of(os.environ, model["rootdir"])
        if suffix == ".md":
            from ..report import markdown

            return markdown.text(model, links)
        from ..report import html

        return html.text(model, links)
    if suffix == ".sarif":
        from ..report import sarif

        model = sarif.log(model)
    return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def needs_jinja(path: str) -> bool:
    """Return whether a report needs Jinja2 (the ``html`` extra) and it is not installed."""
    return Path(path).suffix.lower() == ".html" and importlib.util.find_spec("jinja2") is None


class Files:
    """Writes the reports when the session ends, however it ends. With xdist, only on the controller."""

    def __init__(self, config: pytest.Config, settings: Settings, results: Results) -> None:
        self.config = config
        self.settings = settings
        self.results = results
        self.started = False
        self.lines: list[str] = []
        """Lines to print at the end."""

    def pytest_sessionstart(self) -> None:
        """Note that there is a session to report on."""
        self.started = not self.config.getoption("collectonly")

    # first, so that the file exists when the summary names it
    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int | pytest.ExitCode) -> None:
        """Write the reports."""
        self._write(int(exitstatus))

    def pytest_unconfigure(self) -> None:
        """Write the reports if the session did not finish."""
        self._write(int(pytest.ExitCode.INTERNAL_ERROR))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print where the reports are."""
        for line in self.lines:
            terminalreporter.write_line(line, red=" was not written: " in line)

    def _write(self, status: int) -> None:
        if not self.started:
            return
        self.started = False
        model = self.results.document(status)
        for path in self.settings.reports:
            try:
                write(path, render(path, model))
                self.lines.append(f"start methods report: {path}")
            except Exception as trouble:
                self.lines.append(f"start methods report: {path} was not written: {type(trouble).__name__}: {trouble}")
