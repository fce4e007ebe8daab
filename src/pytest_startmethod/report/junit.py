"""Properties of a finished leg in the file of ``--junitxml``. Pure."""

from __future__ import annotations

from ..model.finding import relative
from ..model.leg_result import LegResult


def properties(leg: LegResult, root: str) -> list[tuple[str, object]]:
    """Return the properties of a leg's test case, besides its method."""
    found: list[tuple[str, object]] = []
    for finding in leg.findings:
        place = f" at {relative(finding.place, root)}" if finding.file else ""
        path = f": {finding.path}" if finding.path else ""
        found.append(("start_method_finding", f"{finding.code} {finding.name}{path}{place}"))
    for finding in leg.predictions:
        found.append(("start_method_predicted", f"{finding.code} {finding.name}: {finding.path}"))
    if leg.vacuous is not None:
        found.append(("start_method_vacuous", f"{leg.vacuous.code} {leg.vacuous.name}"))
    return [*found, *(("start_method_flaky", "true") for _ in range(leg.flaky))]
