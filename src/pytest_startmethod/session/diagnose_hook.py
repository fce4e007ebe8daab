"""Calling the ``pytest_startmethod_diagnose`` hook for a failed leg."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from ..model import codes
from ..model.failed_leg import FailedLeg
from ..model.finding import Finding

if TYPE_CHECKING:
    import pytest


def exception_name(error: BaseException) -> str:
    """Return the name of an exception's type in the form used by `FailedLeg`."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def exception_text(error: BaseException) -> str:
    """Return ``str(error)``, which is user code and may itself raise."""
    try:
        return str(error)
    except Exception:
        return "<its __str__ raised>"


def ask(item: pytest.Item, failure: FailedLeg) -> tuple[tuple[Finding, ...], list[str]]:
    """Return the findings of all implementations, and one line for each broken implementation.

    Implementations are called one by one, so that a broken one does not cost the findings of the others.
    """
    found: list[Finding] = []
    troubles: list[str] = []
    for implementation in reversed(item.ihook.pytest_startmethod_diagnose.get_hookimpls()):
        given: dict[str, object] = {"item": item, "failure": failure}
        try:
            returned = implementation.function(*(given[name] for name in implementation.argnames))
            found += _checked(returned)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # pytest.fail() and pytest.skip() raise BaseException subclasses
            troubles.append(_trouble(implementation.function, error))
    return tuple(found), troubles


def _checked(returned: object) -> Iterator[Finding]:
    returned = () if returned is None else (returned,) if isinstance(returned, Finding) else returned
    if not isinstance(returned, Sequence) or isinstance(returned, str):
        raise TypeError(f"it returns a list of Finding, not an object of type {type(returned).__name__}")
    for each in returned:
        if not isinstance(each, Finding):
            raise TypeError(f"it returned a list with an object of type {type(each).__name__}, which is no Finding")
        if each.level not in ("cause", "note"):
            raise ValueError(f"the level of {each.code} is {each.level!r} (valid: cause, note)")
        # findings cross processes: a non-builtin value would crash an xdist session
        for field in fields(each):
            value = getattr(each, field.name)
            parts = value if field.name in ("evidence", "together") and isinstance(value, (tuple, list)) else [value]
            if field.name == "facts":
                parts = [part for fact in value for part in (fact.side, fact.label, fact.text)]
            if not all(part is None or type(part) in (str, int, bool) for part in parts):
                raise TypeError(f"{field.name} of {each.code} is not plain text or a number")
        yield Finding(
            **{**{field.name: getattr(each, field.name) for field in fields(each)}, "evidence": (*each.evidence,)}
        )


def _trouble(function: object, error: BaseException) -> str:
    code = getattr(function, "__code__", None)
    steps = traceback.extract_tb(error.__traceback__)
    inside = [step for step in steps if code is not None and step.filename == code.co_filename]
    if inside:
        where = f" ({inside[-1].filename}:{inside[-1].lineno})"
    else:
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    text = " ".join(exception_text(error).split())
    return f"pytest_startmethod_diagnose{where}: {type(error).__name__}: {text}"


def ranked(ours: Sequence[Finding], theirs: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return all findings in order: pickling failures, causes from hooks, our other causes, notes.

    A payload that does not pickle explains the failure whatever else is wrong. Otherwise the plugin of a framework
    knows more than our reading of the child's exception.
    """

    def place(finding: Finding, hooked: bool) -> int:
        if finding.level == "note":
            return 3
        if hooked and finding.code not in codes.CAUSES:
            return 1
        return 0 if finding.code.startswith("SM10") else 1 if hooked else 2

    every = [(place(each, False), each) for each in ours] + [(place(each, True), each) for each in theirs]
    return tuple(each for _, each in sorted(every, key=lambda pair: pair[0]))
