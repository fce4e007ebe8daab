"""Ask a fresh child what would not load, and explain it: SM201 to SM203."""

from __future__ import annotations

from ..model.finding import Finding
from ..model.payload import Payload
from ..model.unloaded import Unloaded
from ..pickling.packing import pack
from ..state.fresh_child import SECONDS, Loader
from .children import Parent, load_finding


def predict(payload: Payload, *, method: str = "spawn", seconds: float = SECONDS) -> tuple[Unloaded, ...]:
    """Return what of `payload` a child started now could not load; see `Loader.predict`."""
    with Loader(seconds=seconds, method=method) as loader:
        return loader.predict(payload)


def explain(
    obj: object,
    *,
    task: bool = False,
    allow_fork_primitives: bool = False,
    method: str = "spawn",
    parent: Parent | None = None,
    loader: Loader | None = None,
) -> tuple[Finding, ...]:
    """Return why `obj`, which pickles, would not load in a child: SM201 to SM203. Nothing if it does, or is not known.

    `obj`, `task` and `allow_fork_primitives` are as for `pickling.diagnose`.
    """
    payload = pack(obj, task=task, allow_fork_primitives=allow_fork_primitives)
    if payload is None:
        return ()
    every = predict(payload, method=method) if loader is None else loader.predict(payload)
    parent = parent or Parent()
    found: dict[object, Finding] = {}
    for each in every:
        finding = load_finding(each, parent)
        found.setdefault((finding.code, finding.path, finding.file, finding.line), finding)
    return tuple(found.values())
