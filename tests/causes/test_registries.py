"""A child's exception reveals missing registry entries and open descriptors."""

from __future__ import annotations

import codecs
import json
import sqlite3
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.causes import registries
from pytest_startmethod.causes.context import quoted
from pytest_startmethod.experiments import plan
from pytest_startmethod.model.child_report import ChildReport, Frame, Raised, Result, Work
from pytest_startmethod.model.evidence import CallEnd, Evidence
from pytest_startmethod.model.launch import Launch
from pytest_startmethod.model.observed import Descriptor, Observed, Where
from pytest_startmethod.model.place import Place

NO_CODEC = Raised(
    "LookupError", "unknown encoding: later", (Frame("/p/work.py", 4, "encode", 'return text.encode("later")'),)
)


class Money:
    pass


@pytest.fixture
def later() -> Iterator[None]:
    """Register a codec, an error handler and an adapter."""

    def search(name: str) -> codecs.CodecInfo | None:
        if name == "broken":
            raise RuntimeError("a search function of the user's")
        return codecs.lookup("utf-8") if name == "later" else None

    codecs.register(search)
    codecs.register_error("later-error", lambda error: ("-", error.end))  # type: ignore[attr-defined]
    sqlite3.register_adapter(Money, lambda money: 1)
    yield
    codecs.unregister(search)
    del sqlite3.adapters[Money, sqlite3.PrepareProtocol]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("later")
def test_a_codec_that_the_parent_has() -> None:
    (finding,) = registries.missing([NO_CODEC, NO_CODEC])
    assert (finding.code, finding.path, finding.level) == ("SM306", "codecs.lookup('later')", "cause")
    assert (finding.file, finding.line) == ("/p/work.py", 4)
    assert finding.message == (
        "the codec 'later' is registered in the parent and not in a fresh child: LookupError: unknown encoding: later"
    )
    assert finding.evidence == ('read at /p/work.py:4: return text.encode("later")',)
    assert finding.fix.startswith("call codecs.register() in the child too")


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    ("raised", "path"),
    [
        (Raised("LookupError", "unknown error handler name 'later-error'"), "codecs.lookup_error('later-error')"),
        (
            Raised("sqlite3.ProgrammingError", "Error binding parameter 1: type 'Money' is not supported"),
            "sqlite3.adapters",
        ),
    ],
)
def test_each_registry(raised: Raised, path: str) -> None:
    (finding,) = registries.missing([raised])
    assert (finding.code, finding.path, finding.file) == ("SM306", path, None)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "raised",
    [
        Raised("LookupError", "unknown encoding: nowhere"),
        Raised("LookupError", "unknown encoding: broken"),
        Raised("LookupError", "unknown error handler name 'nowhere'"),
        Raised("KeyError", "unknown encoding: later"),
        Raised("LookupError", "no such plan: later"),
        Raised("sqlite3.ProgrammingError", "Error binding parameter 1: type 'Coin' is not supported"),
    ],
)
def test_what_the_parent_has_not_either_is_no_cause(raised: Raised) -> None:
    assert registries.missing([raised]) == []


class Finder:
    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name == self.name == "broken":
            raise LookupError(name)
        return ModuleSpec(name, None) if name == self.name else None


