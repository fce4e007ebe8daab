"""Hook wrappers that leave no frame of ours in the tracebacks of exceptions that pass through them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import pytest

_Hook = TypeVar("_Hook", bound=Callable[..., Generator[None, Any, Any]])


def hook_wrapper(*, tryfirst: bool = False, trylast: bool = False) -> Callable[[_Hook], _Hook]:
    """Like ``pytest.hookimpl(wrapper=True)``, but the hook's frame stays out of tracebacks.

    pytest prints exception groups, crashes and ``--full-trace`` with every frame. pluggy throws exceptions into the
    generator of a ``wrapper``, but hands them to that of a ``hookwrapper`` and then raises them from its own frame.
    """

    def decorate(hook: _Hook) -> _Hook:
        @functools.wraps(hook)
        def steps(*args: object) -> Generator[None, Any, None]:
            ours = hook(*args)
            next(ours)
            outcome = yield
            theirs: BaseException | None = outcome.exception
            frames = theirs.__traceback__ if theirs is not None else None
            try:
                if theirs is None:
                    ours.send(outcome.get_result())
                else:
                    ours.throw(theirs)
            except StopIteration as end:
                outcome.force_result(end.value)
            except BaseException as error:
                if error is theirs:  # pluggy before 1.6 raises it with the traceback that it has then
                    error.__traceback__ = frames
                # a generator turns StopIteration into a RuntimeError
                elif not (isinstance(theirs, StopIteration) and error.__cause__ is theirs):
                    outcome.force_exception(error)

        return pytest.hookimpl(hookwrapper=True, tryfirst=tryfirst, trylast=trylast)(steps)  # type: ignore[return-value]

    return decorate
