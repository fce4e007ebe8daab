"""From the evidence of one leg to its findings. Pure: nothing is started, nothing is patched."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence
from typing import Any

from ..launches import foreign
from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at
from ..model.foreign import Foreign
from ..model.launch import Launch, Task
from ..model.methods import base
from ..model.place import Place
from ..source.callers import find_calls, find_names, method_check, user_files

_CLASSES = {
    "fork": ("ForkProcess", "ForkContext"),
    "spawn": ("SpawnProcess", "SpawnContext"),
    "forkserver": ("ForkServerProcess", "ForkServerContext"),
}


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Return why the leg failed or skipped, the best supported cause first; nothing if that cannot be told."""
    if evidence.outcome == "passed":
        return ()
    found: list[Finding] = []
    if evidence.outcome == "failed":
        if evidence.failure is not None:
            found += evidence.failure.findings
        for each in evidence.failures:
            found += each.findings
        for launch in evidence.inherited:
            if launch.method == evidence.method:
                found += launch.findings
        found += _elsewhere(evidence)
        found += [each for each in evidence.children if _keeps_from_running(each)]
        found += _state(evidence, found)
        found += [each for each in evidence.children if not _keeps_from_running(each)]
        found += evidence.peculiar
        found += _pools_given_up(evidence)
        found += _threads(evidence)
        if evidence.hang is not None:
            found.append(evidence.hang)
    found += _declared_fork_only(evidence)
    return unique([*(f for f in found if f not in evidence.state or f.level == "cause"),
                   *(f for f in found if f in evidence.state and f.level == "note")])  # fmt: skip


def _keeps_from_running(finding: Finding) -> bool:
    """Say whether a child that this happened to never came to the user's code, or its result never came back."""
    return finding.level == "cause" and (finding.code.startswith(("SM1", "SM2")) or finding.code == "SM407")


def _state(evidence: Evidence, found: Sequence[Finding]) -> list[Finding]:
    """Return what the children saw otherwise, unless there is a reason that leaves no room for it."""
    if any(map(_keeps_from_running, found)) or _declared_fork_only(evidence) or evidence.peculiar:
        return []
    return list(evidence.state)


def swallowed(evidence: Evidence) -> tuple[Finding, ...]:
    """Return what kept processes from starting in a leg that passed all the same."""
    return unique(f for each in evidence.failures for f in each.findings)


def predicted(evidence: Evidence) -> tuple[Finding, ...]:
    """Return why what the fork leg started could not start under spawn, where the code leaves that to the leg."""
    return unique(
        f for launch in evidence.launches if launch.predicted and not _pinned_fork(launch) for f in launch.predicted
    )


def _pinned_fork(launch: Launch) -> bool:
    """Return whether the code asks for fork: it does so under every method.

    The context of the mp_context fixture has a method of its own, too, and so have the workers of every pool.
    """
    if not launch.own_method or launch.is_worker:
        return False
    return bool(_pins(launch, [launch.place.file] if launch.place is not None else []) or _pins(launch, user_files()))


def _elsewhere(evidence: Evidence) -> list[Finding]:
    """Say which start failed, where the test died of something else (SM408)."""
    if evidence.failure is not None:
        return []
    found = []
    for launch in [*evidence.launches, *(each for each in evidence.inherited if each.method == evidence.method)]:
        if launch.error is None or _tells(evidence.text, launch.error):
            continue
        where = f"in thread {launch.thread!r}" if launch.thread else f"at {_short(launch.place)}"
        if launch.fixture is not None:
            where += f", in the fixture {launch.fixture.name!r}"
        message = f"start() of {launch.target} failed {where}: {launch.error}"
        if evidence.error:
            message += f". What the test died of ({evidence.error}) is a symptom of it"
        fix = "let the failure of start() reach the test: check it where the thread or the fixture is waited for"
        found.append(_cause("SM408", "", launch.place, message, fix))
    return found


def _tells(text: str, error: str) -> bool:
    """Return whether a failure says of itself that it is `error`: testtools and others make an exception of the text.

    ``"PicklingError: ..."`` stands there as ``"_pickle.PicklingError: ..."``.
    """
    return error in text


def _pools_given_up(evidence: Evidence) -> list[Finding]:
    """Say that a Pool's workers died before they could run a task (SM402)."""
    # the first worker of each: it was started where the user made the pool, the others in a thread of the pool's own
    pools: dict[int, tuple[Launch, str]] = {}
    for launch in evidence.launches:
        if launch.pool is not None and launch.pool.given_up:
            pools.setdefault(id(launch.pool), (launch, launch.pool.given_up))
        elif launch.pool is not None and launch.pool.exits and evidence.error == "ZeroDivisionError":
            # Pool.map divides by the number of its workers: when all have died and none is replaced yet, that is 0
            text = "the workers of this Pool die before running a task, and there was none just then to share the work"
            pools.setdefault(id(launch.pool), (launch, text))
    fix = (
        "see to it that a worker can import the task's module and run the initializer: what comes first above says why"
    )
    return [_cause("SM402", launch.target, launch.place, text, fix) for launch, text in pools.values()]


