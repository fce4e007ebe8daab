"""``--start-methods-report``: which files are written, when, and what the JSON contains."""

from __future__ import annotations

import copy
import difflib
import json
import os
import re
from importlib.resources import files
from pathlib import Path

import pytest

from builders import finding, leg
from pytest_startmethod.report import document
from pytest_startmethod.session import report_files

SESSION = document.Session(
    root="/project", python="3.12.1", platform="linux", default="fork", methods=("fork", "spawn"), version="1"
)


def build(*legs):
    return document.build(legs, SESSION)


def read(session, name="report.json"):
    return json.loads((session.path / name).read_text(encoding="utf-8"))


def validate(report):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("pytest_startmethod") / "report" / "schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(report)


# -- the model -------------------------------------------------------------------------------------------------------


def test_leading_cause_comes_first_and_equal_findings_are_one():
    """Causes of failing legs precede those that a passing leg swallowed; predictions and vacuous notes are last."""
    first, second, other = finding("SM103", line=1), finding("SM101", line=2), finding("SM105", line=3)
    model = build(
        leg("fork", predictions=(first, finding("SM107", line=9)), findings=(finding("SM105", line=5),)),
        leg("spawn", "failed", findings=(first, second)),
        leg("forkserver", "failed", findings=(other, first)),
    )
    (test,) = model["tests"]
    assert [(each["code"], each["line"], each["methods"], each["predicted"]) for each in test["findings"]] == [
        ("SM103", 1, ["spawn", "forkserver"], False),
        ("SM105", 3, ["forkserver"], False),
        ("SM101", 2, ["spawn"], False),
        ("SM105", 5, ["fork"], False),
        ("SM107", 9, ["spawn", "forkserver"], True),
    ]


def test_vacuous_leg_says_so_and_its_finding_why():
    """The leg has a boolean; its finding is listed with the test's others."""
    (test,) = build(leg("spawn", vacuous=finding("SM501", "vacuous", level="note")), leg("fork"))["tests"]
    assert [test["legs"][method]["vacuous"] for method in ("fork", "spawn")] == [False, True]
    assert [(each["code"], each["methods"]) for each in test["findings"]] == [("SM501", ["spawn"])]
    assert test["verdict"] == "vacuous"


def test_workers_of_a_pool_are_one_launch():
    """Their number and how they end depend on timing."""
    launch = {"method": "spawn", "target": "worker", "args": [], "file": "/project/a.py", "line": 3, "thread": None}
    launches = tuple({**launch, "pid": pid, "exit_code": code, "worker": True} for pid, code in [(1, 0), (2, -15)])
    (test,) = build(leg("spawn", launches=(*launches, {**launch, "pid": 3, "exit_code": 0, "worker": False})))["tests"]
    assert [(each["pid"], each["exit_code"], each["file"]) for each in test["legs"]["spawn"]["launches"]] == [
        (1, None, "a.py"),
        (3, 0, "a.py"),
    ]


def test_one_cause_of_many_tests_is_one_group():
    """The group has the count, the first test, and all of them."""
    broken = finding(path="args[3].lock")
    model = build(
        *(leg("spawn", "failed", test=f"t.py::t[{n}]", findings=(broken,)) for n in range(200)),
        leg("fork", test="t.py::t[0]", predictions=(finding(path="args[1].lock"),)),
    )
    (group,) = model["groups"]
    assert (group["tests"], group["legs"], group["first"]) == (200, 200, "t.py::t[0][spawn]")
    assert group["nodeids"][10] == "t.py::t[10][spawn]"  # numbers sort as numbers
    assert len(group["nodeids"]) == 200


