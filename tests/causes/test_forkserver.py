"""Forkserver problems are explained where they are certain, and only there."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_startmethod.causes import forkserver
from pytest_startmethod.causes.forkserver import socket_at_risk
from pytest_startmethod.experiments import plan
from pytest_startmethod.launches import server
from pytest_startmethod.model.child_report import Frame, Raised
from pytest_startmethod.model.evidence import CallEnd, Evidence
from pytest_startmethod.model.launch import Launch
from pytest_startmethod.model.observed import Observed
from pytest_startmethod.model.place import Place
from pytest_startmethod.model.server import NotAChild, Server, Surroundings
from pytest_startmethod.scripts import running

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="there is no forkserver"
)

EXAMPLES = Path(__file__).parents[2] / "examples"


# -- with real processes ---------------------------------------------------------------------------------------------


def test_socket_lost():
    """SM601 names the removed directory that held the server's socket, and who redirected the temporary directory."""
    script = EXAMPLES / "redirecting_script.py"
    run = running.run(script, method="forkserver")
    assert run.returncode == 1
    (finding,) = run.findings
    lost = finding.message.split()[5].rstrip(",")
    assert Path(lost).name.startswith("pymp-")
    assert finding.section_lines(str(EXAMPLES)) == [
        "SM601 forkserver-socket-lost: tempfile.tempdir",
        "  redirecting_script.py:13",
        f"  the forkserver's socket was in {lost}, which has been",
        "  removed since: the server can no longer be reached",
        "  under fork: no server and no socket is needed to start a child",
        f"  the temporary directory is {Path(lost).parent.parent} now",
        "  the temporary directory is redirected at redirecting_script.py:19",
        "  fix: let the server start before a test redirects the temporary directory:",
        "    call multiprocessing.forkserver.ensure_running() in a session fixture, or in",
        "    conftest.py",
    ]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_socket_not_needed(method):
    """The same script has no finding under the other methods."""
    run = running.run(EXAMPLES / "redirecting_script.py", method=method)
    assert (run.stdout, run.findings) == ("done\n", ())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python takes /tmp then")
def test_path_too_long(tmp_path):
    """SM602 says how long the directory is and how long it may be."""
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\nif __name__ == '__main__':\n    multiprocessing.Process(target=print).start()\n"
    )
    run = running.run(script, method="forkserver", env={**os.environ, "TMPDIR": str(directory)})
    (finding,) = run.findings
    assert (finding.code, finding.path, finding.file, finding.line) == ("SM602", "TMPDIR", str(script), 3)
    assert finding.message == (
        f"the temporary directory is {len(str(directory))} characters long, and the forkserver's socket below it "
        "cannot have a path of more than 107"
    )
    assert finding.evidence == (f"it is {directory}",)
    assert finding.fix == "let TMPDIR name a directory of at most 75 characters"


WAIT = """
    import multiprocessing
    import os

    def work():
        pass

    if __name__ == "__main__":
        process = multiprocessing.Process(target=work)
        process.start()
        os.waitpid(process.pid, 0)
    """


def run(tmp_path, text, method):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text).lstrip("\n"))
    return running.run(script, method=method)


def test_waits_for_a_child_of_the_server(tmp_path):
    """SM603: `os.waitpid` fails for a process that the server started, and the finding names it."""
    result = run(tmp_path, WAIT, "forkserver")
    (finding,) = result.findings
    assert (finding.code, finding.path, finding.line) == ("SM603", "os.waitpid", 10)
    assert finding.message == (
        f"os.waitpid() waits for children of this process, and process {result.launches[0].pid} is none: "
        "the forkserver started it and waits for it"
    )
    assert finding.fix == "wait with process.join() and read process.exitcode, which hold under every method"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_waits_for_another(tmp_path, method):
    """Waiting for a process that the server did not start is a different failure."""
    text = WAIT.replace("process.pid", "gone").replace(
        "    process = ",
        "    gone = os.posix_spawn('/bin/true', ['true'], {})\n        os.waitpid(gone, 0)\n        process = ",
    )
    result = run(tmp_path, text, method)
    assert "ChildProcessError" in result.stderr
    assert result.findings == ()