def _threads(evidence: Evidence) -> list[Finding]:
    """Say that a forked child that hangs waits for a lock that another thread may have held (SM405)."""
    names = sorted({name for launch in evidence.launches for name in launch.threads})
    if base(evidence.method) != "fork" or evidence.hang is None or not names:
        return []
    waiting = [line for line in evidence.hang.evidence if "waiting for a lock" in line or "held for ever" in line]
    if not waiting:
        return []
    message = (
        f"the child was forked while other threads ran ({', '.join(names)}) and waits for a lock: a fork copies a lock "
        "that another thread holds, and nobody in the child will ever release it"
    )
    fix = "start the processes before the threads, or use spawn or forkserver, whose children inherit no locks"
    place = next((launch.place for launch in evidence.launches if launch.threads), None)
    return [_cause("SM405", "", place, message, fix, tuple(waiting))]


def runner(place: Place) -> Finding:
    """Return the note on a script that runs pytest outside a main guard (SM401)."""
    message = (
        "the script that runs pytest does so outside a main guard: every spawn and forkserver child of it runs the "
        "whole session again. The children of these legs do not: they are told nothing of the script"
    )
    fix = f'put `if __name__ == "__main__":` above line {place.line} of the script'
    return _note("SM401", "__main__", place, message, fix)


def unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings` without repetition, in order."""
    kept: dict[object, Finding] = {}
    for finding in findings:
        kept.setdefault((finding.code, finding.path, finding.file, finding.line), finding)
    return tuple(kept.values())


# -- SM501 to SM504 --------------------------------------------------------------------------------------------------


def vacuous(evidence: Evidence) -> Finding | None:
    """Return why a leg that passed says nothing about its method; None if it started a process with it."""
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
            message = f"started no process: the code checks the start method at {_short(check)} and starts nothing"
            return _note("SM504", "start method check", check, message, _CHECK_FIX)
    message = "started no process" + _instead(evidence.tasks)
    return _note("SM501", "", None, message, "take the marker off this test, or start the process in the test")


def _instead(tasks: Sequence[Task]) -> str:
    if not tasks:
        return ""
    return f"; its tasks ran in processes of another test: {tasks[0].target}, given at {_short(tasks[0].place)}"


def _foreign(every: Sequence[Foreign]) -> Finding:
    first = max(every, key=lambda each: 0 if foreign.is_reused(each.kind) else each.count)
    others = [each for each in every if each is not first]
    what = foreign.told(first.kind, first.method, first.count)
    verb = "used only" if foreign.is_reused(first.kind) else "started"
    message = f"{verb} {what} at {_short(first.place)}"
    also = tuple(
        f"also {foreign.told(each.kind, each.method, each.count)} at {_short(each.place)}" for each in others[:4]
    )
    fix = foreign.fix(first.kind, first.method)
    return _note("SM502", first.method if ":" in first.method else first.kind, first.place, message, fix, also)


def _pinned(evidence: Evidence, others: Sequence[Launch]) -> Finding:
    launch = others[0]
    if launch.by_torch or ":" in launch.method or ":" in evidence.method:
        return _foreign([*foreign.pinned(others, evidence.method), *evidence.foreign])
    started = f"{foreign.processes(len(others))} with {launch.method}"
    forced = [each for each in evidence.overrides if each.wins and each.method == launch.method]
    if forced:
        place = forced[-1].place
        message = f"started {started}: set_start_method({launch.method!r}) at {_short(place)}"
        fix = "leave the start method to the leg; the test can read it from the start_method fixture"
        return _note("SM502", f"set_start_method({launch.method!r})", place, message, fix)
    what = f"get_context({launch.method!r})"
    fix = f"take the context from the mp_context fixture, or let the code accept one, instead of {what}"
    own = _pins(launch, [launch.place.file] if launch.place is not None else [])
    if own:
        also = tuple(f"or at {_short(each)}" for each in own[1:4])
        return _note("SM502", what, own[0], f"started {started}: {what} at {_short(own[0])}", fix, also)
    message = f"started {started} at {_short(launch.place)}"
    elsewhere = tuple(f"{what} is at {_short(each)}" for each in _pins(launch, user_files())[:4])
    return _note("SM502", what, launch.place, message, fix, elsewhere)


def _pins(launch: Launch, files: list[str]) -> list[Place]:
    """Return where `files` choose the context of `launch`."""
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
        f"in {launch.leg}, at {_short(launch.place)}"
    )
    fix = f"let the fixture {name!r} request start_method or mp_context: it is then built once per method"
    return _note("SM503", name, launch.place, message, fix)


_CHECK_FIX = "make the code work without the check, or name the supported methods in the marker"


def _declared_fork_only(evidence: Evidence) -> list[Finding]:
    if base(evidence.method) == "fork" or evidence.raised_at is None:
        return []
    check = method_check(evidence.raised_at, refusing=True)
    if check is None:
        return []
    does = "raises" if evidence.outcome == "failed" else "skips"
    message = f"the code checks the start method at {_short(check)} and {does} under {evidence.method}"
    level: Any = "cause" if evidence.outcome == "failed" else "note"
    return [
        Finding(
            "SM504", "declares-fork-only", level, "start method check", check.file, check.line, message, fix=_CHECK_FIX
        )
    ]


def _cause(
    code: str, path: str, place: Place | None, message: str, fix: str, evidence: tuple[str, ...] = ()
) -> Finding:
    return finding_at(code, path, place, message, evidence, fix)


def _note(code: str, path: str, place: Place | None, message: str, fix: str, evidence: tuple[str, ...] = ()) -> Finding:
    return finding_at(code, path, place, message, evidence, fix, "note")


def _short(place: Place | None) -> str:
    return f"{place.file}:{place.line}" if place else "a place that could not be found"
