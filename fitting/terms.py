"""The data terms of the body fit, one pure function each.

P points (vertices, then landmarks), R residual rows, M outline points.

Every data term looks at single points, so each is a set of ``Rows``: r = weight * direction . (value(p) - target), with
value(p) the point itself (metres) or its projection (grid pixels).  Robust rows use the Geman-McClure kernel
rho(r) = c^2 r^2 / (c^2 + r^2), minimised by iteratively reweighted least squares; c is annealed by the caller, because
a tight kernel from the start locks limbs in wrong basins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fitting.association import before_surface, match, nearest_depth, same_surface
from fitting.observe import Observation, Outline

DEPTH_SIGMA_M = 0.012  # sensor noise and cloth folds
FREE_SPACE_SIGMA_M = 0.05
OUTLINE_SIGMA = 0.006  # of the person's height in pixels
MIN_CONFIDENCE = 0.2
LANDMARK_SIGMA = 0.009  # of the standing person's height in pixels: MediaPipe's scatter on a standing person
OUT_OF_VIEW_SIGMA = 0.03  # of the same: beyond the edge the detector guesses
# How deep inside the body a landmark lies: shoulders, elbows, wrists, hands, hips, knees, ankles and feet.
DEPTH_INSIDE_M = np.array(
    [0.0] * 11 + [0.07] * 2 + [0.04] * 2 + [0.025] * 2 + [0.015] * 6 + [0.10] * 2 + [0.06] * 2 + [0.04] * 6
)
HIDDEN_BEHIND_M = 0.12  # a limb's thickness and a gap
REACH = 2  # grid cells
# Cloth hangs before the body, never behind it.  A body before the seen surface contradicts the sensor, and only a wrong
# pairing excuses it: a wide kernel.  A body behind it may be dressed: beyond folds and noise the surface loses its say.
# Kernel widths in metres, of the gate and at least; of the outline's, which shows the same cloth from the side.
OUTSIDE_OF_GATE, MIN_OUTSIDE_M = 0.6, 0.06
INSIDE_OF_GATE, MIN_INSIDE_M = 0.25, 0.02  # narrower ones lose an arm that starts a hand's breadth too deep
INSIDE_OF_OUTLINE = 0.5
EVEN_OF_GATE, MIN_EVEN_M = 0.35, 0.03  # the same on both sides: for a size not known yet, and for cloth itself
# Rows of one kind are correlated; each kind counts as this many independent measurements.
DEPTH_COUNT, OUTLINE_COUNT = 160.0, 90.0


@dataclass(frozen=True)
class Rows:
    """R residual rows that each look at one point."""

    point: np.ndarray  # (R,) int32
    is_pixel: np.ndarray  # (R,) bool
    direction: np.ndarray  # (R, 3); a pixel direction has z = 0
    target: np.ndarray  # (R, 3) metres, or grid pixels with z = 0
    weight: np.ndarray  # (R,) one over sigma
    scale: np.ndarray  # (R,) Geman-McClure c in units of the weighted residual, inf = quadratic

    @staticmethod
    def concatenate(parts: list[Rows]) -> Rows:
        return Rows(*(np.concatenate([getattr(p, n) for p in parts]) for n in Rows.__dataclass_fields__))


def landmark_rows(observation: Observation, num_vertices: int, scale: float) -> Rows:
    """Reprojection of the 33 landmarks: r = confidence * (pi(l) - l_seen) / sigma, two rows each."""
    sigma_px = LANDMARK_SIGMA * observation.standing_px
    confidence = observation.confidence
    return Rows(*_landmark_rows(confidence, observation.landmarks_px, num_vertices, sigma_px, float(scale)))


@njit(cache=True, nogil=True)
def _landmark_rows(confidence, landmarks_px, num_vertices, sigma_px, scale):  # type: ignore[no-untyped-def]
    rows = _empty_rows(2 * len(confidence), True, scale)
    point, _, direction, target, weight, _ = rows
    count = 0
    for k in range(len(confidence)):
        if not (confidence[k] > MIN_CONFIDENCE and np.isfinite(landmarks_px[k, 0])):
            continue
        # Eyes, ears, mouth: eleven points that say one thing; the hands' three points follow the wrist.
        share = 0.45 if k < 11 else 0.5 if 17 <= k < 23 else 1.0
        for axis in range(2):
            point[count] = num_vertices + k
            direction[count, axis] = 1.0
            for other in range(2):
                target[count, other] = landmarks_px[k, other]
            weight[count] = share * confidence[k] ** 2 / sigma_px
            count += 1
    return _first(rows, count)


def out_of_view_rows(observation: Observation, points_m: np.ndarray, num_vertices: int, scale: float) -> Rows:
    """Landmarks at or beyond an edge of the picture: r = max(0, outward . (edge - pi(l))) / sigma, of trunk and limbs.

    Where they are nobody sees, but in the picture they would be seen: a hand out of view must not fill a sleeve.
    """
    sigma_px = OUT_OF_VIEW_SIGMA * observation.standing_px
    return Rows(
        *_out_of_view_rows(
            observation.outward, observation.edge_px, points_m, num_vertices, *_intrinsics(observation), sigma_px,
            float(scale),
        )
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _out_of_view_rows(outward, edge_px, points_m, num_vertices, fx, fy, cx, cy, sigma_px, scale):  # type: ignore[no-untyped-def]
    rows = _empty_rows(2 * len(outward), True, scale)
    point, _, direction, target, weight, _ = rows
    count = 0
    for k in range(11, len(outward)):
        x, y, z = points_m[num_vertices + k]
        now_px = np.array([x / max(z, 0.05) * fx + cx, y / max(z, 0.05) * fy + cy])
        for axis in range(2):
            if outward[k, axis] * (edge_px[k, axis] - now_px[axis]) > 0:
                point[count] = num_vertices + k
                direction[count, axis] = 1.0
                for other in range(2):
                    target[count, other] = edge_px[k, other]
                weight[count] = 1.0 / sigma_px
                count += 1
    return _first(rows, count)


def world_rows(observation: Observation, points_m: np.ndarray, num_vertices: int, sigma_m: float) -> Rows:
    """The detector's metric skeleton about its own mid-hip: r = ((l - hip) - s (l_seen - hip_seen)) / sigma.

    The model's mid-hip is taken from the current points, and s makes both trunks equally long: this term knows which
    limb is in front, nothing about place and size.
    """
    return Rows(*_world_rows(observation.confidence, observation.world_m, points_m, num_vertices, sigma_m))


@njit(cache=True, nogil=True)
def _world_rows(confidence, world_m, points_m, num_vertices, sigma_m):  # type: ignore[no-untyped-def]
    rows = _empty_rows(3 * len(confidence), False, 2.0)
    point, _, direction, target, weight, _ = rows
    landmarks = points_m[num_vertices:]
    centre, seen_centre = (landmarks[23] + landmarks[24]) / 2, (world_m[23] + world_m[24]) / 2
    trunk = np.sqrt((((landmarks[11] + landmarks[12]) / 2 - centre) ** 2).sum())
    seen_trunk = np.sqrt((((world_m[11] + world_m[12]) / 2 - seen_centre) ** 2).sum())
    count = 0
    if not np.isfinite(seen_trunk) or seen_trunk < 0.05:
        return _first(rows, count)
    for k in range(11, len(confidence)):  # the face says nothing about limbs
        if not (confidence[k] > MIN_CONFIDENCE and np.isfinite(world_m[k, 0])):
            continue
        for axis in range(3):
            point[count] = num_vertices + k
            direction[count, axis] = 1.0
            for other in range(3):
                target[count, other] = centre[other] + (world_m[k, other] - seen_centre[other]) * (trunk / seen_trunk)
            weight[count] = confidence[k] / sigma_m
            count += 1
    return _first(rows, count)


@njit(cache=True, nogil=True)
def _empty_rows(count, is_pixel, scale):  # type: ignore[no-untyped-def]
    """The fields of ``Rows``, room for ``count`` of them."""
    return (
        np.empty(count, np.int32), np.full(count, is_pixel), np.zeros((count, 3)), np.zeros((count, 3)),
        np.empty(count), np.full(count, scale),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _first(rows, count):  # type: ignore[no-untyped-def]
    return rows[0][:count], rows[1][:count], rows[2][:count], rows[3][:count], rows[4][:count], rows[5][:count]


def depth_rows(
    observation: Observation,
    points_m: np.ndarray,
    normals: np.ndarray,
    visible: np.ndarray,
    gate_m: float,
    looseness_m: np.ndarray,
    stands_off: bool,
) -> Rows:
    """Point to plane on projectively associated points: r = n . (v - q) / sigma for the visible vertices.

    sigma^2 = sensor^2 + looseness^2: a skirt says little about the leg under it.  ``stands_off``: what was seen may be
    cloth that hangs before the body, r < 0 soon counts for nothing; else both signs count alike.
    """
    assert observation.surface_m is not None and observation.surface_normals is not None
    ids, q, n = same_surface(
        points_m,
        normals,
        visible,
        observation.surface_m,
        observation.surface_normals,
        *_intrinsics(observation),
        gate_m,
    )
    weight = np.sqrt(DEPTH_COUNT / max(len(ids), DEPTH_COUNT)) / np.hypot(DEPTH_SIGMA_M, looseness_m[ids])
    # Far misses are another surface or loose cloth; the kernel narrows with the gate.
    if stands_off:
        is_inside = ((points_m[ids] - q) * n).sum(1) < 0
        inside_m, outside_m = max(INSIDE_OF_GATE * gate_m, MIN_INSIDE_M), max(OUTSIDE_OF_GATE * gate_m, MIN_OUTSIDE_M)
        scale = np.where(is_inside, inside_m, outside_m) * weight
    else:
        scale = max(EVEN_OF_GATE * gate_m, MIN_EVEN_M) * weight
    return Rows(ids, np.zeros(len(ids), bool), n, q, weight, scale)


def free_space_rows(observation: Observation, points_m: np.ndarray, visible: np.ndarray, gate_m: float) -> Rows:
    """The sensor saw past this vertex: r = ray . (v - q) / sigma for vertices more than the gate before the surface."""
    assert observation.surface_m is not None and observation.surface_normals is not None
    ids, q, rays = before_surface(
        points_m, visible, observation.surface_m, observation.surface_normals, *_intrinsics(observation), gate_m
    )
    weight = np.full(len(ids), np.sqrt(DEPTH_COUNT / max(len(ids), DEPTH_COUNT)) / FREE_SPACE_SIGMA_M)
    return Rows(ids, np.zeros(len(ids), bool), rays, q, weight, 0.5 * weight)


def landmark_depth_rows(
    observation: Observation, points_m: np.ndarray, num_vertices: int, scale_m: float, sigma_m: float
) -> Rows:
    """How far away the landmarks are: r = (z(l) - z_seen - depth_inside) / sigma for those of trunk and limbs.

    A landmark in plain view lies a little behind the surface seen at its pixel.  One that the detector calls hidden
    lies at least ``HIDDEN_BEHIND_M`` behind the surface seen where the model has it now, else it gets no row.
    The nearest surface within ``REACH`` cells counts: beside a wrist there is the trunk, before it there is nothing.
    """
    assert observation.surface_m is not None
    return Rows(
        *_landmark_depth_rows(
            observation.confidence, observation.visibility, observation.landmarks_px, points_m, num_vertices,
            observation.surface_m, *_intrinsics(observation), float(scale_m), float(sigma_m),
        )
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _landmark_depth_rows(  # type: ignore[no-untyped-def]
    confidence, visibility, landmarks_px, points_m, num_vertices, surface_m, fx, fy, cx, cy, scale_m, sigma_m
):
    rows = _empty_rows(2 * len(confidence), False, 0.0)
    point, _, direction, target, weight, scale = rows
    count = 0
    for k in range(11, len(confidence)):
        if not np.isfinite(landmarks_px[k, 0]):
            continue
        x, y, z = points_m[num_vertices + k]
        now_px = np.array([x / max(z, 0.05) * fx + cx, y / max(z, 0.05) * fy + cy])
        z_seen = nearest_depth(surface_m, landmarks_px[k], REACH) + DEPTH_INSIDE_M[k]
        z_hidden = nearest_depth(surface_m, now_px, REACH) + HIDDEN_BEHIND_M
        in_view = confidence[k] > 0.5 and np.isfinite(z_seen)
        too_near = visibility[k] < 0.3 and z_hidden > z
        for holds, z_wanted in ((in_view, z_seen), (too_near, z_hidden)):
            if holds:
                point[count] = num_vertices + k
                direction[count, 2] = 1.0
                target[count, 2] = z_wanted
                weight[count] = (confidence[k] if confidence[k] > 0.5 else 0.7) / sigma_m
                scale[count] = scale_m * weight[count]
                count += 1
    return _first(rows, count)


def _intrinsics(observation: Observation) -> tuple[float, float, float, float]:
    camera = observation.camera
    return camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px


def outline_rows(
    observation: Observation,
    model: Outline,
    model_vertex: np.ndarray,
    points_m: np.ndarray,
    gate: float,
    looseness_m: np.ndarray,
    stands_off: bool,
) -> Rows:
    """Outline against outline along the seen normal: r = n . (pi(v) - c) / sigma, matched in both directions.

    ``stands_off`` as in ``depth_rows``: the body's outline may lie inside the cloth's.

    ``model`` is the outline of the rendered body, ``model_vertex`` (M,) the vertex that each of its points stands for.
    """
    seen = observation.outline
    gate_px = gate * observation.height_px
    of_seen = match(seen.points_px, seen.normals, model.points_px, model.normals, gate_px)
    of_model = match(model.points_px, model.normals, seen.points_px, seen.normals, gate_px)
    cells = model.cells
    usable = observation.inside[cells[:, 0], cells[:, 1]] if len(cells) else np.zeros(0, bool)
    first, second = np.flatnonzero(of_seen >= 0), np.flatnonzero((of_model >= 0) & usable)
    on_model = np.concatenate([of_seen[first], second]).astype(int)
    on_seen = np.concatenate([first, of_model[second]]).astype(int)
    vertex = model_vertex[on_model]
    normal = seen.normals[on_seen]
    # The vertex is not on the outline exactly: keep the gap between the outline point and the vertex.
    camera = observation.camera
    v = points_m[vertex]
    projected = v[:, :2] / v[:, 2:] * (camera.fx_px, camera.fy_px) + (camera.cx_px, camera.cy_px)
    target = seen.points_px[on_seen] + projected - model.points_px[on_model]
    weight = 1.0 / np.hypot(OUTLINE_SIGMA * observation.height_px, looseness_m[vertex] * camera.fx_px / v[:, 2])
    weight *= np.sqrt(OUTLINE_COUNT / max(len(vertex), OUTLINE_COUNT))
    kernel_px = np.full(len(vertex), max(gate_px * 0.4, 2.0))
    if stands_off:
        kernel_px[((projected - target) * normal).sum(1) < 0] *= INSIDE_OF_OUTLINE
    zero = np.zeros((len(vertex), 1))
    return Rows(
        vertex.astype(np.int32),
        np.ones(len(vertex), bool),
        np.concatenate([normal, zero], 1),
        np.concatenate([target, zero], 1),
        weight,
        kernel_px * weight,
    )


def residuals(rows: Rows, points_m: np.ndarray, observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (R,) and their gradients by the point (R, 3)."""
    return _residuals(
        points_m, rows.point, rows.is_pixel, rows.direction, rows.target, rows.weight, *_intrinsics(observation)
    )