PARENT = """
    import multiprocessing
    import os

    def send_parent(connection):
        connection.send(os.getppid())

    def check():
        here, there = multiprocessing.Pipe()
        process = multiprocessing.Process(target=send_parent, args=(there,))
        process.start()
        parent = here.recv()
        process.join()
        assert parent == os.getpid()

    if __name__ == "__main__":
        check()
    """


def test_parent_of_a_child_of_the_server(tmp_path):
    """SM603: the child's parent is the server, and the finding names the line that asks for it."""
    (finding,) = run(tmp_path, PARENT, "forkserver").findings
    assert (finding.code, finding.path, finding.line) == ("SM603", "getppid", 13)
    assert finding.message == "os.getppid() of the child is the forkserver's pid, not this process's"
    assert finding.evidence[0] == f"{tmp_path / 'script.py'}:5: connection.send(os.getppid())"
    assert finding.fix == (
        "multiprocessing.parent_process().pid names the process that started the child under every method"
    )


@pytest.mark.parametrize(
    ("guard", "asks"),
    [
        (
            "import os\n\n\ndef guard(parent):\n    raise SystemExit(os.getppid() != parent)\n",
            "5: raise SystemExit(os.getppid() != parent)",
        ),
        # read from its own line on, the function would begin with an open string
        (
            'import os\nASK = ("""\n""", lambda: os.getppid())[1]\n\n'
            "def guard(parent):\n    raise SystemExit(ASK() != parent)\n",
            '3: """, lambda: os.getppid())[1]',
        ),
    ],
)
def test_parent_asked_for_in_another_file(tmp_path, guard, asks):
    """SM603: the line may be anywhere in what the child runs."""
    (tmp_path / "guarding.py").write_text(guard)
    text = """
        import multiprocessing
        import os

        from guarding import guard

        if __name__ == "__main__":
            process = multiprocessing.Process(target=guard, args=(os.getpid(),))
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    (finding,) = run(tmp_path, text, "forkserver").findings
    assert (finding.code, finding.path, finding.line) == ("SM603", "getppid", 10)
    assert finding.evidence[0] == f"{tmp_path / 'guarding.py'}:{asks}"
    assert plan.experiment_of(finding) == plan.Replay("os.getppid")


def test_parent_under_the_other_methods(tmp_path):
    """The same code passes under the other methods."""
    for method in ("fork", "spawn"):
        assert run(tmp_path, PARENT, method).check().findings == ()


# Direct children, as psutil reports them.
PSUTIL = """
    import os

    class Process:
        def children(self):
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            return {pid for pid in pids if pid != os.getpid() and self._parent(pid) == os.getpid()}

        def _parent(self, pid):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    return int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                return None
    """

CHILDREN = """
    import multiprocessing
    import psutil

    def work():
        pass

    def running():
        return psutil.Process().children()

    def check():
        multiprocessing.Lock()  # the resource tracker is there before
        before = running()
        process = multiprocessing.Process(target=work)
        process.start()
        process.join()
        after = running()
        assert after <= before, f"{after} not <= {before}"

    if __name__ == "__main__":
        check()
    """


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_server_is_a_child(tmp_path):
    """SM603: the server is one more child, and the finding points at its pid in the failure."""
    (tmp_path / "psutil.py").write_text(textwrap.dedent(PSUTIL).lstrip("\n"))
    result = run(tmp_path, CHILDREN, "forkserver")
    (finding,) = result.findings
    assert (finding.code, finding.path, finding.line) == ("SM603", "children", 17)
    assert finding.message == ("the forkserver is one more child of this process, and what it started are its children")
    assert finding.evidence[0] == f"{tmp_path / 'script.py'}:8: return psutil.Process().children()"
    assert finding.evidence[1].endswith(", named in the failure")
    for method in ("fork", "spawn"):
        assert run(tmp_path, CHILDREN, method).check().findings == ()


# -- from evidence only ----------------------------------------------------------------------------------------------

STDLIB = str(Path(multiprocessing.__file__).parent / "forkserver.py")


def launch(**values) -> Launch:
    return Launch(
        **{
            "method": "forkserver",
            "target": "script.work",
            "args": (),
            "place": Place("/x/test_a.py", 3),
            "thread": None,
            "fixture": None,
            "leg": "test_a.py::test_a[forkserver]",
            "pid": 4711,
            **values,
        }
    )


def evidence(**values) -> Evidence:
    return Evidence(
        **{
            "leg": "test_a.py::test_a[forkserver]",
            "method": "forkserver",
            "outcome": "failed",
            "launches": (launch(),),
            "raised_at": Place("/x/test_a.py", 3),
            **values,
        }
    )


def raised(kind: str, message: str, function: str = "connect_to_new_process", file: str = STDLIB) -> tuple[Raised, ...]:
    return (Raised(kind, message, (Frame("/x/test_a.py", 3, "test_a", ""), Frame(file, 80, function, ""))),)


LOST = "[Errno 2] No such file or directory"


def Seen(raised: tuple[Raised, ...] = (), **server) -> dict:  # noqa: N802
    """Return the exception and the state of the server."""
    return {"raised": raised, "server": Server(**server)}


def explain(given: Evidence, seen: dict):
    every = replace(given, **seen)
    return (*forkserver.findings(every), *forkserver.stale(every))


def codes_of(given: Evidence, seen: dict) -> list[str]:
    return [each.code for each in explain(given, seen)]


@pytest.mark.parametrize("function", ["connect_to_new_process", "ensure_running", "ForkServer.ensure_running"])
def test_lost_socket_from_evidence(function, tmp_path):
    """SM601: the server cannot be reached or started because its directory is gone, by exception or by launch."""
    seen = Seen(raised("FileNotFoundError", LOST, function), directory=str(tmp_path / "gone"), gone=True)
    assert codes_of(evidence(launches=()), seen) == ["SM601"]
    started = (launch(error=f"FileNotFoundError: {LOST}"),)
    assert codes_of(evidence(launches=started, raised_at=None), Seen(gone=True, socket="/x/y")) == ["SM601"]


def test_socket_that_a_test_would_take_with_it(tmp_path):
    """Using the forkserver in a temporary directory that is removed is a note: a leg's server is elsewhere."""
    found = socket_at_risk([launch(method="fork"), launch()], str(tmp_path / "gone"))
    assert found is not None
    assert (found.code, found.level, found.path) == ("SM601", "note", "tempfile.tempdir")
    assert found.message == (
        "the test uses the forkserver while the temporary directory is one that it removes: a server that starts then "
        "has its socket there, and no later test can reach it. That of a leg lies elsewhere"
    )
    assert found.evidence[0] == f"the temporary directory was {tmp_path / 'gone'}"
    assert socket_at_risk([launch()], str(tmp_path)) is None
    assert socket_at_risk([launch()], None) is None
    assert socket_at_risk([launch(method="spawn")], str(tmp_path / "gone")) is None


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (evidence(outcome="passed"), Seen(raised("FileNotFoundError", LOST), gone=True)),
        (evidence(), Seen(raised("FileNotFoundError", LOST), gone=False)),
        (evidence(), Seen(raised("FileNotFoundError", LOST + ": 'data.txt'", "load", "/x/forkserver.py"), gone=True)),
        (evidence(), Seen(raised("FileNotFoundError", LOST, "main"), gone=True)),
        (evidence(), Seen(raised("ConnectionResetError", "[Errno 104] Connection reset by peer"), gone=True)),
        (evidence(), Seen(raised("OSError", "AF_UNIX path too long", "bind", "/x/server.py"))),
        (evidence(method="fork"), Seen(raised("ChildProcessError", "[Errno 10] No child processes"))),
        (evidence(), Seen(raised("ChildProcessError", "[Errno 10] No child processes"))),
        (evidence(), Seen(raised("AssertionError", "assert 3 == 2"), pid=1)),
        (evidence(), Seen()),
    ],
)
def test_nothing_certain(given, seen):
    """Incomplete evidence gives no finding."""
    assert explain(given, seen) == ()


