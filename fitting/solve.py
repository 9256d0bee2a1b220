"""Levenberg-Marquardt inverse kinematics of one frame.

D pose degrees of freedom and six of placement; R residual rows; J joints.  The energy is one visible sum: data rows
(``terms``), pose prior with joint limits, smoothness to the neighbouring frame.  A step that raises it is never taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fitting.body.model import rotations
from fitting.chain import Chain, rotation_vector
from fitting.gauss_newton import damped_step, normal_matrix
from fitting.observe import Observation
from fitting.terms import (
    Rows,
    depth_rows,
    free_space_rows,
    landmark_depth_rows,
    landmark_rows,
    out_of_view_rows,
    outline_rows,
    residuals,
    robust_energy,
    world_rows,
)
from fitting.view import drawn, render_view

LIMIT_SIGMA_RAD = 0.05
FIRST_DAMPING, MAX_TRIES = 1e-3, 4  # of Marquardt; steps that are tried before the rows are searched anew
PICTURE_COUNT, PICTURE_SCALE_M = 1500.0, 0.08  # of ``pose_cost``: all of the picture wrong, and how far off is wrong
Transforms = tuple[np.ndarray, np.ndarray, np.ndarray]  # rotations, translations and places, see ``Chain.transforms``
NO_SURFACE = np.zeros((0, 0, 3))


@dataclass(frozen=True)
class State:
    """A pose: axis-angle per joint (J, 3), placement camera_from_body (4, 4)."""

    pose: np.ndarray
    camera_from_body: np.ndarray


@dataclass(frozen=True)
class Prior:
    """Quadratic pull of the pose DoFs and the placement; zero weights switch a pull off."""

    mean: np.ndarray  # (D,) rad
    weight: np.ndarray  # (D,) 1 / rad
    lower: np.ndarray  # (D,) joint limits, rad
    upper: np.ndarray  # (D,)
    neighbour: State | None = None  # the pose of the frame before
    pose_sigma_rad: float = 0.15
    place_sigma_m: float = 0.1
    turn_sigma_rad: float = 0.3


@dataclass(frozen=True)
class Schedule:
    """How one solve runs: iterations, gates and kernel widths from first to last iteration."""

    iterations: int  # searches for rows
    landmark_scale: tuple[float, float] = (np.inf, 4.0)
    gate_m: tuple[float, float] = (0.25, 0.10)
    gate_outline: tuple[float, float] = (0.12, 0.05)  # of the person's height
    world_sigma_m: tuple[float, float] = (0.06, 0.12)
    landmark_depth_m: tuple[float, float] = (0.4, 0.15)  # kernel width of the landmarks' depth
    landmark_depth_sigma_m: tuple[float, float] = (0.03, 0.1)  # in the end the surface knows better
    use_depth: bool = True
    use_outline: bool = True
    stands_off: bool = True  # what is seen may be cloth that hangs before the body (terms)
    steps: int = 1  # on the rows of one search, which costs more than a step


EVERYWHERE = Schedule(1)


def solve_pose(
    chain: Chain, faces: np.ndarray, observation: Observation, start: State, prior: Prior, schedule: Schedule
) -> tuple[State, float]:
    """Fit one frame from ``start``; returns the state and the energy of its last accepted step."""
    state, damping, energy = start, FIRST_DAMPING, np.inf
    transforms, points_m = _posed(chain, state)
    for iteration in range(schedule.iterations):
        progress = iteration / max(schedule.iterations - 1, 1)
        rows = _rows_at(chain, faces, observation, points_m, schedule, progress)
        for _ in range(schedule.steps):
            normal, gradient, energy = _normal_equations_at(
                chain, observation, state, transforms, points_m, prior, rows
            )
            for _ in range(MAX_TRIES):
                candidate = advance(state, damped_step(normal, gradient, damping), chain)
                moved, moved_m = _posed(chain, candidate)
                after = _energy_at(chain, observation, candidate, moved_m, prior, rows)
                if after <= energy:
                    state, transforms, points_m, energy = candidate, moved, moved_m, after
                    damping = max(damping * 0.3, 1e-5)
                    break
                damping *= 8.0
            else:
                break  # no step lowers the energy of these rows
    return state, energy


def _posed(chain: Chain, state: State) -> tuple[Transforms, np.ndarray]:
    """The chain's transforms and points (P, 3) of a state."""
    transforms = chain.transforms(state.pose, state.camera_from_body)
    return transforms, chain.points(*transforms[:2])


def build_rows(
    chain: Chain, faces: np.ndarray, observation: Observation, state: State, schedule: Schedule, progress: float
) -> Rows:
    """All data rows at the current pose; ``progress`` in [0, 1] anneals gates and kernels."""
    return _rows_at(chain, faces, observation, _posed(chain, state)[1], schedule, progress)


