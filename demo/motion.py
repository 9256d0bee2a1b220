"""From a score to the performer's joint rotations: legs by two-bone inverse kinematics, arms and trunk directly.

J joints.  World: z up, floor at 0; the performer faces -y at heading 0 and her left is +x.
Rotations are in body-aligned axes at rest (see ``demo/character.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.character import Character
from demo.choreography import Score

SOLE_M = 0.016
SPINE = {"spine05": 0.15, "spine04": 0.2, "spine03": 0.25, "spine02": 0.2, "spine01": 0.2}
PELVIS_SHARE = 0.4  # of a trunk bend, taken by the hips


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) by Rodrigues' formula; axis of unit length."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


X, Y, Z = np.eye(3)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def basis(along: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """(3, 3) columns: ``along``, the part of ``towards`` across it, and their cross product."""
    along = unit(along)
    across = unit(towards - along * (along @ towards))
    return np.stack([along, across, np.cross(along, across)], axis=1)


@dataclass(frozen=True)
class Limb:
    """A two-bone limb at rest: joint indices, lengths, its frame and its bend."""

    upper: int
    lower: int
    end: int
    lengths_m: tuple[float, float]
    rest: np.ndarray  # (3, 3) basis: upper bone, the way the lower bone folds, hinge
    rest_bend: float

    @staticmethod
    def of(character: Character, upper: str, lower: str, end: str) -> Limb:
        a, b, c = (character.joint(n) for n in (upper, lower, end))
        first, second = character.joints_m[b] - character.joints_m[a], character.joints_m[c] - character.joints_m[b]
        lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
        bend = float(np.arccos(np.clip(first @ second / lengths[0] / lengths[1], -1, 1)))
        return Limb(a, b, c, lengths, basis(first, second), bend)

    def rotations(self, along: np.ndarray, fold: np.ndarray, bend: float) -> tuple[np.ndarray, np.ndarray]:
        """Upper bone's rotation (in its parent's frame) and lower bone's, from directions in that frame."""
        return basis(along, fold) @ self.rest.T, rotation(self.rest[:, 2], bend - self.rest_bend)


