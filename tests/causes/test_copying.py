"""Pickling changes the parent's object (SM108), or the copy that arrives differs (SM204)."""

from __future__ import annotations

import io
import linecache
import multiprocessing
import multiprocessing.pool
import multiprocessing.process
import multiprocessing.queues
import pickle
import threading

import pytest

from pytest_startmethod.causes import copying, explain
from pytest_startmethod.child import copied, replayer, values
from pytest_startmethod.model.evidence import Evidence
from pytest_startmethod.model.launch import Launch
from pytest_startmethod.pickling import sent

SPAWN = multiprocessing.get_context("spawn")
UNSET = object()


class Blanks:
    """Empties itself when pickled."""

    def __init__(self):
        self.connections, self.name = {"a": 1}, "n"

    def count(self):
        return len(self.connections)

    def __getstate__(self):
        state = self.__dict__
        state["connections"] = {}
        return state


class Copies(Blanks):
    def __getstate__(self):
        return {**self.__dict__, "connections": {}}


class Caches(Blanks):
    """Caches its state in a new attribute when pickled."""

    def __getstate__(self):
        self.cached = {**self.__dict__, "connections": {}}
        return self.cached


class Drops(Blanks):
    def __getstate__(self):
        state = self.__dict__
        state.pop("connections", None)
        return state


def work(*args):
    pass


def launched(*args):
    """Return a launch whose process was pickled as by `start`."""
    process = SPAWN.Process(target=work, args=args)
    launch = Launch("spawn", "work", (), None, None, None, "t")
    every = sent.parts(process)
    seen = sent.before(every)
    pickle.dumps(args)
    launch.changed = tuple(sent.changes(seen))
    return launch


def findings(text, *args, method="spawn"):
    return copying.changed(Evidence("t", method, "failed", launches=[launched(*args)], text=text))


@pytest.mark.parametrize(
    ("args", "path", "after"),
    [
        ((Blanks(),), "args[0].connections", "is {}"),
        (([{"k": Drops()}],), "args[0][0]['k'].connections", "is gone"),
    ],
    ids=["replaced", "removed, in containers"],
)
def test_what_pickling_takes_from_the_parent_is_told(args, path, after):
    """The finding points at the line of the pickling method that names the attribute."""
    (found,) = findings("assert registry.connections == {'a': 1}", *args)
    assert (found.code, found.level, found.path) == ("SM108", "cause", path)
    assert f"`connections`, which was {{'a': 1}}, {after}." in found.message
    assert "connections" in linecache.getline(found.file, found.line)
    assert "state = self.__dict__.copy()" in found.fix


def test_a_method_of_the_class_that_reads_the_attribute_is_enough():
    """The test itself need not mention the attribute."""
    (found,) = findings("assert 0 == 1  where 0 = count()", Blanks())
    assert found.level == "cause"


def test_what_the_failure_does_not_read_is_a_note():
    """A buffer flushed by pickling does not explain an unrelated failure."""
    (found,) = findings("assert answer == 3", Blanks())
    assert found.level == "note"


@pytest.mark.parametrize("arg", [Copies(), Caches()], ids=["a copy is changed", "something is added"])
def test_an_object_that_keeps_what_it_had_is_silent(arg):
    """Pickling methods that restore or copy the state have no finding."""
    assert findings("connections cached", arg) == []


def test_nothing_is_pickled_under_fork():
    """Changes by pickling explain nothing under fork."""
    assert findings("connections", Blanks(), method="fork") == []


class Counted(multiprocessing.queues.Queue):
    def __init__(self):
        super().__init__(ctx=SPAWN)
        self.limit = 3


class Renews:
    def __init__(self):
        self.lock = SPAWN.Lock()

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()


def differing(arg, copy, text=""):
    process = SPAWN.Process(target=work, args=(arg,))
    account = sent.account(process, sent.parts(process))
    if account is None:
        return []
    taken = {"target": work, "args": (copy,), "kwargs": {}}
    arrived = copied.account(taken, vars(values), account["modules"])
    return copying.differing(Evidence("t", "spawn", "failed", copied=[(account, arrived)], text=text))


def test_an_attribute_that_the_inherited_method_leaves_out():
    """SM204 names the inherited pickling method, if the failure mentions the attribute."""
    queue, copy = Counted(), Counted.__new__(Counted)
    vars(copy).update({name: value for name, value in vars(queue).items() if name != "limit"})
    (found,) = differing(queue, copy, "AttributeError: 'Counted' object has no attribute 'limit'")
    assert (found.code, found.path) == ("SM204", "args[0].limit")
    assert "`Queue.__getstate__`" in found.message
    assert "in Counted:" in found.fix
    assert differing(queue, copy, "AssertionError") == []


