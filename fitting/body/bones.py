"""A skirt's bones: joints that come after the skeleton's own, by which cloth about both legs moves by itself.

The first one, "skirt", hangs on the root and sways about the waist; its children, "skirt.0" in front and on to the
left, are panels that swing outwards.  Games and films move skirts in this way, and their file formats know no other.

J joints of the skeleton, then 1 + B bones.  A pose that says nothing of the bones, (J, 3), has the skirt as it hangs
about the legs: under each panel's middle is a point of the hem, carried by the legs as their skin is.  The skirt sways
as far as these points do in the mean, and each panel swings as far as its own does beyond that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from fitting.body.ranges import tables_of
from fitting.body.skinning import kinematics

if TYPE_CHECKING:
    from fitting.body.model import BodyModel

SKIRT = "skirt"
NUM_PANELS = 8
# Axes of a panel: outwards, its hinge (positive swings outwards), and the third; of the sway the body's own.
SWAY_RAD, TWIST_RAD, SWING_RAD = (-1.7, 1.7), (-0.7, 0.7), (-1.4, 1.4)  # ranges; who sits sways it by a right angle
SWAY_STD_RAD, TWIST_STD_RAD, SWING_STD_RAD = 0.25, 0.2, 0.25


def directions() -> np.ndarray:
    """(B, 3) outwards from the skirt's middle, at rest: the body faces -y and has its left at +x."""
    angle = 2 * np.pi * np.arange(NUM_PANELS) / NUM_PANELS
    return np.stack([np.sin(angle), -np.cos(angle), np.zeros(NUM_PANELS)], axis=1)


def shares(about: np.ndarray) -> np.ndarray:
    """(V, B) of each panel in what lies ``about`` (V,) rad around the skirt, 0 in front and 90 degrees on the left:
    a raised cosine from one panel's middle to the next; rows sum to 1."""
    step = 2 * np.pi / NUM_PANELS
    away = (about[:, None] - step * np.arange(NUM_PANELS) + np.pi) % (2 * np.pi) - np.pi
    return np.where(np.abs(away) < step, 0.5 + 0.5 * np.cos(np.pi * away / step), 0)


def tables(bare: BodyModel, places_m: np.ndarray, shape: np.ndarray) -> dict[str, Any]:
    """Every array of joints of the body model ``bare``, with the bones after them; places_m (1 + B, 3) on the body of
    ``shape`` (S,), from where they go with the root in other shapes."""
    count = 1 + NUM_PANELS
    basis_m = np.concatenate([bare.joints_basis_m, np.repeat(bare.joints_basis_m[:, :1], count, axis=1)], axis=1)
    template_m = places_m - np.tensordot(shape, basis_m[: len(shape), -count:], 1)
    out = directions()
    hinge = np.cross([0.0, 0.0, -1.0], out)
    axes = np.concatenate([np.eye(3)[None], np.stack([out, hinge, np.cross(out, hinge)], axis=2)])
    ranges = np.zeros((count, 3, 2))
    ranges[0], ranges[1:, 1] = [SWAY_RAD, SWAY_RAD, TWIST_RAD], SWING_RAD
    free = ranges[..., 1] > ranges[..., 0]
    std = np.where(free, SWING_STD_RAD, 0)
    std[0] = [SWAY_STD_RAD, SWAY_STD_RAD, TWIST_STD_RAD]
    own = tables_of(axes, free, (ranges[..., 0], ranges[..., 1]), np.zeros((count, 3)), std) | {
        "joints_template_m": template_m,
        "parents": np.array([0, *[len(bare.parents)] * NUM_PANELS]),
    }
    joined = {name: np.concatenate([getattr(bare, name), value]) for name, value in own.items()}
    joined = {name: value.astype(getattr(bare, name).dtype) for name, value in joined.items()}
    names = (*bare.joint_names, SKIRT, *(f"{SKIRT}.{k}" for k in range(NUM_PANELS)))
    return joined | {"joints_basis_m": basis_m.astype(np.float32), "joint_names": names}


def draped(body: BodyModel, rest_joints_m: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The whole pose of a ``body`` with bones whose skeleton is in ``pose`` (J, 3) rad: (J + 1 + B, 3) rad, with the
    skirt as it hangs about the legs.  rest_joints_m (J + 1 + B, 3)."""
    assert body.hem_points_m is not None and body.hem_weights is not None, "a body without a skirt's bones"
    count = body.num_skeleton
    rest_m = np.ascontiguousarray(rest_joints_m, np.float64)
    placed = kinematics(np.ascontiguousarray(pose, np.float64), rest_m[:count], body.parents[:count], np.eye(4))
    points_m = np.asarray(body.hem_points_m, float)
    turned_m = np.einsum("jrk,bjk->bjr", placed[:, :, :3], points_m[:, None] - rest_m[:count]) + placed[:, :, 3]
    carried_m = np.einsum("bj,bjr->br", body.hem_weights, turned_m)
    carried_m = (carried_m - placed[0, :, 3]) @ placed[0, :, :3] + rest_m[0]  # as the root sees it
    waist_m, hinges_m = rest_m[count], rest_m[count + 1 :]
    sway = _least_turn(points_m.mean(0) - waist_m, carried_m.mean(0) - waist_m)
    carried_m = (carried_m - waist_m) @ Rotation.from_rotvec(sway).as_matrix() + waist_m
    axes = np.asarray(body.joint_axes[count + 1 :], float)
    swing = _outwards(carried_m - hinges_m, axes) - _outwards(points_m - hinges_m, axes)
    swing = np.clip((swing + np.pi) % (2 * np.pi) - np.pi, *SWING_RAD)
    return np.concatenate([pose[:count], sway[None], swing[:, None] * axes[:, :, 1]])


def _least_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(3,) axis times angle of the smallest rotation from one direction (3,) to another."""
    axis = np.cross(start, end)
    length = float(np.linalg.norm(axis))
    return np.asarray(axis * (np.arctan2(length, start @ end) / max(length, 1e-12)))


def _outwards(down_m: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(B,) rad by which ``down_m`` (B, 3) points outwards, by the ``axes`` (B, 3, 3) of the panels, from straight
    down."""
    return np.asarray(np.arctan2((down_m * axes[:, :, 0]).sum(1), -down_m[:, 2]))
