"""Progress bars with time left, on stderr, silent when stderr is not a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


def progress(
    items: Iterable[T], label: str, total: int | None = None, note: Callable[[], str] | None = None
) -> Iterator[T]:
    """Yield ``items`` while a bar shows how far ``label`` has come and how long it will still take.

    note: asked whenever something is shown, for what else is worth knowing at that moment.
    Without a terminal a line is logged every ten seconds instead, so that a log file shows life.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _bar(items, label, total, note)
        return
    started_s = last_s = time.monotonic()
    for count, item in enumerate(items):
        yield item
        now_s = time.monotonic()
        if now_s - last_s > 10:
            last_s = now_s
            done = count + 1
            left = f", {(now_s - started_s) / done * (total - done):.0f} s left" if total else ""
            said = f", {note()}" if note is not None else ""
            log.info("%s: %d%s%s%s", label, done, f" of {total}" if total else "", said, left)


def _bar(items: Iterable[T], label: str, total: int | None, note: Callable[[], str] | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    if note is not None:
        columns.append(TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, note="")
        for item in items:
            yield item
            bar.update(task, advance=1, note=note() if note is not None else "")
