"""Code that runs in a copy of this process leaves no trace in it."""

from __future__ import annotations

import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from pytest_startmethod.pickling import copies

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def answer(work, tmp_path, seconds=60.0):
    path = str(tmp_path / "answer")
    copies.in_copy(work, path, seconds)
    return copies.answer_of(path, time.monotonic() + seconds)


def children():
    """Return the pids of all children, zombies included."""
    return set(pathlib.Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def test_a_copy_answers_and_changes_nothing_here(tmp_path):
    changed = []

    def work():
        changed.append(1)
        return {"pid": os.getpid(), "changed": len(changed)}

    found = answer(work, tmp_path)
    assert found["changed"] == 1
    assert found["pid"] != os.getpid()
    assert changed == []
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_copy_is_nobodys_child(tmp_path):
    before = children()
    assert answer(lambda: 1, tmp_path) == 1
    assert children() <= before  # a garbage collection may wait for one that an earlier test left


def test_a_copy_prints_nothing(tmp_path, capfd):
    path = tmp_path / "log.txt"
    with open(path, "w") as log:

        def work():
            print("out", flush=True)
            print("err", file=sys.stderr, flush=True)
            os.write(1, b"raw")
            log.write("line\n")
            log.flush()
            return True

        assert answer(work, tmp_path) is True
    assert capfd.readouterr() == ("", "")
    assert path.read_text() == ""


@pytest.mark.parametrize("ends", ["raises", "exits", "kills itself"])
def test_a_copy_that_ends_without_an_answer_gives_none(tmp_path, ends, capfd):
    def work():
        if ends == "raises":
            raise KeyboardInterrupt
        if ends == "exits":
            sys.exit(3)
        os.abort()

    copies.in_copy(work, str(tmp_path / "answer"), 5.0)
    assert copies.answer_of(str(tmp_path / "answer"), time.monotonic() + 0.3) is None
    assert capfd.readouterr() == ("", "")


def test_a_copy_that_hangs_is_ended_by_its_timer(tmp_path):
    reading, writing = os.pipe()

    def work():
        os.set_blocking(reading, True)
        while True:
            os.read(reading, 1)

    copies.in_copy(work, str(tmp_path / "answer"), 0.2)
    os.close(writing)
    os.set_blocking(reading, True)
    # The copy holds the last writing end: it is closed once the copy has ended.
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_finalizers_do_not_run_in_a_copy(tmp_path):
    path = tmp_path / "finalized"

    class Acting:
        def __del__(self):
            path.touch()

    cycle = Acting()
    cycle.self = cycle
    gc.disable()
    try:
        del cycle
        answer(lambda: [list(range(100)) for _ in range(1000)] and 1, tmp_path)
        assert not path.exists()
    finally:
        gc.enable()


def test_a_copy_whose_answer_comes_too_late_is_ended(tmp_path):
    path, fifo = str(tmp_path / "answer"), tmp_path / "fifo"
    os.mkfifo(fifo)

    def work():
        os.write(os.open(fifo, os.O_WRONLY), b"x")
        signal.pause()

    copies.in_copy(work, path, 60.0)
    reading = os.open(fifo, os.O_RDONLY)
    assert os.read(reading, 1) == b"x"
    assert copies.answer_of(path, time.monotonic()) is None
    assert os.read(reading, 1) == b""  # end of file: the copy has ended
    os.close(reading)
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_copy_moves_no_position_in_a_file_and_holds_no_pipe_open(tmp_path):
    path = tmp_path / "read.txt"
    path.write_text("0123456789")
    reading, writing = os.pipe()
    with open(path) as file:
        file.seek(3)

        def work():
            os.set_blocking(writing, True)
            return [file.read(), os.fstat(writing).st_rdev == os.stat(os.devnull).st_rdev]

        assert answer(work, tmp_path) == ["3456789", True]
        assert file.read() == "3456789"
    os.close(reading)
    os.close(writing)


def test_a_handler_for_children_is_not_called_for_a_copy(tmp_path):
    """Single-threaded only: a signal blocked in one thread is delivered to another (xdist's workers)."""
    code = """
import signal, subprocess, sys, time
from pytest_startmethod.pickling import copies

called = []
signal.signal(signal.SIGCHLD, lambda *_: called.append(1))
copies.in_copy(lambda: 1, sys.argv[1], 60.0)
assert copies.answer_of(sys.argv[1], time.monotonic() + 60.0) == 1
assert called == []
subprocess.run(["true"], check=True)
assert called
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "answer")], check=True)


@pytest.mark.parametrize(
    ("limit", "container", "scarce"),
    [(8, b"max\n", True), (64, b"max\n", False), (-1, b"max\n", False), (-1, b"20\n", True), (-1, b"4096\n", False)],
)
def test_no_copy_is_made_where_processes_are_scarce(monkeypatch, tmp_path, limit, container, scarce):
    """Under ``ulimit -u 8``, or in a container of 20 processes, a copy may be one too many."""
    file = tmp_path / "pids.max"
    file.write_bytes(container)
    monkeypatch.setattr(copies.resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(copies, "_PIDS_MAX", (str(file),))
    monkeypatch.setattr(copies, "_most_in_container", copies._most_in_container.__wrapped__)
    assert copies.processes_are_scarce() is scarce
    assert not (scarce and copies.can_copy())
