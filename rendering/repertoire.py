"""What an avatar can be seen doing live: standing, what was filmed, and motion files.

N frames, J joints.  Everything is placed in the world: z up, floor at 0, metres.  Motions are put on a body when they
are first asked for, and kept.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from capture.camera import Camera, project
from rendering.avatar import Avatar, Shape
from rendering.captured import Captured, shrunk
from rendering.motion import MotionClip, load_motion
from rendering.possible import within_range
from rendering.render import CAPTURE_LONG_SIDE_PX
from rendering.retarget import Motion, retarget
from rendering.skeletons import find_roles
from rendering.studio import Room

STANDING, HELDOUT, FILMED = "standing", "recording, held-out frames", "recording, all frames"
KEPT_FRAMES = 150  # 230 MB of them at most
AROUND = 0.12  # of the person's height, in a comparison
BEYOND = (60, 62, 66)  # the edges of the recorded picture


class Filmed:
    """A subject's recording, to compare with."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self._frame: tuple[int, np.ndarray] | None = None  # the last one decoded
        self._empties: dict[int, np.ndarray] = {}  # making one takes longer than the avatar

    @cached_property
    def extent_px(self) -> np.ndarray:
        """(4,) left, top, right, bottom of everywhere the person goes, in the recorded picture."""
        fit = self.captured.fit
        joints_px = project(fit.camera, np.asarray(fit.joints_color_m[fit.tracked], float)).reshape(-1, 2)
        joints_px = joints_px[np.isfinite(joints_px).all(1)]
        low, high = np.percentile(joints_px, 0.5, axis=0), np.percentile(joints_px, 99.5, axis=0)
        margin_px = AROUND * (high[1] - low[1])
        return np.array([low[0] - margin_px, low[1] - 2 * margin_px, high[0] + margin_px, high[1] + margin_px])

    def camera(self, pane_wh: tuple[int, int]) -> Camera:
        """The recording's camera where the person is, filling a pane."""
        left, top, right, bottom = self.extent_px
        width, height = pane_wh
        scale = min(width / (right - left), height / (bottom - top))
        whole = self.captured.fit.camera
        start_x = _inside((left + right) / 2, width / scale, whole.image_wh[0])
        start_y = _inside((top + bottom) / 2, height / scale, whole.image_wh[1])
        return whole.crop((start_x, start_y, start_x + width / scale, start_y + height / scale), pane_wh)

    def frame(self, index: int, camera: Camera) -> np.ndarray:
        """(H, W, 3) uint8 of a recorded frame as ``camera`` of this recording shows it; grey beyond its edges."""
        return _seen(self._color(index), self.captured.fit.camera, camera)

    def empty(self, index: int, camera: Camera) -> np.ndarray:
        """(H, W, 3) uint8 of the same without the person."""
        return _seen(self._empty(index), shrunk(self.captured.fit.camera, CAPTURE_LONG_SIDE_PX), camera)

    def _empty(self, index: int) -> np.ndarray:
        if index not in self._empties:
            while len(self._empties) >= KEPT_FRAMES:
                del self._empties[next(iter(self._empties))]
            behind = self._room.behind(self._color(index), self.captured.masks[index])
            self._empties[index] = np.rint(behind * 255).astype(np.uint8)
        return self._empties[index]

    @cached_property
    def _room(self) -> Room:
        small = shrunk(self.captured.fit.camera, CAPTURE_LONG_SIDE_PX)
        return Room.of(self.captured.recording, self.captured.masks, small.image_wh)

    def _color(self, index: int) -> np.ndarray:
        if self._frame is None or self._frame[0] != index:
            self._frame = (index, self.captured.recording.color(index))
        return self._frame[1]


def _inside(middle: float, length: float, limit: float) -> float:
    """Where a stretch around ``middle`` begins, moved into 0..limit where it fits."""
    return (limit - length) / 2 if length > limit else float(np.clip(middle - length / 2, 0, limit - length))


