"""Which leg is which, where the detector may have taken one for the other.

Seen from behind and from the side, a detector that works frame by frame changes its mind about left and right, often of
the legs alone.  Trunk and arms then stay where they are, each frame by itself looks well explained, and the legs leap
through each other.  So the question is put to whole passages.  In every frame beside a leap a few poses compete, with
the legs' landmarks as the detector names them and with their names exchanged; the passage goes through those that are

    argmin  sum_i shown_i(x_i) + |p_{i-1} - 2 p_i + p_{i+1}|^2 / sigma^2        (p: knees and ankles in space)

``shown`` is what landmarks, outline and depth say of the legs, each pose by its own names.  The Viterbi algorithm finds
it exactly.  K candidates per frame, N frames, h x w grid cells, F faces.

Before there is any pose, the landmarks alone are followed through the picture in the same way (``follow_legs``): a foot
that stands stays there, a foot that swings swings on, and names that hop from one leg to the other hop back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import EVERYTHING, FOLLOW, Clip
from fitting.keypoints import LANDMARK_NAMES, LEG_MIRROR
from fitting.limbs import LIMBS
from fitting.observe import PERSON_M, Observation
from fitting.solve import PICTURE_COUNT, PICTURE_SCALE_M, Prior, Schedule, State, solve_pose
from fitting.terms import landmark_rows, residuals, robust_energy, world_rows
from fitting.view import drawn

log = logging.getLogger(__name__)

USUAL_M_PER_S2 = 5.7  # along each axis; 1 g in all, root mean square of knees and ankles in a lively dance
SCATTER_M = 0.02  # of a bend: a frame's own fit scatters by 8 mm along each axis
EXCHANGE_COST = 20.0  # per frame: the detector is right until shown wrong
EXCHANGE_IN_PICTURE_COST = 5.0  # the same where nothing but the landmarks' way in the picture is asked
LEAP_M_PER_S2, LEAP_M = 40.0, 0.12  # 4 g, and the distance of two legs: a reason to look, not a verdict
BESIDE_FRAMES = 3  # the change of sides may be a little off the leap, for it begins where the legs are close
# The legs must first come out of where they are: landmarks alone, as far as it takes.
CROSS = Schedule(10, landmark_scale=(np.inf, 6.0), world_sigma_m=(0.06, 0.12), use_depth=False, use_outline=False)
LANDMARK_SCALE, WORLD_SIGMA_M = 4.5, 0.085  # as where whole poses are compared
_POINTS = [LANDMARK_NAMES.index(f"{side}_{name}") for name in ("knee", "ankle") for side in ("left", "right")]
_SHIN = [LANDMARK_NAMES.index(f"{side}_{name}") for name in ("knee", "ankle", "heel", "foot_index")
         for side in ("left", "right")]  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """One pose that a frame may have been, and whether it takes the legs' landmarks with their names exchanged."""

    state: State
    exchanged: bool


def follow_legs(clip: Clip) -> Clip:
    """The clip with the legs' landmarks named so that knees and ankles bend their ways in the picture least."""
    points_px, found = clip.keypoints.points_px, np.isfinite(clip.keypoints.points_px[:, _POINTS]).all((1, 2))
    exchanged: list[int] = []
    frames = np.flatnonzero(found)
    sigma = float(np.hypot(USUAL_M_PER_S2 * clip.step_s**2, np.sqrt(6) * SCATTER_M) / PERSON_M)  # a bend of three
    for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
        if len(run) > 2:
            # Over the person's height: the extent of the landmarks, a squat of a second aside.
            height_px = float(np.median(np.nanmax(points_px[run, :, 1], 1) - np.nanmin(points_px[run, :, 1], 1)))
            named = points_px[run] / max(height_px, 1.0)
            places = np.stack([named[:, _POINTS], named[:, LEG_MIRROR][:, _POINTS]], axis=1)  # (N, 2, P, 2)
            path = cheapest_path([np.array([0.0, EXCHANGE_IN_PICTURE_COST])] * len(run), list(places), sigma)
            exchanged += run[np.array(path) == 1].tolist()
    if not exchanged:
        return clip
    log.info("names of left and right leg hopped in %d frames", len(exchanged))
    return clip.with_legs_exchanged(exchanged)


