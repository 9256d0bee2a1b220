"""A pool of processes for work that falls into independent pieces.

Every worker uses one thread, so that two of them use two cores, and goes when its parent goes.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, TypeVar

MOST_THREADS = 8  # each holds a picture
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # environment
_is_worker = False
AHEAD = 2  # items per thread that wait to be asked for

A = TypeVar("A")
T = TypeVar("T")


class Workers:
    """Processes that work until the ``with`` block ends, however it ends: no task goes on after it.  With one worker
    everything happens in this process.

    works_along: this process is one of the workers, so that one less has to be started and to load its libraries,
    which takes a process 3 seconds.  For functions that do the same here as anywhere.
    loads: a module.  The processes start at once, and load it while this one gets ready to give them tasks.
    """

    def __init__(self, num_workers: int, works_along: bool = False, loads: str | None = None) -> None:
        self._num_workers, self._works_along, self._loads = num_workers, works_along, loads
        self._pool: ProcessPoolExecutor | None = None
        self._given: weakref.WeakSet[Future[Any]] = weakref.WeakSet()  # all that may still be at work are in it

    def map(self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        """``function(*task)`` of every task, in the order of the tasks.

        ``function`` must be importable by name.  An exception in a worker is raised here and ends the rest.
        """
        if self._pool is None and min(self._num_workers, len(tasks)) <= 1:
            for task in tasks:
                yield function(*task)
            return
        if self._works_along:
            yield from self._map_along(self._processes(), function, tasks)
        else:
            yield from (answer for _, answer in self.stream(function, tasks, max(1, len(tasks))))

    def stream(
        self, function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], ahead: int
    ) -> Iterator[tuple[tuple[Any, ...], T]]:
        """(task, answer) of tasks that this process makes while the others work, in their order; at most ``ahead`` of
        them are unanswered."""
        if self._num_workers <= 1:
            for task in tasks:
                yield task, function(*task)
            return
        pool, waiting = self._processes(), deque[tuple[tuple[Any, ...], Future[T]]]()
        try:
            for task in tasks:
                waiting.append((task, self._give(pool, function, task)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    @property
    def _num_started(self) -> int:
        return self._num_workers - int(self._works_along)

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: a forked child would inherit the locks of torch's and OpenCV's threads in any state.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._num_started, mp_context=context, initializer=start_worker, initargs=(self._loads,)
            )
        return self._pool

    def _give(self, pool: ProcessPoolExecutor, function: Callable[..., T], task: tuple[Any, ...]) -> Future[T]:
        future = pool.submit(function, *task)
        self._given.add(future)
        return future

    def _map_along(
        self, pool: ProcessPoolExecutor, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[T]:
        """``map``, this process and the others each taking the next task when they are done with one."""
        import cv2

        waiting, futures, own = deque(enumerate(tasks)), dict[int, Future[T]](), dict[int, T]()

        def take() -> tuple[int, tuple[Any, ...]] | None:
            try:
                return waiting.popleft()  # deques may be shared by threads
            except IndexError:
                return None

        def give(before: Future[T] | None = None) -> None:
            if before is not None and (before.cancelled() or before.exception() is not None):
                return
            task = take()
            if task is None:
                return
            try:
                futures[task[0]] = self._give(pool, function, task[1])
            except RuntimeError:  # the pool has just broken: what it was doing says so
                waiting.appendleft(task)
                return
            futures[task[0]].add_done_callback(give)

        num_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for _ in range(self._num_workers - 1):
                give()
            for index in range(len(tasks)):
                while index not in own and not (index in futures and futures[index].done()):
                    task = take()
                    if task is not None:
                        own[task[0]] = function(*task[1])
                    elif index in futures:
                        break
                    else:
                        time.sleep(0.001)  # ``give`` took it and is about to say so
                yield own.pop(index) if index in own else futures[index].result()
        finally:
            waiting.clear()
            for future in list(futures.values()):
                future.cancel()
            cv2.setNumThreads(num_threads)

    def __enter__(self) -> Workers:
        if self._loads is not None and self._num_workers > 1:
            for _ in range(self._num_started):
                self._give(self._processes(), os.getpid, ())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            # Idle processes go by themselves, which takes them half a second; only what is at work is waited for.
            self._pool.shutdown(wait=False, cancel_futures=True)
            wait_for([future for future in self._given if not future.cancel()])


def in_threads(function: Callable[[A], T], items: Iterable[A], threads: int | None = None) -> Generator[T]:
    """``function(item)`` of every item, in their order; ``num_threads()`` threads are a few items ahead.

    For what lets other threads work meanwhile: decoding, coding, drawing.  An exception is raised where its item is
    due.
    """
    threads = threads or num_threads()
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Future[T]]()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def num_threads() -> int:
    """How many threads may each decode a picture: as many as there are cores, but no more than memory bears; one in a
    worker."""
    return 1 if _is_worker else min(num_cores(), MOST_THREADS)


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_worker(loads: str | None = None) -> None:
    """What every worker process of the project does first: one thread, and an eye on its parent."""
    import cv2

    global _is_worker
    _is_worker = True
    cv2.setNumThreads(1)
    os.environ.update(ONE_THREAD)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if loads is not None:
        importlib.import_module(loads)


def _leave_with_parent() -> None:
    """A killed parent cannot tell its workers; they would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
