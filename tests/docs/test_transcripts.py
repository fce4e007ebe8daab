"""README and docs show real output: every command on a page is run, and its output compared."""

from __future__ import annotations

import difflib
import multiprocessing

import pytest
from docs_scripts import ROOT, refresh, terminal_picture

SHOWN = [page for page in refresh.PAGES if "```console" in page.read_text(encoding="utf-8")]
FIRST = "\x1b[31mred\x1b[0m <a & b> \x1b[1m\x1b[92mbold\x1b[0m"


@pytest.mark.slow
@pytest.mark.skipif(len(multiprocessing.get_all_start_methods()) < 3, reason="the pages show all three methods")
@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_shows_what_is_printed(page, monkeypatch):
    """`python docs/refresh.py` would change nothing; if this fails, run it."""
    monkeypatch.setattr(refresh, "CHECKING", True)
    shown, printed = page.read_text(encoding="utf-8"), refresh.refreshed(page)
    lines = difflib.unified_diff(shown.splitlines(), printed.splitlines(), "shown", "printed", lineterm="")
    difference = "\n".join(lines)
    assert not difference, f"run `python docs/refresh.py {page.relative_to(ROOT)}`:\n{difference}"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], ["a1", "", "b2", "c3", "b4", "", "d5"]),
        (["b"], ["...", "b2", "..."]),
        (["^a .. ^c"], ["a1", "", "b2", "c3", "..."]),
        (["^a ..< ^c", "d"], ["a1", "", "b2", "...", "d5"]),
        (["c .. +1", "d"], ["...", "c3", "b4", "", "d5"]),
        (["b", "b"], ["...", "b2", "...", "b4", "..."]),
    ],
)
def test_lines_to_show(patterns, expected):
    """Patterns select lines in order; omitted lines become `...`."""
    assert refresh.shown(["a1", "", "b2", "c3", "b4", "", "d5"], patterns) == expected


@pytest.mark.parametrize("pattern", ["x", "a .. x"])
def test_lines_that_are_not_printed(pattern):
    """A pattern without a match is an error, not an empty excerpt."""
    with pytest.raises(LookupError, match="no line matches 'x'"):
        refresh.shown(["a"], [pattern])


def test_what_differs_between_runs_is_not_compared():
    """Only addresses, times and process ids are ignored in the comparison."""
    first = ["<x at 0x7f12>", "Process-3 (pid 71, spawn)", "==== 1 failed in 0.12s ====", "child 71 (f)", "value 71"]
    second = ["<x at 0x9>", "Process-12 (pid 7, spawn)", "=== 1 failed in 10.12s ===", "child 7 (f)", "value 72"]
    same = map(str.__eq__, refresh.normal(first), refresh.normal(second))
    assert list(same) == [True, True, True, True, False]


def test_picture_shows_the_text_in_its_colours():
    """The picture of a terminal is valid XML with the text and colours of each line."""
    from xml.etree import ElementTree

    picture = terminal_picture.svg("$ run <it>", [FIRST, ""])
    ElementTree.fromstring(picture)
    assert terminal_picture.text_of(picture) == ["$ run <it>", "red <a & b> bold", ""]
    assert '<tspan fill="#f38ba8">red</tspan>' in picture
    assert '<tspan fill="#a6e3a1" font-weight="bold">bold</tspan>' in picture
