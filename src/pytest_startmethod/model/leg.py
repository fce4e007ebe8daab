"""A leg: one run of one test under one start method."""

from __future__ import annotations

from dataclasses import dataclass

from .place import Place


@dataclass(frozen=True, slots=True)
class SetByUser:
    """A call of ``set_start_method`` that is not the leg's: which method, and where, if that is known."""

    method: str
    place: Place | None
    wins: bool
    """True: it was called in the test itself and holds from there on. False: the leg's method was put back."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of one test under one start method; every such item has one in its stash."""

    nodeid: str
    """``tests/test_x.py::test_x[spawn-1]``"""
    test: str
    """The node id without the method, common to the legs of a test: ``tests/test_x.py::test_x[1]``."""
    method: str
    """``fork``, ``spawn`` or ``forkserver``; of another package than multiprocessing: ``multiprocess:spawn``."""
    file: str
    """Where the test is defined, as pytest prints it: relative to the root directory."""
    line: int
    """The line of `file`, counted from 1."""
    vacuous: str
    """``report``, ``fail`` or ``ignore``: the marker's word, or the run's."""
    timeout: float | None
    """Seconds, 0 for no limit, or None where the marker says nothing."""
    planned: tuple[str, ...] = ()
    """The methods of all legs of the test, deselected ones included; empty where that is unknown."""
