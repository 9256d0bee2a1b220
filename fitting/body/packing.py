"""Pack charts into the unit square without overlap, as large as they will go.

In: the flattened charts.  Out: their texture coordinates, v down.  Charts keep their relative sizes; each is turned by
quarter turns only, so that an upright chart stays easy to read.  Placement works on a grid of texels, T x T.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import fft

GRID = 256  # texels; the size of the neural texture, for which the padding is meant
MARGIN = 1  # texels around each chart, so two charts are at least 2 apart
_FINE = 4  # sub-texels per texel when a chart's footprint is drawn


def pack(
    charts: Sequence[np.ndarray],
    triangles: Sequence[np.ndarray],
    turns: Sequence[Sequence[int]],
    rng: np.random.Generator,
    tries: int = 40,
) -> list[np.ndarray]:
    """(C_i, 2) texture coordinates per chart, from charts (C_i, 2) in a common unit with y up, and their triangles.

    turns: the quarter turns allowed for each chart.  ``rng`` shuffles the order of placement, ``tries`` times, in
    search of a denser pack.
    """
    flipped = [chart * [1, -1] for chart in charts]  # y up becomes v down
    size = [np.ptp(chart, axis=0) for chart in flipped]
    order = sorted(range(len(charts)), key=lambda i: (-float(size[i].prod()), i))
    scale = GRID / np.sqrt(sum(s.prod() for s in size))  # certainly too large
    best = None
    while best is None:
        scale *= 0.97
        best = _place(flipped, triangles, turns, order, scale)
    for _ in range(tries):  # a slightly larger scale with another order of placement
        noisy = sorted(order, key=lambda i: -float(size[i].prod()) * rng.uniform(0.4, 1.0))
        while (found := _place(flipped, triangles, turns, noisy, scale * 1.01)) is not None:
            best, scale = found, scale * 1.01
    return best


def _place(
    charts: Sequence[np.ndarray],
    triangles: Sequence[np.ndarray],
    turns: Sequence[Sequence[int]],
    order: Sequence[int],
    scale: float,
) -> list[np.ndarray] | None:
    """Each chart in turn goes to the topmost, then leftmost free place; None when one does not fit."""
    occupied = np.zeros((GRID, GRID), bool)
    out: list[np.ndarray | None] = [None] * len(charts)
    for index in order:
        options = []
        spectrum = fft.rfft2(occupied.astype(np.float32))
        for turn in turns[index]:
            points = _turned(charts[index], turn) * scale
            points = points - points.min(0) + MARGIN
            mask = footprint(points, triangles[index])
            if max(mask.shape) > GRID:
                continue
            padded = np.zeros((GRID, GRID), np.float32)
            padded[: mask.shape[0], : mask.shape[1]] = mask
            hits = fft.irfft2(spectrum * np.conj(fft.rfft2(padded)), s=(GRID, GRID))
            hits = hits[: GRID - mask.shape[0] + 1, : GRID - mask.shape[1] + 1]
            free = np.argwhere(hits < 0.5)
            if len(free):
                row, column = free[np.lexsort((free[:, 1], free[:, 0]))[0]]
                options.append((int(row) + mask.shape[0], int(row), int(column), turn, points, mask))
        if not options:
            return None
        _, row, column, _, points, mask = min(options, key=lambda option: option[:4])
        occupied[row : row + mask.shape[0], column : column + mask.shape[1]] |= mask
        out[index] = (points + np.array([column, row])) / GRID
    return [points for points in out if points is not None]


def footprint(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(h, w) bool: texels that a chart at ``points`` (texels, all at least MARGIN) touches, grown by MARGIN."""
    width, height = (np.ceil(points.max(0)).astype(int) + MARGIN + 1).tolist()
    fine = np.zeros((height * _FINE, width * _FINE), np.uint8)
    corners = np.round((points[triangles] * _FINE - 0.5) * 16).astype(np.int32)
    for triangle in corners:
        cv2.fillConvexPoly(fine, triangle, 1, cv2.LINE_8, 4)
    mask = fine.reshape(height, _FINE, width, _FINE).any((1, 3))
    reach = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)
    return np.asarray(cv2.dilate(np.asarray(mask, np.uint8), reach)) > 0


def _turned(points: np.ndarray, quarter_turns: int) -> np.ndarray:
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns % 4]
    return points @ np.array([[cosine, -sine], [sine, cosine]])
