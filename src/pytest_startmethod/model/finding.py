"""One diagnosed cause, and how it reads."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from .place import Place

WIDTH = 80
"""No line of a printed finding is wider, save a path or name that cannot be broken."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact behind a finding, as a part that reports can lay out: nobody parses it out of a sentence."""

    side: Literal["parent", "child", ""]
    """Whose fact it is, or empty where that makes no difference."""
    label: str
    """What it says: ``"value"``, ``"set"``, ``"read"``, ``"started"``, ``"captures"``..."""
    text: str
    """The value, name or source, as plain text."""
    place: Place | None = None
    """Where in the source, if it is a place."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnosed cause of a start-method difference.

    Every text is plain, so that a finding crosses processes as a dictionary of builtins.
    """

    code: str
    """A code of the catalogue: ``"SM103"``."""
    name: str
    """Its name: ``"unpicklable-object"``."""
    level: Literal["cause", "note"]
    """A cause may explain a failure; a note never does."""
    path: str
    """Where it hangs: ``"args[0].lock"``; for state a dotted name: ``"pkg.settings.DEBUG"``."""
    file: str | None
    """The source file that the finding points at, absolute, or None where none is known."""
    line: int | None
    """The line in `file`, counted from 1."""
    message: str
    """What happened, with the values, in one or two sentences."""
    evidence: tuple[str, ...] = ()
    """Facts that support the message, one a line, indented by the printer. A file in them is absolute."""
    fix: str = ""
    """What to do, in the imperative."""
    confirmed: bool | None = None
    """What an experiment said: True, False, or None where none was made."""
    facts: tuple[Fact, ...] = ()
    """What the message and the evidence are made of, for reports that lay it out."""

    @property
    def key(self) -> tuple[str, str, str | None, int | None]:
        """What makes two findings the same one, whatever an experiment said of them."""
        return self.code, self.path, self.file, self.line

    def __str__(self) -> str:
        """Return the finding as text of at most `WIDTH` columns."""
        return "\n".join(self.section_lines())

    def section_lines(self, root: str | None = None, *, titled: bool = True, method: str | None = None) -> list[str]:
        """Return the lines of the finding's text, with files below the directory `root` relative to it.

        Not `titled`: without code and name, for below a title that has them; the path stands beside the place.
        `method` is the start method of the leg, where an experiment is told of.
        """
        from .codes import CAUSES

        title = f"{self.code} {self.name}"
        lines = _wrap(f"{title}: {self.path}" if self.path else title, "", "    ") if titled else []
        place = None
        if self.file is not None:
            place = relative(self.file if self.line is None else f"{self.file}:{self.line}", root)
        if not titled and self.path:
            place = f"{place}: {self.path}" if place else self.path
        if place is not None:
            lines += [f"  {place}"] if titled else _wrap(place, "  ", "    ")
        lines += _wrap(relative(self.message, root), "  ", "  ")
        cause = CAUSES.get(self.code)
        if cause is not None and cause.why_fork and self.level == "cause":
            lines += _wrap(f"under fork: {cause.why_fork}", "  ", "    ")
        for fact in self.evidence:
            lines += _wrap(relative(fact, root), "  ", "    ")
        if self.confirmed is not None:
            lines += _wrap(self.experiment(method), "  ", "    ")
        if self.fix:
            lines += _wrap(relative(f"fix: {self.fix}", root), "  ", "    ")
        return lines

    def experiment(self, method: str | None = None) -> str:
        """Return in one line what an experiment said under `method`; empty if none was made."""
        if self.confirmed is None:
            return ""
        under = f" under {method}" if method else ""
        reaches = f"when {self.path or 'it'} reaches the child"
        if self.confirmed:
            return f"confirmed: the test passes{under} {reaches}"
        return f"cleared: the test fails the same way{under} {reaches}"

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as builtins that JSON can hold; `from_dict` is the way back."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        facts = [
            {
                "side": f.side,
                "label": f.label,
                "text": f.text,
                "file": f.place and f.place.file,
                "line": f.place and f.place.line,
            }
            for f in self.facts
        ]
        return {**values, "evidence": list(self.evidence), "facts": facts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """Return the finding that `as_dict` made `values` of; keys that it does not know are left out."""
        known = {each.name for each in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        facts = tuple(
            Fact(f["side"], f["label"], f["text"], Place(f["file"], f["line"]) if f["file"] else None)
            for f in kept.get("facts", ())
        )
        return cls(**{**kept, "evidence": tuple(kept.get("evidence", ())), "facts": facts})


def finding_at(
    code: str,
    path: str,
    place: Place | None,
    message: str,
    evidence: Iterable[str],
    fix: str,
    level: Literal["cause", "note"] = "cause",
) -> Finding:
    """Return a finding with the name of its code, which points at `place` if there is one."""
    from .codes import CAUSES

    file, line = (place.file, place.line) if place is not None else (None, None)
    return Finding(code, CAUSES[code].name, level, path, file, line, message, tuple(evidence), fix)


def section_lines(finding: Finding, root: str | None = None) -> list[str]:
    """Return the lines of the section below a failing test, with files below the directory `root` relative to it."""
    return finding.section_lines(root)


def _wrap(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first + text]


def relative(text: str, root: str | None) -> str:
    """Return `text` with paths below the directory `root` made relative to it; if that is all there is, they stay."""
    top = (root or "").rstrip(os.sep)
    # not in the middle of another path: /home/me/app is not below /app
    return re.sub(rf"(?<![\w.~/\\-]){re.escape(top + os.sep)}", "", text) if top else text
