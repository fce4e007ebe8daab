"""A script runs under a start method as it would for its user, and leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path

import pytest

from pytest_startmethod.causes import main_module
from pytest_startmethod.model.child_report import ChildReport, Frame, Raised
from pytest_startmethod.scripts import running

EXAMPLES = Path(__file__).parents[2] / "examples"
METHODS = [m for m in ("fork", "spawn", "forkserver") if m in multiprocessing.get_all_start_methods()]
FRESH = [m for m in METHODS if m != "fork"]

posix = pytest.mark.skipif(os.name != "posix", reason="processes are grouped in sessions on POSIX only")
proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")


class Box:
    """A directory for a script, with its own temporary directory and a mark on every process that it starts."""

    def __init__(self, path: Path, temporary: str) -> None:
        self.path = path
        self.temporary = temporary
        self.env = {**os.environ, "TMPDIR": temporary, "SCRIPT_MARK": temporary}

    def file(self, text: str, name: str = "script.py") -> Path:
        path = self.path / name
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def run(self, text: str, *args: str, method: str = "spawn", **options) -> running.ScriptRun:
        return running.run(self.file(text), *args, method=method, env=self.env, **options)

    def alive(self) -> list[str]:
        """Return the command lines of the marked processes still alive."""
        mark, found = f"SCRIPT_MARK={self.temporary}".encode(), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def wait_until_gone(self) -> None:
        """Wait, up to a deadline, for processes that end by themselves."""
        deadline = time.monotonic() + 60
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def left(self) -> tuple[list[str], list[str]]:
        """Return the remaining processes and files."""
        self.wait_until_gone()
        return self.alive(), os.listdir(self.temporary)


@pytest.fixture
def box(tmp_path):
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp" if os.name == "posix" else None) as temporary:
        yield Box(tmp_path, temporary)


# -- the main guard --------------------------------------------------------------------------------------------------

UNGUARDED = {
    "Process": """
        import multiprocessing

        def work():
            print("worked")

        process = multiprocessing.Process(target=work)
        process.start()
        process.join()
        """,
    "Pool": """
        import multiprocessing

        def work(number):
            return number

        pool = multiprocessing.Pool(2)
        print(pool.map(work, [1, 2]))
        """,
    "ProcessPoolExecutor": """
        from concurrent.futures import ProcessPoolExecutor

        def work(number):
            return number

        with ProcessPoolExecutor(2) as executor:
            print(list(executor.map(work, [1, 2])))
        """,
    "Manager": """
        import multiprocessing

        manager = multiprocessing.Manager()
        print(manager.list([1]))
        """,
}
STARTS = {"Process": 7, "Pool": 6, "ProcessPoolExecutor": 7, "Manager": 3}


@posix
@proc
@pytest.mark.parametrize("method", FRESH)
@pytest.mark.parametrize("kind", UNGUARDED)
def test_no_main_guard(box, kind, method):
    """A script without a guard ends by itself, or is ended long before its limit, and the finding names the line."""
    run = box.run(UNGUARDED[kind], method=method, timeout=600)
    assert run.ended in ("", "main guard")
    assert run.reports, run
    assert [(each.code, each.line) for each in run.findings] == [("SM401", STARTS[kind])]
    assert run.findings[0].file == str(box.path / "script.py")
    assert run.stdout == ""
    assert box.left() == ([], [])


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
@pytest.mark.parametrize("kind", UNGUARDED)
def test_no_main_guard_needed(box, kind):
    """The same scripts have no finding under fork."""
    run = box.run(UNGUARDED[kind], method="fork").check()
    assert run.stdout != ""
    assert run.findings == ()


def test_guarded(box):
    """A script with a guard has no finding under any method."""
    text = """
        import multiprocessing

        def work(number):
            return number * number

        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                print(pool.map(work, [1, 2, 3]))
        """
    for method in METHODS:
        run = box.run(text, method=method).check()
        assert (run.stdout, run.stderr, run.findings, run.ended) == ("[1, 4, 9]\n", "", (), "")


def test_attempt_that_the_script_does_without(box):
    """A start that fails in a child is not a finding if the script copes with it."""
    text = """
        import multiprocessing

        def work():
            print("worked")

        try:
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
        except RuntimeError:
            pass
        """
    run = box.run(text).check()
    assert (run.stdout, run.findings) == ("worked\n", ())


def test_main_guard_text(box):
    """The finding names the line, the child's error, and the lines to add and indent."""
    run = box.run(UNGUARDED["Process"])
    assert run.findings[0].section_lines(str(box.path)) == [
        "SM401 main-guard: __main__",
        "  script.py:7",
        "  a child runs the script again when it imports it, and line 7 starts a process",
        "  there, too",
        "  under fork: the child is a copy of the parent, and no line of the script runs",
        "    a second time",
        "  line 7: process.start()",
        "  the child died of RuntimeError: An attempt has been made to start a new",
        "    process before the current process has finished its bootstrapping phase",
        '  fix: put `if __name__ == "__main__":` above line 7, and indent lines 7 to 8 by',
        "    4 spaces",
    ]


