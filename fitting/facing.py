"""Where a person looks, from 2-D landmarks alone: placements to start a fit from when the detector gives no metres.

Seen from afar, a segment of L metres covers s L cos(tilt) pixels (Taylor, "Reconstruction of Articulated Objects from
Point Correspondences in a Single Uncalibrated Image", CVIU 2000): the scale s is known from the segment that is least
foreshortened, the turn of the shoulders from how much they are, up to its sign.  Both signs are offered.
"""

from __future__ import annotations

import numpy as np

from fitting.keypoints import LANDMARK_NAMES

_AT = {name: i for i, name in enumerate(LANDMARK_NAMES)}
_WIDTHS = (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"))
_SEGMENTS = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"))
)


def rotations_from_pixels(landmarks_px: np.ndarray, rest_m: np.ndarray) -> list[np.ndarray]:
    """Rotations (3, 3) camera_from_body of an upright person: one, or two that look to either side of the camera.

    ``landmarks_px`` (33, 2), NaN = not seen; ``rest_m`` (33, 3) the landmarks of the body at rest in its own frame.
    """
    up = _up(landmarks_px)
    scale = max((_length(landmarks_px, pair) / _length(rest_m, pair) for pair in _pairs(landmarks_px)), default=np.nan)
    # The person's left, as seen along the picture's direction that is square to "up".
    across = np.array([-up[1], up[0]])
    lefts = [
        (landmarks_px[_AT[a]] - landmarks_px[_AT[b]]) @ across / (scale * _length(rest_m, (a, b)))
        for a, b in _WIDTHS
        if (a, b) in _pairs(landmarks_px)
    ]
    x = float(np.clip(np.mean(lefts), -1, 1)) if lefts else 1.0
    z = float(np.sqrt(1 - x * x))
    signs = (1.0, -1.0) if z > 0.1 else (1.0,)
    return [_frame(np.array([*(x * across), sign * z]), np.array([*up, 0.0])) for sign in signs]


def _pairs(landmarks_px: np.ndarray) -> list[tuple[str, str]]:
    """The segments whose ends are both seen."""
    return [(a, b) for a, b in (*_WIDTHS, *_SEGMENTS) if np.isfinite(landmarks_px[[_AT[a], _AT[b]]]).all()]


def _length(points: np.ndarray, pair: tuple[str, str]) -> float:
    return float(np.linalg.norm(points[_AT[pair[0]]] - points[_AT[pair[1]]]))


def _up(landmarks_px: np.ndarray) -> np.ndarray:
    """(2,) unit direction from hips to shoulders in the picture; straight up where neither side shows both."""
    sides = [landmarks_px[_AT[f"{s}_shoulder"]] - landmarks_px[_AT[f"{s}_hip"]] for s in ("left", "right")]
    seen = [side for side in sides if np.isfinite(side).all()]
    up = np.mean(seen, axis=0) if seen else np.array([0.0, -1.0])
    length = float(np.linalg.norm(up))
    return up / length if length > 1e-6 else np.array([0.0, -1.0])


def _frame(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(3, 3) columns +x to the person's left, +y to the back, +z up."""
    x = left / np.linalg.norm(left)
    return np.stack([x, np.cross(up, x), up], axis=1)
