"""A leg: one run of one test under one start method."""

from __future__ import annotations

from dataclasses import dataclass

from .place import Place


@dataclass(frozen=True, slots=True)
class SetByUser:
    """A call of ``set_start_method`` in the user's code: which method, and where, if known."""

    method: str
    place: Place | None
    wins: bool
    """True: the test itself called it, and it holds from there on. False: the leg's method was restored."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of one test under one start method, in the stash of its item."""

    nodeid: str
    """``tests/test_x.py::test_x[spawn-1]``"""
    test: str
    """The node id without the method, common to the legs of a test: ``tests/test_x.py::test_x[1]``."""
    method: str
    """``fork``, ``spawn`` or ``forkserver``; of another package than multiprocessing: ``multiprocess:spawn``."""
    file: str
    """The file that defines the test, relative to the root directory."""
    line: int
    """The line of `file`, counted from 1."""
    vacuous: str
    """``report``, ``fail`` or ``ignore``: the marker's value, else the session's."""
    timeout: float | None
    """Seconds, 0 for no limit, or None if the marker sets none."""
    planned: tuple[str, ...] = ()
    """The methods of all legs of the test, deselected ones included; empty if unknown."""