def test_fix_works(box):
    """A script changed as the finding says runs."""
    run = box.run(UNGUARDED["Pool"])
    assert run.findings[0].fix == ('put `if __name__ == "__main__":` above line 6, and indent lines 6 to 7 by 4 spaces')
    lines = (box.path / "script.py").read_text().splitlines()
    lines[5:7] = ['if __name__ == "__main__":', *(f"    {line}" for line in lines[5:7])]
    assert box.run("\n".join(lines)).check().stdout == "[1, 2]\n"


def test_second_set_start_method(box):
    """A script that sets the start method outside a guard does so again in its children."""
    text = """
        import multiprocessing

        def work():
            pass

        multiprocessing.set_start_method("spawn")
        if __name__ == "__main__":
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
        """
    (finding,) = box.run(text).findings
    assert finding.message == (
        "a child runs the script again when it imports it, and line 6 sets the start method there, too"
    )
    assert finding.evidence == (
        'line 6: multiprocessing.set_start_method("spawn")',
        "the child died of RuntimeError: context has already been set",
    )
    assert finding.fix == 'move line 6 below the `if __name__ == "__main__":` of line 7'


def test_start_in_an_imported_module(box):
    """A module that starts processes at import cannot contain the guard itself."""
    box.file("import multiprocessing\npool = multiprocessing.Pool(1)\npool.map(abs, [1])\n", "jobs.py")
    (finding,) = box.run("import jobs\n").findings
    jobs = box.path / "jobs.py"
    assert (finding.file, finding.line) == (str(jobs), 2)
    assert finding.fix == (
        f"move line 2 of {jobs}, which runs when the module is imported, into a function, "
        f'and call that in {box.path / "script.py"} below `if __name__ == "__main__":`'
    )


def refused(path: Path, *frames: tuple[int, str]) -> ChildReport:
    """Return the report of a child whose start failed at `frames`, outermost first."""
    message = "\n   An attempt has been made to start a new process before the\n  current process has finished its x.\n"
    error = Raised("RuntimeError", message, tuple(Frame(str(path), line, name, "") for line, name in frames))
    return ChildReport(pid=1, phase="start-up", method="spawn", raised=(error,))


@pytest.mark.parametrize(
    ("source", "line", "fix"),
    [
        ("go()\n", 1, 'put `if __name__ == "__main__":` above line 1, and indent line 1 by 4 spaces'),
        (
            "go()\nx = 1\ndef f():\n\treturn x\nprint(f())\nimport os\nprint(os)\nprint()\n",
            1,
            'put `if __name__ == "__main__":` above line 1 and above line 5 and above line 7, '
            "and indent lines 1 to 2, 5 and 7 to 8 by one tab",
        ),
        ("if True:\n  try:\n    go()\n  finally:\n    pass\n", 3, "indent lines 1 to 5 by 2 spaces"),
        (
            "a = 1\ngo()\nif __name__ == '__main__':\n    a()\n",
            2,
            'move line 2 below the `if __name__ == "__main__":` of line 3',
        ),
        ("go(\n", 1, 'put `if __name__ == "__main__":` above line 1 and indent what follows below it'),
    ],
)
def test_lines_to_indent(tmp_path, source, line, fix):
    """The fix leaves definitions in place, takes whole statements, and uses the file's own indentation."""
    path = tmp_path / "script.py"
    path.write_text(source)
    finding = main_module.find([refused(path, (line, "<module>"))], str(path))
    assert finding is not None
    assert finding.fix.endswith(fix)


