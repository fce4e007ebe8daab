"""What monkeypatch and mock set while a leg runs is recorded with name and location, and has no side effects."""

from __future__ import annotations

import concurrent.futures
import json
import sys
import types
from typing import Any
from unittest import mock

import pytest

from pytest_startmethod.activation.exchanges import Exchanges
from pytest_startmethod.activation.patch_log import PatchLog, dotted
from pytest_startmethod.model.patched import Patched
from pytest_startmethod.model.place import Place


class Target:
    value = 1
    table: dict[str, int] = {"a": 1}  # noqa: RUF012 - it is patched

    def method(self) -> str:
        return "real"


TABLE = {"a": 1}
INSTANCE = Target()
HERE = __name__
FILE = __file__


@pytest.fixture
def log():
    log = PatchLog(pytest.MonkeyPatch, Exchanges())
    log.begin()
    yield log
    log.close()


def line_of(text: str) -> int:
    """Return the first line of this file that contains `text`."""
    with open(FILE) as file:
        return next(number for number, line in enumerate(file, 1) if text in line)


def seen(log: PatchLog) -> list[tuple[str, str]]:
    return [(each.target, each.by) for each in log.of_leg]


def test_monkeypatch_sets_names_and_keys(log, monkeypatch):
    monkeypatch.setattr(Target, "value", 2)  # the class
    monkeypatch.setattr(sys.modules[HERE], "TABLE", {}, raising=True)
    monkeypatch.setattr(f"{HERE}.INSTANCE", None)
    monkeypatch.setattr(target=Target, name="value", value=3)
    monkeypatch.delattr(Target, "method")
    monkeypatch.delattr(f"{HERE}.Target.table")
    assert seen(log) == [
        (f"{HERE}.Target.value", "monkeypatch"),
        (f"{HERE}.TABLE", "monkeypatch"),
        (f"{HERE}.INSTANCE", "monkeypatch"),
        (f"{HERE}.Target.value", "monkeypatch"),
        (f"{HERE}.Target.method", "monkeypatch"),
        (f"{HERE}.Target.table", "monkeypatch"),
    ]
    assert log.of_leg[0].place == Place(FILE, line_of("# the class"), "test_monkeypatch_sets_names_and_keys")


def test_monkeypatch_sets_items_and_the_environment(log, monkeypatch):
    monkeypatch.setitem(TABLE, "b", 2)
    monkeypatch.delitem(TABLE, "a")
    monkeypatch.setitem(Target.table, 1, 2)
    monkeypatch.setenv("SM_PATCHED", "1")  # the environment
    monkeypatch.delenv("SM_PATCHED")
    monkeypatch.setitem({}, "k", 1)
    assert seen(log) == [
        (f"{HERE}.TABLE['b']", "monkeypatch"),
        (f"{HERE}.TABLE['a']", "monkeypatch"),
        (f"{HERE}.Target.table[1]", "monkeypatch"),
        ("os.environ['SM_PATCHED']", "monkeypatch"),
        ("os.environ['SM_PATCHED']", "monkeypatch"),
        ("<builtins.dict>['k']", "monkeypatch"),
    ]
    assert log.of_leg[3].place is not None
    assert log.of_leg[3].place.line == line_of("# the environment")


def test_attributes_of_instances_are_named_by_who_holds_them(log, monkeypatch):
    monkeypatch.setattr(INSTANCE, "value", 5)
    monkeypatch.setattr(Target(), "value", 5)
    assert seen(log) == [
        (f"{HERE}.INSTANCE.value", "monkeypatch"),
        (f"<{HERE}.Target>.value", "monkeypatch"),
    ]


def test_mock_in_all_its_forms(log):
    @mock.patch(f"{HERE}.TABLE", {})  # the decorator
    @mock.patch.object(Target, "method")
    @mock.patch.dict(Target.table, {"b": 1})
    def decorated(method):
        return method

    decorated()
    with mock.patch(f"{HERE}.Target.value", 4):  # the context
        pass
    patcher = mock.patch.object(INSTANCE, "method", autospec=True)
    patcher.start()  # the start
    patcher.stop()
    with mock.patch.multiple(HERE, TABLE=mock.DEFAULT, INSTANCE=None), mock.patch.dict("os.environ", SM_X="1"):
        pass
    with mock.patch.dict(TABLE, clear=True):
        pass
    found = sorted(seen(log))
    assert found == sorted(
        [
            (f"{HERE}.TABLE", "mock.patch"),
            (f"{HERE}.Target.method", "mock.patch"),
            (f"{HERE}.Target.table['b']", "mock.patch.dict"),
            (f"{HERE}.Target.value", "mock.patch"),
            (f"{HERE}.INSTANCE.method", "mock.patch"),
            (f"{HERE}.TABLE", "mock.patch"),
            (f"{HERE}.INSTANCE", "mock.patch"),
            ("os.environ['SM_X']", "mock.patch.dict"),
            (f"{HERE}.TABLE", "mock.patch.dict"),
        ]
    )
    lines = {each.target: each.place.line for each in log.of_leg if each.place is not None}
    assert lines[f"{HERE}.Target.method"] == line_of("# the decorator")
    assert lines[f"{HERE}.Target.table['b']"] == line_of("# the decorator")
    assert lines[f"{HERE}.Target.value"] == line_of("# the context")
    assert lines[f"{HERE}.INSTANCE.method"] == line_of("# the start")


