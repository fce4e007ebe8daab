"""An experiment's values are in the child before its process object is, or the child runs as if nothing was sent."""

from __future__ import annotations

import functools
import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.experiments import replay

SOURCE = Path(__file__).parents[2] / "src"
METHODS = ["spawn", "forkserver"]

STATE = """
import abc, contextvars, decimal, enum, functools, logging, multiprocessing, random, signal, threading, time
import warnings, weakref
from contextlib import suppress

DEBUG = False
CONFIG = {"a": 1}
REGISTRY = []
VAR = contextvars.ContextVar("VAR", default="unset")


class Tenant:
    __slots__ = ("__held",)

    def __init__(self, held):
        object.__setattr__(self, "_Tenant__held", held)

    @property
    def __class__(self):
        return type(self._Tenant__held.get())


TENANT = Tenant(VAR)
LOCAL = threading.local()
LOCAL.user = None
LOCK = multiprocessing.get_context("spawn").Lock()
QUEUE = multiprocessing.get_context("spawn").Queue()


def now():
    return "real"


class Base:
    limit = 1

    @classmethod
    def name(cls):
        return "base"

    @property
    def size(self):
        return 1


class Derived(Base):
    pass


class Slotted:
    __slots__ = ("x",)


class Proxy:
    __slots__ = ("obj",)

    def __getattr__(self, name):
        return getattr(self.obj, name)


PROXY = Proxy()
PROXY.obj = None


class Unit:
    known = {}

    def __new__(cls, name):
        if name not in cls.known:
            cls.known[name] = super().__new__(cls)
            cls.known[name].factor = None
        return cls.known[name]

    def __getnewargs__(self):
        return ("inch",)

    def __getstate__(self):
        return None


class Shape(abc.ABC):
    pass


class Only:
    x = 1

    def __reduce__(self):
        return "ONLY"


ONLY = Only()


@functools.singledispatch
def shown(value):
    return "any"


def shown_derived(value):
    return "derived"


MODE = ["fresh"]


@functools.lru_cache(maxsize=4, typed=True)
def cached(*args, **keywords):
    return MODE[0]


@functools.lru_cache(maxsize=None)
def kept(*args, **keywords):
    return MODE[0]


@functools.lru_cache
def told():
    return {"mode": MODE[0]}


HEARD = []


def listen():
    def hear(args):
        HEARD.append(str(args.exc_value))

    threading.excepthook = hear


class Settings:
    def __init__(self):
        self.debug = False
        self.lock = threading.RLock()


class Frozen(enum.Enum):
    A = 1


SETTINGS = Settings()
LOGGER = logging.getLogger("a.b")
SLOTTED = Slotted()
SLOTTED.x = 1
WEAK = weakref.WeakValueDictionary()


def on_signal(number, frame):
    pass
"""

ALIAS = """
from state import CONFIG, kept, now
"""

