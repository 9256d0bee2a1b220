"""From a coarse probability to a soft edge: stage 02's second, per-picture half.

H x W pixels of a crop around the person.  Depth says where the person surely ends, closed-form matting (Levin et al.,
"A Closed-Form Solution to Natural Image Matting", PAMI 2008: ``closed_form``) draws the edge in a narrow band.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from capture.closed_form import guided, solved
from capture.segment import parts

CORE = 0.8  # the network is sure of the person
FAR_M, NEAR_M = 0.25, 0.10  # depth away from the body: surely not it, surely it
LINGER = 0.2  # alpha below is 0, above 1 - LINGER is 1
FLOOR_M = 0.03  # from the floor along the ray: about 1 cm above it
FLOOR_STEP = 2  # pixels: every other one of every other row is plenty for three unknowns
FINGERS, SOLE = 0.06, 0.02  # of the longer side: how far limbs may reach beyond the network; without a known floor
GUIDE_REACH_PX = 1  # pixels of alpha about a window's centre
GUIDE_GREY = 5.1  # grey levels: less within a window is no edge for alpha to follow
JUMP_M = 0.05  # between neighbouring pixels: two surfaces
FAR_REACH = 1.4  # how much further the far arm reaches, of somebody seen from the side
LEAST_PX = 50  # depth and network share fewer: neither says where the person stands


@dataclass(frozen=True)
class Evidence:
    """What is believed before the edge is drawn."""

    prior: np.ndarray  # (H, W) float32, alpha as far as network and depth know it
    is_certain: np.ndarray  # (H, W) bool, the edge does not pass here


def gated(
    probability: np.ndarray,
    depth_m: np.ndarray,
    gate_m: float,
    footprint_px: float,
    is_sure: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(prior (H, W), separation (H, W) in 0..1) of the network's probability and depth (H, W), NaN = unknown.

    Pixels whose depth differs from the nearest sure piece of the body are background; pixels at its depth are the body
    where depth tells the two apart (``separation`` says where it does; on the floor beside a foot it hardly does).
    ``footprint_px`` is how far depth edges may be off.  Depth does not overrule pixels that ``is_sure`` (H, W) says are
    the person: a hand far before or behind the trunk, a sole 2 cm above the floor.
    """
    body_m = nearest_body_depth(probability, depth_m, gate_m)
    if body_m is None:
        return probability, np.zeros_like(probability)
    apart_m = depth_m - body_m
    is_far, is_near = np.abs(apart_m) > FAR_M, np.abs(apart_m) < NEAR_M  # NaN is neither
    floor_m = floor_depth(depth_m, probability)
    if floor_m is not None:
        is_floor = np.abs(depth_m - floor_m) < FLOOR_M
        is_far, is_near = is_far | is_floor, is_near & ~is_floor
    reach = max(1, round(footprint_px))
    surely_far = cv2.erode(is_far.astype(np.uint8), disc(reach)) > 0
    if is_sure is not None:
        surely_far &= ~is_sure
    window = 2 * max(3, round(0.025 * max(probability.shape)) + reach) + 1
    separation = (12 * cv2.blur(is_far.astype(np.float32), (window, window))).clip(0, 1)
    limb = _limbs(probability, is_near, FINGERS if floor_m is not None else SOLE)
    lifted = np.maximum(probability, np.where(limb, separation, 0))
    return np.where(surely_far, 0, lifted).astype(np.float32), separation


def _limbs(probability: np.ndarray, is_near: np.ndarray, reach: float) -> np.ndarray:
    """(H, W) what is connected to the person at the body's depth, up to ``reach`` (of the longer side) beyond what the
    network saw: it overlooks fingers and soles."""
    is_person = (probability > 0.5).astype(np.uint8)
    distance_px = cv2.distanceTransform(1 - is_person, cv2.DIST_L2, 5)
    candidates = (is_near & (distance_px < max(2.0, reach * max(probability.shape)))).astype(np.uint8)
    count, labels = cv2.connectedComponents(candidates, connectivity=4)
    touches = np.zeros(count, bool)
    touches[np.unique(labels[(is_person > 0) & (candidates > 0)])] = True
    touches[0] = False
    return touches[labels]


