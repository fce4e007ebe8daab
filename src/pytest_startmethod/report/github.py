"""One annotation for each cause, as GitHub Actions reads them from the output. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from ..model.wire import Fields
from .document import level, place, who
from .text import count

_MOST: Final = 10
"""GitHub shows at most this many errors, warnings and notices of a step, and drops the others."""


def lines(model: Fields, workspace: str | None = None) -> Iterator[str]:
    """Yield the workflow commands for the groups of a report (`document.build`), and the number left out.

    A cause of a failure is an error, a prediction a warning, everything else a notice. Files are relative to
    `workspace`, where GitHub finds them, if they are below it.
    """
    counts = {"error": 0, "warning": 0, "notice": 0}
    for entry in [*model["groups"], *model["unexplained"]]:
        kind = level(entry)
        counts[kind] += 1
        if counts[kind] <= _MOST:
            yield _command(kind, entry, model, workspace)
    left = [count(number - _MOST, kind) for kind, number in counts.items() if number > _MOST]
    if left:
        yield f"start methods: {', '.join(left)} more: GitHub shows {_MOST} of a kind (see --start-methods-report)"


def _command(kind: str, entry: Fields, model: Fields, workspace: str | None) -> str:
    fix = f"fix: {entry['fix']}" if entry.get("fix") else ""
    text = [entry["message"] or "", *entry.get("evidence", ()), fix, who(entry)]
    title = f"{entry['code']} {entry['name']}" if "code" in entry else "no cause found"
    file, line = place(entry, model)
    values = {"file": _below(file, model["rootdir"], workspace), "line": line, "title": f"{title} (start methods)"}
    data = {key: _data(str(value)) for key, value in values.items() if value is not None}
    given = ",".join(f"{key}={value.replace(':', '%3A').replace(',', '%2C')}" for key, value in data.items())
    return f"::{kind} {given}::{_data(chr(10).join(filter(None, text)))}"


def _below(file: str, root: str, workspace: str | None) -> str:
    path = PurePath(root, file)
    if workspace and path.is_relative_to(workspace):
        path = path.relative_to(workspace)
    elif path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
