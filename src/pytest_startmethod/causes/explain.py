"""The single entry point of diagnosis: a leg's, script's or call's evidence in, findings out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..model.evidence import Evidence
from ..model.finding import Finding, unique
from ..model.launch import Launch
from . import children, copying, forkserver, hang, late, loading, registries, starting, state, vacuous
from .ranking import keeps_from_running, linked, merged


def explain(evidence: Evidence) -> tuple[Finding, ...]:
    """Return why a phase failed or skipped, best supported cause first; empty if unknown.

    For a phase that passed: why processes failed to start anyway, and what its children did not share.
    """
    if evidence.outcome == "passed":
        starts, sends = _not_pickled(evidence)
        lost = [replace(each, level="note", every_method=True) for each in sends]
        return unique([*starts, *lost, *state.unshared_in(evidence)])
    declared = vacuous.declared_fork_only(evidence)
    if evidence.outcome == "skipped":
        return unique(declared)
    evidence = without_common(evidence)
    starts, sends = _not_pickled(evidence)
    found = [*starts, *children.without_directory(evidence), *children.failed_elsewhere(evidence)]
    reported = [*loading.findings(evidence), *children.not_returned(evidence)]
    found += filter(keeps_from_running, reported)
    peculiar = forkserver.findings(evidence)
    differing: Sequence[Finding] = ()
    if not any(map(keeps_from_running, found)):
        found += starting.broken(evidence)
    if not (declared or peculiar or any(map(keeps_from_running, found))):
        differing = [*registries.findings(evidence), *state.findings(evidence)]
        delayed, certain = late.findings(evidence)
        differing = [*copying.changed(evidence), *differing]
        causes = [each for each in differing if each.level == "cause"]
        if not (delayed or any(each.code != "SM309" for each in causes)):  # nobody knows what an exit handler does
            copies = copying.differing(evidence)
            differing, causes = [*differing, *copies, *copying.unshared_arrays(evidence)], [*copies, *causes]
        found += [*delayed, *causes] if certain else [*causes, *delayed]
        found += forkserver.stale(evidence)
    found += sends
    found += [each for each in reported if not keeps_from_running(each)]
    found += children.crashes(evidence)
    found += peculiar
    found += children.pools_given_up(evidence)
    found += children.held_by_threads(evidence)
    found += hang.findings(evidence)
    found += declared
    if not any(each.level == "cause" for each in (*found, *differing)):
        found += state.lost_tools(evidence) or registries.unsaid(evidence)
    found += [each for each in differing if each.level == "note"]
    tasks = {finding.key for each in evidence.tasks for finding in each.findings} | {each.key for each in sends}
    return linked(merged(replace(each, every_method=True) if each.key in tasks else each for each in unique(found)))


def without_common(evidence: Evidence) -> Evidence:
    """Return the evidence without events that also occurred in a passing fork leg: those cannot explain the failure."""
    fork = evidence.others.get("fork")
    if fork is None or fork.outcome != "passed" or not fork.events or evidence.method == "fork":
        return evidence
    return replace(
        evidence,
        failures=[
            each for each in evidence.failures if each is evidence.failure or ("send", each.error) not in fork.events
        ],
        reports=[
            each
            for each in evidence.reports
            if not each.raised or any(("raised", str(raised)) not in fork.events for raised in each.raised)
        ],
        launches=[
            replace(each, exit_code=None) if ("exit", f"{each.target} {each.exit_code}") in fork.events else each
            for each in evidence.launches
        ],
    )


def _not_pickled(evidence: Evidence) -> tuple[list[Finding], list[Finding]]:
    """Return why processes and tasks could not be sent, and why messages could not.

    The error that ended the leg comes first. A message that a queue's feeder thread could not pickle does not keep
    anything from running.
    """
    first = [evidence.failure] if evidence.failure is not None else []
    every = [finding for each in (*first, *evidence.failures) for finding in each.findings]
    work = [*evidence.launches, *(each for each in evidence.inherited if each.method == evidence.method)]
    started = {finding.key for each in work for finding in each.findings}
    started |= {finding.key for each in evidence.tasks for finding in each.findings}
    scripts = [each for each in evidence.failures if each.in_script]
    started |= {finding.key for each in (*first, *scripts) for finding in each.findings}
    every += [finding for each in evidence.inherited if each.method == evidence.method for finding in each.findings]
    asked = evidence.outcome == "asked"
    return (
        [each for each in every if asked or each.key in started],
        [each for each in every if not asked and each.key not in started],
    )


def predicted(launches: Iterable[Launch]) -> tuple[Finding, ...]:
    """Return why a fork leg's processes could not start under spawn, except where the code itself asks for fork."""
    return unique(finding for each in launches if not vacuous.pinned_fork(each) for finding in each.predicted)
