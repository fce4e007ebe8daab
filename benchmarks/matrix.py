"""Whether settings of pytest, xdist and the interpreter change an outcome: the first example and a suite of all kinds.

    python benchmarks/matrix.py                # each setting in turn
    python benchmarks/matrix.py xdist          # only those whose name contains the word

Runs in an environment where the plugin and its `test` extra are installed. Prints the tests whose outcome differs from
a run without the setting; xdist's `each` runs every test in both workers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"

KINDS = """
import multiprocessing, unittest
import pytest
from hypothesis import given, settings, strategies
import kinds

def run(target=kinds.work, *args):
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0

pytestmark = pytest.mark.startmethods

@pytest.fixture(scope="module")
def pool(mp_context):
    with mp_context.Pool(1) as pool:
        yield pool

def test_function(): run()
def test_pool(pool): assert pool.apply(kinds.work) is None
def test_fails(): run(lambda: None)
def test_nothing_started(): pass
def test_skips(): pytest.skip("never")
def test_changed(monkeypatch):
    monkeypatch.setattr(kinds, "LIMIT", 2)
    run(kinds.check)

@pytest.mark.xfail(strict=True)
def test_expected(): run(kinds.check)

@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.xdist_group("numbers")
def test_parametrized(n): run(kinds.work, n)

@settings(max_examples=2, deadline=None)
@given(strategies.integers())
def test_property(n): run(kinds.work, n)

@pytest.mark.startmethods("spawn")
def test_one_method(): run()

class TestClass:
    def test_method(self, tmp_path): run(kinds.work, tmp_path)

class TestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.held = 1
    def test_case(self): run(kinds.work, self.held)

class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_async(self): run()
"""

PLAIN = """
def test_unmarked(): assert 1 + 1 == 2

def add():
    '''
    >>> add()
    2
    '''
    return 2
"""

WORK = """
LIMIT = 1

def work(*args): return None

def check():
    assert LIMIT == 2
"""

WORKERS = ("-n", "2", "-W", "ignore:This process:DeprecationWarning")

SETTINGS: dict[str, tuple[str, ...]] = {
    "import-mode importlib": ("--import-mode=importlib",),
    "assert plain": ("--assert=plain",),
    "-W error": ("-W", "error"),
    "PYTHONDEVMODE=1": (),
    **{f"xdist {mode}": (*WORKERS, f"--dist={mode}") for mode in ("load", "loadscope", "loadgroup", "worksteal")},
    "xdist each": ("--dist=each", "--tx=2*popen", *WORKERS[2:]),
}


def outcomes(folder: Path, name: str = "", *arguments: str) -> set[tuple[str, str]]:
    """Run the suite; return the id and the outcome of each test."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "path")}
    if "=" in name:
        environment.update([name.split("=")])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "--doctest-modules",
               "--junit-xml=r.xml", *arguments, "suite"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 1:
        sys.exit(f"{name}: pytest exited with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    found = set()
    for case in ElementTree.parse(folder / "r.xml").iter("testcase"):
        test = (
            f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '').removeprefix('suite.')}".partition(
                "@"
            )[0]
        )
        found.add((test, next((each.tag for each in case if each.tag in ("failure", "error", "skipped")), "passed")))
    return found


def main() -> None:
    """Run the suite without and with each setting; print what differs."""
    from importlib.metadata import version

    named = ", ".join(f"{each} {version(each)}" for each in ("pytest", "pytest-xdist"))
    print(f"Python {sys.version.split()[0]}, {named}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\nmarkers = xdist_group(name)\n")
        (folder / "path").mkdir()
        (folder / "path/kinds.py").write_text(WORK)
        (folder / "suite").mkdir()
        shutil.copy(EXAMPLES / "test_classics.py", folder / "suite")
        (folder / "suite/test_kinds.py").write_text(KINDS)
        (folder / "suite/test_plain_kinds.py").write_text(PLAIN)
        usual = outcomes(folder)
        print(f"{len(usual)} tests and legs, {sum(outcome == 'failure' for _, outcome in usual)} of which fail")
        for name, arguments in SETTINGS.items():
            if not any(word in name for word in sys.argv[1:] or [""]):
                continue
            start = time.perf_counter()
            now = outcomes(folder, name, *arguments)
            differing = "; ".join(f"{outcome} {test}" for test, outcome in sorted(now ^ usual)) or "as without"
            print(f"{name:22} {time.perf_counter() - start:5.0f} s  {differing}", flush=True)


if __name__ == "__main__":
    main()
