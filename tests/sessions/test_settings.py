"""Options, ini keys and the marker, word for word."""

from __future__ import annotations

import pytest

from pytest_startmethod.session.settings import Marker, Named, SettingsError, parse_marker

SHOW = """
    from pytest_startmethod.session.collection import settings_of

    def pytest_report_header(config):
        settings = settings_of(config)
        return (
            f"settings: {settings.selection} {','.join(settings.methods)} {settings.explicit} "
            f"{settings.precheck} {settings.vacuous}"
        )
"""


@pytest.mark.parametrize(
    ("ini", "args", "shown"),
    [
        ({}, [], "all fork,spawn,forkserver False report report"),
        ({"start_methods": "spawn"}, [], "spawn spawn False report report"),
        ({"start_methods": "spawn"}, ["--start-methods=fork"], "fork fork True report report"),
        ({"start_methods": "spawn"}, ["--start-methods=all"], "all fork,spawn,forkserver True report report"),
        ({}, ["--start-methods=default"], "default fork True report report"),
        ({}, ["--start-methods", "forkserver, fork"], "fork,forkserver fork,forkserver True report report"),
        ({"start_methods_precheck": "error"}, [], "all fork,spawn,forkserver False error report"),
        (
            {"start_methods_precheck": "error"},
            ["--start-methods-precheck=report"],
            "all fork,spawn,forkserver False report report",
        ),
        ({}, ["--start-methods-precheck=off"], "all fork,spawn,forkserver False off report"),
        ({"start_methods_vacuous": "ignore"}, [], "all fork,spawn,forkserver False report ignore"),
        (
            {"start_methods_vacuous": "ignore"},
            ["--start-methods-vacuous=report"],
            "all fork,spawn,forkserver False report report",
        ),
        ({}, ["--start-methods-vacuous=fail"], "all fork,spawn,forkserver False report fail"),
    ],
)
def test_the_command_line_beats_the_ini_file_beats_the_default(session, ini, args, shown):
    """An explicit default on the command line counts too."""
    session.platform("fork", "spawn", "forkserver").file(conftest=SHOW).ini(**ini)
    outcome = session.run(*args)
    assert f"settings: {shown}" in outcome.lines


METHODS = "(valid: all, default, or a list of fork, spawn, forkserver)"


@pytest.mark.parametrize(
    ("ini", "args", "line"),
    [
        ({}, ["--start-methods=thread"], f"ERROR: --start-methods: 'thread' is not a start method {METHODS}"),
        ({}, ["--start-methods="], f"ERROR: --start-methods: '' is not a start method {METHODS}"),
        ({}, ["--start-methods=all,fork"], f"ERROR: --start-methods: 'all' stands alone {METHODS}"),
        ({"start_methods": "sporn"}, [], f"ERROR: ini key start_methods: 'sporn' is not a start method {METHODS}"),
        (
            {},
            ["--start-methods-precheck=on"],
            "ERROR: --start-methods-precheck: 'on' is not valid (valid: report, error, off)",
        ),
        (
            {"start_methods_precheck": "on"},
            [],
            "ERROR: ini key start_methods_precheck: 'on' is not valid (valid: report, error, off)",
        ),
        (
            {},
            ["--start-methods-timeout=1e19"],
            "ERROR: --start-methods-timeout: '1e19' is not valid (valid: auto, a number of seconds, or 0 for no limit)",
        ),
        (
            {"start_methods_user_code": '"'},
            [],
            "ERROR: ini key start_methods_user_code: No closing quotation",
        ),
        (
            {},
            ["--start-methods-vacuous=off"],
            "ERROR: --start-methods-vacuous: 'off' is not valid (valid: report, fail, ignore)",
        ),
        (
            {"start_methods_vacuous": "off"},
            [],
            "ERROR: ini key start_methods_vacuous: 'off' is not valid (valid: report, fail, ignore)",
        ),
    ],
)
def test_a_bad_option_is_one_line_and_status_4(session, ini, args, line):
    """The line names the option or ini key, the value and the valid values, and is the only output."""
    session.file(test_a="def test_a(): pass").ini(**ini)
    outcome = session.run(*args)
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert [text for text in outcome.lines if text.strip()] == [line]


@pytest.mark.parametrize(
    "table", ["tool.pytest.ini_options", *(["tool.pytest"] if pytest.version_tuple >= (9,) else [])]
)
@pytest.mark.parametrize("key", ["start_methods", "start_methods_timeout"])
def test_a_list_where_the_ini_file_wants_a_string_is_one_line_and_status_4(session, table, key):
    """``pyproject.toml`` has lists, which pytest rejects only in its own table, differently in each version."""
    session.file(test_a="def test_a(): pass").file("pyproject.toml", f'[{table}]\n{key} = ["fork"]\n')
    outcome = session.run()
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "INTERNALERROR" not in outcome.out
    (line,) = [text for text in outcome.lines if text.startswith("ERROR")]
    if table == "tool.pytest.ini_options":
        assert line == f"ERROR: ini key {key}: expects a string, got list: ['fork']"
    else:
        assert line.startswith("ERROR: ")
        assert line.endswith(f"config option '{key}' expects a string, got list: ['fork']")


