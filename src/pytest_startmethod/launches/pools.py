"""Notice a Pool whose workers die before they can run a task, and end the wait for what can never come.

A Pool replaces its dead workers for ever and forgets the task that a dead one had taken: ``map``, ``apply`` and the
others never return. (ProcessPoolExecutor gives up by itself and raises BrokenProcessPool.)
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from .._compat import multiprocessing as mp
from ..model.launch import WatchedPool

EXTRA_DEATHS = 2
"""Every worker of the pool died, and so many of those that took their place: it will not get better."""


class WorkersDiedError(RuntimeError):
    """The workers of a Pool die before they run a task, so that its results can never come."""


class Pools:
    """The pools of a session, by the queue that their workers read.

    Everything is called from where the pool's own threads and the user's pass anyway; there is no thread of ours.
    """

    def __init__(self) -> None:
        self._watched: weakref.WeakKeyDictionary[Any, WatchedPool] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()  # a job that is failed has its result noted
        """The pools' own threads and the user's come here at the same time."""

    def of(self, queue: object) -> WatchedPool:
        """Return what is known of the pool whose workers read `queue`."""
        with self._lock:
            return self._watched.setdefault(queue, WatchedPool())

    def submitted(self, pool: object) -> None:
        """Note the pool behind a queue, which is given a task."""
        watched = self.of(mp.pool_queue(pool))
        if watched.pool() is None:
            watched.pool = weakref.ref(pool)

    def result(self, job: object, outcome: tuple[bool, object]) -> None:
        """Note that a result arrived: workers do run tasks."""
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
        """Look at the pool whose worker is about to start: in its own thread, in the place of one that died.

        `why` says what the dead workers' reports tell; `lost` returns the numbers of the jobs whose tasks no worker
        could load.
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
