"""What the tests of `session_cases` start processes with; children import it without pytest."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import dataclasses
import functools
import html
import io
import logging
import mmap
import multiprocessing
import os
import tempfile
import threading
import xml
from contextvars import ContextVar
from typing import Any, ClassVar

# -- starting processes ------------------------------------------------------------------------------------------------


def _call(connection, function, args):
    try:
        connection.send(("ok", function(*args)))
    except Exception as error:
        connection.send(("error", repr(error)))
    connection.close()


def in_process(function, *args):
    """Return what ``function(*args)`` returns in a process; what it raises arrives as its ``repr()`` only."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_call, args=(theirs, function, args))
    process.start()
    theirs.close()
    try:
        kind, value = ours.recv()
    finally:
        process.join()
    if kind == "error":
        raise RuntimeError(value)
    return value


def in_pool(function, *args):
    with multiprocessing.Pool(1) as pool:
        return pool.apply(function, args)


def run(target, *args):
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def run_with(target, **options):
    return run(_with, target, options)


def _with(target, options):
    target(**options)


def get(thing, *names):
    for name in names:
        thing = getattr(thing, name)
    return thing


def nothing(*args):
    return None


# -- objects -----------------------------------------------------------------------------------------------------------


class Field:
    def __init__(self, default=None):
        self.default = default


class Fields(type):
    def __new__(cls, name, bases, space):
        fields = {key: value for key, value in space.items() if isinstance(value, Field)}
        made = super().__new__(cls, name, bases, {k: v for k, v in space.items() if k not in fields})
        made.fields = fields
        return made


class Message(metaclass=Fields):
    to = Field()
    on_sent = Field()

    def __init__(self, **values):
        for name, field in self.fields.items():
            setattr(self, name, values.get(name, field.default))


@dataclasses.dataclass
class Account:
    user: str
    guard: Any = dataclasses.field(default_factory=threading.Lock)

    def send(self):
        return self.user


class Polite:
    """Leaves its lock out of its state."""

    def __init__(self):
        self.lock, self.n = threading.Lock(), 4

    def __getstate__(self):
        return {"n": self.n}

    def __setstate__(self, state):
        self.__init__()
        self.n = state["n"]

    def value(self):
        return self.n


class Unfinished:
    def __getstate__(self):
        return {name: getattr(self, name) for name in ("a", "b")}


class Draining:
    def __init__(self, items=()):
        self.items = list(items)

    def __reduce__(self):
        taken = []
        while self.items:
            taken.append(self.items.pop(0))
        return Draining, (taken,)


class Closing:
    def __init__(self):
        self.handle = io.StringIO("x")

    def __getstate__(self):
        self.handle.close()
        return {}

    def __setstate__(self, state):
        self.__init__()

    def text(self):
        return self.handle.read()


class Request:
    """Rebuilt from its name."""

    def __init__(self, name):
        self.name, self.headers = name, {}

    def __reduce__(self):
        return Request, (self.name,)

    def header(self, key):
        return self.headers.get(key)


class Word(str):
    def __new__(cls, value, language="en"):
        made = super().__new__(cls, value)
        made.language = language
        return made

    def __reduce__(self):
        return Word, (str(self),)

    def spoken(self):
        return self.language


class Renewing:
    def __init__(self):
        self.queue = multiprocessing.SimpleQueue()

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()

    def send(self):
        self.queue.put(1)


class Refilling:
    """Its cache is left out, and filled again."""

    def __init__(self):
        self._cache = None

    def __getstate__(self):
        return {}

    def value(self):
        if getattr(self, "_cache", None) is None:
            self._cache = 3
        return self._cache


class Warehouse:
    _instance = None

    @classmethod
    def instance(cls):
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance


def is_the_warehouse(warehouse):
    return warehouse is Warehouse.instance()


class Unit:
    _units: ClassVar[dict[str, Unit]] = {}

    def __new__(cls, name="piece"):
        if name not in cls._units:
            cls._units[name] = super().__new__(cls)
            cls._units[name].name = name
        return cls._units[name]


