"""Each file has one index, rebuilt when the file has changed."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_startmethod.source import index
from pytest_startmethod.source.callers import owner
from pytest_startmethod.source.setters import made_at_import, setters


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_changed_file_is_read_again(tmp_path):
    """A second session in the same process sees the file as it is now."""
    file = write(tmp_path / "conf.py", "set_start_method('spawn')\n")
    assert [each.line for each in index.find_calls([file], "set_start_method", "spawn")] == [1]
    assert index.source_of(file) is index.source_of(file)
    write(tmp_path / "conf.py", "\n\nset_start_method('spawn')\n")
    assert [each.line for each in index.find_calls([file], "set_start_method", "spawn")] == [3]


def test_what_is_not_python_says_nothing(tmp_path):
    """A file that does not parse, or does not exist, has no definitions and no calls."""
    assert index.source_of(write(tmp_path / "a.py", "def (:\n")).index.calls == []
    assert index.source_of(os.path.join(tmp_path, "b.py")).tree.body == []


def test_calls_that_an_import_makes(tmp_path):
    """Importing makes no call that is in a function, a method or under the main guard."""
    text = """
    def f(): start()
    class C:
        def g(self): start()
    if __name__ == "__main__":
        start()
    start()
    """
    file = write(tmp_path / "a.py", "\n".join(line[4:] for line in text.splitlines()))
    assert [each.line for each in index.find_calls([file], "start", outermost=True)] == [7]
    assert [each.line for each in index.find_calls([file], "start")] == [2, 4, 6, 7]


def test_generated_code_is_not_the_users():
    """Dataclass methods and exec'd code have no file; a doctest is the user's."""
    assert owner("<string>") == "stdlib"
    assert owner("<frozen importlib._bootstrap>") == "stdlib"
    assert owner("<doctest README.md[0]>") == "user"
    assert owner(os.path.join(os.sep, "project", "a.py")) == "user"


def test_where_a_name_is_set(tmp_path, monkeypatch):
    """Assignments, patches and mutating calls set a name; the module's import does not count."""
    import sys
    import types

    module = types.ModuleType("set_here")
    module.__file__ = write(
        tmp_path / "set_here.py",
        "import threading\nDEBUG = False\nLOCK = None\nLOCK = threading.Lock()\n"
        "def on():\n    global DEBUG\n    DEBUG = True\nclass C:\n    lock = threading.Lock()\n",
    )
    monkeypatch.setitem(sys.modules, "set_here", module)
    test = write(
        tmp_path / "test_it.py",
        "import set_here as s\nfrom unittest import mock\n"
        "def test_a(monkeypatch):\n    s.DEBUG = 1\n    monkeypatch.setattr(s, 'DEBUG', 2)\n    other.DEBUG = 3\n"
        "    with mock.patch('set_here.DEBUG'):\n        pass\n",
    )
    found = [
        (os.path.basename(e.place.file), e.place.line, e.by, e.exact)
        for e in setters("set_here", ("DEBUG",), (), [test])
    ]
    assert found == [
        ("test_it.py", 4, "assignment", False), ("test_it.py", 5, "monkeypatch", False),
        ("test_it.py", 7, "mock.patch", True), ("set_here.py", 7, "assignment", False),
    ]  # fmt: skip
    made = [made_at_import("set_here", names) for names in (("LOCK",), ("C", "lock"), ("DEBUG", "x"))]
    assert [each and each.line for each in made] == [4, 9, None]
