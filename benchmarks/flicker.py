"""How much do masks flicker: by how many pixels does their outline change from frame to frame, motion left out?

H x W pixels of pictures and masks, resized to h x w with a longer side of SIDE_PX; P points of an outline.  Three
measures, in pixels of a picture SIDE_PX long, means over an outline and over the pairs of neighbouring frames:

raw        the area between a mask and its neighbour moved along the optical flow, by the outline's length
           (``capture.steady.unexplained``).  Flow blurs over the person's outline, so that even true masks have most of
           what rough ones have: the measure is mostly flow's own error.
believed   the same displacement along the outline's normal, only at points where the flow there and back returns to the
           same place.  Needs no truth; still has some of flow's error, as the true masks' own figure tells.
true       needs true masks, and has no floor.  With T the truth and M the mask, a point p of the true outline with
           normal n has the displacement  d(p) = sum over s of M(p + s n) - T(p + s n),  positive where the mask is too
           large.  What is counted is |d'(p') - d(p)|, where p' is p in the next frame.  The movement of the person
           moves M and T alike and is explained exactly, so is an outline that the turning person shows for the first
           time; an error that stays the same and moves along with the person is an error, but no flicker; an outline
           that trembles by sigma in every frame counts 1.13 sigma (the mean of |N(0, 2 sigma^2)|).  Flow says only
           which p' belongs to p and is then snapped to the true outline: its error across the outline drops out, and
           along it d changes slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from capture.steady import FLICKER_SIDE_PX, NO_FLOW, NO_MAP, flow_gray, left_over, moved_along

SIDE_PX = FLICKER_SIDE_PX
REACH_PX = 8  # the longest displacement that is seen: half a forearm's width, so that its other side is not
SNAP_PX = 6.0  # from where flow leads to the true outline: further, and the point has gone behind something
RETURN_PX = 0.5  # there and back: less, and the flow is believed


def displacement(image: np.ndarray, reference: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(P,) by how many pixels the outline of ``image`` lies outside that of ``reference`` (h, w) at points (P, 2) x, y
    of the latter, along its outward normals (P, 2)."""
    steps = np.arange(-REACH_PX, REACH_PX + 1, dtype=np.float32)
    places = (points[:, None] + steps[:, None] * normals[:, None]).astype(np.float32)  # (P, S, 2)
    apart = cv2.remap(image - reference, places, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return apart.sum(axis=1)


def outline(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points (P, 2) x, y, outward normals (P, 2)) of the outline of a mask (h, w) in 0..1."""
    is_person = (mask > 0.5).astype(np.uint8)
    rows, columns = np.nonzero(is_person - cv2.erode(is_person, np.ones((3, 3), np.uint8)))
    smooth = cv2.GaussianBlur(mask, (0, 0), 1.5)
    slope = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)], axis=-1)
    normals = -slope[rows, columns]
    length = np.linalg.norm(normals, axis=1)
    is_clear = length > 1e-3
    points = np.stack([columns, rows], axis=1)[is_clear].astype(np.float32)
    return points, normals[is_clear] / length[is_clear, None]


def believed(mask: np.ndarray, other: np.ndarray, there_px: np.ndarray, back_px: np.ndarray) -> float:
    """Flicker between a mask and the next (h, w) with the flow there and back (h, w, 2); NaN where nothing is left."""
    points, normals = outline(mask)
    moved = moved_along(other, there_px)
    returned = there_px + moved_along(back_px, there_px)
    columns, rows = points.astype(int).T
    is_believed = np.linalg.norm(returned[rows, columns], axis=1) < RETURN_PX
    if not is_believed.any():
        return float("nan")
    return float(np.abs(displacement(moved, mask, points[is_believed], normals[is_believed])).mean())


def true(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray], there_px: np.ndarray) -> float:
    """Flicker between two masks (h, w) with their truths and the flow (h, w, 2) from the first to the second; NaN where
    nobody is."""
    (points, normals), (next_points, next_normals) = (outline(truth) for truth in truths)
    if not len(points) or not len(next_points):
        return float("nan")
    columns, rows = points.astype(int).T
    led = points + there_px[rows, columns]
    nearest = _nearest(next_points, led, truths[1].shape)
    is_there = np.linalg.norm(next_points[nearest] - led, axis=1) < SNAP_PX
    if not is_there.any():
        return float("nan")
    before = displacement(masks[0], truths[0], points, normals)
    after = displacement(masks[1], truths[1], next_points, next_normals)
    return float(np.abs(after[nearest] - before)[is_there].mean())


def _nearest(points: np.ndarray, places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(Q,) which of the points (P, 2) is nearest to each of the places (Q, 2)."""
    is_free = np.ones(shape, np.uint8)
    columns, rows = points.astype(int).T
    is_free[rows, columns] = 0
    _, labels = cv2.distanceTransformWithLabels(is_free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    number = np.zeros(labels.max() + 1, int)
    number[labels[rows, columns]] = np.arange(len(points))
    x, y = np.rint(places).astype(int).T
    return number[labels[y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)]]


def flickers(
    color: np.ndarray,
    next_color: np.ndarray,
    series: Sequence[tuple[np.ndarray, np.ndarray]],
    truths: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """(len(series), 3) raw, believed and true flicker of several masks' pairs (H, W) uint8 between two pictures
    (H, W, 3); without ``truths`` the last is NaN."""
    gray, next_gray = flow_gray(color, SIDE_PX), flow_gray(next_color, SIDE_PX)
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there_px = np.asarray(flow_of.calc(gray, next_gray, NO_FLOW), np.float32)
    back_px = np.asarray(flow_of.calc(next_gray, gray, NO_FLOW), np.float32)
    wh = gray.shape[::-1]

    def small(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask, wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255

    exact = None if truths is None else [small(truth) for truth in truths]
    rows = []
    for pair in series:
        own, other = small(pair[0]), small(pair[1])
        if not ((own > 0.5).any() and (other > 0.5).any()):
            rows.append((np.nan,) * 3)
            continue
        raw, sure = left_over(own, other, there_px), believed(own, other, there_px, back_px)
        rows.append((raw, sure, np.nan if exact is None else true((own, other), exact, there_px)))
    return np.array(rows)
