"""For generated calls and module state, `explain` agrees with a real fresh child."""

from __future__ import annotations

import collections
import functools
import importlib
import io
import multiprocessing
import re
import sys
import threading
import types
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from generated_support import (
    Colour,
    Frozen,
    NeedsTwoError,
    Node,
    Pair,
    Raises,
    Rebuilt,
    Reduced,
    Refuses,
    Shadowed,
    Slotted,
    cyclic,
    first_shadowed,
    local,
    nothing,
    serve,
)
from hypothesis import given
from hypothesis import strategies as st

from conftest import inputs
from pytest_startmethod import explain
from pytest_startmethod.pickling import dry_run

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif("spawn" not in multiprocessing.get_all_start_methods(), reason="asks a spawned child"),
]

# -- the answering child -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ask() -> Any:
    """Ask a spawned child one question after the other."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()

    def question(what: str, given: Any) -> Any:
        ours.send((what, given))
        return ours.recv()

    yield question
    ours.close()
    process.join()


# -- object graphs -----------------------------------------------------------------------------------------------------

good = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.sampled_from([nothing, Node, len, Colour.RED, Node().method, Shadowed(), int.from_bytes]),
    st.builds(types.SimpleNamespace),
)  # fmt: skip
bad = st.sampled_from(
    [threading.Lock, lambda: lambda: 0, lambda: (i for i in ()), lambda: sys, io.StringIO().write.__self__.readline]
).map(lambda make: make())
odd = st.one_of(
    st.sampled_from(local()),
    st.builds(first_shadowed),
    st.just(first_shadowed),
    st.builds(Raises),
    st.builds(Refuses, st.just(1)),
    st.builds(NeedsTwoError, st.just(1), st.just(2)),
)


def grown(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.lists(children, max_size=3).map(collections.deque),
        st.dictionaries(st.text(max_size=2), children, max_size=3),
        st.dictionaries(st.text(max_size=2), children, max_size=2).map(collections.OrderedDict),
        *(st.builds(make, children) for make in (Node, Slotted, Reduced, Rebuilt, Frozen, ValueError, cyclic)),
        st.builds(Pair, children, children),
        st.builds(functools.partial, st.just(nothing), children),
        children.map(lambda child: Node(child).method),
        children.map(lambda child: [child, child, (child,)]),
        children.map(lambda child: collections.defaultdict(list, a=child)),
    )


graphs = st.recursive(st.one_of(good, good, good, bad, odd), grown, max_leaves=8)


def sent(call: Any) -> bytes | None:
    """Return what multiprocessing would send for a call, or None if it would raise."""
    buffer = io.BytesIO()
    context.set_spawning_popen(dry_run.STAND_IN)
    try:
        ForkingPickler(buffer).dump(call)
    except Exception:
        return None
    finally:
        context.set_spawning_popen(None)
    return buffer.getvalue()


@inputs(10)
@given(graphs)
def test_the_verdict_on_a_call_is_a_real_childs(ask: Any, graph: Any) -> None:
    """A call has such a cause exactly when it does not pickle, or a spawned child cannot load it."""
    data = sent((nothing, (graph,)))
    starts = data is not None and ask("load", data)
    causes = [each for each in explain(nothing, (graph,)) if each.code[:3] in ("SM1", "SM2") and each.level == "cause"]
    assert (not causes) == starts, causes


# -- module state ------------------------------------------------------------------------------------------------------

VALUES = {"int": ("1", "2"), "str": ("'a'", "'b'"), "list": ("[1]", "[1, 2]"), "dict": ("{'a': 1}", "{'a': 2}")}
# How a name is defined, changed by the parent, and read. OTHER is a second module, which only holds values.
REBOUND = "global {n}; {n} = {b}"
WAYS = {
    "global": ("{n} = {a}", REBOUND, "{n}"),
    "grown list": ("{n} = [{a}]", "{n}.append({b})", "{n}"),
    "item": ("{n} = [0, {a}]", "{n}[1] = {b}", "{n}[1]"),
    "dictionary": ("{n} = {{'key': {a}}}", "{n}['key'] = {b}", "{n}['key']"),
    "nested dictionary": ("{n} = {{'k': {{'key': {a}}}}}", "{n}['k']['key'] = {b}", "{n}['k'].get('key')"),
    "class": ("class {n}:\n    held = {a}", "{n}.held = {b}", "{n}.held"),
    "base class": ("class {n}:\n    held = {a}\nclass D_{n}({n}): pass", "{n}.held = {b}", "D_{n}().held"),
    "instance": ("class C_{n}: pass\n{n} = C_{n}()\n{n}.held = {a}", "{n}.held = {b}", "{n}.held"),
    "slots": (
        "class C_{n}:\n    __slots__ = ['held']\n{n} = C_{n}()\n{n}.held = {a}", "{n}.held = {b}", "{n}.held",
    ),
    "data class": (
        "@dataclasses.dataclass\nclass C_{n}:\n    held: object = None\n{n} = C_{n}({a})", "{n}.held = {b}", "{n}.held",
    ),
    "namespace": ("{n} = types.SimpleNamespace(held={a})", "{n}.held = {b}", "{n}.held"),
    "other module": ("OTHER {n} = {a}", "OTHER.{n} = {b}", "OTHER.{n}"),
    "other module's dictionary": ("OTHER {n} = {{'key': {a}}}", "OTHER.{n}['key'] = {b}", "OTHER.{n}['key']"),
    "function": ("{n} = {a}\ndef get_{n}(): return {n}", REBOUND, "get_{n}()"),
    "inner function": (
        "{n} = {a}\ndef get_{n}():\n    def inner(): return {n}\n    return inner", REBOUND, "get_{n}()()",
    ),
    "default": ("{n} = {a}\ndef get_{n}(v=None): return {n} if v is None else v", REBOUND, "get_{n}()"),
    "generator": ("{n} = {a}\ndef get_{n}(): yield {n}", REBOUND, "next(get_{n}())"),
    "partial": ("{n} = {a}\nget_{n} = functools.partial(lambda v: {n}, 1)", REBOUND, "get_{n}()"),
    "decorated": (
        "{n} = {a}\ndef same_{n}(f):\n    @functools.wraps(f)\n    def call(): return f()\n    return call\n"
        "@same_{n}\ndef get_{n}(): return {n}", REBOUND, "get_{n}()",
    ),
    "context manager": (
        "{n} = {a}\n@contextlib.contextmanager\ndef with_{n}(): yield {n}\n"
        "def get_{n}():\n    with with_{n}() as v: return v", REBOUND, "get_{n}()",
    ),
    "method": ("{n} = {a}\nclass C_{n}:\n    def get(self): return {n}", REBOUND, "C_{n}().get()"),
    "static method": (
        "{n} = {a}\nclass C_{n}:\n    @staticmethod\n    def get(): return {n}", REBOUND, "C_{n}.get()",
    ),
    "property": ("{n} = {a}\nclass C_{n}:\n    @property\n    def v(self): return {n}", REBOUND, "C_{n}().v"),
    "constructor": (
        "{n} = {a}\nclass C_{n}:\n    def __init__(self): self.v = {n}", REBOUND, "C_{n}().v",
    ),
    "callable object": ("{n} = {a}\nclass C_{n}:\n    def __call__(self): return {n}", REBOUND, "C_{n}()()"),
}  # fmt: skip
AROUND = (
    "{}", "[{} for _ in range(1)]", "[v for v in [{}]]", "(lambda: {})()", "(lambda v={}: v)()", "f'{{{}!r}}'",
    "dict(key={})", "[*[{}]]", "functools.reduce(lambda a, v: v, [0, {}])", "next(v for v in [{}])",
)  # fmt: skip
names = st.tuples(
    st.sampled_from(sorted(WAYS)),
    st.sampled_from(sorted(VALUES)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(AROUND),
)
_count = iter(range(10**9))


@inputs(6)
@given(st.lists(names, min_size=1, max_size=5))
def test_state_findings_are_what_a_real_child_returns(ask: Any, tmp_path: Any, drawn: list[Any]) -> None:
    """Names have a finding exactly when they are read and differ in the child."""
    defined, changed, read, expected = [], ["pass"], [], set()
    module = f"generated_{next(_count)}"
    other = ["pass"]
    for number, (way, kind, changes, reads, around) in enumerate(drawn):
        name, (before, after) = f"NAME{number}", VALUES[kind]
        parts = [part.format(n=name, a=before, b=after) for part in WAYS[way]]
        (other if parts[0].startswith("OTHER ") else defined).append(parts[0].removeprefix("OTHER "))
        changed += [parts[1]] if changes else []
        read += [around.format(parts[2])] if reads else []
        if changes and reads:
            expected.add(name)
    body = "\n".join(
        [
            f"import contextlib, dataclasses, functools, types\nimport {module}_other as OTHER",
            *defined,
            "def configure():",
            *(f"    {line}" for line in changed),
            "def read():",
            f"    return [{', '.join(read)}]",
        ]
    )
    (tmp_path / f"{module}.py").write_text(body + "\n")
    (tmp_path / f"{module}_other.py").write_text("\n".join(other) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        made = importlib.import_module(module)
        made.configure()
        found = explain(made.read)
    differs = ask("read", (str(tmp_path), module)) != repr(made.read())
    assert differs == bool(expected)
    said = {each.path: re.search(r"NAME\d", each.path) for each in found}
    assert {match and match.group() for match in said.values()} == expected, (said, body)
