"""What other tools say of the same calls and tests, and what each costs.

    python benchmarks/peers.py              # the project's own cases
    python benchmarks/peers.py DIR          # those of DIR/zoo.py, or the tests that DIR/expect.json lists
    python benchmarks/peers.py DIR ray      # only this peer

Peers:

- by hand: the call runs in a child with each method's context; a test runs with each method set as the default. This is
  what a test parametrized by hand, or a mixin class for each method as in CPython's own suite, comes down to.
- interpreter: `ForkingPickler.dumps`, with the notes that Python 3.14 adds to the exception;
- dill: `dill.detect.errors` and `badobjects`;
- ray: `inspect_serializability`, which pickles by value;
- this plugin: `explain`, or a session with ``--start-methods=all``.

Cases are calls with a known answer: some do not pickle, some cannot be loaded, some run with other values in the child.
A peer has the verdict if it speaks of exactly those; the path if it names the attribute, index or cell that leads to
the object; the line if it names the file and line where that is made. It has ten seconds of processor for a case; an
error is an exception of the peer's own, a crash, or a case that it did not finish.

Tests are re-created bug reports. A peer has noticed one if it says anything of it (by hand and this plugin: a method
fails or hangs, and fork does not), and named it if its text has one of the expected names. For dill and ray, a conftest
file asks about each process and task as it starts.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing import context
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from pytest_startmethod import explain
from pytest_startmethod.pickling import dry_run

sys.path[:0] = [str(Path(__file__).parents[1] / each) for each in ("tests/zoo", "tests")]

PROCESSOR_SECONDS, SECONDS = 10, 60
"""Limits of one case."""
TEST_SECONDS = 150

KINDS = ("pickle", "load", "differs", "")


class Case(NamedTuple):
    """A call with a known answer."""

    make: Callable[[], Any]
    wrong: str
    """One of `KINDS`; empty if it runs as in the parent."""
    paths: tuple[str, ...]
    places: tuple[str, ...]
    """``file:line``"""


# -- what each says of a call: a text, or None -------------------------------------------------------------------------


def run(connection: Connection, given: Any) -> None:
    """Send what a call returns, in a child."""
    connection.send(repr(given.target(*given.args, **given.kwargs)))


def by_hand(given: Any) -> str | None:
    """Return why a spawned child does not run the call, or what it returns instead."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryFile("w+") as errors:
        os.dup2(errors.fileno(), 2)
        if given.task:
            with spawn.Pool(1) as pool:
                try:
                    pool.apply_async(given.target, given.args, given.kwargs).get(SECONDS)
                except Exception as error:
                    return f"{type(error).__name__}: {error}"
            return None
        try:
            here = repr(given.target(*given.args, **given.kwargs))
        except Exception as error:
            here = repr(error)
        ours, theirs = spawn.Pipe()
        whole = SimpleNamespace(target=given.target, args=given.args, kwargs=given.kwargs)
        process = spawn.Process(target=run, args=(theirs, whole))
        try:
            process.start()
        except Exception as error:
            return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        theirs.close()
        try:
            there = ours.recv()
        except EOFError:
            process.join()
            errors.seek(0)
            return errors.read() or f"exit code {process.exitcode}"
        return None if here == there else f"{here} != {there}"


def interpreter(given: Any) -> str | None:
    """Return the exception's text and notes, or None if the call pickles."""
    if not given.task:  # as when a process starts: locks and queues may be sent
        context.set_spawning_popen(dry_run.STAND_IN)
    try:
        ForkingPickler.dumps((given.target, given.args, given.kwargs))
    except Exception as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    return None


def dill_detect(given: Any) -> str | None:
    """Return what dill calls an error and a bad object."""
    import dill.detect

    call = (given.target, given.args, given.kwargs)
    if (error := dill.detect.errors(call)) is None:
        return None
    return f"{error}\n{dill.detect.badobjects(call, depth=1)}"


def ray_inspect(given: Any) -> str | None:
    """Return what ray prints of a call that it cannot serialize."""
    from ray.util import inspect_serializability

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        fine, _ = inspect_serializability((given.target, given.args, given.kwargs), name="call", depth=5)
    return None if fine else re.sub(r"\x1b\[\d*m", "", printed.getvalue())


def plugin(given: Any) -> str | None:
    """Return the causes that `explain` finds."""
    found = explain(given.target, given.args, given.kwargs, task=given.task)
    return "\n".join(map(str, found)) or None


Ask = Callable[[Any], "str | None"]
PEERS: dict[str, Ask] = {
    "by hand": by_hand,
    "interpreter": interpreter,
    "dill": dill_detect,
    "ray": ray_inspect,
    "this plugin": plugin,
}


# -- cases -------------------------------------------------------------------------------------------------------------