def test_a_bad_option_stops_xdist_before_its_workers(session):
    """The controller prints it, once."""
    outcome = session.file(test_a="def test_a(): pass").run("--start-methods=x", where="xdist")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert outcome.out.count("ERROR") == 1


def test_help_describes_options_and_marker(session):
    """``--help`` and ``--markers`` describe them."""
    assert "--start-methods=METHODS" in session.run("--help").out
    (line,) = [each for each in session.run("--markers").lines if each.startswith("@pytest.mark.startmethods(")]
    assert line == (
        "@pytest.mark.startmethods(*methods, vacuous=None, timeout=None, xfail=(), reason='', strict=None): run the "
        "test once under each of these multiprocessing start methods (fork, spawn, forkserver; without names, under "
        "each selected one). A method may be a pytest.param with marks. vacuous: what to do with a leg that starts no "
        "process (report, fail, ignore). timeout: limit of each leg's call in seconds (0: none). xfail: the methods "
        "under which the test is expected to fail, with the reason and strict of pytest.mark.xfail."
    )


def test_a_marker_keeps_what_pytest_param_says():
    """Marks and ids stay with the method they were given to."""
    param = pytest.param("spawn", marks=pytest.mark.xfail, id="slow")
    marker = parse_marker(("fork", param), {"vacuous": "fail", "timeout": 2})
    assert marker == Marker((Named("fork"), Named("spawn", (pytest.mark.xfail,), "slow")), "fail", 2.0)
    assert marker.named("spawn").id == "slow"
    assert marker.named("forkserver") == Named("forkserver")
    assert parse_marker((), {"vacuous": None, "timeout": None}) == Marker()
    assert parse_marker((), {"timeout": 0}).timeout == 0


NAMES = "(valid: fork, spawn, forkserver)"


class Loud:
    def __repr__(self) -> str:
        raise AssertionError("nobody asks for this")


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("sporn",), {}, f"'sporn' is not a start method {NAMES}"),
        (("all",), {}, f"'all' is not a start method {NAMES}"),
        ((["fork", "spawn"],), {}, f"a start method is given by its name, not by an object of type list {NAMES}"),
        ((Loud(),), {}, f"a start method is given by its name, not by an object of type Loud {NAMES}"),
        ((("fork", "spawn"),), {}, f"a start method is given by its name, not by an object of type tuple {NAMES}"),
        ((pytest.param(3),), {}, f"a start method is given by its name, not by an object of type int {NAMES}"),
        (
            (pytest.param("fork", "spawn"),),
            {},
            f"pytest.param takes one start method here, not 2 values {NAMES}",
        ),
        (("fork", "fork"), {}, "'fork' is named twice"),
        (("fork", pytest.param("fork", id="again")), {}, "'fork' is named twice"),
        (
            (pytest.param("fork", id="a"), pytest.param("spawn", id="a")),
            {},
            "two start methods have the id 'a'",
        ),
        (("fork", pytest.param("spawn", id="fork")), {}, "two start methods have the id 'fork'"),
        ((), {"timeouts": 3}, "unknown keyword 'timeouts' (valid: vacuous, timeout, xfail, reason, strict)"),
        ((), {"vacuous": "off"}, "vacuous: 'off' is not valid (valid: report, fail, ignore)"),
        ((), {"vacuous": Loud()}, "vacuous: an object of type Loud is not valid (valid: report, fail, ignore)"),
        (
            (),
            {"timeout": -1},
            "timeout: -1 is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": True},
            "timeout: True is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": float("nan")},
            "timeout: nan is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": float("inf")},
            "timeout: inf is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": 10**5000},
            "timeout: a number above 1000000000 is not a number of seconds "
            "(valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": 1e19},
            "timeout: 1e+19 is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": "3"},
            "timeout: '3' is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
        (
            (),
            {"timeout": Loud()},
            "timeout: an object of type Loud is not a number of seconds (valid: a positive number, or 0 for no limit)",
        ),
    ],
)
def test_a_marker_that_cannot_be_meant_says_what_would_be(args, kwargs, message):
    """The message names the argument, and calls no methods of an object that is not a string or number."""
    with pytest.raises(SettingsError) as raised:
        parse_marker(args, kwargs)
    assert str(raised.value) == message
