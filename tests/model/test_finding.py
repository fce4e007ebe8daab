"""A finding as text, and as data sent between processes."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pytest_startmethod.model.codes import CAUSES
from pytest_startmethod.model.finding import (
    WIDTH,
    Fact,
    Finding,
    finding_at,
    is_secret,
    relative,
    source_fact,
    values,
)
from pytest_startmethod.model.place import Place


def finding(**values: Any) -> Finding:
    given: dict[str, Any] = {
        "code": "SM103",
        "name": "unpicklable-object",
        "level": "cause",
        "path": "args[0].lock",
        "file": "/home/me/proj/pkg/store.py",
        "line": 7,
        "message": "`Store.lock` is a lock (_thread.lock).",
        "evidence": ("set at /home/me/proj/pkg/store.py:7: self.lock = threading.Lock()",),
        "fix": "create the lock in the child",
    }
    return Finding(**{**given, **values})


def test_the_whole_text() -> None:
    """The text has title with path, place, message, why fork hid it, evidence and fix."""
    assert str(finding()).splitlines() == [
        "SM103 unpicklable-object: args[0].lock",
        "  /home/me/proj/pkg/store.py:7",
        "  `Store.lock` is a lock (_thread.lock).",
        "  under fork: the child is a copy of the parent, and nothing is pickled",
        "  set at /home/me/proj/pkg/store.py:7: self.lock = threading.Lock()",
        "  fix: create the lock in the child",
    ]


@pytest.mark.parametrize(
    ("root", "text", "told"),
    [
        ("/app", "/app/tests/test_a.py:3: target", "tests/test_a.py:3: target"),
        ("/app/", "at '/app/a.py', in (/app/b.py) or file=/app/c.py", "at 'a.py', in (b.py) or file=c.py"),
        ("/app", "/home/me/app/a.py, ~/app/a.py and /opt/app/app/a.py", None),
        ("/", "/tests/test_a.py:3: input / output", None),
        ("", "/tests/test_a.py:3", None),
        (None, "/tests/test_a.py:3", None),
    ],
)
@pytest.mark.skipif(os.sep != "/", reason="these are POSIX paths")
def test_paths_are_relative_to_the_root_and_no_others_are_touched(root, text, told) -> None:
    """The root's name inside another path is left alone, and nothing is relative to the file system's root."""
    assert relative(text, root) == (told or text)


def test_files_below_the_root_are_relative() -> None:
    """Files below the root are relative in place, message and evidence; others keep their full path."""
    lines = finding(evidence=("set at /home/me/proj/a.py:1: x", "or /home/you/b.py:2")).section_lines("/home/me/proj")
    assert lines[1] == "  pkg/store.py:7"
    assert lines[4:6] == ["  set at a.py:1: x", "  or /home/you/b.py:2"]
    assert finding().section_lines("/home/me/proj/")[1] == "  pkg/store.py:7"


def test_parts_that_are_not_known_are_left_out() -> None:
    """A missing place, path, evidence or fix has no line; a note does not mention fork."""
    bare = finding(path="", file=None, line=None, evidence=(), fix="", level="note")
    assert str(bare) == "SM103 unpicklable-object\n  `Store.lock` is a lock (_thread.lock)."


def test_what_an_experiment_said() -> None:
    """A finding is confirmed, cleared, or untested."""
    lines = finding(code="SM301", confirmed=True, path="pkg.X").section_lines(method="spawn")
    assert "  confirmed: the test passes under spawn when pkg.X reaches the child" in lines
    bare = finding(code="SM301", confirmed=True, path="").section_lines()
    assert "  confirmed: the test passes when it reaches the child" in bare
    lines = finding(code="SM103", confirmed=True, path="pkg.X").section_lines(method="spawn")
    assert "  confirmed: the test passes under spawn when a stand-in for pkg.X reaches the" in lines
    lines = finding(code="SM301", confirmed=False, path="pkg.X").section_lines(method="forkserver")
    assert "  cleared: the test fails the same way under forkserver when pkg.X reaches the" in lines
    assert finding().experiment("spawn") == ""


def test_no_line_is_too_wide() -> None:
    """Long texts wrap with an indent; an unbreakable word stays whole."""
    long = finding(message="word " * 100, evidence=("fact " * 60,), fix="x" * 100 + " " + "do " * 60)
    lines = long.section_lines()
    assert all(len(line) <= WIDTH or "x" * 100 in line for line in lines)
    assert "    " + "x" * 100 in lines


def test_as_builtins_and_back() -> None:
    """The dictionary is JSON; keys from a later version are ignored."""
    made = finding(confirmed=True)
    values = json.loads(json.dumps(made.as_dict()))
    assert Finding.from_dict(values) == made
    assert Finding.from_dict({**values, "later": 1}) == made


def test_facts_are_printed_as_evidence_and_kept_apart(tmp_path) -> None:
    """A value is already in the message; a source line is printed with its place."""
    file = tmp_path / "a.py"
    file.write_text("DEBUG = False\n")
    place = Place(str(file), 1)
    facts = (*values("a.DEBUG", "True", "False"), source_fact("parent", "set", place, "monkeypatch"))
    found = finding_at("SM301", "a.DEBUG", place, "differs", [*facts, "and a remark"], "fix")
    assert found.evidence == (f"set by monkeypatch at {file}:1: DEBUG = False", "and a remark")
    assert found.facts == facts
    assert Finding.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert str(Fact("child", "also different", "a.X, a.Y")) == "also different: a.X, a.Y"


def test_the_catalogue_is_complete() -> None:
    """Each code has a name, a description and why fork hides it, as sentences without a full stop."""
    names = {
        "SM101": "local-function",
        "SM102": "local-class",
        "SM103": "unpicklable-object",
        "SM104": "shadowed-name",
        "SM105": "pickling-raised",
        "SM106": "foreign-primitive",
        "SM107": "too-deep",
        "SM108": "pickling-changes-object",
        "SM204": "copy-differs",
    }
    assert {code: cause.name for code, cause in CAUSES.items() if code in names} == names
    for code in names:
        assert CAUSES[code].code == code
        for sentence in (CAUSES[code].what, CAUSES[code].why_fork):
            assert sentence
            assert not sentence.endswith(".")


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("settings.API_TOKEN", True),
        ("os.environ['PGPASSWORD']", True),
        ("settings.SECRET_KEY", True),
        ("db.pwd", True),
        ("args[0].apiKey", True),
        ("settings.KEYBOARD", False),
        ("secrets.path", False),
        ("target", False),
        ("", False),
    ],
)
def test_names_of_secrets(path, secret) -> None:
    """The last name in a path decides whether a value is secret."""
    assert is_secret(path) is secret
