"""Detect a Pool whose workers die before running a task, and fail its pending jobs.

A Pool keeps replacing dead workers and loses the tasks they had taken, so that ``map``, ``apply`` and the others never
return. (ProcessPoolExecutor gives up by itself and raises BrokenProcessPool.)
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from .._compat import multiprocessing as mp
from ..model.launch import WatchedPool

EXTRA_DEATHS = 2
"""Deaths, beyond one per worker of the pool, after which it is given up."""


class WorkersDiedError(RuntimeError):
    """The workers of a Pool die before running a task, so that its results can never arrive."""


class Pools:
    """The session's pools, by the queue that their workers read.

    All methods are called on threads of the pool or the user; there is no thread of ours.
    """

    def __init__(self) -> None:
        self._watched: weakref.WeakKeyDictionary[object, WatchedPool] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()  # reentrant: failing a job records its result
        """Guards against concurrent calls from the pools' threads and the user's."""

    def of(self, queue: object) -> WatchedPool:
        """Return the state of the pool whose workers read `queue`."""
        with self._lock:
            return self._watched.setdefault(queue, WatchedPool())

    def submitted(self, pool: object) -> None:
        """Remember the pool to which a task is submitted."""
        watched = self.of(mp.pool_queue(pool))
        if watched.pool() is None:
            watched.pool = weakref.ref(pool)

    def result(self, job: object, outcome: tuple[bool, object]) -> None:
        """Record the arrival of a result, which shows that workers do run tasks."""
        if isinstance(outcome[1], WorkersDiedError):
            return
        cache = mp.job_cache(job)
        with self._lock:
            every = list(self._watched.values())
        for watched in every:
            pool = watched.pool()
            if pool is not None and mp.pool_jobs(pool) is cache:
                watched.results += 1
                watched.exits.clear()

    def worker_starting(self, watched: WatchedPool, why: Callable[[], str], lost: Callable[[], set[int]]) -> None:
        """Fail the pool's jobs if they cannot finish. Called on the pool's thread before it replaces a dead worker.

        `why` returns the error that the dead workers reported; `lost` returns the numbers of the jobs whose tasks no
        worker could unpickle.
        """
        pool = watched.pool()
        if pool is None or not watched.exits:
            return
        with self._lock:
            jobs = mp.pool_jobs(pool)
            doomed = lost() & set(jobs)
            if not watched.results and len(watched.exits) >= mp.pool_size(pool) + EXTRA_DEATHS:
                doomed = set(jobs)
            if not doomed:
                return
            count = len(watched.exits)
            died = f"{count} workers of this Pool died" if count > 1 else "a worker of this Pool died"
            text = f"{died} before running a task, so its result can never come: {why()}"
            watched.given_up = text
            for number in doomed:
                mp.fail_job(jobs.get(number), WorkersDiedError(text))