def test_failures_without_a_cause_are_told():
    """They are listed if another method passed; flakiness and notes do not count as causes."""
    model = build(
        leg("fork"),
        leg("spawn", "failed", message="assert 3 == 4", findings=(finding("SM504", level="note"),)),
        leg("fork", test="b"),
        leg("spawn", "failed", test="b", flaky=True),
        leg("fork", "failed", test="c"),
        leg("spawn", "failed", test="c"),
    )
    assert [(each["message"], each["nodeids"]) for each in model["unexplained"]] == [
        ("assert 3 == 4", ["tests/test_a.py::test_x[spawn]"])
    ]
    assert model["summary"]["verdicts"] == {"needs-fork": 1, "fails": 1, "flaky": 1}
    assert model["summary"]["outcomes"]["spawn"] == {"failed": 3, "flaky": 1}


def test_methods_of_other_packages_have_their_place():
    """They come after the standard library's, by package."""
    (test,) = build(leg("multiprocess:spawn", "failed"), leg("forkserver"), leg("fork"))["tests"]
    assert list(test["legs"]) == ["fork", "forkserver", "multiprocess:spawn"]
    validate(build(leg("multiprocess:spawn", "failed")))


# -- files -----------------------------------------------------------------------------------------------------------


def test_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    """A failure leaves the previous content, and no other file."""
    path = tmp_path / "r.json"
    report_files.write(str(path), "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        report_files.write(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.json"]


SUITE = """
    import multiprocessing
    import threading
    from concurrent.futures import ProcessPoolExecutor
    import pytest

    pytestmark = pytest.mark.startmethods

    def work(*args): pass

    def run(target, *args):
        process = multiprocessing.Process(target=target, args=args)
        process.start()
        process.join()
        assert process.exitcode == 0

    @pytest.mark.parametrize("n", [2, 10, 9])
    def test_lambda(n): run(lambda: n)

    def test_lock(tmp_path): run(work, str(tmp_path), threading.Lock())

    @pytest.mark.parametrize("n", [0, 1, 2, 3])
    def test_again(n): run(work, n, None, "text", "\\udc80", "x" * 99)

    def test_pool():
        with ProcessPoolExecutor(2) as pool:
            assert list(pool.map(abs, [-1, -2])) == [1, 2]

    def test_thread():
        thread = threading.Thread(target=run, args=(work,))
        thread.start()
        thread.join()

    def test_nothing(): pass

    class TestA:
        @pytest.mark.xfail
        def test_x(self): assert object() == 3
"""


def comparable(report):
    """Return the report as text, without times, process ids and the user's texts that contain them."""
    report = copy.deepcopy(report)
    for key in ("command", "started", "duration"):
        del report[key]
    for test in report["tests"]:
        for each in test["legs"].values():
            del each["duration"]
            for launch in each["launches"]:
                del launch["pid"]
    text = json.dumps(report, indent=1)
    return re.sub(r"0x[0-9a-f]+|'/[^']*/test_lock\w*'|Thread-\d+", "", text)


@pytest.mark.slow
def test_report_is_valid_and_the_same_with_xdist(session):
    """Only durations and pids differ."""
    session.file(test_b=SUITE, test_a=SUITE)
    outcome = session.run("--start-methods-report=report.json")
    report = read(session)
    assert f"start methods report: {session.path / 'report.json'}" in outcome.lines
    validate(report)
    assert report["summary"]["verdicts"] == {"passes": 12, "needs-fork": 8, "xfails": 2, "vacuous": 2}
    for number in ("2", "4"):
        session.run("-n", number, "--start-methods-report=report.json", where="xdist")
        diff = difflib.unified_diff(comparable(report).splitlines(), comparable(read(session)).splitlines(), n=12)
        assert "\n".join(diff) == ""


def test_several_files_and_both_sources(session):
    """The command line beats the ini file; both accept several files."""
    session.file(test_a="def test_a(): pass").file(
        "pytest.ini", "[pytest]\nstart_methods_report =\n    one.json\n    two.json\n"
    )
    session.run()
    assert read(session, "one.json") == read(session, "two.json")
    session.run("--start-methods-report=three.json", "--start-methods-report", "four.json")
    assert sorted(each.name for each in session.path.glob("*.json")) == [
        "four.json",
        "one.json",
        "three.json",
        "two.json",
    ]


