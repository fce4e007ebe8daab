"""A fresh child reports payloads that pickle and do not load, and leaves nothing behind."""

from __future__ import annotations

import array
import collections
import contextlib
import functools
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_startmethod.causes.call import explain_loading as explain
from pytest_startmethod.pickling import packing
from pytest_startmethod.pickling.dry_run import Call
from pytest_startmethod.state import fresh_child

MODULE = """
import collections, functools, os, sys, time


Pair = collections.namedtuple("Pair", "left right")


def group(errors):
    return ExceptionGroup("several", errors) if sys.version_info >= (3, 11) else errors


GROUPED = ".exceptions[1]" if sys.version_info >= (3, 11) else "[1]"


class Refuses:
    def __init__(self):
        self.version = 1

    def __setstate__(self, state):
        raise KeyError("version")


class NeedsError(Exception):
    def __init__(self, code, text):
        super().__init__(text)


class Made:
    def __new__(cls, name):
        self = super().__new__(cls)
        self.name = name
        return self


class Slotted:
    __slots__ = ("inner", "__dict__")

    def __init__(self, inner):
        self.inner = inner


class Greedy:
    def __init__(self):
        self.inner = {}

    def __getattr__(self, name):
        return self.inner[name]


class State:
    __slots__ = ("inner",)

    def __init__(self):
        self.inner = 1

    def __getstate__(self):
        return {"inner": 1}


def added(self):
    pass


class Private:
    def __work(self):
        pass

    def bound(self):
        return self.__work


class Names(dict):
    def __setitem__(self, key, value):
        raise LookupError(key)


class Kills:
    def __reduce__(self):
        return os._exit, (3,)


class Sleeps:
    def __reduce__(self):
        return time.sleep, (1000,)


class Prints:
    def __reduce__(self):
        return os.system, ("echo noise; echo noise >&2",)


class Asks:
    def __reduce__(self):
        return input, ()


def top(*args, **kwargs):
    pass
"""


@pytest.fixture(scope="module")
def loader() -> Iterator[fresh_child.Loader]:
    with fresh_child.Loader(seconds=60.0) as loader:
        yield loader


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("parts")
    (directory / "loading_parts.py").write_text(MODULE)
    sys.path.insert(0, str(directory))
    import loading_parts

    yield loading_parts
    sys.path.remove(str(directory))
    del sys.modules["loading_parts"]


top = print
"""A target that costs a child no import."""


def found(loader: fresh_child.Loader, *args: object, target: Any = top, **kwargs: object) -> list[tuple[str, str]]:
    findings = explain(Call(target, args, kwargs), loader=loader)
    return [(finding.code, finding.path) for finding in findings]


def make_each(parts: Any) -> dict[str, tuple[Any, str, str]]:
    """Return, by name: an object that does not load, the code, and the path below the object."""
    return {
        "setstate": (parts.Refuses(), "SM203", ""),
        "exception": (parts.NeedsError(1, "x"), "SM203", ""),
        "new": (parts.Made("x"), "SM203", ""),
        "in a slot": (parts.Slotted(parts.Refuses()), "SM203", ".inner"),
        "private method": (parts.Private().bound(), "SM202", ""),
        "in a list": ([0, {"a": (1, parts.Refuses())}], "SM203", "[1]['a'][1]"),
        "in a partial": (functools.partial(parts.top, parts.Refuses()), "SM203", ".args[0]"),
        "in a keyword": (functools.partial(parts.top, key=parts.Refuses()), "SM203", ".keywords['key']"),
        "in an exception": (ValueError("x", parts.Refuses()), "SM203", ".args[1]"),
        "in a named tuple": (parts.Pair(1, parts.Refuses()), "SM203", ".right"),
        "in a default": (collections.defaultdict(parts.Private().bound()), "SM202", ".default_factory"),
        "in a group": (parts.group([ValueError(), parts.NeedsError(1, "x")]), "SM203", parts.GROUPED),
    }


NAMES = ["setstate", "exception", "new", "in a slot", "private method", "in a list", "in a partial", "in a keyword",
         "in an exception", "in a named tuple", "in a default", "in a group"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_object_is_found_with_its_path(loader: fresh_child.Loader, parts: Any, name: str) -> None:
    """The object is found in any container, however it is reduced."""
    obj, code, path = make_each(parts)[name]
    assert found(loader, {"k": obj}) == [(code, f"args[0]['k']{path}")]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="fails in the parent there, which asks it for __getstate__")
def test_a_greedy_getattr_is_found(loader: fresh_child.Loader, parts: Any) -> None:
    """A ``__getattr__`` that recurses without end is found."""
    assert found(loader, parts.Greedy()) == [("SM203", "args[0]")]


