"""The bytes that a child is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Form = Literal["call", "map", "starmap", "process", "state", "object", "task"]


@dataclass(frozen=True, slots=True)
class Payload:
    """What a child would be sent. It may contain the authentication key: never log it."""

    data: bytes = field(repr=False)
    buffers: tuple[int, ...]
    """The size of each large buffer in bytes; its content is not kept, and the child gets zeros."""
    form: Form
    """What the outermost object is."""
