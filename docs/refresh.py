"""Run what README and docs show, and write what is printed into them.

    python docs/refresh.py                 # all pages
    python docs/refresh.py README.md       # these pages
    python docs/refresh.py --check         # change nothing; exit with 1 and the differences if a page is out of date

A page is read from top to bottom in a directory of its own, which has a copy of `examples`:

- A code block whose first line is a comment with a file's name (``# test_shop.py``) is written to that file.
- A ``console`` block is a command (``$ pytest test_shop.py``) and what it prints. Above it may stand which lines to
  show, as regular expressions (``A .. B`` from the first line that matches to the next one, ``A ..< B`` to the line
  before, ``A .. +3`` with three more)::

      <!-- show
      ^=+ start methods =+ .. ^$
      -->

  Without that, all lines are shown. ``...`` marks the lines left out.
- ``<!-- picture failure.svg: $ pytest ... -->``, with the lines to show below it, draws ``pictures/failure.svg``.
- The table of ``causes/index.md`` is the catalogue's.
- A ``text`` block below ``<!-- finding -->`` on the page of a cause is the finding that its first code block gives.

Addresses, times and process ids differ from run to run and are not compared. Python 3.13 changed messages of pickle, so
pages are written with 3.10 to 3.12; later versions compare all other lines.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
CAUSES = DOCS / "causes"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OWN_MESSAGES = sys.version_info >= (3, 13)
"""Whether CPython words its messages in another way than the pages, which show those of 3.12."""

_FILE = re.compile(r"# ([\w./-]+\.(?:py|ini|toml))$")


@dataclass
class Block:
    """A fenced code block of a page."""

    language: str
    lines: list[str]
    first: int
    """Index of the first line inside the fence, in the page's lines."""
    margin: str
    section: str
    """The heading that it stands under."""
    comment: list[str]
    """The lines of the HTML comment right above it."""

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, or None."""
        found = _FILE.match(self.lines[0]) if self.lines else None
        return found.group(1) if found else None

    @property
    def command(self) -> str | None:
        """The command that the block shows, or None."""
        return self.lines[0][2:] if self.language == "console" and self.lines[0].startswith("$ ") else None


def blocks(text: str) -> list[Block]:
    """Return the fenced code blocks of a page. Raises ValueError if one has no end."""
    found: list[Block] = []
    section, block, comment, in_comment = "", None, [], False
    for number, line in enumerate(text.splitlines()):
        margin, fence, rest = re.fullmatch(r"( *)(```)?(.*)", line).groups()  # type: ignore[union-attr]
        if block is not None:
            if fence and not rest:
                found.append(block)
                block, comment = None, []
            else:
                block.lines.append(line[len(block.margin) :].rstrip())
        elif fence:
            block = Block(rest.partition(" ")[0], [], number + 1, margin, section, comment)
        elif in_comment or rest.startswith("<!--"):
            comment = [*(comment if in_comment else []), rest]
            in_comment = not rest.endswith("-->")
        elif rest.startswith("#"):
            section, comment = rest.lstrip("# "), []
        elif rest:
            comment = []
    if block is not None:
        raise ValueError(f"a code block has no end: line {block.first}")
    return found


def shown(lines: list[str], patterns: list[str]) -> list[str]:
    """Return the lines that `patterns` select, with ``...`` for what is left out. Raises LookupError."""
    if not patterns:
        return lines
    result: list[str] = []
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    at = 0
    for pattern in patterns:
        first, dots, last = re.fullmatch(r"(.*?)(?: (\.\.<?) (.*))?", pattern).groups()  # type: ignore[union-attr]
        start = next((n for n in range(at, len(lines)) if re.search(first, plain[n])), None)
        if start is None:
            raise LookupError(f"no line matches {first!r} in\n" + "\n".join(lines[at:]))
        end: int | None = start
        if last is None:
            end = start
        elif last.startswith("+"):
            end = start + int(last)
        else:
            end = next((n for n in range(start + 1, len(lines)) if re.search(last, plain[n])), None)
            if end is None:
                raise LookupError(f"no line matches {last!r} after {first!r} in\n" + "\n".join(lines[start:]))
            end -= dots == "..<"
        if any(line.strip() for line in plain[at:start]):
            result.append("...")
        elif result and at < start:
            result.append("")
        chunk = lines[start : end + 1]
        while chunk and not chunk[-1].strip():
            chunk.pop()
        result += chunk
        at = end + 1
    return [*result, "..."] if any(line.strip() for line in lines[at:]) else result


def normal(lines: Iterable[str]) -> list[str]:
    """Return lines without what differs between runs and, where it must be, between versions of CPython."""
    result = []
    for line in lines:
        text = re.sub(r"\b0x[0-9a-f]+\b", "0x...", line.rstrip())
        text = re.sub(r"\b\d+\.\d+ ?s\b", "TIMEs", text)
        text = re.sub(r"\b(pid|child) \d+", r"\1 N", text)
        text = re.sub(r"\bProcess-\d+", "Process-N", text)
        text = re.sub(r"={3,}(.* in TIMEs.*?)=+$", r"===\1===", text)  # the time's width moves the rule's end
        if OWN_MESSAGES and (text.startswith("E  ") or re.match(r"\S+\.py:\d+: \w+Error", text)):
            continue
        result.append(text)
    return result


def words(lines: Iterable[str]) -> list[str]:
    """Return the words of a text whose lines are broken where its paths and numbers of processes are long."""
    text = " ".join(normal(lines))
    text = re.sub(
        rf"{re.escape(tempfile.gettempdir())}{re.escape(os.sep)}\S*?(?=[:,.]?(?:\d+)?:?(?:\s|$))", "TMP", text
    )
    return re.sub(r"\bprocess \d+|\d+ characters long", "N", text).split()


# -- running ---------------------------------------------------------------------------------------------------------


class Workshop:
    """A directory in which one page's commands run, after one another."""

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.realpath(path))
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / "examples", self.path / "examples", ignore=ignore)
        self.write("pytest.ini", ["[pytest]"])

    def write(self, name: str, lines: list[str]) -> None:
        """Write a file that a page shows."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, command: str, *, color: bool = False) -> list[str]:
        """Run a command that a page shows; return what it prints, files in it relative to the directory."""
        words = shlex.split(command)
        tools = {
            "python": [],
            "pytest": ["-m", "pytest", "-p", "pytest_startmethod.plugin", "-p", "no:cacheprovider"],
            "coverage": ["-m", "coverage"],
        }
        if "-n" in words:
            tools["pytest"] += ["-p", "xdist.plugin"]
        unwanted = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "FORCE_COLOR")
        environment = {name: value for name, value in os.environ.items() if name not in (*unwanted, "PY_COLORS")}
        environment |= {
            "COLUMNS": "80",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])),
            **({"PY_COLORS": "1"} if color else {}),
        }
        done = subprocess.run(
            [sys.executable, *tools[words[0]], *words[1:]],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return done.stdout.replace(f"{self.path}{os.sep}", "").splitlines()


def patterns_of(comment: list[str], word: str) -> list[str] | None:
    """Return the patterns below a comment's first line, or None if it does not begin with `word`."""
    if not comment or not comment[0].startswith(f"<!-- {word}"):
        return None
    return [line for line in comment[1:] if line != "-->"]


