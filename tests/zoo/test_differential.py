"""The walk's verdict against the interpreter's pickler, for live objects of this process and for random graphs."""

from __future__ import annotations

import gc
import importlib
import io
import multiprocessing
import pickle
import sys
import threading
import types
import warnings
from multiprocessing import context
from typing import Any

import pytest
from differential_support import Custom, Items, Node, Raising, Reduced, Slots, module_level, receive
from hypothesis import given
from hypothesis import strategies as st

from conftest import inputs
from pytest_startmethod.causes import pickling as causes
from pytest_startmethod.causes.pickling_search import search
from pytest_startmethod.pickling import dry_run
from pytest_startmethod.pickling.walk import walk

pytestmark = pytest.mark.filterwarnings("ignore")

_MODULES = (
    "argparse ast asyncio calendar codecs collections collections.abc concurrent.futures configparser "
    "contextlib contextvars copyreg csv ctypes dataclasses datetime decimal difflib dis email enum fractions "
    "functools hashlib heapq html http.client importlib inspect io ipaddress itertools json logging math "
    "multiprocessing logging.handlers multiprocessing.managers multiprocessing.pool "
    "multiprocessing.shared_memory operator os pathlib pdb pickle pprint queue random re sched selectors "
    "shelve shutil signal socket socketserver sqlite3 ssl statistics string struct subprocess tarfile tempfile "
    "textwrap threading time tokenize traceback types typing unittest unittest.mock urllib urllib.request uuid "
    "warnings weakref xml.dom.minidom xml.etree.ElementTree xmlrpc.client zipfile"
)
_SCIENCE = "numpy numpy.linalg numpy.random numpy.ma pandas pandas.api.types flask hypothesis pytest cloudpickle"


def modules(names: str) -> list[types.ModuleType]:
    found = []
    for name in names.split():
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            continue
    return found


def live_objects(count: int) -> list[object]:
    """Return the objects reachable from modules, two levels deep, and those known to the garbage collector."""
    out: dict[int, object] = {}
    for module in (*modules(_MODULES), *modules(_SCIENCE)):
        for value in list(vars(module).values()):
            out[id(value)] = value
            if isinstance(value, type):
                for inner in list(vars(value).values()):
                    out[id(inner)] = inner
    for each in gc.get_objects():
        if len(out) >= count:
            break
        # Objects of other tests may fail on any access.
        if not type(each).__module__.startswith(("test_", "tests")):
            out.setdefault(id(each), each)
    return list(out.values())


def refused(obj: object) -> bool | None:
    """Return whether the C pickler refuses the object; None if it runs out of stack, which proves nothing."""
    error = dry_run.dry_run(obj).error
    return None if isinstance(error, RecursionError) else error is not None


def found(obj: object) -> bool:
    return bool(search(obj, task=False, allow=False, budget=50_000).leaves)


def too_big(obj: object) -> bool:
    """Return whether the object leads to most of this process, and would dominate the run."""
    table = dry_run.dispatch_table(allow_fork_primitives=False)
    return not walk(obj, table, budget=3_000, limit=10_000).complete


@pytest.mark.slow
def test_the_walk_agrees_over_twenty_thousand_live_objects() -> None:
    """Functions, classes, descriptors, modules, arrays, frames: walk and pickler agree."""
    gc.unfreeze()  # or the collector knows only what was made since the tests were collected
    objects = live_objects(26_000)
    disagreements = []
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.set_spawning_popen(dry_run.STAND_IN)  # `too_big` walks like a dry run
        try:
            small = [each for each in objects if not too_big(each)]
        finally:
            context.set_spawning_popen(None)
        for obj in small:
            verdict = refused(obj)
            if verdict is None:
                continue
            compared += 1
            if verdict is not found(obj):
                disagreements.append((type(obj), object.__repr__(obj), verdict))
    assert not disagreements
    assert compared >= 20_000


# -- made-up graphs --------------------------------------------------------------------------------------------------


BAD = (threading.Lock, lambda: lambda: 0, lambda: (i for i in ()), lambda: sys, Raising, lambda: io.StringIO().write)
leaves = st.one_of(
    st.none(), st.integers(), st.text(max_size=3), st.binary(max_size=3), st.floats(),
    st.just(module_level), st.just(Node), st.sampled_from([int, len, [].append]),
)  # fmt: skip
bad_leaves = st.sampled_from(BAD).map(lambda make: make())


def slots(pair: tuple[Any, Any]) -> Slots:
    made = Slots()
    made.one, made.two = pair
    return made


def grown(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["kept", "a", "b"])
    held = st.dictionaries(names, children, max_size=3)
    return st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=3).map(tuple),
        st.lists(children, max_size=3).map(Items),
        st.dictionaries(st.one_of(names, st.integers(0, 3)), children, max_size=3),
        held.map(lambda d: Node(**d)),
        held.map(lambda d: Custom(**d)),
        held.map(lambda d: Reduced(**d)),
        st.tuples(children, children).map(slots),
        children.map(lambda c: ValueError("x", c)),
        children.map(lambda c: types.SimpleNamespace(c=c)),
        held.map(lambda d: Node(**d).__init__),
        children.map(lambda c: [c, c, [c]]),
    )


graphs = st.recursive(st.one_of(leaves, leaves, leaves, bad_leaves), grown, max_leaves=25)


def really_refused(obj: object) -> bool:
    """Return whether ForkingPickler itself refuses it, with the interpreter's default protocol."""
    from multiprocessing.reduction import ForkingPickler

    context.set_spawning_popen(dry_run.STAND_IN)
    try:
        ForkingPickler(io.BytesIO()).dump(obj)
    except Exception:
        return True
    finally:
        context.set_spawning_popen(None)
    return False


@inputs(400)
@given(graphs)
@pytest.mark.slow
def test_the_walk_agrees_over_made_up_graphs(graph: Any) -> None:
    """A graph has findings exactly when ForkingPickler refuses it, and each finding has a path."""
    findings = causes.diagnose([graph])
    assert bool(findings) == really_refused([graph])
    assert all(finding.path.startswith("object") for finding in findings)


@inputs(5)
@given(graphs)
def test_a_real_child_agrees_over_made_up_graphs(graph: Any) -> None:
    """A graph without a finding arrives in a spawned child; one with a finding cannot be sent."""
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=receive, args=(writer, graph))
    try:
        if causes.diagnose(process):
            with pytest.raises((TypeError, AttributeError, ValueError, pickle.PicklingError)):
                process.start()
            return
        process.start()
        writer.close()
        assert reader.recv() is True
        process.join(60)
        assert process.exitcode == 0
    finally:
        reader.close()
        writer.close()
