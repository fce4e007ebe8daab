"""The result of a leg, as every report receives it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .finding import Finding
from .wire import Fields, Json

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
_LISTS = {"launches", "tasks", "troubles", "foreign", "planned"}
_FINDINGS = {"findings", "predictions"}


@dataclass(frozen=True, slots=True)
class LegResult:
    """One leg, finished."""

    nodeid: str
    test: str
    """The node id without the method."""
    method: str
    file: str
    line: int
    outcome: str
    """One of `OUTCOMES`."""
    duration: float = 0.0
    """Seconds of set-up, call and tear-down together."""
    message: str | None = None
    """The first line of what failed."""
    launches: tuple[Json, ...] = ()
    """`Launch.known` of each."""
    tasks: tuple[Json, ...] = ()
    vacuous: Finding | None = None
    findings: tuple[Finding, ...] = ()
    """Why the leg failed, or what it swallowed."""
    predictions: tuple[Finding, ...] = ()
    """Under fork: what would fail under spawn."""
    troubles: tuple[str, ...] = ()
    """Errors of the plugin itself, and warnings that could not be issued."""
    discovered: bool = False
    """Whether the test is unmarked and was found by discovery."""
    flaky: bool = False
    """Whether it failed and passed when run again unchanged."""
    foreign: tuple[Json, ...] = ()
    """Processes started outside the leg's method: kind, method, file, line, count, tasks."""
    planned: tuple[str, ...] = ()
    """The methods of all legs of the test in this run, deselected ones included; empty if unknown."""

    def as_dict(self) -> Json:
        """Return the result as builtins, for a report that crosses processes. What has its default is left out."""
        data = {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}
        for name in _LISTS & data.keys():
            data[name] = list(data[name])
        for name in _FINDINGS & data.keys():
            data[name] = [each.as_dict() for each in data[name]]
        if self.vacuous is not None:
            data["vacuous"] = self.vacuous.as_dict()
        return data

    @classmethod
    def from_dict(cls, data: Fields) -> LegResult:
        """Return the result that `as_dict` was made from."""
        values = dict(data)
        for name in _LISTS & data.keys():
            values[name] = tuple(data[name])
        for name in _FINDINGS & data.keys():
            values[name] = tuple(map(Finding.from_dict, data[name]))
        if "vacuous" in data:
            values["vacuous"] = Finding.from_dict(data["vacuous"])
        return cls(**values)


_DEFAULTS = {each.name: each.default for each in fields(LegResult)}
