"""Entries of one container that fail to pickle for the same reason are one finding, with a count."""

from __future__ import annotations

import importlib
import threading
import types
from pathlib import Path

import pytest

from pytest_startmethod import explain

LAMBDAS = {f"C{n}": eval(f"lambda: {n}") for n in range(30)}


class Client:
    def __init__(self, callbacks):
        self.callbacks = callbacks


class Job:
    def __init__(self):
        self.lock = threading.Lock()


def use(*args):
    pass


def found(*args):
    return [(each.code, each.path) for each in explain(use, args)]


def test_table_of_lambdas():
    """The finding has the container's path, the first few keys and the number of entries."""
    (finding,) = explain(use, (Client(dict(LAMBDAS)),))
    assert (finding.code, finding.path) == ("SM101", "args[0].callbacks")
    assert finding.evidence[0] == (
        "30 entries of `args[0].callbacks` do not pickle for this reason: ['C0'], ['C1'], ['C2'], ['C3'] and 26 more"
    )


def test_what_lies_alike_within_the_entries():
    """Jobs in a list that each hold a lock are one finding."""
    (finding,) = explain(use, ([Job() for _ in range(6)],))
    assert (finding.code, finding.path) == ("SM103", "args[0]")
    assert finding.evidence[0].startswith(
        "6 entries of `args[0]` do not pickle for this reason: [0], [1], [2], [3] and 2"
    )


@pytest.mark.parametrize(
    ("args", "paths"),
    [
        (([threading.Lock(), threading.Lock()],), ["args[0][0]", "args[0][1]"]),
        (tuple(LAMBDAS[f"C{n}"] for n in range(5)), [f"args[{n}]" for n in range(5)]),
        (([threading.Lock()] * 5,), ["args[0][0]"]),
    ],
    ids=["few", "arguments of their own", "one object many times"],
)
def test_others_stay_apart(args, paths):
    """A few entries, separate arguments, and one object held many times are not merged."""
    assert [path for _, path in found(*args)] == paths


def test_two_reasons_are_two_findings():
    """Locks and lambdas in one list are two findings."""
    mixed = [*(threading.Lock() for _ in range(4)), *list(LAMBDAS.values())[:4]]
    assert sorted(found(mixed)) == [("SM101", "args[0]"), ("SM103", "args[0]")]


def test_what_an_installed_class_holds_is_placed_at_the_users_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logger of a library holds its sinks: the user can change the line that made one, not the library's."""
    library = tmp_path / "site-packages" / "sinks.py"
    library.parent.mkdir()
    library.write_text("class Sink:\n    def __init__(self, stream):\n        self._stream = stream\n")
    monkeypatch.syspath_prepend(str(library.parent))
    sinks = importlib.import_module("sinks")
    with open(tmp_path / "log", "w") as stream:
        (finding,) = explain(print, (types.SimpleNamespace(sink=sinks.Sink(stream)),))
    assert (finding.code, finding.path, finding.file) == ("SM103", "args[0].sink._stream", __file__)
    assert finding.evidence[0].startswith("`stream`, set at ")
    assert finding.evidence[1] == f"held by what is set at {library}:3: self._stream = stream"
