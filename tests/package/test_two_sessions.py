"""Two sessions in one process share nothing: the second starts without any state or patch of the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"

SUITE = """
import multiprocessing, os
import pytest
from work import work

@pytest.mark.startmethods
def test_process(monkeypatch):
    monkeypatch.setattr("work.NUMBER", 1)
    process = multiprocessing.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0

@pytest.mark.startmethods
def test_lambda():
    multiprocessing.Process(target=lambda: None).start()

def test_unmarked():
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(abs, (-1,)) == 1
"""

WORK = """
NUMBER = 1

def work():
    assert NUMBER == 1
"""

TWICE = """
import json, multiprocessing.process, multiprocessing.spawn, os, signal, sys, types
import multiprocessing.pool, multiprocessing.popen_fork, multiprocessing.synchronize, multiprocessing.forkserver
import concurrent.futures.process, unittest.mock
import pytest

PLAIN = (list, dict, set, int, str, bytes, bool, tuple, type(None))

def flat(value, depth=0):
    if type(value) in (list, tuple, set):
        return [flat(each, depth + 1) for each in value] if depth < 3 else len(value)
    if type(value) is dict:
        return {str(name): flat(each, depth + 1) for name, each in value.items()} if depth < 3 else len(value)
    if type(value).__module__.startswith("pytest_startmethod") and not isinstance(value, type) and depth < 3:
        names = [n for cls in type(value).__mro__ for n in getattr(cls, "__slots__", ())]
        own = {**getattr(value, "__dict__", {}), **{n: getattr(value, n, None) for n in names}}
        return {name: flat(each, depth + 1) for name, each in own.items()}
    return repr(value) if type(value) in PLAIN else type(value).__qualname__

def ours():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "pytest_startmethod":
            for attribute, value in list(vars(module).items()):
                kind = type(value)
                held = kind in (list, dict, set) or (kind.__module__ == name and not isinstance(value, type))
                if held and not attribute.startswith("__"):
                    found[f"{name}.{attribute}"] = flat(value)
    return found

def theirs():
    classes = [multiprocessing.process.BaseProcess, multiprocessing.popen_fork.Popen, multiprocessing.pool.Pool,
               multiprocessing.pool.ApplyResult, multiprocessing.synchronize.SemLock,
               multiprocessing.forkserver.ForkServer, concurrent.futures.process.ProcessPoolExecutor,
               multiprocessing.reduction.ForkingPickler, pytest.MonkeyPatch, unittest.mock._patch,
               type(multiprocessing.get_context.__self__), os, multiprocessing.spawn]
    found = {f"{cls.__name__}.{name}": id(value) for cls in classes for name, value in vars(cls).items()
             if isinstance(value, (types.FunctionType, types.BuiltinFunctionType))}
    found["context"] = sorted(multiprocessing.get_context.__self__.__dict__)
    found["default"] = type(multiprocessing.get_context.__self__).__qualname__
    found["finders"] = [id(each) for each in sys.meta_path if type(each).__module__.startswith("pytest_startmethod")]
    found["handlers"] = [str(signal.getsignal(number)) for number in signal.valid_signals()]
    found["directory"] = multiprocessing.process.current_process()._config.get("tempdir")
    return found

def main():
    args = ["-q", "-p", "no:cacheprovider", "-p", "pytest_startmethod.plugin", *sys.argv[1:], "test_a.py"]
    multiprocessing.get_start_method()
    before, statuses, between = theirs(), [], []
    for _ in range(2):
        statuses.append(int(pytest.main(args)))
        between.append(ours())
        assert theirs() == before, {k: v for k, v in theirs().items() if before.get(k) != v}
    first, second = between
    changed = {name: (first.get(name), value) for name, value in second.items() if first.get(name) != value}
    print("RESULT", json.dumps([statuses, changed]))

if __name__ == "__main__":
    main()
"""


def _run(tmp_path, *args):
    (tmp_path / "test_a.py").write_text(SUITE)
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "twice.py").write_text(TWICE)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "twice.py", *args]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stdout + done.stderr
    return json.loads(results[0].removeprefix("RESULT "))


def test_marked_sessions(tmp_path):
    """What legs patch and record is gone after their session."""
    assert _run(tmp_path) == [[1, 1], {}]


def test_discovering_sessions(tmp_path):
    """So are the hooks of discovery."""
    assert _run(tmp_path, "--start-methods-discover") == [[1, 1], {}]
