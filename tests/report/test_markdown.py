"""The report as Markdown."""

from __future__ import annotations

import re

import pytest

from builders import finding, leg, model
from pytest_startmethod.report import markdown
from pytest_startmethod.report.links import Links

DOCS = "https://pytest-startmethod.readthedocs.io/en/latest/causes"


def test_report_reads():
    """It contains the verdicts, one table of causes, the legs, and collapsed details."""
    broken = finding(message="`work` is nested", evidence=("closes over: x = 1",), fix="move `work` to the module")
    text = markdown.text(
        model(
            leg("fork"),
            leg("spawn", "failed", findings=(broken,)),
            leg("forkserver", "failed", findings=(broken,)),
            leg("spawn", test="tests/test_a.py::test_y", vacuous=finding("SM501", "vacuous", level="note", path="")),
        )
    )
    assert text.splitlines() == [
        "## Start methods",
        "",
        "2 tests: **1 needs fork**, 1 vacuous. **1 test still needs fork.**",
        "",
        "| cause | where | tests | fix |",
        "|---|---|---|---|",
        f"| [SM101]({DOCS}/SM101/) local-function | `tests/test_a.py:7` `target` | 1 (1 need fork) "
        "| move `work` to the module |",
        "",
        "Python 3.12.1 on linux, default `fork`; ran under fork, spawn.",
        "",
        "| legs | passed | failed | vacuous |",
        "|---|---:|---:|---:|",
        "| fork | 1 | - | - |",
        "| spawn | 1 | 1 | 1 |",
        "| forkserver | - | 1 | - |",
        "",
        "<details><summary>SM101 local-function <code>target</code>: 2 legs of 1 test (spawn, forkserver)</summary>",
        "",
        "`work` is nested",
        "",
        "**Fix:** move `work` to the module",
        "",
        "```text",
        "closes over: x = 1",
        "```",
        "",
        "- `tests/test_a.py::test_x[spawn]`",
        "- `tests/test_a.py::test_x[forkserver]`",
        "",
        "</details>",
        "",
        "<details><summary>Note: SM501 vacuous: 1 leg passed without a process of the method (spawn)</summary>",
        "",
        "It cannot be imported.",
        "",
        "**Fix:** move it",
        "",
        "- `tests/test_a.py::test_y[spawn]`",
        "",
        "</details>",
        "",
        "<details><summary>Tests that do not pass under every method (2)</summary>",
        "",
        "| test | verdict | fork | spawn | forkserver | codes |",
        "|---|---|---|---|---|---|",
        "| `tests/test_a.py::test_x` | needs-fork | passed | failed | failed | SM101 |",
        "| `tests/test_a.py::test_y` | vacuous |  | passed |  | SM501 |",
        "",
        "</details>",
    ]


def test_places_are_links_to_the_commit_in_ci():
    """Locations link to GitHub or GitLab; elsewhere they are plain text."""
    broken = model(leg("spawn", "failed", findings=(finding(),)))
    github = {"GITHUB_REPOSITORY": "me/proj", "GITHUB_SHA": "abc", "GITHUB_WORKSPACE": "/"}
    text = markdown.text(broken, Links.of(github, "/project"))
    assert "[`tests/test_a.py:7`](https://github.com/me/proj/blob/abc/project/tests/test_a.py#L7)" in text
    gitlab = {"CI_PROJECT_URL": "https://gl.example/p", "CI_COMMIT_SHA": "abc", "CI_PROJECT_DIR": "/project"}
    text = markdown.text(broken, Links.of(gitlab, "/project"))
    assert "[`tests/test_a.py:7`](https://gl.example/p/-/blob/abc/tests/test_a.py#L7)" in text
    assert "](https://github" not in markdown.text(broken, Links.of({}, "/project"))


def test_no_leg():
    """A session without legs is one sentence."""
    assert markdown.text(model()).splitlines()[-1] == "No test ran under a start method of its own."


def test_interrupted():
    """An interruption is mentioned at the top."""
    text = markdown.text(model(leg(), status=2))
    assert "**The session did not come to its end. What had run until then is here.**" in text


NASTY = "a|b <script>x</script> ``` `` ` </details> @user *bold* [link](x) \\ \n\n# head\x1b[31m"


def test_any_text_is_harmless():
    """User text cannot produce HTML, table cells, headings or mentions; fences are longer than those inside."""
    text = markdown.text(
        model(
            leg("fork", test=f"t.py::test[{NASTY}]"),
            leg(
                "spawn",
                "failed",
                test=f"t.py::test[{NASTY}]",
                findings=(finding(message=NASTY, fix=NASTY, path=NASTY, evidence=(NASTY, "````")),),
                troubles=(NASTY,),
            ),
        )
    )
    plain = []
    fence = None
    for line in text.splitlines():
        if fence is None and line.startswith("```"):
            fence = line.removesuffix("text")
        elif line == fence:
            fence = None
        elif fence is None:
            plain.append(line)
    assert fence is None
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", "\n".join(plain) + "\n")  # without code
    outside = outside.replace("<details><summary>", "(").replace("</summary>", "").replace("\n</details>\n", ")")
    outside = outside.replace("<code>", "").replace("</code>", "")
    assert "<" not in outside
    assert "@" not in outside
    assert outside.count("(") - outside.count(")") == 0
    assert "\x1b" not in text
    assert not any(line.startswith("# ") for line in plain)
    (row,) = [line for line in plain if line.startswith("| ") and "needs-fork" in line]
    assert row.replace("\\|", "").count("|") == 6  # test, verdict, two methods, codes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a_b <i>", "a\\_b &lt;i&gt;"),
        ("`code` | x", "`code` \\| x"),
        ("one ` only", "one \\` only"),
        ("@who", "&#64;who"),
        ("a\nb", "a b"),
        ("", "-"),
    ],
)
def test_inline(text, shown):
    """Text between backticks is code, everything else is literal."""
    assert markdown.inline(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"), [("x", "`x`"), ("a`b", "``a`b``"), ("`a", "`` `a ``"), ("a|b", "`a|b`"), ("", "`  `")]
)
def test_code(text, shown):
    """The fence is longer than any run of backticks in the text."""
    assert markdown.code(text) == shown


def test_many_are_cut():
    """100 tests and 100 legs are listed; a GitHub comment is limited to 64 KiB."""
    broken = finding()
    text = markdown.text(
        model(*(leg(test=f"tests/t.py::t[{n}]", outcome="failed", findings=(broken,)) for n in range(3000)))
    )
    assert "- and 2900 more, in the JSON report" in text
    assert "And 2900 more, in the JSON report." in text
    assert len(text) < 64 * 1024


def test_a_report_fits_into_a_comment_whatever_the_suite():
    """Even with long texts: whole blocks are dropped from the end, and the table of causes stays."""
    causes = [
        finding(line=n, message="long " * 300, fix="`fix` " * 200, evidence=("fact " * 90,)) for n in range(1, 400)
    ]
    text = markdown.text(model(*(leg("spawn", "failed", test=f"t{n}", findings=(c,)) for n, c in enumerate(causes))))
    assert len(text.encode()) <= markdown.MOST < 65_536
    assert text.count("[SM101]") >= 100
    assert text.count("<details>") == text.count("</details>")
    assert text.endswith("the JSON and HTML reports have it.\n")
