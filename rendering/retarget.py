"""A motion clip on our body: limbs point where the performer's pointed, feet stand on the floor.

N frames, K joints of the clip, J joints of our body.  All frames here are the world's (z up, floor at 0, metres).

What is carried over is each bone's global rotation (``alignment``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.alignment import role_rotations
from rendering.motion import MotionClip
from rendering.placed_clip import PlacedClip, leg_length, placed_clip, without_calibration_frame
from rendering.possible import possible
from rendering.skeletons import find_roles
from rendering.standing import Stance, low_vertices, stances
from rendering.topology import roles_by_shape
from rendering.turns import between, unit

UNITS = {"metres": 1.0, "centimetres": 100.0, "millimetres": 1000.0, "inches": 39.37, "CMU's units": 17.72}  # a metre
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


@dataclass(frozen=True)
class Asked:
    """What a clip asks of our body, before anybody wonders whether a person can do it."""

    motion: Motion
    stances: tuple[Stance, ...]  # heels and balls of both feet


def retarget(clip: MotionClip, body: BodyModel, rest_vertices_m: np.ndarray, rest_joints_m: np.ndarray) -> Motion:
    """Put ``clip`` on a person: ``rest_vertices_m`` (V, 3) and ``rest_joints_m`` (J, 3) from ``BodyModel.shaped``.

    Joints keep within the ranges of the body model, feet in contact stand still.  Raises UserError when the clip's
    skeleton lacks joints that our body needs, naming them.
    """
    asked = asked_of_us(clip, body, rest_vertices_m, rest_joints_m)
    pose, world_from_body = possible(
        asked.motion.pose, asked.motion.world_from_body, body, rest_vertices_m, rest_joints_m, asked.stances
    )
    return replace(asked.motion, pose=pose, world_from_body=world_from_body)


def asked_of_us(clip: MotionClip, body: BodyModel, rest_vertices_m: np.ndarray, rest_joints_m: np.ndarray) -> Asked:
    """Every limb of our body points where the clip's does; arguments and errors as ``retarget``."""
    notes: list[str] = []
    source_roles = _roles_of(clip, notes)
    body_roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body model")
    rest_joints_m = np.asarray(rest_joints_m, float)
    clip = without_calibration_frame(clip, notes)
    source = placed_clip(clip, source_roles, leg_length(rest_joints_m, body_roles))
    targets = role_rotations(source, source_roles, rest_joints_m, body_roles)
    global_rotations = _spread(targets, body, body_roles, len(source.positions))
    pose = _local_rotations(global_rotations, body)
    world_from_body, found = ground(
        source, source_roles, (body, rest_vertices_m, rest_joints_m), pose, global_rotations[:, 0]
    )
    if not source.rests_upright:
        notes.append(f"{clip.name} does not rest like a standing person; its axes were read off the movement itself")
    motion = Motion(clip.name, pose.astype(np.float32), world_from_body, source.frames_per_second, tuple(notes))
    return Asked(motion, found)


def _roles_of(clip: MotionClip, notes: list[str]) -> dict[str, int]:
    """The clip's limbs by their names or, where those say nothing, by its shape; notes tell what was guessed."""
    try:
        roles = find_roles(clip.joint_names, clip.parents, clip.name)
    except UserError:
        found = roles_by_shape(clip)
        if found is None:
            raise
        roles = found
        limbs = ", ".join(
            f"left {words} = {clip.joint_names[roles[role]]}"
            for words, role in (("thigh", "upperleg.L"), ("upper arm", "upperarm.L"))
        )
        notes.append(f"{clip.name}: limbs were found by the skeleton's shape, not by their names ({limbs})")
    legs = leg_length(clip.positions[0], roles)
    unit_word = next((word for word, metre in UNITS.items() if 0.55 < legs / metre < 1.15), None)
    taken = f"taken for {unit_word}" if unit_word else "of an unknown unit"
    notes.append(f"{clip.name}: its legs are {legs:.3g} long, {taken}; it is scaled to the avatar's")
    return roles


def ground(
    source: PlacedClip,
    roles: dict[str, int],
    person: tuple[BodyModel, np.ndarray, np.ndarray],
    pose: np.ndarray,
    root: np.ndarray,
) -> tuple[np.ndarray, tuple[Stance, ...]]:
    """world_from_body (N, 4, 4) of our body in ``pose`` (N, J, 3), its root turned by ``root`` (N, 3, 3), and where its
    feet stand: hips where the source's are, soles on the floor when its feet are.

    ``person`` is a body with its rest vertices (V, 3) and joints (J, 3); ``roles`` are the source's.
    """
    body, rest_vertices_m, rest_joints_m = person
    body_roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body model")
    world_from_body = np.tile(np.eye(4), (len(pose), 1, 1))
    world_from_body[:, :3, :3] = root
    # pose[0] is 0 by our convention: the pelvis moves rigidly with the body frame.  Skeletons disagree about where the
    # pelvis is, but not about the hip joints.
    hips_m = source.positions[:, [roles[f"upperleg.{side}"] for side in "LR"]].mean(1)
    world_from_body[:, :3, 3] = hips_m - root @ rest_joints_m[[body_roles[f"upperleg.{side}"] for side in "LR"]].mean(0)
    low = low_vertices(rest_vertices_m)
    low_m = _posed(low, body, rest_vertices_m, rest_joints_m, pose, world_from_body)
    lift_m = _floor_correction(source, roles, low_m[:, :, 2].min(1))
    world_from_body[:, 2, 3] += lift_m
    low_m[:, :, 2] += lift_m[:, None]
    return world_from_body, stances(source, roles, body, rest_vertices_m, low_m)


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


def _posed(
    vertices: np.ndarray,
    body: BodyModel,
    rest_vertices_m: np.ndarray,
    rest_joints_m: np.ndarray,
    pose: np.ndarray,
    world_from_body: np.ndarray,
) -> np.ndarray:
    """(N, P, 3) some vertices (P,) of the body in every frame."""
    corners = np.concatenate([rest_vertices_m[vertices], np.ones((len(vertices), 1))], axis=1)
    weights = body.skin_weights[vertices]  # (P, J)
    found = np.empty((len(pose), len(vertices), 3))
    for i in range(len(pose)):
        joints = body.joint_transforms(rest_joints_m, pose[i], world_from_body[i]).copy()  # (J, 3, 4)
        joints[:, :, 3] -= np.einsum("jrk,jk->jr", joints[:, :, :3], rest_joints_m)
        found[i] = np.einsum("pj,jrk,pk->pr", weights, joints, corners, optimize=True)
    return found


def _floor_correction(source: PlacedClip, roles: dict[str, int], lowest_m: np.ndarray) -> np.ndarray:
    """(N,) metres to lift the body by, whose lowest points are at ``lowest_m`` (N,), so that its soles are as far above
    the floor as the source's feet were."""
    clearances = []
    for part in ("foot", "toe"):
        heights = [source.positions[:, roles[f"{part}.{side}"], 2] for side in "LR" if f"{part}.{side}" in roles]
        if heights:
            # A foot is on the floor at least a tenth of the time; its very lowest moments are toes pushing off.
            clearances += [height - np.percentile(np.concatenate(heights), 10) for height in heights]
    wanted = np.min(clearances, axis=0)
    sigma = CONTACT_SMOOTHING_S * source.frames_per_second
    return gaussian_filter1d(np.maximum(wanted, 0) - lowest_m, sigma, mode="nearest")
