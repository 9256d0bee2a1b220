"""The second pass: all frames of a clip at once, so that past and future decide together.

N frames, D pose degrees of freedom and six of placement per frame, U = D + 6 unknowns each.  Gauss-Newton over

    E = sum_i data_i(x_i) + prior_i(x_i) + |x_{i-1} - 2 x_i + x_{i+1}|^2 / sigma^2 + |x_{i+1} - x_i|^2 / tau_i^2

and the same for the joints' places in space (``steady``), whose matrix is block-pentadiagonal: one banded Cholesky
solves a whole clip.  Accelerations are penalised, not velocities: a steady turn costs nothing, so it is carried through
the views in which its angle cannot be seen (a back turned by +10 and by -10 degrees look the same).  A limb that is not
seen at all would creep away as steadily, and be back elsewhere: the less is seen of it, the more its steps cost, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import maximum_filter1d
from scipy.spatial.transform import Rotation

from capture.progress import progress
from capture.workers import in_threads
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import REFINE, Clip
from fitting.limbs import ENDS, SURE_LANDMARK
from fitting.rest import resting
from fitting.solve import Prior, State, advance, build_rows, normal_equations, total_energy
from fitting.steady import BEND, STEP, Steadiness
from fitting.terms import MIN_CONFIDENCE, Rows

CHUNK, OVERLAP = 400, 40  # frames solved together, and how many of them are solved again with the next chunk
USUAL_STEP_S = 1 / 30
USUAL_PACE, PACES = 0.006, (0.33, 5.0)  # of the height per frame: 30 cm/s at 30 frames per second; least and most


@dataclass(frozen=True)
class Smoothness:
    """Standard deviations at 30 frames per second and the usual pace: of the change between two neighbouring steps, and
    of a step itself where a limb is not seen."""

    pose_rad: float = 0.03
    drift_rad: float = 0.02  # of such a step
    turn_rad: float = 0.008
    place_m: float = 0.004


def refine(
    body: BodyModel,
    chain: Chain,
    clip: Clip,
    prior: Prior,
    states: dict[int, State],
    rounds: int = 10,
    smoothness: Smoothness | None = None,
    more: Callable[[int, State], Rows] | None = None,
) -> dict[int, State]:
    """All ``states`` solved jointly; frames without a state split the clip into pieces that do not feel each other.

    ``more(frame, state)`` adds rows to a frame's own.
    """
    smoothness = smoothness or Smoothness()
    refined = dict(states)
    chunks = [
        (piece, begin)
        for piece in _pieces(sorted(states))
        for begin in range(0, max(len(piece) - OVERLAP, 1), CHUNK - OVERLAP)
    ]
    done = progress(range(len(chunks) * rounds), "all frames at once")
    for piece, begin in chunks:
        frames = piece[begin : begin + CHUNK]
        held = 2 if begin else 0  # the frames before are settled; two of them carry the velocity over
        frames = piece[max(begin - held, 0) : begin] + frames
        solved = _solve(body, chain, clip, prior, refined, frames, held, rounds, smoothness, more, done)
        refined.update(solved)
    return refined


def _pieces(frames: list[int]) -> list[list[int]]:
    """Runs of consecutive frames."""
    cuts = [k for k in range(1, len(frames)) if frames[k] != frames[k - 1] + 1]
    return [frames[a:b] for a, b in zip([0, *cuts], [*cuts, len(frames)], strict=True)] if frames else []


def _solve(
    body: BodyModel,
    chain: Chain,
    clip: Clip,
    prior: Prior,
    states: dict[int, State],
    frames: list[int],
    held: int,
    rounds: int,
    smoothness: Smoothness,
    more: Callable[[int, State], Rows] | None,
    done: Iterator[int],
) -> dict[int, State]:
    """Gauss-Newton with a step that is halved until the energy of the whole piece falls; ``done`` counts the rounds."""
    alone = replace(prior, neighbour=None)
    current = [states[i] for i in frames]
    step_s = _step_s(clip, frames)
    pace = _pace(clip, frames)
    weight = _weights(chain, smoothness, step_s) / pace[1:-1, None] ** 2
    unseen = _unseen(chain, clip, frames)
    drift_rad = smoothness.drift_rad * step_s / USUAL_STEP_S * np.maximum(pace[1:], pace[:-1])
    drift = np.minimum(unseen[1:], unseen[:-1]) * drift_rad[:, None] ** -2.0
    steady = Steadiness.of(chain, current, step_s, resting(clip, frames, step_s)) if len(frames) > 2 else None
    for round_ in range(rounds):
        next(done)

        def linearised(
            item: tuple[int, State], share: float = round_ / max(rounds - 1, 1)
        ) -> tuple[Rows, tuple[np.ndarray, np.ndarray, float]]:
            i, state = item
            observation = clip[i]
            assert observation is not None
            own = build_rows(chain, body.faces, observation, state, REFINE, share)
            if more is not None:
                own = Rows.concatenate([own, more(i, state)])
            return own, normal_equations(chain, observation, state, alone, own)

        rows, blocks, gradients, energy = [], [], [], 0.0
        for own, (block, gradient, value) in in_threads(linearised, zip(frames, current, strict=True)):
            rows.append(own)
            blocks.append(block)
            gradients.append(gradient)
            energy += value
        changes = _changes(chain, current, weight, drift)
        energy += _change_energy(changes)
        coupled, gradient = _coupled(np.array(blocks)), np.array(gradients)
        if steady is not None:
            energy += steady.energy(current)
            more_coupled, more_gradient = steady.normal_equations(current)
            coupled, gradient = coupled + more_coupled, gradient + more_gradient
        step = _banded_step(coupled, gradient, changes, held)
        for factor in (1.0, 0.5, 0.25, 0.1):
            candidate = [advance(state, factor * s, chain) for state, s in zip(current, step, strict=True)]
            after = _energy(chain, clip, frames, candidate, alone, rows, weight, drift)
            if steady is not None:
                after += steady.energy(candidate)
            if after <= energy:
                current = candidate
                break
        else:
            for _ in range(round_ + 1, rounds):
                next(done)
            break
    return dict(zip(frames[held:], current[held:], strict=True))


def _step_s(clip: Clip, frames: list[int]) -> float:
    times_s = clip.recording.times_s[frames]
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else USUAL_STEP_S


def _pace(clip: Clip, frames: list[int]) -> np.ndarray:
    """(N,) how lively the person moves around each frame, 1 = USUAL_PACE: who moves fast also turns fast.

    The way of the median landmark that is seen, over the standing person's height, at its fastest within two frames.
    Without it one stiffness would blur a leap and leave a standing person trembling; landmarks out of view leap about
    though nobody moves, and half a person in the picture is no faster than a whole one.
    """
    points_px = clip.keypoints.points_px[frames].copy()
    height_px = np.full(len(frames), np.nan)
    for k, index in enumerate(frames):
        observation = clip[index]
        if observation is not None:
            height_px[k] = observation.standing_px * clip.camera.fx_px / observation.camera.fx_px
            points_px[k, observation.confidence < MIN_CONFIDENCE] = np.nan
    way = np.full(len(frames), np.nan)
    if len(frames) > 2:
        moved = np.linalg.norm(points_px[2:] - points_px[:-2], axis=2) / 2  # two steps: jitter counts for less
        known = np.isfinite(moved).any(1)
        way[1:-1][known] = np.nanmedian(moved[known], axis=1) / height_px[1:-1][known]
    way = np.where(np.isfinite(way), way, np.nanmedian(way) if np.isfinite(way).any() else USUAL_PACE)
    fastest = maximum_filter1d(way, 5, mode="nearest")
    return np.clip(fastest / USUAL_PACE, *PACES)


def _unseen(chain: Chain, clip: Clip, frames: list[int]) -> np.ndarray:
    """(N, U) from 0 to 1, how little is seen of the limb that an angle belongs to, by the confidence of its middle and
    end; 0 for the trunk and the placement."""
    confidence = np.array([clip[i].confidence for i in frames])  # type: ignore[union-attr]
    seen = np.minimum(confidence / SURE_LANDMARK, 1)
    unseen = np.zeros((len(frames), chain.num_free + 6))
    for joints, (_, *marks) in zip(chain.limbs, ENDS.values(), strict=True):
        own = np.flatnonzero(np.isin(chain.free_joint, joints))
        unseen[:, own] = 1 - seen[:, marks].mean(1, keepdims=True)
    return unseen


def _weights(chain: Chain, smoothness: Smoothness, step_s: float) -> np.ndarray:
    """(U,) one over sigma^2 at the usual pace; the same motion bends less between frames that are closer in time."""
    share = (step_s / USUAL_STEP_S) ** 2
    sigma = np.concatenate(
        [
            np.full(chain.num_free, smoothness.pose_rad),
            np.full(3, smoothness.turn_rad),
            np.full(3, smoothness.place_m),
        ]
    )
    return (sigma * share) ** -2.0


def _bends(chain: Chain, states: list[State]) -> np.ndarray:
    """(N - 2, U) change of velocity at every inner frame; turns as rotation vectors in the camera's frame."""
    dofs = np.array([chain.dofs(state.pose) for state in states])
    placed = np.array([state.camera_from_body for state in states])
    rotation = placed[:, :3, :3]
    root_m = np.einsum("nij,j->ni", rotation, chain.joints_m[0]) + placed[:, :3, 3]
    turns = Rotation.from_matrix(rotation[1:] @ rotation[:-1].transpose(0, 2, 1)).as_rotvec()
    return np.concatenate([np.diff(dofs, 2, axis=0), np.diff(turns, axis=0), np.diff(root_m, 2, axis=0)], axis=1)