def _seen(picture: np.ndarray, whole: Camera, camera: Camera) -> np.ndarray:
    """A recorded picture (H, W, 3) of camera ``whole`` resampled to ``camera``, which differs by its crop."""
    shrink = int(whole.fx_px / camera.fx_px)
    if shrink > 1:  # mean over the footprint
        size = (picture.shape[1] // shrink, picture.shape[0] // shrink)
        return _seen(np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)), whole.resize(size), camera)
    scale_x, scale_y = camera.fx_px / whole.fx_px, camera.fy_px / whole.fy_px
    # cv2 counts from pixel centres, our cameras from the corner.
    shift_x = camera.cx_px - whole.cx_px * scale_x + scale_x / 2 - 0.5
    shift_y = camera.cy_px - whole.cy_px * scale_y + scale_y / 2 - 0.5
    matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
    return np.asarray(cv2.warpAffine(picture, matrix, camera.image_wh, borderValue=BEYOND))


@dataclass(frozen=True)
class Act:
    """A motion and, where it was filmed, which recorded frame each of its frames is."""

    motion: Motion
    frame_indices: np.ndarray | None = None  # (N,)


class Repertoire:
    """The acts of everybody in an avatar.  May be asked from several threads."""

    def __init__(self, avatar: Avatar, workspace: Path, files: Sequence[Path] = ()) -> None:
        """Raises UserError for a motion file that cannot be read, and for a damaged recording."""
        self._avatar = avatar
        self._clips = {path.name: load_motion(path) for path in files}
        for clip in self._clips.values():
            check_fits(clip, next(iter(avatar.bodies.values())))
        self._filmed = {name: _open(workspace / name) for name in avatar.subjects}
        self._acts: dict[tuple[str, str], Act] = {}
        self._lock = threading.Lock()

    @property
    def first(self) -> str | None:
        """The motion that somebody named on the command line first."""
        return next(iter(self._clips), None)

    def filmed(self, subject: str) -> Filmed | None:
        """His recording; None when the workspace does not have it, or nothing in it was tracked."""
        return self._filmed[subject]

    def names(self, subject: str, own: Mapping[str, MotionClip]) -> tuple[str, ...]:
        """What ``subject`` can do; ``own`` are more clips that somebody brought."""
        filmed = self._filmed[subject]
        names = [STANDING]
        if filmed is not None:
            names += [HELDOUT] if len(filmed.captured.heldout_indices) else []
            names += [FILMED]
        return (*names, *self._clips, *(name for name in own if name not in self._clips))

    def act(self, subject: str, name: str, own: Mapping[str, MotionClip]) -> Act:
        """One of ``names``, on this subject's body.  Raises UserError for a skeleton that lacks joints ours has."""
        if name in own and name not in self._clips:
            return Act(self._retargeted(subject, own[name]))
        with self._lock:
            if (subject, name) not in self._acts:
                self._acts[subject, name] = self._make(subject, name)
            return self._acts[subject, name]

    def _make(self, subject: str, name: str) -> Act:
        if name in self._clips:
            return Act(self._retargeted(subject, self._clips[name]))
        filmed = self._filmed[subject]
        if name == STANDING or filmed is None:
            return Act(standing(self._avatar.bodies[subject]))
        captured = filmed.captured
        indices = captured.heldout_indices if name == HELDOUT else np.flatnonzero(captured.fit.tracked)
        return Act(captured.motion(indices), indices)

    def _retargeted(self, subject: str, clip: MotionClip) -> Motion:
        return retarget(clip, *self._avatar.bodies[subject].skeleton())


def standing(shape: Shape) -> Motion:
    """One frame: at ease on the floor, facing -y."""
    pose = within_range(np.asarray(shape.body.bare.joint_prior_mean, float), shape.body.bare)
    pose[0] = 0
    world_from_body = np.eye(4)
    world_from_body[2, 3] = -shape.vertices_camera_m(pose, np.eye(4))[:, 2].min()
    return Motion(STANDING, pose[None].astype(np.float32), world_from_body[None], 30.0)


def _open(subject_dir: Path) -> Filmed | None:
    stages = ("01_recording", "02_masks", "03_fit", "04_keyframes")
    if not all((subject_dir / stage).is_dir() for stage in stages):
        return None
    captured = Captured.load(subject_dir)
    return Filmed(captured) if captured.fit.tracked.any() else None


def check_fits(clip: MotionClip, shape: Shape) -> None:
    """Raises UserError, naming what is missing, when ``clip`` cannot be put on this body; quick."""
    for names, parents, name in (
        (clip.joint_names, clip.parents, clip.name),
        (shape.body.joint_names, tuple(int(p) for p in shape.body.parents), "this avatar's body"),
    ):
        find_roles(names, parents, name)
