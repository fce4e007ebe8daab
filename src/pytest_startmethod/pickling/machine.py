"""Which object an operation of a pickle belongs to: the pickle machine, run with stand-ins for objects."""

from __future__ import annotations

import pickletools
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..child import values
from ..model.payload import Form, Payload
from ..model.walk import key_text, shorten


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

    def _mark(self, _number: int, _arg: object) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _number: int, _arg: object) -> None:
        self.stack.pop()

    def _pop_mark(self, _number: int, _arg: object) -> None:
        self._items()

    def _dup(self, _number: int, _arg: object) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _number: int, _arg: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _put(self, _number: int, arg: Any) -> None:
        self.memo[int(arg)] = self.stack[-1]

    _binput = _long_binput = _put

    def _get(self, _number: int, arg: Any) -> None:
        self.stack.append(self.memo[int(arg)])

    _binget = _long_binget = _get

    def _none(self, _number: int, _arg: object) -> None:
        self.stack.append(_Node(None, "constant"))

    def _newtrue(self, _number: int, _arg: object) -> None:
        self.stack.append(_Node(True))

    def _newfalse(self, _number: int, _arg: object) -> None:
        self.stack.append(_Node(False))

    def _empty_list(self, number: int, _arg: object) -> None:
        self._push(number, "list")

    def _empty_dict(self, number: int, _arg: object) -> None:
        self._push(number, "dict")

    def _empty_set(self, number: int, _arg: object) -> None:
        self._push(number, "set")

    def _empty_tuple(self, number: int, _arg: object) -> None:
        self._push(number, "tuple")

    def _tuple(self, number: int, _arg: object) -> None:
        self._push(number, "tuple", self._indexed(self._items()))

    def _list(self, number: int, _arg: object) -> None:
        self._push(number, "list", self._indexed(self._items()))

    def _dict(self, number: int, _arg: object) -> None:
        items = self._items()
        self._push(number, "dict")
        self._set(number, items)

    def _frozenset(self, number: int, _arg: object) -> None:
        self._push(number, "set", [("{element}", item) for item in self._items()])

    def _some(self, number: int, count: int) -> None:
        items, self.stack[-count:] = self.stack[-count:], []
        self._push(number, "tuple", self._indexed(items))

    def _tuple1(self, number: int, _arg: object) -> None:
        self._some(number, 1)

    def _tuple2(self, number: int, _arg: object) -> None:
        self._some(number, 2)

    def _tuple3(self, number: int, _arg: object) -> None:
        self._some(number, 3)

    def _extend(self, number: int, items: list[_Node]) -> None:
        holder = self.stack[-1]
        holder.parts += self._indexed(items, holder.length)
        holder.length += len(items)
        holder.numbers.append(number)

    def _append(self, number: int, _arg: object) -> None:
        item = self.stack.pop()
        self._extend(number, [item])

    def _appends(self, number: int, _arg: object) -> None:
        self._extend(number, self._items())

    def _additems(self, number: int, _arg: object) -> None:
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

    def _setitem(self, number: int, _arg: object) -> None:
        items, self.stack[-2:] = self.stack[-2:], []
        self._set(number, items)

    def _setitems(self, number: int, _arg: object) -> None:
        self._set(number, self._items())

    def _global(self, number: int, arg: object) -> None:
        self.stack.append(_Node(tuple(str(arg).split(" ", 1)), "global", [number]))

    def _stack_global(self, number: int, _arg: object) -> None:
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

    def _reduce(self, number: int, _arg: object) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self._call(number, function, args)

    def _newobj(self, number: int, _arg: object) -> None:
        self._reduce(number, _arg)

    def _newobj_ex(self, number: int, _arg: object) -> None:
        kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(number, cls, args, kwargs)

    def _build(self, number: int, _arg: object) -> None:
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


def _steps_of(name: object, count: int) -> list[str]:
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
