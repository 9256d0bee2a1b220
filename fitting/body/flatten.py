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
    gradient = _gradient(faces, frames, len(points))
    held = np.zeros(len(points), bool)
    for _ in range(iterations):
        target = _slim_step(points, area, gradient, held)
        step = min(1.0, 0.8 * _largest_step(points, target - points, faces))
        energy = _energy(points, area, gradient)
        while step > 1e-6:
            moved = points + step * (target - points)
            if _energy(moved, area, gradient) < energy:
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
        if energy - _energy(points, area, gradient) < 1e-6 * energy:
            break
    return points


def stretch(points: np.ndarray, faces: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(F, 2) singular values of the map of each triangle, largest first; 1 is an isometry."""
    return np.linalg.svd(_jacobians(points, _gradient(faces, frames, len(points))), compute_uv=False)


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


def _gradient(faces: np.ndarray, frames: np.ndarray, count: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Sparse (F, C) operators d/dx and d/dy of a function on vertices, in each triangle's flat frame."""
    inverse = np.linalg.inv(frames)  # rows of edge differences -> derivatives
    operators = []
    for axis in range(2):
        a, b = inverse[:, 0, axis], inverse[:, 1, axis]
        values = np.stack([-a - b, a, b], 1)
        rows = np.repeat(np.arange(len(faces)), 3)
        operators.append(sparse.csr_matrix((values.ravel(), (rows, faces.ravel())), shape=(len(faces), count)))
    return operators[0], operators[1]


def _jacobians(points: np.ndarray, gradient: tuple[sparse.csr_matrix, sparse.csr_matrix]) -> np.ndarray:
    return np.stack([operator @ points for operator in gradient], axis=2)  # (F, 2 of the map, 2 of the triangle)


def _energy(points: np.ndarray, area: np.ndarray, gradient: tuple[sparse.csr_matrix, sparse.csr_matrix]) -> float:
    """Symmetric Dirichlet energy, sum of area (|J|^2 + |J^-1|^2); infinite when a triangle has flipped."""
    jacobian = _jacobians(points, gradient)
    det = np.linalg.det(jacobian)
    if (det <= 0).any():
        return np.inf
    squared = (jacobian**2).sum((1, 2))
    return float((area * squared * (1 + 1 / det**2)).sum())


def _slim_step(
    points: np.ndarray, area: np.ndarray, gradient: tuple[sparse.csr_matrix, sparse.csr_matrix], held: np.ndarray
) -> np.ndarray:
    """Minimum of the reweighted quadratic proxy, sum of area |W (J - R)|^2; ``held`` (C,) vertices stay."""
    U, s, Vt = np.linalg.svd(_jacobians(points, gradient))
    rotation = U @ Vt  # det > 0, because no triangle is flipped
    ratio = np.where(np.abs(s - 1) < 1e-6, 4.0, (s - s**-3.0) / np.where(np.abs(s - 1) < 1e-6, 1, s - 1))
    W = U @ (np.sqrt(ratio)[:, :, None] * U.transpose(0, 2, 1)) * np.sqrt(area)[:, None, None]
    wanted = W @ rotation
    rows, right = [], []
    for i in range(2):
        for axis in range(2):
            rows.append(
                sparse.hstack([sparse.diags(W[:, i, 0]) @ gradient[axis], sparse.diags(W[:, i, 1]) @ gradient[axis]])
            )
            right.append(wanted[:, i, axis])
    A = sparse.vstack(rows).tocsc()
    start = points.T.ravel()
    stiffness = np.tile(np.where(held, HOLD, PROXIMAL), 2)
    normal = A.T @ A + sparse.diags(stiffness)
    solution = spsolve(normal.tocsc(), A.T @ np.concatenate(right) + stiffness * start)
    return solution.reshape(2, -1).T


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
