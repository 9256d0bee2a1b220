"""How a skirt swings: its bones in every frame, once everybody's poses are known.

    x_1 .. x_N = argmin  sum_i [ rho(outline_i(x_i)) + rho(depth_i(x_i)) + |(x_i - h_i) / s|^2 ]
                         + sum_i |(x_i-1 - 2 x_i + x_i+1) / (a t^2)|^2

x_i (D,) the free angles of the bones (``fitting.body.bones``), h_i those of the skirt as it hangs about the legs, s how
far it usually strays from there, a how much it is usually accelerated, t the time between frames.  Gauss-Newton over
all frames at once: one banded system.  The legs stay where they are.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from fitting.body.bones import draped
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import Clip
from fitting.solve import State, render_view
from fitting.terms import Rows, depth_rows, outline_rows, residuals, robust_energy

GATES = (0.10, 0.10, 0.10, 0.06, 0.06, 0.06)  # of the height for outlines, metres for depth; one round each
ACCELERATION = 6.0  # rad/s^2: a dance, not a whip
MAX_STEP_RAD = 0.3


def swayed(body: BodyModel, chain: Chain, clip: Clip, states: dict[int, State]) -> dict[int, State]:
    """The states with the bones of the ``body``'s skirt where outlines and depth say; those of states that have none
    begin as the skirt hangs."""
    frames, num_joints = np.array(sorted(states)), body.num_skeleton
    own = np.flatnonzero(chain.free_joint >= num_joints)
    hung = {i: draped(body, chain.joints_m, states[i].pose[:num_joints]) for i in frames.tolist()}
    poses = {i: states[i].pose if len(states[i].pose) == len(hung[i]) else hung[i] for i in hung}
    at_rest = np.array([chain.dofs(hung[i])[own] for i in hung])
    certainty = 1 / body.local_prior_std[chain.free_joint[own], chain.free_axis[own]].astype(float) ** 2
    limits = [table[chain.free_joint[own], chain.free_axis[own]] for table in (body.local_lower, body.local_upper)]
    stiff = sparse.kron(_bends(frames) / (ACCELERATION * clip.step_s**2) ** 2, sparse.identity(len(own)))
    for gate in GATES:
        blocks, slopes = [], []
        now = np.array([chain.dofs(poses[i])[own] for i in poses])
        for (index, pose), x, h in zip(poses.items(), now, at_rest, strict=True):
            normal, slope = np.diag(certainty), certainty * (h - x)
            placed, observation = states[index].camera_from_body, clip[index]
            assert observation is not None
            points_m = chain.posed(pose, placed)
            view = render_view(observation, points_m[: chain.num_vertices], body.faces)
            zero = np.zeros(chain.num_vertices)
            parts = [outline_rows(observation, view.outline, view.outline_vertex, points_m, gate, zero, False)]
            if observation.surface_m is not None:
                parts.append(depth_rows(observation, points_m, view.normals, view.visible, gate, zero, False))
            rows = Rows.concatenate(parts)
            r, by_point = residuals(rows, points_m, observation)
            kept = np.flatnonzero(body.is_cloth[rows.point])
            weight = robust_energy(r, rows.scale)[1][kept]
            jacobian = chain.jacobian(pose, placed, rows.point[kept], by_point[kept])[:, own]
            blocks.append(normal + jacobian.T @ (weight[:, None] * jacobian))
            slopes.append(slope - jacobian.T @ (weight * r[kept]))
        step = spsolve((sparse.block_diag(blocks) + stiff).tocsc(), np.concatenate(slopes) - stiff @ now.ravel())
        moved = (now + step.reshape(now.shape).clip(-MAX_STEP_RAD, MAX_STEP_RAD)).clip(*limits)
        for (index, pose), x in zip(list(poses.items()), moved, strict=True):
            dofs = chain.dofs(pose)
            dofs[own] = x
            poses[index] = np.concatenate([pose[:num_joints], chain.with_dofs(pose, dofs)[num_joints:]])
    return {i: State(pose, states[i].camera_from_body) for i, pose in poses.items()}


def _bends(frames: np.ndarray) -> sparse.csr_matrix:
    """(N, N) whose quadratic form sums squared second differences over frames (N,) that follow each other."""
    middle = np.flatnonzero(frames[2:] - frames[:-2] == 2) + 1
    bends = sparse.coo_matrix(
        (
            np.tile([1.0, -2.0, 1.0], len(middle)),
            (np.repeat(np.arange(len(middle)), 3), (middle[:, None] + [-1, 0, 1]).ravel()),
        ),
        (len(middle), len(frames)),
    ).tocsr()
    return sparse.csr_matrix(bends.T @ bends)
