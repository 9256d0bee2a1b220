"""Landmarks and a quick person mask, frame by frame, from the past alone.

H x W colour pixels, 33 landmarks.  One network gives both: MediaPipe Pose in tracking mode with its segmentation head.
Stage 02 draws a finer edge and stage 03 resolves left and right over the whole clip; who watches live cannot wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from capture.alpha import gated
from capture.camera import Rig
from capture.pose_network import PoseNetwork
from capture.registration import depth_in_color
from capture.segment import SURE_AGAIN, SURE_AT_FIRST, main_part, reduced
from fitting.keypoints import MIRROR, SWAP_COST_M, side_costs

MASK_SIDE_PX = 320  # the network's own mask has 256
GATE_M = 0.6  # as in stage 02: beyond is somebody or something else


@dataclass(frozen=True)
class Look:
    """What the network saw in one picture."""

    points_px: np.ndarray  # (33, 2) colour pixels, centres at +0.5
    visibility: np.ndarray  # (33,)
    world_m: np.ndarray  # (33, 3)
    probability: np.ndarray  # (h, w) float32 of the whole picture

    def with_sides_exchanged(self) -> Look:
        """The same if the network had taken left for right."""
        return Look(self.points_px[MIRROR], self.visibility[MIRROR], self.world_m[MIRROR], self.probability)


class PoseStream:
    """MediaPipe Pose, kept open: it looks for the person near where it was."""

    def __init__(self) -> None:
        self._pose = PoseNetwork(smooth_landmarks=False, min_detection_confidence=0.3, enable_segmentation=True)
        self._pose.process(np.zeros((64, 64, 3), np.uint8))  # loads the networks: the first frame shall not wait
        self._sees_somebody = False

    def __call__(self, color: np.ndarray) -> Look | None:
        """Look at the next picture (H, W, 3) uint8 RGB; None where nobody is."""
        result = self._pose.process(reduced(color))
        sure = SURE_AGAIN if self._sees_somebody else SURE_AT_FIRST
        self._sees_somebody = False
        if not result.pose_landmarks or result.segmentation_mask is None:
            return None
        landmarks, world = result.pose_landmarks.landmark, result.pose_world_landmarks.landmark
        visibility = np.array([point.visibility for point in landmarks])
        self._sees_somebody = float(np.sort(visibility)[-12:].mean()) > sure
        if not self._sees_somebody:  # a chair with a jacket is no person
            return None
        return Look(
            points_px=np.array([(point.x, point.y) for point in landmarks]) * (color.shape[1], color.shape[0]),
            visibility=visibility,
            world_m=np.array([(point.x, point.y, point.z) for point in world]),
            probability=np.array(result.segmentation_mask, np.float32),
        )

    def close(self) -> None:
        self._pose.close()


class SideStream:
    """Left and right as the past has them: the forward half of ``keypoints.resolve_sides``.

    Says of every frame what the cheapest history that ends there says.  A detector that is wrong for longer than the
    price of two changes is believed in the end, where the whole clip would have known better.
    """

    def __init__(self) -> None:
        self._cost = np.zeros(2)
        self._before_m: np.ndarray | None = None
        self._index = 0

    def is_swapped(self, index: int, world_m: np.ndarray) -> bool:
        """Whether the sides of frame ``index`` are to be exchanged; world (33, 3), indices rise."""
        now_m = np.stack([world_m, world_m[MIRROR]])[:, 11:]  # the face says nothing about limbs
        unary = np.array([0.0, SWAP_COST_M])
        if self._before_m is None:
            self._cost = unary
        else:
            transition = side_costs(now_m, self._before_m) / (index - self._index)
            self._cost = (transition + self._cost[None, :]).min(1) + unary
            self._cost -= self._cost.min()  # a day has many frames
        self._before_m, self._index = now_m, index
        return bool(self._cost.argmin())


def quick_alpha(rig: Rig, probability: np.ndarray, depth_mm: np.ndarray | None) -> np.ndarray:
    """(H, W) float32 mask of the person in colour pixels: the network's word, gated by depth where there is any."""
    scale = min(1.0, MASK_SIDE_PX / max(probability.shape))
    small = cv2.resize(probability, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = main_part(small)
    if depth_mm is not None and rig.depth is not None:
        camera = rig.color.resize((small.shape[1], small.shape[0]))
        footprint_px = 0.5 * camera.fx_px / rig.depth.fx_px + 1.0
        small, _ = gated(small, depth_in_color(rig, depth_mm, camera), GATE_M, footprint_px)
    return np.asarray(cv2.resize(small, rig.color.image_wh, interpolation=cv2.INTER_LINEAR))