def _rows_at(
    chain: Chain, faces: np.ndarray, observation: Observation, points_m: np.ndarray, schedule: Schedule, progress: float
) -> Rows:
    count = chain.num_vertices
    parts = _landmark_terms(observation, points_m, count, schedule, progress)
    needs_depth = schedule.use_depth and observation.surface_m is not None
    if needs_depth or schedule.use_outline:
        view = render_view(observation, points_m[:count], faces)
        if needs_depth:
            gate_m = _between(schedule.gate_m, progress)
            facing, seen, loose_m = view.normals, view.visible, chain.looseness_m
            parts.append(depth_rows(observation, points_m, facing, seen, gate_m, loose_m, schedule.stands_off))
            parts.append(free_space_rows(observation, points_m, view.visible, gate_m))
        if schedule.use_outline:
            gate = _between(schedule.gate_outline, progress)
            model, vertex = view.outline, view.outline_vertex
            # A head turned sideways is wider: its outline would turn it until it fills the hair.
            loose_m = np.hypot(chain.looseness_m, chain.hair_m)
            # Offsets have put the outline on the cloth's own: from then on it counts alike on both sides.
            stands_off = schedule.stands_off and not chain.is_dressed
            parts.append(outline_rows(observation, model, vertex, points_m, gate, loose_m, stands_off))
    return Rows.concatenate(parts)


def _landmark_terms(
    observation: Observation, points_m: np.ndarray, count: int, schedule: Schedule, progress: float
) -> list[Rows]:
    """The landmarks in the picture, in the detector's own space, and in depth."""
    parts = [
        landmark_rows(observation, count, _between(schedule.landmark_scale, progress)),
        world_rows(observation, points_m, count, _between(schedule.world_sigma_m, progress)),
        out_of_view_rows(observation, points_m, count, _between(schedule.landmark_scale, progress)),
    ]
    if observation.surface_m is not None:
        kernel_m, sigma_m = (
            _between(ends, progress) for ends in (schedule.landmark_depth_m, schedule.landmark_depth_sigma_m)
        )
        parts.append(landmark_depth_rows(observation, points_m, count, kernel_m, sigma_m))
    return parts


