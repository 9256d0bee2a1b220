"""Feet that rest in the picture rest in space.

Without depth and floor nothing holds a standing person's distance, and a body that squats drifts away by a quarter of a
metre, feet and all, while its picture stays right.  But a foot that moves along its own ray alone is a coincidence, and
standing is what feet do: so a foot whose landmarks rest in the picture keeps its place from frame to frame,

    E = sum over resting steps of |p_{i+1} - p_i|^2 / sigma^2        (p: the ankle in space).

Enters: a clip's landmarks.  Leaves: which ankle rests between which frames.  N frames, two feet, left first.
"""

from __future__ import annotations

import numpy as np

from fitting.clip import Clip
from fitting.keypoints import LANDMARK_NAMES
from fitting.observe import PERSON_M

REST_M_PER_S = 0.15  # across the line of sight; landmarks of a foot that stands scatter by less over three steps
MIN_STEPS, MIN_REST_S = 3, 0.2  # a foot that turns back stops for one step, a foot that carries a stride for 0.4 s
MIN_VISIBILITY = 0.5  # what the detector does not see rests where it is believed to be
_FEET = np.array(
    [[LANDMARK_NAMES.index(f"{side}_{name}") for name in ("ankle", "heel", "foot_index")] for side in ("left", "right")]
)


def resting(clip: Clip, frames: list[int], step_s: float) -> np.ndarray:
    """(N - 1, 2) bool: the foot rests between frame k and k + 1 of these consecutive ``frames``."""
    points_px = clip.keypoints.points_px[frames][:, _FEET]
    is_sure = (clip.keypoints.visibility[frames][:, _FEET].min(2) > MIN_VISIBILITY) & _inside(clip, points_px).all(2)
    is_slow = _slow(points_px * (PERSON_M / _standing_px(clip, frames)), REST_M_PER_S * step_s)
    return _runs(is_slow & is_sure[1:] & is_sure[:-1], max(MIN_STEPS, MIN_REST_S / step_s))


def _slow(points_m: np.ndarray, limit_m: float) -> np.ndarray:
    """(N - 1, 2) bool: the landmarks (N, 2, 3, 2) of a foot move by less than the limit in their median.

    Over three steps, so that the detector's scatter does not count as a movement; NaN is no rest.
    """
    count = len(points_m)
    is_slow = np.zeros((max(count - 1, 0), 2), bool)
    if count > 3:
        later, earlier = points_m[3:] + points_m[2:-1], points_m[1:-2] + points_m[:-3]
        step_m = np.median(np.linalg.norm(later - earlier, axis=-1), axis=-1) / 4
        is_slow[1:-1] = step_m < limit_m
        is_slow[0], is_slow[-1] = is_slow[1], is_slow[-2]
    return is_slow


def _runs(is_so: np.ndarray, least: float) -> np.ndarray:
    """The same (K, 2) without runs shorter than ``least``."""
    kept = is_so.copy()
    for foot in kept.T:
        for run in np.split(np.arange(len(foot)), np.flatnonzero(np.diff(foot)) + 1):
            if len(run) < least:
                foot[run] = False
    return kept


def _standing_px(clip: Clip, frames: list[int]) -> float:
    """How tall the person stands in the picture, colour pixels: the median over the frames with somebody in them."""
    seen = [observation for i in frames if (observation := clip[i]) is not None]
    return float(np.median([o.standing_px * clip.camera.fx_px / o.camera.fx_px for o in seen])) if seen else np.nan


def _inside(clip: Clip, points_px: np.ndarray) -> np.ndarray:
    """(...) bool: points (..., 2) within the picture."""
    with np.errstate(invalid="ignore"):
        return np.asarray(((points_px > 0) & (points_px < clip.camera.image_wh)).all(-1))
