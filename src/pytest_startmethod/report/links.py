"""Addresses of source lines: in the commit on CI, else in a local editor. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Links:
    """Where to view source lines."""

    root: str
    """The directory that relative files refer to."""
    base: str | None = None
    """The address of the repository's files at the commit, with a slash at the end."""
    top: str | None = None
    """The directory of the repository on this machine."""

    @classmethod
    def of(cls, environ: Mapping[str, str], root: str) -> Links:
        """Return the links according to the variables of GitHub Actions or GitLab CI."""
        if environ.get("GITHUB_REPOSITORY") and environ.get("GITHUB_SHA"):
            server = environ.get("GITHUB_SERVER_URL", "https://github.com")
            base = f"{server}/{environ['GITHUB_REPOSITORY']}/blob/{environ['GITHUB_SHA']}/"
            return cls(root, base, environ.get("GITHUB_WORKSPACE") or root)
        if environ.get("CI_PROJECT_URL") and environ.get("CI_COMMIT_SHA"):
            base = f"{environ['CI_PROJECT_URL']}/-/blob/{environ['CI_COMMIT_SHA']}/"
            return cls(root, base, environ.get("CI_PROJECT_DIR") or root)
        return cls(root)

    def permanent(self, file: str | None, line: int | None) -> str | None:
        """Return the address of a line in the commit, if that is known and contains the file."""
        if file is None or self.base is None or self.top is None:
            return None
        path = PurePath(self.root, file)
        if not path.is_relative_to(self.top):
            return None
        return f"{self.base}{quote(path.relative_to(self.top).as_posix())}{f'#L{line}' if line else ''}"

    def editor(self, file: str | None, line: int | None) -> str | None:
        """Return the address of a line in the commit, else the one that opens it in a local editor."""
        if file is None:
            return None
        path = quote(PurePath(self.root, file).as_posix().lstrip("/"))
        return self.permanent(file, line) or f"vscode://file/{path}{f':{line}' if line else ''}"