def test_assertion_that_has_nothing_to_do_with_it(tmp_path):
    """Another test's process inspection, or `active_children`, does not explain a failure."""
    path = tmp_path / "test_a.py"
    path.write_text(
        "import os, psutil\n"
        "def test_other():\n    assert len(psutil.Process().children()) == 1\n"
        "def test_a():\n    assert len(multiprocessing.active_children()) == 1\n"
        "def test_b():\n    tree.children()\n    assert False\n"
    )
    for line in (5,):
        given = evidence(raised_at=Place(str(path), line))
        assert explain(given, Seen(raised("AssertionError", "assert 3 == 1"), pid=12)) == ()
    given = evidence(raised_at=Place(str(path), 3))
    assert codes_of(given, Seen(raised("AssertionError", "assert 3 == 1"), pid=12)) == ["SM603"]
    assert explain(given, Seen(raised("AssertionError", "assert 3 == 1"))) == ()
    assert explain(given, Seen(raised("ValueError", "no"), pid=12)) == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SIGCHLD", "this process gets no SIGCHLD when the child ends: the forkserver does"),
        ("RUSAGE_CHILDREN", "what the child used is counted for the forkserver, not for this process"),
    ],
)
def test_other_views(tmp_path, name, says):
    """The kernel tells the server, not the parent, about its children."""
    path = tmp_path / "test_a.py"
    path.write_text(f"import signal\ndef test_a():\n    use(signal.{name})\n    assert seen\n")
    given = evidence(raised_at=Place(str(path), 4))
    (finding,) = explain(given, Seen(raised("AssertionError", "assert seen")))
    assert (finding.path, finding.message) == (name, says)


