"""The report of a session as builtins."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from builders import finding, leg, model
from pytest_startmethod.model.finding import values
from pytest_startmethod.report import document


def test_the_users_text_is_as_it_was():
    """Numbers and addresses in a message are left unchanged."""
    text = "process 12 of 40 was child 3 of run 0xdeadbeef, in /project/a.py"
    (test,) = model(leg("spawn", "failed", message=text))["tests"]
    assert test["legs"]["spawn"]["message"] == text


def test_paths_are_relative_to_the_root():
    (test,) = model(leg("spawn", "failed", findings=(finding(evidence=("/project/tests/x.py:3",)),)))["tests"]
    (found,) = test["findings"]
    assert (found["file"], found["evidence"]) == ("tests/test_a.py", ["tests/x.py:3"])


def test_a_finding_has_the_address_of_its_page():
    """A finding of another plugin has no page address."""
    (test,) = model(leg("spawn", "failed", findings=(finding(), finding("DJ001", "no-apps"))))["tests"]
    addresses = [each["url"] for each in test["findings"]]
    assert addresses == ["https://pytest-startmethod.readthedocs.io/en/latest/causes/SM101/", None]


@pytest.mark.parametrize(
    ("described", "passed", "told"),
    [
        ("'hunter2'", True, "str"),
        ("3", True, "int"),
        ("retries=3", True, "retries=int"),
        ("None", True, "NoneType"),
        ("<list of length 3>", True, "<list of length 3>"),
        ("app.work", True, "app.work"),
        ("'hunter2'", False, "'hunter2'"),
        ("password='hunter2'", False, "password=<masked>"),
        ("'a=b'", False, "'a=b'"),
    ],
)
def test_arguments_of_passing_legs_are_types_and_secrets_are_masked(described, passed, told):
    assert document.argument(described, passed=passed) == told


def test_values_of_secrets_are_masked():
    """Values are masked in every text if their names suggest secrets."""
    secret = finding(
        "SM301",
        path="settings.API_TOKEN",
        message="settings.API_TOKEN is 'hunter2' in the parent and 'none at all' in a fresh child",
        evidence=("set at /project/a.py:1: API_TOKEN = 'hunter2'",),
        facts=values("settings.API_TOKEN", "'hunter2'", "'none at all'"),
    )
    text = json.dumps(model(leg("spawn", "failed", findings=(secret,))))
    assert "hunter2" not in text
    assert "settings.API_TOKEN is <masked> in the parent and <masked> in a fresh child" in text


def test_tests_that_no_method_reaches_are_listed_once():
    """Each is listed with what it started and where, whichever legs started it."""
    pinned = {"kind": "context", "method": "fork", "file": "/project/a.py", "line": 4, "count": 2, "tasks": 0}
    session = document.Session("/project", "3.12.1", "linux", "fork", ("fork",), "1")
    legs = [leg(method, foreign=(pinned,)) for method in ("fork", "spawn")]
    found = document.build(legs, session, [{**pinned, "kind": "os.fork", "test": "b"}])["not_exercised"]
    assert found == [
        {"nodeid": "b", "kind": "os.fork", "method": "fork", "file": "a.py", "line": 4},
        {"nodeid": "tests/test_a.py::test_x", "kind": "context", "method": "fork", "file": "a.py", "line": 4},
    ]


def test_tests_that_need_fork_are_counted():
    """They are counted in the summary, per test and per cause."""
    broken = (finding(),)
    report = model(leg("fork"), leg("spawn", "failed", findings=broken), leg("fork", test="b"))
    assert report["summary"]["needs_fork"] == 1
    assert [each["needs_fork"] for each in report["tests"]] == [False, True]
    assert report["groups"][0]["need_fork"] == 1


def test_the_report_follows_its_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("pytest_startmethod") / "report" / "schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    both = (finding(facts=values("a", "1", "2")), finding(line=9))
    validator.validate(model(leg("fork"), leg("spawn", "failed", findings=both), leg("fork", test="b")))
