"""What the user's signal handlers raise while our own code runs reaches the user."""

from __future__ import annotations

import functools
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress

import pytest

import pytest_startmethod
from pytest_startmethod._compat.signals import OwnCode
from pytest_startmethod.activation.exchanges import Exchanges
from pytest_startmethod.causes.launch_examiner import LaunchExaminer
from pytest_startmethod.launches import recorder as recorder_module
from pytest_startmethod.launches.recorder import Recorder
from pytest_startmethod.source.callers import UserCode
from pytest_startmethod.state import observing

OURS = os.path.dirname(pytest_startmethod.__file__)
SETTINGS = {"a": [1, 2, 3]}


def nothing(*args, **kwargs):
    return SETTINGS


class Ended:
    """Stands in for a process that has run and ended."""

    pid, returncode, sentinel = 1, 0, -1

    def __init__(self, process):
        pass

    def poll(self):
        return 0


class Process(multiprocessing.Process):
    _start_method = "fork"
    _Popen = staticmethod(Ended)


class StoppedError(Exception):
    """What the user's signal handler raises."""


def test_what_a_signal_handler_raises_in_our_code_is_the_users(monkeypatch):
    """A handler that interrupts the recording of a start raises from start(), with no frame of ours from 3.11 on."""

    def stop(*arguments):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise StoppedError

    def interrupted(value):
        signal.raise_signal(signal.SIGINT)

    recorder = Recorder(Exchanges())
    monkeypatch.setattr(recorder_module, "describe_callable", interrupted)
    before = signal.signal(signal.SIGINT, stop)
    try:
        with recorder.leg("test_x[spawn]", "spawn", precheck=False):
            process = multiprocessing.get_context("spawn").Process(target=nothing)
            with pytest.raises(StoppedError) as caught:
                process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.pid is None
    assert recorder.troubles == []
    assert caught.value.__suppress_context__ is False
    if sys.version_info >= (3, 11):
        assert [each.name for each in traceback.extract_tb(caught.tb)] == [
            "test_what_a_signal_handler_raises_in_our_code_is_the_users",
            "stop",
        ]


@pytest.fixture
def heard():
    """Handle SIGINT and SIGTERM with a function that raises, and yield the numbers that it was called with."""
    numbers = []

    def handler(number, frame):
        numbers.append(number)
        raise StoppedError(number)

    before = [signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)]
    yield numbers
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [handler] * 2
    for number, theirs in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, theirs)


def start_interrupted_at(line):
    """Start a process, interrupt the `line`-th line of ours that runs, and return how many ran."""
    lines = itertools.count(1)
    main, reached = threading.get_ident(), 0

    def trace(frame, event, argument):
        nonlocal reached
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line" and threading.get_ident() == main:
            reached = next(lines)
            if reached == line:
                signal.raise_signal(signal.SIGTERM)
        return trace

    process = Process(target=nothing, args=({"b": 1}, print))
    before = sys.gettrace()
    gc.disable()  # what an exception does in a finalizer is another subject
    sys.settrace(trace)
    try:
        process.start()
    finally:
        sys.settrace(before)
        gc.enable()
    return reached


def test_an_exception_from_a_handler_is_never_lost(heard):
    """Whichever line of ours a signal interrupts, start() raises what the handler raises."""
    recorder = Recorder(Exchanges(), LaunchExaminer(functools.partial(observing.observe, user=UserCode())))
    raised = reached = 0
    for line in itertools.count(1, 17):
        with recorder.leg("test_x[fork]", "fork", precheck=True):
            try:
                reached = start_interrupted_at(line)
            except StoppedError:
                raised += 1
                continue
        break
    assert reached < line
    assert raised > 30
    assert heard == [signal.SIGTERM] * raised
    assert recorder.troubles == []


def test_every_waiting_handler_is_called_though_the_first_raises(heard):
    """Signals that arrive meanwhile are handled when our code has ended, and neither is lost."""

    def ours():
        with OwnCode(), suppress(StoppedError):
            with OwnCode():
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
            assert heard == []

    with pytest.raises(StoppedError) as caught:
        ours()
    assert heard == [signal.SIGINT, signal.SIGTERM]
    assert [str(caught.value), str(caught.value.__context__)] == [str(int(signal.SIGTERM)), str(int(signal.SIGINT))]


@pytest.mark.parametrize("noticed_by", ["block", "signal"])
def test_ctrl_c_within_a_block_leaves_no_handler_replaced(noticed_by):
    """Whichever instruction of the block's own code Ctrl-C interrupts, the next block or signal restores handlers."""
    numbers = []

    def handler(number, frame):
        numbers.append(number)

    def ours():
        with OwnCode():
            pass

    def interrupted_at(instruction):
        instructions = itertools.count(1)

        def trace(frame, event, argument):
            if frame.f_code.co_filename != OwnCode.__enter__.__code__.co_filename:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and next(instructions) == instruction:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # 3.12 reads it when sys.settrace is called
        sys.settrace(trace)
        try:
            ours()
        finally:
            sys.settrace(before)

    before, interrupts, replaced = signal.signal(signal.SIGTERM, handler), 0, 0
    try:
        for instruction in itertools.count(1):
            try:
                interrupted_at(instruction)
            except KeyboardInterrupt:
                interrupts += 1
            else:
                break
            replaced += signal.getsignal(signal.SIGTERM) != handler
            if noticed_by == "block":
                ours()
            else:
                signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert interrupts > 50
    assert replaced > 0
    assert numbers == [signal.SIGTERM] * (interrupts if noticed_by == "signal" else 0)


def test_handlers_do_not_wait_while_user_code_runs(heard):
    """A handler interrupts the user's own pickling methods, and what it raises is raised again if it was swallowed."""
    swallowed = []

    def ours():
        with OwnCode():
            OwnCode.call_handlers()
            try:
                signal.raise_signal(signal.SIGINT)
            except StoppedError as error:
                swallowed.append(error)

    with pytest.raises(StoppedError) as caught:
        ours()
    assert heard == [signal.SIGINT]
    assert swallowed == [caught.value]


def test_handlers_of_the_main_thread_do_not_wait_for_other_threads(heard):
    """Our own code in another thread delays nothing."""
    within, over = threading.Event(), threading.Event()

    def other():
        with OwnCode():
            within.set()
            over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    within.wait()
    try:
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGINT)
    finally:
        over.set()
        thread.join()


def test_an_ignored_signal_and_a_handler_in_c_stay_as_they_are():
    """Only handlers written in Python wait; Ctrl-C keeps CPython's own."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with OwnCode():
        within = {number: signal.getsignal(number) for number in signal.valid_signals()}
    changed = {number for number in before if within[number] is not before[number]}
    pythons = {number for number, handler in before.items() if callable(handler)}
    assert changed == {number for number in pythons if before[number] is not signal.default_int_handler}