def own_cases() -> Iterable[Case]:
    """Yield the project's cases: calls, then calls that read state."""
    import pickling_cases
    import state_cases

    for case in pickling_cases.CASES.values():
        places = tuple(f"{pickling_cases.FILE}:{number}" for number in case.lines)
        kind = "load" if any(code.startswith("SM2") for code in case.codes) else "pickle"
        yield Case(case.make, kind if case.codes else "", case.paths, places)
    for state in state_cases.CASES.values():
        if not state.path or state.level == "cause":
            yield Case(state.make, "differs" if state.path else "", (state.path,) if state.path else (), ())


def cases_of(folder: Path) -> Iterable[Case]:
    """Yield the cases of another folder."""
    sys.path.insert(0, str(folder))
    import zoo

    def fine(needs: Iterable[str]) -> bool:
        try:
            return all(__import__(each) for each in needs)
        except ImportError:
            return False

    kinds = {"pickle": "pickle", "unpickle": "load", "differs": "differs"}
    for case in zoo.CASES.values():
        if fine(case.expect.needs):
            places = tuple(f"{folder / 'zoo.py'}:{number}" for number in case.lines)
            yield Case(case.make, kinds.get(case.expect.verdict, ""), tuple(case.expect.paths), places)


def answer(connection: Connection, ask: Ask, case: Case) -> None:
    """Ask about one case in a process of its own: some peers hang, and some close what they look at."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    try:
        made = case.make()
    except ImportError:
        connection.send(None)
        return
    task = getattr(made, "task", getattr(made, "how", "") == "pool")
    given = SimpleNamespace(target=made.target, args=made.args, kwargs=getattr(made, "kwargs", {}), task=task)
    start = time.perf_counter()
    try:
        said, failed = ask(given), False
    except Exception:
        said, failed = None, True
    connection.send((said, (time.perf_counter() - start) * 1000, failed))


def row_of_cases(ask: Ask, cases: Iterable[Case]) -> list[str]:
    """Ask about each case; return the cells of the table."""
    fork = multiprocessing.get_context("fork")
    right, asked = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    path = paths = line = lines = alarms = errors = 0
    took = []
    for case in cases:
        ours, theirs = fork.Pipe()
        process = fork.Process(target=answer, args=(theirs, ask, case))
        process.start()
        theirs.close()
        try:
            answered = ours.recv() if ours.poll(SECONDS) else (None, SECONDS * 1000.0, True)
        except EOFError:  # it crashed
            answered = None, 0.0, True
        process.kill()
        process.join()
        if answered is None:
            continue
        said, milliseconds, failed = answered
        took.append(milliseconds)
        errors += failed
        asked[case.wrong] += 1
        alarms += said is not None and not case.wrong
        right[case.wrong] += not failed and (said is not None) == bool(case.wrong)
        paths += bool(case.paths)
        path += said is not None and any(each in said for each in case.paths)
        lines += bool(case.places)
        line += said is not None and any(each in said for each in case.places)
    cells = [f"{right[each]}/{asked[each]}" for each in ("pickle", "load", "differs")]
    cells += [f"{path}/{paths}", f"{line}/{lines}", str(alarms), str(errors)]
    return [*cells, f"{statistics.median(took):.1f} ms", f"{max(took):.0f} ms"]


# -- tests -------------------------------------------------------------------------------------------------------------

# A script is run as a user would run it whose platform has the method.
BY_HAND = """
import multiprocessing, subprocess, sys, types
import pytest

RUN = '''
import multiprocessing, runpy, sys
multiprocessing.set_start_method(sys.argv[1])
sys.argv = sys.argv[2:]
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
'''

@pytest.fixture(autouse=True, params=["fork", "spawn", "forkserver"])
def method(request):
    multiprocessing.set_start_method(request.param, force=True)
    return request.param