class Actor:
    """Plays a score on a character."""

    def __init__(self, character: Character, score: Score) -> None:
        self._character, self._score = character, score
        self._legs = [Limb.of(character, f"upperleg01.{s}", f"lowerleg01.{s}", f"foot.{s}") for s in "LR"]
        self._arms = [Limb.of(character, f"upperarm01.{s}", f"lowerarm01.{s}", f"wrist.{s}") for s in "LR"]
        self._hips = np.array([character.joints_m[leg.upper] for leg in self._legs]) - character.joints_m[0]
        self._ankle_m = character.joints_m[self._legs[0].end][2] + SOLE_M

    def pose(self, sample: int) -> tuple[np.ndarray, np.ndarray]:
        """(J, 3, 3) local rotations and (4, 4) world_from_root at a sample of the score."""
        value = {name: float(series[sample]) for name, series in self._score.channels.items()}
        rotations = np.tile(np.eye(3), (len(self._character.joint_names), 1, 1))
        world_from_root = self._pelvis(sample, value)
        for side, leg in enumerate(self._legs):
            self._leg(rotations, world_from_root, leg, side, sample)
        self._trunk(rotations, value)
        for letter, arm in zip("LR", self._arms, strict=True):
            self._arm(rotations, arm, letter, value)
        return rotations, world_from_root

    def _pelvis(self, sample: int, value: dict[str, float]) -> np.ndarray:
        weight = self._score.weight_left[sample]
        feet = self._score.feet_m[sample]
        heading = value["yaw"]
        backward = np.array([-np.sin(heading), np.cos(heading)])
        centre = weight * feet[0, :2] + (1 - weight) * feet[1, :2]
        # A raised foot does not carry: the pelvis stays over the standing one, halfway.
        centre = 0.75 * centre + backward * (0.10 * np.sin(value["bend"]) + 0.22 * value["squat"] - 0.012)
        world = np.eye(4)
        tilt = rotation(X, PELVIS_SHARE * value["bend"] + 0.25 * value["squat"]) @ rotation(Y, 0.10 * (weight - 0.5))
        world[:3, :3] = rotation(Z, heading) @ tilt
        standing = self._character.joints_m[0][2] + SOLE_M - 0.012
        world[:3, 3] = (*centre, standing - value["squat"])
        # Never higher than a planted leg can reach.
        for side, leg in enumerate(self._legs):
            if feet[side, 2] > 0.1:
                continue
            hip = world[:3, :3] @ self._hips[side] + world[:3, 3]
            flat = float(np.linalg.norm(feet[side, :2] - hip[:2]))
            reach = 0.992 * sum(leg.lengths_m)
            top = feet[side, 2] + self._ankle_m + np.sqrt(max(reach**2 - flat**2, 0.01))
            world[2, 3] += min(top - hip[2], 0.0)
        return world

    def _leg(self, rotations, world_from_root, leg: Limb, side: int, sample: int) -> None:
        yaw, pitch = self._score.feet_yaw[sample, side], self._score.feet_pitch[sample, side]
        foot = rotation(Z, yaw) @ rotation(X, pitch)
        # Pitch turns about the ball of the foot, 12 cm before the ankle.
        ball = rotation(Z, yaw) @ np.array([0, -0.12, -self._ankle_m])
        ankle = (
            self._score.feet_m[sample, side]
            + (0, 0, self._ankle_m)
            + ball
            - foot @ np.array([0, -0.12, -self._ankle_m])
        )
        root = world_from_root[:3, :3]
        hip = root @ self._hips[side] + world_from_root[:3, 3]
        reach = ankle - hip
        first, second = leg.lengths_m
        distance = float(np.clip(np.linalg.norm(reach), abs(first - second) + 0.01, first + second - 1e-4))
        reach = unit(reach)
        forward = rotation(Z, 0.5 * (yaw + self._score.channels["yaw"][sample])) @ -Y
        cosine = (first**2 + distance**2 - second**2) / (2 * first * distance)
        angle = float(np.arccos(np.clip(cosine, -1, 1)))
        across = unit(forward - reach * (reach @ forward))
        along = np.cos(angle) * reach + np.sin(angle) * across
        bend = np.pi - float(np.arccos(np.clip((first**2 + second**2 - distance**2) / (2 * first * second), -1, 1)))
        rotations[leg.upper], rotations[leg.lower] = leg.rotations(root.T @ along, root.T @ (reach - along), bend)
        shank = root @ rotations[leg.upper] @ rotations[leg.lower]
        rotations[leg.end] = shank.T @ foot

    def _trunk(self, rotations, value: dict[str, float]) -> None:
        bend = (1 - PELVIS_SHARE) * value["bend"] - 0.2 * value["squat"]
        for name, share in SPINE.items():
            local = rotation(Z, share * value["twist"]) @ rotation(Y, share * value["lean"])
            rotations[self._character.joint(name)] = local @ rotation(X, share * bend)
        for name in ("neck01", "neck02", "neck03", "head"):
            # The head keeps about half of its level.
            nod = -0.45 * value["bend"] + value["nod"]
            rotations[self._character.joint(name)] = rotation(Z, 0.25 * value["look"]) @ rotation(X, 0.25 * nod)

    def _arm(self, rotations, arm: Limb, side: str, value: dict[str, float]) -> None:
        sign = 1.0 if side == "L" else -1.0
        elevation, azimuth = value[f"elevation.{side}"], value[f"azimuth.{side}"]
        out = np.sin(elevation)
        along = np.array([sign * out * np.cos(azimuth), -out * np.sin(azimuth), -np.cos(elevation)])
        ahead = max(float(out) * float(np.sin(azimuth)), 0.0)
        # The forearm folds forwards; when the arm points forwards, it folds up and in.
        fold = -Y + ahead * (1.2 * Z - sign * 1.2 * X)
        fold = rotation(along, -sign * value[f"roll.{side}"]) @ basis(along, fold)[:, 1]
        lifted = max(elevation - np.radians(50), 0.0)
        clavicle = rotation(Y, -sign * 0.28 * lifted) @ rotation(Z, -sign * 0.12 * ahead)
        rotations[self._character.joint(f"clavicle.{side}")] = clavicle
        upper, lower = arm.rotations(clavicle.T @ along, clavicle.T @ fold, value[f"elbow.{side}"])
        rotations[arm.upper], rotations[arm.lower] = upper, lower
