"""The report as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(model: Mapping[str, Any]) -> str:
    """Return the report of `report_model.build` as HTML."""
    raise NotImplementedError
