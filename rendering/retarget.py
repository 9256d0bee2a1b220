"""A motion clip on our body: limbs point where the performer's pointed, feet stand on the floor.

N frames, K joints of the clip, J joints of our body.  All frames here are the world's (z up, floor at 0, metres).

What is carried over is each bone's global rotation.  Source and body rest differently (T pose, A pose, or, in some
files, no human pose at all), so every role has a constant alignment A with R_body(t) = R_source(t) A:

* the file rests like a standing person: A turns our rest bone onto the source's rest bone, by the smallest rotation;
* it does not: A is the mean over the clip of R_source(t)^T R(t), where R(t) is read off the joint POSITIONS: bone
  direction plus, for limbs, the plane in which elbow or knee bends, weighted by how much it bends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from fitting.body.model import BodyModel
from rendering.motion import MotionClip
from rendering.skeletons import find_roles

MAX_FPS = 30.0  # faster clips are thinned: an avatar video gains nothing from 120 pictures a second
SOLE_M = 0.03  # vertices of the rest body below this are its soles
CONTACT_SMOOTHING_S = 0.06  # of the vertical correction, so that a heel strike does not jerk the trunk
LIMBS = {"upperarm": "lowerarm", "lowerarm": "hand", "upperleg": "lowerleg", "lowerleg": "foot"}
BEND = {"upperarm": ("upperarm", "lowerarm", "hand"), "upperleg": ("upperleg", "lowerleg", "foot")}


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
class _Source:
    """The clip in the world's axes, scaled to our body, thinned to at most MAX_FPS."""

    positions: np.ndarray  # (N, K, 3)
    rotations: np.ndarray  # (N, K, 3, 3)
    rest_positions: np.ndarray  # (K, 3), facing -y when rests_upright
    rest_rotations: np.ndarray  # (K, 3, 3)
    rests_upright: bool
    frames_per_second: float


def retarget(clip: MotionClip, body: BodyModel, rest_vertices_m: np.ndarray, rest_joints_m: np.ndarray) -> Motion:
    """Put ``clip`` on a person: ``rest_vertices_m`` (V, 3) and ``rest_joints_m`` (J, 3) from ``BodyModel.shaped``.

    Raises UserError when the clip's skeleton lacks joints that our body needs, naming them.
    """
    source_roles = find_roles(clip.joint_names, clip.parents, clip.name)
    body_roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body model")
    rest_joints_m = np.asarray(rest_joints_m, float)
    notes: list[str] = []
    clip = _without_calibration_frame(clip, notes)
    source = _to_world(clip, source_roles, _leg_length(rest_joints_m, body_roles))
    targets = _role_rotations(source, source_roles, rest_joints_m, body_roles)
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


def _without_calibration_frame(clip: MotionClip, notes: list[str]) -> MotionClip:
    """Many files open with the rest pose, away from the movement; drop it and the way from there."""
    if len(clip) < 4:
        return clip
    parents = np.array(clip.parents)
    children = np.flatnonzero(parents >= 0)
    bent = _angle(clip.rotations[:, parents[children]], clip.rotations[:, children]).mean(1)  # (N,)
    jumps = _angle(clip.rotations[:-1], clip.rotations[1:]).mean(1)
    if bent[0] < 0.15 * np.median(bent) and jumps[0] > 3 * np.median(jumps):
        # Some exporters blend from it into the movement over a few frames, faster than anybody moves.
        lead = int(np.argmax(np.append(jumps <= 3 * np.median(jumps), True)[: round(clip.frames_per_second)]))
        notes.append(f"{clip.name}: the first {lead} frames lead in from a calibration pose and were left out")
        return _thin(clip, slice(lead, None))
    return clip


