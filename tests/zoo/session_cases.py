"""Tests as a maintainer writes them, each with the first finding that it deserves, or the reason why it has none.

`test_session` copies this file and `session_code` into a project and runs it under fork and spawn.
"""

from __future__ import annotations

import collections
import copyreg
import functools
import html
import logging
import multiprocessing
import operator
import os
import sys
import threading
import time
import types

import pytest
import session_code as code
from session_code import get, in_pool, in_process, nothing

pytestmark = pytest.mark.startmethods("fork", "spawn")
EXPECTED: dict[str, tuple[str, str]] = {}
ALIKE: dict[str, str] = {}


def finding(code: str, path: str = ""):
    """Expect a cause first, with this code and this in its path."""

    def register(function):
        EXPECTED[function.__name__] = code, path
        return function

    return register


def alike(reason: str):
    """Expect no cause."""

    def register(function):
        ALIKE[function.__name__] = reason
        return function

    return register


# -- what does not pickle ----------------------------------------------------------------------------------------------


@finding("SM101", "args[2][0].on_sent")
def test_a_model_with_a_lambda():
    assert in_process(get, code.Message(to="a", on_sent=lambda: 3), "to") == "a"


@finding("SM102")
def test_a_local_namedtuple():
    assert in_process(get, collections.namedtuple("Pair", "a b")(1, 2), "b") == 2


@finding("SM103", "__self__.guard")
def test_a_dataclass_with_a_lock():
    assert in_process(code.Account("eve").send) == "eve"


@finding("SM103", "args[2][0].lines")
def test_a_generator_in_a_namespace():
    assert in_process(nothing, types.SimpleNamespace(lines=(n for n in range(3)))) is None


def version():
    return 1


_first = version


def version():
    return 2


@finding("SM104")
def test_a_function_that_was_defined_twice():
    assert in_process(_first) == 1


@finding("SM105", "args[2][0]")
def test_a_state_of_attributes_that_are_not_set():
    assert in_process(nothing, code.Unfinished()) is None


@finding("SM106", "args[2][0].done")
def test_an_event_of_another_context():
    done = multiprocessing.get_context("fork").Event()
    assert in_process(nothing, types.SimpleNamespace(done=done)) is None


@finding("SM107", "args[2][0][0]")
def test_a_deeply_nested_list():
    deep: list[object] = []
    for _ in range(60_000):
        deep = [deep]
    assert in_process(len, deep) == 1


@finding("SM108", "args[2][0].items")
def test_reducing_that_drains():
    thing = code.Draining([1, 2])
    in_process(nothing, thing)
    assert thing.items == [1, 2]


@finding("SM108", "__self__.handle")
def test_a_state_that_closes_the_file():
    thing = code.Closing()
    assert in_process(thing.text) == "x"
    assert thing.text() == "x"


# -- what does not load, or not as it was ------------------------------------------------------------------------------


@finding("SM201")
def test_a_module_made_at_run_time(monkeypatch):
    module = types.ModuleType("made_at_run_time")
    exec("def function():\n    return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_at_run_time", module)
    assert in_process(module.function) == 1


@finding("SM202")
def test_a_method_added_at_run_time(monkeypatch):
    def added(self):
        return 1

    added.__qualname__ = "Plugin.added"
    monkeypatch.setattr(code.Plugin, "added", added, raising=False)
    assert in_process(code.Plugin().added) == 1


@finding("SM202", "xml.dom")
def test_a_submodule_that_other_code_has_imported():
    import xml.dom.minidom

    assert xml.dom.minidom
    assert in_process(code.text_of, "<a/>") == "a"


@finding("SM203", "args[2][0]")
def test_a_state_that_is_refused():
    assert in_process(get, code.Versioned(), "text") == "x"


@finding("SM204", "__self__.headers")
def test_an_attribute_that_the_constructor_makes_anew():
    request = code.Request("x")
    request.headers["a"] = 1
    assert in_process(request.header, "a") == 1


@finding("SM204", "__self__.language")
def test_an_attribute_of_a_text():
    assert in_process(code.Word("a", "de").spoken) == "de"


@finding("SM204", "queue")
def test_a_queue_that_unpickling_makes_anew():
    thing = code.Renewing()
    code.run(thing.send)
    assert not thing.queue.empty()


@finding("SM204", "args[2][0]")
def test_an_attribute_of_a_global_compared_by_identity():
    assert in_process(code.is_stop, code.signals.STOP)


@finding("SM407")
@pytest.mark.startmethods("spawn", timeout=1)  # it waits for ever; `session_still` ends it then
def test_an_exception_that_does_not_load():
    with pytest.raises(code.Reply):
        in_pool(code.refuse)


# -- state -------------------------------------------------------------------------------------------------------------


@finding("SM301", "_themes")
def test_a_stack_behind_a_context_manager():
    with code.theme("dark"):
        assert in_process(code.current_theme) == "dark"


@finding("SM301", "render.registry")
def test_an_implementation_of_a_generic_function_that_is_the_target():
    code.render.register(list, lambda value: "list")
    assert in_process(code.render, [1]) == "list"


