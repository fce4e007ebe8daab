"""``python -m pytest_startmethod``: running scripts under a start method, and explaining causes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import pytest_startmethod
from pytest_startmethod import __main__
from pytest_startmethod.model import codes
from pytest_startmethod.model import methods as selection

SCRIPT = """\
import sys
print("out", *sys.argv[1:], sys.stdin.read())
print("err", file=sys.stderr)
sys.exit(3)
"""

UNGUARDED = """\
import multiprocessing
process = multiprocessing.Process(target=print)
process.start()
process.join()
"""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    """Use a plain terminal of 80 columns, and make the package importable anywhere, even if it is not installed."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHON_COLORS", "0")
    source = os.path.dirname(os.path.dirname(os.path.abspath(__main__.__file__)))
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)


def command(*args, **options):
    """Run the command line in a process of its own."""
    line = [sys.executable, "-m", "pytest_startmethod", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def test_help(capsys):
    """The help fits in 80 columns and names the commands and options."""
    for arguments, words in ((["--help"], ["run a script under a start method"]), (["run", "--help"], ["--method"])):
        with pytest.raises(SystemExit) as caught:
            __main__.main(arguments)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words)
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["explain", "SM999"],
            "python -m pytest_startmethod explain: argument CODE: unknown code 'SM999' (`python -m pytest_startmethod "
            "codes` lists them)",
        ),
        (
            ["run", "--report", "none/x.json", "x.py"],
            "python -m pytest_startmethod run: argument --report: cannot write none/x.json: No such file or directory",
        ),
        (
            ["run", "--method", "clone", "x.py"],
            "python -m pytest_startmethod run: argument --method: unknown start method 'clone' (choose from METHODS)",
        ),
        (
            ["run", "--timeout", "0", "x.py"],
            "python -m pytest_startmethod run: argument --timeout: not a positive number of seconds: '0'",
        ),
        (
            ["run", "--timeout", "soon", "x.py"],
            "python -m pytest_startmethod run: argument --timeout: not a positive number of seconds: 'soon'",
        ),
    ],
)
def test_wrong_arguments(arguments, line, capsys):
    """Invalid arguments give one line and status 2."""
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
    methods = ", ".join([*selection.in_order(selection.available()), "all"])
    assert capsys.readouterr().err == line.replace("METHODS", methods) + "\n"


def test_without_arguments(capsys):
    """Without a command, the help goes to standard error, with status 2."""
    assert __main__.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: python -m pytest_startmethod ")


@pytest.mark.parametrize("arguments", [["run"], ["run", "--method=spawn"], ["run", "-m"]])
def test_nothing_to_run(arguments, capsys):
    """`run` needs something to run."""
    assert __main__.main(arguments) == 2
    assert capsys.readouterr().err == "python -m pytest_startmethod run: a script, or -m and a module, is required\n"


def test_version(capsys):
    """The version is that of the distribution."""
    with pytest.raises(SystemExit) as caught:
        __main__.main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"pytest-startmethod {pytest_startmethod.__version__}\n")


