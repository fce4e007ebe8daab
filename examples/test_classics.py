"""Four classics: what a child gets from its parent under fork, and does not get under spawn and forkserver."""

import multiprocessing

import pytest

pytestmark = pytest.mark.startmethods

GREETING = "hello"
SEEN = []
MODE = "as imported"


def test_lambda_reads_a_global():
    """A lambda has no name that a fresh child could import."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.Process(target=lambda: child.send(GREETING))
    process.start()
    assert parent.recv() == "hello"
    process.join()


def test_function_closes_over_a_local():
    """A nested function takes its cells along under fork; a fresh child cannot even find the function."""
    parent, child = multiprocessing.Pipe()
    factor = 3
    with open(__file__) as log:

        def triple(number):
            child.send((number * factor, log.name))

        process = multiprocessing.Process(target=triple, args=(14,))
        process.start()
        assert parent.recv() == (42, __file__)
        process.join()


def note_it(text):
    SEEN.append(text)


def test_write_that_the_parent_never_sees():
    """The child changes its own copy: no start method brings the change back."""
    process = multiprocessing.Process(target=note_it, args=("was here",))
    process.start()
    process.join()
    assert SEEN == ["was here"]


def send_globals(connection):
    own = {name: value for name, value in globals().items() if name in ("GREETING", "MODE", "__name__")}
    connection.send(own)


def test_globals_side_by_side(monkeypatch):
    """A fresh child imports the module anew: it has what the file says, not what the test made of it."""
    monkeypatch.setitem(globals(), "MODE", "changed by the test")
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.Process(target=send_globals, args=(child,))
    process.start()
    assert parent.recv() == {"GREETING": "hello", "MODE": "changed by the test", "__name__": __name__}
    process.join()
