"""What the README and the docs show is what happens: their commands, code and transcripts are run here."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from examples_run import EXAMPLES, ROOT, command
from pytest_startmethod.model.codes import CAUSES
from pytest_startmethod.session.options import DISCOVER, OPTIONS, VERIFY, flag

README = (ROOT / "README.md").read_text(encoding="utf-8")
KINDS = ("pickling", "loading", "state", "children", "vacuous", "forkserver")
"""The pages of the causes, in the order of their codes: the first has SM1.., the second SM2.."""
PAGES = {
    "README.md": README,
    **{f"docs/{path.name}": path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))},
}
TESTED_ELSEWHERE = {"docs/hooks.md", "docs/report-schema.md"}

shows_all_methods = pytest.mark.skipif(
    len(multiprocessing.get_all_start_methods()) < 3, reason="the README shows all three methods"
)


class Block(NamedTuple):
    """A fenced code block, and the heading it stands under."""

    language: str
    lines: list[str]
    section: str


def read_blocks(page: str) -> list[Block]:
    found: list[Block] = []
    section, block, margin = "", None, 0
    for line in page.splitlines():
        indent, fence, language = re.fullmatch(r"( *)(```)?(.*)", line).groups()
        if block is not None and fence:
            found.append(block)
            block = None
        elif block is not None:
            block.lines.append(line[margin:].rstrip())
        elif fence:
            block, margin = Block(language, [], section), len(indent)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    assert block is None, "a code block has no end"
    return found


BLOCKS = [block for name, page in PAGES.items() if name not in TESTED_ELSEWHERE for block in read_blocks(page)]


def blocks(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_every_block_is_of_a_kind_that_is_tested_here():
    """A new kind of block needs a new test."""
    assert {block.language for block in BLOCKS} == {"console", "mermaid", "python", "sh", "text", "toml"}


# -- transcripts -------------------------------------------------------------------------------------------------------


def run(line: str, folder: Path) -> str:
    """Run a transcript's command in a copy of what it needs, and return what it prints."""
    for block in blocks("python"):
        name = block.lines[0].removeprefix("# ")
        (folder / name).write_text("\n".join(block.lines) + "\n", encoding="utf-8")
    words = shlex.split(line)
    tool = {"python": [], "pytest": ["-m", "pytest", "-p", "pytest_startmethod.plugin", "-p", "no:cacheprovider"]}
    done = command(folder, *tool[words[0]], *words[1:])
    assert done.stderr == ""
    return done.stdout.replace(f"{folder}{os.sep}", "")


def find(chunk: list[str], lines: list[str], start: int) -> int:
    """Return where `chunk` ends in `lines`, or fail."""
    for at in range(start, len(lines) - len(chunk) + 1):
        if lines[at : at + len(chunk)] == chunk:
            return at + len(chunk)
    shown = "\n".join(chunk)
    pytest.fail(f"this is not printed from line {start} on:\n{shown}\n\nbut:\n" + "\n".join(lines[start:][:300]))


@shows_all_methods
def test_excerpts_are_printed_by_the_examples(examples):
    """What a cause's section quotes is among what the examples print."""
    lines = examples.out.splitlines()
    for block in blocks("text"):
        assert block.section[:5] in CAUSES
        find(block.lines, lines, 0)


@shows_all_methods
def test_code_passes_as_it_stands(tmp_path):
    """The tests that the README shows do what it says: all are run, and what fails is what it confirms a cause of."""
    names = [block.lines[0].removeprefix("# ") for block in blocks("python")]
    tests = [name for name in names if name.startswith("test_")]
    last = run(f"pytest {' '.join(tests)}", tmp_path).splitlines()[-1]
    assert re.fullmatch(r"=+ 2 failed, 17 passed, 1 xfailed in \S+ =+", last)


# -- what is listed ----------------------------------------------------------------------------------------------------


def test_commands_are_one_line_each():
    """The two commands are the ones that the CI script reads from here."""
    install = "python3 -m venv .venv && .venv/bin/pip install -q"
    (examples,), (suite,) = [block.lines for block in blocks("sh")]
    assert examples == f"{install} . && .venv/bin/pytest --start-methods=all examples"
    assert suite in (f"{install} '.[test]' && .venv/bin/pytest", f"{install} '.[test]' && .venv/bin/pytest -n auto")


def test_options_are_those_that_exist():
    """The table has every option with its ini key, and no other option is named anywhere."""
    rows = re.findall(r"^\| `(--[\w-]+)=[A-Z]+` \| `(\w+)` \|", README, re.MULTILINE)
    assert rows == [(flag(key), key) for key in OPTIONS]
    named = set(re.findall(r"--(?:no-)?start-methods[\w-]*", README))
    assert named == {*(flag(key) for key in (*OPTIONS, DISCOVER, VERIFY)), "--no-start-methods-verify"}


