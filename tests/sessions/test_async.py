"""Async tests, hypothesis and doctests, with their plugins."""

from __future__ import annotations

import pytest

METHODS = ("fork", "spawn", "forkserver")


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(session, mode):
    """Coroutines have legs in both modes, in classes too and with wider-scoped fixtures."""
    pytest.importorskip("pytest_asyncio")
    session.ini(asyncio_mode=mode, asyncio_default_fixture_loop_scope="function").plugin("pytest_asyncio.plugin").file(
        test_a="""
        import asyncio, multiprocessing
        import pytest, pytest_asyncio

        @pytest_asyncio.fixture
        async def method(start_method):
            await asyncio.sleep(0)
            return start_method

        @pytest.mark.asyncio
        @pytest.mark.startmethods
        async def test_a(method):
            await asyncio.sleep(0)
            assert multiprocessing.get_start_method() == method

        class TestB:
            @pytest.mark.startmethods
            @pytest.mark.asyncio
            @pytest.mark.parametrize("n", [1, 2])
            async def test_b(self, n):
                await asyncio.sleep(0)

        @pytest.mark.asyncio
        async def test_plain(): pass
        """
    )
    outcome = session.run()
    assert outcome.names == dict.fromkeys(
        [
            *(f"test_a[{method}]" for method in METHODS),
            *(f"TestB::test_b[{method}-{n}]" for method in METHODS for n in (1, 2)),
            "test_plain",
        ],
        "passed",
    )


def test_anyio(session):
    """The method comes before the backend in the id."""
    pytest.importorskip("anyio")
    session.plugin("anyio.pytest_plugin").file(
        test_a="""
        import anyio, multiprocessing
        import pytest

        @pytest.fixture
        def anyio_backend(): return "asyncio"

        @pytest.mark.anyio
        async def test_a(start_method):
            await anyio.sleep(0)
            assert multiprocessing.get_start_method() == start_method
        """,
        test_b="""
        import pytest

        @pytest.fixture(params=["asyncio"])
        def anyio_backend(request): return request.param

        pytestmark = [pytest.mark.anyio, pytest.mark.startmethods("spawn")]
        async def test_b(): pass
        """,
    )
    outcome = session.run()
    assert outcome.names == dict.fromkeys([*(f"test_a[{m}]" for m in METHODS), "test_b[spawn-asyncio]"], "passed")


def test_hypothesis(session):
    """A property is tested under every method, and hypothesis accepts ``start_method`` as a fixture."""
    pytest.importorskip("hypothesis")
    session.plugin("_hypothesis_pytestplugin").file(
        test_a="""
        import multiprocessing
        import pytest
        from hypothesis import given, settings, strategies as st

        @pytest.mark.startmethods
        @settings(max_examples=3, database=None)
        @given(n=st.integers())
        def test_a(n): pass

        @settings(max_examples=3, database=None)
        @given(n=st.integers())
        def test_b(mp_context, start_method, n):
            assert mp_context.get_start_method() == start_method == multiprocessing.get_start_method()
        """
    )
    outcome = session.run("-W", "error", "-W", "ignore::pytest_startmethod.StartMethodWarning")
    assert outcome.names == dict.fromkeys([f"test_{x}[{m}]" for x in "ab" for m in METHODS], "passed")
