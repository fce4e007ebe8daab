"""``python -m pytest_startmethod run``: the script's own output and status, and the findings after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from pytest_startmethod import __main__
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
def _importable(monkeypatch):
    """Let the command be found from any directory, also where the package is not installed."""
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
        ([], "python -m pytest_startmethod: the following arguments are required: COMMAND"),
        (["run"], "python -m pytest_startmethod run: the following arguments are required: script"),
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
    """What is wrong with the arguments is one line, with status 2."""
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
    methods = ", ".join(each for each in selection.ORDER if each in selection.available())
    # up to 3.14 it names what may be missing, too
    assert capsys.readouterr().err.replace("script, ...", "script") == line.replace("METHODS", methods) + "\n"


def test_no_such_script(capsys):
    """A script that is not there is one line, with status 2."""
    assert __main__.main(["run", "nothing.py"]) == 2
    assert capsys.readouterr().err == "python -m pytest_startmethod run: no such script: nothing.py\n"


def test_output_and_status_are_the_script_s(tmp_path):
    """Nothing is added where there is nothing to say; arguments that look like ours are the script's."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    result = command("run", path, "--method", "-x", input="in")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out --method -x in\n", "err\n")


def test_findings_follow_on_standard_error(tmp_path):
    """The finding comes last, relative to the working directory, and goes to the report, too."""
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
    assert lines[-1].startswith("    ")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == 1
    assert (report["method"], report["returncode"]) == ("spawn", result.returncode)
    assert [each["code"] for each in report["findings"]] == ["SM401"]
    assert [(each["method"], each["line"]) for each in report["launches"]] == [("spawn", 3)]


def test_report_that_cannot_be_written(tmp_path, capfd):
    """A report that cannot be written is one line, with status 2."""
    (tmp_path / "script.py").write_text("")
    report = tmp_path / "none" / "report.json"
    assert __main__.main(["run", "--report", str(report), str(tmp_path / "script.py")]) == 2
    assert capfd.readouterr().err.startswith("python -m pytest_startmethod run: --report: [Errno 2] ")


def test_time_limit(tmp_path):
    """At its limit the script is ended, with the status of coreutils' timeout."""
    (tmp_path / "script.py").write_text("import time\ntime.sleep(600)\n")
    result = command("run", "--timeout=0.5", "script.py", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (124, "pytest-startmethod: script.py was ended (time limit)\n")


def test_start_method_of_the_script_is_noted(tmp_path):
    """The method that the script sets holds, and is noted."""
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
    """A script that a signal ends ends the command in the same way."""
    (tmp_path / "script.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    assert command("run", "script.py", cwd=tmp_path).returncode == -signal.SIGTERM


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt(tmp_path):
    """Ctrl-C reaches the script, whose answer is its own."""
    (tmp_path / "script.py").write_text(
        "import time\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(5)\n"
    )
    line = [sys.executable, "-m", "pytest_startmethod", "run", "script.py"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 5


def test_a_closed_standard_input_is_no_reason_to_end_the_script(tmp_path):
    """The next descriptors that are opened are then those of the streams."""
    (tmp_path / "script.py").write_text("print('done')\n")
    line = f'"{sys.executable}" -m pytest_startmethod run script.py <&-'
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
