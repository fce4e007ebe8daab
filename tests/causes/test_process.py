"""State of the process itself: what depends on the interpreter that is started."""

from __future__ import annotations

import textwrap

import pytest

from pytest_startmethod.causes import process
from pytest_startmethod.causes.context import Context
from pytest_startmethod.model.observed import Observed
from pytest_startmethod.model.place import Place

SOURCE = """
    def key(text):
        return hash(text)

    class Name:
        def __hash__(self):
            return hash(self.text)

    def other(text):
        return text.hash()
"""


def observed(tmp_path, *names, **environ):
    file = tmp_path / "encoder.py"
    file.write_text(textwrap.dedent(SOURCE))
    found = Observed("spawn", "encoder.lookup", Place(str(file), 1), codes=[(str(file), name, 1) for name in names])
    found.environ = environ
    return found


def test_hash_of_text(tmp_path):
    """Keys made by ``hash()`` in the parent are others in the child; a key that is not found makes it a cause."""
    (found,) = process.hash_seed(observed(tmp_path, "lookup", "key"), Context(errors=frozenset({"KeyError"})))
    finding = found.finding
    assert (finding.code, finding.path, finding.level, finding.line) == ("SM306", "PYTHONHASHSEED", "cause", 3)
    assert finding.message == (
        "hash() of a str or bytes is another number in each fresh interpreter (PYTHONHASHSEED is random); key calls "
        "it, and what was keyed by it in the parent is not found in the child"
    )
    (found,) = process.hash_seed(observed(tmp_path, "key"), Context(errors=frozenset({"TimeoutError"})))
    assert found.finding.level == "note"


@pytest.mark.parametrize(
    ("names", "environ", "context"),
    [
        (("Name.__hash__",), {}, Context()),
        (("other",), {}, Context()),
        (("key",), {"PYTHONHASHSEED": "7"}, Context()),
        (("key",), {}, Context(failed=False)),
        (("key",), {}, Context(passed_under_fork=False)),
        (("key",), {}, Context(compares=False)),
    ],
    ids=["__hash__", "a method of that name", "fixed", "passed", "fork fails", "alike"],
)
def test_hashes_that_explain_nothing(tmp_path, names, environ, context):
    """A ``__hash__`` serves one process; a fixed seed is everybody's."""
    assert process.hash_seed(observed(tmp_path, *names, **environ), context) == []
