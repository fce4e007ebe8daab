"""The one diagnosis: from the evidence of a leg, a script or a call to its findings. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.evidence import Evidence
from ..model.finding import Finding, unique
from . import children, forkserver, hang, loading, registries, state, vacuous
from .ranking import keeps_from_running


def explain(evidence: Evidence) -> tuple[Finding, ...]:
    """Return why a phase failed or skipped, the best supported cause first; nothing if that cannot be told.

    Of a phase that passed: what kept processes from starting all the same, and what its children did not share.
    """
    if evidence.outcome == "passed":
        return unique([*_swallowed(evidence), *state.unshared_in(evidence)])
    declared = vacuous.declared_fork_only(evidence)
    if evidence.outcome == "skipped":
        return unique(declared)
    found = [*_not_started(evidence), *children.failed_elsewhere(evidence)]
    reported = [*loading.findings(evidence), *children.not_returned(evidence)]
    crashes = list(children.crashes(evidence))
    found += filter(keeps_from_running, reported)
    peculiar = forkserver.findings(evidence)
    differing: Sequence[Finding] = ()
    if not (declared or peculiar or any(map(keeps_from_running, found))):
        differing = [*registries.findings(evidence), *state.findings(evidence)]
    found += [each for each in differing if each.level == "cause"]
    found += [each for each in reported if not keeps_from_running(each)]
    found += crashes
    found += peculiar
    found += children.pools_given_up(evidence)
    found += children.held_by_threads(evidence)
    found += hang.findings(evidence)
    found += declared
    found += [each for each in differing if each.level == "note"]
    return unique(found)


def _not_started(evidence: Evidence) -> list[Finding]:
    """Return what kept processes from starting and messages from being sent; what the leg died of comes first."""
    first = [evidence.failure] if evidence.failure is not None else []
    found = [finding for each in (*first, *evidence.failures) for finding in each.findings]
    for launch in evidence.inherited:
        if launch.method == evidence.method:
            found += launch.findings
    return found


def _swallowed(evidence: Evidence) -> list[Finding]:
    return [finding for each in evidence.failures for finding in each.findings]


def predicted(evidence: Evidence) -> tuple[Finding, ...]:
    """Return why what the fork leg started could not start under spawn, where the code leaves that to the leg."""
    launches = [each for each in evidence.launches if each.predicted and not vacuous.pinned_fork(each)]
    return unique(finding for launch in launches for finding in launch.predicted)
