"""Static vertex offsets: clothes and hair as a bounded, smooth displacement of the rest surface, outwards
(``BodyModel.outward``).

V vertices.  With poses and associations fixed, a row's residual is linear in its vertex's offset, r + (g . n) d with n
outwards, so the whole clip gives one sparse least-squares problem:

    sum_rows irls (r + (g . n) (d - d_now))^2 / N  +  stiffness |L d|^2  +  shrink |d|^2,     L the mesh Laplacian.

A static offset can only be the part of the clothing that stays put; folds and swing are the renderer's business.  Where
cloth hangs about both legs it moves outwards from the middle of the skirt instead (``fitting.skirt``).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import Clip
from fitting.skirt import Skirt
from fitting.solve import Schedule, State, render_view
from fitting.terms import depth_rows, landmark_rows, outline_rows, residuals, robust_energy

MAX_OFFSET_M = 0.10  # a loose jacket; more is a cape, and the mesh would fold
MAX_FLARE_M, MAX_LEGGING_M = 0.25, 0.04  # of a skirt, beyond the legs, and of what is worn below it
MIN_OFFSET_M = -0.03  # the body under the clothes may be thinner than its shape says, a little
STIFFNESS, SHRINK = 25.0, 0.02  # relative to one measurement of 12 mm sigma per frame
LOOSENESS_SMOOTHING = 4  # rounds over the neighbours
# Up to TIGHT_M is noise and folds.  What strays further is no scatter about the leg, but all on one side of it: its
# sigma is LOOSE_GAIN times the excess.
TIGHT_M, LOOSE_GAIN = 0.008, 3.0
LANDMARK_SIGMA_M, MAX_LANDMARK_M = 0.03, 0.10  # how far a detector's idea of a hip is from anatomy's
LANDMARK_FRAMES = 20.0  # frames of one clip repeat each other's errors: so many count as one
RIGID_REGIONS = ("hands",)  # fingers are finer than the evidence
MATCH = Schedule(1, gate_m=(0.12, 0.12), gate_outline=(0.10, 0.10))


def solve_offsets(
    body: BodyModel,
    chain: Chain,
    clip: Clip,
    states: dict[int, State],
    offsets_m: np.ndarray,
    directions: np.ndarray,
    skirt: Skirt | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (V,) that explain outline and depth of all ``states`` better than ``offsets_m``, and the looseness (V,)
    that what is seen about them leaves to the body.  Metres, along ``directions`` (V, 3), unit, at rest.

    The surface's own normals will not do for these: where it folds they point elsewhere, and a spike would grow."""
    count = len(body.template_m)
    if not states:
        return offsets_m, np.zeros(count)
    diagonal, right, squares, sums, still = (np.zeros(count) for _ in range(5))
    zero = np.zeros(count)
    for index, state in states.items():
        observation = clip[index]
        assert observation is not None
        points_m = chain.posed(state.pose, state.camera_from_body)
        view = render_view(observation, points_m[:count], body.faces)
        outward = chain.turned(directions, state.pose, state.camera_from_body)
        gate = MATCH.gate_outline[1]
        parts = [outline_rows(observation, view.outline, view.outline_vertex, points_m, gate, zero, False)]
        if observation.surface_m is not None:
            parts.append(depth_rows(observation, points_m, view.normals, view.visible, MATCH.gate_m[1], zero, False))
        for rows in parts:
            r, by_point = residuals(rows, points_m, observation)
            _, irls = robust_energy(r, rows.scale)
            by_offset = (by_point * outward[rows.point]).sum(1)
            # Rows that slide along the surface say nothing about its height.
            weight = irls * (np.abs(by_offset) > 0.5 * np.linalg.norm(by_point, axis=1))
            np.add.at(diagonal, rows.point, weight * by_offset**2)
            np.add.at(right, rows.point, weight * by_offset * (by_offset * offsets_m[rows.point] - r))
            # Where the surface is seen to be, along the normal.
            height_m = offsets_m[rows.point] - np.divide(r, by_offset, out=np.zeros_like(r), where=weight > 0)
            certainty = (weight > 0) * by_offset**2
            np.add.at(sums, rows.point, certainty * height_m)
            np.add.at(squares, rows.point, certainty * height_m**2)
            np.add.at(still, rows.point, certainty)
    unit = 1.0 / (max(len(states), 1) * 0.012**2)  # one measurement per frame of 12 mm sigma counts as this much
    laplacian = mesh_laplacian(body, skirt)
    smooth = STIFFNESS * unit * len(states) * 0.01 * (laplacian.T @ laplacian)
    shrink = np.full(count, SHRINK * unit * len(states) * 0.01)
    shrink[rigid_vertices(body)] *= 1e4
    normal, limits_m = sparse.diags(diagonal + shrink) + smooth, np.tile([[MIN_OFFSET_M], [MAX_OFFSET_M]], count)
    if skirt is None:
        solution = spsolve(normal.tocsc(), right)
    else:
        free = sparse.hstack([sparse.identity(count).tocsc()[:, ~skirt.is_cloth], sparse.csc_matrix(skirt.folds)])
        solution = free @ spsolve((free.T @ normal @ free).tocsc(), free.T @ right)
        limits_m[:, skirt.is_cloth], limits_m[1, skirt.is_below] = [[0], [MAX_FLARE_M]], MAX_LEGGING_M
    offsets_m = np.clip(solution, *limits_m)
    return offsets_m, _looseness_m(laplacian, offsets_m, squares, sums, still)