def _angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle between rotations (..., 3, 3), radians."""
    cosine = (np.einsum("...ij,...ij->...", first, second) - 1) / 2  # the trace is 1 + 2 cos
    return np.arccos(np.clip(cosine, -1, 1))


def _thin(clip: MotionClip, frames: slice) -> MotionClip:
    return MotionClip(
        clip.name, clip.joint_names, clip.parents, clip.rest_positions, clip.rest_rotations,
        clip.positions[frames], clip.rotations[frames], clip.frames_per_second / (frames.step or 1),
    )  # fmt: skip


def _leg_length(joints: np.ndarray, roles: dict[str, int]) -> float:
    """Hip to ankle along the leg, mean of both sides; joints (J, 3)."""
    lengths = []
    for side in "LR":
        hip, knee, ankle = (joints[roles[f"{role}.{side}"]] for role in ("upperleg", "lowerleg", "foot"))
        lengths.append(np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))
    return float(np.mean(lengths))


def _to_world(clip: MotionClip, roles: dict[str, int], leg_length_m: float) -> _Source:
    """Turn the clip's up axis to z, scale it by leg length, put its floor at 0 and thin it to MAX_FPS."""
    step = max(1, int(np.ceil(clip.frames_per_second / MAX_FPS - 1e-3)))
    clip = _thin(clip, slice(None, None, step))
    rest_up, rests_upright = _upright(clip.rest_positions[None], roles)
    up, _ = _upright(clip.positions, roles)
    if rests_upright:
        up = rest_up
    axis = int(np.argmax(np.abs(up)))
    world_from_clip = _rotation_between(np.eye(3)[axis] * np.sign(up[axis]), np.array([0.0, 0.0, 1.0]))
    clip_leg = _leg_length(clip.positions[0], roles)
    scale = leg_length_m / max(clip_leg, 1e-9)
    positions = clip.positions @ world_from_clip.T * scale
    feet = [roles[r] for r in ("foot.L", "foot.R", "toe.L", "toe.R") if r in roles]
    floor = np.percentile(positions[:, feet, 2].min(1), 2)
    middle = np.median(positions[:, roles["pelvis"], :2], axis=0)
    positions = positions - np.array([*middle, floor])
    return _Source(
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
    up = _unit(shoulders - ankles)
    legs_down = all(_unit(mean(f"upperleg.{s}") - mean(f"foot.{s}")) @ up > 0.8 for s in "LR")
    left_agrees = _unit(mean("upperarm.L") - mean("upperarm.R")) @ _unit(mean("upperleg.L") - mean("upperleg.R")) > 0.8
    trunk_up = np.linalg.norm(shoulders - hips) > 1e-6 and _unit(shoulders - hips) @ up > 0.8
    return up, bool(legs_down and left_agrees and trunk_up)


def _role_rotations(
    source: _Source, roles: dict[str, int], rest_joints_m: np.ndarray, body_roles: dict[str, int]
) -> dict[str, np.ndarray]:
    """Global rotations (N, 3, 3) of our body's roles, relative to our rest pose."""
    if source.rests_upright:
        alignments = _alignments_from_rest(source, roles, rest_joints_m, body_roles)
    else:
        alignments = _alignments_from_movement(source, roles, rest_joints_m, body_roles)
    rotations = {role: source.rotations[:, roles[role]] @ alignment for role, alignment in alignments.items()}
    if "head" in rotations:
        rotations["head"] = _level_gaze(rotations["head"])
    return rotations


def _level_gaze(head: np.ndarray) -> np.ndarray:
    """Head rotations (N, 3, 3), nodded by one angle when the gaze is far off the horizon throughout: a rest pose that
    was recorded with the head bent, as some of CMU's are.  Looking up or down for a part of a clip stays."""
    pitch = float(np.arcsin(np.clip(-head[:, 2, 1], -1, 1)).mean())  # the face looks along -y
    if abs(pitch) < np.radians(15):
        return head
    c, s = np.cos(pitch), np.sin(pitch)
    return head @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _alignments_from_rest(
    source: _Source, roles: dict[str, int], rest_joints_m: np.ndarray, body_roles: dict[str, int]
) -> dict[str, np.ndarray]:
    rest = source.rest_positions
    left = sum(rest[roles[f"{role}.L"]] - rest[roles[f"{role}.R"]] for role in ("upperleg", "upperarm"))
    left_xy = _unit(np.array([left[0], left[1], 0.0]))
    facing = np.stack([left_xy, np.cross([0, 0, 1.0], left_xy), [0, 0, 1.0]], axis=1)  # our +x to the source's left
    alignments = {}
    for role in (r for r in roles if r in body_roles):
        name, _, side = role.partition(".")
        bone_role = {"hand": "lowerarm"}.get(name, name)  # a hand lies in line with its forearm in both rest poses
        turn = facing
        if bone_role in LIMBS:
            start, end = f"{bone_role}.{side}", f"{LIMBS[bone_role]}.{side}"
            ours = facing @ _unit(rest_joints_m[body_roles[end]] - rest_joints_m[body_roles[start]])
            theirs = _unit(source.rest_positions[roles[end]] - source.rest_positions[roles[start]])
            turn = _rotation_between(ours, theirs) @ facing
        alignments[role] = source.rest_rotations[roles[role]].T @ turn
    return alignments


def _alignments_from_movement(
    source: _Source, roles: dict[str, int], rest_joints_m: np.ndarray, body_roles: dict[str, int]
) -> dict[str, np.ndarray]:
    def here(role: str) -> np.ndarray:
        return source.positions[:, roles[role]]

    def ours(role: str) -> np.ndarray:
        return rest_joints_m[body_roles[role]]

    uniform = np.ones(len(source.positions))
    alignments: dict[str, np.ndarray] = {}
    observed: dict[str, np.ndarray] = {}

    def settle(role: str, wanted: np.ndarray, weights: np.ndarray) -> None:
        local = np.swapaxes(source.rotations[:, roles[role]], 1, 2) @ wanted
        alignments[role] = _mean_rotation(local, weights)
        observed[role] = source.rotations[:, roles[role]] @ alignments[role]

    for role, (across, low, high) in {
        "pelvis": ("upperleg", "upperleg", "upperarm"),
        "chest": ("upperarm", "upperleg", "upperarm"),
    }.items():
        frames = [
            _frame(
                place(f"{across}.L") - place(f"{across}.R"),
                place(f"{high}.L") + place(f"{high}.R") - place(f"{low}.L") - place(f"{low}.R"),
            )
            for place in (here, ours)
        ]
        settle(role, frames[0] @ frames[1].T, uniform)
    for role in (r for r in ("neck", "head", "clavicle.L", "clavicle.R") if r in roles and r in body_roles):
        settle(role, observed["chest"], uniform)  # heads and collar bones are straight on average
    for first, (start, middle, end) in BEND.items():
        for side in "LR":
            chain = [f"{r}.{side}" for r in (start, middle, end)]
            theirs_m, ours_m = [here(role) for role in chain], [ours(role) for role in chain]
            for role, wanted, weight in _limb_frames(theirs_m, ours_m, chain):
                base = observed["chest" if first == "upperarm" else "pelvis"]
                settle(role, *_unless_straight(wanted, weight, base))
    for side in "LR":
        if f"hand.{side}" in body_roles:
            settle(f"hand.{side}", observed[f"lowerarm.{side}"], uniform)
        settle(f"foot.{side}", *_flat_feet(source, roles, side, observed["pelvis"]))
    return alignments


def _limb_frames(
    source_chain: list[np.ndarray], our_chain: list[np.ndarray], names: list[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (role, rotation (N, 3, 3), weight (N,)) of both bones of a limb, from its three joints' positions."""
    upper, lower = source_chain[1] - source_chain[0], source_chain[2] - source_chain[1]  # (N, 3)
    our_upper, our_lower = our_chain[1] - our_chain[0], our_chain[2] - our_chain[1]
    hinge = np.cross(_unit(upper), _unit(lower))
    weight = (hinge**2).sum(-1)  # sine of the bend, squared: a straight limb says nothing about its twist
    our_hinge = np.cross(our_upper, our_lower)
    for role, bone, our_bone in ((names[0], upper, our_upper), (names[1], lower, our_lower)):
        yield role, _frame(hinge + 1e-12, bone) @ _frame(our_hinge, our_bone).T, weight


def _unless_straight(wanted: np.ndarray, weight: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``wanted`` (N, 3, 3) with its weights; a limb that never bends shows no plane and keeps to the trunk's axes."""
    usable = weight > np.sin(np.radians(10)) ** 2
    if usable.mean() < 0.02:
        return base, np.ones(len(base))
    return wanted, np.where(usable, weight, 0.0)


def _flat_feet(source: _Source, roles: dict[str, int], side: str, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our sole is level when the source's foot is at its lowest and stands: heading from ankle to toe, no tilt."""
    ankle = source.positions[:, roles[f"foot.{side}"]]
    toe_role = f"toe.{side}"
    forward = source.positions[:, roles[toe_role]] - ankle if toe_role in roles else -pelvis[:, :, 1]
    height = ankle[:, 2]
    speed = np.linalg.norm(np.gradient(ankle, axis=0), axis=1) if len(ankle) > 1 else np.zeros(len(ankle))
    standing = (height <= np.percentile(height, 40)) & (speed <= np.percentile(speed, 50))
    if not standing.any():
        standing = height <= height.min()
    back = np.stack([-forward[:, 0], -forward[:, 1], np.zeros(len(forward))], axis=-1)
    up = np.broadcast_to([0.0, 0.0, 1.0], back.shape)
    return _frame(np.cross(_unit(back), up), up), standing.astype(float)


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
            fixed[joint] = _between(targets[start], targets[end], step / len(chain))
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


def _between(first: np.ndarray, second: np.ndarray, fraction: float) -> np.ndarray:
    """Spherical interpolation of rotations (N, 3, 3)."""
    step = Rotation.from_matrix(np.swapaxes(first, 1, 2) @ second).as_rotvec() * fraction
    return first @ Rotation.from_rotvec(step).as_matrix()


def _half_twist(forearm: np.ndarray, hand: np.ndarray, body: BodyModel, roles: dict[str, int], side: str) -> np.ndarray:
    """The forearm's rotation (N, 3, 3) plus half of the hand's rotation about the forearm."""
    bone = _unit(body.joints_template_m[roles[f"hand.{side}"]] - body.joints_template_m[roles[f"lowerarm.{side}"]])
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
    source: _Source,
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


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _frame(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Right-handed frames (..., 3, 3) with z along ``z`` and x as near ``x`` as it can be."""
    z = _unit(z)
    y = _unit(np.cross(z, x))
    return np.stack([np.cross(y, z), y, z], axis=-1)


def _rotation_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that turns unit vector ``first`` onto ``second``."""
    axis, cosine = np.cross(first, second), float(first @ second)
    if cosine < -1 + 1e-9:  # opposite: any perpendicular axis
        axis = np.cross(first, np.eye(3)[int(np.argmin(np.abs(first)))])
        return Rotation.from_rotvec(np.pi * _unit(axis)).as_matrix()
    sine = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / max(sine, 1e-12) * np.arctan2(sine, cosine)).as_matrix()


def _mean_rotation(rotations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted chordal mean of (N, 3, 3)."""
    u, _, vt = np.linalg.svd(np.einsum("n,nij->ij", weights, rotations))
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
