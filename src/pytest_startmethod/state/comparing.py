"""Compare what a failed leg's children saw with what the parent had: one a session, since fresh children stay warm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..model.evidence import Evidence
from ..source.callers import UserCode

# What only a failure needs is imported by it: a fork copies the page tables of all that is loaded.
if TYPE_CHECKING:
    from ..model.child_report import Frame
    from ..model.finding import Finding
    from ..model.observed import Observed
    from ..model.patched import Patched
    from ..source.callers import UserCode
    from .fresh_child import Loader

_OBSERVED = 6
"""The code of no more launches and tasks of a leg is compared."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure of a leg, as far as a comparison wants to know."""

    test: str
    """The node id without the method."""
    frames: Sequence[tuple[str, int, str]]
    """File, line and function of its traceback."""
    what: object
    """Equal for failures that are alike."""
    children: Sequence[Frame]
    """The frames of what children raised."""
    patches: tuple[Patched, ...]
    environ: dict[str, str] | None
    """What the running forkserver was started with."""
    file: str
    """Where the test is."""
    look_inside: bool
    """Whether the evidence is to be shown as one would look it up by hand."""
    elsewhere: bool = False
    """Whether it was raised in code of others, and is no assertion: a time-out, a refused connection."""


class Comparison:
    """The parent's values, kept at each launch, beside those of a fresh child, asked for when a leg has failed."""

    def __init__(self, root: str, packages: tuple[str, ...]) -> None:
        self._root = root
        self._packages = packages
        self._user: UserCode | None = None
        self._child: Loader | None = None
        self._second: Loader | None = None
        """A second fresh child, to know which values are other ones in every process."""
        self._calls: dict[str, dict[str, tuple[str, object]]] = {}
        """By test and method: outcome of the call, and what it failed with, where."""

    def observe(self, *args: Any, **kwargs: Any) -> Observed | None:
        """Return what the code of a launch or task reads and what the parent has there: `state.observe`."""
        from . import observing

        if self._user is None:
            self._user = UserCode.of_project(self._root, self._packages)
        return observing.observe(*args, user=self._user, **kwargs)

    def note_call(self, test: str, method: str, outcome: str, failed_with: object) -> None:
        """Know how the call of a leg ended: what fails alike under fork is no matter of what a child has."""
        self._calls.setdefault(test, {})[method] = (outcome, failed_with)

    def findings(self, evidence: Evidence, failed: Failed) -> tuple[tuple[Finding, ...], list[str]]:
        """Return what the children saw otherwise, and the lines of the look inside.

        Nothing where that cannot have been the reason: the leg under fork failed alike, or a child under spawn, which
        has the same values, passed.
        """
        observed, method = _observed(evidence), evidence.method
        if not observed:
            return (), []
        from ..causes import state as state_causes
        from ..causes.ranking import unique
        from . import observing

        calls = self._calls.get(failed.test, {})
        fork = calls.get("fork")
        alike = fork is not None and fork[0] == "failed" and fork[1] == failed.what
        context = state_causes.Context(
            patches=failed.patches,
            touched=frozenset({(f, n) for f, _, n in failed.frames} | {(f.file, f.function) for f in failed.children}),
            lines=frozenset((f, n) for f, n, _ in failed.frames),
            raised=frozenset((f.file, f.line) for f in failed.children),
            passed_under_fork=None if fork is None else fork[0] == "passed",
            environ=failed.environ if method == "forkserver" else None,
            tests=(failed.file, *_conftests()),
            initialized=_initialized(evidence),
            elsewhere=failed.elsewhere,
        )
        passed_under_spawn = method == "forkserver" and calls.get("spawn", ("",))[0] == "passed"
        compares = method != "fork" and not alike and not passed_under_spawn
        found: list[Finding] = []
        inside: list[str] = []
        for each in observed:
            seen = None
            if compares and each.reads_state:
                seen = observing.ask(each, [self.fresh_child(), self._second_child()], context.environ)
            if compares or alike or method in ("fork", "forkserver"):
                found += state_causes.explain(each, seen or [], replace(context, compares=compares))
            if failed.look_inside and each.bindings:
                inside += [*([""] if inside else []), *state_causes.look_inside(each, seen or [])]
        return unique(state_causes.ordered(found)), inside

    def unshared(self, evidence: Evidence) -> list[Finding]:
        """Return notes on what each child of a leg that passed had of its own (SM307)."""
        observed = [each for each in _observed(evidence) if each.primitives]
        if not observed:
            return []
        from ..causes import state as state_causes

        context = state_causes.Context(failed=False, initialized=_initialized(evidence))
        return [finding for each in observed for finding in state_causes.unshared(each, context)]

    def fresh_child(self) -> Loader:
        """Return the child that is asked what a real one would see; it lives as long as the session."""
        if self._child is None:
            from .fresh_child import Loader

            self._child = Loader().__enter__()
        return self._child

    def _second_child(self) -> Loader:
        if self._second is None:
            from .fresh_child import Loader

            self._second = Loader()
        return self._second

    def close(self) -> None:
        """End the children."""
        for child in (self._child, self._second):
            if child is not None:
                child.close()


def _observed(evidence: Evidence) -> list[Observed]:
    """Return what is known of the code of the leg's children, once for each function and line that started it."""
    every = [each.observed for each in evidence.launches if each.error is None]
    every += [each.observed for each in evidence.tasks if each.how != "initializer"]
    every += [each.observed for each in evidence.tasks if each.how == "initializer"]
    every += [each.observed for each in evidence.inherited if each.error is None]
    kept: dict[object, Observed] = {}
    for each in every:
        if each is not None and each.method == evidence.method:
            kept.setdefault((each.target, each.place, each.print), each)
    return list(kept.values())[:_OBSERVED]


def _initialized(evidence: Evidence) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Return the names that initializers of the leg's pools set in each worker."""
    return frozenset(
        (write.module, write.names)
        for task in evidence.tasks
        if task.how == "initializer" and task.observed is not None
        for write in task.observed.writes
    )


def _conftests() -> list[str]:
    modules = [m for n, m in list(sys.modules.items()) if n.rpartition(".")[2] == "conftest" and m is not None]
    return list(dict.fromkeys(str(m.__file__) for m in modules if getattr(m, "__file__", None)))
