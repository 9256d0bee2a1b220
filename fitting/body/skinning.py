"""Kernels of the body model: rotations, forward kinematics, linear blend skinning, vertex normals.

V vertices, F faces, J joints, K influences per vertex.  One thread and no fast-math: the same bytes on every run.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) float32 unit normals, area-weighted means of the faces around a vertex; 0 for a vertex without area."""
    return _vertex_normals(np.ascontiguousarray(vertices_m, np.float32), faces)


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
