"""The report as Markdown, for a pull request or the summary of a CI step. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import Final

from ..model.methods import in_order
from ..model.wire import Fields
from . import verdicts
from .document import level
from .links import Links
from .text import count

MOST: Final = 60_000
"""Bytes of a report: GitHub takes 65,536 characters in a comment."""

_LISTED: Final = 100
_LONGEST: Final = 300
"""Characters of a cell of the table."""
_WORDS: Final = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "vacuous", "flaky")
_LEFT_OUT: Final = "The rest is left out to keep the report below GitHub's limit; the JSON and HTML reports have it."


def text(model: Fields, links: Links | None = None) -> str:
    """Return the report of `document.build` as well-formed GitHub Markdown of at most `MOST` bytes.

    If it is longer, whole blocks are left out at its end.
    """
    found, size = [], len(_LEFT_OUT) + 2
    for block in _blocks(model, links or Links(model["rootdir"])):
        part = "\n".join(block) + "\n\n"
        size += len(part.encode("utf-8", "replace"))
        if size > MOST:
            found.append(f"{_LEFT_OUT}\n")
            break
        found.append(part)
    return "".join(found).rstrip("\n") + "\n"


def _blocks(model: Fields, links: Links) -> Iterator[list[str]]:
    """Yield the parts of the report, the most important one first."""
    yield ["## Start methods"]
    if not model["tests"]:
        yield [_session(model), "No test ran under a start method of its own."]
        return
    yield [_verdicts(model["summary"])]
    if model["exit_status"] in (2, 3):
        yield ["**The session did not come to its end. What had run until then is here.**"]
    causes = [each for each in model["groups"] if level(each) != "notice"]
    notes = [each for each in model["groups"] if level(each) == "notice"]
    rows = [_row(each, links) for each in (*causes, *model["unexplained"])]
    for start in range(0, len(rows), _LISTED):
        yield ["| cause | where | tests | fix |", "|---|---|---|---|", *rows[start : start + _LISTED]]
    yield [_session(model)]
    yield list(_table(model["summary"]))
    for each in (*causes, *model["unexplained"]):
        yield list(_details(_title(each), _more(each)))
    for each in notes:
        yield list(_details(f"Note: {_title(each)}", _more(each)))
    yield from _tests(model)
    if model["troubles"]:
        title = f"Problems ({len(model['troubles'])})"
        yield list(_details(title, [f"- {inline(each)}" for each in model["troubles"]]))


def _session(model: Fields) -> str:
    methods = ", ".join(model["methods"])
    python = f"Python {cell(model['python'])} on {cell(model['platform'])}"
    return f"{python}, default `{model['default']}`; ran under {cell(methods)}."


def _verdicts(summary: Fields) -> str:
    everywhere = len(summary["outcomes"]) > 1
    told = []
    for word, number in summary["verdicts"].items():
        words = verdicts.in_words(word, number, everywhere=everywhere)
        told.append(f"**{words}**" if verdicts.style(word) == "bad" else words)
    still = summary["needs_fork"]
    more = f" **{count(still, 'test')} still {'needs' if still == 1 else 'need'} fork.**" if still else ""
    return f"{count(summary['tests'], 'test')}: {', '.join(told)}.{more}"


def _table(summary: Fields) -> Iterator[str]:
    outcomes = summary["outcomes"]
    words = [word for word in _WORDS if word == "passed" or any(word in row for row in outcomes.values())]
    yield "| legs | " + " | ".join(words) + " |"
    yield "|---|" + "---:|" * len(words)
    for method, row in outcomes.items():
        yield f"| {cell(method)} | " + " | ".join(str(row.get(word, "-")) for word in words) + " |"


# -- causes ----------------------------------------------------------------------------------------------------------


def _row(entry: Fields, links: Links) -> str:
    """Return a cause's row of the first table."""
    if "code" not in entry:
        cause, where, fix = "no cause found", "", cell(_short(entry["message"] or ""))
    else:
        cause = f"[{entry['code']}]({entry['url']})" if entry["url"] else cell(entry["code"])
        cause += f" {cell(entry['name'])}{_said(entry)}"
        where, fix = _where(entry, links), inline(_short(entry["fix"]), in_table=True) if entry["fix"] else ""
    need = f" ({entry['need_fork']} need fork)" if entry.get("need_fork") else ""
    return f"| {cause} | {where} | {entry['tests']}{need} | {fix} |"


def _said(entry: Fields) -> str:
    if entry["predicted"]:
        return ", *predicted*"
    return {True: ", *confirmed*", False: ", *cleared*", None: ""}[entry["confirmed"]]