async def coroutine_target() -> None:
    pass


def test_decorated_coroutines(log):
    import asyncio

    @mock.patch(f"{HERE}.TABLE", {})  # the coroutine
    async def decorated():
        return TABLE

    assert asyncio.run(decorated()) == {}
    assert log.of_leg == [
        Patched(f"{HERE}.TABLE", Place(FILE, line_of("# the coroutine"), decorated.__qualname__), "mock.patch")
    ]


def test_what_is_in_force_when_a_leg_begins_counts(log):
    patch = pytest.MonkeyPatch()
    patch.setattr(Target, "value", 2)
    started = mock.patch.object(Target, "method")
    started.start()
    log.begin()
    assert seen(log) == [(f"{HERE}.Target.value", "monkeypatch"), (f"{HERE}.Target.method", "mock.patch")]
    patch.undo()
    started.stop()
    assert log.begin() == []


def test_patching_fails_as_ever(log, monkeypatch):
    with pytest.raises(AttributeError, match="has no attribute 'missing'"):
        monkeypatch.setattr(Target, "missing", 1)
    with (
        pytest.raises(AttributeError, match="does not have the attribute 'missing'"),
        mock.patch.object(Target, "missing"),
    ):
        pass
    assert log.of_leg == []


def test_everything_is_as_it_was_afterwards():
    patcher = type(mock.patch("sys.path"))
    before = [vars(pytest.MonkeyPatch)["setattr"], vars(pytest.MonkeyPatch)["undo"], vars(patcher)["__enter__"]]
    log = PatchLog(pytest.MonkeyPatch, Exchanges())
    log.begin()
    assert vars(patcher)["__enter__"] is not before[2]
    log.close()
    assert [vars(pytest.MonkeyPatch)["setattr"], vars(pytest.MonkeyPatch)["undo"], vars(patcher)["__enter__"]] == before


def test_dotted_runs_no_code_of_the_objects():
    class Nosy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    assert dotted(Nosy()) == f"<{HERE}.test_dotted_runs_no_code_of_the_objects.<locals>.Nosy>"
    assert dotted(types.ModuleType("name")) == "name"


def test_class_of_a_private_module_is_named_by_the_public_one_that_has_it():
    """``concurrent.futures._base.Future`` becomes concurrent.futures.Future, as users write it; others stay private."""
    assert dotted(concurrent.futures.Future) == "concurrent.futures.Future"
    assert dotted(concurrent.futures._base._Waiter) == "concurrent.futures._base._Waiter"


PACKAGE = """
    value = 1
    table = {}

    def now():
        return "real"
"""

SUITE = """
    from unittest import mock
    import unittest

    import package
    import pytest

    @pytest.fixture(scope="session", autouse=True)
    def wide():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(package, "value", 2)
            yield

    @pytest.fixture
    def narrow(monkeypatch):
        monkeypatch.setattr("package.now", lambda: "fake")

    @pytest.mark.startmethods
    def test_one(narrow):
        pass

    @pytest.mark.startmethods("spawn")
    @mock.patch("package.table")
    def test_two(table):
        pass

    @pytest.mark.startmethods("spawn")
    class TestThree(unittest.TestCase):
        def setUp(self):
            patcher = mock.patch.dict(package.table, key=1)
            patcher.start()
            self.addCleanup(patcher.stop)

        def test_three(self):
            pass
"""

CONFTEST = """
    import json, os
    import pytest
    from pytest_startmethod.session import legs

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(item):
        state = item.stash[legs.STATE]
        yield
        with open("patches.json", "a") as file:
            found = [(p.target, p.place and (os.path.basename(p.place.file), p.place.line), p.by)
                     for p in state.record.patches]
            file.write(json.dumps([item.name, found]) + "\\n")
"""


def test_a_legs_record_holds_its_patches(session):
    """Patches by wider-scoped fixtures that earlier legs set up are included."""
    session.file(package=PACKAGE, test_a=SUITE, conftest=CONFTEST).run("-q")
    text = (session.path / "patches.json").read_text()
    found: dict[str, Any] = dict(map(json.loads, text.splitlines()))
    wide = ["package.value", ["test_a.py", 10], "monkeypatch"]
    narrow = ["package.now", ["test_a.py", 15], "monkeypatch"]
    table = ["package.table", ["test_a.py", 21], "mock.patch"]
    key = ["package.table['key']", ["test_a.py", 30], "mock.patch.dict"]
    assert found == {
        "test_one[fork]": [wide, narrow],
        "test_one[spawn]": [wide, narrow],
        "test_one[forkserver]": [wide, narrow],
        "test_two[spawn]": [wide, table],
        "test_three[spawn]": [wide, key],
    }
