"""Kernels of the body model: rotations, forward kinematics, linear blend skinning, normals and where clothes stand off.

V vertices, F faces, J joints, K influences per vertex.  One thread and no fast-math: the same bytes on every run.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

# Before a place lie balls that touch the surface there and do not cut it anywhere.  Where they may be wider than
# ROOMY_M clothes stand off along the normal; where none is wider than NARROW_M they span what is there, along the
# normals of the form, evened so far along the surface.
ROOMY_M, NARROW_M, EVEN_M = 0.05, 0.02, 0.075
EQUILATERAL = np.sqrt(3) / 2  # a vertex of equilateral triangles has this much area, by the square of their edges


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) float32 unit normals, area-weighted means of the faces around a vertex; 0 for a vertex without area."""
    return _vertex_normals(np.ascontiguousarray(vertices_m, np.float32), faces)


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


def rotations(axis_angle: np.ndarray) -> np.ndarray:
    """(N, 3) rad to (N, 3, 3) rotation matrices (Rodrigues)."""
    axis_angle = np.ascontiguousarray(axis_angle, np.float64)
    out = np.empty((len(axis_angle), 3, 3))
    for i in range(len(axis_angle)):
        _rotation(axis_angle[i], out[i])
    return out


@njit(cache=True, nogil=True)
def _rotation(axis_angle, out):
    x, y, z = axis_angle[0], axis_angle[1], axis_angle[2]
    squared = x * x + y * y + z * z
    if squared < 1e-12:  # Taylor: sin(a) / a and (1 - cos(a)) / a^2
        s, c1 = 1.0 - squared / 6.0, 0.5 - squared / 24.0
    else:
        angle = np.sqrt(squared)
        s, c1 = np.sin(angle) / angle, (1.0 - np.cos(angle)) / squared
    c = 1.0 - c1 * squared
    out[0, 0] = c + c1 * x * x
    out[0, 1] = c1 * x * y - s * z
    out[0, 2] = c1 * x * z + s * y
    out[1, 0] = c1 * x * y + s * z
    out[1, 1] = c + c1 * y * y
    out[1, 2] = c1 * y * z - s * x
    out[2, 0] = c1 * x * z - s * y
    out[2, 1] = c1 * y * z + s * x
    out[2, 2] = c + c1 * z * z


@njit(cache=True, nogil=True)
def kinematics(pose, joints, parents, to_from_body):
    """(J, 3, 4) to_from_joint of every joint: pose (J, 3) rad, joints (J, 3) at rest, to_from_body (4, 4)."""
    out = np.empty((len(parents), 3, 4))
    local = np.empty((3, 3))
    for j in range(len(parents)):
        _rotation(pose[j], local)
        p = parents[j]
        for r in range(3):
            for c in range(3):
                total = 0.0
                for k in range(3):
                    total += (to_from_body[r, k] if p < 0 else out[p, r, k]) * local[k, c]
                out[j, r, c] = total
            if p < 0:
                position = to_from_body[r, 3]
                for k in range(3):
                    position += to_from_body[r, k] * joints[j, k]
            else:
                position = out[p, r, 3]
                for k in range(3):
                    position += out[p, r, k] * (joints[j, k] - joints[p, k])
            out[j, r, 3] = position
    return out


@njit(cache=True, nogil=True)
def skin(vertices, joints, to_from_joint, skin_joints, skin_values):
    """(V, 3) float32: rest vertices blended by (V, K) joints and weights, v' = sum_k w_k G_k T(-j_k) v."""
    J = len(joints)
    matrix = np.empty((J, 3, 4), np.float32)
    for j in range(J):
        for r in range(3):
            shift = to_from_joint[j, r, 3]
            for k in range(3):
                shift -= to_from_joint[j, r, k] * joints[j, k]
                matrix[j, r, k] = to_from_joint[j, r, k]
            matrix[j, r, 3] = shift
    out = np.empty((len(vertices), 3), np.float32)
    for v in range(len(vertices)):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        ox = oy = oz = np.float32(0.0)
        for k in range(skin_joints.shape[1]):
            w = skin_values[v, k]
            if w == 0.0:
                break
            m = matrix[skin_joints[v, k]]
            ox += w * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3])
            oy += w * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3])
            oz += w * (m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
        out[v, 0], out[v, 1], out[v, 2] = ox, oy, oz
    return out


@njit(cache=True, nogil=True)
def _vertex_normals(vertices, faces):
    out = np.zeros((len(vertices), 3), np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        wx, wy, wz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for i in (a, b, c):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for v in range(len(vertices)):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        if length > 0:
            for k in range(3):
                out[v, k] /= length
    return out


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
