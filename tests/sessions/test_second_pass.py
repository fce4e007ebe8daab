"""Experiments run after the session's last test, and are invisible to plugins that record tests."""

from __future__ import annotations

import json
import re

import pytest

from conftest import Session, Where

APP = """
    VALUE = None


    def only_if_it_arrived():
        return 1
"""

PATCHED = """
    import multiprocessing

    import app
    import pytest

    from work import work


    def ask():
        queue = multiprocessing.SimpleQueue()
        process = multiprocessing.Process(target=work, args=(queue,))
        process.start()
        process.join()
        return queue.get()


    @pytest.fixture
    def patched(monkeypatch):
        monkeypatch.setattr(app, "VALUE", 1)
"""

WORK = """
    import app


    def work(queue):
        queue.put(app.VALUE)
"""


@pytest.fixture(autouse=True)
def _target(session: Session) -> None:
    """Write the target's module, apart from the test module: a child that imports that one imports pytest."""
    session.file(work=WORK)


FAILING = (
    PATCHED
    + """
    @pytest.mark.startmethods("fork", "spawn")
    def test_patched(patched):
        assert ask() == 1
"""
)

CONFIRMED = "------------------- SM303 patch-lost (confirmed under spawn) -------------------"


RECORDER = """
    import pytest

    seen = []


    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        seen.append(f"{report.when} {report.outcome}")
        item.outcome_of_call = report.outcome
        return report


    def pytest_runtest_setup(item):
        seen.append("hook setup")


    def pytest_fixture_setup(fixturedef):
        seen.append(f"fixture {fixturedef.argname}")


    @pytest.fixture(autouse=True)
    def looks_at_the_outcome(request):
        yield
        assert request.node.outcome_of_call


    def pytest_unconfigure():
        print("SEEN", *(each for each in seen if each.startswith(("call", "hook"))), sep="|")
        print("FIXTURES", sum(each == "fixture patched" for each in seen))
"""


def test_a_conftest_that_records_reports_sees_each_leg_once(session: Session) -> None:
    """All its hooks are left out, and a fixture that depends on them may fail in teardown."""
    outcome = session.file(app=APP, test_a=FAILING, conftest=RECORDER).run("-s")
    assert CONFIRMED in outcome.lines
    assert "SEEN|hook setup|call passed|hook setup|call failed" in outcome.lines
    assert "FIXTURES 2" in outcome.lines


REPORTER = """
    import pytest


    class Reporter:
        def __init__(self):
            self.lines = []

        def pytest_runtest_logreport(self, report):
            self.lines.append(f"{report.when} {report.outcome}")

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item):
            item.of_reporter = 1
            return (yield)

        def pytest_runtest_setup(self, item):
            assert item.of_reporter  # as pytest-json-report does

        def pytest_unconfigure(self):
            print("REPORTED", *self.lines, sep="|")


    def pytest_configure(config):
        config.pluginmanager.register(Reporter())
"""


def test_a_plugin_that_takes_part_in_the_protocol_is_left_out(session: Session) -> None:
    outcome = session.file(app=APP, test_a=FAILING, reporter=REPORTER).plugin("reporter").run("-s")
    assert CONFIRMED in outcome.lines
    passed, failed = "setup passed|call passed|teardown passed", "setup passed|call failed|teardown passed"
    assert f"REPORTED|{passed}|{failed}" in outcome.lines


SNAPSHOTS = """
    import pytest

    taken = []


    @pytest.fixture
    def picture():
        taken.append(1)


    @pytest.fixture(autouse=True)
    def of_every_test():
        pass


    def pytest_terminal_summary(terminalreporter):
        terminalreporter.write_line(f"pictures: {len(taken)}")
"""


def test_a_leg_whose_fixture_records_is_not_run_again_and_says_so(session: Session) -> None:
    """A fixture whose plugin writes its own summary counts as recording, unless every test uses it."""
    source = (
        FAILING
        + """
    @pytest.fixture
    def album(picture):
        pass

    @pytest.mark.startmethods("spawn")
    def test_recording(album):
        process = multiprocessing.Process(target=lambda: None)
        process.start()
"""
    )
    outcome = session.file(app=APP, test_a=source, pictures=SNAPSHOTS).plugin("pictures").run()
    assert "pictures: 1" in outcome.lines
    assert outcome.lines.count("  not verified: the fixture picture would record the extra runs") == 1
    assert CONFIRMED in outcome.lines


CHECKS = """
    import pytest


    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(item, call):
        if call.when == "call" and getattr(item, "checks", None):  # as pytest-check does
            try:
                raise AssertionError(item.checks[0])
            except AssertionError:
                call.excinfo = pytest.ExceptionInfo.from_current()
        return (yield)
"""


