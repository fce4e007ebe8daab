"""Map frames to places in the source, and tell user code from library code."""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os.path import abspath
from types import FrameType

from ..child.values import INSTALLED, class_name, module_of
from ..model.place import Place

_HERE = os.path.dirname(os.path.dirname(abspath(__file__))) + os.sep
_STDLIB = tuple(
    {path + os.sep for path in (os.path.dirname(os.__file__), os.path.realpath(os.path.dirname(os.__file__)))}
)
_RUNNERS = tuple(
    f"{os.sep}{name}{os.sep}" for name in ("_pytest", "pluggy", "xdist", "execnet", "pytest_asyncio", "anyio")
)
_CONSOLES = ("<doctest", "<ipython", "<stdin", "<python-input")


@functools.lru_cache(maxsize=8192)
def owner(filename: str) -> str:
    """Return whose code a file is: ``ours``, ``stdlib``, ``runner`` (pytest and its kind), ``installed`` or ``user``.

    Code without a file (``"<string>"``: a dataclass's methods) counts as the standard library's; its caller decides.
    Doctests and consoles are the user's.
    """
    path = abspath(filename)
    if path.startswith(_HERE):
        return "ours"
    if filename.startswith("<"):
        return "user" if filename.startswith(_CONSOLES) else "stdlib"
    if any(part in path for part in INSTALLED):
        return "runner" if any(part in path for part in _RUNNERS) else "installed"
    if path.startswith(_STDLIB) or os.path.realpath(path).startswith(_STDLIB):
        return "stdlib"
    return "user"


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield `frame` and its callers, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_of(frame: FrameType) -> Place:
    """Return the line that `frame` is executing."""
    code = frame.f_code
    return _place(code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name))  # co_qualname: 3.11


@functools.lru_cache(maxsize=1024)
def _place(file: str, line: int, function: str) -> Place:
    return Place(absolute(file), line, function)


absolute = functools.cache(abspath)
"""Resolve a path, once: a relative one refers to the directory where pytest started, also after a ``chdir``."""


def calling_place(frame: FrameType | None) -> Place | None:
    """Return the user's line that led to `frame`, else the nearest line of an installed package.

    None if neither is on the stack: in a thread whose target is a function of the standard library.
    """
    nearest = None
    for each in frames(frame):
        whose = owner(each.f_code.co_filename)
        if whose == "user":
            return place_of(each)
        if whose == "installed" and nearest is None:
            nearest = place_of(each)
    return nearest


def is_plugins(frame: FrameType | None) -> bool:
    """Return whether a hook of an installed plugin led to `frame`, and no line of a test."""
    hook = False
    for each in frames(frame):
        whose = owner(each.f_code.co_filename)
        if whose in ("user", "runner"):
            return hook and whose == "runner"
        hook = whose == "installed" and each.f_code.co_name.startswith("pytest_")
    return False


def user_files() -> list[str]:
    """Return the source files of all imported modules of the user."""
    files = (getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values()))
    return sorted({f for f in files if isinstance(f, str) and f.endswith(".py") and owner(f) == "user"})


@dataclass(frozen=True)
class UserCode:
    """The rule that decides whether a file is user code: neither standard library nor installed.

    Installed packages in `packages` count as user code, too: those named by the ini key ``start_methods_user_code``,
    and the project's own, which also exist in the root directory or its ``src``.
    """

    packages: frozenset[str] = frozenset()

    def __call__(self, file: str) -> bool:
        """Return whether `file` is the user's."""
        return _is_users(file, self.packages)

    @classmethod
    def of_project(cls, root: str, named: Iterable[str] = ()) -> UserCode:
        """Return the rule for a project in the directory `root`."""
        return cls(frozenset(named) | _own_packages(root))

    @classmethod
    def of_target(cls, target: object) -> UserCode:
        """Return the rule for one callable: its own top-level package is user code."""
        for _ in range(10):
            if type(target) is functools.partial:
                target = target.func
            elif type(target) is types.MethodType:
                target = target.__func__
        holder = target if type(target) is types.FunctionType or issubclass(type(target), type) else type(target)
        module = holder.__module__ if type(holder) is types.FunctionType else class_name(holder)[0]
        top = module.partition(".")[0] if type(module) is str else ""
        file = module_of(sys.modules.get(top)).get("__file__")
        whose = owner(file) if type(file) is str else ""
        return cls(frozenset({top}) if whose == "installed" else frozenset())


@functools.lru_cache(maxsize=8192)
def _is_users(file: str, packages: frozenset[str]) -> bool:
    if owner(file) == "user":
        return not file.startswith("<")
    return bool(packages) and package_of(file) in packages


@functools.lru_cache(maxsize=8192)
def package_of(file: str) -> str:
    """Return the top-level installed or standard module of a file; empty for the user's files."""
    path = abspath(file)
    for part in INSTALLED:
        _, found, rest = path.rpartition(part)
        if found:
            return rest.split(os.sep)[0].removesuffix(".py")
    for directory in _STDLIB:
        if path.startswith(directory):
            return path[len(directory) :].split(os.sep)[0].removesuffix(".py")
    return ""


@functools.lru_cache(maxsize=8)
def _own_packages(root: str) -> frozenset[str]:
    """Return the top-level modules and packages in a directory, its ``src`` and its ``lib``."""
    names = set()
    for directory in (root, os.path.join(root, "src"), os.path.join(root, "lib")):
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(".py"):
                names.add(entry.name.removesuffix(".py"))
            elif entry.name.isidentifier() and entry.is_dir():
                names.add(entry.name)
    return frozenset(names - {"setup", "conftest", "src", "lib"})