def test_a_module_that_an_import_hook_of_the_parent_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that the user put into ``sys.meta_path`` is not there in a fresh child."""
    raised = Raised("ModuleNotFoundError", "No module named 'virtual'")
    assert registries.missing([raised]) == []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder("other")])
    assert registries.missing([raised]) == []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder("broken"), Finder("virtual")])
    assert registries.missing([Raised("ImportError", "No module named 'broken'")]) == []
    (finding,) = registries.missing([raised])
    assert (finding.code, finding.path) == ("SM306", "sys.meta_path")
    assert finding.message.startswith("the import hook that finds virtual is registered in the parent")


def test_import_hooks_that_are_gone_when_the_child_is_explained() -> None:
    """Fixtures take them out again; what a hook did not provide, since it was loaded already, is none of theirs."""
    raised = Raised("ModuleNotFoundError", "No module named 'virtual'")
    hooked = Observed("spawn", "work", None, import_hooks=True)
    (finding,) = registries.missing([raised], [hooked])
    assert (finding.code, finding.path) == ("SM306", "sys.meta_path")
    hooked.imports = {"virtual": Where("/p/work.py", 1, "work", "IMPORT_NAME")}
    assert registries.missing([raised], [hooked]) == []
    assert registries.missing([raised], [Observed("spawn", "work", None)]) == []


def test_a_submodule_that_the_code_does_not_import_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapes.circle", types.ModuleType("shapes.circle"))
    frames = (Frame("/p/geometry.py", 5, "area", "return shapes.circle.area(r)"),)
    raised = Raised("AttributeError", "module 'shapes' has no attribute 'circle'", frames)
    (finding,) = registries.missing([raised])
    assert (finding.code, finding.path, finding.file, finding.line) == ("SM202", "shapes.circle", "/p/geometry.py", 5)
    assert finding.message == (
        "shapes.circle is a module that the code uses without importing it: other code has imported it in the parent, "
        "and none has in a fresh child: AttributeError: module 'shapes' has no attribute 'circle'"
    )
    assert finding.fix == "import shapes.circle in geometry.py, which then has it everywhere"
    assert plan.experiment_of(finding) == plan.Replay("shapes.circle")
    assert registries.missing([Raised("AttributeError", "module 'shapes' has no attribute 'square'")]) == []


COPYREG = {"pkg.Handle": ("copyreg.dispatch_table", "reduce_handle")}


@pytest.mark.parametrize(
    ("reducers", "part", "raising", "path"),
    [
        (COPYREG, None, "__reduce__", "copyreg.dispatch_table"),
        ({}, None, "__reduce__", None),
        (COPYREG, None, "reduce_handle", None),  # the child has the reducer, which raises
        (COPYREG, Work("pkg.function", None, None), "__reduce__", None),
        ({"result": ("copyreg.dispatch_table", "reduce_result")}, None, "__reduce__", "copyreg.dispatch_table"),
    ],
)
def test_a_reducer_that_only_the_parent_has(
    reducers: dict[str, tuple[str, str]], part: Work | None, raising: str, path: str | None
) -> None:
    observed = Observed("spawn", "pkg.make", None, reducers=reducers)
    raised = Raised("TypeError", "sealed", (Frame("/p/pkg.py", 3, raising, ""),))
    report = ChildReport(
        pid=1,
        phase="result",
        raised=(raised,),
        work=Work("pkg.make", "/p/pkg.py", 8),
        result=Result(of="result", path="", type="pkg.Handle", raised=False, text="", part=part),
    )
    finding = registries.reducer(report, [None, observed])
    assert (finding and finding.path) == path
    if finding is not None:
        assert (finding.code, finding.file, finding.line) == ("SM407", "/p/pkg.py", 8)
        assert plan.experiment_of(finding) == plan.Replay("copyreg.dispatch_table")
        cls = next(iter(reducers))  # of the part that does not pickle, or of the whole result
        assert finding.message == (
            f"copyreg.pickle() has told the parent how to pickle {cls}, and not the child, which cannot send one "
            "back: TypeError: sealed"
        )


def test_the_likeliest_of_several_numbers_is_named_first() -> None:
    """A log file may be open under the same small number as an argument: pipes and sockets come first."""
    observed = Observed("spawn", "work.write", None)
    observed.descriptors += [Descriptor("args[0]", 7, "a file"), Descriptor("args[1]", 12, "a pipe")]
    (finding,) = registries.missing([Raised("OSError", "[Errno 9] Bad file descriptor")], [observed, observed])
    assert (finding.path, finding.evidence) == ("args[1]", ("or args[0]: 7, the number of a file",))
    assert registries.missing([Raised("OSError", "[Errno 2] No such file or directory")], [observed]) == []
    assert registries.missing([Raised("OSError", "[Errno 9] Bad file descriptor")]) == []


@pytest.mark.parametrize(
    ("source", "kind", "path"),
    [
        ("os.write(fd, b'x')", "a pipe", "args[0]"),
        ("os.close(fd)", "a socket", "args[0]"),
        ("print(fd)", "a pipe", None),
        ("os.write(fd, b'x')", "a file", None),  # any number may equal that of a log file
    ],
)
def test_a_number_whose_error_was_swallowed(tmp_path: Path, source: str, kind: str, path: str | None) -> None:
    """The code uses numbers of descriptors, and was given one that is a pipe or a socket in the parent."""
    file = tmp_path / "work.py"
    file.write_text(f"import os\n\ndef work(fd):\n    try:\n        {source}\n    except OSError:\n        pass\n")
    observed = Observed("spawn", "work", None, codes=[(str(file), "work", 3)])
    observed.descriptors = [Descriptor("args[0]", 12, kind)]
    launch = Launch("spawn", "work", (), None, None, None, "leg", observed=observed)
    given = Evidence("leg", "spawn", "failed", launches=[launch], others={"fork": CallEnd("passed")})
    assert [each.path for each in registries.unsaid(given)] == ([path] if path else [])
    assert registries.unsaid(replace(given, others={"fork": CallEnd("failed")})) == []
    if path:
        (finding,) = registries.unsaid(given)
        assert (finding.code, finding.line) == ("SM306", 5)
        assert finding.message == (
            f"args[0] is 12, the number of {kind} that is open in the parent; a child that is not forked inherits no "
            "open descriptors"
        )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("OSError(9, 'Bad file descriptor')", [("OSError", "[Errno 9] Bad file descriptor")]),
        ("assert \"LookupError('f() is unknown')\" == 1", [("LookupError", "f() is unknown")]),
        ("the child said KeyError('a')", [("KeyError", "'a'")]),
        ("Traceback ...\nsqlite3.ProgrammingError: no such thing", [("sqlite3.ProgrammingError", "no such thing")]),
        ("RuntimeError(value) was not raised", []),
        ("an Error", []),
    ],
)
def test_an_exception_that_the_failure_quotes(message: str, expected: list[tuple[str, str]]) -> None:
    """Code that catches what its child raises often sends only its text to the parent."""
    evidence = Evidence("t", "spawn", "failed", raised=(Raised("AssertionError", message),))
    assert [(each.type, each.message) for each in quoted(evidence)] == expected


def test_a_quoted_exception_is_located_where_the_process_started() -> None:
    observed = Observed("spawn", "work.write", Place("/p/run.py", 3, "run"))
    observed.descriptors.append(Descriptor("args[0]", 7, "a pipe"))
    (finding,) = registries.missing([Raised("OSError", "[Errno 9] Bad file descriptor")], [observed])
    assert (finding.path, finding.file, finding.line) == ("args[0]", "/p/run.py", 3)


def test_without_registrations_there_is_none() -> None:
    assert registries.missing([NO_CODEC]) == []


def test_the_exception_of_a_process_and_of_a_task(session: Any) -> None:
    """The exception is printed by a process, and raised in the test by a pool."""
    session.file(
        test_a="""
        import codecs, multiprocessing, sqlite3
        import pytest
        from work import Money, encode, store

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        def search(name):
            return codecs.lookup("utf-8") if name == "later" else None

        @pytest.fixture(autouse=True)
        def registered():
            codecs.register(search)
            sqlite3.register_adapter(Money, lambda money: 1)
            yield
            codecs.unregister(search)

        def test_process():
            process = multiprocessing.Process(target=encode, args=("a",))
            process.start()
            process.join()
            assert process.exitcode == 0

        def test_task():
            with multiprocessing.Pool(1) as pool:
                pool.map(encode, ["a"])

        def test_adapter():
            with multiprocessing.Pool(1) as pool:
                pool.apply(store)
        """,
        work="""
        import sqlite3

        class Money:
            pass

        def encode(text):
            return text.encode("later")

        def store():
            return sqlite3.connect(":memory:").execute("select ?", (Money(),)).fetchone()
        """,
    )
    outcome = session.run("--tb=short", REPORT)
    expected = {f"{name}[fork]": "passed" for name in ("test_process", "test_task", "test_adapter")}
    expected |= {f"{name}[spawn]": "failed" for name in ("test_process", "test_task", "test_adapter")}
    assert outcome.names == expected
    found = {each["path"]: each["confirmed"] for each in findings(session) if each["code"] == "SM306"}
    assert len(found) == (2 if NAMES_TYPES else 1)
    assert found.get("sqlite3.adapters") == (True if NAMES_TYPES else None)


REPORT = "--start-methods-report=r.json"


def findings(session: Any) -> list[dict[str, Any]]:
    """Return the findings of all tests that the session reported."""
    report = json.loads((session.path / "r.json").read_text())
    return [each for test in report["tests"] for each in test["findings"]]


def closed(session: Any, test: str, start: str) -> list[tuple[str, str, str, int]]:
    """Return code, path, file and line of each finding, and assert that none was cleared."""
    session.file(
        test_a=f"""
        import multiprocessing, os
        import pytest
        import work

        @pytest.mark.startmethods("fork", "spawn")
        def test_x(monkeypatch):
            receiver, sender = os.pipe()
            {test}
            {start}
            assert os.read(receiver, 1) == b"x"
        """,
        work="""
        import functools, os

        FD = None

        class Writer:
            def __init__(self, fd):
                self.fd = fd

            def run(self):
                write(self.fd)

        def write(fd, **more):
            os.write(fd, b"x")

        def write_global():
            os.write(FD, b"x")

        def write_named():
            os.write(int(os.environ["WORK_FD"]), b"x")
        """,
    )
    outcome = session.run("--tb=short", REPORT)
    assert outcome.names == {"test_x[fork]": "passed", "test_x[spawn]": "failed"}
    found = findings(session)
    assert not [each for each in found if each["confirmed"] is False]
    numbers = [each for each in found if each["code"] == "SM306"]
    says = "that is open in the parent; a child that is not forked inherits no open descriptors: OSError: [Errno 9]"
    assert all(says in each["message"] for each in numbers)
    return [(each["code"], each["path"], each["file"], each["line"]) for each in found]


PROCESS = "process = multiprocessing.Process({}); process.start(); process.join(); assert process.exitcode == 0"
POOL = "with multiprocessing.Pool(1) as pool: pool.apply(work.write, (sender,))"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    ("start", "path"),
    [
        (PROCESS.format("target=work.write, args=(sender,)"), "args[0]"),
        (PROCESS.format("target=work.write, args=(sender,), kwargs={'more': 0}"), "args[0]"),
        (PROCESS.format("target=work.Writer(sender).run"), "target.__self__.fd"),
        (PROCESS.format("target=work.functools.partial(work.write, sender)"), "target.args[0]"),
        (POOL, "args[0]"),
    ],
)
def test_the_number_of_an_open_descriptor_travels(session: Any, start: str, path: str) -> None:
    assert closed(session, "pass", start) == [("SM306", path, "work.py", 13)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_the_number_of_an_open_descriptor_is_read(session: Any) -> None:
    test = "monkeypatch.setenv('WORK_FD', str(sender))"
    (found,) = closed(session, test, PROCESS.format("target=work.write_named"))
    assert (found[0], found[1].split()[0]) == ("SM306", "descriptor")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_number_is_no_descriptor_unless_the_child_says_so(session: Any) -> None:
    """A descriptor is reported only if the child's error says so: with None it raises something else."""
    first, behind = closed(session, "work.FD = sender", PROCESS.format("target=work.write_global"))
    assert first == ("SM301", "work.FD", "work.py", 16)
    assert (behind[0], behind[1].split()[0]) == ("SM306", "descriptor")


