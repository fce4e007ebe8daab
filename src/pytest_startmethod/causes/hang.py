"""SM403: what a hanging call waits for, from the stacks of the parent and its children."""

from __future__ import annotations

import linecache
import os
from collections.abc import Sequence

from ..model.evidence import Evidence
from ..model.finding import Finding, finding_at
from ..model.launch import Launch
from ..model.place import Place
from ..model.stack import Hanging, Stack
from ..source.callers import owner


def findings(evidence: Evidence) -> list[Finding]:
    """Return what the leg's call was waiting for at its time limit."""
    return [] if evidence.hanging is None else [explain(evidence.hanging, evidence.method)]


def waiting_for_locks(hanging: Hanging) -> list[str]:
    """Describe the children that wait for a lock, of threading, logging or C code."""
    return [
        _child(launch, stacks)[0]
        for launch, stacks in hanging.children
        if any("lock" in (waits_for(stack) or "") for stack in stacks if stack.main)
    ]


def user_place(stack: Stack) -> Place | None:
    """Return the user's innermost line on the stack, or None."""
    for file, line, function in stack.frames:
        if owner(file) == "user":
            return Place(os.path.abspath(file), line, function)
    return None


# Standard library file, its functions, and what a thread inside them waits for. The first match wins.
_WAITS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "multiprocessing/queues.py",
        ("_finalize_join",),
        "its queue's feeder thread to end: nobody reads what it has put",
    ),
    ("multiprocessing/util.py", ("_exit_function",), "its own children or queues to end"),
    ("multiprocessing/queues.py", ("put",), "room in a queue"),
    ("multiprocessing/queues.py", ("get",), "something to be put into a queue"),
    ("multiprocessing/managers.py", ("_callmethod",), "an answer of its manager"),
    ("multiprocessing/pool.py", ("join",), "the workers of a Pool to end"),
    ("multiprocessing/pool.py", ("get", "wait", "next"), "a result of a Pool"),
    ("multiprocessing/process.py", ("join",), "a process to end"),
    ("multiprocessing/synchronize.py", ("__enter__", "acquire"), "a multiprocessing lock"),
    ("multiprocessing/synchronize.py", ("wait",), "a multiprocessing event, condition or barrier"),
    ("multiprocessing/connection.py", ("accept",), "somebody to connect"),
    ("multiprocessing/connection.py", ("recv", "recv_bytes", "poll", "_recv", "wait"), "data from a pipe"),
    ("multiprocessing/connection.py", ("send", "send_bytes", "_send"), "room in a pipe: nobody reads it"),
    ("concurrent/futures/_base.py", ("result", "exception", "result_iterator"), "a future's result"),
    ("concurrent/futures/process.py", ("shutdown",), "the workers of an executor to end"),
    ("subprocess.py", ("wait", "communicate", "_wait"), "a subprocess"),
    ("logging/__init__.py", ("acquire", "handle"), "a lock of logging, as a fork may have copied it: held forever"),
    ("threading.py", ("join", "_wait_for_tstate_lock"), "a thread to end"),
    ("queue.py", ("get",), "something to be put into a queue"),
    ("queue.py", ("put",), "room in a queue"),
    ("threading.py", ("wait", "acquire", "__enter__"), "a lock, event or condition of threading"),
    ("popen_fork.py", ("poll", "wait"), "a process to end"),
    ("asyncio/", ("run", "run_until_complete", "run_forever"), "its event loop"),
)


def waits_for(stack: Stack) -> str | None:
    """Return what the stack waits for, judging by the frames above the user's innermost line; None if unknown."""
    above = []
    for file, line, function in stack.frames:
        if owner(file) not in ("stdlib", "ours"):
            above.append((file, line, function))
            break
        above.append((file, line, function))
    for part, functions, what in _WAITS:
        for file, _, function in above:
            path = file.replace(os.sep, "/")
            if function.rpartition(".")[2] in functions and f"/{part}" in path and owner(file) != "user":
                return what
    if above and owner(above[0][0]) == "user":  # acquiring a lock implemented in C adds no frame
        source = linecache.getline(*above[0][:2]).strip()
        if ".acquire(" in source or (source.startswith("with ") and "lock" in source.lower()):
            return "a lock"
        if "sleep(" in source:
            return "a sleep to end"
    return None


def explain(hanging: Hanging, method: str) -> Finding:
    """Return the finding for a call that exceeded its time limit."""
    parent = next((stack for stack in hanging.parent if stack.main), None)
    place = user_place(parent) if parent is not None else None
    what = waits_for(parent) if parent is not None else None
    message = f"the call had not finished after {hanging.seconds:g} s"
    if place is not None:
        message += f"; it is at {place.file}:{place.line} in {place.function}"
    if what is not None:
        message += f", waiting for {what}"
    evidence = []
    fix = ""
    for launch, stacks in hanging.children:
        said, advice = _child(launch, stacks)
        evidence.append(said)
        fix = fix or advice
    if not hanging.started:
        evidence.append("the leg started no process: whatever it waits for has nothing to do with the start method")
        fix = "give the wait a time limit, so that it fails with a reason"
    elif not hanging.children:
        evidence.append("no process that the leg started is alive")
    for stack in hanging.parent:
        if not stack.main and user_place(stack) is not None:
            evidence.append(f"thread {stack.thread}: {_at(stack)}")
    fix = fix or (
        f"see what {'the child' if hanging.children else 'the test'} waits for under {method}; "
        "give the wait a time limit, so that it fails with a reason"
    )
    return finding_at("SM403", "", place, message, evidence, fix, "cause" if hanging.started else "note")


def _child(launch: Launch, stacks: Sequence[Stack]) -> tuple[str, str]:
    """Describe a live child; also return a fix, or "" if none is known."""
    named = f"child {launch.pid} ({launch.target})"
    main = next((stack for stack in stacks if stack.main), None)
    if main is None:
        return f"{named}: alive; its stack could not be had", ""
    what = waits_for(main)
    advice = ""
    if what is not None and "feeder thread" in what:
        advice = "read the queue until it is empty before join(): a child cannot end while its data is in the pipe"
    elif what == "something to be put into a queue" and launch.is_worker:
        return f"{named}: an idle worker", ""
    return f"{named}: {_at(main)}", advice


def _at(stack: Stack) -> str:
    place, what = user_place(stack), waits_for(stack)
    where = f"at {place.file}:{place.line} in {place.function}" if place is not None else "outside your code"
    return where + (f", waiting for {what}" if what is not None else "")
