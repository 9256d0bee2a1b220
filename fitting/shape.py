"""Shape and focal length: solved once, jointly with the poses of a spread of frames, then fixed.

S shape coefficients, D pose DoFs, K frames.  The joint Gauss-Newton system is block-arrow: poses are eliminated frame
by frame with the Schur complement, so K frames cost K small solves.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from capture.camera import Camera
from capture.progress import progress
from capture.workers import in_threads
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import EVERYTHING, Clip, default_prior, fit_from_scratch, landmark_error
from fitting.solve import Schedule, State, advance, build_rows, normal_equations, solve_pose
from fitting.terms import residuals, robust_energy

log = logging.getLogger(__name__)

FOCALS = (0.85, 0.55, 0.7, 1.05, 1.3, 1.65)  # of the longer image side: a phone's usual lens, then from wide to long
UNUSUAL_FOCAL = 10.0  # energy per frame, times the squared logarithm of the ratio to the usual one
SHAPE_WEIGHT = 30.0  # rows of one frame are correlated and clothes are not shape: well above one
# While the size is unknown, what is seen pulls from both sides: a mean body inside a tall person must not pass for a
# small person in wide clothes.  In the last rounds cloth may stand off, and what is tight or bare keeps the size.
FIRST = replace(EVERYTHING, stands_off=False)
ONE_SIDED_ROUNDS = 2
HEIGHT_STD_M = 0.07  # of adults of one sex, about; what is assumed when nothing measures metres


def chain_of(
    body: BodyModel,
    shape: np.ndarray,
    offsets_m: np.ndarray | None = None,
    looseness_m: np.ndarray | None = None,
    landmark_offsets_m: np.ndarray | None = None,
) -> Chain:
    """The chain of a shaped body, with what is known of its clothes (V,), (V,) and of its landmarks (L, 3)."""
    bare_m = None if body.bare is body else body.bare.shaped(shape, offsets_m)[0]
    return Chain.build(body, *body.shaped(shape, offsets_m), looseness_m, landmark_offsets_m, bare_m)


def _shaved(body: BodyModel, shape: np.ndarray) -> Chain:
    """The chain by which a size is measured: the outline of the whole head has its say."""
    chain = chain_of(body, shape)
    return replace(chain, hair_m=np.zeros_like(chain.hair_m))


def body_height_m(body: BodyModel, shape: np.ndarray) -> float:
    """Sole to crown of the rest pose, metres."""
    vertices_m, _ = body.shaped(shape)
    return float(np.ptp(vertices_m[:, 2]))


def spread_frames(clip: Clip, count: int) -> list[int]:
    """Frames evenly spread over what may teach of the clip, each the most confidently detected of its span."""
    confidence = np.where(clip.keypoints.found, clip.keypoints.visibility[:, 11:].mean(1), -1)
    spans = np.array_split(np.arange(clip.num_teaching), min(count, clip.num_teaching))
    best = [int(span[confidence[span].argmax()]) for span in spans]
    return [i for i in best if confidence[i] > 0 and clip[i] is not None]


def solve_shape(
    body: BodyModel, clip: Clip, frames: list[int], height_m: float | None, rounds: int
) -> tuple[np.ndarray, float]:
    """Shape (S,) from the frames ``frames``, and the mean energy per frame that it leaves.

    ``height_m`` pins the body height; None leaves it to depth, or without depth to the mean adult.
    """
    shape = np.zeros(body.num_shape)
    chain = _shaved(body, shape)
    prior = default_prior(body, chain)

    def posed(i: int) -> State | None:
        observation = clip[i]
        assert observation is not None
        state, _ = fit_from_scratch(body, chain, observation, prior)
        state, _ = solve_pose(chain, body.faces, observation, state, prior, FIRST)
        return state if landmark_error(chain, observation, state) < 0.06 else None

    found = zip(frames, progress(in_threads(posed, frames), "shape: poses", len(frames)), strict=True)
    states = {i: state for i, state in found if state is not None}
    if not states:
        log.warning("no frame is clear enough to measure the body; the mean adult is used")
        return shape, float("inf")
    energy = 0.0
    for round_ in range(rounds):
        schedule = EVERYTHING if round_ >= rounds - ONE_SIDED_ROUNDS else FIRST
        shape, states, energy = _joint_step(body, clip, shape, states, height_m, schedule)
    return shape, energy / len(states)


def _joint_step(
    body: BodyModel,
    clip: Clip,
    shape: np.ndarray,
    states: dict[int, State],
    height_m: float | None,
    schedule: Schedule,
) -> tuple[np.ndarray, dict[int, State], float]:
    """One Gauss-Newton step on shape and all poses: (S - sum H_sp H_pp^-1 H_ps) ds = -(g_s - sum H_sp H_pp^-1 g_p)."""
    chain = _shaved(body, shape)
    prior = default_prior(body, chain)
    count = body.num_shape
    varied = [chain_of(body, shape + step) for step in np.eye(count)]
    matrix, gradient, energy = _shape_prior(body, shape, height_m, any(clip.recording.has_depth))

    eliminated: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def linearised(i: int) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
        """A frame's share of the shape's matrix, gradient and energy, and its pose, eliminated."""
        state, observation = states[i], clip[i]
        assert observation is not None
        rows = build_rows(chain, body.faces, observation, state, schedule, 0.7)
        h_pp, g_p, own_energy = normal_equations(chain, observation, state, prior, rows)
        points_m = chain.posed(state.pose, state.camera_from_body)
        # Posed points are affine in the shape: differences are exact derivatives.
        moves_m = np.stack([c.posed(state.pose, state.camera_from_body) - points_m for c in varied])  # (S, P, 3)
        r, by_point = residuals(rows, points_m, observation)
        _, irls = robust_energy(r, rows.scale)
        j_s = np.einsum("srx,rx->rs", moves_m[:, rows.point], by_point)
        j_p = chain.jacobian(state.pose, state.camera_from_body, rows.point, by_point)
        h_sp = (j_s * irls[:, None]).T @ j_p
        solved = np.linalg.solve(h_pp + np.diag(1e-3 * np.diag(h_pp) + 1e-9), np.column_stack([h_sp.T, g_p]))
        own_matrix = (j_s * irls[:, None]).T @ j_s - h_sp @ solved[:, :count]
        own_gradient = (j_s * irls[:, None]).T @ r - h_sp @ solved[:, count]
        return own_matrix, own_gradient, own_energy, solved[:, :count], solved[:, count]

    found = in_threads(linearised, states)
    for i, (own_matrix, own_gradient, own_energy, by_shape, alone) in zip(states, found, strict=True):
        matrix += own_matrix
        gradient += own_gradient
        energy += own_energy
        eliminated[i] = by_shape, alone
    step = -np.linalg.solve(matrix, gradient)
    step *= min(1.0, 1.0 / max(np.abs(step).max(), 1e-9))  # associations change: no more than one sigma at a time
    shape = np.clip(shape + step, -3, 3)
    chain = _shaved(body, shape)

    def moved(i: int) -> State:
        observation = clip[i]
        assert observation is not None
        by_shape, alone = eliminated[i]
        candidate = advance(states[i], -(alone + by_shape @ step), chain)
        return solve_pose(chain, body.faces, observation, candidate, prior, replace(schedule, iterations=3))[0]

    return shape, dict(zip(states, in_threads(moved, states), strict=True)), energy


def _shape_prior(
    body: BodyModel, shape: np.ndarray, height_m: float | None, has_depth: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """w |shape|^2 + ((height - wanted) / sigma)^2 with the height's exact derivative."""
    matrix, gradient = SHAPE_WEIGHT * np.eye(body.num_shape), SHAPE_WEIGHT * shape
    energy = SHAPE_WEIGHT * float(shape @ shape)
    if height_m is None and has_depth:
        return matrix, gradient, energy
    wanted, sigma = (height_m, 0.003) if height_m is not None else (body_height_m(body, 0 * shape), HEIGHT_STD_M)
    miss = body_height_m(body, shape) - wanted
    slope = np.array([body_height_m(body, shape + s) - body_height_m(body, shape) for s in np.eye(len(shape))])
    return (
        matrix + np.outer(slope, slope) / sigma**2,
        gradient + slope * miss / sigma**2,
        energy + (miss / sigma) ** 2,
    )