HELPERS = {"pid": 4711, "tracker": 815}


@pytest.mark.parametrize(
    ("message", "text", "who"),
    [
        ("assert [815] == []", "reap_children", "process 815 is the resource tracker"),
        ("assert {4711, 815} == set()", "left pids", "process 4711 is the forkserver and process 815 is the resource"),
    ],
)
def test_helper_processes_that_a_failure_names(message, text, who):
    """SM603: code that counts or reaps children meets multiprocessing's helpers, under spawn too."""
    given = replace(evidence(method="spawn", launches=()), text=text)
    (found,) = explain(given, Seen(raised("AssertionError", message), **HELPERS))
    assert (found.code, found.path) == ("SM603", "children")
    assert found.message.startswith(who)


@pytest.mark.parametrize(
    ("method", "message", "text"),
    [
        ("spawn", "assert 815 == 816", "the sum"),
        ("spawn", "assert [81] == []", "reap_children"),
        ("spawn", "assert 0.815 == 1", "reap_children"),
        ("fork", "assert [815] == []", "reap_children"),
    ],
)
def test_numbers_that_are_no_helpers(method, message, text):
    """A number equal to a pid, in a test about something else, has no finding."""
    given = replace(evidence(method=method, launches=()), text=text)
    assert explain(given, Seen(raised("AssertionError", message), **HELPERS)) == ()


def test_wait_for_a_process_that_is_the_servers_child():
    """SM603 also applies to a swallowed exception, but not to another process's pid."""
    waited = NotAChild("waitpid", 7, Place("/x/test_a.py", 9))
    given = evidence(launches=[launch(pid=7)], raised_at=None)
    (found,) = explain(replace(given, not_children=[waited]), Seen())
    assert (found.code, found.path, found.line) == ("SM603", "os.waitpid", 9)
    assert found.message == (
        "os.waitpid() waits for children of this process, and process 7 is none: the forkserver started it and waits "
        "for it"
    )
    assert explain(replace(given, not_children=[replace(waited, pid=8)]), Seen()) == ()


OURS, THEIRS = (
    Surroundings((((1, 1), "/in"), ((1, 2), "/tmp/capture"), ((1, 3), "/err"))),
    (
        ((1, 1), "/in"),
        ((1, 9), "/dev/pts/1"),
        ((1, 3), "/err"),
    ),
)