def test_start_in_a_function(tmp_path):
    """The finding names the line that starts the process; the guard belongs above the line that calls the function."""
    path = tmp_path / "script.py"
    path.write_text("def go():\n    start()\n\n\ngo()\n")
    finding = main_module.find([refused(path, (5, "<module>"), (2, "go"))], str(path))
    assert finding is not None
    assert finding.line == 2
    assert finding.message.endswith("and line 2 starts a process there, too (called from line 5)")
    assert finding.fix == 'put `if __name__ == "__main__":` above line 5, and indent line 5 by 4 spaces'


@pytest.mark.parametrize(
    "report",
    [
        ChildReport(pid=1, phase="start-up", method="spawn", raised=(Raised("RuntimeError", "no"),)),
        ChildReport(
            pid=1, phase="run", method="spawn", raised=(Raised("RuntimeError", "context has already been set"),)
        ),
        ChildReport(pid=1, phase="start-up", method="spawn"),
    ],
)
def test_other_failures_of_children(report):
    """Other failures of children are not reported as a missing guard."""
    assert main_module.find([report], "script.py") is None


# -- like python script.py -------------------------------------------------------------------------------------------


def plain(box: Box, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the script of `box` without the plugin."""
    return subprocess.run(
        [sys.executable, box.path / "script.py", *args],
        capture_output=True,
        text=True,
        env=box.env,
        check=False,
        stdin=subprocess.DEVNULL,
    )


ENDINGS = {
    "nothing": "",
    "status": "import sys\nsys.exit(3)\n",
    "text": "import sys\nsys.exit('so long')\n",
    "raised": "def f():\n    raise ValueError('no')\n\nf()\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error\n",
    "syntax": "print('a'\n",
    "start fails": (
        "import multiprocessing\nif __name__ == '__main__':\n    multiprocessing.Process(target=lambda: 1).start()\n"
    ),
    "own hook": "import sys\nsys.excepthook = lambda *args: print('hook', args[0])\n1 / 0\n",
    "_exit": "import os\nprint('x', flush=True)\nos._exit(7)\n",
    "atexit": "import atexit\natexit.register(print, 'bye')\n1 / 0\n",
    "thread": "import threading\nthreading.Timer(0.01, print, ['later']).start()\n",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending(box, ending):
    """Exit status, output and traceback are the script's own."""
    text = ENDINGS[ending]
    if ending == "start fails":
        text = "import multiprocessing\n" + text.replace(
            "    multi", "    multiprocessing.set_start_method('spawn')\n    multi", 1
        )
    run = box.run(text)
    expected = plain(box)
    errors = [re.sub(r"at 0x\w+", "at 0x", each.stderr) for each in (run, expected)]
    assert (run.returncode, run.stdout, errors[0]) == (expected.returncode, expected.stdout, errors[1])


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_ended_by_a_signal(box, number):
    """A script killed by a signal reports the signal in its status."""
    run = box.run(f"import os\nos.kill(os.getpid(), {int(number)})\nimport time\ntime.sleep(60)\n")
    assert run.returncode == -number
    assert run.stderr == plain(box).stderr
    assert run.outcome == f"script.py was ended by {signal.Signals(number).name}"


def test_surroundings(box):
    """The script sees the usual main module, arguments and path."""
    text = """
        import sys
        names = {k: type(v).__name__ if k.startswith("__") else v for k, v in sorted(globals().items()) if k != "sys"}
        print(names)
        print(__name__, __file__, sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
        print(sys.stdin.read(), [k for k in sys.modules if "startmethod" in k and k.endswith("plugin")])
        """
    run = box.run(text, "-x", "a b").check()
    assert run.stdout == plain(box, "-x", "a b").stdout
    assert run.args == ("-x", "a b")


def test_relative_path_and_streams(box, monkeypatch):
    """The path is passed as given; input, directory and environment are the caller's."""
    box.file("import os, sys\nprint(sys.argv[0], sys.stdin.read(), os.getcwd(), os.environ['OWN'])\n")
    run = running.run(
        "script.py", method="spawn", cwd=box.path, input="äh\n", env={**box.env, "OWN": "1", "PYTHONUTF8": "1"}
    )
    assert run.check().stdout == f"script.py äh\n {box.path} 1\n"


@pytest.mark.parametrize("method", METHODS)
def test_functions_of_the_script(box, method):
    """Functions and classes of the script can be sent to its children and back."""
    text = """
        import multiprocessing
        import sys
        from concurrent.futures import ProcessPoolExecutor

        class Point:
            def __init__(self, x):
                self.x = x

        def double(point):
            return Point(2 * point.x), __name__

        if __name__ == "__main__":
            with multiprocessing.Pool(1) as pool, ProcessPoolExecutor(1) as executor:
                for point, name in (pool.apply(double, [Point(2)]), executor.submit(double, Point(3)).result()):
                    print(point.x, type(point) is Point, name)
        """
    run = box.run(text, method=method).check()
    name = "__main__" if method == "fork" else "__mp_main__"
    assert run.stdout == f"4 True {name}\n6 True {name}\n"


@pytest.mark.parametrize("method", METHODS)
def test_launches(box, method):
    """Everything the script starts is recorded, with location, method and exit code."""
    text = """
        import multiprocessing
        import sys

        def work(status, names):
            sys.exit(status)

        def start():
            process = multiprocessing.Process(target=work, args=(4,), kwargs={"names": ["a"]})
            process.start()
            return process

        if __name__ == "__main__":
            print(start().pid)
        """
    run = box.run(text, method=method).check()
    (launch,) = run.launches
    assert (launch.method, launch.target, launch.args) == (method, "__main__.work", ("4", "names=<list of length 1>"))
    assert launch.place is not None
    assert (launch.place.file, launch.place.line) == (str(box.path / "script.py"), 9)
    assert (str(launch.pid), launch.exit_code, launch.error) == (run.stdout.strip(), 4, None)


@pytest.mark.parametrize("method", FRESH)
def test_state_that_the_children_lack(box, method):
    """Globals that the script changed, its own and an imported module's, are found, with the lines that set them."""
    (box.path / "settings.py").write_text("LEVEL = 1\n")
    text = """
        import multiprocessing

        import settings

        CACHE = {}

        def work(number):
            return settings.LEVEL, CACHE.get(number)

        def main():
            settings.LEVEL = 2
            CACHE[3] = "three"
            with multiprocessing.Pool(1) as pool:
                assert pool.map(work, [3]) == [(2, "three")]

        if __name__ == "__main__":
            main()
        """
    run = box.run(text, method=method)
    found = {each.path: each for each in run.findings}
    assert {path: (each.code, each.line) for path, each in found.items()} == {
        "settings.LEVEL": ("SM301", 8),
        "__main__.CACHE": ("SM301", 8),
    }
    assert "settings.LEVEL is 2 in the parent and 1 in a fresh child; work reads it" in found["settings.LEVEL"].message
    assert any("script.py:11" in each for each in found["settings.LEVEL"].evidence)


@pytest.mark.parametrize("method", FRESH)
def test_start_that_fails(box, method):
    """A failing start is explained, and the script's error is its own."""
    text = """
        import multiprocessing

        if __name__ == "__main__":
            number = 3
            multiprocessing.Process(target=lambda: number).start()
        """
    run = box.run(text, method=method)
    assert run.returncode == 1
    assert [(each.code, each.line) for each in run.findings] == [("SM101", 5)]
    assert [each.error is not None for each in run.launches] == [True]


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
def test_method_of_the_script(box):
    """A method set by the script overrides the leg's, and is noted."""
    text = """
        import multiprocessing

        def work():
            pass

        if __name__ == "__main__":
            multiprocessing.set_start_method("fork")
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
            print(multiprocessing.get_start_method())
        """
    run = box.run(text, method="spawn").check()
    assert run.stdout == "fork\n"
    assert [each.method for each in run.launches] == ["fork"]
    assert run.notes == (f"{box.path / 'script.py'}:7: set_start_method('fork') holds from there on",)


# -- the end ---------------------------------------------------------------------------------------------------------

ENDLESS = """
    import multiprocessing
    import sys
    import time

    def sleep(ready):
        ready.set()
        time.sleep(600)

    if __name__ == "__main__":
        with multiprocessing.Manager() as manager:
            ready = multiprocessing.Event()
            process = multiprocessing.Process(target=sleep, args=(ready,))
            process.start()
            ready.wait()
            print("ready", flush=True)
            for path in sys.argv[1:]:
                open(path, "w").close()
            process.join()
    """


@posix
@proc
@pytest.mark.parametrize("method", METHODS)
def test_time_limit(box, method, monkeypatch):
    """At the limit the script and everything it started are ended."""
    ready = box.path / "ready"

    def monotonic():
        return time.monotonic() + (1000 if ready.exists() else 0)

    monkeypatch.setattr(running, "time", types.SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    run = box.run(ENDLESS, str(ready), method=method, timeout=600)
    assert (run.ended, run.stdout, run.stderr) == ("time limit", "ready\n", "")
    assert run.outcome == "script.py was ended (time limit)"
    assert box.left() == ([], [])


@posix
@proc
@pytest.mark.parametrize("method", METHODS)
def test_killed_from_outside(box, method):
    """If the parent is killed, the script and everything it started end, and their files are removed."""
    command = [sys.executable, "-m", "pytest_startmethod", "run", "--method", method, box.file(ENDLESS)]
    source = str(Path(main_module.__file__).parents[2])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**box.env, "PYTHONPATH": source})
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    box.wait_until_gone()
    assert box.alive() == []
    assert [name for name in os.listdir(box.temporary) if not name.startswith("pymp-")] == []


