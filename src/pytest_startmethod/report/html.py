"""The report as one HTML file that needs nothing else: no network, and no script for reading it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from ..model.codes import CAUSES
from ..model.methods import in_order

_AROUND: Final = 4
"""Lines of source before and after the one that is meant."""
_LARGEST: Final = 2_000_000
_LISTED: Final = 200

_SIDES: Final = {
    "SM2": "child",
    "SM307": "parent",
    "SM3": "child",
    "SM401": "child",
    "SM402": "child",
    "SM405": "child",
    "SM407": "child",
}
"""By the beginning of a code, the first that fits: where the place is that a finding points at; else in the parent."""

_PLACE: Final = re.compile(r"(?P<file>[^\s:,'\"`()]+\.pyi?):(?P<line>\d+)")
_VALUES: Final = re.compile(
    r"^(?:the patch [^:]*: )?(?P<what>.+?) is (?P<ours>.+) in the parent and "
    r"(?P<theirs>.+?) in an? [\w ]*child(?=[:;,.]|$)",
    re.DOTALL,
)
"""How a message says that a value differs."""
_CHILDS: Final = ("read at ", "by way of ", "written ")
"""How evidence begins that is about code which the child runs, for SM301 to SM308."""
_WHOSE: Final = re.compile(r"\b(parent|child)\b")


def text(model: Mapping[str, Any]) -> str:
    """Return the report of `report_model.build` as HTML; the sources are read from the files that it names."""
    templates = files("pytest_startmethod") / "report" / "templates"

    def read(name: str) -> str:
        return (templates / name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ticks"] = ticks
    environment.filters["seconds"] = seconds
    template = environment.get_template("report.html")
    return template.render(css=Markup(read("report.css")), js=Markup(read("report.js")), **view(model))


# -- what is shown -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Side:
    """The parent's or the child's half of a finding."""

    places: list[dict[str, Any]] = field(default_factory=list)
    """``label``, ``file``, ``line`` and ``lines``: the source around it, each line (number, is it meant, HTML)."""
    facts: list[str] = field(default_factory=list)
    value: tuple[str, str] | None = None
    """What differs, and what it is here."""


def view(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows."""
    sources = Sources(model["rootdir"])
    tests = list(model["tests"])
    number_of = {leg["nodeid"]: number for number, test in enumerate(tests) for leg in test["legs"].values()}
    found = {method for test in tests for method in test["legs"]}
    methods = in_order(found)
    entries = [_entry(each, tests, number_of, sources) for each in model["groups"]]
    entries += [_unexplained(each, tests, number_of, sources) for each in model["unexplained"]]
    for number, entry in enumerate(entries, 1):
        entry["id"] = f"cause-{number}"
    causes = [each for each in entries if each["kind"] != "note"]
    return {
        "model": model,
        "methods": methods,
        "words": _words(model["summary"]["outcomes"]),
        "causes": causes,
        "notes": [each for each in entries if each["kind"] == "note"],
        "files": list(_by_file(tests, entries)),
        "codes": sorted({(each["code"], each["name"]) for each in entries if each["code"]}),
        "interrupted": model["exit_status"] in (2, 3),
        "listed": _LISTED,
    }


def _words(outcomes: Mapping[str, Mapping[str, int]]) -> list[str]:
    order = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "vacuous", "flaky")
    return [word for word in order if word == "passed" or any(word in row for row in outcomes.values())]


