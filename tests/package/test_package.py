"""What is installed, and that it does nothing until a test uses it."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_startmethod

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")


@pytest.fixture(scope="module")
def installed() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("pytest-startmethod")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is on the path, not installed")


def test_entry_point_is_the_plugin(installed):
    """Pytest finds the plugin under the name used in `-p no:startmethod`."""
    (entry,) = installed.entry_points.select(group="pytest11")
    assert (entry.name, entry.value) == ("startmethod", "pytest_startmethod.plugin")
    assert entry.load().pytest_addoption is not None


def test_version_is_said_once(installed):
    """The package, its metadata and the project file have the same version."""
    assert pytest_startmethod.__version__ == installed.version == PROJECT["version"]


def test_changelog_has_the_version():
    """The newest changelog entry is for the version being built."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == PROJECT["version"] or headings[:2] == ["Unreleased", PROJECT["version"]]


def test_metadata_names_what_is_supported(installed):
    """Classifiers, minimum Python and dependencies match the documentation."""
    metadata = installed.metadata
    classifiers = metadata.get_all("Classifier")
    assert {"Framework :: Pytest", "Typing :: Typed"} <= set(classifiers)
    named = [c.rpartition(" ")[2] for c in classifiers if re.fullmatch(r".* :: 3\.\d+", c)]
    assert tuple(named) == SUPPORTED
    assert metadata["Requires-Python"] == ">=3.10"
    needed = {line for line in installed.requires if "extra" not in line}
    assert needed == {"pytest>=8.4", "pluggy>=1.5", "cloudpickle>=3.0"}
    assert set(metadata.get_all("Provides-Extra")) == {"docs", "html", "test"}
    assert metadata["License-Expression"] == "MIT"


def test_package_says_that_it_is_typed():
    """Type checkers look for `py.typed` next to the modules."""
    assert Path(pytest_startmethod.__file__).with_name("py.typed").is_file()


def test_public_names_are_there():
    """Every name in `__all__` can be imported; `__version__` requires an installed package."""
    assert set(pytest_startmethod.__all__) == {
        "Backend",
        "FailedLeg",
        "Finding",
        "ScriptRun",
        "StartMethodWarning",
        "__version__",
        "explain",
    }
    assert set(pytest_startmethod.__all__) <= set(dir(pytest_startmethod))
    for name in ("Finding", "ScriptRun", "StartMethodWarning", "explain"):
        assert getattr(pytest_startmethod, name).__name__ == name
    with pytest.raises(AttributeError, match=r"^module 'pytest_startmethod' has no attribute 'missing'$"):
        pytest_startmethod.missing  # noqa: B018 (it is the access that is tested)


# -- installed and unused ----------------------------------------------------------------------------------------------

UNMARKED = """
import unittest

import pytest


@pytest.fixture(scope="module")
def number():
    return 3


def test_function(number):
    assert number == 3


@pytest.mark.parametrize("value", [1, 2])
def test_parameters(value):
    assert value


class TestPlain:
    def test_method(self):
        pass


class TestCase(unittest.TestCase):
    def test_method(self):
        pass
"""

STATE = """
import importlib, json, os, sys

PLACES = [
    ("multiprocessing.process", "BaseProcess.start"),
    ("multiprocessing.process", "BaseProcess._bootstrap"),
    ("multiprocessing.reduction", "ForkingPickler.dump"),
    ("multiprocessing.spawn", "get_preparation_data"),
    ("multiprocessing.pool", "Pool.apply_async"),
    ("multiprocessing.pool", "Pool._map_async"),
    ("concurrent.futures.process", "ProcessPoolExecutor.submit"),
    ("multiprocessing", "get_context"),
    ("multiprocessing", "set_start_method"),
]


def pytest_unconfigure():
    modules = sorted(sys.modules)
    found = {}
    for module, path in PLACES:
        value = importlib.import_module(module)
        for name in path.split("."):
            value = getattr(value, name)
        found[f"{module}.{path}"] = f"{getattr(value, '__module__', None)} {value.__qualname__}"
    context = importlib.import_module("multiprocessing.context")
    found["default context"] = type(context._default_context).__qualname__
    found["environment"] = sorted(set(os.environ) - {"PYTEST_CURRENT_TEST"})
    with open(os.environ["STATE"], "w") as file:
        json.dump({"modules": modules, "found": found, "threads": len(sys._current_frames())}, file)
"""


