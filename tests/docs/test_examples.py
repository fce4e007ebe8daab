"""The plugin's findings for each example; the examples themselves assert nothing about them."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
METHODS = ("fork", "spawn", "forkserver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        len(multiprocessing.get_all_start_methods()) < 3, reason="the examples are written for all three methods"
    ),
]

KEEP = """
import dataclasses
import json
import pytest
from pytest_startmethod.model.leg_result import LegResult

class Keep:
    reports = []

    def pytest_runtest_logreport(self, report):
        if hasattr(report, "startmethod"):
            self.reports.append(report)

    def pytest_unconfigure(self):
        with open("legs.json", "w") as file:
            legs = [LegResult.from_dict(report.startmethod) for report in self.reports]
            json.dump([dataclasses.asdict(leg) for leg in legs], file)

def pytest_configure(config):
    config.pluginmanager.register(Keep())
"""


def _run(folder):
    """Run all examples in `folder` in one session."""
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "keep_legs.py").write_text(KEEP)
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(folder), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    environment.pop("PYTEST_ADDOPTS", None)
    plugins = ["-p", "pytest_startmethod.plugin", "-p", "keep_legs", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins, "--start-methods=all", "examples"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, ""), done.stdout


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Return file -> test -> method -> result of the leg."""
    folder = tmp_path_factory.mktemp("examples-run")
    _run(folder)
    files = {}
    for leg in json.loads((folder / "legs.json").read_text()):
        file, _, test = leg["test"].partition("::")
        files.setdefault(Path(file).name, {}).setdefault(test, {})[leg["method"]] = leg
    return files


def outcomes(legs):
    return [legs[method]["outcome"] for method in METHODS]


def findings(legs):
    """Return code, path and line of each finding of the spawn leg; the forkserver leg has the same."""
    found = [[(f["code"], f["path"], f["line"]) for f in legs[m]["findings"]] for m in METHODS[1:]]
    assert found[0] == found[1]
    return found[0]


