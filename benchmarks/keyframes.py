"""Claim: lazy bitset keyframes choose exactly what plain greedy coverage chooses, at least 100 times faster.

Frames are bitsets of texels and sides around a slowly turning, drifting view: neighbours overlap as in a real clip.
Compilation is not counted; plain greedy is timed for a few choices and extrapolated, since it takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from fitting.keyframes import SIDES, TEXELS, choose_greedily, choose_naively, max_keyframes


def synthetic_clip(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, W) uint64: a smooth random walk through views, about a quarter of the items seen per frame."""
    num_items = TEXELS * TEXELS * SIDES
    place = rng.normal(size=(num_items, 6))
    place /= np.linalg.norm(place, axis=1, keepdims=True)
    view = np.cumsum(rng.normal(0, 0.08, (count, 6)), axis=0) + rng.normal(size=6)
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    seen = [np.packbits(place @ v + rng.normal(0, 0.05, num_items) > 0.28).view(np.uint64) for v in view]
    return np.stack(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[1500, 9000])
    parser.add_argument("--naive-choices", type=int, default=4, help="choices of plain greedy that are really timed")
    options = parser.parse_args()
    choose_greedily(np.ones((2, 2), np.uint64), 1)
    print(f"{TEXELS * TEXELS * SIDES} items, {os.cpu_count()} CPU cores, one used")
    print(
        f"{'frames':>7}{'chosen':>8}{'lazy s':>9}{'plain s (extrapolated)':>25}{'times faster':>14}{'same choice':>13}"
    )
    for count in options.frames:
        seen = synthetic_clip(count, np.random.default_rng(1))
        times_s = []
        for _ in range(3):
            started = time.process_time()
            chosen = choose_greedily(seen, max_keyframes(count, 0.1))
            times_s.append(time.process_time() - started)
        fewer = seen[:: max(1, count // 300)]  # equality is checked to the end on a thinner clip
        is_same = np.array_equal(choose_naively(fewer, 30), choose_greedily(fewer, 30))
        naive_s = plain_seconds(seen, options.naive_choices) * len(chosen)
        lazy_s = min(times_s)
        print(f"{count:7}{len(chosen):8}{lazy_s:9.3f}{naive_s:25.1f}{naive_s / lazy_s:14.0f}{is_same!s:>13}")


def plain_seconds(seen: np.ndarray, choices: int) -> float:
    """Seconds per choice of plain greedy, unpacking not counted."""
    spent_s = []
    for count in (1, 1, 1 + choices):  # the first warms up
        started = time.process_time()
        choose_naively(seen, count)
        spent_s.append(time.process_time() - started)
    return (spent_s[2] - spent_s[1]) / choices


if __name__ == "__main__":
    main()
