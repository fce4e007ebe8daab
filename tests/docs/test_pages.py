"""README and docs are accurate: commands, options, fixtures and links exist, and all code shown is run."""

from __future__ import annotations

import json
import multiprocessing
import re
import shlex
import sys
from pathlib import Path

import pytest
from docs_scripts import ROOT, refresh

from pytest_startmethod import __main__
from pytest_startmethod.session.options import DISCOVER, OPTIONS, VERIFY, flag

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in refresh.PAGES}
BLOCKS = [(name, block) for name, page in PAGES.items() for block in refresh.blocks(page)]
HOSTED = "https://pytest-startmethod.readthedocs.io/en/latest/"
SOURCE = "https://github.com/pytest-startmethod/pytest-startmethod/"

shows_all_methods = pytest.mark.skipif(
    len(multiprocessing.get_all_start_methods()) < 3, reason="the pages show all three methods"
)


def of_language(language):
    return [block for _, block in BLOCKS if block.language == language]


def test_every_block_is_of_a_kind_that_is_tested():
    """A new kind of block needs a new test; `mermaid` is a diagram."""
    kinds = {block.language for _, block in BLOCKS}
    assert kinds == {"bash", "console", "ini", "mermaid", "python", "sh", "text", "toml"}


def test_readme_is_short():
    """What does not fit on a few screens belongs in the documentation."""
    assert len(README.splitlines()) < 200


def test_commands_are_one_line_each():
    """The two commands are those that the CI script reads from the README."""
    install = "python3 -m venv .venv && .venv/bin/pip install -q"
    (examples,), (suite,) = [block.lines for name, block in BLOCKS if name == "README.md" and block.language == "sh"]
    assert examples == f"{install} . && .venv/bin/pytest --start-methods=all examples/test_classics.py"
    assert suite in (f"{install} '.[test]' && .venv/bin/pytest", f"{install} '.[test]' && .venv/bin/pytest -n auto")


def test_commands_that_are_only_named():
    """Commands in a `bash` block cannot be run here as they are, but their options exist."""
    known = {"--start-methods-report=summary.md", *(flag(key) for key in (*OPTIONS, DISCOVER, VERIFY))}
    for block in of_language("bash"):
        for line in block.lines:
            words = shlex.split(line.partition(";")[0])
            assert words[0] == "pytest" or words[:2] == ["pip", "install"], line
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line


def test_options_are_those_that_exist():
    """The table lists every option with its ini key, and no page mentions an unknown option."""
    reference = PAGES["docs/reference/index.md"]
    rows = re.findall(r"^\| `(--[\w-]+)=[A-Z]+` \| `(\w+)` \|", reference, re.MULTILINE)
    assert rows == [(flag(key), key) for key in OPTIONS]
    exist = {*(flag(key) for key in (*OPTIONS, DISCOVER, VERIFY)), "--no-start-methods-verify"}
    assert set(re.findall(r"--(?:no-)?start-methods[\w-]*", reference)) == exist
    for name, page in PAGES.items():
        assert set(re.findall(r"--(?:no-)?start-methods[\w-]*", page)) <= exist, name


def test_fixtures_are_those_that_exist():
    """The table lists the plugin's fixtures."""
    from pytest_startmethod import plugin

    section = PAGES["docs/reference/index.md"].partition("## Fixtures")[2].partition("##")[0]
    named = re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE)
    assert {"start_method", "mp_context", "start_method_script"} == set(named)
    assert set(named) <= set(plugin.__all__)


def test_commands_of_the_command_line_are_those_that_exist():
    """Every command of `python -m pytest_startmethod` mentioned on a page exists."""
    commands = {"run", "explain", "codes"}
    assert all(command in __main__.parser().format_help() for command in commands)
    for name, page in PAGES.items():
        assert set(re.findall(r"-m pytest_startmethod (\w+)", page)) <= commands, name


def anchors(page):
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def target_of(name, target):
    """Return the file in the repository to which a link leads; None for other links."""
    path, _, anchor = target.partition("#")
    if path.startswith(HOSTED):
        page = path.removeprefix(HOSTED).rstrip("/")
        options = [f"docs/{page}.md", f"docs/{page}/index.md".replace("//", "/")] if page else ["docs/index.md"]
        return next((each for each in options if each in PAGES), options[0]), anchor
    if path.startswith(SOURCE):
        found = re.fullmatch(r"(?:blob|tree)/main/(.*)", path.removeprefix(SOURCE))
        return (found.group(1), anchor) if found else None
    if path.startswith("https://"):
        return None
    return Path(name).parent.joinpath(path).as_posix() if path else name, anchor


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    """Linked files and sections exist, on the site, in the repository, or next to the page."""
    text = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        found = target_of(name, link)
        if found is None:
            continue
        path, anchor = found
        file = Path(*Path(ROOT, path).parts)
        assert file.resolve().exists() or not (ROOT / ".git").exists(), link
        page = file.resolve().relative_to(ROOT.resolve()).as_posix()
        if anchor and page in PAGES:
            assert anchor in anchors(PAGES[page]), link


def test_readme_links_work_everywhere():
    """The package index shows the README outside the repository, so none of its links is relative."""
    assert [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not link.startswith("https://")] == []


def test_code_is_run():
    """Each file shown on a page is used by a command on that page, or is a test that `test_code_passes` runs."""
    for name, block in BLOCKS:
        if block.language == "python" and not name.startswith(("docs/causes/", "docs/reference/hooks")):
            assert block.file is not None, (name, block.lines[0])