def test_fixtures_are_those_that_exist():
    """The table names fixtures of the plug-in."""
    from pytest_startmethod import plugin

    named = re.findall(r"^\| `(\w+)` \| ", README.partition("### Fixtures")[2].partition("###")[0], re.MULTILINE)
    assert {"start_method", "mp_context"} <= set(named) <= set(plugin.__all__)


def test_every_cause_with_an_example_has_its_section():
    """One section for each code that an example shows, under the catalogue's name, with a link to the examples."""
    shown: dict[str, list[tuple[str, str]]] = {}
    for file in sorted(EXAMPLES.glob("*.py")):
        pattern = r'^def (test_\w+)\(.*\):\n    """(SM\d+): '
        for test, code in re.findall(pattern, file.read_text(encoding="utf-8"), re.MULTILINE):
            shown.setdefault(code, []).append((test, f"(../examples/{file.name})"))
    sections: dict[str, str] = {}
    for number, kind in enumerate(KINDS, 1):
        found = re.findall(r"^## (SM\d+ [\w-]+)\n(.*?)(?=^## |\Z)", PAGES[f"docs/{kind}.md"], re.MULTILINE | re.DOTALL)
        assert all(title.startswith(f"SM{number}") for title, _ in found)
        sections.update(found)
    assert list(sections) == [f"{cause.code} {cause.name}" for cause in CAUSES.values()]
    for code, tests in shown.items():
        example = sections[f"{code} {CAUSES[code].name}"].partition("*Example:*")[2]
        for test, link in tests:
            assert f"`{test}`" in example, code
            assert link in example, code


def test_table_of_causes_is_the_catalogue():
    """Each code stands in the README with its name, what it is in the catalogue's words, and a link to its section."""
    rows = re.findall(r"^\| \[(SM\d+)\]\(([^)]+)\) \| (.*) \| (.*) \|$", README, re.MULTILINE)
    assert rows == [
        (c.code, f"docs/{KINDS[int(c.code[2]) - 1]}.md#{c.code.lower()}-{c.name}", c.name, c.what)
        for c in CAUSES.values()
    ]


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    """Files that a page links to are there, and so are the sections."""
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists() or not (ROOT / ".git").exists(), target
        if anchor:
            assert anchor in anchors(PAGES[file.resolve().relative_to(ROOT.resolve()).as_posix()]), target


# -- coverage ----------------------------------------------------------------------------------------------------------

METHODS = ("fork", "spawn", "forkserver")
ENTRIES = ("process", "pool", "executor")


@shows_all_methods
def test_coverage_settings_measure_children_of_all_methods(tmp_path):
    """With the settings that the README names, lines that only a child runs count as run."""
    pytest.importorskip("coverage")
    (block,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text("\n".join([*block.lines, 'source_pkgs = ["shop"]', ""]))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    functions = [f"def {e}_{m}(number):\n    return number * number  # {e}_{m}\n" for e in ENTRIES for m in METHODS]
    functions.append("def send(function, queue):\n    queue.put(function(3))\n")
    (tmp_path / "shop.py").write_text("\n".join(functions))
    (tmp_path / "test_shop.py").write_text(
        "import multiprocessing\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "import shop\n"
        "def test_process(start_method):\n"
        "    queue = multiprocessing.SimpleQueue()\n"
        "    square = getattr(shop, f'process_{start_method}')\n"
        "    process = multiprocessing.Process(target=shop.send, args=(square, queue))\n"
        "    process.start()\n"
        "    assert queue.get() == 9\n"
        "    process.join()\n"
        "def test_pool(start_method):\n"
        "    with multiprocessing.Pool(1) as pool:\n"
        "        assert pool.map(getattr(shop, f'pool_{start_method}'), [3]) == [9]\n"
        "        pool.close()\n"
        "        pool.join()\n"
        "def test_executor(start_method):\n"
        "    with ProcessPoolExecutor(1) as executor:\n"
        "        assert list(executor.map(getattr(shop, f'executor_{start_method}'), [3])) == [9]\n"
    )
    for line in (
        "python -m coverage run -m pytest -p pytest_startmethod.plugin test_shop.py",
        "python -m coverage combine -q",
        "python -m coverage json -q -o coverage.json",
    ):
        out = run(line, tmp_path)
    report = json.loads((tmp_path / "coverage.json").read_text())["files"]["shop.py"]
    missing = {(tmp_path / "shop.py").read_text().splitlines()[line - 1] for line in report["missing_lines"]}
    assert (missing, report["summary"]["percent_covered"]) == (set(), 100.0), out
