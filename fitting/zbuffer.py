"""Triangles to pixels: the z-buffer that the fit, the keyframes and the renderer share.

V vertices, F faces, H x W pixels, a box of h x w pixels.  Enter: projected vertices and their depths.  Leave: which
face each pixel centre sees, where on that face, and how deep.

Spans are computed analytically, one row at a time: an edge is always walked from its upper to its lower end, so both
faces that share it compute the same crossing to the last bit, and a pixel centre x belongs to the half-open span
left <= x < right.  Shared edges therefore have neither holes nor pixels drawn twice (the top-left rule).
1/z, and barycentric/z, are linear in the image, which makes the interpolation perspective-correct
(Heckbert and Moreton, "Interpolation for polygon texture mapping and shading", 1991).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

NEAR_M = 0.05  # a face that comes closer to the camera is dropped whole, not clipped
MIN_AREA_PX2 = 1e-9  # thinner faces cannot be interpolated in float64; the chance that one holds a pixel centre is nil

Box = tuple[int, int, int, int]  # left, top, right, bottom; whole pixels, right and bottom excluded


def rasterize_faces(
    points_px: np.ndarray,
    depth_m: np.ndarray,
    faces: np.ndarray,
    image_wh: tuple[int, int],
    box_px: Box | None = None,
    cull_backfaces: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest face at every pixel centre.

    points_px (V, 2) and depth_m (V,): projected vertices; faces (F, 3) int, wound counter-clockwise seen from
    outside.  ``box_px`` limits the work; pixels outside it stay empty.  Faces with a corner nearer than NEAR_M, or
    with a NaN corner, are dropped; of two faces at equal depth the lower index wins.

    Returns face_index (H, W) int32, -1 = none; barycentric (H, W, 2) float32, perspective-correct weights of the
    face's first and second corner (third = 1 - both; NaN = none); z_m (H, W) float32, inf = none.
    """
    width, height = image_wh
    left, top, right, bottom = clip_box(box_px or (0, 0, width, height), image_wh)
    faces = np.ascontiguousarray(faces, np.int32)
    setups, rows = face_setups(*_as_float64(points_px, depth_m), faces, (left, top, right, bottom), cull_backfaces)
    face_index = np.full((height, width), -1, np.int32)
    barycentric = np.full((height, width, 2), np.nan, np.float32)
    z_m = np.full((height, width), np.inf, np.float32)
    if right > left and bottom > top:
        inverse_z = np.zeros((bottom - top, right - left), np.float32)
        local = np.full((bottom - top, right - left), -1, np.int32)
        draw(setups, rows, left, top, local, inverse_z)
        _resolve(setups, local, left, top, face_index, barycentric, z_m)
    return face_index, barycentric, z_m


def visible_box(points_px: np.ndarray, depth_m: np.ndarray, image_wh: tuple[int, int]) -> Box:
    """The smallest box that holds every pixel centre the vertices can reach, inside the image; maybe empty."""
    low_x, low_y, high_x, high_y = _extent(*_as_float64(points_px, depth_m))
    if not low_x <= high_x:
        return 0, 0, 0, 0
    low = np.clip(np.floor([low_x, low_y]), -1e6, 1e6)
    high = np.clip(np.ceil([high_x, high_y]), -1e6, 1e6)
    return clip_box((int(low[0]), int(low[1]), int(high[0]), int(high[1])), image_wh)


def clip_box(box_px: Box, image_wh: tuple[int, int]) -> Box:
    """The part of a box inside the image; empty boxes become (0, 0, 0, 0)."""
    left, top = max(box_px[0], 0), max(box_px[1], 0)
    right, bottom = min(box_px[2], image_wh[0]), min(box_px[3], image_wh[1])
    return (left, top, right, bottom) if right > left and bottom > top else (0, 0, 0, 0)


@njit(cache=True, nogil=True)
def _extent(points_px, depth_m):
    low_x, low_y, high_x, high_y = math.inf, math.inf, -math.inf, -math.inf
    for v in range(len(depth_m)):
        x, y = points_px[v, 0], points_px[v, 1]
        if depth_m[v] > NEAR_M and math.isfinite(x) and math.isfinite(y):
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
    return low_x, low_y, high_x, high_y


