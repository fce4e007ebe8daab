"""The report as a SARIF log."""

from __future__ import annotations

import re
from dataclasses import replace

from builders import finding, leg, model
from pytest_startmethod.model.finding import source_fact
from pytest_startmethod.model.place import Place
from pytest_startmethod.report import sarif


def run(*legs):
    log = sarif.log(model(*legs))
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    check(log["runs"][0])
    return log["runs"][0]


def check(run):
    """Check the requirements of sections 3.14 to 3.49 of the standard for the objects present."""
    driver = run["tool"]["driver"]
    assert driver["name"] == "pytest-startmethod"
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
    for base in run["originalUriBaseIds"].values():
        assert re.fullmatch(r"file:///.*/", base["uri"])
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        for location in (*result["locations"], *result["relatedLocations"]):
            physical = location["physicalLocation"]
            assert re.fullmatch(r"[\w%./:~-]+", physical["artifactLocation"]["uri"])
            assert physical["artifactLocation"].get("uriBaseId", "ROOT") in run["originalUriBaseIds"]
            assert physical.get("region", {"startLine": 1})["startLine"] >= 1
        numbers = [each["id"] for each in result["relatedLocations"]]
        assert len(numbers) == len(set(numbers))


def test_each_cause_is_a_result():
    """Each cause is an error, warning or note, with its rule and a link to its page."""
    found = run(
        leg("spawn", "failed", findings=(finding(),)),
        leg("forkserver", "failed", findings=(finding(),)),
        leg("fork", test="b", predictions=(finding(line=9),)),
        leg("spawn", test="b", vacuous=replace(finding("SM503", "fixture-started-earlier", level="note"), file=None)),
        leg("fork", test="c"),
        leg("spawn", "failed", test="c", message="assert 3 == 4"),
    )
    results = [(each["ruleId"], each["level"], each["properties"]["tests"]) for each in found["results"]]
    assert results == [
        ("SM101", "error", 1),
        ("SM101", "warning", 1),
        ("SM503", "note", 1),
        ("unexplained", "error", 1),
    ]
    rule = found["tool"]["driver"]["rules"][0]
    assert rule["helpUri"] == "https://pytest-startmethod.readthedocs.io/en/latest/causes/SM101/"
    assert "It cannot be imported.\nfix: move it\n" in found["results"][0]["message"]["text"]


def test_files_are_relative_to_the_root_where_they_are_below_it():
    """Other files stay absolute, and the facts of a finding become related locations."""
    facts = (source_fact("parent", "set", Place("/elsewhere/my lib.py", 3)),)
    (result,) = run(leg("spawn", "failed", findings=(finding(facts=facts),)))["results"]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "tests/test_a.py", "uriBaseId": "ROOT"},
        "region": {"startLine": 7},
    }
    (related,) = result["relatedLocations"]
    assert related["physicalLocation"]["artifactLocation"] == {"uri": "file:///elsewhere/my%20lib.py"}
    assert related["message"] == {"text": "set in the parent"}


def test_a_cause_keeps_its_fingerprint_when_another_test_has_it_first():
    """With another fingerprint, code scanning would close the alert and open a new one."""
    prints = [
        run(leg("spawn", "failed", test=test, findings=(finding(),)))["results"][0]["partialFingerprints"]
        for test in ("a", "b")
    ]
    assert prints[0] == prints[1]
