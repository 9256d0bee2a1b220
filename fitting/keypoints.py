"""2-D and 3-D body landmarks per frame, and MediaPipe Pose, which finds them when nobody else did (``landmarkers``).

N frames, 33 landmarks in MediaPipe's order.  The left/right labels that come out are consistent over the clip:
``resolve_sides`` runs the Viterbi algorithm over "as detected" and "sides swapped".
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capture.files import write_atomically
from capture.pose_network import PoseNetwork
from capture.progress import progress

LANDMARK_NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
NUM_LANDMARKS = len(LANDMARK_NAMES)


def _mirror_order() -> np.ndarray:
    swap = {"left": "right", "right": "left"}
    mirrored = ["_".join(swap.get(word, word) for word in name.split("_")) for name in LANDMARK_NAMES]
    return np.array([LANDMARK_NAMES.index(name) for name in mirrored])


MIRROR = _mirror_order()  # landmark i of the swapped labelling is landmark MIRROR[i] of the detected one
_BELOW_HIPS = np.arange(NUM_LANDMARKS) >= LANDMARK_NAMES.index("left_knee")
LEG_MIRROR = np.where(_BELOW_HIPS, MIRROR, np.arange(NUM_LANDMARKS))  # the same where only the legs are swapped


@dataclass(frozen=True)
class Keypoints:
    """Landmarks of a clip; NaN where one was not found, and in frames where nobody was."""

    points_px: np.ndarray  # (N, 33, 2) colour pixels, centres at +0.5
    visibility: np.ndarray  # (N, 33) in [0, 1]
    world_m: np.ndarray  # (N, 33, 3) metres, origin between the hips, axes of the colour camera; NaN without metres
    swapped: np.ndarray  # (N,) bool: the sides were exchanged against the detector's word

    @property
    def found(self) -> np.ndarray:
        """(N,) bool."""
        return np.isfinite(self.points_px[..., 0]).any(1)

    def with_legs_exchanged(self, frames: Sequence[int]) -> Keypoints:
        """The same clip if the detector had taken one leg for the other in ``frames``, from the knees down."""
        points_px, visibility, world_m = self.points_px.copy(), self.visibility.copy(), self.world_m.copy()
        for array in (points_px, visibility, world_m):
            array[frames] = array[frames][:, LEG_MIRROR]
        return Keypoints(points_px, visibility, world_m, self.swapped)

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, points_px=self.points_px, visibility=self.visibility, world_m=self.world_m, swapped=self.swapped
        )
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def load(path: Path) -> Keypoints:
        with np.load(path, allow_pickle=False) as file:
            return Keypoints(file["points_px"], file["visibility"], file["world_m"], file["swapped"])


def detect(images: Iterable[np.ndarray], count: int) -> Keypoints:
    """Run MediaPipe Pose over (H, W, 3) uint8 RGB images of one clip, in order (it tracks from frame to frame)."""
    points_px = np.full((count, NUM_LANDMARKS, 2), np.nan)
    visibility = np.zeros((count, NUM_LANDMARKS))
    world_m = np.full((count, NUM_LANDMARKS, 3), np.nan)
    with PoseNetwork(smooth_landmarks=False, min_detection_confidence=0.3) as pose:
        for i, image in enumerate(progress(images, "landmarks", count)):
            result = pose.process(image)
            if not result.pose_landmarks:
                continue
            height, width = image.shape[:2]
            for k, point in enumerate(result.pose_landmarks.landmark):
                points_px[i, k] = point.x * width, point.y * height
                visibility[i, k] = point.visibility
            for k, point in enumerate(result.pose_world_landmarks.landmark):
                world_m[i, k] = point.x, point.y, point.z
    return resolve_sides(Keypoints(points_px, visibility, world_m, np.zeros(count, bool)))


SWAP_COST_M = 0.04


def resolve_sides(keypoints: Keypoints, swap_cost: float = SWAP_COST_M) -> Keypoints:
    """Exchange left and right where that makes the clip move less.

    Two states per frame, as detected and swapped; a transition costs the mean landmark displacement (metres, capped)
    between neighbouring frames, in 3-D where the detector gives metres, else in the picture (``_limbs_m``).  A swapped
    frame costs ``swap_cost`` metres more: the detector is right until shown wrong.  Solved exactly by the Viterbi
    algorithm.
    """
    frames = np.flatnonzero(keypoints.found)
    if len(frames) < 2:
        return keypoints
    limbs_m = _limbs_m(keypoints, frames)
    states = np.stack([limbs_m, _mirrored(limbs_m)])[:, :, 11:]  # (2, F, 22, axes): the face says nothing about limbs
    unary = np.array([0.0, swap_cost])
    cost = unary.copy()
    came_from = np.zeros((len(frames), 2), int)
    for i in range(1, len(frames)):
        # After a gap the pose may be anywhere: the transition says less.
        transition = side_costs(states[:, i], states[:, i - 1]) / (frames[i] - frames[i - 1])
        total = transition + cost[None, :]
        came_from[i] = total.argmin(1)
        cost = total.min(1) + unary
    state = np.zeros(len(frames), int)
    state[-1] = int(cost.argmin())
    for i in range(len(frames) - 1, 0, -1):
        state[i - 1] = came_from[i, state[i]]
    swapped = keypoints.swapped.copy()
    swapped[frames] ^= state.astype(bool)
    turn = np.zeros(len(swapped), bool)
    turn[frames] = state.astype(bool)
    pick = turn[:, None]
    return Keypoints(
        points_px=np.where(pick[..., None], _mirrored(keypoints.points_px), keypoints.points_px),
        visibility=np.where(pick, keypoints.visibility[:, MIRROR], keypoints.visibility),
        world_m=np.where(pick[..., None], _mirrored(keypoints.world_m), keypoints.world_m),
        swapped=swapped,
    )


def side_costs(now_m: np.ndarray, before_m: np.ndarray) -> np.ndarray:
    """(to, from) mean displacement, metres, between the labellings (2, L, axes) of a frame and of the one before."""
    moved_m = now_m[:, None] - before_m[None, :]  # (to, from, landmark, axes)
    moved_m = moved_m[:, :, np.isfinite(moved_m).all((0, 1, 3))]  # both sides seen in both frames
    if moved_m.shape[-1] == 2 and moved_m.size:
        moved_m = moved_m - moved_m.mean(2, keepdims=True)  # a step aside is the same for either labelling
    step_m = np.linalg.norm(moved_m, axis=-1)  # (to, from, landmark)
    return np.asarray(np.minimum(step_m, 0.4).sum(-1) / max(step_m.shape[-1], 1))


def _limbs_m(keypoints: Keypoints, frames: np.ndarray) -> np.ndarray:
    """(F, 33, 3) the detector's metres; without them (F, 33, 2) the picture's, as if everybody were 1.7 m tall."""
    if np.isfinite(keypoints.world_m[frames]).any((1, 2)).all():
        return keypoints.world_m[frames]
    points_px = keypoints.points_px[frames]
    extent_px = np.nanmax(np.nanmax(points_px, axis=1) - np.nanmin(points_px, axis=1), axis=1)
    # Points come and go, people do not shrink: the best of a second's neighbours.
    first, end = np.searchsorted(frames, frames - 15), np.searchsorted(frames, frames + 15, "right")
    height_px = np.array([extent_px[a:b].max() for a, b in zip(first, end, strict=True)])
    return 1.7 * points_px / np.maximum(height_px, 1.0)[:, None, None]


def _mirrored(points: np.ndarray) -> np.ndarray:
    return points[:, MIRROR]
