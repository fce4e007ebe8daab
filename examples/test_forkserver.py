"""What only the forkserver has: a server with a socket, which is the parent of its children."""

import multiprocessing
import os
import sys

import pytest


def work():
    """Stand for work in the child."""


def test_socket_in_a_removed_directory(start_method_script):
    """SM601: the first process creates the server's socket in what is then the temporary directory."""
    run = start_method_script("redirecting_script.py")
    assert run.stdout == "done\n"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python takes /tmp then")
def test_long_temporary_directory(start_method_script, tmp_path):
    """SM602: a socket's path has room for about a hundred characters."""
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    run = start_method_script("redirecting_script.py", env={**os.environ, "TMPDIR": str(directory)})
    assert run.stdout == "done\n"


@pytest.mark.startmethods
def test_waits_for_its_child():
    """SM603: a forkserver child is not a child of this process."""
    process = multiprocessing.Process(target=work)
    process.start()
    _, status = os.waitpid(process.pid, 0)
    assert status == 0


def send_parent(connection):
    connection.send(os.getppid())


@pytest.mark.startmethods
def test_parent_of_its_child():
    """SM603: the parent of a forkserver child is the server."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=send_parent, args=(there,))
    process.start()
    parent = here.recv()
    process.join()
    assert parent == os.getpid()
