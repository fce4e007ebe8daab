"""Python's signal handlers, and how to keep their exceptions out of our own code."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import sys
from _thread import get_ident
from signal import SIG_IGN, default_int_handler, valid_signals
from threading import main_thread
from types import FrameType
from typing import Any, ClassVar, Final

from .cpython import frameless

_NUMBERS: Final = tuple(map(int, valid_signals()))
_NOT_PYTHONS: Final = {int, type(None), type(default_int_handler)}
"""Types of what `_signal.getsignal` returns for SIG_DFL and SIG_IGN, for a handler in C, and for SIGINT's own."""


def getsignal(number: int) -> Any:
    """Return the handler of a signal, without the search of ``signal.getsignal`` for a member of the enum `Handlers`.

    The search raises and catches a ValueError for each function, and is the largest part of the cost of a leg's clock.
    `_signal` (3.10 to 3.15). When it goes: `signal`.
    """
    return _signal.getsignal(number)


def is_ignored(number: int) -> bool:
    """Return whether a signal is ignored: `getsignal` returns a plain number for SIG_IGN."""
    handler = getsignal(number)
    return type(handler) is int and handler == SIG_IGN


def setsignal(number: int, handler: object) -> Any:
    """Set the handler of a signal and return the one before. See `getsignal`."""
    return _signal.signal(number, handler)


class OwnCode:
    """A ``with`` block of our own code in the middle of the user's, during which the user's signal handlers wait.

    CPython calls a handler between any two instructions of the main thread, and one that raises there, such as that of
    a time limit, would raise into an ``except`` of ours. So the handlers are called when the block ends, and what they
    raise reaches the user. Other threads and Ctrl-C do not wait. Where Ctrl-C interrupts the end of a block itself, the
    next block or signal restores the handlers.

    Setting a handler resets what Python cannot read: ``signal.siginterrupt(number, False)``, which CPython's own system
    calls do not need (PEP 475), and a handler that C code has set over Python's (``faulthandler.register``).
    """

    __slots__ = ("_frame", "_handlers", "_raised", "_stand_in", "_waiting")
    _outermost: ClassVar[OwnCode | None] = None

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._waiting: list[int] | None = []
        """Signals that have arrived. None once the handlers no longer wait."""
        self._raised: BaseException | None = None
        self._stand_in = self._arrived  # bound once, for identity comparisons
        self._frame: FrameType | None = None
        """The function that the block is part of. None once the handlers have been restored."""

    def __enter__(self) -> None:
        if get_ident() != main_thread().ident:
            return
        if OwnCode._outermost is not None:
            if not OwnCode._outermost._is_over(sys._getframe()):
                return
            OwnCode._outermost._end()
        types = [*map(type, map(_signal.getsignal, _NUMBERS))]
        if _NOT_PYTHONS.issuperset(types):
            return
        self._frame = sys._getframe(1)
        try:
            OwnCode._outermost = self
            for number, kind in zip(_NUMBERS, types, strict=True):
                if kind not in _NOT_PYTHONS:
                    self._handlers[number] = _signal.getsignal(number)
                    _signal.signal(number, self._stand_in)  # may call another signal's handler, before or after
        except BaseException:
            self._end()
            raise

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if OwnCode._outermost is self:
            with frameless:
                self._end()
                if self._raised is not None and self._raised is not error:
                    raise self._raised

    @classmethod
    def call_handlers(cls) -> None:
        """Let handlers wait no longer, since user code is about to run. What they raise is raised again at the end."""
        block = cls._outermost
        if block is not None and get_ident() == main_thread().ident:
            waiting, block._waiting = block._waiting or [], None
            for number in waiting:
                block._arrived(number, sys._getframe())

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._is_over(frame):
            self._waiting = [*(self._waiting or ()), number]
            self._end()
        elif self._waiting is not None:
            self._waiting.append(number)
        else:
            try:
                self._handlers[number](number, frame)
            except BaseException as error:
                self._raised = error
                raise

    def _is_over(self, frame: FrameType | None) -> bool:
        """Return whether the block's function no longer runs: Ctrl-C ended it before its handlers were restored."""
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is None

    def _end(self) -> None:
        """Restore the handlers, and call those whose signals have arrived."""
        with frameless:
            try:
                for number, handler in self._handlers.items():
                    if _signal.getsignal(number) is self._stand_in:
                        _signal.signal(number, handler)
                self._frame = None
                if OwnCode._outermost is self:
                    OwnCode._outermost = None
                while self._waiting:
                    number = self._waiting.pop(0)
                    self._handlers[number](number, sys._getframe())
            finally:
                if OwnCode._outermost is self or self._waiting:  # one of them raised
                    self._end()