def test_codes(capsys):
    """The table has one row per code and fits in 80 columns."""
    assert __main__.main(["codes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines if line.startswith("SM")] == [
        [cause.code, cause.name] for cause in codes.CAUSES.values()
    ]


@pytest.mark.parametrize("word", ["SM301", "sm301", "global-state"])
def test_explain(word, capsys):
    """A code or name prints its page, with the page's web address and without the site's markup."""
    assert __main__.main(["explain", word]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# SM301 global-state\n")
    assert "## Before" in out
    assert "## After" in out
    assert out.endswith(f"<{codes.url('SM301')}>\n")
    assert "<!--" not in out


def test_no_such_script(capsys):
    """A missing script gives one line and status 2."""
    assert __main__.main(["run", "nothing.py"]) == 2
    assert capsys.readouterr().err == "python -m pytest_startmethod run: no such script: nothing.py\n"


def test_output_and_status_are_the_script_s(tmp_path):
    """Without findings nothing is added, and arguments that look like ours are passed to the script."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    result = command("run", path, "--method", "-x", input="in")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out --method -x in\n", "err\n")


def test_findings_follow_on_standard_error(tmp_path):
    """The finding comes last, with paths relative to the working directory, and is also written to the report."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    result = command("run", "--method=spawn", "--report", "report.json", "script.py", cwd=tmp_path)
    assert result.stdout == ""
    finding = [
        "SM401 main-guard: __main__",
        "  script.py:3",
        "  a child runs the script again when it imports it, and line 3 starts a process",
        "  there, too",
    ]
    lines = result.stderr.splitlines()
    start = lines.index(finding[0])
    assert lines[start : start + 4] == finding
    assert lines[-1] == "  more: python -m pytest_startmethod explain SM401"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == 1
    assert (report["method"], report["returncode"]) == ("spawn", result.returncode)
    assert [each["code"] for each in report["findings"]] == ["SM401"]
    assert [(each["method"], each["line"]) for each in report["launches"]] == [("spawn", 3)]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_report_is_checked_before_the_script_runs(tmp_path, capfd):
    """A report that cannot be written is an error before the script runs."""
    (tmp_path / "script.py").write_text("print('ran')")
    tmp_path.chmod(0o500)
    with pytest.raises(SystemExit):
        __main__.main(["run", "--report", str(tmp_path / "report.json"), str(tmp_path / "script.py")])
    assert capfd.readouterr().out == ""


def test_report_is_not_touched_by_the_check(tmp_path, capsys):
    """An earlier report stays until the script has ended."""
    (tmp_path / "report.json").write_text("earlier")
    assert __main__.main(["run", "--report", str(tmp_path / "report.json"), "nothing.py"]) == 2
    assert (tmp_path / "report.json").read_text() == "earlier"


def test_report_that_can_no_longer_be_written(tmp_path):
    """If the report cannot be written at the end, that is one line, and the script's exit status stays."""
    (tmp_path / "script.py").write_text("import os, sys\nos.mkdir('report.json')\nsys.exit(3)\n")
    result = command("run", "--report", "report.json", "script.py", cwd=tmp_path)
    assert result.returncode == 3
    assert result.stderr.startswith("python -m pytest_startmethod run: --report: ")


PACKAGE = """\
import sys
from multiprocessing import Process

def hello():
    print("hello", flush=True)

if __name__ == "__main__":
    print(sys.argv[1:], __spec__.name, __package__, flush=True)
    process = Process(target=hello)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "__main__.py").write_text(PACKAGE)
    return tmp_path


def test_module(package):
    """A module runs as with `python -m`; options after its name belong to the module."""
    line = [sys.executable, "-m", "shop", "-x", "--report"]
    plain = subprocess.run(line, capture_output=True, text=True, check=False, cwd=package)
    result = command("run", "--method", selection.default(), "-m", "shop", "-x", "--report", cwd=package)
    assert (result.returncode, result.stdout) == (plain.returncode, plain.stdout)


def test_main_module_of_a_package(package):
    """Children of `python -m package` never load its `__main__`; the finding explains that."""
    result = command("run", "-m", "shop", cwd=package)
    assert result.returncode == 1
    assert "SM202 name-missing-in-child: __main__.hello\n  shop/__main__.py:4\n" in result.stderr


def test_no_such_module(tmp_path):
    """A missing module gives one line, as with `python -m`."""
    result = command("run", "-m", "nothing_here", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, f"{sys.executable}: No module named nothing_here\n")


@pytest.mark.skipif(len(selection.available()) < 3, reason="for all three methods")
def test_all_methods(tmp_path):
    """With `--method all` each method has a line, a shared finding is shown once, and the report has all runs."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    result = command("run", "--method=all", "--report=report.json", "script.py", cwd=tmp_path)
    lines = result.stderr.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["fork", "spawn", "forkserver"]
    assert " exited with 0 after " in lines[0]
    assert lines[1].endswith(" s; SM401 main-guard at script.py:3")
    assert result.stderr.count("\nSM401 main-guard: __main__\n") == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert [each["method"] for each in report["runs"]] == ["fork", "spawn", "forkserver"]
    # the first that failed; whether the script itself fails with its children is up to the method and the version
    assert result.returncode == next((each["returncode"] for each in report["runs"] if each["returncode"]), 0)


def test_each_method_reads_a_file_on_standard_input(tmp_path):
    """The first run leaves it at its end, where the next would find nothing."""
    (tmp_path / "script.py").write_text("import sys; print(sys.stdin.read())")
    (tmp_path / "numbers").write_text("skipped\n1 2\n")
    with open(tmp_path / "numbers", "rb", buffering=0) as stdin:
        stdin.seek(len("skipped\n"))
        result = command("run", "--method=all", "script.py", cwd=tmp_path, stdin=stdin)
    assert result.stdout.split() == ["1", "2"] * len(selection.available())


MODE = """
import multiprocessing
import sys

mode = "as imported"

def work(queue):
    queue.put(mode)

if __name__ == "__main__":
    mode = "set"
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=work, args=(queue,))
    process.start()
    got = queue.get()
    process.join()
    sys.exit(got != sys.argv[1])
"""


@pytest.mark.parametrize(("expected", "codes"), [("set", ["SM301"]), ("another", [])])
def test_state_is_no_reason_for_a_script_that_fails_under_fork_too(tmp_path, expected, codes):
    """What differs in a fresh child is reported where the script works under fork."""
    (tmp_path / "script.py").write_text(MODE)
    command("run", "--method=all", "--report=report.json", "script.py", expected, cwd=tmp_path)
    runs = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert [[each["code"] for each in run["findings"]] for run in runs] == [[], codes, codes]


def test_time_limit(tmp_path):
    """At its time limit the script is ended, with the exit status of coreutils' timeout."""
    (tmp_path / "script.py").write_text("import time\ntime.sleep(600)\n")
    result = command("run", "--timeout=0.5", "script.py", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (124, "pytest-startmethod: script.py was ended (time limit)\n")


def test_start_method_of_the_script_is_noted(tmp_path):
    """A method set by the script takes effect and is noted."""
    (tmp_path / "script.py").write_text("import multiprocessing\nmultiprocessing.set_start_method('spawn')\n")
    method = selection.available()[0]
    other = next((each for each in selection.available() if each != "spawn"), method)
    result = command("run", "--method", other, "script.py", cwd=tmp_path)
    if other == "spawn":
        assert result.stderr == ""
    else:
        assert " ".join(result.stderr.split()) == (
            f"note: {tmp_path / 'script.py'}:2: set_start_method('spawn') holds from there on"
        )


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ended_by_a_signal(tmp_path):
    """If a signal kills the script, the command dies of the same signal."""
    (tmp_path / "script.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    assert command("run", "script.py", cwd=tmp_path).returncode == -signal.SIGTERM


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt(tmp_path):
    """Ctrl-C reaches the script, which decides how to react."""
    (tmp_path / "script.py").write_text(
        "import time\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True:  # a signal just before a sleep does not cut it short\n"
        "        time.sleep(0.01)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(5)\n"
    )
    line = [sys.executable, "-m", "pytest_startmethod", "run", "script.py"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 5


def test_a_closed_standard_input_is_no_reason_to_end_the_script(tmp_path):
    """With standard input closed, newly opened descriptors take the streams' numbers; the script still runs."""
    (tmp_path / "script.py").write_text("print('done')\n")
    line = f'"{sys.executable}" -m pytest_startmethod run script.py <&-'
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