_Change = tuple[tuple[float, ...], np.ndarray, np.ndarray]  # stencil of K frames, values and weights (N - K + 1, U)


def _changes(chain: Chain, states: list[State], weight: np.ndarray, drift: np.ndarray) -> list[_Change]:
    """Of steps, ``weight`` (N - 2, U), and of poses, ``drift`` (N - 1, U)."""
    return [(BEND, _bends(chain, states), weight), (STEP, _steps(chain, states), drift)]


def _change_energy(changes: list[_Change]) -> float:
    return float(sum((values**2 * weight).sum() for _, values, weight in changes))


def _steps(chain: Chain, states: list[State]) -> np.ndarray:
    """(N - 1, U) how far the pose goes from frame to frame; 0 for the placement."""
    dofs = np.array([chain.dofs(state.pose) for state in states])
    return np.pad(np.diff(dofs, axis=0), ((0, 0), (0, 6)))


def _energy(
    chain: Chain,
    clip: Clip,
    frames: Iterable[int],
    states: list[State],
    prior: Prior,
    rows: list[Rows],
    weight: np.ndarray,
    drift: np.ndarray,
) -> float:
    energy = _change_energy(_changes(chain, states, weight, drift))
    for i, state, own in zip(frames, states, rows, strict=True):
        observation = clip[i]
        assert observation is not None
        energy += total_energy(chain, observation, state, prior, own)
    return energy


