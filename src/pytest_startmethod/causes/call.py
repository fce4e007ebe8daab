"""Diagnose a call before it is made: the public ``pytest_startmethod.explain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..model.evidence import Evidence
from ..model.finding import Finding
from ..model.launch import Failure, Launch
from ..model.methods import ORDER
from ..pickling.dry_run import Call
from ..pickling.packing import pack
from ..source.callers import UserCode
from ..state import fresh_child
from . import pickling
from .explain import explain as explain_evidence


def explain(
    target: object,
    args: tuple[object, ...] | list[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    method: str = "spawn",
    task: bool = False,
) -> list[Finding]:
    """Return why ``Process(target=target, args=args, kwargs=kwargs)`` would fail under `method`.

    Checks whether the call pickles, then whether a fresh child can load it, then whether state that its code reads
    differs there, and reports the first of these that goes wrong. Empty under fork, or if nothing does. Only a call
    that pickles starts fresh children (about 0.2 s). With `task`, the call is a task of a pool or executor.

    Raises:
        ValueError: `method` is not a start method.

    """
    if method not in ORDER:
        raise ValueError(f"unknown start method {method!r}: choose from {', '.join(ORDER)}")
    if method == "fork":
        return []
    call = Call(target, tuple(args), dict(kwargs or {}))
    with fresh_child.Loader(method=method) as loader, fresh_child.Loader(method=method) as other:
        return explain_call(call, (loader, other), method=method, task=task)


def explain_call(
    call: Call, loaders: tuple[fresh_child.Loader, fresh_child.Loader], *, method: str, task: bool = False
) -> list[Finding]:
    """Return the findings of `explain`, asking `loaders`, which may have answered for other calls before."""
    found = pickling.diagnose(call, task=task, method=method)
    asked = Evidence("", method, "asked", failures=(Failure("", found),) if found else ())
    return list(explain_evidence(asked if found else _looked_up(call, asked, task, loaders)))


def _looked_up(
    call: Call, evidence: Evidence, task: bool, loaders: tuple[fresh_child.Loader, fresh_child.Loader]
) -> Evidence:
    """Return the evidence, completed with the answers of fresh children."""
    from ..state import observing, reads

    loader, other = loaders

    method = evidence.method
    observed = observing.observe(
        call.target, call.args, call.kwargs,
        method=method, user=UserCode.of_target(call.target), limit=reads.MAX_FUNCTIONS,
    )  # fmt: skip
    other.open()
    payload = pack(call, task=task)
    unloaded = loader.predict(payload) if payload is not None else ()
    if unloaded or observed is None:
        return replace(evidence, unloaded={0: unloaded})
    environ = observing.server_environment() if method == "forkserver" else None
    seen = observing.ask(observed, loaders, environ) if observed.reads_state else None
    launch = Launch(method, "", (), None, None, None, "", observed=observed)
    return replace(evidence, launches=(launch,), environ=environ, seen=((observed, seen or ()),))


def explain_loading(
    obj: object,
    *,
    task: bool = False,
    allow_fork_primitives: bool = False,
    method: str = "spawn",
    loader: fresh_child.Loader | None = None,
) -> tuple[Finding, ...]:
    """Return why `obj`, which pickles, would not load in a child (SM201 to SM203). Empty if it loads, or if unknown.

    `obj`, `task` and `allow_fork_primitives` are as for `pickling.diagnose`.
    """
    payload = pack(obj, task=task, allow_fork_primitives=allow_fork_primitives)
    if payload is None:
        return ()
    every = fresh_child.predict(payload, method=method) if loader is None else loader.predict(payload)
    return explain_evidence(Evidence("", method, "asked", unloaded={0: every}))
