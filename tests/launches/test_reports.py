"""The children's report directory survives what tests do to their process."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
import weakref
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from pytest_startmethod._compat import cpython
from pytest_startmethod._compat.multiprocessing import STDLIB
from pytest_startmethod.activation.exchanges import Exchanges
from pytest_startmethod.child import reporter
from pytest_startmethod.child.events import handover
from pytest_startmethod.launches import leftovers, reports
from pytest_startmethod.launches.reports import _WAIT_AND_REMOVE, ReportDirectory
from pytest_startmethod.model.launch import Launch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is open")


@pytest.fixture
def directory():
    before = handover.writing_ends, handover.parent  # of the session, if it runs this test as a leg
    directory = ReportDirectory.create()
    directory.hold_life_line()
    yield directory
    directory.remove()
    handover.writing_ends, handover.parent = before


def descriptors():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor used for listing
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def noop():
    pass


def fail():
    raise LookupError("mine")


FRAMES = []


def keep_frames():
    FRAMES.append(sys._getframe(1))


class KeepsFrames:
    """Unpickled, it keeps what called it, as a traceback that was sent does."""

    def __reduce__(self):
        return keep_frames, ()


def start(target=noop):
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    process.close()


def test_a_full_disk_keeps_no_part_of_the_code_for_children():
    """What the children's code has taken of a disk too small for it is free again; children compile it themselves."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        directory = ReportDirectory.create()
        within = directory.within()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        assert within is not None
        assert os.listdir(within.path) == []
        assert os.listdir(directory.path) == [os.path.basename(within.path)]
    finally:
        directory.remove()


@pytest.fixture
def listening(directory):
    exchanges = Exchanges()
    directory.listen(exchanges.span("test"), STDLIB)
    yield directory
    exchanges.undo()


def test_prepared_starts_open_nothing(listening):
    """What forked children report through is open before the test can count descriptors."""
    listening.prepare()
    before = descriptors()
    for _ in range(10):
        start()
    # What an earlier test left open may be closed in between by a garbage collection.
    assert descriptors().items() <= before.items()


@pytest.mark.usefixtures("listening")
def test_a_frame_that_outlives_unpickling_does_not_hold_the_data():
    """Before CPython 3.12.3, the garbage collector would crash on it: the view is nobody else's."""
    view = memoryview(ForkingPickler.dumps(KeepsFrames()))
    gone = weakref.ref(view)
    ForkingPickler.loads(view)
    frame = FRAMES.pop()
    del view
    assert frame.f_code.co_filename == reports.__file__
    assert gone() is None


def test_closed_descriptors_are_opened_anew(listening):
    """After a test closes our descriptors, later children still report and the directory stays."""
    listening.prepare()
    start()
    for number, path in descriptors().items():
        if path.startswith(listening.path):
            os.close(int(number))
    listening.clear()
    listening.prepare()
    start(fail)
    assert [each.error.message for each in listening.read()] == ["mine"]
    assert len(handover.open_ends()) == 2


def answer(connection):
    connection.send(connection.recv())


def test_closed_descriptors_end_no_child(listening):
    """A child that runs while a test closes our descriptors carries on, and so do those started after it."""
    listening.prepare()
    for _ in range(2):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=answer, args=(theirs,))
        process.start()
        for number, path in descriptors().items():
            if path.startswith(listening.path):
                os.close(int(number))
        ours.send("alive")
        process.join()
        assert process.exitcode == 0
        assert ours.recv() == "alive"


def test_child_closes_the_ends_of_its_parent_whenever_they_were_opened(listening):
    """Ends that are opened anew end up in no child, whose copy would keep the life line open."""
    for _ in range(2):
        listening.prepare()
        receiver, sender = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=send_descriptors, args=(sender,))
        process.start()
        numbers = {str(each.number) for each in handover.open_ends()}
        assert len(numbers) == 2
        assert not numbers & set(receiver.recv())
        process.join()
        for each in handover.writing_ends:
            os.close(each.number)
        start()
        listening.clear()


def send_descriptors(connection):
    connection.send(list(descriptors()))


