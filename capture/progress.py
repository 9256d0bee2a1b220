"""Progress bars with time left, on stderr, silent when stderr is not a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while a bar shows how far ``label`` has come and how long it will still take.

    Without a terminal a line is logged every ten seconds instead, so that a log file shows life.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description=label, total=total, console=Console(stderr=True), transient=True)
        return
    started_s = last_s = time.monotonic()
    for count, item in enumerate(items):
        yield item
        now_s = time.monotonic()
        if now_s - last_s > 10:
            last_s = now_s
            done = count + 1
            left = f", {(now_s - started_s) / done * (total - done):.0f} s left" if total else ""
            log.info("%s: %d%s%s", label, done, f" of {total}" if total else "", left)
