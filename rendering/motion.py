"""Motion capture files as they are: BVH and AMASS npz to a MotionClip in the file's own axes and units.

N frames, K joints of the file's skeleton.  ``retarget`` puts a clip on our body.

BVH: a hierarchy of joints with OFFSETs and CHANNELS, then one line of numbers per frame; a joint's rotation is the
product of its channels in the order they are listed, in degrees.  A joint with position channels is placed by them
instead of by its OFFSET (Bandai-Namco's files give all joints six channels).
AMASS: axis-angle of the SMPL skeleton and the root's translation, metres, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from capture.errors import UserError

MAX_FRAMES = 200_000  # two hours at 30 fps; beyond, the file is broken
MAX_JOINTS = 2_000

# SMPL's 22 body joints and their places in an average adult's T pose (y up, faces +z), rounded to the centimetre: AMASS
# files hold rotations only, and retargeting needs no more than the bones' directions and rough proportions.
SMPL_JOINTS: tuple[tuple[str, int, tuple[float, float, float]], ...] = (
    ("pelvis", -1, (0.00, -0.22, 0.03)),
    ("left_hip", 0, (0.07, -0.31, 0.02)),
    ("right_hip", 0, (-0.07, -0.31, 0.02)),
    ("spine1", 0, (0.00, -0.11, 0.00)),
    ("left_knee", 1, (0.10, -0.69, 0.02)),
    ("right_knee", 2, (-0.10, -0.69, 0.02)),
    ("spine2", 3, (0.00, 0.02, 0.00)),
    ("left_ankle", 4, (0.09, -1.09, -0.03)),
    ("right_ankle", 5, (-0.09, -1.09, -0.03)),
    ("spine3", 6, (0.00, 0.07, 0.03)),
    ("left_foot", 7, (0.12, -1.14, 0.09)),
    ("right_foot", 8, (-0.12, -1.14, 0.09)),
    ("neck", 9, (0.00, 0.29, -0.01)),
    ("left_collar", 9, (0.08, 0.19, -0.01)),
    ("right_collar", 9, (-0.08, 0.19, -0.01)),
    ("head", 12, (0.00, 0.35, 0.04)),
    ("left_shoulder", 13, (0.17, 0.23, -0.02)),
    ("right_shoulder", 14, (-0.17, 0.23, -0.02)),
    ("left_elbow", 16, (0.43, 0.21, -0.04)),
    ("right_elbow", 17, (-0.43, 0.21, -0.04)),
    ("left_wrist", 18, (0.68, 0.22, -0.05)),
    ("right_wrist", 19, (-0.68, 0.22, -0.05)),
)


@dataclass(frozen=True)
class MotionClip:
    """A skeleton and its movement, in the axes and units of the file it came from."""

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]  # -1 for the root; parents come before children
    rest_positions: np.ndarray  # (K, 3)
    rest_rotations: np.ndarray  # (K, 3, 3) global
    positions: np.ndarray  # (N, K, 3)
    rotations: np.ndarray  # (N, K, 3, 3) global
    frames_per_second: float

    def __len__(self) -> int:
        return len(self.positions)


def load_motion(path: Path) -> MotionClip:
    """Read a .bvh or AMASS .npz file.  Raises UserError when it is neither, is broken, or holds no frame."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such motion file; give a .bvh or an AMASS .npz, a subject that has a 03_fit, or the word "
            "heldout or recording"
        )
    suffix = path.suffix.lower()
    if suffix == ".bvh":
        return load_bvh(path)
    if suffix == ".npz":
        return load_amass(path)
    raise UserError(f"{path}: motions are read from .bvh and AMASS .npz files, not from {suffix or 'a nameless kind'}")


def load_bvh(path: Path) -> MotionClip:
    """Read a BVH file.  Raises UserError naming the line that cannot be understood."""
    return _BvhParser(path).parse()


