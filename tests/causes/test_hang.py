"""What a stack waits for is recognised from standard library frames."""

from __future__ import annotations

import multiprocessing.queues
import queue
import subprocess

import pytest

from pytest_startmethod.causes.hang import waits_for
from pytest_startmethod.model.stack import Stack

USER = ("/home/me/project/test_x.py", 9, "test_x")


@pytest.mark.parametrize(
    ("file", "function", "what"),
    [
        (queue.__file__, "get", "something to be put into a queue"),
        (multiprocessing.queues.__file__, "put", "room in a queue"),
        (subprocess.__file__, "wait", "a subprocess"),
        ("/home/me/project/job_queue.py", "get", None),
        ("/home/me/project/queue.py", "get", None),
        ("/home/me/project/run_subprocess.py", "wait", None),
        ("/home/me/project/multiprocessing/queues.py", "put", None),
    ],
)
def test_a_users_file_is_not_taken_for_the_librarys(file, function, what):
    """A user's file counts as such, whatever its name."""
    assert waits_for(Stack(((file, 5, function), USER))) == what