def refreshed(page: Path) -> str:
    """Return the text that `page` should have; pictures are drawn by the way."""
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = blocks(text)
    edits: list[tuple[Block, list[str]]] = []
    with tempfile.TemporaryDirectory(prefix="docs-") as directory:
        workshop = Workshop(directory)
        printed: dict[str, list[str]] = {}
        for block in found:
            if block.file is not None:
                workshop.write(block.file, block.lines)
                printed.clear()
            elif block.command is not None:
                if block.command not in printed:
                    printed[block.command] = workshop.run(block.command)
                body = shown(printed[block.command], patterns_of(block.comment, "show") or [])
                edits.append((block, [block.lines[0], *body]))
        for name, command, patterns in pictures(text):
            draw(name, command, shown(workshop.run(command, color=True), patterns))
    if page.parent == CAUSES:
        for block in found:
            if patterns_of(block.comment, "finding") is not None:
                edits.append((block, _findings()[page.stem].splitlines()))
    for block, body in reversed(edits):
        if same(block, body):
            continue
        body = [f"{block.margin}{line}".rstrip() for line in body]
        lines[block.first : block.first + len(block.lines)] = body
    return "\n".join(_tables(lines) if page == CAUSES / "index.md" else lines) + "\n"


def _tables(lines: list[str]) -> list[str]:
    """Return the lines of the causes' index with the rows that the catalogue gives; a table keeps its codes' family."""
    from pytest_startmethod.model import codes

    result: list[str] = []
    families: set[str] = set()
    for line in lines:
        code = re.match(r"\| \[(SM\d)\d+\]", line)
        if code is None:
            result.append(line)
        elif code[1] not in families:
            families.add(code[1])
            rows = [each for each in codes.CAUSES.values() if each.code.startswith(code[1])]
            result += [f"| [{each.code}]({each.code}.md) | {each.name} | {each.what} |" for each in rows]
    return result


