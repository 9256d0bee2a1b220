"""A few of many."""

from __future__ import annotations

import numpy as np
import pytest

from capture.sampling import evenly


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 11, 500])
def test_a_few_are_spread_from_the_first_to_the_last_and_none_is_taken_twice(count):
    items = np.arange(100, 100 + count)
    few = evenly(items, 10)
    assert len(few) == min(count, 10) and len(set(few.tolist())) == len(few)
    if count >= 2:
        assert few[0] == items[0] and few[-1] == items[-1]
        assert np.ptp(np.diff(few)) <= 1
    assert evenly(range(count), 10).tolist() == (few - 100).tolist()
