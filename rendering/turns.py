"""Rotations as 3 x 3 matrices: frames, angles, means."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) of length 1; a zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def frame(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Right-handed frames (..., 3, 3) with z along ``z`` and x as near ``x`` as it can be."""
    z = unit(z)
    y = unit(np.cross(z, x))
    return np.stack([np.cross(y, z), y, z], axis=-1)


def angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle between rotations (..., 3, 3), radians."""
    cosine = (np.einsum("...ij,...ij->...", first, second) - 1) / 2  # the trace is 1 + 2 cos
    return np.arccos(np.clip(cosine, -1, 1))


def between(first: np.ndarray, second: np.ndarray, fraction: float) -> np.ndarray:
    """Spherical interpolation of rotations (N, 3, 3)."""
    step = Rotation.from_matrix(np.swapaxes(first, 1, 2) @ second).as_rotvec() * fraction
    return first @ Rotation.from_rotvec(step).as_matrix()


def rotation_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that turns unit vector ``first`` onto ``second``."""
    axis, cosine = np.cross(first, second), float(first @ second)
    if cosine < -1 + 1e-9:  # opposite: any perpendicular axis
        axis = np.cross(first, np.eye(3)[int(np.argmin(np.abs(first)))])
        return Rotation.from_rotvec(np.pi * unit(axis)).as_matrix()
    sine = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / max(sine, 1e-12) * np.arctan2(sine, cosine)).as_matrix()


def mean_rotation(rotations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted chordal mean of (N, 3, 3)."""
    u, _, vt = np.linalg.svd(np.einsum("n,nij->ij", weights, rotations))
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
