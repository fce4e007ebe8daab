"""Make a leg's start method the interpreter's default, and restore the previous one."""

from __future__ import annotations

from types import FrameType

from .._compat.multiprocessing import STDLIB, Package, method_of
from ..model.leg import SetByUser
from ..model.place import Place
from ..source.callers import calling_place, owner, user_files
from ..source.index import find_calls
from . import contexts


class Activation:
    """The activation of one leg's method, with the changes that user code makes to it.

    `method` is the name that `package` uses.
    """

    def __init__(self, method: str, package: Package = STDLIB) -> None:
        self.method = method
        self.package = package
        self.in_call = False
        self.overrides: list[SetByUser] = []
        self.asked: list[Place] = []
        self._before = contexts.context_state(package)
        self._actual = self._before["_actual_context"]
        """The context set by user code, to be restored at the end."""

    def enter(self) -> None:
        """Make the method the default."""
        by_use = self.package == STDLIB and contexts.fixed_by_use()
        set_before = method_of(self._actual) if not by_use else None
        if set_before not in (None, self.method) and not contexts.is_watched(self._before["class"]):
            files = user_files()
            calls = find_calls(files, "set_start_method")
            # Without any call nobody chose it: creating a Lock at import also fixes the interpreter's method.
            if calls or set_before != self.package.interpreter_default():
                places = find_calls(files, "set_start_method", set_before) or calls
                place = places[0] if len(places) == 1 else None  # any of several calls could have set it
                self.overrides.append(SetByUser(str(set_before), place, wins=False))
        contexts.make_default(self.method, self, self.package)
        if self.package == STDLIB:
            contexts.let_twins_be(self.method)

    def enter_call(self) -> None:
        """Restore the method if a fixture or hook changed it. From here on, changes count as the test's."""
        if method_of(self.package.set_context()) not in (None, self.method):
            contexts.make_default(self.method, self, self.package)
        self.in_call = True

    def leave_call(self) -> None:
        """From here on, count changes as a fixture's."""
        self.in_call = False

    def exit(self) -> None:
        """Restore the previous method, or the one that a fixture has set since."""
        contexts.let_twins_be(None)
        contexts.restore_context_state(self._before, self._actual, self.package)

    def method_set(self, method: str | None, caller: FrameType | None) -> None:
        """Record a ``set_start_method`` (`contexts.ContextListener`)."""
        if not self.in_call:
            unchanged = method in (None, self.method)
            self._actual = self._before["_actual_context"] if unchanged else self.package.set_context()
        if method not in (None, self.method):
            self.overrides.append(SetByUser(str(method), calling_place(caller), wins=self.in_call))

    def method_asked(self, caller: FrameType | None) -> None:
        """Record a ``get_start_method`` (`contexts.ContextListener`)."""
        place = calling_place(caller) if caller is not None and owner(caller.f_code.co_filename) == "user" else None
        if place is not None and place not in self.asked:
            self.asked.append(place)