def normal_equations(
    chain: Chain, observation: Observation, state: State, prior: Prior, rows: Rows
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gauss-Newton matrix (D + 6, D + 6), gradient (D + 6,) and energy."""
    return _normal_equations_at(chain, observation, state, *_posed(chain, state), prior, rows)


def _normal_equations_at(
    chain: Chain,
    observation: Observation,
    state: State,
    transforms: Transforms,
    points_m: np.ndarray,
    prior: Prior,
    rows: Rows,
) -> tuple[np.ndarray, np.ndarray, float]:
    r, by_point = residuals(rows, points_m, observation)
    data_energy, irls = robust_energy(r, rows.scale)
    matrix, gradient = normal_matrix(chain, state.pose, transforms, rows.point, by_point, r, irls)
    diagonal, pull, energy = _regularisers(chain, state, prior)
    matrix[np.diag_indices_from(matrix)] += diagonal
    return matrix, gradient + pull, data_energy + energy


def total_energy(chain: Chain, observation: Observation, state: State, prior: Prior, rows: Rows) -> float:
    """data + prior + smoothness, on fixed associations."""
    return _energy_at(chain, observation, state, _posed(chain, state)[1], prior, rows)


def _energy_at(
    chain: Chain, observation: Observation, state: State, points_m: np.ndarray, prior: Prior, rows: Rows
) -> float:
    r, _ = residuals(rows, points_m, observation)
    return robust_energy(r, rows.scale)[0] + _regularisers(chain, state, prior)[2]


def pose_cost(chain: Chain, faces: np.ndarray, observation: Observation, state: State, prior: Prior) -> float:
    """The energy by which whole poses are compared: every cell of the picture has a say, explained or not.

    landmarks + prior + smoothness + PICTURE_COUNT * mean over the cells of body or person of
        1                                  where only one of them is
        min(1, (z_body - z_seen)^2 / s^2)  where both are, and depth was seen.
    The rows of a solve leave out what is far from the model; a pose must not win by leaving out an arm.
    """
    points_m = chain.posed(state.pose, state.camera_from_body)
    rows = Rows.concatenate(_landmark_terms(observation, points_m, chain.num_vertices, EVERYWHERE, 0.5))
    _, face_index, depth_m = drawn(observation, points_m[: chain.num_vertices], faces)
    surface_m = observation.surface_m if observation.surface_m is not None else NO_SURFACE
    mean_cost = _picture_cost(observation.mask, observation.inside, face_index, depth_m, surface_m)
    return _energy_at(chain, observation, state, points_m, prior, rows) + PICTURE_COUNT * mean_cost


@njit(cache=True, nogil=True)
def _picture_cost(mask, inside, face_index, depth_m, surface_m):  # type: ignore[no-untyped-def]
    total, count = 0.0, 0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if not inside[row, column]:
                continue
            seen, body = mask[row, column] > 0.5, face_index[row, column] >= 0
            count += seen or body
            if seen != body:
                total += 1.0
            elif seen and len(surface_m) and np.isfinite(surface_m[row, column, 2]):
                total += min(((depth_m[row, column] - surface_m[row, column, 2]) / PICTURE_SCALE_M) ** 2, 1.0)
    return total / max(count, 1)


def _regularisers(chain: Chain, state: State, prior: Prior) -> tuple[np.ndarray, np.ndarray, float]:
    dofs = chain.dofs(state.pose)
    neighbour = None if prior.neighbour is None else chain.dofs(prior.neighbour.pose)
    a = prior_terms(prior, dofs)
    b = smoothness_terms(prior, state, dofs, neighbour, chain.joints_m[0])
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _between(ends: tuple[float, float], progress: float) -> float:
    """From the first value to the second, geometrically; an infinite first value lasts one third of the way."""
    if np.isinf(ends[0]):
        return ends[0] if progress < 0.34 else ends[1] * (1 + 3 * (1 - progress))
    return float(ends[0] * (ends[1] / ends[0]) ** progress)


def prior_terms(prior: Prior, dofs: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Diagonal weights (D + 6,), gradient (D + 6,) and energy of pose prior and joint limits.

    E = |w (x - mean)|^2 + |max(0, x - upper, lower - x)|^2 / s_l^2.
    """
    return _prior_terms(prior.mean, prior.weight, prior.lower, prior.upper, dofs)


@njit(cache=True, nogil=True)
def _prior_terms(mean, weight, lower, upper, dofs):  # type: ignore[no-untyped-def]
    count = len(dofs)
    diagonal, gradient, energy = np.zeros(count + 6), np.zeros(count + 6), 0.0
    for d in range(count):
        square, pull = weight[d] ** 2, dofs[d] - mean[d]
        diagonal[d], gradient[d] = square, square * pull
        energy += square * pull**2
        beyond = max(dofs[d] - upper[d], 0.0) - max(lower[d] - dofs[d], 0.0)
        if beyond != 0.0:
            diagonal[d] += LIMIT_SIGMA_RAD**-2
            gradient[d] += beyond * LIMIT_SIGMA_RAD**-2
            energy += beyond**2 * LIMIT_SIGMA_RAD**-2
    return diagonal, gradient, energy


def smoothness_terms(
    prior: Prior, state: State, dofs: np.ndarray, neighbour_dofs: np.ndarray | None, root_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Diagonal weights, gradient and energy of the distance to the neighbouring pose and placement.

    E = |x - x_neighbour|^2 / s_p^2 + |log(R R_neighbour^T)|^2 / s_t^2 + |root - root_neighbour|^2 / s_m^2.
    """
    if prior.neighbour is None or neighbour_dofs is None:
        return np.zeros(len(dofs) + 6), np.zeros(len(dofs) + 6), 0.0
    return _smoothness_terms(
        state.camera_from_body, prior.neighbour.camera_from_body, dofs, neighbour_dofs, root_m,
        prior.pose_sigma_rad, prior.turn_sigma_rad, prior.place_sigma_m,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _smoothness_terms(placed, before, dofs, neighbour_dofs, root_m, pose_sigma_rad, turn_sigma_rad, place_sigma_m):  # type: ignore[no-untyped-def]
    count = len(dofs)
    difference, weight = np.empty(count + 6), np.empty(count + 6)
    turn = np.zeros((3, 3))  # from the neighbour's placement to this one
    for r in range(3):
        shift = placed[r, 3] - before[r, 3]
        for k in range(3):
            shift += (placed[r, k] - before[r, k]) * root_m[k]
            for c in range(3):
                turn[r, c] += placed[r, k] * before[c, k]
        difference[count + 3 + r] = shift
        weight[count + 3 + r] = place_sigma_m**-2.0
    turned = rotation_vector(turn)
    for k in range(3):
        difference[count + k] = turned[k]
        weight[count + k] = turn_sigma_rad**-2.0
    for d in range(count):
        difference[d] = dofs[d] - neighbour_dofs[d]
        weight[d] = pose_sigma_rad**-2.0
    energy = 0.0
    for d in range(count + 6):
        energy += weight[d] * difference[d] ** 2
    return weight, weight * difference, energy


def advance(state: State, step: np.ndarray, chain: Chain) -> State:
    """The state after a step (D + 6,): pose DoFs add, the root turns about its own place, then shifts."""
    count = chain.num_free
    pose = chain.with_dofs(state.pose, chain.dofs(state.pose) + step[:count])
    rotation = rotations(step[None, count : count + 3])[0] @ state.camera_from_body[:3, :3]
    root_m = chain.joints_m[0]
    place = state.camera_from_body[:3, :3] @ root_m + state.camera_from_body[:3, 3] + step[count + 3 :]
    placed = np.eye(4)
    placed[:3, :3] = rotation
    placed[:3, 3] = place - rotation @ root_m
    return State(pose, placed)
