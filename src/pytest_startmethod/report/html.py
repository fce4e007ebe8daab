"""The report as one self-contained HTML file, readable without network or JavaScript."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Final

import jinja2
from markupsafe import Markup

from ..model.codes import CAUSES
from ..model.finding import Finding
from ..model.methods import in_order
from ..model.wire import Fields, Json
from . import verdicts
from .document import level
from .links import Links
from .text import count

_AROUND: Final = 4
"""Lines of source shown before and after a place."""
_LARGEST: Final = 2_000_000
_LISTED: Final = 200
_MANY: Final = 300
"""With more tests than this, passing ones are hidden at first."""

_WORDS: Final = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "vacuous", "flaky")
_UNEXPLAINED: Final = "legs that failed where another method passed, and nothing was found that explains it"
_PARENTS: Final = ("SM1", "SM307")
"""Beginnings of codes whose place is in the parent, if no fact says otherwise."""
_HERE_ALONE: Final = "the line in question"
_HERE: Final = ("set", "made", "read", "written", "started", "raised", "defined")
"""Labels of facts that read better with ``here`` above their line of source."""


def text(model: Fields, links: Links | None = None) -> str:
    """Return the report of `document.build` as HTML, with excerpts read from the files that it names."""
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
    environment.filters.update(ticks=ticks, seconds=seconds, count=lambda number, noun: count(number, noun))
    environment.globals["told"] = verdicts.in_words
    environment.globals["style"] = verdicts.style
    links = links or Links(model["rootdir"])
    environment.globals["source"] = links.editor
    template = environment.get_template("report.html")
    return template.render(css=Markup(read("report.css")), js=Markup(read("report.js")), **view(model))


# -- the template's values -------------------------------------------------------------------------------------------


def view(model: Fields) -> Json:
    """Return the values for the template."""
    sources = Sources(model["rootdir"])
    tests = list(model["tests"])
    number_of = {leg["nodeid"]: number for number, test in enumerate(tests) for leg in test["legs"].values()}
    methods = in_order({method for test in tests for method in test["legs"]})
    groups = [*model["groups"], *map(_blank, model["unexplained"])]
    entries = [_entry(each, tests, number_of, sources) for each in groups]
    for number, entry in enumerate(entries):
        entry["id"] = f"cause-{number + 1}"
        entry["parts"] = [each for each in entries if each["part_of"] == number]
    leading = [each for each in entries if each["part_of"] is None]
    return {
        "model": model,
        "project": PurePath(model["rootdir"]).name or model["rootdir"],
        "methods": methods,
        "words": [w for w in _WORDS if w == "passed" or any(w in row for row in model["summary"]["outcomes"].values())],
        "sections": [
            (heading, list(_by_code(each for each in leading if (each["kind"] == "note") is notes)))
            for heading, notes in (("Causes", False), ("Notes", True))
        ],
        "files": list(_by_file(tests, entries)),
        "interrupted": model["exit_status"] in (2, 3),
        "listed": _LISTED,
        "many": len(tests) > _MANY,
    }


def _blank(each: Mapping[str, object]) -> Json:
    """Return an entry of ``unexplained`` with the keys of a group."""
    keys = ("file", "line", "url", "confirmed", "part_of")
    texts = {"code": "", "name": "no cause found", "level": "cause", "path": "", "fix": ""}
    message = each["message"] or "no message"
    rest: Json = {"message": message, "evidence": [], "facts": []}
    flags = dict.fromkeys(("predicted", "vacuous", "every_method"), False)
    return {**dict.fromkeys(keys), **texts, **flags, **each, **rest}


def _entry(group: Fields, tests: Sequence[Fields], number_of: Mapping[str, int], sources: Sources) -> Json:
    kind = {"error": "cause", "warning": "predicted", "notice": "note"}[level(group)]
    test = tests[number_of[group["first"]]] if group["first"] in number_of else None
    legs = test["legs"] if test is not None else {}
    leg: Fields = next((each for each in legs.values() if each["nodeid"] == group["first"]), {})
    return {
        **group,
        "kind": kind,
        "of": sorted({number_of[each] for each in group["nodeids"] if each in number_of}),
        "why_fork": Finding.from_dict(group).why_fork if kind != "note" and not group["every_method"] else "",
        "passed_under": " and ".join(m for m, each in legs.items() if each["outcome"] in ("passed", "xpassed")),
        "sides": [side for side in _sides(group, leg, sources) if side["places"] or side["facts"] or side["values"]],
        "more": max(0, len(group["nodeids"]) - _LISTED),
    }


def _by_code(entries: Iterator[Json]) -> Iterator[Json]:
    """Yield the entries of each code with its name and description, the most frequent first."""
    found: dict[str, list[Json]] = {}
    for each in entries:
        found.setdefault(each["code"], []).append(each)
    order = sorted(found.items(), key=lambda item: (not item[0], -sum(len(each["of"]) for each in item[1])))
    for code, these in order:
        what = CAUSES[code].what if code in CAUSES else "" if code else _UNEXPLAINED
        of = {number for each in these for number in each["of"]}
        yield {"code": code, "name": these[0]["name"], "url": these[0]["url"], "what": what, "of": of, "causes": these}


def _by_file(tests: Sequence[Fields], entries: Sequence[Fields]) -> Iterator[Json]:
    of_test: dict[int, list[Fields]] = {}
    for entry in entries:
        for number in entry["of"]:
            of_test.setdefault(number, []).append(entry)
    found: dict[str, list[Json]] = {}
    for number, test in enumerate(tests):
        file, _, name = test["nodeid"].partition("::")
        mine = of_test.get(number, [])
        codes = dict.fromkeys(each["code"] for each in test["findings"])
        links = [{"code": code, "id": next((e["id"] for e in mine if e["code"] == code), None)} for code in codes]
        if not codes:
            links = [{"code": "no cause found", "id": e["id"]} for e in mine if not e["code"]]
        seconds = sum(leg["duration"] for leg in test["legs"].values())
        row = {**test, "name": name or file, "number": number, "links": links, "codes": " ".join(codes)}
        found.setdefault(file if name else "", []).append({**row, "seconds": seconds})
    for file, rows in found.items():
        yield {"file": file, "rows": rows}


# -- the two sides ---------------------------------------------------------------------------------------------------


def _sides(group: Fields, leg: Fields, sources: Sources) -> list[Json]:
    """Return the facts about the parent, about the child, and about neither in particular."""
    under = ", ".join(group["methods"])
    titles = {"parent": "In the parent", "child": f"In the child ({under})", "": ""}
    sides: dict[str, Json] = {
        key: {"title": title, "values": [], "places": [], "facts": []} for key, title in titles.items()
    }
    if group["part_of"] is None:
        _add_start(sides, leg, sources)
    facts = group["facts"]
    here = [fact["side"] for fact in facts if (fact["file"], fact["line"]) == (group["file"], group["line"])]
    own = here[0] if here else "parent" if group["code"].startswith(_PARENTS) else ""
    _add_place(sides[own], _HERE_ALONE, group, sources)
    for fact in facts:
        side = sides[fact["side"]]
        if fact["label"] == "value":
            side["values"].append((fact["about"], fact["text"]))
        elif fact["file"] is not None:
            by = f" by {fact['about']}" if fact["about"] else ""
            here_ = " here" if fact["label"] in _HERE else ""
            _add_place(side, f"{fact['label'] or 'see'}{by}{here_}", fact, sources)
        else:
            about = f"{fact['about']}: " if fact["about"] else ""
            side["facts"].append(f"{fact['label']}: {about}{fact['text']}" if fact["label"] else fact["text"])
    said = {_printed(fact) for fact in facts}
    sides[""]["facts"] += [each for each in group["evidence"] if each not in said]
    return list(sides.values())


def _printed(fact: Fields) -> str:
    """Return the line of evidence for a fact, like `Fact.__str__` with a relative file."""
    if fact["file"] is None:
        return f"{fact['label']}: {fact['text']}" if fact["label"] else fact["text"]
    by = f" by {fact['about']}" if fact["about"] else ""
    at = "" if fact["label"].endswith(" of") else " at"
    return f"{fact['label']}{by}{at} {fact['file']}:{fact['line']}" + (f": {fact['text']}" if fact["text"] else "")


def _add_start(sides: Mapping[str, Json], leg: Fields, sources: Sources) -> None:
    """Show where the process was started, and how it ended."""
    launches, tasks = leg.get("launches", ()), leg.get("tasks", ())
    launch = next((each for each in launches if each["error"]), None) or next(iter(launches), None)
    parent, child = sides["parent"], sides["child"]
    if launch is None:
        if tasks:
            _add_place(parent, "the task is submitted here", tasks[0], sources)
        return
    _add_place(parent, "the process is started here", launch, sources)
    if not launch["worker"]:
        parent["facts"].append(f"runs {launch['target']}({', '.join(launch['args'])})"[:400])
    parent["facts"] += [f"started in thread {launch['thread']!r}"] if launch["thread"] else []
    parent["facts"] += [f"started in the fixture {launch['fixture']!r}"] if launch["fixture"] else []
    if launch["error"]:
        child["facts"].append(f"no child: start() raised {launch['error']}")
    elif launch["exit_code"]:
        child["facts"].append(f"ended with exit code {launch['exit_code']}")


def _add_place(side: Json, label: str, at: Fields, sources: Sources) -> None:
    file, line = at["file"], at["line"]
    if file is None or line is None:
        return
    for shown in side["places"]:
        if (shown["file"], shown["line"]) == (file, line):
            shown["label"] = label if shown["label"] == _HERE_ALONE else shown["label"]
            return
        if shown["file"] == file and any(number == line for number, _, _ in shown["lines"]):
            shown["label"] += f"; line {line}: {label}"
            shown["lines"] = [(number, meant or number == line, text) for number, meant, text in shown["lines"]]
            return
    side["places"].append({"label": label, "file": file, "line": line, "lines": sources.around(file, line)})


# -- source ----------------------------------------------------------------------------------------------------------


class Sources:
    """Reads and highlights source files, each once."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._lines: dict[str, list[str]] = {}

    def around(self, file: str, line: int) -> list[tuple[int, bool, Markup]]:
        """Return the lines around one, each with its number and whether it is that one; empty without the file."""
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


# -- filters ---------------------------------------------------------------------------------------------------------


def ticks(text: str) -> Markup:
    """Return text as HTML, with code between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup(html.escape(text))
    escaped = (html.escape(part) for part in parts)
    return Markup("".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(escaped)))


def seconds(duration: float) -> str:
    """Format a duration."""
    return f"{duration * 1000:.0f} ms" if duration < 1 else f"{duration:.1f} s"