def _where(entry: Fields, links: Links) -> str:
    parts = []
    if entry["file"]:
        place = entry["file"] if entry["line"] is None else f"{entry['file']}:{entry['line']}"
        address = links.permanent(entry["file"], entry["line"])
        shown = code(place, in_table=True)
        parts.append(f"[{shown}]({address})" if address else shown)
    parts += [code(entry["path"], in_table=True)] if entry["path"] else []
    return " ".join(parts)


def _title(entry: Fields) -> str:
    """Return the title of a cause's details, as HTML."""
    legs, tests = count(entry["legs"], "leg"), count(entry["tests"], "test")
    under = ", ".join(entry["methods"])
    what = f"{legs} of {tests} ({under})"
    if entry.get("predicted"):
        what = f"predicted for {under}, {tests}"
    if entry.get("vacuous"):
        what = f"{legs} passed without a process of the method ({under})"
    name = f"{entry['code']} {entry['name']}" if "code" in entry else "No cause found"
    path = f" <code>{html.escape(oneline(entry['path']))}</code>" if entry.get("path") else ""
    return f"{html.escape(name)}{path}: {html.escape(what)}".replace("@", "&#64;")


def _more(entry: Fields) -> list[str]:
    lines = [inline(entry["message"] or "no message"), ""]
    if entry.get("fix"):
        lines += [f"**Fix:** {inline(entry['fix'])}", ""]
    if entry.get("evidence"):
        lines += [*block(entry["evidence"]), ""]
    nodeids: Sequence[str] = entry["nodeids"]
    lines += [f"- {code(each)}" for each in nodeids[:_LISTED]]
    if len(nodeids) > _LISTED:
        lines.append(f"- and {len(nodeids) - _LISTED} more, in the JSON report")
    return lines


def _tests(model: Fields) -> Iterator[list[str]]:
    tests = [each for each in model["tests"] if each["verdict"] not in ("passes", "skipped")]
    if not tests:
        return
    methods = in_order({method for test in tests for method in test["legs"]})
    lines = [
        "| test | verdict | " + " | ".join(map(cell, methods)) + " | codes |",
        "|---|---|" + "---|" * (len(methods) + 1),
    ]
    for test in tests[:_LISTED]:
        legs = [test["legs"][m]["outcome"] if m in test["legs"] else "" for m in methods]
        codes = ", ".join(dict.fromkeys(each["code"] for each in test["findings"]))
        lines.append(
            f"| {code(test['nodeid'], in_table=True)} | {cell(test['verdict'])} | " + " | ".join(legs) + f" | {codes} |"
        )
    if len(tests) > _LISTED:
        lines += ["", f"And {len(tests) - _LISTED} more, in the JSON report."]
    yield list(_details(f"Tests that do not pass under every method ({len(tests)})", lines))


def _details(summary: str, lines: Sequence[str]) -> Iterator[str]:
    # Without the blank lines GitHub would read the content as HTML, not as Markdown.
    yield from (f"<details><summary>{summary}</summary>", "", *lines, "", "</details>")


# -- texts -----------------------------------------------------------------------------------------------------------


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    shown = text[: _LONGEST - 3]
    return shown + ("`..." if shown.count("`") % 2 else "...")


def oneline(text: str) -> str:
    """Return a text on one line, with a space in place of each unprintable character."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def cell(text: str) -> str:
    """Escape plain text, also for use in a table."""
    return _escaped(oneline(text))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(text, quote=False)).replace("@", "&#64;")


def inline(text: str, *, in_table: bool = False) -> str:
    """Escape text except for code between backticks."""
    parts = oneline(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without another
        return cell(text)
    shown = (
        code(part, in_table=in_table) if index % 2 and part.strip() else _escaped(part)
        for index, part in enumerate(parts)
    )
    return "".join(shown) or "-"


def code(text: str, *, in_table: bool = False) -> str:
    """Return text as code; its fence is longer than any run of backticks in it."""
    text = oneline(text)
    if in_table:  # GitHub splits cells before it looks for code, and takes the backslash out
        text = text.replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{space}{text}{space}{fence}"


def block(lines: Sequence[str]) -> list[str]:
    """Return lines as a block of code; its fence is longer than any run of backticks in it."""
    shown = [oneline(line) if line.strip() else "" for line in lines]
    fence = "`" * max(3, 1 + max((len(run) for line in shown for run in re.findall(r"`+", line)), default=0))
    return [f"{fence}text", *shown, fence]
