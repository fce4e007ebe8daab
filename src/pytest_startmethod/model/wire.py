"""The form in which facts travel between processes and reach reports: dictionaries of builtins that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
Fields = Mapping[str, Any]
"""A `Json` that is only read."""
