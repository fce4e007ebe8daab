"""A plugin for nested sessions in which a leg's time limit expires as soon as the leg stands still.

A limit in seconds would have to allow for whatever the leg does before it hangs, on a machine of any speed and load.
The plugin replaces only the clock: it sends the clock's signal once all threads of the session's processes have slept
for a while without waking. Elsewhere than on Linux, and for limits of a minute or more, the clock is the real one.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator

PAUSE_SECONDS = 0.25
"""Time between two looks. Nothing that a session with this plugin waits for comes by itself after so long."""
ARM, DISARM = b"1", b"0"


def pytest_configure(config) -> None:
    from pytest_startmethod.activation import clock, timers

    if sys.platform != "linux":
        return
    # A process, since a thread would make every fork one of a multi-threaded process. Its environment is empty, so
    # that it counts as nothing that a session leaves behind.
    command = [sys.executable, "-I", "-S", __file__, str(timers.PosixTimer.number)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, env={})
    pipe = watcher.stdin
    assert pipe is not None
    original_start, original_stop = clock.Clock.start, clock.Clock.stop

    def start(self: clock.Clock, seconds: float, expire: Callable[[], None]) -> bool:
        is_replaced = 0 < seconds < clock.AUTO_SECONDS
        begun = original_start(self, clock.AUTO_SECONDS if is_replaced else seconds, expire)
        pipe.write(ARM if is_replaced and begun else DISARM)
        return begun

    def stop(self: clock.Clock) -> None:
        pipe.write(DISARM)
        original_stop(self)

    def undo() -> None:
        clock.Clock.start, clock.Clock.stop = original_start, original_stop  # type: ignore[method-assign]
        pipe.close()
        watcher.kill()  # a child that still runs may hold the pipe open
        watcher.wait()

    clock.Clock.start, clock.Clock.stop = start, stop  # type: ignore[method-assign]
    config.add_cleanup(undo)


# -- the watching process --------------------------------------------------------------------------------------------


def watch(session: int, number: int) -> None:
    """Send the signal `number` to the process `session` once it stands still while armed.

    Its main thread sleeps in a system call then, which the signal interrupts: it cannot be lost.
    """
    armed, last = False, None
    while os.getppid() == session:
        if select.select([0], [], [], PAUSE_SECONDS)[0]:
            told = os.read(0, 1000)
            if not told:
                return
            armed, last = told.endswith(ARM), None
        elif armed:
            seen = sleeping(session)
            if seen is not None and seen == last:
                os.kill(session, number)
                armed = False
            last = seen


def sleeping(session: int) -> dict[str, list[str]] | None:
    """Return how often each thread of the session's processes has slept; None if one is awake."""
    found = {}
    for pid in processes(session):
        for task in entries(f"/proc/{pid}/task"):
            status = dict(line.split(":", 1) for line in text_of(f"{task}/status").splitlines())
            if status and status["State"].split()[0] not in "SZT":
                return None
            found[task] = [value for name, value in status.items() if name.endswith("ctxt_switches")]
    return found


def processes(session: int) -> list[int]:
    """Return the process `session` and its descendants, except for this one."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        fields = text_of(f"/proc/{entry}/stat").rpartition(")")[2].split()
        if fields and int(entry) != os.getpid():
            parents[int(entry)] = int(fields[1])
    found = [session]
    for pid in found:
        found += [each for each, parent in parents.items() if parent == pid]
    return found


def entries(directory: str) -> Iterator[str]:
    try:
        yield from (f"{directory}/{name}" for name in os.listdir(directory))
    except OSError:
        return  # it has ended


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    watch(os.getppid(), int(sys.argv[1]))
