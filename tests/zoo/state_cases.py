"""Code whose child sees different values than its parent, or the same, and the known answer for each.

A case is a function that changes something and returns a `Given`. Its decorator states the answer: path and code of the
finding that explains the difference, and whether that is a cause or only a note; `silent` means that there must be no
finding.
"""

from __future__ import annotations

import _abc
import abc
import builtins
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import importlib
import inspect
import itertools
import json
import locale
import logging
import mimetypes
import multiprocessing
import numbers
import os
import pathlib
import queue
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import types
import uuid
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import state_support
from state_support import OPTIONS as IMPORTED
from state_support import Derived, Namespace, double, settings


@dataclasses.dataclass
class Given:
    """What a test passes to a process."""

    target: Any
    args: tuple[Any, ...] = ()
    undo: Callable[[], object] = lambda: None


@dataclasses.dataclass
class Answer:
    """The expected finding."""

    make: Callable[[], Given]
    path: str
    code: str
    level: str
    reader: str
    """Text of the line that reads it."""


CASES: dict[str, Answer] = {}


def case(path: str, code: str, level: str = "cause", reader: str = "") -> Callable[[Callable[[], Given]], None]:
    def register(make: Callable[[], Given]) -> None:
        CASES[make.__name__] = Answer(make, path, code, level, reader)

    return register


def silent(make: Callable[[], Given]) -> None:
    CASES[make.__name__] = Answer(make, "", "", "", "")


