"""The bytes that a child is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Form = Literal["call", "map", "starmap", "process", "state", "object"]


@dataclass(frozen=True, slots=True)
class Payload:
    """What a child would be sent, as far as it matters for loading. It may hold the authentication key: never log."""

    data: bytes = field(repr=False)
    buffers: tuple[int, ...]
    """Bytes of each large buffer, which is not kept: the child gets zeros."""
    form: Form
    """What the outermost object is."""
