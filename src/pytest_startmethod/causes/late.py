"""SM409: the test gave up while the child was still importing, or unpickling its arguments."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.evidence import Evidence, Patience
from ..model.finding import Finding, finding_at, source_fact, values
from ..model.methods import base
from ..model.observed import Seen
from ..model.place import Place
from .context import observed_in

_SHARE = 0.5
"""An import that takes a smaller share of the test's time-out explains nothing."""
_LEAST = 0.1
"""Seconds. A shorter import explains nothing either."""
_SHOWN = 3


def findings(evidence: Evidence) -> tuple[list[Finding], bool]:
    """Return the finding that the child's start outlasts the test's wait, and whether that alone explains the failure.

    The times are from a fresh child that was asked after the failure. A child that raised was not late.
    """
    patience = _patience(evidence)
    if base(evidence.method) == "fork" or patience is None or evidence.outcome != "failed":
        return [], False
    fork = evidence.others.get("fork")
    if (fork is not None and fork.outcome == "failed") or any(each.raised for each in evidence.reports):
        return [], False
    waits, place = patience.seconds, patience.place
    if not patience.raised and not _started_before(place, evidence):
        return [], False
    seen = {id(observed): seen for observed, seen in evidence.seen}
    every = [(_seconds(seen.get(id(each), ())), each) for each in observed_in(evidence)]
    took, observed = max(every, key=lambda pair: sum(pair[0].values()), default=({}, None))
    loads = max((arrived.get("seconds", 0.0) for _, arrived in evidence.copied), default=0.0)
    imports = sum(took.values())
    total, least = max(imports, loads), max(_LEAST, _SHARE * waits)
    if observed is None or total < least:
        return [], False
    loading = loads - imports >= least
    found = _loading(loads, observed.target, patience) if loading else _late(took, observed.target, patience)
    return [found], (patience.raised or patience.measured) and total >= waits


def _patience(evidence: Evidence) -> Patience | None:
    """Return how long the test waited, or had: its time limit, if it was still running when that was reached."""
    hanging = evidence.hanging
    if hanging is None:
        return evidence.patience
    started = next((each.place for each, _ in hanging.children if each.place is not None), None)
    return None if started is None else Patience(hanging.seconds, started, raised=True, measured=True)


def _started_before(place: Place, evidence: Evidence) -> bool:
    starts = [each.place for each in evidence.launches if each.place is not None]
    return any(each.file == place.file and each.line < place.line for each in starts)


def _seconds(seen: Sequence[Seen]) -> dict[str, float]:
    """Return each import's shortest time, in seconds, in any fresh child."""
    every = [each.took for each in seen]
    return {name: min(took[name] for took in every if name in took) for name in (every[0] if every else ())}


def _loading(total: float, target: str, patience: Patience) -> Finding:
    less = "send less, and let __setstate__ and the constructors of what is sent do less"
    return _is_late("args", total, target, patience, "load", "its arguments", less)


def _late(took: dict[str, float], target: str, patience: Patience) -> Finding:
    total = sum(took.values())
    slow = [name for name in sorted(took, key=lambda name: -took[name]) if took[name] >= total / 10][:_SHOWN]
    each = ", ".join(f"{name} ({took[name]:.1f} s)" for name in slow)
    own = target.startswith(f"{slow[0]}.")
    less = f"defer what makes {slow[0]} slow to import" if own else f"import {slow[0]} where it is used"
    return _is_late(slow[0], total, target, patience, "import", each, f"{less}, if the child does not need it")


def _is_late(path: str, total: float, target: str, patience: Patience, does: str, what: str, less: str) -> Finding:
    """Return the finding that a child needs `total` s to do something; `less` is how to make it need less."""
    verb, fix = ("allows", "allow more") if patience.measured else ("waits", "wait longer")
    message = (
        f"nothing is lost, the child is late: before it can run {target}, a fresh child needs {total:.1f} s to {does} "
        f"{what}; the test {verb} {patience.seconds:g} s"
    )
    fix = f"{fix} than {total:.1f} s, or let the child say that it is ready before the clock starts; or {less}"
    facts = (
        *values(f"the time to {does}", f"{patience.seconds:g} s", f"{total:.1f} s"),
        source_fact("parent", verb, patience.place),
    )
    return finding_at("SM409", path, patience.place, message, facts, fix)