def solve_landmark_offsets(
    chain: Chain, clip: Clip, states: dict[int, State], offsets_m: np.ndarray, sigma_m: float = LANDMARK_SIGMA_M
) -> np.ndarray:
    """(L, 3) at rest: where on this person, in these clothes, the detector puts each landmark.

    A landmark moves with its offset d by (sum of its weighted skinning rotations) d, so each is a 3 x 3 least-squares
    problem over the clip, pulled to zero: what no view tells apart stays where anatomy has it.
    """
    count = len(offsets_m)
    matrix = np.tile(np.eye(3) / sigma_m**2, (count, 1, 1))
    right = np.zeros((count, 3))
    first = chain.num_vertices
    for index, state in states.items():
        observation = clip[index]
        assert observation is not None
        rotations, translations, _ = chain.transforms(state.pose, state.camera_from_body)
        points_m = chain.points(rotations, translations)
        rows = landmark_rows(observation, first, 6.0)
        r, by_point = residuals(rows, points_m, observation)
        _, irls = robust_energy(r, rows.scale)
        turns = np.zeros((count, 3, 3))
        for k in range(count):
            own = slice(chain.start[first + k], chain.start[first + k + 1])
            turns[k] = (chain.weight[own, None, None] * rotations[chain.joint[own]]).sum(0)
        landmark = rows.point - first
        by_offset = np.einsum("rx,rxy->ry", by_point, turns[landmark])
        wanted = (by_offset * offsets_m[landmark]).sum(1) - r
        share = irls / LANDMARK_FRAMES
        np.add.at(matrix, landmark, share[:, None, None] * by_offset[:, :, None] * by_offset[:, None, :])
        np.add.at(right, landmark, (share * wanted)[:, None] * by_offset)
    return np.clip(np.linalg.solve(matrix, right[..., None])[..., 0], -MAX_LANDMARK_M, MAX_LANDMARK_M)


def _looseness_m(
    laplacian: sparse.csr_matrix, offsets_m: np.ndarray, squares: np.ndarray, sums: np.ndarray, certainty: np.ndarray
) -> np.ndarray:
    """LOOSE_GAIN (s - TIGHT_M), with s the standard deviation of the seen heights about the offsets, over neighbours.

    Where nothing was seen s is that of the whole body.
    """
    spread = squares - 2 * offsets_m * sums + offsets_m**2 * certainty
    typical = spread.sum() / max(certainty.sum(), 1e-9)
    prior = 0.05 * certainty.mean()
    smoothing = sparse.identity(len(spread)) - 0.5 * laplacian
    spread, certainty = spread + prior * typical, certainty + prior
    for _ in range(LOOSENESS_SMOOTHING):
        spread, certainty = smoothing @ spread, smoothing @ certainty
    return LOOSE_GAIN * np.maximum(np.sqrt(np.maximum(spread / certainty, 0)) - TIGHT_M, 0)


def mesh_laplacian(body: BodyModel, skirt: Skirt | None = None) -> sparse.csr_matrix:
    """(V, V) uniform Laplacian: a vertex minus the mean of its neighbours; a hem and the leg below are none."""
    faces = body.faces
    i = np.concatenate([faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()])
    j = np.concatenate([faces[:, [1, 2, 0]].ravel(), faces[:, [0, 1, 2]].ravel()])
    if skirt is not None:
        parted = (skirt.is_cloth[i] & skirt.is_below[j]) | (skirt.is_below[i] & skirt.is_cloth[j])
        i, j = i[~parted], j[~parted]
    count = len(body.template_m)
    adjacency = sparse.csr_matrix((np.ones(len(i)), (i, j)), (count, count))
    adjacency.data[:] = 1.0
    degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    return sparse.csr_matrix(sparse.identity(count) - sparse.diags(1 / degree) @ adjacency)


def rigid_vertices(body: BodyModel) -> np.ndarray:
    """Vertices of the regions that carry no offsets."""
    regions = [i for i, name in enumerate(body.region_names) if name in RIGID_REGIONS]
    return np.unique(body.faces[np.isin(body.face_region, regions)])
