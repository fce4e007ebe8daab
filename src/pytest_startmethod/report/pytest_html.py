"""The parts of a leg in the report of pytest-html. Pure."""

from __future__ import annotations

from html import escape
from typing import Final

from ..model.leg_result import LegResult
from ..model.wire import Json

HEADER: Final = '<th class="sortable" data-column-type="startMethod">Start method</th>'


def cell(leg: LegResult) -> str:
    """Return the cell of a leg's row: its method and the codes of its findings."""
    found = [*leg.findings, *leg.predictions, *([leg.vacuous] if leg.vacuous is not None else [])]
    text = " ".join([leg.method, *dict.fromkeys(each.code for each in found), *(["flaky"] if leg.flaky else [])])
    return f'<td class="col-startMethod">{escape(text)}</td>'


def extra(leg: LegResult, root: str) -> Json | None:
    """Return an extra like `extras.html` of pytest-html for the findings that no failure shows, or None."""
    parts = [(each, "") for each in leg.findings if leg.outcome not in ("failed", "error")]
    parts += [(each, "predicted for spawn and forkserver: ") for each in leg.predictions]
    parts += [(leg.vacuous, "")] if leg.vacuous is not None else []
    if not parts:
        return None
    texts = []
    for finding, before in parts:
        lines = finding.section_lines(root)
        texts.append("\n".join([before + lines[0], *lines[1:]]))
    content = f'<pre style="white-space: pre-wrap">{escape(chr(10).join(texts))}</pre>'
    return {"name": None, "format_type": "html", "content": content, "mime_type": None, "extension": None}
