"""The report as a SARIF 2.1.0 log, for code scanning and editors: a result for each cause. Pure.

The format is the OASIS standard (sarif-v2.1.0); GitHub's documentation of code scanning says which part it reads.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ..model.codes import CAUSES, DOCS, url
from ..model.wire import Fields, Json
from .document import level, place, who

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT: Final = "ROOT"
_LABELS: Final = {"parent": " in the parent", "child": " in the child", "": ""}


def log(model: Fields) -> Json:
    """Return the log of a report of `document.build`."""
    entries = [*model["groups"], *({**each, "code": "unexplained"} for each in model["unexplained"])]
    codes = sorted({each["code"] for each in entries})
    names = {each["code"]: each.get("name", "no cause found") for each in entries}
    run = {
        "tool": {
            "driver": {
                "name": "pytest-startmethod",
                "version": model["plugin"],
                "informationUri": DOCS,
                "rules": [_rule(code, names[code]) for code in codes],
            }
        },
        "originalUriBaseIds": {_ROOT: {"uri": f"{Path(model['rootdir']).as_uri()}/"}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(each, model, codes) for each in entries],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str, name: str) -> Json:
    cause = CAUSES.get(code)
    what = cause.what if cause is not None else name
    rule: Json = {
        "id": code,
        "name": name.title().replace("-", "").replace(" ", ""),
        "shortDescription": {"text": name},
        "fullDescription": {"text": f"{what[0].upper()}{what[1:]}."},
    }
    address = url(code)
    if address is not None:
        rule["helpUri"] = address
        rule["help"] = {"text": f"{what[0].upper()}{what[1:]}. See {address}"}
    return rule


def _result(entry: Fields, model: Fields, codes: list[str]) -> Json:
    text = [entry["message"] or "no cause found", *entry.get("evidence", ())]
    text += [f"fix: {entry['fix']}"] if entry.get("fix") else []
    file, line = place(entry, model)
    key = "\0".join(map(str, (entry["code"], entry.get("path", ""), file, entry["first"] if line is None else line)))
    return {
        "ruleId": entry["code"],
        "ruleIndex": codes.index(entry["code"]),
        "level": {"notice": "note"}.get(level(entry), level(entry)),
        "message": {"text": "\n".join([*text, who(entry)])},
        "locations": [_location(file, line)],
        "relatedLocations": [
            {**_location(fact["file"], fact["line"]), "id": number, "message": {"text": _label(fact)}}
            for number, fact in enumerate((each for each in entry.get("facts", ()) if each["file"]), 1)
        ],
        "partialFingerprints": {"cause/v1": hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()},
        "properties": {
            "methods": entry["methods"],
            "tests": entry["tests"],
            "confirmed": entry.get("confirmed"),
            "predicted": entry.get("predicted", False),
        },
    }


def _label(fact: Fields) -> str:
    return f"{fact['label'] or 'see'}{_LABELS[fact['side']]}"


def _location(file: str, line: int | None) -> Json:
    path = Path(file)
    artifact = {"uri": path.as_uri()} if path.is_absolute() else {"uri": quote(path.as_posix()), "uriBaseId": _ROOT}
    region = {"region": {"startLine": line}} if line else {}
    return {"physicalLocation": {"artifactLocation": artifact, **region}}
