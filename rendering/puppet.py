"""A pose under somebody's hands: joints are pulled to where a pointer is, or turned, and stay within their ranges.

J joints, D degrees of freedom that a pull may use.  World: z up, floor at 0, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from capture.camera import transform
from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.avatar import Shape
from rendering.possible import bounded_step, within_range
from rendering.skeletons import find_roles

ITERATIONS = 20
FIRST_DAMPING = 0.01  # m2/rad2
ENOUGH_M2 = 1e-6
STAY_M = 0.02  # per radian: what the pull does not need stays as it is
NUDGE_RAD = 1e-4
HEAD_UP_M = 0.12  # the head's handle sits between the ears, not in the neck


@dataclass(frozen=True)
class Handle:
    """A place on the body that can be pulled."""

    name: str
    joint: int  # carries the handle, and turns when it is turned
    offset_m: np.ndarray  # (3,) from the joint, in its axes at rest
    movers: tuple[int, ...]  # joints that turn when it is pulled; none moves the whole person


@dataclass(frozen=True)
class Pose:
    """A pose in the world."""

    joints: np.ndarray  # (J, 3) rad
    world_from_body: np.ndarray  # (4, 4)


def handles_of(body: BodyModel) -> tuple[Handle, ...]:
    """The main joints of a body; none when its joints have names that nobody knows."""
    try:
        roles = find_roles(body.joint_names, tuple(int(p) for p in body.parents), "body")
    except UserError:
        return ()
    none, up = np.zeros(3), np.array([0.0, 0.0, HEAD_UP_M])

    def between(ancestor: int, joint: int) -> tuple[int, ...]:
        """Joints that may turn, from below ``ancestor`` to above ``joint``."""
        path = []
        joint = int(body.parents[joint])
        while joint not in (ancestor, -1):
            path.append(joint)
            joint = int(body.parents[joint])
        return tuple(j for j in reversed(path) if body.local_free[j].any())

    pelvis, chest = roles["pelvis"], roles["chest"]
    handles = [Handle("hips", 0, body.joints_template_m[pelvis] - body.joints_template_m[0], ())]
    handles.append(Handle("chest", chest, none, between(pelvis, chest)))
    if "head" in roles:
        head = roles["head"]
        handles.append(Handle("head", head, up, (*between(chest, head), head)))
    for side, word in (("L", "left"), ("R", "right")):
        for role, name, top in (
            ("lowerarm", "elbow", chest),
            ("hand", "wrist", chest),
            ("lowerleg", "knee", pelvis),
            ("foot", "ankle", pelvis),
        ):
            joint = roles[f"{role}.{side}"]
            handles.append(Handle(f"{word} {name}", joint, none, between(top, joint)))
    return tuple(handles)


class Puppet:
    """The joints of one person, and what pulling and turning them does to a pose."""

    def __init__(self, shape: Shape) -> None:
        self._body, _, self._rest_m = shape.skeleton()  # a skirt follows by itself
        self.handles = handles_of(self._body)

    def places(self, pose: Pose) -> np.ndarray:
        """(H, 3) where the handles are in the world."""
        joints = self._joints(pose)
        return np.array([_at(joints, handle) for handle in self.handles]).reshape(-1, 3)

    def turn(self, pose: Pose, handle: Handle) -> np.ndarray:
        """(3, 3) how the handle's joint is turned in the world."""
        return self._joints(pose)[handle.joint, :, :3]

    def turned(self, pose: Pose, handle: Handle, world_from_joint: np.ndarray) -> Pose:
        """The pose with a joint turned to ``world_from_joint`` (3, 3), or as far as it goes; the root turns freely."""
        if handle.joint == 0:
            world_from_body = pose.world_from_body.copy()
            root_m = self._rest_m[0]
            world_from_body[:3, :3] = world_from_joint @ Rotation.from_rotvec(pose.joints[0]).as_matrix().T
            world_from_body[:3, 3] = transform(pose.world_from_body, root_m) - world_from_body[:3, :3] @ root_m
            return Pose(pose.joints, world_from_body)
        pose = self._of_skeleton(pose)
        parent = self._joints(pose)[int(self._body.parents[handle.joint]), :, :3]
        joints = np.array(pose.joints, float)
        joints[handle.joint] = Rotation.from_matrix(parent.T @ world_from_joint).as_rotvec()
        return Pose(self._held(joints, (handle.joint,), pose.joints), pose.world_from_body)

    def pulled(self, pose: Pose, handle: Handle, target_m: np.ndarray) -> Pose:
        """The pose whose handle is as near to ``target_m`` (3,) in the world as the joints above it allow.

        Levenberg-Marquardt on  |p(x) - target|^2 + STAY^2 |x - x_0|^2  within the ranges (``possible.bounded_step``).
        """
        if not handle.movers:
            shift_m = target_m - _at(self._joints(pose), handle)
            world_from_body = pose.world_from_body.copy()
            world_from_body[:3, 3] += shift_m
            return Pose(pose.joints, world_from_body)
        pose = self._of_skeleton(pose)
        joints = self._held(np.array(pose.joints, float), handle.movers, pose.joints)
        movers = np.repeat(handle.movers, 3)
        axes = np.tile(np.arange(3), len(handle.movers))
        free = self._body.local_free[movers, axes]
        movers, axes = movers[free], axes[free]
        directions = self._body.joint_axes[movers, :, axes]  # (D, 3)
        lower, upper = self._body.local_lower[movers, axes], self._body.local_upper[movers, axes]
        start = np.einsum("dk,dk->d", directions, joints[movers])
        off_m = self._place(joints, pose.world_from_body, handle) - target_m
        energy, damping = float(off_m @ off_m), FIRST_DAMPING
        for _ in range(ITERATIONS):
            jacobian = np.empty((3, len(movers)))
            for d, (mover, direction) in enumerate(zip(movers, directions, strict=True)):
                nudged = joints.copy()
                nudged[mover] += NUDGE_RAD * direction
                place_m = self._place(nudged, pose.world_from_body, handle)
                jacobian[:, d] = (place_m - target_m - off_m) / NUDGE_RAD
            now = np.einsum("dk,dk->d", directions, joints[movers])
            normal = jacobian.T @ jacobian + (STAY_M**2 + damping) * np.eye(len(movers))
            slope = jacobian.T @ off_m + STAY_M**2 * (now - start)
            step = bounded_step(normal, slope, np.minimum(lower - now, 0), np.maximum(upper - now, 0))
            candidate = joints.copy()
            np.add.at(candidate, movers, step[:, None] * directions)
            moved_m = self._place(candidate, pose.world_from_body, handle) - target_m
            stay = STAY_M * (now + step - start)
            if (after := float(moved_m @ moved_m + stay @ stay)) >= energy:
                damping *= 8
                continue
            joints, off_m, damping = candidate, moved_m, damping / 4
            if energy - after < ENOUGH_M2:
                break
            energy = after
        return Pose(self._held(joints, handle.movers, pose.joints), pose.world_from_body)

    def _held(self, joints: np.ndarray, moved: tuple[int, ...], before: np.ndarray) -> np.ndarray:
        """``joints`` with those ``moved`` kept within their ranges and the others as ``before``: a fit may have gone
        a little beyond them, and nobody wants other joints to jump."""
        held = np.array(before, float)
        held[list(moved)] = within_range(joints, self._body)[list(moved)]
        return held

    def _of_skeleton(self, pose: Pose) -> Pose:
        """Without a skirt's bones: where it swung when it was filmed says nothing of how it hangs now."""
        return Pose(pose.joints[: self._body.num_joints], pose.world_from_body)

    def _joints(self, pose: Pose) -> np.ndarray:
        return self._body.joint_transforms(self._rest_m, pose.joints, pose.world_from_body)

    def _place(self, joints: np.ndarray, world_from_body: np.ndarray, handle: Handle) -> np.ndarray:
        return _at(self._body.joint_transforms(self._rest_m, joints, world_from_body), handle)


def _at(joints: np.ndarray, handle: Handle) -> np.ndarray:
    """(3,) where a handle is, from the joints' (J, 3, 4)."""
    rotation, place_m = joints[handle.joint, :, :3], joints[handle.joint, :, 3]
    return rotation @ handle.offset_m + place_m