class _BvhParser:
    """Recursive descent without the recursion: a stack of open joints, tokens with their line numbers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text(encoding="utf-8", errors="replace")
        self._tokens = [(token, number) for number, line in enumerate(text.splitlines(), 1) for token in line.split()]
        self._at = 0
        self._names: list[str] = []
        self._parents: list[int] = []
        self._offsets: list[tuple[float, float, float]] = []
        self._channels: list[tuple[str, ...]] = []

    def parse(self) -> MotionClip:
        self._hierarchy()
        values, frame_time_s = self._motion()
        offsets = np.array(self._offsets)
        return _bvh_clip(self._path.name, self._names, self._parents, offsets, self._channels, values, frame_time_s)

    def _fail(self, problem: str) -> UserError:
        line = self._tokens[min(self._at, len(self._tokens) - 1)][1] if self._tokens else 1
        return UserError(f"{self._path}, line {line}: {problem}; this is not a whole BVH file, export or copy it again")

    def _next(self, expected: str | None = None) -> str:
        if self._at >= len(self._tokens):
            raise self._fail(f"the file ends where {expected or 'more'} should follow")
        token = self._tokens[self._at][0]
        if expected is not None and token.upper().rstrip(":") != expected:
            raise self._fail(f"found {token[:40]!r} where {expected} should stand")
        self._at += 1
        return token

    def _number(self) -> float:
        token = self._next()
        try:
            number = float(token)
        except ValueError:
            self._at -= 1
            raise self._fail(f"{token[:40]!r} is not a number") from None
        if not np.isfinite(number):
            self._at -= 1
            raise self._fail(f"{token[:40]!r} is not a finite number")
        return number

    def _hierarchy(self) -> None:
        self._next("HIERARCHY")
        open_joints: list[int] = []  # the end sites are -2: they hold an OFFSET and nothing else
        while True:
            token = self._next().upper()
            if token in ("ROOT", "JOINT"):
                if (token == "ROOT") == bool(open_joints) or (token == "ROOT" and self._names) or -2 in open_joints:
                    raise self._fail(f"{token} in the wrong place (several roots are not supported)")
                self._names.append(self._next())
                self._parents.append(open_joints[-1] if open_joints else -1)
                self._offsets.append((0.0, 0.0, 0.0))
                self._channels.append(())
                open_joints.append(len(self._names) - 1)
                self._next("{")
                if len(self._names) > MAX_JOINTS:
                    raise self._fail(f"more than {MAX_JOINTS} joints")
            elif token == "END":
                self._next("SITE")
                self._next("{")
                open_joints.append(-2)
            elif token == "OFFSET" and open_joints:
                offset = (self._number(), self._number(), self._number())
                if open_joints[-1] >= 0:
                    self._offsets[open_joints[-1]] = offset
            elif token == "CHANNELS" and open_joints and open_joints[-1] >= 0:
                names = tuple(self._next().lower() for _ in range(int(self._number())))
                bad = [n for n in names if n[:1] not in "xyz" or n[1:] not in ("position", "rotation")]
                if bad:
                    raise self._fail(f"channel {bad[0]!r} is unknown")
                self._channels[open_joints[-1]] = names
            elif token == "}" and open_joints:
                open_joints.pop()
            elif token == "MOTION" and self._names and not open_joints:
                return
            else:
                raise self._fail(f"found {token[:40]!r} in the hierarchy")

    def _motion(self) -> tuple[np.ndarray, float]:
        self._next("FRAMES")
        num_frames = int(self._number())
        self._next("FRAME")
        self._next("TIME")
        frame_time_s = self._number()
        if not 1 <= num_frames <= MAX_FRAMES or not 1e-4 <= frame_time_s <= 10:
            raise self._fail(f"{num_frames} frames of {frame_time_s} s each cannot be")
        num_channels = sum(map(len, self._channels))
        rest = self._tokens[self._at :]
        if len(rest) < num_frames * num_channels:
            announced = f"{num_frames} frames of {num_channels} channels"
            raise self._fail(f"{announced} announced, but only {len(rest)} numbers follow")
        try:
            values = np.array([token for token, _ in rest[: num_frames * num_channels]], float)
        except ValueError as error:
            raise self._fail(f"a frame holds something that is not a number ({error})") from None
        if not np.isfinite(values).all():
            raise self._fail("a frame holds a number that is not finite")
        return values.reshape(num_frames, num_channels), frame_time_s


def _bvh_clip(
    name: str,
    joint_names: list[str],
    parents: list[int],
    offsets: np.ndarray,
    channels: list[tuple[str, ...]],
    values: np.ndarray,
    frame_time_s: float,
) -> MotionClip:
    """Forward kinematics over all frames at once: ``values`` (N, channels) to global positions and rotations."""
    num_frames, num_joints = len(values), len(joint_names)
    positions = np.empty((num_frames, num_joints, 3))
    rotations = np.empty((num_frames, num_joints, 3, 3))
    rest_positions = np.empty((num_joints, 3))
    at = 0
    for joint, names in enumerate(channels):
        local_offset = np.broadcast_to(offsets[joint], (num_frames, 3)).copy()
        local = np.broadcast_to(np.eye(3), (num_frames, 3, 3))
        order = ""
        for channel, channel_name in enumerate(names):
            if channel_name.endswith("position"):
                local_offset[:, "xyz".index(channel_name[0])] = values[:, at + channel]
            else:
                order += channel_name[0].upper()
        angles = [at + c for c, n in enumerate(names) if n.endswith("rotation")]
        if order:  # upper case: intrinsic, the order in which the file lists them
            local = Rotation.from_euler(order, values[:, angles], degrees=True).as_matrix()
        at += len(names)
        parent = parents[joint]
        if parent < 0:
            positions[:, joint], rotations[:, joint] = local_offset, local
            rest_positions[joint] = offsets[joint]
        else:
            positions[:, joint] = positions[:, parent] + np.einsum("nij,nj->ni", rotations[:, parent], local_offset)
            rotations[:, joint] = rotations[:, parent] @ local
            rest_positions[joint] = rest_positions[parent] + offsets[joint]
    rest_rotations = np.broadcast_to(np.eye(3), (num_joints, 3, 3)).copy()
    return MotionClip(
        name, tuple(joint_names), tuple(parents), rest_positions, rest_rotations, positions, rotations, 1 / frame_time_s
    )


def load_amass(path: Path) -> MotionClip:
    """Read an AMASS npz (SMPL-H or SMPL-X: poses, trans, mocap_framerate).  Raises UserError for any other npz."""
    try:
        with np.load(path, allow_pickle=False) as file:
            poses, translations = _smpl_poses(file), np.asarray(_first_of(file, TRANSLATIONS), float)
            rate_key = next((k for k in FRAME_RATES if k in file.files), None)
            frames_per_second = float(file[rate_key]) if rate_key else 30.0
    except Exception as error:  # numpy raises half a dozen kinds for a broken or foreign archive
        raise UserError(f"{path}: not an AMASS file with poses, trans and mocap_framerate ({error})") from None
    joints = len(SMPL_JOINTS)
    if poses.ndim != 2 or poses.shape[1] < 3 * joints or translations.shape != (len(poses), 3) or not len(poses):
        raise UserError(f"{path}: poses {poses.shape} and trans {translations.shape}; AMASS has (N, >= 66) and (N, 3)")
    if not (np.isfinite(poses).all() and np.isfinite(translations).all() and 0 < frames_per_second < 10_000):
        raise UserError(f"{path}: poses, trans or mocap_framerate hold values that are not finite; download it again")
    local = Rotation.from_rotvec(poses[:, : 3 * joints].reshape(-1, 3)).as_matrix().reshape(-1, joints, 3, 3)
    rest = np.array([place for _, _, place in SMPL_JOINTS])
    positions = np.empty((len(poses), joints, 3))
    rotations = np.empty_like(local)
    for joint, (_, parent, _) in enumerate(SMPL_JOINTS):
        if parent < 0:
            positions[:, joint], rotations[:, joint] = rest[joint] + translations, local[:, joint]
        else:
            positions[:, joint] = positions[:, parent] + rotations[:, parent] @ (rest[joint] - rest[parent])
            rotations[:, joint] = rotations[:, parent] @ local[:, joint]
    names = tuple(name for name, _, _ in SMPL_JOINTS)
    parents = tuple(parent for _, parent, _ in SMPL_JOINTS)
    upright = Rotation.from_euler("X", 90, degrees=True).as_matrix()  # SMPL rests y up, AMASS moves z up
    ahead = rotations[:, 0, :, 1].mean(0)  # where the trunk points
    if abs(ahead[1]) > abs(ahead[2]):  # what estimates people from videos often stays y up
        upright = np.eye(3)
        if ahead[1] < 0:  # y down, the axes of a camera
            upright = np.diag([1.0, -1.0, -1.0])
    rest_rotations = np.broadcast_to(upright, (joints, 3, 3)).copy()
    rest = rest @ upright.T
    return MotionClip(path.name, names, parents, rest, rest_rotations, positions, rotations, frames_per_second)


FRAME_RATES = ("mocap_framerate", "mocap_frame_rate", "fps", "frame_rate")
TRANSLATIONS = ("trans", "transl", "translation")
ROOTS, BODIES = ("root_orient", "global_orient"), ("pose_body", "body_pose")


def _smpl_poses(file: Any) -> np.ndarray:
    """(N, >= 66) axis-angle, whole or in the two pieces that some programs write."""
    if "poses" in file.files:
        return np.asarray(file["poses"], float)
    root, rest = (np.asarray(_first_of(file, names), float) for names in (ROOTS, BODIES))
    return np.concatenate([root.reshape(len(root), -1), rest.reshape(len(rest), -1)], axis=1)


def _first_of(file: Any, names: tuple[str, ...]) -> np.ndarray:
    for name in names:
        if name in file.files:
            return file[name]
    raise KeyError(f"no {names[0]} in it")
