"""The nearest poses a person can take: joints within their ranges, feet that stand where they stand.

A retargeted clip asks for what the performer's skeleton did; ours is of other proportions, and a recorded skeleton
bends in ways that no body does.  Per frame this looks for the pose x (root and degrees of freedom) of least

    E(x) = sum_p w_p^2 |p(x) - target_p|^2 + eps^2 |x - x_asked|^2      subject to  lower <= x <= upper

over points p of the skin, by Gauss-Newton whose every step keeps the ranges (an active set; Nocedal and Wright 2006,
section 16.5).  Targets are the skin of the pose asked for, but for the soles of
a foot in contact: those stay where they are (``standing.Stance``).

P points, V vertices, J joints, D degrees of freedom.  World frame: metres, z up, floor at 0.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.solve import State, advance
from rendering.standing import Stance, soles

SKIN_POINTS = 240  # spread evenly over the vertices: several on each bone, so that its twist is seen
STAY = 0.01  # m/rad: what no point shows stays as it was asked for
ITERATIONS = 25
MAX_CHANGES = 20  # of the set of degrees of freedom that are held
ENOUGH = 1e-3  # relative decrease of the energy


def possible(
    asked_pose: np.ndarray,
    world_from_body: np.ndarray,
    body: BodyModel,
    rest_vertices_m: np.ndarray,
    rest_joints_m: np.ndarray,
    stances: tuple[Stance, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, J, 3) and places (N, 4, 4) that a person can take, next to those asked for."""
    chain = Chain.build(body, rest_vertices_m, rest_joints_m)
    solver = _Solver(chain, body, rest_vertices_m)
    poses, places = np.empty_like(asked_pose), np.empty_like(world_from_body)
    with threadpool_limits(1, "blas"):  # small matrices
        for i in range(len(asked_pose)):
            skin = chain.posed(np.asarray(asked_pose[i], float), np.asarray(world_from_body[i], float))
            weight = np.ones((chain.num_vertices, 3))
            for stance in stances:
                skin[stance.vertices] += stance.shift_m[i]
                weight[stance.vertices] += (np.array(stance.weight) - 1) * stance.held[i]
            poses[i], places[i] = solver.solve(asked_pose[i], world_from_body[i], skin, weight)
    return poses, places


def within_range(pose: np.ndarray, body: BodyModel) -> np.ndarray:
    """``pose`` (..., J, 3) with every axis of every joint moved to the nearer end of its range; the root is free."""
    local = np.einsum("jki,...jk->...ji", body.joint_axes, pose)
    local = np.clip(local, body.local_lower, body.local_upper)
    held = np.einsum("jik,...jk->...ji", body.joint_axes, local)
    held[..., 0, :] = pose[..., 0, :]
    return held


def beyond_range(pose: np.ndarray, body: BodyModel) -> np.ndarray:
    """(..., J, 3) rad by which each axis of each joint of ``pose`` (..., J, 3) leaves its range; the root has none."""
    local = np.einsum("jki,...jk->...ji", body.joint_axes, pose)
    beyond = np.maximum(local - body.local_upper, body.local_lower - local).clip(0)
    beyond[..., 0, :] = 0
    return beyond


class _Solver:
    def __init__(self, chain: Chain, body: BodyModel, rest_vertices_m: np.ndarray) -> None:
        self._chain, self._body = chain, body
        count = chain.num_vertices
        feet = np.concatenate([np.concatenate(soles(body, rest_vertices_m, side)) for side in "LR"])
        self._points = np.union1d(np.linspace(0, count - 1, SKIN_POINTS).astype(int), feet)
        self._rows = np.repeat(self._points, 3).astype(np.int32)
        self._gradient = np.tile(np.eye(3), (len(self._points), 1))
        self._lower = body.local_lower[chain.free_joint, chain.free_axis]
        self._upper = body.local_upper[chain.free_joint, chain.free_axis]

    def solve(
        self, asked: np.ndarray, place: np.ndarray, skin: np.ndarray, skin_weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """From a pose (J, 3), a place (4, 4), and the targets (V, 3) and weights (V, 3) of all vertices."""
        chain = self._chain
        wanted, weight = skin[self._points].ravel(), skin_weight[self._points].ravel()
        pose = within_range(np.asarray(asked, float), self._body)
        place = np.array(place, float)
        start = chain.dofs(pose)
        residual = weight * self._distance(pose, place, wanted)
        energy, damping = float(residual @ residual), 1e-6
        for _ in range(ITERATIONS):
            jacobian = chain.jacobian(pose, place, self._rows, self._gradient) * weight[:, None]
            dofs = chain.dofs(pose)
            slope = jacobian.T @ residual
            slope[: len(dofs)] += STAY**2 * (dofs - start)
            normal = jacobian.T @ jacobian
            normal[np.diag_indices(len(normal))] += STAY**2 + damping * np.diag(normal).mean()
            step = bounded_step(normal, slope, self._lower - dofs, self._upper - dofs)
            moved = advance(State(pose, place), step, chain)
            new_pose = within_range(moved.pose, self._body)
            new_residual = weight * self._distance(new_pose, moved.camera_from_body, wanted)
            new_energy = float(new_residual @ new_residual)
            if new_energy >= energy:
                damping *= 100
                if damping > 1:
                    break
                continue
            is_enough = energy - new_energy < ENOUGH * energy and damping < 1e-4  # else it only crept
            pose, place, residual = new_pose, moved.camera_from_body, new_residual
            energy, damping = new_energy, damping / 10
            if is_enough:
                break
        return pose, place

    def _distance(self, pose: np.ndarray, place: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """(3P,) of the points from ``wanted`` (3P,)."""
        return self._chain.posed(pose, place)[self._points].ravel() - wanted


def bounded_step(normal: np.ndarray, slope: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """The step s (K,) that lowers  s^T A s / 2 + g^T s  most, its first D entries between ``lowest`` and ``highest``.

    A (K, K) is symmetric and positive, g (K,).  What would leave its range is held at the end of it and the rest solved
    again; what is held and would rather come back is let go.  Ends at the minimum, or after ``MAX_CHANGES`` at a step
    that keeps the ranges.
    """
    count = len(lowest)
    step, held = np.zeros(len(slope)), np.zeros(len(slope), bool)
    for _ in range(MAX_CHANGES):
        free = ~held
        step[free] = np.linalg.solve(normal[np.ix_(free, free)], -slope[free] - normal[np.ix_(free, held)] @ step[held])
        beyond = free[:count] & ((step[:count] < lowest - 1e-12) | (step[:count] > highest + 1e-12))
        pull = -(normal @ step + slope)[:count]  # where a held one would go
        inwards = held[:count] & np.where(step[:count] <= lowest, pull > 1e-12, pull < -1e-12)
        if not beyond.any() and not inwards.any():
            return step
        step[:count] = np.clip(step[:count], lowest, highest)
        held[:count] = (held[:count] & ~(inwards & ~beyond.any())) | beyond
    return step