def is_a_box(unit):
    return unit is Unit("box")


class Marker:
    def __init__(self, name):
        self.name = name

    def __reduce_ex__(self, protocol):
        return (Marker, (self.name,))


class Signals:
    def __init__(self):
        self.STOP = Marker("stop")


signals = Signals()


def is_stop(signal):
    return signal is signals.STOP


class Absent:
    def __reduce__(self):
        return "ABSENT"


ABSENT = Absent()


def is_absent(value):
    return value is ABSENT


class Versioned:
    def __init__(self):
        self.text = "x"

    def __setstate__(self, state):
        raise ValueError("unversioned")


class Reply(Exception):  # noqa: N818
    def __init__(self, code, text):
        super().__init__(f"{code} {text}")
        self.code = code


def refuse():
    raise Reply(500, "no")


class Refusal(Exception):  # noqa: N818
    def __init__(self, code, text):
        super().__init__(code, text)


def refuse_well():
    raise Refusal(500, "no")


class Plugin:
    pass


def traced(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@traced
def post(n):
    return n + 1


# -- state -------------------------------------------------------------------------------------------------------------

_themes = ["light"]
tenant = ContextVar("tenant", default="nobody")
ROUNDING = 2
PRICES = {"gold": 10}
log = logging.getLogger("session_code")
COUNTER = multiprocessing.Value("i", 0)
MEMORY = mmap.mmap(-1, 64)
with tempfile.TemporaryFile() as page:
    page.write(bytes(64))
    page.flush()
    MAPPED = mmap.mmap(page.fileno(), 64)  # of a descriptor of its own


@contextlib.contextmanager
def theme(name):
    _themes.append(name)
    try:
        yield
    finally:
        _themes.pop()


def current_theme():
    return _themes[-1]


def who():
    return tenant.get()


@functools.singledispatch
def render(value):
    return "?"


class Exporter:
    formats: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        Exporter.formats[cls.__name__] = cls

    @classmethod
    def known(cls):
        return sorted(cls.formats)


class Labelled(type):
    prefix = "a-"

    @property
    def label(cls):
        return cls.prefix + cls.__name__


class Tool(metaclass=Labelled):
    pass


def label():
    return Tool.label


def price(level):
    return PRICES.get(level, 0)


def rounded(value):
    return round(value, ROUNDING)


def raised_price(level):
    PRICES[level] = 70
    return price(level)


def escaped(value):
    return html.escape(value)


def lossy(text):
    return text.encode("ascii", "session-code").decode()


def read(descriptor):
    return os.read(descriptor, 5)


def filters():
    return len(log.filters)


def mark():
    MEMORY[0] = 1


def first_byte():
    return MAPPED[0]


class Sealed:
    """Pickles only where a reducer is registered for it."""

    def __reduce__(self):
        raise TypeError("sealed")


def sealed():
    return Sealed()


def text_of(source):
    return xml.dom.minidom.parseString(source).documentElement.tagName


def misspelt():
    return xml.dom_


def bump():
    with COUNTER.get_lock():
        COUNTER.value += 1


def bump_given(counter):
    with counter.get_lock():
        counter.value += 1


_seen: list[int] = []


def record(value):
    _seen.append(value)


def recorded():
    return len(_seen)


def scratch(n):
    PRICES["scratch"] = n
    return PRICES.pop("scratch") * 2


@functools.lru_cache
def square(n):
    return n * n


def elapsed(unit=None):
    return ROUNDING if unit is None else unit


def replace_codec_error(error):
    return "?", error.end


def register_codec_error():
    codecs.register_error("session-code", replace_codec_error)


@atexit.register
def leave():
    if os.environ.get("SESSION_CODE"):
        with contextlib.suppress(OSError):
            os.unlink(os.environ["SESSION_CODE"])


def fill(*, into, value=1):
    into.append(value)


def import_alias():
    import session_alias

    return session_alias.ROUNDING


class Quiet:
    def run(self):
        return "quiet"


class Loud(Quiet):
    def run(self):
        return "loud"

    def of_base(self):
        return super().run
