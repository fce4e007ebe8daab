"""SM306 where an exception names what a fresh interpreter does not know and the parent does: a codec, an adapter.

Their registries have no name that code reads, and the interpreter's own functions look into them: only the exception
tells what was looked for. Pure, but for asking the parent's registries.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .callers import Place, owner
from .children import Raised
from .codes import CAUSES
from .finding import Finding


@dataclass(frozen=True, slots=True)
class _Registry:
    errors: tuple[str, ...]
    """Types of the exception, without their modules."""
    message: re.Pattern[str]
    """Its message, with the name that was looked for."""
    knows: Callable[[str], bool]
    """Says whether the parent has it. May raise anything."""
    path: str
    what: str
    setter: str


def _adapts(name: str) -> bool:
    adapters: dict[Any, Any] = getattr(sys.modules.get("sqlite3"), "adapters", {})
    return any(cls.__name__ == name for cls, _ in list(adapters))


_REGISTRIES = (
    _Registry(
        ("LookupError",), re.compile(r"unknown encoding: (\S+)$"), lambda name: bool(codecs.lookup(name)),
        "codecs.lookup({name!r})", "the codec {name!r}", "codecs.register()",
    ),
    _Registry(
        ("LookupError",), re.compile(r"unknown error handler name '([^']+)'"),
        lambda name: bool(codecs.lookup_error(name)),
        "codecs.lookup_error({name!r})", "the codecs' error handler {name!r}", "codecs.register_error()",
    ),
    _Registry(  # without the name of the type up to 3.10
        ("ProgrammingError", "InterfaceError"),
        re.compile(r"Error binding parameter .*: type '([^']+)' is not supported"), _adapts,
        "sqlite3.adapters", "an adapter for {name}", "sqlite3.register_adapter()",
    ),
)  # fmt: skip


def findings(errors: Iterable[Raised]) -> list[Finding]:
    """Return what children of a leg missed that the parent has registered, by the exceptions that they raised."""
    found: dict[str, Finding] = {}
    for error in errors:
        for registry in _REGISTRIES:
            match = registry.message.search(error.message)
            if match is None or error.type.rpartition(".")[2] not in registry.errors:
                continue
            finding = _finding(registry, match[1], error)
            if finding is not None:
                found.setdefault(finding.path + finding.message, finding)
    return list(found.values())


def _finding(registry: _Registry, name: str, error: Raised) -> Finding | None:
    try:
        if not registry.knows(name):
            return None
    except Exception:  # a search function is the user's
        return None
    own = [each for each in error.frames if owner(each.file) == "user"]
    place = Place(own[-1].file, own[-1].line) if own else None
    what = registry.what.format(name=name)
    message = f"{what} is registered in the parent and not in a fresh child: {error.type}: {error.message}"
    evidence = (f"read at {place.file}:{place.line}: {own[-1].source}",) if place is not None else ()
    fix = (
        f"call {registry.setter} in the child too: in a pool's initializer, first in the target, or in the module that "
        "the child imports"
    )
    file, line = (place.file, place.line) if place is not None else (None, None)
    return Finding("SM306", CAUSES["SM306"].name, "cause", registry.path.format(name=name), file, line, message,
                   evidence, fix)  # fmt: skip
