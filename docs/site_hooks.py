"""What MkDocs does beyond its configuration: each cause's page goes into the navigation by its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Add the pages of the causes to the navigation, in the order of their codes."""
    pages = sorted(Path(config.docs_dir, "causes").glob("SM*.md"))
    (causes,) = (entry["Causes"] for entry in config.nav if isinstance(entry, dict) and "Causes" in entry)
    causes += [f"causes/{page.name}" for page in pages if f"causes/{page.name}" not in causes]
    return config