@pytest.fixture
def start_method_script(method):
    def start(*arguments, timeout=None):
        command = [sys.executable, "-c", RUN, method, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        done.check = lambda: done.check_returncode() or done
        print(done.stderr)
        return done
    return start
"""

ASKING = """
import concurrent.futures, multiprocessing.pool, multiprocessing.process, sys
from types import SimpleNamespace
import peers

def ask(target, args, kwargs, task=True):
    try:
        said = peers.PEERS[PEER](SimpleNamespace(target=target, args=args, kwargs=kwargs, task=task))
    except Exception as error:
        said = None
    if said is not None:
        with open("said", "a") as file: file.write(said)

def around(owner, name, call):
    original = getattr(owner, name)
    def replacement(self, *args, **kwargs):
        call(self, *args, **kwargs)
        return original(self, *args, **kwargs)
    setattr(owner, name, replacement)

def started(process):
    own = {name: value for name, value in vars(process).items() if not name.startswith("_")}  # of a subclass
    ask(process._target, process._args, {**process._kwargs, **own}, False)

around(multiprocessing.process.BaseProcess, "start", started)
Pool = multiprocessing.pool.Pool
around(Pool, "_map_async", lambda pool, function, tasks, *_, **__: ask(function, (tasks,), {}))
for name in ("imap", "imap_unordered"):
    around(Pool, name, lambda pool, function, tasks, *_, **__: ask(function, (), {}))
around(Pool, "apply_async", lambda pool, function, args=(), kwds={}, *_, **__: ask(function, args, kwds))
Executor = concurrent.futures.ProcessPoolExecutor
around(Executor, "submit", lambda pool, function, /, *args, **kwargs: ask(function, args, kwargs))
"""


class Told(NamedTuple):
    """What a session said of one test directory."""

    noticed: bool
    text: str
    seconds: float


def session(folder: Path, conftest: str, *arguments: str) -> tuple[str, float, bool]:
    """Run the tests of `folder`; return what was printed, the seconds of processor, and whether it hung."""
    with open(folder / "conftest.py", "a") as file:
        file.write(conftest)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHASHSEED", "PYTEST_ADDOPTS")}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-q", *arguments]
    before, hung = os.times(), False
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, errors="replace", start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            out, _ = process.communicate(timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            hung = True
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
    after = os.times()
    return out, sum(after[2:4]) - sum(before[2:4]), hung


def told(peer: str, folder: Path) -> Told:
    """Return what a peer says of the tests in `folder`."""
    if peer == "by hand":
        out, seconds, hung = session(folder, BY_HAND, "-p", "no:startmethod", "-rfE")
        failed = re.findall(r"^(?:FAILED|ERROR) \S*\[(\w+)", out, re.MULTILINE)
        return Told("fork" not in failed and (bool(failed) or hung), out, seconds)
    if peer == "this plugin":
        _, seconds, _ = session(folder, "", "--start-methods=all", "--start-methods-report=r.json")
        with contextlib.suppress(OSError):
            tests = json.loads((folder / "r.json").read_text())["tests"]
            causes = [next((each for each in test["findings"] if each["level"] == "cause"), None) for test in tests]
            text = "\n".join(json.dumps(each) for each in causes if each is not None)
            failed = {method for test in tests for method, leg in test["legs"].items() if leg["outcome"] == "failed"}
            return Told("fork" not in failed and bool(failed), text, seconds)
        return Told(False, "", seconds)
    _, seconds, _ = session(folder, BY_HAND.replace(', "spawn", "forkserver"', "") + f"PEER = {peer!r}\n" + ASKING,
                         "-p", "no:startmethod")  # fmt: skip
    said = folder / "said"
    return Told(said.exists(), said.read_text() if said.exists() else "", seconds)


def row_of_tests(peer: str, folder: Path) -> list[str]:
    """Run each test directory; return the cells of the table."""
    expected = json.loads((folder / "expect.json").read_text())
    noticed = named = 0
    took = []
    for name, truth in expected.items():
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary, name)
            shutil.copytree(folder / name, work)
            each = told(peer, work)
        noticed += each.noticed
        named += each.noticed and any(one.lower() in each.text.lower() for one in truth["names"])
        took.append(each.seconds)
        if "-v" in sys.argv:
            print(f"  {name}: {'noticed' if each.noticed else '-'}", file=sys.stderr)
    total = len(expected)
    return [f"{noticed}/{total}", f"{named}/{total}", f"{sum(took):.0f} s", f"{max(took):.0f} s"]


# -- the table ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Ask each peer, and print a table."""
    given = [each for each in sys.argv[1:] if each != "-v"]
    folder = Path(given.pop(0)).resolve() if given and os.path.isdir(given[0]) else None
    tests = folder is not None and (folder / "expect.json").exists()
    cases = [] if tests else list(own_cases() if folder is None else cases_of(folder))
    head = ["pickle", "load", "differs", "path", "line", "alarms", "errors", "median", "longest"]
    if tests:
        head = ["noticed", "named", "processor", "longest"]
    print(f"Python {sys.version.split()[0]}, {folder or 'own cases'}")
    print(f"{'':14}" + "".join(f"{each:>11}" for each in head))
    for name in given or PEERS:
        if name in ("dill", "ray"):
            try:
                __import__(name)
            except ImportError:
                print(f"{name:14} is not installed")
                continue
        cells = row_of_tests(name, folder) if tests and folder is not None else row_of_cases(PEERS[name], cases)
        print(f"{name:14}" + "".join(f"{each:>11}" for each in cells), flush=True)


if __name__ == "__main__":
    main()
