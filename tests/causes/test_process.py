"""Process-wide state, and what depends on the interpreter's start."""

from __future__ import annotations

import sys
import textwrap
import types

import pytest

from pytest_startmethod.causes import context as causes_context
from pytest_startmethod.causes import process
from pytest_startmethod.causes.context import Context
from pytest_startmethod.model.evidence import CallEnd, Evidence
from pytest_startmethod.model.observed import Binding, Observed, Read, Where
from pytest_startmethod.model.patched import Patched
from pytest_startmethod.model.place import Place

SOURCE = """
    def key(text):
        return hash(text)

    class Name:
        def __hash__(self):
            return hash(self.text)

    def other(text):
        return text.hash()
"""


def observed(tmp_path, *names, **environ):
    file = tmp_path / "encoder.py"
    file.write_text(textwrap.dedent(SOURCE))
    found = Observed("spawn", "encoder.lookup", Place(str(file), 1), codes=[(str(file), name, 1) for name in names])
    found.environ = environ
    return found


def test_hash_of_text(tmp_path):
    """Keys made with ``hash()`` in the parent differ in the child; a missing key makes it a cause."""
    (found,) = process.hash_seed(observed(tmp_path, "lookup", "key"), Context(errors=frozenset({"KeyError"})))
    finding = found.finding
    assert (finding.code, finding.path, finding.level, finding.line) == ("SM306", "PYTHONHASHSEED", "cause", 3)
    assert finding.message == (
        "hash() of a str or bytes is another number in each fresh interpreter (PYTHONHASHSEED is random); key calls "
        "it, and what was keyed by it in the parent is not found in the child"
    )
    (found,) = process.hash_seed(observed(tmp_path, "key"), Context(errors=frozenset({"TimeoutError"})))
    assert found.finding.level == "note"


@pytest.mark.parametrize(
    ("names", "environ", "context"),
    [
        (("Name.__hash__",), {}, Context()),
        (("other",), {}, Context()),
        (("key",), {"PYTHONHASHSEED": "7"}, Context()),
        (("key",), {}, Context(failed=False)),
        (("key",), {}, Context(passed_under_fork=False)),
        (("key",), {}, Context(compares=False)),
    ],
    ids=["__hash__", "a method of that name", "fixed", "passed", "fork fails", "alike"],
)
def test_hashes_that_explain_nothing(tmp_path, names, environ, context):
    """A ``__hash__`` is meant for one process, and a fixed seed is shared by all."""
    assert process.hash_seed(observed(tmp_path, *names, **environ), context) == []


def stale(**given):
    observed = Observed("forkserver", "a.work", Place("/p/a.py", 1))
    observed.environ = {"ANSWER": "42", "HOME": "/a"}
    patches = (Patched("os.environ['ANSWER']", Place("/p/test_a.py", 5), "monkeypatch"),)
    context = Context(**{"environ": {"HOME": "/b"}, "patches": patches, **given})
    return [each.finding for each in process.environment(observed, context)]


SETS = """
    NAMES = {"a", "b"}

    def listed():
        return list(NAMES)

    def sorted_names():
        return sorted(NAMES)
"""
NODE = ["<", "set", [["=", "str", "'a'"], ["=", "str", "'b'"]]]
NUMBERS = ["<", "set", [["=", "int", "1"], ["=", "int", "2"]]]


def reading(tmp_path, name, line, node=NODE):
    file = tmp_path / "sets.py"
    file.write_text(textwrap.dedent(SETS))
    read = Read("sets", ("NAMES",), (), Where(str(file), line + 1, name, "LOAD_GLOBAL"))
    binding = Binding("sets", ("NAMES",), (), node, read, False, False, "set")
    place = Place(str(file), 1)
    return Observed("spawn", f"sets.{name}", place, codes=[(str(file), name, line)], bindings=[binding])