def _coupled(blocks: np.ndarray) -> np.ndarray:
    """(3, N, U, U) from the frames' own blocks (N, U, U): nothing couples a frame with the next two."""
    return np.stack([blocks, np.zeros_like(blocks), np.zeros_like(blocks)])


def _banded_step(blocks: np.ndarray, gradients: np.ndarray, changes: list[_Change], held: int) -> np.ndarray:
    """(N, U) minimiser of the quadratic model; the first ``held`` frames stay.

    blocks (3, N, U, U): [d, i] couples frame i + d (rows) with frame i (columns); gradients (N, U) and changes of the
    current states.  Changes are not damped: what all frames do together costs them nothing.
    """
    count, size = gradients.shape
    gradient = gradients.copy()
    band = np.zeros((3 * size, count * size))  # lower form: band[r - c, c]
    by_frame = band.reshape(3 * size, count, size)
    for column in range(size):
        by_frame[: size - column, :, column] = blocks[0, :, column:, column].T
        for apart in (1, 2):
            first = apart * size - column
            by_frame[first : first + size, :, column] = blocks[apart, :, :, column].T
    damping = 1e-3 * band[0] + 1e-6
    band[0] += damping
    for stencil, values, weight in changes:
        for a, part in enumerate(stencil):
            gradient[a : a + len(values)] += part * weight * values
            for b in range(a + 1):
                # Frames k + a and k + b of every group k: a column of the later block b, a row of block a.
                by_frame[(a - b) * size, b : b + len(values)] += part * stencil[b] * weight
    if held:
        by_frame[0, :held] += 1e12
        gradient[:held] = 0
    return -solveh_banded(band, gradient.ravel(), lower=True).reshape(count, size)
