"""One diagnosed cause, and how it reads."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from .place import Place, file_and_line
from .wire import Fields, Json

EVERY_METHOD = "tasks of a pool or executor and messages are pickled under every start method, fork included"
WIDTH = 80
"""No line of a printed finding is wider, save a path or name that cannot be broken."""
COPIED: Final = ("SM108", "SM204")
"""Codes whose experiment adds the cause, under fork, instead of removing it."""

NEEDED: Final = "needed"
"""Label of the fact that multiprocessing itself needs what was replaced: such a patch breaks the parent."""

MASK: Final = "<masked>"
_SECRET: Final = re.compile(
    r"pass(?:word|wd|phrase)|secret|token|credential|(?:^|_)pwd(?:$|_)|(?:^|_)key$|(?:api|private|access|auth)key",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact behind a finding. Reports lay these out, so that nobody has to parse sentences."""

    side: Literal["parent", "child", ""]
    """Which process it is about, or empty where that makes no difference."""
    label: str
    """``"value"``, ``"set"``, ``"made"``, ``"read"``, ``"written"``, ``"started"``, ``"captures"``, ``"raised"``..."""
    text: str = ""
    """The value, name or line of source, as plain text."""
    place: Place | None = None
    """Where in the source, if it is a place."""
    about: str = ""
    """The name that has the value; who set it, as in ``"monkeypatch"``; the captured variable."""

    def __str__(self) -> str:
        """Return the line that a finding shows as evidence; empty for a value, which its message has."""
        if self.label == "value":
            return ""
        if self.place is None:
            return f"{self.label}: {self.text}" if self.label else self.text
        by = f" by {self.about}" if self.about else ""
        at = "" if self.label.endswith(" of") else " at"
        return f"{self.label}{by}{at} {self.place}".strip() + (f": {self.text}" if self.text else "")


def source_fact(side: Literal["parent", "child", ""], label: str, place: Place, about: str = "") -> Fact:
    """Return the fact that something happens at a line of source, with that line."""
    return Fact(side, label, place.source, place, about)