def test_a_database_in_memory_is_another_one_in_each_child(session: Any) -> None:
    """The connection is a global, an attribute of one, or of a class."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest
        import work

        def run(target):
            for connection in (work.DB, work.STORE.db, work.Store.shared):
                connection.execute("CREATE TABLE IF NOT EXISTS users (name)")
            process = multiprocessing.Process(target=target)
            process.start()
            process.join()
            assert process.exitcode == 0

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        def test_global():
            run(work.count_global)

        def test_attribute():
            run(work.count_attribute)

        def test_class():
            run(work.count_class)

        def test_other_table():
            run(work.count_others)
        """,
        work="""
        import sqlite3

        DB = sqlite3.connect(":memory:")

        class Store:
            shared = sqlite3.connect(":memory:")

            def __init__(self):
                self.db = sqlite3.connect(":memory:")

        STORE = Store()

        def count_global():
            DB.execute("SELECT count(*) FROM users")

        def count_attribute():
            STORE.db.execute("SELECT count(*) FROM users")

        def count_class():
            Store.shared.execute("SELECT count(*) FROM users")

        def count_others():
            raise LookupError("no such table: users")
        """,
    )
    session.run("--tb=short", REPORT, where="subprocess")  # otherwise its connections stay in this process
    found = [each for each in findings(session) if "is a connection of sqlite3" in each["message"]]
    assert [(each["code"], each["path"], each["file"], each["line"]) for each in found] == [
        ("SM301", "work.DB", "work.py", 14),
        ("SM301", "work.STORE", "work.py", 17),
        ("SM302", "work.Store.shared", "work.py", 20),
    ]
    assert found[1]["message"].startswith(
        "work.STORE.db is a connection of sqlite3 that a fresh child opens for itself"
    )
    assert all("no such table: users" in each["message"] for each in found)


NAMES_TYPES = sys.version_info >= (3, 11)
"""Whether sqlite3's message names the type that it cannot bind."""
