"""A pool of processes for work that falls into independent pieces.

Every worker uses one thread, so that two of them use two cores, and goes when its parent goes.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """Processes that live until the ``with`` block ends.  With one worker everything happens in this process."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        """``function(*task)`` of every task, in the order of the tasks.

        ``function`` must be importable by name.  An exception in a worker is raised here and ends the rest.
        """
        if self._pool is None and min(self._num_workers, len(tasks)) <= 1:
            for task in tasks:
                yield function(*task)
            return
        if self._pool is None:
            # spawn: a forked child would inherit the locks of torch's and OpenCV's threads in any state.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._num_workers, mp_context=context, initializer=start_worker)
        futures = [self._pool.submit(function, *task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    """What every worker process of the project does first: one thread, and an eye on its parent."""
    import cv2

    cv2.setNumThreads(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot tell its workers; they would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
