"""The parent's side of a fresh child: whether a payload loads there, which object does not, and which values it has.

A dry run's bytes go to a fresh interpreter, prepared as by ``multiprocessing.spawn.prepare``, which forks for each
question: nothing is loaded in this process, and no question sees the effects of another. The child reports the failing
operation of the pickle; the bytes tell which object it belongs to.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..child import copied, events, observer, process_state, values
from ..child import loader as load_child
from ..launches import reports
from ..model.payload import Payload
from ..model.unloaded import Unloaded
from ..model.wire import Fields, Json
from ..pickling.machine import paths

_json = json.JSONEncoder(separators=(",", ":")).encode
_parsed = json.JSONDecoder().decode
"""Used in place of ``json.dumps`` and ``json.loads``, which the user's test may have patched."""
SECONDS = 10.0
"""Time limit for one question, in seconds, including imports of the user's modules."""


# -- the fresh child -------------------------------------------------------------------------------------------------

_SOURCE = """
import marshal, os, struct, sys
if sys.platform == "win32":
    import msvcrt
    msvcrt.setmode(0, os.O_BINARY)
elif os.fork():  # the user's code may list pytest's children: this one is an orphan
    os._exit(0)
def block():
    data, size = b"", struct.unpack("!Q", os.read(0, 8))[0]
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit()
    return data
modules = {}
for name, file in %r:
    modules[name] = {"__name__": name, "__file__": file}
    exec(marshal.loads(block()[16:]), modules[name])
modules["loader"]["main"](modules["events"]["exception_as_dict"], modules)
"""
_FILES = [(module.__name__.rpartition(".")[2], module.__file__ or "")
          for module in (events, load_child, values, copied, process_state, observer)]  # fmt: skip
_code = functools.lru_cache(reports.compiled)
CHILD = "Process-1"
"""The process's name, so that code which checks for the main process behaves as in a real child."""