def floor_depth(depth_m: np.ndarray, probability: np.ndarray) -> np.ndarray | None:
    """(H, W) depth of the floor the person stands on, NaN above its horizon; None where no floor is seen.

    A plane is linear in inverse depth over pixels: 1/z = a u + b v + c.  Found by RANSAC in the lower part of the crop,
    with a fixed seed: the same picture gives the same floor.
    """
    height, width = depth_m.shape
    top = int(0.6 * height) + 1
    sparse = np.s_[top::FLOOR_STEP, ::FLOOR_STEP]
    rows, columns = np.nonzero(np.isfinite(depth_m[sparse]) & (probability[sparse] < 0.1))
    rows, columns = top + FLOOR_STEP * rows, FLOOR_STEP * columns
    least = max(100, 0.02 * depth_m.size) / FLOOR_STEP**2
    if len(rows) < least:
        return None
    points = np.stack([columns / height, rows / height, np.ones(len(rows))], axis=1)  # (K, 3)
    depths = depth_m[rows, columns].astype(np.float64)
    rng = np.random.default_rng(0)
    some = rng.choice(len(rows), min(1000, len(rows)), replace=False)
    picked = rng.integers(0, len(rows), (200, 3))
    triples, inverse = points[picked], 1 / depths[picked]  # (200, 3, 3), (200, 3)
    is_solid = np.abs(np.linalg.det(triples)) > 1e-4
    if not is_solid.any():
        return None
    planes = np.linalg.solve(triples[is_solid], inverse[is_solid][..., None])[..., 0]  # (K, 3) a, b, c
    planes = planes[(planes[:, 1] > 0.3 * np.median(1 / depths)) & (np.abs(planes[:, 0]) < 0.5 * planes[:, 1])]
    if not len(planes):
        return None
    nearby = points[some].astype(np.float32) @ planes.T.astype(np.float32)  # (1000, K) inverse metres
    # |1/q - z| < FLOOR_M without the division
    is_on = np.abs(1 - depths[some, None].astype(np.float32) * nearby) < np.float32(FLOOR_M) * np.abs(nearby)
    best = planes[is_on.sum(axis=0).argmax()]
    with np.errstate(divide="ignore"):
        inliers = np.abs(1 / (points @ best) - depths) < FLOOR_M
    if inliers.sum() < least:
        return None
    on, inverse = points[inliers], 1 / depths[inliers]
    best = np.linalg.solve(on.T @ on, on.T @ inverse)  # least squares over thousands of rows: the normal equations do
    u, v = np.arange(width)[None] / height, np.arange(height)[:, None] / height
    inverse_m = best[0] * u + best[1] * v + best[2]
    return np.where(inverse_m > 0.1, 1 / np.maximum(inverse_m, 0.1), np.nan).astype(np.float32)


def nearest_body_depth(probability: np.ndarray, depth_m: np.ndarray, gate_m: float) -> np.ndarray | None:
    """(H, W) depth of the sure piece of body nearest to each pixel; None where depth and network share too little."""
    is_sure = cv2.erode(probability, disc(1)) > CORE
    trunk_m = median_depth(is_sure, depth_m)
    if not np.isfinite(trunk_m):
        return None
    core = is_sure & (np.abs(depth_m - trunk_m) < gate_m)  # NaN is not
    core &= ~_wall(core, depth_m, trunk_m, probability)
    if core.sum() < LEAST_PX:
        return None
    return nearest_value(core, cv2.medianBlur(np.where(core, depth_m, trunk_m).astype(np.float32), 5))


def median_depth(is_wanted: np.ndarray, depth_m: np.ndarray) -> float:
    """Median of depth (H, W), metres, where ``is_wanted`` (H, W) and known; NaN where that is too little."""
    known_m = depth_m[is_wanted & np.isfinite(depth_m)]
    return float(np.median(known_m)) if len(known_m) >= LEAST_PX else float("nan")