def same(block: Block, body: list[str]) -> bool:
    """Return whether `block` shows `body`, save for what differs between runs."""
    if block.command is None or block.command.startswith("python "):
        # the files in it were absolute, so that its lines are broken elsewhere
        return words(block.lines) == words(body)
    return normal(block.lines) == normal(body)


# -- pictures ---------------------------------------------------------------------------------------------------------


def pictures(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield file name, command and patterns of each picture of a page."""
    for name, command, patterns in re.findall(r"<!-- picture (\S+): \$ (.*)\n((?:.*\n)*?)-->", text):
        yield name, command, patterns.splitlines()


def draw(name: str, command: str, lines: list[str]) -> None:
    """Write the picture of a terminal in which `command` printed `lines`, unless the one that is there shows that."""
    from terminal_picture import svg, text_of

    file = DOCS / "pictures" / name
    file.parent.mkdir(exist_ok=True)
    picture = svg(f"$ {command}", lines)
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    if normal(text_of(old)) != normal(text_of(picture)):
        if CHECKING:
            raise OutOfDateError(
                "\n".join(difflib.unified_diff(text_of(old), text_of(picture), str(file), lineterm=""))
            )
        file.write_text(picture, encoding="utf-8")


class OutOfDateError(Exception):
    """A picture shows something else than what is printed."""


CHECKING = False

# -- findings of the pages of causes -----------------------------------------------------------------------------------

_found: dict[str, str] = {}


def cause_files(when: str) -> dict[str, dict[str, list[str]]]:
    """Return code -> file -> lines for the code under the heading `when`, ``"Before"`` or ``"After"``, of each page."""
    result: dict[str, dict[str, list[str]]] = {}
    for page in sorted(CAUSES.glob("SM*.md")):
        files = [block for block in blocks(page.read_text(encoding="utf-8")) if block.section == when and block.file]
        result[page.stem] = {str(block.file): block.lines for block in files}
    return result


def run_causes(when: str, directory: Path, *options: str) -> dict[str, dict[str, dict[str, object]]]:
    """Run the code of all pages in one session; return code -> node id -> the test's entry of the JSON report."""
    for code, files in cause_files(when).items():
        for name, lines in files.items():
            file = directory / code / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    workshop = Workshop(str(directory))
    shutil.rmtree(directory / "examples")
    command = ["pytest", "--start-methods=all", "--start-methods-report=report.json", "-q", "--tb=no", *options]
    printed = workshop.run(shlex.join([*command, *sorted(cause_files(when))]))
    try:
        report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    except OSError:
        raise RuntimeError("\n".join(printed)) from None
    tests: dict[str, dict[str, dict[str, object]]] = {code: {} for code in cause_files(when)}
    for test in report["tests"]:
        tests[test["nodeid"].partition("/")[0]][test["nodeid"]] = test
    return tests


def finding_text(code: str, tests: dict[str, dict[str, object]]) -> str:
    """Return the finding of `code` in `tests` as it reads below a failing test, or the empty string."""
    from pytest_startmethod import Finding

    for test in tests.values():
        for values in test["findings"]:  # type: ignore[attr-defined]
            if values["code"] == code:
                finding = Finding.from_dict({**values, "confirmed": None})
                text = str(finding).replace(f"{code}{os.sep}", "")
                return re.sub(r"/pytest-of-[^/]+/pytest-\d+/", "/", text)
    return ""


def _findings() -> dict[str, str]:
    if not _found:
        with tempfile.TemporaryDirectory(prefix="docs-") as directory:
            tests = run_causes("Before", Path(os.path.realpath(directory)), "--no-start-methods-verify")
        _found.update({code: finding_text(code, each) for code, each in tests.items()})
    return _found


def main() -> int:
    """Refresh or check the pages that the command line names."""
    global CHECKING
    sys.path[:0] = [str(ROOT / "src"), str(DOCS)]
    parser = argparse.ArgumentParser(description="Run what README and docs show, and write what is printed into them.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is out of date")
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: all")
    options = parser.parse_args()
    CHECKING = options.check
    if OWN_MESSAGES and not options.check:
        parser.error("pages show the messages of Python 3.12: run it with 3.10, 3.11 or 3.12")
    status = 0
    for page in [each.resolve() for each in options.pages] or PAGES:
        name = page.relative_to(ROOT).as_posix()
        old = page.read_text(encoding="utf-8")
        try:
            new = refreshed(page)
        except (OutOfDateError, LookupError) as error:
            print(f"{name}: {error}")
            status = 1
            continue
        if new == old:
            continue
        print(f"{name}: {'out of date' if options.check else 'refreshed'}")
        if options.check:
            status = 1
            print("\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), "shown", "printed", lineterm="")))
        else:
            page.write_text(new, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