@finding("SM302", "Exporter.formats")
def test_a_class_that_registers_itself():
    class Yaml(code.Exporter):
        pass

    try:
        assert in_process(code.Exporter.known) == ["Yaml"]
    finally:
        code.Exporter.formats.clear()


@finding("SM302", "Labelled.prefix")
def test_an_attribute_of_a_metaclass():
    code.Labelled.prefix = "b-"
    try:
        assert in_process(code.label) == "b-Tool"
    finally:
        code.Labelled.prefix = "a-"


@finding("SM303", "html.escape")
def test_a_patched_function_of_the_standard_library(monkeypatch):
    monkeypatch.setattr(html, "escape", lambda value: "?")
    assert in_process(code.escaped, "<") == "?"


@finding("SM305", "log")
def test_a_filter_of_a_logger():
    code.log.addFilter(nothing)
    try:
        assert in_process(code.filters) == 1
    finally:
        code.log.removeFilter(nothing)


@finding("SM306", "codecs.lookup_error('session-code')")
def test_an_error_handler_of_the_codecs():
    code.register_codec_error()
    assert in_process(code.lossy, "ä") == "?"


@finding("SM306", "sys.modules['session_alias']")
def test_a_second_name_of_a_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "session_alias", code)
    assert in_process(code.import_alias) == code.ROUNDING


@finding("SM204", "args[1]")
def test_a_method_of_a_base_class():
    assert in_process(code.Loud().of_base()) == "quiet"


@finding("SM407", "copyreg.dispatch_table")
def test_a_reducer_for_what_comes_back():
    copyreg.pickle(code.Sealed, lambda sealed: (code.Sealed, ()))
    try:
        assert type(in_pool(code.sealed)) is code.Sealed
    finally:
        del copyreg.dispatch_table[code.Sealed]


@finding("SM306", "os.getcwd()")
def test_a_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert code.run(nothing) == 0


@finding("SM306", "args[2][0]")
def test_a_descriptor_by_its_number():
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    try:
        assert in_process(code.read, reading) == b"hello"
    finally:
        os.close(reading)
        os.close(writing)


@finding("SM306", "tenant")
def test_a_context_variable():
    token = code.tenant.set("acme")
    try:
        assert in_process(code.who) == "acme"
    finally:
        code.tenant.reset(token)


@finding("SM307", "COUNTER")
def test_a_counter_made_at_import():
    before = code.COUNTER.value
    code.run(code.bump)
    assert code.COUNTER.value == before + 1


@finding("SM307", "MEMORY")
def test_memory_without_a_file():
    code.MEMORY[0] = 0
    code.run(code.mark)
    assert code.MEMORY[0] == 1


@finding("SM308", "_seen")
def test_a_list_that_the_child_fills():
    code.run(code.record, 1)
    assert code.recorded() == 1


@finding("SM308", "['into']")
def test_a_list_behind_keywords():
    seen = []
    code.run_with(code.fill, into=seen)
    assert seen == [1]


@finding("SM309", "leave")
def test_a_file_that_an_exit_handler_removes(monkeypatch, tmp_path):
    path = tmp_path / "kept"
    path.touch()
    monkeypatch.setenv("SESSION_CODE", str(path))
    code.run(nothing)
    assert path.exists()


@finding("SM502")
def test_a_context_of_its_own():
    process = multiprocessing.get_context("fork").Process(target=nothing)
    process.start()
    process.join()


@finding("SM504")
def test_a_refusal():
    if multiprocessing.get_start_method() != "fork":
        raise NotImplementedError("needs fork")
    assert in_process(abs, -1) == 1


# -- look-alikes -------------------------------------------------------------------------------------------------------


@alike("the wrapper has the name of what it wraps, and the name leads to the wrapper")
def test_a_wrapper_with_wraps():
    assert in_process(code.post, 1) == 2


@alike("the submodule exists in no process")
def test_a_misspelt_submodule():
    with pytest.raises(RuntimeError, match="dom_"):
        in_process(code.misspelt)
    assert in_process(abs, -1) == 2


@alike("the child does not send back what the reducer is registered for")
def test_a_reducer_that_is_not_needed():
    copyreg.pickle(code.Sealed, lambda sealed: (code.Sealed, ()))
    try:
        assert in_pool(abs, -1) == 1
    finally:
        del copyreg.dispatch_table[code.Sealed]


@alike("the directory that is gone is not the working directory")
def test_another_directory_that_is_gone(tmp_path):
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone").rmdir()
    assert in_process(abs, -1) == 2


@alike("each child maps the same content")
def test_a_mapped_file_that_is_only_read():
    assert in_process(code.first_byte) == 1


@alike("the lambda stays in the parent")
def test_a_lambda_for_the_parent():
    assert sorted(in_process(list, [1, 2]), key=lambda n: -n) == [2, 1]


@alike("its state leaves the lock out")
def test_a_lock_that_is_not_in_the_state():
    assert in_process(code.Polite().value) == 4


