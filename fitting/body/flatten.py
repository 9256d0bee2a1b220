"""Flatten one chart: a disk of triangles in space becomes a map in the plane, without flips and with little distortion.

In: triangles over C chart vertices and their wanted edge lengths.  Out: (C, 2) positions, counter-clockwise triangles.
Tutte's embedding on a circle (injective by theorem), then the symmetric Dirichlet energy is lowered with scalable
locally injective mappings (Rabinovich et al. 2017), whose line search never lets a triangle flip, while the rim is
kept from crossing itself, so the map is one to one.  C vertices, F faces.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import factorized, spsolve

PROXIMAL = 1e-6  # keeps a step's system solvable: nothing else ties the map to a place in the plane
HOLD = 1e6  # against the energy's weights, which are of the order of 1: a vertex that stays


def flatten(faces: np.ndarray, frames: np.ndarray, boundary: np.ndarray, iterations: int = 60) -> np.ndarray:
    """(C, 2) map of a chart.

    faces (F, 3) over C vertices; frames (F, 2, 2) the wanted triangle: columns are its edges 0-1 and 0-2 laid flat;
    boundary (B,) vertices along the rim, counter-clockwise.
    """
    points = _tutte(faces, frames, boundary)
    area = np.linalg.det(frames) / 2
    gradient = _gradient(frames)
    held = np.zeros(len(points), bool)
    for _ in range(iterations):
        target = _slim_step(points, faces, area, gradient, held)
        step = min(1.0, 0.8 * _largest_step(points, target - points, faces))
        energy = _energy(points, faces, area, gradient)
        while step > 1e-6:
            moved = points + step * (target - points)
            if _energy(moved, faces, area, gradient) < energy:
                break
            step /= 2
        else:
            break
        if len(touching := _crossings(moved, boundary)):
            # Two stretches of the rim, such as neighbouring fingers, would overlap: from now on they stay.
            if held[touching].all():
                break
            held[touching] = True
            continue
        points = moved
        if energy - _energy(points, faces, area, gradient) < 1e-6 * energy:
            break
    return points


def stretch(points: np.ndarray, faces: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(F, 2) singular values of the map of each triangle, largest first; 1 is an isometry."""
    return np.linalg.svd(_jacobians(points, faces, _gradient(frames)), compute_uv=False)


def _tutte(faces: np.ndarray, frames: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Every inner vertex at the mean of its neighbours, the rim on a circle of the chart's area."""
    count = int(faces.max()) + 1
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    adjacency = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
    adjacency = (adjacency + adjacency.T).tocsr()
    laplacian = sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    angle = 2 * np.pi * np.arange(len(boundary)) / len(boundary)
    radius = np.sqrt(np.linalg.det(frames).sum() / 2 / np.pi)
    points = np.zeros((count, 2))
    points[boundary] = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    inner = np.setdiff1d(np.arange(count), boundary)
    if len(inner):
        rows = laplacian.tocsr()[inner]
        solve = factorized(rows[:, inner].tocsc())
        right = -rows[:, boundary] @ points[boundary]
        points[inner] = np.stack([solve(right[:, 0]), solve(right[:, 1])], 1)
    return points


def _gradient(frames: np.ndarray) -> np.ndarray:
    """(F, 2, 3) derivatives d/dx and d/dy, in each triangle's flat frame, of a function given at its corners."""
    inverse = np.linalg.inv(frames)  # rows of edge differences -> derivatives
    a, b = inverse[:, 0], inverse[:, 1]  # (F, 2)
    return np.stack([-a - b, a, b], axis=2)


def _jacobians(points: np.ndarray, faces: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return np.einsum("fak,fkc->fca", gradient, points[faces])  # (F, 2 of the map, 2 of the triangle)


def _energy(points: np.ndarray, faces: np.ndarray, area: np.ndarray, gradient: np.ndarray) -> float:
    """Symmetric Dirichlet energy, sum of area (|J|^2 + |J^-1|^2); infinite when a triangle has flipped."""
    jacobian = _jacobians(points, faces, gradient)
    det = np.linalg.det(jacobian)
    if (det <= 0).any():
        return np.inf
    squared = (jacobian**2).sum((1, 2))
    return float((area * squared * (1 + 1 / det**2)).sum())


def _slim_step(
    points: np.ndarray, faces: np.ndarray, area: np.ndarray, gradient: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Minimum of the reweighted quadratic proxy, sum of area |W (J - R)|^2; ``held`` (C,) vertices stay."""
    U, s, Vt = np.linalg.svd(_jacobians(points, faces, gradient))
    rotation = U @ Vt  # det > 0, because no triangle is flipped
    is_rigid = np.abs(s - 1) < 1e-6
    ratio = np.where(is_rigid, 4.0, (s - s**-3.0) / np.where(is_rigid, 1, s - 1))
    weight = U @ (ratio[:, :, None] * U.transpose(0, 2, 1)) * area[:, None, None]  # W^T W
    count = len(points)
    element = np.einsum("fcd,fak,fal->fckdl", weight, gradient, gradient)  # (F, 2, 3, 2, 3)
    right = np.einsum("fcd,fda,fak->fck", weight, rotation, gradient)
    index = np.stack([faces, faces + count], axis=1).reshape(-1, 6)  # unknowns: all x, then all y
    rows, columns = np.repeat(index, 6, axis=1).ravel(), np.tile(index, (1, 6)).ravel()
    start = points.T.ravel()
    stiffness = np.tile(np.where(held, HOLD, PROXIMAL), 2)
    diagonal = np.arange(2 * count)
    normal = sparse.csc_matrix(
        (
            np.concatenate([element.ravel(), stiffness]),
            (np.concatenate([rows, diagonal]), np.concatenate([columns, diagonal])),
        ),
        shape=(2 * count, 2 * count),
    )
    force = np.bincount(index.ravel(), right.ravel(), minlength=2 * count)
    return spsolve(normal, force + stiffness * start).reshape(2, -1).T


def _largest_step(points: np.ndarray, direction: np.ndarray, faces: np.ndarray) -> float:
    """First step at which some triangle's area reaches zero: the smallest positive root of a quadratic per triangle."""
    p, d = points[faces], direction[faces]
    e1, e2, f1, f2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0], d[:, 1] - d[:, 0], d[:, 2] - d[:, 0]
    a, b, c = _cross(f1, f2), _cross(e1, f2) + _cross(f1, e2), _cross(e1, e2)
    discriminant = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    q = -(b + np.where(b >= 0, 1, -1) * discriminant) / 2  # the stable pair of roots: q / a and c / q
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.concatenate([q / a, c / q])
    real = np.tile(b * b - 4 * a * c >= 0, 2)
    roots = roots[real & np.isfinite(roots) & (roots > 0)]
    return float(roots.min()) if len(roots) else np.inf


def _crossings(points: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Boundary vertices whose rim edges cross another rim edge."""
    p, q = points[boundary], points[np.roll(boundary, -1)]
    count = len(boundary)
    start, end, tip = p[:, None], q[:, None], p[None]
    side_a = _cross(end - start, tip - start)
    side_b = _cross(end - start, q[None] - start)
    straddles = side_a * side_b < 0  # [i, j]: the ends of edge j lie on both sides of edge i's line
    crossing = straddles & straddles.T
    index = np.arange(count)
    crossing[index, index] = crossing[index, (index + 1) % count] = crossing[(index + 1) % count, index] = False
    edges = np.flatnonzero(crossing.any(1))
    return np.unique(np.concatenate([boundary[edges], boundary[(edges + 1) % count]]))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
