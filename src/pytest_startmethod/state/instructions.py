"""Bytecode as a few operations that are the same for CPython 3.10 to 3.15. All version differences end here.

An instruction that does two things (``LOAD_FAST_LOAD_FAST``, a ``LOAD_GLOBAL`` that also pushes NULL) becomes two
operations. Based on ``Python/bytecodes.c`` (``ceval.c`` up to 3.11) and the documentation of `dis`.
"""

from __future__ import annotations

import dis
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of the code."""

    op: str
    """The `Frame` method that follows it, without its ``_do_``."""
    value: Any
    text: str
    """The instruction as `dis` prints it."""
    line: int
    offset: int
    """Its offset in the code."""
    target: int | None
    """The offset that it may jump to."""
    ends: bool
    """Whether control never continues to the next instruction."""
    implied: tuple[tuple[int, str], ...] = ()
    """Special methods that it calls: stack depth of their object (1 is the top), and name."""


class ByCode(Generic[T]):
    """A cache of at most `size` values per code object, dropped with the code.

    Keyed by identity: comparing and hashing code objects takes all their contents into account.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[int, tuple[weakref.ref[types.CodeType], dict[object, T]]] = {}

    def of(self, code: types.CodeType, key: object, make: Callable[[], T]) -> T:
        """Return the value for `code` and `key`, calling `make` on first use."""
        number = id(code)
        found = self._kept.get(number)
        if found is None or found[0]() is not code:
            made = make()
            while len(self._kept) >= self._size:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[number] = weakref.ref(code, lambda _: self._kept.pop(number, None)), {key: made}
            return made
        values = found[1]
        if key not in values:
            values[key] = make()
        return values[key]

    def __len__(self) -> int:
        return len(self._kept)


_decoded: ByCode[list[Operation]] = ByCode(4_000)


def operations(code: types.CodeType) -> list[Operation]:
    """Return the operations of `code`, in order."""
    return _decoded.of(code, None, lambda: list(_decode(code)))


_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_ENDS: Final = frozenset({
    "RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD",
    "JUMP_BACKWARD_NO_INTERRUPT",
})  # fmt: skip


def _decode(code: types.CodeType) -> Iterable[Operation]:
    line = code.co_firstlineno
    for each in dis.get_instructions(code):
        positions = getattr(each, "positions", None)  # 3.11
        if positions is not None and positions.lineno is not None:
            line = positions.lineno
        elif type(each.starts_line) is int:
            line = each.starts_line
        target = each.argval if each.opcode in _JUMPS and type(each.argval) is int else None
        try:
            effect = dis.stack_effect(each.opcode, each.arg, jump=False)
        except ValueError:
            effect = 0
        text = f"{each.opname} {each.argrepr}".strip()
        implied = tuple(_implied(each.opname, text))
        for op, value in _operations(each, effect, code):
            yield Operation(op, value, text, line, each.offset, target, each.opname in _ENDS, implied)
            implied = ()


