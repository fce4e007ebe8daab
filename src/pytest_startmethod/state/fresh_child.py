"""Would this load in a spawned child, and if not, which object and by which path: asked of a fresh child.

The bytes of a dry run go to a fresh interpreter that is prepared as ``multiprocessing.spawn.prepare`` would and forks
for each question: nothing is loaded here, no question sees what another did. Where it failed is an operation of the
pickle; which object that is, the bytes themselves tell.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickletools
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from .._compat import cpython
from ..causes.children import Parent, Unloaded, load_finding
from ..child import loader as load_child
from ..child import observer, process_state, reporter, values
from ..launches import reports
from ..model.finding import Finding
from ..model.payload import Form, Payload
from ..pickling.packing import pack
from ..pickling.walk import key_text, shorten

_json = json.JSONEncoder(separators=(",", ":")).encode
_parsed = json.JSONDecoder().decode
"""As ``json.dumps`` and ``json.loads``, which the user's test may have patched."""
SECONDS = 10.0
"""How long one question may take, imports of the user's modules included."""


# -- the fresh child -------------------------------------------------------------------------------------------------

_SOURCE = """
import marshal, os, struct, sys
if sys.platform == "win32":
    import msvcrt
    msvcrt.setmode(0, os.O_BINARY)
def block():
    data, size = b"", struct.unpack("!Q", os.read(0, 8))[0]
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit()
    return data
modules = {}
for name, file in %r:
    modules[name] = {"__name__": name, "__file__": file}
    exec(marshal.loads(block()[16:]), modules[name])
modules["loader"]["main"](modules["reporter"]["_exception"], modules)
"""
_FILES = [(module.__name__.rpartition(".")[2], module.__file__ or "")
          for module in (reporter, load_child, values, process_state, observer)]  # fmt: skip
_code = functools.lru_cache(reports.compiled)
_PREPARED = ("sys_path", "sys_argv", "orig_dir", "dir", "start_method")
_MAIN = ("init_main_from_name", "init_main_from_path")