def test_a_sentinel_is_told_by_its_name():
    """The copy of a sentinel is not the module's object."""
    (found,) = differing(SimpleNamespaceOf(UNSET), SimpleNamespaceOf(object()))
    assert (found.code, found.path) == ("SM204", "args[0].result")
    assert f"`{__name__}.UNSET`" in found.message


def test_a_sentinel_that_is_an_argument_itself():
    """The sentinel's module is the one that the target names, whatever else is sent."""
    (found,) = differing(UNSET, object())
    assert (found.code, found.path) == ("SM204", "args[0]")
    assert f"`{__name__}.UNSET`" in found.message


class SimpleNamespaceOf:
    def __init__(self, result):
        self.result = result


def test_a_sentinel_that_pickles_by_name_is_silent():
    """A sentinel pickled by name is the child's own."""
    assert differing(SimpleNamespaceOf(UNSET), SimpleNamespaceOf(UNSET)) == []


def test_a_lock_that_unpickling_makes_anew():
    """Parent and child hold different locks."""
    (found,) = differing(Renews(), Renews())
    assert (found.code, found.path) == ("SM204", "args[0].lock")
    assert "makes a new one" in found.message
    shared = SPAWN.Lock()
    one, other = Renews(), Renews()
    one.lock = other.lock = shared
    assert differing(one, other) == []


def renamed(function):
    def run(self):
        return function(self)

    return run


class Quiet:
    def run(self):
        return "quiet"

    @classmethod
    def made(cls):
        return cls()


class Loud(Quiet):
    def run(self):
        return "loud"

    def of_base(self):
        return super().run

    @renamed
    def go(self):
        return "go"


@pytest.mark.parametrize(
    ("method", "name", "fix"),
    [(Loud().of_base(), "Quiet.run", "calls `Quiet.run`"), (Loud().go, "renamed.<locals>.run", "@functools.wraps")],
    ids=["of a base class", "of a decorator"],
)
def test_a_method_is_told_whose_name_leads_to_another(method, name, fix):
    """A method is sent by its name, under which the object may have another function."""
    (found,) = differing(method, Loud().run)
    assert (found.code, found.path) == ("SM204", "args[0]")
    assert f"the bound method `{__name__}.{name}`, and the child gets `{__name__}.Loud.run`" in found.message
    assert fix in found.fix
    assert (found.file, found.line) == (__file__, method.__func__.__code__.co_firstlineno)


@pytest.mark.parametrize(
    "method",
    [Loud().run, Quiet().run, Loud().made, Loud.made, [].append],
    ids=["own", "of the base", "inherited", "of the class", "built in"],
)
def test_a_method_that_its_name_leads_to_is_silent(method):
    assert differing(method, method) == []


def test_a_difference_is_told_where_nothing_else_is_a_cause():
    """`explain` reports SM204 only if there is no other cause."""
    launch = launched(Blanks())
    given = Evidence("t", "spawn", "failed", launches=[launch], text="connections")
    assert [each.code for each in explain.explain(given)] == ["SM108"]
    lock = threading.Lock()
    assert differing(lock, lock) == []


def test_objects_get_back_what_they_held():
    """Objects are restored, so that a copy of the process can pickle them again."""
    obj = Drops()
    seen = sent.before(sent.parts(SPAWN.Process(target=work, args=(obj,))))
    pickle.dumps(obj)
    (change,) = sent.changes(seen)
    (found,) = copying.taken([change])
    assert (found.code, found.level, found.path) == ("SM108", "cause", "args[0].connections")
    sent.restore(seen)
    assert vars(obj) == {"connections": {"a": 1}, "name": "n"}
    assert list(sent.changes(seen)) == []


class Named:
    def __init__(self, name):
        self.name = name


COMPARED = Named("compared")
PASSED = Named("passed")


def is_compared(value):
    return value is COMPARED


@pytest.mark.parametrize(("value", "count"), [(COMPARED, 1), (PASSED, 0)], ids=["compared by is", "only passed"])
def test_a_global_with_content_is_told_only_where_code_compares_it(value, count):
    """Any module global may be an argument; a copy matters to code that asks for its identity."""
    assert len(differing(value, Named(value.name))) == count