def line_of(name, text):
    lines = (EXAMPLES / name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


NEEDS_FORK = ["passed", "failed", "failed"]


def test_classics(examples):
    """The four classic cases differ as their texts say."""
    name = "test_classics.py"
    tests = examples[name]
    assert list(map(outcomes, tests.values())) == [NEEDS_FORK, NEEDS_FORK, ["failed"] * 3, NEEDS_FORK]
    assert findings(tests["test_lambda_reads_a_global"]) == [("SM101", "target", line_of(name, "lambda:"))]
    assert findings(tests["test_function_closes_over_a_local"]) == [("SM101", "target", line_of(name, "def triple"))]
    (closure,) = tests["test_function_closes_over_a_local"]["spawn"]["findings"]
    assert closure["evidence"] == [
        "closes over: child = <multiprocessing.connection.Connection object> (pickles), "
        "factor = 3 (pickles), log = <_io.TextIOWrapper object> (does not pickle)"
    ]
    seen = ("SM308", "test_classics.SEEN", line_of(name, "SEEN.append"))
    assert findings(tests["test_write_that_the_parent_never_sees"]) == [seen]
    assert tests["test_write_that_the_parent_never_sees"]["fork"]["findings"][0]["path"] == "test_classics.SEEN"
    mode = ("SM303", "test_classics.MODE", line_of(name, "globals().items()"))
    assert findings(tests["test_globals_side_by_side"]) == [mode]


CAUSES = {
    "test_local_function": ("SM101", "target", "def check"),
    "test_local_class": ("SM102", "args[0].__class__", "class Job"),
    "test_unpicklable_object": ("SM103", "target.__self__.lock", "self.lock ="),
    "test_shadowed_name": ("SM104", "target", "def work"),
    "test_pickling_raised": ("SM105", "args[0]", "def __getstate__"),
    "test_foreign_primitive": ("SM106", "args[0]", 'get_context("fork").Lock()'),
}


def test_each_way_not_to_pickle(examples):
    """Each code of the SM1xx family has an example, with its path and line."""
    name = "test_pickling.py"
    tests = examples[name]
    assert {test: outcomes(legs) for test, legs in tests.items()} == dict.fromkeys(
        [*CAUSES, "test_too_deep"], NEEDS_FORK
    )
    for test, (code, path, text) in CAUSES.items():
        first, *more = findings(tests[test])
        assert first == (code, path, line_of(name, text)), test
        # 3.10 starts a child with a foreign lock, and the child crashes
        assert [each[0] for each in more] == ["SM404"] * (code == "SM106" and sys.version_info < (3, 11))
    assert [f["code"] for f in tests["test_too_deep"]["spawn"]["findings"]] == ["SM107"]


STATE = {
    "test_global_state": (NEEDS_FORK, "SM301", "test_state.LIMIT", "return LIMIT"),
    "test_class_state": (NEEDS_FORK, "SM302", "test_state.Shape.corners", "return Shape.corners"),
    "test_patch_lost": (NEEDS_FORK, "SM303", "test_state.price", "return price() * 2"),
    "test_mock_lost": (NEEDS_FORK, "SM303", "test_state.price", "return price() * 2"),
    "test_stale_environment": (
        ["passed", "passed", "failed"], "SM304", "os.environ['EXAMPLE_HOME']", "os.environ.get",
    ),
    "test_logging_lost": (NEEDS_FORK, "SM305", "logging.getLogger('example')", "getEffectiveLevel()"),
    "test_process_state_lost": (NEEDS_FORK, "SM306", "decimal", "decimal.Decimal(1)"),
    "test_unshared_primitive": (NEEDS_FORK, "SM307", "test_state.ANSWERS", "ANSWERS.put"),
    "test_unshared_lock": (["passed"] * 3, "SM307", "test_state.LOCK", "with LOCK"),
    "test_write_lost": (["failed"] * 3, "SM308", "test_state.FOUND", "FOUND.append"),
}  # fmt: skip


def test_each_way_to_see_other_values(examples):
    """Each code of the SM3xx family has an example, with the name and the line that reads it, and no other finding."""
    name = "test_state.py"
    tests = examples[name]
    assert {test: outcomes(legs) for test, legs in tests.items()} == {t: row[0] for t, row in STATE.items()}
    for test, (words, code, path, text) in STATE.items():
        for method, word in zip(METHODS, words, strict=True):
            found = [(f["code"], f["path"], f["line"]) for f in tests[test][method]["findings"]]
            shown = word == "failed" or (test == "test_unshared_lock" and method != "fork")
            assert found == ([(code, path, line_of(name, text))] if shown else []), (test, method)
    assert tests["test_unshared_lock"]["spawn"]["findings"][0]["level"] == "note"


CHILDREN = {
    "test_module_not_importable": (NEEDS_FORK, ["SM201"]),
    "test_name_missing_in_child": (NEEDS_FORK, ["SM202"]),
    "test_unpickling_raised": (NEEDS_FORK, ["SM203"]),
    "test_pool_crash_loop": (NEEDS_FORK, ["SM303", "SM402"]),
    "test_hang": (NEEDS_FORK, ["SM303", "SM403"]),
    "test_child_crashed": (NEEDS_FORK, ["SM303", "SM404"]),
    "test_fork_with_threads": (["failed", "passed", "passed"], ["SM405", "SM403"]),
    "test_unpicklable_result": (["failed"] * 3, ["SM407"]),
    "test_start_failed_elsewhere": (NEEDS_FORK, ["SM101", "SM408"]),
}


def test_each_way_in_which_a_child_goes_wrong(examples):
    """Each code of the SM2xx and SM4xx families has an example."""
    tests = examples["test_children.py"]
    assert {test: outcomes(legs) for test, legs in tests.items()} == {t: o for t, (o, _) in CHILDREN.items()}
    for test, (words, codes) in CHILDREN.items():
        for method, word in zip(METHODS, words, strict=True):
            found = [each["code"] for each in tests[test][method]["findings"]]
            assert found == (codes if word == "failed" else []), (test, method)


def test_each_way_to_test_nothing(examples):
    """Each code of the SM5xx family has an example."""
    name = "test_vacuous.py"
    tests = examples[name]
    assert {test: outcomes(legs) for test, legs in tests.items()} == {
        **dict.fromkeys(["test_starts_nothing", "test_pinned_method", "test_fixture_started_earlier"], ["passed"] * 3),
        "test_declares_fork_only": ["passed", "skipped", "skipped"],
    }

    def said(test, method):
        vacuous = tests[test][method]["vacuous"]
        return vacuous and (vacuous["code"], vacuous["line"])

    assert [said("test_starts_nothing", m) for m in METHODS] == [("SM501", None)] * 3
    pinned = ("SM502", line_of(name, 'get_context("fork")'))
    assert [said("test_pinned_method", m) for m in METHODS] == [None, pinned, pinned]
    earlier = ("SM503", line_of(name, "with multiprocessing.Pool"))
    assert [said("test_fixture_started_earlier", m) for m in METHODS] == [None, earlier, earlier]
    check = ("SM504", "start method check", line_of(name, "if multiprocessing.get_start_method()"))
    assert findings(tests["test_declares_fork_only"]) == [check]
