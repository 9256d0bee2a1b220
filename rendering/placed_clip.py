"""A motion clip in the world: its floor at 0, z up, as large as the person who shall move so.

N frames, K joints of the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rendering.motion import MotionClip
from rendering.turns import angle, rotation_between, unit

MAX_FPS = 30.0  # faster clips are thinned: an avatar video gains nothing from 120 pictures a second


@dataclass(frozen=True)
class PlacedClip:
    """The clip in the world's axes, scaled to our body, thinned to at most MAX_FPS."""

    positions: np.ndarray  # (N, K, 3)
    rotations: np.ndarray  # (N, K, 3, 3)
    rest_positions: np.ndarray  # (K, 3), facing -y when rests_upright
    rest_rotations: np.ndarray  # (K, 3, 3)
    rests_upright: bool
    frames_per_second: float


def without_calibration_frame(clip: MotionClip, notes: list[str]) -> MotionClip:
    """Many files open with the rest pose, away from the movement; drop it and the way from there."""
    if len(clip) < 4:
        return clip
    parents = np.array(clip.parents)
    children = np.flatnonzero(parents >= 0)
    bent = angle(clip.rotations[:, parents[children]], clip.rotations[:, children]).mean(1)  # (N,)
    jumps = angle(clip.rotations[:-1], clip.rotations[1:]).mean(1)
    if bent[0] < 0.15 * np.median(bent) and jumps[0] > 3 * np.median(jumps):
        # Some exporters blend from it into the movement over a few frames, faster than anybody moves.
        lead = int(np.argmax(np.append(jumps <= 3 * np.median(jumps), True)[: round(clip.frames_per_second)]))
        notes.append(f"{clip.name}: the first {lead} frames lead in from a calibration pose and were left out")
        return _thin(clip, slice(lead, None))
    return clip


def _thin(clip: MotionClip, frames: slice) -> MotionClip:
    return MotionClip(
        clip.name, clip.joint_names, clip.parents, clip.rest_positions, clip.rest_rotations,
        clip.positions[frames], clip.rotations[frames], clip.frames_per_second / (frames.step or 1),
    )  # fmt: skip


def leg_length(joints: np.ndarray, roles: dict[str, int]) -> float:
    """Hip to ankle along the leg, mean of both sides; joints (J, 3)."""
    lengths = []
    for side in "LR":
        hip, knee, ankle = (joints[roles[f"{role}.{side}"]] for role in ("upperleg", "lowerleg", "foot"))
        lengths.append(np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))
    return float(np.mean(lengths))


def placed_clip(clip: MotionClip, roles: dict[str, int], leg_length_m: float) -> PlacedClip:
    """Turn the clip's up axis to z, scale it by leg length, put its floor at 0 and thin it to MAX_FPS."""
    step = max(1, int(np.ceil(clip.frames_per_second / MAX_FPS - 1e-3)))
    clip = _thin(clip, slice(None, None, step))
    rest_up, rests_upright = _upright(clip.rest_positions[None], roles)
    up, _ = _upright(clip.positions, roles)
    if rests_upright:
        up = rest_up
    axis = int(np.argmax(np.abs(up)))
    world_from_clip = rotation_between(np.eye(3)[axis] * np.sign(up[axis]), np.array([0.0, 0.0, 1.0]))
    clip_leg = leg_length(clip.positions[0], roles)
    scale = leg_length_m / max(clip_leg, 1e-9)
    positions = clip.positions @ world_from_clip.T * scale
    feet = [roles[r] for r in ("foot.L", "foot.R", "toe.L", "toe.R") if r in roles]
    floor = np.percentile(positions[:, feet, 2].min(1), 2)
    middle = np.median(positions[:, roles["pelvis"], :2], axis=0)
    positions = positions - np.array([*middle, floor])
    return PlacedClip(
        positions,
        world_from_clip @ clip.rotations,
        clip.rest_positions @ world_from_clip.T * scale,
        world_from_clip @ clip.rest_rotations,
        rests_upright,
        clip.frames_per_second,
    )


def _upright(positions: np.ndarray, roles: dict[str, int]) -> tuple[np.ndarray, bool]:
    """Mean unit vector from ankles to shoulders of (N, K, 3), and whether this is a person standing: trunk and both
    legs in one line, hips between shoulders and ankles, the left side on one side."""

    def mean(*names: str) -> np.ndarray:
        return np.mean([positions[:, roles[n]] for n in names], axis=(0, 1))

    shoulders, hips = mean("upperarm.L", "upperarm.R"), mean("upperleg.L", "upperleg.R")
    ankles = mean("foot.L", "foot.R")
    up = unit(shoulders - ankles)
    legs_down = all(unit(mean(f"upperleg.{s}") - mean(f"foot.{s}")) @ up > 0.8 for s in "LR")
    left_agrees = unit(mean("upperarm.L") - mean("upperarm.R")) @ unit(mean("upperleg.L") - mean("upperleg.R")) > 0.8
    trunk_up = np.linalg.norm(shoulders - hips) > 1e-6 and unit(shoulders - hips) @ up > 0.8
    return up, bool(legs_down and left_agrees and trunk_up)
