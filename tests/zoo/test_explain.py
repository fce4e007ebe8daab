"""Each case of `pickling_cases` has a real start's verdict, and the expected findings."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import re
import socketserver
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from multiprocessing import context, reduction

import pickling_cases
import pytest
from pickling_cases import CASES, Case, Given

from pytest_startmethod import Finding, explain

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if found.needs:
        pytest.importorskip(found.needs)
    return found


@pytest.fixture(scope="module")
def given(case: Case) -> Iterator[Given]:
    made = case.make()
    yield made
    if made.close is not None:
        made.close()


@pytest.fixture(scope="module")
def findings(given: Given) -> list[Finding]:
    """Explain a case once for all tests that look at it: a call that pickles starts fresh children."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests' mark has no effect on a fixture of the module
        return explain(given.target, given.args, given.kwargs, task=given.task)


def pickles(given: Given) -> bool:
    """Ask the interpreter's own pickler, as ``Process.start`` uses it."""

    class Popen:
        duplicate_for_child = staticmethod(int)
        DupFd = staticmethod(int)

    previous = context.get_spawning_popen()
    context.set_spawning_popen(None if given.task else Popen())
    try:
        if given.task and any(isinstance(each, multiprocessing.connection.Connection) for each in given.args):
            return True  # really pickling it starts the resource sharer's thread
        reduction.ForkingPickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump((given.target, given.args, given.kwargs))
    except BaseException:
        return False
    finally:
        context.set_spawning_popen(previous)
    return True


def test_the_verdict_is_the_interpreters(case: Case, given: Given, findings: list[Finding]) -> None:
    """There are findings exactly when the interpreter cannot pickle the payload.

    3.10 pickles a fork context's lock, and the child that uses it crashes.
    """
    refused = not pickles(given) or case.name.endswith("_of_a_fork_context")
    assert bool(findings) == refused == bool(case.codes)


def test_the_findings(case: Case, findings: list[Finding]) -> None:
    """Each leaf is found, with its path, its lines, its kind and its fix."""
    text = " ".join("\n".join(map(str, findings)).split())
    assert tuple(finding.code for finding in findings) == case.codes
    assert tuple(finding.path for finding in findings) == case.paths
    assert re.search(case.says, text), text
    assert not findings or re.search(case.fix, findings[0].fix), text
    lines = {int(number) for number in re.findall(re.escape(pickling_cases.FILE) + r":(\d+)", text)}
    assert set(case.lines) <= lines, text
    if case.lines:
        assert {finding.line for finding in findings} & set(case.lines)


def test_the_text_fits(findings: list[Finding]) -> None:
    """No line is wider than 80 columns, except for unbreakable names; every finding has a fix."""
    for finding in findings:
        assert finding.fix
        for line in str(finding).splitlines():
            assert len(line) <= 80 or " " not in line.strip(), line


def test_the_dictionary_form_is_plain_and_comes_back(findings: list[Finding]) -> None:
    """A finding is sent between processes as builtins."""
    import json

    for finding in findings:
        assert Finding.from_dict(json.loads(json.dumps(finding.as_dict()))) == finding


SAMPLE = (
    "closure_over_a_number decorated_with_wraps wrapped_original lock_set_in_init a_thread member_of_a_set "
    "instance_of_a_local_class lock_left_out_of_the_state locks_and_values queues pipe_ends a_socket plain_values"
)


@pytest.mark.parametrize("name", SAMPLE.split())
def test_a_real_spawned_child_agrees(name: str) -> None:
    """A case without a finding runs under spawn; one with a finding does not start."""
    given = CASES[name].make()
    findings = explain(given.target, given.args, given.kwargs)
    process = multiprocessing.get_context("spawn").Process(
        target=given.target if given.target is not pickling_cases.work else print, args=given.args, kwargs=given.kwargs
    )
    try:
        if findings:
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
                process.start()
        else:
            process.start()
            process.join(60)
            assert process.exitcode == 0
    finally:
        if given.close is not None:
            given.close()


# -- the text, word for word -----------------------------------------------------------------------------------------


def lines_of(name: str) -> list[str]:
    given = CASES[name].make()
    (finding,) = explain(given.target, given.args, given.kwargs, task=given.task)
    if given.close is not None:
        given.close()
    shown = finding.section_lines(os.path.dirname(pickling_cases.FILE))
    return [re.sub(r"(pickling_cases\.py):\d+", r"\1:N", line) for line in shown]


def test_a_local_function() -> None:
    """SM101 shows what the function closes over, and what to pass instead."""
    assert lines_of("closure_over_a_number") == [
        "SM101 local-function: target",
        "  pickling_cases.py:N",
        "  `add` is defined inside `closure_over_a_number`, so there is no name that a",
        "  child could import it by.",
        "  under fork: the child is a copy of the parent and has the function without",
        "    importing it",
        "  closes over: step = 2 (pickles)",
        "  fix: move `add` out of `closure_over_a_number` to module level, and pass",
        "    `step` as an argument",
    ]


