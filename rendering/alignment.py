"""How a skeleton's axes lie in the limbs they move: the constant turn between a clip's joints and ours.

N frames, K joints of the clip, J joints of our body.  Source and body rest differently (T pose, A pose, or, in some
files, no human pose at all), so every role has a constant alignment A with R_body(t) = R_source(t) A:

* the file rests like a standing person: A turns our rest bone onto the source's rest bone, by the smallest rotation;
* it does not: A is the mean over the clip of R_source(t)^T R(t), where R(t) is read off the joint POSITIONS: bone
  direction plus, for limbs, the plane in which elbow or knee bends, weighted by how much it bends.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rendering.placed_clip import PlacedClip
from rendering.turns import frame, mean_rotation, rotation_between, unit

LIMBS = {"upperarm": "lowerarm", "lowerarm": "hand", "upperleg": "lowerleg", "lowerleg": "foot"}
BEND = {"upperarm": ("upperarm", "lowerarm", "hand"), "upperleg": ("upperleg", "lowerleg", "foot")}


def role_rotations(
    source: PlacedClip, roles: dict[str, int], rest_joints_m: np.ndarray, body_roles: dict[str, int]
) -> dict[str, np.ndarray]:
    """Global rotations (N, 3, 3) of our body's roles, relative to our rest pose."""
    if source.rests_upright:
        alignments = _alignments_from_rest(source, roles, rest_joints_m, body_roles)
    else:
        alignments = _alignments_from_movement(source, roles, rest_joints_m, body_roles)
    rotations = {role: source.rotations[:, roles[role]] @ alignment for role, alignment in alignments.items()}
    if "head" in rotations:
        rotations["head"] = level_gaze(rotations["head"])
    return rotations


def level_gaze(head: np.ndarray) -> np.ndarray:
    """Head rotations (N, 3, 3), nodded by one angle when the gaze is far off the horizon throughout: a rest pose that
    was recorded with the head bent, as some of CMU's are.  Looking up or down for a part of a clip stays."""
    pitch = float(np.arcsin(np.clip(-head[:, 2, 1], -1, 1)).mean())  # the face looks along -y
    if abs(pitch) < np.radians(15):
        return head
    c, s = np.cos(pitch), np.sin(pitch)
    return head @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _alignments_from_rest(
    source: PlacedClip, roles: dict[str, int], rest_joints_m: np.ndarray, body_roles: dict[str, int]
) -> dict[str, np.ndarray]:
    rest = source.rest_positions
    left = sum(rest[roles[f"{role}.L"]] - rest[roles[f"{role}.R"]] for role in ("upperleg", "upperarm"))
    left_xy = unit(np.array([left[0], left[1], 0.0]))
    facing = np.stack([left_xy, np.cross([0, 0, 1.0], left_xy), [0, 0, 1.0]], axis=1)  # our +x to the source's left
    alignments = {}
    for role in (r for r in roles if r in body_roles):
        name, _, side = role.partition(".")
        bone_role = {"hand": "lowerarm"}.get(name, name)  # a hand lies in line with its forearm in both rest poses
        turn = facing
        if bone_role in LIMBS:
            start, end = f"{bone_role}.{side}", f"{LIMBS[bone_role]}.{side}"
            ours = facing @ unit(rest_joints_m[body_roles[end]] - rest_joints_m[body_roles[start]])
            theirs = unit(source.rest_positions[roles[end]] - source.rest_positions[roles[start]])
            turn = rotation_between(ours, theirs) @ facing
        alignments[role] = source.rest_rotations[roles[role]].T @ turn
    return alignments


def _alignments_from_movement(
    source: PlacedClip, roles: dict[str, int], rest_joints_m: np.ndarray, body_roles: dict[str, int]
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
        alignments[role] = mean_rotation(local, weights)
        observed[role] = source.rotations[:, roles[role]] @ alignments[role]

    for role, (across, low, high) in {
        "pelvis": ("upperleg", "upperleg", "upperarm"),
        "chest": ("upperarm", "upperleg", "upperarm"),
    }.items():
        frames = [
            frame(
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
    hinge = np.cross(unit(upper), unit(lower))
    weight = (hinge**2).sum(-1)  # sine of the bend, squared: a straight limb says nothing about its twist
    our_hinge = np.cross(our_upper, our_lower)
    for role, bone, our_bone in ((names[0], upper, our_upper), (names[1], lower, our_lower)):
        yield role, frame(hinge + 1e-12, bone) @ frame(our_hinge, our_bone).T, weight


def _unless_straight(wanted: np.ndarray, weight: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``wanted`` (N, 3, 3) with its weights; a limb that never bends shows no plane and keeps to the trunk's axes."""
    usable = weight > np.sin(np.radians(10)) ** 2
    if usable.mean() < 0.02:
        return base, np.ones(len(base))
    return wanted, np.where(usable, weight, 0.0)


def _flat_feet(
    source: PlacedClip, roles: dict[str, int], side: str, pelvis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    return frame(np.cross(unit(back), up), up), standing.astype(float)
