"""The import order of the subpackages, and size limits for files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_startmethod

PACKAGE = Path(pytest_startmethod.__file__).parent

ROOMS = (
    "_compat",
    "child",
    "model",
    "source",
    "pickling",
    "activation",
    "launches",
    "state",
    "causes",
    "experiments",
    "report",
    "scripts",
    "session",
    "top",
)
"""Each subpackage imports only those before it. Files outside of them are `top`."""

SEES_PYTEST = ("session", "top", "_compat/pytest.py", "_compat/pytest_silent.py")
LONGEST_FILE = 600
LONGEST_FUNCTION = 60


def room_of(parts: tuple[str, ...]) -> str:
    """Return the subpackage of a module, given the parts of its name below the package."""
    return parts[0] if parts and parts[0] in ROOMS else "top"


def imported(tree: ast.Module, below: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield line and subpackage of each import in a module in the folder `below`.

    `pytest` counts as a subpackage. Imports in functions and under `TYPE_CHECKING` count too.
    """
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = ["pytest_startmethod", *below[: len(below) - node.level + 1], *base]
            names = [[*base, alias.name] for alias in node.names]
        for first, *rest in names:
            if first in ("pytest", "_pytest"):
                yield node.lineno, "pytest"
            elif first == "pytest_startmethod":
                yield node.lineno, room_of(tuple(rest))


def forbidden(package: Path) -> list[tuple[str, int, str]]:
    """Return file, line and problem for each import that violates the order."""
    found = []
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package)
        here = room_of(file.parts[:-1])
        for line, room in imported(ast.parse(path.read_text(encoding="utf-8")), file.parts[:-1]):
            if room == "pytest":
                allowed = here in SEES_PYTEST or file.as_posix() in SEES_PYTEST
            else:
                allowed = ROOMS.index(room) <= ROOMS.index(here)
            if not allowed:
                found.append((file.as_posix(), line, f"{here} imports {room}"))
    return found


def complaint(found: list[tuple[str, int, str]]) -> str:
    """Return the failure message, one line per import."""
    return "\n".join(f"src/pytest_startmethod/{file}:{line}: {wrong}" for file, line, wrong in found)


def test_each_room_imports_only_those_before_it():
    """Imports in functions and for type checkers count, and only `session` may import pytest."""
    found = forbidden(PACKAGE)
    assert not found, complaint(found)


@pytest.mark.parametrize(
    ("file", "text", "line", "wrong"),
    [
        ("model/finding.py", "from ..causes import ranking", 1, "model imports causes"),
        (
            "model/finding.py",
            "import os\n\ndef late():\n    from ..session.legs import Leg",
            4,
            "model imports session",
        ),
        ("state/reads.py", "if TYPE_CHECKING:\n    from ..causes.state import Rule", 2, "state imports causes"),
        ("child/values.py", "import pytest_startmethod.model.place", 1, "child imports model"),
        ("child/values.py", "from pytest_startmethod import explain", 1, "child imports top"),
        ("report/html.py", "from .. import __version__", 1, "report imports top"),
        ("causes/state.py", "from _pytest.fixtures import FixtureDef", 1, "causes imports pytest"),
        ("_compat/cpython.py", "import pytest", 1, "_compat imports pytest"),
    ],
)
def test_a_forbidden_import_is_named_with_its_line(tmp_path, file, text, line, wrong):
    """The rule applies to every form of import."""
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert complaint(forbidden(tmp_path)) == f"src/pytest_startmethod/{file}:{line}: {wrong}"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("causes/state.py", "from ..model.finding import Finding\nfrom .ranking import rank\nimport os"),
        ("session/legs.py", "import pytest\nfrom _pytest import nodes\nfrom ..report import html"),
        ("_compat/pytest.py", "import pytest"),
        ("plugin.py", "import pytest\nfrom .session import running\nfrom . import hookspecs"),
    ],
)
def test_an_import_in_order_is_no_offence(tmp_path, file, text):
    """A subpackage may import from itself, from those before it, and pytest where allowed."""
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert forbidden(tmp_path) == []


def test_every_folder_is_a_room():
    """Every folder is listed in the order."""
    folders = {path.parent.name for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    assert folders == set(ROOMS) - {"top"}


def test_files_are_short():
    """Longer files should be split."""
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    long = {file for file, length in lengths.items() if length > LONGEST_FILE}
    assert long == set()


def test_functions_are_short():
    """Docstrings count as lines. Branches are limited by ruff: C901 in pyproject.toml."""
    long = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long.add(f"{path.relative_to(PACKAGE).as_posix()}: {node.name}")
    assert long == set()
