"""How far each joint turns: anatomical axes, limits, and where a person's joints usually are.

In: Anny's joints of the mean person (J joints, body frame).  Out: per-joint tables of BodyModel.

A joint's own axes are the columns (twist, hinge, swing) of ``joint_axes``: twist runs along the bone, a positive hinge
flexes (the elbow folds, the knee folds, the hip lifts the thigh forward, the trunk bows, the wrist bends to the palm,
the foot lifts its toes), swing = twist x hinge.  Rows of _TABLE are for the left side; a mirrored joint has the signs
(-, +, -).  Ranges are those of clinical goniometry (AAOS), rounded; what the rest pose has already used up of them
(Anny rests with elbows bent by 43 degrees and arms 48 degrees below the horizontal, SMPL in a T) is taken off.
The joints of a chain share its range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitting.body.anatomy import dorsal


@dataclass(frozen=True)
class _Range:
    """Degrees, each (twist, hinge, swing); zero is a straight limb, for the upper arm the horizontal."""

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
        "lowerarm01", "front", (-90, -55, -82), (90, 130, 118), (30, 35, 40), mean=(0, 0, 78)
    ),  # swing: negative lifts the left arm sideways
    "lowerarm01": _Range("wrist", "elbow", (-10, -5, -6), (10, 148, 6), (4, 38, 3), "h", mean=(0, 23, 0)),
    "lowerarm02": _Range("wrist", "elbow", (-85, -3, -3), (85, 3, 3), (30, 1, 1), "t"),
    "wrist": _Range("finger3-1", "palm", (-15, -65, -30), (15, 75, 30), (5, 22, 10)),
    "upperleg01": _Range("lowerleg01", "front", (-45, -30, -55), (45, 125, 35), (14, 32, 14)),
    "lowerleg01": _Range("foot", "back", (-20, -3, -5), (20, 155, 5), (7, 35, 2), "th", mean=(0, 9, 0)),
    "foot": _Range("toes", "up", (-28, -50, -22), (28, 25, 22), (9, 14, 8)),
}  # fmt: skip
_CHAINS = (("spine05", "spine04", "spine03", "spine02", "spine01"), ("neck01", "neck03", "head"))
_WRIST_WITHOUT_FOREARM_TWIST = _Range("finger3-1", "palm", (-85, -65, -30), (85, 75, 30), (30, 22, 10))
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
        if stem == "wrist" and f"lowerarm02.{side}" not in joint:
            row = _WRIST_WITHOUT_FOREARM_TWIST
        axes[j] = _axes(name, row, joint, toes_m)
        sign = np.array([-1, 1, -1]) if side == "R" else np.ones(3)
        share = _share(stem, joint_names)
        used = _used_by_rest(stem, side, joint)
        ends = np.deg2rad(np.array([row.lower, row.upper]) * share - used) * sign
        lower[j], upper[j] = ends.min(0), ends.max(0)
        mean[j], std[j] = np.deg2rad(row.mean - used) * sign, np.deg2rad(row.std) * share
        local_free[j] = [letter in row.free for letter in "ths"]
    return tables_of(axes, local_free, (lower, upper), np.clip(mean, lower, upper), std)


def tables_of(
    axes: np.ndarray, local_free: np.ndarray, ends: tuple[np.ndarray, np.ndarray], mean: np.ndarray, std: np.ndarray
) -> dict[str, np.ndarray]:
    """The same from what holds by each joint's own axes (J, 3, 3): free (J, 3) bool, and (J, 3) rad the ``ends`` of
    its range, lower and upper, mean and standard deviation."""
    lower, upper = ends
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


def _share(stem: str, joint_names: tuple[str, ...]) -> float:
    """How much more than in Anny a joint of a chain has to turn, because the body has fewer joints there."""
    for chain in _CHAINS:
        if stem in chain:
            return len(chain) / sum(name in joint_names for name in chain)
    return 1.0


def _used_by_rest(stem: str, side: str, joint: dict[str, np.ndarray]) -> np.ndarray:
    """(3,) degrees of the range at which the rest pose stands: elbow and knee flexion, how far the upper arm hangs."""
    used = np.zeros(3)
    if stem in ("lowerarm01", "lowerleg01"):
        above, end = {"lowerarm01": ("upperarm01", "wrist"), "lowerleg01": ("upperleg01", "foot")}[stem]
        upper, middle, lower = (joint[f"{name}.{side}"] for name in (above, stem, end))
        used[1] = _degrees_between(middle - upper, lower - middle)
    elif stem == "upperarm01":
        used[2] = _degrees_between(joint[f"lowerarm01.{side}"] - joint[f"upperarm01.{side}"], _UP) - 90
    return used


def _degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.rad2deg(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def _axes(name: str, row: _Range, joint: dict[str, np.ndarray], toes_m: dict[str, np.ndarray]) -> np.ndarray:
    """(3, 3) columns twist, hinge, swing of one joint, in body-aligned axes."""
    _, dot, side = name.partition(".")
    child = next((key for key in (row.child + dot + side, row.child) if key in joint), None)
    if child is not None:
        bone = joint[child] - joint[name]
    elif row.child == "toes":
        bone = toes_m[side] - joint[name]
    elif name.startswith("wrist"):
        bone = joint[name] - joint[f"lowerarm01.{side}"]  # a body without fingers: on along the forearm
    else:
        bone = _UP
    twist = bone / np.linalg.norm(bone)
    if row.hinge_moves_toward == "elbow":  # fold further the way the elbow is bent, forward when it is straight
        upper = joint[f"lowerarm01.{side}"] - joint[f"upperarm01.{side}"]
        bent = _degrees_between(upper, bone) > 10
        hinge = np.cross(upper, bone) if bent else np.cross(twist, _FRONT)
        hinge = hinge - (hinge @ twist) * twist
    elif row.hinge_moves_toward == "palm":
        hinge = np.cross(twist, -dorsal(joint, side))
    else:
        toward = {"front": _FRONT, "back": -_FRONT, "up": _UP}[row.hinge_moves_toward]
        hinge = np.cross(twist, toward)
    hinge /= np.linalg.norm(hinge)
    return np.stack([twist, hinge, np.cross(twist, hinge)], axis=1)