def nearest_value(is_known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(H, W) of each pixel the value of the known pixel nearest to it."""
    unknown = (~is_known).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    value_of = np.zeros(labels.max() + 1, np.float32)
    value_of[labels[is_known]] = values[is_known]
    return value_of[labels]


def _wall(core: np.ndarray, depth_m: np.ndarray, trunk_m: float, probability: np.ndarray) -> np.ndarray:
    """(H, W) patches of the core behind the trunk at the depth of the background beside them: the wall seen between arm
    and trunk.  A leg or hand held back stands before its background and is none."""
    background = (probability < 0.05) & np.isfinite(depth_m)
    if not background.any():
        return np.zeros_like(core)
    behind_m: np.ndarray | None = None  # most crops have no patch far enough behind to ask it for
    smooth = (core & (range_around(np.where(core, depth_m, np.nan)) < JUMP_M)).astype(np.uint8)
    labels, areas = parts(smooth, 4)
    is_wall = np.zeros(len(areas), bool)
    for label in range(1, len(areas)):
        if 20 <= areas[label] < 0.5 * core.sum():
            is_this = labels == label
            patch_m = float(np.median(depth_m[is_this]))
            if patch_m > trunk_m + FAR_M:
                behind_m = nearest_value(background, np.nan_to_num(depth_m)) if behind_m is None else behind_m
                is_wall[label] = abs(patch_m - float(np.median(behind_m[is_this]))) < NEAR_M
    return is_wall[labels]


def range_around(depth_m: np.ndarray) -> np.ndarray:
    """(H, W) largest difference within 3 x 3, missing pixels left out."""
    is_missing = np.isnan(depth_m)
    high = cv2.dilate(np.where(is_missing, -1e3, depth_m).astype(np.float32), np.ones((3, 3), np.uint8))
    low = cv2.erode(np.where(is_missing, 1e3, depth_m).astype(np.float32), np.ones((3, 3), np.uint8))
    return high - low


def evidence(prior: np.ndarray, firm: np.ndarray, band_px: float, is_read: np.ndarray) -> Evidence:
    """Where the edge may pass: a band around the prior's own edge, narrower where depth or the room fix it (``firm``,
    0 to 1); where ``is_read`` the prior is an alpha already."""
    is_person = (prior > 0.5).astype(np.uint8)
    inside_px = cv2.distanceTransform(is_person, cv2.DIST_L2, 5)
    outside_px = cv2.distanceTransform(1 - is_person, cv2.DIST_L2, 5)
    width_px = band_px * (1 - 0.5 * firm)
    in_band = (np.maximum(inside_px, outside_px) <= width_px) | (
        (prior > 0.1) & (prior < 0.9) & (outside_px < 2 * band_px)
    )
    sharpened = ((prior - 0.25) / 0.5).clip(0, 1)  # the network's rim is softer than any edge in a picture
    rim = np.where(is_read, prior, sharpened)
    certain = np.where(in_band, rim, (prior > 0.5).astype(np.float32))
    return Evidence(certain.astype(np.float32), ~in_band)


def matted(color: np.ndarray, known: Evidence, trust: np.ndarray, epsilon: float) -> np.ndarray:
    """Closed-form alpha (H, W) of an RGB crop (H, W, 3) uint8, solved for the uncertain pixels only.

    Minimises alpha' L alpha + trust (H, W) |alpha - prior|^2 with alpha fixed where it is certain.
    """
    is_free = ~known.is_certain
    alpha = known.prior.copy()
    # Where colours say little, alpha lingers near 0 and 1; stretching it measured better (benchmarks/mattes.py).
    solution = solved(color, known.prior, is_free, trust, epsilon)
    alpha[is_free] = ((solution - LINGER) / (1 - 2 * LINGER)).clip(0, 1)
    return alpha


def enlarged(alpha: np.ndarray, guide: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Alpha (h, w) to the size of its picture (H, W, 3) uint8, of which ``guide`` (h, w, 3) is the reduction: a guided
    filter (He et al., PAMI 2013) follows the picture's own edges inside the soft rim."""
    height, width = color.shape[:2]
    if alpha.shape == (height, width):
        return alpha
    smooth = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)
    rim = cv2.dilate(((smooth > 0.02) & (smooth < 0.98)).astype(np.uint8), disc(1))
    wanted = np.flatnonzero(rim)
    smooth.ravel()[wanted] = guided(guide, alpha, color, wanted, GUIDE_REACH_PX, GUIDE_GREY**2).clip(0, 1)
    return smooth


def cleaned(alpha: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Drop specks of alpha (H, W) and close pinholes that the prior takes for the person; gaps between arm and trunk
    stay."""
    is_person = (alpha > 0.5).astype(np.uint8)
    area = int(is_person.sum())
    result = alpha.copy()
    for value, is_part in ((0.0, is_person), (1.0, 1 - is_person)):
        labels, areas = parts(is_part, 8 if value == 0 else 4)
        for label in 1 + np.flatnonzero(areas[1:] <= 0.002 * area):
            is_this = labels == label
            if value == 0.0 or prior[is_this].mean() > 0.5:
                result[is_this] = value
    return result


def disc(radius_px: int) -> np.ndarray:
    """A round structuring element."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1,) * 2)