def test_a_state_that_slots_cannot_take_wants_setstate(loader: fresh_child.Loader, parts: Any) -> None:
    """An object with slots whose __getstate__ returns a dictionary does not load without __setstate__."""
    (found,) = explain(Call(top, (parts.State(),)), loader=loader)
    assert (found.code, found.path) == ("SM203", "args[0]")
    assert found.fix == (
        "define __setstate__ in State, which takes what __getstate__ returns: with __slots__ there is no __dict__ "
        "that it could go to"
    )


def test_a_method_that_its_object_has_not_is_named_as_one(loader: fresh_child.Loader, parts: Any) -> None:
    """A function bound to an object by hand is looked up on it by name, and is missing."""
    method = types.MethodType(parts.added, parts.Private())
    (found,) = explain(Call(top, (method,)), loader=loader)
    assert (found.code, found.path) == ("SM203", "args[0]")
    assert found.message == (
        "the spawn child looks a bound method up by its name, on the object that it belongs to: AttributeError: "
        "'Private' object has no attribute 'added'"
    )
    assert "under its own name" in found.fix


def test_every_object_is_found_not_only_the_first(loader: fresh_child.Loader, parts: Any) -> None:
    """Loading continues after a failure, and its consequences are not reported."""
    refuses, needs = parts.Refuses(), parts.NeedsError(1, "x")
    assert found(loader, [refuses], {"e": [needs]}, target=parts.Private().bound(), k=parts.Made("y")) == [
        ("SM202", "target"),
        ("SM203", "args[0][0]"),
        ("SM203", "args[1]['e'][0]"),
        ("SM203", "kwargs['k']"),
    ]


def test_an_item_that_is_refused_is_the_containers_fault(loader: fresh_child.Loader, parts: Any) -> None:
    """``__setitem__`` of a dict subclass runs during loading."""
    names = parts.Names()
    dict.__setitem__(names, "a", 1)
    (finding,) = explain(Call(top, (names,)), loader=loader)
    assert (finding.code, finding.path) == ("SM203", "args[0]")
    assert (
        finding.message == "the spawn child calls Names.__setitem__ to load the object, and that raises LookupError: a"
    )


def test_a_module_that_only_the_parent_has(loader: fresh_child.Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in a module without a file pickles by name."""
    module = types.ModuleType("only_here")
    exec("def work(): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    (finding,) = explain(Call(module.work), loader=loader)  # type: ignore[attr-defined]
    assert (finding.code, finding.path) == ("SM201", "target")
    assert finding.message == (
        "the spawn child cannot import 'only_here': the parent made that module at run time, and there is no file to "
        "import"
    )


def test_a_task_has_its_own_paths(loader: fresh_child.Loader, parts: Any) -> None:
    """A task is read as a Pool queues it, with the user's items one by one."""
    from multiprocessing.pool import mapstar, starmapstar

    refuses = parts.Refuses()
    single = (1, 0, mapstar, ((parts.top, (1, refuses)),), {})
    several = (1, 0, starmapstar, ((parts.top, ((1, refuses),)),), {})
    plain = (1, None, parts.top, (1, refuses), {})
    paths = [[each.path for each in explain(task, task=True, loader=loader)] for task in (single, several, plain)]
    assert paths == [["args[0]"], ["args[1]"], ["args[1]"]]


def test_a_process_object_is_read_as_its_target_and_arguments(loader: fresh_child.Loader, parts: Any) -> None:
    """The authentication key is pickled as for a child, and never shown."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=parts.top, args=(parts.Refuses(),))
    payload = packing.pack(process)
    assert payload is not None
    assert "b'" not in repr(payload)
    assert [each.path for each in loader.predict(payload)] == ["args[0]"]


def test_a_module_that_became_importable_after_the_child_started_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question sees the sys.path and the working directory of its own time, as a child started then would."""
    with fresh_child.Loader(seconds=60.0) as loader:
        assert found(loader, 1) == []
        (tmp_path / "made_later.py").write_text("def work(): pass")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path / "elsewhere")
        import made_later

        assert found(loader, target=made_later.work) == []
        monkeypatch.undo()
        assert found(loader, target=made_later.work) == [("SM201", "target")]
    del sys.modules["made_later"]


def test_the_default_method_stays_open() -> None:
    """After explain(), set_start_method() works as in a process that has not asked."""
    script = """
        import multiprocessing, pytest_startmethod
        if __name__ == "__main__":
            assert pytest_startmethod.explain(print) == []
            multiprocessing.set_start_method("spawn")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- no false alarms ---------------------------------------------------------------------------------------------------


def test_what_loads_in_a_child_gives_nothing(loader: fresh_child.Loader) -> None:
    """Locks, queues, pipes, values, sockets, arrays and proxies load as stand-ins."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    one, other = context.Pipe()
    with socket.socket() as wire, context.Manager() as manager:
        values = (
            queue, one, other, wire, context.Lock(), context.Event(), context.Condition(), context.Value("i", 3),
            context.Array("d", 5), manager.dict(a=1), array.array("d", [1]), context.SimpleQueue(), context.Barrier(2),
        )  # fmt: skip
        assert found(loader, *values) == []
    queue.close()
    one.close()
    other.close()


