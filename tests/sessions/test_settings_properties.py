"""Whatever an option, ini key or marker contains, the result is settings or a one-line error, never a traceback."""

from __future__ import annotations

import itertools
import multiprocessing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import inputs
from pytest_startmethod.session import options
from pytest_startmethod.session.settings import Marker, Settings, SettingsError, from_config, parse_marker

KEYS = [*options.OPTIONS, options.DISCOVER, options.VERIFY, options.USER_CODE]

MEANT = ("all", "default", "fork", "fork,spawn", "auto", "0", "off", "report", "error", "fail", "true", "r.json")
NOT_MEANT = ("", " ", "spawn,,", "-1", "1e19", "nan", "inf", "1_0", "no", "/", ".", '"', "'", "\\", "a b", "billiard:x")
words = st.sampled_from(MEANT + NOT_MEANT)
# Everything that a line of an ini file or a process argument can contain.
texts = words | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)

# -- markers -----------------------------------------------------------------------------------------------------------


class Odd:
    """An object of the user's that must not be touched: every method raises."""

    def __getattribute__(self, name):
        raise AssertionError("nobody asks for this")

    __str__ = __eq__ = __bool__ = __float__ = __lt__ = __hash__ = __getattribute__


anything = (
    texts
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.binary(max_size=4)
    | st.decimals()
    | st.builds(Odd)
    | st.lists(words, max_size=2)
    | st.tuples(words, words)
    | st.builds(pytest.param, words)
    | st.builds(pytest.param, words, id=st.none() | words)
)


@inputs(100)
@given(
    st.lists(anything, max_size=3),
    st.dictionaries(st.sampled_from(["vacuous", "timeout", "timeouts"]), anything, max_size=2),
)
@example([Odd()], {})
@example([], {"vacuous": Odd(), "timeout": Odd()})
@example([], {"timeout": 10**400})
@example([], {"timeout": -(10**5000)})
def test_a_marker_is_understood_or_refused(args, kwargs):
    """The error message is one line."""
    try:
        marker = parse_marker(tuple(args), kwargs)
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whether there is an error is not the question
    else:
        assert type(marker) is Marker
        assert marker.timeout is None or 0 <= marker.timeout < float("inf")


# -- options and ini keys ----------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from(KEYS), texts, max_size=4),
    st.dictionaries(st.sampled_from(list(options.OPTIONS)), texts, max_size=4),
)
@example({"start_methods_user_code": '"'}, {})
@example({}, {"start_methods_timeout": "1e19"})
@example({"start_methods_discover": "perhaps"}, {})
@inputs(30)
def test_options_are_understood_or_refused(pytester, monkeypatch, ini, given_options):
    """The error is pytest's own, or one line of ours."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    lines = [f"{key} = {value}\n" for key, value in ini.items()]
    (pytester.path / "pytest.ini").write_text("[pytest]\n" + "".join(lines), encoding="utf-8")
    arguments = [f"{options.flag(key)}={value}" for key, value in given_options.items()]
    try:
        found = from_config(pytester.parseconfig("-p", "pytest_startmethod.plugin", *arguments))
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whether there is an error is not the question
    except pytest.UsageError:
        pass
    else:
        assert type(found) is Settings


# -- markers in a suite ------------------------------------------------------------------------------------------------

values = st.sampled_from(
    [
        "'fork'", "'spawn'", "'forkserver'", "'spwan'", "''", "'all'", "1", "None", "b'fork'", "['fork']", "object()",
        "pytest.param('spawn')", "pytest.param('fork', id='one')", "pytest.param('spawn', id='fork')",
        "pytest.param('fork', 'spawn')", "pytest.param()", "pytest.param('spawn', marks=pytest.mark.skip(reason='r'))",
    ]
)  # fmt: skip
keywords = st.dictionaries(
    st.sampled_from(["vacuous", "timeout", "xfail", "reason", "strict", "methods"]),
    st.sampled_from(["'ignore'", "'fail'", "'spawn'", "('spawn', 'fork')", "0", "30", "-1", "'30'", "None", "True"]),
    max_size=2,
)
marks = st.none() | st.tuples(st.lists(values, max_size=3), keywords).map(
    lambda drawn: ", ".join([*drawn[0], *(f"{name}={value}" for name, value in drawn[1].items())])
)
_count = itertools.count()

TESTS = """
class TestIt:
    {on_function}
    def test_it(self, request):
        named = request.node.callspec.params["start_method"] if hasattr(request.node, "callspec") else None
        assert named in (None, multiprocessing.get_start_method())
"""


@pytest.mark.skipif(len(multiprocessing.get_all_start_methods()) < 3, reason="the suites name all three methods")
@given(marks, marks, marks, st.sampled_from([(), ("--start-methods=spawn",), ("--start-methods-vacuous=fail",)]))
@inputs(8)
def test_the_markers_of_a_suite_are_obeyed_or_refused(session, on_module, on_class, on_function, arguments):
    """The closest marker makes legs under the methods that it names, or one error that names the test."""
    module, outer, inner = (
        "" if mark is None else f"pytest.mark.startmethods({mark})" for mark in (on_module, on_class, on_function)
    )
    head = f"import multiprocessing, pytest\n{module and f'pytestmark = {module}'}\n{outer and f'@{outer}'}"
    name = f"test_marked_{next(_count)}.py"
    source = head + TESTS.format(on_function=inner and f"@{inner}")
    outcome = session.file(name, source).run(name, *arguments)
    told = f"{source}\n{outcome.out}"
    assert "INTERNALERROR" not in told
    assert "src/pytest_startmethod/" not in told
    assert "assert named in" not in "".join(outcome.reasons.values()), told
    closest = next((mark for mark in (on_function, on_class, on_module) if mark is not None), None)
    error = refusal(closest) if closest is not None else None
    if error is not None:
        assert f"{name}::TestIt::test_it: @pytest.mark.startmethods: {error}" in outcome.out
    else:
        assert outcome.status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), told


def refusal(mark):
    """Return why the marker with these arguments is invalid, or None."""
    try:
        eval(f"parsed({mark})", {"pytest": pytest, "parsed": lambda *args, **kwargs: parse_marker(args, kwargs)})
    except SettingsError as error:
        return str(error)
    return None