class Loader:
    """A fresh child that reports what would load and which values it has. Use it as a context manager.

    It sees what a child started now would see, prepared with ``spawn.get_preparation_data``. Leaving the context ends
    its process, which is an orphan, and everything that it started.
    """

    def __init__(self, *, seconds: float = SECONDS, method: str = "spawn") -> None:
        self.seconds = seconds
        self.method = method
        self._process: subprocess.Popen[bytes] | None = None
        self._main: Json = {}
        self._greeted = self._ready = False

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, _cls: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def predict(self, payload: Payload) -> tuple[Unloaded, ...]:
        """Return the parts of `payload` that do not load, in loading order; empty if everything loads.

        Also empty if there is no answer: the child crashed, timed out or could not be started.
        """
        for _ in range(2):  # without fork, each child answers once
            try:
                answer = self._ask(payload)
            except (OSError, EOFError, ValueError, subprocess.SubprocessError):
                self.close()
                continue
            return tuple(self._unloaded(answer, payload))
        return ()

    def account(self, payload: Payload, sent: Json) -> Json | None:
        """Return an account (`child.copied.account`) of `payload` as it arrives, or None if it does not load.

        `sent` is the account of what was sent; see `pickling.sent`.
        """
        try:
            answer: Json | None = self._ask(payload, account=sent["modules"], where=sent["where"]).get("account")
        except (OSError, EOFError, ValueError, subprocess.SubprocessError):
            self.close()
            return None
        return answer

    def open(self) -> None:
        """Start the child's process if there is none, without waiting for it. Never raises."""
        try:
            self._launch()
        except (OSError, ValueError, subprocess.SubprocessError):
            self.close()

    def begin(self, question: Fields) -> None:
        """Send a question about values (see `observer.answer`). `finish` returns the answer.

        This way, two children can be asked at once. If ``question["main"]`` is true, the child first runs the parent's
        main module, as a real one would.
        """
        self.open()
        try:
            self._greet()
            main = self._main if question["main"] else {}
            prepare = {**question["prepare"], **main, "name": CHILD}
            self._send(_json({**question, "prepare": prepare, "seconds": self.seconds}).encode())
            self._send(b"")
        except (OSError, AssertionError, ValueError, TypeError):
            self.close()

    def finish(self) -> Fields | None:
        """Return the answer to the question sent by `begin`, or None."""
        try:
            self._await()
            answer: Fields = _parsed(self._receive().decode())
        except (OSError, EOFError, AssertionError, ValueError):
            self.close()
            return None
        return answer

    def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        # It leads its own process group, so whatever the user's modules started ends with it.
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        if hasattr(os, "killpg"):  # pytest may be process 1 of a container, which adopts orphans
            cpython.wait_for(-process.pid)

    def _is_running(self) -> bool:
        if self._process is None:
            return False
        if not hasattr(select, "poll"):  # Windows
            return self._process.poll() is None
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, 0)  # reports POLLHUP once nobody holds the other end
        return not poll.poll(0)

    def _ask(self, payload: Payload, **more: object) -> Fields:
        self._start()
        # running the main module again has side effects, so do it only for payloads that refer to it
        main = self._main if b"__main__" in payload.data else {}
        # the child may be older than the last change of sys.path or of the working directory
        prepare = {**mp.preparation(), **main}
        question = {"buffers": payload.buffers, "prepare": prepare, "seconds": self.seconds, **more}
        self._send(_json(question).encode())
        self._send(payload.data)
        answer: Fields = _parsed(self._receive().decode())
        return answer

    def _start(self) -> None:
        self._launch()
        self._greet()
        self._await()

    def _launch(self) -> None:
        """Start the child's process if there is none. Raises what starting a process raises."""
        if self._is_running():
            return
        self._main = mp.main_module()
        self._greeted = self._ready = False
        self._process = subprocess.Popen(
            [os.fsdecode(mp.STDLIB.spawn.get_executable()), *cpython.interpreter_flags(), "-c", _SOURCE % (_FILES,)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def _greet(self) -> None:
        """Send a new child its code and multiprocessing's preparation data."""
        if self._greeted:
            return
        self._greeted = True
        for _, file in _FILES:
            self._send(_code(file))
        prepare = {**mp.preparation(), "name": CHILD, "start_method": self.method}
        self._send(_json(prepare).encode())

    def _await(self) -> None:
        if not self._ready:
            assert self._process is not None
            self._receive()
            self._ready = True
            if hasattr(os, "fork"):
                self._process.wait()  # it has forked and ended

    def _send(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        load_child.write_block(self._process.stdin.fileno(), data)

    def _receive(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + 2 * self.seconds
        if sys.platform == "win32":  # pipes cannot be waited for
            timer = threading.Timer(2 * self.seconds, self._process.kill)
            timer.daemon = True
            timer.start()
            try:
                block = load_child.read_block(descriptor)
            finally:
                timer.cancel()
            if block is None:
                raise EOFError
            return block
        size = struct.unpack("!Q", _read(descriptor, 8, end))[0]
        return _read(descriptor, size, end)

    def _unloaded(self, answer: Fields, payload: Payload) -> Iterable[Unloaded]:
        if answer.get("error") is None:
            return
        empty = sorted({*answer.get("stand_ins", ()), *(("arrays",) if payload.buffers else ())})
        facts = (f"approximate: {' and '.join(empty)} were empty in this trial",) if empty else ()
        broken = answer.get("broken") or []
        told = reports.raised_from(answer["error"])
        if answer.get("start_up") or not broken:
            yield Unloaded(told, method=self.method, start_up=bool(answer.get("start_up")), facts=facts)
            return
        found = paths(payload, [each["number"] for each in broken])
        for each in broken:
            names = each["global"]
            yield Unloaded(
                reports.raised_from(each["error"]),
                method=self.method,
                path=found.get(each["number"], ""),
                global_name=None if names is None else (str(names[0]), str(names[1])),
                facts=facts,
            )


def _read(descriptor: int, size: int, end: float) -> bytes:
    parts = []
    while size:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        part = os.read(descriptor, min(size, 1 << 20)) if ready else b""
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# -- a single prediction ----------------------------------------------------------------------------------------------


def predict(payload: Payload, *, method: str = "spawn", seconds: float = SECONDS) -> tuple[Unloaded, ...]:
    """Return the parts of `payload` that a child started now could not load; see `Loader.predict`."""
    with Loader(seconds=seconds, method=method) as loader:
        return loader.predict(payload)
