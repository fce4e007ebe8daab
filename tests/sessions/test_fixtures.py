"""``start_method`` and ``mp_context``: values for fixtures of any scope, rebuilt per method and never shared."""

from __future__ import annotations

import pytest

METHODS = ("fork", "spawn", "forkserver")

CHECK = """
    import multiprocessing
    import pytest

    LOG = []

    @pytest.fixture(scope="{scope}")
    def server(mp_context):
        method = mp_context.get_start_method()
        assert multiprocessing.get_start_method() == method
        LOG.append(f"+{{method}}")
        yield method
        # Torn down while its own method is the active one.
        LOG.append(f"-{{method}}" if multiprocessing.get_start_method() == method else "torn down late")
"""

SUITE = (
    CHECK
    + """
    class TestA:
        def test_a(self, server, start_method):
            LOG.append("a " + server)
            assert server == start_method

        def test_b(self, server, start_method):
            LOG.append("b " + server)
            assert server == start_method

    def test_plain():
        LOG.append("plain")

    def test_log():
        print("log:", "|".join(LOG))
"""
)


def log_of(outcome) -> str:
    """Return the output of the last test of a suite."""
    (line,) = [line for line in outcome.lines if "log: " in line]
    return line.partition("log: ")[2]


def test_the_values(session):
    """The values are a string and the context of that name."""
    session.file(
        test_a="""
        import multiprocessing

        def test_a(start_method, mp_context):
            assert mp_context is multiprocessing.get_context(start_method)
            assert multiprocessing.get_start_method() == start_method
        """
    )
    outcome = session.run()
    assert outcome.names == {f"test_a[{method}]": "passed" for method in ("fork", "spawn", "forkserver")}


def test_the_fixtures_are_documented(session):
    """``--fixtures`` describes them."""
    out = session.run("--fixtures").out
    assert "start_method [session scope]" in out
    assert "mp_context [session scope]" in out
    assert "Return the context of the start method under which the test runs; it runs once under each." in out


def test_a_wide_fixture_is_built_once_per_method(session):
    """Tests that share it are grouped by method, it is torn down under its own method, other tests stay in place."""
    session.file(test_a=SUITE.format(scope="module"))
    outcome = session.run("--start-methods=fork,spawn", "-s")
    assert set(outcome.names.values()) == {"passed"}
    assert list(outcome.names) == [
        "TestA::test_a[fork]",
        "TestA::test_b[fork]",
        "TestA::test_a[spawn]",
        "TestA::test_b[spawn]",
        "test_plain",
        "test_log",
    ]
    assert log_of(outcome) == "+fork|a fork|b fork|-fork|+spawn|a spawn|b spawn|-spawn|plain"


@pytest.mark.parametrize(
    ("scope", "log"),
    [
        ("class", "+fork|a fork|b fork|-fork|+spawn|a spawn|b spawn|-spawn|plain"),
        ("package", "+fork|a fork|b fork|-fork|+spawn|a spawn|b spawn|-spawn|plain"),
        ("session", "+fork|a fork|b fork|-fork|+spawn|a spawn|b spawn|-spawn|plain"),
        # Without a wider-scoped fixture the order is the user's.
        (
            "function",
            "+fork|a fork|-fork|+spawn|a spawn|-spawn|+fork|b fork|-fork|+spawn|b spawn|-spawn|plain",
        ),
    ],
)
def test_every_scope(session, scope, log):
    """It is built once per method and scope, never under another method."""
    session.file(test_a=SUITE.format(scope=scope))
    outcome = session.run("--start-methods=fork,spawn", "-s")
    assert set(outcome.names.values()) == {"passed"}
    assert log_of(outcome) == log


def test_a_fixture_shared_with_a_test_of_a_wider_one(session):
    """It is built once per method, too, whichever scope the other fixtures of its tests have."""
    session.file(
        test_a=CHECK.format(scope="module")
        + """
    @pytest.fixture(scope="session")
    def wider(start_method):
        LOG.append(f"wider {start_method}")

    @pytest.fixture(scope="class")
    def narrower(start_method):
        LOG.append(f"narrower {start_method}")

    def test_a(wider, server): pass

    class TestB:
        def test_b(self, server, narrower): pass
        def test_c(self, narrower): pass

    def test_log():
        print("log:", "|".join(LOG))
    """
    )
    log = log_of(session.run("-s")).split("|")
    built = [f"{name}{method}" for name in ("+", "-", "wider ", "narrower ") for method in METHODS]
    assert sorted(log) == sorted(built)


def test_different_methods_of_the_tests_that_share_a_fixture(session):
    """Tests with different methods, in a different order, are grouped too."""
    session.file(
        test_a=CHECK.format(scope="session")
        + """
    @pytest.mark.startmethods("spawn")
    def test_a(server): pass

    @pytest.mark.startmethods("forkserver", "spawn")
    def test_b(server): pass

    def test_c(server): pass

    def test_log():
        print("log:", "|".join(LOG))
    """
    )
    # once each: no method is built twice
    assert sorted(log_of(session.run("-s")).split("|")) == sorted(f"{sign}{m}" for sign in "+-" for m in METHODS)


def test_a_session_fixture_serves_several_files(session):
    """It is built once per method in the whole session, which groups tests across files."""
    session.file(
        conftest=CHECK.format(scope="session")
        + """
    def pytest_sessionfinish():
        print("log:", "|".join(LOG))
    """,
        test_a="def test_a(server): pass",
        test_b="def test_b(server): pass",
    )
    outcome = session.run("--start-methods=fork,spawn", "-s")
    assert list(outcome.names) == ["test_a[fork]", "test_b[fork]", "test_a[spawn]", "test_b[spawn]"]
    assert log_of(outcome) == "+fork|-fork|+spawn|-spawn"


