"""A motion clip on our body: limbs point where the performer's pointed, feet stand on the floor.

N frames, K joints of the clip, J joints of our body.  All frames here are the world's (z up, floor at 0, metres).

What is carried over is each bone's global rotation (``alignment``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from fitting.body.model import BodyModel
from rendering.alignment import role_rotations
from rendering.motion import MotionClip
from rendering.placed_clip import PlacedClip, leg_length, placed_clip, without_calibration_frame
from rendering.skeletons import find_roles
from rendering.turns import between, unit

SOLE_M = 0.03  # vertices of the rest body below this are its soles
CONTACT_SMOOTHING_S = 0.06  # of the vertical correction, so that a heel strike does not jerk the trunk


@dataclass(frozen=True)
class Motion:
    """Poses of our body in the world."""

    name: str
    pose: np.ndarray  # (N, J, 3) axis-angle rad
    world_from_body: np.ndarray  # (N, 4, 4) metres, z up, floor at 0
    frames_per_second: float
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pose)


def retarget(clip: MotionClip, body: BodyModel, rest_vertices_m: np.ndarray, rest_joints_m: np.ndarray) -> Motion:
    """Put ``clip`` on a person: ``rest_vertices_m`` (V, 3) and ``rest_joints_m`` (J, 3) from ``BodyModel.shaped``.

    Raises UserError when the clip's skeleton lacks joints that our body needs, naming them.
    """
    source_roles = find_roles(clip.joint_names, clip.parents, clip.name)
    body_roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body model")
    rest_joints_m = np.asarray(rest_joints_m, float)
    notes: list[str] = []
    clip = without_calibration_frame(clip, notes)
    source = placed_clip(clip, source_roles, leg_length(rest_joints_m, body_roles))
    targets = role_rotations(source, source_roles, rest_joints_m, body_roles)
    global_rotations = _spread(targets, body, body_roles, len(source.positions))
    pose = _local_rotations(global_rotations, body)
    root = global_rotations[:, 0]
    world_from_body = np.tile(np.eye(4), (len(pose), 1, 1))
    world_from_body[:, :3, :3] = root
    # pose[0] is 0 by our convention: the pelvis moves rigidly with the body frame.  Skeletons disagree about where the
    # pelvis is, but not about the hip joints.
    hips_m = source.positions[:, [source_roles[f"upperleg.{side}"] for side in "LR"]].mean(1)
    world_from_body[:, :3, 3] = hips_m - root @ rest_joints_m[[body_roles[f"upperleg.{side}"] for side in "LR"]].mean(0)
    lift = _floor_correction(source, source_roles, body, rest_vertices_m, rest_joints_m, pose, world_from_body)
    world_from_body[:, 2, 3] += lift
    if not source.rests_upright:
        notes.append(f"{clip.name} does not rest like a standing person; its axes were read off the movement itself")
    return Motion(clip.name, pose.astype(np.float32), world_from_body, source.frames_per_second, tuple(notes))


def _spread(targets: dict[str, np.ndarray], body: BodyModel, roles: dict[str, int], num_frames: int) -> np.ndarray:
    """Global rotations (N, J, 3, 3) of all our joints: spine and neck turn evenly from pelvis to chest to head, half of
    a hand's twist happens in the forearm, everything else follows its parent."""
    rotations = np.empty((num_frames, body.num_joints, 3, 3))
    fixed = {roles[role]: target for role, target in targets.items() if role not in ("neck", "toe.L", "toe.R")}
    for start, end in (("pelvis", "chest"), ("chest", "head")):
        if end not in targets or end not in roles:
            continue
        chain = _path(roles[start], roles[end], body.parents)
        for step, joint in enumerate(chain[:-1], 1):
            fixed[joint] = between(targets[start], targets[end], step / len(chain))
    for side in "LR":
        chain = _path(roles[f"lowerarm.{side}"], roles[f"hand.{side}"], body.parents)
        if len(chain) > 1:
            fixed[chain[0]] = _half_twist(targets[f"lowerarm.{side}"], targets[f"hand.{side}"], body, roles, side)
    for joint in range(body.num_joints):
        parent = int(body.parents[joint])
        followed = targets["pelvis"] if parent < 0 else rotations[:, parent]
        rotations[:, joint] = fixed.get(joint, followed)
    return rotations


def _path(ancestor: int, joint: int, parents: np.ndarray) -> list[int]:
    """Joints strictly below ``ancestor`` down to ``joint``."""
    path = []
    while joint not in (ancestor, -1):
        path.append(joint)
        joint = int(parents[joint])
    return path[::-1]


def _half_twist(forearm: np.ndarray, hand: np.ndarray, body: BodyModel, roles: dict[str, int], side: str) -> np.ndarray:
    """The forearm's rotation (N, 3, 3) plus half of the hand's rotation about the forearm."""
    bone = unit(body.joints_template_m[roles[f"hand.{side}"]] - body.joints_template_m[roles[f"lowerarm.{side}"]])
    quaternion = Rotation.from_matrix(np.swapaxes(forearm, 1, 2) @ hand).as_quat()  # x, y, z, w
    twist = 2 * np.arctan2(quaternion[:, :3] @ bone, quaternion[:, 3])
    twist = (twist + np.pi) % (2 * np.pi) - np.pi
    return forearm @ Rotation.from_rotvec(0.5 * twist[:, None] * bone).as_matrix()


def _local_rotations(global_rotations: np.ndarray, body: BodyModel) -> np.ndarray:
    """(N, J, 3, 3) global to (N, J, 3) axis-angle relative to the parent; the root's is 0."""
    parents = np.maximum(body.parents, 0)
    local = np.swapaxes(global_rotations[:, parents], 2, 3) @ global_rotations
    pose = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(*local.shape[:2], 3)
    pose[:, 0] = 0
    return pose


def _floor_correction(
    source: PlacedClip,
    roles: dict[str, int],
    body: BodyModel,
    rest_vertices_m: np.ndarray,
    rest_joints_m: np.ndarray,
    pose: np.ndarray,
    world_from_body: np.ndarray,
) -> np.ndarray:
    """(N,) metres to lift the body by, so that its soles are as far above the floor as the source's feet were."""
    clearances = []
    for part in ("foot", "toe"):
        heights = [source.positions[:, roles[f"{part}.{side}"], 2] for side in "LR" if f"{part}.{side}" in roles]
        if heights:
            # A foot is on the floor at least a tenth of the time; its very lowest moments are toes pushing off.
            clearances += [height - np.percentile(np.concatenate(heights), 10) for height in heights]
    wanted = np.min(clearances, axis=0)
    soles = np.flatnonzero(rest_vertices_m[:, 2] < rest_vertices_m[:, 2].min() + SOLE_M)
    corners = np.concatenate([rest_vertices_m[soles], np.ones((len(soles), 1))], axis=1)
    weights = body.skin_weights[soles]  # (P, J)
    lowest = np.empty(len(pose))
    for i in range(len(pose)):
        joints = body.joint_transforms(rest_joints_m, pose[i], world_from_body[i])  # (J, 3, 4)
        height = joints[:, 2].copy()
        height[:, 3] -= np.einsum("jk,jk->j", joints[:, 2, :3], rest_joints_m)
        lowest[i] = np.einsum("pj,jk,pk->p", weights, height, corners).min()
    sigma = CONTACT_SMOOTHING_S * source.frames_per_second
    return gaussian_filter1d(np.maximum(wanted, 0) - lowest, sigma, mode="nearest")
