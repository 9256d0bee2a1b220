"""A few of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RUNS = 10  # at least, where there are as many items


def evenly(items: Sequence[Any] | np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the items, evenly spread, the first and the last among them where there are two."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return np.asarray(items)[chosen]


def in_runs(items: Sequence[Any] | np.ndarray, count: int, run: int) -> np.ndarray:
    """At most ``count`` of the items, all of them where there are no more, in evenly spread runs of ``run`` neighbours,
    or of a tenth of ``count`` where that is less: who compares neighbours needs some, and who measures all of it."""
    items = np.asarray(items)
    if len(items) <= count:
        return items
    run = max(min(run, count // RUNS), 1)
    firsts = evenly(range(len(items) - run + 1), count // run)
    return items[(firsts[:, None] + np.arange(run)).ravel()]
