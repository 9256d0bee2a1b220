"""What each part of the body is compared with: the compiled searches behind the data terms (``terms``).

V vertices, P points, h x w grid cells, M and K outline points.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Cosines between normals.  Constants, not default arguments: numba takes its slow way in where one is left out.
SAME_SURFACE, SAME_EDGE = 0.4, 0.6


@njit(cache=True, nogil=True)
def _cell(x, y, z, fx, fy, cx, cy, surface_m):  # type: ignore[no-untyped-def]
    """Row and column of the cell that a point falls on; -1, -1 beside the grid."""
    height, width = surface_m.shape[:2]
    column, row = np.floor(x / z * fx + cx), np.floor(y / z * fy + cy)
    if not (0 <= row < height and 0 <= column < width):
        return -1, -1
    return int(row), int(column)


@njit(cache=True, nogil=True)
def same_surface(points_m, normals, visible, surface_m, surface_normals, fx, fy, cx, cy, gate_m):  # type: ignore[no-untyped-def]
    """The visible vertices whose cell holds a surface within the gate that faces the same way.

    points_m (P, 3), of which the first V are vertices, normals (V, 3), visible (V,); returns their numbers (R,) int32,
    the seen points (R, 3) and the seen normals (R, 3).
    """
    ids = np.empty(len(visible), np.int32)
    targets, directions = np.empty((len(visible), 3)), np.empty((len(visible), 3))
    count = 0
    for v in range(len(visible)):
        if not visible[v]:
            continue
        x, y, z = points_m[v]
        row, column = _cell(x, y, z, fx, fy, cx, cy, surface_m)
        if row < 0:
            continue
        q, n = surface_m[row, column], surface_normals[row, column]
        apart = np.sqrt((q[0] - x) ** 2 + (q[1] - y) ** 2 + (q[2] - z) ** 2)
        cosine = n[0] * normals[v, 0] + n[1] * normals[v, 1] + n[2] * normals[v, 2]
        if apart < gate_m and cosine > SAME_SURFACE:  # neither holds for NaN
            ids[count] = v
            for k in range(3):
                targets[count, k], directions[count, k] = q[k], n[k]
            count += 1
    return ids[:count], targets[:count], directions[:count]


@njit(cache=True, nogil=True)
def before_surface(points_m, visible, surface_m, surface_normals, fx, fy, cx, cy, gate_m):  # type: ignore[no-untyped-def]
    """The visible vertices that stand more than the gate before the surface seen in their cell.

    Returns their numbers (R,) int32, the seen points (R, 3) and the rays (R, 3) to the vertices, unit length.
    """
    ids = np.empty(len(visible), np.int32)
    targets, rays = np.empty((len(visible), 3)), np.empty((len(visible), 3))
    count = 0
    for v in range(len(visible)):
        if not visible[v]:
            continue
        x, y, z = points_m[v]
        row, column = _cell(x, y, z, fx, fy, cx, cy, surface_m)
        if row < 0:
            continue
        q = surface_m[row, column]
        # Beside an edge the matte and the depth disagree by a pixel, and the wall behind passes for the person.
        if q[2] - z > gate_m and np.isfinite(surface_normals[row, column, 2]):
            length = np.sqrt(x * x + y * y + z * z)
            ids[count] = v
            targets[count, 0], targets[count, 1], targets[count, 2] = q[0], q[1], q[2]
            rays[count, 0], rays[count, 1], rays[count, 2] = x / length, y / length, z / length
            count += 1
    return ids[:count], targets[:count], rays[:count]


@njit(cache=True, nogil=True)
def nearest_depth(surface_m, point_px, reach):  # type: ignore[no-untyped-def]
    """The least z of the surface within ``reach`` cells of a point (2,); NaN where nothing was seen."""
    height, width = surface_m.shape[:2]
    x, y = point_px
    if not (0 <= x < width and 0 <= y < height):
        return np.nan
    column, row = int(x), int(y)
    least = np.inf
    for i in range(max(row - reach, 0), min(row + reach + 1, height)):
        for j in range(max(column - reach, 0), min(column + reach + 1, width)):
            if surface_m[i, j, 2] < least:
                least = surface_m[i, j, 2]
    return least if least < np.inf else np.nan


@njit(cache=True, nogil=True)
def match(points, normals, others, other_normals, gate_px):  # type: ignore[no-untyped-def]
    """For points (M, 2) the nearest of others (K, 2) with an agreeing normal within the gate; -1 = none."""
    out = np.full(len(points), -1)
    if len(points) == 0 or len(others) == 0:
        return out
    # The others by row of the picture, so that only those are looked at that the gate can reach.
    first, last = int(np.floor(others[:, 1].min())), int(np.floor(others[:, 1].max()))
    begin = np.zeros(last - first + 2, np.int64)
    for k in range(len(others)):
        begin[int(np.floor(others[k, 1])) - first + 1] += 1
    begin = np.cumsum(begin)
    order, filled = np.empty(len(others), np.int64), begin.copy()
    for k in range(len(others)):
        row = int(np.floor(others[k, 1])) - first
        order[filled[row]] = k
        filled[row] += 1
    for i in range(len(points)):
        low = max(int(np.floor(points[i, 1] - gate_px)), first)
        high = min(int(np.floor(points[i, 1] + gate_px)), last)
        if low > high:
            continue
        best = gate_px * gate_px
        for at in range(begin[low - first], begin[high - first + 1]):
            k = order[at]
            dx, dy = others[k, 0] - points[i, 0], others[k, 1] - points[i, 1]
            d2 = dx * dx + dy * dy
            if d2 > best or (d2 == best and k >= out[i]):
                continue
            if normals[i, 0] * other_normals[k, 0] + normals[i, 1] * other_normals[k, 1] > SAME_EDGE:
                best = d2
                out[i] = k
    return out