def test_primitives_of_a_fork_context_are_let_through_when_asked(loader: fresh_child.Loader) -> None:
    """Under spawn, another context would have made them."""
    context = multiprocessing.get_context("fork")
    queue, condition = context.Queue(), context.Condition()
    call = Call(top, (queue, condition, context.Lock(), context.Event()))
    assert explain(call, allow_fork_primitives=True, loader=loader) == ()
    queue.close()


def test_large_arrays_are_not_sent(loader: fresh_child.Loader, parts: Any) -> None:
    """Zeros replace large arrays, and other failures are then called approximate."""
    numpy = pytest.importorskip("numpy")
    big = numpy.ones(30_000_000)
    payload = packing.pack(Call(top, (big, [big])))
    assert payload is not None
    assert len(payload.data) < 10_000
    assert payload.buffers == (big.nbytes,)
    assert loader.predict(payload) == ()
    (finding,) = explain(Call(top, (big, parts.Refuses())), loader=loader)
    assert finding.evidence[-1] == "approximate: arrays were empty in this trial"


def test_what_does_not_pickle_is_not_our_business(loader: fresh_child.Loader) -> None:
    """A payload that does not pickle is left to the walk."""
    assert packing.pack(threading.Lock()) is None
    assert found(loader, lambda: 1) == []


def test_noise_goes_nowhere(loader: fresh_child.Loader, parts: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Output and input of the user's code during loading do not disturb the protocol."""
    assert found(loader, parts.Prints()) == []
    assert found(loader, parts.Asks()) == [("SM203", "args[0]")]
    assert found(loader, 1) == []
    assert capfd.readouterr() == ("", "")


# -- nothing left behind -----------------------------------------------------------------------------------------------


def _processes() -> Iterator[tuple[int, bytes, int, int]]:
    """Yield pid, state, parent and process group of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, group, *_ = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                yield int(entry.name), state, int(parent), int(group)


def _children() -> set[int]:
    return {pid for pid, _, parent, _ in _processes() if parent == os.getpid()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", ["Refuses", "Kills", "Sleeps"])
def test_no_process_is_left(parts: Any, what: str) -> None:
    """No process is left after an answer, a crash or a time-out."""
    before = _children()
    with fresh_child.Loader(seconds=0.5 if what == "Sleeps" else 60.0) as loader:
        payload = packing.pack(Call(top, (getattr(parts, what)(),)))
        assert payload is not None
        assert bool(loader.predict(payload)) == (what == "Refuses")
        group = loader._process and loader._process.pid
        assert loader.predict(payload) is not None
    assert _children() <= before
    # The orphan is waited for by process 1, if at all.
    deadline = time.monotonic() + 60
    while group is not None and any(state not in b"ZX" for _, state, _, each in _processes() if each == group):
        assert time.monotonic() < deadline


def test_a_broken_interpreter_gives_no_prediction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No answer means no finding."""
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: str(tmp_path / "python"))  # type: ignore[attr-defined]
    assert explain(Call(top, (1,))) == ()


def test_the_main_module_is_run_as_a_child_would(tmp_path: Path) -> None:
    """A function of a guarded script loads; one defined under the guard does not."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(fresh_child.__file__).parent.parent.parent)!r})
            from pytest_startmethod.causes import call
            from pytest_startmethod.pickling.dry_run import Call
            from pytest_startmethod.state import fresh_child

            def outside():
                pass

            if __name__ == "__main__":
                def inside():
                    pass

                for each in (outside, inside):
                    with fresh_child.Loader(seconds=60.0) as loader:
                        print([(f.code, f.path) for f in call.explain_loading(Call(each), loader=loader)])
            """
        )
    )
    import subprocess

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "[('SM202', 'target')]"], done.stderr


def test_a_fresh_child_is_not_the_main_process(tmp_path, monkeypatch):
    """Code for the main process only does not run, as in a real child."""
    (tmp_path / "named_here.py").write_text(
        "import multiprocessing\n"
        "READY = multiprocessing.current_process().name == 'MainProcess'\n"
        "def ask():\n    return READY\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import named_here

    from pytest_startmethod.state import observing

    observed = observing.observe(named_here.ask, method="spawn")
    assert observed is not None
    with fresh_child.Loader(seconds=60.0) as one, fresh_child.Loader(seconds=60.0) as other:
        (found,) = observing.compare(observed, observing.ask(observed, [one, other]) or [])
    assert (found.binding.path, found.ours[2], found.theirs[2]) == ("named_here.READY", "True", "False")