RUN = """
import state, alias, reader

if __name__ == "__main__":  # each child runs this file again, and has no use for these
    import importlib, json, multiprocessing, os, sys, types
    import xml.dom
    from unittest import mock

    import pandas

    from pytest_startmethod._compat.multiprocessing import STDLIB
    from pytest_startmethod.activation.exchanges import Exchanges
    from pytest_startmethod.child import reporter as child
    from pytest_startmethod.experiments import replay
    from pytest_startmethod.launches.reports import ReportDirectory


def outcome(method, paths, read, holder=None):
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    directory.clear()
    with holder or replay.Replaying(paths) as held:
        process = context.Process(target=reader.send, args=(sender, read))
        process.start()
    sender.close()
    try:
        value = receiver.recv()
    except EOFError:
        value = "nothing"
    process.join()
    return [value, directory.replayed(), process.exitcode]


class Fake:
    def __call__(self):
        return "fake object"


def module_level():
    return "fake", state_of_this


state_of_this = 1


def main(method):
    global state_of_this
    state_of_this = 2
    results = {}
    state.DEBUG = True
    state.CONFIG["b"] = 2
    state.Base.limit = 5
    state.Derived.extra = "added"
    state.Derived.name = classmethod(lambda cls: f"replaced {cls.__name__}")
    state.SETTINGS.debug = True
    state.SLOTTED.x = 7
    state.VAR.set("set")
    pandas.options.d["display"]["precision"] = 2
    state.LOCAL.user = "ann"
    del state.suppress
    state.LATER = lambda: state_of_this
    for name, path in {
        "global": "state.DEBUG",
        "mutated": "state.CONFIG",
        "class": "state.Base.limit",
        "added": "state.Derived.extra",
        "classmethod": "state.Derived.name",
        "instance": "state.SETTINGS",
        "attribute": "state.SETTINGS.debug",
        "slot": "state.SLOTTED.x",
        "contextvar": "state.VAR",
        "local": "state.LOCAL",
        "deleted": "state.suppress",
        "later": "state.LATER",
        "inside": "state.CONFIG['b']",
        "tenant": "state.TENANT",
        "submodule": "xml.dom",
        "parent": "os.getppid",
        "options": "pandas",
    }.items():
        results[name] = outcome(method, [path], name)
    state.now = alias.now = module_level
    results["function"] = outcome(method, ["state.now"], "function")
    state.now = alias.now = mock.MagicMock(return_value="mocked")
    results["mock"] = outcome(method, ["state.now"], "function")
    with mock.patch("time.time", return_value=12.0):
        results["library"] = outcome(method, ["time.time"], "library")
    with mock.patch.object(state, "Settings", autospec=True):
        state.Settings.return_value.debug = "auto"
        results["autospec"] = outcome(method, ["state.Settings"], "autospec")
    state.now = Fake()
    results["object"] = outcome(method, ["state.now"], "function")
    os.environ["REPLAYED"] = "yes"
    results["environ"] = outcome(method, ["os.environ['REPLAYED']"], "environ")
    results["whole"] = outcome(method, ["os.environ"], "environ")
    import logging

    logging.basicConfig(level=logging.DEBUG, format="%(message)s")
    logging.getLogger("a.b").setLevel("ERROR")
    logging.getLogger("a").addHandler(logging.NullHandler())
    results["logging"] = outcome(method, ["logging.getLogger('a.b')"], "logging")
    import random

    random.seed(3)
    results["random"] = [*outcome(method, ["random"], "random"), random.random()]
    import decimal

    decimal.getcontext().prec = 3
    results["decimal"] = outcome(method, ["decimal"], "decimal")
    import warnings

    warnings.simplefilter("error", UserWarning)
    results["warnings"] = outcome(method, ["warnings.filters"], "warnings")
    import signal

    signal.signal(signal.SIGUSR1, state.on_signal)
    results["signal"] = outcome(method, ["signal.SIGUSR1"], "signal")
    injected = types.ModuleType("injected")
    exec("def value():\\n    return 4", injected.__dict__)
    sys.modules["injected"] = injected
    results["module"] = outcome(method, ["sys.modules['injected']"], "module")
    made = state.Base()
    state.WEAK["a"] = made
    results["weak"] = outcome(method, ["state.WEAK"], "weak")
    with state.LOCK:
        results["lock"] = outcome(method, ["state.LOCK"], "lock")
    results["queue"] = [*outcome(method, ["state.QUEUE"], "queue"), state.QUEUE.get()]
    results["two"] = outcome(method, ["state.DEBUG", "state.CONFIG"], "two")
    state.Shape.register(state.Derived)
    results["registered"] = outcome(method, ["state.Shape._abc_registry"], "registered")
    state.shown.register(state.Derived, state.shown_derived)
    results["dispatched"] = outcome(method, ["state.shown.registry"], "dispatched")
    state.on_signal.calls = 3
    state.on_signal.__code__ = module_level.__code__
    results["code"] = outcome(method, ["state.on_signal"], "code")
    results["logger"] = outcome(method, ["state.LOGGER"], "logger")
    sys.setrecursionlimit(4321)
    results["setting"] = outcome(method, ["sys.getrecursionlimit"], "setting")
    import sqlite3

    sqlite3.register_adapter(state.Derived, state.shown_derived)
    results["table"] = outcome(method, ["sqlite3.adapters"], "table")
    state.PROXY.obj = state.Base
    results["proxy"] = outcome(method, ["state.PROXY"], "proxy")
    state.Unit("inch").factor = 25.4
    results["flyweight"] = outcome(method, ["state.Unit.known"], "flyweight")
    logging.Logger.verbose = state.shown_derived
    results["method"] = outcome(method, ["logging.Logger.verbose"], "method")
    import gc, mimetypes

    gc.disable()
    results["collector"] = outcome(method, ["gc.isenabled"], "collector")
    gc.enable()
    mimetypes.add_type("text/x-state", ".state")
    results["types"] = outcome(method, ["mimetypes"], "types")
    before = os.umask(0o057)
    results["umask"] = outcome(method, ["umask"], "umask")
    os.umask(before)

    import codecs

    upper = codecs.CodecInfo(lambda text, errors="strict": (text.upper().encode(), len(text)), None)
    codecs.register(dict.fromkeys(("upper-case", "upper_case"), upper).get)  # the former on 3.15
    codecs.register_error("later", lambda error: ("?", error.end))
    results["codec"] = outcome(method, ["codecs.lookup('upper-case')"], "codec")
    results["handler"] = outcome(method, ["codecs.lookup_error('later')"], "handler")
    state.MODE[0] = "filled"
    for each in (state.cached, state.kept):
        each("text"), each(1.0, "two", a=1, b=2.0), each()
    results["cache"] = outcome(method, ["state.cached", "state.kept"], "cache")
    state.told()
    results["cache of a dict"] = outcome(method, ["state.told"], "told")
    import threading

    before = threading.excepthook
    state.listen()
    results["hook"] = outcome(method, ["threading.excepthook"], "hook")
    threading.excepthook = before
    # what keeps its own value
    state.ONLY.x = 2
    results["named"] = outcome(method, ["state.ONLY"], "named")
    results["subclasses"] = outcome(method, ["state.Base.__subclasses__"], "global")
    results["look"] = outcome(method, ["logging.getLevelName"], "global")
    results["call"] = outcome(method, ["state.told('x')"], "global")
    # what fails
    state.DEBUG = (each for each in ())
    results["unsent"] = outcome(method, ["state.DEBUG"], "global")
    state.DEBUG = reader.Unloadable()
    results["unloadable"] = outcome(method, ["state.DEBUG"], "global")
    results["unknown"] = outcome(method, ["nowhere.to.be.found"], "global")
    sys.modules["only_here"] = only_here = types.ModuleType("only_here")
    only_here.X = 1
    results["unimportable"] = outcome(method, ["only_here.X"], "global")
    state.DEBUG = True
    results["inherited"] = outcome(method, ["state.DEBUG"], "grandchild")
    results["afterwards"] = outcome(method, [], "global")
    results["left"] = child.carried is None
    print(json.dumps(results))


if __name__ == "__main__":
    directory = ReportDirectory.create()
    patches = Exchanges().span("test")
    directory.listen(patches, STDLIB)
    try:
        main(sys.argv[1])
    finally:
        patches.undo()
        directory.remove()
"""