def run_unmarked(folder: Path, *args: str) -> tuple[str, dict[str, object]]:
    """Run the unmarked tests; return the output without times, and the state of the process at the end."""
    state = folder / "state.json"
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        "STATE": str(state),
    }
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"in \d+\.\d+s", "in TIME", done.stdout + done.stderr), json.loads(state.read_text())


@pytest.mark.parametrize("verbosity", ["-q", "-v"])
def test_installed_and_unused_it_leaves_no_trace(tmp_path, verbosity):
    """Promise 1: the output is unchanged, nothing is patched, and only a few modules of the plugin are imported."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(STATE)
    (tmp_path / "test_unmarked.py").write_text(UNMARKED)
    without_text, without = run_unmarked(tmp_path, verbosity)
    with_text, with_ = run_unmarked(tmp_path, verbosity, "-p", "pytest_startmethod.plugin")
    assert "5 passed" in without_text
    assert with_text == without_text
    assert with_["found"] == without["found"]
    assert with_["threads"] == without["threads"] == 1
    added = set(with_["modules"]) - set(without["modules"])
    assert "pytest_startmethod.plugin" in added
    assert {name for name in added if name.partition(".")[0] != "pytest_startmethod"} == set()
    # Modules that only legs need are not imported either.
    assert added.isdisjoint(
        f"pytest_startmethod.{room}" for room in ("activation", "launches", "pickling", "state", "causes")
    )


def test_explain_needs_no_pytest():
    """`explain` works in a process that never imports pytest."""
    code = (
        "import sys, pytest_startmethod\n"
        "findings = pytest_startmethod.explain(lambda: None)\n"
        "print([f.code for f in findings], 'pytest' in sys.modules, '_pytest' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['SM101'] False False\n", "")


def test_pytest_rewrites_none_of_our_modules(tmp_path):
    """Pytest would rewrite every module of a plugin's distribution, except those imported before we can opt out."""
    (tmp_path / "as_installed.py").write_text(
        "def pytest_load_initial_conftests(early_config):\n"
        "    pass\n"
        "import sys\n"
        "(hook,) = (f for f in sys.meta_path if type(f).__name__ == 'AssertionRewritingHook')\n"
        "hook.mark_rewrite('pytest_startmethod')\n"  # as for the files of an installed distribution
        "def pytest_unconfigure():\n"
        "    ours = [m for name, m in sys.modules.items() if name.startswith('pytest_startmethod.')]\n"
        "    print(len(ours) > 9, *(m.__name__ for m in ours if m.__spec__.loader is hook))\n"
    )
    (tmp_path / "test_a.py").write_text("import pytest\n@pytest.mark.startmethods('spawn')\ndef test_a():\n    pass\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "as_installed",
        "-p",
        "pytest_startmethod.plugin",
        "test_a.py",
    ]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "True pytest_startmethod._compat pytest_startmethod._compat.rewriting\n" in done.stdout


@pytest.mark.skipif(not (ROOT / "CITATION.cff").exists(), reason="needs the repository")
def test_citation_is_of_this_version():
    """The citation file has the version of pyproject.toml."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_pages_of_the_causes_are_installed():
    """`explain` finds a page for each code, both in a wheel and in a source checkout."""
    from pytest_startmethod.__main__ import page
    from pytest_startmethod.model.codes import CAUSES

    for code, cause in CAUSES.items():
        assert page(code).startswith(f"# {code} {cause.name}\n")


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_a_failure_is_described(session, monkeypatch, collects):
    """An exception in a ``__del__`` during ``ast.parse`` breaks it on old versions (gh-106905); the setting stays."""
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    outcome = session.file(
        test_a=f"""
        import gc, pytest

        seen = []

        class Told(Exception):
            def __str__(self):
                seen.append(gc.isenabled())
                return "told"

        @pytest.mark.startmethods("spawn")
        def test_a():
            gc.{"enable" if collects else "disable"}()
            raise Told

        def test_b():
            assert (seen[0], gc.isenabled()) == (False, {collects})
            gc.enable()
        """
    ).run("--no-start-methods-verify")  # which would run the test again
    assert gc.isenabled()
    assert outcome.names == {"test_a[spawn]": "failed", "test_b": "passed"}, outcome.out
