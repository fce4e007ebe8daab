"""Four tests that pass under every method and say nothing about some of them."""

import multiprocessing

import pytest

pytestmark = pytest.mark.startmethods


def use():
    """Stand for work in the child."""


def test_starts_nothing():
    """SM501: a marked test without a process."""
    assert sum([1, 2, 3]) == 6


def test_pinned_method():
    """SM502: the code asks for fork, whatever the leg's method is."""
    process = multiprocessing.get_context("fork").Process(target=use)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def pool():
    with multiprocessing.Pool(1) as pool:
        yield pool


def test_fixture_started_earlier(pool):
    """SM503: the fixture is built once, under the first method."""
    assert pool.apply(abs, (-3,)) == 3


def test_declares_fork_only():
    """SM504: the test checks the method and leaves forkserver out."""
    if multiprocessing.get_start_method() in ("spawn", "forkserver"):
        pytest.skip("needs fork")
    process = multiprocessing.Process(target=use)
    process.start()
    process.join()
    assert process.exitcode == 0
