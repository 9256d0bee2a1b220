"""What a subject's recording says about the world: where down is, where the person stood, what was filmed.

N frames, H x W pixels.  World: z up, floor at 0; it is found from the fit, because a camera on a tripod does not know
where down is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capture.camera import Camera, transform
from capture.recording import Recording
from capture.sampling import evenly
from rendering.retarget import Motion

FLOOR_FRAMES = 30


@dataclass(frozen=True)
class Captured:
    """What a subject's recording says about the world: where down is and where he stood."""

    recording: Recording
    masks: Any
    fit: Any
    heldout_indices: np.ndarray
    world_from_color: np.ndarray  # (4, 4)

    @staticmethod
    def load(subject_dir: Path) -> Captured:
        """Open stages 01 to 04 of a subject.  Raises UserError when one of them is missing."""
        from capture.matting import Masks
        from fitting.fit import BodyFit
        from fitting.keyframes import Keyframes

        fit = BodyFit.load(subject_dir / "03_fit")
        heldout = np.asarray(Keyframes.load(subject_dir / "04_keyframes").heldout_indices, np.int64)
        return Captured(
            recording=Recording.load(subject_dir / "01_recording"),
            masks=Masks.load(subject_dir / "02_masks"),
            fit=fit,
            heldout_indices=np.array([i for i in heldout if fit.tracked[i]], np.int64),
            world_from_color=world_from_color(fit),
        )

    def motion(self, frame_indices: np.ndarray) -> Motion:
        """The fitted poses of some frames as a motion in the world."""
        placed = self.world_from_color @ self.fit.camera_from_body[frame_indices]
        return Motion("capture", self.fit.pose[frame_indices], placed, self.recording.frames_per_second)


def world_from_color(fit: Any) -> np.ndarray:
    """(4, 4) from the colour camera's frame to the world: up is where the body's z axis points on average, the floor is
    where the soles are.  People bend to all sides, so their mean is upright to a degree or two."""
    tracked = np.flatnonzero(fit.tracked)
    up = fit.camera_from_body[tracked, :3, 2].mean(0)
    up /= np.linalg.norm(up)
    right = np.cross([0.0, 0.0, 1.0], up) if abs(up[2]) < 0.99 else np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    back = np.cross(up, right)
    placed = np.eye(4)
    placed[:3, :3] = np.stack([right, back, up])
    chosen = evenly(tracked, FLOOR_FRAMES)
    soles = [transform(placed, fit.vertices_color_m(int(i)).astype(float))[:, 2].min() for i in chosen]
    hips = transform(placed, np.asarray(fit.joints_color_m[tracked, 0], float))
    placed[:3, 3] = -np.array([*np.median(hips[:, :2], axis=0), np.percentile(soles, 20)])
    return placed


def shrunk(camera: Camera, long_side_px: int) -> Camera:
    """The same view with at most ``long_side_px`` pixels on its longer side, even numbers for video."""
    width, height = camera.image_wh
    scale = min(1.0, long_side_px / max(width, height))
    return camera.resize((max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)))