def test_number_that_the_test_has_taken_is_not_used(listening, tmp_path):
    """A test's file that got one of our numbers is neither written to nor closed, in parent and child."""
    listening.prepare()
    ours = [int(number) for number, path in descriptors().items() if path.startswith(listening.path)]
    (tmp_path / "theirs").write_text("theirs")
    theirs = os.open(tmp_path / "theirs", os.O_RDWR)
    for number in ours:
        os.dup2(theirs, number)
    start(fail)
    listening.remove()
    assert all(os.fstat(number) == os.fstat(theirs) for number in ours)
    for number in (theirs, *ours):
        os.close(number)
    assert (tmp_path / "theirs").read_text() == "theirs"


@pytest.mark.parametrize("name", ["1-2-3.json", "7.stack"])
def test_what_is_no_file_is_not_waited_for(directory, name):
    """A FIFO, or a link to an endless device, is skipped."""
    path = os.path.join(directory.path, name)
    os.mkfifo(path)
    assert directory.read() == ()
    os.unlink(path)
    os.symlink("/dev/zero", path)
    assert directory.read() == ()


def test_directory_stays_while_the_parent_lives(directory):
    """Even if our ends are closed early, the shell that removes the directory waits for the parent."""
    for each in handover.writing_ends:
        each.close()
    shells = [pid for pid, _, command in _processes() if os.fsencode(directory.path) in command]
    deadline = time.monotonic() + 60
    while not any(parent in shells for _, parent, command in _processes() if command.startswith(b"sleep")):
        assert time.monotonic() < deadline
        os.sched_yield()
    assert os.path.isdir(directory.path)


def _processes():
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command, status = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "stat"))
            yield pid, status.rpartition(b")")[2].split()[1].decode(), command


def test_child_without_a_handler_is_not_asked(directory):
    """The signal would kill it: a child has no handler while it starts or after it has executed a program."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        with open(os.path.join(directory.path, f"{pid}.stack"), "w"):
            pass
        assert not directory.listens(pid)
        assert not cpython.catches(pid, reporter.STACK_SIGNAL)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def stubborn(ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.send(1)
    while True:
        signal.pause()


def test_stubborn_child_is_ended_while_time_stands_still(monkeypatch):
    """Our waits end even if a test has frozen ``time.monotonic``."""
    receiver, sender = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=stubborn, args=(sender,))
    process.start()
    receiver.recv()
    launch = Launch("fork", "stubborn", (), None, None, None, "test_x", process.pid)
    launch.popen = lambda: process._popen
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    assert leftovers.end([launch], grace=0.0) == [launch]
    assert launch.killed
    process.join()  # it has been killed, and on a busy machine may not have ended yet
    assert process.exitcode == -signal.SIGKILL


def test_interrupts_shorten_the_waits_and_are_raised_once():
    """Pressing Ctrl-C five times while children are being ended raises one KeyboardInterrupt, after they are gone."""
    with pytest.raises(KeyboardInterrupt), leftovers.hurried_by_interrupts() as hurry:  # noqa: PT012 - it is the exit
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
        assert hurry.asked
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupts_of_an_interrupted_session_are_no_news():
    """The first one already ends the session."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with leftovers.hurried_by_interrupts() as hurry:
            signal.raise_signal(signal.SIGINT)
    assert hurry.asked


def test_directory_of_a_killed_process_goes_at_once(tmp_path):
    """A child that is still starting never finds half of it, which it could not tell from a whole one."""
    found = tmp_path / "found"
    for name in ("reports", "tools"):
        (tmp_path / name).mkdir()
    rm = tmp_path / "tools" / "rm"
    rm.write_text(f'#!/bin/sh\nshift\nfor each in "$@"; do [ -d "$each" ]; echo $?; done >{found}')
    rm.chmod(0o755)
    fifos = [str(tmp_path / "reports" / name) for name in ("alive", "parent")]
    for each in fifos:
        os.mkfifo(each)
    writing_end = os.open(fifos[1], os.O_RDWR)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = {"PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}"}
    shell = ["sh", "-c", _WAIT_AND_REMOVE, "sh", str(tmp_path / "reports"), *fifos, str(ended.pid)]
    subprocess.run(shell, env=path, check=True)
    os.close(writing_end)
    deadline = time.monotonic() + 60
    while not (found.exists() and found.read_text().count("\n") == 2):
        assert time.monotonic() < deadline
        os.sched_yield()
    assert found.read_text().split() == ["0", "1"]
