"""Real children report their failures, and neither they nor the user can tell."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.child import reporter
from pytest_startmethod.launches import reports

SOURCE = Path(__file__).parents[2] / "src"
METHODS = ["fork", "spawn", "forkserver"]

WORK = """
import ctypes, multiprocessing, os, signal, sys, threading


class Stop(StopIteration):
    pass


class Refuses:
    def __init__(self):
        self.version = 1

    def __setstate__(self, state):
        raise KeyError("version")


class Needs(Exception):
    def __init__(self, code, text):
        super().__init__(text)


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def fine(*args):
    pass


def boom(value):
    raise ValueError(f"bad {value}")


def chained():
    try:
        boom(1)
    except ValueError as error:
        raise KeyError("k") from error


def bare():
    count, data, other = 3, [1, {"k": None}], object()
    assert count == len(data), other and ""


def silently():
    count, data = 3, [1, {"k": None}]
    assert (count
            == len(data))


def stops():
    raise Stop("s")


def mute():
    raise Silent


def deep():
    deep()


def leaves():
    sys.exit(3)


def speaks():
    sys.exit("bye")


def ends_well():
    sys.exit(0)


def vanishes():
    os._exit(7)


def crashes():
    ctypes.string_at(0)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def limited():
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
    raise ValueError("no room")


def starts(method):
    process = multiprocessing.get_context(method).Process(target=boom, args=(method,), name="inner")
    process.start()
    process.join()


def gives_lambda(value):
    return {"a": [1, lambda: value]}


def raises_lock(value):
    raise ValueError("bad", threading.Lock())


def raises_needs(value):
    raise Needs(1, "no")


def fails_to_begin():
    raise RuntimeError("begin")

"""

RUN = """
import sys

sys.path.insert(0, %r)
import multiprocessing
import work

if __name__ == "__main__":  # each child runs this file again, and has no use for these
    import json, os, shutil

    from pytest_startmethod.child import events, reporter as child
    from pytest_startmethod.launches import lines, reports
    from pytest_startmethod._compat.multiprocessing import STDLIB
    from pytest_startmethod.activation.exchanges import Exchanges

    method, watched, sabotage, *cases = sys.argv[1:]


def arguments(case):
    name, _, argument = case.partition(":")
    given = {"": (), "refuses": (work.Refuses(),), "needs": (work.Needs(1, "x"),)}
    return getattr(work, name), given.get(argument, (argument,))


def main():
    context = multiprocessing.get_context(method)
    directory = reports.ReportDirectory.create()
    if sabotage == "gone":
        shutil.rmtree(directory.path)
    elif sabotage == "a file":
        shutil.rmtree(directory.path)
        open(directory.path, "w").close()
    elif sabotage == "missing":
        os.unlink(os.path.join(directory.path, child.COMPILED))
    elif sabotage == "truncated":
        with open(os.path.join(directory.path, child.COMPILED), "r+b") as file:
            file.truncate(1000)
    elif sabotage in ("syntax", "raises", "another's"):
        import marshal
        text, name = ("raise RuntimeError", child.__file__) if sabotage == "raises" else ("raise SystemExit(7)", "a.py")
        code = reports.compiled(child.__file__)[:16] + marshal.dumps(compile(text, name, "exec"))
        with open(os.path.join(directory.path, child.COMPILED), "wb") as file:
            file.write(b"def (" if sabotage == "syntax" else code)
    elif sabotage == "limit":
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    elif sabotage == "taken":
        lines.handover = events.Handover()  # another thread's is found
    patches = Exchanges().span("test")
    if watched == "1":
        directory.listen(patches, STDLIB)
    results = []
    for case in cases:
        sys.stderr.write(f"## {case}\\n")
        sys.stderr.flush()
        target, args = arguments(case)
        process = context.Process(target=target, args=args, name="P")
        process.start()
        process.join()
        entry = {"case": case, "pid": process.pid, "exit": process.exitcode, "reports": []}
        for each in directory.read():
            entry["reports"].append({
                "pid": each.pid, "phase": each.phase, "method": each.method, "process": each.process,
                "starter": each.starter, "exit_code": each.exit_code, "stack": each.stack,
                "raised": [[e.type, e.message, [[f.function, f.source] for f in e.frames], e.statement, e.values]
                           for e in each.raised],
                "sys_path": bool(each.sys_path),
            })
        results.append(entry)
        directory.clear()
        for name in os.listdir(directory.path) if os.path.isdir(directory.path) else ():
            if name.endswith(".stack"):
                os.unlink(os.path.join(directory.path, name))
    patches.undo()
    sys.stderr.write("## end\\n")
    print(json.dumps({"parent": os.getpid(), "results": results}))
    directory.remove()
    if sabotage == "a file":
        os.unlink(directory.path)


