"""The report as Markdown, for a pull request or the summary of a CI step. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..model.methods import in_order

_LISTED: Final = 100
"""Tests and legs that are listed one by one: GitHub shows no more than 64 KiB in a comment, 1 MiB in a summary."""

_WORDS: Final = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "vacuous", "flaky")


def text(model: Mapping[str, Any]) -> str:
    """Return the report of `report_model.build` as GitHub's Markdown, well-formed whatever the texts contain."""
    return "\n".join(_lines(model)) + "\n"


def _lines(model: Mapping[str, Any]) -> Iterator[str]:
    summary = model["summary"]
    yield "## Start methods"
    yield ""
    methods = ", ".join(model["methods"])
    python = f"Python {cell(model['python'])} on {cell(model['platform'])}"
    yield f"{python}, default `{model['default']}`; ran under {cell(methods)}."
    if model["exit_status"] in (2, 3):
        yield "**The session did not come to its end; what had run until then is here.**"
    yield ""
    if not model["tests"]:
        yield "No test ran under a start method of its own."
        return
    yield from _table(summary)
    yield ""
    verdicts = ", ".join(
        f"{'**' if _bad(word) else ''}{count} {word}{'**' if _bad(word) else ''}"
        for word, count in summary["verdicts"].items()
    )
    yield f"{count_of(summary['tests'], 'test')}: {verdicts}."
    causes = [each for each in model["groups"] if not each["vacuous"] and not _is_note(each)]
    notes = [each for each in model["groups"] if each["vacuous"] or _is_note(each)]
    if causes or model["unexplained"]:
        yield ""
        yield "### Causes"
    for each in causes:
        yield from _cause(each)
    for each in model["unexplained"]:
        yield from _unexplained(each)
    if notes:
        yield ""
        yield "### Notes"
    for each in notes:
        yield from _cause(each)
    yield from _tests(model)
    if model["troubles"]:
        yield from _details(f"Troubles ({len(model['troubles'])})", [f"- {inline(each)}" for each in model["troubles"]])


def _bad(word: str) -> bool:
    return word not in ("passes", "skipped", "vacuous")


def _is_note(group: Mapping[str, Any]) -> bool:
    return bool(group["level"] == "note")


def _table(summary: Mapping[str, Any]) -> Iterator[str]:
    outcomes = summary["outcomes"]
    words = [word for word in _WORDS if word == "passed" or any(word in row for row in outcomes.values())]
    yield "| method | " + " | ".join(words) + " |"
    yield "|---|" + "---:|" * len(words)
    for method, row in outcomes.items():
        yield f"| {cell(method)} | " + " | ".join(str(row.get(word, "-")) for word in words) + " |"


def _cause(group: Mapping[str, Any]) -> Iterator[str]:
    legs, tests = count_of(group["legs"], "leg"), count_of(group["tests"], "test")
    under = ", ".join(group["methods"])
    what = f"predicted for {under}, {tests}" if group["predicted"] else f"{legs} of {tests} ({under})"
    if group["vacuous"]:
        what = f"{legs} passed and started nothing with the method ({under})"
    yield ""
    yield f"#### {group['code']} {group['name']}: {cell(what)}"
    yield ""
    if group["file"]:
        place = group["file"] if group["line"] is None else f"{group['file']}:{group['line']}"
        yield f"{code(place)}" + (f", {code(group['path'])}" if group["path"] else "") + "  "
    elif group["path"]:
        yield f"{code(group['path'])}  "
    yield inline(group["message"])
    if group["confirmed"] is not None:
        yield ""
        yield "Confirmed by experiment." if group["confirmed"] else "Not confirmed: an experiment cleared it."
    if group["fix"]:
        yield ""
        yield f"**Fix:** {inline(group['fix'])}"
    if group["evidence"]:
        yield from _details("Evidence", block(group["evidence"]))
    yield from _legs(group)


def _unexplained(each: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    under = ", ".join(each["methods"])
    what = f"{count_of(each['legs'], 'leg')} of {count_of(each['tests'], 'test')} ({under})"
    yield f"#### No cause found: {cell(what)}"
    yield ""
    yield inline(each["message"] or "no message")
    yield from _legs(each)


def _legs(entry: Mapping[str, Any]) -> Iterator[str]:
    nodeids: Sequence[str] = entry["nodeids"]
    if len(nodeids) == 1:
        yield ""
        yield f"Leg: {code(nodeids[0])}"
        return
    listed = [f"- {code(each)}" for each in nodeids[:_LISTED]]
    if len(nodeids) > _LISTED:
        listed.append(f"- and {len(nodeids) - _LISTED} more, in the JSON report")
    yield from _details(f"First: <code>{html.escape(oneline(nodeids[0]))}</code>, and {len(nodeids) - 1} more", listed)


def _tests(model: Mapping[str, Any]) -> Iterator[str]:
    tests = [each for each in model["tests"] if each["verdict"] not in ("passes", "skipped")]
    if not tests:
        return
    found = {method for test in tests for method in test["legs"]}
    methods = in_order(found)
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
    yield from _details(f"Tests that do not pass under every method ({len(tests)})", lines)


def _details(summary: str, lines: Sequence[str]) -> Iterator[str]:
    # The blank lines are needed: without them GitHub reads what is inside as HTML, not as Markdown.
    yield from ("", f"<details><summary>{summary}</summary>", "", *lines, "", "</details>")


# -- texts -----------------------------------------------------------------------------------------------------------


def oneline(text: str) -> str:
    """Return a text on one line, without what cannot be seen."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def cell(text: str) -> str:
    """Return plain text that stands for itself everywhere, in a table too."""
    return _escaped(oneline(text))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(text, quote=False)).replace("@", "&#64;")


def inline(text: str) -> str:
    """Return text in which what stands between two backticks is code, and everything else stands for itself."""
    parts = oneline(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without another
        return cell(text)
    return (
        "".join(code(part) if index % 2 and part.strip() else _escaped(part) for index, part in enumerate(parts)) or "-"
    )


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


def count_of(number: int, noun: str) -> str:
    """Return ``1 leg``, ``2 legs``."""
    return f"{number} {noun}{'s' * (number != 1)}"