def _by_file(tests: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    of_test: dict[int, list[Mapping[str, Any]]] = {}
    for entry in entries:
        for number in entry["of"]:
            of_test.setdefault(number, []).append(entry)
    found: dict[str, list[dict[str, Any]]] = {}
    for number, test in enumerate(tests):
        file, _, name = test["nodeid"].partition("::")
        mine = of_test.get(number, [])
        codes = dict.fromkeys(each["code"] for each in test["findings"])
        links = [{"code": code, "id": next((e["id"] for e in mine if e["code"] == code), None)} for code in codes]
        if not codes:
            links = [{"code": "no cause found", "id": e["id"]} for e in mine if not e["code"]]
        row = {**test, "name": name or file, "number": number, "links": links, "codes": " ".join(codes)}
        found.setdefault(file if name else "", []).append(row)
    for file, rows in found.items():
        yield {"file": file, "rows": rows}


def _entry(
    group: Mapping[str, Any], tests: Sequence[Mapping[str, Any]], number_of: Mapping[str, int], sources: Sources
) -> dict[str, Any]:
    cause = CAUSES.get(group["code"])
    leg, test = _leg(group["first"], tests, number_of)
    kind = "note" if group["vacuous"] or group["level"] == "note" else "predicted" if group["predicted"] else "cause"
    return {
        **group,
        "kind": kind,
        "of": sorted({number_of[each] for each in group["nodeids"] if each in number_of}),
        "what": cause.what if cause is not None else "",
        "why_fork": cause.why_fork if cause is not None and kind != "note" else "",
        "passed_under": _passed(test),
        "message_of_leg": leg.get("message") if leg else None,
        "sides": _sides(group, leg or {}, sources),
        "child_of": ", ".join(group["methods"]),
        "more": max(0, len(group["nodeids"]) - _LISTED),
    }


def _unexplained(
    each: Mapping[str, Any], tests: Sequence[Mapping[str, Any]], number_of: Mapping[str, int], sources: Sources
) -> dict[str, Any]:
    blank = {"code": "", "name": "no cause found", "level": "cause", "path": "", "file": None, "line": None}
    group = {**blank, **each, "evidence": [], "fix": "", "confirmed": None, "predicted": False, "vacuous": False}
    group["message"] = each["message"] or "no message"
    return {**_entry(group, tests, number_of, sources), "message_of_leg": None}


def _leg(
    nodeid: str, tests: Sequence[Mapping[str, Any]], number_of: Mapping[str, int]
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    if nodeid not in number_of:
        return None, None
    test = tests[number_of[nodeid]]
    return next(leg for leg in test["legs"].values() if leg["nodeid"] == nodeid), test


def _passed(test: Mapping[str, Any] | None) -> str:
    legs = test["legs"] if test is not None else {}
    return " and ".join(method for method, leg in legs.items() if leg["outcome"] in ("passed", "xpassed"))


def _sides(group: Mapping[str, Any], leg: Mapping[str, Any], sources: Sources) -> dict[str, Side]:
    sides = {"parent": Side(), "child": Side()}
    code = group["code"]
    own = sides[next((side for start, side in _SIDES.items() if code.startswith(start)), "parent")]

    def add(side: Side, label: str, file: str | None, line: int | None) -> bool:
        """Show a place; say whether its source is there."""
        if file is None or line is None:
            return False
        for shown in side.places:
            if (shown["file"], shown["line"]) == (file, line):
                return bool(shown["lines"])
            if shown["file"] == file and any(number == line for number, _, _ in shown["lines"]):
                shown["label"] += f"; line {line}: {label}"
                shown["lines"] = [(number, meant or number == line, text) for number, meant, text in shown["lines"]]
                return True
        side.places.append({"label": label, "file": file, "line": line, "lines": sources.around(file, line)})
        return bool(side.places[-1]["lines"])

    launches, tasks = leg.get("launches", ()), leg.get("tasks", ())
    launch = next((each for each in launches if each["error"]), None) or next(iter(launches), None)
    if launch is not None:
        add(sides["parent"], "the process is started here", launch["file"], launch["line"])
        called = f"{launch['target']}({', '.join(launch['args'])})"[:400]
        sides["parent"].facts.append("a worker of a pool or executor" if launch["worker"] else called)
        if launch["thread"]:
            sides["parent"].facts.append(f"started in thread {launch['thread']!r}")
        if launch["fixture"]:
            sides["parent"].facts.append(f"started in the fixture {launch['fixture']!r}")
        if launch["error"]:
            sides["child"].facts.append(f"no child: start() raised {launch['error']}")
        elif launch["exit_code"]:
            sides["child"].facts.append(f"ended with exit code {launch['exit_code']}")
    elif tasks:
        add(sides["parent"], "the task is handed over here", tasks[0]["file"], tasks[0]["line"])
    add(own, "this is what it is about" if own is sides["parent"] else "in the child", group["file"], group["line"])
    values = _VALUES.match(group["message"])
    if values is not None:
        sides["parent"].value = values["what"], values["ours"]
        sides["child"].value = values["what"], values["theirs"]
    for fact in group["evidence"]:
        whose = _WHOSE.search(fact)
        side = sides[whose[1]] if whose is not None else own
        if code.startswith("SM3") and whose is None:
            side = sides["child" if fact.startswith(_CHILDS) else "parent"]
        place = _PLACE.search(fact)
        told = False
        if place is not None:
            label = fact[: place.start()].strip().removesuffix(" at") or "see"
            whole = fact[place.end() :][:2] in ("", ": ")  # nothing but a place, and perhaps the line that is there
            told = (
                add(sides["parent"] if label == "started" else side, label, place["file"], int(place["line"])) and whole
            )
        if not told:
            side.facts.append(fact)
    if not sides["child"].facts and sides["child"].value is None and leg.get("message"):
        sides["child"].facts.append(leg["message"])
    return sides


# -- source ------------------------------------------------------------------------------------------------------------


class Sources:
    """Reads and highlights source files, each once."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._lines: dict[str, list[str]] = {}

    def around(self, file: str, line: int) -> list[tuple[int, bool, Markup]]:
        """Return the lines around one, each with its number and whether it is that one; nothing without the file."""
        if file not in self._lines:
            self._lines[file] = self._highlighted(file)
        lines = self._lines[file]
        if not 1 <= line <= len(lines):
            return []
        first, last = max(1, line - _AROUND), min(len(lines), line + _AROUND)
        while first < line and not lines[first - 1].strip():
            first += 1
        while last > line and not lines[last - 1].strip():
            last -= 1
        return [(number, number == line, Markup(lines[number - 1])) for number in range(first, last + 1)]

    def _highlighted(self, file: str) -> list[str]:
        path = self.root / file
        try:
            if path.stat().st_size > _LARGEST:
                return []
            source = path.read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return []
        try:
            from pygments import highlight
            from pygments.formatters import HtmlFormatter
            from pygments.lexers.python import PythonLexer

            lexer = PythonLexer(stripnl=False, ensurenl=False)
            return str(highlight(source, lexer, HtmlFormatter(nowrap=True))).split("\n")
        except Exception:  # it is only colour
            return [html.escape(line) for line in source.split("\n")]


# -- filters -----------------------------------------------------------------------------------------------------------


def ticks(text: str) -> Markup:
    """Return text as HTML in which what stands between two backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup(html.escape(text))
    escaped = (html.escape(part) for part in parts)
    return Markup("".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(escaped)))


def seconds(duration: float) -> str:
    """Return a duration for people."""
    return f"{duration * 1000:.0f} ms" if duration < 1 else f"{duration:.1f} s"
