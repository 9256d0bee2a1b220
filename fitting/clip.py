"""Tracking through a clip: start, warm start, recovery, and a second pass that sees past and future.

N frames.  A frame that cannot be explained is lost and says why; its pose is not made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from capture.camera import Camera
from capture.matting import Masks
from capture.recording import Recording
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.facing import rotations_from_pixels
from fitting.keypoints import Keypoints
from fitting.observe import Observation, observe
from fitting.shelf import Shelf
from fitting.solve import Prior, Schedule, State, pose_cost, render_view, solve_pose
from fitting.terms import landmark_rows, residuals

FROM_SCRATCH = Schedule(
    14, landmark_scale=(np.inf, 6.0), world_sigma_m=(0.03, 0.08), use_depth=False, use_outline=False
)
LOOK = Schedule(3, landmark_scale=(6.0, 6.0))
FOLLOW = Schedule(4, landmark_scale=(8.0, 4.0), use_depth=False, use_outline=False)
EVERYTHING = Schedule(8, landmark_scale=(6.0, 3.0))  # once the landmarks have been followed
# All at once, from a pose that may be off.  Landmarks come without a kernel at first: 0.1 rad in each joint of an arm
# put the hand where a kernel no longer asks for it, and surface and outline then fix it wherever it is.
ALONE = Schedule(5, steps=2, landmark_scale=(np.inf, 3.0))
REFINE = Schedule(
    5,
    landmark_scale=(4.0, 3.0),
    gate_m=(0.12, 0.08),
    gate_outline=(0.07, 0.04),
    landmark_depth_sigma_m=(0.1, 0.1),
    world_sigma_m=(0.8, 0.8),  # its limbs are off by a hand; by now it has said which is in front
)

MAX_TURN_RAD = 0.9  # a fresh start that faces this far elsewhere contradicts the frame before
LOST_LANDMARK = 0.10  # median landmark error over the person's height: beyond it the pose is another one
LOST_IOU = 0.35
USUAL_STEP_S = 1 / 30
OBSERVED_BYTES = 1_000_000_000  # of evidence in memory: 700 frames with depth, eight thousand without


@dataclass(frozen=True)
class Clip:
    """The evidence of a whole recording, frame by frame, under one colour camera."""

    recording: Recording
    masks: Masks
    keypoints: Keypoints
    camera: Camera
    first_heldout: int | None = None  # frames from here on teach nothing that stays the same; None: all teach
    scratch: Path | None = None  # where evidence goes that has no room in memory
    _observed: Shelf[Observation | None] = field(init=False, repr=False, compare=False)
    _detected: Keypoints = field(init=False, repr=False, compare=False)  # that evidence is read with
    _exchanged: frozenset[int] = field(init=False, repr=False, compare=False)  # frames whose legs have other names now

    def __post_init__(self) -> None:
        self._share(Shelf(OBSERVED_BYTES, self.scratch), self.keypoints, frozenset())

    def _share(self, observed: Shelf[Observation | None], detected: Keypoints, exchanged: frozenset[int]) -> None:
        for name, value in (("_observed", observed), ("_detected", detected), ("_exchanged", exchanged)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.recording)

    def __getitem__(self, index: int) -> Observation | None:
        """The evidence of one frame, None where nobody was found."""
        own = self._observed.get(index, self._observe)
        return own.with_legs_exchanged() if own is not None and index in self._exchanged else own

    @property
    def num_teaching(self) -> int:
        """Frames 0 to this one, exclusive, may teach what stays the same over the clip: shape, clothes, colours."""
        return len(self) if self.first_heldout is None else self.first_heldout

    @property
    def step_s(self) -> float:
        """The usual time from frame to frame."""
        times_s = self.recording.times_s
        return float(np.median(np.diff(times_s))) if len(times_s) > 1 else USUAL_STEP_S

    def _observe(self, index: int) -> Observation | None:
        keypoints = self._detected
        if not keypoints.found[index]:
            return None
        return observe(
            self.camera,
            self.recording.rig,
            self.masks[index],
            self.recording.depth_mm(index),
            keypoints.points_px[index],
            keypoints.visibility[index],
            keypoints.world_m[index],
        )

    def with_legs_exchanged(self, frames: Sequence[int]) -> Clip:
        """The same clip if the detector had taken one leg for the other in ``frames``, from the knees down."""
        named = replace(self, keypoints=self.keypoints.with_legs_exchanged(frames))
        named._share(self._observed, self._detected, self._exchanged ^ set(frames))  # nothing need be read again
        return named

    def why_unseen(self, index: int) -> str:
        """The reason why frame ``index`` has no evidence."""
        return "no landmarks found" if not self.keypoints.found[index] else "empty mask"


def heldout_from(found: np.ndarray, train_fraction: float) -> int:
    """The first frame of the held-out part: what comes before has ``train_fraction`` of the frames (N,) bool in which
    somebody was found, at least one and not all."""
    frames = np.flatnonzero(found)
    if len(frames) < 2:
        return len(found)
    return int(frames[np.clip(int(train_fraction * len(frames)), 1, len(frames) - 1)])


def default_prior(body: BodyModel, chain: Chain) -> Prior:
    """The body's own prior and limits on the chain's DoFs."""
    pick = chain.free_joint, chain.free_axis
    return Prior(
        mean=np.asarray(body.local_prior_mean, float)[pick],
        weight=1.0 / np.maximum(np.asarray(body.local_prior_std, float)[pick], 0.02),
        lower=np.asarray(body.local_lower, float)[pick],
        upper=np.asarray(body.local_upper, float)[pick],
    )


def start_states(chain: Chain, observation: Observation, num_joints: int, prior: Prior) -> list[State]:
    """A pose at ease, placed by the landmarks' size and the trunk's directions in the detector's skeleton; one for each
    direction that is possible where the detector gives no such skeleton."""
    pose = chain.with_dofs(np.zeros((num_joints, 3)), prior.mean)
    world = observation.world_m
    left = world[11] - world[12] + world[23] - world[24]
    up = world[[11, 12]].mean(0) - world[[23, 24]].mean(0)
    if np.isfinite([left, up]).all():
        z = up / np.linalg.norm(up)
        x = left - z * (left @ z)
        x /= max(np.linalg.norm(x), 1e-6)
        rotations = [np.stack([x, np.cross(z, x), z], axis=1)]
    else:
        rest_m = chain.posed(pose, np.eye(4))[chain.num_vertices :]
        rotations = rotations_from_pixels(observation.landmarks_px, rest_m)
    states = []
    for rotation in rotations:
        placed = np.eye(4)
        placed[:3, :3] = rotation
        landmarks = chain.posed(pose, placed)[chain.num_vertices :]
        placed[:3, 3] = _translation(observation, landmarks)
        states.append(State(pose, placed))
    return states


def _translation(observation: Observation, landmarks_m: np.ndarray) -> np.ndarray:
    """The shift (3,) that brings landmarks onto their pixels: u (z + tz) = f (x + tx) + c (z + tz), least squares."""
    camera = observation.camera
    weight = np.where(np.arange(len(landmarks_m)) > 10, observation.confidence, 0.2 * observation.confidence)
    seen = np.flatnonzero((weight > 0.1) & np.isfinite(observation.landmarks_px[:, 0]))
    u = (observation.landmarks_px[seen, 0] - camera.cx_px) / camera.fx_px
    v = (observation.landmarks_px[seen, 1] - camera.cy_px) / camera.fy_px
    one, zero = np.ones(len(seen)), np.zeros(len(seen))
    x, y, z = landmarks_m[seen].T
    matrix = np.concatenate([np.stack([one, zero, -u], 1), np.stack([zero, one, -v], 1)])
    right = np.concatenate([u * z - x, v * z - y])
    w = np.concatenate([weight[seen], weight[seen]])
    shift = np.linalg.lstsq(matrix * w[:, None], right * w, rcond=None)[0]
    return shift if shift[2] > 0.3 else np.array([0.0, 0.0, 3.0])


def fit_from_scratch(body: BodyModel, chain: Chain, observation: Observation, prior: Prior) -> tuple[State, float]:
    """Pose of a frame without any history, from its landmarks; between two starts depth and outline decide."""
    starts = start_states(chain, observation, body.num_joints, prior)
    solved = [solve_pose(chain, body.faces, observation, start, prior, FROM_SCRATCH) for start in starts]
    if len(solved) == 1:
        return solved[0]
    looked = [solve_pose(chain, body.faces, observation, state, prior, LOOK)[1] for state, _ in solved]
    return solved[int(np.argmin(looked))]


def track(body: BodyModel, chain: Chain, clip: Clip, prior: Prior, frames: Iterable[int]) -> dict[int, State]:
    """First pass, in the order of ``frames``: follow the frame before, and where the detector's word contradicts it,
    let full energies decide between history, a new start, and the detector having exchanged left and right."""
    states: dict[int, State] = {}
    before: State | None = None
    for index in frames:
        observation = clip[index]
        if observation is None:
            before = None
            continue
        state = follow(body, chain, observation, prior, before)
        states[index] = state
        before = state if landmark_error(chain, observation, state) < LOST_LANDMARK else None
    return states


def follow(body: BodyModel, chain: Chain, observation: Observation, prior: Prior, before: State | None) -> State:
    """The pose of one frame after ``before``, the pose of the frame before it; without one, from nothing."""
    fresh, _ = fit_from_scratch(body, chain, observation, prior)
    if before is None:
        return solve_pose(chain, body.faces, observation, fresh, prior, EVERYTHING)[0]
    return _continue(body, chain, observation, replace(prior, neighbour=before), fresh, before)


def _continue(
    body: BodyModel, chain: Chain, observation: Observation, prior: Prior, fresh: State, before: State
) -> State:
    """The pose after ``before``.  Energies include the smoothness to it, so a sudden turn must be worth its price."""
    followed, _ = solve_pose(chain, body.faces, observation, before, prior, FOLLOW)
    candidates = [(observation, followed), (observation, fresh)]
    if _turn_rad(fresh, followed) > MAX_TURN_RAD:
        candidates.append((observation.with_sides_exchanged(), before))
    # An arm may jump when the detector was wrong before; the whole person may not.
    easy = replace(prior, pose_sigma_rad=0.6)
    solved = [solve_pose(chain, body.faces, seen, start, prior, EVERYTHING)[0] for seen, start in candidates]
    energies = [pose_cost(chain, body.faces, seen, s, easy) for (seen, _), s in zip(candidates, solved, strict=True)]
    best = int(np.argmin(energies))
    seen = candidates[best][0]
    return _with_best_limbs(body, chain, seen, easy, solved, best, energies[best])


def _with_best_limbs(
    body: BodyModel, chain: Chain, seen: Observation, prior: Prior, states: list[State], best: int, lowest: float
) -> State:
    """The best state, each of its limbs exchanged for another state's where that explains the frame better.

    One candidate may have the left arm right and another one the right arm: neither wins as a whole.
    """
    state = states[best]
    mixed = False
    for joints in chain.limbs:
        for other in states[:best] + states[best + 1 :]:
            pose = state.pose.copy()
            pose[joints] = other.pose[joints]
            if np.abs(pose - state.pose).max() < 0.2:
                continue
            energy = pose_cost(chain, body.faces, seen, State(pose, state.camera_from_body), prior)
            if energy < lowest:
                state, lowest, mixed = State(pose, state.camera_from_body), energy, True
    if not mixed:
        return state
    again, _ = solve_pose(chain, body.faces, seen, state, prior, REFINE)
    return again if pose_cost(chain, body.faces, seen, again, prior) < lowest else state


def _turn_rad(a: State, b: State) -> float:
    """Angle between two placements."""
    cosine = (np.trace(a.camera_from_body[:3, :3].T @ b.camera_from_body[:3, :3]) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1, 1)))


def landmark_error(chain: Chain, observation: Observation, state: State) -> float:
    """Median distance of the confident landmarks, over the person's height."""
    return float(np.median(landmark_errors_px(chain, observation, state)) / observation.height_px)