class Pool:
    _instance = None
    _by_name: dict[str, Pool] = {}  # noqa: RUF012

    @classmethod
    def get(cls):
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def __eq__(self, other):
        return self is other

    __hash__ = None  # type: ignore[assignment]


class Kinds:
    def __init__(self):
        self.STOP = Named("stop")


KINDS = Kinds()
Pool._by_name["main"] = Pool()


@pytest.mark.parametrize(
    ("value", "name", "line"),
    [
        (Pool.get(), "Pool._instance", "cls._instance = cls()"),
        (Pool._by_name["main"], "Pool._by_name['main']", "_by_name: dict"),
        (KINDS.STOP, "KINDS.STOP", "self.STOP ="),
    ],
    ids=["lazily made singleton", "flyweight", "attribute of a global"],
)
def test_an_object_that_a_module_only_holds_has_a_name_too(value, name, line):
    """What a class, an object or a container of the module holds is told by its identity as a global is."""
    account, arrived = (sent.account(each, sent.parts(each)) for each in map(process_of, (value, Named("other"))))
    assert account["own"]["['args'][0]"] == [f"{__name__}.{name}"]
    assert account["modules"] == [__name__]
    assert replayer.named(*sent.global_name(value)) is value
    found = copying._other("args[0]", account["own"]["['args'][0]"])
    assert line in linecache.getline(found.file, found.line)
    assert arrived is None


def process_of(value):
    return SPAWN.Process(target=work, args=(value,))


class Built:
    """Rebuilt from its name, without what was set later."""

    def __init__(self, name):
        self.name, self.headers = name, {}

    def __reduce__(self):
        return Built, (self.name,)


class Text(str):
    language = "en"

    def __reduce__(self):
        return Text, (str(self),)


def test_an_attribute_that_arrives_with_another_value():
    """The constructor makes it anew; it is told where the failure or the child's code names it."""
    built, text = Built("x"), Text("x")
    built.headers["a"] = 1
    text.language = "de"  # type: ignore[misc]
    (found,) = differing(built, Built("x"), "KeyError in headers")
    assert (found.code, found.path, found.level) == ("SM204", "args[0].headers", "cause")
    assert found.message == (
        f"`args[0]` arrives with another `headers['a']` (1 in the parent, not there in the child): {__name__}.Built is "
        "pickled by `Built.__reduce__`, which does not return it."
    )
    assert found.fix.startswith("let `Built.__reduce__` return `headers`, too")
    assert differing(built, Built("x"), "KeyError") == []
    (found,) = differing(text, Text("x"), "language")
    assert found.path == "args[0].language"


class Closes:
    def __init__(self):
        self.file = io.StringIO("x")

    def __getstate__(self):
        self.file.close()
        return {}


def test_pickling_that_closes_a_file():
    """The attribute is the same object, and of no use any more."""
    (found,) = findings("file", Closes())
    assert (found.code, found.path, found.level) == ("SM108", "args[0].file", "cause")
    assert "is <closed _io.StringIO object>" in found.message


class Loses(multiprocessing.process.BaseProcess):
    def __init__(self, level):
        super().__init__()
        self.level = level

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "level"}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ((1, 0, work, (UNSET,), {}), {"target": work, "args": (UNSET,), "kwargs": {}}),
        ((1, None, multiprocessing.pool.mapstar, ((work, (1, 2)),), {}), {"target": work, "args[0]*": (1, 2)}),
        ((1, None, multiprocessing.pool.starmapstar, ((work, ((1, 2),)),), {}), {"target": work, "args*": ((1, 2),)}),
        (Loses(3), {"target": None, "args": (), "kwargs": {}, "process.level": 3}),
        (
            SPAWN.Process(target=multiprocessing.pool.worker, args=(1, 2, work, (3,), None, False)),
            {"initializer": work, "initargs": (3,)},
        ),
        ("a message", {}),
    ],
    ids=["apply", "map", "starmap", "process object", "worker", "message"],
)
def test_the_users_parts_of_what_is_sent(task, expected):
    """The wrappers of pools and executors are left out."""
    assert copied.picked(task, sent.where(task), vars(values)) == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("['args'][0].lock", "args[0].lock"),
        ("['args[0]*'][3].extra", "args[0].extra"),
        ("['args*'][2][1]", "args[1]"),
        ("['process.level']", "process.level"),
        ("['process.", "process"),
        ("['initargs'][0]['k'].x", "initargs[0]['k'].x"),
    ],
)
def test_paths_are_told_in_the_users_notation(path, text):
    """The items of a map are one argument each."""
    assert sent.path_of(path) == text