def test_streams_that_the_server_keeps():
    """SM604: a descriptor refers to a different file in the server than in the parent."""
    later = replace(OURS, server=12)
    given = evidence(launches=[launch(surroundings=OURS), launch(surroundings=later)], raised_at=None)
    seen = Seen(pid=12, surroundings=Surroundings(THEIRS))
    (found,) = explain(given, seen)
    assert (found.code, found.path, found.level) == ("SM604", "sys.stdout", "cause")
    assert found.message == (
        "descriptor 1 (stdout) led to /tmp/capture when the process was started, and leads to /dev/pts/1 in a "
        "forkserver child: the server keeps the streams that it was started with"
    )
    assert [each.text for each in found.facts[:2]] == ["/tmp/capture", "/dev/pts/1"]
    assert explain(given, Seen(pid=12, surroundings=Surroundings(OURS.streams))) == ()
    assert explain(replace(given, method="spawn"), seen) == ()
    assert explain(replace(given, others={"spawn": CallEnd("failed")}), seen) == ()


def test_signals_that_the_server_does_not_ignore():
    """SM604: a signal ignored since the server started; not one that was ignored before."""
    later = Surroundings(ignored=frozenset({"SIGINT"}), server=12)
    given = evidence(launches=[launch(surroundings=later)], raised_at=None)
    (found,) = explain(given, Seen())
    assert (found.code, found.path) == ("SM604", "signal.SIGINT")
    assert found.fix == (
        "call signal.signal(signal.SIGINT, signal.SIG_IGN) in the child: first in the target, or in an initializer"
    )
    began = launch(surroundings=replace(later, server=None))
    assert explain(evidence(launches=[began, launch(surroundings=later)], raised_at=None), Seen()) == ()


def test_a_module_that_was_preloaded_under_another_environment(tmp_path, monkeypatch):
    """SM604: it reads a changed variable when the server imports it; in a function it is no cause."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "preloaded_early.py").write_text("import os\n\nMODE = os.environ.get('MODE')\n")
    (tmp_path / "preloaded_well.py").write_text("import os\n\ndef mode():\n    return os.environ.get('MODE')\n")
    observed = Observed("forkserver", "work", None, environ={"MODE": "b", "OTHER": "1"})
    given = evidence(launches=[launch(observed=observed)], environ={"MODE": "a", "OTHER": "1"}, raised_at=None)
    (found,) = explain(given, Seen(preloaded=("preloaded_early", "preloaded_well", "nowhere")))
    assert (found.code, found.path, found.level) == ("SM604", "preloaded_early", "cause")
    assert (found.file, found.line) == (str(tmp_path / "preloaded_early.py"), 3)
    assert found.message == (
        "preloaded_early was preloaded into the forkserver, and reads MODE when it is imported: it was 'a' there, and "
        "is 'b' in the parent; each child has the module as the server imported it"
    )
    assert explain(replace(given, environ=observed.environ), Seen(preloaded=("preloaded_early",))) == ()
    assert explain(given, Seen()) == ()


def test_attributes_that_the_server_keeps():
    """SM604: the umask was changed after the server started; equal and unknown attributes are left out."""
    later = Surroundings(inherited={"the umask": "0077", "the CPU affinity": "CPUs 0-1", "other": "1"}, server=12)
    given = evidence(launches=[launch(surroundings=later)], raised_at=None)
    seen = Seen(pid=12, surroundings=Surroundings(inherited={"the umask": "0022", "the CPU affinity": "CPUs 0-1"}))
    (found,) = explain(given, seen)
    assert (found.code, found.path, found.level) == ("SM604", "umask", "cause")
    assert found.message == (
        "the umask was 0077 when the process was started, which a child inherits; the forkserver was started before, "
        "and its children have 0022"
    )
    assert [each.text for each in found.facts[:2]] == ["0077", "0022"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it on Linux only")
def test_what_a_process_passes_on():
    """The umask is read without setting it."""
    before = os.umask(0o027)
    try:
        inherited = server.surroundings().inherited
    finally:
        os.umask(before)
    assert inherited["the umask"] == "0027"
    assert {"the CPU affinity", "the limit 'Max open files'"} <= set(inherited)


def test_observing_imports_nothing():
    """Observing a leg without a server does not import multiprocessing.forkserver."""
    code = """
        import json, sys
        from pytest_startmethod.model.server import NotAChild, Server, Surroundings
        from pytest_startmethod.launches import server
        print(json.dumps([server.observe() == Server(), "multiprocessing.forkserver" in sys.modules]))
    """
    source = str(Path(forkserver.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert json.loads(done.stdout) == [True, False]