def test_order_of_a_set_of_text(tmp_path):
    """It is a cause where values were compared, and a note elsewhere."""
    context = Context(errors=frozenset({"AssertionError"}))
    (found,) = process.hash_seed(reading(tmp_path, "listed", 4), context)
    finding = found.finding
    assert (finding.code, finding.path, finding.level, finding.line) == ("SM306", "PYTHONHASHSEED", "cause", 5)
    assert finding.message == (
        "the order of a set of text is another one in each fresh interpreter (PYTHONHASHSEED is random); listed uses "
        "the order of NAMES"
    )
    assert finding.fix == "sort it: sorted(...), or use a list or a dict, which keep their order"
    (found,) = process.hash_seed(reading(tmp_path, "listed", 4), Context())
    assert found.finding.level == "note"


def test_sets_whose_order_explains_nothing(tmp_path):
    """Sorted text, and numbers, have the same order in each interpreter."""
    context = Context(errors=frozenset({"AssertionError"}))
    assert process.hash_seed(reading(tmp_path, "sorted_names", 7), context) == []
    assert process.hash_seed(reading(tmp_path, "listed", 4, NUMBERS), context) == []


ROLES = """
    def role(name):
        return name.startswith("ForkPoolWorker")

    def any_role(name):
        return name.startswith(("ForkPoolWorker", "SpawnPoolWorker", "ForkServerPoolWorker"))

    def other(name):
        return name == "Forklift"
"""


@pytest.mark.parametrize(
    ("name", "line", "method", "given", "text"),
    [
        ("role", 2, "spawn", {}, "SpawnPoolWorker"),
        ("role", 2, "forkserver", {}, "ForkServerPoolWorker"),
        ("any_role", 5, "forkserver", {}, None),
        ("other", 8, "spawn", {}, None),
        ("role", 2, "fork", {}, None),
        ("role", 2, "spawn", {"failed": False}, None),
        ("role", 2, "spawn", {"passed_under_fork": False}, None),
    ],
)
def test_names_that_only_forked_processes_have(tmp_path, name, line, method, given, text):
    file = tmp_path / "roles.py"
    file.write_text(textwrap.dedent(ROLES))
    observed = Observed(method, f"roles.{name}", None, codes=[(str(file), name, line)])
    found = [each.finding for each in process.worker_names(observed, Context(**given))]
    assert [(each.code, each.path, each.level, each.line) for each in found] == (
        [] if text is None else [("SM504", "ForkPoolWorker", "cause", 3)]
    )
    if text is not None:
        assert found[0].message == (
            f"role looks for the name 'ForkPoolWorker', which only a forked process has: under {method} it is {text}"
        )


def test_variable_that_the_test_set_and_nobody_reads_by_name():
    """SM304: a program run by the child gets the whole environment; only variables that the test set count."""
    (found,) = stale()
    assert (found.code, found.path, found.file, found.line) == ("SM304", "os.environ['ANSWER']", "/p/test_a.py", 5)
    assert found.message == (
        "os.environ['ANSWER'] is '42' in the parent and not set in a forkserver child: the server keeps the "
        "environment that it was started with; the code does not read it by name, and what it starts or copies has it "
        "from there"
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('monkeypatch.setenv("ANSWER", "42")', True),
        ('os.environ["ANSWER"] = "42"', True),
        ('patch.dict(os.environ, {"ANSWER": "42"})', True),
        ('assert ANSWER == "42"', False),
        ('print({"ANSWER": "42"})', False),
        ('monkeypatch.setenv("ANSWERS", "42")', False),
    ],
)
def test_variable_that_an_unmarked_test_set(tmp_path, line, told):
    """SM304: nothing records the patches of an unmarked test; its file shows where it sets the variable."""
    file = tmp_path / "test_a.py"
    file.write_text(f"def test_a(monkeypatch):\n    {line}\n")
    found = [(each.path, each.line) for each in stale(patches=(), tests=(str(file),))]
    assert found == [("os.environ['ANSWER']", 2)] * told


