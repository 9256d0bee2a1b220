"""Figures that say how well a body was tracked: pure functions of estimate and truth.

N frames, 12 joints in the order of ``JOINTS`` (left before right), V points.  NaN in an estimate is a lost frame.
Metres in the colour camera's frame unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

JOINTS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
MIXAMO = {"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"}
ANNY = {
    "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot",
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist",
}  # fmt: skip
LANDMARKS = np.array([23, 24, 25, 26, 27, 28, 11, 12, 13, 14, 15, 16])  # MediaPipe's, in the order of JOINTS
OTHER_SIDE = np.arange(12) ^ 1
TRUNK, LEGS, ARMS = [0, 1, 6, 7], [2, 3, 4, 5], [8, 9, 10, 11]
LIMBS = {"left leg": [2, 4], "right leg": [3, 5], "left arm": [8, 10], "right arm": [9, 11]}  # what a wrong limb moves

WRONG_M = 0.25  # a joint this far off is not where it is said to be
RIGHT_M = 0.10  # mean over the joints: half a hand's breadth more than a good fit through loose clothes
STILL_M_PER_S = 0.15  # a joint slower than this
MIN_STILL_FRAMES = 5


def of_anny(joints_m: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(N, 12, 3) of a fit's (N, J, 3)."""
    return joints_m[:, [list(names).index(ANNY[j] + side) for j in JOINTS for side in (".L", ".R")]].astype(float)


