"""Find the object that an operation of a pickle belongs to, by running the pickle machine with stand-ins."""

from __future__ import annotations

import pickletools
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ..child import values
from ..model.payload import Form, Payload
from ..model.walk import key_text, shorten


@dataclass(slots=True, eq=False)
class _Node:
    """An object that a pickle would create."""

    value: object = None
    """The value of a constant; module and name of a global."""
    kind: str = ""
    """``list``, ``tuple``, ``dict``, ``set``, ``global``, or nothing."""
    numbers: list[int] = field(default_factory=list)
    """The operations that create or change it."""
    parts: list[tuple[str, _Node]] = field(default_factory=list)
    """The step to each part, as text, and the part."""
    length: int = 0
    function: _Node | None = None


def paths(payload: Payload, numbers: Iterable[int]) -> dict[int, str]:
    """Return the path to the object that each of these operations of the pickle creates or changes.

    Nothing is loaded. An operation whose object is not found is left out. For the paths, see `Unloaded.path`.
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
    """Return the path from the target or an argument on."""
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
    """The pickle machine, with nodes for objects. An unknown operation leaves the stack as its kind says."""

    def __init__(self) -> None:
        self.stack: list[_Node] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Node] = {}
        self.number = 0

    def run(self, data: bytes) -> _Node:
        """Return the node of the outermost object."""
        for self.number, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            do = _DO.get(opcode.name)
            if do is not None:
                do(self, arg)
            elif opcode.stack_after and not opcode.stack_before:
                self.stack.append(_Node(arg))
        return self.stack[-1] if self.stack else _Node()

    def pop(self, count: int) -> list[_Node]:
        items, self.stack[-count:] = self.stack[-count:], []
        return items

    def pop_mark(self) -> list[_Node]:
        at = self.marks.pop()
        items, self.stack[at:] = self.stack[at:], []
        return items

    def keep(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def push(self, value: object, kind: str = "") -> None:
        self.stack.append(_Node(value, kind, [self.number] if kind == "global" else []))

    def make(self, kind: str, parts: Iterable[tuple[str, _Node]] = ()) -> None:
        every = list(parts)
        self.stack.append(_Node(None, kind, [self.number], every, len(every)))

    def make_dict(self, items: list[_Node]) -> None:
        self.make("dict")
        self.set(items)

    def extend(self, items: list[_Node]) -> None:
        holder = self.stack[-1]
        holder.parts += _indexed(items, holder.length)
        holder.length += len(items)
        holder.numbers.append(self.number)

    def add(self, items: list[_Node]) -> None:
        self.stack[-1].parts += [("{element}", item) for item in items]
        self.stack[-1].numbers.append(self.number)

    def set(self, items: list[_Node]) -> None:
        holder = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            index = holder.length
            plain = not key.parts and key.kind in ("", "constant")
            holder.parts.append((f"[{key_text(key.value, index)}]" if plain else f"{{value {index}}}", value))
            if not plain:
                holder.parts.append((f"{{key {index}}}", key))
            holder.length += 1
        holder.numbers.append(self.number)

    def call(self, function: _Node, args: _Node, kwargs: _Node | None = None) -> None:
        """Push the result of a call. A part that is the function itself adds nothing to the path."""
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
        self.stack.append(_Node(None, "object", [self.number], parts, 0, function))

    def build(self, state: _Node) -> None:
        obj = self.stack[-1]
        obj.numbers.append(self.number)
        if state.kind == "dict":
            obj.parts += _attributes(state)
        elif _is_slots_state(state):
            obj.parts += [each for _, part in state.parts for each in _attributes(part)]
        elif obj.function is not None and obj.function.value == ("functools", "partial") and len(state.parts) == 4:
            names = (".func", ".args", ".keywords", ".__dict__")
            obj.parts += [(name, part) for name, (_, part) in zip(names, state.parts, strict=True)]
        else:
            obj.parts.append((".__getstate__()", state))


def _indexed(items: list[_Node], start: int = 0) -> list[tuple[str, _Node]]:
    return [(f"[{index}]", item) for index, item in enumerate(items, start)]


_DO: Final[dict[str, Callable[[_Machine, Any], object]]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "MEMOIZE": lambda m, _: m.keep(len(m.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, arg: m.keep(int(arg))),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, arg: m.stack.append(m.memo[int(arg)])),
    "NONE": lambda m, _: m.push(None, "constant"),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.make("list"),
    "EMPTY_DICT": lambda m, _: m.make("dict"),
    "EMPTY_SET": lambda m, _: m.make("set"),
    "EMPTY_TUPLE": lambda m, _: m.make("tuple"),
    "LIST": lambda m, _: m.make("list", _indexed(m.pop_mark())),
    "DICT": lambda m, _: m.make_dict(m.pop_mark()),
    "FROZENSET": lambda m, _: m.make("set", [("{element}", item) for item in m.pop_mark()]),
    "TUPLE": lambda m, _: m.make("tuple", _indexed(m.pop_mark())),
    "TUPLE1": lambda m, _: m.make("tuple", _indexed(m.pop(1))),
    "TUPLE2": lambda m, _: m.make("tuple", _indexed(m.pop(2))),
    "TUPLE3": lambda m, _: m.make("tuple", _indexed(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add(m.pop_mark()),
    "SETITEM": lambda m, _: m.set(m.pop(2)),
    "SETITEMS": lambda m, _: m.set(m.pop_mark()),
    "GLOBAL": lambda m, arg: m.push(tuple(arg.split(" ", 1)), "global"),
    "STACK_GLOBAL": lambda m, _: m.push(tuple(node.value for node in m.pop(2)), "global"),
    "REDUCE": lambda m, _: m.call(*m.pop(2)),
    "NEWOBJ": lambda m, _: m.call(*m.pop(2)),
    "NEWOBJ_EX": lambda m, _: m.call(*m.pop(3)),
    "BUILD": lambda m, _: m.build(*m.pop(1)),
}


_PARTIALS = {("functools", "partial"), ("multiprocessing.reduction", "_rebuild_partial")}
"""The functions that rebuild a partial: pickle's, and ForkingPickler's (3.10 to 3.15)."""


def _steps_of(name: object, count: int) -> list[str]:
    """Return the steps to the arguments of a class, where these are known to be parts of the object."""
    module, qualname = name if type(name) is tuple else ("", "")
    cls: Any = values.resolve(sys.modules.get(module), str(qualname).split(".")) if module else None
    if not issubclass(type(cls), type):
        return []
    mro = values.mro(cls)
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
