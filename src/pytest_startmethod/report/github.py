"""One annotation for each cause, as GitHub Actions reads them from the output. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any


def lines(model: Mapping[str, Any], workspace: str | None = None) -> Iterator[str]:
    """Return the workflow commands for the groups of a report (`report_model.build`).

    A cause of a failure is an error, a prediction a warning, everything else a notice. Files are relative to
    `workspace`, where GitHub finds them, if they are below it.
    """
    for group in model["groups"]:
        if group["level"] == "note" or group["vacuous"]:
            kind = "notice"
        else:
            kind = "warning" if group["predicted"] else "error"
        text = [group["message"], *group["evidence"], f"fix: {group['fix']}" if group["fix"] else "", _who(group)]
        yield _command(kind, f"{group['code']} {group['name']}", _place(group, model), text, model, workspace)
    for each in model["unexplained"]:
        text = [each["message"] or "", _who(each)]
        yield _command("error", "no cause found", _place(each, model), text, model, workspace)


def _command(
    kind: str,
    title: str,
    place: tuple[str, int | None],
    text: list[str],
    model: Mapping[str, Any],
    workspace: str | None,
) -> str:
    file, line = place
    values = {"file": _below(file, model["rootdir"], workspace), "line": line, "title": f"{title} (start methods)"}
    given = ",".join(f"{key}={_property(str(value))}" for key, value in values.items() if value is not None)
    return f"::{kind} {given}::{_data(chr(10).join(filter(None, text)))}"


def _place(entry: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[str, int | None]:
    if entry.get("file"):
        return entry["file"], entry["line"]
    for test in model["tests"]:
        if any(leg["nodeid"] == entry["first"] for leg in test["legs"].values()):
            return test["file"], test["line"]
    return entry["first"].partition("::")[0], None


def _who(entry: Mapping[str, Any]) -> str:
    more = f" and {entry['legs'] - 1} more" if entry["legs"] > 1 else ""
    return f"{entry['first']}{more} ({', '.join(entry['methods'])})"


def _below(file: str, root: str, workspace: str | None) -> str:
    path = PurePath(root, file)
    if workspace and path.is_relative_to(workspace):
        path = path.relative_to(workspace)
    elif path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
