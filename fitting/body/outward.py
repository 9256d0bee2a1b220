"""Where clothes stand off a body at rest: along its normals, but across its clefts.

V vertices, F faces.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from fitting.body.skinning import vertex_normals

# Before a place lie balls that touch the surface there and do not cut it anywhere.  Where they may be wider than
# ROOMY_M clothes stand off along the normal; where none is wider than NARROW_M they span what is there, along the
# normals of the form, evened so far along the surface.
ROOMY_M, NARROW_M, EVEN_M = 0.05, 0.02, 0.075
EQUILATERAL = np.sqrt(3) / 2  # a vertex of equilateral triangles has this much area, by the square of their edges


def outward(vertices_m: np.ndarray, faces: np.ndarray, is_spanned: np.ndarray) -> np.ndarray:
    """(V, 3) float32 unit, read-only: where clothes stand off the surface, its normals but for clefts among the
    vertices that ``is_spanned`` (V,) bool.

    By their own normals the sides of a cleft move towards each other, and through each other.  The same surface is
    looked at once: a body is posed more often than dressed.
    """
    vertices_m, faces = np.ascontiguousarray(vertices_m, np.float32), np.ascontiguousarray(faces, np.int32)
    return _outward(vertices_m.tobytes(), faces.tobytes(), np.asarray(is_spanned, bool).tobytes())


@lru_cache(maxsize=8)
def _outward(vertices: bytes, faces: bytes, is_spanned: bytes) -> np.ndarray:
    vertices_m = np.frombuffer(vertices, np.float32).reshape(-1, 3)
    corners = np.frombuffer(faces, np.int32).reshape(-1, 3)
    sides_m = np.diff(vertices_m[corners], axis=1)
    area_m2 = np.linalg.norm(np.cross(sides_m[:, 0], sides_m[:, 1]), axis=1).sum() / 2
    # A round moves a vertex half the way to the mean of its neighbours: a quarter of a squared edge of variance.
    edge_m2 = area_m2 / (EQUILATERAL * len(vertices_m))
    evened_m = _evened(vertices_m, corners, round(4 * EVEN_M**2 / max(edge_m2, 1e-6)))
    normals, evened = vertex_normals(vertices_m, corners), vertex_normals(evened_m, corners)
    narrow = np.clip((ROOMY_M - _room_m(vertices_m, normals)) / (ROOMY_M - NARROW_M), 0, 1)[:, None]
    narrow[~np.frombuffer(is_spanned, bool)] = 0
    between = normals + narrow * (evened - normals)
    length = np.maximum(np.linalg.norm(between, axis=1, keepdims=True), 1e-9)
    directions = np.where(narrow > 0, between / length, normals).astype(np.float32)
    directions.setflags(write=False)
    return directions


def _room_m(vertices_m: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(V,) radius of the largest ball before a vertex, on its normal, that no other vertex lies in; ROOMY_M for more.

    Half of what medial axes are made of (Ma, Bae and Choi 2012, 3D medial axis point approximation)."""
    from scipy.spatial import cKDTree  # not for those who only pose

    pairs = cKDTree(vertices_m).query_pairs(2 * ROOMY_M, output_type="ndarray")
    own, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    away_m = (vertices_m[other] - vertices_m[own]).astype(float)
    ahead_m = (away_m * normals[own]).sum(1)
    is_ahead = ahead_m > 0
    room_m = np.full(len(vertices_m), ROOMY_M)
    np.minimum.at(room_m, own[is_ahead], (away_m[is_ahead] ** 2).sum(1) / (2 * ahead_m[is_ahead]))
    return room_m


@njit(cache=True, nogil=True)
def _evened(vertices, faces, rounds):
    """(V, 3) float32: every vertex ``rounds`` times half the way to the mean of its neighbours, those of two faces."""
    count = np.zeros(len(vertices), np.float32)
    for corner in faces.ravel():
        count[corner] += 2
    for _ in range(rounds):
        total = np.zeros_like(vertices)
        for f in range(len(faces)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            for k in range(3):
                x, y, z = vertices[a, k], vertices[b, k], vertices[c, k]
                total[a, k] += y + z
                total[b, k] += x + z
                total[c, k] += x + y
        moved = vertices.copy()
        for v in range(len(vertices)):
            if count[v] > 0:
                for k in range(3):
                    moved[v, k] = 0.5 * (vertices[v, k] + total[v, k] / count[v])
        vertices = moved
    return vertices
