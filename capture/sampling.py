"""A few of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def evenly(items: Sequence[Any] | np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the items, evenly spread, the first and the last among them where there are two."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return np.asarray(items)[chosen]