def test_a_second_layer() -> None:
    """SM101 says that moving the function is not enough if a captured value does not pickle."""
    assert lines_of("closure_over_a_holder_of_a_lock") == [
        "SM101 local-function: target",
        "  pickling_cases.py:N",
        "  `use` is defined inside `closure_over_a_holder_of_a_lock`, so there is no name",
        "  that a child could import it by.",
        "  under fork: the child is a copy of the parent and has the function without",
        "    importing it",
        "  closes over: holder = <Box object> (does not pickle: its lock is a lock",
        "    (_thread.lock))",
        "  fix: move `use` out of `closure_over_a_holder_of_a_lock` to module level;",
        "    `holder` does not pickle either: make it in the child from plain values",
    ]


def test_a_local_class() -> None:
    """SM102 names the class and the function around it."""
    assert lines_of("instance_of_a_local_class") == [
        "SM102 local-class: args[0].__class__",
        "  pickling_cases.py:N",
        "  this object's class, `Local`, is defined inside `instance_of_a_local_class`,",
        "  so a child cannot import it.",
        "  under fork: the child is a copy of the parent and has the class without",
        "    importing it",
        "  fix: move the class `Local` out of `instance_of_a_local_class` to module level",
    ]


def test_a_resource_around_a_leaf() -> None:
    """SM103 names the event, the lock inside it, where it was set, and an alternative."""
    assert lines_of("a_threading_event") == [
        "SM103 unpicklable-object: target.__self__.resource",
        "  pickling_cases.py:N",
        "  `Owner.resource` is a threading.Event, which belongs to this process and",
        "  cannot be pickled.",
        "  under fork: the child is a copy of the parent, and nothing is pickled",
        "  set at pickling_cases.py:N: self.resource = resource  #! owner",
        "  `Owner` is defined at pickling_cases.py:N",
        "  because: its _cond._lock is a lock (_thread.lock)",
        "  fix: pass multiprocessing's Event, made by the child's context; or leave",
        "    `resource` out of what `Owner.__getstate__` returns and re-create it in",
        "    `__setstate__`",
    ]


def test_a_name_that_leads_elsewhere() -> None:
    """SM104 shows the decorator that took over the name."""
    assert lines_of("wrapped_original") == [
        "SM104 shadowed-name: target",
        "  pickling_cases.py:N",
        "  the name `pickling_cases.logged_work` leads to another object, <function",
        "  logged_work>, not to this function.",
        "  under fork: the child is a copy of the parent, and no name is looked up",
        "  decorated at pickling_cases.py:N: @logged",
        "  `pickling_cases.logged_work` is now <function logged_work>, defined at",
        "    pickling_cases.py:N",
        "  fix: pass the object that the name leads to (`logged_work`), or keep this",
        "    function under a name of its own: `logged_work` is replaced by a decorator",
        "    or a later assignment, and pickle wants the same object there",
    ]


def test_pickling_code_that_raises() -> None:
    """SM105 shows the method, the line that raised, and the missing attribute."""
    shown = lines_of("reduce_that_raises")
    assert shown == [
        "SM105 pickling-raised: args[0]['x']",
        "  pickling_cases.py:N",
        "  `Raises.__reduce__` raised ValueError: not today while `args[0]['x']` was",
        "  being pickled.",
        "  under fork: nothing is pickled, so that code never runs",
        '  raised at pickling_cases.py:N: raise ValueError("not today")',
        "  `args[0]['x']` is set at pickling_cases.py:N",
        "  fix: let `Raises.__reduce__` return what the child needs to make the object",
        "    again (see __reduce__), and not raise",
    ]


def test_a_lock_of_another_context() -> None:
    """SM106 says which context to use."""
    assert lines_of("lock_of_a_fork_context") == [
        "SM106 foreign-primitive: args[0]",
        "  `args[0]` is a multiprocessing lock (Lock) that a fork context made, and only",
        "  a forked child can have it, not one started with spawn.",
        "  under fork: the child is a copy of the parent and has the primitive already",
        "  fix: make it with the same context as the process: ctx =",
        "    multiprocessing.get_context('spawn'), then ctx.Lock() and ctx.Process(...)",
    ]


def test_too_deep() -> None:
    """SM107 gives the depth, the interpreter's message and a fix."""
    given = CASES["linked_list"].make()
    with pytest.raises(RecursionError) as error:
        pickle.dumps(given.args)
    (finding,) = explain(given.target, given.args)
    assert given.close is not None
    given.close()
    said = "the objects nest 60,001 deep, and pickle recurses once or more for each level: RecursionError: "
    assert finding.message.startswith(said)
    assert re.sub(r"\d+", "N", str(error.value))[:30] == re.sub(r"\d+", "N", finding.message[len(said) :])[:30]
    assert finding.section_lines()[-4:] == [
        f"  sys.getrecursionlimit() is {sys.getrecursionlimit()}",
        "  fix: flatten the chain: pass a list and link the objects again in the child",
        "    (`__getstate__` can do that), so that the depth no longer grows with the",
        "    number of objects; a higher recursion limit only moves the limit",
    ]