def estimate_focal(body: BodyModel, clip: Clip, frames: list[int], rounds: int) -> tuple[Camera, str]:
    """The colour camera with the focal length under which body and poses together explain ``frames`` best.

    Longer legs look like a nearer camera: by the mean body's energy alone a lens would stand in for a person's
    proportions, so the shape is solved, too, in ``rounds`` as by ``solve_shape``.  Perspective says little about
    somebody who fills a quarter of the view: the usual lens is a prior.  Returns the camera and a line for the log.
    """
    long_side, usual = max(clip.camera.image_wh), FOCALS[0]
    energies: dict[float, float] = {}
    for ratio in progress(FOCALS, "focal length"):
        tried = replace(clip, camera=clip.camera.with_focal(ratio * long_side))
        _, energies[ratio] = solve_shape(body, tried, frames, None, rounds)
        if not np.isfinite(energies[usual]):
            break
    best = min(energies, key=lambda ratio: energies[ratio] + UNUSUAL_FOCAL * np.log(ratio / usual) ** 2)
    camera = clip.camera.with_focal(best * long_side)
    table = ", ".join(f"{ratio:g}: {energies[ratio]:.1f}" for ratio in sorted(energies))
    return camera, (
        f"focal length estimated as {camera.fx_px:.0f} px, {best:g} of the longer side "
        f"(energy per frame by ratio: {table}); set recording.focal_px when you know it"
    )
