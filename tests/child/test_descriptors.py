"""Our descriptors stay out of the user's way and are never confused with the user's."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_startmethod.child.descriptors import Descriptor

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")


@posix
def test_number_is_high_and_not_inherited_by_programs():
    """The lowest free numbers stay available to the user, and exec closes ours."""
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
    theirs = os.open(os.devnull, os.O_RDONLY)
    try:
        assert theirs <= lowest  # a lower one may have been closed meanwhile, by a garbage collection
        assert not os.get_inheritable(ours.number)
        assert ours.number > 100
    finally:
        os.close(theirs)
        ours.close()


def test_second_close_is_harmless():
    """Closing twice, or after somebody else did, raises nothing."""
    ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
    os.close(ours.number)
    assert not ours.is_open()
    ours.close()
    ours.close()


@posix
def test_number_that_is_somebody_elses_by_now_is_left_open(tmp_path):
    """A file that has since received the number is not closed."""
    ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
    (tmp_path / "theirs").touch()
    theirs = os.open(tmp_path / "theirs", os.O_RDONLY)
    os.dup2(theirs, ours.number)
    try:
        ours.close()
        assert os.fstat(ours.number) == os.fstat(theirs)
    finally:
        os.close(theirs)
        os.close(ours.number)


@posix
def test_low_limit_leaves_the_number_as_it_is():
    """Where no high number is allowed, the descriptor keeps its own."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        ours = Descriptor(number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ours.number == number
    ours.close()