# -- explain itself --------------------------------------------------------------------------------------------------


def test_nothing_is_pickled_under_fork() -> None:
    """Under fork there is nothing to explain."""
    assert explain(lambda: 1, method="fork") == []


def test_an_unknown_method_is_an_error() -> None:
    """The error names the value and the valid ones."""
    with pytest.raises(ValueError, match=r"^unknown start method 'vfork': choose from fork, spawn, forkserver$"):
        explain(print, method="vfork")


def test_the_method_is_named_in_the_fix() -> None:
    """A fork context's lock should be made by the context of the method in question."""
    (finding,) = explain(print, (pickling_cases.FORK.Lock(),), method="forkserver")
    assert "multiprocessing.get_context('forkserver')" in finding.fix


def test_a_local_variable_is_found_in_the_running_function() -> None:
    """An object without an owner is placed where a running function bound it."""
    import threading

    guard = threading.Lock()
    (finding,) = explain(print, (guard,))
    assert "`guard`, set at" in finding.evidence[0]
    assert "guard = threading.Lock()" in finding.evidence[0]


def test_the_package_exports_what_it_says() -> None:
    """The public names exist, and importing the package does not import their modules."""
    code = (
        "import sys, pytest_startmethod as p;"
        "assert not {m for m in sys.modules if m.startswith(('pytest_startmethod.', 'multiprocessing', 'ast'))"
        " and '._compat' not in m};"
        "assert p.explain and p.Finding and p.StartMethodWarning and 'explain' in dir(p);"
        "assert not hasattr(p, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert isinstance(explain, types.FunctionType)


def test_what_lies_in_an_object_that_never_pickles_is_part_of_its_finding():
    """A server cannot be sent anyway: an unpicklable callback in it is one more reason, not one more finding."""

    def callback():
        pass

    with socketserver.TCPServer(("localhost", 0), socketserver.BaseRequestHandler) as server:
        server.callback = callback
        found = explain(len, (server,))
    assert [(each.code, each.path) for each in found] == [("SM103", "args[0]")]
    because = [line for line in found[0].evidence if line.startswith("because: its callback is ")]
    assert len(because) == 1


def test_a_submodule_that_the_code_imports_is_there(tmp_path, monkeypatch):
    """A child imports a submodule at ``from package import name``, or when the package's ``__getattr__`` does."""
    package = tmp_path / "lazy_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import importlib\n"
        "def __getattr__(name):\n"
        "    if name != 'lazy': raise AttributeError(name)\n"
        "    return importlib.import_module(f'{__name__}.{name}')\n"
        "def by_statement():\n"
        "    from lazy_package import plain\n"
        "    return repr(plain)\n"
        "def by_hook():\n"
        "    import lazy_package\n"
        "    return repr(lazy_package.lazy)\n"
        "def by_neither():\n"
        "    import lazy_package\n"
        "    return repr(lazy_package.plain)\n"
        "def by_value():\n"
        "    from lazy_package import plain\n"
        "    return plain.VALUE\n"
        "def beside_globals():\n"
        "    if 'by_value' in globals():\n"
        "        from lazy_package import plain\n"
        "        return repr(plain)\n"
    )
    for name in ("plain", "lazy"):
        (package / f"{name}.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_package.lazy  # type: ignore[import-not-found]
    import lazy_package.plain  # type: ignore[import-not-found]

    assert explain(lazy_package.by_statement) == []
    assert explain(lazy_package.by_hook) == []
    assert explain(lazy_package.beside_globals) == []
    assert [each.path for each in explain(lazy_package.by_neither)] == ["lazy_package.plain"]
    lazy_package.plain.VALUE = 2
    assert [each.path for each in explain(lazy_package.by_value)] == ["lazy_package.plain.VALUE"]


def test_a_name_that_the_class_of_a_module_provides_is_there(tmp_path, monkeypatch):
    """Packages that import lazily replace their module in ``sys.modules``, and set what is asked for."""
    (tmp_path / "replaced_module.py").write_text(
        "import sys, types\n"
        "class Lazy(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        if name not in ('group', 'changed'): raise AttributeError(name)\n"
        "        setattr(self, name, 'made when asked for')\n"
        "        return self.__dict__[name]\n"
        "def read():\n"
        "    import replaced_module\n"
        "    return replaced_module.group\n"
        "def read_changed():\n"
        "    import replaced_module\n"
        "    return replaced_module.changed\n"
        "lazy = Lazy(__name__)\n"
        "lazy.__dict__.update(__file__=__file__, __spec__=__spec__, read=read, read_changed=read_changed)\n"
        "sys.modules[__name__] = lazy\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import replaced_module  # type: ignore[import-not-found]

    assert replaced_module.read() == replaced_module.read_changed() == "made when asked for"
    replaced_module.changed = "set by the parent"
    assert explain(replaced_module.read) == []
    assert [each.path for each in explain(replaced_module.read_changed)] == ["replaced_module.changed"]
