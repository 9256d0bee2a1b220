"""The posed body as the grid camera sees it: what is in front, which vertices are visible, the outline.

V vertices, F faces, h x w grid cells, M outline points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fitting.body.skinning import vertex_normals
from fitting.observe import Observation, Outline, outline_of
from fitting.zbuffer import draw_faces

OUTLINE_POINTS = 240
FACING = -0.15  # cosine between normal and line of sight; flatter vertices lie on the rim
BEHIND_M = 0.03  # how far behind the drawn surface a vertex still counts as seen


@dataclass(frozen=True)
class View:
    """The body as the grid camera sees it."""

    mask: np.ndarray  # (h, w) bool
    depth_m: np.ndarray  # (h, w) of the front-most surface, inf beside the body
    normals: np.ndarray  # (V, 3) unit, camera frame
    visible: np.ndarray  # (V,) bool
    outline: Outline
    outline_vertex: np.ndarray  # (M,)


def render_view(observation: Observation, vertices_m: np.ndarray, faces: np.ndarray) -> View:
    """Rasterise the body (V, 3) on the grid: mask, visible vertices, outline and the vertices that make it."""
    pixels, face_index, depth_m = drawn(observation, vertices_m, faces)
    normals = vertex_normals(vertices_m, faces).astype(float)
    mask = face_index >= 0
    outline = outline_of(mask, OUTLINE_POINTS)
    nearest = _nearest_corner(pixels, faces, face_index, outline.cells, outline.points_px)
    return View(mask, depth_m, normals, _visible(vertices_m, normals, pixels, depth_m), outline, nearest)


def drawn(
    observation: Observation, vertices_m: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Projected vertices (V, 2), and per cell the front-most face (-1 = none) and its depth (inf = none)."""
    camera = observation.camera
    return _drawn(
        np.ascontiguousarray(vertices_m, float), np.ascontiguousarray(faces, np.int32),
        camera.image_wh, camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _drawn(vertices_m, faces, image_wh, fx, fy, cx, cy):  # type: ignore[no-untyped-def]
    width, height = image_wh
    count = len(vertices_m)
    pixels, z = np.empty((count, 2)), np.empty(count)
    for v in range(count):
        z[v] = vertices_m[v, 2]
        pixels[v, 0] = vertices_m[v, 0] / max(z[v], 0.05) * fx + cx
        pixels[v, 1] = vertices_m[v, 1] / max(z[v], 0.05) * fy + cy
    face_index = np.full((height, width), -1, np.int32)
    inverse_z = np.zeros((height, width), np.float32)
    # A closed skin shows its front: where a back face could win, a front face lies before it.
    draw_faces(pixels, z, faces, True, face_index, inverse_z)
    depth_m = np.full((height, width), np.inf, np.float32)
    for row in range(height):
        for column in range(width):
            if face_index[row, column] >= 0:
                depth_m[row, column] = np.float32(1.0) / inverse_z[row, column]
    return pixels, face_index, depth_m


@njit(cache=True, nogil=True)
def _visible(vertices_m, normals, pixels, depth_m):  # type: ignore[no-untyped-def]
    """(V,) bool: turned to the camera and not behind the drawn surface; what lies off the grid asks its edge."""
    height, width = depth_m.shape
    out = np.zeros(len(vertices_m), np.bool_)
    for v in range(len(vertices_m)):
        x, y, z = vertices_m[v]
        along = normals[v, 0] * x + normals[v, 1] * y + normals[v, 2] * z
        if not along < FACING * np.sqrt(x * x + y * y + z * z):
            continue
        column = min(max(np.floor(pixels[v, 0]), 0.0), width - 1.0)
        row = min(max(np.floor(pixels[v, 1]), 0.0), height - 1.0)
        surface_m = depth_m[int(row), int(column)]
        out[v] = np.isfinite(surface_m) and z < surface_m + BEHIND_M
    return out


@njit(cache=True, nogil=True)
def _nearest_corner(pixels, faces, face_index, cells, points_px):  # type: ignore[no-untyped-def]
    """(M,) the corner nearest to each point (M, 2), of the face drawn in its cell (M, 2)."""
    out = np.empty(len(cells), np.int64)
    for i in range(len(cells)):
        face = faces[face_index[cells[i, 0], cells[i, 1]]]
        best = np.inf
        for c in range(3):
            dx, dy = pixels[face[c], 0] - points_px[i, 0], pixels[face[c], 1] - points_px[i, 1]
            if dx * dx + dy * dy < best:
                best, out[i] = dx * dx + dy * dy, face[c]
    return out
