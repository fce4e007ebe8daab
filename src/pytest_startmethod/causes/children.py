"""SM402, SM404, SM405, SM407 and SM408: how children end, and how the test notices."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator, Sequence

from ..model.child_report import ChildReport, Unreturned
from ..model.evidence import Evidence, Parent
from ..model.finding import Finding, finding_at
from ..model.launch import Launch
from ..model.methods import base
from ..model.observed import Where
from ..model.place import Place, where
from ..model.unloaded import Unloaded
from ..source.callers import owner
from . import hang, registries
from .context import at, observed_in, place_of
from .loading import load_finding


def not_returned(evidence: Evidence) -> Iterator[Finding]:
    """Yield why results did not come back, and why children could not start processes."""
    observed = [each.observed for each in evidence.tasks] + [each.observed for each in evidence.launches]
    for report in evidence.reports:
        if report.phase == "result" and report.result is not None:
            yield registries.reducer(report, observed) or _result_not_sent(report)
        start = failed_start(report)
        if start is not None:
            yield start
    yield from (result_not_loaded(message, evidence.parent) for message in evidence.unreturned)


def crashes(evidence: Evidence) -> Iterator[Finding]:
    """Yield the children that crashed or exited outside Python's control (SM404)."""
    by_pid = {each.pid: each for each in evidence.launches if each.pid is not None and not each.in_script}
    unready = {each.method for each in evidence.reports if each.error and each.phase in ("start-up", "unpickling")}
    for each in by_pid.values():
        if each.exit_code == 1 and each.method in unready:  # such as a pool's next worker: nobody knows it better
            continue
        server_ended = evidence.server is not None and not evidence.server.running
        finding = crash(each, [report for report in evidence.reports if report.pid == each.pid], server_ended)
        if finding is not None:
            yield finding
    for report in evidence.reports:
        if report.phase == "crash" and report.pid not in by_pid:
            who = f"a {report.method} child of the child {report.starter} (pid {report.pid})"
            yield _crashed(who, report.method, report.stack, None)


# -- starts that fail in a child -------------------------------------------------------------------------------------

_LOCAL = re.compile(r"Can't (?:pickle|get) local object (?:'(?P<a>[^']+)'|<(?P<kind>function|class) '?(?P<b>[^ ']+))")


def failed_start(report: ChildReport) -> Finding | None:
    """Return the finding for a process that a child of the leg failed to start, or None.

    The child's arguments are not available here, only pickle's error message.
    """
    error = report.error
    if error is None or report.phase != "run" or report.method is None:
        return None
    dumped = [each for each in error.frames if owner(each.file) == "stdlib" and each.function.endswith("_launch")]
    own = [each for each in error.frames if owner(each.file) == "user"]
    if not dumped or not own:
        return None
    place = Place(own[-1].file, own[-1].line)
    text = f"the {report.method} child {report.process} (pid {report.pid}) could not start a process of its own"
    local = _LOCAL.search(error.message)
    if local is not None:
        name = (local["a"] or local["b"]).rpartition(".")[2]
        code = "SM102" if local["kind"] == "class" else "SM101"
        fix = f"move `{name}` to module level, and pass what it uses from around it as arguments"
        if name == "<lambda>":
            fix = "replace the lambda by a function defined with `def` at module level"
        return finding_at(code, "", place, f"{text}: {error!s}", (), fix)
    if error.type not in ("TypeError", "PicklingError", "_pickle.PicklingError", "pickle.PicklingError"):
        return None
    fix = "make in the new process what cannot be pickled; pytest_startmethod.explain(target, args) finds it"
    return finding_at("SM103", "", place, f"{text}: {error!s}", (), fix)


# -- SM404 -----------------------------------------------------------------------------------------------------------

_ENDED_ON_PURPOSE = {"SIGTERM", "SIGINT", "SIGHUP"}
"""Sent by ``terminate()``, by a Pool that shuts down, and by Ctrl-C or a closed terminal."""
_SENT = {"SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGQUIT"}
"""Signals that somebody sends, or a timer, and no native code."""
_STACK_LINE = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)')