def test_report_of_no_leg(session):
    """A session without legs writes a valid, empty report."""
    session.file(test_a="def test_a(): pass").run("--start-methods-report=report.json")
    report = read(session)
    validate(report)
    assert (report["tests"], report["groups"], report["exit_status"]) == ([], [], 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("r.txt", "'r.txt' has no known suffix (valid: .json, .html, .md, .sarif)"),
        ("r", "'r' has no known suffix (valid: .json, .html, .md, .sarif)"),
        ("no/r.json", "'no/r.json' cannot be written: there is no directory '{path}/no'"),
        ("d.json", "'d.json' is a directory"),
    ],
)
@pytest.mark.parametrize("source", ["--start-methods-report", "ini key start_methods_report"])
def test_a_path_that_cannot_be_written_is_one_line_and_status_4(session, text, problem, source):
    """The error is raised at configure, before anything runs."""
    (session.path / "d.json").mkdir()
    session.file(test_a="def test_a(): pass")
    if source.startswith("ini"):
        outcome = session.ini(start_methods_report=text).run()
    else:
        outcome = session.run(f"{source}={text}")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert [line for line in outcome.lines if line.strip()] == [f"ERROR: {source}: {problem.format(path=session.path)}"]


INTERRUPTED = """
    import pytest

    @pytest.mark.startmethods("fork", "spawn")
    def test_a(start_method): pass

    def test_b():
        {what}
"""


@pytest.mark.parametrize(
    ("what", "args", "status"),
    [
        ("raise KeyboardInterrupt", [], pytest.ExitCode.INTERRUPTED),
        ("assert 0", ["-x"], pytest.ExitCode.TESTS_FAILED),
        ("pytest.exit('enough', 2)", [], pytest.ExitCode.INTERRUPTED),
    ],
)
def test_interrupted_session_has_its_report(session, what, args, status):
    """The report has the legs that finished."""
    session.file(test_a=INTERRUPTED.format(what=what))
    outcome = session.run("--start-methods-report=report.json", *args)
    assert outcome.status == status
    report = read(session)
    validate(report)
    assert [list(test["legs"]) for test in report["tests"]] == [["fork", "spawn"]]
    assert report["exit_status"] == status


def test_internal_error_has_its_report(session):
    """The report is written even if another plugin crashes during a test."""
    session.file(
        test_a=INTERRUPTED.format(what="pass"),
        conftest="""
            def pytest_runtest_logstart(nodeid):
                if "test_b" in nodeid:
                    raise ValueError("a plugin's own")
        """,
    )
    outcome = session.run("--start-methods-report=report.json")
    assert outcome.status == pytest.ExitCode.INTERNAL_ERROR
    assert len(read(session)["tests"]) == 1


def test_collecting_only_writes_nothing(session):
    """An existing report stays."""
    session.file(test_a="def test_a(): pass").file("report.json", "old")
    session.run("--collect-only", "--start-methods-report=report.json")
    assert (session.path / "report.json").read_text() == "old"


def test_a_report_that_cannot_be_written_at_the_end_is_told(session):
    """The session ends as it would otherwise."""
    session.file(
        test_a="""
            import shutil
            def test_a(): shutil.rmtree("out")
        """
    )
    (session.path / "out").mkdir()
    outcome = session.run("--start-methods-report=out/report.json")
    path = session.path / "out" / "report.json"
    assert outcome.status == 0
    assert any(
        line.startswith(f"start methods report: {path} was not written: FileNotFoundError") for line in outcome.lines
    )


def test_every_key_is_documented():
    """The schema has every key of the report."""
    schema = json.loads((files("pytest_startmethod") / "report" / "schema.json").read_text(encoding="utf-8"))
    text = (Path(__file__).parents[2] / "docs" / "reference" / "report.md").read_text(encoding="utf-8")
    for part in [schema, *schema["$defs"].values()]:
        for key in part.get("properties", ()):
            assert f"`{key}`" in text, key
    report = build(leg("spawn", "failed", findings=(finding(),)), leg("fork"))
    assert set(report) == set(schema["properties"])
