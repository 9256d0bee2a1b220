"""The Gauss-Newton system of a chain, assembled row by row over the few DoFs that move a row's point.

R residual rows that look at one point each, C skinning contributions, J joints, U = D + 6 unknowns.

The dense way, J (R, U) and J^T W J, spends most of its time on zeros: a point hangs on the joints between it and the
root, some twenty of the unknowns.  The result is the same, but for the order of the sums.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fitting.chain import Chain, world_axes


def normal_matrix(
    chain: Chain,
    pose: np.ndarray,
    transforms: tuple[np.ndarray, np.ndarray, np.ndarray],
    point: np.ndarray,
    by_point: np.ndarray,
    r: np.ndarray,
    irls: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """J^T W J (U, U) and J^T W r (U,) of the rows J_i = by_point_i . dp/dx with weights W = diag(irls).

    pose (J, 3) and its ``Chain.transforms``; point (R,), by_point (R, 3), r (R,), irls (R,).
    """
    rotations, translations, places = transforms
    axes = world_axes(
        pose, rotations, chain.parents, chain.axes, chain.first_dof, chain.num_dofs, chain.free_axis
    )  # (D, 3)
    return _accumulate(
        rotations, translations, places, chain.parents, chain.start, chain.joint, chain.weight, chain.weighted_m,
        axes, chain.first_dof, chain.num_dofs, point, by_point, r, irls,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _accumulate(  # type: ignore[no-untyped-def]
    rotations, translations, places, parents, start, joint, weight, weighted_m,
    axes, first_dof, num_dofs, point, by_point, r, irls,
):  # fmt: skip
    num_joints, free = len(parents), len(axes)
    size = free + 6
    matrix, gradient = np.zeros((size, size)), np.zeros(size)
    moment, mass = np.zeros((num_joints, 3)), np.zeros(num_joints)
    touched, active = np.empty(num_joints, np.int64), np.empty(size, np.int64)
    num_touched = 0
    px = py = pz = 0.0
    row = np.zeros(size)  # one row of J, zero but for the active DoFs
    for i in range(len(point)):
        p = point[i]
        if i == 0 or p != point[i - 1]:
            for k in range(num_touched):
                moment[touched[k]] = 0.0
                mass[touched[k]] = 0.0
            num_touched = 0
            px = py = pz = 0.0
            for c in range(start[p], start[p + 1]):
                j, w = joint[c], weight[c]
                qx, qy, qz = weighted_m[c, 0], weighted_m[c, 1], weighted_m[c, 2]
                x = rotations[j, 0, 0] * qx + rotations[j, 0, 1] * qy + rotations[j, 0, 2] * qz + translations[j, 0] * w
                y = rotations[j, 1, 0] * qx + rotations[j, 1, 1] * qy + rotations[j, 1, 2] * qz + translations[j, 1] * w
                z = rotations[j, 2, 0] * qx + rotations[j, 2, 1] * qy + rotations[j, 2, 2] * qz + translations[j, 2] * w
                px += x
                py += y
                pz += z
                while j > 0:
                    if mass[j] == 0.0 and num_dofs[j] > 0:
                        touched[num_touched] = j
                        num_touched += 1
                    if num_dofs[j] > 0:
                        moment[j, 0] += x
                        moment[j, 1] += y
                        moment[j, 2] += z
                        mass[j] += w
                    j = parents[j]
        gx, gy, gz = by_point[i, 0], by_point[i, 1], by_point[i, 2]
        count = 0
        for k in range(num_touched):
            j = touched[k]
            rx = moment[j, 0] - mass[j] * places[j, 0]
            ry = moment[j, 1] - mass[j] * places[j, 1]
            rz = moment[j, 2] - mass[j] * places[j, 2]
            # g . (axis x r) = axis . (r x g)
            cx, cy, cz = ry * gz - rz * gy, rz * gx - rx * gz, rx * gy - ry * gx
            for d in range(first_dof[j], first_dof[j] + num_dofs[j]):
                row[d] = axes[d, 0] * cx + axes[d, 1] * cy + axes[d, 2] * cz
                active[count] = d
                count += 1
        rx, ry, rz = px - places[0, 0], py - places[0, 1], pz - places[0, 2]
        row[free], row[free + 1], row[free + 2] = ry * gz - rz * gy, rz * gx - rx * gz, rx * gy - ry * gx
        row[free + 3], row[free + 4], row[free + 5] = gx, gy, gz
        for d in range(free, size):
            active[count] = d
            count += 1
        for k in range(count):
            d = active[k]
            share = irls[i] * row[d]
            gradient[d] += share * r[i]
            for e in range(d + 1):  # a whole stretch, zeros and all: contiguous sums are the fastest
                matrix[d, e] += share * row[e]
        for k in range(count):
            row[active[k]] = 0.0
    for d in range(size):
        for e in range(d):
            matrix[e, d] = matrix[d, e]
    return matrix, gradient


@njit(cache=True, nogil=True)
def damped_step(matrix, gradient, damping):  # type: ignore[no-untyped-def]
    """-x (U,) of (A + damping diag(A) + 1e-9) x = g by Cholesky's U^T U; NaN where A is not positive definite."""
    size = len(gradient)
    upper, x = matrix.copy(), -gradient
    for k in range(size):
        upper[k, k] += damping * matrix[k, k] + 1e-9
    for k in range(size):
        pivot = np.sqrt(upper[k, k])
        for i in range(k, size):
            upper[k, i] /= pivot
        for i in range(k + 1, size):
            share = upper[k, i]
            for j in range(i, size):
                upper[i, j] -= share * upper[k, j]
        x[k] /= upper[k, k]
        for i in range(k + 1, size):
            x[i] -= upper[k, i] * x[k]
    for k in range(size - 1, -1, -1):
        total = x[k]
        for i in range(k + 1, size):
            total -= upper[k, i] * x[i]
        x[k] = total / upper[k, k]
    return x