def test_a_failure_that_only_a_hook_made_is_not_taken_for_a_flake(session: Session) -> None:
    source = (
        PATCHED
        + """
    @pytest.mark.startmethods("spawn")
    def test_checked(request, patched):
        request.node.checks = [] if ask() == 1 else ["it is not 1"]
"""
    )
    outcome = session.file(app=APP, test_a=source, checks=CHECKS).plugin("checks").run()
    assert "  not verified: the test raised nothing; a hook made its report a failure" in outcome.lines
    assert "flaky" not in outcome.out


def test_coverage_does_not_count_what_only_an_experiment_reaches(session: Session) -> None:
    """Neither this process nor a child is measured, however coverage.py measures children."""
    source = FAILING.replace("== 1", "== 1\n        app.only_if_it_arrived()").replace('"fork", ', "")
    session.file(app=APP, test_a=source)
    session.file(".coveragerc", "[run]\nparallel = true\nconcurrency = multiprocessing\nsource = .\n")
    outcome = session.plugin("measuring").file(
        measuring="""
        import coverage
        import pytest

        measured = coverage.Coverage(config_file=".coveragerc")
        measured.start()


        @pytest.hookimpl(trylast=True)
        def pytest_unconfigure():
            measured.stop()
            measured.save()
            measured.combine()
            lines = measured.get_data().lines
            import app, work_lines, os
            print("LINES", *(n for n in lines(os.path.abspath("app.py")) or ()))
        """,
        work_lines="",
    )
    outcome = session.run("-s", where="subprocess")
    assert CONFIRMED in outcome.lines
    assert "LINES 1 4" in outcome.lines


def test_subtests_are_confirmed(session: Session, where: Where) -> None:
    pytest.importorskip("_pytest.subtests", reason="new in pytest 9")
    source = (
        PATCHED
        + """
    @pytest.mark.startmethods("spawn")
    def test_parts(subtests, patched):
        with subtests.test("first"):
            assert ask() == 1
        with subtests.test("second"):
            assert True
"""
    )
    outcome = session.file(app=APP, test_a=source).run(where=where)
    assert CONFIRMED in outcome.lines
    assert outcome.out.count("SUBFAILED") == 1


def test_session_fixtures_are_built_once_while_tests_of_the_session_are_to_come(session: Session) -> None:
    session.file(
        app=APP,
        test_a=FAILING.replace("(patched)", "(patched, database)")
        + """
    def test_later(database):
        assert database == 1
""",
        conftest="""
        import pytest

        built = []


        @pytest.fixture(scope="session")
        def database():
            built.append(1)
            yield len(built)
        """,
    )
    outcome = session.run()
    assert outcome.names == {"test_patched[fork]": "passed", "test_patched[spawn]": "failed", "test_later": "passed"}
    assert CONFIRMED in outcome.lines


@pytest.mark.parametrize("option", ["--pdb", "--setup-only", "--no-start-methods-verify"])
def test_nothing_is_verified_with(session: Session, option: str) -> None:
    outcome = session.file(app=APP, test_a=FAILING).run(option, where="subprocess")
    assert "start methods: verifying" not in outcome.out
    assert CONFIRMED not in outcome.lines


def test_what_experiments_say_is_in_every_report(session: Session, where: Where) -> None:
    session.file(app=APP, test_a=FAILING).plugin("pytest_metadata.plugin").plugin("pytest_html.plugin")
    files = ("--junitxml=junit.xml", "--start-methods-report=report.json", "--html=rows.html")
    outcome = session.run(*files, where=where)
    assert CONFIRMED in outcome.lines
    junit = (session.path / "junit.xml").read_text(encoding="utf-8")
    assert "confirmed: the test passes under spawn" in junit
    assert "confirmed: the test passes under spawn" in (session.path / "rows.html").read_text(encoding="utf-8")
    (test,) = json.loads((session.path / "report.json").read_text(encoding="utf-8"))["tests"]
    assert [each["confirmed"] for each in test["findings"]] == [True]


def test_the_terminal_says_that_and_how_long_it_verifies(session: Session) -> None:
    outcome = session.file(app=APP, test_a=FAILING).run()
    said = "start methods: verifying 1 failed leg (at most 60 s; --no-start-methods-verify skips this)"
    assert said in outcome.lines
    assert outcome.lines[outcome.lines.index(said) - 1].endswith("[100%]")
    assert re.search(r"^1 failed leg verified in 3 runs, \d+\.\d s$", outcome.out, re.MULTILINE)
    line = "0 failed legs verified in 0 runs, 0.0 s; 1 left out or cut short for lack of time"
    outcome = session.run("--start-methods-verify=0.001")
    assert f"{line} (--start-methods-verify=SECONDS)" in outcome.lines
    quiet = session.run("-q")
    assert "verif" not in quiet.out


