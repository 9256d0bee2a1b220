"""The person and whoever else is in the mask: told apart by how far from the camera they stand.

H x W pixels of a probability map and the depth beside it, S surfaces: what hangs together without a step in depth.  An
arm that reaches out hangs together with its shoulder, whoever passes behind does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from capture.alpha import CORE, FAR_REACH, JUMP_M, median_depth, nearest_value, range_around
from capture.likelihood import EVEN, sigmas_nearer

ARM_SHARE = 0.06  # of what is seen of a person: no arm is larger
NOBODY_SHARE = 0.01  # of what is seen of a person: smaller surfaces are a rim of wall, and nobody


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of what is taken for the person."""

    labels: np.ndarray  # (H, W) int32, 1 to S; 0 = no person, the room, an edge in depth, or no depth
    median_m: np.ndarray  # (S,)
    share: np.ndarray  # (S,) of the person's pixels with depth, the room's not counted

    def is_elsewhere(self, distance_m: float, gate_m: float, is_alone: bool = True) -> np.ndarray:
        """(S,) bool: too far from a person at ``distance_m`` to be part of him.  Where the trunk hides the shoulder,
        the arm is a small surface of its own, and may be as far as it reaches; of two people it may be either's."""
        reach_m = np.where((self.share > ARM_SHARE) | (not is_alone), gate_m, FAR_REACH * gate_m)
        return np.abs(self.median_m - distance_m) > reach_m


@dataclass(frozen=True)
class Whereabouts:
    """Of the person in one frame."""

    distance_m: float  # NaN = depth does not say
    is_alone: bool  # nobody else was in the mask, for a second before and after


def surfaces(probability: np.ndarray, depth_m: np.ndarray, room_m: np.ndarray | None = None) -> Surfaces:
    """The surfaces of a probability (H, W) in depth (H, W), NaN = unknown.  What lies at the depth of the empty room,
    ``room_m`` (H, W), is none: the wall between arm and trunk is nobody.  What lies behind it is one, as a door that
    was opened since the room was learned may have somebody in it."""
    is_known = (probability > 0.5) & np.isfinite(depth_m)
    if room_m is not None:
        is_known &= ~(np.abs(sigmas_nearer(depth_m, room_m)) < EVEN)
    is_smooth = is_known & (range_around(np.where(is_known, depth_m, np.nan)) < JUMP_M)
    count, labels = cv2.connectedComponents(is_smooth.astype(np.uint8), connectivity=4)
    sizes, median_m = _medians(labels, depth_m, count)
    return Surfaces(labels, median_m[1:], sizes[1:] / max(1, np.count_nonzero(is_known)))


@numba.njit(cache=True)
def _medians(labels: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(sizes (count,), median (count,) of the values (H, W)) of each label (H, W); label 0 is left out."""
    sizes = np.zeros(count, np.int64)
    for label in labels.ravel():
        sizes[label] += 1
    sizes[0] = 0
    ends = np.cumsum(sizes)
    sorted_by_label = np.empty(ends[-1], values.dtype)
    places = ends - sizes
    for label, value in zip(labels.ravel(), values.ravel()):  # noqa: B905, numba knows no strict
        if label > 0:
            sorted_by_label[places[label]] = value
            places[label] += 1
    medians = np.full(count, np.nan)
    for label in range(1, count):
        medians[label] = np.median(sorted_by_label[ends[label] - sizes[label] : ends[label]])
    return sizes, medians


def somebody_else(
    probability: np.ndarray, depth_m: np.ndarray, place: Whereabouts, gate_m: float, is_sure: np.ndarray | None = None
) -> np.ndarray:
    """(H, W) bool: what the probability (H, W) takes for the person, and what stands elsewhere than in his ``place``;
    whole surfaces, up to their edges in depth (H, W), NaN = unknown.  Where he is alone, surfaces too small to be
    anybody, flying pixels for the most part, do not overrule what ``is_sure`` (H, W) to be the person."""
    found = surfaces(probability, depth_m)
    is_else = found.is_elsewhere(place.distance_m, gate_m, place.is_alone)
    if not is_else.any():
        return np.zeros(probability.shape, bool)
    weight = np.concatenate([[0], np.where(found.share > NOBODY_SHARE, 2, 1) * is_else]).astype(np.float32)
    # Edges, and what depth does not know, go with the surface that is nearest.
    near = nearest_value(found.labels > 0, weight[found.labels])
    is_spared = np.zeros(probability.shape, bool)
    if is_sure is not None and place.is_alone:
        is_spared = (near == 1) & is_sure
    return (probability > 0.5) & (near > 0) & ~is_spared


def trunk_distance(probability: np.ndarray, depth_m: np.ndarray) -> float:
    """Median distance of the sure person (H, W), metres; NaN where depth and network share too little."""
    return median_depth(probability > CORE, depth_m)


def steady_distances(alone_m: np.ndarray, reach: int) -> np.ndarray:
    """(N,) the distances of the frames alone (N,), each the median of those up to ``reach`` frames away, so that
    somebody who passes by, before or behind, is not taken for the person; NaN where none of them is known."""
    padded = np.pad(alone_m, reach, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    distance_m, is_known = np.full(len(alone_m), np.nan), np.isfinite(around).any(1)
    distance_m[is_known] = np.nanmedian(around[is_known], axis=1)
    return distance_m