def robust_energy(r: np.ndarray, scale: np.ndarray) -> tuple[float, np.ndarray]:
    """Geman-McClure energy and IRLS weights (R,)."""
    return _robust_energy(r, scale)


@njit(cache=True, nogil=True)
def _robust_energy(r, scale):  # type: ignore[no-untyped-def]
    energy, irls = 0.0, np.empty(len(r))
    for i in range(len(r)):
        factor = 1.0 / (1.0 + (r[i] / scale[i]) ** 2) if scale[i] < np.inf else 1.0
        energy += r[i] * r[i] * factor
        irls[i] = factor * factor
    return energy, irls


@njit(cache=True, nogil=True)
def _residuals(points_m, point, is_pixel, direction, target, weight, fx, fy, cx, cy):  # type: ignore[no-untyped-def]
    count = len(point)
    r = np.empty(count)
    gradient = np.zeros((count, 3))
    for i in range(count):
        dx, dy, dz = direction[i, 0], direction[i, 1], direction[i, 2]
        x, y, z = points_m[point[i], 0], points_m[point[i], 1], max(points_m[point[i], 2], 0.05)
        if is_pixel[i]:
            u, v = fx * x / z + cx, fy * y / z + cy
            r[i] = weight[i] * (dx * (u - target[i, 0]) + dy * (v - target[i, 1]))
            gradient[i, 0] = weight[i] * dx * fx / z
            gradient[i, 1] = weight[i] * dy * fy / z
            gradient[i, 2] = -weight[i] * (dx * fx * x + dy * fy * y) / (z * z)
        else:
            r[i] = weight[i] * (dx * (x - target[i, 0]) + dy * (y - target[i, 1]) + dz * (z - target[i, 2]))
            gradient[i, 0], gradient[i, 1], gradient[i, 2] = weight[i] * dx, weight[i] * dy, weight[i] * dz
    return r, gradient
