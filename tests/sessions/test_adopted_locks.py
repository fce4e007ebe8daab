"""Locks of the default context can be sent to the children of any leg; fork locks requested by name cannot."""

from __future__ import annotations

import multiprocessing

import pytest

pytestmark = pytest.mark.skipif(
    len(multiprocessing.get_all_start_methods()) < 3, reason="the sessions below use all three methods"
)

MADE_AT_IMPORT = """
    import multiprocessing
    import pytest

    LOCK = multiprocessing.Lock()
    EVENT = multiprocessing.Event()
    NUMBER = multiprocessing.Value("i", 3)
    QUEUE = multiprocessing.Queue()

    def work(lock, event, number, queue):
        with lock:
            number.value += 1
        queue.put(number.value)
        event.set()

    @pytest.mark.startmethods
    def test_a(start_method):
        NUMBER.value = 3
        EVENT.clear()
        process = multiprocessing.Process(target=work, args=(LOCK, EVENT, NUMBER, QUEUE))
        process.start()
        assert QUEUE.get() == 4
        process.join()
        assert process.exitcode == 0
        assert EVENT.is_set()
        assert NUMBER.value == 4
        assert LOCK.acquire(timeout=5)
        LOCK.release()
"""


def test_primitives_made_at_import_work_under_every_method(session):
    """A spawn leg sends what a platform with spawn as the default would have created at import."""
    outcome = session.file(test_a=MADE_AT_IMPORT).run()
    assert outcome.names == dict.fromkeys(["test_a[fork]", "test_a[spawn]", "test_a[forkserver]"], "passed"), (
        outcome.out
    )


def test_lock_that_an_earlier_leg_cached_is_no_hindrance(session):
    """A lock that the fork leg put in a cache does not fail the spawn leg."""
    session.file(
        test_a="""
        import multiprocessing
        import pytest

        CACHE = {}

        def work(lock):
            with lock:
                pass

        @pytest.mark.startmethods
        def test_a():
            lock = CACHE.setdefault("lock", None) or multiprocessing.RLock()
            CACHE["lock"] = lock
            process = multiprocessing.Process(target=work, args=(lock,))
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    assert set(session.run().names.values()) == {"passed"}


@pytest.mark.parametrize("where_made", ["in the test", "in an earlier leg"])
def test_fork_lock_asked_for_by_name_is_still_foreign(session, where_made):
    """Code that requests a fork context gets one: SM106."""
    session.file(
        test_a=f"""
        import multiprocessing
        import pytest

        CACHE = {{}}

        def work(lock):
            with lock:
                pass

        @pytest.mark.startmethods("fork", "spawn")
        def test_a():
            if {where_made == "in the test"} or not CACHE:
                CACHE["lock"] = multiprocessing.get_context("fork").Lock()
            process = multiprocessing.Process(target=work, args=(CACHE["lock"],))
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    outcome = session.run()
    assert outcome.names["test_a[fork]"] == "passed"
    assert outcome.names["test_a[spawn]"] == "failed"
    assert "SM106 foreign-primitive, 1 test needs fork" in outcome.lines