def _as_float64(points_px: np.ndarray, depth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(points_px, np.float64), np.ascontiguousarray(depth_m, np.float64)


# One face's numbers, float64.  X, Y: corners sorted downwards.  Planes hold value at (0, 0), slope in x, slope in y
# relative to the top corner: 1/z, and (first, second) barycentric / z.
_X, _Y = 0, 3
_INVERSE_Z, _FIRST, _SECOND = 6, 9, 12
_MIDDLE_IS_LEFT = 15
_SETUP = 16


@njit(cache=True, nogil=True)
def face_setups(points_px, depth_m, faces, box_px, cull_backfaces):
    """Per face: its numbers (F, 16) and the rows (F, 2) it spans inside the box; no rows for dropped faces."""
    setups = np.empty((len(faces), _SETUP))
    rows = np.zeros((len(faces), 2), np.int32)
    for f in range(len(faces)):
        rows[f, 0], rows[f, 1] = face_setup(points_px, depth_m, faces[f], box_px, cull_backfaces, setups[f])
    return setups, rows


@njit(cache=True, nogil=True)
def draw_faces(points_px, depth_m, faces, cull_backfaces, face_index, inverse_z):
    """``face_setups`` and ``draw`` on a whole image in one go, for those who do not need the numbers again."""
    height, width = face_index.shape
    setup = np.empty(_SETUP)
    for f in range(len(faces)):
        first_row, end_row = face_setup(points_px, depth_m, faces[f], (0, 0, width, height), cull_backfaces, setup)
        if first_row < end_row:
            draw_face(f, setup, first_row, end_row, 0, 0, face_index, inverse_z)


@njit(cache=True, nogil=True)
def face_setup(points_px, depth_m, face, box_px, cull_backfaces, setup):
    """Fill one face's numbers (16,) and return its rows inside the box, first and end; (0, 0) for a dropped face."""
    left, top, right, bottom = box_px
    a, b, c = face[0], face[1], face[2]
    za, zb, zc = depth_m[a], depth_m[b], depth_m[c]
    if not (za > NEAR_M and zb > NEAR_M and zc > NEAR_M and math.isfinite(za + zb + zc)):
        return 0, 0
    x = points_px[a, 0], points_px[b, 0], points_px[c, 0]
    y = points_px[a, 1], points_px[b, 1], points_px[c, 1]
    for k in range(3):
        if not (math.isfinite(x[k]) and math.isfinite(y[k])):
            return 0, 0
    if max(x[0], x[1], x[2]) <= left or min(x[0], x[1], x[2]) >= right:
        return 0, 0
    low, high = min(y[0], y[1], y[2]), max(y[0], y[1], y[2])
    if high <= top or low >= bottom:
        return 0, 0
    first_row = math.ceil(max(low - 0.5, float(top)))
    end_row = math.ceil(min(high - 0.5, float(bottom)))
    if first_row >= end_row:
        return 0, 0
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    # y points down: the area of front faces is negative.
    if not MIN_AREA_PX2 < abs(area) < math.inf or (cull_backfaces and area > 0):
        return 0, 0
    _fill_setup(x, y, (1.0 / za, 1.0 / zb, 1.0 / zc), area, setup)
    return first_row, end_row


@njit(cache=True, nogil=True)
def _fill_setup(x, y, iz, area, setup):
    # Corners a, b, c downwards; ties by x so that both faces of an edge agree on its direction.
    a, b, c = 0, 1, 2
    if y[b] < y[a] or (y[b] == y[a] and x[b] < x[a]):
        a, b = b, a
    if y[c] < y[b] or (y[c] == y[b] and x[c] < x[b]):
        b, c = c, b
    if y[b] < y[a] or (y[b] == y[a] and x[b] < x[a]):
        a, b = b, a
    setup[_X], setup[_X + 1], setup[_X + 2] = x[a], x[b], x[c]
    setup[_Y], setup[_Y + 1], setup[_Y + 2] = y[a], y[b], y[c]
    # Is the middle corner left of the long edge a-c?  Its winding with a and c says so.
    setup[_MIDDLE_IS_LEFT] = 1.0 if (x[c] - x[a]) * (y[b] - y[a]) - (x[b] - x[a]) * (y[c] - y[a]) > 0 else 0.0
    # Barycentric slopes of the first and second corner in the image, each scaled by that corner's 1/z.
    first_x, first_y = (y[1] - y[2]) / area * iz[0], (x[2] - x[1]) / area * iz[0]
    second_x, second_y = (y[2] - y[0]) / area * iz[1], (x[0] - x[2]) / area * iz[1]
    third_x, third_y = (y[0] - y[1]) / area * iz[2], (x[1] - x[0]) / area * iz[2]
    setup[_INVERSE_Z] = iz[a]
    setup[_INVERSE_Z + 1], setup[_INVERSE_Z + 2] = first_x + second_x + third_x, first_y + second_y + third_y
    setup[_FIRST] = iz[0] if a == 0 else 0.0
    setup[_FIRST + 1], setup[_FIRST + 2] = first_x, first_y
    setup[_SECOND] = iz[1] if a == 1 else 0.0
    setup[_SECOND + 1], setup[_SECOND + 2] = second_x, second_y


@njit(cache=True, nogil=True)
def draw(setups, rows, left, top, face_index, inverse_z):
    """Depth-test every face into face_index (h, w) int32 and inverse_z (h, w) float32, a box at (left, top)."""
    for f in range(len(rows)):
        if rows[f, 0] < rows[f, 1]:
            draw_face(f, setups[f], rows[f, 0], rows[f, 1], left, top, face_index, inverse_z)


@njit(cache=True, nogil=True)
def draw_face(f, s, first_row, end_row, left, top, face_index, inverse_z):
    """Depth-test face ``f`` with the numbers ``s`` over its rows."""
    right = left + face_index.shape[1]
    xa, xb, xc, ya, yb, yc = s[0], s[1], s[2], s[3], s[4], s[5]
    slope = np.float32(s[_INVERSE_Z + 1])
    long_slope = (xc - xa) / (yc - ya)
    upper_slope = (xb - xa) / (yb - ya) if yb > ya else 0.0
    lower_slope = (xc - xb) / (yc - yb) if yc > yb else 0.0
    for row in range(first_row, end_row):
        y = row + 0.5
        long_x = xa + (y - ya) * long_slope
        if y < yb:
            short_x = xa + (y - ya) * upper_slope
        else:
            short_x = xb + (y - yb) * lower_slope
        if s[_MIDDLE_IS_LEFT] > 0:
            left_x, right_x = short_x, long_x
        else:
            left_x, right_x = long_x, short_x
        begin = math.ceil(min(max(left_x - 0.5, float(left)), float(right)))
        end = math.ceil(max(min(right_x - 0.5, float(right)), float(left)))
        if begin >= end:
            continue
        start = np.float32(s[_INVERSE_Z] + (begin + 0.5 - xa) * s[_INVERSE_Z + 1] + (y - ya) * s[_INVERSE_Z + 2])
        # Spans are a few pixels long: plain indexing beats slicing and vectors.
        for i in range(end - begin):
            value = start + np.float32(i) * slope
            if value > inverse_z[row - top, begin - left + i]:
                inverse_z[row - top, begin - left + i] = value
                face_index[row - top, begin - left + i] = f


@njit(cache=True, nogil=True)
def corner_weights(setup, column, row):
    """Perspective-correct weights of a face's first and second corner at a pixel centre, and z in metres."""
    dx, dy = column + 0.5 - setup[_X], row + 0.5 - setup[_Y]
    z = 1.0 / (setup[_INVERSE_Z] + dx * setup[_INVERSE_Z + 1] + dy * setup[_INVERSE_Z + 2])
    first = (setup[_FIRST] + dx * setup[_FIRST + 1] + dy * setup[_FIRST + 2]) * z
    second = (setup[_SECOND] + dx * setup[_SECOND + 1] + dy * setup[_SECOND + 2]) * z
    # Rounding must not carry a weight outside the face: texels of a neighbouring chart lie there.
    first = min(max(first, 0.0), 1.0)
    second = min(max(second, 0.0), 1.0 - first)
    return first, second, z


@njit(cache=True, nogil=True)
def _resolve(setups, local, left, top, face_index, barycentric, z_m):
    for row in range(local.shape[0]):
        for column in range(local.shape[1]):
            f = local[row, column]
            if f < 0:
                continue
            first, second, z = corner_weights(setups[f], column + left, row + top)
            face_index[row + top, column + left] = f
            barycentric[row + top, column + left, 0] = first
            barycentric[row + top, column + left, 1] = second
            z_m[row + top, column + left] = z