@posix
@proc
def test_left_by_the_script(box):
    """Processes that the script leaves running are ended."""
    text = """
        import os
        import subprocess
        import sys

        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        """
    box.run(text).check()
    assert box.left() == ([], [])


def test_nothing_of_ours_keeps_it_from_running(box, monkeypatch):
    """If our code fails in the script's process, the script still runs and a note says so."""
    source = Path(running.script_process.__file__).read_text()
    monkeypatch.setattr(running.script_process, "__file__", str(box.path / "process.py"))
    box.file(source, "process.py")
    run = box.run("print('ran')\n").check()
    assert run.stdout == "ran\n"
    assert len(run.notes) == 1
    assert run.notes[0].startswith("pytest-startmethod: FileNotFoundError: ")


def test_check(box):
    """`check` raises with the end of the script's standard error."""
    run = box.run("import sys\nfor n in range(30):\n    print(n, file=sys.stderr)\nsys.exit(5)\n")
    with pytest.raises(AssertionError) as caught:
        run.check()
    assert str(caught.value).splitlines() == ["script.py exited with 5 under spawn", "...", *map(str, range(10, 30))]


def test_no_such_script(tmp_path):
    """A missing script is an immediate error."""
    with pytest.raises(FileNotFoundError, match=r"^no such script: nothing\.py$"):
        running.run("nothing.py", method="spawn", cwd=tmp_path)


