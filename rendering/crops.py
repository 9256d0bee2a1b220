"""Person crops: a box per frame that holds the body, keeps one aspect and moves calmly.

N frames.  Enter: the extent of the projected body per frame, NaN where it is lost.  Leave: boxes (left, top, right,
bottom) in pixels of the colour image; they may reach outside it.
"""

from __future__ import annotations

import numpy as np

from capture.errors import UserError


def person_boxes(
    extents_px: np.ndarray,
    image_wh: tuple[int, int],
    aspect: float,
    margins: tuple[float, float, float, float],
    smooth_frames: int,
) -> np.ndarray:
    """Boxes (N, 4) from extents (N, 4), both left, top, right, bottom; aspect = width / height.

    ``margins`` (left, top, right, bottom) are fractions of the body's height in the picture.  A box always holds the
    visible part of its own frame's extent with margins: each side is first pushed out to the furthest within
    ``smooth_frames`` and then averaged over the same window, which can never pull it inside.  Lost frames get boxes
    between those of their neighbours.  Raises UserError when every frame is lost.
    """
    tracked = np.flatnonzero(np.isfinite(extents_px).all(axis=1))
    if len(tracked) == 0:
        raise UserError(
            "the body was tracked in no frame; see the fit's overlay.mp4, then film again or mend the masks"
        )
    outward = np.array([-1.0, -1.0, 1.0, 1.0])
    # What lies outside the picture was not filmed; following it would waste the crop on nothing.
    visible = np.clip(extents_px[tracked], 0, [*image_wh, *image_wh])
    height = np.maximum(visible[:, 3] - visible[:, 1], 1)
    sides = visible * outward + height[:, None] * margins  # larger = further out
    sides = _calm(tracked, sides, smooth_frames) * outward
    boxes = _with_aspect(sides, aspect)
    frames = np.arange(len(extents_px))
    return np.stack([np.interp(frames, tracked, boxes[:, k]) for k in range(4)], axis=1)


def _calm(frames: np.ndarray, sides: np.ndarray, radius: int) -> np.ndarray:
    """Largest value, then Gaussian mean, within ``radius`` frames; never below ``sides`` (n, 4)."""
    if radius < 1:
        return sides
    largest, mean = np.empty_like(sides), np.empty_like(sides)
    begin = np.searchsorted(frames, frames - radius)
    end = np.searchsorted(frames, frames + radius, side="right")
    for i in range(len(frames)):
        largest[i] = sides[begin[i] : end[i]].max(axis=0)
    for i in range(len(frames)):
        near = slice(begin[i], end[i])
        weight = np.exp(-0.5 * ((frames[near] - frames[i]) / (0.5 * radius)) ** 2)
        mean[i] = weight @ largest[near] / weight.sum()
    return np.maximum(mean, sides)  # against rounding


def _with_aspect(sides_px: np.ndarray, aspect: float) -> np.ndarray:
    """Widen or heighten boxes (n, 4) about their centres to width = aspect * height."""
    left, top, right, bottom = sides_px.T
    height = np.maximum(bottom - top, (right - left) / aspect)
    center_x, center_y = (left + right) / 2, (top + bottom) / 2
    half_w, half_h = height * aspect / 2, height / 2
    return np.stack([center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h], axis=1)
