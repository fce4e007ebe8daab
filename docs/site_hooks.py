"""What MkDocs does beyond its configuration: the pages of the causes, and a first page that needs no other site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RAW = "https://raw.githubusercontent.com/pytest-startmethod/pytest-startmethod/main/docs/"


def on_config(config: Any) -> Any:
    """Add the pages of the causes to the navigation, in the order of their codes."""
    pages = sorted(Path(config.docs_dir, "causes").glob("SM*.md"))
    (causes,) = (entry["Causes"] for entry in config.nav if isinstance(entry, dict) and "Causes" in entry)
    causes += [f"causes/{page.name}" for page in pages if f"causes/{page.name}" not in causes]
    return config


def on_page_content(html: str, page: Any, config: Any, **_: Any) -> str:
    """Let the README's addresses, which are absolute for the package index, lead to this build's own files."""
    return html.replace(RAW, "").replace(config.site_url, "") if page.is_homepage else html
