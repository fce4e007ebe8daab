"""What is checked, session by session: `nox --list`; CONTRIBUTING.md says when to use which."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.sessions = ["lint", "tests"]

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
LOWEST = ("pytest==8.4.0", "pluggy==1.5.0", "cloudpickle==3.0.0")
"""The lowest versions that pyproject.toml allows."""
SUITE = ("tests", "examples", "docs", "README.md", "CHANGELOG.md", "pyproject.toml")
"""What the suite needs of the repository, apart from the package itself."""


def _folders() -> list[Path]:
    """Return where interpreters may lie, first come first served.

    NEWER_PYTHONS names folders (joined as in PATH) of interpreters that the machine does not have itself.
    """
    named = [Path(name) for name in os.environ.get("NEWER_PYTHONS", "").split(os.pathsep) if name]
    on_path = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    return [*named, *on_path, *sorted(pyenv.glob("*/bin"), reverse=True)]


def _works(interpreter: Path, version: str) -> bool:
    # pyenv has a shim for each version that it knows; one that is not switched on only prints an error.
    command = [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def _put_interpreters_on_path() -> None:
    """Put the folder of each version's interpreter on the path, where nox looks for it."""
    folders = _folders()
    found = []
    for version in VERSIONS:
        candidates = (shutil.which(f"python{version}", path=str(folder)) for folder in folders)
        path = next((Path(each) for each in candidates if each and _works(Path(each), version)), None)
        if path is not None and path.parent not in found:
            found.append(path.parent)
    os.environ["PATH"] = os.pathsep.join([*map(str, found), os.environ.get("PATH", "")])


_put_interpreters_on_path()


@nox.session(python=VERSIONS)
def tests(session: nox.Session) -> None:
    """Run the suite on each interpreter; arguments go to pytest: `nox -s tests-3.14 -- -n 2 -k fork`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def xdist(session: nox.Session) -> None:
    """Run the suite in two processes."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Run the suite with the lowest versions of everything that the package depends on."""
    session.install("-e", ".[test]", *LOWEST)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the package and test what was built: the sources are out of reach."""
    session.install("build", "twine")
    # Not create_tmp(): it sets TMPDIR to a folder of this project, and the nested sessions of the suite, which run in
    # temporary directories, would then take this project's pyproject.toml for theirs.
    work = Path(session.virtualenv.location, "work").resolve()
    shutil.rmtree(work, ignore_errors=True)
    built = work / "dist"
    session.run("python", "-m", "build", "--outdir", str(built))
    session.run("twine", "check", "--strict", *map(str, built.iterdir()))
    (package,) = built.glob("*.whl")
    session.install(f"pytest-startmethod[test] @ {package.resolve().as_uri()}")
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    for name in SUITE:
        source = Path(name)
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, elsewhere / name)
    session.chdir(elsewhere)
    # The examples are meant to fail, and their summary is what somebody new sees first.
    out = session.run("pytest", "--start-methods=all", "examples", silent=True, success_codes=[1])
    for line in (" SM101 local-function ", "start methods"):
        if line not in str(out):
            session.error(f"the examples do not say {line!r}:\n{out}")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, habits and types: what .pre-commit-config.yaml lists, on every file."""
    session.install("pre-commit")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", "--color=always")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("mkdocs>=1.6,<2", "mkdocs-material>=9.5")
    site = str(Path(session.create_tmp()) / "site")
    session.run("mkdocs", "build", "--strict", "--site-dir", site, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Print what the plugin costs, next to its budget."""
    session.install(".")
    for name in session.posargs or ("startup", "collection", "launches", "discovery"):
        session.run("python", f"benchmarks/{name}.py")