def values(what: str, ours: str, theirs: str) -> tuple[Fact, Fact]:
    """Return what `what` is in the parent and in the child, as facts."""
    return Fact("parent", "value", ours, None, what), Fact("child", "value", theirs, None, what)


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
    """Where it is: ``"args[0].lock"``; for state a dotted name: ``"pkg.settings.DEBUG"``."""
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
    """The result of an experiment: True, False, or None if there was none."""
    facts: tuple[Fact, ...] = ()
    """The facts that message and evidence are made of, for reports that lay them out."""
    together: tuple[str, ...] = ()
    """What goes together: the paths that an experiment confirmed only together, or what one tool has replaced."""
    because_of: str = ""
    """For a consequence: the `reference` of its cause."""
    every_method: bool = False
    """Whether fork fails in the same way: tasks and messages are pickled under every method."""

    @property
    def key(self) -> tuple[str, str, str | None, int | None]:
        """The identity of the finding, whatever an experiment showed."""
        return self.code, self.path, self.file, self.line

    @property
    def reference(self) -> str:
        """Code and path, ``"SM103 args[0].lock"``."""
        return f"{self.code} {self.path}".strip()

    def __str__(self) -> str:
        """Return the finding as text of at most `WIDTH` columns."""
        return "\n".join(self.section_lines())

    def section_lines(
        self, root: str | None = None, *, titled: bool = True, method: str | None = None, width: int = WIDTH
    ) -> list[str]:
        """Return the finding as lines of text, with files below the directory `root` relative to it.

        Without `titled`, the code and name are left out and the path stands next to the place.
        `method` is the start method of the leg, for the result of an experiment.
        """
        title = f"{self.code} {self.name}"
        lines = wrapped(f"{title}: {self.path}" if self.path else title, "", "    ", width) if titled else []
        place = self.place
        if not titled and self.path:
            place = f"{place}: {self.path}" if place else self.path
        if place:
            lines += [f"  {relative(place, root)}"] if titled else wrapped(relative(place, root), "  ", "    ", width)
        for kind, text in self.parts(method):
            lines += wrapped(relative(text, root), "  ", "  " if kind == "message" else "    ", width)
        return lines

    @property
    def place(self) -> str:
        """``file:line``, only the file, or nothing, as far as it is known."""
        return self.file or "" if self.line is None else f"{self.file}:{self.line}"

    def parts(self, method: str | None = None) -> Iterator[tuple[str, str]]:
        """Yield the text that follows title and place, as pairs of kind and text, secrets masked.

        The kinds, in order: ``message``, ``fork``, ``evidence``, ``confirmed`` or ``cleared``, ``fix``.
        """
        masked, fork = self.masked(), self.under_fork(method)
        yield "message", masked.message
        if fork:
            yield "fork", fork
        for each in masked.evidence:
            yield "evidence", each
        if self.confirmed is not None:
            yield "confirmed" if self.confirmed else "cleared", self.experiment(method)
        if self.fix:
            yield "fix", f"fix: {masked.fix}"

    def under_fork(self, method: str | None = None) -> str:
        """Return why a leg under `method` fails and fork does not, or that fork does, too; empty if unknown."""
        if self.every_method:
            return EVERY_METHOD
        hidden = self.level == "cause" and method != "fork" and self.why_fork
        return f"under fork: {hidden}" if hidden else ""

    @property
    def why_fork(self) -> str:
        """Why fork hides the cause; empty if it does not, or if that is unknown."""
        from .codes import CAUSES

        if self.breaks_start:
            return "the child starts without it"
        return CAUSES[self.code].why_fork if self.code in CAUSES else ""

    @property
    def breaks_start(self) -> bool:
        """Whether it is a patch of what multiprocessing needs to start a process."""
        return any(each.label == NEEDED for each in self.facts)

    @property
    def by_copies(self) -> bool:
        """Whether the experiment is the fork leg with copies of what its children are sent."""
        return self.code in (*COPIED, "SM203") and not self.every_method

    def experiment(self, method: str | None = None) -> str:
        """Return the result of an experiment under `method` in one line; empty if there was none."""
        if self.confirmed is None:
            return ""
        under = f" under {method}" if method else ""
        if self.by_copies:
            if self.confirmed:
                return "confirmed: the test fails this way under fork, too, when its children are sent copies"
            return "cleared: under fork the test passes, even if its children are sent copies"
        what = self.path or "it"
        if self.code == "SM103":
            what = f"a stand-in for {what}"
        reaches = f"when {what} reaches the child{' as it was' if self.code in COPIED else ''}"
        if len(self.together) > 1:
            *most, last = self.together
            return f"confirmed together: the test passes{under} when {', '.join(most)} and {last} reach the child"
        if self.breaks_start:
            reaches = f"when multiprocessing starts processes with the original {what}"
        if self.confirmed:
            return f"confirmed: the test passes{under} {reaches}"
        return f"cleared: the test fails the same way{under} {reaches}"

    def masked(self) -> Finding:
        """Return the finding without the values of names like ``PASSWORD`` and ``API_TOKEN``."""
        values = [each for each in self.facts if each.label == "value" and len(each.text) > 2]
        secret = sorted({f.text for f in values if is_secret(f.about or self.path)}, key=len, reverse=True)
        if not secret:
            return self

        def without(text: str) -> str:
            for value in secret:
                text = text.replace(value, MASK)
            return text

        return replace(
            self,
            message=without(self.message),
            evidence=tuple(map(without, self.evidence)),
            fix=without(self.fix),
            facts=tuple(replace(each, text=without(each.text)) for each in self.facts),
        )

    def as_dict(self) -> Json:
        """Return the finding as builtins that JSON can hold; `from_dict` is the way back."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        facts = [
            {"side": f.side, "label": f.label, "text": f.text, **file_and_line(f.place), "about": f.about}
            for f in self.facts
        ]
        return {**values, "evidence": list(self.evidence), "facts": facts, "together": list(self.together)}

    @classmethod
    def from_dict(cls, values: Fields) -> Finding:
        """Return the finding that `as_dict` made `values` of; keys that it does not know are left out."""
        known = {each.name for each in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        facts = tuple(
            Fact(f["side"], f["label"], f["text"], Place(f["file"], f["line"]) if f["file"] else None, f["about"])
            for f in kept.get("facts", ())
        )
        lines = {name: tuple(kept.get(name, ())) for name in ("evidence", "together")}
        return cls(**{**kept, **lines, "facts": facts})


def finding_at(
    code: str,
    path: str,
    place: Place | None,
    message: str,
    evidence: Iterable[str | Fact],
    fix: str,
    level: Literal["cause", "note"] = "cause",
) -> Finding:
    """Return a finding with the name of its code, which points at `place` if there is one.

    The evidence is what each part of `evidence` prints as; those that are facts are kept as such, too.
    """
    from .codes import CAUSES

    file, line = (place.file, place.line) if place is not None else (None, None)
    parts = tuple(evidence)
    lines = tuple(dict.fromkeys(filter(None, map(str, parts))))
    facts = tuple(each for each in parts if isinstance(each, Fact))
    return Finding(code, CAUSES[code].name, level, path, file, line, message, lines, fix, facts=facts)


def unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings` without repetition, in order."""
    kept: dict[object, Finding] = {}
    for finding in findings:
        kept.setdefault(finding.key, finding)
    return tuple(kept.values())


def is_secret(path: str) -> bool:
    """Return whether the last name in a path suggests a secret: ``settings.API_TOKEN``, ``environ['PGPASSWORD']``."""
    names = re.findall(r"\w+", path)
    return bool(names) and _SECRET.search(names[-1]) is not None


def wrapped(text: str, first: str, later: str, width: int = WIDTH) -> list[str]:
    """Return `text` as lines of at most `width` columns; a path or name is never broken."""
    wrapper = textwrap.TextWrapper(width, first, later, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text) or [first + text]


def relative(text: str, root: str | None) -> str:
    """Return `text` with paths below the directory `root` made relative to it."""
    top = (root or "").rstrip(os.sep)
    # not in the middle of another path: /home/me/app is not below /app
    return re.sub(rf"(?<![\w.~/\\-]){re.escape(top + os.sep)}", "", text) if top else text


def placed(findings: tuple[Finding, ...], place: Place | None) -> tuple[Finding, ...]:
    """Return `findings`, those without a place at `place`."""
    if place is None:
        return findings
    return tuple(f if f.file is not None else replace(f, file=place.file, line=place.line) for f in findings)