def settle_legs(
    body: BodyModel, chain: Chain, clip: Clip, prior: Prior, states: dict[int, State]
) -> tuple[Clip, dict[int, State]]:
    """The clip with the legs' landmarks named as the passages say, and the poses that go with it."""
    settled = dict(states)
    exchanged: list[int] = []
    for passage in passages(chain, clip, states):
        candidates = _candidates(body, chain, clip, prior, states, passage)
        shown = [legs_shown(body, chain, clip, i, own) for i, own in zip(passage, candidates, strict=True)]
        places_m = [np.array([_places(chain, c.state) for c in own]) for own in candidates]
        sigma_m = float(np.hypot(USUAL_M_PER_S2 * clip.step_s**2, SCATTER_M))
        for i, own, k in zip(passage, candidates, cheapest_path(shown, places_m, sigma_m), strict=True):
            settled[i] = own[k].state
            if own[k].exchanged:
                exchanged.append(i)
    if not exchanged:
        return clip, settled
    log.info("left and right leg exchanged in %d frames", len(exchanged))
    return clip.with_legs_exchanged(exchanged), settled


def passages(chain: Chain, clip: Clip, states: dict[int, State]) -> list[list[int]]:
    """Runs of frames around those in which a knee or an ankle leaps that the picture shows; what it does not show
    leaps by itself."""
    frames = np.array(sorted(states))
    inner = np.flatnonzero(frames[2:] - frames[:-2] == 2) + 1
    if not len(inner):
        return []
    places_m = np.array([_places(chain, states[i]) for i in frames])
    is_shown = np.array([_is_shown(clip, i) for i in frames.tolist()])
    bends_m = np.linalg.norm(places_m[inner - 1] - 2 * places_m[inner] + places_m[inner + 1], axis=2)
    bend_m = (bends_m * (is_shown[inner - 1] & is_shown[inner] & is_shown[inner + 1])).max(1)
    leaps = frames[inner[bend_m > max(LEAP_M_PER_S2 * clip.step_s**2, LEAP_M)]]
    near = [i for i in frames.tolist() if len(leaps) and np.abs(leaps - i).min() <= BESIDE_FRAMES]
    cuts = np.flatnonzero(np.diff(near) > 1) + 1
    return [run.tolist() for run in np.split(np.array(near, int), cuts) if len(run) > 2]


def _is_shown(clip: Clip, index: int) -> np.ndarray:
    """(4,) bool: the knees and ankles that the detector places inside the picture."""
    observation = clip[index]
    assert observation is not None
    points_px = np.nan_to_num(observation.landmarks_px[_POINTS], nan=-1.0)
    column, row = np.floor(points_px).astype(int).T
    width, height = observation.camera.image_wh
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    inside[inside] = observation.inside[row[inside], column[inside]]
    return inside


def _places(chain: Chain, state: State) -> np.ndarray:
    """(4, 3) knees and ankles."""
    return chain.posed(state.pose, state.camera_from_body)[chain.num_vertices :][_POINTS]