READER = """
import multiprocessing, os


class Unloadable:
    def __reduce__(self):
        return int, ("not a number",)


def send(sender, name):
    sender.send(value(name))
    sender.close()


def value(name):
    import state
    import alias

    if name == "global":
        return state.DEBUG
    if name in ("mutated", "inside"):
        return [state.CONFIG, alias.CONFIG is state.CONFIG]
    if name == "class":
        return state.Base.limit, state.Derived.limit
    if name == "added":
        return state.Derived.extra, hasattr(state.Base, "extra")
    if name == "classmethod":
        return state.Derived.name(), state.Base.name()
    if name == "instance":
        with state.SETTINGS.lock:
            return state.SETTINGS.debug, type(state.SETTINGS) is state.Settings
    if name == "attribute":
        return state.SETTINGS.debug
    if name == "proxy":
        return state.PROXY.name()
    if name == "flyweight":
        return state.Unit("inch").factor
    if name == "method":
        return state.logging.getLogger("a").verbose()
    if name == "collector":
        import gc

        return gc.isenabled()
    if name == "types":
        import mimetypes

        return mimetypes.guess_type("a.state")[0]
    if name == "umask":
        return os.umask(0)
    if name == "slot":
        return state.SLOTTED.x
    if name in ("contextvar", "tenant"):
        return state.VAR.get()
    if name == "submodule":
        import xml

        return hasattr(xml, "dom")
    if name == "parent":
        return os.getppid() == multiprocessing.parent_process().pid
    if name == "options":
        import pandas

        return pandas.options.d
    if name == "weak":
        return [type(each).__name__ for each in state.WEAK.values()]
    if name == "local":
        return state.LOCAL.user
    if name == "deleted":
        return hasattr(state, "suppress")
    if name == "later":
        return state.LATER()
    if name == "function":
        return state.now(), alias.now()
    if name == "library":
        import time

        return time.time(), state.time.time()
    if name == "autospec":
        return state.Settings().debug
    if name == "environ":
        return os.environ.get("REPLAYED")
    if name == "logging":
        import logging

        logger = logging.getLogger("a.b")
        above = [type(each).__name__ for each in (*logger.parent.handlers, *logging.root.handlers)]
        return [logger.level, logging.root.level, above, logger.isEnabledFor(logging.WARNING)]
    if name == "registered":
        return isinstance(state.Derived(), state.Shape)
    if name == "dispatched":
        return state.shown(state.Derived())
    if name == "code":
        return state.on_signal.calls, state.on_signal.__code__.co_name
    if name == "logger":
        return state.LOGGER.level
    if name == "setting":
        import sys

        return sys.getrecursionlimit()
    if name == "table":
        import sqlite3

        return sqlite3.connect(":memory:").execute("select ?", (state.Derived(),)).fetchone()
    if name == "codec":
        return "a".encode("upper-case").decode()
    if name == "handler":
        return "\u00e4".encode("ascii", "later").decode()
    if name == "cache":
        asked = [[each("text"), each(1.0, "two", a=1, b=2.0), each(), each(1, "two", a=1, b=2.0), each("other")]
                 for each in (state.cached, state.kept)]
        return [*asked, state.cached.cache_parameters(), alias.kept is state.kept]
    if name == "told":
        return state.told()["mode"]
    if name == "hook":
        import threading

        thread = threading.Thread(target=int, args=("x",))
        thread.start()
        thread.join()
        return len(state.HEARD)
    if name == "named":
        return state.ONLY.x
    if name == "random":
        import random

        return random.random()
    if name == "decimal":
        import decimal

        return str(decimal.Decimal(1) / 3)
    if name == "warnings":
        import warnings

        try:
            warnings.warn("w")
        except UserWarning:
            return "raised"
        return "warned"
    if name == "signal":
        import signal

        return signal.getsignal(signal.SIGUSR1).__name__
    if name == "module":
        import injected

        return injected.value()
    if name == "lock":
        return state.LOCK.acquire(block=False)
    if name == "queue":
        state.QUEUE.put("from the child")
        state.QUEUE.close()
        state.QUEUE.join_thread()
        return "put"
    if name == "two":
        return state.DEBUG, state.CONFIG
    if name == "grandchild":
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            return pool.apply(value, ("global",))
    raise KeyError(name)
"""


