"""The section below a failing leg in the terminal: the source line, the cause and the fix."""

from __future__ import annotations

import io
import linecache
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator

from ..model.codes import CAUSES
from ..model.finding import WIDTH, Finding, relative
from . import groups
from .text import Line, cut, line, styled, wrap


def title(told: groups.Told, method: str) -> str:
    """Return the title of a section: code, name, and the result of experiments."""
    finding = told.finding
    if finding.confirmed is None:
        return f"{finding.code} {finding.name}"
    together = " together" if len(finding.together) > 1 else ""
    said = f"confirmed{together} under {method}" if finding.confirmed else "cleared by an experiment"
    return f"{finding.code} {finding.name} ({said})"


def lines(told: groups.Told, *, root: str, method: str, verbose: bool = False, width: int = WIDTH) -> list[Line]:
    """Return the section below the title."""

    def wrapped(text: str, *, indent: str = "    ", first: str = "  ") -> list[str]:
        return wrap(relative(text, root), indent=indent, first=first, width=width)

    found: list[Line] = []
    shown: set[tuple[str | None, int | None]] = set()
    for each in told.findings:
        place = relative(each.place, root) if each.place else ""
        source = excerpt(each, width)
        if len(source) < 2 and each.path:
            place = f"{place}: {each.path}" if place else each.path
        if place and (each.file, each.line) not in shown:
            found += [line(text) for text in wrapped(place)]
            found += source
        shown.add((each.file, each.line))
    for each in told.findings:
        found += [line(text) for text in wrapped(each.masked().message, indent="  ")]
    fork = told.finding.under_fork(method)
    found += [line(text) for text in wrapped(f"({fork})" if fork else "")]
    for evidence in dict.fromkeys(text for each in told.findings for text in _evidence(each, shown)):
        found += [line(text) for text in wrapped(evidence)]
    for each in told.findings if verbose else ():
        found += styled(wrapped(each.experiment(method)), "confirmed", "good")
    for fix in dict.fromkeys(each.masked().fix for each in told.findings if each.fix):
        found += styled(wrapped(f"fix: {fix}"), "fix:", "fix")
    for each in told.consequences:
        text = f"and so: {each.code} {each.name}: {each.masked().message}"
        found += styled(wrapped(text), f"{each.code} {each.name}", "strong")
    if told.finding.code in CAUSES:
        found.append(line(f"  more: python -m pytest_startmethod explain {told.finding.code}", "quiet"))
    return found


def _evidence(finding: Finding, shown: Collection[tuple[str | None, int | None]]) -> Iterator[str]:
    """Yield the evidence, without the source lines that are shown already."""
    said = {str(fact) for fact in finding.facts if fact.place and (fact.place.file, fact.place.line) in shown}
    places = tuple(f"set at {file}:{number}: " for file, number in shown)
    for text, raw in zip(finding.masked().evidence, finding.evidence, strict=True):
        if raw not in said and not raw.startswith(places):
            yield text


def named(findings: Iterable[groups.Told]) -> str:
    """Return the codes and names of findings, with the results of experiments."""
    said = {True: " (confirmed)", False: " (cleared)", None: ""}
    every = (each.finding for each in findings)
    return ", ".join(dict.fromkeys(f"{each.code} {each.name}{said[each.confirmed]}" for each in every))


# -- the source line -------------------------------------------------------------------------------------------------


def excerpt(finding: Finding, width: int = WIDTH) -> list[Line]:
    """Return the source line of a finding, and a line that marks its object, if found; empty without the file."""
    if finding.file is None or finding.line is None:
        return []
    whole = linecache.getline(finding.file, finding.line).rstrip()
    source = whole.lstrip()
    if not source:
        return []
    margin = f"  {finding.line} | "
    found = [Line(((margin, "quiet"), (cut(source, width - len(margin)), "")))]
    span = mark(source, finding.path, defines=finding.code.startswith("SM1"))
    if span is not None and len(margin) + span[1] <= width - 3:
        arrows = "^" * (span[1] - span[0])
        below = f"{' ' * (len(margin) - 2)}| "
        found.append(Line(((below, "quiet"), (f"{' ' * span[0]}{arrows} {finding.path}", "mark"))))
    return found


def mark(source: str, path: str, *, defines: bool = True) -> tuple[int, int] | None:
    """Return the columns of the object at `path` in a source line, or None if not found.

    That is the last name of the path or, where the line `defines` the object, the name that it binds or the lambda.
    """
    tokens = _tokens(source)
    words = [word for word, _ in tokens]
    for keyword in ("def", "class") if defines else ():
        if keyword in words[:2] and words.index(keyword) + 1 < len(words):
            word, column = tokens[words.index(keyword) + 1]
            return column, column + len(word)
    wanted = re.findall(r"\w+", path)
    for word, column in reversed(tokens):
        if wanted and word == wanted[-1] and word != "target":
            return column, column + len(word)
    for word, column in tokens:
        if word == "lambda" and defines:
            return column, column + len(word)
    for index, (word, _) in enumerate(tokens[:-2]):
        if wanted and word == wanted[0] and words[index + 1] == "=":
            following, column = tokens[index + 2]
            return column, column + len(following)
    return None


def _tokens(source: str) -> list[tuple[str, int]]:
    """Return the names, contents of strings and operators of a line, each with its column, as far as it parses."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.STRING and re.fullmatch(r"(['\"])\w+\1", token.string):
                found.append((token.string[1:-1], token.start[1] + 1))
            elif token.type in (tokenize.NAME, tokenize.OP):
                found.append((token.string, token.start[1]))
    except (tokenize.TokenError, SyntaxError):
        pass  # the statement goes on below: keep the tokens of this line
    return found