def test_the_users_order_is_kept_without_such_a_fixture(session):
    """Legs take the place of their test, and unrelated wide fixtures are shared as usual."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture(scope="module")
        def shared():
            print("built shared")

        def test_a(shared): pass
        @pytest.mark.startmethods("fork", "spawn")
        def test_b(shared): pass
        def test_c(shared): pass
        @pytest.mark.startmethods("fork", "spawn")
        def test_d(shared): pass
        """
    )
    outcome = session.run("-s")
    assert list(outcome.names) == ["test_a", "test_b[fork]", "test_b[spawn]", "test_c", "test_d[fork]", "test_d[spawn]"]
    assert outcome.out.count("built shared") == 1


def test_an_order_that_mixes_methods_never_shares(session):
    """In the order of pytest-randomly, the fixture is rebuilt at each change and never reaches an unmarked test."""
    session.file(
        conftest="""
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(items):
            order = ["a[fork", "b[spawn", "plain", "a[spawn", "b[fork", "log"]
            items.sort(key=lambda item: [part in item.name for part in order].index(True))
        """,
        test_a=SUITE.format(scope="session"),
    )
    outcome = session.run("--start-methods=fork,spawn", "-s")
    assert set(outcome.names.values()) == {"passed"}
    assert log_of(outcome) == "+fork|a fork|-fork|+spawn|b spawn|-spawn|plain|+spawn|a spawn|-spawn|+fork|b fork|-fork"


def test_an_error_of_a_wide_fixtures_teardown_is_the_last_legs(session, where):
    """It is not reported for the next test, which has another method, and the leg's own error is reported too."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture(scope="session")
        def server(start_method):
            yield
            raise RuntimeError(f"server of {start_method}")

        @pytest.fixture
        def narrow(start_method):
            yield
            if start_method == "fork":
                raise ValueError("narrow")

        def test_a(server, narrow): pass
        """
    )
    if where == "xdist":
        session.ini(addopts="--dist=loadfile")
    outcome = session.run("--start-methods=fork,spawn", where=where)
    assert outcome.names == {"test_a[fork]": "error", "test_a[spawn]": "error"}
    fork, spawn = (outcome.reasons[f"test_a.py::test_a[{method}]"] for method in ("fork", "spawn"))
    assert "RuntimeError: server of fork" in fork
    assert "ValueError: narrow" in fork
    assert "errors during test teardown (2 sub-exceptions)" in fork
    assert "server of spawn" not in fork
    assert "RuntimeError: server of spawn" in spawn
    assert "server of fork" not in spawn


def test_setup_failures_of_a_wide_fixture_stay_with_their_method(session):
    """A server that cannot start under spawn does not fail the fork legs."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture(scope="module")
        def server(start_method):
            assert start_method != "spawn"

        def test_a(server): pass
        def test_b(server): pass
        """
    )
    outcome = session.run("--start-methods=fork,spawn")
    assert outcome.names == {
        "test_a[fork]": "passed",
        "test_b[fork]": "passed",
        "test_a[spawn]": "error",
        "test_b[spawn]": "error",
    }


def test_asking_at_run_time_without_a_leg_is_said_aloud(session):
    """``getfixturevalue`` comes too late to create legs: the test gets the current method, and a warning names it."""
    session.file(
        test_a="""
        import multiprocessing

        def test_a(request):
            assert request.getfixturevalue("start_method") == "spawn"
            assert multiprocessing.get_start_method(allow_none=True) is None
        """
    ).platform("spawn", "fork")
    outcome = session.run()
    assert outcome.names == {"test_a": "passed"}
    message = (
        "StartMethodWarning: test_a.py::test_a asks for start_method at run time, when it is too late to make it one "
        "test per method: it runs once, under spawn. Mark it with @pytest.mark.startmethods"
    )
    assert sum(message in line for line in outcome.lines) == 1


def test_asking_at_run_time_in_a_leg(session):
    """A marked test may request both by name."""
    session.file(
        test_a="""
        import pytest

        @pytest.mark.startmethods
        def test_a(request):
            method = request.getfixturevalue("start_method")
            assert request.getfixturevalue("mp_context").get_start_method() == method
            assert f"[{method}]" in request.node.name
        """
    )
    assert set(session.run("-W", "error").names.values()) == {"passed"}


@pytest.mark.parametrize("options", [(), ("-q",)], ids=" ".join)
def test_a_fixture_that_does_not_exist_is_pytests_own_error(session, options):
    """Such a failure (`FixtureLookupErrorRepr`) has no sections until it has crossed to another process."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture
        def asks(missing):
            "Ask for a fixture that nobody has."

        @pytest.mark.startmethods("fork", "spawn")
        def test_a(asks):
            pass
        """
    )
    outcome = session.run(*options, where="subprocess")
    assert (outcome.status, outcome.names) == (1, {"test_a[fork]": "error", "test_a[spawn]": "error"})
    assert "INTERNALERROR" not in outcome.out
    assert "2 errors" in outcome.lines[-1]


def test_users_own_fixture_named_mp_context_does_not_opt_in(session):
    """The name is common, so the user's fixture has nothing to do with us."""
    session.file(
        test_a="""
        import pytest

        @pytest.fixture
        def mp_context(): return "own"

        def test_a(mp_context): assert mp_context == "own"
        """
    )
    outcome = session.run()
    assert outcome.names == {"test_a": "passed"}
    assert outcome.legs == {}


def test_setup_plan_shows_the_method(session):
    """Nothing runs, and the plan shows one setup per method."""
    outcome = session.file(test_a=SUITE.format(scope="module")).run("--setup-plan", "--start-methods=fork,spawn")
    assert outcome.out.count("SETUP    M server (fixtures used: mp_context)") == 2