@pytest.mark.parametrize(
    "given",
    [{"failed": False}, {"passed_under_fork": False}, {"patches": ()}, {"environ": {"ANSWER": "42"}}],
    ids=["passed", "fork fails", "not set by the test", "the same"],
)
def test_environment_that_explains_nothing(given):
    """There is no finding if no variable set by the test differs, or the server is not to blame."""
    assert stale(**given) == []


HANDLERS = """
    import atexit

    def clean(): pass

    atexit.register(clean)

    @atexit.register
    def report(): pass

    def later():
        atexit.register(clean)

    class Session:
        def __init__(self):
            atexit.register(self.close)

    SESSION = Session()
"""


def handlers(tmp_path, method="spawn", **context):
    file = tmp_path / "cache.py"
    file.write_text(textwrap.dedent(HANDLERS))
    found = Observed(method, "cache.work", None, codes=[(str(file), "work", 1)])
    given = Context(**{"passed_under_fork": True, **context})
    return [(each.finding.code, each.finding.path, each.finding.line) for each in process.exit_handlers(found, given)]


def test_exit_handlers_of_the_childs_modules(tmp_path):
    """SM309: handlers registered at import, by call or decorator; a function's only if the module calls it."""
    assert handlers(tmp_path) == [("SM309", "clean", 6), ("SM309", "self.close", 16), ("SM309", "report", 8)]


@pytest.mark.parametrize(
    "given",
    [{"method": "forkserver"}, {"failed": False}, {"passed_under_fork": None}, {"compares": False}],
    ids=["a server's child runs none", "passed", "fork is not known to pass", "alike"],
)
def test_handlers_that_explain_nothing(tmp_path, given):
    """SM309 requires that the spawned child's leg failed and the forked child's passed."""
    assert handlers(tmp_path, **given) == []


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("spawn", {}, True),
        ("forkserver", {}, True),
        ("fork", {}, False),
        ("spawn", {"failed": False}, False),
        ("spawn", {"passed_under_fork": None}, False),
    ],
    ids=["spawn", "forkserver", "a forked child runs them", "passed", "fork is not known to pass"],
)
def test_what_runs_in_forked_children_only(tmp_path, monkeypatch, method, given, told):
    """SM306: hooks that run in a child, registered when a module is imported, and not by a function."""
    file = tmp_path / "at_fork.py"
    text = """
        import os

        def reset(): pass

        os.register_at_fork(before=reset)
        os.register_at_fork(after_in_child=reset)

        def later():
            os.register_at_fork(after_in_child=reset)
    """
    file.write_text(textwrap.dedent(text))
    module = types.ModuleType("at_fork")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "at_fork", module)
    context = Context(**{"passed_under_fork": True, **given})
    found = process.fork_hooks(Observed(method, "at_fork.work", None, roots=["at_fork"]), context)
    assert [(each.finding.path, each.finding.line, each.finding.level) for each in found] == [
        ("os.register_at_fork('at_fork')", 7, "note")
    ] * told


@pytest.mark.parametrize(
    ("line", "compared"), [("import runs", False), ('if multiprocessing.get_start_method() == "spawn": pass', True)]
)
def test_values_that_spawns_children_may_have_been_given(tmp_path, monkeypatch, line, compared):
    """Where spawn passes, values explain nothing, unless the leg's own code asks for the start method."""
    runs, elsewhere = tmp_path / "runs.py", tmp_path / "elsewhere.py"
    runs.write_text(line)
    elsewhere.write_text("multiprocessing.get_start_method()")
    monkeypatch.setattr(causes_context, "user_files", lambda: [str(runs), str(elsewhere)])
    others = {"fork": CallEnd("passed"), "spawn": CallEnd("passed")}
    evidence = Evidence("", "forkserver", "failed", tests=(str(runs),), others=others)
    assert causes_context.compares(evidence) is compared