PANDAS = """
class Options:
    d = {"display": {"precision": 6, "width": 80}}


options = Options()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return a function that runs the experiments under a method, once in whatever order the tests come."""

    @functools.cache
    def run(method: str) -> dict[str, Any]:
        path = tmp_path_factory.mktemp(method)
        for name, text in {"state": STATE, "alias": ALIAS, "reader": READER, "run": RUN, "pandas": PANDAS}.items():
            (path / f"{name}.py").write_text(textwrap.dedent(text).lstrip("\n"))
        done = subprocess.run(
            [sys.executable, "run.py", method],
            cwd=path,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


@pytest.fixture(params=METHODS)
def results(request: pytest.FixtureRequest, run: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return what each experiment's child saw, what it reported to have taken over, and how it ended."""
    return run(request.param)


@pytest.mark.parametrize(
    ("name", "path", "seen"),
    [
        ("global", "state.DEBUG", True),
        ("mutated", "state.CONFIG", [{"a": 1, "b": 2}, True]),
        ("inside", "state.CONFIG['b']", [{"a": 1, "b": 2}, True]),
        ("class", "state.Base.limit", [5, 5]),
        ("added", "state.Derived.extra", ["added", False]),
        ("classmethod", "state.Derived.name", ["replaced Derived", "base"]),
        ("instance", "state.SETTINGS", [True, True]),
        ("attribute", "state.SETTINGS.debug", True),
        ("slot", "state.SLOTTED.x", 7),
        ("contextvar", "state.VAR", "set"),
        ("local", "state.LOCAL", "ann"),
        ("tenant", "state.TENANT", "set"),
        ("submodule", "xml.dom", True),
        ("parent", "os.getppid", True),
        ("options", "pandas", {"display": {"precision": 2, "width": 80}}),
        ("deleted", "state.suppress", False),
        ("later", "state.LATER", 2),
        ("function", "state.now", [["fake", 2], "real"]),
        ("mock", "state.now", ["mocked", "real"]),
        ("library", "time.time", [12.0, 12.0]),
        ("autospec", "state.Settings", "auto"),
        ("object", "state.now", ["fake object", "real"]),
        ("environ", "os.environ['REPLAYED']", "yes"),
        ("whole", "os.environ", "yes"),
        ("logging", "logging.getLogger('a.b')", [40, 10, ["NullHandler", "StreamHandler"], False]),
        ("decimal", "decimal", "0.333"),
        ("warnings", "warnings.filters", "raised"),
        ("signal", "signal.SIGUSR1", "on_signal"),
        ("module", "sys.modules['injected']", 4),
        ("weak", "state.WEAK", ["Base"]),
        ("lock", "state.LOCK", False),
        ("queue", "state.QUEUE", "put"),
        ("registered", "state.Shape._abc_registry", True),
        ("dispatched", "state.shown.registry", "derived"),
        ("code", "state.on_signal", [3, "module_level"]),
        ("logger", "state.LOGGER", 40),
        ("setting", "sys.getrecursionlimit", 4321),
        ("table", "sqlite3.adapters", ["derived"]),
        ("proxy", "state.PROXY", "base"),
        ("flyweight", "state.Unit.known", 25.4),
        ("method", "logging.Logger.verbose", "derived"),
        ("collector", "gc.isenabled", False),
        ("types", "mimetypes", "text/x-state"),
        ("umask", "umask", 0o057),
        ("codec", "codecs.lookup('upper-case')", "A"),
        ("handler", "codecs.lookup_error('later')", "?"),
    ],
)
def test_a_child_takes_over_the_parents_value(results: dict[str, Any], name: str, path: str, seen: object) -> None:
    assert results[name][:3] == [seen, [{"path": path, "error": None}], 0]


def test_random_numbers_go_on_as_in_the_parent(results: dict[str, Any]) -> None:
    seen, _, _, parents = results["random"]
    assert seen == parents


def test_a_cache_remembers_what_the_parents_does(results: dict[str, Any]) -> None:
    """A call that the parent's cache knows has its result; another is computed in the child."""
    by_type, by_value, parameters, shared = results["cache"][0]
    assert by_type == ["filled", "filled", "filled", "fresh", "fresh"]
    assert by_value == ["filled", "filled", "filled", "filled", "fresh"]
    assert (parameters, shared) == ({"maxsize": 4, "typed": True}, True)
    assert results["cache"][1] == [{"path": path, "error": None} for path in ("state.cached", "state.kept")]


def test_a_cache_remembers_a_dict(results: dict[str, Any]) -> None:
    """The only result of a cache may be a dict of one item, which looks like the cache's own entries."""
    assert results["cache of a dict"][:2] == ["filled", [{"path": "state.told", "error": None}]]


def test_a_local_function_writes_to_the_childs_module(results: dict[str, Any]) -> None:
    assert results["hook"][:2] == [1, [{"path": "threading.excepthook", "error": None}]]


def test_a_queue_is_the_parents_own(results: dict[str, Any]) -> None:
    assert results["queue"][3] == "from the child"


def test_several_bindings_go_together(results: dict[str, Any]) -> None:
    taken = [{"path": "state.DEBUG", "error": None}, {"path": "state.CONFIG", "error": None}]
    assert results["two"] == [[True, {"a": 1, "b": 2}], taken, 0]


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [
        ("unsent", "state.DEBUG", "TypeError: cannot pickle 'generator' object"),
        ("unloadable", "state.DEBUG", "ValueError: invalid literal for int() with base 10: 'not a number'"),
        ("unknown", "nowhere.to.be.found", "NotSentError: no module of nowhere.to.be.found is imported"),
        ("unimportable", "only_here.X", "ModuleNotFoundError: No module named 'only_here'"),
    ],
)
def test_what_cannot_be_taken_over_is_said_and_changes_nothing(
    results: dict[str, Any], name: str, path: str, error: str
) -> None:
    assert results[name] == [False, [{"path": path, "error": error}], 0]


@pytest.mark.parametrize(
    ("name", "path", "seen", "error"),
    [
        ("named", "state.ONLY", 1, "RuntimeError: it keeps the value that it has"),
        ("look", "logging.getLevelName", False, "NotSentError: there is no one value behind logging.getLevelName"),
        ("call", "state.told('x')", False, "NotSentError: state.told('x') is no dotted name"),
    ],
)
def test_what_could_not_be_given_to_the_child_was_not_tried(
    results: dict[str, Any], name: str, path: str, seen: object, error: str
) -> None:
    """Otherwise, a test that still fails would clear the actual cause."""
    assert results[name] == [seen, [{"path": path, "error": error}], 0]


def test_a_childs_own_children_take_it_over_too(results: dict[str, Any]) -> None:
    seen, outcomes, code = results["inherited"]
    assert (seen, code) == (True, 0)
    assert outcomes == [{"path": "state.DEBUG", "error": None}] * 2


def test_nothing_is_sent_afterwards(results: dict[str, Any]) -> None:
    assert results["afterwards"] == [False, [], 0]
    assert results["left"] is True


def test_a_token_of_a_context_variable_does_not_keep_its_holder_from_being_sent():
    """A request context keeps the tokens that it resets its variables with; these mean nothing to a child."""
    variable = ContextVar("variable", default=0)
    held = {"token": variable.set(1), "request": "GET /"}
    assert pickle.loads(replay.dumped(held))["request"] == "GET /"