@alike("multiprocessing's own primitives may be arguments of a process")
def test_a_lock_of_the_context_itself(mp_context):
    lock = mp_context.Lock()
    process = mp_context.Process(target=nothing, args=(lock,))
    process.start()
    process.join()
    assert process.exitcode == 0


@alike("a loop is as deep as its items, however long it is")
def test_a_long_list():
    assert in_process(len, [[n] for n in range(20_000)]) == 20_000


@alike("partials and getters of importable functions pickle")
def test_a_partial():
    assert in_process(functools.partial(operator.add, 1), 2) == 3


@alike("it is pickled by its name, so that the copy is the child's own")
def test_a_sentinel_with_a_name():
    assert in_process(code.is_absent, code.ABSENT)


@alike("what the copy lacks is made again")
def test_a_cache_that_is_filled_again():
    thing = code.Refilling()
    thing.value()
    assert in_process(thing.value) == 3


@alike("what the copy lacks is made again, and the test is wrong under every method")
def test_a_cache_beside_a_mistake():
    thing = code.Refilling()
    thing.value()
    assert in_process(thing.value) == 4


@alike("the attribute differs in the copy, and nobody reads it")
def test_an_attribute_that_nobody_reads():
    request = code.Request("x")
    request.headers["a"] = 1
    assert in_process(get, request, "name") == "x"


@alike("equal objects that nobody tells by identity")
def test_a_marker_compared_by_name():
    assert in_process(get, code.signals.STOP, "name") == "stop"


@alike("its arguments are what its constructor takes")
def test_an_exception_that_comes_back():
    with pytest.raises(code.Refusal):
        in_pool(code.refuse_well)


@alike("the test itself changes it after the start")
def test_an_object_changed_by_the_test():
    thing = code.Polite()
    in_process(thing.value)
    thing.n = 5
    assert thing.n == 4


@alike("the global that differs is read, and the test is wrong under every method")
def test_a_global_beside_a_mistake(monkeypatch):
    monkeypatch.setattr(code, "ROUNDING", 0)
    assert in_process(code.rounded, 1.26) == 7


@alike("another key of the dictionary is read")
def test_another_key(monkeypatch):
    monkeypatch.setitem(code.PRICES, "silver", 5)
    assert in_process(code.price, "gold") == 10


@alike("the child sets what it reads")
def test_a_value_that_the_child_sets(monkeypatch):
    monkeypatch.setitem(code.PRICES, "silver", 70)
    assert in_process(code.raised_price, "silver") == 70


@alike("it was changed back before the start")
def test_a_theme_that_ended():
    with code.theme("dark"):
        pass
    assert in_process(code.current_theme) == "light"


@alike("the patched function is not among what the child calls")
def test_a_patch_that_nobody_reads(monkeypatch):
    monkeypatch.setattr(code, "dump", nothing)
    assert in_process(code.price, "gold") == 10


@alike("the child computes the same again")
def test_a_warm_cache():
    code.square(4)
    assert in_process(code.square, 4) == 16


@alike("the read stands on a branch that the argument avoids, and the test is wrong under every method")
def test_a_branch_not_taken(monkeypatch):
    monkeypatch.setattr(code, "ROUNDING", 9)
    assert in_process(code.elapsed, "s") == 9


@alike("a process id differs from process to process under every method")
def test_a_process_id():
    assert in_process(os.getpid) == os.getpid()


@alike("time passes under every method")
def test_the_time():
    assert in_process(time.time) == time.time()


@alike("a forked child has no other threads, either")
def test_threads():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert in_process(threading.active_count) == 2
    finally:
        stop.set()
        thread.join()


@alike("the environment reaches every child")
def test_the_environment(monkeypatch):
    monkeypatch.setenv("SESSION_CASES", "1")
    assert in_process(os.getenv, "SESSION_CASES") == "1"


@alike("the working directory reaches every child")
def test_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert in_process(os.getcwd) == str(tmp_path)


@alike("the filter is for records that nobody makes, and the test is wrong under every method")
def test_a_filter_beside_a_mistake():
    logging.getLogger("session_code.other").addFilter(nothing)
    assert in_process(code.price, "gold") == 11


@alike("the counter is an argument")
def test_a_counter_that_is_passed():
    counter = multiprocessing.Value("i", 0)
    code.run(code.bump_given, counter)
    assert counter.value == 1


@alike("what the child writes is its own")
def test_a_scratch_value():
    assert in_process(code.scratch, 4) == 8


@alike("the keyword that the child fills is not what the test reads, and the test is wrong under every method")
def test_a_list_beside_keywords():
    seen, other = [], []
    code.run_with(code.fill, into=other)
    assert seen == [1]


@alike("nobody looks at what the exit handler removes")
def test_an_exit_handler_without_a_file():
    assert code.run(nothing) == 0


@alike("it asks for the method and refuses none")
def test_a_choice_by_method():
    size = 1 if multiprocessing.get_start_method() == "fork" else 2
    assert in_process(pow, size, 2) == size**2


@alike("the exit code is the code's own")
def test_an_exit_code():
    assert code.run(os._exit, 3) == 3


@alike("the child raises under every method")
def test_a_mistake_of_the_child():
    assert in_pool(len, 3) == 3
