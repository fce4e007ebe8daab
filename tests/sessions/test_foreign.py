"""Processes outside the legs' start method are counted, reported with their line, and left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import dropwhile
from pathlib import Path

import pytest

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

FIXES = {
    "os.fork": ["  fix: start the process through multiprocessing: os.fork has no other start", "       method"],
    "joblib": [
        "  fix: loky knows no start method;",
        '       joblib.parallel_config(backend="multiprocessing") makes joblib use the',
        "       leg's",
    ],
    "loky": [
        "  fix: loky knows no start method: ProcessPoolExecutor of concurrent.futures",
        "       takes the leg's",
    ],
    "context": ["  fix: take the context from the mp_context fixture, or let the code accept one"],
    "torch": [
        "  fix: pass the leg's method on: torch.multiprocessing.start_processes(...,",
        "       start_method=start_method)",
    ],
}


def summary(out):
    lines = out.lines
    start = next(n for n, line in enumerate(lines) if "= start methods =" in line)
    end = next(n for n, line in enumerate(lines) if n > start and line.startswith("==="))
    return [*dropwhile(lambda line: not line, lines[start + 1 : end])]


def block(out):
    lines = summary(out)
    start = next((n for n, line in enumerate(lines) if line.startswith("not affected")), len(lines))
    return lines[start:]


FORK = """
import os

import pytest


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.startmethods("spawn")
def test_forks():
    fork()
    fork()
"""


@posix
def test_os_fork_alone_is_vacuous(session):
    """A leg that only forks does not exercise its method: SM502 with the line, and the list with the count."""
    out = session.file(test_a=FORK).run()
    assert out.names == {"test_forks[spawn]": "passed"}
    assert summary(out) == [
        "             passed  vacuous",
        "spawn             -        1",
        "1 test: 1 vacuous",
        "",
        "SM502 pinned-method: 1 leg passed without a process of its method",
        "  started 2 processes of os.fork at test_a.py:7",
        *FIXES["os.fork"],
        "  test_a.py::test_forks (spawn)",
        "",
        "not affected by the start method: 2 processes of 1 test",
        "  2 processes of os.fork at test_a.py:7",
        *FIXES["os.fork"],
        "  never leave fork: test_a.py::test_forks",
    ]


@posix
def test_forks_that_have_a_purpose_are_no_os_forks(session):
    """Forks by multiprocessing, subprocess and runners are counted as such or not at all."""
    out = session.file(
        test_a="""
        import multiprocessing
        import os
        import pty
        import subprocess
        import sys

        import pytest


        def work():
            pass


        @pytest.mark.startmethods("fork", "forkserver")
        def test_all():
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
            with multiprocessing.Pool(1) as pool:
                pool.apply(work)
            subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None, check=True)
        """
    ).run("-W", "ignore")
    assert set(out.names.values()) == {"passed"}
    assert block(out) == []


@posix
def test_a_fork_of_a_library_stands_at_the_users_line(session):
    """If a server forks for the user, the line is the user's."""
    out = session.file(
        test_a="""
        import socketserver

        import pytest


        @pytest.mark.startmethods("spawn")
        def test_server():
            class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
                pass

            with Server(("127.0.0.1", 0), lambda *args: None) as server:
                server.process_request(server.socket, None)
        """
    ).run()
    assert "  started 1 process of os.fork at test_a.py:12" in out.lines


@posix
def test_beside_processes_of_the_legs_own_nothing_is_vacuous(session):
    """A leg that also starts a process with its method is not vacuous; the others are counted."""
    out = session.file(
        test_a="""
        import multiprocessing

        import pytest


        def work():
            pass


        @pytest.mark.startmethods
        def test_both():
            for context in (multiprocessing, multiprocessing.get_context("fork")):
                process = context.Process(target=work)
                process.start()
                process.join()
        """
    ).run()
    assert "vacuous" not in "".join(summary(out))
    assert block(out) == [
        "not affected by the start method: 2 processes of 1 test",
        "  2 processes with fork at test_a.py:14",
        *FIXES["context"],
    ]


JOBLIB = """
import joblib
import pytest


def double(number):
    return 2 * number


@pytest.mark.startmethods("spawn")
def test_parallel():
    with joblib.parallel_config(n_jobs=2):
        assert joblib.Parallel(batch_size=1)(map(joblib.delayed(double), range(4))) == [0, 2, 4, 6]
"""


