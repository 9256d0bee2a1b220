"""The floor, where a depth camera sees it: the plane under the feet.

In: depth of a few frames, people left out.  Out: a plane in the colour camera's frame, or None where no floor is seen.
P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capture.camera import invert, kept_rays, meters, project, transform
from fitting.clip import Clip

FRAMES, POINTS_PER_FRAME = 6, 8000
NEAR_M = 0.02  # a depth camera's noise on a floor seen at a slant
TRIALS = 300
ANKLE_M = 0.08
MAX_TILT_RAD = 0.7  # of the camera against the vertical
MIN_SHARE = 0.04  # of the background's points: less is a table, or a patch of wall


@dataclass(frozen=True)
class Plane:
    """normal . x = offset_m, the normal pointing up, in the colour camera's frame."""

    normal: np.ndarray  # (3,) unit
    offset_m: float

    def height_m(self, points_m: np.ndarray) -> np.ndarray:
        """(...) signed distance of points (..., 3), positive above the floor."""
        return np.asarray(points_m @ self.normal - self.offset_m)


def find_floor(clip: Clip, feet_m: np.ndarray) -> Plane | None:
    """The floor of a clip, under ankles (F, 3).  None without depth or without a floor in view."""
    return plane_under(_background_m(clip), feet_m)


def plane_under(points_m: np.ndarray, feet_m: np.ndarray, seed: int = 0) -> Plane | None:
    """The plane that most of the points (P, 3) lie on among those that pass under the ankles (F, 3).

    RANSAC (Fischler & Bolles 1981), then least squares on its inliers.
    """
    feet_m = feet_m[np.isfinite(feet_m).all(1)]
    if len(points_m) < 500 or not len(feet_m):
        return None
    low = points_m[points_m[:, 1] > np.median(feet_m[:, 1])]  # below the ankles: elsewhere there are only walls
    if len(low) < MIN_SHARE * len(points_m):
        return None
    rng = np.random.default_rng(seed)
    best, best_count = None, 0
    for _ in range(TRIALS):
        plane = _through(low[rng.choice(len(low), 3, replace=False)])
        if plane is None or not _is_under(plane, feet_m):
            continue
        count = int((np.abs(plane.height_m(points_m)) < NEAR_M).sum())
        if count > best_count:
            best, best_count = plane, count
    if best is None or best_count < MIN_SHARE * len(points_m):
        return None
    for _ in range(3):
        inliers = points_m[np.abs(best.height_m(points_m)) < NEAR_M]
        centre = inliers.mean(0)
        normal = np.linalg.svd(inliers - centre, full_matrices=False)[2][2]
        normal *= -np.sign(normal[1])
        best = Plane(normal, float(normal @ centre))
    return best if _is_under(best, feet_m) else None


def _through(corners_m: np.ndarray) -> Plane | None:
    normal = np.cross(corners_m[1] - corners_m[0], corners_m[2] - corners_m[0])
    length = np.linalg.norm(normal)
    if length < 1e-6:
        return None
    normal = normal / length * -np.sign(normal[1] or 1.0)  # up is -y of the camera
    return Plane(normal, float(normal @ corners_m[0])) if -normal[1] > np.cos(MAX_TILT_RAD) else None


def _is_under(plane: Plane, feet_m: np.ndarray) -> bool:
    """Whether the feet stand on it: ankles are about 8 cm above the sole."""
    return bool(abs(np.percentile(plane.height_m(feet_m), 20) - ANKLE_M) < 0.08)


def _background_m(clip: Clip) -> np.ndarray:
    """(P, 3) points of the room over a few frames."""
    recording = clip.recording
    rig = recording.rig
    with_depth = [i for i in range(len(clip)) if recording.has_depth[i]]
    if rig.depth is None or not with_depth:
        return np.zeros((0, 3))
    found = []
    for index in np.array(with_depth)[np.linspace(0, len(with_depth) - 1, FRAMES).round().astype(int)]:
        depth_mm = recording.depth_mm(int(index))
        assert depth_mm is not None
        valid = np.flatnonzero(depth_mm.ravel() > 300)
        valid = valid[:: max(1, len(valid) // POINTS_PER_FRAME)]
        points_m = kept_rays(rig.depth).reshape(-1, 3)[valid] * meters(depth_mm.ravel()[valid])[:, None]
        if rig.depth_from_color is not None:
            points_m = transform(invert(rig.depth_from_color), points_m)
        alpha = clip.masks[int(index)]
        pixel = project(clip.camera, points_m)
        height, width = alpha.shape
        inside = np.isfinite(pixel).all(1) & (pixel >= 0).all(1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
        is_person = np.zeros(len(points_m), bool)
        column, row = pixel[inside].astype(int).T
        is_person[inside] = alpha[row, column] > 0.05
        found.append(points_m[~is_person])
    return np.concatenate(found)
