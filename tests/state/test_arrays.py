"""Arrays over memory that processes share are found, in containers and attributes; all others are left alone."""

from __future__ import annotations

import json
import mmap
import multiprocessing
import sys
import types
from typing import Any

import pytest

from pytest_startmethod.state.arrays import over_shared_memory

numpy = pytest.importorskip("numpy")


class Holder:
    def __init__(self, array: object) -> None:
        self.array = array

    def run(self) -> None:
        pass


def found(**given: Any) -> list[tuple[str, str]]:
    return list(over_shared_memory(given))


def mapped() -> Any:
    return numpy.frombuffer(mmap.mmap(-1, 64), dtype="int32")


def test_a_mapped_file_and_views_of_it(tmp_path: Any) -> None:
    array = numpy.memmap(tmp_path / "data", dtype="int32", mode="w+", shape=(4,))
    kind = "a mapped file or mapped memory"
    assert found(args=(1, array[1:].reshape(3, 1))) == [("args[1]", kind)]
    assert found(kwargs={"holder": Holder([array])}) == [("kwargs['holder'].array[0]", kind)]
    assert found(target=Holder(mapped()).run) == [("target.__self__.array", kind)]


def test_an_array_of_multiprocessing() -> None:
    shared = multiprocessing.get_context("spawn").RawArray("i", 4)
    assert found(args=(numpy.ctypeslib.as_array(shared),)) == [("args[0]", "a multiprocessing Array")]
    assert found(args=(shared,)) == []


@pytest.mark.parametrize(
    "value", [numpy.zeros(3), numpy.zeros((3, 3))[1:], numpy.frombuffer(b"abcd", "uint8"), mapped().copy(), [1], len]
)
def test_other_memory(value: object) -> None:
    assert found(args=(value,)) == []


def test_nothing_is_looked_at_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    assert found(args=(types.SimpleNamespace(),)) == []


def test_a_copy_that_is_written_to_is_confirmed(session: Any) -> None:
    """A child that only reads has no cause, although its array is a copy, too."""
    session.file(
        test_a="""
        import multiprocessing
        import numpy, pytest

        pytestmark = pytest.mark.startmethods("fork", "spawn")

        def run(target, array):
            process = multiprocessing.Process(target=target, args=(array,))
            process.start()
            process.join()
            return process.exitcode

        def fill(array):
            array[:] = 5

        def check(array):
            raise SystemExit(int(array.sum()) != 4)

        @pytest.fixture
        def array(tmp_path):
            array = numpy.memmap(tmp_path / "data", dtype="int32", mode="w+", shape=(4,))
            array[:] = 1
            return array

        def test_written(array):
            run(fill, array)
            assert array.tolist() == [5, 5, 5, 5]

        def test_read(array):
            assert run(check, array) == 0

        def test_wrong(array):
            assert run(check, array) == 3
        """
    )
    session.run("--start-methods-report=r.json")
    tests = json.loads((session.path / "r.json").read_text())["tests"]
    causes = [[(f["code"], f["path"], f["confirmed"]) for f in e["findings"] if f["level"] == "cause"] for e in tests]
    assert causes == [[("SM204", "args[0]", True)], [], []]