@pytest.mark.own_interpreter  # joblib's processes wait for more work for five minutes
def test_joblib_is_named(session):
    """Its loky processes do not belong to the leg and outlive it: none of them is ended."""
    pytest.importorskip("joblib")
    out = session.file(test_a=JOBLIB, test_b=JOBLIB).run()
    assert out.results == {"test_a.py::test_parallel[spawn]": "passed", "test_b.py::test_parallel[spawn]": "passed"}
    assert "outlived" not in out.out
    assert "SM502 pinned-method: 1 leg passed without a process of its method" in out.lines
    assert block(out) == [
        "not affected by the start method: tasks given to loky",
        "  tasks given to joblib's loky at test_a.py:12",
        "  tasks given to joblib's loky at test_b.py:12",
        *FIXES["joblib"],
    ]


def test_joblib_through_multiprocessing_is_the_legs(session):
    """The suggested fix works: joblib's backend "multiprocessing" uses the leg's method."""
    pytest.importorskip("joblib")
    out = session.file(test_a=JOBLIB.replace("(n_jobs=2)", '("multiprocessing", n_jobs=2)')).run()
    assert out.names == {"test_parallel[spawn]": "passed"}
    assert "vacuous" not in "".join(summary(out))
    assert block(out) == []


def test_loky_imported_by_the_test_is_named(session):
    """A package loaded while the leg runs is watched from then on."""
    pytest.importorskip("loky")
    out = session.file(
        test_a="""
        import pytest


        def double(number):
            return 2 * number


        @pytest.mark.startmethods("forkserver")
        def test_executor():
            import loky

            with loky.ProcessPoolExecutor(1) as executor:
                assert executor.submit(double, 2).result() == 4
            assert type(loky.process_executor.__loader__).__name__ == "SourceFileLoader"
            assert loky.process_executor.__spec__.loader is loky.process_executor.__loader__
        """
    ).run()
    assert out.names == {"test_executor[forkserver]": "passed"}
    assert block(out) == [
        "not affected by the start method: tasks given to loky",
        "  tasks given to loky at test_a.py:13",
        *FIXES["loky"],
    ]


@pytest.mark.own_interpreter  # billiard cannot be imported twice
@pytest.mark.parametrize("package", ["multiprocess", "billiard"])
@pytest.mark.parametrize("place", ["module", "test"])
def test_packages_that_are_not_selected_are_named(session, package, place):
    """They have their own default context, which legs of multiprocessing do not affect."""
    pytest.importorskip(package)
    imports = [f"import {package}", ""] if place == "module" else ["", f"    import {package}"]
    out = session.file(
        "test_a.py",
        "import pytest\n"
        f"{imports[0]}\n"
        "def work():\n"
        "    pass\n"
        '@pytest.mark.startmethods("spawn")\n'
        "def test_a():\n"
        f"{imports[1]}\n"
        f'    for context in ({package}, {package}.get_context("spawn")):\n'
        "        process = context.Process(target=work)\n"
        "        process.start()\n"
        "        process.join()\n",
    ).run()
    assert out.names == {"test_a[spawn]": "passed"}
    default = "spawn" if sys.platform in ("win32", "darwin") else "fork"
    assert default == "spawn" or block(out) == [
        "not affected by the start method: 2 processes of 1 test",
        f"  1 process of {package} with fork at test_a.py:10",
        f"  1 process of {package} with spawn at test_a.py:10",
        f"  fix: {package} has start methods of its own:",
        f'       @pytest.mark.startmethods("{package}:fork", "{package}:spawn")',
    ]


TORCH = {
    "__init__.py": "import multiprocessing\nfrom multiprocessing import *\n\n"
    "__all__ = [*multiprocessing.__all__, 'spawn', 'start_processes']\n"
    "from .spawn import spawn, start_processes\n",
    "spawn.py": """
import multiprocessing


def _wrap(fn, i, args, error_file):
    fn(i, *args)


def start_processes(fn, args=(), nprocs=1, join=True, daemon=False, start_method="spawn"):
    mp = multiprocessing.get_context(start_method)
    processes = [mp.Process(target=_wrap, args=(fn, i, args, None), daemon=daemon) for i in range(nprocs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def spawn(fn, args=(), nprocs=1, join=True, daemon=False, start_method="spawn"):
    return start_processes(fn, args, nprocs, join, daemon, start_method="spawn")
""",
}