class Loader:
    """A fresh child that says what loads, and what would be there. Use it as a context manager.

    It sees what a child started now would see: ``spawn.get_preparation_data`` is asked. Its process and all that it
    started are gone when the context ends.
    """

    def __init__(self, *, seconds: float = SECONDS, method: str = "spawn") -> None:
        self.seconds = seconds
        self.method = method
        self._process: subprocess.Popen[bytes] | None = None
        self._main: dict[str, Any] = {}
        self._prepared: dict[str, Any] = {}
        self._greeted = self._ready = False

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, _cls: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def predict(self, payload: Payload) -> tuple[Unloaded, ...]:
        """Return what of `payload` does not load, in the order in which a child comes to it; nothing if all does.

        Also nothing when it cannot be told: the child crashed, took too long or could not be started.
        """
        for _ in range(2):  # without fork, each child answers once
            try:
                answer = self._ask(payload)
            except (OSError, EOFError, ValueError, subprocess.SubprocessError):
                self.close()
                continue
            return tuple(self._unloaded(answer, payload))
        return ()

    def open(self) -> None:
        """Start the child's process, if there is none, and do not wait for it. Raises nothing."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._launch()
        except (OSError, ValueError, subprocess.SubprocessError):
            self.close()

    def begin(self, question: Mapping[str, Any]) -> None:
        """Send a question about values (see `state_child.answer`), so that two can be asked at once; then `finish`.

        With ``question["main"]``, the child has run the parent's main module as a real one would.
        """
        self.open()
        try:
            self._greet()
            if question["main"]:
                question = {**question, "prepare": {**question["prepare"], **self._main}}
            self._send(_json({**question, "seconds": self.seconds}).encode())
            self._send(b"")
        except (OSError, AssertionError, ValueError, TypeError):
            self.close()

    def finish(self) -> Mapping[str, Any] | None:
        """Return the answer to the question that `begin` sent; None if none came."""
        try:
            self._await()
            answer: Mapping[str, Any] = _parsed(self._receive().decode())
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
        # It leads a group of its own: what the user's modules started goes with it.
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()

    def _ask(self, payload: Payload) -> Mapping[str, Any]:
        self._start()
        # running the main module again has effects of its own: only for what refers to it
        main = self._main if b"__main__" in payload.data else {}
        question = {"buffers": payload.buffers, "main": main, "seconds": self.seconds}
        self._send(_json(question).encode())
        self._send(payload.data)
        answer: Mapping[str, Any] = _parsed(self._receive().decode())
        return answer

    def _start(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._launch()
        self._greet()
        self._await()

    def _launch(self) -> None:
        from multiprocessing import spawn

        data = spawn.get_preparation_data("MainProcess")
        self._main = {key: data[key] for key in _MAIN if key in data}
        self._prepared = {key: data[key] for key in _PREPARED if key in data}
        self._greeted = self._ready = False
        self._process = subprocess.Popen(
            [os.fsdecode(spawn.get_executable()), *cpython.interpreter_flags(), "-c", _SOURCE % (_FILES,)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def _greet(self) -> None:
        """Send a new child its code and what `multiprocessing` would prepare it with."""
        if self._greeted:
            return
        self._greeted = True
        for _, file in _FILES:
            self._send(_code(file))
        self._send(_json({**self._prepared, "start_method": self.method}).encode())

    def _await(self) -> None:
        if not self._ready:
            self._receive()
            self._ready = True

    def _send(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        load_child.write_block(self._process.stdin.fileno(), data)

    def _receive(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + 2 * self.seconds
        if sys.platform == "win32":  # no pipe of it can be waited for
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

    def _unloaded(self, answer: Mapping[str, Any], payload: Payload) -> Iterable[Unloaded]:
        if answer.get("error") is None:
            return
        facts = (
            (f"approximate: {' and '.join(payload.stand_ins)} were empty in this trial",) if payload.stand_ins else ()
        )
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


def predict(payload: Payload, *, method: str = "spawn", seconds: float = SECONDS) -> tuple[Unloaded, ...]:
    """Return what of `payload` a child started now could not load; see `Loader.predict`."""
    with Loader(seconds=seconds, method=method) as loader:
        return loader.predict(payload)


def explain(
    obj: object,
    *,
    task: bool = False,
    allow_fork_primitives: bool = False,
    method: str = "spawn",
    parent: Parent | None = None,
    loader: Loader | None = None,
) -> tuple[Finding, ...]:
    """Return why `obj`, which pickles, would not load in a child: SM201 to SM203. Nothing if it does, or is not known.

    `obj`, `task` and `allow_fork_primitives` are as for `pickling.diagnose`.
    """
    payload = pack(obj, task=task, allow_fork_primitives=allow_fork_primitives)
    if payload is None:
        return ()
    every = predict(payload, method=method) if loader is None else loader.predict(payload)
    parent = parent or Parent()
    found: dict[object, Finding] = {}
    for each in every:
        finding = load_finding(each, parent)
        found.setdefault((finding.code, finding.path, finding.file, finding.line), finding)
    return tuple(found.values())


# -- which object an operation belongs to -----------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Node:
    """An object that a pickle would make."""

    value: Any = None
    """Of a constant; module and name of a global."""
    kind: str = ""
    """``list``, ``tuple``, ``dict``, ``set``, ``global``, or nothing."""
    numbers: list[int] = field(default_factory=list)
    """The operations that make or change it."""
    parts: list[tuple[str, _Node]] = field(default_factory=list)
    """The step to each part, as text, and the part."""
    length: int = 0
    function: _Node | None = None


def paths(payload: Payload, numbers: Iterable[int]) -> dict[int, str]:
    """Return the path to the object that each of the pickle's operations makes or changes; see `Unloaded.path`.

    Nothing is loaded: the pickle is run with stand-ins. An operation that no object can be found for is left out.
    """
    wanted = set(numbers)
    root = _Machine().run(payload.data)
    found: dict[int, str] = {}
    seen = {id(root)}
    queue: deque[tuple[_Node, tuple[str, ...]]] = deque([(root, ())])
    while queue and len(found) < len(wanted):
        node, steps = queue.popleft()
        for number in node.numbers:
            if number in wanted:
                found.setdefault(number, _path(payload.form, steps))
        for step, part in node.parts:
            if id(part) not in seen:
                seen.add(id(part))
                queue.append((part, (*steps, step)))
    return found


def _path(form: Form, steps: tuple[str, ...]) -> str:
    """Return the path as the user knows it: from the target and the arguments."""
    texts = list(steps)
    if form == "state":  # (class, state)
        form, texts = "process", [f".{texts[1][2:-2]}", *texts[2:]] if len(texts) > 1 else []
    if form == "process":
        first = texts[0] if texts else ""
        if first in ("._target", "._args", "._kwargs"):
            return first[2:] + _joined(texts[1:])
        return "process" + _joined(texts)
    if form == "object" or not texts:
        return "object" + _joined(texts)
    name = {"[0]": "target", "[1]": "args", "[2]": "kwargs"}.get(texts[0], "object")
    rest = texts[1:]
    if name == "args" and rest and form == "map":
        return "args[0]" + _joined(rest[1:])
    if name == "args" and rest and form == "starmap":
        return "args" + _joined(rest[1:])
    return name + _joined(rest)


def _joined(texts: list[str]) -> str:
    return "".join(shorten(texts) if sum(map(len, texts)) > 160 else texts)


class _Machine:
    """The pickle machine, with nodes for objects. What it does not know leaves the stack as its kind says."""

    def __init__(self) -> None:
        self.stack: list[_Node] = []
        self.marks: list[int] = []
        self.memo: dict[Any, _Node] = {}

    def run(self, data: bytes) -> _Node:
        """Return the node of the outermost object."""
        for number, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            method = getattr(self, f"_{opcode.name.lower()}", None)
            if method is not None:
                method(number, arg)
            elif opcode.stack_after == [] or opcode.name in ("PROTO", "FRAME", "STOP"):
                continue
            elif opcode.stack_before == []:
                self.stack.append(_Node(arg))
            else:  # of the form "take one, leave one"
                continue
        return self.stack[-1] if self.stack else _Node()

    def _items(self) -> list[_Node]:
        at = self.marks.pop()
        items, self.stack[at:] = self.stack[at:], []
        return items

    def _push(self, number: int, kind: str, parts: Iterable[tuple[str, _Node]] = ()) -> None:
        every = list(parts)
        self.stack.append(_Node(None, kind, [number], every, len(every)))

    def _indexed(self, items: list[_Node], start: int = 0) -> list[tuple[str, _Node]]:
        return [(f"[{index}]", item) for index, item in enumerate(items, start)]

    def _mark(self, _number: int, _arg: Any) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _number: int, _arg: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _number: int, _arg: Any) -> None:
        self._items()

    def _dup(self, _number: int, _arg: Any) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _number: int, _arg: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _put(self, _number: int, arg: Any) -> None:
        self.memo[int(arg)] = self.stack[-1]

    _binput = _long_binput = _put

    def _get(self, _number: int, arg: Any) -> None:
        self.stack.append(self.memo[int(arg)])

    _binget = _long_binget = _get

    def _none(self, _number: int, _arg: Any) -> None:
        self.stack.append(_Node(None, "constant"))

    def _newtrue(self, _number: int, _arg: Any) -> None:
        self.stack.append(_Node(True))

    def _newfalse(self, _number: int, _arg: Any) -> None:
        self.stack.append(_Node(False))

    def _empty_list(self, number: int, _arg: Any) -> None:
        self._push(number, "list")

    def _empty_dict(self, number: int, _arg: Any) -> None:
        self._push(number, "dict")

    def _empty_set(self, number: int, _arg: Any) -> None:
        self._push(number, "set")

    def _empty_tuple(self, number: int, _arg: Any) -> None:
        self._push(number, "tuple")

    def _tuple(self, number: int, _arg: Any) -> None:
        self._push(number, "tuple", self._indexed(self._items()))

    def _list(self, number: int, _arg: Any) -> None:
        self._push(number, "list", self._indexed(self._items()))

    def _dict(self, number: int, _arg: Any) -> None:
        items = self._items()
        self._push(number, "dict")
        self._set(number, items)

    def _frozenset(self, number: int, _arg: Any) -> None:
        self._push(number, "set", [("{element}", item) for item in self._items()])

    def _some(self, number: int, count: int) -> None:
        items, self.stack[-count:] = self.stack[-count:], []
        self._push(number, "tuple", self._indexed(items))

    def _tuple1(self, number: int, _arg: Any) -> None:
        self._some(number, 1)

    def _tuple2(self, number: int, _arg: Any) -> None:
        self._some(number, 2)

    def _tuple3(self, number: int, _arg: Any) -> None:
        self._some(number, 3)

    def _extend(self, number: int, items: list[_Node]) -> None:
        holder = self.stack[-1]
        holder.parts += self._indexed(items, holder.length)
        holder.length += len(items)
        holder.numbers.append(number)

    def _append(self, number: int, _arg: Any) -> None:
        item = self.stack.pop()
        self._extend(number, [item])

    def _appends(self, number: int, _arg: Any) -> None:
        self._extend(number, self._items())

    def _additems(self, number: int, _arg: Any) -> None:
        items = self._items()
        self.stack[-1].parts += [("{element}", item) for item in items]
        self.stack[-1].numbers.append(number)

    def _set(self, number: int, items: list[_Node]) -> None:
        holder = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            index = holder.length
            plain = not key.parts and key.kind in ("", "constant")
            holder.parts.append((f"[{key_text(key.value, index)}]" if plain else f"{{value {index}}}", value))
            if not plain:
                holder.parts.append((f"{{key {index}}}", key))
            holder.length += 1
        holder.numbers.append(number)

    def _setitem(self, number: int, _arg: Any) -> None:
        items, self.stack[-2:] = self.stack[-2:], []
        self._set(number, items)

    def _setitems(self, number: int, _arg: Any) -> None:
        self._set(number, self._items())

    def _global(self, number: int, arg: Any) -> None:
        self.stack.append(_Node(tuple(str(arg).split(" ", 1)), "global", [number]))

    def _stack_global(self, number: int, _arg: Any) -> None:
        module, name = (node.value for node in self.stack[-2:])
        self.stack[-2:] = [_Node((module, name), "global", [number])]

    def _call(self, number: int, function: _Node, args: _Node, kwargs: _Node | None = None) -> None:
        """Push what a call makes. A part that is the function itself adds nothing to the path."""
        parts = [("", function)]
        name = function.value if function.kind == "global" else None
        known = _steps_of(name, len(args.parts))
        for index, (_, part) in enumerate(args.parts):
            if name == ("builtins", "getattr") and index == 0:
                step = ".__self__"
            elif name in _PARTIALS and index < 3:
                step = (".func", ".args", ".keywords")[index]
            elif index < len(known):
                step = known[index]
            else:
                step = f"{{argument {index}}}"
            parts.append((step, part))
        if kwargs is not None:
            parts += [(f"{{argument {step[1:-1]}}}", part) for step, part in kwargs.parts]
        self.stack.append(_Node(None, "object", [number], parts, 0, function))

    def _reduce(self, number: int, _arg: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self._call(number, function, args)

    def _newobj(self, number: int, _arg: Any) -> None:
        self._reduce(number, _arg)

    def _newobj_ex(self, number: int, _arg: Any) -> None:
        kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(number, cls, args, kwargs)

    def _build(self, number: int, _arg: Any) -> None:
        state, obj = self.stack.pop(), self.stack[-1]
        obj.numbers.append(number)
        if state.kind == "dict":
            obj.parts += _attributes(state)
        elif _is_slots_state(state):
            obj.parts += [each for _, part in state.parts for each in _attributes(part)]
        elif obj.function is not None and obj.function.value == ("functools", "partial") and len(state.parts) == 4:
            names = (".func", ".args", ".keywords", ".__dict__")
            obj.parts += [(name, part) for name, (_, part) in zip(names, state.parts, strict=True)]
        else:
            obj.parts.append((".__getstate__()", state))


_PARTIALS = {("functools", "partial"), ("multiprocessing.reduction", "_rebuild_partial")}
"""What a partial is made again with: by pickle, and by ForkingPickler (3.10 to 3.15)."""


def _steps_of(name: Any, count: int) -> list[str]:
    """Return the steps to the arguments that a class is called with, where they are known to be parts of the object."""
    module, qualname = name if type(name) is tuple else ("", "")
    cls: Any = values.resolve(sys.modules.get(module), str(qualname).split(".")) if module else None
    if not issubclass(type(cls), type):
        return []
    mro = type.__dict__["__mro__"].__get__(cls)
    if BaseException in mro:
        group = any(each.__name__ == "BaseExceptionGroup" and each.__module__ == "builtins" for each in mro)
        return [".message", ".exceptions"] if group else [f".args[{index}]" for index in range(count)]
    fields = values.class_attribute(cls, "_fields")[1]
    if tuple in mro and type(fields) is tuple and len(fields) == count:
        return [f".{field}" for field in fields]
    if count == 1 and any(each.__name__ == "Enum" and each.__module__ == "enum" for each in mro):
        return [".value"]
    return [".default_factory"] if cls.__module__ == "collections" and cls.__name__ == "defaultdict" else []


def _attributes(state: _Node) -> list[tuple[str, _Node]]:
    """Return the parts of a dictionary as attributes."""
    quoted = ((step[1:-1], part) for step, part in state.parts)
    return [(f".{text[1:-1]}" if text[:1] in ("'", '"') else f".__dict__[{text}]", part) for text, part in quoted]


def _is_slots_state(state: _Node) -> bool:
    kinds = [part.kind for _, part in state.parts]
    return state.kind == "tuple" and len(kinds) == 2 and kinds[0] in ("dict", "constant") and kinds[1] == "dict"