def of_mixamo(joints_m: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(N, 12, 3) of a truth's (N, K, 3)."""
    plain = [str(name).split(":")[-1] for name in names]
    return joints_m[:, [plain.index(side + MIXAMO[j]) for j in JOINTS for side in ("Left", "Right")]].astype(float)


def trunk_frames(joints_m: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations whose columns are the trunk's axes: across, ahead, and their cross product."""
    across = joints_m[:, 6] - joints_m[:, 7]
    across = across / np.linalg.norm(across, axis=1, keepdims=True)
    ahead = np.cross((joints_m[:, 6] + joints_m[:, 7] - joints_m[:, 0] - joints_m[:, 1]) / 2, across)
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    return np.stack([across, ahead, np.cross(across, ahead)], axis=2)


def joint_offsets_m(estimate_m: np.ndarray, truth_m: np.ndarray) -> np.ndarray:
    """(12, 3) where the estimate's joints sit, from the true ones and in the trunk's frame: the median over time."""
    return np.median(_local(estimate_m, truth_m)[np.isfinite(estimate_m).all((1, 2))], axis=0)


def offset_removed_m(estimate_m: np.ndarray, truth_m: np.ndarray, offsets_m: np.ndarray | None = None) -> np.ndarray:
    """(N, 12) distances after one constant offset per joint, turning with the true trunk, is taken away.

    A joint centre of one skeleton sits at a fixed place on the other.  ``offsets_m`` (12, 3) are those of a longer
    clip, or else of this one.  NaN where a frame has no estimate.
    """
    if not np.isfinite(estimate_m).all((1, 2)).any():
        return np.full(estimate_m.shape[:2], np.nan)
    if offsets_m is None:
        offsets_m = joint_offsets_m(estimate_m, truth_m)
    errors_m = np.linalg.norm(_local(estimate_m, truth_m) - offsets_m, axis=2)
    errors_m[~np.isfinite(errors_m).all(1)] = np.nan
    return errors_m


def _local(estimate_m: np.ndarray, truth_m: np.ndarray) -> np.ndarray:
    """(N, 12, 3) estimate less truth, in the true trunk's frame."""
    return np.einsum("nji,nkj->nki", trunk_frames(truth_m), estimate_m - truth_m)


def camera_scale(estimate_m: np.ndarray, truth_m: np.ndarray) -> float:
    """The factor about the camera's centre that brings the estimate to the truth's distance: the clip's median.

    A picture is the same of a small person nearby and a tall one far away; no fit to colour alone knows better.
    """
    hips_m, true_hips_m = estimate_m[:, :2, 2].mean(1), truth_m[:, :2, 2].mean(1)
    return float(np.nanmedian(true_hips_m / hips_m))


def procrustes_m(estimate_m: np.ndarray, truth_m: np.ndarray) -> np.ndarray:
    """(N, 12) distances after the best similarity of each frame (Umeyama 1991); NaN where lost."""
    out = np.full(estimate_m.shape[:2], np.nan)
    for i in np.flatnonzero(np.isfinite(estimate_m).all((1, 2))):
        x, y = estimate_m[i] - estimate_m[i].mean(0), truth_m[i] - truth_m[i].mean(0)
        u, s, vt = np.linalg.svd(x.T @ y)
        sign = np.sign(np.linalg.det(u @ vt))
        s[2] *= sign
        u[:, 2] *= sign
        out[i] = np.linalg.norm(s.sum() / (x**2).sum() * x @ u @ vt - y, axis=1)
    return out


def flipped(estimate_m: np.ndarray, truth_m: np.ndarray, members: Sequence[int] = range(12)) -> np.ndarray:
    """(N,) bool: exchanging left and right of the ``members`` would bring them nearer to the truth.

    Both are centred on their 12 joints first, so that a whole body too near or too far is no flip.
    """
    picked = np.array(list(members))
    x = estimate_m - estimate_m.mean(1, keepdims=True)
    y = truth_m - truth_m.mean(1, keepdims=True)
    as_said = np.linalg.norm(x[:, picked] - y[:, picked], axis=2).sum(1)
    exchanged = np.linalg.norm(x[:, OTHER_SIDE[picked]] - y[:, picked], axis=2).sum(1)
    return exchanged < as_said  # False where lost: NaN compares so


def wrong(errors_m: np.ndarray) -> np.ndarray:
    """(N,) bool: a joint is more than ``WRONG_M`` off; errors (N, K) as ``offset_removed_m`` gives them."""
    return np.nan_to_num(errors_m).max(1) > WRONG_M


def right(errors_m: np.ndarray) -> np.ndarray:
    """(N,) bool: the mean over the joints is below ``RIGHT_M``; a lost frame is not right."""
    return errors_m.mean(1) < RIGHT_M


def still(points: np.ndarray, limit: float) -> np.ndarray:
    """(N, K) bool: point k of (N, K, D) moves at most ``limit`` a frame, for ``MIN_STILL_FRAMES`` frames on end."""
    step = np.linalg.norm(np.diff(points, axis=0), axis=2)
    none = np.zeros((1, points.shape[1]), bool)
    calm = np.concatenate([none, step <= limit, none])  # [i] is the step from frame i - 1 to frame i
    out = np.zeros(points.shape[:2], bool)
    for k in range(points.shape[1]):
        begin = 0
        for frame in range(1, len(points) + 1):
            if not calm[frame, k]:
                out[begin:frame, k] = frame - begin >= MIN_STILL_FRAMES
                begin = frame
    return out


def smoothed(points: np.ndarray, sigma_frames: float = 3.0) -> np.ndarray:
    """Points (N, K, D) through a Gaussian over time; NaN spreads over some frames on both sides."""
    return gaussian_filter1d(points, sigma_frames, axis=0, mode="nearest")


def jitter(points: np.ndarray, is_still: np.ndarray) -> tuple[float, float]:
    """Root mean square and median second difference of points (N, K, D), over triples of still (N, K) frames.

    Per frame^2: multiply by the square of the frame rate for an acceleration.  NaN without any such triple.
    """
    bend = points[2:] - 2 * points[1:-1] + points[:-2]
    inner = is_still[2:] & is_still[1:-1] & is_still[:-2] & np.isfinite(bend).all(2)
    if not inner.any():
        return float("nan"), float("nan")
    size = np.linalg.norm(bend[inner], axis=-1)
    return float(np.sqrt((size**2).mean())), float(np.median(size))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 for two empty ones."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def to_surface_m(points_m: np.ndarray, vertices_m: np.ndarray, faces: np.ndarray, near: int = 16) -> np.ndarray:
    """(V,) distances of points (V, 3) to a triangle mesh, among each point's ``near`` faces by their centroids."""
    tree = cKDTree(vertices_m[faces].mean(1))
    _, candidates = tree.query(points_m, k=min(near, len(faces)))
    triangles = np.ascontiguousarray(vertices_m[faces], np.float64)
    return _distances(np.ascontiguousarray(points_m, np.float64), triangles, candidates.reshape(len(points_m), -1))


def border_vertices(faces: np.ndarray) -> np.ndarray:
    """Vertices on edges that only one face has: where a mesh with holes ends."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


@njit(cache=True)
def _distances(points, triangles, candidates):  # type: ignore[no-untyped-def]
    out = np.empty(len(points))
    for i in range(len(points)):
        best = np.inf
        for f in candidates[i]:
            best = min(best, _squared(points[i], triangles[f, 0], triangles[f, 1], triangles[f, 2]))
        out[i] = np.sqrt(best)
    return out


@njit(cache=True)
def _squared(p, a, b, c):  # type: ignore[no-untyped-def]
    """Squared distance of a point to a triangle (Ericson, "Real-time collision detection", 5.1.5)."""
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = (ab * ap).sum(), (ac * ap).sum()
    bp, cp = p - b, p - c
    d3, d4, d5, d6 = (ab * bp).sum(), (ac * bp).sum(), (ab * cp).sum(), (ac * cp).sum()
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0 and d2 <= 0:
        q = a
    elif d3 >= 0 and d4 <= d3:
        q = b
    elif d6 >= 0 and d5 <= d6:
        q = c
    elif vc <= 0 and d1 >= 0 and d3 <= 0:
        q = a + ab * (d1 / (d1 - d3))
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        q = a + ac * (d2 / (d2 - d6))
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        q = b + (c - b) * ((d4 - d3) / ((d4 - d3) + (d5 - d6)))
    else:
        total = va + vb + vc
        q = a + ab * (vb / total) + ac * (vc / total)
    gap = p - q
    return (gap * gap).sum()
