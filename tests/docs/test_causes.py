"""Each cause has a page whose code shows it, and whose fixed code passes under every method."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from pathlib import Path

import pytest
from docs_scripts import ROOT, refresh

from pytest_startmethod.model.codes import CAUSES, url

PAGES = {code: ROOT / "docs" / "causes" / f"{code}.md" for code in CAUSES}
EXAMPLES = ROOT / "examples"

all_methods = pytest.mark.skipif(
    len(multiprocessing.get_all_start_methods()) < 3, reason="the pages show all three methods"
)
every_page = pytest.mark.parametrize("code", CAUSES)
ELSEWHERE = {"SM602"} if sys.version_info >= (3, 14) else set()
"""Codes that cannot occur with this version of Python."""


def test_every_code_has_its_page():
    """A page is named after its code, and starts with code and name."""
    for code, page in PAGES.items():
        assert page.read_text(encoding="utf-8").startswith(f"# {code} {CAUSES[code].name}\n"), code


def test_table_is_the_catalogue():
    """The tables list each code with name, sentence and link to its page; `docs/refresh.py` writes them."""
    text = (refresh.CAUSES / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(SM\d+)\]\((\w+\.md)\) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(c.code, f"{c.code}.md", c.name, c.what) for c in CAUSES.values()]


def test_address():
    """Only codes in the catalogue have a page address."""
    assert url("SM301") == "https://pytest-startmethod.readthedocs.io/en/latest/causes/SM301/"
    assert url("DJ001") is None


def test_examples_are_named_on_the_pages():
    """An example whose text starts with a code is mentioned on that code's page."""
    for file in sorted(EXAMPLES.glob("*.py")):
        pattern = r'^def (test_\w+)\(.*\):\n    """(SM\d+): '
        for test, code in re.findall(pattern, file.read_text(encoding="utf-8"), re.MULTILINE):
            text = PAGES[code].read_text(encoding="utf-8")
            assert f"`{test}`" in text, code
            assert f"/examples/{file.name})" in text, code


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Run the code under Before of all pages. Return code -> node id -> the test's entry in the report."""
    directory = Path(os.path.realpath(tmp_path_factory.mktemp("before")))
    return refresh.run_causes("Before", directory, "--no-start-methods-verify")


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    return refresh.run_causes("After", Path(os.path.realpath(tmp_path_factory.mktemp("after"))))


@all_methods
@every_page
@pytest.mark.slow
def test_code_before_shows_the_cause(before, code):
    """The first code block of a page produces the page's finding."""
    if code in ELSEWHERE:
        pytest.skip("another version of Python has it")
    found = [finding["code"] for test in before[code].values() for finding in test["findings"]]
    assert code in found, before[code]


@all_methods
@every_page
@pytest.mark.slow
def test_finding_on_the_page_is_the_one_that_is_given(before, code):
    """The text below the first code block is that finding; `python docs/refresh.py` writes it."""
    if refresh.OWN_MESSAGES:
        pytest.skip("the pages show the messages of Python 3.10 to 3.12")
    (shown,) = [
        block
        for block in refresh.blocks(PAGES[code].read_text(encoding="utf-8"))
        if refresh.patterns_of(block.comment, "finding") is not None
    ]
    if code == "SM106" and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 pickles the lock as a task's, and the child refuses it")
    given = refresh.finding_text(code, before[code]).splitlines()
    assert refresh.words(shown.lines) == refresh.words(given)


@all_methods
@every_page
@pytest.mark.slow
def test_code_after_passes(after, code):
    """The second code block of a page passes under every method, without findings."""
    assert after[code]
    for nodeid, test in after[code].items():
        outcomes = {method: leg["outcome"] for method, leg in test["legs"].items()}
        assert outcomes == dict.fromkeys(["fork", "spawn", "forkserver"], "passed"), nodeid
        assert [finding["code"] for finding in test["findings"]] == [], nodeid