def landmark_errors_px(chain: Chain, observation: Observation, state: State) -> np.ndarray:
    """Distances of the confident landmarks of trunk and limbs, grid pixels."""
    rows = landmark_rows(observation, chain.num_vertices, np.inf)
    points_m = chain.posed(state.pose, state.camera_from_body)
    r, _ = residuals(rows, points_m, observation)
    distance = np.linalg.norm((r / rows.weight).reshape(-1, 2), axis=1)
    body_landmark = rows.point[::2] - chain.num_vertices > 10
    return distance[body_landmark] if body_landmark.any() else np.array([np.inf])


def silhouette_iou(chain: Chain, body: BodyModel, observation: Observation, state: State) -> float:
    """Overlap of the rendered body and the mask, where the picture reaches."""
    vertices_m = chain.posed(state.pose, state.camera_from_body)[: chain.num_vertices]
    model = render_view(observation, vertices_m, body.faces).mask & observation.inside
    seen = (observation.mask > 0.5) & observation.inside
    return float((model & seen).sum() / max((model | seen).sum(), 1))


def depth_residual_mm(chain: Chain, body: BodyModel, observation: Observation, state: State) -> float:
    """Median distance of the visible surface along the seen normal, millimetres; NaN without depth."""
    if observation.surface_m is None:
        return float("nan")
    from fitting.terms import depth_rows

    points_m = chain.posed(state.pose, state.camera_from_body)
    view = render_view(observation, points_m[: chain.num_vertices], body.faces)
    rows = depth_rows(observation, points_m, view.normals, view.visible, 0.25, 0 * chain.looseness_m, False)
    if len(rows.point) == 0:
        return float("nan")
    r, _ = residuals(rows, points_m, observation)
    return float(np.median(np.abs(r / rows.weight)) * 1e3)