if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Ran:
    """The results of one parent and its children."""

    parent: int
    cases: dict[str, dict[str, Any]]
    stderr: str

    @property
    def exits(self) -> dict[str, int]:
        """Exit codes by case."""
        return {name: case["exit"] for name, case in self.cases.items()}

    def only(self, case: str) -> dict[str, Any]:
        """Return the only report of `case`."""
        (report,) = self.cases[case]["reports"]
        return report


class World:
    """A directory with a parent script that starts children, watched or unwatched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "work.py").write_text(WORK)
        (path / "run.py").write_text(RUN % str(SOURCE))

    @functools.cache  # noqa: B019 - it ends with the module
    def unwatched(self, method: str, *cases: str, sabotage: str = "") -> Ran:
        """Return what happens without us, for comparison with several runs."""
        return self.run(method, *cases, watched=False, sabotage=sabotage)

    @functools.cache  # noqa: B019
    def watched(self, method: str) -> Ran:
        """Return what happens with us, for all tests that look at something else of it."""
        return self.run(method, *ALL)

    def run(self, method: str, *cases: str, watched: bool = True, sabotage: str = "") -> Ran:
        command = [sys.executable, "run.py", method, str(int(watched)), sabotage, *cases]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout, done.stderr
        data = json.loads(done.stdout)
        return Ran(data["parent"], {each["case"]: each for each in data["results"]}, _plain(done.stderr))


def _plain(text: str) -> str:
    """Remove what varies between runs."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"repeated \d+ more", "repeated N more", text)  # two of our own calls take up two stack entries
    return re.sub(r"Process-[\d:]+", "Process-N", text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


ALL = [
    "fine", "boom:1", "chained", "silently", "stops", "mute", "deep", "leaves", "speaks", "ends_well", "vanishes",
    "killed", "fine:refuses", "fine:needs", "limited", "starts:fork", "starts:spawn", "starts:forkserver", "bare",
]  # fmt: skip


def test_nobody_can_tell_that_a_child_is_watched(world: World, method: str) -> None:
    """For every kind of failure, exit code and standard error are unchanged, tracebacks line by line."""
    plain, watched = world.unwatched(method, *ALL), world.watched(method)
    assert watched.exits == plain.exits
    assert watched.stderr == plain.stderr
    assert plain.exits["boom:1"] == 1
    assert not any(case["reports"] for case in plain.cases.values())


def test_what_run_raises_is_reported_with_its_frames(world: World, method: str) -> None:
    """The report holds method, name, starter, exception type, message and the source lines of the traceback."""
    ran = world.watched(method)
    report = ran.only("boom:1")
    assert report["pid"] == ran.cases["boom:1"]["pid"]
    assert report["starter"] == ran.parent
    assert (report["phase"], report["method"], report["process"]) == ("run", method, "P")
    ((kind, message, frames, _, _),) = report["raised"]
    assert (kind, message) == ("ValueError", "bad 1")
    assert frames[-1] == ["boom", 'raise ValueError(f"bad {value}")']


def test_causes_of_an_exception_are_reported_with_it(world: World) -> None:
    """``raise ... from`` yields two exceptions, newest first."""
    report = world.watched("spawn").only("chained")
    assert [each[:2] for each in report["raised"]] == [["KeyError", "'k'"], ["ValueError", "bad 1"]]


def test_a_bare_assertion_carries_its_source_and_the_values_of_builtins(world: World, method: str) -> None:
    """A statement of several lines is complete; an object's repr is never called."""
    ran = world.watched(method)
    ((kind, message, _, statement, values),) = ran.only("silently")["raised"]
    assert (kind, message) == ("AssertionError", "")
    assert statement == "assert (count\n        == len(data))"
    assert dict(values) == {"count": "3", "data": "[1, {'k': None}]"}
    assert ran.only("bare")["raised"][0][3:] == [None, []]


def test_an_exception_without_text_is_reported_all_the_same(world: World) -> None:
    """The exception's ``__str__`` may raise; a recursion is cut to forty frames."""
    ran = world.watched("spawn")
    assert ran.only("mute")["raised"][0][:2] == ["work.Silent", "<its __str__ raised>"]
    assert ran.only("deep")["raised"][0][0] == "RecursionError"
    assert 35 < len(ran.only("deep")["raised"][0][2]) <= 40


def test_sys_exit_is_reported_when_it_says_failure(world: World, method: str) -> None:
    """Status 0 is not a failure, a text is status 1."""
    ran = world.watched(method)
    assert [ran.exits[case] for case in ("leaves", "speaks", "ends_well")] == [3, 1, 0]
    assert ran.only("leaves")["exit_code"] == 3
    assert ran.only("speaks")["raised"][0][:2] == ["SystemExit", "bye"]
    assert ran.cases["ends_well"]["reports"] == []


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_does_not_unpickle_is_reported_before_anything_runs(world: World, method: str) -> None:
    """The phase is unpickling, and the report contains the child's sys.path."""
    ran = world.watched(method)
    assert ran.exits["fine:refuses"] == ran.exits["fine:needs"] == 1
    report = ran.only("fine:refuses")
    assert (report["phase"], report["method"], report["process"]) == ("unpickling", method, "P")
    assert report["raised"][0][:2] == ["KeyError", "'version'"]
    assert report["raised"][0][2][-1] in (
        ["Refuses.__setstate__", 'raise KeyError("version")'],
        ["__setstate__", 'raise KeyError("version")'],  # 3.10
    )
    assert report["sys_path"]
    assert "__init__() missing 1 required positional argument: 'text'" in ran.only("fine:needs")["raised"][0][1]


@pytest.mark.parametrize("inner", METHODS)
def test_a_grandchild_is_told_from_its_parent(world: World, method: str, inner: str) -> None:
    """A grandchild reports under its own name, with the child as its starter, whatever the two methods are."""
    case = f"starts:{inner}"
    ran = world.watched(method)
    report = ran.only(case)
    assert report["starter"] == ran.cases[case]["pid"]
    assert (report["method"], report["process"]) == (inner, "inner")
    assert report["raised"][0][1] == f"bad {inner}"


@pytest.mark.skipif(sys.platform == "win32", reason="a segmentation fault has another form there")
def test_a_crash_leaves_its_stack(world: World, method: str) -> None:
    """Faulthandler names the user's line; `os._exit` and SIGKILL leave only an exit code."""
    ran, others = world.run(method, "crashes"), world.watched(method)
    assert ran.exits == {"crashes": -11}
    assert (others.exits["vanishes"], others.exits["killed"]) == (7, -9)
    report = ran.only("crashes")
    assert (report["phase"], report["method"]) == ("crash", method)
    assert report["stack"][0] == "Fatal Python error: Segmentation fault"
    assert any("work.py" in line and "in crashes" in line for line in report["stack"])
    assert others.cases["vanishes"]["reports"] == others.cases["killed"]["reports"] == []


def test_a_child_imports_nothing_for_us(tmp_path: Path) -> None:
    """Until something fails, it has the modules that multiprocessing imports and three C modules."""
    script = (
        "import sys, multiprocessing.spawn; from importlib.machinery import SourcelessFileLoader\n"
        "before = set(sys.modules)\n"
        "names = {'__name__': 'child'}\n"
        "exec(SourcelessFileLoader('child', 'child.pyc').get_code('child'), names)\n"
        f"names['install']({str(tmp_path)!r}, 'spawn', 'P', 1)\n"
        "print(sorted(set(sys.modules) - before - {'__future__', 'faulthandler', 'fcntl', 'resource'}))"
    )
    (tmp_path / "child.pyc").write_bytes(reports.compiled(reporter.__file__))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


# -- when our part fails -----------------------------------------------------------------------------------------------

DAMAGED = ["fine", "boom:1", "leaves", "vanishes", "fine:refuses"]


@pytest.mark.parametrize(
    "sabotage", ["gone", "a file", "missing", "truncated", "syntax", "raises", "another's", "limit"]
)
def test_a_child_runs_on_when_our_part_of_it_fails(world: World, method: str, sabotage: str) -> None:
    """No directory, no room, or a module that is missing, truncated, not Python or raising: the child is unaffected."""
    if sabotage == "limit" and sys.platform == "win32":
        pytest.skip("no such limit there")
    # without us, only the limit makes a difference
    plain = world.unwatched(method, *DAMAGED, sabotage="limit" if sabotage == "limit" else "")
    damaged = world.run(method, *DAMAGED, sabotage=sabotage)
    assert damaged.exits == plain.exits
    assert damaged.stderr == plain.stderr
    if method != "fork" and sabotage != "limit":
        assert not any(case["reports"] for case in damaged.cases.values())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux whether the parent has ended")
def test_a_parent_that_is_waited_for_meanwhile_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has nothing more to say then in a file that was opened before."""
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not reporter._is_gone(parent.pid)

    @contextlib.contextmanager
    def open_and_wait(*args: Any, **options: Any) -> Iterator[Any]:
        with open(*args, **options) as file:
            parent.communicate()
            yield file

    monkeypatch.setattr(reporter, "open", open_and_wait, raising=False)
    assert reporter._is_gone(parent.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux whether the parent has ended")
@pytest.mark.parametrize("waited_for", [True, False])
def test_a_child_whose_parent_ended_while_it_started_ends_too(tmp_path: Path, waited_for: bool) -> None:
    """The parent's directory is gone with it by then, and with that the code that would end the child.

    Until somebody waits for the parent, as an xdist controller does for its workers, it is still in /proc.
    """
    script = (
        "import os, pickle, sys\n"
        "from pytest_startmethod.child import reporter\n"
        "stowaway = reporter.Stowaway(sys.argv[1], 'spawn', 'P', 'multiprocessing')\n"
        "sent = pickle.dumps(stowaway)\n"
        "pickle.loads(sent)\n"  # this process is its parent, and lives
        "if os.fork():\n"
        "    os._exit(0)\n"
        "os.read(int(sys.argv[2]), 1)\n"  # until the parent has ended
        "pickle.loads(sent)\n"
        "print('lives')\n"
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "gone"), str(reading)],
        pass_fds=[reading],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as parent:
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        if waited_for:
            assert parent.wait() == 0
        os.write(writing, b"x")
        assert parent.communicate()[0] == ""
    for each in (reading, writing):
        os.close(each)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_forked_child_without_a_line_makes_its_own(world: World) -> None:
    """Two threads that fork at the same time share one line."""
    ran, usual = (world.run("fork", "boom:1", "leaves", "crashes", sabotage=each) for each in ("taken", ""))
    assert ran.exits == usual.exits
    for case in ("boom:1", "leaves", "crashes"):
        own, expected = ran.only(case), usual.only(case)
        assert [own[name] for name in ("phase", "process", "raised", "exit_code")] == [
            expected[name] for name in ("phase", "process", "raised", "exit_code")
        ]
        assert (own["pid"], own["starter"]) == (ran.cases[case]["pid"], ran.parent)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_report_that_would_not_fit_is_not_begun(world: World, method: str) -> None:
    """A file size limit with the default SIGXFSZ would kill a writing child; instead it ends with 1."""
    ran = world.watched(method)
    assert ran.exits["limited"] == 1
    assert ran.cases["limited"]["reports"] == []


def test_another_stowaway_in_the_preparation_data_arrives_as_well(tmp_path: Path) -> None:
    """Coverage.py measures children through a key of its own: both keys arrive, whichever is added first."""
    (tmp_path / "theirs.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing.spawn, os

            class Other:
                def __getstate__(self):
                    return {"mark": "theirs"}

                def __setstate__(self, state):
                    os.environ["THEIR_MARK"] = state["mark"]

            def patch():
                original = multiprocessing.spawn.get_preparation_data
                def get_preparation_data(name):
                    return {**original(name), "theirs": Other()}
                multiprocessing.spawn.get_preparation_data = get_preparation_data

            def target():
                raise ValueError(os.environ.get("THEIR_MARK"))
            """
        )
    )
    (tmp_path / "both.py").write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, sys
            sys.path.insert(0, {str(SOURCE)!r})
            import theirs
            from pytest_startmethod._compat.multiprocessing import STDLIB
            from pytest_startmethod.activation.exchanges import Exchanges
            from pytest_startmethod.launches.reports import ReportDirectory

            if __name__ == "__main__":
                for first in (True, False):
                    directory, patches = ReportDirectory.create(), Exchanges().span("test")
                    if first:
                        theirs.patch()
                    directory.listen(patches, STDLIB)
                    if not first:
                        theirs.patch()
                    for method in ("spawn", "forkserver"):
                        process = multiprocessing.get_context(method).Process(target=theirs.target)
                        process.start()
                        process.join()
                    print([report.error.message for report in directory.read()])
                    patches.undo()
                    directory.remove()
            """
        )
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "both.py"], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.splitlines() == ["['theirs', 'theirs']"] * 2, done.stderr


def test_pools_report_results_and_initializers(tmp_path: Path, method: str) -> None:
    """An unpicklable result is reported with the path to the part, an executor's initializer with its role."""
    World(tmp_path)
    (tmp_path / "pools.py").write_text(
        textwrap.dedent(
            f"""
            import json, multiprocessing, sys
            from concurrent.futures import ProcessPoolExecutor
            sys.path.insert(0, {str(SOURCE)!r})
            import work
            from pytest_startmethod._compat.multiprocessing import STDLIB
            from pytest_startmethod.activation.exchanges import Exchanges
            from pytest_startmethod.launches.reports import ReportDirectory

            def attempt(call, *args):
                try:
                    call(*args)
                except Exception:
                    pass

            if __name__ == "__main__":
                context = multiprocessing.get_context({method!r})
                directory, patches = ReportDirectory.create(), Exchanges().span("test")
                directory.listen(patches, STDLIB)
                with context.Pool(1) as pool:
                    attempt(pool.apply, work.gives_lambda, (1,))
                    attempt(pool.map, work.raises_lock, [1])
                with ProcessPoolExecutor(1, mp_context=context) as executor:
                    attempt(executor.submit(work.gives_lambda, 1).result)
                    attempt(lambda: list(executor.map(work.raises_lock, [1])))
                    attempt(executor.submit(work.raises_needs, 1).result)
                with ProcessPoolExecutor(1, mp_context=context, initializer=work.fails_to_begin) as executor:
                    attempt(executor.submit(work.fine).result)
                for each in directory.read():
                    r = each.result
                    print(each.phase, each.role, each.work and each.work.name, r and (r.of, r.path, r.type, r.raised))
                for each in directory.unreturned:
                    print(each.receiver, each.raised.type, "text" in each.raised.message)
                patches.undo()
                directory.remove()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "pools.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == [
        "result None work.gives_lambda ('dict', \"['a'][1]\", 'function', False)",
        "result None work.raises_lock ('ValueError', '.args[1]', '_thread.lock', True)",
        "result None work.gives_lambda ('dict', \"['a'][1]\", 'function', False)",
        "result None work.raises_lock ('ValueError', '.args[1]', '_thread.lock', True)",
        "run initializer work.fails_to_begin None",
        "ProcessPoolExecutor TypeError True",
    ], done.stderr
    assert "reporter.py" not in done.stderr


LINES = """
import multiprocessing, os, sys
import work
from pytest_startmethod.launches import reports
from pytest_startmethod._compat.multiprocessing import STDLIB
from pytest_startmethod.activation.exchanges import Exchanges


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def main():
    context = multiprocessing.get_context("fork")
    directory = reports.ReportDirectory.create()
    patches = Exchanges().span("test")
    directory.listen(patches, STDLIB)
    before, seen = open_descriptors(), []
    for _ in range(3):
        processes = [context.Process(target=work.fine) for _ in range(12)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            process.close()
        seen.append((open_descriptors() - before, len(directory.read())))
        directory.clear()
    crash = context.Process(target=work.crashes)
    crash.start()
    crash.join()
    (report,) = directory.read()
    assert (report.pid, report.phase) == (crash.pid, "crash"), report
    crash.close()
    directory.clear()
    assert directory.read() == ()
    patches.undo()
    directory.remove()
    print(seen, open_descriptors() - before)


if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is open")
def test_what_forked_children_report_through_is_kept_for_others(world: World) -> None:
    """A few lines stay open and serve later children, however many there are, and are closed with the directory."""
    (world.path / "lines.py").write_text(f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{LINES}")
    done = subprocess.run([sys.executable, "lines.py"], cwd=world.path, capture_output=True, text=True, check=False)
    # this directory has no life line: each line uses one descriptor
    assert done.stdout == "[(8, 0), (8, 0), (8, 0)] 0\n", done.stderr