def test_torch_is_named(session):
    """torch.multiprocessing.spawn always spawns, while torch.multiprocessing.Process uses the leg's method.

    The stand-in is built like torch 2.x: multiprocessing's own names, and functions that pin a context.
    """
    for name, text in TORCH.items():
        session.file(f"lib/site-packages/torch/multiprocessing/{name}", text)
    session.file("lib/site-packages/torch/__init__.py", "")
    out = session.file(
        conftest="import os, sys\n"
        "path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib', 'site-packages')\n"
        "sys.path.insert(0, path)\n",
        test_a="""
        import pytest
        import torch.multiprocessing as multiprocessing


        def work(index):
            pass


        @pytest.mark.startmethods("spawn", "forkserver")
        def test_spawn():
            multiprocessing.spawn(work, nprocs=2)


        @pytest.mark.startmethods("spawn", "forkserver")
        def test_process():
            process = multiprocessing.Process(target=work, args=(1,))
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
    ).run()
    assert set(out.names.values()) == {"passed"}
    assert summary(out)[5:] == [
        "SM502 pinned-method: 1 leg passed without a process of its method",
        "  started 2 processes of torch.multiprocessing with spawn at test_a.py:11",
        *FIXES["torch"],
        "  test_a.py::test_spawn (forkserver)",
        "",
        "not affected by the start method: 2 processes of 1 test",
        "  2 processes of torch.multiprocessing with spawn at test_a.py:11",
        *FIXES["torch"],
    ]


@posix
def test_a_long_list_is_cut(session):
    """Six locations per kind are listed, most frequent first; with -v all are."""
    calls = "".join(f"    fork({n})\n" for n in range(8))
    session.file(
        "test_a.py",
        FORK.replace("def fork():", "def fork(n):").partition("@pytest")[0]
        + "".join(
            f"def fork{n}():\n    if (pid := os.fork()) == 0: os._exit(0)\n    os.waitpid(pid, 0)\n" for n in range(8)
        )
        + '@pytest.mark.startmethods("spawn")\ndef test_a():\n'
        + calls.replace("fork(", "fork").replace(")", "()")
        + "    fork7()\n",
    )
    lines = block(session.run())
    assert lines[0] == "not affected by the start method: 9 processes of 1 test"
    assert lines[1].startswith("  2 processes of os.fork at test_a.py:")
    assert lines[7:] == ["  and 2 more places (-v)", *FIXES["os.fork"], "  never leave fork: test_a.py::test_a"]
    assert len(block(session.run("-v"))) == 1 + 8 + 2 + 1


def test_nothing_is_loaded_for_its_sake(session):
    """A leg that uses none of the packages imports none, and leaves the import system as it was."""
    out = session.file(
        test_a="""
        import multiprocessing
        import sys

        import pytest

        before = list(sys.meta_path)
        NAMES = ("joblib", "loky", "multiprocess", "billiard", "torch", "dill")


        def work():
            pass


        @pytest.mark.startmethods("spawn")
        def test_a():
            process = multiprocessing.Process(target=work)
            process.start()
            process.join()
            assert not set(NAMES) & set(sys.modules)


        def test_b():
            assert sys.meta_path == before
        """
    ).run(where="subprocess")  # other tests of this process load some of them
    assert out.names == {"test_a[spawn]": "passed", "test_b": "passed"}


def test_it_is_not_imported_at_start_up():
    """Hooks and backends cost nothing until used."""
    code = (
        "import sys, pytest_startmethod.plugin, pytest_startmethod.hookspecs\n"
        "print(sorted(n for n in sys.modules if n.startswith('pytest_startmethod.') "
        "and n.rpartition('.')[2] in ('backends', 'diagnose_hook', 'foreign')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@posix
def test_discovery_counts_what_no_leg_can_reach(session):
    """An unmarked test that starts processes only outside the default context is not a leg, but reported."""
    out = session.file(
        test_a="""
        import multiprocessing
        import os


        def work():
            pass


        def test_forks():
            if (pid := os.fork()) == 0:
                os._exit(0)
            os.waitpid(pid, 0)


        def test_pinned():
            process = multiprocessing.get_context("spawn").Process(target=work)
            process.start()
            process.join()


        def test_nothing():
            pass
        """
    ).run("--start-methods-discover")
    assert list(out.names.values()) == ["passed"] * 3
    assert block(out)[:-1] == [
        "not affected by the start method: 2 processes of 2 tests",
        "  1 process with spawn at test_a.py:17",
        *FIXES["context"],
        "  1 process of os.fork at test_a.py:10",
        *FIXES["os.fork"],
        "  never leave fork: test_a.py::test_forks",
    ]
