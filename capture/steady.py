"""Masks that do not flicker: neighbouring frames vote, moved along the optical flow.

h x w pixels of a probability map, H x W of its picture.  The vote is symmetric in time, so nothing lags.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

FLOW_SIDE_PX = 320
FLICKER_SIDE_PX = 640
ALIKE = 12  # grey levels: more between a picture and its moved neighbour, and the flow is not believed
AROUND = 0.02  # of the longer side: further out, nobody gets within a frame whom neither neighbour shows near
FAINT = 0.02  # probability of nobody
NO_MAP: Any = None  # OpenCV's "not given", which its type stubs do not know
NO_FLOW: Any = None


def flow_gray(color: np.ndarray, side_px: int = FLOW_SIDE_PX) -> np.ndarray:
    """(h, w) uint8 of a picture (H, W, 3), as flow is looked for in it: longer side at most ``side_px``."""
    scale = min(1.0, side_px / max(color.shape[:2]))
    wh = max(16, round(color.shape[1] * scale)), max(16, round(color.shape[0] * scale))
    return cv2.resize(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), wh, interpolation=cv2.INTER_AREA)


def steadied(
    probability: np.ndarray, gray: np.ndarray, neighbours: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Median (H, W) of a frame's probability and those of its two neighbours (gray, probability), moved to it.

    Where a moved picture does not look like this one (``flow_gray``, (h, w)) the frame keeps its own value, and
    further than AROUND from where any of the three sees the person.
    """
    if len(neighbours) != 2 or not all(other.any() for _, other in neighbours):
        return probability
    height, width = probability.shape
    scale = np.array([width / gray.shape[1], height / gray.shape[0]], np.float32)
    part = _surroundings(np.maximum(np.maximum(probability, neighbours[0][1]), neighbours[1][1]))
    own = probability[part]
    if not own.size:
        return probability
    grid = _grid(width, height)[part]  # (H', W', 2) places
    small_grid = (grid + 0.5) / scale - 0.5
    # Dense inverse search (Kroeger et al., ECCV 2016).
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    moved = []
    for other_gray, other in neighbours:
        flow_px = flow_of.calc(gray, other_gray, NO_FLOW)
        is_alike = cv2.blur(cv2.absdiff(moved_along(other_gray, flow_px), gray), (3, 3)) < ALIKE
        flow_here_px = _looked_up(flow_px, small_grid) * scale
        is_alike_here = _looked_up(is_alike.astype(np.uint8), small_grid, cv2.INTER_NEAREST) > 0
        moved.append(np.where(is_alike_here, _looked_up(other, grid + flow_here_px), own))
    before, after = moved
    low, high = np.minimum(before, after), np.maximum(before, after)
    result = probability.copy()
    result[part] = np.minimum(np.maximum(own, low), high)  # the median of the three
    return result


def _surroundings(probability: np.ndarray) -> tuple[slice, slice]:
    """The part of a map (H, W) that shows somebody, and AROUND of its longer side around him."""
    margin = round(AROUND * max(probability.shape))
    slices = []
    for axis in (1, 0):
        shown = np.flatnonzero(probability.max(axis=axis) > FAINT)
        if not len(shown):
            return np.s_[0:0, 0:0]
        slices.append(slice(max(0, int(shown[0]) - margin), int(shown[-1]) + 1 + margin))
    return slices[0], slices[1]


def _looked_up(image: np.ndarray, places: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """The values of an image (h, w) or (h, w, C) at places (H, W, 2) x, y."""
    return cv2.remap(image, places, NO_MAP, how, borderMode=cv2.BORDER_REPLICATE)


def moved_along(image: np.ndarray, flow_px: np.ndarray) -> np.ndarray:
    """An image (h, w) or (h, w, C) as seen through a flow (h, w, 2): each pixel takes the value of where it goes."""
    height, width = image.shape[:2]
    return _looked_up(image, flow_px + _grid(width, height))


@functools.lru_cache(maxsize=4)
def _grid(width: int, height: int) -> np.ndarray:
    """(height, width, 2) float32, the place of each pixel."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    grid.flags.writeable = False
    return grid


def unexplained(mask: np.ndarray, other: np.ndarray, gray: np.ndarray, other_gray: np.ndarray) -> float:
    """By how many pixels (of a picture FLICKER_SIDE_PX long) the outline of ``other`` (H, W) uint8 differs on average
    from that of ``mask``, once the optical flow between their pictures (``flow_gray``, (h, w)) has moved it there; NaN
    where one is empty."""
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    wh = gray.shape[::-1]
    own, there = (cv2.resize(m, wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for m in (mask, other))
    return left_over(own, there, flow_of.calc(gray, other_gray, NO_FLOW))


def left_over(mask: np.ndarray, other: np.ndarray, flow_px: np.ndarray) -> float:
    """``unexplained`` of two masks (h, w) in 0..1 with the flow (h, w, 2) from the first to the second: the area that
    disagrees, divided by the outline's length."""
    is_person = (mask > 0.5).astype(np.uint8)
    outline_px = int((is_person - cv2.erode(is_person, np.ones((3, 3), np.uint8))).sum())
    if not outline_px or not (other > 0.5).any():
        return float("nan")
    moved = moved_along(other, flow_px)
    return float(np.abs(moved - mask).sum()) / outline_px * FLICKER_SIDE_PX / max(mask.shape)