def test_unknown_method(box):
    """A method that the platform lacks is an immediate error."""
    with pytest.raises(ValueError, match=r"^unknown start method 'clone' \(choose from "):
        box.run("", method="clone")


# -- the fixture -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(METHODS) < 3, reason="for all three methods")
def test_fixture(session):
    """A test that requests the fixture runs under each method, and processes of its script count as its own."""
    session.file(
        test_a="""
        import subprocess
        import pytest

        def test_a(start_method_script, start_method):
            run = start_method_script("tool.py", "x")
            assert run.check().stdout == f"{start_method} x\\n"
            assert run.method == start_method

        def test_limit(start_method_script):
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                start_method_script("slow.py", timeout=0.3)
            assert caught.value.timeout == 0.3
        """,
        tool="""
        import multiprocessing
        import sys

        def work(argument):
            print(multiprocessing.get_start_method(), argument, flush=True)

        if __name__ == "__main__":
            process = multiprocessing.Process(target=work, args=sys.argv[1:])
            process.start()
            process.join()
        """,
        slow="import time; time.sleep(600)",
    )
    outcome = session.run("-rA")
    assert outcome.names == {f"{test}[{m}]": "passed" for test in ("test_a", "test_limit") for m in METHODS}
    assert "vacuous: test_a.py::test_a[" not in outcome.out


@pytest.mark.skipif(len(METHODS) < 3, reason="for all three methods")
def test_example(session):
    """The example passes under fork, and SM401 is shown below the failure of the other legs."""
    session.file("test_example.py", (EXAMPLES / "test_scripts.py").read_text())
    session.file("unguarded_script.py", (EXAMPLES / "unguarded_script.py").read_text())
    outcome = session.run()
    assert list(outcome.names.values()) == ["passed", "failed", "failed"]
    line = outcome.out.index("- SM401 main-guard -")
    assert "  unguarded_script.py:10: __main__\n" in outcome.out[line:]
    assert "SM401 main-guard, 1 test needs fork" in outcome.lines


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_before_the_script_is_known_is_noted():
    """An early interrupt is passed on later; the second one ends the wait, and everything is restored."""
    with running._Interrupts(noted=True) as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.count == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with running._Interrupts(noted=False), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
