"""The options and the marker as pytest is told of them; what they mean is in `settings`.

Apart from `settings`, since this is all that a run needs in which nothing is marked and no option given.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

MARKER: Final = "startmethods"
MARKER_HELP: Final = (
    "startmethods(*methods, vacuous=None, timeout=None): run the test once under each multiprocessing start method "
    "(fork, spawn, forkserver; without names, under every selected one)."
)

PRECHECK: Final = ("report", "error", "off")
VACUOUS: Final = ("report", "fail", "ignore")

USER_CODE: Final = "start_methods_user_code"

OPTIONS: Final = {
    "start_methods": (
        "METHODS",
        "all (the default), default (the interpreter's own), or a list such as fork,spawn: "
        "marked tests run once under each of these start methods",
    ),
    "start_methods_precheck": (
        "|".join(PRECHECK),
        "a process under fork that could not start under spawn: report it (the default), fail the leg, or nothing",
    ),
    "start_methods_vacuous": (
        "|".join(VACUOUS),
        "a leg that passed and started no process with its method: report it (the default), fail it, or nothing",
    ),
    "start_methods_timeout": (
        "auto|SECONDS",
        "limit of a leg's call in seconds, 0 for none; auto (the default): a minute, and ten times the longest "
        "finished leg of the same test",
    ),
    "start_methods_report": (
        "PATH",
        "write a report of all legs at the end of the session: .json, .html or .md by suffix; may be given more than "
        "once",
    ),
}
"""Ini key -> metavar and help. The option is the same word with dashes."""

LISTS: Final = frozenset({"start_methods_report"})
"""Those that may be given more than once; in an ini file, one value a line."""
DISCOVER: Final = "start_methods_discover"
DISCOVER_HELP: Final = (
    "watch unmarked tests, too: one that starts a process or runs a task in one, and leaves the start method to the "
    "interpreter, is run again under the other start methods"
)
VERIFY: Final = "start_methods_verify"
VERIFY_HELP: Final = (
    "after the session, run failed legs again without their causes, to confirm what the findings say (the default); "
    "=SECONDS limits all these runs together (default: 60, or as long as the session took)",
    "do not run failed legs again",
)


def flag(key: str) -> str:
    """Return the option of an ini key: ``start_methods`` -> ``--start-methods``."""
    return "--" + key.replace("_", "-")


def add_options(parser: pytest.Parser) -> None:
    """Declare the options and their ini keys; a command-line default is always None, so that the ini key counts."""
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
    group.addoption(flag(VERIFY), action=_FlagOrSeconds, nargs="?", default=None, dest=VERIFY, help=VERIFY_HELP[0])
    no = f"--no-{flag(VERIFY)[2:]}"
    group.addoption(no, action="store_const", const="false", default=None, dest=VERIFY, help=VERIFY_HELP[1])
    parser.addini(VERIFY, f"The default of {flag(VERIFY)}: true, false, or a number of seconds.", default=None)
    parser.addini(
        USER_CODE, "Installed packages whose code is looked at as the project's own.", type="args", default=[]
    )


class _FlagOrSeconds(argparse.Action):
    """An option that works as a flag and takes ``=SECONDS``.

    argparse gives an optional value whatever follows the flag, such as a test file: that is put back where argparse
    itself puts what it does not know (``_UNRECOGNIZED_ARGS_ATTR``), and pytest takes it from there.
    """

    metavar = "SECONDS"

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        """Store the seconds as text, or ``"true"``."""
        if type(values) is str and not values.replace(".", "", 1).isdecimal():
            name = getattr(argparse, "_UNRECOGNIZED_ARGS_ATTR", "_unrecognized_args")
            setattr(namespace, name, [*getattr(namespace, name, ()), values])
            values = None
        setattr(namespace, self.dest, values or "true")


def any_given(config: pytest.Config) -> bool:
    """Return whether there is anything to be wrong."""
    try:
        if config.getini(VERIFY) is not None or config.getini(USER_CODE):
            return True
        return any(config.getoption(key) is not None or config.getini(key) for key in (*OPTIONS, DISCOVER))
    except Exception:  # ValueError, TypeError or, from 9.2 on, UsageError: no truth value
        return True


def is_on(config: pytest.Config, key: str) -> bool:
    """Return whether an ini key says yes; what it says wrongly is told later."""
    try:
        return bool(config.getini(key))
    except Exception:  # as in any_given
        return False


def header_lines(default: str, methods: tuple[str, ...]) -> list[str]:
    """Return what the header says: what runs here, and what the users have."""
    return [
        f"start methods: {', '.join(methods)} (the default here: {default})",
        "  users have: spawn on macOS and Windows, forkserver on Linux with Python 3.14",
    ]


def unused_line(config: pytest.Config) -> str | None:
    """Return what to say of a ``--start-methods`` in a run without a marked test, or None if it was not given."""
    text = config.getoption("start_methods")
    if text is None or config.getoption(DISCOVER) or config.getini(DISCOVER):
        return None
    return (
        f"--start-methods={text} had no effect: no test is marked with @pytest.mark.{MARKER} "
        f"({flag(DISCOVER)} finds the tests that start processes)"
    )


def marked(nodes: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return those of `nodes` that the marker is on, or on a node above them.

    There may be thousands and none that is: a parent is asked once for all neighbours that share it.
    """
    found = []
    parent: object = None
    above = False
    for node in nodes:
        if node.parent is not parent:
            parent = node.parent
            above = node.parent is not None and node.parent.get_closest_marker(MARKER) is not None
        if above or (node.own_markers and any(mark.name == MARKER for mark in node.own_markers)):
            found.append(node)
    return found


def requesting(nodes: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return those of `nodes` that need a fixture or parameter named ``start_method``."""
    return [node for node in nodes if "start_method" in getattr(node, "fixturenames", ())]
