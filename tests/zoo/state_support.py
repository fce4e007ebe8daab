"""The targets of `state_cases`: settings, registries and functions with a value from import."""

from __future__ import annotations

import collections
import contextvars
import functools
import logging
import multiprocessing
import threading

DEBUG = False
LIMIT = 5
URL = "http://example.invalid"
OPTIONS = {"retries": 3, "unused": 0, "nested": {"depth": 1}}
PLUGINS: list[str] = []
NAMES: set[str] = set()
HOOKS: dict[str, object] = {}
CURRENT = None
COUNT = 0
cache: dict[str, int] = {}
LOCK = multiprocessing.get_context("spawn").Lock()
log = logging.getLogger("state_support")
variable = contextvars.ContextVar("variable", default="as imported")
local = threading.local()
local.name = "as imported"


def clock():
    return 12.0


def double(number):
    return number * 2


def read_limit():
    return LIMIT


def limited(number):
    return min(number, read_limit())


def now():
    return clock()


@functools.lru_cache
def option(name):
    return OPTIONS[name]


class Settings:
    def __init__(self):
        self.level = 1
        self.other = "x"

    def describe(self):
        return f"level {self.level}"

    @property
    def twice(self):
        return self.level * 2


settings = Settings()
Corner = collections.namedtuple("Corner", "x y")
corner = Corner(0, 0)


class Doubled:
    """A descriptor that computes from the object's attributes."""

    def __get__(self, held, _cls=None):
        return held.__dict__["half"] * 2


class Measured:
    whole = Doubled()

    def __init__(self, half):
        self.half = half

    def __repr__(self):
        return f"Measured({self.half})"


measured = Measured(1)


class Base:
    colour = "grey"
    registry: dict[str, type] = {}  # noqa: RUF012

    def paint(self):
        return self.colour

    @classmethod
    def known(cls):
        return sorted(cls.registry)

    @staticmethod
    def helper():
        return "helper"

    def help(self):
        return self.helper()


class Derived(Base):
    def paint(self):
        return "derived " + super().paint()


class Namespace:
    class Inner:
        value = 1


class Registering(type):
    known: list[str] = []  # noqa: RUF012

    def __new__(cls, name, bases, namespace):
        made = super().__new__(cls, name, bases, namespace)
        cls.known.append(name)
        return made


class Model(metaclass=Registering):
    pass


class Basket:
    def __init__(self):
        self.things = [1]

    def __len__(self):
        return len(self.things)

    def __add__(self, other):
        return f"basket and {other}"

    def __contains__(self, thing):
        return thing in self.things

    def __iter__(self):
        return iter(self.things)

    def __getitem__(self, index):
        return self.things[index]

    def __call__(self):
        return "called"

    def __lt__(self, other):
        return False

    def show(self):
        return "basket"


basket = Basket()


def keeper():
    kept = {"value": 1}
    total = 0

    def read():
        return kept["value"]

    def keep(value):
        kept["value"] = value

    def step():
        nonlocal total
        total += 1
        return total

    return read, keep, step


read_kept, keep, step = keeper()


def __getattr__(name):
    if name == "COMPUTED":
        return f"limit {LIMIT}"
    raise AttributeError(name)


def count():
    global COUNT
    COUNT += 1
    return COUNT


def remember(key):
    if key not in cache:
        cache[key] = len(key)
    return cache[key]