def crash(launch: Launch, reports: Sequence[ChildReport], server_ended: bool = True) -> Finding | None:
    """Return the finding for a child that crashed or exited outside Python's control, or None.

    `server_ended` says that the forkserver is known to be gone: multiprocessing then reports exit code 255.
    """
    code = launch.exit_code
    if code == 0 or any(report.phase not in ("crash", "stack") for report in reports):
        return None
    stack = next((report.stack for report in reports if report.phase == "crash"), ())
    who = f"the {launch.method} child {launch.target} (pid {launch.pid})"
    if code is None:
        return _crashed(who, launch.method, stack, launch.place) if stack else None
    place, lines = _user_line(stack)
    started = () if launch.place is None else (f"started at {launch.place.file}:{launch.place.line}",)
    if code < 0:
        name = _signal_name(-code)
        if name in _ENDED_ON_PURPOSE or (name == "SIGKILL" and launch.killed):
            return None
        message = f"{who} was killed by {name}, exit code {code}"
        if name == "SIGKILL":
            fix = "look for who kills it: Process.kill(), a supervisor, or the kernel when memory runs out"
            return finding_at("SM404", "", launch.place, message, started, fix, "note")
        if name in _SENT:
            fix = f"look for who sends {name}"
            if launch.method != "fork":
                fix += ", and for a handler that the parent has: a child of this method does not inherit it"
            return finding_at("SM404", "", launch.place, message, started, fix)
        return finding_at(
            "SM404", "", place or launch.place, message, (*lines, *started), _crash_fix(launch.method, place)
        )
    if code == 255 and launch.method == "forkserver" and server_ended:
        message = f"{who} has no exit code: the forkserver process that it came from has ended"
        fix = "look for who ends the forkserver: a signal to the process group, or a loop over all child processes"
        return finding_at("SM404", "", launch.place, message, started, fix)
    message = f"{who} ended with exit code {code} and no exception: os._exit({code}) or native code ended it"
    if code == 1:  # also Python's own exit code after an exception that it could not report
        message = (
            f"{who} ended with exit code 1 and reported nothing: an interrupt, os._exit(1) or native code ended it"
        )
    fix = "look for os._exit() in the child; it skips finally blocks, buffered output and exit handlers"
    return finding_at("SM404", "", launch.place, message, (*lines, *started), fix)


def _crashed(who: str, method: str | None, stack: Sequence[str], started: Place | None) -> Finding:
    """Return the finding for a crash with an unknown exit code, from faulthandler's output."""
    place, lines = _user_line(stack)
    title, facts = (lines[0], lines[1:]) if lines else ("a fatal error", ())
    message = f"{who} crashed: {title.removeprefix('Fatal Python error: ')}"
    if started is not None:
        facts = (*facts, f"started at {started.file}:{started.line}")
    return finding_at("SM404", "", place or started, message, facts, _crash_fix(method, place))


def _crash_fix(method: str | None, place: Place | None) -> str:
    where = "the line above" if place is not None else "the native code that the child runs"
    fix = f"look at {where}: native code that holds threads, handles or memory of its parent is the usual cause"
    return fix + (", and spawn gives it a clean start" if method == "fork" else "")


def _in_child(frame: re.Match[str]) -> bool:
    """Return whether a frame is the child's own. Below ``_bootstrap``, a forked child's stack is its parent's."""
    return frame["function"] != "_bootstrap"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _user_line(stack: Sequence[str]) -> tuple[Place | None, tuple[str, ...]]:
    """Return the user's innermost line in faulthandler's output, and the lines worth showing."""
    found = list(itertools.takewhile(_in_child, filter(None, map(_STACK_LINE.match, stack))))
    shown = [f"{m['file']}:{m['line']} in {m['function']}" for m in found if owner(m["file"]) in ("user", "installed")]
    place = next((Place(m["file"], int(m["line"])) for m in found if owner(m["file"]) == "user"), None)
    title = [line for line in stack if line.startswith(("Fatal Python error", "Windows fatal"))][:1]
    return place, (*title, *shown[:5])


# -- SM407 -----------------------------------------------------------------------------------------------------------


def _result_not_sent(report: ChildReport) -> Finding:
    result, work, raised = report.result, report.work, report.error
    assert result is not None
    task = "a task" if work is None else work.name
    what = f"the {result.of} that {task} raised" if result.raised else f"the result of {task}"
    part = result.part.name if result.part is not None else f"a {result.type}"
    if result.path:
        holds = f"{'its ' if result.raised else ''}{('result' + result.path) if not result.raised else result.path[1:]}"
        message = f"{what} did not come back: {holds} is {part}, which cannot be pickled"
    else:
        message = f"{what} did not come back: {part} cannot be pickled"
    facts = [] if raised is None else [str(raised)]
    if result.raised:
        facts.append(f"the exception said: {result.text}")
        fix = "raise an exception whose args and attributes are plain data"
    elif result.part is not None:
        fix = "return what the function computes, or a function at the top level of a module"
    else:
        fix = "return plain data: take what the parent needs out of the object before returning it"
    place = None if work is None or work.file is None else Place(work.file, work.line or 1)
    path = ("exception" if result.raised else "result") + result.path
    return finding_at("SM407", path, place, message, tuple(facts), fix)


_AFTER = {
    "Pool": "the Pool's result thread ended with it: whoever waits for a result waits forever",
    "ProcessPoolExecutor": "the executor is broken by it: all its futures fail with BrokenProcessPool",
}


def result_not_loaded(message: Unreturned, parent: Parent | None = None) -> Finding:
    """Return the finding for a message from a child that the parent could not load."""
    inner = load_finding(Unloaded(message.raised), parent or Parent())
    what = "a message of a child" if message.receiver is None else f"what a task gave its {message.receiver}"
    after = () if message.receiver is None else (_AFTER[message.receiver],)
    text = f"{what} was sent and does not load in the parent: {message.raised!s}"
    place = None if inner.file is None else Place(inner.file, inner.line or 1)
    return finding_at("SM407", "result", place, text, (*after, *inner.evidence), inner.fix)