@shows_all_methods
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["README.md", "docs/recipes.md", "docs/reference/index.md", "docs/reference/command-line.md"]
)
def test_code_passes(name, tmp_path):
    """Tests shown on a page behave as described: an intended failure is predicted, marked or explained by a cause."""
    workshop = refresh.Workshop(str(tmp_path))
    files = [block for page, block in BLOCKS if page == name and block.file]
    for block in files:
        workshop.write(block.file, block.lines)
    tests = sorted({block.file for block in files if Path(block.file).name.startswith("test_")})
    out = workshop.run(f"pytest --start-methods-report=report.json -p no:asyncio {' '.join(tests)}")
    report = json.loads((tmp_path / "report.json").read_text())
    verdicts = {test["nodeid"]: test["verdict"] for test in report["tests"]}
    wanted = {"test_build.py::test_build": "needs-fork", "test_predicted.py::test_local": "needs-fork"}
    bad = {node: verdict for node, verdict in verdicts.items() if verdict not in (wanted.get(node), "passes", "xfails")}
    assert verdicts, "\n".join(out)
    assert bad == {}, "\n".join(out)


def test_settings_can_be_read():
    """Excerpts of pyproject.toml are valid TOML."""
    tomllib = pytest.importorskip("tomllib", reason="3.11 and newer can read TOML")
    for block in of_language("toml"):
        tomllib.loads("\n".join(block.lines))


OTHERS = {
    "python ask_dill.py": ("dill", r"\{\} \{\} None"),
    "python ask_ray.py": ("ray", r"\(False, \{FailTuple\(run \[path=run, .*"),
    "python nested.py pytest_startmethod": ("pytest_startmethod", r"\d+\.\d ms"),
    "python nested.py dill": ("dill", r"\d+\.\d ms"),
    "python nested.py ray": ("ray", r"\d+\.\d ms"),
    "pytest test_by_hand.py test_mixins.py": ("pytest", "=+ 6 passed.* in .*"),
}


@shows_all_methods
@pytest.mark.skipif(sys.version_info >= (3, 15), reason="dill 0.4.1 pickles no lambda there")
@pytest.mark.parametrize("command", OTHERS)
def test_what_others_say(command, tmp_path):
    """The comparison's files run, and behave as the table says."""
    package, said = OTHERS[command]
    pytest.importorskip(package, reason="the comparison asks it, the suite does not need it")
    workshop = refresh.Workshop(str(tmp_path))
    for name, block in BLOCKS:
        if name == "docs/comparison.md" and block.file:
            workshop.write(block.file, block.lines)
    printed = workshop.run(command)
    assert any(re.fullmatch(said, line) for line in printed), printed


@shows_all_methods
def test_legs_share_one_snapshot(tmp_path):
    """With the conftest that the recipes show, syrupy keeps one snapshot for all methods."""
    pytest.importorskip("syrupy", reason="the recipes name it, the suite does not need it")
    workshop = refresh.Workshop(str(tmp_path))
    (block,) = [block for name, block in BLOCKS if name == "docs/recipes.md" and "syrupy" in "".join(block.lines)]
    workshop.write(block.file, block.lines)
    marked = '@pytest.mark.startmethods(vacuous="ignore")'
    test = ["import pytest", marked, "def test_a(snapshot):", "    assert [1, 2] == snapshot"]
    workshop.write(str(Path(block.file).with_name("test_shared.py")), test)
    updated = workshop.run("pytest -p syrupy --snapshot-update tests")
    assert "1 snapshot generated." in updated, updated
    checked = workshop.run("pytest -p syrupy tests")
    assert "1 snapshot passed." in checked, checked
    assert " 3 passed in " in checked[-1], checked


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 adds notes")
def test_notes_of_python_3_14(tmp_path):
    """The comparison quotes the actual output of Python 3.14."""
    workshop = refresh.Workshop(str(tmp_path))
    page = [block for name, block in BLOCKS if name == "docs/comparison.md"]
    for block in page:
        if block.file:
            workshop.write(block.file, block.lines)
    (quoted,) = [block.lines for block in page if block.language == "text"]
    assert workshop.run("python start.py")[-len(quoted) :] == quoted


# -- coverage ----------------------------------------------------------------------------------------------------------

METHODS = ("fork", "spawn", "forkserver")
ENTRIES = ("process", "pool", "executor")


@shows_all_methods
@pytest.mark.slow
def test_coverage_settings_measure_children_of_all_methods(tmp_path):
    """With the settings in the README, lines that run only in a child are covered."""
    pytest.importorskip("coverage")
    block = next(each for each in of_language("toml") if "concurrency" in "".join(each.lines))
    workshop = refresh.Workshop(str(tmp_path))
    workshop.write("pyproject.toml", [*block.lines, 'source_pkgs = ["shop"]'])
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
        "coverage run -m pytest -p pytest_startmethod.plugin test_shop.py",
        "coverage combine -q",
        "coverage json -q -o coverage.json",
    ):
        out = workshop.run(line)
    report = json.loads((tmp_path / "coverage.json").read_text())["files"]["shop.py"]
    missing = {(tmp_path / "shop.py").read_text().splitlines()[line - 1] for line in report["missing_lines"]}
    assert (missing, report["summary"]["percent_covered"]) == (set(), 100.0), out