Parts = Iterable[tuple[str, object]]
_SAME: Final = {
    **dict.fromkeys(["LOAD_NAME", "LOAD_GLOBAL"], "global"),
    **dict.fromkeys(["LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR"], "local"),
    **dict.fromkeys(["STORE_FAST", "STORE_FAST_MAYBE_NULL"], "store_local"),
    **dict.fromkeys(["LOAD_DEREF", "LOAD_CLASSDEREF"], "cell"),
    **dict.fromkeys(["LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL", "LOAD_CONST_MORTAL"], "constant"),
    "LOAD_CLOSURE": "closure", "STORE_DEREF": "store_cell", "PUSH_NULL": "null", "LOAD_ATTR": "attribute",
    "LOAD_METHOD": "attribute", "LOAD_SUPER_ATTR": "super_attribute", "BINARY_SUBSCR": "item",
    "STORE_GLOBAL": "store_global", "DELETE_GLOBAL": "delete_global", "STORE_ATTR": "store_attribute",
    "DELETE_ATTR": "delete_attribute", "STORE_SUBSCR": "store_item", "DELETE_SUBSCR": "delete_item",
    "LOAD_BUILD_CLASS": "build_class", "IMPORT_NAME": "import_name", "IMPORT_FROM": "import_from", "FOR_ITER": "next",
}  # fmt: skip
"""Instructions that become one operation with the same argument."""
_NOTHING: Final = frozenset({
    "RESUME", "NOP", "CACHE", "PRECALL", "MAKE_CELL", "COPY_FREE_VARS", "EXTENDED_ARG", "NOT_TAKEN",
    "SETUP_ANNOTATIONS", "GEN_START", "TO_BOOL", "LIST_TO_TUPLE",
})  # fmt: skip
_PAIRS: Final = {
    "LOAD_FAST_LOAD_FAST": ("local", "local"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("local", "local"),
    "STORE_FAST_LOAD_FAST": ("store_local", "local"),
    "STORE_FAST_STORE_FAST": ("store_local", "store_local"),
}
_ENTERS: Final = {"BEFORE_WITH", "LOAD_SPECIAL", "SETUP_WITH"}
_LEAVES_NOTHING: Final = ("POP_", "STORE_", "RETURN", "RAISE", "DELETE", "END_", "LIST_", "SET_", "DICT_", "MAP_",
                          "YIELD", "JUMP", "RERAISE", "SEND")  # fmt: skip
"""Instructions that pop as many values as the stack loses. Others pop one more, and push a result."""


def _operations(each: dis.Instruction, effect: int, code: types.CodeType) -> Parts:
    name, arg, value = each.opname, each.arg or 0, each.argval
    special = _SPECIAL.get(name)
    if special is not None:
        return special(arg, value, effect)
    if name in _NOTHING or each.argrepr == "INTRINSIC_LIST_TO_TUPLE":
        return (("nothing", None),)
    if name in _PAIRS:
        return zip(_PAIRS[name], value if type(value) is tuple and len(value) == 2 else ("", ""), strict=True)
    if name == "BINARY_OP" and "[" in each.argrepr:  # 3.14
        return (("item", None),)
    if name == "KW_NAMES":  # 3.11 and 3.12
        names = value if type(value) is tuple else code.co_consts[arg] if arg < len(code.co_consts) else ()
        return (("keywords", names if type(names) is tuple else ()),)
    if name in _SAME:
        loaded, null = (_SAME[name], value), (("null", None),) if _pushes_null(name, arg) else ()
        return (*null, loaded) if name == "LOAD_GLOBAL" and sys.version_info < (3, 13) else (loaded, *null)
    return ((("enter" if name in _ENTERS else "other"), _taken(name, effect)),)


def _pushes_null(name: str, arg: int) -> bool:
    """Return whether an instruction also pushes NULL: below a global up to 3.12, otherwise above the loaded value."""
    since = {"LOAD_GLOBAL": (3, 11), "LOAD_ATTR": (3, 12), "LOAD_SUPER_ATTR": (3, 12)}.get(name)
    return name == "LOAD_METHOD" or (since is not None and sys.version_info >= since and bool(arg & 1))


def _taken(name: str, effect: int) -> tuple[int, int]:
    """Return how many values an instruction without a special meaning pops and pushes."""
    if name in _ENTERS:
        taken = 1
    elif effect < 0 and name.startswith(_LEAVES_NOTHING):
        taken = -effect
    else:
        taken = 0 if effect > 0 else 1 - effect
    return taken, max(0, taken + effect)


def _iterates(_arg: int, _value: object, effect: int) -> Parts:
    return (("iterate", 1 + effect),)


def _makes(_arg: int, _value: object, effect: int) -> Parts:
    return (("make_function", 1 - effect),)


def _extends(whole: bool) -> Callable[[int, object, int], Parts]:
    return lambda arg, _value, _effect: (("extend", (arg, whole)),)


def _rotates(count: int) -> Callable[[int, object, int], Parts]:
    return lambda _arg, _value, _effect: (("rotate", count),)


_SPECIAL: Final[dict[str, Callable[[int, object, int], Parts]]] = {
    "CALL": lambda arg, _value, _effect: (("call", (arg, 2, False)),),
    "CALL_METHOD": lambda arg, _value, _effect: (("call", (arg, 2, False)),),
    "CALL_KW": lambda arg, _value, _effect: (("call", (arg, 2, True)),),
    "CALL_FUNCTION": lambda arg, _value, _effect: (("call", (arg, 1, False)),),
    "CALL_FUNCTION_KW": lambda arg, _value, _effect: (("call", (arg, 1, True)),),
    "CALL_FUNCTION_EX": lambda _arg, _value, effect: (("call_unpacked", 1 - effect),),
    **dict.fromkeys(["BUILD_TUPLE", "BUILD_LIST"], lambda arg, _value, _effect: (("sequence", arg),)),
    "BUILD_MAP": lambda arg, _value, _effect: (("mapping", arg),),
    "BUILD_CONST_KEY_MAP": lambda arg, _value, _effect: (("mapping", -arg),),
    **dict.fromkeys(["LIST_EXTEND", "DICT_MERGE", "DICT_UPDATE"], _extends(True)),
    "LIST_APPEND": _extends(False),
    "LOAD_FROM_DICT_OR_GLOBALS": lambda _arg, value, _effect: (("pop", 1), ("global", value)),
    "LOAD_FROM_DICT_OR_DEREF": lambda _arg, value, _effect: (("pop", 1), ("cell", value)),
    "POP_TOP": lambda _arg, _value, _effect: (("pop", 1),),
    "COPY": lambda arg, _value, _effect: (("copy", arg),),
    "DUP_TOP": lambda _arg, _value, _effect: (("copy", 1),),
    "DUP_TOP_TWO": lambda _arg, _value, _effect: (("copy", 2), ("copy", 2)),
    "SWAP": lambda arg, _value, _effect: (("swap", arg),),
    "ROT_N": lambda arg, _value, _effect: (("rotate", arg),),
    **{name: _rotates(count) for name, count in (("ROT_TWO", 2), ("ROT_THREE", 3), ("ROT_FOUR", 4))},  # 3.10
    **dict.fromkeys(["GET_ITER", "GET_YIELD_FROM_ITER", "GET_AWAITABLE"], _iterates),
    **dict.fromkeys(["MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"], _makes),
}

# -- special methods called by instructions ----------------------------------------------------------------------------

_OPERATORS: Final = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow", "@": "matmul",
    "&": "and", "|": "or", "^": "xor", "<<": "lshift", ">>": "rshift", "<": "lt", "<=": "le", "==": "eq", "!=": "ne",
    ">": "gt", ">=": "ge",
}  # fmt: skip
_OPERATORS_3_10: Final = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//", "MODULO": "%",
    "POWER": "**", "MATRIX_MULTIPLY": "@", "AND": "&", "OR": "|", "XOR": "^", "LSHIFT": "<<", "RSHIFT": ">>",
}  # fmt: skip
_SUBSCRIPT: Final = ((2, "__getitem__"),)
_IMPLIED_BY: Final[dict[str, tuple[tuple[int, str], ...]]] = {
    "GET_ITER": ((1, "__iter__"),),
    "CONTAINS_OP": ((1, "__contains__"), (1, "__iter__")),
    "BINARY_SUBSCR": _SUBSCRIPT,
    "STORE_SUBSCR": ((2, "__setitem__"),),
    "DELETE_SUBSCR": ((2, "__delitem__"),),
    "STORE_ATTR": ((1, "__setattr__"),),
    "DELETE_ATTR": ((1, "__delattr__"),),
    "UNARY_NEGATIVE": ((1, "__neg__"),),
    "UNARY_INVERT": ((1, "__invert__"),),
    "UNARY_NOT": ((1, "__bool__"), (1, "__len__")),
    "TO_BOOL": ((1, "__bool__"), (1, "__len__")),
    "FORMAT_VALUE": ((1, "__format__"), (1, "__str__"), (1, "__repr__")),
    "CONVERT_VALUE": ((1, "__str__"), (1, "__repr__")),
    "FORMAT_SIMPLE": ((1, "__format__"), (1, "__str__")),
}


def _implied(name: str, text: str) -> Iterable[tuple[int, str]]:
    if name in _IMPLIED_BY:
        return _IMPLIED_BY[name]
    way, _, old = name.partition("_")
    if name not in ("BINARY_OP", "COMPARE_OP") and (way not in ("BINARY", "INPLACE") or old not in _OPERATORS_3_10):
        return ()
    sign = text.partition(" ")[2]
    if "[" in sign:  # 3.14
        return _SUBSCRIPT
    sign = _OPERATORS_3_10.get(old, sign.removeprefix("bool(").removesuffix(")"))
    plain = sign if sign in _OPERATORS else sign.removesuffix("=")
    method = _OPERATORS.get(plain)
    if method is None:
        return ()
    found = [(2, f"__{method}__"), (1, f"__r{method}__")]
    if method == "ne":
        found.append((2, "__eq__"))
    if plain != sign or way == "INPLACE":
        found.append((2, f"__i{method}__"))
    return found
