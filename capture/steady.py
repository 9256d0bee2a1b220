"""Masks that do not flicker: neighbouring frames vote, moved along the optical flow.

h x w pixels of a probability map, H x W of its picture.  The vote is symmetric in time, so nothing lags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

FLOW_SIDE_PX = 320
FLICKER_SIDE_PX = 640
ALIKE = 12  # grey levels: more between a picture and its moved neighbour, and the flow is not believed
NO_MAP: Any = None  # OpenCV's "not given", which its type stubs do not know
NO_FLOW: Any = None


def steadied(
    probability: np.ndarray, color: np.ndarray, neighbours: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Median (h, w) of a frame's probability and those of its two neighbours (picture, probability), moved to it.

    Where a moved picture does not look like this one (H, W, 3) the frame keeps its own value.
    """
    if len(neighbours) != 2 or not all(other.any() for _, other in neighbours):
        return probability
    flow_wh = _fitted_wh(color, FLOW_SIDE_PX)
    gray = _small_gray(color, flow_wh)
    height, width = probability.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    flow_grid = np.stack(np.meshgrid(np.arange(flow_wh[0]), np.arange(flow_wh[1])), axis=-1).astype(np.float32)
    # Dense inverse search (Kroeger et al., ECCV 2016).
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    moved = [probability]
    for picture, other in neighbours:
        other_gray = _small_gray(picture, flow_wh)
        flow_px = flow_of.calc(gray, other_gray, NO_FLOW)
        seen = cv2.remap(other_gray, flow_grid + flow_px, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        is_alike = cv2.blur(cv2.absdiff(seen, gray), (3, 3)) < ALIKE
        scale = np.array([width / flow_wh[0], height / flow_wh[1]], np.float32)
        flow_raw_px = cv2.resize(flow_px, (width, height), interpolation=cv2.INTER_LINEAR) * scale
        there = cv2.remap(other, grid + flow_raw_px, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        is_alike_raw = cv2.resize(is_alike.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        moved.append(np.where(is_alike_raw, there, probability))
    own, before, after = moved
    low, high = np.minimum(before, after), np.maximum(before, after)
    return own.clip(low, high)  # the median of the three


def _fitted_wh(color: np.ndarray, side_px: int) -> tuple[int, int]:
    scale = min(1.0, side_px / max(color.shape[:2]))
    return max(16, round(color.shape[1] * scale)), max(16, round(color.shape[0] * scale))


def _small_gray(color: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    return cv2.cvtColor(cv2.resize(color, image_wh, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def unexplained(mask: np.ndarray, other: np.ndarray, color: np.ndarray, other_color: np.ndarray) -> float:
    """By how many pixels (of a picture FLICKER_SIDE_PX long) the outline of ``other`` (H, W) differs on average from
    that of ``mask``, once the optical flow between their pictures (H, W, 3) has moved it there; NaN where one is empty.

    The area that disagrees, divided by the outline's length.
    """
    wh = _fitted_wh(color, FLICKER_SIDE_PX)
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow_px = flow_of.calc(_small_gray(color, wh), _small_gray(other_color, wh), NO_FLOW)
    grid = np.stack(np.meshgrid(np.arange(wh[0]), np.arange(wh[1])), axis=-1).astype(np.float32)
    own, there = (cv2.resize(m.astype(np.float32), wh, interpolation=cv2.INTER_AREA) for m in (mask, other))
    moved = cv2.remap(there, grid + flow_px, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    is_person = (own > 0.5).astype(np.uint8)
    outline_px = int((is_person - cv2.erode(is_person, np.ones((3, 3), np.uint8))).sum())
    if not outline_px or not (there > 0.5).any():
        return float("nan")
    return float(np.abs(moved - own).sum()) / outline_px
