"""A few of many."""

from __future__ import annotations

import numpy as np
import pytest

from capture.sampling import evenly, in_runs


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 11, 500])
def test_a_few_are_spread_from_the_first_to_the_last_and_none_is_taken_twice(count):
    items = np.arange(100, 100 + count)
    few = evenly(items, 10)
    assert len(few) == min(count, 10) and len(set(few.tolist())) == len(few)
    if count >= 2:
        assert few[0] == items[0] and few[-1] == items[-1]
        assert np.ptp(np.diff(few)) <= 1
    assert evenly(range(count), 10).tolist() == (few - 100).tolist()


@pytest.mark.parametrize("count", [0, 5, 300, 301, 329, 330, 1084])
def test_runs_are_spread_over_all_of_it_and_hold_neighbours(count: int) -> None:
    items = np.arange(1000, 1000 + count)
    few = in_runs(items, 300, 30)
    if count <= 300:
        assert few.tolist() == items.tolist()
        return
    assert len(few) == 300 == len(set(few.tolist()))
    assert few[0] == items[0] and few[-1] == items[-1]
    runs = few.reshape(10, 30)
    assert (np.diff(runs, axis=1) == 1).all() and np.ptp(np.diff(runs[:, 0])) <= 1


@pytest.mark.parametrize("count, run", [(100, 10), (45, 4), (10, 1), (3, 1)])
def test_a_few_are_still_from_all_of_it(count: int, run: int) -> None:
    few = in_runs(np.arange(1080), count, 30)
    assert count * 0.8 <= len(few) <= count and few[0] == 0 and few[-1] == 1079
    assert (np.diff(few.reshape(-1, run), axis=1) == 1).all()
