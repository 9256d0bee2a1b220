"""A few of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def evenly(items: Sequence[Any] | np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the items, evenly spread, the first and the last among them where there are two."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return np.asarray(items)[chosen]


def in_runs(items: Sequence[Any] | np.ndarray, count: int, run: int) -> np.ndarray:
    """At most ``count`` of the items, all of them where there are no more, in evenly spread runs of ``run`` that follow
    each other: who compares neighbours needs some."""
    items = np.asarray(items)
    if len(items) <= count:
        return items
    run = min(run, count)
    firsts = evenly(range(len(items) - run + 1), max(count // max(run, 1), 1))
    return items[(firsts[:, None] + np.arange(run)).ravel()]
