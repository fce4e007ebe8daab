"""SM501 to SM504: passing legs that did not exercise their start method, and code that refuses some methods."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from typing import Literal

from ..launches import foreign
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at
from ..model.foreign import Foreign
from ..model.launch import Launch, Task
from ..model.methods import base
from ..model.place import Place, where
from ..source.callers import user_files
from ..source.index import find_calls, find_names
from ..source.refusals import method_check

_CLASSES = {
    "fork": ("ForkProcess", "ForkContext"),
    "spawn": ("SpawnProcess", "SpawnContext"),
    "forkserver": ("ForkServerProcess", "ForkServerContext"),
}


# -- vacuous legs -----------------------------------------------------------------------------------------------------


def vacuous(evidence: Evidence) -> Finding | None:
    """Return why a passing leg did not exercise its method; None if it started a process with it."""
    if evidence.outcome != "passed":
        return None
    every = [*evidence.launches, *evidence.inherited]
    if any(launch.method == evidence.method for launch in every):
        return None
    others = [launch for launch in evidence.launches if launch.method != evidence.method]
    if others:
        return _pinned(evidence, others)
    if evidence.foreign:
        return _foreign(evidence.foreign)
    if evidence.inherited:
        return _started_earlier(evidence)
    for place in evidence.asked:
        check = method_check(place)
        if check is not None:
            message = f"started no process: the code checks the start method at {where(check)} and starts nothing"
            return _note("SM504", "start method check", check, message, _CHECK_FIX)
    message = "started no process" + _instead(evidence.tasks)
    off = "take the marker off this test" if evidence.marked else "request neither start_method nor mp_context"
    return _note("SM501", "", None, message, f"{off}, or start the process in the test")


def _instead(tasks: Sequence[Task]) -> str:
    if not tasks:
        return ""
    return f"; its tasks ran in processes of another test: {tasks[0].target}, given at {where(tasks[0].place)}"


def _foreign(every: Sequence[Foreign]) -> Finding:
    first = max(every, key=lambda each: 0 if foreign.is_reused(each.kind) else each.count)
    others = [each for each in every if each is not first]
    what = foreign.told(first.kind, first.method, first.count)
    verb = "used only" if foreign.is_reused(first.kind) else "started"
    message = f"{verb} {what} at {where(first.place)}"
    also = tuple(
        f"also {foreign.told(each.kind, each.method, each.count)} at {where(each.place)}" for each in others[:4]
    )
    fix = foreign.fix(first.kind)
    return _note("SM502", first.method if ":" in first.method else first.kind, first.place, message, fix, also)


def _pinned(evidence: Evidence, others: Sequence[Launch]) -> Finding:
    launch = others[0]
    if launch.by_torch or ":" in launch.method or ":" in evidence.method:
        return _foreign([*foreign.pinned(others, evidence.method), *evidence.foreign])
    started = f"{foreign.processes(len(others))} with {launch.method}"
    forced = [each for each in evidence.overrides if each.wins and each.method == launch.method]
    if forced:
        place = forced[-1].place
        message = f"started {started}: set_start_method({launch.method!r}) at {where(place)}"
        fix = "leave the start method to the leg; the test can read it from the start_method fixture"
        return _note("SM502", f"set_start_method({launch.method!r})", place, message, fix)
    what = f"get_context({launch.method!r})"
    fix = f"take the context from the mp_context fixture, or let the code accept one, instead of {what}"
    own = _pins(launch, [launch.place.file] if launch.place is not None else [])
    if own:
        also = tuple(f"or at {where(each)}" for each in own[1:4])
        return _note("SM502", what, own[0], f"started {started}: {what} at {where(own[0])}", fix, also)
    message = f"started {started} at {where(launch.place)}"
    elsewhere = tuple(f"{what} is at {where(each)}" for each in _pins(launch, user_files())[:4])
    return _note("SM502", what, launch.place, message, fix, elsewhere)


def _pins(launch: Launch, files: list[str]) -> list[Place]:
    method = base(launch.method)
    found = find_calls(files, "get_context", method)
    for name in _CLASSES[method]:
        found += find_names(files, name)
    if method == "spawn":  # ProcessPoolExecutor(max_tasks_per_child=...) without mp_context, 3.11
        found += [p for p in find_calls(files, "ProcessPoolExecutor") if "max_tasks_per_child" in _source(p)]
    return found


def _source(place: Place) -> str:
    return linecache.getline(place.file, place.line)


def _started_earlier(evidence: Evidence) -> Finding:
    launch = evidence.inherited[0]
    fixture = launch.fixture
    name, scope = (fixture.name, fixture.scope) if fixture else ("?", "?")
    message = (
        f"used processes that the {scope}-scoped fixture {name!r} started with {launch.method} "
        f"in {launch.leg}, at {where(launch.place)}"
    )
    fix = f"let the fixture {name!r} request start_method or mp_context: it is then built once per method"
    return _note("SM503", name, launch.place, message, fix)


_CHECK_FIX = "make the code work without the check, or name the supported methods in the marker"


def declared_fork_only(evidence: Evidence) -> list[Finding]:
    """Return SM504 if the phase ended in code that checks the start method and refuses it."""
    if base(evidence.method) == "fork" or evidence.raised_at is None:
        return []
    check = method_check(evidence.raised_at, refusing=True)
    if check is None:
        return []
    does = "raises" if evidence.outcome == "failed" else "skips"
    message = f"the code checks the start method at {where(check)} and {does} under {evidence.method}"
    level: Literal["cause", "note"] = "cause" if evidence.outcome == "failed" else "note"
    return [finding_at("SM504", "start method check", check, message, (), _CHECK_FIX, level)]


def _note(code: str, path: str, place: Place | None, message: str, fix: str, evidence: Sequence[str] = ()) -> Finding:
    return finding_at(code, path, place, message, evidence, fix, "note")


def pinned_fork(launch: Launch) -> bool:
    """Return whether the code itself asks for fork, and so would under every method.

    The mp_context fixture's launches carry an explicit method too, so the source is searched; pool workers never count.
    """
    if not launch.own_method or launch.is_worker:
        return False
    return bool(_pins(launch, [launch.place.file] if launch.place is not None else []) or _pins(launch, user_files()))


def runner(place: Place) -> Finding:
    """Return the note on a script that runs pytest outside a main guard (SM401)."""
    message = (
        "the script that runs pytest does so outside a main guard: every spawn and forkserver child of it runs the "
        "whole session again. The children of these legs do not: the script does not reach them"
    )
    fix = f'put `if __name__ == "__main__":` above line {place.line} of the script'
    return _note("SM401", "__main__", place, message, fix)