# -- starts that fail here -------------------------------------------------------------------------------------------


def without_directory(evidence: Evidence) -> list[Finding]:
    """Return why no process starts in a working directory that has been removed.

    A fresh child is told where to work (``spawn.get_preparation_data``), and a forked one is just there.
    """
    error = evidence.raised[0] if evidence.raised else None
    if error is None or error.type != "FileNotFoundError" or not error.frames:
        return []
    last = error.frames[-1]
    if last.function.rpartition(".")[2] != "get_preparation_data" or owner(last.file) != "stdlib":
        return []
    message = (
        "the working directory has been removed: start() asks for it to tell the child where to work, and raised "
        f"{error!s}; a forked child is there without asking"
    )
    fix = "start processes while the working directory exists: leave the directory before it is removed"
    return [finding_at("SM306", "os.getcwd()", evidence.raised_at, message, (), fix)]


# -- symptoms -------------------------------------------------------------------------------------------------------


def failed_elsewhere(evidence: Evidence) -> list[Finding]:
    """Return the starts that failed while the test died of a different error (SM408)."""
    if evidence.failure is not None:
        return []
    found = []
    for launch in [*evidence.launches, *(each for each in evidence.inherited if each.method == evidence.method)]:
        if launch.error is None or launch.in_script or _tells(evidence.text, launch.error):
            continue
        at = f"in thread {launch.thread!r}" if launch.thread else f"at {where(launch.place)}"
        if launch.fixture is not None:
            at += f", in the fixture {launch.fixture.name!r}"
        message = f"start() of {launch.target} failed {at}: {launch.error}"
        if evidence.error:
            message += f". The test's own error ({evidence.error}) is a consequence"
        fix = "let the failure of start() reach the test: check it where the thread or the fixture is waited for"
        found.append(finding_at("SM408", "", launch.place, message, (), fix))
    return found


def _tells(text: str, error: str) -> bool:
    """Return whether a failure's text already contains `error`.

    testtools and others turn the exception into text, in which ``"PicklingError: ..."`` is ``"_pickle.PicklingError:
    ..."``.
    """
    return error in text


def pools_given_up(evidence: Evidence) -> list[Finding]:
    """Return the Pools whose workers died before running a task (SM402)."""
    # The first worker of each pool was started where the user made the pool; the others, in a thread of the pool.
    pools: dict[int, tuple[Launch, str]] = {}
    for launch in evidence.launches:
        if launch.pool is not None and launch.pool.given_up:
            pools.setdefault(id(launch.pool), (launch, launch.pool.given_up))
        elif launch.pool is not None and launch.pool.exits and evidence.error == "ZeroDivisionError":
            # Pool.map divides by its number of workers, which is 0 if all have died and none has been replaced yet.
            text = "the workers of this Pool die before running a task, and there was none just then to share the work"
            pools.setdefault(id(launch.pool), (launch, text))
    fix = "make sure that a worker can import the task's module and run the initializer: see the cause above"
    return [finding_at("SM402", launch.target, launch.place, text, (), fix) for launch, text in pools.values()]


def held_by_threads(evidence: Evidence) -> list[Finding]:
    """Return the finding for a forked child that waits for a lock another thread may have held (SM405)."""
    names = sorted({name for launch in evidence.launches for name in launch.threads})
    if base(evidence.method) != "fork" or evidence.outcome != "failed" or not names:
        return []
    fix = "start the processes before the threads, or use spawn or forkserver, whose children inherit no locks"
    waiting = hang.waiting_for_locks(evidence.hanging) if evidence.hanging is not None else []
    if not waiting:
        stuck = any(each.threads and (each.exit_code is None or each.exit_code < 0) for each in evidence.launches)
        held = [each.held[0] for each in observed_in(evidence) if each.held]
        return [_held(path, read, names, fix) for path, read in held if stuck or _may_fail(read)]
    message = (
        f"the child was forked while other threads ran ({', '.join(names)}) and waits for a lock: a fork copies a lock "
        "that another thread holds, and nothing in the child will ever release it"
    )
    place = next((launch.place for launch in evidence.launches if launch.threads), None)
    return [finding_at("SM405", "", place, message, waiting, fix)]


def _may_fail(read: Where) -> bool:
    """Return whether the line acquires a lock and may go on without it: ``lock.acquire(timeout=1)``."""
    return re.search(r"\bacquire\((?!\))", place_of(read).source) is not None


def _held(path: str, read: Where, names: Sequence[str], fix: str) -> Finding:
    message = (
        f"{path} was held when the child was forked, while other threads ran ({', '.join(names)}): the child has a "
        "copy that nothing in it will ever release, and cannot acquire it"
    )
    return finding_at("SM405", path, place_of(read), message, [at("read", read)], fix)