def _candidates(
    body: BodyModel, chain: Chain, clip: Clip, prior: Prior, states: dict[int, State], passage: list[int]
) -> list[list[Candidate]]:
    """Of every frame: the pose there is, one that comes from the future, and both with the legs exchanged."""
    alone = replace(prior, neighbour=None)
    after: State | None = None
    found = []
    for i in reversed(passage):
        observation = clip[i]
        assert observation is not None
        own = [Candidate(states[i], False)]
        if after is not None:
            turned, _ = solve_pose(chain, body.faces, observation, after, replace(prior, neighbour=after), FOLLOW)
            own.append(Candidate(solve_pose(chain, body.faces, observation, turned, alone, EVERYTHING)[0], False))
        exchanged = observation.with_legs_exchanged()
        for start in [c.state for c in own]:
            crossed, _ = solve_pose(chain, body.faces, exchanged, start, alone, CROSS)
            own.append(Candidate(solve_pose(chain, body.faces, exchanged, crossed, alone, EVERYTHING)[0], True))
        after = own[len(own) // 2 - 1].state
        found.append(own)
    return found[::-1]


def legs_shown(body: BodyModel, chain: Chain, clip: Clip, index: int, candidates: list[Candidate]) -> np.ndarray:
    """(K,) how badly each candidate explains the legs: their landmarks, and the cells in which any draws a shin.

    The rest of the picture is the same person in the same clothes: a skirt that one pose fills better by chance would
    outweigh the feet.  Cells cost what they cost in ``pose_cost``.
    """
    observation = clip[index]
    assert observation is not None
    shin = _shin_faces(body)
    pictures, energies = [], []
    for candidate in candidates:
        points_m = chain.posed(candidate.state.pose, candidate.state.camera_from_body)
        named = observation.with_legs_exchanged() if candidate.exchanged else observation
        energies.append(_landmark_energy(chain, named, points_m) + EXCHANGE_COST * candidate.exchanged)
        _, face_index, depth_m = drawn(observation, points_m[: chain.num_vertices], body.faces)
        pictures.append((face_index, depth_m))
    region = np.any([(face >= 0) & shin[face] for face, _ in pictures], axis=0) & observation.inside
    person = observation.mask > 0.5
    cells = max(int((person & observation.inside).sum()), 1)
    for k, (face_index, depth_m) in enumerate(pictures):
        is_body = face_index >= 0
        cost = (is_body != person).astype(float)
        if observation.surface_m is not None:
            seen_m = observation.surface_m[..., 2]
            both = is_body & person & np.isfinite(seen_m)
            cost[both] = np.minimum(((depth_m[both] - seen_m[both]) / PICTURE_SCALE_M) ** 2, 1.0)
        energies[k] += PICTURE_COUNT * cost[region].sum() / cells
    return np.array(energies)


def _shin_faces(body: BodyModel) -> np.ndarray:
    """(F,) bool: the faces below the knees."""
    names = {name for limb, (parts, _) in LIMBS.items() if limb.endswith("leg") for name in parts}
    return np.isin(body.face_part, [k for k, name in enumerate(body.part_names) if name in names])


def _landmark_energy(chain: Chain, observation: Observation, points_m: np.ndarray) -> float:
    """Of the legs' landmarks in the picture and in the detector's metres."""
    total = 0.0
    for rows in (
        landmark_rows(observation, chain.num_vertices, LANDMARK_SCALE),
        world_rows(observation, points_m, chain.num_vertices, WORLD_SIGMA_M),
    ):
        r, _ = residuals(rows, points_m, observation)
        own = np.isin(rows.point - chain.num_vertices, _SHIN)
        total += robust_energy(r[own], rows.scale[own])[0]
    return total


def cheapest_path(shown: list[np.ndarray], places_m: list[np.ndarray], sigma_m: float) -> list[int]:
    """Which candidate of every frame: least sum of ``shown`` (K,) and of squared bends of ``places_m`` (K, P, axes).

    Bends look at three frames, so the Viterbi algorithm runs over pairs of neighbours.  At least two frames.
    """
    cost = shown[0][:, None] + shown[1][None, :]  # (a, b): the last two frames are a and b
    came_from = []
    for k in range(2, len(shown)):
        before, here, after = places_m[k - 2], places_m[k - 1], places_m[k]
        bend = before[:, None, None] - 2 * here[None, :, None] + after[None, None]  # (a, b, c, P, 3)
        total = cost[:, :, None] + (bend**2).sum((-1, -2)) / sigma_m**2
        came_from.append(total.argmin(0))
        cost = total.min(0) + shown[k][None, :]
    b, c = (int(k) for k in np.unravel_index(cost.argmin(), cost.shape))
    path = [c, b]
    for back in reversed(came_from):
        b, c = int(back[b, c]), b
        path.append(b)
    return path[::-1]
