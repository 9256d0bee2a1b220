"""A person's fitted movement on somebody else's body: same skeleton, other proportions.

Joints keep their angles; the way through the room is scaled by the length of the legs; feet stand on the floor where
they stood (``standing``).  A fit of another skeleton goes the way of all motion capture (``retarget``).
N frames, J joints.  World frame: metres, z up, floor at 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from fitting.body.model import BodyModel
from fitting.fit import BodyFit
from rendering.captured import world_from_color
from rendering.motion import MotionClip
from rendering.placed_clip import MAX_FPS, PlacedClip, leg_length
from rendering.possible import possible
from rendering.retarget import Motion, ground, retarget
from rendering.skeletons import find_roles


def of_fit(fit: BodyFit, times_s: np.ndarray, name: str) -> Motion:
    """The fitted poses on an even clock of at most MAX_FPS; gaps, lost frames among them, are filled by the way
    between their ends.  times_s (N,) rises."""
    found = np.flatnonzero(np.isfinite(fit.pose).all((1, 2)) & np.isfinite(fit.camera_from_body).all((1, 2)))
    placed = world_from_color(fit) @ fit.camera_from_body[found]
    own = times_s[found]
    step_s = max(float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / MAX_FPS, 1 / (MAX_FPS + 0.5))
    count = max(1, round((own[-1] - own[0]) / step_s) + 1)
    wanted = own[0] + step_s * np.arange(count)
    pose, placed = interpolated(fit.pose[found], placed, own, wanted)
    notes = []
    after = np.searchsorted(own, wanted).clip(1, max(len(own) - 1, 1))
    away_s = np.minimum(np.abs(wanted - own[after - 1]), np.abs(wanted - own[after.clip(max=len(own) - 1)]))
    filled = int((away_s > 0.75 * step_s).sum())
    if filled:
        notes.append(f"{name}: {filled} of {count} frames are not in the fit and were filled in")
    return Motion(name, pose.astype(np.float32), placed, 1 / step_s, tuple(notes))


def interpolated(
    pose: np.ndarray, placed: np.ndarray, times_s: np.ndarray, wanted_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, J, 3) and places (N, 4, 4) at ``times_s`` (N,) to those at ``wanted_s`` (M,), along shortest turns."""
    if len(times_s) == 1:
        return np.repeat(pose, len(wanted_s), 0), np.repeat(placed, len(wanted_s), 0)
    wanted_s = np.clip(wanted_s, times_s[0], times_s[-1])
    turned = np.empty((len(wanted_s), *pose.shape[1:]))
    for joint in range(pose.shape[1]):
        turned[:, joint] = Slerp(times_s, Rotation.from_rotvec(pose[:, joint]))(wanted_s).as_rotvec()
    there = np.tile(np.eye(4), (len(wanted_s), 1, 1))
    there[:, :3, :3] = Slerp(times_s, Rotation.from_matrix(placed[:, :3, :3]))(wanted_s).as_matrix()
    for axis in range(3):
        there[:, axis, 3] = np.interp(wanted_s, times_s, placed[:, axis, 3])
    return turned, there


def reenact(
    fit: BodyFit, moved: Motion, body: BodyModel, rest_vertices_m: np.ndarray, rest_joints_m: np.ndarray
) -> Motion:
    """``moved``, a motion of the fitted person (``of_fit``), on our body; errors as ``retarget``."""
    theirs = fit.body.bare  # a skirt swings as the new body moves it
    moved = replace(moved, pose=moved.pose[:, : theirs.num_joints])
    their_joints_m = np.asarray(theirs.shaped(fit.shape)[1], float)
    transforms = np.stack(
        [theirs.joint_transforms(their_joints_m, p, w) for p, w in zip(moved.pose, moved.world_from_body, strict=True)]
    )  # (N, J, 3, 4)
    if theirs.joint_names != body.joint_names:
        clip = MotionClip(
            moved.name,
            theirs.joint_names,
            tuple(int(p) for p in theirs.parents),
            their_joints_m,
            np.broadcast_to(np.eye(3), (len(their_joints_m), 3, 3)).copy(),
            transforms[..., 3],
            transforms[..., :3],
            moved.frames_per_second,
        )
        done = retarget(clip, body, rest_vertices_m, rest_joints_m)
        return replace(done, notes=(*moved.notes, *done.notes))
    roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body model")
    rest_joints_m = np.asarray(rest_joints_m, float)
    scale = leg_length(rest_joints_m, roles) / leg_length(their_joints_m, roles)
    source = PlacedClip(
        transforms[..., 3] * scale,
        transforms[..., :3],
        their_joints_m * scale,
        np.broadcast_to(np.eye(3), (len(their_joints_m), 3, 3)),
        True,
        moved.frames_per_second,
    )
    placed, stances = ground(
        source, roles, (body, rest_vertices_m, rest_joints_m), moved.pose, moved.world_from_body[:, :3, :3]
    )
    pose, placed = possible(moved.pose, placed, body, rest_vertices_m, rest_joints_m, stances)
    return replace(moved, pose=pose.astype(np.float32), world_from_body=placed)
