"""What other tools say of the same calls: verdict, path, line and fix, and what each costs.

    python benchmarks/peers.py              # dill and ray are asked if they are installed
    python benchmarks/peers.py ray          # only this peer

The cases are `tests/zoo/pickling_cases.py`: calls with a known answer, of which some do not pickle. A peer has the
verdict if it says so of exactly those; the path if it names the attribute, index or cell that leads to the object; the
line if it names the file and line where that is made. It has ten seconds for a case. Peers:

- interpreter: `ForkingPickler.dumps`, with the notes that Python 3.14 adds to the exception;
- dill.detect: `dill.detect.errors` and `badobjects`;
- ray: `inspect_serializability`, which pickles by value;
- this plugin: `explain`.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / each) for each in ("src", "tests/zoo", "tests")]

import pickling_cases  # noqa: E402 - found through the path above

from pytest_startmethod import explain  # noqa: E402


def interpreter(given: pickling_cases.Given) -> str | None:
    """Return the exception's text and notes, or None if the call pickles."""
    try:
        ForkingPickler.dumps((given.target, given.args, given.kwargs))
    except Exception as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    return None


def dill_detect(given: pickling_cases.Given) -> str | None:
    """Return what dill calls an error and a bad object."""
    import dill.detect

    call = (given.target, given.args, given.kwargs)
    if (error := dill.detect.errors(call)) is None:
        return None
    return f"{error}\n{dill.detect.badobjects(call, depth=1)}"


def ray_inspect(given: pickling_cases.Given) -> str | None:
    """Return what ray prints of a call that it cannot serialize."""
    from ray.util import inspect_serializability

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        fine, _ = inspect_serializability((given.target, given.args, given.kwargs), name="call", depth=5)
    return None if fine else re.sub(r"\x1b\[\d*m", "", printed.getvalue())


def plugin(given: pickling_cases.Given) -> str | None:
    """Return the findings that keep the call from starting."""
    found = explain(given.target, given.args, given.kwargs, task=given.task)
    return "\n".join(str(each) for each in found if each.code.startswith("SM1")) or None


Ask = Callable[[pickling_cases.Given], "str | None"]
SECONDS = 10

PEERS: dict[str, Ask] = {
    "interpreter": interpreter,
    "dill.detect": dill_detect,
    "ray": ray_inspect,
    "this plugin": plugin,
}


def main() -> None:
    """Ask each peer about each case, and print a table."""
    modules = {"dill.detect": "dill", "ray": "ray"}
    print(f"Python {sys.version.split()[0]}, {len(pickling_cases.CASES)} cases")
    print(f"{'':14}{'verdict':>9}{'path':>9}{'line':>9}{'errors':>9}{'median':>12}{'longest':>12}")
    for name in sys.argv[1:] or PEERS:
        ask = PEERS[name]
        if name in modules:
            try:
                __import__(modules[name])
            except ImportError:
                print(f"{name:14} is not installed")
                continue
        print(row(name, ask))


def answer(connection: Connection, ask: Ask, case: pickling_cases.Case) -> None:
    """Ask about one case in a process of its own: some peers hang, and some close what they look at."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        given = case.make()
    except ImportError:
        connection.send((None, 0.0, False))
        return
    start = time.perf_counter()
    try:
        said, failed = ask(given), False
    except Exception:
        said, failed = None, True
    connection.send((said, (time.perf_counter() - start) * 1000, failed))


def row(name: str, ask: Ask) -> str:
    """Ask about each case; return the line of the table."""
    fork = multiprocessing.get_context("fork")
    right = path = line = errors = asked = bad = marked = 0
    took = []
    for case in pickling_cases.CASES.values():
        ours, theirs = fork.Pipe()
        process = fork.Process(target=answer, args=(theirs, ask, case))
        process.start()
        theirs.close()
        try:
            said, milliseconds, failed = ours.recv() if ours.poll(SECONDS) else (None, SECONDS * 1000, True)
        except EOFError:  # it crashed
            said, milliseconds, failed = None, 0.0, True
        process.kill()
        process.join()
        if not milliseconds and not failed:
            continue
        asked += 1
        took.append(milliseconds)
        errors += failed
        right += not failed and (said is not None) == bool(case.codes)
        if case.codes:
            bad += 1
            path += said is not None and any(each in said for each in case.paths)
            marked += bool(case.lines)
            line += said is not None and any(f"{pickling_cases.FILE}:{number}" in said for number in case.lines)
    cells = [f"{right}/{asked}", f"{path}/{bad}", f"{line}/{marked}", str(errors)]
    times = [f"{statistics.median(took):.2f} ms", f"{max(took):.0f} ms"]
    return f"{name:14}" + "".join(f"{cell:>9}" for cell in cells) + "".join(f"{each:>12}" for each in times)


if __name__ == "__main__":
    main()
