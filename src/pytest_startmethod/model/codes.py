"""The catalogue of causes: the one place that holds the codes, their names and what each is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cause:
    """One row of the catalogue."""

    code: str
    name: str
    what: str
    """One sentence, without a full stop, in the words of the documentation."""
    why_fork: str
    """Why the same code works under fork: one sentence, without a full stop."""


_TABLE: Final = """
SM101 local-function
    a lambda, nested function or other function that cannot be imported by name
    the child is a copy of the parent and has the function without importing it
SM102 local-class
    an instance of a class, or a class, that is defined inside a function
    the child is a copy of the parent and has the class without importing it
SM103 unpicklable-object
    an object that cannot be shared with another process: a lock, file, thread, connection, generator, module
    the child is a copy of the parent, and nothing is pickled
SM104 shadowed-name
    the importable name leads to another object
    the child is a copy of the parent, and no name is looked up
SM105 pickling-raised
    the object's own pickling code raised
    nothing is pickled, so that code never runs
SM106 foreign-primitive
    a lock, queue or event of another context, or shared in another way than by starting a process
    the child is a copy of the parent and has the primitive already
SM107 too-deep
    the recursion limit was reached while pickling
    nothing is pickled, so depth does not matter
SM108 pickling-changes-object
    pickling changes the parent's own object: its __getstate__ works on self.__dict__ itself
    nothing is pickled, so that the method is not called
SM201 module-not-importable
    the child cannot import a module that the target or an argument comes from
    the child is a copy of the parent and has the module already
SM202 name-missing-in-child
    the module imports in the child, and the name is not there
    the child is a copy of the parent and has the object without looking up its name
SM203 unpickling-raised
    the object pickles in the parent and does not load in the child
    the child is a copy of the parent, and nothing is loaded
SM204 copy-differs
    what arrives in the child is not what was sent: the copy lacks an attribute, or is another object
    the child has the parent's object itself
SM301 global-state
    a module global that the code reads has another value, or none, in a fresh child
    the child is a copy of the parent and has the value that the parent has at that moment
SM302 class-state
    a class attribute or registry that the code reads has another value in a fresh child
    the child is a copy of the parent and has its classes as they are at that moment
SM303 patch-lost
    what the parent replaced, by monkeypatch, mock.patch or an assignment, is the original in a fresh child
    the child is a copy of the parent, patches included
SM304 stale-environment
    os.environ was changed after the forkserver had started
    the child is a copy of the parent and has its environment
SM305 logging-lost
    handlers or levels of loggers were configured in the parent only
    the child is a copy of the parent and has its logging configuration
SM306 process-state-lost
    the code uses state of the process itself: signal handlers, locale, decimal context, context variables
    the child is a copy of the parent and starts with all of it
SM307 unshared-primitive
    a Lock, Value, Queue or Event that is made at import: each fresh child makes its own
    the child is a copy of the parent and has the one that the parent made
SM308 write-lost
    the child changed a global or captured object, and the parent reads its own
SM309 exit-handler
    an atexit handler of a module that the child imports runs when the child ends
    the child ends without running exit handlers
SM401 main-guard
    a script starts processes outside `if __name__ == "__main__":`
    the child is a copy of the parent, and no line of the script runs a second time
SM402 pool-crash-loop
    the workers of a Pool die before they can run a task, and the Pool keeps replacing them forever
SM403 hang
    the call did not finish within its time limit
SM404 child-crashed
    a signal, os._exit or native code ended the child
SM405 fork-with-threads
    a forked child waits for what only a thread of the parent could give
SM407 unpicklable-result
    a task's result or exception did not come back to the parent
SM408 start-failed-elsewhere
    start() failed in another thread, a fixture or a clean-up path, and the test died of a symptom
SM409 child-late
    nothing is lost: the child was still importing when the test gave up
    the child is a copy of the parent and imports nothing again
SM501 vacuous
    the leg passed and started no process with its method
    the leg says nothing about its start method
SM502 pinned-method
    the code asks for a fixed context
    the process starts with the pinned method whatever the leg's is
SM503 fixture-started-earlier
    a wider-scoped fixture started the processes under another method
    the fixture is built once and outlives the leg that built it
SM504 declares-fork-only
    the code or the test checks the start method and refuses
    the check lets fork through
SM601 forkserver-socket-lost
    the forkserver's socket lay in a temporary directory that was removed
    no server and no socket is needed to start a child
SM602 forkserver-path-too-long
    the temporary directory's path is too long for the forkserver's socket
    no server and no socket is needed to start a child
SM603 process-tree
    the code looks at the process tree, which is another one with a forkserver
    the child is a direct child of its parent, and there is no server
SM604 stale-server
    the child has what the forkserver was started with: its standard streams, its ignored signals
    the child is a copy of the parent and has its streams and signals as they are at that moment
"""
"""Code, name, what it is and, where fork hides it, why."""

CAUSES: Final[dict[str, Cause]] = {
    row[0]: Cause(*row) for row in re.findall(r"^(SM\d+) (.+)\n    (.+)(?:\n    (.+))?$", _TABLE, re.MULTILINE)
}

DOCS: Final = "https://pytest-startmethod.readthedocs.io/en/latest/"
"""Where the documentation is."""


def url(code: str) -> str | None:
    """Return the address of the page on a cause; None for a code that another plugin's hook made up."""
    return f"{DOCS}causes/{code}/" if code in CAUSES else None