def set_to(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute, and return a function that restores it."""
    missing = object()
    old = vars(owner).get(name, missing)
    setattr(owner, name, value)
    return lambda: delattr(owner, name) if old is missing else setattr(owner, name, old)


# -- globals of the target's own module -------------------------------------------------------------------------------

MODE = "as imported"
TABLE = {"a": 1, "b": 2}
NUMBERS = [1, 2, 3]
PAIR = (1, [2])
TEXT = "x" * 10_000
STAMP = time.time()
TOKEN = uuid.uuid4().hex
IDENTITY = id(TABLE)
SENTINEL = object()
COUNTED = 0
ME = sys.modules[__name__]


def read_mode():
    return MODE


@case("state_cases.MODE", "SM301", reader="return MODE")
def rebound_global():
    return Given(read_mode, (), set_to(ME, "MODE", "changed"))


def read_in_nested():
    def inner():
        return [MODE for _ in range(2)]

    return inner()


@case("state_cases.MODE", "SM301", reader="return [MODE")
def global_read_by_a_nested_function():
    return Given(read_in_nested, (), set_to(ME, "MODE", "changed"))


def read_lambda():
    return sorted([1, 2], key=lambda n: n if MODE == "changed" else -n)


@case("state_cases.MODE", "SM301", reader="return sorted")
def global_read_by_a_lambda():
    return Given(read_lambda, (), set_to(ME, "MODE", "changed"))


def read_table():
    return TABLE["a"]


@case("state_cases.TABLE", "SM301", reader='return TABLE["a"]')
def item_of_a_global_dict():
    TABLE["a"] = 99
    return Given(read_table, (), lambda: TABLE.update(a=1))


@silent
def another_item_of_a_global_dict():
    TABLE["b"] = 99
    return Given(read_table, (), lambda: TABLE.update(b=2))


def read_numbers():
    return sum(NUMBERS)


@case("state_cases.NUMBERS", "SM301", reader="return sum(NUMBERS)")
def grown_list():
    NUMBERS.append(4)
    return Given(read_numbers, (), NUMBERS.pop)


def read_pair():
    return PAIR[1][0]


@case("state_cases.PAIR", "SM301", reader="return PAIR[1][0]")
def list_inside_a_tuple():
    PAIR[1].append(0)
    PAIR[1][0] = 7
    return Given(read_pair, (), lambda: PAIR[1].__setitem__(slice(None), [2]))


def read_text():
    return len(TEXT)


@case("state_cases.TEXT", "SM301", reader="return len(TEXT)")
def end_of_a_long_text():
    return Given(read_text, (), set_to(ME, "TEXT", TEXT + "y"))


def read_late():
    return LATE  # noqa: F821


@case("state_cases.LATE", "SM301", reader="return LATE")
def global_made_at_run_time():
    globals()["LATE"] = 1
    return Given(read_late, (), lambda: globals().pop("LATE"))


# -- other modules -----------------------------------------------------------------------------------------------------


def read_debug():
    return state_support.DEBUG


@case("state_support.DEBUG", "SM301", reader="return state_support.DEBUG")
def attribute_of_a_module():
    return Given(read_debug, (), set_to(state_support, "DEBUG", True))


def read_deeply():
    return state_support.limited(100)


@case("state_support.LIMIT", "SM301", reader="return LIMIT")
def global_two_calls_away():
    return Given(read_deeply, (), set_to(state_support, "LIMIT", 50))


def read_imported_inside():
    import state_support as other

    return other.URL


@case("state_support.URL", "SM301", reader="return other.URL")
def module_imported_in_the_function():
    return Given(read_imported_inside, (), set_to(state_support, "URL", "http://localhost"))


def read_from_import():
    from state_support import URL

    return URL


@case("state_support.URL", "SM301", reader="from state_support import URL")
def name_imported_in_the_function():
    return Given(read_from_import, (), set_to(state_support, "URL", "http://localhost"))


def read_alias():
    return IMPORTED["retries"]


@case("state_cases.IMPORTED", "SM301", reader='return IMPORTED["retries"]')
def dict_under_another_name():
    state_support.OPTIONS["retries"] = 9
    return Given(read_alias, (), lambda: state_support.OPTIONS.update(retries=3))


def read_nested_option():
    return state_support.OPTIONS["nested"]["depth"]


@case("state_support.OPTIONS", "SM301", reader="return state_support.OPTIONS")
def item_of_an_item():
    state_support.OPTIONS["nested"]["depth"] = 2
    return Given(read_nested_option, (), lambda: state_support.OPTIONS.update(nested={"depth": 1}))


def read_settings():
    return settings.level


@case("state_cases.settings", "SM301", reader="return settings.level")
def attribute_of_a_global_object():
    settings.level = 5
    return Given(read_settings, (), lambda: setattr(settings, "level", 1))


@silent
def unread_attribute_of_a_global_object():
    settings.other = "y"
    return Given(read_settings, (), lambda: setattr(settings, "other", "x"))


def read_property():
    return settings.twice


@case("state_cases.settings", "SM301", reader="return settings.twice")
def property_of_a_global_object():
    settings.level = 5
    return Given(read_property, (), lambda: setattr(settings, "level", 1))


def read_method():
    return settings.describe()


@case("state_cases.settings", "SM301", reader="return settings.describe()")
def method_of_a_global_object():
    settings.level = 5
    return Given(read_method, (), lambda: setattr(settings, "level", 1))


def read_current():
    return state_support.CURRENT is not None


@case("state_support.CURRENT", "SM301", reader="return state_support.CURRENT is not None")
def object_set_at_run_time():
    return Given(read_current, (), set_to(state_support, "CURRENT", types.SimpleNamespace(user="me")))


def read_set():
    return "new" in state_support.NAMES


@case("state_support.NAMES", "SM301", reader='return "new" in state_support.NAMES')
def grown_set():
    state_support.NAMES.add("new")
    return Given(read_set, (), state_support.NAMES.clear)


def run_hooks():
    return [hook() for hook in state_support.HOOKS.values()]


@case("state_support.HOOKS", "SM301", reader="for hook in state_support.HOOKS")
def registered_callable():
    state_support.HOOKS["x"] = read_mode
    return Given(run_hooks, (), state_support.HOOKS.clear)


# -- ways to pass the target -------------------------------------------------------------------------------------------


@case("state_cases.MODE", "SM301", reader="return MODE")
def behind_a_partial():
    return Given(functools.partial(call, read_mode), (), set_to(ME, "MODE", "changed"))


def call(function):
    return function()


@case("state_cases.MODE", "SM301", reader="return MODE")
def function_among_the_arguments():
    return Given(call, (read_mode,), set_to(ME, "MODE", "changed"))


@dataclasses.dataclass
class Job:
    name: str = "job"

    def execute(self):
        return self.step()

    def step(self):
        return MODE

    def __call__(self):
        return self.step()


def execute(jobs):
    return [job.execute() for job in jobs]


@case("state_cases.MODE", "SM301", reader="return MODE")
def method_of_an_argument():
    return Given(execute, ([Job()],), set_to(ME, "MODE", "changed"))


@case("state_cases.MODE", "SM301", reader="return MODE")
def callable_object():
    return Given(Job(), (), set_to(ME, "MODE", "changed"))


class Worker(multiprocessing.get_context("spawn").Process):
    def run(self):
        self.work()

    def work(self):
        return MODE


@case("state_cases.MODE", "SM301", reader="return MODE")
def process_subclass():
    return Given(Worker(), (), set_to(ME, "MODE", "changed"))


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@decorated
def read_decorated():
    return MODE


@case("state_cases.MODE", "SM301", reader="return MODE")
def behind_a_decorator():
    return Given(read_decorated, (), set_to(ME, "MODE", "changed"))


@decorated
def read_decorated_table():
    return TABLE["a"]


def call_both():
    return len(read_decorated()), read_decorated_table()


@case("state_cases.TABLE", "SM301", reader='return TABLE["a"]')
def behind_a_decorator_that_others_have_too():
    TABLE["a"] = 99
    return Given(call_both, (), lambda: TABLE.update(a=1))


def read_computed():
    return state_support.COMPUTED


@case("state_support.LIMIT", "SM301", reader='return f"limit')
def attribute_that_the_module_computes():
    return Given(read_computed, (), set_to(state_support, "LIMIT", 50))


def read_captured():
    return state_support.read_kept()


@case("state_support.read_kept.__closure__", "SM301", reader='return kept["value"]')
def captured_dict():
    state_support.keep(5)
    return Given(read_captured, (), lambda: state_support.keep(1))


def advance():
    return state_support.step()


def decorated_with_a_count(function):
    times = 0

    @functools.wraps(function)
    def wrapper():
        nonlocal times
        times += 1
        return function(), times

    return wrapper


@case("state_support.step.__closure__", "SM301", "note", reader="total += 1")
def captured_counter():
    state_support.step()
    return Given(advance)


@decorated_with_a_count
def read_times():
    return 1


@case("state_cases.read_times.__closure__", "SM301", "note", reader="times += 1")
def counter_of_the_targets_own_decorator():
    read_times()
    return Given(read_times)


def with_default(value=NUMBERS):
    return len(value)


@case("state_cases.with_default.__defaults__", "SM301", reader="def with_default")
def default_value():
    NUMBERS.append(4)
    return Given(with_default, (), NUMBERS.pop)


def with_attribute():
    return with_attribute.calls


with_attribute.calls = 0


@case("state_cases.with_attribute", "SM301", reader="return with_attribute.calls")
def attribute_of_a_function():
    with_attribute.calls = 3
    return Given(with_attribute, (), lambda: setattr(with_attribute, "calls", 0))


# -- classes -----------------------------------------------------------------------------------------------------------


def read_class():
    return Derived.colour


@case("state_support.Base.colour", "SM302", reader="return Derived.colour")
def attribute_of_a_base_class():
    return Given(read_class, (), set_to(state_support.Base, "colour", "red"))


@case("state_support.Derived.colour", "SM302", reader="return self.colour")
def attribute_put_on_a_derived_class():
    return Given(Derived().paint, (), set_to(Derived, "colour", "red"))


@case("state_support.Base.registry", "SM302", reader="return sorted(cls.registry)")
def registry_of_a_class():
    state_support.Base.registry["x"] = Derived
    return Given(Derived.known, (), state_support.Base.registry.clear)


def read_inner():
    return Namespace.Inner.value


@case("state_support.Namespace.Inner.value", "SM302", reader="return Namespace.Inner.value")
def attribute_of_a_class_in_a_class():
    return Given(read_inner, (), set_to(Namespace.Inner, "value", 2))


def make_one():
    return Derived().paint()


@case("state_support.Base.colour", "SM302", reader="return self.colour")
def class_made_by_the_target():
    return Given(make_one, (), set_to(state_support.Base, "colour", "red"))


# -- patches -----------------------------------------------------------------------------------------------------------


def read_clock():
    return state_support.now()


@case("state_support.clock", "SM303", reader="return clock()")
def function_rebound_to_a_lambda():
    return Given(read_clock, (), set_to(state_support, "clock", lambda: 0.0))


@case("state_support.clock", "SM303", reader="return clock()")
def function_patched_by_mock():
    from unittest import mock  # not at the top: each fresh child would import asyncio

    patch = mock.patch("state_support.clock", return_value=0.0)
    patch.start()
    return Given(read_clock, (), patch.stop)


def use_double():
    return double(4)


def triple(number):
    return number * 3


@case("state_cases.double", "SM303", reader="return double(4)")
def imported_function_rebound():
    return Given(use_double, (), set_to(ME, "double", triple))


def paint(thing):
    return thing.paint()


@case("state_support.Derived.paint", "SM303", reader="return thing.paint()")
def method_patched():
    return Given(paint, (Derived(),), set_to(Derived, "paint", lambda self: "patched"))


@case("state_support.Base.helper", "SM303", reader="return self.helper()")
def static_method_patched():
    return Given(Derived().help, (), set_to(state_support.Base, "helper", staticmethod(lambda: "patched")))


def read_time():
    return time.time()


@case("time.time", "SM303", reader="return time.time()")
def standard_library_patched():
    return Given(read_time, (), set_to(time, "time", lambda: 0.0))


def open_it():
    return open("x")


@case("builtins.open", "SM303", reader='return open("x")')
def builtin_patched():
    return Given(open_it, (), set_to(builtins, "open", lambda name: name))


@case("state_cases.Derived", "SM303", reader="return Derived().paint()")
def class_patched():
    from unittest import mock  # not at the top: each fresh child would import asyncio

    return Given(make_one, (), set_to(ME, "Derived", mock.MagicMock()))


# -- the process -------------------------------------------------------------------------------------------------------


def read_level():
    return logging.getLogger("state.level").isEnabledFor(logging.DEBUG)


@case("logging.getLogger('state.level')", "SM305", reader="return logging.getLogger")
def level_of_a_logger():
    logging.getLogger("state.level").setLevel(logging.DEBUG)
    return Given(read_level, (), lambda: logging.getLogger("state.level").setLevel(0))


def write_log():
    state_support.log.warning("hello")


class Kept(logging.Handler):
    def emit(self, record):
        pass


@case("logging.getLogger('state_support')", "SM305", reader="state_support.log.warning")
def handler_of_a_logger():
    handler = Kept()
    state_support.log.addHandler(handler)
    return Given(write_log, (), lambda: state_support.log.removeHandler(handler))


def read_random():
    return random.randint(0, 10)


@case("random", "SM306", "note", reader="return random.randint")
def seeded():
    random.seed(1)
    return Given(read_random)


def read_warnings():
    warnings.warn("x", stacklevel=1)


@case("warnings.filters", "SM306", "note", reader="warnings.warn")
def filters():
    saved = warnings.filters[:]
    warnings.simplefilter("error", BytesWarning)
    return Given(read_warnings, (), lambda: warnings.filters.__setitem__(slice(None), saved))


def read_precision():
    return decimal.Decimal(1) / 3


@case("decimal", "SM306", reader="return decimal.Decimal")
def precision():
    old = decimal.getcontext().prec
    decimal.getcontext().prec = 4
    return Given(read_precision, (), lambda: setattr(decimal.getcontext(), "prec", old))


def read_locale():
    return locale.str(1.5)


@case("locale", "SM306", reader="return locale.str")
def numbers_of_a_locale():
    old = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    return Given(read_locale, (), lambda: locale.setlocale(locale.LC_NUMERIC, old))


def raise_signal():
    return signal.getsignal(signal.SIGUSR2)


def on_signal(_number, _frame):
    pass


@case("signal.SIGUSR2", "SM306", reader="return signal.getsignal")
def handler_of_a_signal():
    old = signal.signal(signal.SIGUSR2, on_signal)
    return Given(raise_signal, (), lambda: signal.signal(signal.SIGUSR2, old))


def read_variable():
    return state_support.variable.get()


@case("state_support.variable", "SM306", reader="return state_support.variable.get()")
def context_variable():
    token = state_support.variable.set("changed")
    return Given(read_variable, (), lambda: state_support.variable.reset(token))


def read_local():
    return state_support.local.name


@case("state_support.local", "SM306", reader="return state_support.local.name")
def thread_local():
    state_support.local.name = "changed"
    return Given(read_local, (), lambda: setattr(state_support.local, "name", "as imported"))


def read_injected():
    import state_injected

    return state_injected.value


@case("sys.modules['state_injected']", "SM306", reader="import state_injected")
def injected_module():
    sys.modules["state_injected"] = types.ModuleType("state_injected")
    sys.modules["state_injected"].value = 1
    return Given(read_injected, (), lambda: sys.modules.pop("state_injected"))


def take_lock():
    with state_support.LOCK:
        return True


@case("state_support.LOCK", "SM307", "note", reader="with state_support.LOCK")
def lock_made_at_import():
    return Given(take_lock)


# -- replaced parts of libraries ---------------------------------------------------------------------------------------


class FixedDate(datetime.date):
    @classmethod
    def today(cls):
        return cls(1999, 1, 1)


def read_today():
    return datetime.date.today().year


@case("datetime.date", "SM303", reader="return datetime.date")
def class_of_the_library_replaced():
    return Given(read_today, (), set_to(datetime, "date", FixedDate))


def always(_self, **_options):
    return True


def read_exists():
    return pathlib.Path("/not/there").exists()


@case("pathlib.Path.exists", "SM303", reader="return pathlib.Path")
def method_of_a_library_class_patched():
    return Given(read_exists, (), set_to(pathlib.Path, "exists", always))


def read_flag():
    return os.environ.get("STATE_CASES_FLAG")


def always_set(_name, _default=None):
    return "set"


@case("os.environ", "SM303", reader="return os.environ")
def method_of_a_library_object_patched():
    return Given(read_flag, (), set_to(os.environ, "get", always_set))


def write_text():
    return json.dumps({"a": 1})


def no_text(_value, **_options):
    return "patched"


@case("json.dumps", "SM303", reader="return json.dumps")
def function_that_the_plugin_uses_too():
    return Given(write_text, (), set_to(json, "dumps", no_text))


def read_hook():
    return sys.excepthook


def quiet(*_error):
    pass


@case("sys.excepthook", "SM303", reader="return sys.excepthook")
def hook_of_the_interpreter():
    return Given(read_hook, (), set_to(sys, "excepthook", quiet))


def read_plain_default(size=3):
    return size


@case("state_cases.read_plain_default.__defaults__", "SM301", reader="def read_plain_default")
def plain_default_set_anew():
    return Given(read_plain_default, (), set_to(read_plain_default, "__defaults__", (4,)))


# -- registration at import --------------------------------------------------------------------------------------------


@functools.singledispatch
def shown(_value):
    return "any"


def shown_number(_value):
    return "number"


def show():
    return shown(1)


@case("state_cases.shown.registry", "SM301", reader="return shown")
def implementation_registered_later():
    shown.register(int, shown_number)

    def undo():
        del inspect.getclosurevars(shown.register).nonlocals["registry"][int]
        shown._clear_cache()

    return Given(show, (), undo)


class Base:
    pass


def subclass_names():
    return [cls.__name__ for cls in Base.__subclasses__()]


@case("state_cases.Base.__subclasses__", "SM302", reader="Base.__subclasses__")
def subclass_made_later():
    kept = [types.new_class("Late", (Base,))]

    def undo():
        kept.clear()
        gc.collect()

    return Given(subclass_names, (), undo)


NUMBERED = itertools.count()


def next_number():
    return next(NUMBERED)


@case("state_cases.NUMBERED", "SM301", "note", reader="return next(NUMBERED)")
def counter_that_the_parent_has_used():
    next(NUMBERED)
    return Given(next_number, (), set_to(ME, "NUMBERED", itertools.count(7)))


class Drawn(abc.ABC):  # noqa: B024
    pass


class Square:
    pass


def is_drawn():
    return isinstance(Square(), Drawn)


def is_number():
    return isinstance(Square(), (int, numbers.Number))


def unregister():
    for each in (Drawn, numbers.Number):
        _abc._reset_registry(each)
        _abc._reset_caches(each)


@case("state_cases.Drawn._abc_registry", "SM302", reader="isinstance(Square(), Drawn")
def class_registered_with_an_abc():
    Drawn.register(Square)
    return Given(is_drawn, (), unregister)


@case("numbers.Number._abc_registry", "SM302", reader="isinstance(Square(), (int")
def class_registered_with_an_abc_of_the_library():
    numbers.Number.register(Square)
    return Given(is_number, (), unregister)


@silent
def abc_with_what_its_module_registers():
    return Given(is_mapping)


def is_mapping():
    return isinstance(IMPORTED, collections.abc.Mapping), isinstance(Square(), Listed)


class Listed(abc.ABC):  # noqa: B024
    pass


Listed.register(list)


class Kind(enum.Enum):
    ONE = 1


def kind_of_two():
    return Kind(2)


@case("state_cases.Kind._member_map_", "SM302", reader="return Kind(2)")
def member_added_to_an_enum():
    member = object.__new__(Kind)
    member._name_, member._value_ = "TWO", 2
    Kind._member_map_["TWO"] = Kind._value2member_map_[2] = member

    def undo():
        del Kind._member_map_["TWO"], Kind._value2member_map_[2]

    return Given(kind_of_two, (), undo)


def run_handlers():
    return [handler() for handler in HANDLERS.values()]


HANDLERS: dict[str, object] = {}


@case("state_cases.HANDLERS", "SM301", reader="HANDLERS.values")
def handler_registered_later():
    HANDLERS["late"] = read_mode
    return Given(run_handlers, (), HANDLERS.clear)


def read_platform():
    return sys.platform


@case("sys.platform", "SM301", reader="return sys.platform")
def another_platform():
    return Given(read_platform, (), set_to(sys, "platform", "plan9"))


def read_added():
    return getattr(sys, "_called_from_test", False)


@case("sys._called_from_test", "SM301", reader="return getattr(sys")
def name_added_to_sys():
    return Given(read_added, (), set_to(sys, "_called_from_test", True))


@silent
def what_sys_has_of_its_own():
    return Given(read_sys)


def read_sys():
    return sys.executable, sys.argv, sys.path, sys.modules, sys.version_info, sys.flags, sys.stdout, sys.maxsize


def read_by_import():
    return importlib.import_module("state_support").DEBUG


@case("state_support.DEBUG", "SM301", reader="importlib.import_module")
def attribute_of_a_module_imported_by_a_function():
    return Given(read_by_import, (), set_to(state_support, "DEBUG", True))


WAITING = queue.Queue()
DONE = threading.Event()
KNOWN = weakref.WeakValueDictionary()


def read_waiting():
    return WAITING.qsize(), DONE.is_set(), len(KNOWN)


@case("state_cases.WAITING", "SM301", reader="return WAITING")
def filled_queue_of_threads():
    WAITING.put(1)
    return Given(read_waiting, (), WAITING.get)


@case("state_cases.DONE", "SM301", reader="return WAITING")
def event_that_is_set():
    DONE.set()
    return Given(read_waiting, (), DONE.clear)


@case("state_cases.KNOWN", "SM301", reader="return WAITING")
def filled_weak_dictionary():
    KNOWN["x"] = Base
    return Given(read_waiting, (), KNOWN.clear)


@silent
def queue_and_event_as_imported():
    return Given(read_waiting)


# -- process-wide settings ---------------------------------------------------------------------------------------------


def read_limits():
    return sys.getrecursionlimit()


@case("sys.getrecursionlimit", "SM306", reader="return sys.getrecursionlimit")
def recursion_limit():
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(old + 500)
    return Given(read_limits, (), lambda: sys.setrecursionlimit(old))


def read_collecting():
    return gc.isenabled(), gc.get_threshold()


@case("gc.isenabled", "SM306", reader="return gc.isenabled")
def no_collection():
    gc.disable()
    return Given(read_collecting, (), gc.enable)


@silent
def collection_as_ever():
    return Given(read_collecting)


def read_patience():
    return socket.getdefaulttimeout()


@case("socket.getdefaulttimeout", "SM306", reader="return socket.getdefaulttimeout")
def patience_of_sockets():
    socket.setdefaulttimeout(3)
    return Given(read_patience, (), lambda: socket.setdefaulttimeout(None))


def read_directory():
    return tempfile.gettempdir()


@case("tempfile", "SM306", reader="return tempfile.gettempdir")
def directory_for_temporary_files():
    return Given(read_directory, (), set_to(tempfile, "tempdir", os.getcwd()))


@silent
def directory_for_temporary_files_as_ever():
    tempfile.gettempdir()
    return Given(read_directory)


def read_level_name():
    return logging.getLevelName(5)


@case("logging.getLevelName", "SM306", reader="return logging.getLevelName")
def level_with_a_name():
    logging.addLevelName(5, "TRACE")

    def undo():
        del logging._levelToName[5], logging._nameToLevel["TRACE"]

    return Given(read_level_name, (), undo)


def read_root_level():
    return logging.root.level


@case("logging.root", "SM305", reader="return logging.root")
def level_of_the_root():
    old = logging.root.level
    logging.root.setLevel(13)
    return Given(read_root_level, (), lambda: logging.root.setLevel(old))


def read_type():
    return mimetypes.guess_type("a.state")


@case("mimetypes", "SM306", reader="return mimetypes")
def type_of_a_file():
    mimetypes.add_type("text/state", ".state")
    return Given(read_type, (), mimetypes.init)


GENERATOR = random.Random(7)
SEEDED_BY_TIME = random.Random()


def draw():
    return GENERATOR.random(), SEEDED_BY_TIME.random()


@case("state_cases.GENERATOR", "SM306", level="note", reader="return GENERATOR")
def generator_that_went_on():
    GENERATOR.random()
    return Given(draw, (), lambda: GENERATOR.seed(7))


@silent
def generators_as_imported():
    return Given(draw)


def read_without():
    try:
        import colorsys
    except ImportError:
        return False
    return colorsys is not None


@case("sys.modules['colorsys']", "SM306", reader="import colorsys")
def module_that_cannot_be_imported():
    old = sys.modules.pop("colorsys", None)
    sys.modules["colorsys"] = None

    def undo():
        del sys.modules["colorsys"]
        if old is not None:
            sys.modules["colorsys"] = old

    return Given(read_without, (), undo)


def read_text_back():
    return json.loads("1")


@case("json.loads", "SM303", reader="return json.loads")
def function_that_reads_the_answers_too():
    return Given(read_text_back, (), set_to(json, "loads", no_text))


def read_models():
    return len(state_support.Model.known)


@case("state_support.Registering.known", "SM302", reader="return len(state_support.Model.known)")
def registry_of_a_metaclass():
    types.new_class("LateModel", (state_support.Model,))
    return Given(read_models, (), state_support.Registering.known.pop)


def show_basket():
    return state_support.basket.show()


@case("state_support.basket", "SM303", reader="return state_support.basket.show()")
def method_patched_on_one_object():
    return Given(show_basket, (), set_to(state_support.basket, "show", lambda: "patched"))


def read_corner():
    return state_support.corner.x


@case("state_support.corner", "SM301", reader="return state_support.corner.x")
def field_of_a_named_tuple():
    return Given(read_corner, (), set_to(state_support, "corner", state_support.Corner(1, 1)))


def read_measured():
    return state_support.measured.whole


@case("state_support.measured", "SM301", reader="return state_support.measured.whole")
def attribute_by_a_descriptor():
    return Given(read_measured, (), set_to(state_support.measured, "half", 4))


def read_vars():
    return vars(state_support)["LIMIT"]


@case("state_support.LIMIT", "SM301", reader="return vars(state_support)")
def item_of_a_modules_namespace():
    return Given(read_vars, (), set_to(state_support, "LIMIT", 50))


def read_namespace():
    return state_support.__dict__["LIMIT"]


@case("state_support.LIMIT", "SM301", reader="return state_support.__dict__")
def item_of_a_modules_dict():
    return Given(read_namespace, (), set_to(state_support, "LIMIT", 50))


def make_measured():
    return vars(state_support.Measured(3))


@case("state_support.Measured.__init__", "SM303", reader="return vars(state_support.Measured(3))")
def constructor_patched():
    from unittest import mock  # not at the top: each fresh child would import asyncio

    patch = mock.patch.object(state_support.Measured, "__init__", return_value=None)
    patch.start()
    return Given(make_measured, (), patch.stop)


def show_measured():
    return f"{state_support.measured!r}"


@case("state_support.Measured.__repr__", "SM303", reader="return f")
def text_of_an_object_patched():
    return Given(show_measured, (), set_to(state_support.Measured, "__repr__", lambda self: "patched"))


def read_separator():
    return json.JSONEncoder.item_separator


@case("json.encoder.JSONEncoder.item_separator", "SM302", reader="return json.JSONEncoder")
def class_that_the_plugin_uses_too():
    return Given(read_separator, (), set_to(json.JSONEncoder, "item_separator", "|"))


def use_len():
    return len(state_support.basket)


def use_add():
    return state_support.basket + 1


def use_contains():
    return 5 in state_support.basket


def use_iter():
    return [each for each in state_support.Basket()]  # noqa: C416


def use_getitem():
    basket = state_support.Basket()
    return basket[0]


def use_call():
    return state_support.Basket()()


def use_lt():
    return state_support.Basket() < 1


def _method_of_an_operator(reader: Callable[[], Any]) -> None:
    name = f"__{reader.__name__.removeprefix('use_')}__"

    def make() -> Given:
        return Given(reader, (), set_to(state_support.Basket, name, patched_method))

    make.__name__ = f"method_of_an_operator_{reader.__name__}"
    case(f"state_support.Basket.{name}", "SM303", reader="asket")(make)


def patched_method(*_args):
    return iter([7])


for each in (use_len, use_add, use_contains, use_iter, use_getitem, use_call, use_lt):
    _method_of_an_operator(each)


# -- harmless differences ----------------------------------------------------------------------------------------------


def read_option():
    return state_support.option("retries")


@case("state_support.option", "SM301", "note", reader="return state_support.option")
def primed_cache():
    state_support.option("retries")
    return Given(read_option, (), state_support.option.cache_clear)


@case("state_support.COUNT", "SM301", "note", reader="COUNT += 1")
def counter_that_the_code_advances():
    return Given(state_support.count, (), set_to(state_support, "COUNT", 7))


@silent
def cache_that_the_code_fills():
    state_support.cache["x"] = 1
    return Given(state_support.remember, ("x",), state_support.cache.clear)


@silent
def nothing_changed():
    return Given(read_table)


def read_stamps():
    return STAMP, TOKEN, IDENTITY, SENTINEL


@silent
def times_and_identities():
    return Given(read_stamps)


@silent
def changed_and_unread():
    return Given(read_table, (), set_to(ME, "MODE", "changed"))


@silent
def changed_in_an_unread_class():
    return Given(read_debug, (), set_to(state_support.Base, "colour", "red"))


def only_writes():
    global COUNTED
    COUNTED = 1


@silent
def global_that_is_only_written():
    return Given(only_writes, (), set_to(ME, "COUNTED", 5))


def sets_first():
    global COUNTED
    COUNTED = 1
    state_support.COUNT = 2
    if COUNTED:
        return COUNTED + state_support.COUNT
    return COUNTED


@silent
def global_that_is_set_before_it_is_read():
    undo, other = set_to(ME, "COUNTED", 5), set_to(state_support, "COUNT", 9)
    return Given(sets_first, (), lambda: (undo(), other()))


def shadows():
    MODE = [1]  # noqa: N806
    return MODE[0]


@silent
def local_of_the_same_name():
    return Given(shadows, (), set_to(ME, "MODE", "changed"))


def read_environment():
    return os.environ.get("STATE_CASES"), os.getcwd(), sys.path[:1]


@silent
def what_spawn_carries():
    os.environ["STATE_CASES"] = "1"
    return Given(read_environment, (), lambda: os.environ.pop("STATE_CASES"))


def prints():
    print("x", file=sys.stderr)
    return threading.current_thread().name


@silent
def streams_and_threads():
    return Given(prints)


def equal_again():
    return TABLE


@silent
def another_object_of_the_same_value():
    return Given(equal_again, (), set_to(ME, "TABLE", {"b": 2, "a": 1}))


# -- attributes that hooks compute -----------------------------------------------------------------------------------


class Hooked:
    """An object whose attributes are items of a dictionary."""

    def __init__(self):
        self.__dict__["values"] = {"root": "default"}

    def __getattr__(self, name):
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self.values[name] = value

    def __delattr__(self, name):
        del self.values[name]


hooked = Hooked()


def read_hooked():
    return hooked.root


@case("state_cases.hooked", "SM301", reader="return hooked.root")
def attribute_that_a_hook_computes():
    hooked.root = "changed"
    return Given(read_hooked, (), lambda: setattr(hooked, "root", "default"))


def set_and_read_hooked():
    hooked.root = "mine"
    return hooked.root


@silent
def attribute_that_a_hook_computes_and_the_code_sets():
    hooked.root = "changed"
    return Given(set_and_read_hooked, (), lambda: setattr(hooked, "root", "default"))


def delete_and_read_hooked():
    del hooked.root
    return getattr(hooked, "root", None)


@silent
def attribute_that_a_hook_computes_and_the_code_deletes():
    hooked.root = "changed"
    return Given(delete_and_read_hooked, (), lambda: setattr(hooked, "root", "default"))


@silent
def attribute_that_a_hook_computes_and_nobody_changed():
    hooked.root = "default"
    return Given(read_hooked)
