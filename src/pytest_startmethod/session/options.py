"""Declarations of the options and the marker; `settings` interprets them.

Kept separate because a run without marked tests and options needs nothing else.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

MARKER: Final = "startmethods"
MISSPELT: Final = "startmethod"
"""The package's own name, easily mistaken for the marker's."""
MARKER_HELP: Final = (
    "startmethods(*methods, vacuous=None, timeout=None, xfail=(), reason='', strict=None): run the test once under "
    "each of these multiprocessing start methods (fork, spawn, forkserver; without names, under each selected one). A "
    "method may be a pytest.param with marks. vacuous: what to do with a leg that starts no process (report, fail, "
    "ignore). timeout: limit of each leg's call in seconds (0: none). xfail: the methods under which the test is "
    "expected to fail, with the reason and strict of pytest.mark.xfail."
)

PRECHECK: Final = ("report", "error", "off")
VACUOUS: Final = ("report", "fail", "ignore")

USER_CODE: Final = "start_methods_user_code"
_FILES: Final = "file_or_dir"
"""Where pytest's parser stores the test files and directories of the command line."""

OPTIONS: Final = {
    "start_methods": (
        "METHODS",
        "start methods under which marked tests run: all (default), default (the interpreter's own), or a list such as "
        "fork,spawn",
    ),
    "start_methods_precheck": (
        "|".join(PRECHECK),
        "what to do when a process started under fork could not have started under spawn: report (default), error "
        "(fail the leg), off",
    ),
    "start_methods_vacuous": (
        "|".join(VACUOUS),
        "what to do with a leg that passed without starting a process with its method: report (default), fail, ignore",
    ),
    "start_methods_timeout": (
        "auto|SECONDS",
        "limit of a leg's call in seconds, 0 for none; auto (default): 60 s plus ten times the longest leg of that "
        "test so far; none under a debugger",
    ),
    "start_methods_report": (
        "PATH",
        "write a report of all legs at the end of the session, as its suffix says: .json, .html, .md or .sarif; may be "
        "given more than once",
    ),
}
"""Metavar and help by ini key. The option is the same name with dashes."""

LISTS: Final = frozenset({"start_methods_report"})
"""Repeatable options; in an ini file, one value per line."""
DISCOVER: Final = "start_methods_discover"
DISCOVER_HELP: Final = (
    "also watch unmarked tests, and after the session run those that started processes through the interpreter's "
    "default start method again under the other methods"
)
VERIFY: Final = "start_methods_verify"
VERIFY_HELP: Final = (
    "after the session, run failed legs again without their causes, to confirm the findings (default); =SECONDS limits "
    "the total time of these runs (default: 60, or the session's own time if that is longer)",
    "do not run failed legs again",
)


def flag(key: str) -> str:
    """Return the option of an ini key: ``start_methods`` -> ``--start-methods``."""
    return "--" + key.replace("_", "-")


def add_options(parser: pytest.Parser) -> None:
    """Declare the options and ini keys. Command-line defaults are None, so that an ini value is not hidden."""
    group = parser.getgroup("startmethod", "multiprocessing start methods")
    for key, (metavar, text) in OPTIONS.items():
        if key in LISTS:
            group.addoption(flag(key), action="append", default=None, metavar=metavar, dest=key, help=text)
            parser.addini(key, f"The default of {flag(key)}, one a line.", type="linelist", default=[])
            continue
        group.addoption(flag(key), default=None, metavar=metavar, dest=key, help=text)
        parser.addini(key, f"The default of {flag(key)}.", default="")
    group.addoption(flag(DISCOVER), action="store_true", default=None, dest=DISCOVER, help=DISCOVER_HELP)
    parser.addini(DISCOVER, f"The default of {flag(DISCOVER)}.", type="bool", default=False)
    group.addoption(
        flag(VERIFY),
        action=_FlagOrSeconds,
        nargs="?",
        default=None,
        metavar="SECONDS",
        dest=VERIFY,
        help=VERIFY_HELP[0],
    )
    no = f"--no-{flag(VERIFY)[2:]}"
    group.addoption(no, action="store_const", const="false", default=None, dest=VERIFY, help=VERIFY_HELP[1])
    parser.addini(VERIFY, f"The default of {flag(VERIFY)}: true, false, or a number of seconds.", default=None)
    parser.addini(USER_CODE, "Installed packages to be treated as the project's own code.", type="args", default=[])


class _FlagOrSeconds(argparse.Action):
    """A flag that also accepts ``=SECONDS``.

    argparse would take whatever follows the flag, such as a test file, as its value. Such a word goes to the files.
    """

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        """Store the seconds as text, or ``"true"``."""
        if type(values) is str and not values.replace(".", "", 1).isdecimal():
            files = getattr(namespace, _FILES, None)
            if files:
                files.append(values)
            else:  # they are parsed later
                namespace.__class__ = _WithFile
                namespace.start_methods_file = values
            values = None
        setattr(namespace, self.dest, values or "true")


class _WithFile(argparse.Namespace):
    """A namespace that puts a file consumed by an option back before the files stored next."""

    start_methods_file: str | None

    def __setattr__(self, name: str, value: object) -> None:
        if name == _FILES and type(value) is list and self.start_methods_file is not None:
            value = [self.start_methods_file, *value]
            self.start_methods_file = None
        super().__setattr__(name, value)


def any_given(config: pytest.Config) -> bool:
    """Return whether any option or ini key is set, so that settings must be checked."""
    try:
        if config.getini(VERIFY) is not None or config.getini(USER_CODE):
            return True
        return any(config.getoption(key) is not None or config.getini(key) for key in (*OPTIONS, DISCOVER))
    except Exception:  # not a boolean: ValueError, TypeError or, from 9.2 on, UsageError
        return True


def is_on(config: pytest.Config, key: str) -> bool:
    """Return whether a boolean ini key is on. Invalid values are reported later."""
    try:
        return bool(config.getini(key))
    except Exception:  # as in any_given
        return False


def header_lines(default: str, methods: tuple[str, ...]) -> list[str]:
    """Return the header: the methods run here, and the defaults on other platforms."""
    return [
        f"start methods: {', '.join(methods)} (the default here: {default})",
        "  elsewhere: spawn (macOS, Windows), forkserver (Linux, Python 3.14+)",
    ]


def unused_line(config: pytest.Config) -> str | None:
    """Return the message for a ``--start-methods`` without a marked test, or None if the option was not given."""
    text = config.getoption("start_methods")
    if text is None or config.getoption(DISCOVER) or config.getini(DISCOVER):
        return None
    return (
        f"--start-methods={text} had no effect: no test is marked with @pytest.mark.{MARKER} "
        f"({flag(DISCOVER)} finds the tests that start processes)"
    )


def marked(nodes: Iterable[pytest.Item], name: str = MARKER) -> list[pytest.Item]:
    """Return the nodes that carry the marker `name` or inherit it from a parent.

    Thousands may be unmarked, so each parent is looked up once for its children.
    """
    found = []
    parent: object = None
    above = False
    for node in nodes:
        if node.parent is not parent:
            parent = node.parent
            above = node.parent is not None and node.parent.get_closest_marker(name) is not None
        if above or (node.own_markers and any(mark.name == name for mark in node.own_markers)):
            found.append(node)
    return found


def requesting(nodes: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the nodes that request a fixture or parameter named ``start_method``."""
    return [node for node in nodes if "start_method" in getattr(node, "fixturenames", ())]