def test_what_the_terminal_says_of_verifying_follows_a_progress_bar_on_a_line_of_its_own(session: Session) -> None:
    """pytest-sugar, for one, leaves a bar without a newline, of which the terminal reporter knows nothing."""
    conftest = """
        import pytest


        @pytest.fixture(scope="session", autouse=True)
        def bar(request):
            yield
            request.config.get_terminal_writer().write("\\nBAR")
            request.config.pluginmanager.get_plugin("terminalreporter").currentfspath = None
    """
    outcome = session.file(app=APP, test_a=FAILING, conftest=conftest).run("--capture=no")
    assert "BAR" in outcome.out
    assert any(line.startswith("start methods: verifying 1 failed leg") for line in outcome.lines)


@pytest.mark.parametrize("capture", ["fd", "sys", "tee-sys", "no"])
def test_nothing_that_an_experiment_writes_is_printed(session: Session, capture: str) -> None:
    """Not even what pytest lets through in an ordinary run: the test's own is printed by its two legs only."""
    source = FAILING.replace(
        "test_patched(patched):",
        """test_patched(patched, capsys, request):
        with capsys.disabled():
            print("DISABLED", file=sys.stderr, flush=True)
            os.write(2, b"DESCRIPTOR\\n")
        with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
            print("SUSPENDED")""",
    ).replace("import multiprocessing\n", "import multiprocessing\n    import os\n    import sys\n", 1)
    outcome = session.file(app=APP, test_a=source).run(f"--capture={capture}", where="subprocess")
    assert CONFIRMED in outcome.lines
    for word in "DISABLED", "DESCRIPTOR", "SUSPENDED":
        assert sum(line.endswith(word) for line in outcome.lines) == 2


def test_if_an_experiment_breaks_the_session_ends_as_without(session: Session) -> None:
    session.file(
        app=APP,
        test_a=FAILING,
        conftest="""
        from pytest_startmethod.experiments import verifying


        class Broken:
            def __init__(self, seconds):
                raise OSError("no more memory")


        verifying.Verifier = Broken
        """,
    )
    outcome = session.run(where="subprocess")
    assert outcome.status == 1
    assert "pytest-startmethod: OSError in an experiment: no more memory" in outcome.lines
    assert outcome.names == {"test_patched[fork]": "passed", "test_patched[spawn]": "failed"}


UNSEEN = """
    import csv
    import multiprocessing
    import threading

    import pytest
    import work
    from work import recorded, rows, total

    pytestmark = pytest.mark.startmethods("fork", "spawn")


    def ask(work):
        queue = multiprocessing.SimpleQueue()
        process = multiprocessing.Process(target=work, args=(queue,))
        process.start()
        process.join()
        return queue.get()


    def test_rows():
        csv.register_dialect("pipes", delimiter="|")
        try:
            assert ask(rows) == ["a", "b"]
        finally:
            csv.unregister_dialect("pipes")


    def test_total():
        work.create("a", 3)
        assert ask(total) == 3


    def test_recorded():
        threading.excepthook, before = recorded.hook(), threading.excepthook
        try:
            assert ask(recorded) == 1
        finally:
            threading.excepthook = before
"""

UNSEEN_WORK = """
    import csv
    import threading


    def rows(queue):
        try:
            queue.put(next(csv.reader(["a|b"], dialect="pipes")))
        except Exception as error:
            queue.put(str(error))


    def recorded(queue):
        thread = threading.Thread(target=int, args=("x",))
        thread.start()
        thread.join()
        queue.put(len(SEEN))


    def create(name, value):
        globals()["shared_" + name] = value


    def total(queue):
        queue.put(globals().get("shared_a"))


    SEEN = []


    def hook():
        def record(args):
            SEEN.append(args)

        return record


    recorded.hook = hook
"""


def test_state_that_no_code_reads_by_name_is_found_if_an_experiment_confirms_it(session: Session) -> None:
    """A setting kept in C, a global whose name is computed, and a hook that the standard library calls."""
    outcome = session.file(work=UNSEEN_WORK, test_a=UNSEEN).run(
        "-p", "no:threadexception", "--start-methods-verify=600"
    )
    confirmed = [each for each in outcome.lines if "(confirmed under spawn)" in each]
    assert [each.split()[1] for each in confirmed] == ["SM306", "SM301", "SM303"]
    assert "work.shared_a is 3 in the parent and not there in a fresh child" in outcome.out
    assert re.search(r"csv\.list_dialects\(\) is \[.*'pipes'\] in the parent", outcome.out)
    assert re.search(r"threading\.excepthook is function hook\.<locals>\.record", outcome.out)
